"""``svds`` with the arguments, checks and results of ``scipy.sparse.linalg.svds``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse.linalg

from trsvd._arrays.arrays import Array, Arrays, HostArray, is_array
from trsvd._errors import Status, warn_caller
from trsvd._solve.result import NotConverged, Subspace, SVDResult
from trsvd._solve.select import general_method
from trsvd._solve.svds import svds as leading_triplets
from trsvd.compat.arguments import Asked, check_svds, explain, generator, raise_tol
from trsvd.methods import Direct, Method, ThickRestartLanczos
from trsvd.operators import AdjointOperator
from trsvd.operators.base import MatrixOperator


class NoConvergence(NotConverged, scipy.sparse.linalg.ArpackNoConvergence):  # type: ignore[misc]
    """`trsvd.NotConverged`, also a subclass of SciPy's ``ArpackNoConvergence``.

    Attributes
    ----------
    result : SVDResult
        The best triplets found, with their residuals, in descending order.
    eigenvalues, eigenvectors : arrays
        As in ``ArpackNoConvergence``: eigenpairs of the Gram matrix of the shorter side. All pairs
        found are included; their residuals are in ``result``.

    See Also
    --------
    svds, trsvd.NotConverged

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.compat import NoConvergence, svds
    >>> try:
    ...     svds(np.diag(np.linspace(1, 0.999, 200)), 3, maxiter=1, ncv=8, rng=0)
    ... except NoConvergence as error:
    ...     print(error.eigenvalues.shape)
    (3,)
    """

    def __init__(self, message: str, result: SVDResult) -> None:
        RuntimeError.__init__(self, message)
        self.result = result
        U, S, Vh = result
        self.eigenvalues: Array = S**2
        self.eigenvectors: Array = (
            U if U.shape[0] < Vh.shape[1] else Arrays.of_array(Vh).adjoint(Vh)
        )

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
    """Compute the k largest or smallest singular triplets, as ``scipy.sparse.linalg.svds``.

    Parameters
    ----------
    A : array, sparse matrix, LinearOperator or operator of shape (m, n)
        Any input of SciPy's ``svds`` or of `trsvd.svds`.
    k : int, default 6
        Number of triplets, ``0 < k < min(m, n)``; ``k = min(m, n)`` is allowed with
        ``solver="propack"``.
    ncv : int, optional
        Number of Lanczos vectors to keep, ``k < ncv < min(m, n)``. As in SciPy, it is used with
        ``solver="arpack"`` only.
    tol : float, default 0
        Relative residuals must be at most ``tol**2``, as in SciPy. The bound is limited to the
        range from ``eps**0.75`` (used for 0) to 0.5. Iterations continue to ``sqrt(eps)``, as long
        as residuals decrease and ``maxiter`` allows it. If products with A are less accurate than
        its dtype, raise ``tol`` to the square root of their relative error.
    which : {"LM", "SM"}
        The largest or the smallest singular values.
    v0 : array, optional
        Starting vector, of shape (min(m, n),), with ``"propack"`` of shape (m,).
    maxiter : int, optional
        Iterations of the named solver, converted to products: ``2 ncv`` for a restart of
        ``"arpack"``, ``2 k`` for a step of ``"lobpcg"``, 2 for a step of ``"propack"``. At least
        ``3 k + 10`` products are allowed, since k triplets need them.
    return_singular_vectors : {True, False, "u", "vh"}
        Which singular vectors are returned.
    solver : {"arpack", "lobpcg", "propack"}
        Solver whose rules apply to ``k``, ``ncv``, ``v0``, ``maxiter`` and results that have not
        converged. The computation is done by trsvd, in the same way for all solvers.
    rng : int, numpy.random.Generator or numpy.random.RandomState, optional
        Source of random numbers.
    options : dict, optional
        Must be empty, since no solver has options.
    random_state : optional
        Old name of ``rng``.

    Returns
    -------
    u : array of shape (m, k)
        Left singular vectors; None if they are not requested.
    s : array of shape (k,)
        Singular values, ascending. Returned alone if no vectors are requested.
    vh : array of shape (k, n)
        Right singular vectors, conjugate transposed; None if they are not requested.

    Raises
    ------
    ValueError, TypeError
        As in SciPy's function. Also if A contains NaN or inf, or has an unsupported dtype.
    NoConvergence
        If the residuals exceed the tolerance. With ``solver="lobpcg"`` the function instead warns
        with `ConvergenceWarning` and returns the best triplets. (SciPy's LOBPCG also warns.)

    See Also
    --------
    randomized_svd, NoConvergence, trsvd.svds

    Notes
    -----
    If v0, ncv or rng is given, the method is Lanczos; otherwise `select_method` chooses it. If
    ``min(m, n) <= 64`` or ``k > min(m, n) / 4``, a dense factorization is used, which ignores these
    arguments and makes min(m, n) products.

    The smallest triplets come from a full SVD if A is a dense array. The same holds if
    ``min(m, n) <= 2048`` and A as a dense array takes at most 2 GiB. Otherwise they come from
    Lanczos on ``c I - A^H A``, without inverses, to residuals of at most ``sqrt(eps)``. This ends
    with `NoConvergence` if they are clustered, or too small for the Gram matrix.

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
                "rng and random_state are both given; pass rng, the new name of random_state"
            )
        rng = generator("random_state", random_state)
    asked = check_svds(
        A, k, ncv, tol, which, v0, maxiter, return_singular_vectors, solver, rng, options
    )
    if asked.start is not None:  # v0 takes precedence over rng
        asked = replace(asked, rng=np.random.default_rng(0))
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
    """Return Lanczos if an argument requires it; None leaves the choice to `trsvd.svds`."""
    op, k = asked.op, asked.k
    cap = None if asked.max_matvecs is None else max(asked.max_matvecs, asked.rank)
    chosen = general_method(op, k, asked.aim, max_matvecs=cap).method
    iterative = chosen if isinstance(chosen, ThickRestartLanczos) else None
    tiny = asked.rank <= 64 or 4 * k > asked.rank
    if not tiny and asked.basis_size is not None:
        # A block needs space in the basis, which may have only two vectors more than k.
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
# With 1, the complement of a matrix of equal singular values would be only rounding errors.
_SHIFT = 1.25


def smallest(asked: Asked) -> tuple[Array, Array, Array]:
    """Return U, S and Vh of the k smallest singular values, in descending order.

    Parameters
    ----------
    asked : Asked
        The matrix, and the arguments of the computation.

    Raises
    ------
    NotConverged
        If the residuals exceed ``asked.tol`` after a full SVD, or ``max(asked.tol, sqrt(eps))``
        after an iteration (the Gram matrix keeps half of the digits). Users do not see its message.
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
    """Operator ``c I - A^H A / s_1^2``, c > 1; its largest values belong to the smallest of A."""

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
    """Run Lanczos on the complement, and a Rayleigh-Ritz step with A."""
    flipped = asked.op.shape[0] < asked.op.shape[1]
    op = AdjointOperator(asked.op) if flipped else asked.op
    arrays = op.arrays
    tol = max(asked.tol, arrays.eps**0.5)
    # Singular values above sqrt(2 _SHIFT) s would come before the smallest ones.
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
    """Return the leading triplets of the complement, converged or not.

    A product with the complement takes two products with A.
    """
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
