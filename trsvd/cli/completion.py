"""The command ``trsvd completion``: a completion script for a shell."""

from __future__ import annotations

import argparse
from typing import Any

from trsvd.cli.arguments import UsageError

_END = """\
examples:
  trsvd completion bash > ~/.local/share/bash-completion/completions/trsvd
  trsvd completion zsh > ~/.zfunc/_trsvd    # with fpath+=~/.zfunc before compinit
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "completion",
        help="print a completion script for bash, zsh or tcsh",
        description="Print a completion script. It needs the package shtab.",
        epilog=_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _run(arguments: argparse.Namespace) -> int:
    from trsvd.cli import make_parser

    try:
        import shtab
    except ImportError as error:
        raise UsageError("completion scripts need shtab: python -m pip install shtab") from error
    print(shtab.complete(make_parser(), arguments.shell))
    return 0
