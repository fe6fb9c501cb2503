"""`svds`, `svds_to_tolerance`, `svds_above` and `svdvals`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import dtype_name
from trsvd._compiled.small import Ended
from trsvd._errors import warn_caller
from trsvd._krylov.stopping import Energy, Residual, Values
from trsvd._solve.batch import is_batch, svds_of_batch
from trsvd._solve.driver import (
    ON_FAILURE,
    Callback,
    GaveWay,
    OnFailure,
    Request,
    Verify,
    solve,
)
from trsvd._solve.problem import Problem
from trsvd._solve.result import NotConverged, SVDResult
from trsvd._solve.select import SMALL, suits_direct
from trsvd._solve.small import small_svds
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
    time_limit: float | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: Verify = True,
    progress: bool = False,
) -> SVDResult:
    """Compute the k leading singular triplets of a matrix, or of each matrix of a batch.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n), or array of shape (..., m, n)
        A NumPy, CuPy, PyTorch or other array API array; a sparse matrix or array of scipy or cupyx,
        or a sparse tensor of torch; a frame of pandas or polars (converted: results are NumPy
        arrays); or an object with ``shape``, ``dtype``, ``matmat`` and ``rmatmat`` (``matvec`` and
        ``rmatvec`` are sufficient). Real or complex. Half precision is computed in float32,
        integers and bool in float64. A is not modified, and gradients do not flow through. Leading
        dimensions of an array are a batch: small matrices are factorized together, which is faster
        than single calls, and others one after the other.
    k : int
        Number of triplets, ``1 <= k <= min(m, n)``.
    method : str or Method, optional
        ``"trlan"``, ``"rsvd"``, ``"krylov"``, ``"power"``, ``"direct"``, or an object such as
        ``ThickRestartLanczos(basis_size=100)``. None: chosen by `select_method`.
    tol : float, optional
        Largest relative residual of a triplet, below 1. The default is ``eps**0.75``: 1.8e-12 in
        float64, 6.4e-6 in float32.
    start : array of shape (n, p) or (n,), or SVDResult, optional
        Warm start for a matrix near an earlier one: right vectors, or the earlier result. If at
        least k vectors meet the tolerance already, one product with each and the checks are the
        whole cost. Any other start costs at most p products each way more than none. For a batch,
        vectors of shape (..., n, p), or the result of an earlier batch.
    state : object, optional
        ``result.state`` of an earlier call with the *same* matrix. The run continues from there,
        for more triplets or a smaller tolerance. Not for a batch.
    rng : int or numpy.random.Generator, optional
        Seed or generator of all random numbers. None: each call draws a new seed. A batch uses one
        generator for all of its matrices.
    max_matvecs : int, optional
        Largest number of products with A or A^H for a matrix, counted in vectors. The default is
        ``max(200 min(m, n), 1000 k)``. Not included, and counted as ``matvecs_verify``, are up to
        2 k products for residuals, some tens for the check for missed singular values, and eight
        to check an operator.
    time_limit : float, optional
        Time in seconds after which the method stops at its next step, once it has k triplets. A
        single factorization is not interrupted, and the checks of the result follow. For a batch it
        is the time for all matrices.
    callback : callable, optional
        Function that is called as ``callback(info)`` after each step, with an `Info`. If it returns
        True, the run ends. A step is an iteration, or a single product for Golub-Kahan Lanczos. For
        a batch, True ends the run of one matrix.
    on_failure : {"return", "raise"}, default "return"
        If triplets miss ``tol``: ``"return"`` warns with `ConvergenceWarning` and returns the best
        triplets; ``"raise"`` raises `NotConverged`, which has them as ``result``.
    verify : bool, float or "exact", default True
        Check the converged triplets for missed larger singular values. True: randomized check,
        normally with at most 10 % more products; for ``tol >= 1e-3`` it continues, for some tens of
        products, until a value that exceeds s_k by ``tol s_1 / 2`` would have shown. A float
        ``eta``: except with probability 1e-3, no missed value exceeds ``(1 + eta) (s_k + tol
        s_1)``. ``"exact"``: compute all singular values
        of the remainder; no missed value exceeds ``s_k + tol s_1``. A is formed for that, and
        min(m, n) must be at most 8192. False: no check. Values within ``tol s_1`` of s_k are never
        searched; if small values matter, use a smaller tol. Residuals are always computed from
        products.
    progress : bool, default False
        True: show the converged triplets, the largest residual and the products on standard error,
        in a terminal or notebook.

    Returns
    -------
    SVDResult
        The triplets; unpacks as ``U, S, Vh``, of shapes (m, k), (k,) and (k, n), in the dtype,
        namespace and device of A. S is descending. For a batch, the batch dimensions come first.

    Raises
    ------
    TypeError
        If A is not a supported matrix, or an argument has the wrong type.
    ValueError
        If a matrix is empty or not finite, if k, tol or ``start`` do not fit, if max_matvecs is too
        small for k triplets, or if a singular value is too large for the dtype.
    AdjointError
        If ``rmatmat`` is not the adjoint of ``matmat``.
    MemoryError
        If the method needs more than the free memory of the host. Nothing is allocated then.
    NotConverged
        With ``on_failure="raise"``, if the tolerance is not met.

    See Also
    --------
    svdvals, svds_to_tolerance, svds_above, select_method, SVDResult

    Notes
    -----
    The costs in products and memory are documented with each method. `SVDResult` and
    `Completeness` say what ``converged`` proves, and what it does not.

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
    plain = method is None and max_matvecs is None and time_limit is None
    plain = plain and callback is None and state is None and not progress
    ended = (
        small_svds(A, k, tol, rng, verify, start) if plain and on_failure in ON_FAILURE else None
    )
    if isinstance(ended, SVDResult):
        return ended
    request = Request(start, max_matvecs, callback, on_failure, verify, time_limit, progress)
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
                time_limit=request.seconds_left,
                callback=callback,
                on_failure="raise",
                verify=verify,
                progress=progress,
            )

        return svds_of_batch(
            A, k, method=method, tol=tol, state=state, rng=rng, request=request, single=single
        )
    problem = Problem(A, rng, state)
    k = check_k(k, problem.rank)
    tol = check_tol(tol, problem.eps)
    flat = ended is Ended.FLAT
    chosen = Direct() if flat else problem.method_for(method, k, tol, max_matvecs)
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
    time_limit: float | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: Verify = True,
    progress: bool = False,
) -> SVDResult:
    """Compute the smallest number of leading triplets with ``||A - A_k||_F <= eps ||A||_F``.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        As for `svds`. An operator needs a method ``frobenius_norm()``, or must be small enough to
        be formed.
    eps : float
        Relative error in the Frobenius norm, ``0 < eps < 1``.
    max_k : int, optional
        Largest number of triplets. The default is min(m, n). The status says if it was reached.
    method, tol, start, state, rng, max_matvecs, time_limit, callback, on_failure, verify, progress
        As for `svds`.

    Returns
    -------
    SVDResult
        The result, with as many triplets as necessary. One Krylov space grows until it suffices.

    Raises
    ------
    ValueError
        If eps is not between 0 and 1, is at most ten rounding units of the compute dtype, or is so
        small that ``||A||_F^2 - sum s_i^2`` has no digits left and the method is not direct.

    See Also
    --------
    svds, svds_above

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
    request = Request(start, max_matvecs, callback, on_failure, verify, time_limit, progress)
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
    time_limit: float | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: Verify = True,
    progress: bool = False,
) -> SVDResult:
    """Compute all triplets with singular values above a threshold.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        As for `svds`.
    threshold : float or callable
        Triplets with ``s_i > threshold`` are wanted. A callable gets singular values (a descending
        float64 NumPy array) and returns a boolean array of the same shape. Values after the first
        False are not wanted.
    max_k : int, optional
        Largest number of triplets. The default is min(m, n). The status says if it was reached.
    method, tol, start, state, rng, max_matvecs, time_limit, callback, on_failure, verify, progress
        As for `svds`.

    Returns
    -------
    SVDResult
        The wanted triplets; shapes (m, 0), (0,) and (0, n) if no singular value is above the
        threshold. Computed values have rounding errors of up to ``max(m, n) eps s_1``, with eps of
        the compute dtype. A threshold below that also counts values that are only rounding errors.

    See Also
    --------
    svds, svds_to_tolerance

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
    request = Request(start, max_matvecs, callback, on_failure, verify, time_limit, progress)
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
    time_limit: float | None = None,
    callback: Callback | None = None,
    on_failure: OnFailure = "return",
    verify: Verify | None = None,
) -> Array:
    """Compute the k largest singular values of a matrix, or of each matrix of a batch.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n), or array of shape (..., m, n)
        As for `svds`.
    k : int
        Number of singular values, ``1 <= k <= min(m, n)``.
    method, tol, start, rng, max_matvecs, time_limit, callback
        As for `svds`.
    on_failure : {"return", "raise"}, default "return"
        If triplets miss ``tol``: ``"return"`` warns with `ConvergenceWarning` and returns the best
        values; ``"raise"`` raises `NotConverged`, which has the triplets as ``result``.
    verify : bool, float or "exact", optional
        As for `svds`. The default is 1e-3, a finer check than that of `svds`, since the values have
        no certificate; it is True for k = 1, where multiple values do not matter.

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
    For k > 1 and at most 2^18 entries, all singular values are computed by LAPACK, unless one of
    ``method``, ``start``, ``max_matvecs``, ``time_limit``, ``callback`` or ``verify`` is given. An
    operator is formed for that by min(m, n) products. Otherwise the cost is that of `svds` with
    this ``verify``.

    The error of a value is at most ``tol s_1`` without a warning, and usually much smaller.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.svdvals(np.diag([3.0, 2.0, 1.0]), 2)
    array([3., 2.])
    """
    A = admitted(A)
    checked = verify is None or verify
    Request(start, max_matvecs, callback, on_failure, checked, time_limit)  # checks them
    if not is_batch(A):
        A = as_operator(A)
        k = check_k(k, min(A.shape))
        options = (method, start, max_matvecs, time_limit, callback, verify)
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
        time_limit=time_limit,
        callback=callback,
        on_failure=on_failure,
        verify=verify,
    )


def _grow(
    problem: Problem, method: Method, stop: Energy | Values, request: Request, max_k: int | None
) -> SVDResult:
    """Solve for a number of triplets that the stopping rule determines."""
    limit = problem.rank if max_k is None else check_k(max_k, problem.rank)
    first = limit if isinstance(method, Direct) else min(limit, 10)
    return solve(problem, method, stop, request, first, limit)


# Up to this many entries, all singular values take about as long as a few with verify=FINE_ETA.
_ALL_UP_TO = 1 << 18


def singular_values(X: Any) -> HostArray:
    """Return all singular values of X, descending, in float64 on the host."""
    problem = Problem(X, 0, None)
    _, values, _ = problem.arrays.svd(problem.op.scaled_dense())
    return np.ldexp(values, -problem.op.scale_exponent)


def leading_values(X: Any, k: int) -> HostArray:
    """Return the k (or min(m, n)) largest singular values of X, in float64 on the host."""
    op = as_operator(X)
    k = min(k, *op.shape)
    if _all_are_cheap(op, k):
        return singular_values(op)[:k]
    if dtype_name(op.arrays.out_dtype) in {"float16", "bfloat16"}:
        X = op.dense()  # in the compute dtype, which has the range of the values
    advice = (
        "pass a dense array, all of whose singular values are computed, or call trsvd.svds with "
        "options of your own"
    )
    return op.arrays.get(_checked_values(X, k, advice, rng=0)).astype(np.float64)


def _all_are_cheap(op: MatrixOperator, k: int) -> bool:
    """True if all singular values are computed to get k; k = 1 has no copies to miss."""
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
    """Return the k largest singular values by `svds`; warn with ``advice`` if they may be wrong.

    Numbers have no certificate. The check for missed copies of multiple values is therefore finer
    than that of `svds`.
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
