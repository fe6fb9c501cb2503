"""``python -m reliability``: run trsvd and its peers on the hard cases."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from race.display import replace_table
from reliability import run as reliability
from reliability.cases import CASES
from reliability.competitors import contestants
from reliability.judge import Outcome
from trsvd.cli.arguments import UsageError, check_directory, exit_code, seed

_ABOUT = """\
Run trsvd's methods and oracles, and every installed peer, on hard cases: multiple values, rank
below k, breakdowns, extreme scales, misleading starts, and matrices on which peers were reported to
fail. Each result is compared with the exact one in double precision. It is right, or it reports
that it is not, or it is silently wrong. Exit code 1 if a result of trsvd is silently wrong.
"""

_END = """\
examples:
  python -m reliability --list
  python -m reliability --who 'trlan*' 'kyfan*' --cases 'copies at' --reasons
  python -m reliability --markdown ../docs/benchmarks/reliability-table.md
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the arguments are ``sys.argv[1:]`` by default. Return the exit code."""
    arguments = _parser().parse_args(argv)
    os.environ.setdefault("TRSVD_COMPILED", "1")
    return exit_code("reliability", lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reliability",
        description=_ABOUT,
        epilog=_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="PATTERN",
        help="names of cases: a part of the name, or a pattern with * and ? (default: all)",
    )
    parser.add_argument(
        "--who", nargs="+", metavar="PATTERN", help="methods, oracles and peers (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="list cases and contestants, and exit")
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="SEED",
        help="seed of all random numbers (default: 0)",
    )
    parser.add_argument(
        "--reasons",
        action="store_true",
        help="show every result that is not right, with the reason",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every result as JSON")
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE.md",
        help="write the tables into a file, between its marks",
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
    """Run the selected cases, and show the results."""
    known = [one.name for one in contestants()]
    names = reliability.chosen(arguments.who, known)
    cases = reliability.chosen(arguments.cases, list(CASES))
    if not names or not cases:
        given = f"--cases {' '.join(arguments.cases or [])}" if names else "--who"
        raise UsageError(f"{given}: no such name; --list shows the names")
    if arguments.list:
        print("\n".join([*cases, "", *names]))
        return 0
    for path in filter(None, (arguments.json, arguments.markdown)):
        check_directory(path)
    records = list(
        reliability.run(patterns=cases, names=names, seed=arguments.seed, progress=_progress)
    )
    _show(reliability.summary(records))
    if arguments.reasons:
        for one in records:
            if one.outcome is not Outcome.RIGHT:
                print(f"{one.case}, {one.dtype}, {one.who}: {one.outcome.value}: {one.reason}")
    if arguments.json:
        text = json.dumps({"seed": arguments.seed, "answers": reliability.to_dicts(records)})
        arguments.json.write_text(text + "\n", encoding="utf-8")
    if arguments.markdown:
        try:
            text = reliability.markdown(records, arguments.seed)
            replace_table(arguments.markdown, text, of="reliability")
        except (OSError, ValueError) as error:
            raise UsageError(str(error)) from error
    wrong = {Outcome.WRONG, Outcome.NAN}
    return int(any(one.outcome in wrong for one in records if one.kind != "peer"))


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            text.ljust(width) if place < 2 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
