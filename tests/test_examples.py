"""Everything that a reader may copy runs: the examples, and the Python in README and docs."""

from __future__ import annotations

import json
import pickle
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md"] + sorted(
    path for path in DOCS.rglob("*.md") if "_build" not in path.relative_to(DOCS).parts
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
    assert (tmp_path / "runs.jsonl").read_text(encoding="utf-8").count("\n") == 17
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    capsys.readouterr()


def test_runs_side_by_side(tmp_path):
    """In processes of their own, each result is written by the one that started them."""
    pytest.importorskip("torch")
    path = ROOT / "examples" / "experiments" / "smooth_convex.py"
    options = ["--size", "16", "--most", "3", "--seeds", "1", "--only", "paper", "--jobs", "2"]
    command = [sys.executable, str(path), *options, "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    lines = (tmp_path / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    runs = [json.loads(line) for line in lines]
    assert len({run["key"] for run in runs}) == len(runs) == 5
    assert all(len(run["losses"]) == 4 and run["losses"][-1] < run["losses"][0] for run in runs)


def test_loss_against_time_experiment(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    path = ROOT / "examples" / "experiments" / "loss_against_time.py"
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(
        "sys.argv", [str(path), "--size", "24", "--most", "4", "--out", str(tmp_path)]
    )
    runpy.run_path(str(path), run_name="__main__")
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()[2:]
    assert len(lines) == 8
    assert all(line.split(" | ")[1] == "4" for line in lines)
    losses = {
        name: r["losses"] for name, r in json.loads((tmp_path / "rounds.json").read_text()).items()
    }
    assert all(row[-1] < row[0] for row in losses.values())
    np.testing.assert_allclose(
        losses["Muon, exact (SVD)"], losses["Muon, exact (Gram matrix)"], rtol=1e-3
    )
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    capsys.readouterr()


def test_an_experiment_goes_on_where_it_was(tmp_path, monkeypatch):
    """An interruption leaves half a line; runs that are there are not made again."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "experiments"))
    from _runs import Job, carry_out

    made = []

    def job(key):
        return Job(key, lambda tick: made.append(key) or tick(0, 1, 0.5) or {"loss": 0.5})

    carry_out([job("a"), job("b")], tmp_path)
    with (tmp_path / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"key": "c", "lo')
    results = carry_out([job("b"), job("c"), job("a")], tmp_path)
    assert made == ["a", "b", "c"]
    assert [r["key"] for r in results] == ["b", "c", "a"]
    assert (tmp_path / "runs.jsonl").read_text(encoding="utf-8").count("\n") == 3


def test_small_images_experiment(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    path = ROOT / "examples" / "experiments" / "small_images.py"
    monkeypatch.syspath_prepend(str(path.parent))
    options = ["--quick", "--epochs", "1", "--only", "F-Muon", "Dion", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [str(path), *options])
    runpy.run_path(str(path), run_name="__main__")
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| F-Muon, Newton-Schulz 3",
        "| Dion-5 (orthonormal)",
    ]
    assert all(float(line.split(" | ")[3]) > 10 for line in lines[2:]), "better than one in ten"
    assert (tmp_path / "loss.png").stat().st_size > 10_000
    capsys.readouterr()


def test_small_images_on_cifar(tmp_path, monkeypatch, capsys):
    """The files as they are distributed, with a few images in each: they are read and run."""
    torch = pytest.importorskip("torch")
    path = ROOT / "examples" / "experiments" / "small_images.py"
    monkeypatch.syspath_prepend(str(path.parent))
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": list(range(10))}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
    module = runpy.run_path(str(path))
    data = module["images"](tmp_path)
    assert [len(data[part][1]) for part in ("train", "choose", "test")] == [40, 10, 10]
    assert data["train"][0].shape[1:] == (3, 32, 32)
    X, generator = data["train"][0], torch.Generator().manual_seed(0)
    assert module["shifted"](X, generator, flip=True).shape == X.shape
    model = module["net"](X)
    assert model(X).shape == (40, 10)
    # White patches: the first layer's outputs are uncorrelated, before it is trained.
    outputs = model[0](X).movedim(1, -1).reshape(-1, 24)[:, :12]
    covariance = outputs.mT @ outputs / len(outputs)
    torch.testing.assert_close(covariance, torch.eye(12), rtol=0, atol=0.1)
    out = tmp_path / "out"
    options = ["--cifar", str(tmp_path), "--quick", "--epochs", "1", "--only", "F-Muon"]
    monkeypatch.setattr("sys.argv", [str(path), *options, "--out", str(out)])
    runpy.run_path(str(path), run_name="__main__")
    assert (out / "table.md").read_text(encoding="utf-8").count("F-Muon") == 1
    assert (out / "runs.jsonl").read_text(encoding="utf-8").count('"key": "CIFAR-10: F-Muon') == 3
    capsys.readouterr()


def test_byte_gpt_experiment(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    path = ROOT / "examples" / "experiments" / "byte_gpt.py"
    monkeypatch.syspath_prepend(str(path.parent))
    options = ["--quick", "--steps", "3", "--width", "16", "--only", "F-Muon", "AdamW"]
    monkeypatch.setattr("sys.argv", [str(path), *options, "--out", str(tmp_path)])
    runpy.run_path(str(path), run_name="__main__")
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        [start, name] for start in ("| from scratch", "| fine-tune") for name in ("F-Muon", "AdamW")
    ]
    assert (tmp_path / "runs.jsonl").read_text(encoding="utf-8").count("\n") == 24
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
    assert out.count("\n") == 13


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_page(path):
    """The blocks of a page in their order; a later one may use what an earlier one made."""
    found = blocks(path)
    if not found:
        pytest.skip("no Python")
    for library in ("torch", "jax", "pandas", "sklearn"):
        if any(re.search(rf"^(import|from) {library}\b", code, re.M) for _, code in found):
            pytest.importorskip(library)
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
