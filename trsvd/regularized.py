"""Regularized updates ``argmin_D <G, D> + lam * gauge(D)^2``, for a gauge of a ball.

Names and formulas: *Neon: Nuclear Norm to Beat Muon* (poster by the authors of arXiv:2512.09678).
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import describe
from trsvd._oracles.result import LMOResult, LowRankTerm, as_start
from trsvd._solve.result import Subspace
from trsvd._solve.svds import svds_above
from trsvd._validate import check_number
from trsvd.balls import Ball, NuclearBall
from trsvd.methods import Method
from trsvd.operators import MatrixOperator, as_operator

__all__ = ["f_star_neon", "f_star_threshold", "nuclear_neon", "regularized_update"]


def _check_lam(lam: float) -> float:
    lam = check_number("lam", lam)
    if not (math.isfinite(lam) and lam > 0):
        raise ValueError(
            f"lam={lam}; the weight of the regularization must be a finite positive number"
        )
    return lam


def regularized_update(ball: Ball, G: Any, lam: float, **options: Any) -> LMOResult:
    """Return ``argmin_D <G, D> + lam * gauge(D)^2``, a multiple of the oracle's update.

    If the oracle attains ``a <= support(G)``, its update is multiplied by ``a / (2 lam)``. The
    objective is then at most ``-a^2 / (4 lam)``; its minimum is ``-support(G)^2 / (4 lam)``.

    Parameters
    ----------
    ball : Ball
        The ball of the gauge.
    G : array, sparse matrix or operator of shape (m, n)
        The gradient.
    lam : float
        Positive.
    **options
        Options of `Ball.lmo`; ``gap`` is the gap of the oracle.

    Returns
    -------
    LMOResult
        ``support`` is ``-<G, D>``. ``gap`` is the relative distance of the objective from its
        minimum: ``2 g - g^2`` for a gap g of the oracle. For the minimizer, ``-<G, D>`` lies
        between ``support`` and ``support / (1 - gap)``.

    Raises
    ------
    TypeError, ValueError
        As `Ball.lmo`. Also if ball is not a ball, or lam is not a finite positive number.

    See Also
    --------
    nuclear_neon, f_star_neon

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> D = trsvd.regularized_update(trsvd.FrobeniusBall(), np.array([[3.0, 4.0]]), 0.5)
    >>> D.update
    array([[-3., -4.]])
    """
    given: Any = ball
    if not isinstance(given, Ball):
        raise TypeError(
            f"ball is {describe(given)}; pass one of trsvd.balls, as trsvd.NuclearBall()"
        )
    lam = _check_lam(lam)
    answer = ball.lmo(G, **options)
    update = answer.times(answer.support / (2 * lam))
    return replace(update, gap=answer.gap * (2 - answer.gap))


def nuclear_neon(G: Any, lam: float, **options: Any) -> LMOResult:
    """Return ``-(s_1 / (2 lam)) u_1 v_1^H``, the `regularized_update` of the nuclear norm.

    Parameters
    ----------
    G : array, sparse matrix or operator of shape (m, n)
        The gradient.
    lam : float
        Positive.
    **options
        Options of `Ball.lmo`.

    Returns
    -------
    LMOResult
        Update of rank one; ``support`` and ``gap`` as for `regularized_update`.

    See Also
    --------
    regularized_update, f_star_neon, trsvd.optim.nuclear_neon

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> trsvd.nuclear_neon(np.diag([4.0, 1.0]), 0.5).update.round(6) + 0.0
    array([[-4.,  0.],
           [ 0.,  0.]])
    """
    return regularized_update(NuclearBall(), G, lam, **options)


def f_star_threshold(S: HostArray) -> float:
    """Return the root tau of ``sum_i max(s_i - tau, 0) = tau``.

    With ``c_j = s_1 + ... + s_j``, tau is ``c_j / (j + 1)`` for the j with
    ``s_j > tau >= s_{j+1}``.

    Parameters
    ----------
    S : array of shape (r,)
        Singular values, descending; those above tau are sufficient.

    Examples
    --------
    >>> import numpy as np
    >>> f_star_threshold(np.array([3.0, 2.0, 1.0]))
    1.6666666666666667
    """
    S = np.asarray(S, dtype=np.float64)
    j = int(np.sum(_above_threshold(S)))
    return float(S[:j].sum() / (j + 1))


def _above_threshold(S: HostArray) -> HostArray:
    """Return a mask of the values above the threshold tau: ``s_j (j + 1) > c_j``."""
    j = np.arange(1, len(S) + 1)
    return np.asarray(S * j > np.cumsum(S) - S, dtype=np.bool_)


def f_star_neon(
    G: Any,
    lam: float,
    *,
    tol: float | None = None,
    start: Any = None,
    method: str | Method | None = None,
    rng: int | np.random.Generator | None = None,
) -> LMOResult:
    """F*-Neon: ``-(1/lam) U max(S - tau, 0) V^H`` with ``sum_i max(s_i - tau, 0) = tau``.

    The minimizer of ``<G, D> + lam * gauge(D)^2`` for ``gauge(D)^2 = (||D||_*^2 + ||D||_F^2) / 2``,
    the *quadratic* mean of the nuclear and the Frobenius norm. (The text of the poster says
    arithmetic mean, which has a different condition on tau.)

    Parameters
    ----------
    G : array, sparse matrix or operator of shape (m, n)
        The gradient.
    lam : float
        Positive.
    tol, start, method, rng
        As for `trsvd.svds_above`. Only the triplets above the threshold are computed. ``start``
        may be the result of an earlier call.

    Returns
    -------
    LMOResult
        ``support`` is ``-<G, D>``. ``gap`` is its relative change, to first order, by the errors of
        the singular values. The rank is the number of singular values above tau.

    See Also
    --------
    regularized_update, nuclear_neon, trsvd.optim.f_star_neon

    Examples
    --------
    >>> import numpy as np
    >>> f_star_neon(np.diag([3.0, 2.0, 1.0]), 1.0).update.round(3) + 0.0
    array([[-1.333,  0.   ,  0.   ],
           [ 0.   , -0.333,  0.   ],
           [ 0.   ,  0.   ,  0.   ]])
    """
    lam = _check_lam(lam)
    op = as_operator(G)
    # Triplets in the compute dtype, since s_1 may be out of the range of the dtype of G.
    result = svds_above(
        _in_compute_dtype(op),
        _above_threshold,
        tol=tol,
        start=as_start(start),
        method=method,
        rng=rng,
    )
    arrays = op.arrays
    S = arrays.get(result.S).astype(np.float64)
    tau = f_star_threshold(S) if len(S) else 0.0
    shrunk = np.maximum(S - tau, 0.0)
    largest = float(shrunk[0]) if len(S) and shrunk[0] > 0 else 1.0
    U = result.U * arrays.put(shrunk / largest)[None, :]
    term = LowRankTerm(-largest / lam, U, result.Vh, arrays)
    with np.errstate(over="ignore"):  # inf if <G, D> is out of range, though D is not
        support = float(np.sum(shrunk * S)) / lam
    return LMOResult(
        terms=(term,),
        support=support,
        gap=_relative_gap(result.residuals, S, tau),
        gap_kind="exact" if result.state.run.exact else "estimate",
        subspace=Subspace(result.U, result.Vh),
        matvecs=result.matvecs + result.matvecs_verify,
        passes=result.passes,
        status=result.status,
    )


def _in_compute_dtype(op: MatrixOperator) -> MatrixOperator:
    """Return the operator with results in the compute dtype, not rounded to half precision."""
    twin = copy(op)
    twin.arrays = replace(op.arrays, out_dtype=op.arrays.dtype)
    return twin


def _relative_gap(residuals: HostArray, S: HostArray, tau: float) -> float:
    """Return a first-order bound of the relative change of ``<G, D>`` by errors of S."""
    if not len(S) or not S[0] > 0:
        return 0.0
    share = S / S[0]
    return float(2 * np.sum(residuals * share) / np.sum(np.maximum(share - tau / S[0], 0) * share))
