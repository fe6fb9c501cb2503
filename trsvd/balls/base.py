"""Norm balls: support function, gauge and LMO, with multiples and sums."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Arrays, is_array
from trsvd._arrays.dtypes import describe, dtype_name
from trsvd._errors import Status, warn_caller
from trsvd._oracles.options import Options
from trsvd._oracles.result import LMOResult, as_start
from trsvd._solve.problem import check_start
from trsvd._solve.result import Subspace, SVDResult
from trsvd._solve.svds import singular_values
from trsvd._validate import check_number
from trsvd.balls.sum_gauge import sum_gauge
from trsvd.methods import Method
from trsvd.operators import as_operator
from trsvd.polar.methods import PolarIteration


class Ball(ABC):
    """Unit ball of a norm on m x n matrices.

    See Also
    --------
    SumBall, trsvd.KyFanDualBall, trsvd.LMOResult

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> G = np.diag([3.0, 2.0, 1.0])
    >>> ball = trsvd.SpectralBall()
    >>> float(ball.support(G)), float(ball.gauge(G)), ball.contains(G / 3)
    (6.0, 3.0, True)
    """

    @abstractmethod
    def support(self, G: Any) -> float:
        """Return the support function, ``max <G, X>`` over the ball: the dual norm of G."""

    @abstractmethod
    def gauge(self, X: Any) -> float:
        """Return the gauge of X: the norm that has this unit ball."""

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
        time_limit: float | None = None,
    ) -> LMOResult:
        """Return a minimizer of ``<G, X>`` over the ball: the update direction, already negative.

        Parameters
        ----------
        G : array, sparse matrix or operator of shape (m, n)
            Entrywise balls (Frobenius, max, column, row) need an array.
        gap : float, optional
            Largest relative gap, between 0 and 1, of ``<G, D>`` to the minimum. None: the
            computation stops at ``tol``.
        tol : float, optional
            Relative residual of the singular triplets, as for `trsvd.svds`.
        start : LMOResult, Subspace, SVDResult or array of shape (n, p), optional
            Warm start: the result of a matrix near this one, or its ``subspace``.
        method : str, Method, NewtonSchulz or PolarExpress, optional
            As for `trsvd.svds`; the iterations are for the spectral ball.
        rng : int or numpy.random.Generator, optional
            Seed or generator of the random numbers.
        certify : bool or "probable", default False
            True: the reported gap must be exact or a bound. False: it may be an estimate.
            ``"probable"``: it must hold except with a stated probability, which takes fewer
            products than True if there is a gap after the k-th singular value.
        time_limit : float, optional
            Time in seconds after which an iteration of a method of `trsvd.svds` stops at its next
            step. The status of the result is ``TIME_LIMIT`` then. Factorizations are not
            interrupted, and neither is the proof of a gap with ``certify``.

        Returns
        -------
        LMOResult
            The update (factored if it has low rank), its gap, and the start of the next call.

        Raises
        ------
        TypeError, ValueError
            As `trsvd.svds`. NaN or inf in G is an error; G = 0 gives 0.
        """
        G = admitted(G)
        start = _start_for(G, start)
        options = Options(gap, tol, start, method, rng, certify, time_limit)
        return _judged(G, self._minimize(G, options), gap)

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
        time_limit: float | None = None,
    ) -> list[LMOResult]:
        """Return the result of `lmo` for each of many matrices.

        Parameters
        ----------
        Gs : sequence of (m, n) arrays, or array of shape (..., m, n)
            Matrices of any shapes; the leading dimensions of an array are taken in order.
        gap, tol, method, rng, certify, time_limit
            As for `lmo`, for every matrix. (A seed is used for each of them.)
        start : sequence, optional
            A warm start (or None) for each matrix, such as the results of the previous step.

        Returns
        -------
        list of LMOResult
            One for each matrix, in order, each with its own gap and status.

        Raises
        ------
        TypeError, ValueError
            As `lmo`, and if ``start`` is not a sequence, or not as long as ``Gs``.

        Notes
        -----
        Matrices of one shape are computed together: by their Gram matrices, or by one warm step
        with starts and ``gap``. A matrix that needs more products is then computed alone. NumPy
        arrays are computed one after the other, except small ones (min(m, n) <= 64) without a
        start.
        """
        matrices = _matrices_of(Gs)
        options = Options(gap, tol, None, method, rng, certify, time_limit)
        starts = [
            _start_for(G, one)
            for G, one in zip(matrices, _starts_of(start, len(matrices)), strict=True)
        ]
        try:
            found = self._minimize_all(matrices, starts, options)
        except ValueError:
            bad = _first_not_finite(matrices)
            if bad is None:
                raise
            raise ValueError(
                f"matrix {bad} of the batch contains NaN or inf; find where it comes from before "
                "making a step along it"
            ) from None
        return [
            _judged(G, result, gap, f"matrix {place} of the batch: ")
            for place, (G, result) in enumerate(zip(matrices, found, strict=True))
        ]

    @abstractmethod
    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """Compute `lmo` with an `Options` object."""

    def _minimize_all(
        self, matrices: list[Any], starts: list[Any], options: Options
    ) -> list[LMOResult]:
        """Compute `_minimize` of each matrix."""
        return [
            self._minimize(G, replace(options, start=start))
            for G, start in zip(matrices, starts, strict=True)
        ]

    def contains(self, X: Any, *, rtol: float | None = None) -> bool:
        """True if X lies in the ball.

        Parameters
        ----------
        X : array, sparse matrix or operator of shape (m, n)
            Any matrix.
        rtol : float, optional
            Largest excess of the gauge over 1. The default is ``sqrt(eps)`` of the dtype of X.

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


def _judged(G: Any, result: LMOResult, gap: float | None, which: str = "") -> LMOResult:
    """Return the result, with a status and a warning if its gap exceeds the requested one."""
    if gap is None or result.gap <= gap or not result.status.converged:
        return result
    msg = (
        f"{which}the gap is {result.gap:.2e}, {result.gap_kind}, above the requested {gap:.2e}: "
        f"rounding errors in {as_operator(G).arrays.dtype_name}, and values that count as zero, do "
        "not allow less"
    )
    warn_caller(msg)
    return replace(result, status=Status.ROUNDING_FLOOR)


def _matrices_of(Gs: Any) -> list[Any]:
    """Return the matrices of a sequence, or of an array with leading dimensions."""
    if isinstance(Gs, (list, tuple)):
        return [admitted(G) for G in Gs]
    Gs = admitted(Gs)
    if not is_array(Gs) or Gs.ndim < 3:
        raise TypeError(
            f"{describe(Gs)} is not a batch; pass a list of matrices, or an array of shape "
            "(..., m, n) with at least three dimensions"
        )
    if 0 in tuple(Gs.shape[-2:]):
        raise ValueError(
            f"G has shape {tuple(Gs.shape)}; a batch needs matrices with rows and columns"
        )
    count = math.prod(Gs.shape[:-2])
    flat = Arrays.of_array(Gs).xp.reshape(Gs, (count, *Gs.shape[-2:]))
    return [flat[i, :, :] for i in range(count)]


def _starts_of(start: Any, count: int) -> list[Any]:
    """Return the warm starts of a batch as a list."""
    if start is None:
        return [None] * count
    single = isinstance(start, (str, bytes, LMOResult, Subspace, SVDResult))
    if single or not (isinstance(start, Sequence) or is_array(start)):
        raise TypeError(
            f"start is {describe(start)}; pass a list with a warm start (or None) for each of the "
            f"{count} matrices"
        )
    starts = list(start)
    if len(starts) != count:
        raise ValueError(f"start has {len(starts)} entries for {count} matrices; give one for each")
    return starts


def _start_for(G: Any, start: Any) -> Any:
    """Convert a warm start for the solvers; TypeError if it does not fit G."""
    start = as_start(start)
    if start is not None:
        vectors = start.Vh if isinstance(start, (Subspace, SVDResult)) else start
        # The array library of G is looked up only if necessary.
        is_complex = dtype_name(getattr(vectors, "dtype", "bool")).startswith("complex")
        check_start(start, as_operator(G).arrays if is_complex else None)
    return start


def _first_not_finite(matrices: list[Any]) -> int | None:
    """Return the index of the first array with NaN or inf; None if there is none."""
    for index, G in enumerate(matrices):
        with suppress(TypeError, ValueError):
            size = as_operator(G).max_abs()
            if size is not None and not math.isfinite(size):
                return index
    return None


def _parts(ball: Ball) -> tuple[tuple[float, Ball], ...]:
    return ball.parts if isinstance(ball, SumBall) else ((1.0, ball),)


def _merged(parts: Iterable[tuple[float, Ball]]) -> list[tuple[float, Ball]]:
    """Return the sum with each ball once: ``a B + b B = (a + b) B``."""
    merged: list[tuple[float, Ball]] = []
    for radius, ball in parts:
        place = next((i for i, (_, other) in enumerate(merged) if other == ball), len(merged))
        before = sum(other for other, _ in merged[place : place + 1])
        merged[place : place + 1] = [(before + radius, ball)]
    return merged


def _positive(factor: float) -> float:
    factor = check_number("the factor of a ball", factor)
    if not (math.isfinite(factor) and factor >= 0):
        raise ValueError(f"a ball cannot be scaled by {factor}; use a finite number of at least 0")
    return factor


@dataclass(frozen=True)
class SumBall(Ball):
    """Minkowski sum ``a_1 B_1 + a_2 B_2 + ...``, the result of ``*`` and ``+``.

    Parameters
    ----------
    parts : tuple of (float, Ball)
        Radii (at least 0) and balls.

    See Also
    --------
    Ball

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> G = np.diag([3.0, 2.0, 1.0])
    >>> ball = 0.5 * trsvd.SpectralBall() + 0.5 * trsvd.FrobeniusBall()
    >>> round(ball.support(np.diag([4.0, 3.0])), 6)
    6.0
    """

    parts: tuple[tuple[float, Ball], ...]

    def __rmul__(self, factor: float) -> SumBall:
        factor = _positive(factor)
        return SumBall(tuple((factor * radius, ball) for radius, ball in self.parts))

    __mul__ = __rmul__

    def support(self, G: Any) -> float:
        """Return the sum of the support functions of the parts."""
        return sum(radius * ball.support(G) for radius, ball in self._present)

    @property
    def _present(self) -> tuple[tuple[float, Ball], ...]:
        """Return the parts with positive radius; the first part if there is none."""
        return tuple(part for part in self.parts if part[0] > 0) or self.parts[:1]

    def gauge(self, X: Any) -> float:
        """``min { max_i gauge_i(X_i) / a_i : sum_i X_i = X }``.

        The gauge is computed for sums of Ky Fan balls, their duals, nuclear, spectral and RMS balls
        (and of Schatten balls that equal one of these), and for the sum of one of them and the
        Frobenius ball. These are problems in the singular values of X. Sums with balls of entries,
        rows or columns are not.

        Raises
        ------
        NotImplementedError
            For all other sums.
        """
        parts = _merged(part for part in self.parts if part[0] > 0)
        if not parts:  # the point 0
            return math.inf if singular_values(X)[0] > 0 else 0.0
        if len(parts) == 1:
            return parts[0][1].gauge(X) / parts[0][0]
        return sum_gauge(parts, as_operator(X).shape, singular_values(X))

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """Return the sum of the minimizers of the parts; see `Ball.lmo`."""
        return LMOResult.total(
            [ball._minimize(G, options).times(radius) for radius, ball in self._present]
        )

    def _minimize_all(
        self, matrices: list[Any], starts: list[Any], options: Options
    ) -> list[LMOResult]:
        """Compute `_minimize` of each matrix, part by part."""
        parts = [
            [result.times(radius) for result in ball._minimize_all(matrices, starts, options)]
            for radius, ball in self._present
        ]
        return [LMOResult.total(list(row)) for row in zip(*parts, strict=True)]
