"""Matrices from files."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import scipy.sparse

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import is_sparse
from trsvd._arrays.memory import check_room
from trsvd._arrays.torch_files import torch_tensors
from trsvd.cli.arguments import UsageError

_LONGEST_HEADER = 1 << 16


class MatrixFileError(UsageError):
    """Raised for a file that cannot be read as a matrix; the message is one line."""


def read_matrix(source: str | Path, tensor: str | None = None) -> Any:
    """Return the matrix in a file.

    Parameters
    ----------
    source : str or Path
        ``.npy`` (mapped into memory), ``.npz`` (a sparse matrix of ``scipy.sparse.save_npz``, or
        arrays of ``numpy.savez``), ``.mtx`` (Matrix Market), ``.csv`` (numbers, with or without a
        line of names), ``.safetensors``, or ``.pt`` and ``.pth`` (PyTorch, by ``weights_only``).
        ``FILE:NAME`` names an array in a file with several. Nothing is unpickled.
    tensor : str, optional
        Name of the array. The default is the only matrix of the file.

    Returns
    -------
    numpy.ndarray or scipy.sparse.csr_array
        Two-dimensional and numeric.

    Raises
    ------
    MatrixFileError
        If the file does not exist, cannot be read, or does not contain such a matrix.
    """
    path, tensor = _split(source, tensor)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise MatrixFileError(
            f"{path}: files ending in {suffix or 'nothing'!r} are not known; use one of "
            f"{', '.join(_READERS)}"
        )
    if tensor is not None and suffix not in _WITH_NAMES:
        raise MatrixFileError(
            f"{path}: an array ({tensor!r}) can be named in {', '.join(_WITH_NAMES)} files only"
        )
    if not path.is_file():
        raise MatrixFileError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        reader = _READERS[suffix]
        A = reader(path, tensor) if suffix in _WITH_NAMES else reader(path)
    except MatrixFileError:
        raise
    except MemoryError as error:
        raise MatrixFileError(f"{path}: does not fit into memory ({_line(error)})") from error
    except Exception as error:  # a damaged file raises anything
        raise MatrixFileError(f"{path}: cannot be read: {_line(error)}") from error
    return _checked(path, A)


def _split(source: str | Path, tensor: str | None) -> tuple[Path, str | None]:
    """Split ``FILE:NAME`` into the file and the name of an array."""
    text = str(source)
    if Path(text).is_file():
        return Path(text), tensor
    for suffix in _WITH_NAMES:
        file, mark, name = text.partition(f"{suffix}:")
        if mark:
            if tensor not in {None, name}:
                raise MatrixFileError(f"{text}: two arrays are named, {name!r} and {tensor!r}")
            return Path(file + suffix), name
    return Path(text), tensor


def _checked(path: Path, A: Any) -> Any:
    if len(A.shape) != 2 or 0 in A.shape:
        raise MatrixFileError(
            f"{path}: contains an array of shape {tuple(A.shape)}; a matrix has two dimensions, "
            "both at least 1"
        )
    if A.dtype.kind not in "biufc" or A.dtype.itemsize > (16 if A.dtype.kind == "c" else 8):
        raise MatrixFileError(
            f"{path}: has dtype {A.dtype}, which trsvd does not support; save it as float64"
        )
    if not A.dtype.isnative:
        A = A.astype(A.dtype.newbyteorder("="))
    return A


def _line(error: Exception) -> str:
    """Return the message of an exception as one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


# ---- one reader a format --------------------------------------------------------------------


def _npy(path: Path) -> HostArray:
    if path.stat().st_size == 0:
        raise MatrixFileError(f"{path}: the file is empty")
    with path.open("rb") as file:
        _, dtype = _npy_header(file)
    if dtype.hasobject:
        raise MatrixFileError(
            f"{path}: holds Python objects, which are never unpickled; save a numeric array, "
            "as with numpy.save(path, A.astype('float64'))"
        )
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _npz(path: Path, tensor: str | None) -> Any:
    if zipfile.is_zipfile(path):
        _check_members(path)
    with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
        if tensor is None and "format" in members and members["format"].ndim == 0:
            file.seek(0)
            return _rows(scipy.sparse.load_npz(file))
        shapes = {name: members[name].shape for name in sorted(members.files)}
        return members[_chosen(path, shapes, tensor)]


def _csv(path: Path) -> HostArray:
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    mark = max(",;\t", key=first.count)
    words = first.strip().split(mark if first.count(mark) else None)
    names = bool(words) and all(_number(word) is None for word in words)
    if names and not words[0].strip(' "'):
        raise MatrixFileError(
            f"{path}: the first column has no name, so it seems to be an index; save the table "
            "without it, as with frame.to_csv(path, index=False)"
        )
    return np.loadtxt(
        path, delimiter=mark if first.count(mark) else None, skiprows=int(names), ndmin=2
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _torch(path: Path, tensor: str | None) -> HostArray:
    arrays = {}
    for name, dtype, array in torch_tensors(path):
        if array is not None:
            arrays[name] = (dtype, array)
    shapes = {name: tuple(array.shape) for name, (_, array) in arrays.items()}
    dtype, array = arrays[_chosen(path, shapes, tensor)]
    return _from_bits(array) if dtype == "bfloat16" else array


def _from_bits(halves: HostArray) -> HostArray:
    """Convert bfloat16 numbers, given as bits, to float32."""
    return (np.ascontiguousarray(halves).astype(np.uint32) << 16).view(np.float32)


def _check_members(path: Path) -> None:
    """Check the size of every array of an archive against its header and the free memory.

    NumPy allocates what a header declares before it reads what there is.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as file:
                shape, dtype = _npy_header(file)
                begins = file.tell()
            if dtype.hasobject:
                raise MatrixFileError(
                    f"{path}: {member.filename} holds Python objects, which are never unpickled"
                )
            if begins + _bytes(shape, dtype) > member.file_size:
                raise MatrixFileError(
                    f"{path}: {member.filename} declares {dtype} of shape {shape}, which is more "
                    f"than its {member.file_size} bytes; the file is damaged"
                )
            total += member.file_size
    check_room(total, str(path))


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that the header of a .npy file declares."""
    version = np.lib.format.read_magic(file)
    begin = file.tell()
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    if length > _LONGEST_HEADER:  # NumPy makes room for it before it looks
        raise ValueError(f"its header is said to have {length} bytes")
    file.seek(begin)
    # (The third version differs from the second in the encoding of names only.)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Size of an array, in integers that do not overflow."""
    return math.prod(int(length) for length in shape) * int(dtype.itemsize)


def _mtx(path: Path) -> Any:
    A = read_matrix_market(path)
    return _rows(A) if is_sparse(A) else A


def _rows(A: Any) -> Any:
    """A sparse matrix by rows, or as it is where it does not have two dimensions.

    Its indices are looked at: products with one that points beyond an edge read what is there.
    """
    pointers = getattr(A, "indptr", None)
    if pointers is not None:
        # SciPy takes a negative last one for a matrix without entries, and looks no further.
        if pointers[0] != 0 or np.any(np.diff(pointers) < 0):
            raise ValueError("its pointers to rows or columns are not ascending from 0")
        A.check_format(full_check=True)
    if len(A.shape) != 2:
        return A
    check_room(8 * (int(A.shape[0]) + 1), f"a sparse matrix with {A.shape[0]} rows")
    return scipy.sparse.csr_array(A)


def _safetensors(path: Path, tensor: str | None) -> HostArray:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in sorted(file.keys())}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        tensor = _chosen(path, shapes, tensor)
        dtype = slices[tensor].get_dtype()
        if dtype == "BF16":
            return _bfloat16(path, tensor, shapes[tensor])
        if dtype not in {"BOOL", "F16", "F32", "F64", "C64"} and dtype[0] not in "IU":
            raise MatrixFileError(
                f"{path}: tensor {tensor!r} is {dtype}, which trsvd does not support"
            )
        return np.asarray(file.get_tensor(tensor))


def _chosen(path: Path, shapes: dict[str, tuple[int, ...]], tensor: str | None) -> str:
    """Return the name of the array, or of the only matrix of the file."""
    if tensor is not None:
        if tensor not in shapes:
            raise MatrixFileError(f"{path}: has no array {tensor!r}; it has {_listed(shapes)}")
        return tensor
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) == 1:
        return matrices[0]
    raise MatrixFileError(
        f"{path}: name one of its arrays, as in {path.name}:NAME (or with --tensor); "
        f"it has {_listed(shapes)}"
    )


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    names = [f"{name} ({' x '.join(map(str, shape))})" for name, shape in shapes.items()]
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return ", ".join(names[:40]) + more if names else "no arrays"


def _bfloat16(path: Path, tensor: str, shape: tuple[int, ...]) -> HostArray:
    """A bfloat16 tensor as float32, which NumPy has: the upper half of each number."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start = json.loads(file.read(length))[tensor]["data_offsets"][0]
    halves = np.memmap(path, dtype="<u2", mode="r", offset=8 + length + start, shape=shape)
    return _from_bits(halves)


_READERS: dict[str, Callable[..., Any]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".mtx": _mtx,
    ".csv": _csv,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
}
# Files with several arrays, which have names.
_WITH_NAMES = (".npz", ".safetensors", ".pt", ".pth")

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
    raise ValueError(f"there is no line with {count} sizes")


def _check_size(entries: int, least: int, path: Path) -> None:
    """Check the length of the file: an entry takes ``least`` bytes, its end of line included."""
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
    """Return the entries at (j, i) for those at (i, j)."""
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
