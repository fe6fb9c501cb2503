"""Compiled Lanczos steps whose products are shared among threads, by panels of rows.

A sum is made of the same parts each time, whichever of them is ready first: with one number of
threads, results repeat bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from trsvd._compiled import kernels, shared_kernels
from trsvd._compiled.threads import blas_rests, threads_now, together

__all__ = ["Steps", "shared_sparse_steps", "shared_steps", "sharing_threads"]

HostArray = np.ndarray[Any, np.dtype[Any]]
# V, first, H, C, floor and largest, and the result, as of `trsvd._compiled.lanczos.gram_lanczos`.
Steps = Callable[[HostArray, int, HostArray, HostArray, float, float], int]

# The least part that is worth a thread: bytes of a matrix, and entries of a sparse one; and what is
# worth sharing where threads of a BLAS may take the processor from one that has begun a part.
_PART_BYTES, _PART_ENTRIES = 4 << 20, 1 << 16
_LEAST_BYTES_BESIDE, _LEAST_ENTRIES_BESIDE = 24 << 20, 1 << 19


def sharing_threads(size: int, *, sparse: bool, beside: bool) -> int:
    """Among how many threads products are worth sharing.

    Parameters
    ----------
    size : int
        Bytes of a matrix, or entries of a ``sparse`` one.
    beside : bool
        Whether a BLAS has several threads meanwhile.
    """
    least = _LEAST_ENTRIES_BESIDE if sparse else _LEAST_BYTES_BESIDE
    if beside and size < least:
        return 1
    parts = size // (_PART_ENTRIES if sparse else _PART_BYTES)
    return min(threads_now(), parts) if parts > 1 else 1


def shared_steps(M: HostArray, way: int, width: int, precision: Any) -> Steps | None:
    """Lanczos steps on ``A^T A`` in several threads, or None where one does as well.

    Parameters
    ----------
    M : array of shape (p, q)
        A or its transpose, C-ordered.
    way : {FUSED, ACROSS, FORMED}
        Which of them, as in `trsvd._compiled.lanczos`.
    width : int
        Vectors at a time, 1 where it is ``ACROSS``.
    precision : dtype
        Of the vectors.
    """
    parts = sharing_threads(M.nbytes, sparse=False, beside=not blas_rests())
    if parts == 1 or way == kernels().FORMED:
        return None
    edges = np.array([4 * (M.shape[0] // 4 * part // parts) for part in range(parts + 1)])
    edges[-1] = M.shape[0]
    sums = np.empty((parts, width, M.shape[1]), precision)
    between = np.empty(M.shape[1], precision)
    shared = shared_kernels()
    lead, assist = shared.gram_lanczos, shared.help_gram_lanczos
    return partial(_steps, lead, assist, (M, edges, way, width, sums, between), parts)


def shared_sparse_steps(
    data: HostArray, indices: HostArray, indptr: HostArray, n: int, width: int, precision: Any
) -> Steps | None:
    """As `shared_steps`, for a matrix by compressed rows with n columns."""
    parts = sharing_threads(data.size, sparse=True, beside=not blas_rests())
    if parts == 1:
        return None
    ends = np.searchsorted(indptr, [data.size * part // parts for part in range(1, parts)])
    edges = np.array([0, *ends.tolist(), indptr.size - 1])
    sums = np.empty((parts, width, n), precision)
    shared = shared_kernels()
    lead, assist = shared.sparse_gram_lanczos, shared.help_sparse_gram_lanczos
    return partial(_steps, lead, assist, (data, indices, indptr, edges, width, sums), parts)


def _steps(
    lead: Any, assist: Any, matrix: tuple[Any, ...], parts: int, V: HostArray, *rest: Any
) -> int:
    counters = np.zeros(shared_kernels().COUNTERS, np.int64)
    both = *matrix, V, counters
    return int(together(partial(lead, *both, *rest), partial(assist, *both), parts - 1))
