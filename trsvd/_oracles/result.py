"""Result of an oracle, with an update that is factored until it is needed as an array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays
from trsvd._arrays.dtypes import dtype_name, split_power
from trsvd._errors import Status
from trsvd._solve.result import Subspace


@dataclass(frozen=True, eq=False)
class LowRankTerm:
    """Term ``scale * U @ Vh``, with factors in the compute dtype.

    Entries of ``U @ Vh`` are at most of order 1.
    """

    scale: float
    U: Array
    Vh: Array
    arrays: Arrays

    def __repr__(self) -> str:
        return (
            f"{self.scale:.3g} * LowRankTerm(U: {tuple(self.U.shape)}, Vh: {tuple(self.Vh.shape)})"
        )

    def times(self, factor: float) -> LowRankTerm:
        """Return the term times a number."""
        return replace(self, scale=self.scale * factor)

    def unscaled(self) -> tuple[Array, Arrays]:
        """Return the term without its scale in the compute dtype, and its `Arrays`."""
        with self.arrays.as_asked():
            return self.arrays.wide_product(self.U, self.Vh), self.arrays

    def scaled(self) -> tuple[Array, Arrays]:
        """Return the term with its scale, which multiplies a factor, and its `Arrays`."""
        return replace(self, U=self.U * self.scale).unscaled()

    def dense(self) -> Array:
        """Return the term as an array."""
        return _sum_of((self,))


@dataclass(frozen=True, eq=False)
class DenseTerm:
    """Term ``scale * form()`` of the size of G, formed when it is needed.

    Entries of ``form()`` are at most of order 1, in the dtype of G or of ``arrays``.
    """

    scale: float
    form: Callable[[], Array]
    arrays: Arrays | None = None

    def __repr__(self) -> str:
        return f"{self.scale:.3g} * DenseTerm()"

    def times(self, factor: float) -> DenseTerm:
        """Return the term times a number."""
        return replace(self, scale=self.scale * factor)

    def unscaled(self) -> tuple[Array, Arrays]:
        """Return the term without its scale in the compute dtype, and its `Arrays`."""
        X = self.form()
        arrays = self.arrays or Arrays.of_array(X)
        return arrays.like(X), arrays

    def scaled(self) -> tuple[Array, Arrays]:
        """Return the term with its scale, and its `Arrays`."""
        X, arrays = self.unscaled()
        return X * self.scale, arrays

    def __reduce__(self) -> tuple[Any, ...]:
        # The array can be pickled, if not the function that forms it.
        return DenseTerm, (self.scale, _Formed(self.form()), self.arrays)


@dataclass(frozen=True, eq=False)
class _Formed:
    """Function that returns a given array."""

    X: Array

    def __call__(self) -> Array:
        return self.X


@dataclass(frozen=True, eq=False)
class LMOResult:
    """Minimizer D of ``<G, X>`` over a ball, with its gap to the minimum.

    Attributes
    ----------
    terms : tuple of LowRankTerm or DenseTerm
        D is their sum. A term of rank k has k (m + n) numbers.
    support : float
        Attained value ``-<G, D>``. The support function lies between ``support`` and
        ``support / (1 - gap)``.
    gap : float
        Relative gap ``(support(G) + <G, D>) / support(G)``. For a regularized update, the relative
        distance of its objective from the minimum; see `regularized_update`.
    gap_kind : str
        ``"exact"``: the full spectrum was computed, and the gap is the rounding error.
        ``"bound"``: an inequality that always holds.
        ``"probable"``: an inequality that holds except with `failure_probability`.
        ``"estimate"``: an estimate from Ritz values, their growth, or residuals.
    subspace : Subspace or None
        Start for the next matrix, for ``start=``.
    matvecs, passes : int
        Products with G or G^H, counted in vectors and in blocks.
    status : Status
        Reason for the end of the computation.
    failure_probability : float
        Probability over the random numbers that a probable gap does not hold; otherwise 0.

    See Also
    --------
    trsvd.balls.Ball, Subspace

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> G = np.diag([3.0, 2.0, 1.0])
    >>> result = trsvd.KyFanDualBall(2).lmo(G)
    >>> round(result.support, 6), result.gap_kind, len(result.terms)
    (5.0, 'exact', 1)
    """

    terms: tuple[LowRankTerm | DenseTerm, ...]
    support: float
    gap: float
    gap_kind: str
    subspace: Subspace | None
    matvecs: int
    passes: int
    status: Status
    failure_probability: float = 0.0

    def __repr__(self) -> str:
        return (
            f"LMOResult({' + '.join(map(repr, self.terms))}, {self.status.name}, "
            f"support {self.support:.6g}, gap {self.gap:.1e} ({self.gap_kind}), "
            f"{self.matvecs} matvecs)"
        )

    @cached_property
    def update(self) -> Array:
        """Return D as an array of shape (m, n), in the dtype, namespace and device of G."""
        return _sum_of(self.terms)

    @property
    def factors(self) -> tuple[Array, Array] | None:
        """Return ``(U, Vh)`` with ``D = U @ Vh`` if D has low rank; None otherwise."""
        if len(self.terms) != 1 or not isinstance(self.terms[0], LowRankTerm):
            return None
        term: Any = self.terms[0]
        _, exponent = math.frexp(term.scale)
        if abs(exponent) < _ORDINARY:
            return term.U * term.scale, term.Vh
        # The scale is divided between both factors, so that neither overflows.
        if exponent > 2 * math.frexp(float(term.arrays.xp.finfo(term.arrays.dtype).max))[1] - 4:
            raise ValueError(_out_of_range(abs(term.scale), term.arrays.dtype_name))
        left, right = split_power(exponent)
        return term.U * (term.scale / left / right) * left, term.Vh * right

    def times(self, factor: float) -> LMOResult:
        """Return the result for ``factor`` times the ball."""
        terms = tuple(term.times(factor) for term in self.terms)
        return replace(self, terms=terms, support=self.support * factor)

    @staticmethod
    def stacked(results: list[LMOResult]) -> Array:
        """Return the updates of matrices of one shape as one array of shape (b, m, n)."""
        rows = [result.terms for result in results]
        first = rows[0][0]
        if not isinstance(first, LowRankTerm) or any(_may_overflow(terms) for terms in rows):
            return _stack([result.update for result in results])
        parts = [_stacked(list(terms)) for terms in zip(*rows, strict=True)]
        return first.arrays.hand_out(sum(parts[1:], start=parts[0]))

    @staticmethod
    def total(parts: list[LMOResult]) -> LMOResult:
        """Return the result for the Minkowski sum of the balls."""
        if len(parts) == 1:
            return parts[0]
        support = sum(part.support for part in parts)
        kinds = ["exact", "bound", "probable", "estimate"]
        spectral = [part.subspace for part in parts if part.subspace is not None]
        failed = [part.status for part in parts if not part.status.converged]
        return LMOResult(
            terms=tuple(term for part in parts for term in part.terms),
            support=support,
            gap=_gap_of_sum(parts),
            gap_kind=max((part.gap_kind for part in parts), key=kinds.index),
            subspace=spectral[0] if spectral else None,
            matvecs=sum(part.matvecs for part in parts),
            passes=sum(part.passes for part in parts),
            status=failed[0] if failed else Status.CONVERGED,
            failure_probability=min(1.0, sum(part.failure_probability for part in parts)),
        )


def as_start(start: Any) -> Any:
    """Convert a warm start for the solvers: an oracle's result becomes its subspace."""
    return start.subspace if isinstance(start, LMOResult) else start


def _gap_of_sum(parts: list[LMOResult]) -> float:
    """Return the mean of the gaps, weighted by upper bounds of the support functions."""
    gaps = [part.gap for part in parts]
    if max(gaps) >= 1:
        return max(gaps)
    uppers = [part.support / (1 - part.gap) for part in parts]
    total = sum(uppers)
    if not math.isfinite(total):
        return max(gaps)
    # (A mean is at most the largest value; rounding errors can exceed it.)
    return min(1 - sum(part.support for part in parts) / total, max(gaps)) if total else 0.0


# Exponents of scales below this are in the range of every dtype of at least single precision.
_ORDINARY = 100


def _may_overflow(terms: Sequence[LowRankTerm | DenseTerm]) -> bool:
    """True if the sum of the terms may overflow in the user's dtype."""
    arrays = next((term.arrays for term in terms if term.arrays is not None), None)
    if arrays is None:  # half precision at worst
        return _exponent(terms) > 14
    return _exponent(terms) > math.frexp(float(arrays.xp.finfo(arrays.out_dtype).max))[1] - 2


def _exponent(terms: Sequence[LowRankTerm | DenseTerm]) -> int:
    """Return the exponent of a power of two that bounds the sum of the terms."""
    largest = max(abs(term.scale) for term in terms)
    if not math.isfinite(largest):
        raise ValueError(_out_of_range(largest, "float64"))
    return math.frexp(largest)[1] + len(terms).bit_length()


def _sum_of(terms: Sequence[LowRankTerm | DenseTerm]) -> Array:
    """Return the sum of terms in the dtype of G; ValueError if it is out of range."""
    total: Array = None
    if not _may_overflow(terms):
        for term in terms:
            X, arrays = term.scaled()
            total = X if total is None else total + X
        return arrays.hand_out(total)
    # In double precision, scaled so that the sum of the terms does not overflow.
    halvings = len(terms).bit_length()
    for term in terms:
        X, arrays = term.unscaled()
        X = arrays.in_double.take(X) * math.ldexp(term.scale, -halvings)
        total = X if total is None else total + X
    with np.errstate(over="ignore"):  # looked at next
        D = arrays.hand_out(total * 2.0**halvings)
    if not math.isfinite(arrays.max_abs(D)):
        size = arrays.in_double.max_abs(total) * 2.0**halvings
        raise ValueError(_out_of_range(size, dtype_name(arrays.out_dtype)))
    return D


def _out_of_range(size: float, dtype: str) -> str:
    return (
        f"the update has entries up to {size:.3g}, beyond the range of {dtype}; use a wider dtype, "
        "a larger lam or a smaller radius"
    )


def _stacked(terms: list[LowRankTerm | DenseTerm]) -> Array:
    """Return corresponding terms of many results as one array, by a batched product if possible."""
    low = [term for term in terms if isinstance(term, LowRankTerm)]
    if len(low) < len(terms) or len({tuple(term.U.shape) for term in low}) > 1:
        return _stack([term.scaled()[0] for term in terms])
    with low[0].arrays.as_asked():
        return _stack([term.U * term.scale for term in low]) @ _stack([term.Vh for term in low])


def _stack(parts: list[Array]) -> Array:
    return Arrays.of_array(parts[0]).xp.stack(parts)
