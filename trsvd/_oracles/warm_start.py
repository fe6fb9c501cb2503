"""Warm steps: leading pairs of a matrix near an earlier one, by one or two block products.

The algorithm is subspace iteration from the last subspace, half a step (one block product) at a
time. With

    A V = U S   after a product with A,      A^H U = V S   after one with A^H,

the sum of ``S`` is the value that ``U V^H`` attains. It is a lower bound of the Ky Fan norm, and
grows with each product. The remaining gap is estimated from three quantities:

- the *gain* of a second product. In a subspace with two more columns than pairs, the remaining gap
  after a product is less than its gain;
- after one product, the larger of its gain over the old pairs and the gain of the last second
  product, a step or two ago;
- the *energy* outside of the subspace, ``||A||_F^2 - sum s_i^2``, which needs no product. A new
  strong direction adds its square to it, even if it is orthogonal to the subspace. Vanishing small
  singular values reduce it, and could hide a new direction. Therefore the energy must be that of
  the last use of random columns, up to the scale of the matrix, and every old pair must still
  exist. Otherwise the estimate is rejected, and a block Krylov space with additional random columns
  starts from the subspace.

Rounding errors hide an energy of about ``100 eps ||A||_F^2``. The estimate is at least the increase
of the Ky Fan norm by this energy (`water_filling`).

A new direction with exactly the energy that the rest of the matrix loses in the same step is not
detected if all old pairs still exist. No estimate from few products can exclude this.

On a flat spectrum errors do not decrease, and a product gains nothing even if much is missed. The
energy outside of the subspace shows this, and gains are not used then. If the k values are nearly
equal, ``k ||A||_2`` is only slightly more than the Ky Fan norm. Then a few Lanczos steps from a
random vector, independent of the subspace, give the spectral norm (J. Kuczynski, H. Wozniakowski,
doi:10.1137/0613066).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._krylov.rayleigh_ritz import check_finite
from trsvd._krylov.subspace_iteration import Subspace as Iteration
from trsvd._plan.cost import is_flat
from trsvd._solve.problem import Problem
from trsvd._solve.result import Subspace, Track
from trsvd.operators.counting import Metered

GUARDS = 2
"""Number of columns beyond the k pairs; a random vector is added to the last."""

# Sine of the angle between this column and its sum with the random vector.
_BLEND = 0.3
# Largest number of products of a step; after them a Krylov space is more efficient.
_MOST_PRODUCTS = 4
# Rounding error of the energy outside of the subspace, in units of eps ||A||_F^2.
_ROUNDING = 100
# Lanczos steps for the spectral norm, by the requested gap: errors decrease with the square of the
# number of steps. For few pairs, a single missed one matters more.
_LANCZOS_STEPS = 3.2
# Smaller gaps would need more steps than a factorization costs.
_MOST_LANCZOS_STEPS = 104


@dataclass(frozen=True)
class Step:
    """Result of a warm step, for the scaled and transposed operator of the problem.

    Attributes
    ----------
    U, V : arrays of shape (m, p) and (n, p)
        Orthonormal columns for k pairs and a few more.
    S : array of shape (p,)
        ``U^H A V = diag(S)``.
    gap : float or None
        Estimate of the relative gap of the k leading pairs; None if the subspace was lost.
    track : Track
        Record for the next step.
    ceiling : float
        Estimated upper bound of the Ky Fan norm; inf without an estimate.
    """

    U: Array
    V: Array
    S: HostArray
    gap: float | None
    track: Track
    ceiling: float


def outside_of(norm: float, S: HostArray) -> float:
    """Return the square root of the energy outside of pairs with values S."""
    return math.sqrt(max(norm**2 - float(np.sum(S**2)), 0.0))


def looked(k: int, values: HostArray, norm: float, flat: int = 0) -> Track:
    """Return the first track of a subspace with these values, for a matrix of this norm."""
    track = Track(k, False, math.inf, 0, values, 0.0, flat)
    return remembered(track, values, outside_of(norm, values))


def remembered(track: Track, values: HostArray, outside: float) -> Track:
    """Return the track with other values and another norm outside of the subspace."""
    largest = float(values[0]) or 1.0
    return replace(track, values=values / largest, outside=outside / largest)


def track(problem: Problem, start: Subspace, k: int, gap: float) -> Step | None:
    """Make a warm step from the subspace of an oracle; return None if that is not possible.

    Parameters
    ----------
    problem : Problem
        The matrix.
    start : Subspace
        Subspace with a track of an oracle for k pairs of a matrix of the same shape.
    k : int
        Number of pairs.
    gap : float
        Requested relative gap.
    """
    memory, op, arrays = start.track, problem.op, problem.arrays
    width = min(k + GUARDS, problem.rank)
    # If two products with such a wide block cost as much as a factorization, that is better.
    if memory is None or memory.k != k or 2 * width > problem.rank:
        return None
    if (start.U.shape[0], start.Vh.shape[1]) != problem.shape or start.U.shape[1] < k:
        return None
    norm = op.norm_hint or op.frobenius_norm()
    if norm is None or norm == 0 or not memory.values[0] > 0:
        return None
    watch = Watch(memory, norm, k, gap, problem.rank, problem.eps)
    left = memory.left_is_newer != problem.flipped
    iteration = Iteration(op, _block(problem, start, width), problem.rng, left=left)
    S: HostArray = np.zeros(0)
    while not watch.over:
        (iteration.multiply_adjoint if left else iteration.multiply)(op)
        left = not left
        assert iteration.S is not None
        S = iteration.S
        if S[k - 1] == 0:
            return None
        if watch.products == 0:
            P = arrays.take(start.U)
            Q = arrays.adjoint(arrays.take(start.Vh))
            if problem.flipped:
                P, Q = Q, P
            inner = (arrays.adjoint_product(iteration.U, P), arrays.adjoint_product(iteration.V, Q))
            watch.kept = kept_values(arrays.get(inner[0]), S, arrays.get(inner[1]))
        watch.look(S)
        steps = _LANCZOS_STEPS / (max(gap, arrays.eps) * min(k, 4)) ** 0.5
        if steps <= min(_MOST_LANCZOS_STEPS, problem.rank) and watch.on_plateau:
            watch.settle(lanczos_values(op, math.ceil(steps), problem.rng))
    memory = replace(watch.memory, left_is_newer=left != problem.flipped)
    return Step(iteration.U, iteration.V, S, watch.gap, memory, watch.ceiling)


def kept_values(left: HostArray, S: HostArray, right: HostArray) -> HostArray:
    """Return ``|p_i^H A q_i|`` of old pairs, from ``U^H p_i``, ``V^H q_i`` and ``A ~ U S V^H``.

    This measures how much of the old pairs remains. Unlike a norm, it does not grow by new pairs.
    """
    return np.asarray(np.abs(np.sum(np.conj(left) * S[..., :, None] * right, axis=-2)))


def blended(columns: Array, fresh: Array) -> Array:
    """Add random vectors of the same length to the guard columns."""
    return math.sqrt(1 - _BLEND**2) * columns + _BLEND * fresh


class Watch:
    """Estimates of the gap after each product, and the decision to stop.

    Attributes
    ----------
    over : bool
        True if no further product is needed.
    gap : float or None
        Estimate of the gap; None if the subspace is not reliable (yet).
    memory : Track
        Record for the next step.
    ceiling : float
        See `Step`.
    """

    def __init__(
        self, memory: Track, norm: float, k: int, asked: float, rank: int, eps: float
    ) -> None:
        self.memory, self.norm, self.k, self.asked = memory, norm, k, asked
        self.rank = rank
        self.unresolved = _ROUNDING * eps * norm**2
        self.products = 0
        self.over = False
        self.gap: float | None = None
        self.before: HostArray = np.zeros(0)
        self.room = self.outside = self.top = 0.0
        self.ceiling = math.inf
        self.intact = False
        # `kept_values` of all columns of the subspace, set before the first look.
        self.kept: HostArray = np.zeros(0)

    def look(self, S: HostArray) -> None:
        """Process the Ritz values after another product."""
        k, memory = self.k, self.memory
        self.products += 1
        if self.products == 1:
            steady = self._compare(S)
            # An earlier gain, which varies less over many pairs, and the gain of this product.
            estimate = (4 + 16 / k) * memory.gain * (memory.age + 1) ** 2 if steady else math.inf
            estimate = max(estimate, 1 - float(self.kept[:k].sum()) / float(S[:k].sum()))
            self.memory = replace(memory, age=memory.age + 1)
        else:
            left = _still_to_come(self.before, S, k)
            estimate = (1.25 if self.products == 2 else 1.75) * left
            if self.products == 2:
                gain = 1 - float(self.before[:k].sum()) / float(S[:k].sum())
                self.memory = replace(memory, gain=max(gain, left), age=0)
        self.before = S
        outside = outside_of(self.norm, S) ** 2
        beyond = outside_of(self.norm, S[:k]) ** 2
        flat = is_flat(beyond / max(self.rank - k, 1), float(S[k - 1]))
        if flat:
            estimate = math.inf
        quiet = self.intact and abs(outside - self.outside**2) <= self.room
        missed = max(self.top - float(S[0]), 0.0) / float(S[:k].sum())  # if the norm is known
        estimate = max(estimate, missed, below(S[:k], self.unresolved))
        if quiet and estimate <= self.asked:
            self.gap, self.over = estimate, True
        elif self.products == _MOST_PRODUCTS or (self.products > 1 and (flat or not quiet)):
            self.over = True
        self.memory = remembered(self.memory, S, self.outside)

    @property
    def on_plateau(self) -> bool:
        """True if ``k ||A||_2`` may be close enough to the attained value to prove the gap.

        This is tested once: after the first product, or for few pairs after the last one.
        """
        k, S = self.k, self.before
        due = self.products == 1 and not self.over if k >= 4 else self.over and self.gap is None
        return due and bool(float(S[:k].sum()) >= (1 - 4 * self.asked) * k * S[0])

    def settle(self, found: HostArray) -> None:
        """Process `lanczos_values`: the Ky Fan norm is at most k times the spectral norm.

        Values that the subspace does not have are outside of it, and may be as large as its last
        value.
        """
        k, S = self.k, self.before
        self.top = max(float(found[0]), float(S[0]))
        self.ceiling = k * self.top
        if 1 - float(S[:k].sum()) / self.ceiling <= self.asked:
            # The number of steps resolves the requested gap, and no smaller one.
            self.gap, self.over = self.asked, True
            last, seen = float(S[-1]), min(len(S), len(found))
            beside, inside = found[1:seen], S[1:seen]
            # Loss by the random vector that was added to the last column.
            if (beside * (1 - _BLEND**2) > inside).any():
                last = max(last, float(beside[beside > inside].max()))
            values = np.append(S[:-1], last)
            self.memory = remembered(self.memory, values, outside_of(self.norm, S))

    def _compare(self, S: HostArray) -> bool:
        """Compare the energy outside with the expected one; True if nothing unexpected is found.

        If the matrix changed by a factor, the pairs change by that factor. For many values, the
        factor is the median of their ratios, which a few new directions do not change. For few
        values, it is the smallest ratio of the old pairs. A new direction matters for the gap if it
        exceeds ``s_k`` by the gap. Before, it was outside of the subspace, and at most as large as
        the last value. The step is rejected if the energy outside changes by the difference of
        their squares, or by half of the former, or if less than half of an old pair remains.
        """
        k, old = self.k, self.memory.values
        ratios = (S if k > 4 else self.kept)[:k] / np.where(old[:k] > 0, old[:k], np.inf)
        factor = float(np.median(ratios)) if k > 4 else float(ratios.min())
        self.outside = factor * self.memory.outside
        self.intact = bool((self.kept >= 0.5 * factor * old).all())
        least = float(S[k - 1]) + self.asked * float(S[:k].sum())
        self.room = min(0.5 * least**2, least**2 - (factor * float(old[-1])) ** 2)
        whole = math.hypot(float(np.linalg.norm(old)), self.memory.outside)
        changes = np.append(ratios, self.norm / whole) / factor - 1 if factor else [math.inf]
        return k >= 4 and bool(np.abs(changes).max() <= 2 * self.asked)


def lanczos_values(op: Metered, steps: int, rng: np.random.Generator) -> HostArray:
    """Return Ritz values of Golub-Kahan steps from a random vector, the first increased.

    The largest Ritz value needs no reorthogonalization. The increase by the last quarter of the
    steps is added to it once more, to estimate ``||A||_2``.
    """
    arrays, xp = op.arrays, op.arrays.xp
    u, v = arrays.zeros(op.shape[0], 1), arrays.gaussian(rng, op.shape[1], 1)
    lengths = [arrays.column_norms(v)]
    for _ in range(steps):
        v = _over(arrays, v, lengths[-1])
        u = op.matmat(v) - u * arrays.like(lengths[-1])
        lengths.append(arrays.column_norms(u))
        u = _over(arrays, u, lengths[-1])
        v = op.rmatmat(u) - v * arrays.like(lengths[-1])
        lengths.append(arrays.column_norms(v))
    found = arrays.get(xp.concat(lengths)).astype(np.float64)
    check_finite(found)
    B = np.diag(found[1::2]) + np.diag(found[2:-1:2], 1)
    before = float(np.linalg.norm(B[: steps - steps // 4, : steps - steps // 4], 2))
    values = np.linalg.svd(B, compute_uv=False)
    values[0] *= values[0] / before if before else 1.0
    return values


def _over(arrays: Arrays, x: Array, length: Array) -> Array:
    """Scale a vector to length 1; 0 stays 0."""
    return x / arrays.like(arrays.xp.where(length > 0, length, arrays.xp.ones_like(length)))


def _block(problem: Problem, start: Subspace, width: int) -> Array:
    """Return the newer side of the subspace, with a random vector added to the last column."""
    arrays, track = problem.arrays, start.track
    assert track is not None
    X = arrays.take(start.U) if track.left_is_newer else arrays.adjoint(arrays.take(start.Vh))
    fresh = arrays.gaussian(problem.rng, X.shape[0], width - min(int(X.shape[1]), width - 1))
    fresh = fresh / arrays.column_norms(fresh)
    if X.shape[1] >= width:
        fresh = blended(X[:, width - 1 : width], fresh)
    return arrays.xp.concat([X[:, : width - 1], fresh], axis=1)


def _still_to_come(before: HostArray, S: HostArray, k: int) -> float:
    """Extrapolate the remaining relative gain from the growth by the last product.

    If the error decreases by ``rho = (q / s_i)^2`` for each product, where q is the first value
    outside, ``rho / (1 - rho)`` times the gain of the last product remains. The value of the first
    guard column is used for q, which is an upper bound; or that of the second, which may be too
    small, with at least the gain itself. A flat spectrum has rho near 1.
    """
    gains = np.maximum(S[:k] - before[:k], 0.0)
    if float(gains.sum()) > 0.1 * float(S[:k].sum()):  # no constant factor yet
        return math.inf
    guards = S[k : k + 2] if len(S) > k else S[k - 1 :]
    left = []
    for q in (guards[0], guards[-1]):
        rho = np.minimum((q / S[:k]) ** 2, 0.999)
        left.append(float(np.sum(gains * rho / (1 - rho))))
    total = min(left[0], max(left[1], float(gains.sum())))
    # A value after the k-th may exceed it if it continues to grow.
    total += float(np.maximum(2 * S[k:] - before[k:] - S[k - 1], 0.0).sum())
    return total / float(S[:k].sum())


def below(S: HostArray, rest: float) -> float:
    """Return the relative gap of the values S if the energy ``rest`` is added to them."""
    return 1 - float(S.sum()) / water_filling(S, rest)


def water_filling(S: HostArray, rest: float) -> float:
    """Return ``max sum_i sqrt(s_i^2 + q_i)`` over ``q >= 0`` with ``sum q = rest``.

    This bounds the sum of the k leading singular values, if a projection of the matrix has the
    values S and the squared Frobenius norm of the remainder is ``rest``. The maximum raises the
    smallest values to a common level.

    Parameters
    ----------
    S : array of shape (k,)
        Values, descending.
    rest : float
        Squared norm, at least 0.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> water_filling(np.array([3.0, 0.0]), 4.0)  # the second one rises to 2
    5.0
    """
    squares = np.asarray(S, dtype=np.float64)[::-1] ** 2
    k = len(squares)
    # Raising the j smallest to one level costs j * level - (their sum).
    sums = np.cumsum(squares)
    for j in range(1, k + 1):
        level = (sums[j - 1] + rest) / j
        if j == k or level <= squares[j]:
            return float(j * np.sqrt(level) + np.sqrt(squares[j:]).sum())
    return 0.0
