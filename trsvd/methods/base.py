"""Base class of runs, which step, report and extract, and protocol of methods, which start them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.rayleigh_ritz import Ritz
from trsvd.operators.base import MatrixOperator
from trsvd.operators.counting import Metered


class Run(ABC):
    """Computation with an operator of shape m >= n. The loop of the driver calls its methods.

    Attributes
    ----------
    iterations : int
        Number of steps made.
    finished : bool
        True if no further step is possible or requested.
    meets_all_copies : bool
        True if the run iterates a random block of at least k columns, so that it cannot miss a copy
        of a multiple value.
    exact : bool
        True if the full spectrum was computed.
    lost : float
        Bound of the relative error of the sum of the leading singular values, by rounding errors of
        a Gram matrix.
    resolution : float
        Singular values below this multiple of s_1 are not resolved before triplets are extracted.
    rng : numpy.random.Generator
        Generator of random numbers, if they are needed.
    single_steps : bool
        True if every iteration is observed, or products are limited. Several steps must not be
        combined then.
    hopeless : bool
        True if a dense factorization is expected to be faster than the remaining steps.
    """

    rng: np.random.Generator

    single_steps: bool = False
    hopeless: bool = False
    iterations: int = 0
    finished: bool = False
    meets_all_copies: bool = False
    exact: bool = False
    lost: float = 0.0

    @property
    def resolution(self) -> float:
        """Relative resolution before extraction, see the class."""
        return 0.0

    @property
    @abstractmethod
    def next_cost(self) -> int:
        """Number of products of the next step, counted in vectors."""

    @property
    def random_steps(self) -> int:
        """Dimension of the Krylov space if it belongs to one random vector; otherwise 0."""
        return 0

    @property
    def extract_cost(self) -> int:
        """Number of products of `extract`, counted in vectors."""
        return 0

    @property
    def exact_side(self) -> str | None:
        """``"left"`` if `extract` computes U S as a product with V, ``"right"`` if V S with U."""
        return None

    @property
    @abstractmethod
    def available(self) -> int:
        """Number of triplets that can be extracted now."""

    @abstractmethod
    def step(self, op: Metered) -> None:
        """Make one iteration."""

    @abstractmethod
    def report(self, *, now: bool = False) -> Ritz | None:
        """Return Ritz values and residuals; None if it is too early, unless ``now``."""

    @abstractmethod
    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        """Return the k leading triplets: U, S on the host, V."""

    @abstractmethod
    def retarget(self, k: int) -> None:
        """Change the number of triplets to k, and keep the basis."""

    def aim_at(self, tol: float) -> None:  # noqa: B027 - few runs work differently
        """Prepare for another tolerance."""

    @abstractmethod
    def copy(self) -> Run:
        """Return an independent copy."""

    def shares_products(self, op: Metered) -> bool:
        """True if products with ``op`` run in threads that BLAS threads would slow down."""
        return False

    def release(self) -> None:  # noqa: B027 - most runs have nothing to let go of
        """Free data that only steps need."""

    def escalate(self) -> bool:
        """Switch to a more accurate variant after a failed check; False if there is none."""
        return False


@runtime_checkable
class Method(Protocol):
    """Protocol of methods: immutable options, with which `init` starts a run."""

    name: ClassVar[str]

    def init(
        self,
        op: Metered,
        k: int,
        *,
        tol: float,
        start: Array | None,
        rng: np.random.Generator,
    ) -> Run:
        """Start a run for k triplets of ``op``, optionally from a block of right vectors."""
        ...


def pad_block(
    op: MatrixOperator, start: Array | None, width: int, rng: np.random.Generator
) -> Array:
    """Return ``start`` with random columns added up to ``width``, or a random block."""
    arrays, n = op.arrays, op.shape[1]
    arrays.check_room(3 * n * width, f"a block of {width} vectors of length {n}")
    if start is None:
        return arrays.gaussian(rng, n, width)
    missing = width - int(start.shape[1])
    if missing <= 0:
        return start
    norms = arrays.get(arrays.column_norms(start))
    size = float(norms.max()) / n**0.5 or 1.0
    return arrays.xp.concat([start, arrays.gaussian(rng, n, missing) * size], axis=1)
