"""The loop that drives every method: step, test, stop, check."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import describe, dtype_name
from trsvd._compiled.threads import one_blas_thread
from trsvd._errors import Status, warn_caller
from trsvd._krylov.rayleigh_ritz import (
    Ritz,
    orthogonality_loss,
    rayleigh_ritz,
    residual_blocks,
    residual_norms,
)
from trsvd._krylov.stopping import Energy, Gap, Residual, Values
from trsvd._plan.cost import flat_costs_more
from trsvd._solve.problem import Problem, State
from trsvd._solve.result import Completeness, Info, NotConverged, SVDResult
from trsvd._solve.select import SMALL
from trsvd._solve.start import Start, StartRun
from trsvd._solve.verify import check_completeness, check_fits, check_spectrum, second_look
from trsvd._validate import check_cap, check_flag, check_seconds
from trsvd.methods import Direct, Method, Run, ThickRestartLanczos

if TYPE_CHECKING:  # rich is imported if progress is shown
    from trsvd._solve.progress import Display

# For methods without random numbers, so that no generator is created for each call.
_NOT_USED = np.random.default_rng(0)

# With a limit of products below so many blocks, a method begins with all start vectors.
_BLOCKS = 10

# U^H U and V^H V may differ from I by this many rounding units, times sqrt(max(m, n)).
_SKEW = 16

Callback = Callable[[Info], bool | None]
OnFailure = Literal["return", "raise"]
ON_FAILURE = ("return", "raise")
Verify = bool | float | Literal["exact"]
AnyStop = Residual | Values | Energy | Gap


@dataclass(frozen=True)
class Request:
    """Arguments that `svds`, `svds_above` and `svds_to_tolerance` share."""

    start: Any
    max_matvecs: int | None
    callback: Any
    on_failure: str
    verify: Any
    time_limit: float | None = None
    progress: bool = False
    gives_way: bool = False  # a run that does not converge raises `GaveWay`
    deadline: float = math.inf  # by `time.monotonic`

    def __post_init__(self) -> None:
        seconds = check_seconds(self.time_limit)
        if seconds is not None and self.deadline == math.inf:
            object.__setattr__(self, "deadline", time.monotonic() + seconds)
        check_flag("progress", self.progress)
        if self.eta is None:
            known = isinstance(self.verify, bool) or self.verify == "exact"
        else:
            known = 0 < self.eta < math.inf
        if not known:
            raise ValueError(
                f"verify={self.verify!r}; it is True, False, 'exact', or the share of s_k by which "
                "a missed value may exceed it: a positive number"
            )
        if self.on_failure not in ON_FAILURE:
            raise ValueError(f"on_failure={self.on_failure!r}; it is 'return' or 'raise'")
        if self.callback is not None and not callable(self.callback):
            raise TypeError(
                f"callback is {describe(self.callback)}; pass a function of one argument"
            )

    @property
    def is_plain(self) -> bool:
        """True if nothing limits, observes or starts the run."""
        options = (self.start, self.max_matvecs, self.callback, self.time_limit)
        return not self.progress and all(option is None for option in options)

    @property
    def seconds_left(self) -> float | None:
        """Time until the deadline in seconds, positive; None without a time limit."""
        return None if self.time_limit is None else max(self.deadline - time.monotonic(), 1e-9)

    @property
    def eta(self) -> float | None:
        """Relative excess of a missed value to certify; None leaves it to the check."""
        if isinstance(self.verify, bool) or not isinstance(self.verify, Real):
            return None
        return float(self.verify)


class GaveWay(Exception):
    """Raised if a run ends without an answer, so that the caller uses another method."""


@dataclass(frozen=True)
class _Outcome:
    """Triplets (as the operator scales them) and their residuals, relative to s_1."""

    triplets: tuple[Array, HostArray, Array]
    residuals: HostArray


# Largest residual, in rounding units of s_1, that counts as the rounding level.
_FLOOR = 1000


class _Decline:
    """Record of residuals relative to s_1, to detect that they no longer decrease."""

    def __init__(self, eps: float) -> None:
        self.eps, self.best, self.waited = eps, math.inf, 0

    def verdict(self, worst: float, rounding: float = 0.0) -> Status | None:
        """Return the status of a run that cannot improve; None if it may."""
        if worst < 0.99 * self.best:
            self.best, self.waited = worst, 0
            return None
        self.waited += 1
        if self.waited >= 20 and worst < 30 * self.eps:
            return Status.ROUNDING_FLOOR
        if self.waited >= 20 and worst < rounding:
            return Status.CANCELLATION
        return Status.STAGNATED if self.waited >= 500 else None


class _Driver:
    """The loop of a run: steps, tests, stop."""

    def __init__(
        self,
        problem: Problem,
        run: Run,
        stop: AnyStop,
        k: int,
        limit: int,
        cap: int,
        request: Request,
    ) -> None:
        self.problem, self.run, self.stop = problem, run, stop
        self.request, callback = request, request.callback
        capped = request.max_matvecs is not None and cap < _usual_cap(problem.rank, k)
        run.single_steps = callback is not None or capped or request.time_limit is not None
        self.k, self.limit, self.cap, self.callback = k, limit, cap, callback
        self.target = k
        self.truncated = self.tightened = False
        self.display: Display | None = None
        self.strict: AnyStop = stop
        self.decline = _Decline(problem.eps)

    def iterate(self) -> Status | None:
        """Step until the stop is satisfied (None) or the run ends for another reason."""
        run, op = self.run, self.problem.op
        if run.available and self._satisfied(run.report(now=True)):
            return None
        while not run.finished:
            if op.matvecs + run.next_cost + run.extract_cost > self.cap:
                return Status.MAX_MATVECS
            if run.available >= self.k and time.monotonic() > self.request.deadline:
                return Status.TIME_LIMIT
            run.step(op)
            if run.hopeless and self.request.gives_way:
                return Status.STAGNATED
            if self.callback is not None and run.available >= self.k and self._call_back():
                return Status.CALLBACK
            ritz = run.report()
            if ritz is None:
                continue
            if self.display is not None and ritz.S[0] > 0:
                relative = ritz.residuals / ritz.S[0]
                self.display.show(op.matvecs, self.k, relative, self.stop.tol)
            if self._satisfied(ritz):
                return None
            status = self._floor(ritz)
            if status is not None:
                return status
        return None if self._satisfied(run.report(now=True)) else Status.MAX_ITERATIONS

    def _satisfied(self, ritz: Ritz | None) -> bool:
        if ritz is None:
            return False
        if isinstance(self.stop, Values):  # until extraction tells what is below the resolution
            ritz = replace(ritz, S=np.maximum(ritz.S, self.run.resolution * ritz.S[:1]))
        unit = self.problem.unit
        verdict = self.strict.judge(ritz.times(unit), self.problem.rank)
        self.k, self.truncated = min(verdict.k, self.limit), False
        # MAX_K needs one value more than max_k: only then it is known that the next one is wanted.
        known = len(ritz.S) > self.limit
        if verdict.k > self.limit and known:
            residuals = ritz.residuals[: self.limit]
            self.truncated = bool(np.all(residuals <= self.strict.tol * ritz.S[0]))
            if self.truncated or self.target >= self.limit:
                return self.truncated
        elif verdict.done:
            return True
        if verdict.k > self.target:
            most = self.limit if known else self.limit + 1
            self.target = min(most, max(verdict.k, self.target + self.target // 2))
            self.run.retarget(self.target)
        return False

    def _floor(self, ritz: Ritz) -> Status | None:
        if ritz.S[0] == 0 or len(ritz.S) < self.target:
            return None
        top = float(ritz.S[0])
        worst = float(ritz.residuals[: max(self.k, 1)].max()) / top
        return self.decline.verdict(worst, self.problem.op.rounding / top)

    def _call_back(self) -> bool:
        problem, run, k = self.problem, self.run, self.k
        assert self.callback is not None

        def triplets() -> tuple[Array, Array, Array]:
            problem.op.verifying = True
            now = run.extract(problem.op, k)
            problem.op.verifying = False
            return problem.hand_out(now)

        op = problem.op
        answer = self.callback(Info(run.iterations, op.matvecs, op.passes, triplets))
        # A comparison of arrays gives a truth value of their library, which is meant too.
        is_truth = isinstance(answer, bool) or dtype_name(getattr(answer, "dtype", "O")) == "bool"
        return is_truth and bool(answer)

    def tighten(self) -> bool:
        """Continue the same run once after values were missed, with a smaller tolerance.

        With a loose tolerance, residuals can be small before the leading values have appeared.
        """
        if self.tightened or self.run.finished or not isinstance(self.strict, Residual):
            return False
        self.strict, self.tightened = replace(self.strict, tol=0.1 * self.strict.tol), True
        self.run.aim_at(self.strict.tol)
        return True

    @property
    def at_the_floor(self) -> bool:
        """True if residuals above the tolerance cannot decrease any more."""
        return self.run.exact or self.strict.tol < 0.1 * self.problem.eps

    def verdict(self, outcome: _Outcome, ended: Status | None) -> Status | None:
        """Return the final status by the residuals from products; None to continue.

        The recurrence estimates residuals. If the estimates were too small, the run continues to a
        smaller tolerance, down to the rounding level.
        """
        fixed, good = isinstance(self.stop, Residual), self.stop.accepts(outcome.residuals)
        if good and (ended is None or (fixed and ended is not Status.CALLBACK)):
            return Status.MAX_K if self.truncated else Status.CONVERGED
        if ended is not None:
            return self._floor_of(outcome) if ended is Status.ROUNDING_FLOOR else ended
        if self.run.escalate():
            self.decline = _Decline(self.problem.eps)  # another variant, which may start again
            return None
        if self.at_the_floor:
            return self._floor_of(outcome)
        if self.run.finished or isinstance(self.strict, Gap):
            return Status.MAX_ITERATIONS
        self.strict = replace(self.strict, tol=self.strict.tol * 0.1)
        self.run.aim_at(self.strict.tol)
        return None

    def _floor_of(self, outcome: _Outcome) -> Status:
        """Return the reason why residuals from products cannot decrease."""
        worst, top = outcome.residuals.max(initial=0.0), float(outcome.triplets[1].max(initial=0.0))
        if not worst > _FLOOR * self.problem.eps:
            return Status.ROUNDING_FLOOR
        return Status.CANCELLATION if worst * top <= self.problem.op.rounding else Status.STAGNATED


def solve(
    problem: Problem, method: Method, stop: AnyStop, request: Request, k: int, limit: int
) -> SVDResult:
    """Run the method until its result is right, or the reason why it is not is known.

    Parameters
    ----------
    problem : Problem
        The matrix.
    method : Method
        The method.
    stop : Stop
        The stopping rule.
    request : Request
        Arguments shared by all public functions.
    k, limit : int
        Number of triplets at first, and at most.
    """
    exactly = isinstance(request.verify, str)
    if exactly:
        check_fits(problem.op.shape)
    with problem.arrays.as_asked():
        cap = _cap(problem, request, k)
        run = _begin(problem, method, k, stop, request, cap)
        driver = _Driver(problem, run, stop, k, limit, cap, request)
        if isinstance(run, StartRun):
            result = _answer(driver, method, exactly=exactly)
            if result is not None:
                return result
            run = method.init(problem.op, k, tol=stop.aim, start=None, rng=problem.rng)
            driver = _Driver(problem, run, stop, k, limit, cap, request)
        # (The full spectrum needs BLAS threads.)
        alone = run.shares_products(problem.op) and not exactly
        with one_blas_thread() if alone else nullcontext():
            if not request.progress:
                result = _answer(driver, method, exactly=exactly)
            else:
                from trsvd._solve.progress import Display

                with Display() as driver.display:
                    result = _answer(driver, method, exactly=exactly)
        assert result is not None
        return result


def _cap(problem: Problem, request: Request, k: int) -> int:
    """Return the largest number of products of a run."""
    if request.max_matvecs is not None:
        return check_cap(request.max_matvecs)
    cap = _usual_cap(problem.rank, k)
    if request.gives_way:  # beyond, the other method is faster
        cap = min(cap, problem.op.matvecs + 4 * problem.rank + 20 * k)
    return cap


def _answer(driver: _Driver, method: Method, *, exactly: bool) -> SVDResult | None:
    """Return the result; None if start vectors were tested, and are not the answer."""
    problem, stop, request, cap = driver.problem, driver.stop, driver.request, driver.cap
    op = problem.op
    completeness = Completeness("unchecked")
    width, before, latest = 1, None, None
    while True:
        ended = driver.iterate()
        as_good_as_can_be = ended is Status.ROUNDING_FLOOR and isinstance(stop, Residual)
        final = as_good_as_can_be or ended is Status.TIME_LIMIT
        if ended is not None and request.gives_way and not final:
            raise GaveWay
        outcome = _examine(problem, driver, ended)
        if outcome is None:
            if request.gives_way:
                raise GaveWay
            if latest is not None:
                outcome, status = latest, Status.MAX_MATVECS
                break
            if before is None:
                raise ValueError(
                    f"max_matvecs={cap} is too small: {op.matvecs} products gave "
                    f"{driver.run.available} of {driver.k} triplets; {method} makes "
                    f"{driver.run.next_cost} products at a time"
                )
            outcome, status = before, Status.INCOMPLETE
            break
        tested = isinstance(driver.run, StartRun)
        if tested and ended is None and not stop.accepts(outcome.residuals):
            return None
        verdict = driver.verdict(outcome, ended)
        if verdict is None:
            latest = outcome
            continue
        status = verdict
        if status not in (Status.CONVERGED, Status.MAX_K) or not request.verify:
            break
        op.verifying = True
        # At max_k, the triplets must be the leading ones.
        asked = Residual(driver.k, stop.tol) if driver.truncated else stop
        if exactly:
            completeness, missed = check_spectrum(
                op, driver.run, outcome.triplets, asked, problem.unit
            )
        else:
            completeness, missed = check_completeness(
                op,
                driver.run,
                outcome.triplets,
                asked,
                problem.unit,
                partial(_source, problem, tested),
                width,
                request.eta,
            )
        op.verifying = False
        if missed is None:
            break
        if tested:
            return None
        if driver.tighten():
            latest = outcome
            continue
        before, latest, width = outcome, None, min(2 * width, max(1, driver.k))
        driver = _restarted(driver, method, outcome, missed)
    return _finish(driver, method, outcome, status, completeness, request.on_failure)


def _source(problem: Problem, tested: bool) -> np.random.Generator:
    """Return the generator for a check; a copy for a tested start.

    A run that follows has the random numbers of a run without a start.
    """
    return deepcopy(problem.rng) if tested else problem.rng


def _usual_cap(rank: int, k: int) -> int:
    """Return a number of products that no run should need."""
    return max(200 * rank, 1000 * k)


def _begin(
    problem: Problem, method: Method, k: int, stop: AnyStop, request: Request, cap: int
) -> Run:
    """Return the run of the method, or a test of start vectors that seem to be converged."""
    op, start, rank = problem.op, request.start, problem.rank
    begun = None
    if problem.state is not None:
        if start is not None:
            raise ValueError(
                "start and state are both given; state= resumes a run, start= begins a new one"
            )
        begun, start = problem.state.run, problem.state.subspace
    given = None if start is None else problem.start_block(start)
    if begun is not None:
        run = begun.copy()
        if not isinstance(run, StartRun):
            if problem.rng_given:
                run.rng = problem.rng
            run.retarget(k)
            run.aim_at(stop.aim)
            return run
        given = run.start.V, run.start.of_adjoint
    quick = isinstance(method, Direct) and not (request.gives_way and rank > SMALL)
    if given is None or quick:
        rng = _NOT_USED if isinstance(method, Direct) else problem.rng
        return method.init(op, k, tol=stop.aim, start=None, rng=rng)
    block, of_adjoint = given
    width = int(block.shape[1])
    # (For one triplet, a vector is tested by as many products as Lanczos from it takes.)
    few = k == 1 or (width < k and not isinstance(method, ThickRestartLanczos))
    if few or not isinstance(stop, Residual) or cap - op.matvecs < _BLOCKS * width:
        block = problem.right_block(block, cap) if of_adjoint else block
        return method.init(op, k, tol=stop.aim, start=block, rng=problem.rng)
    if width < k:  # too few for a test, and a Lanczos run gains nothing
        return method.init(op, k, tol=stop.aim, start=None, rng=problem.rng)
    vectors = Start(op, block, of_adjoint=of_adjoint)
    # (A single vector is tested by as many products as its residual takes.)
    residual = vectors.residual() if width > 1 else 0.0
    if residual <= stop.tol:
        return StartRun(vectors, k)
    block, size = None, method.block_size if isinstance(method, ThickRestartLanczos) else None
    # (Whether the spectrum is flat is judged with random vectors only.)
    if not (request.gives_way and flat_costs_more(op, k, stop.aim)):
        block = vectors.block(k, size, residual, problem.rng)
    return method.init(op, k, tol=stop.aim, start=block, rng=problem.rng)


def _restarted(driver: _Driver, method: Method, outcome: _Outcome, missed: Array) -> _Driver:
    """Start a new run from the triplets and the missed vectors."""
    problem, stop = driver.problem, driver.stop
    block = problem.arrays.xp.concat([outcome.triplets[2], missed], axis=1)
    block = block[:, : min(problem.rank, int(block.shape[1]))]
    k = driver.target
    if not isinstance(stop, Residual):
        k = min(driver.limit, max(1, driver.k + int(missed.shape[1])))
    run = method.init(problem.op, k, tol=stop.aim, start=block, rng=problem.rng)
    run.iterations += driver.run.iterations
    new = _Driver(problem, run, stop, k, driver.limit, driver.cap, driver.request)
    new.display = driver.display
    return new


def _examine(problem: Problem, driver: _Driver, ended: Status | None) -> _Outcome | None:
    """Return the triplets with residuals from products; None if there are too few."""
    run, op, k = driver.run, problem.op, driver.k
    if not isinstance(driver.stop, (Residual, Gap)) and run.available:
        # The number of wanted triplets is not known yet: take the available ones.
        k = min(k, run.available)
    if run.available < k or (k and op.matvecs + run.extract_cost > driver.cap):
        return None
    if k == 0:
        none = (problem.arrays.zeros(rows, 0) for rows in op.shape)
        return _Outcome((next(none), np.zeros(0), next(none)), np.zeros(0))
    U, S, V = run.extract(op, k)
    op.verifying, exact_side = True, run.exact_side
    if not orthogonality_loss(op.arrays, U, V) <= _SKEW * problem.eps * math.sqrt(max(op.shape)):
        U, S, V = rayleigh_ritz(op, V, problem.rng, k, skew=True)
        exact_side = "left"
    if isinstance(driver.stop, Gap):
        op.verifying = False
        return _Outcome((U, S, V), np.full(k, np.nan))
    blocks = residual_blocks(op, U, S, V, exact=exact_side)
    residuals = residual_norms(op.arrays, blocks)
    # (The triplets of a stopped run are not improved.)
    last = ended is Status.ROUNDING_FLOOR or (ended is None and driver.at_the_floor)
    better = second_look(op, (U, S, V), blocks, residuals, driver.stop.tol, last=last)
    if better is not None:
        (U, S, V), residuals = better
    op.verifying = False
    wanted = _recounted(driver, S)
    if wanted is not None:
        driver.k = k = wanted
        driver.truncated = driver.truncated and k >= driver.limit
        (U, S, V), residuals = (U[:, :k], S[:k], V[:, :k]), residuals[:k]
    if not np.isfinite(residuals).all():
        raise ValueError(
            "a product with A (or its adjoint) returned NaN or inf when the triplets were checked; "
            "find it in A, or scale A down"
        )
    return _Outcome((U, S, V), residuals / S[0] if k and S[0] > 0 else residuals)


def _recounted(driver: _Driver, S: HostArray) -> int | None:
    """Return the number of wanted triplets by the extracted values; None for all.

    They are more accurate than the Ritz values that stopped the run.
    """
    stop, values = driver.stop, S * driver.problem.unit
    if isinstance(stop, Values):
        return stop.count(values)
    rounding = driver.problem.rank * driver.problem.eps
    if isinstance(stop, Energy) and len(S) and stop.eps**2 > 100 * rounding:
        return stop.count(values, driver.problem.rank)
    return None


def _finish(
    driver: _Driver,
    method: Method,
    outcome: _Outcome,
    status: Status,
    completeness: Completeness,
    on_failure: str,
) -> SVDResult:
    """Return the result for the user; warn or raise if it misses the tolerance."""
    problem, op = driver.problem, driver.problem.op
    driver.run.release()
    U, S, Vh = problem.hand_out(outcome.triplets)
    result = SVDResult(
        U=U,
        S=S,
        Vh=Vh,
        residuals=outcome.residuals,
        converged=status.converged,
        status=status,
        matvecs=op.matvecs,
        matvecs_verify=op.matvecs_verify,
        passes=op.passes,
        iterations=driver.run.iterations,
        method=method,
        state=State(driver.run, method, problem.shape, problem.arrays, op.scale_exponent),
        completeness=completeness,
    )
    if not result.converged:
        cause = ""
        if status is Status.CANCELLATION:
            top = float(outcome.triplets[1][0])
            share = op.rounding / top if top else math.inf
            cause = f"rounding errors of products up to {share:.2e} of s_1, "
        text, stop = status.value, driver.stop
        if isinstance(stop, Gap):
            text = text.replace("every residual reached tol", "the gap was reached")
            asked = f"a relative gap of {stop.gap:.2e} was asked for"
        else:
            asked = f"largest residual {result.residuals.max(initial=0.0):.2e}, tol {stop.tol:.2e}"
        msg = f"{text} ({cause}{asked}, {result.matvecs} products by {method})"
        if on_failure == "raise":
            raise NotConverged(msg, result)
        warn_caller(msg)
    return result
