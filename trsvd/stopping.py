"""When to stop: one vocabulary for every method.

A method reports Ritz values and residual estimates; a `Stop` says how many triplets are wanted and
whether they are good enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trsvd._arrays import HostArray
from trsvd._ritz import Ritz

__all__ = ["Energy", "Gap", "Residual", "Stop", "Values", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """Whether to stop, and with how many triplets (or how many are needed to go on)."""

    done: bool
    k: int


class Stop(Protocol):
    """A stopping rule.

    ``judge(ritz, rank)`` sees Ritz values and residual norms in the units of A, and min(m, n).
    ``missed(S, k, s)`` says whether a singular value ``s`` that was
    overlooked would have belonged to the k that were returned.
    """

    @property
    def tol(self) -> float:
        """Relative residual that the returned triplets must meet."""
        ...

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Whether the wanted triplets are there."""
        ...

    def accepts(self, residuals: HostArray) -> bool:
        """Whether residuals from products, relative to s_1, are good enough."""
        ...

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """Whether ``s`` should have been among the k found."""
        ...


def _good(S: HostArray, residuals: HostArray, k: int, tol: float) -> bool:
    return len(S) >= k and bool(np.all(residuals[:k] <= tol * S[0]) if k else True)


class _WithTolerance:
    """What the rules on residuals share."""

    tol: float

    def accepts(self, residuals: HostArray) -> bool:
        """Whether every residual is at most tol."""
        return bool(np.all(residuals <= self.tol))


@dataclass(frozen=True)
class Residual(_WithTolerance):
    """The k leading triplets, each with a residual of at most ``tol * s_1``."""

    k: int
    tol: float

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Whether k triplets are good enough."""
        del rank
        return Verdict(_good(ritz.S, ritz.residuals, self.k, self.tol), self.k)

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """Whether ``s`` is larger than the k-th."""
        return bool(s > S[k - 1] + max(self.tol, 1e-14) * S[0])


@dataclass(frozen=True)
class Values(_WithTolerance):
    """Every triplet that a predicate on the singular values wants.

    ``wanted`` maps the descending singular values to a boolean array of the same shape; what
    follows the first False is not wanted.
    """

    wanted: Callable[[HostArray], Any]
    tol: float

    def count(self, S: HostArray) -> int:
        """How many of the leading values are wanted."""
        mask = np.asarray(self.wanted(S))
        if mask.shape != S.shape or mask.dtype != np.bool_:
            msg = (
                f"the predicate returned {mask.dtype} of shape {mask.shape} for {len(S)} singular "
                "values; it must return a boolean array of the same shape"
            )
            raise ValueError(msg)
        return len(S) if mask.all() else int(np.argmin(mask))

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Whether the wanted ones are good and the next one is certainly not wanted."""
        S, residuals = ritz.S, ritz.residuals
        k = self.count(S)
        if k == len(S):
            if k < rank:
                return Verdict(False, k + 1)
            return Verdict(_good(S, residuals, k, self.tol), k)
        # The next Ritz value is a lower bound; at its upper end it must not be wanted either.
        raised = S.copy()
        raised[k] = min(S[k] + residuals[k], S[k - 1]) if k else S[k] + residuals[k]
        settled = residuals[k] <= self.tol * S[0] or self.count(raised) == k
        return Verdict(settled and _good(S, residuals, k, self.tol), k)

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """Whether ``s`` is larger than the last, or would be wanted among the others."""
        if k and s > S[k - 1] + max(self.tol, 1e-14) * S[0]:
            return True
        if s <= max(self.tol, 1e-14) * max(s, S[0] if len(S) else s):
            return False
        place = int(np.searchsorted(-S[:k], -s))
        merged = np.insert(S[:k], place, s * (1 - 10 * max(self.tol, 1e-15)))
        merged = np.sort(merged)[::-1]
        return self.count(merged) > k


@dataclass(frozen=True)
class Energy(_WithTolerance):
    """The fewest triplets that leave ``||A - A_k||_F <= eps ||A||_F``."""

    eps: float
    norm: float
    tol: float

    def count(self, S: HostArray, rank: int) -> int | None:
        """The smallest k, or None where the values at hand do not reach it.

        Where all values are known, what is left is summed from the small end: it keeps its digits
        however small it is.
        """
        if self.norm == 0 or S[0] == 0:
            return 0 if self.norm == 0 or len(S) == rank else None
        if len(S) == rank:
            tails = np.cumsum((S[::-1] / S[0]) ** 2)[::-1]
            left = np.append(tails[1:], 0.0) / tails[0]
        else:
            left = 1 - np.cumsum((S / self.norm) ** 2)
        enough = np.nonzero(left <= self.eps**2)[0]
        return int(enough[0]) + 1 if len(enough) else None

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Whether enough of the norm is captured by triplets that are good enough."""
        S, residuals = ritz.S, ritz.residuals
        k = self.count(S, rank)
        if k is None:
            return Verdict(False, len(S) + 1)
        return Verdict(_good(S, residuals, k, self.tol), k)

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """Whether ``s`` is larger than the last, so that fewer triplets might have done."""
        return k > 0 and bool(s > S[k - 1] + max(self.tol, 1e-14) * S[0])


@dataclass(frozen=True)
class Gap:
    """The k leading pairs, good enough for ``sum s_i`` to be attained to a relative ``gap``.

    For orthonormal factors ``-<G, U V^H>`` falls short of the support function ``s_1 + ... + s_k``
    by the gap: what an optimizer loses to first order. It goes down about twice as fast (in digits)
    as the residuals, which are not asked for here.
    """

    k: int
    gap: float
    tol: float = math.inf

    def estimate(self, ritz: Ritz) -> float:
        """The relative gap of what would be extracted now, from the Ritz values and their trend.

        With a block of at least k vectors: twice what the last product gained. Each product gains
        more than all that are to come, where the gain goes down at least twofold a product; on
        sequences of momentum buffers the gap was at most 1.3 times the last gain. With a narrower
        block, whose gains are no measure: the sum of the residuals.
        """
        k = min(self.k, len(ritz.S))
        if ritz.latest is not None and ritz.width >= min(self.k, len(ritz.S)):
            attained = float(ritz.latest[:k].sum())
            return 2 * (attained - float(ritz.S[:k].sum())) / attained if attained else 0.0
        attained = float(ritz.S[:k].sum())
        return float(ritz.residuals[:k].sum()) / attained if attained else 0.0

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Whether the estimated gap is at most the one asked for."""
        del rank
        return Verdict(len(ritz.S) >= self.k and self.estimate(ritz) <= self.gap, self.k)

    def accepts(self, residuals: HostArray) -> bool:
        """Always: residuals are not asked for."""
        del residuals
        return True

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """Whether ``s`` would add more than the gap."""
        return bool(s - S[k - 1] > self.gap * float(S[:k].sum()))
