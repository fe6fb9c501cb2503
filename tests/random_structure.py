"""Random structured problems, and the one question: is an answer silently wrong?

A problem is a few small numbers (a spectrum by levels and multiplicities, blocks, entries, scales,
what is zero), from which the matrix follows: hypothesis shrinks them, and with them the matrix, to
the least that fails.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from checks import METHODS
from hypothesis import strategies as st

import trsvd
from trsvd._hard_cases import Truth
from trsvd._verdict import Finding, Outcome, judge_result, judge_update

ORACLES: dict[str, dict[str, Any]] = {
    "oracle": {},
    "oracle, gap": {"gap": 1e-3},
    "oracle, certified": {"gap": 1e-3, "certify": True},
}
CAP = 3000


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a matrix is made of, and what is asked about it.

    ``made`` is ``("spectrum", ((level, multiplicity), ...), (left, right))``, the vectors random or
    coordinates; ``("entries", rows)``; or ``("blocks", rows, copies)``.
    """

    made: tuple[Any, ...]
    dtype: str
    k: int
    method: str
    tol: float | None = None
    rows_and_columns: tuple[int, int] = (0, 0)  # more of each, of zeros
    exponent: int = 0
    graded: int = 0  # decades between the first row and the last
    transposed: bool = False
    held: str = "array"
    start: tuple[int, ...] = ()
    seed: int = 0

    @functools.cached_property
    def A(self) -> np.ndarray:
        A = self._core()
        if self.graded:
            A = 10.0 ** np.linspace(0, -self.graded, len(A))[:, None] * A
        m, n = self.rows_and_columns
        A = np.pad(A, ((0, m), (0, n)))
        A = A * 2.0**self.exponent
        return (A.T if self.transposed else A).astype(self.dtype)

    def _core(self) -> np.ndarray:
        kind, given, *more = self.made
        if kind == "entries":
            return np.array(given, dtype=float)
        if kind == "blocks":
            return scipy.linalg.block_diag(*[np.array(given, dtype=float)] * more[0])
        s = np.repeat([level for level, _ in given], [copies for _, copies in given])
        rng = np.random.default_rng(self.seed)
        U, V = (self._vectors(len(s), rng, random) for random in more[0])
        return (U * s) @ V.conj().T

    def _vectors(self, size: int, rng: np.random.Generator, random: bool) -> np.ndarray:
        if not random:
            return np.eye(size)
        X = rng.standard_normal((size, size))
        if self.dtype.startswith("complex"):
            X = X + 1j * rng.standard_normal((size, size))
        return np.linalg.qr(X)[0]

    @property
    def matrix(self) -> Any:
        """The matrix as it is handed over."""
        if self.held == "sparse":
            return scipy.sparse.csr_array(self.A)
        return Products(self.A) if self.held == "products" else self.A

    def answer(self) -> Finding:
        """What trsvd's answer to it is."""
        A, k = self.A, min(self.k, *self.A.shape)
        truth = Truth.of(A)
        start = np.eye(A.shape[1])[:, [j % A.shape[1] for j in self.start]]
        begin = start.astype(self.dtype) if self.start else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", trsvd.ConvergenceWarning)
            if self.method in ORACLES:
                ball, options = trsvd.KyFanDualBall(k), ORACLES[self.method]
                update = ball.lmo(A, start=begin, rng=self.seed, **options)
                return judge_update(truth, update, update.update, k, options.get("gap"))
            result = trsvd.svds(
                self.matrix,
                k,
                method=METHODS.get(self.method),
                tol=self.tol,
                start=begin,
                rng=self.seed,
                max_matvecs=CAP,
            )
        return judge_result(truth, result, np.asarray, k, self.tol)


@dataclasses.dataclass
class Products:
    """A matrix known by its products."""

    A: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.A.shape

    @property
    def dtype(self) -> Any:
        return self.A.dtype

    def matmat(self, X: np.ndarray) -> np.ndarray:
        return self.A @ X

    def rmatmat(self, Y: np.ndarray) -> np.ndarray:
        return self.A.conj().T @ Y


LEVELS = (1.0, 0.0, 2.0, 0.5, 1 - 1e-3, 1 - 1e-6, 1 - 1e-10, 1 - 1e-14, 0.95, 1e-4, 1e-9, 1e-15)
small_entries = st.sampled_from([0.0, 1.0, -1.0, 2.0])


def matrices_of_entries(most: int) -> st.SearchStrategy:
    shapes = st.tuples(st.integers(1, most), st.integers(1, most))
    return shapes.flatmap(
        lambda shape: st.tuples(*[st.tuples(*[small_entries] * shape[1])] * shape[0])
    )


made = st.one_of(
    st.tuples(
        st.just("spectrum"),
        st.lists(st.tuples(st.sampled_from(LEVELS), st.integers(1, 8)), min_size=1, max_size=6).map(
            tuple
        ),
        st.tuples(st.booleans(), st.booleans()),
    ),
    st.tuples(st.just("entries"), matrices_of_entries(7)),
    st.tuples(st.just("blocks"), matrices_of_entries(3), st.integers(1, 9)),
)


@st.composite
def problems(draw: Any) -> Problem:
    dtype = draw(st.sampled_from(["float64", "float32", "complex128", "complex64"]))
    method = draw(st.sampled_from(["auto", *METHODS, *ORACLES]))
    wide = dtype in {"float64", "complex128"}
    far = [0, -20, 20, -60, 60, *([-500, 500, -900, 900] if wide else [])]
    iterative = method in METHODS and not method.startswith("direct")
    return Problem(
        made=draw(made),
        dtype=dtype,
        k=draw(st.integers(1, 12)),
        method=method,
        tol=draw(st.sampled_from([None, 1e-3, 1e-5, 1e-8, 0.0])) if iterative else None,
        rows_and_columns=draw(st.tuples(st.integers(0, 30), st.integers(0, 6))),
        exponent=draw(st.sampled_from(far)),
        graded=draw(st.sampled_from([0, 3, 8, 30])) if wide else 0,
        transposed=draw(st.booleans()),
        held=draw(st.sampled_from(["array", "sparse", "products"])),
        start=draw(st.lists(st.integers(0, 40), max_size=4).map(tuple)) if iterative else (),
        seed=draw(st.integers(0, 2**16)),
    )


def examine(problem: Problem) -> Outcome:
    """The outcome; AssertionError where it is silently wrong."""
    finding = problem.answer()
    assert finding.outcome not in {Outcome.WRONG, Outcome.NAN}, finding.reason
    return finding.outcome
