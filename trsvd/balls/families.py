"""The balls of the families, as functions of the rank; and Muon's method and scale."""

from __future__ import annotations

from dataclasses import dataclass

from trsvd._validate import check_number
from trsvd.balls import Ball, FrobeniusBall, KyFanDualBall, MaxBall, SpectralBall


def _weight(alpha: float) -> float:
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
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        _weight(self.alpha)

    def __call__(self, k: int) -> Ball:
        """The ball of rank k."""
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
    """

    alpha: float = 0.5
    eta: float = 0.01

    def __post_init__(self) -> None:
        _weight(self.alpha)

    def __call__(self, k: int) -> Ball:
        """The ball of rank k."""
        return self.alpha * KyFanDualBall(k) + ((1 - self.alpha) * self.eta) * MaxBall()


def f_muon_ball(alpha: float = 0.5) -> Ball:
    """``alpha * SpectralBall() + (1 - alpha) * FrobeniusBall()``."""
    return _weight(alpha) * SpectralBall() + (1 - alpha) * FrobeniusBall()


def s_muon_ball(alpha: float = 0.5, eta: float = 0.01) -> Ball:
    """``alpha * SpectralBall() + (1 - alpha) * eta * MaxBall()``."""
    return _weight(alpha) * SpectralBall() + ((1 - alpha) * eta) * MaxBall()
