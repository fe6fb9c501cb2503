"""Pictures of unit balls of singular values: panels in the plane and in space."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trsvd.reports import figure_class
from trsvd.reports.ball_shapes import Shape, boundary, named_shape, surface

# ---- panels ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """One pair or triple of axes.

    Attributes
    ----------
    title : str
        Above it; may be empty.
    dim : int
        2 or 3 singular values.
    shapes : tuple of Shape
        In space there is one.
    """

    title: str
    dim: int
    shapes: tuple[Shape, ...]


def paper_panels() -> list[Panel]:
    """The balls of the paper's figures: Ky Fan 2 and its dual, the families F-Muon and F-Neon.

    Returns
    -------
    list of Panel
    """
    alphas = (0, 0.25, 0.5, 0.75, 1)
    families = [("F-Muon", "spectral"), ("F-Neon", "nuclear")]
    return [
        *panels_of(["kyfan:2", "kyfan-dual:2"], 3),
        *(
            Panel(
                rf"{name} = $\alpha\,${part} + $(1 - \alpha)\,$Frobenius",
                2,
                tuple(named_shape(f"{name}:{alpha}") for alpha in alphas),
            )
            for name, part in families
        ),
    ]


def panels_of(names: Sequence[str], dim: int) -> list[Panel]:
    """Panels of chosen balls: in the plane they share one, in space each has its own.

    Parameters
    ----------
    names : sequence of str
        As for `named_shape`.
    dim : int
        2 or 3 singular values.

    Returns
    -------
    list of Panel
    """
    shapes = [named_shape(name) for name in dict.fromkeys(names)]
    if dim == 2:
        title = shapes[0].label if len(shapes) == 1 else ""
        return [Panel(title, 2, tuple(shapes))]
    return [Panel(shape.label, 3, (shape,)) for shape in shapes]


# ---- drawing --------------------------------------------------------------------------------

# M. Okabe and K. Ito's palette, which all kinds of colour vision tell apart; without its yellow,
# too pale for a line on white. Faces are not black: edges are.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")
_ELEVATION, _AZIMUTH = 20.0, 27.0
_LIGHT = np.array([0.3, -0.55, 0.78])


def draw(panels: Sequence[Panel], path: str | Path, *, dpi: int = 150) -> None:
    """Draw panels into a file.

    Parameters
    ----------
    panels : sequence of Panel
        What to draw, two in a row.
    path : str or Path
        File to write; its ending says the format.
    dpi : int, default 150
        Pixels per inch; a panel is 4.8 inches wide.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If the file cannot be written.
    """
    figure = figure_class()(layout="constrained")
    draw_into(figure, panels)
    figure.savefig(path, dpi=dpi)


def draw_into(figure: Any, panels: Sequence[Panel]) -> None:
    """Draw panels into a matplotlib figure, which is resized.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        An empty figure.
    panels : sequence of Panel
        Panels to draw, two in a row.
    """
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure.set_size_inches(4.8 * columns, 4.8 * rows)
    figure.suptitle("Unit balls in the space of singular values")
    face_colors = itertools.cycle(_COLORS[:-1])
    for place, panel in enumerate(panels, 1):
        if panel.dim == 2:
            axes = figure.add_subplot(rows, columns, place)
            _draw_plane(axes, panel)
        else:
            axes = figure.add_subplot(rows, columns, place, projection="3d", proj_type="ortho")
            _draw_space(axes, panel, next(face_colors))
        axes.set_title(panel.title, fontsize="medium")


def _draw_plane(axes: Any, panel: Panel) -> None:
    for place, shape in enumerate(panel.shapes):
        points = boundary(shape, 2)
        closed = np.vstack([points, points[:1]])
        axes.plot(
            *closed.T,
            color=_COLORS[place % len(_COLORS)],
            ls=_DASHES[place // len(_COLORS) % len(_DASHES)],
            lw=1.8,
            label=shape.label,
        )
    for line in (axes.axhline, axes.axvline):
        line(0, color="0.8", lw=0.8, zorder=0)
    axes.set(aspect="equal", xlabel=r"$\sigma_1$", ylabel=r"$\sigma_2$")
    axes.locator_params(nbins=5)
    if len(panel.shapes) <= 6:  # they leave the middle free
        axes.legend(fontsize="small", loc="center")
    else:
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)


def _draw_space(axes: Any, panel: Panel, color: str) -> None:
    from matplotlib.colors import to_rgb
    from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

    points = boundary(panel.shapes[0], 3)
    body = surface(points)
    elevation, azimuth = np.radians([_ELEVATION, _AZIMUTH])
    toward = np.array(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ]
    )
    # What faces the viewer hides the rest of a convex body. Its hidden edges are drawn faintly over
    # it: layers of translucent triangles would show their seams.
    front = body.normals @ toward > 0
    seen = (body.sides @ toward > 0).any(axis=1)
    light = 0.72 + 0.28 * body.normals[front] @ _LIGHT
    colors = 0.2 + 0.8 * light[:, None] * np.array(to_rgb(color))
    axes.computed_zorder = False
    faces = Poly3DCollection(
        body.triangles[front], facecolors=colors, edgecolors=colors, lw=0.4, zorder=1
    )
    axes.add_collection3d(faces)
    for which, strength in ((~seen, 0.25), (seen, 1.0)):
        if which.any():  # matplotlib takes no empty collection
            edges = Line3DCollection(
                body.creases[which],
                colors=(0, 0, 0, strength),
                lw=1.0,
                capstyle="round",
                zorder=1 + strength,
            )
            axes.add_collection3d(edges)
    reach = 1.08 * float(np.abs(points).max())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axes.set(xlabel=r"$\sigma_1$", ylabel=r"$\sigma_2$", zlabel=r"$\sigma_3$")
    axes.set_box_aspect((1, 1, 1))
    axes.locator_params(nbins=5)
    axes.view_init(_ELEVATION, _AZIMUTH)
