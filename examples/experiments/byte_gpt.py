"""Train a byte-level GPT on text that ships with Python; find the range of good learning rates.

The model is trained from scratch on sources of the standard library, and then fine-tuned on the
help texts of pydoc. The optimizer of the row updates hidden matrices. AdamW at a fixed rate updates
embeddings, head and norms. All rates decrease linearly to zero.

    python examples/experiments/byte_gpt.py --quick
    python examples/experiments/byte_gpt.py --out byte-gpt

Each optimizer has six rates over more than a decade, the same multiples of its own base rate. A
rate is good if its mean validation loss over the seeds is at most 2 % above that of the best rate.
"""

import sysconfig
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from _gpt import GPT, loss_of, text
from _runs import Job, Tick, carry_out, figure, markdown, parser, spread, wanted

import trsvd
from trsvd.optim import torch as optimizers
from trsvd.optim.torch import CompositeOptimizer, split_parameters

MULTIPLES = tuple(10 ** (i / 4) for i in range(-3, 3))
GOOD = 1.02
SIZE = 16  # windows in a batch


def row(make: Callable, lr: float, **options) -> tuple[Callable, float]:
    """Return an optimizer of the hidden matrices, and its base rate."""
    options |= {"method": trsvd.NewtonSchulz(steps=5), "shape_scaling": "muon"}
    options |= {"weight_decay": 0.0, "ema": False}
    return (lambda params, lr: make(params, lr=lr, **options)), lr


# Muon's part is half of the step of F-Muon and S-Muon: twice the rate.
ROWS = {
    "Muon": row(optimizers.Muon, 0.1),
    "F-Muon": row(optimizers.FMuon, 0.2),
    "S-Muon": row(optimizers.SMuon, 0.2),
    "AdamW": (lambda params, lr: torch.optim.AdamW(params, lr=lr, weight_decay=0.0), 0.012),
}
STARTS = ("from scratch", "fine-tune")


@cache
def texts(start: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return training bytes, and a tenth for validation."""
    if start == "from scratch":
        data = text()
    else:
        path = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
        data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).long()
    end = len(data) * 9 // 10
    return data[:end], data[end:]


@torch.no_grad()
def aside(model: GPT, start: str, length: int) -> float:
    """Return the validation loss, in nats per byte."""
    return float(np.mean([loss_of(model, texts(start)[1], 32, length, i).item() for i in range(8)]))


def trained(
    model: GPT, make: Callable, lr: float, start: str, steps: int, seed: int, tick
) -> list[float]:
    """Train a model and return the losses of all steps."""
    matrices, others = split_parameters(model)
    matrices = [{**group, "params": [p for _, p in group["params"]]} for group in matrices]
    rest = torch.optim.AdamW(others, lr=3e-3, weight_decay=0.0)
    optimizer = CompositeOptimizer(make(matrices, lr), rest)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    data, length = texts(start)[0], model.places.num_embeddings
    losses = []
    for step in range(steps):
        loss = loss_of(model, data, SIZE, length, seed * 100_000 + step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(round(loss.item(), 4))
        tick(step, steps, losses[-1])
    return losses


@cache
def pretrained(seed: int, steps: int, shape: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """Return the start of fine-tuning: trained by AdamW at its base rate, on the first text."""
    model = fresh(seed, shape)
    make, lr = ROWS["AdamW"]
    trained(model, make, lr, "from scratch", steps, seed, lambda *_: None)
    return model.state_dict()


def fresh(seed: int, shape: tuple[int, int, int]) -> GPT:
    """Return a new model of a width, a number of layers and a length."""
    torch.manual_seed(seed)
    width, layers, length = shape
    return GPT(width, layers=layers, length=length)


def run(
    name: str,
    start: str,
    multiple: float,
    seed: int,
    steps: int,
    shape: tuple[int, int, int],
    tick: Tick,
) -> dict:
    """Train once."""
    model = fresh(seed, shape)
    if start == "fine-tune":
        model.load_state_dict(pretrained(seed, steps, shape))
    before = aside(model, start, shape[2])
    make, lr = ROWS[name]
    losses = trained(model, make, multiple * lr, start, steps, seed + 1, tick)
    return {
        "name": name,
        "start": start,
        "lr": multiple * lr,
        "multiple": multiple,
        "seed": seed,
        "losses": losses,
        "loss_before": before,
        "loss_aside": aside(model, start, shape[2]),
    }


# ---- tables -------------------------------------------------------------------------------------


def by_rate(results: list[dict], start: str, name: str) -> dict[float, list[float]]:
    """Return the losses of the seeds for each multiple of the rate."""
    found: dict[float, list[float]] = {}
    for r in results:
        if (r["start"], r["name"]) == (start, name):
            loss = r["loss_aside"]
            found.setdefault(r["multiple"], []).append(loss if np.isfinite(loss) else np.inf)
    return found


def table(results: list[dict], names: list[str]) -> str:
    """Format best rate and loss, the loss at each rate, and the width of the good range."""
    multiples = sorted({r["multiple"] for r in results})
    head = ["start", "optimizer", "best lr", "loss, nats a byte"]
    head += [f"x {multiple:.2f}" for multiple in multiples] + ["good rates", "ratio of the ends"]
    lines = []
    for start in STARTS:
        for name in names:
            found = by_rate(results, start, name)
            means = {multiple: float(np.mean(losses)) for multiple, losses in found.items()}
            best = min(means, key=means.__getitem__)
            good = [multiple for multiple in means if means[multiple] <= GOOD * means[best]]
            lines.append(
                [
                    *(start, name, f"{best * ROWS[name][1]:.3g}"),
                    spread(found[best], ".3f"),
                    *(f"{means[multiple]:.3f}" for multiple in multiples),
                    *(f"{len(good)} of {len(means)}", f"{max(good) / min(good):.1f}"),
                ]
            )
    return markdown(head, lines)


def main() -> None:
    command = parser(__doc__, "byte-gpt")
    command.add_argument("--steps", type=int, default=100)
    command.add_argument("--width", type=int, default=128)
    command.add_argument("--layers", type=int, default=1)
    command.add_argument("--length", type=int, default=32)
    options = command.parse_args()
    steps, seeds = options.steps, options.seeds or 3
    shape = (options.width, options.layers, options.length)
    if options.quick:
        steps, seeds, shape = min(steps, 30), 1, (min(options.width, 64), 1, 32)
    names = [name for name in ROWS if wanted(name, options.only)]
    jobs = []
    for start in STARTS:
        for seed in range(seeds):
            for name in names:
                for multiple in MULTIPLES:
                    key = f"{start}: {name}, x {multiple:.3g}, {steps} steps, {shape}, seed {seed}"
                    jobs.append(Job(key, partial(run, name, start, multiple, seed, steps, shape)))
    results = carry_out(jobs, options.out, options.jobs)

    def draw(axes) -> None:
        for axis, start in zip(axes, STARTS, strict=True):
            for name in names:
                found = by_rate(results, start, name)
                means, spreads = [[f(v) for v in found.values()] for f in (np.mean, np.std)]
                axis.errorbar(list(found), means, spreads, label=name, marker="o", capsize=3)
            axis.set(xscale="log", xlabel="multiple of the rate", title=start)
        axes[0].set_ylabel("loss on text kept aside, nats a byte")
        axes[1].legend()

    figure(options.out / "loss.png", draw, 2)
    (options.out / "table.md").write_text(table(results, names), encoding="utf-8")
    print(f"\n{table(results, names)}\nin {options.out}: table.md, loss.png, runs.jsonl")


if __name__ == "__main__":
    main()
