"""Matrix Market files, read without trust in what they say.

SciPy's reader is faster, and ends the process on bodies that it cannot parse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TextIO

import numpy as np
import scipy.sparse

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.memory import check_room

__all__ = ["read_matrix_market"]

_FIELDS: dict[str, tuple[type, int]] = {
    "real": (np.float64, 1),
    "double": (np.float64, 1),
    "integer": (np.int64, 1),
    "unsigned-integer": (np.uint64, 1),
    "complex": (np.float64, 2),
    "pattern": (np.float64, 0),
}
_SYMMETRIES = ("general", "symmetric", "skew-symmetric", "hermitian")


def read_matrix_market(path: Path) -> Any:
    """The matrix in a Matrix Market file.

    Parameters
    ----------
    path : Path
        In coordinates, or dense by columns; real, integer, complex or a pattern; general,
        symmetric, skew-symmetric or Hermitian.

    Returns
    -------
    numpy.ndarray or scipy.sparse.coo_array
        Of shape (m, n); in float64, int64, uint64 or complex128.

    Raises
    ------
    ValueError
        If the file is not what its header says.
    MemoryError
        If what the header declares does not fit.

    References
    ----------
    R. Boisvert, R. Pozo and K. Remington, The Matrix Market exchange formats: initial design,
    doi:10.6028/NIST.IR.5935.
    """
    with path.open(encoding="ascii") as file:
        form, field, symmetry = _banner(file)
        sizes = _sizes(file, 3 if form == "coordinate" else 2)
        m, n = sizes[:2]
        if symmetry != "general" and m != n:
            _refuse(f"a {symmetry} matrix is square, and this is {m} x {n}")
        if form == "array":
            count = _dense_count(m, n, symmetry)
            _check_size(count, 2, path)
            check_room(16 * m * n, f"a dense {m} x {n} matrix")
            return _dense(_body(file, field, 0, count), m, n, symmetry)
        _check_size(sizes[2], 4, path)
        return _sparse(_body(file, field, 2, sizes[2]), m, n, symmetry)


def _refuse(message: str) -> None:
    raise ValueError(message)


def _banner(file: TextIO) -> tuple[str, str, str]:
    """Format, field and symmetry of the first line."""
    words = file.readline(1000).lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        _refuse("the first line is not '%%MatrixMarket matrix FORMAT FIELD SYMMETRY'")
    form, field, symmetry = words[2:]
    for word, known in (
        (form, ("coordinate", "array")),
        (field, tuple(_FIELDS)),
        (symmetry, _SYMMETRIES),
    ):
        if word not in known:
            _refuse(f"{word!r} is not one of {', '.join(known)}")
    if form == "array" and field == "pattern":
        _refuse("a pattern has coordinates")
    return form, field, symmetry


def _sizes(file: TextIO, count: int) -> list[int]:
    """The line of sizes, behind comments."""
    for line in file:
        if not line.strip() or line.startswith("%"):
            continue
        words = line.split()
        if len(words) != count or not all(word.isdigit() and len(word) < 19 for word in words):
            break
        return [int(word) for word in words]
    msg = f"there is no line with {count} sizes"
    raise ValueError(msg)


def _check_size(entries: int, least: int, path: Path) -> None:
    """Whether the file is long enough: an entry takes ``least`` bytes, its end of line included."""
    size = path.stat().st_size
    if least * entries > size + 1:
        _refuse(f"{entries} entries are declared, too many for {size} bytes")


def _dense_count(m: int, n: int, symmetry: str) -> int:
    if symmetry == "general":
        return m * n
    return n * (n - 1) // 2 if symmetry == "skew-symmetric" else n * (n + 1) // 2


def _body(file: TextIO, field: str, indices: int, count: int) -> tuple[HostArray, HostArray]:
    """The indices (from 0) and the values."""
    kind, parts = _FIELDS[field]
    columns: list[tuple[str, type]] = [(f"i{j}", np.int64) for j in range(indices)]
    columns += [(f"x{j}", kind) for j in range(parts)]
    rows = np.zeros(0, columns)
    if count:
        rows = np.loadtxt(file, dtype=columns, comments="%", ndmin=1)
    if len(rows) != count:
        _refuse(f"{count} entries are declared, and {len(rows)} are there")
    places = np.array([rows[f"i{j}"] - 1 for j in range(indices)])
    if parts == 0:
        return places, np.ones(count)
    return places, rows["x0"] + 1j * rows["x1"] if parts == 2 else rows["x0"]


def _mirrored(values: HostArray, symmetry: str) -> HostArray:
    """What stands at (j, i) where these stand at (i, j)."""
    if symmetry == "skew-symmetric":
        return -values
    return np.conj(values) if symmetry == "hermitian" else values


def _dense(body: tuple[HostArray, HostArray], m: int, n: int, symmetry: str) -> HostArray:
    values = body[1]
    if symmetry == "general":
        return values.reshape((m, n), order="F")
    A = np.zeros((n, n), dtype=values.dtype)
    # Its lower half, by columns.
    column, row = np.triu_indices(n, 1 if symmetry == "skew-symmetric" else 0)
    A[column, row] = _mirrored(values, symmetry)
    A[row, column] = values
    return A


def _sparse(body: tuple[HostArray, HostArray], m: int, n: int, symmetry: str) -> Any:
    (rows, columns), values = body
    if len(values) and not (rows.min() >= 0 and rows.max() < m):
        _refuse(f"row {_outside(rows, m)} is not one of 1 to {m}")
    if len(values) and not (columns.min() >= 0 and columns.max() < n):
        _refuse(f"column {_outside(columns, n)} is not one of 1 to {n}")
    if symmetry != "general":
        off = rows != columns
        rows, columns = np.append(rows, columns[off]), np.append(columns, rows[off])
        values = np.append(values, _mirrored(values[off], symmetry))
    return scipy.sparse.coo_array((values, (rows, columns)), shape=(m, n))


def _outside(places: HostArray, length: int) -> int:
    return int(places[(places < 0) | (places >= length)][0]) + 1
