"""The k leading singular pairs, as good as an oracle needs them, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trsvd._arrays import Array, Arrays, HostArray
from trsvd._drive import Request, solve
from trsvd._errors import Status
from trsvd._problem import Problem
from trsvd._validate import check_k, check_tol, named_method
from trsvd.methods import BlockKrylov, Direct, Method
from trsvd.result import SVDResult
from trsvd.stopping import Gap, Residual

__all__ = ["LeadingPairs", "leading_pairs", "water_filling"]


@dataclass(frozen=True)
class LeadingPairs:
    """Pairs ``U, Vh`` whose partial isometry ``U Vh`` nearly attains ``s_1 + ... + s_k``.

    Attributes
    ----------
    U, S, Vh : arrays of shape (m, q), (q,), (q, n)
        q <= k: pairs with a singular value that is zero to rounding are left out.
    attained : float
        ``Re <G, U Vh>``.
    gap : float
        Relative distance of ``attained`` to the Ky Fan k-norm.
    gap_kind : str
        ``"exact"``, ``"bound"`` or ``"estimate"``.
    matvecs, passes : int
        Products with G or G^H, in vectors and in blocks, those of checks included.
    status : Status
        How the computation ended.
    arrays : Arrays
        What G lives in.
    """

    U: Array
    S: HostArray
    Vh: Array
    attained: float
    gap: float
    gap_kind: str
    matvecs: int
    passes: int
    status: Status
    arrays: Arrays


# Random columns beside the block: they meet what a warm start does not contain.
_OVERSAMPLING = 4
_EXACT_UP_TO = 64


def leading_pairs(
    G: Any,
    k: int,
    *,
    gap: float | None,
    tol: float | None,
    start: Any,
    method: str | Method | None,
    rng: Any,
    certify: bool,
) -> LeadingPairs:
    """The k leading pairs of G, to a residual ``tol`` or to a relative ``gap``.

    With ``certify`` the gap is a bound, or exact where the bound is not good enough.
    """
    problem = Problem(G, rng, None, in_compute_dtype=True)
    k = check_k(k, problem.rank)
    if gap is None:
        stop: Gap | Residual = Residual(k, check_tol(tol, problem.eps))
        chosen = problem.method_for(method, k, stop.tol, None)
    else:
        stop = Gap(k, gap, warm=start is not None)
        chosen = _method_for_gap(method, problem.rank, k)
    result = solve(problem, chosen, stop, Request(start, None, None, "return", gap is None), k, k)
    pairs = _described(problem, result, stop)
    if not certify or pairs.gap_kind == "exact":
        return pairs
    bounded = _bounded(problem, result, pairs)
    if bounded is not None and gap is not None and bounded.gap <= gap:
        return bounded
    exact = _exact(G, k, rng)
    return replace(exact, matvecs=pairs.matvecs + exact.matvecs, passes=pairs.passes + exact.passes)


def _method_for_gap(method: str | Method | None, rank: int, k: int) -> Method:
    if method is not None:
        return named_method(method)
    if rank <= _EXACT_UP_TO or 4 * k >= rank:
        return Direct()
    return BlockKrylov(oversampling=_OVERSAMPLING)


def _exact(G: Any, k: int, rng: Any) -> LeadingPairs:
    problem = Problem(G, rng, None, in_compute_dtype=True)
    stop = Residual(k, check_tol(None, problem.eps))
    result = solve(problem, Direct(), stop, Request(None, None, None, "return", False), k, k)
    return _described(problem, result, stop)


def _described(problem: Problem, result: SVDResult, stop: Gap | Residual) -> LeadingPairs:
    """The pairs of a result, without those of zero singular values, and their gap."""
    arrays, (m, n) = problem.arrays, problem.shape
    S = arrays.get(result.S).astype(np.float64)
    q = int(np.sum(max(m, n) * problem.eps * S[0] < S))
    attained = float(S[:q].sum())
    # Rounding alone moves the attained value by about this much.
    rounding = 100 * problem.eps
    if result.state.run.exact:
        kind, gap = "exact", rounding
    elif isinstance(stop, Gap):
        ritz = result.state.run.report(now=True)
        kind, gap = "estimate", max(stop.estimate(ritz), rounding)
    else:
        # Each singular value is within its residual of the Ritz value.
        kind = "estimate"
        gap = float(result.residuals.sum()) * S[0] / attained + rounding if attained else 0.0
    return LeadingPairs(
        result.U[:, :q],
        S[:q],
        result.Vh[:q, :],
        attained,
        gap,
        kind,
        result.matvecs + result.matvecs_verify,
        result.passes,
        result.status,
        problem.user_op.arrays,
    )


def _bounded(problem: Problem, result: SVDResult, pairs: LeadingPairs) -> LeadingPairs | None:
    """The pairs with a gap that the Frobenius norm of the remainder proves; None without norm."""
    norm = problem.op.frobenius_norm()
    ritz = result.state.run.report(now=True)
    if norm is None or ritz is None or ritz.latest is None:
        return None
    k = int(result.S.shape[0])
    values = ritz.latest
    rest = norm**2 - float(np.sum(values**2)) + 100 * problem.eps * norm**2
    bound = water_filling(values[:k], max(rest, 0.0)) * problem.unit
    gap = 1 - pairs.attained / bound if bound else 0.0
    gap += 100 * problem.eps
    return replace(pairs, gap=gap, gap_kind="bound")


def water_filling(S: HostArray, rest: float) -> float:
    """``max sum_i sqrt(s_i^2 + q_i)`` over ``q >= 0`` with ``sum q = rest``.

    What the k leading singular values can add up to, when a projection of the matrix has the
    values S and the square of the Frobenius norm of what it leaves is ``rest``. The maximum raises
    the smallest values to a common level.

    Parameters
    ----------
    S : array of shape (k,)
        Descending.
    rest : float
        At least 0.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> water_filling(np.array([3.0, 0.0]), 4.0)  # the second one rises to 2
    5.0
    """
    squares = np.asarray(S, dtype=np.float64)[::-1] ** 2
    k = len(squares)
    # Raising the j smallest to one level costs j * level - (their sum).
    sums = np.cumsum(squares)
    for j in range(1, k + 1):
        level = (sums[j - 1] + rest) / j
        if j == k or level <= squares[j]:
            return float(j * np.sqrt(level) + np.sqrt(squares[j:]).sum())
    return 0.0
