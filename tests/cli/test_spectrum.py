"""``trsvd spectrum``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from trsvd import cli
from trsvd.spectrum import spectrum_of

RNG = np.random.default_rng(0)
A = RNG.standard_normal((12, 7)).astype("float32")
B = RNG.standard_normal((5, 9)).astype("float32")
HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": A, HOSTILE: B, "bias": np.ones(7, "float32")}, path)
    return path


@pytest.fixture
def refused(capsys, tmp_path):
    """Run a command that must end with 2, one line on stderr, and no new file; that line."""

    def run(*argv):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert cli.main(["spectrum", *map(str, argv)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("trsvd spectrum: error: ")
        assert err.count("\n") == 1
        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before
        return err

    return run


def spectrum(*argv):
    return cli.main(["spectrum", *map(str, argv)])


def test_it_prints_a_table(model, capsys):
    assert spectrum(model) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    head, *rows, last = out.splitlines()
    assert head.split()[:4] == ["matrix", "shape", "s_1", "||A||_F"]
    expected = spectrum_of(A)
    [line] = [row for row in rows if row.startswith("a ")]
    assert line.split() == [
        *("a", "12", "x", "7", f"{expected.spectral_norm:.4g}", f"{expected.frobenius_norm:.4g}"),
        *(f"{expected.stable_rank:.4g}", f"{expected.nuclear_rank:.4g}"),
        *(f"{expected.effective_rank:.4g}", str(expected.rank_90), str(expected.rank_99)),
    ]
    assert r"onerror=alert(1)>\x1b[31m" in out
    assert last == "model: 2 matrices; skipped: 1 vectors or scalars"


def test_it_writes_a_report_and_json(model, tmp_path, capsys):
    page, data = tmp_path / "r.html", tmp_path / "r.json"
    assert spectrum(model, "-o", page, "--json", data) == 0
    document = json.loads(data.read_text())
    assert [row["name"] for row in document["matrices"]] == [HOSTILE, "a"]
    assert document["matrices"][1]["results"][0]["rank_90"] == spectrum_of(A).rank_90
    assert "<img" not in page.read_text()
    assert sorted(tmp_path.iterdir()) == sorted([model, page, data])
    capsys.readouterr()
    assert spectrum(model, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == document


def test_checkpoints_are_compared(model, tmp_path, capsys):
    other = tmp_path / "later.npz"
    np.savez(other, a=2 * A, new=B)
    assert spectrum(model, other) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("a "))
    first, second = lines[place].split(), lines[place + 1].split()
    assert (first[1], second[0]) == ("model", "later")
    assert float(second[4]) == pytest.approx(2 * float(first[5]), rel=1e-3)
    assert sum(line.startswith("new ") for line in lines) == 1
    assert lines[-1].startswith("later: 2 matrices")


def test_labels_are_as_long_as_they_must_be(tmp_path, capsys):
    paths = [tmp_path / name for name in ("a/m.npz", "b/m.npz", "x.npz", "x.npy")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        (np.save if path.suffix == ".npy" else np.savez)(path, A)
    for given, labels in (
        (paths[:1], ["m"]),
        (paths[2:], ["x.npz", "x.npy"]),
        (paths[:2], [str(path) for path in paths[:2]]),
        ([paths[0].parent, paths[1].parent], ["a", "b"]),
    ):
        assert spectrum(*given, "--json", "-") == 0
        found = json.loads(capsys.readouterr().out)["checkpoints"]
        assert [run["label"] for run in found] == labels


def test_shards_are_one_checkpoint(tmp_path, capsys):
    paths = [tmp_path / f"m-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"a": A}, paths[0])
    save_file({"b": B}, paths[1])
    assert spectrum(*paths) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "m: 2 matrices; skipped: nothing"


def test_what_is_not_finite_is_named(model, tmp_path, capsys):
    bad = tmp_path / "bad.npz"
    np.savez(bad, a=A, wrong=np.full((3, 4), np.inf))
    page = tmp_path / "r.html"
    assert spectrum(bad, "-o", page) == 1
    out = capsys.readouterr().out
    assert any(
        line.split() == ["wrong", "3", "x", "4", "not", "finite"] for line in out.splitlines()
    )
    assert "bad: 2 matrices; 1 not finite" in out
    assert page.is_file()


def test_outputs_are_not_replaced(model, tmp_path, refused, capsys):
    page, data = tmp_path / "r.html", tmp_path / "r.json"
    page.write_text("mine")
    data.write_text("mine")
    assert "replace it with --force" in refused(model, "-o", page)
    assert "replace it with --force" in refused(model, "--json", data)
    assert "no such directory" in refused(model, "-o", tmp_path / "none" / "r.html")
    assert "two names" in refused(model, "-o", page, "--json", page, "--force")
    assert spectrum(model, "-o", page, "--json", data, "--force") == 0
    assert "mine" not in page.read_text() + data.read_text()


def test_checkpoints_are_never_replaced(model, tmp_path, refused):
    link = tmp_path / "link.html"
    link.symlink_to(model)
    for target in (model, link):
        assert "is a checkpoint to read" in refused(model, "-o", target, "--force")


def test_files_that_cannot_be_used(model, tmp_path, refused):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(model.read_bytes()[:-10])
    page = tmp_path / "r.html"
    assert "truncated" in refused(cut, "-o", page)
    assert "truncated" in refused(model, cut, "-o", page)
    assert "no such file" in refused(tmp_path / "none.pt")
    assert "given twice" in refused(model, model)
    hostile = tmp_path / "hostile.pt"
    hostile.write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    refused(hostile, "-o", page)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all files")
def test_files_without_permission(model, refused):
    model.chmod(0)
    assert "Permission denied" in refused(model)


@pytest.mark.parametrize("columns", ["40", "300"])
def test_a_terminal_gets_colours_and_all_digits(model, capsys, monkeypatch, columns):
    bad = model.parent / "bad.npz"
    np.savez(bad, a=np.full((3, 4), np.nan), **{HOSTILE: B}, **{"[bold]b": A})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert spectrum(bad) == 1
    out, err = capsys.readouterr()
    assert err  # the bar
    out = re.sub(r"\x1b\[[\d;]*m", "", out)
    assert "\x1b" not in out
    assert "not finite" in out
    assert "[bold]b" in out
    for X in (A, B):
        expected = spectrum_of(X)
        for value in (expected.frobenius_norm, expected.effective_rank):
            assert f" {value:.4g} " in out
    if columns == "300":
        assert r"onerror=alert(1)>\x1b[31m" in out


def test_a_reader_that_leaves_keeps_the_report(model, tmp_path):
    page = tmp_path / "r.html"
    command = f"{sys.executable} -m trsvd spectrum {model} -o {page} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert page.is_file()
