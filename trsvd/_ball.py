"""What a ball is: three verbs, and an algebra of scaling and adding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from trsvd._lmo_result import LMOResult
from trsvd._singular_values import singular_values
from trsvd._sum_gauge import sum_gauge
from trsvd.methods import Method
from trsvd.operators import as_operator

__all__ = ["Ball", "Options", "SumBall"]


@dataclass(frozen=True)
class Options:
    """The options of `Ball.lmo`, together."""

    gap: float | None
    tol: float | None
    start: Any
    method: str | Method | None
    rng: int | np.random.Generator | None
    certify: bool

    def __post_init__(self) -> None:
        if self.gap is not None and self.tol is not None:
            msg = f"gap={self.gap} and tol={self.tol} are both given; ask for one of them"
            raise ValueError(msg)
        if self.gap is not None and not 0 < self.gap < 1:
            msg = f"gap={self.gap}; a relative gap is a number between 0 and 1"
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
        method: str | Method | None = None,
        rng: int | np.random.Generator | None = None,
        certify: bool = False,
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
        method : str or Method, optional
            As for `trsvd.svds`.
        rng : int or numpy.random.Generator, optional
            Where random numbers come from.
        certify : bool, default False
            Whether the gap reported must be a bound or exact, rather than an estimate.

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

    @abstractmethod
    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """`lmo`, with its options together."""

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


def _parts(ball: Ball) -> tuple[tuple[float, Ball], ...]:
    return ball.parts if isinstance(ball, SumBall) else ((1.0, ball),)


def _positive(factor: float) -> float:
    factor = float(factor)
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
        return sum(radius * ball.support(G) for radius, ball in self.parts)

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
            [ball._minimize(G, options).times(radius) for radius, ball in self.parts]
        )
