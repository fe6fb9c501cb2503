"""What an oracle returns: an update that stays factored until it is needed dense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trsvd._arrays import Array, Arrays
from trsvd._errors import Status
from trsvd._kinds import dtype_name
from trsvd.result import Subspace

__all__ = ["DenseTerm", "LMOResult", "LowRankTerm"]


@dataclass(frozen=True)
class LowRankTerm:
    """``scale * U @ Vh``, the factors in the dtype that G is computed in."""

    scale: float
    U: Array
    Vh: Array
    arrays: Arrays

    def times(self, factor: float) -> LowRankTerm:
        """The same, multiplied by a number."""
        return replace(self, scale=self.scale * factor)

    def dense(self) -> Array:
        """As an array."""
        return self.arrays.hand_out(_scaled(self.U @ self.Vh, self.scale))


@dataclass(frozen=True)
class DenseTerm:
    """``scale * form()``: an update that is as large as G, formed when asked for."""

    scale: float
    form: Callable[[], Array]

    def times(self, factor: float) -> DenseTerm:
        """The same, multiplied by a number."""
        return replace(self, scale=self.scale * factor)

    def dense(self) -> Array:
        """As an array."""
        return _scaled(self.form(), self.scale)


@dataclass(frozen=True)
class LMOResult:
    """A minimizer D of ``<G, X>`` over a ball, and how far from the minimum it is.

    Attributes
    ----------
    terms : tuple of LowRankTerm or DenseTerm
        D is their sum. A rank-k term is k (m + n) numbers.
    support : float
        ``-<G, D>``: what D attains of the support function, which lies between ``support`` and
        ``support / (1 - gap)``.
    gap : float
        ``(support(G) + <G, D>) / support(G)``, relative.
    gap_kind : str
        ``"exact"``: the spectrum that it needs was computed in full (and the gap is what rounding
        leaves). ``"bound"``: an inequality that always holds. ``"probable"``: one that holds but
        with ``failure_probability``. ``"estimate"``: from Ritz values and their trend, or from
        residuals.
    subspace : Subspace or None
        To hand back as ``start=`` for the next matrix.
    matvecs, passes : int
        Products with G or G^H, counted in vectors and in blocks.
    status : Status
        How the computation ended.
    failure_probability : float
        Probability, over the random numbers drawn, that a probable gap does not hold; else 0.
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

    @cached_property
    def update(self) -> Array:
        """D as an array of shape (m, n), in G's dtype, namespace and device."""
        total = self.terms[0].dense()
        for term in self.terms[1:]:
            total = total + term.dense()
        return total

    @property
    def factors(self) -> tuple[Array, Array] | None:
        """``(U, Vh)`` with ``D = U @ Vh`` where D has low rank; None where it has not."""
        if len(self.terms) != 1 or not isinstance(self.terms[0], LowRankTerm):
            return None
        term: Any = self.terms[0]
        return term.U * term.scale, term.Vh

    def times(self, factor: float) -> LMOResult:
        """The result for the ball ``factor`` times as large."""
        terms = tuple(term.times(factor) for term in self.terms)
        return replace(self, terms=terms, support=self.support * factor)

    @staticmethod
    def stacked(results: list[LMOResult]) -> Array:
        """The updates of many matrices of one shape, in one array of shape (b, m, n)."""
        total = None
        for terms in zip(*[result.terms for result in results], strict=True):
            part = _stacked(list(terms))
            total = part if total is None else total + part
        return total

    @staticmethod
    def total(parts: list[LMOResult]) -> LMOResult:
        """The result for the Minkowski sum of the balls."""
        support = sum(part.support for part in parts)
        # support_i / (1 - gap_i) is what the support function of a part can be at most.
        upper = sum(part.support / (1 - part.gap) for part in parts)
        kinds = ["exact", "bound", "probable", "estimate"]
        spectral = [part.subspace for part in parts if part.subspace is not None]
        failed = [part.status for part in parts if not part.status.converged]
        return LMOResult(
            terms=tuple(term for part in parts for term in part.terms),
            support=support,
            gap=1 - support / upper if upper else 0.0,
            gap_kind=max((part.gap_kind for part in parts), key=kinds.index),
            subspace=spectral[0] if spectral else None,
            matvecs=sum(part.matvecs for part in parts),
            passes=sum(part.passes for part in parts),
            status=failed[0] if failed else Status.CONVERGED,
            failure_probability=min(1.0, sum(part.failure_probability for part in parts)),
        )


def _scaled(X: Array, scale: float) -> Array:
    """``scale * X``, for X with entries of at most about 1; ValueError if that leaves the range."""
    largest = float(Arrays.of_array(X).xp.finfo(X.dtype).max)
    if not abs(scale) <= largest:
        msg = (
            f"the update is {scale:.3g} times one with entries of order 1, which exceeds the range "
            f"of {dtype_name(X.dtype)} ({largest:.3g}); use a wider dtype, a larger lam or a "
            "smaller radius"
        )
        raise ValueError(msg)
    return X * scale


def _stacked(terms: list[LowRankTerm | DenseTerm]) -> Array:
    """Terms in the same place of many results, in one array; by one batched product if they may."""
    low = [term for term in terms if isinstance(term, LowRankTerm)]
    arrays = low[0].arrays if low else None
    if arrays is None or len(low) < len(terms) or len({tuple(term.U.shape) for term in low}) > 1:
        parts = [term.dense() for term in terms]
        return Arrays.of_array(parts[0]).xp.stack(parts)
    xp = arrays.xp
    product = xp.stack([_scaled(term.U, term.scale) for term in low]) @ xp.stack(
        [term.Vh for term in low]
    )
    return arrays.hand_out(product)
