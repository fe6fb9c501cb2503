"""Compiled Lanczos steps with products shared by threads that busy-wait.

One thread leads. It publishes each product in as many parts as there are threads, and computes
parts like the helper threads. Waking a thread takes as long as reading some MiB from a cache;
therefore helpers busy-wait for parts between the products of a run. The leading thread waits only
for parts that a helper has begun; without helpers it computes all parts.

The threads communicate by 64-bit atomic counters, each in its own cache line. Data that was stored
before the number of published parts is visible to threads that read this number (release and
acquire).
"""

from __future__ import annotations

import os
import platform
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from trsvd._compiled.lanczos import (
    ACROSS,
    adjoint_product,
    finish_block,
    gram_product,
    gram_products,
    product,
    sparse_gram_product,
    sparse_gram_products,
)

_LINE = 8
# Number of parts published, taken and done; flags for the end of the run and a failed helper; row
# of the basis in the product; and half of an `ACROSS` product.
_PUBLISHED, _TAKEN, _DONE, _OVER, _FAILED, _ROW, _HALF = (_LINE * i for i in range(7))
COUNTERS = 7 * _LINE
# Number of unsuccessful polls after which a helper leaves, some milliseconds.
_PATIENCE = 1 << 17
_LOOKS = 64  # polls before yielding the processor
_SPINS_SPARINGLY = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@intrinsic
def _load(_: Any, counters: Any, at: Any) -> Any:
    """Read ``counters[at]`` with acquire semantics."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, args), "acquire", 8)

    return types.int64(counters, at), code


@intrinsic
def _store(_: Any, counters: Any, at: Any, value: Any) -> Any:
    """Set ``counters[at] = value`` with release semantics."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature, args)
        builder.store_atomic(args[2], place, "release", 8)
        return context.get_dummy_value()

    return types.void(counters, at, types.int64), code


@intrinsic
def _add_one(_: Any, counters: Any, at: Any) -> Any:
    """Add 1 to ``counters[at]`` with release semantics."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", _place(context, builder, signature, args), one, "acq_rel")

    return types.int64(counters, at), code


@intrinsic
def _replace(_: Any, counters: Any, at: Any, old: Any, new: Any) -> Any:
    """Set ``counters[at] = new`` if it is ``old``; True if it was."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature, args)
        result = builder.cmpxchg(place, args[2], args[3], "acq_rel", "acquire")
        return builder.extract_value(result, 1)

    return types.boolean(counters, at, types.int64, types.int64), code


@intrinsic
def _pause(_: Any) -> Any:
    """Give way to the other hardware thread of the core for a moment."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _SPINS_SPARINGLY:
            kind = ir.FunctionType(ir.VoidType(), [])
            pause = get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause")
            builder.call(pause, [])
        return context.get_dummy_value()

    return types.void(), code


if os.name == "posix":
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())

    @njit(cache=True, nogil=True)
    def _yield() -> None:
        """Yield the processor to another thread, if one waits for it."""
        _sched_yield()

else:
    _yield = _pause


@njit(cache=True, nogil=True)
def _take(counters: Any, parts: int) -> int:
    """Take a part of the product; -1 if none is left."""
    while True:
        taken = _load(counters, _TAKEN)
        if taken >= _load(counters, _PUBLISHED):
            return -1
        if _replace(counters, _TAKEN, taken, taken + 1):
            return int(taken % parts)


@njit(cache=True, nogil=True)
def _publish(counters: Any, parts: int, row: int, half: int) -> None:
    counters[_ROW], counters[_HALF] = row, half
    _store(counters, _PUBLISHED, _load(counters, _PUBLISHED) + parts)


@njit(cache=True, nogil=True)
def _rest(idle: int) -> None:
    """Wait between two polls of a counter, longer after many of them.

    The other thread may need this processor.
    """
    if idle % _LOOKS == _LOOKS - 1:
        _yield()
    else:
        _pause()


@njit(cache=True, nogil=True)
def _wait_for_others(counters: Any) -> None:
    idle = 0
    while _load(counters, _DONE) < _load(counters, _PUBLISHED):
        _rest(idle)
        idle += 1
    if _load(counters, _FAILED) != 0:
        raise MemoryError("a helper thread could not allocate memory for a part of a product")  # noqa: EM101


@njit(cache=True, nogil=True)
def _give_up(counters: Any) -> None:
    """Report to the leading thread that a part failed."""
    _store(counters, _FAILED, 1)
    _add_one(counters, _DONE)


@njit(cache=True, nogil=True)
def _wait_for_part(counters: Any, parts: int) -> int:
    """Wait for a part as a helper; -1 if the run is over, or after too long a wait."""
    for idle in range(_PATIENCE):
        if _load(counters, _OVER) != 0:
            break
        part = _take(counters, parts)
        if part >= 0:
            return int(part)
        _rest(idle)
    return -1


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _add_up(sums: Any, W: Any) -> None:
    """Compute ``W = sums[0] + sums[1] + ...``, always in this order."""
    for c in range(W.shape[0]):
        w = W[c]
        w[:] = sums[0, c]
        for part in range(1, sums.shape[0]):
            s = sums[part, c]
            for i in range(w.shape[0]):
                w[i] += s[i]


@njit(cache=True, nogil=True)
def _dense_part(
    M: Any, edges: Any, way: int, width: int, sums: Any, between: Any, V: Any, counters: Any, i: int
) -> None:
    """Compute part ``i`` of the published product."""
    j, low, high = counters[_ROW], edges[i], edges[i + 1]
    R = M[low:high]
    if way == ACROSS:
        if counters[_HALF] == 0:
            adjoint_product(R, V[j, low:high], sums[i, 0])
        else:
            product(R, between, V[j + 1, low:high])
    elif width == 1:
        gram_product(R, V[j], sums[i, 0])
    else:
        gram_products(R, V[j : j + width], sums[i])
    _add_one(counters, _DONE)


@njit(cache=True, nogil=True)
def help_gram_lanczos(
    M: Any, edges: Any, way: int, width: int, sums: Any, between: Any, V: Any, counters: Any
) -> None:
    """Compute parts of products while `gram_lanczos` runs with the same arrays."""
    part = _wait_for_part(counters, sums.shape[0])
    while part >= 0:
        try:
            _dense_part(M, edges, way, width, sums, between, V, counters, part)
        except Exception:
            _give_up(counters)
        part = _wait_for_part(counters, sums.shape[0])


@njit(cache=True, nogil=True)
def _dense_product(
    M: Any, edges: Any, way: int, width: int, sums: Any, between: Any, V: Any, counters: Any,
    j: int, half: int,
) -> None:  # fmt: skip
    parts = sums.shape[0]
    _publish(counters, parts, j, half)
    part = _take(counters, parts)
    while part >= 0:
        _dense_part(M, edges, way, width, sums, between, V, counters, part)
        part = _take(counters, parts)
    _wait_for_others(counters)


@njit(cache=True, nogil=True)
def gram_lanczos(
    M: Any, edges: Any, way: int, width: int, sums: Any, between: Any, V: Any, counters: Any,
    first: int, H: Any, C: Any, floor: float, largest: float,
) -> int:  # fmt: skip
    """Compute `trsvd._compiled.lanczos.gram_lanczos` with helper threads.

    Parameters
    ----------
    M, way, width, V, first, H, C, floor, largest
        As in `trsvd._compiled.lanczos`; ``way`` is FUSED or ACROSS.
    edges : array of shape (parts + 1,)
        Part i has the rows of M from ``edges[i]`` to ``edges[i + 1]``.
    sums : array of shape (parts, width, q)
        Work space for the parts; q is the length of the rows of M.
    between : array of shape (q,)
        Work space between the two halves of an ACROSS product.
    counters : array of shape (COUNTERS,)
        Counters, initially zero.

    Returns
    -------
    int
        As in `trsvd._compiled.lanczos`.
    """
    made = H.shape[0] // width
    for step in range(H.shape[0] // width):
        j = first + step * width
        _dense_product(M, edges, way, width, sums, between, V, counters, j, 0)
        if way == ACROSS:
            _add_up(sums, between.reshape(1, between.shape[0]))
            _dense_product(M, edges, way, width, sums, between, V, counters, j, 1)
        else:
            _add_up(sums, V[j + width : j + 2 * width])
        largest = finish_block(V, j, width, H, C, step * width, floor, largest)
        if largest < 0:
            made = step
            break
    _store(counters, _OVER, 1)
    return int(made)


@njit(cache=True, nogil=True)
def _sparse_part(
    data: Any, indices: Any, indptr: Any, left: Any, right: Any, edges: Any, width: int, sums: Any,
    V: Any, counters: Any, i: int,
) -> None:  # fmt: skip
    j, low, high = counters[_ROW], edges[i], edges[i + 1]
    rows, left = indptr[low : high + 1], left[low:high]
    if width == 1:
        sparse_gram_product(data, indices, rows, left, right, V[j], sums[i, 0])
    else:
        sparse_gram_products(data, indices, rows, left, right, V[j : j + width], sums[i])
    _add_one(counters, _DONE)


@njit(cache=True, nogil=True)
def help_sparse_gram_lanczos(
    data: Any, indices: Any, indptr: Any, left: Any, right: Any, edges: Any, width: int, sums: Any,
    V: Any, counters: Any,
) -> None:  # fmt: skip
    """Compute parts of products while `sparse_gram_lanczos` runs."""
    part = _wait_for_part(counters, sums.shape[0])
    while part >= 0:
        try:
            _sparse_part(data, indices, indptr, left, right, edges, width, sums, V, counters, part)
        except Exception:
            _give_up(counters)
        part = _wait_for_part(counters, sums.shape[0])


@njit(cache=True, nogil=True)
def sparse_gram_lanczos(
    data: Any, indices: Any, indptr: Any, left: Any, right: Any, edges: Any, width: int, sums: Any,
    V: Any, counters: Any, first: int, H: Any, C: Any, floor: float, largest: float,
) -> int:  # fmt: skip
    """Compute `gram_lanczos` for a matrix in compressed rows; ``edges`` are row numbers."""
    parts, made = sums.shape[0], H.shape[0] // width
    for step in range(H.shape[0] // width):
        j = first + step * width
        _publish(counters, parts, j, 0)
        part = _take(counters, parts)
        while part >= 0:
            _sparse_part(data, indices, indptr, left, right, edges, width, sums, V, counters, part)
            part = _take(counters, parts)
        _wait_for_others(counters)
        _add_up(sums, V[j + width : j + 2 * width])
        largest = finish_block(V, j, width, H, C, step * width, floor, largest)
        if largest < 0:
            made = step
            break
    _store(counters, _OVER, 1)
    return int(made)
