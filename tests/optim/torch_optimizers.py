"""The PyTorch optimizers with options, and what tests of their steps share."""

from __future__ import annotations

import copy

import torch

import trsvd
from trsvd import optim
from trsvd.optim import torch as T

__all__ = [
    "CLASSES",
    "SHAPES",
    "assert_same",
    "everything",
    "give",
    "gradients",
    "of_matrices",
    "parameters",
]

# A pair of one shape, which oracles compute together; a convolution; a stack.
SHAPES = [(14, 10), (14, 10), (9, 12), (6, 2, 3, 2), (3, 12, 9), (14, 10)]
NS = trsvd.NewtonSchulz(steps=5)

CLASSES = {
    "Fanion": (T.Fanion, {"k": 3}),
    "Fanion-exact": (T.Fanion, {"k": 3, "method": "exact"}),
    "NuMuon": (T.Fanion, {"k": optim.Cosine(2.0, 6.0, 4)}),
    "FFanion": (T.FFanion, {"k": 3}),
    "SFanion": (T.SFanion, {"k": 3}),
    "Neon": (T.Neon, {}),
    "FNeon": (T.FNeon, {}),
    "SNeon": (T.SNeon, {}),
    "Muon-exact": (T.Muon, {"method": "exact"}),
    "Muon-gram": (T.Muon, {"method": "gram"}),
    "Muon-NS": (T.Muon, {"method": NS}),
    "FMuon": (T.FMuon, {"method": "exact"}),
    "SMuon-NS": (T.SMuon, {"method": NS}),
    "NSGD": (T.NSGD, {}),
    "SignSGD": (T.SignSGD, {}),
    "NuclearNeon": (T.NuclearNeon, {"lam": 3.0}),
    "FStarNeon": (T.FStarNeon, {"lam": 3.0}),
    "NorMuon": (T.NorMuon, {"method": "exact"}),
    "Dion": (T.Dion, {"k": 3}),
    "Dion-orthonormal": (T.Dion, {"k": 3, "orthonormal": True}),
    "SCALE": (T.SCALE, {}),
    "BallOptimizer": (T.BallOptimizer, {"ball": trsvd.RowBall()}),
    "BallOptimizer-k": (
        T.BallOptimizer,
        {"ball": lambda k: 0.5 * trsvd.KyFanDualBall(k) + 0.5 * trsvd.MaxBall(), "k": 2},
    ),
}


def of_matrices(name):
    """The options for the hidden matrices of a split: SCALE warns that the head is not there."""
    cls, own = CLASSES[name]
    return {**own, "last_layer": ()} if cls is T.SCALE else own


def parameters(rng, shapes=SHAPES):
    return [torch.nn.Parameter(torch.tensor(rng.standard_normal(s))) for s in shapes]


def gradients(rng, shapes=SHAPES):
    return [torch.tensor(rng.standard_normal(s)) for s in shapes]


def give(params, grads):
    for p, G in zip(params, grads, strict=True):
        p.grad = G.clone()


def everything(optimizer, params):
    """A copy of parameters and state."""
    return [p.detach().clone() for p in params], copy.deepcopy(
        [dict(optimizer.state[p]) if p in optimizer.state else None for p in params]
    )


def assert_same(first, second):
    """Bit for bit, with the same keys."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first.nan_to_num(123.0), second.nan_to_num(123.0))
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_same(value, second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)
    else:
        assert first == second
