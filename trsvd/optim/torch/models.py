"""Composition of several optimizers of a model."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from trsvd.optim.torch.base import MatrixOptimizer
from trsvd.optim.torch.shards import all_finite


class CompositeOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """Several optimizers of different parameters as one, with one step and one state_dict.

    The parameter groups are those of all optimizers, in order; groups that are added later come
    last. The object works as an ordinary optimizer with learning-rate schedulers,
    `torch.amp.GradScaler` and `torch.distributed.checkpoint`. Schedulers that cycle momentum do so
    in the groups with a ``"momentum"``, or in ``"betas"`` if no optimizer has a momentum.

    A step that fails changes nothing. If an optimizer rejects its gradients, or a gradient contains
    NaN or inf, all parameters and states are unchanged.

    Parameters
    ----------
    *optimizers : torch.optim.Optimizer
        Optimizers with disjoint parameters.

    Raises
    ------
    TypeError, ValueError
        If there are no parameters, an argument is not an optimizer, or two share a parameter.

    See Also
    --------
    split_parameters

    Notes
    -----
    Memory during a step: the previous parameters and momentum of the optimizers of
    `trsvd.optim.torch` are kept until all steps are made. Other optimizers step after them.
    Parameters and state of these, except the last one, are copied before the step. If the last one
    raises an exception, its own changes are not undone.

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import CompositeOptimizer, Muon, split_parameters
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> matrices, others = split_parameters(model)
    >>> optimizer = CompositeOptimizer(Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=3e-4))
    >>> scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        for optimizer in optimizers:
            if not isinstance(optimizer, torch.optim.Optimizer):
                raise TypeError(f"{optimizer!r} is not a torch.optim.Optimizer")
        params = [p for each in optimizers for p in _parameters(each)]
        if len({id(p) for p in params}) < len(params):
            raise ValueError(
                "two of the optimizers share a parameter; pass each parameter to one optimizer only"
            )
        self.optimizers = optimizers
        self._order: list[tuple[int, int]] = []
        self._complete = False
        super().__init__(params, {})
        self._complete = True

    # ---- interface of an optimizer ----------------------------------------------------------

    def _places(self) -> list[tuple[int, int]]:
        """Return the optimizer of each group and its index there, in the order of creation."""
        present = [
            (i, j) for i, each in enumerate(self.optimizers) for j in range(len(each.param_groups))
        ]
        self._order = [place for place in self._order if place in present]
        self._order += [place for place in present if place not in self._order]
        return self._order

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of all optimizers."""
        return [self.optimizers[i].param_groups[j] for i, j in self._places()]

    @param_groups.setter
    def param_groups(self, value: Any) -> None:
        """Ignore the value: the groups are those of the optimizers."""

    @property
    def state(self) -> dict[Any, Any]:
        """States of all parameters."""
        return _States(self.optimizers)

    @state.setter
    def state(self, value: Any) -> None:
        """Set the states of the parameters in each optimizer."""
        if not self.__dict__.get("_complete"):
            return
        for each in self.optimizers:
            own = {p: value[p] for p in _parameters(each) if p in value}
            each.state = defaultdict(dict, own)

    @property
    def defaults(self) -> dict[str, Any]:
        """Defaults of all optimizers; for the same name, the value of the first optimizer."""
        merged: dict[str, Any] = {}
        for each in reversed(self.optimizers):
            merged |= each.defaults
        if "momentum" in merged:
            # If "betas" is among the defaults, schedulers cycle it in all groups.
            merged.pop("betas", None)
        return merged

    @defaults.setter
    def defaults(self, value: Any) -> None:
        """Ignore the value: the defaults are those of the optimizers."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the first optimizer that accepts its options and parameters.

        To choose the optimizer, call ``add_param_group`` of one of ``optimizers``.

        Parameters
        ----------
        param_group : dict
            Dict with ``"params"`` and options.

        Raises
        ------
        ValueError
            If a parameter is in another group already, or no optimizer accepts the group.
        """
        if not self._complete:
            return
        given = dict(param_group)
        given["params"] = _listed(given["params"])
        tensors = [p[1] if isinstance(p, tuple) else p for p in given["params"]]
        known = {id(p) for each in self.optimizers for p in _parameters(each)}
        if any(id(p) in known for p in tensors):
            raise ValueError("a parameter of the new group is in another group already")
        self._places()
        refused = []
        for each in self.optimizers:
            unknown = given.keys() - each.defaults.keys() - {"params", "param_names"}
            if unknown:
                refused.append(f"{type(each).__name__}: no option {', '.join(sorted(unknown))}")
                continue
            try:
                each.add_param_group(dict(given))
            except (TypeError, ValueError) as error:
                refused.append(f"{type(each).__name__}: {error}")
            else:
                return
        raise ValueError("no optimizer accepts the new group. " + "; ".join(refused))

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers, "_order": self._order, "_complete": True}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters."""
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    # ---- the step -----------------------------------------------------------------------------

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step of each optimizer; the closure is called once, before the first step.

        Raises
        ------
        ValueError
            If a gradient, a learning rate or a weight decay is not finite. Parameters and states
            are unchanged. The optimizers can raise other errors.
        """
        loss = None
        for each in self.optimizers:
            if isinstance(each, MatrixOptimizer):
                each._check_groups()
            else:
                _check_rates(each)
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        own = [each for each in self.optimizers if isinstance(each, MatrixOptimizer)]
        others = [each for each in self.optimizers if not isinstance(each, MatrixOptimizer)]
        _check_finite(others)
        made: list[Callable[[], None]] = []
        try:
            for each in own:
                each._journal = made
                each.step()
            _step(others, made)
        except BaseException:
            for undo in made:
                undo()
            raise
        finally:
            for each in own:
                each._journal = None
        return loss

    # ---- saving and loading -------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the format of `torch.optim.Optimizer`; hooks are called."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        saved = [each.state_dict() for each in self.optimizers]
        places, numbers, count = self._places(), {}, 0
        for i, j in places:
            for key in saved[i]["param_groups"][j]["params"]:
                numbers[i, key] = count
                count += 1
        state: dict[str, Any] = {
            "state": {
                numbers[i, key]: entries
                for i, part in enumerate(saved)
                for key, entries in part["state"].items()
            },
            "param_groups": [
                {**group, "params": [numbers[i, key] for key in group["params"]]}
                for i, group in ((i, saved[i]["param_groups"][j]) for i, j in places)
            ],
        }
        # Further entries of some optimizers.
        more = {
            str(i): rest
            for i, part in enumerate(saved)
            if (rest := {key: part[key] for key in part.keys() - {"state", "param_groups"}})
        }
        state |= {"optimizers": more} if more else {}
        for hook in self._optimizer_state_dict_post_hooks.values():
            state = hook(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a result of `state_dict`; ValueError if its groups differ from the groups here."""
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        groups, places = state_dict.get("param_groups"), list(self._places())
        if groups is None or "state" not in state_dict:
            raise ValueError(
                f"a state with {sorted(state_dict)} is not that of an optimizer; pass a result of "
                "state_dict()"
            )
        sizes = [len(group["params"]) for group in self.param_groups]
        given = [len(group["params"]) for group in groups]
        if sizes != given:
            raise ValueError(
                f"the state has groups of {given} parameters, but this optimizer of {sizes}; "
                "create the optimizer with the groups of the saved one"
            )
        parts: list[dict[str, Any]] = [
            {"state": {}, "param_groups": [None] * len(each.param_groups)}
            for each in self.optimizers
        ]
        for (i, j), group in zip(places, groups, strict=True):
            parts[i]["param_groups"][j] = group
            states = state_dict["state"]
            parts[i]["state"] |= {key: states[key] for key in group["params"] if key in states}
        for i, rest in state_dict.get("optimizers", {}).items():
            parts[int(i)] |= rest
        for each, part in zip(self.optimizers, parts, strict=True):
            each.load_state_dict(part)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)


class _States(dict[Any, Any]):
    """States of the parameters of several optimizers; a new state is added to its optimizer."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__({p: state for each in optimizers for p, state in each.state.items()})
        self._optimizers = optimizers

    def __missing__(self, param: Any) -> dict[str, Any]:
        for each in self._optimizers:
            if any(p is param for p in _parameters(each)):
                self[param] = each.state[param]
                return self[param]  # type: ignore[no-any-return]
        raise KeyError(param)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _listed(params: Any) -> list[Any]:
    return [params] if isinstance(params, torch.Tensor) else list(params)


# Not compiled: in a graph, AdamW computes in float32 for all dtypes of its parameters.


@torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
def _check_rates(optimizer: torch.optim.Optimizer) -> None:
    """ValueError for a learning rate or weight decay of another optimizer that is not finite."""
    for group in optimizer.param_groups:
        for name in ("lr", "weight_decay"):
            if isinstance(group.get(name), (int, float)) and not math.isfinite(group[name]):
                raise ValueError(
                    f"{type(optimizer).__name__}: {name} is {group[name]}; it must be finite"
                )


@torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
def _check_finite(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """ValueError if a gradient contains NaN or inf."""
    params = [p for each in optimizers for p in _parameters(each)]
    if not all_finite([p.grad for p in params if p.grad is not None]):
        raise ValueError(
            "a gradient contains NaN or inf; find where it comes from before making a step"
        )


@torch.compiler.disable  # type: ignore[untyped-decorator,unused-ignore]
def _step(optimizers: Sequence[torch.optim.Optimizer], made: list[Callable[[], None]]) -> None:
    """Make a step of each; add functions that undo all but the last step to the list."""
    for each in optimizers:
        if each is not optimizers[-1]:
            made.append(_restoring(each))
        each.step()


def _restoring(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Return a function that restores the present parameters and state of an optimizer."""
    values = [(p, p.detach().clone()) for p in _parameters(optimizer)]
    states = {p: copy.deepcopy(state) for p, state in optimizer.state.items()}

    def restore() -> None:
        for param, value in values:
            param.copy_(value)
        optimizer.state = defaultdict(dict, states)

    return restore
