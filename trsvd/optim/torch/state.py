"""State of a PyTorch optimizer as tensors and plain data, to be saved and loaded without loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trsvd._solve.result import Subspace, Track
from trsvd.methods import METHODS
from trsvd.optim.schedules import Constant, Cosine, Piecewise
from trsvd.polar.methods import NewtonSchulz, PolarExpress

__all__ = ["beside", "copied", "decoded", "encoded", "packed", "unpacked"]

_KEY = "trsvd"
_FUNCTION = "function"
_KNOWN: dict[str, Any] = {
    each.__name__: each for each in (NewtonSchulz, PolarExpress, Constant, Piecewise, Cosine)
} | {each.__name__: each for each in METHODS.values()}


# ---- hyper-parameters -----------------------------------------------------------------------


def encoded(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group with methods and schedules as plain data.

    A function, which nothing can be known of, is a mark: a group that is loaded keeps its own.
    """
    out = {}
    for name, value in group.items():
        if type(value).__name__ in _KNOWN and isinstance(value, _KNOWN[type(value).__name__]):
            options = {field.name: getattr(value, field.name) for field in fields(value)}
            out[name] = {_KEY: type(value).__name__, **options}
        elif callable(value) and not isinstance(value, Tensor):
            out[name] = {_KEY: _FUNCTION}
        else:
            out[name] = value
    return out


def decoded(group: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What `encoded` was given; functions, and what the group does not have, from one's own."""
    out = {}
    for name, value in group.items():
        if not (isinstance(value, dict) and _KEY in value):
            out[name] = value
        elif value[_KEY] in _KNOWN:
            options = {key: each for key, each in value.items() if key != _KEY}
            out[name] = _KNOWN[value[_KEY]](**options)
        elif value[_KEY] != _FUNCTION:
            msg = f"{name} of the state is {value[_KEY]!r}, which this version does not know"
            raise ValueError(msg)
    return {**own, **out}


# ---- subspaces ------------------------------------------------------------------------------

# Kept on the host, where the oracle reads them; a state_dict has them beside the parameter.
_ON_HOST = ("tracks", "ranks", "tau")
# Before the singular values, in a row of "tracks".
_NUMBERS = ("k", "left_is_newer", "gain", "age", "outside", "flat")


def packed(
    subspaces: Sequence[Subspace | None], shape: tuple[int, int], width: int, like: Tensor
) -> dict[str, Tensor]:
    """Subspaces of a stack of matrices as three tensors, whose shapes do not depend on the values.

    Parameters
    ----------
    subspaces : sequence of Subspace or None
        One of each matrix.
    shape : tuple of int
        ``(m, n)``.
    width : int
        Columns to keep: those beyond are left out, missing ones are zeros.
    like : tensor
        On whose device, in whose dtype (float32 for half precision) zeros are made.

    Returns
    -------
    dict
        ``"left_vectors"`` of shape (b, m, width), ``"right_vectors"`` of shape (b, width, n), and
        ``"tracks"`` of shape (b, 7 + width), in float64 on the host: the number of columns (0 where
        there is no subspace), what a warm step knows (k = 0 if that is nothing), singular values
        (-1 where there is none).
    """
    m, n = shape
    dtype = torch.promote_types(like.dtype, torch.float32)
    left, right = like.new_zeros((m, width), dtype=dtype), like.new_zeros((width, n), dtype=dtype)
    lefts, rights, rows = [], [], []
    for subspace in subspaces:
        row = [0.0] * (1 + len(_NUMBERS)) + [-1.0] * width
        U, Vh = left, right
        if subspace is not None:
            U, Vh = subspace.U[:, :width], subspace.Vh[:width, :]
            row[0] = U.shape[1]
            if subspace.track is not None:
                known = [float(value) for value in subspace.track.values[:width]]
                numbers = [float(getattr(subspace.track, name)) for name in _NUMBERS]
                row[1 : 1 + len(numbers) + len(known)] = numbers + known
            if U.shape[1] < width:
                U = torch.cat([U, left[:, U.shape[1] :]], dim=1)
                Vh = torch.cat([Vh, right[Vh.shape[0] :, :]])
        lefts.append(U)
        rights.append(Vh)
        rows.append(row)
    return {
        "left_vectors": torch.stack(lefts),
        "right_vectors": torch.stack(rights),
        "tracks": torch.tensor(rows, dtype=torch.float64),
    }


def unpacked(state: dict[str, Any], count: int) -> list[Subspace | None]:
    """The subspaces of a parameter's matrices, from its state."""
    if "tracks" not in state:
        return [None] * count
    out: list[Subspace | None] = []
    for place, (columns, *rest) in enumerate(state["tracks"].tolist()):
        width, track = int(columns), None
        k, left_is_newer, gain, age, outside, flat = rest[: len(_NUMBERS)]
        if k:
            values = np.array(rest[len(_NUMBERS) :])
            track = Track(
                k=int(k),
                left_is_newer=bool(left_is_newer),
                gain=gain,
                age=int(age),
                values=values[values >= 0],
                outside=outside,
                flat=int(flat),
            )
        U, Vh = state["left_vectors"][place], state["right_vectors"][place]
        out.append(Subspace(U[:, :width], Vh[:width, :], track) if width else None)
    return out


def beside(state: dict[str, Any], param: Tensor) -> dict[str, Any]:
    """The state of a parameter with all tensors on one device, as checkpoints need it."""
    # Apple's devices have no float64.
    device = "cpu" if param.device.type == "mps" else param.device
    return {name: value.to(device) if name in _ON_HOST else value for name, value in state.items()}


def copied(state: dict[str, Any], param: Tensor) -> dict[str, Any]:
    """A copy of the state of a parameter, its tensors in the dtypes that they have.

    `torch.optim.Optimizer.load_state_dict` by itself brings them to the dtype of the parameter.
    """
    return {
        name: value.detach().to(device="cpu" if name in _ON_HOST else param.device, copy=True)
        if isinstance(value, Tensor)
        else value
        for name, value in state.items()
    }
