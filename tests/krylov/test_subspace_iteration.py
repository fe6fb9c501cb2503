"""The invariant of `trsvd._krylov.subspace_iteration` after every half step.

Tolerance: a product, an orthonormalization, a small SVD and a rotation are backward stable, so
that A V = U S holds to (m + n) eps ||A||; `FACTOR` covers their number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trsvd._krylov.subspace_iteration import Subspace
from trsvd.operators import as_operator
from trsvd.operators.counting import Metered

FACTOR = 10
DTYPES = ["float32", "float64", "complex64", "complex128"]


class Problem:
    def __init__(self, backend: Any, A: np.ndarray) -> None:
        self.backend = backend
        self.exact = A.astype(np.result_type(A.dtype, np.float64))
        self.norm = float(np.linalg.norm(self.exact, 2))
        self.op = Metered(as_operator(backend.asarray(A)), None)
        self.tol = FACTOR * sum(A.shape) * float(np.finfo(A.dtype).eps)

    def start(self, rng: np.random.Generator, w: int) -> Subspace:
        arrays = self.op.arrays
        return Subspace(self.op, arrays.gaussian(rng, self.exact.shape[1], w), rng)

    def host(self, X: Any) -> np.ndarray:
        assert self.backend.owns(X)
        return self.backend.to_numpy(X).astype(self.exact.dtype)

    def triplets(self, space: Subspace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        U, S, V = self.host(space.U), space.S, self.host(space.V)
        assert np.all(np.diff(S) <= 0)
        for X in (U, V):
            assert np.abs(X.conj().T @ X - np.eye(len(S))).max() <= self.tol
        return U, S, V

    def check(self, space: Subspace, *, ends_with: str) -> None:
        U, S, V = self.triplets(space)
        left = ends_with == "multiply"
        rest = self.exact @ V - U * S if left else self.exact.conj().T @ U - V * S
        assert np.linalg.norm(rest, 2) <= self.tol * self.norm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("w", [1, 2, 8])
def test_every_half_step(backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any) -> None:
    problem = Problem(backend, spectrum_matrix(40, 30, 0.8 ** np.arange(30), dtype, rng))
    space = problem.start(rng, w)
    assert space.S is None
    V = problem.host(space.V)
    assert np.abs(V.conj().T @ V - np.eye(w)).max() <= problem.tol
    for _ in range(3):
        space.multiply(problem.op)
        problem.check(space, ends_with="multiply")
        space.multiply_adjoint(problem.op)
        problem.check(space, ends_with="multiply_adjoint")
    assert problem.op.matvecs == 6 * w
    assert problem.op.passes == 6


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_residuals_are_those_of_the_triplets_before(
    backend: Any, dtype: str, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(40, 30, 0.8 ** np.arange(30), dtype, rng))
    space = problem.start(rng, 6)
    space.multiply(problem.op)
    assert space.residuals is None
    A = problem.exact
    for step in range(4):
        U, S, V = problem.triplets(space)
        if step % 2 == 0:
            true = np.linalg.norm(A.conj().T @ U - V * S, axis=0)
            space.multiply_adjoint(problem.op)
        else:
            true = np.linalg.norm(A @ V - U * S, axis=0)
            space.multiply(problem.op)
        assert space.residuals == pytest.approx(true, rel=0, abs=problem.tol * problem.norm)


def test_values_only_grow_and_converge(backend: Any, rng: Any, spectrum_matrix: Any) -> None:
    s = np.array([1.0, 0.9, 0.8, 0.7] + [0.1] * 16)
    problem = Problem(backend, spectrum_matrix(30, 20, s, "float64", rng))
    space = problem.start(rng, 4)
    before = np.zeros(4)
    # Each half step multiplies what is not wanted by at most 0.1 / 0.7: a start whose angle has a
    # tangent of 100 is at 1e-14 (of which the values see the square) after 11.
    for _ in range(6):
        for half in (space.multiply, space.multiply_adjoint):
            half(problem.op)
            assert np.all(before - problem.tol <= space.S)
            before = space.S
    assert pytest.approx(s[:4], abs=problem.tol) == space.S
    assert space.residuals.max() <= 1e-6


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_rank_below_the_width(backend: Any, dtype: str, rank: int, rng: Any) -> None:
    A = rng.standard_normal((20, rank)) @ rng.standard_normal((rank, 12))
    problem = Problem(backend, A.astype(dtype))
    space = problem.start(rng, 5)
    for _ in range(3):
        space.multiply(problem.op)
        problem.check(space, ends_with="multiply")
        space.multiply_adjoint(problem.op)
        problem.check(space, ends_with="multiply_adjoint")
    s = np.linalg.svd(problem.exact, compute_uv=False)[:5]
    assert pytest.approx(s, rel=0, abs=problem.tol * problem.norm) == space.S


@pytest.mark.parametrize("start", ["zero", "dependent"])
def test_any_start(backend: Any, start: str, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((20, 12)))
    block = np.zeros((12, 3)) if start == "zero" else np.outer(np.arange(12.0), [1.0, 2.0, 0.0])
    space = Subspace(problem.op, problem.op.arrays.put(block), rng)
    space.multiply(problem.op)
    problem.check(space, ends_with="multiply")


def test_the_whole_space_is_exact_at_once(backend: Any, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((15, 6)))
    space = problem.start(rng, 6)
    space.multiply(problem.op)
    space.multiply_adjoint(problem.op)
    problem.check(space, ends_with="multiply")
    problem.check(space, ends_with="multiply_adjoint")
    s = np.linalg.svd(problem.exact, compute_uv=False)
    assert pytest.approx(s, rel=0, abs=problem.tol * problem.norm) == space.S


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_widen_keeps_what_there_is(backend: Any, dtype: str, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((20, 12)).astype(dtype))
    space = problem.start(rng, 3)
    space.multiply(problem.op)
    before = problem.host(space.V)
    space.widen(7, rng)
    V = problem.host(space.V)
    assert V.shape == (12, 7)
    assert np.abs(V.conj().T @ V - np.eye(7)).max() <= problem.tol
    assert np.array_equal(V[:, :3], before)
    assert space.U is None
    assert space.S is None
    assert space.residuals is None
    space.multiply(problem.op)
    problem.check(space, ends_with="multiply")
    space.widen(12, rng)
    space.multiply(problem.op)
    problem.check(space, ends_with="multiply")


@pytest.mark.parametrize("rank", [2, 12])
def test_a_twin_leaves_the_original_and_goes_the_same_way(
    backend: Any, rank: int, rng: Any
) -> None:
    # With rank 2, spare vectors are drawn: which come next must not be shared by the twins.
    A = rng.standard_normal((20, rank)) @ rng.standard_normal((rank, 12))
    problem = Problem(backend, A)

    def snapshot(space: Subspace) -> list[np.ndarray]:
        U, S, V = problem.triplets(space)
        return [U.copy(), S.copy(), V.copy(), space.residuals.copy()]

    def go_on(space: Subspace) -> None:
        for _ in range(2):
            space.multiply(problem.op)
            space.multiply_adjoint(problem.op)
        space.widen(6, np.random.default_rng(1))
        space.multiply(problem.op)
        space.multiply_adjoint(problem.op)

    def same(one: list[np.ndarray], two: list[np.ndarray]) -> bool:
        return all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))

    space = problem.start(rng, 4)
    space.multiply(problem.op)
    space.multiply_adjoint(problem.op)
    before = snapshot(space)
    twin = space.copy()
    go_on(twin)
    assert same(before, snapshot(space))
    go_on(space)
    assert same(snapshot(twin), snapshot(space))


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_in_a_product_raises(backend: Any, rng: Any) -> None:
    A = rng.standard_normal((20, 12))
    A[3, 4] = np.nan
    problem = Problem(backend, np.zeros((20, 12)))
    space = problem.start(rng, 3)
    broken = Metered(as_operator(backend.asarray(A)), None)
    with pytest.raises(ValueError, match="NaN or inf"):
        space.multiply(broken)
