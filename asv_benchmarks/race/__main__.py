"""``python -m race``: speed against every installed peer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from race import run as race
from race.display import (
    COLUMNS,
    around_table,
    details,
    entries,
    line,
    markdown,
    plot,
    replace_table,
    summary_lines,
)
from trsvd.cli.arguments import UsageError, check_directory, exit_code, positive
from trsvd.reports import check_plot

_ABOUT = """\
Race trsvd against every installed peer. A cell is a matrix, a dtype, a k and an accuracy. In each
cell the best setting of every competitor for the accuracy is first found, without timing it. Then
the competitors run in turns, and every result is checked in double precision. trsvd is called
without a method. A peer that misses the accuracy or one of the top k triplets does not count.
"""

_END = """\
"ratio" is the median over the rounds of trsvd's time divided by that of the fastest accurate peer.
"interval" is its confidence interval from order statistics, at least 95 % with six rounds or more.
"of ceiling" is a lower bound of the time of the products, divided by the measured time. The bound
uses the measured rate of a large matrix product, or one reading of the matrix for two passes. A
peer slower than five times the fastest is dropped from a cell after one run.

With --json each result is saved as soon as it is available. The same command resumes an interrupted
run. It rejects a file from another machine or with other versions.

examples:
  python -m race --list
  python -m race --quick
  python -m race --cells f32/gaussian-500x500 'f64/*/k5/*' --json race.json
  python -m race --threads 1,2 --json race.json --plot race.png
  python -m race --report --json race.json --markdown ../docs/benchmarks/race-table.md
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the arguments are ``sys.argv[1:]`` by default. Return the exit code."""
    arguments = _parser().parse_args(argv)
    return exit_code("race", lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m race",
        description=_ABOUT,
        epilog=_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--cells",
        nargs="+",
        metavar="PATTERN",
        help="names of cells: a part of the name, or a pattern with * and ? (default: all cells)",
    )
    what.add_argument("--list", action="store_true", help="list the cells and exit")
    what.add_argument(
        "--quick",
        action="store_true",
        help="check accuracy in tiny cells only; exit code 1 if trsvd misses it in a cell",
    )
    what.add_argument("--report", action="store_true", help="only report the results in --json")
    what.add_argument(
        "--threads",
        type=_threads,
        metavar="1,2",
        help="numbers of threads, each in its own process (default: 1; with --report: all)",
    )
    what.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="real matrices: .npy, .npz (scipy.sparse), and spectra.npz with their singular values",
    )
    what.add_argument(
        "--cache",
        type=Path,
        default=race.default_cache(),
        metavar="DIR",
        help="folder for matrices with known singular values (default: %(default)s)",
    )
    how = parser.add_argument_group("how long")
    how.add_argument(
        "--repeats", type=positive, metavar="R", help="least number of rounds (default: 7)"
    )
    how.add_argument(
        "--seconds",
        type=_seconds,
        metavar="S",
        help="run more rounds, up to 5 R, until a cell has taken S seconds (default: 5)",
    )
    how.add_argument(
        "--timeout", type=_seconds, metavar="S", help="longest single call (default: 300)"
    )
    out = parser.add_argument_group("files to write")
    out.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="file of results; an existing file is resumed (FILE.gz is compressed)",
    )
    out.add_argument("--fresh", action="store_true", help="overwrite the file of --json")
    out.add_argument(
        "--renew",
        action="store_true",
        help="run cells again that were measured with other sources of trsvd; peers use their best "
        "settings from that run",
    )
    out.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE.md",
        help="write the table into a file, between its marks",
    )
    out.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.png",
        help="ratios with intervals (needs matplotlib: the extra 'plot')",
    )
    out.add_argument("--details", action="store_true", help="show every competitor of each cell")
    return parser


def _threads(text: str) -> list[int]:
    return list(dict.fromkeys(positive(part.strip()) for part in text.split(",")))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _run(arguments: argparse.Namespace) -> int:
    """Run the race, or report its results."""
    if arguments.report:
        return _report(arguments)
    cells = _cells(arguments)
    if arguments.list:
        print("\n".join(cell.name for cell in cells))
        return 0
    _check_outputs(arguments)
    results = _results(arguments)
    made = 0
    for made, record in enumerate(_records(cells, results, arguments), 1):
        _show(record, arguments, head=made == 1)
    records = _chosen(results, {cell.name for cell in cells}, _numbers(arguments))
    if not records:
        print("no cell could be run; the reasons are above", file=sys.stderr)
        return 1
    if not made:
        print("all cells have results already; --report shows them", file=sys.stderr)
    _finish(results, records, arguments)
    missed = [record["name"] for record in records if not record["reached"]]
    if arguments.quick and missed and not made:
        print(f"missed before: {', '.join(missed)}", file=sys.stderr)
    return int(arguments.quick and bool(missed))


def _numbers(arguments: argparse.Namespace) -> list[int]:
    """Return the numbers of threads."""
    return arguments.threads or [1]


def _chosen(
    results: race.Results, names: set[str], threads: list[int] | None
) -> list[dict[str, Any]]:
    return [
        one
        for one in results.cells
        if one["name"] in names and (threads is None or one["threads"] in threads)
    ]


def _report(arguments: argparse.Namespace) -> int:
    """Report all results of a file, for any cells and from any machine."""
    _check_outputs(arguments)
    if arguments.json is None:
        raise UsageError("--report needs --json, the file to report")
    results = _opened(lambda: race.Results.read(arguments.json))
    stored = [race.Cell(**record["cell"]) for record in results.cells]
    names = {cell.name for cell in race.matching(stored, arguments.cells)}
    records = _chosen(results, names, arguments.threads)
    if not records:
        raise UsageError(
            f"{arguments.json} has no such cells; leave out --cells and --threads to show all"
        )
    for place, record in enumerate(records):
        _show(record, arguments, head=place == 0)
    _finish(results, records, arguments)
    return 0


def _cells(arguments: argparse.Namespace) -> list[race.Cell]:
    try:
        known = race.quick_cells() if arguments.quick else race.all_cells(arguments.data)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"--data {arguments.data}: {error}") from error
    cells = race.matching(known, arguments.cells)
    if not cells:
        raise UsageError(
            f"--cells {' '.join(arguments.cells)}: no cell has such a name; --list shows the names"
        )
    return cells


def _results(arguments: argparse.Namespace) -> race.Results:
    here, path = race.header(), arguments.json
    if arguments.fresh:
        return race.Results(path, here)
    return _opened(lambda: race.Results.open(path, here))


def _opened(read: Callable[[], race.Results]) -> race.Results:
    try:
        return read()
    except race.Mismatch as error:
        raise UsageError(str(error)) from error


def _records(cells: list[race.Cell], results: race.Results, arguments: argparse.Namespace) -> Any:
    given = {name: getattr(arguments, name) for name in ("repeats", "seconds", "timeout")}
    effort = {name: value for name, value in given.items() if value is not None}
    if arguments.quick:
        effort = {"repeats": 1, "seconds": 0.0, "seeds": 1, "for_time": False, **effort}
    try:
        yield from race.run(
            cells,
            results,
            threads=_numbers(arguments),
            effort=race.Effort(**effort),
            places=race.Places(arguments.cache, arguments.data),
            renew=arguments.renew,
            progress=_progress,
        )
    except (race.Mismatch, race.Unwritable) as error:
        raise UsageError(str(error)) from error


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:110]}", end="\r", file=sys.stderr, flush=True)
    elif "left out" in text or text.split(", ", 1)[-1][:1].isdigit():
        print(text, file=sys.stderr, flush=True)


def _show(record: dict[str, Any], arguments: argparse.Namespace, *, head: bool) -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if arguments.quick:
        ours = next(one for one in record["competitors"] if one["role"] == "trsvd")
        error = "-" if ours["error"] is None else f"{ours['error']:.1e}"
        verdict = "accurate" if record["reached"] else "missed"
        print(f"{record['name']}: {verdict}, error {error}", flush=True)
        return
    if head:
        print(line(COLUMNS))
    print(line(entries(record)), flush=True)
    if arguments.details:
        print("\n".join(details(record)), flush=True)


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Raise errors for invalid outputs before anything runs."""
    for path in filter(None, (arguments.json, arguments.markdown, arguments.plot)):
        check_directory(path)
    if arguments.fresh and arguments.renew:
        raise UsageError("--fresh overwrites the file, --renew resumes it; pass one of them")
    try:
        if arguments.plot:
            check_plot(arguments.plot)
        if arguments.markdown:
            around_table(arguments.markdown)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _finish(
    results: race.Results, records: list[dict[str, Any]], arguments: argparse.Namespace
) -> None:
    """Print the summary and write the files."""
    for summary in race.summarize(records) if not arguments.quick else ():
        print("\n" + "\n".join(summary_lines(summary)), flush=True)
    try:
        if arguments.markdown:
            replace_table(arguments.markdown, markdown(results.head, records))
        if arguments.plot:
            plot(records, arguments.plot)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
