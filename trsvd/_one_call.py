"""The oracle of a ball in one call: an array in, an array out, of one matrix or of a batch."""

from __future__ import annotations

from typing import Any

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, Arrays, is_array
from trsvd._arrays.dtypes import describe
from trsvd._oracles.result import LMOResult
from trsvd._validate import check_number
from trsvd.balls import Ball


def minimizers(ball: Ball, G: Array, radius: float, **options: Any) -> Array:
    """The minimizer over ``radius * ball``, of each matrix of a batch.

    Parameters
    ----------
    ball : Ball
        Over which.
    G : array of shape (..., m, n)
        The leading dimensions are a batch.
    radius : float
        What the ball is multiplied by.
    **options
        As for `Ball.lmo`.

    Returns
    -------
    array of shape (..., m, n)
    """
    radius, G = check_number("radius", radius), admitted(G)
    if not is_array(G):
        raise TypeError(
            f"G is {describe(G)}; a function that returns an array takes one of shape (..., m, n) "
            "(use the lmo of a ball for sparse matrices and operators)"
        )
    if G.ndim < 2:
        raise ValueError(f"G has shape {tuple(G.shape)}; a matrix has two dimensions: reshape it")
    if G.ndim == 2:
        return (radius * ball).lmo(G, **options).update
    if options.get("start") is not None:
        raise ValueError(
            "start= belongs to one matrix; call the oracle of each matrix of the batch by itself"
        )
    shape = tuple(G.shape)
    if 0 in shape:
        raise ValueError(f"G has shape {shape}; a batch needs a matrix, with rows and columns")
    updates = LMOResult.stacked((radius * ball).lmo_many(G, **options))
    return Arrays.of_array(G).xp.reshape(updates, shape)
