"""Drop-in replacements for SciPy's ``svds``, and scikit-learn's `randomized_svd`, `TruncatedSVD`.

Existing code needs to change one import only. Arguments, their checks and the form of the results
are those of the originals. The computation is trsvd's: results are checked, and a missed tolerance
always raises an error or a warning. `TruncatedSVD` needs scikit-learn, which is imported on first
use.
"""

from __future__ import annotations

from typing import Any

from trsvd.compat.scipy import NoConvergence, svds
from trsvd.compat.sklearn import randomized_svd

__all__ = ["NoConvergence", "randomized_svd", "svds"]


def __getattr__(name: str) -> Any:
    if name != "TruncatedSVD":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trsvd.compat.estimators import TruncatedSVD

    return TruncatedSVD
