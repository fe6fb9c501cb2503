"""Residuals that single precision measures wrongly, and triplets that it makes so.

Truth is double precision on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

import trsvd
from trsvd._krylov.rayleigh_ritz import residual_blocks, residual_norms
from trsvd._solve.verify import second_look
from trsvd.operators import AdjointOperator, SumOperator, as_operator
from trsvd.operators.counting import Metered

EPS = 2.0**-23


def _true_residuals(A: np.ndarray, U: np.ndarray, S: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Relative to s_1."""
    A, U, S, V = (x.astype(np.result_type(x.dtype, np.float64)) for x in (A, U, S, V))
    left = np.linalg.norm(A @ V - U * S, axis=0)
    right = np.linalg.norm(A.conj().T @ U - V * S, axis=0)
    return np.maximum(left, right) / S[0]


def _matrix(kind: str, shape: tuple[int, int], rng: Any) -> np.ndarray:
    if kind == "ones":
        A = np.ones(shape)
    elif kind == "signs":
        A = np.outer(*(rng.choice([-1.0, 1.0], side) for side in shape))
    else:  # half of the rows are 1 where the others are 0
        A = np.zeros(shape)
        A[::2] = rng.random(shape[1]) < 0.8
        A[1::2] = 1 - A[0]
    return A.astype("float32")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["ones", "signs", "two rows"])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("shape", [(300, 700), (1735, 1100)])
def test_sums_that_round_all_the_same_way(
    backend: Any, shape: tuple[int, int], k: int, kind: str, order: str, rng: Any
) -> None:
    """The default tolerance is met, and residuals are those that there are."""
    A = np.asarray(_matrix(kind, shape, rng), order=order)  # type: ignore[call-overload]
    result = trsvd.svds(backend.asarray(A), k, rng=0)
    assert result.converged
    U, S, V = (backend.to_numpy(x) for x in (result.U, result.S, result.Vh.T))
    true = _true_residuals(A, U, S, V)
    assert true.max() <= EPS**0.75
    usual = (4 + 2 * k**0.5) * EPS
    assert true.max() <= np.linalg.norm(result.residuals) + usual


def _triplets(A: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    U, S, Vh = np.linalg.svd(A.astype(np.result_type(A.dtype, np.float64)), full_matrices=False)
    return U[:, :k].astype(A.dtype), S[:k], Vh[:k].conj().T.astype(A.dtype)


def _of_dtype(dtype: str, rng: Any, shape: tuple[int, int] = (600, 40)) -> np.ndarray:
    A = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        A = A + 1j * rng.standard_normal(shape)
    return (A / np.arange(1, shape[1] + 1)).astype(dtype)


def _look(
    backend: Any,
    op: Metered,
    U: Any,
    S: np.ndarray,
    V: Any,
    tol: float,
    told: float = 1.0,
    *,
    last: bool = False,
) -> tuple[Any, np.ndarray] | None:
    """The second look at triplets whose residuals single precision measured ``told`` times."""
    U, V = backend.asarray(U), backend.asarray(V)
    blocks = tuple(told * block for block in residual_blocks(op, U, S, V) if block is not None)
    residuals = residual_norms(op.arrays, blocks)
    op.matvecs = op.matvecs_verify = 0
    return second_look(op, (U, S, V), blocks, residuals, tol, last=last)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("told", [0.1, 3.0])
@pytest.mark.parametrize("scale", [1.0, 2.0**100])
@pytest.mark.parametrize("adjoint", [False, True])
def test_wrong_residuals_are_seen_and_mended(
    backend: Any, told: float, dtype: str, scale: float, adjoint: bool, rng: Any
) -> None:
    A = _of_dtype(dtype, rng)
    U, S, V = _triplets(A, 5)
    if adjoint:
        U, V = V, U
    given = as_operator(backend.asarray((A * np.float32(scale)).astype(dtype)))
    op = Metered(AdjointOperator(given) if adjoint else given, float(np.abs(A).max()) * scale)
    unit = scale * 2.0**op.scale_exponent
    found = _look(backend, op, U, S * unit * (1 + 40 * EPS), V, 50 * EPS, told)
    assert found is not None
    assert op.matvecs + op.matvecs_verify == 17
    (U, S, V), residuals = found
    assert backend.owns(U)
    assert backend.owns(V)
    U, V = backend.to_numpy(U), backend.to_numpy(V)
    assert U.dtype == V.dtype == np.dtype(dtype)
    true = _true_residuals(A.conj().T if adjoint else A, U, S / unit, V)
    assert true.max() <= 2 * EPS
    assert residuals / S[0] == pytest.approx(true, rel=1e-3)


def test_the_last_look_does_what_can_be_done(backend: Any, rng: Any) -> None:
    """Where residuals miss the tolerance and are as they were measured."""
    A = _of_dtype("float32", rng)
    U, S, V = _triplets(A, 5)
    U = (U * (1 + 40 * EPS)).astype("float32")
    op = Metered(as_operator(backend.asarray(A)), 1.0)
    assert _look(backend, op, U, S, V, 20 * EPS) is None
    assert _look(backend, op, U, S, V, 60 * EPS, last=True) is None
    found = _look(backend, op, U, S, V, 20 * EPS, last=True)
    assert found is not None
    assert op.matvecs + op.matvecs_verify == 15
    assert found[1].max() <= 2 * EPS * S[0]


@pytest.mark.parametrize("kind", ["full", "checkerboard"])
@pytest.mark.parametrize("method", [None, "rsvd", "direct"])
@pytest.mark.parametrize("shape", [(500, 100), (300, 280), (257, 257)])
def test_short_sums_to_a_few_units(
    backend: Any, shape: tuple[int, int], method: str | None, kind: str
) -> None:
    """What is made of at most 512 numbers of one sign loses less, and too much for these."""
    A = np.full(shape, 0.37, "float32")
    if kind == "checkerboard":
        A *= np.outer((-1.0) ** np.arange(shape[0]), (-1.0) ** np.arange(shape[1])).astype("f4")
    result = trsvd.svds(backend.asarray(A), 2, tol=1e-6, method=method, rng=0)
    U, S, V = (backend.to_numpy(x) for x in (result.U, result.S, result.Vh.T))
    assert result.converged
    # (Where nothing is made anew: what the look lets pass.)
    assert _true_residuals(A, U, S, V).max() <= 1e-6 + (4 + 2 * 2**0.5) * EPS


@pytest.mark.parametrize("exact", ["left", "right"])
def test_a_side_without_a_residual_is_looked_at(backend: Any, exact: str, rng: Any) -> None:
    """What a product in single precision gave is not exact, whatever the next one would say."""
    A = _of_dtype("float32", rng)
    U, S, V = _triplets(A, 5)
    op = Metered(as_operator(backend.asarray(A)), 1.0)
    U, V = backend.asarray(U), backend.asarray(V)
    S = S * (1 + 40 * EPS)
    blocks = residual_blocks(op, U, S, V, exact=exact)
    residuals = residual_norms(op.arrays, blocks)
    assert second_look(op, (U, S, V), blocks, residuals, 50 * EPS) is not None


@pytest.mark.parametrize("tol", [10 * EPS, 50 * EPS])
def test_of_short_sums_only_few_units_are_looked_at(backend: Any, tol: float, rng: Any) -> None:
    """But in the end, where the tolerance would be missed."""
    A = _of_dtype("float32", rng, (512, 40))
    U, S, V = _triplets(A, 5)
    S = S * (1 + 40 * EPS)
    op = Metered(as_operator(backend.asarray(A)), 1.0)
    assert (_look(backend, op, U, S, V, tol, 0.1) is not None) == (tol < 20 * EPS)
    assert _look(backend, op, U, S, V, tol, 3.0, last=True) is not None


def test_a_sparse_matrix_is_looked_at_as_well(backend: Any) -> None:
    if backend.name != "numpy":
        pytest.skip("sparse matrices of scipy")
    A = scipy.sparse.random(600, 300, 0.1, format="csr", dtype=np.float32, random_state=0)
    U, S, V = _triplets(A.toarray(), 3)
    op = Metered(as_operator(A), 1.0)
    assert _look(backend, op, U, S, V, 50 * EPS) is None
    assert op.matvecs + op.matvecs_verify == 2
    found = _look(backend, op, U, 1.00001 * S, V, 100 * EPS, 0.1)
    assert found is not None
    assert found[0][1] == pytest.approx(S, rel=EPS)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_right_residuals_are_left_alone(backend: Any, dtype: str, rng: Any) -> None:
    """All of them along one vector, too, as those of Lanczos steps are: together they are more."""
    A = _of_dtype(dtype, rng)
    U, S, V = _triplets(A, 5)
    away = np.linalg.qr(np.hstack([V, rng.standard_normal((40, 1))]))[0][:, 5:]
    V = (V + 40 * EPS * away * np.array([1, -1, 1, -1, 1])).astype(dtype)
    op = Metered(as_operator(backend.asarray(A)), 1.0)
    assert _look(backend, op, U, S, V, 50 * EPS) is None
    assert op.matvecs + op.matvecs_verify == 2


@pytest.mark.parametrize(
    "why", ["double", "loose", "short", "nothing", "zero", "NaN", "no entries", "a sum"]
)
def test_where_there_is_nothing_to_look_at(backend: Any, why: str, rng: Any) -> None:
    """No product is made where none is needed, or none can be made in double precision."""
    if why == "no entries" and backend.name != "numpy":
        pytest.skip("an operator of scipy")
    shape = (512, 40) if why == "short" else (600, 40)
    A = _of_dtype("float64" if why == "double" else "float32", rng, shape)
    U, S, V = _triplets(A, 0 if why == "nothing" else 5)
    S = 0 * S if why == "zero" else 1.00001 * S
    tol = 1e-3 if why == "loose" else 2e-5
    made: Any = backend.asarray(A)
    if why == "no entries":
        made = scipy.sparse.linalg.aslinearoperator(A)
    if why == "a sum":
        made = AdjointOperator(AdjointOperator(SumOperator(made)))
    op = Metered(as_operator(made), 1.0)
    U, V = backend.asarray(U), backend.asarray(V)
    blocks, residuals = (V, V), np.full(len(S), np.nan if why == "NaN" else EPS)
    assert second_look(op, (U, S, V), blocks, residuals, tol) is None
    assert op.matvecs + op.matvecs_verify == 0


@pytest.mark.parametrize("cut", ["callback", "max_matvecs"])
def test_a_run_that_was_cut_off_is_handed_out_as_it_stands(cut: str, rng: Any) -> None:
    """No product more is put into triplets that somebody compares by their products."""
    A = _of_dtype("float32", rng, (600, 200))
    how: Any = {"callback": lambda info: info.matvecs >= 40} if cut == "callback" else {}
    if cut == "max_matvecs":
        how = {"max_matvecs": 40}
    with pytest.warns(trsvd.ConvergenceWarning):
        result = trsvd.svds(A, 3, tol=1e-9, method="rsvd", rng=0, **how)
    assert result.matvecs_verify <= 2 * 3 + 2
