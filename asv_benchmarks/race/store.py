"""Results of the race in a file: written whole after each cell, so that a run can be resumed."""

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
    """A file that results cannot be kept in; the message says why."""


class Mismatch(Exception):
    """A file was measured elsewhere, or with something else; the message says with what."""


def header() -> dict[str, Any]:
    """What times depend on: machine, versions, BLAS; threads are added as they are used."""
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
    """In words, what two headers disagree about; thread counts only where both have them."""
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
    """Header and cells of a file."""
    record = json.loads(content)
    head, cells = record["header"], record["cells"]
    if head["format"] != _FORMAT:
        raise ValueError(f"format: {head['format']} there, {_FORMAT} here")
    if not _are_cells(cells):
        raise ValueError("its cells are none")
    return head, cells


def _are_cells(cells: Any) -> bool:
    """Whether they are made like those that `Results.add` is given."""
    kinds = {"name": str, "threads": int, "sources": str, "cell": dict, "competitors": list}
    return isinstance(cells, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(key), kind) for key, kind in kinds.items())
        for one in cells
    )


def _is_compressed(path: Path) -> bool:
    return path.suffix == ".gz"


def _in_six_digits(value: Any) -> Any:
    """What was measured, as accurate as a clock: files stay small. Settings stay as they are."""
    if isinstance(value, dict):
        return {key: one if key == "options" else _in_six_digits(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_in_six_digits(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


@dataclass
class Results:
    """Cells that were measured, and on what.

    Parameters
    ----------
    path : Path or None
        File to keep them in, compressed if its name ends in ``.gz``; None for none.
    head : dict
        See `header`.
    cells : list of dict
        One for each cell and number of threads.
    """

    path: Path | None
    head: dict[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)

    @staticmethod
    def open(path: Path | None, head: dict[str, Any]) -> Results:
        """Those of a file, if there is one; Mismatch if it was measured on something else."""
        if path is None or not path.exists():
            return Results(path, head)
        results = Results.read(path)
        found = differences(head, results.head)
        if found:
            raise Mismatch(
                f"{path} was measured on something else ({'; '.join(found)}); give another --json, "
                "or --fresh to begin anew"
            )
        return results

    @staticmethod
    def read(path: Path) -> Results:
        """Those of a file, wherever they were measured."""
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
        """Whether a cell is there; with a digest, whether of these sources of trsvd."""
        return any(
            cell["name"] == name
            and cell["threads"] == threads
            and sources in (None, cell["sources"])
            for cell in self.cells
        )

    def peers_of(self, name: str, threads: int | None = None) -> dict[str, dict[str, Any]]:
        """What became of the peers in a cell, without their times; {} where it was not run.

        With a number of threads, or with any.
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
        """Note what the BLAS libraries say of themselves; Mismatch if that has changed."""
        kept = self.head["threads"].get(str(threads))
        if kept is not None and kept != pools:
            raise Mismatch(
                f"{self.path}: at {threads} threads it was measured with {', '.join(kept)}; here "
                f"it is {', '.join(pools)}; give another --json, or --fresh to begin anew"
            )
        self.head["threads"][str(threads)] = pools

    def add(self, cell: dict[str, Any]) -> None:
        """Put a cell in the place of an older one of that name, and write the file."""
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
        path = self.path.resolve()  # where a link leads to
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            temporary.write_bytes(content)
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o777)
            # Whoever reads the file sees all of it or what was there before.
            temporary.replace(path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                raise Unwritable(
                    f"{self.path} cannot be written, and lacks the last cell: {error}"
                ) from error
            raise
