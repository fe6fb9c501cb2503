"""BLAS and LAPACK of SciPy, for arrays on the host.

NumPy and SciPy each come with an OpenBLAS that has its own threads. Idle threads of one busy-wait
for a while and slow down the threads of the other: alternating between the two takes more time with
two threads than with one. Everything that may use threads therefore calls SciPy's library, which
has the eigensolvers. Single-threaded products may call NumPy's.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import scipy.linalg

from trsvd._compiled import is_ready, kernels
from trsvd._compiled.kind import Kind
from trsvd._compiled.threads import blas_rests, threads

# OpenBLAS uses one thread up to this size; NumPy may compute these, with less overhead.
_ONE_THREAD = 1 << 18
_LONG_SUM = 1 << 13
_LITTLE_WORK = 128  # above, work space has to be asked for

HostArray = np.ndarray[Any, np.dtype[Any]]


@cache
def _blas(name: str, kind: str) -> Any:
    """Return a BLAS routine for a dtype; cached, as a lookup costs as much as a small product."""
    return scipy.linalg.get_blas_funcs(name, dtype=kind)


@cache
def _lapack(name: str, kind: str) -> Any:
    return scipy.linalg.get_lapack_funcs(name, dtype=kind)


def product(A: HostArray, X: HostArray) -> HostArray:
    """``A @ X``.

    In float64 OpenBLAS is up to 1.8 times faster if the columns of the result are contiguous (8 to
    64 columns). In float32 it is as fast or faster if the rows are. With one thread NumPy's newer
    BLAS takes 0.5 to 1 of the time in float32. BLAS has no half precision.
    """
    if _for_numpy(A, X):
        return dot(A, X)
    if X.shape[1] == 1:
        return _with_one_vector(A, X)
    if A.dtype.char in "fF" and A.shape[1] > _LONG_SUM and A.flags.f_contiguous:
        return _in_parts(A, X)
    return _at_once(A, X)


def wide_product(A: HostArray, X: HostArray) -> HostArray:
    """``A @ X`` in C order, for factors that are smaller than their product."""
    return dot(A, X) if _for_numpy(A, X) else _by_rows(A, X)


def dot(A: HostArray, X: HostArray) -> HostArray:
    """``A @ X`` by NumPy, for finite numbers, without floating-point warnings.

    NumPy checks the floating-point flags of the processor afterwards, and OpenBLAS can set one
    without a cause. For rows of five, its ``sgemv`` on AVX-512 loads unused numbers from the stack,
    which may be signalling NaNs (versions 0.3.30 and 0.3.31).
    """
    if A.dtype.char != "f" or (X.shape[1] != 1 and A.shape[0] != 1):
        return np.asarray(A.dot(X))
    with np.errstate(invalid="ignore"):
        return np.asarray(A.dot(X))


def _for_numpy(A: HostArray, X: HostArray) -> bool:
    """True if NumPy computes the product: it is small, or BLAS does not have its dtype."""
    small = A.size * X.shape[1] <= _ONE_THREAD
    return small or A.dtype != X.dtype or A.dtype.char not in "fdFD"


def _at_once(A: HostArray, X: HostArray) -> HostArray:
    return _by_rows(A, X) if A.dtype.char == "f" else _by_columns(A, X)


def _by_rows(A: HostArray, X: HostArray) -> HostArray:
    """``A @ X`` in C order."""
    alone = threads() == 1 or blas_rests()
    return np.asarray(A @ X) if alone else _by_columns(X.T, A.T).T


def _in_parts(A: HostArray, X: HostArray) -> HostArray:
    """``A @ X`` with long sums, computed in parts.

    Long sums in single precision have errors of dozens of rounding units. A few columns are
    computed by NumPy in parts that use one thread, since OpenBLAS can sum them sequentially.
    """
    (m, n), w = A.shape, X.shape[1]
    step = _ONE_THREAD // (m * w)
    step = min(step, _LONG_SUM) if step >= _LONG_SUM // 8 else 2 * _LONG_SUM
    total = np.zeros((m, w), np.promote_types(A.dtype, np.float64))
    for first in range(0, n, step):
        rows = slice(first, first + step)
        few = m * w * step <= _ONE_THREAD
        total += dot(A[:, rows], X[rows]) if few else _at_once(A[:, rows], X[rows])
    return total.astype(A.dtype)


def _with_one_vector(A: HostArray, X: HostArray) -> HostArray:
    """``A @ X`` by the compiled loops if available; single-threaded, and as fast as BLAS.

    Long sums of float32 are computed in float64, since sequential sums lose dozens of units.
    """
    Y = compiled_product(A, X, np.float64 if A.shape[1] > _LONG_SUM else A.dtype)
    return dot(A, X) if Y is None else Y.astype(A.dtype, copy=False)


def compiled_product(A: HostArray, X: HostArray, dtype: Any) -> HostArray | None:
    """``A @ X`` for one vector, summed in a dtype; None if no compiled loop for it is loaded."""
    if A.dtype.char not in "fd" or not (A.flags.c_contiguous or A.flags.f_contiguous):
        return None
    kind = Kind(sparse=False, entries=A.dtype.name, vectors=np.dtype(dtype).name)
    compiled = kernels() if is_ready(kind) else None
    if compiled is None:
        return None
    x = read_only(np.ascontiguousarray(X[:, 0]))
    y = np.empty(A.shape[0], dtype)
    if A.flags.c_contiguous:
        compiled.product(read_only(A), x, y)
    else:
        compiled.adjoint_product(read_only(A.T), x, y)
    return y[:, None]


def read_only(x: HostArray) -> HostArray:
    """Return a read-only view, the only kind of array that compiled loops read from."""
    x = x.view()
    x.flags.writeable = False
    return x


def _by_columns(A: HostArray, B: HostArray) -> HostArray:
    """``A @ B`` in Fortran order."""
    multiply = _blas("gemm", A.dtype.char)
    a, a_turned = _fortran(A)
    b, b_turned = _fortran(B)
    return np.asarray(multiply(1.0, a, b, trans_a=a_turned, trans_b=b_turned))


def _fortran(A: HostArray) -> tuple[HostArray, bool]:
    """Return A or its transpose in Fortran order, and True if it is the transpose."""
    return (A.T, True) if A.flags.c_contiguous and not A.flags.f_contiguous else (A, False)


def add_gram(A: HostArray, G: HostArray) -> HostArray:
    """Return the lower triangle of ``G + A^H A``, in place if G is in Fortran order."""
    name = "herk" if A.dtype.char in "FD" else "syrk"
    update = _blas(name, A.dtype.char)
    a, turned = _fortran(A)
    if not turned:  # A^H A of A as it is
        return np.asarray(
            update(1.0, a, 1.0, G, trans=2 if name == "herk" else 1, lower=1, overwrite_c=1)
        )
    if name == "herk":
        a = a.conj()
    return np.asarray(update(1.0, a, 1.0, G, trans=0, lower=1, overwrite_c=1))


def thin_qr(X: HostArray) -> tuple[HostArray, HostArray]:
    """Return Q and R of a tall or square matrix, by Householder reflections."""
    kind, w = X.dtype.char, X.shape[1]
    factored, tau, _, _ = _lapack("geqrf", kind)(X)
    R = np.where(_upper(w), factored[:w], factored.dtype.type(0))
    Q, _, _ = _lapack("ungqr" if kind in "FD" else "orgqr", kind)(factored, tau, overwrite_a=1)
    return Q, R


@cache
def _upper(w: int) -> HostArray:
    """Return the mask of the upper triangle."""
    return np.tri(w, dtype=bool).T


def thin_svd(B: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """Return the thin SVD of a finite matrix: U, S (descending) and Vh."""
    if max(B.shape) <= _LITTLE_WORK:
        U, S, Vh, info = _lapack("gesdd", B.dtype.char)(B, full_matrices=0)
        if info == 0:
            return U, S, Vh
    try:
        U, S, Vh = scipy.linalg.svd(B, full_matrices=False, check_finite=False)
    except np.linalg.LinAlgError:
        U, S, Vh = scipy.linalg.svd(
            B, full_matrices=False, check_finite=False, lapack_driver="gesvd"
        )
    return U, S, Vh


def eigh(T: HostArray) -> tuple[HostArray, HostArray]:
    """Return the eigenvalues, ascending, and the eigenvectors of a finite Hermitian matrix."""
    if 0 < len(T) <= _LITTLE_WORK:
        solve = _lapack("heevd" if T.dtype.char in "FD" else "syevd", T.dtype.char)
        values, vectors, info = solve(T, lower=1)
        if info == 0:
            return values, vectors
    values, vectors = scipy.linalg.eigh(T, driver="evd", check_finite=False)
    return values, vectors


def cholesky_inverse(G: HostArray) -> tuple[HostArray, HostArray] | None:
    """Return ``L`` and ``L^-1`` of ``G = L L^H``; None if G is not positive definite."""
    factor, invert = _lapack("potrf", G.dtype.char), _lapack("trtri", G.dtype.char)
    L, info = factor(G, lower=1, clean=1)
    if info != 0 or not np.isfinite(L).all():
        return None
    inverse, info = invert(L, lower=1)
    return (L, inverse) if info == 0 else None


def leading_eigenvectors(G: HostArray, k: int) -> HostArray:
    """Return eigenvectors of the k largest eigenvalues, ascending; fewer if LAPACK misses some.

    G is Hermitian; only its lower triangle is read.
    """
    n = len(G)
    if n > _LITTLE_WORK:
        with suppress(np.linalg.LinAlgError):
            subset = (n - k, n - 1)
            return np.asarray(scipy.linalg.eigh(G, subset_by_index=subset, check_finite=False)[1])
        return G[:, :0]
    solve = _lapack("heevr" if G.dtype.char in "FD" else "syevr", G.dtype.char)
    _, vectors, found, _, info = solve(G, range="I", il=n - k + 1, iu=n, lower=1)
    return np.asarray(vectors[:, : found if info == 0 else 0])


def count_above(G: HostArray, level: float) -> int:
    """Return the number of eigenvalues of G above ``level``, by Sylvester's law of inertia.

    G is Hermitian; only its lower triangle is read. A factorization ``L D L^H`` takes a small part
    of the time of eigenvectors.
    """
    shifted = G.copy(order="F")
    np.fill_diagonal(shifted, G.diagonal() - level)
    factor = _lapack("hetrf" if G.dtype.char in "FD" else "sytrf", G.dtype.char)
    factors, pivots, _ = factor(shifted, lower=1, lwork=64 * len(G), overwrite_a=1)
    # A block of two rows, which has negative pivots, has one positive eigenvalue.
    alone = pivots > 0
    return int(np.sum(factors.diagonal().real[alone] > 0) + np.sum(~alone) // 2)


def tridiagonal_eigh(T: HostArray) -> tuple[HostArray, HostArray] | None:
    """Return eigenvalues, ascending, and eigenvectors of a real symmetric tridiagonal matrix.

    The routine is divide and conquer, which takes a tenth of the time of that for full matrices.
    None if LAPACK or this version of SciPy does not have it.
    """
    solve = getattr(scipy.linalg.lapack, "dstevd", None)
    if solve is None or len(T) < 2 or np.iscomplexobj(T):
        return None
    values, vectors, info = solve(np.diagonal(T), np.diagonal(T, -1))
    return (values, vectors) if info == 0 else None


def values_in_place(X: HostArray) -> HostArray:
    """Singular values, descending, of a finite C-ordered matrix, which is overwritten.

    LAPACK reduces the matrix where it is: work space is a few rows and columns.
    """
    kind, (m, n) = X.dtype.char, X.shape
    work, _ = _lapack("gesdd_lwork", kind)(n, m, compute_uv=0)
    lwork = int(work.real)
    _, values, _, info = _lapack("gesdd", kind)(X.T, compute_uv=0, lwork=lwork, overwrite_a=1)
    if info != 0:
        raise np.linalg.LinAlgError(f"the singular values did not converge (gesdd: {info})")
    return np.asarray(values)
