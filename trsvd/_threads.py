"""Threads for the compiled loops, as many as the BLAS beside them has."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

__all__ = ["at_once", "threads"]


@cache
def threads() -> int:
    """How many: what the environment allows OpenBLAS, at most the processors of this process.

    ``OPENBLAS_NUM_THREADS`` is looked at before ``OMP_NUM_THREADS``, once in a process.
    """
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        available = os.cpu_count() or 1
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        asked = os.environ.get(name, "")
        if asked.isdecimal() and int(asked) > 0:
            return min(int(asked), available)
    return available


def at_once(work: Callable[[int], None], parts: int) -> None:
    """``work(0), ..., work(parts - 1)``, side by side; the first of them in the calling thread.

    ``work`` has to let go of the interpreter lock, and parts must not wait for each other: any of
    them may run after the others.
    """
    others = [_pool().submit(work, part) for part in range(1, parts)]
    try:
        work(0)
    finally:
        for other in others:
            other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="trsvd")


# The threads of a parent are not there in a child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
