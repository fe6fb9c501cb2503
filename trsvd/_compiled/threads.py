"""Threads for the compiled loops, as many as the BLAS beside them has.

Those of a BLAS that have just worked go on spinning for up to a tenth of a second, and take the
processor from others: `one_blas_thread` keeps them from work while the compiled loops share theirs.
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

    ``OPENBLAS_NUM_THREADS`` is looked at before ``OMP_NUM_THREADS``, once in a process.
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
    """``lead()``, while so many other threads are asked to run ``assist()``.

    They may come late, or never: the pool serves all threads that call, and no thread is started
    once the main thread has ended (other threads and ``atexit`` functions run on). So ``lead`` must
    not wait for one that has not shown up, and has to tell those who have that it is over. Both
    have to let go of the interpreter lock.
    """
    places = _other_processors()

    def elsewhere() -> None:
        if places:
            with suppress(OSError):
                os.sched_setaffinity(0, places)
        assist()

    asked: list[Future[None]] = []
    with suppress(RuntimeError):  # the interpreter is about to end, or there is no room for threads
        for _ in range(helpers):
            asked.append(_pool().submit(elsewhere))
    try:
        return lead()
    finally:
        for one in asked:
            if not one.cancel() and one.done():
                one.result()


def _other_processors() -> set[int]:
    """Those that the calling thread may use but does not; empty where that is not known.

    Without being told, a kernel may leave a thread where it was, or wake it where the caller is.
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
    """Count of the callers that hold BLAS at one thread, and the settings before the first."""

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
    """Those that this process has loaded; none are known without threadpoolctl."""
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
    """Have all BLAS libraries of the process use one thread, until the last who asks for it leaves.

    Nothing changes where threadpoolctl is not installed.
    """
    _resting.enter()
    try:
        yield
    finally:
        _resting.leave()


def blas_rests() -> bool:
    """True if the calling thread holds the BLAS libraries at one thread.

    What others ask for must not decide how its own numbers are rounded.
    """
    return _resting.asked() > 0 and bool(_resting.before)


def threads_now() -> int:
    """`threads`, or fewer where the caller was bound to fewer processors since then.

    Or where all BLAS libraries were told, by somebody else, to use fewer.
    """
    blas = _resting.before if _resting.count > 0 else _blas_threads()
    return min(threads(), _processors(), max((had for _, had in blas), default=threads()))


def _in_child() -> None:
    """The threads of a parent are not there in a child, nor those who asked for anything."""
    global _resting
    _pool.cache_clear()
    if _resting.count > 0:
        _resting.restore()
    _resting = _Resting()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


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
