"""One call, one array: the linear minimization oracle of each ball.

Each function returns ``argmin { <G, X> : X in radius * ball }``, the update direction, already
negative: a step is ``X + lr * kyfan_dual_lmo(G, k)``. G is an array of shape (..., m, n); leading
dimensions are a batch of matrices. The balls themselves (`trsvd.balls`) give the gap, the factors
and a subspace to start from next time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trsvd._arrays import Array
from trsvd._one_call import minimizers
from trsvd._polar_methods import PolarIteration
from trsvd._validate import check_number
from trsvd.balls import (
    ColumnBall,
    FrobeniusBall,
    KyFanBall,
    KyFanDualBall,
    MaxBall,
    NuclearBall,
    RMSBall,
    RowBall,
    SchattenBall,
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
    "schatten_lmo",
    "spectral_lmo",
]


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
    return minimizers(ball, G, radius, method=method, tol=tol, gap=gap, start=start, rng=rng)


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
    return minimizers(KyFanBall(k), G, radius)


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
    return minimizers(NuclearBall(), G, radius, tol=tol, gap=gap, rng=rng)


def spectral_lmo(
    G: Array,
    *,
    radius: float = 1.0,
    method: str | Method | PolarIteration | None = None,
    gap: float | None = None,
) -> Array:
    """``-radius * U V^H``: the argmin over the spectral norm ball (Muon).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.
    method : str, Method, NewtonSchulz or PolarExpress, optional
        As for `SpectralBall`: exactly, by an SVD, by default.
    gap : float, optional
        Relative gap, between 0 and 1, that an iteration is warned about if it misses it.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array, or its library lacks the dtype of the method.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty.
    """
    return minimizers(SpectralBall(), G, radius, method=method, gap=gap)


def rms_lmo(
    G: Array,
    *,
    radius: float = 1.0,
    method: str | Method | PolarIteration | None = None,
    gap: float | None = None,
) -> Array:
    """``-radius * sqrt(m / n) U V^H``: the argmin over the RMS-to-RMS operator norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.
    method, gap
        As for `spectral_lmo`.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `spectral_lmo`.
    """
    return minimizers(RMSBall(), G, radius, method=method, gap=gap)


def schatten_lmo(G: Array, p: float, *, radius: float = 1.0) -> Array:
    """``-radius * U W V^H``: the argmin over the Schatten p-norm ball.

    The weights are ``w_i = (s_i / ||s||_q)^(q - 1)`` with ``1/p + 1/q = 1``.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    p : float
        At least 1, ``math.inf`` included.
    radius : float, default 1
        Of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, with p for k.
    """
    return minimizers(SchattenBall(p), G, radius)


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
    return minimizers(FrobeniusBall(), G, radius)


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
    return minimizers(MaxBall(), G, radius)


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
    return minimizers(ColumnBall(), G, radius)


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
    return minimizers(RowBall(), G, radius)


def _check_alpha(alpha: float) -> float:
    alpha = check_number("alpha", alpha)
    if not 0 <= alpha <= 1:
        msg = f"alpha={alpha}; the weight of the spectral part is between 0 and 1"
        raise ValueError(msg)
    return alpha


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
    return minimizers(ball, G, radius, **options)


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
    return minimizers(ball, G, radius, **options)
