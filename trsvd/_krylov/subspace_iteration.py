"""Subspace iteration with Rayleigh-Ritz, the kernel of RSVD and of power iteration.

Invariant after every half step that ends in `ritz_*`: U and V have orthonormal columns, S is
descending, and

    after `multiply`:          A V = U S     (to rounding)
    after `multiply_adjoint`:  A^H U = V S   (to rounding)

so that one side of each residual is zero, and the next product gives the other.
"""

from __future__ import annotations

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.basis import Columns, RandomVectors, orthonormalize
from trsvd._krylov.rayleigh_ritz import check_finite, small_svd
from trsvd.operators.counting import Metered


class Subspace:
    """Block of approximate left and right singular vectors.

    Parameters
    ----------
    op : Metered
        The operator, m x n.
    start : array of shape (n, w), or (m, w)
        Right or left vectors as a start.
    rng : numpy.random.Generator
        Source of replacement vectors.
    left : bool
        True if they are left vectors; then `multiply_adjoint` is called first.
    """

    def __init__(
        self, op: Metered, start: Array, rng: np.random.Generator, *, left: bool = False
    ) -> None:
        arrays = op.arrays
        m, n = op.shape
        self.arrays = arrays
        width = int(start.shape[1])
        self.random_n = RandomVectors(arrays, rng, n, width)
        self.random_m = RandomVectors(arrays, rng, m, width)
        self.U: Array = None
        self.V: Array = None
        if left:
            self.U, _, _ = orthonormalize(
                arrays, start, None, floor=0.0, replacements=self.random_m
            )
        else:
            self.V, _, _ = orthonormalize(
                arrays, start, None, floor=0.0, replacements=self.random_n
            )
        self.S: HostArray | None = None
        # Residual norms of the triplets before the last half step, absolute.
        self.residuals: HostArray | None = None

    def multiply(self, op: Metered) -> None:
        """Compute the left vectors from ``A V``, and residuals of the previous triplets."""
        self.U, self.V = self._half(op.matmat, self.V, self.U, self.random_m)

    def multiply_adjoint(self, op: Metered) -> None:
        """Compute the right vectors from ``A^H U``, and residuals of the previous triplets."""
        self.V, self.U = self._half(op.rmatmat, self.U, self.V, self.random_n)

    def _half(
        self, product: object, X: Array, other: Array | None, replacements: RandomVectors
    ) -> tuple[Array, Array]:
        """Make a Rayleigh-Ritz step with the product ``Y`` of ``X``; return both sides."""
        arrays = self.arrays
        Y = product(X)  # type: ignore[operator]
        if self.S is not None:
            remainder = Y - other * arrays.put(self.S)[None, :]
            self.residuals = arrays.get(arrays.column_norms(remainder)).astype(np.float64)
        norms = arrays.get(arrays.column_norms(Y))
        check_finite(norms)
        floor = 4 * arrays.eps * float(norms.max())
        Q, _, R = orthonormalize(arrays, Y, None, floor=floor, replacements=replacements)
        P, S, Wh = small_svd(arrays.get(R).astype(arrays.wide_dtype))
        self.S = S
        return arrays.product(Q, arrays.put(P)), arrays.product(X, arrays.put(Wh.conj().T))

    def copy(self) -> Subspace:
        """Return an independent copy."""
        twin = Subspace.__new__(Subspace)
        twin.__dict__.update(self.__dict__)
        twin.random_n, twin.random_m = self.random_n.copy(), self.random_m.copy()
        return twin

    def widen(self, width: int, rng: np.random.Generator) -> None:
        """Add random columns to V; the left side must be computed again."""
        arrays, n = self.arrays, self.V.shape[0]
        self.random_n = RandomVectors(arrays, rng, n, width)
        self.random_m = RandomVectors(arrays, rng, self.random_m.length, width)
        columns = Columns(arrays, n, width)
        columns.append(self.V)
        fresh, _, _ = orthonormalize(
            arrays,
            arrays.gaussian(rng, n, width - int(self.V.shape[1])),
            self.V,
            floor=0.0,
            replacements=self.random_n,
        )
        columns.append(fresh)
        self.V, self.U, self.S, self.residuals = columns.view(), None, None, None
