"""Centred arrays on the host, without a centred copy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import type_name
from trsvd._arrays.host_blas import add_gram
from trsvd.operators.base import MatrixOperator

# Bytes of a panel, which stays in the second-level cache.
_PANEL = 1 << 20


class CenteredArray(MatrixOperator):
    """``A - 1 mu^T`` of a real array on the host.

    The mean is subtracted from the entries, one panel after the other, so that nothing cancels. If
    the mean is no larger than the rest, it is subtracted from products, which takes less time. Sums
    over panels are in double precision.

    Parameters
    ----------
    arrays : Arrays
        Namespace and dtype of the array.
    A : numpy.ndarray of shape (m, n)
        The array.
    mean : numpy.ndarray of shape (n,)
        Row that is subtracted from every row.
    is_mean : bool
        True if ``mean`` is the mean of the rows to rounding. The rest of the mean is subtracted
        too, unless it is negligible.

    Notes
    -----
    One pass over the array, which forms the Gram matrix of the shorter side in its precision.
    """

    forms_gram = True

    def __init__(self, arrays: Arrays, A: HostArray, mean: HostArray, *, is_mean: bool) -> None:
        self.arrays, self._entries = arrays, A
        m, n = A.shape
        self.shape = (m, n)
        self._turned, self._is_mean = n > m, is_mean
        self._shifts = [mean]
        self.mean: HostArray = mean.astype(np.float64)
        self._gram = np.zeros((min(m, n), min(m, n)), A.dtype, order="F")
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            self._measure()

    def _measure(self) -> None:
        """Compute the Gram matrix, the norm, and the rest of the mean, in one pass."""
        m, n = self.shape
        squares, sums = 0.0, np.zeros(n)
        for _, P in self._panels():
            self._gram = add_gram(P, self._gram)
            squares += float(np.einsum("ij,ij->i", P, P).sum(dtype=np.float64))
            if not self._turned:
                sums += np.ones(len(P), P.dtype) @ P
        self._norm = math.sqrt(squares)
        if self._is_mean and not self._turned:
            self._subtract_rest(sums / m)
        size = math.sqrt(m) * float(np.linalg.norm(self.mean))
        self._cancels = len(self._shifts) > 1 or not size <= self._norm

    def _subtract_rest(self, rest: HostArray) -> None:
        """Subtract the mean of the centred rows, which is a rounding error of the mean."""
        m = self.shape[0]
        self.mean += rest
        square = m * float(rest @ rest)
        if square > (self.arrays.eps * self._norm) ** 2:
            rest = rest.astype(self._gram.dtype)
            self._shifts.append(rest)
            self._gram -= m * np.outer(rest, rest)
            self._norm = math.sqrt(max(self._norm**2 - square, 0.0))

    def _made_of(self) -> str:
        return type_name(self._entries)

    def _panels(self, *, centred: bool = True) -> Iterator[tuple[slice, HostArray]]:
        """Yield panels of rows of this matrix, or of its transpose if that is tall.

        A centred panel is overwritten by the next one.
        """
        T = self._entries.T if self._turned else self._entries
        # (At least square, since all of the Gram matrix is read for each panel.)
        rows = min(len(T), max(T.shape[1], _PANEL // (T.shape[1] * T.itemsize)))
        room = np.empty((rows, T.shape[1]), T.dtype, order="C" if T.flags.c_contiguous else "F")
        for start in range(0, len(T), rows):
            part = slice(start, start + rows)
            P = T[part]
            for shift in self._shifts if centred else ():
                row = shift[part, None] if self._turned else shift
                P = np.subtract(P, row, out=room[: len(P)])
            if centred and self._turned and self._is_mean:  # the mean was rounded
                P -= P.mean(axis=1, keepdims=True)
            yield part, P

    def _stacked(self, X: Array) -> Array:
        """Product of the tall matrix."""
        Y = np.empty((max(self.shape), X.shape[1]), X.dtype)
        for part, P in self._panels(centred=self._cancels):
            Y[part] = self.arrays.product(P, X)
        return Y

    def _summed(self, X: Array) -> Array:
        """Product of the transpose of the tall matrix."""
        total = np.zeros((min(self.shape), X.shape[1]))
        for part, P in self._panels(centred=self._cancels):
            total += self.arrays.product(P.T, X[part])
        return self.arrays.like(total)

    def matmat(self, X: Array) -> Array:
        """``(A - 1 mu^T) X``."""
        Y = self._summed(X) if self._turned else self._stacked(X)
        if not self._cancels:
            Y -= self._shifts[0] @ X
        return Y

    def rmatmat(self, X: Array) -> Array:
        """``(A - 1 mu^T)^T X``."""
        Y = self._stacked(X) if self._turned else self._summed(X)
        if not self._cancels:
            sums = X.sum(axis=0, dtype=np.float64).astype(X.dtype)
            Y -= self._shifts[0][:, None] * sums
        return Y

    def gram_by_panels(self, *, double: bool) -> Array:
        """Return the Gram matrix of the shorter side, as `Arrays.gram`."""
        side, dtype = min(self.shape), np.float64 if double else np.float32
        if self._gram.dtype == dtype:
            return self._gram
        G = np.zeros((side, side), dtype, order="F")
        for _, P in self._panels():
            G = add_gram(P.astype(dtype, copy=False), G)
        return G

    def max_abs(self) -> float:
        """Return the largest modulus of an entry."""
        return max(self.arrays.max_abs(P) for _, P in self._panels())

    def rough_norm(self) -> float | None:
        """``||A - 1 mu^T||_F``; None if squares of entries may be out of range."""
        return self._norm if self._is_moderate else None

    def frobenius_norm(self, scale: float = 1.0) -> float:
        """``||scale (A - 1 mu^T)||_F``."""
        if self._is_moderate:
            return self._norm * scale
        return self.arrays.frobenius_norm(self.dense(), scale)

    @property
    def _is_moderate(self) -> bool:
        """True if squares of entries are in the range of float32."""
        return 1e-15 * math.sqrt(math.prod(self.shape)) < self._norm < 1e15

    def dense(self) -> Array:
        """Return a centred copy."""
        m, n = self.shape
        self.arrays.check_room(2 * m * n, f"the {m} x {n} matrix as an array")
        X = self._entries - self._shifts[0]
        if self._is_mean:  # which was rounded
            X -= X.mean(axis=0, dtype=np.float64).astype(X.dtype)
        return X
