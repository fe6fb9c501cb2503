"""The command ``trsvd warmup``: compile before the first call."""

from __future__ import annotations

import argparse
import os
from typing import Any

from trsvd.cli.arguments import FailedError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "warmup",
        help="compile the Lanczos steps now, so that later programs load them",
        description="Compile the Lanczos steps for all dtypes with Numba, once in an environment.",
        epilog="A program loads them by trsvd.warmup(), or for calls that take some seconds.",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    import trsvd

    del arguments
    if os.environ.get("TRSVD_COMPILED") == "0":
        raise FailedError("TRSVD_COMPILED=0 in the environment turns compiled steps off")
    try:
        trsvd.warmup(progress=True)
    except ImportError as error:
        raise FailedError(str(error)) from error
    print("compiled steps are ready")
    return 0
