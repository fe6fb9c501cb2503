"""The commands svd, which and completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import scipy.sparse

import trsvd
from trsvd import cli
from trsvd.cli.matrix_files import MatrixFileError, read_matrix
from trsvd.testing import SPECTRA, matrix_with_spectrum

S = SPECTRA["geometric"](30)
A = matrix_with_spectrum(40, 30, S, rng=0)
# Values to ten digits are printed; the residuals are at most 1.8e-12.
DIGITS = 1e-9


@pytest.fixture
def folder(tmp_path):
    """The matrix in every format."""
    from safetensors.numpy import save_file

    np.save(tmp_path / "A.npy", A)
    np.savez(tmp_path / "one.npz", weights=A, bias=np.ones(3))
    np.savez(tmp_path / "two.npz", weights=A, other=2 * A)
    scipy.sparse.save_npz(tmp_path / "sparse.npz", scipy.sparse.csr_array(A))
    scipy.io.mmwrite(tmp_path / "A.mtx", scipy.sparse.csr_array(A), precision=17)
    np.savetxt(tmp_path / "plain.csv", A, delimiter=",", fmt="%.17g")
    header = ",".join(f"x{i}" for i in range(30))
    np.savetxt(tmp_path / "header.csv", A, delimiter=",", header=header, comments="", fmt="%.17g")
    np.savetxt(tmp_path / "semicolon.csv", A, delimiter=";", fmt="%.17g")
    save_file({"w": A, "b": np.ones(3)}, tmp_path / "A.safetensors")
    return tmp_path


FILES = [
    "A.npy",
    "one.npz",
    "two.npz:weights",
    "sparse.npz",
    "A.mtx",
    "plain.csv",
    "header.csv",
    "semicolon.csv",
    "A.safetensors",
    "A.safetensors:w",
]


def run(capsys, *argv):
    code = cli.main([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


@pytest.mark.parametrize("name", FILES)
def test_values_of_every_format(name, folder, capsys):
    code, out, err = run(capsys, "svd", folder / name, "-k", 4)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "40 x 30, float64" in lines[0]
    values = [float(line.split()[1]) for line in lines[2:6]]
    np.testing.assert_allclose(values, S[:4], rtol=DIGITS)
    assert "converged: every residual" in lines[6]
    assert lines[7] == "check for missed values: exact"


def test_torch_files(folder, capsys):
    torch = pytest.importorskip("torch")
    torch.save({"layer": {"w": torch.tensor(A)}, "step": 3}, folder / "one.pt")
    half = torch.tensor(A).to(torch.bfloat16)
    torch.save({"a": half, "b": torch.tensor(A)}, folder / "two.pth")
    code, out, _ = run(capsys, "svd", folder / "one.pt", "-k", 2)
    assert code == 0
    assert "float64" in out
    np.testing.assert_array_equal(read_matrix(f"{folder}/two.pth:a"), half.float().numpy())
    with pytest.raises(MatrixFileError, match=r"two.pth:NAME.*a \(40 x 30\), b \(40 x 30\)"):
        read_matrix(folder / "two.pth")


def test_torch_files_run_no_code(folder, capsys):
    torch = pytest.importorskip("torch")

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(folder / "broken"),)

    torch.save({"w": torch.tensor(A), "x": Hostile()}, folder / "hostile.pt")
    code, out, err = run(capsys, "svd", folder / "hostile.pt", "-k", 2)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert not (folder / "broken").exists()


def test_the_result_is_written_and_can_be_loaded(folder, capsys):
    path = folder / "out.npz"
    code, out, _ = run(capsys, "svd", folder / "A.npy", "-k", 3, "-o", path, "--seed", 5)
    assert code == 0
    assert str(path) in out
    result = trsvd.load(path)
    again = trsvd.svds(A, 3, rng=5)
    np.testing.assert_array_equal(result.U, again.U)
    np.testing.assert_array_equal(result.Vh, again.Vh)
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_nothing_is_overwritten_without_force(folder, capsys, monkeypatch):
    path = folder / "out.npz"
    path.write_text("mine")
    monkeypatch.setattr(trsvd, "svds", lambda *_, **__: pytest.fail("computed before the check"))
    for option in ("-o", "--json"):
        code, out, err = run(capsys, "svd", folder / "A.npy", "-k", 3, option, path)
        assert (code, out) == (2, "")
        assert "exists already; pass --force" in err
    assert path.read_text() == "mine"
    monkeypatch.undo()
    assert run(capsys, "svd", folder / "A.npy", "-k", 3, "-o", path, "--force")[0] == 0
    assert trsvd.load(path).S.shape == (3,)


def test_an_interrupted_write_leaves_the_old_file(folder, capsys, monkeypatch):
    path = folder / "out.npz"
    path.write_text("mine")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    code, _, err = run(capsys, "svd", folder / "A.npy", "-k", 3, "-o", path, "--force")
    assert code == 130
    assert "interrupted" in err
    assert path.read_text() == "mine"
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]


def test_json_on_standard_output_is_all_there_is(folder, capsys):
    code, out, err = run(capsys, "svd", folder / "A.npy", "-k", 3, "--json", "-")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    np.testing.assert_allclose(facts["singular_values"], S[:3], rtol=1e-11)
    assert facts["converged"] is True
    assert facts["status"] == "CONVERGED"
    assert facts["shape"] == [40, 30]
    assert max(facts["residuals"]) <= 1.8e-12
    path = folder / "facts.json"
    assert run(capsys, "svd", folder / "A.npy", "-k", 3, "--json", path)[0] == 0
    assert json.loads(path.read_text()) == facts
    assert not (folder / "-").exists()


def test_a_missed_target_is_an_exit_status_and_the_best_is_kept(folder, capsys):
    """1e-17 is below the rounding level of float64."""
    path = folder / "out.npz"
    code, out, err = run(
        capsys, "svd", folder / "A.npy", "-k", 2, "--tol", "1e-17", "-o", path, "--method", "trlan"
    )
    assert code == 1
    assert err.startswith("trsvd svd: target missed: ")
    assert len(err.splitlines()) == 1
    np.testing.assert_allclose(trsvd.load(path).S, S[:2], rtol=1e-12)
    assert not trsvd.load(path).converged
    assert f"{S[0]:.10g}" in out


def test_centred_columns(folder, capsys):
    code, out, _ = run(capsys, "svd", folder / "sparse.npz", "-k", 2, "--centre", "--json", "-")
    truth = np.linalg.svd(A - A.mean(axis=0), compute_uv=False)[:2]
    assert code == 0
    np.testing.assert_allclose(json.loads(out)["singular_values"], truth, rtol=1e-10)


def test_options_reach_svds(folder, capsys):
    for verify, kind in (("exact", "exact"), ("no", "unchecked"), ("0.01", "probable")):
        _, out, _ = run(
            capsys,
            *("svd", folder / "A.npy", "-k", 2, "--method", "trlan"),
            *("--verify", verify, "--json", "-"),
        )
        facts = json.loads(out)
        assert facts["method"].startswith("ThickRestartLanczos")
        assert facts["certificate"].startswith(kind) or kind == "probable"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["A.npy", "-k", "31"], "min(m, n) = 30"),
        (["A.npy", "-k", "2", "--method", "nonsense"], "'nonsense' is not known"),
        (["none.npy", "-k", "2"], "no such file"),
        (["A.npy:w", "-k", "2"], "are not known"),
        (["two.npz", "-k", "2"], "other (40 x 30), weights (40 x 30)"),
        (["one.npz:bias", "-k", "2"], "two dimensions"),
        (["one.npz:none", "-k", "2"], "has no array 'none'"),
        (["A.npy", "-k", "2", "--tensor", "w"], "can be named in .npz"),
        (["A.npy", "-k", "2", "-o", "none/out.npz"], "no such directory"),
    ],
)
def test_usage_errors_are_one_line(argv, message, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    code, out, err = run(capsys, "svd", *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("text", ["1,2\n3\n", "1,x\n3,4,5\n", "a,b\nc,d\n", ""])
def test_csv_files_that_are_no_matrix(text, tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    code, out, err = run(capsys, "svd", path, "-k", 1)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_an_index_column_is_not_taken_for_data(tmp_path, capsys):
    path = tmp_path / "index.csv"
    path.write_text(",x,y\n0,1,2\n1,3,4\n")
    code, out, err = run(capsys, "svd", path, "-k", 1)
    assert (code, out) == (2, "")
    assert "index=False" in err


def test_half_precision_is_computed_and_returned_in_single(tmp_path, capsys):
    np.save(tmp_path / "half.npy", A.astype(np.float16))
    code, out, _ = run(capsys, "svd", tmp_path / "half.npy", "-k", 2, "--json", "-")
    facts = json.loads(out)
    truth = np.linalg.svd(A.astype(np.float16).astype(float), compute_uv=False)[:2]
    assert code == 0
    assert facts["dtype"] == "float16"
    np.testing.assert_allclose(facts["singular_values"], truth, rtol=1e-5)


def test_an_array_called_format_is_no_sparse_matrix(tmp_path):
    np.savez(tmp_path / "a.npz", format=A)
    np.testing.assert_array_equal(read_matrix(tmp_path / "a.npz"), A)


def test_matrices_with_nan_are_refused(tmp_path, capsys):
    B = A.copy()
    B[3, 4] = np.nan
    np.save(tmp_path / "bad.npy", B)
    code, _, err = run(capsys, "svd", tmp_path / "bad.npy", "-k", 1)
    assert code == 2
    assert "NaN or inf" in err


def test_which(folder, capsys):
    code, out, err = run(capsys, "which", folder / "A.npy", "-k", 3)
    chosen = trsvd.select_method(A, 3)
    assert (code, err) == (0, "")
    assert out == f"method: {chosen.method}\nreason: {chosen.reason}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(shell, capsys):
    pytest.importorskip("shtab")
    code, out, _ = run(capsys, "completion", shell)
    assert code == 0
    assert "trsvd" in out
    assert "--centre" in out


def test_completion_without_shtab(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, err = run(capsys, "completion", "bash")
    assert code == 2
    assert "pip install shtab" in err


def test_piped_output_is_plain(folder):
    out = subprocess.run(
        [sys.executable, "-m", "trsvd", "svd", folder / "A.npy", "-k", "2"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "\x1b" not in out
    assert len(out.splitlines()) == 7


def test_in_a_terminal_it_is_a_table(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, _ = run(capsys, "svd", folder / "A.npy", "-k", 2)
    assert code == 0
    assert f"{S[0]:.10g}" in out
