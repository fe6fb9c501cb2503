"""The judgement of the reliability suite: it lets what is right pass, and nothing else."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import warnings

import numpy as np
import pytest
import scipy.sparse

from reliability import run as reliability
from reliability.__main__ import main
from reliability.cases import CASES, Truth
from reliability.competitors import Contestant, _peer, _scipy, backends, contestants, peers
from reliability.judge import (
    Finding,
    Outcome,
    Standard,
    _Triplets,
    judge_result,
    judge_triplets,
    judge_update,
)
from reliability.run import Record
from trsvd import Completeness, KyFanDualBall, Status, svds
from trsvd.testing import matrix_with_spectrum

K = 4
S_TRUE = 0.8 ** np.arange(30)
A = matrix_with_spectrum(40, 30, S_TRUE, rng=0)
TRUTH = Truth.of(A)


@pytest.fixture
def exact():
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    return U, S, Vh


def judged(U, S, Vh, k=K, standard=None):
    standard = standard or Standard.promised(np.float64, A.shape)
    return judge_triplets(TRUTH, U, S, Vh, k, standard).outcome


def other(result, **changes):
    return dataclasses.replace(result, **changes)


def verdict(result):
    return judge_result(TRUTH, result, np.asarray, K, None).outcome


# ---- the truth --------------------


@pytest.mark.parametrize("factor", [1.0, 1e-300, 1e300, 1e-310])
def test_the_truth_at_any_scale(factor):
    truth = Truth.of(A * factor)
    # Denormal entries have fewer digits.
    level = 100 * 2.0**-52 if factor > 1e-300 else 1e-10
    assert np.abs(truth.s / truth.s[0] - S_TRUE).max() <= level
    assert 0.05 < truth.s[0] < 100
    assert truth.values[0] == pytest.approx(factor, rel=1e-9)


def test_the_truth_of_zero():
    truth = Truth.of(np.zeros((3, 2)))
    assert np.array_equal(truth.s, [0, 0])


def test_case_names_are_unique_and_matrices_read_only():
    for case in CASES.values():
        M = case.A
        data = M if isinstance(M, np.ndarray) else M.data
        assert not data.flags.writeable
        assert 1 <= case.k <= min(M.shape)


# ---- triplets --------------------


def test_exact_triplets_are_right(exact):
    U, S, Vh = exact
    assert judged(U[:, :K], S[:K], Vh[:K]) is Outcome.RIGHT


def test_their_order_is_free_for_a_peer(exact):
    U, S, Vh = exact
    assert judged(U[:, K - 1 :: -1], S[K - 1 :: -1], Vh[K - 1 :: -1]) is Outcome.RIGHT


@pytest.mark.parametrize("missed", range(K))
def test_a_missed_triplet_is_wrong(exact, missed):
    """Every residual is zero: only the truth tells."""
    U, S, Vh = exact
    keep = [i for i in range(K + 1) if i != missed]
    assert judged(U[:, keep], S[keep], Vh[keep]) is Outcome.WRONG


def test_a_missed_copy_is_wrong_whatever_the_values_say():
    """Twice the same copy, and right values: the vectors are not orthonormal."""
    B = np.diag([2.0, 1, 1, 0.5, 0.1])
    U = np.eye(5)[:, [0, 1, 1]]
    standard = Standard.promised(np.float64, B.shape)
    found = judge_triplets(Truth.of(B), U, np.array([2.0, 1, 1]), U.T, 3, standard)
    assert found.outcome is Outcome.WRONG


def test_values_alone_do_not_make_it_right(exact):
    U, S, Vh = exact
    assert judged(U[:, 10 : 10 + K], S[:K], Vh[10 : 10 + K]) is Outcome.WRONG
    assert judged(U[:, :K], S[:K] * (1 + 1e-9), Vh[:K]) is Outcome.WRONG
    assert judged(-U[:, :K], S[:K], Vh[:K]) is Outcome.WRONG


def test_a_perturbation_is_wrong_above_the_standard_and_right_below(exact):
    U, S, Vh = (part for part in exact)
    turn = np.eye(30)
    c, s = np.cos(1e-10), np.sin(1e-10)
    turn[np.ix_([3, 4], [3, 4])] = [[c, -s], [s, c]]
    U, Vh = (U @ turn)[:, :K], (turn.T @ Vh)[:K]
    assert judged(U, S[:K], Vh) is Outcome.WRONG
    half = Standard.half_of_the_digits(np.float64)
    assert judged(U, S[:K], Vh, standard=half) is Outcome.RIGHT


def test_shapes_numbers_and_nan(exact):
    U, S, Vh = exact
    half = Standard.half_of_the_digits(np.float64)
    assert judged(U[:, :3], S[:3], Vh[:3], standard=half) is Outcome.SAYS
    assert judged(U[:, :5], S[:5], Vh[:5]) is Outcome.WRONG
    assert judged(U[:, :K], S[:K], Vh[:K].T) is Outcome.WRONG
    assert judged(U[:, :K] * np.nan, S[:K], Vh[:K]) is Outcome.NAN
    assert judged(-U[:, :K], -S[:K], Vh[:K]) is Outcome.WRONG


# ---- results of trsvd --------------------


@pytest.fixture
def result():
    return svds(A, K, method="trlan", rng=0)


def test_a_result_is_right(result):
    assert verdict(result) is Outcome.RIGHT


def test_what_it_reports_of_itself_must_be_true(result):
    assert verdict(other(result, residuals=result.residuals + 1e-6)) is Outcome.WRONG
    assert (
        verdict(other(result, residuals=0 * result.residuals)) is Outcome.RIGHT
    )  # 1e-16: rounding
    rough = svds(A, K, method="power", tol=1e-3, rng=0)
    assert judge_result(TRUTH, rough, np.asarray, K, 1e-3).outcome is Outcome.RIGHT
    assert verdict(rough) is Outcome.WRONG
    hidden = other(rough, residuals=0 * rough.residuals)
    assert judge_result(TRUTH, hidden, np.asarray, K, 1e-3).outcome is Outcome.WRONG


def test_saying_so_is_no_excuse_for_more(result):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = svds(A, K, method="power", max_matvecs=60, rng=0)
    assert said.status is Status.MAX_MATVECS
    assert verdict(said) is Outcome.SAYS
    assert verdict(other(said, U=said.U * 1.001)) is Outcome.WRONG
    assert verdict(other(said, residuals=said.residuals / 10)) is Outcome.WRONG
    assert verdict(other(said, S=said.S * 1.5)) is Outcome.WRONG
    assert verdict(other(said, U=said.U * np.nan)) is Outcome.NAN


def test_what_a_certificate_leaves_open(result):
    """s_4 was missed: s_4 = 1.25 s_5."""
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    keep = [0, 1, 2, 4]
    missing = other(result, U=U[:, keep], S=S[keep], Vh=Vh[keep], residuals=np.zeros(K))
    for completeness, expected in (
        (Completeness("exact"), Outcome.WRONG),
        (Completeness("norm"), Outcome.WRONG),
        (Completeness("unchecked"), Outcome.WRONG),
        (Completeness("probable", 0.2, 1e-3), Outcome.WRONG),
        (Completeness("probable", 0.3, 1e-3), Outcome.CERTIFICATE),
    ):
        assert verdict(other(missing, completeness=completeness)) is expected


def test_what_they_leave_is_looked_at_by_itself(exact):
    """The right values with the vectors of others: what is left of A tells, residuals or not."""
    U, S, Vh = exact
    standard = Standard.promised(np.float64, A.shape)
    V = Vh.conj().T
    right = _Triplets(TRUTH, U[:, :K], TRUTH.s[:K], V[:, :K], standard)
    assert right.not_the_top() == ""
    wrong = _Triplets(TRUTH, U[:, 1 : K + 1], TRUTH.s[:K], V[:, 1 : K + 1], standard)
    assert f"exceeds s_{K + 1}" in wrong.not_the_top()


# ---- updates --------------------


@pytest.mark.parametrize("k", [1, 4, 30])
def test_updates(k):
    ball = KyFanDualBall(k)
    good = ball.lmo(A)

    def of(D, result=good, asked=None):
        return judge_update(TRUTH, result, D, k, asked).outcome

    assert of(good.update) is Outcome.RIGHT
    assert of(1.001 * good.update) is Outcome.WRONG  # outside of the ball
    assert of(0.99 * good.update) is Outcome.WRONG  # its gap is 0.01
    assert of(0.99 * good.update, asked=0.02) is Outcome.RIGHT
    assert of(-good.update) is Outcome.WRONG
    assert of(good.update * np.nan) is Outcome.NAN
    honest = dataclasses.replace(good, gap=0.011)
    assert of(0.99 * good.update, honest) is Outcome.RIGHT
    failed = dataclasses.replace(good, status=Status.ROUNDING_FLOOR)
    assert of(0.99 * good.update, failed) is Outcome.SAYS
    assert of(good.update, failed) is Outcome.SAYS


# ---- who is judged --------------------


def answer(solve, kind="peer"):
    return Contestant("x", kind, lambda case, A, truth, dtype, seed: solve())


def test_a_warning_or_an_exception_of_a_peer_is_saying_so():
    def wrong():
        return Finding(Outcome.WRONG)

    def warned():
        warnings.warn("not converged", stacklevel=1)
        return Finding(Outcome.WRONG)

    def failed():
        raise ZeroDivisionError

    case = CASES["identity"]
    assert answer(wrong).answer(case, "float64").outcome is Outcome.WRONG
    assert answer(warned).answer(case, "float64").outcome is Outcome.SAYS
    assert answer(failed).answer(case, "float64").outcome is Outcome.SAYS
    # trsvd has no such way out: a warning beside a wrong answer, and errors that are none of its.
    assert answer(warned, "method").answer(case, "float64").outcome is Outcome.WRONG
    with pytest.raises(ZeroDivisionError):
        answer(failed, "method").answer(case, "float64")


def test_the_judgement_is_passed_by_lapack_and_by_few_others():
    """LAPACK is right on all of them, at the standard of the peers; ARPACK misses copies."""
    by_name = {peer.name: peer for peer in peers()}
    names = ["tenfold, k = 10", "rank 3", "Hilbert", "scale 1e-300", "denormal"]
    for name in names:
        found = by_name["numpy.linalg.svd"].answer(CASES[name], "float64")
        assert found.outcome is Outcome.RIGHT, (name, found)
    found = by_name["scipy arpack"].answer(CASES["tenfold, k = 10"], "float64")
    assert found.outcome is not Outcome.RIGHT


def test_repeatability():
    """SciPy 13780: the same call twice, the same bits."""
    A = CASES["0 and 1, k = 40"].of("float32")[0]
    one, two = (svds(A, 40, rng=7) for _ in range(2))
    for part, twin in zip(one, two, strict=True):
        assert part.tobytes() == twin.tobytes()


def test_descending_order():
    """SciPy 12627."""
    for method in ("trlan", "rsvd", "krylov", "power", "direct"):
        S = svds(A, 6, method=method, rng=0).S
        assert np.all(np.diff(S) < 0)


# ---- the command --------------------


def test_the_command(capsys, tmp_path):
    path, page = tmp_path / "out.json", tmp_path / "page.md"
    argv = [
        "--cases",
        "rank 3, wide",
        "unitary",
        "--who",
        "auto",
        "*arpack",
        "kyfan*",
    ]
    assert main([*argv, "--reasons", "--json", str(path), "--markdown", str(page)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:3] == ["who", "what", "asked"]
    assert any(line.startswith("auto") and " 4 " in line for line in shown)
    answers = json.loads(path.read_text())["answers"]
    assert {one["outcome"] for one in answers if one["who"] == "auto"} == {"right"}
    text = page.read_text(encoding="utf-8")
    assert "| rank 3, wide | 5 | ✓✓ |" in text
    assert main([*argv, "--markdown", str(page)]) == 0
    assert page.read_text(encoding="utf-8") == text, "the table replaces itself"


def test_the_command_fails_where_trsvd_is_wrong(capsys, monkeypatch):
    bad = [Contestant("auto", "method", lambda *a: Finding(Outcome.WRONG, "on purpose"))]
    for module in ("run", "__main__"):
        monkeypatch.setattr(f"reliability.{module}.contestants", lambda: bad)
    assert main(["--cases", "1 x 1", "--reasons"]) == 1
    assert "silently wrong: on purpose" in capsys.readouterr().out


def test_a_page_without_marks_is_not_written(capsys, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("mine")
    argv = ["--cases", "1 x 1", "--who", "auto", "--markdown", str(page)]
    assert main(argv) == 2
    assert "begin" in capsys.readouterr().err
    assert page.read_text() == "mine"


def test_the_command_lists(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {*CASES, *(one.name for one in contestants())} <= set(lines)


def test_a_name_that_nobody_has(capsys):
    assert main(["--cases", "no such case"]) == 2
    assert main(["--who", "nobody"]) == 2
    assert "no such name" in capsys.readouterr().err


def test_records_of_one_case():
    records = list(reliability.run(patterns=["1 x 1"], names=["auto"]))
    assert [(one.case, one.dtype) for one in records] == [
        (name, dtype) for name in ("1 x 1", "1 x 1 zero") for dtype in ("float64", "float32")
    ]


def test_a_contestant_that_takes_no_such_case_has_no_record(monkeypatch):
    one = Contestant("random only", "peer", lambda *args: Finding(Outcome.SAYS), takes_start=False)
    monkeypatch.setattr("reliability.run.contestants", lambda: [one])
    started = [name for name, case in CASES.items() if case.start is not None]
    assert started
    assert list(reliability.run(patterns=started)) == []
    others = [name for name, case in CASES.items() if case.start is None]
    assert len(list(reliability.run(patterns=others[:2]))) >= 2


def test_the_page_says_what_is_not_right():
    about = ("1 x 1", CASES["1 x 1"].family, "", 1)
    records = [
        Record(*about, "float64", "auto", "method", Outcome.SAYS, "MAX_MATVECS"),
        Record(*about, "float64", "auto (torch)", "method", Outcome.RIGHT, ""),
    ]
    text = reliability.markdown(records, 3)
    assert "| 1 x 1 | float64 | auto | says it is not | MAX_MATVECS |" in text
    assert "seed 3" in text
    assert "### trsvd, case by case" in text
    assert "Peers" not in text
    # Of other libraries there are no cases.
    assert text.count("auto (torch)") == 1


def test_peers_start_where_a_case_says_so():
    rng = np.random.default_rng(0)
    for shape in [(30, 20), (20, 30)]:
        B = rng.standard_normal(shape)
        s = np.linalg.svd(B, compute_uv=False)
        start = rng.standard_normal((shape[1], 2))
        for solver in ("arpack", "propack"):
            _, S, _ = _scipy(B, 2, 0, start, solver=solver)
            np.testing.assert_allclose(np.sort(S)[::-1], s[:2], rtol=1e-8)


def test_a_peer_that_is_not_installed_takes_no_part():
    assert _peer("nobody", "no_such_module_anywhere", lambda *args: args) is None


def test_libraries_that_are_not_installed_take_no_part(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else real(name)
    )
    assert "torch" not in backends()
    assert "numpy" in backends()


@pytest.mark.parametrize("name", ["torch", "array_api_strict"])
def test_other_libraries_get_the_matrix_as_it_is(name):
    pytest.importorskip(name)
    backend = backends()[name]
    dense = np.arange(6.0).reshape(2, 3)
    for A in (dense, scipy.sparse.csr_array(dense)):
        X = backend.put(A)
        assert type(X).__module__.startswith(name)
        assert type(backend.get(X)) is np.ndarray
        np.testing.assert_array_equal(backend.get(X), dense)
