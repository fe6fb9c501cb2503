"""Whether single precision has measured residuals right, and triplets where it has not.

Sums of many numbers of one sign and one size all round the same way, with some dozen units lost: in
products that triplets are made of, and again in those that measure their residuals, which then look
smaller than they are, or larger. One product in double precision with a combination of all triplets
shows it.
"""

from __future__ import annotations

import math

import numpy as np

from trsvd._arrays import Array, HostArray
from trsvd._kinds import SINGLE
from trsvd._metered import Metered
from trsvd._ritz import rayleigh_ritz, residual_norms

__all__ = ["second_look"]

# Beyond this many units nothing is lost, and sums of so few numbers lose less than any that count.
_UNITS, _SHORT = 256, 256

Triplets = tuple[Array, HostArray, Array]


def second_look(
    op: Metered, triplets: Triplets, residuals: HostArray, tol: float, *, last: bool = False
) -> tuple[Triplets, HostArray] | None:
    """Triplets and residuals (absolute, as those given) from products in double precision.

    None where those given are right, or where nothing tells. Takes one product with A and one with
    its adjoint, and 3 k more where they are not right; or where they miss the tolerance, relative
    to s_1, and nothing else is going to make them better: ``last``.
    """
    U, S, V = triplets
    single, long = op.arrays.eps >= SINGLE, max(op.shape) > _SHORT
    if not single or not long or tol > _UNITS * SINGLE or not len(S) or S[0] == 0:
        return None
    wide = op.in_double()
    if wide is None:
        return None
    missed = float(residuals.max()) > tol * S[0]
    if not (last and missed):
        op.count(2, 1)
        if not _are_wrong(wide, triplets, residuals, missed=missed):
            return None
    arrays, out = wide.arrays, op.arrays
    U, S, V = rayleigh_ritz(wide, arrays.like(V), None, len(S), skew=True)
    U, V = out.like(U), out.like(V)
    op.count(3 * len(S), 3)
    return (U, S, V), residual_norms(wide, arrays.like(U), S, arrays.like(V))


def _are_wrong(wide: Metered, triplets: Triplets, residuals: HostArray, *, missed: bool) -> bool:
    """Whether residuals are larger than was measured, or smaller where they missed a tolerance."""
    seen, S = _of_a_combination(wide, triplets), triplets[1]
    noise = 4 * math.sqrt(len(S)) * SINGLE * S[0]
    larger = seen > 1.5 * float(np.linalg.norm(residuals)) + noise
    return bool(larger or (missed and seen < 0.5 * float(residuals.max())))


def _of_a_combination(wide: Metered, triplets: Triplets) -> float:
    """The residual of ``sum +-v_i``, of one side or the other: about those of all together."""
    arrays = wide.arrays
    U, S, V = triplets
    signs = np.where(np.arange(len(S)) % 2, -1.0, 1.0)[:, None]
    c, sc = arrays.put(signs), arrays.put(signs * S[:, None])
    U, V = arrays.like(U), arrays.like(V)
    left = wide.matmat(arrays.product(V, c)) - arrays.product(U, sc)
    right = wide.rmatmat(arrays.product(U, c)) - arrays.product(V, sc)
    norms = [arrays.get(arrays.column_norms(X)) for X in (left, right)]
    return float(np.max(norms))
