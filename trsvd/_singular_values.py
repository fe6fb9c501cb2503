"""Singular values alone, for norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trsvd._arrays import HostArray
from trsvd._kinds import dtype_name
from trsvd._problem import Problem
from trsvd._select import SMALL
from trsvd._svds import svds
from trsvd.methods import Direct
from trsvd.operators import as_operator

__all__ = ["leading_values", "singular_values"]

# A missed value exceeds the last one by this share of it at most. (A sum of the k values is then
# wrong by no more than that.)
_ETA = 1e-3
# Entries up to which a matrix of `SMALL` rank is factorized, whatever it is held as.
_ENTRIES = 1 << 25


def singular_values(X: Any) -> HostArray:
    """All singular values of X, descending, in float64 on the host."""
    problem = Problem(X, 0, None)
    _, values, _ = problem.arrays.svd(problem.op.scaled_dense())
    return np.ldexp(values, -problem.op.scale_exponent)


def leading_values(X: Any, k: int) -> HostArray:
    """The k (or min(m, n)) largest singular values of X, in float64 on the host.

    Numbers come without a `Completeness`, so that there is more to be sure of than in `svds`: no
    copy of a multiple value is missed in a dense factorization, which small matrices get.
    """
    op = as_operator(X)
    k = min(k, *op.shape)
    if dtype_name(op.arrays.out_dtype) in {"float16", "bfloat16"}:
        X = op.dense()  # in the dtype that it is computed in, whose range holds the values
    small = min(op.shape) <= SMALL and math.prod(op.shape) <= _ENTRIES
    result = svds(X, k, method=Direct() if small else None, rng=0, verify=_ETA)
    return op.arrays.get(result.S).astype(np.float64)
