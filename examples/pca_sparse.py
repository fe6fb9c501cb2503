"""Compute principal components of a sparse matrix without converting it to a dense array.

A centred sparse matrix is dense. `CenteredOperator` subtracts the mean inside the products instead,
so that only the nonzero entries need memory.
"""

import numpy as np
import scipy.sparse

import trsvd


def documents(m: int, n: int, topics: int, rng: np.random.Generator) -> scipy.sparse.csr_array:
    """Return word counts of m documents by n words; each document has one topic."""
    frequency = 1 / np.arange(1, n + 1)
    favours = frequency * rng.gamma(0.2, 5.0, (topics, n))
    favours /= favours.sum(axis=1, keepdims=True)
    topic = rng.integers(topics, size=m)
    words = [rng.choice(n, size=60, p=favours[t]) for t in topic]
    rows = np.repeat(np.arange(m), 60)
    return scipy.sparse.csr_array((np.ones(60 * m), (rows, np.concatenate(words))), shape=(m, n))


def main() -> None:
    A = documents(m=2000, n=3000, topics=6, rng=np.random.default_rng(0))
    k = 6

    centred = trsvd.operators.CenteredOperator(A)
    U, S, Vh = pca = trsvd.svds(centred, k, tol=1e-6, rng=0)

    m, n = A.shape
    variances = S**2 / (m - 1)
    total = centred.frobenius_norm() ** 2 / (m - 1)
    print(f"{m} x {n}, {A.nnz / (m * n):.1%} nonzero; {pca.status.value}")
    print(f"{pca.matvecs} products with the matrix or its transpose, by {pca.method}")
    for i, share in enumerate(variances / total, start=1):
        print(f"component {i}: {share:6.2%} of the variance")

    uncentred = trsvd.svds(A, 1, tol=1e-6, rng=0)
    mean = centred.mean / np.linalg.norm(centred.mean)
    print(f"without centring, |cos| of v_1 and the mean is {abs(uncentred.Vh[0] @ mean):.3f}")

    scores = U * S
    assert np.allclose(scores, centred.matmat(Vh.T), atol=1e-5 * S[0])
    assert np.allclose(scores.mean(axis=0), 0, atol=1e-5 * S[0])


if __name__ == "__main__":
    main()
