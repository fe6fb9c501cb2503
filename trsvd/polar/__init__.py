"""Approximate polar factors by iterations of odd polynomials, which need only products.

`newton_schulz` is the plain iteration. `trsvd.NewtonSchulz` and `trsvd.PolarExpress` are methods
of the oracle of the spectral ball, with a bound of the error.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, is_array
from trsvd._arrays.dtypes import describe
from trsvd.polar.polynomials import checked_coefficients, polynomial_step

__all__ = [
    "CUBIC",
    "QUINTIC",
    "newton_schulz",
    "newton_schulz_iterates",
    "newton_schulz_matvecs",
]

CUBIC = (1.5, -0.5)
"""Coefficients of ``1.5 x - 0.5 x^3``, which converges quadratically to the polar factor."""

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Muon's coefficients, ``3.4445 x - 4.7750 x^3 + 2.0315 x^5``: fast, but not convergent."""


def newton_schulz(G: Array, *, steps: int, coefficients: Sequence[float] = CUBIC) -> Array:
    """Approximate the polar factor ``U V^H`` of ``G = U S V^H`` without an SVD.

    Parameters
    ----------
    G : array of shape (m, n)
        Array of any array API library, real or complex. Half precision is computed in float32,
        integers and bool in float64.
    steps : int
        Number of iterations, at least 0.
    coefficients : sequence of float, default `CUBIC`
        ``(a, b, c, ...)`` of the odd polynomial ``p(x) = a x + b x^3 + c x^5 + ...``.

    Returns
    -------
    array of shape (m, n)
        In the namespace, dtype and device of G.

    Raises
    ------
    TypeError
        If G is not an array.
    ValueError
        If G is not two-dimensional, empty, or not finite, or if ``steps`` or ``coefficients`` are
        invalid.

    See Also
    --------
    newton_schulz_iterates, newton_schulz_matvecs, trsvd.NewtonSchulz

    Notes
    -----
    The iteration ``X <- p(X)`` from ``X = G / ||G||_F`` changes the singular values only: each
    becomes ``p(p(...p(s_i / ||G||_F)))``. This gives the error:

    - `CUBIC` maps [0, 1] into itself. Small values grow by a factor of 1.5 in each step, so that a
      value s needs about ``log(||G||_F / s) / log(1.5)`` steps. Then each step squares the error
      (times 1.5). Zero stays zero: if G has rank r < min(m, n), the limit is ``U_r V_r^H``.
    - With `QUINTIC`, values grow by a factor of up to 3.4445 in each step, and then stay in
      [0.68, 1.203] without converging. Values above ``2e-3 ||G||_F`` are there after five steps; a
      smaller value s becomes at most ``485 s / ||G||_F``. If the values are spread out, the error
      ``||X - U V^H||_F / sqrt(min(m, n))`` stays about 0.2. Since values can exceed 1, the result
      can lie outside of the spectral ball.

    Cost, with ``r = min(m, n)``: a step of `CUBIC` takes ``2 r`` products with X or X^H, counted in
    vectors. Each further coefficient takes r products more, with a matrix of the smaller size; see
    `newton_schulz_matvecs`. Memory: three matrices of the size of G.

    References
    ----------
    A. Bjorck and C. Bowie, An iterative algorithm for computing the best estimate of an orthogonal
    matrix, doi:10.1137/0708036. K. Jordan et al., Muon: an optimizer for hidden layers in neural
    networks, https://kellerjordan.github.io/posts/muon/.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.polar import QUINTIC, newton_schulz
    >>> newton_schulz(np.diag([2.0, -1.0]), steps=20).round(12) + 0.0
    array([[ 1.,  0.],
           [ 0., -1.]])
    >>> newton_schulz(np.diag([2.0, -1.0]), steps=5, coefficients=QUINTIC).round(2) + 0.0
    array([[ 0.69,  0.  ],
           [ 0.  , -1.11]])
    """
    if steps < 0:
        raise ValueError(f"steps={steps}; it must be at least 0")
    return next(itertools.islice(newton_schulz_iterates(G, coefficients=coefficients), steps, None))


def newton_schulz_iterates(G: Array, *, coefficients: Sequence[float] = CUBIC) -> Iterator[Array]:
    """Yield the iterates of `newton_schulz`, without end, beginning with ``G / ||G||_F``.

    Parameters
    ----------
    G : array of shape (m, n)
        As for `newton_schulz`.
    coefficients : sequence of float, default `CUBIC`
        As for `newton_schulz`.

    Yields
    ------
    array of shape (m, n)
        In the namespace, dtype and device of G.

    Raises
    ------
    TypeError, ValueError
        As `newton_schulz`, at the first iterate.

    See Also
    --------
    newton_schulz

    Examples
    --------
    >>> import itertools
    >>> import numpy as np
    >>> from trsvd.polar import newton_schulz_iterates
    >>> iterates = newton_schulz_iterates(np.diag([2.0, 1.0]))
    >>> for X in itertools.islice(iterates, 3):
    ...     print(np.diag(X).round(3))
    [0.894 0.447]
    [0.984 0.626]
    [1.    0.816]
    """
    arrays, X = _normalized(G)
    polynomial = checked_coefficients(coefficients)
    while True:
        yield arrays.hand_out(X)
        X = polynomial_step(arrays, X, polynomial)


def newton_schulz_matvecs(
    shape: tuple[int, int], steps: int, coefficients: Sequence[float] = CUBIC
) -> int:
    """Return the number of products of ``steps`` iterations, counted in vectors.

    Parameters
    ----------
    shape : tuple of int
        ``(m, n)``.
    steps : int
        Number of iterations.
    coefficients : sequence of float, default `CUBIC`
        As for `newton_schulz`.

    Returns
    -------
    int
        ``len(coefficients) * min(m, n) * steps``: ``2 min(m, n)`` in each step for `CUBIC`.

    See Also
    --------
    newton_schulz

    Examples
    --------
    >>> from trsvd.polar import newton_schulz_matvecs
    >>> newton_schulz_matvecs((500, 500), 27)
    27000
    """
    return len(checked_coefficients(coefficients)) * min(shape) * steps


def _normalized(G: Array) -> tuple[Arrays, Array]:
    """Return ``G / ||G||_F`` in the compute dtype; zero stays zero."""
    G = admitted(G)
    if not is_array(G):
        raise TypeError(f"G is {describe(G)}; pass an array of an array API library")
    if G.ndim != 2 or 0 in tuple(G.shape):
        raise ValueError(
            f"G has shape {tuple(G.shape)}; pass a matrix with at least one row and one column"
        )
    arrays = Arrays.of_array(G)
    X = arrays.matrix(G)
    size = arrays.max_abs(X)
    if not math.isfinite(size):
        raise ValueError(
            f"G contains NaN or inf (its largest entry is {size}); it has no polar factor"
        )
    return arrays, arrays.units(X, axis=(0, 1))
