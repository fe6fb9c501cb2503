"""Time of trsvd over that of the fastest peer, for each cell of the race."""

import gzip
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

FILE = Path("../benchmarks/race.json.gz")  # Sphinx runs this script in its folder
COLORS = {1: "tab:blue", 2: "tab:orange"}


def kind(entry):
    """Return the kind of a cell."""
    cell = entry["cell"]
    if cell["measure"] == "gap":
        return "oracles"
    if cell["matrix"].startswith("data-"):
        return "real matrices"
    if cell["batch"]:
        return "batches of 100 small ones"
    if entry["entries"] <= 2**14:
        return "one small matrix"
    return "500 x 500" if cell["matrix"] == "gaussian-500x500" else "large matrices"


cells = json.loads(gzip.decompress(FILE.read_bytes()))["cells"]
groups: dict[str, dict[int, list[float]]] = {}
for entry in cells:
    if entry.get("peer"):
        group = groups.setdefault(kind(entry), {1: [], 2: []})
        group[entry["threads"]].append(entry["peer"]["value"])


def mean(ratios):
    """Return the geometric mean."""
    return float(np.exp(np.mean(np.log(ratios))))


names = sorted(groups, key=lambda name: -mean(groups[name][1]))
rng = np.random.default_rng(0)
figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
axes.axvspan(0.01, 1, color="tab:green", alpha=0.08, linewidth=0)
axes.axvline(1, color="black", linewidth=1)
for row, name in enumerate(names):
    for threads, ratios in groups[name].items():
        level = row + (0.18 if threads == 2 else -0.18)
        spread = level + rng.uniform(-0.12, 0.12, len(ratios))
        axes.plot(ratios, spread, ".", color=COLORS[threads], alpha=0.35, markersize=4)
        axes.plot(mean(ratios), level, "D", color=COLORS[threads], markeredgecolor="black")
        axes.text(9.2, level, f"{mean(ratios):.2f}", color=COLORS[threads], va="center")
for threads, color in COLORS.items():
    label = f"{threads} thread{'s' * (threads > 1)}, geometric mean"
    axes.plot([], [], "D", color=color, markeredgecolor="black", label=label)
axes.set_xscale("log")
ticks = [0.2, 0.5, 1, 2, 5]
axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
axes.set_xticks([], minor=True)
axes.set(
    xlim=(0.15, 9), xlabel="time of trsvd / time of the fastest peer (shaded: trsvd is faster)"
)
axes.set_yticks(range(len(names)), [f"{name} ({len(groups[name][1])})" for name in names])
figure.legend(loc="outside upper center", ncols=2)
