"""Parameters that are distributed over processes (DTensor): the local part, the whole, and back."""

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
    """The part of X that this process has of the parameter.

    Parameters
    ----------
    X : tensor
        Of the shape of the parameter: itself, its gradient or a buffer. A DTensor that is placed in
        another way is redistributed.
    param : tensor
        The parameter.

    Returns
    -------
    tensor
        X where the parameter is not a DTensor.

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
    """The tensor of which this is the local part, placed as the parameter is."""
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
    """The whole of the tensor of which this is the local part: an all-gather."""
    whole: Any = like(part, param)
    return whole.full_tensor() if is_sharded(whole) else whole


def own_part(whole: Tensor, param: Tensor) -> Tensor:
    """The local part of a tensor that every process has whole; nothing is communicated.

    Raises
    ------
    NotImplementedError
        If PyTorch does not say which part it is, for the placements of the parameter.
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
    """The Frobenius norm of the whole tensor, in a dtype."""
    norm: Any = torch.linalg.vector_norm(X, dtype=dtype)
    return norm.full_tensor() if is_sharded(norm) else norm


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """True if no number is NaN or inf; on every process the same for DTensors."""
    bad: dict[Any, Any] = {}
    for X in tensors:
        if X.layout is torch.sparse_coo:
            X = X._values()
        if X.layout is not torch.strided or not X.is_floating_point():
            continue
        # NaN where one is not finite, 0 otherwise.
        sign = (X - X).sum()
        key = sign.device_mesh if is_sharded(sign) else sign.device
        bad[key] = bad[key] + sign if key in bad else sign
    whole = [each.full_tensor() if is_sharded(each) else each for each in bad.values()]
    return not any(bool(torch.isnan(each)) for each in whole)
