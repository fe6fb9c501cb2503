"""scikit-learn's own tests of ``randomized_svd`` and ``TruncatedSVD``, run on `trsvd.compat`'s."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from suites import Suite

EXTMATH = "sklearn.utils.tests.test_extmath"
TRUNCATED = "sklearn.decomposition.tests.test_truncated_svd"
INSIDE = "sklearn.decomposition._truncated_svd"

ZERO = (
    "the matrix, cast to integers, is zero; any orthonormal vectors are right, and the case wants "
    "the unit vectors that LAPACK gives"
)
UNSTABLE = (
    "wants power iterations that are not normalized to go astray; trsvd's are always orthonormal"
)
WORDING = "wants an older wording of a warning"
EXCLUDED = {
    "test_randomized_svd_low_rank_all_dtypes[int32]": ("assertion", ZERO),
    "test_randomized_svd_low_rank_all_dtypes[int64]": ("assertion", ZERO),
    "test_randomized_svd_power_iteration_normalizer": ("assertion", UNSTABLE),
}


@pytest.mark.slow
def test_randomized_svd(tmp_path, record_property):
    ours = {f"{EXTMATH}:randomized_svd": "trsvd.compat:randomized_svd"}
    excluded = dict(EXCLUDED)
    if has_older_wording():
        excluded["test_randomized_svd_sparse_warnings*"] = ("message", WORDING)
    suite = Suite("scikit-learn", EXTMATH, ours, excluded, select="randomized_svd")
    suite.check(tmp_path, record_property)


def has_older_wording():
    found = find_spec("sklearn") and find_spec(EXTMATH)
    return bool(found) and "csr_matrix is more efficient" in Path(found.origin).read_text()


@pytest.mark.slow
def test_functions_in_the_estimator(tmp_path, record_property):
    """The functions that scikit-learn's `TruncatedSVD` calls are replaced, not the class."""
    if find_spec("sklearn") is None:
        pytest.skip("scikit-learn is not installed")
    import sklearn.decomposition._truncated_svd as inside

    # From 1.9 on the estimator calls the body of the function, without its validation.
    name = "_randomized_svd" if hasattr(inside, "_randomized_svd") else "randomized_svd"
    ours = {
        f"{INSIDE}:{name}": "trsvd.compat:randomized_svd",
        f"{INSIDE}:svds": "trsvd.compat:svds",
    }
    Suite("scikit-learn", TRUNCATED, ours, {}).check(tmp_path, record_property)


@pytest.mark.slow
def test_estimator(tmp_path, record_property):
    ours = {f"{TRUNCATED}:TruncatedSVD": "trsvd.compat:TruncatedSVD"}
    Suite("scikit-learn", TRUNCATED, ours, {}).check(tmp_path, record_property)
