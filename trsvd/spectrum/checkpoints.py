"""Matrices of checkpoint files, one after the other, without loading a whole file."""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.memory import check_room
from trsvd._arrays.torch_files import torch_tensors
from trsvd.optim.transforms import stack_shape
from trsvd.spectrum.values import FREE_MEMORY, Spectrum, spectrum_of_stored

# Headers of .safetensors files are not longer than this; the format's own library has the limit.
_LONGEST_HEADER = 100_000_000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_INDEX = ".index.json"

# Names of dtypes in .safetensors files that are read, and how NumPy sees the stored numbers.
_SAFETENSORS = {
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),
    "C64": ("complex64", "<c8"),
}
_INTEGERS = re.compile(r"BOOL|[IU]\d+|bool|u?int\d+")


class CheckpointError(ValueError):
    """A file cannot be read as a checkpoint; the message says why, in one line.

    See Also
    --------
    spectra
    """


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix in a file.

    Parameters
    ----------
    name : str
        Name of its tensor, with ``[i]`` for the i-th matrix of a stack.
    shape : tuple of int
        Shape of the matrix.
    dtype : str
        Data type in the file.
    read : callable
        Returns the matrix, mapped from the file where its format allows it; bfloat16 as its bits in
        uint16. Raises `CheckpointError`.
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    read: Callable[[], HostArray]

    def spectrum(self) -> Spectrum:
        """Read the matrix, and return its spectrum; `CheckpointError` if that is not possible."""
        try:
            return spectrum_of_stored(self.read(), self.name, self.dtype)
        except MemoryError as error:
            raise CheckpointError(
                f"{printable(self.name)}: does not fit into memory: {error}"
            ) from error


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Matrices of a checkpoint, in the order of its files.

    Parameters
    ----------
    files : list of Path
        Its files.
    matrices : list of Matrix
        Its matrices.
    skipped : Counter of str
        Number of tensors of each kind that are not read.
    """

    files: list[Path]
    matrices: list[Matrix] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def printable(text: str) -> str:
    """Return a text for a terminal: control characters are escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def open_checkpoint(paths: Sequence[str | os.PathLike[str]]) -> Checkpoint:
    """Find the matrices of one checkpoint.

    Parameters
    ----------
    paths : sequence of path
        A file, a folder, or all shards of the checkpoint.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or not of a known format, or if there is no matrix.
    """
    files = [file for path in paths for file in _files(Path(path))]
    checkpoint = Checkpoint(files)
    seen: dict[str, Path] = {}
    for path in files:
        for name, dtype, shape, read in _tensors(path):
            if name in seen:
                raise CheckpointError(
                    f"{path}: tensor {name!r} is in {seen[name]} too; pass the files of "
                    "one checkpoint"
                )
            seen[name] = path
            _add(checkpoint, name, dtype, shape, read)
    if not checkpoint.matrices:
        raise CheckpointError(
            f"{paths[0]}: no matrix of floating-point numbers; skipped: "
            f"{skipped_text(checkpoint.skipped)}"
        )
    return checkpoint


def skipped_text(skipped: Counter[str]) -> str:
    """Return the numbers of skipped tensors in words."""
    return ", ".join(f"{count} {kind}" for kind, count in skipped.items()) or "nothing"


def group_shards(paths: Sequence[str | os.PathLike[str]]) -> list[list[Path]]:
    """Group paths into checkpoints: files named ``STEM-00001-of-00003.SUFFIX`` belong together."""
    groups: dict[tuple[Any, ...], list[Path]] = {}
    for number, path in enumerate(map(Path, paths)):
        match = _SHARD.fullmatch(path.name)
        key = (path.parent, match["stem"], match["count"], match["suffix"]) if match else (number,)
        groups.setdefault(key, []).append(path)
    for group in groups.values():
        match = _SHARD.fullmatch(group[0].name)
        if match:
            _check_complete(group, int(match["count"]))
    return list(groups.values())


def shard_stem(path: Path) -> str:
    """Return the name of a file or folder without its suffix and the number of its shard."""
    match = _SHARD.fullmatch(path.name)
    if match:
        return match["stem"]
    name = path.name.removesuffix(_INDEX)
    known = Path(name).suffix.lower() in _READERS
    return Path(name).stem if known else name


def _check_complete(shards: list[Path], count: int) -> None:
    numbers = [int(re.findall(r"-(\d{5})-of-", shard.name)[-1]) for shard in shards]
    missing = sorted(set(range(1, count + 1)) - set(numbers))
    if missing:
        raise CheckpointError(
            f"{shards[0]}: one of {count} shards, and number {missing[0]} was not given; pass all "
            "shards, or their folder"
        )


def _add(
    checkpoint: Checkpoint,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    read: Callable[[], HostArray] | None,
) -> None:
    """Add the matrices of a tensor, or count it as skipped."""
    if read is None:
        integers = _INTEGERS.fullmatch(dtype)
        kind = "of integers or booleans" if integers else f"of dtype {printable(dtype)}"
        checkpoint.skipped[kind] += 1
    elif 0 in shape:
        checkpoint.skipped["empty"] += 1
    elif len(shape) < 2:
        checkpoint.skipped["vectors or scalars"] += 1
    else:
        kernels = len(shape) == 3 and (shape[2] < 16 or "conv" in name.lower())
        count, m, n = stack_shape(shape, "flatten" if kernels else "auto")
        if min(m, n) == 1:
            checkpoint.skipped["vectors or scalars"] += 1
            return
        for i in range(count):
            title = f"{name}[{i}]" if len(shape) == 3 and not kernels else name
            checkpoint.matrices.append(
                Matrix(title, (m, n), dtype, _one_of_stack(read, (count, m, n), i))
            )


def _one_of_stack(
    read: Callable[[], HostArray], shape: tuple[int, int, int], i: int
) -> Callable[[], HostArray]:
    count, m, n = shape

    def matrix() -> HostArray:
        tensor = read()
        return tensor if tensor.shape == (m, n) and count == 1 else tensor.reshape(shape)[i]

    return matrix


# ---- files ----------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    """Return the files of a checkpoint: the file, or the shards that an index lists."""
    try:
        if path.is_dir():
            return _files_in(path)
        if path.name.endswith(_INDEX):
            return _shards(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path}: the file is empty")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    return [path]


def _files_in(folder: Path) -> list[Path]:
    """Return the files of the one checkpoint in a folder: safetensors before other formats."""
    for suffix in _READERS:
        found = sorted(folder.glob(f"*{suffix}{_INDEX}"))
        if len(found) == 1:
            return _shards(found[0])
        found = sorted(folder.glob(f"*{suffix}"))
        if not found:
            continue
        groups = group_shards(found)
        if len(groups) == 1:
            return groups[0]
        raise CheckpointError(
            f"{folder}: has {len(groups)} checkpoints ({groups[0][0].name}, {groups[1][0].name}, "
            "...); pass the files that you mean"
        )
    raise CheckpointError(f"{folder}: no checkpoint in this folder; known are {_known()}")


def _shards(index: Path) -> list[Path]:
    """Return the files that an index lists, which are beside it."""
    try:
        table = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles)
        names = list(dict.fromkeys(table["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({_line(error)})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: lists {name!r}; shards must be beside their index")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: lists {name!r}, which is missing")
    if not names:
        raise CheckpointError(f"{index}: lists no shards")
    return [index.parent / name for name in names]


_Tensor = tuple[str, str, tuple[int, ...], Callable[[], HostArray] | None]


def _tensors(path: Path) -> Iterator[_Tensor]:
    """Yield name, dtype, shape and a way to read it of each tensor in a file."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise CheckpointError(
            f"{path}: files ending in {path.suffix or 'nothing'!r} are not known; known are "
            f"{_known()}"
        )
    try:
        yield from reader(path)
    except Exception as error:
        raise _refusal(path, error) from error


def _known() -> str:
    return ", ".join(_READERS)


def _refusal(path: Path, error: Exception) -> CheckpointError:
    """Return the error of a damaged file, which raises anything."""
    if isinstance(error, CheckpointError):
        return error
    if isinstance(error, MemoryError):
        return CheckpointError(f"{path}: does not fit into memory: {error}")
    if isinstance(error, OSError) and error.strerror:
        return CheckpointError(f"{path}: cannot be read: {error.strerror}")
    return CheckpointError(f"{path}: cannot be read, the file may be damaged: {_line(error)}")


def _line(error: Exception) -> str:
    """Return the beginning of an error's text, in one line."""
    text = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


# ---- .safetensors -----------------------------------------------------------------------------


def _safetensors(path: Path) -> Iterator[_Tensor]:
    """Read a file that begins with the length of a header in JSON, and the header."""
    data, header = _safetensors_header(path)
    header.pop("__metadata__", None)
    for name in sorted(header, key=_natural):
        entry = header[name]
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
            raise ValueError(f"tensor {name!r} has lengths or offsets that are not whole numbers")
        if not begin <= end <= len(data):
            raise CheckpointError(
                f"{path}: tensor {name!r} ends at byte {end} of the data, which has "
                f"{len(data)} bytes; the file is truncated or damaged"
            )
        if dtype not in _SAFETENSORS:
            yield name, str(dtype), shape, None
            continue
        title, stored = _SAFETENSORS[dtype]
        if math.prod(shape) * np.dtype(stored).itemsize != end - begin:
            raise ValueError(
                f"tensor {name!r} of shape {shape} and dtype {dtype} is said to have "
                f"{end - begin} bytes"
            )
        yield name, title, shape, data[begin:end].view(stored).reshape(shape).view


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``layer.10`` behind ``layer.9``."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def _safetensors_header(path: Path) -> tuple[HostArray, dict[str, Any]]:
    """Return the bytes behind the header, mapped, and the header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LONGEST_HEADER, size - 8):
            raise CheckpointError(
                f"{path}: its header should have {length} bytes, and the file has {size}; it is "
                "truncated, or not a .safetensors file"
            )
        header = json.loads(file.read(length), object_pairs_hook=_without_doubles)
    if not isinstance(header, dict):
        raise TypeError("the header is not a JSON object")
    begin = 8 + length
    data = np.zeros(0, np.uint8) if begin == size else np.memmap(path, np.uint8, "r", begin)
    return data, header


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name occurs twice in the header")
    return table


# ---- .npy and .npz ----------------------------------------------------------------------------


def _npy(path: Path) -> Iterator[_Tensor]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    yield from _of_array(path.stem, str(array.dtype), array)


def _of_array(name: str, dtype: str, array: HostArray) -> Iterator[_Tensor]:
    yield name, dtype, array.shape, array.view if _is_read(array.dtype) else None


def _is_read(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "fc" and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def _npz(path: Path) -> Iterator[_Tensor]:
    """Map members that are not compressed; read others when they are needed."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as file:
                shape, in_columns, dtype = _npy_header(file)
                begin = file.tell()
            name = member.filename.removesuffix(".npy")
            if not _is_read(dtype):
                yield name, str(dtype), shape, None
                continue
            if begin + math.prod(shape) * dtype.itemsize != member.file_size:
                raise ValueError(
                    f"{name!r} of shape {shape} and dtype {dtype} is said to have "
                    f"{member.file_size - begin} bytes"
                )
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                begin += _begin_of(path, member)
                order: Literal["C", "F"] = "F" if in_columns else "C"
                mapped = np.memmap(path, dtype, "r", begin, shape, order) if 0 not in shape else 0
                yield name, str(dtype), shape, np.asarray(mapped).view
            else:
                yield name, str(dtype), shape, _decompressed(path, member, name)


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):  # later versions are for headers of structured arrays
        raise ValueError(f"an array in version {version} of the .npy format")
    return np.lib.format.read_array_header_1_0(file)


def _begin_of(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin, by its local header."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return member.header_offset + 30 + lengths


def _decompressed(path: Path, member: zipfile.ZipInfo, name: str) -> Callable[[], HostArray]:
    def read() -> HostArray:
        try:
            check_room(member.file_size, repr(name), FREE_MEMORY)
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                array: HostArray = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:
            raise _refusal(path, error) from error
        return array

    return read


# ---- PyTorch ----------------------------------------------------------------------------------


def _torch(path: Path) -> Iterator[_Tensor]:
    try:
        found = list(torch_tensors(path))
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path}: needs PyTorch to be read; install torch, or save the checkpoint as "
            ".safetensors"
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: cannot be read as tensors; save model.state_dict() with torch.save, if the "
            f"file is not damaged ({_line(error)})"
        ) from error
    for name, dtype, array in found:
        known = array is not None and (dtype == "bfloat16" or _is_read(array.dtype))
        shape = array.shape if array is not None else ()
        yield name, dtype, shape, array.view if array is not None and known else None


_READERS: dict[str, Callable[[Path], Iterator[_Tensor]]] = {
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".bin": _torch,
    ".npz": _npz,
    ".npy": _npy,
}
