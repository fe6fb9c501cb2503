"""Truncated singular value decompositions that are right, or say that they are not."""

from __future__ import annotations

from trsvd import operators
from trsvd._errors import AdjointError, ConvergenceWarning, NotConverged, Status
from trsvd._select import Selection, select_method
from trsvd._svds import svds, svds_above, svds_to_tolerance
from trsvd.methods import (
    BlockKrylov,
    Direct,
    PowerIteration,
    RandomizedSVD,
    ThickRestartLanczos,
)
from trsvd.result import Completeness, Info, SVDResult

__all__ = [
    "AdjointError",
    "BlockKrylov",
    "Completeness",
    "ConvergenceWarning",
    "Direct",
    "Info",
    "NotConverged",
    "PowerIteration",
    "RandomizedSVD",
    "SVDResult",
    "Selection",
    "Status",
    "ThickRestartLanczos",
    "operators",
    "select_method",
    "svds",
    "svds_above",
    "svds_to_tolerance",
]

__version__ = "0.1.0.dev0"
