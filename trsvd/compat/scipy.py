"""``svds`` with the arguments, checks and results of ``scipy.sparse.linalg.svds``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse.linalg

from trsvd._arrays.arrays import Array, Arrays, HostArray, is_array
from trsvd._errors import Status, warn_caller
from trsvd._solve.result import NotConverged, Subspace, SVDResult
from trsvd._solve.select import select_method
from trsvd._solve.svds import svds as leading_triplets
from trsvd.compat.arguments import Asked, check_svds, explain, generator, raise_tol
from trsvd.methods import Direct, Method, ThickRestartLanczos
from trsvd.operators import AdjointOperator
from trsvd.operators.base import MatrixOperator


class NoConvergence(NotConverged, scipy.sparse.linalg.ArpackNoConvergence):  # type: ignore[misc]
    """`trsvd.NotConverged` that code written for SciPy catches as ``ArpackNoConvergence``.

    Attributes
    ----------
    result : SVDResult
        The best triplets found, each with its residual; descending.
    eigenvalues, eigenvectors : arrays
        As ``ArpackNoConvergence`` has them, of the Gram matrix of the shorter side: all that were
        found, with residuals in ``result``.
    """

    def __init__(self, message: str, result: SVDResult) -> None:
        RuntimeError.__init__(self, message)
        self.result = result
        U, S, Vh = result
        self.eigenvalues = S**2
        self.eigenvectors = U if U.shape[0] < Vh.shape[1] else Arrays.of_array(Vh).adjoint(Vh)

    def __reduce__(self) -> tuple[type[NoConvergence], tuple[str, SVDResult]]:
        return NoConvergence, (str(self), self.result)


def svds(
    A: Any,
    k: int = 6,
    ncv: int | None = None,
    tol: float = 0,
    which: str = "LM",
    v0: Array | None = None,
    maxiter: int | None = None,
    return_singular_vectors: bool | str = True,
    solver: str = "arpack",
    rng: Any = None,
    options: dict[str, Any] | None = None,
    *,
    random_state: Any = None,
) -> Any:
    """The k largest or smallest singular triplets, as ``scipy.sparse.linalg.svds`` returns them.

    Parameters
    ----------
    A : array, sparse matrix, LinearOperator or operator of shape (m, n)
        What SciPy's takes, and what `trsvd.svds` takes.
    k : int, default 6
        ``0 < k < min(m, n)``; min(m, n) too with ``solver="propack"``.
    ncv : int, optional
        Lanczos vectors to keep, ``k < ncv < min(m, n)``. As with SciPy it belongs to ``"arpack"``
        and is not looked at with the others.
    tol : float, default 0
        Relative residuals of at most ``tol**2`` are good enough, as SciPy has it, within
        ``eps**0.75`` (0 stands for it) and 0.5. Iterations continue to ``sqrt(eps)``, as long as
        residuals decrease and ``maxiter`` allows it. If products with A are less accurate than its
        dtype, raise ``tol`` to the square root of their relative error.
    which : {"LM", "SM"}
        The largest or the smallest singular values.
    v0 : array, optional
        Starting vector, of shape (min(m, n),), with ``"propack"`` of shape (m,).
    maxiter : int, optional
        Iterations of the solver that is named, converted to products: ``2 ncv`` for a restart of
        ``"arpack"``, 2 k for a step of ``"lobpcg"``, 2 for one of ``"propack"``; at least the
        ``3 k + 10`` that k triplets take.
    return_singular_vectors : {True, False, "u", "vh"}
        Which singular vectors are returned.
    solver : {"arpack", "lobpcg", "propack"}
        Whose rules hold for ``k``, ``ncv``, ``v0``, ``maxiter`` and what is not converged. What
        computes is trsvd, the same for all.
    rng : int, numpy.random.Generator or numpy.random.RandomState, optional
        Where random numbers come from.
    options : dict, optional
        Must be empty, as there are none.
    random_state : optional
        The older name of ``rng``.

    Returns
    -------
    u : array of shape (m, k)
        Left singular vectors, None if they are not asked for.
    s : array of shape (k,)
        Singular values, ascending. All that is returned if no vectors are asked for.
    vh : array of shape (k, n)
        Right singular vectors, conjugate transposed, None if they are not asked for.

    Raises
    ------
    ValueError, TypeError
        As SciPy's function; where A is not finite, or of a dtype that cannot be computed with.
    NoConvergence
        If the residuals miss the tolerance. (With ``solver="lobpcg"``, which warns in SciPy too, a
        `ConvergenceWarning` and the best triplets.)

    Notes
    -----
    Where v0, ncv or rng is given, Lanczos iterates from it; otherwise the method is the one
    that `select_method` names. With min(m, n) of at most 64 or k above a quarter of it a dense
    factorization is made, which has no use for them, and makes min(m, n) products.

    The smallest ones come from a full SVD where A is a dense array, or has at most 2048 rows or
    columns and takes at most 2 GiB as one; otherwise from Lanczos on ``c I - A^H A``,
    without inverses, to residuals of at most ``sqrt(eps)``: it ends with `NoConvergence` where
    they are clustered, or too small to survive the squaring.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.compat import svds
    >>> svds(np.diag([3.0, 1.0, 2.0]), k=2, return_singular_vectors=False)
    array([2., 3.])
    """
    if random_state is not None:
        if rng is not None:
            raise TypeError(
                "rng and random_state are both given; random_state is the older name of rng"
            )
        rng = generator("random_state", random_state)
    asked = check_svds(
        A, k, ncv, tol, which, v0, maxiter, return_singular_vectors, solver, rng, options
    )
    try:
        U, S, Vh = _largest(asked) if asked.largest else smallest(asked)
    except NotConverged as error:
        msg = _failure(error, asked, tol)
        if asked.solver != "lobpcg":
            raise NoConvergence(msg, error.result) from None
        warn_caller(msg)
        U, S, Vh = error.result
    flip = asked.op.xp.flip
    S = flip(S, axis=0)
    if not (asked.left or asked.right):
        return S
    return (
        flip(U, axis=1) if asked.left else None,
        S,
        flip(Vh, axis=0) if asked.right else None,
    )


def _failure(error: NotConverged, asked: Asked, tol: float) -> str:
    """Return the message for residuals above the tolerance."""
    advice = raise_tol(error)
    more = f"raise maxiter, or {advice}"
    if not asked.largest:
        advice += ", or pass A as a dense array, all of whose singular values are computed"
        more = f"raise maxiter or ncv, or {advice}"
    wanted = f"tol={tol:g} asks for {asked.tol:.2e}"
    msg = explain(error, wanted, limit="maxiter", more=more, otherwise=advice)
    return msg if asked.largest else f"smallest singular values: {msg}"


def _largest(asked: Asked) -> SVDResult:
    method, cap = _method(asked), asked.max_matvecs
    return asked.triplets(
        asked.op,
        method=method,
        start=asked.start,
        max_matvecs=None if isinstance(method, Direct) else cap,
    )


def _method(asked: Asked) -> Method | None:
    """Lanczos where something is given that only it can honour; None leaves all to `trsvd.svds`."""
    op, k = asked.op, asked.k
    cap = None if asked.max_matvecs is None else max(asked.max_matvecs, asked.rank)
    chosen = select_method(op, k, asked.aim, max_matvecs=cap).method
    iterative = chosen if isinstance(chosen, ThickRestartLanczos) else None
    tiny = asked.rank <= 64 or 4 * k > asked.rank
    if not tiny and asked.basis_size is not None:
        # A block takes room in the basis, which may be of two vectors more than k.
        single = replace(iterative or ThickRestartLanczos(), block_size=1)
        return replace(single, basis_size=asked.basis_size)
    if not tiny and asked.start is not None:
        return iterative or ThickRestartLanczos()
    if not tiny and asked.rng is not None and iterative is None:
        return ThickRestartLanczos()
    return None if cap is None else chosen


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
    U, S, Vh = leading_triplets(op, asked.rank, method=method, tol=asked.tol, on_failure="raise")
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
        raise _not_converged(result, triplets, residuals)
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


def _not_converged(
    result: SVDResult, triplets: tuple[Array, Array, Array], residuals: HostArray
) -> NotConverged:
    """Return the exception for smallest triplets above the tolerance."""
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
