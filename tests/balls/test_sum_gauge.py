"""Gauges of sums of balls: against other solvers, points whose gauge is known, and norm axioms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

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
from trsvd.balls.sum_gauge import sum_gauge

F = FrobeniusBall()
SUMS = {
    "f-fanion-1": 0.5 * KyFanDualBall(1) + 0.5 * F,
    "f-fanion-2": 0.5 * KyFanDualBall(2) + 0.5 * F,
    "f-fanion-9": 0.2 * KyFanDualBall(9) + 0.8 * F,
    "kyfan-1+frobenius": KyFanBall(1) + F,
    "kyfan-2+frobenius": KyFanBall(2) + F,
    "frobenius+kyfan-9": 0.3 * F + 2 * KyFanBall(9),
    "spectral+frobenius": SpectralBall() + F,
    "dual+nuclear": KyFanDualBall(2) + NuclearBall(),
    "dual+spectral": KyFanDualBall(2) + 0.3 * SpectralBall(),
    "kyfan+dual": 0.7 * KyFanBall(2) + KyFanDualBall(2),
    "three": KyFanBall(2) + 0.5 * KyFanDualBall(2) + 0.2 * NuclearBall(),
}
all_sums = pytest.mark.parametrize("ball", SUMS.values(), ids=SUMS)
# The root finders stop at 1e-14 of the gauge, the distances that they compare lose a few digits
# where a part of the sum is far from the point; linear programs are solved to 1e-7 at worst.
REL = 1e-7


def random(rng, shape, dtype="float64"):
    X = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        X = X + 1j * rng.standard_normal(shape)
    return X.astype(dtype)


def gauge_of_values(ball, z):
    """The gauge of a diagonal matrix, entries of any sign and order."""
    z = -np.sort(-np.abs(z))
    if isinstance(ball, FrobeniusBall):
        return float(np.linalg.norm(z))
    if isinstance(ball, SpectralBall):
        return float(z[0])
    k = min(ball.k, len(z))
    return float(z[:k].sum() if isinstance(ball, KyFanBall) else max(z[0], z.sum() / k))


def brute_force(ball, S):
    """``min max_i gauge_i(z_i) / a_i`` over z_1, the rest in z_2: nested golden sections.

    The objective is convex, and so is its minimum over some of the variables.
    """
    (a, first), (b, second) = ball.parts

    def objective(z):
        z = np.array(z)
        return max(gauge_of_values(first, z) / a, gauge_of_values(second, S - z) / b)

    def least(fixed):
        if len(fixed) == len(S):
            return objective(fixed)
        low, high = 0.0, float(S[len(fixed)])
        ratio = (np.sqrt(5) - 1) / 2
        for _ in range(28):
            c, d = high - ratio * (high - low), low + ratio * (high - low)
            low, high = (low, d) if least([*fixed, c]) < least([*fixed, d]) else (c, high)
        return least([*fixed, (low + high) / 2])

    return least([])


@pytest.mark.parametrize("name", [name for name in SUMS if name != "three"])
def test_two_values_by_brute_force(name, rng):
    """28 golden sections leave 1.4e-6 of the interval, on which the gauge is Lipschitz."""
    ball = SUMS[name]
    lipschitz = sum(1 / a for a, _ in ball.parts) * 2
    for S in (np.array([1.0, 0.3]), np.array([1.0, 1.0]), np.array([2.0, 0.0])):
        X = np.diag(S)
        assert ball.gauge(X) == pytest.approx(brute_force(ball, S), abs=2e-6 * lipschitz * S[0])


@pytest.mark.parametrize("name", [name for name in SUMS if name != "three"])
def test_three_values_by_another_solver(name, rng):
    """SLSQP on the smooth form: least t with ``z_1 in t a B``, ``S - z_1 in t b C``."""
    ball = SUMS[name]
    parts = ball.parts

    def constraints(variables):
        t, z = variables[0], variables[1:]
        rest = S - z
        found = []
        for (a, part), x in zip(parts, (z, rest), strict=True):
            if isinstance(part, FrobeniusBall):
                found.append((t * a) ** 2 - (x**2).sum())
                continue
            r = len(x)
            k = r if isinstance(part, SpectralBall) else min(part.k, r)
            if isinstance(part, KyFanBall):
                subsets = [i for i in range(1, 2**r) if i.bit_count() == k]
                found += [t * a - sum(x[j] for j in range(r) if i >> j & 1) for i in subsets]
            else:
                found += [t * a - x[j] for j in range(r)]
                found.append(t * a * k - x.sum())
        return np.array([*found, *z, *rest])

    for _ in range(4):
        S = -np.sort(-rng.uniform(0.05, 2, 3))
        upper = 2 * sum(S) / min(a for a, _ in parts)
        best = np.inf
        for split in (0.3, 0.5, 0.7):
            answer = scipy.optimize.minimize(
                lambda v: v[0],
                [upper, *(split * S)],
                jac=lambda v: np.eye(len(v))[0],
                constraints={"type": "ineq", "fun": constraints},
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 300},
            )
            if answer.success and constraints(answer.x).min() >= -1e-9:
                best = min(best, answer.fun)
        assert np.isfinite(best)
        assert ball.gauge(np.diag(S)) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
@all_sums
def test_minimizers_are_on_the_boundary(ball, shape, dtype, rng):
    """``<G, D> = -support(G)`` and gauge(D) = 1, for minimizers of random and of special G."""
    for G in (random(rng, shape, dtype), np.eye(*shape, dtype=dtype), np.ones(shape, dtype=dtype)):
        D = ball.lmo(G).update
        assert ball.gauge(D) == pytest.approx(1, rel=REL)
        assert ball.contains(D)
        assert not ball.contains(1.001 * D)


@all_sums
def test_members_by_construction(ball, rng):
    """A sum of points of the parts is in the sum, and Hoelder's bound is a lower one."""
    for _ in range(25):
        X = 0
        for a, part in ball.parts:
            Y = random(rng, (5, 4)) @ np.diag(rng.exponential(size=4) ** 2)
            X = X + a * rng.uniform(0.2, 1) * Y / part.gauge(Y)
        gauge = ball.gauge(X)
        assert gauge <= 1 + REL
        for _ in range(5):
            G = random(rng, (5, 4))
            assert abs(np.vdot(G, X)) <= ball.support(G) * gauge * (1 + REL)


@all_sums
def test_is_the_dual_of_the_support(ball, rng):
    """``gauge(X) = max <G, X> / support(G)``, attained near where the gauge has its gradient."""
    for _ in range(3):
        S = -np.sort(-rng.uniform(0.1, 2, 3))
        X = np.diag(S)
        h = 1e-5
        gradient = [
            (ball.gauge(np.diag(S + h * e)) - ball.gauge(np.diag(S - h * e))) / (2 * h)
            for e in np.eye(3)
        ]
        G = np.diag(gradient)
        # Differences of values good to REL / 10 over 2e-5; where the gauge has a kink they are
        # still a convex combination of gradients near by.
        assert np.vdot(G, X) / ball.support(G) == pytest.approx(ball.gauge(X), rel=2e-2)
        assert np.vdot(G, X) / ball.support(G) <= ball.gauge(X) * (1 + REL)


@all_sums
def test_norm_axioms(ball, rng):
    for _ in range(10):
        X, Y = random(rng, (5, 4)), random(rng, (5, 4)) * 10.0 ** rng.uniform(-2, 2)
        assert ball.gauge(X + Y) <= (ball.gauge(X) + ball.gauge(Y)) * (1 + REL)
        for c in (-2.0, 1e-3, 1e5):
            assert ball.gauge(c * X) == pytest.approx(abs(c) * ball.gauge(X), rel=REL)
    assert ball.gauge(np.zeros((5, 4))) == 0


@all_sums
def test_unitary_invariance_and_order(ball, rng):
    X = random(rng, (5, 4))
    P, Q = (np.linalg.qr(random(rng, (size, size)))[0] for size in X.shape)
    assert ball.gauge(P @ X @ Q) == pytest.approx(ball.gauge(X), rel=REL)
    assert ball.gauge(X.T) == pytest.approx(ball.gauge(X), rel=REL)
    parts = ball.parts
    backwards = sum((a * part for a, part in parts[-2::-1]), parts[-1][0] * parts[-1][1])
    assert backwards.gauge(X) == pytest.approx(ball.gauge(X), rel=REL)
    assert (3 * ball).gauge(X) == pytest.approx(ball.gauge(X) / 3, rel=REL)
    # A sum contains its parts.
    assert all(ball.gauge(X) <= part.gauge(X) / a * (1 + REL) for a, part in parts)


@pytest.mark.parametrize("scale", [1e-200, 1e-12, 1e12, 1e200])
@all_sums
def test_extreme_scales(ball, scale, rng):
    X = random(rng, (5, 4))
    assert ball.gauge(scale * X) / scale == pytest.approx(ball.gauge(X), rel=REL)


@pytest.mark.parametrize("radii", [(1e-6, 1.0), (1.0, 1e-6)])
@pytest.mark.parametrize("ball", [KyFanDualBall(2), KyFanBall(2), SpectralBall()])
@pytest.mark.parametrize("other", [F, KyFanDualBall(1)])
def test_unequal_radii(ball, other, radii, rng):
    """A tiny part changes the gauge by about its radius."""
    X = random(rng, (5, 4))
    a, b = radii
    large = ball.gauge(X) if a == 1 else other.gauge(X)
    found = (a * ball + b * other).gauge(X)
    assert found <= large * (1 + REL)
    # The tiny part holds at most found * 1e-6 in its norm, at most 4 times that in any other.
    assert found >= large - 4e-6 * found * 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 3)])
@all_sums
def test_small_shapes_and_rank_one(ball, shape, rng):
    """All unitarily invariant norms here are equal to s_1, or to s_1 / k, at rank one."""
    x, y = random(rng, shape[0]), random(rng, shape[1])
    X = np.outer(x, y)
    s = np.linalg.norm(x) * np.linalg.norm(y)
    assert ball.gauge(X) <= s / sum(a for a, _ in ball.parts) * (1 + REL)
    assert ball.gauge(X) > 0


def test_same_balls_add_radii(rng):
    X = random(rng, (5, 4))
    for ball in (F, KyFanDualBall(2), KyFanBall(3), SpectralBall()):
        assert (0.5 * ball + 1.5 * ball).gauge(X) == pytest.approx(ball.gauge(X) / 2, rel=REL)


def test_balls_under_other_names(rng):
    """Special cases are merged with what they are special cases of, whatever the shape."""
    for shape in ((4, 6), (6, 4)):
        X = random(rng, shape)
        rms = np.sqrt(shape[0] / shape[1])
        for ball, same in (
            (RMSBall() + NuclearBall(), rms * SpectralBall() + NuclearBall()),
            (RMSBall() + 2 * F, rms * SpectralBall() + 2 * F),
            (SchattenBall(2) + SpectralBall(), F + SpectralBall()),
            (SchattenBall(2) + F + SpectralBall(), 2 * F + SpectralBall()),
            (SchattenBall(1) + F, NuclearBall() + F),
            (SchattenBall(np.inf) + KyFanBall(2), SpectralBall() + KyFanBall(2)),
            (KyFanBall(1) + F + SpectralBall(), F + 2 * SpectralBall()),
            (KyFanBall(9) + F + NuclearBall(), F + 2 * NuclearBall()),
            (KyFanDualBall(4) + KyFanDualBall(7) + F, F + 2 * SpectralBall()),
            (RMSBall() + SpectralBall(), (1 + rms) * SpectralBall()),
        ):
            assert ball.gauge(X) == pytest.approx(same.gauge(X), rel=REL)
            D = ball.lmo(X).update
            assert ball.gauge(D) == pytest.approx(1, rel=REL)
            assert ball.contains(D)
        for ball in (MaxBall(), ColumnBall(), RowBall(), SchattenBall(3)):
            assert (0.5 * ball + 1.5 * ball).gauge(X) == pytest.approx(ball.gauge(X) / 2, rel=REL)


@pytest.mark.parametrize("other", [MaxBall(), ColumnBall(), RowBall(), SchattenBall(3)])
def test_what_has_no_gauge(other):
    for ball in (KyFanDualBall(2) + other, other + F, other + other + SpectralBall()):
        with pytest.raises(NotImplementedError, match="is not computed; support and lmo"):
            ball.gauge(np.eye(3))
    assert (KyFanDualBall(2) + 0 * other).gauge(np.eye(3)) == pytest.approx(1.5)


def test_three_with_frobenius():
    with pytest.raises(NotImplementedError, match="FrobeniusBall"):
        (KyFanDualBall(2) + SpectralBall() + F).gauge(np.eye(3))
    # Where k is not less than the rank, they are two spectral balls.
    assert (KyFanDualBall(2) + SpectralBall() + F).gauge(np.eye(2)) == pytest.approx(
        1 / (2 + 1 / np.sqrt(2))
    )


def test_of_values(rng):
    S = np.array([3.0, 2.0, 1.0])
    parts = list(SUMS["f-fanion-2"].parts)
    assert sum_gauge(parts, (3, 3), S) == pytest.approx(
        SUMS["f-fanion-2"].gauge(np.diag(S)), rel=1e-12
    )
    assert sum_gauge(parts, (3, 3), np.zeros(3)) == 0


def test_round_balls_alone_add_their_radii(rng):
    X = rng.standard_normal((5, 3))
    total = 0.5 * F + 1.5 * SchattenBall(2)
    assert total.gauge(X) == pytest.approx(np.linalg.norm(X) / 2, rel=1e-14)


def test_a_linear_program_that_is_not_solved_is_an_error(monkeypatch, rng):
    class Answer:
        status, message = 4, "numerical difficulties"

    monkeypatch.setattr(scipy.optimize, "linprog", lambda *args, **options: Answer)
    ball = 0.5 * KyFanDualBall(2) + 0.5 * KyFanBall(2)
    with pytest.raises(RuntimeError, match="numerical difficulties"):
        ball.gauge(rng.standard_normal((5, 4)))


def test_a_ball_that_adds_next_to_nothing(rng):
    """The root is where the search begins: rounding may leave no room for it."""
    X = rng.standard_normal((6, 4))
    for ball in (KyFanDualBall(2), SpectralBall(), NuclearBall()):
        assert (ball + 1e-17 * F).gauge(X) == pytest.approx(ball.gauge(X), rel=1e-12)
        assert (1e-17 * ball + F).gauge(X) == pytest.approx(F.gauge(X), rel=1e-12)
