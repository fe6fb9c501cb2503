"""What the tests of truncated SVDs share: methods by name, bounds that theorems give, operators."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg

import trsvd

METHODS: dict[str, Any] = {
    "trlan": trsvd.ThickRestartLanczos(),
    "trlan-block": trsvd.ThickRestartLanczos(block_size=3),
    "trlan-one-sided": trsvd.ThickRestartLanczos(reorthogonalize="one-sided"),
    "trlan-two-sided": trsvd.ThickRestartLanczos(reorthogonalize="two-sided"),
    "trlan-gram": trsvd.ThickRestartLanczos(gram=True),
    "rsvd": trsvd.RandomizedSVD(),
    "krylov": trsvd.BlockKrylov(),
    "power": trsvd.PowerIteration(),
    "direct-svd": trsvd.Direct(route="svd"),
    "direct-gram": trsvd.Direct(route="gram"),
}
ITERATIVE = [name for name in METHODS if not name.startswith("direct")]


def eps_of(dtype: Any) -> float:
    """Rounding unit of what a dtype is computed in."""
    name = np.dtype(dtype).name
    return float(np.finfo("float32" if name in {"float16", "complex64"} else name).eps)


def default_tol(dtype: Any) -> float:
    return eps_of(dtype) ** 0.75


def exact_values(A: Any) -> np.ndarray:
    """All singular values, in double precision, of a matrix of any scale."""
    A = np.asarray(A.toarray() if hasattr(A, "toarray") else A)
    A = A.astype(np.promote_types(A.dtype, np.float64))
    size = np.abs(A).max(initial=0.0)
    if size == 0:
        return np.zeros(min(A.shape))
    exponent = int(np.frexp(size)[1])
    # In two steps: 2**1080 is no float.
    A = A * 2.0 ** -(exponent // 2) * 2.0 ** -(exponent - exponent // 2)
    return np.ldexp(scipy.linalg.svd(A, compute_uv=False, lapack_driver="gesvd"), exponent)


def value_bound(k: int, tol: float, shape: tuple[int, int], dtype: Any) -> float:
    """How far k converged values may be from exact ones, relative to s_1.

    Kahan: k values agree with k exact ones to the norm of the residual blocks, at most
    sqrt(2 k) tol; the rounding of LAPACK's values and of the products adds max(m, n) eps.
    """
    return (2 * k) ** 0.5 * tol + max(*shape, 16) * eps_of(dtype)


def orthonormality(Q: np.ndarray) -> float:
    """Largest entry of ``Q^H Q - I``, in double precision."""
    Q = Q.astype(np.promote_types(Q.dtype, np.float64))
    return float(np.abs(Q.conj().T @ Q - np.eye(Q.shape[1])).max(initial=0.0))


def orthonormality_bound(shape: tuple[int, int], dtype: Any) -> float:
    """Inner products of length max(m, n) round at max(m, n) eps; vectors pass two such sums."""
    return 4 * max(*shape, 16) * eps_of(dtype)


def residuals(A: np.ndarray, U: np.ndarray, S: np.ndarray, Vh: np.ndarray) -> np.ndarray:
    """The residuals as `SVDResult` defines them, in double precision."""
    wide = np.promote_types(A.dtype, np.float64)
    A, U, S, V = A.astype(wide), U.astype(wide), S.astype(np.float64), Vh.astype(wide).conj().T
    left = np.linalg.norm(A @ V - U * S, axis=0)
    right = np.linalg.norm(A.conj().T @ U - V * S, axis=0)
    return np.maximum(left, right) / (S[0] if S[0] else 1.0)


def host(result: trsvd.SVDResult, to_numpy: Any = np.asarray) -> tuple[np.ndarray, ...]:
    return tuple(to_numpy(part) for part in result)


def assert_right(
    A: np.ndarray,
    result: trsvd.SVDResult,
    k: int,
    *,
    tol: float | None = None,
    to_numpy: Any = np.asarray,
    s: np.ndarray | None = None,
) -> None:
    """The result converged, and is the truncated SVD of A: values, vectors, order, residuals."""
    dtype = A.dtype if A.dtype.kind in "fc" else np.dtype(np.float64)
    tol = default_tol(dtype) if tol is None else tol
    U, S, Vh = host(result, to_numpy)
    m, n = A.shape
    assert (U.shape, S.shape, Vh.shape) == ((m, k), (k,), (k, n))
    assert result.converged
    assert result.status is trsvd.Status.CONVERGED
    assert result.residuals.shape == (k,)
    assert result.residuals.max() <= tol
    assert np.all(np.diff(S) <= 0)
    assert S[-1] >= 0
    s = exact_values(A) if s is None else s
    assert np.abs(S - s[:k]).max() <= value_bound(k, tol, A.shape, dtype) * s[0]
    for Q in (U, Vh.conj().T):
        assert orthonormality(Q) <= orthonormality_bound(A.shape, dtype)
    rounding = 2 * (m + n) * eps_of(dtype)
    assert np.abs(residuals(A, U, S, Vh) - result.residuals).max() <= rounding


@dataclasses.dataclass
class CountingOperator:
    """A matrix known by its products, which counts them for itself."""

    A: Any
    seen: int = 0
    calls: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        return self.A.shape

    @property
    def dtype(self) -> Any:
        return self.A.dtype

    def matmat(self, X: np.ndarray) -> np.ndarray:
        self.seen += X.shape[1]
        self.calls += 1
        return self.A @ X

    def rmatmat(self, X: np.ndarray) -> np.ndarray:
        self.seen += X.shape[1]
        self.calls += 1
        return self.A.conj().T @ X
