"""Ritz values of Lanczos on a Gaussian matrix against products, before and after restarts."""

import matplotlib.pyplot as plt
import numpy as np

import trsvd

K, BASIS = 5, 20
A = np.random.default_rng(0).standard_normal((600, 400))
exact = np.linalg.svd(A, compute_uv=False)
products, values = [], []


def look(info):
    """Keep the Ritz values after each step."""
    products.append(info.matvecs)
    values.append(info.triplets()[1][:K])


method = trsvd.ThickRestartLanczos(basis_size=BASIS)
trsvd.svds(A, K, method=method, tol=1e-8, rng=0, callback=look)

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
for value in exact[:K]:
    axes.axhline(value, color="0.8", linewidth=0.8)
lines = axes.plot(products, np.array(values))
axes.axvline(2 * BASIS, color="black", linestyle=":", linewidth=1)
axes.text(2 * BASIS + 1, 31, "first restart")
axes.set(xlabel="products with A or its transpose, in vectors", ylabel="Ritz values", ylim=(25, 45))
axes.legend(lines, range(1, K + 1), title="Ritz value", ncols=K, loc="lower right")
