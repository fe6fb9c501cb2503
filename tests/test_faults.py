"""What goes wrong around a run: interrupts, callbacks that raise, memory that is not there.

Operators that raise, lie or change stand in `test_hard_cases`.
"""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.sparse
from checks import METHODS, CountingOperator, assert_right, default_tol, value_bound

import trsvd
from trsvd import AdjointError, ConvergenceWarning, KyFanDualBall, svds
from trsvd._arrays import memory
from trsvd.testing import matrix_with_spectrum

A = matrix_with_spectrum(80, 70, 0.9 ** np.arange(70), rng=0)
S = 0.9 ** np.arange(70)
# Finished runs have nothing to go on with.
MINE = ("mine",)
RESUMABLE = [name for name in METHODS if not name.startswith("direct")]


class Interrupted(CountingOperator):
    """Raises in the product number ``at``, once."""

    at = -1
    error: type[BaseException] = KeyboardInterrupt

    def _look(self) -> None:
        if self.calls == self.at:
            self.calls += 1
            raise self.error(*MINE)

    def matmat(self, X):
        self._look()
        return super().matmat(X)

    def rmatmat(self, X):
        self._look()
        return super().rmatmat(X)


def bits(result):
    return [np.asarray(part).tobytes() for part in result]


# ---- interrupts --------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
@pytest.mark.parametrize("method", RESUMABLE)
def test_a_state_survives_an_interrupt(method, error):
    """Wherever a run that goes on from a state is cut short, the state goes on as before."""
    operator = Interrupted(A)
    operator.error = error
    first = svds(operator, 3, method=METHODS[method], tol=1e-3, rng=0)
    before = operator.calls
    expected = bits(svds(operator, 5, state=first.state, tol=1e-7))
    total = operator.calls - before
    for j in {0, 1, 2, 5, total // 2, total - 1}:
        operator.calls, operator.at = 0, j
        with pytest.raises(error, match="mine"):
            svds(operator, 5, state=first.state, tol=1e-7)
        operator.at = -1
        assert bits(svds(operator, 5, state=first.state, tol=1e-7)) == expected


@pytest.mark.parametrize("method", RESUMABLE)
def test_a_state_survives_a_callback_that_raises(method):
    class Enough(Exception):
        pass

    def callback(info):
        info.triplets()
        raise Enough

    first = svds(A, 3, method=METHODS[method], tol=1e-3, rng=0)
    expected = bits(svds(A, 5, state=first.state, tol=1e-7))
    with pytest.raises(Enough):
        svds(A, 5, state=first.state, tol=1e-7, callback=callback)
    assert bits(svds(A, 5, state=first.state, tol=1e-7)) == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("method", METHODS)
def test_what_a_callback_raises_comes_through(method, error):
    def callback(info):
        raise error(*MINE)

    with pytest.raises(error, match="mine"):
        svds(A, 3, method=METHODS[method], callback=callback, rng=0)


def test_an_interrupt_leaves_the_matrix_and_the_start_alone():
    operator = Interrupted(A.copy())
    operator.at = 7
    start = np.ones((70, 3))
    with pytest.raises(KeyboardInterrupt):
        svds(operator, 3, method="trlan", start=start)
    assert np.array_equal(operator.A, A)
    assert np.array_equal(start, np.ones((70, 3)))


@pytest.mark.parametrize("gap", [None, 1e-3])
def test_an_oracle_interrupted_in_a_warm_step_can_be_asked_again(gap):
    ball = KyFanDualBall(4)
    first = ball.lmo(A, gap=gap, rng=0)
    moved = A + 1e-4 * np.random.default_rng(1).standard_normal(A.shape)
    expected = ball.lmo(moved, gap=gap, start=first, rng=0).update
    operator = Interrupted(moved)
    operator.at = 1
    with pytest.raises(KeyboardInterrupt):
        ball.lmo(operator, gap=gap, start=first, rng=0)
    assert np.array_equal(ball.lmo(moved, gap=gap, start=first, rng=0).update, expected)


# ---- products that are wrong once --------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, 0.0])
def test_one_product_is_wrong(method, value):
    """One block of products has one wrong entry, once: refused, unconverged, or right anyway."""

    class Glitch(CountingOperator):
        at = -1

        def rmatmat(self, X):
            Y = super().rmatmat(X)
            if self.calls == self.at:
                Y[5] = value
            return Y

    clean = Glitch(A)
    svds(clean, 3, method=METHODS[method], rng=0)
    total = clean.calls
    for j in sorted({1, 2, 3, 6, total // 2, total - 1, total}):
        operator = Glitch(A)
        operator.at = j
        with warnings.catch_warnings(), np.errstate(invalid="ignore", over="ignore"):
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                result = svds(operator, 3, method=METHODS[method], rng=0, max_matvecs=2000)
            except (AdjointError, ValueError):
                continue
        if result.converged:
            bound = value_bound(3, default_tol("float64"), A.shape, A.dtype)
            assert np.abs(result.S - S[:3]).max() <= bound, (j, total)


@pytest.mark.parametrize("gap", [None, 1e-3])
@pytest.mark.parametrize("k", [3, 70])
def test_an_oracle_of_an_operator_that_returns_nan(gap, k):
    class Sick(CountingOperator):
        def matmat(self, X):
            return super().matmat(X) * (np.nan if self.calls > 2 else 1.0)

    with pytest.raises(ValueError, match="NaN|finite"):
        KyFanDualBall(k).lmo(Sick(A), gap=gap, rng=0)


@pytest.mark.parametrize("dtype", [object, "U8", "datetime64[s]"])
def test_products_that_are_no_numbers(dtype):
    class Odd(CountingOperator):
        def matmat(self, X):
            return np.zeros((80, X.shape[1])).astype("i8").astype(dtype)

    with pytest.raises((TypeError, ValueError), match="matmat"):
        svds(Odd(A), 3, method="trlan")


@pytest.mark.parametrize("dtype", ["int32", "bool", "float16", "float32", "longdouble"])
def test_products_in_another_dtype_are_not_believed_to_be_exact(dtype):
    """Rounded or cut off, they are not the products of one matrix to full precision."""

    class Rounded(CountingOperator):
        def matmat(self, X):
            return super().matmat(X).astype(dtype)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            result = svds(Rounded(A), 3, method="trlan", rng=0, max_matvecs=2000)
        except (AdjointError, TypeError, ValueError):
            return
    if result.converged:
        assert_right(A, result, 3, s=S)


# ---- memory --------------------


GIB = 2**30


class Diagonal:
    """A diagonal matrix known by its products."""

    def __init__(self, n: int) -> None:
        self.shape, self.dtype, self.d = (n, n), np.dtype(float), np.linspace(2, 1, n)[:, None]

    def matmat(self, X):
        return self.d * X

    rmatmat = matmat


@pytest.fixture
def little(monkeypatch):
    """A machine with a third of a gibibyte."""
    monkeypatch.setattr(memory, "free_bytes", lambda: GIB // 3)


@pytest.mark.parametrize(
    "method",
    ["trlan", trsvd.ThickRestartLanczos(block_size=10), "krylov", "rsvd", "power", "direct"],
)
def test_a_basis_that_does_not_fit_is_refused_before_it_is_allocated(little, method):
    operator = Diagonal(200_000)
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError, match=r"would take .* GiB, and 0\.333 GiB of memory"):
            svds(operator, 200, method=method, rng=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < GIB // 16


def test_a_sparse_matrix_that_does_not_fit_dense_is_refused(little):
    B = scipy.sparse.eye_array(20_000, format="csr")
    with pytest.raises(MemoryError, match="20000 x 20000 matrix as an array"):
        svds(B, 3, method="direct")


def test_a_resumed_run_that_grows_too_large_is_refused(little):
    operator = Diagonal(100_000)
    with pytest.warns(ConvergenceWarning):
        first = svds(operator, 2, method="trlan", rng=0, max_matvecs=60)
    with pytest.raises(MemoryError, match="basis"):
        svds(operator, 400, state=first.state)
    assert svds(operator, 2, state=first.state, tol=0.5, verify=False).converged


def test_what_fits_is_not_refused(little):
    assert svds(Diagonal(3000), 3, tol=1e-2, method="trlan", rng=0).converged


@pytest.mark.parametrize(
    ("meminfo", "group", "expected"),
    [
        ("MemTotal: 9 kB\nMemAvailable:  1000 kB\nSwapFree: 24 kB\n", {}, 1024 * 1024),
        ("MemAvailable: 1000 kB\n", {"max": "max\n", "current": "5\n"}, 1_024_000),
        (
            "MemAvailable: 1000 kB\n",
            {"max": "5000\n", "current": "3000\n", "stat": "anon 7\ninactive_file 500\n"},
            2500,
        ),
        ("", {"max": "5000\n", "current": "3000\n"}, 2000),
        ("nothing of the kind\n", {}, None),
        (None, {}, None),
    ],
)
def test_free_memory_as_the_system_says(monkeypatch, tmp_path, meminfo, group, expected):
    if meminfo is not None:
        (tmp_path / "meminfo").write_text(meminfo)
    for name, text in group.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory.free_bytes() == expected


def test_without_knowledge_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    memory.check_room(2**60, "anything")
