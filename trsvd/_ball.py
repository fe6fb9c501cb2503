"""What a ball is: three verbs, and an algebra of scaling and adding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from trsvd._arrays import Arrays, is_array
from trsvd._kinds import describe
from trsvd._lmo_result import LMOResult
from trsvd._polar_methods import PolarIteration
from trsvd._singular_values import singular_values
from trsvd._sum_gauge import sum_gauge
from trsvd._validate import check_number
from trsvd.methods import Method
from trsvd.operators import as_operator

__all__ = ["Ball", "Options", "SumBall"]


@dataclass(frozen=True)
class Options:
    """The options of `Ball.lmo`, together."""

    gap: float | None
    tol: float | None
    start: Any
    method: str | Method | PolarIteration | None
    rng: int | np.random.Generator | None
    certify: bool | str

    def __post_init__(self) -> None:
        if self.gap is not None and self.tol is not None:
            msg = f"gap={self.gap} and tol={self.tol} are both given; ask for one of them"
            raise ValueError(msg)
        if self.gap is not None and not 0 < self.gap < 1:
            msg = f"gap={self.gap}; a relative gap is a number between 0 and 1"
            raise ValueError(msg)
        if self.certify not in (True, False, "probable"):
            msg = f"certify={self.certify!r}; it is True, False or 'probable'"
            raise ValueError(msg)

    def as_arguments(self) -> dict[str, Any]:
        """As keyword arguments."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


class Ball(ABC):
    """The unit ball of a norm on m x n matrices."""

    @abstractmethod
    def support(self, G: Any) -> float:
        """The support function: ``max <G, X>`` over the ball; the dual norm of G."""

    @abstractmethod
    def gauge(self, X: Any) -> float:
        """The gauge: the norm of X of which this is the unit ball."""

    def lmo(
        self,
        G: Any,
        *,
        gap: float | None = None,
        tol: float | None = None,
        start: Any = None,
        method: str | Method | PolarIteration | None = None,
        rng: int | np.random.Generator | None = None,
        certify: bool | Literal["probable"] = False,
    ) -> LMOResult:
        """A minimizer of ``<G, X>`` over the ball: the update direction, already negative.

        Parameters
        ----------
        G : array, sparse matrix or operator of shape (m, n)
            Entrywise balls (Frobenius, max, column, row) need an array.
        gap : float, optional
            Relative gap to stop at, between 0 and 1: ``<G, D>`` need only come so near to the
            minimum. Where it is None, ``tol`` counts.
        tol : float, optional
            Relative residual of the singular triplets, as for `trsvd.svds`.
        start : Subspace, SVDResult or array of shape (n, p), optional
            Warm start: ``result.subspace`` of a matrix near this one.
        method : str, Method, NewtonSchulz or PolarExpress, optional
            As for `trsvd.svds`; the iterations are for the spectral ball.
        rng : int or numpy.random.Generator, optional
            Where random numbers come from.
        certify : bool or "probable", default False
            Whether the gap reported must be a bound or exact, rather than an estimate; or at least
            one that holds but with a stated probability, which takes fewer products where the
            spectrum has a gap behind the k-th value.

        Returns
        -------
        LMOResult
            The update (factored where it has low rank), its gap, and what to start from next time.

        Raises
        ------
        TypeError, ValueError
            As `trsvd.svds`; a G with NaN or inf is an error, G = 0 gives 0.
        """
        return self._minimize(G, Options(gap, tol, start, method, rng, certify))

    def lmo_many(
        self,
        Gs: Any,
        *,
        gap: float | None = None,
        tol: float | None = None,
        start: Sequence[Any] | None = None,
        method: str | Method | PolarIteration | None = None,
        rng: int | np.random.Generator | None = None,
        certify: bool | Literal["probable"] = False,
    ) -> list[LMOResult]:
        """`lmo` of many matrices; those of one shape together where the library gains by it.

        Parameters
        ----------
        Gs : sequence of (m, n) arrays, or array of shape (..., m, n)
            Matrices of any shapes; the leading dimensions of an array are taken in order.
        gap, tol, method, rng, certify
            As for `lmo`, for every matrix. (A seed is one for each of them.)
        start : sequence, optional
            A warm start for each matrix (or None): ``[result.subspace for result in results]``.

        Returns
        -------
        list of LMOResult
            One for each matrix, in order, each with its own gap and status.

        Raises
        ------
        TypeError, ValueError
            As `lmo`, and if ``start`` is not as long as ``Gs``.

        Notes
        -----
        PyTorch's and CuPy's matrices of one shape are multiplied in batches: by their Gram
        matrices, or with warm starts and ``gap`` by a warm step of all of them. What needs more
        than the others is gone on with by itself. NumPy's are taken in a loop.
        """
        matrices = _matrices_of(Gs)
        starts = [None] * len(matrices) if start is None else list(start)
        if len(starts) != len(matrices):
            msg = f"start has {len(starts)} entries for {len(matrices)} matrices; give one for each"
            raise ValueError(msg)
        return self._minimize_all(matrices, starts, Options(gap, tol, None, method, rng, certify))

    @abstractmethod
    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """`lmo`, with its options together."""

    def _minimize_all(
        self, matrices: list[Any], starts: list[Any], options: Options
    ) -> list[LMOResult]:
        """`_minimize` of each matrix."""
        return [
            self._minimize(G, replace(options, start=start))
            for G, start in zip(matrices, starts, strict=True)
        ]

    def contains(self, X: Any, *, rtol: float | None = None) -> bool:
        """Whether X lies in the ball.

        Parameters
        ----------
        X : array, sparse matrix or operator of shape (m, n)
            Any matrix.
        rtol : float, optional
            By how much the gauge may exceed 1; ``sqrt(eps)`` of X's dtype by default.

        Returns
        -------
        bool
        """
        if rtol is None:
            arrays = as_operator(X).arrays
            rtol = float(arrays.xp.finfo(arrays.out_dtype).eps) ** 0.5
        return self.gauge(X) <= 1 + rtol

    def __rmul__(self, factor: float) -> SumBall:
        return SumBall(((_positive(factor), self),))

    __mul__ = __rmul__

    def __add__(self, other: Ball) -> SumBall:
        if not isinstance(other, Ball):
            return NotImplemented
        return SumBall((*_parts(self), *_parts(other)))


def _matrices_of(Gs: Any) -> list[Any]:
    """The matrices of a sequence, or of an array with leading dimensions."""
    if isinstance(Gs, (list, tuple)):
        return list(Gs)
    if not is_array(Gs) or Gs.ndim < 3:
        msg = (
            f"{describe(Gs)} is not a batch; pass a list of matrices, or an array of shape "
            "(..., m, n) with at least three dimensions"
        )
        raise TypeError(msg)
    if 0 in tuple(Gs.shape[-2:]):
        msg = f"G has shape {tuple(Gs.shape)}; a batch needs matrices with rows and columns"
        raise ValueError(msg)
    count = math.prod(Gs.shape[:-2])
    flat = Arrays.of_array(Gs).xp.reshape(Gs, (count, *Gs.shape[-2:]))
    return [flat[i, :, :] for i in range(count)]


def _parts(ball: Ball) -> tuple[tuple[float, Ball], ...]:
    return ball.parts if isinstance(ball, SumBall) else ((1.0, ball),)


def _positive(factor: float) -> float:
    factor = check_number("the factor of a ball", factor)
    if not (math.isfinite(factor) and factor >= 0):
        msg = f"a ball cannot be scaled by {factor}; use a finite number of at least 0"
        raise ValueError(msg)
    return factor


@dataclass(frozen=True)
class SumBall(Ball):
    """The Minkowski sum ``a_1 B_1 + a_2 B_2 + ...``; made by ``*`` and ``+``.

    Parameters
    ----------
    parts : tuple of (float, Ball)
        Radii, of at least 0, and balls.
    """

    parts: tuple[tuple[float, Ball], ...]

    def __rmul__(self, factor: float) -> SumBall:
        factor = _positive(factor)
        return SumBall(tuple((factor * radius, ball) for radius, ball in self.parts))

    __mul__ = __rmul__

    def support(self, G: Any) -> float:
        """Sum of the parts' support functions."""
        return sum(radius * ball.support(G) for radius, ball in self._present)

    @property
    def _present(self) -> tuple[tuple[float, Ball], ...]:
        """The parts that are more than the point 0; the first of all where none is."""
        return tuple(part for part in self.parts if part[0] > 0) or self.parts[:1]

    def gauge(self, X: Any) -> float:
        """``min { max_i gauge_i(X_i) / a_i : sum_i X_i = X }``.

        Of two balls of singular values it is computed on the singular values of X. With balls of
        entries, rows or columns there is no such reduction.

        Raises
        ------
        NotImplementedError
            Where it cannot be computed.
        """
        parts = [(radius, ball) for radius, ball in self.parts if radius > 0]
        if not parts:  # the point 0
            return math.inf if singular_values(X)[0] > 0 else 0.0
        if len(parts) == 1:
            return parts[0][1].gauge(X) / parts[0][0]
        return sum_gauge(parts, singular_values(X))

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """Sum of the parts' minimizers; see `Ball.lmo`."""
        return LMOResult.total(
            [ball._minimize(G, options).times(radius) for radius, ball in self._present]
        )

    def _minimize_all(
        self, matrices: list[Any], starts: list[Any], options: Options
    ) -> list[LMOResult]:
        """As `_minimize`, part by part."""
        parts = [
            [result.times(radius) for result in ball._minimize_all(matrices, starts, options)]
            for radius, ball in self._present
        ]
        return [LMOResult.total(list(row)) for row in zip(*parts, strict=True)]
