"""Numbers of the race: medians of ratios with an interval, geometric means, who is too slow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Ratio", "dropped", "geometric_mean", "median_interval", "ratio_of"]

SLOW = 5.0
"""A peer this many times slower than the fastest is dropped after one run."""


@dataclass(frozen=True)
class Ratio:
    """A median of ratios, round by round.

    Parameters
    ----------
    value : float
        The median.
    low, high : float
        Interval that has the true median in it with probability ``confidence``.
    confidence : float
        At least 0.95 from six rounds on; with fewer it is what the extremes give.
    """

    value: float
    low: float
    high: float
    confidence: float


def median_interval(
    values: Sequence[float], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Interval of a median from order statistics, whatever the distribution is.

    Parameters
    ----------
    values : sequence of float
        At least one; independent.
    confidence : float, default 0.95
        Asked for.

    Returns
    -------
    tuple of float
        Lower end, upper end, and the confidence that it has: the narrowest interval of values
        symmetric in rank that reaches the one asked for, or the extremes where none does.

    Examples
    --------
    >>> from trsvd._race.statistics import median_interval
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
    """The median of ``ours[r] / theirs[r]`` over the rounds r that both were in.

    Parameters
    ----------
    ours, theirs : sequence of float
        Seconds, round by round; whoever was dropped has fewer.

    Returns
    -------
    Ratio
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=False)]
    low, high, confidence = median_interval(ratios)
    return Ratio(statistics.median(ratios), low, high, confidence)


def geometric_mean(values: Sequence[float]) -> float:
    """``exp(mean(log(values)))``; NaN of nothing."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


def dropped(seconds: Mapping[str, float], limit: float = SLOW) -> set[str]:
    """Who took more than ``limit`` times as long as the fastest.

    Parameters
    ----------
    seconds : mapping of str to float
        Of one run of each that is accurate.
    limit : float, default 5
        How many times.

    Returns
    -------
    set of str
    """
    fastest = min(seconds.values(), default=math.inf)
    return {name for name, time in seconds.items() if time > limit * fastest}
