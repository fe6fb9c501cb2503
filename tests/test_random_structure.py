"""Random structured problems: none is silently wrong. A nightly run takes many more.

The examples are the same in every run; `python tests/nightly.py` draws others.
"""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import random_structure
from hypothesis import HealthCheck, event, given, settings
from judges import BALLS, NORMS, judge_above, judge_ball, judge_energy, judge_norm
from nightly import main
from random_structure import Problem, examine, problems
from structured_matrices import GRAPHS, KINDS, Random, made_by

import trsvd
from reliability.cases import Truth
from reliability.judge import Outcome
from trsvd import svds, svds_above, svds_to_tolerance

deterministic = settings(
    max_examples=400,
    backend="independent",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@deterministic
@given(problems())
def test_none_is_silently_wrong(problem):
    event(examine(problem).name)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "few-levels"])
def test_none_of_a_kind_is_silently_wrong(kind):
    @settings(deterministic, max_examples=60)
    @given(problems(kind))
    def check(problem):
        event(examine(problem).name)

    check()


# ---- matrices --------------------------------------------------------------------------------


def values(*description, dtype="float64"):
    return np.linalg.svd(made_by(description, 0, dtype), compute_uv=False)


def test_a_problem_makes_the_matrix_that_it_says():
    made = ("levels", ((2.0, 2), (0.5, 1)), (True, False))
    problem = Problem(made, "float64", 2, "trlan", rows_and_columns=(4, 1), exponent=3)
    assert problem.A.shape == (7, 4)
    s = np.linalg.svd(problem.A, compute_uv=False)
    assert np.allclose(s, [16, 16, 4, 0], atol=1e-13)
    blocks = Problem(("blocks", ((1.0, 2.0),), 3), "float32", 2, "auto", transposed=True)
    assert blocks.A.shape == (6, 3)
    assert np.allclose(np.linalg.svd(blocks.A, compute_uv=False), 5**0.5, rtol=1e-6)


def test_shuffling_keeps_the_values():
    made = ("equal", 2, 3, 4)
    plain = Problem(made, "complex128", 2, "auto", rows_and_columns=(2, 1))
    mixed = dataclasses.replace(plain, shuffled=True)
    assert not np.array_equal(plain.A, mixed.A)
    s = np.linalg.svd(plain.A, compute_uv=False)
    assert np.allclose(s, np.linalg.svd(mixed.A, compute_uv=False), atol=1e-13)
    assert np.allclose(s[0], s[:4], rtol=1e-13)


# Eigenvalues of adjacency matrices, by theory; those of the Laplacian of a d-regular graph are
# d minus these.
SPECTRA = {
    "path": ((7,), 2 * np.cos(np.pi * np.arange(1, 8) / 8), 0),
    "cycle": ((8,), 2 * np.cos(2 * np.pi * np.arange(8) / 8), 2),
    "star": ((10,), np.r_[3, -3, np.zeros(8)], 0),
    "bipartite": ((3, 5), np.r_[15**0.5, -(15**0.5), np.zeros(6)], 0),
    "hypercube": ((3,), [3, 1, 1, 1, -1, -1, -1, -3], 3),
    "grid": ((2, 2), [2, 0, 0, -2], 2),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_graphs_have_the_spectra_of_theory(name):
    sizes, eigenvalues, degree = SPECTRA[name]
    eigenvalues = np.asarray(eigenvalues, dtype=float)

    def sorted_(x):
        return np.sort(np.abs(x))[::-1]

    adjacency = values("graph", name, sizes, "adjacency", 2)
    assert np.allclose(adjacency, sorted_(np.repeat(eigenvalues, 2)), atol=1e-13)
    laplacian = values("graph", name, sizes, "laplacian", 1)
    if degree:
        assert np.allclose(laplacian, sorted_(degree - eigenvalues), atol=1e-13)
    incidence = values("graph", name, sizes, "incidence", 1)
    expected = np.zeros(len(incidence))
    expected[: len(laplacian)] = laplacian[: len(incidence)] ** 0.5
    assert np.allclose(incidence, expected, atol=1e-7)  # roots of rounding errors


def test_a_regular_graph_is_regular():
    edges, count = GRAPHS["regular"](Random(0, np.dtype(float)), 9, 3)
    assert np.all(np.bincount(edges.ravel(), minlength=count) == 3)


def test_kronecker_products_and_circulants():
    s = values("kronecker", ("hadamard", 2), ("decaying", 3))
    assert np.allclose(s, 2 * np.repeat([1, 0.5, 0.25], 4))
    assert np.allclose(values("kronecker", ("identity", 3), ("ones", 2, 2)), [2, 2, 2, 0, 0, 0])
    s = values("circulant", (2.0, 1.0), 6, (1, 1))
    assert np.allclose(s, np.sort(np.abs(2 + np.exp(2j * np.pi * np.arange(6) / 6)))[::-1])
    assert made_by(("circulant", (1.0, 0.5), 4, (2, 3)), 0, "complex64").shape == (8, 12)


def test_a_rank_and_levels_of_any_shape():
    A = made_by(("rank", 3, 0.5, (True, False), (2, 6)), 0, "complex128")
    s = np.linalg.svd(A, compute_uv=False)
    assert A.shape == (5, 9)
    assert 0.5 <= s[2] <= s[0] <= 1
    assert np.allclose(s[3:], 0, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("place", ["scattered", "rows", "columns", "imaginary"])
def test_denormal_entries_survive_the_way_to_the_dtype(place, dtype):
    A = Problem(("denormal", 8, 6, place, "few digits"), dtype, 1, "auto", seed=1).A
    parts = np.abs(A.imag if place == "imaginary" and A.dtype.kind == "c" else A.real)
    if place != "imaginary" or A.dtype.kind == "c":
        assert np.any((parts > 0) & (parts < np.finfo(dtype).tiny))
    assert np.abs(A).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_makes_small_matrices(kind):
    @settings(deterministic, max_examples=50)
    @given(problems(kind))
    def check(problem):
        assert 1 <= min(problem.A.shape) <= max(problem.A.shape) <= 310
        assert np.isfinite(problem.A).all()

    check()


# ---- judges: what is forged is found ----------------------------------------------------------

S = np.array([4.0, 2.0, 2.0, 1.0, 0.5])
A = np.diag(S)
TRUTH = Truth.of(A)


def forged(result, keep):
    """The result with some of its triplets."""
    parts = {"U": result.U[:, keep], "S": result.S[keep], "Vh": result.Vh[keep]}
    return dataclasses.replace(result, residuals=result.residuals[keep], **parts)


def above(t, **options):
    def wanted(S):
        return t < S

    return wanted, svds_above(A, t, **options)


def test_judge_of_values_above_a_threshold():
    wanted, result = above(1.5)
    assert judge_above(TRUTH, result, wanted, None, 5).outcome is Outcome.RIGHT
    finding = judge_above(TRUTH, forged(result, [0, 1]), wanted, None, 5)
    assert finding.outcome is Outcome.WRONG
    assert "s_3 = 0.5 s_1 is wanted and missed" in finding.reason
    assert judge_above(TRUTH, forged(result, []), wanted, None, 5).outcome is Outcome.WRONG
    # Values of the matrix that are not the largest ones.
    assert judge_above(TRUTH, forged(result, [1, 2]), wanted, None, 5).outcome is Outcome.WRONG
    _, more = above(0.7)
    assert "not wanted" in judge_above(TRUTH, more, wanted, None, 5).reason
    assert "at most 2" in judge_above(TRUTH, result, wanted, None, 2).reason


def test_judge_of_a_certificate_that_leaves_room():
    """Of 1.5 and a certificate to 1.1 (t + 0), 2 is missed and 1.6 may be."""
    wanted, result = above(1.5)
    probable = trsvd.Completeness("probable", 0.1, 1e-3)
    few = dataclasses.replace(forged(result, [0, 1]), completeness=probable)
    assert judge_above(TRUTH, few, wanted, None, 5).outcome is Outcome.WRONG
    B = np.diag([4.0, 2.0, 1.6, 1.0, 0.5])
    near, few = Truth.of(B), dataclasses.replace(svds(B, 2), completeness=probable)
    assert judge_above(near, few, wanted, None, 5).outcome is Outcome.CERTIFICATE
    exact = dataclasses.replace(few, completeness=trsvd.Completeness("exact"))
    assert judge_above(near, exact, wanted, None, 5).outcome is Outcome.WRONG


def test_judge_of_a_run_that_stopped_at_max_k():
    with pytest.warns(trsvd.ConvergenceWarning):
        wanted, result = above(1.5, max_k=2)
    assert judge_above(TRUTH, result, wanted, None, 2).outcome is Outcome.SAYS
    assert judge_above(TRUTH, result, wanted, None, 3).outcome is Outcome.WRONG
    all_of_them = Truth.of(np.diag([4.0, 2.0, 1.0, 1.0, 0.5]))
    assert judge_above(all_of_them, result, wanted, None, 2).outcome is Outcome.WRONG


def test_judge_of_an_error():
    total = float(np.linalg.norm(S))
    for k in range(1, 5):
        error = 1.001 * float(np.linalg.norm(S[k:])) / total
        result = svds_to_tolerance(A, error)
        assert len(result.S) == k
        assert judge_energy(TRUTH, result, error, None, 5).outcome is Outcome.RIGHT
        more = svds(A, k + 1)
        assert "would do" in judge_energy(TRUTH, more, error, None, 5).reason
        fewer = forged(result, list(range(k - 1)))
        assert "leaves" in judge_energy(TRUTH, fewer, error, None, 5).reason


def test_judge_of_a_norm():
    for name, norm in random_structure.NORMS.items():
        value = norm(A, 2)
        assert judge_norm(TRUTH, name, value, 2, A.dtype).outcome is Outcome.RIGHT
        wrong = judge_norm(TRUTH, name, value * (1 - 1e-6), 2, A.dtype)
        assert wrong.outcome is Outcome.WRONG
        assert judge_norm(TRUTH, name, math.nan, 2, A.dtype).outcome is Outcome.NAN


def test_norms_of_the_judge_are_dual():
    """<X, Y> <= gauge(X) support(Y), equal for the minimizer: a check of the table itself."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((2, 6, 4))
    for _, gauge, support in BALLS.values():
        left = NORMS[gauge](X, np.linalg.svd(X, compute_uv=False), 2)
        right = NORMS[support](Y, np.linalg.svd(Y, compute_uv=False), 2)
        assert float(np.vdot(X, Y)) <= left * right


@pytest.mark.parametrize("name", BALLS)
def test_judge_of_an_update(name):
    G = np.random.default_rng(1).standard_normal((6, 4))
    truth, ball = Truth.of(G), BALLS[name][0](2)
    result = ball.lmo(G)
    assert judge_ball(truth, result, name, 2, None).outcome is Outcome.RIGHT
    outside = judge_ball(truth, result.times(1 + 1e-6), name, 2, None)
    assert "outside" in outside.reason
    short = dataclasses.replace(result.times(0.9), gap_kind="bound")
    assert "is said" in judge_ball(truth, short, name, 2, 0.5).reason
    more = dataclasses.replace(result.times(0.9), gap=0.1 + 1e-12)
    assert judge_ball(truth, more, name, 2, 0.2).outcome is Outcome.RIGHT
    assert "asked for" in judge_ball(truth, more, name, 2, 1e-3).reason
    nothing = dataclasses.replace(result)
    nothing.__dict__["update"] = np.full_like(G, math.nan)  # where the property keeps it
    assert judge_ball(truth, nothing, name, 2, None).outcome is Outcome.NAN


def test_a_warning_that_is_missing_or_too_much_is_wrong(monkeypatch):
    problem = Problem(("levels", ((1.0, 2),), (False, False)), "float64", 1, "auto")
    assert problem.answer().outcome is Outcome.RIGHT

    def silent(*given, **options):
        result = svds(*given, **options)
        return dataclasses.replace(result, converged=False, status=trsvd.Status.STAGNATED)

    monkeypatch.setattr("random_structure.trsvd.svds", silent)
    assert problem.answer().reason == "does not warn, converged is False"

    def noisy(*given, **options):
        np.divide(np.ones(1), 0.0)
        return svds(*given, **options)

    monkeypatch.setattr("random_structure.trsvd.svds", noisy)
    assert "RuntimeWarning" in problem.answer().reason


# ---- the nightly run ---------------------------------------------------------------------------


def forgetful(A, k, **options):
    """An svds that leaves out the first triplet where two agree."""
    result = svds(A, k, **options)
    S = np.asarray(result.S)
    if k > 1 and S[0] == S[1] > 0:
        object.__setattr__(result, "S", np.append(S[1:], 0.0).astype(S.dtype))
    return result


def night(log, *more, kind="few-levels"):
    return main(["--kind", kind, "--log", str(log), *more])


def test_what_is_wrong_is_found_and_shrunk(monkeypatch, capsys, tmp_path):
    """The least matrix that shows what `forgetful` does."""
    monkeypatch.setattr("random_structure.trsvd.svds", forgetful)
    more = ["--examples", "2000", "--chunk", "2000", "--seed", "1"]
    assert night(tmp_path / "log.jsonl", *more) == 1
    said = " ".join(capsys.readouterr().out.split())  # hypothesis breaks long lines
    assert "problem=Problem(" in said
    assert "graded=0, transposed=False" in said, "shrunk to what does not matter"


def test_a_survey_goes_on_after_what_is_wrong(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("random_structure.trsvd.svds", forgetful)
    log = tmp_path / "log.jsonl"
    more = ["--examples", "80", "--chunk", "40", "--seed", "1", "--survey"]
    assert night(log, *more) == 1
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    wrong = [entry["problem"] for entry in entries if "wrong" in entry]
    assert wrong
    assert all(examine_again(problem) for problem in wrong)
    assert "80 problems, seed 1: " in capsys.readouterr().out
    assert sum(sum(entry["outcomes"].values()) for entry in entries if "outcomes" in entry) == 80


def examine_again(problem):
    """True if a problem that was logged is wrong again."""
    return eval(problem).answer().outcome in {Outcome.WRONG, Outcome.NAN}  # noqa: S307


@pytest.mark.parametrize("again", [1, 2])
def test_a_nightly_run_is_resumed(again, capsys, tmp_path):
    log = tmp_path / "log.jsonl"
    few = ["--examples", "20", "--chunk", "10", "--seed", "3"]
    assert night(log, *few) == 0
    assert len(log.read_text().splitlines()) == 2
    more = ["--examples", str(20 + 10 * again), "--chunk", "10", "--seed", "3"]
    assert night(log, *more) == 0
    assert len(log.read_text().splitlines()) == 2 + again
    assert f"{20 + 10 * again} problems, seed 3" in capsys.readouterr().out
    # Another seed, and another kind, do not count what was done with this one.
    assert night(log, "--examples", "10", "--chunk", "10", "--seed", "4") == 0
    assert night(log, "--examples", "10", "--chunk", "10", "--seed", "3", kind="graphs") == 0
    assert len(log.read_text().splitlines()) == 4 + again
    assert "graphs: 10 problems, seed 3" in capsys.readouterr().out
