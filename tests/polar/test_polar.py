"""Newton-Schulz acts on singular values alone, by its polynomial: that is all there is to check."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trsvd import NewtonSchulz, SpectralBall
from trsvd.polar import (
    CUBIC,
    QUINTIC,
    newton_schulz,
    newton_schulz_iterates,
    newton_schulz_matvecs,
)
from trsvd.testing import SPECTRA, matrix_with_spectrum, rounding_level

SHAPES = [(30, 20), (20, 30), (20, 20), (1, 9), (9, 1)]
DTYPES = ["float32", "float64", "complex64", "complex128"]


def mapped(s, steps, coefficients):
    """The scalar iteration, in double precision."""
    x = s / np.linalg.norm(s)
    for _ in range(steps):
        x = sum(c * x ** (2 * i + 1) for i, c in enumerate(coefficients))
    return x


def slack(length, steps, coefficients, dtype):
    """Rounding of every step, carried on by at most the largest slope on [0, 1.21]."""
    x = np.linspace(0, 1.21, 1000)
    slope = sum((2 * i + 1) * c * x ** (2 * i) for i, c in enumerate(coefficients))
    growth = np.max(np.abs(slope)) ** steps
    return steps * growth * rounding_level(length, float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coefficients", [CUBIC, QUINTIC, (2.0, -1.5, 0.5, 0.1)])
def test_singular_values_are_mapped_and_vectors_stay(backend, dtype, shape, coefficients):
    r, steps = min(shape), 3
    s = np.linspace(1, 0.3, r)
    G = matrix_with_spectrum(*shape, s, rng=0, dtype=dtype)
    U, S, Vh = np.linalg.svd(G.astype(np.result_type(dtype, np.float64)), full_matrices=False)
    expected = U * mapped(S, steps, coefficients) @ Vh
    X = newton_schulz(backend.asarray(G), steps=steps, coefficients=coefficients)
    assert backend.owns(X)
    assert X.dtype == backend.dtype(dtype)
    error = np.linalg.norm(backend.to_numpy(X) - expected, 2)
    assert error <= slack(max(shape), steps, coefficients, dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_cubic_converges_to_the_polar_factor(shape):
    r = min(shape)
    G = matrix_with_spectrum(*shape, np.linspace(1, 0.1, r), rng=0)
    U, _, Vh = np.linalg.svd(G, full_matrices=False)
    # From 0.1 / ||G||_F to near 1 at 1.5 a step, then the error is squared six times.
    steps = int(np.ceil(np.log(10 * r**0.5) / np.log(1.5))) + 6
    X = newton_schulz(G, steps=steps)
    # At the limit the slope is 0: rounding does not accumulate.
    assert np.linalg.norm(X - U @ Vh, 2) <= rounding_level(max(shape), np.finfo(float).eps)


def test_cubic_leaves_what_is_zero():
    """Rank 3: the limit is the partial isometry."""
    G = matrix_with_spectrum(12, 9, [1.0, 0.7, 0.5], rng=0)
    U, _, Vh = np.linalg.svd(G, full_matrices=False)
    steps = 15
    X = newton_schulz(G, steps=steps)
    # What rounding left of the zeros grows by 1.5 a step.
    allowed = 1.5**steps * rounding_level(12, np.finfo(float).eps)
    assert np.linalg.norm(X - U[:, :3] @ Vh[:3], 2) <= allowed


def test_quintic_has_its_documented_range():
    x = np.logspace(-4, 0, 100_001)
    after = x
    for _ in range(5):
        after = sum(c * after ** (2 * i + 1) for i, c in enumerate(QUINTIC))
    assert after.max() <= 1.203
    assert after[x >= 2e-3].min() >= 0.68
    assert np.all(after <= 485 * x)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
def test_scale_does_not_matter(size):
    G = matrix_with_spectrum(10, 8, SPECTRA["1/i"](8), rng=0)
    one, other = newton_schulz(G, steps=4), newton_schulz(G * size, steps=4)
    # Only the first rounding differs; the slope of the cubic is at most 1.5.
    np.testing.assert_allclose(
        one, other, rtol=0, atol=1.5**4 * rounding_level(10, np.finfo(float).eps)
    )


def test_zero_stays_zero_and_input_is_not_touched():
    G = np.zeros((4, 3))
    X = newton_schulz(G, steps=0)
    assert not np.shares_memory(X, G)
    np.testing.assert_array_equal(newton_schulz(G, steps=5), G)
    G = matrix_with_spectrum(5, 4, [1.0, 0.5], rng=0)
    G.flags.writeable = False
    newton_schulz(G, steps=2)
    newton_schulz(G[::-1, ::2], steps=2)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_comes_back(name):
    torch = pytest.importorskip("torch")
    G = torch.asarray(matrix_with_spectrum(9, 6, SPECTRA["1/i"](6), rng=0))
    half = G.to(getattr(torch, name)).requires_grad_()
    X = newton_schulz(half, steps=3)
    assert X.dtype == half.dtype
    assert not X.requires_grad
    full = newton_schulz(half.detach().to(torch.float32), steps=3)
    assert torch.equal(X, full.to(half.dtype))


def test_integers_are_computed_in_double_precision():
    X = newton_schulz(np.array([[2, 0], [0, -1]]), steps=10)
    assert X.dtype == np.float64


def test_iterates_are_those_of_newton_schulz():
    G = matrix_with_spectrum(9, 6, SPECTRA["1/i"](6), rng=0)
    for steps, X in enumerate(itertools.islice(newton_schulz_iterates(G), 4)):
        np.testing.assert_array_equal(X, newton_schulz(G, steps=steps))


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("coefficients", [CUBIC, QUINTIC])
def test_products_are_counted(shape, coefficients):
    """Vectors multiplied, by the operation counts of the products that are made."""
    r = min(shape)
    per_step = r * len(coefficients)
    assert newton_schulz_matvecs(shape, 4, coefficients) == 4 * per_step


def test_counts_are_the_papers():
    assert newton_schulz_matvecs((500, 500), 27) == 27_000
    assert newton_schulz_matvecs((5000, 5000), 29) == 290_000


@pytest.mark.parametrize(
    ("G", "options", "error", "message"),
    [
        ([[1.0]], {"steps": 1}, TypeError, "array"),
        (np.ones(3), {"steps": 1}, ValueError, "matrix"),
        (np.ones((0, 3)), {"steps": 1}, ValueError, "row"),
        (np.full((2, 2), np.nan), {"steps": 1}, ValueError, "NaN"),
        (np.full((2, 2), np.inf), {"steps": 1}, ValueError, "inf"),
        (np.ones((2, 2)), {"steps": -1}, ValueError, "steps"),
        (np.ones((2, 2)), {"steps": 1, "coefficients": (1.0,)}, ValueError, "coefficients"),
        (np.ones((2, 2)), {"steps": 1, "coefficients": (1, np.nan)}, ValueError, "finite"),
    ],
)
def test_what_cannot_be_done_is_refused(G, options, error, message):
    with pytest.raises(error, match=message):
        newton_schulz(G, **options)


def test_the_update_of_zero_needs_no_spectrum():
    result = SpectralBall().lmo(np.zeros((6, 4)), method=NewtonSchulz())
    assert (result.support, result.gap, result.gap_kind) == (0, 0, "bound")
    assert (result.matvecs, result.passes) == (0, 0)
    assert not result.update.any()


def test_an_iteration_that_attains_nothing_gives_way_to_the_pairs():
    """All values are taken to 1e-20 of themselves: the gap is 1 to rounding, as for no update."""
    G = matrix_with_spectrum(9, 6, SPECTRA["1/i"](6), rng=0)
    method = NewtonSchulz(steps=1, coefficients=(1e-20, 0.0))
    result = SpectralBall().lmo(G, method=method)
    assert result.gap_kind == "exact"
    attained = -np.vdot(G, result.update) / np.linalg.svd(G, compute_uv=False).sum()
    assert attained == pytest.approx(1, rel=rounding_level(9, np.finfo(float).eps))
    # What was tried in vain is on the bill: two products for each of the columns.
    assert result.matvecs > method.matvecs((9, 6)) == 2 * 6


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_denormal_entries(dtype, backend):
    """One step of the cubic iteration of a matrix with a single entry: 1.5 - 0.5 = 1 again."""
    G = np.zeros((3, 2), dtype)
    G[1, 0] = 3 * np.finfo(dtype).smallest_subnormal * (1j if np.iscomplexobj(G) else 1)
    X = backend.to_numpy(newton_schulz(backend.asarray(G), steps=1))
    expected = np.zeros((3, 2), dtype)
    expected[1, 0] = 1j if np.iscomplexobj(G) else 1
    np.testing.assert_allclose(X, expected, atol=4 * np.finfo(dtype).eps)
