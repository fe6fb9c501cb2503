"""Conversion of a user's matrix for the methods, and of their triplets for the user."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, HostArray, is_array
from trsvd._arrays.dtypes import describe, is_numeric, split_power
from trsvd._plan.precision import are_moderate
from trsvd._solve.result import Subspace, SVDResult
from trsvd._solve.select import general_method, named_method
from trsvd._validate import check_rng, is_seed
from trsvd.methods import Method, Run
from trsvd.operators import AdjointOperator, as_operator
from trsvd.operators.base import MatrixOperator
from trsvd.operators.counting import Metered
from trsvd.operators.probe import Probed, probe


@dataclass(frozen=True, repr=False)
class State:
    """State of a run; pass it as ``state=`` with the same matrix to resume."""

    run: Run | None  # None: a run begins with the subspace
    method: Method
    shape: tuple[int, int]
    arrays: Arrays
    scale_exponent: int
    subspace: Subspace | None = None

    def __repr__(self) -> str:
        m, n = self.shape
        step = "triplets" if self.run is None else f"iteration {self.run.iterations}"
        step = f"{step} of {self.method}"
        return f"State({m} x {n}, {self.arrays.dtype_name}, {step})"


def check_start(start: Any, arrays: Arrays | None) -> None:
    """Raise TypeError unless a start is an array of vectors, real if the matrix is real.

    Parameters
    ----------
    start : Subspace, SVDResult or array
        Right vectors, or an object with right vectors.
    arrays : Arrays, optional
        Array library and dtype of the matrix. None: only the type of the start is checked.
    """
    vectors = start.Vh if isinstance(start, (SVDResult, Subspace)) else start
    masked = isinstance(vectors, np.ma.MaskedArray)
    if masked or not (is_array(vectors) and is_numeric(admitted(vectors).dtype)):
        raise TypeError(
            f"start is {describe(start)}; pass an array of shape (n, p), a Subspace or a result"
        )
    if arrays is not None and arrays.would_lose_imaginary(vectors):
        raise TypeError(
            f"start is complex and the matrix is real ({arrays.dtype_name}); real right vectors "
            "belong to a real matrix: pass the real part"
        )


def size_of_start(arrays: Arrays, block: Array) -> float:
    """Return the largest modulus of an entry; ValueError unless all entries are finite."""
    size = arrays.max_abs(block)
    if not math.isfinite(size):
        raise ValueError("start contains NaN or inf; pass finite vectors, or start=None")
    return size


def _probed(op: MatrixOperator, rng: np.random.Generator) -> Probed:
    """Probe an operator; with longer vectors too if products with unit vectors are denormal.

    Denormal numbers have few digits, and a product with a unit vector can round to zero.
    """
    probed = probe(op, rng)
    finfo = np.finfo(op.arrays.host_dtype)
    if max(probed.size, probed.rounding) >= float(finfo.tiny) / float(finfo.eps):
        return probed
    exponent = -int(finfo.minexp) + int(finfo.nmant)
    raised = Metered(op, None)
    raised.set_scale(exponent)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            again = probe(raised, rng)
    except ValueError:  # large parts cancel
        return probed
    return Probed(
        size=math.ldexp(again.size, -exponent),
        rounding=math.ldexp(again.rounding, -exponent),
        noise=math.ldexp(again.noise, -exponent),
        matvecs=probed.matvecs + again.matvecs,
    )


class Problem:
    """A user's matrix for the methods: tall or square, scaled, and with counted products."""

    def __init__(self, A: Any, rng: Any, state: Any, *, in_compute_dtype: bool = False) -> None:
        self.user_op = as_operator(A)
        self.rng_given = rng is not None
        self._seed: int | None = rng if is_seed(rng) else None
        if self.rng_given and self._seed is None:
            self.rng = check_rng(rng)
        self.arrays = self.user_op.arrays
        self.in_compute_dtype = in_compute_dtype
        if in_compute_dtype:  # results are not rounded to half precision
            self.arrays = self.arrays.keeping
        self.eps = self.arrays.eps
        self.shape = self.user_op.shape
        self.flipped = self.shape[0] < self.shape[1]
        self.rank = min(self.shape)
        op = AdjointOperator(self.user_op) if self.flipped else self.user_op
        norm = op.rough_norm()
        entries = self.shape[0] * self.shape[1]
        if norm is None or not are_moderate(norm, entries):
            norm, size = None, op.max_abs()
        else:
            size = norm / math.sqrt(entries)
        probed = None
        if size is None:
            probed = _probed(op, self.rng)
            size = probed.size
        elif not math.isfinite(size):
            raise ValueError(
                f"the matrix contains NaN or inf (its largest entry is {size}), and such a matrix "
                "has no SVD; find where they come from, remove or replace them"
            )
        self.op = Metered(op, size)
        self.op.norm_hint = norm
        if probed is not None:
            self.op.matvecs_verify = probed.matvecs
            self.op.rounding = math.ldexp(probed.rounding, self.op.scale_exponent)
            self.op.noise = math.ldexp(probed.noise, self.op.scale_exponent)
        self.state = self._checked_state(state)

    @cached_property
    def rng(self) -> np.random.Generator:
        """Generator of the random numbers; created at its first use."""
        return np.random.default_rng(self._seed)

    def _checked_state(self, state: Any) -> State | None:
        if state is None:
            return None
        if isinstance(state, SVDResult):
            state = state.state
        if not isinstance(state, State):
            raise TypeError(
                f"state is a {type(state).__name__}; pass result.state of an earlier call"
            )
        if state.shape != self.shape or not state.arrays.same_kind(self.arrays):
            raise ValueError(
                f"state belongs to a matrix of shape {state.shape} in {state.arrays}, A has "
                f"shape {self.shape} in {self.arrays}; state= continues with the same "
                "matrix, start= begins near an earlier result with another"
            )
        if state.run is not None:
            self.op.set_scale(state.scale_exponent)
        return state

    @property
    def unit(self) -> float:
        """Factor from singular values of the scaled operator to those of A."""
        return math.ldexp(1.0, -self.op.scale_exponent)

    def method_for(
        self, method: str | Method | None, k: int, tol: float, max_matvecs: int | None
    ) -> Method:
        """Return the method of the state, the given method, or else a chosen one."""
        if self.state is not None:
            if method is not None and named_method(method) != self.state.method:
                raise ValueError(
                    f"state was made by {self.state.method}; it cannot continue with "
                    f"{named_method(method)}: leave method out, or begin a run with start=result"
                )
            return self.state.method
        if method is None:
            return general_method(self.user_op, k, tol, max_matvecs=max_matvecs).method
        return named_method(method)

    def hand_out(self, triplets: tuple[Array, HostArray, Array]) -> tuple[Array, Array, Array]:
        """Return U, S and Vh of A in the user's dtype, with fixed phases.

        If vectors stay in the compute dtype, S stays in double precision on the host, as scaled by
        the operator. Multiplied by `unit`, large values may overflow, and small ones underflow.
        """
        arrays = self.arrays
        U, S, V = triplets
        if self.flipped:
            U, V = V, U
        if len(S):
            U, V = arrays.fix_phases(U, V)
        values: Array = S
        if not self.in_compute_dtype:
            if self.op.scale_exponent:
                with np.errstate(over="ignore"):  # checked next
                    S = np.ldexp(S, -self.op.scale_exponent)
            values = arrays.hand_out_values(S)
        return arrays.hand_out(U), values, arrays.hand_out(arrays.adjoint(V))

    def start_block(self, start: Any) -> tuple[Array, bool] | None:
        """Return start vectors for the operator of the methods; None if there are none.

        The flag is True for left vectors: right vectors of a wide A, which the methods transpose.
        """
        arrays, (m, n) = self.arrays, self.shape
        check_start(start, arrays)
        if isinstance(start, (SVDResult, Subspace)):
            rows = start.U if self.flipped else arrays.adjoint(arrays.take(start.Vh))
            block = arrays.take(rows)
            if (start.U.shape[0], start.Vh.shape[1]) != (m, n):
                raise ValueError(
                    f"start is a result for shape {(start.U.shape[0], start.Vh.shape[1])}, A has "
                    f"shape {(m, n)}; a warm start needs the same shape"
                )
            if block.shape[1] == 0:
                return None
        else:
            if start.ndim not in {1, 2} or start.shape[0] != n or 0 in tuple(start.shape):
                raise ValueError(
                    f"start has shape {tuple(start.shape)}; right vectors for A of shape {(m, n)} "
                    f"have shape ({n}, p), or ({n},) for one"
                )
            block = arrays.take(start if start.ndim == 2 else start[:, None])
        size = size_of_start(arrays, block)
        if size:
            before, after = split_power(-math.frexp(size)[1])
            block = block * before * after
        width = min(self.rank, int(block.shape[1]))
        return block[:, :width], self.flipped and is_array(start)

    def right_block(self, block: Array, cap: int) -> Array:
        """Return right vectors for left ones, by a product that counts for the limit."""
        width = int(block.shape[1])
        if width > cap:
            raise ValueError(
                f"max_matvecs={cap} is too small: a start of {width} right vectors takes as "
                "many products to begin with on a matrix with more columns than rows"
            )
        return self.op.rmatmat(block)
