"""Prints what each suite came to, below the tests."""

from __future__ import annotations

_SUMMARIES = []


def pytest_runtest_logreport(report):
    if report.when == "call":
        _SUMMARIES.extend(text for name, text in report.user_properties if name == "conformance")


def pytest_terminal_summary(terminalreporter):
    if _SUMMARIES:
        terminalreporter.section("conformance")
        for text in _SUMMARIES:
            terminalreporter.write_line(text)
