"""Matrices as operators, which have products with A and A^H, and combinations of operators.

An operator has ``shape``, ``dtype``, ``matmat(X) = A X`` and ``rmatmat(X) = A^H X``. `as_operator`
converts arrays, sparse matrices and all objects with these four attributes (or with ``matvec`` and
``rmatvec``).
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
