"""Oracle of the spectral ball: minus the polar factor, by SVD, Gram matrix or iterations.

The result of an iteration is not exact, and may lie outside of the ball. It is divided by a bound
of its largest singular value. The gap follows from a bound of the nuclear norm. Both bounds come
from the images of singular values under the polynomials (`trsvd.polar.bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray, is_array
from trsvd._arrays.dtypes import dtype_name, is_sparse
from trsvd._errors import Status, warn_caller
from trsvd._oracles.leading_pairs import leading_pairs, rounding_of
from trsvd._oracles.options import ITERATIONS, Options
from trsvd._oracles.result import DenseTerm, LMOResult, LowRankTerm
from trsvd._solve.problem import Problem
from trsvd.methods import ALIASES, METHODS, Direct, Method
from trsvd.operators import as_operator
from trsvd.polar.bounds import scalar_map
from trsvd.polar.methods import FAR, HALF, UNITS, PolarIteration, rounding_unit
from trsvd.polar.polynomials import polynomial_step

# Number of entries of a panel of rows in inner products.
_PANEL = 1 << 21


def polar_minimizer(
    G: Any, options: Options, radius: float, by_svd: Callable[[Options], LMOResult]
) -> LMOResult:
    """Return ``-radius U V^H`` for ``G = U S V^H``, or an approximation, by the given method.

    Parameters
    ----------
    G : array, sparse matrix or operator of shape (m, n)
        The matrix.
    options : Options
        Options of the oracle.
    radius : float
        Factor of the spectral ball.
    by_svd : callable
        Function that computes the minimizer from all singular pairs, for other methods.

    Returns
    -------
    LMOResult
    """
    method: Any = options.method
    if isinstance(method, PolarIteration):
        return _by_iteration(G, method, options, radius, by_svd)
    if method == "gram" or method == ALIASES["gram"]:
        return _by_gram(G, options, radius, by_svd)
    if isinstance(method, str) and method not in METHODS and method not in ALIASES:
        raise ValueError(
            f"method={method!r} is not known; name one of {sorted([*METHODS, *ITERATIONS])} or "
            "pass an object, as trsvd.NewtonSchulz()"
        )
    return by_svd(options)


class _Dense:
    """Tall or square scaled array, and results made from it."""

    def __init__(self, G: Any, options: Options, radius: float) -> None:
        self.problem = problem = Problem(G, options.rng, None, in_compute_dtype=True)
        self.arrays, self.radius = problem.arrays, radius
        self.A = problem.op.scaled_dense()
        # An operator without entries was formed by min(m, n) products.
        formed = not (is_array(G) or is_sparse(G))
        self.matvecs = problem.op.matvecs_verify + (problem.rank if formed else 0)
        self.passes = int(formed)

    def count(self, matvecs: int, passes: int) -> None:
        """Add products to the counters."""
        self.matvecs += matvecs
        self.passes += passes

    def result(self, X: Array, upper: float | None) -> LMOResult:
        """Return ``-radius X`` with its gap to a bound of ``||G||_*``; None means exact."""
        problem, arrays = self.problem, self.arrays
        D = problem.user_op.arrays.hand_out(X)
        attained = _inner(arrays, self.A, D)
        gap = rounding_of(arrays)
        if upper is not None:
            gap = max(gap, 1 - attained / upper) if upper else 0.0
        if problem.flipped:
            D = arrays.adjoint(D)
        return LMOResult(
            terms=(DenseTerm(-self.radius, partial(_itself, D)),),
            support=self.radius * attained * problem.unit,
            gap=gap,
            gap_kind="exact" if upper is None else "bound",
            subspace=None,
            matvecs=self.matvecs,
            passes=self.passes,
            status=Status.CONVERGED,
        )

    def instead(self, other: LMOResult) -> LMOResult:
        """Return another result, with the products made here added."""
        return replace(
            other, matvecs=self.matvecs + other.matvecs, passes=self.passes + other.passes
        )


# ---- iterations -----------------------------------------------------------------------------


def _by_iteration(
    G: Any,
    method: PolarIteration,
    options: Options,
    radius: float,
    by_svd: Callable[[Options], LMOResult],
) -> LMOResult:
    """Return the last iterate, divided by a bound of its largest singular value."""
    if options.tol is not None:
        raise ValueError(
            f"tol={options.tol} is a residual of singular triplets, which {method} does not "
            "compute; pass gap=, or another method"
        )
    dense = _Dense(G, options, radius)
    precision = method.dtype or _precision_of(dense.arrays)
    found = _iterated(dense, method, precision)
    result = None if found is None else dense.result(*found)
    if result is None or not _is_sound(result):
        return dense.instead(by_svd(replace(options, method=None)))
    if precision in HALF:
        result = replace(result, gap_kind="estimate")
    missed = options.gap is not None and result.gap > options.gap
    if options.certify and (missed or result.gap_kind == "estimate"):
        return dense.instead(by_svd(replace(options, method=None)))
    if missed:
        result = replace(result, status=Status.MAX_ITERATIONS)
        msg = (
            f"{method} came to a gap of {result.gap:.2e} ({result.gap_kind}), where "
            f"{options.gap:.2e} was asked for; give it more steps, or take trsvd.PolarExpress or "
            "method='exact'"
        )
        warn_caller(msg)
    return result


def _iterated(dense: _Dense, method: PolarIteration, precision: str) -> tuple[Array, float] | None:
    """The last iterate, brought into the ball, and an upper bound of ``||A||_*``.

    None where what came out is not what the polynomials make of singular values.
    """
    arrays, A, shape = dense.arrays, dense.A, dense.problem.shape
    dtype = product_dtype(arrays, precision, method)
    half, eps = precision in HALF, UNITS[precision]
    norm = arrays.frobenius_norm(A)
    if norm == 0:
        return A, 0.0
    norm *= 1 + eps  # after rounding to the dtype, the largest singular value is at most 1
    polynomials = method.polynomials(precision, shape)
    with np.errstate(over="ignore", invalid="ignore"):  # looked at next
        X = _normalized(arrays, A, norm, dtype, narrower=eps > arrays.eps)
        for polynomial in polynomials:
            X = polynomial_step(arrays, X, polynomial)
    dense.count(method.matvecs(shape), sum(map(len, polynomials)))
    unit = 0.0 if half else rounding_unit(precision, shape)
    known = scalar_map(polynomials, unit)
    largest, slack = known.largest, 4 * eps if half else 100 * eps
    estimate = _norm_estimate(arrays, X)
    if half:
        if not math.isfinite(estimate):
            raise ValueError(
                f"{method} left the range of its dtype: rounding made it diverge; leave safety and "
                "cushion to their defaults, or compute in 'float32'"
            )
        # The polynomials do not show a divergence by rounding errors.
        largest = max(largest * (1 + 2 * eps), estimate * (1 + eps))
    elif not (estimate <= largest * (1 + rounding_unit(_single(arrays.dtype_name), shape)) <= FAR):
        return None
    attained = _inner(arrays, A, X) / norm
    upper = norm * (1 + slack) * known.sum_at_most(attained, dense.problem.rank)
    # Divided in the wider of both dtypes. The last rounding errors are those of the division and
    # of the conversion to the dtype of the result.
    largest *= (1 + unit) * (1 + UNITS[_precision_of(dense.problem.user_op.arrays)])
    X = arrays.like(X) if eps > arrays.eps else X
    return arrays.like(X * (1 / largest) if largest > 1 else X), upper


def _is_sound(result: LMOResult) -> bool:
    """True if the update is a descent direction with a finite gap."""
    attains = 0 < result.support < math.inf and result.gap < 1
    return attains or (result.support == 0 and result.gap == 0)  # the update of G = 0


def _normalized(arrays: Arrays, A: Array, norm: float, dtype: Any, *, narrower: bool) -> Array:
    """Return ``A / norm`` in a dtype, rounded once."""
    if narrower:
        return arrays.xp.astype(A * (1 / norm), dtype)
    return arrays.xp.astype(A, dtype, copy=False) * (1 / norm)


def _precision_of(arrays: Arrays) -> str:
    """Return the precision of results."""
    return _single(dtype_name(arrays.out_dtype))


def _single(name: str) -> str:
    """Return the dtype of the real part."""
    return {"complex64": "float32", "complex128": "float64"}.get(name, name)


def product_dtype(arrays: Arrays, precision: str, method: PolarIteration) -> Any:
    """Return the dtype of the products, as an object of the library."""
    name = precision
    if arrays.is_complex:
        if precision in HALF:
            raise TypeError(
                f"G is complex ({arrays.dtype_name}), and there are no complex numbers in "
                f"{precision}; leave dtype of {method} out, or give 'float32' or 'float64'"
            )
        name = {"float32": "complex64", "float64": "complex128"}[precision]
    return arrays.dtype_named(name)


def _norm_estimate(arrays: Arrays, X: Array) -> float:
    """Return a lower bound of the largest singular value by power iterations; NaN or inf if X has.

    It detects products with larger rounding errors than expected.
    """
    X = arrays.like(X)
    size = arrays.max_abs(X)
    if not math.isfinite(size):
        return math.inf
    X = X * (1 / (size or 1.0))
    V = arrays.gaussian(np.random.default_rng(0), X.shape[1], 4)
    lengths = arrays.column_norms(V)
    with arrays.as_asked():
        for _ in range(6):
            V = arrays.adjoint_product(X, arrays.product(X, V / arrays.like(lengths)))
            lengths = arrays.column_norms(V) + arrays.eps
    return size * math.sqrt(float(arrays.get(arrays.xp.max(lengths))))


# ---- Gram matrix ----------------------------------------------------------------------------


def _by_gram(
    G: Any, options: Options, radius: float, by_svd: Callable[[Options], LMOResult]
) -> LMOResult:
    """Compute ``A (A^H A)^(-1/2)`` in double precision; a full SVD if it is not accurate.

    Eigenvalues of the Gram matrix have an error of about ``eps s_1^2`` in double precision. The
    distance of the columns from orthonormality, which is about the distance from the polar factor,
    is measured. It must be at most the square root of the rounding unit of G's dtype. A
    Newton-Schulz step then squares it. The error of ``<G, D>`` is of second order too.
    """
    dense = _Dense(G, options, radius)
    arrays, n = dense.arrays.in_double, dense.problem.rank
    A = arrays.take(dense.A)
    squares, V = arrays.eigh(arrays.adjoint_product(A, A))
    dense.count(n, 1)
    values = arrays.get(squares).astype(np.float64)
    # The minimizer leaves out singular values that count as zero, which needs pairs.
    zero = max(dense.problem.shape) * dense.arrays.eps
    if values[-1] > zero**2 * values[0]:
        X = A @ ((V * arrays.put(values**-0.5)) @ arrays.adjoint(V))
        identity = arrays.xp.eye(n, dtype=arrays.dtype, device=arrays.device)
        gram = arrays.adjoint_product(X, X)
        dense.count(2 * n, 2)
        if arrays.frobenius_norm(gram - identity) ** 2 <= dense.arrays.eps:
            dense.count(n, 1)
            return dense.result(dense.arrays.take(X @ (1.5 * identity - 0.5 * gram)), None)
    return dense.instead(by_svd(replace(options, method=None)))


# ---- helpers --------------------------------------------------------------------------------


def _itself(D: Array) -> Array:
    """Return the array of a dense term."""
    return D


def _inner(arrays: Arrays, X: Array, Y: Array) -> float:
    """Return ``Re <X, Y>`` of two arrays of any precision, in double precision."""
    wide, (m, n) = arrays.in_double, X.shape
    rows = max(1, _PANEL // n)
    total = 0.0
    for start in range(0, m, rows):
        stop = min(start + rows, m)
        total += wide.real_inner(wide.take(X[start:stop, :]), wide.take(Y[start:stop, :]))
    return total


def whole_method(method: Any) -> Any:
    """Return the method for all singular values: the given one, or a full factorization."""
    return Direct() if method is None else method


def spectral_function(
    G: Any, f: Callable[[HostArray], Any], *, method: str | Method | None = None
) -> Array:
    """Return ``U f(S) V^H`` for ``G = U S V^H``, a function of the singular values.

    For example, ``f = lambda s: s**0.5`` is a half power, and ``f = np.sign`` gives the polar
    factor.

    Parameters
    ----------
    G : array, sparse matrix or operator of shape (m, n)
        The matrix.
    f : callable
        Function of the singular values of G, a descending float64 NumPy array of shape (q,). It
        returns q finite real numbers. Singular values ``s_i <= max(m, n) eps s_1`` count as zero
        and are left out, since their vectors are not unique. f is not called for G = 0.
    method : str or Method, optional
        ``"exact"`` or ``"svd"`` (default): the full SVD. ``"gram"``: the Gram matrix in double
        precision if it is accurate enough. Or a method of `trsvd.svds`, for all triplets.

    Returns
    -------
    array of shape (m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not a matrix, f is not callable, or its values are not real numbers.
    ValueError
        If G is not finite or empty, if f returns another shape, NaN or inf, or if the result is out
        of the range of G's dtype.

    See Also
    --------
    spectral_lmo, trsvd.polar.newton_schulz

    Notes
    -----
    Cost: min(m, n) products and a factorization. Memory: about four matrices of the size of G.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.spectral_function(np.diag([4.0, -9.0]), np.sqrt).round(12) + 0.0
    array([[ 2.,  0.],
           [ 0., -3.]])
    """
    function: Any = f
    if not callable(function):
        raise TypeError(f"f is {f!r}; pass a function of the singular values, as numpy.sqrt")
    rank = min(as_operator(G).shape)
    pairs = leading_pairs(G, rank, Options(method=whole_method(method), rng=0))
    values = np.zeros(0)
    if len(pairs.S):
        values = _values(function, np.array(pairs.S, dtype=np.float64))
    arrays = pairs.arrays
    with np.errstate(over="ignore", invalid="ignore"):  # looked at next
        X = LowRankTerm(1.0, pairs.U * arrays.put(values)[None, :], pairs.Vh, arrays).dense()
    if not math.isfinite(arrays.max_abs(X)):
        raise ValueError(
            f"f has values up to {np.abs(values).max():.3g}: U f(S) V^H is out of the range of "
            f"{arrays.out_dtype}; scale f down, or convert G to a wider dtype"
        )
    return X


def _values(f: Callable[[HostArray], Any], S: HostArray) -> HostArray:
    """Apply f to the singular values, and check the result."""
    values = np.asarray(f(S.copy()))
    if values.dtype.kind not in "fiu":
        raise TypeError(
            f"f returned numbers of dtype {values.dtype}; singular values become real numbers"
        )
    if values.shape != S.shape:
        raise ValueError(
            f"f returned shape {values.shape} for {S.shape}; one number for each singular value"
        )
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"f returned {values[bad]} for the singular value {S[bad]:.6g}; a finite one is needed"
        )
    return values.astype(np.float64)
