"""Chart: which method to choose."""

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6.5, 4.4), layout="constrained")
axes.set(xlim=(0, 10), ylim=(0.5, 9.6))
axes.axis("off")
QUESTIONS = [
    (9, "Do you know that\none method is best?", "no method=:\ntrsvd chooses"),
    (7, "min(m, n) below 64, or\nk above min(m, n) / 4?", '"direct"'),
    (5, "Few passes matter more\nthan accuracy?", '"rsvd"'),
    (3, "Slow decay, few passes,\nmemory to spare?", '"krylov"'),
]
ANSWERS = ["no", "yes", "yes", "yes"]
plt.rcParams["font.size"] = 11
box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": "tab:blue"}
result = {"boxstyle": "round,pad=0.5", "facecolor": "tab:blue", "edgecolor": "tab:blue"}
arrow = {"arrowstyle": "->", "color": "0.3", "linewidth": 1.2}


def put(x, y, text, style, **options):
    """Write a text in a box."""
    axes.text(x, y, text, ha="center", va="center", bbox=style, **options)


for (y, question, method), answer in zip(QUESTIONS, ANSWERS, strict=True):
    put(3, y, question, box)
    put(8.3, y, method, result, color="white")
    axes.annotate("", (6.9, y), (5.3, y), arrowprops=arrow)
    axes.text(6.05, y + 0.12, answer, ha="center", va="bottom")
    axes.annotate("", (3, y - 1.35), (3, y - 0.65), arrowprops=arrow)
    axes.text(3.15, y - 1, "yes" if answer == "no" else "no", va="center")
put(3, 1, '"trlan"', result, color="white")
