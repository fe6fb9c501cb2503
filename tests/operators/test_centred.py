"""Centred arrays: products and Gram matrix of the centred entries, without a centred copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trsvd
from trsvd._solve.select import select_method
from trsvd.operators import AdjointOperator, CenteredOperator, as_operator
from trsvd.operators import centred as _centred
from trsvd.operators.centred import CenteredArray

SHAPES = [(1200, 40), (40, 1200), (90, 90)]
OFFSETS = [("float32", 0.0), ("float32", 0.1), ("float32", 1e3), ("float64", 0.1), ("float64", 1e6)]


@pytest.fixture(autouse=True)
def several_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_centred, "_PANEL", 1 << 13)  # and at least min(m, n) rows


def data(shape: tuple[int, int], dtype: str, offset: float, layout: str) -> np.ndarray:
    """Random numbers with decaying singular values, and a mean of about the offset."""
    rng = np.random.default_rng(1)
    m, n = shape
    side = min(shape)
    A = rng.standard_normal((m, side)) * 0.8 ** np.arange(side) @ rng.standard_normal((side, n))
    return np.asarray(A + offset * rng.uniform(0.5, 1.5, n), dtype=dtype, order=layout)


def exact(A: np.ndarray, mean: Any) -> np.ndarray:
    B = A.astype(np.longdouble)
    for _ in range(2):  # the sums of the first pass are rounded
        B = B - (B.mean(axis=0) if mean is None else mean)
        if mean is not None:
            break
    return B.astype(float)


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("dtype", "offset"), OFFSETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_do_not_cancel(
    shape: tuple[int, int], dtype: str, offset: float, given: bool, layout: str
) -> None:
    """Errors are rounding units of the centred matrix, also where the offset is far larger."""
    A = data(shape, dtype, offset, layout)
    mean = A[0] if given else None
    op = CenteredOperator(A, mean).formed(gram=True)
    assert isinstance(op, CenteredArray)
    B, eps = exact(A, mean), float(np.finfo(dtype).eps)
    bound = 20 * eps * np.linalg.norm(B)  # of a product with a unit vector; a few rounding units
    rng = np.random.default_rng(2)
    for product, C in ((op.matmat, B), (op.rmatmat, B.T)):
        for width in (1, 3):
            X = np.linalg.qr(rng.standard_normal((C.shape[1], width)))[0].astype(dtype)
            Y = product(X)
            assert Y.dtype == dtype
            assert np.linalg.norm(Y - C @ X.astype(float), axis=0).max() <= bound
    short = B if B.shape[0] >= B.shape[1] else B.T
    for double in (False, True):
        G = np.tril(op.gram_by_panels(double=double))
        level = eps if double else max(eps, float(np.finfo("float32").eps))
        error = np.abs(G - np.tril(short.T @ short)).max()
        assert error <= 20 * level * np.linalg.norm(B) ** 2
    assert np.abs(op.dense() - B).max() <= 4 * eps * np.abs(B).max()
    assert abs(op.frobenius_norm(2.0) - 2 * np.linalg.norm(B)) <= 20 * eps * np.linalg.norm(B)
    assert abs(op.max_abs() - np.abs(B).max()) <= 4 * eps * np.abs(B).max()
    full = A.astype(np.longdouble).mean(axis=0) if mean is None else mean
    assert np.abs(op.mean - full).max() <= 4 * eps * np.abs(full).max()


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("dtype", "offset"), OFFSETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_direct_triplets(
    shape: tuple[int, int], dtype: str, offset: float, given: bool, layout: str
) -> None:
    A = data(shape, dtype, offset, layout)
    mean = A[0] if given else None
    B, eps, k = exact(A, mean), float(np.finfo(dtype).eps), 5
    op = CenteredOperator(A, mean)
    result = trsvd.svds(op, k, method="direct")
    S = np.linalg.svd(B, compute_uv=False)
    assert result.converged
    assert np.abs(result.S - S[:k]).max() <= 20 * eps * S[0]
    U, V = result.U.astype(float), result.Vh.T.astype(float)
    bound = (eps**0.75 + 20 * eps) * np.linalg.norm(B)  # tol, and rounding errors
    assert np.linalg.norm(B @ V - U * result.S, axis=0).max() <= bound
    assert np.linalg.norm(B.T @ U - V * result.S, axis=0).max() <= bound
    turned = trsvd.svds(AdjointOperator(op), k, method="direct")
    assert np.abs(turned.S - S[:k]).max() <= 20 * eps * S[0]


def test_all_values_take_a_centred_copy() -> None:
    A = data((300, 12), "float64", 1e6, "C")
    result = trsvd.svds(CenteredOperator(A), 12, method="direct")
    S = np.linalg.svd(exact(A, None), compute_uv=False)
    assert np.abs(result.S - S).max() <= 1e-14 * S[0]


def test_unresolved_values_end_with_a_full_svd() -> None:
    """s_k is far below the resolution of both Gram matrices."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((900, 20)) * 10.0 ** -np.arange(20) @ rng.standard_normal((20, 80))
    B = exact(A, None)
    result = trsvd.svds(CenteredOperator(A), 11, method="direct")
    S = np.linalg.svd(B, compute_uv=False)
    assert np.abs(result.S - S[:11]).max() <= 1e-14 * S[0]
    assert result.state.run.route == "svd"


def test_tall_centred_arrays_are_decomposed_by_the_gram_matrix() -> None:
    for shape in ((4000, 100), (100, 4000)):
        op = CenteredOperator(np.zeros(shape))
        assert select_method(op, 5).method == trsvd.Direct()
        assert select_method(AdjointOperator(op), 5).method == trsvd.Direct()
    assert select_method(CenteredOperator(np.zeros((700, 600))), 5).method != trsvd.Direct()
    complex_op = CenteredOperator(np.zeros((4000, 100), complex))
    assert not complex_op.forms_gram
    assert select_method(complex_op, 5).method == trsvd.ThickRestartLanczos()


def test_no_copy_is_made() -> None:
    class Known(CenteredArray):
        def dense(self) -> Any:
            raise AssertionError

    A = data((3000, 60), "float64", 1.0, "C")
    op = Known(as_operator(A).arrays, A, A.mean(axis=0), is_mean=True)
    result = trsvd.svds(op, 5)
    assert result.method == trsvd.Direct()
    assert np.abs(result.S - np.linalg.svd(exact(A, None))[1][:5]).max() <= 1e-13 * result.S[0]
    assert result.matvecs == 60
    assert repr(op) == "Known(3000 x 60, float64, of numpy.ndarray)"


@pytest.mark.parametrize("exponent", [-200, 200])
def test_squares_out_of_range(exponent: int) -> None:
    A = data((900, 40), "float64", 1.0, "C")
    S = np.linalg.svd(exact(A, None), compute_uv=False)
    result = trsvd.svds(CenteredOperator(A * 10.0**exponent), 5)
    assert result.converged
    assert np.abs(result.S / 10.0**exponent - S[:5]).max() <= 1e-14 * S[0]
    op = CenteredOperator(A * 10.0**exponent).formed(gram=True)
    assert op.rough_norm() is None
    assert abs(op.frobenius_norm() / 10.0**exponent - np.linalg.norm(S)) <= 1e-14 * S.sum()
    assert trsvd.svds(op, 5).converged


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_entries_that_are_not_finite(value: float) -> None:
    A = np.ones((900, 40))
    A[3, 5] = value
    op = CenteredArray(as_operator(A).arrays, A, np.ones(40), is_mean=False)
    with pytest.raises(ValueError, match="NaN or inf"):
        trsvd.svds(op, 3)
