"""Everything that can be an operator, against dense products on the host.

Tolerance of a product: a sum of n terms is good to n eps of the sum of moduli; it is asserted
entry by entry with |A| |X|.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import trsvd
from trsvd import AdjointError
from trsvd.operators import (
    AdjointOperator,
    CenteredOperator,
    LowRankUpdate,
    MatrixLike,
    MatrixOperator,
    SumOperator,
    as_operator,
    check_adjoint,
)

DTYPES = ["float32", "float64", "complex64", "complex128"]


def random(rng: np.random.Generator, m: int, n: int, dtype: str = "float64") -> np.ndarray:
    A = rng.standard_normal((m, n))
    if dtype.startswith("complex"):
        A = A + 1j * rng.standard_normal((m, n))
    return A.astype(dtype)


def host(x: Any) -> np.ndarray:
    if hasattr(x, "resolve_conj"):
        x = x.detach().cpu().resolve_conj().resolve_neg()
    return np.asarray(x)


def assert_products(
    op: MatrixOperator,
    dense: np.ndarray,
    put: Callable[[np.ndarray], Any] | None = None,
    get: Callable[[Any], np.ndarray] = host,
) -> None:
    """Products and facts of ``op`` are those of ``dense``."""
    assert isinstance(op, MatrixOperator)
    assert op.shape == dense.shape
    assert all(type(side) is int for side in op.shape)
    put = put or op.arrays.put
    eps = op.arrays.eps
    rng = np.random.default_rng(0)
    exact = dense.astype("complex128" if op.arrays.is_complex else "float64")
    for p in (1, 3):
        for matrix, product in ((exact, op.matmat), (exact.conj().T, op.rmatmat)):
            X = random(rng, matrix.shape[1], p, op.arrays.dtype_name)
            Y = product(put(X))
            assert Y.dtype == op.dtype
            Y = get(Y)
            assert Y.shape == (len(matrix), p)
            bound = 4 * (matrix.shape[1] + 4) * eps * (np.abs(matrix) @ np.abs(X))
            assert np.all(np.abs(Y - matrix @ X) <= bound)
    again = get(op.dense())
    # A composite forms its entries by a few operations of its own.
    assert np.abs(again - exact).max() <= 4 * (max(op.shape) + 4) * eps * np.abs(exact).max(
        initial=1
    )
    if op.max_abs() is not None:
        parts = np.maximum(np.abs(exact.real), np.abs(exact.imag))
        assert op.max_abs() == pytest.approx(parts.max(), rel=eps)
    norm = op.frobenius_norm()
    if norm is not None:
        size = np.linalg.norm(exact)
        assert norm == pytest.approx(size, rel=4 * eps + 1e-14, abs=1e-300)
        assert op.frobenius_norm(0.25) == pytest.approx(
            0.25 * size, rel=4 * eps + 1e-14, abs=1e-300
        )


# ---- dense arrays -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (1, 6), (6, 1), (1, 1)])
def test_arrays_of_every_library(backend: Any, dtype: str, shape: Any, rng: Any) -> None:
    A = random(rng, *shape, dtype)
    there = backend.asarray(A)
    op = as_operator(there)
    assert op.dtype == backend.dtype(dtype)
    assert backend.owns(op.matmat(backend.asarray(random(rng, shape[1], 2, dtype))))
    assert_products(op, A, backend.asarray, backend.to_numpy)
    assert np.array_equal(backend.to_numpy(there), A)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "bool"])
def test_integers_and_bool_compute_in_float64(backend: Any, dtype: str, rng: Any) -> None:
    A = rng.integers(0, 2 if dtype == "bool" else 100, (6, 4)).astype(dtype)
    op = as_operator(backend.asarray(A))
    assert op.dtype == backend.dtype("float64")
    assert op.arrays.out_dtype == backend.dtype("float64")
    assert_products(op, A.astype(float), backend.asarray, backend.to_numpy)


def _layouts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    big = rng.standard_normal((20, 24))
    readonly = big[:6, :5].copy()
    readonly.flags.writeable = False
    return {
        "C": big[:6, :5].copy(),
        "Fortran": np.asfortranarray(big[:6, :5]),
        "rows of a wider array": big[:6, :5],
        "columns of a Fortran array": np.asfortranarray(big)[3:9, 2:7],
        "every second row, every third column": big[::2, ::3],
        "reversed rows": big[:6, :5][::-1],
        "reversed columns": big[:6, :5][:, ::-1],
        "reversed twice": np.asfortranarray(big[:6, :5])[::-1, ::-1],
        "transposed view": big[:5, :6].T,
        "read-only": readonly,
        "broadcast row": np.broadcast_to(big[0, :5], (6, 5)),
        "broadcast column": np.broadcast_to(big[:6, :1], (6, 5)),
        "broadcast scalar": np.broadcast_to(big[0, 0], (6, 5)),
        "other byte order": big[:6, :5].astype(big.dtype.newbyteorder()),
        "one strided column": big[:, 3:4],
        "one row": big[3:4, ::2],
        "field of a record": np.array(
            [[(x, 1) for x in row] for row in big[:6, :5]], dtype=[("x", "f8"), ("y", "i1")]
        )["x"],
        "diagonal trick": np.lib.stride_tricks.as_strided(big, (6, 5), (8, 8)),
        # scipy.sparse gives one (todense, mean); array_api_compat does not take it for an array.
        "numpy.matrix": big[:6, :5].view(np.matrix),
        "float16": big[:6, :5].astype(np.float16),
        "int64 every second": np.arange(40).reshape(8, 5)[::2],
        "bool": big[:6, :5] > 0,
        "complex strided": (big + 1j)[::3, ::2],
    }


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("layout", list(_layouts(np.random.default_rng(0))))
def test_layouts(layout: str, rng: Any) -> None:
    A = _layouts(rng)[layout]
    before = np.array(A)
    op = as_operator(A)
    wide = before.astype("complex128" if before.dtype.kind == "c" else "float64")
    assert_products(op, wide)
    assert type(op.matmat(np.ones((A.shape[1], 1), op.dtype))) is np.ndarray
    assert np.array_equal(A, before)
    assert A.dtype == before.dtype


def test_half_precision_computes_in_float32_and_hands_out_half(rng: Any) -> None:
    op = as_operator(random(rng, 5, 4).astype(np.float16))
    assert op.dtype == np.float32
    assert op.arrays.out_dtype == np.float16


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_nothing_is_copied_that_blas_takes(dtype: str, order: str, rng: Any) -> None:
    A = np.asarray(random(rng, 20, 9, dtype), order=order)
    assert np.shares_memory(as_operator(A).dense(), A)
    assert np.shares_memory(as_operator(A[2:12, 1:7]).dense(), A)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_memory_map_is_not_read_into_memory(tmp_path: Path, mode: str, rng: Any) -> None:
    A = random(rng, 30, 8, "float32")
    np.save(tmp_path / "A.npy", A)
    mapped = np.load(tmp_path / "A.npy", mmap_mode=mode)
    op = as_operator(mapped)
    assert np.shares_memory(op.dense(), mapped)
    assert_products(op, A)
    assert type(op.matmat(np.ones((8, 1), np.float32))) is np.ndarray
    assert np.array_equal(np.load(tmp_path / "A.npy"), A)


def _tensors(torch: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int, dtype: Any = torch.float64) -> Any:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    Z = randn(6, 5, dtype=torch.complex128)
    return {
        "transposed": randn(5, 6).T,
        "strided": randn(12, 15)[::2, ::3],
        "expanded": randn(1, 5).expand(6, 5),
        "requires grad": randn(6, 5).requires_grad_(),
        "result of a graph": randn(6, 5).requires_grad_() * 2,
        "parameter": torch.nn.Parameter(randn(6, 5)),
        "conj view": Z.conj(),
        "adjoint view": Z.mH,
        "neg view": Z.conj().imag,
        "complex requires grad": randn(6, 5, dtype=torch.complex64).requires_grad_(),
        "bfloat16": randn(6, 5).to(torch.bfloat16),
        "float16": randn(6, 5).to(torch.float16),
        "bfloat16 requires grad": randn(6, 5).to(torch.bfloat16).requires_grad_(),
        "int32": torch.arange(30, dtype=torch.int32).reshape(6, 5),
        "bool": randn(6, 5) > 0,
        "uint16": torch.arange(30).reshape(6, 5).to(torch.uint16),
    }


_TENSORS = [
    "transposed",
    "strided",
    "expanded",
    "requires grad",
    "result of a graph",
    "parameter",
    "conj view",
    "adjoint view",
    "neg view",
    "complex requires grad",
    "bfloat16",
    "float16",
    "bfloat16 requires grad",
    "int32",
    "bool",
    "uint16",
]


@pytest.mark.parametrize("kind", _TENSORS)
def test_tensors(kind: str) -> None:
    torch = pytest.importorskip("torch")
    tensors = _tensors(torch)
    assert list(tensors) == _TENSORS
    A = tensors[kind]
    plain = A.detach().resolve_conj().resolve_neg()
    before = plain.clone()
    wide = before.to(torch.complex128 if A.is_complex() else torch.float64).numpy()
    op = as_operator(A)
    assert_products(op, wide)
    Y = op.matmat(op.arrays.put(np.ones((A.shape[1], 2))))
    assert not Y.requires_grad
    assert not Y.is_conj()
    half = {torch.bfloat16, torch.float16}
    assert op.dtype == (torch.float32 if A.dtype in half else Y.dtype)
    assert op.arrays.out_dtype == (A.dtype if A.is_floating_point() or A.is_complex() else op.dtype)
    assert torch.equal(A.detach().resolve_conj().resolve_neg(), before)
    assert A.grad is None if A.is_leaf else True


# ---- sparse matrices --------------------------------------------------------------------

FORMATS = ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"]


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("format_", FORMATS)
def test_sparse_formats(format_: str, kind: str, dtype: str, rng: Any) -> None:
    dense = random(rng, 12, 8, dtype) * (rng.random((12, 8)) < 0.3)
    A = getattr(scipy.sparse, f"{format_}_{kind}")(dense)
    op = as_operator(A)
    assert op.dtype == np.dtype(dtype)
    assert_products(op, dense)
    assert type(op.matmat(np.ones((8, 2), dtype))) is np.ndarray
    assert type(op.dense()) is np.ndarray
    assert np.array_equal(A.toarray(), dense)
    assert A.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["int32", "bool", "uint8", "int64"])
@pytest.mark.parametrize("format_", ["csr", "coo", "dok"])
def test_sparse_integers(format_: str, dtype: str, rng: Any) -> None:
    dense = (rng.integers(0, 9, (12, 8)) * (rng.random((12, 8)) < 0.3)).astype(dtype)
    op = as_operator(getattr(scipy.sparse, f"{format_}_array")(dense))
    assert op.dtype == np.float64
    assert_products(op, dense.astype(float))


def test_sparse_duplicates_add_up_and_stay(rng: Any) -> None:
    # Without summing them, max_abs and the Frobenius norm would be those of the pieces.
    data = np.array([1.0, 2.0, -2.5, 4.0, -3.0])
    rows, columns = np.array([0, 0, 2, 2, 1]), np.array([1, 1, 0, 0, 2])
    coo = scipy.sparse.coo_array((data, (rows, columns)), shape=(4, 3))
    csr = scipy.sparse.csr_array(
        (data, np.array([1, 1, 2, 0, 0]), np.array([0, 2, 3, 5, 5])), shape=(4, 3)
    )
    dense = np.zeros((4, 3))
    np.add.at(dense, (rows, columns), data)
    assert_products(as_operator(coo), dense)
    assert np.array_equal(coo.data, data)
    before = csr.data.copy(), csr.indices.copy(), csr.indptr.copy()
    assert_products(as_operator(csr), csr.toarray())
    after = csr.data, csr.indices, csr.indptr
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))
    assert as_operator(csr).max_abs() == 3.0
    assert csr.nnz == 5


def test_sparse_not_sorted_and_explicit_zeros() -> None:
    A = scipy.sparse.csr_array(
        (np.array([1.0, 2.0, 0.0]), np.array([2, 0, 1]), np.array([0, 2, 3])), shape=(2, 3)
    )
    assert_products(as_operator(A), A.toarray())
    assert A.indices.tolist() == [2, 0, 1]


@pytest.mark.parametrize("format_", FORMATS)
def test_sparse_without_entries(format_: str) -> None:
    A = getattr(scipy.sparse, f"{format_}_array")((5, 4), dtype=np.float32)
    op = as_operator(A)
    assert_products(op, np.zeros((5, 4), np.float32))
    assert op.max_abs() == 0.0
    assert op.frobenius_norm() == 0.0


def test_sparse_one_row_and_one_column() -> None:
    for dense in (np.array([[0.0, 2.0, 0.0]]), np.array([[0.0], [2.0]])):
        assert_products(as_operator(scipy.sparse.csr_array(dense)), dense)


def test_sparse_nan_shows_in_max_abs() -> None:
    A = scipy.sparse.csr_array(np.array([[1.0, np.nan], [0.0, 2.0]]))
    assert np.isnan(as_operator(A).max_abs())


# ---- operators --------------------------------------------------------------------------


class Blocks:
    """``matmat`` and ``rmatmat`` only."""

    def __init__(self, A: Any, **facts: Any) -> None:
        self._A = A
        self.shape, self.dtype = A.shape, A.dtype
        self.__dict__.update(facts)

    def matmat(self, X: Any) -> Any:
        return self._A @ X

    def rmatmat(self, X: Any) -> Any:
        A = self._A
        return (A.conj() if not hasattr(A, "mH") else A.mH.mT).T @ X


class Vectors:
    """``matvec`` and ``rmatvec`` only."""

    def __init__(self, A: np.ndarray, column: bool = False) -> None:
        self._A, self.shape, self.dtype = A, A.shape, A.dtype
        self._shape = (-1, 1) if column else (-1,)

    def matvec(self, x: np.ndarray) -> np.ndarray:
        assert x.ndim == 1
        return (self._A @ x).reshape(self._shape)

    def rmatvec(self, x: np.ndarray) -> np.ndarray:
        assert x.ndim == 1
        return (self._A.conj().T @ x).reshape(self._shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_every_library(backend: Any, dtype: str, rng: Any) -> None:
    A = random(rng, 9, 6, dtype)
    there = backend.asarray(A)
    xp = backend.xp

    class Operator:
        shape = (9, 6)

        def __init__(self) -> None:
            self.dtype, self.xp, self.device = there.dtype, xp, backend.device

        def matmat(self, X: Any) -> Any:
            assert backend.owns(X)
            return there @ X

        def rmatmat(self, X: Any) -> Any:
            assert backend.owns(X)
            return (xp.conj(there) if dtype.startswith("complex") else there).T @ X

    operator = Operator()
    assert isinstance(operator, MatrixLike)
    op = as_operator(operator)
    assert_products(op, A, backend.asarray, backend.to_numpy)
    assert op.max_abs() is None
    assert op.frobenius_norm() is None
    check_adjoint(op)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("column", [False, True])
def test_single_vectors_are_enough(dtype: str, column: bool, rng: Any) -> None:
    A = random(rng, 9, 6, dtype)
    assert not isinstance(Vectors(A), MatrixLike)
    assert_products(as_operator(Vectors(A, column)), A)


def test_a_torch_dtype_means_torch(rng: Any) -> None:
    torch = pytest.importorskip("torch")
    A = torch.asarray(random(rng, 9, 6))
    op = as_operator(Blocks(A))
    assert op.dtype == torch.float64
    assert_products(op, A.numpy())
    op = as_operator(Blocks(A, device="cpu"))
    assert op.arrays.device == torch.device("cpu")
    half = as_operator(Blocks(A.to(torch.bfloat16), device="cpu"))
    assert half.arrays.out_dtype == torch.bfloat16
    assert half.dtype == torch.float32


@pytest.mark.parametrize("kind", ["matmat", "matvec", "as", "sparse", "sum"])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_scipy_linear_operators(kind: str, dtype: str, rng: Any) -> None:
    A = random(rng, 9, 6, dtype)
    AH = A.conj().T
    operator = {
        "matmat": lambda: LinearOperator(
            A.shape,
            matvec=lambda x: A @ x,
            rmatvec=lambda x: AH @ x,
            matmat=lambda X: A @ X,
            rmatmat=lambda X: AH @ X,
            dtype=A.dtype,
        ),
        "matvec": lambda: LinearOperator(
            A.shape, matvec=lambda x: A @ x, rmatvec=lambda x: AH @ x, dtype=A.dtype
        ),
        "as": lambda: aslinearoperator(A),
        "sparse": lambda: aslinearoperator(scipy.sparse.csr_array(A)),
        "sum": lambda: aslinearoperator(A) * 2 - aslinearoperator(A),
    }[kind]()
    op = as_operator(operator)
    assert op.dtype == operator.dtype
    assert_products(op, A)
    check_adjoint(operator, rng=0)


def test_a_subclass_is_taken_as_it_is(rng: Any) -> None:
    op = as_operator(random(rng, 4, 3))
    assert as_operator(op) is op


def test_dense_of_a_large_operator(rng: Any) -> None:
    # More than one block of unit vectors, and from the side that has fewer.
    for shape in ((600, 520), (520, 600)):
        A = random(rng, *shape, "float32")
        op = as_operator(Blocks(A))
        assert np.array_equal(op.dense(), A)


# ---- refusals ---------------------------------------------------------------------------


def says(*words: str) -> str:
    """A pattern: all of the words, in this order."""
    return "(?s)" + ".*".join(re.escape(word) for word in words)


@pytest.mark.parametrize(
    ("A", "error", "words"),
    [
        ([[1.0, 2.0]], TypeError, ["builtins.list", "not a matrix", "numpy.asarray"]),
        (3.0, TypeError, ["builtins.float", "not a matrix"]),
        ("abc", TypeError, ["builtins.str", "not a matrix"]),
        (None, TypeError, ["NoneType", "not a matrix"]),
        (np.float64(3), ValueError, ["0 dimensions", "()", "reshape"]),
        (np.zeros(4), ValueError, ["1 dimensions", "(4,)", "reshape"]),
        (np.zeros((2, 3, 4)), ValueError, ["3 dimensions", "(2, 3, 4)", "reshape"]),
        (np.zeros((0, 4)), ValueError, ["(0, 4)", "without rows or columns"]),
        (np.zeros((4, 0)), ValueError, ["(4, 0)", "without rows or columns"]),
        (scipy.sparse.csr_array((0, 4)), ValueError, ["(0, 4)", "without rows or columns"]),
        (scipy.sparse.coo_array(np.zeros(4)), ValueError, ["1 dimensions", "(4,)"]),
        (np.full((2, 2), None), TypeError, ["dtype object", "convert to float32"]),
        (np.full((2, 2), "a"), TypeError, ["dtype str", "convert to float32"]),
        (np.zeros((2, 2), "M8[s]"), TypeError, ["dtype datetime64", "convert to float32"]),
        (np.zeros((2, 2), np.longdouble), TypeError, ["dtype", "convert to float32"]),
        (np.zeros((2, 2), np.clongdouble), TypeError, ["dtype", "convert to float32"]),
        (np.ma.masked_array(np.eye(2), np.eye(2)), TypeError, ["masked", "filled(0)"]),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, (type, list)) else "",
)
def test_what_is_no_matrix(A: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error, match=says(*words)):
        as_operator(A)


def _operator(**members: Any) -> Any:
    return type("Operator", (), members)()


def test_operators_that_lack_something(rng: Any) -> None:
    A = random(rng, 4, 3)
    with pytest.raises(
        TypeError, match=says("Operator", "shape (4, 3)", "no dtype", "numpy.dtype")
    ):
        as_operator(_operator(shape=(4, 3), matmat=None, rmatmat=None))
    with pytest.raises(TypeError, match=says("neither matmat nor matvec", "pass a dense array")):
        as_operator(_operator(shape=(4, 3), dtype=A.dtype))
    with pytest.raises(TypeError, match=says("neither rmatmat nor rmatvec", "pass a dense array")):
        as_operator(_operator(shape=(4, 3), dtype=A.dtype, matmat=lambda _, X: A @ X))
    with pytest.raises(ValueError, match=says("1 dimensions", "(4,)")):
        as_operator(_operator(shape=(4,), dtype=A.dtype))


def test_a_linear_operator_without_an_adjoint(rng: Any) -> None:
    A = random(rng, 4, 3)
    # Left to itself, SciPy fails with "'NoneType' object is not callable".
    op = as_operator(LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=A.dtype))
    assert op.matmat(np.ones((3, 2))).shape == (4, 2)
    with pytest.raises(TypeError, match=says("does not implement rmatmat", "adjoint", "rmatvec")):
        op.rmatmat(np.ones((4, 2)))


def test_products_of_a_wrong_kind(rng: Any) -> None:
    A = random(rng, 4, 3)
    X = np.ones((3, 2))
    op = as_operator(_operator(shape=(4, 3), dtype=A.dtype, matmat=lambda _, X: X, rmatmat=None))
    with pytest.raises(ValueError, match=says("matmat of", "(3, 2)", "must return", "(4, 2)")):
        op.matmat(X)
    flat = as_operator(
        _operator(shape=(4, 3), dtype=A.dtype, matmat=lambda _, X: (A @ X)[:, 0], rmatmat=None)
    )
    with pytest.raises(ValueError, match=says("returned", "(4,)", "must return", "(4, 1)")):
        flat.matmat(X[:, :1])
    nothing = as_operator(
        _operator(shape=(4, 3), dtype=A.dtype, matmat=lambda _, X: None, rmatmat=None)
    )
    with pytest.raises(ValueError, match=says("returned", "NoneType", "must return")):
        nothing.matmat(X)
    spinning = as_operator(
        _operator(shape=(4, 3), dtype=A.dtype, matmat=lambda _, X: 1j * A @ X, rmatmat=None)
    )
    with pytest.raises(TypeError, match=says("complex128", "float64", "declare a complex dtype")):
        spinning.matmat(X)


def test_products_in_another_precision_are_brought_to_the_one_declared(rng: Any) -> None:
    A = random(rng, 4, 3, "float32")
    wide = as_operator(
        _operator(
            shape=(4, 3), dtype=np.float64, matmat=lambda _, X: A @ X.astype("f4"), rmatmat=None
        )
    )
    assert wide.matmat(np.ones((3, 2))).dtype == np.float64


# ---- composites -------------------------------------------------------------------------


@pytest.fixture(params=["float32", "complex128"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_adjoint(backend: Any, dtype: str, shape: Any, rng: Any) -> None:
    A = random(rng, *shape, dtype)
    op = AdjointOperator(backend.asarray(A))
    assert_products(op, A.conj().T, backend.asarray, backend.to_numpy)
    assert op.max_abs() is not None
    assert op.frobenius_norm() is not None
    assert_products(AdjointOperator(op), A, backend.asarray, backend.to_numpy)


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_centered(backend: Any, dtype: str, shape: Any, rng: Any) -> None:
    A = random(rng, *shape, dtype) + np.asarray(0.5, dtype)
    op = CenteredOperator(backend.asarray(A))
    mean = A.mean(axis=0, dtype="complex128" if A.dtype.kind == "c" else "float64")
    eps = float(np.finfo(dtype).eps)
    got = backend.to_numpy(op.mean)
    assert got.shape == (shape[1],)
    assert got == pytest.approx(mean, rel=0, abs=shape[0] * eps * float(np.abs(A).max()))
    assert_products(op, A - mean, backend.asarray, backend.to_numpy)
    assert op.frobenius_norm() is not None
    check_adjoint(op)


def test_centered_about_something_else(backend: Any, dtype: str, rng: Any) -> None:
    A, mean = random(rng, 9, 6, dtype), random(rng, 6, 1, dtype)[:, 0]
    op = CenteredOperator(backend.asarray(A), backend.asarray(mean))
    assert np.array_equal(backend.to_numpy(op.mean), mean)
    assert_products(op, A - mean, backend.asarray, backend.to_numpy)
    assert op.frobenius_norm() is not None


def test_centered_sparse_stays_sparse(dtype: str, rng: Any) -> None:
    dense = random(rng, 12, 8, dtype) * (rng.random((12, 8)) < 0.3)
    op = CenteredOperator(scipy.sparse.csr_array(dense))
    exact = dense.astype("complex128" if dense.dtype.kind == "c" else "float64")
    assert_products(op, exact - exact.mean(axis=0))


def test_centered_norm_that_cancels_is_not_claimed() -> None:
    # Rows all but equal: ||A||^2 - m ||mean||^2 has no digits left.
    A = np.ones((50, 4)) + 1e-9 * np.random.default_rng(0).standard_normal((50, 4))
    assert CenteredOperator(A).frobenius_norm() is None


def test_centered_norm_of_an_operator_is_not_known(rng: Any) -> None:
    assert CenteredOperator(Blocks(random(rng, 5, 4))).frobenius_norm() is None
    assert CenteredOperator(Blocks(random(rng, 5, 4))).max_abs() is None


@pytest.mark.parametrize("shape", [(5,), (7,), (6, 1), ()])
def test_centered_refuses_a_mean_that_does_not_fit(shape: Any, rng: Any) -> None:
    with pytest.raises(ValueError, match=says("mean has shape", str(shape), "6 columns", "(6,)")):
        CenteredOperator(random(rng, 9, 6), np.zeros(shape))


def test_sum(backend: Any, dtype: str, rng: Any) -> None:
    parts = [random(rng, 9, 6, dtype) for _ in range(3)]
    op = SumOperator(*map(backend.asarray, parts))
    exact = sum(part.astype(np.result_type(dtype, "float64")) for part in parts)
    for p in (1, 3):
        X, Y = random(rng, 6, p, dtype), random(rng, 9, p, dtype)
        size = sum(np.abs(part) for part in parts)
        eps = op.arrays.eps
        got = backend.to_numpy(op.matmat(backend.asarray(X)))
        assert np.all(np.abs(got - exact @ X) <= 40 * eps * (size @ np.abs(X)))
        got = backend.to_numpy(op.rmatmat(backend.asarray(Y)))
        assert np.all(np.abs(got - exact.conj().T @ Y) <= 40 * eps * (size.T @ np.abs(Y)))
    assert backend.to_numpy(op.dense()) == pytest.approx(exact, rel=0, abs=40 * op.arrays.eps * 5)
    check_adjoint(op)


def test_sum_of_one(rng: Any) -> None:
    A = random(rng, 9, 6)
    assert_products(SumOperator(A), A)


def test_sum_of_dtypes_takes_the_widest(rng: Any) -> None:
    single, spin = random(rng, 9, 6, "float32"), random(rng, 9, 6, "complex64")
    double, integer = random(rng, 9, 6), rng.integers(0, 9, (9, 6))
    assert SumOperator(single, double).dtype == np.float64
    assert SumOperator(single, integer).dtype == np.float64
    assert SumOperator(single, spin).dtype == np.complex64
    op = SumOperator(scipy.sparse.csr_array(spin), double)
    assert op.dtype == np.complex128
    # The complex64 term is multiplied in its own precision.
    X = random(rng, 6, 2, "complex128")
    assert op.matmat(X).dtype == np.complex128
    assert op.matmat(X) == pytest.approx((spin + double) @ X, rel=1e-5, abs=1e-5)
    Y = random(rng, 9, 2, "complex128")
    assert op.rmatmat(Y) == pytest.approx((spin + double).conj().T @ Y, rel=1e-5, abs=1e-5)


def test_a_real_term_of_a_complex_sum(backend: Any, rng: Any) -> None:
    # The block must not be cast to the dtype of the real term: its imaginary part counts.
    real, spin = random(rng, 9, 6), random(rng, 9, 6, "complex128")
    op = SumOperator(backend.asarray(real), backend.asarray(spin))
    assert_products(op, real + spin, backend.asarray, backend.to_numpy)


def test_sum_refusals(backend: Any, rng: Any) -> None:
    A = random(rng, 4, 3)
    with pytest.raises(ValueError, match="at least one term"):
        SumOperator()
    with pytest.raises(ValueError, match=says("shapes (4, 3) and (3, 4)", "must agree")):
        SumOperator(backend.asarray(A), backend.asarray(A.T))
    if backend.name != "numpy":
        with pytest.raises(TypeError, match=says("live in", "bring them to one library")):
            SumOperator(A, backend.asarray(A))


def test_low_rank_update(backend: Any, dtype: str, rng: Any) -> None:
    A, U, V = (random(rng, *shape, dtype) for shape in ((9, 6), (9, 2), (6, 2)))
    op = LowRankUpdate(*map(backend.asarray, (A, U, V)))
    wide = [X.astype(np.result_type(dtype, "float64")) for X in (A, U, V)]
    exact = wide[0] + wide[1] @ wide[2].conj().T
    X = random(rng, 6, 3, dtype)
    bound = np.abs(A) @ np.abs(X) + np.abs(U) @ (np.abs(V).T @ np.abs(X))
    got = backend.to_numpy(op.matmat(backend.asarray(X)))
    assert np.all(np.abs(got - exact @ X) <= 60 * op.arrays.eps * bound)
    Y = random(rng, 9, 3, dtype)
    bound = np.abs(A).T @ np.abs(Y) + np.abs(V) @ (np.abs(U).T @ np.abs(Y))
    got = backend.to_numpy(op.rmatmat(backend.asarray(Y)))
    assert np.all(np.abs(got - exact.conj().T @ Y) <= 60 * op.arrays.eps * bound)
    size = np.linalg.norm(exact)
    # Three squares are added that are at most a few times the result's.
    assert op.frobenius_norm() == pytest.approx(size, rel=100 * op.arrays.eps)
    assert op.frobenius_norm(0.5) == pytest.approx(0.5 * size, rel=100 * op.arrays.eps)
    assert op.max_abs() is None
    assert backend.to_numpy(op.dense()) == pytest.approx(
        exact, rel=0, abs=100 * op.arrays.eps * size
    )
    check_adjoint(op)


def test_low_rank_update_norm_that_cancels_is_not_claimed(rng: Any) -> None:
    U, V = random(rng, 9, 2), random(rng, 6, 2)
    assert LowRankUpdate(-U @ V.T + 1e-9, U, V).frobenius_norm() is None


@pytest.mark.parametrize(
    ("U", "V"), [((9, 2), (5, 2)), ((8, 2), (6, 2)), ((9, 2), (6, 3)), ((9,), (6,))]
)
def test_low_rank_update_refuses_factors_that_do_not_fit(U: Any, V: Any, rng: Any) -> None:
    with pytest.raises(ValueError, match=says(str(U), str(V), "(9, 6)", "(9, r) and (6, r)")):
        LowRankUpdate(random(rng, 9, 6), np.zeros(U), np.zeros(V))


def test_composites_of_composites(backend: Any, rng: Any) -> None:
    A, B = random(rng, 9, 6, "complex128"), random(rng, 6, 9, "complex128")
    u, v = random(rng, 9, 1, "complex128"), random(rng, 6, 1, "complex128")
    put = backend.asarray
    update = LowRankUpdate(SumOperator(put(A), AdjointOperator(put(B))), put(u), put(v))
    exact = A + B.conj().T + u @ v.conj().T
    exact = exact - exact.mean(axis=0)
    op = CenteredOperator(update)
    X, Y = random(rng, 6, 2, "complex128"), random(rng, 9, 2, "complex128")
    got = backend.to_numpy(op.matmat(put(X))), backend.to_numpy(op.rmatmat(put(Y)))
    assert got[0] == pytest.approx(exact @ X, rel=0, abs=1e-12)
    assert got[1] == pytest.approx(exact.conj().T @ Y, rel=0, abs=1e-12)
    check_adjoint(op)


# ---- the adjoint check ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (1, 30), (30, 1), (1, 1)])
def test_a_right_adjoint_passes(backend: Any, dtype: str, shape: Any, rng: Any) -> None:
    A = backend.asarray(random(rng, *shape, dtype))
    for seed in range(5):
        check_adjoint(A, rng=seed)
    check_adjoint(A)
    check_adjoint(A, rng=np.random.default_rng(3))


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100, 1e200])
def test_a_right_adjoint_passes_at_any_scale(scale: float, rng: Any) -> None:
    check_adjoint(scale * random(rng, 20, 10), rng=0)
    with pytest.raises(AdjointError):
        check_adjoint(_pair(scale * random(rng, 10, 10), lambda A: A), rng=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_right_adjoint_passes_at_any_scale_of_float32(scale: float, rng: Any) -> None:
    check_adjoint((scale * random(rng, 20, 10)).astype(np.float32), rng=0)


def test_the_zero_matrix_passes(backend: Any) -> None:
    check_adjoint(backend.asarray(np.zeros((5, 4))))


def _pair(A: np.ndarray, wrong: Callable[[np.ndarray], np.ndarray]) -> Any:
    back = wrong(A)
    return _operator(
        shape=A.shape, dtype=A.dtype, matmat=lambda _, X: A @ X, rmatmat=lambda _, X: back @ X
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "wrong",
    [
        lambda A: A,  # forgot to transpose
        lambda A: 1.01 * A.conj().T,
        lambda A: -A.conj().T,
        lambda A: A.conj().T[::-1],
        lambda A: 0 * A.conj().T,
        lambda A: np.triu(A).conj().T,
    ],
    ids=["not transposed", "scaled", "sign", "permuted", "zero", "half of it"],
)
def test_a_wrong_adjoint_raises(wrong: Any, dtype: str, seed: int, rng: Any) -> None:
    A = random(rng, 30, 30, dtype)
    with pytest.raises(AdjointError, match=says("rmatmat is not the adjoint", "must", "conj().T")):
        check_adjoint(_pair(A, lambda A: wrong(A).astype(dtype)), rng=seed)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_transpose_without_conjugation_raises(dtype: str, rng: Any) -> None:
    with pytest.raises(AdjointError):
        check_adjoint(_pair(random(rng, 30, 20, dtype), lambda A: A.T), rng=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_the_adjoint_check_meets_nan(bad: float, rng: Any) -> None:
    A = random(rng, 5, 4)
    broken = A.copy()
    broken[2, 1] = bad
    with pytest.raises(ValueError, match=says("product with A has entries that are not finite")):
        check_adjoint(broken)
    with pytest.raises(ValueError, match=says("A^H has entries that are not finite", "scale A")):
        check_adjoint(_pair(A, lambda _: broken.T))


def test_an_update_of_what_has_no_norm_has_none(rng):
    A, U, V = rng.standard_normal((6, 4)), rng.standard_normal((6, 1)), rng.standard_normal((4, 1))
    hidden = aslinearoperator(A)
    assert LowRankUpdate(hidden, U, V).frobenius_norm() is None
    known = LowRankUpdate(A, U, V).frobenius_norm()
    assert known == pytest.approx(np.linalg.norm(A + U @ V.T), rel=1e-13)


def test_an_error_of_the_operator_is_its_own(rng):
    """Only what SciPy says of a missing product is put in other words."""

    class Broken:
        shape, dtype = (6, 4), np.dtype("float64")

        def matmat(self, X):
            raise TypeError("unsupported operand")

        rmatmat = matmat

    with pytest.raises(TypeError, match="^unsupported operand$"):
        trsvd.svds(Broken(), 2)


def test_operators_are_shown_in_a_line(rng):
    A = scipy.sparse.random_array((50, 30), density=0.1, rng=rng, dtype="float32")
    centred = CenteredOperator(A)
    factors = np.ones((50, 2), "float32"), np.ones((30, 2), "float32")
    shown = {
        as_operator(A): "SparseMatrix(50 x 30, float32, of scipy.csr_array)",
        as_operator(np.eye(3, 2, dtype=int)): "ArrayMatrix(3 x 2, float64, of numpy.ndarray)",
        centred: "CenteredOperator(50 x 30, float32, of scipy.csr_array)",
        AdjointOperator(centred): (
            "AdjointOperator(30 x 50, float32, of CenteredOperator of scipy.csr_array)"
        ),
        LowRankUpdate(A, *factors): (
            "LowRankUpdate(50 x 30, float32, of scipy.csr_array and rank 2)"
        ),
        SumOperator(A, centred): (
            "SumOperator(50 x 30, float32, of scipy.csr_array + CenteredOperator of "
            "scipy.csr_array)"
        ),
        SumOperator(*[np.eye(2)] * 5): (
            "SumOperator(2 x 2, float64, of numpy.ndarray + numpy.ndarray + numpy.ndarray + 2 more)"
        ),
        as_operator(aslinearoperator(A)): (
            "WrappedOperator(50 x 30, float32, of scipy.MatrixLinearOperator)"
        ),
        CenteredOperator(aslinearoperator(A)): (
            "CenteredOperator(50 x 30, float32, of scipy.MatrixLinearOperator)"
        ),
    }
    for op, text in shown.items():
        assert repr(op) == text


class Identity(MatrixOperator):
    """Of order 3."""

    def __init__(self):
        known = as_operator(np.eye(3))
        self.shape, self.arrays = known.shape, known.arrays

    def matmat(self, X):
        return X

    rmatmat = matmat


def test_an_operator_of_a_user_is_shown_with_its_shape():
    assert repr(Identity()) == "Identity(3 x 3, float64)"
    shown = repr(AdjointOperator(Identity()))
    assert shown == "AdjointOperator(3 x 3, float64, of test_operators.Identity)"
