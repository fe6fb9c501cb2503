"""PyTorch optimizers with the oracle of a ball: the families of Fanion-k and of Muon."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trsvd._arrays.arrays import Arrays
from trsvd._errors import warn_caller
from trsvd._validate import check_number
from trsvd.balls import Ball, FrobeniusBall, KyFanDualBall, MaxBall, NuclearBall, SpectralBall
from trsvd.balls.families import FFanionBall, SFanionBall, f_muon_ball, s_muon_ball
from trsvd.optim.dion_normuon import (
    check_beta2,
    check_eps,
    dion_step,
    fixed_rank,
    right_factors,
    row_normalized,
)
from trsvd.optim.oracles import (
    BallOracle,
    Direction,
    FStarOracle,
    Oracle,
    RegularizedOracle,
    muon_method,
    muon_scaling,
    row_oracle,
)
from trsvd.optim.torch.base import MatrixOptimizer, Plan, Scaling, Work, hyperparameters
from trsvd.optim.torch.shards import gathered, own_part
from trsvd.optim.transforms import from_stack, to_stack
from trsvd.polar import QUINTIC
from trsvd.polar.methods import PolarIteration

Pairs = int | Callable[[int], float] | None
Fraction = float | Callable[[int], float] | None
Polar = str | PolarIteration


class FamilyOptimizer(MatrixOptimizer):
    """Optimizer with the oracle of a ball, given by the hyper-parameters of a group."""

    def ball(self, group: dict[str, Any]) -> Ball | Callable[[int], Ball]:
        """Return the ball of a parameter group, or a function of the rank that returns it."""
        raise NotImplementedError

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Return the oracle of the ball."""
        return BallOracle(
            ball=self.ball(group),
            k=group.get("k"),
            rank_fraction=group.get("rank_fraction"),
            method=group.get("method"),
            gap=group.get("gap", 1e-2),
            seed=group["seed"],
        )


class BallOptimizer(FamilyOptimizer):
    """Optimizer with the linear minimization oracle of any ball.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    ball : Ball or callable
        The ball, or a function that returns the ball of rank k. Not part of the state_dict.
    k : int or callable, optional
        The rank, where ``ball`` is a function, or a schedule of it (see `trsvd.optim.schedules`).
    rank_fraction : float or callable, optional
        The rank as a fraction of min(m, n), or a schedule of it; pass either this or k.
    method : str, Method, NewtonSchulz or PolarExpress, optional
        As for `trsvd.optim.from_ball`.
    gap : float, default 1e-2
        Largest relative gap of a truncated oracle.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    Fanion, Muon, MatrixOptimizer

    Examples
    --------
    >>> import torch, trsvd
    >>> from trsvd.optim.torch import BallOptimizer
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = BallOptimizer([W], lr=0.1, ball=trsvd.SpectralBall())
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.9, 0.0], [0.0, 1.9]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        ball: Ball | Callable[[int], Ball],
        k: Pairs = None,
        rank_fraction: Fraction = None,
        method: Any = None,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        given = hyperparameters(locals())
        self._ball = given.pop("ball")
        super().__init__(params, lr, given)

    def ball(self, group: dict[str, Any]) -> Ball | Callable[[int], Ball]:
        """Return the ball that was passed to the constructor."""
        del group
        ball: Ball | Callable[[int], Ball] = self._ball
        return ball

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        return {**state, "_ball": self._ball}


class Fanion(FamilyOptimizer):
    """Fanion-k: steps along ``-U_k V_k^T``, the oracle of the dual Ky Fan k-norm.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    k : int or callable
        The rank, or a schedule of it, which makes this NuMuon (arXiv:2603.03597). A k above
        min(m, n) means min(m, n).
    rank_fraction : float or callable
        The rank as a fraction of min(m, n), above 0 and at most 1, rounded up, or a schedule of it;
        pass either this or k.
    method : str or Method, optional
        ``"exact"``, or a method of `trsvd.svds`. None: block products that start from the last
        subspace and stop at ``gap``.
    gap : float, default 1e-2
        Largest relative gap of the update.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    FFanion, SFanion, split_parameters, trsvd.optim.fanion

    References
    ----------
    A. Kravatskiy et al., The Ky Fan Norms and Beyond, arXiv:2512.09678.

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import Fanion
    >>> W = torch.nn.Parameter(torch.eye(4))
    >>> optimizer = Fanion([W], lr=0.5, k=2)
    >>> (W * torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))).sum().backward()
    >>> optimizer.step()
    >>> [round(value, 4) for value in W.detach().diagonal().tolist()]
    [0.5, 0.5, 1.0, 1.0]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        k: Pairs = None,
        rank_fraction: Fraction = None,
        method: Any = None,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Callable[[int], Ball]:
        """Return the class of the dual Ky Fan k-ball, as a function of k."""
        del group
        return KyFanDualBall


class FFanion(FamilyOptimizer):
    """F-Fanion-k: steps along ``-(alpha U_k V_k^T + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    params, lr, k, rank_fraction, method, gap
        As for `Fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.f_fanion

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import FFanion
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = FFanion([W], lr=0.1, k=1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.908, 0.0], [0.0, 1.972]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        k: Pairs = None,
        rank_fraction: Fraction = None,
        alpha: float = 0.5,
        method: Any = None,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Callable[[int], Ball]:
        """Return the sum of two balls, as a function of k."""
        return FFanionBall(group["alpha"])


class SFanion(FamilyOptimizer):
    """S-Fanion-k: steps along ``-(alpha U_k V_k^T + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    params, lr, k, rank_fraction, method, gap
        As for `Fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.s_fanion

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import SFanion
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = SFanion([W], lr=0.1, k=1, eta=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.945, 0.0], [0.0, 1.995]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        k: Pairs = None,
        rank_fraction: Fraction = None,
        alpha: float = 0.5,
        eta: float = 0.01,
        method: Any = None,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Callable[[int], Ball]:
        """Return the sum of two balls, as a function of k."""
        return SFanionBall(group["alpha"], group["eta"])


class Neon(Fanion):
    """Neon: Fanion-1, steps along ``-u_1 v_1^T``.

    Parameters
    ----------
    params, lr, method, gap
        As for `Fanion`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.neon

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import Neon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = Neon([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.9, 0.0], [0.0, 2.0]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        method: Any = None,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, k=1, **hyperparameters(locals()))


class FNeon(FFanion):
    """F-Neon: F-Fanion-1.

    Parameters
    ----------
    params, lr, alpha, method, gap
        As for `FFanion`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.f_neon

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import FNeon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = FNeon([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.908, 0.0], [0.0, 1.972]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        alpha: float = 0.5,
        method: Any = None,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, k=1, **hyperparameters(locals()))


class SNeon(SFanion):
    """S-Neon: S-Fanion-1.

    Parameters
    ----------
    params, lr, alpha, eta, method, gap
        As for `SFanion`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.s_neon

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import SNeon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = SNeon([W], lr=0.1, eta=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.945, 0.0], [0.0, 1.995]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        alpha: float = 0.5,
        eta: float = 0.01,
        method: Any = None,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, k=1, **hyperparameters(locals()))


class Muon(FamilyOptimizer):
    """Muon, with the algorithm and the defaults of `torch.optim.Muon`.

    The direction is a moving average of the gradients with Nesterov's step. Five Newton-Schulz
    steps in bfloat16 approximate its polar factor, which is multiplied by ``sqrt(max(1, m / n))``.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
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
    method : str, NewtonSchulz or PolarExpress, default "newton-schulz"
        ``"newton-schulz"``: the iteration of `torch.optim.Muon`. ``"exact"``: the polar factor by
        an SVD. ``"gram"``: the polar factor from the eigenvalues of the Gram matrix, in double
        precision. An iteration object, such as `trsvd.NewtonSchulz`, scales the direction first,
        so that the update does not depend on the norm of the gradient.
    shape_scaling : str or callable, optional
        Factor of the updates in place of ``adjust_lr_fn``, one of `trsvd.optim.SCALINGS`
        (``"none"`` for 1) or a function of m and n.
    ema : bool, default True
        True: ``M <- mu M + (1 - mu) G``. False: ``M <- mu M + G``, and Nesterov's direction is
        ``G + mu M``.
    normalize_weights, maximize, momentum_dtype, layout, seed
        As for `common_options`.

    Raises
    ------
    ValueError
        If ``adjust_lr_fn`` is given with ``shape_scaling``, or ``ns_steps``, ``ns_coefficients`` or
        ``eps`` with another method than ``"newton-schulz"``.

    See Also
    --------
    NorMuon, FMuon, split_parameters, trsvd.optim.muon

    Notes
    -----
    This class can load a state_dict of `torch.optim.Muon`, and the other way round. For matrices
    the steps of both are the same. There are two differences: parameters may have more than two
    dimensions here (see ``layout``), and a direction with NaN or inf raises an error.

    References
    ----------
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon/.

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import Muon
    >>> W = torch.nn.Parameter(torch.eye(4))
    >>> optimizer = Muon([W], lr=0.5, method="exact", weight_decay=0)
    >>> (W * torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))).sum().backward()
    >>> optimizer.step()
    >>> [round(value, 4) for value in W.detach().diagonal().tolist()]
    [0.5, 0.5, 0.5, 0.5]
    """

    # The order of torch.optim.Muon up to adjust_lr_fn: arguments may be given by position.
    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
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
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def scaling(self, group: dict[str, Any]) -> Scaling:
        """Return the factor of the updates, from ``adjust_lr_fn`` or ``shape_scaling``."""
        scaling: Scaling = muon_scaling(group["adjust_lr_fn"], group["shape_scaling"])
        return scaling

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Return the oracle of the spectral ball, by default with Newton-Schulz iteration."""
        method = muon_method(
            group["method"], group["ns_steps"], group["ns_coefficients"], group["eps"]
        )
        return BallOracle(ball=SpectralBall(), method=method, seed=group["seed"])

    def ball(self, group: dict[str, Any]) -> Ball:
        """Return the spectral ball."""
        del group
        return SpectralBall()


class FMuon(FamilyOptimizer):
    """F-Muon: steps along ``-(alpha U V^T + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    params, lr
        As for `Fanion`.
    method : str, NewtonSchulz or PolarExpress, default "exact"
        As for `Muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.f_muon

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import FMuon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = FMuon([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.908, 0.0], [0.0, 1.922]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        alpha: float = 0.5,
        method: Polar = "exact",
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Ball:
        """Return the sum of the spectral and the Frobenius ball."""
        return f_muon_ball(group["alpha"])


class SMuon(FamilyOptimizer):
    """S-Muon: steps along ``-(alpha U V^T + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    params, lr
        As for `Fanion`.
    method : str, NewtonSchulz or PolarExpress, default "exact"
        As for `Muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.s_muon

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import SMuon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = SMuon([W], lr=0.1, eta=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.945, 0.0], [0.0, 1.945]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        alpha: float = 0.5,
        eta: float = 0.01,
        method: Polar = "exact",
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Ball:
        """Return the sum of the spectral and the max norm ball."""
        return s_muon_ball(group["alpha"], group["eta"])


class NSGD(FamilyOptimizer):
    """Normalized SGD: steps along ``-E / ||E||_F``, the oracle of the Frobenius norm.

    Parameters
    ----------
    params, lr
        As for `Fanion`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.nsgd

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import NSGD
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = NSGD([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.917, 0.0], [0.0, 1.945]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Ball:
        """Return the Frobenius ball."""
        del group
        return FrobeniusBall()


class SignSGD(FamilyOptimizer):
    """SignSGD: steps along ``-sign(E)``, the oracle of the entrywise max norm.

    Parameters
    ----------
    params, lr
        As for `Fanion`.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.sign_sgd

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import SignSGD
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = SignSGD([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.9, 0.0], [0.0, 1.9]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Ball:
        """Return the max norm ball."""
        del group
        return MaxBall()


class NuclearNeon(MatrixOptimizer):
    """Nuclear-Neon: steps along ``argmin <E, D> + lam ||D||_*^2 = -(s_1 / (2 lam)) u_1 v_1^T``.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    lam : float, default 1
        Weight of the regularization, positive.
    gap : float, default 1e-2
        Largest relative gap of the oracle of the nuclear norm.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.nuclear_neon

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import NuclearNeon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = NuclearNeon([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.415, 0.0], [0.0, 2.0]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        lam: float = 1.0,
        gap: float = 1e-2,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        _check_lam(group["lam"])

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Return the oracle of the regularized update."""
        return RegularizedOracle(
            ball=NuclearBall(), lam=group["lam"], gap=group["gap"], seed=group["seed"]
        )


class FStarNeon(MatrixOptimizer):
    """F*-Neon: steps along ``-(1 / lam) U max(S - tau, 0) V^T``, see `trsvd.f_star_neon`.

    The state of a parameter contains the last threshold ``"tau"`` and the rank of each matrix.

    Parameters
    ----------
    params, lr, lam
        As for `NuclearNeon`.
    tol : float, optional
        Largest relative residual of the singular triplets.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.f_star_neon

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import FStarNeon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = FStarNeon([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.48, 0.0], [0.0, 1.87]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        lam: float = 1.0,
        tol: float | None = None,
        momentum: float = 0.95,
        nesterov: bool = True,
        ema: bool = False,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        _check_lam(group["lam"])

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Return the oracle of the update with a threshold."""
        return FStarOracle(lam=group["lam"], tol=group["tol"], seed=group["seed"])

    def _remembered(
        self, E: Tensor, found: list[Direction], oracle: Oracle, step: int
    ) -> dict[str, Any]:
        assert isinstance(oracle, FStarOracle)
        tau = [oracle.threshold(direction) for direction in found]
        known = super()._remembered(E, found, oracle, step)
        return {**known, "tau": torch.tensor(tau, dtype=torch.float64)}


def _check_lam(lam: Any) -> None:
    number = check_number("lam", lam)
    if not 0 < number < math.inf:
        raise ValueError(
            f"lam={number}; the weight of the regularization must be positive and finite"
        )


class NorMuon(FamilyOptimizer):
    """NorMuon: Muon with each row of the polar factor divided by its running root mean square.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate; the authors' default is 0.02.
    beta2 : float, default 0.95
        Decay of the mean squares of the rows.
    eps : float, default 1e-10
        Number added to the root mean squares.
    method : str, NewtonSchulz or PolarExpress, default "newton-schulz"
        As for `Muon`.
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    nesterov : bool, default True
        True: the direction is ``(1 - mu) G + mu M``; False: M.
    ema : bool, default True
        True: ``M <- mu M + (1 - mu) G``.
    weight_decay : float, default 0
        Decoupled: parameters are multiplied by ``1 - lr * weight_decay``.
    shape_scaling : str, callable or None, default "muon"
        ``"muon"`` is ``sqrt(max(1, m / n))``, as published.
    normalize_weights, maximize, momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.normuon

    Notes
    -----
    The update is rescaled to the Frobenius norm that the polar factor had.

    References
    ----------
    Z. Li et al., NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491.

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import NorMuon
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = NorMuon([W], lr=0.1, method="exact")
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.9, 0.0], [0.0, 1.9]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
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
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def ball(self, group: dict[str, Any]) -> Ball:
        """Return the spectral ball."""
        del group
        return SpectralBall()

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        check_beta2(group["beta2"])
        check_eps(group["eps"])

    def _updates(self, plan: Plan, work: Work, iterates: list[Tensor]) -> list[Tensor]:
        updates = super()._updates(plan, work, iterates)
        return [
            self._normalized(plan, p, U, work.group)
            for p, U in zip(work.params, updates, strict=True)
        ]

    def _normalized(
        self, plan: Plan, param: Tensor, update: Tensor, group: dict[str, Any]
    ) -> Tensor:
        arrays = Arrays.of_array(update)
        stack = to_stack(arrays.take(update), group["layout"])
        v = self._known(param).get("row_second_moment")
        if v is None:
            v = stack.new_zeros(stack.shape[:2])
        X, v = row_normalized(stack, v, group["beta2"], group["eps"])
        plan.states[param]["row_second_moment"] = v
        return from_stack(X, tuple(update.shape), group["layout"]).to(update.dtype)


class Dion(MatrixOptimizer):
    """Dion: rank-k power iteration on ``B = M + G``, ``M <- B - (1 - mu) P R^T``.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    k : int
        The rank.
    rank_fraction : float
        The rank as a fraction of min(m, n), rounded up; pass either this or k.
    momentum : float, default 0.95
        ``mu``: share of the used part ``P R^T`` that stays in the buffer.
    orthonormal : bool, default False
        False: the published step ``-P C^T``, where C is the column-normalized R. Its singular
        values can exceed 1, so that it does not lie in the dual Ky Fan k-ball. True: the polar
        factor ``-P polar(R)^T``, which lies in this ball. The buffers are the same.
    transpose : bool, default True
        True: iterate on the transpose where m < n, as in the authors' ``dion.py``. False: never, as
        in their ``dion_simple.py``. The two differ for wide matrices.
    shape_scaling : str, callable or None, default "rms"
        ``"rms"`` is ``sqrt(m / n)``, as published.
    weight_decay, normalize_weights, maximize, momentum_dtype, layout, seed
        As for `common_options`.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.dion

    References
    ----------
    K. Ahn et al., Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import Dion
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = Dion([W], lr=0.1, k=2)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.884, -0.005], [-0.007, 1.919]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        k: int | None = None,
        rank_fraction: float | None = None,
        momentum: float = 0.95,
        orthonormal: bool = False,
        transpose: bool = True,
        shape_scaling: Scaling = "rms",
        weight_decay: float = 0.0,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__(params, lr, hyperparameters(locals()))

    def _check_options(self, group: dict[str, Any]) -> None:
        super()._check_options(group)
        fixed_rank(group["k"], group["rank_fraction"])

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Return the oracle of the dual Ky Fan k-ball, the reference of the diagnostics."""
        options = {name: group[name] for name in ("k", "rank_fraction", "seed")}
        return BallOracle(ball=KyFanDualBall, **options)

    def _plan_group(
        self, plan: Plan, params: list[Tensor], group: dict[str, Any], number: int
    ) -> None:
        grads, transpose = self._gradients(params, group), group["transpose"]
        for param, M, G in zip(params, self._buffers(params, grads), grads, strict=True):
            known, shape, layout = self._known(param), tuple(param.shape), group["layout"]
            arrays = Arrays.of_array(G)
            whole = gathered(arrays.take(M) + arrays.take(G), param)
            Q, B = known.get("right_factors"), to_stack(whole, layout)
            if Q is None:
                rank = fixed_rank(group["k"], group["rank_fraction"])
                Q = right_factors(whole, rank, layout, group["seed"], transpose=transpose)
            D, left, after = dion_step(
                B,
                arrays.take(Q),
                group["momentum"],
                orthonormal=group["orthonormal"],
                transpose=transpose,
            )
            if self._diagnostics_hooks:
                found = [Direction(each, None) for each in D]
                owners, starts = [param] * len(found), [None] * len(found)
                oracle = self.oracle(group)
                self._report(plan, owners, list(B), found, starts, oracle, group, number)
            M = own_part(from_stack(left, shape, layout), param).to(M.dtype)
            self._keep_buffers(plan, [param], [M])
            plan.states[param]["right_factors"] = after
            self._move(plan, param, from_stack(D, shape, layout).to(G.dtype), group)


class SCALE(MatrixOptimizer):
    """SCALE: gradient of each output divided by its root mean square; momentum for the head only.

    A weight (out, in) is normalized along its rows. An embedding (vocabulary, d) is normalized
    along its columns; its group must have ``layout="in_out"``.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    last_layer : tensor or iterable of tensors, optional
        Parameters with momentum. The default is the groups with the role ``"head"`` (see
        `split_parameters`). If groups have no roles, it is the last parameter of the last group.
        If groups have roles and none is the head, no parameter has momentum; pass ``()`` if that
        is intended. A group that contains other parameters too is divided in two. Groups that are
        added later have no momentum, unless they set it.
    normalization : str, default "rms"
        ``"rms"``: divide by the root mean square, or by ``eps`` if it is larger. ``"l2"``: divide
        by the 2-norm, as the oracle of the row-wise ball does. Updates are then ``sqrt(in)`` times
        smaller.
    eps : float, default 1e-8
        Lower bound of the root mean squares.
    momentum : float, default 0.9
        Momentum of the last layer.
    nesterov : bool, default False
        As for `common_options`.
    ema : bool, default True
        True: ``M <- mu M + (1 - mu) G``, as published.
    weight_decay, shape_scaling, normalize_weights, maximize, momentum_dtype, layout, seed
        As for `common_options`.

    Warns
    -----
    UserWarning
        If groups have roles, and none is the head.

    See Also
    --------
    split_parameters, CompositeOptimizer, trsvd.optim.scale

    References
    ----------
    A. Glentis et al., A minimalist optimizer design for LLM pretraining, arXiv:2506.16659.

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import SCALE
    >>> W = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2.0])))
    >>> optimizer = SCALE([W], lr=0.1)
    >>> (W**2).sum().backward()
    >>> optimizer.step()
    >>> [[round(x, 3) + 0.0 for x in row] for row in W.tolist()]
    [[2.859, 0.0], [0.0, 1.859]]
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        last_layer: Tensor | Iterable[Tensor] | None = None,
        normalization: str = "rms",
        eps: float = 1e-8,
        momentum: float = 0.9,
        nesterov: bool = False,
        ema: bool = True,
        weight_decay: float = 0.0,
        shape_scaling: Scaling = None,
        normalize_weights: bool = False,
        maximize: bool = False,
        momentum_dtype: torch.dtype | None = None,
        layout: str = "auto",
        seed: int = 0,
    ) -> None:
        given = hyperparameters(locals())
        del given["last_layer"]
        super().__init__(params, lr, given)
        if last_layer is None:
            last_layer = _head_of(self.param_groups)
        chosen = {id(p) for p in ([last_layer] if isinstance(last_layer, Tensor) else last_layer)}
        known = {id(p) for group in self.param_groups for p in group["params"]}
        if not chosen <= known:
            raise ValueError(
                "last_layer has a parameter that is not among params; add it to params"
            )
        self.param_groups: list[dict[str, Any]] = [
            part for group in self.param_groups for part in _divided(group, chosen)
        ]
        self.defaults["momentum"] = 0.0

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Return the oracle that divides rows by their root mean squares or norms."""
        return row_oracle(group["normalization"], group["eps"])


def _head_of(groups: list[dict[str, Any]]) -> list[Tensor]:
    """Return the parameters of the head, by the roles of the groups if they have roles."""
    if any("role" in group for group in groups):
        head = [p for group in groups if group.get("role") == "head" for p in group["params"]]
        if not head:
            msg = (
                "SCALE: no group has the role 'head', so no parameter has momentum. Pass "
                "split.head too, last_layer= with a weight, or last_layer=() if that is intended"
            )
            warn_caller(msg, UserWarning)
        return head
    return list(groups[-1]["params"][-1:])


def _divided(group: dict[str, Any], chosen: set[int]) -> list[dict[str, Any]]:
    """Divide a group into one without momentum and one of the chosen parameters, if not empty."""
    parts = []
    for inside in (False, True):
        places = [i for i, p in enumerate(group["params"]) if (id(p) in chosen) is inside]
        part = {**group, "params": [group["params"][i] for i in places]}
        if "param_names" in group:
            part["param_names"] = [group["param_names"][i] for i in places]
        if not inside:
            part["momentum"] = 0.0
        if places:
            parts.append(part)
    return parts
