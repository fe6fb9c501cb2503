"""Matrices from files."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

from trsvd._arrays import HostArray
from trsvd._kinds import is_sparse

__all__ = ["MatrixFileError", "read_matrix"]


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
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        dtype = read(file)[2] if read else None
    if dtype is not None and dtype.hasobject:
        msg = (
            f"{path}: holds Python objects, which are never unpickled; save a numeric array, "
            "as with numpy.save(path, A.astype('float64'))"
        )
        raise MatrixFileError(msg)
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _npz(path: Path) -> Any:
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


def _mtx(path: Path) -> Any:
    A = scipy.io.mmread(path)
    return _rows(A) if is_sparse(A) else A


def _rows(A: Any) -> Any:
    """A sparse matrix by rows, or as it is where it does not have two dimensions."""
    return scipy.sparse.csr_array(A) if len(A.shape) == 2 else A


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
