"""Run of trsvd and every installed peer on the hard cases, with tables of the results.

>>> from reliability.run import run
>>> records = list(run(patterns=["rank 3*"], names=["auto", "kyfan_dual"]))
>>> {record.outcome.value for record in records}
{'right'}
"""

from __future__ import annotations

import fnmatch
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reliability.cases import CASES, Case
from reliability.competitors import Contestant, contestants
from reliability.judge import Outcome
from trsvd.reports import machine

__all__ = ["Record", "chosen", "markdown", "run", "summary", "to_dicts"]


@dataclass(frozen=True)
class Record:
    """Result of one contestant for one case in one dtype.

    Attributes
    ----------
    case, family, report : str
        The case, its kind of difficulty, and the library that was reported to fail on it.
    k : int
        Number of triplets.
    dtype : str
        Dtype of the matrix.
    who, kind : str
        The contestant: a ``"method"`` or an ``"oracle"`` of trsvd, or a ``"peer"``.
    outcome : Outcome
        Outcome of the case.
    reason : str
        Reason, if the outcome is not right.
    """

    case: str
    family: str
    report: str
    k: int
    dtype: str
    who: str
    kind: str
    outcome: Outcome
    reason: str


def chosen(patterns: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """Return the names that match a pattern: a part of a name, or one with * and ?.

    Parameters
    ----------
    patterns : sequence of str or None
        Patterns; None selects all names.
    names : sequence of str
        Names to select from.

    Returns
    -------
    list of str
        The selected names, in their order.
    """
    if patterns is None:
        return list(names)

    def matches(name: str, pattern: str) -> bool:
        exact = name == pattern
        if any(mark in pattern for mark in "*?["):
            return exact or fnmatch.fnmatchcase(name, pattern)
        return exact or pattern in name

    return [name for name in names if any(matches(name, one) for one in patterns)]


def run(
    *,
    patterns: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Record]:
    """Run contestants on cases.

    Parameters
    ----------
    patterns : sequence of str, optional
        Patterns of the cases, see `chosen`. All by default.
    names : sequence of str, optional
        Full names of the contestants. All by default.
    seed : int, default 0
        Seed of all random numbers.
    progress : callable, optional
        Function that is called with the name of each contestant.

    Yields
    ------
    Record
        One record for each case and dtype that a contestant can run.
    """
    for who in contestants():
        if names is not None and who.name not in names:
            continue
        progress(who.name)
        for name in chosen(patterns, list(CASES)):
            yield from _answers(who, name, CASES[name], seed)


def _answers(who: Contestant, name: str, case: Case, seed: int) -> Iterator[Record]:
    for dtype in case.dtypes:
        finding = who.answer(case, dtype, seed)
        if finding is None:
            continue
        about = (name, case.family, case.report, case.k, dtype, who.name, who.kind)
        yield Record(*about, finding.outcome, finding.reason)


def to_dicts(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Convert records to dicts for JSON.

    Parameters
    ----------
    records : iterable of Record
        The records.

    Returns
    -------
    list of dict
    """
    return [{**asdict(record), "outcome": record.outcome.name.lower()} for record in records]


# ---- tables ---------------------------------------------------------------------------------

_HEADS = {
    Outcome.RIGHT: "right",
    Outcome.SAYS: "says it is not",
    Outcome.CERTIFICATE: "within the certificate",
    Outcome.NAN: "NaN",
    Outcome.WRONG: "silently wrong",
}
_SIGNS = {
    Outcome.RIGHT: "✓",
    Outcome.SAYS: "s",
    Outcome.CERTIFICATE: "c",
    Outcome.NAN: "n",
    Outcome.WRONG: "✗",
}
_TITLES = {"method": "trsvd", "oracle": "oracle of trsvd", "peer": "peer"}


def summary(records: Sequence[Record]) -> list[list[str]]:
    """Return the number of each outcome for each contestant.

    Parameters
    ----------
    records : sequence of Record
        The records.

    Returns
    -------
    list of list of str
        A header row, and a row for each contestant.
    """
    lines = [["who", "what", "asked", *_HEADS.values()]]
    for who in dict.fromkeys(record.who for record in records):
        its = [record for record in records if record.who == who]
        counts = Counter(record.outcome for record in its)
        figures = [str(counts[outcome]) for outcome in _HEADS]
        lines.append([who, _TITLES[its[0].kind], str(len(its)), *figures])
    return lines


def markdown(records: Sequence[Record], seed: int) -> str:
    """Return the summary, the results of trsvd that are not right, and all cases.

    Parameters
    ----------
    records : sequence of Record
        The records.
    seed : int
        Seed of the random numbers.

    Returns
    -------
    str
    """
    lines = [_caption(records, seed), "", *_table(summary(records), left=2), ""]
    lines += ["### What trsvd does not answer", ""]
    ours = [one for one in records if one.kind != "peer" and one.outcome is not Outcome.RIGHT]
    if ours:
        rows = [[one.case, one.dtype, one.who, _HEADS[one.outcome], one.reason] for one in ours]
        lines += [*_table([["case", "dtype", "who", "outcome", "what it says"], *rows], left=5), ""]
    for title, kinds in (("trsvd", ("method", "oracle")), ("Peers", ("peer",))):
        # Of the other libraries only results that are not right are shown, above.
        its = [one for one in records if one.kind in kinds and not one.who.endswith(")")]
        if its:
            lines += [f"### {title}, case by case", "", *_cases(its), ""]
    return "\n".join(lines)


def _caption(records: Sequence[Record], seed: int) -> str:
    names = ("scipy", "numba", "torch", "scikit-learn", "primme", "array-api-strict")
    about = [machine(name)["versions"] for name in names]
    versions = {name: text for one in about for name, text in one.items() if text}
    listed = ", ".join(f"{name} {text}" for name, text in versions.items())
    cases = len({record.case for record in records})
    return (
        f"{cases} cases, {len(records)} answers, seed {seed}; "
        f"Python {platform.python_version()}, {listed}."
    )


def _cases(records: Sequence[Record]) -> list[str]:
    """Return a row for each case, with a sign for each contestant and dtype."""
    columns = list(dict.fromkeys(record.who for record in records))
    signs: dict[tuple[str, str], str] = {}
    for record in records:
        key = record.case, record.who
        signs[key] = signs.get(key, "") + _SIGNS[record.outcome]
    rows = [["case", "k", *columns]]
    family = ""
    for name in dict.fromkeys(record.case for record in records):
        case = CASES[name]
        if case.family != family:
            family = case.family
            rows.append([f"**{family}**", *[""] * (len(columns) + 1)])
        title = f"{name} ({case.report})" if case.report else name
        rows.append([title, str(case.k), *[signs.get((name, who), "") for who in columns]])
    return _table(rows, left=1)


def _table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    marks = [":--" if place < left else "--:" for place in range(len(rows[0]))]
    lines = [rows[0], marks, *rows[1:]]
    return [f"| {' | '.join(_escaped(text) for text in line)} |" for line in lines]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
