"""``randomized_svd`` with the arguments and results of scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from trsvd._arrays.arrays import Array
from trsvd._arrays.dtypes import is_sparse
from trsvd._errors import warn_caller
from trsvd._solve.result import NotConverged, SVDResult
from trsvd._solve.svds import svds
from trsvd.compat.arguments import (
    NORMALIZERS,
    as_matrix,
    check_choice,
    check_count,
    explain,
    generator,
)
from trsvd.methods import RandomizedSVD


def randomized_svd(
    M: Any,
    n_components: int,
    *,
    n_oversamples: int = 10,
    n_iter: int | str = "auto",
    power_iteration_normalizer: str = "auto",
    transpose: bool | str = "auto",
    flip_sign: bool = True,
    random_state: Any = None,
    svd_lapack_driver: str = "gesdd",
    tol: float = 1e-3,
) -> tuple[Array, Array, Array]:
    """Compute the k largest singular triplets, as ``sklearn.utils.extmath.randomized_svd``.

    Parameters
    ----------
    M : array-like, sparse matrix or operator of shape (m, n)
        Any input of scikit-learn's ``randomized_svd`` or of `trsvd.svds`.
    n_components : int
        Number k of triplets, ``1 <= k <= min(m, n)``.
    n_oversamples : int, default 10
        Columns of the sketch beyond k, for power iterations. No effect with ``n_iter="auto"``.
    n_iter : int or "auto"
        Number of power iterations. ``"auto"`` leaves the method to `trsvd.svds`, which iterates
        until every residual is at most ``tol``.
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}
        No effect: the sketch is always orthonormalized.
    transpose : bool or "auto"
        No effect: the computation always uses the shorter side of M.
    flip_sign : bool, default True
        No effect: the entry of largest modulus of every left vector is always positive.
    random_state : int, numpy.random.RandomState or numpy.random.Generator, optional
        Source of random numbers. None draws a new seed; ``numpy.random.seed`` has no effect.
    svd_lapack_driver : {"gesdd", "gesvd"}
        No effect: the driver is "gesdd", and "gesvd" if that fails.
    tol : float, default 1e-3
        Largest accepted residual ``max(||M v - s u||, ||M^H u - s v||) / s_1``. (scikit-learn has
        no such parameter, and does not check residuals.)

    Returns
    -------
    u : array of shape (m, k)
        Left singular vectors.
    s : array of shape (k,)
        Singular values, descending.
    vh : array of shape (k, n)
        Right singular vectors, conjugate transposed.

    Raises
    ------
    ValueError, TypeError
        If M or a parameter is invalid, or M contains NaN or inf.

    Warns
    -----
    ConvergenceWarning
        If a residual exceeds ``tol``.

    See Also
    --------
    svds, trsvd.sklearn.TruncatedSVD

    Notes
    -----
    The cost is that of ``trsvd.svds(M, n_components, tol=tol)``. If ``n_iter`` is a number, it is
    ``2 (k + n_oversamples) (n_iter + 1)`` products, and up to 2 k for the residuals.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, Finding structure with randomness,
    doi:10.1137/090771806.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.compat import randomized_svd
    >>> u, s, vh = randomized_svd(np.diag([3.0, 1.0, 2.0]), 2, random_state=0)
    >>> s.round(6)
    array([3., 2.])
    """
    check_choice("power_iteration_normalizer", power_iteration_normalizer, NORMALIZERS)
    check_choice("transpose", transpose, (True, False, "auto"))
    check_choice("flip_sign", flip_sign, (True, False))
    check_choice("svd_lapack_driver", svd_lapack_driver, ("gesdd", "gesvd"))
    if is_sparse(M) and getattr(M, "format", "") in ("lil", "dok"):
        msg = f"Calculating SVD of a {type(M).__name__} is expensive. CSR format is more efficient."
        warn_caller(msg, scipy.sparse.SparseEfficiencyWarning)
    rng = generator("random_state", random_state)
    try:
        U, S, Vh = leading(M, n_components, n_oversamples, n_iter, tol, rng)
    except NotConverged as error:
        warn_caller(str(error))
        U, S, Vh = error.result
    return U, S, Vh


def leading(
    M: Any,
    n_components: int,
    n_oversamples: int,
    n_iter: int | str,
    tol: float,
    rng: np.random.Generator | None,
) -> SVDResult:
    """Compute the leading triplets, by power iterations if their number is given.

    Parameters
    ----------
    M, n_components, n_oversamples, n_iter, tol
        As for `randomized_svd`.
    rng : numpy.random.Generator or None
        Source of random numbers.

    Raises
    ------
    NotConverged
        If a residual exceeds ``tol``; the message uses scikit-learn's argument names.
    """
    M = as_matrix(M)
    k = check_count("n_components", n_components)
    rank = min(M.shape[-2:], default=1)
    if len(M.shape) >= 2 and not 1 <= k <= rank:
        raise ValueError(
            f"n_components={k} must be in 1 .. {rank} for a matrix of shape {tuple(M.shape)}"
        )
    oversampling = check_count("n_oversamples", n_oversamples)
    method = None
    if isinstance(n_iter, str):
        check_choice("n_iter", n_iter, ("auto",))
    else:
        iterations = check_count("n_iter", n_iter)
        method = RandomizedSVD(oversampling=oversampling, power_iterations=iterations)
    try:
        return svds(M, k, method=method, tol=tol, rng=rng, on_failure="raise")
    except NotConverged as error:
        raising = f"raise tol above {error.result.residuals.max():.2e}"
        fixed = f"n_iter={n_iter!r} power iterations are made; pass n_iter='auto' to iterate to tol"
        raise NotConverged(
            explain(
                error,
                f"tol={tol:g}",
                limit="the limit of products",
                more=raising if method is None else f"{fixed}, or {raising}",
                otherwise=raising,
            ),
            error.result,
        ) from None
