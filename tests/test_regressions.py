"""Bugs that were found, one test each.

The convention: the name says what went wrong, the docstring how it showed and why; the matrix is
the smallest that showed it. A test stays as it is when the code around it changes.
"""

from __future__ import annotations

import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from checks import (
    CountingOperator,
    assert_right,
    orthonormality,
    orthonormality_bound,
)

import trsvd
from reliability.cases import CASES
from trsvd import ConvergenceWarning, svds, svds_above, svds_to_tolerance
from trsvd._krylov.golub_kahan import GolubKahan
from trsvd._krylov.rayleigh_ritz import rayleigh_ritz
from trsvd._krylov.stopping import Residual, Values
from trsvd._solve.driver import _Decline, _Driver
from trsvd._solve.problem import Problem
from trsvd._solve.verify import check_completeness
from trsvd.testing import matrix_with_spectrum


def geometric(m, n, ratio=0.8, seed=0):
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((size, min(m, n))))[0] for size in (m, n))
    return (U * ratio ** np.arange(min(m, n))) @ V.T


def test_a_tall_matrix_of_rank_below_k_was_blamed_on_its_adjoint():
    """Without explicit orthogonalization of the left basis the vectors that take the place of
    vanished ones were not orthogonal to it: `AdjointError` for a plain array.
    """
    A = np.outer(np.arange(1.0, 13), np.arange(1.0, 5))
    assert_right(A, svds(A, 2, method="trlan", rng=0), 2)


def test_a_block_wider_than_the_room_left_was_blamed_on_the_adjoint():
    """The last block is cut to the room that is left, by dominance: the random stand-ins of
    vanished columns dominated the true remainder, which was lost.
    """
    A = np.ones((4, 4))
    for seed in range(3):
        method = trsvd.ThickRestartLanczos(block_size=3)
        assert_right(A, svds(A, 1, method=method, rng=seed), 1)


@pytest.mark.parametrize("method", ["rsvd", "power", "krylov"])
def test_stand_ins_for_vanished_columns_repeated_each_other(method):
    """They were one vector, rolled: more of them than rolls that differ were dependent."""
    A = np.zeros((30, 30))
    result = svds(A, 30, method=method, rng=0)
    for Q in (result.U, result.Vh.T):
        assert orthonormality(Q) <= orthonormality_bound(A.shape, A.dtype)


def test_a_wide_operator_recursed_without_end_when_formed():
    """`dense` of a wide operator asked its adjoint, which asked it."""
    A = geometric(8, 12)
    assert_right(A, svds(CountingOperator(A), 2), 2)


def test_tiny_accuracies_were_met_by_the_rounded_norm():
    """``1 - cumsum(s^2) / ||A||^2`` has no digits below sqrt(eps): too few triplets came back,
    "converged", with an error above eps.
    """
    A = np.diag(10.0 ** -np.arange(16.0))
    for eps in (1e-8, 1e-12):
        U, S, Vh = svds_to_tolerance(A, eps)
        assert np.linalg.norm(A - (U * S) @ Vh) <= eps * np.linalg.norm(A)


def test_an_operator_whose_norm_is_not_known_got_all_triplets():
    """The norm was taken as infinite where the spectrum, once there, gives it."""
    A = np.diag([1.0, 0.5, 0.25, 0.125])
    assert len(svds_to_tolerance(CountingOperator(A), 0.3).S) == 2


def test_the_frobenius_norm_of_a_users_operator_was_not_asked_for():
    """The message said to give it a method ``frobenius_norm()``; there was one."""

    class WithNorm(CountingOperator):
        def frobenius_norm(self):
            return float(np.linalg.norm(self.A))

    A = geometric(70, 60, 0.9)
    assert svds_to_tolerance(WithNorm(A), 0.2, method="trlan", rng=0).converged


def test_power_iteration_never_looked_beyond_its_block():
    """All of its values were above the threshold: it neither grew nor ended but by stagnation."""
    A = geometric(70, 60, 0.9)
    assert_right(A, svds_above(A, 0.2, method="power", rng=0), 16)


def test_a_missed_copy_was_let_pass_where_the_number_was_right():
    """A predicate on the count wants six either way; which six was not asked."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((size, 60)))[0] for size in (70, 60))
    A = (U * np.repeat([8.0, 4, 2, 1, 0.5, 0.1], 10)) @ V.T
    for seed in range(5):
        result = svds_above(A, lambda S: np.arange(len(S)) < 6, method="trlan", rng=seed)
        assert_right(A, result, 6)


def test_max_k_below_the_goal_was_called_converged():
    """Five triplets leave more than a tenth of the norm."""
    A = geometric(70, 60, 0.9)
    with pytest.warns(trsvd.ConvergenceWarning, match="max_k"):
        result = svds_to_tolerance(A, 0.1, max_k=5)
    assert not result.converged


def test_max_k_made_the_check_for_missed_values_start_over_and_over():
    """The sixth value is above the threshold and was "missed", again and again: 12000 products."""
    A = geometric(70, 60, 0.9)
    with pytest.warns(trsvd.ConvergenceWarning, match="max_k"):
        result = svds_above(A, 0.1, max_k=5, method="trlan", rng=0)
    assert result.matvecs < 500


@pytest.mark.filterwarnings("ignore::trsvd.ConvergenceWarning")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_max_k_was_said_of_values_that_extraction_took_back(dtype):
    """Values of the Gram matrix have an error of sqrt(eps): more of them than of A are above t."""
    rng = np.random.default_rng(3)
    U, V = (np.linalg.qr(rng.standard_normal((size, 3)))[0] for size in (60, 40))
    A = ((U * [1.0, 0.8, 0.5]) @ V.T).astype(dtype)
    gram = trsvd.ThickRestartLanczos(gram=True)
    for seed, t in itertools.product(range(5), (1e-6, 1e-8, 1e-12)):
        result = svds_above(A, t, max_k=6, method=gram, rng=seed)
        assert len(result.S) >= 6 or result.converged


def test_a_value_that_the_gram_matrix_shows_as_zero_was_not_wanted():
    """Its square is below the rounding of the largest one's; the certificate said "exact"."""
    A = np.zeros((12, 3))
    A[[2, 5, 9], [0, 1, 2]] = 1.0, 1e-4, 1e-8
    gram = trsvd.ThickRestartLanczos(gram=True)
    result = svds_above(A, 5e-9, method=gram, rng=0)
    np.testing.assert_allclose(result.S, [1.0, 1e-4, 1e-8], rtol=1e-6)


def test_the_fewest_triplets_are_those_of_the_values_after_extraction():
    """A copy came up in the Rayleigh-Ritz step, and 14 triplets were returned where 11 do."""
    A = np.pad(np.kron(np.diag(0.5 ** np.arange(1.0, 7)), np.eye(11)), ((0, 16), (0, 5)))
    for seed in range(20):
        op = CountingOperatorWithNorm(A)
        result = svds_to_tolerance(op, 0.5, method="trlan", tol=1e-2, rng=seed)
        assert np.sum(result.S[:-1] ** 2) < 0.75 * np.sum(A**2)


def test_copies_that_come_up_after_a_missed_one_got_too_small_a_basis():
    """All values but two are double: 18,700 products, and the residuals no longer decreased."""
    n = 1000
    A = scipy.sparse.diags_array([2.0, -1.0, -1.0], offsets=[0, 1, -1], shape=(n, n)).tolil()
    A[0, n - 1] = A[n - 1, 0] = -1
    exact = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(n) / n))[::-1]
    result = svds(A.tocsr(), 9, verify=1e-2, rng=0)
    np.testing.assert_allclose(result.S, exact[:9], rtol=1e-10)


@pytest.mark.parametrize("held", ["array", "sparse", "products"])
@pytest.mark.parametrize(
    "ball", [trsvd.SchattenBall(3), trsvd.SchattenBall(1.5), trsvd.KyFanBall(3)], ids=str
)
def test_weights_were_those_of_rounded_denormal_values(ball, held):
    """Singular values of a few times the least number were rounded to multiples of it."""
    B = np.random.default_rng(0).integers(-3, 4, (9, 7)).astype(float)
    A = B * 5e-324
    hold = {"array": np.asarray, "sparse": scipy.sparse.csr_array, "products": CountingOperator}
    result = ball.lmo(hold[held](A))
    np.testing.assert_allclose(result.update, ball.lmo(B).update, rtol=0, atol=1e-12)
    assert 0 <= abs(result.support / 5e-324 - ball.support(B)) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_denormal_operators_were_zero(dtype):
    """Of unit vectors, to rounding: the operator was taken for zero."""
    least = np.finfo(dtype).smallest_subnormal
    A = np.zeros((26, 4), dtype)
    A[3, 1], A[17, 0], A[9, 3] = -3 * least, 1 * least, 3 * least
    result = trsvd.svds(CountingOperator(A), 2, rng=0)
    np.testing.assert_array_equal(result.S, np.asarray([3, 3], dtype) * least)


def test_denormal_entries_made_the_norm_nan():
    """The scale that brings them near 1 is 2**1074, which is no float."""
    A = np.eye(6) * 5e-324
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = svds(A, 2, method="trlan", rng=0)
    assert np.array_equal(result.S, [5e-324, 5e-324])


def test_nan_from_a_product_came_out_as_a_failure_of_lapack():
    """In the second block of a Lanczos run it reached an SVD that was not looked after."""
    A = geometric(80, 70, 0.9)

    class Sick(CountingOperator):
        def rmatmat(self, X):
            Y = super().rmatmat(X)
            return Y * np.nan if self.seen > 7 else Y

    for method in ("trlan", "krylov", "direct"):
        operator = Sick(A) if method != "direct" else Sick(A.T.copy())
        with pytest.raises(ValueError, match="NaN|finite"):
            svds(operator, 3, method=method, rng=0)


def test_a_linear_operator_without_adjoint_failed_in_a_callable():
    """``'NoneType' object is not callable`` came out of scipy."""
    A = np.eye(5)
    operator = scipy.sparse.linalg.LinearOperator((5, 5), matvec=lambda x: A @ x, dtype=float)
    with pytest.raises(TypeError, match="adjoint|rmatvec|rmatmat"):
        svds(operator, 2)


def test_a_complex_start_lost_its_imaginary_part():
    """It was cast, with a warning of NumPy's; on torch without any."""
    with pytest.raises((TypeError, ValueError), match="complex"):
        svds(np.eye(5), 2, method="trlan", start=np.full((5, 2), 1j))


def test_the_start_of_a_wide_matrix_escaped_the_cap():
    """It is multiplied by A before the run begins."""
    A = CountingOperator(geometric(30, 40))
    start = np.random.default_rng(0).standard_normal((40, 12))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
            matvecs = svds(A, 2, method="trlan", start=start, max_matvecs=8, rng=0).matvecs
    except ValueError:
        matvecs = A.seen - 2
    assert matvecs <= 8


def test_a_slice_of_a_start_ran_past_its_end(backend):
    """What NumPy allows the standard leaves open: array_api_strict raised IndexError."""
    A = backend.asarray(geometric(8, 6))
    start = backend.asarray(np.ones((6, 2)))
    assert svds(A, 2, method="trlan", start=start, rng=0).converged


def test_copies_across_position_k_were_mixed_when_extracted():
    """Of two copies, one converged and one on its way, extraction took a mixture as the k-th
    vector, whose residual (1e-10) the estimates, of the unmixed one, did not see: "rounding floor".
    """
    rng = np.random.default_rng(0)
    s = np.r_[2.3, 2.2, 2.1, 2.0, np.ones(4), 0.7 * 0.95 ** np.arange(80)]
    U, V = (np.linalg.qr(rng.standard_normal((88, 88)))[0] for _ in range(2))
    A = (U * s) @ V.T
    for seed in range(10):
        assert_right(A, svds(A, 5, method="trlan", rng=seed), 5)


@pytest.mark.parametrize("k", [1, 3])
def test_eigenvalues_by_index_were_missed_in_a_cluster(k):
    """LAPACK returned fewer eigenpairs of the Gram matrix than were asked for."""
    for seed in range(120):
        G = np.random.default_rng(seed).standard_normal((12, 14))
        U, _, Vh = np.linalg.svd(G, full_matrices=False)
        result = trsvd.svds(U @ Vh, k, method=trsvd.Direct(route="gram"))
        assert_right(U @ Vh, result, k)


COPIES = np.diag(np.r_[np.ones(10), np.full(40, 0.5), np.full(50, 0.01)])


@pytest.mark.parametrize("gram", [False, True])
def test_copies_were_missed_when_a_run_for_one_was_resumed_for_more(gram):
    """The start of a run for k = 1 was taken for one wide enough for k = 8."""
    method = trsvd.ThickRestartLanczos(gram=gram)
    first = trsvd.svds(COPIES, 1, method=method, rng=0)
    result = trsvd.svds(COPIES, 8, state=first.state, rng=0)
    assert_right(COPIES, result, 8)
    assert result.completeness.kind == "probable"


def test_the_gram_route_passed_over_small_values():
    """Below sqrt(eps) s_1 eigenvalues of A^T A are noise, which residuals cannot see."""
    A = np.diag(np.r_[1.0, np.random.default_rng(1).random(39) * 1e-8])
    assert_right(A, trsvd.svds(A, 5), 5)


@pytest.mark.parametrize(("large", "tol"), [(2.0, 0.01), (5.0, 0.1)])
def test_a_loose_tolerance_was_met_before_the_leading_vector_had_grown(large, tol):
    """In 20000 dimensions a random vector is an eigenvector but for 1 % of its length."""
    values = np.ones(20000)
    values[7] = large
    A = scipy.sparse.diags_array(values).tocsr()
    for seed in range(3):
        S = trsvd.svds(A, 1, tol=tol, rng=seed).S
        assert abs(S[0] - large) <= tol * large


@pytest.mark.parametrize("method", ["trlan", "krylov"])
def test_a_start_of_null_vectors_was_taken_for_a_wrong_adjoint(method):
    """Nothing but rounding was seen of A yet when the two products were compared."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((60, 10)) @ rng.standard_normal((10, 40))
    null = np.linalg.svd(A)[2][10:].T
    assert_right(A, trsvd.svds(A, 3, method=method, start=null[:, :5].copy(), rng=0), 3)


def test_the_products_that_extract_gram_vectors_escaped_the_cap():
    """Each attempt to extract made k products more."""
    A = np.diag(np.r_[1.0, 1e-8 * np.linspace(1, 0.1, 19)])
    with pytest.warns(trsvd.ConvergenceWarning):
        result = trsvd.svds(A, 3, method=trsvd.ThickRestartLanczos(gram=True), max_matvecs=9, rng=0)
    assert result.matvecs <= 9


def test_a_state_was_changed_by_its_generator():
    """Two runs from one state drew different numbers."""
    A = np.random.default_rng(0).standard_normal((61, 26))
    state = trsvd.svds(A, 8, method="power", rng=0, tol=1e-3).state
    with pytest.warns(trsvd.ConvergenceWarning):
        one, two = (trsvd.svds(A, 12, state=state, max_matvecs=60).S for _ in range(2))
    assert np.array_equal(one, two)


def test_nothing_above_a_threshold_with_gram_lanczos():
    """There was no column to extract."""
    A = np.random.default_rng(0).standard_normal((30, 20))
    result = trsvd.svds_above(A, 1e9, method=trsvd.ThickRestartLanczos(gram=True))
    assert (result.U.shape, result.S.shape, result.Vh.shape) == ((30, 0), (0,), (0, 20))


def test_a_small_basis_could_not_be_resumed_for_more():
    """The basis given for five triplets was held against ten."""
    A = np.random.default_rng(0).standard_normal((60, 50))
    first = trsvd.svds(A, 5, method=trsvd.ThickRestartLanczos(basis_size=8), rng=0)
    assert_right(A, trsvd.svds(A, 10, state=first.state), 10)


@pytest.mark.parametrize("block_size", [1, 3])
def test_vectors_drifted_from_orthonormal_over_many_restarts(block_size):
    """Each restart multiplies the basis by a rotation that rounds: 1e-12 after 500 of them."""
    s = np.r_[1 - 1e-5 * np.arange(30), 0.9 * 0.95 ** np.arange(30)]
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((60, 60)))[0] for _ in range(2))
    A = (U * s) @ V.T
    method = trsvd.ThickRestartLanczos(block_size=block_size, basis_size=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
        result = svds(A, 5, method=method, rng=0, max_matvecs=6000, tol=1e-14)
    for Q in (result.U, result.Vh.T):
        assert orthonormality(Q) <= orthonormality_bound(A.shape, A.dtype)


def test_a_block_of_one_direction_stayed_dependent_on_a_device(backend):
    """Where nobody looks at numbers, noise that lies along the dominant direction was normalized
    again and again: with rows of all scales left vectors came out twice.
    """
    rng = np.random.default_rng(0)
    host = 10.0 ** rng.permutation(np.linspace(-300, 300, 60))[:, None]
    host = host * rng.standard_normal((60, 50))
    result = svds(backend.asarray(host), 5, method="krylov", rng=0)
    for Q in (backend.to_numpy(result.U), backend.to_numpy(result.Vh).T):
        assert orthonormality(Q) <= orthonormality_bound(host.shape, host.dtype)


def test_the_oracle_of_a_denormal_gradient_lost_its_small_pairs():
    """Values were rounded to float32, where a denormal one has a digit or none: the gap, "exact"
    and 1e-5, was 2.6e-2.
    """
    s = 0.8 ** np.arange(50)
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((60, 50)))[0] for _ in range(2))
    G = ((U * s) @ V[:50].T * 1e-44).astype(np.float32)
    scaled = G.astype(np.float64) * 2.0**140
    result = trsvd.SpectralBall().lmo(G)
    support = np.linalg.svd(scaled, compute_uv=False).sum()
    gap = 1 + np.vdot(scaled, result.update) / support
    assert gap <= result.gap + 60 * 1.2e-7


def test_what_was_missed_was_taken_up_past_its_end(backend):
    """What NumPy allows the standard leaves open: array_api_strict raised IndexError."""
    host = matrix_with_spectrum(70, 70, np.r_[np.ones(10), 0.5 * 0.9 ** np.arange(60)], rng=0)
    result = svds(backend.asarray(host), 10, method="trlan", rng=0)
    assert result.matvecs_verify > 20, "something was missed at first"
    assert np.allclose(backend.to_numpy(result.S), 1.0)


def test_eigenvalues_by_index_gave_up_on_a_cluster():
    """LAPACK: "Internal Error"; found among random structured problems."""
    V = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 7)))[0]
    A = np.pad(np.diag([1.0, 1, 1, 1, 0, 0, 0]) @ V.T, ((0, 0), (0, 1))) * 2.0**-20
    for k in range(1, 8):
        assert_right(A, svds(A, k, method=trsvd.Direct(route="gram")), k)


@pytest.mark.parametrize("method", ["trlan", trsvd.ThickRestartLanczos(gram=True)])
@pytest.mark.parametrize("rank", [1, 4])
def test_a_seed_that_is_used_twice_does_not_blind_the_check(rank, method):
    """The check drew the vector that the first run had started from, now in its own space.

    What was left of it was rounding noise, orthogonal to nothing: ``AdjointError``.
    """
    rng = np.random.default_rng(1000)
    A = rng.standard_normal((300, rank)) @ rng.standard_normal((rank, 250))
    first = trsvd.svds(A, rank + 2, method=method, rng=0)
    for k in (rank + 3, rank + 10):
        result = trsvd.svds(A, k, state=first.state, rng=0)
        assert result.converged
        exact = np.linalg.svd(A, compute_uv=False)[:k]
        assert np.abs(result.S - exact).max() <= 1e-11 * exact[0]


def test_a_start_inside_of_what_is_locked_was_normalized_noise():
    """It was orthogonal to nothing."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((60, 40))
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    locked = U[:, :5], S[:5], Vh[:5].T
    basis = GolubKahan(Problem(A, 0, None).op, Vh[2:3].T, capacity=20, rng=rng, locked=locked)
    assert np.abs(Vh[:5] @ basis.V.view(5)).max() <= 1e-14


def test_residuals_above_the_tolerance_in_single_precision_were_measured_forever():
    """They said that squares are too coarse, the estimates did not: the same triplets came again
    and again until the products were used up (`MAX_MATVECS` at a residual of 1.008 tol).
    """
    case = CASES["4 copies at 1"]
    A = np.asarray(case.make()).astype(np.float32)
    for seed in range(10):
        result = svds(A, 5, method=trsvd.ThickRestartLanczos(gram=True), rng=seed)
        assert result.converged
        assert result.matvecs_verify <= 400


def test_a_plateau_below_a_huge_value_used_up_the_products():
    """Copies came up one by one, each with a restart, until 80000 products were used; the dense
    factorization that takes over was then refused its own (``ValueError``, after 20 s).
    """
    rng = np.random.default_rng(0)
    n, s = 400, np.linspace(0.99, 0, 400)
    s[0], s[1:12] = 1e4, 1.05
    Q, R = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    A = ((Q * s) @ R).astype(np.float32)
    exact = np.linalg.svd(A.astype(np.float64), compute_uv=False)[:12]
    for tol in (3e-6, None):
        result = svds(A, 12, tol=tol, rng=0)
        assert result.converged
        assert result.matvecs <= 8 * n
        assert np.abs(result.S - exact).max() <= 3e-6 * exact[0]


@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_the_ceiling_of_a_plateau_was_in_other_units(scale):
    """The bound that a warm step hands to the Krylov space after it was that of the scaled matrix:
    at 1e200 it stopped at once, far off (gap 0.19 where 1e-3 was asked), and said `ROUNDING_FLOOR`.
    """
    rng = np.random.default_rng(0)
    s = np.concatenate([1 - 1e-3 * np.arange(6), np.linspace(0.5, 0.01, 194)])
    A = np.linalg.qr(rng.standard_normal((260, 200)))[0] * s
    A = A @ np.linalg.qr(rng.standard_normal((200, 200)))[0]
    ball, result = trsvd.KyFanDualBall(1), None
    for step in range(3):
        E = rng.standard_normal(A.shape)
        A = A + 0.02 * np.linalg.norm(A) / np.linalg.norm(E) * E
        if step:  # a direction that is new, and leads
            u, v = rng.standard_normal(260), rng.standard_normal(200)
            A = A + 1.2 * np.outer(u / np.linalg.norm(u), v / np.linalg.norm(v))
        result = ball.lmo(scale * A, gap=1e-3, start=result, rng=step)
        assert result.status.converged
        assert result.gap <= 1e-3
        assert 1 - result.support / scale / np.linalg.norm(A, 2) <= 1e-3


def test_a_run_that_escalates_is_given_time():
    """Residuals of a basis that begins anew are above the best; that is no rounding floor."""
    driver = object.__new__(_Driver)
    driver.problem, driver.stop = SimpleNamespace(eps=1e-7), Residual(1, 1e-6)
    driver.run, driver.decline = SimpleNamespace(escalate=lambda: True), _Decline(1e-7)
    driver.decline.verdict(1e-6)
    outcome = SimpleNamespace(residuals=np.array([1e-5]))
    assert driver.verdict(outcome, None) is None
    assert driver.decline.best == np.inf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vectors_that_squares_left_too_coarse_are_gone_on_from(dtype, rng):
    problem = Problem(rng.standard_normal((300, 200)).astype(dtype), 0, None)
    run = trsvd.ThickRestartLanczos(gram=True).init(
        problem.op, 3, tol=1e-6, start=None, rng=problem.rng
    )
    while not run.available >= 40:
        run.step(problem.op)
    before = run.extract(problem.op, 3)[2]
    assert run.escalate()
    run.step(problem.op)
    assert isinstance(run.basis, GolubKahan)
    cosines = np.linalg.svd(before.T @ run.basis.right_vectors(3), compute_uv=False)
    assert cosines.min() > 0.99


def blocks(shape, size, copies, seed):
    """A matrix with ``copies`` equal diagonal blocks: each singular value that many times."""
    block = np.random.default_rng(seed).standard_normal((size, size))
    A = np.zeros(shape)
    A[: size * copies, : size * copies] = scipy.linalg.block_diag(*[block] * copies)
    return A


def assert_orthonormal(result):
    for vectors in (result.U, result.Vh.conj().T):
        bound = orthonormality_bound(vectors.shape, vectors.dtype)
        assert orthonormality(vectors) <= bound


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("shape", "size", "copies"),
    [((140, 66), 8, 8), ((66, 140), 8, 8), ((200, 90), 6, 15), ((80, 80), 10, 8)],
)
@pytest.mark.parametrize("sides", ["auto", "one-sided", "two-sided"])
def test_equal_blocks_cost_the_left_basis_its_orthogonality(sides, shape, size, copies, seed):
    """A Krylov space meets one copy of each value, breaks down and goes on from a random vector.
    Moderate remainders multiplied the loss of the left basis step by step, up to linear dependence:
    a `FloatingPointError`, `ROUNDING_FLOOR`, or a false `AdjointError`.
    """
    A = blocks(shape, size, copies, seed)
    method = trsvd.ThickRestartLanczos(reorthogonalize=sides)
    result = svds(A, size, method=method, rng=seed)
    assert result.converged
    assert_orthonormal(result)
    exact = np.linalg.svd(A, compute_uv=False)[:size]
    assert np.abs(result.S - exact).max() <= 1e-11 * exact[0]


@pytest.mark.parametrize("tol", [0.1, 1e-3, None])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("rank", [20, 60, 110])
def test_all_triplets_of_a_matrix_of_lower_rank_were_not_orthonormal(rank, dtype, tol):
    """k = min(m, n) > rank: U was off by 1.0, CONVERGED and "exact"."""
    rng = np.random.default_rng(rank)
    m, n = 120, 250
    A = np.zeros((m, n), complex)
    U = np.linalg.qr(rng.standard_normal((m, rank)) + 1j * rng.standard_normal((m, rank)))[0]
    A[:, rng.permutation(n)[:rank]] = U * rng.uniform(0.1, 1, rank)
    A = (A if dtype.startswith("complex") else A.real).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = svds(scipy.sparse.csr_array(A), m, method="trlan", tol=tol, rng=0)
    assert_orthonormal(result)


def test_vectors_are_measured_before_they_are_returned(monkeypatch, rng):
    """A method that loses orthogonality is corrected by a Rayleigh-Ritz step."""
    A = geometric(90, 60)
    extract = GolubKahan.extract

    def skewed(self, k):
        U, S, V = extract(self, k)
        return U @ (np.eye(k) + 1e-6), S, V @ (np.eye(k) - 1e-6)

    monkeypatch.setattr(GolubKahan, "extract", skewed)
    result = svds(A, 5, method="trlan", rng=0)
    assert result.converged
    assert_orthonormal(result)
    assert np.abs(result.S - 0.8 ** np.arange(5)).max() <= 1e-13


@pytest.mark.parametrize("kind", ["sparse", "operator"])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("decay", [1.0, 0.9])
def test_a_threshold_just_below_the_largest_value_found_nothing(decay, seed, kind):
    """The first Ritz value plus its residual was below the threshold, which says nothing of larger
    values: no triplets, CONVERGED, after two products.
    """
    A = np.random.default_rng(seed).standard_normal((300, 250)) * decay ** np.arange(250)
    exact = np.linalg.svd(A, compute_uv=False)
    matrix = scipy.sparse.csr_array(A) if kind == "sparse" else CountingOperator(A)
    for max_k in (1, 3, None):
        result = svds_above(matrix, (exact[0] + exact[1]) / 2, max_k=max_k, rng=seed)
        assert result.converged
        assert len(result.S) == 1
        nothing = svds_above(matrix, 1.01 * exact[0], max_k=max_k, rng=seed)
        assert nothing.converged
        assert len(nothing.S) == 0


@pytest.mark.parametrize("method", ["trlan", "krylov", "rsvd", "power"])
@pytest.mark.parametrize("copies", [12, 29])
def test_more_equal_values_above_a_threshold_than_a_block_is_wide(method, copies):
    """Block Krylov returned 20 of 29: that its block was as wide as the values found are many does
    not say that there are no others, and "random start" spared the check.
    """
    s = np.concatenate([np.ones(copies), np.full(150 - copies, 0.3)])
    A = matrix_with_spectrum(200, 150, s, rng=0)
    result = svds_above(CountingOperator(A), 0.5, method=method, tol=1e-6, rng=0)
    assert result.converged
    assert len(result.S) == copies
    assert result.completeness.kind != "random start"


@pytest.mark.parametrize("tol", [0.1, 0.01])
@pytest.mark.parametrize("verify", [True, "exact"])
def test_equal_values_above_a_threshold_at_a_loose_tolerance(verify, tol):
    """A missed value was made smaller by 10 tol of itself before it was compared: 7 of 48 values
    came back at tol = 0.1, "exact", although they exceed the threshold by far more than tol s_1.
    """
    A = np.zeros((53, 52))
    A[:48, :48] = np.eye(48)
    for seed in range(3):
        result = svds_above(A, 0.8, method="trlan", tol=tol, verify=verify, rng=seed)
        assert result.converged
        assert len(result.S) == 48


def test_a_small_rest_of_the_norm_certifies_no_threshold(rng):
    """What is left of the norm is less than the last value found, and more than the threshold."""
    s = np.array([10.0, 9.0, 8.0, 7.0, 6.0, 2.0, 0.1])
    A = matrix_with_spectrum(90, 80, np.concatenate([s, np.full(73, 1e-3)]), rng=0)
    problem = Problem(CountingOperatorWithNorm(A), 0, None)
    run = trsvd.ThickRestartLanczos().init(problem.op, 5, tol=1e-8, start=None, rng=problem.rng)
    U, S, Vh = np.linalg.svd(A)
    found = (U[:, :5], S[:5], Vh[:5].T)
    for stop, kind in ((Residual(5, 1e-8), "norm"), (Values(lambda S: S > 1.0, 1e-8), "unchecked")):
        known, missed = check_completeness(
            problem.op, run, found, stop, problem.unit, lambda: problem.rng, 1
        )
        assert known.kind == kind
        assert (missed is not None) == (kind == "unchecked")


class CountingOperatorWithNorm(CountingOperator):
    def frobenius_norm(self):
        return np.linalg.norm(self.A)


@pytest.mark.parametrize("method", ["power", "rsvd", "krylov", "trlan"])
def test_exactly_as_many_values_above_a_threshold_as_allowed(method):
    """A block of max_k columns never saw the next value: `MAX_K` was false."""
    s = np.array([4, 3, 2.5, 2, 1, 0.5, 0.4, 0.3, 0.2, 0.1] + [0.05] * 50)
    A = CountingOperator(np.diag(s))
    result = svds_above(A, 1.5, max_k=4, method=method, tol=1e-6, rng=0)
    assert result.converged
    assert len(result.S) == 4
    with pytest.warns(ConvergenceWarning, match="max_k"):
        assert svds_above(A, 1.5, max_k=3, method=method, tol=1e-6, rng=0).status.name == "MAX_K"


def test_values_are_counted_once_more_when_they_are_known_better():
    """Values by the Gram matrix, known to sqrt(eps) s_1, were above the threshold; those that came
    back after the Rayleigh-Ritz step with the matrix were zero.
    """
    A = CountingOperator(np.diag([1.0] * 8 + [1e-7] * 6 + [0.0] * 12))
    for seed in range(10):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            method = trsvd.ThickRestartLanczos(gram=True)
            result = svds_above(A, 1e-9, method=method, tol=1e-5, rng=seed)
        assert (result.S > 1e-9).all()


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_a_product_that_is_zero_is_not_orthogonal_to_others(dtype):
    """One zero column and one pair that is not orthogonal counted like orthogonal columns."""
    A = np.zeros((20, 3), dtype)
    A[:2, :2] = [[1, 1], [0, 1]]
    U, S, _ = rayleigh_ritz(Problem(A, 0, None).op, np.eye(3, dtype=dtype), None, 3)
    assert np.isfinite(U).all()
    assert np.allclose(S, np.linalg.svd(A, compute_uv=False), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_small_numbers_beside_ordinary_ones_are_divided_by_their_norms(axis, size, dtype):
    """Complex division by a denormal norm gave NaN, with a gap of 0; the norm of a denormal row has
    few digits, and the row left the ball by a factor of up to 1.4.
    """
    tiny = size * np.finfo(dtype).smallest_subnormal
    rng = np.random.default_rng(size)
    G = rng.standard_normal((6, 5)).astype(dtype)
    small = tiny * rng.integers(1, 4, (6, 5))
    small = small + 1j * tiny * rng.integers(1, 4, (6, 5)) if G.dtype.kind == "c" else small
    G[2:5, :] = small[2:5, :]
    G[:, 1:3] = small[:, 1:3]
    ball = {None: trsvd.MaxBall(), 0: trsvd.ColumnBall(), 1: trsvd.RowBall()}[axis]
    for scale in (1.0, 2.0**40, 2.0**-20):
        D = -np.asarray(ball.lmo(scale * G).update).astype(np.promote_types(dtype, np.float64))
        norms = np.abs(D) if axis is None else np.linalg.norm(D, axis=axis)
        there = (scale * G != 0) if axis is None else (scale * G != 0).any(axis=axis)
        assert np.abs(norms - there).max() <= 8 * np.finfo(dtype).eps
        assert ball.gauge(D.astype(dtype)) <= 1 + 8 * np.finfo(dtype).eps


@pytest.mark.parametrize("ball", [trsvd.SpectralBall(), trsvd.RMSBall()])
@pytest.mark.parametrize("method", [None, "exact", "svd", "gram"])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_a_gap_below_rounding_is_never_met_in_silence(dtype, method, ball, rng):
    """Of the Gram matrix 1.2e-5 was reported where 1e-6 was asked for: CONVERGED, no warning."""
    G = rng.standard_normal((50, 12)).astype(dtype)
    with pytest.warns(ConvergenceWarning, match="the gap is"):
        result = ball.lmo(G, gap=1e-6, method=method)
    assert not result.status.converged


@pytest.mark.parametrize("k", [2, 5, 9])
@pytest.mark.parametrize(
    "G",
    [
        scipy.sparse.kron(
            scipy.sparse.eye_array(12), np.random.default_rng(0).standard_normal((7, 7))
        ).tocsr(),
        scipy.sparse.kron(
            scipy.sparse.eye_array(9), np.random.default_rng(1).random((9, 8))
        ).tocsr(),
        scipy.sparse.diags_array([np.ones(149), np.ones(149)], offsets=[-1, 1]).tocsr(),
        scipy.sparse.csr_array(scipy.linalg.circulant(np.eye(1, 120)[0] + np.eye(1, 120, 3)[0])),
    ],
    ids=["blocks", "Kronecker", "path", "circulant"],
)
def test_norms_of_matrices_with_multiple_values(G, k):
    """A bare number drops the certificate: sums missed copies, and were off by up to 0.7 %."""
    s = np.linalg.svd(G.toarray(), compute_uv=False)
    assert trsvd.kyfan_norm(G, k) == pytest.approx(s[:k].sum(), rel=1e-12)
    assert trsvd.KyFanDualBall(k).support(G) == pytest.approx(s[:k].sum(), rel=1e-12)
    assert trsvd.spectral_norm(G) == pytest.approx(s[0], rel=1e-12)
    assert trsvd.nuclear_norm(G) == pytest.approx(s.sum(), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_a_start_of_denormal_numbers(dtype, backend, rng):
    """Complex division by a denormal number has no room for its inverse: the start was NaN."""
    A = rng.standard_normal((70, 66)).astype(dtype)
    start = np.zeros((66, 1), dtype)
    start[3] = 3 * np.finfo(dtype).smallest_subnormal * (1j if np.iscomplexobj(A) else 1)
    result = trsvd.svds(backend.asarray(A), 2, method="trlan", start=backend.asarray(start), rng=0)
    assert result.converged
    S = np.linalg.svd(A, compute_uv=False)[:2]
    np.testing.assert_allclose(backend.to_numpy(result.S), S, rtol=np.finfo(dtype).eps ** 0.75)


@pytest.mark.filterwarnings("ignore::trsvd.ConvergenceWarning")
@pytest.mark.parametrize("method", [None, "direct", "krylov", "trlan"])
@pytest.mark.parametrize("offset", [1e5, 1e6])
def test_the_gap_contains_what_cancellation_leaves_open(method, offset):
    """In float32 the parts of the operator are rounded by more than the gap that was reported."""
    rng = np.random.default_rng(7)
    B = rng.standard_normal((300, 90)) * np.linspace(1, 0.2, 90)
    X, ones = (B + offset).astype(np.float32), np.ones((300, 1), np.float32)
    mean = X.mean(axis=0, dtype=float)[:, None].astype(np.float32)
    exact = X.astype(float) - ones @ mean.T.astype(float)
    norm = np.linalg.svd(exact, compute_uv=False)[:3].sum()
    op = trsvd.operators.LowRankUpdate(X, ones, -mean)
    result = trsvd.KyFanDualBall(3).lmo(op, gap=1e-2, method=method, rng=0)
    asked = 1e-2 if result.status.converged else 0.0
    assert 1 + np.vdot(exact, result.update) / norm <= max(result.gap, asked)


@pytest.mark.parametrize("held", [np.asarray, scipy.sparse.csr_array], ids=["array", "sparse"])
def test_the_mean_of_large_entries_was_summed_in_single_precision(held):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((5000, 30)) + 1e4).astype(np.float32)
    op = trsvd.operators.CenteredOperator(held(X))
    error = np.abs(op.mean.astype(float) - X.mean(axis=0, dtype=float)).max()
    assert error <= np.spacing(np.float32(1e4))
