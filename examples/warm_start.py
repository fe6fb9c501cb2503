"""Save products by a warm start in a sequence of slowly changing matrices.

The matrix of each step is near that of the previous step, as for a momentum buffer in training.
Starting from the last result saves products if the tolerance is not far below the change.
"""

import numpy as np

import trsvd
from trsvd.testing import matrix_with_spectrum


def sequence(steps: int, change: float, rng: np.random.Generator):
    """Yield matrices with a relative change of about ``change`` from one to the next."""
    m, n = 400, 300
    A = matrix_with_spectrum(m, n, 0.97 ** np.arange(n), rng=rng)
    size = np.linalg.norm(A)
    for _ in range(steps):
        yield A
        E = rng.standard_normal((m, n))
        A = A + change * size / np.linalg.norm(E) * E


def products(k: int, tol: float, change: float) -> tuple[list[int], list[int]]:
    """Return the products of every step, with a cold start and with a warm start."""
    cold, warm = [], []
    last = None
    for A in sequence(8, change, np.random.default_rng(0)):
        fresh = trsvd.svds(A, k, method="trlan", tol=tol, rng=0)
        last = trsvd.svds(A, k, method="trlan", tol=tol, rng=0, start=last)
        assert np.allclose(fresh.S, last.S, atol=10 * tol * fresh.S[0])
        cold.append(fresh.matvecs)
        warm.append(last.matvecs)
    return cold, warm


def main() -> None:
    k, tol = 8, 1e-3
    print(f"k = {k}, tol = {tol:g}; products with A or its transpose at each step")
    for change in (1e-1, 1e-2, 1e-3):
        cold, warm = products(k, tol, change)
        print(f"relative change {change:g}")
        print("  cold", *(f"{count:5d}" for count in cold))
        print("  warm", *(f"{count:5d}" for count in warm))


if __name__ == "__main__":
    main()
