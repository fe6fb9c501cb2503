"""The gauge of the sum of two orthogonally invariant balls.

``min { max(||Z||_1 / a, ||X - Z||_2 / b) : Z }`` is attained by a Z with the singular vectors of X
(von Neumann's trace inequality), so that it is a problem on the singular values: with the Frobenius
ball a projection, otherwise a linear program.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize

from trsvd._arrays import HostArray

__all__ = ["sum_gauge"]


def sum_gauge(parts: list[tuple[float, Any]], S: HostArray) -> float:
    """Gauge of ``sum_i a_i B_i`` at a matrix with singular values S.

    Parameters
    ----------
    parts : list of (float, Ball)
        Radii and balls.
    S : array of shape (r,)
        Descending.

    Raises
    ------
    NotImplementedError
        If a part is no function of singular values, or if there are three parts or more of which
        one is the Frobenius ball.
    """
    kinds = [type(ball).__name__ for _, ball in parts]
    known = {"FrobeniusBall", "KyFanDualBall", "KyFanBall", "SpectralBall"}
    if not set(kinds) <= known or (len(parts) > 2 and "FrobeniusBall" in kinds):
        msg = (
            f"the gauge of a sum of {', '.join(kinds)} has no closed form and is not computed; "
            "support and lmo of the sum are"
        )
        raise NotImplementedError(msg)
    if not S[0] > 0:
        return 0.0
    scale = float(S[0])
    S = np.asarray(S, dtype=np.float64) / scale
    if kinds.count("FrobeniusBall") == len(parts):
        return scale * float(np.linalg.norm(S)) / sum(radius for radius, _ in parts)
    if "FrobeniusBall" in kinds:
        at = kinds.index("FrobeniusBall")
        return scale * _with_frobenius(parts[1 - at], parts[at][0], S)
    return scale * _linear_program(parts, S)


def _faces(ball: Any, r: int) -> tuple[float, float, int]:
    """(bound on each value, bound on the sum of the leading j, j) that describe the unit ball."""
    kind = type(ball).__name__
    if kind == "SpectralBall":
        return 1.0, np.inf, r
    if kind == "KyFanDualBall":
        return 1.0, float(min(ball.k, r)), r
    return np.inf, 1.0, min(ball.k, r)


def _with_frobenius(part: tuple[float, Any], radius: float, S: HostArray) -> float:
    """The least t for which the distance of S to ``t a B`` is at most ``t b``."""
    a, ball = part
    upper = float(min(ball.gauge_of_values(S) / a, np.linalg.norm(S) / radius))

    def excess(t: float) -> float:
        return float(np.linalg.norm(S - _project(ball, S, t * a))) - t * radius

    if excess(upper) >= 0:
        return upper
    return float(scipy.optimize.brentq(excess, 0.0, upper, xtol=1e-15, rtol=1e-14))


def _project(ball: Any, S: HostArray, t: float) -> HostArray:
    """Euclidean projection of non-negative values onto ``t`` times the ball."""
    if t == 0:
        return np.zeros_like(S)
    top, total, j = _faces(ball, len(S))
    if np.isfinite(top):
        return _clipped(S, t * top, t * total)
    return _project_ky_fan(S, t * total, j)


def _clipped(S: HostArray, top: float, total: float) -> HostArray:
    """Nearest point with ``0 <= z_i <= top`` and ``sum z <= total``."""

    def at(shift: float) -> HostArray:
        return np.clip(S - shift, 0.0, top)

    if at(0.0).sum() <= total:
        return at(0.0)
    shift = scipy.optimize.brentq(
        lambda x: float(at(x).sum() - total), 0.0, float(S.max()), xtol=1e-16, rtol=1e-15
    )
    return at(float(shift))


def _project_ky_fan(S: HostArray, total: float, j: int) -> HostArray:
    """Nearest point whose j largest entries sum to at most ``total``.

    By Moreau's decomposition it is S less its projection onto ``lam`` times the dual ball, for the
    multiplier lam at which the constraint holds with equality.
    """
    if S[:j].sum() <= total:
        return S

    def rest(lam: float) -> HostArray:
        return S - _clipped(S, lam, lam * j)

    upper = float(max(S[0], S.sum() / j))
    lam = scipy.optimize.brentq(
        lambda x: float(-np.sort(-rest(x))[:j].sum() - total), 0.0, upper, xtol=1e-16
    )
    return rest(float(lam))


def _linear_program(parts: list[tuple[float, Any]], S: HostArray) -> float:
    """Minimize t over ``z_i in t a_i B_i`` with ``sum_i z_i = S``, each z descending, positive."""
    r, p = len(S), len(parts)
    columns = 1 + p * r
    rows = []
    for i, (a, ball) in enumerate(parts):
        top, total, j = _faces(ball, r)
        at = 1 + i * r
        order = np.zeros((r - 1, columns))
        order[np.arange(r - 1), at + np.arange(r - 1)] = -1
        order[np.arange(r - 1), at + np.arange(1, r)] = 1
        faces = np.zeros((2, columns))
        if np.isfinite(top):
            faces[0, [0, at]] = [-a * top, 1.0]
        if np.isfinite(total):
            faces[1, 0], faces[1, at : at + j] = -a * total, 1.0
        rows += [order, faces]
    equal = np.hstack([np.zeros((r, 1)), np.tile(np.eye(r), p)])
    cost = np.zeros(columns)
    cost[0] = 1.0
    limits = np.vstack(rows)
    answer = scipy.optimize.linprog(cost, limits, np.zeros(len(limits)), equal, S, method="highs")
    if answer.status != 0:
        msg = f"the linear program for the gauge was not solved: {answer.message}"
        raise RuntimeError(msg)
    return float(answer.fun)
