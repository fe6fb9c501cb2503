"""Options of `Ball.lmo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trsvd._solve.problem import check_start
from trsvd._validate import check_number, check_rng, check_seconds, check_tol, is_seed
from trsvd.methods import Method
from trsvd.polar.methods import NewtonSchulz, PolarExpress, PolarIteration

# Names for method= of an oracle, in addition to those of trsvd.methods.
ITERATIONS: dict[str, PolarIteration] = {
    "newton-schulz": NewtonSchulz(),
    "polar-express": PolarExpress(),
}


@dataclass(frozen=True)
class Options:
    """Options of `Ball.lmo`, checked."""

    gap: float | None = None
    tol: float | None = None
    start: Any = None
    method: str | Method | PolarIteration | None = None
    rng: int | np.random.Generator | None = None
    certify: bool | str = False
    time_limit: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.method, str) and self.method in ITERATIONS:
            object.__setattr__(self, "method", ITERATIONS[self.method])
        if self.gap is not None and self.tol is not None:
            raise ValueError(f"gap={self.gap} and tol={self.tol} are both given; pass one of them")
        if self.gap is not None and not 0 < check_number("gap", self.gap) < 1:
            raise ValueError(f"gap={self.gap}; a relative gap is a number between 0 and 1")
        if self.certify not in (True, False, "probable"):
            raise ValueError(f"certify={self.certify!r}; it is True, False or 'probable'")
        check_tol(self.tol, 0.0)
        check_seconds(self.time_limit)
        if not (self.rng is None or is_seed(self.rng) or isinstance(self.rng, np.random.Generator)):
            check_rng(self.rng)
        if self.start is not None:
            check_start(self.start, None)

    @property
    def for_one_call(self) -> bool:
        """True if the choice of a method is open, so that one compiled call may do."""
        return self.method is None and not self.certify and self.time_limit is None
