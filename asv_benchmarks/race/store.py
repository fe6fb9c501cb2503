"""File of the results of the race, written after each cell so that a run can be resumed."""

from __future__ import annotations

import contextlib
import gzip
import importlib.metadata
import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scipy

from trsvd.reports import machine

_FORMAT = 1
_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "torch",
    "scikit-learn",
    "primme",
    "fbpca",
)


class Unwritable(Exception):
    """Error for a file of results that cannot be written; the message gives the reason."""


class Mismatch(Exception):
    """Error for results from another machine or other versions; the message lists them."""


def header() -> dict[str, Any]:
    """Return the conditions of the times: machine, versions, BLAS. Threads are added later."""
    about = machine()
    config: Any = scipy.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return {
        "format": _FORMAT,
        "python": about["python"],
        "cpu": about["cpu"],
        "cpus": about["cpus"],
        "platform": about["platform"],
        "blas": {
            "numpy": about["blas"],
            "scipy": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        },
        "versions": {
            "trsvd": about["versions"]["trsvd"],
            **{name: _version(name) for name in _PACKAGES},
        },
        "threads": {},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def differences(here: Any, there: Any, name: str = "") -> list[str]:
    """Return the differences of two headers in words; threads only if both have them."""
    if not isinstance(here, dict) or not isinstance(there, dict):
        return [] if here == there else [f"{name}: {there} there, {here} here"]
    keys = here.keys() & there.keys() if name == "threads" else here.keys() | there.keys()
    found = []
    for key in sorted(keys):
        path = f"{name}.{key}" if name else key
        found += differences(here.get(key), there.get(key), path)
    return found


_NOT_RESULTS = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError)


def _parts(content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the header and the cells of a file."""
    record = json.loads(content)
    head, cells = record["header"], record["cells"]
    if head["format"] != _FORMAT:
        raise ValueError(f"format: {head['format']} there, {_FORMAT} here")
    if not _are_cells(cells):
        raise ValueError("its cells have another form")
    return head, cells


def _are_cells(cells: Any) -> bool:
    """True if the cells have the form of those in `Results.add`."""
    kinds = {"name": str, "threads": int, "sources": str, "cell": dict, "competitors": list}
    return isinstance(cells, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), kind) for key, kind in kinds.items())
        for one in cells
    )


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _in_six_digits(value: Any) -> Any:
    """Round measured numbers to six digits, so that files stay small; keep settings exact."""
    if isinstance(value, dict):
        return {key: one if key == "options" else _in_six_digits(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_in_six_digits(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclass
class Results:
    """Measured cells, and the conditions of the measurement.

    Parameters
    ----------
    path : Path or None
        File of the results, compressed if its name ends in ``.gz``; None for no file.
    head : dict
        See `header`.
    cells : list of dict
        One result for each cell and number of threads.
    """

    path: Path | None
    head: dict[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def open(path: Path | None, head: dict[str, Any]) -> Results:
        """Read an existing file or begin a new one; Mismatch if the conditions differ."""
        if path is None or not path.exists():
            return Results(path, head)
        results = Results.read(path)
        found = differences(head, results.head)
        if found:
            raise Mismatch(
                f"{path} was measured under other conditions ({'; '.join(found)}); pass another "
                "--json, or --fresh to overwrite it"
            )
        return results

    @staticmethod
    def read(path: Path) -> Results:
        """Read the results of a file from any machine."""
        try:
            content = path.read_bytes()
            return Results(
                path, *_parts(gzip.decompress(content) if _is_compressed(path) else content)
            )
        except _NOT_RESULTS as error:
            raise Mismatch(
                f"{path} does not hold results of a race: {type(error).__name__}: {error}"
            ) from error

    def has(self, name: str, threads: int, sources: str | None = None) -> bool:
        """True if a cell has a result; with ``sources``, only from these sources of trsvd."""
        return any(
            cell["name"] == name
            and cell["threads"] == threads
            and sources in (None, cell["sources"])
            for cell in self.cells
        )

    def peers_of(self, name: str, threads: int | None = None) -> dict[str, dict[str, Any]]:
        """Return the outcomes of the peers in a cell, without their times; {} if it was not run.

        ``threads=None`` means any number of threads.
        """
        cells = [one for one in self.cells if one["name"] == name]
        cells = [one for one in cells if threads in (None, one["threads"])]
        return {
            one["name"]: {**one, "times": [], "facts": {}}
            for cell in cells
            for one in cell["competitors"]
            if one["role"] in {"peer", "reference"}
        }

    def use_threads(self, threads: int, pools: list[str]) -> None:
        """Store the descriptions of the BLAS libraries; Mismatch if they have changed."""
        kept = self.head["threads"].get(str(threads))
        if kept is not None and kept != pools:
            raise Mismatch(
                f"{self.path}: at {threads} threads it was measured with {', '.join(kept)}; here "
                f"it is {', '.join(pools)}; pass another --json, or --fresh to overwrite it"
            )
        self.head["threads"][str(threads)] = pools

    def add(self, cell: dict[str, Any]) -> None:
        """Add a cell, in place of an older result of it, and write the file."""
        key = cell["name"], cell["threads"]
        self.cells = [one for one in self.cells if (one["name"], one["threads"]) != key]
        self.cells.append(cell)
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        record = {"header": self.head, "cells": self.cells}
        content = json.dumps(_in_six_digits(record), indent=1, allow_nan=False).encode() + b"\n"
        if _is_compressed(self.path):
            content = gzip.compress(content, mtime=0)
        path = self.path.resolve()  # target of a link
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            temporary.write_bytes(content)
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o777)
            # Atomic: readers see the whole new file or the old one.
            temporary.replace(path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                raise Unwritable(
                    f"{self.path} cannot be written, so that it lacks the last cell: {error}"
                ) from error
            raise
