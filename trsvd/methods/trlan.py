"""Thick-restart Lanczos on the Golub-Kahan bidiagonalization."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import SINGLE, is_sparse
from trsvd._krylov.golub_kahan import GolubKahan
from trsvd._krylov.gram_lanczos import GramLanczos
from trsvd._krylov.rayleigh_ritz import Ritz, rayleigh_ritz
from trsvd._plan.cost import is_hopeless, planned_estimates
from trsvd.methods.base import Run, pad_block
from trsvd.operators.counting import Metered, Turned
from trsvd.operators.gram import (
    InMemory,
    coarsest_precision,
    in_memory,
    is_worth_forming,
    stays_in_cache,
)

# Relative residual by rounding errors of Gram products, in units of eps s_1 / s_k; and with a
# formed Gram matrix. (Larger errors show in the residuals.)
_SQUARES, _SQUARES_FORMED = 0.35, 0.25
# Smallest number of steps with a formed Gram matrix before a run may be given up.
_PATIENCE = 100


@dataclass(frozen=True, kw_only=True)
class ThickRestartLanczos:
    """Thick-restart Lanczos (TRLan) for singular triplets.

    Golub-Kahan bidiagonalization expands Krylov spaces on both sides of A. When the basis is full,
    it is compressed to the best approximations (thick restart) and expanded again. This method
    needs the fewest products of all iterative methods here, in a fixed amount of memory.

    Parameters
    ----------
    block_size : int, default 1
        Number of vectors in a product. Larger blocks need fewer passes over A, and more products.
    basis_size : int, optional
        Largest number of columns of each basis, at most min(m, n). The default is
        ``max(2 k + 20, k + 3 block_size)``, and a few more in compiled code.
    reorthogonalize : {"auto", "one-sided", "two-sided"}, default "auto"
        ``"two-sided"``: both bases are orthogonalized explicitly. ``"one-sided"``: only that of the
        shorter side, which saves half of the work besides the products. The loss of orthogonality
        is measured, and corrected at each restart. ``"auto"``: one-sided if the longer side is at
        least twice as long, as long as the measured loss permits the tolerance.
    gram : bool, default False
        True: Lanczos on the Gram operator ``A^H A`` of the smaller side, with a final Rayleigh-Ritz
        step with A, as in arXiv:2512.09678. No left basis is stored. Singular values below
        ``sqrt(eps) s_1`` are not resolved.

    See Also
    --------
    svds, select_method, BlockKrylov

    Notes
    -----
    Cost: ``2 block_size`` products in each step; a limit of products can end a run within a step.
    Memory: ``basis_size * (m + n)`` numbers. With ``gram=True`` and a large host matrix, threads of
    this package compute the products, while BLAS libraries of the process use one thread.

    References
    ----------
    K. Wu and H. Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems,
    doi:10.1137/S0895479898334605. J. Baglama and L. Reichel, Augmented implicitly restarted Lanczos
    bidiagonalization methods, doi:10.1137/04060593X. H. Simon and H. Zha, Low-rank matrix
    approximation using the Lanczos bidiagonalization process, doi:10.1137/S1064827597327309.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> trsvd.svds(A, 2, method=trsvd.ThickRestartLanczos(basis_size=4), rng=0).S.round(6)
    array([4., 3.])
    """

    name: ClassVar[str] = "trlan"
    block_size: int = 1
    basis_size: int | None = None
    reorthogonalize: Literal["auto", "one-sided", "two-sided"] = "auto"
    gram: bool = False

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise ValueError(f"block_size={self.block_size}; it must be at least 1")
        if self.reorthogonalize not in {"auto", "one-sided", "two-sided"}:
            raise ValueError(
                f"reorthogonalize={self.reorthogonalize!r}; it is one of 'auto', 'one-sided', "
                "'two-sided'"
            )

    def basis_for(self, k: int, rank: int) -> int:
        """Return the number of basis columns for k triplets; ValueError if it is too small."""
        least = k + self.block_size + 1
        size = self.basis_size
        if size is None:
            size = max(2 * k + 20, k + 3 * self.block_size)
        if size < min(least, rank):
            raise ValueError(
                f"basis_size={size} is too small for k={k} with block_size={self.block_size}; "
                f"give at least {min(least, rank)} (2 * k + 20 is a good size)"
            )
        return min(size, rank)

    def init(
        self, op: Metered, k: int, *, tol: float, start: Array | None, rng: np.random.Generator
    ) -> Run:
        """Start a run."""
        return _LanczosRun(self, op, k, tol, start, rng)


def _rows_are_long(op: Metered, method: ThickRestartLanczos, k: int, precision: str | None) -> bool:
    """True if the rows in memory are those of the adjoint, and are used directly.

    Compiled Gram products need contiguous rows. The vectors are then those of the longer side.
    """
    rows = op.rows_in_memory()
    m, n = op.shape
    if rows is None or precision is None or not rows[1]:
        return False
    if is_sparse(rows[0]):
        return True
    if method.block_size == 1 and stays_in_cache(rows[0], precision):
        return False
    return m <= 8 * n and 2 * method.basis_for(k, n) <= n


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
        self.may_repair = method.reorthogonalize == "auto"
        self.two_sided = not (
            method.reorthogonalize == "one-sided" or (self.may_repair and m >= 2 * n)
        )
        self.precision = coarsest_precision(op, k, tol) if method.gram else None
        self.forms = self.precision is not None and method.block_size == 1
        self.forms = self.forms and is_worth_forming(op, k, tol)
        self._squares = _SQUARES_FORMED if self.forms else _SQUARES
        self.turned = not self.forms and _rows_are_long(op, method, k, self.precision)
        if self.turned and start is not None:
            start = op.matmat(start)
        self.meets_all_copies = start is None and method.block_size >= k
        self._from_random = start is None
        self.scale, self.rng = 0.0, rng
        # Rounding errors of a product are those of this norm, if parts of it cancel.
        self._parts = op.noise / op.arrays.eps
        self._leave_gram = self._too_coarse = False
        self.basis = self._first_basis(op, start)

    def _first_basis(self, op: Metered, start: Array | None) -> GolubKahan | GramLanczos:
        """Return the first basis, from start vectors or a random block."""
        self._last_look, self._look_at = (0, 0.0), 0
        self._estimates: tuple[int, ...] = ()  # basis sizes at which to estimate the spectrum
        width = min(self.method.block_size, op.shape[1])
        if self._leave_gram and width < self.k:
            width = 1  # blocks are for compiled steps
        view = self._view(op) if self.method.gram and not self._leave_gram else op
        start = None if start is None else view.arrays.like(start)
        block = pad_block(view, start, width, self.rng)
        k, columns = self.k, int(block.shape[1])
        capacity = max(self._capacity(view), k + 2 * columns)
        if columns > k and self.method.basis_size is None:
            # Copies of multiple values were missed, and more may appear.
            n = view.shape[1]
            capacity = max(capacity, self.method.basis_for(min(3 * k, n), n))
        if isinstance(view, Metered) and (self._leave_gram or not self.method.gram):
            self._leave_gram = False
            two = self.two_sided
            return GolubKahan(op, block, capacity=capacity, rng=self.rng, two_sided=two)
        first_look = (k + k // 4) // columns + (5 if columns == 1 else 3)
        self._look_at = self.iterations + first_look
        if self._from_random and isinstance(view, InMemory):
            self._estimates = planned_estimates(
                view, k, self.tol, width, width * first_look, formed=self.forms
            )
        return GramLanczos(view, block, capacity=capacity, rng=self.rng)

    def _capacity(self, view: Metered | Turned | InMemory) -> int:
        """Return the basis size, larger if compiled steps are cheap relative to a restart."""
        n = view.shape[1]
        size = self.method.basis_for(self.k, n)
        if self.method.basis_size is None and isinstance(view, InMemory):
            size = max(size, min(view.affordable_basis, max(2 * self.k + 70, n // 2)))
        return min(size, n)

    def _view(self, op: Metered) -> Metered | Turned | InMemory:
        """Return the operator for Gram products."""
        found = in_memory(op, self.turned, self.precision, self.k)
        return found or (Turned(op) if self.turned else op)

    @property
    def resolution(self) -> float:
        basis = self.basis
        return 2 * basis.arrays.eps**0.5 if isinstance(basis, GramLanczos) else 0.0

    def shares_products(self, op: Metered) -> bool:
        if self.forms or not isinstance(self.basis, GramLanczos):
            return False
        view = self._view(op)
        return isinstance(view, InMemory) and view.shares_products

    @property
    def next_cost(self) -> int:
        if isinstance(self.basis, GramLanczos):
            return 2 * self.basis.width * self._burst()
        return self.basis.width

    def _burst(self) -> int:
        """Number of expansions before the next test."""
        if self.single_steps:
            return 1
        size, width = self.basis.size, max(1, self.basis.width)
        most = (self.basis.capacity - size) // width
        if self._estimates:
            most = min(most, -((size - self._estimates[0]) // width))
        return max(1, min(self._look_at - self.iterations, most))

    @property
    def available(self) -> int:
        return self.basis.size

    def step(self, op: Metered) -> None:
        if self._too_coarse:
            self._refine(op)
        if self._leave_gram:
            _, _, V = self._ritz_with_product(op, self.k)
            self._from_random = False
            capacity = self.basis.capacity
            self.basis = GolubKahan(op, V, capacity=capacity, rng=self.rng, two_sided=True)
            self._leave_gram = False
        if self.basis.full:
            self._compress()
        basis = self.basis
        if isinstance(basis, GramLanczos):
            view = self._view(op)
            if isinstance(view, InMemory) and basis.width == 1 and not self.single_steps:
                view.form_if_due(math.inf if self.forms else self.iterations)
            self.iterations += basis.expand_by(view, self._burst()) - 1
            # (LAPACK would have finished within these products.)
            self.hopeless |= self.forms and self.iterations > max(_PATIENCE, basis.shape[1] // 2)
            due = self._estimates and basis.size >= self._estimates[0] and not basis.exhausted
            if due and isinstance(view, InMemory):
                self._estimate_spectrum(basis, view)
        elif not basis.halfway:
            basis.forward(op)
            return
        else:
            basis.backward(op)
        self.iterations += 1
        if basis.exhausted:
            self.finished = self.exact = True

    def _estimate_spectrum(self, basis: GramLanczos, view: InMemory) -> None:
        """Estimate the spectrum; note if a factorization is cheaper or float32 too coarse."""
        k, self._estimates = self.k, self._estimates[1:]
        seen, early = basis.spectrum_estimate(k), bool(self._estimates)
        self.hopeless = is_hopeless(view, k, self.tol, seen, early=early)
        if not early:
            top, value, _ = seen
            level = 0.5 * self._squares * basis.arrays.eps
            self._too_coarse = bool(level * max(top, self._parts) > self.tol * value)

    def _refine(self, op: Metered) -> None:
        """Start again with Gram products in double precision, or without them."""
        self._leave_gram = self.precision != "float32"
        self.precision, self._too_coarse = "float64", False
        self.basis = self._first_basis(op, None)

    def _compress(self) -> None:
        basis, self._from_random = self.basis, False
        scale, eps = self.scale, basis.arrays.eps
        room = basis.capacity - basis.width
        keep = min(self.k + max(3, (basis.capacity - self.k) // 2), room)
        basis.compress(
            keep,
            drop=max(eps, 0.01 * self.tol) * scale,
            block_size=self.method.block_size,
        )
        basis.lock(0.5 * eps * scale)
        loss = basis.loss
        if self.may_repair and not basis.two_sided and loss > max(100 * eps, 0.01 * self.tol):
            basis.two_sided = True

    def report(self, *, now: bool = False) -> Ritz | None:
        basis = self.basis
        if self._leave_gram or self._too_coarse:
            return None
        if isinstance(basis, GolubKahan) and basis.halfway:
            return None
        due = basis.full or basis.exhausted
        if basis.arrays.reads_are_cheap:
            due = due or self.iterations >= self._look_at
        if not (due or now) or basis.size < min(self.k, basis.shape[1]):
            return None
        ritz = basis.ritz()
        self.scale = max(self.scale, ritz.scale)
        self._too_coarse = self._is_too_coarse(ritz)
        if self._too_coarse:
            self.finished = self.exact = False
        self._plan_next_look(ritz)
        if self._too_coarse or (not (now or basis.exhausted) and self._another_may_lead(ritz)):
            return None
        return ritz

    def _another_may_lead(self, ritz: Ritz) -> bool:
        """True if the next Ritz value may still exceed the k-th by more than the tolerance."""
        k, S = self.k, ritz.S
        if not isinstance(self.basis, GramLanczos) or len(S) <= k or k < 1:
            return False
        # The distance of S[k]^2 from an eigenvalue is at most S[k] times the residual.
        next_at_most = math.sqrt(S[k] * (S[k] + ritz.residuals[k]))
        return bool(next_at_most > S[k - 1] + self.tol * S[0])

    def _is_too_coarse(self, ritz: Ritz) -> bool:
        """True if rounding errors of the Gram matrix keep a residual above the tolerance.

        This is tested once s_k is known approximately.
        """
        k, S, basis = self.k, ritz.S, self.basis
        if not isinstance(basis, GramLanczos) or self.precision is None or len(S) <= k:
            return False
        if not k > 0 or ritz.residuals[k - 1] > 0.3 * S[k - 1]:
            return False
        level = self._squares * basis.arrays.eps
        return bool(level * max(S[0], self._parts) > self.tol * S[k - 1])

    def _plan_next_look(self, ritz: Ritz) -> None:
        """Plan the next test from the decrease of the residuals.

        They decrease faster and faster, so that the next test is after half of the expected steps,
        within limits. A test costs a small SVD, and a superfluous step two products.
        """
        worst = float(ritz.residuals[: self.k].max(initial=0.0)) / (ritz.scale or 1.0)
        basis = self.basis
        at, wait = self.iterations, max(2, (basis.capacity - self.k) // 8)
        compiled = isinstance(basis, GramLanczos)
        if compiled:
            wait = 2
        ahead: float = basis.capacity  # steps, without information
        before, worst_before = self._last_look
        self._last_look = (at, worst)
        if at > before and self.tol < worst < worst_before and self.tol > 0:
            slope = math.log(worst_before / worst) / (at - before)
            ahead = math.log(worst / self.tol) / slope
            half = int(0.5 * ahead)
            most = max(2, basis.size // (3 * max(1, basis.width))) if compiled else wait
            wait = min(most, max(1, half))
        self._look_at = at + max(wait, min(self._steps_per_look(), math.ceil(ahead)))

    def _steps_per_look(self) -> int:
        """Return the steps between tests that balance the costs of tests and superfluous steps.

        With N steps there are N / wait tests, and on average half of a wait is superfluous.
        """
        basis = self.basis
        if not isinstance(basis, GramLanczos) or self.precision is None:
            return 1
        m, n = basis.shape
        look = 1e-4 + (2e-8 * basis.size**2 if basis.width == 1 else 4e-10 * basis.size**3)
        step = 1e-10 * max(1, basis.width) * n * (2 * basis.size + m)
        count = basis.size / max(1, basis.width)
        return max(1, int(min(math.sqrt(count * look / step), count / 2)))

    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        if isinstance(self.basis, GramLanczos):
            return self._ritz_with_product(op, k)
        return self.basis.extract(k)

    def _ritz_with_product(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        turned = self.turned and isinstance(self.basis, GramLanczos)
        view = Turned(op) if turned else op
        arrays = op.arrays
        V = self.basis.right_vectors(k)
        eps = self.basis.arrays.eps
        skew, coarse = eps >= SINGLE, eps > arrays.eps
        U, S, V = rayleigh_ritz(view, arrays.like(V), self.rng, k, skew=skew, coarse=coarse)
        if isinstance(self.basis, GramLanczos) and k:
            # The error of a value s is eps s_1^2 / s. Values that Gram products do not resolve are
            # below sqrt(eps) s_1.
            level = (self.resolution * S[0]) ** 2
            least = np.maximum(S, level**0.5)
            self.lost = float((level / least).sum() / S.sum()) if S[0] > 0 else 0.0
        return (V, S, U) if turned else (U, S, V)

    def escalate(self) -> bool:
        if isinstance(self.basis, GramLanczos):
            # The residuals show that Gram products are too coarse.
            if self.precision == "float32":
                self._too_coarse, self.finished, self.exact = True, False, False
                return True
            self._leave_gram = not self.finished
            return self._leave_gram
        if self.basis.careful:
            return False
        self.basis.careful = True
        return True

    @property
    def random_steps(self) -> int:
        return self.basis.size // max(1, self.basis.width) if self._from_random else 0

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
        # A basis_size for fewer triplets is enlarged as far as necessary.
        size = self.method.basis_size
        needed = k + self.method.block_size + 1
        capacity = min(rank, max(size, needed)) if size else self.method.basis_for(k, rank)
        sides = sum(basis.shape) if isinstance(basis, GolubKahan) else rank
        basis.arrays.check_room(sides * capacity, f"a basis that grows to {capacity} columns")
        basis.grow(capacity)
        self.finished = basis.exhausted
        self._last_look, self._look_at = (0, 0.0), 0

    def aim_at(self, tol: float) -> None:
        self.tol = tol

    def copy(self) -> _LanczosRun:
        twin = _LanczosRun.__new__(_LanczosRun)
        twin.__dict__.update(self.__dict__)
        twin.rng = deepcopy(self.rng)
        twin.basis = self.basis.copy()
        return twin
