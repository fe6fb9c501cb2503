"""Threads for the compiled loops, as many as BLAS uses.

Idle BLAS threads busy-wait for up to 0.1 s after a call, and slow down other threads. Therefore
`one_blas_thread` limits BLAS to one thread while threads share compiled loops.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from trsvd._compiled import kernels, shared_kernels

T = TypeVar("T")


@cache
def threads() -> int:
    """Return the number of threads to use.

    ``OPENBLAS_NUM_THREADS`` has priority over ``OMP_NUM_THREADS``. They are read once in a process.
    """
    available = _processors()
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        asked = os.environ.get(name, "")
        if asked.isdecimal() and int(asked) > 0:
            return min(int(asked), available)
    return available


def _processors() -> int:
    """Return the number of processors that the calling thread may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def together(lead: Callable[[], T], assist: Callable[[], None], helpers: int) -> T:
    """Run ``lead()``, while ``helpers`` other threads are asked to run ``assist()``.

    Helpers can begin late, or never: the pool serves all calling threads, and no thread starts
    after the end of the main thread (while other threads and ``atexit`` functions still run). So
    ``lead`` must not wait for a helper that has not begun, and must notify the others at its end.
    Both must release the interpreter lock.
    """
    places = _other_processors()

    def elsewhere() -> None:
        if places:
            with suppress(OSError):
                os.sched_setaffinity(0, places)
        assist()

    asked: list[Future[None]] = []
    with suppress(RuntimeError):  # at the end of the interpreter, or if no thread can be started
        for _ in range(helpers):
            asked.append(_pool().submit(elsewhere))
    try:
        return lead()
    finally:
        for one in asked:
            if not one.cancel() and one.done():
                one.result()


def _other_processors() -> set[int]:
    """Return the processors of the calling thread except its current one; empty if unknown.

    Otherwise the operating system may wake a helper on the processor of the caller.
    """
    getcpu = _getcpu()
    return os.sched_getaffinity(0) - {getcpu()} if getcpu else set()


@cache
def _getcpu() -> Callable[[], int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.CDLL(None), "sched_getcpu", None)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="trsvd")


class _Resting:
    """Number of callers that limit BLAS to one thread, and the original settings."""

    def __init__(self) -> None:
        self.lock, self.count, self.mine = threading.Lock(), 0, threading.local()
        self.before: list[tuple[Any, int]] = []

    def enter(self) -> None:
        with self.lock:
            if self.count == 0:
                self.before = _blas_threads()
                for library, had in self.before:
                    if had > 1:
                        library.set_num_threads(1)
            self.count += 1
        self.mine.count = self.asked() + 1

    def asked(self) -> int:
        """Number of nested requests of the calling thread."""
        return int(getattr(self.mine, "count", 0))

    def leave(self) -> None:
        self.mine.count = self.asked() - 1
        with self.lock:
            self.count -= 1
            if self.count == 0:
                self.restore()

    def restore(self) -> None:
        for library, had in self.before:
            if had > 1:
                library.set_num_threads(had)


_resting = _Resting()


@cache
def _blas_libraries() -> tuple[Any, ...]:
    """Return the BLAS libraries of this process; empty without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return ()
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


def _blas_threads() -> list[tuple[Any, int]]:
    """Return the number of threads of each BLAS library."""
    return [(library, library.get_num_threads()) for library in _blas_libraries()]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit all BLAS libraries of the process to one thread, until the last caller leaves.

    Without threadpoolctl nothing changes.
    """
    _resting.enter()
    try:
        yield
    finally:
        _resting.leave()


def blas_rests() -> bool:
    """True if the calling thread limits the BLAS libraries to one thread.

    Requests of other threads must not change the rounding of results.
    """
    return _resting.asked() > 0 and bool(_resting.before)


def threads_now() -> int:
    """Return `threads`, or fewer if the caller is bound to fewer processors now.

    Also fewer if all BLAS libraries are limited to fewer threads by other code.
    """
    blas = _resting.before if _resting.count > 0 else _blas_threads()
    return min(threads(), _processors(), max((had for _, had in blas), default=threads()))


def _in_child() -> None:
    """Reset the pool and the requests in a child process, which has no threads of its parent."""
    global _resting
    _pool.cache_clear()
    if _resting.count > 0:
        _resting.restore()
    _resting = _Resting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


HostArray = np.ndarray[Any, np.dtype[Any]]
# Arguments V, first, H, C, floor, largest, and result, of `trsvd._compiled.lanczos.gram_lanczos`.
Steps = Callable[[HostArray, int, HostArray, HostArray, float, float], int]

# Smallest part that pays for a thread: bytes of a matrix, and entries of a sparse one; and smallest
# matrix to share if busy-waiting BLAS threads may delay a part.
_PART_BYTES, _PART_ENTRIES = 4 << 20, 1 << 16
_LEAST_BYTES_BESIDE, _LEAST_ENTRIES_BESIDE = 24 << 20, 1 << 19


def sharing_threads(size: int, *, sparse: bool, beside: bool) -> int:
    """Return the number of threads that products should be shared by.

    Parameters
    ----------
    size : int
        Bytes of a matrix, or entries of a ``sparse`` one.
    beside : bool
        True if BLAS uses several threads at the same time.
    """
    least = _LEAST_ENTRIES_BESIDE if sparse else _LEAST_BYTES_BESIDE
    if beside and size < least:
        return 1
    parts = size // (_PART_ENTRIES if sparse else _PART_BYTES)
    return min(threads_now(), parts) if parts > 1 else 1


def shared_steps(M: HostArray, way: int, width: int, precision: Any) -> Steps | None:
    """Return a function for Lanczos steps with ``A^T A`` in several threads; None if one is enough.

    Parameters
    ----------
    M : array of shape (p, q)
        A or its transpose, C-ordered.
    way : {FUSED, ACROSS, FORMED}
        Kind of M, as in `trsvd._compiled.lanczos`.
    width : int
        Number of vectors in a block, 1 for ``ACROSS``.
    precision : dtype
        Precision of the vectors.
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
    data: HostArray,
    indices: HostArray,
    indptr: HostArray,
    left: HostArray,
    right: HostArray,
    n: int,
    width: int,
    precision: Any,
) -> Steps | None:
    """Return `shared_steps` for a matrix in compressed rows, minus ``left right^T``.

    It has n columns.
    """
    parts = sharing_threads(data.size, sparse=True, beside=not blas_rests())
    if parts == 1:
        return None
    ends = np.searchsorted(indptr, [data.size * part // parts for part in range(1, parts)])
    edges = np.array([0, *ends.tolist(), indptr.size - 1])
    sums = np.empty((parts, width, n), precision)
    shared = shared_kernels()
    lead, assist = shared.sparse_gram_lanczos, shared.help_sparse_gram_lanczos
    return partial(
        _steps, lead, assist, (data, indices, indptr, left, right, edges, width, sums), parts
    )


def _steps(
    lead: Any, assist: Any, matrix: tuple[Any, ...], parts: int, V: HostArray, *rest: Any
) -> int:
    counters = np.zeros(shared_kernels().COUNTERS, np.int64)
    both = *matrix, V, counters
    return int(together(partial(lead, *both, *rest), partial(assist, *both), parts - 1))
