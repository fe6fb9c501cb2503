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

    See Also
    --------
    Piecewise, Cosine

    Examples
    --------
    >>> from trsvd.optim import Constant
    >>> k = Constant(8)
    >>> k(0), k(1000)
    (8, 8)
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

    See Also
    --------
    Constant, Cosine

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

    See Also
    --------
    Constant, Piecewise

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


@dataclass(frozen=True)
class Rank:
    """Rank of an oracle: a number of singular pairs, or a fraction of min(m, n).

    Parameters
    ----------
    k : int or callable, optional
        Number of singular pairs, or a schedule of it. A schedule may return floats of at least 1,
        which are rounded.
    fraction : float or callable, optional
        Fraction of min(m, n), above 0 and at most 1, or a schedule of it. The number of singular
        pairs is rounded up.

    Raises
    ------
    TypeError
        If a value is not a number, or k is a number but not an integer.
    ValueError
        If a value is out of range, or if both or none of the two are given.

    Examples
    --------
    >>> Rank(16).at(0, 100), Rank(fraction=0.25).at(0, 100), Rank(Cosine(32, 8, 100)).at(50, 100)
    (16, 25, 20)
    """

    k: Any = None
    fraction: Any = None

    def __post_init__(self) -> None:
        if (self.k is None) == (self.fraction is None):
            which = "none" if self.k is None else "both"
            raise ValueError(
                f"{which} of k and rank_fraction given; pass the number of singular pairs as k=, "
                "or a fraction of min(m, n) as rank_fraction="
            )
        for value in self._known() or ():
            self._check(value)
            if not (self.k is None or isinstance(self.k, Cosine) or isinstance(value, Integral)):
                raise TypeError(
                    f"k={value!r} is not an integer; pass the number of singular pairs as an "
                    "integer, or a fraction of min(m, n) as rank_fraction="
                )

    @property
    def scheduled(self) -> bool:
        """True if the rank depends on the step."""
        return callable(self.k) or callable(self.fraction)

    def at(self, step: int, rank: int) -> int:
        """Return the number of singular pairs at a step, between 1 and ``rank`` = min(m, n)."""
        given = self.k if self.fraction is None else self.fraction
        return self._pairs(value_at(given, step), rank)

    def largest(self, step: int, rank: int) -> int:
        """Return the largest rank of a schedule; for another function, the rank at this step."""
        known = self._known()
        return self.at(step, rank) if known is None else max(self._pairs(v, rank) for v in known)

    def _known(self) -> tuple[Any, ...] | None:
        """Return the values among which all others lie; None for a function."""
        given = self.k if self.fraction is None else self.fraction
        if isinstance(given, Constant):
            return (given.value,)
        if isinstance(given, Piecewise):
            return tuple(given.values)
        if isinstance(given, Cosine):
            return (given.first, given.last)
        return None if callable(given) else (given,)

    def _check(self, value: Any) -> None:
        name = "k" if self.fraction is None else "rank_fraction"
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name}={value!r} is not a number; pass a number or a schedule")
        if self.fraction is not None and not 0 < float(value) <= 1:
            raise ValueError(
                f"rank_fraction={value!r}; pass a number above 0 and at most 1. For a number of "
                "singular pairs pass k="
            )
        if self.k is not None and not float(value) >= 1:
            raise ValueError(
                f"k={value!r}; pass an integer of at least 1. For a fraction of min(m, n) pass "
                "rank_fraction="
            )

    def _pairs(self, value: Any, rank: int) -> int:
        self._check(value)
        if self.k is not None:
            return int(round(float(min(value, rank))))
        # A product that is an integer up to rounding errors is not rounded up.
        return max(1, min(math.ceil(float(value) * rank * (1 - 1e-12)), rank))
