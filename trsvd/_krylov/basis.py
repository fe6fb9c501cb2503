"""Block orthonormalization.

Invariant of `orthonormalize`: ``X = basis @ H + Q @ R`` to rounding, ``Q^H Q = I`` and
``basis^H Q = 0`` to working precision, for *any* X: directions in which X is zero (or depends on
the basis and on its own other columns to rounding) are replaced by fresh random ones, with zero
coefficients in R. A Krylov basis that breaks down therefore goes on by itself, and the small
matrix built from H and R says so by its zeros.

Only products with tall arrays are used: classical Gram-Schmidt applied twice between blocks
("twice is enough": Giraud, Langou, Rozloznik, doi:10.1007/s00211-005-0615-4), and within the
block Cholesky-QR, or the eigenvalue-based SVQB (Stathopoulos and Wu,
doi:10.1137/S1064827500370883) where the columns are nearly dependent.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.host_blas import thin_qr

# Up to so many entries a call of LAPACK takes less than a few products.
_SMALL_BLOCK = 1 << 13


class SpareVectors:
    """Random vectors that stand in for directions that vanished.

    One block is drawn, as wide as any that it will have to replace; each call makes new columns of
    it. Where arrays live on a device it is drawn at once, so that no transfer is made in the middle
    of a run; elsewhere only a seed is, and the block when (if ever) it is needed.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the columns come from.
    n, w : int
        Their length, and how many are needed at most.
    """

    def __init__(self, arrays: Arrays, rng: np.random.Generator, n: int, w: int) -> None:
        self.arrays, self.length, self.width = arrays, n, w
        self.seed = int(rng.integers(1 << 62))
        self.shift = 0
        if not arrays.reads_are_cheap:
            self.block  # noqa: B018 - drawn now

    @cached_property
    def block(self) -> Array:
        """The columns, of shape (n, w)."""
        return self.arrays.gaussian(np.random.default_rng(self.seed), self.length, self.width)

    def copy(self) -> SpareVectors:
        """One that will give the same vectors."""
        twin = SpareVectors.__new__(SpareVectors)
        twin.__dict__.update(self.__dict__)
        return twin

    def __call__(self, width: int) -> Array:
        """``width`` unit columns, at most as many as the block has."""
        arrays = self.arrays
        self.shift += 1
        # Products of two shifts: n^2 of them, so that none comes back soon, however small n is.
        other = arrays.roll(self.block[:, :width], 2 * self.shift + self.shift // self.length + 1)
        X = arrays.roll(self.block[:, :width], self.shift) * other
        return X / arrays.column_norms(X)


def level_of(arrays: Arrays, X: Array) -> Array:
    """Norm, on the device, up to which what a projection leaves of X is rounding."""
    return 4 * arrays.eps * arrays.xp.max(arrays.column_norms(X))


def orthonormalize(
    arrays: Arrays,
    X: Array,
    basis: Array | None,
    *,
    floor: Array | float,
    spare: SpareVectors,
    width: int | None = None,
) -> tuple[Array, Array | None, Array]:
    """Split ``X`` into its part in the basis and an orthonormal block: ``X = basis H + Q R``.

    Parameters
    ----------
    arrays : Arrays
        What X lives in.
    X : array of shape (n, w)
        The block; not written to.
    basis : array of shape (n, j) or None
        Orthonormal columns to be orthogonal to.
    floor : float or 0-d array
        What remains of a column after the projection counts as zero when its norm is at most this:
        the rounding level of the product that X came from.
    spare : SpareVectors
        Where columns come from that take the place of zero ones.
    width : int, optional
        Number of columns of Q, at most w (the default): the dominant directions of the remainder.

    Returns
    -------
    Q : array of shape (n, width)
        The orthonormal block.
    H : array of shape (j, w) or None
        Coefficients in the basis.
    R : array of shape (width, w)
        Coefficients in Q.
    """
    if X.shape[1] == 1 and arrays.on_host:
        return _one_column(arrays, X[:, 0], basis, float(floor), spare)
    if basis is None and arrays.on_host and X.size <= _SMALL_BLOCK and width in (None, X.shape[1]):
        factors = _small_block(arrays, X, float(floor))
        if factors is not None:
            return factors[0], None, factors[1]
    H: Array | None = None
    R: Array | None = None
    # After the first sweep the columns are near unit length. What a second projection takes down
    # to sqrt(eps) was rounding noise of a dependent column, not a direction.
    noise = 4 * arrays.eps**0.5
    # Where a look at the numbers costs a wait, a fixed number of sweeps is made instead.
    sweeps = 8 if arrays.reads_are_cheap else 4 if X.shape[1] > 1 else 3
    for sweep in range(sweeps):
        if basis is not None:
            part = arrays.adjoint_product(basis, X)
            X = X - arrays.product(basis, part)
            H = part if H is None or R is None else H + part @ R
        if sweep == 0 and width is not None and width < X.shape[1]:
            X, R = _dominant(arrays, X, width)
        norms = arrays.column_norms(X)
        if sweep == 0:
            bad = norms <= floor
        elif sweep < sweeps - 1:
            # A column that shrank, and stands for next to nothing of the block that was given.
            share = arrays.column_norms(arrays.adjoint(R))
            bad = (norms <= noise) | ((norms < 0.01) & (norms * share <= floor))
        else:
            bad = norms < 0
        # Where nobody looks, what is dependent still (to eps, by now) gives way at once.
        unseen = not arrays.reads_are_cheap and sweep == 1
        X, factor, cosine = _normalize(arrays, X, norms, bad, spare, replacing=unseen)
        R = factor if R is None else factor @ R
        if cosine is None:  # a device: the sweeps are counted
            continue
        if basis is None:
            # Nothing was projected out: columns that were near orthogonal are so now.
            if cosine < (0.7 if sweep > 0 else 0.3):
                break
        elif sweep > 0 and cosine < 0.7 and bool(arrays.xp.all(norms > 0.7)):
            break
    return X, H, R


def _one_column(
    arrays: Arrays, x: Array, basis: Array | None, floor: float, spare: SpareVectors
) -> tuple[Array, Array | None, Array]:
    """`orthonormalize` of a single column in memory, where each call counts.

    A projection that leaves 0.7 of the length leaves no more of the basis than rounding does: then
    one is enough (Daniel, Gragg, Kaufman and Stewart, doi:10.1090/S0025-5718-1976-0431641-8).
    """
    H: Array | None = None
    coefficient = 1.0
    noise = 4 * arrays.eps**0.5
    before = norm_of(x)
    for sweep in range(8):
        if basis is not None:
            part = arrays.conj(arrays.conj(x) @ basis)
            x = x - arrays.product(basis, part[:, None])[:, 0]
            H = part if H is None else H + part * coefficient
        norm = norm_of(x) if basis is not None or sweep > 0 else before
        if sweep == 0:
            bad = norm <= floor
        else:
            bad = sweep < 7 and (norm <= noise or (norm < 0.01 and norm * coefficient <= floor))
        if bad:
            x, coefficient, before = spare(1)[:, 0], 0.0, 1.0
            continue
        x, coefficient = x / norm, coefficient * norm
        if basis is None or not norm <= 0.7 * before:
            break
        before = 1.0
    R = arrays.put(np.asarray([[coefficient]]))
    return x[:, None], None if H is None else H[:, None], R


def _small_block(arrays: Arrays, X: HostArray, floor: float) -> tuple[HostArray, HostArray] | None:
    """Q and R by LAPACK; None where a column vanished, or depends on those before it."""
    if X.shape[0] < X.shape[1]:
        return None
    Q, R = thin_qr(X)
    left, norms = np.abs(R.diagonal()), np.sqrt(np.sum(np.abs(R) ** 2, axis=0))
    there = left > np.maximum(floor, 100 * arrays.eps * norms)
    return (Q, R) if there.all() else None


def norm_of(x: Array) -> float:
    """2-norm of a vector in memory."""
    return math.sqrt(np.vdot(x, x).real)


def largest_norm(arrays: Arrays, so_far: Array, X: Array) -> Array:
    """The largest norm of a column of X, if it exceeds the one so far; no wait for a device."""
    if arrays.on_host:
        norms = norm_of(X[:, 0]) if X.shape[1] == 1 else float(arrays.column_norms(X).max())
        return max(norms, float(so_far)) if norms == norms else norms
    return arrays.xp.max(arrays.xp.concat([so_far[None], arrays.column_norms(X)]))


def _dominant(arrays: Arrays, X: Array, width: int) -> tuple[Array, Array]:
    """The ``width`` principal directions of X, and the coefficients of X in them."""
    size = arrays.xp.max(arrays.column_norms(X))
    scale = arrays.like(arrays.xp.where(size > 0, size, arrays.xp.ones_like(size)))
    _, vectors = arrays.eigh(arrays.adjoint_product(X / scale, X / scale))
    vectors = vectors[:, :width]
    return arrays.product(X, vectors), arrays.adjoint(vectors)


def _normalize(
    arrays: Arrays,
    X: Array,
    norms: Array,
    bad: Array,
    spare: SpareVectors,
    *,
    replacing: bool = False,
) -> tuple[Array, Array, float | None]:
    """One pass within a block: ``X = Q R`` with Q nearer to orthonormal than X.

    Columns that are ``bad`` give way to spare ones, with zero columns in R; where ``replacing`` is
    set, so do directions in which the columns depend on each other, with zero rows in R.
    The number is a cosine between the columns that there were, the nearer to 0 the better; above
    0.7 another pass is due. None where a look would mean waiting for a device.
    """
    xp = arrays.xp
    X = arrays.replace(bad, lambda: spare(X.shape[1]), X)
    lengths = xp.where(bad, xp.ones_like(norms), norms)
    kept = arrays.like(xp.where(bad, xp.zeros_like(norms), norms))
    X = X / arrays.like(lengths)
    if X.shape[1] == 1:
        replaced = arrays.peek(xp.any(bad))
        return X, kept[:, None], None if replaced is None else float(replaced)
    G = arrays.adjoint_product(X, X)
    factors = arrays.cholesky_inverse(G)
    if factors is not None:
        L, inverse = factors
        # A pivot is the sine of the angle between a column and those before it.
        sine = float(xp.min(xp.abs(xp.linalg.diagonal(L))))
        cosine = 1.0 if bool(xp.any(bad)) else math.sqrt(max(1 - sine**2, 0.0))
        Q = arrays.product(X, arrays.adjoint(inverse))
        return Q, arrays.adjoint(L) * kept[None, :], cosine
    values, vectors = arrays.eigh(G)
    small = values[:1] * arrays.eps * X.shape[1]
    dependent = ~(values > small)
    values = xp.where(dependent, small, values)
    roots = arrays.like(xp.sqrt(values))
    Q = arrays.product(X, vectors / roots[None, :])
    R = (roots[:, None] * arrays.adjoint(vectors)) * kept[None, :]
    if replacing:
        Q = arrays.replace(dependent, lambda: spare(X.shape[1]), Q)
        R = xp.where(dependent[:, None], xp.zeros_like(R), R)
    settled = arrays.peek(xp.all(values > 0.5) & xp.all(~bad))
    return Q, R, None if settled is None else 0.5 if settled else 1.0


class Columns:
    """A growing block of columns of one length: a basis.

    Kept as the rows of a C-ordered buffer, so that the leading columns are contiguous and are
    seen, not copied, by `view`. Libraries whose arrays cannot be written to get a new buffer.

    Parameters
    ----------
    arrays : Arrays
        Where the columns live.
    length : int
        Number of entries of a column.
    capacity : int
        Number of columns to make room for; it grows when it must.
    """

    def __init__(self, arrays: Arrays, length: int, capacity: int) -> None:
        self.arrays = arrays
        self.length = length
        arrays.check_room(capacity * length, f"a basis of {capacity} columns of length {length}")
        self._rows = arrays.zeros(capacity, length)
        self.count = 0

    @property
    def capacity(self) -> int:
        """Number of columns there is room for."""
        return int(self._rows.shape[0])

    def view(self, start: int = 0, stop: int | None = None) -> Array:
        """Columns ``start`` to ``stop`` (all that there are, by default) as a matrix."""
        return self._rows[start : self.count if stop is None else stop, :].T

    def rows(self, capacity: int) -> Array:
        """The buffer, a column a row, with room for ``capacity`` of them; to be written to."""
        self.grow(capacity)
        return self._rows

    def append(self, X: Array) -> None:
        """Add columns behind the last."""
        self.overwrite(X, self.count)

    def overwrite(self, X: Array, start: int) -> None:
        """Put ``X`` at column ``start``; what stood behind it is gone."""
        stop = start + X.shape[1]
        if stop > self.capacity:
            self.grow(max(stop, self.capacity + self.capacity // 2))
        rows = X.T
        try:
            self._rows[start:stop, :] = rows
        except TypeError:
            parts = [self._rows[:start, :], rows, self._rows[stop:, :]]
            self._rows = self.arrays.xp.concat(parts, axis=0)
        self.count = stop

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` columns."""
        if capacity > self.capacity:
            numbers = (2 * capacity - self.capacity) * self.length
            self.arrays.check_room(
                numbers, f"a basis that grows to {capacity} columns of length {self.length}"
            )
            room = self.arrays.zeros(capacity - self.capacity, self.length)
            self._rows = self.arrays.xp.concat([self._rows, room], axis=0)

    def copy(self) -> Columns:
        """An independent copy."""
        twin = Columns.__new__(Columns)
        twin.arrays, twin.length, twin.count = self.arrays, self.length, self.count
        twin._rows = self.arrays.xp.asarray(self._rows, copy=True)
        return twin
