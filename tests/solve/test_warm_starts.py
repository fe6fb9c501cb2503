"""A warm start costs at most one block product each way more than a cold one.

Products are counted, not seconds. With the same seed, a start that is of no use leaves the random
numbers of the run as they are, so that the counts are equal but for the test of the start.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from checks import CountingOperator, assert_right

from trsvd import ConvergenceWarning, svds


def decaying(m, n, dtype):
    """A matrix with singular values near 1 / i, which is made without a factorization."""
    A = np.random.default_rng(0).standard_normal((m, n)).astype(dtype)
    return A / np.arange(1, n + 1, dtype=dtype)


def tall_or_wide(shape):
    A = decaying(300, 200, "float64")
    return A if A.shape == shape else A.T


def ratings(dtype):
    rng = np.random.default_rng(0)
    rows, columns = (size * rng.random(200_000) ** 2 for size in (10_000, 4_000))
    entries = rng.standard_normal(200_000).astype(dtype), (rows.astype(int), columns.astype(int))
    return scipy.sparse.csr_array(entries, shape=(10_000, 4_000))


CASES = {
    "2048": (lambda dtype: decaying(2048, 2048, dtype), 32),
    "4096": (lambda dtype: decaying(4096, 4096, dtype), 64),
    "500 x 300": (lambda dtype: decaying(500, 300, dtype), 10),
    "300 x 500": (lambda dtype: decaying(500, 300, dtype).T.copy(), 10),
    "sparse": (ratings, 20),
    "operator": (lambda dtype: CountingOperator(decaying(400, 300, dtype)), 10),
    "wide operator": (lambda dtype: CountingOperator(decaying(400, 300, dtype).T), 10),
}


def starts(n, k, leading):
    """Starts of every width and quality; ``leading`` are 2 k leading right vectors."""
    random = np.random.default_rng(5).standard_normal((n, 3 * k)).astype(leading.dtype)
    near = leading[:, :k] + random[:, :k] * (1e-6 / n**0.5)
    return {
        "vector": random[:, 0],
        "random": random[:, :k],
        "wide": random,
        "half": leading[:, : k // 2],
        "near": near,
        "reversed": near[:, ::-1],
        "far": near + random[:, :k] * (0.3 / n**0.5),
        "next": leading[:, k:],
        "near the next": leading[:, k:] + random[:, :k] * (1e-6 / n**0.5),
        "last but one": np.delete(leading[:, : k + 1], k - 1, axis=1),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_a_start_costs_at_most_one_block_product_each_way(name, dtype):
    make, k = CASES[name]
    A = make(dtype)
    n = A.shape[1]
    cold = svds(A, k, rng=0)
    twice = svds(A, 2 * k, rng=1)
    for kind, start in starts(n, k, np.asarray(twice.Vh).T).items():
        warm = svds(A, k, rng=0, start=start)
        width = 1 if start.ndim == 1 else start.shape[1]
        assert warm.converged
        assert warm.matvecs <= cold.matvecs + 2 * width, kind
        # Values that the start lacks may be missed as the certificate says.
        lacking = kind in ("next", "last but one")
        eta = warm.completeness.eta if lacking else 0.0
        assert (warm.S * (1 + eta) >= cold.S - 2 * 6.4e-6 * cold.S[0]).all(), kind
        # Else residuals and check are computed twice. (In single precision rounding errors decide
        # if residuals are computed in double precision: 3 k products.)
        verified = (2 if lacking else 1) * cold.matvecs_verify + 4
        assert warm.matvecs_verify <= verified + 3 * k * (dtype == "float32"), kind


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_matrix_again_takes_one_product_each_way_and_the_check(name, dtype):
    make, k = CASES[name]
    A = make(dtype)
    cold, wider = svds(A, k, rng=0), svds(A, k + 5, rng=0)
    # At most 2 to test the start, and one product with each of its vectors.
    for start, width in ((cold, k), (cold.Vh.T, k), (wider, k + 5)):
        warm = svds(A, k, rng=1, start=start)
        assert warm.converged
        assert warm.matvecs <= 2 + width
        total = cold.matvecs + cold.matvecs_verify
        assert warm.matvecs + warm.matvecs_verify <= 0.6 * total
        assert warm.completeness.kind == cold.completeness.kind
        assert np.abs(warm.S - cold.S).max() <= 2 * 6.4e-6 * cold.S[0]


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_a_near_start_saves_products_and_a_useless_one_takes_two(shape):
    A = CountingOperator(tall_or_wide(shape))
    k, cold = 12, svds(A, 12, rng=0)
    leading = np.asarray(svds(A, 2 * k, rng=1).Vh).T
    found = {
        kind: svds(A, k, rng=0, start=start).matvecs
        for kind, start in starts(shape[1], k, leading).items()
    }
    assert found["near"] < 0.95 * cold.matvecs
    assert found["reversed"] < 0.95 * cold.matvecs
    assert found["half"] == found["vector"] == cold.matvecs
    assert found["random"] == found["wide"] == cold.matvecs + 2


@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
@pytest.mark.parametrize("method", ["trlan", "rsvd", "krylov", "power"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_every_method_accepts_a_converged_start(shape, method, dtype):
    rng = np.random.default_rng(0)
    A = decaying(*shape, dtype) + 1e-3 * rng.standard_normal(shape)
    first = svds(A, 4, rng=0, tol=1e-10)
    for start in (first, first.Vh.conj().T):
        warm = svds(A, 4, method=method, tol=1e-8, rng=1, start=start)
        assert_right(A, warm, 4, tol=1e-8)
        assert (warm.matvecs, warm.method.name) == (6, method)


def test_a_converged_start_that_is_not_leading_is_not_the_answer():
    A = decaying(300, 200, "float64")
    known = np.linalg.svd(A)[2][3:8].T
    for shape, start in (((300, 200), known), ((200, 300), np.linalg.svd(A)[0][:, 3:8])):
        B = A if shape == A.shape else A.T
        assert_right(B, svds(B, 5, method="trlan", rng=0, start=start), 5)


def test_a_flat_spectrum_is_left_to_a_factorization_with_a_start_too(general_way):
    """Else a Lanczos run that is begun near the answer takes thousands of products."""
    A = np.random.default_rng(0).standard_normal((700, 600)).astype("float32")
    cold = svds(A, 30, rng=0)
    first = svds(A, 30, rng=0, tol=1e-4)
    noise = 1e-2 * np.random.default_rng(1).standard_normal(A.shape).astype("float32")
    assert cold.method.name == "direct"
    warm = svds(A + noise, 30, rng=0, start=first)
    assert warm.method.name == "direct"
    assert warm.matvecs <= cold.matvecs + 60


@pytest.mark.parametrize("shape", [(300, 200), (200, 300)])
def test_an_accepted_start_can_be_resumed(shape):
    A = CountingOperator(tall_or_wide(shape))
    first = svds(A, 6, rng=0, tol=1e-4)
    warm = svds(A, 6, rng=0, tol=1e-4, start=first)
    assert warm.matvecs == 8
    for k, tol in ((6, 1e-4), (6, 1e-9), (9, 1e-4)):
        again = svds(A, k, tol=tol, state=warm.state, rng=1)
        assert again.converged
        assert np.abs(again.S - np.linalg.svd(A.A)[1][:k]).max() <= 2 * tol * first.S[0]


def test_a_start_counts_towards_the_limit_of_products():
    A = CountingOperator(decaying(300, 200, "float64"))
    first = svds(A, 6, rng=0)
    for cap in (10, 20, 40, 70):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = svds(A, 6, rng=0, start=first, max_matvecs=cap)
        assert result.matvecs <= cap
