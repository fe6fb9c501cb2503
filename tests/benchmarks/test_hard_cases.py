"""Cases x methods x dtypes x libraries: every outcome is right, or says that it is not.

The cases and the judgement are those of the reliability suite. Here it is stated beside what must
be right, not only honest; silently wrong fails the test, whatever the case. Then faults: operators
that raise, lie, or change.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks import (
    ITERATIVE,
    METHODS,
    default_tol,
    eps_of,
    exact_values,
    value_bound,
)

from reliability.cases import CASES, Truth
from reliability.competitors import CAPS, oracles, own
from reliability.judge import Outcome, judge_result
from reliability.matrices import geometric, spectrum
from trsvd import AdjointError, ConvergenceWarning, svds

# What iterates without a Krylov space needs thousands of products where values hardly decay.
SLOW = {"rsvd", "power"}
OWN = {contestant.name: contestant for contestant in own()}
ORACLES = {contestant.name: contestant for contestant in oracles()}

# Cases in which a method may say that it has no answer, and why.
MAY_SAY = {
    # Ten of its values are 1 to within eps; a Krylov space from one vector finds the copies one
    # after the other, and one that lies within eta of s_k may stay unseen (`Completeness`).
    "Toeplitz with a jump": {"trlan", "trlan-block", "trlan-one-sided", "trlan-two-sided"},
    # Thirty values within 3e-4, of which five are wanted, in a basis for thirty: restarts of a
    # block lose more than they gain.
    "clustered at the top": {"trlan-block"},
}


def silent(outcome: Outcome) -> bool:
    return outcome in {Outcome.WRONG, Outcome.NAN}


def outcome(A: Any, k: int, truth: Truth, to_numpy: Any = np.asarray, **arguments: Any) -> str:
    """``"right"``, or how the result says that it is not; fails where it is silently wrong."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        result = svds(A, k, **arguments)
    assert all(issubclass(entry.category, ConvergenceWarning) for entry in record), record[0]
    assert len(record) == (not result.converged), "a warning exactly where it did not converge"
    finding = judge_result(truth, result, to_numpy, k, arguments.get("tol"))
    assert not silent(finding.outcome), finding.reason
    return "right" if finding.outcome is Outcome.RIGHT else finding.reason


@pytest.mark.parametrize("method", [name for name in OWN if "(" not in name])
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, case in CASES.items() for dtype in case.dtypes]
)
def test_right_or_says_that_it_is_not(name, dtype, method):
    finding = OWN[method].answer(CASES[name], dtype)
    assert not silent(finding.outcome), finding.reason
    # Lanczos on the Gram operator says itself that it does not resolve values below
    # sqrt(eps) s_1; what only iterates a block may run out of products.
    if method not in {"trlan-gram", *CAPS, *MAY_SAY.get(name, ())}:
        assert finding.outcome is Outcome.RIGHT, finding.reason


@pytest.mark.parametrize("oracle", ORACLES)
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name, case in CASES.items() for dtype in case.dtypes]
)
def test_updates_of_oracles_have_the_gap_that_they_report(name, dtype, oracle):
    finding = ORACLES[oracle].answer(CASES[name], dtype)
    if finding is None:
        pytest.skip("an oracle of all pairs takes no start")
    assert not silent(finding.outcome), finding.reason
    assert finding.outcome is Outcome.RIGHT, finding.reason


@pytest.mark.parametrize("method", ["trlan", "trlan-block"])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "name",
    [
        "tenfold, then near",
        "every value twice",
        "gaps of 1e-10",
        "rank 3, tall",
        "8 copies at 4",
        "equal cycles",
        "hypercube, k = 25",
    ],
)
def test_no_seed_makes_it_wrong(name, seed, method):
    finding = OWN[method].answer(CASES[name], "float64", seed)
    assert finding.outcome is Outcome.RIGHT, finding.reason


@pytest.mark.parametrize(
    "name",
    [
        "rank 0",
        "rank 3",
        "rank 3, wide",
        "identity",
        "tenfold",
        "15 decades",
        "zero rows and columns",
        "gaps of 1e-10",
        "scale 1e-200",
        "scale 1e200",
        "1e-300 beside 1e300",
        "rows from 1e-300 to 1e300",
    ],
)
@pytest.mark.parametrize("method", [None, "trlan", "trlan-block", "krylov", "direct-gram"])
def test_hard_cases_on_every_backend(backend, name, method):
    case = CASES[name]
    A, truth = case.of("float64")
    said = outcome(
        backend.asarray(A),
        case.k,
        truth,
        backend.to_numpy,
        method=METHODS.get(method),
        rng=0,
        max_matvecs=CAPS.get(method),
    )
    if method not in CAPS:
        assert said == "right"


@pytest.mark.parametrize("method", [None, "trlan", "rsvd", "direct"])
def test_a_value_that_its_dtype_cannot_hold(method):
    """Every entry is a float32, s_1 = 60 * 3e38 is none."""
    A = np.full((60, 60), 3e38, np.float32)
    with pytest.raises(ValueError, match="range of float32"):
        svds(A, 2, method=method, rng=0)
    half = np.full((60, 60), 6e4, np.float16)
    with pytest.raises(ValueError, match="range of float16"):
        svds(half, 2, method=method, rng=0)


# ---- starts that lead astray --------------------


def aligned() -> np.ndarray:
    """A matrix whose singular vectors are coordinates: products leave no rounding elsewhere."""
    return np.eye(60, 50) * np.array(geometric(1, 0.8, 50))


STARTS = {
    "orthogonal to the answer": np.eye(50)[:, 20:26],
    "an invariant subspace of the middle": np.eye(50)[:, 10:14],
    "one vector of the middle": np.eye(50)[:, 10],
    "part of the answer": np.eye(50)[:, [0, 2, 9]],
    "the last": np.eye(50)[:, 49:],
    "all but the first": np.eye(50)[:, 1:],
    "zeros": np.zeros((50, 3)),
    "one vector thrice": np.eye(50)[:, [10, 10, 10]],
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("kind", STARTS)
def test_starts_that_lead_astray(kind, method, transposed):
    A = aligned()
    start = STARTS[kind]
    if transposed:
        A = A.T.copy()
        start = np.concatenate([start, np.zeros((10, *start.shape[1:]))])
    said = outcome(A, 4, Truth.of(A), method=METHODS[method], rng=0, start=start, max_matvecs=3000)
    assert said == "right"


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_start_in_a_singular_subspace_of_a_dense_matrix(method):
    A = CASES["tenfold, then decay"].A
    V = np.linalg.svd(A)[2].T
    for columns in (slice(0, 3), slice(12, 17), slice(60, 70)):
        said = outcome(
            A,
            5,
            Truth.of(A),
            method=METHODS[method],
            rng=0,
            start=V[:, columns],
            max_matvecs=3000,
        )
        assert said == "right" or method in SLOW


# ---- faults --------------------


class Faulty:
    """An operator with one fault; `fault` gets the number of the product and what is right."""

    def __init__(self, A: np.ndarray, matmat: Any = None, rmatmat: Any = None) -> None:
        self.A, self.shape, self.dtype = A, A.shape, A.dtype
        self.fault, self.fault_adjoint = matmat, rmatmat
        self.products = 0

    def matmat(self, X: np.ndarray) -> np.ndarray:
        self.products += 1
        Y = self.A @ X
        return Y if self.fault is None else self.fault(self.products - 1, Y, X)

    def rmatmat(self, X: np.ndarray) -> np.ndarray:
        self.products += 1
        Y = self.A.conj().T @ X
        return Y if self.fault_adjoint is None else self.fault_adjoint(self.products - 1, Y, X)


A = spectrum(geometric(1, 0.9, 70), 80, 70)()
S = exact_values(A)


def at(j: int, value: float) -> Callable[[int, np.ndarray, np.ndarray], np.ndarray]:
    """One entry of the j-th product (and of later ones) is not what it should be."""

    def fault(number: int, Y: np.ndarray, X: np.ndarray) -> np.ndarray:
        Y = Y.copy()
        if number >= j:
            Y[3, 0] = value
        return Y

    return fault


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_not_finite_in_a_product(method, value):
    """In any product, the checks' included: an error that says so, never a result."""
    clean = Faulty(A)
    svds(clean, 3, method=METHODS[method], rng=0)
    total = clean.products
    steps = {0, 1, 2, 3, 7, total // 2, total - 2, total - 1}
    for j in sorted(j for j in steps if 0 <= j < total):
        for faulty in (Faulty(A, at(j, value)), Faulty(A, None, at(j, value))):
            try:
                with np.errstate(invalid="ignore"):  # inf - inf is NaN, which is found
                    result = svds(faulty, 3, method=METHODS[method], rng=0, max_matvecs=1000)
            except ValueError as error:
                assert "NaN" in str(error) or "finite" in str(error)  # noqa: PT017
            else:
                # The fault is in the last product of one kind, and the last was of the other.
                assert j >= total - 2
                assert np.abs(result.S - S[:3]).max() <= value_bound(
                    3, default_tol("float64"), A.shape, A.dtype
                )


def test_not_finite_on_a_backend(backend):
    class Operator:
        shape, dtype, xp, device = A.shape, backend.dtype("float64"), backend.xp, backend.device
        M = backend.asarray(A)
        products = 0

        def matmat(self, X):
            self.products += 1
            return self.M @ X * (math.nan if self.products > 3 else 1.0)

        def rmatmat(self, X):
            return self.M.T @ X

    for method in ("trlan", "rsvd", "krylov", "power"):
        with pytest.raises(ValueError, match="NaN|finite"):
            svds(Operator(), 3, method=method, rng=0, max_matvecs=400)


WRONG_ADJOINTS = {
    "zero": lambda j, Y, X: 0 * Y,
    "sign": lambda j, Y, X: -Y,
    "scaled": lambda j, Y, X: 1.01 * Y,
    "another matrix": lambda j, Y, X: Y + 0.1 * np.flip(A).T @ X,
    "shifted": lambda j, Y, X: np.roll(Y, 1, axis=0),
    "one entry": lambda j, Y, X: Y + 0.1 * np.eye(70, 80)[:, ::-1] @ X,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", WRONG_ADJOINTS)
def test_a_wrong_adjoint(kind, method):
    with pytest.raises(AdjointError, match="adjoint"):
        svds(Faulty(A, None, WRONG_ADJOINTS[kind]), 3, method=METHODS[method], rng=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_transpose_instead_of_the_adjoint(method):
    rng = np.random.default_rng(0)
    C = rng.standard_normal((60, 50)) + 1j * rng.standard_normal((60, 50))
    operator = Faulty(C, None, lambda j, Y, X: C.T @ X)
    with pytest.raises(AdjointError, match="conj"):
        svds(operator, 3, method=METHODS[method], rng=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-7, 1e-10])
def test_a_slightly_wrong_adjoint(size, method):
    """Too little for the check of one inner product perhaps, but not for the residuals."""
    E = size * np.random.default_rng(5).standard_normal((70, 80))
    operator = Faulty(A, None, lambda j, Y, X: Y + E @ X)
    refused_or_unconverged(operator, METHODS[method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-6, 1e-9])
def test_a_nondeterministic_operator(noise, method):
    rng = np.random.default_rng(5)

    def fault(j, Y, X):
        return Y + noise * rng.standard_normal(Y.shape)

    refused_or_unconverged(Faulty(A, fault, fault), METHODS[method])


@pytest.mark.parametrize("method", METHODS)
def test_an_operator_that_changes_in_the_middle(method):
    clean = Faulty(A)
    svds(clean, 3, method=METHODS[method], rng=0)
    for j in (3, 4, clean.products // 2, clean.products - 1):
        fault = lambda number, Y, X, j=j: Y * (1.0 if number < j else 1.1)  # noqa: E731
        with may_warn():
            try:
                result = svds(
                    Faulty(A, fault, fault), 3, method=METHODS[method], rng=0, max_matvecs=2000
                )
            except AdjointError:
                continue
        # Iterations that keep nothing but a block forget what was before: they may be right for
        # the operator as it is in the end.
        if result.converged:
            bound = value_bound(3, default_tol("float64"), A.shape, A.dtype)
            assert np.abs(result.S / 1.1 - S[:3]).max() <= bound


@pytest.mark.parametrize("method", METHODS)
def test_products_in_half_of_the_precision_that_is_claimed(method):
    fault = lambda j, Y, X: Y.astype(np.float32)  # noqa: E731
    refused_or_unconverged(Faulty(A, fault, fault), METHODS[method])


@contextlib.contextmanager
def may_warn() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def refused_or_unconverged(operator: Faulty, method: Any) -> None:
    with may_warn():
        try:
            result = svds(operator, 3, method=method, rng=0, max_matvecs=2000)
        except AdjointError:
            return
    assert not result.converged


class Boom(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "error", [Boom, KeyboardInterrupt, MemoryError, ValueError, NotImplementedError]
)
def test_an_operator_that_raises(error, method):
    words = ("mine",)
    clean = Faulty(A)
    svds(clean, 3, method=METHODS[method], rng=0)
    for j in range(min(8, clean.products)):

        def fault(number, Y, X, j=j):
            if number >= j:
                raise error(*words)
            return Y

        # What it raised is what comes out, but for "I do not have this product".
        expected = TypeError if error is NotImplementedError else error
        operator = Faulty(A, fault, fault)
        with pytest.raises(expected) as caught:
            svds(operator, 3, method=METHODS[method], rng=0)
        cause = caught.value.__cause__ if error is NotImplementedError else caught.value
        assert str(cause) == "mine"


BAD_SHAPES = {
    "flat": lambda j, Y, X: Y[:, 0],
    "transposed": lambda j, Y, X: Y.T,
    "too many rows": lambda j, Y, X: np.vstack([Y, Y]),
    "one column more": lambda j, Y, X: np.hstack([Y, Y[:, :1]]),
    "a list": lambda j, Y, X: Y.tolist(),
    "None": lambda j, Y, X: None,
    "a number": lambda j, Y, X: 1.0,
}


@pytest.mark.parametrize("kind", BAD_SHAPES)
def test_a_product_of_the_wrong_shape(kind):
    fault = BAD_SHAPES[kind]
    with pytest.raises((TypeError, ValueError), match=r"^matmat of"):
        svds(Faulty(A, fault), 3, method="trlan")
    with pytest.raises((TypeError, ValueError), match=r"^rmatmat of"):
        svds(Faulty(A, None, fault), 3, method="trlan")


def test_complex_products_of_an_operator_that_claims_to_be_real():
    with pytest.raises(TypeError, match="complex"):
        svds(Faulty(A, lambda j, Y, X: Y * 1j), 3, method="trlan")


# ---- operators that are odd but right --------------------


class ReusesItsBuffer(Faulty):
    """Returns the same array every time, overwritten: common where memory is short."""

    def __init__(self, A, buffers):
        super().__init__(A)
        self.count, self.buffers = buffers, {}

    def _into(self, which, M, X):
        key = which % self.count, X.shape[1]
        out = self.buffers.setdefault(key, np.empty((70, X.shape[1])))
        out[...] = M @ X
        return out

    def matmat(self, X):
        return self._into(0, self.A, X)

    def rmatmat(self, X):
        return self._into(1, self.A.T, X)


class ReturnsItsArgument:
    shape, dtype = (70, 70), np.dtype(float)

    def matmat(self, X):
        return X

    rmatmat = matmat


class ReadOnly(Faulty):
    def matmat(self, X):
        Y = super().matmat(X)
        Y.flags.writeable = False
        return Y

    def rmatmat(self, X):
        Y = super().rmatmat(X)
        Y.flags.writeable = False
        return Y


class FortranOrdered(Faulty):
    def matmat(self, X):
        return np.asfortranarray(super().matmat(X))


ODD = {
    "reuses its buffers": lambda: ReusesItsBuffer(A[:70], 2),
    "reuses one buffer": lambda: ReusesItsBuffer(A[:70], 1),
    "read-only": lambda: ReadOnly(A[:70]),
    "Fortran order": lambda: FortranOrdered(A[:70]),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_operator_that_returns_its_argument(method):
    assert (
        outcome(ReturnsItsArgument(), 4, Truth.of(np.eye(70)), method=METHODS[method], rng=0)
        == "right"
    )


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("method", METHODS)
def test_odd_operators(method, kind):
    assert outcome(ODD[kind](), 4, Truth.of(A[:70]), method=METHODS[method], rng=0) == "right"


@pytest.mark.parametrize("method", METHODS)
def test_an_operator_that_writes_into_its_argument(method):
    """It must not; if it does, the answer is right all the same or says that it is not."""

    def scribble(j, Y, X):
        if X.flags.writeable:
            X[...] = 1.0
        return Y

    with may_warn():
        try:
            result = svds(
                Faulty(A, scribble, scribble), 3, method=METHODS[method], rng=0, max_matvecs=2000
            )
        except (AdjointError, ValueError):
            return
    if result.converged:
        assert np.abs(result.S - S[:3]).max() <= value_bound(
            3, default_tol("float64"), A.shape, A.dtype
        )


def test_an_operator_of_integers_and_of_half_precision():
    B = np.random.default_rng(0).integers(-3, 4, (60, 50))
    operator = Faulty(B)
    operator.matmat = lambda X: B @ X
    operator.rmatmat = lambda X: B.T @ X
    assert outcome(operator, 3, Truth.of(B), method="trlan", rng=0) == "right"
    H = B.astype(np.float16)
    result = svds(Faulty(H), 3, method="trlan", rng=0)
    assert result.U.dtype == np.float16
    assert np.allclose(result.S, exact_values(H)[:3], rtol=2 * eps_of("float32") + 1e-3)


def test_threads_give_what_each_gives_alone():
    from concurrent.futures import ThreadPoolExecutor

    def run(seed):
        return [np.asarray(part).tobytes() for part in svds(A, 3, method="trlan", rng=seed)]

    alone = [run(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == alone
