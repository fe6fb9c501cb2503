"""Calls of the peers of the race: ``solve(A, k, seed, start, **options) -> (U, S, Vh)``.

``start`` is a block of right vectors of the previous matrix, or None. Functions that compute the
update of an oracle themselves return ``(D, U, Vh)``. None of the functions uses trsvd.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import scipy.linalg
import scipy.linalg.blas
import scipy.sparse.linalg

from trsvd._arrays.dtypes import is_sparse

# ---- LAPACK ---------------------------------------------------------------------------------


def numpy_svd(A: Any, k: int, seed: int, start: Any, *, transposed: bool = False) -> Any:
    del seed, start
    return _leading(np.linalg.svd, A, k, transposed, full_matrices=False)


def scipy_svd(A: Any, k: int, seed: int, start: Any, *, transposed: bool = False) -> Any:
    del seed, start
    return _leading(scipy.linalg.svd, A, k, transposed, full_matrices=False, check_finite=False)


def torch_svd(A: Any, k: int, seed: int, start: Any, *, transposed: bool = False) -> Any:
    del seed, start
    svd = importlib.import_module("torch").linalg.svd
    return _leading(svd, A, k, transposed, full_matrices=False)


def _leading(svd: Any, A: Any, k: int, transposed: bool, **options: Any) -> Any:
    """Return leading triplets of a full SVD of A, or of its transpose to copy less."""
    U, S, Vh = svd(A.swapaxes(-1, -2) if transposed else A, **options)
    if transposed:
        U, Vh = Vh.swapaxes(-1, -2), U.swapaxes(-1, -2)
    return U[..., :k], S[..., :k], Vh[..., :k, :]


def gram(
    A: Any, k: int, seed: int, start: Any, *, blas: str = "numpy", wide: bool = False, **eigh: Any
) -> Any:
    """Compute leading eigenvectors of the smaller Gram matrix, and one product with A."""
    del seed, start
    m, n = A.shape
    dtype = A.dtype
    if wide:
        A = A.astype(np.float64)
    if m > n:
        V, W = _gram_vectors(A.T, k, blas, eigh)
        S = np.maximum(np.linalg.norm(W, axis=0), 1e-30)
        return (W / S).astype(dtype, copy=False), S, V.T.astype(dtype, copy=False)
    U, W = _gram_vectors(A, k, blas, eigh)
    S = np.maximum(np.linalg.norm(W, axis=0), 1e-30)
    return U.astype(dtype, copy=False), S, (W / S).T.astype(dtype, copy=False)


def _gram_vectors(A: Any, k: int, blas: str, eigh: dict[str, Any]) -> tuple[Any, Any]:
    """Return the leading eigenvectors X of ``A A^T``, and ``A^T X``, for m <= n."""
    rank = A.shape[0]
    if is_sparse(A):
        G = (A @ A.T).toarray()
    elif blas == "scipy":
        single, double = scipy.linalg.blas.ssyrk, scipy.linalg.blas.dsyrk
        syrk = single if A.dtype == np.float32 else double
        # BLAS takes column-major input without a copy: A or A^T is column-major.
        G = syrk(1.0, A.T, trans=1, lower=1) if A.flags.c_contiguous else syrk(1.0, A, lower=1)
    else:
        G = A @ A.T
    subset = {} if eigh.get("driver") == "evd" else {"subset_by_index": [rank - k, rank - 1]}
    X = scipy.linalg.eigh(G, overwrite_a=True, check_finite=False, **subset, **eigh)[1][:, -k:]
    return X, A.T @ X


# ---- iterative ------------------------------------------------------------------------------


def arpack(A: Any, k: int, seed: int, start: Any, **options: Any) -> Any:
    if start is not None and A.shape[1] <= A.shape[0]:
        options["v0"] = start.sum(axis=1)
    elif start is not None:
        options["v0"] = A @ start.sum(axis=1)
    return scipy.sparse.linalg.svds(A, k, solver="arpack", rng=seed, **options)


def propack(A: Any, k: int, seed: int, start: Any, *, transposed: bool, **options: Any) -> Any:
    rank = min(A.shape)
    # The default limit of 10 k steps is too low for small k.
    options["maxiter"] = min(rank, max(20 * k, 1000))
    if start is not None:
        v = start.sum(axis=1)
        options["v0"] = v if transposed else A @ v
    X = A.T if transposed else A
    U, S, Vh = scipy.sparse.linalg.svds(X, k, solver="propack", rng=seed, **options)
    return (Vh.T, S, U.T) if transposed else (U, S, Vh)


def lobpcg(A: Any, k: int, seed: int, start: Any, **options: Any) -> Any:
    del start
    return scipy.sparse.linalg.svds(A, k, solver="lobpcg", tol=1e-14, rng=seed, **options)


def primme(A: Any, k: int, seed: int, start: Any, **options: Any) -> Any:
    del seed
    if start is not None:
        # It needs both starts; with the right one alone it calls a method of A.
        options["v0"], options["u0"] = start[:, :k], A @ start[:, :k]
    return importlib.import_module("primme").svds(A, k, **options)


# ---- randomized -----------------------------------------------------------------------------


def sklearn_randomized(A: Any, k: int, seed: int, start: Any, **options: Any) -> Any:
    del start
    solve = importlib.import_module("sklearn.utils.extmath").randomized_svd
    return solve(A, k, random_state=seed, flip_sign=False, **options)


def fbpca(A: Any, k: int, seed: int, start: Any, *, more: int, **options: Any) -> Any:
    del start
    np.random.seed(seed)  # noqa: NPY002 - the generator that fbpca draws from
    return importlib.import_module("fbpca").pca(A, k, raw=True, l=k + more, **options)


def torch_lowrank(A: Any, k: int, seed: int, start: Any, *, more: int, niter: int) -> Any:
    del start
    torch = importlib.import_module("torch")
    torch.manual_seed(seed)
    U, S, V = torch.svd_lowrank(A, q=k + more, niter=niter)
    return U[..., :k], S[..., :k], V[..., :k].mT


# ---- from optimizers ------------------------------------------------------------------------


def dion(A: Any, k: int, seed: int, start: Any, *, steps: int, rotated: bool, more: int) -> Any:
    """Make power steps with a QR; Dion makes one, from the right vectors of the last step."""
    if start is None:
        more_columns = min(more, min(A.shape) - k)
        R = np.random.default_rng(seed).standard_normal((A.shape[1], k + more_columns))
        R = R.astype(A.dtype)
    else:
        R = start if more else start[:, :k]
    for _ in range(steps):
        P, _ = scipy.linalg.qr(A @ R, mode="economic", check_finite=False)
        R = A.T @ P
    if not rotated:
        # As published: columns of length one, which are not orthonormal.
        Q = (R / np.linalg.norm(R, axis=0)).T
        return -(P[:, :k] @ Q[:k]), P[:, :k], Q[:k]
    V, _, W = scipy.linalg.svd(R, full_matrices=False, check_finite=False)
    U, Vh = P @ W[:k].T, V[:, :k].T
    return -(U @ Vh), U, Vh


def _quintic(X: Any) -> Any:
    """Make one of the five steps of Muon's quintic iteration."""
    G = X @ X.T
    return 3.4445 * X + (-4.7750 * G + 2.0315 * (G @ G)) @ X


def newton_schulz(A: Any, k: int, seed: int, start: Any) -> Any:
    """Compute Muon's update: five steps in float32, with the shorter side first."""
    del k, seed, start
    wide = A.shape[0] <= A.shape[1]
    X = A if wide else A.T
    X = X.astype(np.float32, copy=False) if hasattr(X, "astype") else X.float()
    X = X / ((X * X).sum() ** 0.5 + 1e-7)
    for _ in range(5):
        X = _quintic(X)
    return -(X if wide else X.T), None, None
