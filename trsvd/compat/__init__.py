"""Drop-ins for SciPy's ``svds`` and scikit-learn's ``randomized_svd`` and ``TruncatedSVD``.

For code that changes one import. Arguments, their checks, and what comes back are those of the
originals; the answers are trsvd's: checked, and never short of the tolerance in silence.
`TruncatedSVD` needs scikit-learn, which is imported when it is asked for.
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
