"""`svds` of a batch: every matrix of it as good as by itself, whatever its neighbours are."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from checks import default_tol, eps_of, exact_values, orthonormality, value_bound

import trsvd
from trsvd import svds

SHAPES = [(40, 30), (30, 40), (64, 64)]
on_shapes = pytest.mark.parametrize("shape", SHAPES, ids=["tall", "wide", "square"])


@pytest.fixture
def no_single(monkeypatch):
    """Nothing may be left to the solver of single matrices."""

    def alone(*args, **options):
        raise AssertionError("a single matrix")

    monkeypatch.setattr("trsvd._solve.svds.solve", alone)


def random(rng, shape, dtype="float64"):
    A = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        A = A + 1j * rng.standard_normal(shape)
    return A.astype(dtype)


def assert_leading(host, result, k, tol, backend):
    """Every matrix has its k leading triplets, to the tolerance, in the conventions of `svds`."""
    *ahead, m, n = host.shape
    U, S, Vh = (backend.to_numpy(x) for x in result)
    assert (U.shape, S.shape, Vh.shape) == ((*ahead, m, k), (*ahead, k), (*ahead, k, n))
    assert result.residuals.shape == (*ahead, k)
    assert result.converged
    eps = eps_of(host.dtype)
    for i in np.ndindex(*ahead):
        A = host[i].astype(np.promote_types(host.dtype, "float64"))
        s_1 = max(float(S[i][0]), np.finfo(S.dtype).tiny)
        bound = value_bound(k, tol, (m, n), host.dtype) * s_1
        assert np.abs(S[i] - exact_values(A)[:k]).max() <= bound
        assert np.all(S[i][1:] <= S[i][:-1])
        assert orthonormality(U[i]) <= 20 * eps
        assert orthonormality(Vh[i].conj().T) <= 20 * eps
        left = np.linalg.norm(A @ Vh[i].conj().T - U[i] * S[i], axis=0)
        right = np.linalg.norm(A.conj().T @ U[i] - Vh[i].conj().T * S[i], axis=0)
        assert max(left.max(), right.max()) <= (tol + 30 * eps) * s_1
        assert result.residuals[i].max() <= tol
        lead = np.take_along_axis(U[i], np.abs(U[i]).argmax(axis=0)[None, :], axis=0)
        assert np.all(lead.real > 0)
        assert np.abs(lead.imag).max() <= 4 * eps


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("k", [1, 5, 12, 30])
@on_shapes
def test_as_by_itself(shape, k, dtype, backend, rng):
    if dtype not in backend.dtypes:
        pytest.skip("not a dtype of this library")
    host = random(rng, (2, 3, *shape), dtype)
    A = backend.asarray(host)
    result = svds(A, k)
    assert all(backend.owns(x) for x in result)
    assert_leading(host, result, k, default_tol(dtype), backend)
    assert result.completeness.kind == "exact"
    assert np.array_equal(backend.to_numpy(A), host)


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@on_shapes
def test_loose_tolerances(shape, dtype, tol, backend, rng):
    """Squares are formed in float32, also of float64: vectors are orthonormal all the same."""
    host = random(rng, (5, *shape), dtype)
    result = svds(backend.asarray(host), 3, tol=tol)
    assert_leading(host, result, 3, tol, backend)


@pytest.mark.parametrize("k", [2, 20], ids=["gram", "svd"])
def test_ordinary_matrices_are_computed_together(k, backend, rng, no_single):
    host = random(rng, (9, 40, 30), "float32")
    result = svds(backend.asarray(host), k, rng=0)
    assert_leading(host, result, k, default_tol("float32"), backend)
    assert (result.matvecs, result.matvecs_verify) == (9 * 30, 9 * 2 * k)
    assert (result.passes, result.iterations, result.state) == (9, 9, None)
    assert result.method == trsvd.Direct()


def test_parts_of_a_large_batch_stay_in_order(rng, no_single, monkeypatch):
    monkeypatch.setattr("trsvd._solve.batch._CHUNK_BYTES", 4 * 20 * 10 * 8)
    host = random(rng, (11, 20, 10)) * np.arange(1, 12)[:, None, None]
    assert_leading(host, svds(host, 2), 2, default_tol("float64"), _numpy())


def _numpy():
    from conftest import _numpy as make

    return make()


def test_matrices_that_need_a_way_of_their_own(backend, rng, spectrum_matrix):
    """Zero, a rank below k, a k-th value that squares lose, and extreme scales, among others."""
    ordinary = random(rng, (40, 30))
    graded = np.r_[1, 1e-3, 1e-6, 1e-9 * 0.5 ** np.arange(27)]
    host = np.stack(
        [
            ordinary,
            np.zeros((40, 30)),
            random(rng, (40, 2)) @ random(rng, (2, 30)),
            spectrum_matrix(40, 30, graded, "float64", 0),
            ordinary * 1e-200,
            ordinary * 1e200,
            np.ldexp(ordinary, -1060),
            ordinary * (1e308 / np.abs(ordinary).max()) / 20,
            np.eye(40, 30),
        ]
    )
    result = svds(backend.asarray(host), 4)
    U, S, Vh = (backend.to_numpy(x) for x in result)
    tol = default_tol("float64")
    for i, A in enumerate(host):
        exact = exact_values(A)[:4]
        least = 2.0**-1060 if i == 6 else 0.0  # denormal numbers have few digits
        bound = value_bound(4, tol, A.shape, "float64") * exact[0] + least
        assert np.abs(S[i] - exact).max() <= bound
        assert orthonormality(U[i]) <= 1e-13
        assert orthonormality(Vh[i].T) <= 1e-13
        with np.errstate(over="ignore"):
            alone = svds(A, 4)
        np.testing.assert_allclose(S[i], alone.S, rtol=1e-11, atol=1e-15 * exact[0] + least)
    assert result.completeness.kind == "exact"


@pytest.mark.parametrize("k", [3, 8], ids=["gram", "svd"])
def test_ranks_below_k_are_computed_together(k, backend, rng, no_single):
    host = np.stack([np.zeros((20, 16)), np.ones((20, 16)), random(rng, (20, 16))])
    result = svds(backend.asarray(host), k)
    assert result.converged
    U, S, Vh = (backend.to_numpy(x) for x in result)
    for i, A in enumerate(host):
        exact = exact_values(A)[:k]
        assert np.abs(S[i] - exact).max() <= 1e-13 * max(exact[0], 1)
        assert max(orthonormality(U[i]), orthonormality(Vh[i].T)) <= 1e-13


def test_both_residuals_are_measured(rng):
    """Of a full SVD neither holds by construction, and LAPACK's rounding counts like any other.

    (What misses a tolerance of a unit is made anew in double precision, one by one; rounded to
    float32, half a unit comes back.)
    """
    host = rng.random((40, 12, 10)).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
        result = svds(host, 10, tol=1.3e-7)
    for A, U, S, Vh, residuals in zip(host, *result, result.residuals, strict=True):
        U, S, V = U.astype(float), S.astype(float), Vh.T.astype(float)
        both = (A @ V - U * S, A.T @ U - V * S)
        true = np.maximum(*(np.linalg.norm(X, axis=0) for X in both)) / S[0]
        assert np.all(true <= residuals + 1.3e-7)
    assert result.converged
    assert result.residuals.max() <= 1.3e-7


def test_large_matrices_go_one_by_one(rng, spectrum_matrix):
    s = 1 / np.arange(1, 221)
    host = np.stack([spectrum_matrix(300, 220, s, "float64", seed) for seed in range(3)])
    result = svds(host, 4, tol=1e-6, rng=0)
    assert_leading(host, result, 4, 1e-6, _numpy())
    single = svds(host[0], 4, tol=1e-6, rng=0)
    assert result.method == single.method
    assert result.completeness.kind == "probable"
    assert result.completeness.eta >= single.completeness.eta > 0
    assert 2 * single.matvecs < result.matvecs < 4 * single.matvecs


def test_methods_by_name(backend, rng):
    host = random(rng, (2, 20, 15))
    for method in ("trlan", "krylov", "rsvd", "direct", trsvd.Direct(route="svd")):
        result = svds(backend.asarray(host), 2, method=method, rng=0)
        assert_leading(host, result, 2, default_tol("float64"), backend)
        if isinstance(method, str):
            assert result.method.name == method


def test_a_seed_repeats_a_batch(rng):
    host = random(rng, (3, 20, 15))
    first, second = (svds(host, 2, method="trlan", rng=7) for _ in range(2))
    for x, y in zip(first, second, strict=True):
        assert np.array_equal(x, y)


def test_starts(backend, rng):
    host = random(rng, (2, 2, 60, 50))
    A, B = backend.asarray(host), backend.asarray(host + 1e-4 * random(rng, host.shape))
    cold = svds(A, 3, method="trlan", rng=0)
    assert_leading(host, svds(A, 3, method="trlan", start=cold, rng=1), 3, 1.9e-12, backend)
    warm = svds(B, 3, method="krylov", start=cold, tol=1e-2, rng=1)
    vectors = np.ascontiguousarray(np.swapaxes(backend.to_numpy(cold.Vh), 2, 3))
    same = svds(B, 3, method="krylov", start=backend.asarray(vectors), tol=1e-2, rng=1)
    assert warm.matvecs == same.matvecs < svds(B, 3, method="krylov", tol=1e-2, rng=1).matvecs
    others = (backend.asarray(x) for x in (vectors[0], vectors[0, 0]))
    for bad in (svds(A[0, :, :, :], 3), *others, backend.asarray(np.ones((2, 2, 50, 0)))):
        with pytest.raises(ValueError, match=r"batch of shape \(2, 2, 60, 50\).*\(2, 2, 50, p\)"):
            svds(A, 3, start=bad)
    subspace = trsvd.Subspace(cold.U, cold.Vh)
    assert svds(B, 3, method="krylov", start=subspace, tol=1e-2, rng=1).matvecs == warm.matvecs
    vectors[1, 1, 3, 2] = np.nan
    with pytest.raises(ValueError, match="start contains NaN"):
        svds(A, 3, start=backend.asarray(vectors))
    with pytest.raises(TypeError, match="start is complex"):
        svds(A, 3, start=backend.asarray(vectors * 1j))
    with pytest.raises(TypeError, match=r"start is builtins\.str"):
        svds(A, 3, start="left")


def test_an_empty_batch(backend):
    result = svds(backend.asarray(np.zeros((0, 4, 3), "float32")), 2)
    U, S, Vh = (backend.to_numpy(x) for x in result)
    assert (U.shape, S.shape, Vh.shape) == ((0, 4, 2), (0, 2), (0, 2, 3))
    assert U.dtype == S.dtype == Vh.dtype == "float32"
    assert result.converged
    assert result.residuals.shape == (0, 2)
    assert "CONVERGED" in repr(result)
    A = backend.asarray(np.zeros((0, 4, 3)))
    assert svds(A, 2, verify=False).completeness.kind == "unchecked"
    assert svds(A, 2, method="trlan").method == trsvd.ThickRestartLanczos()
    with pytest.raises(ValueError, match="max_matvecs"):
        svds(A, 2, max_matvecs=-1)


@pytest.mark.parametrize("shape", [(3, 20, 10), (3, 300, 250)], ids=["together", "alone"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_which_one_is_not_finite(shape, bad, backend, rng):
    host = random(rng, (2, *shape))
    host[1, 0, 4, 5] = bad
    with pytest.raises(ValueError, match=r"matrix \(1, 0\) of the batch: .*NaN or inf"):
        svds(backend.asarray(host), 2)
    with pytest.raises(ValueError, match=r"matrix 0 of the batch: .*NaN or inf"):
        svds(backend.asarray(host[1]), 2)


def test_arguments(backend, rng):
    A = backend.asarray(random(rng, (3, 20, 10)))
    for k in (0, 11):
        with pytest.raises(ValueError, match=f"k={k} is out of range"):
            svds(A, k)
    with pytest.raises(ValueError, match="state= belongs to one matrix"):
        svds(A, 2, state=svds(A[0, :, :], 2))
    with pytest.raises(ValueError, match="tol=2"):
        svds(A, 2, tol=2)
    with pytest.raises(ValueError, match="verify="):
        svds(A, 2, verify="no")
    with pytest.raises(ValueError, match="rng="):
        svds(A, 2, rng=-1)
    with pytest.raises(ValueError, match="not known"):
        svds(A, 2, method="arpack")
    with pytest.raises(ValueError, match="without rows or columns"):
        svds(backend.asarray(np.zeros((2, 0, 3))), 1)


def test_masked_arrays():
    with pytest.raises(TypeError, match="masked"):
        svds(np.ma.masked_array(np.zeros((2, 3, 3))), 1)


def test_values_beyond_the_dtype(backend):
    host = np.full((2, 20, 20), 2e38, "float32")
    host[0] = 1
    for k in (1, 8):
        with pytest.raises(ValueError, match="matrix 1 of the batch: .* the range of float32"):
            svds(backend.asarray(host), k)


def test_unchecked(rng):
    assert svds(random(rng, (3, 20, 10)), 2, verify=False).completeness.kind == "unchecked"


def test_what_misses_the_tolerance(backend, rng):
    """The others are right; it says how many are not, and which is the first."""
    host = random(rng, (2, 3, 60, 50), "float32")
    A = backend.asarray(host)
    with pytest.warns(trsvd.ConvergenceWarning, match=r"6 of 6 .* is \(0, 0\): the resid"):
        result = svds(A, 2, tol=0)
    assert not result.converged
    assert result.status is trsvd.Status.ROUNDING_FLOOR
    assert np.abs(backend.to_numpy(result.S)[0, 0] - exact_values(host[0, 0])[:2]).max() < 1e-4
    with pytest.raises(trsvd.NotConverged, match=r"\(0, 0\)") as failure:
        svds(A, 2, tol=0, on_failure="raise")
    assert failure.value.result.U.shape == (2, 3, 60, 2)
    with pytest.warns(trsvd.ConvergenceWarning, match="3 of 3.*a batch has no state") as caught:
        svds(A[0, :, :, :], 2, max_matvecs=20, rng=0)
    assert caught[0].filename == __file__


def test_callbacks_see_single_runs(rng):
    seen = []
    host = random(rng, (2, 40, 30))
    svds(host, 2, method="trlan", callback=lambda info: seen.append(info.triplets()[0].shape))
    assert set(seen) == {(40, 2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
        assert svds(host, 2, callback=lambda info: True).U.shape == (2, 40, 2)


@pytest.mark.parametrize("dtype", ["float16", "int32", "bool"])
def test_dtypes_that_are_converted(dtype, rng):
    host = (random(rng, (3, 20, 10)) > 0).astype(dtype)
    result = svds(host, 2)
    single = svds(host[1], 2)
    assert result.U.dtype == result.S.dtype == single.U.dtype
    np.testing.assert_allclose(result.S[1], single.S, rtol=1e-3 if dtype == "float16" else 1e-12)


@pytest.mark.parametrize("order", ["F", "strided", "transposed"])
def test_layouts(order, rng):
    host = random(rng, (6, 20, 30))
    given = {
        "F": np.asfortranarray(host),
        "strided": np.repeat(host, 2, axis=2)[:, :, ::2],
        "transposed": np.ascontiguousarray(np.moveaxis(host, 0, 2)).transpose(2, 0, 1),
    }[order]
    assert_leading(given, svds(given, 3), 3, default_tol("float64"), _numpy())


def test_gradients_do_not_flow(rng):
    torch = pytest.importorskip("torch")
    A = torch.tensor(random(rng, (3, 20, 10)), requires_grad=True)
    assert not any(x.requires_grad for x in svds(A, 2))
    half = svds(A.detach().to(torch.bfloat16), 2)
    assert half.U.dtype == half.S.dtype == torch.bfloat16


def test_multiple_values_have_all_their_copies(backend):
    host = np.stack([np.diag(np.r_[np.ones(j), np.full(40 - j, 0.9)]) for j in range(1, 9)])
    S = backend.to_numpy(svds(backend.asarray(host), 6, tol=1e-2, rng=0).S)
    for j, row in enumerate(S, start=1):
        expected = np.r_[np.ones(min(j, 6)), np.full(max(6 - j, 0), 0.9)]
        np.testing.assert_allclose(row, expected, atol=math.sqrt(12) * 1e-2)
        np.testing.assert_allclose(row, expected, atol=1e-6)
