"""Rayleigh-Ritz: approximate triplets from small matrices, and their residuals.

Small matrices are on the host in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import SINGLE
from trsvd._arrays.host_blas import eigh, thin_svd, tridiagonal_eigh
from trsvd._krylov.basis import RandomVectors, orthonormalize
from trsvd.operators.base import MatrixOperator
from trsvd.operators.counting import Metered

# Products A v with cosines up to this, in units of eps, count as orthogonal.
_ORTHOGONAL = 8


@dataclass(frozen=True)
class Ritz:
    """Singular values of a projected matrix, descending, and residuals of their triplets.

    Attributes
    ----------
    S : array of shape (j,)
        Ritz values: lower bounds of the singular values with the same index.
    residuals : array of shape (j,)
        Absolute residual norms from the recurrence.
    couplings : array of shape (w, j) or None
        Couplings of the last product of w vectors to the projection, if the method has them.
    history : tuple (B, C, w) or None
        After at least two expansions by blocks of w vectors: the projected matrix in the order of
        its growth, and its last couplings. Leading submatrices are earlier projections.
    """

    S: HostArray
    residuals: HostArray
    couplings: HostArray | None = None
    history: tuple[HostArray, HostArray, int] | None = None

    @cached_property
    def latest(self) -> HostArray | None:
        """Ritz values one product later than S, as extraction returns them."""
        if self.couplings is None:
            return None
        _, latest, _ = small_svd(np.hstack([np.diag(self.S), self.couplings.conj().T]))
        return latest

    @property
    def scale(self) -> float:
        """Largest Ritz value, a lower bound of the norm of A."""
        return float(self.S[0]) if len(self.S) else 0.0

    def times(self, unit: float) -> Ritz:
        """Return the values for a matrix multiplied by ``unit``."""
        if unit == 1:
            return self
        K = None if self.couplings is None else self.couplings * unit
        history = self.history
        if history is not None:
            history = (history[0] * unit, history[1] * unit, history[2])
        with np.errstate(over="ignore"):  # values that overflow are refused when they are returned
            S, residuals = self.S * unit, self.residuals * unit
        return replace(self, S=S, residuals=residuals, couplings=K, history=history)


def small_svd(B: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """Return the thin SVD of a small host matrix: P, S (descending), Qh.

    Raises
    ------
    ValueError
        If B is not finite, because products with A were not.
    """
    check_finite(B)
    if 0 in B.shape:
        return np.zeros((len(B), 0)), np.zeros(0), np.zeros((0, B.shape[1]))
    return thin_svd(B)


def small_eigh(T: HostArray, *, tridiagonal: bool = False) -> tuple[HostArray, HostArray]:
    """Return eigenvalues (descending) and eigenvectors of a small Hermitian host matrix.

    ``tridiagonal``: only three diagonals are read.

    Raises
    ------
    ValueError
        If T is not finite.
    """
    check_finite(T)
    solved = tridiagonal_eigh(T) if tridiagonal else None
    values, vectors = eigh(T) if solved is None else solved
    return values[::-1], vectors[:, ::-1]


def check_finite(B: HostArray) -> None:
    """Raise ValueError if numbers from products with A are not finite."""
    if not np.isfinite(B).all():
        raise ValueError(
            "a product with A (or its adjoint) returned NaN or inf in the middle of the "
            "computation; find it in A, or scale A down"
        )


def rayleigh_ritz(
    op: MatrixOperator,
    V: Array,
    rng: np.random.Generator | None,
    k: int,
    *,
    skew: bool = False,
    coarse: bool = False,
) -> tuple[Array, HostArray, Array]:
    """Return the best k triplets with right vectors in the span of the orthonormal ``V``.

    This takes one product with V. ``A v_i = s_i u_i`` holds to rounding. Random vectors replace
    vanishing left ones; without ``rng`` they are always the same. ``skew``: V is orthonormal to
    dozens of rounding units only, and is orthonormalized first, since its error times ``s_1 / s_i``
    would be a residual. ``coarse``: V has a lower precision than A, so that products are not
    orthogonal.
    """
    arrays = op.arrays
    if skew:
        V = _straightened(arrays, V, rng)
    Y = op.matmat(V)
    norms, G, orthogonal = _norms(arrays, Y, look=not coarse)
    if orthogonal:
        # The error of the values is then s_1 times the cosines.
        if (norms[1:] > norms[:-1]).any():
            order = np.argsort(-norms, kind="stable")
            norms, places = norms[order], arrays.indices(order)
            Y, V = (arrays.xp.take(X, places, axis=1) for X in (Y, V))
        U = Y / arrays.put(norms)
        return U[:, :k], norms[:k].astype(np.float64, copy=False), V[:, :k]
    if G is not None and arrays.eps >= SINGLE:
        S, W = _rotation(G, norms)
        if len(S):
            U = arrays.product(Y, arrays.put(W[:, :k] / S[:k]))
            return U, S[:k], arrays.product(V, arrays.put(W[:, :k]))
    floor = arrays.eps * float(norms.max())
    rng = np.random.default_rng(0) if rng is None else rng
    replacements = RandomVectors(arrays, rng, op.shape[0], int(V.shape[1]))
    Q, _, R = orthonormalize(arrays, Y, None, floor=floor, replacements=replacements)
    P, S, Wh = small_svd(arrays.get(R).astype(arrays.wide_dtype))
    W = Wh.conj().T
    U = arrays.product(Q, arrays.put(P[:, :k]))
    return U, S[:k], arrays.product(V, arrays.put(W[:, :k]))


def _straightened(arrays: Arrays, V: Array, rng: np.random.Generator | None) -> Array:
    """Orthonormalize columns that are orthonormal to dozens of rounding units.

    A Newton step for the polar factor: an error E of ``V^H V`` becomes ``E^2``.
    """
    w = int(V.shape[1])
    E = arrays.adjoint_product(V, V) - arrays.put(np.eye(w))
    if np.linalg.norm(arrays.get(E)) < 0.5 * arrays.eps**0.5:
        return V - arrays.product(V, E / 2)
    rng = np.random.default_rng(0) if rng is None else rng
    replacements = RandomVectors(arrays, rng, int(V.shape[0]), w)
    return orthonormalize(arrays, V, None, floor=0.0, replacements=replacements)[0]


def _rotation(G: HostArray, norms: HostArray) -> tuple[HostArray, HostArray]:
    """Return singular values and right vectors of Y, by its Gram matrix in double precision.

    Both are empty if ``Y W / S`` would not be orthonormal to rounding: if the Gram matrix does not
    resolve the least value, or if long columns cancel.
    """
    values, W = small_eigh(G)
    if values[-1] > 1e-8 * values[0]:
        S = np.sqrt(values)
        if (norms @ np.abs(W) < 4 * S).all():
            return S, W
    return norms[:0], W[:, :0]


def _norms(arrays: Arrays, Y: Array, *, look: bool) -> tuple[HostArray, HostArray | None, bool]:
    """Return norms of the columns, their Gram matrix, and True if they are orthogonal and not zero.

    The norms are computed by a product, since sums of long columns lose dozens of rounding units in
    float32.
    """
    if Y.shape[1] == 1 or not look:
        norms = arrays.get(arrays.column_norms(Y))
        check_finite(norms)
        return norms, None, len(norms) == 1 and bool(norms[0] > 0)
    G = arrays.get(arrays.adjoint_product(Y, Y)).astype(arrays.wide_dtype)
    norms = np.sqrt(G.diagonal().real)
    check_finite(norms)
    large = np.abs(G) > (_ORTHOGONAL * arrays.eps * norms) * norms[:, None]
    alone = np.count_nonzero(large) == len(norms)  # each with itself
    return norms, G, alone and bool(norms.all())


def orthogonality_loss(arrays: Arrays, U: Array, V: Array) -> float:
    """Return the largest modulus in ``U^H U - I`` and ``V^H V - I``, by one transfer."""
    products = [arrays.adjoint_product(X, X) for X in (U, V)]
    G = arrays.get(arrays.xp.stack(products))
    return float(np.abs(G - np.eye(G.shape[-1])).max(initial=0.0))


def residual_blocks(
    op: Metered, U: Array, S: HostArray, V: Array, *, exact: str | None = None
) -> tuple[Array | None, Array | None]:
    """Return ``A V - U S`` and ``A^H U - V S``, by 2 k products with A.

    If ``exact`` names a side that was computed as a product with the other, k products are made,
    and its block is None.
    """
    s = op.arrays.put(S)[None, :]
    left = op.matmat(V) - U * s if exact != "left" else None
    right = op.rmatmat(U) - V * s if exact != "right" else None
    return left, right


def residual_norms(arrays: Arrays, blocks: tuple[Array | None, Array | None]) -> HostArray:
    """Return ``max(||A v_i - s_i u_i||, ||A^H u_i - s_i v_i||)`` from `residual_blocks`."""
    norms = [arrays.column_norms(block) for block in blocks if block is not None]
    if len(norms) == 1:
        return arrays.get(norms[0]).astype(np.float64)
    return np.maximum(*_both(arrays, *norms))


def _both(arrays: Arrays, left: Array, right: Array) -> tuple[HostArray, HostArray]:
    """Copy two device vectors to the host, in one transfer."""
    both = arrays.get(arrays.xp.stack([left, right])).astype(np.float64)
    return both[0], both[1]
