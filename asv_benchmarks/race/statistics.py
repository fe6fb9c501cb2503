"""Statistics of the race: medians of ratios with intervals, geometric means, slow peers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SLOW = 5.0
"""A peer this many times slower than the fastest is dropped after one run."""


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios of all rounds.

    Parameters
    ----------
    value : float
        The median.
    low, high : float
        Interval that contains the true median with probability ``confidence``.
    confidence : float
        At least 0.95 from six rounds on; with fewer rounds, the confidence of the extremes.
    """

    value: float
    low: float
    high: float
    confidence: float


def median_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return an interval of a median from order statistics, for any distribution.

    Parameters
    ----------
    values : sequence of float
        At least one value; the values are independent.
    confidence : float, default 0.95
        Required confidence.

    Returns
    -------
    tuple of float
        Lower end, upper end and actual confidence. The interval is the narrowest one, symmetric in
        rank, with the required confidence; the extremes if there is none.

    Examples
    --------
    >>> from race.statistics import median_interval
    >>> median_interval([1, 2, 3, 4, 5, 6])
    (1, 6, 0.96875)
    """
    ordered = sorted(values)
    n = len(ordered)
    # The median lies outside of [x_(j+1), x_(n-j)] if at most j values are on one side of it.
    trim = 0
    while 2 * (trim + 1) < n and _coverage(n, trim + 1) >= confidence:
        trim += 1
    return ordered[trim], ordered[n - 1 - trim], _coverage(n, trim)


def _coverage(n: int, trim: int) -> float:
    tail = sum(math.comb(n, i) for i in range(trim + 1))
    return max(0.0, 1 - tail / float(2 ** (n - 1)))


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the median of ``ours[r] / theirs[r]`` over the rounds r of both.

    Parameters
    ----------
    ours, theirs : sequence of float
        Seconds of each round; a dropped competitor has fewer rounds.

    Returns
    -------
    Ratio
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=False)]
    low, high, confidence = median_interval(ratios)
    return Ratio(statistics.median(ratios), low, high, confidence)


def geometric_mean(values: Sequence[float]) -> float:
    """Return ``exp(mean(log(values)))``; NaN for no values."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


def dropped(seconds: Mapping[str, float], limit: float = SLOW) -> set[str]:
    """Return the competitors slower than ``limit`` times the fastest.

    Parameters
    ----------
    seconds : mapping of str to float
        Seconds of one accurate run of each competitor.
    limit : float, default 5
        Factor on the fastest time.

    Returns
    -------
    set of str
    """
    fastest = min(seconds.values(), default=math.inf)
    return {name for name, time in seconds.items() if time > limit * fastest}


_SHORT = 2e-3
_MORE = 2e-4
"""If a peer takes less than `_SHORT` seconds, `_MORE` seconds longer do not count as a loss."""

_SURE = 0.9
"""Smallest useful confidence, that of five rounds."""


@dataclass(frozen=True)
class Group:
    """Cells of one matrix. Oracles are a separate group, and so are all real matrices.

    Parameters
    ----------
    name : str
        Name of the matrix.
    cells : int
        Number of cells with a peer.
    ratio : float
        Geometric mean of the ratios trsvd / fastest peer.
    ceiling : float
        Geometric mean of the fractions of the ceiling; NaN if none is known.
    floor : float
        Geometric mean of the ratios if trsvd made only its products, at the ceiling; NaN if not
        known.
    unverified : float
        Geometric mean of the ratios without the check for missed values, which no peer makes; NaN
        if not measured.
    """

    name: str
    cells: int
    ratio: float
    ceiling: float
    floor: float
    unverified: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of the cells with one number of threads.

    Parameters
    ----------
    threads : int
        Number of threads.
    cells : int
        Number of cells.
    missed : tuple of str
        Cells in which trsvd missed the accuracy.
    unopposed : tuple of str
        Cells in which no peer reached the accuracy.
    overall, memory_bound : float
        Geometric means of the ratios trsvd / fastest peer; NaN for no cells.
    counted, counted_bound : int
        Number of cells in each mean.
    unverified : float
        Geometric mean of the ratios without the check for missed values; NaN for no cells.
    counted_unverified : int
        Number of cells with this measurement.
    worst : tuple of (str, float) or None
        The largest ratio.
    lost : tuple of str
        Cells in which trsvd is slower, with an interval of at least 90 % above 1.
    pick : float
        Geometric mean of trsvd's time over the time of its best own method.
    references : dict
        Geometric mean of the ratios to Newton-Schulz, for cold and for warm oracles.
    groups : tuple of Group
        Groups of cells by their matrices.
    """

    threads: int
    cells: int
    missed: tuple[str, ...]
    unopposed: tuple[str, ...]
    overall: float
    memory_bound: float
    counted: int
    counted_bound: int
    unverified: float
    counted_unverified: int
    worst: tuple[str, float] | None
    lost: tuple[str, ...]
    pick: float
    references: dict[str, float]
    groups: tuple[Group, ...]


def seconds_of(cell: dict[str, Any], name: str) -> float:
    """Return the median seconds of a competitor in a cell."""
    return next(float(one["seconds"]) for one in cell["competitors"] if one["name"] == name)


def summarize(cells: Iterable[dict[str, Any]]) -> list[Summary]:
    """Return summaries of results, one for each number of threads.

    Parameters
    ----------
    cells : iterable of dict
        As in `Results`.

    Returns
    -------
    list of Summary
    """
    groups: dict[int, list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(cell["threads"], []).append(cell)
    return [_summary(threads, groups[threads]) for threads in sorted(groups)]


def _summary(threads: int, cells: list[dict[str, Any]]) -> Summary:
    ratios = {cell["name"]: cell["peer"]["value"] for cell in cells if "peer" in cell}
    bound = {
        cell["name"]: ratios[cell["name"]]
        for cell in cells
        if cell["name"] in ratios and cell["cell"]["memory_bound"]
    }
    unverified = _unverified(cells)
    name = max(ratios, key=lambda key: ratios[key], default=None)
    return Summary(
        threads=threads,
        cells=len(cells),
        missed=tuple(cell["name"] for cell in cells if not cell["reached"]),
        unopposed=tuple(c["name"] for c in cells if c["reached"] and "peer" not in c),
        overall=geometric_mean(list(ratios.values())),
        memory_bound=geometric_mean(list(bound.values())),
        counted=len(ratios),
        counted_bound=len(bound),
        unverified=geometric_mean(unverified),
        counted_unverified=len(unverified),
        worst=None if name is None else (name, ratios[name]),
        lost=tuple(cell["name"] for cell in cells if "peer" in cell and _is_lost(cell)),
        pick=geometric_mean([cell["pick"]["ratio"] for cell in cells if "pick" in cell]),
        references=_references(cells),
        groups=_groups(cells),
    )


def _groups(cells: list[dict[str, Any]]) -> tuple[Group, ...]:
    members: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if "peer" in cell:
            name = cell["cell"]["matrix"]
            name = "real matrices" if name.startswith("data-") else name
            if cell["cell"]["measure"] == "gap":
                name = f"{name}, oracles"
            members.setdefault(name, []).append(cell)
    return tuple(_group(name, members[name]) for name in sorted(members))


def _group(name: str, cells: list[dict[str, Any]]) -> Group:
    known = [cell for cell in cells if "ceiling" in cell]
    return Group(
        name,
        len(cells),
        geometric_mean([cell["peer"]["value"] for cell in cells]),
        geometric_mean([cell["ceiling"] for cell in known]),
        geometric_mean([cell["peer"]["value"] * cell["ceiling"] for cell in known]),
        geometric_mean(_unverified(cells)),
    )


def _unverified(cells: list[dict[str, Any]]) -> list[float]:
    return [cell["unverified"] for cell in cells if "unverified" in cell]


def _is_lost(cell: dict[str, Any]) -> bool:
    """True if trsvd is slower with an interval above 1, except by `_MORE` for short calls."""
    if cell["peer"]["low"] <= 1 or cell["peer"]["confidence"] < _SURE:
        return False
    ours, theirs = seconds_of(cell, "trsvd"), seconds_of(cell, cell["peer"]["name"])
    return not (theirs < _SHORT and ours - theirs <= _MORE)


def _references(cells: list[dict[str, Any]]) -> dict[str, float]:
    kinds: dict[str, list[float]] = {}
    for cell in cells:
        if "reference" in cell and not cell["cell"]["batch"]:
            kind = "warm" if cell["cell"]["warm"] else "cold"
            kinds.setdefault(kind, []).append(cell["reference"]["value"])
    return {kind: geometric_mean(values) for kind, values in kinds.items()}
