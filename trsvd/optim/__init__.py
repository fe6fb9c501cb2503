"""Optimizers as a thin layer over the balls: pure rules, on any array library.

A `Rule` is a chain of transforms, with ``init(params)`` and ``update(grads, state, params)``. The
optimizer classes for PyTorch are in `trsvd.optim.torch`, which is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trsvd.balls.families import FFanionBall, SFanionBall
from trsvd.optim.diagnostics import CSVWriter, Diagnostics, JSONLinesWriter
from trsvd.optim.dion_normuon import DionStep, RowNormalization
from trsvd.optim.oracles import (
    BallOracle,
    Direction,
    FStarOracle,
    Oracle,
    RegularizedOracle,
    polar_iterates,
)
from trsvd.optim.rules import (
    dion,
    f_fanion,
    f_muon,
    f_neon,
    f_star_neon,
    fanion,
    from_ball,
    from_oracle,
    muon,
    neon,
    normuon,
    nsgd,
    nuclear_neon,
    s_fanion,
    s_muon,
    s_neon,
    scale,
    sign_sgd,
)
from trsvd.optim.schedules import Constant, Cosine, Piecewise
from trsvd.optim.transforms import (
    LAYOUTS,
    SCALINGS,
    LastOnly,
    LearningRate,
    Momentum,
    OracleStep,
    Rule,
    ShapeScaling,
    Transform,
    WeightDecay,
    WeightNormalization,
    apply_updates,
    chain,
)

if TYPE_CHECKING:  # imported on first use, see __getattr__
    from trsvd.optim import torch as torch

__all__ = [
    "LAYOUTS",
    "SCALINGS",
    "BallOracle",
    "CSVWriter",
    "Constant",
    "Cosine",
    "OracleStep",
    "Diagnostics",
    "DionStep",
    "Direction",
    "FFanionBall",
    "FStarOracle",
    "JSONLinesWriter",
    "LastOnly",
    "LearningRate",
    "Transform",
    "Momentum",
    "Oracle",
    "Piecewise",
    "RegularizedOracle",
    "RowNormalization",
    "Rule",
    "SFanionBall",
    "ShapeScaling",
    "WeightDecay",
    "WeightNormalization",
    "apply_updates",
    "chain",
    "dion",
    "f_fanion",
    "f_muon",
    "f_neon",
    "f_star_neon",
    "fanion",
    "from_ball",
    "from_oracle",
    "muon",
    "neon",
    "normuon",
    "nsgd",
    "nuclear_neon",
    "polar_iterates",
    "s_fanion",
    "s_muon",
    "s_neon",
    "scale",
    "sign_sgd",
]

_SUBMODULES = {"trsvd.optim.torch"}

if not TYPE_CHECKING:  # with it, type checkers would accept every name

    def __getattr__(name: str) -> Any:
        module = f"{__name__}.{name}"
        if module not in _SUBMODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(module)
