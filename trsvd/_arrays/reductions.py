"""Reductions of whole arrays: the largest entry, norms, and arrays divided by them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from trsvd._arrays.dtypes import split_power

Array = Any
HostArray = np.ndarray[Any, np.dtype[Any]]

_PANEL_BYTES = 1 << 24
_SMALL_PANEL = 1 << 19
_ONE_THREAD = 1 << 13  # size that BLAS sums with one thread


class Reductions:
    """Reductions of whole arrays, in the namespace and dtype of `Arrays`."""

    xp: Any

    if TYPE_CHECKING:

        @property
        def is_complex(self) -> bool: ...

        @property
        def on_host(self) -> bool: ...

        @property
        def reads_are_cheap(self) -> bool: ...

        def get(self, x: Array) -> HostArray: ...

        def real_in_double(self, x: Array) -> tuple[Any, Array]: ...

    def max_abs(self, A: Array) -> float:
        """Largest modulus of real or imaginary parts; NaN or inf if an entry is."""
        xp = self.xp
        parts = [xp.real(A), xp.imag(A)] if xp.isdtype(A.dtype, "complex floating") else [A]
        ends = [float(end) for part in parts for end in (xp.max(part), -xp.min(part))]
        return float("nan") if np.isnan(ends).any() else max(ends)

    def norms(self, X: Array, axis: int | tuple[int, ...] | None) -> Array:
        """2-norms along ``axis``, which is kept with length 1; moduli if it is None.

        Entries are scaled, so that no square overflows or underflows.
        """
        if axis is None:
            return self.xp.abs(X)
        _, sizes, lengths = self._scaled(X, axis)
        return lengths * sizes

    def units(self, X: Array, axis: int | tuple[int, ...] | None) -> Array:
        """Divide X by its `norms`: results have norm 1 to rounding; 0 stays 0.

        Norms of denormal numbers have few digits. X is therefore scaled first, so that its largest
        entry is 1.
        """
        if axis is None and not self.is_complex:
            return self.xp.sign(X)
        Y, _, lengths = self._scaled(X, axis)
        return self.over(Y, lengths)

    def over(self, X: Array, sizes: Array) -> Array:
        """``X / sizes`` for real sizes of at least 0; X itself where they are 0.

        Real and imaginary parts are divided separately. Complex division in array libraries uses
        ``1 / sizes``, which overflows for denormal sizes.
        """
        xp = self.xp
        safe = xp.where(sizes > 0, sizes, xp.ones_like(sizes))
        if not self.is_complex:
            return X / safe
        real, imag = (xp.astype(part / safe, X.dtype) for part in (xp.real(X), xp.imag(X)))
        return real + 1j * imag

    def _scaled(self, X: Array, axis: int | tuple[int, ...] | None) -> tuple[Array, Array, Array]:
        """Return X divided by its largest parts along ``axis``, these parts, and its norms."""
        xp = self.xp
        moduli = [xp.abs(part) for part in self._real_parts(X)]
        sizes = moduli[0] if len(moduli) == 1 else xp.maximum(*moduli)
        if axis is not None:
            sizes = xp.max(sizes, axis=axis, keepdims=True)
        Y = self.over(X, sizes)
        squares = [part * part for part in self._real_parts(Y)]
        total = squares[0] if len(squares) == 1 else squares[0] + squares[1]
        return Y, sizes, xp.sqrt(total if axis is None else xp.sum(total, axis=axis, keepdims=True))

    def _real_parts(self, X: Array) -> list[Array]:
        return [self.xp.real(X), self.xp.imag(X)] if self.is_complex else [X]

    def largest_of_stack(self, A: Array) -> HostArray:
        """Largest modulus of each matrix of a stack, on the host; NaN or inf if an entry is."""
        xp = self.xp
        ends = [xp.max(A, axis=(1, 2)), -xp.min(A, axis=(1, 2))] if not self.is_complex else []
        largest = xp.maximum(*ends) if ends else xp.max(xp.abs(A), axis=(1, 2))
        return self.get(largest).astype(np.float64)

    def norms_of_stack(self, A: Array) -> HostArray:
        """Frobenius norm of each matrix of a stack, on the host, in the precision of its dtype."""
        rows = self.xp.reshape(A, (A.shape[0], -1))
        squares = self.get(self.xp.vecdot(rows, rows)).real.astype(np.float64)
        return np.asarray(np.sqrt(squares))

    def frobenius_norm(self, A: Array, scale: float = 1.0) -> float:
        """``||scale A||_F``, summed in double precision by row panels."""
        with np.errstate(over="ignore"):
            total = self._sum_of_squares(A, scale, 1.0)
        if 1e-280 < total < math.inf:
            return math.sqrt(total)
        # Squares are out of the range of float64: scale the largest entry to 1 first.
        size = self.max_abs(A)
        if size == 0 or not math.isfinite(size):
            return size
        exponent = math.frexp(size)[1]
        total = self._sum_of_squares(A, *split_power(-exponent))
        before, after = split_power(exponent)
        return math.sqrt(total) * before * scale * after

    def _sum_of_squares(self, A: Array, before: float, after: float) -> float:
        xp, flat = self.xp, self._in_a_row(A)
        sums = []
        for part in self.panels(A) if flat is None else _parts(flat, _ONE_THREAD // 2):
            real = xp.abs(part) if flat is None and self.is_complex else part
            home, wide = self.real_in_double(real)
            wide = wide if before * after == 1 else wide * before * after
            sums.append(float(home.sum(wide * wide) if flat is None else np.vdot(wide, wide)))
        return math.fsum(sums)

    def panels(self, A: Array) -> Iterator[Array]:
        """Yield panels of rows, to be converted one after the other."""
        return row_panels(A, bytes_each=_SMALL_PANEL if self.reads_are_cheap else None)

    def rough_norm(self, A: Array) -> float | None:
        """``||A||_F`` to at least four digits, by one fast pass over A; None if not available.

        None for another library, for a strided array, and if squares are out of range; call
        `frobenius_norm` then.
        """
        flat = self._in_a_row(A)
        if flat is None:
            return None
        total = sum(float(np.vdot(part, part)) for part in _parts(flat, _ONE_THREAD))
        return math.sqrt(total) if 1e-30 < total < 1e30 else None

    def _in_a_row(self, A: Array) -> HostArray | None:
        """Return the real numbers of a contiguous host array as one vector, in memory order."""
        if not self.on_host or not (A.flags.c_contiguous or A.flags.f_contiguous):
            return None
        flat = A.ravel(order="K")
        return np.asarray(flat.view(flat.real.dtype) if self.is_complex else flat)


def _parts(flat: HostArray, step: int) -> Iterator[HostArray]:
    """Yield parts that BLAS computes with one thread; see `host_blas` for the reason."""
    return (flat[i : i + step] for i in range(0, len(flat), step))


def row_panels(A: Array, least: int = 1, bytes_each: int | None = None) -> Iterator[Array]:
    """Yield panels of rows that fit into the cache."""
    m, n = A.shape
    rows = max(least, (bytes_each or _PANEL_BYTES) // (8 * n))
    for start in range(0, m, rows):
        yield A[start : min(start + rows, m), :]
