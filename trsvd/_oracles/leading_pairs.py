"""The k leading singular pairs to the gap of an oracle, with the gap that was reached."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._errors import Status
from trsvd._krylov.stopping import Gap, Residual
from trsvd._oracles.bounds import FAILURE, probable_bound
from trsvd._oracles.options import Options
from trsvd._oracles.warm_start import GUARDS, Step, looked, track, water_filling
from trsvd._solve.driver import GaveWay, Request, solve
from trsvd._solve.problem import Problem
from trsvd._solve.result import Completeness, Subspace, SVDResult, Track
from trsvd._solve.select import compiled_lanczos, named_method, suits_direct
from trsvd._solve.small import Found, small_triplets
from trsvd._validate import check_k, check_tol
from trsvd.methods import BlockKrylov, Direct, Method, ThickRestartLanczos


@dataclass(frozen=True)
class LeadingPairs:
    """Pairs ``U, Vh`` whose partial isometry ``U Vh`` nearly attains ``s_1 + ... + s_k``.

    Attributes
    ----------
    U, S, Vh : arrays of shape (m, q), (q,), (q, n)
        Pairs with nonzero singular values, q <= k; values at the rounding level count as zero.
    attained : float
        ``Re <G, U Vh>``.
    gap : float
        Relative distance of ``attained`` to the Ky Fan k-norm.
    gap_kind : str
        ``"exact"``, ``"bound"``, ``"probable"`` or ``"estimate"``.
    matvecs, passes : int
        Products with G or G^H, counted in vectors and in blocks, including checks.
    status : Status
        Reason for the end of the computation.
    arrays : Arrays
        Array library of G.
    subspace : Subspace
        Start of the next call.
    failure_probability : float
        Probability that a probable gap does not hold.
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
# Additional random columns of a block: they find directions that a warm start does not contain.
_OVERSAMPLING = 4
EXACT_UP_TO = 64
# Above this gap residuals are used; below, the gap is estimated as quadratic in the residuals.
_LOOSE = 1e-4
_TIGHT = 1e-2
_SHARE = 0.3


def leading_pairs(G: Any, k: int, options: Options) -> LeadingPairs:
    """Return the k leading pairs of G, to a residual ``tol`` or to a relative ``gap``.

    With ``certify`` the gap is a bound, or exact if the bound is not sufficient. With
    ``"probable"`` it may also be a bound that holds except with a stated probability.
    """
    method: Any = options.method
    gap, tol, start = options.gap, options.tol, options.start
    certify, time_limit = options.certify, options.time_limit
    if options.for_one_call and fits_start(start, G):
        stop_at, how = one_call(k, gap, tol)
        found = small_triplets(G, k, stop_at, options.rng, **how)
        pairs = pairs_of_small(found, k, gap) if isinstance(found, Found) else None
        if pairs is not None and (gap is None or pairs.gap <= gap):
            return pairs
    problem = Problem(G, options.rng, None, in_compute_dtype=True)
    k = check_k(k, problem.rank)
    flat = 0
    if gap is None:
        stop: Gap | Residual = Residual(k, check_tol(tol, problem.eps))
        chosen = problem.method_for(method, k, stop.tol, None)
        # With verify=True the gap would be about 0.1, since the check allows that.
        verify: bool | float = _ETA if k > 1 else True
        request = Request(start, None, None, "return", verify, time_limit)
        result = solve(problem, chosen, stop, request, k, k)
    elif method is not None:
        chosen, stop = named_method(method), Gap(k, gap, warm=start is not None)
        single = isinstance(chosen, ThickRestartLanczos)
        request = Request(start, None, None, "return", single, time_limit)
        # Random columns in addition to the start, which can be converged without being leading.
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
        result, stop, flat = _anew(problem, start, step, k, gap, flat, time_limit)
    pairs = _described(problem, result, stop, flat)
    if gap is not None and result.state.run.lost > 0.5 * gap:  # too large for a sum of values
        pairs = _after(pairs, _exact(problem, k))
    stopped = result.status is Status.TIME_LIMIT
    ritz = result.state.run.report(now=True) if certify or stopped else None
    values = None if ritz is None else ritz.latest
    if stopped and pairs.gap_kind != "exact":
        # Leading values may not have appeared yet; only the norm bounds them.
        bound = None if values is None else _raised(problem, values, k)
        pairs = replace(pairs, gap=max(pairs.gap, min(_gap_below(pairs, bound), 1.0)))
    return _certified(problem, pairs, values, k, gap, certify)


def fits_start(start: Any, G: Any) -> bool:
    """True without a start, and for the subspace of a matrix of this shape.

    The compiled call does not use it: beginning anew takes less time than a look at the subspace.
    """
    if start is None:
        return True
    if not isinstance(start, Subspace):
        return False
    return (int(start.U.shape[0]), int(start.Vh.shape[1])) == tuple(G.shape)


def one_call(k: int, gap: float | None, tol: float | None) -> tuple[float | None, dict[str, Any]]:
    """Return the tolerance and the options of `small_triplets` for an oracle."""
    if gap is None:
        return tol, {"verify": _ETA if k > 1 else True}
    stop = 0.5 * min(gap, _TIGHT)
    return stop, {"guards": GUARDS, "by_gap": True, "missed_gap": stop}


def pairs_of_small(found: Found, k: int, gap: float | None) -> LeadingPairs:
    """Return the pairs of a matrix that one compiled call has settled."""
    S, work, arrays = found.S, found.work, found.arrays
    k = min(k, len(S))
    longest = max(found.U.shape[0], found.Vh.shape[1])
    q = int(np.count_nonzero(longest * arrays.eps * S[0] < S[:k]))
    attained = float(S[:q].sum())
    rounding = rounding_of(arrays) + 1 - attained / float(S[:k].sum())
    if work.whole:
        reached = rounding
    elif gap is not None:
        reached = max(found.estimate, rounding)
    else:
        reached = rounding + _open(found.residuals, S[:k], work.completeness)
    return LeadingPairs(
        found.U[:, :q],
        S[:q],
        found.Vh[:q, :],
        attained,
        reached,
        "exact" if work.whole else "estimate",
        work.matvecs + work.matvecs_verify,
        work.passes,
        Status.CONVERGED,
        arrays,
        Subspace(found.U, found.Vh, None if gap is None else looked(k, S, found.norm)),
    )


def _open(residuals: HostArray, S: HostArray, known: Completeness) -> float:
    """Return the relative gap that residuals, and the check for missed values, leave open.

    Each singular value is within its residual of the Ritz value. A missed value may be as large as
    the check allows.
    """
    gap = float(residuals.sum()) * float(S[0])
    if known.kind == "probable":
        open_up_to = (1 + known.eta) * (S[-1] + known.slack * S[0])
        gap += float(np.maximum(open_up_to - S, 0.0).sum())
    return gap / float(S.sum())


def _waits(flat: int) -> bool:
    """True if a dense factorization is made at once, without trying a warm step.

    A flat spectrum usually stays flat in the next step. Warm steps are tried again after 1, 3, 7,
    ... steps.
    """
    return flat == 1 or flat & (flat - 1) != 0


def _anew(
    problem: Problem,
    start: Any,
    step: Step | None,
    k: int,
    gap: float,
    flat: int,
    time_limit: float | None,
) -> tuple[SVDResult, Gap, int]:
    """Return the pairs without a warm step, and the next value of ``flat``."""
    share, ceiling, tried = _SHARE, math.inf, step is not None or flat > 0
    if step is not None:
        start = _subspace(problem, step.U, step.V, None)
        share, ceiling = 0.8 * _SHARE, step.ceiling * problem.unit
    chosen = Direct() if _waits(flat) else _method_for_gap(problem, k, gap, start, share)
    stop = Gap(k, gap, warm=start is not None, ceiling=ceiling)
    single = isinstance(chosen, ThickRestartLanczos)
    if single:
        # From a single vector, equal values appear one after the other. A loose gap would end the
        # run before all of them have appeared.
        stop = Gap(k, 0.5 * min(gap, _TIGHT), warm=False)
    aim = min(k + GUARDS, problem.rank)
    # A Krylov space that has not converged after a fixed fraction of the products of a dense
    # factorization is replaced by one.
    limited, most = suits_direct(problem.user_op), None
    if limited and isinstance(chosen, BlockKrylov):
        least = 4 * (max(aim, _width(start)) + chosen.oversampling)
        most = problem.op.matvecs + max(int(_SHARE * problem.rank), least)
    # A block with at least k columns finds all copies of a multiple value; Lanczos may not.
    request = Request(start, most, None, "return", single, time_limit, gives_way=limited)
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
    """Return the pairs with a proven gap, from an upper bound of the norm or from the spectrum.

    ``values``: singular values of a projection that contains the pairs, if known.
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
    """Return the relative gap if the norm is at most ``bound``; inf without a bound."""
    if bound is None:
        return math.inf
    return 1 - pairs.attained / bound if bound else 0.0


def _method_for_gap(problem: Problem, k: int, gap: float, start: Any, share: float) -> Method:
    rank = problem.rank
    if start is None and gap >= _LOOSE and suits_direct(problem.user_op):
        compiled = compiled_lanczos(problem.user_op, k, gap, 0.25)
        if compiled is not None:
            return compiled
    # An estimate needs at least two expansions by a block.
    too_wide = 4 * (k + _OVERSAMPLING) > share * rank and suits_direct(problem.user_op)
    if rank <= EXACT_UP_TO or 4 * k >= rank or too_wide:
        return Direct()
    return BlockKrylov(oversampling=_OVERSAMPLING - GUARDS)


def _width(start: Any) -> int:
    """Return the number of columns of a start of any type."""
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
    """Return the pairs of a result with nonzero singular values, and their gap."""
    S = np.asarray(result.S, dtype=np.float64)  # as scaled by the operator
    q = _numerical_rank(problem, S)
    attained = float(S[:q].sum())
    # Values that count as zero are not among the pairs, but belong to the gap.
    dropped = float(S[q:].sum()) / float(S.sum()) if S[0] > 0 else 0.0
    rounding = _rounding(problem, attained, q) + dropped
    run, subspace = result.state.run, Subspace(result.U, result.Vh)
    if run.exact:
        kind, gap = "exact", rounding + run.lost
    elif isinstance(stop, Gap):
        estimate = stop.estimate(run.report(now=True).times(problem.unit))
        kind, gap = "estimate", max(estimate, rounding) + run.lost
    else:
        kind = "estimate"
        known = result.completeness
        gap = _open(result.residuals, S, known) + rounding if attained else 0.0
    if isinstance(stop, Gap):
        norm, k = problem.op.frobenius_norm(), stop.k
        U, values, V = run.extract(problem.op, min(k + GUARDS, run.available))
        # Without the norm, a warm step cannot detect whether the next matrix is near.
        track = None
        if norm is not None:
            track = looked(k, values, norm, flat)
        subspace = _subspace(problem, U, V, track)
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
    """Return the pairs of a warm step."""
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


def _subspace(problem: Problem, U: Array, V: Array, track: Track | None) -> Subspace:
    """Return vectors of the problem's operator as vectors of the user's matrix."""
    if problem.flipped:
        U, V = V, U
    return Subspace(U, problem.arrays.adjoint(V), track)


def _numerical_rank(problem: Problem, S: HostArray) -> int:
    """Return the number of singular values above the rounding level."""
    return int(np.count_nonzero(max(problem.shape) * problem.eps * S[0] < S))


def _all_products(problem: Problem) -> int:
    return int(problem.op.matvecs + problem.op.matvecs_verify)


def _in_units(S: HostArray, unit: float) -> HostArray:
    """Return values of G itself; inf if they overflow in float64."""
    with np.errstate(over="ignore"):
        return S * unit


def rounding_of(arrays: Arrays) -> float:
    """Return the approximate relative rounding error of an attained value.

    Parameters
    ----------
    arrays : Arrays
        Array library and dtype of the computation.

    Returns
    -------
    float
    """
    return 100 * arrays.eps


def _rounding(problem: Problem, attained: float, k: int) -> float:
    """Return the uncertainty of a relative gap by rounding errors, including those of products.

    The errors of products enter each of the k singular values, and the attained value of each pair.
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
