"""Eigenproblems of host matrices for which LAPACK has something better than NumPy calls."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import scipy.linalg

__all__ = ["leading_eigenvectors", "tridiagonal_eigh"]

HostArray = np.ndarray[Any, np.dtype[Any]]


def leading_eigenvectors(G: HostArray, k: int) -> HostArray:
    """Eigenvectors of the k largest eigenvalues, ascending; fewer where LAPACK does not find them.

    Of a Hermitian matrix of the host.
    """
    n = len(G)
    if n > 128:  # its work space has to be asked for
        with suppress(np.linalg.LinAlgError):
            subset = (n - k, n - 1)
            return np.asarray(scipy.linalg.eigh(G, subset_by_index=subset, check_finite=False)[1])
        return G[:, :0]
    (solve,) = scipy.linalg.get_lapack_funcs(("heevr" if np.iscomplexobj(G) else "syevr",), (G,))
    _, vectors, found, _, info = solve(G, range="I", il=n - k + 1, iu=n, lower=1)
    return np.asarray(vectors[:, : found if info == 0 else 0])


def tridiagonal_eigh(T: HostArray) -> tuple[HostArray, HostArray] | None:
    """Eigenvalues, ascending, and eigenvectors of a real matrix of which three diagonals count.

    None where LAPACK (or this SciPy) has no routine for it: by divide and conquer, which takes a
    tenth of the time of that for full matrices.
    """
    solve = getattr(scipy.linalg.lapack, "dstevd", None)
    if solve is None or len(T) < 2 or np.iscomplexobj(T):
        return None
    values, vectors, info = solve(np.diagonal(T), np.diagonal(T, 1))
    return (values, vectors) if info == 0 else None
