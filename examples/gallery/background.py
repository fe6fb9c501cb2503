"""Separate a moving object from the background of a video.

Each frame is a column. The background changes little, so the leading singular triplet describes it.
The object is in what remains.

    python examples/gallery/background.py [folder of the picture]
"""

import numpy as np
from _picture import save
from matplotlib.figure import Figure

import trsvd

HEIGHT, WIDTH, FRAMES, SIDE = 60, 80, 200, 8


def video(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return frames as columns, and the mask of the moving square in each."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    background = 0.5 + 0.3 * np.sin(x / 9) * np.cos(y / 7)
    light = 1 + 0.2 * np.sin(np.arange(FRAMES) / 30)
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), dtype=bool)
    for t in range(FRAMES):
        top = int(26 + 22 * np.sin(t / 11))
        left = int(36 + 34 * np.cos(t / 17))
        masks[t, top : top + SIDE, left : left + SIDE] = True
    frames = light[:, None, None] * background
    frames = np.where(masks, 0.95, frames) + 0.02 * rng.standard_normal(frames.shape)
    return frames.reshape(FRAMES, -1).T, masks.reshape(FRAMES, -1).T


def main() -> None:
    A, masks = video(np.random.default_rng(0))
    result = trsvd.svds(A, 1, tol=1e-4, rng=0)  # light times one image
    background = result.reconstruct()
    difference = np.abs(A - background)

    found = difference > 0.15
    hits = np.count_nonzero(found & masks)
    recall, precision = hits / np.count_nonzero(masks), hits / np.count_nonzero(found)
    print(f"{A.shape[0]} pixels by {A.shape[1]} frames, {result.matvecs} products")
    print(f"pixels of the object: {recall:.1%} found; {precision:.1%} of those found are right")
    assert precision > 0.8
    assert recall > 0.8

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    panels = figure.subplots(2, 3)
    for line, t in zip(panels, (40, 150), strict=True):
        images = {"frame": A, "background (rank 1)": background, "difference": difference}
        for panel, (name, image) in zip(line, images.items(), strict=True):
            frame = image[:, t].reshape(HEIGHT, WIDTH)
            panel.imshow(frame, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set(title=f"{name} {t}" if name == "frame" else name, xticks=[], yticks=[])
    save(figure, __file__)


if __name__ == "__main__":
    main()
