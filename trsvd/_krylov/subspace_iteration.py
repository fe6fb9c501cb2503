"""Subspace iteration with Rayleigh-Ritz, the kernel of RSVD and of block power iteration.

Invariant after every half step that ends in `ritz_*`: U and V have orthonormal columns, S is
descending, and

    after `multiply`:          A V = U S     (to rounding)
    after `multiply_adjoint`:  A^H U = V S   (to rounding)

so that one side of each residual is zero and the other becomes known with the next product.
"""

from __future__ import annotations

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.basis import Columns, SpareVectors, orthonormalize
from trsvd._krylov.rayleigh_ritz import check_finite, small_svd
from trsvd.operators.counting import Metered


class Subspace:
    """A block of approximate singular vectors on both sides.

    Parameters
    ----------
    op : Metered
        The operator, m x n.
    start : array of shape (n, w), or (m, w)
        Right vectors to start from, or left ones.
    rng : numpy.random.Generator
        Source of replacement vectors.
    left : bool
        Whether they are left vectors; `multiply_adjoint` comes first then.
    """

    def __init__(
        self, op: Metered, start: Array, rng: np.random.Generator, *, left: bool = False
    ) -> None:
        arrays = op.arrays
        m, n = op.shape
        self.arrays = arrays
        width = int(start.shape[1])
        self.spare_n = SpareVectors(arrays, rng, n, width)
        self.spare_m = SpareVectors(arrays, rng, m, width)
        self.U: Array = None
        self.V: Array = None
        if left:
            self.U, _, _ = orthonormalize(arrays, start, None, floor=0.0, spare=self.spare_m)
        else:
            self.V, _, _ = orthonormalize(arrays, start, None, floor=0.0, spare=self.spare_n)
        self.S: HostArray | None = None
        # Residual norms of the triplets before the last half step, absolute.
        self.residuals: HostArray | None = None

    def multiply(self, op: Metered) -> None:
        """``A V``: the left vectors, and the residuals of what stood before."""
        self.U, self.V = self._half(op.matmat, self.V, self.U, self.spare_m)

    def multiply_adjoint(self, op: Metered) -> None:
        """``A^H U``: the right vectors, and the residuals of what stood before."""
        self.V, self.U = self._half(op.rmatmat, self.U, self.V, self.spare_n)

    def _half(
        self, product: object, X: Array, other: Array | None, spare: SpareVectors
    ) -> tuple[Array, Array]:
        """Rayleigh-Ritz with the product ``Y`` of ``X``: new other side, rotated X."""
        arrays = self.arrays
        Y = product(X)  # type: ignore[operator]
        if self.S is not None:
            remainder = Y - other * arrays.put(self.S)[None, :]
            self.residuals = arrays.get(arrays.column_norms(remainder)).astype(np.float64)
        norms = arrays.get(arrays.column_norms(Y))
        check_finite(norms)
        floor = 4 * arrays.eps * float(norms.max())
        Q, _, R = orthonormalize(arrays, Y, None, floor=floor, spare=spare)
        P, S, Wh = small_svd(arrays.get(R).astype(arrays.wide_dtype))
        self.S = S
        return arrays.product(Q, arrays.put(P)), arrays.product(X, arrays.put(Wh.conj().T))

    def copy(self) -> Subspace:
        """An independent copy."""
        twin = Subspace.__new__(Subspace)
        twin.__dict__.update(self.__dict__)
        twin.spare_n, twin.spare_m = self.spare_n.copy(), self.spare_m.copy()
        return twin

    def widen(self, width: int, rng: np.random.Generator) -> None:
        """Add random columns on the right; the left side has to be multiplied anew."""
        arrays, n = self.arrays, self.V.shape[0]
        self.spare_n = SpareVectors(arrays, rng, n, width)
        self.spare_m = SpareVectors(arrays, rng, self.spare_m.length, width)
        columns = Columns(arrays, n, width)
        columns.append(self.V)
        fresh, _, _ = orthonormalize(
            arrays,
            arrays.gaussian(rng, n, width - int(self.V.shape[1])),
            self.V,
            floor=0.0,
            spare=self.spare_n,
        )
        columns.append(fresh)
        self.V, self.U, self.S, self.residuals = columns.view(), None, None, None
