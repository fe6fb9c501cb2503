"""Warm steps: the leading pairs of a matrix near an earlier one, by one or two products with it.

Subspace iteration from the last subspace, half a step (one block product) at a time. With

    A V = U S   after a product with A,      A^H U = V S   after one with A^H,

``S`` sums to what ``U V^H`` attains, a lower bound of the Ky Fan norm that grows with each product.
How far it still has to go is estimated from three signs:

- the *gain* of a second product. In a subspace with a few columns to spare a product leaves less
  behind than it gained;
- after one product alone, the gain that a second one brought a step or two ago;
- the *energy* outside of the pairs, ``||A||_F^2 - sum s_i^2``, which needs no product. A direction
  that is new, and strong enough to matter, adds its square to it, even where it is orthogonal to
  everything that was followed: then the subspace is not trusted, and a block Krylov space with
  random columns beside it looks anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from trsvd._arrays import Array, HostArray
from trsvd._problem import Problem
from trsvd._subspace import Subspace as Iteration
from trsvd.result import Subspace, Track

__all__ = ["Step", "Watch", "blended", "guards", "tail_of", "track"]


def guards(k: int) -> int:
    """How many columns beyond k a subspace keeps; the last is blended with a random one."""
    return 1 if k < 4 else 2


# Sine of the angle at which it is.
_BLEND = 0.3
# Products that a step makes before a Krylov space, which uses all of them, is the better way.
_MOST_PRODUCTS = 4


@dataclass(frozen=True)
class Step:
    """Where a warm step arrived, as the operator of the problem is scaled and turned.

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
    """

    U: Array
    V: Array
    S: HostArray
    gap: float | None
    track: Track


def tail_of(energy: float, S: HostArray) -> float:
    """Energy outside of k pairs over that inside."""
    inside = float(np.sum(S**2))
    return max(energy - inside, 0.0) / inside if inside else 0.0


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
    memory, op = start.track, problem.op
    width = min(k + guards(k), problem.rank)
    # Where two products with so wide a block cost as much as all of A, that is the better way.
    if memory is None or memory.k != k or 2 * width > problem.rank:
        return None
    if (start.U.shape[0], start.Vh.shape[1]) != problem.shape or start.U.shape[1] < k:
        return None
    norm = op.norm_hint or op.frobenius_norm()
    if norm is None or norm == 0:
        return None
    watch = Watch(memory, norm, k, gap)
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
        watch.look(S)
    memory = replace(watch.memory, left_is_newer=left != problem.flipped)
    return Step(iteration.U, iteration.V, S, watch.gap, memory)


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
    """

    def __init__(self, memory: Track, norm: float, k: int, asked: float) -> None:
        self.memory, self.k, self.asked = memory, k, asked
        self.energy = norm**2
        self.tail = memory.tail
        self.products = 0
        self.over = False
        self.gap: float | None = None
        self.before: HostArray = np.zeros(0)

    def look(self, S: HostArray) -> None:
        """Take in the Ritz values after another product."""
        k, memory = self.k, self.memory
        self.products += 1
        quiet = self._quiet(S[:k])
        if self.products == 1:
            # An earlier gain, which nothing of this matrix backs; it varies less over many pairs.
            estimate = (4 + 16 / k) * memory.gain * (memory.age + 1) ** 2
            self.memory = replace(memory, age=memory.age + 1)
        else:
            left = _still_to_come(self.before, S, k)
            estimate = (1.1 if self.products == 2 else 1.75) * left
            if self.products == 2:
                gain = 1 - float(self.before[:k].sum()) / float(S[:k].sum())
                self.memory = replace(memory, gain=max(gain, left), age=0)
        self.before = S
        if quiet and estimate <= self.asked:
            self.gap, self.over = estimate, True
        elif self.products == _MOST_PRODUCTS or (self.products > 1 and not quiet):
            self.over = True

    def _quiet(self, S: HostArray) -> bool:
        """Whether nothing that would matter to the gap can have joined what is outside.

        It would have to be larger than ``s_k`` by the gap; half of its energy is the alarm.
        """
        least = S[-1] + self.asked * float(S.sum())
        outside = self.energy - (1 + self.tail) * float(np.sum(S**2))
        return bool(outside <= 0.5 * least**2)


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
    """What is still to come, relative, from how the values grew with the last product.

    An error that goes down by ``rho = (q / s_i)^2`` a product, where the first value outside is q,
    leaves ``rho / (1 - rho)`` times what the last product gained. The first of the columns to spare
    stands for q, which overrates it; or the second, which may not, and no less than the gain. A
    flat spectrum, where a gain tells little, has rho near 1.
    """
    gains = np.maximum(S[:k] - before[:k], 0.0)
    spare = S[k : k + 2] if len(S) > k else S[k - 1 :]
    left = []
    for q in (spare[0], spare[-1]):
        rho = np.minimum((q / S[:k]) ** 2, 0.999)
        left.append(float(np.sum(gains * rho / (1 - rho))))
    total = min(left[0], max(left[1], float(gains.sum())))
    return total / float(S[:k].sum())
