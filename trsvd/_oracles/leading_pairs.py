"""The k leading singular pairs, as good as an oracle needs them, and how good they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._errors import Status
from trsvd._krylov.stopping import Gap, Residual
from trsvd._oracles.bounds import FAILURE, probable_bound
from trsvd._oracles.warm_start import GUARDS, Step, looked, track, water_filling
from trsvd._solve.driver import GaveWay, Request, solve
from trsvd._solve.problem import Problem
from trsvd._solve.result import Subspace, SVDResult, Track
from trsvd._solve.select import compiled_lanczos, named_method, suits_direct
from trsvd._validate import check_k, check_tol
from trsvd.methods import BlockKrylov, Direct, Method, ThickRestartLanczos


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
        ``"exact"``, ``"bound"``, ``"probable"`` or ``"estimate"``.
    matvecs, passes : int
        Products with G or G^H, in vectors and in blocks, those of checks included.
    status : Status
        How the computation ended.
    arrays : Arrays
        What G lives in.
    subspace : Subspace
        To start from next time.
    failure_probability : float
        Of a probable gap.
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
    subspace: Subspace
    failure_probability: float = 0.0


# Without gap=, missed values above (1 + _ETA) s_k are found, except with probability 1e-3.
_ETA = 1e-2
# Columns beyond k of a block from scratch: they meet what a warm start does not contain.
_OVERSAMPLING = 4
EXACT_UP_TO = 64
# Above, residuals say enough of a gap; below, that it goes down as their squares is worth more.
_LOOSE = 1e-4
_TIGHT = 1e-2
_SHARE = 0.3


def leading_pairs(
    G: Any,
    k: int,
    *,
    gap: float | None,
    tol: float | None,
    start: Any,
    method: str | Method | None,
    rng: Any,
    certify: bool | str,
) -> LeadingPairs:
    """The k leading pairs of G, to a residual ``tol`` or to a relative ``gap``.

    With ``certify`` the gap is a bound, or exact where the bound is not good enough; with
    ``"probable"`` it may also be a bound that holds but with a stated probability.
    """
    problem = Problem(G, rng, None, in_compute_dtype=True)
    k = check_k(k, problem.rank)
    flat = 0
    if gap is None:
        stop: Gap | Residual = Residual(k, check_tol(tol, problem.eps))
        chosen = problem.method_for(method, k, stop.tol, None)
        # With verify=True the gap would be about a tenth: the check leaves that much open.
        verify: bool | float = _ETA if k > 1 else True
        result = solve(problem, chosen, stop, Request(start, None, None, "return", verify), k, k)
    elif method is not None:
        chosen, stop = named_method(method), Gap(k, gap, warm=start is not None)
        request = Request(start, None, None, "return", isinstance(chosen, ThickRestartLanczos))
        # Random columns beside the start: it may be converged and not leading.
        aim = k if start is None else min(max(k, _width(start)) + GUARDS, problem.rank)
        result = solve(problem, chosen, stop, request, aim, k)
    else:
        step = None
        if isinstance(start, Subspace):
            flat = start.track.flat if start.track is not None else 0
            if not _waits(flat):
                with problem.arrays.as_asked():
                    step = track(problem, start, k, gap)
        if step is not None and step.gap is not None:
            pairs = _stepped(problem, step, k)
            return _certified(problem, pairs, step.S, k, gap, certify)
        result, stop, flat = _anew(problem, start, step, k, gap, flat)
    pairs = _described(problem, result, stop, flat)
    if gap is not None and result.state.run.lost > 0.5 * gap:  # too much for a sum of values
        pairs = _after(pairs, _exact(problem, k))
    ritz = result.state.run.report(now=True) if certify else None
    values = None if ritz is None else ritz.latest
    return _certified(problem, pairs, values, k, gap, certify)


def _waits(flat: int) -> bool:
    """True if a dense factorization is made at once, without trying a warm step.

    A spectrum that was flat is likely to be so in the next step: tried again after 1, 3, 7, ...
    """
    return flat == 1 or flat & (flat - 1) != 0


def _anew(
    problem: Problem, start: Any, step: Step | None, k: int, gap: float, flat: int
) -> tuple[SVDResult, Gap, int]:
    """The pairs without a warm step, or after one that failed; and what becomes of ``flat``."""
    share, ceiling, tried = _SHARE, math.inf, step is not None or flat > 0
    if step is not None:
        start = _subspace(problem, step.U, step.V, None)
        share, ceiling = 0.8 * _SHARE, step.ceiling * problem.unit
    chosen = Direct() if _waits(flat) else _method_for_gap(problem, k, gap, start, share)
    stop = Gap(k, gap, warm=start is not None, ceiling=ceiling)
    single = isinstance(chosen, ThickRestartLanczos)
    if single:
        # From one vector, values of a plateau come up one after the other: what has not come
        # up while the aim is loose leaves no trace. (And rounding in squares takes its share.)
        stop = Gap(k, 0.5 * min(gap, _TIGHT), warm=False)
    aim = min(k + GUARDS, problem.rank)
    # A Krylov space that has not got there for three tenths of the products of a dense
    # factorization gives way to it.
    limited, most = suits_direct(problem.user_op), None
    if limited and isinstance(chosen, BlockKrylov):
        least = 4 * (max(aim, _width(start)) + chosen.oversampling)
        most = problem.op.matvecs + max(int(_SHARE * problem.rank), least)
    # A block as wide as the pairs meets all copies of a multiple value; Lanczos may not.
    request = Request(start, most, None, "return", single, gives_way=limited)
    try:
        result = solve(problem, chosen, stop, request, aim, k)
    except GaveWay:
        chosen = Direct()
        result = solve(problem, chosen, stop, Request(None, None, None, "return", False), aim, k)
    return result, stop, flat + 1 if tried and isinstance(chosen, Direct) else 0


def _certified(
    problem: Problem,
    pairs: LeadingPairs,
    values: HostArray | None,
    k: int,
    gap: float | None,
    certify: bool | str,
) -> LeadingPairs:
    """The pairs with a gap that is proven: by an upper bound of the norm, or by the spectrum.

    ``values`` are those of a projection that has the pairs, where one is known.
    """
    if not certify or pairs.gap_kind == "exact":
        return pairs
    bound = None if values is None else _raised(problem, values, k)
    open_by_rounding = _rounding(problem, pairs.attained / problem.unit, k)
    proven = _gap_below(pairs, bound) + open_by_rounding
    if gap is not None and proven <= gap:
        return replace(pairs, gap=proven, gap_kind="bound")
    if certify == "probable" and pairs.U.shape[1] == k:
        X, Y = pairs.subspace.U[:, :k], problem.arrays.adjoint(pairs.subspace.Vh[:k, :])
        U, V = (Y, X) if problem.flipped else (X, Y)
        enough = pairs.attained / (1 - gap) / problem.unit if gap else 0.0
        bound = probable_bound(problem.op, U, V, enough, problem.rng)
        bound = None if bound is None else bound * problem.unit
        proven = _gap_below(pairs, bound) + open_by_rounding
        pairs = replace(pairs, matvecs=_all_products(problem), passes=problem.op.passes)
        if proven <= (gap or 1):
            return replace(pairs, gap=proven, gap_kind="probable", failure_probability=FAILURE)
    return _after(pairs, _exact(problem, k))


def _after(first: LeadingPairs, then: LeadingPairs) -> LeadingPairs:
    """Return the second result with the products of both and the subspace of the first."""
    return replace(
        then,
        matvecs=first.matvecs + then.matvecs,
        passes=first.passes + then.passes,
        subspace=first.subspace,
    )


def _gap_below(pairs: LeadingPairs, bound: float | None) -> float:
    """The relative gap where the norm is at most ``bound``; inf without one."""
    if bound is None:
        return math.inf
    return 1 - pairs.attained / bound if bound else 0.0


def _method_for_gap(problem: Problem, k: int, gap: float, start: Any, share: float) -> Method:
    rank = problem.rank
    if start is None and gap >= _LOOSE and suits_direct(problem.user_op):
        compiled = compiled_lanczos(problem.user_op, k, gap, 0.25)
        if compiled is not None:
            return compiled
    # Two expansions by a block are the least that an estimate can be made of.
    too_wide = 4 * (k + _OVERSAMPLING) > share * rank and suits_direct(problem.user_op)
    if rank <= EXACT_UP_TO or 4 * k >= rank or too_wide:
        return Direct()
    return BlockKrylov(oversampling=_OVERSAMPLING - GUARDS)


def _width(start: Any) -> int:
    """Number of columns of a start, whatever it is."""
    block = start.U if isinstance(start, (Subspace, SVDResult)) else start
    shape: tuple[int, ...] = tuple(getattr(block, "shape", ()))
    return int(shape[1]) if len(shape) == 2 else 1


def _exact(given: Problem, k: int) -> LeadingPairs:
    problem = Problem(given.user_op, given.rng, None, in_compute_dtype=True)
    stop = Residual(k, check_tol(None, problem.eps))
    result = solve(problem, Direct(), stop, Request(None, None, None, "return", False), k, k)
    return _described(problem, result, stop)


def _described(
    problem: Problem, result: SVDResult, stop: Gap | Residual, flat: int = 0
) -> LeadingPairs:
    """The pairs of a result, without those of zero singular values, and their gap."""
    S = np.asarray(result.S, dtype=np.float64)  # as the operator is scaled
    q = _numerical_rank(problem, S)
    attained = float(S[:q].sum())
    # Values that count as zero are left out of the pairs, and not of the gap.
    dropped = float(S[q:].sum()) / float(S.sum()) if S[0] > 0 else 0.0
    rounding = _rounding(problem, attained, q) + dropped
    run, subspace = result.state.run, Subspace(result.U, result.Vh)
    if run.exact:
        kind, gap = "exact", rounding + run.lost
    elif isinstance(stop, Gap):
        estimate = stop.estimate(run.report(now=True).times(problem.unit))
        kind, gap = "estimate", max(estimate, rounding) + run.lost
    else:
        # Each singular value is within its residual of the Ritz value.
        kind = "estimate"
        gap = float(result.residuals.sum()) * S[0] / attained + rounding if attained else 0.0
        # Add the gain of a missed value as large as the check allows.
        known = result.completeness
        if known.kind == "probable" and attained:
            open_up_to = (1 + known.eta) * (S[-1] + known.slack * S[0])
            gap += float(np.maximum(open_up_to - S, 0.0).sum()) / attained
    if isinstance(stop, Gap):
        norm, k = problem.op.frobenius_norm(), stop.k
        U, values, V = run.extract(problem.op, min(k + GUARDS, run.available))
        # Without the norm nothing would tell whether the next matrix is near.
        trail = None
        if norm is not None:
            trail = looked(k, values, norm, flat)
        subspace = _subspace(problem, U, V, trail)
    S = _in_units(S, problem.unit)
    return LeadingPairs(
        result.U[:, :q],
        S[:q],
        result.Vh[:q, :],
        float(S[:q].sum()),
        gap,
        kind,
        _all_products(problem),
        result.passes,
        result.status,
        problem.user_op.arrays,
        subspace,
    )


def _stepped(problem: Problem, step: Step, k: int) -> LeadingPairs:
    """The pairs of a warm step."""
    assert step.gap is not None
    S = step.S[:k]
    q = _numerical_rank(problem, S)
    dropped = float(S[q:].sum()) / float(S.sum())
    S = _in_units(S, problem.unit)
    subspace = _subspace(problem, step.U, step.V, step.track)
    return LeadingPairs(
        subspace.U[:, :q],
        S[:q],
        subspace.Vh[:q, :],
        float(S[:q].sum()),
        max(step.gap, _rounding(problem, float(step.S[:q].sum()), q)) + dropped,
        "estimate",
        _all_products(problem),
        problem.op.passes,
        Status.CONVERGED,
        problem.user_op.arrays,
        subspace,
    )


def _subspace(problem: Problem, U: Array, V: Array, trail: Track | None) -> Subspace:
    """Vectors of the problem's operator as those of the user's matrix."""
    if problem.flipped:
        U, V = V, U
    return Subspace(U, problem.arrays.adjoint(V), trail)


def _numerical_rank(problem: Problem, S: HostArray) -> int:
    """Return the number of singular values above the rounding level."""
    return int(np.count_nonzero(max(problem.shape) * problem.eps * S[0] < S))


def _all_products(problem: Problem) -> int:
    return int(problem.op.matvecs + problem.op.matvecs_verify)


def _in_units(S: HostArray, unit: float) -> HostArray:
    """Values of G itself; inf where float64 has no room for them."""
    with np.errstate(over="ignore"):
        return S * unit


def rounding_of(arrays: Arrays) -> float:
    """About what rounding alone moves an attained value by, relative.

    Parameters
    ----------
    arrays : Arrays
        What the value was computed in.

    Returns
    -------
    float
    """
    return 100 * arrays.eps


def _rounding(problem: Problem, attained: float, k: int) -> float:
    """Return the part of a relative gap that rounding leaves open, that of products included.

    Each of the k singular values, and what each pair attains, is known to the noise of products.
    """
    noise = 2 * k * problem.op.noise / attained if attained else 0.0
    return rounding_of(problem.arrays) + noise


def _raised(problem: Problem, values: HostArray, k: int) -> float | None:
    """Bound the sum of the k leading values by a projection and the norm of its remainder."""
    norm = problem.op.frobenius_norm()
    if norm is None:
        return None
    rest = norm**2 - float(np.sum(values**2)) + 100 * problem.eps * norm**2
    return water_filling(values[:k], max(rest, 0.0)) * problem.unit
