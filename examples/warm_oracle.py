"""Compare warm and cold starts of the oracle for a changing momentum buffer.

For each step of a sequence of matrices, the warm oracle is compared with three cold methods. The
first is the block method with the fewest passes over the matrix, the second the fastest method. The
third is single-vector Golub-Kahan Lanczos without restarts, stopped at the same true gap.

    python examples/warm_oracle.py
    python examples/warm_oracle.py buffers.npy --k 1 8 32 --gap 1e-2

A file contains an array of shape (steps, m, n). Without a file, a sequence is generated: momentum
of gradients with a slowly rotating part of low rank, and noise.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import trsvd


def made_up(steps: int = 12, m: int = 160, n: int = 120, mu: float = 0.95) -> np.ndarray:
    """Return momentum buffers ``M <- mu M + G`` of synthetic gradients."""
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((m, 20)), rng.standard_normal((n, 20))
    s = 0.8 ** np.arange(20)
    M, buffers = np.zeros((m, n)), []
    for step in range(60 + steps):
        U = 0.999 * U + 0.03 * rng.standard_normal(U.shape)
        V = 0.999 * V + 0.03 * rng.standard_normal(V.shape)
        M = mu * M + (U * s) @ V.T + rng.standard_normal((m, n))
        if step >= 60:
            buffers.append(M.astype(np.float32))
    return np.stack(buffers)


def lanczos_sums(G: np.ndarray, k: int, rng: np.random.Generator) -> list[float]:
    """Return the sum of the first k values of single-vector Lanczos after each product."""
    if G.shape[0] < G.shape[1]:
        G = G.T
    v = rng.standard_normal(G.shape[1])
    V, U, sums = [v / np.linalg.norm(v)], [], []
    for _ in range(min(G.shape)):
        u = G @ V[-1]
        sums.append(np.linalg.svd(G @ np.array(V).T, compute_uv=False)[:k].sum())
        for _ in range(2):
            u = u - np.array(U).T @ (np.array(U) @ u) if U else u
        U.append(u / np.linalg.norm(u))
        w = G.T @ U[-1]
        sums.append(np.linalg.svd(np.array(U) @ G, compute_uv=False)[:k].sum())
        for _ in range(2):
            w = w - np.array(V).T @ (np.array(V) @ w)
        if np.linalg.norm(w) < 1e-12 * np.linalg.norm(G):
            break
        V.append(w / np.linalg.norm(w))
    return sums


def seconds(call, repeats: int) -> list[float]:
    """Return wall-clock times of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def compare(buffers: np.ndarray, k: int, gap: float, repeats: int) -> dict[str, np.ndarray]:
    """Return passes, products and seconds of each step, warm and cold, and the true gap."""
    ball = trsvd.KyFanDualBall(k)
    blocks = [trsvd.BlockKrylov(oversampling=p) for p in (4, k + 4)]
    blocks += [trsvd.RandomizedSVD(oversampling=k + 4)]
    others = [*blocks, trsvd.Direct(), trsvd.Direct(route="svd"), None]
    start = ball.lmo(buffers[0], gap=gap, rng=0).subspace
    rows = []
    for step, G in enumerate(buffers[1:], start=1):

        def warm(G=G, step=step, start=start):
            return ball.lmo(G, gap=gap, rng=step, start=start)

        def cold(method, G=G, step=step):
            return ball.lmo(G, gap=gap, rng=step, method=method)

        # Interleaved, so that other load on the machine affects all alike.
        times = [[] for _ in range(1 + len(others))]
        for _ in range(repeats):
            times[0] += seconds(warm, 1)
            for place, method in enumerate(others, start=1):
                times[place] += seconds(lambda method=method: cold(method), 1)
        medians = [float(np.median(column)) for column in times]
        result = warm()
        exact = G.astype(np.float64)
        support = np.linalg.svd(exact, compute_uv=False)[:k].sum()
        true = 1 + float(np.vdot(result.update.astype(np.float64), exact)) / support
        sums = np.array(lanczos_sums(exact, k, np.random.default_rng(step)))
        # Gaps below the rounding level of the update cannot be distinguished.
        enough = np.flatnonzero(1 - sums / support <= max(true, 1e-6))
        rows.append(
            {
                "gap": true,
                "passes": result.passes,
                "cold passes": min(cold(method).passes for method in blocks),
                "products": result.matvecs,
                "Lanczos": int(enough[0]) + 1,
                "seconds": medians[0],
                "cold seconds": min(medians[1:]),
            }
        )
        start = result.subspace
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--k", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--gap", type=float, default=1e-2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sequences = {path.stem: np.load(path) for path in options.files} or {"made up": made_up()}
    print(f"gap asked for: {options.gap:g}; medians over the steps, ratios of each step")
    print(
        f"{'sequence':20s} {'k':>3s} {'largest gap':>12s} {'passes':>7s} {'cold':>5s} "
        f"{'ratio':>6s} {'products':>9s} {'Lanczos':>8s} {'ratio':>6s} {'ms':>7s} {'cold':>7s} "
        f"{'ratio':>6s}"
    )
    for name, buffers in sequences.items():
        for k in options.k:
            table = compare(buffers, k, options.gap, options.repeats)
            assert table["gap"].max() <= options.gap, "a true gap exceeds the requested gap"
            mid = {key: np.median(column) for key, column in table.items()}
            ratios = [
                np.median(table[mine] / table[theirs])
                for mine, theirs in (
                    ("passes", "cold passes"),
                    ("products", "Lanczos"),
                    ("seconds", "cold seconds"),
                )
            ]
            print(
                f"{name[:20]:20s} {k:3d} {table['gap'].max():12.1e} {mid['passes']:7.1f} "
                f"{mid['cold passes']:5.1f} {ratios[0]:6.2f} {mid['products']:9.1f} "
                f"{mid['Lanczos']:8.1f} {ratios[1]:6.2f} {1e3 * mid['seconds']:7.2f} "
                f"{1e3 * mid['cold seconds']:7.2f} {ratios[2]:6.2f}"
            )


if __name__ == "__main__":
    main()
