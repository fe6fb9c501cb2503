"""Dion: power iteration on the momentum, with error feedback; and its orthonormal variant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays
from trsvd._validate import check_flag, check_number
from trsvd.optim.schedules import Rank
from trsvd.optim.transforms import check_momentum, check_shape, from_stack, stack_shape, to_stack


def right_factors(W: Array, rank: Rank, layout: str, seed: int, *, transpose: bool = True) -> Array:
    """Return random right factors of shape (b, n, k) in the compute dtype of W.

    The shape is (b, m, k) if m < n and ``transpose`` is True.

    Parameters
    ----------
    W : array
        A parameter.
    rank : Rank
        The rank, without a schedule.
    layout : str
        Layout in which W is read as matrices.
    seed : int
        Seed of the random numbers.
    transpose : bool, default True
        As for `dion_step`.
    """
    b, m, n = stack_shape(tuple(W.shape), layout)
    n = min(m, n) if transpose else n
    arrays, k = Arrays.of_array(W), rank.at(0, min(m, n))
    blocks = arrays.gaussian(np.random.default_rng(seed), b * n, k)
    return arrays.xp.reshape(blocks, (b, n, k))


def fixed_rank(k: Any, rank_fraction: Any) -> Rank:
    """Return the rank of Dion; raise an error for a schedule."""
    rank = Rank(k, rank_fraction)
    if rank.scheduled:
        raise TypeError(
            f"{'rank_fraction' if k is None else 'k'} is a schedule, but Dion keeps its factors "
            "from step to step; pass a number"
        )
    return rank


def dion_step(
    B: Array, Q: Array, momentum: float, *, orthonormal: bool = False, transpose: bool = True
) -> tuple[Array, Array, Array]:
    """Make one step of power iteration with error feedback, for a stack of matrices.

    Parameters
    ----------
    B : array of shape (b, m, n)
        Momentum plus gradient, in a dtype that supports factorizations.
    Q : array of shape (b, n, k)
        Right factors of the previous step; of shape (b, m, k) if B is transposed.
    momentum : float
        ``mu``.
    orthonormal : bool, default False
        True: the update is minus the polar factor of ``P R^H``. False: it is ``-P C^H``, where C
        is the column-normalized R.
    transpose : bool, default True
        True: if m < n, make the step on ``B^H``.

    Returns
    -------
    tuple of arrays
        The update (with its negative sign, without a scale factor), the next momentum
        ``B - (1 - mu) P R^H``, and the next Q, which is the column-normalized R.

    Raises
    ------
    ValueError
        If B contains NaN or inf.
    """
    arrays = Arrays.of_array(B)
    xp = arrays.xp
    if transpose and B.shape[1] < B.shape[2]:
        D, M, Q = dion_step(_adjoint(arrays, B), Q, momentum, orthonormal=orthonormal)
        return _adjoint(arrays, D), _adjoint(arrays, M), Q
    sizes = xp.max(xp.abs(B), axis=(1, 2), keepdims=True)
    if not np.isfinite(arrays.get(xp.max(sizes))):
        raise ValueError(
            "a gradient contains NaN or inf; find where it comes from before making a step"
        )
    B = arrays.over(B, sizes)  # entries of at most 1: their squares stay in range
    with arrays.as_asked():
        P, _ = xp.linalg.qr(B @ Q)
        R = _adjoint(arrays, B) @ P
        M = B - (1 - momentum) * (P @ _adjoint(arrays, R))
        columns = arrays.units(R, axis=1)
        right = _polar(arrays, R) if orthonormal else columns
        # A zero column of R gives no direction; keep the column of the previous step.
        Q = xp.where(arrays.norms(columns, axis=1) > 0, columns, Q)
        return -(P @ _adjoint(arrays, right)), M * arrays.like(sizes), Q


def _polar(arrays: Arrays, R: Array) -> Array:
    """Return the polar factor of tall matrices, without singular values at the rounding level."""
    xp = arrays.xp
    T, small = xp.linalg.qr(R)
    U, S, Vh = xp.linalg.svd(small, full_matrices=False)
    zero = max(R.shape[-2:]) * arrays.eps * S[:, :1]
    U = U * arrays.like(xp.where(zero < S, xp.ones_like(S), xp.zeros_like(S)))[:, None, :]
    return T @ (U @ Vh)


def _adjoint(arrays: Arrays, X: Array) -> Array:
    return arrays.conj(arrays.xp.matrix_transpose(X))


@dataclass(frozen=True, kw_only=True)
class DionStep:
    """Transform that turns gradients into Dion's updates: momentum, error feedback and direction.

    Parameters
    ----------
    k : int, optional
        The rank.
    rank_fraction : float, optional
        The rank as a fraction of min(m, n), rounded up; pass either this or k.
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    orthonormal : bool, default False
        True: the update is minus the polar factor of ``P R^H``, which lies in the dual Ky Fan
        ball. False: the factors are column-normalized, and singular values can exceed 1.
    transpose : bool, default True
        True: iterate on the transpose where m < n, as in the authors' ``dion.py``. False: never, as
        in their ``dion_simple.py``. The shape scaling is the same in both cases.
    layout : str, default "auto"
        Layout in which parameters are read as matrices, see `trsvd.optim.LAYOUTS`.
    seed : int, default 0
        Seed of the first right factors.

    See Also
    --------
    dion, OracleStep

    References
    ----------
    K. Ahn et al., Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.DionStep(k=2)
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[-1.1577, -0.049 ],
           [-0.0735, -0.8074]])
    """

    k: int | None = None
    rank_fraction: float | None = None
    momentum: float = 0.95
    orthonormal: bool = False
    transpose: bool = True
    layout: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", check_momentum(self.momentum))
        fixed_rank(self.k, self.rank_fraction)
        for name in ("orthonormal", "transpose"):
            check_flag(name, getattr(self, name))

    def init(self, params: list[Array]) -> list[tuple[Array, Array]]:
        """Return a momentum of zeros and random right factors for each parameter."""
        state, rank = [], fixed_rank(self.k, self.rank_fraction)
        for W in params:
            check_shape(tuple(W.shape), self.layout)
            M = Arrays.of_array(W).xp.zeros_like(W)
            Q = right_factors(W, rank, self.layout, self.seed, transpose=self.transpose)
            state.append((M, Q))
        return state

    def update(
        self, updates: list[Array], state: list[tuple[Array, Array]], params: list[Array]
    ) -> tuple[list[Array], list[tuple[Array, Array]]]:
        """Return the directions, and the momentum and right factors after this step."""
        del params
        out, after = [], []
        for G, (M, Q) in zip(updates, state, strict=True):
            arrays = Arrays.of_array(G)
            shape, layout = tuple(G.shape), self.layout
            B = to_stack(arrays.take(M) + arrays.take(G), layout)
            D, M, Q = dion_step(
                B, Q, self.momentum, orthonormal=self.orthonormal, transpose=self.transpose
            )
            out.append(arrays.hand_out(from_stack(D, shape, layout)))
            after.append((arrays.hand_out(from_stack(M, shape, layout)), Q))
        return out, after


def check_beta2(beta2: float) -> float:
    """Check the decay of a second moment; ValueError unless it is at least 0 and below 1."""
    if not 0 <= check_number("beta2", beta2) < 1:
        raise ValueError(f"Invalid beta2 value: {beta2}; it must be at least 0 and below 1")
    return float(beta2)


def check_eps(eps: float) -> float:
    """Check the number added to the roots; ValueError if it is negative or not finite."""
    if not 0 <= check_number("eps", eps) < math.inf:
        raise ValueError(f"Invalid eps value: {eps}; it must be finite and at least 0")
    return float(eps)


def row_normalized(O: Array, v: Array, beta2: float, eps: float) -> tuple[Array, Array]:  # noqa: E741
    """Divide rows by their running root mean square, and keep the Frobenius norm of the matrix.

    Parameters
    ----------
    O : array of shape (b, m, n)
        A stack of updates.
    v : array of shape (b, m)
        Running mean squares of the rows.
    beta2 : float
        Decay of v.
    eps : float
        Number added to the root mean squares.

    Returns
    -------
    tuple of arrays
        The updates, and v after this step.
    """
    arrays = Arrays.of_array(O)
    xp = arrays.xp
    squares = xp.abs(O) ** 2
    v = beta2 * v + (1 - beta2) * xp.mean(squares, axis=2)
    X = arrays.over(O, (xp.sqrt(v) + eps)[:, :, None])
    return arrays.units(X, axis=(1, 2)) * arrays.like(arrays.norms(O, axis=(1, 2))), v


@dataclass(frozen=True, kw_only=True)
class RowNormalization:
    """Transform that normalizes rows; added to Muon, it gives NorMuon.

    Parameters
    ----------
    beta2 : float, default 0.95
        Decay of the mean squares of the rows.
    eps : float, default 1e-10
        Number added to the root mean squares.
    layout : str, default "auto"
        Layout in which parameters are read as matrices, see `trsvd.optim.LAYOUTS`.

    See Also
    --------
    normuon

    References
    ----------
    Z. Li et al., NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.RowNormalization()
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[2.5495, 0.    ],
           [0.    , 2.5495]])
    """

    beta2: float = 0.95
    eps: float = 1e-10
    layout: str = "auto"

    def __post_init__(self) -> None:
        check_beta2(self.beta2)
        check_eps(self.eps)

    def init(self, params: list[Array]) -> list[Array]:
        """Return mean squares of zero for each parameter."""
        state = []
        for W in params:
            arrays = Arrays.of_array(W)
            b, m, _ = stack_shape(tuple(W.shape), self.layout)
            state.append(arrays.xp.zeros((b, m), dtype=arrays.real_dtype, device=arrays.device))
        return state

    def update(
        self, updates: list[Array], state: list[Array], params: list[Array]
    ) -> tuple[list[Array], list[Array]]:
        """Return the normalized updates, and the mean squares after this step."""
        del params
        out, after = [], []
        for U, v in zip(updates, state, strict=True):
            arrays = Arrays.of_array(U)
            stack = to_stack(arrays.take(U), self.layout)
            X, v = row_normalized(stack, v, self.beta2, self.eps)
            out.append(arrays.hand_out(from_stack(X, tuple(U.shape), self.layout)))
            after.append(v)
        return out, after
