"""The smallest singular triplets: from all of them, or by Lanczos on ``c I - A^H A``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trsvd._arrays.arrays import Array, HostArray, is_array
from trsvd._errors import NotConverged, Status
from trsvd._solve.result import Subspace, SVDResult
from trsvd._solve.svds import svds
from trsvd.compat.arguments import Asked
from trsvd.methods import Direct, ThickRestartLanczos
from trsvd.operators import AdjointOperator
from trsvd.operators.base import MatrixOperator

__all__ = ["DENSE_RANK", "smallest"]

# A full SVD of this many columns takes seconds.
DENSE_RANK = 2048
_DENSE_BYTES = 1 << 31
# With 1, nothing but rounding would be left of a matrix of equal singular values.
_SHIFT = 1.25


def smallest(asked: Asked) -> tuple[Array, Array, Array]:
    """U, S and Vh of the k smallest singular values, descending.

    Parameters
    ----------
    asked : Asked
        The matrix, and how its triplets are to be computed.

    Raises
    ------
    NotConverged
        If the residuals exceed ``asked.tol`` after a full SVD, ``max(tol, sqrt(eps))`` after an
        iteration (squares keep half of the digits). Its message is not meant for users.
    """
    op, k = asked.op, asked.k
    m, n = op.shape
    in_memory = is_array(getattr(op, "_A", None))
    affordable = m * n * op.arrays.host_dtype.itemsize <= _DENSE_BYTES
    if not (in_memory or (asked.rank <= DENSE_RANK and affordable)):
        return _by_lanczos(asked)
    method = Direct(route="svd")
    U, S, Vh = svds(op, asked.rank, method=method, tol=asked.tol, on_failure="raise")
    return U[:, -k:], S[-k:], Vh[-k:, :]


class _Complement(MatrixOperator):
    """``c I - A^H A / s_1^2``, c > 1: its largest singular values belong to A's smallest."""

    def __init__(self, A: MatrixOperator, s: float) -> None:
        self.A, self.s = A, s
        self.arrays = replace(A.arrays, out_dtype=A.arrays.dtype)
        self.shape = (A.shape[1], A.shape[1])

    def matmat(self, X: Array) -> Array:
        return _SHIFT * X - self.A.rmatmat(self.A.matmat(X / self.s)) / self.s

    rmatmat = matmat

    def go(self, forward: str | None, backward: str | None) -> bool:
        both = forward or backward
        return self.A.go(both, both)


def _by_lanczos(asked: Asked) -> tuple[Array, Array, Array]:
    """Lanczos on the complement, and a Rayleigh-Ritz step with A."""
    flipped = asked.op.shape[0] < asked.op.shape[1]
    op = AdjointOperator(asked.op) if flipped else asked.op
    arrays = op.arrays
    tol = max(asked.tol, arrays.eps**0.5)
    # Above sqrt(2 _SHIFT) s, values would come before the smallest ones.
    s = float(replace(asked, k=1, tol=min(tol, 0.1)).triplets(op).S[0])
    result = _converged_or_not(
        _Complement(op, s or 1.0),
        asked,
        asked.start.U if isinstance(asked.start, Subspace) else asked.start,
    )
    V = arrays.adjoint(arrays.take(result.Vh))
    U, S, Wh = arrays.svd(op.matmat(V))
    V = V @ arrays.adjoint(Wh)
    defects = arrays.get(arrays.column_norms(op.rmatmat(U) - V * arrays.put(S)))
    residuals = defects.astype(np.float64) / (s or 1.0)
    U, V = arrays.fix_phases(*((V, U) if flipped else (U, V)))
    triplets = arrays.hand_out(U), arrays.hand_out_values(S), arrays.hand_out(arrays.adjoint(V))
    if not (result.converged and bool(np.all(residuals <= tol))):
        raise _failure(result, triplets, residuals)
    return triplets


def _converged_or_not(op: MatrixOperator, asked: Asked, start: Array | None) -> SVDResult:
    """The leading triplets of the complement, good or not; a product takes two with A."""
    size = asked.basis_size or max(3 * asked.k, asked.k + 40)
    cap = None if asked.max_matvecs is None else max(asked.max_matvecs // 2, size)
    try:
        method = ThickRestartLanczos(basis_size=size)
        return asked.triplets(op, method=method, start=start, max_matvecs=cap)
    except NotConverged as error:
        return error.result


def _failure(
    result: SVDResult, triplets: tuple[Array, Array, Array], residuals: HostArray
) -> NotConverged:
    """What to raise where the smallest triplets are not good enough."""
    status = Status.STAGNATED if result.converged else result.status
    U, S, Vh = triplets
    result = replace(
        result,
        U=U,
        S=S,
        Vh=Vh,
        residuals=residuals,
        converged=False,
        status=status,
        matvecs=2 * result.matvecs,
        state=None,
    )
    return NotConverged(status.value, result)
