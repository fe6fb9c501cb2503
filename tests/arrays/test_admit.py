"""What a user hands over: frames are converted, lazy and traced arrays are refused, everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import trsvd
import trsvd.compat
from trsvd import lmo, norms, optim, polar
from trsvd._arrays.admit import admitted

M, N = 12, 9
X = np.random.default_rng(0).standard_normal((M, N))


def _one_call(name: str) -> Callable[[Any], Any]:
    function = getattr(lmo, name)
    rank = (4,) if "schatten" in name else (2,) if "fan" in name else ()
    return lambda A: function(A, *rank)


# Every public function that takes a matrix, by what it is called.
DOORS: dict[str, Callable[[Any], Any]] = {
    "svds": lambda A: trsvd.svds(A, 2, rng=0).S,
    "svds_above": lambda A: trsvd.svds_above(A, 3.0, rng=0).S,
    "svds_to_tolerance": lambda A: trsvd.svds_to_tolerance(A, 0.5, rng=0).S,
    "select_method": lambda A: trsvd.select_method(A, 2),
    **{
        name: (lambda f, *rest: lambda A: f(A, *rest))(
            getattr(norms, name), *((2,) if name.startswith("kyfan") else ())
        )
        for name in norms.__all__
    },
    **{name: _one_call(name) for name in lmo.__all__ if name.endswith("_lmo")},
    "Ball.lmo": lambda A: trsvd.SpectralBall().lmo(A).update,
    "Ball.lmo by its Gram matrix": lambda A: trsvd.SpectralBall().lmo(A, method="gram").update,
    "RMSBall.lmo": lambda A: trsvd.RMSBall().lmo(A).update,
    "Ball.lmo_many": lambda A: trsvd.NuclearBall().lmo_many([A, A])[1].update,
    "Ball.contains": lambda A: trsvd.KyFanBall(2).contains(A),
    "Ball.support": lambda A: trsvd.KyFanDualBall(2).support(A),
    "SumBall.gauge": lambda A: (0.5 * trsvd.SpectralBall() + trsvd.FrobeniusBall()).gauge(A),
    "newton_schulz": lambda A: polar.newton_schulz(A, steps=2),
    "regularized_update": lambda A: trsvd.regularized_update(trsvd.MaxBall(), A, 0.5).update,
    "f_star_neon": lambda A: trsvd.f_star_neon(A, 0.5, rng=0).update,
    "spectral_function": lambda A: trsvd.spectral_function(A, np.sqrt),
    "CenteredOperator": lambda A: trsvd.svds(trsvd.operators.CenteredOperator(A), 2, rng=0).S,
    "check_adjoint": trsvd.operators.check_adjoint,
    "compat.svds": lambda A: trsvd.compat.svds(A, 2, return_singular_vectors=False),
    "compat.randomized_svd": lambda A: trsvd.compat.randomized_svd(A, 2, random_state=0)[1],
}
# Frames are no parameters of a network and no warm start.
ARRAYS_ONLY: dict[str, Callable[[Any], Any]] = {
    "start=": lambda A: trsvd.svds(X, 2, start=A),
    "Rule.init": lambda A: optim.nsgd(lr=0.1).init([A]),
    "Rule.update": lambda A: optim.nsgd(lr=0.1, momentum=0.0).update([A], (None, None), [X]),
    "apply_updates": lambda A: optim.apply_updates([X], [A]),
}
EVERYWHERE = {**DOORS, **ARRAYS_ONLY}


def test_every_door_is_there():
    assert {name for name in lmo.__all__ if name.endswith("_lmo")} <= set(DOORS)
    for door in DOORS.values():
        door(X)


# ---- frames -----------------------------------------------------------------------------------


def _frames() -> dict[str, Callable[[], Any]]:
    """Frames that are ``X``, by name; each imports its library."""

    def of_pandas(change: Callable[[Any, Any], Any]) -> Any:
        pd = pytest.importorskip("pandas")
        return change(pd, pd.DataFrame(X, columns=[f"c{j}" for j in range(N)]))

    def of_polars() -> Any:
        return pytest.importorskip("polars").DataFrame(X)

    def own(pd: Any, frame: Any) -> Any:
        return type("Own", (pd.DataFrame,), {})(frame)

    return {
        "pandas": lambda: of_pandas(lambda pd, frame: frame),
        "pandas, nullable": lambda: of_pandas(lambda pd, frame: frame.convert_dtypes()),
        "pandas, another class": lambda: of_pandas(own),
        "polars": of_polars,
    }


@pytest.mark.parametrize("frame", _frames())
@pytest.mark.parametrize("door", DOORS)
def test_a_frame_is_its_array(door, frame):
    expected, found = DOORS[door](X), DOORS[door](_frames()[frame]())
    if isinstance(expected, np.ndarray):
        assert type(found) is np.ndarray
        # The layout in memory may differ, and with it the rounding of sums: n eps each.
        assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["float32", "float32"], "float32"),
        (["float32", "float64"], "float64"),
        (["bool", "float32"], "float32"),
        (["int16", "float32"], "float32"),
        (["int64", "uint8"], "int64"),
        (["bool", "bool"], "bool"),
        (["Int32", "boolean"], "int32"),
        (["Float32", "int8"], "float32"),
        (["complex64", "float64"], "complex128"),
    ],
)
def test_columns_of_pandas_have_one_dtype(dtypes, expected):
    pd = pytest.importorskip("pandas")
    values = np.array([[1, 0], [0, 1], [1, 1]])
    frame = pd.DataFrame({j: pd.Series(values[:, j]).astype(d) for j, d in enumerate(dtypes)})
    found = admitted(frame)
    assert found.dtype == expected
    assert np.array_equal(found, values)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (["Float32", "Float32"], "float32"),
        (["Boolean", "Float32"], "float32"),
        (["Int64", "Float32"], "float64"),
        (["Boolean", "Boolean"], "bool"),
        (["UInt8", "Int16"], "int16"),
    ],
)
def test_columns_of_polars_have_one_dtype(dtypes, expected):
    pl = pytest.importorskip("polars")
    values = np.array([[1, 0], [0, 1], [1, 1]])
    frame = pl.DataFrame(values, schema=["a", "b"])
    frame = frame.with_columns(
        frame["a"].cast(getattr(pl, dtypes[0])), frame["b"].cast(getattr(pl, dtypes[1]))
    )
    found = admitted(frame)
    assert found.dtype == expected
    assert np.array_equal(found, values)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("fill", [0.0, np.nan, 1.0])
def test_sparse_columns_stay_sparse(fill, mixed):
    pd = pytest.importorskip("pandas")
    values = np.where(np.abs(X) > 1, X, 1.0 if fill == 1 else 0.0)
    frame = pd.DataFrame(values).astype(pd.SparseDtype("float64", fill))
    if mixed:
        frame[3] = values[:, 3]
    found = admitted(frame)
    assert scipy.sparse.issparse(found)
    assert np.array_equal(found.toarray(), values)
    S = np.linalg.svd(values, compute_uv=False)
    assert np.abs(trsvd.svds(frame, 2).S - S[:2]).max() <= 1e-12 * S[0]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_that_are_no_numbers_are_named(library, door):
    frame = pytest.importorskip(library).DataFrame(
        {"length": [1.0, 2.0, 3.0], "colour": ["red", "green", "blue"]}
    )
    with pytest.raises(TypeError, match=r"columns that cannot be computed with: 'colour' \("):
        DOORS[door](frame)


@pytest.mark.parametrize("dtype", ["object", "category", "datetime64[ns]", "timedelta64[ns]"])
def test_other_columns_of_pandas_are_named(dtype):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.0, 2.0], "when": pd.Series([1, 2]).astype(dtype)})
    with pytest.raises(TypeError, match=re.escape(f"'when' ({dtype})")):
        trsvd.svds(frame, 1)


@pytest.mark.parametrize("name", ["Int128", "Date", "Categorical", "Null", "Decimal"])
def test_other_columns_of_polars_are_named(name):
    pl = pytest.importorskip("polars")
    if not hasattr(pl, name):
        pytest.skip(f"this version has no {name}")
    values = {"Categorical": ["x", "y"], "Null": [None, None]}.get(name, [1, 2])
    other = pl.Series("when", values, dtype=pl.Int32 if name == "Date" else None)
    other = other.cast(pl.Decimal(10, 2) if name == "Decimal" else getattr(pl, name))
    frame = pl.DataFrame({"a": [1.0, 2.0]}).with_columns(other)
    with pytest.raises(TypeError, match=rf"'when' \({name}"):
        trsvd.svds(frame, 1)


def test_many_bad_columns_are_counted():
    pd = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r": 0 \(\w+\), .*, 4 \(\w+\) and 3 more;"):
        trsvd.svds(pd.DataFrame([["a"] * 8]), 1)


@pytest.mark.parametrize("dtype", ["Int64", "Float32", "boolean"])
def test_missing_values_of_pandas_are_refused(dtype):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": pd.array([1, None], dtype=dtype)})
    with pytest.raises(ValueError, match=r"missing values: 'b'; fill them"):
        trsvd.svds(frame, 1)
    with pytest.raises(ValueError, match="NaN"):  # as NumPy's own columns have them
        trsvd.svds(pd.DataFrame({"a": [1.0, np.nan], "b": [1.0, 2.0]}), 1)


def test_missing_values_of_polars_are_refused():
    pl = pytest.importorskip("polars")
    with pytest.raises(ValueError, match=r"missing values: 'b'; fill them"):
        trsvd.svds(pl.DataFrame({"a": [1.0, 2.0], "b": [1.0, None]}), 1)
    with pytest.raises(ValueError, match="NaN"):
        trsvd.svds(pl.DataFrame({"a": [1.0, 2.0], "b": [1.0, np.nan]}), 1)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_without_columns(library):
    with pytest.raises(ValueError, match="without rows or columns"):
        trsvd.svds(pytest.importorskip(library).DataFrame(), 1)


@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_frames_are_not_written_to(frame):
    A = _frames()[frame]()
    before = A.to_numpy().copy()
    trsvd.svds(A, 2)
    trsvd.SpectralBall().lmo(A)
    assert np.array_equal(A.to_numpy(), before)


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("door", EVERYWHERE)
def test_masked_arrays_are_refused(door):
    with pytest.raises(TypeError, match=r"masked arrays are not computed|start is numpy"):
        EVERYWHERE[door](np.ma.masked_array(X, X > 1))


@pytest.mark.parametrize("door", DOORS)
def test_lazy_frames_are_refused(door):
    frame = pytest.importorskip("polars").LazyFrame(X)
    with pytest.raises(TypeError, match=r"pass A\.collect\(\)"):
        DOORS[door](frame)


@pytest.mark.parametrize("door", EVERYWHERE)
def test_dask_arrays_are_refused(door):
    A = pytest.importorskip("dask.array").from_array(X, chunks=5)
    with pytest.raises(TypeError, match=r"dask.*pass A\.compute\(\); otherwise pass an object"):
        EVERYWHERE[door](A)


@pytest.mark.parametrize("shape", [(2, M, N), (M,)])
def test_dask_arrays_of_other_shapes_are_refused(shape):
    A = pytest.importorskip("dask.array").zeros(shape)
    for call in (lambda: trsvd.svds(A, 2), lambda: trsvd.spectral_lmo(A)):
        with pytest.raises(TypeError, match=r"pass A\.compute\(\)"):
            call()


def test_what_the_message_says_of_dask():
    da = pytest.importorskip("dask.array")

    class Chunked:
        def __init__(self, A: Any) -> None:
            self.A, self.shape, self.dtype = A, A.shape, A.dtype

        def matmat(self, V: Any) -> Any:
            return (self.A @ V).compute()

        def rmatmat(self, V: Any) -> Any:
            return (self.A.conj().T @ V).compute()

    S = np.linalg.svd(X, compute_uv=False)
    for A in (X, X.T, X * (1 + 1j)):
        found = trsvd.svds(Chunked(da.from_array(A, chunks=5)), 2).S
        size = abs(1 + 1j) if np.iscomplexobj(A) else 1.0
        assert np.abs(found - size * S[:2]).max() <= 1e-11 * S[0]

    class Forgotten(Chunked):
        def matmat(self, V: Any) -> Any:
            return self.A @ V

    with pytest.raises(TypeError, match=r"dask.*A\.compute\(\)"):
        trsvd.svds(Forgotten(da.from_array(X, chunks=5)), 2)


@pytest.mark.parametrize("transformed", ["jit", "vmap", "grad", "linearize"])
@pytest.mark.parametrize("door", EVERYWHERE)
def test_arrays_that_jax_traces_are_refused(door, transformed):
    jax = pytest.importorskip("jax")
    A = jax.numpy.asarray(X, dtype="float32")

    def call(B: Any) -> Any:
        EVERYWHERE[door](B)
        return B.sum()

    run = {
        "jit": lambda: jax.jit(call)(A),
        "vmap": lambda: jax.vmap(call)(A[None]),
        "grad": lambda: jax.grad(call)(A),
        "linearize": lambda: jax.linearize(call, A),
    }[transformed]
    with pytest.raises(TypeError, match=r"outside of the transformed.*jax\.pure_callback"):
        run()


def test_operators_of_traced_arrays_are_refused():
    jax = pytest.importorskip("jax")

    @jax.jit
    def call(B: Any) -> Any:
        class Product:
            shape, dtype, xp = B.shape, B.dtype, jax.numpy

            def matmat(self, V: Any) -> Any:
                return B @ V

            def rmatmat(self, V: Any) -> Any:
                return B.T @ V

        return trsvd.svds(Product(), 2).S

    with pytest.raises(TypeError, match=r"jax\.pure_callback"):
        call(jax.numpy.asarray(X, dtype="float32"))


def test_what_the_message_says_of_jax():
    jax = pytest.importorskip("jax")
    shape = jax.ShapeDtypeStruct((2,), "float32")

    def values(B: Any) -> Any:
        return trsvd.svds(np.asarray(B), 2, rng=0).S

    def call(B: Any) -> Any:
        return jax.pure_callback(values, shape, B, vmap_method="sequential")

    A = jax.numpy.asarray(X, dtype="float32")
    S = np.linalg.svd(X, compute_uv=False)[:2]
    # The default tolerance of float32, 6.4e-6, and the rounding of X to float32.
    for found in (
        jax.jit(call)(A),
        jax.vmap(call)(A[None])[0],
        jax.jit(jax.vmap(call))(A[None])[0],
    ):
        assert np.abs(np.asarray(found) - S).max() <= 1e-5 * S[0]


@pytest.mark.parametrize("transformed", ["vmap", "grad", "jacrev"])
@pytest.mark.parametrize("door", EVERYWHERE)
def test_tensors_within_transformations_are_refused(door, transformed):
    torch = pytest.importorskip("torch")
    A = torch.asarray(X)

    def call(B: Any) -> Any:
        EVERYWHERE[door](B)
        return B.sum()

    given = A[None] if transformed == "vmap" else A
    with pytest.raises(TypeError, match="outside of the transformed function"):
        getattr(torch.func, transformed)(call)(given)


def test_fake_tensors_are_refused():
    torch = pytest.importorskip("torch")
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode(), pytest.raises(TypeError, match="fake tensor"):
        trsvd.svds(torch.zeros(3, 2), 1)


def test_libraries_are_not_imported():
    code = (
        "import sys, numpy, trsvd; A = numpy.eye(3); trsvd.svds(A, 1); trsvd.spectral_lmo(A);"
        "assert not {'pandas', 'polars', 'dask', 'jax', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
