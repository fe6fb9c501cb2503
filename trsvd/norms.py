"""Ky Fan norms, their duals, and other matrix norms."""

from __future__ import annotations

from typing import Any

from trsvd import balls

__all__ = [
    "frobenius_norm",
    "kyfan_dual_norm",
    "kyfan_norm",
    "max_column_norm",
    "max_norm",
    "max_row_norm",
    "nuclear_norm",
    "rms_norm",
    "spectral_norm",
]


def kyfan_norm(X: Any, k: int) -> float:
    """Return the Ky Fan k-norm, the sum of the k largest singular values.

    Parameters
    ----------
    X : array, sparse matrix or operator of shape (m, n)
        As for `trsvd.svds`.
    k : int
        At least 1. For k >= min(m, n) it is the nuclear norm.

    Returns
    -------
    float

    See Also
    --------
    kyfan_dual_norm, KyFanBall, svdvals

    Notes
    -----
    For k > 1 and at most 2^18 entries, all singular values are computed. Larger matrices are
    computed by `trsvd.svds` with ``verify=1e-3``: except with probability 1e-3, missed copies of
    multiple singular values make the norm at most 0.1 % too small. If the run does not converge,
    there is a `ConvergenceWarning`.

    Examples
    --------
    >>> import numpy as np
    >>> round(kyfan_norm(np.diag([3.0, 2.0, 1.0]), 2), 12)
    5.0
    """
    return balls.KyFanBall(k).gauge(X)


def kyfan_dual_norm(X: Any, k: int) -> float:
    """Return the dual of the Ky Fan k-norm, ``max(s_1, sum_i s_i / k)``.

    Parameters
    ----------
    X : array, sparse matrix or operator of shape (m, n)
        As for `trsvd.svds`.
    k : int
        At least 1. For k >= min(m, n) it is the spectral norm.

    Returns
    -------
    float

    See Also
    --------
    kyfan_norm, KyFanDualBall, kyfan_dual_lmo

    Examples
    --------
    >>> import numpy as np
    >>> round(kyfan_dual_norm(np.diag([3.0, 2.0, 1.0]), 1), 12)
    6.0
    """
    return balls.KyFanDualBall(k).gauge(X)


def nuclear_norm(X: Any) -> float:
    """Return the nuclear (trace) norm, the sum of all singular values.

    Parameters
    ----------
    X : array, sparse matrix or operator of shape (m, n)
        As for `trsvd.svds`.

    Returns
    -------
    float

    See Also
    --------
    NuclearBall, nuclear_lmo, kyfan_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> round(trsvd.nuclear_norm(np.diag([3.0, 2.0])), 6)
    5.0
    """
    return balls.NuclearBall().gauge(X)


def spectral_norm(X: Any) -> float:
    """Return the spectral norm ``s_1``.

    Parameters
    ----------
    X : array, sparse matrix or operator of shape (m, n)
        As for `trsvd.svds`.

    Returns
    -------
    float

    See Also
    --------
    SpectralBall, spectral_lmo, svdvals

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> round(trsvd.spectral_norm(np.diag([3.0, 2.0])), 6)
    3.0
    """
    return balls.SpectralBall().gauge(X)


def rms_norm(X: Any) -> float:
    """Return the RMS-to-RMS operator norm ``sqrt(n / m) s_1`` of an m x n matrix.

    Parameters
    ----------
    X : array, sparse matrix or operator of shape (m, n)
        As for `trsvd.svds`.

    Returns
    -------
    float

    See Also
    --------
    RMSBall, rms_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> round(trsvd.rms_norm(np.array([[3.0], [0.0], [0.0], [0.0]])), 6)
    1.5
    """
    return balls.RMSBall().gauge(X)


def frobenius_norm(X: Any) -> float:
    """Return the Frobenius norm ``(sum abs(x_ij)^2)^(1/2)``.

    Parameters
    ----------
    X : array of shape (m, n)
        As for `trsvd.svds`.

    Returns
    -------
    float

    See Also
    --------
    FrobeniusBall, frobenius_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> round(trsvd.frobenius_norm(np.array([[3.0, 4.0]])), 6)
    5.0
    """
    return balls.FrobeniusBall().gauge(X)


def max_norm(X: Any) -> float:
    """Return the entrywise l-infinity norm ``max abs(x_ij)``.

    Parameters
    ----------
    X : array of shape (m, n)
        As for `trsvd.svds`.

    Returns
    -------
    float

    See Also
    --------
    MaxBall, max_lmo

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> round(trsvd.max_norm(np.array([[3.0, -4.0]])), 6)
    4.0
    """
    return balls.MaxBall().gauge(X)


def max_column_norm(X: Any) -> float:
    """Return the largest 2-norm of a column.

    Parameters
    ----------
    X : array of shape (m, n)
        As for `trsvd.svds`.

    Returns
    -------
    float

    See Also
    --------
    ColumnBall, column_lmo, max_row_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> round(trsvd.max_column_norm(np.array([[3.0, 0.0], [4.0, 1.0]])), 6)
    5.0
    """
    return balls.ColumnBall().gauge(X)


def max_row_norm(X: Any) -> float:
    """Return the largest 2-norm of a row.

    Parameters
    ----------
    X : array of shape (m, n)
        As for `trsvd.svds`.

    Returns
    -------
    float

    See Also
    --------
    RowBall, row_lmo, max_column_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> round(trsvd.max_row_norm(np.array([[3.0, 4.0], [0.0, 1.0]])), 6)
    5.0
    """
    return balls.RowBall().gauge(X)
