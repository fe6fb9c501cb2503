"""Transforms of rules: momentum, step of the oracle, shape scaling, weight decay, learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, is_array
from trsvd._arrays.dtypes import describe
from trsvd._solve.result import Subspace
from trsvd._validate import check_flag, check_number
from trsvd.optim.diagnostics import Diagnostics, check_every, measured
from trsvd.optim.oracles import Direction, Oracle
from trsvd.optim.schedules import value_at


def check_momentum(momentum: Any) -> float:
    """Check the momentum and return it as a float; ValueError unless at least 0 and below 1."""
    value = check_number("momentum", momentum)
    if not 0 <= value < 1:
        raise ValueError(f"Invalid momentum value: {momentum}; it must be at least 0 and below 1")
    return value


def check_rate(name: str, value: Any) -> float:
    """Check a learning rate or weight decay; ValueError if it is negative or not finite."""
    number = check_number(name, value)
    if not 0 <= number < math.inf:
        called = "learning rate" if name == "lr" else "value"
        raise ValueError(f"Invalid {called}: {name}={value}; it must be finite and at least 0")
    return number


@dataclass(frozen=True, kw_only=True)
class Momentum:
    """Momentum, classical or as a moving average, with or without Nesterov's step.

    =========  ========================  ==========================
    ``ema``    buffer                    Nesterov's direction
    =========  ========================  ==========================
    False      ``M <- mu M + G``         ``G + mu M``
    True       ``M <- mu M + (1-mu) G``  ``(1-mu) G + mu M``
    =========  ========================  ==========================

    Without Nesterov's step the direction is M. From a buffer of zeros, the direction with
    ``ema=True`` is ``1 - mu`` times the direction with ``ema=False``. The output of an oracle does
    not depend on the scale of its input, so both give the same updates. Regularized updates do
    depend on it.

    Parameters
    ----------
    momentum : float, default 0.95
        ``mu``, at least 0 and below 1.
    nesterov : bool, default True
        True: use Nesterov's direction of the table. False: use the buffer.
    ema : bool, default False
        True: the buffer is a moving average. False: it is a decaying sum.

    See Also
    --------
    chain, OracleStep

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.Momentum(momentum=0.9)
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[5.7, 0. ],
           [0. , 3.8]])
    """

    momentum: float = 0.95
    nesterov: bool = True
    ema: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "momentum", check_momentum(self.momentum))
        for name in ("nesterov", "ema"):
            check_flag(name, getattr(self, name))

    def init(self, params: list[Array]) -> list[Array]:
        """Return buffers of zeros."""
        return [Arrays.of_array(W).xp.zeros_like(W) for W in params] if self.momentum else []

    def update(
        self, updates: list[Array], state: list[Array], params: list[Array]
    ) -> tuple[list[Array], list[Array]]:
        """Return the directions, and the buffers after this step."""
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
    """State of `OracleStep`.

    Attributes
    ----------
    step : int
        Number of steps made.
    subspaces : tuple of Subspace or None
        Subspace of each matrix, for a warm start.
    """

    step: int
    subspaces: tuple[Subspace | None, ...]


@dataclass(frozen=True, kw_only=True)
class OracleStep:
    """Transform ``E -> lmo(E)``, with a warm start from the previous step.

    Parameters
    ----------
    oracle : Oracle
        Oracle that computes the directions.
    layout : str, default "auto"
        Layout in which parameters are read as matrices, see `trsvd.optim.LAYOUTS`.
    diagnostics : callable, optional
        Hook that is called with a `Diagnostics` for each matrix.
    every : int, default 1
        Number of steps between two calls of the hook.

    See Also
    --------
    BallOracle, Momentum, from_oracle

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> transform = optim.OracleStep(oracle=optim.BallOracle(ball=trsvd.SpectralBall()))
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[-1.,  0.],
           [ 0., -1.]])
    """

    oracle: Oracle
    layout: str = "auto"
    diagnostics: Callable[[Diagnostics], Any] | None = None
    every: int = 1

    def __post_init__(self) -> None:
        check_every(self.every)

    def init(self, params: list[Array]) -> DescentState:
        """Return a state without subspaces."""
        for W in params:
            check_shape(tuple(W.shape), self.layout)
        return DescentState(0, (None,) * sum(len(as_matrices(W, self.layout)) for W in params))

    def update(
        self, updates: list[Array], state: DescentState, params: list[Array]
    ) -> tuple[list[Array], DescentState]:
        """Return the directions, and the subspaces for the next step."""
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
    """Transform that multiplies the update of an m x n matrix by a function of m and n.

    Parameters
    ----------
    scaling : str, callable or None
        ``"muon"``, ``"rms"``, ``"adamw"`` (see `trsvd.optim.SCALINGS`), or a function of m and n.
    layout : str, default "auto"
        Layout in which parameters are read as matrices, see `trsvd.optim.LAYOUTS`.

    See Also
    --------
    SCALINGS, from_ball

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.ShapeScaling(scaling=lambda m, n: m / n)
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[3., 0.],
           [0., 2.]])
    """

    scaling: str | Callable[[int, int], float] | None
    layout: str = "auto"

    def init(self, params: list[Array]) -> None:
        """Check the shapes; there is no state."""
        for W in params:
            shape_scale(self.scaling, tuple(W.shape), self.layout)

    def update(
        self, updates: list[Array], state: None, params: list[Array]
    ) -> tuple[list[Array], None]:
        """Return the scaled updates."""
        del params
        return [U * shape_scale(self.scaling, tuple(U.shape), self.layout) for U in updates], state


@dataclass(frozen=True, kw_only=True)
class WeightDecay:
    """Decoupled weight decay: ``U - wd W``, before the learning rate.

    Parameters
    ----------
    weight_decay : float
        At least 0.

    See Also
    --------
    LearningRate, WeightNormalization

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.WeightDecay(weight_decay=0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[2.7, 0. ],
           [0. , 1.8]])
    """

    weight_decay: float

    def __post_init__(self) -> None:
        check_rate("weight_decay", self.weight_decay)

    def init(self, params: list[Array]) -> None:
        """Return None: there is no state."""

    def update(
        self, updates: list[Array], state: None, params: list[Array]
    ) -> tuple[list[Array], None]:
        """Return the updates minus the weight decay."""
        return [U - self.weight_decay * W for U, W in zip(updates, params, strict=True)], state


@dataclass(frozen=True, kw_only=True)
class LearningRate:
    """Transform that multiplies updates by the learning rate; directions are already negative.

    Parameters
    ----------
    lr : float or callable
        Learning rate, at least 0, or a schedule: a function of the step index, from 0.

    See Also
    --------
    WeightDecay, Cosine

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.LearningRate(lr=0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[0.3, 0. ],
           [0. , 0.2]])
    """

    lr: float | Callable[[int], float]

    def __post_init__(self) -> None:
        if not callable(self.lr):
            check_rate("lr", self.lr)

    def init(self, params: list[Array]) -> int:
        """Return 0, the number of steps made."""
        del params
        return 0

    def update(
        self, updates: list[Array], state: int, params: list[Array]
    ) -> tuple[list[Array], int]:
        """Return the scaled updates."""
        del params
        lr = check_rate("lr", value_at(self.lr, state))
        return [U * lr for U in updates], state + 1


@dataclass(frozen=True, kw_only=True)
class WeightNormalization:
    """Scale weights to Frobenius norm ``sqrt(m)`` before the step, as airbench does.

    The update is ``U + (sqrt(m) / ||W||_F - 1) W``, after the learning rate, where m is the first
    dimension of the parameter. A parameter of zeros is not scaled. If the learning rate is 0, no
    parameter is scaled.

    Parameters
    ----------
    lr : float or callable, default 1
        The learning rate, or its schedule.

    See Also
    --------
    WeightDecay

    References
    ----------
    K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv:2404.00498.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.WeightNormalization(lr=0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[1.1767, 0.    ],
           [0.    , 0.7845]])
    """

    lr: float | Callable[[int], float] = 1.0

    def init(self, params: list[Array]) -> int:
        """Return 0, the number of steps made."""
        del params
        return 0

    def update(
        self, updates: list[Array], state: int, params: list[Array]
    ) -> tuple[list[Array], int]:
        """Return updates that also normalize the parameters."""
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
    """Transform that applies another transform to the last parameter only.

    Parameters
    ----------
    transform : Transform
        Transform for the last parameter. The updates of the others are not changed.

    See Also
    --------
    scale, Momentum

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.LastOnly(optim.Momentum(momentum=0.9))
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[5.7, 0. ],
           [0. , 3.8]])
    """

    transform: Transform

    def init(self, params: list[Array]) -> Any:
        """Return the state of the transform."""
        return self.transform.init(params[-1:])

    def update(
        self, updates: list[Array], state: Any, params: list[Array]
    ) -> tuple[list[Array], Any]:
        """Return the updates, where the transform is applied to the last one."""
        last, state = self.transform.update(updates[-1:], state, params[-1:])
        return [*updates[:-1], *last], state


class Transform(Protocol):
    """Protocol of one step from gradients to updates, on lists of arrays.

    A transform stores no state: `init` returns the first state and `update` the next one.

    See Also
    --------
    chain, Rule

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> transform = optim.LearningRate(lr=0.1)
    >>> W = np.diag([3.0, 2.0])
    >>> state = transform.init([W])
    >>> updates, state = transform.update([W], state, [W])
    >>> updates[0].round(4) + 0.0
    array([[0.3, 0. ],
           [0. , 0.2]])
    """

    def init(self, params: list[Array]) -> Any:
        """Return the state before the first step."""

    def update(
        self, updates: list[Array], state: Any, params: list[Array]
    ) -> tuple[list[Array], Any]:
        """Return the transformed updates, and the next state."""


@dataclass(frozen=True)
class Rule:
    """Optimization rule: a map from gradients to updates, with the state outside of the object.

    Parameters
    ----------
    transforms : tuple of Transform
        Transforms that are applied to the gradients, in order.

    See Also
    --------
    chain, apply_updates, Transform

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.nsgd(lr=0.5, momentum=0.0)
    >>> W = np.array([[3.0, 4.0]])
    >>> state = rule.init(W)
    >>> updates, state = rule.update(W, state, W)  # the gradient of ||W||^2 / 2 is W
    >>> optim.apply_updates(W, updates)
    array([[2.7, 3.6]])
    """

    transforms: tuple[Transform, ...]

    def init(self, params: Any) -> tuple[Any, ...]:
        """Return the state before the first step.

        Parameters
        ----------
        params : array, or list, tuple or dict of such
            Arrays with at least two dimensions, of any array library.

        Returns
        -------
        tuple
            State of each transform.
        """
        leaves = list(_leaves(params))
        return tuple(transform.init(leaves) for transform in self.transforms)

    def update(
        self, grads: Any, state: tuple[Any, ...], params: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return the updates of one step, and the next state.

        Parameters
        ----------
        grads : as ``params``
            Gradients.
        state : tuple
            State returned by `init` or by the previous call; it is not modified.
        params : as in `init`
            Parameters; they are not modified.

        Returns
        -------
        tuple
            Updates in the structure of ``grads``, to be added to the parameters (see
            `apply_updates`), and the next state.

        Raises
        ------
        ValueError
            If gradients and parameters differ in number or shape, or a gradient contains NaN or
            inf.
        """
        updates, leaves = list(_leaves(grads)), list(_leaves(params))
        shapes = [[tuple(X.shape) for X in arrays] for arrays in (updates, leaves)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"gradients of shapes {shapes[0]} for parameters of shapes {shapes[1]}; pass one "
                "gradient for each parameter, in the same order"
            )
        states = []
        for transform, before in zip(self.transforms, state, strict=True):
            updates, after = transform.update(updates, before, leaves)
            states.append(after)
        return _arranged(grads, iter(updates)), tuple(states)


def chain(*transforms: Transform) -> Rule:
    """Return the rule that applies transforms to the gradients, one after the other.

    Parameters
    ----------
    *transforms : Transform
        Transforms, in order.

    Returns
    -------
    Rule

    See Also
    --------
    Rule, Transform, from_ball

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.chain(optim.Momentum(momentum=0.9), optim.LearningRate(lr=0.1))
    >>> W = np.ones((2, 2))
    >>> updates, state = rule.update(-W, rule.init(W), W)
    >>> updates.round(4) + 0.0
    array([[-0.19, -0.19],
           [-0.19, -0.19]])
    """
    return Rule(transforms)


def apply_updates(params: Any, updates: Any) -> Any:
    """Return ``params + updates``, in the dtype of the parameters.

    Parameters
    ----------
    params : array, or list, tuple or dict of such
        Parameters.
    updates : as ``params``
        Updates returned by `Rule.update`.

    Returns
    -------
    as ``params``

    See Also
    --------
    Rule

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> rule = optim.sign_sgd(0.5)
    >>> W = {"weight": np.diag([3.0, 2.0])}
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> optim.apply_updates(W, updates)
    {'weight': array([[2.5, 0. ],
           [0. , 1.5]])}
    """
    pairs = zip(_leaves(params), _leaves(updates), strict=True)
    return _arranged(params, iter([_added(W, U) for W, U in pairs]))


def _added(W: Array, U: Array) -> Array:
    total = W + U
    return total if total.dtype == W.dtype else Arrays.of_array(W).hand_out(total)


def _leaves(tree: Any) -> Iterator[Array]:
    """Yield the arrays of a tree, in order."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _leaves(value)
    elif is_array(tree):
        yield admitted(tree)
    else:
        raise TypeError(
            f"{describe(tree)} is among the parameters; pass arrays, in lists, tuples and dicts"
        )


def _arranged(tree: Any, leaves: Iterator[Array]) -> Any:
    """Return the leaves in the structure of a tree."""
    if isinstance(tree, dict):
        return {key: _arranged(value, leaves) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [_arranged(value, leaves) for value in tree]
        make: Callable[..., Any] = type(tree)
        return make(*parts) if hasattr(tree, "_fields") else make(parts)
    return next(leaves)


LAYOUTS = ("auto", "flatten", "stack", "in_out", "thirds")
"""Layouts in which a parameter is read as matrices whose rows are the outputs.

``"flatten"``: one matrix (out, rest), as for the weight of a convolution. ``"stack"``: the leading
dimensions index a batch of matrices (experts, heads). ``"auto"``: a matrix (out, in) for two
dimensions, a stack for three, and flattened for more. ``"in_out"``: one matrix (rest, out), which
is transposed. It is for embeddings (vocabulary, d), and for kernels with the outputs last.
``"thirds"``: three matrices one above the other, as in packed projections to queries, keys and
values.
"""

_REARRANGED = ("in_out", "thirds")

SCALINGS: dict[str, Callable[[int, int], float]] = {
    "none": lambda m, n: 1.0,  # noqa: ARG005
    "muon": lambda m, n: math.sqrt(max(1.0, m / n)),
    "rms": lambda m, n: math.sqrt(m / n),
    "adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}
"""Factors of the update of an m x n matrix.

``"none"``: 1, the same as None. ``"muon"``: ``sqrt(max(1, m / n))``. ``"rms"``: ``sqrt(m / n)``,
which turns the spectral ball into the ball of the RMS-to-RMS operator norm. ``"adamw"``:
``0.2 sqrt(max(m, n))``, which gives a polar factor the root mean square of AdamW's updates.
"""


def check_shape(shape: tuple[int, ...], layout: str) -> None:
    """Check a shape and a layout; ValueError if it is not a matrix or the layout is unknown."""
    if layout not in LAYOUTS:
        raise ValueError(
            f"layout={layout!r} is not known; name one of {', '.join(map(repr, LAYOUTS))}"
        )
    if len(shape) < 2:
        raise ValueError(
            f"a parameter of shape {tuple(shape)} is not a matrix; pass biases, gains and other "
            "parameters with fewer than two dimensions to another optimizer, such as AdamW"
        )
    if layout == "thirds" and (len(shape) != 2 or shape[0] % 3):
        raise ValueError(
            f"a parameter of shape {tuple(shape)} is not three matrices; pass layout='auto'"
        )


def stack_shape(shape: tuple[int, ...], layout: str = "auto") -> tuple[int, int, int]:
    """Return ``(b, m, n)``: a parameter of this shape is read as b matrices of shape (m, n).

    Parameters
    ----------
    shape : tuple of int
        Shape with at least two dimensions.
    layout : str
        One of `LAYOUTS`.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> stack_shape((64, 3, 5, 5)), stack_shape((8, 64, 32)), stack_shape((64, 3, 5), "flatten")
    ((1, 64, 75), (8, 64, 32), (1, 64, 15))
    """
    check_shape(shape, layout)
    if layout == "thirds":
        return 3, shape[0] // 3, shape[1]
    if layout == "in_out":
        return 1, shape[-1], math.prod(shape[:-1])
    if len(shape) > 2 and (layout == "stack" or (layout == "auto" and len(shape) == 3)):
        return math.prod(shape[:-2]), shape[-2], shape[-1]
    return 1, shape[0], math.prod(shape[1:])


def as_matrices(X: Array, layout: str = "auto") -> list[Array]:
    """Return the matrices of a parameter, as views if the library has views.

    Parameters
    ----------
    X : array of at least two dimensions
        A parameter, or its gradient.
    layout : str
        One of `LAYOUTS`.

    Returns
    -------
    list of (m, n) arrays
    """
    if len(X.shape) == 2 and layout not in _REARRANGED:
        return [X]
    stack = to_stack(X, layout)
    return [stack[i, :, :] for i in range(stack.shape[0])]


def to_stack(X: Array, layout: str = "auto") -> Array:
    """Return a parameter as a stack of its matrices, of shape (b, m, n); see `stack_shape`."""
    b, m, n = stack_shape(tuple(X.shape), layout)
    xp = Arrays.of_array(X).xp
    if layout == "in_out":
        return xp.matrix_transpose(xp.reshape(X, (b, n, m)))
    return xp.reshape(X, (b, m, n))


def assembled(matrices: list[Array], shape: tuple[int, ...], layout: str = "auto") -> Array:
    """Return the parameter of a given shape from its matrices; the inverse of `as_matrices`."""
    if len(shape) == 2 and layout not in _REARRANGED:
        return matrices[0]
    xp = Arrays.of_array(matrices[0]).xp
    stack = xp.stack(matrices) if len(matrices) > 1 else matrices[0][None, :, :]
    return from_stack(stack, shape, layout)


def from_stack(stack: Array, shape: tuple[int, ...], layout: str = "auto") -> Array:
    """Return the parameter of a given shape from its stack; the inverse of `to_stack`."""
    xp = Arrays.of_array(stack).xp
    return xp.reshape(xp.matrix_transpose(stack) if layout == "in_out" else stack, shape)


def shape_scale(scaling: Any, shape: tuple[int, ...], layout: str = "auto") -> float:
    """Return the factor of the update of a parameter of this shape.

    Parameters
    ----------
    scaling : str, callable or None
        One of `SCALINGS`, a function of m and n, or None for 1.
    shape : tuple of int
        Shape of the parameter.
    layout : str
        One of `LAYOUTS`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the scaling is not known.
    """
    if scaling is None:
        return 1.0
    if not callable(scaling):
        if scaling not in SCALINGS:
            raise ValueError(
                f"shape_scaling={scaling!r} is not known; name one of {sorted(SCALINGS)}, or pass "
                "None or a function of m and n"
            )
        scaling = SCALINGS[scaling]
    _, m, n = stack_shape(shape, layout)
    return float(scaling(m, n)) if m * n else 1.0
