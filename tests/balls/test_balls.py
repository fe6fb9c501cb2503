"""Every ball against the definitions, and against formulas written down once more in NumPy."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from trsvd import ConvergenceWarning, Status, Subspace, ThickRestartLanczos, operators
from trsvd._oracles.leading_pairs import water_filling
from trsvd.balls import (
    Ball,
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
    SumBall,
)

SHAPES = [(9, 6), (6, 9)]
RANK = 6
DTYPES = ["float32", "float64", "complex64", "complex128"]
# Distinct values with a ratio of at most 32 of s_1 to the least distance or value; the Ky Fan ball
# with k = 3 has its minimizer in a vertex of the one and in the center of a face of the other.
SPECTRA = {"steep": 2.0 ** -np.arange(RANK), "flat": np.linspace(1, 0.7, RANK)}
CONDITION = 32


def wide(X):
    return X.astype(np.result_type(X.dtype, np.float64))


def inner(X, Y):
    return float(np.real(np.vdot(wide(X), wide(Y))))


def eps_of(dtype):
    return float(np.finfo(dtype).eps)


# ---- the formulas, on the host in double precision -----------------------------------------


@dataclass(frozen=True)
class Case:
    """A ball and what is expected of it; ``gauge`` is None where there is no formula."""

    ball: Ball
    support: Callable[[Any], float]
    minimizer: Callable[[Any], Any]
    gauge: Callable[[Any], float] | None
    unitary: bool = True


def values(X):
    return np.linalg.svd(wide(X), compute_uv=False)


def factors(G, k, scale=1.0):
    U, _, Vh = np.linalg.svd(wide(G), full_matrices=False)
    return -scale * (U[:, :k] @ Vh[:k])


def top(X, k):
    return values(X)[:k].sum()


def dual(X, k):
    return max(values(X)[0], values(X).sum() / min(k, *X.shape))


def dual_case(ball, k):
    return Case(ball, lambda G: top(G, k), lambda G: factors(G, k), lambda X: dual(X, k))


def kyfan_case(k):
    def minimizer(G):
        S = values(G)
        rank = min(k, len(S))
        return factors(G, 1) if S[0] >= S.sum() / rank else factors(G, len(S), 1 / rank)

    return Case(KyFanBall(k), lambda G: dual(G, k), minimizer, lambda X: top(X, k))


def schatten_case(p):
    q = {1: np.inf, np.inf: 1}.get(p) or p / (p - 1)

    def minimizer(G):
        if p == 1:
            return factors(G, 1)
        U, S, Vh = np.linalg.svd(wide(G), full_matrices=False)
        return -(U * (S / np.linalg.norm(S, q)) ** (q - 1)) @ Vh

    return Case(
        SchattenBall(p),
        lambda G: np.linalg.norm(values(G), q),
        minimizer,
        lambda X: np.linalg.norm(values(X), p),
    )


def shape_scale(G):
    return float(np.sqrt(G.shape[0] / G.shape[1]))


def norms(X, axis):
    return np.linalg.norm(wide(X), axis=axis, keepdims=True)


def sum_case(*parts):
    total = sum((a * case.ball for a, case in parts[1:]), parts[0][0] * parts[0][1].ball)
    return Case(
        total,
        lambda G: sum(a * case.support(G) for a, case in parts),
        lambda G: sum(a * case.minimizer(G) for a, case in parts),
        None,
        all(case.unitary for _, case in parts),
    )


FROBENIUS = Case(
    FrobeniusBall(),
    lambda G: np.linalg.norm(wide(G)),
    lambda G: -wide(G) / np.linalg.norm(wide(G)),
    lambda X: np.linalg.norm(wide(X)),
)
MAX = Case(
    MaxBall(),
    lambda G: np.abs(wide(G)).sum(),
    lambda G: -np.sign(wide(G)),
    lambda X: np.abs(wide(X)).max(),
    unitary=False,
)
SINGLE = {
    "dual-1": dual_case(KyFanDualBall(1), 1),
    "dual-3": dual_case(KyFanDualBall(3), 3),
    "dual-r": dual_case(KyFanDualBall(RANK), RANK),
    "dual-more": dual_case(KyFanDualBall(RANK + 5), RANK + 5),
    "nuclear": dual_case(NuclearBall(), 1),
    "spectral": dual_case(SpectralBall(), RANK),
    "kyfan-1": kyfan_case(1),
    "kyfan-3": kyfan_case(3),
    "kyfan-more": kyfan_case(RANK + 5),
    "rms": Case(
        RMSBall(),
        lambda G: shape_scale(G) * values(G).sum(),
        lambda G: factors(G, RANK, shape_scale(G)),
        lambda X: values(X)[0] / shape_scale(X),
    ),
    "schatten-1": schatten_case(1),
    "schatten-1.5": schatten_case(1.5),
    "schatten-2": schatten_case(2),
    "schatten-3": schatten_case(3.0),
    "schatten-inf": schatten_case(np.inf),
    "frobenius": FROBENIUS,
    "max": MAX,
    "column": Case(
        ColumnBall(),
        lambda G: norms(G, 0).sum(),
        lambda G: -wide(G) / norms(G, 0),
        lambda X: norms(X, 0).max(),
        unitary=False,
    ),
    "row": Case(
        RowBall(),
        lambda G: norms(G, 1).sum(),
        lambda G: -wide(G) / norms(G, 1),
        lambda X: norms(X, 1).max(),
        unitary=False,
    ),
}
SUMS = {
    "f-fanion": sum_case((0.5, SINGLE["dual-3"]), (0.5, FROBENIUS)),
    "s-fanion": sum_case((0.7, SINGLE["dual-3"]), (0.3 * 0.01, MAX)),
    "dual+nuclear": sum_case((1.0, SINGLE["dual-3"]), (1.0, SINGLE["nuclear"])),
    "kyfan+frobenius": sum_case((1.0, SINGLE["kyfan-3"]), (1.0, FROBENIUS)),
    "scaled": sum_case((2.5, SINGLE["dual-3"])),
}
CASES = {**SINGLE, **SUMS}
all_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
single_cases = pytest.mark.parametrize("case", SINGLE.values(), ids=SINGLE)


def random(rng, shape, dtype="float64"):
    X = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        X = X + 1j * rng.standard_normal(shape)
    return X.astype(dtype)


def parts_of(ball):
    return ball.parts if isinstance(ball, SumBall) else ((1.0, ball),)


# ---- the contract ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@all_cases
def test_minimizer(case, shape, dtype, backend, spectrum_matrix, rng):
    """Feasible, attaining, equal to the formula, and where G is."""
    few_eps = 100 * eps_of(dtype)
    for s in SPECTRA.values():
        host = spectrum_matrix(*shape, s, dtype, rng)
        G = backend.asarray(host)
        support = case.support(host)
        result = case.ball.lmo(G)
        assert backend.owns(result.update)
        assert result.update.dtype == backend.dtype(dtype)
        assert tuple(result.update.shape) == shape
        D = backend.to_numpy(result.update)
        assert case.ball.support(G) == pytest.approx(support, rel=few_eps)
        assert -inner(host, D) == pytest.approx(support, rel=few_eps)
        assert result.support == pytest.approx(support, rel=few_eps)
        assert 0 <= result.gap <= 2 * few_eps
        assert result.gap_kind == "exact"
        assert result.status is Status.CONVERGED
        # A relative perturbation of eps turns singular subspaces by eps over their distance.
        error = np.linalg.norm(D - case.minimizer(host))
        assert error <= few_eps * CONDITION * np.linalg.norm(D)
        if case.gauge is None:
            for radius, part in parts_of(case.ball):
                each = part.lmo(G).times(radius).update
                assert part.gauge(each) <= radius * (1 + few_eps)
        else:
            assert case.ball.gauge(result.update) <= 1 + few_eps
            assert case.ball.contains(result.update, rtol=few_eps)
            assert case.gauge(D) <= 1 + few_eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@single_cases
def test_gauge(case, shape, dtype, backend, rng):
    X = random(rng, shape, dtype)
    few_eps = 100 * eps_of(dtype)
    assert case.ball.gauge(backend.asarray(X)) == pytest.approx(case.gauge(X), rel=few_eps)
    assert not case.ball.contains(backend.asarray(X * (2 / case.gauge(X))))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
@single_cases
def test_hoelder(case, shape, dtype, rng):
    """``<G, X> <= support(G) gauge(X)``, with no better constant: attained by the minimizer."""
    for _ in range(20):
        G, X = random(rng, shape, dtype), random(rng, shape, dtype)
        bound = case.ball.support(G) * case.ball.gauge(X)
        assert abs(inner(G, X)) <= bound * (1 + 100 * eps_of(dtype))
        D = case.ball.lmo(G).update
        assert -inner(G, D) == pytest.approx(case.ball.support(G) * case.ball.gauge(D), rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@all_cases
def test_norms_of_both_kinds(case, shape, rng):
    """Positive homogeneity and the triangle inequality."""
    few_eps = 100 * eps_of("float64")
    X, Y = random(rng, shape), random(rng, shape)
    functions = [case.ball.support] + ([case.ball.gauge] if case.gauge else [])
    for f in functions:
        assert f(X + Y) <= (f(X) + f(Y)) * (1 + few_eps)
        for c in (0.3, -7.0, 1e-20, 1e20):
            assert f(c * X) == pytest.approx(abs(c) * f(X), rel=few_eps)
        assert f(0 * X) == 0


@pytest.mark.parametrize("shape", SHAPES)
@all_cases
def test_minimizer_does_not_see_a_positive_factor(case, shape, spectrum_matrix, rng):
    G = spectrum_matrix(*shape, SPECTRA["steep"], "float64", rng)
    D = case.ball.lmo(G).update
    slack = 100 * eps_of("float64") * CONDITION * np.linalg.norm(D)
    for c in (3.7, 1e-9, 1e12):
        assert np.linalg.norm(case.ball.lmo(c * G).update - D) <= slack
    assert np.linalg.norm(case.ball.lmo(-G).update + D) <= slack


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
@all_cases
def test_unitary_invariance(case, shape, dtype, spectrum_matrix, rng):
    G = spectrum_matrix(*shape, SPECTRA["steep"], dtype, rng)
    P, Q = (np.linalg.qr(random(rng, (size, size), dtype))[0] for size in shape)
    H = P @ G @ Q
    D, E = case.ball.lmo(G).update, case.ball.lmo(H).update
    error = np.linalg.norm(P @ D @ Q - E) / np.linalg.norm(E)
    if case.unitary:
        assert error <= 100 * eps_of(dtype) * CONDITION
        assert case.ball.support(H) == pytest.approx(case.ball.support(G), rel=1e-13)
    elif case is not SUMS["s-fanion"]:
        assert error > 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_identities(shape, rng):
    G = random(rng, shape)
    same = [
        (KyFanDualBall(1), NuclearBall()),
        (KyFanBall(RANK), NuclearBall()),
        (KyFanBall(RANK + 5), NuclearBall()),
        (KyFanDualBall(RANK), SpectralBall()),
        (KyFanDualBall(RANK + 5), SpectralBall()),
        (KyFanBall(1), SpectralBall()),
        (SchattenBall(1), NuclearBall()),
        (SchattenBall(2), FrobeniusBall()),
        (SchattenBall(math.inf), SpectralBall()),
    ]
    for first, second in same:
        assert first.support(G) == pytest.approx(second.support(G), rel=1e-13)
        assert first.gauge(G) == pytest.approx(second.gauge(G), rel=1e-13)
        np.testing.assert_allclose(first.lmo(G).update, second.lmo(G).update, atol=1e-12)
    assert ColumnBall().support(G) == pytest.approx(RowBall().support(G.T), rel=1e-14)
    np.testing.assert_allclose(ColumnBall().lmo(G).update, RowBall().lmo(G.T).update.T, atol=1e-15)


@pytest.mark.parametrize("first", SINGLE)
@pytest.mark.parametrize("second", ["dual-3", "kyfan-3", "frobenius", "max"])
def test_sums_add_up(first, second, rng):
    G = random(rng, SHAPES[0])
    B, C = SINGLE[first].ball, SINGLE[second].ball
    total = 0.25 * B + C * 3
    assert total.support(G) == pytest.approx(0.25 * B.support(G) + 3 * C.support(G), rel=1e-14)
    expected = 0.25 * B.lmo(G).update + 3 * C.lmo(G).update
    np.testing.assert_allclose(total.lmo(G).update, expected, atol=1e-13)
    assert total.lmo(G).support == pytest.approx(total.support(G), rel=1e-13)


def test_algebra():
    B, F = KyFanDualBall(3), FrobeniusBall()
    assert (0.5 * B).parts == ((0.5, B),)
    assert (B + F).parts == ((1.0, B), (1.0, F))
    assert (2 * (0.5 * B + F) + 3 * F).parts == ((1.0, B), (2.0, F), (3.0, F))
    assert B * 2 == 2 * B
    assert B == KyFanDualBall(3) != KyFanDualBall(4)
    assert NuclearBall() == KyFanDualBall(1)
    assert len({B, KyFanDualBall(3), F, FrobeniusBall()}) == 2


@single_cases
def test_radius(case, rng):
    X = random(rng, SHAPES[0])
    assert (2.5 * case.ball).gauge(X) == pytest.approx(case.gauge(X) / 2.5, rel=1e-13)
    zero = 0 * case.ball
    assert zero.support(X) == 0
    assert not np.any(zero.lmo(X).update)
    assert (zero + case.ball).gauge(X) == pytest.approx(case.gauge(X), rel=1e-13)


def test_gauge_of_a_point():
    zero = 0 * SpectralBall()
    assert zero.gauge(np.zeros((3, 2))) == 0
    assert zero.gauge(np.ones((3, 2))) == np.inf


# ---- special matrices ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_update_where_the_matrix_is_zero(dtype, shape, backend, spectrum_matrix, rng):
    host, U, Vh = spectrum_matrix(*shape, [1.0, 0.5], dtype, rng, factors=True)
    G = backend.asarray(host)
    for ball in (KyFanDualBall(4), SpectralBall(), KyFanDualBall(RANK + 5)):
        result = ball.lmo(G)
        assert [tuple(f.shape) for f in result.factors] == [(shape[0], 2), (2, shape[1])]
        D = backend.to_numpy(result.update)
        assert np.linalg.norm(D + U @ Vh) <= 100 * eps_of(dtype) * 2
        assert result.support == pytest.approx(1.5, rel=100 * eps_of(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@all_cases
def test_zero(case, dtype, backend):
    G = backend.asarray(np.zeros(SHAPES[0], dtype=dtype))
    result = case.ball.lmo(G)
    assert not np.any(backend.to_numpy(result.update))
    assert result.update.dtype == backend.dtype(dtype)
    assert (result.support, case.ball.support(G)) == (0, 0)
    assert 0 <= result.gap <= 200 * eps_of(dtype)


@single_cases
def test_gauge_of_zero(case):
    assert case.ball.gauge(np.zeros(SHAPES[0])) == 0


@pytest.mark.parametrize("options", [{}, {"gap": 0.1}, {"gap": 0.1, "certify": True}])
def test_zero_with_a_gap_and_more_than_a_direct_svd(options):
    G = np.zeros((200, 150))
    result = KyFanDualBall(3).lmo(G, **options)
    assert not result.update.any()
    assert 0 <= result.gap <= 0.1


@all_cases
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(case, bad, backend, rng):
    host = random(rng, SHAPES[0])
    host[3, 2] = bad
    G = backend.asarray(host)
    with pytest.raises(ValueError, match="contains NaN or inf"):
        case.ball.lmo(G)
    with pytest.raises(ValueError, match="contains NaN or inf"):
        case.ball.support(G)
    if case.gauge:
        with pytest.raises(ValueError, match="contains NaN or inf"):
            case.ball.gauge(G)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e306])
@all_cases
def test_extreme_scales(case, scale, spectrum_matrix, rng):
    G = spectrum_matrix(*SHAPES[0], SPECTRA["steep"], "float64", rng)
    tiny = G * scale
    # Subnormal numbers have lost digits; the others are exact copies of scale * G to eps.
    rel = 1e-10 if scale < 1e-300 else 1e-13
    assert case.ball.support(tiny) / scale == pytest.approx(case.support(G), rel=rel)
    result = case.ball.lmo(tiny)
    assert result.support / scale == pytest.approx(case.support(G), rel=rel)
    D = case.minimizer(G)
    assert np.linalg.norm(result.update - D) <= rel * CONDITION * np.linalg.norm(D)
    if case.gauge:
        assert case.ball.gauge(tiny) / scale == pytest.approx(case.gauge(G), rel=rel)


@pytest.mark.parametrize("name", ["frobenius", "max", "column", "row"])
def test_the_largest_numbers(name):
    """The update is in range wherever G is, also where its norm is not."""
    for dtype in ("float64", "complex128"):
        ones = np.ones(SHAPES[0], dtype=dtype)
        D = CASES[name].ball.lmo(np.finfo(dtype).max * ones).update
        np.testing.assert_allclose(D, CASES[name].minimizer(ones), rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-30, 1e30, 1e37])
@all_cases
def test_extreme_scales_in_single_precision(case, scale, backend, spectrum_matrix, rng):
    host = (spectrum_matrix(*SHAPES[0], SPECTRA["steep"], "float64", rng) * scale).astype("float32")
    G = backend.asarray(host)
    if scale < 1e-37 and float(backend.xp.max(backend.xp.abs(G))) == 0:
        pytest.skip("this library flushes subnormal numbers to zero")
    size = 2.0 ** -np.frexp(np.abs(host).max())[1]
    exact = host.astype(np.float64) * size
    few_eps = 100 * eps_of("float32")
    # Singular values may be rounded to the next subnormal number.
    quantum = RANK * size * float(np.finfo("float32").smallest_subnormal)
    support = pytest.approx(case.support(exact), rel=few_eps, abs=quantum)
    assert case.ball.support(G) * size == support
    D = case.minimizer(exact)
    # Subnormal numbers leave singular values that are small next to s_1 without digits.
    condition = CONDITION if scale > 1e-40 else 1000 * CONDITION
    error = np.linalg.norm(backend.to_numpy(case.ball.lmo(G).update) - D)
    assert error <= few_eps * condition * np.linalg.norm(D)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-19, 1e-22, 1e-30])
def test_rows_and_columns_far_below_the_largest_entry(size, dtype, backend):
    """Squares of their entries underflow; the norms must not."""
    host = np.ones((5, 3), dtype=dtype)
    host[:, 1] *= size if dtype in {"float32", "complex64"} else size**7
    D = backend.to_numpy(ColumnBall().lmo(backend.asarray(host)).update)
    np.testing.assert_allclose(D, -np.ones((5, 3)) / np.sqrt(5), rtol=100 * eps_of(dtype))
    D = backend.to_numpy(RowBall().lmo(backend.asarray(host.T)).update)
    np.testing.assert_allclose(D, -np.ones((3, 5)) / np.sqrt(5), rtol=100 * eps_of(dtype))


@all_cases
def test_half_precision_with_singular_values_beyond_its_range(case):
    """Entries up to 65504 fit in float16, s_1 does not; the update has entries below 1."""
    host = np.diag(np.arange(20, 26) * 1000.0).astype(np.float16) + np.float16(3e4)
    assert values(host)[0] > 65504
    D = wide(case.ball.lmo(host).update)
    eps = eps_of("float16")
    assert -inner(host, D) == pytest.approx(case.support(host), rel=4 * RANK * eps)
    assert case.ball.support(host) == pytest.approx(case.support(host), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_orthogonal_matrices(k):
    """All singular values are equal: any k pairs attain, but there have to be k."""
    for seed in range(200):
        Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((15, 12)))[0]
        result = KyFanDualBall(k).lmo(Q)
        assert result.factors[0].shape[1] == k
        assert -inner(Q, result.update) == pytest.approx(k, rel=1e-13)
        assert KyFanBall(k).gauge(Q) == pytest.approx(k, rel=1e-13)


@all_cases
def test_integers(case, backend):
    host = np.arange(54).reshape(9, 6) % 7 - 3
    host[0, 0] = 40
    G = backend.asarray(host)
    result = case.ball.lmo(G)
    assert result.update.dtype == backend.dtype("float64")
    assert -inner(host, backend.to_numpy(result.update)) == pytest.approx(case.support(host))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@all_cases
def test_half_precision(case, dtype, spectrum_matrix, rng):
    torch = pytest.importorskip("torch")
    host = spectrum_matrix(*SHAPES[0], SPECTRA["steep"], "float32", rng)
    G = torch.asarray(host).to(getattr(torch, dtype))
    result = case.ball.lmo(G)
    assert result.update.dtype == G.dtype
    eps = float(torch.finfo(G.dtype).eps)
    exact = G.to(torch.float64).numpy()
    D = result.update.to(torch.float64).numpy()
    # Factors and updates are rounded to half precision: RANK products of two numbers each.
    assert -inner(exact, D) == pytest.approx(case.support(exact), rel=4 * RANK * eps)
    if case.gauge:
        assert case.gauge(D) <= 1 + 4 * RANK * eps


def test_half_precision_of_numpy(rng):
    G = rng.standard_normal(SHAPES[0]).astype(np.float16)
    for case in CASES.values():
        assert case.ball.lmo(G).update.dtype == np.float16


@all_cases
def test_the_argument_stays_as_it_is(case, rng):
    G = random(rng, SHAPES[0])
    before = G.copy()
    case.ball.lmo(G).update  # noqa: B018 - formed when asked for
    case.ball.support(G)
    assert np.array_equal(G, before)


@all_cases
@pytest.mark.parametrize("zero", [False, True])
def test_an_update_is_of_the_matrix_as_it_was(case, zero, rng):
    """Momentum buffers are overwritten in place, perhaps before the update is formed."""
    G = random(rng, SHAPES[0]) * (not zero)
    expected = case.ball.lmo(G.copy()).update
    result = case.ball.lmo(G)
    G[...] = random(rng, SHAPES[0])
    assert np.array_equal(result.update, expected)


# ---- what is reported -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SINGLE if CASES[name].unitary])
def test_factors(name, backend, spectrum_matrix, rng):
    if name == "frobenius":
        pytest.skip("its update is as large as G")
    host = spectrum_matrix(*SHAPES[0], SPECTRA["steep"], "float64", rng)
    result = SINGLE[name].ball.lmo(backend.asarray(host))
    U, Vh = (backend.to_numpy(factor) for factor in result.factors)
    np.testing.assert_allclose(U @ Vh, backend.to_numpy(result.update), atol=1e-14)
    assert len(result.terms) == 1
    assert U.shape[1] == np.linalg.matrix_rank(backend.to_numpy(result.update))
    assert isinstance(result.subspace, Subspace)
    assert result.subspace.U.shape[1] >= U.shape[1]


@pytest.mark.parametrize("name", ["frobenius", "max", "column", "row", *SUMS])
def test_what_has_no_factors(name, rng):
    result = CASES[name].ball.lmo(random(rng, SHAPES[0]))
    scaled_only = name == "scaled"
    assert (result.factors is None) != scaled_only
    assert (result.subspace is not None) == (name in SUMS)
    assert result.update is result.update


def test_times(rng):
    result = SUMS["f-fanion"].ball.lmo(random(rng, SHAPES[0]))
    twice = result.times(2.0)
    np.testing.assert_allclose(twice.update, 2 * result.update, rtol=1e-15)
    assert twice.support == 2 * result.support
    assert twice.gap == result.gap
    assert (twice.matvecs, twice.passes) == (result.matvecs, result.passes)


@pytest.mark.parametrize("name", ["frobenius", "max", "column", "row"])
def test_formulas_take_no_products(name, rng):
    result = CASES[name].ball.lmo(random(rng, SHAPES[0]))
    assert (result.matvecs, result.passes, result.gap) == (0, 0, 0.0)


def test_products_are_counted(rng):
    G = random(rng, (200, 120))
    plain = KyFanDualBall(3)
    iterated = plain.lmo(G, gap=0.3, rng=0)
    assert iterated.matvecs >= iterated.passes > 0
    total = (plain + 2 * plain + FrobeniusBall()).lmo(G, gap=0.3, rng=0)
    assert (total.matvecs, total.passes) == (2 * iterated.matvecs, 2 * iterated.passes)
    assert total.gap_kind == "estimate"


# ---- gaps ---------------------------------------------------------------------------------------

BIG = (200, 120)
BIG_SPECTRA = {
    "exponential": 0.8 ** np.arange(120),
    "power": 1.0 / np.arange(1, 121),
    "flat": np.linspace(1, 0.9, 120),
    "constant": np.ones(120),
    "cluster": np.r_[np.ones(4), 0.99 * np.ones(4), 0.1 * np.ones(112)],
    "gaussian": np.sqrt(200) + np.sqrt(120) * np.cos(np.linspace(0, np.pi, 120)),
}
on_spectra = pytest.mark.parametrize("spectrum", BIG_SPECTRA.values(), ids=BIG_SPECTRA)


def true_gap(G, k, D):
    support = values(G)[:k].sum()
    return (support + inner(G, D)) / support


@pytest.mark.parametrize("gap", [0.1, 1e-2, 1e-3])
@pytest.mark.parametrize("k", [1, 5])
@on_spectra
def test_gap(spectrum, k, gap, spectrum_matrix):
    for seed in range(4):
        shape = BIG if seed % 2 else BIG[::-1]
        G = spectrum_matrix(*shape, spectrum, "float64", seed)
        result = KyFanDualBall(k).lmo(G, gap=gap, rng=seed)
        truth = true_gap(G, k, result.update)
        assert truth <= gap
        assert result.gap <= gap
        assert result.support == pytest.approx(-inner(G, result.update), rel=1e-12)
        assert KyFanDualBall(k).gauge(result.update) <= 1 + 1e-13


@pytest.mark.parametrize("gap", [0.1, 1e-3])
@on_spectra
def test_certified_gap(spectrum, gap, spectrum_matrix):
    for seed in range(3):
        G = spectrum_matrix(*BIG, spectrum, "float64", seed)
        result = KyFanDualBall(5).lmo(G, gap=gap, rng=seed, certify=True)
        assert result.gap_kind in {"bound", "exact"}
        assert true_gap(G, 5, result.update) - 1e-14 <= result.gap <= gap


def test_a_certificate_without_a_gap(spectrum_matrix):
    G = spectrum_matrix(*BIG, BIG_SPECTRA["exponential"], "float64", 0)
    result = KyFanDualBall(5).lmo(G, certify=True, method="trlan")
    assert result.gap_kind in {"bound", "exact"}
    assert true_gap(G, 5, result.update) - 1e-14 <= result.gap


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_gap_in_single_precision(dtype, backend, spectrum_matrix):
    for spectrum in BIG_SPECTRA.values():
        host = spectrum_matrix(*BIG, spectrum, dtype, 1)
        result = KyFanDualBall(5).lmo(backend.asarray(host), gap=1e-2, rng=0, certify=True)
        assert backend.owns(result.update)
        truth = true_gap(host, 5, backend.to_numpy(result.update))
        assert truth - 100 * eps_of(dtype) <= result.gap <= 1e-2


@pytest.mark.parametrize("shape", [BIG, BIG[::-1]])
@on_spectra
def test_warm_start(spectrum, shape, spectrum_matrix, rng):
    G = spectrum_matrix(*shape, spectrum, "float64", rng)
    ball = KyFanDualBall(5)
    first = ball.lmo(G, gap=1e-2, rng=0)
    near = G + 0.05 * spectrum_matrix(*shape, spectrum, "float64", rng)
    second = ball.lmo(near, gap=1e-2, rng=1, start=first.subspace)
    assert true_gap(near, 5, second.update) <= 1e-2
    assert second.gap <= 1e-2


def test_a_good_warm_start_saves_products(spectrum_matrix, rng, general_way):
    G = spectrum_matrix(*BIG, BIG_SPECTRA["exponential"], "float64", rng)
    ball = KyFanDualBall(5)
    first = ball.lmo(G, gap=1e-6, rng=0)
    again = ball.lmo(G, gap=1e-6, rng=1, start=first.subspace)
    assert again.passes < first.passes


@pytest.mark.parametrize("shape", [BIG, BIG[::-1]])
@pytest.mark.parametrize("width", [1, 5, 20])
@pytest.mark.parametrize("where", ["invariant", "orthogonal"])
@on_spectra
def test_useless_start(spectrum, where, width, shape, spectrum_matrix, rng):
    """A start without any part in the leading vectors: invariant under G^H G, or merely so."""
    G, U, Vh = spectrum_matrix(*shape, spectrum, "float64", rng, factors=True)
    left, right = U[:, 40:], Vh[40:]
    if where == "orthogonal":
        Q = np.linalg.qr(rng.standard_normal((len(right), width)))[0]
        left, right = left @ Q, Q.T @ right
    start = Subspace(left[:, :width], right[:width])
    result = KyFanDualBall(5).lmo(G, gap=1e-2, rng=0, start=start)
    assert true_gap(G, 5, result.update) <= 1e-2
    assert result.gap <= 1e-2


def test_gap_of_a_sum(spectrum_matrix, rng):
    G = spectrum_matrix(*BIG, BIG_SPECTRA["power"], "float64", rng)
    ball = 0.5 * KyFanDualBall(5) + 0.5 * FrobeniusBall()
    result = ball.lmo(G, gap=1e-2, rng=0)
    truth = (ball.support(G) + inner(G, result.update)) / ball.support(G)
    assert truth <= 1e-2
    assert result.gap <= 1e-2
    assert ball.lmo(G, gap=1e-2, rng=0, start=result.subspace).gap <= 1e-2


def test_tolerance(spectrum_matrix, rng):
    G, U, Vh = spectrum_matrix(*BIG, BIG_SPECTRA["power"], "float64", rng, factors=True)
    result = KyFanDualBall(3).lmo(G, tol=1e-8, method="trlan", rng=0)
    # Vectors turn by residual over distance, s_3 - s_4 = 1/12, at both ends of three triplets.
    assert np.linalg.norm(result.update + U[:, :3] @ Vh[:3]) <= 6 * 12 * 1e-8
    assert result.gap_kind == "estimate"
    assert true_gap(G, 3, result.update) <= result.gap


def test_the_same_seed_gives_the_same_update(rng):
    G = random(rng, BIG)
    first, second = (KyFanDualBall(3).lmo(G, gap=0.1, rng=7).update for _ in range(2))
    assert np.array_equal(first, second)


def test_water_filling(rng):
    """Against 2000 random ways to spread the rest, and with a way that attains it."""
    for k in (1, 2, 5):
        S = np.sort(rng.uniform(0, 3, k))[::-1]
        for rest in (0.0, 0.3, 50.0):
            bound = water_filling(S, rest)
            q = rest * rng.dirichlet(np.full(k, 0.5), 2000)
            assert np.sqrt(S**2 + q).sum(axis=1).max() <= bound * (1 + 1e-14)
            low, high = 0.0, S[0] ** 2 + rest
            for _ in range(200):
                level = (low + high) / 2
                spent = np.maximum(level - S**2, 0).sum()
                low, high = (level, high) if spent < rest else (low, level)
            assert np.sqrt(np.maximum(S**2, low)).sum() == pytest.approx(bound, rel=1e-10)


# ---- what is not an array ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SINGLE if SINGLE[name].unitary])
def test_sparse_matrices_and_operators(name, rng):
    G = np.where(rng.random((9, 6)) < 0.6, random(rng, (9, 6)), 0.0)
    sparse = scipy.sparse.csr_array(G)
    ball = SINGLE[name].ball
    if name == "frobenius":
        for f in (ball.lmo, ball.support, ball.gauge):
            with pytest.raises(TypeError, match="pass a dense array"):
                f(sparse)
        return
    for A in (sparse, scipy.sparse.linalg.aslinearoperator(G), operators.as_operator(G)):
        assert ball.support(A) == pytest.approx(SINGLE[name].support(G), rel=1e-12)
        assert ball.gauge(A) == pytest.approx(SINGLE[name].gauge(G), rel=1e-12)
        np.testing.assert_allclose(ball.lmo(A).update, SINGLE[name].minimizer(G), atol=1e-10)


@pytest.mark.parametrize("name", ["frobenius", "max", "column", "row", "s-fanion"])
def test_entries_need_an_array(name):
    G = scipy.sparse.eye_array(9, 6).tocsr()
    with pytest.raises(TypeError, match="pass a dense array"):
        CASES[name].ball.lmo(G)


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [KyFanDualBall, KyFanBall])
def test_bad_k(make):
    for k in (0, -2, True):
        with pytest.raises(ValueError, match="integer of at least 1"):
            make(k)
    for k in (1.0, "3", None):
        with pytest.raises(TypeError, match="is not an integer"):
            make(k)
    assert make(np.int64(3)).gauge(np.eye(3)) > 0


def test_bad_p():
    for p in (0.9, 0, -1, -np.inf, np.nan):
        with pytest.raises(ValueError, match="at least 1"):
            SchattenBall(p)
    for p in ("2", None, 1j):
        with pytest.raises(TypeError, match="is not a number"):
            SchattenBall(p)
    assert SchattenBall(2) == SchattenBall(2.0)


@pytest.mark.parametrize("p", [1 + 1e-12, 1.01, 100.0, 1e12])
def test_extreme_schatten_norms(p, spectrum_matrix, rng):
    """Powers beyond the range of numbers, and yet norms between their neighbours."""
    G = spectrum_matrix(*SHAPES[0], SPECTRA["steep"], "float64", rng)
    ball, limit = SchattenBall(p), SchattenBall(1 if p < 2 else np.inf)
    result = ball.lmo(G)
    assert ball.gauge(result.update) == pytest.approx(1, rel=100 * eps_of("float64"))
    assert -inner(G, result.update) == pytest.approx(ball.support(G), rel=1e-13)
    # Norms of r numbers differ by at most the power |1/p - 1/limit| of r.
    power = RANK ** abs(1 / p - 1 / limit.p) * (1 + 1e-13)
    assert limit.support(G) / power <= ball.support(G) <= limit.support(G) * power
    assert limit.gauge(G) / power <= ball.gauge(G) <= limit.gauge(G) * power


@all_cases
def test_bad_shapes(case):
    for shape in [(3,), (2, 3, 4), (0, 3), (3, 0)]:
        with pytest.raises(ValueError, match=r"dimension|shape|matrix|rows"):
            case.ball.lmo(np.ones(shape))
        with pytest.raises(ValueError, match=r"dimension|shape|matrix|rows"):
            case.ball.support(np.ones(shape))


@all_cases
def test_what_is_no_matrix(case):
    for G in ("text", None, [[1.0, 2.0]]):
        with pytest.raises((TypeError, ValueError)):
            case.ball.lmo(G)
    with pytest.raises(TypeError):
        case.ball.lmo(np.eye(2, dtype=object))


@pytest.mark.parametrize("factor", [-1, np.nan, np.inf])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match="a ball cannot be scaled by"):
        factor * KyFanDualBall(2)
    with pytest.raises(ValueError, match="a ball cannot be scaled by"):
        (KyFanDualBall(2) + FrobeniusBall()) * factor


def test_balls_add_to_balls_only():
    with pytest.raises(TypeError):
        KyFanDualBall(2) + 1
    with pytest.raises(TypeError):
        1 + KyFanDualBall(2)


@pytest.mark.parametrize("gap", [0, 1, -0.1, 2, np.nan])
def test_bad_gap(gap):
    with pytest.raises(ValueError, match="between 0 and 1"):
        KyFanDualBall(2).lmo(np.eye(3), gap=gap)


def test_bad_options():
    G = np.eye(3)
    ball = KyFanDualBall(2)
    with pytest.raises(ValueError, match="pass one of them"):
        ball.lmo(G, gap=0.1, tol=1e-3)
    with pytest.raises(ValueError, match="is not known"):
        ball.lmo(G, method="nonsense")
    with pytest.raises(ValueError, match="is not known"):
        ball.lmo(G, gap=0.1, method="nonsense")
    with pytest.raises(ValueError, match="relative residual"):
        ball.lmo(G, tol=-1)
    with pytest.raises(ValueError, match="start has shape"):
        ball.lmo(np.ones(BIG), gap=0.1, start=np.ones((3, 1)))
    with pytest.raises(TypeError):
        ball.lmo(G, nonsense=1)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1e8), ("float32", 1e-12), ("float64", 1e61)]
)
def test_gap_at_any_scale(dtype, scale, backend, spectrum_matrix):
    spectrum = BIG_SPECTRA["gaussian"]
    host = (spectrum_matrix(*BIG, spectrum, "float64", 1) * scale).astype(dtype)
    for method in (None, "krylov"):
        result = KyFanDualBall(5).lmo(backend.asarray(host), gap=1e-3, rng=0, method=method)
        update = backend.to_numpy(result.update).astype("float64")
        assert true_gap(host.astype("float64") / scale, 5, update) <= 1e-3
        assert result.gap <= 1e-3


@pytest.mark.parametrize("method", ["trlan", ThickRestartLanczos(block_size=2)])
def test_named_lanczos_finds_all_copies(method):
    for seed in range(5):
        G = np.diag(np.r_[np.ones(5), np.full(85, 1e-6)])
        result = KyFanDualBall(5).lmo(G, gap=1e-2, method=method, rng=seed)
        assert true_gap(G, 5, result.update) <= 1e-2


def test_values_that_count_as_zero_are_part_of_the_gap(spectrum_matrix):
    """Many values just below the cutoff: together they are not nothing."""
    n = 400
    small = 0.8 * n * eps_of("float32")
    G = spectrum_matrix(n, n, np.r_[1.0, np.full(n - 1, small)], "float32", 0)
    with pytest.warns(ConvergenceWarning, match="count as zero"):
        result = KyFanDualBall(n).lmo(G, gap=1e-3, certify=True)
    truth = true_gap(G.astype("float64"), n, result.update.astype("float64"))
    assert truth > 1e-3
    assert result.gap == pytest.approx(truth, rel=0.1)
    assert not result.status.converged


def test_a_gap_below_rounding_is_not_called_met(spectrum_matrix):
    G = spectrum_matrix(*BIG, BIG_SPECTRA["power"], "float32", 0)
    with pytest.warns(ConvergenceWarning, match="rounding"):
        result = KyFanDualBall(5).lmo(G, gap=1e-6, certify=True)
    assert not result.status.converged


def test_an_exact_low_rank_and_a_gap_raise_no_warning(rng):
    G = 1e60 * (rng.standard_normal((120, 1)) @ rng.standard_normal((1, 90)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = KyFanDualBall(2).lmo(G, gap=1e-2, rng=0)
    assert result.gap <= 1e-2


@pytest.mark.parametrize(
    "ball",
    [
        KyFanDualBall(2),
        KyFanBall(2),
        NuclearBall(),
        SpectralBall(),
        RMSBall(),
        SchattenBall(3),
        FrobeniusBall(),
        MaxBall(),
        ColumnBall(),
        RowBall(),
        0.5 * KyFanDualBall(2) + 0.5 * FrobeniusBall(),
    ],
    ids=str,
)
def test_balls_are_values(ball):
    """Equal where their numbers are, and nothing about them can be changed."""
    twin = copy.deepcopy(ball)
    assert twin == ball
    assert hash(twin) == hash(ball)
    assert len({ball, twin, 2 * ball}) == 2
    for name in ("k", "p", "radius", "anything"):
        with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
            setattr(ball, name, 3)


# ---- denormal entries -------------------------------------------------------------------------


def with_denormals(kind, dtype, rng):
    """Small integers times the smallest positive number, with something larger beside them."""
    X = rng.integers(-3, 4, (5, 4)).astype(dtype)
    if np.iscomplexobj(X):
        X = X + 1j * rng.integers(-3, 4, (5, 4))
    X[2], X[:, 2] = 0, 0
    limits = np.finfo(dtype)
    X = (X * limits.smallest_subnormal).astype(dtype)
    if kind == "beside 1":
        X[0, 0] = 1
    if kind == "beside the largest":
        X[0, 0] = limits.max / 8
    if kind == "beside a row":
        X[1] = rng.standard_normal(4)
    if kind == "beside a column":
        X[:, 1] = rng.standard_normal(5)
    return X


@pytest.mark.parametrize(
    "kind", ["alone", "beside 1", "beside the largest", "beside a row", "beside a column"]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("ball", "axis"), [(MaxBall(), None), (ColumnBall(), 0), (RowBall(), 1), (FrobeniusBall(), ())]
)
def test_denormal_entries(ball, axis, dtype, kind, backend, rng):
    """Each entry, column or row is divided by its norm, however small that is beside others."""
    X = with_denormals(kind, dtype, rng)
    found = ball.lmo(backend.asarray(X))
    D = wide(backend.to_numpy(found.update))
    rounding = 8 * eps_of(dtype)
    if axis == ():
        assert np.linalg.norm(D) == pytest.approx(1, rel=rounding)
        return
    lengths = np.abs(D) if axis is None else np.linalg.norm(D, axis=axis)
    there = X != 0 if axis is None else (X != 0).any(axis=axis)
    np.testing.assert_allclose(lengths, there, atol=rounding)
    # In the direction of -X: exactly so, since integers times a power of two are what X is.
    if kind == "alone":
        tiny = np.finfo(dtype).smallest_subnormal
        Y = X.real / tiny + (1j * (X.imag / tiny) if np.iscomplexobj(X) else 0)
        sizes = np.abs(Y) if axis is None else np.linalg.norm(Y, axis=axis, keepdims=True)
        np.testing.assert_allclose(D, -Y / np.where(sizes > 0, sizes, 1), atol=rounding)


@pytest.mark.parametrize("dtype", DTYPES)
def test_denormal_entries_in_a_sum(dtype, backend, rng):
    X = with_denormals("beside 1", dtype, rng)
    ball = 0.5 * KyFanDualBall(2) + 0.25 * MaxBall()
    D = backend.to_numpy(ball.lmo(backend.asarray(X)).update)
    assert np.isfinite(D).all()
    assert abs(D[0, 0] + 0.75) <= 8 * eps_of(dtype)


# ---- gaps above the one that was asked for ----------------------------------------------------

GAP_BALLS = {
    "spectral": SpectralBall(),
    "RMS": RMSBall(),
    "Ky Fan": KyFanBall(3),
    "dual Ky Fan": KyFanDualBall(3),
    "whole dual Ky Fan": KyFanDualBall(99),
    "Schatten": SchattenBall(1.5),
    "Schatten inf": SchattenBall(np.inf),
    "F-Muon": SpectralBall() + 1e-3 * FrobeniusBall(),
    "S-Fanion": KyFanDualBall(4) + 1e-3 * MaxBall(),
}


WHOLE_METHODS = [None, "exact", "svd", "gram", "direct", "trlan", "krylov"]
SVDS_METHODS = [None, "direct", "trlan", "krylov"]
GAP_CASES = [
    (name, method)
    for name in GAP_BALLS
    for method in (SVDS_METHODS if "dual" in name or name == "S-Fanion" else WHOLE_METHODS)
]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(("name", "method"), GAP_CASES)
def test_a_gap_above_the_one_asked_for_is_told(name, method, many, backend, rng):
    """Rounding in float32 leaves more than 1e-6 of a gap: a status and a warning say so."""
    ball, G = GAP_BALLS[name], rng.standard_normal((64, 13)).astype(np.float32)
    G = backend.asarray(G)
    options = {"gap": 1e-6, "method": method, "rng": 0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ball.lmo_many([G, 2 * G], **options) if many else [ball.lmo(G, **options)]
        if many and method is None:  # warm
            found += ball.lmo_many([G * 1.001, G * 2.001], start=found, **options)
    missed = [result for result in found if result.gap > 1e-6]
    assert missed
    assert all(not result.status.converged for result in missed)
    told = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    assert len(told) >= len(missed)
    assert all(w.filename == __file__ for w in told)


def test_the_gap_of_a_sum_is_that_of_the_whole(rng):
    """A part with too large a gap and little weight leaves the sum within what was asked for."""
    G = rng.standard_normal((64, 13)).astype(np.float32)
    ball = 1e-3 * SpectralBall() + FrobeniusBall()
    assert ball.lmo(G, gap=1e-6).status is Status.CONVERGED


def test_a_warning_names_the_matrix_of_a_batch(rng):
    """The second of three matrices is rounded to float32, so that its gap exceeds 1e-9."""
    G = rng.standard_normal((20, 13))
    with pytest.warns(ConvergenceWarning, match="^matrix 1 of the batch: the gap is") as caught:
        SpectralBall().lmo_many([G, G.astype(np.float32), G], gap=1e-9)
    assert len(caught) == 1
    with pytest.warns(ConvergenceWarning, match="^the gap is .*above the requested 1.00e-09"):
        SpectralBall().lmo(G.astype(np.float32), gap=1e-9)
