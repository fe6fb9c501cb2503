"""Which parameters of a model are for which optimizer, and two optimizers as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

__all__ = ["CompositeOptimizer", "Split", "split_parameters"]

_Convolution = torch.nn.modules.conv._ConvNd
_Embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)


class Split(NamedTuple):
    """The parameters of a model, as parameter groups with names.

    Attributes
    ----------
    matrices : list of dict
        For an optimizer of this module: hidden matrices, and convolutions with the layout
        ``"flatten"``.
    others : list of dict
        For AdamW, say: embeddings, the head, and what has fewer than two dimensions.
    """

    matrices: list[dict[str, Any]]
    others: list[dict[str, Any]]


def split_parameters(
    model: torch.nn.Module, *, head: str | torch.nn.Module | None = "last"
) -> Split:
    """Hidden matrices on one side; embeddings, head, norms and biases on the other.

    Parameters
    ----------
    model : torch.nn.Module
        Whose parameters; those that do not require a gradient are left out.
    head : str, torch.nn.Module or None, default "last"
        The output layer: a module or its name. ``"last"`` is the `torch.nn.Linear` that comes last
        in ``model.named_modules()``. None: there is no head.

    Returns
    -------
    Split
        Empty groups are left out. A parameter that is shared with an embedding or with the head
        goes where these go.

    Raises
    ------
    ValueError
        If there is no head of this name.

    Examples
    --------
    >>> import torch
    >>> from trsvd.optim.torch import split_parameters
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> matrices, others = split_parameters(model)
    >>> [[name for name, _ in group["params"]] for group in (*matrices, *others)]
    [['0.weight'], ['0.bias', '2.weight', '2.bias']]
    """
    modules = dict(model.named_modules())
    kept = [module for module in modules.values() if isinstance(module, _Embeddings)]
    last = _head(modules, head)
    kept += [] if last is None else [last]
    aside = {id(param) for module in kept for param in module.parameters()}
    convolutions = {
        id(param)
        for module in modules.values()
        if isinstance(module, _Convolution)
        for param in module.parameters(recurse=False)
    }
    groups: dict[str, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        kind = "convolution" if id(param) in convolutions else "matrix"
        kind = "other" if id(param) in aside or param.ndim < 2 else kind
        groups.setdefault(kind, []).append((name, param))
    matrices: list[dict[str, Any]] = []
    if "matrix" in groups:
        matrices.append({"params": groups["matrix"]})
    if "convolution" in groups:
        matrices.append({"params": groups["convolution"], "layout": "flatten"})
    return Split(matrices, [{"params": groups["other"]}] if "other" in groups else [])


def _head(modules: dict[str, torch.nn.Module], head: Any) -> torch.nn.Module | None:
    """The module that is meant."""
    if head is None or isinstance(head, torch.nn.Module):
        return head
    if head in modules:
        return modules[head]
    if head != "last":
        msg = f"head={head!r} is no module of the model; name one of {sorted(modules)[1:9]}..."
        raise ValueError(msg)
    linear = [module for module in modules.values() if isinstance(module, torch.nn.Linear)]
    return linear[-1] if linear else None


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
