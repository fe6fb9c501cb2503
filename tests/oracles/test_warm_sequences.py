"""Warm starts along sequences that mislead them: no step is silently wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from warm_sequences import EXCHANGES, KINDS, draw, examine, true_gap

import trsvd
from trsvd import KyFanDualBall, optim
from trsvd._oracles.warm_start import Watch, _still_to_come, looked, water_filling

together = pytest.mark.parametrize("together", [False, True], ids=["single", "stacked"])
EPS = {"float32": 1.2e-7, "float64": 2.3e-16}


@together
@pytest.mark.parametrize("kind", KINDS)
def test_no_step_is_silently_wrong(kind, together):
    if together:
        pytest.importorskip("torch")
    for seed in range(11):
        sequence = dataclasses.replace(draw(seed, kind), together=together)
        assert examine(sequence) == []


def test_the_examination_finds_what_is_wrong(monkeypatch, general_way):
    """If nothing old is ever missed and no energy counts, directions remain hidden."""
    look = Watch._compare

    def trusting(self, S):
        steady = look(self, S)
        self.intact, self.room = True, np.inf
        return steady

    monkeypatch.setattr(Watch, "_compare", trusting)
    assert any(examine(draw(seed, "collapse")) for seed in range(20))


@pytest.mark.parametrize("kind", [*KINDS, *EXCHANGES])
def test_a_sequence_follows_from_its_seed(kind):
    first, second = (draw(3, kind) for _ in range(2))
    assert (first.k, first.gap, first.together) == (second.k, second.gap, second.together)
    for A, B in zip(first.matrices, second.matrices, strict=True):
        np.testing.assert_array_equal(A, B)


def test_a_first_step_sees_small_values_behind_a_large_one(rng):
    """The sum of the values converges as fast as the first does, and the others have not begun."""
    U, V = orthonormal(rng, 118, 118), orthonormal(rng, 122, 118)
    s = np.r_[1.0, np.linspace(0.109, 0.1, 37), 5e-3 * np.ones(80)]
    G = (U * s) @ V.T
    for seed in range(10):
        result = KyFanDualBall(3).lmo(G, gap=1e-3, rng=seed)
        assert true_gap(G, 3, result.update) <= 1e-3


# ---- collapse ---------------------------------------------------------------------------------


def orthonormal(rng, m, n):
    return np.linalg.qr(rng.standard_normal((m, n)))[0]


def collapsing(rng, k, new, *, shape=(90, 70)):
    """A head and a tail, the head alone twice, and the head with a new direction."""
    U, V = orthonormal(rng, shape[0], 60), orthonormal(rng, shape[1], 60)
    s = np.zeros(60)
    s[: k + 1] = np.linspace(1, 0.6, k + 1)
    with_tail, with_new = s.copy(), s.copy()
    with_tail[k + 1 : 40] = 0.4
    with_new[50] = new
    return [(U * values) @ V.T for values in (with_tail, s, s, with_new)]


@together
@pytest.mark.parametrize("new", [1.1, 1.5, 2.5, 10.0])
@pytest.mark.parametrize("k", [1, 2, 6])
def test_a_new_direction_after_the_tail_vanished(k, new, together, rng):
    array = pytest.importorskip("torch").asarray if together else np.asarray
    ball, start = KyFanDualBall(k), None
    matrices = collapsing(rng, k, new)
    for step, G in enumerate(matrices):
        if together:
            both = [array(G), array(matrices[0])]
            start = ball.lmo_many(both, gap=1e-2, rng=step, start=start)
            result = start[0]
        else:
            start = result = ball.lmo(G, gap=1e-2, rng=step, start=start)
        assert true_gap(G, k, np.asarray(result.update)) <= 1e-2


def attained(G, D):
    return -float(np.vdot(G, np.asarray(D)))


@pytest.mark.parametrize("new", [1.5, 2.5])
@pytest.mark.parametrize(
    ("k", "rule"),
    [
        (1, optim.neon(1.0, momentum=0.0)),
        (1, optim.f_neon(1.0, momentum=0.0)),
        (1, optim.nuclear_neon(1.0, lam=0.5, momentum=0.0)),
        (3, optim.fanion(1.0, 3, momentum=0.0)),
        (3, optim.s_fanion(1.0, 3, momentum=0.0)),
    ],
    ids=["neon", "f_neon", "nuclear_neon", "fanion", "s_fanion"],
)
def test_a_rule_steps_along_the_new_direction(k, rule, new, rng):
    """Its step attains what that of a new state does, to the gap of 1e-2 of each.

    What Nuclear-Neon attains is the square of s_1, with twice the relative error.
    """
    W = np.zeros((90, 70))
    state = rule.init(W)
    for G in collapsing(rng, k, new):
        D, state = rule.update(G, state, W)
        cold, _ = rule.update(G, rule.init(W), W)
        assert attained(G, D) >= (1 - 4e-2) * attained(G, cold)


@pytest.mark.parametrize("new", [1.5, 2.5])
@pytest.mark.parametrize("name", ["Neon", "FNeon", "SFanion"])
def test_an_optimizer_of_torch_steps_along_the_new_direction(name, new, rng):
    torch = pytest.importorskip("torch")
    from trsvd.optim import torch as optimizers

    k = 3 if name == "SFanion" else 1
    options = {"k": k} if k > 1 else {}

    def made():
        W = torch.zeros((90, 70), dtype=torch.float64, requires_grad=True)
        return W, getattr(optimizers, name)([W], lr=1.0, momentum=0.0, **options)

    def step(W, optimizer, G):
        before = W.detach().clone()
        W.grad = torch.asarray(G)
        optimizer.step()
        return (W.detach() - before).numpy()

    W, optimizer = made()
    for G in collapsing(rng, k, new):
        D, cold = step(W, optimizer, G), step(*made(), G)
        assert attained(G, D) >= (1 - 4e-2) * attained(G, cold)


# ---- what a step can resolve --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [1, 5])
def test_no_estimate_is_below_what_rounding_can_hide(k, dtype, rng):
    """The same matrix again: products gain nothing, and energy is known to 100 eps."""
    U, V = orthonormal(rng, 90, 60), orthonormal(rng, 70, 60)
    s = np.append(np.linspace(1e-2, 0.8e-2, k), 0.9 ** np.arange(1, 61 - k) * 0.5e-2)
    G = ((U * s) @ V.T).astype(dtype)
    least = 1 - s[:k].sum() / water_filling(s[:k], 50 * EPS[dtype] * float(np.sum(s**2)))
    start, kinds = None, []
    for step in range(4):
        start = result = KyFanDualBall(k).lmo(G, gap=1e-2, rng=step, start=start)
        kinds.append(result.gap_kind)
        assert result.gap >= least
        assert true_gap(G, k, result.update) <= result.gap
    assert "estimate" in kinds


def test_values_below_the_rounding_of_the_energy_are_not_estimated(rng):
    """In float32 a second value of 1e-5 lies below the square root of 100 eps."""
    U, V = orthonormal(rng, 90, 60), orthonormal(rng, 70, 60)
    s = np.r_[1.0, 1e-5, 0.3e-5 * np.ones(58)]
    G = ((U * s) @ V.T).astype("float32")
    start = None
    for step in range(4):
        start = result = KyFanDualBall(2).lmo(G, gap=1e-3, rng=step, start=start)
        assert result.gap_kind != "estimate"


# ---- the signs, one by one ----------------------------------------------------------------------


def watch(before, now, *, norm=None, k=2, asked=1e-2, rank=60):
    """A watch after the first product: values of the last step and of this one, all pairs kept."""
    before, now = np.array(before), np.array(now)
    norm = float(np.linalg.norm(now)) if norm is None else norm
    watched = Watch(looked(k, before, float(np.linalg.norm(before))), norm, k, asked, rank, 2e-16)
    watched.kept = before
    watched.look(now)
    return watched


OLD = [1.0, 0.9, 0.4, 0.3]


def test_a_second_product_that_gains_nothing_settles_it():
    watched = watch(OLD, OLD)
    watched.look(np.array(OLD))
    assert watched.over
    assert watched.gap is not None
    assert watched.gap < 1e-12


def test_more_energy_outside_is_an_alarm():
    watched = watch(OLD, OLD, norm=float(np.hypot(np.linalg.norm(OLD), 0.95)))
    watched.look(np.array(OLD))
    assert (watched.over, watched.gap) == (True, None)


def test_less_energy_outside_is_an_alarm():
    before = looked(2, np.array(OLD), float(np.hypot(np.linalg.norm(OLD), 0.95)))
    watched = Watch(before, float(np.linalg.norm(OLD)), 2, 1e-2, 60, 2e-16)
    watched.kept = np.array(OLD)
    for _ in range(2):
        watched.look(np.array(OLD))
    assert (watched.over, watched.gap) == (True, None)


def test_an_old_pair_that_vanished_is_an_alarm():
    watched = Watch(looked(2, np.array(OLD), 2.0), 2.0, 2, 1e-2, 60, 2e-16)
    watched.kept = np.array([1.0, 0.9, 0.4, 0.1])
    for _ in range(2):
        watched.look(np.array(OLD))
    assert (watched.over, watched.gap) == (True, None)


def test_a_direction_of_a_strong_tail_needs_little_to_matter():
    """From 0.88 to 0.95, which is more than 0.9 by the gap of 1.9 %: energy of 0.13."""
    old = [1.0, 0.9, 0.89, 0.88]
    norm = float(np.linalg.norm(old))
    for more, gap_is_known in ((0.05, True), (0.13, False)):
        watched = watch(old, old, norm=float(np.sqrt(norm**2 + more)))
        watched.look(np.array(old))
        assert (watched.gap is not None) == gap_is_known


def test_a_growing_value_behind_the_last_counts():
    """It went from 0.5 to 0.8 with one product, and may go to 1.1 with the next."""
    before, now = np.array([1.0, 0.9, 0.5, 0.3]), np.array([1.0, 0.9, 0.8, 0.3])
    assert _still_to_come(before, now, 2) == pytest.approx((1.1 - 0.9) / 1.9)
    assert _still_to_come(now, now, 2) == 0


def test_a_larger_norm_that_was_measured_counts():
    watched = watch(OLD, OLD)
    watched.settle(np.array([1.2, 0.9]))
    watched.look(np.array(OLD))
    assert watched.gap is None


def test_a_value_outside_that_was_measured_is_remembered():
    """Of 0.97, 0.9 and 0.6 one is not in the subspace, and it may be the first."""
    plateau = [0.98, 0.9, 0.6, 0.5]
    watched = watch(plateau, plateau, k=1, norm=2.0)
    watched.look(np.array(plateau))
    watched.settle(np.array([0.98, 0.97, 0.9, 0.6]))
    assert watched.gap == 1e-2  # what so many steps resolve
    assert watched.memory.values[-1] == pytest.approx(0.97 / 0.98)


def test_values_that_the_subspace_has_are_not_outside():
    plateau = [0.98, 0.9, 0.6, 0.5]
    watched = watch(plateau, plateau, k=1, norm=2.0)
    watched.look(np.array(plateau))
    watched.settle(np.array([0.98, 0.91, 0.61, 0.51]))
    assert watched.memory.values[-1] == pytest.approx(0.5 / 0.98)


@pytest.mark.parametrize("method", ["krylov", "rsvd", "power", "trlan"])
@pytest.mark.parametrize("kind", ["collapse", "insert", "removal", "swap", "plateau"])
def test_a_named_method_looks_beside_its_start(kind, method):
    for seed in range(4):
        assert examine(draw(seed, kind), method=method) == []


@pytest.mark.parametrize("exponent", [-900, -60, 60, 900])
def test_a_track_has_no_scale(exponent, rng):
    G = rng.standard_normal((60, 40))
    first, second = (
        KyFanDualBall(3).lmo(A, gap=0.3, rng=0).subspace.track for A in (G, np.ldexp(G, exponent))
    )
    np.testing.assert_allclose(first.values, second.values, rtol=1e-12)
    assert first.outside == pytest.approx(second.outside, rel=1e-12)


def test_down_to_denormal_numbers_and_back(rng):
    G, start = rng.standard_normal((60, 40)), None
    for step, size in enumerate([1.0, 1e-310, 1.0, 0.0, 1.0, 1e-320, 1e300]):
        A = size * G
        start = result = KyFanDualBall(2).lmo(A, gap=1e-2, rng=step, start=start)
        assert true_gap(A, 2, result.update) <= 1e-2 + (size == 1e-320)


def test_the_exception_needs_all_old_pairs():
    """A new direction as strong as all of a tail that vanished is found by the pairs that are gone.

    What the documentation excepts is that none of them is.
    """
    rng = np.random.default_rng(0)
    U, V = orthonormal(rng, 90, 60), orthonormal(rng, 70, 60)
    s = np.r_[1.0, 0.4 * np.ones(39), np.zeros(20)]
    before = (U * s) @ V.T
    new = np.r_[1.0, np.zeros(58), np.linalg.norm(s[1:])]
    now = (U * new) @ V.T
    for seed in range(10):
        start = KyFanDualBall(1).lmo(before, gap=1e-2, rng=seed)
        start = KyFanDualBall(1).lmo(before, gap=1e-2, rng=seed + 1, start=start)
        result = KyFanDualBall(1).lmo(now, gap=1e-2, rng=seed + 2, start=start)
        assert true_gap(now, 1, result.update) <= 1e-2
    certified = trsvd.KyFanDualBall(1).lmo(now, gap=1e-2, rng=0, start=start, certify=True)
    assert certified.gap_kind in {"bound", "exact"}
