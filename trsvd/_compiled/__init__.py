"""Loops compiled by Numba, and their threads; each has an equivalent for use without Numba."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


@cache
def kernels() -> Any:
    """The module `trsvd._compiled.lanczos`, or None.

    There is none where Numba is not installed (or does not know the NumPy that is), and where the
    environment variable ``TRSVD_COMPILED`` is ``0``. The first call ever compiles, for a few
    seconds; the result is kept beside the package or in the user's cache directory.
    """
    if os.environ.get("TRSVD_COMPILED", "1") == "0":
        return None
    try:
        from trsvd._compiled import lanczos as _numba_kernels
    except Exception:  # absent, too old for this NumPy, or without a place to keep what it compiles
        return None
    return _numba_kernels


def shared_kernels() -> Any:
    """The loops for several threads, where there are `kernels`."""
    from trsvd._compiled import lanczos_threaded as _numba_shared

    return _numba_shared
