"""Thick-restart Lanczos on the Golub-Kahan bidiagonalization."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from trsvd._arrays import Array, HostArray
from trsvd._compiled import kernels
from trsvd._golub_kahan import GolubKahan
from trsvd._lanczos import GramLanczos
from trsvd._metered import Metered, Turned
from trsvd._orthonormalize import SpareVectors
from trsvd._ritz import Ritz, rayleigh_ritz
from trsvd.methods._protocol import Run, pad_block

__all__ = ["ThickRestartLanczos"]


@dataclass(frozen=True, kw_only=True)
class ThickRestartLanczos:
    """Thick-restart Lanczos (TRLan) for singular triplets.

    A Krylov space is grown on both sides of A by Golub-Kahan bidiagonalization; when its basis is
    full it is compressed to the best approximations so far and grown again. The fewest products of
    all iterative methods here, with memory that is bounded beforehand.

    Parameters
    ----------
    block_size : int, default 1
        Vectors that are multiplied at a time. More vectors mean fewer passes over A and more
        products.
    basis_size : int, optional
        Largest number of columns of each of the two bases; ``max(2 k + 20, k + 3 block_size)`` by
        default (a few more in compiled code), and never more than min(m, n).
    reorthogonalize : {"auto", "one-sided", "two-sided"}, default "auto"
        Whether the basis on the longer side is orthogonalized explicitly too. One-sided saves half
        of the work beside the products; what orthogonality is lost is measured and repaired at each
        restart. ``"auto"`` is one-sided where the longer side is at least twice as long, until
        the measured loss endangers the tolerance.
    gram : bool, default False
        Lanczos on ``A^H A`` (on the smaller side) with a Rayleigh-Ritz step with A in the end, as
        the paper has it. It stores no left basis; singular values below ``sqrt(eps) s_1`` are not
        resolved.

    Notes
    -----
    Cost: ``2 block_size`` products a step; a cap on them can end a run halfway through one. Memory:
    ``basis_size * (m + n)`` numbers.

    References
    ----------
    K. Wu and H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems,
    doi:10.1137/S0895479898334605. J. Baglama and L. Reichel, Augmented implicitly restarted Lanczos
    bidiagonalization methods, doi:10.1137/04060593X. H. Simon and H. Zha, Low-rank matrix
    approximation using the Lanczos bidiagonalization process, doi:10.1137/S1064827597327309.
    """

    name: ClassVar[str] = "trlan"
    block_size: int = 1
    basis_size: int | None = None
    reorthogonalize: Literal["auto", "one-sided", "two-sided"] = "auto"
    gram: bool = False

    def __post_init__(self) -> None:
        if self.block_size < 1:
            msg = f"block_size={self.block_size}; it must be at least 1"
            raise ValueError(msg)
        if self.reorthogonalize not in {"auto", "one-sided", "two-sided"}:
            msg = (
                f"reorthogonalize={self.reorthogonalize!r}; it is one of 'auto', 'one-sided', "
                "'two-sided'"
            )
            raise ValueError(msg)

    def basis_for(self, k: int, rank: int) -> int:
        """Number of basis columns for k triplets; ValueError if the one given is too small."""
        least = k + self.block_size + 1
        size = self.basis_size
        if size is None:
            size = max(2 * k + 20, k + 3 * self.block_size)
            if self.gram and kernels() is not None:  # compiled steps: a restart costs more
                size = max(size, min(2 * k + 70, rank // 2))
        if size < min(least, rank):
            msg = (
                f"basis_size={size} is too small for k={k} with block_size={self.block_size}; "
                f"give at least {min(least, rank)} (2 * k + 20 is a good size)"
            )
            raise ValueError(msg)
        return min(size, rank)

    def init(
        self, op: Metered, k: int, *, tol: float, start: Array | None, rng: np.random.Generator
    ) -> _LanczosRun:
        """Start a run."""
        return _LanczosRun(self, op, k, tol, start, rng)


def _rows_are_long(op: Metered, basis_size: int) -> bool:
    """Whether the rows in memory are those of the adjoint, and worth working with as they are.

    A compiled Gram product wants contiguous rows; the vectors are longer on that side, and the
    basis is that of a matrix of lower rank than there are columns.
    """
    rows = op.rows_in_memory()
    m, n = op.shape
    return (
        rows is not None
        and rows[1]
        and kernels() is not None
        and (m <= 8 * n and 2 * basis_size <= n)
    )


class _LanczosRun(Run):
    def __init__(
        self,
        method: ThickRestartLanczos,
        op: Metered,
        k: int,
        tol: float,
        start: Array | None,
        rng: np.random.Generator,
    ) -> None:
        m, n = op.shape
        self.method, self.k, self.tol = method, k, tol
        self.eps = op.arrays.eps
        self.may_repair = method.reorthogonalize == "auto"
        one_sided = method.reorthogonalize == "one-sided" or (self.may_repair and m >= 2 * n)
        self.turned = method.gram and _rows_are_long(op, method.basis_for(k, n))
        if self.turned and start is not None:
            start = op.matmat(start)
        view = self._view(op)
        block = pad_block(view, start, min(method.block_size, n), rng)
        capacity = max(method.basis_for(k, n), k + 2 * int(block.shape[1]))
        self.basis: GolubKahan | GramLanczos
        if method.gram:
            self.basis = GramLanczos(view, block, capacity=capacity, rng=rng)
        else:
            self.basis = GolubKahan(op, block, capacity=capacity, rng=rng, two_sided=not one_sided)
        self.meets_all_copies = start is None and method.block_size >= k
        self.scale, self.rng = 0.0, rng
        self._last_look = (0, 0.0)
        self._look_at = k + 2 if method.gram else 0
        self._leave_gram = False

    def _view(self, op: Metered) -> Metered | Turned:
        """The operator as the Gram operator is made of it."""
        return Turned(op) if self.turned else op

    @property
    def next_cost(self) -> int:
        if isinstance(self.basis, GramLanczos):
            return 2 * self.basis.width * (self._burst() if self.basis.width == 1 else 1)
        return self.basis.width

    def _burst(self) -> int:
        """Expansions to make before the next look."""
        if self.single_steps:
            return 1
        room = self.basis.capacity - self.basis.size
        return max(1, min(self._look_at - self.iterations, room))

    @property
    def available(self) -> int:
        return self.basis.size

    def step(self, op: Metered) -> None:
        if self._leave_gram:
            _, _, V = self._ritz_with_product(op, self.k)
            capacity = self.basis.capacity
            self.basis = GolubKahan(op, V, capacity=capacity, rng=self.rng, two_sided=True)
            self._leave_gram = False
        if self.basis.full:
            self._restart(op)
        basis = self.basis
        if isinstance(basis, GramLanczos):
            self.iterations += basis.expand_by(self._view(op), self._burst()) - 1
        elif not basis.halfway:
            basis.forward(op)
            return
        else:
            basis.backward(op)
        self.iterations += 1
        if basis.exhausted:
            self.finished = self.exact = True

    def _restart(self, op: Metered) -> None:
        try:
            self._compress()
        except FloatingPointError:
            # One-sided orthogonalization lost the left basis: begin anew from the right one.
            self.basis = GolubKahan(
                op, self.basis.right_vectors(self.k), capacity=self.basis.capacity, rng=self.rng
            )

    def _compress(self) -> None:
        basis = self.basis
        scale = self.scale
        room = basis.capacity - basis.width
        keep = min(self.k + max(3, (basis.capacity - self.k) // 2), room)
        basis.compress(
            keep,
            drop=max(self.eps, 0.01 * self.tol) * scale,
            block_size=self.method.block_size,
        )
        basis.lock(0.5 * self.eps * scale)
        loss = basis.loss
        if self.may_repair and not basis.two_sided and loss > max(100 * self.eps, 0.01 * self.tol):
            basis.two_sided = True

    def report(self, *, now: bool = False) -> Ritz | None:
        basis = self.basis
        if self._leave_gram or (isinstance(basis, GolubKahan) and basis.halfway):
            return None
        due = basis.full or basis.exhausted
        if basis.arrays.reads_are_cheap:
            due = due or self.iterations >= self._look_at
        if not (due or now) or basis.size < min(self.k, basis.shape[1]):
            return None
        ritz = basis.ritz()
        self.scale = max(self.scale, ritz.scale)
        self._plan_next_look(ritz)
        return ritz

    def _plan_next_look(self, ritz: Ritz) -> None:
        """Look again when the residuals, going down as they did, may have arrived.

        They go down ever faster, so that half of the way is waited, and never long: looking costs
        a small SVD, a step too many two products.
        """
        worst = float(ritz.residuals[: self.k].max(initial=0.0)) / (ritz.scale or 1.0)
        at, wait = self.iterations, max(2, (self.basis.capacity - self.k) // 8)
        if isinstance(self.basis, GramLanczos):
            wait = 2
        before, worst_before = self._last_look
        self._last_look = (at, worst)
        if at > before and self.tol < worst < worst_before and self.tol > 0:
            slope = math.log(worst_before / worst) / (at - before)
            half = int(0.5 * math.log(worst / self.tol) / slope)
            # Compiled steps may take less than a look does.
            most = max(2, self.basis.size // 5) if isinstance(self.basis, GramLanczos) else wait
            wait = min(most, max(1, half))
        self._look_at = at + max(wait, self._steps_per_look())

    def _steps_per_look(self) -> int:
        """Steps of compiled code that take about as long as one look, at most a few."""
        basis = self.basis
        if not isinstance(basis, GramLanczos) or kernels() is None:
            return 1
        m, n = basis.shape
        look = 6e-5 + 1.5e-9 * basis.size**3
        step = 1e-10 * 4 * n * (2 * basis.size + m)
        return max(1, min(int(0.5 * look / step), 8))

    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        if isinstance(self.basis, GramLanczos):
            return self._ritz_with_product(op, k)
        try:
            return self.basis.extract(k)
        except FloatingPointError:
            # One-sided orthogonalization lost the left basis; the right one is whole.
            return self._ritz_with_product(op, k)

    def _ritz_with_product(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        turned = self.turned and isinstance(self.basis, GramLanczos)
        view = self._view(op) if turned else op
        spare = SpareVectors(op.arrays, self.rng, view.shape[0], k)
        U, S, V = rayleigh_ritz(view, self.basis.right_vectors(k), spare, k)
        return (V, S, U) if turned else (U, S, V)

    def escalate(self) -> bool:
        if isinstance(self.basis, GramLanczos):
            self._leave_gram = not self.finished
            return self._leave_gram
        if self.basis.careful:
            return False
        self.basis.careful = True
        return True

    @property
    def exact_side(self) -> str | None:
        if not isinstance(self.basis, GramLanczos):
            return None
        return "right" if self.turned else "left"

    @property
    def extract_cost(self) -> int:
        return self.k if isinstance(self.basis, GramLanczos) else 0

    def retarget(self, k: int) -> None:
        self.k = k
        self.meets_all_copies &= k <= self.method.block_size
        basis = self.basis
        rank = basis.shape[1]
        # A basis_size that was given for fewer triplets gives way as far as it must.
        size = self.method.basis_size
        needed = k + self.method.block_size + 1
        capacity = min(rank, max(size, needed)) if size else self.method.basis_for(k, rank)
        sides = sum(basis.shape) if isinstance(basis, GolubKahan) else rank
        basis.arrays.check_room(sides * capacity, f"a basis that grows to {capacity} columns")
        basis.grow(capacity)
        self.finished = basis.exhausted
        self._last_look, self._look_at = (0, 0.0), 0

    def copy(self) -> _LanczosRun:
        twin = _LanczosRun.__new__(_LanczosRun)
        twin.__dict__.update(self.__dict__)
        twin.rng = deepcopy(self.rng)
        twin.basis = self.basis.copy()
        return twin
