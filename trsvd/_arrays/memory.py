"""Checks of free host memory before an allocation.

Operating systems promise more memory than they have, and kill a process that writes to it. A
successful allocation therefore proves nothing.
"""

from __future__ import annotations

from pathlib import Path

# Smaller allocations are not checked.
_SMALL = 1 << 28

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int | None:
    """Return the free memory in bytes, swap included, by the system and the control group.

    Returns
    -------
    int or None
        None if neither is known.
    """
    known = [size for size in (_of_system(), _of_group()) if size is not None]
    return min(known, default=None)


def _of_system() -> int | None:
    entries = dict(line.split(":", 1) for line in _lines(_MEMINFO) if ":" in line)
    kilobytes = [entries.get(name, "").split()[:1] for name in ("MemAvailable", "SwapFree")]
    if not kilobytes[0]:
        return None
    return 1024 * sum(int(value[0]) for value in kilobytes if value)


def _of_group() -> int | None:
    """Return the limit of the control group (v2) minus the memory in use without file caches."""
    limit, used = ("".join(_lines(_GROUP / f"memory.{name}")) for name in ("max", "current"))
    if not (limit.isdigit() and used.isdigit()):
        return None
    caches = dict(line.split() for line in _lines(_GROUP / "memory.stat") if line.count(" ") == 1)
    return int(limit) - int(used) + int(caches.get("inactive_file", 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


_ADVICE = "ask for fewer triplets, a smaller basis_size or fewer iterations, or a narrower dtype"


def check_room(size: int, what: str, advice: str = _ADVICE) -> None:
    """Raise MemoryError if ``size`` bytes exceed the free memory.

    Parameters
    ----------
    size : int
        Size of the allocation, in bytes.
    what : str
        Name of the allocation, for the message.
    advice : str, optional
        Advice for the message.

    Raises
    ------
    MemoryError
        If the memory does not suffice. Nothing has been allocated then.
    """
    if size < _SMALL:
        return
    free = free_bytes()
    if free is not None and size > free:
        raise MemoryError(
            f"{what} would take {size / 2**30:.3g} GiB, and {max(free, 0) / 2**30:.3g} GiB of "
            f"memory are free; {advice}"
        )
