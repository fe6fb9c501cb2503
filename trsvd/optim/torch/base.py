"""Base of the PyTorch optimizers: groups, momentum, the oracle's step, the state."""

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


@dataclass(frozen=True, eq=False)
class Work:
    """The parameters of a group, and the directions that its oracle is to be asked about.

    Attributes
    ----------
    params, directions : list of tensors
        Parameters; gradients with momentum, whole.
    group : dict
        The parameter group.
    number : int
        Its place.
    stacks : PolarStacks
        Of all matrices, for an iteration to the polar factor; empty for another method.
    """

    params: list[Tensor]
    directions: list[Tensor]
    group: dict[str, Any]
    number: int
    stacks: PolarStacks


@dataclass(eq=False)
class Plan:
    """Values that a step will write: computed first for all parameters, then written.

    Attributes
    ----------
    values : list of (tensor, tensor)
        Parameters (the local parts of DTensors) with their next values.
    states : dict
        Of a parameter, the entries of its state that change. Tensors are new ones: those of the
        last step stay as they are.
    records : list of (callable, Diagnostics)
        What hooks are to be called with.
    work : list of Work
        What is left to be planned.
    """

    values: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    states: dict[Tensor, dict[str, Any]] = field(default_factory=dict)
    records: list[tuple[Callable[[Diagnostics], Any], Diagnostics]] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    _parameters: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _states: list[tuple[Tensor, dict[str, Any] | None]] = field(default_factory=list)

    def commit(self, states: dict[Tensor, dict[str, Any]]) -> None:
        """Write the step; if an exception interrupts it, everything is as before."""
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
        """Bring back what `commit` replaced."""
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
        All but self, the parameters and the learning rate.
    """
    aside = {"self", "params", "lr", "__class__"}
    return {name: value for name, value in given.items() if name not in aside}


# Spellings of torch.optim and of the authors' codes: the parameter here, and what to do.
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
    "rank_fraction": ("k", "pass k=, a float between 0 and 1"),
    "ns_steps": ("method", "pass method=trsvd.NewtonSchulz(steps=...)"),
    "ns_coefficients": ("method", "pass method=trsvd.NewtonSchulz(coefficients=...)"),
    "adjust_lr_fn": (
        "shape_scaling",
        "pass shape_scaling='muon' for 'original', 'adamw' for 'match_rms_adamw'",
    ),
}


def _naming_the_class(init: Callable[..., None]) -> Callable[..., None]:
    """Make an unknown keyword an error about the class, which says what to pass instead."""
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
    """The message about a keyword that a class does not have."""
    there, advice = _ELSEWHERE.get(name, ("", ""))
    if there is None or there in known:
        return f"{cls}() has no parameter {name!r}: {advice}"
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"{cls}() has no parameter {name!r}; did you mean {near[0]!r}?"
    return f"{cls}() has no parameter {name!r}; its parameters are {', '.join(known[1:])}"


class MatrixOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """Momentum, and a step along the answers of an oracle; base of the optimizers here.

    A subclass says in `oracle` which one, for a parameter group. All hyper-parameters are in
    ``param_groups``.

    A step computes all directions first, and then writes: after an exception, parameters and state
    are what they were. A step with a learning rate of 0 takes the gradient into the momentum; it
    moves no parameter, and does not count.

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
        If a hyper-parameter is not of the kind described, or a parameter is not a matrix.

    Notes
    -----
    Memory during a step, beside the state: the next values of all parameters and momentum buffers
    (as much as these two), and the gradients with momentum that the oracle is asked about.

    Parameters may be DTensors, as those of `torch.distributed.fsdp.fully_shard`. Momentum is placed
    as they are. Every process gathers the directions of a parameter group, and computes all of
    them; vectors to start from and second moments are kept whole by each process.
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
        # Where `CompositeOptimizer` collects what undoes a step.
        self._journal: list[Callable[[], None]] | None = None
        if isinstance(params, Groups) and not params:
            raise ValueError(
                f"the part {params.part!r} of the split is empty: the model has no such parameter "
                f"that requires a gradient. Leave {type(self).__name__} out, or print the split to "
                "see where each parameter goes"
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
        """Errors for what cannot be worked with, before the first step."""
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
        # An unknown method or a gap out of range is an error here, not at the first step.
        oracle.directions([torch.zeros(1, 1)], [None], 0)

    def _check_options(self, group: dict[str, Any]) -> None:
        """Errors for numbers and flags that may change between steps; no device is waited for."""
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError(f"Tensor lr must be 1-element, and is of shape {tuple(lr.shape)}")
        for name in ("lr", "weight_decay"):
            if not on_device(group[name]):
                check_rate(name, group[name])
        if not on_device(group["momentum"]):
            check_momentum(group["momentum"])
        for name in group.keys() & _FLAGS:
            check_flag(name, group[name])
        self.oracle(group)  # which has the errors about its own options

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def _check_groups(self) -> None:
        """Errors for options that schedulers, states and users have set since the last step."""
        for number, group in enumerate(self.param_groups):
            try:
                self._check_options(group)
            except (TypeError, ValueError) as error:
                raise type(error)(f"parameter group {number}: {error}") from None

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
            If a direction is not finite (`torch.amp.GradScaler` skips such steps), or a number in
            ``param_groups`` is out of range, as for the constructor.
        TypeError
            If an option in ``param_groups`` is of another type.

        Notes
        -----
        After an exception parameters and state are what they were.
        """
        loss = None
        self._check_groups()
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        plan, stacks = self._begun()
        # Under torch.compile these products are a graph, and the rest is left to Python.
        found = [_products(X, polynomials) for X, polynomials in stacks]
        self._finish(plan, found)
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def _begun(self) -> tuple[Plan, list[tuple[Tensor, Any]]]:
        """The step that is due, without directions; and stacks for `polar_products`."""
        plan = Plan()
        for number, group in enumerate(self.param_groups):
            params = [p for p in group["params"] if p.grad is not None]
            lr = check_rate("lr", group["lr"])  # on a device: not checked before
            for param in params:
                self._check_gradient(param)
                plan.states[param] = {"step": self._steps(param) + (lr != 0)}
            params = [p for p in params if p.numel()]
            if params:
                self._plan_group(plan, params, group, number)
        return plan, [(each.X, each.polynomials) for work in plan.work for each in work.stacks]

    @torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
    def _finish(self, plan: Plan, found: list[Tensor]) -> None:
        """Complete the step with the answers of the oracles, and write it."""
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
                f"{name} does not support sparse gradients; leave embeddings to another optimizer"
            )
        if param.is_complex():
            raise RuntimeError(
                f"{name} does not support complex parameters; view them as real ones"
            )

    def _known(self, param: Tensor) -> dict[str, Any]:
        """The state of a parameter; empty, and not kept, before its first step."""
        return self.state.get(param, {})

    def _steps(self, param: Tensor) -> int:
        return int(self._known(param).get("step", 0))

    def _plan_group(
        self, plan: Plan, params: list[Tensor], group: dict[str, Any], number: int
    ) -> None:
        """Plan the step of a group: what its oracle is to be asked about."""
        directions = self._directions_to_go(plan, params, group)
        oracle, stacks = self.oracle(group), PolarStacks()
        if isinstance(oracle, BallOracle) and isinstance(oracle.method, PolarIteration):
            matrices = [E for D in directions for E in as_matrices(D, group["layout"])]
            stacks = PolarStacks(matrices, oracle.method)
        plan.work.append(Work(params, directions, group, number, stacks))

    def _gradients(self, params: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Gradients to go down along, in the dtype of the momentum: local parts."""
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
        if group["ema"]:  # one by one, as torch.optim.Muon: torch._foreach_lerp rounds otherwise
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
        """The momentum of the last step, local parts; zeros at first."""
        out = []
        for param, G in zip(params, grads, strict=True):
            M = self._known(param).get("momentum_buffer")
            out.append(torch.zeros_like(G) if M is None else local(M, param))
        return out

    def _keep_buffers(self, plan: Plan, params: list[Tensor], buffers: Sequence[Tensor]) -> None:
        for param, M in zip(params, buffers, strict=True):
            plan.states[param]["momentum_buffer"] = like(M, param)

    def _updates(self, plan: Plan, work: Work, iterates: list[Tensor]) -> list[Tensor]:
        """The oracle's answers, all matrices that made the same number of steps at once."""
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
        """Return the stored start of the next step of a parameter, of which E is one matrix."""
        width = oracle.columns(tuple(E.shape), step)
        if not width:
            return {}
        # The subspace of a matrix of zeros is no start for another.
        subspaces = [direction.subspace if direction.rank else None for direction in found]
        ranks = torch.tensor([direction.rank or 0 for direction in found])
        return {**packed(subspaces, tuple(E.shape), width, E), "ranks": ranks}

    def _move(self, plan: Plan, param: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        """``W <- (1 - lr wd) W + lr D``."""
        lr, decay = group["lr"], group["weight_decay"]
        if plan.states[param]["step"] == self._steps(param):  # no learning rate
            return
        if isinstance(lr, Tensor):
            lr = lr.reshape(())
        scale = shape_scale(self.scaling(group), tuple(param.shape), group["layout"])
        _check_factors(lr, decay, scale, param.dtype)
        keep: Any = 1.0
        if group["normalize_weights"]:
            norm = frobenius_norm(param, torch.promote_types(param.dtype, torch.float32))
            keep = math.sqrt(param.shape[0]) / norm
            keep = torch.where(torch.isfinite(keep), keep, 1.0)  # zero, or nearly so
        W, D = local(param, param), own_part(update, param)
        # A factor that is a tensor would be rounded to the half precision of the parameter.
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
        """The state, of tensors and plain data only; see `torch.optim.Optimizer`.

        Functions among the hyper-parameters (a ``shape_scaling``, a schedule that is none of
        `trsvd.optim`) are not in it: an optimizer that loads it keeps its own.
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
        """Go on from a state; see `torch.optim.Optimizer`.

        All tensors keep their dtypes: a trajectory continues bit for bit.
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
    """True for a tensor of another device, whose number has to be waited for."""
    return isinstance(value, Tensor) and value.device.type != "cpu"


def _check_factors(lr: Any, decay: Any, scale: float, dtype: torch.dtype) -> None:
    """ValueError if the factors of a step overflow; what is written is not looked at."""
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
    """An iteration to the polar factor, in the dtype of X within autocast too."""
    with torch.autocast(X.device.type, enabled=False):
        return polar_products(X, polynomials, _transposed, _added)


def _transposed(X: Tensor) -> Tensor:
    return X.mT


def _added(C: Tensor, A: Tensor, B: Tensor, beta: float, alpha: float) -> Tensor:
    if not alpha:  # torch.baddbmm reads memory that was not written to
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
    """A parameter group with methods and schedules as plain data.

    A function, which nothing can be known of, is a mark: a group that is loaded keeps its own.
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
                f"{name} of the state is {value[_KEY]!r}, which this version does not know"
            )
    return {**own, **out}


# ---- subspaces ------------------------------------------------------------------------------

# Kept on the host, where the oracle reads them; a state_dict has them beside the parameter.
_ON_HOST = ("tracks", "ranks", "tau")
# Before the singular values, in a row of "tracks".
_NUMBERS = ("k", "left_is_newer", "gain", "age", "outside", "flat")


def packed(
    subspaces: Sequence[Subspace | None], shape: tuple[int, int], width: int, like: Tensor
) -> dict[str, Tensor]:
    """Subspaces of a stack of matrices as three tensors, whose shapes do not depend on the values.

    Parameters
    ----------
    subspaces : sequence of Subspace or None
        One of each matrix.
    shape : tuple of int
        ``(m, n)``.
    width : int
        Columns to keep: those beyond are left out, missing ones are zeros.
    like : tensor
        On whose device, in whose dtype (float32 for half precision) zeros are made.

    Returns
    -------
    dict
        ``"left_vectors"`` of shape (b, m, width), ``"right_vectors"`` of shape (b, width, n), and
        ``"tracks"`` of shape (b, 7 + width), in float64 on the host: the number of columns (0 where
        there is no subspace), what a warm step knows (k = 0 if that is nothing), singular values
        (-1 where there is none).
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
    """The subspaces of a parameter's matrices, from its state."""
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
    """The state of a parameter with all tensors on one device, as checkpoints need it."""
    # Apple's devices have no float64.
    device = "cpu" if param.device.type == "mps" else param.device
    return {name: value.to(device) if name in _ON_HOST else value for name, value in state.items()}


def copied(state: dict[str, Any], param: Tensor) -> dict[str, Any]:
    """A copy of the state of a parameter, its tensors in the dtypes that they have.

    `torch.optim.Optimizer.load_state_dict` by itself brings them to the dtype of the parameter.
    """
    return {
        name: value.detach().to(device="cpu" if name in _ON_HOST else param.device, copy=True)
        if isinstance(value, Tensor)
        else value
        for name, value in state.items()
    }
