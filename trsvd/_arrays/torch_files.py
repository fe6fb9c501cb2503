"""Tensors of a PyTorch file, as arrays on the host."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trsvd._arrays.arrays import HostArray

# NumPy has no bfloat16; the bits are returned.
_BITS = {"bfloat16": "uint16"}


def torch_tensors(path: Path) -> Iterator[tuple[str, str, HostArray | None]]:
    """Yield name, dtype and array of each tensor in a file of ``torch.save``.

    Nothing but tensors and plain containers is unpickled. Tensors are mapped into memory where the
    format allows it. Names of nested dictionaries and lists are joined with dots.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    tuple of str, str and numpy.ndarray or None
        bfloat16 comes as its bits in uint16. None for a tensor that NumPy cannot show: sparse,
        quantized, without data, or of a dtype that NumPy does not have.
    """
    import torch

    loaded = torch.load(
        path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None
    )
    for name, tensor in _flat(loaded, "", torch.Tensor):
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield name or path.stem, dtype, _as_array(torch, tensor, dtype)


def _flat(value: Any, name: str, kind: type) -> Iterator[tuple[str, Any]]:
    if isinstance(value, kind):
        yield name, value
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, item in items:
        yield from _flat(item, f"{name}.{key}" if name else str(key), kind)


def _as_array(torch: Any, tensor: Any, dtype: str) -> HostArray | None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        return None
    tensor = tensor.detach()
    if dtype in _BITS:
        tensor = tensor.view(getattr(torch, _BITS[dtype]))
    try:
        array: HostArray = tensor.resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError):
        return None
    return array
