"""Rayleigh-Ritz: from small matrices to approximate triplets, and how wrong these are.

Small matrices live on the host in double precision; `small_svd` is the one factorization that
the Krylov kernels need of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import SINGLE
from trsvd._arrays.host_blas import eigh, thin_svd, tridiagonal_eigh
from trsvd._krylov.basis import SpareVectors, orthonormalize
from trsvd.operators.base import MatrixOperator
from trsvd.operators.counting import Metered

# Products A v with so small cosines between them, in units of eps, are left as they are.
_ORTHOGONAL = 8


@dataclass(frozen=True)
class Ritz:
    """Singular values of a projected matrix, descending, and residuals of their triplets.

    Attributes
    ----------
    S : array of shape (j,)
        Ritz values: lower bounds of the singular values with the same index.
    residuals : array of shape (j,)
        Residual norms, absolute, as the recurrence has them.
    couplings : array of shape (w, j) or None
        Where the method has them: what the last product, of w vectors, adds to the projection.
    trail : tuple (B, C, w) or None
        After two whole expansions by blocks of w vectors: the projected matrix in the order in
        which it grew, and its last couplings. What was known earlier stands in its corners.
    """

    S: HostArray
    residuals: HostArray
    couplings: HostArray | None = None
    trail: tuple[HostArray, HostArray, int] | None = None

    @cached_property
    def latest(self) -> HostArray | None:
        """Ritz values one product later than S: what extraction returns."""
        if self.couplings is None:
            return None
        _, latest, _ = small_svd(np.hstack([np.diag(self.S), self.couplings.conj().T]))
        return latest

    @property
    def scale(self) -> float:
        """The largest Ritz value: a lower bound of the norm of A."""
        return float(self.S[0]) if len(self.S) else 0.0

    def times(self, unit: float) -> Ritz:
        """The same for a matrix multiplied by ``unit``."""
        if unit == 1:
            return self
        K = None if self.couplings is None else self.couplings * unit
        trail = self.trail
        if trail is not None:
            trail = (trail[0] * unit, trail[1] * unit, trail[2])
        with np.errstate(over="ignore"):  # who hands them out refuses them by name
            S, residuals = self.S * unit, self.residuals * unit
        return replace(self, S=S, residuals=residuals, couplings=K, trail=trail)


def small_svd(B: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """Thin SVD of a small host matrix: P, S (descending), Qh.

    Raises
    ------
    ValueError
        If B is not finite: the products with A that it was made of were not.
    """
    check_finite(B)
    if 0 in B.shape:
        return np.zeros((len(B), 0)), np.zeros(0), np.zeros((0, B.shape[1]))
    return thin_svd(B)


def small_eigh(T: HostArray, *, tridiagonal: bool = False) -> tuple[HostArray, HostArray]:
    """Eigenvalues (descending) and eigenvectors of a small Hermitian host matrix.

    Of one that is ``tridiagonal`` to rounding only three diagonals are looked at.

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
    """ValueError if numbers made from products with A are not finite."""
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
    """The best k triplets with right vectors in the span of the orthonormal ``V``.

    One product with A, of V's width. ``A v_i = s_i u_i`` holds to rounding. Random vectors stand in
    for left ones that vanish; without ``rng`` always the same. Where V is ``skew``, orthonormal to
    some dozen units only, it is made orthonormal first: what is missing would be a residual, times
    ``s_1 / s_i``. Where it is not ``coarse``, of a lower precision than A, products with it may be
    orthogonal as they come.
    """
    arrays = op.arrays
    if skew:
        V = _straightened(arrays, V, rng)
    Y = op.matmat(V)
    norms, G, orthogonal = _norms(arrays, Y, look=not coarse)
    if orthogonal:
        # The values, too, are then those of a projection: to the cosines, times s_1.
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
    spare = SpareVectors(arrays, rng, op.shape[0], int(V.shape[1]))
    Q, _, R = orthonormalize(arrays, Y, None, floor=floor, spare=spare)
    P, S, Wh = small_svd(arrays.get(R).astype(arrays.wide_dtype))
    W = Wh.conj().T
    U = arrays.product(Q, arrays.put(P[:, :k]))
    return U, S[:k], arrays.product(V, arrays.put(W[:, :k]))


def _straightened(arrays: Arrays, V: Array, rng: np.random.Generator | None) -> Array:
    """Orthonormal columns near those of V, which are so to some dozen units.

    A Newton step for the polar factor: off by E in ``V^H V``, it leaves ``E^2``.
    """
    w = int(V.shape[1])
    E = arrays.adjoint_product(V, V) - arrays.put(np.eye(w))
    if np.linalg.norm(arrays.get(E)) < 0.5 * arrays.eps**0.5:
        return V - arrays.product(V, E / 2)
    rng = np.random.default_rng(0) if rng is None else rng
    spare = SpareVectors(arrays, rng, int(V.shape[0]), w)
    return orthonormalize(arrays, V, None, floor=0.0, spare=spare)[0]


def _rotation(G: HostArray, norms: HostArray) -> tuple[HostArray, HostArray]:
    """Singular values of a Y in single precision, and right vectors, by its Gram matrix in double.

    None of them where ``Y W / S`` would not be orthonormal to rounding: where squares lose the
    least value, or columns that nearly cancel make a short one.
    """
    values, W = small_eigh(G)
    if values[-1] > 1e-8 * values[0]:
        S = np.sqrt(values)
        if (norms @ np.abs(W) < 4 * S).all():
            return S, W
    return norms[:0], W[:, :0]


def _norms(arrays: Arrays, Y: Array, *, look: bool) -> tuple[HostArray, HostArray | None, bool]:
    """Norms of the columns, their Gram matrix, and whether they are orthogonal (and none is zero).

    The norms, too, by a product then: a sum down the columns loses dozens of units in float32.
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
    """The largest entry of ``U^H U - I`` and ``V^H V - I``, in modulus; one transfer."""
    products = [arrays.adjoint_product(X, X) for X in (U, V)]
    G = arrays.get(arrays.xp.stack(products))
    return float(np.abs(G - np.eye(G.shape[-1])).max(initial=0.0))


def residual_blocks(
    op: Metered, U: Array, S: HostArray, V: Array, *, exact: str | None = None
) -> tuple[Array | None, Array | None]:
    """``A V - U S`` and ``A^H U - V S``, by 2 k products with A.

    Or by k of them, where one side was made of a product with the other: ``exact`` names it, and
    None stands for it.
    """
    s = op.arrays.put(S)[None, :]
    left = op.matmat(V) - U * s if exact != "left" else None
    right = op.rmatmat(U) - V * s if exact != "right" else None
    return left, right


def residual_norms(arrays: Arrays, blocks: tuple[Array | None, Array | None]) -> HostArray:
    """``max(||A v_i - s_i u_i||, ||A^H u_i - s_i v_i||)`` of `residual_blocks`."""
    norms = [arrays.column_norms(block) for block in blocks if block is not None]
    if len(norms) == 1:
        return arrays.get(norms[0]).astype(np.float64)
    return np.maximum(*_both(arrays, *norms))


def _both(arrays: Arrays, left: Array, right: Array) -> tuple[HostArray, HostArray]:
    """Two device vectors on the host, in one transfer."""
    both = arrays.get(arrays.xp.stack([left, right])).astype(np.float64)
    return both[0], both[1]
