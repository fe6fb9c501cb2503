"""The loops of `_compiled.lanczos` as Python runs them, and the Lanczos steps as they are compiled.

What is compiled can be seen only through its results, and reads past the end of an array without a
word; as plain Python the same lines are seen by coverage, and are told when they do.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from trsvd._compiled import kernels

if kernels() is None:
    pytest.skip("Numba is not installed", allow_module_level=True)

DTYPES = ["float32", "float64"]
# Rows by fours and what is left of them.
SHAPES = [(1, 1), (3, 5), (4, 3), (7, 4), (9, 6)]


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """The kernels, not compiled."""
    import numba

    source = inspect.getsourcefile(kernels())
    spec = importlib.util.spec_from_file_location("plain_kernels", source)
    module = importlib.util.module_from_spec(spec)
    before, numba.config.DISABLE_JIT = numba.config.DISABLE_JIT, True
    try:
        spec.loader.exec_module(module)
    finally:
        numba.config.DISABLE_JIT = before
    assert inspect.isfunction(module.gram_lanczos)
    return module


@pytest.fixture(scope="module", params=["plain", "compiled"])
def module(request: pytest.FixtureRequest, plain: ModuleType) -> ModuleType:
    return plain if request.param == "plain" else kernels()


@pytest.fixture
def numbers(rng: np.random.Generator) -> Any:
    """Function ``(*shape, dtype)``: random numbers of both signs, none of them near zero."""

    def draw(*shape: int, dtype: str) -> np.ndarray:
        x = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)
        return x.astype(dtype)

    return draw


def close(found: np.ndarray, exact: np.ndarray, absolute: np.ndarray, terms: int) -> None:
    """A sum of products of so many terms, in any order; ``absolute`` is that of absolute values."""
    eps = float(np.finfo(found.dtype).eps)
    assert np.all(np.abs(found.astype(float) - exact) <= terms * eps * absolute)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_products(plain: ModuleType, numbers: Any, shape: tuple[int, int], dtype: str) -> None:
    m, n = shape
    M, x, y = numbers(m, n, dtype=dtype), numbers(n, dtype=dtype), numbers(m, dtype=dtype)
    A, size = M.astype(float), np.abs(M).astype(float)
    w, v = np.full(n, 7, dtype), np.full(m, 7, dtype)
    plain.gram_product(M, x, w)
    close(w, A.T @ (A @ x), size.T @ (size @ np.abs(x)), m + n)
    plain.product(M, x, v)
    close(v, A @ x, size @ np.abs(x), n)
    plain.adjoint_product(M, y, w)
    close(w, A.T @ y, size.T @ np.abs(y), m)


@pytest.mark.parametrize("width", range(1, 10))
@pytest.mark.parametrize("shape", [(3, 5), (9, 6)])
def test_products_with_several(
    plain: ModuleType, numbers: Any, shape: tuple[int, int], width: int
) -> None:
    M, X = numbers(*shape, dtype="float64"), numbers(width, shape[1], dtype="float64")
    W = np.full_like(X, 7)
    plain.gram_products(M, X, W)
    size = np.abs(M)
    close(W, X @ (M.T @ M), np.abs(X) @ (size.T @ size), sum(shape))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("width", [None, 1, 2, 5])
def test_a_sparse_product(
    plain: ModuleType, numbers: Any, width: int | None, shifted: bool
) -> None:
    A = sp.csr_array(np.triu(np.tril(numbers(6, 5, dtype="float64"), 2)))
    left, right = (numbers(size if shifted else 0, dtype="float64") for size in A.shape)
    X = numbers(*([] if width is None else [width]), 5, dtype="float64")
    W = np.full_like(X, 7)
    product = plain.sparse_gram_product if width is None else plain.sparse_gram_products
    product(A.data, A.indices.astype("uint32"), A.indptr, left, right, X, W)
    M, size = A.toarray(), np.abs(A.toarray())
    if shifted:
        shift = np.outer(left, right)
        M, size = M - shift, size + np.abs(shift)
    close(W, X @ (M.T @ M), np.abs(X) @ (size.T @ size), 22)


@pytest.mark.parametrize("count", range(1, 10))
def test_what_is_projected_out(plain: ModuleType, rng: np.random.Generator, count: int) -> None:
    """A vector nearly in the space is made orthogonal to it, to rounding, and what was is known."""
    n = 12
    V = np.linalg.qr(rng.standard_normal((n, n)))[0].T.copy()
    coefficients, rest = rng.uniform(1, 2, count), V[count].copy()
    V[count] = coefficients @ V[:count] + 1e-9 * rest
    product = V[count].copy()
    h = np.full(n, 7.0)
    size, left = plain._finish_step(V, count - 1, h)
    eps = float(np.finfo(float).eps)
    assert abs(size - np.linalg.norm(product)) <= n * eps * size
    assert abs(left - 1e-9) <= n * eps * size
    assert abs(left - np.linalg.norm(V[count])) <= n * eps * left
    assert np.abs(V[:count] @ V[count]).max() <= n * eps * left
    assert np.abs(h[:count] - coefficients).max() <= n * eps * size
    assert np.all(h[count:] == 0)


def lanczos(
    module: ModuleType,
    M: Any,
    way: Any,
    V: np.ndarray,
    first: int = 0,
    *,
    width: int = 1,
    steps: int = 3,
    floor: float = 1e-12,
    largest: float = 0.0,
) -> Any:
    """Steps made, H and C of one run; V is written."""
    H, C = np.full((steps * width, len(V)), 7.0), np.full((2, steps * width), 7.0)
    if way == "sparse":
        rows = M.data, M.indices.astype("uint32"), M.indptr.astype("uint32")
        none = np.empty(0, V.dtype)
        made = module.sparse_gram_lanczos(*rows, none, none, V, first, width, H, C, floor, largest)
    else:
        made = module.gram_lanczos(M, way, V, first, width, H, C, floor, largest)
    return made, H, C


def views(A: np.ndarray, module: ModuleType) -> dict[Any, Any]:
    """What the kernel is given, by the way it makes products."""
    return {
        module.FUSED: A,
        module.ACROSS: np.ascontiguousarray(A.T),
        module.FORMED: A.T @ A,
        "sparse": sp.csr_array(A),
    }


def orthonormal_rows(p: int, n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    V = np.full((p, n), 7.0)
    V[:count] = np.linalg.qr(rng.standard_normal((n, count)))[0].T
    return V


@pytest.mark.parametrize("way", ["fused", "across", "formed", "sparse", "blocks", "sparse blocks"])
@pytest.mark.parametrize("first", [0, 2])
def test_steps(module: ModuleType, rng: np.random.Generator, way: str, first: int) -> None:
    """``A^T A v_j = sum_i h_ij v_i + left_j v_(j + width)``, and every v is orthonormal."""
    n, steps, width = 20, 4, 3 if way.endswith("blocks") else 1
    A = rng.standard_normal((23, n))
    way = {"blocks": "fused", "sparse blocks": "sparse"}.get(way, way)
    kind = getattr(module, way.upper(), way)
    p = first + (steps + 1) * width
    V = orthonormal_rows(p, n, first + width, rng)
    given = V[: first + width].copy()
    made, H, C = lanczos(module, views(A, module)[kind], kind, V, first, width=width, steps=steps)
    assert made == steps
    eps = float(np.finfo(float).eps)
    gram, norm = A.T @ A, np.linalg.norm(A, 2) ** 2
    tol = 100 * n * eps
    assert np.array_equal(V[: first + width], given)
    assert np.abs(V @ V.T - np.eye(p)).max() <= tol
    for row in range(steps * width):
        j = first + row
        product = gram @ V[j]
        left = product - H[row] @ V
        assert np.linalg.norm(left - C[0, row] * V[j + width]) <= tol * norm
        assert np.all(H[row, j + width :] == 0)
        assert abs(C[1, row] - np.linalg.norm(product)) <= tol * norm


@pytest.mark.parametrize("way", ["fused", "across", "formed", "sparse"])
def test_steps_end_where_the_space_does(
    module: ModuleType, rng: np.random.Generator, way: str
) -> None:
    """The start is in the span of two singular vectors: its second product leaves nothing."""
    A = np.zeros((6, 5))
    A[:2, :2] = [[2, 0.5], [0.25, 1]]
    kind = getattr(module, way.upper(), way)
    V = np.full((5, 5), 7.0)
    V[0] = [0.6, 0.8, 0, 0, 0]
    made, _, C = lanczos(module, views(A, module)[kind], kind, V, steps=4)
    assert made == 1
    assert C[0, 0] > 0.1
    assert C[0, 1] <= 1e-12 * C[1].max()


@pytest.mark.parametrize("floor", [0.5, 0.01])
def test_what_counts_as_nothing(module: ModuleType, floor: float) -> None:
    """Relative to the largest product so far, the one made before these steps too."""
    A = np.diag([1.0, 1.1, 0.0, 0.0])
    V = np.full((3, 4), 7.0)
    V[0] = np.array([1.0, 1.0, 0.0, 0.0]) / np.sqrt(2)
    # (1, 1.21) leaves 0.105 / sqrt(2) * (-1, 1): 0.095 of the product's norm.
    made, _, C = lanczos(module, A, module.FUSED, V.copy(), steps=1, floor=floor)
    assert abs(C[0, 0] / C[1, 0] - 0.105 * np.sqrt(2) / np.hypot(1, 1.21)) <= 1e-14
    assert made == (floor < 0.09)
    size = C[1, 0]
    largest = size * 0.08 / floor
    made, _, _ = lanczos(module, A, module.FUSED, V.copy(), steps=1, floor=floor, largest=largest)
    assert made == (floor < 0.09)
    largest = 2 * C[0, 0] / floor
    made, _, _ = lanczos(module, A, module.FUSED, V.copy(), steps=1, floor=floor, largest=largest)
    assert made == 0


def test_the_largest_product_is_kept(module: ModuleType) -> None:
    """What a later step leaves is compared with the largest product, not with its own."""
    A = np.zeros((4, 4))
    A[0, 0], A[1, 0] = 1.0, 1.0
    A[1, 1], A[2, 1], A[2, 2] = 1e-3, 1e-3, 1e-3
    gram = A.T @ A
    V = np.full((4, 4), 7.0)
    V[0] = [1, 0, 0, 0]
    made, _, C = lanczos(module, gram, module.FORMED, V.copy(), steps=2, floor=1e-5)
    assert made == 1
    assert C[0, 1] > 1e-5 * C[1, 1]
    made, _, _ = lanczos(module, gram, module.FORMED, V.copy(), steps=2, floor=1e-8)
    assert made == 2


@pytest.mark.filterwarnings("ignore:invalid value")  # Python's, for inf - inf
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_not_finite_is_no_step(module: ModuleType, number: float) -> None:
    A = np.eye(5)
    A[3, 3] = number
    V = np.full((4, 5), 7.0)
    V[0] = np.ones(5) / np.sqrt(5)
    made, _, _ = lanczos(module, A, module.FUSED, V, steps=3)
    assert made == 0


def test_every_way_has_a_number_of_its_own(module: ModuleType) -> None:
    assert len({module.FUSED, module.ACROSS, module.FORMED}) == 3
    assert "plain_kernels" not in sys.modules


def test_a_single_vector_takes_the_kernel_of_its_own(
    plain: ModuleType, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "gram_products", None)
    V = orthonormal_rows(4, 9, 1, rng)
    made, _, _ = lanczos(plain, rng.standard_normal((10, 9)), plain.FUSED, V)
    assert made == 3
