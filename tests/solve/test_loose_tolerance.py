"""A loose tolerance means what it says: values within ``tol s_1`` of the leading ones.

Residuals of such a tolerance are met before all leading values have appeared: copies of multiple
values, and values close to each other, come last.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

from trsvd import svds

N = 120


def with_values(s):
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.standard_normal((N, N)))[0] for _ in range(2))
    return (U * s) @ V.T


def blur(width):
    """Convolution with a Gaussian: its values come in pairs."""
    transfer = np.exp(-((np.fft.fftfreq(N) * N / width) ** 2) / 2)
    return np.real(np.fft.ifft(transfer[:, None] * np.fft.fft(np.eye(N), axis=0), axis=0))


def plateaus(size, ratio):
    return with_values(np.repeat(ratio ** np.arange(N // size), size))


def cluster():
    around = 1 + np.arange(6, -6, -1) / 150
    return with_values(np.r_[np.linspace(2, 1.05, 7), around, np.linspace(0.9, 0.1, N - 19)])


FAMILIES = {
    "blur": blur(12.0),
    "wide blur": blur(30.0),
    "pairs of plateaus": plateaus(3, 0.93),
    "plateaus": plateaus(10, 0.8),
    "cluster at k": cluster(),
    "Toeplitz": scipy.linalg.toeplitz(0.9 ** np.arange(N)),
    "second differences": scipy.linalg.toeplitz(np.r_[2.0, -1.0, np.zeros(N - 2)]),
}
WAYS = {
    "one call": lambda A: (A, {}),
    "Lanczos": lambda A: (A, {"method": "trlan"}),
    "products": lambda A: (scipy.sparse.linalg.aslinearoperator(A), {"method": "trlan"}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize("name", FAMILIES)
def test_values_are_within_the_tolerance(name, tol, way):
    A = FAMILIES[name]
    true = np.linalg.svd(A, compute_uv=False)
    B, options = WAYS[way](A)
    for k in (1, 3, 8):
        for seed in range(10 if way == "one call" else 2):
            result = svds(B, k, tol=tol, rng=seed, **options)
            assert result.converged
            assert (true[:k] - result.S).max() <= tol * true[0], (k, seed)


def test_other_tolerances_and_checks_cost_what_they_did():
    A = FAMILIES["blur"]
    for options in ({"tol": 0.9e-3}, {"tol": 1e-2, "verify": 0.1}):
        result = svds(A, 3, rng=0, method="trlan", **options)
        assert result.completeness.eta >= 0.05
