"""State of a PyTorch optimizer as tensors and plain data, to be saved and loaded without loss."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch

from trsvd._polar_methods import NewtonSchulz, PolarExpress
from trsvd.methods import METHODS
from trsvd.optim.schedules import Constant, Cosine, Piecewise
from trsvd.result import Subspace, Track

__all__ = ["copied", "decoded", "encoded", "packed", "unpacked"]

_KEY = "trsvd"
_KNOWN: dict[str, Any] = {
    each.__name__: each for each in (NewtonSchulz, PolarExpress, Constant, Piecewise, Cosine)
} | {each.__name__: each for each in METHODS.values()}


# ---- hyper-parameters -----------------------------------------------------------------------


def encoded(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group with methods and schedules as plain data.

    Functions, which nothing can be known of, are left out: a group that is loaded keeps its own.
    """
    out = {}
    for name, value in group.items():
        if type(value).__name__ in _KNOWN and isinstance(value, _KNOWN[type(value).__name__]):
            options = {field.name: getattr(value, field.name) for field in fields(value)}
            out[name] = {_KEY: type(value).__name__, **options}
        elif not callable(value) or isinstance(value, torch.Tensor):
            out[name] = value
    return out


def decoded(group: dict[str, Any]) -> dict[str, Any]:
    """What `encoded` was given."""
    out = {}
    for name, value in group.items():
        if isinstance(value, dict) and _KEY in value:
            options = {key: each for key, each in value.items() if key != _KEY}
            if value[_KEY] not in _KNOWN:
                msg = f"{name} of the state is {value[_KEY]!r}, which this version does not know"
                raise ValueError(msg)
            value = _KNOWN[value[_KEY]](**options)
        out[name] = value
    return out


# ---- subspaces ------------------------------------------------------------------------------


def packed(subspace: Subspace | None) -> dict[str, Any] | None:
    """A subspace as tensors and numbers."""
    if subspace is None:
        return None
    out = {"U": subspace.U, "Vh": subspace.Vh}
    if subspace.track is not None:
        track = subspace.track
        out |= {
            "k": int(track.k),
            "left_is_newer": bool(track.left_is_newer),
            "gain": float(track.gain),
            "age": int(track.age),
            "values": [float(value) for value in track.values],
            "outside": float(track.outside),
            "flat": int(track.flat),
        }
    return out


def unpacked(entry: dict[str, Any] | None) -> Subspace | None:
    """What `packed` was given."""
    if entry is None:
        return None
    track = None
    if "k" in entry:
        options = {field.name: entry[field.name] for field in fields(Track) if field.name in entry}
        track = Track(**{**options, "values": np.array(entry["values"], dtype=np.float64)})
    return Subspace(entry["U"], entry["Vh"], track)


def copied(value: Any, device: torch.device) -> Any:
    """A copy of a state on a device, its tensors in the dtypes that they have.

    `torch.optim.Optimizer.load_state_dict` by itself brings them to the dtype of the parameter.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to(device=device, copy=True)
    if isinstance(value, dict):
        return {key: copied(each, device) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(each, device) for each in value)
    return value
