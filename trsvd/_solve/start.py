"""Warm starts: an estimate of their accuracy, a test of converged ones, and a block to begin with.

The accuracy is estimated by the product of ``A^H A`` with one random combination x of the start
vectors V. The part of ``A^H A x`` outside the span of V shows the residuals of V. If they are
small, one Rayleigh-Ritz step is made. Otherwise a Lanczos run begins with random combinations of V,
in a block of its usual width: a wider one takes more products than it saves.
"""

from __future__ import annotations

import math

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.basis import RandomVectors, orthonormalize
from trsvd._krylov.rayleigh_ritz import Ritz, rayleigh_ritz
from trsvd.methods import Run
from trsvd.operators.counting import Metered, Turned

# Above this estimate, relative to s_1, a start is not better than random vectors.
_USELESS = 0.3


class Start:
    """Start vectors with orthonormal columns.

    Parameters
    ----------
    op : Metered
        The operator, m x n with m >= n.
    block : array of shape (n, p) or (m, p)
        Start vectors.
    of_adjoint : bool
        True: the vectors are left ones, of length m.
    """

    def __init__(self, op: Metered, block: Array, *, of_adjoint: bool) -> None:
        self.op: Metered | Turned = Turned(op) if of_adjoint else op
        self.of_adjoint = of_adjoint
        # Numbers of its own, so that a useless start leaves those of a run without a start.
        self.rng = np.random.default_rng(0)
        arrays, (length, width) = op.arrays, block.shape
        replacements = RandomVectors(arrays, self.rng, length, width)
        self.V = orthonormalize(arrays, block, None, floor=0.0, replacements=replacements)[0]

    @property
    def width(self) -> int:
        """Number of start vectors."""
        return int(self.V.shape[1])

    def _combined(self, count: int, rng: np.random.Generator) -> Array:
        """Return unit vectors: random combinations of the start vectors."""
        arrays = self.op.arrays
        X = arrays.product(self.V, arrays.gaussian(rng, self.width, count))
        return X / arrays.column_norms(X)

    def residual(self) -> float:
        """Estimate the residuals of the start, relative to s_1, by one product each way."""
        op, arrays, V = self.op, self.op.arrays, self.V
        Z = op.rmatmat(op.matmat(self._combined(1, self.rng)))
        rest = Z - arrays.product(V, arrays.adjoint_product(V, Z))
        norms = arrays.get(arrays.column_norms(arrays.xp.concat([Z, rest], axis=1)))
        return float(norms[1] / norms[0]) if norms[0] > 0 else math.inf

    def block(
        self, k: int, width: int | None, residual: float, rng: np.random.Generator
    ) -> Array | None:
        """Return right vectors for a method to begin with; None if random ones are as good.

        Parameters
        ----------
        k : int
            Number of wanted triplets.
        width : int or None
            Number of combinations of the start vectors. None: k start vectors themselves.
        residual : float
            The estimate. Random vectors of this length are added to combinations, since the start
            may lack leading directions.
        rng : numpy.random.Generator
            Generator of the run.
        """
        if not residual < _USELESS:
            return None
        op, arrays = self.op, self.op.arrays
        X = self.V[:, :k] if width is None else self._combined(min(width, self.width), rng)
        if self.of_adjoint:
            X = op.matmat(X)
            X = X / arrays.column_norms(X)
        if width is None:
            return X
        noise = arrays.gaussian(rng, int(X.shape[0]), int(X.shape[1]))
        return X + noise * (residual / arrays.column_norms(noise))


class StartRun(Run):
    """Run that makes one Rayleigh-Ritz step with start vectors, and reports convergence.

    The residuals of its triplets are computed by products when they are checked.
    """

    def __init__(self, start: Start, k: int) -> None:
        self.start, self.k, self.rng = start, k, start.rng
        self._triplets: tuple[Array, HostArray, Array] | None = None

    @property
    def next_cost(self) -> int:
        """Number of products with the start vectors."""
        return self.start.width

    @property
    def available(self) -> int:
        """Number of triplets, once the step is made."""
        return 0 if self._triplets is None else self.k

    @property
    def exact_side(self) -> str | None:
        """The side of which the start vectors are not."""
        return "right" if self.start.of_adjoint else "left"

    def step(self, op: Metered) -> None:
        """Make the Rayleigh-Ritz step, by one product with each start vector."""
        del op
        start = self.start
        U, S, V = rayleigh_ritz(start.op, start.V, self.rng, self.k)
        start.V = V  # the leading directions, in their order
        self._triplets = (V, S, U) if start.of_adjoint else (U, S, V)
        self.iterations += 1
        self.finished = True

    def report(self, *, now: bool = False) -> Ritz | None:
        """Report convergence, which the check of the triplets confirms or refutes."""
        del now
        if self._triplets is None:
            return None
        S = self._triplets[1]
        return Ritz(S, np.zeros(len(S)))

    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        """Return the k leading triplets of the step."""
        del op
        assert self._triplets is not None
        U, S, V = self._triplets
        return U[:, :k], S[:k], V[:, :k]

    def retarget(self, k: int) -> None:
        """Keep the triplets; a resumed run begins with them."""

    def copy(self) -> StartRun:
        """Return the run itself, which does not change after its step."""
        return self
