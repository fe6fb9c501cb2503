"""The command line, ``trsvd COMMAND``; each command is a module of this folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from trsvd._version import __version__
from trsvd.cli.arguments import exit_code

__all__ = ["main", "make_parser"]

# Each is a module with ``add(commands)``, which adds its parser; ``run`` of the parser is called.
COMMANDS = ("svd", "which", "spectrum", "table", "balls", "warmup", "completion")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the name of the program. The default is ``sys.argv[1:]``.

    Returns
    -------
    int
        Exit status. 0: success. 1: a run failed, or missed its target. 2: arguments or files cannot
        be used. 130: interrupted.
    """
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    return exit_code(f"trsvd {arguments.command}", lambda: int(arguments.run(arguments)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="trsvd",
        description="Truncated singular value decompositions.",
        epilog="trsvd COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"trsvd {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"trsvd.cli.{name}").add(commands)
    return parser
