"""Everything that a reader may copy runs: the examples, and the Python in README and docs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = sorted(
    path for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")] if path.exists()
)
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path):
    """The line and the code of every ```python block of a page."""
    text = path.read_text(encoding="utf-8")
    return [(text[: match.start()].count("\n") + 1, match[1]) for match in FENCE.finditer(text)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What an example writes does not land in the repository; no window opens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, capsys, monkeypatch):
    for library in ("torch", "jax", "optax"):
        if f"import {library}" in path.read_text(encoding="utf-8"):
            pytest.importorskip(library)
    monkeypatch.setattr("sys.argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip(), "an example shows something"


def test_smooth_convex_experiment(tmp_path, monkeypatch, capsys):
    """A tiny one; and again, when all of its runs are there."""
    pytest.importorskip("torch")
    path = ROOT / "examples" / "experiments" / "smooth_convex.py"
    monkeypatch.syspath_prepend(str(path.parent))
    options = ["--size", "24", "--most", "6", "--seeds", "2", "--only", "paper", "rank Fanion-2"]
    monkeypatch.setattr("sys.argv", [str(path), *options, "--out", str(tmp_path)])
    tables = []
    for _ in range(2):
        runpy.run_path(str(path), run_name="__main__")
        tables.append((tmp_path / "table.md").read_text(encoding="utf-8"))
    assert tables[0] == tables[1]
    assert tables[0].count("not in 6") == 6
    assert (tmp_path / "runs.jsonl").read_text(encoding="utf-8").count("\n") == 16
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    capsys.readouterr()


def test_step_time_experiment(monkeypatch, capsys):
    pytest.importorskip("torch")
    path = ROOT / "examples" / "experiments" / "step_time.py"
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr("sys.argv", [str(path), "--width", "16", "--steps", "3"])
    runpy.run_path(str(path), run_name="__main__")
    out = capsys.readouterr().out
    assert "16 matrices" in out
    assert out.count("\n") == 12


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_page(path):
    """The blocks of a page in their order; a later one may use what an earlier one made."""
    found = blocks(path)
    if not found:
        pytest.skip("no Python")
    if any("import torch" in code for _, code in found):
        pytest.importorskip("torch")
    namespace = {"__name__": "__main__"}
    for line, code in found:
        # The line breaks put what a traceback says on the page's own lines.
        exec(compile("\n" * line + code, str(path), "exec"), namespace)


def test_each_block_of_the_readme_stands_alone():
    for line, code in blocks(ROOT / "README.md"):
        if "import torch" in code:
            pytest.importorskip("torch")
        exec(compile("\n" * line + code, "README.md", "exec"), {"__name__": "__main__"})


def test_there_is_something_to_run():
    """A glob or a pattern that matches nothing would pass in silence."""
    assert len(EXAMPLES) >= 3
    assert len(blocks(ROOT / "README.md")) >= 3
    for path in PAGES:
        assert len(blocks(path)) == path.read_text(encoding="utf-8").count("```python")
