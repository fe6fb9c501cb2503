"""Conversion between a distributed tensor (DTensor), its local part and the whole tensor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def is_sharded(X: Any) -> bool:
    """True for a DTensor, without importing `torch.distributed`."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(X, module.DTensor)


def local(X: Tensor, param: Tensor) -> Tensor:
    """Return the local part of X, for the placement of the parameter.

    Parameters
    ----------
    X : tensor
        The parameter, its gradient or a buffer, all of the shape of the parameter. A DTensor with
        other placements is redistributed.
    param : tensor
        The parameter.

    Returns
    -------
    tensor
        The local part; X itself if the parameter is not a DTensor.

    Raises
    ------
    TypeError
        If the parameter is a DTensor and X is not, or the other way round.
    """
    if is_sharded(X) is not is_sharded(param):
        raise TypeError(
            f"a parameter that is a {type(param).__name__} has a gradient or a buffer that is a "
            f"{type(X).__name__}; both must be DTensors, or neither"
        )
    if not is_sharded(X):
        return X
    given: Any = X
    wanted: Any = param
    if tuple(given.placements) != tuple(wanted.placements):
        given = given.redistribute(wanted.device_mesh, wanted.placements)
    return given.to_local()


def like(part: Tensor, param: Tensor) -> Tensor:
    """Return the tensor with this local part and the placements of the parameter."""
    if not is_sharded(param):
        return part
    from torch.distributed.tensor import DTensor

    wanted: Any = param
    out: Tensor = DTensor.from_local(
        part,
        wanted.device_mesh,
        wanted.placements,
        run_check=False,
        shape=param.shape,
        stride=param.stride(),
    )
    return out


def gathered(part: Tensor, param: Tensor) -> Tensor:
    """Return the whole tensor from its local parts, by an all-gather."""
    whole: Any = like(part, param)
    return whole.full_tensor() if is_sharded(whole) else whole


def own_part(whole: Tensor, param: Tensor) -> Tensor:
    """Return the local part of a tensor that every process has in full, without communication.

    Raises
    ------
    NotImplementedError
        If PyTorch cannot compute the local part for the placements of the parameter.
    """
    if not is_sharded(param):
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    wanted: Any = param
    mesh = wanted.device_mesh
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    part: Tensor = everywhere.redistribute(mesh, wanted.placements).to_local()
    if part.shape != wanted.to_local().shape:
        raise NotImplementedError(
            f"a DTensor placed as {tuple(wanted.placements)} cannot be divided by this version of "
            "PyTorch; use a newer one, or other placements"
        )
    return part


def frobenius_norm(X: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the Frobenius norm of the whole tensor, in a given dtype."""
    norm: Any = torch.linalg.vector_norm(X, dtype=dtype)
    return norm.full_tensor() if is_sharded(norm) else norm


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """True if no entry is NaN or inf; for DTensors the same answer on every process."""
    bad: dict[Any, Any] = {}
    for X in tensors:
        if X.layout is torch.sparse_coo:
            X = X._values()
        if X.layout is not torch.strided or not X.is_floating_point():
            continue
        # NaN if an entry is not finite, else 0.
        sign = (X - X).sum()
        key = sign.device_mesh if is_sharded(sign) else sign.device
        bad[key] = bad[key] + sign if key in bad else sign
    whole = [each.full_tensor() if is_sharded(each) else each for each in bad.values()]
    return not any(bool(torch.isnan(each)) for each in whole)
