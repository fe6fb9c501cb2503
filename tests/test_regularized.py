"""Regularized updates: nothing near them is better, and the threshold is a root."""

from __future__ import annotations

import numpy as np
import pytest

from trsvd import Status
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
from trsvd.regularized import f_star_neon, f_star_threshold, nuclear_neon, regularized_update

SHAPES = [(7, 5), (5, 7)]
DTYPES = ["float32", "float64", "complex64", "complex128"]
BALLS = {
    "dual-1": KyFanDualBall(1),
    "dual-3": KyFanDualBall(3),
    "dual-more": KyFanDualBall(9),
    "kyfan-3": KyFanBall(3),
    "spectral": SpectralBall(),
    "rms": RMSBall(),
    "frobenius": FrobeniusBall(),
    "max": MaxBall(),
    "column": ColumnBall(),
    "row": RowBall(),
    "scaled": 0.4 * KyFanDualBall(2),
    "f-fanion": 0.5 * KyFanDualBall(2) + 0.5 * FrobeniusBall(),
    "dual+nuclear": KyFanDualBall(3) + NuclearBall(),
}
all_balls = pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)


def random(rng, shape, dtype="float64"):
    X = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        X = X + 1j * rng.standard_normal(shape)
    return X.astype(dtype)


def values(X):
    return np.linalg.svd(X, compute_uv=False)


def inner(X, Y):
    return float(np.real(np.vdot(X, Y)))


def root(S):
    """``sum_i max(s_i - tau, 0) = tau`` by bisection."""
    low, high = 0.0, float(S.sum())
    for _ in range(200):
        tau = (low + high) / 2
        low, high = (tau, high) if np.maximum(S - tau, 0).sum() > tau else (low, tau)
    return low


def f_star_gauge(D):
    """The quadratic mean of the nuclear and the Frobenius norm."""
    S = values(D)
    return np.sqrt((S.sum() ** 2 + (S**2).sum()) / 2)


def assert_a_minimizer(objective, D, rng):
    """No perturbation improves a convex objective: 240 random ones, of every size and kind."""
    best = objective(D)
    slack = 100 * np.finfo(np.float64).eps * max(1.0, abs(best))
    size = np.linalg.norm(D)
    U, _, Vh = np.linalg.svd(D, full_matrices=False)
    for i in range(240):
        E = random(rng, D.shape, D.dtype)
        if i % 3 == 1:  # within the singular vectors of D
            E = U @ np.diag(random(rng, len(Vh))) @ Vh
        if i % 3 == 2:  # of rank one
            E = np.outer(E[:, 0], E[0])
        E *= 10.0 ** rng.uniform(-6, 0.5) * size / np.linalg.norm(E)
        assert objective(D + E) >= best - slack
    for t in (0.0, 0.9, 0.999, 1.001, 1.1, 2.0):
        assert objective(t * D) >= best - slack


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
@all_balls
def test_no_perturbation_improves(ball, shape, dtype, rng):
    G, lam = random(rng, shape, dtype), 0.7
    D = regularized_update(ball, G, lam).update
    best = inner(G, D) + lam * ball.gauge(D) ** 2
    assert best == pytest.approx(-(ball.support(G) ** 2) / (4 * lam), rel=1e-10)
    if ball in (BALLS["f-fanion"], BALLS["dual+nuclear"]):
        # The gauge of a sum takes a while; its value at the minimum was just compared.
        for _ in range(20):
            E = D + 0.1 * np.linalg.norm(D) * random(rng, shape, dtype)
            assert inner(G, E) + lam * ball.gauge(E) ** 2 >= best * (1 + 1e-10)
        return
    assert_a_minimizer(lambda X: inner(G, X) + lam * ball.gauge(X) ** 2, D, rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@all_balls
def test_is_a_multiple_of_the_oracle(ball, shape, dtype, backend, rng):
    host = random(rng, shape, dtype)
    G, lam = backend.asarray(host), 0.3
    result = regularized_update(ball, G, lam)
    assert backend.owns(result.update)
    assert result.update.dtype == backend.dtype(dtype)
    few_eps = 100 * float(np.finfo(dtype).eps)
    factor = ball.support(G) / (2 * lam)
    expected = factor * backend.to_numpy(ball.lmo(G).update)
    D = backend.to_numpy(result.update)
    np.testing.assert_allclose(D, expected, atol=few_eps * factor * 3)
    assert result.support == pytest.approx(-inner(host, D), rel=few_eps)
    assert result.support == pytest.approx(ball.support(G) ** 2 / (2 * lam), rel=few_eps)


@pytest.mark.parametrize("gap", [0.01, 0.3])
def test_gap_is_what_the_objective_loses(gap, spectrum_matrix, rng):
    """2 g - g^2 for a gap g of the oracle, and never less than what is lost."""
    G, lam = spectrum_matrix(100, 80, np.linspace(1, 0.5, 80), "float64", rng), 0.7
    for ball in (KyFanDualBall(3), 0.5 * KyFanDualBall(3) + 0.5 * FrobeniusBall()):
        options = {"gap": gap, "certify": True, "rng": 1}
        g = ball.lmo(G, **options).gap
        result = regularized_update(ball, G, lam, **options)
        assert result.gap == pytest.approx(2 * g - g**2, rel=1e-12)
        assert result.gap_kind in {"bound", "exact"}
        D = result.update
        best = -(ball.support(G) ** 2) / (4 * lam)
        slack = 1e-13
        # The gauge of D is at most half of what the oracle attains, over lam.
        bound = inner(G, D) + lam * (2 * lam * result.support) / (4 * lam**2)
        assert bound >= best * (1 + slack)
        assert (bound - best) / -best <= result.gap + slack
        if isinstance(ball, KyFanDualBall):
            assert inner(G, D) + lam * ball.gauge(D) ** 2 <= bound + slack
        optimal = 2 * -best
        assert result.support * (1 - slack) <= optimal
        assert optimal <= result.support / (1 - result.gap) * (1 + slack)


def test_nuclear_neon(spectrum_matrix, rng):
    G, U, Vh = spectrum_matrix(7, 5, [4.0, 2.0, 1.0], "float64", rng, factors=True)
    result = nuclear_neon(G, 0.5)
    np.testing.assert_allclose(result.update, -4.0 * np.outer(U[:, 0], Vh[0]), atol=1e-13)
    assert [factor.shape for factor in result.factors] == [(7, 1), (1, 5)]
    assert result.support == pytest.approx(16.0)


def test_options_are_passed_on(spectrum_matrix, rng):
    G = spectrum_matrix(100, 80, 0.7 ** np.arange(80), "float64", rng)
    result = nuclear_neon(G, 1.0, gap=1e-2, rng=0)
    assert result.gap_kind == "estimate"
    assert 0.99 * 0.5 <= -inner(G, result.update) / 1.0 <= 0.5 + 1e-13
    with pytest.raises(ValueError, match="gap"):
        regularized_update(SpectralBall() + NuclearBall(), G, 1.0, gap=2)


# ---- F*-Neon ------------------------------------------------------------------------------------

THRESHOLD_SPECTRA = {
    "one": np.array([2.0]),
    "two": np.array([3.0, 1.0]),
    "tie": np.array([2.0, 1.0]),  # tau = 1: the second value is not above it
    "constant": np.ones(40),
    "steep": 0.5 ** np.arange(40),
    "slow": 1 / np.arange(1, 41),
    "linear": np.linspace(1, 0.1, 40),
    "rank-two": np.r_[2.0, 1.9, np.zeros(20)],
}
on_spectra = pytest.mark.parametrize("S", THRESHOLD_SPECTRA.values(), ids=THRESHOLD_SPECTRA)


@on_spectra
def test_threshold(S):
    tau = f_star_threshold(S)
    assert tau == pytest.approx(root(S), rel=1e-13)
    assert np.maximum(S - tau, 0).sum() == pytest.approx(tau, rel=1e-13)
    # The values above it are enough.
    assert f_star_threshold(S[tau < S]) == pytest.approx(tau, rel=1e-13)
    for scale in (1e-200, 1e200):
        assert f_star_threshold(scale * S) == pytest.approx(scale * tau, rel=1e-13)


def test_threshold_of_random_values(rng):
    for _ in range(200):
        S = -np.sort(-(rng.exponential(size=rng.integers(1, 30)) ** rng.uniform(0.1, 4)))
        assert f_star_threshold(S) == pytest.approx(root(S), rel=1e-12)


def test_threshold_of_nothing():
    assert f_star_threshold(np.zeros(0)) == 0
    assert f_star_threshold(np.zeros(4)) == 0


def sharp(S):
    """The count of values above the root, 1e-9 apart from it."""
    return int(np.sum(root(S) * (1 + 1e-9) < S))


@pytest.mark.parametrize("dtype", DTYPES)
@on_spectra
def test_f_star_neon(S, dtype, backend, spectrum_matrix, rng):
    lam, few_eps = 0.8, 100 * float(np.finfo(dtype).eps)
    for shape in [(45, 41), (41, 45)]:
        host, U, Vh = spectrum_matrix(*shape, S, dtype, rng, factors=True)
        result = f_star_neon(backend.asarray(host), lam, rng=0)
        tau = root(S)
        kept = np.maximum(S - tau, 0)
        D = backend.to_numpy(result.update)
        # Soft thresholding is Lipschitz: no distances of singular values enter.
        assert backend.owns(result.update)
        assert result.update.dtype == backend.dtype(dtype)
        error = np.linalg.norm(D + (U * kept) @ Vh / lam)
        assert error <= few_eps * len(S) * S[0] / lam
        assert result.support == pytest.approx((kept * S).sum() / lam, rel=few_eps * len(S))
        assert result.support == pytest.approx(-inner(host, D), rel=few_eps * len(S))
        assert result.status is Status.CONVERGED
        if "float64" in dtype or "128" in dtype:
            rank = int(np.sum(np.linalg.svd(D, compute_uv=False) > 1e-10 * S[0]))
            assert rank == sharp(S)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_improves_f_star_neon(shape, dtype, rng):
    for lam in (0.2, 3.0):
        G = random(rng, shape, dtype)
        D = f_star_neon(G, lam).update
        assert_a_minimizer(lambda X: inner(G, X) + lam * f_star_gauge(X) ** 2, D, rng)  # noqa: B023


@pytest.mark.parametrize("method", ["trlan", "direct", None])
def test_rank_and_start_of_f_star_neon(method, spectrum_matrix, rng):
    S = 0.7 ** np.arange(100)
    G = spectrum_matrix(150, 120, S, "float64", rng)
    result = f_star_neon(G, 1.0, method=method, tol=1e-10, rng=0)
    count = sharp(S)
    assert [factor.shape for factor in result.factors] == [(150, count), (count, 120)]
    assert 0 <= result.gap <= 1e-8
    assert result.gap_kind == ("estimate" if method == "trlan" else "exact")
    assert result.matvecs > 0
    assert result.passes > 0
    again = f_star_neon(G + 1e-4, 1.0, method=method, tol=1e-10, rng=1, start=result.subspace)
    assert again.status is Status.CONVERGED
    tau = root(values(G + 1e-4))
    assert again.support == pytest.approx(
        (np.maximum(values(G + 1e-4) - tau, 0) * values(G + 1e-4)).sum(), rel=1e-8
    )


def test_f_star_neon_of_zero(backend):
    result = f_star_neon(backend.asarray(np.zeros((6, 4), dtype="float32")), 1.0)
    D = backend.to_numpy(result.update)
    assert D.shape == (6, 4)
    assert D.dtype == np.float32
    assert not D.any()
    assert (result.support, result.gap) == (0, 0)


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100])
@pytest.mark.parametrize("update", [nuclear_neon, f_star_neon])
def test_homogeneity(update, scale, rng):
    """Updates are proportional to G and to 1 / lam, in the whole range of numbers."""
    G = random(rng, (7, 5))
    D = update(G, 0.5).update
    np.testing.assert_allclose(update(G * scale, 0.5).update / scale, D, atol=1e-12)
    np.testing.assert_allclose(update(G * scale, scale).update, D / 2, atol=1e-12)


@pytest.mark.parametrize("update", [nuclear_neon, f_star_neon])
def test_updates_that_are_in_range_although_squares_are_not(update, rng):
    """``-<G, D>`` may overflow to inf, without a warning; D must not."""
    G = random(rng, (7, 5))
    D = update(G, 0.5).update
    result = update(G * 1e200, 0.5)
    np.testing.assert_allclose(result.update / 1e200, D, atol=1e-12)
    assert not np.isnan(result.gap)


@pytest.mark.parametrize("update", [nuclear_neon, f_star_neon])
def test_half_precision_and_integers(update, backend):
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16):
        G = torch.diag(torch.asarray([3.0, 2.0, 1.0])).to(dtype)
        assert update(G, 1.0).update.dtype == dtype
    G = backend.asarray(np.arange(12).reshape(4, 3))
    assert update(G, 1.0).update.dtype == backend.dtype("float64")


@pytest.mark.parametrize("lam", [0, -1, np.nan, np.inf])
def test_bad_lam(lam):
    G = np.eye(3)
    for update in (nuclear_neon, f_star_neon, lambda G, x: regularized_update(MaxBall(), G, x)):
        with pytest.raises(ValueError, match="must be a finite positive number"):
            update(G, lam)


@pytest.mark.parametrize("lam", ["x", None, 1j])
def test_what_is_no_lam(lam):
    for update in (nuclear_neon, f_star_neon, lambda G, x: regularized_update(MaxBall(), G, x)):
        with pytest.raises(TypeError, match="lam="):
            update(np.eye(3), lam)


def test_what_is_no_ball():
    for ball in ("x", MaxBall, None):
        with pytest.raises(TypeError, match="ball is"):
            regularized_update(ball, np.eye(3), 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    G = np.eye(3)
    G[1, 2] = bad
    for update in (nuclear_neon, f_star_neon, lambda G, x: regularized_update(MaxBall(), G, x)):
        with pytest.raises(ValueError, match="contains NaN or inf"):
            update(G, 1.0)


def test_the_range_of_single_precision(rng):
    """Neither 1 / lam nor s_1 need be in range for the update to be."""
    host = random(rng, (7, 5))
    expected = f_star_neon(host, 1.0).update
    for size, lam in ((1e30, 1e42), (1e-30, 1e-42), (1e30, 1e-5)):
        D = f_star_neon((size * host).astype("float32"), lam).update
        np.testing.assert_allclose(D * (lam / size), expected, atol=1e-4)


def test_unknown_options_are_refused():
    for update in (nuclear_neon, f_star_neon):
        with pytest.raises(TypeError):
            update(np.eye(3), 1.0, nonsense=1)
