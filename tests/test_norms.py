"""Norms by name, against NumPy."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import aslinearoperator

from trsvd import balls, norms

DTYPES = ["float32", "float64", "complex64", "complex128"]
SHAPES = [(8, 5), (5, 8), (1, 4), (4, 1)]


def values(X):
    return np.linalg.svd(X, compute_uv=False)


def dual(X, k):
    return max(values(X)[0], values(X).sum() / min(k, *X.shape))


SPECTRAL = {
    "kyfan_norm-1": (lambda X: norms.kyfan_norm(X, 1), lambda X: values(X)[0]),
    "kyfan_norm-3": (lambda X: norms.kyfan_norm(X, 3), lambda X: values(X)[:3].sum()),
    "kyfan_norm-9": (lambda X: norms.kyfan_norm(X, 9), lambda X: values(X).sum()),
    "kyfan_dual_norm-1": (lambda X: norms.kyfan_dual_norm(X, 1), lambda X: dual(X, 1)),
    "kyfan_dual_norm-3": (lambda X: norms.kyfan_dual_norm(X, 3), lambda X: dual(X, 3)),
    "kyfan_dual_norm-9": (lambda X: norms.kyfan_dual_norm(X, 9), lambda X: values(X)[0]),
    "nuclear_norm": (norms.nuclear_norm, lambda X: np.linalg.norm(X, "nuc")),
    "spectral_norm": (norms.spectral_norm, lambda X: np.linalg.norm(X, 2)),
    "rms_norm": (norms.rms_norm, lambda X: np.sqrt(X.shape[1] / X.shape[0]) * np.linalg.norm(X, 2)),
}
ENTRYWISE = {
    "frobenius_norm": (norms.frobenius_norm, np.linalg.norm),
    "max_norm": (norms.max_norm, lambda X: np.abs(X).max()),
    "max_column_norm": (norms.max_column_norm, lambda X: np.linalg.norm(X, axis=0).max()),
    "max_row_norm": (norms.max_row_norm, lambda X: np.linalg.norm(X, axis=1).max()),
}
NORMS = {**SPECTRAL, **ENTRYWISE}
all_norms = pytest.mark.parametrize("name", NORMS)


def random(rng, shape, dtype="float64"):
    X = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        X = X + 1j * rng.standard_normal(shape)
    return X.astype(dtype)


def test_every_norm_is_tested():
    assert {name.split("-")[0] for name in NORMS} == set(norms.__all__)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@all_norms
def test_against_numpy(name, shape, dtype, backend, rng):
    norm, reference = NORMS[name]
    X = random(rng, shape, dtype)
    found = norm(backend.asarray(X))
    assert isinstance(found, float)
    expected = reference(X.astype(np.result_type(dtype, np.float64)))
    assert found == pytest.approx(expected, rel=100 * float(np.finfo(dtype).eps))


@all_norms
def test_is_a_norm(name, rng):
    norm = NORMS[name][0]
    X, Y = random(rng, (8, 5)), random(rng, (8, 5))
    assert norm(X + Y) <= (norm(X) + norm(Y)) * (1 + 1e-13)
    assert norm(-3.5 * X) == pytest.approx(3.5 * norm(X), rel=1e-13)
    assert norm(np.zeros((8, 5))) == 0
    assert norm(X) > 0


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@all_norms
def test_extreme_scales(name, scale, rng):
    norm, reference = NORMS[name]
    X = random(rng, (8, 5))
    assert norm(X * scale) / scale == pytest.approx(reference(X), rel=1e-13)


@all_norms
def test_integers_and_half_precision(name, backend):
    norm, reference = NORMS[name]
    X = np.arange(40).reshape(8, 5) % 7 - 3
    assert norm(backend.asarray(X)) == pytest.approx(reference(X.astype(float)), rel=1e-12)
    half = (X / 8).astype(np.float16)
    # Singular values may be handed out in half precision.
    rel = 4 * float(np.finfo(np.float16).eps)
    assert norm(half) == pytest.approx(reference(half.astype(float)), rel=rel)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@all_norms
def test_what_is_not_finite_is_refused(name, bad, rng):
    X = random(rng, (8, 5))
    X[2, 3] = bad
    with pytest.raises(ValueError, match="contains NaN or inf"):
        NORMS[name][0](X)


@pytest.mark.parametrize("name", SPECTRAL)
def test_sparse_matrices_and_operators(name, rng):
    norm, reference = SPECTRAL[name]
    X = np.where(rng.random((8, 5)) < 0.5, random(rng, (8, 5)), 0.0)
    assert norm(scipy.sparse.csr_array(X)) == pytest.approx(reference(X), rel=1e-12)
    assert norm(aslinearoperator(X)) == pytest.approx(reference(X), rel=1e-12)


@pytest.mark.parametrize("name", ENTRYWISE)
def test_entries_need_an_array(name):
    with pytest.raises(TypeError, match="pass a dense array"):
        ENTRYWISE[name][0](scipy.sparse.eye_array(3))


@pytest.mark.parametrize("norm", [norms.kyfan_norm, norms.kyfan_dual_norm])
def test_bad_k(norm):
    with pytest.raises(ValueError, match="at least 1"):
        norm(np.eye(3), 0)
    with pytest.raises(TypeError, match="is not an integer"):
        norm(np.eye(3), 1.5)


def test_duality(rng):
    """The Ky Fan k-norm and its dual: no pair beats Hoelder."""
    for k in (1, 2, 4, 9):
        for _ in range(50):
            X, Y = random(rng, (8, 5)), random(rng, (8, 5))
            bound = norms.kyfan_norm(X, k) * norms.kyfan_dual_norm(Y, k)
            assert abs(np.vdot(X, Y)) <= bound * (1 + 1e-13)


@pytest.mark.parametrize("name", norms.__all__)
def test_arguments(name):
    expected = ["X", "k"] if name.startswith("kyfan") else ["X"]
    assert list(inspect.signature(getattr(norms, name)).parameters) == expected


# ---- multiple singular values ---------------------------------------------------------------

# A number comes without a certificate. Lanczos from one vector has one copy of a multiple value,
# and the usual check may leave values of up to 1.4 s_k open.


def torus(n, m):
    """The graph of an n x m torus: most eigenvalues are there four or eight times."""
    cycle = [np.roll(np.eye(size), 1, axis=0) for size in (n, m)]
    cycle = [scipy.sparse.csr_array(C + C.T) for C in cycle]
    A = scipy.sparse.kron(cycle[0], scipy.sparse.eye_array(m))
    A = A + scipy.sparse.kron(scipy.sparse.eye_array(n), cycle[1])
    angles = [2 * np.cos(2 * np.pi * np.arange(size) / size) for size in (n, m)]
    return scipy.sparse.csr_array(A), np.sort(np.abs(np.add.outer(*angles)).ravel())[::-1]


def doubled(count, seed):
    """Random entries in (0, 1), each twice, one in every row and column."""
    rng = np.random.default_rng(seed)
    s = np.repeat(np.sort(rng.random(count))[::-1], 2)
    size = 2 * count
    entries = (s, (rng.permutation(size), rng.permutation(size)))
    return scipy.sparse.csr_array(entries, shape=(size, size)), s


# Up to 2^18 entries all values are computed; larger matrices are verified.
LARGE = [(23, 27, 9), (23, 31, 7), (25, 29, 13), (27, 27, 5), (29, 33, 7), (29, 33, 9), (33, 33, 7)]
MULTIPLE = {
    **{f"doubled {n}, {seed}": (doubled, n, seed, 3) for n in (60, 200) for seed in range(10)},
    "torus 11 x 11": (torus, 11, 11, 7),
    **{f"torus {n} x {m}, {k}": (torus, n, m, k) for n, m, k in LARGE},
}


@pytest.mark.parametrize("name", MULTIPLE)
def test_no_copy_of_a_multiple_value_is_missed(name):
    make, *arguments, k = MULTIPLE[name]
    X, s = make(*arguments)
    expected = float(s[:k].sum())
    # Kahan: k values are right to the norm of the residual blocks.
    level = (2 * k) ** 0.5 * np.finfo(np.float64).eps ** 0.75
    assert norms.kyfan_norm(X, k) == pytest.approx(expected, rel=level)
    assert balls.KyFanDualBall(k).support(X) == pytest.approx(expected, rel=level)
    ball = balls.KyFanBall(k)
    assert not ball.contains(X * ((1 + 1e-7) / expected))
    assert ball.contains(X * ((1 - 1e-7) / expected), rtol=0.0)
