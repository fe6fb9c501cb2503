"""Rules over any ball: momentum, the oracle's step, scales, decay and learning rate, chained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trsvd._validate import check_flag
from trsvd.balls import Ball
from trsvd.methods import Method
from trsvd.optim.chain import Link, Rule
from trsvd.optim.diagnostics import Diagnostics
from trsvd.optim.oracles import BallOracle, Oracle
from trsvd.optim.transforms import (
    Descent,
    LearningRate,
    Momentum,
    ShapeScaling,
    WeightDecay,
    WeightNormalization,
)
from trsvd.polar.methods import PolarIteration

__all__ = ["LearningRateLike", "Rank", "Scaling", "finished", "from_ball", "from_oracle"]

LearningRateLike = float | Callable[[int], float]
Rank = int | float | Callable[[int], float]
Scaling = str | Callable[[int, int], float] | None


def finished(
    links: list[Link],
    lr: LearningRateLike,
    weight_decay: float,
    shape_scaling: Scaling,
    normalize_weights: bool,
    layout: str,
) -> Rule:
    """The rule that ends in scales, decay and learning rate."""
    check_flag("normalize_weights", normalize_weights)
    if shape_scaling is not None:
        links.append(ShapeScaling(scaling=shape_scaling, layout=layout))
    if weight_decay:
        links.append(WeightDecay(weight_decay=weight_decay))
    links.append(LearningRate(lr=lr))
    if normalize_weights:
        links.append(WeightNormalization(lr=lr))
    return Rule(tuple(links))


def from_oracle(
    oracle: Oracle,
    lr: LearningRateLike,
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    ema: bool = False,
    weight_decay: float = 0.0,
    shape_scaling: Scaling = None,
    normalize_weights: bool = False,
    layout: str = "auto",
    diagnostics: Callable[[Diagnostics], Any] | None = None,
    every: int = 1,
) -> Rule:
    """The rule that steps along what an oracle answers to the momentum.

    Parameters
    ----------
    oracle : Oracle
        With a method ``directions``, as `trsvd.optim.BallOracle`.
    lr, momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule
    """
    links: list[Link] = [
        Momentum(momentum=momentum, nesterov=nesterov, ema=ema),
        Descent(oracle=oracle, layout=layout, diagnostics=diagnostics, every=every),
    ]
    return finished(links, lr, weight_decay, shape_scaling, normalize_weights, layout)


def from_ball(
    ball: Ball | Callable[[int], Ball],
    lr: LearningRateLike,
    *,
    k: Rank | None = None,
    method: str | Method | PolarIteration | None = None,
    gap: float = 1e-2,
    seed: int = 0,
    momentum: float = 0.95,
    nesterov: bool = True,
    ema: bool = False,
    weight_decay: float = 0.0,
    shape_scaling: Scaling = None,
    normalize_weights: bool = False,
    layout: str = "auto",
    diagnostics: Callable[[Diagnostics], Any] | None = None,
    every: int = 1,
) -> Rule:
    """The rule that steps along the linear minimization oracle of a ball.

    ``M <- mu M + G``; ``E = G + mu M``; ``W <- (1 - lr wd) W + lr * lmo(E)``.

    Parameters
    ----------
    ball : Ball, or callable
        Any ball, or a function that makes one of a rank.
    lr : float or callable
        Learning rate, at least 0, or a schedule: a function of the step, which counts from 0.
    k : int, float or callable, optional
        The rank where ``ball`` is a function: an integer, a share of min(m, n) as a float between 0
        and 1, or a schedule of either (see `trsvd.optim.schedules`).
    method : str, Method, NewtonSchulz or PolarExpress, optional
        How the oracle is computed. ``"exact"`` is a full factorization; the iterations are for
        balls with a spectral part, and their iterates are used as they come (see
        `trsvd.optim.BallOracle`); ``"newton-schulz"`` is that of `torch.optim.Muon`. None: the
        method that the ball chooses for ``gap``.
    gap : float, default 1e-2
        Relative gap that is enough for a truncated oracle.
    seed : int, default 0
        Of the random numbers.
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    nesterov : bool, default True
        True: the direction is ``G + mu M``; False: M.
    ema : bool, default False
        True: ``M <- mu M + (1 - mu) G``, see `trsvd.optim.Momentum`.
    weight_decay : float, default 0
        Decoupled: parameters are multiplied by ``1 - lr * weight_decay``.
    shape_scaling : str, callable or None, default None
        Factor of the updates: one of `trsvd.optim.SCALINGS`, or a function of m and n.
    normalize_weights : bool, default False
        Bring parameters to a Frobenius norm of ``sqrt(m)`` before each step, as airbench does.
    layout : str, default "auto"
        How parameters are read as matrices, see `trsvd.optim.LAYOUTS`.
    diagnostics : callable, optional
        Called with a `trsvd.optim.Diagnostics` for each matrix.
    every : int, default 1
        The steps from one such call to the next.

    Returns
    -------
    Rule

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind described.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> rule = optim.from_ball(trsvd.SpectralBall(), 0.1, momentum=0.0)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(12) + 0.0
    array([[-0.1,  0. ],
           [ 0. , -0.1]])
    """
    options = dict(locals())
    own = {name: options.pop(name) for name in ("ball", "k", "method", "gap", "seed")}
    return from_oracle(BallOracle(**own), **options)
