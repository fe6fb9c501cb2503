"""Accuracy of singular values from Gram matrices, by the precision that these are formed in.

Invariant: a spectrum that is said to be resolved has a k-th value that squares in that precision
tell from those behind it, to the tolerance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import SINGLE

_DOUBLE = float(np.finfo(np.float64).eps)
_LOOSE = 100 * SINGLE
# LAPACK's vectors of so few rows are less skew, and to mend that takes as long as all the rest.
FEW = 128


def are_moderate(norms: Any, entries: int) -> Any:
    """True if a Frobenius norm shows that all entries are finite and their squares in range.

    The largest of so many entries is at most the norm, and at least its root mean square.
    """
    return (norms > 1e-6 * entries**0.5) & (norms < 1e6)


def in_single(eps: float, tol: float) -> bool:
    """True if a float32 Gram matrix may suffice, for data of rounding unit ``eps``.

    They are tried then; `resolved` tells afterwards whether they did.
    """
    return tol >= (8 * SINGLE if eps >= SINGLE else _LOOSE)


def resolved(S: HostArray, norms: Any, tol: float, eps: float, *, double: bool) -> Any:
    """True if the Gram matrix separates the k-th value from the following ones.

    Eigenvalues of a Gram matrix are known to about ``eps s_1^2`` of its precision, s_k then to
    ``eps s_1^2 / s_k``.

    Parameters
    ----------
    S : array of shape (..., k)
        Singular values, descending.
    norms : float or array of shape (...)
        Frobenius norms of the matrices.
    tol, eps : float
        Relative residual asked for; rounding unit of the data.
    double : bool
        Whether the Gram matrix was formed in double precision.

    Returns
    -------
    bool or array of bool of shape (...)
    """
    first, last = S[..., 0], S[..., -1]
    if double:
        return last > 10 * max(_DOUBLE**0.5, _DOUBLE / max(tol, eps)) * first
    # An empirical rule for what is misjudged of s_k, relative to s_1: some units, and
    # ``eps s_1 / s_k`` more, by a factor that grows with the number of values about as large as
    # s_1. Residuals see the rest.
    with np.errstate(divide="ignore", invalid="ignore"):
        many = np.maximum((norms / first) ** 2, 1.0)
        misjudged = (5 + 0.2 * many ** (1 / 3) * (first / last)) * SINGLE
        return (last > 10 * SINGLE**0.5 * first) & (tol >= 1.1 * misjudged)


def lost_to_squares(S: HostArray, *, double: bool) -> Any:
    """About how much the sum of the values misses, relative, since squares misjudge them."""
    eps = _DOUBLE if double else SINGLE
    return 4 * eps * S[..., 0] ** 2 / (S[..., -1] * S.mean(axis=-1))
