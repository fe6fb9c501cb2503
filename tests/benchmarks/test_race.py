"""The race: its numbers, its judges, the search for settings, its file, and lost processes.

No test asserts on measured times: where one matters, the clock is a fake.
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import json
import math
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse

from peers import solvers
from peers.solvers import newton_schulz
from race import matrices as subjects_module
from race import run as race
from race import trials, worker
from race.__main__ import main
from race.accuracy import Task, judge
from race.cells import Cell, all_cells, data_cells, matching, quick_cells
from race.competitors import (
    DEFAULT,
    OWN,
    PEERS,
    REFERENCES,
    Ladder,
    Peer,
    answer_of,
    facts_of,
    with_start,
)
from race.display import (
    BEGIN,
    END,
    details,
    entries,
    markdown,
    plot,
    replace_table,
    summary_lines,
)
from race.matrices import (
    Places,
    Subject,
    Unavailable,
    exact_triplets,
    header_of,
    many_subjects,
    subject,
)
from race.statistics import dropped, geometric_mean, median_interval, ratio_of, summarize
from race.store import Mismatch, Results, header
from race.timing import Ceilings, sample, timed
from race.trials import Effort, Outcome, race_cell, tune
from trsvd.polar import QUINTIC
from trsvd.polar import newton_schulz as exact_newton_schulz

K = 3
QUICK = Effort(repeats=2, seconds=0, seeds=2)
RESIDUAL = Cell(matrix="decay-48x96", dtype="float64", k=K, target=1e-3)
GAP = Cell(matrix="noisy-48x96", dtype="float64", k=K, target=1e-2, measure="gap")


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "cache")


@pytest.fixture
def task(places):
    return Task(RESIDUAL, [subject(RESIDUAL.matrix, RESIDUAL.dtype, places)])


@pytest.fixture
def gap_task(places):
    return Task(GAP, [subject(GAP.matrix, GAP.dtype, places)])


def exact(A):
    return np.linalg.svd(A, full_matrices=False)


def leading(A, first=0, k=K):
    U, S, Vh = exact(A)
    places = slice(first, first + k)
    return U[:, places], S[places], Vh[places]


# ---- statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "low", "high"),
    # Ranks of the 95 % interval of a median in the tables of the sign test.
    [(6, 1, 6), (8, 1, 8), (9, 2, 8), (12, 3, 10), (15, 4, 12), (20, 6, 15), (25, 8, 18)],
)
def test_the_interval_of_a_median_has_the_ranks_of_the_sign_test(n, low, high):
    values = list(range(n, 0, -1))
    assert median_interval(values)[:2] == (low, high)
    assert median_interval(values)[2] >= 0.95


def test_few_values_give_the_extremes_and_say_what_they_are_worth():
    assert median_interval([2.0]) == (2.0, 2.0, 0.0)
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0, 0.75)


def test_the_interval_covers_the_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    _, _, confidence = median_interval(range(9))
    found = [median_interval(rng.exponential(size=9))[:2] for _ in range(2000)]
    covered = np.mean([low <= math.log(2) <= high for low, high in found])
    # Five standard deviations of a binomial share.
    assert abs(covered - confidence) <= 5 * (confidence * (1 - confidence) / 2000) ** 0.5


def test_ratios_are_taken_round_by_round():
    drift = np.linspace(1, 3, 7)
    ratio = ratio_of(list(2 * drift), list(4 * drift))
    assert (ratio.value, ratio.low, ratio.high) == (0.5, 0.5, 0.5)
    # Whoever was sampled less often counts for the rounds that it was in.
    assert ratio_of([1.0, 1.0, 100.0], [2.0, 2.0]).value == 0.5


def test_geometric_mean():
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0, rel=1e-15)
    assert math.isnan(geometric_mean([]))


def test_five_times_the_fastest_is_too_slow():
    assert dropped({"a": 1.0, "b": 5.0, "c": 5.1}) == {"c"}
    assert dropped({}) == set()


# ---- cells ----------------------------------------------------------------------------------


def test_cells_are_named_and_chosen_by_name():
    cells = all_cells()
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    assert "f32/gaussian-500x500/k5/1e-04" in names
    assert "f64/noisy-768x3072/k48/gap/1e-03/warm" in names
    assert "f32/gaussian-64x64/k5/gap/1e-05/batch100/torch" in names
    chosen = matching(cells, ["f32/gaussian-500x500/k5/", "f64/*/k256/1e-10"])
    assert [cell.name for cell in chosen] == [
        *(f"f32/gaussian-500x500/k5/{target}" for target in ("1e-02", "1e-04", "3e-06")),
        "f64/gaussian-1024x4096/k256/1e-10",
    ]
    assert matching(cells, None) == cells


def test_cells_of_one_matrix_stand_together():
    keys = [(cell.matrix, cell.dtype, cell.batch) for cell in all_cells()]
    large = [key for key in keys if key[0].split("-")[0] in {"tall", "sparse", "root", "terms"}]
    changes = sum(a != b for a, b in zip(large, large[1:], strict=False))
    assert changes + 1 == len(set(large))


@pytest.mark.parametrize("cell", [*all_cells(), *quick_cells()])
def test_a_cell_survives_json(cell):
    assert Cell(**json.loads(json.dumps(cell.as_dict()))) == cell


# ---- matrices -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["gaussian-30x20", "decay-20x30", "root-25x25", "tall-90x12", "noisy-20x30", "mixed-30x20"],
)
def test_the_exact_values_are_those_of_the_matrix(name, places):
    one = subject(name, "float32", places)
    assert one.A.dtype == np.float32
    S = np.linalg.svd(one.wide, compute_uv=False)
    # What rounding to float32 changes, by Weyl's theorem: at most its Frobenius norm.
    allowed = np.finfo(np.float32).eps * np.linalg.norm(one.wide)
    np.testing.assert_allclose(one.S, S, rtol=0, atol=allowed)


def test_sparse_matrices_have_exact_values_too(places, monkeypatch):
    one = subject("sparse-400x100", "float64", places)
    assert one.sparse
    assert one.entries == one.A.nnz
    S = np.linalg.svd(one.A.toarray(), compute_uv=False)
    # Squared on the way: eps s_1^2 / s_i, with a few units of rounding.
    np.testing.assert_allclose(one.S[:20], S[:20], rtol=1e-12)
    np.testing.assert_allclose(subjects_module._agreed_values(one.A, 5), S[:5], rtol=1e-12)
    monkeypatch.setattr(subjects_module, "svds", lambda *args, **options: leading(np.eye(9)))
    with pytest.raises((Unavailable, ValueError, AttributeError)):
        subjects_module._agreed_values(one.A, 5)


def test_two_methods_that_disagree_give_no_truth(monkeypatch):
    A = scipy.sparse.random_array((40, 30), density=0.3, rng=np.random.default_rng(0)).tocsr()
    real = subjects_module.svds

    def passing_over_one(A, k, **options):
        found = real(A, k + 1, **options)
        return dataclasses.replace(found, S=found.S[1:])

    monkeypatch.setattr(subjects_module, "svds", passing_over_one)
    with pytest.raises(Unavailable, match="disagree"):
        subjects_module._agreed_values(A, 3)


def test_the_predecessor_is_three_tenths_away(places):
    one = subject("noisy-48x96", "float64", places)
    distance = np.linalg.norm(one.A - one.previous) / np.linalg.norm(one.A)
    assert distance == pytest.approx(0.3, rel=1e-12)


def test_exact_triplets_and_values_are_computed_once(places, monkeypatch):
    one = subject("gaussian-30x20", "float64", places)
    U, S, Vh = exact_triplets(one, K, places)
    np.testing.assert_allclose(S, one.S[:K], rtol=1e-12)
    monkeypatch.setattr(subjects_module, "_values", None)
    monkeypatch.setattr(subjects_module, "Case", None)
    again = subject("gaussian-30x20", "float64", places)
    np.testing.assert_array_equal(again.S, one.S)
    np.testing.assert_array_equal(exact_triplets(again, K, places)[0], U)
    assert not list(places.cache.glob("*.part"))


def test_a_batch_has_a_truth_for_each_of_its_matrices():
    found = many_subjects("gaussian-12x8", "float32", 3)
    assert len(found) == 3
    for one in found:
        S = np.linalg.svd(one.wide, compute_uv=False)
        np.testing.assert_allclose(one.S, S, rtol=1e-12)


def test_what_cannot_be_had_is_said(places):
    with pytest.raises(Unavailable, match="no family"):
        subject("magic-3x3", "float64", places)
    with pytest.raises(Unavailable, match="--data"):
        subject("data-weights", "float64", places)


@pytest.mark.parametrize(
    ("variables", "system", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "linux", "/x/trsvd/race"),
        ({"XDG_CACHE_HOME": "/x"}, "darwin", "/x/trsvd/race"),
        ({"HOME": "/me"}, "darwin", "/me/Library/Caches/trsvd/race"),
        ({"HOME": "/me", "LOCALAPPDATA": "/local"}, "win32", "/local/trsvd/race"),
        ({"HOME": "/me"}, "linux", "/me/.cache/trsvd/race"),
    ],
)
def test_where_matrices_are_kept(variables, system, expected, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    assert subjects_module.default_cache().as_posix() == expected


def test_a_file_that_cannot_be_kept_leaves_nothing(tmp_path, monkeypatch):
    """Neither what was half written, nor a file under the final name."""

    def full(*args, **options):
        msg = "No space left on device"
        raise OSError(28, msg)

    monkeypatch.setattr(subjects_module.np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        subject("gaussian-30x20", "float64", Places(tmp_path / "cache"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_too_few_sources_are_no_matrix(places, tmp_path, monkeypatch):
    (tmp_path / "one.py").write_text("word " * 20)
    monkeypatch.setattr(subjects_module.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(Unavailable, match="only"):
        subject("terms", "float64", places)


def test_terms_are_counted_in_python_files(places, tmp_path, monkeypatch):
    library = tmp_path / "lib"
    (library / "site-packages").mkdir(parents=True)
    (library / "site-packages" / "other.py").write_text("outside " * 20)
    rng = np.random.default_rng(0)
    words = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(300)]
    for i in range(420):
        text = " ".join(rng.choice(words, size=40))
        (library / f"file{i}.py").write_text(f"{text} aaa_{chr(97 + i // 26)}{chr(97 + i % 26)}")
    monkeypatch.setattr(subjects_module.sysconfig, "get_path", lambda name: str(library))
    one = subject("terms", "float64", places)
    assert one.A.shape == (420, 300)
    np.testing.assert_allclose(scipy.sparse.linalg.norm(one.A, axis=1), 1, rtol=1e-12)
    S = np.linalg.svd(one.A.toarray(), compute_uv=False)
    np.testing.assert_allclose(one.S[:50], S[:50], rtol=1e-12)
    again = subject("terms", "float32", places)
    np.testing.assert_array_equal(again.A.indices, one.A.indices)


@pytest.fixture
def folder(tmp_path):
    """A dense matrix, a sparse one and a sequence, with their singular values."""
    home = tmp_path / "real"
    home.mkdir()
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((40, 32)).astype(np.float32)
    frames = rng.standard_normal((3, 32, 48)).astype(np.float32)
    sparse = scipy.sparse.random_array((300, 250), density=0.05, rng=rng, dtype=np.float32)
    np.save(home / "weights.npy", dense)
    np.save(home / "frames.npy", frames)
    scipy.sparse.save_npz(home / "graph.npz", scipy.sparse.csr_matrix(sparse))
    spectra = {
        "weights": np.linalg.svd(dense, compute_uv=False),
        "frames": np.linalg.svd(frames[-1], compute_uv=False),
        "graph": np.linalg.svd(sparse.toarray(), compute_uv=False),
    }
    np.savez(home / "spectra.npz", **spectra)
    (home / "notes.txt").write_text("not a matrix")
    return home


def test_real_matrices_become_cells(folder, tmp_path):
    cells = data_cells(folder)
    assert {(cell.matrix, cell.k) for cell in cells if cell.measure == "residual"} == {
        ("data-weights", 2),
        ("data-frames", 2),
        ("data-graph", 50),
    }
    assert {cell.warm for cell in cells if cell.measure == "gap"} == {False, True}
    places = Places(tmp_path / "cache", folder)
    frames = subject("data-frames", "float32", places)
    stored = np.load(folder / "frames.npy")
    np.testing.assert_array_equal(frames.A, stored[-1])
    np.testing.assert_array_equal(frames.previous, stored[-2])
    assert subject("data-graph", "float32", places).sparse
    weights = subject("data-weights", "float32", places)
    np.testing.assert_array_equal(weights.A, np.load(folder / "weights.npy"))
    assert weights.previous is None
    assert header_of(folder / "graph.npz") == (300, 250)
    np.save(folder / "unknown.npy", np.eye(20))
    with pytest.raises(Unavailable, match="no such spectrum"):
        subject("data-unknown", "float32", places)


# ---- judges ---------------------------------------------------------------------------------


def test_exact_triplets_are_right_in_any_order(task):
    U, S, Vh = leading(task.one.A)
    assert judge(task, (U, S, Vh)).reached
    verdict = judge(task, (U[:, ::-1], S[::-1], Vh[::-1]))
    assert verdict.reached
    # Products of 96 terms, a few roundings each.
    assert verdict.error <= 1e-14


def test_triplets_that_are_not_the_top_ones_are_wrong(task):
    """Their residuals are as small as any: only the values tell."""
    verdict = judge(task, leading(task.one.A, first=1))
    assert verdict.error <= 1e-14
    assert not verdict.reached
    assert "off by" in verdict.note


def test_one_triplet_that_is_counted_twice_is_wrong(places):
    one = subject("gaussian-400x400", "float64", places)
    task = Task(dataclasses.replace(RESIDUAL, k=2, target=1e-1), [one])
    U, S, Vh = leading(one.A, k=2)
    # s_2 is so near to s_1 that the values do not tell.
    verdict = judge(task, (U[:, [0, 0]], S[[0, 0]], Vh[[0, 0]]))
    assert not verdict.reached
    assert "orthonormal" in verdict.note


def test_a_peer_may_answer_in_lists(task):
    U, S, Vh = leading(task.one.A)
    assert judge(task, (U.tolist(), S.tolist(), Vh.tolist())).reached


@pytest.mark.parametrize("where", ["values", "left", "right"])
def test_a_residual_above_the_target_is_a_miss(task, where):
    U, S, Vh = leading(task.one.A)
    noise = 2 * task.cell.target * S[0]
    if where == "values":
        S = S + noise
    elif where == "left":
        U = U + noise / len(U) ** 0.5
    else:
        Vh = Vh + noise / Vh.shape[1] ** 0.5
    verdict = judge(task, (U, S, Vh))
    assert not verdict.reached
    assert verdict.error > task.cell.target


def test_answers_of_the_wrong_shape_or_not_finite_are_wrong(task):
    U, S, Vh = leading(task.one.A)
    assert not judge(task, (U[:, :2], S[:2], Vh[:2])).reached
    assert not judge(task, (U, S * np.nan, Vh)).reached
    assert judge(task, (U, S * np.nan, Vh)).error == math.inf


def test_a_batch_is_as_good_as_its_worst():
    subjects = many_subjects("gaussian-12x8", "float64", 3)
    task = Task(dataclasses.replace(RESIDUAL, batch=3), subjects)
    answers = [leading(one.A) for one in subjects]
    stacked = tuple(np.stack(part) for part in zip(*answers, strict=True))
    assert judge(task, answers).reached
    assert judge(task, stacked).reached
    answers[1] = leading(subjects[1].A, first=1)
    assert not judge(task, answers).reached
    assert not judge(task, answers[:2]).reached


def test_the_gap_of_the_exact_update_is_rounding(gap_task):
    U, _, Vh = leading(gap_task.one.A)
    verdict = judge(gap_task, (-U @ Vh, U, Vh))
    assert verdict.reached
    assert verdict.error <= 1e-13
    assert judge(gap_task, (-U @ Vh, None, None)).error <= 1e-13


def test_updates_that_are_not_the_minimizer_are_wrong(gap_task):
    U, _, Vh = leading(gap_task.one.A)
    D = -U @ Vh
    # Ascent, a step out of the ball, other pairs, and factors of something else.
    assert judge(gap_task, (-D, U, Vh)).error == pytest.approx(2.0, rel=1e-9)
    assert judge(gap_task, (3 * D, None, None)).error <= 1e-13
    V, _, Wh = leading(gap_task.one.A, first=1)
    assert not judge(gap_task, (-V @ Wh, V, Wh)).reached
    assert not judge(gap_task, (D, V, Wh)).reached


def test_the_papers_error_is_measured(places):
    cell = dataclasses.replace(RESIDUAL, measure="err1", target=1e-2)
    one = subject(cell.matrix, cell.dtype, places)
    task = Task(cell, [one], exact_triplets(one, K, places))
    assert judge(task, leading(one.A)).error <= 1e-12
    U, S, Vh = leading(one.A, first=1)
    assert judge(task, (U, S, Vh)).error >= 0.5


# ---- settings -------------------------------------------------------------------------------


class Clock:
    """Peers set the time that they took."""

    seconds = 1.0
    calls = 0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()

    def fake_timed(call):
        value = call()
        return clock.seconds, value

    monkeypatch.setattr(trials, "timed", fake_timed)
    monkeypatch.setattr(trials, "sample", lambda call, expected: fake_timed(call))
    return clock


def peer_of(clock, seconds=1.0, *, name="fake", first=0, role="peer", **options):
    """A peer that returns exact triplets, or those from the ``first`` one on."""
    calls = []

    def solve(A, k, seed, start, **settings):
        calls.append((seed, settings))
        clock.seconds = seconds(settings) if callable(seconds) else seconds
        return leading(A, first=first, k=k)

    peer = Peer(name, solve, role=role, **options)
    return peer, calls


def rough_peer(clock, needed, *, name="rough", seeds=0):
    """Accurate from a number of steps on, which a step takes a second of; seeds may need more."""
    calls = []

    def solve(A, k, seed, start, *, steps):
        calls.append(steps)
        clock.seconds = 1.0 + steps
        U, S, Vh = leading(A, k=k)
        enough = steps >= needed + (seeds if seed else 0)
        return (U, S, Vh) if enough else (U, S * 1.1, Vh)

    values = tuple(range(40))
    ladder = Ladder("steps", values, 3)
    return Peer(name, solve, ladder=lambda cell, one: ladder), calls


def quiet(name, limit):
    del name, limit


@pytest.mark.parametrize("needed", [0, 1, 3, 4, 17, 39])
def test_the_cheapest_sufficient_setting_is_found(task, clock, needed):
    peer, _ = rough_peer(clock, needed)
    outcome = tune(peer, task, math.inf, QUICK, quiet)
    assert outcome.status == "raced"
    assert outcome.options == {"steps": needed}


def test_every_random_start_must_come_out_accurate(task, clock):
    peer, _ = rough_peer(clock, 5, seeds=2)
    assert tune(peer, task, math.inf, QUICK, quiet).options == {"steps": 7}


def test_a_random_start_that_is_never_accurate_is_a_miss(task, clock):
    """With a ladder that ends, and without one."""
    peer, calls = rough_peer(clock, 35, seeds=100)
    outcome = tune(peer, task, math.inf, QUICK, quiet)
    assert (outcome.status, outcome.reached) == ("missed", False)
    assert max(calls) == 39

    def lucky(A, k, seed, start):
        return leading(A, first=min(seed, 1), k=k)

    outcome = tune(Peer("lucky", lucky), task, math.inf, QUICK, quiet)
    assert (outcome.status, outcome.reached) == ("missed", False)
    assert "off by" in outcome.note


def test_a_random_start_that_raises_is_a_miss(task, clock):
    def moody(A, k, seed, start):
        if seed:
            raise RuntimeError("not today")
        return leading(A, k=k)

    outcome = tune(Peer("moody", moody), task, math.inf, QUICK, quiet)
    assert outcome.status == "missed"
    assert outcome.note == "not with every random start"


def test_the_first_sufficient_setting_is_enough_where_time_does_not_matter(task, clock):
    peer, calls = rough_peer(clock, 1)
    effort = dataclasses.replace(QUICK, for_time=False)
    assert tune(peer, task, math.inf, effort, quiet).options == {"steps": 3}
    assert set(calls) == {3}


def test_a_peer_that_cannot_reach_the_accuracy_has_missed_it(task, clock):
    peer, _ = rough_peer(clock, 1000)
    outcome = tune(peer, task, math.inf, QUICK, quiet)
    assert outcome.status == "missed"
    assert not outcome.reached
    assert outcome.error > task.cell.target


def test_the_fastest_variant_counts(task, clock):
    variants = [{"fast": False}, {"fast": True}]
    peer, _ = peer_of(
        clock,
        lambda settings: 1.0 if settings["fast"] else 2.0,
        variants=lambda cell, one: variants,
    )
    outcome = tune(peer, task, math.inf, QUICK, quiet)
    assert outcome.options == {"fast": True}
    assert outcome.seconds == 1.0


def test_who_is_too_slow_is_not_tuned_at_length(task, clock):
    peer, calls = rough_peer(clock, 30)
    outcome = tune(peer, task, 2.0, QUICK, quiet)
    assert outcome.status == "slow"
    # Its first setting, and once more: the first call of all is on nobody's clock.
    assert len(calls) <= 2


def test_a_variant_that_gets_slow_does_not_hide_a_fast_one(task, clock):
    """The first needs ever more steps in vain; the second is right with few."""

    def solve(A, k, seed, start, *, steps, good):
        clock.seconds = 1.0 + steps
        return leading(A, first=0 if good else 1, k=k)

    ladder = Ladder("steps", tuple(range(40)), 3)
    variants = [{"good": False}, {"good": True}]
    peer = Peer("two", solve, variants=lambda c, o: variants, ladder=lambda c, o: ladder)
    outcome = tune(peer, task, 20.0, QUICK, quiet)
    assert outcome.status == "raced"
    assert outcome.options == {"good": True, "steps": 0}
    # Far too slow at its cheapest, the first speaks for all.
    assert tune(peer, task, 0.1, QUICK, quiet).status == "slow"


def test_a_peer_that_raises_has_failed(task, clock):
    def solve(A, k, seed, start):
        raise RuntimeError("did not\nconverge")

    outcome = tune(Peer("broken", solve), task, math.inf, QUICK, quiet)
    assert outcome.status == "failed"
    assert outcome.note == "RuntimeError: did not converge"


def test_a_setting_that_suffices_with_other_threads_is_not_looked_for_again(task, clock):
    peer, steps = rough_peer(clock, 9)
    elsewhere = Outcome("rough", "peer", "raced", options={"steps": 10}, reached=True)
    outcome = tune(peer, task, math.inf, QUICK, quiet, elsewhere)
    assert (outcome.status, outcome.options) == ("raced", {"steps": 10})
    assert set(steps) == {10}
    # One that does not is, and so is every one of a peer whose settings buy no accuracy.
    outcome = tune(
        peer, task, math.inf, QUICK, quiet, dataclasses.replace(elsewhere, options={"steps": 3})
    )
    assert outcome.status == "raced"
    assert outcome.options["steps"] >= 9
    plain, calls = peer_of(clock, lambda settings: settings["blas"], variants=two_libraries)
    elsewhere = Outcome("fake", "peer", "raced", options={"blas": 2.0}, reached=True)
    outcome = tune(
        plain, task, math.inf, dataclasses.replace(QUICK, for_time=True), quiet, elsewhere
    )
    assert outcome.options == {"blas": 1.0}


def two_libraries(cell, one):
    return [{"blas": 2.0}, {"blas": 1.0}]


# ---- taking turns ---------------------------------------------------------------------------


def raced(task, clock, *peers, default=1.0, known=None):
    ours, _ = peer_of(clock, default, name="trsvd", role="trsvd")
    record = race_cell(task, ours, peers, Ceilings(), QUICK, known=known)
    return record, {one["name"]: one for one in record["competitors"]}


def test_the_ratio_is_that_to_the_fastest_peer(task, clock):
    fast, _ = peer_of(clock, 2.0, name="fast")
    slower, _ = peer_of(clock, 4.0, name="slower")
    record, found = raced(task, clock, slower, fast)
    assert record["reached"]
    assert record["peer"]["name"] == "fast"
    assert record["peer"]["value"] == 0.5
    assert [found[name]["status"] for name in ("fast", "slower")] == ["raced", "raced"]
    json.dumps(record, allow_nan=False)


def test_what_the_check_costs_is_compared_with_the_same_peer(task, clock):
    fast, _ = peer_of(clock, 2.0, name="fast")
    bare, _ = peer_of(clock, 0.5, name="unverified", role="unverified")
    record, _ = raced(task, clock, fast, bare)
    assert record["unverified"] == 0.25
    assert record["peer"]["value"] == 0.5
    assert record["pick"] == {"best": "trsvd", "ratio": 1.0}
    record, _ = raced(task, clock, fast)
    assert "unverified" not in record


def test_a_wrong_peer_never_counts(task, clock):
    """The fastest of all, with small residuals, but not the top triplets."""
    wrong, _ = peer_of(clock, 1e-3, name="wrong", first=1)
    right, _ = peer_of(clock, 2.0, name="right")
    for peers in ((wrong, right), (right, wrong)):
        record, found = raced(task, clock, *peers)
        assert found["wrong"]["status"] == "missed"
        assert "off by" in found["wrong"]["note"]
        assert record["peer"]["name"] == "right"
        # Nor does it throw anybody out of the race.
        assert found["right"]["status"] == "raced"
    record, _ = raced(task, clock, wrong)
    assert "peer" not in record


def test_a_peer_that_goes_wrong_later_does_not_count(task, clock):
    calls = []

    def solve(A, k, seed, start):
        calls.append(seed)
        clock.seconds = 0.1
        return leading(A, first=int(len(calls) > 4), k=k)

    right, _ = peer_of(clock, 2.0, name="right")
    record, found = raced(task, clock, Peer("moody", solve), right)
    assert found["moody"]["status"] == "missed"
    assert record["peer"]["name"] == "right"


def test_a_peer_that_raises_later_has_failed(task, clock):
    calls = []

    def breaks(A, k, seed, start):
        calls.append(seed)
        if len(calls) > 5:
            raise RuntimeError("worn out")
        clock.seconds = 2.0
        return leading(A, k=k)

    other, _ = peer_of(clock, 3.0, name="other")
    effort = dataclasses.replace(QUICK, repeats=10)
    ours, _ = peer_of(clock, 1.0, name="trsvd", role="trsvd")
    record = race_cell(task, ours, [Peer("breaks", breaks), other], Ceilings(), effort)
    found = {one["name"]: one for one in record["competitors"]}
    assert found["breaks"]["status"] == "failed"
    assert found["breaks"]["note"] == "RuntimeError: worn out"
    assert record["peer"]["name"] == "other"


def test_a_full_decomposition_is_left_out_where_it_must_be_too_slow(task, clock, monkeypatch):
    fast, _ = peer_of(clock, 1.0, name="fast")
    full, calls = peer_of(clock, 1.0, name="full", full=True)
    monkeypatch.setattr(Ceilings, "of_full_svd", lambda self, one: 5.1)
    _, found = raced(task, clock, fast, full)
    assert found["full"]["status"] == "slow"
    assert "alone take longer" in found["full"]["note"]
    assert not calls
    monkeypatch.setattr(Ceilings, "of_full_svd", lambda self, one: 4.9)
    _, found = raced(task, clock, fast, full)
    assert found["full"]["status"] == "raced"


def test_a_peer_five_times_slower_is_dropped_after_one_run(task, clock):
    fast, _ = peer_of(clock, 1.0, name="fast")
    slow, calls = peer_of(clock, 5.5, name="slow")
    _, found = raced(task, clock, fast, slow)
    assert found["slow"]["status"] == "slow"
    assert found["slow"]["times"] == []
    seeds = QUICK.seeds - 1
    assert len(calls) <= 2 + 2 * seeds
    # Known too late, it is dropped before the rounds all the same.
    _, found = raced(task, clock, slow, fast)
    assert found["slow"]["status"] == "slow"
    assert found["slow"]["times"] == []


def test_trsvd_is_never_dropped_and_drops_no_peer(task, clock):
    peer, _ = peer_of(clock, 1.0, name="peer")
    record, found = raced(task, clock, peer, default=100.0)
    assert found["trsvd"]["status"] == "raced"
    assert record["peer"]["value"] == 100.0
    record, found = raced(task, clock, peer, default=0.01)
    assert found["peer"]["status"] == "raced"
    assert record["peer"]["value"] == 0.01


def test_trsvd_that_misses_the_accuracy_has_no_ratio(task, clock):
    ours, _ = peer_of(clock, name="trsvd", role="trsvd", first=1)
    peer, _ = peer_of(clock, name="peer")
    record = race_cell(task, ours, [peer], Ceilings(), QUICK)
    assert not record["reached"]
    assert "peer" not in record
    assert "pick" not in record


def test_a_reference_is_no_peer(gap_task, clock):
    def solve(A, k, seed, start):
        clock.seconds = 8.0
        U, _, Vh = exact(A)
        return -U @ Vh, U, Vh

    reference = Peer("polar", solve, role="reference", forms_update=True)
    record, found = raced(gap_task, clock, reference)
    assert "peer" not in record
    assert record["reference"]["value"] == 0.125
    # It is judged as what it is: an oracle of the spectral ball.
    assert found["polar"]["error"] <= 1e-13


def test_what_is_known_is_not_looked_for_again(task, clock):
    peer, calls = peer_of(clock, 1.0, name="peer")
    lost = Outcome("lost", "peer", "crashed")
    known = {"peer": Outcome("peer", "peer", "raced", seconds=1.0, reached=True), "lost": lost}
    gone, gone_calls = peer_of(clock, 1.0, name="lost")
    _, found = raced(task, clock, peer, gone, known=known)
    assert len(calls) == 2
    assert gone_calls == []
    assert found["lost"]["status"] == "crashed"


def test_rounds_end_when_there_are_enough():
    effort = Effort(repeats=7, seconds=5)
    assert not effort.enough(6, 1.0)
    assert not effort.enough(7, 1.0)
    assert effort.enough(7, 5.0)
    assert effort.enough(35, 0.1)
    assert not effort.enough(2, 1e9)
    assert effort.enough(3, 30.0)


def test_short_calls_are_timed_together():
    calls = []
    _, value = sample(lambda: calls.append(0) or len(calls), 1e-3)
    # One to warm up, and 20 ms of them.
    assert value == 21
    calls.clear()
    assert timed(lambda: 7)[1] == 7
    assert sample(lambda: calls.append(0), 1.0)[1] is None
    assert len(calls) == 1


# ---- real competitors -----------------------------------------------------------------------


def tuned(peer, task):
    """A search with what it says where a setting does not converge left unsaid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tune(peer, task, math.inf, QUICK, quiet)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("shape", ["48x96", "96x48"])
def test_every_peer_reaches_the_accuracy(peer, dtype, shape, places):
    pytest.importorskip(peer.module)
    cell = dataclasses.replace(RESIDUAL, matrix=f"decay-{shape}", dtype=dtype)
    task = Task(cell, [subject(cell.matrix, dtype, places)])
    if not peer.suits(cell, task.one):
        pytest.skip("for oracles")
    outcome = tuned(peer, task)
    assert outcome.status == "raced", outcome.note
    assert outcome.error <= cell.target * 1.01


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("peer", [*PEERS, *OWN, DEFAULT], ids=lambda peer: peer.name)
def test_every_competitor_finds_the_update(peer, warm, places):
    pytest.importorskip(peer.module)
    cell = dataclasses.replace(GAP, dtype="float32", warm=warm)
    one = subject(cell.matrix, cell.dtype, places)
    task = Task(cell, [one], start=with_start(cell, one))
    if not peer.suits(cell, one):
        pytest.skip("not for oracles")
    outcome = tuned(peer, task)
    assert outcome.status == "raced", outcome.note


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_the_reference_is_muons_iteration(shape):
    A = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    D, _, _ = newton_schulz(A, K, 0, None)
    expected = -exact_newton_schulz(A.astype(np.float64), steps=5, coefficients=QUINTIC)
    # Five steps of float32 on values of order 1.
    np.testing.assert_allclose(D, expected, atol=1e-4)


def test_sparse_peers_take_sparse_matrices(places):
    cell = dataclasses.replace(RESIDUAL, matrix="sparse-400x100")
    one = subject(cell.matrix, cell.dtype, places)
    names = {peer.name for peer in PEERS if peer.suits(cell, one)}
    assert names == {"gram", "primme", "propack", "arpack", "randomized_svd", "fbpca", "lobpcg"}
    assert not any(reference.suits(cell, one) for reference in REFERENCES)


class Events(list):
    """What a worker reports."""

    def __call__(self, event, **content):
        json.dumps(content)
        self.append((event, content))


@pytest.mark.parametrize("cell", quick_cells(), ids=lambda cell: cell.name)
def test_a_worker_runs_every_kind_of_cell(cell, places):
    if cell.backend != "numpy":
        pytest.importorskip(cell.backend)
    events = Events()
    effort = Effort(repeats=1, seconds=0, seeds=1, for_time=False)
    runner = worker._Runner(places, effort, events)
    known = {peer.name: Outcome(peer.name, peer.role, "failed").as_dict() for peer in PEERS}
    runner.run(cell, known, {})
    assert [event for event, _ in events][:: len(events) - 1] == ["cell", "result"]
    record = events[-1][1]["record"]
    assert record["reached"]
    assert record["rates"]["operations"] > 0
    assert record["rates"]["bytes"] > 0
    assert record["size"] == [*runner.task(cell).one.size]
    ours = next(one for one in record["competitors"] if one["role"] == "trsvd")
    assert ours["status"] == "raced"
    if not cell.batch and cell.measure != "gap":
        assert ours["facts"]["matvecs"] > 0
        assert record["ceiling"] > 0
    statuses = {one["name"]: one["status"] for one in record["competitors"]}
    assert {statuses[peer.name] for peer in PEERS} == {"failed"}
    # A matrix is made once for the cells that it is in.
    if not cell.batch:
        assert runner.task(cell).one is runner.task(cell).one


def test_a_worker_passes_over_what_it_cannot_have(places, monkeypatch):
    events = Events()
    runner = worker._Runner(places, QUICK, events)
    runner.run(dataclasses.replace(RESIDUAL, matrix="magic-3x3"), {}, {})
    assert events[1] == (
        "unavailable",
        {"name": events[0][1]["name"], "why": events[1][1]["why"]},
    )
    assert "no family" in events[1][1]["why"]
    monkeypatch.setattr(worker, "subject", lambda *args: 1 / 0)
    runner.run(RESIDUAL, {}, {})
    assert events[-1][1]["why"] == "ZeroDivisionError: division by zero"


def test_a_worker_reads_its_job_and_prints_events_only(tmp_path):
    job = {
        "cache": str(tmp_path),
        "data": None,
        "effort": dataclasses.asdict(QUICK),
        "cells": [
            {"cell": {**RESIDUAL.as_dict(), "matrix": "magic-3x3"}, "known": {}, "elsewhere": {}}
        ],
    }
    done = subprocess.run(
        [sys.executable, "-m", race._WORKER],
        cwd=race._FOLDER,
        env=race.environment(1),
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=True,
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["ready", "cell", "unavailable", "end"]
    assert events[0]["sources"] == worker.sources()
    if importlib.util.find_spec("threadpoolctl"):
        assert any("openblas" in pool or "mkl" in pool for pool in events[0]["pools"])


def test_a_batch_is_raced_at_once_and_one_matrix_at_a_time():
    cell = dataclasses.replace(RESIDUAL, matrix="gaussian-12x8", batch=3)
    task = Task(cell, many_subjects(cell.matrix, cell.dtype, 3))
    raw = DEFAULT.runner(task)(0, {"tol": 1e-10})
    assert judge(task, answer_of(raw)).reached
    one_by_one = next(own for own in OWN if own.name == "one at a time")
    alone = one_by_one.runner(task)(0, {"tol": 1e-10})
    assert len(alone) == 3
    assert judge(task, answer_of(alone)).reached
    assert facts_of(raw) == facts_of(alone) == facts_of(alone[0])

    def each(A, k, seed, start):
        return leading(A, k=k)

    assert judge(task, Peer("each", each).runner(task)(0, {})).reached
    stack = Peer("stack", lambda A, k, seed, start: leading_of_stack(A, k), batched=True)
    assert judge(task, stack.runner(task)(0, {})).reached


def leading_of_stack(A, k):
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    return U[..., :k], S[..., :k], Vh[..., :k, :]


def test_a_gram_matrix_of_a_sparse_matrix(places):
    one = subject("sparse-400x100", "float32", places)
    U, S, Vh = solvers.gram(one.A, K, 0, None, wide=True)
    # Of a product in double precision, eps s_1^2 / s_i: far below float32. They ascend.
    np.testing.assert_allclose(S[::-1], one.S[:K], rtol=1e-5)
    np.testing.assert_allclose(one.A @ Vh.T, U * S, atol=1e-5 * S[0])


@pytest.mark.parametrize("shape", [(30, 20), (20, 30)])
def test_arpack_starts_where_it_is_told_to(shape):
    A = np.random.default_rng(0).standard_normal(shape)
    U, _, Vh = leading(A, k=1)
    U, S, Vh = solvers.arpack(A, 1, 0, Vh.T, tol=1e-6)
    np.testing.assert_allclose(S, np.linalg.svd(A, compute_uv=False)[:1], rtol=1e-10)


def test_ceilings_of_a_sparse_matrix_read_its_entries(places):
    one = subject("sparse-400x100", "float64", places)
    single, column = Ceilings().reading(one)
    assert 0 < column <= single


def test_rates_of_a_disturbed_machine_are_measured_again(places, monkeypatch):
    """A run at several times the ceiling says that the ceiling is wrong; the better rates stay."""
    one = subject("gaussian-64x64", "float32", places)
    seconds = iter([1.0, 1.0, 2e-5, 1e-3, 3e-5, 2e-5])  # with A, A^T, of matrices; and again
    monkeypatch.setattr("race.timing._best", lambda call, repeats: next(seconds))
    ceilings = Ceilings()
    assert ceilings.share(one, 10, 10, 1e-4) == pytest.approx(5 * 2e-5 / 1e-4)
    assert ceilings.reading(one)[0] == 2e-5
    assert ceilings.gemm("float32") == 2 * 1536**3 / 2e-5  # not the later, lower one
    assert ceilings.share(one, 10, 10, 1e-4) == pytest.approx(1.0)
    assert next(seconds, None) is None


def test_ceilings_count_what_cannot_be_avoided():
    one = Subject("a", np.zeros((40, 30)), np.zeros(30))
    ceilings = Ceilings()
    single, column = ceilings.reading(one)
    assert ceilings.least(one, 4, 2) == max(single, 4 * column)
    assert column == 2 * 40 * 30 / ceilings.gemm("float64")
    assert ceilings.of_full_svd(one) == 4 * 40 * 30 * 30 / ceilings.gemm("float64")


# ---- the file -------------------------------------------------------------------------------


def record_of(name="f32/decay-48x96/k3/1e-03", threads=1, ratio=0.5, **more):
    """A result as a worker and the crew make it."""
    ours = Outcome("trsvd", "trsvd", "raced", seconds=ratio, reached=True, error=1e-4)
    peer = Outcome("peer", "peer", "raced", seconds=1.0, reached=True, error=1e-4)
    return {
        "name": name,
        "threads": threads,
        "sources": "abc",
        "cell": RESIDUAL.as_dict(),
        "reached": True,
        "rounds": 2,
        "peer": {
            "name": "peer",
            "value": ratio,
            "low": 0.9 * ratio,
            "high": ratio,
            "confidence": 0.98,
        },
        "pick": {"best": "trsvd", "ratio": 1.0},
        "ceiling": 0.25,
        "competitors": [ours.as_dict(), peer.as_dict()],
        **more,
    }


def test_results_are_kept_cell_by_cell(tmp_path):
    path = tmp_path / "race.json"
    results = Results.open(path, header())
    results.use_threads(1, ["openblas 1"])
    for place in range(3):
        results.add(record_of(str(place)))
        assert len(json.loads(path.read_text())["cells"]) == place + 1
    results.add(record_of("1", ratio=0.7))
    again = Results.open(path, header())
    assert [cell["name"] for cell in again.cells] == ["0", "2", "1"]
    assert again.cells[-1]["peer"]["value"] == 0.7
    assert again.has("1", 1)
    assert not again.has("1", 2)
    assert again.has("1", 1, "abc")
    assert not again.has("1", 1, "other sources")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu": "another"}, "cpu: another there"),
        ({"versions": {"numpy": "1.0"}}, "versions.numpy: 1.0 there"),
        ({"python": "2.7"}, "python: 2.7 there"),
        ({"blas": {}}, "blas.numpy"),
    ],
)
def test_a_file_from_elsewhere_is_refused(tmp_path, change, message):
    path = tmp_path / "race.json"
    Results(path, {**header(), **change}).add(record_of())
    before = path.read_bytes()
    with pytest.raises(Mismatch, match=message):
        Results.open(path, header())
    assert path.read_bytes() == before
    assert len(Results.read(path).cells) == 1


def test_other_blas_threads_are_refused(tmp_path):
    path = tmp_path / "race.json"
    results = Results.open(path, header())
    results.use_threads(1, ["openblas 1"])
    results.add(record_of())
    again = Results.open(path, header())
    again.use_threads(1, ["openblas 1"])
    again.use_threads(2, ["openblas 2"])
    with pytest.raises(Mismatch, match=r"openblas 1; here it is openblas 2"):
        again.use_threads(1, ["openblas 2"])


def test_results_can_be_kept_compressed(tmp_path):
    plain, compressed = tmp_path / "race.json", tmp_path / "race.json.gz"
    for path in (plain, compressed):
        results = Results.open(path, header())
        results.use_threads(1, ["openblas 1"])
        results.add(record_of("first", ratio=1 / 3))
    assert gzip.decompress(compressed.read_bytes()) == plain.read_bytes()
    again = Results.open(compressed, header())
    assert again.cells == Results.open(plain, header()).cells
    assert again.cells[0]["peer"]["value"] == 0.333333
    again.add(record_of("second"))
    assert [cell["name"] for cell in Results.read(compressed).cells] == ["first", "second"]


def test_settings_are_kept_in_all_their_digits(tmp_path):
    """A search that begins with those of a file looks for them among its own."""
    path, tol = tmp_path / "race.json", 10 ** (-9 / 4)
    record = record_of()
    record["competitors"][1]["options"] = {"tol": tol}
    Results(path, header()).add(record)
    found = Results.open(path, header()).peers_of(record["name"])
    assert found["peer"]["options"] == {"tol": tol}


@pytest.mark.parametrize(
    "content", [b"", b"{}", gzip.compress(b"{}", mtime=0), gzip.compress(b"x" * 99, mtime=0)[:20]]
)
def test_a_compressed_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "race.json.gz"
    path.write_bytes(content)
    with pytest.raises(Mismatch, match="does not hold"):
        Results.open(path, header())
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"cells": {}},
        {"cells": [None]},
        {"cells": [{}]},
        {"cells": [{**record_of(), "competitors": None}]},
    ],
)
def test_cells_of_another_make_are_refused(tmp_path, change):
    path = tmp_path / "race.json"
    Results(path, header()).add(record_of())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    before = path.read_bytes()
    for read in (Results.read, lambda one: Results.open(one, header())):
        with pytest.raises(Mismatch, match="does not hold results of a race"):
            read(path)
    assert path.read_bytes() == before


def test_a_file_keeps_its_place_and_its_mode(tmp_path):
    path, link = tmp_path / "race.json", tmp_path / "link.json"
    Results(path, header()).add(record_of("first"))
    path.chmod(0o664)
    link.symlink_to(path)
    Results.open(link, header()).add(record_of("second"))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o664
    assert [cell["name"] for cell in Results.read(path).cells] == ["first", "second"]


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "race.json"
    Results(path, {**header(), "format": 0}).add(record_of())
    before = path.read_bytes()
    for read in (Results.read, lambda one: Results.open(one, header())):
        with pytest.raises(Mismatch, match="format: 0 there"):
            read(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"header": {}}'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "race.json"
    path.write_text(text)
    with pytest.raises(Mismatch, match="does not hold"):
        Results.open(path, header())
    assert path.read_text() == text


# ---- processes ------------------------------------------------------------------------------


CELLS = quick_cells()[:3]
FULL = [cell for cell in all_cells() if cell.k == 256]


@pytest.fixture
def scripted(monkeypatch):
    """Workers that report what a test says; the jobs that they were given."""
    jobs, scripts = [], []

    class Worker:
        def __init__(self, job, variables):
            jobs.append((job, variables))
            self.script = scripts.pop(0)

        def events(self):
            yield {"event": "ready", "pools": ["openblas"], "sources": "abc"}
            yield from self.script

        def stop(self):
            pass

    monkeypatch.setattr(race, "_Worker", Worker)
    return jobs, scripts


def events_of(cell):
    record = record_of()
    kept = {key: record[key] for key in record if key not in {"name", "threads", "cell", "sources"}}
    return [
        {"event": "cell", "name": cell.name},
        {"event": "call", "competitor": "gram", "limit": 1},
        {"event": "tuned", "outcome": Outcome("gram", "peer", "raced").as_dict()},
        {"event": "result", "name": cell.name, "record": kept},
    ]


def lost(why):
    return {"event": "lost", "why": why, "tail": "the end"}


def test_a_second_run_goes_on_where_the_first_ended(tmp_path, scripted):
    jobs, scripts = scripted
    path = tmp_path / "race.json"
    scripts += [[*events_of(CELLS[0]), *events_of(CELLS[1]), *events_of(CELLS[2])]]
    first = race.run(CELLS, Results.open(path, header()))
    assert next(first)["name"] == CELLS[0].name
    first.close()
    scripts[:] = [[*events_of(CELLS[1]), *events_of(CELLS[2]), {"event": "end"}]]
    found = list(race.run(CELLS, Results.open(path, header())))
    assert [one["name"] for one in found] == [cell.name for cell in CELLS[1:]]
    assert [entry["cell"]["matrix"] for entry in jobs[1][0]["cells"]] == [
        cell.matrix for cell in CELLS[1:]
    ]
    # A third has nothing to do, and starts no process.
    assert list(race.run(CELLS, Results.open(path, header()))) == []
    assert len(jobs) == 2


def test_each_number_of_threads_has_a_process_of_its_own(scripted):
    jobs, scripts = scripted
    scripts += [[*events_of(CELLS[0])], [*events_of(CELLS[0])]]
    found = list(race.run(CELLS[:1], Results(None, header()), threads=[1, 2]))
    assert [one["threads"] for one in found] == [1, 2]
    assert [variables["OMP_NUM_THREADS"] for _, variables in jobs] == ["1", "2"]
    assert [job["effort"]["pause"] > 0 for job, _ in jobs] == [False, True]


@pytest.mark.parametrize("why", ["crashed", "timed out"])
def test_a_peer_that_ends_the_process_is_left_out_of_the_cell(scripted, why):
    jobs, scripts = scripted
    primme = {"event": "call", "competitor": "primme", "limit": 1}
    scripts += [[*events_of(CELLS[0])[:3], primme, lost(why)], [*events_of(CELLS[0])]]
    told = []
    [found] = race.run(CELLS[:1], Results(None, header()), progress=told.append)
    assert found["name"] == CELLS[0].name
    known = jobs[1][0]["cells"][0]["known"]
    assert known["gram"]["status"] == "raced"
    assert Outcome(**known["primme"]).status == why
    assert known["primme"]["role"] == "peer"
    assert any(f"primme {why}" in line for line in told)


def test_trsvd_that_ends_the_process_has_lost_the_cell(scripted):
    _, scripts = scripted
    ours = {"event": "call", "competitor": "trsvd", "limit": 1}
    scripts += [[events_of(CELLS[0])[0], ours, lost("crashed")], events_of(CELLS[1])]
    found = list(race.run(CELLS[:2], Results(None, header())))
    assert [one["reached"] for one in found] == [False, True]
    [summary] = summarize(found)
    assert summary.missed == (CELLS[0].name,)


def test_a_matrix_that_cannot_be_had_is_passed_over(scripted):
    _, scripts = scripted
    first, second = CELLS[:2]
    missing = {"event": "unavailable", "name": first.name, "why": "no text"}
    scripts += [[events_of(first)[0], missing, *events_of(second)]]
    assert [one["name"] for one in race.run([first, second], Results(None, header()))] == [
        second.name
    ]
    scripts += [[events_of(first)[0], lost("crashed")]]
    assert list(race.run([first], Results(None, header()))) == []


def test_a_worker_that_does_not_start_is_an_error(scripted):
    _, scripts = scripted
    scripts += [[lost("crashed")]]
    with pytest.raises(RuntimeError, match="the end"):
        list(race.run(CELLS, Results(None, header())))


def test_other_sources_are_run_again_if_asked_for(scripted, monkeypatch):
    jobs, scripts = scripted
    results = Results(None, header(), [record_of(CELLS[0].name)])
    assert list(race.run(CELLS[:1], results)) == []
    monkeypatch.setattr(race, "sources", lambda: "abc")
    assert list(race.run(CELLS[:1], results, renew=True)) == []
    monkeypatch.setattr(race, "sources", lambda: "changed")
    scripts += [events_of(CELLS[0])]
    assert len(list(race.run(CELLS[:1], results, renew=True))) == 1
    assert len(jobs) == 1


def test_peers_keep_their_settings_when_a_cell_is_run_again(scripted, monkeypatch):
    """Those of trsvd do not, which is another one now; nor does anybody keep times."""
    jobs, scripts = scripted
    monkeypatch.setattr(race, "sources", lambda: "changed")
    record = record_of(CELLS[0].name)
    peer = {"name": "fbpca", "role": "peer", "status": "raced", "options": {"n_iter": 2}}
    slow = {"name": "arpack", "role": "peer", "status": "slow", "seconds": 3.0}
    own = {"name": "trlan", "role": "own", "status": "raced"}
    record["competitors"] = [{**peer, "times": [1.0, 2.0], "facts": {"a": 1}}, slow, own]
    results = Results(None, header(), [record, {**record, "threads": 2}])
    scripts += [events_of(CELLS[0])]
    list(race.run(CELLS[:1], results, renew=True))
    [entry] = jobs[0][0]["cells"]
    empty = {"times": [], "facts": {}}
    assert entry["known"]["fbpca"] == {**peer, **empty}
    assert entry["known"]["arpack"] == {**slow, **empty}
    assert "trlan" not in entry["known"]
    scripts += [events_of(CELLS[1])]
    list(race.run(CELLS[1:2], results))
    assert jobs[1][0]["cells"][0]["known"] == {}


def test_with_other_threads_the_search_begins_where_it_ended_before(scripted):
    jobs, scripts = scripted
    record = record_of(CELLS[0].name)
    peer = {"name": "fbpca", "role": "peer", "status": "raced", "options": {"n_iter": 2}}
    record["competitors"] = [{**peer, "times": [1.0], "facts": {}}]
    scripts += [events_of(CELLS[0])]
    list(race.run(CELLS[:1], Results(None, header(), [record]), threads=[2]))
    [entry] = jobs[0][0]["cells"]
    assert entry["known"] == {}
    assert entry["elsewhere"]["fbpca"] == {**peer, "times": [], "facts": {}}


def test_workers_do_not_inherit_what_slows_blas_libraries():
    outer = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "1", "HOME": "/home/me"}
    found = race.environment(2, {**outer, "OMP_NUM_THREADS": "7"})
    assert "OPENBLAS_CORETYPE" not in found
    assert "OPENBLAS_L2_SIZE" not in found
    assert found["HOME"] == "/home/me"
    assert found["OMP_NUM_THREADS"] == found["OPENBLAS_NUM_THREADS"] == "2"


STUB = """
import json, os, sys, time
job = json.loads(sys.stdin.read())
say = lambda **event: print(json.dumps(event), flush=True)
say(event="ready", threads=os.environ["OMP_NUM_THREADS"])
if job["mode"] == "hang":
    say(event="call", limit=-4.9)
    time.sleep(600)
if job["mode"] == "crash":
    sys.exit("no such luck")
say(event="end")
"""


@pytest.mark.parametrize(
    ("mode", "last"), [("end", "end"), ("hang", "timed out"), ("crash", "crashed")]
)
def test_a_worker_ends_in_one_of_three_ways(mode, last, tmp_path, monkeypatch):
    (tmp_path / "stub_worker.py").write_text(STUB)
    monkeypatch.setattr(race, "_WORKER", "stub_worker")
    variables = race.environment(2)
    worker = race._Worker({"mode": mode}, {**variables, "PYTHONPATH": str(tmp_path)})
    try:
        events = list(worker.events())
    finally:
        worker.stop()
    assert events[0]["threads"] == "2"
    assert events[-1].get("why", events[-1]["event"]) == last
    if mode == "crash":
        assert "no such luck" in events[-1]["tail"]


# ---- what is shown --------------------------------------------------------------------------


def test_the_summary_counts_what_it_says():
    bound = {**RESIDUAL.as_dict(), "memory_bound": True}
    oracle = {**GAP.as_dict(), "warm": True}
    cells = [
        record_of("a", ratio=0.5, cell=bound),
        record_of("b", ratio=2.0),
        record_of("c", reference={"value": 0.1}, cell=oracle, ratio=1.0),
        {**record_of("d", ratio=1.0), "peer": None},
        record_of("e", threads=2),
    ]
    del cells[3]["peer"]
    cells.append({**record_of("f"), "reached": False})
    del cells[-1]["peer"]
    one, two = summarize(cells)
    assert (one.threads, one.cells, one.counted, one.counted_bound) == (1, 5, 3, 1)
    assert one.overall == pytest.approx(1.0, rel=1e-12)
    assert one.memory_bound == 0.5
    assert one.worst == ("b", 2.0)
    assert one.lost == ("b",)
    assert one.missed == ("f",)
    assert one.unopposed == ("d",)
    assert one.references == {"warm": pytest.approx(0.1)}
    assert two.overall == 0.5


def test_a_summary_in_words():
    names = [f"cell{i}" for i in range(6)]
    cells = [record_of(name, ratio=2.0) for name in names]
    cells += [{**record_of("f"), "reached": False, "peer": None} for _ in range(1)]
    oracle = {**GAP.as_dict(), "warm": True}
    cells += [record_of("g", reference={"value": 0.125}, cell=oracle)]
    for one in cells:
        if one["peer"] is None:
            del one["peer"]
    text = "\n".join(summary_lines(summarize(cells)[0]))
    assert "1 thread, 8 cells" in text
    assert "those that memory bounds: none" in text
    assert "worst cell: cell0, 2.00" in text
    assert (
        "slower than a peer beyond the interval: 6 (cell0, cell1, cell2, cell3, cell4, ...)" in text
    )
    assert "accuracy missed: 1 (f)" in text
    assert "warm oracle, time over that of Newton-Schulz: 0.125" in text
    assert "no peer was accurate" not in text
    del cells[0]["peer"]
    assert "no peer was accurate: 1 (cell0)" in "\n".join(summary_lines(summarize(cells)[0]))


def test_cells_are_summed_up_by_their_matrices():
    """A floor is what is left of a ratio where only products at the ceiling are counted."""
    real = {**RESIDUAL.as_dict(), "matrix": "data-one"}
    other = {**RESIDUAL.as_dict(), "matrix": "data-two"}
    cells = [
        record_of("a", ratio=2.0, cell=real, ceiling=0.5),
        record_of("b", ratio=8.0, cell=other, ceiling=0.125),
        record_of("c", ratio=3.0, cell=RESIDUAL.as_dict(), ceiling=0.25),
        record_of("d", ratio=5.0, cell=GAP.as_dict()),
    ]
    del cells[3]["ceiling"]
    cells[0]["unverified"] = 1.5
    cells[1]["unverified"] = 6.0
    [summary] = summarize(cells)
    assert summary.counted_unverified == 2
    assert summary.unverified == pytest.approx(3.0)
    found = {group.name: group for group in summary.groups}
    assert list(found) == sorted(["real matrices", RESIDUAL.matrix, f"{GAP.matrix}, oracles"])
    both = found["real matrices"]
    assert both.cells == 2
    assert (both.ratio, both.ceiling, both.floor) == pytest.approx((4.0, 0.25, 1.0))
    assert found[RESIDUAL.matrix].floor == pytest.approx(0.75)
    oracle = found[f"{GAP.matrix}, oracles"]
    assert oracle.ratio == pytest.approx(5.0)
    assert math.isnan(oracle.floor)
    lines = summary_lines(summary)
    assert any(re.search(r"check for missed values: .* 3\.00 \(2 cells", line) for line in lines)
    assert any(re.search(r"real matrices +2 +4\.00 +3\.00 +25% +1\.00", line) for line in lines)
    assert any(re.search(r"oracles +1 +5\.00 +- +- +-", line) for line in lines)
    assert not any("by matrix" in line for line in summary_lines(summarize(cells[:1])[0]))


def test_nothing_to_compare_is_said_in_words():
    cell = record_of("a")
    del cell["peer"], cell["pick"]
    text = "\n".join(summary_lines(summarize([cell])[0]))
    assert "all cells with a peer: none" in text
    assert "worst" not in text
    assert "best own method" not in text


def test_products_of_the_check_stand_beside_the_others():
    cell = record_of()
    cell["competitors"][0]["facts"] = {"matvecs": 40, "matvecs_verify": 8}
    assert "40+8" in entries(cell)
    cell["competitors"][0]["facts"] = {"matvecs": 40, "matvecs_verify": 0}
    assert "40" in entries(cell)


def test_settings_of_every_competitor_are_shown():
    cell = record_of()
    cell["competitors"][1]["options"] = {"tol": 0.00012345, "ncv": 20}
    lines = details(cell)
    assert len(lines) == 2
    assert "tol=0.00012, ncv=20" in lines[1]


def test_a_little_more_than_a_short_peer_is_no_loss():
    record = record_of(ratio=1.5)
    assert summarize([record])[0].lost
    unsure = {**record, "peer": {**record["peer"], "confidence": 0.75}}
    assert not summarize([unsure])[0].lost
    for one, seconds in zip(record["competitors"], (4.5e-4, 3e-4), strict=True):
        one["seconds"] = seconds
    assert not summarize([record])[0].lost


def test_the_table_replaces_the_one_before(tmp_path):
    head = {**header(), "threads": {"1": ["openblas 0.3 1"]}}
    text = markdown(head, [record_of(), record_of(threads=2)])
    assert head["cpu"] in text
    assert f"numpy {np.__version__}" in text
    assert "openblas 0.3 1" in text
    assert text.count("| f32/decay-48x96/k3/1e-03 |") == 2
    path = tmp_path / "performance.md"
    path.write_text(f"# Before\n\n{BEGIN}\nold\n{END}\n\nAfter\n")
    replace_table(path, text)
    replace_table(path, text)
    found = path.read_text()
    assert found.startswith("# Before\n")
    assert found.endswith("After\n")
    assert "old" not in found
    assert found.count(text) == 1
    (tmp_path / "other.md").write_text("no marks")
    with pytest.raises(ValueError, match="begin"):
        replace_table(tmp_path / "other.md", text)
    replace_table(tmp_path / "new.md", text)
    assert text in (tmp_path / "new.md").read_text()


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    plot([record_of(), record_of(threads=2)], tmp_path / "race.png")
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")


# ---- the command ----------------------------------------------------------------------------


def test_cells_are_listed(capsys):
    assert main(["--list", "--cells", "k256"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{dtype}/gaussian-1024x4096/k256/{target}"
        for dtype, targets in (
            ("f32", ("1e-02", "1e-04", "3e-06")),
            ("f64", ("1e-02", "1e-04", "1e-10")),
        )
        for target in targets
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cells", "nothing-like-it"], "no cell has such a name"),
        (["--report"], "needs --json"),
        (["--data", "/no/such/folder"], "--data"),
        (["--plot", "race.nonsense"], "png"),
        (["--json", "/no/such/folder/race.json"], "no such directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments, message, capsys):
    assert main([*arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "1,x", "", "1.5"])
def test_numbers_of_threads_are_checked(text):
    with pytest.raises(SystemExit):
        main(["--threads", text])


@pytest.mark.parametrize("text", ["x", "-1", "inf", "nan"])
def test_numbers_of_seconds_are_checked(text, capsys):
    with pytest.raises(SystemExit):
        main(["--seconds", text])
    assert "is not a number of seconds" in capsys.readouterr().err


def test_efforts_and_a_new_file(tmp_path, scripted, capsys):
    jobs, scripts = scripted
    path = tmp_path / "race.json"
    Results(path, {**header(), "cpu": "another"}).add(record_of("gone"))
    scripts += [events_of(FULL[0])]
    arguments = ["--cells", FULL[0].name, "--json", str(path), "--seconds", "0.5"]
    assert main([*arguments, "--fresh"]) == 0
    assert jobs[0][0]["effort"]["seconds"] == 0.5
    assert [cell["name"] for cell in Results.open(path, header()).cells] == [FULL[0].name]
    assert FULL[0].name in capsys.readouterr().out
    assert main([*arguments]) == 0
    assert "all cells have results already" in capsys.readouterr().err


def test_threads_that_blas_does_not_take_end_the_command(tmp_path, scripted, capsys):
    _, scripts = scripted
    path = tmp_path / "race.json"
    results = Results(path, header())
    results.use_threads(1, ["another blas"])
    results.add(record_of(FULL[1].name))
    scripts += [events_of(FULL[0])]
    assert main(["--cells", FULL[0].name, "--json", str(path)]) == 2
    assert "another blas" in capsys.readouterr().err


def test_progress_on_a_terminal_is_one_line(scripted, capsys, monkeypatch):
    _, scripts = scripted
    scripts += [events_of(CELLS[0])]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["--quick", "--cells", CELLS[0].name]) == 0
    shown = capsys.readouterr().err
    assert CELLS[0].name in shown
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[K")


def test_a_table_that_cannot_be_written_is_said(tmp_path, scripted, capsys):
    _, scripts = scripted
    scripts += [events_of(FULL[0])]
    (tmp_path / "table.md").write_text("no marks")
    arguments = ["--cells", FULL[0].name, "--markdown", str(tmp_path / "table.md")]
    assert main([*arguments]) == 2
    assert "begin" in capsys.readouterr().err
    assert len(scripts) == 1  # before anything ran


def test_a_report_of_nothing_leaves_the_table(tmp_path, capsys):
    path, table = tmp_path / "race.json", tmp_path / "table.md"
    Results(path, header()).add(record_of(RESIDUAL.name))
    report = ["--report", "--json", str(path), "--markdown", str(table)]
    assert main(report) == 0
    before = table.read_text()
    for more in (["--cells", "nothing"], ["--threads", "2"]):
        assert main([*report, *more]) == 2
        assert "has no such cells" in capsys.readouterr().err
    assert table.read_text() == before
    assert main([*report, "--threads", "1"]) == 0


def test_a_run_without_any_cell_fails(scripted, capsys):
    _, scripts = scripted
    why = {"event": "unavailable", "name": FULL[0].name, "why": "no matrix"}
    scripts += [[events_of(FULL[0])[0], why]]
    assert main(["--cells", FULL[0].name]) == 1
    assert "no cell could be run" in capsys.readouterr().err


def test_anew_and_again_exclude_each_other(tmp_path, capsys):
    arguments = ["--json", str(tmp_path / "race.json"), "--fresh", "--renew"]
    assert main([*arguments]) == 2
    assert "pass one of them" in capsys.readouterr().err


def test_a_folder_without_spectra(tmp_path, capsys):
    np.save(tmp_path / "b.npy", np.ones((30, 20), np.float32))
    assert main(["--list", "--data", str(tmp_path)]) == 2
    assert "spectra.npz" in capsys.readouterr().err


def test_the_command_draws(tmp_path, scripted, capsys):
    pytest.importorskip("matplotlib")
    _, scripts = scripted
    scripts += [events_of(FULL[0])]
    path = tmp_path / "race.png"
    assert main(["--cells", FULL[0].name, "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert FULL[0].name in capsys.readouterr().out


def test_a_file_that_cannot_be_replaced_stays_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "race.json"
    Results(path, header()).add(record_of("first"))
    before = path.read_text()

    def refused(self, target):
        raise PermissionError("read-only")

    results = Results.open(path, header())
    monkeypatch.setattr(type(path), "replace", refused)
    with pytest.raises(race.Unwritable, match=r"race\.json cannot be written.*read-only"):
        results.add(record_of("second"))
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == ["race.json"]


def test_a_mismatch_ends_the_command(tmp_path, capsys):
    path = tmp_path / "race.json"
    Results(path, {**header(), "cpu": "another"}).add(record_of())
    assert main(["--json", str(path), "--cells", "k256"]) == 2
    assert "cpu: another there" in capsys.readouterr().err


def test_a_file_is_reported_wherever_it_was_measured(tmp_path, capsys):
    path, table = tmp_path / "race.json", tmp_path / "table.md"
    cell = dataclasses.replace(RESIDUAL, matrix="data-anything")
    results = Results(path, {**header(), "cpu": "another machine"})
    results.add(record_of(cell.name, cell=cell.as_dict()))
    results.add(record_of(RESIDUAL.name))
    arguments = ["--report", "--json", str(path), "--markdown", str(table), "--details"]
    assert main([*arguments, "--cells", "data-anything"]) == 0
    out = capsys.readouterr().out
    assert cell.name in out
    assert RESIDUAL.name not in out
    assert "geometric mean of the ratio 0.50" in out
    assert "another machine" in table.read_text()


def test_trsvd_that_misses_the_accuracy_fails_a_quick_run(scripted, capsys):
    _, scripts = scripted
    script = events_of(CELLS[0])
    script[-1]["record"]["reached"] = False
    scripts += [script]
    assert main(["--quick", "--cells", CELLS[0].name]) == 1
    assert "missed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_quick_run_from_end_to_end(tmp_path, capsys, monkeypatch):
    """Every kind of cell, in a real process; accuracy only."""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    path = tmp_path / "race.json"
    arguments = ["--quick", "--cache", str(tmp_path / "cache"), "--json", str(path)]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [cell.name for cell in quick_cells()]
    assert [line.split(":")[0] for line in lines] == names
    assert all(": accurate, error " in line for line in lines)
    cells = Results.open(path, header()).cells
    assert [cell["name"] for cell in cells] == names
    statuses = {one["status"] for cell in cells for one in cell["competitors"]}
    assert statuses <= {"raced", "slow", "missed", "failed"}
    # Whoever is installed has an entry wherever it can take part.
    installed = {peer.name for peer in PEERS if peer.installed()}
    seen = {one["name"] for cell in cells for one in cell["competitors"]}
    assert installed <= seen
    assert main(arguments) == 0
    assert capsys.readouterr().out == ""
    assert sys.stdout.writable()


def test_settings_that_a_peer_is_tried_with(places):
    sparse = subject("sparse-400x100", "float64", places)
    dense = subject("decay-96x120", "float64", places)
    peers = {peer.name: peer for peer in PEERS}

    def options(name, one, k):
        cell = dataclasses.replace(RESIDUAL, matrix=one.name, k=k)
        return [key for setting in peers[name].variants(cell, one) for key in setting]

    assert "blas" not in options("gram", sparse, 3)
    assert "blas" in options("gram", dense, 3)
    assert "driver" in options("gram", dense, 20)
    assert "maxBlockSize" not in options("primme", dense, 3)
    assert "maxBlockSize" in options("primme", dense, 4)
