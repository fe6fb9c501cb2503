"""The command ``trsvd balls``: pictures of unit balls."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trsvd.cli.arguments import UsageError, check_directory, dots
from trsvd.reports import check_plot
from trsvd.reports.ball_pictures import draw, panels_of, paper_panels
from trsvd.reports.ball_shapes import NAMES, named_shape

_ABOUT = """\
Draw unit balls of norms of singular values, in the plane or in space of two or three singular
values (with signs and in any order). Without --ball: those of the paper (arXiv:2512.09678), the
Ky Fan 2-norm and its dual in space and the families F-Muon and F-Neon in the plane.
"""

_END = f"""\
names of balls (K: a whole number; ALPHA: from 0 to 1):
  {"  ".join(NAMES[:5])}
  {"  ".join(NAMES[5:8])}
  {"  ".join(NAMES[8:])}
F-Muon is ALPHA times the spectral ball plus (1 - ALPHA) times the Frobenius ball; F-Neon has the
nuclear ball in the place of the spectral one, F-Fanion-K the ball of the dual of the Ky Fan K-norm.
f-muon-dual is the unit ball of the dual norm, ALPHA times the nuclear norm plus (1 - ALPHA) times
the Frobenius norm.

examples:
  trsvd balls --out balls.png
  trsvd balls --ball f-fanion:2:0.5 --ball kyfan-dual:2 --dim 3 --out fanion.svg
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "balls",
        help="draw unit balls of norms of singular values",
        description=_ABOUT,
        epilog=_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE.png",
        help="picture to write, .png, .svg or .pdf (needs matplotlib)",
    )
    parser.add_argument(
        "--ball",
        type=_ball,
        action="append",
        metavar="NAME",
        help="a ball to draw, as named below; give it again for more (default: the paper's)",
    )
    parser.add_argument(
        "--dim",
        type=int,
        choices=(2, 3),
        help="singular values: plane or space (default: 2; without --ball, both)",
    )
    parser.add_argument(
        "--dpi", type=dots, default=150, help="pixels per inch (default: %(default)s)"
    )


def _ball(text: str) -> str:
    try:
        named_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _run(arguments: argparse.Namespace) -> int:
    """``trsvd balls``."""
    path = arguments.out
    check_directory(path)
    if arguments.ball:
        panels = panels_of(arguments.ball, arguments.dim or 2)
    else:
        panels = [p for p in paper_panels() if arguments.dim in (None, p.dim)]
    try:
        check_plot(path)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error
    try:
        draw(panels, path, dpi=arguments.dpi)
    except (OSError, RuntimeError) as error:  # the latter where .pgf finds no LaTeX
        raise UsageError(
            f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}"
        ) from error
    count = sum(len(panel.shapes) for panel in panels)
    print(f"wrote {path}: {count} unit ball{'s' if count > 1 else ''}")
    return 0
