"""Cases x methods x dtypes: every outcome is right, or says that it is not.

*Right*: converged, values within what the tolerance allows of the truth (LAPACK in double
precision), orthonormal vectors. *Says that it is not*: a status with a warning; for a matrix that
can be answered an exception is not an answer. Silently wrong fails the test, whatever the case.
What must be right, not only honest, is stated with each case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from checks import (
    ITERATIVE,
    METHODS,
    default_tol,
    eps_of,
    exact_values,
    host,
    orthonormality,
    orthonormality_bound,
    value_bound,
)

from trsvd import AdjointError, ConvergenceWarning, svds

# What iterates without a Krylov space needs thousands of products where values hardly decay.
SLOW = {"rsvd", "power"}
CAP = {name: 3000 for name in (*SLOW, "krylov")}


def outcome(A: Any, k: int, s: np.ndarray, to_numpy: Any = np.asarray, **arguments: Any) -> str:
    """``"right"``, or how the result says that it is not; fails where it is silently wrong."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        result = svds(A, k, **arguments)
    assert all(issubclass(entry.category, ConvergenceWarning) for entry in record), record[0]
    assert len(record) == (not result.converged), "a warning exactly where it did not converge"
    U, S, Vh = host(result, to_numpy)
    m, n = A.shape
    dtype = U.dtype
    for Q in (U, Vh.conj().T):
        loss = orthonormality(Q)
        assert loss <= orthonormality_bound((m, n), dtype), f"vectors not orthonormal: {loss:.1e}"
    assert np.isfinite(S).all()
    assert np.isfinite(result.residuals).all()
    assert np.all(S[:-1] >= S[1:])
    scale = s[0] or 1.0
    # Subtracted after scaling: 1e300 is no trouble then.
    error = float(np.abs(S.astype(np.float64) / scale - s[:k] / scale).max())
    tol = arguments.get("tol") or default_tol(dtype)
    # S is rounded to its dtype, which below the smallest normal number is coarse.
    bound = value_bound(k, tol, (m, n), dtype) + float(np.finfo(dtype).smallest_subnormal) / scale
    if result.converged:
        assert result.residuals.max() <= tol
        if error > bound and result.completeness.kind == "probable":
            # The most that this certificate says: nothing above (1 + eta) s_k was missed.
            reach = (1 + result.completeness.eta) * S[-1] / scale + bound
            assert np.all(s[:k] / scale <= np.maximum(S / scale + bound, reach)), "silently wrong"
            return f"values up to (1 + eta) s_k may be missing, and are: {error:.1e}"
        assert error <= bound, f"silently wrong by {error:.1e} s_1"
        return "right"
    return result.status.name


# ---- the cases --------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """A matrix in float64, how many triplets, and which methods may say that they cannot.

    ``loses`` is for spectra that a method has no means against, each with its reason there.
    """

    make: Callable[[], Any]
    k: int = 5
    float32: bool = True
    loses: frozenset[str] = frozenset()

    @functools.cached_property
    def A(self) -> Any:
        A = self.make()
        (A.data if scipy.sparse.issparse(A) else A).flags.writeable = False
        return A

    def of(self, dtype: str) -> tuple[Any, np.ndarray]:
        if dtype not in self.__dict__.setdefault("_of", {}):
            A = self.A.astype(dtype)
            self.__dict__["_of"][dtype] = A, exact_values(A)
        return self.__dict__["_of"][dtype]


def orthogonal(m: int, n: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((m, n)))[0]


def spectrum(s: Any, m: int = 0, n: int = 0, seed: int = 0) -> Callable[[], np.ndarray]:
    s = np.asarray(s, np.float64)
    U = orthogonal(max(m, len(s)), len(s), seed)
    return lambda: (U * s) @ orthogonal(max(n, len(s)), len(s), seed + 1).T


def geometric(top: float, ratio: float, n: int) -> list[float]:
    return list(top * ratio ** np.arange(n))


def kahan(n: int, c: float = 0.4) -> np.ndarray:
    s = (1 - c * c) ** 0.5
    return s ** np.arange(n)[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def with_zeros() -> np.ndarray:
    A = spectrum(geometric(1, 0.9, 60), 70, 60)()
    A[::3] = 0
    A[:, ::4] = 0
    return A


def one_huge_row(factor: float) -> np.ndarray:
    A = spectrum(geometric(1, 0.9, 60), 70, 60)()
    A[13] *= factor
    return A


def graph(*components: np.ndarray) -> scipy.sparse.csr_array:
    """Adjacency matrix of a graph with these components, its vertices shuffled."""
    A = scipy.sparse.block_diag(components, format="csr")
    rng = np.random.default_rng(0)
    A = A[rng.permutation(A.shape[0])][:, rng.permutation(A.shape[1])]
    return scipy.sparse.csr_array(A.astype(np.float64))


def cycle(n: int) -> np.ndarray:
    A = np.roll(np.eye(n), 1, axis=0)
    return A + A.T


def duplicated_columns() -> np.ndarray:
    A = np.random.default_rng(0).standard_normal((70, 12))
    return np.hstack([A] * 5) + 1e-9 * np.random.default_rng(1).standard_normal((70, 60))


rank_3 = np.array([3.0, 2.0, 1.0])
many = frozenset(SLOW)

CASES: dict[str, Case] = {
    # Rank below k.
    "rank 0": Case(lambda: np.zeros((60, 50))),
    "rank 0, wide": Case(lambda: np.zeros((50, 60))),
    "rank 0, all": Case(lambda: np.zeros((30, 30)), 30),
    "rank 1": Case(spectrum([2.0], 60, 50)),
    "rank 1, diagonal": Case(lambda: np.diag([0.0] * 30 + [2.0] + [0.0] * 29)),
    "rank 3": Case(spectrum(rank_3, 60, 50)),
    "rank 3, tall": Case(spectrum(rank_3, 200, 50)),
    "rank 3, wide": Case(spectrum(rank_3, 50, 200)),
    "rank 3, diagonal": Case(lambda: np.diag([3.0, 2, 1] + [0.0] * 50)),
    "rank 3, all": Case(spectrum(rank_3, 60, 50), 50),
    "rank 3, sparse": Case(
        lambda: scipy.sparse.csr_array(([3.0, 2, 1], ([9, 4, 7], [1, 2, 3])), (200, 90))
    ),
    "rank k - 1": Case(spectrum(geometric(1, 0.7, 4), 60, 50)),
    "rank k": Case(spectrum(geometric(1, 0.7, 5), 60, 50)),
    "rank k + 1": Case(spectrum(geometric(1, 0.7, 6), 60, 50)),
    "numerical rank 3": Case(spectrum([*rank_3, *geometric(1e-14, 0.9, 47)], 60, 50)),
    # One value only.
    "identity": Case(lambda: np.eye(60)),
    "identity, all": Case(lambda: np.eye(40), 40),
    "identity on top of zeros": Case(lambda: np.eye(150, 50)),
    "stacked identities": Case(lambda: np.vstack([np.eye(50)] * 3)),
    "minus identity": Case(lambda: -np.eye(60)),
    "orthogonal": Case(lambda: orthogonal(60, 60)),
    "orthonormal columns": Case(lambda: orthogonal(150, 50)),
    "permutation": Case(lambda: np.eye(60)[np.random.default_rng(0).permutation(60)]),
    "Hadamard": Case(lambda: scipy.linalg.hadamard(64).astype(np.float64)),
    "Hadamard, k = 9": Case(lambda: scipy.linalg.hadamard(128).astype(np.float64), 9),
    "projector": Case(lambda: orthogonal(60, 20) @ orthogonal(60, 20).T),
    # Multiple values.
    "tenfold": Case(spectrum([1.0] * 10 + [0.5] * 50)),
    "tenfold, then decay": Case(spectrum([1.0] * 10 + geometric(0.5, 0.9, 60))),
    "tenfold, k = 10": Case(spectrum([1.0] * 10 + geometric(0.5, 0.9, 60)), 10),
    "tenfold, k = 12": Case(spectrum([1.0] * 10 + geometric(0.5, 0.9, 60)), 12),
    "tenfold, then near": Case(spectrum([1.0] * 10 + geometric(0.95, 0.9, 60))),
    "tenfold below": Case(spectrum([2.0, 1.5] + [1.0] * 10 + geometric(0.5, 0.9, 60))),
    **{
        f"{copies} copies at {at}": Case(
            spectrum([*(3.0 - 0.1 * np.arange(at)), *[1.0] * copies, *geometric(0.7, 0.9, 50)])
        )
        for at in range(6)
        for copies in (2, 3, 5, 8)
    },
    "every value twice": Case(spectrum(np.repeat(geometric(1, 0.8, 30), 2)), 7),
    "every value thrice, wide": Case(spectrum(np.repeat(geometric(1, 0.8, 20), 3), 60, 90), 7),
    # Clusters and gaps.
    "cluster wider than the block": Case(
        spectrum([*(1 - 1e-7 * np.arange(12)), *geometric(0.6, 0.9, 50)])
    ),
    "gaps of 1e-6": Case(spectrum([*(1 - 1e-6 * np.arange(10)), *geometric(0.5, 0.9, 50)])),
    "gaps of 1e-10": Case(spectrum([*(1 - 1e-10 * np.arange(10)), *geometric(0.5, 0.9, 50)])),
    "gaps of 1e-10, no end": Case(spectrum(1 - 1e-10 * np.arange(60))),
    "gaps of 1e-16": Case(spectrum([*(1 - 1e-16 * np.arange(10)), *geometric(0.5, 0.9, 50)])),
    "hardly any decay": Case(spectrum(np.linspace(1, 0.9, 60))),
    # Ten of its values are 1 to within eps; a Krylov space from one vector finds the copies one
    # after the other, and one that lies within eta of s_k may stay unseen (`Completeness`).
    "Toeplitz with a jump": Case(
        lambda: scipy.linalg.toeplitz(
            [0.5, *(np.sin(np.pi * j / 2) / (np.pi * j) for j in range(1, 80))]
        ),
        10,
        loses=frozenset(
            {"trlan", "trlan-block", "trlan-one-sided", "trlan-two-sided", "trlan-gram", *many}
        ),
    ),
    # Grading.
    "15 decades": Case(spectrum(10.0 ** -np.linspace(0, 15, 60)), 20),
    "15 decades by rows": Case(
        lambda: (
            10.0 ** -np.linspace(0, 15, 60)[:, None]
            * np.random.default_rng(0).standard_normal((60, 60))
        ),
        20,
    ),
    "15 decades on the diagonal": Case(lambda: np.diag(10.0 ** -np.linspace(0, 15, 60)), 20),
    "30 decades": Case(lambda: np.diag(10.0 ** -np.linspace(0, 30, 60)), 30),
    "zero rows and columns": Case(with_zeros),
    "one huge row": Case(lambda: one_huge_row(1e12), float32=False),
    "one huge row, 1e5": Case(lambda: one_huge_row(1e5)),
    "one row": Case(lambda: np.vstack([np.zeros((59, 50)), np.ones((1, 50))])),
    "all ones": Case(lambda: np.ones((60, 50))),
    # Scale.
    **{
        f"scale 1e{p}": Case(
            lambda p=p: spectrum(geometric(1, 0.8, 50), 60, 50)() * 10.0**p, float32=False
        )
        for p in (-300, -200, -150, 150, 200, 300)
    },
    "denormal": Case(
        lambda: spectrum(geometric(1, 0.8, 50), 60, 50)() * 1e-308 * 1e-3, float32=False
    ),
    "smallest number": Case(lambda: np.eye(60) * 5e-324, float32=False),
    "1e-300 beside 1e300": Case(lambda: np.diag(10.0 ** np.linspace(300, -300, 60)), float32=False),
    # Classics.
    "Hilbert": Case(lambda: scipy.linalg.hilbert(60), 20),
    "Kahan": Case(lambda: kahan(60), 20),
    "Lauchli": Case(lambda: np.vstack([np.ones((1, 60)), 1e-8 * np.eye(60)])),
    "companion": Case(
        lambda: scipy.linalg.companion([1.0, *np.random.default_rng(0).standard_normal(60)])
    ),
    "nearly dependent columns": Case(duplicated_columns, 15),
    "lower ones": Case(lambda: np.tril(np.ones((60, 60)))),
    # Structure with many copies.
    "equal blocks": Case(lambda: np.kron(np.eye(20), [[1.0, 2], [3, 4], [5, 6]])),
    "equal blocks, sparse": Case(
        lambda: scipy.sparse.csr_array(
            scipy.sparse.kron(scipy.sparse.eye_array(40), [[1.0, 2], [3, 4], [5, 6]])
        )
    ),
    "complete bipartite, several": Case(lambda: graph(*[np.ones((6, 4))] * 12)),
    "complete bipartite, of many sizes": Case(
        lambda: graph(*[np.ones((p, 9 - p)) for p in range(1, 9)] * 2)
    ),
    "equal cycles": Case(lambda: graph(*[cycle(12)] * 6)),
    "paths and isolated vertices": Case(
        lambda: graph(*[np.eye(8, k=1) + np.eye(8, k=-1)] * 5, np.zeros((20, 20)))
    ),
    # Small.
    "1 x 1": Case(lambda: np.array([[-2.0]]), 1),
    "1 x 1 zero": Case(lambda: np.zeros((1, 1)), 1),
    "row": Case(lambda: np.arange(9.0)[None, :], 1),
    "column": Case(lambda: np.arange(9.0)[:, None], 1),
    "2 x 2 Jordan": Case(lambda: np.array([[1.0, 1.0], [0.0, 1.0]]), 2),
}


@pytest.mark.parametrize("method", [None, *METHODS])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_right_or_says_that_it_is_not(name, dtype, method):
    case = CASES[name]
    if dtype == "float32" and not case.float32:
        pytest.skip("not representable in float32")
    A, s = case.of(dtype)
    said = outcome(A, case.k, s, method=METHODS.get(method), rng=0, max_matvecs=CAP.get(method))
    # Lanczos on the Gram operator says itself that it does not resolve values below
    # sqrt(eps) s_1; what only iterates a block may run out of products.
    if method not in {"trlan-gram", *CAP, *case.loses}:
        assert said == "right"


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
    ],
)
def test_no_seed_makes_it_wrong(name, seed, method):
    case = CASES[name]
    A, s = case.of("float64")
    assert outcome(A, case.k, s, method=METHODS[method], rng=seed) == "right"


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
    ],
)
@pytest.mark.parametrize("method", [None, "trlan", "trlan-block", "krylov", "direct-gram"])
def test_hard_cases_on_every_backend(backend, name, method):
    case = CASES[name]
    A, s = case.of("float64")
    said = outcome(
        backend.asarray(A),
        case.k,
        s,
        backend.to_numpy,
        method=METHODS.get(method),
        rng=0,
        max_matvecs=CAP.get(method),
    )
    if method not in CAP:
        assert said == "right"


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 2e37])
@pytest.mark.parametrize("method", [None, *METHODS])
def test_scales_in_float32(scale, method):
    """1e-44 is denormal; the Gram of 1e20 and 1e-20 leaves the range of float32."""
    A = (CASES["scale 1e200"].A / 1e200 * scale).astype(np.float32)
    said = outcome(A, 5, exact_values(A), method=METHODS.get(method), rng=0)
    assert said == "right" or method == "trlan-gram"


@pytest.mark.parametrize("method", [None, "trlan", "rsvd", "direct"])
def test_a_value_that_its_dtype_cannot_hold(method):
    """Every entry is a float32, s_1 = 60 * 3e38 is none."""
    A = np.full((60, 60), 3e38, np.float32)
    with pytest.raises(ValueError, match="range of float32"):
        svds(A, 2, method=method, rng=0)
    half = np.full((60, 60), 6e4, np.float16)
    with pytest.raises(ValueError, match="range of float16"):
        svds(half, 2, method=method, rng=0)


@pytest.mark.parametrize("method", [None, *METHODS])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("kind", ["unitary", "rank 3", "tenfold", "Fourier"])
def test_complex(kind, dtype, method):
    rng = np.random.default_rng(0)
    U, V = (
        np.linalg.qr(rng.standard_normal((50, 50)) + 1j * rng.standard_normal((50, 50)))[0]
        for _ in range(2)
    )
    A = {
        "unitary": U,
        "rank 3": (U[:, :3] * rank_3) @ V[:, :3].conj().T,
        "tenfold": (U * np.r_[np.ones(10), geometric(0.5, 0.9, 40)]) @ V.conj().T,
        "Fourier": scipy.linalg.dft(50),
    }[kind].astype(dtype)
    said = outcome(
        A, 5, exact_values(A), method=METHODS.get(method), rng=0, max_matvecs=CAP.get(method)
    )
    assert said == "right" or method in CAP or method == "trlan-gram"


# ---- starts that lead astray --------------------


def aligned() -> tuple[np.ndarray, np.ndarray]:
    """A matrix whose singular vectors are coordinates: products leave no rounding elsewhere."""
    s = np.array(geometric(1, 0.8, 50))
    return np.eye(60, 50) * s, s


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
    A, s = aligned()
    start = STARTS[kind]
    if transposed:
        A = A.T.copy()
        start = np.concatenate([start, np.zeros((10, *start.shape[1:]))])
    said = outcome(A, 4, s, method=METHODS[method], rng=0, start=start, max_matvecs=3000)
    assert said == "right"


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_start_in_a_singular_subspace_of_a_dense_matrix(method):
    A = CASES["tenfold, then decay"].A
    V = np.linalg.svd(A)[2].T
    for columns in (slice(0, 3), slice(12, 17), slice(60, 70)):
        said = outcome(
            A,
            5,
            exact_values(A),
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
    assert outcome(ReturnsItsArgument(), 4, np.ones(70), method=METHODS[method], rng=0) == "right"


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("method", METHODS)
def test_odd_operators(method, kind):
    assert outcome(ODD[kind](), 4, exact_values(A[:70]), method=METHODS[method], rng=0) == "right"


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
    assert outcome(operator, 3, exact_values(B), method="trlan", rng=0) == "right"
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
