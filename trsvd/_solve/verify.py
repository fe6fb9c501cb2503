"""Checks for missed singular values.

Small residuals show that the triplets belong to A. The check for missed larger values uses the
Frobenius norm of the remainder, or Lanczos steps from a random vector in the complement of the
triplets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import SINGLE
from trsvd._krylov.basis import RandomVectors, level_of, orthonormalize
from trsvd._krylov.golub_kahan import GolubKahan
from trsvd._krylov.rayleigh_ritz import rayleigh_ritz, residual_blocks, residual_norms, small_eigh
from trsvd._krylov.stopping import Residual, Stop
from trsvd._plan.certificate import FAILURE_PROBABILITY, LOOSE, certified_eta, steps_for
from trsvd._solve.result import Completeness
from trsvd.methods import Run
from trsvd.operators.counting import Metered
from trsvd.operators.gram import InMemory, coarsest_precision, for_one_vector

_ETA = 0.1
# For functions that return numbers without a certificate.
FINE_ETA = 1e-3
_LEAST_STEPS = 8


def check_completeness(
    op: Metered,
    run: Run,
    triplets: tuple[Array, HostArray, Array],
    stop: Stop,
    unit: float,
    source: Callable[[], np.random.Generator],
    width: int,
    asked: float | None = None,
) -> tuple[Completeness, Array | None]:
    """Search for missed values; return the certificate, and right vectors near those found.

    Parameters
    ----------
    op : Metered
        The operator, m x n with m >= n; products are counted as verification.
    run : Run
        The run that computed the triplets.
    triplets : tuple
        U, S (on the host, as scaled by op) and V.
    stop : Stop
        Criterion for missed values, in units of A.
    unit : float
        Factor from S to units of A.
    source : callable
        Function that returns the generator of the random vectors. It is called only if they are
        needed, since creating a generator takes as long as a small problem.
    width : int
        Number of vectors that are iterated together.
    asked : float, optional
        The eta to certify, at any cost. The default is `_ETA`, or the eta that a tenth of the
        products so far can certify.
    """
    U, S, V = triplets
    k, n = len(S), op.shape[1]
    if run.exact or k == n:
        return Completeness("exact"), None
    leading = isinstance(stop, Residual)  # the certificate is about k values, not about a threshold

    def is_settled(s: float) -> bool:
        return s < S[-1] if leading else not stop.missed(S * unit, k, s * unit)

    if _rest_is_small(op, S, is_settled):
        return Completeness("norm", slack=0.0 if leading else stop.slack), None
    # A random vector has a component of about 1 / sqrt(n) along each singular vector: a looser
    # residual than that can be met before the leading one has grown.
    if leading and run.meets_all_copies and stop.tol <= FAILURE_PROBABILITY / math.sqrt(n):
        return Completeness("random start", slack=stop.slack), None
    loose = isinstance(stop, Residual) and asked is None and stop.tol >= LOOSE
    # For k = 1, the theorem on the largest value applies to the run itself.
    if leading and k == 1 and run.random_steps >= _LEAST_STEPS:
        eta = certified_eta(n, run.random_steps, FAILURE_PROBABILITY)
        if eta <= (stop.tol if loose else asked or math.inf):
            return Completeness("probable", eta, FAILURE_PROBABILITY), None
    # Independent numbers: with the seed of an earlier call the run may have used these vectors.
    rng = np.random.default_rng([int(source().integers(1 << 62)), k])
    width = min(width, n - k)
    steps = steps_for(n, asked or _ETA, FAILURE_PROBABILITY)
    if asked is None:
        steps = min(steps, max(_LEAST_STEPS, op.matvecs // 20, k // 4))
    compiled = width == 1 and k + steps < n and not loose
    view = _compiled_view(op, S, stop.tol) if compiled else None
    if view is not None:
        values, vectors = _compiled_complement(view, U if view.turned else V, S, rng, steps)
        exhausted = False
    else:
        start = op.arrays.gaussian(rng, n, width)
        most = max(steps, steps_for(n, 0.5 * stop.tol, FAILURE_PROBABILITY)) if loose else steps
        capacity = min(n, k + width * most)
        complement = GolubKahan(op, start, capacity=capacity, rng=rng, locked=triplets)
        for step in range(most):
            if complement.exhausted or complement.full:
                break
            complement.expand(op)
            if loose and step + 1 >= steps and step % 2 and _is_known(complement, S, stop.tol):
                break
        values, vectors = complement.ritz_complement(width)
        exhausted = complement.exhausted
    # (Half of a loose tolerance is for the error of the values found.)
    test = replace(stop, tol=0.5 * stop.tol) if loose and isinstance(stop, Residual) else stop
    missing = [i for i, s in enumerate(values) if test.missed(S * unit, k, float(s) * unit)]
    if missing:
        vectors = op.arrays.like(vectors[:, : len(missing)])
        if view is not None and view.turned:
            vectors = op.rmatmat(vectors)
        return Completeness("unchecked"), vectors
    if exhausted:
        return Completeness("exact", slack=stop.slack), None
    eta = certified_eta(n, steps, FAILURE_PROBABILITY)
    return Completeness("probable", eta, FAILURE_PROBABILITY, stop.slack), None


def _is_known(complement: GolubKahan, S: HostArray, tol: float) -> bool:
    """True if a value that exceeds s_k by half of the tolerance has been found, or is excluded.

    A vector with a part p of its singular vector has a residual of at least p times the distance of
    its value. Random vectors have a smaller part with the failure probability.
    """
    value, residual = complement.largest_outside()
    limit = float(S[-1] + 0.5 * tol * S[0])
    return value > limit or residual <= FAILURE_PROBABILITY * (limit - value)


def _compiled_complement(
    view: InMemory, known: Array, S: HostArray, rng: np.random.Generator, steps: int
) -> tuple[HostArray, HostArray]:
    """Return the leading Ritz value and vector of steps in the complement of ``known`` vectors.

    If a product vanishes, the Krylov space of the random vector is complete, and steps end.
    """
    arrays, k, n = view.arrays, len(S), view.shape[1]
    V = np.empty((k + steps + 1, n), arrays.host_dtype)
    V[:k] = known.T
    x = arrays.gaussian(rng, n, 1)
    replacements, floor = RandomVectors(arrays, rng, n, 1), level_of(arrays, x)
    V[k] = orthonormalize(arrays, x, V[:k].T, floor=floor, replacements=replacements)[0][:, 0]
    H, C = np.zeros((steps, len(V))), np.zeros((2, steps))
    made = view.lanczos(V, k, 1, H, C, 4 * arrays.eps, float(S[0]) ** 2)
    if made < steps:  # the last step has coefficients too
        made += 1
        view.op.count(2, 2)
    # The lower triangle is read.
    values, Q = small_eigh(H[:made, k : k + made], tridiagonal=True)
    return np.sqrt(np.maximum(values[:1], 0)), V[k : k + made].T @ Q[:, :1].astype(V.dtype)


def _rest_is_small(op: Metered, S: HostArray, is_settled: Callable[[float], bool]) -> bool:
    """True if the Frobenius norm of the remainder excludes a missed singular value."""
    found, hint = float(np.sum(S**2)), op.norm_hint

    def settles(energy: float) -> bool:
        return is_settled(math.sqrt(max(energy - found, 0.0)))

    if hint is not None:  # to four digits, which is usually sufficient, and already known
        if not settles(0.9998 * hint**2):
            return False
        if settles(1.0002 * hint**2):
            return True
    norm = op.frobenius_norm()
    return norm is not None and settles((1 + 10 * op.arrays.eps) * norm**2)


def _compiled_view(op: Metered, S: HostArray, tol: float) -> InMemory | None:
    """Return the matrix for compiled steps, in the lowest precision that resolves s_k.

    Values from a Gram matrix are accurate to ``sqrt(eps) s_1``.
    """
    coarsest = coarsest_precision(op, len(S), tol)
    if not len(S) or coarsest is None:
        return None
    for precision in dict.fromkeys((coarsest, "float64")):
        if S[-1] > 20 * float(np.finfo(precision).eps) ** 0.5 * S[0]:
            return for_one_vector(op, precision, len(S))
    return None


# Rounding units that long sums may lose; and the same for short sums, and their length.
_UNITS, _SHORT, _UNITS_OF_SHORT = 256, 512, 20

Triplets = tuple[Array, HostArray, Array]
Blocks = tuple[Array | None, Array | None]


def second_look(
    op: Metered,
    triplets: Triplets,
    blocks: Blocks,
    residuals: HostArray,
    tol: float,
    *,
    last: bool = False,
) -> tuple[Triplets, HostArray] | None:
    """Return triplets, and norms of their residuals, from products in double precision.

    None if the given ones are right, or if double precision is not available. The check takes one
    product with A and one with its adjoint. It takes 3 k more if residuals are wrong, or if they
    miss the tolerance and the run has ended.

    Parameters
    ----------
    op : Metered
        The matrix.
    triplets : tuple
        U, S and V.
    blocks : tuple
        Result of `residual_blocks` in single precision.
    residuals : array of shape (k,)
        Norms of the residuals.
    tol : float
        Largest requested norm, relative to s_1.
    last : bool
        True if the run has ended, so that large residuals do not decrease any more.
    """
    S = triplets[1]
    if op.arrays.eps < SINGLE or tol > _UNITS * SINGLE or not len(S) or S[0] == 0:
        return None
    missed = last and residuals.max() > tol * S[0]
    if not missed and max(op.shape) <= _SHORT and tol >= _UNITS_OF_SHORT * SINGLE:
        return None
    wide = op.in_double() if np.isfinite(residuals).all() else None
    if wide is None:
        return None
    if not missed:
        op.count(2, 1)
        usual = (4 + 2 * math.sqrt(len(S))) * SINGLE * S[0]
        if _error(wide, triplets, blocks) <= usual:
            return None
    op.count(3 * len(S), 3)
    arrays, out = wide.arrays, op.arrays
    U, S, V = rayleigh_ritz(wide, arrays.take(triplets[2]), None, len(S), skew=True)
    U, V = out.take(U), out.take(V)
    again = residual_blocks(wide, arrays.take(U), S, arrays.take(V))
    return (U, S, V), residual_norms(arrays, again)


def _error(wide: Metered, triplets: Triplets, blocks: Blocks) -> float:
    """Return the error of the residual of ``sum +-v_i``, the larger one of both sides."""
    arrays = wide.arrays
    U, S, V = triplets
    signs = np.where(np.arange(len(S)) % 2, -1.0, 1.0)[:, None]
    c, sc = arrays.put(signs), arrays.put(signs * S[:, None])
    U, V = arrays.take(U), arrays.take(V)
    true = (
        wide.matmat(arrays.product(V, c)) - arrays.product(U, sc),
        wide.rmatmat(arrays.product(U, c)) - arrays.product(V, sc),
    )
    errors = [
        r if block is None else r - arrays.product(arrays.take(block), c)
        for r, block in zip(true, blocks, strict=True)
    ]
    return max(float(arrays.get(arrays.column_norms(error))[0]) for error in errors)


_LARGEST = 1 << 13


def check_fits(shape: tuple[int, int]) -> None:
    """Raise ValueError if a matrix of this shape is too large for its full spectrum.

    Parameters
    ----------
    shape : tuple of int
        ``(m, n)``.
    """
    if min(shape) > _LARGEST:
        raise ValueError(
            f"verify='exact' computes all singular values, and min(m, n) = {min(shape)} is more "
            f"than {_LARGEST}; verify=True checks with a stated probability"
        )


def check_spectrum(
    op: Metered,
    run: Run,
    triplets: tuple[Array, HostArray, Array],
    stop: Stop,
    unit: float,
) -> tuple[Completeness, Array | None]:
    """Search for missed values in the full spectrum; return right vectors near those found.

    All singular values of ``(I - U U^H) A (I - V V^H)`` are computed. Together with S they are
    those of A, with an error of at most ``sqrt(||A V - U S||^2 + ||A^H U - V S||^2)``.

    Parameters
    ----------
    op : Metered
        The operator; it is formed, which counts min(m, n) products.
    run : Run
        The run that computed the triplets.
    triplets : tuple
        U, S (on the host, as scaled by op) and V.
    stop : Stop
        Criterion for missed values, in units of A.
    unit : float
        Factor from S to units of A.
    """
    U, S, V = triplets
    if run.exact or len(S) == op.shape[1]:
        return Completeness("exact"), None
    arrays = op.arrays
    rest = op.scaled_dense()
    for _ in range(2 if len(S) else 0):  # the remainder may be small relative to S
        rest = rest - arrays.product(U, arrays.adjoint_product(U, rest))
        rest = rest - arrays.product(arrays.product(rest, V), arrays.adjoint(V))
    _, values, Vh = arrays.svd(rest)
    largest = max(float(S[0]) if len(S) else 0.0, float(values[0]))
    rounding = max(op.shape) * arrays.eps
    noise = rounding * largest
    missing = [s for s in values if s > noise and stop.missed(S * unit, len(S), (s - noise) * unit)]
    if not missing:
        return Completeness("exact", slack=stop.slack + rounding), None
    return Completeness("unchecked"), arrays.adjoint(Vh[: len(missing), :])
