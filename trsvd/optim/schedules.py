"""Schedules of a number over the steps: of a rank, or of a learning rate.

A schedule is any callable of the step, which counts from 0. These are the ones of NuMuon
(arXiv:2603.03597); being plain data, they are saved with the state of an optimizer.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

__all__ = ["Constant", "Cosine", "Piecewise", "largest_rank", "rank_at", "value_at"]

Schedule = Callable[[int], Any]


@dataclass(frozen=True)
class Constant:
    """The same number at every step.

    Parameters
    ----------
    value : float
        The number.
    """

    value: float

    def __call__(self, step: int) -> float:
        """The number."""
        del step
        return self.value


@dataclass(frozen=True)
class Piecewise:
    """One number after the other.

    Parameters
    ----------
    values : sequence of float
        The numbers.
    starts : sequence of int
        The steps at which the second number begins, the third, and so on; ascending.

    Raises
    ------
    ValueError
        If there is not one start less than values, or the starts do not ascend.

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
            msg = (
                f"values={self.values}, starts={self.starts}; give the ascending steps at which "
                "each value but the first begins"
            )
            raise ValueError(msg)

    def __call__(self, step: int) -> float:
        """The number of this step."""
        return self.values[bisect_right(self.starts, step)]


@dataclass(frozen=True)
class Cosine:
    """From one number to another along half a period of a cosine; constant after that.

    Parameters
    ----------
    first, last : float
        The numbers.
    steps : int
        How long it takes, at least 1.

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
            msg = f"steps={self.steps}; a cosine takes at least one step"
            raise ValueError(msg)

    def __call__(self, step: int) -> float:
        """The number of this step."""
        share = min(max(step / self.steps, 0.0), 1.0)
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * share)) / 2


def value_at(value: Any, step: int) -> Any:
    """A number, or what a schedule says at this step."""
    return value(step) if callable(value) else value


def rank_at(k: Any, step: int, rank: int) -> int:
    """The rank that is meant at this step, between 1 and ``rank``.

    Parameters
    ----------
    k : int, float or callable
        A number of singular pairs, or a schedule of it. A float of at most 1 is a share of
        ``rank``, rounded up (1 is one pair, 1.0 all of them); one above 1 is rounded.
    step : int
        From 0.
    rank : int
        ``min(m, n)``.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If k is not positive.

    Examples
    --------
    >>> rank_at(16, 0, 100), rank_at(0.25, 0, 100), rank_at(Cosine(32, 8, 100), 50, 100)
    (16, 25, 20)
    """
    value = value_at(k, step)
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        msg = f"k={value!r}; give a positive integer, or a share of min(m, n) as a float up to 1.0"
        raise ValueError(msg)
    if not isinstance(value, Integral):
        value = float(value)
        # A product that is whole but for its rounding is not rounded up.
        value = math.ceil(value * rank * (1 - 1e-12)) if value <= 1 else round(value)
    return max(1, min(int(value), rank))


def largest_rank(k: Any, step: int, rank: int) -> int:
    """The largest rank of a schedule, as far as it is known; the one at this step for a function.

    Parameters
    ----------
    k, step, rank
        As for `rank_at`.

    Returns
    -------
    int
    """
    if isinstance(k, Cosine):
        values: Sequence[Any] = (k.first, k.last)
    else:
        values = k.values if isinstance(k, Piecewise) else (value_at(k, step),)
    return max(rank_at(value, step, rank) for value in values)
