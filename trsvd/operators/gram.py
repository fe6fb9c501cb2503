"""Real matrices in host memory, for compiled Lanczos steps."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import SINGLE, is_sparse
from trsvd._arrays.host_blas import add_gram, read_only
from trsvd._arrays.reductions import row_panels
from trsvd._compiled import kernels, kernels_for
from trsvd._compiled.kind import Kind
from trsvd._compiled.threads import (
    Steps,
    shared_sparse_steps,
    shared_steps,
    sharing_threads,
    threads,
)
from trsvd.operators.base import MatrixOperator
from trsvd.operators.counting import Metered, Turned

# About the size of the second-level cache. Larger matrices are read once for two products where
# possible, since the third level is as slow as the memory on some machines.
_CACHE = 2 << 20
_BLOCK = 128  # rows and columns of a transposed block


class InMemory(MatrixOperator):
    """An operator whose Gram products are made in compiled code, in a precision of its own.

    Parameters
    ----------
    op : Metered or Turned
        The operator; it counts the products.
    rows : array or sparse matrix
        The same matrix in memory by rows or (``across``) its transpose.
    precision : {"float32", "float64"}
        Precision of the vectors. A matrix of higher precision is copied.
    across : bool
        True if the rows are those of the adjoint; a Gram product takes two passes then.
    """

    def __init__(self, op: Metered | Turned, rows: Any, precision: str, across: bool) -> None:
        self.op: Metered | Turned = op
        self.shape: tuple[int, int] = op.shape
        self.turned: bool = isinstance(op, Turned)
        self.arrays: Arrays = replace(op.arrays, dtype_name=precision)
        self.across: bool = across
        self.is_sparse: bool = is_sparse(rows)
        self._given = rows
        self.gram: HostArray | None = None  # in the precision of the vectors, once formed

    @property
    def stays_in_cache(self) -> bool:
        """True if two passes over it take about as long as one pass in panels."""
        return stays_in_cache(self._given, self.arrays.dtype_name)

    @cached_property
    def rows(self) -> Any:
        """Matrix in the precision of the vectors; a copy if its own precision is higher."""
        rows, dtype = self._given, self.arrays.host_dtype
        return rows.astype(dtype) if rows.dtype.itemsize > dtype.itemsize else rows

    @cached_property
    def _sparse(self) -> tuple[HostArray, HostArray, HostArray, HostArray, HostArray] | None:
        """Entries, column indices and row pointers of a sparse matrix, and vectors of its shift.

        The vectors are empty without a shift.
        """
        if not self.is_sparse:
            return None
        rows, dtype = self._given, self.arrays.host_dtype
        left, right = self.op.shift_in_memory() or (np.empty(0), np.empty(0))
        return (
            read_only(self.rows.data),
            read_only(_unsigned(rows.indices)),
            read_only(_unsigned(rows.indptr)),
            read_only(left.astype(dtype)),
            read_only(right.astype(dtype)),
        )

    def matmat(self, X: Array) -> Array:
        """``A @ X``, counted."""
        return self.arrays.like(self.op.matmat(self.op.arrays.like(X)))

    def rmatmat(self, X: Array) -> Array:
        """``A^H @ X``, counted."""
        return self.arrays.like(self.op.rmatmat(self.op.arrays.like(X)))

    @property
    def most_at_once(self) -> int:
        """Largest number of vectors in a block."""
        return 1 if self.across else 16

    @property
    def affordable_basis(self) -> int:
        """Largest basis whose orthogonalization takes at most half of the time of a product.

        The basis takes at most the memory of the matrix, or 64 MiB.
        """
        n, entries = self.shape[1], self._given.size
        room = max(1 << 26, entries * self._given.dtype.itemsize)
        if self.is_sparse:
            entries *= 8  # an entry of a sparse matrix takes the time of several dense ones
        return int(min(entries // (2 * n), room // (n * self.arrays.host_dtype.itemsize)))

    @property
    def shares_products(self) -> bool:
        """True if threads of this package share the products while BLAS has one thread."""
        size = self.rows.size if self.is_sparse else self.rows.nbytes
        return sharing_threads(size, sparse=self.is_sparse, beside=False) > 1

    def form_if_due(self, steps: float) -> None:
        """Form the Gram matrix once the steps made so far have cost as much as forming it.

        With it a step takes ``2 n^2`` operations instead of ``4 m n``. Forming it takes ``m n^2``
        operations, at twice the rate if A stays in cache, and at four times the rate otherwise.
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
        """Run `trsvd._compiled.lanczos.gram_lanczos`, and count its products with A."""
        compiled = kernels()
        rest = (H, C, float(floor), float(largest))
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
            return read_only(self.gram), compiled.FORMED
        return read_only(self.rows), compiled.ACROSS if self.across else compiled.FUSED

    def _shared_steps(self, width: int) -> Steps | None:
        precision = self.arrays.host_dtype
        if self._sparse is None:
            return shared_steps(*self._matrix(width), width, precision)
        return shared_sparse_steps(*self._sparse, self.shape[1], width, precision)


# Approximate time of a step without compiled loops, with one thread, in nanoseconds: for an entry
# of a dense or sparse matrix, and for a component of a vector and of each basis vector. Threads
# divide all of them at best, but for sparse matrices.
_DENSE_ENTRY, _SPARSE_ENTRY, _COMPONENT = 0.5, 3.0, 0.8
# The same for an operation of a Gram matrix with its eigenvectors.
_OPERATION = 0.02


def expected_seconds(op: MatrixOperator, rows: Any, k: int) -> float:
    """Return the approximate time of a call without compiled loops.

    The number of products depends on the spectrum: a third, or three times as many, are usual.

    Parameters
    ----------
    op : MatrixOperator
        A matrix.
    rows : array or sparse matrix
        Its rows in memory.
    k : int
        Number of triplets.
    """
    (m, n), sparse = sorted(op.shape, reverse=True), is_sparse(rows)
    entry = _SPARSE_ENTRY * threads() if sparse else _DENSE_ENTRY
    product = entry * rows.size + _COMPONENT * (m + n) * min(2 * k + 20, n)
    steps = min(5 * k + 30, 4 * n) * product
    gram = math.inf if sparse else _OPERATION * (m * n**2 + 4 * n**3)
    return 1e-9 * float(min(steps, gram)) / threads()


def _pays(op: MatrixOperator, k: int, precision: str) -> bool:
    """True if compiled steps are used for a matrix in memory."""
    rows = op.rows_in_memory()
    if rows is None:
        return False
    matrix, sparse = rows[0], is_sparse(rows[0])
    entries = min(matrix.dtype, np.dtype(precision), key=lambda dtype: dtype.itemsize)
    size = matrix.size * (1 if sparse else entries.itemsize)
    shared = sharing_threads(size, sparse=sparse, beside=False) > 1
    kind = Kind(sparse, entries.name, precision, shared)
    if sparse:
        kind = kind._replace(indices=f"u{matrix.indices.dtype.name}")
    return kernels_for(kind, expected_seconds(op, matrix, k)) is not None


def coarsest_precision(op: MatrixOperator, k: int, tol: float) -> str | None:
    """Return the lowest precision in which compiled steps reach a relative residual.

    Parameters
    ----------
    op : MatrixOperator
        The matrix. If its norm is not known yet, a moderate one is assumed.
    k : int
        Number of triplets.
    tol : float
        The residual. Rounding errors are at least ``eps s_1 / s_k``; s_k is not known yet.

    Returns
    -------
    {"float32", "float64"} or None
        None if there are no compiled steps for this operator, or they do not pay.
    """
    rows = op.rows_in_memory()
    if rows is None:
        return None
    lowest = _lowest_precision(op, rows[0], k, tol)
    return next((p for p in dict.fromkeys((lowest, "float64")) if _pays(op, k, p)), None)


def _lowest_precision(op: MatrixOperator, rows: Any, k: int, tol: float) -> str:
    if op.arrays.eps >= SINGLE:
        return "float32" if tol >= 20 * SINGLE else "float64"
    if tol < 400 * SINGLE:
        return "float64"
    # A copy costs as much as dozens of steps, mostly for new memory pages; it pays for many steps.
    # (And a norm of moderate size: squares stay in the range of float32.)
    pays = k >= 20 or rows.size * 4 <= _CACHE // 2 or is_worth_forming(op, k, tol)
    moderate = not isinstance(op, Metered) or op.norm_hint is not None
    return "float32" if pays and moderate else "float64"


def in_memory(op: Metered, turned: bool, precision: str | None, k: int) -> InMemory | None:
    """Return ``op``, or its adjoint, for compiled Lanczos steps with its Gram operator.

    Parameters
    ----------
    op : Metered
        The operator; it caches the result.
    turned : bool
        True: the adjoint, with vectors of the longer side.
    precision : {"float32", "float64"} or None
        Precision of the vectors.
    k : int
        Number of triplets.

    Returns
    -------
    InMemory or None
        None without a precision, if the matrix is not in memory in a suitable form, or if compiled
        steps do not pay.
    """
    rows = op.rows_in_memory()
    if rows is None or precision is None:
        return None
    across = rows[1] is not turned
    if across and is_sparse(rows[0]):
        return None
    found = op.copies.get((turned, precision))
    if found is None and _pays(op, k, precision):
        found = InMemory(Turned(op) if turned else op, rows[0], precision, across)
        op.copies[turned, precision] = found
    return found


def for_one_vector(op: Metered, precision: str, k: int) -> InMemory | None:
    """Return `in_memory` for products with one vector, with a Gram matrix if that is faster."""
    view: InMemory | None = op.copies.get((False, precision))
    if view is not None and view.gram is not None:
        return view
    rows = op.rows_in_memory()
    return None if rows is None else in_memory(op, rows[1], precision, k)


def formed_gram(op: Metered, precision: str) -> HostArray | None:
    """Return the Gram matrix of ``op`` (n x n) if Lanczos steps have formed it."""
    view = op.copies.get((False, precision))
    return None if view is None or view.gram is None else view.gram.T


def is_worth_forming(op: MatrixOperator, k: int, tol: float) -> bool:
    """True if Lanczos steps are fastest with a Gram matrix that is formed first.

    Forming takes ``m n^2`` operations for every k, and steps with A about ``k m n`` at a lower
    rate. The thresholds are measured.

    Parameters
    ----------
    op : MatrixOperator
        A matrix.
    k : int
        Number of triplets.
    tol : float
        Requested relative residual.
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
    """Copy the upper triangle of a symmetric matrix to the lower one, in place.

    The copy is done in blocks, since access by columns takes ten times as long.
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
        Matrix in memory.
    precision : {"float32", "float64"}, optional
        Precision of the steps; a matrix of higher precision would be copied.
    """
    itemsize = rows.dtype.itemsize
    if precision is not None:
        itemsize = min(itemsize, np.dtype(precision).itemsize)
    return not is_sparse(rows) and rows.size * itemsize <= _CACHE


def _unsigned(indices: HostArray) -> HostArray:
    return indices.view(f"u{indices.dtype.itemsize}")
