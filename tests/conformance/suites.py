"""Run a test suite that ships with an installed package, with its functions replaced by ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import trsvd

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Suite:
    """A module of tests, unmodified.

    Attributes
    ----------
    package : str
        The distribution that ships it.
    module : str
        Where it is.
    replace : mapping
        ``"module:name"`` of what is replaced, and of what by.
    exclude : mapping
        Patterns of cases that cannot apply, as ``Class::test*``; for each how it fails
        (``"assertion"``, ``"message"`` where a warning or an exception is missed, or ``"device"``
        where there is no device), and why.
    select : str
        Part of the names of the tests to run; "" for all.
    environment : mapping
        Environment variables that the suite needs.
    """

    package: str
    module: str
    replace: Mapping[str, str]
    exclude: Mapping[str, tuple[str, str]]
    select: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def require(self) -> None:
        """Skip where the package is absent or does not ship its tests."""
        try:
            found = find_spec(self.module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{self.module} is not installed")

    def run(self, scratch: Path, paths: tuple[Path, ...] = ()) -> Outcome:
        """Run it in a process of its own."""
        task = {
            "select": self.select,
            "replace": dict(self.replace),
            "exclude": dict(self.exclude),
            "report": str(scratch / "report.json"),
        }
        paths = (Path(trsvd.__file__).parents[1], HERE, *paths)
        environment = {
            **os.environ,
            "CONFORMANCE": json.dumps(task),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
        }
        for name in ("PYTEST_ADDOPTS", "SCIPY_ARRAY_API"):
            environment.pop(name, None)
        environment.update(self.environment)
        settings = scratch / "pytest.ini"  # none of ours, where warnings are errors
        settings.write_text("[pytest]\n")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "conformance_plugin"]
        command += ["-p", "no:cacheprovider", "-c", str(settings), "--rootdir", str(scratch)]
        command += ["--pyargs", self.module]
        done = subprocess.run(
            command, env=environment, cwd=scratch, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
        return Outcome(**json.loads((scratch / "report.json").read_text()))

    def check(self, scratch: Path, record: Any) -> None:
        """Run it, print the counts, and fail on what failed or on a list that is not true."""
        self.require()
        outcome = self.run(scratch)
        record("conformance", self.summary(outcome))
        assert outcome.counts["passed"], "nothing was run"
        failures = outcome.failures(self.exclude)
        assert not failures, "\n\n".join(failures)

    def summary(self, outcome: Outcome) -> str:
        """Counts, and the reasons of the exclusions."""
        ours = ", ".join(sorted({source.split(":")[1] for source in self.replace.values()}))
        counts = outcome.counts
        lines = [
            f"{self.module} ({self.package} {version(self.package)}), run on trsvd.compat's {ours}",
            f"  {outcome.collected} collected, {counts['passed']} passed, "
            f"{counts['failed']} failed, {counts['excluded']} excluded, "
            f"{counts['skipped'] + counts['expected to fail']} skipped or expected to fail by the "
            "suite itself",
        ]
        reasons = [
            f"  {outcome.excluded.get(pattern, 0)} excluded: {pattern}: {reason}"
            for pattern, (_, reason) in self.exclude.items()
        ]
        return "\n".join(lines + reasons)


@dataclass(frozen=True)
class Outcome:
    """What became of the cases of a suite."""

    collected: int
    outcomes: dict[str, str]
    notes: dict[str, str]
    matched: dict[str, int]
    excluded: dict[str, int]

    @property
    def counts(self) -> Counter[str]:
        """How many cases had which outcome."""
        return Counter(self.outcomes.values())

    def failures(self, exclude: Iterable[str]) -> list[str]:
        """What is wrong: cases that failed, excluded ones that pass, exclusions of nothing."""
        return [f"{case}\n{note}" for case, note in self.notes.items()] + [
            f"the exclusion {pattern!r} matches no case; take it off the list"
            for pattern in exclude
            if pattern not in self.matched
        ]
