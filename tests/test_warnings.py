"""Warnings point at the line of the caller, however deep inside of trsvd they arise."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import trsvd
from trsvd import ConvergenceWarning, compat, optim


def flat(shape=(120, 90), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def almost_singular():
    """Its polar factor takes more steps of Newton-Schulz than are allowed below."""
    return flat() * 10.0 ** -np.linspace(0, 12, 90)


LOOSE = {"tol": 1e-15, "max_matvecs": 60, "rng": 0}
CALLS = {
    "svds": lambda: trsvd.svds(flat(), 3, **LOOSE),
    "svds of a batch": lambda: trsvd.svds(flat((3, 120, 90)), 3, method="trlan", **LOOSE),
    "svds_above": lambda: trsvd.svds_above(flat(), 15.0, method="trlan", **LOOSE),
    "svds_to_tolerance": lambda: trsvd.svds_to_tolerance(flat(), 0.9, method="trlan", **LOOSE),
    "kyfan_dual_lmo, gap": lambda: trsvd.kyfan_dual_lmo(flat(), 3, gap=1e-17),
    "kyfan_dual_lmo, tol": lambda: trsvd.kyfan_dual_lmo(flat(), 3, tol=1e-18, method="trlan"),
    "lmo_many": lambda: trsvd.KyFanDualBall(3).lmo_many([flat(), flat()], gap=1e-17),
    "Ball.lmo": lambda: trsvd.KyFanDualBall(3).lmo(flat(), gap=1e-17),
    "a sum of balls": lambda: trsvd.f_fanion_lmo(flat(), 3, alpha=0.5, gap=1e-17),
    "spectral_lmo": lambda: trsvd.spectral_lmo(
        almost_singular(), gap=1e-6, method=trsvd.NewtonSchulz(steps=2)
    ),
    "polar_factor": lambda: trsvd.RMSBall().lmo(
        almost_singular(), gap=1e-6, method=trsvd.PolarExpress(steps=2)
    ),
    "nuclear_neon": lambda: trsvd.nuclear_neon(flat(), 3.0, gap=1e-17),
    "compat.svds": lambda: compat.svds(flat(), 3, solver="lobpcg", maxiter=1, random_state=0),
    "optim": lambda: one_step(optim.fanion(0.1, k=3, gap=1e-17)),
}


def one_step(rule):
    W = flat()
    state = rule.init(W)
    rule.update(flat(seed=1), state, W)


@pytest.mark.parametrize("name", CALLS)
def test_a_warning_points_at_the_line_that_called(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[name]()
    assert [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    for w in caught:
        assert w.filename == __file__
