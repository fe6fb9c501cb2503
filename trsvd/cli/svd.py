"""The command ``trsvd svd``: singular triplets of a matrix in a file."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from trsvd.cli import arguments as _arguments
from trsvd.cli.arguments import STDOUT, UsageError, check_new, write_json
from trsvd.cli.matrix_files import read_matrix

_ABOUT = """\
Compute the k largest singular triplets of a matrix in a file. Print the singular values, the
residual of each triplet, the status of the run, and what is known about missed values.
"""

_END = """\
files:
  .npy                 NumPy array; mapped into memory
  .npz                 sparse matrix of scipy.sparse.save_npz, or arrays of numpy.savez
  .mtx                 Matrix Market
  .csv                 numbers; a line of column names is skipped
  .safetensors .pt     tensors; FILE:NAME chooses one

The residual is max(||A v - s u||, ||A^H u - s v||) / s_1. If a residual exceeds --tol, the best
triplets are printed and written, and the exit status is 1.

examples:
  trsvd svd data.npy -k 20
  trsvd svd model.safetensors:layers.0.weight -k 50 -o layer0.npz
  trsvd svd counts.npz -k 30 --centre --json - > components.json

Read the result in Python with trsvd.load("layer0.npz"), or numpy.load.
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "svd",
        help="compute singular triplets of a matrix in a file",
        description=_ABOUT,
        epilog=_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    add_matrix(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.npz", help="file for U, S and Vh")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="values, residuals and status as JSON; - means standard output, without the table",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument(
        "--centre", action="store_true", help="subtract the mean of each column first (PCA)"
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="trlan, rsvd, krylov, power or direct (default: chosen; see trsvd which)",
    )
    parser.add_argument(
        "--verify",
        type=_verify,
        default=True,
        metavar="ETA",
        help=(
            "check for missed values above (1 + ETA) s_k; 'exact' computes all singular values, "
            "'no' makes no check (default: a quick check)"
        ),
    )
    parser.add_argument(
        "--seed", type=_arguments.seed, default=0, help="seed of random numbers (default: 0)"
    )


def add_matrix(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a matrix, the number of triplets and the tolerance."""
    parser.add_argument("file", metavar="FILE", help="file with the matrix; see below")
    parser.add_argument(
        "-k", type=_arguments.positive, required=True, help="number of singular triplets"
    )
    parser.add_argument("--tensor", metavar="NAME", help="name of the array in the file")
    parser.add_argument(
        "--tol",
        type=_arguments.fraction,
        help="largest relative residual (default: eps**0.75, 1.8e-12 in float64)",
    )


def _verify(text: str) -> bool | str | float:
    if text in {"exact", "no"}:
        return text if text == "exact" else False
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number, 'exact' or 'no'")
    return value


def _run(arguments: argparse.Namespace) -> int:
    import trsvd

    for path in (arguments.output, arguments.json):
        check_new(path, force=arguments.force)
    A = read_matrix(arguments.file, arguments.tensor)
    given = A.dtype
    if given == np.float16:  # results in half precision would have three digits
        A = A.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trsvd.ConvergenceWarning)  # the status says it
        try:
            result = trsvd.svds(
                trsvd.operators.CenteredOperator(A) if arguments.centre else A,
                arguments.k,
                method=arguments.method,
                tol=arguments.tol,
                verify=arguments.verify,
                rng=arguments.seed,
                progress=sys.stderr.isatty(),
            )
        except (MemoryError, TypeError, ValueError) as error:
            raise UsageError(f"{arguments.file}: {error}") from error
    facts = _facts(arguments, A, given, result)
    if arguments.json != STDOUT:
        _show(facts)
    if arguments.output:
        try:
            result.save(arguments.output)
        except OSError as error:
            raise UsageError(f"{arguments.output}: cannot be written: {error.strerror}") from error
    if arguments.json:
        write_json(arguments.json, json.dumps(facts, indent=2))
    if not result.converged:
        print(f"trsvd svd: target missed: {result.status.value}", file=sys.stderr)
    return 0 if result.converged else 1


def _facts(arguments: argparse.Namespace, A: Any, given: Any, result: Any) -> dict[str, Any]:
    return {
        "file": arguments.file,
        "tensor": arguments.tensor,
        "shape": list(A.shape),
        "dtype": str(given),
        "centred": arguments.centre,
        "k": arguments.k,
        "singular_values": [float(s) for s in result.S],
        "residuals": [float(r) for r in result.residuals],
        "converged": result.converged,
        "status": result.status.name,
        "message": result.status.value,
        "certificate": str(result.completeness),
        "method": str(result.method),
        "matvecs": result.matvecs,
        "matvecs_verify": result.matvecs_verify,
        "output": None if arguments.output is None else str(arguments.output),
    }


def _show(facts: dict[str, Any]) -> None:
    """Print a table; with rich in a terminal."""
    m, n = facts["shape"]
    centred = ", columns centred" if facts["centred"] else ""
    title = f"{facts['file']}: {m} x {n}, {facts['dtype']}{centred}"
    rows = [
        (str(i), f"{s:.10g}", f"{r:.1e}")
        for i, (s, r) in enumerate(
            zip(facts["singular_values"], facts["residuals"], strict=True), start=1
        )
    ]
    head = ("i", "singular value", "residual")
    notes = [
        facts["message"],
        f"check for missed values: {facts['certificate']}",
        f"{facts['matvecs']} products and {facts['matvecs_verify']} for checks, by "
        f"{facts['method']}",
    ]
    if facts["output"]:
        notes.append(f"U, S, Vh: {facts['output']}")
    if sys.stdout.isatty():
        _show_rich(title, head, rows, notes)
        return
    widths = [max(len(row[j]) for row in (head, *rows)) for j in range(3)]
    print(title)
    for row in (head, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print("\n".join(notes))


def _show_rich(
    title: str, head: tuple[str, ...], rows: list[tuple[str, str, str]], notes: list[str]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in head:
        shown.add_column(name, justify="right")
    for row in rows:
        shown.add_row(*row)
    console = Console()
    console.print(shown)
    for note in notes:
        console.print(note, markup=False, highlight=False)
