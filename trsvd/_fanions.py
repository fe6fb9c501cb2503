"""Oracles of the paper's families: sums of a dual Ky Fan ball and another one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from trsvd._arrays.arrays import Array
from trsvd._one_call import minimizers
from trsvd._validate import check_number
from trsvd.balls import FrobeniusBall, KyFanDualBall, MaxBall
from trsvd.methods import Method


def _weights(alpha: float, **scales: float) -> list[float]:
    """The weights of both parts, and the factors by which they are scaled."""
    alpha = check_number("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}; the weight of the spectral part is between 0 and 1")
    return [alpha, 1 - alpha, *(check_number(name, scale) for name, scale in scales.items())]


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
    method, tol, gap, start, rng, certify
        As for `kyfan_dual_lmo`; ``gap`` is that of the whole.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, and if a weight or a scale is negative or no finite number.
    """
    a, b, c, d = _weights(alpha, kyfan_scale=kyfan_scale, frobenius_scale=frobenius_scale)
    ball = (a * c) * KyFanDualBall(k) + (b * d) * FrobeniusBall()
    return minimizers(
        ball, G, radius, method=method, tol=tol, gap=gap, start=start, rng=rng, certify=certify
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
    method, tol, gap, start, rng, certify
        As for `kyfan_dual_lmo`; ``gap`` is that of the whole.

    Returns
    -------
    array of shape (..., m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError, ValueError
        As `kyfan_dual_lmo`, and if a weight or a scale is negative or no finite number.
    """
    a, b, c, d, e = _weights(alpha, kyfan_scale=kyfan_scale, eta=eta, sign_scale=sign_scale)
    ball = (a * c) * KyFanDualBall(k) + (b * d * e) * MaxBall()
    return minimizers(
        ball, G, radius, method=method, tol=tol, gap=gap, start=start, rng=rng, certify=certify
    )
