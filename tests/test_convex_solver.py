"""Balls and regularized updates against a general convex solver, on problems of 4 x 3."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from trsvd.balls import (
    ColumnBall,
    FrobeniusBall,
    KyFanBall,
    KyFanDualBall,
    MaxBall,
    NuclearBall,
    RMSBall,
    RowBall,
    SpectralBall,
)
from trsvd.regularized import f_star_neon, regularized_update

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    cvxpy = pytest.importorskip("cvxpy")

SHAPE = (4, 3)
# Interior point solvers stop at 1e-8 or so of the objective.
ACCURACY = 1e-6


def kyfan(X, k):
    """``s_1 + ... + s_k``, the k largest eigenvalues of the self-adjoint dilation."""
    m, n = SHAPE
    zero = [np.zeros((m, m)), np.zeros((n, n))]
    return cvxpy.lambda_sum_largest(cvxpy.bmat([[zero[0], X], [X.T, zero[1]]]), min(k, m, n))


def dual(X, k):
    return cvxpy.maximum(cvxpy.sigma_max(X), cvxpy.normNuc(X) / min(k, *SHAPE))


BALLS = {
    "dual-1": (KyFanDualBall(1), lambda X: dual(X, 1)),
    "dual-2": (KyFanDualBall(2), lambda X: dual(X, 2)),
    "dual-3": (KyFanDualBall(3), lambda X: dual(X, 3)),
    "dual-5": (KyFanDualBall(5), lambda X: dual(X, 5)),
    "kyfan-1": (KyFanBall(1), lambda X: kyfan(X, 1)),
    "kyfan-2": (KyFanBall(2), lambda X: kyfan(X, 2)),
    "kyfan-5": (KyFanBall(5), lambda X: kyfan(X, 5)),
    "nuclear": (NuclearBall(), cvxpy.normNuc),
    "spectral": (SpectralBall(), cvxpy.sigma_max),
    "rms": (RMSBall(), lambda X: np.sqrt(SHAPE[1] / SHAPE[0]) * cvxpy.sigma_max(X)),
    "frobenius": (FrobeniusBall(), lambda X: cvxpy.norm(X, "fro")),
    "max": (MaxBall(), lambda X: cvxpy.max(cvxpy.abs(X))),
    "column": (ColumnBall(), lambda X: cvxpy.max(cvxpy.norm(X, 2, axis=0))),
    "row": (RowBall(), lambda X: cvxpy.max(cvxpy.norm(X, 2, axis=1))),
}
SUMS = {
    "f-fanion": (0.5, "dual-2", 0.5, "frobenius"),
    "s-fanion": (0.7, "dual-2", 0.3 * 0.01, "max"),
    "dual+nuclear": (1.0, "dual-2", 1.0, "nuclear"),
    "kyfan+frobenius": (1.0, "kyfan-2", 1.0, "frobenius"),
    "column+row": (1.0, "column", 2.0, "row"),
}
all_balls = pytest.mark.parametrize("name", BALLS)
all_sums = pytest.mark.parametrize("name", SUMS)


def sum_of(name):
    a, first, b, second = SUMS[name]
    return a * BALLS[first][0] + b * BALLS[second][0]


def solve(objective, constraints=()):
    problem = cvxpy.Problem(cvxpy.Minimize(objective), list(constraints))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cvxpy.CLARABEL)
    assert problem.status in {"optimal", "optimal_inaccurate"}
    return problem.value


def inner(G, X):
    return cvxpy.sum(cvxpy.multiply(G, X))


@all_balls
def test_support(name, rng):
    ball, gauge = BALLS[name]
    for _ in range(2):
        G, X = rng.standard_normal(SHAPE), cvxpy.Variable(SHAPE)
        value = solve(inner(G, X), [gauge(X) <= 1])
        assert ball.support(G) == pytest.approx(-value, rel=ACCURACY)
        assert np.vdot(G, ball.lmo(G).update) == pytest.approx(value, rel=ACCURACY)


@all_sums
def test_support_of_a_sum(name, rng):
    a, first, b, second = SUMS[name]
    G, X, Y = rng.standard_normal(SHAPE), cvxpy.Variable(SHAPE), cvxpy.Variable(SHAPE)
    value = solve(inner(G, X + Y), [BALLS[first][1](X) <= a, BALLS[second][1](Y) <= b])
    assert sum_of(name).support(G) == pytest.approx(-value, rel=ACCURACY)
    assert np.vdot(G, sum_of(name).lmo(G).update) == pytest.approx(value, rel=ACCURACY)


@pytest.mark.parametrize("name", ["f-fanion", "dual+nuclear", "kyfan+frobenius"])
def test_gauge_of_a_sum(name, rng):
    """Over all matrices, not only over those with the singular vectors of X."""
    a, first, b, second = SUMS[name]
    for _ in range(3):
        X, Z = rng.standard_normal(SHAPE), cvxpy.Variable(SHAPE)
        value = solve(cvxpy.maximum(BALLS[first][1](Z) / a, BALLS[second][1](X - Z) / b))
        assert sum_of(name).gauge(X) == pytest.approx(value, rel=ACCURACY)


@all_balls
def test_regularized(name, rng):
    ball, gauge = BALLS[name]
    G, D, lam = rng.standard_normal(SHAPE), cvxpy.Variable(SHAPE), 0.6
    t = cvxpy.Variable(nonneg=True)
    value = solve(inner(G, D) + lam * cvxpy.square(t), [gauge(D) <= t])
    ours = regularized_update(ball, G, lam).update
    assert np.vdot(G, ours) + lam * ball.gauge(ours) ** 2 == pytest.approx(value, rel=ACCURACY)


def test_f_star_neon(rng):
    for lam in (0.3, 2.0):
        G, D = rng.standard_normal(SHAPE), cvxpy.Variable(SHAPE)
        square = (cvxpy.square(cvxpy.normNuc(D)) + cvxpy.sum_squares(D)) / 2
        value = solve(inner(G, D) + lam * square)
        ours = f_star_neon(G, lam).update
        S = np.linalg.svd(ours, compute_uv=False)
        objective = np.vdot(G, ours) + lam * (S.sum() ** 2 + (S**2).sum()) / 2
        assert objective == pytest.approx(value, rel=ACCURACY)
        # The objective is strongly convex with lam: an excess of e is at most sqrt(2 e / lam) away.
        distance = np.sqrt(2 * ACCURACY * abs(value) / lam)
        assert np.linalg.norm(ours - D.value) <= distance


@pytest.mark.parametrize("name", [*BALLS, *SUMS])
def test_no_feasible_point_beats_the_oracle(name, rng):
    """1000 points: on the boundary at random, near the minimizer, and with its singular vectors."""
    ball = BALLS[name][0] if name in BALLS else sum_of(name)
    parts = getattr(ball, "parts", ((1.0, ball),))
    G = rng.standard_normal(SHAPE)
    minimizers = [part.lmo(G).update for _, part in parts]
    least = np.vdot(G, ball.lmo(G).update)
    U, _, Vh = np.linalg.svd(G, full_matrices=False)
    for i in range(1000):
        X = 0
        for (a, part), D in zip(parts, minimizers, strict=True):
            Y = rng.standard_normal(SHAPE)
            if i % 3 == 1:
                Y = D + 0.1 ** rng.integers(1, 5) * Y
            if i % 3 == 2:
                Y = -(U * rng.exponential(size=3)) @ Vh
            X = X + a * Y / part.gauge(Y)
        assert np.vdot(G, X) >= least * (1 + 1e-13)
