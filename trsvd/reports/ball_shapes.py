"""Unit balls in the plane or the space of singular values, as point sets.

A norm of the singular values alone is, on diagonal matrices, a norm of vectors that changes neither
with signs nor with order. The boundary of its ball is traced by the library's own oracle: a
minimizer along ``diag(d)`` has a diagonal that lies in the ball and is a minimizer too (pinching).
So corners are met exactly, and flat faces are spanned by their corners. Directions in the chamber
``d_1 >= d_2 >= ... >= 0`` are enough, signs and order give the rest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.spatial

from trsvd._arrays.arrays import HostArray
from trsvd.balls import Ball, FrobeniusBall, KyFanBall, KyFanDualBall, NuclearBall, SpectralBall

# ---- names ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Ball to draw.

    Attributes
    ----------
    label : str
        For titles and legends.
    ball : Ball
        A ball of singular values.
    dual : bool
        Whether it is not this ball but its polar: the unit ball of the dual norm, which is
        ``ball.support``.
    """

    label: str
    ball: Ball
    dual: bool = False


def _f_fanion(ball: Ball, alpha: float) -> Ball:
    return alpha * ball + (1 - alpha) * FrobeniusBall()


_SHAPES: dict[str, Callable[..., Shape]] = {
    "spectral": lambda: Shape("spectral norm", SpectralBall()),
    "nuclear": lambda: Shape("nuclear norm", NuclearBall()),
    "frobenius": lambda: Shape("Frobenius norm", FrobeniusBall()),
    "kyfan:K": lambda k: Shape(f"Ky Fan {k}-norm", KyFanBall(k)),
    "kyfan-dual:K": lambda k: Shape(f"dual of the Ky Fan {k}-norm", KyFanDualBall(k)),
    "f-muon:ALPHA": lambda alpha: Shape(
        rf"F-Muon, $\alpha = {alpha:g}$", _f_fanion(SpectralBall(), alpha)
    ),
    "f-neon:ALPHA": lambda alpha: Shape(
        rf"F-Neon, $\alpha = {alpha:g}$", _f_fanion(NuclearBall(), alpha)
    ),
    "f-fanion:K:ALPHA": lambda k, alpha: Shape(
        rf"F-Fanion-{k}, $\alpha = {alpha:g}$", _f_fanion(KyFanDualBall(k), alpha)
    ),
    "f-muon-dual:ALPHA": lambda alpha: _dual(_SHAPES["f-muon:ALPHA"](alpha)),
    "f-neon-dual:ALPHA": lambda alpha: _dual(_SHAPES["f-neon:ALPHA"](alpha)),
    "f-fanion-dual:K:ALPHA": lambda k, alpha: _dual(_SHAPES["f-fanion:K:ALPHA"](k, alpha)),
}

NAMES = tuple(_SHAPES)
"""What `named_shape` knows; K is a whole number, ALPHA a number from 0 to 1."""

_NOT_OF_SINGULAR_VALUES = {
    "max": "entries",
    "column": "columns",
    "row": "rows",
    "s-muon": "entries",
    "s-neon": "entries",
    "s-fanion": "entries",
}


def _dual(shape: Shape) -> Shape:
    return Shape(f"dual of {shape.label}", shape.ball, dual=True)


def named_shape(name: str) -> Shape:
    """The shape of that name.

    Parameters
    ----------
    name : str
        As `NAMES` has them, with numbers: ``"kyfan:2"``, ``"f-fanion:2:0.5"``.

    Returns
    -------
    Shape

    Raises
    ------
    ValueError
        If there is none, if its numbers are wrong, or if the norm is not one of singular values.
    """
    kind, *numbers = name.strip().lower().split(":")
    if kind.removesuffix("-dual") in _NOT_OF_SINGULAR_VALUES:
        what = _NOT_OF_SINGULAR_VALUES[kind.removesuffix("-dual")]
        raise ValueError(
            f"{name!r} looks at the {what} of a matrix and not at its singular values alone: it "
            "has no ball in their space"
        )
    form = next((form for form in NAMES if form.split(":")[0] == kind), None)
    if form is None:
        raise ValueError(f"{name!r} is not a ball that can be drawn; choose of {', '.join(NAMES)}")
    wanted = form.split(":")[1:]
    if len(numbers) != len(wanted):
        raise ValueError(f"{name!r} is not of the form {form}")
    read = {"K": _whole_number, "ALPHA": _share}
    values = [read[kind](number, name) for kind, number in zip(wanted, numbers, strict=True)]
    return _SHAPES[form](*values)


def _whole_number(text: str, name: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise ValueError(f"{name!r}: K = {text!r} is not a whole number of at least 1")
    return value


def _share(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError(f"{name!r}: ALPHA = {text!r} is not a number from 0 to 1")
    return value


# ---- boundaries -----------------------------------------------------------------------------

# Steps along an edge of the chamber: at most 0.75 degrees in the plane, and 5 in space.
_STEPS = {2: 64, 3: 12}
_INSIDE = 1e-9
# Faces of a smooth surface meet at no more than the angle between two directions.
_CREASE = math.cos(math.radians(12))


def boundary(shape: Shape, dim: int) -> HostArray:
    """Points on the boundary, all corners of the body among them.

    Parameters
    ----------
    shape : Shape
        What to draw.
    dim : int
        2 or 3 singular values.

    Returns
    -------
    array of shape (p, dim)
        In the plane they are ordered by angle.
    """
    touch = _on_ray if shape.dual else _touching
    points = np.array([touch(shape.ball, d) for d in _chamber(dim)])
    images = np.concatenate([points @ g for g in _symmetries(dim)])
    images = np.unique(images.round(12) + 0.0, axis=0)
    if dim == 2:
        images = images[np.argsort(np.arctan2(images[:, 1], images[:, 0]))]
    return images


def _touching(ball: Ball, direction: HostArray) -> HostArray:
    """A point of the ball that is farthest along the direction.

    The direction is taken just inside of the chamber: on its border, a face that is farthest as a
    whole would be met somewhere in its middle.
    """
    inside = direction + _INSIDE * np.arange(len(direction), 0, -1)
    point = np.diag(ball.lmo(np.diag(-inside), method="direct").update)
    # A point that this moved off the border goes back, or its mirror images would lie beside it.
    steps = np.append(point[:-1] - point[1:], point[-1])
    steps[steps < 100 * _INSIDE] = 0
    return np.array(np.cumsum(steps[::-1])[::-1])


def _on_ray(ball: Ball, direction: HostArray) -> HostArray:
    """The point of the polar's boundary in this direction.

    The support function of a sum is the sum of the parts'. Those of the balls in `NAMES` are smooth
    in the interior of the chamber: the corners of the polar lie on rays that are tried.
    """
    return direction / ball.support(np.diag(direction))


def _chamber(dim: int) -> Iterator[HostArray]:
    """Unit vectors with entries that are descending and non-negative."""
    steps = _STEPS[dim]
    corners = np.tri(dim) / np.sqrt(np.arange(1, dim + 1))[:, None]
    for weights in itertools.product(range(steps + 1), repeat=dim):
        if sum(weights) == steps:
            direction = np.array(weights) @ corners
            yield direction / np.linalg.norm(direction)


def _symmetries(dim: int) -> Iterator[HostArray]:
    """Permutations with signs, as matrices."""
    for order in itertools.permutations(range(dim)):
        for signs in itertools.product((1.0, -1.0), repeat=dim):
            yield np.eye(dim)[list(order)] * np.array(signs)


@dataclass(frozen=True, eq=False)
class Surface:
    """A convex body in space.

    Attributes
    ----------
    triangles : array of shape (f, 3, 3)
        Corners of each triangle.
    normals : array of shape (f, 3)
        Outward unit normals.
    creases : array of shape (e, 2, 3)
        Ends of the edges at which faces meet at an angle.
    sides : array of shape (e, 2, 3)
        Normals of the two faces.
    """

    triangles: HostArray
    normals: HostArray
    creases: HostArray
    sides: HostArray


def surface(points: HostArray) -> Surface:
    """The convex hull of points in space, and where it has edges.

    Parameters
    ----------
    points : array of shape (p, 3)
        As `boundary` gives them.

    Returns
    -------
    Surface
    """
    hull = scipy.spatial.ConvexHull(points)
    normals = hull.equations[:, :3]
    ends, sides = [], []
    for face, across in enumerate(hull.neighbors):
        for corner, other in enumerate(across):
            if face < other and normals[face] @ normals[other] < _CREASE:
                ends.append(points[np.delete(hull.simplices[face], corner)])
                sides.append(normals[[face, other]])
    shape = (-1, 2, 3)
    return Surface(
        points[hull.simplices],
        normals,
        np.array(ends).reshape(shape),
        np.array(sides).reshape(shape),
    )
