"""One call, one array: the linear minimization oracle of each ball.

Each function returns ``argmin { <G, X> : X in radius * ball }``, the update direction, already
negative: a step is ``X + lr * kyfan_dual_lmo(G, k)``. G is an array of shape (..., m, n); leading
dimensions are a batch of matrices. The balls themselves (`trsvd.balls`) give the gap, the factors
and a subspace to start from next time.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from trsvd._arrays.arrays import Array
from trsvd._fanions import f_fanion_lmo, s_fanion_lmo
from trsvd._one_call import minimizers
from trsvd.balls import (
    ColumnBall,
    FrobeniusBall,
    KyFanBall,
    KyFanDualBall,
    MaxBall,
    RMSBall,
    RowBall,
    SchattenBall,
    SpectralBall,
)
from trsvd.methods import Method
from trsvd.polar.methods import PolarIteration

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
    method: str | Method | PolarIteration | None = None,
    tol: float | None = None,
    gap: float | None = None,
    start: Any = None,
    rng: int | np.random.Generator | None = None,
    certify: bool | Literal["probable"] = False,
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
        As for `trsvd.svds`; for k >= min(m, n) also an iteration, as for `SpectralBall`.
    tol : float, optional
        Relative residual of the singular triplets.
    gap : float, optional
        Relative gap to stop at instead: optimizers need no more than 1e-2 or 1e-3.
    start : LMOResult, Subspace, SVDResult or array of shape (n, p), optional
        Warm start, of a single matrix.
    rng : int or numpy.random.Generator, optional
        Where random numbers come from.
    certify : bool or "probable", default False
        Whether the gap must be proven; see `Ball.lmo`.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not an array, or an argument has the wrong type.
    ValueError
        If G is not finite, has fewer than two dimensions or is empty, if an argument does not fit,
        or if the update leaves the range of G's dtype.

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
    return minimizers(
        ball, G, radius, method=method, tol=tol, gap=gap, start=start, rng=rng, certify=certify
    )


def kyfan_lmo(
    G: Array,
    k: int,
    *,
    radius: float = 1.0,
    method: str | Method | None = None,
    tol: float | None = None,
    rng: int | np.random.Generator | None = None,
) -> Array:
    """``-radius * u_1 v_1^H`` or ``-radius * U V^H / k``: the argmin over the Ky Fan k-norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    k : int
        At least 1.
    radius : float, default 1
        Of the ball.
    method : str or Method, optional
        Of all singular triplets, which it takes: a full SVD by default.
    tol, rng
        As for `kyfan_dual_lmo`.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`.
    """
    return minimizers(KyFanBall(k), G, radius, method=method, tol=tol, rng=rng)


def nuclear_lmo(
    G: Array,
    *,
    radius: float = 1.0,
    method: str | Method | None = None,
    tol: float | None = None,
    gap: float | None = None,
    start: Any = None,
    rng: int | np.random.Generator | None = None,
    certify: bool | Literal["probable"] = False,
) -> Array:
    """``-radius * u_1 v_1^H``: the argmin over the nuclear norm ball (Neon).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.
    method, tol, gap, start, rng, certify
        As for `kyfan_dual_lmo`.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`.
    """
    return kyfan_dual_lmo(
        G, 1, radius=radius, method=method, tol=tol, gap=gap, start=start, rng=rng, certify=certify
    )


def spectral_lmo(
    G: Array,
    *,
    radius: float = 1.0,
    method: str | Method | PolarIteration | None = None,
    tol: float | None = None,
    gap: float | None = None,
    rng: int | np.random.Generator | None = None,
    certify: bool | Literal["probable"] = False,
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
    tol, rng
        As for `kyfan_dual_lmo`, with a method of `trsvd.svds`.
    certify : bool or "probable", default False
        True: an iteration that misses ``gap`` is replaced by the full SVD.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, or if the library of G lacks the dtype of the method.
    """
    return minimizers(
        SpectralBall(), G, radius, method=method, tol=tol, gap=gap, rng=rng, certify=certify
    )


def rms_lmo(
    G: Array,
    *,
    radius: float = 1.0,
    method: str | Method | PolarIteration | None = None,
    tol: float | None = None,
    gap: float | None = None,
    rng: int | np.random.Generator | None = None,
    certify: bool | Literal["probable"] = False,
) -> Array:
    """``-radius * sqrt(m / n) U V^H``: the argmin over the RMS-to-RMS operator norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Of the ball.
    method, tol, gap, rng, certify
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
    return minimizers(
        RMSBall(), G, radius, method=method, tol=tol, gap=gap, rng=rng, certify=certify
    )


def schatten_lmo(
    G: Array,
    p: float,
    *,
    radius: float = 1.0,
    method: str | Method | PolarIteration | None = None,
    tol: float | None = None,
    gap: float | None = None,
    start: Any = None,
    rng: int | np.random.Generator | None = None,
    certify: bool | Literal["probable"] = False,
) -> Array:
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
    method, tol, gap, start, rng, certify
        As for `nuclear_lmo` (p = 1) and `spectral_lmo` (p = inf). In between all singular triplets
        are computed, whatever the gap and the start are.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, with p for k.
    """
    ball = SchattenBall(p)
    return minimizers(
        ball, G, radius, method=method, tol=tol, gap=gap, start=start, rng=rng, certify=certify
    )


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
    TypeError, ValueError
        As `kyfan_dual_lmo`.
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
    TypeError, ValueError
        As `kyfan_dual_lmo`.
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
    TypeError, ValueError
        As `kyfan_dual_lmo`.
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
    TypeError, ValueError
        As `kyfan_dual_lmo`.
    """
    return minimizers(RowBall(), G, radius)
