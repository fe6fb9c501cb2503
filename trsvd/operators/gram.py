"""Real matrices in the memory of the host, as compiled Lanczos steps work on them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import SINGLE, is_sparse
from trsvd._arrays.host_blas import add_gram
from trsvd._arrays.reductions import row_panels
from trsvd._compiled import kernels
from trsvd._compiled.threads import (
    Steps,
    shared_sparse_steps,
    shared_steps,
    sharing_threads,
)
from trsvd.operators.base import MatrixOperator
from trsvd.operators.counting import Metered, Turned

# The second level of a processor's cache, roughly. What lies beyond is read once for two products
# where that can be had: a third level is as slow as the memory on some machines.
_CACHE = 2 << 20
_BLOCK = 128  # rows and columns that are transposed at a time


class InMemory(MatrixOperator):
    """An operator whose Gram products are made in compiled code, in a precision of its own.

    Parameters
    ----------
    op : Metered or Turned
        What is multiplied by; products are counted there.
    rows : array or sparse matrix
        The same matrix in memory by rows or (``across``) its transpose.
    precision : {"float32", "float64"}
        Of the vectors. A matrix in a higher one is copied to it.
    across : bool
        Whether the rows are those of the adjoint: two passes make a product then.
    """

    def __init__(self, op: Metered | Turned, rows: Any, precision: str, across: bool) -> None:
        self.op, self.shape, self.turned = op, op.shape, isinstance(op, Turned)
        self.arrays = replace(op.arrays, dtype_name=precision)
        self.across, self.is_sparse = across, is_sparse(rows)
        self._given = rows
        self.gram: HostArray | None = None  # in the precision of the vectors, once it is formed

    @property
    def stays_in_cache(self) -> bool:
        """True if two passes over it take about as long as one pass in panels."""
        return stays_in_cache(self._given, self.arrays.dtype_name)

    @cached_property
    def rows(self) -> Any:
        """The matrix as it is multiplied by; copied where it is in a higher precision."""
        rows, dtype = self._given, self.arrays.host_dtype
        return rows.astype(dtype) if rows.dtype.itemsize > dtype.itemsize else rows

    @cached_property
    def _sparse(self) -> tuple[HostArray, HostArray, HostArray] | None:
        """Entries and places of a sparse matrix."""
        if not self.is_sparse:
            return None
        return self.rows.data, _unsigned(self._given.indices), _unsigned(self._given.indptr)

    def matmat(self, X: Array) -> Array:
        """``A @ X``, counted."""
        return self.arrays.like(self.op.matmat(self.op.arrays.like(X)))

    def rmatmat(self, X: Array) -> Array:
        """``A^H @ X``, counted."""
        return self.arrays.like(self.op.rmatmat(self.op.arrays.like(X)))

    @property
    def most_at_once(self) -> int:
        """Vectors in the widest block that it takes."""
        return 1 if self.across else 16

    @property
    def affordable_basis(self) -> int:
        """Vectors that can be orthogonalized against in half of the time of a product, at most.

        In no more memory than the matrix has, or 64 MiB.
        """
        n, entries = self.shape[1], self._given.size
        room = max(1 << 26, entries * self._given.dtype.itemsize)
        if self.is_sparse:
            entries *= 8  # by time: an entry of a sparse matrix takes that of several
        return int(min(entries // (2 * n), room // (n * self.arrays.host_dtype.itemsize)))

    @property
    def shares_products(self) -> bool:
        """True if threads of this package share the products while BLAS has one thread."""
        size = self.rows.size if self.is_sparse else self.rows.nbytes
        return sharing_threads(size, sparse=self.is_sparse, beside=False) > 1

    def form_if_due(self, steps: float) -> None:
        """Form the Gram matrix after so many steps that it might have paid from the beginning.

        By it a step takes ``2 n^2`` operations instead of ``4 m n``; it takes ``m n^2``, at about
        twice the rate where A stays in cache, and four times where a step waits for the memory.
        """
        m, n = self.shape
        if self.is_sparse or self.gram is not None or 2 * n > m:
            return
        if steps * (10 if self.stays_in_cache else 18) * (1 - n / (2 * m)) < n:
            return
        self.op.count(n, 1)
        G = np.zeros((n, n), dtype=self.arrays.host_dtype, order="F")
        for panel in row_panels(self._given.T if self.across else self._given, least=n):
            G = add_gram(panel.astype(G.dtype, copy=False), G)
        self.gram = _filled(G.T)

    def lanczos(
        self,
        V: HostArray,
        first: int,
        width: int,
        H: HostArray,
        C: HostArray,
        floor: float,
        largest: float,
    ) -> int:
        """Lanczos steps, as `trsvd._compiled.lanczos.gram_lanczos`; counts products with A."""
        compiled = kernels()
        rest = (H, C, floor, largest)
        shared = self._shared_steps(width)
        if shared is not None:
            made = shared(V, first, *rest)
        elif self._sparse is not None:
            made = compiled.sparse_gram_lanczos(*self._sparse, V, first, width, *rest)
        else:
            made = compiled.gram_lanczos(*self._matrix(width), V, first, width, *rest)
        if width > 1 or self.gram is None:
            self.op.count(2 * made * width, 2 * made)
        return int(made)

    def _matrix(self, width: int) -> tuple[HostArray, int]:
        """Return the array to multiply by, and the kind of the product."""
        compiled = kernels()
        if width == 1 and self.gram is not None:
            return self.gram, compiled.FORMED
        return self.rows, compiled.ACROSS if self.across else compiled.FUSED

    def _shared_steps(self, width: int) -> Steps | None:
        precision = self.arrays.host_dtype
        if self._sparse is None:
            return shared_steps(*self._matrix(width), width, precision)
        return shared_sparse_steps(*self._sparse, self.shape[1], width, precision)


def coarsest_precision(op: Metered, k: int, tol: float) -> str | None:
    """In what precision vectors should be iterated with ``A^H A`` to reach a relative residual.

    Parameters
    ----------
    op : Metered
        The matrix.
    k : int
        Number of triplets.
    tol : float
        The residual. Rounding leaves ``eps s_1 / s_k`` of it at least; what s_k is shows later.

    Returns
    -------
    {"float32", "float64"} or None
        None where there are no compiled steps.
    """
    rows = op.rows_in_memory() if kernels() is not None else None
    if rows is None:
        return None
    if op.arrays.eps >= SINGLE:
        return "float32" if tol >= 20 * SINGLE else "float64"
    if tol < 400 * SINGLE:
        return "float64"
    # A copy takes as long as some dozen steps, most of it for fresh pages: many steps have to come.
    # (And a norm of moderate size: squares stay in the range of float32.)
    pays = k >= 20 or rows[0].size * 4 <= _CACHE // 2 or is_worth_forming(op, k, tol)
    return "float32" if pays and op.norm_hint is not None else "float64"


def in_memory(op: Metered, turned: bool, precision: str | None) -> InMemory | None:
    """``op`` (or its adjoint: ``turned``) for compiled Lanczos steps on its Gram operator.

    Parameters
    ----------
    op : Metered
        It keeps what is made here as long as it lives.
    turned : bool
        Whether the vectors are those of the longer side.
    precision : {"float32", "float64"} or None
        Of the vectors.

    Returns
    -------
    InMemory or None
        None without a precision, or where the matrix is not in memory in a way that serves.
    """
    rows = op.rows_in_memory() if precision is not None and kernels() is not None else None
    if rows is None or precision is None:
        return None
    across = rows[1] is not turned
    if across and is_sparse(rows[0]):
        return None
    found = op.copies.get((turned, precision))
    if found is None:
        found = InMemory(Turned(op) if turned else op, rows[0], precision, across)
        op.copies[turned, precision] = found
    return found


def for_one_vector(op: Metered, precision: str) -> InMemory | None:
    """`in_memory` as one vector at a time is multiplied fastest by: with a formed Gram matrix."""
    view: InMemory | None = op.copies.get((False, precision))
    if view is not None and view.gram is not None:
        return view
    rows = op.rows_in_memory()
    return None if rows is None else in_memory(op, rows[1], precision)


def formed_gram(op: Metered, precision: str) -> HostArray | None:
    """The Gram matrix of ``op`` (n x n), where Lanczos steps have formed it."""
    view = op.copies.get((False, precision))
    return None if view is None or view.gram is None else view.gram.T


def is_worth_forming(op: MatrixOperator, k: int, tol: float) -> bool:
    """True if Lanczos steps are fastest with a Gram matrix that is formed first.

    By measurements: it takes ``m n^2`` operations whatever k is, steps with A itself about
    ``k m n``, but at another rate.

    Parameters
    ----------
    op : MatrixOperator
        A matrix.
    k : int
        Number of triplets.
    tol : float
        Relative residual that they are to meet.
    """
    rows = op.rows_in_memory()
    if rows is None or is_sparse(rows[0]):
        return False
    m, n = max(op.shape), min(op.shape)
    if stays_in_cache(rows[0]):
        share = 0.2
    elif rows[0].dtype.itemsize > 4:
        share = 0.08
    else:
        share = 0.3 if tol >= 1e-3 else 0.2
    return m >= 2 * n and k > share * n**2 / m


def _filled(G: HostArray) -> HostArray:
    """A symmetric matrix of which the upper triangle was there, and zeros below it: in place.

    By blocks: to go through a matrix by columns takes ten times as long.
    """
    for first in range(0, len(G), _BLOCK):
        rows, rest = slice(first, first + _BLOCK), slice(first + _BLOCK, None)
        G[rest, rows] = G[rows, rest].T
        G[rows, rows] += np.triu(G[rows, rows], 1).T
    return G


def stays_in_cache(rows: Any, precision: str | None = None) -> bool:
    """True if two passes over a matrix take about as long as one pass in panels.

    Parameters
    ----------
    rows : array or sparse matrix
        In memory.
    precision : {"float32", "float64"}, optional
        What it would be worked with in: a matrix in a higher one is copied.
    """
    itemsize = rows.dtype.itemsize
    if precision is not None:
        itemsize = min(itemsize, np.dtype(precision).itemsize)
    return not is_sparse(rows) and rows.size * itemsize <= _CACHE


def _unsigned(indices: HostArray) -> HostArray:
    return indices.view(f"u{indices.dtype.itemsize}")
