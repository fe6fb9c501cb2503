"""Small matrices in host memory: one compiled call instead of the general way."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._compiled import small
from trsvd._compiled.small import Ended, Job
from trsvd._compiled.threads import one_blas_thread, threads
from trsvd._errors import Status
from trsvd._plan.certificate import FAILURE_PROBABILITY, certified_eta
from trsvd._plan.small import job_for, small_array
from trsvd._solve.problem import State
from trsvd._solve.result import Completeness, Subspace, SVDResult
from trsvd._validate import check_tol
from trsvd.methods import Direct, Method, ThickRestartLanczos

_DIRECT, _LANCZOS = Direct(), ThickRestartLanczos()
_WORD = (1 << 64) - 1


def seed_of(rng: Any) -> int | None:
    """Return the seed of a call; None if ``rng`` is not a seed or generator."""
    if rng is None:
        return int.from_bytes(os.urandom(8), "little")
    if type(rng) is int and rng >= 0:
        return (rng ^ (rng >> 64)) & _WORD
    return int(rng.integers(_WORD, dtype=np.uint64)) if type(rng) is np.random.Generator else None


def run(A: HostArray, job: Job, seed: int, start: HostArray | None) -> tuple[HostArray, ...]:
    """Call `trsvd._compiled.small.leading` while BLAS has one thread.

    Products of this size take as long to hand over to threads as to compute.
    """
    if threads() == 1:
        return small.leading(A, job, seed, start)
    with one_blas_thread():
        return small.leading(A, job, seed, start)


@lru_cache(256)
def _certificate(kind: int, n: int, steps: int, slack: float) -> Completeness:
    name = small.CERTIFICATES[kind]
    if name == "probable":
        eta = certified_eta(n, steps, FAILURE_PROBABILITY)
        return Completeness(name, eta, FAILURE_PROBABILITY, slack)
    return Completeness(name, slack=slack)


@dataclass(frozen=True)
class Work:
    """Method, products and certificate of a matrix; ``whole`` if its full spectrum was computed."""

    method: Method
    matvecs: int
    matvecs_verify: int
    passes: int
    iterations: int
    completeness: Completeness
    whole: bool


def _work(job: Job, rank: int, numbers: list[float]) -> Work:
    """Return what the numbers of a matrix say of the work that was done."""
    steps, checks = int(numbers[small.STEPS]), int(numbers[small.CHECK_STEPS])
    kind = int(numbers[small.CERTIFICATE])
    slack = max(job.tol, 1e-14) if checks or kind == small.RANDOM_START else 0.0
    started, accepted = numbers[small.STARTED] > 0, numbers[small.STARTED] == small.ACCEPTED
    whole = kind == small.EXACT and not checks and not accepted
    by_lanczos = job.most > 0 and (not whole or steps == rank)
    more = 0 if by_lanczos or accepted else 1  # a factorization, after the steps
    given = job.k if started else 0
    return Work(
        _LANCZOS if by_lanczos else _DIRECT,
        2 * steps + more * rank + given,
        2 * job.k + 2 * checks,
        2 * steps + more + bool(given),
        steps + more + bool(given),
        _certificate(kind, rank, checks, slack),
        whole,
    )


@dataclass(frozen=True)
class Found:
    """Triplets of one small matrix.

    Attributes
    ----------
    U, S, Vh : arrays of shape (m, p), (p,), (p, n)
        Triplets; S is in float64 on the host.
    residuals : array of shape (k,)
        Relative residuals, if they were asked for.
    estimate : float
        Estimated relative gap, if it was asked for.
    norm : float
        Frobenius norm.
    work : Work
        Method, products and certificate.
    arrays : Arrays
        Array library of the matrix.
    """

    U: Array
    S: HostArray
    Vh: Array
    residuals: HostArray
    estimate: float
    norm: float
    work: Work
    arrays: Arrays


def small_triplets(
    A: Any, k: int, tol: float | None, rng: Any, start: Any = None, **how: Any
) -> Found | Ended | None:
    """Return leading triplets by one compiled call.

    Parameters
    ----------
    A : object
        Any input of the user.
    k, tol, rng, start
        As for `trsvd.svds`.
    **how
        Arguments of `job_for`.

    Returns
    -------
    Found, Ended or None
        The triplets; the reason why the call could not settle the matrix; or None if the matrix or
        an argument is not for it.
    """
    X = small_array(A)
    if X is None or X.ndim != 2:
        return None
    rows = None if start is None else _rows_of(start, X)
    if start is not None and rows is None:
        return None
    if rows is not None:
        rows = np.ascontiguousarray(rows[:k]) if type(k) is int and len(rows) >= k else None
    results = _run(X[None], k, tol, rng, how, rows)
    return None if results is None else _found(A, *results, 0)


def _rows_of(start: Any, X: HostArray) -> HostArray | None:
    """Return start vectors as rows in the dtype of X; None if they are not for the call."""
    whole = isinstance(start, (SVDResult, Subspace))
    vectors = start.Vh if whole else start
    rows = small_array(vectors[:, None] if getattr(vectors, "ndim", 0) == 1 else vectors)
    if rows is None or rows.ndim != 2:
        return None
    rows = rows if whole else rows.T
    fits = rows.shape[1] == X.shape[1] and (not whole or start.U.shape[0] == X.shape[0])
    return rows.astype(X.dtype, copy=False) if fits and np.isfinite(rows).all() else None


def small_triplets_of(
    matrices: Sequence[Any], k: int, tol: float | None, rng: Any, **how: Any
) -> list[Found | Ended | None]:
    """Return `small_triplets` of each matrix; those of one shape and dtype by one call."""
    found: list[Found | Ended | None] = [None] * len(matrices)
    groups: dict[Any, list[tuple[int, HostArray]]] = {}
    for place, A in enumerate(matrices):
        X = small_array(A)
        if X is not None and X.ndim == 2:
            groups.setdefault((X.shape, X.dtype.char), []).append((place, X))
    for (shape, _), members in groups.items():
        stack = np.ascontiguousarray(np.stack([X for _, X in members]))
        results = _run(stack, min(k, *shape), tol, rng, how)
        if results is not None:
            for row, (place, _) in enumerate(members):
                found[place] = _found(matrices[place], *results, row, copy=True)
    return found


def _run(
    X: HostArray,
    k: Any,
    tol: Any,
    rng: Any,
    how: dict[str, Any],
    start: HostArray | None = None,
) -> tuple[Job, tuple[HostArray, ...]] | None:
    """Return the job for a batch of matrices, and its results; None if it is not for this call."""
    _, m, n = X.shape
    if type(k) is not int or not 1 <= k <= min(m, n):
        return None
    if tol is None:
        tol = check_tol(None, float(np.finfo(X.dtype).eps))
    elif not isinstance(tol, float):
        return None
    job = job_for(m, n, X.dtype.itemsize, k, tol, **how)
    seed = None if job is None else seed_of(rng)
    return None if job is None or seed is None else (job, run(X, job, seed, start))


def _found(
    A: Any, job: Job, results: tuple[HostArray, ...], row: int, *, copy: bool = False
) -> Found | Ended:
    """Return what was found for one matrix of a batch.

    With ``copy``, keeping it does not keep the results of the other matrices.
    """
    U, S, Vh, residuals, numbers = (x[row] for x in results)
    known = numbers.tolist()
    if known[small.STATUS] != Ended.CONVERGED:
        return Ended(int(known[small.STATUS]))
    arrays = Arrays.of_array(A)
    if copy:
        U, S, Vh = U.copy(order="F"), S.copy(), Vh.copy()
    rank = min(U.shape[0], Vh.shape[1])
    if not arrays.on_host:
        U, Vh = arrays.put(U), arrays.put(Vh)
    estimate, norm = known[small.ESTIMATE], known[small.ENERGY] ** 0.5
    return Found(U, S, Vh, residuals, estimate, norm, _work(job, rank, known), arrays)


def small_svds(
    A: Any, k: Any, tol: Any, rng: Any, verify: Any, start: Any
) -> SVDResult | Ended | None:
    """Return the result of `trsvd.svds` by one compiled call; see `small_triplets`."""
    if not (isinstance(verify, bool) or (isinstance(verify, float) and 0 < verify < math.inf)):
        return None
    found = small_triplets(A, k, tol, rng, start, verify=verify)
    if not isinstance(found, Found):
        return found
    U, Vh, work, arrays = found.U, found.Vh, found.work, found.arrays
    return SVDResult(
        U,
        arrays.put(found.S),
        Vh,
        found.residuals,
        True,
        Status.CONVERGED,
        work.matvecs,
        work.matvecs_verify,
        work.passes,
        work.iterations,
        work.method,
        State(None, work.method, (U.shape[0], Vh.shape[1]), arrays, 0, Subspace(U, Vh)),
        work.completeness,
    )


def small_batch(
    flat: Array, k: int, tol: float, rng: np.random.Generator, verify: Any
) -> tuple[HostArray, tuple[Array, Array, Array], HostArray, list[Work]] | None:
    """Compute the matrices of a batch by one compiled call.

    Parameters
    ----------
    flat : array of shape (b, m, n)
        The batch.
    k, tol, rng, verify
        Checked arguments of `trsvd.svds`.

    Returns
    -------
    tuple or None
        The places of the settled matrices, their triplets, residuals and work. None if the batch is
        not for it.
    """
    X = small_array(flat) if isinstance(verify, (bool, float)) else None
    results = None if X is None else _run(X, k, tol, rng, {"verify": verify})
    if X is None or results is None:
        return None
    job, (U, S, Vh, residuals, numbers) = results
    places = np.flatnonzero(numbers[:, small.STATUS] == Ended.CONVERGED)
    if len(places) < len(X):
        U, S, Vh, residuals, numbers = (x[places] for x in (U, S, Vh, residuals, numbers))
    arrays, S = Arrays.of_array(flat), S.astype(X.dtype)
    triplets = (U, S, Vh) if arrays.on_host else (arrays.put(U), arrays.put(S), arrays.put(Vh))
    work = [_work(job, min(X.shape[1:]), row) for row in numbers.tolist()]
    return places, triplets, residuals, work
