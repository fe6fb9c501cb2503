"""The polynomials of Polar Express against what defines them, and what is proven by polynomials."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize

from trsvd import NewtonSchulz, PolarExpress
from trsvd.polar import CUBIC, QUINTIC
from trsvd.polar.bounds import image, scalar_map
from trsvd.polar.polynomials import express_polynomials, optimal_quintic

EPS = float(np.finfo(float).eps)
LOWER = [1e-10, 1e-6, 1e-3, 0.02, 0.3, 0.7, 0.9, 0.99]
# name: (polynomial of each step, the values that it is meant for)
ITERATIONS = {
    "quintic": (NewtonSchulz(steps=5).polynomials(), 2e-3),
    "quintic-12": (NewtonSchulz(steps=12).polynomials(), 1e-4),
    "cubic": (NewtonSchulz(steps=20, coefficients=CUBIC).polynomials(), 1e-3),
    "express": (PolarExpress(steps=6).polynomials(), 1e-3),
    "express-4": (PolarExpress(steps=4).polynomials(), 1e-3),
    "express-half": (PolarExpress(steps=6, dtype="bfloat16").polynomials(), 1e-3),
    "four-terms": (NewtonSchulz(steps=3, coefficients=(2.0, -1.5, 0.5, 0.1)).polynomials(), 0.1),
}
iterations = pytest.mark.parametrize("name", ITERATIONS)


def value(polynomial, x):
    return sum(c * x ** (2 * i + 1) for i, c in enumerate(polynomial))


def composed(polynomials, x):
    for polynomial in polynomials:
        x = value(polynomial, x)
    return x


def rounding(polynomial):
    """Of a value of the polynomial on [0, 2]: its terms are added up in double precision."""
    return 10 * EPS * sum(abs(c) * 2 ** (2 * i + 1) for i, c in enumerate(polynomial))


# ---- one step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [1.0, 1.7])
@pytest.mark.parametrize("lower", LOWER)
def test_error_alternates(lower, high):
    """Chebyshev: extremal values of alternating sign at four points for three coefficients."""
    low = lower * high
    p, error = optimal_quintic(low, high)
    slack = rounding(p)
    x = np.geomspace(low, high, 400_001)
    assert np.abs(1 - value(p, x)).max() <= error + slack
    a, b, c = p
    inner = np.sort(np.sqrt(np.roots([5 * c, 3 * b, a]).real))
    points = np.array([low, *inner, high])
    assert np.all(np.diff(points) > 0)
    np.testing.assert_allclose(1 - value(p, points), error * np.array([1, -1, 1, -1]), atol=slack)


@pytest.mark.parametrize("lower", [1e-3, 0.02, 0.3, 0.7])
def test_no_quintic_does_better(lower):
    """The best on a grid, by a linear program, can only be better than the best on the interval."""
    _, error = optimal_quintic(lower, 1.0)
    x = np.geomspace(lower, 1.0, 4000)
    rows = np.stack([x, x**3, x**5], axis=1)
    one = np.ones((len(x), 1))
    answer = scipy.optimize.linprog(
        [0, 0, 0, 1],
        np.block([[rows, -one], [-rows, -one]]),
        np.concatenate([one, -one]).ravel(),
        bounds=[(None, None)] * 3 + [(0, None)],
    )
    assert answer.status == 0
    # Between two points of the grid the error is at most its slope, below 100, times their distance
    # in relative terms; HiGHS is exact to 1e-7.
    assert error * (1 - 1e-2) <= answer.fun <= error + 1e-7


def test_near_one_it_is_the_polynomial_of_a_point():
    near, _ = optimal_quintic(1 - 1e-4, 1.0)
    limit, error = optimal_quintic(1.0, 1.0)
    assert (limit, error) == ((1.875, -1.25, 0.375), 0.0)
    np.testing.assert_allclose(near, limit, rtol=1e-3)
    assert value(optimal_quintic(2.0, 2.0)[0], 2.0) == pytest.approx(1, rel=1e-15)


# ---- all steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("lower", [1e-6, 1e-3, 0.1])
def test_composition_is_greedy(lower):
    """Each step is the best for the image of the one before, which is even around 1."""
    ends, growth = np.array([lower, 1.0]), 1.0
    errors, earlier = [], ()
    for steps in range(1, 15):
        polynomials = express_polynomials(steps, lower, 1.0, 0.0)
        assert polynomials[:-1] == earlier
        earlier = polynomials
        last = polynomials[-1]
        low, high = image(polynomials, lower, 1.0)
        # Rounding of a step grows with the slope of the next, which is steepest at the ends.
        slope = sum((2 * i + 1) * c * ends ** (2 * i) for i, c in enumerate(last))
        growth = max(1.0, growth * np.abs(slope).max())
        slack = growth * rounding(last)
        assert high - 1 == pytest.approx(1 - low, abs=slack)
        if ends[0] < ends[1]:
            assert high - 1 == pytest.approx(optimal_quintic(*ends)[1], abs=slack)
        errors.append(high - 1)
        ends = np.array([low, high])
    assert np.all(np.diff(errors) <= slack)
    assert errors[-1] <= slack < 1e-8


def test_published_values():
    """Those of the authors' own program, with their safety factor and cushion, to its digits."""
    polynomials = express_polynomials(10, 1e-3, 1.01, 0.02)
    published = {
        0: (8.237312490495558, -23.157747414558205, 16.68056841144592),
        1: (4.082441999064834, -2.893047735332586, 0.5252849256975647),
        4: (2.297036943455258, -1.6366255812590327, 0.4002628455953635),
    }
    for step, expected in published.items():
        np.testing.assert_allclose(polynomials[step], expected, rtol=1e-10)


def test_it_is_better_than_the_quintic():
    for steps in range(2, 9):
        assert PolarExpress(steps=steps).error() < NewtonSchulz(steps=steps).error()
    assert NewtonSchulz(steps=40).error() > 0.3  # however many


def test_defaults_go_by_the_precision():
    plain = PolarExpress(steps=3)
    half = PolarExpress(steps=3, dtype="float16")
    assert half.polynomials() == PolarExpress(steps=3, safety=1.01, cushion=0.02).polynomials()
    assert plain.polynomials("bfloat16") == half.polynomials()
    assert plain.polynomials() == plain.polynomials("float64")
    exact = np.array(PolarExpress(steps=3, safety=1, cushion=0).polynomials())
    # A factor of 1 + 100 eps, in the fifth power.
    np.testing.assert_allclose(plain.polynomials("float32"), exact, rtol=3000 * 2.0**-23)
    assert not np.array_equal(plain.polynomials("float32"), exact)


def test_safety_widens_the_domain():
    """Values one percent beyond the interval still come out near 1; without safety they diverge."""
    safe = express_polynomials(6, 1e-3, 1.01, 0.0)
    bare = express_polynomials(6, 1e-3, 1.0, 0.0)
    beyond = np.array([1.01])
    assert abs(1 - composed(safe, beyond)) <= 0.01
    with np.errstate(over="ignore", invalid="ignore"):
        assert not abs(composed(bare, beyond)) <= 10


def test_cushion_keeps_values_off_zero():
    x = np.linspace(0.1, 1.0, 10_001)
    assert value(express_polynomials(1, 1e-3, 1.0, 0.0)[0], x).min() < 0.01
    assert value(express_polynomials(1, 1e-3, 1.0, 0.02)[0], x).min() > 0.1


# ---- what is proven ---------------------------------------------------------------------------


@iterations
def test_image(name):
    """Values in the interval stay in the image, and come near to its ends."""
    polynomials, lower = ITERATIONS[name]
    low, high = image(polynomials, lower, 1.0)
    x = np.geomspace(lower, 1.0, 1_000_001)
    y = composed(polynomials, x)
    assert low - 1e-12 <= y.min()
    assert y.max() <= high + 1e-12
    assert y.min() == pytest.approx(low, abs=1e-3)
    assert y.max() == pytest.approx(high, abs=1e-3)


def test_the_quintic_stays_below_its_bound():
    low, high = image((QUINTIC,) * 5, 0.0, 1.0)
    # The first maximum of the polynomial: a zero of its derivative, and larger than p(p(1)).
    a, b, c = QUINTIC
    square = (-3 * b - np.sqrt(9 * b * b - 20 * a * c)) / (10 * c)
    assert (low, high) == (0.0, pytest.approx(value(QUINTIC, np.sqrt(square)), rel=1e-14))
    assert high == pytest.approx(1.2024, abs=5e-5)
    for steps in (1, 2, 7, 30):
        assert image((QUINTIC,) * steps, 0.0, 1.0)[1] <= high


@iterations
def test_rounding_widens_the_image(name):
    polynomials, lower = ITERATIONS[name]
    low, high = image(polynomials, lower, 1.0)
    wider = image(polynomials, lower, 1.0, 1e-9)
    assert wider[0] < low < high < wider[1]
    rng = np.random.default_rng(0)
    for _ in range(100):
        x = rng.uniform(lower, 1.0, 100)
        for polynomial in polynomials:
            noise = 1e-9 * rng.uniform(-1, 1, 100)
            x = value(polynomial, x) + noise
        assert wider[0] <= x.min()
        assert x.max() <= wider[1]


def spectra(r, rng):
    """Singular values with a Frobenius norm of 1: smooth, clustered, and far apart."""
    yield np.ones(r)
    yield np.linspace(1, 0.01, r)
    yield 0.7 ** np.arange(r)
    yield 1 / np.arange(1, r + 1)
    yield np.r_[1.0, np.full(r - 1, 1e-3)]
    yield np.r_[np.ones((r + 1) // 2), np.zeros(r // 2)]
    for _ in range(20):
        yield 10.0 ** -rng.uniform(0, 8, r)
        yield rng.uniform(0, 1, r)
        yield np.where(rng.random(r) < 0.5, 1.0, 10.0 ** -rng.uniform(0, 5))


@iterations
@pytest.mark.parametrize("r", [1, 2, 30, 1000])
def test_sum_is_bounded_by_what_is_attained(name, r, rng):
    polynomials, _ = ITERATIONS[name]
    known = scalar_map(polynomials, 0.0)
    for s in spectra(r, rng):
        x = s / np.linalg.norm(s)
        y = composed(polynomials, x)
        assert np.abs(y).max() <= known.largest + 1e-12
        bound = known.sum_at_most(float(np.sum(x * y)), r)
        assert np.sum(x) <= bound * (1 + 1e-13)
        assert bound <= np.sqrt(r)


@pytest.mark.parametrize("steps", [5, 6, 8])
def test_the_bound_is_no_looser_than_by_hand(steps, rng):
    """Values above ``lower`` are taken to at least 1 - e, those below add at most r lower."""
    method = PolarExpress(steps=steps)
    known, e = scalar_map(method.polynomials(), 0.0), method.error()
    for r in (5, 100, 1000):
        for s in spectra(r, rng):
            x = s / np.linalg.norm(s)
            attained = float(np.sum(x * composed(method.polynomials(), x)))
            # Prices are taken at cells of [0, 1], 1 % wide, and at every 25th of them.
            by_hand = attained / (1 - e) + 1.3 * r * method.lower
            assert known.sum_at_most(attained, r) <= by_hand * (1 + 1e-3)


# ---- options ----------------------------------------------------------------------------------


def test_error_is_the_largest_of_the_scalar_iteration():
    for method in (NewtonSchulz(), PolarExpress(), NewtonSchulz(steps=9, coefficients=CUBIC)):
        for lower in (1e-2, 0.3):
            y = composed(method.polynomials(), np.geomspace(lower, 1, 1_000_001))
            assert method.error(lower) == pytest.approx(np.abs(1 - y).max(), abs=1e-4)
    assert NewtonSchulz().error(0) == 1
    for lower in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            NewtonSchulz().error(lower)


def test_table_of_errors_in_the_documentation():
    page = Path(__file__).parents[2] / "docs" / "reference" / "balls.md"
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page.read_text(encoding="utf-8"), re.M)
    assert len(rows) >= 5
    for steps, cells in rows:
        methods = [
            NewtonSchulz(steps=int(steps)),
            NewtonSchulz(steps=int(steps), coefficients=CUBIC),
            PolarExpress(steps=int(steps)),
        ]
        for cell, method in zip(cells.split(" | "), methods, strict=True):
            assert float(cell) == pytest.approx(method.error(1e-3), rel=0.05, abs=1e-14), method


@pytest.mark.parametrize("make", [NewtonSchulz, PolarExpress])
def test_options_are_frozen_and_named(make):
    method = make(steps=3, dtype="float32")
    assert method == make(steps=np.int64(3), dtype=np.float32)
    assert method == make(steps=3, dtype=np.dtype("float32")) == make(steps=3, dtype=np.complex64)
    assert method != make(steps=3)
    assert hash(method) == hash(make(steps=3, dtype="float32"))
    assert pickle.loads(pickle.dumps(method)) == method
    assert method.matvecs((30, 20)) == method.matvecs((20, 30)) == 3 * 3 * 20
    with pytest.raises(AttributeError):
        method.steps = 4
    with pytest.raises(TypeError):
        make(5)


def test_coefficients_are_a_tuple():
    method = NewtonSchulz(coefficients=list(CUBIC))
    assert method == NewtonSchulz(coefficients=CUBIC)
    assert hash(method) == hash(NewtonSchulz(coefficients=CUBIC))
    assert method.matvecs((7, 5)) == 2 * 5 * 5


def test_dtypes_of_torch_and_of_the_strict_library():
    torch = pytest.importorskip("torch")
    strict = pytest.importorskip("array_api_strict")
    assert NewtonSchulz(dtype=torch.bfloat16) == NewtonSchulz(dtype="bfloat16")
    assert NewtonSchulz(dtype=torch.complex128) == NewtonSchulz(dtype="float64")
    assert PolarExpress(dtype=strict.float32) == PolarExpress(dtype="float32")


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (NewtonSchulz, {"steps": 0}, ValueError, "at least one"),
        (PolarExpress, {"steps": -1}, ValueError, "at least one"),
        (PolarExpress, {"steps": True}, ValueError, "at least one"),
        (NewtonSchulz, {"steps": 2.0}, TypeError, "not an integer"),
        (NewtonSchulz, {"steps": None}, TypeError, "not an integer"),
        (NewtonSchulz, {"dtype": "int32"}, ValueError, "bfloat16"),
        (PolarExpress, {"dtype": "nonsense"}, ValueError, "bfloat16"),
        (NewtonSchulz, {"coefficients": (1.0,)}, ValueError, "at least two"),
        (NewtonSchulz, {"coefficients": (1.0, np.inf)}, ValueError, "finite"),
        (NewtonSchulz, {"coefficients": (3.0, 5.0)}, ValueError, "beyond"),
        (NewtonSchulz, {"coefficients": (5.0, 7.0), "steps": 50}, ValueError, "beyond"),
        (PolarExpress, {"lower": 0}, ValueError, "between 0 and 1"),
        (PolarExpress, {"lower": 1.0}, ValueError, "between 0 and 1"),
        (PolarExpress, {"lower": "small"}, TypeError, "not a number"),
        (PolarExpress, {"safety": 0.99}, ValueError, "at least 1"),
        (PolarExpress, {"safety": np.nan}, ValueError, "at least 1"),
        (PolarExpress, {"cushion": 1.0}, ValueError, "below 1"),
        (PolarExpress, {"cushion": -0.1}, ValueError, "below 1"),
    ],
)
def test_bad_options(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)
