"""Arrays and a JSON string in one .npz file, written atomically and read without pickle."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd._version import __version__

# Identifier of the files, and version of their layout.
_FORMAT = "trsvd.SVDResult"
_LAYOUT = 1
_FACTS = "facts"

Path = str | os.PathLike[str]


def write(path: Path, arrays: Mapping[str, HostArray], facts: Mapping[str, Any]) -> None:
    """Write arrays, and facts that JSON can represent, to an .npz file, see `replaced`."""
    text = json.dumps({"format": _FORMAT, "layout": _LAYOUT, "version": __version__, **facts})
    members: dict[str, Any] = {**arrays, _FACTS: np.array(text)}
    with replaced(path) as file:
        np.savez(file, **members)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing; after an exception the path is as it was before.

    The data is written to a temporary file in the same folder, which then replaces the target.
    Another process sees either the old file or the new one.
    """
    target = os.path.realpath(path)  # keep symbolic links
    temporary = os.path.join(os.path.dirname(target), f".trsvd-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def read(path: Path, names: tuple[str, ...]) -> tuple[dict[str, HostArray], dict[str, Any]]:
    """Read a file of `write`; ValueError for any other file."""
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as members:
                facts = json.loads(members[_FACTS].item())
                arrays = {name: members[name] for name in names}
            ours = facts["format"] == _FORMAT
            layout = facts["layout"]
        except (OSError, MemoryError):
            raise
        except Exception as error:  # zipfile, NumPy and JSON raise a dozen kinds
            raise ValueError(refused(path, f"{type(error).__name__}: {error}")) from error
    if not ours:
        raise ValueError(refused(path, f"its format is {facts['format']!r}"))
    if layout != _LAYOUT:
        raise ValueError(
            f"{os.fspath(path)} was written by trsvd {facts.get('version')} in layout {layout}; "
            f"trsvd {__version__} reads layout {_LAYOUT}: load it with that version"
        )
    return arrays, facts


def refused(path: Path, why: str) -> str:
    """Return the message for a file that `write` did not write."""
    return (
        f"{os.fspath(path)} is not a file that SVDResult.save wrote, or it is damaged ({why}); "
        "pass the path of such a file"
    )
