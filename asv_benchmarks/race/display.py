"""Reports of the race: one line for each cell, a summary, a table in Markdown, a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from race.statistics import Group, Summary, seconds_of, summarize
from trsvd.reports import figure_class

COLUMNS = (
    "cell",
    "threads",
    "trsvd (ms)",
    "fastest peer",
    "(ms)",
    "ratio",
    "interval",
    "products",
    "of ceiling",
    "best own method",
)
_WIDTHS = (47, 7, 10, 15, 9, 6, 13, 9, 10, 22)
_LEFT = {0, 3, 9}

BEGIN = "<!-- trsvd race: begin -->"
END = "<!-- trsvd race: end -->"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.3g}"


def _ours(cell: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in cell["competitors"] if one["role"] == "trsvd")
    return found


def entries(cell: dict[str, Any]) -> list[str]:
    """Return the entries of the columns for a cell."""
    ours = _ours(cell)
    facts, peer, pick = ours["facts"], cell.get("peer"), cell.get("pick")
    products = str(facts["matvecs"]) if "matvecs" in facts else "-"
    if facts.get("matvecs_verify"):
        products += f"+{facts['matvecs_verify']}"
    return [
        cell["name"],
        str(cell["threads"]),
        _milliseconds(ours["seconds"]) if cell["reached"] else "missed",
        peer["name"] if peer else "-",
        _milliseconds(seconds_of(cell, peer["name"])) if peer else "-",
        f"{peer['value']:.2f}" if peer else "-",
        f"{peer['low']:.2f} - {peer['high']:.2f}" if peer else "-",
        products,
        f"{cell['ceiling']:.0%}" if "ceiling" in cell else "-",
        f"{pick['best']} ({pick['ratio']:.2f})" if pick else "-",
    ]


def line(values: Sequence[str]) -> str:
    """Return a line with columns of fixed widths."""
    padded = [
        value.ljust(width) if place in _LEFT else value.rjust(width)
        for place, (value, width) in enumerate(zip(values, _WIDTHS, strict=True))
    ]
    return "  ".join(padded).rstrip()


def details(cell: dict[str, Any]) -> list[str]:
    """Return lines on all competitors of a cell, with their best settings."""
    lines = []
    for one in sorted(cell["competitors"], key=lambda one: one["seconds"] or math.inf):
        settings = ", ".join(f"{key}={_short(value)}" for key, value in one["options"].items())
        error = "-" if one["error"] is None else f"{one['error']:.1e}"
        text = f"    {one['name']:20s} {_milliseconds(one['seconds']):>9s} ms  error {error:8s} "
        lines.append(f"{text} {one['status']:9s} {settings} {one['note']}".rstrip())
    return lines


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


# ---- summary --------------------------------------------------------------------------------


def summary_lines(summary: Summary) -> list[str]:
    """Return the lines of a summary."""
    lines = [
        f"{summary.threads} thread{'s' if summary.threads > 1 else ''}, {summary.cells} cells",
        _mean("  all cells with a peer", summary.overall, summary.counted),
        _mean("  those that memory bounds", summary.memory_bound, summary.counted_bound),
    ]
    if summary.counted_unverified:
        title = "  without the check for missed values"
        lines.append(_mean(title, summary.unverified, summary.counted_unverified))
    if summary.worst:
        lines.append(f"  worst cell: {summary.worst[0]}, {summary.worst[1]:.2f}")
    if not math.isnan(summary.pick):
        lines.append(f"  time over that of the best own method: geometric mean {summary.pick:.2f}")
    for kind, value in summary.references.items():
        lines.append(f"  {kind} oracle, time over that of Newton-Schulz: {value:.3g}")
    for title, names in (
        ("slower than a peer beyond the interval", summary.lost),
        ("accuracy missed", summary.missed),
        ("no peer was accurate", summary.unopposed),
    ):
        if names:
            lines.append(f"  {title}: {len(names)} ({', '.join(names[:5])}{_more(names)})")
    if len(summary.groups) > 1:
        titles = "cells  ratio  unverified  of ceiling  ratio if at the ceiling"
        lines.append(f"  {'by matrix':34s} {titles}")
        lines += [_group_line(group) for group in summary.groups]
    return lines


def _group_line(group: Group) -> str:
    ceiling, floor = "-", "-"
    if not math.isnan(group.ceiling):
        ceiling, floor = f"{group.ceiling:.0%}", f"{group.floor:.2f}"
    unverified = "-" if math.isnan(group.unverified) else f"{group.unverified:.2f}"
    return (
        f"  {group.name:34s} {group.cells:5d}  {group.ratio:5.2f}  {unverified:>10s}  "
        f"{ceiling:>10s}  {floor:>8s}"
    )


def _mean(title: str, value: float, count: int) -> str:
    if not count:
        return f"{title}: none"
    return f"{title}: geometric mean of the ratio {value:.2f} ({count} cells)"


def _more(names: Sequence[str]) -> str:
    return ", ..." if len(names) > 5 else ""


# ---- Markdown -------------------------------------------------------------------------------


def markdown(head: dict[str, Any], cells: Sequence[dict[str, Any]]) -> str:
    """Return the table of all cells, below a caption and the summaries.

    Parameters
    ----------
    head : dict
        Header of the results.
    cells : sequence of dict
        The results.

    Returns
    -------
    str
    """
    lines = [caption(head), ""]
    for summary in summarize(cells):
        lines += ["```text", *summary_lines(summary), "```", ""]
    rows = [COLUMNS, [":--" if place in _LEFT else "--:" for place in range(len(COLUMNS))]]
    rows += [entries(cell) for cell in sorted(cells, key=_order)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _order(cell: dict[str, Any]) -> tuple[Any, ...]:
    return cell["threads"], cell["cell"]["measure"] == "gap", cell["name"]


def caption(head: dict[str, Any]) -> str:
    """Return a caption with machine, threads, BLAS and versions."""
    versions = ", ".join(f"{name} {text}" for name, text in head["versions"].items() if text)
    pools = "; ".join(
        f"{threads} thread{'s' if threads != '1' else ''}: {', '.join(found) or 'as asked for'}"
        for threads, found in head["threads"].items()
    )
    blas = ", ".join(f"{name}: {text}" for name, text in head["blas"].items())
    return (
        f"Measured on {head['cpu']} ({head['cpus']} processors), {head['platform']}, "
        f"Python {head['python']}; {versions}. BLAS: {blas}. Libraries of threads: {pools}."
    )


def replace_table(path: Path, text: str, of: str = "race") -> None:
    """Write a table between the two marks of a file.

    Parameters
    ----------
    path : Path
        A Markdown file; it is created if it does not exist.
    text : str
        The table.
    of : str, default "race"
        Name of the command, used in the marks.

    Raises
    ------
    ValueError
        If the file exists and has no marks.
    """
    before, after = around_table(path, of)
    first, last = _marks(of)
    path.write_text(f"{before}{first}\n\n{text}\n{last}{after}", encoding="utf-8")


def around_table(path: Path, of: str = "race") -> tuple[str, str]:
    """Return the text before and after the table of a file; ValueError if it has no marks."""
    if not path.exists():
        return "", "\n"
    first, last = _marks(of)
    before, begin, rest = path.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"{path}: has no lines {first} and {last} to put the table between")
    return before, after


def _marks(of: str) -> list[str]:
    return [mark.replace("race", of) for mark in (BEGIN, END)]


# ---- picture --------------------------------------------------------------------------------


def plot(cells: Iterable[dict[str, Any]], path: Path) -> None:
    """Draw the ratios with their intervals, one line for each cell.

    Parameters
    ----------
    cells : iterable of dict
        The results; those without a peer are left out.
    path : Path
        File to write; its suffix selects the format.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    Figure = figure_class()
    shown = sorted((cell for cell in cells if "peer" in cell), key=_order, reverse=True)
    figure = Figure(figsize=(9, 1.2 + 0.2 * max(1, len(shown))), layout="constrained")
    panel = figure.subplots()
    panel.axvline(1.0, color="0.4", lw=1)
    for place, cell in enumerate(shown):
        peer = cell["peer"]
        color = f"C{(cell['threads'] - 1) % 10}"
        panel.plot([peer["low"], peer["high"]], [place, place], color=color, lw=2)
        panel.plot([peer["value"]], [place], marker="o", ms=4, color=color)
        panel.annotate(peer["name"], (1.01, place), xycoords=("axes fraction", "data"), fontsize=6)
    panel.set(
        xscale="log", xlabel="time of trsvd / time of the fastest peer", ylim=(-1, len(shown))
    )
    names = [f"{cell['name']}  ({cell['threads']})" for cell in shown]
    panel.set_yticks(range(len(shown)), names, fontsize=6)
    figure.savefig(path, dpi=150)
