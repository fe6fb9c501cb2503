"""Judges of answers by NumPy's LAPACK in double precision: every stop, every ball, every norm.

What a result claims is compared with the exact singular values and with products of the matrix in
double precision; nothing that the library computed is taken for the truth. `reliability.judge`
judges k leading triplets; the judges here add what the other stops claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import trsvd
from reliability.cases import Truth
from reliability.judge import Finding, Outcome, Standard, judge_result, value_bound

# ---- stops -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slack:
    """Errors of values that a converged result of k triplets may have, in units of s_1."""

    tol: float
    value: float
    rounding: float

    @classmethod
    def of(cls, truth: Truth, dtype: Any, k: int, tol: float | None) -> Slack:
        standard = Standard.promised(dtype, truth.B.shape, tol)
        least = math.ldexp(standard.least, -truth.exponent) / unit(truth)
        rounding = 2 * max(sum(truth.B.shape), 32) * standard.eps
        # A k-th value beside one that is looked for: k + 1 residuals of tol (Kahan).
        value = value_bound(k + 1, standard.tol, truth.B.shape, standard.eps) + least
        return cls(standard.tol, value, rounding + least * max(truth.B.shape) ** 0.5)


def unit(truth: Truth) -> float:
    return float(truth.s[0]) or 1.0


def judge_above(
    truth: Truth,
    result: trsvd.SVDResult,
    wanted: Callable[[np.ndarray], np.ndarray],
    tol: float | None,
    limit: int,
) -> Finding:
    """Judge an answer of `svds_above`.

    Converged: every value is wanted, and the next exact one is not, with room for what tolerance
    and certificate leave open. Stopped at max_k: more values are wanted, with the same room.

    Parameters
    ----------
    truth : Truth
        Of the matrix.
    result : SVDResult
        The answer.
    wanted : callable
        The rule, on descending values in units of the matrix.
    tol : float or None
        The tolerance that was asked for.
    limit : int
        Most triplets that were asked for.
    """
    S = np.ldexp(np.asarray(result.S, dtype=np.float64), -truth.exponent)
    k, s = len(S), truth.s
    found = judge_result(truth, result, np.asarray, k, tol)
    slack = Slack.of(truth, np.asarray(result.U).dtype, k, tol)
    if found.outcome in {Outcome.WRONG, Outcome.NAN}:
        return found
    if k > limit:
        return Finding(Outcome.WRONG, f"{k} triplets, at most {limit} asked for")

    doubt = (slack.tol + slack.value) * unit(truth)

    def count(values: np.ndarray) -> int:
        mask = wanted(np.ldexp(values, truth.exponent))
        return len(values) if mask.all() else int(np.argmin(mask))

    if result.status is trsvd.Status.MAX_K:
        # The certificate is about the leading max_k values. Of the next one it says nothing, and a
        # rule on sums wants more triplets where a copy of the last value is missed.
        around = [s, s + doubt, np.maximum(s - doubt, 0.0), np.append(s[:limit], 0.0)]
        around.append(np.minimum(s + doubt, s[0]))  # a rule relative to the first value
        most = max(count(values) for values in around)
        if k < limit or most <= limit:
            return Finding(Outcome.WRONG, f"says MAX_K with {k} of {limit} triplets, none follows")
    if not result.converged:
        return found
    # A threshold below the rounding level counts rounding errors too; and a value is rounded to its
    # dtype after it was compared.
    blur = (slack.rounding * unit(truth)) * np.ones(k)
    if all(count(values) < k for values in (S, S + blur, np.maximum(S - blur, 0.0))):
        return Finding(Outcome.WRONG, f"returns values that are not wanted: {result.S}")
    if k == len(s):
        return found
    last = float(S[-1]) if k else math.inf

    def is_wanted(following: float) -> bool:
        around = np.clip([following - doubt, following, following + doubt], 0.0, last)
        return all(count(np.append(S, value)) > k for value in around)

    if not is_wanted(s[k]):
        return found
    eta = result.completeness.eta if result.completeness.kind == "probable" else 0.0
    said = f"s_{k + 1} = {s[k] / unit(truth):.6g} s_1 is wanted and missed; {result.completeness}"
    if not is_wanted(s[k] / (1 + eta)):
        return Finding(Outcome.CERTIFICATE, said)
    return Finding(Outcome.WRONG, said)


def judge_energy(
    truth: Truth, result: trsvd.SVDResult, error: float, tol: float | None, limit: int
) -> Finding:
    """Judge an answer of `svds_to_tolerance`.

    Converged: the triplets leave at most the error that was asked for, and with fewer of the exact
    triplets more would be left. Stopped at max_k: so many exact triplets leave more.

    Parameters
    ----------
    truth, result, tol, limit
        As for `judge_above`.
    error : float
        The relative error in the Frobenius norm that was asked for.
    """
    U, S, Vh = (np.asarray(part, dtype=truth.B.dtype) for part in result)
    S = np.ldexp(np.asarray(result.S, dtype=np.float64), -truth.exponent)
    k, s = len(S), truth.s
    found = judge_result(truth, result, np.asarray, k, tol)
    if found.outcome in {Outcome.WRONG, Outcome.NAN}:
        return found
    slack = Slack.of(truth, np.asarray(result.U).dtype, k, tol)
    norm = float(np.linalg.norm(s)) or 1.0
    # Relative squares: a sum of k squares of values is known to 2 s_1 times the sum of their
    # errors, which is at most sqrt(k) times the norm of the residual blocks.
    doubt = slack.rounding + 2 * math.sqrt(max(k, 1)) * slack.value * (unit(truth) / norm) ** 2
    left = np.append(np.cumsum((s[::-1] / norm) ** 2)[::-1], 0.0)  # by how many are taken
    if result.status is trsvd.Status.MAX_K and (k < limit or left[limit] <= error**2 - doubt):
        return Finding(Outcome.WRONG, f"says MAX_K with {k} of {limit} triplets, which suffice")
    if not result.converged:
        return found
    rest = (np.linalg.norm(truth.B - (U * S) @ Vh) / norm) ** 2
    if rest > error**2 + doubt:
        return Finding(Outcome.WRONG, f"leaves {rest**0.5:.3e} where {error:.3e} was asked for")
    if k and left[k - 1] <= error**2 - doubt:
        said = f"{k} triplets where {int(np.argmax(left <= error**2 - doubt))} would do"
        if found.outcome is not Outcome.CERTIFICATE:
            return Finding(Outcome.WRONG, f"{said}; {result.completeness}")
    return found


# ---- norms -----------------------------------------------------------------------------------


def _p_norm(s: np.ndarray, p: float) -> float:
    largest = float(s.max())
    return largest * float(np.sum((s / (largest or 1.0)) ** p) ** (1 / p))


def _length(X: np.ndarray, axis: int | None) -> np.ndarray:
    """2-norms in extended precision, whose range holds the squares of denormal numbers."""
    wide = np.abs(X.real.astype(np.longdouble)) ** 2 + np.abs(X.imag.astype(np.longdouble)) ** 2
    return np.sqrt(wide.sum(axis=axis))


def _modulus(X: np.ndarray) -> np.ndarray:
    return _length(X[..., None], -1)


# A function of (X, s, k) for each norm, s the singular values of X.
NORMS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "kyfan": lambda X, s, k: float(s[:k].sum()),
    "kyfan_dual": lambda X, s, k: max(float(s[0]), float(s.sum()) / min(k, len(s))),
    "spectral": lambda X, s, k: float(s[0]),
    "nuclear": lambda X, s, k: float(s.sum()),
    "rms": lambda X, s, k: (X.shape[1] / X.shape[0]) ** 0.5 * float(s[0]),
    "rms dual": lambda X, s, k: (X.shape[0] / X.shape[1]) ** 0.5 * float(s.sum()),
    "schatten 1.5": lambda X, s, k: _p_norm(s, 1.5),
    "schatten 3": lambda X, s, k: _p_norm(s, 3.0),
    "frobenius": lambda X, s, k: float(_length(X, None)),
    "max": lambda X, s, k: float(_modulus(X).max()),
    "sum": lambda X, s, k: float(_modulus(X).sum()),
    "max_column": lambda X, s, k: float(_length(X, 0).max()),
    "column sum": lambda X, s, k: float(_length(X, 0).sum()),
    "max_row": lambda X, s, k: float(_length(X, 1).max()),
    "row sum": lambda X, s, k: float(_length(X, 1).sum()),
}
# Balls by name: how they are made, and the names of their gauge and support function.
BALLS: dict[str, tuple[Callable[[int], trsvd.balls.Ball], str, str]] = {
    "nuclear": (lambda k: trsvd.NuclearBall(), "nuclear", "spectral"),
    "ky-fan-dual": (trsvd.KyFanDualBall, "kyfan_dual", "kyfan"),
    "ky-fan": (trsvd.KyFanBall, "kyfan", "kyfan_dual"),
    "spectral": (lambda k: trsvd.SpectralBall(), "spectral", "nuclear"),
    "rms": (lambda k: trsvd.RMSBall(), "rms", "rms dual"),
    "schatten 1.5": (lambda k: trsvd.SchattenBall(1.5), "schatten 1.5", "schatten 3"),
    "schatten 3": (lambda k: trsvd.SchattenBall(3.0), "schatten 3", "schatten 1.5"),
    "frobenius": (lambda k: trsvd.FrobeniusBall(), "frobenius", "frobenius"),
    "max": (lambda k: trsvd.MaxBall(), "max", "sum"),
    "column": (lambda k: trsvd.ColumnBall(), "max_column", "column sum"),
    "row": (lambda k: trsvd.RowBall(), "max_row", "row sum"),
}
OF_ENTRIES = {"frobenius", "max", "column", "row"}


def judge_norm(truth: Truth, name: str, value: float, k: int, dtype: Any) -> Finding:
    """Judge a bare number: it comes without a certificate and has no errors but rounding.

    k values within the default tolerance of exact ones differ in their sum by ``sqrt(k)`` times
    the norm of the residual blocks (Kahan).

    Parameters
    ----------
    truth : Truth
        Of the matrix.
    name : str
        One of `NORMS`.
    value : float
        The number, in units of the matrix.
    k : int
        Of a Ky Fan norm.
    dtype : dtype
        Of the matrix.
    """
    if not math.isfinite(value):
        return Finding(Outcome.NAN, f"{name} norm {value}")
    right = NORMS[name](truth.B, truth.s, k)
    taken = k if "kyfan" in name else 1
    slack = Slack.of(truth, dtype, taken, None)
    allowed = math.sqrt(taken) * slack.value * unit(truth) + slack.rounding * right
    error = abs(math.ldexp(value, -truth.exponent) - right)
    if error <= allowed:
        return Finding(Outcome.RIGHT)
    return Finding(Outcome.WRONG, f"{name} norm off by {error / (right or 1):.1e} of itself")


# ---- oracles ---------------------------------------------------------------------------------


def judge_ball(
    truth: Truth, result: trsvd.LMOResult, name: str, k: int, asked: float | None
) -> Finding:
    """Judge an update: in the ball, and no farther from the minimum than its gap says.

    An estimate may be exceeded up to the gap that was asked for, any other gap by rounding alone.

    Parameters
    ----------
    truth : Truth
        Of the matrix.
    result : LMOResult
        The answer.
    name : str
        One of `BALLS`.
    k : int
        Of a Ky Fan ball.
    asked : float or None
        The gap that was asked for.
    """
    D = np.asarray(result.update)
    if not np.isfinite(D).all():
        return Finding(Outcome.NAN, f"update with gap {result.gap} ({result.gap_kind})")
    _, gauge, support = BALLS[name]
    wide = D.astype(np.promote_types(D.dtype, np.float64))
    rounding = 8 * max(*D.shape, 16) * float(np.finfo(D.dtype).eps)
    size = NORMS[gauge](wide, np.linalg.svd(wide, compute_uv=False), k)
    if size > 1 + rounding:
        return Finding(Outcome.WRONG, f"outside of the ball: gauge {size:.6g}")
    largest = NORMS[support](truth.B, truth.s, k)
    gap = 1 + float(np.vdot(truth.B, wide).real) / largest if largest else 0.0
    said, kind = result.gap, result.gap_kind
    if not result.status.converged:
        return Finding(Outcome.SAYS, result.status.name)
    if gap > max(said, asked or 0.0 if kind == "estimate" else 0.0) + rounding:
        return Finding(Outcome.WRONG, f"a gap of {gap:.1e}, and {said:.1e} ({kind}) is said")
    if asked is not None and said > asked:
        return Finding(Outcome.WRONG, f"says a gap of {said:.1e}, {asked:.1e} asked for, CONVERGED")
    return Finding(Outcome.RIGHT)
