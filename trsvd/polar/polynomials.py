"""Odd polynomials of a matrix: of its singular values, with the vectors as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trsvd._arrays.arrays import Array, Arrays

__all__ = ["Polynomial", "checked_coefficients", "polynomial_step"]

Polynomial = tuple[float, ...]
"""``(a, b, c, ...)`` of the odd polynomial ``a x + b x^3 + c x^5 + ...``."""


def polynomial_step(arrays: Arrays, X: Array, polynomial: Polynomial) -> Array:
    """``p(X)``: the odd polynomial of the singular values, the vectors as they are.

    Parameters
    ----------
    arrays : Arrays
        What X lives in.
    X : array of shape (m, n)
        In any floating point dtype; products are made in it.
    polynomial : tuple of float
        ``(a, b, c, ...)`` of ``a x + b x^3 + c x^5 + ...``.

    Returns
    -------
    array of shape (m, n)

    Raises
    ------
    TypeError
        If the library makes products in another dtype than that of X.
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
        msg = (
            f"a product of {X.dtype} came out in {product.dtype}; call this outside of what "
            "changes the dtype of products, as torch.autocast does"
        )
        raise TypeError(msg)
    return a * X + product


def checked_coefficients(coefficients: Sequence[float]) -> Polynomial:
    """Coefficients that a user gave, as a polynomial; ValueError if they make no iteration."""
    values = tuple(float(value) for value in coefficients)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        msg = f"coefficients={coefficients!r}; give at least two finite numbers, as (1.5, -0.5)"
        raise ValueError(msg)
    return values
