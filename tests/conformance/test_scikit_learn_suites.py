"""scikit-learn's own tests of ``randomized_svd`` and ``TruncatedSVD``, run on `trsvd.compat`'s."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from suites import Suite

from trsvd._compiled import small

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
DIGITS = "wants {} digits by default; trsvd iterates until residuals are at most tol = 1e-3"
WORDING = "wants an older wording of a warning"
NO_DEVICE = "wants a CUDA device because PyTorch is built for CUDA, and there is none"
DEVICES = "test_randomized_svd_array_api_compliance"
# Their tests of other array libraries ask for it.
ARRAY_API = {"SCIPY_ARRAY_API": "1"}
EXCLUDED = {
    "test_randomized_svd_low_rank_all_dtypes[int32]": ("assertion", ZERO),
    "test_randomized_svd_low_rank_all_dtypes[int64]": ("assertion", ZERO),
    "test_randomized_svd_power_iteration_normalizer": ("assertion", UNSTABLE),
    "test_randomized_svd_low_rank_all_dtypes[float64]": ("assertion", DIGITS.format(7)),
}


@pytest.mark.slow
def test_randomized_svd(tmp_path, record_property):
    ours = {f"{EXTMATH}:randomized_svd": "trsvd.compat:randomized_svd"}
    excluded = dict(EXCLUDED)
    if has_line("csr_matrix is more efficient"):
        excluded["test_randomized_svd_sparse_warnings*"] = ("message", WORDING)
    if has_line(f"def {DEVICES}") and lacks_a_cuda_device():
        excluded[f"{DEVICES}[torch-cuda*"] = ("device", NO_DEVICE)
    suite = Suite("scikit-learn", EXTMATH, ours, excluded, "randomized_svd", ARRAY_API)
    suite.check(tmp_path, record_property)


def has_line(text):
    """True if the tests have it in this version of scikit-learn."""
    found = find_spec("sklearn") and find_spec(EXTMATH)
    return bool(found) and text in Path(found.origin).read_text()


def lacks_a_cuda_device():
    """True if PyTorch is built for CUDA, which is all that their tests look at, and has none."""
    if find_spec("torch") is None:
        return False
    import torch

    return torch.backends.cuda.is_built() and not torch.cuda.is_available()


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
    suite = Suite("scikit-learn", TRUNCATED, ours, {}, environment=ARRAY_API)
    suite.check(tmp_path, record_property)


@pytest.mark.slow
def test_estimator(tmp_path, record_property):
    ours = {f"{TRUNCATED}:TruncatedSVD": "trsvd.compat:TruncatedSVD"}
    # (The compiled call for small matrices has them.)
    digits = {"test_singular_values_expected*randomized*": ("assertion", DIGITS.format(14))}
    excluded = {} if small.available() else digits
    suite = Suite("scikit-learn", TRUNCATED, ours, excluded, environment=ARRAY_API)
    suite.check(tmp_path, record_property)
