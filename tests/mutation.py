"""Mutants of the kernels and the balls: ``python tests/mutation.py --mutants 240 --seed 0``.

Cosmic Ray makes the mutants; which ones, a seed says: a random place, then a random change of it.
Each is run against the tests of its module, with NumPy, in a copy of the package and with a line in
a log: the same command goes on where it was cut short, and a larger number draws more. Left out
are annotations, which are not evaluated, and changes that Python cannot compile.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parent.parent
MEMORY = 8 << 30
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider")
DOUBLE = "not complex64 and not float32"
CHOSEN = f"not torch and not strict and not cupy and {DOUBLE}"
CHOSEN_OF = {
    "_oracles.batched": f"strict and {DOUBLE}",  # NumPy goes another way
    "operators.gram": "not complex64",
    "_krylov.gram_lanczos": "not torch and not strict and not cupy and not complex64",
}

# The tests of a module, those first that know it best: some seconds each.
SPECTRAL = ("balls", "result", "lmo")
POLAR = ("polar_express", "polar", "spectral_methods")
TESTS = {
    "_arrays.host_blas": ("host_blas", "basis", "gram"),
    "_arrays.reductions": ("arrays", "basis"),
    "_compiled.lanczos": ("numba_kernels",),
    "_krylov.basis": ("columns", "basis", "gram_lanczos", "golub_kahan"),
    "_krylov.golub_kahan": ("golub_kahan", "gram_lanczos"),
    "_krylov.gram_lanczos": ("gram_lanczos", "gram", "tolerance"),
    "_krylov.rayleigh_ritz": ("rayleigh_ritz", "subspace_iteration", "golub_kahan"),
    "_krylov.subspace_iteration": ("subspace_iteration", "spectral_methods"),
    "_oracles.batched": ("batches", "balls"),
    "_oracles.bounds": ("bounds", "lmo"),
    "_oracles.leading_pairs": ("bounds", "lmo", "balls", "warm_steps"),
    "_oracles.polar": ("spectral_function", *POLAR, "result", "balls"),
    "balls.base": SPECTRAL,
    "balls.entrywise": ("balls", "result"),
    "balls.spectral": (*SPECTRAL, "norms", "public_api"),
    "balls.sum_gauge": ("sum_gauge", "balls"),
    "operators.gram": ("gram", "tolerance"),
    "polar.__init__": ("polar", "polar_express"),
    "polar.bounds": POLAR,
    "polar.methods": POLAR,
    "polar.polynomials": POLAR,
}


@dataclass(frozen=True)
class Mutant:
    """One change of one module; `source` is the whole module with it."""

    module: str
    operator: str
    occurrence: int
    line: int
    within: str
    change: str
    source: str

    @property
    def key(self) -> str:
        """The same where the changed module is the same to the letter."""
        digest = hashlib.sha256(self.source.encode()).hexdigest()[:16]
        return f"{self.module}:{digest}"


def _places(module: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """(operator, occurrence) of every change, by where it begins."""
    text = _text(module)
    tree = get_ast(text)
    spans = _annotations(text)
    places: dict[tuple[int, int], list[tuple[str, int]]] = {}
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():
            continue
        found = (
            start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node)
        )
        for occurrence, start in enumerate(found):
            if not any(first <= start < last for first, last in spans):
                places.setdefault(start, []).append((name, occurrence))
    return places


def _path(root: Path, module: str) -> Path:
    return (root / "trsvd").joinpath(*module.split(".")).with_suffix(".py")


def _text(module: str) -> str:
    return _path(ROOT, module).read_text(encoding="utf-8")


def _is_bare_star(text: str, start: tuple[int, int]) -> bool:
    """Whether it is the star before keyword arguments, which is no product."""
    return text.splitlines()[start[0] - 1][start[1] :].startswith("*,")


def _annotations(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end."""
    found = []
    for node in ast.walk(ast.parse(text)):
        for name in ("annotation", "returns"):
            at = getattr(node, name, None)
            if at is not None:
                found.append(((at.lineno, at.col_offset), (at.end_lineno, at.end_col_offset)))
    return found


def _definition(text: str, line: int) -> str:
    """The innermost function or class around a line."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    around = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, kinds) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno).name if around else "(module)"


def mutants(seed: int) -> Iterator[Mutant]:
    """Mutants in the order of the seed, one of each place."""
    rng = random.Random(seed)
    by_module = {module: _places(module) for module in TESTS}
    order = [(module, start) for module, places in by_module.items() for start in sorted(places)]
    rng.shuffle(order)
    for module, start in order:
        changes = by_module[module][start]
        for name, occurrence in rng.sample(changes, len(changes)):
            mutant = _mutant(module, name, occurrence, start[0])
            if mutant is not None and not _is_bare_star(_text(module), start):
                yield mutant
                break


def _mutant(module: str, name: str, occurrence: int, line: int) -> Mutant | None:
    text = _text(module)
    source = mutate_code(text, get_operator(name)(), occurrence)
    if source is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            compile(source, module, "exec")
    except SyntaxError:
        return None
    lines = difflib.unified_diff(text.splitlines(), source.splitlines(), n=0, lineterm="")
    change = "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))
    return Mutant(module, name, occurrence, line, _definition(text, line), change, source)


def _run(copy: Path, module: str, limit: int | None) -> tuple[int | None, str]:
    """Exit code of the module's tests in the copy, None past the limit; and what they printed.

    The limit is one on the processor's time, which does not depend on what else runs.
    """
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        # Compiled, every mutant of a kernel would take half a minute.
        "NUMBA_DISABLE_JIT": str(int(module == "_compiled.lanczos")),
        "PYTHONDONTWRITEBYTECODE": str(int(limit is not None)),
        "PYTHONHASHSEED": "0",
    }
    environment = {name: value for name, value in environment.items() if value != "0"}
    found = {path.stem: path for path in (ROOT / "tests").rglob("test_*.py")}
    tests = [str(found[f"test_{name}"].relative_to(ROOT)) for name in TESTS[module]]

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    done = subprocess.run(
        [sys.executable, *PYTEST, "-k", CHOSEN_OF.get(module, CHOSEN), *tests],
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=restrict,
    )
    past = done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    return None if past else done.returncode, done.stdout


def _killer(output: str) -> str:
    """The test that failed, or the last line."""
    lines = output.strip().splitlines()
    failed = [line.split()[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return failed[0] if failed else (lines[-1] if lines else "")


class Log:
    """What is known, by a key; a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self._known = {entry["key"]: entry for entry in map(json.loads, text.splitlines())}

    def get(self, key: str, find: Callable[[], dict[str, object]]) -> dict[str, object]:
        """What stands there, or what is found and put there."""
        if key not in self._known:
            self._known[key] = {"key": key, **find()}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self._known[key]) + "\n")
        return self._known[key]


class Trials:
    """A copy of the package in which one module at a time is another."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.copy, self.log = folder, log
        for name in ("trsvd", "tests", "docs"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy2(ROOT / name, folder / name)

    def outcome(self, mutant: Mutant) -> dict[str, object]:
        """What the tests say of a mutant."""
        return self.log.get(mutant.key, lambda: self._examine(mutant))

    def _examine(self, mutant: Mutant) -> dict[str, object]:
        limit = self._limit(mutant.module)
        path = _path(self.copy, mutant.module)
        original = ROOT / "trsvd" / path.name
        began = time.perf_counter()
        try:
            path.write_text(mutant.source, encoding="utf-8")
            code, output = _run(self.copy, mutant.module, limit)
        finally:
            shutil.copy2(original, path)
        outcome = {0: "survived", None: "timeout"}.get(code, "killed")
        return {
            "module": mutant.module,
            "line": mutant.line,
            "within": mutant.within,
            "operator": mutant.operator,
            "change": mutant.change,
            "outcome": outcome,
            "by": _killer(output) if outcome == "killed" else "",
            "seconds": round(time.perf_counter() - began, 1),
        }

    def _limit(self, module: str) -> int:
        """Seconds after which a run counts as one that does not end; without a change it passes."""

        def find() -> dict[str, object]:
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            code, output = _run(self.copy, module, None)
            if code != 0:
                raise RuntimeError(f"the tests of {module} do not pass as it is:\n{output}")
            spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
            return {"limit": 30 + int(4 * spent)}

        return int(self.log.get(f"{module} as it is: {' '.join(TESTS[module])}", find)["limit"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("mutation.jsonl"))
    given = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder), Log(given.log))
        for number, mutant in zip(range(1, given.mutants + 1), mutants(given.seed), strict=False):
            results.append(trials.outcome(mutant))
            print(number, mutant.module, results[-1]["outcome"], file=sys.stderr, flush=True)
    print(_said(results))
    return 0


def _said(results: Sequence[dict[str, object]]) -> str:
    """A table by module, and every survivor."""
    rows = ["| module | mutants | killed | not ended | survived |", "|---|---:|---:|---:|---:|"]
    outcomes = ("killed", "timeout", "survived")
    for module in [*TESTS, "all"]:
        of = [entry for entry in results if module in (entry["module"], "all")]
        counts = Counter(entry["outcome"] for entry in of)
        numbers = " | ".join(str(counts[name]) for name in outcomes)
        rows.append(f"| `{module}` | {len(of)} | {numbers} |")
    for entry in results:
        if entry["outcome"] == "survived":
            rows.append(f"\n{entry['module']}:{entry['line']} {entry['within']}\n{entry['change']}")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
