"""Fixtures of all tests: array libraries, random numbers, matrices with a known spectrum.

`backend` and `spectrum_matrix` live as long as the session, so that hypothesis may use them.
"""

from __future__ import annotations

import importlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# One thread in every BLAS, before NumPy asks for more: the matrices here are small, the pools of
# NumPy, SciPy and PyTorch spin against each other, and tests run side by side (`pytest -n auto`).
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from array_api_compat import array_namespace, device, to_device  # noqa: E402

# Compiled steps are tested where they are installed; TRSVD_COMPILED=0 tests the general way.
os.environ.setdefault("TRSVD_COMPILED", "1")

pytest.register_assert_rewrite("checks")
collect_ignore = ["mutation.py"]  # a command; it needs Cosmic Ray

DTYPES = ("float32", "float64", "complex64", "complex128")


@dataclass(frozen=True)
class Backend:
    """An array library on one device.

    Attributes
    ----------
    name : str
        ``"numpy"``, ``"torch"``, ``"strict"`` (array_api_strict on a device that is not its
        default and that refuses silent copies to the host) or ``"cupy"``.
    xp : module
        Its array API namespace, the one that `array_api_compat.array_namespace` gives.
    device : object
        Where `asarray` puts arrays.
    dtypes : tuple of str
        What a truncated SVD can be computed in, by NumPy's names.
    """

    name: str
    xp: Any
    device: Any
    dtypes: tuple[str, ...] = DTYPES

    def __str__(self) -> str:
        return self.name

    def asarray(self, x: Any) -> Any:
        """A copy of a host array on the device, dtype kept; NumPy's keep their layout too."""
        if self.name == "numpy":
            return np.array(x, order="K")
        return self.xp.asarray(np.ascontiguousarray(x), device=self.device, copy=True)

    def to_numpy(self, x: Any) -> np.ndarray:
        """``x`` on the host."""
        if self.name == "strict":
            x = to_device(x, device(self.xp.empty(0)))
        if self.name == "torch":
            x = x.detach().cpu().resolve_conj().resolve_neg()
        return x.get() if self.name == "cupy" else np.asarray(x)

    def owns(self, x: Any) -> bool:
        """Whether ``x`` is an array of this library on this device."""
        return array_namespace(x) is self.xp and device(x) == self.device

    def dtype(self, name: str) -> Any:
        """The dtype as this library spells it."""
        return getattr(self.xp, name)


def _numpy() -> Backend:
    x = np.empty(0)
    return Backend("numpy", array_namespace(x), device(x))


def _torch() -> Backend:
    torch = pytest.importorskip("torch")
    x = torch.empty(0)
    return Backend("torch", array_namespace(x), device(x))


def _strict() -> Backend:
    import array_api_strict

    return Backend("strict", array_api_strict, array_api_strict.Device("device1"))


def _cupy() -> Backend:
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        pytest.skip("CuPy is not installed")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no GPU answers: {error}")
    if not count:
        pytest.skip("no GPU answers")
    x = cupy.empty(0)
    return Backend("cupy", array_namespace(x), device(x))


_BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": _numpy,
    "torch": _torch,
    "strict": _strict,
    "cupy": _cupy,
}


@pytest.fixture(
    scope="session",
    params=["numpy", "torch", "strict", pytest.param("cupy", marks=pytest.mark.gpu)],
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """An array library; the test runs once with each that is there."""
    return _BACKENDS[request.param]()


@pytest.fixture(scope="session")
def numpy_backend() -> Backend:
    """The `Backend` of NumPy, for tests of what does not depend on the library."""
    return _numpy()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator whose seed is the test's name: the same numbers in any order, alone or not."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def spectrum_matrix() -> Callable[..., np.ndarray]:
    """Function ``(m, n, s, dtype, rng)``: a random m x n host matrix with singular values ``s``.

    ``s`` has at most min(m, n) values, the others are 0. Singular vectors are uniformly
    distributed, and made in double precision: the singular values of what is returned are ``s``
    to the rounding unit of ``dtype``, relative to the largest. Called with ``factors=True`` it
    returns ``A, U, Vh`` with the singular vectors in double precision.
    """
    return _spectrum_matrix


def _spectrum_matrix(
    m: int,
    n: int,
    s: Any,
    dtype: Any = "float64",
    rng: np.random.Generator | int = 0,
    *,
    factors: bool = False,
) -> Any:
    rng = np.random.default_rng(rng)
    s = np.asarray(s, dtype=np.float64)
    is_complex = np.dtype(dtype).kind == "c"
    U, V = (_orthonormal(rows, len(s), is_complex, rng) for rows in (m, n))
    Vh = V.conj().T
    # The product must not overflow or lose digits on the way for s = 1e-200.
    size = 2.0 ** np.frexp(s.max(initial=0.0))[1]
    A = (((U * (s / size)) @ Vh) * size).astype(dtype)
    return (A, U, Vh) if factors else A


def _orthonormal(rows: int, columns: int, is_complex: bool, rng: np.random.Generator) -> np.ndarray:
    X = rng.standard_normal((rows, columns))
    if is_complex:
        X = X + 1j * rng.standard_normal((rows, columns))
    Q, R = np.linalg.qr(X)
    diagonal = np.diagonal(R)
    return Q * (diagonal / np.abs(diagonal))


# What each suite of another library came to; printed below the tests.
_SUMMARIES: list[str] = []


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call":
        _SUMMARIES.extend(text for name, text in report.user_properties if name == "conformance")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _SUMMARIES:
        terminalreporter.section("conformance")
        for text in _SUMMARIES:
            terminalreporter.write_line(text)


@pytest.fixture
def general_way(monkeypatch):
    """Small matrices are computed in the general way, without the compiled call."""
    monkeypatch.setattr("trsvd._compiled.small._leading", None)
