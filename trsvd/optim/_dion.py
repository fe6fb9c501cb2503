"""Dion: power iteration on the momentum, with error feedback; and its orthonormal variant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trsvd._arrays import Array, Arrays
from trsvd.optim._layout import check_shape, stack_shape
from trsvd.optim._links import check_momentum
from trsvd.optim.schedules import rank_at

__all__ = ["DionDescent", "dion_step", "right_factors"]


def right_factors(W: Array, k: Any, layout: str, seed: int) -> Array:
    """Random right factors to start from, an array of shape (b, n, k) in W's compute dtype.

    Parameters
    ----------
    W : array
        A parameter.
    k : int or float
        The rank, or a share of min(m, n).
    layout : str
        How W is read.
    seed : int
        Of the random numbers.
    """
    b, m, n = stack_shape(tuple(W.shape), layout)
    arrays, rank = Arrays.of_array(W), rank_at(k, 0, min(m, n))
    blocks = arrays.gaussian(np.random.default_rng(seed), b * n, rank)
    return arrays.xp.reshape(blocks, (b, n, rank))


def dion_step(
    B: Array, Q: Array, momentum: float, *, orthonormal: bool = False
) -> tuple[Array, Array, Array]:
    """One step of power iteration with error feedback, of a stack of matrices.

    Parameters
    ----------
    B : array of shape (b, m, n)
        Momentum plus gradient, in a dtype that factorizations are made in.
    Q : array of shape (b, n, k)
        Right factors of the last step.
    momentum : float
        ``mu``.
    orthonormal : bool, default False
        Whether the update is the polar factor of ``P R^H``, rather than P times the
        column-normalized R.

    Returns
    -------
    tuple of arrays
        The update without a scale, already negative; the next momentum ``B - (1 - mu) P R^H``; and
        the next Q, the column-normalized R.

    Raises
    ------
    ValueError
        If B is not finite.
    """
    arrays = Arrays.of_array(B)
    xp = arrays.xp
    if not np.isfinite(arrays.get(xp.max(xp.abs(B)))):
        msg = "a gradient contains NaN or inf; find where it comes from before making a step"
        raise ValueError(msg)
    with arrays.as_asked():
        # (Factorizations of denormal numbers are not to be relied on.)
        P, _ = xp.linalg.qr(arrays.units(B, axis=(1, 2)) @ Q)
        R = _adjoint(arrays, B) @ P
        M = B - (1 - momentum) * (P @ _adjoint(arrays, R))
        columns = arrays.units(R, axis=1)
        right = _polar(arrays, R) if orthonormal else columns
        # A column that met nothing says nothing of where to look next.
        Q = xp.where(arrays.norms(columns, axis=1) > 0, columns, Q)
        return -(P @ _adjoint(arrays, right)), M, Q


def _polar(arrays: Arrays, R: Array) -> Array:
    """The polar factor of tall matrices of full rank; without the directions in which R is zero."""
    xp = arrays.xp
    T, small = xp.linalg.qr(R)
    U, S, Vh = xp.linalg.svd(small, full_matrices=False)
    zero = max(R.shape[-2:]) * arrays.eps * S[:, :1]
    U = U * arrays.like(xp.where(zero < S, xp.ones_like(S), xp.zeros_like(S)))[:, None, :]
    return T @ (U @ Vh)


def _adjoint(arrays: Arrays, X: Array) -> Array:
    return arrays.conj(arrays.xp.matrix_transpose(X))


@dataclass(frozen=True, kw_only=True)
class DionDescent:
    """Gradients to Dion's updates: momentum, error feedback and direction in one link.

    Parameters
    ----------
    k : int or float
        The rank, or a share of min(m, n).
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    orthonormal : bool, default False
        Whether the update is the polar factor of ``P R^H``: then it lies in the dual Ky Fan ball.
        Column-normalized factors have singular values above 1.
    layout : str, default "auto"
        How parameters with more than two dimensions are read.
    seed : int, default 0
        Of the first right factors.

    References
    ----------
    K. Ahn et al., Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.
    """

    k: Any
    momentum: float = 0.95
    orthonormal: bool = False
    layout: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", check_momentum(self.momentum))
        if callable(self.k):
            msg = f"k={self.k!r}; Dion keeps its factors from step to step: pass a fixed rank"
            raise TypeError(msg)

    def init(self, params: list[Array]) -> list[tuple[Array, Array]]:
        """Momentum of zeros, and random right factors."""
        state = []
        for W in params:
            check_shape(tuple(W.shape), self.layout)
            M = Arrays.of_array(W).xp.zeros_like(W)
            state.append((M, right_factors(W, self.k, self.layout, self.seed)))
        return state

    def update(
        self, updates: list[Array], state: list[tuple[Array, Array]], params: list[Array]
    ) -> tuple[list[Array], list[tuple[Array, Array]]]:
        """Directions, and the momentum and right factors after this step."""
        del params
        out, after = [], []
        for G, (M, Q) in zip(updates, state, strict=True):
            arrays = Arrays.of_array(G)
            shape = stack_shape(tuple(G.shape), self.layout)
            B = arrays.xp.reshape(arrays.take(M) + arrays.take(G), shape)
            D, M, Q = dion_step(B, Q, self.momentum, orthonormal=self.orthonormal)
            out.append(arrays.hand_out(arrays.xp.reshape(D, tuple(G.shape))))
            after.append((arrays.hand_out(arrays.xp.reshape(M, tuple(G.shape))), Q))
        return out, after
