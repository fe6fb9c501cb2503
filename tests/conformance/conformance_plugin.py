"""A pytest plugin that runs somebody else's test suite on trsvd's functions.

Loaded with ``-p`` in a process of its own (see suites.py). The environment variable
``CONFORMANCE`` is JSON: ``select`` (a part of the names of the tests to run), ``replace``
(``"module:name"`` of what is replaced, and of what by), ``exclude`` (patterns of cases, each with
how it fails and the reason) and ``report`` (where the outcome goes, as JSON).

An excluded case is run as well, and has to fail in the way that the list says: it cannot hide what
would pass, nor another fault.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
from collections import Counter
from pathlib import Path

import pytest

TASK = json.loads(os.environ.get("CONFORMANCE", "{}"))
EXCLUDED = "excluded: "
outcomes: dict[str, str] = {}
notes: dict[str, str] = {}
# What an excluded case has to fail with: an assertion, a message that was not given, or what an
# array library raises without a driver.
ERRORS = {
    "assertion": AssertionError,
    "message": pytest.fail.Exception,
    "device": RuntimeError,
}
pattern_of: dict[str, str] = {}
# The outcome of a case whose setup and teardown also report is the worst of them.
GRAVEST = ("passed", "skipped", "expected to fail", "excluded", "failed")


def pytest_collection_modifyitems(config, items):
    for target, source in TASK["replace"].items():
        (owner, name), (home, attribute) = target.split(":"), source.split(":")
        module = importlib.import_module(owner)
        getattr(module, name)  # a name that is gone would leave the original in its place
        setattr(module, name, getattr(importlib.import_module(home), attribute))
    chosen = [item for item in items if TASK["select"] in item.name]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
    for item in items:
        for pattern, (error, reason) in TASK["exclude"].items():
            if fnmatch.fnmatchcase(case_of(item.nodeid), pattern.replace("[", "[[]")):
                pattern_of[case_of(item.nodeid)] = pattern
                mark = pytest.mark.xfail(
                    reason=EXCLUDED + reason, raises=ERRORS[error], strict=True
                )
                item.add_marker(mark)
                break


def case_of(nodeid):
    """``Class::test[parameters]``, without the file."""
    return nodeid.partition("::")[2]


def pytest_runtest_logreport(report):
    case, expected = case_of(report.nodeid), getattr(report, "wasxfail", None)
    outcome = report.outcome
    if report.skipped and expected is not None:
        outcome = "excluded" if EXCLUDED in expected else "expected to fail"
    if GRAVEST.index(outcome) >= GRAVEST.index(outcomes.get(case, "passed")):
        outcomes[case] = outcome
    if outcome == "failed":
        notes[case] = str(report.longrepr)[-2000:]


def pytest_sessionfinish(session):
    report = {
        "collected": session.testscollected,
        "outcomes": outcomes,
        "notes": notes,
        "matched": Counter(pattern_of.values()),
        "excluded": Counter(pattern_of[case] for case in outcomes if outcomes[case] == "excluded"),
    }
    Path(TASK["report"]).write_text(json.dumps(report))
