"""Stopping rules, the same for every method.

A method reports Ritz values and estimated residuals. A `Stop` decides how many triplets are wanted,
and if they are accurate enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd._krylov.rayleigh_ritz import Ritz
from trsvd._plan.certificate import FAILURE_PROBABILITY


@dataclass(frozen=True)
class Verdict:
    """Decision to stop, and the number of triplets that are wanted or needed to continue."""

    done: bool
    k: int


class Stop(Protocol):
    """Protocol of stopping rules.

    ``judge(ritz, rank)`` gets Ritz values and residual norms in units of A, and min(m, n).
    ``missed(S, k, s)`` is True if a missed singular value ``s`` would belong to the k returned
    ones.
    """

    @property
    def tol(self) -> float:
        """Relative residual that the returned triplets must meet."""
        ...

    @property
    def aim(self) -> float:
        """Relative accuracy that a method should be able to reach."""
        ...

    @property
    def slack(self) -> float:
        """Largest excess of a missed value over the last one, relative to s_1."""
        ...

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Decide whether the wanted triplets are found."""
        ...

    def accepts(self, residuals: HostArray) -> bool:
        """True if residuals from products, relative to s_1, are small enough."""
        ...

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """True if ``s`` belongs to the k values and is not among them."""
        ...


def _good(S: HostArray, residuals: HostArray, k: int, tol: float) -> bool:
    return len(S) >= k and (k == 0 or bool((residuals[:k] <= tol * S[0]).all()))


class _WithTolerance:
    """Parts shared by the rules on residuals."""

    tol: float

    @property
    def aim(self) -> float:
        """Relative accuracy that a method should be able to reach."""
        return self.tol

    @property
    def slack(self) -> float:
        """Largest excess of a missed value over the last one, relative to s_1."""
        return max(self.tol, 1e-14)

    def accepts(self, residuals: HostArray) -> bool:
        """True if every residual is at most tol."""
        return bool((residuals <= self.tol).all())


@dataclass(frozen=True)
class Residual(_WithTolerance):
    """The k leading triplets, each with a residual of at most ``tol * s_1``."""

    k: int
    tol: float

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Decide whether the residuals of k triplets are small enough."""
        del rank
        return Verdict(_good(ritz.S, ritz.residuals, self.k, self.tol), self.k)

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """True if ``s`` is larger than the k-th value."""
        return bool(s > S[k - 1] + self.slack * S[0])


@dataclass(frozen=True)
class Values(_WithTolerance):
    """All leading triplets that a predicate on the singular values accepts.

    ``wanted`` maps the descending singular values to a boolean array of the same shape. Values
    after the first False are not wanted.
    """

    wanted: Callable[[HostArray], Any]
    tol: float

    def count(self, S: HostArray) -> int:
        """Return the number of leading values that are wanted."""
        mask = np.asarray(self.wanted(S))
        if mask.shape != S.shape or mask.dtype != np.bool_:
            raise ValueError(
                f"the predicate returned {mask.dtype} of shape {mask.shape} for {len(S)} singular "
                "values; it must return a boolean array of the same shape"
            )
        return len(S) if mask.all() else int(np.argmin(mask))

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Decide whether the wanted triplets are accurate, and the next one is not wanted."""
        S, residuals = ritz.S, ritz.residuals
        k = self.count(S)
        if k == len(S):
            if k < rank:
                return Verdict(False, k + 1)
            return Verdict(_good(S, residuals, k, self.tol), k)
        # Can a value above the threshold be hidden? A Ritz vector with residual r has a component
        # of at most r / d along singular vectors whose value is larger by d. Except with
        # probability 1e-3, a random start gives it a component of at least 1e-3 / sqrt(n).
        certain = FAILURE_PROBABILITY / math.sqrt(rank)
        raised = S.copy()
        raised[k] = S[k] + residuals[k] / certain
        if k:
            raised[k] = min(raised[k], S[k - 1])
        settled = residuals[k] <= min(self.tol, certain) * S[0] or self.count(raised) == k
        return Verdict(settled and _good(S, residuals, k, self.tol), k)

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """True if ``s`` is larger than the last value, or would be wanted among the others."""
        if k and s > S[k - 1] + self.slack * S[0]:
            return True
        lowered = s - self.slack * S.max(initial=s)
        if lowered <= 0:
            return False
        merged = np.sort(np.append(S[:k], lowered))[::-1]
        return self.count(merged) > k


@dataclass(frozen=True)
class Energy(_WithTolerance):
    """Smallest number of triplets with ``||A - A_k||_F <= eps ||A||_F``."""

    eps: float
    norm: float
    tol: float

    def count(self, S: HostArray, rank: int) -> int | None:
        """Return the smallest k, or None if the known values are not sufficient.

        If all values are known, the squares of the remainder are summed, beginning with the
        smallest, so that small remainders are accurate.
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
        """Decide whether accurate triplets capture enough of the norm."""
        S, residuals = ritz.S, ritz.residuals
        k = self.count(S, rank)
        if k is None:
            return Verdict(False, len(S) + 1)
        return Verdict(_good(S, residuals, k, self.tol), k)

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """True if ``s`` is larger than the last value: fewer triplets might suffice."""
        return k > 0 and bool(s > S[k - 1] + self.slack * S[0])


@dataclass(frozen=True)
class Gap:
    """The k leading pairs that attain ``s_1 + ... + s_k`` to a relative ``gap``.

    For orthonormal factors, the gap is the relative distance of ``-<G, U V^H>`` from the support
    function ``s_1 + ... + s_k``: the loss of an optimizer to first order. In digits, it decreases
    about twice as fast as the residuals, which this rule does not use.
    """

    k: int
    gap: float
    warm: bool = False
    tol: float = math.inf
    ceiling: float = math.inf

    @property
    def aim(self) -> float:
        """Relative accuracy that a method should be able to reach."""
        return self.gap

    @property
    def slack(self) -> float:
        """Largest excess of a missed value over the last one, relative to s_1."""
        return self.k * self.gap

    def estimate(self, ritz: Ritz) -> float:
        """Estimate the relative gap of the triplets that would be extracted now.

        A warm start, and values of a Krylov space from a single vector, can be converged without
        being leading. Ritz values after the k-th are therefore increased by twice their residuals.
        """
        k = min(self.k, len(ritz.S))
        # A near upper bound of the sum decides. The gap is not estimated below it.
        if 1 - float(ritz.S[:k].sum()) / self.ceiling <= self.gap:
            return self.gap
        beside = 0.0
        single = ritz.history is None or ritz.history[2] < k
        if (self.warm or single) and k < len(ritz.S) and ritz.S[0] > 0:
            S, grow = ritz.S[k:], 2 * ritz.residuals[k:]
            higher = S + grow if self.warm else np.sqrt(S) * np.sqrt(S + grow)
            hoped = np.concatenate([ritz.S[:k], higher])
            beside = 1 - float(ritz.S[:k].sum()) / float(-np.sort(-hoped)[:k].sum())
        # (Twice, since a space from a single vector may not contain some directions yet.)
        return (2 if single else 1) * max(self._trend(ritz), beside)

    def _trend(self, ritz: Ritz) -> float:
        """Estimate the gap from the growth of the sum of the values.

        After two expansions by a block of at least k vectors, the sums of the last four products
        follow from leading submatrices of the projected matrix. If gains decrease by a factor rho
        for each product, ``gain * rho / (1 - rho)`` remains; four times that is returned. The
        factor four is empirical, for flat and Gaussian spectra. Otherwise (for a narrow block,
        after a restart or one expansion) the sum of the residuals is returned, which is larger.
        """
        k = min(self.k, len(ritz.S))
        attained = float((ritz.S if ritz.latest is None else ritz.latest)[:k].sum())
        if attained == 0:
            return 0.0
        coarse = float(ritz.residuals[:k].sum()) / attained
        if ritz.history is None or ritz.history[2] < k:
            return coarse
        B, C, w = ritz.history
        j = len(B) - w
        corners = [B[:j, :j], B[:j, :], B, np.hstack([B, C.conj().T])]
        values = [np.linalg.svd(X, compute_uv=False) for X in corners]
        # Include the values after the k-th, which can still exceed it while they grow.
        # Also without the largest values: fast convergence of one hides slow convergence of others.
        left = max(
            _left(np.array([S[first:count].sum() for S in values]))
            for count in {k, min(k + 2, w)}
            for first in range(k)
        )
        return min(coarse, 4 * left / attained)

    def judge(self, ritz: Ritz, rank: int) -> Verdict:
        """Decide whether the estimated gap is at most the requested one."""
        del rank
        return Verdict(len(ritz.S) >= self.k and self.estimate(ritz) <= self.gap, self.k)

    def accepts(self, residuals: HostArray) -> bool:
        """Return True, since residuals are not requested."""
        del residuals
        return True

    def missed(self, S: HostArray, k: int, s: float) -> bool:
        """True if ``s``, in place of every smaller value, would add more than the gap."""
        return bool(np.maximum(s - S[:k], 0.0).sum() > self.gap * float(S[:k].sum()))


def _left(sums: HostArray) -> float:
    """Extrapolate the remaining gain of a growing sequence from its last three gains."""
    gains = [float(gain) for gain in np.maximum(np.diff(sums), 0.0)]
    if gains[2] == 0:
        return 0.0
    if not gains[2] < gains[1] < gains[0]:
        return math.inf
    rho = max(gains[1] / gains[0], gains[2] / gains[1])
    return gains[2] * rho / (1 - rho) if rho < 1 else math.inf
