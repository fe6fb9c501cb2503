"""Properties of a truncated SVD, on matrices of random shape, rank and spectrum.

The examples are the same in every run (`derandomize`); for a longer search set the environment
variable TRSVD_EXAMPLES to how many are wanted of each, which are then drawn anew.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings

import numpy as np
import pytest
from checks import METHODS, default_tol, eps_of, orthonormality, orthonormality_bound, value_bound
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import trsvd
from trsvd import ConvergenceWarning, svds, svds_above

WANTED = os.environ.get("TRSVD_EXAMPLES")


def some(count: int):
    return settings(
        max_examples=int(WANTED or count),
        derandomize=WANTED is None,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@dataclasses.dataclass(frozen=True)
class Problem:
    """A matrix by what it is made of, so that a failing example is short to read."""

    m: int
    n: int
    s: np.ndarray
    dtype: str
    coordinates: tuple[bool, bool]
    k: int
    method: str
    seed: int

    @functools.cached_property
    def A(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        U, V = (
            orthonormal(size, len(self.s), self.dtype, rng, plain)
            for size, plain in zip((self.m, self.n), self.coordinates, strict=True)
        )
        return ((U * self.s) @ V.conj().T).astype(self.dtype)

    @property
    def bound(self) -> float:
        """How far converged values may be from the truth."""
        scale = self.s[0] if len(self.s) else 0.0
        return value_bound(self.k, default_tol(self.A.dtype), self.A.shape, self.A.dtype) * scale

    def solve(self, A: np.ndarray | None = None) -> trsvd.SVDResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return svds(
                self.A if A is None else A,
                self.k,
                method=METHODS[self.method],
                rng=self.seed,
                max_matvecs=4000,
            )


METHODS_THAT_END = sorted(set(METHODS) - {"trlan-gram"})


@st.composite
def problems(
    draw, methods=METHODS_THAT_END, dtypes=("float32", "float64", "complex64", "complex128")
):
    """Values from a few levels, so that multiplicities and zeros are common, or spread out."""
    m, n = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rank = min(m, n)
    dtype = draw(st.sampled_from(dtypes))
    if draw(st.booleans()):
        levels = draw(
            st.lists(
                st.sampled_from([4.0, 3.0, 2.0, 1.0, 0.5, 0.1, 0.0]), min_size=rank, max_size=rank
            )
        )
        s = np.sort(np.array(levels))[::-1]
    else:
        ratio = draw(st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.1]))
        s = ratio ** np.arange(rank)
        s[draw(st.integers(0, rank)) :] = 0
    coordinates = draw(st.booleans()), draw(st.booleans())
    k, method = draw(st.integers(1, rank)), draw(st.sampled_from(methods))
    return Problem(m, n, s, dtype, coordinates, k, method, draw(st.integers(0, 2**16)))


def orthonormal(rows, columns, dtype, rng, coordinates):
    """Random columns, or coordinate vectors: then nothing is mixed by rounding."""
    if coordinates:
        return np.eye(rows)[:, rng.permutation(rows)[:columns]]
    X = rng.standard_normal((rows, columns))
    if dtype.startswith("complex"):
        X = X + 1j * rng.standard_normal((rows, columns))
    return np.linalg.qr(X)[0]


def silent(result: trsvd.SVDResult) -> bool:
    """Whether there is nothing to be held to: it says that it has not converged."""
    event(result.status.name)
    return not result.converged


@some(200)
@given(problems())
def test_right_or_says_that_it_is_not(problem):
    result = problem.solve()
    U, S, Vh = result
    for Q in (U, Vh.conj().T):
        assert orthonormality(Q) <= orthonormality_bound(problem.A.shape, problem.A.dtype)
    assert result.matvecs <= 4000
    # Rayleigh-Ritz values lie below the exact ones (Poincare), converged or not.
    rounding = max(*problem.A.shape, 16) * eps_of(problem.A.dtype) * problem.s[0]
    assert np.all(problem.s[: problem.k] + rounding >= S)
    if silent(result):
        return
    assert np.abs(S - problem.s[: problem.k]).max() <= problem.bound
    # Eckart and Young: no error of rank k is smaller, in the spectral or the Frobenius norm. With
    # residuals r the error is the best one to first order in the norm of the residual block.
    E = problem.A.astype(np.complex128) - (U.astype(np.complex128) * S) @ Vh
    tail = np.append(problem.s[problem.k :], 0.0)
    slack = 2 * problem.bound + 4 * rounding
    assert tail[0] - slack <= np.linalg.norm(E, 2) <= tail[0] + slack
    assert abs(np.linalg.norm(E) - np.linalg.norm(tail)) <= slack * max(1, len(tail)) ** 0.5


@some(100)
@given(problems(methods=["trlan", "trlan-block", "krylov", "direct-svd", "direct-gram"]))
def test_methods_that_always_arrive(problem):
    """Krylov spaces end after min(m, n) steps at most: no excuse in problems of this size."""
    assert problem.solve().converged


ITERATIVE_THAT_END = [name for name in METHODS_THAT_END if not name.startswith("direct")]


@some(60)
@given(problems(methods=ITERATIVE_THAT_END))
def test_scaling_by_a_power_of_two_changes_no_digit(problem):
    """But for entries that come near zero, all is exact at both scales (LAPACK has its own)."""
    one, other = problem.solve(), problem.solve(problem.A * 2.0**-20)
    assert np.array_equal(np.asarray(one.S) * np.float32(2.0**-20), other.S)
    # Entries that decay from step to step end as subnormal products, whose grain is 2**20 times
    # coarser at the smaller scale; 2**10 is for the number of sums and steps.
    grain = 2.0**30 * float(np.finfo(one.U.dtype).smallest_subnormal)
    assert np.abs(one.U - other.U).max() <= grain
    assert np.abs(one.Vh - other.Vh).max() <= grain
    assert (one.matvecs, one.status) == (other.matvecs, other.status)


@some(60)
@given(problems(dtypes=("float64", "complex128")), st.sampled_from([-900, -600, 600, 900]))
def test_extreme_scales_change_no_value(problem, exponent):
    result = problem.solve(problem.A * 2.0**exponent)
    if silent(result):
        return
    assert np.abs(result.S * 2.0**-exponent - problem.s[: problem.k]).max() <= problem.bound


@some(60)
@given(problems())
def test_the_adjoint_has_the_same_values(problem):
    one, other = problem.solve(), problem.solve(problem.A.conj().T.copy())
    if not silent(one) and not silent(other):
        assert np.abs(one.S - other.S).max() <= 2 * problem.bound


@some(60)
@given(problems(), st.integers(0, 2**16))
def test_unitary_factors_change_no_value(problem, seed):
    rng = np.random.default_rng(seed)
    m, n = problem.A.shape
    name = problem.A.dtype.name
    Q, R = (orthonormal(size, size, name, rng, False).astype(problem.A.dtype) for size in (m, n))
    one, other = problem.solve(), problem.solve(Q @ problem.A @ R)
    if not silent(one) and not silent(other):
        # The two products round at max(m, n) eps each.
        rounding = 4 * max(m, n) * eps_of(problem.A.dtype) * problem.s[0]
        assert np.abs(one.S - other.S).max() <= 2 * problem.bound + rounding


@some(60)
@given(problems(), st.integers(0, 2**16))
def test_permutations_change_no_value(problem, seed):
    rng = np.random.default_rng(seed)
    m, n = problem.A.shape
    signs = rng.choice([-1.0, 1.0], m)[:, None].astype(problem.A.real.dtype)
    shuffled = (signs * problem.A)[rng.permutation(m)][:, rng.permutation(n)]
    one, other = problem.solve(), problem.solve(shuffled)
    if not silent(one) and not silent(other):
        assert np.abs(one.S - other.S).max() <= 2 * problem.bound


@some(40)
@given(problems(methods=["trlan", "krylov", "direct-svd"]), st.integers(1, 40))
def test_more_triplets_begin_with_the_fewer(problem, more):
    """Resumed or anew, the first k values are those of a run for k."""
    k = min(problem.k + more, len(problem.s))
    first = problem.solve()
    if silent(first):
        return
    resumed = svds(problem.A, k, state=first.state)
    assert np.abs(resumed.S - problem.s[:k]).max() <= problem.bound * (k / problem.k) ** 0.5
    assert np.abs(resumed.S[: problem.k] - first.S).max() <= 2 * problem.bound


@some(40)
@given(
    problems(methods=["trlan", "krylov", "rsvd", "direct-svd"], dtypes=("float64",)),
    st.sampled_from([2.5, 1.5, 0.75, 0.05]),
)
def test_values_above_a_level(problem, level):
    """The levels lie between the values of which spectra are made, or far from most."""
    if np.abs(problem.s - level).min() <= 1e-6:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = svds_above(
            problem.A, level, method=METHODS[problem.method], rng=problem.seed, max_matvecs=4000
        )
    if silent(result):
        return
    wanted = problem.s[problem.s > level]
    assert len(result.S) == len(wanted)
    if len(wanted):
        assert (
            np.abs(result.S - wanted).max()
            <= value_bound(len(wanted), default_tol("float64"), problem.A.shape, "float64")
            * problem.s[0]
        )


@pytest.mark.parametrize("method", METHODS)
@some(10)
@given(problem=problems(dtypes=("float64",)))
def test_one_seed_gives_one_result(method, problem):
    problem = dataclasses.replace(problem, method=method)
    one, other = problem.solve(), problem.solve(problem.A.copy())
    for part, twin in zip(one, other, strict=True):
        assert part.tobytes() == twin.tobytes()
