"""Arrays, sparse matrices and objects with products, as operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, is_array
from trsvd._arrays.dtypes import describe, dtype_name, is_sparse, type_name
from trsvd.operators.base import MatrixOperator, _ArrayMatrix, _SparseMatrix
from trsvd.operators.probe import probe, settle


class _Products:
    """Products with a user's operator in one direction, checked and copied.

    The operator gets copies, which it may overwrite. Its results are copied too: they may be a
    buffer that the next product overwrites, or a view of the argument.

    Parameters
    ----------
    A : operator
        With one or both of the methods.
    arrays : Arrays
        Namespace, device and dtype of the products.
    rows : int
        Number of rows of a product.
    block, single : str
        Names of the methods for blocks and for one-dimensional vectors.

    Attributes
    ----------
    way : {"both", "columns", "blocks"}
        "both": the method for vectors multiplies a single column, the method for blocks several.
        "columns": one column at a time. "blocks": the method for blocks also for single columns.
    settled : bool
        True if products were compared with each other, or nothing can be compared.
    """

    def __init__(self, A: Any, arrays: Arrays, rows: int, block: str, single: str) -> None:
        self.A, self.arrays, self.rows, self.name = A, arrays, rows, block
        self.block = block if hasattr(A, block) else None
        self.single = single if hasattr(A, single) else None
        self.way = "both"
        self.settled = self.block is None or self.single is None
        if self.block is None and self.single is None:
            raise TypeError(
                f"{describe(A)} has neither {block} nor {single}; pass a dense array, a sparse "
                "matrix of scipy, cupyx or torch, or an object with shape, dtype, matmat and "
                "rmatmat (or matvec and rmatvec)"
            )

    def __call__(self, X: Array) -> Array:
        width = int(X.shape[1])
        if self.block is not None and (self.way == "blocks" or (width > 1 and self.way == "both")):
            return self._of_block(self.block, X)
        if width == 1:
            return self._of_column(X)
        columns = [self._of_column(X[:, j : j + 1]) for j in range(width)]
        return self.arrays.xp.concat(columns, axis=1)

    def _of_column(self, X: Array) -> Array:
        if self.single is None or (self.way == "blocks" and self.block is not None):
            assert self.block is not None
            return self._of_block(self.block, X)
        y = self._of_user(self.single, X[:, 0])
        if math.prod(getattr(y, "shape", (0,))) != self.rows:
            raise ValueError(
                f"{self.single} of {describe(self.A)} returned {describe(y)} for a vector of shape "
                f"({X.shape[0]},); it must return an array of shape ({self.rows},)"
            )
        return self.arrays.xp.reshape(self._taken(self.single, y), (self.rows, 1))

    def _of_block(self, name: str, X: Array) -> Array:
        Y = self._of_user(name, X)
        want = (self.rows, int(X.shape[1]))
        if tuple(getattr(Y, "shape", ())) != want:
            raise ValueError(
                f"{name} of {describe(self.A)} returned {describe(Y)} for a block of shape "
                f"{tuple(X.shape)}; it must return an array of shape {want}"
            )
        return self._taken(name, Y)

    def _of_user(self, name: str, X: Array) -> Any:
        try:
            return admitted(getattr(self.A, name)(self.arrays.take(X, copy=True)))
        except (NotImplementedError, TypeError) as error:
            # Message of SciPy's LinearOperator for a missing product.
            if isinstance(error, TypeError) and "'NoneType' object is not callable" not in str(
                error
            ):
                raise
            raise TypeError(
                f"{describe(self.A)} does not implement {self.name}: a truncated SVD needs "
                "products with the matrix (matmat or matvec) and with its adjoint (rmatmat or "
                "rmatvec)"
            ) from error

    def _taken(self, name: str, Y: Any) -> Array:
        if dtype_name(Y.dtype).startswith("complex") and not self.arrays.is_complex:
            raise TypeError(
                f"{name} of {describe(self.A)} returned {dtype_name(Y.dtype)} but the operator's "
                f"dtype is {dtype_name(self.A.dtype)}; declare a complex dtype"
            )
        return self.arrays.take(Y, copy=True)


class _WrappedOperator(MatrixOperator):
    """Operator of a user; its products are checked and converted to the compute dtype."""

    def __init__(self, A: Any) -> None:
        self.shape = (int(A.shape[0]), int(A.shape[1]))
        own = isinstance(A, MatrixOperator)
        self.arrays = A.arrays if own else Arrays.of_operator(A)
        self._A = A
        m, n = self.shape
        self._forward = _Products(A, self.arrays, m, "matmat", "matvec")
        self._backward = _Products(A, self.arrays, n, "rmatmat", "rmatvec")

    def _made_of(self) -> str:
        return type_name(self._A)

    def matmat(self, X: Array) -> Array:
        if not self._forward.settled:
            self._forward.settled = True
            settle(self, adjoint=False)
        return self._forward(X)

    def rmatmat(self, X: Array) -> Array:
        if not self._backward.settled:
            self._backward.settled = True
            settle(self, adjoint=True)
        return self._backward(X)

    def go(self, forward: str | None, backward: str | None) -> bool:
        self._forward.settled = self._backward.settled = True
        self._forward.way = forward or self._forward.way
        self._backward.way = backward or self._backward.way
        return True

    def frobenius_norm(self, scale: float = 1.0) -> float | None:
        known = getattr(self._A, "frobenius_norm", None)
        norm = None if known is None else known()
        return None if norm is None else float(norm) * scale


def as_operator(A: Any) -> MatrixOperator:
    """Return ``A`` as an operator.

    Parameters
    ----------
    A : array, sparse matrix or operator
        A two-dimensional array of any array API library; a sparse matrix or array of scipy or
        cupyx, or a sparse tensor of torch; a frame of pandas or polars; an object with ``shape``,
        ``dtype``, ``matmat`` and ``rmatmat`` (or ``matvec`` and ``rmatvec``). Half precision is
        copied to float32, integers and bool to float64. Arrays whose memory layout BLAS does not
        accept, and sparse tensors, are copied too. Others are not copied.

    Returns
    -------
    MatrixOperator
        Operator with the shape of A.

    Raises
    ------
    TypeError
        If A is not one of these, or has a dtype that trsvd does not support.
    ValueError
        If A is not two-dimensional, or has no rows or no columns.

    See Also
    --------
    check_adjoint

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import operators
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> operators.as_operator(A)
    ArrayMatrix(2 x 2, float64, of numpy.ndarray)
    """
    if isinstance(A, MatrixOperator):
        own = type(A).__module__.partition(".")[0] == "trsvd"
        return A if own else _WrappedOperator(A)
    A = admitted(A)
    shape = getattr(A, "shape", None)
    if shape is None:
        raise TypeError(
            f"{describe(A)} is not a matrix; pass an array (numpy.asarray(A)), a sparse matrix, or "
            "an object with shape, dtype, matmat and rmatmat"
        )
    if len(shape) > 2 and not (is_array(A) or is_sparse(A)):
        raise ValueError(
            f"{describe(A)} has batch dimensions; an operator here is one matrix, of shape (m, n): "
            "pass an operator for each matrix of the batch"
        )
    if len(shape) != 2:
        raise ValueError(
            f"A has {len(shape)} dimensions (shape {tuple(shape)}); a matrix has 2: reshape it, or "
            "pass one matrix of a batch"
        )
    if 0 in tuple(shape):
        raise ValueError(
            f"A has shape {tuple(shape)}; a matrix without rows or columns has no triplets"
        )
    if is_sparse(A):
        return _SparseMatrix(A)
    if is_array(A):
        return _ArrayMatrix(A)
    return _WrappedOperator(A)


def check_adjoint(A: Any, rng: Any = None) -> None:
    """Check that ``rmatmat`` is the adjoint of ``matmat``, and that both treat blocks correctly.

    ``<x, A^H (A x)>`` must equal ``||A x||^2`` for a random x, and products with a block of two
    columns must equal those of each column alone. Differences by rounding are allowed, including
    those of the parts of a sum, and those measured as ``A (x + y) - A x - A y``.

    Parameters
    ----------
    A : array, sparse matrix or operator
        Of shape (m, n).
    rng : int or numpy.random.Generator, optional
        Seed or generator of the random vectors.

    Raises
    ------
    AdjointError
        If ``rmatmat`` is not the adjoint of ``matmat``.
    ValueError
        If products with blocks differ from products with vectors, and neither agree with the
        adjoint; or if products are not linear, or not finite.

    See Also
    --------
    as_operator, trsvd.AdjointError

    Notes
    -----
    Eight products. A wrong adjoint passes with probability zero as long as A x is not zero to
    rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import operators
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> operators.check_adjoint(A)
    """
    probe(as_operator(A), np.random.default_rng(rng))
