"""Many matrices at once: each as good as by itself, whatever its neighbours are."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from checks import eps_of

import trsvd
from trsvd import FrobeniusBall, KyFanDualBall, MaxBall, SpectralBall

SHAPES = [(40, 30), (30, 40)]
on_shapes = pytest.mark.parametrize("shape", SHAPES, ids=["tall", "wide"])


@pytest.fixture(params=["array_api_strict"])
def stacking(request):
    """A library whose matrices go into one stack; NumPy's do not."""
    library = pytest.importorskip(request.param)
    return lambda hosts: [library.asarray(G) for G in hosts]


@pytest.fixture
def no_single(monkeypatch):
    """A function after which nothing may be left to the solver of single matrices."""

    def alone(*args, **options):
        raise AssertionError("a single matrix")

    return lambda: monkeypatch.setattr("trsvd._oracles.batched.leading_pairs", alone)


def true_gap(G, k, D):
    wide = "complex128" if np.iscomplexobj(G) else "float64"
    G, D = G.astype(wide), D.astype(wide)
    support = np.linalg.svd(G, compute_uv=False)[:k].sum()
    return 1 + float(np.real(np.vdot(D, G))) / support if support else 0.0


def decaying(rng, shape, dtype="float64", scale=1.0):
    U = np.linalg.qr(rng.standard_normal((shape[0], 30)))[0]
    V = np.linalg.qr(rng.standard_normal((shape[1], 30)))[0]
    G = (U * (scale / np.arange(1, 31))) @ V.T
    if dtype.startswith("complex"):
        G = G * np.exp(1j * rng.uniform(0, 6, (1, shape[1])))
    return G.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("k", [1, 5, 12, 30])
@on_shapes
def test_exact(shape, k, dtype, backend, rng):
    if dtype not in backend.dtypes:
        pytest.skip("not a dtype of this library")
    hosts = [decaying(rng, shape, dtype) for _ in range(4)]
    results = KyFanDualBall(k).lmo_many([backend.asarray(G) for G in hosts])
    for G, result in zip(hosts, results, strict=True):
        assert backend.owns(result.update)
        assert result.status.converged
        assert result.gap_kind == "exact"
        D = backend.to_numpy(result.update)
        assert true_gap(G, k, D) <= result.gap
        S = np.linalg.svd(D, compute_uv=False)
        assert abs(S[:k] - 1).max() <= 100 * eps_of(dtype)
        assert result.support == pytest.approx(
            np.linalg.svd(G, compute_uv=False)[:k].sum(), rel=100 * eps_of(dtype)
        )
        assert result.matvecs > 0


@on_shapes
def test_warm_steps(shape, backend, rng):
    ball, hosts = KyFanDualBall(4), [decaying(rng, shape) for _ in range(5)]
    starts, passes = None, []
    for step in range(6):
        hosts = [G + 0.003 * decaying(rng, shape) for G in hosts]
        if step == 4:  # one of them is another matrix from here on
            hosts[2] = decaying(rng, shape)
        results = ball.lmo_many(
            [backend.asarray(G) for G in hosts], gap=1e-2, rng=step, start=starts
        )
        for G, result in zip(hosts, results, strict=True):
            assert true_gap(G, 4, backend.to_numpy(result.update)) <= 1e-2
            assert result.gap <= 1e-2
            U, Vh = (backend.to_numpy(factor) for factor in result.factors)
            assert abs(U.conj().T @ U - np.eye(4)).max() <= 1e-13
            assert abs(Vh @ Vh.conj().T - np.eye(4)).max() <= 1e-13
        starts = [result.subspace for result in results]
        passes.append([result.passes for result in results])
    # The others do not pay for the one that was lost.
    assert max(passes[5]) <= 2
    assert max(np.delete(passes[4], 2)) <= 2 < passes[4][2] or passes[4][2] == 1


def test_shapes_and_libraries_in_any_order(backend, rng):
    shapes = [(40, 30), (30, 40), (40, 30), (5, 7), (30, 40), (40, 30)]
    hosts = [decaying(rng, s) if min(s) >= 30 else rng.standard_normal(s) for s in shapes]
    given = [backend.asarray(G) for G in hosts[:-1]] + [hosts[-1]]
    results = KyFanDualBall(3).lmo_many(given)
    for G, A, result in zip(hosts, given, results, strict=True):
        assert type(result.update) is type(A)
        update = result.update if A is hosts[-1] else backend.to_numpy(result.update)
        np.testing.assert_allclose(update, KyFanDualBall(3).lmo(G).update, atol=1e-10)


@pytest.mark.parametrize("gap", [None, 1e-2])
def test_members_that_are_special(gap, backend, rng):
    hosts = [decaying(rng, (40, 30), "float32", scale) for scale in (1.0, 1e-30, 1e30, 1.0)]
    hosts[3] = np.zeros((40, 30), "float32")
    low = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    hosts.append(low.astype("float32"))
    results = KyFanDualBall(4).lmo_many([backend.asarray(G) for G in hosts], gap=gap, rng=0)
    for G, result in zip(hosts, results, strict=True):
        D = backend.to_numpy(result.update)
        assert true_gap(G, 4, D) <= (gap or 1e-5)
    assert np.all(backend.to_numpy(results[3].update) == 0)
    assert np.linalg.matrix_rank(backend.to_numpy(results[4].update)) == 2
    starts = [result.subspace for result in results]
    again = KyFanDualBall(4).lmo_many(
        [backend.asarray(G) for G in hosts], gap=1e-2, rng=1, start=starts
    )
    for G, result in zip(hosts, again, strict=True):
        assert true_gap(G, 4, backend.to_numpy(result.update)) <= 1e-2


@on_shapes
def test_one_call(shape, backend, rng):
    hosts = np.stack([decaying(rng, shape) for _ in range(6)]).reshape(2, 3, *shape)
    G = backend.asarray(hosts)
    for update, ball in (
        (trsvd.kyfan_dual_lmo(G, 3, radius=2.0), 2 * KyFanDualBall(3)),
        (trsvd.spectral_lmo(G), SpectralBall()),
        (trsvd.f_fanion_lmo(G, 3), 0.5 * KyFanDualBall(3) + 0.5 * FrobeniusBall()),
        (trsvd.max_lmo(G), MaxBall()),
    ):
        assert backend.owns(update)
        assert tuple(update.shape) == hosts.shape
        D = backend.to_numpy(update)
        for i in np.ndindex(2, 3):
            np.testing.assert_allclose(D[i], ball.lmo(hosts[i]).update, atol=1e-11)


def test_half_precision(rng):
    torch = pytest.importorskip("torch")
    G = torch.tensor(np.stack([decaying(rng, (40, 30)) for _ in range(3)])).to(torch.bfloat16)
    update = trsvd.kyfan_dual_lmo(G, 3)
    assert update.dtype == torch.bfloat16
    for i in range(3):
        assert true_gap(G[i].float().numpy(), 3, update[i].float().numpy()) <= 1e-2


def test_a_result_does_not_keep_the_whole_batch(backend, rng):
    """The subspace of one is handed on to the next step: with it no other's may stay in memory."""
    hosts = [decaying(rng, (40, 30)) for _ in range(50)]
    results = KyFanDualBall(2).lmo_many([backend.asarray(G) for G in hosts], gap=1e-2)
    alone = KyFanDualBall(2).lmo(backend.asarray(hosts[0]), gap=1e-2)
    if backend.name not in {"numpy", "torch"}:
        pytest.skip("its arrays are no views")
    assert len(pickle.dumps(results[0])) <= 2 * len(pickle.dumps(alone))
    if backend.name == "numpy":
        for part in (results[0].subspace.U, results[0].subspace.Vh):
            owner = part if part.base is None else part.base
            assert owner.nbytes <= 50 * 8 * 40


@pytest.mark.parametrize("many", [False, True], ids=["alone", "many"])
@pytest.mark.parametrize("k", [1, 4])
def test_a_few_of_the_smallest_numbers(k, many):
    """Singular values that are no multiples of the smallest number are not those of float64."""
    smallest = 5e-324
    G = np.array([[0, -1, 0, 1], [-1, 0, -1, -1], [-1, 0, -1, 0], [0, 1, 1, -1]]) * smallest
    ball = KyFanDualBall(k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
        result = ball.lmo_many([G, G])[1] if many else ball.lmo(G)
    assert true_gap(G / smallest, k, result.update) <= result.gap


def test_values_beyond_the_dtype(backend):
    """An update has entries of at most 1, whatever the singular values are."""
    hosts = [np.full((8, 5), 3e38, "float32"), np.full((8, 5), 2e38, "float32")]
    given = [backend.asarray(G) for G in hosts]
    for results in (KyFanDualBall(3).lmo_many(given), [KyFanDualBall(3).lmo(G) for G in given]):
        for G, result in zip(hosts, results, strict=True):
            assert result.support == pytest.approx(np.linalg.norm(G.astype(float)), rel=1e-5)
            assert true_gap(G.astype(float), 3, backend.to_numpy(result.update)) <= 1e-5


def test_certified(backend, rng):
    hosts = [decaying(rng, (40, 30)) for _ in range(3)]
    given = [backend.asarray(G) for G in hosts]
    first = KyFanDualBall(3).lmo_many(given, gap=1e-2, rng=0)
    for start in (None, [result.subspace for result in first]):
        results = KyFanDualBall(3).lmo_many(given, gap=1e-2, rng=1, certify=True, start=start)
        for G, result in zip(hosts, results, strict=True):
            assert result.gap_kind in {"bound", "exact"}
            assert true_gap(G, 3, backend.to_numpy(result.update)) - 1e-13 <= result.gap <= 1e-2


def test_bad_input(backend, rng):
    ball = KyFanDualBall(2)
    G = [backend.asarray(decaying(rng, (40, 30))) for _ in range(3)]
    bad = decaying(rng, (40, 30))
    bad[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN or inf"):
        ball.lmo_many([*G, backend.asarray(bad)])
    with pytest.raises(ValueError, match="2 entries for 3 matrices"):
        ball.lmo_many(G, start=[None, None])
    with pytest.raises(TypeError, match="not a batch"):
        ball.lmo_many(G[0])
    with pytest.raises(ValueError, match="not a matrix"):
        ball.lmo_many([G[0], backend.asarray(np.zeros(3))])
    with pytest.raises(ValueError, match="rows and columns"):
        ball.lmo_many(backend.asarray(np.zeros((2, 0, 3))))
    assert ball.lmo_many([]) == []


def test_a_start_of_another_shape_is_refused_in_a_batch_too(backend, rng):
    ball = KyFanDualBall(3)
    G = [backend.asarray(decaying(rng, (40, 30))) for _ in range(2)]
    others = [backend.asarray(rng.standard_normal((40, 20))) for _ in range(2)]
    starts = [result.subspace for result in ball.lmo_many(others, gap=1e-2)]
    with pytest.raises(ValueError, match="start"):
        ball.lmo_many(G, gap=1e-2, start=starts)


def test_ordinary_members_are_settled_together(stacking, no_single):
    """None of them is left to the solver of single matrices: exact ones, and warm steps."""
    rng = np.random.default_rng(0)
    hosts = [decaying(rng, (40, 30)) for _ in range(3)]
    ball = KyFanDualBall(4)
    starts = [result.subspace for result in ball.lmo_many(stacking(hosts), gap=1e-2, rng=0)]
    hosts = [G + 0.003 * decaying(rng, (40, 30)) for G in hosts]
    no_single()
    for results in (
        ball.lmo_many(stacking(hosts)),
        ball.lmo_many(stacking(hosts), gap=1e-2, start=starts, rng=1),
    ):
        for G, result in zip(hosts, results, strict=True):
            assert true_gap(G, 4, np.asarray(result.update)) <= 1e-2


def test_denormal_members(stacking):
    """The power of two that brings them to 1 is no number of the dtype: it takes two steps."""
    rng = np.random.default_rng(0)
    hosts = [decaying(rng, (40, 30)) for _ in range(2)]
    small = [(G * 2.0**-1050).astype("float64") for G in hosts]
    results = KyFanDualBall(2).lmo_many(stacking(small))
    for G, result in zip(hosts, results, strict=True):
        # 24 binary digits are left of them.
        assert true_gap(G, 2, np.asarray(result.update)) <= 1e-6


@pytest.mark.parametrize("k", [4, 12], ids=["gram", "svd"])
def test_a_whole_spectrum_is_as_many_products_as_columns(k, stacking, no_single):
    rng = np.random.default_rng(0)
    no_single()
    for result in KyFanDualBall(k).lmo_many(stacking([decaying(rng, (40, 30)) for _ in range(3)])):
        assert (result.gap_kind, result.matvecs, result.passes) == ("exact", 30, 1)


def test_what_squares_do_not_resolve_is_computed_again(stacking, spectrum_matrix):
    """The fourth value is 1e-6 of the first, its square a few thousand rounding units.

    The Gram matrix is known to ``eps s_1^2``, which turns the vectors of ``s_4`` by about
    ``eps s_1^2 / (s_4^2 - s_5^2)``, 3e-4; what rounds the matrix itself turns them by
    ``max(m, n) eps s_1 / (s_4 - s_5)``, 2e-8, at most.
    """
    s = np.r_[1, 1e-2, 1e-4, 1e-6 * 0.5 ** np.arange(27)]
    made = [spectrum_matrix(40, 30, s, "float64", seed, factors=True) for seed in range(3)]
    results = KyFanDualBall(4).lmo_many(stacking([G for G, _, _ in made]))
    turn = 40 * eps_of("float64") / (s[3] - s[4])
    for (_, U, Vh), result in zip(made, results, strict=True):
        # Two ends of a triplet, of the matrix that was rounded and of the one that was computed.
        assert np.linalg.norm(np.asarray(result.update) + U[:, :4] @ Vh[:4], 2) <= 4 * turn


def test_a_batch_leaves_the_memory_that_single_matrices_leave(stacking, rng):
    hosts = [decaying(rng, (40, 30), scale=scale) for scale in (1.0, 1e-3)]
    ball = KyFanDualBall(4)
    for G, result in zip(hosts, ball.lmo_many(stacking(hosts), gap=1e-2), strict=True):
        many, one = result.subspace.track, ball.lmo(G, gap=1e-2).subspace.track
        for name in ("k", "left_is_newer", "gain", "age", "flat"):
            assert getattr(many, name) == getattr(one, name), name
        # Either may come from a Gram matrix, which knows squares to max(m, n) eps s_1^2.
        slack = 10 * 40 * eps_of("float64") * one.values[0] ** 2
        np.testing.assert_allclose(many.values**2, one.values**2, rtol=0, atol=slack)
        # What is left is the norm less the squares of all of them.
        every = len(one.values) * slack
        assert many.outside**2 == pytest.approx(one.outside**2, rel=0, abs=every)


def test_a_member_that_vanishes_and_comes_back(stacking, rng):
    """As the gradient of a layer that is not reached in one step."""
    ball, hosts = KyFanDualBall(4), [decaying(rng, (40, 30)) for _ in range(3)]
    results = ball.lmo_many(stacking(hosts), gap=1e-2, rng=0)
    for step, second in enumerate((np.zeros((40, 30)), hosts[1])):
        starts = [result.subspace for result in results]
        given = [hosts[0], second, hosts[2]]
        results = ball.lmo_many(stacking(given), gap=1e-2, rng=step, start=starts)
        for G, result in zip(given, results, strict=True):
            assert true_gap(G, 4, np.asarray(result.update)) <= 1e-2
            assert np.asarray(result.update).any() == G.any()


def test_members_of_just_enough_rank_take_warm_steps(stacking, no_single, rng):
    """Four entries, in rows and columns of their own: guards beyond them have the value zero."""
    ball, hosts = KyFanDualBall(4), [np.zeros((40, 30)) for _ in range(2)]
    for G in hosts:
        G[rng.permutation(40)[:4], rng.permutation(30)[:4]] = [4.0, 3.0, 2.0, 1.0]
    starts = [result.subspace for result in ball.lmo_many(stacking(hosts), gap=1e-2, rng=0)]
    for start in starts:
        assert start.track.values[3] > 0 == start.track.values[-1]
    no_single()
    for G, result in zip(
        hosts, ball.lmo_many(stacking(hosts), gap=1e-2, rng=1, start=starts), strict=True
    ):
        assert true_gap(G, 4, np.asarray(result.update)) <= 1e-2
        assert result.passes <= 2
