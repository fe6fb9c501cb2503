"""Oracles that return an array: the balls' minimizers, of single matrices and of batches."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

import trsvd
from trsvd import lmo
from trsvd._oracles.leading_pairs import water_filling
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
from trsvd.methods import Direct
from trsvd.operators import as_operator

DTYPES = ["float32", "float64", "complex64", "complex128"]
SHAPES = [(7, 5), (5, 7)]

# name: (function of G and radius, ball)
ORACLES = {
    "kyfan_dual_lmo": (lambda G, **o: lmo.kyfan_dual_lmo(G, 3, **o), KyFanDualBall(3)),
    "kyfan_lmo": (lambda G, **o: lmo.kyfan_lmo(G, 3, **o), KyFanBall(3)),
    "nuclear_lmo": (lmo.nuclear_lmo, NuclearBall()),
    "spectral_lmo": (lmo.spectral_lmo, SpectralBall()),
    "rms_lmo": (lmo.rms_lmo, RMSBall()),
    "schatten_lmo": (lambda G, **o: lmo.schatten_lmo(G, 3, **o), SchattenBall(3)),
    "frobenius_lmo": (lmo.frobenius_lmo, FrobeniusBall()),
    "max_lmo": (lmo.max_lmo, MaxBall()),
    "column_lmo": (lmo.column_lmo, ColumnBall()),
    "row_lmo": (lmo.row_lmo, RowBall()),
    "f_fanion_lmo": (
        lambda G, **o: lmo.f_fanion_lmo(G, 3, alpha=0.3, **o),
        0.3 * KyFanDualBall(3) + 0.7 * FrobeniusBall(),
    ),
    "s_fanion_lmo": (
        lambda G, **o: lmo.s_fanion_lmo(G, 3, alpha=0.3, eta=0.02, **o),
        0.3 * KyFanDualBall(3) + 0.7 * 0.02 * MaxBall(),
    ),
}
all_oracles = pytest.mark.parametrize("name", ORACLES)
fanions = pytest.mark.parametrize("fanion", [lmo.f_fanion_lmo, lmo.s_fanion_lmo])
# Distances of singular values of at least s_1 / 16.
SPECTRUM = 2.0 ** -np.arange(5)


def random(rng, shape, dtype="float64"):
    X = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        X = X + 1j * rng.standard_normal(shape)
    return X.astype(dtype)


def slack(dtype):
    return 100 * float(np.finfo(dtype).eps) * 16


def test_every_oracle_is_tested():
    assert set(ORACLES) == set(lmo.__all__)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@all_oracles
def test_is_the_minimizer_of_the_ball(name, shape, dtype, backend, spectrum_matrix, rng):
    oracle, ball = ORACLES[name]
    host = spectrum_matrix(*shape, SPECTRUM, dtype, rng)
    G = backend.asarray(host)
    D = oracle(G, radius=2.5)
    assert backend.owns(D)
    assert D.dtype == backend.dtype(dtype)
    D = backend.to_numpy(D)
    np.testing.assert_allclose(D, 2.5 * ball.lmo(host).update, atol=2.5 * slack(dtype))
    wide = host.astype(np.result_type(dtype, np.float64))
    support = ball.support(wide)
    assert -np.real(np.vdot(wide, D)) == pytest.approx(2.5 * support, rel=slack(dtype))


@pytest.mark.parametrize("batch", [(1,), (3,), (2, 3), (2, 1, 2)])
@all_oracles
def test_batches(name, batch, backend, spectrum_matrix, rng):
    oracle, _ = ORACLES[name]
    matrices = [spectrum_matrix(7, 5, SPECTRUM, "float32", rng) for _ in range(np.prod(batch))]
    host = np.stack(matrices).reshape(*batch, 7, 5)
    D = oracle(backend.asarray(host))
    assert backend.owns(D)
    assert tuple(D.shape) == host.shape
    assert D.dtype == backend.dtype("float32")
    D = backend.to_numpy(D)
    for index in np.ndindex(*batch):
        single = backend.to_numpy(oracle(backend.asarray(host[index])))
        # Not bit by bit: libraries sum in another order where memory is aligned otherwise.
        np.testing.assert_allclose(D[index], single, atol=slack("float32"))


@all_oracles
def test_batches_with_a_zero_and_in_integers(name, backend, rng):
    oracle, _ = ORACLES[name]
    host = np.stack([np.zeros((7, 5)), random(rng, (7, 5))])
    D = backend.to_numpy(oracle(backend.asarray(host)))
    assert not D[0].any()
    assert D[1].any()
    integers = backend.asarray(np.arange(70).reshape(2, 7, 5) % 6)
    assert oracle(integers).dtype == backend.dtype("float64")


@all_oracles
def test_a_bad_matrix_in_a_batch_is_refused(name, rng):
    G = random(rng, (2, 7, 5))
    G[1, 2, 2] = np.nan
    with pytest.raises(ValueError, match="contains NaN or inf"):
        ORACLES[name][0](G)


@all_oracles
def test_not_a_matrix(name):
    oracle, _ = ORACLES[name]
    for G in (scipy.sparse.eye_array(3), [[1.0]], None, aslinearoperator(np.eye(3))):
        with pytest.raises(TypeError, match=r"takes one of shape \(\.\.\., m, n\)"):
            oracle(G)
    with pytest.raises(ValueError, match="a matrix has two dimensions"):
        oracle(np.ones(3))
    for shape in [(0, 3), (3, 0), (0, 3, 3), (2, 0, 3)]:
        with pytest.raises(ValueError, match="shape"):
            oracle(np.ones(shape))


@all_oracles
def test_radius(name, rng):
    oracle, _ = ORACLES[name]
    G = random(rng, (7, 5))
    np.testing.assert_allclose(oracle(G, radius=0.1), 0.1 * oracle(G), atol=1e-15)
    assert not oracle(G, radius=0).any()
    for radius in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="cannot be scaled"):
            oracle(G, radius=radius)


@all_oracles
def test_a_step_goes_down(name, rng):
    oracle, _ = ORACLES[name]
    G = random(rng, (7, 5))
    assert np.vdot(G, oracle(G)) < 0


@pytest.mark.parametrize("name", ["kyfan_dual_lmo", "f_fanion_lmo", "s_fanion_lmo"])
def test_options_are_passed_on(name, spectrum_matrix, rng):
    G = spectrum_matrix(90, 80, 0.8 ** np.arange(80), "float64", rng)
    oracle, ball = ORACLES[name]
    exact = oracle(G, method="direct")
    np.testing.assert_allclose(oracle(G, method=Direct()), exact, atol=1e-14)
    # s_3 - s_4 is 0.128 s_1: vectors turn by residual over distance, at two ends of three triplets.
    assert np.linalg.norm(oracle(G, method="trlan", tol=1e-9, rng=1) - exact) <= 6e-9 / 0.128
    quick = oracle(G, gap=1e-2, rng=1)
    support = ball.support(G)
    assert -np.vdot(G, quick) >= (1 - 1e-2) * support
    start = KyFanDualBall(3).lmo(G).subspace
    warm = oracle(G, gap=1e-2, rng=1, start=start)
    assert -np.vdot(G, warm) >= (1 - 1e-6) * support
    for options in (
        {"method": "nonsense"},
        {"tol": -1},
        {"tol": 1.0},
        {"gap": 2},
        {"gap": 0.1, "tol": 0.1},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            oracle(G, **options)
    with pytest.raises(TypeError):
        oracle(G, nonsense=1)
    with pytest.raises(ValueError, match="start= belongs to one matrix"):
        oracle(np.stack([G, G]), start=start)


ALL_OPTIONS = {"method", "tol", "gap", "start", "rng", "certify"}
OPTIONS = {
    **dict.fromkeys(["kyfan_dual_lmo", "nuclear_lmo", "schatten_lmo"], ALL_OPTIONS),
    **dict.fromkeys(["f_fanion_lmo", "s_fanion_lmo"], ALL_OPTIONS),
    **dict.fromkeys(["spectral_lmo", "rms_lmo"], ALL_OPTIONS - {"start"}),
    "kyfan_lmo": {"method", "tol", "rng"},
    **dict.fromkeys(["frobenius_lmo", "max_lmo", "column_lmo", "row_lmo"], set()),
}


@all_oracles
def test_options_are_keywords_with_names(name, rng):
    """The same ones wherever they make a difference, all documented, and each is passed on."""
    oracle = getattr(lmo, name)
    parameters = inspect.signature(oracle).parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    keywords = {key for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert keywords & ALL_OPTIONS == OPTIONS[name]
    assert "radius" in keywords
    call, G = ORACLES[name][0], random(rng, (7, 5))
    bad = {"method": 3, "tol": "x", "gap": "x", "start": "x", "rng": "x", "certify": "x"}
    for key in OPTIONS[name]:
        with pytest.raises((TypeError, ValueError), match=rf"{key}(=| is)"):
            call(G, **{key: bad[key]})
    expected = call(G)
    for options in (
        {"method": "direct"},
        {"method": "trlan", "rng": 1},
        {"tol": 1e-13, "rng": 1},
        {"gap": 1e-3, "certify": True, "rng": 1},
    ):
        if set(options) <= OPTIONS[name]:
            np.testing.assert_allclose(call(G, **options), expected, atol=1e-10)


@all_oracles
def test_what_is_no_radius(name):
    for radius in ("x", None, 1j):
        with pytest.raises(TypeError, match="radius="):
            ORACLES[name][0](np.eye(3), radius=radius)


@pytest.mark.parametrize(
    ("fanion", "argument"),
    [
        (lmo.f_fanion_lmo, "alpha"),
        (lmo.f_fanion_lmo, "kyfan_scale"),
        (lmo.f_fanion_lmo, "frobenius_scale"),
        (lmo.s_fanion_lmo, "alpha"),
        (lmo.s_fanion_lmo, "eta"),
        (lmo.s_fanion_lmo, "kyfan_scale"),
        (lmo.s_fanion_lmo, "sign_scale"),
    ],
)
def test_what_is_no_scale(fanion, argument):
    with pytest.raises(TypeError, match=f"{argument}='x' is not a number"):
        fanion(np.eye(3), 2, **{argument: "x"})


@pytest.mark.parametrize(
    "oracle", [lmo.kyfan_dual_lmo, lmo.kyfan_lmo, lmo.f_fanion_lmo, lmo.s_fanion_lmo]
)
def test_bad_k(oracle):
    with pytest.raises(ValueError, match="at least 1"):
        oracle(np.eye(3), 0)
    with pytest.raises(TypeError, match="is not an integer"):
        oracle(np.eye(3), 2.0)


@pytest.mark.parametrize("k", [1, 3, 5, 50])
def test_fanions(k, spectrum_matrix, rng):
    """The formulas of the paper, written out."""
    G, U, Vh = spectrum_matrix(7, 5, SPECTRUM, "float64", rng, factors=True)
    UV = U[:, :k] @ Vh[:k]
    ball = {"atol": slack("float64")}
    F = G / np.linalg.norm(G)
    np.testing.assert_allclose(lmo.f_fanion_lmo(G, k), -(UV + F) / 2, **ball)
    np.testing.assert_allclose(
        lmo.f_fanion_lmo(G, k, alpha=0.2, kyfan_scale=3, frobenius_scale=5, radius=2),
        -2 * (0.2 * 3 * UV + 0.8 * 5 * F),
        **ball,
    )
    np.testing.assert_allclose(lmo.s_fanion_lmo(G, k), -(UV + 0.01 * np.sign(G)) / 2, **ball)
    np.testing.assert_allclose(
        lmo.s_fanion_lmo(G, k, alpha=0.2, eta=0.3, kyfan_scale=3, sign_scale=5, radius=2),
        -2 * (0.2 * 3 * UV + 0.8 * 0.3 * 5 * np.sign(G)),
        **ball,
    )
    np.testing.assert_allclose(lmo.f_fanion_lmo(G, k, alpha=1), -UV, **ball)
    np.testing.assert_allclose(lmo.f_fanion_lmo(G, k, alpha=0), -F, **ball)
    np.testing.assert_allclose(lmo.s_fanion_lmo(G, k, alpha=0, eta=1), -np.sign(G), **ball)


@fanions
@pytest.mark.parametrize("alpha", [-0.1, 1.1, np.nan])
def test_bad_alpha(fanion, alpha):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fanion(np.eye(3), 2, alpha=alpha)


def test_bad_scales():
    with pytest.raises(ValueError, match="cannot be scaled"):
        lmo.s_fanion_lmo(np.eye(3), 2, eta=-1)
    with pytest.raises(ValueError, match="cannot be scaled"):
        lmo.f_fanion_lmo(np.eye(3), 2, frobenius_scale=np.inf)


@all_oracles
def test_gradients_of_torch(name, rng):
    torch = pytest.importorskip("torch")
    G = torch.asarray(random(rng, (7, 5)), dtype=torch.float32).requires_grad_()
    D = ORACLES[name][0](G)
    assert not D.requires_grad
    batch = torch.stack([G, G])
    assert not ORACLES[name][0](batch).requires_grad
    bfloat = G.detach().to(torch.bfloat16)
    assert ORACLES[name][0](bfloat).dtype == torch.bfloat16


@all_oracles
def test_transposed_and_strided_arrays(name, rng):
    oracle, _ = ORACLES[name]
    G = random(rng, (14, 15))[::2, ::3]
    expected = oracle(G.copy())
    # 16 for singular values at a distance, which those of a random matrix need not have: 1000.
    for strided in (G, np.asfortranarray(G), G.T.copy().T):
        np.testing.assert_allclose(oracle(strided), expected, atol=1000 * slack("float64"))


@pytest.mark.parametrize("gap", [None, 1e-2])
def test_autocast_does_not_reach_the_products(gap):
    torch = pytest.importorskip("torch")
    G = torch.randn(90, 80, generator=torch.Generator().manual_seed(0))
    outside = trsvd.kyfan_dual_lmo(G, 3, gap=gap, rng=0)
    many = trsvd.kyfan_dual_lmo(torch.stack([G, G]), 3, gap=gap, rng=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = trsvd.kyfan_dual_lmo(G, 3, gap=gap, rng=0)
        batch = trsvd.kyfan_dual_lmo(torch.stack([G, G]), 3, gap=gap, rng=0)
        S = trsvd.svds(G, 3, rng=0).S
    assert inside.dtype == batch.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert torch.equal(batch, many)
    assert torch.equal(S, trsvd.svds(G, 3, rng=0).S)


@pytest.mark.parametrize("certify", [False, True])
def test_a_gap_of_an_operator_without_a_norm(certify, spectrum_matrix):
    """No bound from what is left, and no track for the next step; the answer is as good."""
    G = spectrum_matrix(90, 80, 0.8 ** np.arange(80), "float64", 0)
    ball = KyFanDualBall(3)
    result = ball.lmo(as_operator(aslinearoperator(G)), gap=1e-3, certify=certify, rng=0)
    support = np.linalg.svd(G, compute_uv=False)[:3].sum()
    gap = 1 + np.vdot(G, result.update) / support
    assert -1e-13 <= gap <= result.gap
    assert result.gap <= 1e-3
    assert result.gap_kind in (("exact",) if certify else ("estimate", "exact"))
    if result.gap_kind == "estimate":
        assert result.subspace.track is None


def test_digits_lost_in_squares_are_found_again(spectrum_matrix):
    """The Gram route leaves 4 eps s_1^2 / (s_k mean s): more than was asked for."""
    s = np.r_[1.0, 1e-6 * 0.5 ** np.arange(39)]
    G = spectrum_matrix(60, 40, s, "float64", 0)
    result = KyFanDualBall(4).lmo(G, gap=1e-11, method=Direct(route="gram"))
    assert result.gap_kind == "exact"
    assert result.gap <= 1e-11
    support = np.linalg.svd(G, compute_uv=False)[:4].sum()
    assert 1 + np.vdot(G, result.update) / support <= 1e-11


def test_nothing_rises_by_nothing():
    assert water_filling(np.zeros(0), 1.0) == 0.0


def test_products_of_every_attempt_are_counted(spectrum_matrix):
    """A bound that is not reached, and then the whole spectrum: the passes of both."""
    G = spectrum_matrix(90, 80, np.linspace(1, 0.9, 80), "float64", 0)
    plain = KyFanDualBall(3).lmo(G, gap=1e-2, method="krylov", rng=0)
    proven = KyFanDualBall(3).lmo(G, gap=1e-2, method="krylov", rng=0, certify=True)
    assert proven.gap_kind == "exact"
    assert proven.matvecs > plain.matvecs
    assert proven.passes >= plain.passes + 1


@pytest.mark.parametrize("k", [25, 40])
def test_many_pairs_of_an_operator_take_a_product_for_each_column(k, spectrum_matrix):
    """No block Krylov space of a quarter of the pairs is made of fewer: two blocks, twice each."""
    G = spectrum_matrix(120, 100, np.linspace(1, 0.5, 100), "float64", 0)
    result = KyFanDualBall(k).lmo(as_operator(aslinearoperator(G)), gap=1e-2, rng=0)
    assert result.gap_kind == "exact"
    # And eight by which an operator is checked.
    assert (result.matvecs, result.passes) == (100 + 8, 1)
    assert -np.vdot(G, result.update) >= (1 - result.gap) * KyFanDualBall(k).support(G)


@pytest.mark.parametrize("n", [64, 65])
def test_an_oracle_takes_for_small_what_svds_does(n, spectrum_matrix):
    """A dense factorization on one side of the size at which `select_method` changes."""
    G = spectrum_matrix(120, n, np.linspace(1, 0.5, n), "float64", 0)
    op = as_operator(aslinearoperator(G))
    result = KyFanDualBall(3).lmo(op, gap=1e-2, rng=0)
    small = isinstance(trsvd.select_method(op, 3).method, Direct)
    assert small == (n == 64)
    assert (result.gap_kind, result.passes == 1) == (("exact" if small else "estimate"), small)


def test_a_proof_is_not_rounded_to_the_dtype_of_the_matrix():
    """Sums of values of denormal numbers, each of which has one or two digits; half precision."""
    integers = np.random.default_rng(0).integers(-1, 2, (90, 80)).astype("float64")
    support = np.linalg.svd(integers, compute_uv=False)[:4].sum()
    for G, unit in (((integers * 2.0**-149).astype("float32"), 2.0**-149), (integers, 1.0)):
        G = G if unit < 1 else G.astype("float16")
        result = KyFanDualBall(4).lmo(G, gap=1e-2, method="krylov", certify=True, rng=0)
        assert result.gap_kind == "exact"
        # Twice the rounding that is reported: of the value, and of what it is compared with.
        assert result.support == pytest.approx(support * unit, rel=2 * result.gap)
        U, Vh = (factor.astype("float64") for factor in result.factors)
        slack = 100 * float(np.finfo("float32").eps)
        assert np.abs(U.T @ U - np.eye(4)).max() <= slack
        assert np.abs(Vh @ Vh.T - np.eye(4)).max() <= slack


def test_the_gap_without_a_gap_asked_for_is_that_of_residuals_and_certificate(spectrum_matrix):
    """Each singular value is within its residual of the Ritz value; one that was missed is at most
    1 % larger than the last, and would take its place.
    """
    G = spectrum_matrix(90, 80, 8 * 0.9 ** np.arange(80), "float64", 0)
    result = KyFanDualBall(3).lmo(G, method="trlan", tol=1e-4, rng=0)
    U, Vh = result.factors
    left, right = -G @ Vh.T, -G.T @ U
    values = np.sum(U * left, axis=0)
    residuals = np.maximum(
        np.linalg.norm(left - U * values, axis=0), np.linalg.norm(right - Vh.T * values, axis=0)
    )
    assert result.gap_kind == "estimate"
    missed = 1.01 * (values[-1] + 1e-4 * values[0]) - values
    least = residuals.sum() / values.sum()
    assert least <= result.gap <= least + np.maximum(missed, 0).sum() / values.sum() + 1e-13


@pytest.mark.parametrize("seed", range(5))
def test_values_in_pairs_are_not_hidden_by_a_gap_without_a_gap_asked_for(seed):
    """A path graph has each value twice, and one vector meets one copy of each."""
    ones = np.ones(100)
    G = scipy.sparse.diags_array([ones, ones], offsets=[-1, 1], shape=(101, 101)).tocsr()
    s = np.linalg.svd(G.toarray(), compute_uv=False)
    for k in (2, 4, 7):
        result = KyFanDualBall(k).lmo(G, rng=seed)
        true = 1 + float(np.sum(G * np.asarray(result.update))) / s[:k].sum()
        assert true <= result.gap + 1e-13
        assert trsvd.kyfan_norm(G, k) == pytest.approx(s[:k].sum(), rel=1e-12)
