"""Sparse tensors of PyTorch are matrices: of every layout, on their device, never made dense.

Values are compared to a full SVD: each is within its residual, ``tol`` s_1, and rounding.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import trsvd
import trsvd.compat
from trsvd import norms
from trsvd._arrays.arrays import is_array
from trsvd._arrays.dtypes import is_sparse
from trsvd.operators.products import as_operator

torch = pytest.importorskip("torch")
# torch warns once a process of compressed layouts, and of tensors that are not checked.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse .* tensor support:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
]

M, N = 96, 80  # more than 64: a dense factorization is not chosen
LAYOUTS = ["sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "uncoalesced"]
TOL = {"float32": 1e-5, "float64": 1e-10, "complex64": 1e-5, "complex128": 1e-10}


def dense(dtype: str = "float64", m: int = M, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(0)
    parts = [scipy.sparse.random_array((m, n), density=0.1, rng=rng).toarray() for _ in range(2)]
    return (parts[0] + 1j * parts[1] if dtype.startswith("complex") else parts[0]).astype(dtype)


def tensor(A: np.ndarray, layout: str) -> Any:
    T = torch.asarray(A)
    if layout == "uncoalesced":  # each entry in two parts
        rows, columns = np.nonzero(A)
        twice = torch.asarray(np.stack([np.tile(rows, 2), np.tile(columns, 2)]))
        parts = torch.asarray(np.concatenate([0.25 * A[rows, columns], 0.75 * A[rows, columns]]))
        return torch.sparse_coo_tensor(twice, parts.to(T.dtype), A.shape)
    blocks = {"blocksize": (2, 4)} if layout in {"sparse_bsr", "sparse_bsc"} else {}
    return T.to_sparse(layout=getattr(torch, layout), **blocks)


@pytest.fixture
def never_dense(monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("made dense")

    monkeypatch.setattr(torch.Tensor, "to_dense", refuse)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinds(layout):
    A = tensor(dense(), layout)
    assert is_sparse(A)
    assert not is_array(A)
    assert not is_sparse(torch.eye(2))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", TOL)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_svds(layout, dtype, wide, never_dense):
    A = dense(dtype).T if wide else dense(dtype)
    T = tensor(np.ascontiguousarray(A), layout)
    result = trsvd.svds(T, 3, rng=0)
    tol, S = TOL[dtype], np.linalg.svd(A, compute_uv=False)
    U, V = result.U.numpy(), result.Vh.numpy().conj().T
    assert result.converged
    assert result.U.device == T.device
    assert str(result.U.dtype) == f"torch.{dtype}"
    assert np.abs(result.S.numpy() - S[:3]).max() <= tol * S[0]
    assert np.linalg.norm(A @ V - U * result.S.numpy(), axis=0).max() <= 2 * tol * S[0]
    assert np.linalg.norm(A.conj().T @ U - V * result.S.numpy(), axis=0).max() <= 2 * tol * S[0]


@pytest.mark.parametrize("method", ["trlan", "rsvd", "krylov", "power", "direct"])
@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
def test_methods(layout, method):
    A = dense()
    found = trsvd.svds(tensor(A, layout), 2, method=method, tol=1e-3, rng=0).S
    S = np.linalg.svd(A, compute_uv=False)
    assert np.abs(found.numpy() - S[:2]).max() <= 1e-3 * S[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_and_facts(layout, rng):
    A = dense("complex128")
    op = as_operator(tensor(A, layout))
    for width in (1, 4):
        X, Y = rng.standard_normal((N, width)) + 0j, rng.standard_normal((M, width)) + 0j
        bound = 1e-14 * np.linalg.norm(A) * max(np.linalg.norm(X), np.linalg.norm(Y))
        assert np.abs(op.matmat(torch.asarray(X)).numpy() - A @ X).max() <= bound
        assert np.abs(op.rmatmat(torch.asarray(Y)).numpy() - A.conj().T @ Y).max() <= bound
    assert op.max_abs() == pytest.approx(max(A.real.max(), A.imag.max()), rel=1e-15)
    assert op.frobenius_norm() == pytest.approx(np.linalg.norm(A), rel=1e-14)
    assert np.abs(op.dense().numpy() - A).max() <= 1e-15
    wide = as_operator(tensor(A.astype("complex64"), layout)).in_double()
    assert wide.dtype == torch.complex128


@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr", "uncoalesced"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "bool"])
def test_other_dtypes(dtype, layout):
    A = (dense() > 0.5).astype("float64")  # ones and zeros are exact in all of them
    name = layout if layout != "uncoalesced" else "sparse_coo"
    T = tensor(A, name).to(getattr(torch, dtype))
    if layout == "uncoalesced":
        T = torch.sparse_coo_tensor(T.indices(), T.values(), T.shape)
        assert not T.is_coalesced()
    S = np.linalg.svd(A, compute_uv=False)
    result = trsvd.svds(T, 2)
    half = "float16" in dtype
    assert str(result.S.dtype) == f"torch.{dtype if half else 'float64'}"
    # Rounded to half precision on the way out.
    unit = float(torch.finfo(result.S.dtype).eps) if half else 1e-11
    assert np.abs(result.S.double().numpy() - S[:2]).max() <= unit * S[0]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1.0, 1e300, 1e-300])
def test_norms_and_oracles(layout, size):
    A = dense()
    S = np.linalg.svd(A, compute_uv=False) * size
    T = tensor(A * size, layout)
    assert norms.nuclear_norm(T) == pytest.approx(S.sum(), rel=1e-12)
    assert norms.spectral_norm(T) == pytest.approx(S[0], rel=1e-10)
    assert norms.kyfan_norm(T, 3) == pytest.approx(S[:3].sum(), rel=1e-10)
    for ball, support in [
        (trsvd.SpectralBall(), S.sum()),
        (trsvd.NuclearBall(), S[0]),
        (trsvd.KyFanDualBall(3), S[:3].sum()),
    ]:
        answer = ball.lmo(T, rng=0)
        assert answer.support == pytest.approx(support, rel=1e-10)
        update = answer.update
        assert type(update) is torch.Tensor
        inner = -float((update.double().numpy() * (A * size)).sum())
        assert inner == pytest.approx(support, rel=1e-10)
    assert trsvd.SpectralBall().lmo(T, method="gram").support == pytest.approx(S.sum(), rel=1e-8)


def test_relatives():
    A = dense()
    T, S = tensor(A, "sparse_coo"), np.linalg.svd(A, compute_uv=False)
    level = float(S[2] + S[3]) / 2
    assert len(trsvd.svds_above(T, level).S) == 3
    k = len(trsvd.svds_to_tolerance(T, 0.7).S)
    left = [np.linalg.norm(S[j:]) / np.linalg.norm(S) for j in (k - 1, k)]
    assert left[1] <= 0.7 < left[0]
    centred = np.linalg.svd(A - A.mean(axis=0), compute_uv=False)
    found = trsvd.svds(trsvd.operators.CenteredOperator(T), 2).S.numpy()
    assert np.abs(found - centred[:2]).max() <= 1e-10 * centred[0]
    assert np.abs(trsvd.compat.svds(T, 2)[1].numpy()[::-1] - S[:2]).max() <= 1e-10 * S[0]
    found = trsvd.compat.randomized_svd(T, 2, n_iter=40, random_state=0)[1]
    assert np.abs(np.asarray(found) - S[:2]).max() <= 1e-3 * S[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_are_left_alone(layout):
    A = dense()
    T = tensor(A, layout).requires_grad_()
    result = trsvd.svds(T, 2)
    assert not result.U.requires_grad
    assert T.requires_grad
    assert layout != "uncoalesced" or not T.is_coalesced()
    assert np.array_equal(T.detach().to_dense().numpy(), tensor(A, layout).to_dense().numpy())


@pytest.mark.parametrize("layout", ["sparse_coo", "sparse_csr"])
def test_no_entries(layout):
    T = tensor(np.zeros((80, 70)), layout)
    assert np.array_equal(trsvd.svds(T, 2).S.numpy(), [0.0, 0.0])
    assert norms.spectral_norm(T) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_entries_that_are_not_finite(bad):
    A = dense()
    A[3, 4] = bad
    for layout in ("sparse_coo", "sparse_csr"):
        with pytest.raises(ValueError, match="NaN or inf"):
            trsvd.svds(tensor(A, layout), 2)


def _broken() -> dict[str, Any]:
    ones = torch.ones(3, dtype=torch.float64)
    return {
        "row out of range": lambda: torch.sparse_coo_tensor([[0, 1, 9], [0, 1, 2]], ones, (4, 5)),
        "repeated column": lambda: torch.sparse_csr_tensor([0, 2, 3, 3], [1, 1, 0], ones, (3, 4)),
        "unordered": lambda: torch.sparse_csr_tensor([0, 2, 3, 3], [2, 1, 0], ones, (3, 4)),
        "column out of range": lambda: torch.sparse_csr_tensor([0, 2, 3], [0, 9, 0], ones, (2, 4)),
        "csc": lambda: torch.sparse_csc_tensor([0, 2, 3], [0, 9, 0], ones, (4, 2)),
        "coalesced, it says": lambda: torch.sparse_coo_tensor(
            [[0, 0, 1], [0, 0, 2]], ones, (4, 5), is_coalesced=True
        ),
    }


@pytest.mark.parametrize("name", _broken())
def test_broken_tensors_are_refused(name):
    A = _broken()[name]()
    with pytest.raises(ValueError, match=r"breaks the rules of its layout, torch\.sparse_"):
        trsvd.svds(A, 1)


def test_other_tensors_are_refused():
    hybrid = torch.sparse_coo_tensor([[0, 2]], torch.ones(2, 4), (3, 4))
    with pytest.raises(ValueError, match="1 dense dimension; pass one with two sparse"):
        trsvd.svds(hybrid, 1)
    with pytest.raises(ValueError, match="3 dimensions"):
        trsvd.svds(torch.ones(2, 3, 4).to_sparse(), 1)
    with pytest.raises(TypeError, match="A.to_dense\\(\\) in torch"):
        norms.max_norm(torch.eye(3).to_sparse())


def test_nothing_is_said_of_a_layout_that_was_not_asked_for():
    code = (
        "import torch, trsvd; A = torch.ones(90, 80).triu().to_sparse();"
        "trsvd.svds(A, 2); trsvd.svds(A, 2, method='direct'); trsvd.SpectralBall().lmo(A).update"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU answers")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_a_gpu(layout):
    A = dense()
    result = trsvd.svds(tensor(A, layout).cuda(), 2)
    S = np.linalg.svd(A, compute_uv=False)
    assert result.U.is_cuda
    assert np.abs(result.S.cpu().numpy() - S[:2]).max() <= 1e-10 * S[0]
