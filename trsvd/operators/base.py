"""Base class of the operators, and those of dense and sparse matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import type_name


@runtime_checkable
class MatrixLike(Protocol):
    """Protocol of the objects that `trsvd.svds` accepts as operators.

    ``shape`` is ``(m, n)``, and ``dtype`` is the dtype of the products. ``matmat`` maps arrays of
    shape (n, p) to (m, p), and ``rmatmat`` arrays of shape (m, p) to (n, p). The products take
    arrays of the namespace ``xp`` if there is this attribute, of torch for a torch dtype, and of
    NumPy otherwise.
    """

    shape: tuple[int, int]
    dtype: Any

    def matmat(self, X: Any, /) -> Any:
        """``A @ X``."""
        ...

    def rmatmat(self, X: Any, /) -> Any:
        """``A^H @ X``."""
        ...


class MatrixOperator(ABC):
    """An m x n matrix that is given by its products.

    Attributes
    ----------
    shape : tuple of int
        ``(m, n)``.
    arrays : Arrays
        Namespace, device and dtype of the products.
    """

    shape: tuple[int, int]
    arrays: Arrays
    # Bound of the rounding errors in a product with a unit vector; 0: those of the dtype.
    rounding: float = 0.0
    # Usual size of those errors, for a random unit vector.
    noise: float = 0.0
    # True if `formed(gram=True)` forms the Gram matrix by one pass over an array, without a copy.
    forms_gram: bool = False

    def __repr__(self) -> str:
        (m, n), parts = self.shape, self._made_of()
        name, of = type(self).__name__.lstrip("_"), f", of {parts}" if parts else ""
        return f"{name}({m} x {n}, {self.arrays.dtype_name}{of})"

    def _made_of(self) -> str:
        """Return the parts of the operator for its repr; empty if they are not known."""
        return ""

    @property
    def dtype(self) -> Any:
        """Compute dtype, as an object of the namespace."""
        return self.arrays.dtype

    @property
    def xp(self) -> Any:
        """Array namespace of the products."""
        return self.arrays.xp

    @abstractmethod
    def matmat(self, X: Array) -> Array:
        """``A @ X`` for X of shape (n, p)."""

    @abstractmethod
    def rmatmat(self, X: Array) -> Array:
        """``A^H @ X`` for X of shape (m, p)."""

    def max_abs(self) -> float | None:
        """Largest modulus of an entry; None if the entries are not available."""
        return None

    def frobenius_norm(self, scale: float = 1.0) -> float | None:
        """``||scale A||_F``; None if it would take about min(m, n) products."""
        del scale
        return None

    def rough_norm(self) -> float | None:
        """``||A||_F`` to four digits; None if that takes more than one pass over the entries."""
        return None

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        """Return this real matrix or its transpose, stored by rows on the host; None if it is not.

        The second value is True for the transpose. The matrix is a NumPy array with contiguous
        rows, or a sparse matrix of scipy in compressed rows.
        """
        return None

    def columns_in_memory(self) -> tuple[Array, bool] | None:
        """Return `rows_in_memory` of the adjoint."""
        rows = self.rows_in_memory()
        return None if rows is None else (rows[0], not rows[1])

    def shift_in_memory(self) -> tuple[HostArray, HostArray] | None:
        """Return x and y if this is ``M - x y^T``, and `rows_in_memory` are those of M.

        M is sparse then. None if this is M.
        """
        return None

    def in_double(self) -> MatrixOperator | None:
        """Return the operator with products in double precision; None if it has no entries."""
        return None

    def formed(self, *, gram: bool = False) -> MatrixOperator | None:
        """Return the matrix as an array if its entries are more accurate than its products.

        ``gram``: the Gram matrix will do, so that no copy is made if it can be formed without one.
        """
        del gram
        return None

    def gram_by_panels(self, *, double: bool) -> Array | None:
        """Return the Gram matrix of the shorter side, as `Arrays.gram`; None without panels."""
        del double
        return None

    def size_of_parts(self) -> float:
        """Sum of the Frobenius norms of the added parts of a product, as far as known."""
        return 0.0

    def go(self, forward: str | None, backward: str | None) -> bool:
        """Choose how ``matmat`` and ``rmatmat`` treat blocks; False if there is no choice.

        ``"columns"``: one column at a time. ``"blocks"``: in blocks only. ``"both"``: either. None
        changes nothing.
        """
        del forward, backward
        return False

    def dense(self) -> Array:
        """Return the matrix as an array; min(m, n) products if it has no entries."""
        m, n = self.shape
        arrays, side = self.arrays, min(m, n)
        arrays.check_room(2 * m * n, f"the {m} x {n} matrix as an array")
        product = self.matmat if m >= n else self.rmatmat
        blocks = []
        for start in range(0, side, 256):
            unit = np.eye(side, min(256, side - start), -start)
            blocks.append(product(arrays.put(unit)))
        columns = self.xp.concat(blocks, axis=1)
        return columns if m >= n else arrays.adjoint(columns)


def phrase(op: MatrixOperator) -> str:
    """Return an operator for the repr of another; for a private class, the object it wraps."""
    name, parts = type(op).__name__, op._made_of()
    if parts and name.startswith("_"):
        return parts
    return f"{name} of {parts}" if parts else name


class _ArrayMatrix(MatrixOperator):
    """Dense array as an operator."""

    def __init__(self, A: Array) -> None:
        self.arrays = Arrays.of_array(A)
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        self._A = self.arrays.matrix(A)

    def _made_of(self) -> str:
        return type_name(self._A)

    def matmat(self, X: Array) -> Array:
        return self.arrays.product(self._A, X)

    def rmatmat(self, X: Array) -> Array:
        return self.arrays.adjoint_product(self._A, X)

    def max_abs(self) -> float:
        return self.arrays.max_abs(self._A)

    def frobenius_norm(self, scale: float = 1.0) -> float:
        return self.arrays.frobenius_norm(self._A, scale)

    def rough_norm(self) -> float | None:
        return self.arrays.rough_norm(self._A)

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        if not self.arrays.on_host or self.arrays.is_complex:
            return None
        turned = not self._A.flags.c_contiguous
        rows = self._A.T if turned else self._A
        return (rows, turned) if rows.flags.c_contiguous else None

    def in_double(self) -> MatrixOperator:
        wide = self.arrays.in_double
        return _ArrayInDouble(self.arrays.get(self._A) if wide.on_host else self._A, wide)

    def dense(self) -> Array:
        return self._A


class _ArrayInDouble(MatrixOperator):
    """Dense array as an operator with products in a wider dtype."""

    def __init__(self, A: Array, arrays: Arrays) -> None:
        self.arrays, self._A = arrays, A
        self.shape = (int(A.shape[0]), int(A.shape[1]))

    def matmat(self, X: Array) -> Array:
        return self.arrays.product_with_narrower(self._A, X)

    def rmatmat(self, X: Array) -> Array:
        conj = self.arrays.conj
        return conj(self.arrays.product_with_narrower(self._A.T, conj(X)))


class _SparseMatrix(MatrixOperator):
    """Sparse matrix of scipy or cupyx, or tensor of torch, stored in compressed rows."""

    def __init__(self, A: Any) -> None:
        self.arrays = Arrays.of_sparse(A if hasattr(A, "data") else A.tocsr())
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        self._A = self.arrays.sparse_matrix(A)

    def _made_of(self) -> str:
        return type_name(self._A)

    def matmat(self, X: Array) -> Array:
        return self.arrays.sparse_product(self._A, X)

    def rmatmat(self, X: Array) -> Array:
        conj = self.arrays.conj
        return conj(self.arrays.sparse_product(self._transpose, conj(X)))

    @cached_property
    def _transpose(self) -> Any:
        return self.arrays.sparse_transpose(self._A)

    @property
    def _entries(self) -> Array:
        return self.arrays.sparse_entries(self._A)

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        return (self._A, False) if self.arrays.on_host and not self.arrays.is_complex else None

    def columns_in_memory(self) -> tuple[Array, bool] | None:
        return None if self.rows_in_memory() is None else (self._by_columns, False)

    @cached_property
    def _by_columns(self) -> Any:
        """Return the transpose in compressed rows, a copy."""
        return self._A.T.tocsr()

    def max_abs(self) -> float:
        return self.arrays.max_abs(self._entries) if len(self._entries) else 0.0

    def frobenius_norm(self, scale: float = 1.0) -> float:
        entries = self._entries
        return self.arrays.frobenius_norm(entries[:, None], scale) if len(entries) else 0.0

    def rough_norm(self) -> float | None:
        return self.arrays.rough_norm(self._entries[:, None]) if len(self._entries) else None

    def in_double(self) -> MatrixOperator:
        arrays = self.arrays.in_double
        arrays.check_room(len(self._entries), "the entries in double precision")
        return _SparseMatrix(arrays.sparse_like(self._A))

    def dense(self) -> Array:
        m, n = self.shape
        self.arrays.check_room(m * n, f"the {m} x {n} matrix as an array")
        return self.arrays.sparse_to_dense(self._A)
