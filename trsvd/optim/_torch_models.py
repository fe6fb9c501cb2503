"""Several optimizers of a model as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["CompositeOptimizer"]


class CompositeOptimizer(torch.optim.Optimizer):  # type: ignore[misc]
    """Several optimizers, of different parameters, as one: one step, one state_dict.

    Parameters
    ----------
    *optimizers : torch.optim.Optimizer
        Whose parameters are disjoint. Learning-rate schedulers and `torch.amp.GradScaler` see the
        parameter groups of all of them, in order.

    Raises
    ------
    TypeError, ValueError
        If there is none, one is no optimizer, or two share a parameter.

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
                msg = f"{optimizer!r} is no torch.optim.Optimizer"
                raise TypeError(msg)
        params = [p for each in optimizers for group in each.param_groups for p in group["params"]]
        if len({id(p) for p in params}) < len(params):
            msg = "two of the optimizers share a parameter; give each parameter to one of them"
            raise ValueError(msg)
        self.optimizers = optimizers
        self._complete = False
        super().__init__(params, {})
        self._complete = True

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimizers, in order."""
        return [group for each in self.optimizers for group in each.param_groups]

    @param_groups.setter
    def param_groups(self, value: Any) -> None:
        """Groups are those of the optimizers: nothing is set here."""

    @property
    def state(self) -> dict[Any, Any]:
        """The states of all parameters."""
        return {param: state for each in self.optimizers for param, state in each.state.items()}

    @state.setter
    def state(self, value: Any) -> None:
        """States are those of the optimizers: nothing is set here."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: a new group is for one of the ``optimizers``."""
        if self._complete:
            msg = "a group belongs to one optimizer; add it to one of .optimizers"
            raise TypeError(msg)

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": {}, "optimizers": self.optimizers, "_complete": True}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters."""
        for each in self.optimizers:
            each.zero_grad(set_to_none)

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of each optimizer; the closure is called once, before the first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for each in self.optimizers:
            each.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of all optimizers, in order; hooks run as with any optimizer."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        state: dict[str, Any] = {"optimizers": [each.state_dict() for each in self.optimizers]}
        for hook in self._optimizer_state_dict_post_hooks.values():
            state = hook(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; ValueError for that of another composition."""
        state_dict = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        states = state_dict.get("optimizers")
        if states is None:
            msg = f"a state with {sorted(state_dict)} is not that of a CompositeOptimizer"
            raise ValueError(msg)
        if len(states) != len(self.optimizers):
            msg = f"a state of {len(states)} optimizers for {len(self.optimizers)} of them"
            raise ValueError(msg)
        for each, state in zip(self.optimizers, states, strict=True):
            each.load_state_dict(state)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)
