"""The hard cases, put before trsvd and every installed peer; what comes of it, as a table.

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
    """What one contestant made of one case in one dtype.

    Attributes
    ----------
    case, family, report : str
        The case, what kind of trouble it is, and who was reported to fail on such a matrix.
    k : int
        Number of triplets.
    dtype : str
        Of the matrix.
    who, kind : str
        The contestant: a ``"method"`` or an ``"oracle"`` of trsvd, or a ``"peer"``.
    outcome : Outcome
        What its answer is.
    reason : str
        Why, where it is not right.
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
    """The names that match one of some patterns: a part of the name, or with * and ? all of it.

    Parameters
    ----------
    patterns : sequence of str or None
        None chooses all.
    names : sequence of str
        To choose from.

    Returns
    -------
    list of str
        In their order.
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
    """Put cases before contestants.

    Parameters
    ----------
    patterns : sequence of str, optional
        Which cases; see `chosen`. All by default.
    names : sequence of str, optional
        Which contestants, by their whole names. All by default.
    seed : int, default 0
        Of all random numbers.
    progress : callable, optional
        Told what begins.

    Yields
    ------
    Record
        For each case and dtype that a contestant can be asked.
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
    """Records for JSON.

    Parameters
    ----------
    records : iterable of Record
        What came of it.

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
    """How often each contestant had which outcome.

    Parameters
    ----------
    records : sequence of Record
        What came of it.

    Returns
    -------
    list of list of str
        A head, and a line for each contestant.
    """
    lines = [["who", "what", "asked", *_HEADS.values()]]
    for who in dict.fromkeys(record.who for record in records):
        its = [record for record in records if record.who == who]
        counts = Counter(record.outcome for record in its)
        figures = [str(counts[outcome]) for outcome in _HEADS]
        lines.append([who, _TITLES[its[0].kind], str(len(its)), *figures])
    return lines


def markdown(records: Sequence[Record], seed: int) -> str:
    """The summary, what trsvd did not get right, and every case.

    Parameters
    ----------
    records : sequence of Record
        What came of it.
    seed : int
        Of the random numbers.

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
        # Of the other libraries only what is not right is of interest, which stands above.
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
    """A row a case, a column a contestant, a sign for each of the case's dtypes."""
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
