"""Checks of an operator by a few products.

Products with blocks are compared with products with single vectors, and products with A with
products with its adjoint. They may differ by rounding errors. These come from the dtype, from parts
of a sum that cancel, and from an operator that computes in a lower precision or cancels inside. The
last kind is measured, as the difference of ``A (x + y)`` and ``A x + A y``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trsvd._errors import AdjointError

if TYPE_CHECKING:
    from trsvd._arrays.arrays import Array, Arrays
    from trsvd.operators.base import MatrixOperator


# Largest difference of two ways to compute a product that rounding errors of the dtype explain, in
# rounding units of the product or of its parts.
_UNITS = 100
# The bound of the rounding errors is 10 times the largest error measured, and sqrt(n / 10) times
# that for vectors of n entries: errors of random vectors are smaller than those of aligned ones.
_MEASURED, _RANDOM = 10, 10
# If A (x + y) differs from A x + A y by more than this share of A x, linearity is tested.
_LINEAR = 1e-2
# Coefficients (a, b) of the sums a x + b y for which linearity is measured.
_PAIRS = ((0.7, 0.4), (-0.3, 0.9), (0.6, -1.1), (1.3, 0.8))
# Steps from a vector to its neighbours. Several are tried, since some do not change a product that
# consists of rounding errors.
_NEIGHBOURS = (1.0, -1.0, 0.5, -0.5, 0.75, -0.75, 0.625, -0.625)
# See `trsvd.operators.products._Products.way`.
_WAYS = ("both", "columns", "blocks")


@dataclass(frozen=True)
class Probed:
    """Findings of `probe`.

    Attributes
    ----------
    size : float
        Largest entry of ``A x`` in modulus, for two random unit vectors x.
    rounding : float
        Bound of the rounding errors in a product with a unit vector, from the products and the
        known parts of the operator.
    noise : float
        Usual size of those errors, for a random unit vector.
    matvecs : int
        Number of products, counted in vectors.
    """

    size: float
    rounding: float
    noise: float
    matvecs: int


class _Unfit(Exception):
    """Products in one direction are not usable; ``reason`` is the error."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class _Half:
    """Products with two columns in one direction, computed one at a time, times ``scale``.

    Attributes
    ----------
    product : callable
        Function that computes a product.
    X, Y : arrays of two columns
        Unit vectors, and their products.
    scale : float
        A power of two.
    size, level : float
        Largest entry of the products, and largest norm of a column of Y.
    rounding : float
        Bound of the rounding errors, times ``scale``.
    """

    arrays: Arrays
    product: Callable[[Array], Array]
    X: Array
    Y: Array
    scale: float
    size: float
    level: float
    rounding: float = 0.0

    def of_sum(self, a: float, b: float) -> Array:
        """Product with ``a x + b y``."""
        return self.product(_sum(self.X, a, b)) * self.scale

    def measured(self) -> _Half:
        """Add the rounding errors measured as ``A (a x + b y) - (a A x + b A y)``.

        Raises
        ------
        _Unfit
            If rounding errors do not explain the differences.
        """
        off = [self.of_sum(a, b) - _sum(self.Y, a, b) for a, b in _PAIRS]
        rounding = max(_largest_norm(self.arrays, difference) for difference in off)
        share = rounding / self.level if self.level else 0.0
        if share > _LINEAR and self._is_continuous(share):
            msg = (
                f"A is not linear: A (x + y) differs from A x + A y by {share:.2g} of the norm of "
                "A x, for random x and y; a truncated SVD is that of a matrix"
            )
            raise _Unfit(ValueError(msg))
        return replace(self, rounding=max(self.rounding, _MEASURED * rounding))

    def _is_continuous(self, share: float) -> bool:
        """True if products of neighbouring vectors differ by less than this share of a product.

        Rounding errors of neighbouring vectors differ as much as those of any two vectors, or not
        at all.
        """
        step = 1e-3 * min(share, 1.0)
        pairs = [pair for j in _NEIGHBOURS for pair in ((1.0, j * step), (j * step, 1.0))]
        near = (self.Y[:, :1], self.Y[:, 1:])
        away = (self.of_sum(a, b) - near[a != 1] for a, b in pairs)
        return all(0 < _largest_norm(self.arrays, d) <= 0.01 * share * self.level for d in away)


class _Prober:
    """Products of a probe, and their number."""

    def __init__(self, op: MatrixOperator, parts: float) -> None:
        self.op, self.arrays = op, op.arrays
        self.parts = _UNITS * op.arrays.eps * parts
        self.matvecs = 0

    def half(self, X: Array, *, adjoint: bool) -> _Half:
        """Products with two unit columns, one at a time; `_Unfit` unless those of a block agree."""
        arrays, concat = self.arrays, self.arrays.xp.concat
        product = self._counted(self.op.rmatmat if adjoint else self.op.matmat)
        Y = concat([product(X[:, :1]), product(X[:, 1:])], axis=1)
        size = arrays.max_abs(Y)
        if not math.isfinite(size):
            name = "A^H" if adjoint else "A"
            raise ValueError(
                f"a product with {name} has entries that are not finite ({size}); "
                "find the NaN or inf in A, or scale A down"
            )
        scale = _brings_near_one(arrays, size)
        Y = Y * scale
        half = _Half(arrays, product, X, Y, scale, size, _largest_norm(arrays, Y))
        allowed = _UNITS * arrays.eps * half.level + self.parts * scale
        pairs = ((1.0, 1.0), (1.0, -1.0))
        block = product(concat([_sum(X, *pair) for pair in pairs], axis=1)) * scale
        off = _largest_norm(arrays, block - concat([_sum(Y, *pair) for pair in pairs], axis=1))
        if off <= allowed:
            return replace(half, rounding=_MEASURED * off)
        alone = concat([half.of_sum(*pair) for pair in pairs], axis=1)
        half = half.measured()
        off = _largest_norm(arrays, block - alone)
        if not off <= allowed + half.rounding:
            raise _Unfit(_disagreement(off / half.level if half.level else math.inf, adjoint))
        return half

    def _counted(self, product: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def counted(X: Array) -> Array:
            self.matvecs += int(X.shape[1])
            try:
                return product(X)
            except Exception as error:
                # An error caused by the shape of X occurs again: try another way. Raise others.
                try:
                    product(X)
                except Exception:
                    raise _Unfit(error) from error
                raise

        return counted

    def check_adjoint(self, forward: _Half, backward: _Half) -> tuple[float, float]:
        """Compare ``<x, A^H w>`` with ``<A x, w>``.

        Returns a bound of the rounding errors, and their usual size.
        """
        if self._differ(forward, backward) is not None:
            forward, backward = forward.measured(), backward.measured()
            off = self._differ(forward, backward)
            if off is not None:
                raise AdjointError(
                    f"rmatmat is not the adjoint of matmat: for a random x, <x, A^H (A x)> differs "
                    f"from ||A x||^2 by {abs(off):.3g} times its size; rmatmat must compute the "
                    "conjugate transpose, A.conj().T @ X"
                )
        bound = self._rounding(forward, backward)
        bound *= math.sqrt(max(1.0, max(self.op.shape) / _RANDOM))
        # A part multiplies a random unit vector by its norm over sqrt(n).
        measured = max(half.rounding / half.scale for half in (forward, backward)) / _MEASURED
        return bound, max(self.parts / _UNITS / math.sqrt(min(self.op.shape)), measured)

    def _rounding(self, *halves: _Half) -> float:
        return max(self.parts, *(half.rounding / half.scale for half in halves))

    def _differ(self, forward: _Half, backward: _Half) -> float | None:
        """Return the relative difference of two inner products if rounding does not explain it."""
        arrays, scale = self.arrays, backward.scale
        rounding = self._rounding(forward, backward) * scale
        for j in range(2):
            x, y = (half[:, j : j + 1] for half in (forward.X, forward.Y))
            w, z = (half[:, j : j + 1] for half in (backward.X, backward.Y))
            inner = arrays.real_inner(x, z)
            other = arrays.real_inner(y, w) / forward.scale * scale
            allowed = arrays.eps**0.5 * max(_largest_norm(arrays, z), abs(other))
            if not abs(inner - other) <= allowed + 2 * rounding:
                return (inner - other) / other if other else math.inf
        return None


def probe(op: MatrixOperator, rng: np.random.Generator) -> Probed:
    """Check the products of an operator, and choose how blocks are multiplied.

    Products with a block of two columns must equal the products with its columns, and
    ``<x, A^H w>`` must equal ``<A x, w>``. If the first check fails, the second decides: products
    are computed one column at a time if it holds for single columns, and in blocks only if it holds
    only for blocks.

    Parameters
    ----------
    op : MatrixOperator
        Of shape (m, n).
    rng : numpy.random.Generator
        Source of the random vectors.

    Returns
    -------
    Probed

    Raises
    ------
    AdjointError
        If ``rmatmat`` is not the adjoint of ``matmat``.
    ValueError
        If products of a block differ from those of its columns and neither agree with the adjoint,
        if products are not linear, or if they are not finite.

    Notes
    -----
    Eight products, and about eight more if a check fails. Products of representable matrices do
    not overflow.
    """
    prober = _Prober(op, op.size_of_parts())
    arrays = op.arrays
    X = _unit_columns(arrays, arrays.gaussian(rng, op.shape[1], 2))
    replacement = _unit_columns(arrays, arrays.gaussian(rng, op.shape[0], 2))
    first: Exception | None = None
    for forward in (None, *_WAYS):
        if not op.go(forward, None) and forward:
            break
        try:
            ahead = prober.half(X, adjoint=False)
        except _Unfit as unfit:
            first = first or unfit.reason
            continue
        W = _unit_columns(arrays, ahead.Y, replacement)
        for backward in _WAYS if forward else (None,):
            op.go(None, backward)
            try:
                rounding, noise = prober.check_adjoint(ahead, prober.half(W, adjoint=True))
            except (_Unfit, AdjointError) as error:
                reason = error.reason if isinstance(error, _Unfit) else error
                first = first or reason
                if forward is None and isinstance(error, AdjointError):
                    raise  # blocks and columns agree: no other way is left
                continue
            return Probed(ahead.size, rounding, noise, prober.matvecs)
    assert first is not None
    raise first


def settle(op: MatrixOperator, *, adjoint: bool) -> None:
    """Check products in one direction before the first of them; in both if that fails.

    Parameters
    ----------
    op : MatrixOperator
        Of shape (m, n).
    adjoint : bool
        True for the direction of ``rmatmat``.
    """
    rng = np.random.default_rng(0)
    X = op.arrays.gaussian(rng, op.shape[0 if adjoint else 1], 2)
    try:
        _Prober(op, op.size_of_parts()).half(_unit_columns(op.arrays, X), adjoint=adjoint)
    except _Unfit:
        probe(op, rng)


def _disagreement(off: float, adjoint: bool) -> ValueError:
    block, single = ("rmatmat", "rmatvec") if adjoint else ("matmat", "matvec")
    return ValueError(
        f"{block} of two columns differs from the products of each column alone ({single}, or "
        f"{block} of one column) by {off:.2g} of their norm, and neither of them agrees with "
        f"products with the adjoint; {block} must treat each column of an array of shape (n, p) as "
        f"{single} treats a vector of shape (n,)"
    )


def _sum(X: Array, a: float, b: float) -> Array:
    return a * X[:, :1] + b * X[:, 1:]


def _largest_norm(arrays: Arrays, X: Array) -> float:
    return float(arrays.get(arrays.column_norms(X)).max())


def _unit_columns(arrays: Arrays, X: Array, replacement: Array | None = None) -> Array:
    """Scale columns to norm 1; replace zero columns by those of ``replacement``."""
    norms = arrays.column_norms(X)
    if replacement is None:
        return X / norms
    xp = arrays.xp
    zero = norms == 0
    return xp.where(zero, replacement, X / xp.where(zero, xp.ones_like(norms), norms))


def _brings_near_one(arrays: Arrays, size: float) -> float:
    """Return a power of two that scales a number to about 1, as far as the dtype allows."""
    _, most = math.frexp(float(np.finfo(arrays.host_dtype).max))
    exponent = -math.frexp(size)[1] if size else 0
    return math.ldexp(1.0, max(2 - most, min(exponent, most - 2)))
