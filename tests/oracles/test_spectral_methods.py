"""Ways to the polar factor: each in the ball, attaining what it says, no farther off than it says.

What is checked is checked in double precision, on the update that is handed out.
"""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

import trsvd
from trsvd import (
    ConvergenceWarning,
    Direct,
    FrobeniusBall,
    KyFanDualBall,
    NewtonSchulz,
    PolarExpress,
    RMSBall,
    SchattenBall,
    SpectralBall,
    Status,
    operators,
)
from trsvd._arrays.arrays import Arrays
from trsvd._oracles import polar as _polar_lmo
from trsvd.polar import CUBIC, newton_schulz, newton_schulz_matvecs

DTYPES = ["float32", "float64", "complex64", "complex128"]
SHAPES = [(60, 40), (40, 60), (24, 24), (1, 9), (9, 1)]
EXACT = {"exact": "exact", "svd": "svd", "gram": "gram", "direct": "direct"}
ITERATIONS = {
    "quintic": NewtonSchulz(),
    "quintic-12": NewtonSchulz(steps=12),
    "cubic": NewtonSchulz(steps=20, coefficients=CUBIC),
    "express": PolarExpress(),
    "express-5": PolarExpress(steps=5),
    "express-9": PolarExpress(steps=9),
    "express-bare": PolarExpress(steps=5, safety=1, cushion=0),
}
METHODS = {**EXACT, **ITERATIONS}
exact_methods = pytest.mark.parametrize("name", EXACT)
iterations = pytest.mark.parametrize("name", ITERATIONS)
all_methods = pytest.mark.parametrize("name", METHODS)

# Singular values of r, largest first: those at 1e-3 are in the steepest part of Polar Express.
SPECTRA = {
    "flat": np.ones,
    "linear": lambda r: np.linspace(1, 0.1, r),
    "geometric": lambda r: 0.9 ** np.arange(r),
    "harmonic": lambda r: 1 / np.arange(1, r + 1),
    "one": lambda r: np.r_[1.0, np.full(r - 1, 1e-3)],
    "low rank": lambda r: np.ones((r + 1) // 2),
    "steep": lambda r: 10.0 ** -np.linspace(0, 8, r),
}


def wide(X):
    return X.astype(np.result_type(X.dtype, np.float64))


def eps_of(dtype):
    return float(np.finfo(dtype).eps)


def inner(X, Y):
    return float(np.real(np.vdot(wide(X), wide(Y))))


def largest(X):
    return float(np.linalg.norm(wide(X), 2))


def nuclear(X):
    return float(np.linalg.svd(wide(X), compute_uv=False).sum())


def polar(X):
    U, _, Vh = np.linalg.svd(wide(X), full_matrices=False)
    return U @ Vh


# ---- the contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@all_methods
def test_in_the_ball_and_as_good_as_it_says(name, shape, dtype, backend, spectrum_matrix, rng):
    eps, r = eps_of(dtype), min(shape)
    for spectrum in SPECTRA.values():
        host = spectrum_matrix(*shape, spectrum(r), dtype, rng)
        result = SpectralBall().lmo(backend.asarray(host), method=METHODS[name])
        assert backend.owns(result.update)
        assert result.update.dtype == backend.dtype(dtype)
        assert tuple(result.update.shape) == shape
        D = backend.to_numpy(result.update)
        assert largest(D) <= 1 + 100 * eps
        assert result.support == pytest.approx(-inner(host, D), rel=100 * eps)
        truth = 1 + inner(host, D) / nuclear(host)
        if name in EXACT:
            assert result.gap_kind == "exact"
            # Values up to max(m, n) eps s_1 count as zero.
            assert result.gap <= 100 * eps + r * max(shape) * eps
            assert truth <= 100 * eps + r * max(shape) * eps
        else:
            assert result.gap_kind == "bound"
            assert truth <= result.gap + 1e-14
            assert result.gap < 1
        assert result.status is Status.CONVERGED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@iterations
def test_bound_on_random_spectra(name, dtype, spectrum_matrix, rng):
    """Bound and ball hold whatever the singular values are, and wherever the vectors point."""
    for _ in range(30):
        r = int(rng.integers(2, 40))
        s = 10.0 ** -rng.uniform(0, rng.uniform(0, 8), r)
        host = spectrum_matrix(r + int(rng.integers(0, 20)), r, np.sort(s)[::-1], dtype, rng)
        if rng.random() < 0.3:
            host = np.diag(s).astype(dtype)
        result = SpectralBall().lmo(host, method=METHODS[name])
        assert largest(result.update) <= 1 + 100 * eps_of(dtype)
        assert 1 + inner(host, result.update) / nuclear(host) <= result.gap + 1e-14


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("name", ["gram", "express-9", "cubic"])
def test_polar_factor(name, shape, dtype, backend, spectrum_matrix, rng):
    """Well-conditioned matrices: what converges is the polar factor of the SVD."""
    eps = eps_of(dtype)
    host = spectrum_matrix(*shape, np.linspace(1, 0.2, min(shape)), dtype, rng)
    result = SpectralBall().lmo(backend.asarray(host), method=METHODS[name])
    # Vectors turn by eps over twice the smallest singular value; rounding of 20 steps adds up.
    error = np.linalg.norm(backend.to_numpy(result.update) + polar(host), 2)
    assert error <= 100 * eps / 0.2
    assert result.factors is None
    assert result.subspace is None


@iterations
def test_it_is_the_polynomial_of_the_singular_values(name, spectrum_matrix, rng):
    """The update is the iterate of the documented map, over the documented bound."""
    method = METHODS[name]
    host, U, Vh = spectrum_matrix(30, 20, np.linspace(1, 0.2, 20), "float64", rng, factors=True)
    x = np.linalg.svd(host, compute_uv=False) / np.linalg.norm(host)
    for polynomial in method.polynomials():
        x = sum(c * x ** (2 * i + 1) for i, c in enumerate(polynomial))
    y = np.geomspace(1e-9, 1, 1_000_001)
    for polynomial in method.polynomials():
        y = sum(c * y ** (2 * i + 1) for i, c in enumerate(polynomial))
    D = SpectralBall().lmo(host, method=method).update
    # The maximum is one on a grid.
    np.testing.assert_allclose(-D, (U * (x / max(1, y.max()))) @ Vh, atol=1e-5)


def test_the_bound_says_something(spectrum_matrix, rng):
    """For matrices of which few values are below 1e-3 ||G||_F it is of the size of the error."""
    for spectrum in (np.ones, SPECTRA["linear"]):
        host = spectrum_matrix(60, 40, spectrum(40), "float64", rng)
        for steps in (5, 6, 7):
            method = PolarExpress(steps=steps)
            e, r = method.error(), 40
            # Attained: 1 - e over 1 + e at the least; unknown: what r values below add, by s_1.
            assert SpectralBall().lmo(host, method=method).gap <= 2 * e + 1.3 * r * 1e-3 / r**0.5
        # sqrt(r) ||G||_F bounds the nuclear norm of all matrices, and is attained by flat ones.
        result = SpectralBall().lmo(host, method=NewtonSchulz())
        at_most = 40**0.5 * np.linalg.norm(host)
        assert result.gap <= (1 - result.support / at_most) + 1e-10


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
@all_methods
def test_zero(name, dtype, backend):
    G = backend.asarray(np.zeros((7, 4), dtype=dtype))
    result = SpectralBall().lmo(G, method=METHODS[name])
    assert not backend.to_numpy(result.update).any()
    assert result.update.dtype == backend.dtype(dtype)
    assert result.support == 0
    assert 0 <= result.gap <= 100 * eps_of(dtype)


@pytest.mark.parametrize(
    ("dtype", "exponent"), [("float32", 100), ("complex64", -100), ("float64", 664)]
)
@pytest.mark.parametrize("sign", [1, -1])
@all_methods
def test_scale(name, dtype, exponent, sign, backend, spectrum_matrix, rng):
    """1e30 and 1e-30 in single precision, 1e200 and 1e-200 in double."""
    host = spectrum_matrix(12, 9, np.linspace(1, 0.5, 9), dtype, rng)
    scale = 2.0 ** (sign * exponent)
    one = SpectralBall().lmo(backend.asarray(host), method=METHODS[name])
    other = SpectralBall().lmo(backend.asarray((host * scale).astype(dtype)), method=METHODS[name])
    # A power of two changes no digit of an iteration; in a factorization it may.
    slack = 0 if name in ITERATIONS else 100 * eps_of(dtype) / 0.5
    difference = backend.to_numpy(other.update) - backend.to_numpy(one.update)
    assert np.abs(difference).max() <= slack
    assert other.support == pytest.approx(one.support * scale, rel=100 * eps_of(dtype))
    assert other.gap == one.gap


@all_methods
def test_what_is_not_finite_is_refused(name, backend, rng):
    host = rng.standard_normal((6, 4))
    for bad in (np.nan, np.inf):
        host[2, 1] = bad
        with pytest.raises(ValueError, match="contains NaN or inf"):
            SpectralBall().lmo(backend.asarray(host), method=METHODS[name])


@all_methods
def test_bad_shapes(name):
    for shape in [(3,), (2, 3, 4), (0, 3), (3, 0)]:
        with pytest.raises(ValueError, match=r"dimension|shape|matrix|rows"):
            SpectralBall().lmo(np.ones(shape), method=METHODS[name])


@all_methods
def test_the_argument_is_left_alone_and_the_update_is_its_own(name, rng):
    G = rng.standard_normal((12, 9))
    before = G.copy()
    result = SpectralBall().lmo(G, method=METHODS[name])
    assert np.array_equal(G, before)
    G[...] = rng.standard_normal(G.shape)
    expected = SpectralBall().lmo(before, method=METHODS[name]).update
    assert np.array_equal(result.update, expected)
    before.flags.writeable = False
    SpectralBall().lmo(before[::-1, ::2], method=METHODS[name])


@all_methods
def test_integers(name, backend):
    host = np.arange(20).reshape(5, 4) % 7 - 3
    result = SpectralBall().lmo(backend.asarray(host), method=METHODS[name])
    assert result.update.dtype == backend.dtype("float64")
    D = backend.to_numpy(result.update)
    assert -inner(host, D) >= (1 - result.gap) * nuclear(host.astype(float)) * (1 - 1e-12)


@all_methods
def test_gradients_do_not_flow(name, rng):
    torch = pytest.importorskip("torch")
    G = torch.asarray(rng.standard_normal((7, 5))).requires_grad_()
    assert not SpectralBall().lmo(G, method=METHODS[name]).update.requires_grad


# ---- balls and functions that take a method ---------------------------------------------------


@all_methods
def test_rms_ball(name, rng):
    for shape in [(12, 5), (5, 12)]:
        G = rng.standard_normal(shape)
        plain = SpectralBall().lmo(G, method=METHODS[name])
        scaled = RMSBall().lmo(G, method=METHODS[name])
        factor = (shape[0] / shape[1]) ** 0.5
        np.testing.assert_allclose(scaled.update, factor * plain.update, atol=1e-13)
        assert scaled.support == pytest.approx(factor * plain.support, rel=1e-13)
        assert (scaled.gap, scaled.gap_kind) == (plain.gap, plain.gap_kind)
        assert RMSBall().gauge(scaled.update) <= 1 + 1e-13


@pytest.mark.parametrize("function", ["spectral_lmo", "rms_lmo"])
@all_methods
def test_one_call(name, function, backend, rng):
    ball = {"spectral_lmo": SpectralBall(), "rms_lmo": RMSBall()}[function]
    call = getattr(trsvd, function)
    host = rng.standard_normal((2, 3, 6, 4))
    batch = backend.to_numpy(call(backend.asarray(host), radius=0.5, method=METHODS[name]))
    for index in np.ndindex(2, 3):
        single = ball.lmo(backend.asarray(host[index]), method=METHODS[name]).update
        np.testing.assert_allclose(batch[index], 0.5 * backend.to_numpy(single), atol=1e-12)


def test_one_call_asks_for_a_gap(rng):
    G = rng.standard_normal((12, 9))
    with pytest.warns(ConvergenceWarning, match="gap"):
        trsvd.spectral_lmo(G, method=NewtonSchulz(), gap=1e-3)
    trsvd.rms_lmo(G, method=PolarExpress(steps=9), gap=0.1)


def test_parts_of_sums(rng):
    """F-Muon with Muon's own iteration."""
    G = rng.standard_normal((12, 9))
    result = (0.5 * SpectralBall() + 0.5 * FrobeniusBall()).lmo(G, method=NewtonSchulz())
    expected = 0.5 * SpectralBall().lmo(G, method=NewtonSchulz()).update
    expected = expected - 0.5 * G / np.linalg.norm(G)
    np.testing.assert_allclose(result.update, expected, atol=1e-14)
    support = 0.5 * nuclear(G) + 0.5 * np.linalg.norm(G)
    assert result.gap_kind == "bound"
    assert 1 - result.support / support <= result.gap
    many = SpectralBall().lmo_many([G, G.T], method=NewtonSchulz())
    assert [tuple(each.update.shape) for each in many] == [(12, 9), (9, 12)]


def test_the_schatten_ball_for_infinity_takes_them(rng):
    G = rng.standard_normal((12, 9))
    one = SchattenBall(np.inf).lmo(G, method=PolarExpress())
    assert np.array_equal(one.update, SpectralBall().lmo(G, method=PolarExpress()).update)
    with pytest.raises(TypeError, match="method="):
        SchattenBall(3).lmo(G, method=PolarExpress())
    exact = SchattenBall(3).lmo(G)
    for method in ("exact", "svd", "gram"):
        np.testing.assert_allclose(
            SchattenBall(3).lmo(G, method=method).update, exact.update, atol=1e-10
        )


@pytest.mark.parametrize("name", ["gram", "quintic", "express"])
def test_sparse_matrices_and_operators(name, rng):
    G = np.where(rng.random((12, 9)) < 0.6, rng.standard_normal((12, 9)), 0.0)
    expected = SpectralBall().lmo(G, method=METHODS[name])
    sparse = SpectralBall().lmo(scipy.sparse.csr_array(G), method=METHODS[name])
    np.testing.assert_allclose(sparse.update, expected.update, atol=1e-12)
    assert sparse.matvecs == expected.matvecs
    known_by_products = operators.CenteredOperator(G, mean=np.zeros(9))
    result = SpectralBall().lmo(known_by_products, method=METHODS[name])
    np.testing.assert_allclose(result.update, expected.update, atol=1e-12)
    # Written down by min(m, n) products, after one of A and one of A^H to see that they agree.
    assert result.matvecs == expected.matvecs + 9 + 8
    assert result.passes == expected.passes + 1


# ---- counts, gaps, certificates ---------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 9), (9, 12)])
def test_products_are_counted(shape, rng):
    G = rng.standard_normal(shape)
    quintic = SpectralBall().lmo(G, method=NewtonSchulz(steps=7))
    assert quintic.matvecs == newton_schulz_matvecs(shape, 7, (1, 2, 3)) == 3 * 9 * 7
    assert quintic.passes == 3 * 7
    cubic = SpectralBall().lmo(G, method=NewtonSchulz(steps=4, coefficients=CUBIC))
    assert (cubic.matvecs, cubic.passes) == (2 * 9 * 4, 2 * 4)
    express = SpectralBall().lmo(G, method=PolarExpress(steps=4))
    assert (express.matvecs, express.passes) == (3 * 9 * 4, 3 * 4)
    # A^H A, the product with its root, its square, and that of the last step.
    gram = SpectralBall().lmo(G, method="gram")
    assert (gram.matvecs, gram.passes) == (4 * 9, 4)


def test_gap_that_is_not_reached(rng):
    G = rng.standard_normal((30, 20))
    with pytest.warns(ConvergenceWarning, match="NewtonSchulz.*came to a gap of") as record:
        result = SpectralBall().lmo(G, gap=1e-2, method=NewtonSchulz())
    assert record[0].filename == __file__
    assert result.status is Status.MAX_ITERATIONS
    assert result.gap > 1e-2
    plain = SpectralBall().lmo(G, method=NewtonSchulz())
    assert np.array_equal(result.update, plain.update)
    assert plain.status is Status.CONVERGED


def test_gap_that_is_reached(rng):
    G = rng.standard_normal((30, 20))
    result = SpectralBall().lmo(G, gap=0.1, method=PolarExpress(steps=8))
    assert result.gap <= 0.1
    assert result.status is Status.CONVERGED
    assert result.gap_kind == "bound"


@exact_methods
def test_gap_and_start_do_not_matter_to_exact_methods(name, rng):
    G = rng.standard_normal((30, 20))
    plain = SpectralBall().lmo(G, method=METHODS[name])
    start = SpectralBall().lmo(G).subspace
    for options in ({"gap": 0.5}, {"start": start}, {"certify": True}, {"tol": 1e-3}):
        result = SpectralBall().lmo(G, method=METHODS[name], **options)
        assert np.array_equal(result.update, plain.update)
        assert (result.gap, result.gap_kind) == (plain.gap, "exact")


def test_start_and_rng_do_not_matter_to_iterations(rng):
    G = rng.standard_normal((30, 20))
    plain = SpectralBall().lmo(G, method=PolarExpress())
    start = SpectralBall().lmo(G).subspace
    result = SpectralBall().lmo(G, method=PolarExpress(), start=start, rng=3)
    assert np.array_equal(result.update, plain.update)


def test_certificates(rng):
    G = rng.standard_normal((30, 20))
    exact = SpectralBall().lmo(G)
    bound = SpectralBall().lmo(G, method=NewtonSchulz(), certify=True)
    assert bound.gap_kind == "bound"
    reached = SpectralBall().lmo(G, gap=0.1, method=PolarExpress(steps=8), certify=True)
    assert reached.gap_kind == "bound"
    missed = SpectralBall().lmo(G, gap=1e-2, method=NewtonSchulz(), certify=True)
    assert (missed.gap_kind, missed.status) == ("exact", Status.CONVERGED)
    np.testing.assert_allclose(missed.update, exact.update, atol=1e-13)
    assert missed.matvecs == exact.matvecs + 3 * 20 * 5
    assert missed.passes == exact.passes + 3 * 5


def test_certificates_of_named_methods(rng):
    G = rng.standard_normal((30, 20))
    assert SpectralBall().lmo(G, method="rsvd").gap_kind == "estimate"
    assert SpectralBall().lmo(G, method="rsvd", certify=True).gap_kind == "exact"


def test_gram_falls_back_where_squares_are_lost(spectrum_matrix, rng):
    """The SVD has factors, and leaves out what is zero to rounding; the Gram matrix has not."""
    cases = {
        "well-conditioned": (np.linspace(1, 0.1, 20), None),
        "rank 7": (np.ones(7), 7),
        "far apart": (10.0 ** -np.linspace(0, 9, 20), 20),
        "zero to rounding": (np.r_[np.ones(19), 1e-15], 19),
    }
    for s, rank in cases.values():
        G, U, Vh = spectrum_matrix(30, 20, s, "float64", rng, factors=True)
        result = SpectralBall().lmo(G, method="gram")
        if rank is None:
            assert result.factors is None
            continue
        assert result.factors[0].shape == (30, rank)
        assert result.matvecs > SpectralBall().lmo(G).matvecs
        # Vectors turn by eps over the smallest singular value.
        slack = 100 * eps_of("float64") / s[rank - 1]
        assert np.linalg.norm(result.update + U[:, :rank] @ Vh[:rank], 2) <= slack


def test_gram_leaves_out_what_an_svd_leaves_out(spectrum_matrix, rng):
    """In single precision 2e-6 s_1 counts as zero, though its square survives in double."""
    G = spectrum_matrix(30, 20, np.r_[np.ones(19), 2e-6], "float32", rng)
    ranks = [SpectralBall().lmo(G, method=name).factors[0].shape[1] for name in ("svd", "gram")]
    assert ranks == [19, 19]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("condition", [10, 1e3, 1e4, 1e6])
def test_gram_is_exact_whatever_the_condition(condition, dtype, spectrum_matrix, rng):
    G = spectrum_matrix(50, 30, np.geomspace(1, 1 / condition, 30), dtype, rng)
    result = SpectralBall().lmo(G, method="gram")
    assert largest(result.update) <= 1 + 100 * eps_of(dtype)
    truth = 1 + inner(G, result.update) / nuclear(G)
    assert truth <= result.gap + 30 * 50 * eps_of(dtype) * (result.factors is not None)


# ---- precision of the products ----------------------------------------------------------------


def torch_matrix(host, dtype):
    torch = pytest.importorskip("torch")
    return torch.asarray(host).to(getattr(torch, dtype))


def as_float64(X):
    return X.double().numpy()


HALF_METHODS = {
    "quintic": lambda dtype: NewtonSchulz(dtype=dtype),
    "express": lambda dtype: PolarExpress(dtype=dtype),
    "express-9": lambda dtype: PolarExpress(steps=9, dtype=dtype),
}


@pytest.mark.parametrize("given", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", HALF_METHODS)
def test_half_precision_on_torch(name, dtype, given, spectrum_matrix, rng):
    eps = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[dtype]
    for shape in [(60, 40), (40, 60)]:
        for spectrum in SPECTRA.values():
            G = torch_matrix(spectrum_matrix(*shape, spectrum(40), "float64", rng), given)
            exact = as_float64(G)
            result = SpectralBall().lmo(G, method=HALF_METHODS[name](dtype))
            assert result.update.dtype == G.dtype
            D = as_float64(result.update)
            # A rounding unit is what the last step and the output may be off by.
            output = 2.0**-7 if given == "bfloat16" else 0
            assert largest(D) <= 1 + eps + output
            assert result.support == pytest.approx(-inner(exact, D), rel=1e-6)
            assert result.gap_kind == "estimate"
            truth = 1 + inner(exact, D) / nuclear(exact)
            # Divisions by (1 + 2 eps) (1 + eps) of what is below 1 by an eps or two already.
            full = SpectralBall().lmo(G.double(), method=HALF_METHODS[name]("float64"))
            full_truth = 1 - full.support / nuclear(exact)
            assert truth <= full_truth + 10 * eps + output
            assert truth <= result.gap + 4 * eps


@pytest.mark.parametrize("shape", [(20, 12), (90, 70)])
@pytest.mark.parametrize("name", ["quintic", "express"])
def test_half_precision_of_numpy(name, shape, rng):
    G = rng.standard_normal(shape).astype(np.float32)
    result = SpectralBall().lmo(G, method=HALF_METHODS[name]("float16"))
    assert result.update.dtype == np.float32
    assert largest(result.update) <= 1 + 2.0**-10
    full = SpectralBall().lmo(G, method=HALF_METHODS[name](None))
    assert result.support >= full.support * (1 - 10 * 2.0**-10)
    assert not np.array_equal(result.update, full.update)


@pytest.mark.parametrize("given", ["bfloat16", "float16"])
def test_half_precision_is_never_computed_in_by_default(given, rng):
    G = torch_matrix(rng.standard_normal((20, 12)), given)
    result = SpectralBall().lmo(G, method=NewtonSchulz())
    single = SpectralBall().lmo(G.float(), method=NewtonSchulz())
    assert result.gap_kind == "bound"
    assert result.update.dtype == G.dtype
    # Divided by 1 + eps more, for the rounding of the output, and rounded.
    eps = {"bfloat16": 2.0**-7, "float16": 2.0**-10}[given]
    np.testing.assert_allclose(as_float64(result.update), as_float64(single.update), atol=2 * eps)
    exact, D = as_float64(G), as_float64(result.update)
    assert largest(D) <= 1 + eps
    assert 1 + inner(exact, D) / nuclear(exact) <= result.gap


def test_wider_and_narrower_products(rng):
    G = rng.standard_normal((20, 12))
    wide_result = SpectralBall().lmo(G, method=PolarExpress(steps=8))
    narrow = SpectralBall().lmo(G, method=PolarExpress(steps=8, dtype="float32"))
    assert narrow.update.dtype == np.float64
    assert narrow.gap_kind == "bound"
    difference = np.abs(narrow.update - wide_result.update).max()
    assert 0 < difference <= 1000 * 2.0**-23
    single = SpectralBall().lmo(
        G.astype(np.float32), method=PolarExpress(steps=8, dtype=np.float64)
    )
    assert single.update.dtype == np.float32
    assert largest(single.update) <= 1 + 100 * 2.0**-23
    H = G + 1j * rng.standard_normal(G.shape)
    assert SpectralBall().lmo(H, method=PolarExpress(dtype="float32")).update.dtype == H.dtype


@pytest.mark.parametrize("make", [NewtonSchulz, PolarExpress])
def test_dtypes_that_a_library_lacks(make, backend, rng):
    real = backend.asarray(rng.standard_normal((4, 3)))
    if backend.name != "torch":
        with pytest.raises(TypeError, match=r"no bfloat16.*float32"):
            SpectralBall().lmo(real, method=make(dtype="bfloat16"))
    if backend.name == "strict":
        with pytest.raises(TypeError, match="no float16"):
            SpectralBall().lmo(real, method=make(dtype="float16"))
    complex_matrix = backend.asarray(rng.standard_normal((4, 3)) * 1j)
    for dtype in ("float16", "bfloat16"):
        with pytest.raises(TypeError, match="G is complex"):
            SpectralBall().lmo(complex_matrix, method=make(dtype=dtype))


@pytest.mark.parametrize("n", [4, 30])
@pytest.mark.parametrize("name", ["quintic", "express"])
def test_half_precision_of_numpy_stays_in_the_ball(name, n, rng, spectrum_matrix):
    """It is divided in single precision: what half precision lost is not made up for outside."""
    slack = 4 * n**0.5 * float(np.finfo("float32").eps)
    for s in (np.linspace(1, 0.9, n), rng.uniform(0, 1, n), rng.uniform(0, 1, n) ** 4):
        for G in (np.diag(s), spectrum_matrix(n, n, np.sort(s)[::-1], "float64", rng)):
            D = SpectralBall().lmo(G.astype("float32"), method=HALF_METHODS[name]("float16")).update
            assert largest(D) <= 1 + slack


def test_half_precision_without_safety_is_caught(rng):
    """Rounding takes values out of the domain: the update is brought back, or refused."""
    torch = pytest.importorskip("torch")
    seen = []
    for n in (20, 64, 200):
        G = torch.diag(torch.arange(1, n + 1) ** -0.5)
        method = PolarExpress(steps=6, dtype="bfloat16", safety=1, cushion=0)
        refused = None
        try:
            result = SpectralBall().lmo(G, method=method)
        except ValueError as error:
            refused = str(error)
        if refused is not None:
            assert "made it diverge" in refused
            seen.append(0.0)
            continue
        assert largest(as_float64(result.update)) <= 1 + 2.0**-7
        seen.append(result.support / nuclear(as_float64(G)))
        safe = SpectralBall().lmo(G, method=PolarExpress(steps=6, dtype="bfloat16"))
        assert safe.support >= 0.95 * nuclear(as_float64(G))
    # It does happen, or there would be nothing to catch.
    assert min(seen) < 0.9


def test_certificates_in_half_precision(rng):
    G = torch_matrix(rng.standard_normal((20, 12)), "float32")
    result = SpectralBall().lmo(G, method=NewtonSchulz(dtype="bfloat16"), certify=True)
    assert result.gap_kind == "exact"
    assert result.support == pytest.approx(nuclear(as_float64(G)), rel=1e-5)


# ---- rounding, and what takes an iteration astray --------------------------------------------

ADVERSARIES = {
    "ones": lambda m, n, rng: np.ones((m, n)),
    "thirds": lambda m, n, rng: np.outer(1 + np.arange(m) % 3, np.ones(n)),
    "rank one": lambda m, n, rng: np.outer(rng.standard_normal(m), rng.standard_normal(n)),
    "rank five": lambda m, n, rng: rng.standard_normal((m, 5)) @ rng.standard_normal((5, n)),
    "orthogonal": lambda m, n, rng: np.linalg.qr(rng.standard_normal((m, n)))[0],
    "blocks": lambda m, n, rng: np.kron(np.eye(5), np.ones((m // 5, n // 5))),
    "two levels": lambda m, n, rng: np.diag(np.where(np.arange(m) < n // 2, 1, 1e-3))[:, :n],
    "Gaussian": lambda m, n, rng: rng.standard_normal((m, n)),
}
FRAGILE = {
    "bare": PolarExpress(steps=6, safety=1.0),
    "bare-12": PolarExpress(steps=12, safety=1.0, lower=1e-4),
    "express-7": PolarExpress(steps=7, lower=1e-4),
    "express-10": PolarExpress(steps=10, lower=1e-5),
    "tiny": PolarExpress(steps=30, lower=1e-16),
    "cubic": NewtonSchulz(steps=20, coefficients=CUBIC),
}


def check_claims(G, method, **options):
    """In the ball, going down, and the gap no less than the truth; for an array of the host."""
    result = SpectralBall().lmo(G, method=method, **options)
    D, host = np.asarray(result.update), np.asarray(G)
    eps = eps_of(host.dtype)
    assert np.isfinite(D).all()
    assert largest(D) <= 1 + 20 * eps
    assert 0 < result.support < np.inf
    truth = 1 + inner(host, D) / nuclear(host)
    assert truth <= result.gap + 1e-14
    assert result.gap < 1
    return result


@pytest.mark.parametrize("given", ["float32", "float64"])
@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
@pytest.mark.parametrize("adversary", ADVERSARIES)
@pytest.mark.parametrize("name", FRAGILE)
def test_rounding_is_allowed_for(name, adversary, dtype, given, rng):
    for shape in [(50, 50), (100, 60), (200, 200)]:
        G = ADVERSARIES[adversary](*shape, rng).astype(given)
        check_claims(G, replace(FRAGILE[name], dtype=dtype))


@pytest.mark.slow
@pytest.mark.parametrize("n", [400, 1000])
@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_rounding_grows_with_the_size(adversary, n, rng):
    """With equal terms faster than the root of their number, up to the blocks of a library."""
    G = ADVERSARIES[adversary](n, n, rng).astype(np.float32)
    for name in ("bare", "bare-12"):
        check_claims(G, FRAGILE[name])


def test_rounding_of_ones_in_single_precision():
    """Without an allowance for the size: a largest singular value of 1.2, and a gap of 0."""
    G = np.ones((400, 400), np.float32)
    for name in ("bare", "bare-12"):
        assert check_claims(G, FRAGILE[name]).gap_kind == "bound"


@pytest.mark.parametrize(
    "method",
    [
        PolarExpress(dtype="float64"),
        PolarExpress(steps=7, lower=1e-4, dtype="float64"),
        PolarExpress(steps=10, lower=1e-5, dtype="float64"),
        PolarExpress(steps=12, lower=1e-5, dtype="float64"),
    ],
)
def test_products_in_a_wider_dtype(method, backend):
    """What is normalized in the narrow dtype is beyond 1 by more than the wide one allows for."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        host = np.outer(rng.standard_normal(64), rng.standard_normal(64)).astype(np.float32)
        for options in ({}, {"certify": True, "gap": 1e-2}):
            result = SpectralBall().lmo(backend.asarray(host), method=method, **options)
            D = backend.to_numpy(result.update)
            assert largest(D) <= 1 + 20 * eps_of("float32")
            assert 1 + inner(host, D) / nuclear(host) <= result.gap
            assert result.gap_kind in ("bound", "exact")


@pytest.mark.parametrize("bad", ["nan", "inf", "large"])
def test_an_iterate_that_is_no_polar_factor_is_not_handed_out(bad, monkeypatch, rng):
    """Whatever the library makes of the products: the SVD takes over."""
    step = _polar_lmo.polynomial_step

    def astray(arrays, X, polynomial):
        return step(arrays, X, polynomial) * {"nan": np.nan, "inf": np.inf, "large": 1.1}[bad]

    G = rng.standard_normal((30, 20))
    monkeypatch.setattr(_polar_lmo, "polynomial_step", astray)
    result = check_claims(G, PolarExpress(steps=1 if bad == "inf" else 6))
    assert result.gap_kind == "exact"
    assert result.matvecs > SpectralBall().lmo(G).matvecs


def test_polynomials_that_go_up_are_refused():
    for options in (
        {"coefficients": (-1.0, 0.1), "steps": 1},
        {"coefficients": (1.0, -2.0), "steps": 1},
        {"coefficients": (0.0, 0.0)},
    ):
        with pytest.raises(ValueError, match="keeps them positive"):
            NewtonSchulz(**options)


@pytest.mark.parametrize("method", [NewtonSchulz(), PolarExpress()])
def test_autocast_changes_nothing(method, rng):
    torch = pytest.importorskip("torch")
    G = torch_matrix(rng.standard_normal((100, 60)), "float32")
    plain = check_claims(G, method)
    bare = newton_schulz(G, steps=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = SpectralBall().lmo(G, method=method)
        update = within.update
        assert torch.equal(newton_schulz(G, steps=5), bare)
    assert torch.equal(plain.update, update)
    assert plain.gap == within.gap


def test_products_in_another_dtype_are_noticed(monkeypatch, rng):
    torch = pytest.importorskip("torch")
    G = torch_matrix(rng.standard_normal((100, 60)), "float32")
    monkeypatch.setattr(Arrays, "as_asked", lambda _: nullcontext())
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(TypeError, match=r"torch\.autocast"),
    ):
        SpectralBall().lmo(G, method=PolarExpress())


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 3.4e38), ("complex64", 3.4e38), ("float64", 1.7e308)]
)
@pytest.mark.parametrize("ball", [SpectralBall(), RMSBall(), SchattenBall(3)])
def test_entries_at_the_end_of_the_range(ball, dtype, size, backend, rng):
    """The update is that of any other multiple; support is a number of double precision, or inf."""
    signs = np.sign(rng.standard_normal((30, 20))).astype(dtype)
    methods = [None] if isinstance(ball, SchattenBall) else [None, "gram", PolarExpress()]
    for method in methods:
        one = ball.lmo(backend.asarray(signs), method=method)
        other = ball.lmo(backend.asarray((signs * size).astype(dtype)), method=method)
        difference = backend.to_numpy(other.update) - backend.to_numpy(one.update)
        # Vectors turn by eps over the least singular value, of about 1 where s_1 is about 10.
        assert np.abs(difference).max() <= 1000 * eps_of(dtype)
        if dtype == "float64":
            assert other.support == np.inf
        else:
            assert other.support == pytest.approx(one.support * size, rel=1e-5)


@pytest.mark.parametrize("name", ["svd", "gram", "quintic", "express"])
def test_results_can_be_pickled(name, rng):
    result = SpectralBall().lmo(rng.standard_normal((12, 9)), method=METHODS[name])
    again = pickle.loads(pickle.dumps(result))
    assert np.array_equal(again.update, result.update)


# ---- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", [SpectralBall(), RMSBall()])
def test_bad_methods(ball):
    G = np.eye(3)
    with pytest.raises(ValueError, match=r"is not known.*direct.*polar-express"):
        ball.lmo(G, method="nonsense")
    for method in (NewtonSchulz, 3, object()):
        with pytest.raises(TypeError, match="method="):
            ball.lmo(G, method=method)
    with pytest.raises(ValueError, match="tol=0.1 is a residual"):
        ball.lmo(G, method=NewtonSchulz(), tol=0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ball.lmo(G, method=NewtonSchulz(), gap=2)
    np.testing.assert_allclose(ball.lmo(G, method=Direct()).update, -G, atol=1e-14)


def test_iterations_are_for_the_polar_factor_only():
    with pytest.raises(ValueError, match="and k is 1"):
        KyFanDualBall(1).lmo(np.eye(3), method=NewtonSchulz())
    whole = KyFanDualBall(3).lmo(np.eye(3), method=PolarExpress())
    np.testing.assert_array_equal(
        whole.update, SpectralBall().lmo(np.eye(3), method=PolarExpress()).update
    )
    many = KyFanDualBall(3).lmo_many([np.eye(3)], method=PolarExpress())
    np.testing.assert_array_equal(many[0].update, whole.update)
    with pytest.raises(TypeError, match="method="):
        trsvd.svds(np.eye(3), 1, method=NewtonSchulz())


def test_it_is_the_bare_iteration_divided(rng):
    """Muon's own update is that of `trsvd.polar.newton_schulz`; the ball's is 1.2024 times less."""
    G = rng.standard_normal((12, 9))
    bare = newton_schulz(G, steps=5, coefficients=NewtonSchulz().coefficients)
    D = SpectralBall().lmo(G, method=NewtonSchulz(steps=5)).update
    np.testing.assert_allclose(bare, -D * 1.202368605, rtol=1e-8)


def test_the_name_gram_and_its_object_are_the_same_method(rng):
    G = rng.standard_normal((30, 20))
    named, given = (SpectralBall().lmo(G, method=m) for m in ("gram", Direct(route="gram")))
    np.testing.assert_array_equal(named.update, given.update)
    assert (named.matvecs, named.passes, named.gap) == (given.matvecs, given.passes, given.gap)
