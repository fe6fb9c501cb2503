"""Parameters as matrices: which dimensions are rows, columns and a batch, and scales by shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trsvd._arrays.arrays import Array, Arrays

__all__ = [
    "LAYOUTS",
    "SCALINGS",
    "as_matrices",
    "assembled",
    "check_shape",
    "from_stack",
    "shape_scale",
    "stack_shape",
    "to_stack",
]

LAYOUTS = ("auto", "flatten", "stack", "in_out", "thirds")
"""How a parameter is read as matrices whose rows are the outputs.

``"flatten"``: as (out, rest), the weight of a convolution. ``"stack"``: the leading dimensions are
a batch of matrices (experts, heads). ``"auto"``: a matrix (out, in) if there are two dimensions, a
stack if there are three, and flattened if there are more. ``"in_out"``: as (rest, out), transposed:
embeddings (vocabulary, d), and the kernels of libraries that keep the outputs last. ``"thirds"``:
as three matrices, one above the other: packed projections to queries, keys and values.
"""

_REARRANGED = ("in_out", "thirds")

SCALINGS: dict[str, Callable[[int, int], float]] = {
    "none": lambda m, n: 1.0,  # noqa: ARG005
    "muon": lambda m, n: math.sqrt(max(1.0, m / n)),
    "rms": lambda m, n: math.sqrt(m / n),
    "adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
}
"""Factors of the update of an m x n matrix.

``"none"``: 1, as None. ``"muon"``: ``sqrt(max(1, m / n))``. ``"rms"``: ``sqrt(m / n)``, with
which the spectral ball becomes that of the RMS-to-RMS operator norm. ``"adamw"``:
``0.2 sqrt(max(m, n))``, which gives a polar factor the root mean square of AdamW's updates.
"""


def check_shape(shape: tuple[int, ...], layout: str) -> None:
    """ValueError for a parameter that is no matrix, or a layout that is not known."""
    if layout not in LAYOUTS:
        msg = f"layout={layout!r} is not known; name one of {', '.join(map(repr, LAYOUTS))}"
        raise ValueError(msg)
    if len(shape) < 2:
        msg = (
            f"a parameter of shape {tuple(shape)} is no matrix; leave biases, gains and other "
            "parameters with fewer than two dimensions to another optimizer, as AdamW"
        )
        raise ValueError(msg)
    if layout == "thirds" and (len(shape) != 2 or shape[0] % 3):
        msg = f"a parameter of shape {tuple(shape)} is not three matrices; pass layout='auto'"
        raise ValueError(msg)


def stack_shape(shape: tuple[int, ...], layout: str = "auto") -> tuple[int, int, int]:
    """``(b, m, n)``: a parameter of this shape is b matrices.

    Parameters
    ----------
    shape : tuple of int
        Of at least two dimensions.
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
    """The matrices that a parameter is read as; views where the library has views.

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
    """A parameter as a stack of its matrices, of shape (b, m, n); see `stack_shape`."""
    b, m, n = stack_shape(tuple(X.shape), layout)
    xp = Arrays.of_array(X).xp
    if layout == "in_out":
        return xp.matrix_transpose(xp.reshape(X, (b, n, m)))
    return xp.reshape(X, (b, m, n))


def assembled(matrices: list[Array], shape: tuple[int, ...], layout: str = "auto") -> Array:
    """The parameter of a shape from its matrices: the inverse of `as_matrices`."""
    if len(shape) == 2 and layout not in _REARRANGED:
        return matrices[0]
    xp = Arrays.of_array(matrices[0]).xp
    stack = xp.stack(matrices) if len(matrices) > 1 else matrices[0][None, :, :]
    return from_stack(stack, shape, layout)


def from_stack(stack: Array, shape: tuple[int, ...], layout: str = "auto") -> Array:
    """The parameter of a shape from the stack of its matrices: the inverse of `to_stack`."""
    xp = Arrays.of_array(stack).xp
    return xp.reshape(xp.matrix_transpose(stack) if layout == "in_out" else stack, shape)


def shape_scale(scaling: Any, shape: tuple[int, ...], layout: str = "auto") -> float:
    """What the update of a parameter of this shape is multiplied by.

    Parameters
    ----------
    scaling : str, callable or None
        One of `SCALINGS`, a function of m and n, or None for 1.
    shape : tuple of int
        Of the parameter.
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
            msg = (
                f"shape_scaling={scaling!r} is not known; name one of {sorted(SCALINGS)}, or pass "
                "None or a function of m and n"
            )
            raise ValueError(msg)
        scaling = SCALINGS[scaling]
    _, m, n = stack_shape(shape, layout)
    return float(scaling(m, n)) if m * n else 1.0
