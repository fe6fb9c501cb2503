"""Odd polynomials of a matrix, which change its singular values only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from trsvd._arrays.arrays import Array, Arrays

Polynomial = tuple[float, ...]
"""``(a, b, c, ...)`` of the odd polynomial ``a x + b x^3 + c x^5 + ...``."""


def polynomial_step(arrays: Arrays, X: Array, polynomial: Polynomial) -> Array:
    """Return ``p(X)``, the odd polynomial of the singular values of X.

    Parameters
    ----------
    arrays : Arrays
        Array library of X.
    X : array of shape (m, n)
        Array of any floating point dtype, which is the dtype of the products.
    polynomial : tuple of float
        ``(a, b, c, ...)`` of ``a x + b x^3 + c x^5 + ...``.

    Returns
    -------
    array of shape (m, n)

    Raises
    ------
    TypeError
        If the library computes products in another dtype than that of X.
    """
    a, *others = polynomial
    wide = X.shape[0] < X.shape[1]
    with arrays.as_asked():
        # Powers of the Gram matrix of the smaller side, by Horner's rule.
        gram = X @ arrays.adjoint(X) if wide else arrays.adjoint_product(X, X)
        power = others[-1] * gram
        for coefficient in reversed(others[:-1]):
            power = coefficient * gram + power @ gram
        product = power @ X if wide else X @ power
    if product.dtype != X.dtype:
        raise TypeError(
            f"a product of {X.dtype} came out in {product.dtype}; call this outside of what "
            "changes the dtype of products, as torch.autocast does"
        )
    return a * X + product


def checked_coefficients(coefficients: Sequence[float]) -> Polynomial:
    """Return the coefficients as a polynomial; ValueError if they are invalid."""
    values = tuple(float(value) for value in coefficients)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        raise ValueError(
            f"coefficients={coefficients!r}; give at least two finite numbers, as (1.5, -0.5)"
        )
    return values


# For a smaller relative width, the best quintic is that of a point, to machine precision.
_A_POINT = 5e-6


def optimal_quintic(low: float, high: float) -> tuple[Polynomial, float]:
    """Return the odd quintic nearest to 1 on an interval, and its error.

    Parameters
    ----------
    low, high : float
        Ends of the interval, ``0 < low <= high``.

    Returns
    -------
    polynomial : tuple of 3 float
        ``(a, b, c)`` of ``p(x) = a x + b x^3 + c x^5``.
    error : float
        ``E = max abs(1 - p(x))``. It is attained at four points, both ends included, with
        alternating signs. By Chebyshev's theorem no other odd quintic has a smaller error.

    Notes
    -----
    The algorithm is Remez exchange. Two of the four points are the ends, where ``p`` is ``1 - E``
    and ``1 + E``. The others are the zeros of ``p'``, a quadratic in ``x^2``.

    Examples
    --------
    >>> p, error = optimal_quintic(0.5, 1.0)
    >>> round(error, 4), round(1 + error - sum(p), 12) + 0.0
    (0.024, 0.0)
    """
    left = low / high
    if left > 1 - _A_POINT:
        return _dilated((15 / 8, -10 / 8, 3 / 8), 1 / high), 0.0
    inner = np.array([(3 * left + 1) / 4, (left + 3) / 4])
    error, before = 0.0, math.inf
    while abs(error - before) > 1e-15:
        before = error
        x = np.array([left, *inner, 1.0])
        system = np.stack([x, x**3, x**5, [1.0, -1.0, 1.0, -1.0]], axis=1)
        a, b, c, error = (float(value) for value in np.linalg.solve(system, np.ones(4)))
        middle, half = -3 * b / (10 * c), math.sqrt(max(9 * b * b - 20 * a * c, 0.0)) / (10 * c)
        inner = np.sqrt([middle - half, middle + half])
    return _dilated((a, b, c), 1 / high), error


@lru_cache(maxsize=256)
def express_polynomials(
    steps: int, lower: float, safety: float, cushion: float
) -> tuple[Polynomial, ...]:
    """Return the best composition of odd quintics for singular values in [lower, 1].

    Parameters
    ----------
    steps : int
        Number of steps, at least 1.
    lower : float
        Between 0 and 1.
    safety : float
        At least 1. All but the last ``p(x)`` become ``p(x / safety)``, so that values which
        rounding errors move out of the interval stay in the domain of the next step.
    cushion : float
        Smallest ratio of the left to the right end of an interval, so that no value is mapped so
        near to 0 that rounding errors dominate. The polynomial is then scaled to have equal errors
        above and below 1 on the whole interval.

    Returns
    -------
    tuple of polynomials

    Notes
    -----
    The best quintic for [l, u] maps it onto [1 - E, 1 + E]; the next is the best for that interval.
    With ``safety = 1`` and ``cushion = 0`` this greedy composition is the best of all compositions
    of the same number of odd quintics (theorem 3.1 of the reference).

    References
    ----------
    N. Amsel, D. Persson, C. Musco, R. Gower, The Polar Express: optimal matrix sign methods and
    their application to the Muon algorithm, arXiv:2505.16932.
    """
    found: list[Polynomial] = []
    low, high = lower, 1.0
    for step in range(steps):
        polynomial, _ = optimal_quintic(max(low, cushion * high), high)
        if low < cushion * high:
            ends = _value(polynomial, low) + _value(polynomial, high)
            polynomial = tuple(2 / ends * coefficient for coefficient in polynomial)
        if step < steps - 1:
            polynomial = _dilated(polynomial, 1 / safety)
        found.append(polynomial)
        low = min(_value(polynomial, low), 1.0)
        high = 2 - low
    return tuple(found)


def _dilated(polynomial: Polynomial, factor: float) -> Polynomial:
    """Return the polynomial ``p(factor * x)``."""
    return tuple(c * factor ** (2 * i + 1) for i, c in enumerate(polynomial))


def _value(polynomial: Polynomial, x: float) -> float:
    return sum(c * x ** (2 * i + 1) for i, c in enumerate(polynomial))
