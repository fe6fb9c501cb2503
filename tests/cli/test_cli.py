"""The command line: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import pickle
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import scipy.sparse

import trsvd
from trsvd import cli, table
from trsvd.cli.matrix_files import MatrixFileError, read_matrix
from trsvd.testing import SPECTRA, matrix_with_spectrum

SMALL = ["table", "--sizes", "60x40", "--k", "3", "--repeats", "1"]
ANY = matrix_with_spectrum(12, 9, SPECTRA["geometric"](9), rng=0)


@pytest.fixture
def refused(capsys):
    """Run a command that must end with 2 and one line on stderr; that line."""

    def run(*argv):
        assert cli.main([str(argument) for argument in argv]) == 2
        out, err = capsys.readouterr()
        assert out == "" or "left out" in out
        lines = [line for line in err.splitlines() if "error" in line]
        assert len(lines) == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        return lines[0]

    return run


# ---- the table ------------------------------------------------------------------------------


def test_table_prints_and_writes(capsys, tmp_path):
    path = tmp_path / "out.json"
    assert cli.main([*SMALL, "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    rows = json.loads(path.read_text())["rows"]
    assert [row["method"] for row in rows] == list(table.NAMES)
    for row in rows:
        line = next(line for line in out.splitlines() if line.startswith(row["method"]))
        assert line.split()[2:5] == [
            str(row["matvecs"]),
            str(row["iterations"]),
            f"{row['err1']:.2e}",
        ]
        assert row["method"] in err
        assert row["err1"] < 1e-2
        assert (row["size"], row["seed"]) == ([60, 40], 56)
    assert "\x1b" not in out + err


def test_one_method_alone(capsys):
    assert cli.main([*SMALL, "--methods", "trlan"]) == 0
    out = capsys.readouterr().out
    assert "trlan" in out
    assert not re.search("rsvd|power|newton", out)


def test_seeds_draw_matrix_and_start(capsys, tmp_path):
    path = tmp_path / "out.json"
    assert cli.main([*SMALL, "--methods", "trlan", "--seed", "1", "2", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["seed"] for row in rows] == [1, 2]
    for row in rows:
        case = table.Case("gaussian", table.gaussian(60, 40, row["seed"]))
        [expected] = table.compare(case, 3, ["trlan"], seed=row["seed"], repeats=1)
        assert row["matvecs"] == expected.matvecs
        assert row["err1"] == pytest.approx(expected.err1, rel=1e-6)
    median = np.median([row["matvecs"] for row in rows])
    assert f"2 seeds: {median:g} matvecs" in capsys.readouterr().out


def test_options_reach_the_methods(capsys, tmp_path):
    path = tmp_path / "out.json"
    options = ["--methods", "trlan", "--basis-size", "17", "--target", "1e-6", "--repeats", "3"]
    assert cli.main([*SMALL, *options, "--json", str(path)]) == 0
    [row] = json.loads(path.read_text())["rows"]
    assert "basis_size=17" in row["options"]
    assert row["err1"] < row["target"] == 1e-6
    assert len(row["times"]) == 3


def test_the_paper_stands_beside_its_cases(capsys):
    argv = ["table", "--sizes", "500", "--k", "5", "--methods", "trlan,rsvd", "--repeats", "1"]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert re.search(r"^trlan .* \| 0\.018 +131 +65 +9\.6e-05 +9\.4e-05$", out, re.M)
    assert re.search(r"^rsvd .* \| 0\.017 +1170 +38 +9\.8e-03 +9\.6e-03$", out, re.M)


def test_the_shipped_matrix_has_a_name(capsys):
    assert cli.main(["table", "--matrix", "momentum", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert "256 x 256, k = 5, float32" in out
    assert "newton-schulz left out: the rank is" in out


def test_large_matrices_leave_out_full_decompositions(capsys, monkeypatch):
    monkeypatch.setattr(table, "LARGE", 30)
    assert cli.main([*SMALL]) == 0
    out = capsys.readouterr().out
    assert "direct is left out" in out
    assert "newton-schulz is left out" in out
    assert not re.search("^(direct|newton)", out, re.M) or "k = 3: direct" not in out
    assert cli.main([*SMALL, "--methods", "direct,newton-schulz"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^newton-schulz +\S+ +\d+", out, re.M)
    assert re.search(r"^direct +\S+ +40 ", out, re.M)


def test_what_was_not_reached_is_said(capsys, tmp_path):
    path = tmp_path / "A.npy"
    np.save(path, ANY.astype(np.float32))
    argv = ["table", "--matrix", str(path), "--methods", "trlan", "--target", "1e-14"]
    assert cli.main(argv) == 1
    assert "missed the target 1e-14" in capsys.readouterr().out


def test_the_table_explains_itself(capsys):
    assert cli.main(["table", "--sizes", "500", "--k", "5", "--methods", "trlan,rsvd"]) == 0
    out = capsys.readouterr().out
    assert "arXiv:2512.09678" in out
    assert "stopped its methods at about err1 < 1e-2" in out
    assert re.search(r"^Result: On gaussian 500 x 500, k = 5, trlan needs the fewest", out, re.M)


def test_json_on_standard_output_is_all_there_is(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*SMALL, "--methods", "trlan,rsvd", "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["method"] for row in rows] == ["trlan", "rsvd"]
    assert not list(tmp_path.iterdir())


def test_plot(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert cli.main([*SMALL, "--methods", "trlan,rsvd", "--plot", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_plot_without_matplotlib(refused, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install matplotlib" in refused(*SMALL, "--plot", tmp_path / "a.png")


@pytest.mark.parametrize("columns", [20, 300])
def test_on_a_terminal_it_is_rich(columns, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main([*SMALL, "--methods", "trlan"]) == 0
    out = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert re.search(r"trlan +\S+ +\d+ +\d+ +\d\.\d\de-\d\d +\d\.\d\de-\d\d", out)


# ---- help, and running it ---------------------------------------------------------------------


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"trsvd {trsvd.__version__}\n"


def test_help(capsys):
    for argv in (["--help"], ["table", "--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(argv)
        assert ended.value.code == 0
    out = capsys.readouterr().out
    options = (
        "sizes matrix tensor k seed methods target repeats basis-size backend device json plot"
    )
    for option in [*options.split(), "plot"]:
        assert f"--{option}" in out
    for name in table.NAMES:
        assert name in out


def test_no_command(capsys):
    assert cli.main([]) == 2
    assert "table" in capsys.readouterr().err


def test_as_a_module():
    argv = [sys.executable, "-W", "error", "-m", "trsvd", *SMALL, "--methods", "rsvd"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "rsvd" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_interrupted(capsys, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(table, "compare", interrupt)
    assert cli.main(SMALL) == 130
    assert "interrupted" in capsys.readouterr().err


def test_whoever_reads_may_leave(capfd, monkeypatch):
    """As `trsvd ... | head`: no traceback, and nothing more at exit."""

    def gone(*args, **options):
        raise BrokenPipeError

    monkeypatch.setattr(table, "compare", gone)
    kept = os.dup(sys.__stdout__.fileno())
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    try:
        assert cli.main(SMALL) == 1
        os.write(sys.__stdout__.fileno(), b"lost")
    finally:
        os.dup2(kept, sys.__stdout__.fileno())
        os.close(kept)
    out, err = capfd.readouterr()
    assert "lost" not in out
    assert err == ""


def test_the_module_runs_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["trsvd", "reliability", "--cases", "no such case"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("trsvd", run_name="__main__")
    assert ended.value.code == 2
    assert "main" in runpy.run_module("trsvd.__main__", run_name="imported")


def test_a_matrix_that_cannot_be_drawn(capsys, monkeypatch):
    def too_much(*args):
        raise MemoryError("Unable to allocate 7 PiB")

    monkeypatch.setattr(table, "gaussian", too_much)
    assert cli.main(SMALL) == 2
    assert "error: no Gaussian matrix of shape (60, 40): Unable" in capsys.readouterr().err


def test_a_device_that_is_not_there(refused):
    pytest.importorskip("torch")
    line = refused(*SMALL, "--backend", "torch", "--device", "nonsense")
    assert "cannot hold the matrix" in line
    assert "nonsense" in line


def test_irreproducible(capsys, monkeypatch):
    def differ(*args, **options):
        raise table.Irreproducible("not the same")

    monkeypatch.setattr(table, "compare", differ)
    assert cli.main(SMALL) == 1
    assert "not the same" in capsys.readouterr().err


# ---- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["table", "--sizes", "0"],
        ["table", "--sizes", "3x4x5"],
        ["table", "--sizes", "many"],
        ["table", "--k", "0"],
        ["table", "--k", "1.5"],
        ["table", "--seed", "-1"],
        ["table", "--target", "0"],
        ["table", "--target", "2"],
        ["table", "--target", "nan"],
        ["table", "--target", "small"],
        ["table", "--methods", "trlan,nonsense"],
        ["table", "--methods", ""],
        ["table", "--backend", "jax"],
        ["table", "--repeats", "0"],
        ["table", "--nonsense"],
    ],
)
def test_usage(capsys, argv):
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err


def test_k_out_of_range(refused):
    assert "min(m, n) = 40" in refused("table", "--sizes", "60x40", "--k", "41")


def test_basis_too_small(refused):
    assert "basis_size=3" in refused(*SMALL, "--basis-size", "3")


def test_outputs_that_cannot_be_written(refused, tmp_path):
    assert "no such directory" in refused(*SMALL, "--json", tmp_path / "none" / "a.json")
    assert "directory" in refused(*SMALL, "--json", tmp_path)
    assert "png" in refused(*SMALL, "--plot", tmp_path / "a.nonsense")


def test_matrix_without_gap(refused, tmp_path):
    np.save(tmp_path / "eye.npy", np.eye(12))
    assert "s_5 = s_6" in refused("table", "--matrix", tmp_path / "eye.npy", "--methods", "rsvd")
    np.save(tmp_path / "zero.npy", np.zeros((12, 9)))
    assert "rank is 0" in refused("table", "--matrix", tmp_path / "zero.npy")


def test_matrix_that_is_not_finite(refused, tmp_path):
    for bad in (np.nan, np.inf):
        A = ANY.copy()
        A[3, 4] = bad
        np.save(tmp_path / "bad.npy", A)
        assert "NaN or inf" in refused("table", "--matrix", tmp_path / "bad.npy")


def test_missing_backend(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "not installed" in refused(*SMALL, "--backend", "cupy")


# ---- files --------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """The same matrix in every format, by name."""
    from safetensors.numpy import save_file

    sparse = scipy.sparse.csr_array(ANY)
    np.save(tmp_path / "A.npy", ANY)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(ANY))
    np.save(tmp_path / "swapped.npy", ANY.astype(">f8"))
    scipy.sparse.save_npz(tmp_path / "A.npz", sparse)
    scipy.sparse.save_npz(tmp_path / "coo.npz", scipy.sparse.coo_matrix(ANY))
    scipy.io.mmwrite(tmp_path / "A.mtx", sparse, precision=17)
    scipy.io.mmwrite(tmp_path / "dense.mtx", ANY, precision=17)
    save_file({"w": ANY, "b": np.ones(3)}, tmp_path / "A.safetensors")
    return {path.name: path for path in tmp_path.iterdir()}


DENSE = ["A.npy", "fortran.npy", "swapped.npy", "dense.mtx", "A.safetensors"]
SPARSE = ["A.npz", "coo.npz", "A.mtx"]


@pytest.mark.parametrize("name", [*DENSE, *SPARSE])
def test_formats(files, name):
    A = read_matrix(files[name])
    dense = A.toarray() if scipy.sparse.issparse(A) else A
    np.testing.assert_array_equal(dense, ANY)
    assert scipy.sparse.issparse(A) == (name in SPARSE)
    assert A.dtype.isnative


def test_npy_is_mapped_and_not_read(files):
    assert isinstance(read_matrix(files["A.npy"]), np.memmap)


def test_tensors_by_name(files):
    for source, tensor in ((f"{files['A.safetensors']}:w", None), (files["A.safetensors"], "w")):
        np.testing.assert_array_equal(read_matrix(source, tensor), ANY)


def test_bfloat16_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    half = torch.asarray(ANY).to(torch.bfloat16)
    save_file({"other": torch.ones(7), "w": half}, tmp_path / "A.safetensors")
    A = read_matrix(tmp_path / "A.safetensors")
    assert A.dtype == np.float32
    np.testing.assert_array_equal(A, half.to(torch.float32).numpy())


@pytest.mark.parametrize("name", ["A.npy", "A.npz", "A.mtx", "A.safetensors"])
def test_table_of_a_file(files, name, capsys):
    assert cli.main(["table", "--matrix", str(files[name]), "--k", "2", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{name}, 12 x 9, k = 2, float64", out, re.M)
    assert len(re.findall(r"^(trlan|rsvd|power|krylov|direct) ", out, re.M)) == 5


def test_sparse_through_the_command_line_leaves_out_newton_schulz(files, capsys):
    assert cli.main(["table", "--matrix", str(files["A.npz"]), "--repeats", "1"]) == 0
    assert "newton-schulz left out: newton-schulz needs a dense" in capsys.readouterr().out


class Forbidden:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def _damaged(path):
    """Files that cannot be read, and what the message must have."""
    whole = path / "whole.npy"
    np.save(whole, ANY)
    data = whole.read_bytes()

    def write(name, content):
        (path / name).write_bytes(content)
        return name

    np.save(path / "objects.npy", np.array([[Forbidden()]]), allow_pickle=True)
    yield "objects.npy", "never unpickled"
    np.save(path / "cube.npy", np.ones((2, 3, 4)))
    yield "cube.npy", "two dimensions"
    np.save(path / "vector.npy", np.ones(3))
    yield "vector.npy", "two dimensions"
    np.save(path / "empty.npy", np.ones((0, 3)))
    yield "empty.npy", "two dimensions"
    np.save(path / "text.npy", np.array([["a", "b"]]))
    yield "text.npy", "does not support"
    np.save(path / "dates.npy", np.array([["2020-01-01"]], dtype="M8[D]"))
    yield "dates.npy", "does not support"
    np.savez(path / "dense.npz", A=ANY, B=ANY)
    yield "dense.npz", "A (12 x 9), B (12 x 9)"
    with (path / "pickle.npy").open("wb") as file:
        pickle.dump(Forbidden, file)
    yield "pickle.npy", "cannot be read"
    yield write("truncated.npy", data[: len(data) // 2]), "cannot be read"
    yield write("header.npy", data[:20]), "cannot be read"
    yield write("nothing.npy", b""), "empty"
    yield write("nothing.npz", b""), "cannot be read"
    yield write("noise.npz", b"PK\x03\x04 noise"), "cannot be read"
    yield write("noise.mtx", b"noise\n1 2 3\n"), "cannot be read"
    yield write("short.mtx", b"%%MatrixMarket matrix coordinate real general\n3 3 2\n1 1 1\n"), ""
    yield write("nothing.mtx", b""), "cannot be read"
    yield write("noise.safetensors", b"\xff" * 40), "cannot be read"
    yield write("nothing.safetensors", b""), "cannot be read"
    yield write("A.txt", b"1 2"), ".safetensors"
    yield "missing.npy", "no such file"
    (path / "folder.npy").mkdir()
    yield "folder.npy", "not a file"


def test_damaged_files(refused, tmp_path):
    for name, message in _damaged(tmp_path):
        line = refused("table", "--matrix", tmp_path / name)
        assert name in line
        assert message in line


def test_truncated_safetensors(refused, files):
    path = files["A.safetensors"]
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read" in refused("table", "--matrix", path)


def test_unknown_tensors(refused, files):
    path = files["A.safetensors"]
    line = refused("table", "--matrix", f"{path}:nonsense")
    assert "'nonsense'; it has b (3), w (12 x 9)" in line
    assert "two dimensions" in refused("table", "--matrix", path, "--tensor", "b")
    assert "can be named" in refused("table", "--matrix", files["A.npy"], "--tensor", "w")
    with pytest.raises(MatrixFileError, match="two arrays"):
        read_matrix(f"{path}:w", "b")


def test_several_matrices_need_a_name(tmp_path, refused):
    from safetensors.numpy import save_file

    save_file({"u": ANY, "v": ANY}, tmp_path / "A.safetensors")
    assert "u (12 x 9), v (12 x 9)" in refused("table", "--matrix", tmp_path / "A.safetensors")


def test_unsupported_tensors(tmp_path, refused):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file({"w": torch.ones(3, 3).to(torch.float8_e4m3fn)}, tmp_path / "A.safetensors")
    assert "F8_E4M3" in refused("table", "--matrix", tmp_path / "A.safetensors")
