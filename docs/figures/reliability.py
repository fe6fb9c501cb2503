"""Shares of right, refused and silently wrong answers in the reliability suite."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

PAGE = Path("../benchmarks/reliability-table.md")  # Sphinx runs this script in its folder
NAMES = {
    "auto": "trsvd.svds",
    "trlan": "trsvd, trlan",
    "rsvd": "trsvd, rsvd",
    "krylov": "trsvd, krylov",
    "power": "trsvd, power",
    "scipy arpack": "SciPy, ARPACK",
    "scipy propack": "SciPy, PROPACK",
    "scipy lobpcg": "SciPy, LOBPCG",
    "primme": "PRIMME",
    "sklearn randomized": "scikit-learn, randomized",
    "torch.svd_lowrank": "torch.svd_lowrank",
}
LABELS = ["right", "says that it is not", "within the certificate", "NaN", "silently wrong"]
COLORS = ["tab:green", "tab:gray", "tab:blue", "tab:orange", "tab:red"]

rows = re.findall(
    r"^\| ([^|]+) \| (?:trsvd|peer) \| (\d+) \|((?: \d+ \|){5})$", PAGE.read_text("utf-8"), re.M
)
counts = {name: np.array(re.findall(r"\d+", cells), float) for name, _, cells in rows}
shown = list(reversed(NAMES))
shares = np.array([counts[name] / counts[name].sum() for name in shown])
figure, axes = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
before = np.zeros(len(shown))
for label, color, share in zip(LABELS, COLORS, shares.T, strict=True):
    axes.barh([NAMES[name] for name in shown], share, left=before, color=color, label=label)
    before += share
axes.set(xlabel="share of the answers", xlim=(0, 1))
figure.legend(loc="outside upper center", ncols=3)
