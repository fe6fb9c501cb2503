"""Directions of descent of many matrices: by the oracle of a ball, or by a regularized update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trsvd._arrays import Array, Arrays
from trsvd._kinds import describe
from trsvd._lmo_result import LMOResult, LowRankTerm
from trsvd._polar_methods import PolarIteration
from trsvd.balls import Ball, KyFanDualBall, RMSBall, SpectralBall, SumBall
from trsvd.methods import Method
from trsvd.optim.schedules import rank_at
from trsvd.regularized import f_star_neon, regularized_update
from trsvd.result import Subspace

__all__ = [
    "BallOracle",
    "Direction",
    "FStarOracle",
    "Oracle",
    "RegularizedOracle",
    "polar_iterates",
]


@dataclass(frozen=True, eq=False)
class Direction:
    """Where to go from one matrix, already negative.

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
        """What the next step starts from."""
        return None if self.result is None else self.result.subspace

    @property
    def rank(self) -> int | None:
        """Of the part of low rank; None where there is none."""
        for term in () if self.result is None else self.result.terms:
            if isinstance(term, LowRankTerm):
                return int(term.U.shape[1])
        return None


class Oracle(Protocol):
    """What finds directions."""

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """A direction for each matrix, from the subspaces of the last step."""
        ...

    def support(self, G: Array, step: int) -> float | None:
        """The support function of the ball at G; None where there is no ball."""
        ...


@dataclass(frozen=True, kw_only=True)
class BallOracle:
    """The linear minimization oracle of a ball, as an optimizer uses it.

    Parameters
    ----------
    ball : Ball, or callable
        The ball, or what makes it of a rank: ``KyFanDualBall``, or a function of k.
    k : int, float or callable, optional
        The rank where ``ball`` is a callable: a number, a share of min(m, n) (a float up to 1.0),
        or a schedule of either.
    method : str, Method, NewtonSchulz or PolarExpress, optional
        ``"exact"`` is a full factorization. `NewtonSchulz` and `PolarExpress` give the iterate as
        it comes, as Muon does: near the polar factor, and not divided to lie in the ball. None is
        what the ball thinks best for ``gap``.
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
        given: Any = self.ball
        if isinstance(given, Ball):
            if self.k is not None:
                msg = (
                    f"k={self.k!r} beside a ball that has none to set; pass a function of k as ball"
                )
                raise ValueError(msg)
        elif not callable(given):
            msg = f"ball is {describe(given)}; pass one of trsvd.balls, as trsvd.SpectralBall()"
            raise TypeError(msg)
        elif self.k is None:
            msg = "ball is a function of the rank; say which with k="
            raise ValueError(msg)

    def ball_at(self, step: int, shape: tuple[int, ...]) -> Ball:
        """The ball for a matrix of this shape at this step."""
        if isinstance(self.ball, Ball):
            return self.ball
        return self.ball(rank_at(self.k, step, min(shape)))

    def support(self, G: Array, step: int) -> float | None:
        """The support function of the ball at G."""
        return self.ball_at(step, tuple(G.shape)).support(G)

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """A direction for each matrix; those with one ball are handed to it together."""
        groups: dict[Ball, list[int]] = {}
        for index, G in enumerate(matrices):
            groups.setdefault(self.ball_at(step, tuple(G.shape)), []).append(index)
        found: dict[int, Direction] = {}
        for ball, members in groups.items():
            given = [matrices[i] for i in members]
            if isinstance(self.method, PolarIteration):
                some = _by_iteration(ball, given, self.method)
            else:
                some = self._by_oracle(ball, given, [starts[i] for i in members], step)
            found |= dict(zip(members, some, strict=True))
        return [found[index] for index in range(len(matrices))]

    def _by_oracle(
        self, ball: Ball, matrices: list[Array], starts: list[Subspace | None], step: int
    ) -> list[Direction]:
        method, gap = self.method, self.gap
        options: dict[str, Any] = {"method": method, "gap": gap}
        if method == "exact":
            # A truncated oracle knows the full factorization by another name.
            low_rank = any(isinstance(part, KyFanDualBall) for _, part in _parts(ball))
            options = {"method": "direct" if low_rank else "exact"}
        results = ball.lmo_many(matrices, start=starts, rng=self.seed + step, **options)
        return [Direction(result.update, result) for result in results]


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


# ---- polar iterations, as they come ---------------------------------------------------------


def _parts(ball: Ball) -> tuple[tuple[float, Ball], ...]:
    return ball.parts if isinstance(ball, SumBall) else ((1.0, ball),)


def _by_iteration(ball: Ball, matrices: list[Array], method: PolarIteration) -> list[Direction]:
    """Directions with the iterate in place of the polar factor."""
    totals: list[Array] | None = None
    iterates: list[Array] = []
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
    """What an iteration for the polar factor makes of each matrix; those of one kind together.

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
    groups: dict[Any, list[int]] = {}
    for index, G in enumerate(matrices):
        groups.setdefault((tuple(G.shape), str(G.dtype), str(G.device)), []).append(index)
    found: dict[int, Array] = {}
    for members in groups.values():
        X = _iterated([matrices[i] for i in members], method)
        found |= {index: X[place, :, :] for place, index in enumerate(members)}
    return [found[index] for index in range(len(matrices))]


def _iterated(matrices: list[Array], method: PolarIteration) -> Array:
    """The iterates of matrices of one shape, stacked."""
    arrays = Arrays.of_array(matrices[0])
    xp, shape = arrays.xp, tuple(matrices[0].shape)
    precision = method.dtype or {"complex64": "float32", "complex128": "float64"}.get(
        arrays.dtype_name, arrays.dtype_name
    )
    X = xp.stack([arrays.take(G) for G in matrices])
    X = _normalized(arrays, X)
    if precision != arrays.dtype_name and not arrays.is_complex:
        X = xp.astype(X, getattr(xp, precision))
    transpose = shape[0] > shape[1]
    if transpose:
        X = _adjoint(arrays, X)
    if len(matrices) == 1:  # products of two matrices are faster than those of two stacks of one
        X = X[0, :, :]
    with arrays.as_asked():
        for a, *others in method.polynomials(precision, shape):
            gram = X @ _adjoint(arrays, X)
            power = others[-1] * gram
            for coefficient in reversed(others[:-1]):
                power = coefficient * gram + power @ gram
            X = a * X + power @ X
    X = X if len(matrices) > 1 else X[None, :, :]
    return arrays.hand_out(_adjoint(arrays, X) if transpose else X)


def _normalized(arrays: Arrays, X: Array) -> Array:
    """A stack of matrices over their Frobenius norms; zero stays zero."""
    if not np.isfinite(arrays.largest_of_stack(X)).all():
        msg = "a direction contains NaN or inf; find where it comes from before making a step"
        raise ValueError(msg)
    return arrays.units(X, axis=(1, 2))


def _adjoint(arrays: Arrays, X: Array) -> Array:
    return arrays.conj(arrays.xp.matrix_transpose(X))
