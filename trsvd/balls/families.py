"""The balls of the families, as functions of the rank; and Muon's method and scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trsvd._validate import check_number
from trsvd.balls import Ball, FrobeniusBall, KyFanDualBall, MaxBall, SpectralBall
from trsvd.optim.oracles import MuonIteration

_ADJUSTMENTS = {None: "muon", "original": "muon", "match_rms_adamw": "adamw"}


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


def muon_method(method: Any, ns_steps: int, ns_coefficients: Sequence[float], eps: float) -> Any:
    """The method of Muon's oracle; ValueError for options that another method does not read."""
    own = MuonIteration(steps=ns_steps, coefficients=ns_coefficients, eps=eps)
    if isinstance(method, str) and method == "newton-schulz":
        return own
    if own != MuonIteration():
        raise ValueError(
            f"ns_steps, ns_coefficients and eps are options of method='newton-schulz', and method "
            f"is {method!r}; leave them out, or pass method=trsvd.NewtonSchulz(steps=..., "
            "coefficients=...)"
        )
    return method


def muon_scaling(adjust_lr_fn: Any, shape_scaling: Any) -> Any:
    """The scaling that is meant by torch's name or by ours; ValueError if both are given."""
    if adjust_lr_fn not in _ADJUSTMENTS:
        raise ValueError(
            f"Adjust learning rate function {adjust_lr_fn} is not supported; pass 'original', "
            "'match_rms_adamw' or None"
        )
    if shape_scaling is None:
        return _ADJUSTMENTS[adjust_lr_fn]
    if adjust_lr_fn is not None:
        raise ValueError(
            f"adjust_lr_fn={adjust_lr_fn!r} beside shape_scaling={shape_scaling!r}; both are the "
            "factor of the updates: pass one of them"
        )
    return shape_scaling
