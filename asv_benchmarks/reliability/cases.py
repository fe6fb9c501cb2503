"""Hard cases: matrices on which truncated SVDs return wrong results without a warning.

Each matrix is built on first use, in the dtypes that can represent it, with its exact singular
values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse

from reliability.matrices import (
    Maker,
    companion,
    cycle,
    duplicated_columns,
    geometric,
    graph,
    hypercube,
    jump,
    kahan,
    laplacian,
    mixed_scales,
    of_rank,
    one_huge_row,
    orthogonal,
    spectrum,
    unitary,
    with_zeros,
    zero_one,
)
from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import is_sparse

REAL = ("float64", "float32")
COMPLEX = ("complex128", "complex64")


@dataclass(frozen=True, eq=False)
class Truth:
    """Matrix in double precision and its singular values, both scaled near 1.

    Attributes
    ----------
    B : numpy.ndarray of shape (m, n)
        The matrix ``2**-exponent * A``.
    s : numpy.ndarray of shape (min(m, n),)
        Its singular values, descending, by LAPACK's QR iteration: accurate to a few
        ``max(m, n) eps s_1`` of double precision.
    exponent : int
        Exponent of the scale.
    """

    B: HostArray
    s: HostArray
    exponent: int

    @classmethod
    def of(cls, A: Any) -> Truth:
        """Compute the truth about a matrix of any dtype and scale."""
        dense = np.asarray(A.toarray() if is_sparse(A) else A)
        wide = dense.astype(np.promote_types(dense.dtype, np.float64))
        size = float(np.abs(wide).max(initial=0.0))
        exponent = math.frexp(size)[1] if size else 0
        # In two steps, since 2**1080 overflows.
        B = wide * 2.0 ** -(exponent // 2) * 2.0 ** -(exponent - exponent // 2)
        s = scipy.linalg.svd(B, compute_uv=False, lapack_driver="gesvd")
        return cls(B, s, exponent)

    @property
    def values(self) -> HostArray:
        """Singular values of A itself."""
        return np.ldexp(self.s, self.exponent)


@dataclass(frozen=True, eq=False)
class Case:
    """Hard case: a matrix, the number of triplets, and possibly a misleading start.

    Parameters
    ----------
    family : str
        Kind of difficulty.
    make : callable
        Function that builds the matrix, dense or sparse, in double precision.
    k : int, default 5
        Number of triplets.
    dtypes : tuple of str
        Dtypes that can represent the matrix.
    start : numpy.ndarray of shape (n, p), optional
        Right starting vectors.
    report : str, default ""
        Library that was reported to fail on such a matrix, and the issue.
    """

    family: str
    make: Maker = field(repr=False)
    k: int = 5
    dtypes: tuple[str, ...] = REAL
    start: HostArray | None = field(default=None, repr=False)
    report: str = ""

    @cached_property
    def A(self) -> Any:
        """Matrix in double precision, read-only."""
        A = self.make()
        (A.data if is_sparse(A) else A).flags.writeable = False
        return A

    @cached_property
    def _held(self) -> dict[str, tuple[Any, Truth]]:
        return {}

    def of(self, dtype: str) -> tuple[Any, Truth]:
        """Return the matrix in a dtype, and the truth about the rounded matrix."""
        if dtype not in self._held:
            A = self.A.astype(dtype)
            (A.data if is_sparse(A) else A).flags.writeable = False
            self._held[dtype] = A, Truth.of(A)
        return self._held[dtype]


_RANK_3 = (3.0, 2.0, 1.0)
_TAIL = geometric(0.5, 0.9, 60)


def _rank() -> Iterator[tuple[str, Case]]:
    family = "rank below k"
    yield "rank 0", Case(family, lambda: np.zeros((60, 50)))
    yield "rank 0, wide", Case(family, lambda: np.zeros((50, 60)))
    yield "rank 0, all", Case(family, lambda: np.zeros((30, 30)), 30)
    yield "rank 1", Case(family, spectrum([2.0], 60, 50))
    yield "rank 1, diagonal", Case(family, lambda: np.diag([0.0] * 30 + [2.0] + [0.0] * 29))
    yield "rank 3", Case(family, spectrum(_RANK_3, 60, 50))
    yield "rank 3, tall", Case(family, spectrum(_RANK_3, 200, 50))
    yield "rank 3, wide", Case(family, spectrum(_RANK_3, 50, 200))
    yield "rank 3, diagonal", Case(family, lambda: np.diag([*_RANK_3] + [0.0] * 50))
    yield "rank 3, all", Case(family, spectrum(_RANK_3, 60, 50), 50)
    sparse = scipy.sparse.csr_array(([3.0, 2, 1], ([9, 4, 7], [1, 2, 3])), (200, 90))
    yield "rank 3, sparse", Case(family, sparse.copy)
    for more, name in ((-1, "k - 1"), (0, "k"), (1, "k + 1")):
        yield f"rank {name}", Case(family, spectrum(geometric(1, 0.7, 5 + more), 60, 50))
    tiny = [*_RANK_3, *geometric(1e-14, 0.9, 47)]
    yield "numerical rank 3", Case(family, spectrum(tiny, 60, 50))


def _one_value() -> Iterator[tuple[str, Case]]:
    family = "one value only"
    yield "identity", Case(family, lambda: np.eye(60))
    yield "identity, all", Case(family, lambda: np.eye(40), 40)
    yield "identity on top of zeros", Case(family, lambda: np.eye(150, 50))
    yield "stacked identities", Case(family, lambda: np.vstack([np.eye(50)] * 3))
    yield "minus identity", Case(family, lambda: -np.eye(60))
    yield "orthogonal", Case(family, lambda: orthogonal(60, 60))
    yield "orthonormal columns", Case(family, lambda: orthogonal(150, 50))
    shuffled = np.random.default_rng(0).permutation(60)
    yield "permutation", Case(family, lambda: np.eye(60)[shuffled])
    yield "Hadamard", Case(family, lambda: np.asarray(scipy.linalg.hadamard(64), np.float64))
    yield (
        "Hadamard, k = 9",
        Case(family, lambda: np.asarray(scipy.linalg.hadamard(128), np.float64), 9),
    )
    yield "projector", Case(family, lambda: orthogonal(60, 20) @ orthogonal(60, 20).T)
    yield "unitary", Case(family, lambda: unitary(50), dtypes=COMPLEX)
    yield "Fourier", Case(family, lambda: np.asarray(scipy.linalg.dft(50)), dtypes=COMPLEX)


def _multiple() -> Iterator[tuple[str, Case]]:
    family = "multiple values"
    for copies in range(2, 9):
        for at in range(6):
            s = [*(3.0 - 0.1 * np.arange(at)), *[1.0] * copies, *geometric(0.7, 0.9, 50)]
            yield f"{copies} copies at {at}", Case(family, spectrum(s))
    tenfold = [1.0] * 10
    yield "tenfold", Case(family, spectrum(tenfold + [0.5] * 50))
    yield "tenfold, then decay", Case(family, spectrum(tenfold + _TAIL))
    yield "tenfold, complex", Case(family, spectrum(tenfold + _TAIL, is_complex=True), 5, COMPLEX)
    yield "tenfold, k = 10", Case(family, spectrum(tenfold + _TAIL), 10)
    yield "tenfold, k = 12", Case(family, spectrum(tenfold + _TAIL), 12)
    yield "tenfold, then near", Case(family, spectrum(tenfold + geometric(0.95, 0.9, 60)))
    yield "tenfold below", Case(family, spectrum([2.0, 1.5, *tenfold, *_TAIL]))
    twice, thrice = (np.repeat(geometric(1, 0.8, 60 // times), times) for times in (2, 3))
    yield "every value twice", Case(family, spectrum(twice), 7)
    yield "every value thrice, wide", Case(family, spectrum(thrice, 60, 90), 7)


def _clusters() -> Iterator[tuple[str, Case]]:
    family = "clusters and gaps"
    end = geometric(0.5, 0.9, 50)
    wide = [*(1 - 1e-7 * np.arange(12)), *geometric(0.6, 0.9, 50)]
    yield "cluster wider than the block", Case(family, spectrum(wide))
    for gap in (1e-6, 1e-8, 1e-10, 1e-16):
        s = [*(1 - gap * np.arange(10)), *end]
        yield f"gaps of {gap:.0e}".replace("e-0", "e-"), Case(family, spectrum(s))
    yield "gaps of 1e-10, no end", Case(family, spectrum(1 - 1e-10 * np.arange(60)))
    yield "hardly any decay", Case(family, spectrum(np.linspace(1, 0.9, 60)))
    yield "Toeplitz with a jump", Case(family, lambda: jump(80), 10)


def _grading() -> Iterator[tuple[str, Case]]:
    family = "grading"
    decades = 10.0 ** -np.linspace(0, 15, 60)
    yield "15 decades", Case(family, spectrum(decades), 20)
    gaussian = np.random.default_rng(0).standard_normal((60, 60))
    yield "15 decades by rows", Case(family, lambda: decades[:, None] * gaussian, 20)
    yield "15 decades on the diagonal", Case(family, lambda: np.diag(decades), 20)
    yield "30 decades", Case(family, lambda: np.diag(10.0 ** -np.linspace(0, 30, 60)), 30)
    yield "zero rows and columns", Case(family, with_zeros)
    yield "one huge row", Case(family, lambda: one_huge_row(1e12), dtypes=("float64",))
    yield "one huge row, 1e5", Case(family, lambda: one_huge_row(1e5))
    yield "one row", Case(family, lambda: np.vstack([np.zeros((59, 50)), np.ones((1, 50))]))
    yield "all ones", Case(family, lambda: np.ones((60, 50)))


def _scales() -> Iterator[tuple[str, Case]]:
    family, double = "scale", ("float64",)
    A = spectrum(geometric(1, 0.8, 50), 60, 50)()
    for power in (-300, -200, -150, 150, 200, 300):
        make = _times(A, 10.0**power)
        yield f"scale 1e{power}", Case(family, make, dtypes=double)
    for scale in (1e-44, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 2e37):
        # The squares of these leave the range of float32; 1e-44 is denormal.
        yield f"float32 near {scale:g}", Case(family, _times(A, scale), dtypes=("float32",))
    yield "denormal", Case(family, _times(A, 1e-311), dtypes=double)
    yield "smallest number", Case(family, lambda: np.eye(60) * 5e-324, dtypes=double)
    wide = 10.0 ** np.linspace(300, -300, 60)
    yield "1e-300 beside 1e300", Case(family, lambda: np.diag(wide), dtypes=double)
    yield "rows from 1e-300 to 1e300", Case(family, lambda: mixed_scales(-300, 300), dtypes=double)
    yield (
        "float32 rows from 1e-37 to 1e37",
        Case(family, lambda: mixed_scales(-37, 37), dtypes=("float32",)),
    )


def _times(A: HostArray, factor: float) -> Maker:
    return lambda: A * factor


def _classics() -> Iterator[tuple[str, Case]]:
    family = "classics"
    yield "Hilbert", Case(family, lambda: np.asarray(scipy.linalg.hilbert(60)), 20)
    yield "Kahan", Case(family, lambda: kahan(60), 20)
    yield "Lauchli", Case(family, lambda: np.vstack([np.ones((1, 60)), 1e-8 * np.eye(60)]))
    yield "companion", Case(family, lambda: companion(60))
    yield "nearly dependent columns", Case(family, duplicated_columns, 15)
    yield "lower ones", Case(family, lambda: np.tril(np.ones((60, 60))))
    yield "1 x 1", Case(family, lambda: np.array([[-2.0]]), 1)
    yield "1 x 1 zero", Case(family, lambda: np.zeros((1, 1)), 1)
    yield "row", Case(family, lambda: np.arange(9.0)[None, :], 1)
    yield "column", Case(family, lambda: np.arange(9.0)[:, None], 1)
    yield "2 x 2 Jordan", Case(family, lambda: np.array([[1.0, 1.0], [0.0, 1.0]]), 2)


def _structure() -> Iterator[tuple[str, Case]]:
    family = "blocks and graphs"
    block = np.array([[1.0, 2], [3, 4], [5, 6]])
    yield "equal blocks", Case(family, lambda: np.kron(np.eye(20), block))
    yield (
        "equal blocks, sparse",
        Case(
            family,
            lambda: scipy.sparse.csr_array(scipy.sparse.kron(scipy.sparse.eye_array(40), block)),
        ),
    )
    yield "complete bipartite, several", Case(family, lambda: graph(*[np.ones((6, 4))] * 12))
    sizes = [np.ones((p, 9 - p)) for p in range(1, 9)] * 2
    yield "complete bipartite, of many sizes", Case(family, lambda: graph(*sizes))
    yield "equal cycles", Case(family, lambda: graph(*[cycle(12)] * 6))
    path = np.eye(8, k=1) + np.eye(8, k=-1)
    yield (
        "paths and isolated vertices",
        Case(family, lambda: graph(*[path] * 5, np.zeros((20, 20)))),
    )
    yield "many components", Case(family, lambda: laplacian([2] * 10 + [3] * 8 + [5] * 4), 9)


def _starts() -> Iterator[tuple[str, Case]]:
    """Yield starts in coordinates of a diagonal matrix; rounding does not add missing ones."""
    family = "starts that lead astray"
    s = np.asarray(geometric(1, 0.8, 50))

    def make() -> HostArray:
        return np.asarray(np.eye(60, 50) * s)

    I = np.eye(50)  # noqa: E741 - the identity
    starts = {
        "orthogonal to the answer": I[:, 20:26],
        "orthogonal to half of it": I[:, [0, 2, 9]],
        "one vector of the middle": I[:, [10]],
        "the last": I[:, 49:],
        "all but the first": I[:, 1:],
        "zeros": np.zeros((50, 3)),
        "one vector thrice": I[:, [10, 10, 10]],
    }
    for name, start in starts.items():
        yield f"start: {name}", Case(family, make, 4, start=start)
    for step in range(1, 9):
        # The Krylov space of this vector is invariant after exactly ``step`` steps.
        inside = I[:, 10 : 10 + step].sum(axis=1, keepdims=True)
        yield f"breakdown at step {step}", Case(family, make, start=inside)


def _reports() -> Iterator[tuple[str, Case]]:
    """Yield failures of peers that users reported, with matrices of our own."""
    family, both = "reported of peers", REAL
    yield (
        "0 and 1, k = 40",
        Case(family, lambda: zero_one(200, 200, 0.1), 40, both, report="CuPy 7157"),
    )
    wide = np.eye(60, 400) * (np.arange(60) < 5)[:, None]
    yield "rank 5, wide, k = 6", Case(family, lambda: wide.copy(), 6, both, report="CuPy 8009")
    yield (
        "rank 4 of 10, k = 5",
        Case(family, lambda: of_rank(4, 10, 10), 5, both, report="CuPy 5000"),
    )
    yield "identity, k = 1", Case(family, lambda: np.eye(100), 1, both, report="CuPy 6446")
    small = np.random.default_rng(0).standard_normal((4, 3))
    yield "4 x 3, k = 1", Case(family, lambda: small.copy(), 1, both, report="CuPy 9278")
    square = np.random.default_rng(0).random((40, 50))
    yield "k = min(m, n)", Case(family, lambda: square.copy(), 40, both, report="CuPy 8636")
    yield (
        "vectors of the null space",
        Case(family, lambda: laplacian([4, 3, 3]), 9, both, report="SciPy 11406"),
    )
    yield (
        "2 x 2, rank 1, k = 1",
        Case(family, lambda: np.diag([0.0, 1.0]), 1, both, report="SciPy 11406"),
    )
    yield "zero matrix, k = 1", Case(family, lambda: np.zeros((7, 5)), 1, both, report="SciPy 3719")
    top = [*(1 - 1e-5 * np.arange(30)), *geometric(0.9, 0.95, 30)]
    yield "clustered at the top", Case(family, spectrum(top), 5, both, report="irlba 19")
    yield (
        "rank 10, k = 20",
        Case(family, lambda: of_rank(10, 150, 150), 20, both, report="irlba 26"),
    )
    yield (
        "threefold, k = 3",
        Case(
            family,
            lambda: graph(*[cycle(5)] * 3, cycle(4) - np.eye(4)),
            3,
            both,
            report="KrylovKit 23",
        ),
    )
    yield "hypercube, k = 25", Case(family, lambda: hypercube(6), 25, both, report="KrylovKit 90")
    rng = np.random.default_rng(0)
    C = rng.standard_normal((60, 20)) + 1j * rng.standard_normal((60, 20))
    yield (
        "complex Gaussian",
        Case(family, lambda: C.copy(), 5, COMPLEX, report="scikit-learn 30736"),
    )


def _all() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for group in (
        _rank,
        _one_value,
        _multiple,
        _clusters,
        _grading,
        _scales,
        _classics,
        _structure,
        _starts,
        _reports,
    ):
        for name, case in group():
            if name in cases:
                raise ValueError(f"two cases have the name {name!r}; rename one")
            cases[name] = case
    return cases


CASES: Mapping[str, Case] = MappingProxyType(_all())
"""Hard cases by name."""
