"""Update directions of many matrices, by the oracle of a ball or by a regularized update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from trsvd._arrays.arrays import Array, Arrays
from trsvd._arrays.dtypes import describe
from trsvd._oracles.options import ITERATIONS
from trsvd._oracles.polar import product_dtype
from trsvd._oracles.result import LMOResult, LowRankTerm
from trsvd._oracles.warm_start import GUARDS
from trsvd._solve.result import Subspace
from trsvd._solve.select import named_method
from trsvd._validate import check_number
from trsvd.balls import Ball, KyFanDualBall, RMSBall, RowBall, SpectralBall, SumBall
from trsvd.methods import Direct, Method
from trsvd.optim.schedules import Rank
from trsvd.polar import QUINTIC
from trsvd.polar.methods import PolarIteration
from trsvd.polar.polynomials import Polynomial, checked_coefficients
from trsvd.regularized import f_star_neon, regularized_update


@dataclass(frozen=True, kw_only=True)
class MuonIteration(PolarIteration):
    """The Newton-Schulz iteration of `torch.optim.Muon`, operation by operation.

    The matrix G is cast to bfloat16 and then divided by ``max(||G||_F, eps)``. A matrix with a
    norm much smaller than ``eps`` therefore gives a shorter update. (`trsvd.NewtonSchulz` scales
    first, so that its update does not depend on the norm of G.) Products are in float32 if the
    array library has no bfloat16.

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
            raise ValueError(f"Number of steps must be less than 100, but ns_steps is {self.steps}")
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
        """Return the polynomial of each step, the same for all steps."""
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
        Result of the oracle. None for polar iterations, which have no result object.

    See Also
    --------
    BallOracle

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> oracle = optim.BallOracle(ball=trsvd.MaxBall())
    >>> G = np.diag([3.0, 2.0])
    >>> (direction,) = oracle.directions([G], [None], 0)
    >>> direction.update.round(4) + 0.0
    array([[-1.,  0.],
           [ 0., -1.]])
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
    """Protocol of the oracles: maps from matrices to update directions.

    See Also
    --------
    BallOracle, from_oracle

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> oracle = optim.BallOracle(ball=trsvd.FrobeniusBall())
    >>> G = np.diag([3.0, 2.0])
    >>> (direction,) = oracle.directions([G], [None], 0)
    >>> direction.update.round(4) + 0.0
    array([[-0.8321,  0.    ],
           [ 0.    , -0.5547]])
    """

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """Return a direction for each matrix, from the subspaces of the previous step."""
        ...

    def support(self, G: Array, step: int) -> float | None:
        """Return the support function of the ball at G; None if there is no ball."""
        ...

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Return the number of columns to keep for the next step; 0 if none are used."""
        ...


@dataclass(frozen=True, kw_only=True)
class BallOracle:
    """Linear minimization oracle of a ball, for use in an optimizer.

    Parameters
    ----------
    ball : Ball, or callable
        The ball, or a function that returns the ball of rank k, such as ``KyFanDualBall``.
    k : int or callable, optional
        The rank where ``ball`` is a callable, or a schedule of it.
    rank_fraction : float or callable, optional
        The rank as a fraction of min(m, n), or a schedule of it; pass either this or k.
    method : str, Method, NewtonSchulz or PolarExpress, optional
        ``"exact"``: a full factorization. `NewtonSchulz` or `PolarExpress`: the last iterate, as in
        Muon. It is close to the polar factor, and is not scaled to lie in the ball.
        ``"newton-schulz"``: the iteration of `torch.optim.Muon` with its defaults.
        ``"polar-express"``: `PolarExpress` with its defaults. None: the method that the ball
        chooses for ``gap``.
    gap : float, default 1e-2
        Largest relative gap of the update. Not used by full factorizations and polar iterations.
    seed : int, default 0
        Seed of the random numbers; combined with the step index.

    See Also
    --------
    from_ball, RegularizedOracle, Oracle

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> oracle = optim.BallOracle(ball=trsvd.KyFanDualBall, k=1)
    >>> G = np.diag([3.0, 2.0])
    >>> (direction,) = oracle.directions([G], [None], 0)
    >>> direction.update.round(4) + 0.0
    array([[-1.,  0.],
           [ 0.,  0.]])
    """

    ball: Ball | Callable[[int], Ball]
    k: Any = None
    rank_fraction: Any = None
    method: str | Method | PolarIteration | None = None
    gap: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.method, str) and self.method == "newton-schulz":
            object.__setattr__(self, "method", MuonIteration())
        elif isinstance(self.method, str) and self.method in ITERATIONS:
            object.__setattr__(self, "method", ITERATIONS[self.method])
        given: Any = self.ball
        if isinstance(given, Ball):
            for name in ("k", "rank_fraction"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}={getattr(self, name)!r}, but this ball has no rank to set; pass a "
                        "function of k as ball"
                    )
        elif not callable(given):
            raise TypeError(f"ball is {describe(given)}; pass a ball, such as trsvd.SpectralBall()")
        else:
            Rank(self.k, self.rank_fraction)

    def ball_at(self, step: int, shape: tuple[int, ...]) -> Ball:
        """Return the ball for a matrix of this shape at this step."""
        if isinstance(self.ball, Ball):
            return self.ball
        return self.ball(Rank(self.k, self.rank_fraction).at(step, min(shape)))

    def support(self, G: Array, step: int) -> float | None:
        """Return the support function of the ball at G."""
        return self.ball_at(step, tuple(G.shape)).support(G)

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Return the columns of the truncated part of the ball, for the largest scheduled rank."""
        method = self.method
        if isinstance(method, str):
            method = named_method(method)
        if isinstance(method, (PolarIteration, Direct)):
            return 0
        rank, ball = min(shape), self.ball
        if not isinstance(ball, Ball):
            ball = ball(Rank(self.k, self.rank_fraction).largest(step, rank))
        parts = [part.k for _, part in _parts(ball) if isinstance(part, KyFanDualBall)]
        return max((_columns(k, rank) for k in parts), default=0)

    def directions(
        self,
        matrices: Sequence[Array],
        starts: Sequence[Subspace | None],
        step: int,
        iterates: Sequence[Array] | None = None,
    ) -> list[Direction]:
        """Return a direction for each matrix. Matrices with the same ball are computed together.

        ``iterates``: the result of `polar_iterates` for the matrices, if it is already known.
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
            # A full factorization does not use a start: its vectors are not kept.
            truncated = any(k < min(G.shape) for k in ranks)
            kept = result if truncated else replace(result, subspace=None)
            out.append(Direction(result.update, kept))
        return out


@dataclass(frozen=True, kw_only=True)
class RegularizedOracle:
    """Regularized update ``argmin <G, D> + lam gauge(D)^2`` with the gauge of a ball.

    With the nuclear ball it is the update of Nuclear-Neon.

    Parameters
    ----------
    ball : Ball
        The ball that defines the gauge.
    lam : float
        Weight of the regularization, positive.
    gap : float, default 1e-2
        Relative gap of the oracle.
    seed : int, default 0
        Seed of the random numbers; combined with the step index.

    See Also
    --------
    nuclear_neon, BallOracle

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> oracle = optim.RegularizedOracle(ball=trsvd.NuclearBall(), lam=1.0)
    >>> G = np.diag([3.0, 2.0])
    >>> (direction,) = oracle.directions([G], [None], 0)
    >>> direction.update.round(4) + 0.0
    array([[-1.5,  0. ],
           [ 0. ,  0. ]])
    """

    ball: Ball
    lam: float
    gap: float = 1e-2
    seed: int = 0

    def support(self, G: Array, step: int) -> float | None:
        """Return None, since the update does not come from a ball."""
        del G, step
        return None

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Return the columns of the truncated part of the ball."""
        return BallOracle(ball=self.ball).columns(shape, step)

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """Return a direction for each matrix."""
        options = {"gap": self.gap, "rng": self.seed + step}
        results = [
            regularized_update(self.ball, G, self.lam, start=start, **options)
            for G, start in zip(matrices, starts, strict=True)
        ]
        return [Direction(result.update, result) for result in results]


@dataclass(frozen=True, kw_only=True)
class FStarOracle:
    """Oracle of F*-Neon: `trsvd.f_star_neon` of each matrix.

    Parameters
    ----------
    lam : float
        Weight of the regularization, positive.
    tol : float, optional
        Largest relative residual of the singular triplets.
    seed : int, default 0
        Seed of the random numbers; combined with the step index.

    See Also
    --------
    f_star_neon, BallOracle

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> oracle = optim.FStarOracle(lam=1.0)
    >>> G = np.diag([3.0, 2.0])
    >>> (direction,) = oracle.directions([G], [None], 0)
    >>> direction.update.round(4) + 0.0
    array([[-1.3333,  0.    ],
           [ 0.    , -0.3333]])
    """

    lam: float
    tol: float | None = None
    seed: int = 0

    def support(self, G: Array, step: int) -> float | None:
        """Return None, since the update does not come from a ball."""
        del G, step
        return None

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Return a fixed number, since the rank of the update is not known in advance."""
        del step
        return min(_F_STAR_COLUMNS, *shape)

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """Return a direction for each matrix."""
        results = [
            f_star_neon(G, self.lam, tol=self.tol, start=start, rng=self.seed + step)
            for G, start in zip(matrices, starts, strict=True)
        ]
        return [Direction(result.update, result) for result in results]

    def threshold(self, direction: Direction) -> float:
        """Return the threshold ``tau = lam ||D||_*`` of a direction."""
        assert direction.result is not None
        (term,) = direction.result.terms
        columns: Any = getattr(term, "U", None)
        norms = term.arrays.get(term.arrays.column_norms(columns)) if term.arrays else np.zeros(0)
        return float(self.lam * abs(term.scale) * norms.astype(np.float64).sum())


# Starting columns of F*-Neon. Only a flat spectrum has more singular values above the threshold.
_F_STAR_COLUMNS = 16


def _columns(k: int, rank: int) -> int:
    """Return the columns that a truncated oracle of k pairs keeps."""
    k = min(k, rank)
    return min(k + GUARDS, rank)


@dataclass(frozen=True, kw_only=True)
class RowRMSOracle:
    """Oracle that divides rows by their root mean squares, as SCALE does.

    Parameters
    ----------
    eps : float, default 1e-8
        Lower bound of the root mean squares.
    """

    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not check_number("eps", self.eps) > 0:
            raise ValueError(
                f"Invalid eps value: {self.eps}; the bound of the root mean square must be positive"
            )

    def support(self, G: Array, step: int) -> float | None:
        """Return the support function of ``sqrt(n)`` times the row-wise ball."""
        del step
        return math.sqrt(G.shape[1]) * RowBall().support(G)

    def columns(self, shape: tuple[int, ...], step: int) -> int:
        """Return 0, since no start is used."""
        del shape, step
        return 0

    def directions(
        self, matrices: Sequence[Array], starts: Sequence[Subspace | None], step: int
    ) -> list[Direction]:
        """Return a direction for each matrix."""
        del starts, step
        return [Direction(self._direction(G), None) for G in matrices]

    def _direction(self, G: Array) -> Array:
        arrays = Arrays.of_array(G)
        xp, X = arrays.xp, arrays.take(G)
        _sizes(arrays, X[None, :, :])
        sizes = xp.max(xp.abs(X), axis=1, keepdims=True)
        # Entries of at most 1: their squares stay in range.
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
    raise ValueError(f"normalization={normalization!r} is not known; pass 'rms' or 'l2'")


# ---- polar iterations -----------------------------------------------------------------------

_LARGE = 2.0**60


def _parts(ball: Ball) -> tuple[tuple[float, Ball], ...]:
    return ball.parts if isinstance(ball, SumBall) else ((1.0, ball),)


def _by_iteration(
    ball: Ball, matrices: list[Array], method: PolarIteration, known: list[Array] | None
) -> list[Direction]:
    """Return directions with the iterate in place of the polar factor."""
    totals: list[Array] | None = None
    iterates = known or []
    for radius, part in _parts(ball):
        radii = [radius * scale for scale in _polar_scales(part, matrices)]
        if radii:
            iterates = iterates or polar_iterates(matrices, method)
            updates = [X * -scale for X, scale in zip(iterates, radii, strict=True)]
        else:
            # A part without a polar factor; a truncated part raises an error for this method.
            updates = [(radius * part).lmo(G, method=method).update for G in matrices]
        totals = (
            updates if totals is None else [a + b for a, b in zip(totals, updates, strict=True)]
        )
    return [Direction(update, None) for update in totals or ()]


def _polar_scales(ball: Ball, matrices: list[Array]) -> list[float]:
    """Return the radius for each matrix if the ball is a spectral ball, else an empty list."""
    shapes = [tuple(G.shape) for G in matrices]
    if isinstance(ball, RMSBall):
        return [math.sqrt(m / n) for m, n in shapes]
    whole = isinstance(ball, KyFanDualBall) and all(ball.k >= min(shape) for shape in shapes)
    return [1.0] * len(shapes) if whole or isinstance(ball, SpectralBall) else []


def polar_iterates(matrices: Sequence[Array], method: PolarIteration) -> list[Array]:
    """Apply an iteration for the polar factor to each matrix.

    Matrices of one shape, dtype and device are computed together.

    Parameters
    ----------
    matrices : sequence of (m, n) arrays
        Matrices of one array library.
    method : NewtonSchulz or PolarExpress
        The iteration. Its ``dtype`` is the dtype of the products. The default is float32 for
        matrices in half precision, and the dtype of the matrix otherwise.

    Returns
    -------
    list of (m, n) arrays
        ``U f(S / ||G||_F) V^H``, in the dtypes of the matrices. Singular values can exceed 1.

    Raises
    ------
    ValueError
        If a matrix contains NaN or inf.

    See Also
    --------
    muon, trsvd.NewtonSchulz

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd import optim
    >>> method = trsvd.NewtonSchulz(steps=5)
    >>> (X,) = optim.polar_iterates([np.diag([3.0, 2.0])], method)
    >>> X.round(2) + 0.0
    array([[1.12, 0.  ],
           [0.  , 0.68]])
    """
    stacks = PolarStacks(matrices, method)
    return stacks.iterates([each.iterated() for each in stacks])


class PolarStacks(list["PolarStack"]):
    """Stacks of matrices of one shape, dtype and device each, ready for an iteration.

    Parameters
    ----------
    matrices, method
        As for `polar_iterates`.

    Raises
    ------
    ValueError
        If a matrix contains NaN or inf.
    """

    def __init__(
        self, matrices: Sequence[Array] = (), method: PolarIteration | None = None
    ) -> None:
        groups: dict[Any, list[int]] = {}
        for index, G in enumerate(matrices):
            groups.setdefault((tuple(G.shape), str(G.dtype), str(G.device)), []).append(index)
        self.members: list[list[int]] = list(groups.values())
        stacks = [[matrices[i] for i in each] for each in self.members]
        super().__init__([] if method is None else [_stacked(each, method) for each in stacks])

    def iterates(self, found: Sequence[Array]) -> list[Array]:
        """Return the iterate of each matrix, from the iterates of the stacks."""
        out: dict[int, Array] = {}
        for stack, members, X in zip(self, self.members, found, strict=True):
            X = stack.arrays.hand_out(_adjoint(stack.arrays, X) if stack.transpose else X)
            out |= {index: X[place, :, :] for place, index in enumerate(members)}
        return [out[index] for index in range(len(out))]


@dataclass(frozen=True, eq=False)
class PolarStack:
    """Stack of matrices before the iteration.

    Attributes
    ----------
    X : array of shape (b, m, n)
        Normalized matrices with m <= n, in the dtype of the products.
    polynomials : tuple of tuples of float
        Coefficients of the odd polynomial of each step, for X, X^3, X^5, ...
    transpose : bool
        True if X contains the adjoints of the matrices.
    arrays : Arrays
        Array library of the matrices.
    """

    X: Array
    polynomials: tuple[tuple[float, ...], ...]
    transpose: bool
    arrays: Arrays

    def iterated(self) -> Array:
        """Return the iterates."""
        with self.arrays.as_asked():
            adjoint = partial(_adjoint, self.arrays)
            return polar_products(self.X, self.polynomials, adjoint, self.arrays.added_product)


def polar_products(
    X: Array,
    polynomials: Sequence[Sequence[float]],
    adjoint: Callable[[Array], Array],
    added: Callable[[Array, Array, Array, float, float], Array],
) -> Array:
    """Run the matrix products of an iteration for the polar factor.

    Parameters
    ----------
    X : array of shape (b, m, n)
        Normalized matrices with m <= n.
    polynomials
        As in `PolarStack`.
    adjoint : callable
        Function that returns the conjugate transposes of a stack.
    added : callable
        Function of C, A, B, beta and alpha that returns ``beta C + alpha A B``.

    Returns
    -------
    array of shape (b, m, n)
    """
    alone = X.shape[0] == 1
    if alone:  # matrix products are faster than batched products of one matrix
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
    """Return matrices of one shape as a stack."""
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
    """Return the largest modulus of each matrix of a stack, as an array of shape (b, 1, 1)."""
    sizes = arrays.xp.max(arrays.xp.abs(X), axis=(1, 2), keepdims=True)
    largest = arrays.get(arrays.xp.max(sizes))
    if not math.isfinite(float(largest)):
        raise ValueError(
            "a direction contains NaN or inf; find where it comes from before making a step"
        )
    return sizes


def _clamped(arrays: Arrays, X: Array, eps: float) -> Array:
    """Return a stack in bfloat16 over ``max(||G||_F, eps)``, as `torch.optim.Muon` does."""
    xp, sizes = arrays.xp, _sizes(arrays, X)
    # The squares of larger entries overflow. Smaller matrices are not changed.
    X = X / arrays.like(xp.where(sizes > _LARGE, sizes, xp.ones_like(sizes)))
    if hasattr(xp, "bfloat16") and not arrays.is_complex:
        X = xp.astype(X, xp.bfloat16)
    norms = xp.linalg.vector_norm(X, axis=(1, 2), keepdims=True)
    return X / xp.astype(xp.where(norms > eps, norms, xp.full_like(norms, eps)), X.dtype)


def _normalized(arrays: Arrays, X: Array) -> Array:
    """Divide the matrices of a stack by their Frobenius norms; zero stays zero."""
    if not np.isfinite(arrays.largest_of_stack(X)).all():
        raise ValueError(
            "a direction contains NaN or inf; find where it comes from before making a step"
        )
    return arrays.units(X, axis=(1, 2))


def _adjoint(arrays: Arrays, X: Array) -> Array:
    return arrays.conj(arrays.xp.matrix_transpose(X))


_ADJUSTMENTS = {None: "muon", "original": "muon", "match_rms_adamw": "adamw"}


def muon_method(method: Any, ns_steps: int, ns_coefficients: Sequence[float], eps: float) -> Any:
    """Return the method of Muon's oracle; ValueError for options that it does not use."""
    own = MuonIteration(steps=ns_steps, coefficients=ns_coefficients, eps=eps)
    if isinstance(method, str) and method == "newton-schulz":
        return own
    if own != MuonIteration():
        raise ValueError(
            f"ns_steps, ns_coefficients and eps are options of method='newton-schulz', but method "
            f"is {method!r}; leave them out, or pass method=trsvd.NewtonSchulz(steps=..., "
            "coefficients=...)"
        )
    return method


def muon_scaling(adjust_lr_fn: Any, shape_scaling: Any) -> Any:
    """Return the scaling given by torch's name or by ours; ValueError if both are given."""
    if adjust_lr_fn not in _ADJUSTMENTS:
        raise ValueError(
            f"Adjust learning rate function {adjust_lr_fn} is not supported; pass 'original', "
            "'match_rms_adamw' or None"
        )
    if shape_scaling is None:
        return _ADJUSTMENTS[adjust_lr_fn]
    if adjust_lr_fn is not None:
        raise ValueError(
            f"adjust_lr_fn={adjust_lr_fn!r} and shape_scaling={shape_scaling!r} are both given; "
            "both set the factor of the updates: pass one of them"
        )
    return shape_scaling
