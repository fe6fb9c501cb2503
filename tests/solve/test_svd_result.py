"""What a result can do: show itself, be multiplied out, be saved and loaded; values alone."""

from __future__ import annotations

import json
import os
import stat
import zipfile

import numpy as np
import pytest
import scipy.sparse

import trsvd
from trsvd import ConvergenceWarning, NotConverged, svds, svdvals

DTYPES = ["float32", "float64", "complex64", "complex128"]
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "complex64": 2.0**-23, "complex128": 2.0**-52}


@pytest.fixture
def host(spectrum_matrix, rng):
    """A function of a shape and a dtype: a host matrix with singular values 1, 1/2, 1/4, ..."""
    return lambda m, n, dtype="float64": spectrum_matrix(
        m, n, 0.5 ** np.arange(min(m, n)), dtype, rng
    )


# ---- repr -------------------------------------------------------------------------------


def test_a_result_is_shown_in_four_lines(backend):
    A = backend.asarray(np.diag(np.arange(9.0, 0, -1)))
    result = svds(A, 7)
    lines = repr(result).splitlines()
    assert lines[0].startswith("SVDResult(9 x 9, k = 7, float64): CONVERGED, largest residual ")
    assert lines[1:] == [
        "  S: 9, 8, 7, 6, 5, ...",
        "  completeness: exact",
        "  9 + 14 matvecs by Direct(route='auto')",
    ]
    assert str(result) == repr(result)
    assert repr(svds(A, 2)).splitlines()[1] == "  S: 9, 8"


def test_a_result_of_a_batch_is_shown(backend):
    A = np.diag([3.0, 2.0, 1.0]).astype("float32")
    result = svds(backend.asarray(np.stack([A, 2 * A, A, A, A, A]).reshape(2, 3, 3, 3)), 2)
    first, second, *rest = repr(result).splitlines()
    assert first.startswith("SVDResult(batch of 2 x 3 matrices, 3 x 3, k = 2, float32): CONVERGED")
    assert second == "  S: 3, 2 (first matrix)"
    assert len(rest) == 2


def test_a_result_without_values_is_shown():
    assert "S: none" in repr(trsvd.svds_above(np.eye(3), 2.0))
    assert "S: none" in repr(svds(np.zeros((0, 4, 3)), 2))


def test_a_result_that_did_not_converge_shows_why():
    A = np.random.default_rng(0).standard_normal((60, 50))
    with pytest.warns(ConvergenceWarning):
        result = svds(A, 5, max_matvecs=20, method="trlan", rng=0)
    assert "): MAX_MATVECS, largest residual" in repr(result)
    assert len(repr(result).splitlines()) == 4


def test_a_state_is_shown_in_a_line():
    state = svds(np.eye(40, 30), 2, method="trlan", rng=0).state
    assert repr(state).startswith("State(40 x 30, float64, iteration ")
    assert "\n" not in repr(state)


# ---- reconstruct ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (1, 5), (5, 1)])
def test_reconstruct(backend, dtype, shape, host):
    A = host(*shape, dtype)
    k = min(shape)
    X = svds(backend.asarray(A), k).reconstruct()
    assert backend.owns(X)
    assert X.dtype == backend.dtype(dtype)
    # All triplets: A itself, up to the backward error of an SVD, a small multiple of
    # max(m, n) eps ||A||, with ||A|| = 1.
    assert np.linalg.norm(backend.to_numpy(X) - A) <= 4 * max(shape) * EPS[dtype]


def test_reconstruct_leaves_the_next_value(backend, host):
    A = host(40, 30)
    error = backend.to_numpy(svds(backend.asarray(A), 4).reconstruct()) - A
    # Eckart-Young; sensitive to the vectors by their residuals (tol = 1.8e-12) over the gap 1/32.
    assert np.linalg.norm(error, 2) == pytest.approx(0.5**4, abs=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_reconstruct_batches(backend, dtype, host):
    A = np.stack([host(8, 6, dtype) for _ in range(6)]).reshape(2, 3, 8, 6)
    X = svds(backend.asarray(A), 6).reconstruct()
    assert backend.owns(X)
    assert X.dtype == backend.dtype(dtype)
    assert X.shape == A.shape
    assert abs(backend.to_numpy(X) - A).max() <= 32 * EPS[dtype]


def test_reconstruct_nothing(backend):
    X = trsvd.svds_above(backend.asarray(np.eye(4, 3)), 2.0).reconstruct()
    assert np.array_equal(backend.to_numpy(X), np.zeros((4, 3)))
    X = svds(backend.asarray(np.zeros((0, 4, 3))), 2).reconstruct()
    assert X.shape == (0, 4, 3)


def test_reconstruct_half_precision():
    A = np.diag([4.0, 2.0, 1.0]).astype("float16")
    X = svds(A, 2).reconstruct()
    assert X.dtype == np.float16
    assert np.array_equal(X, np.diag([4.0, 2.0, 0.0]))
    torch = pytest.importorskip("torch")
    B = torch.tensor(A).to(torch.bfloat16)
    X = svds(B, 2).reconstruct()
    assert X.dtype == torch.bfloat16
    assert X.float().tolist() == np.diag([4.0, 2.0, 0.0]).tolist()


def test_reconstruct_single_precision_under_autocast():
    torch = pytest.importorskip("torch")
    result = svds(torch.tensor(np.diag([1.0 + 2.0**-20, 0.5])).float(), 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        X = result.reconstruct()
    assert X.dtype == torch.float32
    assert float(X[0, 0]) == 1.0 + 2.0**-20


# ---- save and load ----------------------------------------------------------------------


def assert_same(loaded, result, backend, dtype):
    for name in ("U", "S", "Vh"):
        x, y = getattr(loaded, name), backend.to_numpy(getattr(result, name))
        assert type(x) is np.ndarray
        assert x.dtype == y.dtype
        assert np.array_equal(x, y)
    assert loaded.U.dtype == dtype
    assert np.array_equal(loaded.residuals, result.residuals)
    assert loaded.state is None
    assert loaded.method == str(result.method)
    same = ("converged", "status", "matvecs", "matvecs_verify", "passes", "iterations")
    for name in (*same, "completeness"):
        assert getattr(loaded, name) == getattr(result, name)
        assert type(getattr(loaded, name)) is type(getattr(result, name))
    assert repr(loaded) == repr(result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_comes_back(backend, dtype, host, tmp_path):
    A = backend.asarray(host(30, 20, dtype))
    result = svds(A, 3, method="trlan", rng=0)
    result.save(tmp_path / "result.npz")
    loaded = trsvd.load(str(tmp_path / "result.npz"))
    assert_same(loaded, result, backend, dtype)
    # A saved result can be started from.
    assert svds(backend.to_numpy(A), 3, start=loaded, method="trlan", rng=1).converged


def test_a_result_of_a_batch_comes_back(backend, host, tmp_path):
    result = svds(backend.asarray(np.stack([host(30, 20), host(30, 20)])), 3)
    result.save(tmp_path / "result.npz")
    assert_same(trsvd.load(tmp_path / "result.npz"), result, backend, "float64")


@pytest.mark.parametrize("verify", [True, False, 1e-2, "exact"])
@pytest.mark.parametrize("method", ["trlan", "rsvd", "krylov", "direct"])
def test_every_certificate_comes_back(numpy_backend, method, verify, host, tmp_path):
    result = svds(host(90, 80), 3, method=method, verify=verify, rng=0)
    result.save(tmp_path / "result.npz")
    assert_same(trsvd.load(tmp_path / "result.npz"), result, numpy_backend, "float64")


def test_a_failure_comes_back(numpy_backend, tmp_path):
    A = np.random.default_rng(0).standard_normal((60, 50))
    with pytest.warns(ConvergenceWarning):
        result = svds(A, 5, max_matvecs=20, method="trlan", rng=0)
    result.save(tmp_path / "result.npz")
    assert_same(trsvd.load(tmp_path / "result.npz"), result, numpy_backend, "float64")


def test_no_triplets_come_back(numpy_backend, tmp_path):
    result = trsvd.svds_above(np.eye(4, 3), 2.0)
    result.save(tmp_path / "result.npz")
    assert_same(trsvd.load(tmp_path / "result.npz"), result, numpy_backend, "float64")


def test_half_precision_comes_back(numpy_backend, tmp_path):
    path = tmp_path / "result.npz"
    result = svds(np.diag([4.0, 2.0, 1.0]).astype("float16"), 2)
    result.save(path)
    assert_same(trsvd.load(path), result, numpy_backend, "float16")
    torch = pytest.importorskip("torch")
    result = svds(torch.tensor(np.diag([4.0, 2.5, 1.0])).to(torch.bfloat16), 2)
    result.save(path)
    loaded = trsvd.load(path)
    for x, y in zip(loaded, result, strict=True):  # float32 holds the same numbers
        assert x.dtype == np.float32
        assert np.array_equal(x, y.float().numpy())
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(file["facts"].item())["dtype"] == "bfloat16"


def test_a_file_is_read_without_trsvd(tmp_path):
    svds(np.diag([3.0, 2.0, 1.0]), 2).save(tmp_path / "result.npz")
    with np.load(tmp_path / "result.npz", allow_pickle=False) as file:
        assert sorted(file) == ["S", "U", "Vh", "facts", "residuals"]
        facts = json.loads(file["facts"].item())
        assert np.array_equal(file["S"], [3, 2])
    assert facts == {
        "format": "trsvd.SVDResult",
        "layout": 1,
        "version": trsvd.__version__,
        "dtype": "float64",
        "shape": [3, 3],
        "status": "CONVERGED",
        "converged": True,
        "completeness": {"kind": "exact", "eta": 0.0, "failure_probability": 0.0, "slack": 0.0},
        "method": "Direct(route='auto')",
        "matvecs": 3,
        "matvecs_verify": 4,
        "passes": 1,
        "iterations": 1,
    }


def test_the_path_is_used_as_it_is(tmp_path, monkeypatch):
    result = svds(np.eye(3), 1)
    monkeypatch.chdir(tmp_path)
    result.save("no_suffix")
    assert os.listdir(tmp_path) == ["no_suffix"]
    assert trsvd.load("no_suffix").converged
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat("no_suffix").st_mode) == 0o666 & ~umask


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "target.npz", tmp_path / "link.npz"
    target.write_bytes(b"")
    link.symlink_to(target)
    svds(np.eye(3), 1).save(link)
    assert link.is_symlink()
    assert trsvd.load(target).converged


def test_a_file_is_replaced_when_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "result.npz"
    svds(np.diag([3.0, 2.0]), 1).save(path)
    old = path.read_bytes()

    def savez(file, **members):
        file.write(b"PK")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(OSError, match="no space"):
        svds(np.eye(3), 1).save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["result.npz"]
    with pytest.raises(FileNotFoundError):
        svds(np.eye(3), 1).save(tmp_path / "no_such_folder" / "result.npz")


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        trsvd.load(tmp_path / "result.npz")


class Harmful:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_is_unpickled(tmp_path):
    path, trace = tmp_path / "result.npz", tmp_path / "trace"
    svds(np.eye(3), 1).save(path)
    with np.load(path) as file:
        members = dict(file)
    for name in members:
        np.savez(path, **{**members, name: np.array([Harmful(trace)])})
        with pytest.raises(ValueError, match="not a file that SVDResult.save wrote"):
            trsvd.load(path)
    np.array([Harmful(trace)]).dump(path)
    with pytest.raises(ValueError, match="not a file that SVDResult.save wrote"):
        trsvd.load(path)
    assert not trace.exists()


def saved(tmp_path, **changes):
    """The path of a saved result of which members, or facts (a dict), are changed."""
    path = tmp_path / "result.npz"
    svds(np.diag([3.0, 2.0, 1.0]), 2).save(path)
    with np.load(path) as file:
        members = dict(file)
    if isinstance(changes.get("facts"), dict):
        facts = json.loads(members["facts"].item()) | changes["facts"]
        changes["facts"] = np.array(json.dumps(facts))
    members = {name: x for name, x in (members | changes).items() if x is not None}
    with open(path, "wb") as file:
        np.savez(file, **members)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"U": None},
        {"facts": None},
        {"residuals": None},
        {"facts": np.array("{")},
        {"facts": np.array("[]")},
        {"facts": np.array("{}")},
        {"facts": np.zeros(3)},
        {"facts": {"format": "another"}},
        {"facts": {"status": "NO_SUCH_STATUS"}},
        {"facts": {"matvecs": "many"}},
        {"facts": {"completeness": {"sort": "exact"}}},
        {"facts": {"completeness": None}},
        {"S": np.zeros(3)},
        {"S": np.array(["3", "2"])},
        {"U": np.zeros(3)},
        {"U": np.zeros((3, 1))},
        {"U": np.zeros((3, 2), np.float32)},
        {"Vh": np.zeros((2, 2, 3))},
        {"residuals": np.zeros(1)},
    ],
    ids=str,
)
def test_other_contents_are_refused(changes, tmp_path):
    path = saved(tmp_path, **changes)
    with pytest.raises(ValueError, match="result.npz is not a file that SVDResult.save wrote"):
        trsvd.load(path)


def test_a_newer_layout_is_refused_by_name(tmp_path):
    path = saved(tmp_path, facts={"layout": 2, "version": "9.0"})
    with pytest.raises(ValueError, match=r"by trsvd 9\.0 in layout 2; .* reads layout 1"):
        trsvd.load(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("text", "text")
    contents = [b"", b"text", b"PK\x03\x04", b"\x80\x04K\x01.", path.read_bytes()]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a file that SVDResult.save wrote"):
            trsvd.load(path)
    with open(path, "wb") as file:
        np.save(file, np.eye(3))
    with pytest.raises(ValueError, match="not a file that SVDResult.save wrote"):
        trsvd.load(path)


def test_damaged_files_are_refused_or_read_the_same(tmp_path, rng):
    path = tmp_path / "result.npz"
    result = svds(np.diag([3.0, 2.0, 1.0]), 2)
    result.save(path)
    good = path.read_bytes()
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="not a file that SVDResult.save wrote"):
            trsvd.load(path)
    for place in rng.integers(len(good), size=300):
        damaged = bytearray(good)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = trsvd.load(path)
        except ValueError:
            continue
        # Bytes that do not count, such as dates; contents have a checksum.
        assert np.array_equal(loaded.S, result.S)
        assert np.array_equal(loaded.U, result.U)


# ---- values alone -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 4])
def test_values(backend, dtype, k, host):
    S = svdvals(backend.asarray(host(40, 30, dtype)), k, rng=0)
    assert backend.owns(S)
    assert S.dtype == backend.dtype(np.zeros(0, dtype).real.dtype.name)
    # The residuals are at most tol = eps**0.75, and so are the errors.
    assert abs(backend.to_numpy(S) - 0.5 ** np.arange(k)).max() <= EPS[dtype] ** 0.75


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 20, 10), (2, 150, 140), (0, 4, 3)])
def test_values_of_batches(backend, k, shape, rng):
    A = rng.standard_normal(shape)
    S = svdvals(backend.asarray(A), k, rng=0)
    assert backend.owns(S)
    assert S.shape == (*shape[:-2], k)
    exact = np.linalg.svd(A, compute_uv=False)[..., :k]
    assert abs(backend.to_numpy(S) - exact).max(initial=0.0) <= 1e-10


def test_values_of_sparse_matrices_and_operators(rng):
    A = scipy.sparse.random_array((300, 200), density=0.1, rng=rng)
    exact = np.linalg.svd(A.toarray(), compute_uv=False)[:3]
    for matrix in (A, A.tocsc(), trsvd.operators.SumOperator(A)):
        assert np.allclose(svdvals(matrix, 3), exact, rtol=1e-12)
    centred = trsvd.operators.CenteredOperator(A)
    X = A.toarray() - A.toarray().mean(axis=0)
    assert np.allclose(svdvals(centred, 3), np.linalg.svd(X, compute_uv=False)[:3], rtol=1e-12)


def test_values_of_half_precision():
    S = svdvals(np.diag([4.0, 2.0, 1.0]).astype("float16"), 2)
    assert S.dtype == np.float16
    assert S.tolist() == [4, 2]
    torch = pytest.importorskip("torch")
    S = svdvals(torch.diag(torch.tensor([4.0, 2.0, 1.0])).to(torch.bfloat16), 2)
    assert S.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="exceeds the range of float16"):
        svdvals(np.full((4, 4), 6e4, "float16"), 2)


@pytest.mark.parametrize("shape", [(700, 600), (600, 700)])
def test_values_look_for_copies(shape, rng):
    """Above 2^18 entries Lanczos is used, which meets one copy of a multiple value at first."""
    s = np.concatenate([[2.0, 1.0, 1.0, 1.0, 1.0], 0.9 * 0.99 ** np.arange(200)])
    Q = [np.linalg.qr(rng.standard_normal((n, len(s))))[0] for n in shape]
    A = scipy.sparse.csr_array(Q[0] * s @ Q[1].T)
    assert np.allclose(svdvals(A, 5, rng=0), s[:5], rtol=1e-10)
    assert np.allclose(svdvals(A, 5, rng=0, method="trlan", verify="exact"), s[:5], rtol=1e-10)


def test_values_that_miss_the_tolerance_warn_with_advice_that_works():
    A = np.random.default_rng(0).standard_normal((60, 50))
    with pytest.warns(
        ConvergenceWarning, match=r"k = 5 largest.*20 products\); raise tol"
    ) as found:
        S = svdvals(A, 5, max_matvecs=20, method="trlan", rng=0)
    assert found[0].filename == __file__
    assert "state=" not in str(found[0].message)
    assert S.shape == (5,)
    with pytest.raises(NotConverged) as failure:
        svdvals(A, 5, max_matvecs=20, method="trlan", rng=0, on_failure="raise")
    assert np.array_equal(failure.value.result.S, S)
    with pytest.warns(ConvergenceWarning, match="k = 5 largest"):
        S = svdvals(np.stack([A, A]), 5, max_matvecs=20, method="trlan", rng=0)
    assert S.shape == (2, 5)
    # What is advised.
    exact = np.linalg.svd(A, compute_uv=False)[:5]
    assert np.allclose(svdvals(A, 5, method="direct"), exact)
    svdvals(A, 5, max_matvecs=20, method="trlan", rng=0, tol=0.9)


def test_values_take_the_options_of_svds(rng):
    A = rng.standard_normal((60, 50))
    steps = []
    S = svdvals(A, 3, method="trlan", callback=steps.append, rng=0)
    assert steps
    earlier = svds(A, 3, rng=0)
    again = svdvals(A, 3, method="trlan", start=earlier, tol=1e-8, rng=0, verify=False)
    assert np.allclose(S, again)
    assert np.array_equal(svdvals(A, 3, method="trlan", rng=0, verify=1e-3), S)


@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5), (700, 600)])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"k": 0}, ValueError, "k=0"),
        ({"k": 10_000}, ValueError, "k=10000"),
        ({"k": 1.5}, TypeError, "k=1.5"),
        ({"k": "2"}, TypeError, "k='2'"),
        ({"tol": 2.0}, ValueError, "tol=2"),
        ({"rng": "seed"}, TypeError, "rng='seed'"),
        ({"on_failure": "ignore"}, ValueError, "on_failure='ignore'"),
        ({"verify": "all"}, ValueError, "verify='all'"),
        ({"method": "fast"}, ValueError, "fast"),
        ({"max_matvecs": 0}, ValueError, "max_matvecs=0"),
        ({"callback": 1}, TypeError, "callback"),
        ({"start": "left"}, TypeError, "start"),
    ],
    ids=str,
)
def test_values_check_their_arguments(shape, options, error, text):
    A = np.ones(shape)
    with pytest.raises(error, match=text):
        svdvals(A, **{"k": 2, **options})


def test_values_refuse_what_is_not_finite():
    for k in (1, 2):
        with pytest.raises(ValueError, match="NaN or inf"):
            svdvals(np.diag([1.0, np.nan, 1.0]), k)
    with pytest.raises(TypeError, match="no_such_option"):
        svdvals(np.eye(3), 2, no_such_option=1)
    with pytest.raises(TypeError, match="state"):
        svdvals(np.eye(3), 2, state=None)
