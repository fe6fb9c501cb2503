"""Protocol of a method: frozen options that start a run; a run steps, reports and extracts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.rayleigh_ritz import Ritz
from trsvd.operators.base import MatrixOperator
from trsvd.operators.counting import Metered


class Run(ABC):
    """A computation under way, on an operator with m >= n. Only the driving loop calls it.

    Attributes
    ----------
    iterations : int
        Steps made, as the method counts them.
    finished : bool
        No further step is possible, or none was asked for.
    meets_all_copies : bool
        The run iterates a random block at least k wide: no copy of a multiple value is missed.
    exact : bool
        The full spectrum was computed.
    lost : float
        Where it was that of squares: rounding in them may cost so much of the sum of the leading
        singular values, relative to it.
    resolution : float
        Singular values below this share of s_1 are not resolved before triplets are extracted.
    rng : numpy.random.Generator
        Where the run takes random numbers from when it has to.
    single_steps : bool
        Somebody looks at every iteration, or counts the products: none may be made in one go.
    hopeless : bool
        A dense factorization is expected to take less than what is still to come.
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
        """See the class."""
        return 0.0

    @property
    @abstractmethod
    def next_cost(self) -> int:
        """Products (in vectors) that the next step makes."""

    @property
    def random_steps(self) -> int:
        """Dimension of the Krylov space, of a random vector, that the answer comes from; or 0."""
        return 0

    @property
    def extract_cost(self) -> int:
        """Products (in vectors) that `extract` makes."""
        return 0

    @property
    def exact_side(self) -> str | None:
        """``"left"`` where `extract` makes U S of a product with V, ``"right"`` where V S of U."""
        return None

    @property
    @abstractmethod
    def available(self) -> int:
        """Number of triplets that can be extracted now."""

    @abstractmethod
    def step(self, op: Metered) -> None:
        """One iteration."""

    @abstractmethod
    def report(self, *, now: bool = False) -> Ritz | None:
        """Ritz values and residuals; None where looking would not pay yet, unless ``now``."""

    @abstractmethod
    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        """The k leading triplets: U, S on the host, V."""

    @abstractmethod
    def retarget(self, k: int) -> None:
        """Aim at k triplets from now on, keeping what was computed."""

    def aim_at(self, tol: float) -> None:  # noqa: B027 - few runs work differently
        """Be ready to reach this relative accuracy from now on."""

    @abstractmethod
    def copy(self) -> Run:
        """An independent copy."""

    def shares_products(self, op: Metered) -> bool:
        """True if products with ``op`` run in threads that BLAS threads would slow down."""
        return False

    def release(self) -> None:  # noqa: B027 - most runs have nothing to let go of
        """Let go of what is needed only while stepping."""

    def escalate(self) -> bool:
        """Go over to a more accurate way, where the answer failed its check; False if none."""
        return False


@runtime_checkable
class Method(Protocol):
    """Options of a method, immutable; `init` starts a run with them."""

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
        """Start a run for k triplets of ``op``, from a block of right vectors if one is given."""
        ...


def pad_block(
    op: MatrixOperator, start: Array | None, width: int, rng: np.random.Generator
) -> Array:
    """``start`` filled up with random columns to ``width``, or a random block."""
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
