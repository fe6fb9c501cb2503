"""The race: trsvd against every installed peer, to the same accuracy, in turns.

`run` measures cells in separate processes. The number of threads is set before any array library is
imported. Results are stored in a file, from which a run can be resumed. The command is
``python -m race``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trsvd
from race.cells import Cell, all_cells, data_cells, matching, quick_cells
from race.matrices import Places, default_cache
from race.statistics import Summary, summarize
from race.store import Mismatch, Results, Unwritable, header
from race.trials import Effort, Outcome
from race.worker import ROLES, sources

__all__ = [
    "Cell",
    "Effort",
    "Mismatch",
    "Places",
    "Results",
    "Summary",
    "Unwritable",
    "all_cells",
    "data_cells",
    "default_cache",
    "environment",
    "header",
    "matching",
    "quick_cells",
    "run",
    "summarize",
]

Progress = Callable[[str], None]

_WORKER = "race.worker"
_FOLDER = Path(__file__).parents[1]

_PREPARING = 3600.0
"""Limit in seconds for building a matrix and its exact values."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)

_SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Variables that select BLAS kernels for another processor or cache size."""

_PAUSE = 0.1
"""Pause in seconds, so that the threads of one library sleep before the next one runs.

Threads of OpenBLAS busy-wait before they sleep; after 30 or 60 ms they still disturbed calls.
"""


def environment(threads: int, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables of a worker.

    Parameters
    ----------
    threads : int
        Number of threads of every BLAS library and OpenMP.
    outer : mapping, optional
        Variables to begin with; ``os.environ`` by default.

    Returns
    -------
    dict
    """
    found = dict(os.environ if outer is None else outer)
    found.setdefault("TRSVD_COMPILED", "1")  # what is compiled in the first call is not timed
    for name in _SLOWING:
        found.pop(name, None)
    # Use the trsvd of this process, even if another one is installed.
    paths = [str(Path(trsvd.__file__).parents[1]), found.get("PYTHONPATH", "")]
    found["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return {**found, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}


def run(
    cells: Sequence[Cell],
    results: Results,
    *,
    threads: Sequence[int] = (1,),
    effort: Effort | None = None,
    places: Places | None = None,
    renew: bool = False,
    progress: Progress | None = None,
) -> Iterator[dict[str, Any]]:
    """Run every cell that has no result yet.

    If a result with another number of threads exists, the search for the settings of the peers
    begins with its settings.

    Parameters
    ----------
    cells : sequence of Cell
        Cells to run. Cells of one matrix should be adjacent, so that it is built once.
    results : Results
        Storage of the results. Cells with a result are not run again.
    threads : sequence of int, default (1,)
        Numbers of threads, each in its own process.
    effort : Effort, optional
        Limits of the measurements.
    places : Places, optional
        Folders of the cache and of real matrices.
    renew : bool, default False
        True: run cells again that were measured with other sources of trsvd. The settings of the
        peers do not depend on these, and are kept.
    progress : callable, optional
        Function that is called with a line of progress.

    Yields
    ------
    dict
        The result of a cell, as in the file.

    Raises
    ------
    Mismatch
        If the existing results were measured with other BLAS libraries.
    Unwritable
        If the file of results cannot be written.
    """
    places = places or Places(default_cache())
    now = sources() if renew else None
    for count in threads:
        waiting = [cell for cell in cells if not results.has(cell.name, count, now)]
        crew = _Crew(results, count, effort or Effort(), places, progress or (lambda line: None))
        crew.elsewhere = {cell.name: results.peers_of(cell.name) for cell in waiting}
        if renew:
            crew.known = {cell.name: results.peers_of(cell.name, count) for cell in waiting}
        yield from crew.work(waiting)


@dataclass
class _Crew:
    """Workers, one after another, until every cell has a result."""

    results: Results
    threads: int
    effort: Effort
    places: Places
    progress: Progress
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)
    digest: str = ""

    def work(self, cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
        """Yield results as they arrive; replace a worker that crashed or timed out."""
        waiting = {cell.name: cell for cell in cells}
        total = len(waiting)
        while waiting:
            name = competitor = ""
            worker = _Worker(self._job(waiting.values()), environment(self.threads))
            try:
                for event in worker.events():
                    kind = event["event"]
                    if kind == "ready":
                        self.results.use_threads(self.threads, event["pools"])
                        self.digest = event["sources"]
                    elif kind == "cell":
                        name, competitor = event["name"], ""
                        self._say(f"{total - len(waiting) + 1} of {total}: {name}")
                    elif kind == "call":
                        competitor = event["competitor"]
                    elif kind == "tuned":
                        outcome = event["outcome"]
                        self.known.setdefault(name, {})[outcome["name"]] = outcome
                        self._say(f"{name}: {outcome['name']} {outcome['status']}")
                    elif kind == "unavailable":
                        self._say(f"{name}: left out: {event['why']}")
                        del waiting[name]
                    elif kind == "result":
                        yield self._keep(waiting.pop(name), event["record"])
                    elif kind == "lost":
                        yield from self._lost(waiting, name, competitor, event)
            finally:
                worker.stop()

    def _say(self, line: str) -> None:
        self.progress(f"threads {self.threads}, {line}")

    def _job(self, cells: Any) -> dict[str, Any]:
        pause = _PAUSE if self.threads > 1 else 0.0
        effort = dataclasses.replace(self.effort, pause=self.effort.pause or pause)
        entries = [
            {
                "cell": cell.as_dict(),
                "known": self.known.get(cell.name, {}),
                "elsewhere": self.elsewhere.get(cell.name, {}),
            }
            for cell in cells
        ]
        return {
            "cache": str(self.places.cache),
            "data": str(self.places.data) if self.places.data else None,
            "effort": dataclasses.asdict(effort),
            "cells": entries,
        }

    def _keep(self, cell: Cell, record: dict[str, Any]) -> dict[str, Any]:
        kept = {
            "name": cell.name,
            "threads": self.threads,
            "sources": self.digest,
            "cell": cell.as_dict(),
            **record,
        }
        self.results.add(kept)
        return kept

    def _lost(
        self, waiting: dict[str, Cell], name: str, competitor: str, event: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Drop the competitor that ended the worker; drop the cell if it was no competitor."""
        if not name:
            raise RuntimeError(f"the worker process ended before it began: {event['tail']}")
        self._say(f"{name}: left out: {competitor or 'the matrix'} {event['why']} {event['tail']}")
        outcome = {"name": competitor, "role": ROLES.get(competitor, ""), "status": event["why"]}
        if outcome["role"] == "trsvd":
            outcome = dataclasses.asdict(Outcome(**outcome))
            lost = {"rounds": 0, "reached": False, "competitors": [outcome]}
            yield self._keep(waiting.pop(name), lost)
        elif competitor:
            self.known.setdefault(name, {})[competitor] = outcome
        else:
            del waiting[name]


class _Worker:
    """Worker process and its reports."""

    def __init__(self, job: dict[str, Any], variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER],
            cwd=_FOLDER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables,
            encoding="utf-8",
            errors="replace",
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._tail: list[str] = []
        self._readers = [
            threading.Thread(target=target, daemon=True) for target in (self._read, self._listen)
        ]
        for reader in self._readers:
            reader.start()
        assert self._process.stdin is not None
        # If the process has ended already, `events` reports the reason.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(job))
            self._process.stdin.close()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def _listen(self) -> None:
        for line in self._process.stderr or ():
            self._tail = [*self._tail[-4:], line.strip()]

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield its reports; the last is ``end``, or ``lost`` if the process ended or hung."""
        allowed, spare = _PREPARING, 5.0
        while True:
            try:
                line = self._lines.get(timeout=allowed)
            except queue.Empty:
                self.stop()
                yield {"event": "lost", "why": "timed out", "tail": ""}
                return
            if line is None:
                self._process.wait()
                for reader in self._readers:
                    reader.join()
                tail = " | ".join(self._tail[-3:])
                yield {"event": "lost", "why": "crashed", "tail": tail}
                return
            event = json.loads(line)
            allowed = event["limit"] + spare if event["event"] == "call" else _PREPARING
            yield event
            if event["event"] == "end":
                return

    def stop(self) -> None:
        """Kill the process if it is running."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
