"""Runs of an experiment, stored as JSON lines in a folder and never repeated."""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Tick = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Job:
    """Run of an experiment; `make` takes a function of the step, number of steps and loss.

    The key names everything that the result depends on.
    """

    key: str
    make: Callable[[Tick], dict]


def parser(doc: str, out: str) -> argparse.ArgumentParser:
    """Return a command line with the options of all experiments."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--out", type=Path, default=Path(out), help="output folder")
    made.add_argument("--seeds", type=int, help="largest number of seeds of each row")
    made.add_argument("--only", nargs="*", default=[], help="select rows by a part of their names")
    made.add_argument("--jobs", type=int, default=1, help="number of parallel runs")
    made.add_argument("--quick", action="store_true", help="small problem, under two minutes")
    return made


def wanted(name: str, only: list[str]) -> bool:
    """True if a row is selected by ``--only``."""
    return not only or any(part in name for part in only)


def carry_out(jobs: list[Job], folder: Path, processes: int = 1) -> list[dict]:
    """Return the results of all jobs, in order; existing ones are read from ``runs.jsonl``.

    Several processes run in parallel, each with its share of the threads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.jsonl"
    found = _read(path)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress, path.open("a", encoding="utf-8") as file:
        whole = progress.add_task("all runs", total=len(jobs))
        missing = [job for job in jobs if job.key not in found]
        progress.advance(whole, len(jobs) - len(missing))
        made = _here(missing, progress) if processes == 1 else _beside(missing, processes)
        for result in made:
            file.write(json.dumps(result) + "\n")
            file.flush()
            found[result["key"]] = result
            line = f"{result['key']}: {result['seconds']:.1f} s"
            progress.console.print(line, markup=False)
            progress.advance(whole)
    return [found[job.key] for job in jobs]


def _here(jobs: list[Job], progress: Progress) -> Iterator[dict]:
    """Yield the results of runs one after the other, with a progress bar for each."""
    for job in jobs:
        one = progress.add_task(job.key, total=None)

        def tick(step: int, steps: int, loss: float, one=one, job=job) -> None:
            if step % 10 == 0:
                text = f"{job.key}: {loss:.4g}"
                progress.update(one, completed=step, total=steps, description=text)

        yield _timed(job, tick)
        progress.remove_task(one)


def _beside(jobs: list[Job], processes: int) -> Iterator[dict]:
    """Yield the results of runs in separate processes, as they finish."""
    share = str(max(1, (os.cpu_count() or 1) // processes))
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = share  # for the children
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        pending = [pool.submit(_timed, job, _silent) for job in jobs]
        for one in as_completed(pending):
            yield one.result()


def _silent(step: int, steps: int, loss: float) -> None:
    """Ignore progress."""


def _timed(job: Job, tick: Tick) -> dict:
    """Return the result of a run, with its key and wall-clock seconds."""
    begin = time.perf_counter()
    result = {"key": job.key, **job.make(tick)}
    return {**result, "seconds": round(time.perf_counter() - begin, 2)}


def _read(path: Path) -> dict[str, dict]:
    """Read stored results; remove an incomplete last line after an interruption."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        path.write_text("".join(lines), encoding="utf-8")
    results = [json.loads(line) for line in lines]
    return {result["key"]: result for result in results}


def spread(values: list[float], form: str = ".0f") -> str:
    """Format mean and standard deviation."""
    if len(values) < 2:
        return f"{values[0]:{form}}"
    return f"{np.mean(values):{form}} ± {np.std(values, ddof=1):{form}}"


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """Format a table in Markdown."""
    cells = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in cells)


def figure(path: Path, draw: Callable, columns: int) -> None:
    """Save a figure; `draw` takes the axes, side by side."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    picture, axes = plt.subplots(1, columns, figsize=(6 * columns, 5), layout="constrained")
    draw(axes)
    picture.savefig(path, dpi=120)
    plt.close(picture)
