"""How long a cell of the race is measured, and what became of its competitors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from trsvd._race.peers import Options

__all__ = ["Effort", "Outcome"]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure.

    Parameters
    ----------
    repeats : int, default 7
        Rounds, at least.
    seconds : float, default 5
        More rounds follow, up to five times ``repeats``, until a cell has taken so long. One that
        takes six times as long ends after three rounds.
    timeout : float, default 300
        Seconds for one call.
    seeds : int, default 3
        Random starts that take turns; all of them must come out accurate.
    pause : float, default 0
        Seconds of rest before each sample: threads of the one before wait actively for a while.
    for_time : bool, default True
        Whether times matter. If not, the first accurate setting is good enough.
    """

    repeats: int = 7
    seconds: float = 5.0
    timeout: float = 300.0
    seeds: int = 3
    pause: float = 0.0
    for_time: bool = True

    def enough(self, rounds: int, spent: float) -> bool:
        """Whether no further round is needed."""
        if rounds >= self.repeats:
            return spent >= self.seconds or rounds >= 5 * self.repeats
        return rounds >= 3 and spent >= 6 * self.seconds


@dataclass
class Outcome:
    """What became of a competitor in a cell.

    ``status``: ``"raced"``; ``"slow"``, dropped after one run; ``"missed"``, the accuracy;
    ``"failed"``, with an exception; ``"timed out"``; ``"crashed"``.
    """

    name: str
    role: str
    status: str
    options: Options = field(default_factory=dict)
    reached: bool = False
    seconds: float | None = None
    error: float | None = None
    note: str = ""
    times: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        known = self.error is not None and math.isfinite(self.error)
        return {**self.__dict__, "error": self.error if known else None}
