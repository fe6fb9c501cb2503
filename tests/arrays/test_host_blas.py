"""What `trsvd._arrays.host_blas` makes of SciPy's routines, beside NumPy's, in every layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from trsvd._arrays import host_blas as _lapack

DTYPES = ["float32", "float64", "complex64", "complex128"]
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows": np.ascontiguousarray,
    "columns": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, 0), 3, 1)[::2, ::3],
    "reversed": lambda A: np.ascontiguousarray(A[:, ::-1])[:, ::-1],
}


def random(m: int, n: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    if dtype.startswith("complex"):
        A = A + 1j * rng.standard_normal((m, n))
    return A.astype(dtype)


def close(A: np.ndarray, B: np.ndarray, dtype: str, size: int) -> bool:
    return bool(np.abs(A - B).max() <= size * float(np.finfo(dtype).eps) * np.abs(B).max())


@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(90, 70, 50), (7, 5, 3), (90, 70, 1), (0, 4, 2)])
def test_product(shape: tuple[int, int, int], dtype: str, left: str, right: str) -> None:
    m, n, w = shape
    A, X = LAYOUTS[left](random(m, n, dtype)), LAYOUTS[right](random(n, w, dtype, 1))
    before = A.copy(), X.copy()
    Y = _lapack.product(A, X)
    assert Y.shape == (m, w)
    assert Y.dtype == dtype
    assert m == 0 or close(Y, A @ X, dtype, 4 * n)
    assert np.array_equal(A, before[0])
    assert np.array_equal(X, before[1])


@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 5, 3)])
def test_flags_that_a_blas_raises_are_not_looked_at(shape: tuple[int, int, int]) -> None:
    # An invalid number stands in for a kernel that raises the flag with finite ones.
    m, n, w = shape
    A, X = random(m, n, "float32"), random(n, w, "float32", 1)
    A[0, 0], X[0] = np.inf, 0
    assert np.isnan(_lapack.product(A, X)[0]).all()
    assert np.isnan(_lapack.wide_product(A, X)[0]).all()


@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 3, 9), (200, 20, 300), (0, 3, 5)])
@pytest.mark.parametrize("threads", [1, 2])
def test_wide_product(monkeypatch, threads, shape, dtype, left, right) -> None:
    monkeypatch.setattr(_lapack, "threads", lambda: threads)
    m, k, n = shape
    U, Vh = LAYOUTS[left](random(m, k, dtype)), LAYOUTS[right](random(k, n, dtype, 1))
    before = U.copy(), Vh.copy()
    D = _lapack.wide_product(U, Vh)
    assert D.shape == (m, n)
    assert D.dtype == dtype
    assert D.flags.writeable
    assert D.flags.c_contiguous
    assert m == 0 or close(D, U @ Vh, dtype, 4 * k)
    assert np.array_equal(U, before[0])
    assert np.array_equal(Vh, before[1])


def test_a_product_of_many_numbers_of_half_precision_stays_in_it() -> None:
    A, X = random(90, 70, "float16"), random(70, 50, "float16", 1)
    assert A.shape[0] * A.shape[1] * X.shape[1] > _lapack._ONE_THREAD
    Y = _lapack.product(A, X)
    assert Y.dtype == np.float16
    assert close(Y, A.astype("float32") @ X.astype("float32"), "float16", 70)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gram_matrix_by_panels(dtype: str, layout: str) -> None:
    A = LAYOUTS[layout](random(60, 13, dtype))
    G = np.zeros((13, 13), dtype, order="F")
    for panel in (A[:20], A[20:55], A[55:]):
        G = _lapack.add_gram(panel, G)
    assert close(np.tril(G), np.tril(A.conj().T @ A), dtype, 300)


@pytest.mark.parametrize("n", [1, 2, 40, 150])
@pytest.mark.parametrize("dtype", DTYPES)
def test_leading_eigenvectors(dtype: str, n: int) -> None:
    A = random(n, n, dtype)
    G = A.conj().T @ A
    k = max(1, n // 4)
    lower = np.tril(G) + np.triu(np.full_like(G, np.nan), 1)
    V = _lapack.leading_eigenvectors(np.asfortranarray(lower), k)
    assert V.shape == (n, k)
    s = np.linalg.norm(A @ V, axis=0)[::-1]
    exact = np.linalg.svd(A, compute_uv=False)
    assert np.abs(s - exact[:k]).max() <= 100 * n * np.finfo(dtype).eps * exact[0]


@pytest.mark.parametrize("shape", [(700, 500), (500, 700)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_vector(dtype: str, shape: tuple[int, int]) -> None:
    A, x = random(*shape, dtype), random(shape[1], 2, dtype)[:, :1]
    exact = A @ x
    twice = np.repeat(A, 2, axis=0)[::2]
    for layout in (A, np.asfortranarray(A), np.repeat(A, 2, axis=1)[:, ::2], twice):
        y = _lapack.product(layout, x)
        assert y.shape == (shape[0], 1)
        assert y.dtype == A.dtype
        assert close(y, exact, dtype, 300)


@pytest.mark.parametrize("shape", [(3, 3), (60, 20), (20, 60), (200, 150)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_thin_svd(dtype: str, shape: tuple[int, int]) -> None:
    A = random(*shape, dtype)
    U, S, Vh = _lapack.thin_svd(A)
    assert U.shape == (shape[0], min(shape))
    assert Vh.shape == (min(shape), shape[1])
    assert close((U * S) @ Vh, A, dtype, 300)
    assert np.allclose(S, np.linalg.svd(A, compute_uv=False), rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 60])
def test_tridiagonal_eigh(n: int) -> None:
    rng = np.random.default_rng(2)
    d, e = rng.standard_normal(n), rng.standard_normal(n - 1)
    T = np.diag(d) + np.diag(e, 1) + np.diag(e, -1)
    solved = _lapack.tridiagonal_eigh(T)
    if solved is None:
        pytest.skip("this SciPy does not wrap dstevd")
    values, Q = solved
    assert np.all(np.diff(values) >= 0)
    assert np.abs(T @ Q - Q * values).max() <= 1e-13 * n
    assert np.abs(Q.T @ Q - np.eye(n)).max() <= 1e-13 * n


def test_what_cannot_be_solved_is_none() -> None:
    assert _lapack.tridiagonal_eigh(np.eye(1)) is None
    assert _lapack.tridiagonal_eigh(np.eye(3) * 1j) is None
    assert _lapack.cholesky_inverse(np.diag([1.0, -1.0])) is None
    assert _lapack.cholesky_inverse(np.full((2, 2), np.nan)) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_cholesky_inverse(dtype: str) -> None:
    A = random(30, 6, dtype)
    G = A.conj().T @ A
    factors = _lapack.cholesky_inverse(G)
    assert factors is not None
    L, inverse = factors
    assert close(L @ L.conj().T, G, dtype, 100)
    assert np.abs(L @ inverse - np.eye(6)).max() <= 100 * np.finfo(dtype).eps
    assert np.array_equal(np.triu(L, 1), np.zeros((6, 6)))
    assert np.array_equal(np.triu(inverse, 1), np.zeros((6, 6)))


def _failing(monkeypatch: pytest.MonkeyPatch, name: str, drivers: tuple[Any, ...]) -> list[Any]:
    """SciPy's function with drivers that do not converge; the drivers that it was asked for."""
    asked, solve = [], getattr(scipy.linalg, name)

    def function(A: np.ndarray, **options: Any) -> Any:
        asked.append(options.get("lapack_driver"))
        if asked[-1] in drivers:
            raise np.linalg.LinAlgError("did not converge")
        return solve(A, **options)

    monkeypatch.setattr(scipy.linalg, name, function)
    return asked


def test_an_svd_that_does_not_converge_is_done_by_qr_iteration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    A = np.random.default_rng(0).standard_normal((150, 140))
    asked = _failing(monkeypatch, "svd", (None,))
    U, S, Vh = _lapack.thin_svd(A)
    assert asked == [None, "gesvd"]
    eps = np.finfo(float).eps
    assert np.linalg.norm((U * S) @ Vh - A, 2) <= 290 * eps * S[0]


def test_a_small_svd_that_does_not_converge_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    A = np.random.default_rng(0).standard_normal((6, 4))
    asked = []

    def routine(name: str, kind: str) -> Any:
        asked.append((name, kind))
        return lambda B, **options: (0 * B, None, None, 1)

    monkeypatch.setattr(_lapack, "_lapack", routine)
    U, S, Vh = _lapack.thin_svd(A)
    monkeypatch.undo()
    assert asked == [("gesdd", "d")]
    eps = np.finfo(float).eps
    assert np.linalg.norm((U * S) @ Vh - A, 2) <= 100 * eps * S[0]


def test_eigenvectors_that_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them, and no exception: whoever asks has another way."""
    A = np.random.default_rng(0).standard_normal((150, 140))
    _failing(monkeypatch, "eigh", (None,))
    assert _lapack.leading_eigenvectors(A.T @ A, 3).shape == (140, 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_who_multiplies(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy where there is work for threads; columns (in float32 rows) are then contiguous.

    With a single thread NumPy in float32.
    """
    asked, real = [], _lapack._blas

    def count(name: str, kind: str) -> Any:
        asked.append(name)
        return real(name, kind)

    monkeypatch.setattr(_lapack, "_blas", count)
    X = np.ones((90, 70), dtype)
    monkeypatch.setattr(_lapack, "threads", lambda: 1)
    _lapack.product(X, np.ones((70, 50), dtype))
    assert asked == ([] if dtype == "float32" else ["gemm"])
    asked.clear()
    monkeypatch.setattr(_lapack, "threads", lambda: 2)
    large = _lapack.product(X, np.ones((70, 50), dtype))
    assert asked == ["gemm"]
    assert large.flags.c_contiguous == (dtype == "float32")
    for other in (np.ones((70, 1), dtype), np.ones((70, 2), dtype), np.ones((70, 50), "float16")):
        _lapack.product(X, other)
    assert asked == ["gemm"]


@pytest.mark.parametrize("by_columns", [False, True])
def test_long_sums_of_float32(by_columns: bool) -> None:
    """Positive terms: one after the other, 100000 of them lose a hundred units and more."""
    A = np.abs(random(100_000, 3, "float32"))
    A = np.asfortranarray(A) if by_columns else A
    x = np.abs(random(100_000, 1, "float32"))
    found = _lapack.product(A.T, x)
    exact = A.T.astype(np.float64) @ x
    assert found.dtype == np.float32
    assert np.abs(found / exact - 1).max() <= 8 * np.finfo(np.float32).eps


@pytest.mark.parametrize("k", [2, 10, 20, 50])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_long_sums_lose_no_more_than_short_ones(k: int, dtype: str) -> None:
    """Norms that were off by dozens of units made left vectors, and residuals, off by as much."""
    rng = np.random.default_rng(k)
    X = rng.standard_normal((100000, k)) + (1j * rng.standard_normal((100000, k)))
    X = X.astype(dtype) if dtype == "complex64" else X.real.astype(dtype)
    X /= np.linalg.norm(X.astype("complex128"), axis=0).astype(X.real.dtype)
    wide = X.astype("complex128")
    error = np.abs(_lapack.product(X.T, X.conj()) - wide.T @ wide.conj()).max()
    assert error <= 2 * np.finfo(np.float32).eps


@pytest.mark.parametrize("shape", [(1, 1), (30, 7), (7, 30), (200, 200)])
@pytest.mark.parametrize("kind", ["f", "d", "F", "D"])
def test_values_in_place(shape, kind):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype("D")
    X = (X if kind in "FD" else X.real).astype(kind, order="C")
    exact, given = np.linalg.svd(X, compute_uv=False), X.copy()
    S = _lapack.values_in_place(X)
    # LAPACK's backward error is a modest multiple of eps s_1, for either of the two.
    assert np.abs(S - exact).max() <= max(shape) * np.finfo(kind).eps * exact[0]
    assert X.size == 1 or not np.array_equal(X, given)  # no copy was made
