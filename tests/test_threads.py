"""Lanczos steps in several threads: the same products, sums and failures as in one."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp

import trsvd
from trsvd import _threaded_lanczos, _threads
from trsvd._compiled import kernels
from trsvd._threaded_lanczos import lanczos, shared_product, shared_sparse_product
from trsvd._threads import at_once, threads

compiled = pytest.mark.skipif(kernels() is None, reason="Numba is not installed")


@pytest.fixture
def three_threads(monkeypatch):
    """Three threads, and no matrix too small for them."""
    monkeypatch.setattr(_threads, "threads", lambda: 3)
    monkeypatch.setattr(_threaded_lanczos, "threads", lambda: 3)
    monkeypatch.setattr(_threaded_lanczos, "_LEAST_BYTES", 0)
    monkeypatch.setattr(_threaded_lanczos, "_LEAST_ENTRIES", 0)
    _threads._pool.cache_clear()
    yield
    _threads._pool.cache_clear()


@pytest.mark.parametrize(
    ("openblas", "omp", "expected"),
    [("1", "7", 1), (None, "1", 1), (None, "1000", None), ("many", "", None), ("0", None, None)],
)
def test_how_many(monkeypatch, openblas, omp, expected):
    for name, value in (("OPENBLAS_NUM_THREADS", openblas), ("OMP_NUM_THREADS", omp)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    threads.cache_clear()
    try:
        found = threads()
        monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        threads.cache_clear()
        assert found == (threads() if expected is None else expected)
    finally:
        threads.cache_clear()


def test_all_parts_are_done_and_an_error_comes_through(three_threads):
    done = []
    at_once(done.append, 5)
    assert sorted(done) == [0, 1, 2, 3, 4]

    finished = threading.Event()

    def work(part: int) -> None:
        if part == 0:
            raise KeyboardInterrupt
        finished.set()

    with pytest.raises(KeyboardInterrupt):
        at_once(work, 2)
    assert finished.is_set()  # nobody writes any more

    def late(part: int) -> None:
        if part == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        at_once(late, 3)


@compiled
@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [5, 64, 71])
def test_products(three_threads, rows, dtype, precision, width):
    rng = np.random.default_rng(rows)
    M = rng.standard_normal((rows, 37)).astype(dtype)
    exact = M.astype(float)
    tol = 40 * rows * 37 * np.finfo(precision).eps
    ways = {kernels().FUSED: exact.T @ exact}
    if width == 1:
        ways[kernels().ACROSS] = exact @ exact.T
    for way, gram in ways.items():
        X = rng.standard_normal((width, gram.shape[0])).astype(precision)
        W = np.full_like(X, np.nan)
        product = shared_product(M, way, width, precision)
        assert product is not None
        product(X, W)
        assert np.abs(W - X @ gram).max() <= tol


@compiled
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_sparse_products(three_threads, precision):
    rng = np.random.default_rng(0)
    A = sp.random(90, 40, 0.1, format="csr", random_state=1)
    A.data = A.data.astype(precision)
    A = sp.vstack([A, sp.csr_array((30, 40))], format="csr")  # rows without entries at the end
    for width in (1, 4):
        product = shared_sparse_product(A.data, A.indices, A.indptr, 40, width, precision)
        X = rng.standard_normal((width, 40)).astype(precision)
        W = np.empty_like(X)
        product(X, W)
        assert np.abs(W - (A.T @ (A @ X.T)).T).max() <= 1000 * np.finfo(precision).eps


@compiled
def test_one_thread_or_little_work_is_not_shared():
    M = np.ones((8, 8))
    assert shared_product(M, kernels().FUSED, 1, "float64") is None
    A = sp.csr_array(M)
    assert shared_sparse_product(A.data, A.indices, A.indptr, 8, 1, "float64") is None


@compiled
def test_steps_end_where_a_product_leaves_nothing(three_threads):
    M = np.diag([3.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    V = np.zeros((6, 6))
    V[0, :3] = 3**-0.5
    H, C = np.zeros((5, 6)), np.zeros((2, 5))
    product = shared_product(M, kernels().FUSED, 1, "float64")
    assert lanczos(product, V, 0, 1, H, C, 1e-12, 0.0) == 2


@compiled
@pytest.mark.parametrize("sparse", [False, True])
def test_svds(three_threads, sparse):
    rng = np.random.default_rng(3)
    A = sp.random(300, 200, 0.2, format="csr", random_state=1) if sparse else rng.random((300, 200))
    exact = np.linalg.svd(A.toarray() if sparse else A, compute_uv=False)
    method = trsvd.ThickRestartLanczos(gram=True)
    result = trsvd.svds(A, 6, method=method, rng=0)
    assert np.abs(result.S - exact[:6]).max() <= 1e-7 * exact[0]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: trsvd.svds(A, 6, method=method, rng=0), range(8)))
    assert all(np.array_equal(r.U, result.U) and np.array_equal(r.S, result.S) for r in again)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks elsewhere are not safe")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_has_threads_of_its_own(three_threads):
    at_once(lambda part: None, 3)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=at_once, args=(lambda part: None, 3))
    child.start()
    child.join(30)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()
