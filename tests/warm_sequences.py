"""Sequences of matrices that mislead a warm start, and the question whether an answer is wrong.

A sequence follows from its seed. It begins with a few matrices that hardly move, as an optimizer's
momentum does, and then does what its kind says: the tail of the spectrum vanishes, a new direction
comes up, the leading pairs turn, and so on. `examine` runs the oracle of a ball along it, each step
from the subspace of the last one, and compares every update with the full SVD.

As a command it examines many sequences and counts::

    python tests/warm_sequences.py --examples 20000 --seed 0
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import trsvd

__all__ = ["EXCHANGES", "KINDS", "Finding", "WarmSequence", "draw", "examine", "true_gap"]

GAPS = (1e-1, 1e-2, 1e-2, 1e-3)
_SIDES = {False: ((24, 81), (20, 61)), True: ((80, 161), (66, 121))}
# float64 more often: what goes wrong there is never rounding.
DTYPES = ("float64", "float64", "float64", "float32", "complex128", "complex64")


@dataclass
class Spectrum:
    """A matrix by its factors, which the events of a sequence change."""

    rng: np.random.Generator
    U: np.ndarray
    s: np.ndarray
    V: np.ndarray
    k: int

    @property
    def matrix(self) -> np.ndarray:
        return (self.U * self.s) @ self.V.conj().T

    @property
    def level(self) -> float:
        """The largest value; 1 for the zero matrix."""
        return float(self.s.max()) or 1.0

    def noise(self, size: float) -> np.ndarray:
        """A Gaussian matrix with about this spectral norm."""
        m, n = len(self.U), len(self.V)
        E = gaussian(self.rng, m, n, complex_=np.iscomplexobj(self.U))
        return size * E / (m**0.5 + n**0.5)

    def place(self, kind: str) -> int:
        """An index in the head, in the tail, or of the last and smallest value."""
        r = len(self.s)
        if kind == "head":
            return int(self.rng.integers(0, self.k))
        return r - 1 if kind == "zero" else int(self.rng.integers(min(self.k + 1, r - 1), r))

    def turn(self, side: str, angle: float, first: int) -> None:
        """Turn the leading ``first`` vectors of a side towards random others."""
        X = getattr(self, side).copy()
        W = gaussian(self.rng, len(X), first, complex_=np.iscomplexobj(X))
        W = W - X @ (X.conj().T @ W) if len(X) >= X.shape[1] + first else W
        W = W / np.linalg.norm(W, axis=0)
        X[:, :first] = np.cos(angle) * X[:, :first] + np.sin(angle) * W
        setattr(self, side, np.linalg.qr(X)[0])


@dataclass(frozen=True)
class WarmSequence:
    """Matrices one after the other, and how the oracle is to be asked.

    Attributes
    ----------
    kind, seed : str, int
        Where it came from.
    k : list of int
        The rank of each step.
    gap : float
        The relative gap asked for.
    matrices : list of (m, n) arrays
        One for each step.
    fixed : bool
        Use the same seed for the random numbers of every step.
    together : bool
        Hand two matrices at a time to `lmo_many`, as arrays of PyTorch: they are stacked.
    """

    kind: str
    seed: int
    k: list[int]
    gap: float
    matrices: list[np.ndarray] = field(repr=False)
    fixed: bool
    together: bool


def gaussian(rng: np.random.Generator, m: int, n: int, *, complex_: bool) -> np.ndarray:
    X = rng.standard_normal((m, n))
    return X + 1j * rng.standard_normal((m, n)) if complex_ else X


# ---- events -----------------------------------------------------------------------------------
# Each is a generator: it changes the spectrum and yields the matrices of its steps.


def steady(A: Spectrum, steps: int) -> Iterator[np.ndarray]:
    """Nothing but a little noise, if any."""
    size = A.rng.choice([0.0, 0.0, 1e-3, 1e-2]) * A.level
    for _ in range(steps):
        yield A.matrix + A.noise(size)


def collapse(A: Spectrum) -> Iterator[np.ndarray]:
    """The tail vanishes, or nearly; a new direction comes up in that step or a later one."""
    first, later = A.k + int(A.rng.integers(0, 3)), int(A.rng.integers(0, 3))
    lost = float(np.linalg.norm(A.s[first:]))
    A.s[first:] *= A.rng.choice([0.0, 0.0, 1e-6, 0.1])
    yield from steady(A, later)
    strength = A.rng.uniform(0.3, 3) * A.level
    while not later and abs(strength**2 - lost**2) < A.level**2:
        strength = A.rng.uniform(0.3, 4) * A.level  # else it is an exchange, see below
    A.s[A.place(A.rng.choice(["zero", "tail"]))] = strength
    yield from steady(A, int(A.rng.integers(1, 3)))


def insert(A: Spectrum) -> Iterator[np.ndarray]:
    """A new direction, in what was zero or inside the tail."""
    A.s[A.place(A.rng.choice(["zero", "tail"]))] = A.rng.uniform(0.3, 3) * A.level
    yield from steady(A, int(A.rng.integers(1, 3)))


def insert_several(A: Spectrum) -> Iterator[np.ndarray]:
    """Many new directions at once, of nearly one strength."""
    some = A.rng.integers(1, len(A.s), int(A.rng.integers(2, 2 * A.k + 2)))
    A.s[some] = A.rng.uniform(0.5, 2) * A.level * A.rng.uniform(0.9, 1, len(some))
    yield from steady(A, 2)


def creep(A: Spectrum) -> Iterator[np.ndarray]:
    """A new direction that grows from step to step."""
    yield from _creep(A, 1.0)


def _creep(A: Spectrum, shrink: float) -> Iterator[np.ndarray]:
    place = A.place("tail")
    strength, final = 0.1 * A.level, A.rng.uniform(1, 3) * A.level
    for _ in range(6):
        A.s[A.k :] *= shrink
        A.s[place] = strength
        strength = min(strength * A.rng.uniform(1.2, 2.0), final)
        yield from steady(A, 1)


def removal(A: Spectrum) -> Iterator[np.ndarray]:
    """Some leading values vanish; perhaps another direction comes up."""
    A.s[: int(A.rng.integers(1, A.k + 2))] = 0
    if A.s.max() == 0:
        A.s[-1] = 1.0
    yield from steady(A, int(A.rng.integers(1, 3)))
    if A.rng.random() < 0.5:
        yield from insert(A)


def rotation(A: Spectrum) -> Iterator[np.ndarray]:
    """The leading vectors of one side or both turn, a little at each step or far at once."""
    sides = A.rng.choice(["U", "V", "UV"])
    first = int(A.rng.choice([1, A.k, min(A.k + 4, len(A.s))]))
    angles = A.rng.choice([0.02, 0.1, 0.3]) * np.ones(5)
    if A.rng.random() < 0.5:
        angles = np.array([A.rng.choice([0.5, 1.0, np.pi / 2]), 0.0])
    for angle in angles:
        for side in sides:
            A.turn(side, angle, first)
        yield from steady(A, 1)


def swap(A: Spectrum) -> Iterator[np.ndarray]:
    """Leading values change places with others of the tail."""
    for _ in range(int(A.rng.integers(1, 4))):
        count = int(A.rng.integers(1, A.k + 1))
        i = A.rng.permutation(A.k)[:count]
        j = A.k + A.rng.permutation(len(A.s) - A.k)[:count]
        A.s[i], A.s[j] = A.s[j].copy(), A.s[i].copy()
        yield from steady(A, int(A.rng.integers(1, 3)))


def swap_sides(A: Spectrum) -> Iterator[np.ndarray]:
    """The vectors of one side are dealt anew: the same values, other pairs."""
    A.V = A.V[:, A.rng.permutation(len(A.s))]
    yield from steady(A, 2)


def anew(A: Spectrum) -> Iterator[np.ndarray]:
    """An unrelated matrix with the same values."""
    for side in ("U", "V"):
        X = getattr(A, side)
        shape = X.shape
        setattr(A, side, np.linalg.qr(gaussian(A.rng, *shape, complex_=np.iscomplexobj(X)))[0])
    yield from steady(A, 2)


def scales(A: Spectrum) -> Iterator[np.ndarray]:
    """Other units at each step; perhaps a new direction meanwhile."""
    sizes = 10.0 ** A.rng.uniform(-20, 20, 4)
    if A.rng.random() < 0.5:
        A.s[A.place("tail")] = A.rng.uniform(0.5, 3) * A.level
    for size in sizes:
        for matrix in steady(A, 1):
            yield size * matrix


def plateau(A: Spectrum) -> Iterator[np.ndarray]:
    """The values behind the k-th rise to a plateau, and something rises above it."""
    level = A.level
    A.s[: min(3 * A.k + 4, len(A.s))] = level * A.rng.uniform(0.99, 1.0)
    yield from steady(A, int(A.rng.integers(1, 3)))
    A.s[A.place("tail")] = A.rng.uniform(1, 2) * level
    yield from steady(A, 2)


def zeros(A: Spectrum) -> Iterator[np.ndarray]:
    """A zero matrix in between; what comes after it may be another."""
    yield np.zeros_like(A.matrix)
    if A.rng.random() < 0.7:
        yield from insert(A)
    yield from steady(A, 2)


def repeats(A: Spectrum) -> Iterator[np.ndarray]:
    """The same matrix again and again, then a change."""
    matrix = A.matrix
    for _ in range(4):
        yield matrix
    yield from insert(A)


def signs(A: Spectrum) -> Iterator[np.ndarray]:
    """Some pairs, or all, change their sign."""
    for _ in range(3):
        A.U = A.U * A.rng.choice([-1.0, 1.0], len(A.s))
        yield from steady(A, 1)


def denormals(A: Spectrum) -> Iterator[np.ndarray]:
    """Down to denormal numbers and back, of all entries or of half of the rows."""
    tiny = A.rng.choice([1e-310, 1e-305, 1e-42, 1e-39])
    rows = np.ones((len(A.U), 1))
    yield tiny * A.matrix
    if A.rng.random() < 0.5:
        rows[::2] = tiny
    yield rows * A.matrix
    if A.rng.random() < 0.5:
        yield from insert(A)


def momentum(A: Spectrum) -> Iterator[np.ndarray]:
    """A momentum buffer, in which one gradient stands out."""
    M, mu = A.matrix, A.rng.choice([0.5, 0.9, 0.95])
    size = A.rng.choice([0.1, 0.5, 2.0]) * A.level
    for step in range(6):
        G = A.noise(size) + (1 - mu) * A.matrix
        if step == 3:
            A.s[A.place("tail")] = A.rng.uniform(0.5, 3) * A.level
        M = mu * M + G
        yield M


def other_k(A: Spectrum) -> Iterator[np.ndarray]:
    """Another k at each step (`draw` takes care of that), and a change."""
    yield from steady(A, 2)
    yield from insert(A)


def mixed(A: Spectrum) -> Iterator[np.ndarray]:
    """Three events of any kind."""
    names = [name for name in KINDS if name not in ("mixed", "other_k")]
    for name in A.rng.choice(names, 3):
        yield from KINDS[name](A)
        if A.s.max() > 0:
            A.s = A.s / A.s.max()


# Exchanges: what comes up is as strong as what the rest of the matrix loses in the same step. The
# energy outside of the subspace does not tell, and an estimate is wrong where no followed pair
# vanishes. docs/reference/balls.md says so; `certify=` is for these.


def flat_to_spike(A: Spectrum) -> Iterator[np.ndarray]:
    """The energy of the tail comes together in one direction; nearly none is lost or gained."""
    first = A.k + int(A.rng.integers(0, 4))
    energy = float(np.linalg.norm(A.s[first:]))
    A.s[first:] *= A.rng.choice([0.0, 0.3])
    A.s[A.place("tail")] = A.rng.uniform(0.8, 1.2) * energy
    yield from steady(A, 2)


def normalized(A: Spectrum) -> Iterator[np.ndarray]:
    """Gradients of unit Frobenius norm, whose spectrum changes."""
    for _ in range(5):
        A.s = A.s * A.rng.lognormal(0, A.rng.choice([0.1, 0.5]), len(A.s))
        if A.rng.random() < 0.3:
            A.s[A.place("tail")] = A.rng.uniform(0.5, 2) * A.level
        A.s = A.s / np.linalg.norm(A.s)
        yield from steady(A, 1)


def creeping_exchange(A: Spectrum) -> Iterator[np.ndarray]:
    """A new direction that grows from step to step while the tail shrinks."""
    yield from _creep(A, A.rng.choice([0.9, 0.7]))


EXCHANGES = {event.__name__: event for event in (flat_to_spike, normalized, creeping_exchange)}
KINDS: dict[str, Callable[[Spectrum], Iterator[np.ndarray]]] = {
    event.__name__: event
    for event in (
        collapse,
        insert,
        insert_several,
        creep,
        removal,
        rotation,
        swap,
        swap_sides,
        anew,
        scales,
        plateau,
        zeros,
        repeats,
        signs,
        denormals,
        momentum,
        other_k,
        mixed,
    )
}


# ---- drawing and examining --------------------------------------------------------------------


def draw(seed: int, kind: str | None = None) -> WarmSequence:
    """The sequence of a seed; of every kind in turn unless one is named."""
    rng = np.random.default_rng([seed, 20260])
    kind = kind or list(KINDS)[seed % len(KINDS)]
    event = (KINDS | EXCHANGES)[kind]
    # In the larger ones a warm step that fails leads to a block Krylov space, else to an SVD.
    larger = rng.random() < 0.25
    m, n = (int(rng.integers(*bounds)) for bounds in _SIDES[larger])
    if rng.random() < 0.5:
        m, n = n, m
    dtype = str(rng.choice(DTYPES))
    k = int(rng.choice([1, 1, 2, 3, 4, 5, 6, 12] if larger else [1, 1, 2, 3, 4, 5, 6]))
    A = Spectrum(rng, *_factors(rng, m, n, dtype), k=k)
    matrices = [*steady(A, int(rng.integers(1, 4))), *event(A)]
    ranks = [k] * len(matrices)
    if kind == "other_k":
        ranks = [int(rng.integers(1, 7)) for _ in matrices]
    with np.errstate(over="ignore", under="ignore"):
        matrices = [_in_dtype(matrix, dtype) for matrix in matrices]
    gap = float(rng.choice(GAPS))
    return WarmSequence(
        kind, seed, ranks, gap, matrices, bool(rng.random() < 0.3), bool(rng.random() < 0.4)
    )


def _factors(rng: np.random.Generator, m: int, n: int, dtype: str) -> tuple[Any, Any, Any]:
    """Orthonormal vectors and the values of a head and a tail."""
    r, complex_ = min(m, n), dtype.startswith("complex")
    U, V = (np.linalg.qr(gaussian(rng, side, r, complex_=complex_))[0] for side in (m, n))
    head = int(rng.integers(1, 9))
    values = {
        "levels": lambda: np.linspace(1, rng.uniform(0.4, 1), head),
        "decaying": lambda: rng.uniform(0.5, 0.95) ** np.arange(head),
    }[rng.choice(["levels", "decaying"])]()
    tail = {
        "zero": lambda: np.zeros(r - head),
        "flat": lambda: rng.uniform(0.05, 0.6) * np.ones(r - head),
        "decaying": lambda: values[-1] * rng.uniform(0.7, 0.97) ** np.arange(1, r - head + 1),
        "power": lambda: values[-1] / np.arange(2, r - head + 2) ** rng.uniform(0.3, 1.5),
    }[rng.choice(["zero", "flat", "decaying", "power"])]()
    s = np.concatenate([values, tail])
    if rng.random() < 0.3:
        s[int(rng.integers(head, r)) :] = 0
    return U, s, V


def _in_dtype(matrix: np.ndarray, dtype: str) -> np.ndarray:
    """The matrix in a dtype, scaled where it would leave its range."""
    size = float(np.abs(matrix).max())
    room = float(np.finfo(dtype).max) / 1e6
    if size > room:
        matrix = matrix * (room / size)
    return matrix.astype(dtype)


def true_gap(G: np.ndarray, k: int, D: np.ndarray) -> float:
    """``1 + Re <G, D> / (s_1 + ... + s_k)``; 0 for the zero matrix."""
    wide = "complex128" if np.iscomplexobj(G) else "float64"
    G = G.astype(wide)
    size = float(np.abs(G).max())
    if size == 0:
        return 0.0
    G = np.ldexp(G.view("float64"), -np.frexp(size)[1]).view(wide)
    support = float(np.linalg.svd(G, compute_uv=False)[:k].sum())
    return 1 + float(np.real(np.vdot(D.astype(wide), G))) / support


@dataclass(frozen=True)
class Finding:
    """A step with a wrong gap of which nothing was said."""

    step: int
    true: float
    reported: float
    kind: str
    passes: int


def examine(sequence: WarmSequence, **options: Any) -> list[Finding]:
    """Run the oracle along a sequence; return the steps that are silently wrong.

    Silently wrong: the true gap exceeds three times the gap asked for and three times the gap
    reported, the status is CONVERGED, and there was no warning. Options are those of the oracle.
    """
    starts: list[Any] = [None, None]
    found = []
    for step, (G, k) in enumerate(zip(sequence.matrices, sequence.k, strict=True)):
        rng = sequence.seed if sequence.fixed else 1000 * sequence.seed + step
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            results = _asked(sequence, k, step, starts, {"rng": rng, **options})
        starts = [None if result is None else result.subspace for result in results]
        result = results[0]
        true = true_gap(G, k, np.asarray(result.update))
        allowed = 3 * max(sequence.gap, result.gap) + 1000 * float(np.finfo(G.dtype).eps)
        if true > allowed and result.status.converged and not said:
            found.append(Finding(step, true, result.gap, result.gap_kind, result.passes))
    return found


def _asked(
    sequence: WarmSequence, k: int, step: int, starts: list[Any], options: dict[str, Any]
) -> tuple[Any, Any]:
    """The results of the matrix of a step and of its companion, if it has one."""
    G, ball = sequence.matrices[step], trsvd.KyFanDualBall(k)
    options = {"gap": sequence.gap, **options}
    if not sequence.together:
        return ball.lmo(G, start=starts[0], **options), None
    import torch

    # The companion never moves: what its neighbour does is none of its business.
    both = [torch.asarray(G), torch.asarray(sequence.matrices[0])]
    first, second = ball.lmo_many(both, start=starts if step else None, **options)
    return first, second


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[*KINDS, *EXCHANGES], default=None)
    given = parser.parse_args(argv)
    drawn, steps, wrong = Counter(), Counter(), Counter()
    for seed in range(given.seed, given.seed + given.examples):
        sequence = draw(seed, given.kind)
        found = examine(sequence)
        drawn[sequence.kind] += 1
        steps[sequence.kind] += len(sequence.matrices)
        if found:
            wrong[sequence.kind] += 1
            where = f"k={sequence.k[found[0].step]} gap={sequence.gap:g}"
            where += f" {'stacked' if sequence.together else 'single'} {sequence.matrices[0].dtype}"
            print(f"seed {seed} {sequence.kind} {where}: {found[0]}", flush=True)
    for kind, count in drawn.items():
        print(f"{kind:15s} {count:6d} sequences {steps[kind]:7d} steps {wrong[kind]:5d} wrong")
    print(f"{drawn.total()} sequences, {steps.total()} steps, {wrong.total()} silently wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
