"""Balls of the Frobenius, max, column and row norms, with oracles in closed form."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, is_array
from trsvd._arrays.dtypes import describe, split_power
from trsvd._errors import Status
from trsvd._oracles.options import Options
from trsvd._oracles.polar import whole_method
from trsvd._oracles.result import DenseTerm, LMOResult
from trsvd._solve.select import named_method
from trsvd.balls.base import Ball
from trsvd.polar.methods import PolarIteration

# Exponents of the largest entry for which squares are in the range of float32.
_MODERATE = 20


class _EntrywiseBall(Ball):
    """Ball with an oracle in closed form: exact, without products."""

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """Return the minimizer; see `Ball.lmo`. The options have no effect."""
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
        """Return the dual norm of G."""
        return self._support(_Entries(G))

    @abstractmethod
    def _support(self, entries: _Entries) -> float:
        """Return the support function."""

    @abstractmethod
    def _direction(self, entries: _Entries) -> Array:
        """Return minus the minimizer."""


class _Entries:
    """Finite array, with a power of two that scales squares of entries into the range."""

    def __init__(self, G: Any) -> None:
        G = admitted(G)
        if not is_array(G):
            raise TypeError(
                f"the entries of the matrix are needed, and this is {describe(G)}; pass a dense "
                "array (A.toarray() of a sparse matrix, A.to_dense() in torch)"
            )
        if G.ndim != 2 or 0 in tuple(G.shape):
            raise ValueError(
                f"G has shape {tuple(G.shape)}; a ball takes a matrix with rows and columns"
            )
        self.arrays = Arrays.of_array(G)
        X = self.arrays.take(G)
        size = self.arrays.max_abs(X)
        if not math.isfinite(size):
            raise ValueError(
                "G contains NaN or inf; find where it comes from before making a step along it"
            )
        exponent = math.frexp(size)[1] - 1
        exponent = exponent if abs(exponent) > _MODERATE else 0
        self._powers = split_power(-exponent)
        self.unit = math.ldexp(1.0, exponent)
        # A copy, since G may change before the update is formed. Not scaled, since scaling down
        # would set small entries, rows and columns to 0.
        self.X = self.arrays.xp.asarray(X, copy=True)

    @cached_property
    def scaled(self) -> Array:
        """Return the entries divided by `unit`, so that the largest is of moderate size."""
        before, after = self._powers
        return self.X if self.unit == 1 else self.X * before * after

    @cached_property
    def frobenius_norm(self) -> float:
        """Return the Frobenius norm of the scaled entries."""
        return self.arrays.frobenius_norm(self.scaled)

    def largest(self, axis: int | None) -> float:
        """Return the largest 2-norm along an axis, or the largest modulus, of G."""
        xp, norms = self.arrays.xp, self.arrays.norms(self.scaled, axis)
        return float(xp.max(norms)) * self.unit

    def total(self, axis: int | None) -> float:
        """Return the sum of the 2-norms along an axis, or of the moduli, of G."""
        norms = self.arrays.get(self.arrays.norms(self.scaled, axis))
        return float(norms.astype(np.float64).sum()) * self.unit

    def units(self, axis: int | None) -> Array:
        """Divide the entries by 2-norms along an axis, or by moduli; 0 stays 0."""
        return self.arrays.units(self.X, axis)


@dataclass(frozen=True)
class FrobeniusBall(_EntrywiseBall):
    """Unit ball of the Frobenius norm: ``lmo(G) = -G / ||G||_F`` (normalized SGD).

    See Also
    --------
    frobenius_lmo, frobenius_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.FrobeniusBall()
    >>> G = np.array([[3.0, 4.0]])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (5.0, 5.0)
    """

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
        return entries.scaled * (1 / norm) if norm else entries.X


@dataclass(frozen=True)
class MaxBall(_EntrywiseBall):
    """Unit ball of the entrywise max (l-infinity) norm: ``lmo(G) = -sign(G)`` (SignSGD).

    The sign of a complex number is ``g / abs(g)``, and 0 at 0.

    See Also
    --------
    max_lmo, max_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.MaxBall()
    >>> G = np.array([[3.0, -4.0]])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (7.0, 7.0)
    """

    def support(self, G: Any) -> float:
        """``sum abs(g_ij)``."""
        return super().support(G)

    def gauge(self, X: Any) -> float:
        """``max abs(x_ij)``."""
        return _Entries(X).largest(None)

    def _support(self, entries: _Entries) -> float:
        return entries.total(None)

    def _direction(self, entries: _Entries) -> Array:
        return entries.units(None)


@dataclass(frozen=True)
class ColumnBall(_EntrywiseBall):
    """Unit ball of the largest column norm: minus each column of G divided by its 2-norm.

    See Also
    --------
    column_lmo, RowBall

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.ColumnBall()
    >>> G = np.array([[3.0, 0.0], [4.0, 2.0]])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (7.0, 7.0)
    """

    def support(self, G: Any) -> float:
        """``sum_j ||g_:j||_2``."""
        return super().support(G)

    def gauge(self, X: Any) -> float:
        """``max_j ||x_:j||_2``."""
        return _Entries(X).largest(0)

    def _support(self, entries: _Entries) -> float:
        return entries.total(0)

    def _direction(self, entries: _Entries) -> Array:
        return entries.units(0)


@dataclass(frozen=True)
class RowBall(_EntrywiseBall):
    """Unit ball of the largest row norm: minus each row of G divided by its 2-norm.

    See Also
    --------
    row_lmo, ColumnBall

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.RowBall()
    >>> G = np.array([[3.0, 4.0], [0.0, 2.0]])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (7.0, 7.0)
    """

    def support(self, G: Any) -> float:
        """``sum_i ||g_i:||_2``."""
        return super().support(G)

    def gauge(self, X: Any) -> float:
        """``max_i ||x_i:||_2``."""
        return _Entries(X).largest(1)

    def _support(self, entries: _Entries) -> float:
        return entries.total(1)

    def _direction(self, entries: _Entries) -> Array:
        return entries.units(1)
