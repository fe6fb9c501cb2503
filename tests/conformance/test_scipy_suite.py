"""SciPy's own tests of ``svds``, run on `trsvd.compat.svds`."""

from __future__ import annotations

import pytest
from suites import Suite

MODULE = "scipy.sparse.linalg._eigen.tests.test_svds"
WARNS = "wants LOBPCG's warning that the problem size is too small for LOBPCG"
LIMIT = "wants the message of {} at one iteration of its own; trsvd's answer is right by then"

EXCLUDED = {
    "Test_SVDS_LOBPCG::test_svds_int_A*": ("message", WARNS),
    "Test_SVDS_LOBPCG::test_svds_parameter_k_which*": ("message", WARNS),
    "Test_SVDS_LOBPCG::test_svd_return_singular_vectors*": ("message", WARNS),
    "Test_SVDS_LOBPCG::test_svd_simple*": ("message", WARNS),
    "Test_SVDS_LOBPCG::test_svd_linop*": ("message", WARNS),
    "Test_SVDS_LOBPCG::test_svd_LM_ones_matrix*": ("message", WARNS),
    "Test_SVDS_LOBPCG::test_zero_matrix*": ("message", WARNS),
    "Test_SVDS_ARPACK::test_svd_maxiter": ("message", LIMIT.format("ARPACK")),
    "Test_SVDS_LOBPCG::test_svd_maxiter": ("message", LIMIT.format("LOBPCG")),
    "Test_SVDS_PROPACK::test_svd_maxiter": ("message", LIMIT.format("PROPACK")),
}


@pytest.mark.slow
def test_svds(tmp_path, record_property):
    suite = Suite("scipy", MODULE, {f"{MODULE}:svds": "trsvd.compat:svds"}, EXCLUDED)
    suite.check(tmp_path, record_property)
