"""Truncated singular value decompositions that report how accurate they are."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trsvd import operators
from trsvd._compiled.warmup import warmup
from trsvd._errors import AdjointError, ConvergenceWarning, Status
from trsvd._oracles.polar import spectral_function
from trsvd._oracles.result import LMOResult
from trsvd._solve.result import Completeness, Info, NotConverged, Subspace, SVDResult, load
from trsvd._solve.select import Selection, select_method
from trsvd._solve.svds import svds, svds_above, svds_to_tolerance, svdvals
from trsvd._version import __version__ as __version__
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

if TYPE_CHECKING:  # imported on first use, see __getattr__
    from trsvd import balls as balls
    from trsvd import compat as compat
    from trsvd import methods as methods
    from trsvd import optim as optim
    from trsvd import polar as polar
    from trsvd import sklearn as sklearn
    from trsvd import spectrum as spectrum
    from trsvd import testing as testing

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
    "kyfan_dual_lmo",
    "kyfan_dual_norm",
    "kyfan_lmo",
    "kyfan_norm",
    "load",
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
    "svdvals",
    "warmup",
]

# Public folders and modules that are attributes of the package without an import of their own.
_SUBMODULES = {"balls", "compat", "methods", "optim", "polar", "sklearn", "spectrum", "testing"}

if not TYPE_CHECKING:  # with it, type checkers would accept every name

    def __getattr__(name: str) -> Any:
        if name not in _SUBMODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    special = {name for name in globals() if name.startswith("__")}
    return sorted({*__all__, *_SUBMODULES, *special})
