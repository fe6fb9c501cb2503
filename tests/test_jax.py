"""JAX without double precision, its default, and with it: no warning, no dtype asked for in vain.

Warnings are errors here, and JAX warns whenever float64 is asked for that it does not have. Shapes
are few and small: each one is compiled anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import trsvd
from trsvd import norms, optim, polar
from trsvd._arrays.arrays import Arrays
from trsvd.operators.products import as_operator

jax = pytest.importorskip("jax")
jnp = jax.numpy

M, N = 24, 16
X = np.random.default_rng(0).standard_normal((M, N)) * 0.7 ** np.arange(N)
S = np.linalg.svd(X, compute_uv=False)
# Residuals of at most the default tolerance of float32, 6.4e-6; X itself rounded to float32.
TOL = 1e-5


@pytest.fixture(params=[False, True], ids=["single", "double"])
def double(request):
    """Whether JAX has float64; a setting of the process."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", request.param)
    yield request.param
    jax.config.update("jax_enable_x64", before)


def array(dtype: str = "float32", A: np.ndarray = X) -> Any:
    return jnp.asarray(A, dtype=getattr(jnp, dtype))


def check(result: Any, dtype: str, tol: float) -> None:
    assert result.converged
    real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    assert (str(result.U.dtype), str(result.S.dtype)) == (dtype, real)
    found, k = np.asarray(result.S).astype(float), len(result.S)
    assert np.abs(found - S[:k]).max() <= tol * S[0]


METHODS = [
    None,
    "krylov",
    trsvd.Direct(route="gram"),
    trsvd.ThickRestartLanczos(gram=True, basis_size=8),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_methods(method):
    check(trsvd.svds(array(), 2, method=method, rng=0), "float32", TOL)


@pytest.mark.parametrize(
    ("dtype", "unit"), [("complex64", TOL), ("bfloat16", 2**-8), ("float16", 2**-11)]
)
def test_dtypes(dtype, unit):
    given = array(dtype)
    result = trsvd.svds(given, 2)
    assert str(result.S.dtype) == {"complex64": "float32"}.get(dtype, dtype)
    exact = np.linalg.svd(np.asarray(given).astype(complex), compute_uv=False)[:2]
    assert np.abs(np.asarray(result.S).astype(float) - exact).max() <= 2 * unit * exact[0]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_whole_numbers_are_computed_in_the_widest_precision(dtype, double):
    A = (np.abs(X) > 0.2).astype(dtype)
    result = trsvd.svds(array(dtype, A), 2)
    assert str(result.S.dtype) == ("float64" if double else "float32")
    exact = np.linalg.svd(A.astype(float), compute_uv=False)[:2]
    assert np.abs(np.asarray(result.S) - exact).max() <= (1e-11 if double else TOL) * exact[0]


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_double_precision(dtype, double):
    if not double:
        pytest.skip("there is none")
    check(trsvd.svds(array(dtype), 2), dtype, 1e-11)


def test_a_setting_that_changes_is_seen():
    for on in (False, True, False):
        with jax.enable_x64(on):
            assert Arrays.of_array(array("int32")).dtype_name == ("float64" if on else "float32")
            wide = Arrays.of_array(array()).in_double
            assert (wide.xp is jnp, wide.dtype_name) == (on, "float64")


def test_relatives():
    A = array()
    assert len(trsvd.svds_above(A, float(S[1] + S[2]) / 2).S) == 2
    k = len(trsvd.svds_to_tolerance(A, 0.3).S)
    left = [np.linalg.norm(S[j:]) / np.linalg.norm(S) for j in (k - 1, k)]
    assert left[1] <= 0.3 < left[0]
    batch = trsvd.svds(jnp.stack([A, 2 * A]), 2).S
    assert np.abs(np.asarray(batch) - np.outer([1, 2], S[:2])).max() <= 2 * TOL * S[0]
    check(trsvd.svds(A, 2, method="krylov", rng=0, verify="exact"), "float32", TOL)


def test_norms():
    A = array()
    for found, expected in [
        (norms.nuclear_norm(A), S.sum()),
        (norms.spectral_norm(A), S[0]),
        (norms.kyfan_norm(A, 3), S[:3].sum()),
        (norms.kyfan_dual_norm(A, 3), max(S[0], S.sum() / 3)),
        (norms.frobenius_norm(A), np.linalg.norm(X)),
        (norms.max_norm(A), np.abs(X).max()),
        (norms.max_column_norm(A), np.linalg.norm(X, axis=0).max()),
    ]:
        assert found == pytest.approx(expected, rel=TOL)


@pytest.mark.parametrize("size", [1.0, 1e30, 1e-30])
@pytest.mark.parametrize(
    "ball",
    [
        trsvd.SpectralBall(),
        trsvd.NuclearBall(),
        trsvd.KyFanDualBall(3),
        trsvd.KyFanBall(3),
        trsvd.FrobeniusBall(),
        trsvd.MaxBall(),
        trsvd.SchattenBall(4),
        0.5 * trsvd.KyFanDualBall(2) + trsvd.FrobeniusBall(),
        1e38 * trsvd.NuclearBall() + 2e38 * trsvd.FrobeniusBall(),  # summed in double precision
    ],
    ids=lambda ball: type(ball).__name__,
)
def test_oracles(ball, size):
    G = array(A=X * size)
    answer, host = ball.lmo(G), ball.lmo(np.asarray(G))
    assert answer.update.dtype == jnp.float32
    assert answer.support == pytest.approx(host.support, rel=TOL)
    inner = -float((np.asarray(answer.update).astype(float) * (X * size)).sum())
    assert inner == pytest.approx(host.support, rel=TOL)


@pytest.mark.parametrize(
    "method",
    ["gram", trsvd.PolarExpress(), trsvd.NewtonSchulz(), trsvd.PolarExpress(dtype="bfloat16")],
    ids=str,
)
def test_polar_factors(method):
    A = np.linalg.svd(X)[0][:, :N] * np.linspace(1, 0.2, N)
    answer = trsvd.SpectralBall().lmo(array(A=A), method=method)
    host = trsvd.SpectralBall().lmo(A.astype("float32"), method="direct").support
    assert answer.support >= (1 - answer.gap) * host * (1 - TOL)
    assert polar.newton_schulz(array(A=A), steps=2).dtype == jnp.float32


def test_a_precision_that_is_not_there_is_refused():
    with (
        jax.enable_x64(False),
        pytest.raises(TypeError, match=r"jax\.numpy has no float64 on .*; leave dtype out"),
    ):
        trsvd.SpectralBall().lmo(array(), method=trsvd.PolarExpress(dtype="float64"))


def test_gaps_and_many():
    A, ball = array(), trsvd.KyFanDualBall(2)
    first = ball.lmo(A, gap=1e-3, rng=0)
    for again in (
        ball.lmo(1.001 * A, gap=1e-3, start=first),
        ball.lmo(A, gap=1e-3, certify=True),
        *ball.lmo_many([A, A], gap=1e-3),
    ):
        assert again.support >= (1 - 1e-3) * S[:2].sum() * (1 - TOL)


def test_operators_in_double_precision(double, rng):
    """Products as the second look makes them: to n eps of double precision, of what A is."""
    A = array()
    wide = as_operator(A).in_double()
    V = rng.standard_normal((N, 2))
    exact = np.asarray(A).astype(float) @ V
    found = wide.arrays.get(wide.matmat(wide.arrays.put(V)))
    assert np.abs(found - exact).max() <= N * 2.0**-52 * np.linalg.norm(X) * np.linalg.norm(V)


def test_sums_that_lose_digits_in_single_precision():
    """Ones: sums in single precision round the same way, and residuals do not show it."""
    with jax.enable_x64(False):
        ones = jnp.ones((520, 40), dtype=jnp.float32)
        found = trsvd.svds(ones, 1, method="krylov", tol=1e-5, rng=0).S
    assert float(found[0]) == pytest.approx((520 * 40) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("rule", ["nsgd", "muon", "dion"])
def test_rules(rule):
    options = {"k": 2} if rule == "dion" else {}
    made = getattr(optim, rule)(lr=0.1, **options)
    W, state = array(), made.init([array()])
    for _ in range(2):
        updates, state = made.update([W], state, [W])
    assert updates[0].dtype == jnp.float32
    assert bool(jnp.isfinite(updates[0]).all())
    assert optim.apply_updates([W], updates)[0].dtype == jnp.float32


def test_bfloat16_of_numpy_is_refused():
    with pytest.raises(TypeError, match="dtype bfloat16 cannot be computed with; convert to"):
        trsvd.svds(np.asarray(array("bfloat16")), 1)
