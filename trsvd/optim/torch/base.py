"""Base of the PyTorch optimizers: groups, momentum, step of the oracle, state."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from trsvd._errors import passed_through
from trsvd._solve.result import Subspace, Track
from trsvd._validate import check_flag, check_rng
from trsvd.methods import METHODS
from trsvd.optim.diagnostics import Diagnostics, check_every, measured
from trsvd.optim.oracles import BallOracle, Direction, Oracle, PolarStacks, polar_products
from trsvd.optim.schedules import Constant, Cosine, Piecewise
from trsvd.optim.torch.shards import frobenius_norm, gathered, like, local, own_part
from trsvd.optim.torch.split import Groups
from trsvd.optim.transforms import (
    as_matrices,
    assembled,
    check_momentum,
    check_rate,
    check_shape,
    shape_scale,
    stack_shape,
)
from trsvd.polar.methods import NewtonSchulz, PolarExpress, PolarIteration

passed_through.add("torch")


Scaling = str | Callable[[int, int], float] | None
_FLAGS = {"nesterov", "ema", "normalize_weights", "maximize", "orthonormal", "transpose"}


def common_options(
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
) -> dict[str, Any]:
    """Return the hyper-parameters that the optimizers share, as a dict.

    Parameters
    ----------
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    nesterov : bool, default True
        True: the direction is ``G + mu M``. False: it is M.
    ema : bool, default False
        True: the buffer is a moving average, ``M <- mu M + (1 - mu) G``. False: it is the classical
        buffer, ``M <- mu M + G``.
    weight_decay : float, default 0
        Decoupled: parameters are multiplied by ``1 - lr * weight_decay``.
    shape_scaling : str, callable or None, default None
        ``"muon"``, ``"rms"``, ``"adamw"`` (see `trsvd.optim.SCALINGS`), or a function of m and n.
    normalize_weights : bool, default False
        True: scale parameters to a Frobenius norm of ``sqrt(m)`` before each step, where m is their
        first dimension, as airbench does.
    maximize : bool, default False
        True: maximize the objective. False: minimize it.
    momentum_dtype : torch.dtype, optional
        Dtype of the buffer and the direction. The default is the dtype of the parameter.
    layout : str, default "auto"
        Layout in which parameters are read as matrices, see `trsvd.optim.LAYOUTS`.
    seed : int, default 0
        Seed of the random numbers; combined with the step index.

    Returns
    -------
    dict

    See Also
    --------
    MatrixOptimizer
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


@dataclass(frozen=True, eq=False)
class Work:
    """Parameters of a group, and the input of its oracle.

    Attributes
    ----------
    params, directions : list of tensors
        Parameters, and gradients with momentum as whole tensors.
    group : dict
        The parameter group.
    number : int
        Index of the group.
    stacks : PolarStacks
        Stacks of all matrices, for a polar iteration; empty for another method.
    """

    params: list[Tensor]
    directions: list[Tensor]
    group: dict[str, Any]
    number: int
    stacks: PolarStacks


@dataclass(eq=False)
class Plan:
    """Values that a step writes: first all are computed, then all are written.

    Attributes
    ----------
    values : list of (tensor, tensor)
        Parameters (local parts of DTensors) with their next values.
    states : dict
        Changed entries of the state of each parameter. They are new tensors: the tensors of the
        previous step are not modified.
    records : list of (callable, Diagnostics)
        Hooks with their arguments.
    work : list of Work
        Groups whose updates are not computed yet.
    """

    values: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    states: dict[Tensor, dict[str, Any]] = field(default_factory=dict)
    records: list[tuple[Callable[[Diagnostics], Any], Diagnostics]] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    _parameters: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _states: list[tuple[Tensor, dict[str, Any] | None]] = field(default_factory=list)

    def commit(self, states: dict[Tensor, dict[str, Any]]) -> None:
        """Write the step; after an exception, restore the previous parameters and state."""
        for hook, record in self.records:
            hook(record)
        try:
            while self.values:
                part, value = self.values.pop()
                before = part.clone()
                part.copy_(value)
                self._parameters.append((part, before))
            for param, entries in self.states.items():
                known = states.get(param)
                self._states.append((param, None if known is None else dict(known)))
                states[param].update(entries)
        except BaseException:
            self.undo(states)
            raise

    def undo(self, states: dict[Tensor, dict[str, Any]]) -> None:
        """Restore the parameters and the state that `commit` replaced."""
        for part, before in self._parameters:
            part.copy_(before)
        for param, known in self._states:
            states.pop(param, None)
            if known is not None:
                states[param] = known


def hyperparameters(given: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters among the local variables of an ``__init__``.

    Parameters
    ----------
    given : dict
        ``locals()``, before the first assignment.

    Returns
    -------
    dict
        All local variables but self, the parameters and the learning rate.
    """
    aside = {"self", "params", "lr", "__class__"}
    return {name: value for name, value in given.items() if name not in aside}


# Names in torch.optim and in the codes of the authors: the parameter here, and the advice.
_ELSEWHERE: dict[str, tuple[str | None, str]] = {
    "foreach": (None, "matrices of one shape are computed together anyway; leave it out"),
    "fused": (None, "there is no fused kernel; leave it out"),
    "capturable": (None, "steps cannot be captured in a CUDA graph; leave it out"),
    "differentiable": (None, "steps are not differentiable; leave it out"),
    "dampening": ("ema", "pass ema=True for dampening=momentum, and nothing for dampening=0"),
    "betas": ("momentum", "pass momentum="),
    "mu": ("momentum", "pass momentum="),
    "beta": ("momentum", "pass momentum="),
    "wd": ("weight_decay", "pass weight_decay="),
    "rank": ("k", "pass k=, an integer"),
    "ns_steps": ("method", "pass method=trsvd.NewtonSchulz(steps=...)"),
    "ns_coefficients": ("method", "pass method=trsvd.NewtonSchulz(coefficients=...)"),
    "adjust_lr_fn": (
        "shape_scaling",
        "pass shape_scaling='muon' for 'original', 'adamw' for 'match_rms_adamw'",
    ),
}


def _naming_the_class(init: Callable[..., None]) -> Callable[..., None]:
    """Raise an error for an unknown keyword, with the name of the class and advice."""
    known = inspect.signature(init).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values()):
        return init

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **options: Any) -> None:
        for name in options:
            if name not in known:
                raise TypeError(_unknown(type(self).__name__, name, list(known)))
        init(self, *args, **options)

    return checked


def _unknown(cls: str, name: str, known: list[str]) -> str:
    """Return the message for a keyword that a class does not have."""
    there, advice = _ELSEWHERE.get(name, ("", ""))
    if there is None or there in known:
        return f"{cls}() has no parameter {name!r}: {advice}"
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{cls}() has no parameter {name!r}; did you mean {near[0]!r}?"
    return f"{cls}() has no parameter {name!r}; its parameters are {', '.join(known[1:])}"


class MatrixOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """Base of the optimizers here: momentum, and a step along the output of an oracle.

    A subclass returns the oracle of a parameter group in `oracle`. All hyper-parameters are in
    ``param_groups``.

    A step first computes all directions, and then writes. After an exception, parameters and state
    are unchanged. A step with a learning rate of 0 updates the momentum only. It changes no
    parameter, and is not counted as a step.

    Parameters
    ----------
    params : iterable of tensors, of named tensors, or of dicts
        Parameters with at least two dimensions each.
    lr : float or tensor
        Learning rate, at least 0.
    options : dict
        Other hyper-parameters: those of `common_options`, and those of the subclass.

    Raises
    ------
    TypeError, ValueError
        If a hyper-parameter is not of the kind described, or a parameter is not a matrix.

    See Also
    --------
    BallOptimizer, CompositeOptimizer

    Notes
    -----
    Memory during a step, in addition to the state: the next values of all parameters and momentum
    buffers (the size of both), and the gradients with momentum, which are the input of the oracle.

    Parameters may be DTensors, as those of `torch.distributed.fsdp.fully_shard`. Momentum has the
    same placements. Every process gathers the oracle inputs of a parameter group, and computes all
    updates. Each process stores starting vectors and second moments in full.
    """

    param_groups: list[dict[str, Any]]
    state: dict[Tensor, dict[str, Any]]
    defaults: dict[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in cls.__dict__:
            cls.__init__ = _naming_the_class(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, params: Any, lr: float | Tensor, options: dict[str, Any]) -> None:
        self._diagnostics_hooks: OrderedDict[int, tuple[Callable[[Diagnostics], Any], int]]
        self._diagnostics_hooks = OrderedDict()
        # `CompositeOptimizer` collects functions that undo a step here.
        self._journal: list[Callable[[], None]] | None = None
        if isinstance(params, Groups) and not params:
            raise ValueError(
                f"the part {params.part!r} of the split is empty: the model has no such parameter "
                f"that requires a gradient. Leave {type(self).__name__} out, or print the split to "
                "see the part of each parameter"
            )
        super().__init__(params, {"lr": lr, **options})

    def oracle(self, group: dict[str, Any]) -> Oracle:
        """Return the oracle of a parameter group."""
        raise NotImplementedError

    def scaling(self, group: dict[str, Any]) -> Scaling:
        """Return the factor of the updates of a parameter group, see `trsvd.optim.SCALINGS`."""
        scaling: Scaling = group["shape_scaling"]
        return scaling

    # ---- groups -----------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their own hyper-parameters; see `torch.optim.Optimizer`."""
        # `torch.optim.Optimizer` fills the dict with defaults.
        super().add_param_group(dict(param_group))
        try:
            self._check(self.param_groups[-1])
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        """Raise errors for invalid options and shapes, before the first step."""
        self._check_options(group)
        check_rng(group["seed"])
        dtype = group["momentum_dtype"]
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise TypeError(
                f"momentum_dtype={dtype!r}; pass a real floating dtype, as torch.float32, or None"
            )
        for param in group["params"]:
            check_shape(tuple(param.shape), group["layout"])
            shape_scale(self.scaling(group), tuple(param.shape), group["layout"])
        oracle = self.oracle(group)
        if isinstance(oracle, BallOracle):
            for param in group["params"]:
                oracle.ball_at(0, stack_shape(tuple(param.shape), group["layout"])[1:])
        # Raise errors for an unknown method or an invalid gap here, not at the first step.
        oracle.directions([torch.zeros(1, 1)], [None], 0)

    def _check_options(self, group: dict[str, Any]) -> None:
        """Check numbers and flags that can change between steps, without device synchronization."""
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, but has shape {tuple(lr.shape)}")
        for name in ("lr", "weight_decay"):
            if not on_device(group[name]):
                check_rate(name, group[name])
        if not on_device(group["momentum"]):
            check_momentum(group["momentum"])
        for name in group.keys() & _FLAGS:
            check_flag(name, group[name])
        self.oracle(group)  # checks its own options

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def _check_groups(self) -> None:
        """Check options that schedulers, loaded states and users may have changed."""
        for number, group in enumerate(self.param_groups):
            try:
                self._check_options(group)
            except (TypeError, ValueError) as error:
                raise type(error)(f"parameter group {number}: {error}") from None

    # ---- the step ---------------------------------------------------------------------------

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step.

        Parameters
        ----------
        closure : callable, optional
            Function that computes the loss and its gradients.

        Returns
        -------
        loss
            Value returned by the closure.

        Raises
        ------
        RuntimeError
            If a gradient is sparse or complex.
        ValueError
            If a direction contains NaN or inf (`torch.amp.GradScaler` skips such steps), or if a
            number in ``param_groups`` is out of range, as in the constructor.
        TypeError
            If an option in ``param_groups`` has an invalid type.

        Notes
        -----
        After an exception, parameters and state are unchanged.
        """
        loss = None
        self._check_groups()
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        plan, stacks = self._begun()
        # torch.compile compiles these products only; the rest runs in Python.
        found = [_products(X, polynomials) for X, polynomials in stacks]
        self._finish(plan, found)
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def _begun(self) -> tuple[Plan, list[tuple[Tensor, Any]]]:
        """Return the plan of the step, without updates, and the stacks for `polar_products`."""
        plan = Plan()
        for number, group in enumerate(self.param_groups):
            params = [p for p in group["params"] if p.grad is not None]
            lr = check_rate("lr", group["lr"])  # a tensor on a device was not checked before
            for param in params:
                self._check_gradient(param)
                plan.states[param] = {"step": self._steps(param) + (lr != 0)}
            params = [p for p in params if p.numel()]
            if params:
                self._plan_group(plan, params, group, number)
        return plan, [(each.X, each.polynomials) for work in plan.work for each in work.stacks]

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def _finish(self, plan: Plan, found: list[Tensor]) -> None:
        """Complete the step with the output of the oracles, and write it."""
        rest = iter(found)
        for work in plan.work:
            iterates = work.stacks.iterates([next(rest) for _ in work.stacks])
            updates = self._updates(plan, work, iterates)
            for param, update in zip(work.params, updates, strict=True):
                self._move(plan, param, update, work.group)
        plan.work.clear()
        plan.commit(self.state)
        if self._journal is not None:
            self._journal.append(partial(plan.undo, self.state))

    def _check_gradient(self, param: Tensor) -> None:
        name = type(self).__name__
        if param.grad.layout is not torch.strided:
            raise RuntimeError(
                f"{name} does not support sparse gradients; pass embeddings to another optimizer"
            )
        if param.is_complex():
            raise RuntimeError(f"{name} does not support complex parameters; pass real parameters")

    def _known(self, param: Tensor) -> dict[str, Any]:
        """Return the state of a parameter; an empty dict, not stored, before its first step."""
        return self.state.get(param, {})

    def _steps(self, param: Tensor) -> int:
        return int(self._known(param).get("step", 0))

    def _plan_group(
        self, plan: Plan, params: list[Tensor], group: dict[str, Any], number: int
    ) -> None:
        """Plan the step of a group: compute the input of its oracle."""
        directions = self._directions_to_go(plan, params, group)
        oracle, stacks = self.oracle(group), PolarStacks()
        if isinstance(oracle, BallOracle) and isinstance(oracle.method, PolarIteration):
            matrices = [E for D in directions for E in as_matrices(D, group["layout"])]
            stacks = PolarStacks(matrices, oracle.method)
        plan.work.append(Work(params, directions, group, number, stacks))

    def _gradients(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return local gradients for minimization, in the dtype of the momentum."""
        grads = [local(p.grad, p) for p in params]
        return [
            (-G if group["maximize"] else G).to(group["momentum_dtype"] or p.dtype)
            for G, p in zip(grads, params, strict=True)
        ]

    def _directions_to_go(
        self, plan: Plan, params: list[Tensor], group: dict[str, Any]
    ) -> list[Tensor]:
        """Return the input of the oracle: whole gradients with momentum."""
        grads, mu = self._gradients(params, group), group["momentum"]
        if not mu:
            return [gathered(G, p) for G, p in zip(grads, params, strict=True)]
        buffers = self._buffers(params, grads)
        if group["ema"]:  # as torch.optim.Muon: torch._foreach_lerp rounds differently
            pairs = zip(buffers, grads, strict=True)
            ahead = buffers = [M.lerp(G, 1 - mu) for M, G in pairs]
            if group["nesterov"]:
                ahead = [G.lerp(M, mu) for M, G in zip(buffers, grads, strict=True)]
        else:
            ahead = buffers = torch._foreach_mul(buffers, mu)
            torch._foreach_add_(buffers, grads)
            if group["nesterov"]:
                ahead = torch._foreach_add(grads, buffers, alpha=mu)
        self._keep_buffers(plan, params, buffers)
        return [gathered(E, p) for E, p in zip(ahead, params, strict=True)]

    def _buffers(self, params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Return the local momentum buffers of the previous step; zeros at first."""
        out = []
        for param, G in zip(params, grads, strict=True):
            M = self._known(param).get("momentum_buffer")
            out.append(torch.zeros_like(G) if M is None else local(M, param))
        return out

    def _keep_buffers(self, plan: Plan, params: list[Tensor], buffers: Sequence[Tensor]) -> None:
        for param, M in zip(params, buffers, strict=True):
            plan.states[param]["momentum_buffer"] = like(M, param)

    def _updates(self, plan: Plan, work: Work, iterates: list[Tensor]) -> list[Tensor]:
        """Return the updates; matrices with the same number of steps are computed together."""
        params, group = work.params, work.group
        oracle, layout = self.oracle(group), group["layout"]
        stacks = [as_matrices(E, layout) for E in work.directions]
        made = iter(iterates)
        ready = [[next(made) for _ in stack] for stack in stacks] if iterates else None
        by_step: dict[int, list[int]] = {}
        for place, param in enumerate(params):
            by_step.setdefault(self._steps(param), []).append(place)
        updates: dict[int, Tensor] = {}
        for step, places in by_step.items():
            starts = [
                start
                for place in places
                for start in unpacked(self._known(params[place]), len(stacks[place]))
            ]
            matrices = [E for place in places for E in stacks[place]]
            known = {"iterates": [X for p in places for X in ready[p]]} if ready else {}
            found = oracle.directions(matrices, starts, step, **known)
            if self._diagnostics_hooks:
                owners = [params[place] for place in places for _ in stacks[place]]
                self._report(plan, owners, matrices, found, starts, oracle, group, work.number)
            rest = iter(found)
            for place in places:
                mine, param = [next(rest) for _ in stacks[place]], params[place]
                shape = tuple(param.shape)
                updates[place] = assembled([each.update for each in mine], shape, layout)
                plan.states[param] |= self._remembered(stacks[place][0], mine, oracle, step)
        return [updates[place] for place in range(len(params))]

    def _remembered(
        self, E: Tensor, found: list[Direction], oracle: Oracle, step: int
    ) -> dict[str, Any]:
        """Return the stored start of the next step; E is one matrix of the parameter."""
        width = oracle.columns(tuple(E.shape), step)
        if not width:
            return {}
        # The subspace of a zero matrix is not a useful start.
        subspaces = [direction.subspace if direction.rank else None for direction in found]
        ranks = torch.tensor([direction.rank or 0 for direction in found])
        return {**packed(subspaces, tuple(E.shape), width, E), "ranks": ranks}

    def _move(self, plan: Plan, param: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        """``W <- (1 - lr wd) W + lr D``."""
        lr, decay = group["lr"], group["weight_decay"]
        if plan.states[param]["step"] == self._steps(param):  # learning rate 0
            return
        if isinstance(lr, Tensor):
            lr = lr.reshape(())
        scale = shape_scale(self.scaling(group), tuple(param.shape), group["layout"])
        _check_factors(lr, decay, scale, param.dtype)
        keep: Any = 1.0
        if group["normalize_weights"]:
            norm = frobenius_norm(param, torch.promote_types(param.dtype, torch.float32))
            keep = math.sqrt(param.shape[0]) / norm
            keep = torch.where(torch.isfinite(keep), keep, 1.0)  # zero or underflow
        W, D = local(param, param), own_part(update, param)
        # A tensor factor would be rounded to the half precision of the parameter.
        wide, after = torch.promote_types(W.dtype, torch.float32), W
        if group["normalize_weights"] or decay:
            factor = keep - lr * decay
            after = ((W.to(wide) if isinstance(factor, Tensor) else W) * factor).to(W.dtype)
        if isinstance(lr, Tensor):
            after = after.to(wide) + D.to(wide) * (lr * scale)
        else:
            after = after.add(D, alpha=lr * scale)
        plan.values.append((W, after.to(W.dtype)))

    # ---- diagnostics --------------------------------------------------------------------------

    def register_diagnostics_hook(
        self, hook: Callable[[Diagnostics], Any], *, every: int = 1
    ) -> RemovableHandle:
        """Call a hook with a `trsvd.optim.Diagnostics` for each matrix.

        Parameters
        ----------
        hook : callable
            Hook, such as `trsvd.optim.JSONLinesWriter`.
        every : int, default 1
            Number of steps between two calls. Each call computes the singular values of all
            matrices.

        Returns
        -------
        torch.utils.hooks.RemovableHandle
            Handle with a method ``remove()``. Hooks are not saved with the state.

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
        plan: Plan,
        owners: list[Tensor],
        matrices: list[Tensor],
        found: list[Direction],
        starts: Sequence[Subspace | None],
        oracle: Oracle,
        group: dict[str, Any],
        number: int,
    ) -> None:
        step = self._steps(owners[0])
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
            plan.records += [(hook, record) for hook in hooks]

    # ---- saving and loading -------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain data; see `torch.optim.Optimizer`.

        Functions among the hyper-parameters are not saved: a ``shape_scaling``, or a schedule that
        is not a class of `trsvd.optim`. An optimizer that loads the state keeps its own functions.
        """
        state = super().state_dict()
        params = [param for group in self.param_groups for param in group["params"]]
        return {
            **state,
            "state": {
                key: beside(entries, params[key]) if isinstance(key, int) else entries
                for key, entries in state["state"].items()
            },
            "param_groups": [encoded(group) for group in state["param_groups"]],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; see `torch.optim.Optimizer`.

        All tensors keep their dtypes, so that a trajectory continues bit for bit.
        """
        given: dict[str, Any] = {}
        # Other hooks run before the first of these two, and see the result of the second.
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
        """Restore the state of each parameter as it was saved."""
        saved = [index for group in given["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in zip(saved, params, strict=True):
            if index in given["state"]:
                self.state[param] = copied(given["state"][index], param)

    def __setstate__(self, state: dict[str, Any]) -> None:
        old: list[dict[str, Any]] = self.__dict__.get("param_groups", [])
        super().__setstate__(state)
        self.__dict__.setdefault("_diagnostics_hooks", OrderedDict())
        self.__dict__.setdefault("_journal", None)
        own = [*old, *({} for _ in self.param_groups[len(old) :])]
        for group, mine in zip(self.param_groups, own, strict=False):
            group.update(decoded(group, mine))


def on_device(value: Any) -> bool:
    """True for a tensor on another device, since reading its value synchronizes."""
    return isinstance(value, Tensor) and value.device.type != "cpu"


def _check_factors(lr: Any, decay: Any, scale: float, dtype: torch.dtype) -> None:
    """Check that the factors of a step do not overflow; the written values are not checked."""
    if on_device(lr) or on_device(decay):
        return
    largest = torch.finfo(dtype).max
    for name, factor in (
        ("lr * shape_scaling", float(lr) * scale),
        ("lr * weight_decay", float(lr) * float(decay)),
    ):
        if not abs(factor) < largest:
            raise ValueError(
                f"{name} is {factor:.3g}, which overflows in {dtype}; pass smaller numbers"
            )


def _products(X: Tensor, polynomials: Sequence[Sequence[float]]) -> Tensor:
    """Run a polar iteration in the dtype of X, also within autocast."""
    with torch.autocast(X.device.type, enabled=False):
        return polar_products(X, polynomials, _transposed, _added)


def _transposed(X: Tensor) -> Tensor:
    return X.mT


def _added(C: Tensor, A: Tensor, B: Tensor, beta: float, alpha: float) -> Tensor:
    if not alpha:  # torch.baddbmm reads uninitialized memory
        return beta * C
    add = torch.addmm if A.ndim == 2 else torch.baddbmm
    return add(C, A, B, beta=beta, alpha=alpha)


_KEY = "trsvd"
_FUNCTION = "function"
_KNOWN: dict[str, Any] = {
    each.__name__: each for each in (NewtonSchulz, PolarExpress, Constant, Piecewise, Cosine)
} | {each.__name__: each for each in METHODS.values()}


# ---- hyper-parameters -----------------------------------------------------------------------


def encoded(group: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter group with methods and schedules as plain data.

    A function is replaced by a marker: a group that loads the data keeps its own function.
    """
    out = {}
    for name, value in group.items():
        if type(value).__name__ in _KNOWN and isinstance(value, _KNOWN[type(value).__name__]):
            options = {field.name: getattr(value, field.name) for field in fields(value)}
            out[name] = {_KEY: type(value).__name__, **options}
        elif callable(value) and not isinstance(value, Tensor):
            out[name] = {_KEY: _FUNCTION}
        else:
            out[name] = value
    return out


def decoded(group: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Invert `encoded`; take functions and missing entries from the optimizer's own group."""
    out = {}
    for name, value in group.items():
        if not (isinstance(value, dict) and _KEY in value):
            out[name] = value
        elif value[_KEY] in _KNOWN:
            options = {key: each for key, each in value.items() if key != _KEY}
            out[name] = _KNOWN[value[_KEY]](**options)
        elif value[_KEY] != _FUNCTION:
            raise ValueError(
                f"{name} of the state is {value[_KEY]!r}, which this version does not know; load "
                "it with the version of trsvd that saved it"
            )
    return {**own, **out}


# ---- subspaces ------------------------------------------------------------------------------

# Stored on the host, for the oracle; in a state_dict, on the device of the parameter.
_ON_HOST = ("tracks", "ranks", "tau")
# The numbers before the singular values in a row of "tracks".
_NUMBERS = ("k", "left_is_newer", "gain", "age", "outside", "flat")


def packed(
    subspaces: Sequence[Subspace | None], shape: tuple[int, int], width: int, like: Tensor
) -> dict[str, Tensor]:
    """Return the subspaces of a stack of matrices as three tensors of fixed shapes.

    Parameters
    ----------
    subspaces : sequence of Subspace or None
        Subspace of each matrix.
    shape : tuple of int
        Shape ``(m, n)`` of the matrices.
    width : int
        Number of columns to keep. Further columns are dropped, missing ones are filled with zeros.
    like : tensor
        Tensor with the device and the dtype (float32 for half precision) of the zeros.

    Returns
    -------
    dict
        ``"left_vectors"`` of shape (b, m, width), ``"right_vectors"`` of shape (b, width, n), and
        ``"tracks"`` of shape (b, 7 + width), in float64 on the host. A row of ``"tracks"`` contains
        the number of columns (0 without a subspace), the numbers of the track (k = 0 without a
        track), and the singular values (-1 for missing ones).
    """
    m, n = shape
    dtype = torch.promote_types(like.dtype, torch.float32)
    left, right = like.new_zeros((m, width), dtype=dtype), like.new_zeros((width, n), dtype=dtype)
    lefts, rights, rows = [], [], []
    for subspace in subspaces:
        row = [0.0] * (1 + len(_NUMBERS)) + [-1.0] * width
        U, Vh = left, right
        if subspace is not None:
            U, Vh = subspace.U[:, :width], subspace.Vh[:width, :]
            row[0] = U.shape[1]
            if subspace.track is not None:
                known = [float(value) for value in subspace.track.values[:width]]
                numbers = [float(getattr(subspace.track, name)) for name in _NUMBERS]
                row[1 : 1 + len(numbers) + len(known)] = numbers + known
            if U.shape[1] < width:
                U = torch.cat([U, left[:, U.shape[1] :]], dim=1)
                Vh = torch.cat([Vh, right[Vh.shape[0] :, :]])
        lefts.append(U)
        rights.append(Vh)
        rows.append(row)
    return {
        "left_vectors": torch.stack(lefts),
        "right_vectors": torch.stack(rights),
        "tracks": torch.tensor(rows, dtype=torch.float64),
    }


def unpacked(state: dict[str, Any], count: int) -> list[Subspace | None]:
    """Return the subspaces of the matrices of a parameter, from its state."""
    if "tracks" not in state:
        return [None] * count
    out: list[Subspace | None] = []
    for place, (columns, *rest) in enumerate(state["tracks"].tolist()):
        width, track = int(columns), None
        k, left_is_newer, gain, age, outside, flat = rest[: len(_NUMBERS)]
        if k:
            values = np.array(rest[len(_NUMBERS) :])
            track = Track(
                k=int(k),
                left_is_newer=bool(left_is_newer),
                gain=gain,
                age=int(age),
                values=values[values >= 0],
                outside=outside,
                flat=int(flat),
            )
        U, Vh = state["left_vectors"][place], state["right_vectors"][place]
        out.append(Subspace(U[:, :width], Vh[:width, :], track) if width else None)
    return out


def beside(state: dict[str, Any], param: Tensor) -> dict[str, Any]:
    """Return the state of a parameter with all tensors on one device, for checkpoints."""
    # MPS devices have no float64.
    device = "cpu" if param.device.type == "mps" else param.device
    return {name: value.to(device) if name in _ON_HOST else value for name, value in state.items()}


def copied(state: dict[str, Any], param: Tensor) -> dict[str, Any]:
    """Copy the state of a parameter without changing the dtypes of its tensors.

    `torch.optim.Optimizer.load_state_dict` would cast them to the dtype of the parameter.
    """
    return {
        name: value.detach().to(device="cpu" if name in _ON_HOST else param.device, copy=True)
        if isinstance(value, Tensor)
        else value
        for name, value in state.items()
    }
