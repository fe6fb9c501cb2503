"""Balls of the F- and S-families: sums of a dual Ky Fan or spectral ball and another one."""

from __future__ import annotations

from dataclasses import dataclass

from trsvd._validate import check_number
from trsvd.balls import Ball, FrobeniusBall, KyFanDualBall, MaxBall, SpectralBall


def check_weight(alpha: float) -> float:
    """Return the weight as a float; ValueError unless it is between 0 and 1."""
    alpha = check_number("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}; the weight of the spectral part is between 0 and 1")
    return alpha


@dataclass(frozen=True)
class FFanionBall:
    """``alpha * KyFanDualBall(k) + (1 - alpha) * FrobeniusBall()``, called with k.

    Parameters
    ----------
    alpha : float
        Weight of the dual Ky Fan part, between 0 and 1.

    See Also
    --------
    f_fanion, trsvd.f_fanion_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> optim.FFanionBall(0.5)(2).gauge(np.diag([1.0, 0.0]))
    1.0
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        check_weight(self.alpha)

    def __call__(self, k: int) -> Ball:
        """Return the ball of rank k."""
        return self.alpha * KyFanDualBall(k) + (1 - self.alpha) * FrobeniusBall()


@dataclass(frozen=True)
class SFanionBall:
    """``alpha * KyFanDualBall(k) + (1 - alpha) * eta * MaxBall()``, called with k.

    Parameters
    ----------
    alpha : float
        Weight of the dual Ky Fan part, between 0 and 1.
    eta : float
        Radius of the max norm ball in the sum.

    See Also
    --------
    s_fanion, trsvd.s_fanion_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> optim.SFanionBall(0.5, 0.1)(2).support(np.diag([3.0, 2.0]))
    2.75
    """

    alpha: float = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        check_weight(self.alpha)

    def __call__(self, k: int) -> Ball:
        """Return the ball of rank k."""
        return self.alpha * KyFanDualBall(k) + ((1 - self.alpha) * self.eta) * MaxBall()


def f_muon_ball(alpha: float = 0.5) -> Ball:
    """``alpha * SpectralBall() + (1 - alpha) * FrobeniusBall()``."""
    return check_weight(alpha) * SpectralBall() + (1 - alpha) * FrobeniusBall()


def s_muon_ball(alpha: float = 0.5, eta: float = 0.01) -> Ball:
    """``alpha * SpectralBall() + (1 - alpha) * eta * MaxBall()``."""
    return check_weight(alpha) * SpectralBall() + ((1 - alpha) * eta) * MaxBall()
