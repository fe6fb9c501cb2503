"""Builders of matrices on which truncated SVDs fail: by spectrum, structure and graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse

from trsvd._arrays.arrays import HostArray

Maker = Callable[[], Any]


def geometric(top: float, ratio: float, n: int) -> list[float]:
    """Return the n numbers ``top, top * ratio, ...``."""
    return list(top * ratio ** np.arange(n))


def orthogonal(m: int, n: int, seed: int = 0) -> HostArray:
    """Return a matrix of random orthonormal columns."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((m, n)))[0]


def unitary(n: int, seed: int = 0) -> HostArray:
    """Return a random unitary matrix."""
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n)))[0]


def spectrum(s: Any, m: int = 0, n: int = 0, seed: int = 0, *, is_complex: bool = False) -> Maker:
    """Return a function that builds a matrix with singular values s and random vectors."""
    s = np.asarray(s, np.float64)
    m, n = max(m, len(s)), max(n, len(s))

    def make() -> HostArray:
        if is_complex:
            U, V = unitary(m, seed)[:, : len(s)], unitary(n, seed + 1)[:, : len(s)]
        else:
            U, V = orthogonal(m, len(s), seed), orthogonal(n, len(s), seed + 1)
        return np.asarray((U * s) @ V.conj().T)

    return make


def _decaying(m: int, n: int) -> HostArray:
    return np.asarray(spectrum(geometric(1, 0.9, min(m, n)), m, n)())


def with_zeros() -> HostArray:
    """Return a matrix in which every third row and every fourth column is zero."""
    A = _decaying(70, 60)
    A[::3] = 0
    A[:, ::4] = 0
    return A


def one_huge_row(factor: float) -> HostArray:
    """Return a matrix with one row that is larger than the others by a factor."""
    A = _decaying(70, 60)
    A[13] *= factor
    return A


def mixed_scales(low: float, high: float) -> HostArray:
    """Return a dense matrix with rows graded between two powers of ten."""
    rng = np.random.default_rng(0)
    exponents = rng.permutation(np.linspace(low, high, 60))
    return np.asarray(10.0 ** exponents[:, None] * rng.standard_normal((60, 50)))


def of_rank(rank: int, m: int, n: int) -> HostArray:
    """Return a product of two Gaussian factors."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))


def duplicated_columns() -> HostArray:
    """Return a matrix of twelve columns, repeated five times up to 1e-9."""
    A = np.random.default_rng(0).standard_normal((70, 12))
    return np.hstack([A] * 5) + 1e-9 * np.random.default_rng(1).standard_normal((70, 60))


def kahan(n: int, c: float = 0.4) -> HostArray:
    """Return Kahan's triangular matrix: graded, with an unexpectedly small last value."""
    s = (1 - c * c) ** 0.5
    return np.asarray(s ** np.arange(n)[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1)))


def companion(n: int) -> HostArray:
    """Return the companion matrix of a random polynomial; n - 2 singular values are 1."""
    return np.asarray(scipy.linalg.companion([1.0, *np.random.default_rng(0).standard_normal(n)]))


def jump(n: int) -> HostArray:
    """Return a Toeplitz matrix whose symbol jumps from 0 to 1; both are clusters within eps."""
    first = [0.5, *(np.sin(np.pi * j / 2) / (np.pi * j) for j in range(1, n))]
    return np.asarray(scipy.linalg.toeplitz(first))


# ---- graphs ---------------------------------------------------------------------------------


def graph(*components: HostArray) -> Any:
    """Return the adjacency matrix of a graph with these components and shuffled vertices."""
    A = scipy.sparse.block_diag([scipy.sparse.coo_array(one) for one in components], format="csr")
    rng = np.random.default_rng(0)
    A = A[rng.permutation(A.shape[0])][:, rng.permutation(A.shape[1])]
    return scipy.sparse.csr_array(A.astype(np.float64))


def cycle(n: int) -> HostArray:
    """Return the adjacency matrix of a cycle."""
    A = np.roll(np.eye(n), 1, axis=0)
    return A + A.T


def hypercube(dimension: int) -> Any:
    """Return the adjacency matrix of a hypercube; multiplicities are binomial coefficients."""
    A, edge = scipy.sparse.csr_array((1, 1)), scipy.sparse.csr_array([[0.0, 1.0], [1.0, 0.0]])
    for _ in range(dimension):
        grown = scipy.sparse.eye_array(A.shape[0])
        A = scipy.sparse.kron(A, scipy.sparse.eye_array(2)) + scipy.sparse.kron(grown, edge)
    return scipy.sparse.csr_array(A)


def laplacian(sizes: Sequence[int]) -> HostArray:
    """Return the Laplacian of complete graphs; it is singular, with multiple values."""
    blocks = [size * np.eye(size) - np.ones((size, size)) for size in sizes]
    return np.asarray(scipy.linalg.block_diag(*blocks))


def zero_one(m: int, n: int, share: float) -> Any:
    """Return a sparse matrix of zeros and ones: one large value, and the rest without gaps."""
    rng = np.random.default_rng(0)
    return scipy.sparse.csr_array((rng.random((m, n)) < share).astype(np.float64))
