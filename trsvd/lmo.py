"""One call, one array: the linear minimization oracle of each ball.

Each function returns ``argmin { <G, X> : X in radius * ball }``, the update direction, already
negative: a step is ``X + lr * kyfan_dual_lmo(G, k)``. G is an array of shape (..., m, n); leading
dimensions are a batch of matrices. The balls themselves (`trsvd.balls`) give the gap, the factors
and a subspace to start from next time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trsvd._arrays import Array, Arrays, is_array
from trsvd._kinds import describe
from trsvd._lmo_result import LMOResult
from trsvd.balls import (
    Ball,
    ColumnBall,
    FrobeniusBall,
    KyFanBall,
    KyFanDualBall,
    MaxBall,
    NuclearBall,
    RMSBall,
    RowBall,
    SpectralBall,
)
from trsvd.methods import Method

__all__ = [
    "column_lmo",
    "f_fanion_lmo",
    "frobenius_lmo",
    "kyfan_dual_lmo",
    "kyfan_lmo",
    "max_lmo",
    "nuclear_lmo",
    "rms_lmo",
    "row_lmo",
    "s_fanion_lmo",
    "spectral_lmo",
]


def _update(ball: Ball, G: Array, radius: float, **options: Any) -> Array:
    """The minimizer over ``radius * ball``, of each matrix of a batch."""
    if not is_array(G):
        msg = (
            f"G is {describe(G)}; a function that returns an array takes one of shape (..., m, n) "
            "(use the lmo of a ball for sparse matrices and operators)"
        )
        raise TypeError(msg)
    if G.ndim < 2:
        msg = f"G has shape {tuple(G.shape)}; a matrix has two dimensions: reshape it"
        raise ValueError(msg)
    if G.ndim == 2:
        return (radius * ball).lmo(G, **options).update
    if options.get("start") is not None:
        msg = "start= belongs to one matrix; call the oracle of each matrix of the batch by itself"
        raise ValueError(msg)
    shape = tuple(G.shape)
    if 0 in shape:
        msg = f"G has shape {shape}; a batch needs a matrix, with rows and columns"
        raise ValueError(msg)
    updates = LMOResult.stacked((radius * ball).lmo_many(G, **options))
    return Arrays.of_array(G).xp.reshape(updates, shape)


def kyfan_dual_lmo(
    G: Array,
    k: int,
    *,
    radius: float = 1.0,
    method: str | Method | None = None,
    tol: float | None = None,
    gap: float | None = None,
    start: Any = None,
    rng: int | np.random.Generator | None = None,
) -> Array:
    """``-radius * U_k V_k^H``: the argmin of ``<G, X>`` over the dual Ky Fan k-norm ball.

    A step is ``X + lr * kyfan_dual_lmo(G, k)`` (Fanion-k; Neon for k = 1, Muon for k >= min(m, n)).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    k : int
        At least 1.
    radius : float, default 1
        Of the ball.
    method : str or Method, optional
        As for `trsvd.svds`.
    tol : float, optional
        Relative residual of the singular triplets.
    gap : float, optional
        Relative gap to stop at instead: optimizers need no more than 1e-2 or 1e-3.
    start : Subspace, SVDResult or array of shape (n, p), optional
        Warm start.
    rng : int or numpy.random.Generator, optional
        Where random numbers come from.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty, or k < 1.

    References
    ----------
    A. Kravatskiy et al., The Ky Fan Norms and Beyond, arXiv:2512.09678.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.kyfan_dual_lmo(np.diag([3.0, 2.0, 1.0]), 2).round(12) + 0.0
    array([[-1.,  0.,  0.],
           [ 0., -1.,  0.],
           [ 0.,  0.,  0.]])
    """
    ball = KyFanDualBall(k)
    return _update(ball, G, radius, method=method, tol=tol, gap=gap, start=start, rng=rng)


def kyfan_lmo(G: Array, k: int, *, radius: float = 1.0) -> Array:
    """``-radius * u_1 v_1^H`` or ``-radius * U V^H / k``: the argmin over the Ky Fan k-norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    k : int
        At least 1.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(KyFanBall(k), G, radius)


def nuclear_lmo(
    G: Array,
    *,
    radius: float = 1.0,
    tol: float | None = None,
    gap: float | None = None,
    rng: int | np.random.Generator | None = None,
) -> Array:
    """``-radius * u_1 v_1^H``: the argmin over the nuclear norm ball (Neon).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.
    tol, gap, rng
        As for `kyfan_dual_lmo`.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(NuclearBall(), G, radius, tol=tol, gap=gap, rng=rng)


def spectral_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius * U V^H``: the argmin over the spectral norm ball (Muon, exactly).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(SpectralBall(), G, radius)


def rms_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius * sqrt(m / n) U V^H``: the argmin over the RMS-to-RMS operator norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(RMSBall(), G, radius)


def frobenius_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius * G / ||G||_F``: the argmin over the Frobenius norm ball (NSGD).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(FrobeniusBall(), G, radius)


def max_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius * sign(G)``: the argmin over the entrywise max norm ball (SignSGD).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(MaxBall(), G, radius)


def column_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """Minus each column over its 2-norm, times radius: the argmin over the column norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(ColumnBall(), G, radius)


def row_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """Minus each row over its 2-norm, times radius: the argmin over the row norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return _update(RowBall(), G, radius)


def _check_alpha(alpha: float) -> float:
    if not 0 <= alpha <= 1:
        msg = f"alpha={alpha}; the weight of the spectral part is between 0 and 1"
        raise ValueError(msg)
    return float(alpha)


def f_fanion_lmo(
    G: Array,
    k: int,
    *,
    alpha: float = 0.5,
    radius: float = 1.0,
    kyfan_scale: float = 1.0,
    frobenius_scale: float = 1.0,
    **options: Any,
) -> Array:
    """``-(alpha U_k V_k^H + (1 - alpha) G / ||G||_F)``: F-Fanion-k (F-Muon, F-Neon).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    k : int
        At least 1.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    radius : float, default 1
        Multiplies the whole.
    kyfan_scale, frobenius_scale : float, default 1
        Multiply each part, ``sqrt(m / n)`` for one.
    **options
        ``method``, ``tol``, ``gap``, ``start``, ``rng`` as for `kyfan_dual_lmo`.

    Returns
    -------
    array of shape (..., m, n)
    """
    alpha = _check_alpha(alpha)
    ball = (alpha * kyfan_scale) * KyFanDualBall(k) + (
        (1 - alpha) * frobenius_scale
    ) * FrobeniusBall()
    return _update(ball, G, radius, **options)


def s_fanion_lmo(
    G: Array,
    k: int,
    *,
    alpha: float = 0.5,
    eta: float = 0.01,
    radius: float = 1.0,
    kyfan_scale: float = 1.0,
    sign_scale: float = 1.0,
    **options: Any,
) -> Array:
    """``-(alpha U_k V_k^H + (1 - alpha) eta sign(G))``: S-Fanion-k (S-Muon, S-Neon).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    k : int
        At least 1.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    radius : float, default 1
        Multiplies the whole.
    kyfan_scale, sign_scale : float, default 1
        Multiply each part.
    **options
        ``method``, ``tol``, ``gap``, ``start``, ``rng`` as for `kyfan_dual_lmo`.

    Returns
    -------
    array of shape (..., m, n)
    """
    alpha = _check_alpha(alpha)
    ball = (alpha * kyfan_scale) * KyFanDualBall(k) + ((1 - alpha) * eta * sign_scale) * MaxBall()
    return _update(ball, G, radius, **options)
