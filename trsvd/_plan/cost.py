"""Estimates of the spectrum from a few Lanczos steps, and the steps after which to make them.

Where all singular values are about as large, a Krylov space needs many products to tell the k-th
from those behind, and a dense factorization is done before.
"""

from __future__ import annotations

from trsvd._arrays.dtypes import SINGLE
from trsvd.operators.gram import InMemory

# Columns from random vectors that show roughly how the singular values are spread, at least; and
# whether hardly at all.
_IMPRESSION, _GLANCE = 24, 8
# Lanczos steps for each triplet where the spectrum is flat, about.
_STEPS_EACH = 12
# Rows of a Gram matrix for each triplet, up to which Lanczos steps with it take longer then.
_FORMED_EACH = 40
# Such matrices are long, and the longer, the flatter are random numbers: of two to one the mean
# square is 0.38 s_k^2 or more. Less flat ones are worth the steps: up to 0.3 s_k^2.
_FLATTER = 1.17


def planned_impressions(
    view: InMemory, k: int, tol: float, width: int, first_look: int, *, formed: bool = False
) -> tuple[int, ...]:
    """Columns of the basis at which to look at the spectrum; none where it does not matter.

    Parameters
    ----------
    view : InMemory
        The matrix.
    k : int
        Number of triplets.
    tol : float
        Relative residual that they are to meet.
    width : int
        Columns in a block.
    first_look : int
        Columns at the first look at the triplets: one may do for both.
    formed : bool, default False
        Whether the Gram matrix is formed at once.
    """
    dear = _would_cost_more(view, k, tol, formed=formed)
    columns = max(_IMPRESSION, k // 2)
    if not dear and k + k // 4 < _IMPRESSION:
        return ()
    if abs(first_look - columns) <= 2 * width:
        columns = first_look
    return (_GLANCE, columns) if dear and not view.stays_in_cache else (columns,)


def is_hopeless(
    view: InMemory, k: int, tol: float, impression: tuple[float, float, float], *, glance: bool
) -> bool:
    """True if Lanczos would take longer than the Gram matrix, by an estimate of the spectrum.

    Parameters
    ----------
    view : InMemory
        The matrix.
    k, tol
        As above.
    impression : tuple
        Of `GramLanczos.impression`.
    glance : bool
        Whether it is of so few columns that s_k is not known: enough where even s_1, which is a
        little above what they show, is no larger than those behind.
    """
    top, value, rest = impression
    formed = view.gram is not None
    level = 1.2 * top if glance else value * (_FLATTER if formed else 1)
    return is_flat(rest, level) and _would_cost_more(view, k, tol, formed=formed)


def _would_cost_more(view: InMemory, k: int, tol: float, *, formed: bool) -> bool:
    """True if Lanczos would take longer than the Gram matrix for a flat spectrum.

    By operations: those of Lanczos steps are made at a third of the rate of the others. (Where
    squares in float32 do not suit the tolerance, doubles take twice as long.) With a Gram matrix
    that is there, than its eigenvectors by LAPACK: by measurements of Gaussians, n = 256 to 1024.
    """
    n, m = sorted(view.shape)
    if formed:
        return _FORMED_EACH * k > n
    steps = _STEPS_EACH * k * 4 * m * n
    gram = m * n**2 + 4 * n**3
    slower = 2 if view.arrays.eps >= SINGLE > tol / 20 else 1
    return not view.is_sparse and 3 * steps > slower * gram


def is_flat(rest: float, value: float) -> bool:
    """True if the mean square of s_{k+1}, ..., s_n exceeds 0.22 s_k^2: Lanczos converges slowly.

    By ``value``, s_k, and ``rest``, the mean square of the singular values behind it. Random
    numbers have 0.25 s_k^2 there or more, values that go down as 1 / i or as its root less than
    a tenth.
    """
    return rest > 0.22 * value**2
