"""The command ``trsvd which``: the method that would be chosen, and why."""

from __future__ import annotations

import argparse
from typing import Any

from trsvd.cli.arguments import UsageError
from trsvd.cli.matrix_files import read_matrix
from trsvd.cli.svd import add_matrix


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "which",
        help="show the method that would be chosen for a matrix, and the reason",
        description="Show the method that trsvd svd would choose, and the reason.",
        epilog="example:\n  trsvd which data.npy -k 20 --tol 1e-3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    add_matrix(parser)


def _run(arguments: argparse.Namespace) -> int:
    import trsvd

    A = read_matrix(arguments.file, arguments.tensor)
    try:
        chosen = trsvd.select_method(A, arguments.k, tol=arguments.tol)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{arguments.file}: {error}") from error
    print(f"method: {chosen.method}")
    print(f"reason: {chosen.reason}")
    return 0
