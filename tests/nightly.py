"""A night of random structured problems: ``python tests/nightly.py --examples 100000 --seed 0``.

Chunk by chunk, each with a seed of its own and a line in a log: the same command goes on where it
was cut short. What is silently wrong is shrunk and printed; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from random_structure import Problem, examine, problems


def run_chunk(number: int, size: int, base: int) -> Counter[str]:
    """Outcomes of ``size`` problems, or the exception of one, shrunk."""
    counts: Counter[str] = Counter()

    @seed(base * 1_000_003 + number)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(problem=problems())
    def check(problem: Problem) -> None:
        counts[examine(problem).name] += 1

    check()
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=1000)
    parser.add_argument("--log", type=Path, default=Path("nightly.jsonl"))
    given_ = parser.parse_args(argv)
    done, total = set(), Counter()
    if given_.log.exists():
        for line in given_.log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if (entry["seed"], entry["size"]) == (given_.seed, given_.chunk):
                done.add(entry["chunk"])
                total.update(entry["outcomes"])
    for number in range(-(-given_.examples // given_.chunk)):
        if number in done:
            continue
        began = time.perf_counter()
        try:
            counts = run_chunk(number, given_.chunk, given_.seed)
        except Exception:
            print(f"chunk {number} of seed {given_.seed}:")
            print(traceback.format_exc(), flush=True)
            return 1
        total.update(counts)
        entry = {
            "seed": given_.seed,
            "chunk": number,
            "size": given_.chunk,
            "outcomes": dict(counts),
            "seconds": round(time.perf_counter() - began, 1),
        }
        with given_.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        print(_said(total, given_.seed), file=sys.stderr, flush=True)
    print(_said(total, given_.seed))
    return 0


def _said(total: Counter[str], base: int) -> str:
    counts = ", ".join(f"{name.lower()} {count}" for name, count in total.most_common())
    return f"{sum(total.values())} problems, seed {base}: {counts}, silently wrong 0"


if __name__ == "__main__":
    sys.exit(main())
