"""Loops compiled by Numba, and their threads; each has an equivalent for use without Numba."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


@cache
def kernels() -> Any:
    """Return the module `trsvd._compiled.lanczos`, or None.

    None if Numba is not installed, does not support the version of NumPy, or the environment
    variable ``TRSVD_COMPILED`` is ``0``. The first call compiles for a few seconds; the result is
    stored in the folder of the package or in the user's cache directory.
    """
    if os.environ.get("TRSVD_COMPILED", "1") == "0":
        return None
    try:
        from trsvd._compiled import lanczos as _numba_kernels
    except Exception:  # not installed, too old for this NumPy, or without a folder for its cache
        return None
    return _numba_kernels


def shared_kernels() -> Any:
    """Return the loops for several threads; None without `kernels`."""
    from trsvd._compiled import lanczos_threaded as _numba_shared

    return _numba_shared
