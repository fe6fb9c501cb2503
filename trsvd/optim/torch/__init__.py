"""Optimizers for PyTorch: Fanion-k, Muon, and their families, as `torch.optim.Optimizer` classes.

Each class takes the hyper-parameters of `common_options` and its own ones. All of them can also be
set in a parameter group. Parameters must be matrices, in practice the hidden layers of a network
(see `split_parameters`).
"""

from __future__ import annotations

from trsvd.optim.torch.base import MatrixOptimizer, common_options
from trsvd.optim.torch.models import CompositeOptimizer
from trsvd.optim.torch.optimizers import (
    NSGD,
    SCALE,
    BallOptimizer,
    Dion,
    Fanion,
    FFanion,
    FMuon,
    FNeon,
    FStarNeon,
    Muon,
    Neon,
    NorMuon,
    NuclearNeon,
    SFanion,
    SignSGD,
    SMuon,
    SNeon,
)
from trsvd.optim.torch.split import Assignment, Split, split_parameters

__all__ = [
    "NSGD",
    "SCALE",
    "Assignment",
    "BallOptimizer",
    "CompositeOptimizer",
    "Dion",
    "FFanion",
    "FMuon",
    "FNeon",
    "FStarNeon",
    "Fanion",
    "MatrixOptimizer",
    "Muon",
    "Neon",
    "NorMuon",
    "NuclearNeon",
    "SFanion",
    "SMuon",
    "SNeon",
    "SignSGD",
    "Split",
    "common_options",
    "split_parameters",
]
