"""Block Lanczos on the Gram operator ``A^H A`` that can be thick-restarted.

Invariant, after every `expand`, `compress` and `lock`, with j columns in the basis and a next
block W of w columns::

    A^H A V = V T + W C             V: n x j, T: j x j Hermitian, W: n x w, C: w x j
    V^H V = I,  W^H W = I,  V^H W = 0

to rounding, relative to ``s_1^2``. Hence ``||C q|| / s`` is the residual of the triplet
(A v / s, s, v) with v = V q of an eigenpair (s^2, q) of T. No left basis is stored. Singular values
below ``sqrt(eps) s_1`` are not resolved.
"""

from __future__ import annotations

import math

import numpy as np

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.basis import Columns, RandomVectors, largest_norm, orthonormalize
from trsvd._krylov.golub_kahan import narrow
from trsvd._krylov.rayleigh_ritz import Ritz, small_eigh
from trsvd.operators.counting import Metered, Turned
from trsvd.operators.gram import InMemory


def _lower(count: int, w: int) -> HostArray:
    """Return 1 below the diagonal blocks of w columns, 0.5 on them, and 0 above."""
    block = np.arange(count) // w
    return np.greater.outer(block, block) + 0.5 * np.equal.outer(block, block)


class GramLanczos:
    """Basis and small matrices, see the invariant of the module.

    Parameters
    ----------
    op : Metered
        The operator, m x n with m >= n.
    start : array of shape (n, w)
        Start of the Krylov space; it is orthonormalized.
    capacity : int
        Number of columns of the buffer of V, without the next block.
    rng : numpy.random.Generator
        Source of replacement vectors.
    """

    two_sided = True  # the only basis is orthogonalized
    loss = 0.0

    def __init__(
        self,
        op: Metered | Turned | InMemory,
        start: Array,
        *,
        capacity: int,
        rng: np.random.Generator,
    ) -> None:
        arrays, n = op.arrays, op.shape[1]
        self.arrays, self.shape = arrays, op.shape
        self.capacity = min(capacity, n)
        width = min(int(start.shape[1]), n)
        self.V = Columns(arrays, n, self.capacity + width)
        self.random_n = RandomVectors(arrays, rng, n, int(start.shape[1]))
        self.size = self.locked = 0
        W, _, _ = orthonormalize(
            arrays, start, None, floor=0.0, replacements=self.random_n, width=width
        )
        self.V.append(W)
        self._begun_with = self.width
        self.T = np.zeros((0, 0), dtype=arrays.wide_dtype)
        self.C = np.zeros((self.width, 0), dtype=arrays.wide_dtype)
        self.anorm = arrays.xp.asarray(0.0, dtype=arrays.real_dtype, device=arrays.device)
        self._pending: list[tuple[Array, Array]] = []
        self._tridiagonal = self.width == 1  # without the locked part
        self._solved: tuple[HostArray, HostArray, HostArray] | None = None  # the last T, with S, Q

    @property
    def width(self) -> int:
        """Number of columns of the next block; 0 if V spans the whole space."""
        return self.V.count - self.size

    @property
    def full(self) -> bool:
        """True if the buffer is too small for the next expansion."""
        return self.size + self.width > self.capacity

    @property
    def exhausted(self) -> bool:
        """True if V spans the whole space."""
        return self.width == 0

    def expand_by(self, op: Metered | Turned | InMemory, count: int) -> int:
        """Make up to ``count`` expansions, compiled if possible; return their number."""
        w, j, n = self.width, self.size, self.shape[1]
        count = min(count, (self.capacity - j) // max(w, 1), (n - j) // max(w, 1) - 1)
        if not isinstance(op, InMemory) or not 0 < w <= op.most_at_once or count < 1:
            self.expand(op)
            return 1
        self.sync()
        ahead = j + (count + 1) * w
        H, C = np.zeros((count * w, ahead)), np.zeros((2, count * w))
        V, largest = self.V.rows(ahead), float(self.anorm)
        made = op.lanczos(V, j, w, H, C, 4 * self.arrays.eps, largest)
        if made:
            self._take_over(H[: made * w], C[0, : made * w], w)
            self.anorm = max(largest, float(C[1, : made * w].max()))
        if made < count:
            # A product vanished: the next vector must be a random one.
            self.expand(op)
            made += 1
        return made

    def _take_over(self, H: HostArray, left: HostArray, w: int) -> None:
        """Enlarge T and C by the coefficients of compiled steps, which are rows of H."""
        j, count = self.size, len(H)
        total = j + count
        self.C = np.zeros((w, total))
        for i in range(w):  # remainder of a product: the next block, up to its own vector
            self.C[:i, total - w + i] = H[count - w + i, total : total + i]
            self.C[i, total - w + i] = left[count - w + i]
        T = np.zeros((total, total))
        T[:j, :j] = self.T
        T[j:, :j] = H[:, :j]
        T[:j, j:] = H[:, :j].T
        # Entries right of the diagonal blocks are coefficients in later blocks.
        inner = T[j:, j:]
        inner += H[:, j:total] * _lower(count, w)
        inner += inner.T
        self.T, self.size = T, total
        self.V.count = total + w

    def expand(self, op: Metered | Turned | InMemory) -> None:
        """Add the next block to the basis, by two products of its width."""
        arrays = self.arrays
        j, w, n = self.size, self.width, self.shape[1]
        Z = op.rmatmat(op.matmat(self.V.view(j)))
        self.anorm = largest_norm(arrays, self.anorm, Z)
        room = n - j - w
        if room == 0:
            H, C = arrays.adjoint_product(self.V.view(), Z), arrays.zeros(0, w)
        else:
            W, part, C = orthonormalize(
                arrays,
                Z,
                self.V.view(),
                floor=4 * arrays.eps * self.anorm,
                replacements=self.random_n,
                width=min(w, room),
            )
            H = part
            self.V.append(W)
        self.size = j + w
        self._pending.append((H, C))

    def sync(self) -> None:
        """Copy the results of the last expansions to the host, in one transfer."""
        if not self._pending:
            return
        arrays = self.arrays
        flat = [arrays.xp.reshape(piece, (-1,)) for step in self._pending for piece in step]
        host = arrays.get(arrays.xp.concat(flat)).astype(arrays.wide_dtype)
        at = 0
        for step in self._pending:
            blocks = []
            for piece in step:
                shape = (int(piece.shape[0]), int(piece.shape[1]))
                blocks.append(host[at : at + shape[0] * shape[1]].reshape(shape))
                at += shape[0] * shape[1]
            H, C = blocks
            j, w = len(self.T), H.shape[1]
            T = np.zeros((j + w, j + w), dtype=host.dtype)
            T[:j, :j] = self.T
            T[:, j:] = H
            T[j:, :j] = H[:j].conj().T
            T[j:, j:] = (H[j:] + H[j:].conj().T) / 2
            self.T = T
            self.C = np.hstack([np.zeros((len(C), j), host.dtype), C])
        self._pending = []

    def _eigh(self) -> tuple[HostArray, HostArray]:
        """Return Ritz values of A (square roots, descending) and vectors that are not locked."""
        self.sync()
        if self._solved is not None and self._solved[0] is self.T:
            return self._solved[1:]
        T = self.T[self.locked :, self.locked :]
        values, Q = small_eigh(T, tridiagonal=self._tridiagonal)
        S = np.sqrt(np.maximum(values, 0))
        self._solved = None if self.locked else (self.T, S, Q)
        return S, Q

    def ritz(self) -> Ritz:
        """Return Ritz values and residuals."""
        a = self.locked
        S, Q = self._eigh()
        couplings = np.linalg.norm(self.C[:, a:] @ Q, axis=0)
        residuals = couplings / np.maximum(S, self.arrays.eps * S.max(initial=1e-300))
        S = np.concatenate([np.sqrt(np.real(np.diagonal(self.T)[:a])), S])
        residuals = np.concatenate([np.zeros(a), residuals])
        order = np.argsort(-S, kind="stable")
        return Ritz(S[order], residuals[order])

    def spectrum_estimate(self, k: int) -> tuple[float, float, float]:
        """Estimate ``s_1``, ``s_k`` and the mean square of all values after the k-th.

        The estimates are Gauss quadrature: a Ritz value represents a number of singular values that
        is given by the weight of the random start in its vector (G. Golub and G. Meurant, Matrices,
        Moments and Quadrature with Applications, 2010). At least k / 2 and 24 columns are needed,
        and no restart before.
        """
        S, Q = self._eigh()
        width = self._begun_with
        n, rank = self.shape[1], min(self.shape)
        shares = np.sum(np.abs(Q[:width]) ** 2, axis=0) * (n / width)
        counts = np.cumsum(shares)
        at = min(int(np.searchsorted(counts, k)), len(S) - 1)
        behind = np.append(max(counts[at] - k, 0.0), shares[at + 1 :])
        logs = np.log(np.maximum(S, np.finfo(float).tiny))
        value = math.exp(np.interp(k, counts - shares / 2, logs))
        return float(S[0]), value, float(behind @ S[at:] ** 2) / max(rank - k, 1)

    def right_vectors(self, k: int) -> Array:
        """Return the k leading Ritz vectors."""
        self.sync()
        _, Q = small_eigh(self.T) if self.locked else self._eigh()
        return self.arrays.product(self.V.view(0, self.size), self.arrays.put(Q[:, :k]))

    def compress(self, keep: int, *, drop: float = 0.0, block_size: int | None = None) -> None:
        """Make a thick restart: keep the leading Ritz vectors, and the locked ones."""
        a, j = self.locked, self.size
        S, Q = self._eigh()
        self._tridiagonal = False
        S, Q = S[: keep - a], Q[:, : keep - a]
        C = self.C[:, a:] @ Q
        W, C = narrow(self.arrays, self.V.view(j), C, drop, block_size)
        V_new = self.arrays.product(self.V.view(a, j), self.arrays.put(Q))
        W = W + 0  # a copy, since its buffer is overwritten next
        self.V.overwrite(V_new, a)
        self.V.append(W)
        self.size = a + len(S)
        self.T = np.diag(np.concatenate([np.diagonal(self.T)[:a], S**2])).astype(self.T.dtype)
        self.C = np.hstack([np.zeros((len(C), a), C.dtype), C])

    def lock(self, level: float) -> None:
        """Lock leading vectors whose couplings are at most ``level``."""
        a = self.locked
        over = np.linalg.norm(self.C[:, a:], axis=0) > level
        count = int(np.argmax(over)) if over.any() else len(over)
        self.C[:, a : a + count] = 0
        self._solved = None
        self.locked = a + count

    def grow(self, capacity: int) -> None:
        """Enlarge the buffer to ``capacity`` columns."""
        self.capacity = min(max(capacity, self.capacity), self.shape[1])

    def copy(self) -> GramLanczos:
        """Return an independent copy."""
        self.sync()
        twin = GramLanczos.__new__(GramLanczos)
        twin.__dict__.update(self.__dict__)
        twin.V, twin.C, twin._pending = self.V.copy(), self.C.copy(), []
        twin.random_n = self.random_n.copy()
        return twin
