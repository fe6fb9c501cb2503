"""What the PyTorch optimizers have in common: groups, momentum, the oracle's step, the state."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from trsvd._validate import check_number
from trsvd.optim._layout import as_matrices, check_shape, shape_scale, stack_shape
from trsvd.optim._links import check_momentum, normalized_weights, reassembled
from trsvd.optim._oracles import BallOracle, Direction, Oracle
from trsvd.optim._torch_state import copied, decoded, encoded, packed, unpacked
from trsvd.optim.diagnostics import Diagnostics, check_every, measured
from trsvd.result import Subspace

__all__ = ["MatrixOptimizer", "common_options"]


def common_options(
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    ema: bool = False,
    weight_decay: float = 0.0,
    shape_scaling: str | Callable[[int, int], float] | None = None,
    normalize_weights: bool = False,
    maximize: bool = False,
    momentum_dtype: torch.dtype | None = None,
    layout: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """The hyper-parameters of every optimizer here, as a dict; a name that is none is a TypeError.

    Parameters
    ----------
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    nesterov : bool, default True
        Whether the direction is ``G + mu M`` rather than M.
    ema : bool, default False
        Whether the buffer is a moving average, ``M <- mu M + (1 - mu) G``, rather than the
        classical ``M <- mu M + G``.
    weight_decay : float, default 0
        Decoupled: parameters are multiplied by ``1 - lr * weight_decay``.
    shape_scaling : str, callable or None, default None
        ``"muon"``, ``"rms"``, ``"adamw"`` (see `trsvd.optim.SCALINGS`), or a function of m and n.
    normalize_weights : bool, default False
        Whether parameters are brought to a Frobenius norm of ``sqrt(m)`` before each step, where m
        is their first dimension, as airbench does.
    maximize : bool, default False
        Whether to go up.
    momentum_dtype : torch.dtype, optional
        Of the buffer and the direction; that of the parameter by default.
    layout : str, default "auto"
        How parameters with more than two dimensions are read, see `trsvd.optim.LAYOUTS`.
    seed : int, default 0
        Of the random numbers, with the step.

    Returns
    -------
    dict
    """
    return {
        "momentum": momentum,
        "nesterov": nesterov,
        "ema": ema,
        "weight_decay": weight_decay,
        "shape_scaling": shape_scaling,
        "normalize_weights": normalize_weights,
        "maximize": maximize,
        "momentum_dtype": momentum_dtype,
        "layout": layout,
        "seed": seed,
    }


class MatrixOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum, and a step along the answers of an oracle; base of the optimizers here.

    A subclass says in `oracle` which one, for a parameter group. All hyper-parameters are in
    ``param_groups``.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Of at least two dimensions each.
    lr : float or tensor
        Learning rate, at least 0.
    options : dict
        The other hyper-parameters: those of `common_options`, and those of the subclass.

    Raises
    ------
    TypeError, ValueError
        If a hyper-parameter is not of the kind described, or a parameter is no matrix.
    """

    param_groups: list[dict[str, Any]]
    state: dict[Tensor, dict[str, Any]]
    defaults: dict[str, Any]

    def __init__(self, params: Any, lr: float | Tensor, options: dict[str, Any]) -> None:
        self._diagnostics_hooks: OrderedDict[int, tuple[Callable[[Diagnostics], Any], int]]
        self._diagnostics_hooks = OrderedDict()
        super().__init__(params, {"lr": lr, **options})

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """What finds the directions of a parameter group."""
        raise NotImplementedError

    # ---- groups -----------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their own hyper-parameters; see `torch.optim.Optimizer`."""
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        """Errors for what cannot be worked with, before the first step."""
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            msg = f"Tensor lr must be 1-element, and is of shape {tuple(lr.shape)}"
            raise ValueError(msg)
        for name in ("lr", "weight_decay"):
            if not check_number(name, group[name]) >= 0:
                msg = f"Invalid {name} value: {group[name]}; it must be at least 0"
                raise ValueError(msg)
        check_momentum(group["momentum"])
        dtype = group["momentum_dtype"]
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            msg = f"momentum_dtype={dtype!r}; pass a real floating dtype, as torch.float32, or None"
            raise TypeError(msg)
        for param in group["params"]:
            check_shape(tuple(param.shape), group["layout"])
            shape_scale(group["shape_scaling"], tuple(param.shape), group["layout"])
        oracle = self.oracle(group)
        if isinstance(oracle, BallOracle):
            for param in group["params"]:
                oracle.ball_at(0, stack_shape(tuple(param.shape), group["layout"])[1:])
        # An unknown method or a gap out of range is an error here, not at the first step.
        oracle.directions([torch.zeros(1, 1)], [None], 0)

    # ---- the step ---------------------------------------------------------------------------

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss anew, and its gradients.

        Returns
        -------
        loss
            What the closure returned.

        Raises
        ------
        RuntimeError
            If a gradient is sparse or complex.
        ValueError
            If a direction is not finite. (`torch.amp.GradScaler` skips such steps.)
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            params = [p for p in group["params"] if p.grad is not None and p.numel()]
            for param in params:
                self._check_gradient(param)
            if params:
                self._step_group(params, group, number)
        return loss

    def _check_gradient(self, param: Tensor) -> None:
        name = type(self).__name__
        if param.grad.layout is not torch.strided:
            msg = f"{name} does not support sparse gradients; leave embeddings to another optimizer"
            raise RuntimeError(msg)
        if param.is_complex():
            msg = f"{name} does not support complex parameters; view them as real ones"
            raise RuntimeError(msg)

    def _step_group(self, params: list[Tensor], group: dict[str, Any], number: int) -> None:
        updates = self._updates(params, self._directions_to_go(params, group), group, number)
        for param, update in zip(params, updates, strict=True):
            self._apply(param, update, group)

    def _gradients(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Gradients to go down along, in the dtype of the momentum."""
        sign = -1 if group["maximize"] else 1
        return [
            (p.grad if sign > 0 else -p.grad).to(group["momentum_dtype"] or p.dtype) for p in params
        ]

    def _directions_to_go(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """What the oracle is asked about: gradients with momentum."""
        grads, mu = self._gradients(params, group), group["momentum"]
        if not mu:
            return grads
        new = 1 - mu if group["ema"] else 1.0
        buffers = [self.state[p].get("momentum_buffer") for p in params]
        for place, (param, buffer) in enumerate(zip(params, buffers, strict=True)):
            if buffer is None:
                buffers[place] = torch.zeros_like(grads[place])
                self.state[param]["momentum_buffer"] = buffers[place]
        torch._foreach_mul_(buffers, mu)
        torch._foreach_add_(buffers, grads, alpha=new)
        if not group["nesterov"]:
            return buffers
        ahead = torch._foreach_mul(grads, new)
        torch._foreach_add_(ahead, buffers, alpha=mu)
        return list(ahead)

    def _updates(
        self, params: list[Tensor], directions: list[Tensor], group: dict[str, Any], number: int
    ) -> list[Tensor]:
        """The oracle's answers, all matrices that made the same number of steps at once."""
        oracle, layout = self.oracle(group), group["layout"]
        by_step: dict[int, list[int]] = {}
        for place, param in enumerate(params):
            by_step.setdefault(self.state[param].get("step", 0), []).append(place)
        updates: dict[int, Tensor] = {}
        for step, places in by_step.items():
            stacks = [as_matrices(directions[place], layout) for place in places]
            starts = [
                unpacked(entry)
                for place, stack in zip(places, stacks, strict=True)
                for entry in self.state[params[place]].get("subspaces") or [None] * len(stack)
            ]
            matrices = [E for stack in stacks for E in stack]
            found = oracle.directions(matrices, starts, step)
            if self._diagnostics_hooks:
                owners = [params[p] for p, stack in zip(places, stacks, strict=True) for _ in stack]
                self._report(owners, matrices, found, starts, oracle, group, number)
            rest = iter(found)
            for place, stack in zip(places, stacks, strict=True):
                mine = [next(rest) for _ in stack]
                shape = tuple(params[place].shape)
                updates[place] = reassembled([each.update for each in mine], shape)
                self._remember(self.state[params[place]], mine, oracle)
                self.state[params[place]]["step"] = step + 1
        return [updates[place] for place in range(len(params))]

    def _remember(self, state: dict[str, Any], found: list[Direction], oracle: Oracle) -> None:
        """Keep what the next step starts from."""
        del oracle
        if any(direction.subspace is not None for direction in found):
            state["subspaces"] = [packed(direction.subspace) for direction in found]
            state["ranks"] = [direction.rank for direction in found]

    def _apply(self, param: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        """``W <- (1 - lr wd) W + lr D``."""
        lr, decay = group["lr"], group["weight_decay"]
        if isinstance(lr, Tensor):
            lr = lr.reshape(())
        scale = shape_scale(group["shape_scaling"], tuple(param.shape), group["layout"])
        if group["normalize_weights"]:
            kept = normalized_weights(param)
            param.copy_(kept - lr * decay * param if decay else kept)
        elif decay:
            param.mul_(1 - lr * decay)
        if isinstance(lr, Tensor):
            param.add_(update * (lr * scale))
        else:
            param.add_(update, alpha=lr * scale)

    # ---- diagnostics --------------------------------------------------------------------------

    def register_diagnostics_hook(
        self, hook: Callable[[Diagnostics], Any], *, every: int = 1
    ) -> RemovableHandle:
        """Call a hook with a `trsvd.optim.Diagnostics` for each matrix.

        Parameters
        ----------
        hook : callable
            As `trsvd.optim.JSONLinesWriter`.
        every : int, default 1
            The steps from one call to the next. Each computes the singular values of all matrices.

        Returns
        -------
        torch.utils.hooks.RemovableHandle
            With ``remove()``. Hooks are not saved with the state.

        Raises
        ------
        ValueError
            If ``every`` is not a positive integer.
        """
        every = check_every(every)
        handle = RemovableHandle(self._diagnostics_hooks)
        self._diagnostics_hooks[handle.id] = (hook, every)
        return handle

    def _report(
        self,
        owners: list[Tensor],
        matrices: list[Tensor],
        found: list[Direction],
        starts: Sequence[Subspace | None],
        oracle: Oracle,
        group: dict[str, Any],
        number: int,
    ) -> None:
        step = self.state[owners[0]].get("step", 0)
        hooks = [hook for hook, every in self._diagnostics_hooks.values() if step % every == 0]
        if not hooks:
            return
        names = group.get("param_names")
        labels = {
            id(p): names[i] if names else f"{number}.{i}" for i, p in enumerate(group["params"])
        }
        seen: dict[int, int] = {}
        for owner, E, direction, start in zip(owners, matrices, found, starts, strict=True):
            place = seen[id(owner)] = seen.get(id(owner), -1) + 1
            record = measured(E, direction, start, oracle, labels[id(owner)], place, step=step)
            for hook in hooks:
                hook(record)

    # ---- saving and loading -------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state, of tensors and plain data only; see `torch.optim.Optimizer`.

        Functions among the hyper-parameters (a ``shape_scaling``, a schedule that is none of
        `trsvd.optim`) are not in it: an optimizer that loads it keeps its own.
        """
        state = super().state_dict()
        return {**state, "param_groups": [encoded(group) for group in state["param_groups"]]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state; see `torch.optim.Optimizer`.

        All tensors keep their dtypes: a trajectory goes on bit for bit.
        """
        given: dict[str, Any] = {}
        # Hooks of others have had their say before the first, and see the result of the second.
        before = self.register_load_state_dict_pre_hook(lambda _, state: given.update(state))
        after = self.register_load_state_dict_post_hook(
            lambda _: self._restore(given), prepend=True
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _restore(self, given: dict[str, Any]) -> None:
        """The state of each parameter as it was saved."""
        saved = [index for group in given["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(saved, params, strict=True):
            if index in given["state"]:
                self.state[param] = copied(given["state"][index], param.device)

    def __setstate__(self, state: dict[str, Any]) -> None:
        old: list[dict[str, Any]] = self.__dict__.get("param_groups", [])
        super().__setstate__(state)
        self.__dict__.setdefault("_diagnostics_hooks", OrderedDict())
        for group in self.param_groups:
            group.update(decoded(group))
        for group, own in zip(self.param_groups, old, strict=False):
            for name, value in own.items():
                group.setdefault(name, value)
