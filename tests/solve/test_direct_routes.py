"""The route of `Direct`: the Gram matrix where it costs less and is accurate, and else no more.

Eigenvectors of Gram matrices and full SVDs are counted, not seconds.
"""

from __future__ import annotations

import numpy as np
import pytest
from checks import assert_right

import trsvd
from trsvd._arrays import factorizations, host_blas

N = 512
SPECTRA = {
    "flat": np.linspace(2.0, 1.0, N),
    "root": np.arange(1, N + 1) ** -0.5,
    "harmonic": 1 / np.arange(1, N + 1),
    "geometric": 0.9 ** np.arange(N),
}


def with_values(s, dtype):
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((rows, N)))[0] for rows in (N + 20, N))
    return ((U * s) @ V.T).astype(dtype)


@pytest.fixture
def counted(monkeypatch):
    counts = {"eigenvectors": 0, "svd": 0}

    def counting(name, function):
        def wrapped(X, *args):
            counts[name] += min(X.shape) == N
            return function(X, *args)

        return wrapped

    of_gram = counting("eigenvectors", factorizations.leading_eigenvectors)
    monkeypatch.setattr(factorizations, "leading_eigenvectors", of_gram)
    monkeypatch.setattr(factorizations, "thin_svd", counting("svd", factorizations.thin_svd))
    return counts


@pytest.mark.parametrize(
    ("spectrum", "dtype", "k", "eigenvectors", "svd"),
    [
        ("flat", "float32", 200, 1, 0),
        ("root", "float32", 200, 1, 0),
        ("root", "float64", 200, 1, 0),
        ("harmonic", "float64", 200, 1, 0),
        ("harmonic", "float32", 200, 0, 1),  # double precision would take longer than an SVD
        ("geometric", "float32", 200, 0, 1),
        ("geometric", "float64", 200, 0, 1),
        ("geometric", "float64", 100, 0, 1),
        ("flat", "float32", 210, 0, 1),  # more than two fifths
    ],
)
def test_one_factorization_suffices(spectrum, dtype, k, eigenvectors, svd, counted):
    A, s = with_values(SPECTRA[spectrum], dtype), SPECTRA[spectrum]
    found = trsvd.svds(A, k, method="direct", rng=0)
    assert counted == {"eigenvectors": eigenvectors, "svd": svd}
    assert_right(A, found, k, s=np.linalg.svd(A.astype(float), compute_uv=False)[:k])
    assert np.abs(found.S - s[:k]).max() <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_eigenvalues_above_a_level_are_counted(dtype):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 80)).astype(dtype)
    if np.dtype(dtype).kind == "c":
        X = X + (1j * rng.standard_normal(X.shape)).astype(dtype)
    G = np.asfortranarray(X + X.conj().T)
    values = np.linalg.eigvalsh(G.astype("complex128"))
    for level in (-100.0, -3.3, 0.1, 5.0, 100.0):
        assert host_blas.count_above(np.tril(G), level) == (values > level).sum()
