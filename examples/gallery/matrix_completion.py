"""Complete a matrix of low rank from some of its entries, by Frank-Wolfe steps of rank one.

Minimize half the squared error at the known entries over a ball of the nuclear norm. A step asks
the oracle of the ball for the minimizer of a sparse gradient: two vectors. The matrix itself is
never formed.

    python examples/gallery/matrix_completion.py [folder of the picture]
"""

import numpy as np
import scipy.sparse
from _picture import save
from matplotlib.figure import Figure

import trsvd

M, N, RANK, KNOWN, STEPS = 1000, 800, 4, 80_000, 150


def main() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((M, RANK)), rng.standard_normal((N, RANK))
    radius = np.linalg.svd(np.linalg.qr(left)[1] @ np.linalg.qr(right)[1].T, compute_uv=False).sum()
    ball = radius * trsvd.NuclearBall()
    places = rng.choice(M * N, size=2 * KNOWN, replace=False)  # the second half is for the test
    rows, columns = np.divmod(places, N)
    entries = np.einsum("ij,ij->i", left[rows], right[columns])
    train, test = slice(None, KNOWN), slice(KNOWN, None)

    # X = sum of weights[i] * us[i] vs[i]^T, and its values at the places.
    us, vs, weights = [], [], np.empty(0)
    values = np.zeros(2 * KNOWN)
    gaps, errors, matvecs = [], [], 0
    for _ in range(STEPS):
        gradient = values[train] - entries[train]
        G = scipy.sparse.csr_array((gradient, (rows[train], columns[train])), shape=(M, N))
        step = ball.lmo(G, gap=0.1, rng=0)
        matvecs += step.matvecs
        U, Vh = step.factors
        towards = U[rows, 0] * Vh[0, columns] - values
        slope = gradient @ towards[train]
        gaps.append(-slope / (entries[train] @ entries[train]))
        length = min(1.0, -slope / (towards[train] @ towards[train]))  # exact line search
        weights = np.append((1 - length) * weights, length)
        us.append(U[:, 0])
        vs.append(Vh[0])
        values += length * towards
        error = np.linalg.norm((values - entries)[test]) / np.linalg.norm(entries[test])
        errors.append(error)

    X = trsvd.operators.LowRankUpdate(
        scipy.sparse.csr_array((M, N)), np.stack(us, axis=1) * weights, np.stack(vs, axis=1)
    )
    S = trsvd.svds(X, 12, tol=1e-4, rng=0).S
    print(f"{KNOWN / (M * N):.0%} of {M} x {N} entries known")
    print(f"{matvecs / STEPS:.1f} products a step")
    print(f"error at other entries after {STEPS} steps: {errors[-1]:.1%}")
    print("singular values of the sum:", *(f"{s:.0f}" for s in S))
    assert errors[-1] < 0.2

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    panels[0].semilogy(errors, label="error at unknown entries")
    panels[0].semilogy(gaps, label="Frank-Wolfe gap, relative")
    panels[0].set(xlabel="step")
    panels[0].legend()
    panels[1].bar(np.arange(1, 13), S)
    panels[1].set(title="singular values of the result", xlabel="index")
    save(figure, __file__)


if __name__ == "__main__":
    main()
