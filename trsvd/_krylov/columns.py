"""A basis: columns of one length in a buffer that grows."""

from __future__ import annotations

from trsvd._arrays.arrays import Array, Arrays

__all__ = ["Columns"]


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
