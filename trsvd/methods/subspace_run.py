"""The run that RSVD and power iteration share; the half step that ends an iteration differs."""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.rayleigh_ritz import Ritz
from trsvd._krylov.subspace_iteration import Subspace
from trsvd.methods.base import Run, pad_block
from trsvd.operators.counting import Metered

__all__ = ["SubspaceRun"]


class SubspaceRun(Run):
    """Subspace iteration.

    Parameters
    ----------
    ends_with_adjoint : bool
        An iteration ends with the product with A^H (RSVD) or with A (power iteration).
    limit : int or None
        Number of iterations to make; None to go on until the loop stops.
    """

    def __init__(
        self,
        op: Metered,
        k: int,
        *,
        width: int,
        start: Array | None,
        rng: np.random.Generator,
        ends_with_adjoint: bool,
        limit: int | None,
    ) -> None:
        self.k, self.limit, self.rng = k, limit, rng
        self.ends_with_adjoint = ends_with_adjoint
        self.extra = width - k
        numbers = 3 * width * sum(op.shape)
        op.arrays.check_room(numbers, f"subspace iteration with {width} vectors on both sides")
        self.subspace = Subspace(op, pad_block(op, start, width, rng), rng)
        self.meets_all_copies = start is None
        self.iterations = -1  # the first step only sets up the triplets

    @property
    def width(self) -> int:
        """Vectors multiplied at a time."""
        return int(self.subspace.V.shape[1])

    @property
    def next_cost(self) -> int:
        first_is_half = self.subspace.S is None and not self.ends_with_adjoint
        return self.width * (1 if first_is_half else 2)

    @property
    def available(self) -> int:
        return 0 if self.subspace.S is None else self.width

    def step(self, op: Metered) -> None:
        subspace = self.subspace
        if subspace.S is not None and not self.ends_with_adjoint:
            subspace.multiply_adjoint(op)
        subspace.multiply(op)
        if self.ends_with_adjoint:
            subspace.multiply_adjoint(op)
        self.iterations += 1
        self.finished = self.limit is not None and self.iterations >= self.limit

    def report(self, *, now: bool = False) -> Ritz | None:
        S, residuals = self.subspace.S, self.subspace.residuals
        if S is None or residuals is None or (self.limit is not None and not now):
            return None
        return Ritz(S, residuals)

    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        del op
        subspace = self.subspace
        assert subspace.U is not None
        assert subspace.S is not None
        return subspace.U[:, :k], subspace.S[:k], subspace.V[:, :k]

    def retarget(self, k: int) -> None:
        self.k = k
        width = min(k + self.extra, self.subspace.V.shape[0])
        if width > self.width:
            self.subspace.widen(width, self.rng)
        self.finished = False

    def copy(self) -> SubspaceRun:
        twin = SubspaceRun.__new__(SubspaceRun)
        twin.__dict__.update(self.__dict__)
        twin.rng = deepcopy(self.rng)
        twin.subspace = self.subspace.copy()
        return twin
