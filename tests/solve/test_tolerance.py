from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from checks import (
    CountingOperator,
    assert_right,
    default_tol,
    eps_of,
    exact_values,
    value_bound,
)

import trsvd
from trsvd import ConvergenceWarning, Status, svds, svds_above, svds_to_tolerance
from trsvd._krylov.stopping import Values


def matrix(m, n, s, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, len(s))))[0] for size in (m, n))
    return ((U * s) @ V.T).astype(dtype)


class WithNorm(CountingOperator):
    """An operator that knows its Frobenius norm."""

    def frobenius_norm(self):
        return float(np.linalg.norm(self.A))


def smallest_k(s, eps):
    """The smallest k with ``sum_{i > k} s_i^2 <= eps^2 sum s_i^2``, and how clear that is.

    The sum runs from the small end, so that no digit of the tail is lost.
    """
    tails = np.sqrt(np.append(np.cumsum(s[::-1] ** 2)[::-1], 0.0))
    k = int(np.argmax(tails <= eps * tails[0]))
    margin = np.abs(tails / tails[0] - eps).min()
    return k, margin


SPECTRA = {
    "geometric": 0.9 ** np.arange(60),
    "slow": 1 / np.arange(1.0, 61) ** 0.5,
    "steps": np.repeat([8.0, 4.0, 2.0, 1.0, 0.5, 0.1], 10),
    "low rank": np.r_[np.linspace(3, 1, 7), np.zeros(53)],
}
KINDS = {
    "dense": lambda A: A,
    "wide": lambda A: np.ascontiguousarray(A.T),
    "sparse": scipy.sparse.csr_array,
    "operator": CountingOperator,
    "operator with norm": WithNorm,
}


@pytest.mark.parametrize("method", [None, "trlan", "krylov", "rsvd", "direct"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_smallest_k(kind, method, spectrum):
    s = SPECTRA[spectrum]
    A = matrix(70, 60, s)
    if kind == "operator" and method not in {None, "direct"}:
        with pytest.raises(ValueError, match="Frobenius norm of this operator is not known"):
            svds_to_tolerance(KINDS[kind](A), 0.3, method=method)
        return
    for eps in (0.9, 0.5, 0.2, 0.03):
        k, margin = smallest_k(s, eps)
        # The energy that is left is known to a few eps of the whole, hence its root to
        # eps / error; the values are second order in the residual.
        assert margin > 1e-10, "the case is decided by rounding; choose another"
        result = svds_to_tolerance(KINDS[kind](A), eps, method=method, rng=0)
        B = A.T if kind == "wide" else A
        assert_right(B, result, k)
        U, S, Vh = result
        # Eckart and Young: no matrix of rank k is nearer; of rank k - 1 none is near enough.
        error = np.linalg.norm(B - (U * S) @ Vh)
        assert error <= eps * np.linalg.norm(B) * (1 + 1e-10)


@pytest.mark.parametrize("method", [None, "trlan", "direct"])
@pytest.mark.parametrize("eps", [0.5, 0.1, 0.02])
def test_the_smallest_k_in_float32(method, eps):
    s = SPECTRA["geometric"]
    A = matrix(70, 60, s, "float32")
    k, margin = smallest_k(exact_values(A), eps)
    # The energy that is left is known to a few eps(float32) of the whole, its root to half of
    # that over itself.
    assert margin > 16 * eps_of("float32") / (2 * eps), "decided by rounding; choose another"
    assert_right(A, svds_to_tolerance(A, eps, method=method, rng=0), k)


def test_the_smallest_k_on_every_backend(backend):
    s = SPECTRA["geometric"]
    A = matrix(70, 60, s)
    for method in ("trlan", "direct"):
        result = svds_to_tolerance(backend.asarray(A), 0.1, method=method, rng=0)
        assert_right(A, result, smallest_k(s, 0.1)[0], to_numpy=backend.to_numpy)


@pytest.mark.parametrize("eps", [1e-5, 1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("kind", ["dense", "sparse", "operator"])
def test_tiny_eps_is_right_too(eps, kind):
    """Below sqrt(eps) the norm less the captured energy has no digits: the spectrum has."""
    s = 10.0 ** -np.linspace(0, 14, 60)
    A = matrix(70, 60, s)
    k, _ = smallest_k(s, eps)
    s_exact = exact_values(A)
    assert smallest_k(s_exact, eps)[0] == k
    result = svds_to_tolerance(KINDS[kind](A), eps, rng=0)
    assert_right(A, result, k)


@pytest.mark.parametrize("eps", [1e-3, 1e-5, 3e-7])
def test_tiny_eps_by_an_iterative_method(eps):
    """As far down as it is willing to go it is right; below it refuses."""
    s = 10.0 ** -np.linspace(0, 14, 60)
    A = matrix(70, 60, s)
    result = svds_to_tolerance(A, eps, method="trlan", rng=0)
    k = len(result.S)
    assert result.converged
    # ||A||_F^2 - sum s_i^2 is known to about 60 eps ||A||_F^2.
    slack = 60 * eps_of("float64") / eps**2
    assert smallest_k(s, eps * (1 + slack))[0] <= k <= smallest_k(s, eps * (1 - slack))[0]
    for tiny in (1e-8, 1e-12):
        with pytest.raises(ValueError, match="direct"):
            svds_to_tolerance(A, tiny, method="trlan")


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_tolerance_is_relative(scale):
    s = SPECTRA["geometric"]
    A = matrix(70, 60, s)
    for method in ("trlan", "direct"):
        result = svds_to_tolerance(A * scale, 0.2, method=method, rng=0)
        assert len(result.S) == smallest_k(s, 0.2)[0]
        assert result.converged


@pytest.mark.parametrize("eps", [0, 1, -0.5, 1.5, np.nan, np.inf])
def test_eps_out_of_range(eps):
    with pytest.raises(ValueError, match=r"eps=.*between 0 and 1"):
        svds_to_tolerance(np.eye(5), eps)


def test_a_zero_matrix_needs_no_triplet():
    for A in (np.zeros((80, 70)), np.zeros((8, 7)), scipy.sparse.csr_array((80, 70))):
        for method in (None, "trlan", "direct"):
            U, S, Vh = result = svds_to_tolerance(A, 0.5, method=method, rng=0)
            assert result.converged
            assert (U.shape, S.shape, Vh.shape) == ((A.shape[0], 0), (0,), (0, A.shape[1]))


# ---- values above a threshold --------------------


@pytest.mark.parametrize("method", [None, "trlan", "krylov", "rsvd", "power", "direct"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_above_a_number(kind, method):
    s = SPECTRA["geometric"]
    A = matrix(70, 60, s)
    B = A.T if kind == "wide" else A
    for level in (0.97, 0.5, 0.12):
        count = int(np.sum(s > level))
        result = svds_above(KINDS[kind](A), level, method=method, rng=0)
        assert_right(B, result, count)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_values_above_in_single_precision(dtype):
    A = matrix(70, 60, SPECTRA["geometric"], dtype)
    for method in ("trlan", "direct"):
        assert_right(A, svds_above(A, 0.25, method=method, rng=0), 14)


def test_values_above_on_every_backend(backend):
    A = matrix(70, 60, SPECTRA["geometric"])
    B = backend.asarray(A)
    for method in ("trlan", "direct"):
        result = svds_above(B, 0.25, method=method, rng=0)
        assert_right(A, result, 14, to_numpy=backend.to_numpy)
        none = svds_above(B, 2.0, method=method, rng=0)
        assert tuple(none.U.shape) == (70, 0)
        assert all(backend.owns(part) for part in none)


@pytest.mark.parametrize("method", [None, "trlan", "krylov", "rsvd", "power", "direct"])
@pytest.mark.parametrize("shape", [(70, 60), (60, 70)])
def test_none_above(method, shape):
    A = matrix(*shape, SPECTRA["geometric"])
    U, S, Vh = result = svds_above(A, 1.5, method=method, rng=0)
    assert (U.shape, S.shape, Vh.shape) == ((shape[0], 0), (0,), (0, shape[1]))
    assert result.converged
    assert result.residuals.shape == (0,)
    assert len(repr(result)) > 0


@pytest.mark.parametrize("method", [None, "trlan", "krylov", "rsvd", "direct"])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_all_above(method, shape):
    A = matrix(*shape, np.linspace(3, 1, 30))
    assert_right(A, svds_above(A, 0.5, method=method, rng=0), 30)


def test_all_above_zero_of_a_deficient_matrix():
    """Rank 7: the other values are zero to rounding, which is not above 1e-10."""
    A = matrix(70, 60, SPECTRA["low rank"])
    for method in ("trlan", "krylov", "direct"):
        assert_right(A, svds_above(A, 1e-10, method=method, rng=0), 7)


@pytest.mark.parametrize("method", [None, "trlan"])
def test_a_multiple_value_above_is_found_with_all_its_copies(method):
    A = matrix(200, 180, np.r_[np.ones(10), np.full(170, 0.5)])
    assert_right(A, svds_above(A, 0.75, method=method, rng=0), 10)


@pytest.mark.parametrize("method", [None, "trlan", "krylov", "direct"])
@pytest.mark.parametrize("spectrum", ["geometric", "slow", "steps"])
@pytest.mark.parametrize(
    "predicate",
    [
        lambda S: S > 0.3,
        # The support of F*-Neon's update: s_i above the root tau of sum [s_i - tau]_+ = tau.
        lambda S: np.cumsum(S) / (np.arange(len(S)) + 2) < S,
        lambda S: np.cumsum(S) < 5.3,
        lambda S: np.arange(len(S)) < 6,
        lambda S: 0.3 * S[0] < S if len(S) else S > 0,
    ],
    ids=["number", "threshold on the sum", "sum", "count", "relative"],
)
def test_predicates(predicate, spectrum, method):
    s = SPECTRA[spectrum]
    A = matrix(70, 60, s)
    mask = predicate(s)
    count = len(s) if mask.all() else int(np.argmin(mask))
    result = svds_above(A, predicate, method=method, rng=0)
    assert len(result.S) == count
    if count:
        assert_right(A, result, count)


def test_what_follows_the_first_false_is_not_wanted():
    A = matrix(70, 60, SPECTRA["geometric"])
    assert len(svds_above(A, lambda S: np.arange(len(S)) != 4, method="trlan", rng=0).S) == 4


def test_what_a_predicate_is_given():
    A = matrix(70, 60, SPECTRA["geometric"], "float32")

    def predicate(S):
        assert type(S) is np.ndarray
        assert S.dtype == np.float64
        assert np.all(np.diff(S) <= 0)
        return S > 0.5

    for method in ("trlan", "rsvd", "direct"):
        svds_above(A, predicate, method=method, rng=0)


@pytest.mark.parametrize(
    "predicate",
    [
        lambda S: True,
        lambda S: (S > 0.5).astype(int),
        lambda S: (S > 0.5)[:-1],
        lambda S: None,
        lambda S: S,
    ],
)
@pytest.mark.parametrize("method", ["trlan", "direct"])
def test_bad_predicates(predicate, method):
    with pytest.raises(ValueError, match="boolean array of the same shape"):
        svds_above(matrix(70, 60, SPECTRA["geometric"]), predicate, method=method, rng=0)


def test_a_predicate_that_raises():
    class Boom(Exception):
        pass

    def predicate(S):
        raise Boom

    with pytest.raises(Boom):
        svds_above(np.eye(5), predicate)


@pytest.mark.parametrize("threshold", [-1.0, np.nan])
def test_bad_thresholds(threshold):
    with pytest.raises(ValueError, match="threshold="):
        svds_above(np.eye(5), threshold)


@pytest.mark.parametrize("threshold", ["0.5", None, np.array([1.0, 2.0])])
def test_thresholds_that_are_no_numbers(threshold):
    with pytest.raises((TypeError, ValueError), match="threshold|number|callable"):
        svds_above(np.eye(5), threshold)


# ---- one space that grows --------------------


def test_one_krylov_space_grows():
    """Asking anew for more and more triplets would cost the sum of the runs."""
    s = 0.97 ** np.arange(300)
    A = matrix(320, 300, s)
    k, _ = smallest_k(s, 0.1)
    grown = svds_to_tolerance(A, 0.1, method="trlan", rng=0)
    assert len(grown.S) == k
    above = svds_above(A, s[k] * 1.01, method="trlan", rng=0)
    assert len(above.S) == k
    at_once = svds(A, k, method="trlan", rng=0).matvecs
    sizes, size = [], 10
    while size < k:
        sizes.append(size)
        size += size // 2
    anew = sum(svds(A, size, method="trlan", rng=0).matvecs for size in [*sizes, k])
    for run in (grown, above):
        assert run.matvecs <= 1.5 * at_once
        assert run.matvecs < anew / 2


def test_products_are_counted_and_capped():
    s = 0.97 ** np.arange(100)
    operator = WithNorm(matrix(120, 100, s))
    result = svds_to_tolerance(operator, 0.1, method="trlan", rng=0)
    assert result.matvecs + result.matvecs_verify == operator.seen
    with pytest.warns(ConvergenceWarning):
        capped = svds_to_tolerance(operator, 0.1, method="trlan", rng=0, max_matvecs=30)
    assert capped.status is Status.MAX_MATVECS
    assert capped.matvecs <= 30


@pytest.mark.parametrize("method", [None, "trlan", "direct"])
def test_max_k(method):
    """The most triplets that one is willing to compute; the answer says if they do not do."""
    s = SPECTRA["geometric"]
    A = matrix(70, 60, s)
    enough = svds_to_tolerance(A, 0.5, max_k=30, method=method, rng=0)
    assert_right(A, enough, smallest_k(s, 0.5)[0])
    for run in (
        lambda: svds_to_tolerance(A, 0.1, max_k=5, method=method, rng=0),
        lambda: svds_above(A, 0.1, max_k=5, method=method, rng=0),
    ):
        result = limited(run)
        assert len(result.S) == 5
        assert np.abs(result.S - s[:5]).max() <= value_bound(
            5, default_tol("float64"), A.shape, A.dtype
        )


def limited(run):
    """What a run returns that ``max_k`` keeps from its goal; it says so by a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return run()


def test_max_k_that_is_too_small_is_said():
    """Five triplets do not leave 10 % of the norm: "converged" would be wrong."""
    A = matrix(70, 60, SPECTRA["geometric"])
    for run in (
        lambda: svds_to_tolerance(A, 0.1, max_k=5, rng=0),
        lambda: svds_above(A, 0.1, max_k=5, rng=0),
    ):
        result = limited(run)
        assert not result.converged
        assert "max_k" in result.status.value


@pytest.mark.parametrize("max_k", [0, -1, 61, 2.5, True])
def test_max_k_out_of_range(max_k):
    A = matrix(70, 60, SPECTRA["geometric"])
    with pytest.raises((ValueError, TypeError), match="k="):
        svds_to_tolerance(A, 0.1, max_k=max_k)
    with pytest.raises((ValueError, TypeError), match="k="):
        svds_above(A, 0.1, max_k=max_k)


def test_going_on_from_a_state():
    s = SPECTRA["geometric"]
    A = matrix(70, 60, s)
    first = svds(A, 3, method="trlan", rng=0)
    grown = svds_to_tolerance(A, 0.1, state=first.state)
    assert_right(A, grown, smallest_k(s, 0.1)[0])
    more = svds_above(A, 0.12, state=grown.state)
    assert_right(A, more, int(np.sum(s > 0.12)))
    assert_right(A, svds(A, 40, state=more.state), 40)


def test_starting_near_an_earlier_result():
    A = matrix(70, 60, SPECTRA["geometric"])
    earlier = svds(A, 8, method="trlan", rng=0)
    assert_right(A, svds_above(A, 0.25, method="trlan", start=earlier, rng=0), 14)


@pytest.mark.parametrize(
    "call",
    [lambda A, **kw: svds_above(A, 0.25, **kw), lambda A, **kw: svds_to_tolerance(A, 0.2, **kw)],
)
def test_callback_verify_and_failure_work_as_in_svds(call):
    A = matrix(70, 60, SPECTRA["geometric"])
    seen = []
    call(A, method="trlan", rng=0, callback=lambda info: seen.append(info.iteration))
    # Twice an iteration: after each of its two products.
    assert seen == sorted(seen)
    assert sorted(set(seen)) == list(range(seen[0], seen[-1] + 1))
    with pytest.raises(trsvd.NotConverged) as error:
        call(A, method="trlan", rng=0, callback=lambda info: True, on_failure="raise")
    assert error.value.result.status is Status.CALLBACK
    assert call(A, method="trlan", rng=0, verify=False).completeness.kind == "unchecked"
    first, second = (call(A, method="trlan", rng=3) for _ in range(2))
    assert np.array_equal(first.U, second.U)
    with pytest.raises(ValueError, match="tol"):
        call(A, tol=-1)
    with pytest.raises(ValueError, match="method"):
        call(A, method="arnoldi")


def test_a_missed_value_that_counts_as_zero_is_none():
    stop = Values(lambda S: S > 0, 1e-10)
    S = np.array([2.0, 1.0])
    assert not stop.missed(S, 2, 1e-11)
    assert not stop.missed(S, 2, 0.0)
    assert stop.missed(S, 2, 1e-3)
    assert stop.missed(S, 2, 1.5)
    assert not stop.missed(np.zeros(0), 0, 0.0)


def test_an_error_at_the_rounding_level_is_refused():
    """Triplets in single precision leave some rounding units, however many there are."""
    A = np.random.default_rng(0).standard_normal((40, 30)) * 0.5 ** np.arange(30)
    for method in (None, "direct"):
        with pytest.raises(ValueError, match="rounding level"):
            svds_to_tolerance(A.astype(np.float32), 1e-7, method=method)
    assert len(svds_to_tolerance(A, 1e-7).S) < 30
