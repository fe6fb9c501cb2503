"""Block Golub-Kahan (Lanczos) bidiagonalization that can be thick-restarted.

Invariant, after every `expand`, `compress` and `lock`, with j columns in the basis and a next
block W of w columns::

    A V   = U B                     V: n x j, U: m x j, B: j x j
    A^H U = V B^H + W C             W: n x w, C: w x j,  C^H = U^H A W
    V^H V = I,  W^H W = I,  V^H W = 0,  U^H U = I

to rounding (and to the level of dropped couplings, where the caller asks for dropping). With
one-sided orthogonalization U^H U = I holds to rounding only after a `compress`; until then the
second line holds with B^H replaced by B^H (U^H U).

Halfway through an expansion, after `forward` (the product with A) and before `backward`, W belongs
to V and the first line holds, but not yet the second.

Consequences: ``||C p||`` is the residual of the triplet (U p, s, V q) of an SVD B = P S Q^H, and
``U^H A = [B, C^H] [V, W]^H``, from which the final triplets are extracted. Unlike B alone, this
includes the last product.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._errors import AdjointError
from trsvd._krylov.basis import Columns, RandomVectors, largest_norm, level_of, orthonormalize
from trsvd._krylov.rayleigh_ritz import Ritz, check_finite, small_svd
from trsvd.operators.counting import Metered


class GolubKahan:
    """Basis and small matrices, see the invariant of the module.

    Parameters
    ----------
    op : Metered
        The operator, m x n with m >= n.
    start : array of shape (n, w)
        Start of the Krylov space; it is orthonormalized.
    capacity : int
        Number of columns of the buffers of V and U, without the next block.
    rng : numpy.random.Generator
        Source of replacement vectors.
    two_sided : bool
        True: U is orthogonalized explicitly, as V. False: U inherits its orthogonality from V, and
        the loss is corrected at each restart.
    locked : tuple (U, S, V), optional
        Triplets; the iteration works in their complement.
    """

    def __init__(
        self,
        op: Metered,
        start: Array,
        *,
        capacity: int,
        rng: np.random.Generator,
        two_sided: bool = True,
        locked: tuple[Array, HostArray, Array] | None = None,
    ) -> None:
        arrays = op.arrays
        m, n = op.shape
        self.arrays, self.shape = arrays, op.shape
        # A one-sided step reads numbers of the device, which costs more than it saves.
        self.two_sided = two_sided or not arrays.reads_are_cheap
        self.rounding = op.rounding
        self.capacity = min(capacity, n)
        width = int(start.shape[1])
        arrays.check_room(
            (m + n) * self.capacity, f"bases of {self.capacity} columns on both sides"
        )
        self.V = Columns(arrays, n, self.capacity + min(width, n))
        self.U = Columns(arrays, m, self.capacity)
        self.random_n = RandomVectors(arrays, rng, n, width)
        self.random_m = RandomVectors(arrays, rng, m, width)
        self.locked = 0
        self._open = 0  # columns of U without a product with A^H yet
        self.S_locked = np.zeros(0)
        self.loss = 0.0
        self._loss = arrays.eps  # estimate for the last block of U, if one-sided
        if locked is not None:
            self.U.append(locked[0])
            self.V.append(locked[2])
            self.locked = len(locked[1])
            self.S_locked = np.asarray(locked[1], dtype=np.float64)
        # Largest norm of a product so far, on the device; remainders are compared with it.
        self.anorm = arrays.xp.asarray(
            float(self.S_locked.max(initial=0.0)), dtype=arrays.real_dtype, device=arrays.device
        )
        W, _, _ = orthonormalize(
            arrays,
            start,
            self.V.view() if self.locked else None,
            floor=level_of(arrays, start) if self.locked else 0.0,
            replacements=self.random_n,
            width=min(width, n - self.locked),
        )
        self.V.append(W)
        j = self.locked
        self.B = np.diag(self.S_locked).astype(arrays.wide_dtype)
        self.C = np.zeros((self.width, j), dtype=arrays.wide_dtype)
        # Coefficients still on the device: (H, R) of a product with A, (C, back) of one with A^H.
        self._pending: list[tuple[Array | None, Array]] = []
        self._half_known = False  # whether B on the host has a column whose couplings are pending
        self._kept = self.locked  # columns of the last restart
        self._restarts = 0
        self.careful = False  # extract exactly what the residuals are about
        self._coupling: Array | None = None

    # ---- sizes ------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number j of columns in the basis."""
        return self.U.count

    @property
    def width(self) -> int:
        """Number of columns of the next product; 0 if V spans the whole space."""
        return self._open if self._open else self.V.count - self.U.count

    @property
    def halfway(self) -> bool:
        """True if the last product was with A, so that the next block is not known yet."""
        return self._open > 0

    @property
    def full(self) -> bool:
        """True if the buffers are too small for the next expansion."""
        return not self.halfway and self.size + self.width > self.capacity

    @property
    def exhausted(self) -> bool:
        """True if V spans the whole space: the triplets are exact."""
        return self.width == 0

    # ---- the recurrence -----------------------------------------------------------------

    def expand(self, op: Metered) -> None:
        """Add the next block to the basis, by two products of its width."""
        self.forward(op)
        self.backward(op)

    def forward(self, op: Metered) -> None:
        """Make the first half of an expansion, ``A W``; then ``A V = U B`` with W in the basis."""
        arrays = self.arrays
        j = self.size
        Y = op.matmat(self.V.view(j))
        self.anorm = largest_norm(arrays, self.anorm, Y)
        floor = 4 * arrays.eps * self.anorm
        basis = self.U.view() if j else None
        H: Array | None = None
        if self.two_sided or self._coupling is None:
            Q, H, R = orthonormalize(arrays, Y, basis, floor=floor, replacements=self.random_m)
        else:
            H = arrays.adjoint(self._coupling)
            Y = Y - self.arrays.product(self.U.view(j - H.shape[0]), H)
            Q, _, R = orthonormalize(arrays, Y, None, floor=floor, replacements=self.random_m)
            if self._loss_after(H, R) > arrays.eps**0.5:
                Q, more, R = orthonormalize(
                    arrays, Y, basis, floor=floor, replacements=self.random_m
                )
                # The columns of U are orthonormal to sqrt(eps): two projections leave eps.
                Q, again, rest = orthonormalize(
                    arrays, Q, basis, floor=0.0, replacements=self.random_m
                )
                H = self._padded(H, j) + more + arrays.product(again, R)
                R = arrays.product(rest, R)
                self._loss = arrays.eps
        self._open = int(Q.shape[1])
        self.U.append(Q)
        self._pending.append((H, R))

    def backward(self, op: Metered) -> None:
        """Make the second half, ``A^H U_new``, which gives the next block."""
        arrays = self.arrays
        w, n = self._open, self.shape[1]
        j = self.size - w
        Z = op.rmatmat(self.U.view(j))
        self.anorm = largest_norm(arrays, self.anorm, Z)
        self._open = 0
        room = n - j - w
        if room == 0:
            C = arrays.zeros(0, w)
            back = arrays.adjoint_product(self.V.view(j), Z)
        else:
            P, G, C = orthonormalize(
                arrays,
                Z,
                self.V.view(),
                floor=4 * arrays.eps * self.anorm,
                replacements=self.random_n,
                width=min(w, room),
            )
            self.V.append(P)
            back = G[j:, :] if G is not None else C[:0, :]
        self._coupling = C
        self._pending.append((C, back))

    def _loss_after(self, H: Array, R: Array) -> float:
        """Estimate the cosines between a new block and the previous columns of U.

        If V is orthonormal, ``U^H (A W - U_last H) = (I - U^H U_last) H`` up to rounding errors.
        The loss of the last block is multiplied by ``||H|| / r``, where r is the least singular
        value of R.
        """
        H, R = self.arrays.get(H), self.arrays.get(R)
        check_finite(R)
        least = float(np.linalg.norm(R, ord=-2))
        rounding = max(self.arrays.eps * float(self.anorm), self.rounding)
        carried = self._loss * float(np.linalg.norm(H))
        self._loss = (carried + rounding) / least if least else math.inf
        return self._loss

    def _padded(self, H: Array, rows: int) -> Array:
        """Pad coefficients in the last columns of U to coefficients in all ``rows`` columns."""
        zeros = self.arrays.zeros(rows - int(H.shape[0]), int(H.shape[1]))
        return self.arrays.xp.concat([zeros, H], axis=0)

    def sync(self) -> None:
        """Bring what the last expansions computed to the host: one transfer."""
        if not self._pending:
            return
        arrays = self.arrays
        pieces = [piece for step in self._pending for piece in step if piece is not None]
        flat = [arrays.xp.reshape(piece, (-1,)) for piece in pieces]
        norm = arrays.like(arrays.xp.reshape(self.anorm, (1,)))
        host = arrays.get(arrays.xp.concat([norm, *flat])).astype(arrays.wide_dtype)
        check_finite(host)
        anorm = float(host[0].real)
        at = 1

        def take(piece: Array) -> HostArray:
            nonlocal at
            size = int(piece.shape[0]) * int(piece.shape[1])
            block = host[at : at + size].reshape(tuple(piece.shape))
            at += size
            return block

        was_forward = self._half_known
        for first, second in self._pending:
            if not was_forward:
                self._add_column(None if first is None else take(first), take(second))
            else:
                C = take(first)
                j = self.B.shape[1] - C.shape[1]
                self.C = np.hstack([np.zeros((len(C), j), host.dtype), C])
                self._check_adjoint(self.B[j:, j:], take(second), anorm)
            was_forward = not was_forward
        self._half_known = was_forward
        self._pending = []

    def _add_column(self, H: HostArray | None, R: HostArray) -> None:
        """Put the coefficients of a forward product into B; of C nothing is known then."""
        j, w = self.B.shape[1], R.shape[1]
        B = np.zeros((j + w, j + w), dtype=self.B.dtype)
        B[:j, :j] = self.B
        if H is not None:
            B[j - len(H) : j, j:] = H
        B[j:, j:] = R
        self.B, self.C = B, np.zeros((0, j + w), dtype=self.B.dtype)

    def _check_adjoint(self, R: HostArray, back: HostArray, anorm: float) -> None:
        """``W^H (A^H U_new) = R^H``: the two products belong to one matrix. Costs nothing."""
        if not np.isfinite(back).all() or not back.size:
            return
        eps = self.arrays.eps
        # One-sided, a block is orthogonal to U only up to what is repaired at the next restart.
        level = 100 * eps**0.5 if self.two_sided else max(100 * eps**0.5, eps**0.25)
        if np.abs(back - R.conj().T).max() > level * anorm + 30 * self.rounding:
            raise AdjointError(
                "products with A and with its adjoint disagree: <v, A^H u> differs from <A v, u> "
                f"by {np.abs(back - R.conj().T).max() / anorm:.2g} of the norm of A; rmatmat must "
                "compute A.conj().T @ X, and both must be deterministic"
            )

    # ---- Rayleigh-Ritz ----------------------------------------------------------------

    def _repair(self) -> HostArray | None:
        """Return ``T^-1`` with ``U T^-1`` orthonormal; None if U is orthonormal."""
        if self.two_sided or self.size == 0:
            return None
        U = self.U.view()
        G = self.arrays.get(self.arrays.adjoint_product(U, U)).astype(self.B.dtype)
        self.loss = float(np.abs(G - np.eye(len(G))).max())
        T = np.linalg.cholesky(G).conj().T
        return np.linalg.inv(T)

    def _form(self) -> tuple[HostArray, HostArray, HostArray | None]:
        """Return B and C for an orthonormal U, and the factor that orthonormalizes U."""
        self.sync()
        inverse = self._repair()
        if inverse is None:
            return self.B, self.C, None
        return np.linalg.solve(inverse, self.B), self.C @ inverse, inverse

    def _leading(self, B: HostArray) -> tuple[HostArray, HostArray, HostArray]:
        """Return singular triplets P, S, Q of B, S descending; locked ones are not changed."""
        a = self.locked
        P, S, Qh = small_svd(B[a:, a:])
        if a == 0:
            return P, S, Qh.conj().T
        S = np.concatenate([self.S_locked, S])
        order = np.argsort(-S, kind="stable")
        P, Q = (scipy.linalg.block_diag(np.eye(a), X)[:, order] for X in (P, Qh.conj().T))
        return P, S[order], Q

    def ritz(self) -> Ritz:
        """Return Ritz values and residuals after a whole expansion."""
        if self.careful:
            B, C, _ = self._form()
        else:
            self.sync()
            B, C = self.B, self.C
        if self.halfway:
            raise RuntimeError("the couplings are not known halfway through an expansion")
        P, S, _ = self._leading(B)
        K = C @ P
        w = len(self.C)
        grown = w > 0 and len(self.B) - self._kept >= 2 * w
        return Ritz(S, np.linalg.norm(K, axis=0), K, (self.B, self.C, w) if grown else None)

    def right_vectors(self, k: int) -> Array:
        """Return the k leading right Ritz vectors."""
        self.sync()
        _, _, Q = self._leading(self.B)
        return self.arrays.product(self.V.view(0, self.size), self.arrays.put(Q[:, :k]))

    def ritz_complement(self, count: int) -> tuple[HostArray, Array]:
        """Return leading Ritz values and right vectors that are not locked."""
        self.sync()
        arrays, (_, S, Qh) = self.arrays, small_svd(self.B[self.locked :, self.locked :])
        Q = arrays.put(Qh[:count].conj().T)
        return S[:count], arrays.product(self.V.view(self.locked, self.size), Q)

    def largest_outside(self) -> tuple[float, float]:
        """Return the largest Ritz value that is not locked, and its residual."""
        self.sync()
        P, S, _ = small_svd(self.B[self.locked :, self.locked :])
        return float(S[0]), float(np.linalg.norm(self.C[:, self.locked :] @ P[:, 0]))

    def extract(self, k: int) -> tuple[Array, HostArray, Array]:
        """Return the k leading triplets, S descending on the host.

        They are the triplets of ``U U^H A``, which include the last product. With `careful` they
        are those of ``U U^H A V V^H``, with the residuals of `ritz`: the last product can mix a
        converged copy of a multiple value with one that has not converged.
        """
        B, C, inverse = self._form()
        if self.careful:
            P, S, Q = self._leading(B)
        else:
            P, S, Qh = small_svd(np.hstack([B, C.conj().T]))
            Q = Qh.conj().T
        P, Q = P[:, :k], Q[:, :k]
        if inverse is not None:
            P = inverse @ P
        put, product = self.arrays.put, self.arrays.product
        U, V = product(self.U.view(), put(P)), product(self.V.view(0, len(Q)), put(Q))
        if self._restarts > _DRIFTS_FROM:
            U, V = _polished(self.arrays, U), _polished(self.arrays, V)
        return U, S[:k], V

    # ---- restart ------------------------------------------------------------------------

    def compress(self, keep: int, *, drop: float = 0.0, block_size: int | None = None) -> None:
        """Make a thick restart: keep the leading Ritz triplets, and the locked ones.

        Parameters
        ----------
        keep : int
            Number of columns to keep, the locked ones included.
        drop : float
            Couplings of at most this absolute size may be dropped, to reduce the next block to
            ``block_size`` columns.
        block_size : int, optional
            Largest width of the next block, if the couplings allow it.
        """
        a, j = self.locked, self.size
        B, C, inverse = self._form()
        P, S, Qh = small_svd(B[a:, a:])
        free = keep - a
        P, S, Q = P[:, :free], S[:free], Qh[:free].conj().T
        rotation = np.eye(j)[:, a:] if inverse is None else inverse[:, a:]
        C = C[:, a:] @ P
        W = self.V.view(j)
        W, C = narrow(self.arrays, W, C, drop, block_size)
        put, product = self.arrays.put, self.arrays.product
        start = 0 if inverse is not None else a
        U_new = product(self.U.view(start, j), put(rotation[start:] @ P))
        V_new = product(self.V.view(a, j), put(Q))
        W = W + 0  # a copy, since its buffer is overwritten next
        self.U.overwrite(U_new, a)
        self.V.overwrite(V_new, a)
        self.V.append(W)
        self.S_locked = self.S_locked[:a]
        self.B = np.diag(np.concatenate([self.S_locked, S])).astype(self.B.dtype)
        self.C = np.hstack([np.zeros((C.shape[0], a), C.dtype), C])
        self._coupling = put(self.C)
        self._kept = self.size
        self._restarts += 1
        self._loss = self.arrays.eps

    def lock(self, level: float) -> None:
        """Lock leading triplets whose couplings are at most ``level``.

        Call this immediately after `compress`. Locked triplets stay in the basis, and the others
        stay orthogonal to them.
        """
        a = self.locked
        over = np.linalg.norm(self.C[:, a:], axis=0) > level
        count = int(np.argmax(over)) if over.any() else len(over)
        if count == 0:
            return
        self.C[:, a : a + count] = 0
        self.locked = a + count
        self.S_locked = np.real(np.diagonal(self.B)[: self.locked]).copy()
        self._coupling = self.arrays.put(self.C)

    def copy(self) -> GolubKahan:
        """Return an independent copy."""
        self.sync()
        twin = GolubKahan.__new__(GolubKahan)
        twin.__dict__.update(self.__dict__)
        twin.U, twin.V = self.U.copy(), self.V.copy()
        twin.B, twin.C, twin._pending = self.B.copy(), self.C.copy(), []
        twin.random_n, twin.random_m = self.random_n.copy(), self.random_m.copy()
        return twin

    def grow(self, capacity: int) -> None:
        """Enlarge the buffers to ``capacity`` columns."""
        self.capacity = min(max(capacity, self.capacity), self.shape[1])


# Each restart multiplies the basis by a rotation, with rounding errors. After this number of
# restarts their sum exceeds the error of an orthonormalization.
_DRIFTS_FROM = 20


def _polished(arrays: Arrays, Q: Array) -> Array:
    """Orthonormalize nearly orthonormal columns, by one Newton-Schulz step."""
    return 1.5 * Q - Q @ (0.5 * arrays.adjoint_product(Q, Q))


def narrow(
    arrays: Arrays, W: Array, C: HostArray, drop: float, block_size: int | None
) -> tuple[Array, HostArray]:
    """Return the next block without directions whose couplings are at most ``drop``.

    W is rotated to its principal couplings, and negligible ones are dropped, down to ``block_size``
    columns. ``W C`` changes by at most ``drop``.
    """
    if block_size is None or C.shape[0] <= block_size:
        return W, C
    P, S, Qh = small_svd(C)
    rank = max(block_size, int(np.sum(drop < S)))
    if rank >= min(C.shape):
        return W, C
    return W @ arrays.put(P[:, :rank]), S[:rank, None] * Qh[:rank]
