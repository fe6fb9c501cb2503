"""The choice of a method, which can be asked why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trsvd._arrays import is_array
from trsvd._operator import MatrixOperator, as_operator
from trsvd._validate import check_cap, check_k, check_tol
from trsvd.methods import Direct, Method, ThickRestartLanczos

__all__ = ["SMALL", "Selection", "select_method"]

# Up to this min(m, n) a dense factorization takes about as long as a few dozen Lanczos steps.
SMALL = 500
_DENSE_BYTES = 1 << 31


@dataclass(frozen=True)
class Selection:
    """A method, and why it was chosen.

    Attributes
    ----------
    method : Method
        With its options.
    reason : str
        One sentence.
    """

    method: Method
    reason: str

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


def select_method(
    A: Any, k: int, tol: float | None = None, *, max_matvecs: int | None = None
) -> Selection:
    """The method that `svds` uses when it is given none, and why.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        As for `svds`; not looked into, only its kind, shape and dtype count.
    k : int
        Number of triplets.
    tol : float, optional
        Relative residual asked for.
    max_matvecs : int, optional
        Cap on the products; a direct method counts min(m, n).

    Returns
    -------
    Selection
        ``method`` and ``reason``.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> print(trsvd.select_method(np.zeros((300, 200)), 5))
    Direct(route='auto'): min(m, n) = 200 is small: a dense factorization costs least
    """
    op = as_operator(A)
    m, n = op.shape
    rank = min(m, n)
    k = check_k(k, rank)
    check_tol(tol, op.arrays.eps)
    max_matvecs = None if max_matvecs is None else check_cap(max_matvecs)
    entries = op.max_abs.__func__ is not MatrixOperator.max_abs  # type: ignore[attr-defined]
    dense = is_array(getattr(op, "_A", None))
    bytes_dense = m * n * op.arrays.host_dtype.itemsize
    affordable = max_matvecs is None or max_matvecs >= rank
    iterative = ThickRestartLanczos()
    if not affordable:
        return Selection(iterative, f"max_matvecs = {max_matvecs} is less than min(m, n) = {rank}")
    if bytes_dense > _DENSE_BYTES and not dense:
        return Selection(iterative, "as a dense array the matrix would take over 2 GiB")
    if rank <= 64 or (dense and rank <= SMALL):
        return Selection(
            Direct(), f"min(m, n) = {rank} is small: a dense factorization costs least"
        )
    if dense and max(m, n) >= 8 * rank and rank <= 2048:
        return Selection(
            Direct(),
            f"max(m, n) / min(m, n) = {max(m, n) / rank:.3g}: the Gram matrix of the smaller side "
            "costs one pass",
        )
    share = k / rank
    if share > ((0.02 if rank <= 2048 else 0.05) if dense else 0.25):
        return Selection(
            Direct(),
            f"k is {share:.0%} of min(m, n): Lanczos would take about as many products as there "
            "are columns",
        )
    kind = "dense" if dense else "sparse" if entries else "known by its products"
    return Selection(
        iterative,
        f"k = {k} of min(m, n) = {rank}, {kind}: Lanczos takes the fewest products",
    )
