"""Functions of the singular values, with the singular vectors as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._oracles.leading_pairs import leading_pairs
from trsvd._oracles.result import LowRankTerm
from trsvd.methods import Direct, Method
from trsvd.operators import as_operator

__all__ = ["WHOLE", "spectral_function", "whole_method"]

WHOLE = {"exact": Direct(), "svd": Direct(route="svd"), "gram": Direct(route="gram")}
"""Names of ways to all singular values, beside those of the methods."""


def whole_method(method: Any) -> Any:
    """The method for all singular values: the full SVD, unless another one is named."""
    if method is None:
        return Direct()
    return WHOLE.get(method, method) if isinstance(method, str) else method


def spectral_function(
    G: Any, f: Callable[[HostArray], Any], *, method: str | Method | None = None
) -> Array:
    """``U f(S) V^H`` of ``G = U S V^H``: a function of the singular values, the vectors kept.

    The hook for updates that are not here: ``f = lambda s: s**0.5`` is a half power, ``np.sign``
    the polar factor.

    Parameters
    ----------
    G : array, sparse matrix or operator of shape (m, n)
        The matrix.
    f : callable
        Takes the singular values of G, descending, a float64 NumPy array of shape (q,), and returns
        q finite real numbers. Singular values that are zero to rounding
        (``s_i <= max(m, n) eps s_1``) are left out, since their vectors are not unique: the result
        is zero where G is. f is not called for G = 0.
    method : str or Method, optional
        ``"exact"`` or ``"svd"``: the full SVD, the default. ``"gram"``: the Gram matrix in double
        precision where it is accurate enough. Or a method of `trsvd.svds`, to find all triplets.

    Returns
    -------
    array of shape (m, n)
        In G's dtype (float64 for integers), namespace and device.

    Raises
    ------
    TypeError
        If G is not a matrix, f not callable, or what it returns not real numbers.
    ValueError
        If G is not finite or empty, if f returns another shape, NaN or inf, or if the result is out
        of the range of G's dtype.

    Notes
    -----
    Cost: min(m, n) products and a factorization. Memory: about four matrices like G.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.spectral_function(np.diag([4.0, -9.0]), np.sqrt).round(12) + 0.0
    array([[ 2.,  0.],
           [ 0., -3.]])
    """
    function: Any = f
    if not callable(function):
        msg = f"f is {f!r}; pass a function of the singular values, as numpy.sqrt"
        raise TypeError(msg)
    rank = min(as_operator(G).shape)
    pairs = leading_pairs(
        G,
        rank,
        gap=None,
        tol=None,
        start=None,
        method=whole_method(method),
        rng=0,
        certify=False,
    )
    values = np.zeros(0)
    if len(pairs.S):
        values = _values(function, np.array(pairs.S, dtype=np.float64))
    arrays = pairs.arrays
    with np.errstate(over="ignore", invalid="ignore"):  # looked at next
        X = LowRankTerm(1.0, pairs.U * arrays.put(values)[None, :], pairs.Vh, arrays).dense()
    if not math.isfinite(arrays.max_abs(X)):
        msg = (
            f"f has values up to {np.abs(values).max():.3g}: U f(S) V^H is out of the range of "
            f"{arrays.out_dtype}; scale f down, or convert G to a wider dtype"
        )
        raise ValueError(msg)
    return X


def _values(f: Callable[[HostArray], Any], S: HostArray) -> HostArray:
    """What f makes of the singular values."""
    values = np.asarray(f(S.copy()))
    if values.dtype.kind not in "fiu":
        msg = f"f returned numbers of dtype {values.dtype}; singular values become real numbers"
        raise TypeError(msg)
    if values.shape != S.shape:
        msg = f"f returned shape {values.shape} for {S.shape}; one number for each singular value"
        raise ValueError(msg)
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        msg = (
            f"f returned {values[bad]} for the singular value {S[bad]:.6g}; a finite one is needed"
        )
        raise ValueError(msg)
    return values.astype(np.float64)
