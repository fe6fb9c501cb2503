"""``U f(S) V^H`` against the same written out in NumPy, and functions that are known otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from trsvd import Direct, NewtonSchulz, SchattenBall, SpectralBall, operators, spectral_function

SHAPES = [(9, 6), (6, 9), (1, 4), (4, 1)]
DTYPES = ["float32", "float64", "complex64", "complex128"]
FUNCTIONS = {
    "identity": lambda s: s,
    "root": np.sqrt,
    "inverse": lambda s: 1 / s,
    "one": lambda s: np.ones(len(s)),
    "half of them": lambda s: s * (np.arange(len(s)) < len(s) / 2),
    "negative": lambda s: -(s**2),
    "integers": lambda s: np.arange(len(s)),
    "list": lambda s: [1.0] * len(s),
}


def wide(X):
    return X.astype(np.result_type(X.dtype, np.float64))


def eps_of(dtype):
    return float(np.finfo(dtype).eps)


def written_out(G, f):
    U, S, Vh = np.linalg.svd(wide(G), full_matrices=False)
    return U @ np.diag(f(S)) @ Vh


def check(name, method, shape, dtype, backend, spectrum_matrix, rng):
    r = min(shape)
    host = spectrum_matrix(*shape, 2.0 ** -np.arange(r), dtype, rng)
    X = spectral_function(backend.asarray(host), FUNCTIONS[name], method=method)
    assert backend.owns(X)
    assert X.dtype == backend.dtype(dtype)
    assert tuple(X.shape) == shape
    expected = written_out(host, FUNCTIONS[name])
    # Vectors turn by the residual over the distance of values, 1/32 of s_1 at the least, at two
    # ends of six triplets; values up to 32 are multiplied by them. Residuals: eps^(3/4) asked for.
    residual = 100 * eps_of(dtype) if method != "trlan" else 10 * eps_of(dtype) ** 0.75
    slack = 12 * 32 * residual * np.linalg.norm(expected, 2)
    assert np.linalg.norm(backend.to_numpy(X) - expected, 2) <= slack


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_written_out(name, shape, dtype, backend, spectrum_matrix, rng):
    check(name, None, shape, dtype, backend, spectrum_matrix, rng)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("method", ["exact", "svd", "gram", "trlan", Direct()], ids=str)
def test_methods(method, shape, dtype, backend, spectrum_matrix, rng):
    check("root", method, shape, dtype, backend, spectrum_matrix, rng)


def test_functions_known_otherwise(spectrum_matrix, rng):
    G = spectrum_matrix(9, 6, np.linspace(1, 0.3, 6), "float64", rng)
    close = {"atol": 100 * eps_of("float64") / 0.3}
    np.testing.assert_allclose(spectral_function(G, lambda s: s), G, **close)
    np.testing.assert_allclose(spectral_function(G, lambda s: s**3), G @ G.T @ G, **close)
    np.testing.assert_allclose(
        spectral_function(G, lambda s: 1 / s), np.linalg.pinv(G).T, rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        spectral_function(G, np.sign), -SpectralBall().lmo(G).update, **close
    )
    p = 3.0
    q = p / (p - 1)
    weights = SchattenBall(p).lmo(G).update
    np.testing.assert_allclose(
        spectral_function(G, lambda s: -((s / np.linalg.norm(s, q)) ** (q - 1))), weights, **close
    )


def test_what_the_function_is_given(rng):
    """Descending singular values in double precision, of which it may do what it likes."""
    G = rng.standard_normal((9, 6)).astype(np.float32)
    given = []

    def f(s):
        given.append(s.copy())
        s[:] = np.nan
        return np.arange(6.0)

    X = spectral_function(G, f)
    assert len(given) == 1
    assert given[0].dtype == np.float64
    np.testing.assert_allclose(given[0], np.linalg.svd(G, compute_uv=False), rtol=1e-5)
    assert np.all(np.diff(given[0]) <= 0)
    assert np.isfinite(X).all()


def test_zero_where_the_matrix_is_zero(spectrum_matrix, rng):
    G, U, Vh = spectrum_matrix(9, 6, [1.0, 0.5], "float64", rng, factors=True)
    given = []
    X = spectral_function(G, lambda s: given.append(len(s)) or 1 / s)
    assert given == [2]
    np.testing.assert_allclose(X, U @ np.diag([1.0, 2.0]) @ Vh, atol=1e-13)


def test_zero(backend):
    def never(s):
        raise AssertionError

    X = spectral_function(backend.asarray(np.zeros((4, 3), dtype="float32")), never)
    assert X.dtype == backend.dtype("float32")
    assert not backend.to_numpy(X).any()


def test_integers_sparse_matrices_and_operators(rng):
    host = rng.integers(-3, 4, (9, 6))
    expected = written_out(host, np.sqrt)
    sparse = scipy.sparse.csr_array(host.astype(float))
    for G in (host, sparse, operators.as_operator(host.astype(float))):
        X = spectral_function(G, np.sqrt)
        assert X.dtype == np.float64
        np.testing.assert_allclose(X, expected, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype, rng):
    torch = pytest.importorskip("torch")
    G = torch.asarray(rng.standard_normal((9, 6))).to(getattr(torch, dtype)).requires_grad_()
    X = spectral_function(G, np.sqrt)
    assert X.dtype == G.dtype
    assert not X.requires_grad
    expected = written_out(G.detach().double().numpy(), np.sqrt)
    eps = float(torch.finfo(G.dtype).eps)
    np.testing.assert_allclose(X.double().numpy(), expected, atol=eps * np.abs(expected).max())


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scale(scale, rng):
    G = rng.standard_normal((9, 6))
    expected = scale**0.5 * spectral_function(G, np.sqrt)
    np.testing.assert_allclose(spectral_function(scale * G, np.sqrt), expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float16", "complex64"])
def test_out_of_range(dtype, backend, rng):
    if dtype == "float16" and backend.name == "strict":
        pytest.skip("it has no half precision")
    G = backend.asarray(np.eye(4, 3).astype(dtype))
    with pytest.raises(ValueError, match="out of the range"):
        spectral_function(G, lambda s: 1e39 * s)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        ("sqrt", TypeError, "pass a function"),
        (None, TypeError, "pass a function"),
        (lambda s: s[:2], ValueError, "shape"),
        (lambda s: 1.0, ValueError, "shape"),
        (lambda s: s[:, None], ValueError, "shape"),
        (lambda s: s * 1j, TypeError, "real numbers"),
        (lambda s: ["a"] * len(s), TypeError, "real numbers"),
        (lambda s: s * np.nan, ValueError, "returned nan"),
        (lambda s: np.full(3, np.inf), ValueError, "returned inf"),
    ],
)
def test_bad_functions(f, error, message):
    with pytest.raises(error, match=message):
        spectral_function(np.eye(4, 3), f)


def test_bad_matrices_and_methods():
    for G in (np.ones(3), np.ones((2, 3, 4)), np.ones((0, 3)), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"dimension|shape|NaN"):
            spectral_function(G, np.sqrt)
    for G in ([[1.0]], None):
        with pytest.raises(TypeError):
            spectral_function(G, np.sqrt)
    with pytest.raises(ValueError, match="is not known"):
        spectral_function(np.eye(3), np.sqrt, method="nonsense")
    with pytest.raises(TypeError, match="method="):
        spectral_function(np.eye(3), np.sqrt, method=NewtonSchulz())
