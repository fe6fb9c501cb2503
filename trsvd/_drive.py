"""The one loop that drives every method: step, look, stop, check."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trsvd._arrays import Array, HostArray, describe
from trsvd._completeness import check_completeness
from trsvd._errors import ConvergenceWarning, NotConverged, Status
from trsvd._golub_kahan import Ritz
from trsvd._problem import Problem, State
from trsvd._ritz import residual_norms
from trsvd._validate import check_cap
from trsvd.methods import Method, Run
from trsvd.result import Completeness, Info, SVDResult
from trsvd.stopping import Residual, Stop

__all__ = ["Callback", "OnFailure", "solve"]

Callback = Callable[[Info], bool | None]
OnFailure = Literal["return", "raise"]


@dataclass
class _Outcome:
    """Triplets (as the operator scales them), their residuals, and how the iteration ended."""

    triplets: tuple[Array, HostArray, Array]
    residuals: HostArray
    status: Status


class _Decline:
    """Whether residuals still go down."""

    def __init__(self, eps: float) -> None:
        self.eps, self.best, self.waited = eps, math.inf, 0

    def verdict(self, worst: float) -> Status | None:
        if worst < 0.99 * self.best:
            self.best, self.waited = worst, 0
            return None
        self.waited += 1
        if self.waited >= 20 and worst < 1e3 * self.eps:
            return Status.ROUNDING_FLOOR
        return Status.STAGNATED if self.waited >= 500 else None


class _Driver:
    """The one loop: steps, looks, stops."""

    def __init__(
        self,
        problem: Problem,
        run: Run,
        stop: Stop,
        k: int,
        limit: int,
        cap: int,
        callback: Callback | None,
    ) -> None:
        self.problem, self.run, self.stop = problem, run, stop
        self.k, self.limit, self.cap, self.callback = k, limit, cap, callback
        self.target = k
        self.strict = stop
        self.decline = _Decline(problem.eps)

    def iterate(self) -> Status | None:
        """Step until the stop is satisfied (None) or something else ends the run."""
        run, op = self.run, self.problem.op
        if run.available and self._satisfied(run.report(now=True)):
            return None
        while not run.finished:
            if op.matvecs + run.next_cost + run.extract_cost > self.cap:
                return Status.MAX_MATVECS
            run.step(op)
            if self.callback is not None and run.available >= self.k and self._call_back():
                return Status.CALLBACK
            ritz = run.report()
            if ritz is None:
                continue
            if self._satisfied(ritz):
                return None
            status = self._floor(ritz)
            if status is not None:
                return status
        return None if self._satisfied(run.report(now=True)) else Status.MAX_ITERATIONS

    def _satisfied(self, ritz: Ritz | None) -> bool:
        if ritz is None:
            return False
        unit = self.problem.unit
        verdict = self.strict.judge(ritz.S * unit, ritz.residuals * unit, self.problem.rank)
        self.k = min(verdict.k, self.limit)
        if verdict.done:
            return True
        if verdict.k > self.limit:
            residual = ritz.residuals[: self.limit]
            return len(residual) == self.limit and bool(
                np.all(residual <= self.strict.tol * ritz.S[0])
            )
        if verdict.k > self.target:
            self.target = min(self.limit, max(verdict.k, self.target + self.target // 2))
            self.run.retarget(self.target)
        return False

    def _floor(self, ritz: Ritz) -> Status | None:
        if ritz.S[0] == 0 or len(ritz.S) < self.target:
            return None
        worst = float(ritz.residuals[: max(self.k, 1)].max()) / float(ritz.S[0])
        return self.decline.verdict(worst)

    def _call_back(self) -> bool:
        problem, run, k = self.problem, self.run, self.k
        assert self.callback is not None

        def triplets() -> tuple[Array, Array, Array]:
            problem.op.verifying = True
            now = run.extract(problem.op, k)
            problem.op.verifying = False
            return problem.hand_out(now)

        op = problem.op
        return self.callback(Info(run.iterations, op.matvecs, op.passes, triplets)) is True

    def tighten(self) -> None:
        """Ask the recurrence for more than the tolerance: its estimate was too good."""
        self.strict = dataclasses.replace(self.strict, tol=self.strict.tol * 0.1)  # type: ignore[type-var]


def solve(
    problem: Problem,
    method: Method,
    k: int,
    stop: Stop,
    start: Any,
    max_matvecs: int | None,
    callback: Callback | None,
    on_failure: OnFailure,
    verify: bool,
    limit: int | None = None,
) -> SVDResult:
    """Drive the method until its answer is right, or until it can be said why it is not."""
    if on_failure not in {"return", "raise"}:
        msg = f"on_failure={on_failure!r}; it is 'return' or 'raise'"
        raise ValueError(msg)
    if callback is not None and not callable(callback):
        msg = f"callback is {describe(callback)}; pass a function of one argument"
        raise TypeError(msg)
    if start is not None and problem.state is not None:
        msg = "start and state are both given; state= goes on with the same matrix, start= begins anew"
        raise ValueError(msg)
    op, rank = problem.op, problem.rank
    cap = max(200 * rank, 1000 * k) if max_matvecs is None else check_cap(max_matvecs)
    limit = k if limit is None else limit
    run = _begin(problem, method, k, stop.tol, start)
    driver = _Driver(problem, run, stop, k, limit, cap, callback)
    completeness = Completeness("unchecked")
    width, before = 1, None
    while True:
        ended = driver.iterate()
        outcome = _examine(problem, driver, ended, stop.tol)
        if outcome is None:
            if before is None:
                msg = (
                    f"max_matvecs={cap} is too small: {driver.run.available} of {driver.k} triplets could "
                    f"be formed with {op.matvecs} products; {method} needs at least "
                    f"{op.matvecs + driver.run.next_cost}"
                )
                raise ValueError(msg)
            outcome = dataclasses.replace(before, status=Status.INCOMPLETE)
            break
        if outcome.status is Status.CONVERGED:
            if not verify:
                break
            op.verifying = True
            completeness, missed = check_completeness(
                op, driver.run, outcome.triplets, stop, problem.unit, problem.rng, width
            )
            op.verifying = False
            if missed is None:
                break
            before = outcome
            driver = _restart(problem, method, driver, outcome, missed, stop)
            width = min(2 * width, max(1, driver.k))
            continue
        if ended is None and not run_at_its_end(driver, outcome, problem.eps):
            if not driver.run.escalate():
                driver.tighten()
            continue
        break
    return _finish(problem, method, driver, outcome, completeness, on_failure)


def run_at_its_end(driver: _Driver, outcome: _Outcome, eps: float) -> bool:
    """Whether more steps cannot bring the residuals down: then the status says so."""
    if driver.run.finished and not driver.run.exact:
        return True
    exhausted = driver.run.finished and driver.run.exact
    if exhausted or driver.strict.tol < 0.1 * eps:
        outcome.status = Status.ROUNDING_FLOOR
        return not _can_escalate(driver.run)
    return False


def _can_escalate(run: Run) -> bool:
    return isinstance(getattr(run, "route", None), str) and run.route == "gram"  # type: ignore[attr-defined]


def _begin(problem: Problem, method: Method, k: int, tol: float, start: Any) -> Run:
    if problem.state is not None:
        run = problem.state.run.copy()
        run.retarget(k)
        return run
    block = problem.start_block(start)
    return method.init(problem.op, k, tol=tol, start=block, rng=problem.rng)


def _restart(
    problem: Problem,
    method: Method,
    driver: _Driver,
    outcome: _Outcome,
    missed: Array,
    stop: Stop,
) -> _Driver:
    """Begin anew from what was found and what was missed."""
    block = problem.arrays.xp.concat([outcome.triplets[2], missed], axis=1)
    k = (
        driver.target
        if driver.limit == driver.target
        else min(driver.limit, driver.k + int(missed.shape[1]))
    )
    run = method.init(problem.op, k, tol=stop.tol, start=block[:, : problem.rank], rng=problem.rng)
    run.iterations += driver.run.iterations
    return _Driver(problem, run, stop, k, driver.limit, driver.cap, driver.callback)


def _examine(
    problem: Problem, driver: _Driver, ended: Status | None, tol: float
) -> _Outcome | None:
    """The triplets as they stand, with residuals from products; None if there are too few."""
    run, op, k = driver.run, problem.op, driver.k
    if run.available < k:
        return None
    U, S, V = run.extract(op, k)
    op.verifying = True
    residuals = residual_norms(op, U, S, V) if k else np.zeros(0)
    op.verifying = False
    s1 = float(S[0]) if k else 0.0
    residuals = residuals / s1 if s1 > 0 else residuals
    if not np.isfinite(residuals).all():
        msg = (
            "a product with A (or its adjoint) returned NaN or inf when the triplets were checked; "
            "find it in A, or scale A down"
        )
        raise ValueError(msg)
    good = bool(np.all(residuals <= tol))
    fixed = isinstance(driver.stop, Residual)
    if good and (ended is None or (fixed and ended is not Status.CALLBACK)):
        status = Status.CONVERGED
    else:
        status = ended or Status.ROUNDING_FLOOR
    return _Outcome((U, S, V), residuals, status)


def _finish(
    problem: Problem,
    method: Method,
    driver: _Driver,
    outcome: _Outcome,
    completeness: Completeness,
    on_failure: OnFailure,
) -> SVDResult:
    """Hand out the result in the user's terms, and warn or raise where it misses the tolerance."""
    op = problem.op
    driver.run.release()
    U, S, Vh = problem.hand_out(outcome.triplets)
    state = State(driver.run, method, problem.shape, problem.arrays.dtype_name, op.scale_exponent)
    result = SVDResult(
        U=U,
        S=S,
        Vh=Vh,
        residuals=outcome.residuals,
        converged=outcome.status.converged,
        status=outcome.status,
        matvecs=op.matvecs,
        matvecs_verify=op.matvecs_verify,
        passes=op.passes,
        iterations=driver.run.iterations,
        method=method,
        state=state,
        completeness=completeness,
    )
    if not result.converged:
        msg = (
            f"{result.status.value} (largest residual {result.residuals.max():.2e}, tol "
            f"{driver.stop.tol:.2e}, {result.matvecs} products by {method})"
        )
        if on_failure == "raise":
            raise NotConverged(msg, result)
        warnings.warn(msg, ConvergenceWarning, stacklevel=4)
    return result
