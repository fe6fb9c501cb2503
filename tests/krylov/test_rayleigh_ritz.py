"""Rayleigh-Ritz and true residuals against dense linear algebra on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trsvd._krylov.rayleigh_ritz import (
    Ritz,
    rayleigh_ritz,
    residual_blocks,
    residual_norms,
    small_eigh,
    small_svd,
)
from trsvd.operators import as_operator
from trsvd.operators.counting import Metered

FACTOR = 10  # for the number of backward stable operations, each (m + n) eps ||A||
DTYPES = ["float32", "float64", "complex64", "complex128"]


def _metered(backend: Any, A: np.ndarray) -> Metered:
    return Metered(as_operator(backend.asarray(A)), None)


def _of(A: np.ndarray) -> Metered:
    return Metered(as_operator(A), None)


def _level(A: np.ndarray) -> float:
    return FACTOR * sum(A.shape) * float(np.finfo(A.dtype).eps) * float(np.linalg.norm(A, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_rayleigh_ritz_is_the_svd_of_the_compressed_matrix(
    backend: Any, dtype: str, k: int, rng: Any
) -> None:
    A = (
        (rng.standard_normal((25, 16)) + 1j * rng.standard_normal((25, 16))).astype(
            dtype, copy=False
        )
        if dtype.startswith("complex")
        else rng.standard_normal((25, 16)).astype(dtype)
    )
    V = np.linalg.qr(A[:16, :5] + 1)[0].astype(dtype)
    op = _metered(backend, A)
    U, S, W = rayleigh_ritz(op, backend.asarray(V), rng, k)
    assert op.matvecs == 5
    assert op.passes == 1
    assert backend.owns(U)
    assert backend.owns(W)
    U, W = backend.to_numpy(U), backend.to_numpy(W)
    assert U.shape == (25, k)
    assert W.shape == (16, k)
    level = _level(A)
    best = np.linalg.svd(A @ V, compute_uv=False)[:k]
    assert pytest.approx(best, rel=0, abs=level) == S
    assert np.linalg.norm(A @ W - U * S, 2) <= level
    tol = level / np.linalg.norm(A, 2)
    for X in (U, W):
        assert np.abs(X.conj().T @ X - np.eye(k)).max() <= tol
    assert np.abs(W - V @ (V.conj().T @ W)).max() <= tol  # in the span of V


@pytest.mark.parametrize("dtype", DTYPES)
def test_rayleigh_ritz_of_singular_vectors(backend: Any, dtype: str, rng: Any) -> None:
    """Their products are orthogonal as they come; in whatever order, the k leading ones first."""
    X, Y = rng.standard_normal((2, 40, 16))
    if dtype.startswith("complex"):
        X, Y = X + 1j * Y, Y - 1j * X
    left, right = np.linalg.qr(X)[0], np.linalg.qr(Y[:16])[0]
    values = np.array([3.0, 2.9, 2.8, 2.5, 2.0] + 11 * [1.0])
    A = ((left * values) @ right.conj().T).astype(dtype)
    V = right[:, [3, 0, 4, 1, 2]].astype(dtype)
    op = _metered(backend, A)
    U, S, W = rayleigh_ritz(op, backend.asarray(V), rng, 3)
    assert op.matvecs == 5
    eps = float(np.finfo(dtype).eps)
    assert np.abs(S - values[:3]).max() <= 20 * eps
    U, W = backend.to_numpy(U), backend.to_numpy(W)
    for found, exact in ((U, left), (W, right)):
        assert found.shape == (len(exact), 3)
        assert np.abs(np.abs(found.conj().T @ exact[:, :3]) - np.eye(3)).max() <= 100 * eps
        assert np.abs(found.conj().T @ found - np.eye(3)).max() <= 30 * eps
    assert np.linalg.norm(A @ W - U * S, 2) <= 30 * eps


def test_norms_of_long_columns_in_float32(rng: Any) -> None:
    """Summed one after the other, a hundred thousand squares would lose dozens of units."""
    A = (rng.standard_normal((200_000, 6)) + 1).astype(np.float32)
    U, S, V = rayleigh_ritz(_of(A), np.linalg.svd(A.T @ A.astype(float))[0].astype("f4"), rng, 6)
    eps = float(np.finfo(np.float32).eps)
    U = U.astype(np.float64)
    assert np.abs(U.T @ U - np.eye(6)).max() <= 16 * eps
    exact = np.linalg.svd(A.astype(np.float64), compute_uv=False)
    assert np.abs(S / exact - 1).max() <= 8 * eps
    assert np.abs(V.T @ V - np.eye(6)).max() <= 16 * eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_rayleigh_ritz_of_a_rank_deficient_matrix(backend: Any, dtype: str, rng: Any) -> None:
    A = (rng.standard_normal((25, 2)) @ rng.standard_normal((2, 16))).astype(dtype)
    V = np.eye(16, 5).astype(dtype)
    op = _metered(backend, A)
    U, S, _ = rayleigh_ritz(op, backend.asarray(V), rng, 5)
    U = backend.to_numpy(U)
    assert np.abs(U.conj().T @ U - np.eye(5)).max() <= _level(A) / np.linalg.norm(A, 2)
    assert S[1] > 0.1
    assert np.all(S[2:] <= _level(A))


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_norms_are_the_larger_side(backend: Any, dtype: str, rng: Any) -> None:
    A = rng.standard_normal((25, 16)).astype(dtype)
    if dtype.startswith("complex"):
        A = A + 1j * rng.standard_normal((25, 16)).astype(A.real.dtype)
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    U, S, V = U[:, :4].copy(), S[:4].astype(np.float64), Vh[:4].conj().T.copy()
    # Exact, off on the left, off on the right, off in the value.
    U[:, 1] += 0.1 * U[:, 0]
    V[:, 2] += 0.2 * V[:, 0]
    S[3] += 0.3
    op = _metered(backend, A)
    put = backend.asarray
    blocks = residual_blocks(op, put(U.astype(dtype)), S, put(V.astype(dtype)))
    residuals = residual_norms(op.arrays, blocks)
    left = np.linalg.norm(A @ V - U * S, axis=0)
    right = np.linalg.norm(A.conj().T @ U - V * S, axis=0)
    assert residuals.dtype == np.float64
    assert residuals == pytest.approx(np.maximum(left, right), rel=0, abs=_level(A))
    assert left[1] != pytest.approx(right[1], rel=1e-2)  # both sides can be the larger one
    assert (left > right + 0.01).any()
    assert (right > left + 0.01).any()
    assert op.matvecs == 8


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_small_factorizations(dtype: str, rng: Any) -> None:
    B = rng.standard_normal((6, 9)).astype(dtype)
    P, S, Qh = small_svd(B)
    assert (P.shape, S.shape, Qh.shape) == ((6, 6), (6,), (6, 9))
    assert np.all(np.diff(S) <= 0)
    assert np.linalg.norm(P * S @ Qh - B) <= _level(B)
    T = B @ B.conj().T - 4 * np.eye(6)
    values, Q = small_eigh(T)
    assert np.all(np.diff(values) <= 0)
    assert values[0] > 0 > values[-1]
    assert np.linalg.norm(Q * values @ Q.conj().T - T) <= _level(T)
    for empty in (np.zeros((0, 0)), np.zeros((0, 3))):
        assert small_svd(empty)[1].shape == (0,)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", [small_svd, small_eigh])
def test_not_finite_raises(function: Any, bad: float) -> None:
    B = np.eye(3)
    B[1, 2] = bad
    with pytest.raises(ValueError, match=r"NaN or inf.*find it in A, or scale A down"):
        function(B)


@pytest.mark.parametrize("exact", [None, "left", "right"])
def test_residuals_of_the_sides_that_are_not_known(exact: str | None, rng: Any) -> None:
    """What a side is made of a product with, leaves no residual there: k products are saved."""
    A = rng.standard_normal((8, 6))
    op = Metered(as_operator(A), None)
    U, S, Vh = np.linalg.svd(A, full_matrices=False)
    V = Vh[:2].T + 0.01 * rng.standard_normal((6, 2))
    U = U[:, :2] + 0.02 * rng.standard_normal((8, 2))
    left = np.linalg.norm(A @ V - U * S[:2], axis=0)
    right = np.linalg.norm(A.T @ U - V * S[:2], axis=0)
    expected = {None: np.maximum(left, right), "left": right, "right": left}[exact]
    blocks = residual_blocks(op, U, S[:2], V, exact=exact)
    assert [block is None for block in blocks] == [exact == "left", exact == "right"]
    found = residual_norms(op.arrays, blocks)
    # Sums of eight terms of the size of s_1 at most.
    np.testing.assert_allclose(found, expected, atol=20 * np.finfo(float).eps * S[0])
    assert op.matvecs == (4 if exact is None else 2)


def test_other_units_change_every_number(rng: Any) -> None:
    ritz = Ritz(np.asarray([3.0, 2.0]), np.asarray([0.5, 0.25]), np.ones((1, 2)))
    found = ritz.times(8.0)
    assert found.S.tolist() == [24.0, 16.0]
    assert found.residuals.tolist() == [4.0, 2.0]
    assert found.couplings.tolist() == [[8.0, 8.0]]


@pytest.mark.parametrize("shape", [(30, 12), (12, 30)])
def test_vectors_for_a_product_of_lower_rank(shape: tuple[int, int], rng: Any) -> None:
    """They are as long as the product's columns, whichever side is longer."""
    A = np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    V = np.linalg.qr(rng.standard_normal((shape[1], 4)))[0]
    U, S, W = rayleigh_ritz(Metered(as_operator(A), None), V, rng, 3)
    assert U.shape == (shape[0], 3)
    assert np.abs(U.T @ U - np.eye(3)).max() <= _level(np.eye(shape[0]))
    assert np.abs(A @ W - U * S).max() <= _level(A)


def _graded(dtype: str, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """A matrix with values 1 to 1e-3, and its right singular vectors, in double precision."""
    X, Y = rng.standard_normal((2, 300, 40))
    if dtype.startswith("complex"):
        X, Y = X + 1j * Y, Y - 1j * X
    left, right = np.linalg.qr(X)[0], np.linalg.qr(Y[:40])[0]
    return (left * np.geomspace(1, 1e-3, 40)) @ right.conj().T, right


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("off", [1e-5, 1e-3])
def test_rotations_of_nearly_orthogonal_products(
    backend: Any, monkeypatch: Any, dtype: str, off: float, rng: Any
) -> None:
    """In single precision by squares in double: without a QR, and orthonormal all the same."""
    A, right = _graded(dtype, rng)
    A, V = A.astype(dtype), np.linalg.qr(right[:, :8] + off * right[:, 8:16])[0].astype(dtype)
    monkeypatch.setattr("trsvd._krylov.rayleigh_ritz.orthonormalize", None)
    U, S, W = rayleigh_ritz(_metered(backend, A), backend.asarray(V), rng, 6)
    U, W = backend.to_numpy(U), backend.to_numpy(W)
    eps = float(np.finfo(dtype).eps)
    wide = np.promote_types(dtype, np.float64)
    for found in (U.astype(wide), W.astype(wide)):
        assert np.abs(found.conj().T @ found - np.eye(6)).max() <= 30 * eps
    assert np.linalg.norm(A.astype(wide) @ W - U * S, 2) <= 30 * eps
    best = np.linalg.svd(A.astype(wide) @ V, compute_uv=False)[:6]
    assert np.abs(S - best).max() <= 10 * eps


@pytest.mark.parametrize("spoil", ["a short combination", "lost in squares", "nothing"])
def test_products_that_rotations_would_spoil(backend: Any, spoil: str, rng: Any) -> None:
    """Left vectors are orthonormal where columns nearly cancel, or one is tiny, or zero."""
    A, right = _graded("float32", rng)
    V = right[:, :4]
    if spoil == "a short combination":
        half = np.sqrt(0.5)
        turn = np.array([[half, half], [-half, half]])
        A = A - 0.999 * (A @ V[:, :1]) @ V[:, :1].T
        V = np.hstack([V[:, :2] @ turn, V[:, 2:]])
    else:
        V = np.hstack([V[:, :3], right[:, -1:]])
        A = A - (1.0 if spoil == "nothing" else 1 - 1e-5) * (A @ V[:, 3:]) @ V[:, 3:].T
        V = V @ np.linalg.qr(np.eye(4) + 0.01 * rng.standard_normal((4, 4)))[0]
    A, V = A.astype("f4"), V.astype("f4")
    U, S, W = rayleigh_ritz(_metered(backend, A), backend.asarray(V), rng, 4)
    U, W = (backend.to_numpy(X).astype(np.float64) for X in (U, W))
    eps = float(np.finfo("f4").eps)
    for found in (U, W):
        assert np.abs(found.T @ found - np.eye(4)).max() <= 30 * eps
    assert np.linalg.norm(A.astype(float) @ W - U * S, 2) <= 30 * eps


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("skew", [30, 3000, 1e6])
def test_skew_vectors_are_made_orthonormal(backend: Any, dtype: str, skew: float, rng: Any) -> None:
    A, right = _graded(dtype, rng)
    eps = float(np.finfo(dtype).eps)
    V = right[:, :8] + skew * eps * right[:, 7::-1]
    U, _, W = rayleigh_ritz(
        _metered(backend, A.astype(dtype)), backend.asarray(V.astype(dtype)), rng, 8, skew=True
    )
    for found in (backend.to_numpy(U), backend.to_numpy(W)):
        found = found.astype(np.promote_types(dtype, np.float64))
        assert np.abs(found.conj().T @ found - np.eye(8)).max() <= 30 * eps
