"""`svds` and its relatives, and the one loop that drives every method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import dtype_name
from trsvd._errors import warn_caller
from trsvd._krylov.stopping import Energy, Residual, Values
from trsvd._solve.batch import is_batch, svds_of_batch
from trsvd._solve.driver import Callback, GaveWay, OnFailure, Request, Verify, solve
from trsvd._solve.problem import Problem
from trsvd._solve.result import NotConverged, SVDResult
from trsvd._solve.select import SMALL, suits_direct
from trsvd._solve.verify import FINE_ETA
from trsvd._validate import check_k, check_number, check_rng, check_tol
from trsvd.methods import Direct, Method, ThickRestartLanczos
from trsvd.operators import as_operator
from trsvd.operators.base import MatrixOperator


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
    verify: Verify = True,
) -> SVDResult:
    """The k leading singular triplets of a matrix, or of each matrix of a batch.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n), or array of shape (..., m, n)
        A NumPy, CuPy, PyTorch or other array API array; a sparse matrix or array of scipy or cupyx,
        or a sparse tensor of torch; a frame of pandas or polars (converted: results are NumPy
        arrays); or an object with ``shape``, ``dtype``, ``matmat`` and ``rmatmat`` (``matvec`` and
        ``rmatvec`` are enough). Real or complex. Half precision is computed in float32, integers
        and bool in float64. Never written to; gradients do not flow through. Leading dimensions of
        an array are a batch: small matrices are factorized together, which spares most of what a
        call costs, others are computed one after the other.
    k : int
        Number of triplets, ``1 <= k <= min(m, n)``.
    method : str or Method, optional
        ``"trlan"``, ``"rsvd"``, ``"krylov"``, ``"power"``, ``"direct"``, or an object such as
        ``ThickRestartLanczos(basis_size=100)``. None leaves the choice to `select_method`.
    tol : float, optional
        Relative residual that every triplet must meet, below 1; ``eps**0.75`` by default: 1.8e-12
        in float64, 6.4e-6 in float32.
    start : array of shape (n, p) or (n,), or SVDResult, optional
        Warm start for a matrix near an earlier one: right vectors, or the earlier result. For a
        batch vectors of shape (..., n, p), or the result of an earlier batch.
    state : object, optional
        ``result.state`` of an earlier call with the *same* matrix: continues where that one ended,
        for more triplets or a tighter tolerance. Not for a batch.
    rng : int or numpy.random.Generator, optional
        Seed or generator of all random numbers; with None each call draws its own. A batch has one
        for all of its matrices.
    max_matvecs : int, optional
        Hard cap on the products with A or A^H, in vectors, that the method makes for a matrix;
        ``max(200 min(m, n), 1000 k)`` by default. Residuals of what is returned take up to 2 k
        products more, the check for missed singular values a few tens (``verify=False`` leaves it
        out), and what is known by products only two at the start; they are counted as
        ``matvecs_verify``.
    callback : callable, optional
        Called as ``callback(info)`` after each step with an `Info`; True ends the run. A step is
        an iteration, or half of one (a single product) for Golub-Kahan Lanczos. Of a batch True
        ends the run of one matrix.
    on_failure : {"return", "raise"}, default "return"
        When the triplets miss ``tol``: warn with `ConvergenceWarning` and return the best, or
        raise `NotConverged`, which has them as ``result``.
    verify : bool, float or "exact", default True
        Whether converged triplets are checked for missed singular values: True with a stated
        probability, as far as a tenth of the products goes; a number eta so that none above
        ``(1 + eta) (s_k + tol s_1)`` is missed, with that probability; "exact" by all singular
        values of what they leave, none above ``s_k + tol s_1``, for which A is formed (a
        ValueError where min(m, n) > 8192). What lies within tol of s_k is never looked for: where
        small values matter, ask for a smaller tol. Residuals are always computed from products.

    Returns
    -------
    SVDResult
        Unpacks as ``U, S, Vh``: shapes (m, k), (k,), (k, n), S descending, in A's dtype, namespace
        and device; for a batch with its dimensions before these.

    Raises
    ------
    TypeError
        If A is not a matrix that can be computed with, or an argument has the wrong type.
    ValueError
        If a matrix has no rows or columns or is not finite, if k, tol or ``start`` do not fit, if
        max_matvecs is too small to form k triplets, or a singular value too large for the dtype.
    AdjointError
        If ``rmatmat`` is not the adjoint of ``matmat``.
    MemoryError
        If what the method needs does not fit into the host's memory, before it is allocated.
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
    >>> trsvd.svds(np.stack([A, 2 * A]), 2).S
    array([[3., 2.],
           [6., 4.]])
    """
    A = admitted(A)
    request = Request(start, max_matvecs, callback, on_failure, verify)
    if is_batch(A):

        def single(G: Any, begin: Any, source: np.random.Generator) -> SVDResult:
            return svds(
                G,
                k,
                method=method,
                tol=tol,
                start=begin,
                rng=source,
                max_matvecs=max_matvecs,
                callback=callback,
                on_failure="raise",
                verify=verify,
            )

        return svds_of_batch(
            A, k, method=method, tol=tol, state=state, rng=rng, request=request, single=single
        )
    problem = Problem(A, rng, state)
    k = check_k(k, problem.rank)
    tol = check_tol(tol, problem.eps)
    chosen = problem.method_for(method, k, tol, max_matvecs)
    stop = Residual(k, tol)
    free = method is None and state is None and max_matvecs is None and callback is None
    if not (free and suits_direct(problem.user_op)):
        return solve(problem, chosen, stop, request, k, k)
    try:
        return solve(problem, chosen, stop, replace(request, gives_way=True), k, k)
    except GaveWay:
        return solve(problem, Direct(), stop, replace(request, start=None), k, k)


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
    verify: Verify = True,
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
        Most triplets to compute; min(m, n) by default. A run that ends there says so.
    method, tol, start, state, rng, max_matvecs, callback, on_failure, verify
        As for `svds`.

    Returns
    -------
    SVDResult
        With the k that it took. One Krylov space grows until it suffices; nothing starts over.

    Raises
    ------
    ValueError
        If eps is not between 0 and 1, at most ten rounding units of the dtype that is computed in
        (triplets of that dtype cannot leave less), or so small that ``||A||_F^2 - sum s_i^2`` has
        no digits left and the method is not direct.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([1.0, 0.5, 0.25, 0.125])
    >>> trsvd.svds_to_tolerance(A, 0.3).S
    array([1. , 0.5])
    """
    problem = Problem(A, rng, state)
    if not 0 < check_number("eps", eps) < 1:
        raise ValueError(f"eps={eps}; the relative error must be between 0 and 1")
    if eps <= 10 * problem.eps:
        raise ValueError(
            f"eps={eps:g} is at the rounding level of this dtype ({problem.eps:.1e}): triplets in "
            "it cannot leave so little of A; ask for a larger eps, or convert A to a wider dtype"
        )
    tol = check_tol(tol, problem.eps)
    norm = problem.op.frobenius_norm()
    resolvable = 4 * problem.eps**0.5
    chosen = None if method is None and state is None else problem.method_for(method, 1, tol, None)
    if chosen is None:
        small = problem.rank <= SMALL or eps < resolvable or norm is None
        chosen = Direct(route="svd") if small else ThickRestartLanczos()
    if isinstance(chosen, Direct):
        chosen = Direct(route="svd")
    elif norm is None:
        raise ValueError(
            "the Frobenius norm of this operator is not known, so the error cannot be; give it a "
            "method frobenius_norm(), or use method='direct'"
        )
    elif eps < resolvable:
        raise ValueError(
            f"eps={eps:g} is too small for {chosen.name!r}: ||A||_F^2 - sum s_i^2 has no digits "
            f"left below eps = {resolvable:.1e} in this dtype; use method='direct'"
        )
    stop = Energy(eps, math.inf if norm is None else norm * problem.unit, tol)
    request = Request(start, max_matvecs, callback, on_failure, verify)
    return _grow(problem, chosen, stop, request, max_k)


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
    verify: Verify = True,
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
        Most triplets to compute; min(m, n) by default. A run that ends there says so.
    method, tol, start, state, rng, max_matvecs, callback, on_failure, verify
        As for `svds`.

    Returns
    -------
    SVDResult
        With as many triplets as are wanted; none (shapes (m, 0), (0,), (0, n)) if no singular value
        is above the threshold. Computed values carry rounding errors of up to ``max(m, n) eps s_1``
        (eps of the dtype that is computed in): a threshold below that counts such errors too.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([1.0, 0.5, 0.25, 0.125])
    >>> trsvd.svds_above(A, 0.2).S
    array([1.  , 0.5 , 0.25])
    >>> trsvd.svds_above(A, lambda S: np.cumsum(S) < 1.6).S  # a rule on all of them
    array([1. , 0.5])
    """
    problem = Problem(A, rng, state)
    if callable(threshold):
        wanted = threshold
    else:
        level = check_number("threshold", threshold)
        if math.isnan(level) or level < 0:
            raise ValueError(
                f"threshold={threshold}; it must be a number of at least 0, or a callable"
            )

        def wanted(S: HostArray) -> Any:
            return np.greater(S, level)

    tol = check_tol(tol, problem.eps)
    if method is None and state is None:
        small = problem.rank <= SMALL
        chosen: Method = Direct(route="svd") if small else ThickRestartLanczos()
    else:
        chosen = problem.method_for(method, 1, tol, None)
        if isinstance(chosen, Direct):
            chosen = Direct(route="svd")
    stop = Values(wanted, tol)
    request = Request(start, max_matvecs, callback, on_failure, verify)
    return _grow(problem, chosen, stop, request, max_k)


def svdvals(
    A: Any,
    k: int,
    *,
    method: str | Method | None = None,
    tol: float | None = None,
    start: Any = None,
    rng: int | np.random.Generator | None = None,
    max_matvecs: int | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: Verify | None = None,
) -> Array:
    """The k largest singular values of a matrix, or of each matrix of a batch.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n), or array of shape (..., m, n)
        As for `svds`.
    k : int
        Number of singular values, ``1 <= k <= min(m, n)``.
    method, tol, start, rng, max_matvecs, callback
        As for `svds`.
    on_failure : {"return", "raise"}, default "return"
        When the triplets that the values belong to miss ``tol``: warn with `ConvergenceWarning`
        and return the best values, or raise `NotConverged`, which has the triplets as ``result``.
    verify : bool, float or "exact", optional
        As for `svds`. By default 1e-3, a closer check than that of `svds`, as the values come
        without `Completeness`; True for k = 1, which no multiple value can change.

    Returns
    -------
    array of shape (k,) or (..., k)
        Singular values, descending, in the real dtype, the namespace and the device of A.

    Raises
    ------
    TypeError, ValueError, AdjointError, MemoryError, NotConverged
        As `svds`.

    See Also
    --------
    svds : Triplets, with a residual for each, a status and the number of products.

    Notes
    -----
    For k > 1 and at most 2^18 entries, all singular values are computed by LAPACK, unless
    ``method``, ``start``, ``max_matvecs``, ``callback`` or ``verify`` is given; an operator is
    formed for that by min(m, n) products. Otherwise the cost is that of `svds` with this
    ``verify``.

    The error of a value is at most ``tol s_1`` without a warning, and usually much smaller.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.svdvals(np.diag([3.0, 2.0, 1.0]), 2)
    array([3., 2.])
    """
    A = admitted(A)
    Request(start, max_matvecs, callback, on_failure, verify is None or verify)  # checks them
    if not is_batch(A):
        A = as_operator(A)
        k = check_k(k, min(A.shape))
        options = (method, start, max_matvecs, callback, verify)
        if all(option is None for option in options) and _all_are_cheap(A, k):
            check_tol(tol, A.arrays.eps)
            check_rng(rng)
            return A.arrays.hand_out_values(singular_values(A)[:k])
    return _checked_values(
        A,
        k,
        "raise tol or max_matvecs, use method='direct', or call trsvd.svds, whose result has a "
        "residual for each value",
        method=method,
        tol=tol,
        start=start,
        rng=rng,
        max_matvecs=max_matvecs,
        callback=callback,
        on_failure=on_failure,
        verify=verify,
    )


def _grow(
    problem: Problem, method: Method, stop: Energy | Values, request: Request, max_k: int | None
) -> SVDResult:
    """Solve for a number of triplets that is found on the way."""
    limit = problem.rank if max_k is None else check_k(max_k, problem.rank)
    first = limit if isinstance(method, Direct) else min(limit, 10)
    return solve(problem, method, stop, request, first, limit)


# Up to this many entries, all singular values take about as long as a few with verify=FINE_ETA.
_ALL_UP_TO = 1 << 18


def singular_values(X: Any) -> HostArray:
    """All singular values of X, descending, in float64 on the host."""
    problem = Problem(X, 0, None)
    _, values, _ = problem.arrays.svd(problem.op.scaled_dense())
    return np.ldexp(values, -problem.op.scale_exponent)


def leading_values(X: Any, k: int) -> HostArray:
    """The k (or min(m, n)) largest singular values of X, in float64 on the host."""
    op = as_operator(X)
    k = min(k, *op.shape)
    if _all_are_cheap(op, k):
        return singular_values(op)[:k]
    if dtype_name(op.arrays.out_dtype) in {"float16", "bfloat16"}:
        X = op.dense()  # in the dtype that it is computed in, whose range holds the values
    advice = (
        "pass a dense array, all of whose singular values are computed, or call trsvd.svds with "
        "options of your own"
    )
    return op.arrays.get(_checked_values(X, k, advice, rng=0)).astype(np.float64)


def _all_are_cheap(op: MatrixOperator, k: int) -> bool:
    """True if all singular values are computed for the sake of k: the first has no copies."""
    return k > 1 and math.prod(op.shape) <= _ALL_UP_TO


def _checked_values(
    X: Any,
    k: int,
    advice: str,
    *,
    on_failure: OnFailure = "return",
    verify: Verify | None = None,
    **options: Any,
) -> Array:
    """The k largest singular values by `svds`; a warning with ``advice`` where they may be wrong.

    Numbers have no certificate: missed copies of multiple values are looked for longer than `svds`
    does.
    """
    if verify is None:
        verify = True if k == 1 else FINE_ETA
    try:
        return svds(X, k, verify=verify, on_failure="raise", **options).S
    except NotConverged as error:
        if on_failure == "raise":
            raise
        result, cause = error.result, error.result.status.value.partition("; ")[0]
    warn_caller(f"{cause} (k = {k} largest singular values, {result.matvecs} products); {advice}")
    return result.S
