"""PyTorch optimizers along the oracle of a ball: the families of Fanion-k and of Muon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from trsvd._polar_methods import PolarIteration
from trsvd.balls import Ball, FrobeniusBall, KyFanDualBall, MaxBall, SpectralBall
from trsvd.optim._families import FFanionBall, SFanionBall, f_muon_ball, s_muon_ball
from trsvd.optim._oracles import BallOracle, Oracle
from trsvd.optim._torch_base import MatrixOptimizer, common_options

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
        The rank, where ``ball`` makes one of it: a number, a share of min(m, n) as a float up to
        1.0, or a schedule of either (see `trsvd.optim.schedules`).
    method : str, Method, NewtonSchulz or PolarExpress, optional
        As for `trsvd.optim.from_ball`.
    gap : float, default 1e-2
        Relative gap that is enough for a truncated oracle.
    **options
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
        **options: Any,
    ) -> None:
        self._ball = ball
        own = {"k": k, "method": method, "gap": gap}
        super().__init__(params, lr, {**own, **common_options(**options)})

    def ball(self, group: dict[str, Any]) -> Ball | Callable[[int], Ball]:
        """The ball that was given."""
        del group
        return self._ball

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
        The rank: a number, a share of min(m, n) as a float up to 1.0, or a schedule of either. A
        schedule makes this NuMuon (arXiv:2603.03597).
    method : str or Method, optional
        ``"exact"``, or a method of `trsvd.svds`. None: block products from the last subspace, to
        ``gap``.
    gap : float, default 1e-2
        Relative gap that is enough.
    **options
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
        **options: Any,
    ) -> None:
        own = {"k": k, "method": method, "gap": gap}
        super().__init__(params, lr, {**own, **common_options(**options)})

    def ball(self, group: dict[str, Any]) -> Callable[[int], Ball]:
        """The dual Ky Fan k-ball, of k."""
        del group
        return KyFanDualBall


class FFanion(FamilyOptimizer):
    """F-Fanion-k: steps along ``-(alpha U_k V_k^T + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    params, lr, k, method, gap, **options
        As for `Fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
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
        **options: Any,
    ) -> None:
        own = {"k": k, "alpha": alpha, "method": method, "gap": gap}
        super().__init__(params, lr, {**own, **common_options(**options)})

    def ball(self, group: dict[str, Any]) -> Callable[[int], Ball]:
        """The sum of two balls, of k."""
        return FFanionBall(group["alpha"])


class SFanion(FamilyOptimizer):
    """S-Fanion-k: steps along ``-(alpha U_k V_k^T + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    params, lr, k, method, gap, **options
        As for `Fanion`.
    alpha : float, default 0.5
        Weight of the dual Ky Fan part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
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
        **options: Any,
    ) -> None:
        own = {"k": k, "alpha": alpha, "eta": eta, "method": method, "gap": gap}
        super().__init__(params, lr, {**own, **common_options(**options)})

    def ball(self, group: dict[str, Any]) -> Callable[[int], Ball]:
        """The sum of two balls, of k."""
        return SFanionBall(group["alpha"], group["eta"])


class Neon(Fanion):
    """Neon: Fanion-1, steps along ``-u_1 v_1^T``.

    Parameters
    ----------
    params, lr, **options
        As for `Fanion`, but k.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, **options: Any) -> None:
        super().__init__(params, lr, k=1, **options)


class FNeon(FFanion):
    """F-Neon: F-Fanion-1.

    Parameters
    ----------
    params, lr, **options
        As for `FFanion`, but k.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, **options: Any) -> None:
        super().__init__(params, lr, k=1, **options)


class SNeon(SFanion):
    """S-Neon: S-Fanion-1.

    Parameters
    ----------
    params, lr, **options
        As for `SFanion`, but k.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, **options: Any) -> None:
        super().__init__(params, lr, k=1, **options)


class Muon(FamilyOptimizer):
    """Muon: steps along ``-U V^T``, the oracle of the spectral norm.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Of at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    method : str, NewtonSchulz or PolarExpress, default "exact"
        ``"exact"`` (an SVD), ``"gram"`` (eigenvalues in double precision), or an iteration, which
        is used as it comes: `trsvd.NewtonSchulz` with its defaults is Muon's own.
    **options
        As for `common_options`.

    Notes
    -----
    `torch.optim.Muon` is this with ``method=trsvd.NewtonSchulz(dtype="bfloat16")``, ``ema=True``,
    ``shape_scaling="muon"`` and ``weight_decay=0.1``.

    References
    ----------
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, *, method: Polar = "exact", **options: Any
    ) -> None:
        super().__init__(params, lr, {"method": method, **common_options(**options)})

    def ball(self, group: dict[str, Any]) -> Ball:
        """The spectral ball."""
        del group
        return SpectralBall()


class FMuon(FamilyOptimizer):
    """F-Muon: steps along ``-(alpha U V^T + (1 - alpha) E / ||E||_F)``.

    Parameters
    ----------
    params, lr, method, **options
        As for `Muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        alpha: float = 0.5,
        method: Polar = "exact",
        **options: Any,
    ) -> None:
        own = {"alpha": alpha, "method": method}
        super().__init__(params, lr, {**own, **common_options(**options)})

    def ball(self, group: dict[str, Any]) -> Ball:
        """The sum of the spectral and the Frobenius ball."""
        return f_muon_ball(group["alpha"])


class SMuon(FamilyOptimizer):
    """S-Muon: steps along ``-(alpha U V^T + (1 - alpha) eta sign(E))``.

    Parameters
    ----------
    params, lr, method, **options
        As for `Muon`.
    alpha : float, default 0.5
        Weight of the spectral part, between 0 and 1.
    eta : float, default 0.01
        Radius of the max norm ball in the sum.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        alpha: float = 0.5,
        eta: float = 0.01,
        method: Polar = "exact",
        **options: Any,
    ) -> None:
        own = {"alpha": alpha, "eta": eta, "method": method}
        super().__init__(params, lr, {**own, **common_options(**options)})

    def ball(self, group: dict[str, Any]) -> Ball:
        """The sum of the spectral and the max norm ball."""
        return s_muon_ball(group["alpha"], group["eta"])


class NSGD(FamilyOptimizer):
    """Normalized SGD: steps along ``-E / ||E||_F``, the oracle of the Frobenius norm.

    Parameters
    ----------
    params, lr, **options
        As for `Muon`, but method.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, **options: Any) -> None:
        super().__init__(params, lr, common_options(**options))

    def ball(self, group: dict[str, Any]) -> Ball:
        """The Frobenius ball."""
        del group
        return FrobeniusBall()


class SignSGD(FamilyOptimizer):
    """SignSGD: steps along ``-sign(E)``, the oracle of the entrywise max norm.

    Parameters
    ----------
    params, lr, **options
        As for `Muon`, but method.
    """

    def __init__(self, params: Any, lr: float | Tensor = 1e-3, **options: Any) -> None:
        super().__init__(params, lr, common_options(**options))

    def ball(self, group: dict[str, Any]) -> Ball:
        """The max norm ball."""
        del group
        return MaxBall()
