"""Compare thick-restart Lanczos with randomized SVD and others, each to the same error.

The matrices are a Gaussian matrix, whose spectrum is flat, and a momentum matrix from the training
of a GPT. A method stops at the first iteration with ``err1 < 1e-2``. (``trsvd table`` does the same
from the command line, for more matrices.)

    python examples/gallery/paper_table.py [folder of the picture]
"""

from _picture import save
from matplotlib.figure import Figure

from trsvd.table import Case, compare, gaussian, momentum_matrix

METHODS = {
    "trlan": "thick-restart Lanczos",
    "krylov": "block Krylov",
    "rsvd": "randomized SVD",
    "power": "power iteration",
}
CASES = [
    (Case("Gaussian, 300 x 300", gaussian(300, 300, seed=0)), 10),
    (Case("momentum of a GPT, 256 x 256", momentum_matrix()), 10),
]


def main() -> None:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for panel, (case, k) in zip(figure.subplots(1, 2), CASES, strict=True):
        print(f"{case.name}, k = {k}")
        matvecs = {}
        for row in compare(case, k, METHODS, target=1e-2):
            matvecs[row.method] = row.matvecs
            name = METHODS[row.method]
            print(f"  {name:22} {row.matvecs:6d} products  {1e3 * row.seconds:7.1f} ms")
            panel.loglog(
                [point.matvecs for point in row.curve],
                [point.err1 for point in row.curve],
                ".-",
                label=name,
            )
        assert matvecs["trlan"] < matvecs["rsvd"] / 2
        panel.axhline(1e-2, color="gray", linewidth=0.8)
        panel.set(title=f"{case.name}, k = {k}", xlabel="products with a vector", ylabel="err1")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, __file__)


if __name__ == "__main__":
    main()
