"""Leading triplets of many matrices of one shape, stacked and multiplied together.

Where a call costs about as much as the arithmetic, on a device or of small matrices, one set of
batched products takes the place of many.

Invariant: of triplets that are handed out ``A^H u_i = s_i v_i`` holds to the residuals beside them,
and ``A v_i = s_i u_i`` to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import SINGLE
from trsvd._krylov.rayleigh_ritz import check_finite
from trsvd._plan.precision import FEW, in_single, lost_to_squares, resolved

# Beyond this a batched factorization is no better than one at a time; of NumPy's, whose batched
# products are a loop as well, beyond the other.
STACK_UP_TO, HOST_STACK_UP_TO = 512, 128
# Entries are left as they are up to this power of two, and down to its inverse: squares of them
# stay in the range of float32.
_MODERATE = 20


@dataclass(frozen=True)
class Triplets:
    """A stack of triplets: U (b, m, p) and V (b, n, p) on the device, S (b, p) on the host."""

    U: Array
    S: HostArray
    V: Array

    @property
    def turned(self) -> Triplets:
        """Those of the adjoint."""
        return Triplets(self.V, self.S, self.U)


@dataclass(frozen=True)
class Settled:
    """Factorizations of some matrices of a stack.

    Attributes
    ----------
    places : array of int of shape (b,)
        Which.
    found : Triplets
        Of these, as the stack is scaled.
    residuals : array of shape (b, k)
        Of the k leading ones, relative to s_1.
    lost : array of shape (b,)
        About how much the sum of the k values misses, relative, since squares misjudge them.
    """

    places: HostArray
    found: Triplets
    residuals: HostArray
    lost: HostArray


class Stack:
    """Matrices of one shape, scaled by powers of two where entries are not of moderate size.

    Parameters
    ----------
    arrays : Arrays
        What they live in.
    A : array of shape (b, m, n)
        In the compute dtype; never written to.
    largest : array of shape (b,)
        Largest entry of each, in modulus; finite.
    """

    def __init__(self, arrays: Arrays, A: Array, largest: HostArray) -> None:
        self.arrays = arrays
        exponents = np.where(largest > 0, np.frexp(largest)[1], 0)
        # (2**1023 is the largest power of two that singular values can be scaled back by.)
        exponents = np.where(np.abs(exponents) > _MODERATE, np.minimum(exponents, 1023), 0)
        # Two factors: one alone can leave the range of the dtype.
        half = exponents // 2
        for part in (half, exponents - half):
            if part.any():
                A = A * self.column(np.ldexp(1.0, -part))
        self.A, self.units = A, np.ldexp(1.0, exponents)
        self.shape = (int(A.shape[1]), int(A.shape[2]))

    def column(self, values: HostArray) -> Array:
        """One number for each matrix, to multiply a stack by."""
        return self.arrays.put(values)[:, None, None]

    def adjoint(self, X: Array) -> Array:
        """Conjugate transposes."""
        return self.arrays.conj(self.arrays.xp.matrix_transpose(X))

    def half(self, A: Array, X: Array) -> tuple[Array, HostArray, Array]:
        """Rayleigh-Ritz with one batched product: ``A X W = Q diag(S)``, as ``Q, S, X W``."""
        arrays = self.arrays
        Q, R = arrays.xp.linalg.qr(self._product(A, X))
        host = arrays.get(R).astype(arrays.wide_dtype)
        check_finite(host)
        P, S, Wh = np.linalg.svd(host)
        W = np.conj(np.swapaxes(Wh, 1, 2))
        return Q @ arrays.put(P), S, X @ arrays.put(W)

    def norms(self) -> HostArray:
        """Frobenius norms of the scaled matrices."""
        wide = self.arrays.in_double
        return wide.norms_of_stack(wide.take(self.A))

    def chosen(self, X: Array, places: HostArray) -> Array:
        """A stack of some of the matrices."""
        if len(places) == X.shape[0]:
            return X
        return self.arrays.xp.take(X, self.arrays.indices(places), axis=0)

    def leading(
        self, k: int, width: int, tol: float, norms: HostArray, *, through: bool
    ) -> Iterator[Settled]:
        """The leading triplets from whole spectra, of those matrices whose residuals suffice.

        What squares in float32 do not tell, or not to the tolerance, those in double precision may.

        Parameters
        ----------
        k : int
            What is judged.
        width : int
            How many are computed, at least k.
        tol : float
            Relative residual asked for.
        norms : array of shape (b,)
            Of the scaled matrices, to a few digits.
        through : bool
            Whether a full SVD follows of those whose k-th value no squares tell.
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
        """By the Gram matrices of all, and one Rayleigh-Ritz step."""
        arrays = self.arrays
        V = arrays.gram_eigh_of_stack(A, width, double=double)
        rounded = not double and arrays.eps < SINGLE
        # (They are orthonormal to some dozen units only.)
        if rounded or (width > 1 and (not double or A.shape[2] > FEW)):
            V = arrays.xp.linalg.qr(V)[0]
        return Triplets(*self.half(A, V))

    def _residuals(self, A: Array, found: Triplets, k: int, *, both: bool) -> HostArray:
        """``||A^H u_i - s_i v_i||``, or the larger of ``both``: one may hold by construction."""
        U, V = found.U[:, :, :k], found.V[:, :, :k]
        S = self.arrays.put(found.S[:, :k])[:, None, :]
        right = self._column_norms(self._product(self.adjoint(A), U) - V * S)
        return np.maximum(right, self._column_norms(self._product(A, V) - U * S)) if both else right

    def _product(self, A: Array, X: Array) -> Array:
        """``A @ X``, finite, each; for what NumPy may make of rows of five, see `_lapack.dot`."""
        with np.errstate(invalid="ignore"):
            return A @ X

    def _column_norms(self, X: Array) -> HostArray:
        size = self.arrays.xp.abs(X)
        squares = self.arrays.get(self.arrays.xp.sum(size * size, axis=1))
        return np.asarray(np.sqrt(squares.astype(np.float64)))
