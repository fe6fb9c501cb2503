"""Block power iteration with Rayleigh-Ritz."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trsvd._arrays.arrays import Array
from trsvd.methods.base import Run
from trsvd.methods.subspace_run import SubspaceRun
from trsvd.operators.counting import Metered

__all__ = ["PowerIteration"]


@dataclass(frozen=True, kw_only=True)
class PowerIteration:
    """Block power (subspace, orthogonal) iteration on ``A^H A`` with Rayleigh-Ritz.

    The simplest method and the slowest; a reference for the others.

    Parameters
    ----------
    iterations : int, optional
        Exactly so many; None iterates until the tolerance is met.

    Notes
    -----
    Cost: ``k (2 iterations + 1)`` products. Memory: ``3 k (m + n)`` numbers. The error goes down by
    ``(s_{k+1} / s_k)^2`` an iteration.

    References
    ----------
    G. Golub and C. Van Loan, Matrix Computations, 4th ed., section 8.2.4.
    """

    name: ClassVar[str] = "power"
    iterations: int | None = None

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 0:
            msg = f"iterations={self.iterations}; it must be at least 0"
            raise ValueError(msg)

    def init(
        self, op: Metered, k: int, *, tol: float, start: Array | None, rng: np.random.Generator
    ) -> Run:
        """Start a run."""
        del tol
        return SubspaceRun(
            op,
            k,
            width=k,
            start=start,
            rng=rng,
            ends_with_adjoint=False,
            limit=self.iterations,
        )
