"""Directions of descent of many matrices: by the oracle of a ball, or by a regularized update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from trsvd._arrays.arrays import Array, Arrays
from trsvd._arrays.dtypes import describe
from trsvd._oracles.polar import product_dtype
from trsvd._oracles.result import LMOResult, LowRankTerm
from trsvd._oracles.warm_start import GUARDS
from trsvd._solve.result import Subspace
from trsvd._validate import check_number
from trsvd.balls import Ball, KyFanDualBall, RMSBall, RowBall, SpectralBall, SumBall
from trsvd.methods import Direct, Method
from trsvd.optim.schedules import check_rank, largest_rank, rank_at
from trsvd.polar import QUINTIC
from trsvd.polar.methods import PolarIteration
from trsvd.polar.polynomials import Polynomial, checked_coefficients
from trsvd.regularized import f_star_neon, regularized_update


@dataclass(frozen=True, kw_only=True)
class MuonIteration(PolarIteration):
    """The Newton-Schulz iteration of `torch.optim.Muon`, operation by operation.

    The direction is cast to bfloat16 first and then divided by ``max(||G||_F, eps)``: a gradient
    much smaller than ``eps`` gives a shorter step. (`trsvd.NewtonSchulz` scales first, and the size
    of the gradient does not matter.) Products are in float32 where the array library has no
    bfloat16.

    Parameters
    ----------
    steps : int, default 5
        Number of iterations.
    coefficients : tuple of three floats
        ``(a, b, c)`` of the odd polynomial ``a x + b x^3 + c x^5``.
    eps : float, default 1e-7
        Lower bound of the norm that G is divided by.
    """

    steps: int = 5
    dtype: Any = "bfloat16"
    coefficients: Sequence[float] = QUINTIC
    eps: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps >= 100:
            raise ValueError(f"Number of steps must be less than 100, and ns_steps is {self.steps}")
        if len(self.coefficients) != 3:
            raise ValueError(
                f"Coefficients must be a tuple of exactly 3 values, not {self.coefficients}"
            )
        object.__setattr__(self, "coefficients", checked_coefficients(self.coefficients))
        if not check_number("eps", self.eps) > 0:
            raise ValueError(
                f"Invalid eps value: {self.eps}; the bound of the norm must be positive"
            )

    def polynomials(
        self, precision: str | None = None, shape: tuple[int, int] | None = None
    ) -> tuple[Polynomial, ...]:
        """The polynomial of each step: the same for all."""
        del precision, shape
        return (tuple(self.coefficients),) * self.steps


@dataclass(frozen=True, eq=False)
class Direction:
    """Update direction for one matrix, its sign included.

    Attributes
    ----------
    update : array of shape (m, n)
        The direction, in the dtype of the matrix.
    result : LMOResult or None
        What the oracle said; None for iterations as they come, of which nothing is known.
    """

    update: Array
    result: LMOResult | None

    @property
    def subspace(self) -> Subspace | None:
        """Start of the next step."""
        return None if self.result is None else self.result.subspace

    @property
    def rank(self) -> int | None:
        """Rank of the low-rank part; None if there is none."""
        for term in () if self.result is None else self.result.terms:
            if isinstance(term, LowRankTerm):
                return int(term.U.shape[1])
        return None


class Oracle(Protocol):
    """Base class of the oracles: they map matrices to update directions."""

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """A direction for each matrix, from the subspaces of the last step."""
        ...

    def support(self, G: Array, step: int) -> float | None:
        """The support function of the ball at G; None where there is no ball."""
        ...

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Columns of a subspace that are worth keeping for the next step; 0 if it reads none."""
        ...


@dataclass(frozen=True, kw_only=True)
class BallOracle:
    """The linear minimization oracle of a ball, as an optimizer uses it.

    Parameters
    ----------
    ball : Ball, or callable
        The ball, or what makes it of a rank: ``KyFanDualBall``, or a function of k.
    k : int, float or callable, optional
        The rank where ``ball`` is a callable: an integer, a share of min(m, n) as a float between 0
        and 1, or a schedule of either.
    method : str, Method, NewtonSchulz or PolarExpress, optional
        ``"exact"`` is a full factorization. `NewtonSchulz` and `PolarExpress` give the iterate as
        it comes, as Muon does: near the polar factor, and not divided to lie in the ball.
        ``"newton-schulz"`` is the iteration of `torch.optim.Muon` with its defaults. None is the
        method that the ball chooses for ``gap``.
    gap : float, default 1e-2
        Relative gap that is enough, where the method does not compute everything.
    seed : int, default 0
        Of the random numbers, with the step.
    """

    ball: Ball | Callable[[int], Ball]
    k: Any = None
    method: str | Method | PolarIteration | None = None
    gap: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.method, str) and self.method == "newton-schulz":
            object.__setattr__(self, "method", MuonIteration())
        given: Any = self.ball
        if isinstance(given, Ball):
            if self.k is not None:
                raise ValueError(
                    f"k={self.k!r} beside a ball that has none to set; pass a function of k as ball"
                )
        elif not callable(given):
            raise TypeError(
                f"ball is {describe(given)}; pass one of trsvd.balls, as trsvd.SpectralBall()"
            )
        elif self.k is None:
            raise ValueError("ball is a function of the rank; say which with k=")
        else:
            check_rank(self.k)

    def ball_at(self, step: int, shape: tuple[int, ...]) -> Ball:
        """The ball for a matrix of this shape at this step."""
        if isinstance(self.ball, Ball):
            return self.ball
        return self.ball(rank_at(self.k, step, min(shape)))

    def support(self, G: Array, step: int) -> float | None:
        """The support function of the ball at G."""
        return self.ball_at(step, tuple(G.shape)).support(G)

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Those of the truncated part of the ball, of the largest rank that a schedule has."""
        if self.method in ("exact", "direct") or isinstance(self.method, (PolarIteration, Direct)):
            return 0
        rank, ball = min(shape), self.ball
        if not isinstance(ball, Ball):
            ball = ball(largest_rank(self.k, step, rank))
        parts = [part.k for _, part in _parts(ball) if isinstance(part, KyFanDualBall)]
        return max((_columns(k, rank) for k in parts), default=0)

    def directions(
        self,
        matrices: Sequence[Array],
        starts: Sequence[Subspace | None],
        step: int,
        iterates: Sequence[Array] | None = None,
    ) -> list[Direction]:
        """A direction for each matrix; those with one ball are handed to it together.

        ``iterates`` are what `polar_iterates` makes of the matrices, where it is known already.
        """
        groups: dict[Ball, list[int]] = {}
        for index, G in enumerate(matrices):
            groups.setdefault(self.ball_at(step, tuple(G.shape)), []).append(index)
        found: dict[int, Direction] = {}
        for ball, members in groups.items():
            given = [matrices[i] for i in members]
            if isinstance(self.method, PolarIteration):
                made = None if iterates is None else [iterates[i] for i in members]
                some = _by_iteration(ball, given, self.method, made)
            else:
                some = self._by_oracle(ball, given, [starts[i] for i in members], step)
            found |= dict(zip(members, some, strict=True))
        return [found[index] for index in range(len(matrices))]

    def _by_oracle(
        self, ball: Ball, matrices: list[Array], starts: list[Subspace | None], step: int
    ) -> list[Direction]:
        ranks = [part.k for _, part in _parts(ball) if isinstance(part, KyFanDualBall)]
        options: dict[str, Any] = {"method": self.method, "gap": self.gap}
        if self.method == "exact":
            options = {"method": "exact"}
        results = ball.lmo_many(matrices, start=starts, rng=self.seed + step, **options)
        out = []
        for G, result in zip(matrices, results, strict=True):
            # A full factorization starts from nothing: its vectors are not kept.
            truncated = any(k < min(G.shape) for k in ranks)
            kept = result if truncated else replace(result, subspace=None)
            out.append(Direction(result.update, kept))
        return out


@dataclass(frozen=True, kw_only=True)
class RegularizedOracle:
    """``argmin <G, D> + lam gauge(D)^2`` over the gauge of a ball: Nuclear-Neon and its like.

    Parameters
    ----------
    ball : Ball
        Whose gauge it is.
    lam : float
        Positive.
    gap : float, default 1e-2
        Of the oracle.
    seed : int, default 0
        Of the random numbers, with the step.
    """

    ball: Ball
    lam: float
    gap: float = 1e-2
    seed: int = 0

    def support(self, G: Array, step: int) -> float | None:
        """None: the update is not on a ball."""
        del G, step
        return None

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Those of the truncated part of the ball."""
        return BallOracle(ball=self.ball).columns(shape, step)

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """A direction for each matrix."""
        options = {"gap": self.gap, "rng": self.seed + step}
        results = [
            regularized_update(self.ball, G, self.lam, start=start, **options)
            for G, start in zip(matrices, starts, strict=True)
        ]
        return [Direction(result.update, result) for result in results]


@dataclass(frozen=True, kw_only=True)
class FStarOracle:
    """F*-Neon: `trsvd.f_star_neon` of each matrix.

    Parameters
    ----------
    lam : float
        Positive.
    tol : float, optional
        Relative residual of the singular triplets.
    seed : int, default 0
        Of the random numbers, with the step.
    """

    lam: float
    tol: float | None = None
    seed: int = 0

    def support(self, G: Array, step: int) -> float | None:
        """None: the update is not on a ball."""
        del G, step
        return None

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """The first few: how many singular values are above the threshold is not known before."""
        del step
        return min(_F_STAR_COLUMNS, *shape)

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """A direction for each matrix."""
        results = [
            f_star_neon(G, self.lam, tol=self.tol, start=start, rng=self.seed + step)
            for G, start in zip(matrices, starts, strict=True)
        ]
        return [Direction(result.update, result) for result in results]

    def threshold(self, direction: Direction) -> float:
        """The threshold tau of a direction, which is ``lam ||D||_*``."""
        assert direction.result is not None
        (term,) = direction.result.terms
        columns: Any = getattr(term, "U", None)
        norms = term.arrays.get(term.arrays.column_norms(columns)) if term.arrays else np.zeros(0)
        return float(self.lam * abs(term.scale) * norms.astype(np.float64).sum())


# Columns to start F*-Neon from: more than that are above the threshold of a flat spectrum only.
_F_STAR_COLUMNS = 16


def _columns(k: int, rank: int) -> int:
    """Return the columns that a truncated oracle of k pairs keeps."""
    k = min(k, rank)
    return min(k + GUARDS, rank)


@dataclass(frozen=True, kw_only=True)
class RowRMSOracle:
    """Rows over their root mean squares, as SCALE divides them.

    Parameters
    ----------
    eps : float, default 1e-8
        Lower bound of the root mean squares.
    """

    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not check_number("eps", self.eps) > 0:
            raise ValueError(
                f"Invalid eps value: {self.eps}; the bound of the root mean square is positive"
            )

    def support(self, G: Array, step: int) -> float | None:
        """The support function of ``sqrt(n)`` times the row-wise ball."""
        del step
        return math.sqrt(G.shape[1]) * RowBall().support(G)

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """None: nothing is started from."""
        del shape, step
        return 0

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """A direction for each matrix."""
        del starts, step
        return [Direction(self._direction(G), None) for G in matrices]

    def _direction(self, G: Array) -> Array:
        arrays = Arrays.of_array(G)
        xp, X = arrays.xp, arrays.take(G)
        _sizes(arrays, X[None, :, :])
        sizes = xp.max(xp.abs(X), axis=1, keepdims=True)
        # Squares of entries near 1 stay in range.
        Y = X / arrays.like(xp.where(sizes > 0, sizes, xp.ones_like(sizes)))
        rms = sizes * xp.sqrt(xp.mean(xp.abs(Y) ** 2, axis=1, keepdims=True))
        bound = xp.where(rms > self.eps, rms, xp.full_like(rms, self.eps))
        return arrays.hand_out(-Y * arrays.like(sizes / bound))


def row_oracle(normalization: str, eps: float) -> Oracle:
    """Return the oracle of rows divided by their root mean squares (``"rms"``) or norms."""
    if normalization == "rms":
        return RowRMSOracle(eps=eps)
    if normalization == "l2":
        return BallOracle(ball=RowBall())
    raise ValueError(f"normalization={normalization!r} is not known; name one of 'rms', 'l2'")


# ---- polar iterations, as they come ---------------------------------------------------------

_LARGE = 2.0**60


def _parts(ball: Ball) -> tuple[tuple[float, Ball], ...]:
    return ball.parts if isinstance(ball, SumBall) else ((1.0, ball),)


def _by_iteration(
    ball: Ball, matrices: list[Array], method: PolarIteration, known: list[Array] | None
) -> list[Direction]:
    """Directions with the iterate in place of the polar factor."""
    totals: list[Array] | None = None
    iterates = known or []
    for radius, part in _parts(ball):
        radii = [radius * scale for scale in _polar_scales(part, matrices)]
        if radii:
            iterates = iterates or polar_iterates(matrices, method)
            updates = [X * -scale for X, scale in zip(iterates, radii, strict=True)]
        else:
            # A part that a polar iteration has no say in; a truncated one refuses it.
            updates = [(radius * part).lmo(G, method=method).update for G in matrices]
        totals = (
            updates if totals is None else [a + b for a, b in zip(totals, updates, strict=True)]
        )
    return [Direction(update, None) for update in totals or ()]


def _polar_scales(ball: Ball, matrices: list[Array]) -> list[float]:
    """The radius of the spectral ball that a ball is for each matrix; empty for another ball."""
    shapes = [tuple(G.shape) for G in matrices]
    if isinstance(ball, RMSBall):
        return [math.sqrt(m / n) for m, n in shapes]
    whole = isinstance(ball, KyFanDualBall) and all(ball.k >= min(shape) for shape in shapes)
    return [1.0] * len(shapes) if whole or isinstance(ball, SpectralBall) else []


def polar_iterates(matrices: Sequence[Array], method: PolarIteration) -> list[Array]:
    """Apply an iteration for the polar factor to each matrix; those of one kind together.

    Parameters
    ----------
    matrices : sequence of (m, n) arrays
        Of one library.
    method : NewtonSchulz or PolarExpress
        Its ``dtype`` is that of the products: by default float32 for half precision, and that of
        the matrix otherwise.

    Returns
    -------
    list of (m, n) arrays
        ``U f(S / ||G||_F) V^H``, in the dtypes of the matrices. Singular values may be above 1.

    Raises
    ------
    ValueError
        If a matrix is not finite.
    """
    stacks = PolarStacks(matrices, method)
    return stacks.iterates([each.iterated() for each in stacks])


class PolarStacks(list["PolarStack"]):
    """Matrices as stacks of one shape and dtype each, ready for an iteration.

    Parameters
    ----------
    matrices, method
        As for `polar_iterates`.

    Raises
    ------
    ValueError
        If a matrix is not finite.
    """

    def __init__(
        self, matrices: Sequence[Array] = (), method: PolarIteration | None = None
    ) -> None:
        groups: dict[Any, list[int]] = {}
        for index, G in enumerate(matrices):
            groups.setdefault((tuple(G.shape), str(G.dtype), str(G.device)), []).append(index)
        self.members = list(groups.values())
        stacks = [[matrices[i] for i in each] for each in self.members]
        super().__init__([] if method is None else [_stacked(each, method) for each in stacks])

    def iterates(self, found: Sequence[Array]) -> list[Array]:
        """The iterate of each matrix, from those of the stacks."""
        out: dict[int, Array] = {}
        for stack, members, X in zip(self, self.members, found, strict=True):
            X = stack.arrays.hand_out(_adjoint(stack.arrays, X) if stack.transpose else X)
            out |= {index: X[place, :, :] for place, index in enumerate(members)}
        return [out[index] for index in range(len(out))]


@dataclass(frozen=True, eq=False)
class PolarStack:
    """A stack of matrices before its iteration.

    Attributes
    ----------
    X : array of shape (b, m, n)
        With m at most n, normalized, in the dtype of the products.
    polynomials : tuple of tuples of float
        Odd ones, of each step: coefficients of X, X^3, X^5, ...
    transpose : bool
        True if X has the adjoints of the matrices.
    arrays : Arrays
        Their library.
    """

    X: Array
    polynomials: tuple[tuple[float, ...], ...]
    transpose: bool
    arrays: Arrays

    def iterated(self) -> Array:
        """The iterates."""
        with self.arrays.as_asked():
            adjoint = partial(_adjoint, self.arrays)
            return polar_products(self.X, self.polynomials, adjoint, self.arrays.added_product)


def polar_products(
    X: Array,
    polynomials: Sequence[Sequence[float]],
    adjoint: Callable[[Array], Array],
    added: Callable[[Array, Array, Array, float, float], Array],
) -> Array:
    """The products of an iteration for the polar factor, and nothing else.

    Parameters
    ----------
    X : array of shape (b, m, n)
        With m at most n.
    polynomials
        As of a `PolarStack`.
    adjoint : callable
        The conjugate transposes of a stack.
    added : callable
        ``beta C + alpha A B``, of C, A, B, beta, alpha.

    Returns
    -------
    array of shape (b, m, n)
    """
    alone = X.shape[0] == 1
    if alone:  # products of two matrices are faster than those of two stacks of one
        X = X[0, :, :]
    for a, *others in polynomials:
        power = gram = X @ adjoint(X)
        alpha = others[-1]
        for coefficient in reversed(others[:-1]):
            power = added(gram, power, gram, coefficient, alpha)
            alpha = 1.0
        X = added(X, power, X, a, alpha)
    return X[None, :, :] if alone else X


def _stacked(matrices: list[Array], method: PolarIteration) -> PolarStack:
    """Matrices of one shape as a stack."""
    arrays = Arrays.of_array(matrices[0])
    xp, shape = arrays.xp, tuple(matrices[0].shape)
    precision = method.dtype or {"complex64": "float32", "complex128": "float64"}.get(
        arrays.dtype_name, arrays.dtype_name
    )
    X = xp.stack([arrays.take(G) for G in matrices])
    if isinstance(method, MuonIteration):
        X = _clamped(arrays, X, method.eps)
    else:
        dtype = product_dtype(arrays, precision, method)
        X = xp.astype(_normalized(arrays, X), dtype, copy=False)
    transpose = shape[0] > shape[1]
    polynomials = tuple(tuple(each) for each in method.polynomials(precision, shape))
    return PolarStack(_adjoint(arrays, X) if transpose else X, polynomials, transpose, arrays)


def _sizes(arrays: Arrays, X: Array) -> Array:
    """The largest modulus of each matrix of a stack, as an array of shape (b, 1, 1)."""
    sizes = arrays.xp.max(arrays.xp.abs(X), axis=(1, 2), keepdims=True)
    largest = arrays.get(arrays.xp.max(sizes))
    if not math.isfinite(float(largest)):
        raise ValueError(
            "a direction contains NaN or inf; find where it comes from before making a step"
        )
    return sizes


def _clamped(arrays: Arrays, X: Array, eps: float) -> Array:
    """A stack in bfloat16, over the Frobenius norms clamped at ``eps``, as `torch.optim.Muon`."""
    xp, sizes = arrays.xp, _sizes(arrays, X)
    # Squares of larger entries overflow; smaller ones are left as they are, to the last bit.
    X = X / arrays.like(xp.where(sizes > _LARGE, sizes, xp.ones_like(sizes)))
    if hasattr(xp, "bfloat16") and not arrays.is_complex:
        X = xp.astype(X, xp.bfloat16)
    norms = xp.linalg.vector_norm(X, axis=(1, 2), keepdims=True)
    return X / xp.astype(xp.where(norms > eps, norms, xp.full_like(norms, eps)), X.dtype)


def _normalized(arrays: Arrays, X: Array) -> Array:
    """A stack of matrices over their Frobenius norms; zero stays zero."""
    if not np.isfinite(arrays.largest_of_stack(X)).all():
        raise ValueError(
            "a direction contains NaN or inf; find where it comes from before making a step"
        )
    return arrays.units(X, axis=(1, 2))


def _adjoint(arrays: Arrays, X: Array) -> Array:
    return arrays.conj(arrays.xp.matrix_transpose(X))


_ADJUSTMENTS = {None: "muon", "original": "muon", "match_rms_adamw": "adamw"}


def muon_method(method: Any, ns_steps: int, ns_coefficients: Sequence[float], eps: float) -> Any:
    """The method of Muon's oracle; ValueError for options that another method does not read."""
    own = MuonIteration(steps=ns_steps, coefficients=ns_coefficients, eps=eps)
    if isinstance(method, str) and method == "newton-schulz":
        return own
    if own != MuonIteration():
        raise ValueError(
            f"ns_steps, ns_coefficients and eps are options of method='newton-schulz', and method "
            f"is {method!r}; leave them out, or pass method=trsvd.NewtonSchulz(steps=..., "
            "coefficients=...)"
        )
    return method


def muon_scaling(adjust_lr_fn: Any, shape_scaling: Any) -> Any:
    """The scaling that is meant by torch's name or by ours; ValueError if both are given."""
    if adjust_lr_fn not in _ADJUSTMENTS:
        raise ValueError(
            f"Adjust learning rate function {adjust_lr_fn} is not supported; pass 'original', "
            "'match_rms_adamw' or None"
        )
    if shape_scaling is None:
        return _ADJUSTMENTS[adjust_lr_fn]
    if adjust_lr_fn is not None:
        raise ValueError(
            f"adjust_lr_fn={adjust_lr_fn!r} beside shape_scaling={shape_scaling!r}; both are the "
            "factor of the updates: pass one of them"
        )
    return shape_scaling
