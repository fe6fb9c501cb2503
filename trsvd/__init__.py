"""Truncated singular value decompositions that are right, or say that they are not."""

from __future__ import annotations

from trsvd import operators
from trsvd._errors import AdjointError, ConvergenceWarning, Status
from trsvd._oracles.polar import spectral_function
from trsvd._oracles.result import LMOResult
from trsvd._solve.result import Completeness, Info, NotConverged, Subspace, SVDResult
from trsvd._solve.select import Selection, select_method
from trsvd._solve.svds import svds, svds_above, svds_to_tolerance
from trsvd.balls import (
    ColumnBall,
    FrobeniusBall,
    KyFanBall,
    KyFanDualBall,
    MaxBall,
    NuclearBall,
    RMSBall,
    RowBall,
    SchattenBall,
    SpectralBall,
)
from trsvd.lmo import (
    column_lmo,
    f_fanion_lmo,
    frobenius_lmo,
    kyfan_dual_lmo,
    kyfan_lmo,
    max_lmo,
    nuclear_lmo,
    rms_lmo,
    row_lmo,
    s_fanion_lmo,
    schatten_lmo,
    spectral_lmo,
)
from trsvd.methods import (
    BlockKrylov,
    Direct,
    PowerIteration,
    RandomizedSVD,
    ThickRestartLanczos,
)
from trsvd.norms import (
    frobenius_norm,
    kyfan_dual_norm,
    kyfan_norm,
    max_column_norm,
    max_norm,
    max_row_norm,
    nuclear_norm,
    rms_norm,
    spectral_norm,
)
from trsvd.polar.methods import NewtonSchulz, PolarExpress
from trsvd.regularized import f_star_neon, nuclear_neon, regularized_update

__all__ = [
    "AdjointError",
    "BlockKrylov",
    "ColumnBall",
    "Completeness",
    "ConvergenceWarning",
    "Direct",
    "FrobeniusBall",
    "Info",
    "KyFanBall",
    "KyFanDualBall",
    "LMOResult",
    "MaxBall",
    "NewtonSchulz",
    "NotConverged",
    "NuclearBall",
    "PolarExpress",
    "PowerIteration",
    "RMSBall",
    "RandomizedSVD",
    "RowBall",
    "SVDResult",
    "SchattenBall",
    "Selection",
    "SpectralBall",
    "Status",
    "Subspace",
    "ThickRestartLanczos",
    "column_lmo",
    "f_fanion_lmo",
    "f_star_neon",
    "frobenius_lmo",
    "frobenius_norm",
    "kyfan_dual_norm",
    "kyfan_norm",
    "kyfan_dual_lmo",
    "kyfan_lmo",
    "max_column_norm",
    "max_lmo",
    "max_norm",
    "max_row_norm",
    "nuclear_lmo",
    "nuclear_neon",
    "nuclear_norm",
    "operators",
    "regularized_update",
    "rms_lmo",
    "rms_norm",
    "row_lmo",
    "s_fanion_lmo",
    "schatten_lmo",
    "select_method",
    "spectral_function",
    "spectral_lmo",
    "spectral_norm",
    "svds",
    "svds_above",
    "svds_to_tolerance",
]

__version__ = "0.1.0.dev0"
