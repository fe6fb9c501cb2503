"""Estimates of the cost from a few Lanczos steps, and the steps after which to make them.

If all singular values are of similar size, a Krylov space needs many products to separate the k-th
from the following ones, and a dense factorization is faster.
"""

from __future__ import annotations

from trsvd._arrays.dtypes import SINGLE
from trsvd.operators.base import MatrixOperator
from trsvd.operators.gram import InMemory

# Number of columns for an estimate of the spectrum; for an early estimate, which recognizes only a
# flat spectrum. (It needs two blocks: all Ritz values of a single random one are near the mean.)
_ESTIMATE, _EARLY = 24, 8
# Fraction of s_1 that stands for s_k in an early estimate: the mean square of the others is then at
# least 0.25 s_1^2 for Gaussian matrices, and at most 0.12 s_1^2 for values that decay as i^-0.25.
_OF_TOP = 0.9
# Approximate number of Lanczos steps for each triplet of a flat spectrum.
_STEPS_EACH = 12
# Rows of a Gram matrix for each triplet, up to which its Lanczos steps are slower then.
_FORMED_EACH = 40
# These matrices are long. The mean square of the remaining values of random numbers is at least
# 0.38 s_k^2 for an aspect ratio of two, and more for longer ones. Up to 0.3 s_k^2 steps pay.
_FLATTER = 1.17


def planned_estimates(
    view: InMemory, k: int, tol: float, width: int, first_look: int, *, formed: bool = False
) -> tuple[int, ...]:
    """Return the basis sizes at which to estimate the spectrum; empty if that is not needed.

    Parameters
    ----------
    view : InMemory
        The matrix.
    k : int
        Number of triplets.
    tol : float
        Requested relative residual.
    width : int
        Number of columns of a block.
    first_look : int
        Basis size at the first test of the triplets, which may serve for both.
    formed : bool, default False
        True if the Gram matrix is formed at once.
    """
    costly = not view.is_sparse and flat_costs_more(view, k, tol, formed=formed)
    early = max(_EARLY, 2 * width)
    columns = max(_ESTIMATE, k // 2, early)
    if not costly and k + k // 4 < _ESTIMATE:
        return ()
    if abs(first_look - columns) <= 2 * width:
        columns = first_look
    early_too = costly and not view.stays_in_cache and early < columns
    return (early, columns) if early_too else (columns,)


def is_hopeless(
    view: InMemory,
    k: int,
    tol: float,
    estimate: tuple[float, float, float],
    *,
    early: bool,
) -> bool:
    """True if Lanczos would be slower than the Gram matrix, by an estimate of the spectrum.

    Parameters
    ----------
    view : InMemory
        The matrix.
    k, tol
        As above.
    estimate : tuple
        Result of `GramLanczos.spectrum_estimate`.
    early : bool
        True if there are too few columns for an estimate of s_k. The test then compares s_1 with
        the remaining values.
    """
    top, value, rest = estimate
    formed = view.gram is not None
    level = _OF_TOP * top if early else value * (_FLATTER if formed else 1)
    costly = not view.is_sparse and flat_costs_more(view, k, tol, formed=formed)
    return costly and is_flat(rest, level)


def flat_costs_more(view: MatrixOperator, k: int, tol: float, *, formed: bool = False) -> bool:
    """True if Lanczos on a dense matrix is slower than its Gram matrix for a flat spectrum.

    Operations are compared; those of Lanczos steps have a third of the rate. (If a float32 Gram
    matrix is too coarse for the tolerance, double precision takes twice as long.) With a formed
    Gram matrix, Lanczos is compared with its eigenvectors by LAPACK, as measured for Gaussian
    matrices with n from 256 to 1024.
    """
    n, m = sorted(view.shape)
    if formed:
        return _FORMED_EACH * k > n
    steps = _STEPS_EACH * k * 4 * m * n
    gram = m * n**2 + 4 * n**3
    slower = 2 if view.arrays.eps >= SINGLE > tol / 20 else 1
    return 3 * steps > slower * gram


def is_flat(rest: float, value: float) -> bool:
    """True if the mean square of s_{k+1}, ..., s_n exceeds 0.22 s_k^2: Lanczos converges slowly.

    ``value`` is s_k, and ``rest`` the mean square of the following singular values. For random
    numbers it is at least 0.25 s_k^2, and for values 1 / i or 1 / sqrt(i) less than 0.1 s_k^2.
    """
    return rest > 0.22 * value**2
