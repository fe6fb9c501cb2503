"""trsvd.compat: what the original suites in tests/conformance do not ask."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from checks import default_tol, eps_of, exact_values, orthonormality, value_bound

import trsvd
from trsvd import Status, compat
from trsvd.compat import NoConvergence, randomized_svd, svds
from trsvd.compat import scipy as _compat_smallest

SHAPES = [(120, 80), (80, 120)]
SOLVERS = ["arpack", "lobpcg", "propack"]


def matrix(m, n, dtype="float64", seed=0, decay=0.9):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((m, n))
    if np.dtype(dtype).kind == "c":
        A = A + 1j * rng.standard_normal((m, n))
    U, _, Vh = np.linalg.svd(A, full_matrices=False)
    return ((U * decay ** np.arange(min(m, n))) @ Vh).astype(dtype)


def residual(A, U, S, Vh, s1):
    A = A.toarray() if scipy.sparse.issparse(A) else A
    forward = np.linalg.norm(A @ Vh.conj().T - U * S, axis=0)
    backward = np.linalg.norm(A.conj().T @ U - Vh.conj().T * S, axis=0)
    return max(forward.max(), backward.max()) / s1


def assert_triplets(A, U, S, Vh, expected, tol):
    """Ascending triplets of A that meet ``tol``, with the values that are expected."""
    k, dtype = len(expected), np.dtype(U.dtype)
    s1 = exact_values(A)[0]
    assert U.shape == (A.shape[0], k)
    assert Vh.shape == (k, A.shape[1])
    assert np.all(np.diff(S) >= 0)
    assert np.abs(S - np.sort(expected)).max() <= value_bound(k, tol, A.shape, dtype) * s1
    # Twice: these products round as well as those that were checked.
    level = tol + 10 * max(A.shape) * eps_of(dtype)
    assert residual(A, U, S, Vh, s1) <= level
    assert max(orthonormality(U), orthonormality(Vh.conj().T)) <= level


# ---- svds ---------------------------------------------------------------------------------


def test_the_signature_is_scipys():
    ours = inspect.signature(svds).parameters
    theirs = inspect.signature(scipy.sparse.linalg.svds).parameters
    # The older name of rng is in the signature from SciPy 1.17 or so on, and taken before too.
    assert [name for name in ours if name != "random_state"] == [
        name for name in theirs if name != "random_state"
    ]
    for name, parameter in theirs.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind)


@pytest.mark.parametrize("which", ["LM", "SM"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "kind", [np.asarray, scipy.sparse.csr_array, scipy.sparse.linalg.aslinearoperator]
)
def test_right_in_every_form(kind, shape, dtype, which):
    A = matrix(*shape, dtype)
    values = exact_values(A)
    U, S, Vh = svds(kind(A), 4, which=which, rng=0)
    assert U.dtype == Vh.dtype == A.dtype
    assert S.dtype == A.real.dtype
    expected = values[:4] if which == "LM" else values[-4:]
    assert_triplets(A, U, S, Vh, expected, default_tol(dtype))


def test_the_same_as_scipy():
    A = scipy.sparse.csr_array(matrix(120, 80))
    U, S, Vh = svds(A, rng=0)
    theirs = scipy.sparse.linalg.svds(A)
    assert len(S) == len(theirs[1]) == 6
    assert np.allclose(S, theirs[1], rtol=1e-10)
    # Neighbouring values are a tenth apart: vectors agree to ten times the residuals, doubled.
    assert np.allclose((U * S) @ Vh, (theirs[0] * theirs[1]) @ theirs[2], atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_start_is_used(shape, solver):
    A = matrix(*shape, decay=0.99)
    m, n = shape
    U, _, Vh = np.linalg.svd(A, full_matrices=False)
    good = U[:, 0] if m < n or solver == "propack" else Vh[0]
    bad = np.random.default_rng(1).standard_normal(good.shape)
    counts = []
    for v0 in (good, bad):
        op = Counting(A)
        S = svds(op, 1, v0=v0, solver=solver, rng=0, return_singular_vectors=False)
        assert np.allclose(S, np.linalg.norm(A, 2), rtol=1e-10)
        counts.append(op.products)
    assert counts[0] < 0.5 * counts[1]


class Counting(scipy.sparse.linalg.LinearOperator):
    """A matrix that counts the vectors it is multiplied with."""

    def __init__(self, A):
        super().__init__(A.dtype, A.shape)
        self.A, self.products = A, 0

    def _matmat(self, X):
        self.products += X.shape[1]
        return self.A @ X

    def _rmatmat(self, X):
        self.products += X.shape[1]
        return self.A.conj().T @ X

    def _rmatvec(self, x):  # SciPy 1.15 does not make one of _rmatmat
        return self._rmatmat(x.reshape(-1, 1))[:, 0]


@pytest.mark.parametrize(("solver", "maxiter", "most"), [("arpack", 2, 80), ("propack", 30, 60)])
def test_maxiter_limits_the_products(solver, maxiter, most):
    A = Counting(np.random.default_rng(0).standard_normal((400, 300)))
    with pytest.raises(NoConvergence, match="stopped at maxiter") as caught:
        svds(A, 3, maxiter=maxiter, solver=solver, rng=0)
    assert caught.value.result.matvecs <= most
    # What is returned is checked by products of its own, and so is the operator, by eight.
    assert A.products <= most + 2 * 3 + 8


def test_lobpcg_warns_and_returns():
    A = np.random.default_rng(0).standard_normal((400, 300))
    with pytest.warns(trsvd.ConvergenceWarning, match="stopped at maxiter") as caught:
        U, S, Vh = svds(A, 3, maxiter=3, solver="lobpcg", rng=0)
    assert caught[0].filename == __file__
    assert (U.shape, S.shape, Vh.shape) == ((400, 3), (3,), (3, 300))
    assert np.all(np.diff(S) >= 0)


@pytest.mark.parametrize("maxiter", [1, 2, 5])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("which", ["LM", "SM"])
def test_a_low_limit_is_no_wrong_answer(solver, maxiter, which, monkeypatch):
    monkeypatch.setattr(_compat_smallest, "DENSE_RANK", 10)
    A = np.random.default_rng(0).standard_normal((90, 70))
    values = exact_values(A)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", trsvd.ConvergenceWarning)
            triplets = svds(
                scipy.sparse.csr_array(A), 5, maxiter=maxiter, solver=solver, which=which, rng=0
            )
    except trsvd.ConvergenceWarning:
        assert solver == "lobpcg"
    except NoConvergence:
        assert solver != "lobpcg"
    else:
        assert maxiter == 5
        expected = values[:5] if which == "LM" else values[-5:]
        assert_triplets(A, *triplets, expected, eps_of("float64") ** 0.5)


@pytest.mark.parametrize("shape", [(400, 300), (300, 400)])
def test_no_convergence_is_what_scipy_raises(shape):
    rng = np.random.default_rng(0)
    A = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    gram = A.conj().T @ A if shape[0] > shape[1] else A @ A.conj().T
    with pytest.raises(scipy.sparse.linalg.ArpackNoConvergence) as caught:
        svds(A, 3, maxiter=1, rng=0)
    error = caught.value
    assert isinstance(error, trsvd.NotConverged)
    assert isinstance(error, RuntimeError)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert str(twin) == str(error)
        assert np.array_equal(twin.eigenvalues, error.result.S**2)
        X = twin.eigenvectors
        # Some per cent from converged; quotients of their conjugates would be 3 times less.
        assert np.allclose(np.diag(X.conj().T @ gram @ X), twin.eigenvalues, rtol=0.05)


def test_ncv_is_the_basis():
    A = np.random.default_rng(0).standard_normal((400, 300))
    with pytest.raises(NoConvergence) as caught:
        svds(A, 3, ncv=7, maxiter=1)
    assert caught.value.result.method.basis_size == 7
    assert np.allclose(
        svds(matrix(120, 80), 3, ncv=4, return_singular_vectors=False),
        np.sort(exact_values(matrix(120, 80))[:3]),
    )


def test_tol_is_squared_within_bounds():
    A = np.random.default_rng(0).standard_normal((400, 300))
    s1 = np.linalg.norm(A, 2)
    for tol, least in [(0, 2.0**-39), (1e-5, 1e-10), (1e-4, 1e-8), (0.1, 2.0**-26)]:
        U, S, Vh = svds(A, 3, tol=tol, rng=0)
        assert residual(A, U, S, Vh, s1) <= least * (1 + 1e-3)


def test_a_basis_of_any_size_that_scipy_takes():
    # Where blocks of vectors cost less, this basis would have no room for one.
    A = np.random.default_rng(0).standard_normal((600, 500))
    with pytest.raises(NoConvergence) as caught:
        svds(A, 6, ncv=8, maxiter=1)
    assert caught.value.result.method.basis_size == 8


def single_precision(A, form):
    """An operator of A's dtype that computes its products in single precision."""
    lower = A.astype(np.float32 if A.dtype.kind == "f" else np.complex64)

    def forward(x):
        return (lower @ x.astype(lower.dtype)).astype(A.dtype)

    def backward(y):
        return (lower.conj().T @ y.astype(lower.dtype)).astype(A.dtype)

    blocks = {} if form == "vectors" else {"matmat": forward, "rmatmat": backward}
    return scipy.sparse.linalg.LinearOperator(
        A.shape, matvec=forward, rmatvec=backward, dtype=A.dtype, **blocks
    )


@pytest.mark.parametrize("which", ["LM", "SM"])
@pytest.mark.parametrize("form", ["vectors", "blocks"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [*SHAPES, (900, 70)])
def test_tol_can_be_raised_to_the_noise_of_products(shape, dtype, form, which):
    A = matrix(*shape, dtype)
    values = exact_values(A)
    U, S, Vh = svds(single_precision(A, form), 3, tol=1e-2, which=which, rng=0)
    assert residual(A, U, S, Vh, 1.0) <= 1e-4
    # s_1 = 1. Values are off by rounding of the entries to single precision, and of products with
    # it: some units each, times the root of the length.
    level = 4 * max(shape) ** 0.5 * eps_of("float32")
    expected = values[:3] if which == "LM" else values[-3:]
    assert np.abs(S - np.sort(expected)).max() <= level


@pytest.mark.usefixtures("by_lanczos")
def test_tol_can_be_raised_to_the_noise_of_products_by_lanczos():
    A, values = spread(120, 80)
    op = single_precision(A.toarray(), "blocks")
    S = svds(op, 4, tol=3e-2, which="SM", rng=0, return_singular_vectors=False)
    assert np.abs(S - np.sort(values[-4:])).max() <= (3e-2) ** 2 * values[0]


def test_what_meets_tol_is_returned_at_maxiter():
    A = np.random.default_rng(0).standard_normal((400, 300))
    s1 = np.linalg.norm(A, 2)
    with pytest.raises(NoConvergence):
        svds(A, 3, maxiter=2, rng=0)
    U, S, Vh = svds(A, 3, tol=0.2, maxiter=2, rng=0)
    assert eps_of("float64") ** 0.5 < residual(A, U, S, Vh, s1) <= 0.04


def test_a_flat_spectrum_is_left_to_a_factorization():
    """As `trsvd.svds` does, if nothing is asked for that needs an iteration."""
    A = np.random.default_rng(0).standard_normal((600, 500))
    expected = trsvd.svds(A, 20)
    assert isinstance(expected.method, trsvd.Direct)
    assert np.array_equal(svds(A, 20)[1][::-1], expected.S)


def refused_name(text, name):
    return f"{name}=" in text or f"`{name}`" in text


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: svds(matrix(20, 12), 2, rng="seed"), "rng"),
        (lambda: svds(matrix(20, 12), 2, random_state=-1), "random_state"),
        (lambda: svds(matrix(20, 12), 2, v0=np.full(12, np.inf)), "v0"),
        (lambda: svds(matrix(20, 12), 2, v0=np.ones(12, complex)), "v0"),
        (lambda: randomized_svd(matrix(20, 12), 2, random_state="seed"), "random_state"),
        (lambda: randomized_svd(matrix(20, 12), 0), "n_components"),
        (lambda: randomized_svd(matrix(20, 12), 13), "n_components"),
        (lambda: randomized_svd(matrix(20, 12), True), "n_components"),
        (lambda: randomized_svd(matrix(20, 12), 2.5), "n_components"),
        (lambda: estimator(13).fit(matrix(20, 12)), "n_components"),
        (lambda: estimator(12, algorithm="arpack").fit(matrix(20, 12)), "n_components"),
        (lambda: estimator(2, tol=1.0).fit(matrix(20, 12)), "tol"),
    ],
)
def test_errors_name_the_parameter_of_the_function(call, name):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert refused_name(str(caught.value), name)


def estimator(*args, **options):
    pytest.importorskip("sklearn")
    return compat.TruncatedSVD(*args, **options)


# Parameters of `trsvd.svds` that the drop-ins do not have, and its results.
FOREIGN = ("max_matvecs", "method=", "state=", "start=", "verify", "basis", "block", "on_failure")


def assert_advice(text, *parameters):
    assert not [word for word in FOREIGN if word in text], text
    for parameter in parameters:
        assert parameter in text, text


def suggested(text, before):
    """The number that follows some words."""
    return float(text.partition(before)[2].split()[0].rstrip(","))


@pytest.mark.parametrize("which", ["LM", "SM"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_advice_about_maxiter_helps(solver, which, monkeypatch):
    monkeypatch.setattr(_compat_smallest, "DENSE_RANK", 10)
    A = scipy.sparse.csr_array(matrix(120, 80, decay=0.99))

    def call(**options):
        return svds(A, 3, solver=solver, which=which, **options)

    with pytest.warns() if solver == "lobpcg" else pytest.raises(NoConvergence) as caught:
        call(maxiter=1, rng=0)
    text = str(caught[0].message if solver == "lobpcg" else caught.value)
    assert_advice(text, "raise maxiter", "raise tol to")
    tol = suggested(text, "raise tol to ")
    U, S, Vh = call(maxiter=1, rng=0, tol=tol)
    assert residual(A, U, S, Vh, 1.0) <= tol**2 * (1 + 1e-6)
    if which == "LM":
        call(maxiter=1000, rng=0)
    else:
        assert "pass A as a dense array" in text
        svds(A.toarray(), 3, solver=solver, which="SM")


@pytest.mark.parametrize("status", [status for status in Status if not status.converged])
def test_causes_name_no_parameter_of_another_function(status):
    cause, _, advice = status.value.partition("; ")
    assert advice or status is Status.CALLBACK
    assert_advice(cause.replace("max_matvecs", "the limit"))


def test_advice_about_noise_helps():
    op = single_precision(matrix(120, 80), "blocks")
    with pytest.raises(NoConvergence, match="raise tol to") as caught:
        svds(op, 3, rng=0)
    assert_advice(str(caught.value), "tol=0 asks for")
    svds(op, 3, tol=suggested(str(caught.value), "raise tol to "), rng=0)


@pytest.mark.parametrize("wanted", [True, False, "u", "vh"])
@pytest.mark.parametrize("which", ["LM", "SM"])
def test_return_forms(wanted, which):
    A = matrix(20, 12)
    found = svds(A, 3, which=which, return_singular_vectors=wanted)
    if wanted is False:
        assert found.shape == (3,)
        return
    U, S, Vh = found
    assert S.shape == (3,)
    assert (U is not None) == (wanted in (True, "u"))
    assert (Vh is not None) == (wanted in (True, "vh"))


@pytest.mark.parametrize("k", [5, 9])
def test_copies_of_a_cycle_are_found(k):
    """All singular values but two are double; the largest ones are 0.1 % apart."""
    n = 300
    ones = np.ones(n - 1)
    A = scipy.sparse.diags_array([2 * np.ones(n), -ones, -ones], offsets=[0, 1, -1]).tolil()
    A[0, n - 1] = A[n - 1, 0] = -1
    exact = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(n) / n))[::-1]
    S = svds(A.tocsr(), k, rng=0, return_singular_vectors=False)
    np.testing.assert_allclose(S[::-1], exact[:k], rtol=1e-10)


def test_seeds():
    A = matrix(120, 80, decay=0.99)
    state = np.random.RandomState(5)
    twin = np.random.RandomState(5)
    first = svds(A, 2, random_state=state)
    assert state.standard_normal() != twin.standard_normal(), "it was drawn from"
    for again in (
        svds(A, 2, random_state=np.random.RandomState(5)),
        svds(A, 2, None, 0, "LM", None, None, True, "arpack", np.random.RandomState(5)),
    ):
        assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    one, other = svds(A, 2, rng=1), svds(A, 2, random_state=1)
    assert all(np.array_equal(x, y) for x, y in zip(one, other, strict=True))
    with pytest.raises(TypeError, match="both given"):
        svds(A, 2, rng=1, random_state=1)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"options": {"hmmm": 1}}, ValueError, "no solver has options"),
        ({"solver": "ekki"}, ValueError, "solver must be one of"),
        ({"k": 0}, ValueError, "`k` must be"),
        ({"k": 2.5}, ValueError, "`k` must be"),
        ({"ncv": 2}, ValueError, "`ncv` must be"),
        ({"tol": -1}, ValueError, "`tol` must be"),
        ({"which": "SA"}, ValueError, "`which` must be"),
        ({"maxiter": 0}, ValueError, "`maxiter` must be"),
        ({"v0": np.ones(80, int)}, ValueError, "`v0` must be of floating"),
        ({"v0": np.ones(79)}, ValueError, "`v0` must have shape"),
        ({"return_singular_vectors": "both"}, ValueError, "must be in"),
        ({"v0": np.ones(80, complex)}, TypeError, "complex"),
        ({"v0": np.full(80, np.nan)}, ValueError, "NaN"),
    ],
)
def test_what_cannot_be_honoured_raises(options, error, match):
    with pytest.raises(error, match=match):
        svds(**{"A": matrix(120, 80), "k": 2, **options})


class Untyped:
    """An operator that does not say its dtype; SciPy finds it out by a product."""

    shape = (120, 80)

    def __init__(self):
        self.matvec, self.rmatvec = (
            (lambda x: matrix(120, 80) @ x),
            (lambda y: matrix(120, 80).T @ y),
        )


class Stack:
    """An operator with a dimension more, as SciPy 1.18 has them."""

    shape, dtype = (2, 9, 9), np.dtype("float64")

    def matvec(self, x):
        raise AssertionError


class OurOwn:
    """What `trsvd.svds` takes, and SciPy does not."""

    shape, dtype = (120, 80), np.dtype("float64")

    def matmat(self, X):
        return matrix(120, 80) @ X

    def rmatmat(self, X):
        return matrix(120, 80).T @ X


@pytest.mark.parametrize(
    "A",
    [
        Untyped(),
        OurOwn(),
        trsvd.operators.as_operator(matrix(120, 80)),
        np.asmatrix(matrix(120, 80)),
        scipy.sparse.lil_matrix(matrix(120, 80)),
    ],
    ids=["untyped", "ours", "operator", "matrix", "lil"],
)
def test_whatever_is_a_matrix(A):
    U, S, Vh = svds(A, 3, rng=0)
    expected = exact_values(matrix(120, 80))[:3]
    assert_triplets(matrix(120, 80), U, S, Vh, expected, default_tol("float64"))


@pytest.mark.parametrize(
    ("A", "error", "match"),
    [
        (np.zeros((9, 9, 9)), ValueError, "Only 2-D .* ndim <= 2"),
        (Stack(), ValueError, "Only 2-D .* ndim <= 2"),
        (np.array([["a", "b"], ["c", "d"]], object), ValueError, "numeric data type"),
        (np.zeros((9, 9), bool), ValueError, "numeric data type"),
        (scipy.sparse.csr_array(np.zeros((9, 9), bool)), ValueError, "numeric data type"),
        (np.full((9, 9), np.nan), ValueError, "NaN or inf"),
        (np.zeros((0, 9)), ValueError, "must not be empty"),
        (np.ones(9), ValueError, "`k` must be"),
        (np.float64(3), ValueError, "`k` must be"),
        ([[1.0, 2.0], [3.0, 4.0]], TypeError, "type not understood"),
        (None, TypeError, "type not understood"),
    ],
)
def test_matrices_that_are_refused(A, error, match):
    with pytest.raises(error, match=match):
        svds(A, 1)


def test_any_library(backend):
    A = matrix(60, 90)
    U, S, Vh = svds(backend.asarray(A), 3)
    assert all(backend.owns(part) for part in (U, S, Vh))
    parts = [backend.to_numpy(part) for part in (U, S, Vh)]
    assert_triplets(A, *parts, exact_values(A)[:3], default_tol("float64"))
    S = svds(backend.asarray(A), 3, which="SM", return_singular_vectors=False)
    assert np.allclose(backend.to_numpy(S), np.sort(exact_values(A)[-3:]), atol=1e-12)


# ---- the smallest by Lanczos ----------------------------------------------------------------


@pytest.fixture
def by_lanczos(monkeypatch):
    monkeypatch.setattr(_compat_smallest, "DENSE_RANK", 10)


def spread(m, n, dtype="float64", scale=1.0):
    """A sparse matrix whose singular values, but for five small ones, lie between 1 and 2."""
    rng = np.random.default_rng(0)
    S = np.sort(np.append(np.linspace(1, 2, min(m, n) - 5), [0.1, 0.2, 0.3, 0.4, 0.5]))[::-1]
    A = matrix(m, n, dtype)
    U, _, Vh = np.linalg.svd(A, full_matrices=False)
    A = ((U * S) @ Vh * scale).astype(dtype)
    return scipy.sparse.csr_array(A[rng.permutation(m)]), S * scale


@pytest.mark.usefixtures("by_lanczos")
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("given", ["nothing", "v0"])
def test_smallest_by_lanczos(shape, dtype, given):
    A, values = spread(*shape, dtype)
    v0 = None if given == "nothing" else np.ones(min(shape), dtype)
    op = Counting(A)
    U, S, Vh = svds(op, 4, which="SM", v0=v0, rng=0)
    assert op.products > min(shape), "it was not made dense"
    assert U.dtype == A.dtype
    assert_triplets(A, U, S, Vh, values[-4:], eps_of(dtype) ** 0.5)


@pytest.mark.usefixtures("by_lanczos")
@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_smallest_of_any_scale(scale):
    A, values = spread(120, 80, scale=scale)
    S = svds(A, 4, which="SM", rng=0, return_singular_vectors=False)
    assert np.allclose(S / scale, np.sort(values[-4:] / scale), atol=1e-7)


@pytest.mark.usefixtures("by_lanczos")
def test_smallest_that_squares_lose():
    # Left vectors of zero have to be in the null space of A^H, and Lanczos on A^H A has none.
    A = np.eye(90, 70)
    A[0, 0] = A[1, 1] = 0.0
    A[0, 1] = 3.0
    with pytest.raises(NoConvergence, match="smallest singular values"):
        svds(scipy.sparse.csr_array(A), 1, which="SM", maxiter=40, rng=0)


@pytest.mark.usefixtures("by_lanczos")
def test_smallest_of_equal_ones():
    A = np.linalg.qr(np.random.default_rng(0).standard_normal((90, 70)))[0]
    U, S, Vh = svds(scipy.sparse.csr_array(A), 2, which="SM", rng=0)
    assert_triplets(A, U, S, Vh, np.ones(2), eps_of("float64") ** 0.5)


@pytest.mark.usefixtures("by_lanczos")
def test_smallest_of_zero():
    U, S, Vh = svds(scipy.sparse.csr_array((90, 70)), 2, which="SM", rng=0)
    assert np.all(S == 0)
    assert max(orthonormality(U), orthonormality(Vh.T)) <= 1e-12


# ---- randomized_svd ---------------------------------------------------------------------------


def test_the_signature_is_scikit_learns():
    extmath = pytest.importorskip("sklearn.utils.extmath")
    ours = dict(inspect.signature(randomized_svd).parameters)
    assert ours.pop("tol").kind == inspect.Parameter.KEYWORD_ONLY
    theirs = inspect.signature(extmath.randomized_svd).parameters
    for name, parameter in theirs.items():
        assert ours[name].default == parameter.default, name
    assert list(ours) == list(theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("shape", SHAPES)
def test_randomized_svd_iterates_until_tol(shape, dtype):
    A = matrix(*shape, dtype, decay=0.98)
    for tol in (1e-3, 1e-5):
        u, s, vh = randomized_svd(A, 5, random_state=0, tol=tol)
        assert u.dtype == A.dtype
        assert residual(A, u, s, vh, 1.0) <= tol + 10 * max(shape) * eps_of(dtype)
        assert np.all(np.diff(s) <= 0)


@pytest.mark.parametrize("form", ["lil", "dok"])
def test_slow_formats_are_named(form):
    A = scipy.sparse.csr_array(matrix(20, 12)).asformat(form)
    with pytest.warns(scipy.sparse.SparseEfficiencyWarning, match="CSR") as caught:
        s = randomized_svd(A, 2, random_state=0)[1]
    assert caught[0].filename == __file__
    assert np.allclose(s, exact_values(matrix(20, 12))[:2], atol=1e-5)


@pytest.mark.parametrize("n_iter", [0, 1, 3])
def test_randomized_svd_makes_the_iterations_it_is_told(n_iter):
    A = Counting(np.random.default_rng(0).standard_normal((200, 150)))
    with pytest.warns(trsvd.ConvergenceWarning, match="n_iter='auto' to iterate") as caught:
        randomized_svd(A, 5, n_iter=n_iter, n_oversamples=7, random_state=0)
    assert caught[0].filename == __file__
    made = 2 * (5 + 7) * (n_iter + 1)
    assert made <= A.products <= made + 2 * 5 + 8


FLAT = np.random.default_rng(1).standard_normal((700, 600))


@pytest.mark.parametrize(
    "A",
    [
        matrix(120, 80),
        FLAT,
        FLAT.T.astype(np.float32),
        scipy.sparse.csr_array(FLAT * (np.abs(FLAT) > 1.5)),
        pytest.param(Counting(FLAT), id="operator"),
    ],
)
@pytest.mark.parametrize("given", ["function", "estimator"])
def test_auto_is_the_librarys_own_choice(A, given):
    """The same values to rounding: other methods leave them off by 1e-6 at this tolerance."""
    if given == "function":
        s = randomized_svd(A, 5, random_state=np.random.RandomState(3))[1]
    elif isinstance(A, Counting):
        pytest.skip("scikit-learn takes no operators")
    else:
        s = estimator(5, random_state=3).fit(A).singular_values_
    rng = np.random.Generator(np.random.RandomState(3)._bit_generator)
    ours = trsvd.svds(A, 5, tol=1e-3, rng=rng)
    assert np.abs(s - ours.S).max() <= 100 * eps_of(s.dtype) * ours.S[0]


def test_auto_makes_the_products_of_the_library():
    counts = []
    for call in (
        lambda op: randomized_svd(op, 5, random_state=np.random.default_rng(0)),
        lambda op: trsvd.svds(op, 5, tol=1e-3, rng=np.random.default_rng(0)),
    ):
        op = Counting(FLAT)
        call(op)
        counts.append(op.products)
    assert counts[0] == counts[1]


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return caught


@pytest.mark.parametrize("given", ["function", "estimator"])
def test_advice_about_power_iterations_helps(given):
    def call(**options):
        if given == "function":
            randomized_svd(FLAT, 3, random_state=0, **options)
        else:
            estimator(3, random_state=0, **options).fit(FLAT)

    (caught,) = warnings_of(lambda: call(n_iter=2))
    text = str(caught.message)
    assert_advice(text, "n_iter=2", "n_iter='auto'", "raise tol above")
    assert caught.filename == __file__
    call(n_iter="auto")
    call(n_iter=2, tol=1.01 * suggested(text, "raise tol above "))


@pytest.mark.parametrize("given", ["function", "estimator"])
def test_advice_about_rounding_helps(given):
    def call(tol):
        if given == "function":
            randomized_svd(matrix(120, 80), 3, random_state=0, tol=tol)
        else:
            estimator(3, random_state=0, tol=tol).fit(matrix(120, 80))

    (caught,) = warnings_of(lambda: call(1e-18))
    assert_advice(str(caught.message), "raise tol above")
    # Another run rounds otherwise.
    call(10 * suggested(str(caught.message), "raise tol above "))


def test_randomized_svd_takes_lists_and_whole_numbers():
    u, s, vh = randomized_svd([[1, 2, 3], [4, 5, 6]], 1, random_state=0)
    assert u.dtype == np.float64
    assert np.allclose(u * s @ vh, [[1.574, 2.080, 2.586], [3.759, 4.966, 6.174]], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_iter": "many"}, ValueError, "n_iter"),
        ({"n_iter": -1}, ValueError, "n_iter"),
        ({"n_iter": 1.5}, TypeError, "n_iter"),
        ({"n_oversamples": -1}, ValueError, "n_oversamples"),
        ({"n_oversamples": "10"}, TypeError, "n_oversamples"),
        ({"power_iteration_normalizer": "SVD"}, ValueError, "power_iteration_normalizer"),
        ({"transpose": "yes"}, ValueError, "transpose"),
        ({"flip_sign": "yes"}, ValueError, "flip_sign"),
        ({"svd_lapack_driver": "gesxx"}, ValueError, "svd_lapack_driver"),
        ({"n_components": 0}, ValueError, "n_components=0"),
        ({"n_components": 13}, ValueError, "n_components=13"),
        ({"n_iter": True}, TypeError, "n_iter"),
        ({"tol": -1.0}, ValueError, "tol"),
        ({"M": np.full((3, 3), np.nan)}, ValueError, "NaN"),
        ({"M": np.zeros(3)}, ValueError, "dimensions"),
    ],
)
def test_randomized_svd_refuses(options, error, match):
    with pytest.raises(error, match=match):
        randomized_svd(**{"M": matrix(20, 12), "n_components": 2, **options})


# ---- TruncatedSVD -------------------------------------------------------------------------------


def test_the_estimator_is_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    estimator = compat.TruncatedSVD(3, algorithm="arpack", random_state=0)
    assert isinstance(estimator, decomposition.TruncatedSVD)
    A = matrix(60, 40)
    reduced = estimator.fit_transform(A)
    theirs = decomposition.TruncatedSVD(3, algorithm="arpack", random_state=0)
    assert np.allclose(reduced, theirs.fit_transform(A), atol=1e-9)
    assert np.allclose(estimator.components_, theirs.components_, atol=1e-9)
    assert np.allclose(estimator.explained_variance_ratio_, theirs.explained_variance_ratio_)
    assert list(estimator.get_feature_names_out())[0] == "truncatedsvd0"


@pytest.mark.parametrize("options", ["", "1, algorithm='arpack'", "n_iter=7"])
def test_the_estimator_passes_scikit_learns_checks(options):
    pytest.importorskip("sklearn")
    # A process of its own, as SciPy reads the variable when it is imported.
    code = (
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from trsvd.compat import TruncatedSVD\n"
        f"check_estimator(TruncatedSVD({options}), expected_failed_checks={{}})"
    )
    environment = {
        **os.environ,
        "SCIPY_ARRAY_API": "1",
        "PYTHONPATH": str(Path(trsvd.__file__).parents[1]),
    }
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_signature_is_that_of_scikit_learns_estimator():
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = dict(inspect.signature(decomposition.TruncatedSVD).parameters)
    ours = dict(inspect.signature(compat.TruncatedSVD).parameters)
    assert list(ours) == list(theirs)
    assert ours.pop("n_iter").default == "auto"  # theirs makes 5 power iterations
    assert {name: p.default for name, p in ours.items()} == {
        name: p.default for name, p in theirs.items() if name != "n_iter"
    }


@pytest.mark.parametrize("algorithm", ["randomized", "arpack"])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array, scipy.sparse.csc_array])
@pytest.mark.parametrize("decay", [0.8, 0.97, 1.0])
def test_the_estimator_fits_ordinary_data_without_a_word(decay, kind, algorithm):
    X = kind(matrix(300, 200, decay=decay) if decay < 1 else FLAT)
    estimator(4, algorithm=algorithm, random_state=0).fit(X)  # warnings are errors


@pytest.mark.parametrize("tol", [0.0, 1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize("algorithm", ["randomized", "arpack"])
def test_the_estimator_heeds_tol(algorithm, tol):
    fitted = estimator(4, algorithm=algorithm, tol=tol, random_state=0).fit(FLAT)
    V, S = fitted.components_.T, fitted.singular_values_
    off = np.linalg.norm(FLAT.T @ (FLAT @ V) - V * S**2, axis=0).max() / S[0] ** 2
    wanted = {"randomized": tol or 1e-3, "arpack": max(tol**2, eps_of("float64") ** 0.75)}
    # A^H A v - s^2 v = A^H (A v - s u) + s (A^H u - s v), each with a residual of at most tol s_1.
    assert off <= 2 * wanted[algorithm] + 10 * 700 * eps_of("float64")


def in_a_pipeline(X):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    make_pipeline(FunctionTransformer(), estimator(3, n_iter=1, random_state=0)).fit(X)


@pytest.mark.parametrize(
    "call",
    [
        lambda X: estimator(3, n_iter=1, random_state=0).fit(X),
        lambda X: estimator(3, n_iter=1, random_state=0).fit_transform(X),
        lambda X: in_a_pipeline(X),
    ],
    ids=["fit", "fit_transform", "pipeline"],
)
def test_the_estimator_warns_at_the_line_that_called(call):
    pytest.importorskip("sklearn")
    (caught,) = warnings_of(lambda: call(FLAT))
    assert issubclass(caught.category, trsvd.ConvergenceWarning)
    assert caught.filename == __file__


def test_the_estimator_is_cloned_pickled_and_set():
    base = pytest.importorskip("sklearn.base")
    first = estimator(3, n_iter=4, tol=0.5, random_state=0).set_params(n_iter="auto", tol=1e-6)
    fitted = first.fit(FLAT)
    twin = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(twin.transform(FLAT), fitted.transform(FLAT))
    again = base.clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert np.allclose(again.fit(FLAT).singular_values_, fitted.singular_values_, rtol=1e-10)


def test_the_estimator_advises_in_its_own_terms(monkeypatch):
    from trsvd.compat.arguments import Asked

    result = trsvd.svds(FLAT, 3, tol=1e-2, rng=0)
    result = dataclasses.replace(result, status=trsvd.Status.STAGNATED, converged=False)

    def fails(self, op, **options):
        raise trsvd.NotConverged("stagnated", result)

    monkeypatch.setattr(Asked, "triplets", fails)
    with pytest.raises(NoConvergence, match="raise tol to") as caught:
        estimator(3, algorithm="arpack", random_state=0).fit(FLAT)
    assert_advice(str(caught.value))
    assert "maxiter" not in str(caught.value)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "trsvd.compat.estimators", raising=False)
    with pytest.raises(ImportError, match="sklearn"):
        _ = compat.TruncatedSVD
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = compat.nothing


def test_the_variance_of_sparse_data():
    decomposition = pytest.importorskip("sklearn.decomposition")
    X = scipy.sparse.random_array((60, 40), density=0.2, rng=np.random.default_rng(0)).tocsr()
    ours = compat.TruncatedSVD(3, algorithm="arpack", random_state=0).fit(X)
    theirs = decomposition.TruncatedSVD(3, algorithm="arpack", random_state=0).fit(X)
    dense = compat.TruncatedSVD(3, algorithm="arpack", random_state=0).fit(X.toarray())
    for other in (theirs, dense):
        np.testing.assert_allclose(
            ours.explained_variance_ratio_, other.explained_variance_ratio_, rtol=1e-8
        )
