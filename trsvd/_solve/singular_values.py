"""Singular values alone, for norms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import dtype_name
from trsvd._errors import NotConverged, warn_caller
from trsvd._solve.problem import Problem
from trsvd._solve.svds import svds
from trsvd._solve.verify import FINE_ETA
from trsvd.operators import as_operator

__all__ = ["leading_values", "singular_values"]

# Up to this many entries, all singular values take about as long as a few with verify=FINE_ETA.
_ALL_UP_TO = 1 << 18


def singular_values(X: Any) -> HostArray:
    """All singular values of X, descending, in float64 on the host."""
    problem = Problem(X, 0, None)
    _, values, _ = problem.arrays.svd(problem.op.scaled_dense())
    return np.ldexp(values, -problem.op.scale_exponent)


def leading_values(X: Any, k: int) -> HostArray:
    """The k (or min(m, n)) largest singular values of X, in float64 on the host.

    A number has no certificate: all values are computed where that is cheap, and otherwise missed
    copies of multiple values are looked for longer than `svds` does.
    """
    op = as_operator(X)
    k = min(k, *op.shape)
    if k > 1 and math.prod(op.shape) <= _ALL_UP_TO:
        return singular_values(X)[:k]
    if dtype_name(op.arrays.out_dtype) in {"float16", "bfloat16"}:
        X = op.dense()  # in the dtype that it is computed in, whose range holds the values
    try:
        result = svds(X, k, rng=0, verify=FINE_ETA if k > 1 else True, on_failure="raise")
    except NotConverged as error:
        result, cause = error.result, error.result.status.value.partition("; ")[0]
        warn_caller(
            f"{cause} (k = {k} largest singular values, {result.matvecs} products); pass a dense "
            "array, all of whose singular values are computed, or call trsvd.svds with options of "
            "your own"
        )
    return op.arrays.get(result.S).astype(np.float64)
