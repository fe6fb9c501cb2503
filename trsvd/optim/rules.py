"""The optimizers of the paper and their relatives, each a chain of links on a ball.

All take the keywords of `from_ball`, of which they are short forms::

    fanion(lr, k)       from_ball(KyFanDualBall, lr, k=k)
    f_muon(lr)          from_ball(0.5 * SpectralBall() + 0.5 * FrobeniusBall(), lr)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trsvd._polar_methods import PolarIteration
from trsvd.balls import (
    ColumnBall,
    FrobeniusBall,
    KyFanDualBall,
    MaxBall,
    NuclearBall,
    SpectralBall,
)
from trsvd.methods import Method
from trsvd.optim._chain import Rule
from trsvd.optim._dion import DionDescent
from trsvd.optim._families import FFanionBall, SFanionBall, f_muon_ball, s_muon_ball
from trsvd.optim._general import LearningRateLike, Rank, finished, from_ball, from_oracle
from trsvd.optim._links import LastOnly, Momentum
from trsvd.optim._normuon import RowNormalization
from trsvd.optim._oracles import FStarOracle, RegularizedOracle

__all__ = [
    "dion",
    "f_fanion",
    "f_muon",
    "f_neon",
    "f_star_neon",
    "fanion",
    "muon",
    "neon",
    "normuon",
    "nsgd",
    "nuclear_neon",
    "s_fanion",
    "s_muon",
    "s_neon",
    "scale",
    "sign_sgd",
]


def fanion(lr: LearningRateLike, k: Rank, **options: Any) -> Rule:
    """Fanion-k: the oracle of the dual Ky Fan k-norm, ``-U_k V_k^H``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    k : int, float or callable
        The rank, as for `from_ball`; a schedule of it makes this NuMuon (arXiv:2603.03597).
    **options
        As for `from_ball`.

    Returns
    -------
    Rule

    References
    ----------
    A. Kravatskiy et al., The Ky Fan Norms and Beyond, arXiv:2512.09678.
    """
    return from_ball(KyFanDualBall, lr, k=k, **options)


def f_fanion(lr: LearningRateLike, k: Rank, *, alpha: float = 0.5, **options: Any) -> Rule:
    """F-Fanion-k: ``-(alpha U_k V_k^H + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    lr, k
        As for `fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    **options
        As for `from_ball`.

    Returns
    -------
    Rule
    """
    return from_ball(FFanionBall(alpha), lr, k=k, **options)


def s_fanion(
    lr: LearningRateLike, k: Rank, *, alpha: float = 0.5, eta: float = 0.01, **options: Any
) -> Rule:
    """S-Fanion-k: ``-(alpha U_k V_k^H + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    lr, k
        As for `fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    **options
        As for `from_ball`.

    Returns
    -------
    Rule
    """
    return from_ball(SFanionBall(alpha, eta), lr, k=k, **options)


def neon(lr: LearningRateLike, **options: Any) -> Rule:
    """Neon: Fanion-1, ``-u_1 v_1^H``.

    Parameters
    ----------
    lr, **options
        As for `from_ball`.

    Returns
    -------
    Rule
    """
    return fanion(lr, 1, **options)


def f_neon(lr: LearningRateLike, *, alpha: float = 0.5, **options: Any) -> Rule:
    """F-Neon: F-Fanion-1.

    Parameters
    ----------
    lr, alpha, **options
        As for `f_fanion`.

    Returns
    -------
    Rule
    """
    return f_fanion(lr, 1, alpha=alpha, **options)


def s_neon(lr: LearningRateLike, *, alpha: float = 0.5, eta: float = 0.01, **options: Any) -> Rule:
    """S-Neon: S-Fanion-1.

    Parameters
    ----------
    lr, alpha, eta, **options
        As for `s_fanion`.

    Returns
    -------
    Rule
    """
    return s_fanion(lr, 1, alpha=alpha, eta=eta, **options)


def muon(
    lr: LearningRateLike, *, method: str | Method | PolarIteration = "exact", **options: Any
) -> Rule:
    """Muon: the oracle of the spectral norm, ``-U V^H``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    method : str, Method, NewtonSchulz or PolarExpress, default "exact"
        ``"exact"``, ``"gram"``, ``trsvd.NewtonSchulz()`` (as Muon has it) or
        ``trsvd.PolarExpress()``.
    **options
        As for `from_ball`.

    Returns
    -------
    Rule

    References
    ----------
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon/.
    """
    return from_ball(SpectralBall(), lr, method=method, **options)


def f_muon(
    lr: LearningRateLike,
    *,
    alpha: float = 0.5,
    method: str | Method | PolarIteration = "exact",
    **options: Any,
) -> Rule:
    """F-Muon: ``-(alpha U V^H + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    lr, method, **options
        As for `muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.

    Returns
    -------
    Rule
    """
    return from_ball(f_muon_ball(alpha), lr, method=method, **options)


def s_muon(
    lr: LearningRateLike,
    *,
    alpha: float = 0.5,
    eta: float = 0.01,
    method: str | Method | PolarIteration = "exact",
    **options: Any,
) -> Rule:
    """S-Muon: ``-(alpha U V^H + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    lr, method, **options
        As for `muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.

    Returns
    -------
    Rule
    """
    return from_ball(s_muon_ball(alpha, eta), lr, method=method, **options)


def nsgd(lr: LearningRateLike, **options: Any) -> Rule:
    """Normalized SGD: the oracle of the Frobenius norm, ``-E / ||E||_F``.

    Parameters
    ----------
    lr, **options
        As for `from_ball`.

    Returns
    -------
    Rule
    """
    return from_ball(FrobeniusBall(), lr, **options)


def sign_sgd(lr: LearningRateLike, **options: Any) -> Rule:
    """SignSGD: the oracle of the entrywise max norm, ``-sign(E)``.

    Parameters
    ----------
    lr, **options
        As for `from_ball`.

    Returns
    -------
    Rule
    """
    return from_ball(MaxBall(), lr, **options)


def nuclear_neon(
    lr: LearningRateLike, *, lam: float = 1.0, gap: float = 1e-2, seed: int = 0, **options: Any
) -> Rule:
    """Nuclear-Neon: ``argmin <E, D> + lam ||D||_*^2``, which is ``-(s_1 / (2 lam)) u_1 v_1^H``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    lam : float, default 1
        Positive.
    gap, seed
        As for `from_ball`.
    **options
        As for `from_oracle`.

    Returns
    -------
    Rule
    """
    oracle = RegularizedOracle(ball=NuclearBall(), lam=lam, gap=gap, seed=seed)
    return from_oracle(oracle, lr, **options)


def f_star_neon(
    lr: LearningRateLike,
    *,
    lam: float = 1.0,
    tol: float | None = None,
    seed: int = 0,
    **options: Any,
) -> Rule:
    """F*-Neon: ``-(1 / lam) U max(S - tau, 0) V^H``, see `trsvd.f_star_neon`.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    lam : float, default 1
        Positive.
    tol : float, optional
        Relative residual of the singular triplets.
    seed : int, default 0
        Of the random numbers.
    **options
        As for `from_oracle`.

    Returns
    -------
    Rule
    """
    return from_oracle(FStarOracle(lam=lam, tol=tol, seed=seed), lr, **options)


def dion(
    lr: LearningRateLike,
    k: int | float,
    *,
    momentum: float = 0.95,
    orthonormal: bool = False,
    weight_decay: float = 0.0,
    shape_scaling: str | Callable[[int, int], float] | None = "rms",
    normalize_weights: bool = False,
    layout: str = "auto",
    seed: int = 0,
) -> Rule:
    """Dion: rank-k power iteration on ``B = M + G``, ``M <- B - (1 - mu) P R^H``.

    The update is ``-P C^H`` with the column-normalized R as C. Its singular values can be above 1:
    it is on no ball. With ``orthonormal`` it is the polar factor ``-P polar(R)^H``, which lies in
    the dual Ky Fan k-ball; the buffers are the same.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    k : int or float
        The rank, or a share of min(m, n) as a float up to 1.0.
    momentum : float, default 0.95
        ``mu``: what stays in the buffer of the part that was used.
    orthonormal : bool, default False
        Which variant.
    weight_decay, normalize_weights, layout, seed
        As for `from_ball`.
    shape_scaling : str, callable or None, default "rms"
        ``sqrt(m / n)``, as published.

    Returns
    -------
    Rule

    References
    ----------
    K. Ahn et al., Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.
    """
    link = DionDescent(k=k, momentum=momentum, orthonormal=orthonormal, layout=layout, seed=seed)
    return finished([link], lr, weight_decay, shape_scaling, normalize_weights, layout)


def normuon(
    lr: LearningRateLike,
    *,
    beta2: float = 0.95,
    eps: float = 1e-10,
    method: str | Method | PolarIteration = "exact",
    layout: str = "auto",
    **options: Any,
) -> Rule:
    """NorMuon: Muon with each row of the polar factor over its running root mean square.

    Parameters
    ----------
    lr, method, **options
        As for `muon`.
    beta2 : float, default 0.95
        By how much the mean squares of rows decay.
    eps : float, default 1e-10
        Added to their roots.
    layout : str, default "auto"
        As for `from_ball`.

    Returns
    -------
    Rule

    References
    ----------
    Z. Li et al., NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491.
    """
    rule = muon(lr, method=method, layout=layout, **options)
    links = list(rule.links)
    links.insert(2, RowNormalization(beta2=beta2, eps=eps, layout=layout))
    return Rule(tuple(links))


def scale(
    lr: LearningRateLike, *, momentum: float = 0.9, layout: str = "auto", **options: Any
) -> Rule:
    """SCALE: column-normalized SGD, with momentum for the last parameter only.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    momentum : float, default 0.9
        Of the last parameter, in the order in which they are given: that of the head.
    layout : str, default "auto"
        As for `from_ball`.
    **options
        As for `from_ball`.

    Returns
    -------
    Rule

    References
    ----------
    A. Glentis et al., A minimalist optimizer design for LLM pretraining, arXiv:2506.16659.
    """
    options.setdefault("nesterov", False)
    first = Momentum(
        momentum=momentum, nesterov=options.pop("nesterov"), ema=options.pop("ema", False)
    )
    rule = from_ball(ColumnBall(), lr, momentum=0.0, layout=layout, **options)
    return Rule((LastOnly(first), *rule.links[1:]))
