"""Compiled loops that Python calls, with the types of their arguments.

They are compiled for these types before the first call, so that no call waits for a compiler
unexpectedly. Arrays that are only read are read-only; see `read_only` in
`trsvd._arrays.host_blas`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from trsvd._compiled import lanczos, lanczos_threaded
from trsvd._compiled.kind import Kind

# A compiled loop, and the types of its arguments.
Loop = tuple[Any, tuple[Any, ...]]

_H = types.Array(types.float64, 2, "C")
_WHOLE, _COUNTERS = types.Array(types.intp, 1, "C"), types.Array(types.int64, 1, "C")
_REST = (_H, _H, types.float64, types.float64)  # H, C, floor, largest


def _array(dtype: str, ndim: int, *, readonly: bool = False) -> Any:
    return types.Array(from_dtype(np.dtype(dtype)), ndim, "C", readonly=readonly)


def entry_points(kind: Kind) -> list[Loop]:
    """Return the loops of a kind."""
    return _sparse(kind) if kind.sparse else _dense(kind)


def _dense(kind: Kind) -> list[Loop]:
    V, v = _array(kind.vectors, 2), _array(kind.vectors, 1)
    M, x = (_array(kind.entries, ndim, readonly=True) for ndim in (2, 1))
    G = _array(kind.vectors, 2, readonly=True)  # a Gram matrix is in the precision of the vectors
    numbers = (types.intp, types.intp)
    loops: list[Loop] = [
        (lanczos.gram_lanczos, (A, types.intp, V, *numbers, *_REST)) for A in dict.fromkeys((M, G))
    ]
    loops += [(loop, (M, x, v)) for loop in (lanczos.product, lanczos.adjoint_product)]
    if kind.shared:
        both = (M, _WHOLE, *numbers, _array(kind.vectors, 3), v, V, _COUNTERS)
        loops.append((lanczos_threaded.gram_lanczos, (*both, types.intp, *_REST)))
        loops.append((lanczos_threaded.help_gram_lanczos, both))
    return loops


def _sparse(kind: Kind) -> list[Loop]:
    V, whole = _array(kind.vectors, 2), _array(kind.indices, 1, readonly=True)
    shift = _array(kind.vectors, 1, readonly=True)
    A = (_array(kind.entries, 1, readonly=True), whole, whole, shift, shift)
    loops: list[Loop] = [
        (lanczos.sparse_gram_lanczos, (*A, V, types.intp, types.intp, *_REST)),
    ]
    if kind.shared:
        both = (*A, _WHOLE, types.intp, _array(kind.vectors, 3), V, _COUNTERS)
        loops.append((lanczos_threaded.sparse_gram_lanczos, (*both, types.intp, *_REST)))
        loops.append((lanczos_threaded.help_sparse_gram_lanczos, both))
    return loops


def is_on_disk(loop: Any, arguments: tuple[Any, ...]) -> bool:
    """True if Numba's cache has a loop for these arguments, compiled for this processor.

    Numba has no public function for this question. If its inner names change, the answer is False.
    """
    try:
        stored = loop._cache
        key = stored._index_key(arguments, loop.targetctx.codegen())
        return key in stored._cache_file._load_index()
    except (AttributeError, OSError, TypeError):
        return False
