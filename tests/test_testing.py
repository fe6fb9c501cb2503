"""The reference matrices, the errors of the paper, and the assertions themselves."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

import trsvd
from trsvd.testing import (
    SPECTRA,
    assert_orthonormal,
    assert_svd,
    err1,
    err2,
    matrix_with_spectrum,
    rounding_level,
)

EPS = np.finfo(np.float64).eps


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("n", [1, 7, 60])
def test_spectra_are_descending_from_one(name, n):
    s = SPECTRA[name](n)
    assert s.shape == (n,)
    assert s[0] == 1
    assert np.all(s >= 0)
    assert np.all(np.diff(s) <= 0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (20, 20)])
def test_matrix_has_the_spectrum(backend, dtype, shape):
    s = SPECTRA["i**-0.5"](15)
    A = matrix_with_spectrum(
        *shape, s, rng=0, dtype=backend.dtype(dtype), xp=backend.xp, device=backend.device
    )
    assert backend.owns(A)
    assert A.dtype == backend.dtype(dtype)
    found = np.linalg.svd(backend.to_numpy(A), compute_uv=False)
    # Weyl: no value moves by more than the rounding of the entries, in the 2-norm.
    allowed = rounding_level(30, float(np.finfo(dtype).eps))
    np.testing.assert_allclose(found[:15], s, rtol=0, atol=allowed)
    assert found[15:].max() <= allowed


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_extreme_sizes_keep_their_digits(size):
    A = matrix_with_spectrum(12, 9, [size, size / 2], rng=0)
    found = np.linalg.svd(A / size, compute_uv=False)
    np.testing.assert_allclose(found[:2], [1, 0.5], rtol=0, atol=rounding_level(12, EPS))


def test_matrix_repeats_with_its_seed():
    one, two = (matrix_with_spectrum(8, 5, [1.0, 0.5], rng=3) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("s", [np.ones(4), [-1.0], np.ones((2, 2)), [np.nan]])
def test_impossible_spectra_are_refused(s):
    with pytest.raises(ValueError, match="singular values"):
        matrix_with_spectrum(3, 5, s)


def _factors(rng, m, n, k, is_complex=False):
    def block(rows):
        X = rng.standard_normal((rows, k))
        return np.linalg.qr(X + 1j * rng.standard_normal((rows, k)) if is_complex else X)[0]

    return block(m), np.sort(rng.random(k))[::-1] + 0.1, block(n).conj().T


@pytest.mark.parametrize("is_complex", [False, True])
def test_errors_agree_with_dense_differences(rng, is_complex):
    U, S, Vh = _factors(rng, 20, 15, 4, is_complex)
    U2, S2, Vh2 = _factors(rng, 20, 15, 4, is_complex)
    dense1 = np.linalg.norm(U @ Vh - U2 @ Vh2) / 2
    dense2 = np.linalg.norm(U * S @ Vh - U2 * S2 @ Vh2) / np.linalg.norm(S2)
    assert err1(U, Vh, U2, Vh2) == pytest.approx(dense1, rel=rounding_level(20, EPS))
    assert err2(U, S, Vh, U2, S2, Vh2) == pytest.approx(dense2, rel=rounding_level(20, EPS))


@pytest.mark.parametrize("angle", [0.5, 1e-2, 1e-4, 1e-8, 1e-12])
def test_errors_are_exact_for_one_turned_vector(rng, angle):
    """V turned by an angle in one plane: ``||v' - v|| = 2 sin(angle / 2)``, far below sqrt(eps)."""
    k = 3
    Q = np.linalg.qr(rng.standard_normal((30, k + 1)))[0]
    U, _, _ = _factors(rng, 40, 30, k)
    V, W = Q[:, :k], Q[:, :k].copy()
    W[:, 0] = np.cos(angle) * Q[:, 0] + np.sin(angle) * Q[:, k]
    S = np.array([3.0, 2.0, 1.0])
    distance = 2 * np.sin(angle / 2)
    slack = rounding_level(40, EPS)
    assert err1(U, W.T, U, V.T) == pytest.approx(distance / k**0.5, rel=1e-9, abs=slack)
    expected = 3 * distance / np.linalg.norm(S)
    assert err2(U, S, W.T, U, S, V.T) == pytest.approx(expected, rel=1e-9, abs=slack)


def test_errors_do_not_see_phases_or_scale(rng):
    U, S, Vh = _factors(rng, 12, 9, 3, is_complex=True)
    phase = np.exp(1j * np.array([0.3, 1.0, 2.0]))
    turned = U * phase, Vh * phase.conj()[:, None]
    slack = rounding_level(12, EPS)
    assert err1(*turned, U, Vh) <= slack
    for size in (1e-200, 1e200):
        assert err2(turned[0], S * size, turned[1], U, S * size, Vh) <= slack


def test_errors_take_any_array(backend, rng):
    U, S, Vh = _factors(rng, 12, 9, 3)
    there = [backend.asarray(X) for X in (U, S, Vh)]
    assert err1(there[0], there[2], U, Vh) <= rounding_level(12, EPS)
    assert err2(*there, U, S, Vh) <= rounding_level(12, EPS)


def test_err2_of_nothing_is_undefined(rng):
    U, S, Vh = _factors(rng, 12, 9, 3)
    with pytest.raises(ValueError, match="undefined"):
        err2(U, S, Vh, U, np.zeros(3), Vh)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
def test_assert_svd_passes_what_is_right(dtype, shape):
    s = SPECTRA["geometric"](25)
    A = matrix_with_spectrum(*shape, s, rng=1, dtype=dtype)
    result = trsvd.svds(A, 4, rng=0)
    exact = np.linalg.svd(A.astype(np.result_type(A.dtype, np.float64)), compute_uv=False)
    assert_svd(result, A, S_true=exact)
    assert_svd(tuple(result), A)


def test_assert_svd_takes_any_matrix(backend):
    A = backend.asarray(matrix_with_spectrum(30, 20, SPECTRA["1/i"](20), rng=1))
    assert_svd(trsvd.svds(A, 3, rng=0), A, S_true=SPECTRA["1/i"](20))


def test_assert_svd_takes_sparse():
    A = scipy.sparse.random_array((40, 30), density=0.2, rng=np.random.default_rng(0))
    S = np.linalg.svd(A.toarray(), compute_uv=False)
    assert_svd(trsvd.svds(A, 3, method="trlan", rng=0), A, S_true=S)


def _broken(U, S, Vh):
    i = [1, 0, 2]
    yield "descending", (U[:, i], S[i], Vh[i])
    yield "descending", (-U, -S[::-1], Vh)
    yield "orthonormal", (U * 1.001, S, Vh)
    yield "orthonormal", (U, S, np.vstack([Vh[:2], Vh[:1]]))
    yield "residual", (U, S, -Vh)
    yield "residual", (U, S * 1.01, Vh)
    yield "shapes", (U[:, :2], S, Vh)
    yield "shapes", (U.T, S, Vh)


def test_assert_svd_notices_what_is_wrong():
    s = SPECTRA["1/i"](20)
    A = matrix_with_spectrum(30, 20, s, rng=1)
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    for message, triplets in _broken(U[:, :3], S[:3], Vh[:3]):
        with pytest.raises(AssertionError, match=message):
            assert_svd(triplets, A, S_true=s)


def test_assert_svd_notices_a_missed_triplet():
    """Triplets of A that are not the leading ones have no residual: only the truth tells."""
    s = SPECTRA["1/i"](20)
    A = matrix_with_spectrum(30, 20, s, rng=1)
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    others = U[:, 1:4], S[1:4], Vh[1:4]
    assert_svd(others, A)
    with pytest.raises(AssertionError, match="S is off"):
        assert_svd(others, A, S_true=s)


def test_assert_svd_of_zero_and_of_no_triplets():
    A = np.zeros((6, 4))
    assert_svd((np.eye(6)[:, :2], np.zeros(2), np.eye(4)[:2]), A, S_true=np.zeros(4))
    assert_svd((np.zeros((6, 0)), np.zeros(0), np.zeros((0, 4))), A)


def test_assert_orthonormal(backend):
    Q = np.linalg.qr(np.arange(12.0).reshape(6, 2) ** 2)[0]
    assert_orthonormal(backend.asarray(Q))
    with pytest.raises(AssertionError, match="orthonormal"):
        assert_orthonormal(backend.asarray(Q + 1e-9))
