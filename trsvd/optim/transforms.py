"""The links that rules are chained from: momentum, the oracle's step, scales, decay, rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trsvd._arrays.arrays import Array, Arrays
from trsvd._solve.result import Subspace
from trsvd._validate import check_flag, check_number
from trsvd.optim.chain import Link
from trsvd.optim.diagnostics import Diagnostics, check_every, measured
from trsvd.optim.layout import as_matrices, assembled, check_shape, shape_scale
from trsvd.optim.oracles import Direction, Oracle
from trsvd.optim.schedules import value_at

__all__ = [
    "Descent",
    "LastOnly",
    "LearningRate",
    "Momentum",
    "ShapeScaling",
    "WeightDecay",
    "WeightNormalization",
    "check_momentum",
    "check_rate",
]


def check_momentum(momentum: Any) -> float:
    """The momentum as a number; ValueError if it is not at least 0 and below 1."""
    value = check_number("momentum", momentum)
    if not 0 <= value < 1:
        msg = f"Invalid momentum value: {momentum}; it must be at least 0 and below 1"
        raise ValueError(msg)
    return value


def check_rate(name: str, value: Any) -> float:
    """A learning rate or weight decay as a number; ValueError if negative or not finite."""
    number = check_number(name, value)
    if not 0 <= number < math.inf:
        called = "learning rate" if name == "lr" else "value"
        msg = f"Invalid {called}: {name}={value}; it must be finite and at least 0"
        raise ValueError(msg)
    return number


@dataclass(frozen=True, kw_only=True)
class Momentum:
    """Momentum, classical or as a moving average, plain or after Nesterov.

    =========  ========================  ==========================
    ``ema``    buffer                    Nesterov's direction
    =========  ========================  ==========================
    False      ``M <- mu M + G``         ``G + mu M``
    True       ``M <- mu M + (1-mu) G``  ``(1-mu) G + mu M``
    =========  ========================  ==========================

    Without Nesterov the direction is M. From a buffer of zeros the moving average is ``1 - mu``
    times the classical one at every step, and so is Nesterov's direction: an oracle, which does not
    look at the length of its argument, gives the same updates. A regularized update does not.

    Parameters
    ----------
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    nesterov : bool, default True
        Whether to go where the next buffer would be if the gradient stayed.
    ema : bool, default False
        Whether the buffer is a moving average.
    """

    momentum: float = 0.95
    nesterov: bool = True
    ema: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", check_momentum(self.momentum))
        for name in ("nesterov", "ema"):
            check_flag(name, getattr(self, name))

    def init(self, params: list[Array]) -> list[Array]:
        """Buffers of zeros."""
        return [Arrays.of_array(W).xp.zeros_like(W) for W in params] if self.momentum else []

    def update(
        self, updates: list[Array], state: list[Array], params: list[Array]
    ) -> tuple[list[Array], list[Array]]:
        """The directions, and the buffers after this step."""
        del params
        if not self.momentum:
            return updates, state
        mu, new = self.momentum, 1 - self.momentum if self.ema else 1.0
        state = [mu * M + new * G for M, G in zip(state, updates, strict=True)]
        if not self.nesterov:
            return state, state
        return [new * G + mu * M for M, G in zip(state, updates, strict=True)], state


@dataclass(frozen=True, eq=False)
class DescentState:
    """What `Descent` keeps.

    Attributes
    ----------
    step : int
        Steps made.
    subspaces : tuple of Subspace or None
        Of each matrix, for a warm start.
    """

    step: int
    subspaces: tuple[Subspace | None, ...]


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The step along the oracle's answers: ``E -> lmo(E)``, warm from the last step.

    Parameters
    ----------
    oracle : Oracle
        What finds directions.
    layout : str, default "auto"
        How parameters with more than two dimensions are read, see `trsvd.optim.LAYOUTS`.
    diagnostics : callable, optional
        Called with a `Diagnostics` for each matrix.
    every : int, default 1
        The steps from one such call to the next.
    """

    oracle: Oracle
    layout: str = "auto"
    diagnostics: Callable[[Diagnostics], Any] | None = None
    every: int = 1

    def __post_init__(self) -> None:
        check_every(self.every)

    def init(self, params: list[Array]) -> DescentState:
        """No subspaces."""
        for W in params:
            check_shape(tuple(W.shape), self.layout)
        return DescentState(0, (None,) * sum(len(as_matrices(W, self.layout)) for W in params))

    def update(
        self, updates: list[Array], state: DescentState, params: list[Array]
    ) -> tuple[list[Array], DescentState]:
        """Directions of descent, and the subspaces that they leave."""
        del params
        stacks = [as_matrices(E, self.layout) for E in updates]
        matrices = [E for stack in stacks for E in stack]
        found = self.oracle.directions(matrices, state.subspaces, state.step)
        if self.diagnostics is not None and state.step % self.every == 0:
            self._report(stacks, found, state)
        made = iter(found)
        out = [
            assembled([next(made).update for _ in stack], tuple(E.shape), self.layout)
            for stack, E in zip(stacks, updates, strict=True)
        ]
        return out, DescentState(state.step + 1, tuple(each.subspace for each in found))

    def _report(
        self, stacks: list[list[Array]], found: list[Direction], state: DescentState
    ) -> None:
        assert self.diagnostics is not None
        places = [(p, i) for p, stack in enumerate(stacks) for i in range(len(stack))]
        for (p, i), direction, before in zip(places, found, state.subspaces, strict=True):
            record = measured(
                stacks[p][i], direction, before, self.oracle, str(p), i, step=state.step
            )
            self.diagnostics(record)


@dataclass(frozen=True, kw_only=True)
class ShapeScaling:
    """Updates of m x n matrices times a function of m and n.

    Parameters
    ----------
    scaling : str, callable or None
        ``"muon"``, ``"rms"``, ``"adamw"`` (see `trsvd.optim.SCALINGS`), or a function of m and n.
    layout : str, default "auto"
        How parameters with more than two dimensions are read.
    """

    scaling: str | Callable[[int, int], float] | None
    layout: str = "auto"

    def init(self, params: list[Array]) -> None:
        """Nothing to keep."""
        for W in params:
            shape_scale(self.scaling, tuple(W.shape), self.layout)

    def update(
        self, updates: list[Array], state: None, params: list[Array]
    ) -> tuple[list[Array], None]:
        """Scaled updates."""
        del params
        return [U * shape_scale(self.scaling, tuple(U.shape), self.layout) for U in updates], state


@dataclass(frozen=True, kw_only=True)
class WeightDecay:
    """Decoupled weight decay: ``U - wd W``, before the learning rate.

    Parameters
    ----------
    weight_decay : float
        At least 0.
    """

    weight_decay: float

    def __post_init__(self) -> None:
        check_rate("weight_decay", self.weight_decay)

    def init(self, params: list[Array]) -> None:
        """Nothing to keep."""

    def update(
        self, updates: list[Array], state: None, params: list[Array]
    ) -> tuple[list[Array], None]:
        """Updates that shrink the parameters."""
        return [U - self.weight_decay * W for U, W in zip(updates, params, strict=True)], state


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Updates times the learning rate; directions are already negative.

    Parameters
    ----------
    lr : float or callable
        At least 0, or a schedule: what it is at each step, counted from 0.
    """

    lr: float | Callable[[int], float]

    def __post_init__(self) -> None:
        if not callable(self.lr):
            check_rate("lr", self.lr)

    def init(self, params: list[Array]) -> int:
        """The number of steps made."""
        del params
        return 0

    def update(
        self, updates: list[Array], state: int, params: list[Array]
    ) -> tuple[list[Array], int]:
        """Scaled updates."""
        del params
        lr = check_rate("lr", value_at(self.lr, state))
        return [U * lr for U in updates], state + 1


@dataclass(frozen=True, kw_only=True)
class WeightNormalization:
    """Weights brought to a Frobenius norm of ``sqrt(m)`` before the step, as airbench does.

    ``U + (sqrt(m) / ||W||_F - 1) W``, after the learning rate, where m is the first dimension of
    the parameter; a W of zeros is left alone, and all are while the learning rate is 0.

    Parameters
    ----------
    lr : float or callable, default 1
        The learning rate, or its schedule.

    References
    ----------
    K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv:2404.00498.
    """

    lr: float | Callable[[int], float] = 1.0

    def init(self, params: list[Array]) -> int:
        """The number of steps made."""
        del params
        return 0

    def update(
        self, updates: list[Array], state: int, params: list[Array]
    ) -> tuple[list[Array], int]:
        """Updates that normalize the parameters."""
        if value_at(self.lr, state) == 0:
            return updates, state + 1
        out = []
        for U, W in zip(updates, params, strict=True):
            arrays = Arrays.of_array(W)
            unit = arrays.units(arrays.xp.reshape(arrays.take(W), (1, -1)), axis=1)
            unit = arrays.hand_out(arrays.xp.reshape(unit, tuple(W.shape)))
            out.append(U + (unit * W.shape[0] ** 0.5 - W))
        return out, state + 1


@dataclass(frozen=True)
class LastOnly:
    """A link for the last parameter alone; the others pass by.

    Parameters
    ----------
    link : Link
        What the last one passes.
    """

    link: Link

    def init(self, params: list[Array]) -> Any:
        """The state of the link."""
        return self.link.init(params[-1:])

    def update(
        self, updates: list[Array], state: Any, params: list[Array]
    ) -> tuple[list[Array], Any]:
        """The updates, with another last one."""
        last, state = self.link.update(updates[-1:], state, params[-1:])
        return [*updates[:-1], *last], state
