"""Factorizations of small matrices, and of whole matrices by direct methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from trsvd._arrays.host_blas import add_gram, cholesky_inverse, leading_eigenvectors, thin_svd
from trsvd._arrays.reductions import Reductions, row_panels

Array = Any
HostArray = np.ndarray[Any, np.dtype[Any]]


class Factorizations(Reductions):
    """Factorizations of small matrices, in the namespace, device and dtype of `Arrays`."""

    device: Any

    if TYPE_CHECKING:

        @property
        def eps(self) -> float: ...

        @property
        def in_double(self) -> Any: ...

        @property
        def in_single(self) -> Any: ...

        def put(self, x: HostArray) -> Array: ...

        def like(self, X: Array) -> Array: ...

        def conj(self, X: Array) -> Array: ...

        def adjoint_product(self, A: Array, X: Array) -> Array: ...

    def cholesky_inverse(self, G: Array) -> tuple[Array, Array] | None:
        """Return ``L`` and ``L^-1`` of ``G = L L^H``; None if G is numerically singular.

        G is the Gram matrix of unit columns X. Otherwise the columns of ``X L^-H`` are orthonormal
        to a few digits, so that a second pass is sufficient.
        """
        if not self.reads_are_cheap:
            return None
        host = self.get(G)
        factors = cholesky_inverse(host)
        if factors is None or not np.abs(np.diagonal(factors[0])).min() > 30 * self.eps**0.5:
            return None
        return self.put(factors[0]), self.put(factors[1])

    def eigh(self, G: Array) -> tuple[Array, Array]:
        """Eigenvalues, descending, and eigenvectors of a small Hermitian matrix on the device."""
        try:  # NaN gives NaN, as on a GPU; the caller reports it
            values, vectors = self.xp.linalg.eigh(G)
        except (RuntimeError, np.linalg.LinAlgError):
            values, vectors = self.xp.real(G[:, 0]) * float("nan"), G * float("nan")
        return self.xp.flip(values, axis=0), self.xp.flip(vectors, axis=1)

    def svd(self, A: Array) -> tuple[Array, HostArray, Array]:
        """Thin SVD by the library's own LAPACK; S is returned on the host."""
        if self.on_host:
            U, S, Vh = thin_svd(A)
        else:
            U, S, Vh = self.xp.linalg.svd(A, full_matrices=False)
        return U, self.get(S).astype(np.float64), Vh

    def gram(self, A: Array, *, double: bool = True) -> Array:
        """Return ``A^H A``, formed by row panels; on the host its lower triangle, in Fortran order.

        The default is double precision, since small eigenvalues lose half of their digits.
        """
        n, wide = A.shape[1], self.in_double if double else self.in_single
        G = wide.zeros(n, n).T
        for panel in row_panels(A, least=n):
            panel = wide.take(panel)
            G = add_gram(panel, G) if wide.on_host else G + wide.adjoint_product(panel, panel)
        return G

    def gram_eigh(self, G: Array, k: int) -> Array:
        """Return eigenvectors of a result of `gram`, for the k largest eigenvalues, descending."""
        if not (self.reads_are_cheap or isinstance(G, np.ndarray)):
            _, vectors = self.xp.linalg.eigh(G)
            return self.like(self.xp.flip(vectors[:, -k:], axis=1))
        return self.put(_leading(self.get(G), k))

    def svds_of_stack(self, A: Array) -> tuple[Array, HostArray, Array]:
        """`svd` of each matrix of a stack: shapes (b, m, r), (b, r) and (b, r, n)."""
        if self.on_host:
            U, S, Vh = (np.stack(parts) for parts in zip(*map(thin_svd, A), strict=True))
        else:
            U, S, Vh = self.xp.linalg.svd(A, full_matrices=False)
        return U, self.get(S).astype(np.float64), Vh

    def gram_eigh_of_stack(self, A: Array, k: int, *, double: bool) -> Array:
        """`gram_eigh` of the `gram` of each matrix of a stack, of shape (b, n, k)."""
        xp = self.xp
        if self.on_host:
            grams: Any = (self.gram(B, double=double) for B in A)
        else:
            wide = self.in_double if double else self.in_single
            B = wide.take(A)
            grams = wide.conj(wide.xp.matrix_transpose(B)) @ B
            if not wide.reads_are_cheap:
                _, vectors = xp.linalg.eigh(grams)
                return self.like(xp.flip(vectors[:, :, -k:], axis=2))
            grams = wide.get(grams)
        # Each in Fortran order, as LAPACK returns them.
        rows = self.put(np.stack([_leading(G, k).T for G in grams]))
        return xp.matrix_transpose(rows)


def _leading(G: HostArray, k: int) -> HostArray:
    """Return eigenvectors of the k largest eigenvalues of a Hermitian matrix, descending."""
    vectors = leading_eigenvectors(G, k)
    # LAPACK's selection by index can miss eigenvalues of a cluster, or fail.
    if vectors.shape[1] < k:
        _, vectors = scipy.linalg.eigh(G, check_finite=False, driver="evd")
    return vectors[:, -k:][:, ::-1]
