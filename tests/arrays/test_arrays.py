"""The functions of `trsvd._arrays.arrays`, on every library, against NumPy.

Sums of n terms are good to n eps of the sum of moduli, and small factorizations to n eps ||A||.
"""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from trsvd._arrays.arrays import Arrays, is_array
from trsvd._arrays.dtypes import describe, dtype_name, is_sparse

DTYPES = ["float32", "float64", "complex64", "complex128"]


@pytest.fixture(params=DTYPES)
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def arrays(backend: Any, dtype: str) -> Arrays:
    return Arrays.of_dtype(backend.xp, backend.device, backend.dtype(dtype))


@pytest.fixture
def block(dtype: str, rng: np.random.Generator) -> Any:
    """Function ``(m, n)``: a random host block."""

    def draw(m: int, n: int) -> np.ndarray:
        X = rng.standard_normal((m, n))
        return (X + 1j * rng.standard_normal((m, n)) if dtype[0] == "c" else X).astype(dtype)

    return draw


# ---- what an array is -------------------------------------------------------------------


def test_is_array(backend: Any) -> None:
    assert is_array(backend.asarray(np.eye(2)))
    assert not is_sparse(backend.asarray(np.eye(2)))


@pytest.mark.parametrize("x", [[[1.0]], 1.0, "a", None, scipy.sparse.csr_array(np.eye(2)), np.eye])
def test_is_no_array(x: Any) -> None:
    assert not is_array(x)


def test_is_sparse() -> None:
    for kind in (scipy.sparse.csr_array, scipy.sparse.csc_matrix, scipy.sparse.dok_array):
        assert is_sparse(kind(np.eye(2)))
    assert not is_sparse(scipy.sparse.linalg.aslinearoperator(np.eye(2)))
    assert not is_sparse(scipy.sparse)


@pytest.mark.parametrize("name", ["float32", "float64", "complex64", "complex128", "int32", "bool"])
def test_dtype_name(backend: Any, name: str) -> None:
    assert dtype_name(backend.dtype(name)) == name
    assert dtype_name(name) == name


def test_dtype_name_of_numpy_types() -> None:
    assert dtype_name(np.float32) == "float32"
    assert dtype_name(np.dtype(">f8")) == "float64"
    assert dtype_name(float) == "float64"


def test_dtype_name_of_torch_half() -> None:
    torch = pytest.importorskip("torch")
    assert dtype_name(torch.bfloat16) == "bfloat16"
    assert dtype_name(torch.half) == "float16"


def test_describe(backend: Any) -> None:
    text = describe(backend.asarray(np.zeros((2, 3), np.float32)))
    assert "2, 3" in text
    assert "float32" in text
    assert describe([1]) == "builtins.list"


# ---- making one -------------------------------------------------------------------------


def test_of_array(backend: Any, dtype: str) -> None:
    arrays = Arrays.of_array(backend.asarray(np.zeros((2, 3), dtype)))
    assert arrays.xp is backend.xp
    assert arrays.device == backend.device
    assert arrays.dtype == arrays.out_dtype == backend.dtype(dtype)
    assert arrays.dtype_name == dtype


def test_facts(arrays: Arrays, dtype: str, backend: Any) -> None:
    single = dtype in {"float32", "complex64"}
    is_complex = dtype.startswith("complex")
    assert arrays.dtype == backend.dtype(dtype)
    assert arrays.real_dtype == backend.dtype("float32" if single else "float64")
    assert arrays.is_complex is is_complex
    assert arrays.host_dtype == np.dtype(dtype)
    assert arrays.wide_dtype == np.dtype("complex128" if is_complex else "float64")
    assert arrays.eps == (2.0**-23 if single else 2.0**-52)
    assert arrays.reads_are_cheap is (backend.name in {"numpy", "torch"})


@pytest.mark.parametrize(
    ("given", "compute", "out"),
    [
        ("float16", "float32", "float16"),
        ("bool", "float64", "float64"),
        ("int8", "float64", "float64"),
        ("uint64", "float64", "float64"),
    ],
)
def test_compute_and_output_dtypes(numpy_backend: Any, given: str, compute: str, out: str) -> None:
    arrays = Arrays.of_dtype(numpy_backend.xp, numpy_backend.device, np.dtype(given))
    assert arrays.dtype_name == compute
    assert arrays.out_dtype == np.dtype(out)


@pytest.mark.parametrize("given", ["longdouble", "object", "U3", "M8[s]", "V4"])
def test_other_dtypes_are_refused(numpy_backend: Any, given: str) -> None:
    with pytest.raises(TypeError, match="cannot be computed with; convert to float32, float64"):
        Arrays.of_dtype(numpy_backend.xp, numpy_backend.device, np.dtype(given))


def test_common(backend: Any) -> None:
    one, two, three = (
        Arrays.of_dtype(backend.xp, backend.device, backend.dtype(name))
        for name in ("float32", "complex64", "float64")
    )
    assert Arrays.common([one]).dtype_name == "float32"
    assert Arrays.common([one, two]).dtype_name == "complex64"
    assert Arrays.common([two, three]).dtype_name == "complex128"
    assert Arrays.common([two, three]).xp is backend.xp
    assert Arrays.common([two, three]).device == backend.device


def test_common_refuses_two_devices() -> None:
    strict = pytest.importorskip("array_api_strict")
    parts = [
        Arrays.of_dtype(strict, strict.Device(name), strict.float64)
        for name in ("device1", "device2")
    ]
    with pytest.raises(TypeError, match=r"device1.*device2.*bring them to one library and device"):
        Arrays.common(parts)


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_pickle(arrays: Arrays, copied: Any, backend: Any) -> None:
    again = copied(arrays)
    assert again == arrays
    assert again.xp is arrays.xp
    assert again.dtype == arrays.dtype
    assert backend.owns(again.zeros(2, 3))


def test_pickle_of_half() -> None:
    torch = pytest.importorskip("torch")
    arrays = Arrays.of_array(torch.zeros((2, 2), dtype=torch.bfloat16))
    again = pickle.loads(pickle.dumps(arrays))
    assert again == arrays
    assert again.out_dtype is torch.bfloat16
    assert again.dtype is torch.float32


# ---- to and fro -------------------------------------------------------------------------


def test_put_and_get(arrays: Arrays, backend: Any, block: Any, dtype: str) -> None:
    for X in (
        block(5, 3),
        np.asfortranarray(block(5, 3)),
        block(6, 6)[::-2, ::2],
        block(5, 1)[:, 0],
    ):
        there = arrays.put(X)
        assert backend.owns(there)
        assert there.dtype == arrays.dtype
        here = arrays.get(there)
        assert type(here) is np.ndarray
        assert here.dtype == np.dtype(dtype)
        assert np.array_equal(here, X)


def test_put_rounds_to_the_compute_dtype(arrays: Arrays) -> None:
    there = arrays.put(np.array([[1 / 3]]))
    assert arrays.get(there)[0, 0] == np.asarray(1 / 3, arrays.host_dtype)


def test_get_of_lazy_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1 + 2j, 3 - 1j]])
    arrays = Arrays.of_array(x)
    assert np.array_equal(arrays.get(x.conj()), [[1 - 2j, 3 + 1j]])
    assert np.array_equal(arrays.get(x.mH), [[1 - 2j], [3 + 1j]])
    assert np.array_equal(arrays.get(x.conj().imag), [[-2, 1]])  # its negative bit is set
    assert np.array_equal(arrays.get(x.requires_grad_()), [[1 + 2j, 3 - 1j]])


def test_take_brings_to_the_dtype_and_copies_only_if_it_must(
    arrays: Arrays, backend: Any, block: Any
) -> None:
    X = backend.asarray(block(4, 3))
    assert backend.owns(arrays.take(X))
    if backend.name in {"numpy", "torch"}:
        assert arrays.take(X) is X or np.shares_memory(arrays.get(arrays.take(X)), arrays.get(X))
    single = backend.asarray(np.ones((4, 3), np.float32))
    assert arrays.take(single).dtype == arrays.dtype
    assert arrays.like(single).dtype == arrays.dtype
    assert np.array_equal(arrays.get(arrays.take(single)), np.ones((4, 3)))


def test_gaussian_is_the_same_on_every_library(
    arrays: Arrays, backend: Any, numpy_backend: Any, dtype: str
) -> None:
    X = arrays.gaussian(np.random.default_rng(3), 50, 4)
    assert backend.owns(X)
    assert X.shape == (50, 4)
    assert X.dtype == arrays.dtype
    host = Arrays.of_dtype(numpy_backend.xp, numpy_backend.device, np.dtype(dtype))
    assert np.array_equal(arrays.get(X), host.gaussian(np.random.default_rng(3), 50, 4))


def test_gaussian_is_standard_normal(arrays: Arrays) -> None:
    X = arrays.get(arrays.gaussian(np.random.default_rng(3), 400, 100))
    count = X.size
    for part in (X.real, X.imag) if arrays.is_complex else (X,):
        # The mean and the variance of `count` numbers, five standard deviations.
        assert abs(part.mean()) < 5 / count**0.5
        assert abs(part.var() - 1) < 5 * (2 / count) ** 0.5


def test_gaussian_columns_do_not_depend_on_their_number(arrays: Arrays) -> None:
    one, two = (arrays.gaussian(np.random.default_rng(3), 9, w) for w in (1, 4))
    if not arrays.is_complex:
        assert np.array_equal(arrays.get(one)[:, 0], arrays.get(two)[:, 0])


def test_zeros(arrays: Arrays, backend: Any) -> None:
    X = arrays.zeros(3, 2)
    assert backend.owns(X)
    assert X.dtype == arrays.dtype
    assert np.array_equal(arrays.get(X), np.zeros((3, 2)))
    assert arrays.zeros(0, 4).shape == (0, 4)


def test_hand_out(backend: Any, dtype: str) -> None:
    arrays = Arrays.of_dtype(backend.xp, backend.device, backend.dtype(dtype))
    assert arrays.hand_out(arrays.zeros(2, 2)).dtype == backend.dtype(dtype)
    S = arrays.hand_out_values(np.array([2.0, 1.0]))
    assert backend.owns(S)
    assert S.dtype == arrays.real_dtype
    assert np.array_equal(arrays.get(S), [2, 1])
    assert arrays.hand_out_values(np.zeros(0)).shape == (0,)


def test_hand_out_half_and_integers() -> None:
    half = Arrays.of_array(np.zeros((2, 2), np.float16))
    assert half.hand_out(half.zeros(2, 2)).dtype == np.float16
    assert half.hand_out_values(np.array([2.0])).dtype == np.float16
    whole = Arrays.of_array(np.zeros((2, 2), np.int8))
    assert whole.hand_out_values(np.array([2.0])).dtype == np.float64


@pytest.mark.parametrize(
    ("given", "largest"), [("float16", 65504.0), ("float32", 3.4e38), ("complex64", 3.4e38)]
)
def test_values_that_overflow_are_refused(given: str, largest: float) -> None:
    arrays = Arrays.of_array(np.zeros((2, 2), given))
    assert np.isfinite(arrays.hand_out_values(np.array([largest]))[0])
    with pytest.raises(ValueError, match=r"exceeds the range of .*convert A to a wider dtype"):
        arrays.hand_out_values(np.array([2 * largest, 1.0]))


# ---- products ---------------------------------------------------------------------------


def test_conjugates_and_adjoints(arrays: Arrays, backend: Any, block: Any) -> None:
    A, X = block(7, 4), block(7, 3)
    put, get = arrays.put, arrays.get
    assert np.array_equal(get(arrays.conj(put(A))), A.conj())
    assert np.array_equal(get(arrays.adjoint(put(A))), A.conj().T)
    product = arrays.adjoint_product(put(A), put(X))
    assert backend.owns(product)
    bound = 8 * arrays.eps * (np.abs(A).T @ np.abs(X))
    assert np.all(np.abs(get(product) - A.conj().T @ X) <= bound)


def test_real_inner(arrays: Arrays, block: Any) -> None:
    X, Y = block(7, 4), block(7, 4)
    inner = arrays.real_inner(arrays.put(X), arrays.put(Y))
    assert type(inner) is float
    true = float(np.real(np.vdot(X.astype("c16"), Y.astype("c16"))))
    assert inner == pytest.approx(true, rel=0, abs=56 * arrays.eps * float(np.vdot(abs(X), abs(Y))))


@pytest.mark.parametrize("w", [0, 1, 4])
def test_column_norms(arrays: Arrays, backend: Any, block: Any, w: int) -> None:
    X = block(30, w)
    norms = arrays.column_norms(arrays.put(X))
    assert backend.owns(norms)
    assert norms.dtype == arrays.real_dtype
    assert norms.shape == (w,)
    true = np.linalg.norm(X.astype("c16"), axis=0)
    assert arrays.get(norms) == pytest.approx(true, rel=30 * arrays.eps)


def test_sparse_product(rng: Any) -> None:
    A = scipy.sparse.random_array((6, 5), density=0.4, rng=rng, format="csr")
    arrays = Arrays.of_sparse(A)
    for w in (1, 3):
        X = rng.standard_normal((5, w))
        Y = arrays.sparse_product(A, X)
        assert Y.shape == (6, w)
        assert pytest.approx(A.toarray() @ X, rel=1e-13) == Y


@pytest.mark.parametrize("shift", [-7, -1, 0, 1, 3, 5, 6, 13])
def test_roll(arrays: Arrays, block: Any, shift: int) -> None:
    X = block(5, 2)
    rolled = arrays.get(arrays.roll(arrays.put(X), shift))
    assert np.array_equal(rolled, np.roll(X, shift, axis=0))


def test_replace(arrays: Arrays, backend: Any, block: Any) -> None:
    X, fresh = block(5, 3), block(5, 3)
    for bad in ([False, True, False], [True, True, True], [False, False, False]):
        flags = backend.asarray(np.array(bad))
        got = arrays.replace(flags, lambda: arrays.put(fresh), arrays.put(X))
        assert backend.owns(got)
        assert np.array_equal(arrays.get(got), np.where(bad, fresh, X))


def test_peek_looks_only_where_it_is_cheap(arrays: Arrays, backend: Any) -> None:
    for value in (True, False):
        flag = backend.asarray(np.array(value))
        assert arrays.peek(flag) is (value if arrays.reads_are_cheap else None)


# ---- small factorizations ---------------------------------------------------------------


def test_cholesky_inverse(arrays: Arrays, block: Any) -> None:
    X = block(30, 4)
    X = X / np.linalg.norm(X, axis=0)
    G = X.conj().T @ X
    factors = arrays.cholesky_inverse(arrays.put(G))
    if not arrays.reads_are_cheap:
        assert factors is None
        return
    L, inverse = map(arrays.get, factors)
    level = 30 * arrays.eps * np.linalg.cond(G)
    assert np.abs(L @ L.conj().T - G).max() <= level
    assert np.abs(inverse @ L - np.eye(4)).max() <= level
    assert not np.triu(L, 1).any()


@pytest.mark.parametrize("distance", [0.0, 1e-9])
def test_cholesky_inverse_declines_dependent_columns(
    arrays: Arrays, block: Any, distance: float
) -> None:
    X = block(30, 3)
    X[:, 2] = X[:, 0] + distance * X[:, 2]
    X = X / np.linalg.norm(X, axis=0)
    assert arrays.cholesky_inverse(arrays.put(X.conj().T @ X)) is None


def test_cholesky_inverse_declines_nan(arrays: Arrays) -> None:
    G = np.eye(3)
    G[0, 1] = G[1, 0] = np.nan
    assert arrays.cholesky_inverse(arrays.put(G)) is None


def test_eigh(arrays: Arrays, backend: Any, block: Any) -> None:
    X = block(6, 6)
    G = X + X.conj().T
    values, vectors = arrays.eigh(arrays.put(G))
    assert backend.owns(values)
    assert backend.owns(vectors)
    values, vectors = arrays.get(values), arrays.get(vectors)
    assert np.all(np.diff(values) <= 0)
    level = 60 * arrays.eps * np.linalg.norm(G, 2)
    assert np.abs(G @ vectors - vectors * values).max() <= level
    assert np.abs(vectors.conj().T @ vectors - np.eye(6)).max() <= 60 * arrays.eps


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_eigh_of_nan_is_nan(arrays: Arrays) -> None:
    G = np.eye(3)
    G[0, 1] = G[1, 0] = np.nan
    values, vectors = arrays.eigh(arrays.put(G))
    assert values.shape == (3,)
    assert vectors.shape == (3, 3)
    assert np.isnan(arrays.get(values)).any()


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (1, 4), (4, 1)])
def test_svd(arrays: Arrays, backend: Any, block: Any, shape: tuple[int, int]) -> None:
    A = block(*shape)
    U, S, Vh = arrays.svd(arrays.put(A))
    assert backend.owns(U)
    assert backend.owns(Vh)
    assert type(S) is np.ndarray
    assert S.dtype == np.float64
    assert np.all(np.diff(S) <= 0)
    again = (arrays.get(U) * S.astype(arrays.host_dtype)) @ arrays.get(Vh)
    assert np.abs(again - A).max() <= 20 * sum(shape) * arrays.eps * np.linalg.norm(A, 2)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_gram_eigh(arrays: Arrays, backend: Any, k: int, dtype: str, spectrum_matrix: Any) -> None:
    s = np.array([1.0, 0.8, 0.5, 0.3, 0.2, 0.1])
    A, _, Vh = spectrum_matrix(40, 6, s, dtype, 0, factors=True)
    V = arrays.gram_eigh(arrays.gram(arrays.put(A)), k)
    assert backend.owns(V)
    assert V.dtype == arrays.dtype
    V = arrays.get(V)
    assert V.shape == (6, k)
    # Vectors of A^H A are off by eps ||A||^2 / gap, and those of A's rounding by eps ||A|| / gap;
    # the smallest gap of s^2 is 0.03 (and between the last and 0, 0.01).
    overlap = np.abs(np.sum(Vh[:k] * V.T, axis=1))
    assert overlap == pytest.approx(np.ones(k), abs=10 * 40 * arrays.eps / 0.01)


def test_gram_eigh_does_not_lose_half_the_digits_of_float32(backend: Any) -> None:
    # s_2 / s_1 = 1e-5 is below sqrt(eps) of float32: a Gram matrix in float32 has no trace of it.
    A = np.zeros((30, 3), np.float32)
    A[:3] = np.diag([1.0, 1e-5, 1e-6]).astype(np.float32)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    A = (A @ rotation).astype(np.float32)
    exact = np.linalg.svd(A.astype(np.float64))[2]
    arrays = Arrays.of_dtype(backend.xp, backend.device, backend.dtype("float32"))
    V = arrays.get(arrays.gram_eigh(arrays.gram(arrays.put(A)), 2))
    # In double precision the gap 1e-10 of the Gram matrix leaves an error of eps / 1e-10.
    assert abs(exact[1] @ V[:, 1]) == pytest.approx(1, abs=1e-5)


def test_gram_eigh_in_panels(numpy_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    A = np.random.default_rng(0).standard_normal((103, 4))
    arrays = Arrays.of_array(A)
    whole, norm = arrays.gram_eigh(arrays.gram(A), 2), arrays.frobenius_norm(A, 1.0)
    monkeypatch.setattr("trsvd._arrays.reductions._PANEL_BYTES", 8 * 4 * 10)
    monkeypatch.setattr("trsvd._arrays.reductions._SMALL_PANEL", 8 * 4 * 10)
    parts = arrays.gram_eigh(arrays.gram(A), 2)
    assert np.abs(np.sum(whole * parts, axis=0)) == pytest.approx(1, abs=1e-12)
    assert arrays.frobenius_norm(A, 1.0) == pytest.approx(norm, rel=1e-14)
    assert norm == pytest.approx(np.linalg.norm(A), rel=1e-14)


# ---- phases -----------------------------------------------------------------------------


def test_fix_phases(arrays: Arrays, backend: Any, block: Any) -> None:
    U, V = block(9, 4), block(6, 4)
    V[:, 2] = 0
    fixed = arrays.fix_phases(arrays.put(U), arrays.put(V))
    assert all(backend.owns(X) for X in fixed)
    assert all(X.dtype == arrays.dtype for X in fixed)
    left, right = map(arrays.get, fixed)
    lead = np.abs(U).argmax(axis=0)
    entries = left[lead, np.arange(4)]
    tol = 10 * arrays.eps * np.abs(U).max()
    assert np.all(entries.real > 0)
    assert np.all(np.abs(entries.imag) <= tol)
    # One unit number a column, the same on both sides.
    before, after = U[:, None] * V.conj()[None], left[:, None] * right.conj()[None]
    assert np.abs(after - before).max() <= 10 * arrays.eps * np.abs(before).max()
    assert np.abs(np.abs(left) - np.abs(U)).max() <= tol
    again = arrays.get(arrays.fix_phases(*fixed)[0])
    assert np.abs(again - left).max() <= tol


def test_fix_phases_of_equal_moduli_takes_the_first(arrays: Arrays) -> None:
    U = np.array([[-0.5, 0.5], [0.5, -0.5]])
    left, right = map(arrays.get, arrays.fix_phases(arrays.put(U), arrays.put(np.eye(2))))
    assert np.array_equal(left, [[0.5, 0.5], [-0.5, -0.5]])
    assert np.array_equal(right, [[-1, 0], [0, 1]])


def test_fix_phases_of_zero_columns(arrays: Arrays) -> None:
    U, V = np.zeros((3, 2)), np.ones((4, 2))
    left, right = map(arrays.get, arrays.fix_phases(arrays.put(U), arrays.put(V)))
    assert np.array_equal(left, U)
    assert np.array_equal(right, V)


# ---- sizes ------------------------------------------------------------------------------


def test_max_abs(arrays: Arrays, block: Any) -> None:
    A = block(6, 5)
    largest = max(np.abs(A.real).max(), np.abs(A.imag).max())
    assert arrays.max_abs(arrays.put(A)) == largest
    assert type(arrays.max_abs(arrays.put(A))) is float
    A[2, 3] = -9
    assert arrays.max_abs(arrays.put(A)) == 9
    assert arrays.max_abs(arrays.put(np.zeros((2, 2)))) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (2, 3), (5, 4)])
def test_max_abs_shows_what_is_not_finite(
    arrays: Arrays, block: Any, bad: float, at: tuple[int, int]
) -> None:
    A = block(6, 5)
    A[at] = bad
    got = arrays.max_abs(arrays.put(A))
    assert np.isnan(got) if np.isnan(bad) else got == np.inf
    if arrays.is_complex:
        A[at] = complex(0, bad)
        got = arrays.max_abs(arrays.put(A))
        assert np.isnan(got) if np.isnan(bad) else got == np.inf


def test_max_abs_of_nan_and_inf_is_nan(arrays: Arrays, block: Any) -> None:
    A = block(6, 5)
    A[0, 0], A[1, 1] = np.inf, np.nan
    assert np.isnan(arrays.max_abs(arrays.put(A)))


@pytest.mark.parametrize("scale", [1.0, 0.25, 1e-3])
def test_frobenius_norm(arrays: Arrays, block: Any, scale: float) -> None:
    A = block(40, 5)
    got = arrays.frobenius_norm(arrays.put(A), scale)
    assert type(got) is float
    # The modulus and the scaling are rounded once each; the sum is in double precision.
    true = scale * float(np.linalg.norm(A.astype("c16")))
    assert got == pytest.approx(true, rel=3 * arrays.eps)


def test_frobenius_norm_keeps_small_terms_of_float32() -> None:
    # 2**24 ones in float32 arithmetic are the last that counts; double precision goes on.
    A = np.full((3000, 1000), 1e-3, np.float32)
    A[0, 0] = 4096
    arrays = Arrays.of_array(A)
    true = math.sqrt(4096**2 + (A.size - 1) * float(np.float32(1e-3)) ** 2)
    assert arrays.frobenius_norm(A, 1.0) == pytest.approx(true, rel=1e-14)


@pytest.mark.parametrize(("dtype_", "size"), [("float64", 1e200), ("float32", 1e30)])
def test_frobenius_norm_scaled_into_range(dtype_: str, size: float) -> None:
    A = np.full((4, 4), size, dtype_)
    arrays = Arrays.of_array(A)
    assert arrays.frobenius_norm(A, 1 / size) == pytest.approx(4, rel=1e-6)
    tiny = np.full((4, 4), 1 / size, dtype_)
    assert arrays.frobenius_norm(tiny, size) == pytest.approx(4, rel=1e-6)


def test_bfloat16_comes_to_the_host_in_single_precision() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    found = Arrays.of_array(x).get(x)
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2.0]


@pytest.mark.parametrize("size", [1e-200, 1e200, 1e308])
def test_frobenius_norm_where_squares_leave_the_range(size: float) -> None:
    x = np.asarray([[0.75 * size, 0.0], [0.0, size]])
    found = Arrays.of_array(x).frobenius_norm(x)
    assert found == pytest.approx(1.25 * size, rel=1e-15)


@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_frobenius_norm_of_what_is_not_finite(number: float) -> None:
    x = np.asarray([[1.0, number], [0.0, 2.0]])
    assert not math.isfinite(Arrays.of_array(x).frobenius_norm(x))
    assert Arrays.of_array(x).frobenius_norm(0 * x[:, :1]) == 0


def test_a_rough_norm_goes_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So short that no threads come to life; their squares are summed in double precision."""
    monkeypatch.setattr("trsvd._arrays.reductions._ONE_THREAD", 5)
    asked, real = [], np.vdot

    def vdot(x: np.ndarray, y: np.ndarray) -> Any:
        asked.append(len(x))
        return real(x, y)

    monkeypatch.setattr(np, "vdot", vdot)
    x = np.arange(12.0).reshape(3, 4)
    assert Arrays.of_array(x).rough_norm(x) == pytest.approx(np.sqrt(506), rel=1e-14)
    assert asked == [5, 5, 2]
    monkeypatch.undo()
    many = np.full((1000, 1000), 1.1, np.float32)
    exact = 1000 * float(np.float32(1.1))
    assert Arrays.of_array(many).rough_norm(many) == pytest.approx(exact, rel=1e-4)
