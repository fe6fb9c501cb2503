"""Matrices from files."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import is_sparse
from trsvd._arrays.memory import check_room
from trsvd.cli.matrix_market import read_matrix_market

__all__ = ["MatrixFileError", "read_matrix"]


_LONGEST_HEADER = 1 << 16


class MatrixFileError(ValueError):
    """A file cannot be read as a matrix; the message says why, in one line."""


def read_matrix(source: str | Path, tensor: str | None = None) -> Any:
    """The matrix in a file.

    Parameters
    ----------
    source : str or Path
        ``.npy`` (mapped into memory, not read; no pickled objects), ``.npz`` (as
        ``scipy.sparse.save_npz`` writes it), ``.mtx`` (Matrix Market) or ``.safetensors``, where
        ``FILE:NAME`` names a tensor in it.
    tensor : str, optional
        Name of the tensor; the file's only matrix if not given.

    Returns
    -------
    numpy.ndarray or scipy.sparse.csr_array
        Two-dimensional and numeric.

    Raises
    ------
    MatrixFileError
        If there is no such file, or no such matrix in it.
    """
    path, tensor = _split(source, tensor)
    readers = {".npy": _npy, ".npz": _npz, ".mtx": _mtx}
    suffix = path.suffix.lower()
    if suffix not in {*readers, ".safetensors"}:
        known = ", ".join([*readers, ".safetensors"])
        msg = f"{path}: files ending in {suffix or 'nothing'!r} are not known; use one of {known}"
        raise MatrixFileError(msg)
    if tensor is not None and suffix in readers:
        msg = f"{path}: a tensor ({tensor!r}) can be named in .safetensors files only"
        raise MatrixFileError(msg)
    if not path.is_file():
        msg = f"{path}: {'not a file' if path.exists() else 'no such file'}"
        raise MatrixFileError(msg)
    try:
        A = readers[suffix](path) if suffix in readers else _safetensors(path, tensor)
    except MatrixFileError:
        raise
    except MemoryError as error:
        msg = f"{path}: does not fit into memory ({_line(error)})"
        raise MatrixFileError(msg) from error
    except Exception as error:  # a damaged file raises anything
        msg = f"{path}: cannot be read: {_line(error)}"
        raise MatrixFileError(msg) from error
    return _checked(path, A)


def _split(source: str | Path, tensor: str | None) -> tuple[Path, str | None]:
    """``FILE.safetensors:NAME`` as the file and the name."""
    text = str(source)
    file, mark, name = text.partition(".safetensors:")
    if not mark or Path(text).is_file():
        return Path(text), tensor
    if tensor not in {None, name}:
        msg = f"{text}: two tensors are named, {name!r} and {tensor!r}"
        raise MatrixFileError(msg)
    return Path(file + ".safetensors"), name


def _checked(path: Path, A: Any) -> Any:
    if len(A.shape) != 2 or 0 in A.shape:
        msg = (
            f"{path}: holds an array of shape {tuple(A.shape)}; a matrix has two dimensions, "
            "neither of them 0"
        )
        raise MatrixFileError(msg)
    if A.dtype.kind not in "biufc" or A.dtype.itemsize > (16 if A.dtype.kind == "c" else 8):
        msg = f"{path}: holds {A.dtype}, which cannot be computed with; save it as float64"
        raise MatrixFileError(msg)
    if not A.dtype.isnative:
        A = A.astype(A.dtype.newbyteorder("="))
    return A


def _line(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


# ---- one reader a format --------------------------------------------------------------------


def _npy(path: Path) -> HostArray:
    if path.stat().st_size == 0:
        msg = f"{path}: the file is empty"
        raise MatrixFileError(msg)
    with path.open("rb") as file:
        _, dtype = _npy_header(file)
    if dtype.hasobject:
        msg = (
            f"{path}: holds Python objects, which are never unpickled; save a numeric array, "
            "as with numpy.save(path, A.astype('float64'))"
        )
        raise MatrixFileError(msg)
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _npz(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        _check_members(path)
    try:
        with path.open("rb") as file:  # load_npz leaves it open where it fails
            A = scipy.sparse.load_npz(file)
    except (KeyError, ValueError) as error:
        if not zipfile.is_zipfile(path):
            raise
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        msg = (
            f"{path}: not a sparse matrix as scipy.sparse.save_npz writes it (it holds "
            f"{', '.join(names) or 'nothing'}: {_line(error)}); save dense arrays as .npy"
        )
        raise MatrixFileError(msg) from error
    return _rows(A)


def _check_members(path: Path) -> None:
    """Whether every array of an archive has the bytes that its header declares, and room for them.

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
                msg = f"{path}: {member.filename} holds Python objects, which are never unpickled"
                raise MatrixFileError(msg)
            if begins + _bytes(shape, dtype) > member.file_size:
                msg = (
                    f"{path}: {member.filename} declares {dtype} of shape {shape}, which is more "
                    f"than its {member.file_size} bytes; the file is damaged"
                )
                raise MatrixFileError(msg)
            total += member.file_size
    check_room(total, str(path))


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that the header of a .npy file declares."""
    version = np.lib.format.read_magic(file)
    begin = file.tell()
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    if length > _LONGEST_HEADER:  # NumPy makes room for it before it looks
        msg = f"its header is said to have {length} bytes"
        raise ValueError(msg)
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
            msg = "its pointers to rows or columns are not ascending from 0"
            raise ValueError(msg)
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
        if tensor is None:
            tensor = _only_matrix(path, shapes)
        if tensor not in shapes:
            msg = f"{path}: has no tensor {tensor!r}; it has {_listed(shapes)}"
            raise MatrixFileError(msg)
        dtype = slices[tensor].get_dtype()
        if dtype == "BF16":
            return _bfloat16(path, tensor, shapes[tensor])
        if dtype not in {"BOOL", "F16", "F32", "F64", "C64"} and dtype[0] not in "IU":
            msg = f"{path}: tensor {tensor!r} is {dtype}, which cannot be computed with"
            raise MatrixFileError(msg)
        return np.asarray(file.get_tensor(tensor))


def _only_matrix(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) == 1:
        return matrices[0]
    msg = (
        f"{path}: name one of its tensors, as in FILE.safetensors:NAME (or with --tensor); "
        f"it has {_listed(shapes)}"
    )
    raise MatrixFileError(msg)


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    names = [f"{name} ({' x '.join(map(str, shape))})" for name, shape in shapes.items()]
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return ", ".join(names[:40]) + more if names else "no tensors"


def _bfloat16(path: Path, tensor: str, shape: tuple[int, ...]) -> HostArray:
    """A bfloat16 tensor as float32, which NumPy has: the upper half of each number."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start = json.loads(file.read(length))[tensor]["data_offsets"][0]
    halves = np.memmap(path, dtype="<u2", mode="r", offset=8 + length + start, shape=shape)
    return (halves.astype(np.uint32) << 16).view(np.float32)
