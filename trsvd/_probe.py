"""Two products that tell whether an operator can be worked with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from trsvd._errors import AdjointError

if TYPE_CHECKING:
    from trsvd._operator import MatrixOperator

__all__ = ["probe"]


def probe(op: MatrixOperator, rng: np.random.Generator) -> float:
    """Check the adjoint, and return the size of the entries of ``A x`` for a random unit x.

    Two products, none of which overflows for a matrix that a float can hold.
    """
    arrays = op.arrays
    x = arrays.gaussian(rng, op.shape[1], 1)
    x = x / arrays.column_norms(x)
    y = op.matmat(x)
    size = arrays.max_abs(y)
    if not math.isfinite(size):
        msg = (
            f"a product with A has entries that are not finite ({size}); "
            "find the NaN or inf in A, or scale A down"
        )
        raise ValueError(msg)
    if size == 0:
        return 0.0
    down = power_of_two(1 / size) if size > 1e-300 else 2.0**1000
    y = y * down  # a new array: the operator may use one buffer for all that it returns
    energy = arrays.real_inner(y, y)
    z = op.rmatmat(y)
    reach = arrays.max_abs(z)
    if not math.isfinite(reach):
        msg = (
            f"a product with A^H has entries that are not finite ({reach}); "
            "find the NaN or inf in A, or scale A down"
        )
        raise ValueError(msg)
    back = power_of_two(1 / reach) if reach > 1e-300 else 1.0
    z = z * back
    inner = arrays.real_inner(x, z)
    square = energy / down * back
    # Products of a float64 operator may be computed in float32.
    share = max(arrays.eps**0.5, 1e-6)
    allowance = share * max(float(arrays.get(arrays.column_norms(z))[0]), square)
    if abs(inner - square) > allowance:
        msg = (
            f"rmatmat is not the adjoint of matmat: <x, A^H A x> / ||A x||^2 = "
            f"1 + ({(inner - square) / square if square else math.inf:.3g}) for a random x, not 1; "
            "rmatmat must compute the conjugate transpose, A.conj().T @ X"
        )
        raise AdjointError(msg)
    return size


def power_of_two(x: float) -> float:
    """The largest power of two that is at most ``x`` (scaling by it rounds nothing)."""
    return math.ldexp(1.0, math.frexp(x)[1] - 1)
