"""Linear minimization oracles as functions from array to array.

Each function returns ``argmin { <G, X> : X in radius * ball }``, the update direction, already
negative: a step is ``X + lr * kyfan_dual_lmo(G, k)``. G is an array of shape (..., m, n); leading
dimensions are a batch of matrices. The balls (`trsvd.balls`) also return the gap, the factors and
a subspace for the next warm start.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, is_array
from trsvd._arrays.dtypes import describe
from trsvd._oracles.result import LMOResult
from trsvd._validate import check_number
from trsvd.balls import (
    Ball,
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
from trsvd.balls.families import check_weight
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
    time_limit: float | None = None,
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
        Radius of the ball.
    method : str or Method, optional
        As for `trsvd.svds`. For k >= min(m, n) also the iterations of `SpectralBall`.
    tol : float, optional
        Relative residual of the singular triplets.
    gap : float, optional
        Largest relative gap, instead of ``tol``. For optimizers 1e-2 or 1e-3 is sufficient.
    start : LMOResult, Subspace, SVDResult or array of shape (n, p), optional
        Warm start, for a single matrix.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the random numbers.
    certify : bool or "probable", default False
        True: the gap must be proven; see `Ball.lmo`.
    time_limit : float, optional
        Time in seconds after which an iteration stops; see `Ball.lmo`.

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

    See Also
    --------
    KyFanDualBall, kyfan_norm, kyfan_lmo, trsvd.optim.fanion

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
    return _minimizers(
        ball,
        G,
        radius,
        method=method,
        tol=tol,
        gap=gap,
        start=start,
        rng=rng,
        certify=certify,
        time_limit=time_limit,
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
        Radius of the ball.
    method : str or Method, optional
        Method for all singular triplets. The default is a full SVD.
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

    See Also
    --------
    KyFanBall, kyfan_norm, kyfan_dual_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.kyfan_lmo(np.diag([3.0, 2.0]), 2).round(4) + 0.0
    array([[-1.,  0.],
           [ 0.,  0.]])
    """
    return _minimizers(KyFanBall(k), G, radius, method=method, tol=tol, rng=rng)


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
    time_limit: float | None = None,
) -> Array:
    """``-radius * u_1 v_1^H``: the argmin over the nuclear norm ball (Neon).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Radius of the ball.
    method, tol, gap, start, rng, certify, time_limit
        As for `kyfan_dual_lmo`.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`.

    See Also
    --------
    NuclearBall, nuclear_norm, nuclear_neon

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.nuclear_lmo(np.diag([3.0, 2.0])).round(4) + 0.0
    array([[-1.,  0.],
           [ 0.,  0.]])
    """
    return kyfan_dual_lmo(
        G,
        1,
        radius=radius,
        method=method,
        tol=tol,
        gap=gap,
        start=start,
        rng=rng,
        certify=certify,
        time_limit=time_limit,
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
        Radius of the ball.
    method : str, Method, NewtonSchulz or PolarExpress, optional
        As for `SpectralBall`. The default is a full SVD.
    gap : float, optional
        Relative gap, between 0 and 1. If an iteration misses it, there is a warning.
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

    See Also
    --------
    SpectralBall, rms_lmo, NewtonSchulz, PolarExpress

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.spectral_lmo(np.diag([3.0, 2.0])).round(4) + 0.0
    array([[-1.,  0.],
           [ 0., -1.]])
    """
    return _minimizers(
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
        Radius of the ball.
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

    See Also
    --------
    RMSBall, spectral_lmo, rms_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.rms_lmo(np.array([[3.0], [0.0], [0.0], [0.0]])).round(4) + 0.0
    array([[-2.],
           [ 0.],
           [ 0.],
           [ 0.]])
    """
    return _minimizers(
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
    time_limit: float | None = None,
) -> Array:
    """``-radius * U W V^H``: the argmin over the Schatten p-norm ball.

    The weights are ``w_i = (s_i / ||s||_q)^(q - 1)`` with ``1/p + 1/q = 1``.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    p : float
        At least 1, or ``math.inf``.
    radius : float, default 1
        Radius of the ball.
    method, tol, gap, start, rng, certify, time_limit
        As for `nuclear_lmo` (p = 1) and `spectral_lmo` (p = inf). For other p all singular triplets
        are computed, and ``gap`` and ``start`` have no effect.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, with p for k.

    See Also
    --------
    SchattenBall, nuclear_lmo, spectral_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.schatten_lmo(np.diag([3.0, 2.0]), 2).round(4) + 0.0
    array([[-0.8321,  0.    ],
           [ 0.    , -0.5547]])
    """
    ball = SchattenBall(p)
    return _minimizers(
        ball,
        G,
        radius,
        method=method,
        tol=tol,
        gap=gap,
        start=start,
        rng=rng,
        certify=certify,
        time_limit=time_limit,
    )


def frobenius_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius * G / ||G||_F``: the argmin over the Frobenius norm ball (NSGD).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Radius of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`.

    See Also
    --------
    FrobeniusBall, frobenius_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.frobenius_lmo(np.array([[3.0, 0.0], [0.0, 4.0]])).round(4) + 0.0
    array([[-0.6,  0. ],
           [ 0. , -0.8]])
    """
    return _minimizers(FrobeniusBall(), G, radius)


def max_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius * sign(G)``: the argmin over the entrywise max norm ball (SignSGD).

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Radius of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`.

    See Also
    --------
    MaxBall, max_norm, s_fanion_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.max_lmo(np.array([[3.0, 0.0], [-2.0, 4.0]])).round(4) + 0.0
    array([[-1.,  0.],
           [ 1., -1.]])
    """
    return _minimizers(MaxBall(), G, radius)


def column_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius`` times each column divided by its 2-norm: the argmin over the column norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Radius of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`.

    See Also
    --------
    ColumnBall, row_lmo, max_column_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.column_lmo(np.array([[3.0, 0.0], [4.0, 2.0]])).round(4) + 0.0
    array([[-0.6,  0. ],
           [-0.8, -1. ]])
    """
    return _minimizers(ColumnBall(), G, radius)


def row_lmo(G: Array, *, radius: float = 1.0) -> Array:
    """``-radius`` times each row divided by its 2-norm: the argmin over the row norm ball.

    Parameters
    ----------
    G : array of shape (..., m, n)
        The gradient or momentum; leading dimensions are a batch.
    radius : float, default 1
        Radius of the ball.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`.

    See Also
    --------
    RowBall, column_lmo, max_row_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.row_lmo(np.array([[3.0, 4.0], [0.0, 2.0]])).round(4) + 0.0
    array([[-0.6, -0.8],
           [ 0. , -1. ]])
    """
    return _minimizers(RowBall(), G, radius)


def f_fanion_lmo(
    G: Array,
    k: int,
    *,
    alpha: float = 0.5,
    radius: float = 1.0,
    kyfan_scale: float = 1.0,
    frobenius_scale: float = 1.0,
    method: str | Method | None = None,
    tol: float | None = None,
    gap: float | None = None,
    start: Any = None,
    rng: int | np.random.Generator | None = None,
    certify: bool | Literal["probable"] = False,
    time_limit: float | None = None,
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
        Factor of the update.
    kyfan_scale, frobenius_scale : float, default 1
        Factors of the two parts, for example ``sqrt(m / n)``.
    method, tol, gap, start, rng, certify, time_limit
        As for `kyfan_dual_lmo`; ``gap`` is the gap of the sum.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, and if a weight or a scale is negative or not finite.

    See Also
    --------
    kyfan_dual_lmo, frobenius_lmo, s_fanion_lmo, trsvd.optim.f_fanion

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.f_fanion_lmo(np.diag([3.0, 2.0]), 1).round(4) + 0.0
    array([[-0.916 ,  0.    ],
           [ 0.    , -0.2774]])
    """
    alpha = check_weight(alpha)
    first, second = _factors(kyfan_scale=kyfan_scale, frobenius_scale=frobenius_scale)
    ball = (alpha * first) * KyFanDualBall(k) + ((1 - alpha) * second) * FrobeniusBall()
    return _minimizers(
        ball,
        G,
        radius,
        method=method,
        tol=tol,
        gap=gap,
        start=start,
        rng=rng,
        certify=certify,
        time_limit=time_limit,
    )


def s_fanion_lmo(
    G: Array,
    k: int,
    *,
    alpha: float = 0.5,
    eta: float = 0.01,
    radius: float = 1.0,
    kyfan_scale: float = 1.0,
    sign_scale: float = 1.0,
    method: str | Method | None = None,
    tol: float | None = None,
    gap: float | None = None,
    start: Any = None,
    rng: int | np.random.Generator | None = None,
    certify: bool | Literal["probable"] = False,
    time_limit: float | None = None,
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
        Factor of the update.
    kyfan_scale, sign_scale : float, default 1
        Factors of the two parts.
    method, tol, gap, start, rng, certify, time_limit
        As for `kyfan_dual_lmo`; ``gap`` is the gap of the sum.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, and if a weight or a scale is negative or not finite.

    See Also
    --------
    kyfan_dual_lmo, max_lmo, f_fanion_lmo, trsvd.optim.s_fanion

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.s_fanion_lmo(np.diag([3.0, 2.0]), 1, eta=0.1).round(4) + 0.0
    array([[-0.55,  0.  ],
           [ 0.  , -0.05]])
    """
    alpha = check_weight(alpha)
    first, eta, second = _factors(kyfan_scale=kyfan_scale, eta=eta, sign_scale=sign_scale)
    ball = (alpha * first) * KyFanDualBall(k) + ((1 - alpha) * eta * second) * MaxBall()
    return _minimizers(
        ball,
        G,
        radius,
        method=method,
        tol=tol,
        gap=gap,
        start=start,
        rng=rng,
        certify=certify,
        time_limit=time_limit,
    )


def _factors(**factors: float) -> list[float]:
    """Return factors as floats; TypeError unless they are numbers."""
    return [check_number(name, factor) for name, factor in factors.items()]


def _minimizers(ball: Ball, G: Array, radius: float, **options: Any) -> Array:
    """Return the minimizer over ``radius * ball`` for each matrix of a batch.

    Parameters
    ----------
    ball : Ball
        The ball.
    G : array of shape (..., m, n)
        The leading dimensions are a batch.
    radius : float
        Factor of the ball.
    **options
        Options of `Ball.lmo`.

    Returns
    -------
    array of shape (..., m, n)
    """
    radius, G = check_number("radius", radius), admitted(G)
    if not is_array(G):
        raise TypeError(
            f"G is {describe(G)}; a function that returns an array takes one of shape (..., m, n) "
            "(use the lmo of a ball for sparse matrices and operators)"
        )
    if G.ndim < 2:
        raise ValueError(f"G has shape {tuple(G.shape)}; a matrix has two dimensions: reshape it")
    if G.ndim == 2:
        return (radius * ball).lmo(G, **options).update
    if options.get("start") is not None:
        raise ValueError(
            "start= belongs to one matrix; call the oracle of each matrix of the batch by itself"
        )
    shape = tuple(G.shape)
    if 0 in shape:
        raise ValueError(f"G has shape {shape}; a batch needs a matrix, with rows and columns")
    updates = LMOResult.stacked((radius * ball).lmo_many(G, **options))
    return Arrays.of_array(G).xp.reshape(updates, shape)
