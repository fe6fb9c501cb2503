"""What a few Lanczos steps tell of a spectrum, and when to ask.

Where all singular values are about as large, a Krylov space needs many products to tell the k-th
from those behind, and a dense factorization is done before.
"""

from __future__ import annotations

from trsvd._in_memory import InMemory, stays_in_cache
from trsvd._kinds import SINGLE
from trsvd._ritz import is_flat

__all__ = ["is_hopeless", "planned_impressions"]

# Columns from random vectors that show roughly how the singular values are spread, at least; and
# whether hardly at all.
_IMPRESSION, _GLANCE = 24, 8
# Lanczos steps for each triplet where the spectrum is flat, about.
_STEPS_EACH = 12


def planned_impressions(
    view: InMemory, k: int, tol: float, width: int, first_look: int
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
    """
    dear, columns = _would_cost_more(view, k, tol), max(_IMPRESSION, k // 2)
    if not dear and k + k // 4 < _IMPRESSION:
        return ()
    if abs(first_look - columns) <= 2 * width:
        columns = first_look
    return (_GLANCE, columns) if dear and not stays_in_cache(view.rows) else (columns,)


def is_hopeless(
    view: InMemory, k: int, tol: float, impression: tuple[float, float, float], *, glance: bool
) -> bool:
    """Whether Lanczos would take longer than the Gram matrix, by an impression of the spectrum.

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
    return is_flat(rest, 1.2 * top if glance else value) and _would_cost_more(view, k, tol)


def _would_cost_more(view: InMemory, k: int, tol: float) -> bool:
    """Whether Lanczos would take longer than the Gram matrix where a spectrum is flat.

    By operations: those of Lanczos steps are made at a third of the rate of the others. (Where
    squares in float32 do not suit the tolerance, doubles take twice as long.)
    """
    n, m = sorted(view.shape)
    steps = _STEPS_EACH * k * 4 * m * n
    gram = m * n**2 + 4 * n**3
    slower = 2 if view.arrays.eps >= SINGLE > tol / 20 else 1
    return not view.is_sparse and 3 * steps > slower * gram
