"""PyTorch optimizers beside the families: regularized updates, Dion, NorMuon, SCALE."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from trsvd._arrays.arrays import Arrays
from trsvd._errors import warn_caller
from trsvd._validate import check_number
from trsvd.balls import Ball, KyFanDualBall, NuclearBall, SpectralBall
from trsvd.optim.dion import dion_step, right_factors
from trsvd.optim.layout import from_stack, to_stack
from trsvd.optim.normuon import check_beta2, check_eps, row_normalized
from trsvd.optim.oracles import (
    BallOracle,
    Direction,
    FStarOracle,
    Oracle,
    RegularizedOracle,
    row_oracle,
)
from trsvd.optim.schedules import check_rank
from trsvd.optim.torch.base import MatrixOptimizer, Plan, Scaling, Work, hyperparameters
from trsvd.optim.torch.optimizers import FamilyOptimizer, Polar
from trsvd.optim.torch.shards import gathered, own_part

__all__ = ["Dion", "FStarNeon", "NorMuon", "NuclearNeon", "SCALE"]


class NuclearNeon(MatrixOptimizer):
    """Nuclear-Neon: steps along ``argmin <E, D> + lam ||D||_*^2 = -(s_1 / (2 lam)) u_1 v_1^T``.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Of at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    lam : float, default 1
        Positive.
    gap : float, default 1e-2
        Relative gap that is enough, of the oracle of the nuclear norm.
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
        """The regularized update."""
        return RegularizedOracle(
            ball=NuclearBall(), lam=group["lam"], gap=group["gap"], seed=group["seed"]
        )


class FStarNeon(MatrixOptimizer):
    """F*-Neon: steps along ``-(1 / lam) U max(S - tau, 0) V^T``, see `trsvd.f_star_neon`.

    The state of a parameter has the last threshold (``"tau"``) and rank of each of its matrices.

    Parameters
    ----------
    params, lr, lam
        As for `NuclearNeon`.
    tol : float, optional
        Relative residual of the singular triplets.
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
        """The update by a threshold."""
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
        msg = f"lam={number}; the weight of the regularization must be positive and finite"
        raise ValueError(msg)


class NorMuon(FamilyOptimizer):
    """NorMuon: Muon with each row of the polar factor over its running root mean square.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Of at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate; the authors' default is 0.02.
    beta2 : float, default 0.95
        Decay of the mean squares of the rows.
    eps : float, default 1e-10
        Added to their roots.
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
        ``sqrt(max(1, m / n))``, as published.
    normalize_weights, maximize, momentum_dtype, layout, seed
        As for `common_options`.

    Notes
    -----
    The update is rescaled to the Frobenius norm that the polar factor had.

    References
    ----------
    Z. Li et al., NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491.
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
        """The spectral ball."""
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
        Of at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    k : int or float
        The rank, or a share of min(m, n) as a float between 0 and 1.
    momentum : float, default 0.95
        ``mu``: what stays in the buffer of the part that was used.
    orthonormal : bool, default False
        False: the published step ``-P C^T`` with the column-normalized R as C. Its singular values
        can be above 1: it is on no ball. True: the polar factor ``-P polar(R)^T``, which lies in
        the dual Ky Fan k-ball. The buffers are the same.
    transpose : bool, default True
        True: iterate on the transpose where m < n, as in the authors' ``dion.py``. False: never, as
        in their ``dion_simple.py``. The two differ for wide matrices.
    shape_scaling : str, callable or None, default "rms"
        ``sqrt(m / n)``, as published.
    weight_decay, normalize_weights, maximize, momentum_dtype, layout, seed
        As for `common_options`.

    References
    ----------
    K. Ahn et al., Dion: Distributed Orthonormalized Updates, arXiv:2504.05295.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        k: int | float,
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
        if callable(group["k"]):
            msg = f"k={group['k']!r}; Dion keeps its factors from step to step: pass a fixed rank"
            raise TypeError(msg)
        check_rank(group["k"])

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """That of the dual Ky Fan k-ball, beside which diagnostics put Dion's own direction."""
        return BallOracle(ball=KyFanDualBall, k=group["k"], seed=group["seed"])

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
                Q = right_factors(whole, group["k"], layout, group["seed"], transpose=transpose)
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
    """SCALE: gradients of each output over their root mean square, momentum for the head only.

    A weight (out, in) is divided along its rows; an embedding (vocabulary, d), which is a group
    with ``layout="in_out"``, along its columns.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Of at least two dimensions each.
    lr : float or tensor, default 1e-3
        Learning rate.
    last_layer : tensor or iterable of tensors, optional
        The parameters that have momentum. By default those of the groups with the role ``"head"``
        (see `split_parameters`), and where groups have no roles the last parameter of the last
        group. If groups have roles and none is the head, no parameter has momentum; pass ``()``
        if that is meant. Where the parameters are part of a group, it is divided in two. Groups
        that are added later have no momentum, unless they say so.
    normalization : str, default "rms"
        ``"rms"``: over the root mean square, or ``eps`` where it is larger. ``"l2"``: over the
        2-norm, the oracle of the row-wise ball; updates are ``sqrt(in)`` times smaller.
    eps : float, default 1e-8
        Lower bound of the root mean squares.
    momentum : float, default 0.9
        Of the last layer.
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

    References
    ----------
    A. Glentis et al., A minimalist optimizer design for LLM pretraining, arXiv:2506.16659.
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
            msg = "last_layer has a parameter that is not among params; pass it there too"
            raise ValueError(msg)
        self.param_groups = [
            part for group in self.param_groups for part in _divided(group, chosen)
        ]
        self.defaults["momentum"] = 0.0

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Rows over their root mean squares, or over their norms."""
        return row_oracle(group["normalization"], group["eps"])


def _head_of(groups: list[dict[str, Any]]) -> list[Tensor]:
    """The parameters of the head, by the roles of the groups if they have any."""
    if any("role" in group for group in groups):
        head = [p for group in groups if group.get("role") == "head" for p in group["params"]]
        if not head:
            msg = (
                "SCALE: no group has the role 'head', so no parameter has momentum. Pass "
                "split.head too, last_layer= with a weight, or last_layer=() if none is meant"
            )
            warn_caller(msg, UserWarning)
        return head
    return list(groups[-1]["params"][-1:])


def _divided(group: dict[str, Any], chosen: set[int]) -> list[dict[str, Any]]:
    """A group as one without momentum and one of the chosen parameters; empty ones left out."""
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
