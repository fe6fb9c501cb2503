"""Matrices out of training runs and public data, against their exact spectra (data/README.md)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from checks import (
    METHODS,
    default_tol,
    host,
    orthonormality,
    orthonormality_bound,
)

import trsvd

DATA = Path(__file__).parent / "data"
NAMES = sorted(path.stem for path in DATA.glob("*.np[yz]") if path.stem != "spectra")
RANKS = (1, 5, 16, 64)

# What is promised for real matrices: the values to so much of s_1. Larger than what a converged
# residual allows in float32 (sqrt(2 k) tol would be 7e-5 at k = 64): values are second order in it.
PROMISE = {"float32": 1e-5, "float64": 1e-10}

# Block iterations without acceleration take thousands of products where values hardly decay.
FAST_DECAY = [name for name in NAMES if "gradient" in name]


@functools.cache
def load(name: str, dtype: str):
    path = DATA / f"{name}.npy"
    A = np.load(path) if path.exists() else scipy.sparse.load_npz(path.with_suffix(".npz"))
    with np.load(DATA / "spectra.npz") as spectra:
        return A.astype(dtype), spectra[name]


def check(name, dtype, k, result, to_numpy=np.asarray):
    A, s = load(name, dtype)
    assert result.converged
    assert result.residuals.max() <= default_tol(dtype)
    U, S, Vh = host(result, to_numpy)
    assert np.abs(S - s[:k]).max() <= PROMISE[dtype] * s[0]
    for Q in (U, Vh.T):
        assert orthonormality(Q) <= orthonormality_bound(A.shape, dtype)
    # Eckart and Young, in the Frobenius norm: the part that is left has the other values. Its
    # square is off by 2 sum s_i (error of s_i), and by the rounding of the product.
    D = A.toarray() if scipy.sparse.issparse(A) else A
    if max(A.shape) <= 1000:
        left = np.linalg.norm(D.astype(np.float64) - (U.astype(np.float64) * S) @ Vh) ** 2
        best = np.sum(s[k:] ** 2)
        assert abs(left - best) <= 4 * k * PROMISE[dtype] * s[0] ** 2


@pytest.mark.parametrize("k", RANKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_default_settings(name, dtype, k):
    A, s = load(name, dtype)
    if k > min(A.shape):
        pytest.skip(f"has {min(A.shape)} triplets")
    check(name, dtype, k, trsvd.svds(A, k, rng=0))


@pytest.mark.parametrize("k", [1, 16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_each_method(name, method, dtype, k):
    A, s = load(name, dtype)
    if k > min(A.shape):
        pytest.skip(f"has {min(A.shape)} triplets")
    if method in {"rsvd", "power"} and name not in FAST_DECAY:
        pytest.skip("thousands of products")
    if method == "krylov" and min(A.shape) > 1000 and k > 1:
        pytest.skip("a basis of hundreds of columns")
    if method.startswith("direct") and min(A.shape) > 1000:
        pytest.skip("not for a direct method")
    if method == "trlan-gram" and s[k - 1] < 1e-6 * s[0]:
        pytest.skip("not resolved on the Gram side")
    check(name, dtype, k, trsvd.svds(A, k, method=METHODS[method], rng=0))


@pytest.mark.parametrize("name", ["mlp_gradient", "conv_gradient", "gpt_momentum"])
def test_each_backend(name, backend):
    A, _ = load(name, "float32")
    for method in (None, "trlan"):
        result = trsvd.svds(backend.asarray(A), 5, method=method, rng=0)
        check(name, "float32", 5, result, backend.to_numpy)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name):
    """Of a float16 copy: its own values, rounded to float16 on the way out."""
    A, _ = load(name, "float32")
    if scipy.sparse.issparse(A):
        pytest.skip("no sparse half precision")
    size = np.abs(A).max()
    H = (A / size).astype(np.float16)
    s = np.linalg.svd(H.astype(np.float64), compute_uv=False)
    result = trsvd.svds(H, 5, rng=0)
    assert result.converged
    assert np.abs(result.S - s[:5]).max() <= (2**-11 + PROMISE["float32"]) * s[0]


def test_the_list_is_complete():
    with np.load(DATA / "spectra.npz") as spectra:
        assert sorted(spectra.files) == NAMES
    readme = (DATA / "README.md").read_text()
    assert all(f"`{name}.np" in readme for name in NAMES)
