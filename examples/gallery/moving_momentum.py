"""Follow the momentum of a network in training: products of warm and of cold oracles, step by step.

The network is trained on handwritten digits. After some steps the labels are permuted, so that the
gradients change abruptly.

    python examples/gallery/moving_momentum.py [folder of the picture]
"""

import numpy as np
from _picture import save
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import trsvd

STEPS, CHANGE, WIDTH, K, GAP, MU, LR = 80, 40, 520, 4, 1e-2, 0.95, 0.02


def momenta(rng: np.random.Generator):
    """Yield the momentum of the second weight, 520 x 520, at each step of a training run."""
    X, labels = load_digits(return_X_y=True)
    X = X / 16 - 0.5
    sizes = (64, WIDTH, WIDTH, 10)
    weights = [
        rng.standard_normal((m, n)) * np.sqrt(2 / m)
        for m, n in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    buffers = [np.zeros_like(W) for W in weights]
    for step in range(STEPS):
        if step == CHANGE:
            labels = rng.permutation(10)[labels]
        batch = rng.choice(len(X), 512, replace=False)
        layers = [X[batch]]
        for W in weights[:-1]:
            layers.append(np.maximum(layers[-1] @ W, 0))
        scores = layers[-1] @ weights[-1]
        P = np.exp(scores - scores.max(axis=1, keepdims=True))
        P /= P.sum(axis=1, keepdims=True)
        P[np.arange(len(batch)), labels[batch]] -= 1
        back = P / len(batch)
        for i in (2, 1, 0):
            gradient = layers[i].T @ back
            back = (back @ weights[i].T) * (layers[i] > 0)
            buffers[i] = MU * buffers[i] + gradient
        for W, M in zip(weights, buffers, strict=True):
            W -= LR * M
        yield buffers[1].copy()


def main() -> None:
    ball, start = trsvd.KyFanDualBall(K), None
    warm, cold, worst = [], [], 0.0
    for step, G in enumerate(momenta(np.random.default_rng(0))):
        result = ball.lmo(G, gap=GAP, start=start, rng=step)
        start = result.subspace
        warm.append(result.matvecs)
        cold.append(ball.lmo(G, gap=GAP, rng=step).matvecs)
        support = np.linalg.svd(G, compute_uv=False)[:K].sum()
        worst = max(worst, 1 + np.vdot(result.update, G) / support)
    print(f"medians: {np.median(warm):.0f} products warm, {np.median(cold):.0f} cold")
    print(f"largest true gap of the warm oracle: {worst:.1e}; asked for: {GAP:g}")
    assert worst <= GAP
    assert np.median(warm) < np.median(cold)

    figure = Figure(figsize=(9, 3), layout="constrained")
    panel = figure.subplots()
    panel.plot(cold, ".-", label="cold: from a random block")
    panel.plot(warm, ".-", label="warm: from the last step")
    panel.axvline(CHANGE, color="gray", linewidth=0.8)
    panel.set(xlabel="step", ylabel="products with a vector", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=2)
    save(figure, __file__)


if __name__ == "__main__":
    main()
