"""The table as a person sees it: stdout for results, stderr for progress, plain where piped."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trsvd import table


def title_of(case: table.Case, k: int | None) -> str:
    """A matrix and a k in words; k is None for the polar factor."""
    m, n = case.size
    return f"{case.name}, {m} x {n}, k = {f'r = {case.rank}' if k is None else k}"


_COLUMNS = ("method", "time (s)", "matvecs", "iterations", "err1", "err2")
_PAPER_COLUMNS = ("time", "matvecs", "it.", "err1", "err2")


def _cells(row: table.Row | table.Figures, digits: int) -> list[str]:
    return [
        f"{row.seconds:.3g}" if row.seconds < 1000 else f"{row.seconds:.0f}",
        str(row.matvecs),
        str(row.iterations),
        f"{row.err1:.{digits}e}",
        "-" if row.err2 is None else f"{row.err2:.{digits}e}",
    ]


_ABOUT_PAPER = (
    'The columns "the paper" are from arXiv:2512.09678, "The Ky Fan Norms and Beyond": Gaussian '
    "matrices in float64, with other random numbers, on another machine. The paper stopped its "
    "methods at about err1 < 1e-2. Where its err1 is much smaller than that, its method made more "
    "products than the target needs."
)
_ITERATIVE = ("trlan", "rsvd", "krylov", "power")


def _sentence(rows: list[table.Row]) -> str:
    """Return a sentence on the products of the methods for one matrix."""
    best, *others = sorted(rows, key=lambda row: row.matvecs)
    than = ", ".join(f"{row.method} {row.matvecs / best.matvecs:.3g} times" for row in others)
    m, n = best.size
    return (
        f"On {best.matrix} {m} x {n}, k = {best.k}, {best.method} needs the fewest products "
        f"({best.matvecs}; {than} as many)."
    )


class Display:
    """The table on standard output; plain text unless it is a terminal.

    Parameters
    ----------
    quiet : bool, default False
        True: write the notes to standard error, and no tables.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet: bool = quiet
        self.console: Console | None = Console() if sys.stdout.isatty() and not quiet else None

    def note(self, text: str) -> None:
        """Write a line of text."""
        if self.quiet:
            print(text, file=sys.stderr, flush=True)
        elif self.console:
            self.console.print(text, highlight=False, markup=False)
        else:
            print(text, flush=True)

    def group(self, title: str, rows: list[table.Row]) -> None:
        """Show the methods on one matrix."""
        in_paper = any(row.paper for row in rows)
        head = [*_COLUMNS, *(_PAPER_COLUMNS if in_paper else ())]
        lines = []
        for row in rows:
            paper = _cells(row.paper, 1) if row.paper else [""] * len(_PAPER_COLUMNS)
            lines.append([row.method, *_cells(row, 2), *(paper if in_paper else ())])
        if self.console:
            self._show_rich(self.console, title, head, lines)
        elif not self.quiet:
            self._show_plain(title, head, lines)
        for row in rows:
            if not row.reached:
                self.note(
                    f"{row.method} missed the target {row.target:g}: it ended after "
                    f"{row.matvecs} matvecs with err1 = {row.err1:.1e}"
                )

    def medians(self, rows: list[table.Row]) -> None:
        """Show the median of each method over several seeds."""
        groups: dict[tuple[Any, ...], list[table.Row]] = {}
        for row in rows:
            groups.setdefault((row.matrix, row.size, row.k, row.method), []).append(row)
        self.note("\nmedians")
        for (matrix, (m, n), k, method), members in groups.items():
            matvecs = statistics.median(row.matvecs for row in members)
            seconds = statistics.median(row.seconds for row in members)
            self.note(
                f"{matrix}, {m} x {n}, k = {k}, {method}, {len(members)} seeds: "
                f"{matvecs:g} matvecs, {seconds:.3g} s"
            )

    def conclusion(self, rows: list[table.Row]) -> None:
        """Explain the paper's columns, and say which method needed the fewest products."""
        if any(row.paper for row in rows):
            self.note(f"\n{_ABOUT_PAPER}")
        groups: dict[tuple[Any, ...], list[table.Row]] = {}
        for row in rows:
            if row.reached and row.method in _ITERATIVE:
                groups.setdefault((row.matrix, row.size, row.k, row.seed), []).append(row)
        wins = [_sentence(members) for members in groups.values() if len(members) > 1]
        if wins:
            self.note("\nResult: " + " ".join(wins))

    def _show_plain(self, title: str, head: list[str], lines: list[list[str]]) -> None:
        widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
        own = len(_COLUMNS)
        print(f"\n{title}")
        if len(head) > own:
            indent = sum(widths[:own]) + 2 * (own - 1)
            print(" " * indent + "  | the paper")
        for line in (head, *lines):
            cells = [line[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            parts = ["  ".join(cells[:own]), *(["  ".join(cells[own:])] if cells[own:] else [])]
            print("  | ".join(parts).rstrip().removesuffix("  |"))
        sys.stdout.flush()

    def _show_rich(
        self, console: Console, title: str, head: list[str], lines: list[list[str]]
    ) -> None:
        shown = Table(
            title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD
        )
        for place, name in enumerate(head):
            paper = place >= len(_COLUMNS)
            shown.add_column(
                f"paper\n{name}" if paper else f"\n{name}",
                justify="right" if place else "left",
                style="dim" if paper else None,
                no_wrap=True,
            )
        for line in lines:
            shown.add_row(*line)
        # A narrow terminal may wrap a line; a number must not be cut for it.
        needed = Console(width=1000).measure(shown).maximum
        if needed > console.width:
            console = Console(width=needed)
        console.print(shown)


@contextmanager
def progress_on_stderr(title: str) -> Iterator[Callable[[str], table.Tick]]:
    """Say on stderr what runs: a changing line on a terminal, else a line a method."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():

        def announce(method: str) -> table.Tick:
            print(f"{title}: {method}", file=sys.stderr, flush=True)
            return lambda matvecs, error: None

        yield announce
        return
    with console.status(escape(f"{title}: exact triplets")) as status:

        def watch(method: str) -> table.Tick:
            line = escape(f"{title}: {method}")
            status.update(line)
            return lambda matvecs, error: status.update(
                f"{line}, {matvecs} matvecs, err1 {error:.1e}"
            )

        yield watch
