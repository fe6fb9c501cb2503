"""Block orthonormalization.

Invariant of `orthonormalize`: ``X = basis @ H + Q @ R`` to rounding, ``Q^H Q = I`` and
``basis^H Q = 0`` to working precision, for *any* X. Directions in which X is zero, or linearly
dependent to rounding, are replaced by random ones, with zero coefficients in R. A Krylov basis that
breaks down is therefore continued automatically, and the small matrix of H and R shows the
breakdown by its zeros.

Tall arrays are used in products only. Between blocks, classical Gram-Schmidt is applied twice
("twice is enough": Giraud, Langou, Rozloznik, doi:10.1007/s00211-005-0615-4). Within a block,
Cholesky-QR is used, or the eigenvalue-based SVQB (Stathopoulos and Wu,
doi:10.1137/S1064827500370883) if the columns are nearly dependent.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.host_blas import thin_qr

# Up to this number of entries, a LAPACK call is faster than a few products.
_SMALL_BLOCK = 1 << 13


class RandomVectors:
    """Random vectors that replace vanished directions.

    One block of the largest needed width is drawn; each call makes new columns of it. On a device
    the block is drawn at once, so that a run has no transfer later. On the host only a seed is
    drawn, and the block at its first use.

    Parameters
    ----------
    rng : numpy.random.Generator
        Generator of the random numbers.
    n, w : int
        Length of the columns, and their largest number in a call.
    """

    def __init__(self, arrays: Arrays, rng: np.random.Generator, n: int, w: int) -> None:
        self.arrays, self.length, self.width = arrays, n, w
        self.seed = int(rng.integers(1 << 62))
        self.shift = 0
        if not arrays.reads_are_cheap:
            self.block  # noqa: B018 - drawn now

    @cached_property
    def block(self) -> Array:
        """Columns, of shape (n, w)."""
        return self.arrays.gaussian(np.random.default_rng(self.seed), self.length, self.width)

    def copy(self) -> RandomVectors:
        """Return a copy that will return the same vectors."""
        twin = RandomVectors.__new__(RandomVectors)
        twin.__dict__.update(self.__dict__)
        return twin

    def __call__(self, width: int) -> Array:
        """Return ``width`` unit columns, at most as many as the block has."""
        arrays = self.arrays
        self.shift += 1
        # Products of two shifts: n^2 different ones, so that they do not repeat soon for small n.
        other = arrays.roll(self.block[:, :width], 2 * self.shift + self.shift // self.length + 1)
        X = arrays.roll(self.block[:, :width], self.shift) * other
        return X / arrays.column_norms(X)


def level_of(arrays: Arrays, X: Array) -> Array:
    """Return the norm up to which the remainder of a projection of X is rounding, on the device."""
    return 4 * arrays.eps * arrays.xp.max(arrays.column_norms(X))


def orthonormalize(
    arrays: Arrays,
    X: Array,
    basis: Array | None,
    *,
    floor: Array | float,
    replacements: RandomVectors,
    width: int | None = None,
) -> tuple[Array, Array | None, Array]:
    """Split ``X`` into its part in the basis and an orthonormal block: ``X = basis H + Q R``.

    Parameters
    ----------
    arrays : Arrays
        Array library of X.
    X : array of shape (n, w)
        The block; not modified.
    basis : array of shape (n, j) or None
        Orthonormal columns of the basis.
    floor : float or 0-d array
        Largest norm of a column that counts as zero after the projection: the rounding level of the
        product that gave X.
    replacements : RandomVectors
        Vectors that replace zero columns.
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
        return _one_column(arrays, X[:, 0], basis, float(floor), replacements)
    if basis is None and arrays.on_host and X.size <= _SMALL_BLOCK and width in (None, X.shape[1]):
        factors = _small_block(arrays, X, float(floor))
        if factors is not None:
            return factors[0], None, factors[1]
    H: Array | None = None
    R: Array | None = None
    # After the first sweep the columns are near unit length. What a second projection takes down
    # to sqrt(eps) was rounding noise of a dependent column, not a direction.
    noise = 4 * arrays.eps**0.5
    # If reading a number needs a device synchronization, the number of sweeps is fixed.
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
            # A column that shrank, and contains almost nothing of the given block.
            share = arrays.column_norms(arrays.adjoint(R))
            bad = (norms <= noise) | ((norms < 0.01) & (norms * share <= floor))
        else:
            bad = norms < 0
        # Without reading numbers, columns that are still dependent (to eps) are replaced at once.
        unseen = not arrays.reads_are_cheap and sweep == 1
        X, factor, cosine = _normalize(arrays, X, norms, bad, replacements, replacing=unseen)
        R = factor if R is None else factor @ R
        if cosine is None:  # on a device the number of sweeps is fixed
            continue
        if basis is None:
            # Without a projection, nearly orthogonal columns are orthogonal after one pass.
            if cosine < (0.7 if sweep > 0 else 0.3):
                break
        elif sweep > 0 and cosine < 0.7 and bool(arrays.xp.all(norms > 0.7)):
            break
    return X, H, R


def _one_column(
    arrays: Arrays, x: Array, basis: Array | None, floor: float, replacements: RandomVectors
) -> tuple[Array, Array | None, Array]:
    """Compute `orthonormalize` of a single host column, with few calls.

    If a projection leaves 0.7 of the length, one projection is sufficient to rounding (Daniel,
    Gragg, Kaufman and Stewart, doi:10.1090/S0025-5718-1976-0431641-8).
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
            x, coefficient, before = replacements(1)[:, 0], 0.0, 1.0
            continue
        x, coefficient = x / norm, coefficient * norm
        if basis is None or not norm <= 0.7 * before:
            break
        before = 1.0
    R = arrays.put(np.asarray([[coefficient]]))
    return x[:, None], None if H is None else H[:, None], R


def _small_block(arrays: Arrays, X: HostArray, floor: float) -> tuple[HostArray, HostArray] | None:
    """Return Q and R by LAPACK; None if a column vanished or depends on previous ones."""
    if X.shape[0] < X.shape[1]:
        return None
    Q, R = thin_qr(X)
    left, norms = np.abs(R.diagonal()), np.sqrt(np.sum(np.abs(R) ** 2, axis=0))
    there = left > np.maximum(floor, 100 * arrays.eps * norms)
    return (Q, R) if there.all() else None


def norm_of(x: Array) -> float:
    """Return the 2-norm of a host vector."""
    return math.sqrt(np.vdot(x, x).real)


def largest_norm(arrays: Arrays, so_far: Array, X: Array) -> Array:
    """Return the larger of ``so_far`` and the norms of the columns of X, on the device."""
    if arrays.on_host:
        norms = norm_of(X[:, 0]) if X.shape[1] == 1 else float(arrays.column_norms(X).max())
        return max(norms, float(so_far)) if norms == norms else norms
    return arrays.xp.max(arrays.xp.concat([so_far[None], arrays.column_norms(X)]))


def _dominant(arrays: Arrays, X: Array, width: int) -> tuple[Array, Array]:
    """Return the ``width`` principal directions of X, and the coefficients of X in them."""
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
    replacements: RandomVectors,
    *,
    replacing: bool = False,
) -> tuple[Array, Array, float | None]:
    """Make one pass within a block: ``X = Q R`` with Q nearer to orthonormal than X.

    ``bad`` columns are replaced by random ones, with zero columns in R. With ``replacing``,
    linearly dependent directions are replaced too, with zero rows in R. The returned number is the
    largest cosine between columns of X; above 0.7 another pass is needed. None if that would need a
    device synchronization.
    """
    xp = arrays.xp
    X = arrays.replace(bad, lambda: replacements(X.shape[1]), X)
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
        # A pivot is the sine of the angle between a column and the previous ones.
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
        Q = arrays.replace(dependent, lambda: replacements(X.shape[1]), Q)
        R = xp.where(dependent[:, None], xp.zeros_like(R), R)
    settled = arrays.peek(xp.all(values > 0.5) & xp.all(~bad))
    return Q, R, None if settled is None else 0.5 if settled else 1.0


class Columns:
    """Growing basis: a block of columns of one length.

    The columns are the rows of a C-ordered buffer, so that the leading columns are contiguous, and
    `view` does not copy them. For libraries with immutable arrays a new buffer is created.

    Parameters
    ----------
    arrays : Arrays
        Array library of the columns.
    length : int
        Number of entries of a column.
    capacity : int
        Initial number of columns of the buffer.
    """

    def __init__(self, arrays: Arrays, length: int, capacity: int) -> None:
        self.arrays = arrays
        self.length = length
        arrays.check_room(capacity * length, f"a basis of {capacity} columns of length {length}")
        self._rows = arrays.zeros(capacity, length)
        self.count = 0

    @property
    def capacity(self) -> int:
        """Number of columns of the buffer."""
        return int(self._rows.shape[0])

    def view(self, start: int = 0, stop: int | None = None) -> Array:
        """Return the columns ``start`` to ``stop`` (by default all) as a matrix."""
        return self._rows[start : self.count if stop is None else stop, :].T

    def rows(self, capacity: int) -> Array:
        """Return the writable buffer, with columns as rows, enlarged to ``capacity`` columns."""
        self.grow(capacity)
        return self._rows

    def append(self, X: Array) -> None:
        """Append columns."""
        self.overwrite(X, self.count)

    def overwrite(self, X: Array, start: int) -> None:
        """Write ``X`` from column ``start`` on, and drop the columns after it."""
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
        """Enlarge the buffer to ``capacity`` columns."""
        if capacity > self.capacity:
            numbers = (2 * capacity - self.capacity) * self.length
            self.arrays.check_room(
                numbers, f"a basis that grows to {capacity} columns of length {self.length}"
            )
            room = self.arrays.zeros(capacity - self.capacity, self.length)
            self._rows = self.arrays.xp.concat([self._rows, room], axis=0)

    def copy(self) -> Columns:
        """Return an independent copy."""
        twin = Columns.__new__(Columns)
        twin.arrays, twin.length, twin.count = self.arrays, self.length, self.count
        twin._rows = self.arrays.xp.asarray(self._rows, copy=True)
        return twin
