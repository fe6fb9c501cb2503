"""Time one optimizer step over the hidden matrices of a 4-layer byte-level GPT.

The model trains with one optimizer. The others make steps in turns on copies of its parameters,
with the same gradients. The output has medians of the later steps, and ratios to Muon's 5-step
Newton-Schulz iteration in single precision. Both are in wall-clock time and in processor time of
all threads; other programs disturb the latter less.

    python examples/experiments/step_time.py --width 256 --steps 60
"""

import argparse
import time

import numpy as np
import torch
from _gpt import GPT, loss_of, text

import trsvd
from trsvd.optim.torch import (
    NSGD,
    CompositeOptimizer,
    Dion,
    Fanion,
    FFanion,
    Muon,
    split_parameters,
)

PLAIN = {"weight_decay": 0.0, "shape_scaling": "none", "ema": False}
CONTENDERS = {
    "Muon, Newton-Schulz 5": lambda p: Muon(p, method=trsvd.NewtonSchulz(steps=5), **PLAIN),
    "Muon, Polar Express 6": lambda p: Muon(p, method=trsvd.PolarExpress(steps=6), **PLAIN),
    "Muon, exact": lambda p: Muon(p, method="exact", **PLAIN),
    "Muon, its default (bfloat16)": lambda p: Muon(p, weight_decay=0.0),
    "torch.optim.Muon (bfloat16)": lambda p: torch.optim.Muon(p, weight_decay=0.0),
    "Fanion-16": lambda p: Fanion(p, k=16, gap=1e-2),
    "F-Fanion-16": lambda p: FFanion(p, k=16, gap=1e-2),
    "Neon": lambda p: Fanion(p, k=1, gap=1e-2),
    "Dion-16": lambda p: Dion(p, k=16),
    "NSGD": lambda p: NSGD(p),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    torch.manual_seed(0)
    model, data = GPT(options.width, layers=4), text()
    matrices, others = split_parameters(model)
    trainer = CompositeOptimizer(
        Muon(matrices, lr=0.01, method="exact", **PLAIN), torch.optim.AdamW(others, lr=1e-3)
    )
    hidden = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    copies = {name: [torch.nn.Parameter(p.detach().clone()) for p in hidden] for name in CONTENDERS}
    optimizers = {name: make(copies[name]) for name, make in CONTENDERS.items()}
    seconds = {name: [] for name in CONTENDERS}
    gaps = []
    optimizers["Fanion-16"].register_diagnostics_hook(
        lambda record: gaps.append(record.gap), every=max(1, options.steps - 1)
    )
    for step in range(options.steps):
        loss = loss_of(model, data, 16, 64, step)
        trainer.zero_grad()
        loss.backward()
        for name, optimizer in optimizers.items():
            for twin, p in zip(copies[name], hidden, strict=True):
                twin.grad = p.grad.clone()
            begin = time.perf_counter(), time.process_time()
            optimizer.step()
            end = time.perf_counter(), time.process_time()
            seconds[name].append((end[0] - begin[0], end[1] - begin[1]))
        trainer.step()
    # The first half is warm-up, and the last step includes the hook.
    later = slice(options.steps // 2, -1)
    medians = {name: np.median(all_[later], axis=0) for name, all_ in seconds.items()}
    print(f"{len(hidden)} matrices, width {options.width}, {torch.get_num_threads()} threads")
    worst = max(gaps[-len(hidden) :])
    print(f"loss {loss.item():.3f}; largest gap of Fanion-16 in the last step {worst:.1e}")
    print(f"{'optimizer':30s} {'ms a step':>10s} {'ratio':>7s} {'processor':>10s} {'ratio':>7s}")
    for name, median in medians.items():
        ratios = median / medians["Muon, Newton-Schulz 5"]
        cells = [f"{1e3 * ms:10.1f} {ratio:7.2f}" for ms, ratio in zip(median, ratios, strict=True)]
        print(f"{name:30s}", *cells)


if __name__ == "__main__":
    main()
