"""Random structured problems, and the one question: is an answer silently wrong?

A problem is a few small numbers (the description of a matrix, scales, what is zero, what is asked),
from which the matrix follows: hypothesis shrinks them, and with them the matrix, to the least that
fails.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from checks import METHODS
from hypothesis import strategies as st
from judges import BALLS, OF_ENTRIES, judge_above, judge_ball, judge_energy, judge_norm
from structured_matrices import KINDS, made_by

import trsvd
from reliability.cases import Truth
from reliability.judge import Finding, Outcome, judge_result

CAP = 3000
NORMS: dict[str, Callable[[Any, int], float]] = {
    "kyfan": trsvd.kyfan_norm,
    "kyfan_dual": trsvd.kyfan_dual_norm,
    "spectral": lambda X, k: trsvd.spectral_norm(X),
    "nuclear": lambda X, k: trsvd.nuclear_norm(X),
    "rms": lambda X, k: trsvd.rms_norm(X),
    "schatten 3": lambda X, k: trsvd.SchattenBall(3.0).gauge(X),
    "frobenius": lambda X, k: trsvd.frobenius_norm(X),
    "max": lambda X, k: trsvd.max_norm(X),
    "max_column": lambda X, k: trsvd.max_column_norm(X),
    "max_row": lambda X, k: trsvd.max_row_norm(X),
}
POLAR: dict[str, Any] = {
    "svd": "svd",
    "gram": "gram",
    "newton-schulz": trsvd.NewtonSchulz(),
    "polar-express": trsvd.PolarExpress(),
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a matrix is made of, and what is asked about it.

    ``made`` is a description of `structured_matrices`. ``stop`` is what is asked: ``("leading",)``,
    k triplets; ``("above", level, share, rule, max_k)``, all values above a threshold; ``("energy",
    error, max_k)``, the fewest triplets that leave a relative error; ``("oracle", ball, gap,
    certify)``, an update; or ``("norm", name)``, a number.
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
    stop: tuple[Any, ...] = ("leading",)
    shuffled: bool = False
    verify: bool | float | str = True

    @functools.cached_property
    def A(self) -> np.ndarray:
        A = made_by(self.made, self.seed, self.dtype)
        if self.graded:
            A = 10.0 ** np.linspace(0, -self.graded, len(A))[:, None] * A
        m, n = self.rows_and_columns
        A = np.pad(A, ((0, m), (0, n)))
        if self.shuffled:
            rng = np.random.default_rng(self.seed)
            A = A[rng.permutation(len(A))][:, rng.permutation(A.shape[1])]
        A = A * 2.0**self.exponent
        return np.ascontiguousarray(A.T if self.transposed else A).astype(self.dtype)

    @property
    def matrix(self) -> Any:
        """The matrix as it is handed over."""
        if self.held.startswith("cs"):
            return {"csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array}[self.held](self.A)
        if self.held == "products":
            return Products(self.A)
        return NormedProducts(self.A) if self.held == "normed products" else self.A

    def answer(self) -> Finding:
        """What trsvd's answer to it is; a wrong one where it warns of nothing but convergence."""
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            finding, converged = getattr(self, f"_{self.stop[0]}")(*self.stop[1:])
        strange = [w for w in record if not issubclass(w.category, trsvd.ConvergenceWarning)]
        if strange:
            return Finding(Outcome.WRONG, f"{strange[0].category.__name__}: {strange[0].message}")
        if converged is None:  # a bare number
            return Finding(Outcome.SAYS, "warns") if record else finding
        if bool(record) == converged:
            said = "warns" if record else "does not warn"
            return Finding(Outcome.WRONG, f"{said}, converged is {converged}")
        return finding

    def _leading(self) -> tuple[Finding, bool]:
        truth, k = Truth.of(self.A), min(self.k, *self.A.shape)
        result = trsvd.svds(self.matrix, k, **self._options())
        return judge_result(truth, result, np.asarray, k, self.tol), result.converged

    def _above(
        self, level: int, share: float, rule: str, max_k: int | None
    ) -> tuple[Finding, bool]:
        truth, limit = Truth.of(self.A), min(self.A.shape)
        t = _between(truth.values, level, share)
        wanted = {
            "number": lambda S: t < S,
            "callable": lambda S: t < S,
            "relative": lambda S: (t / (truth.values[0] or 1.0)) * S[:1] < S,
            "sum": lambda S: np.cumsum(S / (truth.values[0] or 1.0)) < level + share,
            "so many": lambda S: np.arange(len(S)) < level,
        }[rule]
        limit = limit if max_k is None else min(max_k, limit)
        given = t if rule == "number" else wanted
        result = trsvd.svds_above(self.matrix, given, max_k=limit, **self._options())
        return judge_above(truth, result, wanted, self.tol, limit), result.converged

    def _energy(self, error: float, max_k: int | None) -> tuple[Finding, bool]:
        truth, limit = Truth.of(self.A), min(self.A.shape)
        limit = limit if max_k is None else min(max_k, limit)
        try:
            result = trsvd.svds_to_tolerance(self.matrix, error, max_k=limit, **self._options())
        except ValueError as refused:
            if "has no digits left" in str(refused) or "is not known" in str(refused):
                return Finding(Outcome.SAYS, "refused"), True
            raise
        return judge_energy(truth, result, error, self.tol, limit), result.converged

    def _oracle(self, ball: str, gap: float | None, certify: bool | str) -> tuple[Finding, bool]:
        name, _, method = ball.partition(", ")
        options = {"method": POLAR[method]} if method else {}
        result = BALLS[name][0](self.k).lmo(
            self.A if name in OF_ENTRIES or method else self.matrix,
            gap=gap,
            certify=certify,
            start=self._start() if name == "ky-fan-dual" else None,
            rng=self.seed,
            **options,
        )
        finding = judge_ball(Truth.of(self.A), result, name, self.k, gap)
        return finding, result.status.converged

    def _norm(self, name: str) -> tuple[Finding, None]:
        held = self.A if name in {"frobenius", "max", "max_column", "max_row"} else self.matrix
        value = NORMS[name](held, self.k)
        return judge_norm(Truth.of(self.A), name, value, self.k, self.A.dtype), None

    def _options(self) -> dict[str, Any]:
        return {
            "method": METHODS.get(self.method),
            "tol": self.tol,
            "start": self._start(),
            "rng": self.seed,
            # Without a method, a cap or a callback the library may go over to a factorization.
            "max_matvecs": None if self.method == "auto" else CAP,
            "verify": self.verify,
        }

    def _start(self) -> np.ndarray | None:
        if not self.start:
            return None
        n = self.A.shape[1]
        return np.eye(n)[:, [j % n for j in self.start]].astype(self.dtype)


def _between(values: np.ndarray, level: int, share: float) -> float:
    """A number between two neighbouring distinct values; above all for level 0."""
    apart = np.append(True, values[1:] < values[:-1] * (1 - 1e-6)) & (values > 0)
    distinct = np.concatenate([[2 * values[0]], values[apart], [0.0]])
    level = min(level, len(distinct) - 2)
    return float(share * distinct[level] + (1 - share) * distinct[level + 1])


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


class NormedProducts(Products):
    """A matrix known by its products, with its Frobenius norm."""

    def frobenius_norm(self) -> float:
        _, exponent = math.frexp(float(np.abs(self.A).max(initial=0.0)))
        wide = self.A.astype(np.promote_types(self.A.dtype, np.float64))
        half = -exponent // 2
        scaled = wide * 2.0**half * 2.0 ** (-exponent - half)
        return math.ldexp(float(np.linalg.norm(scaled)), exponent)


# ---- strategies ------------------------------------------------------------------------------

shares = st.sampled_from([0.5, 0.1, 0.9, 0.01, 0.99])
most = st.one_of(st.none(), st.integers(1, 3), st.integers(1, 80))
gaps = st.sampled_from([None, 1e-3, 0.5, 0.1, 1e-2, 1e-4, 1e-6])
balls = st.sampled_from(
    [
        "ky-fan-dual",
        *BALLS,
        *[f"{ball}, {method}" for ball in ("spectral", "rms") for method in POLAR],
    ]
)
leading = st.just(("leading",))
stops = st.one_of(
    leading,
    leading,
    leading,
    st.tuples(
        st.just("above"),
        st.integers(0, 12),
        shares,
        st.sampled_from(["number", "callable", "relative", "sum", "so many"]),
        most,
    ),
    st.tuples(
        st.just("energy"), st.sampled_from([0.5, 0.9, 0.3, 0.1, 0.03, 1e-2, 1e-3, 1e-5]), most
    ),
    st.tuples(st.just("oracle"), balls, gaps, st.sampled_from([False, True, "probable"])),
    st.tuples(st.just("norm"), st.sampled_from(list(NORMS))),
)


@st.composite
def problems(draw: Any, kind: str = "few-levels") -> Problem:
    """Problems with matrices of a kind."""
    dtype = draw(st.sampled_from(["float64", "float32", "complex128", "complex64"]))
    method = draw(st.sampled_from(["auto", *METHODS, "auto", "trlan", "krylov"]))
    wide = dtype in {"float64", "complex128"}
    iterative = method in METHODS and not method.startswith("direct")
    far = [0, -20, 20, -60, 60, *([-500, 500, -900, 900] if wide else [])]
    tols = [None, 1e-3, 1e-5, 1e-8, 0.0]
    few = kind == "few-levels"
    if not few:  # structure is what these are about: what else is unusual is rarer
        far = [*[0] * len(far), *far] if kind != "denormals" else [0]
        tols = [None, None, None, 0.1, 1e-2, 1e-3, 1e-5]
    starts = st.lists(st.integers(0, 40), max_size=4).map(tuple)
    if not few:
        starts = st.one_of(st.just(()), st.just(()), st.just(()), starts)
    many = st.integers(1, 12)
    return Problem(
        made=draw(KINDS[kind]),
        dtype=dtype,
        k=draw(many if few else st.one_of(many, many, st.integers(1, 80), st.just(999))),
        method=method,
        tol=draw(st.sampled_from(tols)) if iterative or not few else None,
        rows_and_columns=draw(st.tuples(st.integers(0, 30), st.integers(0, 6))),
        exponent=draw(st.sampled_from(far)),
        graded=draw(st.sampled_from([0, 3, 8, 30])) if wide and few else 0,
        transposed=draw(st.booleans()),
        held=draw(st.sampled_from(["array", "csr", "csc", "products", "normed products"])),
        start=draw(starts) if iterative else (),
        seed=draw(st.integers(0, 2**16)),
        stop=draw(stops),
        shuffled=draw(st.booleans()),
        verify=draw(st.sampled_from([True, True, True, True, 0.1, "exact"])),
    )


def examine(problem: Problem) -> Outcome:
    """The outcome; AssertionError where it is silently wrong."""
    finding = problem.answer()
    assert finding.outcome not in {Outcome.WRONG, Outcome.NAN}, finding.reason
    return finding.outcome
