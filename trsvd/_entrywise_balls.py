"""Balls of entries, rows and columns: exact formulas, without products."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from trsvd._admit import admitted
from trsvd._arrays import Array, Arrays, is_array
from trsvd._ball import Ball, Options
from trsvd._errors import Status
from trsvd._kinds import describe, split_power
from trsvd._lmo_result import DenseTerm, LMOResult
from trsvd._polar_methods import PolarIteration
from trsvd._spectral_function import whole_method
from trsvd._validate import named_method

__all__ = ["ColumnBall", "FrobeniusBall", "MaxBall", "RowBall"]


class _EntrywiseBall(Ball):
    """A ball whose oracle is a formula on the entries: exact, without products."""

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """The minimizer, by its formula; see `Ball.lmo`. The options change nothing here."""
        if options.method is not None and not isinstance(options.method, PolarIteration):
            named_method(whole_method(options.method))
        entries = _Entries(G)
        return LMOResult(
            terms=(DenseTerm(-1.0, partial(self._direction, entries), entries.arrays),),
            support=self._support(entries),
            gap=0.0,
            gap_kind="exact",
            subspace=None,
            matvecs=0,
            passes=0,
            status=Status.CONVERGED,
        )

    def support(self, G: Any) -> float:
        """The dual norm of G, by its formula."""
        return self._support(_Entries(G))

    @abstractmethod
    def _support(self, entries: _Entries) -> float:
        """The support function."""

    @abstractmethod
    def _direction(self, entries: _Entries) -> Array:
        """Minus the minimizer."""


class _Entries:
    """A finite array scaled by a power of two so that squares of entries stay in range."""

    def __init__(self, G: Any) -> None:
        G = admitted(G)
        if not is_array(G):
            msg = (
                f"this ball looks at the entries of G, which is {describe(G)}; pass an array "
                "(a sparse matrix can be made one by toarray, or by to_dense in torch)"
            )
            raise TypeError(msg)
        if G.ndim != 2 or 0 in tuple(G.shape):
            msg = f"G has shape {tuple(G.shape)}; a ball takes a matrix with rows and columns"
            raise ValueError(msg)
        self.arrays = Arrays.of_array(G)
        X = self.arrays.take(G)
        size = self.arrays.max_abs(X)
        if not math.isfinite(size):
            msg = "G contains NaN or inf; find where it comes from before making a step along it"
            raise ValueError(msg)
        exponent = math.frexp(size)[1] - 1
        before, after = split_power(-exponent)
        self.unit = math.ldexp(1.0, exponent)
        self.X = X * before * after  # a copy: an update formed later is that of G as it is now

    @cached_property
    def frobenius_norm(self) -> float:
        """That of the scaled entries."""
        return self.arrays.frobenius_norm(self.X)

    def directions(self, axis: int | None) -> tuple[Array, Array]:
        """Entries (None), columns (0) or rows (1) over their 2-norms, and the norms.

        Zero stays zero. Small ones are brought near 1 first, by powers of two: a quotient of
        denormal numbers has few digits, and that of complex ones overflows.
        """
        arrays, X = self.arrays, self.X
        xp, info = arrays.xp, np.finfo(arrays.host_dtype)
        # The least denormal number is about lift**-3: lifted twice, it is no smaller than 1 / lift.
        lift = 2.0 ** (-math.frexp(float(info.smallest_subnormal))[1] // 3)
        small = self._sizes(X, axis) < 1 / lift
        X = xp.where(small, X * lift * lift, X)
        sizes = self._sizes(X, axis)
        Y = X * arrays.like(_inverse(xp, sizes))
        if axis is None:
            lengths = xp.abs(Y)
        else:
            lengths = arrays.column_norms(Y if axis == 0 else Y.T)
            lengths = xp.expand_dims(lengths, axis=axis)
        norms = lengths * sizes
        Y = Y * arrays.like(_inverse(xp, lengths))
        return Y, xp.where(small, norms / lift / lift, norms)

    def _sizes(self, X: Array, axis: int | None) -> Array:
        """Largest real or imaginary part along an axis."""
        xp = self.arrays.xp
        parts = [xp.real(X), xp.imag(X)] if self.arrays.is_complex else [X]
        sizes = [xp.abs(part) for part in parts]
        if axis is not None:
            sizes = [xp.max(size, axis=axis, keepdims=True) for size in sizes]
        return xp.maximum(*sizes) if len(sizes) == 2 else sizes[0]

    def norms(self, axis: int) -> Array:
        """2-norms along an axis, as the scaled entries have them; none of them underflows."""
        return self.directions(axis)[1]

    def total(self, values: Array) -> float:
        """A sum of non-negative values, in the units of G."""
        return float(self.arrays.get(values).astype(np.float64).sum()) * self.unit


def _inverse(xp: Any, sizes: Array) -> Array:
    """``1 / sizes``, and 1 where they are zero."""
    return 1 / xp.where(sizes > 0, sizes, xp.ones_like(sizes))


@dataclass(frozen=True)
class FrobeniusBall(_EntrywiseBall):
    """The unit ball of the Frobenius norm: ``lmo(G) = -G / ||G||_F`` (normalized SGD)."""

    def support(self, G: Any) -> float:
        """``||G||_F``."""
        return super().support(G)

    def gauge(self, X: Any) -> float:
        """``||X||_F``."""
        return self.support(X)

    def _support(self, entries: _Entries) -> float:
        return entries.frobenius_norm * entries.unit

    def _direction(self, entries: _Entries) -> Array:
        norm = entries.frobenius_norm
        return entries.X * (1 / norm) if norm else entries.X


@dataclass(frozen=True)
class MaxBall(_EntrywiseBall):
    """The unit ball of the entrywise max (l-infinity) norm: ``lmo(G) = -sign(G)`` (SignSGD).

    The sign of a complex number is ``g / abs(g)``, and 0 at 0.
    """

    def support(self, G: Any) -> float:
        """``sum abs(g_ij)``."""
        return super().support(G)

    def gauge(self, X: Any) -> float:
        """``max abs(x_ij)``."""
        entries = _Entries(X)
        return float(entries.arrays.xp.max(entries.arrays.xp.abs(entries.X))) * entries.unit

    def _support(self, entries: _Entries) -> float:
        return entries.total(entries.arrays.xp.abs(entries.X))

    def _direction(self, entries: _Entries) -> Array:
        if entries.arrays.is_complex:
            return entries.directions(None)[0]
        return entries.arrays.xp.sign(entries.X)


@dataclass(frozen=True)
class ColumnBall(_EntrywiseBall):
    """The unit ball of the largest column norm: each column of G over its 2-norm (SCALE)."""

    def support(self, G: Any) -> float:
        """``sum_j ||g_:j||_2``."""
        return super().support(G)

    def gauge(self, X: Any) -> float:
        """``max_j ||x_:j||_2``."""
        entries = _Entries(X)
        return float(entries.arrays.xp.max(entries.norms(0))) * entries.unit

    def _support(self, entries: _Entries) -> float:
        return entries.total(entries.norms(0))

    def _direction(self, entries: _Entries) -> Array:
        return entries.directions(0)[0]


@dataclass(frozen=True)
class RowBall(_EntrywiseBall):
    """The unit ball of the largest row norm: each row of G over its 2-norm."""

    def support(self, G: Any) -> float:
        """``sum_i ||g_i:||_2``."""
        return super().support(G)

    def gauge(self, X: Any) -> float:
        """``max_i ||x_i:||_2``."""
        entries = _Entries(X)
        return float(entries.arrays.xp.max(entries.norms(1))) * entries.unit

    def _support(self, entries: _Entries) -> float:
        return entries.total(entries.norms(1))

    def _direction(self, entries: _Entries) -> Array:
        return entries.directions(1)[0]
