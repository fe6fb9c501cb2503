"""Rules of optimization as pure functions, and how links are chained to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, is_array
from trsvd._arrays.dtypes import describe

__all__ = ["Link", "Rule", "apply_updates", "chain"]


class Link(Protocol):
    """One step on the way from gradients to updates, on lists of arrays.

    A link owns no state: `init` makes it and `update` returns the next one.
    """

    def init(self, params: list[Array]) -> Any:
        """The state before the first step."""

    def update(
        self, updates: list[Array], state: Any, params: list[Array]
    ) -> tuple[list[Array], Any]:
        """What becomes of the updates, and the next state."""


@dataclass(frozen=True)
class Rule:
    """A rule of optimization: gradients to updates, with the state outside.

    Parameters
    ----------
    links : tuple of Link
        What the gradients pass, in order.

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

    links: tuple[Link, ...]

    def init(self, params: Any) -> tuple[Any, ...]:
        """The state before the first step.

        Parameters
        ----------
        params : array, or list, tuple or dict of such
            Of at least two dimensions each; of any library, NumPy's or PyTorch's, say.

        Returns
        -------
        tuple
            One entry for each link.
        """
        leaves = list(_leaves(params))
        return tuple(link.init(leaves) for link in self.links)

    def update(
        self, grads: Any, state: tuple[Any, ...], params: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """The updates of one step, and the next state.

        Parameters
        ----------
        grads : as ``params``
            Gradients.
        state : tuple
            As `init` or the last call returned it; it is not written to.
        params : as in `init`
            Parameters; they are not written to.

        Returns
        -------
        tuple
            Updates, arranged as ``grads``, to be added (see `apply_updates`), and the next state.

        Raises
        ------
        ValueError
            If gradients and parameters differ in number or shape, or a gradient is not finite.
        """
        updates, leaves = list(_leaves(grads)), list(_leaves(params))
        shapes = [[tuple(X.shape) for X in arrays] for arrays in (updates, leaves)]
        if shapes[0] != shapes[1]:
            msg = f"gradients of shapes {shapes[0]} for parameters of shapes {shapes[1]}"
            raise ValueError(msg)
        states = []
        for link, before in zip(self.links, state, strict=True):
            updates, after = link.update(updates, before, leaves)
            states.append(after)
        return _arranged(grads, iter(updates)), tuple(states)


def chain(*links: Link) -> Rule:
    """The rule that passes gradients through links, one after the other.

    Parameters
    ----------
    *links : Link
        In order.

    Returns
    -------
    Rule
    """
    return Rule(links)


def apply_updates(params: Any, updates: Any) -> Any:
    """Parameters after a step: ``params + updates``, in the dtype of the parameters.

    Parameters
    ----------
    params : array, or list, tuple or dict of such
        Parameters.
    updates : as ``params``
        What `Rule.update` returned.

    Returns
    -------
    as ``params``
    """
    pairs = zip(_leaves(params), _leaves(updates), strict=True)
    return _arranged(params, iter([_added(W, U) for W, U in pairs]))


def _added(W: Array, U: Array) -> Array:
    total = W + U
    return total if total.dtype == W.dtype else Arrays.of_array(W).hand_out(total)


def _leaves(tree: Any) -> Iterator[Array]:
    """The arrays of a tree, in order."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            yield from _leaves(value)
    elif is_array(tree):
        yield admitted(tree)
    else:
        msg = f"{describe(tree)} among the parameters; pass arrays, in lists, tuples and dicts"
        raise TypeError(msg)


def _arranged(tree: Any, leaves: Iterator[Array]) -> Any:
    """The leaves in the arrangement of a tree."""
    if isinstance(tree, dict):
        return {key: _arranged(value, leaves) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [_arranged(value, leaves) for value in tree]
        make: Callable[..., Any] = type(tree)
        return make(*parts) if hasattr(tree, "_fields") else make(parts)
    return next(leaves)
