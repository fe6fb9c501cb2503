"""Measure loss against time on the smooth convex problem, for all optimizers in one process.

Each optimizer has its own copy of X. It makes one step in every round, so that all are timed under
the same load. Times are processor times of all threads together. With OMP_NUM_THREADS=1 they are
equal to wall-clock times.

    OMP_NUM_THREADS=1 python examples/experiments/loss_against_time.py --out time

The table has medians and means over the rounds, for the gradient with the loss, and for the update
(momentum, oracle and step). The ratio compares the whole time with that of the exact polar factor.
"""

import json
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from _runs import figure, markdown, parser
from rich.progress import track
from smooth_convex import TARGET, problem, stalled

import trsvd
from trsvd import optim

EXACT = "Muon, exact (SVD)"
LOOSE = {"momentum": 0.95, "gap": 5e-2}
TIGHT = {"momentum": 0.95, "gap": 1e-2}
# Muon of the paper: no weight decay, no factor by shape.
POLAR = {"lr": 0.007, "momentum": 0.5, "weight_decay": 0.0, "shape_scaling": "none", "ema": False}
RULES = {
    EXACT: optim.muon(method="exact", **POLAR),
    "Muon, exact (Gram matrix)": optim.muon(method="gram", **POLAR),
    "Muon, Newton-Schulz 3": optim.muon(method=trsvd.NewtonSchulz(steps=3), **POLAR),
    "NSGD": optim.nsgd(lr=0.08, momentum=0.95),
    "Fanion-10, gap 5e-2": optim.fanion(lr=0.1, k=10, **LOOSE),
    "Fanion-10, gap 1e-2": optim.fanion(lr=0.1, k=10, **TIGHT),
    "F-Fanion-10, gap 5e-2": optim.f_fanion(lr=0.16, k=10, **LOOSE),
    "F-Fanion-10, gap 1e-2": optim.f_fanion(lr=0.16, k=10, **TIGHT),
}
# Fewer rounds, enough for the times.
SHORT = {"Muon, exact (Gram matrix)": 60, "Fanion-10, gap 1e-2": 250, "F-Fanion-10, gap 1e-2": 250}


@dataclass
class Runner:
    """State and times of one optimizer."""

    rule: optim.Rule
    X: torch.Tensor
    most: int
    state: object = None
    over: bool = False
    losses: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)

    def step(self, M: torch.Tensor, N: torch.Tensor) -> None:
        """Make one step and measure its time."""
        if self.state is None:
            self.state = self.rule.init(self.X)
        begin = time.process_time()
        G = M @ self.X @ N
        self.losses.append(0.5 * float(torch.sum(self.X * G)))
        middle = time.process_time()
        updates, self.state = self.rule.update(G, self.state, self.X)
        self.X = optim.apply_updates(self.X, updates)
        end = time.process_time()
        self.gradient.append(middle - begin)
        self.update.append(end - middle)
        done = len(self.losses) >= self.most or self.losses[-1] <= TARGET
        self.over = done or stalled(self.losses)

    @property
    def whole(self) -> np.ndarray:
        """Seconds of each iteration."""
        return np.add(self.gradient, self.update)


def table(runners: dict[str, Runner]) -> str:
    """Format milliseconds per iteration, in Markdown."""
    head = ["method", "iterations", "last loss", "gradient, ms", "update, ms", "mean"]
    head += ["whole, ms", "mean", "ratio", "of means"]
    lines = []
    for name, runner in runners.items():
        cells = [name, str(len(runner.losses)), f"{runner.losses[-1]:.2g}"]
        cells.append(f"{1e3 * np.median(runner.gradient):.1f}")
        for seconds in (runner.update, runner.whole):
            cells += [f"{1e3 * f(seconds):.1f}" for f in (np.median, np.mean)]
        # Only rounds that both made, under the same load.
        shared = min(len(runner.whole), len(runners[EXACT].whole))
        pair = runners[EXACT].whole[:shared], runner.whole[:shared]
        cells += [f"{f(pair[0]) / f(pair[1]):.1f}" for f in (np.median, np.mean)]
        lines.append(cells)
    return markdown(head, lines)


def main() -> None:
    command = parser(__doc__, "loss-against-time")
    command.add_argument("--size", type=int, default=500)
    command.add_argument("--most", type=int, default=1200, help="rounds")
    options = command.parse_args()
    size, most = (150, 60) if options.quick else (options.size, options.most)
    M, N, X = problem(size, 0)
    runners = {
        name: Runner(rule, X.clone(), min(most, SHORT.get(name, most)))
        for name, rule in RULES.items()
    }
    for _ in track(range(most), "rounds"):
        for runner in runners.values():
            if not runner.over:
                runner.step(M, N)
    options.out.mkdir(parents=True, exist_ok=True)
    found = {
        name: {"losses": r.losses, "gradient": r.gradient, "update": r.update}
        for name, r in runners.items()
    }
    (options.out / "rounds.json").write_text(json.dumps(found), encoding="utf-8")

    def draw(axes) -> None:
        for name, runner in runners.items():
            if name not in SHORT:
                axes[0].semilogy(runner.losses, lw=1.2)
                axes[1].semilogy(np.cumsum(runner.whole), runner.losses, label=name, lw=1.2)
        axes[0].set(xlabel="iterations", ylabel="F(X)")
        axes[1].set(xlabel="seconds of the processor", xscale="log")
        axes[1].legend(fontsize=7)

    figure(options.out / "loss.png", draw, 2)
    (options.out / "table.md").write_text(table(runners), encoding="utf-8")
    print(f"\n{table(runners)}\nin {options.out}: table.md, loss.png, rounds.json")


if __name__ == "__main__":
    main()
