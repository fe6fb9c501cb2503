"""Randomized SVD, randomized block Krylov, and power iteration."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.golub_kahan import GolubKahan
from trsvd._krylov.rayleigh_ritz import Ritz
from trsvd._krylov.subspace_iteration import Subspace
from trsvd.methods.base import Run, pad_block
from trsvd.operators.counting import Metered


def _refuse_negative(name: str, value: int | None, least: int = 0) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name}={value}; it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class RandomizedSVD:
    """Randomized SVD (RSVD): random sketch of the range, with power iterations.

    Parameters
    ----------
    oversampling : int, default 10
        Columns of the sketch beyond k.
    power_iterations : int, optional
        Number of products with ``A A^H``, with orthonormalization after each product. None: until
        the tolerance is met.

    See Also
    --------
    svds, PowerIteration, BlockKrylov

    Notes
    -----
    Cost: ``2 (k + oversampling) (power_iterations + 1)`` products. Memory:
    ``3 (k + oversampling) (m + n)`` numbers. The accuracy depends on the decay of the singular
    values: without decay, a small fixed number of iterations leaves residuals of the order of s_k.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, Finding structure with randomness,
    doi:10.1137/090771806.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> trsvd.svds(A, 2, method=trsvd.RandomizedSVD(oversampling=2), rng=0).S.round(6)
    array([4., 3.])
    """

    name: ClassVar[str] = "rsvd"
    oversampling: int = 10
    power_iterations: int | None = None

    def __post_init__(self) -> None:
        _refuse_negative("oversampling", self.oversampling)
        _refuse_negative("power_iterations", self.power_iterations)

    def init(
        self, op: Metered, k: int, *, tol: float, start: Array | None, rng: np.random.Generator
    ) -> Run:
        """Start a run."""
        del tol
        return _SubspaceRun(
            op,
            k,
            width=min(k + self.oversampling, op.shape[1]),
            start=start,
            rng=rng,
            ends_with_adjoint=True,
            limit=self.power_iterations,
        )


@dataclass(frozen=True, kw_only=True)
class BlockKrylov:
    """Randomized block Krylov: Rayleigh-Ritz in the space of all power iterations.

    Block Golub-Kahan bidiagonalization from a random block of at least k columns, without restarts.

    Parameters
    ----------
    oversampling : int, default 10
        Columns of the block beyond k.
    iterations : int, optional
        Number of products with ``A A^H`` after the first. None: until the tolerance is met.

    See Also
    --------
    svds, RandomizedSVD, ThickRestartLanczos

    Notes
    -----
    Cost: ``2 (k + oversampling) (iterations + 1)`` products, in few passes over A. Memory:
    ``(k + oversampling) (iterations + 1) (m + n)`` numbers, growing with the iterations. With a
    start, the space is expanded at least twice before convergence is tested.

    References
    ----------
    C. Musco and C. Musco, Randomized block Krylov methods for stronger and faster approximate
    singular value decomposition, arXiv:1504.05477.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> trsvd.svds(A, 2, method=trsvd.BlockKrylov(oversampling=1), rng=0).S.round(6)
    array([4., 3.])
    """

    name: ClassVar[str] = "krylov"
    oversampling: int = 10
    iterations: int | None = None

    def __post_init__(self) -> None:
        _refuse_negative("oversampling", self.oversampling)
        _refuse_negative("iterations", self.iterations)

    def init(
        self, op: Metered, k: int, *, tol: float, start: Array | None, rng: np.random.Generator
    ) -> Run:
        """Start a run."""
        del tol
        return _BlockKrylovRun(self, op, k, start, rng)


class _BlockKrylovRun(Run):
    def __init__(
        self,
        method: BlockKrylov,
        op: Metered,
        k: int,
        start: Array | None,
        rng: np.random.Generator,
    ) -> None:
        n = op.shape[1]
        self.limit, self.k, self.rng = method.iterations, k, rng
        given = k if start is None else max(k, int(start.shape[1]))
        width = min(given + method.oversampling, n)
        steps = 4 if method.iterations is None else method.iterations + 1
        block = pad_block(op, start, width, rng)
        self.basis = GolubKahan(op, block, capacity=min(n, width * steps), rng=rng)
        self._given = start is not None
        self.meets_all_copies = not self._given
        self.iterations = -1

    @property
    def next_cost(self) -> int:
        return 2 * self.basis.width

    @property
    def available(self) -> int:
        return self.basis.size

    def step(self, op: Metered) -> None:
        self.basis.expand(op)
        self.iterations += 1
        self.exact = self.basis.exhausted
        self.finished = self.exact or (self.limit is not None and self.iterations >= self.limit)

    def report(self, *, now: bool = False) -> Ritz | None:
        if now:
            return self.basis.ritz()
        # A start can be converged without being leading. One expansion is not sufficient for the
        # additional random columns to find larger values.
        early = self._given and self.iterations < 1 and not self.finished
        return None if early or self.limit is not None else self.basis.ritz()

    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        del op
        return self.basis.extract(k)

    def escalate(self) -> bool:
        first = not self.basis.careful
        self.basis.careful = True
        return first

    def retarget(self, k: int) -> None:
        self.meets_all_copies &= k <= self.k
        self.finished = self.basis.exhausted

    def copy(self) -> _BlockKrylovRun:
        twin = _BlockKrylovRun.__new__(_BlockKrylovRun)
        twin.__dict__.update(self.__dict__)
        twin.rng = deepcopy(self.rng)
        twin.basis = self.basis.copy()
        return twin


class _SubspaceRun(Run):
    """Subspace iteration.

    Parameters
    ----------
    ends_with_adjoint : bool
        True: an iteration ends with the product with A^H (RSVD). False: with A (power iteration).
    limit : int or None
        Number of iterations. None: until the driver stops the run.
    """

    def __init__(
        self,
        op: Metered,
        k: int,
        *,
        width: int,
        start: Array | None,
        rng: np.random.Generator,
        ends_with_adjoint: bool,
        limit: int | None,
    ) -> None:
        self.k, self.limit, self.rng = k, limit, rng
        self.ends_with_adjoint = ends_with_adjoint
        self.extra = width - k
        numbers = 3 * width * sum(op.shape)
        op.arrays.check_room(numbers, f"subspace iteration with {width} vectors on both sides")
        self.subspace = Subspace(op, pad_block(op, start, width, rng), rng)
        self.meets_all_copies = start is None
        self.iterations = -1  # the first step only sets up the triplets

    @property
    def width(self) -> int:
        """Number of vectors in a product."""
        return int(self.subspace.V.shape[1])

    @property
    def next_cost(self) -> int:
        first_is_half = self.subspace.S is None and not self.ends_with_adjoint
        return self.width * (1 if first_is_half else 2)

    @property
    def available(self) -> int:
        return 0 if self.subspace.S is None else self.width

    def step(self, op: Metered) -> None:
        subspace = self.subspace
        if subspace.S is not None and not self.ends_with_adjoint:
            subspace.multiply_adjoint(op)
        subspace.multiply(op)
        if self.ends_with_adjoint:
            subspace.multiply_adjoint(op)
        self.iterations += 1
        self.finished = self.limit is not None and self.iterations >= self.limit

    def report(self, *, now: bool = False) -> Ritz | None:
        S, residuals = self.subspace.S, self.subspace.residuals
        if S is None or residuals is None or (self.limit is not None and not now):
            return None
        return Ritz(S, residuals)

    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        del op
        subspace = self.subspace
        assert subspace.U is not None
        assert subspace.S is not None
        return subspace.U[:, :k], subspace.S[:k], subspace.V[:, :k]

    def retarget(self, k: int) -> None:
        self.k = k
        width = min(k + self.extra, self.subspace.V.shape[0])
        if width > self.width:
            self.subspace.widen(width, self.rng)
        self.finished = False

    def copy(self) -> _SubspaceRun:
        twin = _SubspaceRun.__new__(_SubspaceRun)
        twin.__dict__.update(self.__dict__)
        twin.rng = deepcopy(self.rng)
        twin.subspace = self.subspace.copy()
        return twin


@dataclass(frozen=True, kw_only=True)
class PowerIteration:
    """Block power (subspace, orthogonal) iteration on ``A^H A`` with Rayleigh-Ritz.

    The simplest and slowest method, as a reference for the others.

    Parameters
    ----------
    iterations : int, optional
        Number of iterations. None: until the tolerance is met.

    See Also
    --------
    svds, RandomizedSVD

    Notes
    -----
    Cost: ``k (2 iterations + 1)`` products. Memory: ``3 k (m + n)`` numbers. Each iteration reduces
    the error by the factor ``(s_{k+1} / s_k)^2``.

    References
    ----------
    G. Golub and C. Van Loan, Matrix Computations, 4th ed., section 8.2.4.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> trsvd.svds(A, 2, method=trsvd.PowerIteration(), rng=0).S.round(6)
    array([4., 3.])
    """

    name: ClassVar[str] = "power"
    iterations: int | None = None

    def __post_init__(self) -> None:
        if self.iterations is not None and self.iterations < 0:
            raise ValueError(f"iterations={self.iterations}; it must be at least 0")

    def init(
        self, op: Metered, k: int, *, tol: float, start: Array | None, rng: np.random.Generator
    ) -> Run:
        """Start a run."""
        del tol
        return _SubspaceRun(
            op,
            k,
            width=k,
            start=start,
            rng=rng,
            ends_with_adjoint=False,
            limit=self.iterations,
        )
