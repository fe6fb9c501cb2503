"""Residuals against products: thick-restart Lanczos, randomized SVD, power iteration."""

import matplotlib.pyplot as plt
import numpy as np

import trsvd

K = 5
A = trsvd.testing.matrix_with_spectrum(600, 400, 1 / np.sqrt(np.arange(1, 401)), rng=0)
METHODS = {
    "thick-restart Lanczos": trsvd.ThickRestartLanczos(),
    "randomized SVD": trsvd.RandomizedSVD(),
    "power iteration": trsvd.PowerIteration(),
}


def residual(U, S, Vh):
    """Return the largest relative residual of the first K triplets."""
    right = np.linalg.norm(A @ Vh[:K].T - U[:, :K] * S[:K], axis=0)
    left = np.linalg.norm(A.T @ U[:, :K] - Vh[:K].T * S[:K], axis=0)
    return max(right.max(), left.max()) / S[0]


def history(method):
    """Return products and residuals after each step."""
    found = []

    def look(info):
        U, S, Vh = info.triplets()
        if len(S) >= K:
            found.append((info.matvecs, residual(U, S, Vh)))
        return info.matvecs > 1200

    trsvd.svds(A, K, method=method, tol=1e-10, rng=0, callback=look, verify=False)
    return zip(*found, strict=True)


figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for name, method in METHODS.items():
    axes.semilogy(*history(method), label=name)
axes.set(
    xlabel="products with A or its transpose, in vectors",
    ylabel="largest relative residual",
    ylim=(1e-11, 2),
)
axes.legend()
