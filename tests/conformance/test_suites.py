"""The runner itself: what fails is seen, and the list of exclusions has to be true."""

from __future__ import annotations

import pytest
from suites import Suite

TESTS = """
import pytest
from math import sqrt


def test_right():
    assert sqrt(4) == 2


@pytest.mark.parametrize("x", [4, 9])
def test_root(x):
    assert sqrt(x) == 3


def test_skipped():
    pytest.skip("by the suite itself")


@pytest.mark.xfail
def test_known():
    raise AssertionError
"""


TRUE = ("assertion", "2 is not 3")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "roots.py").write_text(TESTS)

    def function(exclude, replace=None):
        suite = Suite("pytest", "roots", replace or {}, exclude)
        outcome = suite.run(tmp_path, (tmp_path,))
        return outcome, outcome.failures(exclude)

    return function


def test_counts_and_failures(run):
    outcome, failures = run({})
    assert outcome.collected == 5
    assert outcome.counts == {"passed": 2, "failed": 1, "skipped": 1, "expected to fail": 1}
    assert len(failures) == 1
    assert failures[0].startswith("test_root[4]")


def test_a_true_list(run):
    outcome, failures = run({"test_root[4]": TRUE})
    assert outcome.counts["excluded"] == 1
    assert not failures


@pytest.mark.parametrize(
    ("pattern", "said"), [("test_root*", "test_root[9]"), ("test_gone", "matches no case")]
)
def test_a_list_that_is_not_true(run, pattern, said):
    _, failures = run({"test_root[4]": TRUE, pattern: TRUE})
    assert len(failures) == 1
    assert said in failures[0]


def test_an_exclusion_for_another_fault(run):
    _, failures = run({"test_root[4]": ("message", "2 is not 3")})
    assert len(failures) == 1


def test_functions_are_replaced(run):
    outcome, _ = run({}, {"roots:sqrt": "math:floor"})
    assert outcome.counts["failed"] == 3
