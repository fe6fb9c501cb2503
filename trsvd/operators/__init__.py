"""Matrices as operators: what a truncated SVD asks of a matrix, and ways to combine them.

An operator has ``shape``, ``dtype``, ``matmat(X) = A X`` and ``rmatmat(X) = A^H X``. Anything
with these four (or with ``matvec`` and ``rmatvec``), every array and every sparse matrix becomes
one through `as_operator`.
"""

from __future__ import annotations

from trsvd.operators.base import MatrixLike, MatrixOperator
from trsvd.operators.combinators import (
    AdjointOperator,
    CenteredOperator,
    LowRankUpdate,
    SumOperator,
)
from trsvd.operators.products import as_operator, check_adjoint

__all__ = [
    "AdjointOperator",
    "CenteredOperator",
    "LowRankUpdate",
    "MatrixLike",
    "MatrixOperator",
    "SumOperator",
    "as_operator",
    "check_adjoint",
]
