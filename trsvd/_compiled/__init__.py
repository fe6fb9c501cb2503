"""Compiled code: Lanczos steps by Numba, small matrices by an extension in C; both are optional."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

from trsvd._compiled.kind import Kind

# Seconds to import Numba and read the compiled loops of a kind from the disk; to compile one of
# their parts; and the factor by which the expected time of a call must exceed either. (It may be
# two or three times the actual time, and with many sparse products compiled loops save little.)
_LOAD, _COMPILE, _FACTOR = 0.6, 10.0, 8


_ready: set[Kind] = set()
_loading = threading.RLock()


def kernels() -> Any:
    """Return the module `trsvd._compiled.lanczos`, compiled or not; None if there is none.

    None if Numba is not installed, does not support the version of NumPy, or the environment
    variable ``TRSVD_COMPILED`` is ``0``.
    """
    return None if _asked() == "0" else _imported()


def kernels_for(kind: Kind, seconds: float) -> Any:
    """Return `kernels` if loops of a kind pay for a call; None otherwise.

    They pay if they are loaded in this process, or if the call takes several times as long as to
    load them from the disk, or to compile them. ``TRSVD_COMPILED=1``: always.

    Parameters
    ----------
    kind : Kind
        The loops.
    seconds : float
        Expected time of the call without them.
    """
    if _asked() != "1" and not is_ready(kind):
        if seconds < _FACTOR * _LOAD:
            return None
        parts = 1 + kind.shared + (kind.entries != kind.vectors)
        compiles = seconds >= _FACTOR * _COMPILE * parts
        if not (compiles or _may_be_on_disk(kind)) or not make_ready(kind, compiles=compiles):
            return None
    return kernels()


def is_ready(kind: Kind) -> bool:
    """True if the loops of a kind are loaded in this process, or always used."""
    return kind in _ready or kind._replace(shared=True) in _ready or _asked() == "1"


def make_ready(kind: Kind, *, compiles: bool) -> bool:
    """Load the loops of a kind from the disk, or compile them if permitted; True if done."""
    if kernels() is None:
        return False
    from trsvd._compiled.entry_points import entry_points, is_on_disk

    with _loading:
        loops = entry_points(kind)
        if not compiles and not all(is_on_disk(*loop) for loop in loops):
            return False
        for loop, arguments in loops:
            loop.compile(arguments)
        _ready.add(kind)
    return True


def shared_kernels() -> Any:
    """Return the loops for several threads; None without `kernels`."""
    from trsvd._compiled import lanczos_threaded as _numba_shared

    return _numba_shared


def _asked() -> str | None:
    return os.environ.get("TRSVD_COMPILED")


@cache
def _imported() -> Any:
    try:
        from trsvd._compiled import lanczos as _numba_kernels
    except Exception:  # not installed, too old for this NumPy, or without a folder for its cache
        return None
    return _numba_kernels


def _may_be_on_disk(kind: Kind) -> bool:
    """True if Numba's cache seems to have loops like these; found without an import of Numba."""
    module = "lanczos_threaded" if kind.shared else "lanczos"
    name = "sparse_gram_lanczos" if kind.sparse else "gram_lanczos"
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    pattern = f"{module}.{name}-*.{version}*.nbi"
    return any(True for folder in _cache_folders() for _ in folder.glob(pattern))


def _cache_folders() -> list[Path]:
    """Return the folders where Numba may keep what it compiled of this package."""
    here = Path(__file__).parent
    local = os.environ.get("LOCALAPPDATA") or Path.home()
    users = [
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "numba"),
        Path.home() / "Library" / "Caches" / "numba",
        Path(local, "numba", "Cache"),
    ]
    asked = os.environ.get("NUMBA_CACHE_DIR")
    roots = [Path(asked)] if asked else users
    found = [folder for root in roots for folder in root.glob(f"{here.name}_*")]
    return found if asked else [here / "__pycache__", *found]
