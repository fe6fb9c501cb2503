"""Pure rules: each family equals its formula written plainly, on every array library."""

from __future__ import annotations

import copy
import csv
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from refused_ranks import RANKS_REFUSED

import trsvd
from trsvd import optim
from trsvd.optim.diagnostics import subspace_angle
from trsvd.optim.dion_normuon import dion_step
from trsvd.optim.oracles import Direction
from trsvd.optim.schedules import Rank
from trsvd.polar import newton_schulz

ROOT = Path(trsvd.__file__).parent

# ---- the families, written plainly ----------


def polar(E, k=None):
    U, _, Vh = np.linalg.svd(E, full_matrices=False)
    return U[:, :k] @ Vh[:k]


def top(k):
    return lambda E: -polar(E, k)


def mixed(first, second, alpha=0.5):
    return lambda E: alpha * first(E) + (1 - alpha) * second(E)


def frobenius(E):
    return -E / np.linalg.norm(E)


def signs(E):
    return -0.01 * np.sign(E)


def f_star(E, lam=2.0):
    U, S, Vh = np.linalg.svd(E, full_matrices=False)
    low, high = 0.0, S.sum()
    for _ in range(200):  # bisection for sum max(s - tau, 0) = tau
        tau = (low + high) / 2
        low, high = (tau, high) if np.maximum(S - tau, 0).sum() > tau else (low, tau)
    return -(U * np.maximum(S - tau, 0)) @ Vh / lam


def nuclear(E, lam=2.0):
    return -np.linalg.svd(E, compute_uv=False)[0] / (2 * lam) * polar(E, 1)


EXACT = {"method": "exact"}
# Muon without what `torch.optim.Muon` adds to the oracle of the spectral ball.
PLAIN = {**EXACT, "shape_scaling": "none", "weight_decay": 0.0}
FAMILIES = {
    "fanion": (lambda **o: optim.fanion(0.1, 3, **EXACT, **o), top(3)),
    "f_fanion": (lambda **o: optim.f_fanion(0.1, 3, **EXACT, **o), mixed(top(3), frobenius)),
    "s_fanion": (lambda **o: optim.s_fanion(0.1, 3, **EXACT, **o), mixed(top(3), signs)),
    "neon": (lambda **o: optim.neon(0.1, **EXACT, **o), top(1)),
    "f_neon": (lambda **o: optim.f_neon(0.1, **EXACT, **o), mixed(top(1), frobenius)),
    "s_neon": (lambda **o: optim.s_neon(0.1, **EXACT, **o), mixed(top(1), signs)),
    "muon": (lambda **o: optim.muon(0.1, **{**PLAIN, **o}), top(None)),
    "f_muon": (lambda **o: optim.f_muon(0.1, **o), mixed(top(None), frobenius)),
    "s_muon": (lambda **o: optim.s_muon(0.1, **o), mixed(top(None), signs)),
    "nsgd": (lambda **o: optim.nsgd(0.1, **o), frobenius),
    "sign_sgd": (lambda **o: optim.sign_sgd(0.1, **o), lambda E: -np.sign(E)),
    "nuclear_neon": (lambda **o: optim.nuclear_neon(0.1, lam=2.0, gap=1e-12, **o), nuclear),
    "f_star_neon": (lambda **o: optim.f_star_neon(0.1, lam=2.0, tol=1e-13, **o), f_star),
}
SHAPE = (14, 10)


def gradients(rng, steps, shape=SHAPE):
    """Singular values that are well apart: the minimizer is unique, and told to rounding."""
    m, n = shape
    out = []
    for _ in range(steps):
        U, _ = np.linalg.qr(rng.standard_normal((m, min(m, n))))
        V, _ = np.linalg.qr(rng.standard_normal((n, min(m, n))))
        out.append((U * 0.7 ** np.arange(min(m, n))) @ V.T)
    return out


def run(rule, params, grads, backend):
    """The parameters after each step, on the host."""
    W = backend.asarray(params)
    state, path = rule.init(W), []
    for G in grads:
        updates, state = rule.update(backend.asarray(G), state, W)
        W = optim.apply_updates(W, updates)
        assert backend.owns(W)
        path.append(backend.to_numpy(W).copy())
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_its_formula(family, backend, rng):
    make, direction = FAMILIES[family]
    grads, W = gradients(rng, 5), rng.standard_normal(SHAPE)
    path = run(make(momentum=0.9), W, grads, backend)
    M = np.zeros(SHAPE)
    for G, found in zip(grads, path, strict=True):
        M = 0.9 * M + G
        W = W + 0.1 * direction(G + 0.9 * M)
        # Vectors of pairs that are a factor of 0.7 apart, or of what momentum makes of them.
        np.testing.assert_allclose(found, W, atol=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("ema", [False, True])
def test_momentum_conventions(ema, nesterov, backend, rng):
    grads, W, mu = gradients(rng, 4), rng.standard_normal(SHAPE), 0.8
    # A regularized update is as long as its argument: it tells the conventions apart.
    rule = optim.nuclear_neon(0.1, lam=2.0, gap=1e-12, momentum=mu, ema=ema, nesterov=nesterov)
    path = run(rule, W, grads, backend)
    M, new = np.zeros(SHAPE), 1 - mu if ema else 1.0
    for G, found in zip(grads, path, strict=True):
        M = mu * M + new * G
        W = W + 0.1 * nuclear(new * G + mu * M if nesterov else M)
        np.testing.assert_allclose(found, W, atol=1e-9)


def test_an_oracle_does_not_tell_the_conventions_apart(rng, numpy_backend):
    grads, W = gradients(rng, 4), rng.standard_normal(SHAPE)
    paths = [
        run(optim.muon(0.1, ema=ema, method="exact"), W, grads, numpy_backend)
        for ema in (False, True)
    ]
    np.testing.assert_allclose(paths[0], paths[1], atol=1e-12)


@pytest.mark.parametrize(
    ("scaling", "factor"),
    [
        ("muon", lambda m, n: max(1, m / n) ** 0.5),
        ("rms", lambda m, n: (m / n) ** 0.5),
        ("adamw", lambda m, n: 0.2 * max(m, n) ** 0.5),
        (lambda m, n: m + n, lambda m, n: m + n),
        (None, lambda m, n: 1.0),
    ],
)
@pytest.mark.parametrize("shape", [(14, 10), (10, 14), (6, 2, 3, 3)])
def test_shape_scaling_and_weight_decay(scaling, factor, shape, backend, rng):
    G, W = rng.standard_normal(shape), rng.standard_normal(shape)
    rule = optim.nsgd(0.1, shape_scaling=scaling, weight_decay=0.5, momentum=0)
    (found,) = run(rule, W, [G], backend)
    m, n = shape[0], int(np.prod(shape[1:]))
    expected = (1 - 0.1 * 0.5) * W - 0.1 * factor(m, n) * G / np.linalg.norm(G)
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_weight_normalization(backend, rng):
    G, W = rng.standard_normal((8, 2, 3, 3)), rng.standard_normal((8, 2, 3, 3))
    (found,) = run(optim.nsgd(0.1, normalize_weights=True, momentum=0), W, [G], backend)
    expected = W * (8**0.5 / np.linalg.norm(W)) - 0.1 * G / np.linalg.norm(G)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    (found,) = run(optim.nsgd(0.1, normalize_weights=True, momentum=0), 0 * W, [G], backend)
    np.testing.assert_allclose(found, -0.1 * G / np.linalg.norm(G), atol=1e-14)


def test_learning_rate_schedule(backend, rng):
    grads, W = gradients(rng, 4), rng.standard_normal(SHAPE)
    rates = [0.5, 0.25, 0.0, 1.0]
    path = run(optim.nsgd(rates.__getitem__, momentum=0), W, grads, backend)
    for lr, G, found in zip(rates, grads, path, strict=True):
        W = W + lr * frobenius(G)
        np.testing.assert_allclose(found, W, atol=1e-14)


# ---- warm starts ----------


def moving(rng, steps, shape=(60, 48)):
    """Matrices with a slowly turning part of low rank, and noise."""
    U, V = rng.standard_normal((shape[0], 8)), rng.standard_normal((shape[1], 8))
    for _ in range(steps):
        U = U + 0.02 * rng.standard_normal(U.shape)
        V = V + 0.02 * rng.standard_normal(V.shape)
        yield (U * 0.8 ** np.arange(8)) @ V.T + 0.05 * rng.standard_normal(shape)


def test_truncated_oracles_keep_their_gap_from_warm_starts(backend, rng):
    k, records = 4, []
    rule = optim.fanion(1.0, k, gap=1e-2, momentum=0, diagnostics=records.append)
    W = backend.asarray(np.zeros((60, 48)))
    state = rule.init(W)
    for step, G in enumerate(moving(rng, 6)):
        D, state = rule.update(backend.asarray(G), state, W)
        support = np.linalg.svd(G, compute_uv=False)[:k].sum()
        gap = 1 + np.vdot(G, backend.to_numpy(D)) / support
        # Diagnostics measure the same, in the same precision.
        assert gap <= 1e-2
        assert records[step].gap == pytest.approx(gap, abs=1e-12)
        assert records[step].support == pytest.approx(support, rel=1e-12)
    assert all(record.passes <= 2 for record in records[2:])
    assert records[0].angle is None
    assert all(0 < record.angle < 0.5 for record in records[1:])


def test_going_on_from_a_saved_state(backend, rng):
    """The state is all there is: the trajectory is the same bit for bit."""
    rule = optim.f_fanion(0.1, 4, gap=1e-2)
    grads = [backend.asarray(G) for G in moving(rng, 6)]
    W = backend.asarray(rng.standard_normal((60, 48)))
    state = rule.init(W)
    for G in grads[:3]:
        updates, state = rule.update(G, state, W)
        W = optim.apply_updates(W, updates)
    kept, rest = copy.deepcopy(W), None
    if backend.name != "strict":  # its devices are not pickled
        rest = pickle.loads(pickle.dumps(state))
    ends = []
    for here, before in ((W, state), (kept, rest or state)):
        for G in grads[3:]:
            updates, before = rule.update(G, before, here)
            here = optim.apply_updates(here, updates)
        ends.append(backend.to_numpy(here))
    assert np.array_equal(*ends)


def test_nothing_that_is_passed_in_is_written_to(backend, rng):
    for make, _ in FAMILIES.values():
        rule = make()
        G, W = backend.asarray(rng.standard_normal(SHAPE)), backend.asarray(np.ones(SHAPE))
        _, state = rule.update(G, rule.init(W), W)
        before = [backend.to_numpy(X).copy() for X in (G, W, state[0][0])]
        rule.update(G, state, W)
        for X, old in zip((G, W, state[0][0]), before, strict=True):
            assert np.array_equal(backend.to_numpy(X), old)


# ---- polar iterations as they come ----------


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
def test_polar_iterates_are_not_divided(shape, dtype, backend, rng):
    matrices = [rng.standard_normal(shape).astype(dtype) for _ in range(3)]
    if dtype == "complex128":
        matrices = [G + 1j * rng.standard_normal(shape) for G in matrices]
    matrices.append(np.zeros(shape, dtype))
    method = trsvd.NewtonSchulz(steps=5)
    found = optim.polar_iterates([backend.asarray(G) for G in matrices], method)
    for G, X in zip(matrices, found, strict=True):
        expected = newton_schulz(G, steps=5, coefficients=method.coefficients)
        # The products are summed in another order; errors grow by 3.4 a step at most.
        tol = 3.4445**5 * np.finfo(dtype).eps
        np.testing.assert_allclose(backend.to_numpy(X), expected, atol=tol)
    assert np.linalg.norm(backend.to_numpy(found[0]), 2) > 1.0


def test_iterations_in_the_spectral_part_of_a_sum(backend, rng):
    G = rng.standard_normal((20, 30))
    method = trsvd.PolarExpress(steps=8)
    for ball, direction in (
        (0.5 * trsvd.SpectralBall() + 0.5 * trsvd.FrobeniusBall(), mixed(top(None), frobenius)),
        (
            0.5 * trsvd.KyFanDualBall(20) + 0.5 * trsvd.MaxBall(),
            mixed(top(20), lambda E: -np.sign(E)),
        ),
        (trsvd.RMSBall(), lambda E: (20 / 30) ** 0.5 * top(None)(E)),
    ):
        (found,) = optim.BallOracle(ball=ball, method=method).directions(
            [backend.asarray(G)], [None], 0
        )
        # Polar Express with 8 steps is at rounding where singular values are above 1e-3.
        np.testing.assert_allclose(backend.to_numpy(found.update), direction(G), atol=1e-9)


def test_a_truncated_ball_refuses_a_polar_iteration(rng):
    rule = optim.fanion(0.1, 3, method=trsvd.NewtonSchulz())
    G = rng.standard_normal(SHAPE)
    with pytest.raises(ValueError, match="k is 3"):
        rule.update(G, rule.init(G), G)


# ---- trees and layouts ----------


def test_trees_are_handled_leaf_by_leaf(backend, rng):
    hosts = {"a": gradients(rng, 1)[0], "b": [gradients(rng, 1, (8, 12))[0]], "c": ()}
    hosts["b"].append(gradients(rng, 1)[0])
    rule = optim.f_muon(0.1)
    params = {
        "a": backend.asarray(hosts["a"]),
        "b": [backend.asarray(G) for G in hosts["b"]],
        "c": (),
    }
    updates, _ = rule.update(params, rule.init(params), params)
    assert list(updates) == ["a", "b", "c"]
    assert updates["c"] == ()
    for G, U in zip([hosts["a"], *hosts["b"]], [updates["a"], *updates["b"]], strict=True):
        np.testing.assert_allclose(
            backend.to_numpy(U), 0.1 * mixed(top(None), frobenius)(G), atol=1e-12
        )


def test_layouts(backend, rng):
    G = rng.standard_normal((4, 6, 5))
    for layout, matrices in (
        ("auto", G),
        ("stack", G),
        ("flatten", G.reshape(1, 4, 30)),
        ("in_out", G.reshape(1, 24, 5)),
    ):
        rule = optim.muon(1.0, momentum=0, layout=layout, **PLAIN)
        (found,) = run(rule, np.zeros_like(G), [G], backend)
        expected = np.stack([-polar(E) for E in matrices]).reshape(G.shape)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    conv = rng.standard_normal((8, 3, 2, 2))
    (found,) = run(optim.muon(1.0, momentum=0, **PLAIN), np.zeros_like(conv), [conv], backend)
    np.testing.assert_allclose(found, -polar(conv.reshape(8, 12)).reshape(conv.shape), atol=1e-12)


# ---- Dion, NorMuon, SCALE ----------


def published_dion(W, G, M, Q, lr, mu, orthonormal, transpose):
    """Algorithm 1 of arXiv:2504.05295, line by line; on the transpose where that is asked for."""
    m, n = W.shape
    B = M + G
    flip = transpose and m < n
    B = B.T if flip else B
    P = np.linalg.qr(B @ Q)[0]
    R = B.T @ P
    M = B - (1 - mu) * P @ R.T
    Q = R / np.linalg.norm(R, axis=0)
    D = P @ (polar(R) if orthonormal else Q).T
    D, M = (D.T, M.T) if flip else (D, M)
    return W - lr * (m / n) ** 0.5 * D, M, Q


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("orthonormal", [False, True])
@pytest.mark.parametrize("shape", [(14, 10), (10, 14)])
def test_dion_is_its_published_algorithm(shape, orthonormal, transpose, backend, rng):
    rule = optim.dion(0.1, 4, momentum=0.8, orthonormal=orthonormal, transpose=transpose)
    W = rng.standard_normal(shape)
    params = backend.asarray(W)
    state = rule.init(params)
    M, Q = (backend.to_numpy(X) for X in state[0][0])
    assert not M.any()
    Q = Q[0]
    for G in gradients(rng, 5, shape):
        updates, state = rule.update(backend.asarray(G), state, params)
        params = optim.apply_updates(params, updates)
        W, M, Q = published_dion(W, G, M, Q, 0.1, 0.8, orthonormal, transpose)
        np.testing.assert_allclose(backend.to_numpy(params), W, atol=1e-10)
        np.testing.assert_allclose(backend.to_numpy(state[0][0][0]), M, atol=1e-10)


def test_dion_transposes_by_default_as_its_authors_do(rng):
    G = rng.standard_normal((6, 9))
    steps = []
    for options in ({}, {"transpose": True}, {"transpose": False}):
        rule = optim.dion(0.1, 3, **options)
        steps.append(rule.update(G, rule.init(G), G)[0])
    assert np.array_equal(steps[0], steps[1])
    assert np.linalg.norm(steps[0] - steps[2]) > 0.01 * np.linalg.norm(steps[0])


def test_only_the_orthonormal_dion_is_on_the_ball(rng):
    G = rng.standard_normal((40, 30))
    sizes = {}
    for orthonormal in (False, True):
        rule = optim.dion(1.0, 8, orthonormal=orthonormal, shape_scaling=None)
        D, _ = rule.update(G, rule.init(G), G)
        sizes[orthonormal] = trsvd.KyFanDualBall(8).gauge(D)
    assert sizes[True] == pytest.approx(1, abs=1e-12)
    assert sizes[False] > 1.05


def test_dion_without_a_gradient_stands_still(backend):
    Z = backend.asarray(np.zeros(SHAPE))
    for orthonormal in (False, True):
        rule = optim.dion(0.1, 3, orthonormal=orthonormal)
        first = rule.init(Z)
        U, state = rule.update(Z, first, Z)
        assert not backend.to_numpy(U).any()
        # The factors are still there to look with.
        assert np.array_equal(*(backend.to_numpy(s[0][0][1]) for s in (first, state)))


def test_error_feedback_keeps_what_was_not_used(rng):
    """With mu = 0 the buffer is what the update left: all of the gradient comes through in time."""
    G = np.diag([3.0, 2.0, 1.0])
    rule = optim.dion(1.0, 1, momentum=0.0, orthonormal=True, shape_scaling=None)
    state, total = rule.init(G), np.zeros((3, 3))
    for _ in range(60):
        U, state = rule.update(G, state, G)
        total += U
    assert np.linalg.matrix_rank(total, tol=1.0) == 3


def test_normuon_is_its_published_algorithm(backend, rng):
    W, M, v = rng.standard_normal(SHAPE), np.zeros(SHAPE), np.zeros(SHAPE[0])
    grads = gradients(rng, 4)
    options = {"beta2": 0.9, "momentum": 0.8, "method": "exact"}
    path = run(optim.normuon(0.1, **options), W, grads, backend)
    for G, found in zip(grads, path, strict=True):
        M = 0.8 * M + G
        O = polar(G + 0.8 * M)  # noqa: E741
        v = 0.9 * v + 0.1 * np.mean(O**2, axis=1)
        X = O / (np.sqrt(v) + 1e-10)[:, None]
        factor = max(1, SHAPE[0] / SHAPE[1]) ** 0.5
        W = W - 0.1 * factor * X * np.linalg.norm(O) / np.linalg.norm(X)
        np.testing.assert_allclose(found, W, atol=1e-10)


@pytest.mark.parametrize("layout", ["auto", "in_out"])
@pytest.mark.parametrize("normalization", ["rms", "l2"])
def test_scale_is_its_published_algorithm(normalization, layout, backend, rng):
    """Over the root mean square of each output, clamped; a moving average for the last one."""
    axis = 1 if layout == "auto" else 0  # along the inputs
    W = [rng.standard_normal(SHAPE) for _ in range(2)]
    rule = optim.scale(0.1, normalization=normalization, layout=layout, weight_decay=0.2)
    params = [backend.asarray(X) for X in W]
    state, M = rule.init(params), np.zeros(SHAPE)
    assert len(state[0]) == 1
    for _ in range(3):
        G = [rng.standard_normal(SHAPE) for _ in range(2)]
        updates, state = rule.update([backend.asarray(X) for X in G], state, params)
        params = optim.apply_updates(params, updates)
        M = 0.9 * M + 0.1 * G[1]
        for i, E in enumerate((G[0], M)):
            sizes = np.linalg.norm(E, axis=axis, keepdims=True)
            if normalization == "rms":
                sizes = np.maximum(sizes / SHAPE[axis] ** 0.5, 1e-8)
            W[i] = (1 - 0.1 * 0.2) * W[i] - 0.1 * E / sizes
            np.testing.assert_allclose(backend.to_numpy(params[i]), W[i], atol=1e-13)


def test_scale_clamps_the_root_mean_square(backend, rng):
    G = rng.standard_normal(SHAPE)
    G[0] *= 1e-12
    G[1] = 0
    rule = optim.scale(1.0, momentum=0)
    (found,) = run(rule, np.zeros(SHAPE), [G], backend)
    expected = -G / np.maximum(np.sqrt(np.mean(G**2, axis=1, keepdims=True)), 1e-8)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize("size", [1e-25, 1e25])
@pytest.mark.parametrize(
    "rule",
    [
        optim.dion(1.0, 3),
        optim.dion(1.0, 3, orthonormal=True),
        optim.muon(1.0, method="exact"),
        optim.muon(1.0, method=trsvd.NewtonSchulz()),
        optim.normuon(1.0, method="exact"),
        optim.scale(1.0, normalization="l2"),
        optim.fanion(1.0, 3, method="exact"),
        optim.nsgd(1.0),
    ],
    ids=lambda rule: type(rule.transforms[0]).__name__,
)
def test_the_size_of_the_gradient_does_not_matter(rule, size, backend, rng):
    """In single precision, where squares of both sizes are out of range."""
    G = gradients(rng, 1)[0].astype(np.float32)
    W = backend.asarray(np.zeros(SHAPE, np.float32))
    steps = []
    for factor in (1.0, size):
        E = backend.asarray(G * np.float32(factor))
        steps.append(backend.to_numpy(rule.update(E, rule.init(W), W)[0]))
    # Singular values are a factor of 0.7 apart, and the smallest is 0.04: vectors are known to
    # eps / 0.012, and of Newton-Schulz the error grows by 3.4445 a step.
    tol = 3.4445**5 * np.finfo(np.float32).eps
    assert np.linalg.norm(steps[1] - steps[0]) <= tol * np.linalg.norm(steps[0])


# ---- ranks ----------


def test_rank_schedules(rng):
    G = rng.standard_normal((20, 12))
    for options, ranks in (
        ({"k": optim.Piecewise((6, 2), (2,))}, [6, 6, 2, 2]),
        ({"k": optim.Cosine(8.0, 2.0, 3)}, [8, 6, 4, 2]),  # 8, 6.5, 3.5, 2; halves to even numbers
        ({"k": optim.Constant(3)}, [3] * 4),
        ({"rank_fraction": 0.25}, [3] * 4),
        ({"rank_fraction": optim.Cosine(1.0, 0.25, 2)}, [12, 8, 3, 3]),
        ({"rank_fraction": 1}, [12] * 4),
        ({"k": 1000}, [12] * 4),
        ({"k": np.int64(4)}, [4] * 4),
        ({"rank_fraction": np.float32(0.5)}, [6] * 4),
    ):
        rule = optim.fanion(1.0, momentum=0, **options)
        state, found = rule.init(G), []
        for _ in range(4):
            D, state = rule.update(G, state, G)
            found.append(np.linalg.matrix_rank(D, tol=0.5))
        assert found == ranks, options


@pytest.mark.parametrize(("options", "error", "message"), RANKS_REFUSED)
@pytest.mark.parametrize("make", [optim.fanion, optim.f_fanion, optim.s_fanion, optim.dion])
def test_ranks_that_are_refused(make, options, error, message):
    """Errors come before the first step, for every value of a known schedule."""
    with pytest.raises(error, match=message):
        make(1.0, **options)


@pytest.mark.parametrize("name", ["k", "rank_fraction"])
def test_dion_refuses_schedules_of_the_rank(name):
    with pytest.raises(TypeError, match=f"^{name} is a schedule.*pass a number"):
        optim.dion(0.1, **{name: optim.Constant(1)})


def test_values_of_functions_are_checked_at_their_step(rng):
    G = rng.standard_normal((20, 12))
    rule = optim.fanion(1.0, lambda step: 2 - step)
    state = rule.init(G)
    for _ in range(2):
        _, state = rule.update(G, state, G)
    with pytest.raises(ValueError, match="k=0; pass an integer of at least 1"):
        rule.update(G, state, G)


@pytest.mark.parametrize(
    ("rank", "ranks"),
    [
        (Rank(optim.Cosine(8, 1, 2)), [8, 4, 1, 1]),
        (Rank(optim.Cosine(1, 8, 2)), [1, 4, 8, 8]),
        (Rank(optim.Cosine(1.0, 1.0, 2)), [1, 1, 1, 1]),
        (Rank(fraction=optim.Cosine(0.5, 1.0, 2)), [6, 9, 12, 12]),
        (Rank(fraction=optim.Piecewise((0.5, 0.01), (1,))), [6, 1, 1, 1]),
        (Rank(lambda step: 7.6 - step), [8, 7, 6, 5]),
        (Rank(fraction=lambda step: 1 / (1 + step)), [12, 6, 4, 3]),
    ],
)
def test_ranks_of_schedules(rank, ranks):
    assert [rank.at(step, 12) for step in range(4)] == ranks
    function = inspect.isfunction(rank.k) or inspect.isfunction(rank.fraction)
    assert rank.largest(1, 12) == (ranks[1] if function else max(ranks))


def test_schedules_that_are_none():
    with pytest.raises(ValueError, match="ascending"):
        optim.Piecewise((1, 2), (3, 4))
    with pytest.raises(ValueError, match="ascending"):
        optim.Piecewise((1, 2, 3), (4, 3))
    with pytest.raises(ValueError, match="at least one step"):
        optim.Cosine(1, 2, 0)


# ---- what is refused ----------


@pytest.mark.parametrize("family", [*FAMILIES, "dion", "ns"])
def test_a_gradient_that_is_not_finite_is_an_error(family, backend, rng):
    rule = {
        "dion": lambda: optim.dion(0.1, 3),
        "ns": lambda: optim.muon(0.1, method=trsvd.NewtonSchulz()),
    }.get(family, FAMILIES.get(family, (None,))[0])()
    G = rng.standard_normal(SHAPE)
    G[2, 3] = np.nan
    W = backend.asarray(np.ones(SHAPE))
    with pytest.raises(ValueError, match="NaN or inf"):
        rule.update(backend.asarray(G), rule.init(W), W)


RULES = [
    name
    for name in optim.__all__
    if "normalize_weights" in getattr(getattr(optim, name), "__annotations__", ())
    and not name.startswith("from_")
]


@pytest.mark.parametrize("value", ["x", 1, None], ids=repr)
@pytest.mark.parametrize("name", RULES)
def test_flags_that_are_no_truth_values_are_refused(name, value):
    make = getattr(optim, name)
    known = inspect.signature(make).parameters
    own = {"k": 2} if "k" in known else {}
    flags = [each.name for each in known.values() if isinstance(each.default, bool)]
    assert "normalize_weights" in flags
    for flag in flags:
        with pytest.raises(TypeError, match=f"{flag}=.* is not a truth value"):
            make(0.1, **own, **{flag: value})


def test_bad_arguments(rng):
    G = rng.standard_normal(SHAPE)
    for make, error, message in (
        (lambda: optim.muon(-0.1), ValueError, "learning rate"),
        (lambda: optim.muon(0.1, momentum=1.0), ValueError, "momentum"),
        (lambda: optim.muon(0.1, weight_decay=-1), ValueError, "weight_decay"),
        (lambda: optim.muon(0.1, shape_scaling="square").init(G), ValueError, "shape_scaling"),
        (lambda: optim.muon(0.1, layout="rows").init(G), ValueError, "layout"),
        (lambda: optim.muon(0.1).init(G[0]), ValueError, "not a matrix"),
        (lambda: optim.muon(0.1).init([1.0]), TypeError, "among the parameters"),
        (lambda: optim.muon(0.1, momentun=0.9), TypeError, "momentun"),
        (lambda: optim.f_muon(0.1, alpha=2), ValueError, "alpha"),
        (lambda: optim.from_ball(trsvd.SpectralBall(), 0.1, k=3), ValueError, "k=3"),
        (lambda: optim.from_ball("spectral", 0.1), TypeError, "ball"),
        (lambda: optim.normuon(0.1, beta2=1), ValueError, "beta2"),
        (lambda: optim.normuon(0.1, eps=-1), ValueError, "eps"),
        (lambda: optim.nsgd(float("inf")), ValueError, "learning rate"),
        (lambda: optim.nsgd(0.1, weight_decay=float("inf")), ValueError, "weight_decay"),
    ):
        with pytest.raises(error, match=message):
            make()
    for lr in (-0.1, float("nan")):
        rule = optim.nsgd(lambda step, lr=lr: lr)
        with pytest.raises(ValueError, match="learning rate"):
            rule.update(G, rule.init(G), G)
    rule = optim.muon(0.1)
    with pytest.raises(ValueError, match="shapes"):
        rule.update(G.T, rule.init(G), G)


# ---- diagnostics ----------


def test_diagnostics_of_the_spectrum(rng):
    records = []
    S = np.array([4.0, 2.0, 1.0])
    U, V = (np.linalg.qr(rng.standard_normal((n, 3)))[0] for n in (6, 5))
    G = (U * S) @ V.T
    method = trsvd.NewtonSchulz()
    for rule in (
        optim.fanion(1.0, 2, momentum=0, diagnostics=records.append, **EXACT),
        optim.muon(1.0, momentum=0, method=method, diagnostics=records.append),
        optim.nuclear_neon(1.0, momentum=0, diagnostics=records.append),
    ):
        rule.update([G, G], rule.init([G, G]), [G, G])
    assert [record.parameter for record in records] == ["0", "1"] * 3
    fanion, _, muon, _, regularized, _ = records
    for record in records:
        assert record.stable_rank == pytest.approx(21 / 16)
        assert record.nuclear_rank == pytest.approx(49 / 21)
    assert fanion.support == pytest.approx(6)
    assert fanion.gap == pytest.approx(0, abs=1e-12)
    D = newton_schulz(G, steps=5, coefficients=method.coefficients)
    inside = D / max(1, np.linalg.norm(D, 2))
    assert muon.support == pytest.approx(7)
    assert muon.gap == pytest.approx(1 - np.vdot(inside, G) / 7)
    assert muon.passes is None
    assert regularized.support is None
    assert regularized.gap_kind in {"exact", "estimate"}


def test_diagnostics_every_so_often(rng):
    records, G = [], rng.standard_normal(SHAPE)
    rule = optim.muon(0.1, diagnostics=records.append, every=2)
    state = rule.init(G)
    for _ in range(5):
        _, state = rule.update(G, state, G)
    assert [record.step for record in records] == [0, 2, 4]


def test_angles_of_subspaces(rng):
    Q = np.linalg.qr(rng.standard_normal((9, 4)))[0]
    turned = Q.copy()
    turned[:, 0] = np.cos(1e-9) * Q[:, 0] + np.sin(1e-9) * Q[:, 3]
    first, second = (trsvd.Subspace(X[:, :3], Q[:, :3].T) for X in (Q, turned))
    assert subspace_angle(first, second) == pytest.approx(1e-9, rel=1e-5)
    across = trsvd.Subspace(Q[:, :3], Q[:, 1:].T)
    assert subspace_angle(first, across) == pytest.approx(np.pi / 2)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_writers(kind, tmp_path, rng):
    path = tmp_path / f"log.{kind}"
    writer = {"csv": optim.CSVWriter, "jsonl": optim.JSONLinesWriter}[kind]
    G = rng.standard_normal(SHAPE)
    for _ in range(2):  # the second one goes on where the first one ended
        with writer(path) as hook:
            rule = optim.muon(0.1, diagnostics=hook)
            rule.update(G, rule.init(G), G)
    with pytest.raises(ValueError, match="closed"):
        rule.update(G, rule.init(G), G)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file)) if kind == "csv" else [json.loads(row) for row in file]
    assert len(rows) == 2
    support = np.linalg.svd(G, compute_uv=False).sum()
    # The direction is (1 - mu) G + mu M = 0.05 * 1.95 G.
    assert float(rows[0]["support"]) == pytest.approx(0.05 * 1.95 * support)
    assert rows[0]["angle"] in (None, "")


def test_rules_do_not_import_torch():
    code = "import sys, trsvd.optim; print('torch' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert out.stdout.split() == ["False"]


def test_a_gradient_of_zero_has_a_gap_of_zero():
    records, G = [], np.zeros(SHAPE)
    rule = optim.fanion(1.0, 2, momentum=0, diagnostics=records.append, **EXACT)
    rule.update(G, rule.init(G), G)
    assert (records[0].support, records[0].gap, records[0].gap_kind) == (0, 0, "exact")
    assert (records[0].stable_rank, records[0].nuclear_rank) == (0, 0)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200])
def test_ranks_of_a_gradient_of_extreme_size(size):
    records, G = [], np.diag([2.0, 1.0, 1.0]) * size
    rule = optim.sign_sgd(1.0, momentum=0, diagnostics=records.append)
    rule.update(G, rule.init(G), G)
    assert records[0].stable_rank == pytest.approx(6 / 4, rel=1e-14)
    assert records[0].nuclear_rank == pytest.approx(16 / 6, rel=1e-14)


def test_f_star_neon_is_on_no_ball(rng):
    records, G = [], rng.standard_normal(SHAPE)
    rule = optim.f_star_neon(1.0, momentum=0, diagnostics=records.append)
    rule.update(G, rule.init(G), G)
    assert records[0].support is None
    assert records[0].stable_rank == pytest.approx(
        np.linalg.norm(G) ** 2 / np.linalg.norm(G, 2) ** 2
    )


def test_subspaces_of_no_vectors_agree():
    empty = trsvd.Subspace(np.zeros((5, 0)), np.zeros((0, 4)))
    assert subspace_angle(empty, empty) == 0


def test_an_iteration_says_nothing_of_a_rank(rng):
    G = rng.standard_normal(SHAPE)
    assert Direction(G, None).rank is None
    assert Direction(G, None).subspace is None
    result = trsvd.KyFanDualBall(2).lmo(G)
    assert Direction(result.update, result).rank == 2
    assert Direction(G, trsvd.FrobeniusBall().lmo(G)).rank is None


def test_a_writer_is_closed_once(tmp_path):
    writer = optim.CSVWriter(tmp_path / "log.csv")
    writer.close()
    writer.close()
    assert (tmp_path / "log.csv").read_text().startswith("parameter,")


@pytest.mark.parametrize("normalize", [False, True])
def test_a_learning_rate_of_zero_moves_nothing(normalize, rng):
    """Also where weights are normalized; from the next step on they are."""
    params = [rng.standard_normal((6, 4))]
    rule = optim.muon(lambda step: 0.1 * (step > 1), weight_decay=0.1, normalize_weights=normalize)
    state = rule.init(params)
    for step in range(3):
        updates, state = rule.update([rng.standard_normal((6, 4))], state, params)
        after = optim.apply_updates(params, updates)
        assert np.array_equal(after[0], params[0]) == (step < 2)
        params = after


# ---- denormal numbers -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: optim.sign_sgd(1.0, momentum=0),
        lambda: optim.from_ball(trsvd.RowBall(), 1.0, momentum=0),
        lambda: optim.nsgd(1.0, momentum=0),
        lambda: optim.muon(1.0, momentum=0, method=trsvd.NewtonSchulz()),
    ],
    ids=["sign_sgd", "rows", "nsgd", "muon"],
)
def test_denormal_gradients(make, dtype, backend):
    """A gradient with one entry, denormal or not, leads to the same step."""
    steps = []
    for size in (np.finfo(dtype).smallest_subnormal, 1.0):
        G = np.zeros((4, 3), dtype)
        G[1, 2] = size * (1j if np.iscomplexobj(G) else 1)
        (step,) = run(make(), np.zeros_like(G), [G], backend)
        steps.append(step)
    assert np.abs(steps[1]).max() > 0.5
    np.testing.assert_allclose(*steps, atol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_dion_of_denormal_columns(dtype, backend, rng):
    """The next right factors are columns of length 1, whatever their length was."""
    B = np.zeros((1, 6, 4), dtype)
    B[0, :, 0] = np.finfo(dtype).smallest_subnormal * (1j if np.iscomplexobj(B) else 1)
    Q = np.eye(4, 2, dtype=dtype)[None]
    D, M, Q = dion_step(backend.asarray(B), backend.asarray(Q), 0.9)
    lengths = np.linalg.norm(backend.to_numpy(Q)[0], axis=0)
    np.testing.assert_allclose(lengths, 1, atol=8 * np.finfo(dtype).eps)
    assert np.isfinite(backend.to_numpy(D)).all()
    assert np.isfinite(backend.to_numpy(M)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_weights_of_denormal_numbers_are_normalized(dtype, backend):
    W = np.zeros((4, 3), dtype)
    W[1, 2] = 5 * np.finfo(dtype).smallest_subnormal * (1j if np.iscomplexobj(W) else 1)
    G = np.zeros_like(W)
    (found,) = run(optim.nsgd(0.1, normalize_weights=True, momentum=0), W, [G], backend)
    assert np.linalg.norm(found) == pytest.approx(2, rel=8 * float(np.finfo(dtype).eps))


def test_polar_express_by_name_is_the_object_with_its_defaults(rng):
    G = rng.standard_normal((12, 8))
    by_name, by_object = (
        optim.muon(1.0, method=method) for method in ("polar-express", trsvd.PolarExpress())
    )
    updates = [rule.update(G, rule.init(G), G)[0] for rule in (by_name, by_object)]
    np.testing.assert_array_equal(*updates)
