"""The upper bound that holds but with a stated probability."""

from __future__ import annotations

import numpy as np
import pytest

from trsvd import FrobeniusBall, KyFanDualBall
from trsvd._oracles.bounds import FAILURE, _raised, probable_bound
from trsvd.operators import as_operator
from trsvd.operators.counting import Metered

STEP = np.r_[np.linspace(2, 1, 6), 0.4 * np.ones(54)]
SPECTRA = {
    "step": STEP,
    "exponential": 0.7 ** np.arange(60),
    "root": np.arange(1, 61) ** -0.5,
    "flat": np.linspace(1, 0.9, 60),
}
on_spectra = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)


def bound_of(G, U, V, seed, enough=0.0):
    op = Metered(as_operator(G), None)
    return probable_bound(op, U, V, enough, np.random.default_rng(seed)), op.matvecs


@pytest.mark.parametrize("turn", [0.0, 1e-3, 0.1, 1.0])
@on_spectra
def test_it_is_never_below_the_norm(spectrum, turn, spectrum_matrix, rng):
    """For good, bad and useless subspaces."""
    G, U, Vh = spectrum_matrix(80, 60, spectrum, "float64", rng, factors=True)
    truth = spectrum[:6].sum()
    found = 0
    for seed in range(20):
        left = np.linalg.qr(U[:, :6] + turn / 9 * rng.standard_normal((80, 6)))[0]
        right = np.linalg.qr(Vh[:6].T + turn / 8 * rng.standard_normal((60, 6)))[0]
        bound, _ = bound_of(G, left, right, seed)
        if bound is not None:
            found += 1
            assert bound >= truth * (1 - 1e-13)
    if spectrum is STEP and turn <= 1e-3:
        assert found == 20


def test_it_is_quadratic_in_the_residuals(spectrum_matrix, rng):
    G, U, Vh = spectrum_matrix(80, 60, STEP, "float64", rng, factors=True)
    truth, excess = STEP[:6].sum(), []
    noise = [rng.standard_normal((80, 6)), rng.standard_normal((60, 6))]
    for turn in (1e-2, 1e-3):
        left = np.linalg.qr(U[:, :6] + turn * noise[0])[0]
        right = np.linalg.qr(Vh[:6].T + turn * noise[1])[0]
        excess.append(bound_of(G, left, right, 0)[0] - truth)
    assert excess[1] < 0.02 * excess[0]


def test_a_missed_pair_is_noticed(spectrum_matrix, rng):
    """Six true triplets with tiny residuals, but not the leading ones."""
    G, U, Vh = spectrum_matrix(80, 60, STEP, "float64", rng, factors=True)
    keep = [0, 1, 2, 4, 5, 6]
    for seed in range(20):
        bound, _ = bound_of(G, U[:, keep], Vh[keep].T, seed)
        assert bound is None


def test_what_is_enough_saves_products(spectrum_matrix, rng):
    G, U, Vh = spectrum_matrix(80, 60, STEP, "float64", rng, factors=True)
    tight, many = bound_of(G, U[:, :6], Vh[:6].T, 0)
    loose, few = bound_of(G, U[:, :6], Vh[:6].T, 0, enough=1.1 * STEP[:6].sum())
    assert tight <= loose <= 1.1 * STEP[:6].sum()
    assert few < many


def test_it_gives_up_after_two_products_where_the_rest_is_as_large(spectrum_matrix, rng):
    """The rest has values from 0.9: a bound of its norm comes out above s_6 = 0.992.

    A second product makes at least 0.9 of each unit vector, and fifteen of them would still bound
    the norm by ``(sqrt(2 / pi) 1e-6^(-1/6))^(1/15) = 1.15`` times as much.
    """
    G, U, Vh = spectrum_matrix(80, 60, SPECTRA["flat"], "float64", rng, factors=True)
    # A product with each of the two bases, and two with six random vectors.
    assert bound_of(G, U[:, :6], Vh[:6].T, 0) == (None, 2 * 6 + 2 * 6)


@pytest.mark.parametrize("shape", [(160, 140), (140, 160)])
def test_oracle(shape, backend, spectrum_matrix):
    spectrum = np.r_[np.linspace(2, 1, 6), 0.4 * np.ones(134)]
    host = spectrum_matrix(*shape, spectrum, "float64", 3)
    ball = KyFanDualBall(6)
    result = ball.lmo(backend.asarray(host), gap=1e-3, rng=0, certify="probable")
    assert (result.gap_kind, result.failure_probability) == ("probable", FAILURE)
    D = backend.to_numpy(result.update)
    true = 1 + np.vdot(D, host) / spectrum[:6].sum()
    assert true <= result.gap <= 1e-3
    assert result.matvecs < 140 + ball.lmo(backend.asarray(host), gap=1e-3, rng=0).matvecs
    both = 0.5 * ball + 0.5 * FrobeniusBall()
    total = both.lmo(backend.asarray(host), gap=1e-3, rng=0, certify="probable")
    assert (total.gap_kind, total.failure_probability) == ("probable", FAILURE)


@on_spectra
def test_where_it_cannot_be_told_the_spectrum_is_computed(spectrum, spectrum_matrix, rng):
    spectrum = np.r_[spectrum, spectrum[-1] * np.ones(30)]
    G = spectrum_matrix(120, 90, spectrum, "float64", rng)
    result = KyFanDualBall(6).lmo(G, gap=1e-4, rng=0, certify="probable")
    true = 1 + np.vdot(result.update, G) / spectrum[:6].sum()
    assert result.gap_kind in {"bound", "probable", "exact"}
    assert true - 1e-14 <= result.gap <= 1e-4


def test_bad_argument(rng):
    with pytest.raises(ValueError, match="certify"):
        KyFanDualBall(2).lmo(rng.standard_normal((9, 8)), gap=0.1, certify="maybe")


def test_a_rest_that_is_exactly_zero_bounds_by_rounding(rng):
    G = np.diag([3.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    E = np.eye(6)[:, :3]
    bound, _ = bound_of(G, E, E, 0)
    eps = np.finfo(float).eps
    # Ten times the root of the size, in rounding units of s_1 = 3, into each of three values.
    assert 6 <= bound <= 6 * (1 + 1000 * eps)


def test_a_value_rises_by_what_a_coupling_allows():
    """The larger eigenvalue of [[s, c], [c, rho]], and no more."""
    s, rho = np.array([3.0, 1.5, 1.2]), 1.0
    for coupling in (0.0, 1e-6, 0.1, 1.0):
        tops = [np.linalg.eigvalsh([[x, coupling], [coupling, rho]])[-1] for x in s]
        assert _raised(s, rho, coupling) == pytest.approx(sum(tops), rel=1e-14)
