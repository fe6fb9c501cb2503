"""Compress a photograph: the smallest rank that keeps a given error.

The pixels are a matrix; its truncated SVD takes fewer numbers.

    python examples/gallery/image_compression.py [folder of the picture]
"""

import numpy as np
from _picture import save
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image

import trsvd


def main() -> None:
    A = load_sample_image("china.jpg").astype(float).mean(axis=2)  # gray, 427 x 640
    m, n = A.shape
    panels = {f"original\n{m * n} numbers": A}
    for error in (0.15, 0.1, 0.05):
        U, S, Vh = result = trsvd.svds_to_tolerance(A, error, rng=0)
        k, approximation = len(S), result.reconstruct()
        attained = np.linalg.norm(A - approximation) / np.linalg.norm(A)
        assert attained <= error
        numbers = k * (m + n + 1)
        print(f"error {error:4.0%}: rank {k:3d}, {numbers / (m * n):6.1%} of the numbers")
        title = f"error {error:.0%}, rank {k}\n{numbers / (m * n):.0%} of the numbers"
        panels[title] = approximation

    figure = Figure(figsize=(8, 1.8), layout="constrained")
    for panel, (title, image) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        panel.imshow(image, cmap="gray", vmin=0, vmax=255)
        panel.set(xticks=[], yticks=[])
        panel.set_title(title, fontsize=9)
    save(figure, __file__)


if __name__ == "__main__":
    main()
