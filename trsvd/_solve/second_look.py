"""Whether single precision has measured residuals right, and triplets where it has not.

Sums of many numbers of one sign and one size all round the same way, with some dozen units lost: in
products that triplets are made of, and again in those that measure their residuals, which then look
smaller than they are, or larger. One product in double precision with a combination of all triplets
shows it.
"""

from __future__ import annotations

import math

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import SINGLE
from trsvd._krylov.rayleigh_ritz import rayleigh_ritz, residual_blocks, residual_norms
from trsvd.operators.counting import Metered

__all__ = ["second_look"]

# Units of rounding that long sums may lose; and what short ones, of so few numbers, may.
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
    """Triplets and the norms of their residuals from products in double precision.

    None where those given are right, or where nothing tells. Takes one product with A and one with
    its adjoint, and 3 k more where they are not right; or where they miss the tolerance and nothing
    else is going to make them better.

    Parameters
    ----------
    op : Metered
        The matrix.
    triplets : tuple
        U, S and V.
    blocks : tuple
        Of `residual_blocks`, as single precision has them.
    residuals : array of shape (k,)
        Their norms.
    tol : float
        What the norms are to be, relative to s_1.
    last : bool
        Whether residuals that are too large now stay so.
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
    """By how much the residual of ``sum +-v_i``, of one side or the other, is another one."""
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
