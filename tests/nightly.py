"""A night of random structured problems: ``python tests/nightly.py --examples 100000 --seed 0``.

Kind by kind and chunk by chunk, each with a seed of its own and a line in a log: the same command
goes on where it was cut short. What is silently wrong is shrunk and printed; the exit code is then
1. With ``--survey`` the run does not stop there: each wrong answer has its line in the log, as it
was drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider

sys.path.append(str(Path(__file__).resolve().parents[1] / "asv_benchmarks"))  # for the judges
from random_structure import Problem, examine, problems  # noqa: E402
from structured_matrices import KINDS  # noqa: E402

# The usual backend draws most examples as variations of one before; here each is independent.
AVAILABLE_PROVIDERS["independent"] = HypothesisProvider


def run_chunk(
    kind: str, number: int, size: int, base: int, wrong: Callable[[Problem, Exception], None] | None
) -> Counter[str]:
    """Outcomes of ``size`` problems; the exception of one, shrunk, unless ``wrong`` takes it."""
    counts: Counter[str] = Counter()

    @seed(base * 1_000_003 + number)
    @settings(
        max_examples=size,
        backend="independent",
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(problem=problems(kind))
    def check(problem: Problem) -> None:
        try:
            counts[examine(problem).name] += 1
        except Exception as error:
            if wrong is None:
                raise
            counts["WRONG"] += 1
            wrong(problem, error)

    check()
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=100_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunk", type=int, default=1000)
    parser.add_argument("--log", type=Path, default=Path("nightly.jsonl"))
    parser.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--survey", action="store_true", help="log what is wrong and go on")
    given_ = parser.parse_args(argv)
    totals = {kind: Counter[str]() for kind in given_.kind}
    done = _done(given_.log, given_.seed, given_.chunk)
    for kind in given_.kind:
        for number in range(-(-given_.examples // given_.chunk)):
            if (kind, number) not in done:
                done[kind, number] = _chunk(given_, kind, number)
                if done[kind, number] is None:
                    return 1
            totals[kind].update(done[kind, number])
            print(_said(kind, totals[kind], given_.seed), file=sys.stderr, flush=True)
    for kind, total in totals.items():
        print(_said(kind, total, given_.seed))
    return int(any(total["WRONG"] for total in totals.values()))


def _chunk(given_: argparse.Namespace, kind: str, number: int) -> Counter[str] | None:
    """The outcomes of a chunk, which are logged; None after an answer that is silently wrong."""
    where = {"kind": kind, "seed": given_.seed, "chunk": number, "size": given_.chunk}
    began = time.perf_counter()

    def log(**entry: object) -> None:
        with given_.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**where, **entry}) + "\n")

    def wrong(problem: Problem, error: Exception) -> None:
        log(wrong=f"{type(error).__name__}: {error}", problem=repr(problem))

    try:
        counts = run_chunk(
            kind, number, given_.chunk, given_.seed, wrong if given_.survey else None
        )
    except Exception:
        print(f"chunk {number} of kind {kind}, seed {given_.seed}:")
        print(traceback.format_exc(), flush=True)
        return None
    log(outcomes=dict(counts), seconds=round(time.perf_counter() - began, 1))
    return counts


def _done(log: Path, base: int, size: int) -> dict[tuple[str, int], Counter[str] | None]:
    """The outcomes of the chunks that a log has, by kind and number."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    entries = [entry for entry in map(json.loads, lines) if "outcomes" in entry]
    return {
        (entry.get("kind", "few-levels"), entry["chunk"]): Counter(entry["outcomes"])
        for entry in entries
        if (entry["seed"], entry["size"]) == (base, size)
    }


def _said(kind: str, total: Counter[str], base: int) -> str:
    counts = ", ".join(
        f"{name.lower()} {count}" for name, count in total.most_common() if name != "WRONG"
    )
    made = f"{kind}: {sum(total.values())} problems, seed {base}"
    return f"{made}: {counts}, silently wrong {total['WRONG']}"


if __name__ == "__main__":
    sys.exit(main())
