"""Singular values by two ways, and the quantities that follow from them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from trsvd import KyFanDualBall
from trsvd.optim.diagnostics import measured
from trsvd.optim.oracles import BallOracle
from trsvd.spectrum import spectrum_of
from trsvd.spectrum import values as module
from trsvd.testing import matrix_with_spectrum

EPS = np.finfo(np.float64).eps


def reference(A):
    return np.linalg.svd(np.asarray(A, dtype=np.complex128), compute_uv=False)


def matrix(m, n, dtype, rng=0):
    rng = np.random.default_rng(rng)
    A = rng.standard_normal((m, n))
    return (A + 1j * rng.standard_normal((m, n)) if dtype[0] == "c" else A).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 4), (4, 7), (40, 40)])
def test_small_matrices_are_exact(shape, dtype):
    A = matrix(*shape, dtype)
    S = spectrum_of(A).values
    exact = reference(A)
    # Weyl: LAPACK's backward error is a modest multiple of eps s_1 for these sizes.
    assert np.abs(S - exact).max() <= 100 * EPS * exact[0]


@pytest.fixture
def small_limit(monkeypatch):
    """Let small matrices take the way of large ones."""
    monkeypatch.setattr(module, "_SMALL", 0)
    monkeypatch.setattr(module, "_CHUNK", 300)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 63, 64, 65, 130, 161])
@pytest.mark.parametrize("more", [0, 1, 150])
def test_gram_matrix_by_its_band(n, more):
    A = matrix(n + more, n, "float32")
    for X in (A, np.asfortranarray(A), A.T, np.ascontiguousarray(A.T)):
        S = spectrum_of(X).values
        exact = reference(A)
        # The eigenvalues of the Gram matrix have an error of a multiple of eps n s_1^2.
        assert np.abs(S**2 - exact**2).max() <= 10 * EPS * (n + 10) * exact[0] ** 2
        assert len(S) == n


def test_both_ways_agree_on_a_large_matrix():
    A = matrix(700, 600, "float32")
    assert A.size > module._SMALL
    S, exact = spectrum_of(A).values, reference(A)
    assert np.abs(S**2 - exact**2).max() <= 10 * EPS * 600 * exact[0] ** 2


@pytest.mark.usefixtures("small_limit")
def test_a_matrix_of_low_rank():
    A = (matrix(90, 3, "float64") @ matrix(3, 70, "float64", rng=1)).astype("float32")
    S = spectrum_of(A).values
    # What is left are rounding errors of float32, which are not larger than eps ||A||_F.
    assert S[3] <= np.finfo(np.float32).eps * np.linalg.norm(A)
    assert spectrum_of(np.zeros((40, 33), "float32")).values.tolist() == [0.0] * 33


def test_bfloat16_is_the_upper_half_of_float32():
    A = matrix(20, 9, "float32")
    bits = (A.view(np.uint32) >> 16).astype(np.uint16)
    rounded = (bits.astype(np.uint32) << 16).view(np.float32)
    S = module.spectrum_of_stored(bits, "", "bfloat16").values
    assert np.abs(S - reference(rounded)).max() <= 100 * EPS * S[0]


def test_quantities_follow_their_definitions():
    S = np.array([4.0, 2.0, 1.0, 1.0])
    spectrum = spectrum_of(matrix_with_spectrum(9, 4, S, rng=0), "a")
    p = S / 8
    expected = {
        "spectral_norm": 4,
        "frobenius_norm": math.sqrt(22),
        "stable_rank": 22 / 16,
        "nuclear_rank": 64 / 22,
        "effective_rank": math.exp(-(p * np.log(p)).sum()),
    }
    for name, value in expected.items():
        assert getattr(spectrum, name) == pytest.approx(value, rel=1e-13), name
    # 16, 20, 21 and 22 of 22: 90 % are 19.8, 99 % are 21.8.
    assert (spectrum.rank_90, spectrum.rank_99) == (2, 4)
    assert (spectrum.name, spectrum.shape, spectrum.dtype) == ("a", (9, 4), "float64")


@pytest.mark.parametrize(("n", "ranks"), [(10, (9, 10)), (100, (90, 99)), (1000, (900, 990))])
def test_ranks_of_the_identity_are_not_moved_by_rounding(n, ranks):
    spectrum = spectrum_of(np.eye(n) / 3)
    assert (spectrum.rank_90, spectrum.rank_99) == ranks
    for value in (spectrum.stable_rank, spectrum.nuclear_rank, spectrum.effective_rank):
        assert value == pytest.approx(n, rel=1e-12)


def test_the_nuclear_rank_is_that_of_the_diagnostics():
    E = matrix(12, 8, "float64")
    oracle = BallOracle(ball=KyFanDualBall(2))
    [direction] = oracle.directions([E], [None], 0)
    record = measured(E, direction, None, oracle, "a", 0, step=0)
    spectrum = spectrum_of(E)
    assert spectrum.nuclear_rank == pytest.approx(record.nuclear_rank, rel=1e-13)
    assert spectrum.stable_rank == pytest.approx(record.stable_rank, rel=1e-13)


def test_zero_and_extreme_sizes():
    zero = spectrum_of(np.zeros((3, 5)))
    assert zero.is_finite
    assert (zero.spectral_norm, zero.stable_rank, zero.nuclear_rank, zero.effective_rank) == (
        (0.0,) * 4
    )
    assert (zero.rank_90, zero.rank_99) == (0, 0)
    base = spectrum_of(np.diag([3.0, 2.0, 1.0]))
    for scale in (1e-300, 1e300):
        other = spectrum_of(np.diag([3.0, 2.0, 1.0]) * scale)
        assert other.frobenius_norm == pytest.approx(base.frobenius_norm * scale)
        for name in ("stable_rank", "nuclear_rank", "effective_rank"):
            assert getattr(other, name) == pytest.approx(getattr(base, name))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("size", [(5, 6), (600, 500)])
def test_not_finite(bad, size):
    A = matrix(*size, "float32")
    A[-1, 2] = bad
    spectrum = spectrum_of(A)
    assert not spectrum.is_finite
    assert spectrum.values.size == 0
    assert math.isnan(spectrum.spectral_norm)
    assert spectrum.rank_90 is None
    assert spectrum.decay()[0].size == 0


@pytest.mark.parametrize("n", [1, 5, 64, 65, 200, 5000])
def test_decay_is_thinned(n):
    S = np.linspace(2, 1, n)
    spectrum = dataclasses.replace(spectrum_of(np.eye(2)), values=S)
    numbers, values = spectrum.decay()
    assert len(numbers) <= 64
    assert len(numbers) >= min(n, 40)
    assert (numbers[0], numbers[-1]) == (1, n)
    assert np.all(np.diff(numbers) > 0)
    assert np.array_equal(values, S[numbers - 1])


def test_results_are_frozen():
    spectrum = spectrum_of(np.eye(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spectrum.name = "b"
    with pytest.raises(ValueError, match="read-only"):
        spectrum.values[0] = 1


def test_the_input_is_not_changed():
    for A in (matrix(30, 20, "float64"), np.asfortranarray(matrix(20, 30, "float64"))):
        before = A.copy()
        spectrum_of(A)
        assert np.array_equal(A, before)


@pytest.mark.parametrize("A", [np.zeros(3), np.zeros((0, 4)), np.zeros((2, 2, 2))])
def test_what_is_no_matrix_is_refused(A):
    with pytest.raises(ValueError, match=r"A has shape .*; pass a matrix"):
        spectrum_of(A)
    with pytest.raises(TypeError, match="pass a matrix of numbers"):
        spectrum_of(np.array([["a"]]))
