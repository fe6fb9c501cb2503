"""One compiled call for a small matrix: against LAPACK, the general way, and itself."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from checks import eps_of

import trsvd
from trsvd._compiled import small
from trsvd._compiled.small import Ended
from trsvd._compiled.threads import _blas_threads
from trsvd._plan.certificate import certified_eta, steps_for
from trsvd._plan.small import job_for
from trsvd._solve.small import small_triplets_of

pytestmark = pytest.mark.skipif(not small.available(), reason="the extension is not built")

SHAPES = [(1, 1), (1, 7), (9, 1), (5, 3), (40, 40), (64, 20), (20, 300), (65, 90), (90, 65)]
SHAPES += [(130, 130), (300, 200), (200, 300), (1100, 70), (256, 256)]
SPECTRA = {
    "gaussian": None,
    "inverse": lambda i: 1 / i,
    "geometric": lambda i: 0.7**i,
    "root": lambda i: i**-0.5,
    "cluster at k": lambda i: np.where(i < 3, 2.0, np.where(i < 9, 1 + 1e-4 / i, 0.5 / i)),
    "plateau": lambda i: np.where(i <= 8, 1.0, 0.1),
    "levels": lambda i: 2.0 ** -((i - 1) // 3),
    "low rank": lambda i: np.where(i <= 2, 1.0, 0.0),
    "spike": lambda i: np.where(i == 1, 1e3, 1.0 / i),
}


def orthonormal(rng, m, n):
    return np.linalg.qr(rng.standard_normal((m, n)))[0]


def matrix(name, shape, dtype, rng):
    (m, n), q = shape, min(shape)
    if SPECTRA[name] is None:
        return rng.standard_normal(shape).astype(dtype)
    s = SPECTRA[name](np.arange(1, q + 1.0))
    return ((orthonormal(rng, m, q) * s) @ orthonormal(rng, n, q).T).astype(dtype)


def check(A, result, k, tol):
    """The triplets meet the tolerance, and belong to the leading values as far as certified."""
    A = np.asarray(A, np.float64)
    U, S, Vh = (np.asarray(x, np.float64) for x in result)
    eps, true = eps_of(str(result.U.dtype)), np.linalg.svd(A, compute_uv=False)
    top = true[0]
    rounding = 20 * eps * np.sqrt(max(A.shape))
    for X in (U, Vh.T):
        assert np.abs(X.T @ X - np.eye(k)).max() <= rounding
    forward = np.linalg.norm(A @ Vh.T - U * S, axis=0)
    backward = np.linalg.norm(A.T @ U - Vh.T * S, axis=0)
    assert np.maximum(forward, backward).max() <= (tol + rounding) * top
    known = result.completeness
    assert known.kind != "unchecked"
    limit = (1 + known.eta) * (S[-1] + (tol + known.slack) * top) + rounding * top
    assert (true[:k] <= np.maximum(S + tol * top + rounding * top, limit)).all()
    assert (true[:k] + rounding * top >= S).all()


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_results_are_right(shape, dtype, name, rng):
    A = matrix(name, shape, dtype, rng)
    for k in sorted({1, min(3, *shape), min(8, *shape), min(25, *shape)}):
        for tol in (1e-2, 1e-4, eps_of(dtype) ** 0.75):
            check(A, trsvd.svds(A, k, tol=tol, rng=k), k, tol)


@pytest.mark.parametrize("order", ["C", "F", "strided", "readonly", "reversed"])
@pytest.mark.parametrize(
    "shape", [(50, 30), (30, 50), (40, 40), (160, 120), (120, 160), (128, 128)]
)
def test_layouts(shape, order, rng):
    A = matrix("inverse", shape, "float64", rng)
    X = {
        "C": A,
        "F": np.asfortranarray(A),
        "strided": np.repeat(A, 2, axis=1)[:, ::2],
        "readonly": A.copy(),
        "reversed": A[::-1].copy()[::-1],
    }[order]
    X.flags.writeable = order != "readonly"
    before = X.copy()
    result = trsvd.svds(X, 5, rng=0)
    assert np.array_equal(X, before)
    assert (result.U.shape, result.Vh.shape) == ((shape[0], 5), (5, shape[1]))
    check(A, result, 5, 1.9e-12)
    largest = np.take_along_axis(result.U, np.abs(result.U).argmax(axis=0)[None], axis=0)
    assert (largest > 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(60, 40), (150, 120), (300, 200)])
def test_agrees_with_the_general_way_and_with_itself(shape, dtype, rng, monkeypatch):
    A, k = matrix("inverse", shape, dtype, rng), 6
    first, again = (trsvd.svds(A, k, rng=3) for _ in range(2))
    stack = trsvd.svds(np.stack([A, 2 * A, A]), k, rng=np.random.default_rng(3))
    for x, y in zip(first, again, strict=True):
        assert np.array_equal(x, y)
    assert np.array_equal(stack.U[0], stack.U[2])
    monkeypatch.setattr(small, "_leading", None)
    general = trsvd.svds(A, k, rng=3)
    eps = eps_of(dtype)
    np.testing.assert_allclose(first.S, general.S, atol=40 * eps * general.S[0])
    # A vector turns by the residual over the distance of its value.
    turned = np.sqrt(eps) if dtype == "float64" else 2e-3
    np.testing.assert_allclose(first.U, general.U, atol=turned)
    np.testing.assert_allclose(first.Vh, general.Vh, atol=turned)


def test_a_list_of_matrices_is_computed_as_each_alone(rng):
    matrices = [matrix("root", shape, "float32", rng) for shape in [(90, 80), (60, 70), (90, 80)]]
    ball = trsvd.KyFanDualBall(4)
    columns = [np.asfortranarray(G) for G in matrices]
    for G, result in zip(matrices, ball.lmo_many(columns, rng=5), strict=True):
        np.testing.assert_allclose(result.update, ball.lmo(G, rng=5).update, atol=1e-4)
    for options in ({"gap": 1e-2}, {"tol": 1e-3}, {}):
        together = ball.lmo_many(matrices, rng=5, **options)
        for G, result in zip(matrices, together, strict=True):
            alone = ball.lmo(G, rng=5, **options)
            assert np.array_equal(result.update, alone.update)
            assert (result.gap, result.gap_kind) == (alone.gap, alone.gap_kind)
            assert (
                result.terms[0].U.base is not together[0].terms[0].U.base or result is together[0]
            )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("gap", [0.3, 1e-2, 1e-4])
def test_gaps_of_oracles_hold(gap, name, dtype, rng):
    for shape in ((64, 48), (70, 200), (180, 150)):
        G = matrix(name, shape, dtype, rng)
        true = np.linalg.svd(G.astype(float), compute_uv=False)
        for k in (1, 4, 9):
            result = trsvd.KyFanDualBall(k).lmo(G, gap=gap, rng=k)
            attained = -float(np.vdot(result.update.astype(float), G))
            assert 1 - attained / true[:k].sum() <= min(result.gap, gap) + 20 * eps_of(dtype)
            assert np.linalg.norm(result.update.astype(float), 2) <= 1 + 100 * eps_of(dtype)


def test_gaps_of_a_low_rank_matrix_are_not_called_exact(rng):
    """The complement is exhausted, but the pairs have only been computed to the gap."""
    A = matrix("root", (200, 150), "float64", rng)
    U, S, Vh = np.linalg.svd(A)
    A = (U[:, :12] * S[:12]) @ Vh[:12]
    for gap in (0.5, 0.1, 1e-2):
        result = trsvd.KyFanDualBall(4).lmo(A, gap=gap, rng=0)
        true = 1 + float(np.vdot(result.update, A)) / S[:4].sum()
        assert true <= result.gap + 1e-12
        assert result.gap_kind == "estimate" or true <= 1e-12


def ended(A, k, tol=None, **how):
    (found,) = small_triplets_of([A], k, tol, 0, **how)
    return found


def test_what_it_leaves_to_the_general_way(rng):
    zero, one = np.zeros((30, 20)), rng.standard_normal((300, 250))
    for bad in (zero, zero + np.nan, zero + np.inf, zero + 1e-200, zero + 1e200):
        assert ended(bad, 2) is Ended.OUT_OF_RANGE
    assert (
        ended(rng.standard_normal((250, 3)) @ rng.standard_normal((3, 200)), 5) is Ended.DEFICIENT
    )
    assert ended(one, 60) is Ended.FLAT
    few_steps = replace(job_for(300, 250, 8, 5, 1e-8), most=12)
    *_, numbers = small.leading(one[None], few_steps, 0)
    assert numbers[0, small.STATUS] == Ended.NOT_CONVERGED
    for other in (one.astype(complex), one.astype(np.float16), one.astype(int), one[0], None):
        assert ended(other, 2) is None
    assert ended(scipy.sparse.csr_array(one), 2) is None
    assert ended(rng.standard_normal((600, 600)), 2) is None  # 2.9 MB
    assert ended(one.astype(one.dtype.newbyteorder()), 2) is None
    with pytest.raises(ValueError, match="NaN or inf"):
        trsvd.svds(zero + np.nan, 2)
    np.testing.assert_array_equal(trsvd.svds(zero, 2).S, 0)
    np.testing.assert_allclose(trsvd.svds(zero + 1e200, 1).S, 1e200 * 600**0.5)


def test_missed_values_are_reported(rng):
    """Values beside those of the Krylov space of one vector: as many copies as rows."""
    Q = orthonormal(rng, 200, 200)
    A = (Q * np.r_[np.ones(40), np.full(160, 0.1)]) @ orthonormal(rng, 200, 200).T
    found = ended(A, 10, 1e-6)
    assert found is Ended.MISSED or found is Ended.FLAT or found.S[-1] > 0.99
    np.testing.assert_allclose(trsvd.svds(A, 10).S, 1, rtol=1e-9)


def test_the_certificate_follows_from_the_steps(rng):
    A = matrix("root", (300, 200), "float64", rng)
    for verify, least in ((True, 8), (0.05, steps_for(200, 0.05, 1e-3))):
        result = trsvd.svds(A, 5, verify=verify, rng=0)
        steps = (result.matvecs_verify - 2 * 5) // 2
        assert steps >= least
        assert result.completeness.eta == certified_eta(200, steps, 1e-3)
        assert verify is True or result.completeness.eta <= verify
    assert trsvd.svds(A, 5, verify=False).completeness.kind == "unchecked"
    assert trsvd.svds(A, 1).completeness.kind == "random start"
    B = matrix("geometric", (300, 200), "float64", rng)
    assert trsvd.svds(B, 5).completeness.kind == "norm"


def test_a_state_continues(rng):
    A = matrix("root", (300, 200), "float64", rng)
    first = trsvd.svds(A, 5, tol=1e-3, rng=0)
    check(A, trsvd.svds(A, 5, state=first.state, tol=1e-10), 5, 1e-10)
    check(A, trsvd.svds(A, 8, state=first.state, rng=1), 8, 1.9e-12)
    assert "triplets of ThickRestartLanczos" in repr(first.state)


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (150, 150)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_starts(shape, dtype, rng):
    A, k = matrix("root", shape, dtype, rng), 6
    tol = eps_of(dtype) ** 0.75
    cold, wide = trsvd.svds(A, k, rng=0), trsvd.svds(A, 2 * k, rng=1)
    for start in (
        cold,
        wide,
        cold.Vh.T,
        np.asfortranarray(wide.Vh.T),
        wide.Vh.T.astype(np.float64),
    ):
        warm = trsvd.svds(A, k, rng=0, start=start)
        check(A, warm, k, tol)
        assert (warm.matvecs, warm.iterations) == (k, 1)
        assert warm.completeness == cold.completeness
    random = rng.standard_normal((shape[1], k))
    for useless in (wide.Vh[k:].T, random, 0 * random, np.ones_like(random), random[:, 0]):
        warm = trsvd.svds(A, k, rng=0, start=useless)
        assert np.array_equal(warm.S, cold.S)
        assert warm.matvecs <= cold.matvecs + k
    for bad in (random[1:], np.full_like(random, np.nan), random + 1j, "x"):
        with pytest.raises((ValueError, TypeError), match="start"):
            trsvd.svds(A, k, start=bad)


def frames_of(call):
    call()
    count = 0

    def hook(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(hook)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def test_calls_take_few_frames(rng):
    A = matrix("inverse", (300, 200), "float32", rng)
    ball = trsvd.KyFanDualBall(8)
    start = ball.lmo(A, gap=1e-2).subspace
    assert frames_of(lambda: trsvd.svds(A, 10, rng=0)) <= 60
    assert frames_of(lambda: trsvd.kyfan_dual_lmo(A, 8, rng=0)) <= 120
    assert frames_of(lambda: ball.lmo(A, gap=1e-2, start=start, rng=0)) <= 90


def test_buffers_of_wrong_sizes_are_refused():
    A = np.ones((1, 30, 20))
    job = job_for(30, 20, 8, 3, 1e-8)
    for wrong in ({"k": 0}, {"want": 2}, {"want": 21}, {"most": -1}):
        with pytest.raises((ValueError, TypeError)):
            small.leading(A, replace(job, **wrong), 0)
    with pytest.raises((ValueError, BufferError)):
        small._leading(
            "d",
            1,
            30,
            20,
            3,
            3,
            0,
            0,
            0,
            1,
            0,
            8,
            0,
            1e-8,
            0.0,
            0.0,
            1,
            A,
            b"",
            A[:, 0],
            A,
            A,
            A,
            A,
        )


def test_threads_share_it_and_blas_has_its_threads_back(rng):
    matrices = [matrix("root", (150, 130), "float64", rng) for _ in range(8)]
    expected = [trsvd.svds(A, 5, rng=i) for i, A in enumerate(matrices)]
    had, wrong = _blas_threads(), []

    def work(i):
        for _ in range(20):
            result = trsvd.svds(matrices[i], 5, rng=i)
            if not np.array_equal(result.U, expected[i].U):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert [count for _, count in _blas_threads()] == [count for _, count in had]


def test_it_can_be_switched_off():
    code = "import numpy as np, trsvd, trsvd._compiled.small as s; "
    code += "print(s.available(), trsvd.select_method(np.eye(100), 3).method)"
    for value, begins in (("0", "False Direct"), ("1", "True ThickRestartLanczos")):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={"TRSVD_COMPILED": value, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.startswith(begins)


def test_tensors_of_torch(rng):
    torch = pytest.importorskip("torch")
    A = matrix("inverse", (150, 90), "float32", rng)
    for X in (
        torch.asarray(A),
        torch.asarray(A).T.contiguous().T,
        torch.asarray(A, requires_grad=True),
    ):
        result = trsvd.svds(X, 5, rng=0)
        assert isinstance(result.U, torch.Tensor)
        assert not result.U.requires_grad
        check(A, trsvd.SVDResult(**{**vars(result), **numpy_of(result)}), 5, 6.5e-6)
    expected = trsvd.svds(A, 5, rng=0)
    assert np.array_equal(trsvd.svds(torch.asarray(A), 5, rng=0).S.numpy(), expected.S)


def numpy_of(result):
    return {name: getattr(result, name).numpy() for name in ("U", "S", "Vh")}
