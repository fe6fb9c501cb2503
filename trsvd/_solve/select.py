"""Choice of a method, with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import is_array
from trsvd._arrays.dtypes import is_sparse
from trsvd._plan.small import job_for, reason_for, small_array
from trsvd._validate import check_cap, check_k, check_tol
from trsvd.methods import ALIASES, METHODS, Direct, Method, ThickRestartLanczos
from trsvd.operators.base import MatrixOperator
from trsvd.operators.gram import coarsest_precision, is_worth_forming, stays_in_cache
from trsvd.operators.products import as_operator

# Up to this min(m, n) a dense factorization takes about as long as a few dozen Lanczos steps.
SMALL = 500
_DENSE_BYTES = 1 << 31
# Up to this min(m, n), compiled steps were measured against the Gram matrix with eigenvectors.
_GRAM_UP_TO = 4096
# Largest k for which Lanczos is faster, as a fraction of min(m, n)^2 / max(m, n); and the same if
# float32 does not stay in cache and the tolerance is loose (an unsuitable run stops early).
_SHARE, _SHARE_LOOSE = 0.2, 0.35
# The same as a fraction of min(m, n), if forming a Gram matrix pays.
_SHARE_FORMED = 0.11
_TIGHT, _LOOSE = 1e-6, 1e-3  # tolerances
_COMPILED_SPARSE = "; compiled Lanczos steps on the Gram operator keep no basis on the longer side"


@dataclass(frozen=True)
class Selection:
    """A method, and the reason for its choice.

    Attributes
    ----------
    method : Method
        The method with its options.
    reason : str
        The reason, one sentence.

    See Also
    --------
    select_method

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> chosen = trsvd.select_method(np.zeros((100, 50)), 5)
    >>> chosen.method
    Direct(route='auto')
    """

    method: Method
    reason: str

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


def select_method(
    A: Any, k: int, tol: float | None = None, *, max_matvecs: int | None = None
) -> Selection:
    """Return the method that `svds` uses by default, and the reason.

    Parameters
    ----------
    A : array, sparse matrix or operator of shape (m, n)
        As for `svds`. The choice depends on type, shape and dtype; entries are not read.
    k : int
        Number of triplets.
    tol : float, optional
        Requested relative residual.
    max_matvecs : int, optional
        Largest number of products; a direct method counts min(m, n).

    Returns
    -------
    Selection
        The method and the reason.

    See Also
    --------
    svds, Selection, warmup

    Notes
    -----
    A small matrix that the compiled call cannot settle is computed by another method. The result
    says by which.

    Compiled Lanczos steps are chosen if they are loaded in this process (`warmup` loads them), or
    if the matrix is so large that a call pays for loading or compiling them. The environment
    variable ``TRSVD_COMPILED`` fixes this: ``0`` never, ``1`` always.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> print(trsvd.select_method(np.zeros((100, 50)), 5))
    Direct(route='auto'): min(m, n) = 50 is small: ...
    """
    A = admitted(A)
    op = as_operator(A)
    if max_matvecs is None:
        k, tol = check_k(k, min(op.shape)), check_tol(tol, op.arrays.eps)
        chosen = _in_one_call(A, k, tol)
        if chosen is not None:
            return chosen
    return general_method(op, k, tol, max_matvecs=max_matvecs)


def _in_one_call(A: Any, k: int, tol: float) -> Selection | None:
    """Return the choice for a matrix that one compiled call computes; None for others."""
    X = small_array(A) if is_array(A) else None
    job = None if X is None else job_for(*X.shape, X.dtype.itemsize, k, tol)
    if X is None or job is None:
        return None
    return Selection(ThickRestartLanczos() if job.most else Direct(), reason_for(job, *X.shape))


def general_method(
    op: MatrixOperator, k: int, tol: float | None = None, *, max_matvecs: int | None = None
) -> Selection:
    """Return `select_method` without the compiled call for small matrices.

    Parameters
    ----------
    op : MatrixOperator
        The matrix.
    k, tol, max_matvecs
        As for `select_method`.

    Returns
    -------
    Selection
    """
    m, n = op.shape
    rank = min(m, n)
    k = check_k(k, rank)
    max_matvecs = None if max_matvecs is None else check_cap(max_matvecs)
    entries = op.max_abs.__func__ is not MatrixOperator.max_abs  # type: ignore[attr-defined]
    dense = is_array(getattr(op, "_A", None))
    bytes_dense = m * n * op.arrays.host_dtype.itemsize
    affordable = max_matvecs is None or max_matvecs >= rank
    iterative = ThickRestartLanczos()
    if not affordable:
        return Selection(iterative, f"max_matvecs = {max_matvecs} is less than min(m, n) = {rank}")
    tol = check_tol(tol, op.arrays.eps)
    tall = max(m, n) >= 8 * rank
    by_panels = dense or (tall and op.forms_gram)
    if bytes_dense > _DENSE_BYTES and not by_panels:
        compiled = _has_compiled_steps(op, k, tol)
        return Selection(
            ThickRestartLanczos(gram=compiled, block_size=_block_size(op, k, tol)),
            "as a dense array the matrix would take over 2 GiB"
            + (_COMPILED_SPARSE if compiled else ""),
        )
    if rank <= 64 or (dense and rank <= SMALL and not _compiled_pays(op, k, tol)):
        return Selection(
            Direct(), f"min(m, n) = {rank} is small: a dense factorization costs least"
        )
    if by_panels and tall and rank <= 2048:
        return Selection(
            Direct(),
            f"max(m, n) / min(m, n) = {max(m, n) / rank:.3g}: the Gram matrix of the smaller side "
            "costs one pass",
        )
    share = k / rank
    lanczos = compiled_lanczos(op, k, tol) if dense else None
    if lanczos is not None and is_worth_forming(op, k, tol):
        return Selection(
            lanczos,
            f"k = {k} of a {m} x {n} matrix, rows in memory: compiled Lanczos steps with the Gram "
            "matrix of the smaller side cost least",
        )
    if lanczos is not None:
        return Selection(
            lanczos,
            f"k = {k} of min(m, n) = {rank}, rows in memory: compiled Lanczos steps on the Gram "
            "operator cost least",
        )
    if dense and rank <= _GRAM_UP_TO and _has_compiled_steps(op, k, tol):
        return Selection(
            Direct(),
            f"k = {k} of a {m} x {n} matrix: compiled Lanczos steps would take longer than the "
            "Gram matrix of the smaller side",
        )
    if share > ((0.02 if rank <= 2048 else 0.05) if dense else 0.25):
        return Selection(
            Direct(),
            f"k is {share:.0%} of min(m, n): Lanczos would take about as many products as there "
            "are columns",
        )
    if not dense and _has_compiled_steps(op, k, tol):
        return Selection(
            ThickRestartLanczos(gram=True, block_size=_block_size(op, k, tol)),
            f"k = {k} of min(m, n) = {rank}, sparse{_COMPILED_SPARSE}",
        )
    kind = "dense" if dense else "sparse" if entries else "known by its products"
    return Selection(
        iterative,
        f"k = {k} of min(m, n) = {rank}, {kind}: Lanczos takes the fewest products",
    )


def suits_direct(op: MatrixOperator) -> bool:
    """True if the matrix is an array of suitable size for a dense factorization."""
    return is_array(getattr(op, "_A", None)) and min(op.shape) <= _GRAM_UP_TO


def compiled_lanczos(
    op: MatrixOperator, k: int, tol: float, share: float | None = None
) -> ThickRestartLanczos | None:
    """Return Lanczos on the Gram operator if compiled steps on a dense matrix are fastest.

    Parameters
    ----------
    op : MatrixOperator
        A dense matrix.
    k : int
        Number of triplets.
    tol : float
        Requested relative accuracy.
    share : float, optional
        Largest k for which it pays, as a fraction of ``min(m, n)^2 / max(m, n)``, if known.
    """
    if not _compiled_pays(op, k, tol, share):
        return None
    return ThickRestartLanczos(gram=True, block_size=_block_size(op, k, tol))


def _compiled_pays(op: MatrixOperator, k: int, tol: float, share: float | None = None) -> bool:
    """True if compiled Gram-operator Lanczos costs less than forming the Gram matrix.

    The Gram matrix costs ``m n^2`` for every k, and Lanczos about ``k m n``. If the spectrum turns
    out to be flat, Lanczos stops for a factorization. A Gram matrix keeps half of the digits.
    Measured with one thread, 64 to 4096 rows and columns, s_i = 1/i, gradients and weights.
    """
    rows = op.rows_in_memory()
    if rows is None or not _has_compiled_steps(op, k, tol):
        return False
    long, rank = max(op.shape), min(op.shape)
    if rank < 192 or long >= 8 * rank:
        return False
    if is_worth_forming(op, k, tol) and k <= _SHARE_FORMED * rank:
        return True
    if share is None:
        few = tol < _LOOSE or rows[0].dtype.itemsize > 4 or stays_in_cache(rows[0])
        share = _SHARE if few else _SHARE_LOOSE
    return k <= max(share * rank**2 / long, 1)


def _block_size(op: MatrixOperator, k: int, tol: float) -> int:
    """Return the number of vectors to multiply at a time, larger if memory limits a product.

    Beyond the second-level cache, products with four vectors cost twice as much as with one, and
    with eight three times as much. They need a half and a third of the passes. (For 3 to 64 MiB and
    k from 8 to 64, four vectors take 0.5 to 0.85 of the time of one; for k = 128, eight do.) In
    cache a single vector is faster, since its projected eigenproblem is tridiagonal.

    For sparse matrices, sixteen vectors cost 3.5 times as much as one, and need 1.2 to 2 times as
    many products, more for a tighter tolerance. They pay for many triplets in single precision if
    a product takes longer than its orthogonalization against k vectors.
    """
    rows = op.rows_in_memory()
    if rows is None or k < 3 or not _has_compiled_steps(op, k, tol):
        return 1
    if is_sparse(rows[0]):
        if k < 32 or tol < _TIGHT or rows[0].size < k * min(op.shape):
            return 1
        return 8 if k < 64 and tol >= _LOOSE else 16
    if stays_in_cache(rows[0]) or is_worth_forming(op, k, tol):
        return 1
    return 2 if k < 6 else 4 if k < 96 else 8


def _has_compiled_steps(op: MatrixOperator, k: int, tol: float) -> bool:
    """True if compiled Gram-operator Lanczos pays and half of the digits suffice."""
    eps = float(np.finfo(np.float64).eps)
    return tol >= 1000 * eps and coarsest_precision(op, k, tol) is not None


def named_method(method: str | Method) -> Method:
    """Return a method by its name, or the method itself; raise for anything else."""
    if isinstance(method, str):
        if method in ALIASES:
            return ALIASES[method]
        if method not in METHODS:
            raise ValueError(
                f"method={method!r} is not known; name one of {sorted(METHODS)} or pass an object"
            )
        return METHODS[method]()
    if isinstance(method, type) or not isinstance(method, Method):
        raise TypeError(
            f"method={method!r}; pass a name of {sorted(METHODS)} or an object, as trsvd.Direct()"
        )
    return method
