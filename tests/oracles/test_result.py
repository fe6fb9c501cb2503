"""Updates in the dtype that is handed out, their copies, and the options on the way to them."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import trsvd
from trsvd._oracles.result import _gap_of_sum
from trsvd.balls import (
    ColumnBall,
    FrobeniusBall,
    KyFanDualBall,
    MaxBall,
    NuclearBall,
    RowBall,
    SpectralBall,
)

BALLS = {
    "nuclear": NuclearBall(),
    "spectral": SpectralBall(),
    "frobenius": FrobeniusBall(),
    "max": MaxBall(),
    "column": ColumnBall(),
    "row": RowBall(),
    "f-fanion": 0.5 * KyFanDualBall(2) + 0.5 * FrobeniusBall(),
    "s-fanion": 0.5 * KyFanDualBall(2) + 0.1 * MaxBall(),
}
all_balls = pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
entrywise = pytest.mark.parametrize("name", ["frobenius", "max", "column", "row"])
EPS16 = float(np.finfo("float16").eps)


def thousands(dtype="float16"):
    """Of rank one: ||G|| = s_1 = 1e5 in every unitarily invariant norm, beyond float16."""
    return np.full((100, 100), 1000.0, dtype=dtype)


def libraries():
    yield lambda X: X
    torch = pytest.importorskip("torch")
    yield torch.asarray


# ---- range ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stacked", [False, True])
def test_an_update_beyond_half_precision_is_refused(stacked):
    for asarray in libraries():
        G = asarray(np.stack([thousands()] * 2) if stacked else thousands())
        for call in (
            lambda G=G: trsvd.kyfan_dual_lmo(G, 1, radius=1e8),
            lambda G=G: trsvd.frobenius_lmo(G, radius=1e8),
            lambda G=G: trsvd.f_fanion_lmo(G, 1, radius=1e8),
            lambda G=G: trsvd.spectral_lmo(G, radius=1e8, method=trsvd.NewtonSchulz()),
        ):
            with pytest.raises(ValueError, match="beyond the range of float16"):
                call()


def test_a_regularized_update_beyond_half_precision_is_refused():
    for asarray in libraries():
        G = asarray(thousands())
        for update in (trsvd.nuclear_neon, trsvd.f_star_neon):
            # s_1 / (2 lam) u_1 v_1^H has entries of 1000 / (2 lam).
            with pytest.raises(ValueError, match="a larger lam or a smaller radius"):
                _ = update(G, 0.005).update


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sum_beyond_the_range_is_refused(dtype):
    size = 0.6 * float(np.finfo(dtype).max)
    ball = size * KyFanDualBall(1) + size * FrobeniusBall()
    with pytest.raises(ValueError, match=f"beyond the range of {dtype}"):
        _ = ball.lmo(np.ones((1, 1), dtype)).update
    # ... and is not where entries are smaller: 0.6 of the range, twice, over 2.
    D = ball.lmo(np.ones((2, 2), dtype)).update
    np.testing.assert_allclose(D, np.full((2, 2), -size, dtype), rtol=100 * np.finfo(dtype).eps)


def test_what_half_precision_holds_is_not_refused():
    for asarray in libraries():
        G = asarray(thousands())
        for D, entry in (
            (trsvd.regularized_update(FrobeniusBall(), G, 0.5).update, -1000.0),
            (trsvd.nuclear_neon(G, 0.5).update, -1000.0),
            (trsvd.nuclear_neon(G, 1e3).update, -0.5),
            # tau = s_1 / 2 for a single value.
            (trsvd.f_star_neon(G, 1e3).update, -0.5),
            (trsvd.f_star_neon(G, 0.5).update, -1000.0),
            (trsvd.frobenius_lmo(G, radius=1e6), -1e4),
            (trsvd.kyfan_dual_lmo(G, 1, radius=6e6), -6e4),
            (trsvd.f_fanion_lmo(G, 1, radius=1e6), -1e4),
        ):
            assert str(D.dtype).endswith("float16")
            np.testing.assert_allclose(np.asarray(D, dtype=float), entry, rtol=EPS16)


def test_stacks_of_half_precision():
    torch = pytest.importorskip("torch")
    G = torch.asarray(np.stack([thousands()] * 3))
    D = trsvd.kyfan_dual_lmo(G, 1, radius=6e6)
    np.testing.assert_allclose(D.double().numpy(), -6e4, rtol=EPS16)


@all_balls
def test_zero_times_any_radius_is_zero(ball):
    for dtype in ("float16", "float32", "float64"):
        result = (1e200 * ball).lmo(np.zeros((3, 2), dtype))
        assert not result.update.any()


def test_a_scale_beyond_single_precision(rng):
    """1e40 is no float32, and the entries are."""
    x = rng.standard_normal((5000, 1)).astype("float32")
    G = 1e-4 * x @ np.ones((1, 40), "float32")
    ball = 1e39 * KyFanDualBall(1)
    result = ball.lmo(G)
    exact = -1e39 * np.outer(x / np.linalg.norm(x.astype(float)), np.full(40, 40**-0.5))
    assert np.abs(exact).max() < np.finfo("float32").max
    np.testing.assert_allclose(result.update, exact, rtol=1e-4)
    U, Vh = result.factors
    assert np.isfinite(U).all()
    assert np.isfinite(Vh).all()
    np.testing.assert_allclose(U @ Vh, exact, rtol=1e-4)
    with pytest.raises(ValueError, match="beyond the range of float32"):
        _ = (1e100 * KyFanDualBall(1)).lmo(G).factors


def test_the_gap_of_a_sum_whose_support_is_out_of_range(rng):
    """A mean of the parts' gaps is at most the largest of them."""
    G = rng.standard_normal((60, 50)) * 1e307
    result = (SpectralBall() + FrobeniusBall()).lmo(G)
    assert result.support == np.inf
    assert 0 <= result.gap <= 1e-12


# ---- copies -----------------------------------------------------------------------------------


@all_balls
def test_results_can_be_pickled_and_compared(ball, backend, rng):
    G = backend.asarray(rng.standard_normal((7, 5)))
    result = ball.lmo(G)
    for twin in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
        expected = backend.to_numpy(result.update)
        np.testing.assert_array_equal(backend.to_numpy(twin.update), expected)
        assert twin.support == result.support
        assert twin != result
    assert result == result  # noqa: PLR0124 - that it can be asked is the point
    assert hash(result) == hash(result)
    if result.subspace is not None:
        assert result.subspace == result.subspace
        assert result.subspace != ball.lmo(G).subspace
    assert [term == term for term in result.terms] == [True] * len(result.terms)  # noqa: PLR0124


# ---- options ----------------------------------------------------------------------------------


@all_balls
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"method": "junk"}, ValueError, "method='junk'"),
        ({"method": 3}, TypeError, "method=3"),
        ({"method": trsvd.Direct}, TypeError, "method="),
        ({"start": "junk"}, TypeError, "start is"),
        ({"start": [[1.0]]}, TypeError, "start is"),
        ({"start": np.ma.ones((5, 1))}, TypeError, "start is"),
        ({"start": np.ones((5, 1), complex)}, TypeError, "complex"),
        ({"gap": "x"}, TypeError, "gap='x'"),
        ({"tol": "x"}, TypeError, "tol='x'"),
        ({"tol": -1}, ValueError, "tol=-1"),
        ({"rng": "x"}, TypeError, "rng='x'"),
        ({"rng": -1}, ValueError, "rng=-1"),
        ({"certify": "x"}, ValueError, "certify='x'"),
    ],
)
def test_every_ball_checks_options(ball, options, error, text, rng):
    G = rng.standard_normal((7, 5))
    with pytest.raises(error, match=text):
        ball.lmo(G, **options)
    if "start" in options:
        options = {"start": [options["start"]]}
    with pytest.raises(error, match=text):
        ball.lmo_many([G], **options)


@pytest.mark.parametrize("gap", [None, 1e-2])
def test_complex_subspaces_do_not_start_real_matrices(gap, backend, rng):
    if "complex128" not in backend.dtypes:
        pytest.skip("no complex numbers in this library")
    ball, shape = KyFanDualBall(3), (120, 90)
    G = rng.standard_normal(shape)
    H = backend.asarray(G + 1j * rng.standard_normal(shape))
    G = backend.asarray(G)
    result = ball.lmo(H, gap=gap)
    for start in (result, result.subspace, trsvd.svds(H, 3)):
        with pytest.raises(TypeError, match="start is complex and the matrix is real"):
            ball.lmo(G, gap=gap, start=start)
        with pytest.raises(TypeError, match="start is complex and the matrix is real"):
            ball.lmo_many([G, G], gap=gap, start=[None, start])
    with pytest.raises(TypeError, match="start is complex and the matrix is real"):
        trsvd.svds(G, 3, start=result.subspace)
    # The other way round nothing is lost.
    assert ball.lmo(H, gap=gap, start=ball.lmo(G, gap=gap)).status.converged


def test_results_are_starts(rng):
    ball = KyFanDualBall(3)
    G = rng.standard_normal((120, 4)) @ rng.standard_normal((4, 90))
    first = ball.lmo(G, gap=1e-2, rng=0)
    expected = ball.lmo(G, gap=1e-2, rng=1, start=first.subspace)
    for again in (
        ball.lmo(G, gap=1e-2, rng=1, start=first),
        *ball.lmo_many([G, G], gap=1e-2, rng=1, start=[first, first]),
    ):
        assert again.passes == expected.passes
        np.testing.assert_array_equal(again.update, expected.update)
    np.testing.assert_array_equal(
        trsvd.kyfan_dual_lmo(G, 3, gap=1e-2, rng=1, start=first), expected.update
    )
    assert trsvd.f_star_neon(G, 1.0, start=first).status.converged
    # An entrywise ball leaves no subspace.
    assert ball.lmo(G, gap=1e-2, start=FrobeniusBall().lmo(G)).status.converged


def test_batches_take_a_list_of_starts(rng):
    ball, G = KyFanDualBall(3), rng.standard_normal((20, 10))
    result = ball.lmo(G)
    for start in (result, result.subspace, trsvd.svds(G, 3), "x", 3):
        with pytest.raises(TypeError, match="a list with a warm start"):
            ball.lmo_many([G, G, G], start=start)


# ---- what is not a matrix of numbers -------------------------------------------------------------


@all_balls
def test_masked_arrays_are_refused(ball, rng):
    G = np.ma.masked_array(rng.standard_normal((4, 3)), mask=np.eye(4, 3, dtype=bool))
    for call in (ball.lmo, ball.support, lambda G: ball.lmo_many([G]), ball.gauge):
        with pytest.raises((TypeError, NotImplementedError), match=r"masked|is not computed"):
            call(G)
    with pytest.raises(TypeError, match="masked"):
        ball.lmo_many(np.ma.stack([G, G]))


@entrywise
def test_masked_arrays_are_refused_in_one_call(name):
    oracle = getattr(trsvd, f"{name}_lmo")
    for shape in ((4, 3), (2, 4, 3)):
        with pytest.raises(TypeError, match="masked"):
            oracle(np.ma.ones(shape))


@all_balls
def test_the_matrix_that_is_not_finite_is_named(ball, backend, rng):
    hosts = [rng.standard_normal(shape) for shape in ((7, 5), (5, 7), (7, 5), (5, 7))]
    hosts[2][3, 1] = np.nan
    with pytest.raises(ValueError, match="matrix 2 of the batch contains NaN or inf"):
        ball.lmo_many([backend.asarray(G) for G in hosts])
    with pytest.raises(ValueError, match=r"(the matrix|G) contains NaN or inf"):
        ball.lmo(backend.asarray(hosts[2]))


def test_a_scale_beyond_double_precision_is_refused():
    G = np.diag([3.0, 2.0, 1.0])
    ball = 1e300 * KyFanDualBall(1)
    assert np.abs((1e-300 * ball).lmo(G).update + np.diag([1.0, 0, 0])).max() <= 1e-15
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="beyond the range of float64"):
        _ = (1e300 * ball).lmo(G).update


def test_the_gap_of_a_sum_is_no_better_than_nothing_where_a_part_is_not():
    """An update that attains nothing of one support function has a gap of 1."""
    G = np.diag([3.0, 2.0, 1.0])
    good = KyFanDualBall(2).lmo(G)
    bad = dataclasses.replace(good, gap=1.25)
    assert _gap_of_sum([good, bad]) == 1.25
    part = dataclasses.replace(good, gap=0.5)
    # 5 of 5, and 5 of 10 at most.
    assert _gap_of_sum([dataclasses.replace(good, gap=0.0), part]) == pytest.approx(1 - 10 / 15)


def test_a_result_is_shown_in_a_line():
    G = np.diag([3.0, 2.0, 1.0])
    ball = 0.5 * KyFanDualBall(2) + 0.25 * FrobeniusBall()
    result = ball.lmo(G)
    assert repr(result).startswith(
        "LMOResult(-0.5 * LowRankTerm(U: (3, 2), Vh: (2, 3)) + -0.25 * DenseTerm(), CONVERGED, "
        "support 3.43541, gap "
    )
    assert "(exact)" in repr(result)
    assert repr(KyFanDualBall(2).lmo(G).subspace) == "Subspace(U: (3, 2), Vh: (2, 3))"
