"""The command ``trsvd spectrum``: the spectra of all matrices of a checkpoint."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from trsvd.cli.arguments import UsageError, check_directory
from trsvd.spectrum import CheckpointError, Spectrum
from trsvd.spectrum.checkpoints import (
    Checkpoint,
    group_shards,
    open_checkpoint,
    printable,
    shard_stem,
    skipped_text,
)
from trsvd.spectrum.report import as_document, as_html, as_json, write_text

_ABOUT = """\
Compute the singular values of every matrix in a checkpoint, and show norms and ranks.
Several checkpoints are compared: their matrices are matched by name.
"""

_END = """\
columns:
  s_1        largest singular value
  ||A||_F    Frobenius norm
  stable     stable rank, ||A||_F^2 / s_1^2
  nuclear    nuclear rank, ||A||_*^2 / ||A||_F^2
  effective  effective rank, exponential of the entropy of s_i / ||A||_*
  90 %, 99 % number of singular values that have 90 % (99 %) of ||A||_F^2

The exit status is 1 if a matrix has NaN or infinite entries, and 2 if a file cannot be used.

examples:
  trsvd spectrum model.safetensors -o report.html
  trsvd spectrum step-1000.pt step-2000.pt step-3000.pt -o run.html
  trsvd spectrum folder-with-shards --json -
"""

# Names wrap, in columns that are not narrower.
_NARROW = 24

_HEAD = ("matrix", "shape", "s_1", "||A||_F", "stable", "nuclear", "effective", "90 %", "99 %")


def add(subparsers: Any) -> None:
    """Add the command to the parser's."""
    parser = subparsers.add_parser(
        "spectrum",
        help="show the singular values of every matrix in a checkpoint",
        description=_ABOUT,
        epilog=_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "models",
        nargs="+",
        type=Path,
        metavar="MODEL",
        help=(
            ".safetensors, .pt, .pth, .bin (PyTorch), .npz or .npy files, or folders with one "
            "checkpoint each; files named X-00001-of-00002.safetensors are one checkpoint"
        ),
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="REPORT.html", help="write a report in HTML"
    )
    parser.add_argument(
        "--json", metavar="PATH", help="write all quantities as JSON; - prints them"
    )
    parser.add_argument("--force", action="store_true", help="replace output files that exist")


def run(args: argparse.Namespace) -> int:
    """Run ``trsvd spectrum``.

    Parameters
    ----------
    args : argparse.Namespace
        Arguments of the command.

    Returns
    -------
    int
        Exit code: 1 if a matrix is not finite, else 0.
    """
    to_stdout = args.json == "-"
    targets = [args.output, None if to_stdout or args.json is None else Path(args.json)]
    try:
        _check_outputs([target for target in targets if target is not None], args)
        groups = group_shards(args.models)
        labels = _labels(groups)
        checkpoints = [open_checkpoint(group) for group in groups]
        _check_inputs_stay(targets, checkpoints, groups)
        spectra = _computed(labels, checkpoints)
    except CheckpointError as error:
        raise UsageError(str(error)) from error
    document = as_document(spectra, [checkpoint.skipped for checkpoint in checkpoints])
    try:
        for target, text in zip(targets, (as_html, as_json), strict=True):
            if target is not None:
                write_text(target, text(document), overwrite=args.force)
    except OSError as error:
        raise UsageError(f"an output cannot be written: {error.strerror or error}") from error
    if to_stdout:
        print(as_json(document), end="")
    else:
        _show(spectra, checkpoints)
    return 0 if all(one.is_finite for found in spectra.values() for one in found) else 1


# ---- arguments ------------------------------------------------------------------------------


def _check_outputs(targets: list[Path], args: argparse.Namespace) -> None:
    for target in targets:
        check_directory(target)
        if os.path.lexists(target) and not args.force:
            raise UsageError(f"{target} exists; choose another name, or replace it with --force")
    if len({os.path.realpath(target) for target in targets}) < len(targets):
        raise UsageError(f"{targets[0]}: the report and the JSON file need two names")


def _check_inputs_stay(
    targets: list[Path | None], checkpoints: list[Checkpoint], groups: list[list[Path]]
) -> None:
    read = {os.path.realpath(file) for checkpoint in checkpoints for file in checkpoint.files}
    read |= {os.path.realpath(path) for group in groups for path in group}
    for target in targets:
        if target is not None and os.path.realpath(target) in read:
            raise UsageError(f"{target} is a checkpoint to read; choose another name")


def _labels(groups: list[list[Path]]) -> list[str]:
    """Return short names of the checkpoints, longer ones if those are not unique."""
    ways: tuple[Callable[[Path], str], ...] = (shard_stem, lambda path: path.name, str)
    for way in ways:
        labels = [way(group[0]) or str(group[0]) for group in groups]
        if len(set(labels)) == len(labels):
            return labels
    raise UsageError("a checkpoint is given twice; give each once")


# ---- computation ----------------------------------------------------------------------------


def _computed(labels: list[str], checkpoints: list[Checkpoint]) -> dict[str, list[Spectrum]]:
    spectra: dict[str, list[Spectrum]] = {}
    with _progress(sum(len(checkpoint.matrices) for checkpoint in checkpoints)) as advance:
        for label, checkpoint in zip(labels, checkpoints, strict=True):
            spectra[label] = []
            for matrix in checkpoint.matrices:
                advance(matrix.name)
                spectra[label].append(matrix.spectrum())
    return spectra


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Show a bar on a terminal; yields a function to call before each matrix."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda name: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        done = iter(range(total))

        def advance(name: str) -> None:
            label = Text(printable(name)[-40:]).markup
            bar.update(task, completed=next(done), description=label)

        yield advance


# ---- the table ------------------------------------------------------------------------------


def _show(spectra: dict[str, list[Spectrum]], checkpoints: list[Checkpoint]) -> None:
    """Show one line for each matrix; of several checkpoints, those of one name together."""
    several = len(spectra) > 1
    rows: dict[str, list[list[str]]] = {}
    for label, found in spectra.items():
        for spectrum in found:
            name, *rest = _cells(spectrum)
            first = name if spectrum.name not in rows else ""
            between = [printable(label)] if several else []
            rows.setdefault(spectrum.name, []).append([first, *between, *rest])
    head = [_HEAD[0], *(["checkpoint"] if several else []), *_HEAD[1:]]
    lines = [line for group in rows.values() for line in group]
    left = 2 if several else 1
    if sys.stdout.isatty():
        _show_rich(head, lines, left)
    else:
        _show_plain(head, lines, left)
    for (label, found), checkpoint in zip(spectra.items(), checkpoints, strict=True):
        bad = sum(not spectrum.is_finite for spectrum in found)
        parts = [f"{len(found)} {'matrix' if len(found) == 1 else 'matrices'}"]
        parts += [f"{bad} not finite"] if bad else []
        parts.append(f"skipped: {skipped_text(Counter(checkpoint.skipped))}")
        print(f"{printable(label)}: {'; '.join(parts)}")


def _cells(spectrum: Spectrum) -> list[str]:
    m, n = spectrum.shape
    cells = [printable(spectrum.name), f"{m} x {n}"]
    if not spectrum.is_finite:
        return [*cells, "not finite", *[""] * 6]
    numbers = (
        spectrum.spectral_norm,
        spectrum.frobenius_norm,
        spectrum.stable_rank,
        spectrum.nuclear_rank,
        spectrum.effective_rank,
    )
    return [*cells, *(f"{x:.4g}" for x in numbers), str(spectrum.rank_90), str(spectrum.rank_99)]


def _show_plain(head: list[str], lines: list[list[str]], left: int) -> None:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _show_rich(head: list[str], lines: list[list[str]], left: int) -> None:
    console = Console()
    table = Table(box=SIMPLE_HEAD)
    for place, column in enumerate(zip(head, *lines, strict=True)):
        width = max(map(len, column))
        table.add_column(
            column[0],
            justify="left" if place < left else "right",
            overflow="fold",
            min_width=min(width, _NARROW) if place < left else width,
        )
    for line in lines:
        bad = "not finite" in line[left:]
        table.add_row(*(Text(cell) for cell in line), style="bold red" if bad else None)
    # A narrow terminal may wrap a line; a number must not be cut for it.
    needed = Console(width=1000).measure(table).minimum
    (console if needed <= console.width else Console(width=needed)).print(table)
