"""Lanczos steps in several threads: the same products, sums and failures as in one."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse as sp

import trsvd
from trsvd._compiled import kernels, shared_kernels
from trsvd._compiled import threads as _threads
from trsvd._compiled.threads import (
    blas_rests,
    one_blas_thread,
    shared_sparse_steps,
    shared_steps,
    sharing_threads,
    threads,
    together,
)

compiled = pytest.mark.skipif(kernels() is None, reason="Numba is not installed")


@pytest.fixture
def three_threads(monkeypatch):
    """Three threads, and no matrix too small for them."""
    monkeypatch.setattr(_threads, "threads", lambda: 3)
    monkeypatch.setattr(_threads, "threads_now", lambda: 3)
    for kind in ("BYTES", "ENTRIES"):
        monkeypatch.setattr(_threads, f"_PART_{kind}", 1)
        monkeypatch.setattr(_threads, f"_LEAST_{kind}_BESIDE", 0)
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


def test_who_leads_does_not_wait_and_errors_come_through(three_threads, monkeypatch):
    there, over = threading.Barrier(3), threading.Event()

    def assist() -> None:
        there.wait(30)
        over.wait(30)

    def lead() -> int:
        there.wait(30)
        over.set()
        return 7

    assert together(lead, assist, 2) == 7

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        together(interrupted, lambda: None, 2)

    with ThreadPoolExecutor(1) as alone, monkeypatch.context() as patch:
        patch.setattr(_threads, "_pool", lambda: alone)
        with pytest.raises(ZeroDivisionError):  # has been noted once the next in the queue is done
            together(lambda: alone.submit(int).result(30), lambda: 1 / 0, 1)


def test_helpers_that_never_came_are_called_off(three_threads):
    busy, late = threading.Event(), []
    for _ in range(2):
        _threads._pool().submit(busy.wait, 30)
    assert together(lambda: 1, lambda: late.append(1), 2) == 1
    busy.set()
    _threads._pool().shutdown()
    assert not late


AFTER_THE_MAIN_THREAD = """
import atexit, threading
import numpy as np
import trsvd
from trsvd._compiled import threads

threads.threads = threads.threads_now = lambda: 3  # on a machine with fewer, too
threads._PART_BYTES, threads._LEAST_BYTES_BESIDE = 1, 0
A = np.random.default_rng(0).standard_normal((400, 300)) * 0.9 ** np.arange(300)
S = np.linalg.svd(A, compute_uv=False)[:3]

def work():
    if threading.current_thread() is not threading.main_thread():
        threading.main_thread().join(60)
    assert threads.together(lambda: 7, lambda: None, 2) == 7
    found = trsvd.svds(A, 3, method=trsvd.ThickRestartLanczos(gram=True), tol=1e-8, rng=0)
    assert np.abs(found.S - S).max() <= 1e-8 * S[0]  # each is within its residual
    print("right", flush=True)

if {used}:
    trsvd.svds(A, 3, method=trsvd.ThickRestartLanczos(gram=True), tol=1e-8)
{start}
"""


@compiled
@pytest.mark.parametrize("used", [True, False])
@pytest.mark.parametrize(
    "start", ["threading.Thread(target=work).start()", "atexit.register(work)"]
)
def test_what_outlives_the_main_thread_goes_on_without_helpers(start, used):
    code = AFTER_THE_MAIN_THREAD.format(start=start, used=used)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


def one_step(steps, n: int, width: int, precision: str, gram: np.ndarray) -> None:
    """A block Lanczos step is a product with the Gram matrix, taken apart."""
    rng = np.random.default_rng(n)
    V = np.full((2 * width, n), np.nan, precision)
    V[:width] = np.linalg.qr(rng.standard_normal((n, width)))[0].T
    H, C = np.zeros((width, 2 * width)), np.zeros((2, width))
    assert steps(V, 0, H, C, 1e-6, 0.0) == 1
    H[range(width), range(width, 2 * width)] += C[0]
    tol = 100 * n * np.finfo(precision).eps * np.linalg.norm(gram, 2)
    assert np.abs(V[:width].astype(float) @ gram - H @ V).max() <= tol


@compiled
@pytest.mark.parametrize("helpers", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [5, 64, 71])
def test_products(three_threads, monkeypatch, rows, dtype, precision, width, helpers):
    if not helpers:
        monkeypatch.setattr(_threads, "together", lambda lead, *_: lead())
    rng = np.random.default_rng(rows)
    M = rng.standard_normal((rows, 37)).astype(dtype)
    exact = M.astype(float)
    ways = {kernels().FUSED: exact.T @ exact}
    if width == 1:
        ways[kernels().ACROSS] = exact @ exact.T
    for way, gram in ways.items():
        if len(gram) < 2 * width or rows < 2 * width:
            continue
        steps = shared_steps(M, way, width, precision)
        assert steps is not None
        one_step(steps, len(gram), width, precision, gram)


@compiled
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_sparse_products(three_threads, precision, shifted):
    A = sp.random(90, 40, 0.1, format="csr", random_state=1)
    A.data = A.data.astype(precision)
    A = sp.vstack([A, sp.csr_array((30, 40))], format="csr")  # rows without entries at the end
    rng = np.random.default_rng(1)
    shift = [rng.standard_normal(n if shifted else 0).astype(precision) for n in A.shape]
    B = A.toarray().astype(float) - (np.outer(*shift) if shifted else 0)
    gram = B.T @ B
    for width in (1, 4):
        steps = shared_sparse_steps(A.data, A.indices, A.indptr, *shift, 40, width, precision)
        one_step(steps, 40, width, precision, gram)


@compiled
@pytest.mark.parametrize("sparse", [False, True])
def test_a_helper_makes_the_parts_that_it_finds_and_leaves_when_told(sparse):
    shared, parts, n = shared_kernels(), 5, 40
    A = sp.random(90, n, 0.2, format="csr", random_state=1)
    V = np.random.default_rng(0).standard_normal((3, n))
    sums, between = np.full((parts, 1, n), np.nan), np.empty(n)
    edges = np.array([0, 20, 20, 31, 80, 90])
    counters = np.zeros(shared.COUNTERS, np.int64)
    if sparse:
        matrix = A.data, A.indices, A.indptr, np.empty(0), np.empty(0), edges, 1, sums
        assist = shared.help_sparse_gram_lanczos
    else:
        matrix = A.toarray(), edges, kernels().FUSED, 1, sums, between
        assist = shared.help_gram_lanczos
    shared._publish(counters, parts, 2, 0)
    helper = threading.Thread(target=assist, args=(*matrix, V, counters))
    helper.start()
    shared._wait_for_others(counters)
    counters[shared._OVER] = 1
    helper.join(30)
    assert not helper.is_alive()
    assert np.allclose(sums.sum(axis=0), V[2] @ (A.T @ A).toarray())


@compiled
def test_a_helper_that_is_forgotten_leaves_by_itself():
    shared = shared_kernels()
    M, V, counters = np.ones((8, 8)), np.ones((2, 8)), np.zeros(shared.COUNTERS, np.int64)
    edges, sums = np.array([0, 4, 8]), np.empty((2, 1, 8))
    shared.help_gram_lanczos(M, edges, kernels().FUSED, 1, sums, np.empty(8), V, counters)
    assert not counters.any()


@pytest.mark.parametrize(("sparse", "part"), [(False, 4 << 20), (True, 1 << 16)])
def test_no_more_threads_than_there_is_work_for(monkeypatch, sparse, part):
    monkeypatch.setattr(_threads, "threads_now", lambda: 64)
    found = [sharing_threads(n * part, sparse=sparse, beside=False) for n in (0, 1, 2, 9, 99)]
    assert found == [1, 1, 2, 9, 64]
    assert sharing_threads(2 * part, sparse=sparse, beside=True) == 1
    assert sharing_threads(99 * part, sparse=sparse, beside=True) == 64


@compiled
def test_one_thread_or_little_work_is_not_shared():
    M = np.ones((8, 8))
    assert shared_steps(M, kernels().FUSED, 1, "float64") is None
    A = sp.csr_array(M)
    none = np.empty(0)
    assert shared_sparse_steps(A.data, A.indices, A.indptr, none, none, 8, 1, "float64") is None


@compiled
def test_steps_end_where_a_product_leaves_nothing(three_threads):
    M = np.diag([3.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    V = np.zeros((6, 6))
    V[0, :3] = 3**-0.5
    H, C = np.zeros((5, 6)), np.zeros((2, 5))
    steps = shared_steps(M, kernels().FUSED, 1, "float64")
    assert steps(V, 0, H, C, 1e-12, 0.0) == 2
    A = sp.csr_array(M)
    none = np.empty(0)
    steps = shared_sparse_steps(A.data, A.indices, A.indptr, none, none, 6, 1, "float64")
    assert steps(V, 0, H, C, 1e-12, 0.0) == 2


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


def _meets_a_helper() -> None:
    assert not blas_rests()
    there = threading.Barrier(2)
    together(lambda: there.wait(20), lambda: there.wait(20), 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no affinity to set")
def test_helpers_leave_the_processor_to_who_leads(three_threads):
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is one processor")
    others, found, there = _threads._other_processors(), [], threading.Barrier(2)
    assert len(others) == len(allowed) - 1
    assert others < allowed

    def assist() -> None:
        found.append(os.sched_getaffinity(0))
        there.wait(30)

    together(lambda: there.wait(30), assist, 1)
    assert len(found[0]) == len(allowed) - 1
    assert os.sched_getaffinity(0) == allowed


def test_where_processors_are_not_known_helpers_help(three_threads, monkeypatch):
    monkeypatch.setattr(_threads, "_getcpu", lambda: None)
    assert not _threads._other_processors()
    there = threading.Barrier(2)
    assert together(lambda: there.wait(30), lambda: there.wait(30), 1) in (0, 1)


class Library:
    def __init__(self, had: int) -> None:
        self.has = had

    def get_num_threads(self) -> int:
        return self.has

    def set_num_threads(self, number: int) -> None:
        self.has = number


def test_a_blas_rests_until_the_last_who_asked_has_left(monkeypatch):
    one, many = Library(1), Library(4)
    monkeypatch.setattr(_threads, "_blas_libraries", lambda: (one, many))
    assert not blas_rests()
    with one_blas_thread():
        assert (one.has, many.has) == (1, 1)
        with one_blas_thread():
            assert blas_rests()
        assert (one.has, many.has) == (1, 1)
        inside, outside = threading.Event(), threading.Event()

        def other() -> None:
            with one_blas_thread():
                inside.set()
                outside.wait(30)

        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(30)
    assert many.has == 1  # one is left, who came later
    assert not blas_rests()  # but not this thread
    outside.set()
    thread.join(30)
    assert not blas_rests()
    assert (one.has, many.has) == (1, 4)
    with pytest.raises(KeyboardInterrupt), one_blas_thread():
        raise KeyboardInterrupt
    assert (one.has, many.has) == (1, 4)


def test_who_limits_a_blas_limits_threads(monkeypatch):
    one, many = Library(1), Library(4)
    monkeypatch.setattr(_threads, "threads", lambda: 3)
    monkeypatch.setattr(_threads, "_processors", lambda: 5)
    monkeypatch.setattr(_threads, "_blas_libraries", lambda: (one, many))
    assert _threads.threads_now() == 3
    with one_blas_thread():
        assert _threads.threads_now() == 3  # that limit is our own
    many.has = 2
    assert _threads.threads_now() == 2
    with one_blas_thread():
        assert _threads.threads_now() == 2
    monkeypatch.setattr(_threads, "_blas_libraries", lambda: ())
    assert _threads.threads_now() == 3
    monkeypatch.setattr(_threads, "_processors", lambda: 1)  # the caller was bound to one
    assert _threads.threads_now() == 1


@compiled
def test_a_helper_that_fails_is_not_waited_for():
    shared = shared_kernels()
    counters = np.zeros(shared.COUNTERS, np.int64)
    shared._publish(counters, 1, 0, 0)
    shared._give_up(counters)
    with pytest.raises(MemoryError, match="could not allocate memory"):
        shared._wait_for_others(counters)


def test_without_threadpoolctl_nothing_is_known_of_a_blas(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    _threads._blas_libraries.cache_clear()
    try:
        with one_blas_thread():
            assert not blas_rests()
    finally:
        _threads._blas_libraries.cache_clear()


@compiled
@pytest.mark.parametrize("method", ["trlan", "direct"])
def test_a_blas_rests_while_products_are_shared(three_threads, monkeypatch, method):
    many, seen = Library(4), []
    monkeypatch.setattr(_threads, "_blas_libraries", lambda: (many,))
    A = np.random.default_rng(5).random((300, 200))
    options = {"gram": True} if method == "trlan" else {}
    kind = {"trlan": trsvd.ThickRestartLanczos, "direct": trsvd.Direct}[method]

    class Seen(kind):
        def init(self, *arguments, **named):
            run = super().init(*arguments, **named)
            extract = run.extract

            def noting(*rest):
                seen.append(many.has)
                return extract(*rest)

            run.extract = noting
            return run

    trsvd.svds(A, 4, method=Seen(**options), rng=0)
    assert set(seen) == ({1} if method == "trlan" else {4})
    assert many.has == 4
    with pytest.raises(ZeroDivisionError):
        trsvd.svds(A, 4, method=kind(**options), rng=0, callback=lambda info: 1 / 0)
    assert many.has == 4


def test_a_loaded_blas_is_known():
    pytest.importorskip("threadpoolctl")
    assert _threads._blas_libraries()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks elsewhere are not safe")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*_at_fork:pytest.PytestUnraisableExceptionWarning")  # JAX's
def test_a_child_has_threads_of_its_own(three_threads):
    together(lambda: None, lambda: None, 2)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_meets_a_helper)
    with one_blas_thread():
        child.start()
    child.join(30)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()
