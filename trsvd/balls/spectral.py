"""Balls of unitarily invariant norms: Ky Fan, its dual, spectral, RMS and Schatten."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import HostArray, is_array
from trsvd._arrays.dtypes import describe, is_sparse, split_power
from trsvd._oracles.batched import all_leading_pairs
from trsvd._oracles.leading_pairs import LeadingPairs, leading_pairs
from trsvd._oracles.options import Options
from trsvd._oracles.polar import polar_minimizer, whole_method
from trsvd._oracles.result import LMOResult, LowRankTerm
from trsvd._solve.svds import leading_values, singular_values
from trsvd._validate import check_number
from trsvd.balls.base import Ball
from trsvd.operators import as_operator
from trsvd.operators.counting import Metered
from trsvd.polar.methods import PolarIteration

# Smaller singular values have too few digits, since denormal numbers have a fixed spacing.
_LEAST = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)


def _check_k(k: int) -> None:
    try:
        value = operator.index(k)
    except TypeError:
        raise TypeError(f"k={k!r} is not an integer") from None
    if isinstance(k, bool) or value < 1:
        raise ValueError(f"k={k}; a Ky Fan norm takes an integer of at least 1")


@dataclass(frozen=True)
class KyFanDualBall(Ball):
    """Unit ball of the dual of the Ky Fan k-norm, the ball of Fanion-k.

    ``gauge(X) = max(s_1, sum_i s_i / k)``, ``support(G) = s_1 + ... + s_k`` (the Ky Fan k-norm),
    ``lmo(G) = -U_k V_k^H``. For k = 1 it is the nuclear ball (Neon), for k >= min(m, n) the
    spectral ball (Muon).

    Parameters
    ----------
    k : int
        At least 1.

    See Also
    --------
    kyfan_dual_lmo, KyFanBall, kyfan_dual_norm, trsvd.optim.fanion

    Notes
    -----
    If G has rank q < k, the minimizer of least rank, ``-U_q V_q^H``, is returned. Singular values
    ``s_i <= max(m, n) eps s_1`` count as zero.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> G = np.diag([3.0, 2.0, 1.0])
    >>> ball = trsvd.KyFanDualBall(2)
    >>> round(ball.support(G), 12)
    5.0
    >>> ball.lmo(G).update.round(12) + 0.0
    array([[-1.,  0.,  0.],
           [ 0., -1.,  0.],
           [ 0.,  0.,  0.]])
    """

    k: int

    def __post_init__(self) -> None:
        _check_k(self.k)

    def support(self, G: Any) -> float:
        """``s_1 + ... + s_k``."""
        return float(leading_values(G, self.k).sum())

    def gauge(self, X: Any) -> float:
        """``max(s_1, sum_i s_i / k)``."""
        S = singular_values(X)
        return float(max(S[0], S.sum() / min(self.k, len(S))))

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """``-U_k V_k^H``; see `Ball.lmo`."""
        k = min(self.k, *_shape(G))
        if isinstance(options.method, PolarIteration):
            if k < min(_shape(G)):
                raise ValueError(
                    f"{options.method} computes the polar factor, all min(m, n) = "
                    f"{min(_shape(G))} pairs, and k is {k}; name a method of trsvd.svds, or None"
                )
            return _polar(G, options, 1.0)
        return _result(leading_pairs(G, k, options), -1.0)

    def _minimize_all(
        self, matrices: list[Any], starts: list[Any], options: Options
    ) -> list[LMOResult]:
        """Compute `_minimize` of each matrix, those of one shape together."""
        if isinstance(options.method, PolarIteration):
            return super()._minimize_all(matrices, starts, options)
        for G in matrices:
            _shape(G)
        found = all_leading_pairs(matrices, self.k, starts, options)
        return [_result(pairs, -1.0) for pairs in found]


def NuclearBall() -> KyFanDualBall:  # noqa: N802 - an alias that reads as the ball it makes
    """Unit ball of the nuclear norm, the ball of Neon: `KyFanDualBall` with k = 1.

    Returns
    -------
    KyFanDualBall

    See Also
    --------
    KyFanDualBall, nuclear_lmo, nuclear_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.NuclearBall()
    >>> G = np.diag([3.0, 2.0])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (3.0, 3.0)
    """
    return KyFanDualBall(1)


@dataclass(frozen=True)
class KyFanBall(Ball):
    """Unit ball of the Ky Fan k-norm.

    ``gauge(X) = s_1 + ... + s_k``, ``support(G) = max(s_1, sum_i s_i / k)``; ``lmo(G)`` is
    ``-u_1 v_1^H`` if ``s_1 >= sum_i s_i / k``, and ``-U V^H / k`` otherwise.

    Parameters
    ----------
    k : int
        At least 1. For k >= min(m, n) it is the nuclear ball.

    See Also
    --------
    KyFanDualBall, kyfan_lmo, kyfan_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.KyFanBall(2)
    >>> G = np.diag([3.0, 2.0, 2.0])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (3.5, 3.5)
    """

    k: int

    def __post_init__(self) -> None:
        _check_k(self.k)

    def support(self, G: Any) -> float:
        """``max(s_1, sum_i s_i / k)``."""
        return KyFanDualBall(self.k).gauge(G)

    def gauge(self, X: Any) -> float:
        """``s_1 + ... + s_k``."""
        return KyFanDualBall(self.k).support(X)

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """``-u_1 v_1^H`` or ``-U V^H / k``; see `Ball.lmo`.

        The choice depends on the sum of all singular values; the whole spectrum is computed.
        """
        k = min(self.k, *_shape(G))

        def minimize(scaled: Any) -> LMOResult:
            full = _whole(scaled, options)
            if len(full.S) and full.S[0] < full.S.sum() / k:
                return _result(full, -1.0 / k)
            return _result(_first(full), -1.0)

        return _in_range(G, minimize)


@dataclass(frozen=True)
class SpectralBall(Ball):
    """Unit ball of the spectral norm, the ball of Muon.

    ``gauge(X) = s_1``, ``support(G) = sum_i s_i``, ``lmo(G) = -U V^H`` (minus the polar factor).

    See Also
    --------
    RMSBall, spectral_lmo, NewtonSchulz, PolarExpress

    Notes
    -----
    The oracle has these methods, in addition to those of `trsvd.svds`:

    - ``"exact"`` (the default) and ``"svd"``: full SVD.
    - ``"gram"``: ``G (G^H G)^(-1/2)`` from the eigenvalues of the Gram matrix of the smaller side,
      in double precision. If small singular values are lost in the Gram matrix, a full SVD follows.
    - ``"newton-schulz"``, ``"polar-express"``, or an object `NewtonSchulz` or `PolarExpress`:
      products only, in a selectable precision. The result is divided by a bound of its largest
      singular value, so that it lies in the ball. The gap is a bound; if the products are in half
      precision, it is an estimate. If a requested ``gap`` is missed, there is a
      `ConvergenceWarning`, or with ``certify=True`` a full SVD.

    ``gap`` has an effect for iterations only, and ``start`` has none.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.SpectralBall()
    >>> G = np.diag([3.0, 2.0])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (5.0, 5.0)
    """

    def support(self, G: Any) -> float:
        """``sum_i s_i``."""
        return float(singular_values(G).sum())

    def gauge(self, X: Any) -> float:
        """``s_1``."""
        return float(leading_values(X, 1)[0])

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """``-U V^H``; see `Ball.lmo`."""
        return _polar(G, options, 1.0)


@dataclass(frozen=True)
class RMSBall(Ball):
    """Unit ball of the RMS-to-RMS operator norm: Muon with its shape scaling.

    ``gauge(X) = sqrt(n / m) s_1``, ``support(G) = sqrt(m / n) sum_i s_i``,
    ``lmo(G) = -sqrt(m / n) U V^H``. The oracle has the methods of `SpectralBall`.

    See Also
    --------
    SpectralBall, rms_lmo, rms_norm

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.RMSBall()
    >>> G = np.array([[3.0], [0.0], [0.0], [0.0]])
    >>> round(ball.support(G), 6), round(float(-np.vdot(G, ball.lmo(G).update)), 6)
    (6.0, 6.0)
    """

    def support(self, G: Any) -> float:
        """``sqrt(m / n) sum_i s_i``."""
        m, n = _shape(G)
        return math.sqrt(m / n) * SpectralBall().support(G)

    def gauge(self, X: Any) -> float:
        """``sqrt(n / m) s_1``."""
        m, n = _shape(X)
        return math.sqrt(n / m) * SpectralBall().gauge(X)

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """``-sqrt(m / n) U V^H``; see `Ball.lmo`."""
        m, n = _shape(G)
        return _polar(G, options, math.sqrt(m / n))


@dataclass(frozen=True)
class SchattenBall(Ball):
    """Unit ball of the Schatten p-norm.

    ``gauge(X) = (sum_i s_i^p)^(1/p)``, ``support(G) = (sum_i s_i^q)^(1/q)`` with
    ``1/p + 1/q = 1``, ``lmo(G) = -U W V^H`` with the weights ``w_i = (s_i / ||s||_q)^(q - 1)``.
    For p = 1 it is the nuclear ball, for p = 2 the Frobenius ball, and for p = inf the spectral
    ball.

    Parameters
    ----------
    p : float
        At least 1, or ``math.inf``.

    See Also
    --------
    schatten_lmo, NuclearBall, FrobeniusBall, SpectralBall

    Notes
    -----
    For 1 < p < inf all singular triplets are computed, by an SVD or by the given method; ``gap``
    and ``start`` have no effect. For p = 1 and p = inf the options are those of `NuclearBall` and
    `SpectralBall`.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> ball = trsvd.SchattenBall(3)
    >>> ball.lmo(np.diag([4.0, 1.0])).update.round(4) + 0.0
    array([[-0.9615,  0.    ],
           [ 0.    , -0.4807]])
    >>> round(ball.support(np.diag([4.0, 1.0])), 6) == round(9 ** (2 / 3), 6)
    True
    """

    p: float

    def __post_init__(self) -> None:
        p = check_number("p", self.p)
        if not p >= 1:
            raise ValueError(
                f"p={p}; a Schatten norm takes a number of at least 1, math.inf included"
            )
        object.__setattr__(self, "p", p)

    def support(self, G: Any) -> float:
        """``(sum_i s_i^q)^(1/q)``."""
        # p / (p - 1), written so that inf is 1.
        q = math.inf if self.p == 1 else 1 + 1 / (self.p - 1)
        return _schatten(singular_values(G), q)

    def gauge(self, X: Any) -> float:
        """``(sum_i s_i^p)^(1/p)``."""
        return _schatten(singular_values(X), self.p)

    def _minimize(self, G: Any, options: Options) -> LMOResult:
        """``-U W V^H``; see `Ball.lmo`."""
        if self.p == 1:
            return NuclearBall()._minimize(G, options)
        if self.p == math.inf:
            return SpectralBall()._minimize(G, options)
        _shape(G)
        return _in_range(G, lambda scaled: self._minimize_scaled(scaled, options))

    def _minimize_scaled(self, G: Any, options: Options) -> LMOResult:
        """Compute `_minimize` of a matrix with singular values in the range of its dtype."""
        pairs = _whole(G, options)
        if not len(pairs.S):
            return _result(pairs, -1.0)
        # ||s||_q^(q - 1) is the p-norm of these powers; dividing by it gives weights of p-norm 1.
        powers = (pairs.S / pairs.S[0]) ** (1 / (self.p - 1))
        weights = powers / _schatten(powers, self.p)
        weighted = replace(
            pairs,
            U=pairs.U * pairs.arrays.put(weights)[None, :],
            attained=float(np.sum(weights * pairs.S)),
        )
        return _result(weighted, -1.0)


def _schatten(S: HostArray, p: float) -> float:
    """Return the p-norm of non-negative numbers, without overflow or underflow."""
    largest = float(S.max())
    if p == math.inf or largest == 0:
        return largest
    return float(largest * np.sum((S / largest) ** p) ** (1 / p))


def _shape(G: Any) -> tuple[int, int]:
    shape = getattr(admitted(G), "shape", None)
    if shape is None or len(shape) != 2:
        raise ValueError(
            f"{describe(G)} is not a matrix; a ball takes an array or operator with 2 dimensions"
        )
    if 0 in tuple(shape):
        raise ValueError(f"G has shape {tuple(shape)}; a ball takes a matrix with rows and columns")
    return int(shape[0]), int(shape[1])


def _polar(G: Any, options: Options, radius: float) -> LMOResult:
    """Return ``-radius U V^H`` by the requested method."""
    _shape(G)

    def minimize(scaled: Any) -> LMOResult:
        return polar_minimizer(
            scaled, options, radius, lambda given: _result(_whole(scaled, given), -radius)
        )

    return _in_range(G, minimize)


def _in_range(G: Any, minimize: Callable[[Any], LMOResult]) -> LMOResult:
    """Return the minimizer of G, from a multiple of G if singular values are out of range.

    Large singular values can overflow, and denormal ones have few digits. The update is the same.
    The support is that of G, or inf if it exceeds the range of float64.
    """
    exponent = _excess_exponent(G)
    result = minimize(_times_power(G, -exponent))
    tiny = 0 < result.support < _LEAST
    if tiny:
        exponent = math.frexp(result.support)[1]
        result = minimize(_times_power(G, -exponent))
    if not exponent:
        return result
    before, after = split_power(exponent)
    return replace(result, support=result.support * before * after)


def _times_power(G: Any, exponent: int) -> Any:
    """``2**exponent * G``."""
    if not exponent:
        return G
    if is_array(G) or is_sparse(G):
        before, after = split_power(exponent)
        return G * before * after
    scaled = Metered(as_operator(G), None)
    scaled.set_scale(exponent)
    return scaled


def _excess_exponent(G: Any) -> int:
    """Return the exponent to divide G by, so that ``sqrt(m n) max abs(g_ij)`` is in range; or 0."""
    if not (is_array(G) or is_sparse(G)):
        return 0
    op = as_operator(G)
    if op.rough_norm() is not None:  # of moderate size
        return 0
    size = op.max_abs()
    if not size or not math.isfinite(size):
        return 0
    # A factor for real and imaginary parts, and a factor of 2 for rounding.
    factor = 4 * math.sqrt(math.prod(op.shape))
    _, top = math.frexp(float(op.xp.finfo(op.arrays.dtype).max))
    return max(0, math.frexp(size)[1] + math.frexp(factor)[1] - top)


def _whole(G: Any, options: Options) -> LeadingPairs:
    """Return all pairs of G, by a dense factorization unless a method is given."""
    whole = replace(options, gap=None, start=None, method=whole_method(options.method))
    return leading_pairs(G, min(_shape(G)), whole)


def _first(pairs: LeadingPairs) -> LeadingPairs:
    """Return the first of all pairs, if there is one."""
    q = min(1, len(pairs.S))
    return replace(
        pairs,
        U=pairs.U[:, :q],
        S=pairs.S[:q],
        Vh=pairs.Vh[:q, :],
        attained=float(pairs.S[:q].sum()),
    )


def _result(pairs: LeadingPairs, scale: float) -> LMOResult:
    """Return the result with update ``scale * U Vh``."""
    return LMOResult(
        terms=(LowRankTerm(scale, pairs.U, pairs.Vh, pairs.arrays),),
        support=-scale * pairs.attained,
        gap=pairs.gap,
        gap_kind=pairs.gap_kind,
        subspace=pairs.subspace,
        matvecs=pairs.matvecs,
        passes=pairs.passes,
        status=pairs.status,
        failure_probability=pairs.failure_probability,
    )
