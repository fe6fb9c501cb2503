"""Optimizers of the paper and related ones, each a chain of transforms with the oracle of a ball.

They are short forms of `from_ball`, and take its keywords::

    fanion(lr, k)       from_ball(KyFanDualBall, lr, k=k)
    f_muon(lr)          from_ball(0.5 * SpectralBall() + 0.5 * FrobeniusBall(), lr)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trsvd._validate import check_flag
from trsvd.balls import Ball, FrobeniusBall, KyFanDualBall, MaxBall, NuclearBall, SpectralBall
from trsvd.balls.families import FFanionBall, SFanionBall, f_muon_ball, s_muon_ball
from trsvd.methods import Method
from trsvd.optim.diagnostics import Diagnostics
from trsvd.optim.dion_normuon import DionStep, RowNormalization
from trsvd.optim.oracles import (
    BallOracle,
    FStarOracle,
    Oracle,
    RegularizedOracle,
    muon_method,
    muon_scaling,
    row_oracle,
)
from trsvd.optim.transforms import (
    LastOnly,
    LearningRate,
    Momentum,
    OracleStep,
    Rule,
    ShapeScaling,
    Transform,
    WeightDecay,
    WeightNormalization,
)
from trsvd.polar import QUINTIC
from trsvd.polar.methods import PolarIteration

Polar = str | Method | PolarIteration


def fanion(
    lr: LearningRateLike,
    k: Pairs = None,
    *,
    rank_fraction: Fraction = None,
    method: Any = None,
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
    """Fanion-k: the oracle of the dual Ky Fan k-norm, ``-U_k V_k^H``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    k : int or callable
        The rank, as for `from_ball`; a schedule of it makes this NuMuon (arXiv:2603.03597).
    rank_fraction : float or callable
        The rank as a fraction of min(m, n), or a schedule of it; pass either this or k.
    method, gap, seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    from_ball, f_fanion, s_fanion, trsvd.optim.torch.Fanion

    References
    ----------
    A. Kravatskiy et al., The Ky Fan Norms and Beyond, arXiv:2512.09678.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.fanion(0.1, k=1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.1,  0. ],
           [ 0. ,  0. ]])
    """
    return from_ball(KyFanDualBall, **locals())


def f_fanion(
    lr: LearningRateLike,
    k: Pairs = None,
    *,
    rank_fraction: Fraction = None,
    alpha: float = 0.5,
    method: Any = None,
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
    """F-Fanion-k: ``-(alpha U_k V_k^H + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    lr, k, rank_fraction
        As for `fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    method, gap, seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    fanion, s_fanion, trsvd.optim.torch.FFanion

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.f_fanion(0.1, k=1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.0916,  0.    ],
           [ 0.    , -0.0277]])
    """
    options = dict(locals())
    return from_ball(FFanionBall(options.pop("alpha")), **options)


def s_fanion(
    lr: LearningRateLike,
    k: Pairs = None,
    *,
    rank_fraction: Fraction = None,
    alpha: float = 0.5,
    eta: float = 0.01,
    method: Any = None,
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
    """S-Fanion-k: ``-(alpha U_k V_k^H + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    lr, k, rank_fraction
        As for `fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    method, gap, seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    fanion, f_fanion, trsvd.optim.torch.SFanion

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.s_fanion(0.1, k=1, eta=0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.055,  0.   ],
           [ 0.   , -0.005]])
    """
    options = dict(locals())
    ball = SFanionBall(options.pop("alpha"), options.pop("eta"))
    return from_ball(ball, **options)


def neon(
    lr: LearningRateLike,
    *,
    method: Any = None,
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
    """Neon: Fanion-1, ``-u_1 v_1^H``.

    Parameters
    ----------
    lr, method, gap, seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    fanion, trsvd.optim.torch.Neon

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.neon(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.1,  0. ],
           [ 0. ,  0. ]])
    """
    return fanion(k=1, **locals())


def f_neon(
    lr: LearningRateLike,
    *,
    alpha: float = 0.5,
    method: Any = None,
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
    """F-Neon: F-Fanion-1.

    Parameters
    ----------
    lr, alpha, method, gap, seed
        As for `f_fanion`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    f_fanion, trsvd.optim.torch.FNeon

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.f_neon(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.0916,  0.    ],
           [ 0.    , -0.0277]])
    """
    return f_fanion(k=1, **locals())


def s_neon(
    lr: LearningRateLike,
    *,
    alpha: float = 0.5,
    eta: float = 0.01,
    method: Any = None,
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
    """S-Neon: S-Fanion-1.

    Parameters
    ----------
    lr, alpha, eta, method, gap, seed
        As for `s_fanion`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    s_fanion, trsvd.optim.torch.SNeon

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.s_neon(0.1, eta=0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.055,  0.   ],
           [ 0.   , -0.005]])
    """
    return s_fanion(k=1, **locals())


def muon(
    lr: LearningRateLike = 1e-3,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_coefficients: Sequence[float] = QUINTIC,
    eps: float = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
    *,
    method: Polar = "newton-schulz",
    shape_scaling: Scaling = None,
    ema: bool = True,
    normalize_weights: bool = False,
    layout: str = "auto",
    seed: int = 0,
    diagnostics: Callable[[Diagnostics], Any] | None = None,
    every: int = 1,
) -> Rule:
    """Muon, with the algorithm and the defaults of `torch.optim.Muon`.

    The direction is a moving average of the gradients with Nesterov's step. Five Newton-Schulz
    steps approximate its polar factor, which is multiplied by ``sqrt(max(1, m / n))``. They run in
    bfloat16, or in float32 if the array library has no bfloat16 (as NumPy).

    Parameters
    ----------
    lr : float or callable, default 1e-3
        Learning rate, or a schedule.
    weight_decay : float, default 0.1
        Decoupled: parameters are multiplied by ``1 - lr * weight_decay``.
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    nesterov : bool, default True
        True: the direction is ``(1 - mu) G + mu M``; False: M.
    ns_coefficients : tuple of three floats, default (3.4445, -4.775, 2.0315)
        Coefficients of the Newton-Schulz polynomial.
    eps : float, default 1e-7
        Lower bound of the Frobenius norm that the direction is divided by.
    ns_steps : int, default 5
        Number of Newton-Schulz steps, below 100.
    adjust_lr_fn : str, optional
        ``"original"`` (the default): updates times ``sqrt(max(1, m / n))``.
        ``"match_rms_adamw"``: times ``0.2 sqrt(max(m, n))``.
    method : str, Method, NewtonSchulz or PolarExpress, default "newton-schulz"
        ``"newton-schulz"``: the iteration of `torch.optim.Muon`. ``"exact"``: the polar factor by
        an SVD. ``"gram"``: the polar factor from the eigenvalues of the Gram matrix, in double
        precision. An iteration object, such as `trsvd.NewtonSchulz`, scales the direction first,
        so that the update does not depend on the norm of the gradient.
    shape_scaling : str or callable, optional
        Factor of the updates in place of ``adjust_lr_fn``, one of `trsvd.optim.SCALINGS`
        (``"none"`` for 1) or a function of m and n.
    ema : bool, default True
        True: ``M <- mu M + (1 - mu) G``. False: ``M <- mu M + G``.
    normalize_weights, layout, seed, diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    normuon, f_muon, s_muon, trsvd.optim.torch.Muon

    References
    ----------
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon/.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.muon(0.1, method="exact", weight_decay=0.0)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.1,  0. ],
           [ 0. , -0.1]])
    """
    options = dict(locals())
    iteration = [options.pop(name) for name in ("ns_steps", "ns_coefficients", "eps")]
    options["method"] = muon_method(method, *iteration)
    options["shape_scaling"] = muon_scaling(options.pop("adjust_lr_fn"), shape_scaling)
    return from_ball(SpectralBall(), **options)


def f_muon(
    lr: LearningRateLike,
    *,
    alpha: float = 0.5,
    method: Polar = "exact",
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
    """F-Muon: ``-(alpha U V^H + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    method : str, Method, NewtonSchulz or PolarExpress, default "exact"
        As for `muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.
    seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    muon, s_muon, trsvd.optim.torch.FMuon

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.f_muon(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.0916,  0.    ],
           [ 0.    , -0.0777]])
    """
    options = dict(locals())
    return from_ball(f_muon_ball(options.pop("alpha")), **options)


def s_muon(
    lr: LearningRateLike,
    *,
    alpha: float = 0.5,
    eta: float = 0.01,
    method: Polar = "exact",
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
    """S-Muon: ``-(alpha U V^H + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    method : str, Method, NewtonSchulz or PolarExpress, default "exact"
        As for `muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    muon, f_muon, trsvd.optim.torch.SMuon

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.s_muon(0.1, eta=0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.055,  0.   ],
           [ 0.   , -0.055]])
    """
    options = dict(locals())
    ball = s_muon_ball(options.pop("alpha"), options.pop("eta"))
    return from_ball(ball, **options)


def nsgd(
    lr: LearningRateLike,
    *,
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
    """Normalized SGD: the oracle of the Frobenius norm, ``-E / ||E||_F``.

    Parameters
    ----------
    lr, seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    sign_sgd, trsvd.optim.torch.NSGD

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.nsgd(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.0832,  0.    ],
           [ 0.    , -0.0555]])
    """
    return from_ball(FrobeniusBall(), **locals())


def sign_sgd(
    lr: LearningRateLike,
    *,
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
    """SignSGD: the oracle of the entrywise max norm, ``-sign(E)``.

    Parameters
    ----------
    lr, seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    nsgd, trsvd.optim.torch.SignSGD

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.sign_sgd(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.1,  0. ],
           [ 0. , -0.1]])
    """
    return from_ball(MaxBall(), **locals())


def nuclear_neon(
    lr: LearningRateLike,
    *,
    lam: float = 1.0,
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
    """Nuclear-Neon: ``argmin <E, D> + lam ||D||_*^2``, which is ``-(s_1 / (2 lam)) u_1 v_1^H``.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    lam : float, default 1
        Weight of the regularization, positive.
    gap, seed
        As for `from_ball`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    f_star_neon, trsvd.nuclear_neon, trsvd.optim.torch.NuclearNeon

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.nuclear_neon(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.2925,  0.    ],
           [ 0.    ,  0.    ]])
    """
    options = dict(locals())
    own = {name: options.pop(name) for name in ("lam", "gap", "seed")}
    return from_oracle(RegularizedOracle(ball=NuclearBall(), **own), **options)


def f_star_neon(
    lr: LearningRateLike,
    *,
    lam: float = 1.0,
    tol: float | None = None,
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
    """F*-Neon: ``-(1 / lam) U max(S - tau, 0) V^H``, see `trsvd.f_star_neon`.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    lam : float, default 1
        Weight of the regularization, positive.
    tol : float, optional
        Largest relative residual of the singular triplets.
    seed : int, default 0
        Seed of the random numbers.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    nuclear_neon, trsvd.f_star_neon, trsvd.optim.torch.FStarNeon

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.f_star_neon(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.26 ,  0.   ],
           [ 0.   , -0.065]])
    """
    options = dict(locals())
    own = {name: options.pop(name) for name in ("lam", "tol", "seed")}
    return from_oracle(FStarOracle(**own), **options)


def dion(
    lr: LearningRateLike,
    k: int | None = None,
    *,
    rank_fraction: float | None = None,
    momentum: float = 0.95,
    orthonormal: bool = False,
    transpose: bool = True,
    weight_decay: float = 0.0,
    shape_scaling: Scaling = "rms",
    normalize_weights: bool = False,
    layout: str = "auto",
    seed: int = 0,
) -> Rule:
    """Dion: rank-k power iteration on ``B = M + G``, ``M <- B - (1 - mu) P R^H``.

    The update is ``-P C^H``, where C is the column-normalized R. Its singular values can exceed 1,
    so that it does not lie in the dual Ky Fan k-ball. With ``orthonormal=True`` the update is the
    polar factor ``-P polar(R)^H``, which lies in this ball. The buffers are the same.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    k : int
        The rank.
    rank_fraction : float
        The rank as a fraction of min(m, n), rounded up; pass either this or k.
    momentum : float, default 0.95
        ``mu``: share of the used part ``P R^H`` that stays in the buffer.
    orthonormal : bool, default False
        True: the update is the polar factor.
    transpose : bool, default True
        True: iterate on the transpose where m < n, as in the authors' ``dion.py``. False: never, as
        in their ``dion_simple.py``. The two differ for wide matrices.
    weight_decay, normalize_weights, layout, seed
        As for `from_ball`.
    shape_scaling : str, callable or None, default "rms"
        ``"rms"`` is ``sqrt(m / n)``, as published.

    Returns
    -------
    Rule

    See Also
    --------
    fanion, trsvd.optim.torch.Dion

    References
    ----------
    K. Ahn et al., Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.dion(0.1, k=2)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.1158, -0.0049],
           [-0.0073, -0.0807]])
    """
    transform = DionStep(
        k=k,
        rank_fraction=rank_fraction,
        momentum=momentum,
        orthonormal=orthonormal,
        transpose=transpose,
        layout=layout,
        seed=seed,
    )
    return finished([transform], lr, weight_decay, shape_scaling, normalize_weights, layout)


def normuon(
    lr: LearningRateLike,
    *,
    beta2: float = 0.95,
    eps: float = 1e-10,
    method: Polar = "newton-schulz",
    momentum: float = 0.95,
    nesterov: bool = True,
    ema: bool = True,
    weight_decay: float = 0.0,
    shape_scaling: Scaling = "muon",
    normalize_weights: bool = False,
    layout: str = "auto",
    seed: int = 0,
    diagnostics: Callable[[Diagnostics], Any] | None = None,
    every: int = 1,
) -> Rule:
    """NorMuon: Muon with each row of the polar factor divided by its running root mean square.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    beta2 : float, default 0.95
        Decay of the mean squares of the rows.
    eps : float, default 1e-10
        Number added to the root mean squares.
    method : str, Method, NewtonSchulz or PolarExpress, default "newton-schulz"
        As for `muon`.
    momentum, nesterov, weight_decay, normalize_weights, layout, seed, diagnostics, every
        As for `from_ball`.
    ema : bool, default True
        As for `from_ball`, and as published.
    shape_scaling : str, callable or None, default "muon"
        ``"muon"`` is ``sqrt(max(1, m / n))``, as published.

    Returns
    -------
    Rule

    See Also
    --------
    muon, trsvd.optim.torch.NorMuon

    References
    ----------
    Z. Li et al., NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.normuon(0.1, method="exact")
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.1,  0. ],
           [ 0. , -0.1]])
    """
    options = dict(locals())
    rows = RowNormalization(beta2=options.pop("beta2"), eps=options.pop("eps"), layout=layout)
    rule = from_ball(SpectralBall(), **options)
    transforms = list(rule.transforms)
    transforms.insert(2, rows)
    return Rule(tuple(transforms))


def scale(
    lr: LearningRateLike,
    *,
    normalization: str = "rms",
    eps: float = 1e-8,
    momentum: float = 0.9,
    nesterov: bool = False,
    ema: bool = True,
    weight_decay: float = 0.0,
    shape_scaling: Scaling = None,
    normalize_weights: bool = False,
    layout: str = "auto",
    diagnostics: Callable[[Diagnostics], Any] | None = None,
    every: int = 1,
) -> Rule:
    """SCALE: gradient of each output divided by its root mean square; momentum for the head only.

    Parameters
    ----------
    lr : float or callable
        Learning rate, or a schedule.
    normalization : str, default "rms"
        ``"rms"``: divide by the root mean square, or by ``eps`` if it is larger. ``"l2"``: divide
        by the 2-norm, as the oracle of the row-wise ball does. Updates are then ``sqrt(in)`` times
        smaller.
    eps : float, default 1e-8
        Lower bound of the root mean squares.
    momentum : float, default 0.9
        Momentum of the last parameter in the given order, which must be that of the head.
    nesterov : bool, default False
        As for `from_ball`.
    ema : bool, default True
        As for `from_ball`, and as published.
    weight_decay, shape_scaling, normalize_weights, diagnostics, every
        As for `from_ball`.
    layout : str, default "auto"
        As for `from_ball`. By default parameters are read as (out, in), as in PyTorch. Pass
        ``"in_out"`` for kernels (in, out) and embeddings (vocabulary, d).

    Returns
    -------
    Rule

    See Also
    --------
    nsgd, trsvd.optim.torch.SCALE

    References
    ----------
    A. Glentis et al., A minimalist optimizer design for LLM pretraining, arXiv:2506.16659.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.scale(0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.1414,  0.    ],
           [ 0.    , -0.1414]])
    """
    options = dict(locals())
    oracle = row_oracle(options.pop("normalization"), options.pop("eps"))
    first = Momentum(**{name: options.pop(name) for name in ("momentum", "nesterov", "ema")})
    rule = from_oracle(oracle, momentum=0.0, **options)
    return Rule((LastOnly(first), *rule.transforms[1:]))


LearningRateLike = float | Callable[[int], float]
Pairs = int | Callable[[int], float] | None
Fraction = float | Callable[[int], float] | None
Scaling = str | Callable[[int, int], float] | None


def finished(
    transforms: list[Transform],
    lr: LearningRateLike,
    weight_decay: float,
    shape_scaling: Scaling,
    normalize_weights: bool,
    layout: str,
) -> Rule:
    """Return the rule of transforms followed by shape scaling, weight decay and learning rate."""
    check_flag("normalize_weights", normalize_weights)
    if shape_scaling is not None:
        transforms.append(ShapeScaling(scaling=shape_scaling, layout=layout))
    if weight_decay:
        transforms.append(WeightDecay(weight_decay=weight_decay))
    transforms.append(LearningRate(lr=lr))
    if normalize_weights:
        transforms.append(WeightNormalization(lr=lr))
    return Rule(tuple(transforms))


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
    """Return the rule that steps along the output of an oracle for the momentum.

    Parameters
    ----------
    oracle : Oracle
        Oracle with a method ``directions``, such as `trsvd.optim.BallOracle`.
    lr, momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, layout
        As for `from_ball`.
    diagnostics, every
        As for `from_ball`.

    Returns
    -------
    Rule

    See Also
    --------
    from_ball, Oracle

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> rule = optim.from_oracle(optim.RegularizedOracle(ball=trsvd.FrobeniusBall(), lam=1.0), 0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.2925,  0.    ],
           [ 0.    , -0.195 ]])
    """
    transforms: list[Transform] = [
        Momentum(momentum=momentum, nesterov=nesterov, ema=ema),
        OracleStep(oracle=oracle, layout=layout, diagnostics=diagnostics, every=every),
    ]
    return finished(transforms, lr, weight_decay, shape_scaling, normalize_weights, layout)


def from_ball(
    ball: Ball | Callable[[int], Ball],
    lr: LearningRateLike,
    *,
    k: Pairs = None,
    rank_fraction: Fraction = None,
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
    """Return the rule that steps along the linear minimization oracle of a ball.

    ``M <- mu M + G``; ``E = G + mu M``; ``W <- (1 - lr wd) W + lr * lmo(E)``.

    Parameters
    ----------
    ball : Ball, or callable
        Any ball, or a function that returns the ball of rank k.
    lr : float or callable
        Learning rate, at least 0, or a schedule: a function of the step index, from 0.
    k : int or callable, optional
        The rank where ``ball`` is a function, or a schedule of it (see `trsvd.optim.schedules`). A
        k above min(m, n) means min(m, n).
    rank_fraction : float or callable, optional
        The rank as a fraction of min(m, n), above 0 and at most 1, rounded up, or a schedule of it;
        pass either this or k.
    method : str, Method, NewtonSchulz or PolarExpress, optional
        Method of the oracle. ``"exact"``: a full factorization. `NewtonSchulz` or `PolarExpress`,
        for balls with a spectral part: the last iterate, see `trsvd.optim.BallOracle`.
        ``"newton-schulz"``: the iteration of `torch.optim.Muon`. None: the method that the ball
        chooses for ``gap``.
    gap : float, default 1e-2
        Largest relative gap of a truncated oracle.
    seed : int, default 0
        Seed of the random numbers.
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
        Scale parameters to a Frobenius norm of ``sqrt(m)`` before each step, as airbench does.
    layout : str, default "auto"
        Layout in which parameters are read as matrices, see `trsvd.optim.LAYOUTS`.
    diagnostics : callable, optional
        Hook that is called with a `trsvd.optim.Diagnostics` for each matrix.
    every : int, default 1
        Number of steps between two calls of the hook.

    Returns
    -------
    Rule

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind described.

    See Also
    --------
    from_oracle, chain, Rule

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
    names = ("ball", "k", "rank_fraction", "method", "gap", "seed")
    own = {name: options.pop(name) for name in names}
    return from_oracle(BallOracle(**own), **options)
