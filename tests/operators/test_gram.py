"""Compiled Lanczos steps: the invariant of the basis, in every way that a product is made.

The same assertions run without Numba, where there is no `InMemory` to begin with.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import trsvd
from trsvd._arrays.arrays import Arrays
from trsvd._compiled import kernels
from trsvd._krylov.golub_kahan import GolubKahan
from trsvd._krylov.gram_lanczos import GramLanczos
from trsvd._krylov.stopping import Gap
from trsvd._plan.cost import planned_estimates
from trsvd._solve import select as _select
from trsvd._solve import verify as _completeness
from trsvd._solve.problem import Problem
from trsvd.methods import trlan
from trsvd.operators import gram as _in_memory
from trsvd.operators.gram import coarsest_precision, in_memory, stays_in_cache

compiled = pytest.mark.skipif(kernels() is None, reason="Numba is not installed")
# Matrices as small as these take one compiled call otherwise.
pytestmark = pytest.mark.usefixtures("general_way")
SINGLE, DOUBLE = (float(np.finfo(dtype).eps) for dtype in ("float32", "float64"))


def matrix(m: int, n: int, dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((m, n)))[0]
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return ((U * 0.93 ** np.arange(n)) @ V.T).astype(dtype)


def check(A: np.ndarray, basis: GramLanczos, precision: str) -> None:
    """``A^T A V = V T + W C`` with orthonormal [V, W], to rounding in that precision."""
    basis.sync()
    exact = A.astype(float)
    gram = exact.T @ exact
    tol = 20 * sum(A.shape) * (SINGLE if precision == "float32" else DOUBLE)
    V, W = basis.V.view(0, basis.size), basis.V.view(basis.size)
    assert V.dtype == W.dtype == precision
    every = np.hstack([V, W]).astype(float)
    assert np.abs(every.T @ every - np.eye(every.shape[1])).max() <= tol
    assert np.array_equal(basis.T, basis.T.T)
    rest = gram @ V - V @ basis.T - W @ basis.C
    assert np.linalg.norm(rest, 2) <= tol * np.linalg.norm(gram, 2)


@compiled
@pytest.mark.parametrize("width", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(90, 61), (64, 64), (71, 35)])
def test_blocks(shape: tuple[int, int], dtype: str, precision: str, width: int) -> None:
    A = matrix(*shape, dtype)
    op = Problem(A, 0, None).op
    view = in_memory(op, False, precision, 5)
    assert view is not None
    assert in_memory(op, False, precision, 5) is view
    rng = np.random.default_rng(1)
    start = view.arrays.gaussian(rng, shape[1], width)
    basis = GramLanczos(view, start, capacity=shape[1] - 2 * width, rng=rng)
    before = op.matvecs
    made = basis.expand_by(view, 2)
    assert made == 2
    assert basis.size == 2 * width
    assert basis.width == width
    assert op.matvecs - before == 4 * width
    check(A, basis, precision)
    while not basis.full:
        basis.expand_by(view, 100)
    check(A, basis, precision)
    basis.compress(width + 3)
    check(A, basis, precision)
    basis.expand_by(view, 2)
    check(A, basis, precision)


@compiled
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_every_side_of_every_layout(turned: bool, by_columns: bool, precision: str) -> None:
    A = matrix(70, 41, "float64")
    op = Problem(np.asfortranarray(A) if by_columns else A, 0, None).op
    view = in_memory(op, turned, precision, 5)
    assert view is not None
    assert view.across is (turned is not by_columns)
    B = A.T if turned else A
    assert view.shape == B.shape
    rng = np.random.default_rng(2)
    basis = GramLanczos(view, view.arrays.gaussian(rng, B.shape[1], 1), capacity=20, rng=rng)
    basis.expand_by(view, 15)
    check(B, basis, precision)


@compiled
@pytest.mark.parametrize("by_columns", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gram_matrix_takes_over_in_the_middle(dtype: str, by_columns: bool) -> None:
    A = matrix(200, 30, dtype)
    op = Problem(np.asfortranarray(A) if by_columns else A, 0, None).op
    view = in_memory(op, False, "float64", 5)
    assert view is not None
    rng = np.random.default_rng(3)
    basis = GramLanczos(view, view.arrays.gaussian(rng, 30, 1), capacity=20, rng=rng)
    basis.expand_by(view, 5)
    assert view.form_if_due(0) is None
    assert view.gram is None
    view.form_if_due(5)
    assert view.gram is not None
    assert view.gram.dtype == np.float64
    basis.expand_by(view, 10)
    check(A, basis, "float64")


@compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse(dtype: str) -> None:
    A = sp.random(120, 50, 0.1, format="csr", dtype=dtype, random_state=4)
    op = Problem(A, 0, None).op
    for precision in ("float32", "float64"):
        view = in_memory(op, False, precision, 5)
        assert view is not None
        rng = np.random.default_rng(5)
        basis = GramLanczos(view, view.arrays.gaussian(rng, 50, 1), capacity=30, rng=rng)
        basis.expand_by(view, 20)
        check(A.toarray(), basis, precision)


@compiled
@pytest.mark.parametrize("width", [1, 4])
def test_a_basis_that_breaks_down_goes_on(width: int) -> None:
    """Rank 6: nothing is left of the products after that, and other vectors come in."""
    A = matrix(60, 40, "float64")
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    A = (U[:, :6] * S[:6]) @ Vh[:6]
    op = Problem(A, 0, None).op
    view = in_memory(op, False, "float64", 5)
    assert view is not None
    rng = np.random.default_rng(6)
    basis = GramLanczos(view, view.arrays.gaussian(rng, 40, width), capacity=24, rng=rng)
    while not basis.full:
        basis.expand_by(view, 5)
    check(A, basis, "float64")
    assert np.allclose(basis.ritz().S[:6], S[:6])


@compiled
def test_the_precision_that_a_tolerance_needs() -> None:
    single, double = (Problem(matrix(60, 40, d), 0, None).op for d in ("float32", "float64"))
    assert coarsest_precision(single, 5, 1e-2) == "float32"
    assert coarsest_precision(single, 5, 3e-6) == "float32"
    assert coarsest_precision(single, 5, 1e-6) == "float64"
    assert coarsest_precision(double, 5, 1e-3) == "float32"
    assert coarsest_precision(double, 5, 1e-6) == "float64"
    huge = Problem(matrix(60, 40, "float64") * 1e30, 0, None).op
    assert coarsest_precision(huge, 5, 1e-3) == "float64"


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("decay", [0.99, 0.9, 0.5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("block_size", [1, 4])
def test_right_at_every_tolerance(block_size: int, dtype: str, decay: float, tol: float) -> None:
    """The last values of 0.5^i are lost in squares in single precision: it has to be noticed."""
    rng = np.random.default_rng(7)
    m, n, k = 300, 200, 12
    s = decay ** np.arange(n)
    U = np.linalg.qr(rng.standard_normal((m, n)))[0]
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = ((U * s) @ V.T).astype(dtype)
    tol = max(tol, 50 * float(np.finfo(dtype).eps))
    method = trsvd.ThickRestartLanczos(gram=True, block_size=block_size)
    result = trsvd.svds(A, k, tol=tol, method=method, rng=0)
    assert result.converged
    exact, (W, S, Zh) = A.astype(float), (part.astype(float) for part in result)
    left = np.linalg.norm(exact @ Zh.T - W * S, axis=0)
    right = np.linalg.norm(exact.T @ W - Zh.T * S, axis=0)
    slack = 50 * float(np.finfo(dtype).eps)
    assert max(left.max(), right.max()) <= (tol + slack) * s[0]
    assert np.abs(S - s[:k]).max() <= (tol + slack) * s[0]
    for X in (W, Zh.T):
        assert np.abs(X.T @ X - np.eye(k)).max() <= slack


@compiled
def test_a_loose_tolerance_is_met_in_single_precision_or_given_up_for_double() -> None:
    precisions = []
    plain = _in_memory.InMemory.__init__

    def noting(self: Any, op: Any, rows: Any, precision: str, across: bool) -> None:
        precisions.append(precision)
        plain(self, op, rows, precision, across)

    rng = np.random.default_rng(8)
    Q = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    method = trsvd.ThickRestartLanczos(gram=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_in_memory.InMemory, "__init__", noting)
        for last, expected in ((0.5, ["float32"]), (1e-11, ["float32", "float64"])):
            precisions.clear()
            A = (Q * np.geomspace(1, last, 300) ** 3) @ Q.T
            result = trsvd.svds(A, 40, tol=1e-4, method=method, rng=0)
            assert result.converged
            assert result.residuals.max() <= 1e-4
            assert precisions[: len(expected)] == expected


@compiled
def test_squares_that_are_too_coarse_are_made_in_double_precision() -> None:
    A = matrix(300, 200, "float64")
    A = (A @ A.T @ A).astype("float32")
    problem = Problem(A, 0, None)
    method = trsvd.ThickRestartLanczos(gram=True)
    run = method.init(problem.op, 20, tol=3e-6, start=None, rng=problem.rng)
    assert run.precision == "float32"
    while (ritz := run.report(now=True)) is None or ritz.residuals[:20].max() > 3e-6 * ritz.S[0]:
        run.step(problem.op)
        assert isinstance(run.basis, GramLanczos)
    assert run.precision == "float64"
    U, S, V = run.extract(problem.op, 20)
    assert np.linalg.norm(A.T.astype(float) @ U - V * S, axis=0).max() <= 3e-6 * S[0]


@compiled
def test_resuming_with_a_tighter_tolerance_changes_the_precision() -> None:
    A = matrix(300, 200, "float64")
    method = trsvd.ThickRestartLanczos(gram=True)
    first = trsvd.svds(A, 5, tol=1e-3, method=method, rng=0)
    second = trsvd.svds(A, 5, tol=1e-10, state=first)
    assert second.residuals.max() <= 1e-10
    assert np.allclose(second.S, 0.93 ** np.arange(5), rtol=1e-12)


@compiled
def test_the_next_value_may_lead() -> None:
    """With s_64 = 1/64 a residual of 1e-2 says nothing yet about which values are the largest."""
    rng = np.random.default_rng(9)
    U = np.linalg.qr(rng.standard_normal((400, 300)))[0]
    V = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    s = 1 / np.arange(1, 301)
    A = (U * s) @ V.T
    result = trsvd.svds(A, 64, tol=1e-2, method=trsvd.ThickRestartLanczos(gram=True), rng=0)
    assert np.abs(result.S - s[:64]).max() <= 1e-2
    assert result.matvecs < 600


@pytest.mark.parametrize("gap", [0.3, 0.1, 0.05, 0.01])
@pytest.mark.parametrize(("k", "plateau", "rest"), [(22, 20, 0.6), (18, 18, 0.5), (20, 22, 0.3)])
def test_a_plateau_does_not_deceive_a_loose_gap(
    k: int, plateau: int, rest: float, gap: float
) -> None:
    """From a single vector equal values come up one after the other."""
    n = 300
    rng = np.random.default_rng(10)
    s = np.r_[np.ones(plateau), rest * np.linspace(1, 0.5, n - plateau)]
    U, V = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    for noise in (0, 1e-3, 1e-2):
        G = (U * s) @ V.T + noise * rng.standard_normal((n, n)) / n**0.5
        result = trsvd.KyFanDualBall(k).lmo(G, gap=gap, rng=0)
        support = np.linalg.svd(G, compute_uv=False)[:k].sum()
        assert 1 + (G * result.update).sum() / support <= gap


def test_without_numba_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRSVD_COMPILED", "0")
    assert kernels() is None
    monkeypatch.delattr(trsvd._compiled, "lanczos", raising=False)
    monkeypatch.setitem(sys.modules, "trsvd._compiled.lanczos", None)
    assert trsvd._compiled._imported.__wrapped__() is None


@compiled
def test_a_sparse_matrix_is_read_by_rows_only() -> None:
    A = sp.csr_array(np.eye(7, 5))
    op = Problem(A, 0, None).op
    _, turned = op.rows_in_memory()
    assert in_memory(op, turned, "float64", 5) is not None
    assert in_memory(op, not turned, "float64", 5) is None
    assert in_memory(op, turned, None, 5) is None


def test_what_stays_in_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_in_memory, "_CACHE", 8 * 50)
    A = np.ones((10, 10))
    assert not stays_in_cache(A)
    assert stays_in_cache(A, "float32")
    assert stays_in_cache(A[:5])
    assert not stays_in_cache(A.astype("float32")[:, :].repeat(2, 0), "float64")
    assert not stays_in_cache(sp.csr_array(A[:1]))


@compiled
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(120, 90), (90, 120)])
def test_rows_longer_than_the_cache(
    shape: tuple[int, int], order: str, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longer side's vectors are iterated where its rows lie in memory; a start goes there."""
    monkeypatch.setattr("trsvd.methods.trlan.stays_in_cache", lambda *args: False)
    A = matrix(max(shape), min(shape), "float64")
    A = np.asarray(A if shape[0] > shape[1] else A.T, order=order)
    k, exact = 4, np.linalg.svd(A, compute_uv=False)
    start = np.linalg.svd(A)[2][:k].T + 0.1 if warm else None
    method = trsvd.ThickRestartLanczos(gram=True)
    result = trsvd.svds(A, k, method=method, tol=1e-8, rng=0, start=start)
    assert result.status.converged
    # Values are second order in the residuals: (1e-8 s_1)^2 over gaps of 7 %, and rounding.
    assert np.abs(result.S - exact[:k]).max() <= 1e-13
    left = np.linalg.norm(A @ result.Vh.T - result.U * result.S, axis=0)
    assert left.max() <= 1e-8 * result.S[0]


@compiled
@pytest.mark.parametrize(("k", "expected"), [(2, 1), (3, 2), (6, 4), (95, 4), (96, 8)])
def test_vectors_at_a_time(k: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    op = Problem(np.ones((100, 100)), 0, None).op
    assert _select._block_size(op, k, 1e-3) == 1
    monkeypatch.setattr(_in_memory, "_CACHE", 100)
    assert _select._block_size(op, k, 1e-3) == expected
    assert _select._block_size(op, k, 1e-15) == 1


@compiled
@pytest.mark.parametrize(
    ("k", "tol", "expected"),
    [(31, 1e-2, 1), (32, 1e-2, 8), (32, 1e-4, 16), (64, 1e-2, 16), (64, 1e-8, 1)],
)
def test_vectors_at_a_time_with_a_sparse_matrix(k: int, tol: float, expected: int) -> None:
    A = sp.random(700, 400, 0.1, format="csr", random_state=1)
    choice = trsvd.select_method(A, k, tol).method
    assert choice == trsvd.ThickRestartLanczos(gram=True, block_size=expected)
    few = sp.random(700, 400, 0.04, format="csr", random_state=1)
    choice = trsvd.select_method(few, k, tol).method
    assert choice == trsvd.ThickRestartLanczos(gram=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [2, 7, 16])
def test_sparse_rows_with_several_vectors(dtype: str, width: int) -> None:
    """Rows and columns without entries are among them."""
    A = sp.random(700, 300, 0.03, format="csr", random_state=1).astype(dtype)
    A = sp.vstack([A[:300], sp.csr_array((50, 300), dtype=dtype), A[300:]], format="csr")
    A = sp.csr_array(A @ sp.diags((np.arange(300) != 17).astype(dtype)))
    exact = np.linalg.svd(A.toarray().astype(float), compute_uv=False)
    method = trsvd.ThickRestartLanczos(gram=True, block_size=width)
    for shaped in (A, A.T):
        result = trsvd.svds(shaped, 20, method=method, tol=1e-5, rng=0)
        assert result.converged
        assert np.abs(result.S - exact[:20]).max() <= 1e-5 * exact[0]
        left = np.linalg.norm(shaped @ result.Vh.T - result.U * result.S, axis=0)
        assert left.max() <= 1.1e-5 * exact[0]


def test_a_long_matrix_is_squared() -> None:
    choice = trsvd.select_method(np.ones((70 * 8, 70)), 3, tol=1e-15)
    assert "small" in choice.reason
    choice = trsvd.select_method(np.ones((400 * 8, 400)), 3)
    assert str(choice.method) == str(trsvd.Direct())
    assert "one pass" in choice.reason or "small" in choice.reason


@compiled
def test_a_start_of_zeros_is_replaced() -> None:
    A = matrix(90, 70, "float64")
    method = trsvd.ThickRestartLanczos(gram=True)
    result = trsvd.svds(A, 3, method=method, start=np.zeros((70, 1)), tol=1e-8, rng=0)
    assert result.status.converged
    assert np.abs(result.S - np.linalg.svd(A, compute_uv=False)[:3]).max() <= 1e-13


@compiled
def test_a_gram_matrix_that_was_formed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    A = matrix(90, 30, "float64")
    op = Problem(A, 0, None).op
    view = in_memory(op, False, "float64", 5)
    ways, real = [], kernels().gram_lanczos

    def spy(M: Any, way: int, *rest: Any) -> int:
        ways.append(way)
        return real(M, way, *rest)

    monkeypatch.setattr(kernels(), "gram_lanczos", spy)
    rng = np.random.default_rng(1)
    for width in (1, 2):
        basis = GramLanczos(view, view.arrays.gaussian(rng, 30, width), capacity=20, rng=rng)
        basis.expand_by(view, 2)
        view.form_if_due(1000)
        basis.expand_by(view, 2)
        check(A, basis, "float64")
    fused = kernels().FUSED
    # Several vectors at a time go through the matrix itself.
    assert ways == [fused, kernels().FORMED, fused, fused]


@compiled
def test_a_flat_spectrum_goes_to_a_dense_factorization() -> None:
    rng = np.random.default_rng(3)
    A = rng.standard_normal((320, 300)).astype(np.float32)
    assert trsvd.select_method(A, 20, 1e-3).method.name == "trlan"
    S = np.linalg.svd(A.astype(np.float64), compute_uv=False)[:20]
    found = trsvd.svds(A, 20, tol=1e-3, rng=0)
    assert found.method == trsvd.Direct()
    assert found.converged
    assert found.matvecs == 300 + 2 * 24  # what was tried counts
    assert np.abs(found.S - S).max() <= 1e-3 * S[0]
    start = rng.standard_normal((300, 2)).astype(np.float32)
    again = trsvd.svds(A, 20, tol=1e-3, rng=0, start=start)
    assert (again.method, again.matvecs) == (found.method, found.matvecs)
    # Not where somebody asked for a method, looks at every step, or pays by the product.
    for options in (
        {"method": "trlan"},
        {"callback": lambda info: None},
        {"max_matvecs": 10_000},
    ):
        found = trsvd.svds(A, 20, tol=1e-3, rng=0, **options)
        assert found.method.name == "trlan"
        assert np.abs(found.S - S).max() <= 1e-3 * S[0]


@compiled
def test_a_decaying_spectrum_is_not_judged_flat_by_one_block() -> None:
    """From k = 96 on, blocks have eight columns."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((1000, 1000)).astype(np.float32)
    flat = trsvd.svds(A, 120, tol=1e-3, rng=0)
    assert (flat.method, flat.matvecs) == (trsvd.Direct(), 1000 + 2 * 16)
    A /= np.arange(1, 1001, dtype=np.float32)
    found = trsvd.svds(A, 120, tol=1e-3, rng=0)
    assert found.method == trsvd.select_method(A, 120, 1e-3).method
    assert found.method.block_size == 8
    assert found.matvecs < 1000


@compiled
def test_a_spectrum_that_goes_down_stays_with_lanczos() -> None:
    rng = np.random.default_rng(3)
    U, _, Vh = np.linalg.svd(rng.standard_normal((320, 300)), full_matrices=False)
    S = 1 / np.arange(1.0, 301)
    found = trsvd.svds(((U * S) @ Vh).astype(np.float32), 20, tol=1e-3, rng=0)
    assert found.method.name == "trlan"
    assert np.abs(found.S - S[:20]).max() <= 1e-3


@pytest.mark.parametrize("gap", [1e-2, 1e-3])
@pytest.mark.parametrize("levels", [(1, 0.97, 0.5), (1, 0.9), (1, 0.9, 0.8, 0.1), (1, 0.8, 0.05)])
@pytest.mark.parametrize("tail", [0.3, 0.95])
def test_copies_of_values_do_not_deceive_a_gap(
    levels: tuple[float, ...], tail: float, gap: float
) -> None:
    """From one vector copies come up one after the other, and no missed one alone adds much."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        k = int(rng.choice([8, 16, 24]))
        S = np.concatenate([np.full(int(rng.integers(1, 2 * k)), level) for level in levels])
        S = np.append(S, S[-1] * tail ** np.arange(1, 301))[:300]
        U = np.linalg.qr(rng.standard_normal((300, 300)))[0]
        V = np.linalg.qr(rng.standard_normal((350, 300)))[0]
        G = (U * S) @ V.T
        result = trsvd.KyFanDualBall(k).lmo(G, gap=gap, rng=seed)
        assert 1 + np.sum(G * result.update) / S[:k].sum() <= gap


def test_what_a_missed_value_could_add() -> None:
    S = np.array([1.0, 0.9, 0.9, 0.9])
    assert not Gap(4, 0.1).missed(S, 4, 1.0)  # three times 0.1 of 3.7
    assert Gap(4, 0.08).missed(S, 4, 1.0)
    assert not Gap(4, 1e-6).missed(S, 4, 0.9)


@pytest.mark.parametrize("tol", [3e-6, None, 1e-4])
@pytest.mark.parametrize(
    "spectrum", ["harmonic", "root", "linear", "two levels", "eight large", "flat"]
)
@pytest.mark.parametrize("method", ["direct", trsvd.ThickRestartLanczos(gram=True)])
def test_squares_in_single_precision(method: Any, spectrum: str, tol: float | None) -> None:
    """As good as asked for by products in double precision, whatever was squared in which."""
    rng = np.random.default_rng(4)
    i = np.arange(1.0, 201)
    S = {
        "harmonic": 1 / i,
        "root": i**-0.5,
        "linear": np.linspace(1, 0.1, 200),
        "two levels": np.where(i <= 25, 1.0, 0.5),
        "eight large": np.where(i <= 8, 1.0, 0.05 - 0.03 * i / 200),
        "flat": np.ones(200),
    }[spectrum]
    U = np.linalg.qr(rng.standard_normal((300, 200)))[0]
    V = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    A = ((U * S) @ V.T).astype(np.float32)
    exact, wanted = A.astype(np.float64), np.finfo(np.float32).eps ** 0.75 if tol is None else tol
    values = np.linalg.svd(exact, compute_uv=False)
    for k in (1, 12, 40):
        result = trsvd.svds(A, k, tol=tol, method=method, rng=0)
        assert result.converged
        left, right = result.U.astype(np.float64), result.Vh.T.astype(np.float64)
        # (Measured in float32: a tenth for its own rounding.)
        rest = exact.T @ left - right * result.S, exact @ right - left * result.S
        assert max(np.linalg.norm(each, axis=0).max() for each in rest) <= 1.1 * wanted * values[0]
        assert np.abs(result.S - values[:k]).max() <= wanted * values[0]
        if method == "direct" and spectrum != "eight large":
            assert not result.state.run.double


def test_a_long_float32_matrix_and_one_triplet() -> None:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((120_000, 16)).astype(np.float32) * np.float32(0.9) ** np.arange(16)
    result = trsvd.svds(A.astype(np.float32), 1)
    assert result.converged
    exact = np.linalg.svd(np.linalg.qr(A.astype(np.float64), mode="r"), compute_uv=False)[0]
    assert abs(float(result.S[0]) / exact - 1) <= 1e-6


@compiled
@pytest.mark.parametrize("n", [23, 24, 25, 26, 27])
@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_a_space_that_is_exhausted_at_the_first_look(n: int, block_size: int) -> None:
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n + 1, n)).astype(np.float32)
    method = trsvd.ThickRestartLanczos(gram=True, block_size=block_size)
    for k in (5, 20):
        found = trsvd.svds(A, k, method=method, rng=0)
        S = np.linalg.svd(A.astype(np.float64), compute_uv=False)[:k]
        assert found.converged
        assert np.abs(found.S - S).max() <= 1e-5 * S[0]


@compiled
def test_a_run_that_may_give_way_makes_many_steps_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As does one that may not: single steps are for callbacks, and for caps that a user gave."""
    bursts = []
    real = trlan._LanczosRun._burst

    def burst(run: Any) -> int:
        bursts.append(real(run))
        return bursts[-1]

    monkeypatch.setattr(trlan._LanczosRun, "_burst", burst)
    A = np.random.default_rng(0).standard_normal((300, 280)) / np.arange(1, 281)
    assert trsvd.svds(A, 3, tol=1e-4, rng=0).method.name == "trlan"
    assert max(bursts) > 3
    bursts.clear()
    method = trsvd.ThickRestartLanczos(gram=True)
    trsvd.svds(A, 3, tol=1e-4, rng=0, method=method, max_matvecs=200)
    assert len(bursts) > 3
    assert max(bursts) == 1


@compiled
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_steps_in_a_complement(precision: str, wide: bool) -> None:
    """As many as there are values left find the largest of them, and its vector."""
    A = matrix(60, 40, precision)
    A[:, 30:] = 0
    A = A.T.copy() if wide else A
    op = Problem(A, 0, None).op
    U, S, Vh = np.linalg.svd(A.astype(float), full_matrices=False)
    U, Vh = (Vh.T, U.T) if wide else (U, Vh)
    view = in_memory(op, False, precision, 5)
    known, side = [1, 2, 5], U if view.turned else Vh.T
    rng = np.random.default_rng(3)
    before = op.matvecs + op.matvecs_verify
    values, vectors = _completeness._compiled_complement(view, side[:, known], S[known], rng, 12)
    assert op.matvecs + op.matvecs_verify == before + 24
    tol = 1e-3 if precision == "float32" else 1e-6
    assert values == pytest.approx(S[:1], rel=tol)
    assert abs(side[:, 0] @ vectors[:, 0]) == pytest.approx(1, rel=tol)


@compiled
@pytest.mark.parametrize("count", [0, 1])
def test_a_complement_of_which_little_is_left(count: int) -> None:
    """A product that leaves nothing ends the steps; what was found until then is right."""
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 5)))[0]
    S = np.array([5.0, 4.0, 3.0, 2.0, 1.0])[: 4 + count]
    A = (Q[:, : 4 + count] * S) @ Q[:, : 4 + count].T
    op = Problem(A, 0, None).op
    view = in_memory(op, False, "float64", 5)
    rng = np.random.default_rng(1)
    values, vectors = _completeness._compiled_complement(view, Q[:, :4], S[:4], rng, 9)
    assert values == pytest.approx(S[4:] if count else [0.0], abs=1e-6)
    assert vectors.shape == (50, 1)
    assert 2 <= op.matvecs + op.matvecs_verify <= 6


@compiled
def test_when_to_look_at_the_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    op = Problem(np.ones((200, 160), "f4"), 0, None).op
    view = in_memory(op, False, "float32", 5)
    assert planned_estimates(view, 1, 1e-3, 1, 6) == ()
    assert planned_estimates(view, 16, 1e-3, 1, 25) == (25,)  # one look for both
    assert planned_estimates(view, 16, 1e-3, 4, 40) == (24,)
    assert planned_estimates(view, 100, 1e-3, 4, 145) == (50,)
    monkeypatch.setattr(_in_memory, "_CACHE", 100)
    assert planned_estimates(view, 16, 1e-3, 1, 25) == (8, 25)
    # Two blocks: all Ritz values of a single random one are near the mean.
    assert planned_estimates(view, 100, 1e-3, 8, 145) == (16, 50)
    assert planned_estimates(view, 16, 1e-3, 16, 160) == (32,)
    monkeypatch.setattr("trsvd._plan.cost.flat_costs_more", lambda *args, **how: False)
    assert planned_estimates(view, 16, 1e-3, 1, 25) == ()
    assert planned_estimates(view, 20, 1e-3, 1, 30) == (24,)


@compiled
@pytest.mark.parametrize(("flat", "looks"), [(True, [8]), (False, [8, 24])])
def test_a_glance_is_enough_for_random_numbers(
    flat: bool, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spectrum without any decay is left to a dense factorization after eight columns."""
    monkeypatch.setattr(_in_memory, "_CACHE", 100)
    A = np.random.default_rng(1).standard_normal((400, 300)).astype("f4")
    if not flat:
        A = np.linalg.qr(A)[0] / np.arange(1, 301, dtype="f4")
    method = trsvd.ThickRestartLanczos(gram=True, block_size=4)
    op = Problem(A, 0, None).op
    run = method.init(op, 10, tol=1e-3, start=None, rng=np.random.default_rng(0))
    sizes = []
    while len(sizes) < 2 and not run.hopeless:
        run.step(op)
        sizes.append(run.available)
    assert run.hopeless is flat
    assert sizes == looks


def graded(m: int, n: int, dtype: str, power: float = 1.0, seed: int = 0) -> np.ndarray:
    """Singular values ``i^-power``."""
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((m, n)))[0]
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return ((U * np.arange(1.0, n + 1) ** -power) @ V.T).astype(dtype)


@compiled
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 3e-6, None])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", ["rows", "columns"])
def test_a_gram_matrix_is_formed_at_once(way: str, dtype: str, tol: float | None) -> None:
    """Where the fewest steps would cost as much: by rows of either side, in either precision."""
    A = graded(800, 200, dtype)
    A = np.asfortranarray(A) if way == "columns" else A
    exact = np.linalg.svd(A.astype(float), compute_uv=False)
    wanted = np.finfo(dtype).eps ** 0.75 if tol is None else tol
    for G in (A, A.T):
        choice = trsvd.select_method(G, 20, tol)
        assert choice.method.name == "trlan"
        assert "Gram matrix" in choice.reason
        found = trsvd.svds(G, 20, tol=tol, rng=0)
        assert found.method == choice.method
        assert found.converged
        assert np.abs(found.S - exact[:20]).max() <= wanted * exact[0]
        # The 200 products that it takes, and those that the triplets are made with.
        assert found.matvecs == 200 + 20
        assert found.completeness.kind == "probable"
        assert np.linalg.norm(found.Vh @ found.Vh.T - np.eye(20), 2) <= 100 * np.finfo(dtype).eps


@compiled
def test_a_formed_gram_matrix_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """To LAPACK, where the spectrum turns out to be flat: formed once, and counted once."""
    A = np.random.default_rng(0).standard_normal((800, 200)).astype(np.float32)
    found = trsvd.svds(A, 20, tol=1e-4, rng=0)
    assert found.method == trsvd.Direct()
    assert found.completeness.kind == "exact"
    assert found.matvecs == 200
    formed = []
    real = Arrays.gram
    monkeypatch.setattr(Arrays, "gram", lambda *args, **how: formed.append(1) or real(*args, **how))
    again = trsvd.svds(A, 20, tol=1e-4, rng=0)
    assert not formed
    assert np.array_equal(again.S, found.S)
    by_itself = trsvd.svds(A, 20, tol=1e-4, method="direct")
    assert formed
    assert np.abs(by_itself.S - found.S).max() <= 1e-6 * found.S[0]


@compiled
def test_products_that_are_counted_are_not_spent_on_a_gram_matrix() -> None:
    A = graded(800, 200, "float32")
    method = trsvd.ThickRestartLanczos(gram=True)
    found = trsvd.svds(A, 20, tol=1e-4, rng=0, method=method, max_matvecs=150)
    assert found.converged
    assert found.matvecs <= 150
    seen: list[int] = []
    found = trsvd.svds(A, 20, tol=1e-4, rng=0, callback=lambda info: seen.append(info.matvecs))
    assert found.converged
    assert np.all(np.diff(seen) == 2)


@compiled
def test_steps_with_a_formed_gram_matrix_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """They make no products that could be counted; LAPACK takes over from a run without an end."""
    A = np.random.default_rng(0).standard_normal((800, 200)).astype(np.float32)
    monkeypatch.setattr(trlan, "is_hopeless", lambda *args, **how: False)
    monkeypatch.setattr(trlan, "_PATIENCE", 30)
    found = trsvd.svds(A, 20, tol=1e-4, rng=0)
    assert found.method == trsvd.Direct()
    assert found.converged


@compiled
def test_missed_copies_are_found_with_a_formed_gram_matrix() -> None:
    """One vector meets one copy of a multiple value; the check meets the others."""
    rng = np.random.default_rng(5)
    S = np.concatenate([np.full(6, 2.0), 1 / np.arange(1.0, 195)])
    U = np.linalg.qr(rng.standard_normal((800, 200)))[0]
    V = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    A = ((U * S) @ V.T).astype(np.float32)
    for seed in range(10):
        found = trsvd.svds(A, 16, tol=1e-4, rng=seed)
        assert found.converged
        assert np.abs(found.S - S[:16]).max() <= 1e-4 * S[0]


@compiled
def test_squares_of_a_formed_gram_matrix_do_near_the_bound() -> None:
    """Single precision is not given up for a bound that was measured for other steps."""
    A = graded(1536, 384, "float32", power=1.17)
    tight = trsvd.svds(A, 42, tol=3e-6, rng=0)
    assert tight.converged
    assert tight.matvecs == 384 + 42  # nothing was begun anew


@pytest.fixture(params=["numba", "plain"])
def with_and_without_numba(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setenv("TRSVD_COMPILED", "0")


CENTRED_TALL, CENTRED_WIDE, CENTRED_FLAT = (260, 90), (90, 260), (70, 900)


def centred(shape: tuple[int, int], layout: str, dtype: str, mean: Any) -> tuple[Any, np.ndarray]:
    """A centred sparse operator, and the same matrix as an array of float64."""
    A = sp.random(*shape, 0.2, format=layout, dtype=dtype, random_state=4)
    A = A + sp.random(shape[0], 8, 0.3, random_state=5) @ sp.random(
        8, shape[1], 0.3, random_state=6
    )
    A = A.asformat(layout).astype(dtype)
    if mean == "other":
        mean = np.random.default_rng(7).standard_normal(shape[1]).astype(dtype)
    op = trsvd.operators.CenteredOperator(A, mean)
    return op, A.toarray().astype(float) - op.mean.astype(float)


@compiled
@pytest.mark.parametrize("mean", [None, "other"])
@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [CENTRED_TALL, CENTRED_WIDE, CENTRED_FLAT])
def test_steps_with_a_centred_sparse_matrix(
    shape: tuple[int, int], dtype: str, layout: str, mean: Any
) -> None:
    user, B = centred(shape, layout, dtype, mean)
    problem = Problem(user, 0, None)
    B = B.T if problem.flipped else B
    for precision in ("float32", "float64"):
        rows = problem.op.rows_in_memory()
        assert rows is not None
        view = in_memory(problem.op, rows[1], precision, 5)
        assert view is not None
        C = B.T if view.turned else B
        for width in (1, 4):
            rng = np.random.default_rng(5)
            start = view.arrays.gaussian(rng, C.shape[1], width)
            basis = GramLanczos(view, start, capacity=30, rng=rng)
            basis.expand_by(view, 6)
            check(C, basis, precision)


@pytest.mark.parametrize("mean", [None, "other"])
@pytest.mark.parametrize("layout", ["csr", "csc"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [CENTRED_TALL, CENTRED_WIDE, CENTRED_FLAT])
@pytest.mark.usefixtures("with_and_without_numba")
def test_triplets_of_a_centred_sparse_matrix(
    shape: tuple[int, int], dtype: str, layout: str, mean: Any
) -> None:
    op, B = centred(shape, layout, dtype, mean)
    chosen = _select.select_method(op, 6)
    assert chosen.method == trsvd.ThickRestartLanczos(gram=kernels() is not None)
    result = trsvd.svds(op, 6, rng=0)
    assert result.converged
    exact = np.linalg.svd(B, compute_uv=False)
    eps = float(np.finfo(dtype).eps)
    assert np.abs(result.S - exact[:6]).max() <= max(shape) * eps * exact[0]
    U, V = result.U.astype(float), result.Vh.T.astype(float)
    bound = (eps**0.75 + max(shape) ** 0.5 * eps) * exact[0]  # tol, and rounding errors
    assert np.linalg.norm(B @ V - U * result.S, axis=0).max() <= bound
    assert np.linalg.norm(B.T @ U - V * result.S, axis=0).max() <= bound


@compiled
@pytest.mark.parametrize(("dtype", "offset"), [("float32", 1e3), ("float64", 1e6)])
def test_squares_are_given_up_for_a_large_offset(dtype: str, offset: float) -> None:
    """Squares multiply the rounding errors of products, which cancel, by s_1 / s_k = 128."""
    m, n, k = 400, 120, 8
    rng = np.random.default_rng(8)
    S = 100 * 0.5 ** np.arange(10)
    A = np.linalg.qr(rng.standard_normal((m, 10)))[0] * S @ rng.standard_normal((10, n)) / n**0.5
    A = (A + offset).astype(dtype)
    op = trsvd.operators.CenteredOperator(sp.csr_array(A))
    B = A.astype(float) - op.mean.astype(float)
    tol = 20 * Problem(op, 0, None).op.noise / np.linalg.norm(B, 2)
    result = trsvd.svds(op, k, tol=tol, rng=0)
    assert result.converged
    run = result.state.run
    assert run.precision == "float64"
    assert isinstance(run.basis, GolubKahan) is (dtype == "float64")
    assert np.abs(result.S - np.linalg.svd(B, compute_uv=False)[:k]).max() <= tol * result.S[0]
