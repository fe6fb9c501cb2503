"""Compiled loops over a matrix in memory; `_compiled` imports them if Numba is installed.

A Gram product ``M^T (M x)`` takes one pass over M. Four rows at a time are multiplied by x (or by
four vectors), and added to the result while they are in cache. A sequence of Lanczos steps is one
call.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

FUSED, ACROSS, FORMED = 0, 1, 2  # kinds of products in `gram_lanczos`

# Sums may be reordered for vector instructions; NaN and inf are preserved.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
# Rows of sparse matrices are too short for that.
_SHORT = {"contract"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _rows_times(M: Any, i: int, rows: int, x: Any, w: Any) -> None:
    """``w += R^T (R x)`` with ``rows`` rows R of M from the i-th on, one at a time."""
    for row in range(rows):
        a = M[i + row]
        p = w.dtype.type(0)
        for j in range(M.shape[1]):
            p += a[j] * x[j]
        for j in range(M.shape[1]):
            w[j] += p * a[j]


@njit(cache=True, nogil=True, fastmath=_FAST)
def gram_product(M: Any, x: Any, w: Any) -> None:
    """``w = M^T (M x)``."""
    m, n = M.shape
    zero = w.dtype.type(0)
    w[:] = zero
    for i in range(0, m - 3, 4):
        a, b, c, d = M[i], M[i + 1], M[i + 2], M[i + 3]
        p, q, r, s = zero, zero, zero, zero
        for j in range(n):
            p += a[j] * x[j]
            q += b[j] * x[j]
            r += c[j] * x[j]
            s += d[j] * x[j]
        for j in range(n):
            w[j] += p * a[j] + q * b[j] + r * c[j] + s * d[j]
    _rows_times(M, m - m % 4, m % 4, x, w)


@njit(cache=True, nogil=True, fastmath=_FAST)
def product(M: Any, x: Any, w: Any) -> None:
    """``w = M x``."""
    m, n = M.shape
    zero = w.dtype.type(0)
    for i in range(0, m - 3, 4):
        a, b, c, d = M[i], M[i + 1], M[i + 2], M[i + 3]
        p, q, r, s = zero, zero, zero, zero
        for j in range(n):
            p += a[j] * x[j]
            q += b[j] * x[j]
            r += c[j] * x[j]
            s += d[j] * x[j]
        w[i], w[i + 1], w[i + 2], w[i + 3] = p, q, r, s
    for i in range(m - m % 4, m):
        a = M[i]
        p = zero
        for j in range(n):
            p += a[j] * x[j]
        w[i] = p


@njit(cache=True, nogil=True, fastmath=_FAST)
def adjoint_product(M: Any, x: Any, w: Any) -> None:
    """``w = M^T x``."""
    m, n = M.shape
    w[:] = w.dtype.type(0)
    for i in range(0, m - 3, 4):
        a, b, c, d = M[i], M[i + 1], M[i + 2], M[i + 3]
        p, q, r, s = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(n):
            w[j] += p * a[j] + q * b[j] + r * c[j] + s * d[j]
    for i in range(m - m % 4, m):
        a = M[i]
        p = x[i]
        for j in range(n):
            w[j] += p * a[j]


@njit(cache=True, nogil=True, fastmath=_FAST)
def _inner_products(M: Any, i: int, X: Any, P: Any) -> None:
    """``P = R X^T`` for the four rows R of M from the i-th on, and four rows of X."""
    zero = P.dtype.type(0)
    a, b, c, d = M[i], M[i + 1], M[i + 2], M[i + 3]
    x, y, z, t = X[0], X[1], X[2], X[3]
    ax, ay, az, at = zero, zero, zero, zero
    bx, by, bz, bt = zero, zero, zero, zero
    cx, cy, cz, ct = zero, zero, zero, zero
    dx, dy, dz, dt = zero, zero, zero, zero
    for j in range(M.shape[1]):
        p, q, r, s = x[j], y[j], z[j], t[j]
        e = a[j]
        ax, ay, az, at = ax + e * p, ay + e * q, az + e * r, at + e * s
        e = b[j]
        bx, by, bz, bt = bx + e * p, by + e * q, bz + e * r, bt + e * s
        e = c[j]
        cx, cy, cz, ct = cx + e * p, cy + e * q, cz + e * r, ct + e * s
        e = d[j]
        dx, dy, dz, dt = dx + e * p, dy + e * q, dz + e * r, dt + e * s
    P[0, 0], P[0, 1], P[0, 2], P[0, 3] = ax, ay, az, at
    P[1, 0], P[1, 1], P[1, 2], P[1, 3] = bx, by, bz, bt
    P[2, 0], P[2, 1], P[2, 2], P[2, 3] = cx, cy, cz, ct
    P[3, 0], P[3, 1], P[3, 2], P[3, 3] = dx, dy, dz, dt


@njit(cache=True, nogil=True, fastmath=_FAST)
def _add_combinations(M: Any, i: int, P: Any, W: Any) -> None:
    """``W += P^T R`` for the four rows R of M from the i-th on, and four rows of W."""
    a, b, c, d = M[i], M[i + 1], M[i + 2], M[i + 3]
    ax, ay, az, at = P[0, 0], P[0, 1], P[0, 2], P[0, 3]
    bx, by, bz, bt = P[1, 0], P[1, 1], P[1, 2], P[1, 3]
    cx, cy, cz, ct = P[2, 0], P[2, 1], P[2, 2], P[2, 3]
    dx, dy, dz, dt = P[3, 0], P[3, 1], P[3, 2], P[3, 3]
    u, v, w, o = W[0], W[1], W[2], W[3]
    for j in range(M.shape[1]):
        p, q, r, s = a[j], b[j], c[j], d[j]
        u[j] += ax * p + bx * q + cx * r + dx * s
        v[j] += ay * p + by * q + cy * r + dy * s
        w[j] += az * p + bz * q + cz * r + dz * s
        o[j] += at * p + bt * q + ct * r + dt * s


@njit(cache=True, nogil=True, fastmath=_FAST)
def _four_rows_times_two(M: Any, i: int, X: Any, W: Any) -> None:
    """``W += X R^T R`` with the four rows R of M from the i-th on, and two rows of X."""
    zero = W.dtype.type(0)
    a, b, c, d = M[i], M[i + 1], M[i + 2], M[i + 3]
    x, y = X[0], X[1]
    ax, ay, bx, by = zero, zero, zero, zero
    cx, cy, dx, dy = zero, zero, zero, zero
    for j in range(M.shape[1]):
        p, q = x[j], y[j]
        ax, ay = ax + a[j] * p, ay + a[j] * q
        bx, by = bx + b[j] * p, by + b[j] * q
        cx, cy = cx + c[j] * p, cy + c[j] * q
        dx, dy = dx + d[j] * p, dy + d[j] * q
    u, v = W[0], W[1]
    for j in range(M.shape[1]):
        p, q, r, s = a[j], b[j], c[j], d[j]
        u[j] += ax * p + bx * q + cx * r + dx * s
        v[j] += ay * p + by * q + cy * r + dy * s


@njit(cache=True, nogil=True, fastmath=_FAST)
def gram_products(M: Any, X: Any, W: Any) -> None:
    """``W = X M^T M`` for vectors stored as rows; each row of M is used for all of X."""
    m, width = M.shape[0], X.shape[0]
    W[:] = W.dtype.type(0)
    P = np.empty((4, 4), W.dtype)
    fours, twos = width - width % 4, width - width % 2
    for i in range(0, m - 3, 4):
        for c in range(0, fours, 4):
            _inner_products(M, i, X[c : c + 4], P)
            _add_combinations(M, i, P, W[c : c + 4])
        for c in range(fours, twos, 2):
            _four_rows_times_two(M, i, X[c : c + 2], W[c : c + 2])
        for c in range(twos, width):
            _rows_times(M, i, 4, X[c], W[c])
    for c in range(width):
        _rows_times(M, m - m % 4, m % 4, X[c], W[c])


@njit(cache=True, nogil=True, fastmath=_FAST)
def _norm(x: Any) -> float:
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * x[j]
    return math.sqrt(total)


@njit(cache=True, nogil=True, fastmath=_FAST)
def _project_out(V: Any, count: int, w: Any, h: Any) -> None:
    """Subtract the part of w in the first ``count`` rows of V; add the coefficients to h."""
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
    """Orthogonalize row ``j + 1`` of V against the previous ones; return both norms."""
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
def finish_block(
    V: Any, j: int, width: int, H: Any, C: Any, row: int, floor: float, largest: float
) -> float:
    """Orthonormalize the rows of V from ``j + width`` on; return the largest norm, or -1.

    -1 means that a product vanished or is not finite.
    """
    for c in range(width):
        size, left = _finish_step(V, j + width + c - 1, H[row + c])
        C[0, row + c], C[1, row + c] = left, size
        largest = max(largest, size)
        if not left > floor * largest or not left < math.inf:
            return -1.0
        _scale(V[j + width + c], left)
    return largest


@njit(cache=True, nogil=True, fastmath=_FAST)
def gram_lanczos(
    M: Any,
    way: int,
    V: Any,
    first: int,
    width: int,
    H: Any,
    C: Any,
    floor: float,
    largest: float,
) -> int:
    """Make Lanczos steps with ``A^T A`` until H is full; return their number.

    Parameters
    ----------
    M : array
        A, its transpose or ``A^T A``, C-ordered, in the precision of V or in a lower one.
    way : {FUSED, ACROSS, FORMED}
        Kind of M. Blocks of several vectors need ``FUSED``.
    V : array of shape (p, n)
        The basis as rows. ``width`` rows from ``first`` on are the next block; the rows after it
        are written.
    first : int
        Number of rows before the next block.
    width : int
        Number of vectors in a block.
    H : array of shape (count * width, p)
        Output: coefficients of each product in the rows of V.
    C : array of shape (2, count * width)
        Output: norms of the remainders of the products, and norms of the products.
    floor : float
        A remainder counts as zero below this multiple of the largest product so far.
    largest : float
        Norm of the largest product before these steps.

    Returns
    -------
    int
        Number of steps; smaller than requested if a product vanished or is not finite. That step is
        not made.
    """
    between = np.empty(M.shape[1] if way == ACROSS else 0, V.dtype)
    for step in range(H.shape[0] // width):
        j = first + step * width
        if way == ACROSS:
            adjoint_product(M, V[j], between)
            product(M, between, V[j + 1])
        elif way == FORMED:
            product(M, V[j], V[j + 1])
        elif width == 1:
            gram_product(M, V[j], V[j + 1])
        else:
            gram_products(M, V[j : j + width], V[j + width : j + 2 * width])
        largest = finish_block(V, j, width, H, C, step * width, floor, largest)
        if largest < 0:
            return int(step)
    return int(H.shape[0] // width)


@njit(cache=True, nogil=True, fastmath=_SHORT)
def sparse_gram_product(
    data: Any, indices: Any, indptr: Any, left: Any, right: Any, x: Any, w: Any
) -> None:
    """``w = B^T (B x)`` for ``B = A - left right^T``, A in compressed rows.

    B is A if ``left`` and ``right`` are empty.
    """
    zero = w.dtype.type(0)
    w[:] = zero
    inner = added = 0.0
    for j in range(right.shape[0]):
        inner += right[j] * x[j]
    for i in range(indptr.shape[0] - 1):
        total = w.dtype.type(-inner * left[i]) if left.shape[0] else zero
        for p in range(indptr[i], indptr[i + 1]):
            total += data[p] * x[indices[p]]
        for p in range(indptr[i], indptr[i + 1]):
            w[indices[p]] += total * data[p]
        if left.shape[0]:
            added += total * left[i]
    for j in range(right.shape[0]):
        w[j] -= w.dtype.type(added * right[j])


@njit(cache=True, nogil=True, fastmath=_FAST)
def sparse_gram_products(
    data: Any, indices: Any, indptr: Any, left: Any, right: Any, X: Any, W: Any
) -> None:
    """``W = X B^T B`` for the matrix B of `sparse_gram_product` and vectors stored as rows.

    Each entry is multiplied by all vectors, which are interleaved for that. With one vector, most
    of the time is index lookup.
    """
    width, n = X.shape
    zero = W.dtype.type(0)
    from_, to = np.empty((n, width), W.dtype), np.zeros((n, width), W.dtype)
    from_[:] = X.T
    sums = np.empty(width, W.dtype)
    inner, added = np.zeros(width), np.zeros(width)
    for j in range(right.shape[0]):
        for c in range(width):
            inner[c] += right[j] * from_[j, c]
    for i in range(indptr.shape[0] - 1):
        for c in range(width):
            sums[c] = -inner[c] * left[i] if left.shape[0] else zero
        for p in range(indptr[i], indptr[i + 1]):
            entry, x = data[p], from_[indices[p]]
            for c in range(width):
                sums[c] += entry * x[c]
        for p in range(indptr[i], indptr[i + 1]):
            entry, w = data[p], to[indices[p]]
            for c in range(width):
                w[c] += entry * sums[c]
        if left.shape[0]:
            for c in range(width):
                added[c] += sums[c] * left[i]
    for j in range(right.shape[0]):
        for c in range(width):
            to[j, c] -= added[c] * right[j]
    W[:] = to.T


@njit(cache=True, nogil=True, fastmath=_FAST)
def sparse_gram_lanczos(
    data: Any,
    indices: Any,
    indptr: Any,
    left: Any,
    right: Any,
    V: Any,
    first: int,
    width: int,
    H: Any,
    C: Any,
    floor: float,
    largest: float,
) -> int:
    """Compute `gram_lanczos` for a matrix in compressed rows, minus one of rank one.

    Parameters
    ----------
    data, indices, indptr : arrays
        Attributes of a `scipy.sparse.csr_array`, with unsigned indices, since a check for negative
        ones takes as long as the product.
    left, right : arrays
        Vectors of the rank-one matrix ``left right^T`` that is subtracted, in the precision of V;
        empty for none.
    V, first, width, H, C, floor, largest
        As for `gram_lanczos`.

    Returns
    -------
    int
        As for `gram_lanczos`.
    """
    for step in range(H.shape[0] // width):
        j = first + step * width
        if width == 1:
            sparse_gram_product(data, indices, indptr, left, right, V[j], V[j + 1])
        else:
            block, following = V[j : j + width], V[j + width : j + 2 * width]
            sparse_gram_products(data, indices, indptr, left, right, block, following)
        largest = finish_block(V, j, width, H, C, step * width, floor, largest)
        if largest < 0:
            return int(step)
    return int(H.shape[0] // width)
