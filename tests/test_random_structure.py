"""Random structured problems: none is silently wrong. A nightly run takes many more.

The examples are the same in every run; `python tests/nightly.py` draws others.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from nightly import main
from random_structure import Problem, examine, problems

from trsvd import svds


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(problems())
def test_none_is_silently_wrong(problem):
    event(examine(problem).name)


def test_a_problem_makes_the_matrix_that_it_says():
    made = ("spectrum", ((2.0, 2), (0.5, 1)), (True, False))
    problem = Problem(made, "float64", 2, "trlan", rows_and_columns=(4, 1), exponent=3)
    assert problem.A.shape == (7, 4)
    s = np.linalg.svd(problem.A, compute_uv=False)
    assert np.allclose(s, [16, 16, 4, 0], atol=1e-13)
    blocks = Problem(("blocks", ((1.0, 2.0),), 3), "float32", 2, "auto", transposed=True)
    assert blocks.A.shape == (6, 3)
    assert np.allclose(np.linalg.svd(blocks.A, compute_uv=False), 5**0.5, rtol=1e-6)


def test_what_is_wrong_is_found_and_shrunk(monkeypatch, capsys, tmp_path):
    """An svds that leaves out the first triplet where two agree: the least matrix that shows it."""

    def forgetful(A, k, **options):
        result = svds(A, k, **options)
        S = np.asarray(result.S)
        if k > 1 and S[0] == S[1] > 0:
            object.__setattr__(result, "S", np.append(S[1:], 0.0).astype(S.dtype))
        return result

    monkeypatch.setattr("random_structure.trsvd.svds", forgetful)
    log = tmp_path / "log.jsonl"
    assert main(["--examples", "2000", "--chunk", "2000", "--seed", "1", "--log", str(log)]) == 1
    said = " ".join(capsys.readouterr().out.split())  # hypothesis breaks long lines
    assert "problem=Problem(" in said
    assert "graded=0, transposed=False" in said, "shrunk to what does not matter"


@pytest.mark.parametrize("again", [1, 2])
def test_a_nightly_run_is_resumed(again, capsys, tmp_path):
    log = tmp_path / "log.jsonl"
    assert main(["--examples", "20", "--chunk", "10", "--seed", "3", "--log", str(log)]) == 0
    assert len(log.read_text().splitlines()) == 2
    more = ["--examples", str(20 + 10 * again), "--chunk", "10", "--seed", "3", "--log", str(log)]
    assert main(more) == 0
    assert len(log.read_text().splitlines()) == 2 + again
    assert f"{20 + 10 * again} problems, seed 3" in capsys.readouterr().out
    # Another seed does not count what was done with this one.
    assert main(["--examples", "10", "--chunk", "10", "--seed", "4", "--log", str(log)]) == 0
    assert len(log.read_text().splitlines()) == 3 + again
