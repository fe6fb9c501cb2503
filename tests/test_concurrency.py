"""Threads, pickles, forks and repetitions: the same question has the same answer."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from checks import METHODS, eps_of, value_bound

import trsvd
from trsvd import compat, svds

THREADS = 8
ROOT = Path(trsvd.__file__).parents[1]
SHAPE = (100, 70)
RATIO = 0.8


def matrix(kind="dense"):
    """Singular values 1, 0.8, 0.64, ...; complex where the kind says so."""
    rng = np.random.default_rng(0)
    m, n = SHAPE
    left, right = rng.standard_normal((m, n)), rng.standard_normal((n, n))
    if kind == "complex":
        left, right = left + 1j * rng.standard_normal((m, n)), right + 1j * right[::-1]
    A = np.linalg.qr(left)[0] * RATIO ** np.arange(n) @ np.linalg.qr(right)[0].conj().T
    if kind == "float32":
        return A.astype(np.float32)
    if kind == "sparse":
        return scipy.sparse.csr_array(A)
    return scipy.sparse.linalg.aslinearoperator(A) if kind == "operator" else A


def digest(result):
    """The bits of U, S and Vh."""
    return [np.ascontiguousarray(part).tobytes() for part in result]


def at_once(function, arguments):
    """What ``function`` gives for each argument, all threads let go at the same moment."""
    barrier = Barrier(len(arguments))

    def wait_and_call(argument):
        barrier.wait()
        return function(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(wait_and_call, arguments))


def in_fresh_interpreter(code, *arguments, **environment):
    """What a new Python prints; it has ten minutes, so that what hangs is seen."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


# ---- threads ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dense", "float32", "complex", "sparse", "operator"])
@pytest.mark.parametrize("method", METHODS)
def test_threads_give_what_each_gives_alone(method, kind):
    A = matrix(kind)

    def call(seed):
        return digest(svds(A, 4, method=METHODS[method], rng=seed, tol=1e-4))

    alone = [call(seed) for seed in range(THREADS)]
    assert at_once(call, range(THREADS)) == alone


def test_threads_of_the_default_method_of_oracles_and_of_drop_ins():
    A, ball = matrix(), trsvd.KyFanDualBall(3)
    calls = [
        lambda: digest(svds(A, 4, rng=0)),
        lambda: digest(svds(A.T, 4, rng=0)),
        lambda: [ball.lmo(A, rng=0).update.tobytes()],
        lambda: [trsvd.spectral_lmo(A).tobytes()],
        lambda: digest(compat.svds(A, 4, rng=0)),
        lambda: digest(compat.randomized_svd(A, 4, random_state=0)),
        lambda: digest(trsvd.svds_to_tolerance(A, 0.1, rng=0)),
        lambda: digest(trsvd.svds_above(A, 0.5, rng=0)),
    ]
    alone = [call() for call in calls]
    assert len(calls) == THREADS
    for _ in range(3):
        assert at_once(lambda call: call(), calls) == alone


@pytest.mark.parametrize("method", METHODS)
def test_threads_that_go_on_from_one_state(method):
    A = matrix()
    first = svds(A, 3, method=METHODS[method], tol=1e-2, rng=0)
    before = digest(first)

    def go_on(_):
        return digest(svds(A, 6, state=first.state, tol=1e-6))

    alone = go_on(0)
    assert at_once(go_on, range(THREADS)) == [alone] * THREADS
    assert digest(first) == before
    assert go_on(0) == alone, "a state is not used up"


def test_one_bad_call_does_not_disturb_the_others():
    A, bad = matrix(), matrix()
    bad[3, 3] = np.nan

    def call(i):
        try:
            return digest(svds(bad if i % 2 else A, 4, method="trlan", rng=0))
        except ValueError as error:
            return str(error)

    found = at_once(call, range(THREADS))
    assert found[::2] == [digest(svds(A, 4, method="trlan", rng=0))] * (THREADS // 2)
    assert all("NaN or inf" in text for text in found[1::2])


def test_the_first_calls_of_a_process_from_threads():
    # Whatever is imported, compiled or cached on the first call is so by eight threads at a time.
    code = """
        import hashlib, sys, threading
        import numpy as np
        from trsvd import KyFanDualBall, ThickRestartLanczos, svds

        A = np.random.default_rng(0).standard_normal((300, 250)) * 0.9 ** np.arange(250)
        barrier, found = threading.Barrier(8), [None] * 8

        def call(i):
            barrier.wait()
            parts = [*svds(A, 4, method=ThickRestartLanczos(gram=True), rng=0, tol=1e-6)]
            parts.append(KyFanDualBall(3).lmo(A, rng=0).update)
            found[i] = hashlib.sha256(b"".join(x.tobytes() for x in parts)).hexdigest()

        threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(*found)
    """
    found = in_fresh_interpreter(code)
    assert len(found) == THREADS
    assert found == found[:1] * THREADS
    assert found[0] != "None"


# ---- pickles --------------------------------------------------------------------------------


COPIES = [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy]


@pytest.mark.parametrize("copied", COPIES, ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("method", METHODS)
def test_results_and_states_can_be_copied(method, copied, backend):
    A = backend.asarray(matrix())
    first = svds(A, 3, method=METHODS[method], tol=1e-2, rng=0)
    twin = copied(first)
    for name in ("converged", "status", "matvecs", "passes", "method", "completeness"):
        assert getattr(twin, name) == getattr(first, name)
    assert np.array_equal(twin.residuals, first.residuals)
    for part, other in zip(first, twin, strict=True):
        assert np.array_equal(backend.to_numpy(part), backend.to_numpy(other))
    on, there = (svds(A, 6, state=one.state, tol=1e-6) for one in (first, twin))
    assert on.converged
    assert there.matvecs == on.matvecs
    for part, other in zip(on, there, strict=True):
        assert backend.owns(other)
        assert np.array_equal(backend.to_numpy(part), backend.to_numpy(other))


@pytest.mark.parametrize("kind", ["sparse", "operator", "complex"])
@pytest.mark.parametrize("shape", ["tall", "wide"])
def test_states_of_other_matrices(kind, shape):
    A = matrix(kind)
    A = A.adjoint() if kind == "operator" and shape == "wide" else A.T if shape == "wide" else A
    first = svds(A, 3, method="trlan", tol=1e-2, rng=0)
    twin = pickle.loads(pickle.dumps(first.state))
    assert digest(svds(A, 6, state=twin)) == digest(svds(A, 6, state=first.state))


def test_a_state_does_not_hold_the_matrix():
    # Else a pickle would carry it, and an operator that cannot be pickled would forbid it.
    A = np.random.default_rng(0).standard_normal((1000, 900))
    first = svds(A, 2, method="trlan", tol=1e-2, rng=0)
    assert len(pickle.dumps(first)) < A.nbytes / 4


@pytest.mark.parametrize("copied", COPIES, ids=["pickle", "deepcopy"])
def test_subspaces(copied):
    A, ball = matrix(), trsvd.KyFanDualBall(3)
    moved = A + 1e-3 * np.random.default_rng(1).standard_normal(A.shape)
    first = ball.lmo(A, gap=1e-3, rng=0).subspace
    steps = [ball.lmo(moved, gap=1e-3, start=one, rng=0) for one in (first, copied(first))]
    assert np.array_equal(steps[0].update, steps[1].update)
    again = svds(moved, 3, start=copied(trsvd.Subspace(first.U, first.Vh)), rng=0, method="trlan")
    assert again.converged


def test_a_state_in_a_process_of_its_own(tmp_path):
    A = matrix()
    first = svds(A, 3, method="trlan", tol=1e-2, rng=0)
    path = tmp_path / "state.pickle"
    path.write_bytes(pickle.dumps((A, first)))
    code = """
        import hashlib, pathlib, pickle, sys
        import trsvd
        A, first = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
        result = trsvd.svds(A, 6, state=first.state)
        print(result.matvecs, *[float(s).hex() for s in result.S])
    """
    here = svds(A, 6, state=first.state)
    matvecs, *S = in_fresh_interpreter(code, str(path))
    assert int(matvecs) == here.matvecs
    assert [float.fromhex(s) for s in S] == list(here.S)


# ---- forks ----------------------------------------------------------------------------------


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the libraries of macOS do not survive a fork"
)
def test_forks_after_use():
    code = """
        import hashlib, multiprocessing, sys, warnings
        import numpy as np
        import scipy.sparse
        from trsvd import KyFanDualBall, ThickRestartLanczos, svds

        # Python warns of forks in a process that has threads, as those of a BLAS.
        warnings.simplefilter("ignore", DeprecationWarning)
        A = np.random.default_rng(0).standard_normal((600, 500)) * 0.9 ** np.arange(500)
        sparse = scipy.sparse.csr_array(A * (abs(A) > 0.01))
        first = svds(A, 3, method="trlan", tol=1e-2, rng=0)

        def digest():
            parts = [*svds(A, 4, rng=0), *svds(sparse, 4, rng=0), *svds(A, 4, method="direct")]
            parts += svds(A, 4, method=ThickRestartLanczos(gram=True), rng=0, tol=1e-6)
            parts += svds(A, 6, state=first.state)
            parts.append(KyFanDualBall(3).lmo(A, rng=0).update)
            return hashlib.sha256(b"".join(np.array(x).tobytes() for x in parts)).hexdigest()

        def child(queue):
            queue.put(digest())

        here = digest()
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        children = [context.Process(target=child, args=(queue,)) for _ in range(2)]
        for process in children: process.start()
        there = [queue.get(timeout=300) for _ in children]
        for process in children: process.join()
        print(here, digest(), *there)
    """
    found = in_fresh_interpreter(code)
    assert len(found) == 4
    assert found == found[:1] * 4


# ---- repetitions ----------------------------------------------------------------------------


def test_a_seed_fixes_the_bits_in_every_process():
    code = """
        import hashlib
        import numpy as np
        from trsvd import svds
        from trsvd.compat import randomized_svd

        A = np.random.default_rng(0).standard_normal((200, 120)) * 0.9 ** np.arange(120)
        for method in ("trlan", "rsvd", "krylov", "power", "direct", None):
            parts = svds(A, 4, method=method, rng=7, tol=1e-5)
            print(hashlib.sha256(b"".join(x.tobytes() for x in parts)).hexdigest())
        parts = randomized_svd(A, 4, random_state=7)
        print(hashlib.sha256(b"".join(x.tobytes() for x in parts)).hexdigest())
    """
    one, other = (in_fresh_interpreter(code, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    assert len(one) == 7
    assert one == other


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_fixes_the_bits_and_the_counts(method, backend):
    A = backend.asarray(matrix())
    one, other = (svds(A, 4, method=METHODS[method], rng=3, tol=1e-4) for _ in range(2))
    assert (one.matvecs, one.iterations) == (other.matvecs, other.iterations)
    for part, again in zip(one, other, strict=True):
        assert np.array_equal(backend.to_numpy(part), backend.to_numpy(again))
    seeded = svds(A, 4, method=METHODS[method], rng=np.random.default_rng(3), tol=1e-4)
    assert np.array_equal(backend.to_numpy(seeded.S), backend.to_numpy(one.S))


def layouts(A):
    big = np.zeros((2 * A.shape[0], 3 * A.shape[1]), A.dtype)
    big[::2, ::3] = A
    yield np.asfortranarray(A)
    yield big[::2, ::3]
    yield np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1]
    yield A.astype(A.dtype.newbyteorder(">"))


def assert_same_to(tol, A, one, other):
    """Values and vectors within what residuals of ``tol`` allow."""
    dtype, k = one.U.dtype, len(one.S)
    assert np.abs(one.S - other.S).max() <= 2 * value_bound(k, tol, A.shape, dtype)
    # Davis and Kahan: an angle is the residual over the distance to the other values, twice as
    # each is that far from the truth; phases are fixed by an entry of at least m**-0.5.
    gap = RATIO ** (k - 1) * (1 - RATIO)
    level = 4 * (2 * k) ** 0.5 * (tol + max(A.shape) * eps_of(dtype)) / gap
    assert np.abs(one.U - other.U).max() <= level
    assert np.abs(one.Vh - other.Vh).max() <= level


@pytest.mark.parametrize("kind", ["dense", "float32", "complex"])
@pytest.mark.parametrize("method", METHODS)
def test_layouts_agree_to_the_tolerance(method, kind):
    A = matrix(kind)
    one = svds(A, 4, method=METHODS[method], rng=0)
    tol = eps_of(A.dtype) ** 0.75
    for B in layouts(A):
        other = svds(B, 4, method=METHODS[method], rng=0)
        assert_same_to(tol, A, one, other)
        again = svds(B, 4, method=METHODS[method], rng=0)
        assert digest(other) == digest(again), "one layout has one answer, to the bit"


def test_block_sizes_agree_to_the_tolerance():
    A = matrix()
    results = [
        svds(A, 4, method=trsvd.ThickRestartLanczos(block_size=b), rng=0) for b in (1, 2, 3, 5)
    ]
    for result in results[1:]:
        assert_same_to(eps_of("float64") ** 0.75, A, results[0], result)


def test_numbers_of_blas_threads_agree_to_the_tolerance():
    code = """
        import numpy as np
        from trsvd import svds
        A = np.random.default_rng(0).standard_normal((400, 300)) * 0.9 ** np.arange(300)
        for method in ("trlan", "rsvd", "direct"):
            print(*[float(s).hex() for s in svds(A, 4, method=method, rng=0).S])
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    one, two = (
        [float.fromhex(s) for s in in_fresh_interpreter(code, **dict.fromkeys(names, count))]
        for count in ("1", "2")
    )
    assert len(one) == 12
    bound = 2 * value_bound(4, eps_of("float64") ** 0.75, (400, 300), "float64")
    assert np.abs(np.subtract(one, two)).max() <= bound * max(one)
