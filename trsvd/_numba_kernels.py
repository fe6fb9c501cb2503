"""Compiled loops over a matrix in memory; imported by `_compiled` where Numba is installed.

A Gram product ``M^T (M x)`` takes one pass over M: four rows at a time are multiplied by x and,
while they are in cache, added to the result. A whole run of Lanczos steps is one call.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

__all__ = ["gram_lanczos", "sparse_gram_lanczos"]

# Sums may be reordered, so that they use vector instructions; NaN and inf keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _gram_product(M: Any, x: Any, w: Any) -> None:
    """``w = M^T (M x)``."""
    m, n = M.shape
    zero = w.dtype.type(0)
    w[:] = zero
    i = 0
    while i + 4 <= m:
        a, b, c, d = M[i], M[i + 1], M[i + 2], M[i + 3]
        p, q, r, s = zero, zero, zero, zero
        for j in range(n):
            p += a[j] * x[j]
            q += b[j] * x[j]
            r += c[j] * x[j]
            s += d[j] * x[j]
        for j in range(n):
            w[j] += p * a[j] + q * b[j] + r * c[j] + s * d[j]
        i += 4
    while i < m:
        a = M[i]
        p = zero
        for j in range(n):
            p += a[j] * x[j]
        for j in range(n):
            w[j] += p * a[j]
        i += 1


@njit(cache=True, nogil=True, fastmath=_FAST)
def _norm(x: Any) -> float:
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * x[j]
    return math.sqrt(total)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _project_out(V: Any, count: int, w: Any, h: Any) -> None:
    """Take the first ``count`` rows of V out of w, and add the coefficients to h."""
    n = w.shape[0]
    zero = w.dtype.type(0)
    i = 0
    while i + 4 <= count:
        a, b, c, d = V[i], V[i + 1], V[i + 2], V[i + 3]
        p, q, r, s = zero, zero, zero, zero
        for j in range(n):
            p += a[j] * w[j]
            q += b[j] * w[j]
            r += c[j] * w[j]
            s += d[j] * w[j]
        for j in range(n):
            w[j] -= p * a[j] + q * b[j] + r * c[j] + s * d[j]
        h[i] += p
        h[i + 1] += q
        h[i + 2] += r
        h[i + 3] += s
        i += 4
    while i < count:
        a = V[i]
        p = zero
        for j in range(n):
            p += a[j] * w[j]
        for j in range(n):
            w[j] -= p * a[j]
        h[i] += p
        i += 1


@njit(cache=True, nogil=True, fastmath=_FAST)
def _finish_step(V: Any, j: int, h: Any) -> tuple[float, float]:
    """Orthogonalize row ``j + 1`` of V against those before it: its norm before and after."""
    w = V[j + 1]
    size = _norm(w)
    before = left = size
    h[:] = 0.0
    for _ in range(4):
        _project_out(V, j + 1, w, h)
        left = _norm(w)
        if not left <= 0.7 * before:
            break
        before = left
    return size, left


@njit(cache=True, nogil=True, fastmath=_FAST)
def _scale(w: Any, left: float) -> None:
    for i in range(w.shape[0]):
        w[i] /= left


@njit(cache=True, nogil=True, fastmath=_FAST)
def gram_lanczos(M: Any, V: Any, first: int, H: Any, C: Any, floor: float, largest: float) -> int:
    """Lanczos steps on ``M^T M``, as many as H has rows; how many were made.

    Parameters
    ----------
    M : array of shape (m, n)
        C-ordered.
    V : array of shape (p, n)
        The basis as rows; row ``first`` is the next vector, and those behind it are written.
    first : int
        Number of rows in front of the next vector.
    H : array of shape (count, p)
        Receives the coefficients of each product in the rows of V.
    C : array of shape (2, count)
        Receives the norms of what is left of the products, and those of the products.
    floor : float
        Relative to the largest product so far, what is left counts as nothing.
    largest : float
        Norm of the largest product before these steps.

    Returns
    -------
    int
        Fewer than asked for where a product left nothing (or is not finite): that step is not made.
    """
    for step in range(H.shape[0]):
        j = first + step
        _gram_product(M, V[j], V[j + 1])
        size, left = _finish_step(V, j, H[step])
        C[0, step], C[1, step] = left, size
        largest = max(largest, size)
        if not left > floor * largest or not left < math.inf:
            return step
        _scale(V[j + 1], left)
    return len(H)


@njit(cache=True, nogil=True, fastmath=_FAST)
def sparse_gram_lanczos(
    data: Any,
    indices: Any,
    indptr: Any,
    V: Any,
    first: int,
    H: Any,
    C: Any,
    floor: float,
    largest: float,
) -> int:
    """`gram_lanczos` for a matrix by compressed rows.

    Parameters
    ----------
    data, indices, indptr : arrays
        The matrix, as `scipy.sparse.csr_array` has it.
    V, first, H, C, floor, largest
        As for `gram_lanczos`.

    Returns
    -------
    int
        As for `gram_lanczos`.
    """
    for step in range(H.shape[0]):
        j = first + step
        x, w = V[j], V[j + 1]
        w[:] = w.dtype.type(0)
        for i in range(indptr.shape[0] - 1):
            total = w.dtype.type(0)
            for p in range(indptr[i], indptr[i + 1]):
                total += data[p] * x[indices[p]]
            for p in range(indptr[i], indptr[i + 1]):
                w[indices[p]] += total * data[p]
        size, left = _finish_step(V, j, H[step])
        C[0, step], C[1, step] = left, size
        largest = max(largest, size)
        if not left > floor * largest or not left < math.inf:
            return step
        _scale(w, left)
    return len(H)
