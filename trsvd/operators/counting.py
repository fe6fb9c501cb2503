"""The operator that a run works on: scaled, and every product counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array
from trsvd._arrays.dtypes import split_power
from trsvd.operators.base import MatrixOperator, phrase


class Metered(MatrixOperator):
    """The operator that a run works on: ``scale * A``, every product counted.

    ``scale`` is a power of two that brings the entries near 1 where squares of them would leave
    the range of the dtype, and 1 otherwise; half of it acts before the product and half after, so
    that nothing in between overflows or is lost.

    Attributes
    ----------
    matvecs, passes : int
        Products made by the method, in vectors and in blocks.
    matvecs_verify : int
        Products made to check what it found, in vectors.
    rounding : float
        Bound of the rounding errors in a product with a unit vector; 0 where it is that of the
        dtype.
    noise : float
        Usual size of those errors, for a random unit vector.
    """

    def __init__(self, op: MatrixOperator, size: float | None) -> None:
        self.op = op
        self.arrays, self.shape = op.arrays, op.shape
        self.norm_hint: float | None = None  # rough norm, where it was asked for
        self.copies: dict[Any, Any] = {}  # for compiled steps, by who made them
        # Outside of this window sums of squares of entries come near overflow or underflow.
        safe = float(np.finfo(self.arrays.host_dtype).tiny) ** -0.2
        size = size or 1.0
        # (2**1023 is the largest power of two that singular values can be scaled back by.)
        self.set_scale(0 if 1 / safe <= size <= safe else max(-math.frexp(size)[1], -1023))
        self.matvecs = self.passes = self.matvecs_verify = 0
        self.verifying = False

    def _made_of(self) -> str:
        return phrase(self.op)

    def form(self) -> None:
        """Go on with the entries, where they are more accurate than products."""
        formed = self.op.formed()
        if formed is not None:
            self.op, self.rounding, self.noise = formed, 0.0, 0.0

    def set_scale(self, exponent: int) -> None:
        """Work on ``2**exponent * A``."""
        self.scale_exponent = exponent
        self._before, self._after = split_power(exponent)

    def matmat(self, X: Array) -> Array:
        """``scale * A @ X``, counted."""
        return self._product(self.op.matmat, X)

    def rmatmat(self, X: Array) -> Array:
        """``scale * A^H @ X``, counted."""
        return self._product(self.op.rmatmat, X)

    def _product(self, product: Callable[[Array], Array], X: Array) -> Array:
        self.count(X.shape[1], 1)
        if self.scale_exponent == 0:
            return product(X)
        return product(X * self._before) * self._after

    def count(self, matvecs: int, passes: int) -> None:
        """Add products to the books."""
        if self.verifying:
            self.matvecs_verify += matvecs
        else:
            self.matvecs += matvecs
            self.passes += passes

    def frobenius_norm(self, scale: float = 1.0) -> float | None:
        """``||A||_F`` as this operator scales it."""
        norm = self.op.frobenius_norm(scale * self._before)
        return None if norm is None else norm * self._after

    def in_double(self) -> Metered | None:
        """The same with products in double precision, and with books of its own."""
        wide = self.op.in_double()
        if wide is None:
            return None
        twin = Metered(wide, None)
        twin.set_scale(self.scale_exponent)
        return twin

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        """That of the operator, where it is not scaled."""
        return self.op.rows_in_memory() if self.scale_exponent == 0 else None

    def scaled_dense(self, *, counted: bool = True) -> Array:
        """``scale * A`` as an array; counts min(m, n) products where it is to be multiplied by."""
        if counted:
            self.count(min(self.shape), 1)
        dense = self.op.dense()
        return dense if self.scale_exponent == 0 else dense * self._before * self._after


class Turned(MatrixOperator):
    """The adjoint of a metered operator; its products are counted there."""

    def __init__(self, op: Metered) -> None:
        self.op, self.arrays = op, op.arrays
        self.shape = (op.shape[1], op.shape[0])

    def _made_of(self) -> str:
        return phrase(self.op)

    def matmat(self, X: Array) -> Array:
        """``A^H @ X``, counted."""
        return self.op.rmatmat(X)

    def rmatmat(self, X: Array) -> Array:
        """``A @ X``, counted."""
        return self.op.matmat(X)

    def count(self, matvecs: int, passes: int) -> None:
        """Add products to the books."""
        self.op.count(matvecs, passes)

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        """That of the operator, turned."""
        rows = self.op.rows_in_memory()
        return None if rows is None else (rows[0], not rows[1])
