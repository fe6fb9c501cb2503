"""Warm steps: never worse than a cold start in accuracy, cheaper where little moved."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from checks import eps_of

from trsvd import FrobeniusBall, KyFanDualBall, Subspace
from trsvd._oracles.warm_start import lanczos_values
from trsvd._solve.problem import Problem
from trsvd._solve.result import Track

# A compiled call takes less time than a warm step on matrices as small as these.
pytestmark = pytest.mark.usefixtures("general_way")

SHAPES = [(90, 60), (60, 90)]
SPECTRA = {
    "exponential": 0.8 ** np.arange(60),
    "power": 1.0 / np.arange(1, 61),
    "root": np.arange(1, 61) ** -0.5,
    "flat": np.linspace(1, 0.9, 60),
}
on_shapes = pytest.mark.parametrize("shape", SHAPES, ids=["tall", "wide"])
on_spectra = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)


def true_gap(G, k, D):
    support = np.linalg.svd(G, compute_uv=False)[:k].sum()
    return 1 + float(np.real(np.vdot(D, G))) / support


def drifting(G, size, steps, rng):
    """Matrices that move as momentum does: each is the last one and something new."""
    yield G
    for _ in range(steps):
        new = rng.standard_normal(G.shape)
        G = (1 - size) * G + size * np.linalg.norm(G) / np.linalg.norm(new) * new
        yield G


def start_width(result):
    return result.subspace.U.shape[1]


def factors_of(shape, rng):
    U = np.linalg.qr(rng.standard_normal((shape[0], 60)))[0]
    V = np.linalg.qr(rng.standard_normal((shape[1], 60)))[0]
    return U, V


@pytest.mark.parametrize("size", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("k", [1, 6])
@on_spectra
@on_shapes
def test_a_sequence(shape, spectrum, k, size, rng):
    U, V = factors_of(shape, rng)
    ball, start = KyFanDualBall(k), None
    for step, G in enumerate(drifting((U * spectrum) @ V.T, size, 8, rng)):
        result = ball.lmo(G, gap=1e-2, rng=step, start=start)
        assert true_gap(G, k, result.update) <= 1e-2
        assert result.gap <= 1e-2
        assert result.status.converged
        assert ball.gauge(result.update) <= 1 + 1e-13
        assert result.support == pytest.approx(-np.vdot(G, result.update), rel=1e-12)
        start = result.subspace


@pytest.mark.parametrize("k", [1, 6])
@on_shapes
def test_a_matrix_that_hardly_moves_takes_one_or_two_products(shape, k, rng):
    U, V = factors_of(shape, rng)
    ball, start, passes, sides = KyFanDualBall(k), None, [], []
    for step, G in enumerate(drifting((U * SPECTRA["power"]) @ V.T, 1e-3, 8, rng)):
        result = ball.lmo(G, gap=1e-2, rng=step, start=start)
        start = result.subspace
        passes.append(result.passes)
        sides.append(start.track.left_is_newer)
        width = start.U.shape[1]
        assert step == 0 or result.matvecs == width * result.passes
    assert max(passes[1:]) <= 2
    # An earlier gain of a single pair says too little of the next.
    assert min(passes[1:]) == (1 if k > 1 else 2)
    # After one product the other side is the one that it made.
    turns = [before != after for before, after in itertools.pairwise(sides)]
    assert turns == [count == 1 for count in passes[1:]]


@pytest.mark.parametrize("times", [1.3, 2.0, 10.0])
@pytest.mark.parametrize("k", [1, 6])
@on_shapes
def test_a_new_direction_orthogonal_to_all_that_was_followed(shape, k, times, rng):
    """What an embedding's momentum does when a new token comes up: nothing else moves."""
    U, V = factors_of(shape, rng)
    s = SPECTRA["power"].copy()
    s[40:] = 0
    ball, start = KyFanDualBall(k), None
    for step in range(4):
        result = ball.lmo((U * s) @ V.T, gap=1e-2, rng=step, start=start)
        start = result.subspace
    for seed in range(5):
        s[50] = times * s[k - 1]
        G = (U * s) @ V.T
        result = ball.lmo(G, gap=1e-2, rng=seed, start=start)
        assert true_gap(G, k, result.update) <= 1e-2


@pytest.mark.parametrize("change", ["unrelated", "reordered", "scaled", "transposed signs"])
@pytest.mark.parametrize("k", [1, 6])
@on_spectra
@on_shapes
def test_a_matrix_that_has_nothing_to_do_with_the_last(shape, spectrum, k, change, rng):
    U, V = factors_of(shape, rng)
    ball = KyFanDualBall(k)
    first = ball.lmo((U * spectrum) @ V.T, gap=1e-2, rng=0)
    if change == "unrelated":
        W, X = factors_of(shape, rng)
        G = (W * spectrum) @ X.T
    elif change == "reordered":
        G = (U * spectrum[::-1]) @ V.T
    elif change == "scaled":
        G = 1e-9 * (U * spectrum) @ V.T
    else:
        G = (U * spectrum) @ np.roll(V, 3, axis=1).T
    for seed in range(3):
        result = ball.lmo(G, gap=1e-2, rng=seed, start=first.subspace)
        assert true_gap(G, k, result.update) <= 1e-2
        assert result.gap <= 1e-2


def test_a_start_of_another_k_or_without_a_track(rng):
    U, V = factors_of(SHAPES[0], rng)
    G = (U * SPECTRA["power"]) @ V.T
    first = KyFanDualBall(2).lmo(G, gap=1e-2, rng=0)
    assert isinstance(first.subspace.track, Track)
    plain = Subspace(first.subspace.U, first.subspace.Vh)
    for k, start in ((6, first.subspace), (1, first.subspace), (2, plain)):
        result = KyFanDualBall(k).lmo(G, gap=1e-2, rng=1, start=start)
        assert true_gap(G, k, result.update) <= 1e-2
        assert result.subspace.track.k == k


def test_a_start_of_another_shape(rng):
    start = KyFanDualBall(2).lmo(rng.standard_normal((90, 60)), gap=1e-2).subspace
    with pytest.raises(ValueError, match="same shape"):
        KyFanDualBall(2).lmo(rng.standard_normal((60, 90)), gap=1e-2, start=start)


@on_shapes
def test_zero_and_low_rank(shape, rng):
    U, V = factors_of(shape, rng)
    ball = KyFanDualBall(4)
    start = ball.lmo((U * SPECTRA["power"]) @ V.T, gap=1e-2, rng=0).subspace
    assert np.all(ball.lmo(np.zeros(shape), gap=1e-2, rng=0, start=start).update == 0)
    low = (U[:, :2] * [2.0, 1.0]) @ V[:, :2].T
    result = ball.lmo(low, gap=1e-2, rng=0, start=start)
    assert np.linalg.matrix_rank(result.update) == 2
    assert true_gap(low, 4, result.update) <= 1e-2
    again = ball.lmo(low, gap=1e-2, rng=0, start=result.subspace)
    assert true_gap(low, 4, again.update) <= 1e-2


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
def test_every_library(dtype, backend, spectrum_matrix):
    if dtype not in backend.dtypes:
        pytest.skip("not a dtype of this library")
    spectrum = SPECTRA["power"]
    host = spectrum_matrix(90, 60, spectrum, dtype, 1)
    ball, start, passes = KyFanDualBall(5), None, []
    for step in range(4):
        noise = spectrum_matrix(90, 60, spectrum, dtype, 10 + step)
        host = (host + 0.01 * noise).astype(dtype)
        result = ball.lmo(backend.asarray(host), gap=1e-2, rng=step, start=start)
        assert backend.owns(result.update)
        update = backend.to_numpy(result.update)
        assert true_gap(host, 5, update) <= 1e-2
        U, Vh = (backend.to_numpy(factor) for factor in result.factors)
        eye = np.eye(U.shape[1])
        assert abs(U.conj().T @ U - eye).max() <= 100 * eps_of(dtype)
        assert abs(Vh @ Vh.conj().T - eye).max() <= 100 * eps_of(dtype)
        start = result.subspace
        passes.append(result.passes)
    assert max(passes[1:]) <= 2


@pytest.mark.parametrize("gap", [0.3, 1e-2])
def test_certified(gap, rng):
    U, V = factors_of(SHAPES[0], rng)
    ball, start, kinds = KyFanDualBall(4), None, set()
    for step, G in enumerate(drifting((U * SPECTRA["exponential"]) @ V.T, 0.02, 5, rng)):
        result = ball.lmo(G, gap=gap, rng=step, start=start, certify=True)
        assert true_gap(G, 4, result.update) - 1e-13 <= result.gap <= gap
        kinds.add(result.gap_kind)
        start = result.subspace
    assert kinds <= {"bound", "exact"}
    assert gap < 0.1 or "bound" in kinds


@pytest.mark.parametrize("exponent", [-200, 200])
def test_scales(exponent, rng):
    U, V = factors_of(SHAPES[0], rng)
    ball, start = KyFanDualBall(3), None
    scale = 10.0**exponent
    for step, G in enumerate(drifting((U * SPECTRA["power"]) @ V.T, 0.01, 3, rng)):
        result = ball.lmo(G * scale, gap=1e-2, rng=step, start=start)
        assert true_gap(G, 3, result.update) <= 1e-2
        assert result.support == pytest.approx(-np.vdot(G, result.update) * scale, rel=1e-12)
        start = result.subspace


def test_sums_hand_the_subspace_on(rng):
    U, V = factors_of(SHAPES[0], rng)
    ball = 0.5 * KyFanDualBall(3) + 0.5 * FrobeniusBall()
    G = (U * SPECTRA["power"]) @ V.T
    first = ball.lmo(G, gap=1e-2, rng=0)
    second = ball.lmo(G, gap=1e-2, rng=1, start=first.subspace)
    assert second.matvecs <= 2 * start_width(first) < first.matvecs


def test_the_start_is_not_written_to(rng):
    U, V = factors_of(SHAPES[0], rng)
    G = (U * SPECTRA["power"]) @ V.T
    start = KyFanDualBall(3).lmo(G, gap=1e-2, rng=0).subspace
    U0, V0 = start.U.copy(), start.Vh.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KyFanDualBall(3).lmo(G, gap=1e-2, rng=1, start=start)
    np.testing.assert_array_equal(start.U, U0)
    np.testing.assert_array_equal(start.Vh, V0)


def test_the_same_seed_gives_the_same_step(rng):
    G = rng.standard_normal((90, 60))
    start = KyFanDualBall(3).lmo(G, gap=0.1, rng=0).subspace
    near = G + 0.01 * rng.standard_normal((90, 60))
    first, second = (
        KyFanDualBall(3).lmo(near, gap=0.1, rng=7, start=start).update for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("first", [1.05, 1.3, 1.5, 2.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_value_that_overtakes_all_that_was_followed(k, first, noise, together):
    """The old pairs stay what they were, singular pairs without any residual."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        U = np.linalg.qr(rng.standard_normal((300, 220)))[0]
        V = np.linalg.qr(rng.standard_normal((220, 220)))[0]
        s = np.append(np.linspace(1, 0.6, k + 5), np.full(215 - k, 0.1))
        before = (U * s) @ V.T
        s[k + 5] = first
        now = (U * s) @ V.T + noise * rng.standard_normal((300, 220)) / 16
        ball = KyFanDualBall(k)
        start = ball.lmo(before, gap=1e-2, rng=seed)
        if together:
            [_, result] = ball.lmo_many([now, now], gap=1e-2, rng=seed, start=[start, start])
        else:
            result = ball.lmo(now, gap=1e-2, rng=seed, start=start)
        assert result.gap <= 1e-2
        assert true_gap(now, k, result.update) <= 1e-2


@pytest.mark.parametrize("times", [2.0, 5.0, 30.0, 100.0])
@pytest.mark.parametrize("k", [1, 4, 8])
@pytest.mark.parametrize("spectrum", ["gaussian", "flat", "root"])
def test_a_spike(spectrum, k, times):
    """One gradient far larger than all before it, at any angle to what was followed."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        G = rng.standard_normal((150, 100))
        if spectrum != "gaussian":
            s = np.linspace(1, 0.9, 100) if spectrum == "flat" else np.arange(1, 101) ** -0.5
            U, _, Vh = np.linalg.svd(G, full_matrices=False)
            G = (U * s) @ Vh
        ball = KyFanDualBall(k)
        start = ball.lmo(G, gap=1e-2, rng=seed).subspace
        for step in range(seed % 3):
            start = ball.lmo(0.99**step * G, gap=1e-2, rng=step, start=start).subspace
        x, y = rng.standard_normal(150), rng.standard_normal(100)
        if seed % 2:
            x -= start.U @ (start.U.T @ x)
            y -= start.Vh.T @ (start.Vh @ y)
        spike = np.outer(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))
        H = 0.95 * G + times * np.linalg.norm(G, 2) * spike
        result = ball.lmo(H, gap=1e-2, rng=seed, start=start)
        assert true_gap(H, k, result.update) <= 1e-2


def test_a_step_that_gained_nothing_promises_nothing(rng):
    """All singular values equal: any subspace is as good as another, until something moves."""
    G = np.linalg.qr(rng.standard_normal((120, 80)))[0]
    ball = KyFanDualBall(1)
    start = ball.lmo(G, gap=1e-2, rng=0).subspace
    start = ball.lmo(G, gap=1e-2, rng=1, start=start).subspace
    H = G + 0.02 * rng.standard_normal(G.shape)
    assert true_gap(H, 1, ball.lmo(H, gap=1e-2, rng=2, start=start).update) <= 1e-2


@pytest.mark.parametrize("k", [1, 4])
def test_a_layer_that_is_idle_for_a_while(k, rng):
    U, V = rng.standard_normal((90, 5)), rng.standard_normal((5, 60))
    M, start, ball = np.zeros((90, 60)), None, KyFanDualBall(k)
    for step in range(45):
        if step == 25:
            U = U + 0.6 * rng.standard_normal(U.shape)
        idle = 15 <= step < 30
        M = 0.95 * M + (0 if idle else U @ V + rng.standard_normal(M.shape))
        result = ball.lmo(M, gap=1e-2, rng=step, start=start)
        assert true_gap(M, k, result.update) <= 1e-2
        start = result.subspace


def plateau(shape, rng, *, level=1.0):
    """Half of the values nearly one, the others well below."""
    U, V = factors_of(shape, rng)
    s = np.concatenate([np.linspace(1, 0.998, 30), np.linspace(0.7, 0.1, 30)]) * level
    return U, s, V


@pytest.mark.parametrize("k", [1, 2, 4, 10])
@on_shapes
def test_on_a_plateau_the_spectral_norm_settles_it(shape, k, rng):
    """More energy outside of the pairs, as where others join the plateau, is no alarm there."""
    U, s, V = plateau(shape, rng)
    ball = KyFanDualBall(k)
    start = ball.lmo((U * s) @ V.T, gap=1e-2, rng=0).subspace
    s[30:50] = 0.95
    for seed in range(5):
        G = (U * s) @ V.T
        result = ball.lmo(G, gap=1e-2, rng=seed, start=start)
        assert true_gap(G, k, result.update) <= 1e-2
        assert result.gap <= 1e-2
        assert result.gap_kind == "estimate"
        # A block or two, and 16 to 32 steps of two products with a vector.
        blocks, steps = (1, 16) if k >= 4 else (2, math.ceil(32 / k**0.5))
        assert result.matvecs <= blocks * start_width(result) + 2 * steps
        start = result.subspace


@pytest.mark.parametrize("times", [1.1, 1.3, 3.0])
@pytest.mark.parametrize("k", [1, 2, 4, 10])
@on_shapes
def test_a_new_direction_above_a_plateau(shape, k, times, rng):
    """Followed vectors cannot tell; the norm can."""
    U, s, V = plateau(shape, rng)
    ball = KyFanDualBall(k)
    start = ball.lmo((U * s) @ V.T, gap=1e-2, rng=0).subspace
    s[50] = times
    G = (U * s) @ V.T
    for seed in range(10):
        result = ball.lmo(G, gap=1e-2, rng=seed, start=start)
        assert true_gap(G, k, result.update) <= 1e-2


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@on_shapes
def test_the_spectral_norm(shape, dtype, backend, spectrum_matrix):
    if dtype not in backend.dtypes:
        pytest.skip("not a dtype of this library")
    problem = Problem(backend.asarray(spectrum_matrix(*shape, SPECTRA["flat"], dtype, 3)), 0, None)
    rng = np.random.default_rng(1)
    norms = [lanczos_values(problem.op, steps, rng)[0] * problem.unit for steps in (16, 32)]
    # Relative errors go down as the square of the steps (Kuczynski and Wozniakowski).
    np.testing.assert_allclose(norms, 1.0, rtol=1e-2)
    np.testing.assert_allclose(norms[1], 1.0, rtol=2e-3)
    zero = Problem(backend.asarray(np.zeros((4, 3), dtype)), 0, None)
    assert lanczos_values(zero.op, 4, rng)[0] == 0


def test_on_a_flat_spectrum_warm_steps_are_tried_less_and_less_often(rng):
    G = rng.standard_normal((400, 300))
    U = np.linalg.qr(rng.standard_normal((400, 20)))[0]
    V = np.linalg.qr(rng.standard_normal((300, 20)))[0]
    ball, start, direct = KyFanDualBall(12), None, []
    for step in range(24):
        G = 0.99 * G + 0.15 * rng.standard_normal(G.shape)
        leading = 400 * U @ V.T if step == 18 else 0  # from here on the leading values stand out
        G = G + leading
        result = ball.lmo(G, gap=1e-3, rng=step, start=start)
        assert true_gap(G, 12, result.update) <= max(result.gap, 1e-3) + 1e-9
        start = result.subspace
        direct.append(result.matvecs)
    least = min(direct[1:18])
    tried = [step for step in range(1, 18) if direct[step] > least]
    assert tried == [1, 3, 5, 9, 17]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("gap", "size"), [(1e-1, 0.4), (1e-1, 0.2), (1e-2, 0.03), (1e-3, 0.003)])
def test_an_isometry_gains_nothing_and_promises_nothing(gap, size, together):
    """What no product gains on equal values says nothing of the next matrix."""
    rng = np.random.default_rng(0)
    n, k = 120, 8

    def orthogonal():
        return np.linalg.qr(rng.standard_normal((n, n)))[0]

    decaying = np.outer(orthogonal()[0], orthogonal()[0]) + 1e-3 * orthogonal()
    flat = orthogonal() / np.sqrt(n)
    moved = flat + size * rng.standard_normal((n, n)) / n
    ball, start = KyFanDualBall(k), None
    for step, G in enumerate([decaying, decaying, flat, moved, moved]):
        if together:
            result, _ = ball.lmo_many([G, G], gap=gap, rng=step, start=start and [start, start])
        else:
            result = ball.lmo(G, gap=gap, rng=step, start=start)
        assert true_gap(G, k, result.update) <= gap
        start = result.subspace
