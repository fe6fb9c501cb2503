"""`verify="exact"` leaves nothing open; `verify=eta`, what is said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from checks import METHODS, CountingOperator, assert_right

import trsvd
from reliability.cases import CASES
from reliability.competitors import CAPS
from reliability.judge import Outcome, judge_result
from trsvd import svds, svds_above, svds_to_tolerance
from trsvd.testing import matrix_with_spectrum


@pytest.mark.parametrize("method", ["trlan", "trlan-gram"])
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, case in CASES.items() for dtype in case.dtypes]
)
def test_hard_cases(name, dtype, method):
    case = CASES[name]
    A, truth = case.of(dtype)
    start = None if case.start is None else case.start.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
        result = svds(
            A,
            case.k,
            method=METHODS[method],
            start=start,
            rng=0,
            verify="exact",
            max_matvecs=CAPS.get(method, 3000),
        )
    finding = judge_result(truth, result, np.asarray, case.k, None)
    assert finding.outcome in {Outcome.RIGHT, Outcome.SAYS}, finding.reason
    if result.converged:
        assert result.completeness.kind == "exact"


def test_a_copy_that_the_default_may_miss():
    """1.05 s_k, in what the certificate leaves open: by the spectrum it is found every time."""
    s = np.r_[1.3, 1.2, 1.15, 1.1, 1.05, 1.05, 1.0, np.linspace(0.99, 0, 300)]
    A = scipy.sparse.diags_array(s).tocsr()
    for seed in range(10):
        result = svds(A, 6, method="trlan", tol=1e-6, verify="exact", rng=seed)
        assert np.abs(result.S - s[:6]).max() <= 12**0.5 * 1e-6 * 1.3
        assert result.completeness.kind == "exact"


def test_what_was_missed_is_taken_up():
    """A start without the leading vector, in coordinates that rounding does not mix."""
    A = np.diag(np.r_[np.ones(8), 0.5 * 0.9 ** np.arange(40)])
    operator = CountingOperator(A)
    result = svds(operator, 6, method="trlan", start=np.eye(48)[:, 9:11], rng=0, verify="exact")
    assert_right(A, result, 6)
    assert result.matvecs_verify >= 48


def test_other_stops():
    s = np.repeat([4.0, 2.0, 1.0, 0.1], 5)
    A = matrix_with_spectrum(40, 30, s, rng=0)
    for seed in range(3):
        above = svds_above(A, 1.5, method="trlan", rng=seed, verify="exact")
        assert len(above.S) == 10
        near = svds_to_tolerance(A, 0.3, method="trlan", rng=seed, verify="exact")
        assert near.completeness.kind == "exact"
        assert np.allclose(near.S, s[: len(near.S)])
    assert len(svds_above(A, 9.0, method="trlan", rng=0, verify="exact").S) == 0


def test_on_every_backend(backend):
    A = np.diag(np.r_[np.ones(8), 0.5 * 0.9 ** np.arange(40)])
    result = svds(backend.asarray(A), 6, method="trlan", rng=0, verify="exact")
    assert np.allclose(backend.to_numpy(result.S), 1.0)
    assert result.completeness.kind == "exact"


def test_what_does_not_fit_and_what_is_not_known():
    big = scipy.sparse.eye_array(9000, format="csr")
    with pytest.raises(ValueError, match="verify='exact' computes all"):
        svds(big, 2, method="trlan", verify="exact")
    with pytest.raises(ValueError, match="True, False, 'exact', or"):
        svds(np.eye(5), 2, verify="sometimes")
    for eta in (0.0, -0.1, np.inf, np.nan, None, [0.1]):
        with pytest.raises(ValueError, match="a positive number"):
            svds(np.eye(5), 2, verify=eta)


@pytest.mark.parametrize("dense", [True, False])
def test_what_a_check_is_to_certify_can_be_said(dense):
    """The start knows nothing of a value of 1.05 s_k: as many steps as that takes, and not more."""
    s = np.r_[2.0, 1.8, 1.6, 1.05, 1.0, np.linspace(0.99, 0, 395)]
    A = np.diag(s) if dense else scipy.sparse.diags_array(s, format="csr")
    start = np.eye(400)[:, [0, 1, 2, 4]]
    missed = 0
    for seed in range(20):
        options = {"method": "trlan", "start": start, "rng": seed, "tol": 1e-9}
        usual = svds(A, 4, **options)
        missed += usual.S[3] < 1.04
        assert usual.completeness.kind == "probable"
        assert usual.S[3] > 1.04 or usual.completeness.eta > 0.05
        result = svds(A, 4, verify=0.05, **options)
        assert abs(result.S[3] - 1.05) <= 1e-8
        assert result.completeness.kind == "probable"
        assert 0 < result.completeness.eta <= 0.05
        assert result.completeness.failure_probability == 1e-3
        # The full spectrum would take min(m, n) products.
        assert usual.matvecs_verify < result.matvecs_verify < 400
    assert missed > 0


def test_a_single_value_is_certified_as_far_as_was_asked():
    A = np.random.default_rng(0).standard_normal((200, 150))
    options = {"method": "trlan", "tol": 9e-4, "rng": 0}
    eta = svds(A, 1, **options).completeness.eta
    enough = svds(A, 1, verify=2 * eta, **options)
    assert (enough.completeness.eta, enough.matvecs_verify) == (eta, 2)
    more = svds(A, 1, verify=eta / 2, **options)
    assert more.completeness.eta <= eta / 2
    assert more.matvecs_verify > 2


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("k", "copies", "rest"), [(2, 8, 0.99), (5, 8, 0.99), (10, 22, 0.9)])
def test_copies_at_a_loose_tolerance(k, copies, rest, sparse):
    """Residuals near the tolerance must not hide what is above s_k by more than that."""
    s = np.linspace(1, 0.1, 337) * rest
    s[:copies] = 1.0
    A = scipy.sparse.diags_array(s).tocsr() if sparse else np.diag(s)
    usual = []
    for seed in range(6):
        result = svds(A, k, tol=1e-2, verify="exact", rng=seed)
        assert result.completeness.kind == "exact"
        assert np.abs(result.S - 1).max() <= (2 * k) ** 0.5 * 1e-2
        usual.append(svds(A, k, tol=1e-2, verify=False, rng=seed).S[-1])
    assert min(usual) < 1 - (2 * k) ** 0.5 * 1e-2


@pytest.mark.parametrize(
    ("largest", "low", "tol"), [(1e5, 1e-3, 1e-3), (1e6, 1e-2, 1e-5), (1e3, 0.5, 1e-3)]
)
@pytest.mark.parametrize("verify", [True, 0.1, "exact"])
@pytest.mark.parametrize("method", [None, "trlan"])
def test_certificates_hold_where_the_tolerance_exceeds_the_values(
    largest, low, tol, verify, method
):
    """What tol grants in absolute terms is far above s_k here, and the certificate says so."""
    rng = np.random.default_rng(1)
    s = np.where(np.arange(120) < 60, 1.0, low)
    s[0] = largest
    Q = np.linalg.qr(rng.standard_normal((360, 120)))[0]
    A = (Q * s) @ np.linalg.qr(rng.standard_normal((120, 120)))[0]
    result = svds(A, 15, tol=tol, method=method, verify=verify, rng=0)
    known = result.completeness
    S = result.S
    assert result.converged
    limit = (1 + known.eta) * (S[-1] + known.slack * S[0])
    assert np.all(s[:15] <= np.maximum(S, limit) + 1e-13 * largest)  # (rounding is left)
    if known.kind == "probable" or (verify == "exact" and known.slack):
        assert known.slack >= tol
        assert "s_1" in str(known)


def test_a_certificate_without_slack_is_as_short_as_it_was():
    A = np.diag([3.0, 2.0, 1.0])
    assert str(svds(A, 2, method="direct").completeness) == "exact"
