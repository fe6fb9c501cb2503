"""Direct methods: full SVD, and Gram matrix with one Rayleigh-Ritz step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._arrays.dtypes import SINGLE
from trsvd._arrays.host_blas import count_above
from trsvd._krylov.rayleigh_ritz import Ritz, check_finite, rayleigh_ritz
from trsvd._plan.precision import FEW, in_single, least_resolved, lost_to_squares, resolved
from trsvd.methods.base import Run
from trsvd.operators.counting import Metered
from trsvd.operators.gram import formed_gram

# From this number of columns on, two fifths of the eigenvectors of the Gram matrix cost less than a
# full SVD, and an additional factorization costs little.
_MANY = 512


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Dense factorization, for small matrices and for k near min(m, n).

    Parameters
    ----------
    route : {"auto", "svd", "gram"}, default "auto"
        ``"svd"``: the full thin SVD of the array library. ``"gram"``: the k leading eigenvectors of
        A^H A, and one Rayleigh-Ritz step with A. The Gram matrix is formed in float32 if the
        tolerance allows it, and in double precision if s_k turns out to be too small for that. If
        s_k is too small for the Gram matrix, or residuals exceed the tolerance, a full SVD follows.
        ``"auto"``: ``"gram"`` if k is at most a quarter of min(m, n), or two fifths of a min(m, n)
        of at least 512; for float32 data, double precision only up to a fifth.

    See Also
    --------
    svds, select_method

    Notes
    -----
    Cost: counted as min(m, n) products. Memory: two copies of A for ``"svd"``, min(m, n)^2 numbers
    in double precision and k (m + n) numbers for ``"gram"``. An operator without entries is formed
    first.

    References
    ----------
    G. Golub and C. Van Loan, Matrix Computations, 4th ed., section 8.6.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> trsvd.svds(A, 2, method=trsvd.Direct(route="svd"), rng=0).S.round(6)
    array([4., 3.])
    """

    name: ClassVar[str] = "direct"
    route: Literal["auto", "svd", "gram"] = "auto"

    def __post_init__(self) -> None:
        if self.route not in {"auto", "svd", "gram"}:
            raise ValueError(f"route={self.route!r}; it is one of 'auto', 'svd', 'gram'")

    def init(
        self, op: Metered, k: int, *, tol: float, start: Array | None, rng: np.random.Generator
    ) -> Run:
        """Start a run; start and random numbers are not used."""
        del start, rng
        route = self.route
        if route == "auto":
            n = op.shape[1]
            route = "gram" if (2.5 if n >= _MANY else 4) * k <= n else "svd"
        op.form(gram=route == "gram")
        return _DirectRun(route, op, k, tol, chosen=self.route == "auto")


class _DirectRun(Run):
    meets_all_copies = True
    exact = True

    def __init__(self, route: str, op: Metered, k: int, tol: float, *, chosen: bool) -> None:
        self.k, self.tol, self.rank = k, tol, op.shape[1]
        # (float32 data: twice the time of a full SVD, if k is large.)
        self.skips_double = chosen and op.arrays.eps >= SINGLE and 5 * k > self.rank
        self.route = route
        # (The norm must be moderate, so that squares are in the range of float32.)
        moderate = op.arrays.eps >= SINGLE or op.norm_hint is not None
        self.double = not (moderate and in_single(op.arrays.eps, tol))
        self._triplets: tuple[Array, HostArray, Array] | None = None
        self._dense: Array | None = None
        self._is_counted = False

    @property
    def next_cost(self) -> int:
        return 0 if self._is_counted else self.rank

    @property
    def available(self) -> int:
        return self.rank if self._triplets is not None else 0

    def step(self, op: Metered) -> None:
        formed = self.route == "gram" and self._formed(op) is not None
        if not (self._is_counted or formed):
            op.count(self.rank, 1)
        self.iterations += 1
        self.finished = self._is_counted = True
        arrays = op.arrays
        if self.route == "gram":
            if not self.double and self._by_gram(op):
                return
            self.double = True
            if not self.skips_double and self._by_gram(op):
                return
            self.route = "svd"
        self.lost = 0.0
        U, S, Vh = arrays.svd(self._entries(op))
        self._triplets = U, S, arrays.adjoint(Vh)
        self.release()

    def _entries(self, op: Metered) -> Array:
        if self._dense is None:
            self._dense = op.scaled_dense(counted=False)
            if op.norm_hint is None:  # a known norm shows that all entries are finite
                check_finite(np.asarray(op.arrays.max_abs(self._dense)))
        return self._dense

    def _by_gram(self, op: Metered) -> bool:
        """Compute triplets by the Gram matrix; False if it does not resolve the k-th value."""
        arrays = op.arrays
        G = self._formed(op)
        if G is None:
            G = op.gram_by_panels(double=self.double)
        if G is None:
            G = arrays.gram(self._entries(op), double=self.double)
        if not self._promises(op, G):
            return False
        V = arrays.gram_eigh(G, self.k)
        rounded = not self.double and arrays.eps < SINGLE
        op.verifying = True
        skew = rounded or self.rank > FEW
        self._triplets = rayleigh_ritz(op, V, None, self.k, skew=skew, coarse=rounded)
        op.verifying = False
        S = self._triplets[1]
        norm = None if self.double else op.norm_hint or op.frobenius_norm()
        norm = float(S[0]) * self.rank**0.5 if norm is None else norm
        if not resolved(S, norm, self.tol, arrays.eps, double=self.double):
            return False
        self.lost = float(lost_to_squares(S, double=self.double))
        return True

    def _promises(self, op: Metered, G: Array) -> bool:
        """True unless a large G shows that it does not resolve the k-th value.

        Eigenvectors that resolve too little would take up to twice the time of a full SVD.
        """
        if self.rank < _MANY or not isinstance(G, np.ndarray):
            return True
        squares = G.diagonal().real
        # The Frobenius norm of G is at least s_1^2.
        both = 2 * np.linalg.norm(np.tril(G)) ** 2 - np.linalg.norm(squares) ** 2
        top, norm = math.sqrt(math.sqrt(both)), math.sqrt(float(squares.sum()))
        least = least_resolved(top, norm, self.tol, op.arrays.eps, double=self.double)
        return count_above(G, least**2) >= self.k

    def _formed(self, op: Metered) -> HostArray | None:
        """Return the Gram matrix if previous Lanczos steps have formed it."""
        return formed_gram(op, "float64" if self.double else "float32")

    @property
    def exact_side(self) -> str | None:
        return "left" if self.route == "gram" else None

    def report(self, *, now: bool = False) -> Ritz | None:
        del now
        if self._triplets is None:
            return None
        S = self._triplets[1]
        return Ritz(S, np.zeros(len(S)), np.zeros((len(S), len(S))))

    def extract(self, op: Metered, k: int) -> tuple[Array, HostArray, Array]:
        del op
        assert self._triplets is not None
        U, S, V = self._triplets
        k = min(k, len(S))  # slices beyond the end are undefined in the array API standard
        return U[:, :k], S[:k], V[:, :k]

    def retarget(self, k: int) -> None:
        if self._triplets is not None and k > len(self._triplets[1]):
            self._triplets, self.finished = None, False
        self.k = k

    def escalate(self) -> bool:
        if self.route == "svd":
            return False
        if self.double:
            self.route = "svd"
        self.double, self._triplets, self.finished = True, None, False
        return True

    def copy(self) -> _DirectRun:
        twin = _DirectRun.__new__(_DirectRun)
        twin.__dict__.update(self.__dict__)
        return twin

    def release(self) -> None:
        self._dense, self._is_counted = None, False
