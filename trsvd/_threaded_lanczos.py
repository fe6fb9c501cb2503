"""Compiled Lanczos steps whose products are shared among threads, by panels of rows.

A sum is made of the same parts each time, whichever of them is ready first: with one number of
threads, results repeat bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from trsvd._compiled import kernels
from trsvd._threads import at_once, threads

__all__ = ["Product", "lanczos", "shared_product", "shared_sparse_product"]

HostArray = np.ndarray[Any, np.dtype[Any]]
Product = Callable[[HostArray, HostArray], None]

# What is worth sharing: bytes of a matrix that comes from memory each time (where it stays in the
# third-level cache a second thread gains nothing, or loses), and entries of a sparse one.
_LEAST_BYTES, _LEAST_ENTRIES = 24 << 20, 1 << 19


def lanczos(
    product: Product,
    V: HostArray,
    first: int,
    width: int,
    H: HostArray,
    C: HostArray,
    floor: float,
    largest: float,
) -> int:
    """Lanczos steps with ``product(X, W)``, which is ``W = X A^T A`` for vectors that are rows.

    The other parameters, and the result, are those of `trsvd._numba_kernels.gram_lanczos`.
    """
    compiled = kernels()
    steps = H.shape[0] // width
    for step in range(steps):
        j = first + step * width
        product(V[j : j + width], V[j + width : j + 2 * width])
        largest = compiled.finish_block(V, j, width, H, C, step * width, floor, largest)
        if largest < 0:
            return int(step)
    return int(steps)


def shared_product(M: HostArray, way: int, width: int, precision: Any) -> Product | None:
    """The product with ``A^T A`` in all threads, or None where one does as well.

    Parameters
    ----------
    M : array of shape (p, q)
        A or its transpose, C-ordered.
    way : {FUSED, ACROSS, FORMED}
        Which of them, as in `trsvd._numba_kernels`.
    width : int
        Vectors at a time, 1 where it is ``ACROSS``.
    precision : dtype
        Of the vectors.
    """
    compiled, parts = kernels(), threads()
    if parts == 1 or way == compiled.FORMED or M.nbytes < _LEAST_BYTES:
        return None
    edges = [4 * (M.shape[0] // 4 * part // parts) for part in range(parts)] + [M.shape[0]]
    panels = [M[low:high] for low, high in zip(edges, edges[1:], strict=False)]
    sums = np.empty((parts, width, M.shape[1]), precision)
    if way == compiled.ACROSS:
        between = np.empty(M.shape[1], precision)

        def across(X: HostArray, W: HostArray) -> None:
            x, w = X[0], W[0]

            def down(part: int) -> None:
                rows = slice(edges[part], edges[part + 1])
                compiled.adjoint_product(panels[part], x[rows], sums[part, 0])

            def up(part: int) -> None:
                compiled.product(panels[part], between, w[edges[part] : edges[part + 1]])

            at_once(down, parts)
            np.sum(sums[:, 0], axis=0, out=between)
            at_once(up, parts)

        return across

    def fused(X: HostArray, W: HostArray) -> None:
        def work(part: int) -> None:
            if width == 1:
                compiled.gram_product(panels[part], X[0], sums[part, 0])
            else:
                compiled.gram_products(panels[part], X, sums[part])

        at_once(work, parts)
        np.sum(sums, axis=0, out=W)

    return fused


def shared_sparse_product(
    data: HostArray, indices: HostArray, indptr: HostArray, n: int, width: int, precision: Any
) -> Product | None:
    """As `shared_product`, for a matrix by compressed rows with n columns."""
    compiled, parts = kernels(), threads()
    if parts == 1 or data.size < _LEAST_ENTRIES:
        return None
    ends = np.searchsorted(indptr, [data.size * part // parts for part in range(1, parts)])
    edges = [0, *ends.tolist(), indptr.size - 1]
    rows = [indptr[low : high + 1] for low, high in zip(edges, edges[1:], strict=False)]
    sums = np.empty((parts, width, n), precision)

    def product(X: HostArray, W: HostArray) -> None:
        def work(part: int) -> None:
            if width == 1:
                compiled.sparse_gram_product(data, indices, rows[part], X[0], sums[part, 0])
            else:
                compiled.sparse_gram_products(data, indices, rows[part], X, sums[part])

        at_once(work, parts)
        np.sum(sums, axis=0, out=W)

    return product
