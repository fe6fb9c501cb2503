"""Time of default threads relative to one thread, on an idle and on a busy machine.

    python -m busy [--pairs 200] [--json FILE]

On the busy machine, one process computes without end on each processor. Two workers, one with the
default threads and one with a single thread, run the same call in turns: each pair of times gives a
ratio. The table has the median ratio with its 95 % interval, and the median times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

# Rows, columns, k and dtype; sizes from 0.25 to 32 MiB.
CASES = [
    (256, 256, 16, "float32"),
    (256, 1024, 16, "float32"),
    (512, 512, 16, "float32"),
    (768, 1024, 16, "float32"),
    (1024, 1024, 16, "float32"),
    (2048, 1024, 16, "float32"),
    (2048, 2048, 16, "float64"),
]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def work() -> None:
    """Answer each line of standard input, the number of a case, with the time of a call."""
    import trsvd

    matrices = {}
    for line in sys.stdin:
        case = int(line)
        m, n, k, dtype = CASES[case]
        if case not in matrices:
            rng = np.random.default_rng(case)
            A = rng.standard_normal((m, n)) / np.sqrt(np.arange(1, n + 1))
            matrices[case] = A.astype(dtype)
            trsvd.svds(matrices[case], k, rng=0)
        begin = time.perf_counter()
        trsvd.svds(matrices[case], k, rng=0)
        print(time.perf_counter() - begin, flush=True)


@contextmanager
def worker(threads: int | None) -> Iterator[subprocess.Popen[str]]:
    """Start a worker with a number of threads; None for the default."""
    env = {name: value for name, value in os.environ.items() if name not in _THREADS}
    if threads is not None:
        env |= {name: str(threads) for name in _THREADS}
    env |= {"TRSVD_COMPILED": "1"}
    command = [sys.executable, "-c", "import busy; busy.work()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def load() -> Iterator[None]:
    """Compute without end on each processor."""
    processors = sorted(os.sched_getaffinity(0))
    spin = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", spin, str(cpu)]) for cpu in processors]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def ask(process: subprocess.Popen[str], case: int) -> float:
    """Return the time of one call of a worker."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{case}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def measure(case: int, pairs: int, *, busy: bool) -> dict[str, object]:
    """Return the ratios of a case."""
    with ExitStack() as stack:
        default, one = stack.enter_context(worker(None)), stack.enter_context(worker(1))
        times = np.array([[ask(default, case), ask(one, case)] for _ in range(2)])
        if busy:
            stack.enter_context(load())
        times = np.array([[ask(default, case), ask(one, case)] for _ in range(pairs)])
    ratios = np.sort(times[:, 0] / times[:, 1])
    spread = int(0.98 * pairs**0.5)
    m, n, k, dtype = CASES[case]
    return {
        "matrix": f"{m} x {n} {dtype}, k = {k}",
        "MiB": m * n * np.dtype(dtype).itemsize / 2**20,
        "busy": busy,
        "ratio": float(np.median(ratios)),
        "interval": [float(ratios[pairs // 2 - spread]), float(ratios[pairs // 2 + spread])],
        "default ms": float(np.median(times[:, 0]) * 1e3),
        "one ms": float(np.median(times[:, 1]) * 1e3),
    }


def main() -> None:
    """Measure every case, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=200, help="pairs of calls (default: 200)")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers to a file")
    options = parser.parse_args()
    rows = []
    print("| matrix | MiB | machine | default / one thread | 95 % interval | default ms | one ms |")
    print("|---|---|---|---|---|---|---|")
    for case in range(len(CASES)):
        for busy in (False, True):
            row = measure(case, options.pairs, busy=busy)
            rows.append(row)
            low, high = row["interval"]  # type: ignore[misc]
            print(
                f"| {row['matrix']} | {row['MiB']:g} | {'busy' if busy else 'idle'} | "
                f"{row['ratio']:.2f} | {low:.2f} to {high:.2f} | {row['default ms']:.2f} | "
                f"{row['one ms']:.2f} |",
                flush=True,
            )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
