"""Judgement of results: right, reported as not right, or silently wrong.

The judgement compares with the exact result. It uses the arrays that a caller gets, and the
reports of the solver on them. All comparisons are in double precision, after one scaling by a power
of two.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from reliability.cases import Truth
from trsvd._arrays.arrays import HostArray
from trsvd._oracles.result import LMOResult
from trsvd._solve.result import Completeness, SVDResult


class Outcome(enum.Enum):
    """Outcome of a case."""

    RIGHT = "right"
    SAYS = "says that it is not"
    CERTIFICATE = "within what the certificate leaves open"
    NAN = "NaN or inf, without a word"
    WRONG = "silently wrong"


@dataclass(frozen=True)
class Finding:
    """Outcome and its reason."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Standard:
    """Requirements on triplets that are reported as right.

    Parameters
    ----------
    tol : float
        Largest relative residual.
    eps : float
        Unit roundoff of the dtype of the computation.
    orthonormality : float
        Largest allowed entry of ``Q^H Q - I``.
    least : float
        Smallest positive number of the dtype.
    """

    tol: float
    eps: float
    orthonormality: float
    least: float

    @classmethod
    def promised(cls, dtype: Any, shape: tuple[int, int], tol: float | None = None) -> Standard:
        """Return trsvd's guarantee: its tolerance, and vectors orthonormal to rounding.

        The rounding error of an inner product of length max(m, n) is max(m, n) eps; computing the
        vectors takes two such sums.
        """
        info = np.finfo(dtype)
        eps = float(info.eps)
        tol = eps**0.75 if tol is None else tol
        return cls(tol, eps, 4 * max(*shape, 16) * eps, float(info.smallest_subnormal))

    @classmethod
    def half_of_the_digits(cls, dtype: Any, promised: float = 0.0) -> Standard:
        """Return a loose standard, far above rounding errors: half of the digits.

        If a peer promises a tolerance, in rounding units, and twice this is larger, that is used.
        """
        info = np.finfo(dtype)
        eps = float(info.eps)
        level = max(eps**0.5, 2 * promised * eps)
        return cls(level, eps, level, float(info.smallest_subnormal))


def value_bound(k: int, tol: float, shape: tuple[int, int], eps: float) -> float:
    """Return the largest error of k values with residuals of ``tol``, relative to s_1.

    By Kahan's theorem, k values agree with k exact ones to the norm of the residual blocks, which
    is at most ``sqrt(2 k) tol``. Rounding in LAPACK and in the products adds ``max(m, n) eps``.
    """
    return float((2 * k) ** 0.5 * tol + max(*shape, 16) * eps)


# ---- triplets -------------------------------------------------------------------------------


def judge_result(truth: Truth, result: SVDResult, host: Any, k: int, tol: float | None) -> Finding:
    """Judge a result of trsvd.

    A result that has not converged must still be consistent: orthonormal vectors, true residuals,
    and values that exceed the exact ones by no more than the residuals allow.

    Parameters
    ----------
    truth : Truth
        Truth about the matrix.
    result : SVDResult
        The result.
    host : callable
        Function that copies an array to the host.
    k : int
        Requested number of triplets.
    tol : float or None
        Requested tolerance.
    """
    U, S, Vh = (host(part) for part in result)
    standard = Standard.promised(U.dtype, truth.B.shape, tol)
    if not (np.isfinite(U).all() and np.isfinite(S).all() and np.isfinite(Vh).all()):
        return Finding(Outcome.NAN)
    answer = _Triplets.scaled(truth, U, S, Vh, standard)
    fault = answer.malformed(k) or answer.not_orthonormal() or answer.dishonest(result.residuals)
    if fault:
        return Finding(Outcome.WRONG, fault)
    if not result.converged:
        above = answer.above_the_truth()
        return Finding(Outcome.WRONG, above) if above else Finding(Outcome.SAYS, result.status.name)
    fault = answer.residual_fault()
    if fault:
        return Finding(Outcome.WRONG, fault)
    missed = answer.not_the_top()
    if not missed:
        return Finding(Outcome.RIGHT)
    if answer.is_covered(result.completeness):
        return Finding(Outcome.CERTIFICATE, f"{missed}; {result.completeness}")
    return Finding(Outcome.WRONG, f"{missed}; {result.completeness}")


def judge_triplets(
    truth: Truth, U: HostArray, S: HostArray, Vh: HostArray, k: int, standard: Standard
) -> Finding:
    """Judge triplets, in any order, that were returned without a warning.

    Parameters
    ----------
    truth : Truth
        Truth about the matrix.
    U, S, Vh : numpy.ndarray
        The triplets.
    k : int
        Requested number of triplets.
    standard : Standard
        Requirements on the triplets.
    """
    if not (np.isfinite(U).all() and np.isfinite(S).all() and np.isfinite(Vh).all()):
        return Finding(Outcome.NAN)
    if len(S) < k:
        return Finding(Outcome.SAYS, f"returns {len(S)} triplets of {k}")
    order = np.argsort(-S, kind="stable")
    answer = _Triplets.scaled(truth, U[:, order], S[order], Vh[order], standard)
    fault = (
        answer.malformed(k)
        or answer.not_orthonormal()
        or answer.residual_fault()
        or answer.not_the_top()
    )
    return Finding(Outcome.WRONG, fault) if fault else Finding(Outcome.RIGHT)


@dataclass(frozen=True)
class _Triplets:
    """Triplets in double precision, with the scale of the truth."""

    truth: Truth
    U: HostArray
    S: HostArray
    V: HostArray
    standard: Standard

    @classmethod
    def scaled(
        cls, truth: Truth, U: HostArray, S: HostArray, Vh: HostArray, standard: Standard
    ) -> _Triplets:
        wide = truth.B.dtype if truth.B.dtype.kind == "c" else np.promote_types(U.dtype, np.float64)
        return cls(
            truth,
            U.astype(wide),
            np.ldexp(S.astype(np.float64), -truth.exponent),
            Vh.astype(wide).conj().T,
            standard,
        )

    @property
    def unit(self) -> float:
        """Unit of relative errors: s_1, or 1 for a zero matrix."""
        return float(self.truth.s[0]) or 1.0

    @property
    def rounding(self) -> float:
        """Relative rounding error of products in the dtype, and of values stored in it."""
        m, n = self.truth.B.shape
        least = math.ldexp(self.standard.least, -self.truth.exponent)
        return float(2 * max(m + n, 32) * self.standard.eps + least * max(m, n) ** 0.5 / self.unit)

    @property
    def bound(self) -> float:
        """Bound of the relative errors of the values."""
        least = math.ldexp(self.standard.least, -self.truth.exponent) / self.unit
        return (
            value_bound(len(self.S), self.standard.tol, self.truth.B.shape, self.standard.eps)
            + least
        )

    @property
    def residuals(self) -> HostArray:
        left = np.linalg.norm(self.truth.B @ self.V - self.U * self.S, axis=0)
        right = np.linalg.norm(self.truth.B.conj().T @ self.U - self.V * self.S, axis=0)
        return np.maximum(left, right) / self.unit  # type: ignore[no-any-return]

    def malformed(self, k: int) -> str:
        m, n = self.truth.B.shape
        shapes = (self.U.shape, self.S.shape, self.V.shape)
        if shapes != ((m, k), (k,), (n, k)):
            return f"U, S, V of shapes {shapes} for k = {k}"
        level = self.standard.tol * self.unit  # peers return values such as -0.0
        descending = np.all(self.S[:-1] >= self.S[1:]) and np.all(-level <= self.S)
        return "" if descending else "values not descending, or negative"

    def not_orthonormal(self) -> str:
        loss = max(
            float(np.abs(Q.conj().T @ Q - np.eye(Q.shape[1])).max(initial=0.0))
            for Q in (self.U, self.V)
        )
        return f"vectors not orthonormal: {loss:.1e}" if loss > self.standard.orthonormality else ""

    def residual_fault(self) -> str:
        worst = float(self.residuals.max(initial=0.0))
        good = worst <= self.standard.tol + self.rounding
        return "" if good else f"a residual of {worst:.1e} s_1"

    def dishonest(self, claimed: HostArray) -> str:
        """Return a fault if the reported residuals differ from the true ones, else ""."""
        # Reported residuals are relative to the largest value found, which may be below s_1.
        largest = float(self.S[0]) if len(self.S) and self.S[0] > 0 else self.unit
        truly = self.residuals * self.unit / largest
        error = float(np.abs(truly - claimed).max(initial=0.0))
        allowed = self.rounding * self.unit / largest
        return "" if error <= allowed else f"reported residuals are off by {error:.1e}"

    def above_the_truth(self) -> str:
        """Return a fault if a value exceeds the exact one by more than residuals allow (Kahan)."""
        k, shape = len(self.S), self.truth.B.shape
        worst = float(self.residuals.max(initial=0.0))
        excess = float((self.S - self.truth.s[:k]).max(initial=0.0)) / self.unit
        good = excess <= value_bound(k, worst, shape, self.standard.eps) + self.rounding
        return "" if good else f"a value exceeds the exact one by {excess:.1e} s_1"

    def not_the_top(self) -> str:
        """Return a fault if these are not the k largest, by the values and by the remainder of A.

        By the Eckart-Young theorem, the remainder after rank k has at least norm s_{k+1}. With
        residuals of tol, the norm exceeds it by at most ``(1 + 2 sqrt(2)) sqrt(2 k) tol``, to first
        order.
        """
        k, s = len(self.S), self.truth.s
        error = float(np.abs(self.S - s[:k]).max(initial=0.0)) / self.unit
        if error > self.bound:
            return f"a value is off by {error:.1e} s_1"
        following = float(s[k]) if k < len(s) else 0.0
        rest = float(np.linalg.norm(self.truth.B - (self.U * self.S) @ self.V.conj().T, 2))
        over = (rest - following) / self.unit
        if over > 4 * self.bound + 4 * self.rounding:
            return f"A less the triplets exceeds s_{k + 1} by {over:.1e} s_1"
        return ""

    def is_covered(self, completeness: Completeness) -> bool:
        """True if the missed values are within the bound of the certificate."""
        if completeness.kind != "probable":
            return False
        k, s = len(self.S), self.truth.s
        bound = self.bound * self.unit
        limit = float(self.S[-1]) + completeness.slack * float(self.S[0])
        reach = (1 + completeness.eta) * limit + bound
        return bool(np.all(s[:k] <= np.maximum(self.S + bound, reach)))


# ---- updates of oracles ---------------------------------------------------------------------


def judge_update(
    truth: Truth, result: LMOResult, D: HostArray, k: int, asked: float | None
) -> Finding:
    """Judge an update of the oracle of the dual Ky Fan k-norm ball.

    It must lie in the ball. Its gap to the support function must be at most the reported gap, or
    the requested gap if that is larger.

    Parameters
    ----------
    truth : Truth
        Truth about G.
    result : LMOResult
        The result.
    D : numpy.ndarray of shape (m, n)
        Its update, on the host.
    k : int
        Parameter k of the norm; min(m, n) for the spectral ball.
    asked : float or None
        Requested gap.
    """
    if not np.isfinite(D).all():
        return Finding(Outcome.NAN)
    eps = float(np.finfo(D.dtype).eps)
    wide = D.astype(np.promote_types(D.dtype, np.float64))
    rounding = 8 * max(*D.shape, 16) * eps
    values = np.linalg.svd(wide, compute_uv=False)
    k = min(k, len(values))
    gauge = max(float(values[0]), float(values.sum()) / k)
    if gauge > 1 + rounding:
        return Finding(Outcome.WRONG, f"outside of the ball: gauge {gauge:.6g}")
    support = float(truth.s[:k].sum())
    attained = -float(np.vdot(truth.B, wide).real)
    gap = 1 - attained / support if support else 0.0
    said = max(result.gap, asked or 0.0)
    if gap > said + rounding:
        reason = f"a gap of {gap:.1e}, and {said:.1e} ({result.gap_kind}) is what it says"
        # An estimate is not a guarantee, but it was reported as the gap.
        if result.status.converged:
            return Finding(Outcome.WRONG, reason)
        return Finding(Outcome.SAYS, f"{result.status.name}: {reason}")
    if not result.status.converged:
        return Finding(Outcome.SAYS, result.status.name)
    return Finding(Outcome.RIGHT)
