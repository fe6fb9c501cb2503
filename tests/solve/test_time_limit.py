"""time_limit= and progress= of svds, its relatives and the oracles."""

from __future__ import annotations

import io
import itertools
import warnings

import numpy as np
import pytest
import scipy.sparse
from rich.console import Console

import trsvd
from trsvd import Status
from trsvd._solve import driver, progress
from trsvd.testing import matrix_with_spectrum

M, N, K = 300, 200, 5
SLOW = np.linspace(1, 0.9, N)  # no gaps: every method takes many steps
A = matrix_with_spectrum(M, N, SLOW, rng=0)
METHODS = {
    "trlan": "trlan",
    "Gram": trsvd.ThickRestartLanczos(gram=True),
    "block": trsvd.ThickRestartLanczos(block_size=3),
    "rsvd": "rsvd",
    "krylov": "krylov",
    "power": "power",
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that runs by one second at each look."""
    seconds = itertools.count()
    monkeypatch.setattr(driver.time, "monotonic", lambda: float(next(seconds)))


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
        yield


@pytest.mark.parametrize("name", METHODS)
def test_a_run_stops_with_its_best_triplets(name, backend, clock):
    G = backend.asarray(A)
    full = trsvd.svds(G, K, method=METHODS[name], rng=0, verify=False, max_matvecs=100_000)
    result = trsvd.svds(G, K, method=METHODS[name], rng=0, time_limit=3)
    assert result.status is Status.TIME_LIMIT
    assert not result.converged
    assert result.matvecs < full.matvecs
    assert result.completeness.kind == "unchecked"
    U, S, Vh = (backend.to_numpy(x) for x in result)
    np.testing.assert_allclose(U.T @ U, np.eye(K), atol=1e-12)
    residuals = np.linalg.norm(A @ Vh.T - U * S, axis=0) / S[0]
    assert np.all(residuals <= result.residuals + 1e-12)
    assert np.all(SLOW[:K] + 1e-12 >= S)  # Ritz values are lower bounds


@pytest.mark.parametrize("name", METHODS)
def test_without_a_limit_that_is_reached_nothing_changes(name):
    plain = trsvd.svds(A, K, method=METHODS[name], rng=0, tol=1e-3)
    limited = trsvd.svds(A, K, method=METHODS[name], rng=0, tol=1e-3, time_limit=1e6)
    assert limited.status is plain.status
    np.testing.assert_allclose(limited.S, plain.S, rtol=1e-6)


def test_a_run_is_resumed(clock):
    stopped = trsvd.svds(A, K, method="trlan", rng=0, time_limit=3)
    resumed = trsvd.svds(A, K, state=stopped.state)
    assert resumed.converged
    assert resumed.matvecs > 0
    np.testing.assert_allclose(resumed.S, SLOW[:K], rtol=1e-9)


def test_a_sparse_matrix_and_an_operator(clock):
    sparse = scipy.sparse.csr_array(A)
    for G in (sparse, scipy.sparse.linalg.aslinearoperator(sparse)):
        assert trsvd.svds(G, K, method="trlan", time_limit=3).status is Status.TIME_LIMIT


def test_a_factorization_is_not_interrupted(clock):
    result = trsvd.svds(A, K, method="direct", time_limit=1e-3)
    assert result.converged
    np.testing.assert_allclose(result.S, SLOW[:K], rtol=1e-12)


def test_the_message_and_the_error(clock):
    with pytest.warns(trsvd.ConvergenceWarning, match="stopped at time_limit.*raise time_limit"):
        trsvd.svds(A, K, method="trlan", time_limit=3)
    with pytest.raises(trsvd.NotConverged, match="stopped at time_limit") as caught:
        trsvd.svds(A, K, method="trlan", time_limit=3, on_failure="raise")
    assert caught.value.result.S.shape == (K,)


def test_the_relatives(clock):
    result = trsvd.svds_to_tolerance(A, 0.5, method="trlan", time_limit=5)
    assert result.status is Status.TIME_LIMIT
    result = trsvd.svds_above(A, 0.95, method="trlan", time_limit=5)
    assert result.status is Status.TIME_LIMIT
    with pytest.warns(trsvd.ConvergenceWarning, match="time_limit"):
        values = trsvd.svdvals(A, K, method="trlan", time_limit=3)
    assert values.shape == (K,)


def test_the_time_of_a_batch_is_that_of_all_matrices(clock):
    batch = np.stack([A, A, A])
    result = trsvd.svds(batch, K, method="trlan", time_limit=3)
    assert result.status is Status.TIME_LIMIT
    assert result.U.shape == (3, M, K)
    # The first takes all of the time: the others stop as soon as they have k triplets.
    one = trsvd.svds(A, K, method="trlan", time_limit=3)
    assert result.matvecs < 3 * one.matvecs + 3


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "1", [1]])
def test_limits_that_are_refused_before_a_product(limit):
    class Never:
        shape, dtype = (M, N), np.dtype(float)

        def matmat(self, X):
            raise AssertionError("a product was made")

        rmatmat = matmat

    calls = (
        lambda: trsvd.svds(Never(), K, time_limit=limit),
        lambda: trsvd.svdvals(Never(), K, time_limit=limit),
        lambda: trsvd.KyFanDualBall(K).lmo(Never(), time_limit=limit),
    )
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="time_limit="):
            call()


# ---- oracles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"tol": 1e-10}, {"gap": 1e-9, "method": "krylov"}])
def test_oracles_stop_too(options, clock):
    result = trsvd.KyFanDualBall(K).lmo(A, time_limit=3, rng=0, **options)
    full = trsvd.KyFanDualBall(K).lmo(A, rng=0, **options)
    assert result.status is Status.TIME_LIMIT
    assert result.matvecs < full.matvecs
    D = result.update
    assert np.linalg.norm(D, 2) <= 1 + 1e-12
    attained = -np.vdot(A, D)
    np.testing.assert_allclose(result.support, attained, rtol=1e-12)
    assert 1 - attained / SLOW[:K].sum() <= result.gap


def test_one_call_oracles_take_the_limit(clock):
    options = {"tol": 1e-10, "method": "trlan", "time_limit": 3, "rng": 0}
    for call in (
        lambda: trsvd.kyfan_dual_lmo(A, K, **options),
        lambda: trsvd.nuclear_lmo(A, **options),
        lambda: trsvd.f_fanion_lmo(A, K, **options),
        lambda: trsvd.s_fanion_lmo(A, K, **options),
    ):
        with pytest.warns(trsvd.ConvergenceWarning, match="time_limit"):
            assert call().shape == (M, N)


# ---- progress -----------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that remembers what was written; displays are put there."""
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    made = progress.Display
    monkeypatch.setattr(progress, "Display", lambda: made(console))
    return console.file


def test_progress_is_shown_and_removed(terminal):
    result = trsvd.svds(A, K, method="trlan", rng=0, progress=True)
    text = terminal.getvalue()
    assert "of 5 triplets converged, largest residual" in text
    assert f"{result.matvecs} products" in text
    assert text.endswith("\x1b[2K")  # the line is cleared
    plain = trsvd.svds(A, K, method="trlan", rng=0)
    np.testing.assert_array_equal(result.U, plain.U)


def test_progress_is_removed_after_an_exception(terminal):
    def interrupt(info):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trsvd.svds(A, K, method="trlan", progress=True, callback=interrupt)
    assert terminal.getvalue().endswith("\x1b[2K")


def test_progress_writes_nothing_to_a_pipe(capfd):
    trsvd.svds(A, K, method="trlan", progress=True)
    trsvd.svds_above(A, 0.99, method="trlan", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.strip() == ""


def test_progress_is_a_truth_value():
    with pytest.raises(TypeError, match="progress=1 is not a truth value"):
        trsvd.svds(A, K, progress=1)
