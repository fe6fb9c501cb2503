"""Leading triplets of a stack of matrices of one shape, by batched products.

Batched products are faster if a call costs about as much as its arithmetic: on devices, and for
small matrices.

Invariant: for returned triplets ``A^H u_i = s_i v_i`` holds to the returned residuals, and
``A v_i = s_i u_i`` to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import SINGLE
from trsvd._krylov.rayleigh_ritz import check_finite
from trsvd._plan.precision import FEW, in_single, lost_to_squares, resolved

# Largest size for which a batched factorization is faster than single ones; and the same for NumPy,
# whose batched products are a loop.
STACK_UP_TO, HOST_STACK_UP_TO = 512, 128
# Entries between the inverse of this power of two and itself are not scaled: their squares are in
# the range of float32.
_MODERATE = 20


@dataclass(frozen=True)
class Triplets:
    """Stack of triplets: U (b, m, p) and V (b, n, p) on the device, S (b, p) on the host."""

    U: Array
    S: HostArray
    V: Array

    @property
    def turned(self) -> Triplets:
        """Return the triplets of the adjoint."""
        return Triplets(self.V, self.S, self.U)


@dataclass(frozen=True)
class Settled:
    """Factorizations of some matrices of a stack.

    Attributes
    ----------
    places : array of int of shape (b,)
        Indices of the matrices in the stack.
    found : Triplets
        Their triplets, with the scale of the stack.
    residuals : array of shape (b, k)
        Residuals of the k leading triplets, relative to s_1.
    lost : array of shape (b,)
        Estimated relative error of the sum of the k values, by the Gram matrix.
    """

    places: HostArray
    found: Triplets
    residuals: HostArray
    lost: HostArray


class Stack:
    """Matrices of one shape, scaled by powers of two if squares of entries are out of range.

    Parameters
    ----------
    arrays : Arrays
        Array library of the matrices.
    A : array of shape (b, m, n)
        The matrices in the compute dtype; not modified.
    largest : array of shape (b,)
        Largest modulus of an entry of each matrix; finite.
    """

    def __init__(self, arrays: Arrays, A: Array, largest: HostArray) -> None:
        self.arrays = arrays
        exponents = np.where(largest > 0, np.frexp(largest)[1], 0)
        # (2**1023 is the largest power of two that singular values can be scaled back by.)
        exponents = np.where(np.abs(exponents) > _MODERATE, np.minimum(exponents, 1023), 0)
        # Two factors, as one factor can be out of the range of the dtype.
        half = exponents // 2
        for part in (half, exponents - half):
            if part.any():
                A = A * self.column(np.ldexp(1.0, -part))
        self.A, self.units = A, np.ldexp(1.0, exponents)
        self.shape = (int(A.shape[1]), int(A.shape[2]))

    def column(self, values: HostArray) -> Array:
        """Return one number for each matrix, in a shape for products with the stack."""
        return self.arrays.put(values)[:, None, None]

    def adjoint(self, X: Array) -> Array:
        """Return the conjugate transposes."""
        return self.arrays.conj(self.arrays.xp.matrix_transpose(X))

    def half(self, A: Array, X: Array) -> tuple[Array, HostArray, Array]:
        """Make a Rayleigh-Ritz step, ``A X W = Q diag(S)``; return ``Q, S, X W``."""
        arrays = self.arrays
        Q, R = arrays.xp.linalg.qr(self._product(A, X))
        host = arrays.get(R).astype(arrays.wide_dtype)
        check_finite(host)
        P, S, Wh = np.linalg.svd(host)
        W = np.conj(np.swapaxes(Wh, 1, 2))
        return Q @ arrays.put(P), S, X @ arrays.put(W)

    def norms(self) -> HostArray:
        """Return the Frobenius norms of the scaled matrices."""
        wide = self.arrays.in_double
        return wide.norms_of_stack(wide.take(self.A))

    def chosen(self, X: Array, places: HostArray) -> Array:
        """Return a stack of some of the matrices."""
        if len(places) == X.shape[0]:
            return X
        return self.arrays.xp.take(X, self.arrays.indices(places), axis=0)

    def leading(
        self, k: int, width: int, tol: float, norms: HostArray, *, through: bool
    ) -> Iterator[Settled]:
        """Yield leading triplets from full spectra, for matrices with sufficient residuals.

        If a Gram matrix in float32 is not accurate enough, one in double precision is tried.

        Parameters
        ----------
        k : int
            Number of requested triplets.
        width : int
            Number of computed triplets, at least k.
        tol : float
            Requested relative residual.
        norms : array of shape (b,)
            Norms of the scaled matrices, to a few digits.
        through : bool
            True: compute a full SVD if no Gram matrix resolves the k-th value.
        """
        arrays, (m, n) = self.arrays, self.shape
        A = self.A if m >= n else self.adjoint(self.A)
        places = np.arange(A.shape[0])
        routes = ["full"]
        if 4 * k <= min(m, n):
            single = ["single"] if in_single(arrays.eps, tol) else []
            routes = [*single, "double", *(routes if through else [])]
        for route in routes:
            double = route != "single"
            if route == "full":
                U, S, Vh = arrays.svds_of_stack(A)
                found = Triplets(U[:, :, :width], S[:, :width], self.adjoint(Vh[:, :width, :]))
            else:
                found = self._by_squares(A, width, double=double)
            S = found.S[:, :k]
            residuals = self._residuals(A, found, k, both=route == "full")
            residuals /= np.where(S[:, :1] > 0, S[:, :1], 1.0)
            good, lost = residuals.max(axis=1) <= tol, np.zeros(len(S))
            if route != "full":
                good &= resolved(S, norms[places], tol, arrays.eps, double=double)
                with np.errstate(divide="ignore", invalid="ignore"):
                    lost = lost_to_squares(S, double=double)
            which = np.flatnonzero(good)
            if len(which):
                parts = (self.chosen(X, which) for X in (found.U, found.V))
                chosen = Triplets(next(parts), found.S[which], next(parts))
                chosen = chosen if m >= n else chosen.turned
                yield Settled(places[which], chosen, residuals[which], lost[which])
            left = np.flatnonzero(~good)
            if not len(left):
                return
            A, places = self.chosen(A, left), places[left]

    def _by_squares(self, A: Array, width: int, *, double: bool) -> Triplets:
        """Compute triplets by the Gram matrices and one Rayleigh-Ritz step."""
        arrays = self.arrays
        V = arrays.gram_eigh_of_stack(A, width, double=double)
        rounded = not double and arrays.eps < SINGLE
        # (They are orthonormal to dozens of rounding units only.)
        if rounded or (width > 1 and (not double or A.shape[2] > FEW)):
            V = arrays.xp.linalg.qr(V)[0]
        return Triplets(*self.half(A, V))

    def _residuals(self, A: Array, found: Triplets, k: int, *, both: bool) -> HostArray:
        """Return ``||A^H u_i - s_i v_i||``, or the larger of both residuals with ``both``."""
        U, V = found.U[:, :, :k], found.V[:, :, :k]
        S = self.arrays.put(found.S[:, :k])[:, None, :]
        right = self._column_norms(self._product(self.adjoint(A), U) - V * S)
        return np.maximum(right, self._column_norms(self._product(A, V) - U * S)) if both else right

    def _product(self, A: Array, X: Array) -> Array:
        """Return the products ``A @ X`` of finite stacks; see `host_blas.dot` for NumPy."""
        with np.errstate(invalid="ignore"):
            return A @ X

    def _column_norms(self, X: Array) -> HostArray:
        size = self.arrays.xp.abs(X)
        squares = self.arrays.get(self.arrays.xp.sum(size * size, axis=1))
        return np.asarray(np.sqrt(squares.astype(np.float64)))
