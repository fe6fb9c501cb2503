"""Operators made of other operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import is_sparse
from trsvd.operators.base import MatrixOperator, _ArrayMatrix, phrase
from trsvd.operators.centred import CenteredArray
from trsvd.operators.products import as_operator


class AdjointOperator(MatrixOperator):
    """``A^H``.

    Parameters
    ----------
    A : array, sparse matrix or operator
        Of shape (m, n).

    See Also
    --------
    as_operator, check_adjoint

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import operators
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> operators.AdjointOperator(A).matmat(np.eye(2))
    array([[1., 3.],
           [2., 4.]])
    """

    def __init__(self, A: Any) -> None:
        self.A = as_operator(A)
        self.arrays: Arrays = self.A.arrays
        self.shape: tuple[int, int] = (self.A.shape[1], self.A.shape[0])

    def _made_of(self) -> str:
        return phrase(self.A)

    def matmat(self, X: Array) -> Array:
        """``A^H @ X``."""
        return self.A.rmatmat(X)

    def rmatmat(self, X: Array) -> Array:
        """``A @ X``."""
        return self.A.matmat(X)

    def max_abs(self) -> float | None:
        """Return the value of ``A``."""
        return self.A.max_abs()

    def frobenius_norm(self, scale: float = 1.0) -> float | None:
        """Return the value of ``A``."""
        return self.A.frobenius_norm(scale)

    def size_of_parts(self) -> float:
        """Return the value of ``A``."""
        return self.A.size_of_parts()

    def go(self, forward: str | None, backward: str | None) -> bool:
        """Choose for ``A``, with the directions exchanged."""
        return self.A.go(backward, forward)

    def formed(self, *, gram: bool = False) -> MatrixOperator | None:
        """Return the adjoint of ``A.formed()``."""
        formed = self.A.formed(gram=gram)
        return None if formed is None else AdjointOperator(formed)

    def rough_norm(self) -> float | None:
        """Return the value of ``A``."""
        return self.A.rough_norm()

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        """Return the columns of ``A``."""
        return self.A.columns_in_memory()

    def columns_in_memory(self) -> tuple[Array, bool] | None:
        """Return the rows of ``A``."""
        return self.A.rows_in_memory()

    def shift_in_memory(self) -> tuple[HostArray, HostArray] | None:
        """Return the vectors of ``A``, exchanged."""
        shift = self.A.shift_in_memory()
        return None if shift is None else shift[::-1]

    @property
    def forms_gram(self) -> bool:  # type: ignore[override]
        """Value of ``A``."""
        return self.A.forms_gram

    def gram_by_panels(self, *, double: bool) -> Array | None:
        """Return that of ``A``: it belongs to the shorter side."""
        return self.A.gram_by_panels(double=double)

    def in_double(self) -> MatrixOperator | None:
        """Return the operator with products in double precision; None if ``A`` has none."""
        wide = self.A.in_double()
        return None if wide is None else AdjointOperator(wide)

    def dense(self) -> Array:
        """``A^H`` as an array."""
        return self.arrays.adjoint(self.A.dense())


class CenteredOperator(MatrixOperator):
    """``A - 1 mu^T``: the rows of A minus their mean, as in principal component analysis.

    A sparse A stays sparse: a product costs one product with A and a rank-one correction.

    Parameters
    ----------
    A : array, sparse matrix or operator
        Of shape (m, n): m samples of n features.
    mean : array of shape (n,), optional
        Row that is subtracted from every row. None: the mean of the rows (one product with A^H).

    Attributes
    ----------
    mean : array of shape (n,)
        Row that is subtracted from every row.

    See Also
    --------
    trsvd.sklearn.PCA, LowRankUpdate

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import operators
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> centred = operators.CenteredOperator(A)
    >>> centred.mean, centred.dense()
    (array([2., 3.]), array([[-1., -1.],
           [ 1.,  1.]]))
    """

    def __init__(self, A: Any, mean: Array | None = None) -> None:
        self.A = as_operator(A)
        self.arrays: Arrays = self.A.arrays
        self.shape: tuple[int, int] = self.A.shape
        m, n = self.shape
        xp = self.xp
        self._ones = self.arrays.zeros(m, 1) + 1
        self._is_mean = mean is None
        if mean is None:
            # Sums of many large entries need more digits than the mean has.
            wide = self.A.in_double() or self.A
            sums = wide.rmatmat(wide.arrays.zeros(m, 1) + 1)
            self._mean = self.arrays.like(wide.arrays.conj(sums) / m)
        else:
            mean = self.arrays.take(mean)
            if tuple(mean.shape) != (n,):
                raise ValueError(
                    f"mean has shape {tuple(mean.shape)}; A has {n} columns, so give shape ({n},)"
                )
            self._mean = xp.reshape(mean, (n, 1))

    def _made_of(self) -> str:
        return phrase(self.A)

    @property
    def mean(self) -> Array:
        """Row that is subtracted from every row."""
        return self._mean[:, 0]

    def matmat(self, X: Array) -> Array:
        """``A X - 1 (mu^T X)``."""
        return self.A.matmat(X) - self._ones @ (self._mean.T @ X)

    def rmatmat(self, X: Array) -> Array:
        """``A^H X - conj(mu) (1^T X)``."""
        return self.A.rmatmat(X) - self.arrays.conj(self._mean) @ (self._ones.T @ X)

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        """Return the rows of a sparse ``A``."""
        return self._of_sparse(self.A.rows_in_memory())

    def columns_in_memory(self) -> tuple[Array, bool] | None:
        """Return the columns of a sparse ``A``, or its rows unless those are very long.

        The columns are a copy of the matrix.
        """
        m, n = self.shape
        if n > _LONG * m:
            return self._of_sparse(self.A.columns_in_memory())
        return super().columns_in_memory()

    def _of_sparse(self, rows: tuple[Array, bool] | None) -> tuple[Array, bool] | None:
        alone = self.A.shift_in_memory() is None
        return rows if rows is not None and is_sparse(rows[0]) and alone else None

    def shift_in_memory(self) -> tuple[HostArray, HostArray] | None:
        """Return 1 and mu."""
        return self._ones[:, 0], self._mean[:, 0]

    def size_of_parts(self) -> float:
        """``||A||_F + ||1 mu^T||_F``."""
        return _size(self.A) + math.sqrt(self.shape[0]) * _norm(self.arrays, self._mean)

    def go(self, forward: str | None, backward: str | None) -> bool:
        """Choose for ``A``."""
        return self.A.go(forward, backward)

    def dense(self) -> Array:
        """Return ``A - 1 mu^T`` as an array; the mean is subtracted from the entries."""
        m, n = self.shape
        self.arrays.check_room(2 * m * n, f"the {m} x {n} matrix as an array")
        X = self.A.dense() - self._mean.T
        if self._is_mean:  # mu was rounded: its error is the mean of small numbers
            X = X - (self.xp.sum(X, axis=0) / m)[None, :]
        return X

    @property
    def forms_gram(self) -> bool:  # type: ignore[override]
        """True if ``A`` is a real array on the host."""
        arrays = self.arrays
        return isinstance(self.A, _ArrayMatrix) and arrays.on_host and not arrays.is_complex

    def formed(self, *, gram: bool = False) -> MatrixOperator | None:
        """Return the centred entries if ``A`` has entries; their products do not cancel."""
        if gram and self.forms_gram:
            return CenteredArray(self.arrays, self.A.dense(), self.mean, is_mean=self._is_mean)
        return None if self.A.max_abs() is None else as_operator(self.dense())

    def frobenius_norm(self, scale: float = 1.0) -> float | None:
        """``||A - 1 mu^T||_F``; None if cancellation leaves too few digits."""
        base = self.A.frobenius_norm(scale)
        if base is None:
            return None
        row_sum = self.A.rmatmat(self._ones) * scale
        shift = self._mean * scale
        cross = self.arrays.real_inner(self.arrays.conj(shift), row_sum)
        square = self.shape[0] * self.arrays.real_inner(shift, shift)
        return _root_of_difference(self.arrays, [base**2, -2 * cross, square])


class SumOperator(MatrixOperator):
    """``A_1 + A_2 + ...``.

    Parameters
    ----------
    *terms : arrays, sparse matrices or operators
        All of one shape, namespace and device.

    See Also
    --------
    LowRankUpdate, as_operator

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import operators
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> operators.SumOperator(A, np.eye(2)).matmat(np.eye(2))
    array([[2., 2.],
           [3., 5.]])
    """

    def __init__(self, *terms: Any) -> None:
        if not terms:
            raise ValueError("a sum needs at least one term")
        self.terms: tuple[MatrixOperator, ...] = tuple(as_operator(term) for term in terms)
        self.shape: tuple[int, int] = self.terms[0].shape
        for term in self.terms:
            if term.shape != self.shape:
                raise ValueError(
                    f"terms of a sum have shapes {self.shape} and {term.shape}; they must agree"
                )
        self.arrays: Arrays = Arrays.common([term.arrays for term in self.terms])

    def _made_of(self) -> str:
        shown = " + ".join(phrase(term) for term in self.terms[:_SHOWN])
        more = len(self.terms) - _SHOWN
        return f"{shown} + {more} more" if more > 0 else shown

    def matmat(self, X: Array) -> Array:
        """Sum of the products of the terms."""
        return _total([self._part(term, term.matmat, X) for term in self.terms])

    def rmatmat(self, X: Array) -> Array:
        """Sum of the adjoint products of the terms."""
        return _total([self._part(term, term.rmatmat, X) for term in self.terms])

    def size_of_parts(self) -> float:
        """Sum of the norms of the terms."""
        return sum(map(_size, self.terms))

    def go(self, forward: str | None, backward: str | None) -> bool:
        """Choose for every term."""
        return any([term.go(forward, backward) for term in self.terms])

    def _part(self, term: MatrixOperator, product: Callable[[Array], Array], X: Array) -> Array:
        """Return the product of one term, which may be real in a complex sum."""
        like, take, xp = term.arrays.like, self.arrays.take, self.xp
        if not term.arrays.would_lose_imaginary(X):
            return take(product(like(X)))
        return take(product(like(xp.real(X)))) + 1j * take(product(like(xp.imag(X))))


class LowRankUpdate(MatrixOperator):
    """``A + U V^H`` without forming it.

    Parameters
    ----------
    A : array, sparse matrix or operator
        Of shape (m, n).
    U : array of shape (m, r)
        Left factor.
    V : array of shape (n, r)
        Right factor.

    See Also
    --------
    SumOperator, CenteredOperator

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import operators
    >>> A = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> u, v = np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])
    >>> operators.LowRankUpdate(A, u, v).matmat(np.eye(2))
    array([[1., 3.],
           [3., 4.]])
    """

    def __init__(self, A: Any, U: Array, V: Array) -> None:
        self.A = as_operator(A)
        self.arrays: Arrays = self.A.arrays
        self.shape: tuple[int, int] = self.A.shape
        m, n = self.shape
        if (
            U.ndim != 2
            or V.ndim != 2
            or U.shape[0] != m
            or V.shape[0] != n
            or U.shape[1] != V.shape[1]
        ):
            raise ValueError(
                f"factors have shapes {tuple(U.shape)} and {tuple(V.shape)}; for a matrix of shape "
                f"{self.shape} they must be ({m}, r) and ({n}, r)"
            )
        self._U, self._V = self.arrays.take(U), self.arrays.take(V)

    def _made_of(self) -> str:
        return f"{phrase(self.A)} and rank {self._U.shape[1]}"

    def matmat(self, X: Array) -> Array:
        """``A X + U (V^H X)``."""
        return self.A.matmat(X) + self._U @ self.arrays.adjoint_product(self._V, X)

    def rmatmat(self, X: Array) -> Array:
        """``A^H X + V (U^H X)``."""
        return self.A.rmatmat(X) + self._V @ self.arrays.adjoint_product(self._U, X)

    def size_of_parts(self) -> float:
        """``||A||_F + ||U||_F ||V||_F``."""
        return _size(self.A) + _norm(self.arrays, self._U) * _norm(self.arrays, self._V)

    def go(self, forward: str | None, backward: str | None) -> bool:
        """Choose for ``A``."""
        return self.A.go(forward, backward)

    def frobenius_norm(self, scale: float = 1.0) -> float | None:
        """``||A + U V^H||_F``; None if cancellation leaves too few digits."""
        base = self.A.frobenius_norm(scale)
        if base is None:
            return None
        U = self._U * scale
        cross = self.arrays.real_inner(U, self.A.matmat(self._V) * scale)
        gram_U = self.arrays.adjoint_product(U, U)
        gram_V = self.arrays.adjoint_product(self._V, self._V)
        square = self.arrays.real_inner(gram_U, gram_V)
        return _root_of_difference(self.arrays, [base**2, 2 * cross, square])


# Ratio of columns to rows from which basis vectors with n entries take more memory than a copy.
_LONG = 8
# Number of terms that the repr of a sum names.
_SHOWN = 3


def _size(op: MatrixOperator) -> float:
    """Frobenius norm of a part, or the sum of the norms of its parts; 0 if neither is known."""
    return op.size_of_parts() or op.frobenius_norm() or 0.0


def _norm(arrays: Arrays, X: Array) -> float:
    """Frobenius norm of an array; 0 if it has no columns."""
    return arrays.frobenius_norm(X, 1.0) if 0 not in tuple(X.shape) else 0.0


def _total(parts: list[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _root_of_difference(arrays: Arrays, terms: list[float]) -> float | None:
    """Square root of a sum; None if cancellation leaves fewer than three digits."""
    value = sum(terms)
    largest = max(abs(term) for term in terms)
    return math.sqrt(value) if value > 1e3 * arrays.eps * largest else None
