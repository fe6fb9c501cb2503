"""Operators that keep their contract in other ways than expected, or do not keep it.

Whatever a matvec was written for, whatever buffers it uses, and however parts of it cancel: the
answer is right, or there is an error, or a status that says that it is not.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
import scipy
import scipy.sparse
from checks import eps_of, exact_values, value_bound
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from scipy.fft import dct, idct
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import trsvd
from trsvd import AdjointError, ConvergenceWarning, Status, compat, svds
from trsvd.operators import (
    AdjointOperator,
    CenteredOperator,
    LowRankUpdate,
    MatrixOperator,
    SumOperator,
    as_operator,
    check_adjoint,
)
from trsvd.testing import assert_svd

WANTED = os.environ.get("TRSVD_EXAMPLES")
N = 60
_RNG = np.random.default_rng(3)
M = _RNG.standard_normal((N, N)) * 0.9 ** np.arange(N)
WEIGHTS = _RNG.random(N) + 0.5
KERNEL = np.array([0.25, 0.5, 0.25])


def weighted(x: Any) -> Any:
    """``w * x`` is (n, n) for a column of shape (n, 1)."""
    return M @ (WEIGHTS * x)


def weighted_back(y: Any) -> Any:
    return WEIGHTS * (M.T @ y)


def cosines(x: Any) -> Any:
    """Transforms along the last axis leave a column as it is."""
    return M @ dct(x, norm="ortho")


def cosines_back(y: Any) -> Any:
    return idct(M.T @ y, norm="ortho")


def blurred(x: Any) -> Any:
    """Only arrays of one dimension can be convolved; others are an error."""
    return M @ np.convolve(x, KERNEL, mode="same")


def blurred_back(y: Any) -> Any:
    return np.convolve(M.T @ y, KERNEL, mode="same")


def rolled(x: Any) -> Any:
    """np.roll without axis= rolls over all columns."""
    return np.roll(M @ x, 1)


def rolled_back(y: Any) -> Any:
    return M.T @ np.roll(y, -1)


FUNCTIONS = {
    "weights": (weighted, weighted_back),
    "cosines": (cosines, cosines_back),
    "blur": (blurred, blurred_back),
    "roll": (rolled, rolled_back),
}


def columns_of(function: Any) -> np.ndarray:
    """The matrix of a function of vectors."""
    return np.stack([function(e) for e in np.eye(N)], axis=1)


def custom(name: str) -> LinearOperator:
    forward, backward = FUNCTIONS[name]
    return LinearOperator((N, N), matvec=forward, rmatvec=backward, dtype=float)


DERIVED = {
    "itself": (lambda L: L, lambda T: T),
    "scaled": (lambda L: -2.5 * L, lambda T: -2.5 * T),
    "sum": (lambda L: L + aslinearoperator(M), lambda T: T + M),
    "sum with itself": (lambda L: L + L, lambda T: 2 * T),
    "product": (lambda L: aslinearoperator(M) @ L, lambda T: M @ T),
    "product with itself": (lambda L: L @ L, lambda T: T @ T),
    "transposed": (lambda L: L.T, lambda T: T.T),
    "adjoint": (lambda L: L.H, lambda T: T.T),
    "power": (lambda L: L**2, lambda T: T @ T),
    "centred": (CenteredOperator, lambda T: T - T.mean(axis=0)),
    "in a sum": (lambda L: SumOperator(M, L), lambda T: M + T),
    "updated": (
        lambda L: LowRankUpdate(L, M[:, :2], M[:, 2:4]),
        lambda T: T + M[:, :2] @ M[:, 2:4].T,
    ),
    "turned": (AdjointOperator, lambda T: T.T),
    "as an operator": (as_operator, lambda T: T),
}


def assert_right(result: Any, T: np.ndarray, k: int, tol: float = 1e-8) -> None:
    assert result.converged, result.status
    exact = exact_values(T)
    got = np.asarray(result.S, dtype=float)
    assert np.abs(got - exact[:k]).max() <= value_bound(k, tol, T.shape, float) * exact[0]
    residual = T @ result.Vh.conj().T - result.U * got
    assert np.linalg.norm(residual, axis=0).max() <= (tol + 1e-13) * exact[0]


@pytest.mark.parametrize("derived", list(DERIVED))
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_of_vectors(name: str, derived: str) -> None:
    make, of_matrix = DERIVED[derived]
    T = of_matrix(columns_of(FUNCTIONS[name][0]))
    for method in ("trlan", "krylov", "direct"):
        result = svds(make(custom(name)), 3, method=method, tol=1e-8, rng=0)
        assert_right(result, T, 3)
    assert_svd(result, make(custom(name)), S_true=exact_values(T), tol=1e-8)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_of_vectors_wherever_a_matrix_goes_in(name: str) -> None:
    L, T = custom(name), columns_of(FUNCTIONS[name][0])
    s = exact_values(T)
    check_adjoint(L, rng=0)
    near = pytest.approx
    assert trsvd.spectral_norm(L) == near(s[0], rel=1e-6)
    assert trsvd.nuclear_norm(L) == near(s.sum(), rel=1e-6)
    assert trsvd.KyFanDualBall(2).support(L) == near(s[:2].sum(), rel=1e-6)
    assert trsvd.SpectralBall().gauge(L) == near(s[0], rel=1e-6)
    assert trsvd.KyFanDualBall(2).lmo(L).support == near(s[:2].sum(), rel=1e-3)
    assert trsvd.SpectralBall().lmo(L).support == near(s.sum(), rel=1e-3)
    above = trsvd.svds_above(L, 0.5 * s[0], rng=0)
    assert list(above.S) == near(s[s > 0.5 * s[0]], rel=1e-6)
    for solver in ("arpack", "propack", "lobpcg"):
        _, S, _ = compat.svds(L, 3, solver=solver, rng=0)
        assert np.sort(S)[::-1] == near(s[:3], rel=1e-6)
    _, S, _ = compat.svds(L, 2, which="SM", rng=0)
    assert np.sort(S) == near(s[-1:-3:-1], abs=1e-8 * s[0])


# ---- operators with methods of their own ------------------------------------------------


class Both:
    """``matvec`` and ``matmat``, each as it should be."""

    shape, dtype = M.shape, M.dtype

    def matvec(self, x: Any) -> Any:
        return M @ x

    def rmatvec(self, y: Any) -> Any:
        return M.T @ y

    def matmat(self, X: Any) -> Any:
        return M @ X

    def rmatmat(self, Y: Any) -> Any:
        return M.T @ Y


class OnlyTheFirst(Both):
    def matmat(self, X: Any) -> Any:
        return np.repeat(M @ X[:, :1], X.shape[1], axis=1)


class AsManyAsRows(Both):
    def rmatmat(self, Y: Any) -> Any:
        return M.T @ Y.reshape(N, N)


class CentresTheBlock(Both):
    def matmat(self, X: Any) -> Any:
        return M @ (X - X.mean(axis=1, keepdims=True) * (X.shape[1] > 1))


class BrokenVectors(Both):
    def matvec(self, x: Any) -> Any:
        return M @ x[:, 0]  # an error for x of one dimension

    def rmatvec(self, y: Any) -> Any:
        return 2 * M.T @ y


class BlocksForwardVectorsBack(Both):
    def matvec(self, x: Any) -> Any:
        return 3 * M @ x

    def rmatmat(self, Y: Any) -> Any:
        return M.T @ Y[::-1]


@pytest.mark.parametrize(
    "kind",
    [
        Both,
        OnlyTheFirst,
        AsManyAsRows,
        CentresTheBlock,
        BrokenVectors,
        BlocksForwardVectorsBack,
    ],
)
@pytest.mark.parametrize("method", ["trlan", "rsvd", "krylov", "direct"])
def test_the_products_that_agree_with_the_adjoint_are_used(kind: Any, method: str) -> None:
    assert_right(svds(kind(), 3, method=method, tol=1e-8, rng=0), M, 3)


def test_products_outside_of_a_call(rng: Any) -> None:
    """A mean, a product or the whole matrix, before anything else was computed."""
    for make, T in (
        (BrokenVectors, M),
        (OnlyTheFirst, M),
        (lambda: custom("weights"), columns_of(weighted)),
        (lambda: custom("cosines"), columns_of(cosines)),
    ):
        bound = N * eps_of(float) * np.linalg.norm(T)
        for p in (1, 3):
            X = rng.standard_normal((N, p))
            size = bound * np.linalg.norm(X)
            assert np.abs(as_operator(make()).matmat(X) - T @ X).max() <= size
            assert np.abs(as_operator(make()).rmatmat(X) - T.T @ X).max() <= size
        assert np.abs(as_operator(make()).dense() - T).max() <= bound
        assert np.abs(CenteredOperator(make()).mean - T.mean(axis=0)).max() <= bound


def test_an_operator_of_blocks_alone() -> None:
    """np.roll of a block moves numbers from column to column, that of one column does not."""

    class Rolled:
        shape, dtype = M.shape, M.dtype

        def matmat(self, X: Any) -> Any:
            return np.roll(M @ X, 1)

        def rmatmat(self, Y: Any) -> Any:
            return M.T @ np.roll(Y, -1)

    assert_right(svds(Rolled(), 3, tol=1e-8, rng=0), np.roll(M, 1, axis=0), 3)


def test_a_subclass_of_the_package_is_checked_too() -> None:
    class Foreign(MatrixOperator):
        def __init__(self) -> None:
            like = as_operator(M)
            self.shape, self.arrays, self.buffer = like.shape, like.arrays, np.empty((N, 256))

        def matmat(self, X: Any) -> Any:
            return np.matmul(M, X, out=self.buffer[:, : X.shape[1]])

        def rmatmat(self, X: Any) -> Any:
            return np.matmul(M.T, X, out=self.buffer[:, : X.shape[1]])

    for method in ("trlan", "krylov", "direct"):
        assert_right(svds(Foreign(), 3, method=method, tol=1e-8, rng=0), M, 3)


class NeitherAgrees(Both):
    def matmat(self, X: Any) -> Any:
        return 1.5 * M @ X

    def rmatvec(self, y: Any) -> Any:
        return 2 * M.T @ y

    def rmatmat(self, Y: Any) -> Any:
        return 3 * M.T @ Y


def test_neither_blocks_nor_vectors_agree_with_the_adjoint() -> None:
    pattern = r"matmat of two columns differs .*\(matvec.*by 0\.\d+ of their norm.*\(n,\)"
    for call in (lambda: svds(NeitherAgrees(), 2), lambda: check_adjoint(NeitherAgrees())):
        with pytest.raises(ValueError, match=pattern):
            call()


@pytest.mark.parametrize("nonlinear", [lambda y: y + 1, np.abs, lambda y: y / np.linalg.norm(y)])
def test_products_that_are_not_linear(nonlinear: Any) -> None:
    L = LinearOperator(
        M.shape, matvec=lambda x: nonlinear(M @ x), rmatvec=lambda y: M.T @ y, dtype=float
    )
    with pytest.raises(ValueError, match="A is not linear: .* by .* of the norm of A x"):
        svds(L, 2)


def test_an_error_that_does_not_come_again_is_raised() -> None:
    class Once(Both):
        calls = 0

        def matmat(self, X: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError("once")
            return M @ X

    with pytest.raises(RuntimeError, match="^once$"):
        svds(Once(), 2)


def test_batch_dimensions_are_refused() -> None:
    class Batch:
        shape, dtype = (3, N, N), M.dtype

        def matmat(self, X: Any) -> Any:
            return X

        rmatmat = matmat

    operators = [Batch()]
    if np.lib.NumpyVersion(scipy.__version__) >= "1.18.0":
        operators.append(aslinearoperator(np.ones((3, N, N))))
    for operator in operators:
        for call in (svds, compat.svds, trsvd.KyFanDualBall(1).lmo, CenteredOperator):
            arguments = (operator, 2) if call in (svds, compat.svds) else (operator,)
            with pytest.raises(ValueError, match="for each matrix|with 2 dimensions"):
                call(*arguments)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("method", ["trlan", "krylov", "direct"])
def test_every_product_is_counted(columns: bool, method: str) -> None:
    count: Counter[str] = Counter()

    class Counted(OnlyTheFirst if columns else Both):
        def matvec(self, x: Any) -> Any:
            count["n"] += 1
            return super().matvec(x)

        def rmatvec(self, y: Any) -> Any:
            count["n"] += 1
            return super().rmatvec(y)

        def matmat(self, X: Any) -> Any:
            count["n"] += X.shape[1]
            return super().matmat(X)

        def rmatmat(self, Y: Any) -> Any:
            count["n"] += Y.shape[1]
            return super().rmatmat(Y)

    result = svds(Counted(), 3, method=method, rng=0)
    assert result.matvecs + result.matvecs_verify == count["n"]
    assert result.matvecs_verify >= 8


# ---- buffers ----------------------------------------------------------------------------


class Buffers:
    """One array for everything that an operator returns, and one that it is given is overwritten.

    With views: what is returned is a view of what was given.
    """

    def __init__(self, A: Any, *, views: bool = False, blocks: bool = True) -> None:
        self.A, self.shape, self.dtype, self.views = A, tuple(A.shape), A.dtype, views
        self.buffers: dict[Any, Any] = {}
        if blocks:
            self.matmat, self.rmatmat = self._forward, self._backward
        else:
            self.matvec, self.rmatvec = self._forward, self._backward

    def _forward(self, X: Any) -> Any:
        return self._into(self.A, X)

    def _backward(self, Y: Any) -> Any:
        return self._into(self.A.T, Y)

    def _into(self, A: Any, X: Any) -> Any:
        Y = A @ X
        if self.views:
            X[: len(Y)] = Y
            return X[: len(Y)]
        buffer = self.buffers.setdefault(tuple(Y.shape), Y)
        buffer[...] = Y
        X[...] = float("nan")
        return buffer


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("method", ["trlan", "rsvd", "krylov", "power", "direct"])
def test_buffers_and_arguments_belong_to_the_operator(
    method: str, views: bool, blocks: bool, library: str
) -> None:
    A = M
    if library == "torch":
        A = pytest.importorskip("torch").asarray(M.copy())
    for make in (lambda L: L, AdjointOperator, CenteredOperator, lambda L: SumOperator(L, A)):
        T = host(make(A).dense()) if make(A) is not A else M
        result = svds(make(Buffers(A, views=views, blocks=blocks)), 2, method=method, tol=1e-6)
        parts = [host(part) for part in (result.U, result.S, result.Vh)]
        assert_right(dataclasses.replace(result, U=parts[0], S=parts[1], Vh=parts[2]), T, 2, 1e-6)


def host(x: Any) -> np.ndarray:
    return np.asarray(x)


def test_vectors_of_the_user_stay_as_they_are() -> None:
    start = np.random.default_rng(0).standard_normal((N, 2))
    before = start.copy()
    svds(Buffers(M), 2, start=start)
    assert np.array_equal(start, before)


# ---- cancellation -----------------------------------------------------------------------


class Centred:
    """Centring in products, as a user writes it."""

    def __init__(self, A: np.ndarray) -> None:
        self.A, self.mean, self.shape, self.dtype = A, A.mean(axis=0), A.shape, A.dtype

    def matmat(self, X: Any) -> Any:
        return self.A @ X - np.ones((len(self.A), 1), self.dtype) * (self.mean[None, :] @ X)

    def rmatmat(self, Y: Any) -> Any:
        return self.A.T @ Y - self.mean[:, None] @ Y.sum(axis=0, keepdims=True)


def _ones(A: np.ndarray) -> np.ndarray:
    return np.ones((len(A), 1), A.dtype)


WAYS = {
    "CenteredOperator": CenteredOperator,
    "sparse": lambda A: CenteredOperator(scipy.sparse.csr_array(A)),
    "turned": lambda A: AdjointOperator(CenteredOperator(A)),
    "LowRankUpdate": lambda A: LowRankUpdate(A, -_ones(A), A.mean(axis=0)[:, None]),
    "SumOperator": lambda A: SumOperator(A, -_ones(A) @ A.mean(axis=0)[None, :]),
    "of the user": Centred,
    "SciPy's": lambda A: aslinearoperator(A) - aslinearoperator(_ones(A) @ A.mean(axis=0)[None]),
}


@pytest.mark.filterwarnings("ignore::trsvd.ConvergenceWarning")
@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("offset", [1e4, 1e6, 1e9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(90, 40), (40, 90), (80, 80), (60, 3)])
def test_parts_that_cancel(way: str, offset: float, dtype: str, shape: Any) -> None:
    """Constant columns, nearly constant ones, and one direction beside an offset."""
    rng = np.random.default_rng(5)
    small = [np.zeros(shape), rng.standard_normal(shape)]
    small.append(np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1])))
    for B in small:
        A = (offset * (0.5 + rng.random(shape[1])) + B).astype(dtype)
        exact = exact_values(A.astype(float) - A.mean(axis=0, dtype=float))
        # Rounding of m n numbers of size `parts`, of their mean, and of products with them.
        level = 100 * eps_of(dtype) * np.linalg.norm(A.astype(float))
        for method in ("trlan", "krylov", "direct", None):
            result = svds(WAYS[way](A), 1, method=method, rng=0)
            assert abs(result.S[0] - exact[0]) <= level
            assert result.status in {
                Status.CONVERGED,
                Status.CANCELLATION,
                Status.ROUNDING_FLOOR,
                Status.STAGNATED,
            }
            if result.status is Status.ROUNDING_FLOOR:
                assert result.residuals.max() <= 1000 * eps_of(dtype)
            if result.converged:
                true = np.linalg.norm(np.asarray(result.residuals))
                assert abs(result.S[0] - exact[0]) <= true * result.S[0] + level


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("offset", [1e3, 1e5])
@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("shape", [(90, 40), (40, 90)])
def test_a_direct_method_centres_first(
    shape: Any, make: Any, offset: float, dtype: str, rng: Any
) -> None:
    A = (rng.standard_normal(shape) + offset).astype(dtype)
    wide = A.astype(np.result_type(dtype, "float64"))
    exact = exact_values(wide - wide.mean(axis=0))
    for turned in (False, True):
        op = CenteredOperator(make(A))
        result = svds(AdjointOperator(op) if turned else op, 3, method="direct")
        assert result.converged
        # Each centred entry is rounded once or twice; nothing of the size of the offset is left.
        assert np.abs(result.S - exact[:3]).max() <= 16 * max(shape) * eps_of(dtype) * exact[0]
    assert np.array_equal(CenteredOperator(make(A), A[0]).dense(), A - A[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_remainder_of_rounding_errors(dtype: str, rng: Any) -> None:
    A = (rng.standard_normal((90, 4)) @ rng.standard_normal((4, 60))).astype(dtype)
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    U, S, Vh = U[:, :4], S[:4], Vh[:4]
    for op in (LowRankUpdate(A, -U * S, Vh.T), SumOperator(A, -(U * S) @ Vh)):
        check_adjoint(op, rng=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            assert trsvd.spectral_norm(op) <= 1000 * eps_of(dtype) * S[0]
        with pytest.warns(ConvergenceWarning, match="parts of A cancel.*of s_1, largest residual"):
            result = svds(op, 1, method="trlan", rng=0)
        assert result.status is Status.CANCELLATION
        assert result.S[0] <= 1000 * eps_of(dtype) * S[0]


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_wrong_adjoint_is_noticed_beside_an_offset(way: str, offset: float, rng: Any) -> None:
    """What rounding of the parts explains, 1e4 eps of the sum, is far below an error of order 1."""
    A = rng.standard_normal((40, 40)) + offset
    right = as_operator(WAYS[way](A))

    class Wrong:
        shape, dtype = A.shape, A.dtype

        def matmat(self, X: Any) -> Any:
            return right.matmat(X)

        def rmatmat(self, Y: Any) -> Any:
            return right.matmat(Y)

    for call in (lambda: svds(Wrong(), 2), lambda: check_adjoint(Wrong())):
        with pytest.raises(AdjointError, match="not the adjoint"):
            call()


def test_products_in_single_precision() -> None:
    single = M.astype(np.float32)
    L = LinearOperator(
        M.shape,
        matvec=lambda x: (single @ x.astype(np.float32)).astype(float),
        rmatvec=lambda y: (single.T @ y.astype(np.float32)).astype(float),
        dtype=float,
    )
    for op in (L, 0.3 * L, L @ L, L + L):
        check_adjoint(op, rng=0)
    exact = exact_values(single)
    result = svds(L, 3, method="trlan", tol=1e-5, rng=0)
    assert result.converged
    assert np.abs(result.S - exact[:3]).max() <= 1e-5 * exact[0]
    with pytest.warns(ConvergenceWarning, match="lower precision.*rounding errors of products"):
        result = svds(L, 3, method="trlan", rng=0)
    assert result.status is Status.CANCELLATION
    assert result.residuals.max() <= 1e-5


# ---- a generator ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """An operator by what it is made of, so that a failing example is short to read."""

    shape: tuple[int, int]
    dtype: str
    spectrum: str
    manner: str
    function: str
    memory: str
    derived: str
    fault: str
    single: bool
    offset: float
    method: str | None
    k: int
    tol: float
    seed: int

    @property
    def precision(self) -> float:
        """Rounding unit of the products."""
        return eps_of("float32") if self.single else eps_of(self.dtype)

    def build(self) -> tuple[Any, np.ndarray, float]:
        """The operator, its matrix in double precision, and the size of its parts."""
        rng = np.random.default_rng(self.seed)
        m, n = self.shape

        def draw(*shape: int) -> np.ndarray:
            X = rng.standard_normal(shape)
            return X + 1j * rng.standard_normal(shape) if self.dtype[0] == "c" else X

        r = min(m, n)
        s = {"flat": np.ones(r), "decaying": 0.6 ** np.arange(r), "low rank": np.eye(1, r)[0]}
        U, V = (np.linalg.qr(draw(size, r))[0] for size in (m, n))
        A = ((U * s[self.spectrum]) @ V.conj().T).astype(self.dtype)
        w = (rng.random(n) + 0.5).astype(A.real.dtype)
        c = (self.offset * (rng.random(n) + 0.5)).astype(self.dtype)
        if self.function == "plain":
            w = np.ones_like(w)
        inner = A.dtype if not self.single else np.dtype("c8" if self.dtype[0] == "c" else "f4")
        A, w, c = A.astype(inner), w.astype(inner), c.astype(inner)
        D = np.tile(c, (m, 1))

        def forward(x: Any) -> Any:
            x = x.astype(inner)
            x = x if self.function == "plain" else w * x
            y = A @ x
            if self.offset:
                y = (A + D) @ x - D @ x
            if self.fault == "affine":
                y = y + 1
            if self.fault == "nonlinear":
                y = np.abs(y)
            return y

        def backward(y: Any) -> Any:
            y = y.astype(inner)
            x = A.conj().T @ y
            if self.offset:
                x = (A + D).conj().T @ y - D.conj().T @ y
            if self.fault == "adjoint":
                x = -x
            return x if self.function == "plain" else w * x

        shared = A + D
        T = (shared.astype(complex) - D) * w if self.offset else A.astype(complex) * w
        parts = float(np.linalg.norm(shared) + np.linalg.norm(D)) * float(np.abs(w).max())
        return self._as_operator(forward, backward), T, parts

    def _as_operator(self, forward: Any, backward: Any) -> Any:
        """The functions as methods that use memory in one way or another."""
        m, n = self.shape
        buffers: dict[Any, Any] = {}

        def kept(name: str, function: Any) -> Any:
            def product(x: Any) -> Any:
                y = np.asarray(function(x)).astype(self.dtype)
                if self.memory == "buffer":
                    place = buffers.setdefault((name, y.shape), np.empty_like(y))
                    place[...] = y
                    y = place
                elif self.memory == "overwrites":
                    x[...] = np.nan
                elif self.memory == "view" and len(x) >= len(y) and x.shape[1:] == y.shape[1:]:
                    x[: len(y)] = y
                    y = x[: len(y)]
                return y

            return product

        one, back = kept("A", forward), kept("AH", backward)

        def by_columns(function: Any) -> Any:
            return lambda X: np.stack([function(x.copy()).copy() for x in X.T], axis=1)

        if self.manner == "scipy":
            L = LinearOperator(self.shape, matvec=one, rmatvec=back, dtype=self.dtype)
        elif self.manner == "scipy with blocks":
            L = LinearOperator(
                self.shape,
                matvec=one,
                rmatvec=back,
                matmat=by_columns(one),
                rmatmat=by_columns(back),
                dtype=self.dtype,
            )
        else:
            members: dict[str, Any] = {"shape": self.shape, "dtype": np.dtype(self.dtype)}
            if self.manner != "blocks":
                members |= {"matvec": one, "rmatvec": back}
            if self.manner == "blocks":
                members |= {"matmat": by_columns(one), "rmatmat": by_columns(back)}
            if self.manner == "wrong blocks":  # right for one column
                members |= {
                    "matmat": lambda X: by_columns(one)(X)[:, ::-1],
                    "rmatmat": by_columns(back),
                }
            if self.manner == "blocks of the same function":
                members |= {"matmat": one, "rmatmat": back}
            L = type("Operator", (), {})()
            L.__dict__.update(members)
        return L

    def whole(self) -> tuple[Any, np.ndarray, float]:
        """As `build`, with what is derived from the operator."""
        L, T, parts = self.build()
        if self.derived == "none":
            return L, T, parts
        if self.derived == "turned":
            return AdjointOperator(L), T.conj().T, parts
        if self.derived == "centred":
            return CenteredOperator(L), T - T.mean(axis=0), 2 * parts
        if self.derived == "remainder":
            U, S, Vh = np.linalg.svd(T, full_matrices=False)
            kind = np.dtype(self.dtype)
            real = kind.kind != "c"
            U, V = ((X.real if real else X).astype(kind) for X in (U[:, :1] * S[:1], Vh[:1].T))
            V = V.conj()
            R = T - U.astype(complex) @ V.conj().T.astype(complex)
            return LowRankUpdate(L, -U, V), R, 2 * parts
        if not isinstance(L, LinearOperator):
            return SumOperator(L, L), 2 * T, 2 * parts
        # (SciPy itself hands one array to both terms of a sum.)
        L, T, parts = dataclasses.replace(self, memory="plain").build()
        return {
            "scaled": lambda: (-0.3 * L, -0.3 * T, parts),
            "sum": lambda: (L + 2 * L, 3 * T, 3 * parts),
            "product": lambda: (L.H @ L, T.conj().T @ T, parts**2),
            "transposed": lambda: (L.T, T.T, parts),
        }[self.derived]()


@st.composite
def cases(draw: Any) -> Case:
    pick = lambda *values: draw(st.sampled_from(values))  # noqa: E731
    shape = (pick(1, 2, 7, 30, 80), pick(1, 2, 7, 30, 80))
    dtype = pick("float64", "float64", "float32", "complex64", "complex128")
    single = dtype in {"float64", "complex128"} and pick(False, False, True)
    return Case(
        shape=shape,
        dtype=dtype,
        spectrum=pick("flat", "decaying", "low rank"),
        manner=pick(
            "scipy",
            "scipy with blocks",
            "vectors",
            "blocks",
            "wrong blocks",
            "blocks of the same function",
        ),
        function=pick("plain", "weights"),
        memory=pick("plain", "buffer", "overwrites", "view"),
        derived=pick(
            "none", "scaled", "sum", "product", "transposed", "turned", "centred", "remainder"
        ),
        fault=pick("none", "none", "none", "adjoint", "affine", "nonlinear"),
        single=single,
        offset=pick(0.0, 0.0, 1e4, 1e8),
        method=pick(None, "trlan", "rsvd", "krylov", "direct"),
        k=draw(st.integers(1, min(*shape, 3))),
        tol=pick(1e-3, 1e-4 if dtype in {"float32", "complex64"} else 1e-8),
        seed=draw(st.integers(0, 10**6)),
    )


@settings(
    max_examples=int(WANTED or 200),
    derandomize=WANTED is None,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_right_or_an_error_or_not_converged(case: Case) -> None:
    """Never silently wrong; and right where nothing is wrong and nothing cancels."""
    op, T, parts = case.whole() if case.fault == "none" else case.build()
    exact = exact_values(T)
    # Products are those of a matrix to so many rounding units of their parts.
    level = 100 * case.precision * parts
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = svds(op, case.k, method=case.method, tol=case.tol, rng=case.seed)
    except ValueError:
        event("error")
        # Where an offset inside of the operator leaves nothing but a few numbers of rounding,
        # products do not always tell them from what is not linear.
        if case.fault == "none" and not (case.offset and exact[0] <= level):
            raise
        return
    event(result.status.name)
    bound = value_bound(case.k, case.tol, T.shape, case.dtype) * exact[0] + level
    if case.fault == "none":
        plain = case.offset == 0 and case.derived not in {"centred", "remainder"}
        if plain and not case.single:
            assert result.converged, result.status
        if result.status is Status.ROUNDING_FLOOR:
            assert result.residuals.max() <= 1000 * eps_of(case.dtype)
        if result.converged:
            assert np.abs(result.S - exact[: case.k]).max() <= bound
            V, U = result.Vh.conj().T, result.U
            sides = (T @ V - U * result.S, T.conj().T @ U - V * result.S)
            residual = max(np.linalg.norm(R, axis=0).max() for R in sides)
            assert residual <= case.tol * exact[0] + bound
    elif case.fault == "adjoint":
        assert not result.converged or exact[0] <= level
    else:  # of one sign, |A x| may be linear where it was looked at
        rows = T.shape[0] == 1 or case.offset > 0
        assert not result.converged or rows or case.shape[1] == 1
