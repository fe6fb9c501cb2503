"""Warm steps: the leading pairs of a matrix near an earlier one, by one or two products with it.

Subspace iteration from the last subspace, half a step (one block product) at a time. With

    A V = U S   after a product with A,      A^H U = V S   after one with A^H,

``S`` sums to what ``U V^H`` attains, a lower bound of the Ky Fan norm that grows with each product.
How far it still has to go is estimated from three signs:

- the *gain* of a second product. In a subspace with two more columns than pairs a product leaves
  less behind than it gained;
- after one product alone, what that product gained over the old pairs, and the gain that a second
  one brought a step or two ago, whichever is more;
- the *energy* outside of the subspace, ``||A||_F^2 - sum s_i^2``, which needs no product. A
  direction that is new, and strong enough to matter, adds its square to it, even where it is
  orthogonal to everything that was followed. A tail that vanishes takes its square away and leaves
  room for a new direction. So the energy must be that of the last time that random columns were
  used, up to the scale of the matrix, and every old pair must still be there. Otherwise nothing
  is trusted: a block Krylov space with random columns beside the subspace starts again.

Rounding hides energy of about ``100 eps ||A||_F^2``. No estimate is less than what the Ky Fan norm
can rise by with so much more energy (`water_filling`).

A direction that takes over exactly the energy that the rest of the matrix loses in the same step
remains hidden if all old pairs are still there. No estimate from few products can exclude it.

On a flat spectrum none of these tells much: errors do not go down, and a product gains nothing
even where much is missed. It shows in the energy outside, and gains are not trusted then. But
where the k values are nearly one, a plateau, ``k ||A||_2`` is hardly more than the Ky Fan norm, and
a few Lanczos steps from a random vector, which knows nothing of what was followed, find the
spectral norm (J. Kuczynski, H. Wozniakowski, doi:10.1137/0613066).
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
"""Columns of a subspace beyond the k pairs; the last is blended with a random one."""

# Sine of the angle at which it is.
_BLEND = 0.3
# Products that a step makes before a Krylov space, which uses all of them, is the better way.
_MOST_PRODUCTS = 4
# Rounding of the energy outside of the subspace, in units of eps ||A||_F^2.
_ROUNDING = 100
# Lanczos steps to the spectral norm, by the gap asked for: errors go down as their square. Of few
# pairs a single one that was missed matters more.
_LANCZOS_STEPS = 3.2
# Tighter gaps would ask for more of them than a factorization costs.
_MOST_LANCZOS_STEPS = 104


@dataclass(frozen=True)
class Step:
    """Result of a warm step, for the scaled and transposed operator of the problem.

    Attributes
    ----------
    U, V : arrays of shape (m, p) and (n, p)
        Orthonormal columns: k pairs and a few more.
    S : array of shape (p,)
        ``U^H A V = diag(S)``.
    gap : float or None
        Estimate of the relative gap of the k leading ones; None where the subspace was lost.
    track : Track
        For the next step.
    ceiling : float
        Of the Ky Fan norm, an estimate; inf where none was made.
    """

    U: Array
    V: Array
    S: HostArray
    gap: float | None
    track: Track
    ceiling: float


def outside_of(norm: float, S: HostArray) -> float:
    """Root of the energy outside of pairs with values S of a matrix of this norm."""
    return math.sqrt(max(norm**2 - float(np.sum(S**2)), 0.0))


def looked(k: int, values: HostArray, norm: float, flat: int = 0) -> Track:
    """The first track of a subspace with these values, of a matrix of this norm."""
    track = Track(k, False, math.inf, 0, values, 0.0, flat)
    return remembered(track, values, outside_of(norm, values))


def remembered(track: Track, values: HostArray, outside: float) -> Track:
    """The track with other values and another root of the energy outside, over the first value."""
    largest = float(values[0]) or 1.0
    return replace(track, values=values / largest, outside=outside / largest)


def track(problem: Problem, start: Subspace, k: int, gap: float) -> Step | None:
    """One warm step from the subspace that an oracle left; None if it cannot be made.

    Parameters
    ----------
    problem : Problem
        The matrix.
    start : Subspace
        With the track of an oracle for k pairs of a matrix of the same shape.
    k : int
        Number of pairs.
    gap : float
        Relative gap asked for.
    """
    memory, op, arrays = start.track, problem.op, problem.arrays
    width = min(k + GUARDS, problem.rank)
    # Where two products with so wide a block cost as much as all of A, that is the better way.
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
    """``|p_i^H A q_i|`` of old pairs, from ``U^H p_i`` and ``V^H q_i`` where ``A ~ U S V^H``.

    By how much the old pairs are still those of A: unlike a norm it does not grow by what is new.
    """
    return np.asarray(np.abs(np.sum(np.conj(left) * S[..., :, None] * right, axis=-2)))


def blended(columns: Array, fresh: Array) -> Array:
    """Columns to spare, turned towards random ones of the same length."""
    return math.sqrt(1 - _BLEND**2) * columns + _BLEND * fresh


class Watch:
    """Looks at the values after each product, and says when to stop and what the gap is.

    Attributes
    ----------
    over : bool
        Whether no further product is due.
    gap : float or None
        Estimate of the gap; None while (and where) the subspace is not to be trusted.
    memory : Track
        What the next step is to know.
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
        """Take in the Ritz values after another product."""
        k, memory = self.k, self.memory
        self.products += 1
        if self.products == 1:
            steady = self._compare(S)
            # An earlier gain, which varies less over many pairs, and what this product gained.
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

        Asked once: after the first product, or of a few pairs, which are near to each other
        anywhere, after the last.
        """
        k, S = self.k, self.before
        due = self.products == 1 and not self.over if k >= 4 else self.over and self.gap is None
        return due and bool(float(S[:k].sum()) >= (1 - 4 * self.asked) * k * S[0])

    def settle(self, found: HostArray) -> None:
        """Take in `lanczos_values`: the Ky Fan norm is at most k times the spectral norm.

        Those that the subspace does not have are outside of it, and its last value may be as large.
        """
        k, S = self.k, self.before
        self.top = max(float(found[0]), float(S[0]))
        self.ceiling = k * self.top
        if 1 - float(S[:k].sum()) / self.ceiling <= self.asked:
            # So many steps resolve the gap that was asked for, and nothing smaller.
            self.gap, self.over = self.asked, True
            last, seen = float(S[-1]), min(len(S), len(found))
            beside, inside = found[1:seen], S[1:seen]
            # The column that is blended with a random one falls short by so much.
            if (beside * (1 - _BLEND**2) > inside).any():
                last = max(last, float(beside[beside > inside].max()))
            values = np.append(S[:-1], last)
            self.memory = remembered(self.memory, values, outside_of(self.norm, S))

    def _compare(self, S: HostArray) -> bool:
        """Derive the energy to expect outside from the change of the values; True if all alike.

        A matrix that moved by a factor keeps its pairs by that factor. Of many values the median
        tells it, which a few new directions do not change; of a few the least of what became of the
        old pairs. A direction that would matter to the gap is larger than ``s_k`` by the gap, and
        it was outside of the subspace before, at most as large as the last value. The alarm is a
        change of the energy outside by the difference of their squares, or by half of the former.
        So is an old pair of which less than half is left.
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
    """Ritz values of Golub-Kahan steps from a random vector; the first estimates ``||A||_2``.

    That is the largest Ritz value, which needs no reorthogonalization, and once more what the last
    quarter of the steps added to it.
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
    """A vector of length 1; 0 where it is 0."""
    return x / arrays.like(arrays.xp.where(length > 0, length, arrays.xp.ones_like(length)))


def _block(problem: Problem, start: Subspace, width: int) -> Array:
    """The newer side of the subspace, with a random column blended into the last."""
    arrays, track = problem.arrays, start.track
    assert track is not None
    X = arrays.take(start.U) if track.left_is_newer else arrays.adjoint(arrays.take(start.Vh))
    fresh = arrays.gaussian(problem.rng, X.shape[0], width - min(int(X.shape[1]), width - 1))
    fresh = fresh / arrays.column_norms(fresh)
    if X.shape[1] >= width:
        fresh = blended(X[:, width - 1 : width], fresh)
    return arrays.xp.concat([X[:, : width - 1], fresh], axis=1)


def _still_to_come(before: HostArray, S: HostArray, k: int) -> float:
    """Extrapolate the relative gain still to come from the growth by the last product.

    An error that goes down by ``rho = (q / s_i)^2`` a product, where the first value outside is q,
    leaves ``rho / (1 - rho)`` times what the last product gained. The first of the columns to spare
    stands for q, which overrates it; or the second, which may not, and no less than the gain. A
    flat spectrum, where a gain tells little, has rho near 1.
    """
    gains = np.maximum(S[:k] - before[:k], 0.0)
    if float(gains.sum()) > 0.1 * float(S[:k].sum()):  # far from where errors go down by a factor
        return math.inf
    spare = S[k : k + 2] if len(S) > k else S[k - 1 :]
    left = []
    for q in (spare[0], spare[-1]):
        rho = np.minimum((q / S[:k]) ** 2, 0.999)
        left.append(float(np.sum(gains * rho / (1 - rho))))
    total = min(left[0], max(left[1], float(gains.sum())))
    # A value behind the k-th that grows on as it did may pass it.
    total += float(np.maximum(2 * S[k:] - before[k:] - S[k - 1], 0.0).sum())
    return total / float(S[:k].sum())


def below(S: HostArray, rest: float) -> float:
    """The relative gap of the values S if this energy outside of the subspace joins them."""
    return 1 - float(S.sum()) / water_filling(S, rest)


def water_filling(S: HostArray, rest: float) -> float:
    """``max sum_i sqrt(s_i^2 + q_i)`` over ``q >= 0`` with ``sum q = rest``.

    What the k leading singular values can add up to, when a projection of the matrix has the
    values S and the square of the Frobenius norm of what it leaves is ``rest``. The maximum raises
    the smallest values to a common level.

    Parameters
    ----------
    S : array of shape (k,)
        Descending.
    rest : float
        At least 0.

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
