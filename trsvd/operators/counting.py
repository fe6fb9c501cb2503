"""Operator of a run: scaled, with counted products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import split_power
from trsvd.operators.base import MatrixOperator, phrase


class Metered(MatrixOperator):
    """Operator of a run: ``scale * A``, with counted products.

    ``scale`` is 1 if the squares of the entries are in the range of the dtype. Otherwise it is a
    power of two that makes the entries of order 1. One half of it is applied before the product and
    the other half after it, so that no intermediate result overflows or underflows.

    Attributes
    ----------
    matvecs, passes : int
        Products of the method, counted in vectors and in blocks.
    matvecs_verify : int
        Products of the checks, counted in vectors.
    rounding : float
        Bound of the rounding errors in a product with a unit vector; 0: that of the dtype.
    noise : float
        Usual size of those errors, for a random unit vector.
    """

    arrays: Arrays
    shape: tuple[int, int]
    rounding: float
    noise: float
    matvecs: int
    passes: int
    matvecs_verify: int

    def __init__(self, op: MatrixOperator, size: float | None) -> None:
        self.op: MatrixOperator = op
        self.arrays, self.shape = op.arrays, op.shape
        self.norm_hint: float | None = None  # rough norm, once it is computed
        self.copies: dict[Any, Any] = {}  # matrices for compiled steps, by key
        # Outside of this range, sums of squares of entries may overflow or underflow.
        safe = float(np.finfo(self.arrays.host_dtype).tiny) ** -0.2
        size = size or 1.0
        # (2**1023 is the largest power of two that singular values can be scaled back by.)
        self.set_scale(0 if 1 / safe <= size <= safe else max(-math.frexp(size)[1], -1023))
        self.matvecs = self.passes = self.matvecs_verify = 0
        self.verifying = False

    def _made_of(self) -> str:
        return phrase(self.op)

    def form(self, *, gram: bool) -> None:
        """Replace the operator by its entries if they are more accurate than its products.

        ``gram``: the entries may be those of a Gram matrix.
        """
        formed = self.op.formed(gram=gram)
        if formed is not None:
            self.op, self.rounding, self.noise = formed, 0.0, 0.0

    def set_scale(self, exponent: int) -> None:
        """Set the scale to ``2**exponent``."""
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
        """Add products to the counters."""
        if self.verifying:
            self.matvecs_verify += matvecs
        else:
            self.matvecs += matvecs
            self.passes += passes

    def frobenius_norm(self, scale: float = 1.0) -> float | None:
        """``||scale A||_F``."""
        norm = self.op.frobenius_norm(scale * self._before)
        return None if norm is None else norm * self._after

    def in_double(self) -> Metered | None:
        """Return the operator with products in double precision, and its own counters."""
        wide = self.op.in_double()
        if wide is None:
            return None
        twin = Metered(wide, None)
        twin.set_scale(self.scale_exponent)
        return twin

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        """Return the rows of the operator if it is not scaled."""
        return self.op.rows_in_memory() if self.scale_exponent == 0 else None

    def shift_in_memory(self) -> tuple[HostArray, HostArray] | None:
        """Return the vectors of the operator."""
        return self.op.shift_in_memory()

    def gram_by_panels(self, *, double: bool) -> Array | None:
        """Return the Gram matrix of the shorter side if the operator is not scaled."""
        return self.op.gram_by_panels(double=double) if self.scale_exponent == 0 else None

    def scaled_dense(self, *, counted: bool = True) -> Array:
        """Return ``scale * A`` as an array; counts min(m, n) products if it has no entries."""
        if counted:
            self.count(min(self.shape), 1)
        dense = self.op.dense()
        return dense if self.scale_exponent == 0 else dense * self._before * self._after


class Turned(MatrixOperator):
    """Adjoint of a metered operator, which counts the products."""

    def __init__(self, op: Metered) -> None:
        self.op: Metered = op
        self.arrays: Arrays = op.arrays
        self.shape: tuple[int, int] = (op.shape[1], op.shape[0])

    def _made_of(self) -> str:
        return phrase(self.op)

    def matmat(self, X: Array) -> Array:
        """``A^H @ X``, counted."""
        return self.op.rmatmat(X)

    def rmatmat(self, X: Array) -> Array:
        """``A @ X``, counted."""
        return self.op.matmat(X)

    def count(self, matvecs: int, passes: int) -> None:
        """Add products to the counters."""
        self.op.count(matvecs, passes)

    def rows_in_memory(self) -> tuple[Array, bool] | None:
        """Return the columns of the operator as rows of its adjoint."""
        rows = self.op.rows_in_memory()
        return None if rows is None else (rows[0], not rows[1])

    def shift_in_memory(self) -> tuple[HostArray, HostArray] | None:
        """Return the vectors of the operator, exchanged."""
        shift = self.op.shift_in_memory()
        return None if shift is None else shift[::-1]
