"""Upper bound of the Ky Fan norm that holds except with a stated probability.

In bases that begin with orthonormal U and V (k columns each) a matrix is

    [[H, E_l^H],      H = U^H A V,               E_r = (I - U U^H) A V,
     [E_r, M  ]]      E_l = (I - V V^H) A^H U,   M   = (I - U U^H) A (I - V V^H).

If ``rho >= ||M||`` is less than the k-th singular value of H, the k leading values of A exceed
those of H by at most

    2 e^2 / (d_i + sqrt(d_i^2 + 4 e^2)),    d_i = s_i(H) - rho,    e = max(||E_l||, ||E_r||)

(Li and Li on the Hermitian dilation), which is quadratic in the residuals. Residuals are computed
by products. The norm of M is bounded by products of M and its adjoint with a random block.

References
----------
C.-K. Li and R.-C. Li, A note on eigenvalues of perturbed Hermitian matrices,
doi:10.1016/j.laa.2004.08.026. N. Halko, P. G. Martinsson, J. A. Tropp, Finding structure with
randomness, lemma 4.1, doi:10.1137/090771806.
"""

from __future__ import annotations

import math

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd.operators.counting import Metered

FAILURE = 1e-6
"""Probability that the bound does not hold."""

_COLUMNS = 6
# Products with M or M^H; the bound of its norm is too large by about 25^(1 / products).
_MOST_PRODUCTS = 15


def probable_bound(
    op: Metered, U: Array, V: Array, enough: float, rng: np.random.Generator
) -> float | None:
    """Return an upper bound of the sum of the k leading singular values; None if there is none.

    Parameters
    ----------
    op : Metered
        The operator, m x n.
    U, V : arrays of shape (m, k) and (n, k)
        Orthonormal columns.
    enough : float
        Bound that is sufficient; the computation ends there.
    rng : numpy.random.Generator
        Generator of the random block. U and V must not depend on its numbers.

    Returns
    -------
    float or None
        The bound, which holds except with probability `FAILURE`.
    """
    arrays = op.arrays
    right, left = op.matmat(V), op.rmatmat(U)
    H = arrays.get(arrays.adjoint_product(U, right)).astype(arrays.wide_dtype)
    coupling = max(
        _norm(arrays.get(_without(arrays, U, right))), _norm(arrays.get(_without(arrays, V, left)))
    )
    s = np.linalg.svd(H, compute_uv=False)
    rounding = 10 * max(op.shape) ** 0.5 * arrays.eps * float(s[0])
    coupling += rounding
    X = arrays.gaussian(rng, V.shape[0], _COLUMNS)
    X = _without(arrays, V, X)
    factor = math.sqrt(2 / math.pi) * FAILURE ** (-1 / _COLUMNS)
    logs = np.zeros(_COLUMNS)
    best: float | None = None
    for product in range(1, _MOST_PRODUCTS + 1):
        Y = _without(arrays, U, op.matmat(X)) if product % 2 else op.rmatmat(X)
        X = Y if product % 2 else _without(arrays, V, Y)
        sizes = arrays.get(arrays.column_norms(X)).astype(np.float64)
        if not sizes.all():
            rho = rounding
        else:
            logs += np.log(sizes)
            rho = math.exp((math.log(factor) + float(logs.max())) / product) + rounding
            X = X / arrays.like(arrays.put(sizes)[None, :])
        # For vectors of unit length, the norm of a product is a lower bound of ||M||.
        if product > 1 and float(sizes.max()) * factor ** (1 / _MOST_PRODUCTS) >= s[-1]:
            break
        if product % 2 and rho < s[-1]:
            best = min(best or math.inf, _raised(s, rho, coupling))
            if best <= enough or rho == rounding:
                break
    return best


def _raised(s: HostArray, rho: float, coupling: float) -> float:
    distance = s - rho
    growth = 2 * coupling**2 / (distance + np.sqrt(distance**2 + 4 * coupling**2))
    return float(np.sum(s + growth))


def _without(arrays: Arrays, Q: Array, X: Array) -> Array:
    """Subtract the part of X in the orthonormal Q, twice."""
    for _ in range(2):
        X = X - arrays.product(Q, arrays.adjoint_product(Q, X))
    return X


def _norm(X: HostArray) -> float:
    """Return the spectral norm of a tall block."""
    return float(np.linalg.norm(X.astype(np.result_type(X, np.float64)), 2))
