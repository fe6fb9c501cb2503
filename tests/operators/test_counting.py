"""The operator that a run works on: exact scaling, and the books."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg

from trsvd.operators import AdjointOperator, as_operator
from trsvd.operators.counting import Metered, Turned


def _metered(backend: Any, A: np.ndarray) -> Metered:
    op = as_operator(backend.asarray(A))
    return Metered(op, op.max_abs())


@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [
        ("float64", [664, -664, 665, -665, 1023, -1000]),  # 1e200, 1e-200, ...
        ("complex128", [664, -664]),
        ("float32", [100, -100, 99, -99, 127]),  # 1e30, 1e-30, ...
        ("complex64", [100, -100]),
    ],
)
def test_scaling_is_exact(backend: Any, dtype: str, exponents: list[int], rng: Any) -> None:
    base = rng.uniform(0.5, 1, (12, 8)).astype(dtype)  # a power of two away from any of them
    X, Y = (rng.uniform(0.5, 1, (rows, 3)).astype(dtype) for rows in (8, 12))
    plain = _metered(backend, base)
    assert plain.scale_exponent == 0
    get, put = backend.to_numpy, backend.asarray
    for exponent in exponents:
        op = _metered(backend, base * np.asarray(2.0**exponent, dtype))
        assert op.scale_exponent == -exponent
        for name, block in (("matmat", X), ("rmatmat", Y)):
            scaled, unscaled = (get(getattr(each, name)(put(block))) for each in (op, plain))
            assert np.array_equal(scaled, unscaled)
            assert scaled.dtype == np.dtype(dtype)
        assert np.array_equal(get(op.scaled_dense()), base)
        assert op.frobenius_norm() == plain.frobenius_norm()


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-62, 1e62, 1e200, 1e300])
def test_entries_come_near_one_where_squares_would_leave_the_range(size: float) -> None:
    op = Metered(as_operator(np.eye(3) * size), size)
    assert 0.25 <= math.ldexp(size, op.scale_exponent) <= 1


@pytest.mark.parametrize("size", [None, 0.0, 1.0, 1e-60, 1e60, 3e7])
def test_ordinary_entries_are_not_scaled(size: float | None) -> None:
    assert Metered(as_operator(np.eye(3)), size).scale_exponent == 0


@pytest.mark.parametrize(("size", "scaled"), [(1e7, False), (1e8, True), (1e-8, True)])
def test_the_window_of_float32(size: float, scaled: bool) -> None:
    op = Metered(as_operator(np.eye(3, dtype=np.float32)), size)
    assert bool(op.scale_exponent) is scaled


def test_subnormal_entries() -> None:
    # 2**-1060 has 14 bits left, which scaling keeps. The scale itself, 2**1059, is no float64: only
    # its two halves are.
    op = _metered_numpy(np.diag([1.0, 0.5]) * 2.0**-1060)
    assert np.array_equal(
        op.scaled_dense(), np.diag([1.0, 0.5]) * 2.0 ** (op.scale_exponent - 1060)
    )
    assert np.array_equal(op.matmat(np.eye(2)), op.scaled_dense())
    assert op.frobenius_norm() == pytest.approx(float(np.linalg.norm(op.scaled_dense())))


def _metered_numpy(A: np.ndarray) -> Metered:
    op = as_operator(A)
    return Metered(op, op.max_abs())


def test_the_books(backend: Any, rng: Any) -> None:
    op = _metered(backend, rng.standard_normal((12, 8)))
    X, Y = (
        backend.asarray(rng.standard_normal((8, 3))),
        backend.asarray(rng.standard_normal((12, 2))),
    )
    op.matmat(X)
    assert (op.matvecs, op.passes, op.matvecs_verify) == (3, 1, 0)
    op.rmatmat(Y)
    assert (op.matvecs, op.passes, op.matvecs_verify) == (5, 2, 0)
    op.verifying = True
    op.rmatmat(Y)
    op.matmat(X)
    assert (op.matvecs, op.passes, op.matvecs_verify) == (5, 2, 5)
    op.verifying = False
    op.scaled_dense()
    assert (op.matvecs, op.passes, op.matvecs_verify) == (13, 3, 5)
    op.frobenius_norm()
    assert (op.matvecs, op.passes, op.matvecs_verify) == (13, 3, 5)


def test_an_operator_without_entries_has_no_norm() -> None:
    class Operator:
        shape, dtype = (3, 3), np.dtype("float64")

        def matmat(self, X: Any) -> Any:
            return X

        rmatmat = matmat

    assert Metered(as_operator(Operator()), 1.0).frobenius_norm() is None


def test_rows_of_the_adjoint_are_columns() -> None:
    A = np.asfortranarray(np.ones((5, 3)))
    for X, turned in [(A, True), (A.copy(order="C"), False)]:
        op = Metered(as_operator(X), None)
        assert op.rows_in_memory()[1] is turned
        rows, flag = Turned(op).rows_in_memory()
        assert np.shares_memory(rows, op.rows_in_memory()[0])
        assert flag is not turned
        twice = AdjointOperator(AdjointOperator(as_operator(X)))
        assert (twice.rows_in_memory()[1], twice.columns_in_memory()[1]) == (turned, not turned)
    by_products = Metered(as_operator(scipy.sparse.linalg.aslinearoperator(A)), None)
    assert Turned(by_products).rows_in_memory() is None
