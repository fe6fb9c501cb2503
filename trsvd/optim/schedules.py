"""Schedules of a rank or of a learning rate over the steps.

A schedule is any callable of the step index, which starts at 0. The classes here are the schedules
of NuMuon (arXiv:2603.03597). They are plain data, and are saved with the state of an optimizer.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

Schedule = Callable[[int], Any]


@dataclass(frozen=True)
class Constant:
    """Schedule with the same value at every step.

    Parameters
    ----------
    value : float
        The value.
    """

    value: float

    def __call__(self, step: int) -> float:
        """Return the value."""
        del step
        return self.value


@dataclass(frozen=True)
class Piecewise:
    """Piecewise constant schedule.

    Parameters
    ----------
    values : sequence of float
        The values, in order.
    starts : sequence of int
        The ascending steps at which each value but the first begins.

    Raises
    ------
    ValueError
        If ``len(starts) != len(values) - 1``, or ``starts`` is not ascending.

    Examples
    --------
    >>> k = Piecewise((32, 8), (100,))
    >>> k(99), k(100)
    (32, 8)
    """

    values: Sequence[float]
    starts: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "starts", tuple(self.starts))
        if len(self.values) != len(self.starts) + 1 or list(self.starts) != sorted(self.starts):
            raise ValueError(
                f"values={self.values}, starts={self.starts}; give the ascending steps at which "
                "each value but the first begins"
            )

    def __call__(self, step: int) -> float:
        """Return the value at this step."""
        return self.values[bisect_right(self.starts, step)]


@dataclass(frozen=True)
class Cosine:
    """Schedule along half a period of a cosine from ``first`` to ``last``, constant after that.

    Parameters
    ----------
    first, last : float
        The values at step 0, and from step ``steps`` on.
    steps : int
        Number of steps from ``first`` to ``last``, at least 1.

    Raises
    ------
    ValueError
        If steps is less than 1.

    Examples
    --------
    >>> k = Cosine(32.0, 8.0, 100)
    >>> k(0), k(50), k(100), k(1000)
    (32.0, 20.0, 8.0, 8.0)
    """

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}; a cosine schedule needs at least one step")

    def __call__(self, step: int) -> float:
        """Return the value at this step."""
        share = min(max(step / self.steps, 0.0), 1.0)
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * share)) / 2


def value_at(value: Any, step: int) -> Any:
    """Return a number as it is, or the value of a schedule at this step."""
    return value(step) if callable(value) else value


def check_rank(k: Any) -> None:
    """Raise an error unless k is a rank, a share of min(m, n), or a schedule of either.

    Parameters
    ----------
    k : int, float or callable
        Values of `Constant` and `Piecewise` are checked like numbers. Other schedules are checked
        at each step: their values may be floats above 1, which are rounded.

    Raises
    ------
    TypeError
        If k is a bool, not a number, or a float of at least 1.
    ValueError
        If k is not positive.
    """
    if isinstance(k, (Constant, Piecewise)):
        for value in k.values if isinstance(k, Piecewise) else (k.value,):
            check_rank(value)
    elif isinstance(k, Cosine):
        _positive(k.first)
        _positive(k.last)
    elif not callable(k):
        _positive(k)
        if not isinstance(k, Integral) and float(k) >= 1:
            raise TypeError(
                f"k={k!r} is not an integer; pass the number of singular pairs as an integer (at "
                "least min(m, n) for all), or a share of min(m, n) as a float between 0 and 1"
            )


def _positive(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, Real):
        raise TypeError(
            f"k={k!r} is not a number; pass an integer, or a share of min(m, n) as a float"
        )
    if not float(k) > 0:
        raise ValueError(
            f"k={k!r}; pass a positive integer, or a share of min(m, n) between 0 and 1"
        )


def rank_at(k: Any, step: int, rank: int) -> int:
    """Return the rank at a step, between 1 and ``rank``.

    Parameters
    ----------
    k : int, float or callable
        An integer is a number of singular pairs, and a float below 1 a share of ``rank``, rounded
        up. A schedule returns either. It may also return a float above 1, which is rounded, and
        1.0, which is the share 1. A `Cosine` with an end above 1 returns numbers of pairs at every
        step, 1.0 included.
    step : int
        Step index, from 0.
    rank : int
        ``min(m, n)``.

    Returns
    -------
    int

    Raises
    ------
    TypeError, ValueError
        As for `check_rank`.

    Examples
    --------
    >>> rank_at(16, 0, 100), rank_at(0.25, 0, 100), rank_at(Cosine(32, 8, 100), 50, 100)
    (16, 25, 20)
    >>> rank_at(Cosine(32, 1, 100), 100, 100), rank_at(Cosine(1.0, 0.25, 100), 0, 100)
    (1, 100)
    """
    check_rank(k)
    value = value_at(k, step)
    _positive(value)
    counts = isinstance(value, Integral)
    if isinstance(k, Cosine):
        ends = (k.first, k.last)
        counts = max(ends) > 1 or all(isinstance(end, Integral) for end in ends)
    if not isinstance(value, Integral):
        value = float(value)
        # A product that is an integer up to rounding errors is not rounded up.
        value = (
            round(min(value, rank))
            if counts or value > 1
            else math.ceil(value * rank * (1 - 1e-12))
        )
    return max(1, min(int(value), rank))


def largest_rank(k: Any, step: int, rank: int) -> int:
    """Return the largest rank of a schedule; for another function, the rank at this step.

    Parameters
    ----------
    k, step, rank
        As for `rank_at`.

    Returns
    -------
    int
    """
    if isinstance(k, Cosine):
        return max(rank_at(k, at, rank) for at in (0, k.steps))
    if isinstance(k, Piecewise):
        return max(rank_at(value, step, rank) for value in k.values)
    return rank_at(k, step, rank)
