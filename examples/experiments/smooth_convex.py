"""Solve the smooth convex problem of the paper: iterations and seconds to a loss of 1e-3.

The objective is ``F(X) = <X, M X N> / 2`` with X of 500 x 500. M and N are positive semidefinite
with eigenvalues uniform on (0, 1). Entries of X0 are from N(0, 0.01). Learning rates are constant,
with Nesterov momentum, alpha = 1/2, eta = 0.01 and single precision (arXiv:2512.09678).

    python examples/experiments/smooth_convex.py --quick
    python examples/experiments/smooth_convex.py --out results

There are four groups of rows:

- paper: the tuned pairs of the paper, with its 3-step Newton-Schulz iteration in bfloat16;
- same pair: the same pairs with 3 steps in single precision, the exact polar factor, and 5 steps;
- low rank: families of low rank with a gap of 5e-2, each at the best of six learning rates, by the
  loss after 1200 iterations;
- retuned: the exact polar factor on a grid around the pairs.

Rates are chosen with the first start; the best one is then run from the others. A run ends at the
target, or if the least loss decreased by less than 1 % in 150 iterations. Runs of low rank make all
iterations. Times are processor times of all threads. With OMP_NUM_THREADS=1 they are equal to
wall-clock times.

Each finished run is a line of ``runs.jsonl`` in the output folder, so that an interrupted
experiment can be resumed. ``--only`` selects rows by a part of their names.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _runs import Job, Tick, carry_out, figure, markdown, parser, spread, wanted

import trsvd
from trsvd import optim

TARGET = 1e-3
STALL = 150
THREE, FIVE = (trsvd.NewtonSchulz(steps=steps) for steps in (3, 5))
PAPER = trsvd.NewtonSchulz(steps=3, dtype="bfloat16")


@dataclass(frozen=True)
class Row:
    """Row of the table: a rule with its rates; a run stops at the target or after `most`."""

    group: str
    name: str
    rule: Callable[..., optim.Rule]
    lr: float
    momentum: float
    options: dict
    paper: int | None = None
    most: int = 1500
    seeds: int = 5

    @property
    def key(self) -> str:
        """Name of the row."""
        return f"{self.group}: {self.name}, lr {self.lr:.4g}, momentum {self.momentum:g}"

    def make(self) -> optim.Rule:
        """Return the rule."""
        options = {"weight_decay": 0.0, "shape_scaling": "none", "ema": False, **self.options}
        return self.rule(lr=self.lr, momentum=self.momentum, **options)


TUNED = [
    ("Muon", optim.muon, 0.007, 0.5, 1060),
    ("F-Muon", optim.f_muon, 0.015, 0.7, 910),
    ("S-Muon", optim.s_muon, 0.011, 0.9, 890),
]
OTHERS = [
    ("NSGD", optim.nsgd, 0.08, 0.95, 1020, 1500),
    ("SignSGD", optim.sign_sgd, 0.016 * 0.01, 0.95, 2650, 3500),
]
LOW = {"gap": 5e-2}
GRIDS = ("low rank", "retuned")


def rows() -> list[Row]:
    """Return all rows, the most important first."""
    found = [
        Row("paper", f"{name}, Newton-Schulz 3, bfloat16", rule, lr, mu, {"method": PAPER}, paper)
        for name, rule, lr, mu, paper in TUNED
    ]
    found += [
        Row("paper", name, rule, lr, mu, {}, paper, most)
        for name, rule, lr, mu, paper, most in OTHERS
    ]
    for label, method in (
        ("Newton-Schulz 3", THREE),
        ("exact", "exact"),
        ("Newton-Schulz 5", FIVE),
    ):
        found += [
            Row("same pair", f"{name}, {label}", rule, lr, mu, {"method": method})
            for name, rule, lr, mu, _ in TUNED
        ]
    for k in (1, 2, 10, 100):
        for name, rule, lr in (
            ("Fanion", optim.fanion, 1.0 / k),
            ("F-Fanion", optim.f_fanion, 0.16),
            ("S-Fanion", optim.s_fanion, 0.032),
        ):
            found += [
                Row("low rank", f"{name}-{k}", rule, c * lr, 0.95, LOW | {"k": k}, None, 1200, 3)
                for c in (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
            ]
    found += [
        Row("retuned", f"{name}, exact", rule, c * lr, mu, {"method": "exact"})
        for name, rule, lr, _, _ in TUNED
        for c in (0.7, 0.85, 1.0)
        for mu in (0.5, 0.7, 0.9)
    ]
    return found


# ---- one run ----------------------------------------------------------------------------------


def problem(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return M, N and X0."""
    rng = np.random.default_rng(seed)

    def semidefinite() -> torch.Tensor:
        Q = np.linalg.qr(rng.standard_normal((size, size)))[0]
        return torch.tensor((Q * rng.uniform(0, 1, size)) @ Q.T, dtype=torch.float32)

    M, N = semidefinite(), semidefinite()
    return M, N, torch.tensor(0.1 * rng.standard_normal((size, size)), dtype=torch.float32)


def stalled(losses: list[float]) -> bool:
    """True if the least loss decreased by less than 1 % in the last iterations."""
    return len(losses) > STALL and min(losses[-STALL:]) > 0.99 * min(losses[:-STALL])


def run(row: Row, size: int, seed: int, most: int, tick: Tick) -> dict:
    """Return losses, and seconds after each iteration, to the target or to the end."""
    M, N, X = problem(size, seed)
    rule = row.make()
    state = rule.init(X)
    losses, clock, spent = [], [], 0.0
    for step in range(most + 1):
        begin = time.process_time()
        G = M @ X @ N
        loss = 0.5 * float(torch.sum(X * G))
        losses.append(loss)
        clock.append(spent)
        tick(step, most, loss)
        if not loss < 1e6 or step == most:
            break
        if row.group != "low rank" and (loss <= TARGET or stalled(losses)):
            break
        updates, state = rule.update(G, state, X)
        X = optim.apply_updates(X, updates)
        spent += time.process_time() - begin
    reached = len(losses) - 1 if losses[-1] <= TARGET else None
    if row.group == "low rank":
        below = np.flatnonzero(np.array(losses) <= TARGET)
        reached = int(below[0]) if len(below) else None
    return {
        "name": row.name,
        "group": row.group,
        "lr": row.lr,
        "momentum": row.momentum,
        "seed": seed,
        "size": size,
        "iterations": reached,
        "last": losses[-1],
        "milliseconds": 1e3 * float(np.median(np.diff(clock))) if len(clock) > 1 else None,
        "losses": [float(f"{loss:.4g}") for loss in losses],
        "clock": [round(seconds, 4) for seconds in clock],
    }


# ---- tables and plots ---------------------------------------------------------------------------


def merit(row: Row, runs: list[dict]) -> tuple[float, float]:
    """Return the key by which rates are compared: final loss, or iterations and then loss."""
    last = float(np.mean(np.nan_to_num([r["last"] for r in runs], nan=np.inf)))
    if row.group == "low rank":
        return last, 0.0
    return float(np.mean([r["iterations"] or np.inf for r in runs])), last


def best_rates(found: list[tuple[Row, list[dict]]]) -> list[tuple[Row, list[dict]]]:
    """Select the best rate of each row in the groups with a grid."""
    best: dict[tuple[str, str], tuple[Row, list[dict]]] = {}
    for row, runs in found:
        key = (row.group, row.name if row.group in GRIDS else row.key)
        if key not in best or merit(row, runs) < merit(*best[key]):
            best[key] = (row, runs)
    return list(best.values())


def table(found: list[tuple[Row, list[dict]]]) -> str:
    """Format the results in Markdown."""
    head = "group, method, lr, momentum, seeds, iterations to 1e-3, paper, loss at the end, "
    head += "ms per iteration"
    lines = []
    for row, runs in best_rates(found):
        reached = [r["iterations"] for r in runs if r["iterations"] is not None]
        its = spread(reached) if reached else f"not in {max(len(r['losses']) - 1 for r in runs)}"
        if reached and len(reached) < len(runs):
            its += f" ({len(runs) - len(reached)} of {len(runs)} did not)"
        lines.append(
            [
                *(row.group, row.name, f"{row.lr:.3g}", f"{row.momentum:g}", str(len(runs)), its),
                str(row.paper or ""),
                spread([r["last"] for r in runs], ".2g"),
                spread([r["milliseconds"] for r in runs], ".1f"),
            ]
        )
    return markdown(head.split(", "), lines)


def plot(found: list[tuple[Row, list[dict]]], path: Path) -> None:
    """Plot loss against iterations and seconds, for the first seed of each row."""
    shown = [
        (row, runs)
        for row, runs in best_rates(found)
        if row.group != "low rank" or row.name.endswith("-10")
    ]

    def draw(axes) -> None:
        for place, (row, runs) in enumerate(shown):
            style = {"color": f"C{place % 10}", "ls": ("-", "--", ":")[place // 10 % 3], "lw": 1.2}
            axes[0].semilogy(runs[0]["losses"], **style)
            label = f"{row.name} ({row.group})"
            axes[1].semilogy(runs[0]["clock"], runs[0]["losses"], label=label, **style)
        for axis, label in zip(axes, ("iterations", "seconds of the processor"), strict=True):
            axis.set_xlabel(label)
            axis.axhline(TARGET, color="black", lw=0.6)
        axes[0].set_ylabel("F(X)")
        axes[1].set_xscale("log")
        axes[1].legend(fontsize=7)

    figure(path, draw, 2)


def main() -> None:
    command = parser(__doc__, "smooth-convex")
    command.add_argument("--size", type=int, default=500)
    command.add_argument("--most", type=int, help="largest number of iterations of each run")
    options = command.parse_args()
    size, seeds, cap = (100, 1, 300) if options.quick else (options.size, options.seeds, None)
    cap = options.most or cap
    chosen = [row for row in rows() if wanted(f"{row.group} {row.name}", options.only)]

    def made(some: list[Row], starts: int) -> list[tuple[Row, list[dict]]]:
        jobs, owners = [], []
        for row in some:
            most = min(row.most, cap or row.most)
            for seed in range(min(row.seeds, starts)):
                key = f"{row.key}, size {size}, at most {most}, seed {seed}"
                jobs.append(Job(key, partial(run, row, size, seed, most)))
                owners.append(row)
        results = list(zip(owners, carry_out(jobs, options.out, options.jobs), strict=True))
        return [(row, [r for owner, r in results if owner is row]) for row in some]

    seeds = seeds or max(row.seeds for row in chosen)
    tried = best_rates(made([row for row in chosen if row.group in GRIDS], 1))
    best = [row for row, _ in tried]
    found = made([row for row in chosen if row in best or row.group not in GRIDS], seeds)
    (options.out / "table.md").write_text(table(found), encoding="utf-8")
    plot(found, options.out / "loss.png")
    print(f"\n{table(found)}\nin {options.out}: table.md, loss.png, runs.jsonl")


if __name__ == "__main__":
    main()
