"""Images of singular values under compositions of odd polynomials, and bounds from them.

An iteration ``X <- p(X)`` changes the singular values only. Its error therefore follows from the
images of intervals under real functions. The ends of an image are values at end points or critical
points, so that images are computed exactly. Rounding errors of each step widen them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd.polar.polynomials import Polynomial

# Cells of [0, 1]: one below 1e-8, the others in geometric progression.
_CELLS = 2000
_SMALLEST = 1e-8


def image(
    polynomials: tuple[Polynomial, ...], low: float, high: float, eps: float = 0.0
) -> tuple[float, float]:
    """Return the exact image of the interval from ``low`` to ``high``.

    Parameters
    ----------
    polynomials : tuple of polynomials
        Polynomial of each step.
    low, high : float
        Ends of the interval.
    eps : float, default 0
        Rounding unit; 0 is exact arithmetic.

    Returns
    -------
    low, high : float
        Ends of the image, which is an interval too.

    Examples
    --------
    >>> from trsvd.polar import QUINTIC
    >>> low, high = image((QUINTIC,) * 5, 0.0, 1.0)
    >>> low, round(high, 4)
    (0.0, 1.2024)
    """
    lows, highs = _images(polynomials, np.array([low]), np.array([high]), eps)
    return float(lows[0]), float(highs[0])


@dataclass(frozen=True, eq=False)
class ScalarMap:
    """Map of an iteration on singular values in [0, 1], with rounding errors.

    Attributes
    ----------
    largest : float
        Bound of the singular values of the last iterate.
    prices, tolls : arrays of shape (a,) and (b,)
        Multipliers lam and mu of `sum_at_most`.
    excess : array of shape (a, b)
        ``max_x x - lam x f(x) - mu x^2`` for each pair of them.
    """

    largest: float
    prices: HostArray
    tolls: HostArray
    excess: HostArray

    def sum_at_most(self, attained: float, rank: int) -> float:
        """Bound the sum of ``rank`` values x_i in [0, 1] from a weighted sum.

        Parameters
        ----------
        attained : float
            ``sum_i x_i f(x_i)``, where f is the map of the iteration.
        rank : int
            Number of values; the sum of their squares is at most 1.

        Returns
        -------
        float

        Notes
        -----
        Duality: for all lam, mu >= 0 ::

            sum x_i  <=  lam sum x_i f(x_i) + mu sum x_i^2 + rank max_x (x - lam x f(x) - mu x^2),

        and the least of these bounds is returned. Without f (lam = 0) it is ``sqrt(rank)``. If f is
        at least ``1 - e`` above some x_0, it is at most the attained sum divided by ``1 - e``, plus
        the possible sum of values below x_0.
        """
        duals = self.prices[:, None] * attained + self.tolls[None, :] + rank * self.excess
        return min(float(duals.min()), math.sqrt(rank))


@lru_cache(maxsize=64)
def scalar_map(polynomials: tuple[Polynomial, ...], eps: float) -> ScalarMap:
    """Return the map of an iteration on singular values in [0, 1].

    Parameters
    ----------
    polynomials : tuple of polynomials
        Polynomial of each step.
    eps : float
        Rounding unit of the products; 0 is exact arithmetic.

    Returns
    -------
    ScalarMap
    """
    edges = np.concatenate([[0.0], np.geomspace(_SMALLEST, 1.0, _CELLS)])
    lows, highs = _images(polynomials, edges[:-1], edges[1:], eps)
    largest = float(max(highs.max(), -lows.min()))
    if not math.isfinite(largest):  # rounding leads out of range: no bound is known
        none = np.zeros(1)
        return ScalarMap(math.inf, none, none, np.full((1, 1), math.inf))
    # Least image of all values above a cut; its inverse is the multiplier.
    least = np.minimum.accumulate(lows[::-1])[::-1][:: _CELLS // 80]
    prices = np.unique(np.concatenate([[0.0], 1 / least[least > 0.02]]))
    tolls = np.concatenate([[0.0], np.geomspace(0.01, 1000.0, 41)])
    excess = np.array([[_excess(edges, 1 - lam * lows, mu) for mu in tolls] for lam in prices])
    return ScalarMap(largest, prices, tolls, excess)


def _excess(edges: HostArray, slopes: HostArray, mu: float) -> float:
    """Return ``max slope * x - mu x^2`` over the cells, at least 0."""
    top = slopes / (2 * mu) if mu else np.where(slopes > 0, np.inf, 0.0)
    x = np.clip(top, edges[:-1], edges[1:])
    return max(0.0, float(np.max(slopes * x - mu * x * x)))


def _images(
    polynomials: tuple[Polynomial, ...], lows: HostArray, highs: HostArray, eps: float
) -> tuple[HostArray, HostArray]:
    """Return the images of many intervals, widened by the rounding errors of every step.

    The error of a step is a rounding unit of the sum of the absolute values of its terms.
    """
    lows, highs = lows - eps, highs + eps
    with np.errstate(over="ignore", invalid="ignore"):  # for polynomials that lead out of range
        for polynomial in polynomials:
            reach = np.max([highs.max(), -lows.min()])
            loss = eps * _values(tuple(map(abs, polynomial)), reach)
            lows, highs = _image(polynomial, lows, highs)
            lows, highs = lows - loss, highs + loss
    return lows, highs


def _image(
    polynomial: Polynomial, lows: HostArray, highs: HostArray
) -> tuple[HostArray, HostArray]:
    """Return the images of intervals under one polynomial."""
    ends = np.stack([_values(polynomial, lows), _values(polynomial, highs)])
    least, most = ends.min(axis=0), ends.max(axis=0)
    for point in _critical_points(polynomial):
        value = _values(polynomial, np.array(point))
        within = (lows < point) & (point < highs)
        least = np.where(within, np.minimum(least, value), least)
        most = np.where(within, np.maximum(most, value), most)
    return least, most


def _values(polynomial: Polynomial, x: HostArray) -> HostArray:
    total = np.zeros_like(x)
    for coefficient in reversed(polynomial):
        total = coefficient + total * x * x
    return np.asarray(total * x)


def _critical_points(polynomial: Polynomial) -> list[float]:
    """Return the real zeros of the derivative."""
    derivative = [(2 * i + 1) * c for i, c in enumerate(polynomial)]
    squares = np.roots(derivative[::-1])
    # A double zero can have a small imaginary part; an additional point is harmless.
    real = squares[(np.abs(squares.imag) <= 1e-6 * np.abs(squares)) & (squares.real > 0)].real
    return [float(sign * root) for root in np.sqrt(real) for sign in (1.0, -1.0)]
