"""`svds`, the choice of a method, and the one loop that drives every method."""

from __future__ import annotations

import dataclasses
import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trsvd._arrays import Array, HostArray, describe, is_array
from trsvd._completeness import check_completeness
from trsvd._errors import ConvergenceWarning, NotConverged, Status
from trsvd._golub_kahan import Ritz
from trsvd._ritz import residual_norms
from trsvd.methods import METHODS, Direct, Method, Run, ThickRestartLanczos
from trsvd.operators import AdjointOperator, MatrixOperator, Metered, as_operator, probe
from trsvd.result import Completeness, Info, SVDResult
from trsvd.stopping import Energy, Residual, Stop, Values

__all__ = ["Selection", "select_method", "svds", "svds_above", "svds_to_tolerance"]

Callback = Callable[[Info], bool | None]
OnFailure = Literal["return", "raise"]


# ---- the public functions ---------------------------------------------------------------


def svds(
    A: Any,
    k: int,
    *,
    method: str | Method | None = None,
    tol: float | None = None,
    start: Any = None,
    state: Any = None,
    rng: int | np.random.Generator | None = None,
    max_matvecs: int | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: bool = True,
) -> SVDResult:
    """The k leading singular triplets of a matrix.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        A NumPy, CuPy, PyTorch or other array API array; a sparse matrix or array of scipy or cupyx;
        or an object with ``shape``, ``dtype``, ``matmat`` and ``rmatmat`` (``matvec`` and
        ``rmatvec`` are enough). Real or complex. Half precision is computed in float32, integers
        and bool in float64. Never written to; gradients do not flow through.
    k : int
        Number of triplets, ``1 <= k <= min(m, n)``.
    method : str or Method, optional
        ``"trlan"``, ``"rsvd"``, ``"krylov"``, ``"power"``, ``"direct"``, or an object such as
        ``ThickRestartLanczos(basis_size=100)``. None leaves the choice to `select_method`.
    tol : float, optional
        Relative residual that every triplet must meet; ``eps**0.75`` by default: 1.8e-12 in
        float64, 6.4e-6 in float32.
    start : array of shape (n, p) or (n,), or SVDResult, optional
        Warm start for a matrix near an earlier one: right vectors, or the earlier result.
    state : object, optional
        ``result.state`` of an earlier call with the *same* matrix: goes on where that one ended,
        for more triplets or a tighter tolerance.
    rng : int or numpy.random.Generator, optional
        Where random numbers come from (SPEC 7).
    max_matvecs : int, optional
        Hard cap on the products with A or A^H, in vectors, that the method makes in this call.
        Checking what is returned takes up to 2 k products more, counted as ``matvecs_verify``.
    callback : callable, optional
        Called as ``callback(info)`` after each iteration with an `Info`; True ends the run.
    on_failure : {"return", "raise"}, default "return"
        When the triplets miss ``tol``: warn with `ConvergenceWarning` and return the best, or
        raise `NotConverged`, which has them as ``result``.
    verify : bool, default True
        Whether converged triplets are checked for missed singular values. Residuals are always
        computed from products with A.

    Returns
    -------
    SVDResult
        Unpacks as ``U, S, Vh``: shapes (m, k), (k,), (k, n), S descending, in A's dtype, namespace
        and device.

    Raises
    ------
    TypeError
        If A is not a matrix that can be computed with, or an argument has the wrong type.
    ValueError
        If A is empty, not two-dimensional or not finite, if k, tol or ``start`` do not fit, or if
        max_matvecs is too small to form k triplets.
    AdjointError
        If ``rmatmat`` is not the adjoint of ``matmat``.
    NotConverged
        With ``on_failure="raise"``, if the tolerance is not met.

    Notes
    -----
    Costs in products and memory stand with each method. What ``converged`` proves, and what it
    does not, stands with `SVDResult` and `Completeness`.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([3.0, 2.0, 1.0])
    >>> U, S, Vh = trsvd.svds(A, 2)
    >>> S
    array([3., 2.])
    """
    problem = _Problem(A, rng, state)
    k = _check_k(k, problem.rank)
    tol = _check_tol(tol, problem.eps)
    chosen = problem.method_for(method, k, tol, max_matvecs)
    return _solve(
        problem, chosen, k, Residual(k, tol), start, max_matvecs, callback, on_failure, verify
    )


def svds_to_tolerance(
    A: Any,
    eps: float,
    *,
    max_k: int | None = None,
    method: str | Method | None = None,
    tol: float | None = None,
    start: Any = None,
    state: Any = None,
    rng: int | np.random.Generator | None = None,
    max_matvecs: int | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: bool = True,
) -> SVDResult:
    """The fewest leading triplets with ``||A - A_k||_F <= eps ||A||_F``.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        As for `svds`; an operator must know its Frobenius norm (a method
        ``frobenius_norm()``), or be small enough to be formed.
    eps : float
        Relative error in the Frobenius norm, ``0 < eps < 1``.
    max_k : int, optional
        Most triplets to compute; min(m, n) by default.
    method, tol, start, state, rng, max_matvecs, callback, on_failure, verify
        As for `svds`.

    Returns
    -------
    SVDResult
        With the k that it took. One Krylov space grows until it suffices; nothing starts over.

    Raises
    ------
    ValueError
        If eps is not between 0 and 1, or so small that ``||A||_F^2 - sum s_i^2`` has no digits
        left and the method is not direct.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([1.0, 0.5, 0.25, 0.125])
    >>> trsvd.svds_to_tolerance(A, 0.3).S
    array([1. , 0.5])
    """
    problem = _Problem(A, rng, state)
    if not 0 < eps < 1:
        msg = f"eps={eps}; the relative error must be between 0 and 1"
        raise ValueError(msg)
    tol = _check_tol(tol, problem.eps)
    norm = problem.op.frobenius_norm()
    resolvable = 4 * problem.eps**0.5
    chosen = None if method is None and state is None else problem.method_for(method, 1, tol, None)
    if chosen is None:
        small = problem.rank <= _SMALL or eps < resolvable or norm is None
        chosen = Direct(route="svd") if small else ThickRestartLanczos()
    if isinstance(chosen, Direct):
        chosen = Direct(route="svd")
    elif norm is None:
        msg = (
            "the Frobenius norm of this operator is not known, so the error cannot be; give it a "
            "method frobenius_norm(), or use method='direct'"
        )
        raise ValueError(msg)
    elif eps < resolvable:
        msg = (
            f"eps={eps:g} is too small for {chosen.name!r}: ||A||_F^2 - sum s_i^2 has no digits left "
            f"below eps = {resolvable:.1e} in this dtype; use method='direct'"
        )
        raise ValueError(msg)
    stop = Energy(eps, math.inf if norm is None else norm * problem.unit, tol)
    return _grow(problem, chosen, stop, max_k, start, max_matvecs, callback, on_failure, verify)


def svds_above(
    A: Any,
    threshold: float | Callable[[HostArray], Any],
    *,
    max_k: int | None = None,
    method: str | Method | None = None,
    tol: float | None = None,
    start: Any = None,
    state: Any = None,
    rng: int | np.random.Generator | None = None,
    max_matvecs: int | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: bool = True,
) -> SVDResult:
    """All triplets with singular values above a threshold.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        As for `svds`.
    threshold : float or callable
        Triplets with ``s_i > threshold`` are wanted. A callable gets singular values (a descending
        float64 NumPy array) and returns a boolean array of the same shape: which are wanted; what
        follows the first False is not.
    max_k : int, optional
        Most triplets to compute; min(m, n) by default.
    method, tol, start, state, rng, max_matvecs, callback, on_failure, verify
        As for `svds`.

    Returns
    -------
    SVDResult
        With as many triplets as are wanted; none (shapes (m, 0), (0,), (0, n)) if no singular value
        is above the threshold.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([1.0, 0.5, 0.25, 0.125])
    >>> trsvd.svds_above(A, 0.2).S
    array([1.  , 0.5 , 0.25])
    >>> trsvd.svds_above(A, lambda S: np.cumsum(S) < 1.6).S  # a rule on all of them
    array([1. , 0.5])
    """
    problem = _Problem(A, rng, state)
    if callable(threshold):
        wanted = threshold
    else:
        level = float(threshold)
        if math.isnan(level) or level < 0:
            msg = f"threshold={threshold}; it must be a number of at least 0, or a callable"
            raise ValueError(msg)

        def wanted(S: HostArray) -> Any:
            return S > level

    tol = _check_tol(tol, problem.eps)
    if method is None and state is None:
        small = problem.rank <= _SMALL
        chosen: Method = Direct(route="svd") if small else ThickRestartLanczos()
    else:
        chosen = problem.method_for(method, 1, tol, None)
        if isinstance(chosen, Direct):
            chosen = Direct(route="svd")
    stop = Values(wanted, tol)
    return _grow(problem, chosen, stop, max_k, start, max_matvecs, callback, on_failure, verify)


@dataclass(frozen=True)
class Selection:
    """A method, and why it was chosen."""

    method: Method
    reason: str

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


_SMALL = 400
_DENSE_BYTES = 1 << 31


def select_method(
    A: Any, k: int, tol: float | None = None, *, max_matvecs: int | None = None
) -> Selection:
    """The method that `svds` uses when it is given none, and why.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        As for `svds`; not looked into, only its kind, shape and dtype count.
    k : int
        Number of triplets.
    tol : float, optional
        Relative residual asked for.
    max_matvecs : int, optional
        Cap on the products; a direct method counts min(m, n).

    Returns
    -------
    Selection
        ``method`` and ``reason``.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> print(trsvd.select_method(np.zeros((300, 200)), 5))
    Direct(route='auto'): min(m, n) = 200 is small: a dense factorization costs least
    """
    op = as_operator(A)
    m, n = op.shape
    rank = min(m, n)
    k = _check_k(k, rank)
    _check_tol(tol, op.arrays.eps)
    entries = op.max_abs.__func__ is not MatrixOperator.max_abs  # type: ignore[attr-defined]
    dense = is_array(getattr(op, "_A", None))
    bytes_dense = m * n * op.arrays.host_dtype.itemsize
    affordable = max_matvecs is None or max_matvecs >= rank
    iterative = ThickRestartLanczos()
    if not affordable:
        return Selection(
            iterative, f"max_matvecs = {max_matvecs} is less than min(m, n) = {rank}"
        )
    if bytes_dense > _DENSE_BYTES and not dense:
        return Selection(iterative, "as a dense array the matrix would take over 2 GiB")
    if rank <= 64 or (dense and rank <= _SMALL):
        return Selection(
            Direct(), f"min(m, n) = {rank} is small: a dense factorization costs least"
        )
    if dense and max(m, n) >= 8 * rank and rank <= 2048:
        return Selection(
            Direct(),
            f"max(m, n) / min(m, n) = {max(m, n) / rank:.3g}: the Gram matrix of the smaller side "
            "costs one pass",
        )
    share = k / rank
    if share > (0.1 if dense else 0.25):
        return Selection(
            Direct(), f"k is {share:.0%} of min(m, n): nearly the whole spectrum is asked for"
        )
    kind = "dense" if dense else "sparse" if entries else "known by its products"
    return Selection(
        iterative,
        f"k = {k} of min(m, n) = {rank}, {kind}: Lanczos takes the fewest products",
    )


# ---- what is asked ----------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """Where a run stands: handed back as ``state=`` with the same matrix."""

    run: Run
    method: Method
    shape: tuple[int, int]
    dtype_name: str
    scale_exponent: int


class _Problem:
    """A user's matrix as the methods work on it: at least as tall as wide, scaled, counted."""

    def __init__(self, A: Any, rng: Any, state: Any) -> None:
        self.user_op = as_operator(A)
        self.rng = np.random.default_rng(rng)
        self.arrays = self.user_op.arrays
        self.eps = self.arrays.eps
        self.shape = self.user_op.shape
        self.flipped = self.shape[0] < self.shape[1]
        self.rank = min(self.shape)
        op = AdjointOperator(self.user_op) if self.flipped else self.user_op
        size = op.max_abs()
        checked = 0
        if size is None:
            size, checked = probe(op, self.rng), 2
        elif not math.isfinite(size):
            msg = (
                f"A contains NaN or inf (its largest entry is {size}); a matrix with such entries "
                "has no SVD: remove or replace them"
            )
            raise ValueError(msg)
        self.op = Metered(op, size)
        self.op.matvecs_verify = checked
        self.state = self._checked_state(state)

    def _checked_state(self, state: Any) -> State | None:
        if state is None:
            return None
        if isinstance(state, SVDResult):
            state = state.state
        if not isinstance(state, State):
            msg = f"state is a {type(state).__name__}; pass result.state of an earlier call"
            raise TypeError(msg)
        if (state.shape, state.dtype_name) != (self.shape, self.arrays.dtype_name):
            msg = (
                f"state belongs to a matrix of shape {state.shape} in {state.dtype_name}, A has shape "
                f"{self.shape} in {self.arrays.dtype_name}; state= goes on with the same matrix, "
                "start= begins near an earlier result with another"
            )
            raise ValueError(msg)
        self.op.set_scale(state.scale_exponent)
        return state

    @property
    def unit(self) -> float:
        """What a singular value of the scaled operator is multiplied by to be one of A."""
        return math.ldexp(1.0, -self.op.scale_exponent)

    def method_for(
        self, method: str | Method | None, k: int, tol: float, max_matvecs: int | None
    ) -> Method:
        if self.state is not None:
            if method is not None and _named(method) != self.state.method:
                msg = (
                    f"state was made by {self.state.method}; it cannot go on as {_named(method)}: "
                    "leave method out, or start anew with start=result"
                )
                raise ValueError(msg)
            return self.state.method
        if method is None:
            return select_method(self.user_op, k, tol, max_matvecs=max_matvecs).method
        return _named(method)

    def hand_out(
        self, triplets: tuple[Array, HostArray, Array]
    ) -> tuple[Array, Array, Array]:
        """U, S and Vh of A itself, in the user's dtype, with the phases fixed."""
        arrays = self.arrays
        U, S, V = triplets
        if self.flipped:
            U, V = V, U
        if len(S):
            U, V = arrays.fix_phases(U, V)
        values = arrays.hand_out_values(np.ldexp(S, -self.op.scale_exponent))
        return arrays.hand_out(U), values, arrays.hand_out(arrays.adjoint(V))

    def start_block(self, start: Any) -> Array | None:
        """The user's start as right vectors of the operator that the methods see."""
        if start is None:
            return None
        arrays, (m, n) = self.arrays, self.shape
        if isinstance(start, SVDResult):
            rows = start.U if self.flipped else arrays.adjoint(arrays.take(start.Vh))
            block = arrays.take(rows)
            if (start.U.shape[0], start.Vh.shape[1]) != (m, n):
                msg = (
                    f"start is a result for shape {(start.U.shape[0], start.Vh.shape[1])}, A has shape "
                    f"{(m, n)}; a warm start needs the same shape"
                )
                raise ValueError(msg)
            if block.shape[1] == 0:
                return None
        else:
            if not is_array(start):
                msg = f"start is {describe(start)}; pass an array of shape ({n}, p) or an SVDResult"
                raise TypeError(msg)
            if start.ndim not in {1, 2} or start.shape[0] != n or 0 in tuple(start.shape):
                msg = (
                    f"start has shape {tuple(start.shape)}; right vectors for A of shape {(m, n)} have "
                    f"shape ({n}, p), or ({n},) for one"
                )
                raise ValueError(msg)
            block = arrays.take(start if start.ndim == 2 else start[:, None])
        size = arrays.max_abs(block)
        if not math.isfinite(size):
            msg = "start contains NaN or inf; pass finite vectors, or start=None"
            raise ValueError(msg)
        if size:
            block = block / size
        if self.flipped and not isinstance(start, SVDResult):
            block = self.op.rmatmat(block[:, : self.rank])
        return block[:, : self.rank]


def _named(method: str | Method) -> Method:
    if isinstance(method, str):
        if method not in METHODS:
            msg = f"method={method!r} is not known; choose one of {sorted(METHODS)}, or pass an object"
            raise ValueError(msg)
        return METHODS[method]()
    if isinstance(method, type) or not isinstance(method, Method):
        msg = f"method={method!r}; pass a name of {sorted(METHODS)} or an object, as trsvd.Direct()"
        raise TypeError(msg)
    return method


def _check_k(k: int, rank: int) -> int:
    if isinstance(k, (bool, np.bool_)):
        msg = f"k={k} is a truth value; pass the number of triplets"
        raise TypeError(msg)
    try:
        k = operator.index(k)
    except TypeError:
        msg = f"k={k!r} is not an integer; pass the number of triplets"
        raise TypeError(msg) from None
    if not 1 <= k <= rank:
        msg = f"k={k} is out of range; A has min(m, n) = {rank} triplets, so 1 <= k <= {rank}"
        raise ValueError(msg)
    return k


def _check_tol(tol: float | None, eps: float) -> float:
    if tol is None:
        return float(eps**0.75)
    tol = float(tol)
    if not (math.isfinite(tol) and tol >= 0):
        msg = f"tol={tol}; the relative residual must be a finite number of at least 0"
        raise ValueError(msg)
    return tol


# ---- the loop -----------------------------------------------------------------------------


def _grow(
    problem: _Problem,
    method: Method,
    stop: Stop,
    max_k: int | None,
    start: Any,
    max_matvecs: int | None,
    callback: Callback | None,
    on_failure: OnFailure,
    verify: bool,
) -> SVDResult:
    """Solve for a number of triplets that is found on the way."""
    limit = problem.rank if max_k is None else _check_k(max_k, problem.rank)
    first = limit if isinstance(method, Direct) else min(limit, 10)
    return _solve(
        problem, method, first, stop, start, max_matvecs, callback, on_failure, verify, limit
    )


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
        problem: _Problem,
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


def _solve(
    problem: _Problem,
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
    cap = max(200 * rank, 1000 * k) if max_matvecs is None else _check_cap(max_matvecs)
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


def _begin(problem: _Problem, method: Method, k: int, tol: float, start: Any) -> Run:
    if problem.state is not None:
        run = problem.state.run.copy()
        run.retarget(k)
        return run
    block = problem.start_block(start)
    return method.init(problem.op, k, tol=tol, start=block, rng=problem.rng)


def _restart(
    problem: _Problem,
    method: Method,
    driver: _Driver,
    outcome: _Outcome,
    missed: Array,
    stop: Stop,
) -> _Driver:
    """Begin anew from what was found and what was missed."""
    block = problem.arrays.xp.concat([outcome.triplets[2], missed], axis=1)
    k = driver.target if driver.limit == driver.target else min(
        driver.limit, driver.k + int(missed.shape[1])
    )
    run = method.init(
        problem.op, k, tol=stop.tol, start=block[:, : problem.rank], rng=problem.rng
    )
    run.iterations += driver.run.iterations
    return _Driver(problem, run, stop, k, driver.limit, driver.cap, driver.callback)


def _examine(
    problem: _Problem, driver: _Driver, ended: Status | None, tol: float
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


def _check_cap(max_matvecs: int) -> int:
    try:
        cap = operator.index(max_matvecs)
    except TypeError:
        msg = f"max_matvecs={max_matvecs!r} is not an integer"
        raise TypeError(msg) from None
    if cap < 1:
        msg = f"max_matvecs={cap}; at least one product is needed"
        raise ValueError(msg)
    return cap


def _finish(
    problem: _Problem,
    method: Method,
    driver: _Driver,
    outcome: _Outcome,
    completeness: Completeness,
    on_failure: OnFailure,
) -> SVDResult:
    """Hand out the result in the user's terms, and warn or raise where it misses the tolerance."""
    op = problem.op
    U, S, Vh = problem.hand_out(outcome.triplets)
    state = State(
        driver.run, method, problem.shape, problem.arrays.dtype_name, op.scale_exponent
    )
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
