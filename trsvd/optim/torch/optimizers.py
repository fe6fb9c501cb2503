"""PyTorch optimizers along the oracle of a ball: the families of Fanion-k and of Muon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trsvd.balls import Ball, FrobeniusBall, KyFanDualBall, MaxBall, SpectralBall
from trsvd.balls.families import (
    FFanionBall,
    SFanionBall,
    f_muon_ball,
    muon_method,
    muon_scaling,
    s_muon_ball,
)
from trsvd.optim.oracles import BallOracle, Oracle
from trsvd.optim.torch.base import MatrixOptimizer, Scaling, hyperparameters
from trsvd.polar import QUINTIC
from trsvd.polar.methods import PolarIteration

__all__ = [
    "BallOptimizer",
    "FFanion",
    "FMuon",
    "FNeon",
    "Fanion",
    "FamilyOptimizer",
    "Muon",
    "NSGD",
    "Neon",
    "SFanion",
    "SMuon",
    "SNeon",
    "SignSGD",
]

Rank = int | float | Callable[[int], float]
Polar = str | PolarIteration


class FamilyOptimizer(MatrixOptimizer):
    """Steps along the oracle of a ball that follows from the hyper-parameters of a group."""

    def ball(self, group: dict[str, Any]) -> Ball | Callable[[int], Ball]:
        """The ball of a parameter group, or what makes it of a rank."""
        raise NotImplementedError

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """The oracle of the ball."""
        return BallOracle(
            ball=self.ball(group),
            k=group.get("k"),
            method=group.get("method"),
            gap=group.get("gap", 1e-2),
            seed=group["seed"],
        )


class BallOptimizer(FamilyOptimizer):
    """Steps along the linear minimization oracle of any ball.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Of at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    ball : Ball or callable
        The ball, or what makes one of a rank k. It is not part of the state_dict.
    k : int, float or callable, optional
        The rank, where ``ball`` makes one of it: an integer, a share of min(m, n) as a float
        between 0 and 1, or a schedule of either (see `trsvd.optim.schedules`).
    method : str, Method, NewtonSchulz or PolarExpress, optional
        As for `trsvd.optim.from_ball`.
    gap : float, default 1e-2
        Relative gap that is enough for a truncated oracle.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        ball: Ball | Callable[[int], Ball],
        k: Rank | None = None,
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
        """The ball that was given."""
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
        Of at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    k : int, float or callable
        The rank: an integer, a share of min(m, n) as a float between 0 and 1, or a schedule of
        either. A schedule makes this NuMuon (arXiv:2603.03597).
    method : str or Method, optional
        ``"exact"``, or a method of `trsvd.svds`. None: block products from the last subspace, to
        ``gap``.
    gap : float, default 1e-2
        Relative gap that is enough.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.

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
        k: Rank,
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
        """The dual Ky Fan k-ball, of k."""
        del group
        return KyFanDualBall


class FFanion(FamilyOptimizer):
    """F-Fanion-k: steps along ``-(alpha U_k V_k^T + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    params, lr, k, method, gap
        As for `Fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        k: Rank,
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
        """The sum of two balls, of k."""
        return FFanionBall(group["alpha"])


class SFanion(FamilyOptimizer):
    """S-Fanion-k: steps along ``-(alpha U_k V_k^T + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    params, lr, k, method, gap
        As for `Fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    momentum, nesterov, ema, weight_decay, shape_scaling, normalize_weights, maximize
        As for `common_options`.
    momentum_dtype, layout, seed
        As for `common_options`.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        k: Rank,
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
        """The sum of two balls, of k."""
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

    The direction is a moving average with Nesterov's step. Five Newton-Schulz steps in bfloat16
    take it near its polar factor, which is multiplied by ``sqrt(max(1, m / n))``.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Of at least two dimensions each.
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
        ``"newton-schulz"`` is the iteration of `torch.optim.Muon`. ``"exact"`` is the polar factor
        by an SVD, ``"gram"`` by eigenvalues in double precision. An iteration, as
        `trsvd.NewtonSchulz` in float32, scales the direction first: the update does not depend on
        the size of the gradient.
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

    Notes
    -----
    A state_dict of `torch.optim.Muon` loads, and `torch.optim.Muon` loads that of this class: for
    matrices the steps are the same. Unlike there, parameters may have more than two dimensions (see
    ``layout``), and a direction that is not finite is an error.

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
        """The factor of the updates, by either of its names."""
        scaling: Scaling = muon_scaling(group["adjust_lr_fn"], group["shape_scaling"])
        return scaling

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """The oracle of the spectral ball, by Newton-Schulz iteration unless told otherwise."""
        method = muon_method(
            group["method"], group["ns_steps"], group["ns_coefficients"], group["eps"]
        )
        return BallOracle(ball=SpectralBall(), method=method, seed=group["seed"])

    def ball(self, group: dict[str, Any]) -> Ball:
        """The spectral ball."""
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
        """The sum of the spectral and the Frobenius ball."""
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
        """The sum of the spectral and the max norm ball."""
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
        """The Frobenius ball."""
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
        """The max norm ball."""
        del group
        return MaxBall()
