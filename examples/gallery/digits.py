"""Compute the principal components of handwritten digits, and describe each digit by a few numbers.

The components are singular vectors of the images less their mean.

    python examples/gallery/digits.py [folder of the picture]
"""

from _picture import save
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import trsvd

RANKS = (4, 16)


def main() -> None:
    X = load_digits().data  # 1797 images of 8 x 8 pixels
    centred = trsvd.operators.CenteredOperator(X)
    U, S, Vh = trsvd.svds(centred, max(RANKS))

    shares = S**2 / centred.frobenius_norm() ** 2
    rows = {"components": Vh[:10], "digits": X[:10]}
    for k in RANKS:
        rows[f"by {k} numbers"] = centred.mean + (U[:10, :k] * S[:k]) @ Vh[:k]
        print(f"{k:2d} components have {shares[:k].sum():.1%} of the variance")
    assert shares.sum() > 0.8

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = figure.subplots(len(rows), 10)
    for line, (name, images) in zip(panels, rows.items(), strict=True):
        for panel, image in zip(line, images, strict=True):
            panel.imshow(image.reshape(8, 8), cmap="gray" if name != "components" else "PuOr")
            panel.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    save(figure, __file__)


if __name__ == "__main__":
    main()
