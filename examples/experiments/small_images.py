"""Train a small convolutional net like airbench, on scikit-learn's digits or on CIFAR-10.

The net has a frozen whitening layer, groups of two convolutions with batch norms and GELU, and a
linear head. Training uses label smoothing and learning rates that decrease to zero. The optimizer
of the row updates 3 x 3 convolutions, with weights normalized before each step. SGD with Nesterov
momentum updates biases and head (K. Jordan, arXiv:2404.00498).

    python examples/experiments/small_images.py --quick
    python examples/experiments/small_images.py --out digits
    python examples/experiments/small_images.py --cifar cifar-10-batches-py --out cifar

All rows have the same grid of learning rates. Updates are scaled to about the norm of Muon's
update, ``sqrt(min(m, n))`` for an m x n matrix. The rate is chosen by the loss on validation
images; five seeds with that rate are then tested.
"""

import math
import pickle
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from _runs import Job, Tick, carry_out, figure, markdown, parser, spread, wanted
from torch import nn

import trsvd
from trsvd.optim import torch as optimizers
from trsvd.optim.torch import CompositeOptimizer, split_parameters

RATES = (0.03, 0.06, 0.12, 0.24, 0.48)
AIRBENCH = {"momentum": 0.6, "normalize_weights": True, "weight_decay": 0.0}
THREE = trsvd.NewtonSchulz(steps=3)


def row(make: Callable, length: Callable[[int, int], float], **options) -> Callable:
    """Return an optimizer whose updates, of a norm ``length(m, n)``, are scaled to Muon's."""
    options = {**AIRBENCH, **options}
    options["shape_scaling"] = lambda m, n: math.sqrt(min(m, n)) / length(m, n)
    return lambda params, lr: make(params, lr=lr, **options)


def polar(m: int, n: int) -> float:
    return math.sqrt(min(m, n))


def mixed(m: int, n: int) -> float:
    return 0.5 * polar(m, n)


ROWS = {
    "Muon, Newton-Schulz 3": row(optimizers.Muon, polar, method=THREE, ema=False),
    "F-Muon, Newton-Schulz 3": row(optimizers.FMuon, mixed, method=THREE),
    "S-Muon, Newton-Schulz 3": row(optimizers.SMuon, mixed, method=THREE),
    "Muon, exact": row(optimizers.Muon, polar, method="exact", ema=False),
    "NSGD": row(optimizers.NSGD, lambda m, n: 1.0),
    "SignSGD": row(optimizers.SignSGD, lambda m, n: math.sqrt(m * n)),
    "Neon": row(optimizers.Neon, lambda m, n: 1.0),
    "Fanion-5": row(optimizers.Fanion, lambda m, n: math.sqrt(5), k=5),
    "F-Fanion-5": row(optimizers.FFanion, lambda m, n: 0.5 * (math.sqrt(5) + 1), k=5),
    "Dion-5 (orthonormal)": row(
        optimizers.Dion, lambda m, n: math.sqrt(5), k=5, orthonormal=True, momentum=0.95
    ),
}

# ---- images ---------------------------------------------------------------------------------


@cache
def images(cifar: Path | None) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return normalized images and classes for training, choice of the rate, and test."""
    if cifar is None:
        from sklearn.datasets import load_digits

        found = load_digits()
        X, y = found.images[:, None].astype(np.float32), found.target
        order = np.random.default_rng(0).permutation(len(X))
        X, y, tests = X[order], y[order], len(X) // 5
    else:
        names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
        parts = [pickle.loads((cifar / name).read_bytes(), encoding="bytes") for name in names]
        X = np.concatenate([part[b"data"] for part in parts]).reshape(-1, 3, 32, 32)
        y = np.concatenate([part[b"labels"] for part in parts])
        X, tests = X.astype(np.float32), len(parts[-1][b"labels"])
    X = (X - X.mean(axis=(0, 2, 3), keepdims=True)) / X.std(axis=(0, 2, 3), keepdims=True)
    aside = (len(X) - tests) // 5
    ends = {"train": slice(0, -tests - aside), "choose": slice(-tests - aside, -tests)}
    ends["test"] = slice(-tests, None)
    return {
        name: (torch.tensor(X[part]), torch.tensor(y[part]).long()) for name, part in ends.items()
    }


def shifted(X: torch.Tensor, generator: torch.Generator, *, flip: bool) -> torch.Tensor:
    """Shift images by at most one pixel; with ``flip``, by at most two, and mirror half."""
    most, size = 1 + flip, X.shape[-1]
    padded = nn.functional.pad(X, (most,) * 4, mode="reflect")
    out = torch.empty_like(X)
    moves = torch.randint(2 * most + 1, (len(X), 2), generator=generator)
    for i, j in moves.unique(dim=0).tolist():
        mine = (moves == torch.tensor([i, j])).all(dim=1)
        out[mine] = padded[mine, :, i : i + size, j : j + size]
    if flip:
        mirrored = torch.rand(len(X), generator=generator) < 0.5
        out[mirrored] = out[mirrored].flip(-1)
    return out


# ---- the net ---------------------------------------------------------------------------------


def whitening(X: torch.Tensor, eps: float = 1e-2) -> nn.Conv2d:
    """Return a frozen convolution by the principal components of 2 x 2 patches, both signs."""
    patches = nn.functional.unfold(X[:2000], 2).mT.reshape(-1, 4 * X.shape[1])
    values, vectors = torch.linalg.eigh(patches.mT @ patches / len(patches))
    filters = (vectors / torch.sqrt(values + eps)).mT.reshape(-1, X.shape[1], 2, 2)
    conv = nn.Conv2d(X.shape[1], 2 * len(filters), 2)
    conv.weight.data.copy_(torch.cat([filters, -filters]))
    conv.weight.requires_grad_(False)
    nn.init.zeros_(conv.bias)
    return conv


def group(inside: int, outside: int) -> list[nn.Module]:
    """Return two convolutions with a pooling layer."""
    layers: list[nn.Module] = []
    for width, after in ((inside, [nn.MaxPool2d(2)]), (outside, [])):
        conv = nn.Conv2d(width, outside, 3, padding=1, bias=False)
        nn.init.dirac_(conv.weight[: min(width, outside)])
        norm = nn.BatchNorm2d(outside, momentum=0.4)
        norm.weight.requires_grad_(False)
        layers += [conv, *after, norm, nn.GELU()]
    return layers


class Scaled(nn.Module):
    """Multiplication by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """Return ``factor * X``."""
        return self.factor * X


def net(X: torch.Tensor) -> nn.Sequential:
    """Return the net for images of the shape of X."""
    first = whitening(X)
    widths = [first.out_channels, 32, 64] if X.shape[-1] < 16 else [24, 64, 256, 256]
    widths[0] = first.out_channels
    groups = [layer for pair in zip(widths, widths[1:], strict=False) for layer in group(*pair)]
    head = nn.Linear(widths[-1], 10, bias=False)
    ends = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), head, Scaled(1 / 9)]
    return nn.Sequential(first, nn.GELU(), *groups, *ends)


@torch.no_grad()
def judged(model: nn.Module, X: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy."""
    model.eval()
    logits = torch.cat([model(some) for some in X.split(1000)])
    right = (logits.argmax(dim=1) == y).double().mean()
    return float(nn.functional.cross_entropy(logits, y)), float(right)


def run(name: str, lr: float, seed: int, epochs: int, cifar: Path | None, tick: Tick) -> dict:
    """Train once."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    data, size = images(cifar), 128 if cifar is None else 1000
    X, y = data["train"]
    model = net(X)
    matrices, others = split_parameters(model)
    rest = torch.optim.SGD(
        [
            {"params": [p for _, p in others[0]["params"] if p.ndim == 1], "lr": 0.053},
            {"params": [p for _, p in others[0]["params"] if p.ndim > 1], "lr": 0.67},
        ],
        momentum=0.85,
        nesterov=True,
    )
    optimizer = CompositeOptimizer(ROWS[name](matrices, lr), rest)
    steps = epochs * math.ceil(len(X) / size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    step, losses = 0, []
    for _ in range(epochs):
        model.train()
        for some in torch.randperm(len(X), generator=generator).split(size):
            batch = shifted(X[some], generator, flip=cifar is not None)
            loss = nn.functional.cross_entropy(model(batch), y[some], label_smoothing=0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(round(loss.item(), 4))
            step += 1
            tick(step, steps, losses[-1])
    chosen, tested = judged(model, *data["choose"]), judged(model, *data["test"])
    return {
        "name": name,
        "lr": lr,
        "seed": seed,
        "losses": losses,
        "choosing_loss": chosen[0],
        "choosing_accuracy": chosen[1],
        "test_loss": tested[0],
        "test_accuracy": tested[1],
    }


# ---- tables ------------------------------------------------------------------------------------


def table(found: dict[str, list[dict]]) -> str:
    """Format rate, test accuracy and loss; mean and standard deviation over the seeds."""
    head = ["optimizer", "lr", "seeds", "test accuracy, %", "test loss", "training loss at the end"]
    lines = [
        [
            name,
            f"{runs[0]['lr']:g}",
            str(len(runs)),
            spread([100 * r["test_accuracy"] for r in runs], ".2f"),
            spread([r["test_loss"] for r in runs], ".3f"),
            spread([float(np.mean(r["losses"][-5:])) for r in runs], ".3f"),
        ]
        for name, runs in found.items()
    ]
    return markdown(head, lines)


def main() -> None:
    command = parser(__doc__, "small-images")
    command.add_argument("--cifar", type=Path, help="folder with the batches of CIFAR-10")
    command.add_argument("--epochs", type=int, default=8)
    options = command.parse_args()
    rates, epochs, seeds = RATES, options.epochs, options.seeds or 5
    if options.quick:
        rates, epochs, seeds = RATES[1::2], min(epochs, 3), 1
    names = [name for name in ROWS if wanted(name, options.only)]
    data = "digits" if options.cifar is None else "CIFAR-10"

    def job(name: str, lr: float, seed: int) -> Job:
        key = f"{data}: {name}, lr {lr:g}, {epochs} epochs, seed {seed}"
        return Job(key, partial(run, name, lr, seed, epochs, options.cifar))

    grid = [(name, lr) for name in names for lr in rates]
    tried = carry_out([job(name, lr, 0) for name, lr in grid], options.out, options.jobs)
    best = {
        name: min((r for r in tried if r["name"] == name), key=lambda r: r["choosing_loss"])["lr"]
        for name in names
    }
    pairs = [(name, seed) for name in names for seed in range(1, seeds + 1)]
    final = carry_out(
        [job(name, best[name], seed) for name, seed in pairs], options.out, options.jobs
    )
    found = {name: [r for r in final if r["name"] == name] for name in names}

    def draw(axes) -> None:
        for name in names:
            mine = [r for r in tried if r["name"] == name]
            axes[0].semilogx([r["lr"] for r in mine], [r["choosing_loss"] for r in mine], "o-")
            axes[1].plot(np.mean([r["losses"] for r in found[name]], axis=0), label=name, lw=1)
        axes[0].set(xlabel="learning rate", ylabel="loss on images kept aside", yscale="log")
        axes[1].set(xlabel="steps", ylabel="training loss, mean over the seeds")
        axes[1].legend(fontsize=7)

    figure(options.out / "loss.png", draw, 2)
    (options.out / "table.md").write_text(table(found), encoding="utf-8")
    print(f"\n{table(found)}\nin {options.out}: table.md, loss.png, runs.jsonl")


if __name__ == "__main__":
    main()
