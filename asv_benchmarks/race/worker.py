"""Worker process of the race: it reads cells and writes events, one JSON object on a line.

`race.run` starts one process for each number of threads, with the variables of the BLAS libraries.
If a call hangs or ends the process, only the run of one cell is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trsvd
from race.accuracy import Task
from race.cells import Cell
from race.competitors import DEFAULT, OWN, PEERS, REFERENCES, with_start
from race.matrices import (
    Places,
    Subject,
    Unavailable,
    exact_triplets,
    many_subjects,
    subject,
)
from race.timing import Ceilings
from race.trials import Effort, Outcome, race_cell

Emit = Callable[..., None]

_OTHERS = (*OWN, *PEERS, *REFERENCES)
ROLES = {peer.name: peer.role for peer in (DEFAULT, *_OTHERS)}
"""Role of each competitor, by its name."""


def sources() -> str:
    """Return a digest of trsvd's modules, which identifies the measured version."""
    folder, digest = Path(trsvd.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def main() -> None:
    """Run the job from standard input."""
    # Output of a peer must not appear between the events.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: str, **content: Any) -> None:
        channel.write(json.dumps({"event": event, **content}) + "\n")
        channel.flush()

    job = json.loads(sys.stdin.read())
    emit("ready", pools=_pools(), sources=sources())
    places = Places(Path(job["cache"]), Path(job["data"]) if job["data"] else None)
    runner = _Runner(places, Effort(**job["effort"]), emit)
    for entry in job["cells"]:
        runner.run(Cell(**entry["cell"]), entry["known"], entry["elsewhere"])
    emit("end")


def _pools() -> list[str]:
    """Return descriptions of the BLAS libraries here; [] if threadpoolctl is not installed."""
    modules = ["numpy", "scipy.linalg"] + [peer.module for peer in PEERS if peer.installed()]
    for module in dict.fromkeys(modules):
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    try:
        found = importlib.import_module("threadpoolctl").threadpool_info()
    except ImportError:
        return []
    keys = ("internal_api", "version", "architecture", "num_threads")
    lines = {" ".join(str(pool[key]) for key in keys if pool.get(key)) for pool in found}
    return sorted(lines)


def _outcomes(entries: dict[str, Any]) -> dict[str, Outcome]:
    return {name: Outcome(**entry) for name, entry in entries.items()}


@dataclass
class _Runner:
    places: Places
    effort: Effort
    emit: Emit
    ceilings: Ceilings = field(default_factory=Ceilings)
    last: tuple[tuple[str, str], Subject] | None = None

    def run(self, cell: Cell, known: dict[str, Any], elsewhere: dict[str, Any]) -> None:
        """Run one cell; skip it with a reason if its matrix is not available."""
        self.emit("cell", name=cell.name)
        try:
            task = self.task(cell)
        except Exception as error:  # the other cells still run
            why = (
                str(error) if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
            )
            self.emit("unavailable", name=cell.name, why=why)
            return
        record = race_cell(
            task,
            DEFAULT,
            _OTHERS,
            self.ceilings,
            self.effort,
            known=_outcomes(known),
            elsewhere=_outcomes(elsewhere),
            announce=lambda name, limit: self.emit("call", competitor=name, limit=limit),
            tuned=lambda outcome: self.emit("tuned", outcome=outcome.as_dict()),
        )
        m, n = task.one.size
        single, _ = self.ceilings.reading(task.one)
        rates = {
            "operations": self.ceilings.gemm(cell.dtype),
            "bytes": task.one.entries * task.one.A.dtype.itemsize / single,
        }
        about = {"size": [m, n], "entries": task.one.entries, "rates": rates}
        self.emit("result", name=cell.name, record={**about, **record})

    def task(self, cell: Cell) -> Task:
        """Return the task of a cell: its matrix, exact triplets and start."""
        if cell.batch:
            return Task(cell, many_subjects(cell.matrix, cell.dtype, cell.batch))
        key = cell.matrix, cell.dtype
        if self.last is None or self.last[0] != key:
            self.last = None
            self.last = key, subject(cell.matrix, cell.dtype, self.places)
        one = self.last[1]
        exact = exact_triplets(one, cell.k, self.places) if cell.measure == "err1" else None
        return Task(cell, [one], exact, with_start(cell, one))


if __name__ == "__main__":
    main()
