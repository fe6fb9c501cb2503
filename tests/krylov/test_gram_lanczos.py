"""The invariant of `trsvd._krylov.gram_lanczos` after every operation.

Tolerance: (m + n) eps s_1^2 for each line, times `FACTOR` for the number of operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trsvd._krylov.gram_lanczos import GramLanczos
from trsvd.operators import as_operator
from trsvd.operators.counting import Metered

FACTOR = 10
DTYPES = ["float32", "float64", "complex64", "complex128"]


class Problem:
    def __init__(self, backend: Any, A: np.ndarray) -> None:
        self.backend = backend
        exact = A.astype(np.result_type(A.dtype, np.float64))
        self.A, self.gram = exact, exact.conj().T @ exact
        self.norm = float(np.linalg.norm(self.gram, 2))
        self.op = Metered(as_operator(backend.asarray(A)), None)
        self.tol = FACTOR * sum(A.shape) * float(np.finfo(A.dtype).eps)

    def basis(self, rng: np.random.Generator, w: int, capacity: int) -> GramLanczos:
        start = self.op.arrays.gaussian(rng, self.A.shape[1], w)
        return GramLanczos(self.op, start, capacity=capacity, rng=rng)

    def parts(self, basis: GramLanczos) -> tuple[np.ndarray, np.ndarray]:
        views = basis.V.view(0, basis.size), basis.V.view(basis.size)
        assert all(self.backend.owns(view) for view in views)
        V, W = (self.backend.to_numpy(view).astype(self.A.dtype) for view in views)
        return V, W

    def check(self, basis: GramLanczos, *, dropped: float = 0.0) -> None:
        basis.sync()
        V, W = self.parts(basis)
        assert V.shape == (self.A.shape[1], basis.size)
        assert W.shape == (self.A.shape[1], basis.width)
        every = np.hstack([V, W])
        assert np.abs(every.conj().T @ every - np.eye(every.shape[1])).max() <= self.tol
        T, C = basis.T, basis.C
        assert T.shape == (basis.size, basis.size)
        assert C.shape == (basis.width, basis.size)
        assert np.array_equal(T, T.conj().T)
        if basis.size:
            rest = self.gram @ V - V @ T - W @ C
            assert np.linalg.norm(rest, 2) <= self.tol * self.norm + dropped


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("w", [1, 2, 5])
def test_every_operation(backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any) -> None:
    problem = Problem(backend, spectrum_matrix(45, 40, 0.9 ** np.arange(40), dtype, rng))
    basis = problem.basis(rng, w, 20)
    problem.check(basis)
    dropped = 0.0
    for restart in range(4):
        while not basis.full:
            basis.expand(problem.op)
            problem.check(basis, dropped=dropped)
        basis.compress(9)
        assert basis.size == 9
        problem.check(basis, dropped=dropped)
        if restart == 1:
            level = 1.01 * float(np.linalg.norm(basis.C[:, :2], axis=0).max())
            dropped = 3 * level
            basis.lock(level)
            assert basis.locked >= 1
            problem.check(basis, dropped=dropped)
        if restart == 2:
            basis = basis.copy()
            basis.grow(25)
            assert basis.capacity == 25


@pytest.mark.parametrize("kind", ["zero", "identity", "rank 3", "random"])
@pytest.mark.parametrize(("w", "dtype"), [(1, "float64"), (2, "complex64"), (5, "float64")])
def test_breakdown_and_exhaustion(backend: Any, kind: str, w: int, dtype: str, rng: Any) -> None:
    A = {
        "zero": np.zeros((20, 12)),
        "identity": np.eye(12),
        "rank 3": rng.standard_normal((20, 3)) @ rng.standard_normal((3, 12)),
        "random": rng.standard_normal((20, 12)),
    }[kind]
    problem = Problem(backend, A.astype(dtype))
    basis = problem.basis(rng, w, 12)
    while not basis.exhausted:
        basis.expand(problem.op)
        problem.check(basis)
        assert basis.size <= 12
    assert basis.size == 12
    s = np.linalg.svd(problem.A, compute_uv=False)
    # The squares are good to tol s_1^2.
    assert pytest.approx(s**2, rel=0, abs=problem.tol * problem.norm) == basis.ritz().S ** 2
    assert not basis.ritz().residuals.any()


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("w", [1, 3])
def test_ritz_residuals_are_the_true_ones(
    backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(45, 40, 0.9 ** np.arange(40), dtype, rng))
    basis = problem.basis(rng, w, 20)
    for _ in range(2):
        while not basis.full:
            basis.expand(problem.op)
        ritz = basis.ritz()
        V = problem.backend.to_numpy(basis.right_vectors(5)).astype(problem.A.dtype)
        U = problem.A @ V / ritz.S[:5]
        true = np.linalg.norm(problem.A.conj().T @ U - V * ritz.S[:5], axis=0)
        level = problem.tol * problem.norm / ritz.S[4]
        assert ritz.residuals[:5] == pytest.approx(true, rel=0, abs=level)
        assert ritz.scale == ritz.S[0]
        assert np.all(np.diff(ritz.S) <= 0)
        basis.compress(9)
    s = np.linalg.svd(problem.A, compute_uv=False)
    assert np.all(s[: len(ritz.S)] + level >= ritz.S)


@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.parametrize("rank", [2, 30])
def test_a_twin_leaves_the_original_and_goes_the_same_way(
    backend: Any, w: int, rank: int, rng: Any
) -> None:
    A = rng.standard_normal((35, rank)) @ rng.standard_normal((rank, 30))
    problem = Problem(backend, A)
    basis = problem.basis(rng, w, 14)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(6)

    def snapshot(basis: GramLanczos) -> list[Any]:
        basis.sync()
        V, W = problem.parts(basis)
        return [V.copy(), W.copy(), basis.T.copy(), basis.C.copy(), basis.locked, basis.size]

    def go_on(basis: GramLanczos) -> None:
        basis.lock(1e-3)
        while not basis.full:
            basis.expand(problem.op)
        basis.compress(7, drop=1e-9, block_size=1)
        basis.lock(1.0)
        basis.expand(problem.op)
        basis.grow(20)

    def same(one: list[Any], two: list[Any]) -> bool:
        return all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))

    twin, before = basis.copy(), snapshot(basis)
    go_on(twin)
    assert same(before, snapshot(basis))
    go_on(basis)
    assert same(snapshot(twin), snapshot(basis))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_in_a_product_raises(backend: Any, rng: Any) -> None:
    problem = Problem(backend, np.eye(12))
    basis = problem.basis(rng, 2, 12)
    basis.expand(problem.op)
    A = np.eye(12)
    A[3, 4] = np.nan
    basis.expand(Metered(as_operator(backend.asarray(A)), None))
    with pytest.raises(ValueError, match="NaN or inf"):
        basis.ritz()


@pytest.mark.parametrize("w", [1, 2, 4])
@pytest.mark.parametrize("spectrum", ["gaussian", "decay"])
@pytest.mark.parametrize("shape", [(600, 300), (300, 300)])
def test_the_first_impression_of_a_spectrum(
    backend: Any, shape: Any, spectrum: str, w: int, rng: Any
) -> None:
    A = rng.standard_normal(shape)
    if spectrum == "decay":
        U, _, Vh = np.linalg.svd(A, full_matrices=False)
        A = (U / np.arange(1.0, 301)) @ Vh
    S = np.linalg.svd(A, compute_uv=False)
    problem = Problem(backend, A)
    basis = problem.basis(rng, w, 60)
    while basis.size < 24:
        basis.expand(problem.op)
    for k in (8, 20):
        top, value, rest = basis.spectrum_estimate(k)
        assert 0.8 * S[0] < top <= (1 + 1e-5) * S[0]
        assert 0.4 * S[k - 1] < value < 2 * S[k - 1]
        true = float(np.mean(S[k:] ** 2))
        assert (true / 3 < rest < 3 * true) if spectrum == "decay" else abs(rest / true - 1) < 0.3
        assert (rest > 0.22 * value**2) is (spectrum == "gaussian")


@pytest.mark.parametrize("w", [1, 4, 8])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_impression_of_many_triplets(backend: Any, power: float, w: int, rng: Any) -> None:
    """From half as many columns: s_k between the Ritz values that stand for those beside it."""
    A, k = np.linalg.qr(rng.standard_normal((400, 400)))[0] / np.arange(1.0, 401) ** power, 80
    problem = Problem(backend, A)
    basis = problem.basis(rng, w, 60)
    while basis.size < k // 2:
        basis.expand(problem.op)
    _, value, rest = basis.spectrum_estimate(k)
    true = float(np.mean(np.arange(k + 1.0, 401) ** (-2 * power)))
    assert 0.5 < value * k**power < 2  # a rule for plans: an octave either way
    assert 0.6 < rest / true < 1.6
