"""Accuracy of singular values from Gram matrices in single and double precision.

Invariant: in a resolved spectrum, the Gram matrix in this precision separates the k-th value from
the following ones, to the tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import SINGLE

_DOUBLE = float(np.finfo(np.float64).eps)
_LOOSE = 100 * SINGLE
# LAPACK's vectors of so few rows are more accurate, and a correction would double the time.
FEW = 128


def are_moderate(norms: Any, entries: int) -> Any:
    """True if a Frobenius norm shows that all entries are finite and their squares in range.

    The largest entry is at most the norm, and at least the root mean square.
    """
    return (norms > 1e-6 * entries**0.5) & (norms < 1e6)


def in_single(eps: float, tol: float) -> bool:
    """True if a float32 Gram matrix may suffice, for data of rounding unit ``eps``.

    It is tried then, and `resolved` tests the result.
    """
    return tol >= (8 * SINGLE if eps >= SINGLE else _LOOSE)


def resolved(S: HostArray, norms: Any, tol: float, eps: float, *, double: bool) -> Any:
    """True if the Gram matrix separates the k-th value from the following ones.

    Eigenvalues of a Gram matrix have errors of about ``eps s_1^2`` in its precision, and s_k has an
    error of ``eps s_1^2 / s_k``.

    Parameters
    ----------
    S : array of shape (..., k)
        Singular values, descending.
    norms : float or array of shape (...)
        Frobenius norms of the matrices.
    tol, eps : float
        Requested relative residual; rounding unit of the data.
    double : bool
        True if the Gram matrix was formed in double precision.

    Returns
    -------
    bool or array of bool of shape (...)
    """
    return S[..., -1] > least_resolved(S[..., 0], norms, tol, eps, double=double)


def least_resolved(first: Any, norms: Any, tol: float, eps: float, *, double: bool) -> Any:
    """Return the smallest s_k that the Gram matrix resolves, see `resolved`; ``first`` is s_1."""
    if double:
        return 10 * max(_DOUBLE**0.5, _DOUBLE / max(tol, eps)) * first
    # An empirical rule for the error of s_k relative to s_1: some rounding units, and
    # ``eps s_1 / s_k`` times a factor that grows with the number of values near s_1. Residuals
    # detect larger errors.
    room = tol / (1.1 * SINGLE) - 5
    if room <= 0:
        return first * np.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        many = np.maximum((norms / first) ** 2, 1.0)
        return first * np.maximum(10 * SINGLE**0.5, 0.2 * many ** (1 / 3) / room)


def lost_to_squares(S: HostArray, *, double: bool) -> Any:
    """Estimate the relative error of the sum of the values, by the Gram matrix."""
    eps = _DOUBLE if double else SINGLE
    return 4 * eps * S[..., 0] ** 2 / (S[..., -1] * S.mean(axis=-1))
