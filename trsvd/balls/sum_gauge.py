"""Gauge of a sum of unitarily invariant balls.

``min { max(||Z||_1 / a, ||X - Z||_2 / b) : Z }`` is attained by a Z with the singular vectors of X
(von Neumann's trace inequality). It is therefore a problem in the singular values: a projection for
the Frobenius ball, and otherwise a linear program.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # imports `scipy.optimize`, which takes longer than trsvd, on first use

from trsvd._arrays.arrays import HostArray


@dataclass(frozen=True)
class _Faces:
    """Ball ``s_1 <= top``, ``s_1 + ... + s_j <= total``; one of the bounds may be inf."""

    top: float
    total: float
    j: int

    def gauge(self, S: HostArray) -> float:
        """Return the gauge at descending values."""
        return float(max(S[0] / self.top, S[: self.j].sum() / self.total))


_FROBENIUS = _Faces(0.0, 0.0, 0)  # stands for the Frobenius ball, which has no faces


def sum_gauge(parts: list[tuple[float, Any]], shape: tuple[int, int], S: HostArray) -> float:
    """Gauge of ``sum_i a_i B_i`` at a matrix with singular values S.

    Parameters
    ----------
    parts : list of (float, Ball)
        Radii and balls.
    shape : tuple of int
        Shape of the matrix.
    S : array of shape (r,)
        Singular values, descending.

    Raises
    ------
    NotImplementedError
        If a part is neither of Ky Fan type nor the Frobenius ball, or if the Frobenius ball is
        added to two others.
    """
    radii: dict[_Faces, float] = {}
    for radius, ball in parts:
        found = _described(ball, shape)
        if found is None:
            raise NotImplementedError(_refused(parts))
        factor, faces = found
        radii[faces] = radii.get(faces, 0.0) + radius * factor  # a B + b B = (a + b) B
    if len(radii) > 2 and _FROBENIUS in radii:
        raise NotImplementedError(_refused(parts))
    if not S[0] > 0:
        return 0.0
    scale = float(S[0])
    S = np.asarray(S, dtype=np.float64) / scale
    round_ball = radii.pop(_FROBENIUS, None)
    polytopes = [(radius, faces) for faces, radius in radii.items()]
    if round_ball is None:
        if len(polytopes) == 1:
            return scale * polytopes[0][1].gauge(S) / polytopes[0][0]
        return scale * _linear_program(polytopes, S)
    if not polytopes:
        return scale * float(np.linalg.norm(S)) / round_ball
    return scale * _with_frobenius(polytopes[0], round_ball, S)


def _refused(parts: list[tuple[float, Any]]) -> str:
    kinds = ", ".join(type(ball).__name__ for _, ball in parts)
    return (
        f"the gauge of a sum of {kinds} is not computed; support and lmo of the sum are (a sum of "
        "Ky Fan, nuclear, spectral and RMS balls has a gauge, and of one of them and a Frobenius "
        "ball)"
    )


def _described(ball: Any, shape: tuple[int, int]) -> tuple[float, _Faces] | None:
    """Return radius and `_Faces` of a ball; None if it is not of Ky Fan type or Frobenius."""
    r, kind = min(shape), type(ball).__name__
    spectral, nuclear = _Faces(1.0, math.inf, r), _Faces(1.0, 1.0, r)
    if kind == "SchattenBall":
        known = {1.0: nuclear, 2.0: _FROBENIUS, math.inf: spectral}
        return (1.0, known[ball.p]) if ball.p in known else None
    if kind == "FrobeniusBall":
        return 1.0, _FROBENIUS
    if kind == "SpectralBall":
        return 1.0, spectral
    if kind == "RMSBall":
        return math.sqrt(shape[0] / shape[1]), spectral
    if kind == "KyFanDualBall":
        return 1.0, spectral if ball.k >= r else _Faces(1.0, float(ball.k), r)
    if kind == "KyFanBall":
        if ball.k >= r:
            return 1.0, nuclear
        return 1.0, spectral if ball.k == 1 else _Faces(math.inf, 1.0, ball.k)
    return None


def _with_frobenius(part: tuple[float, _Faces], radius: float, S: HostArray) -> float:
    """Return the least t for which the distance of S to ``t a B`` is at most ``t b``."""
    a, faces = part
    upper = min(faces.gauge(S) / a, float(np.linalg.norm(S)) / radius)

    def excess(t: float) -> float:
        return float(np.linalg.norm(S - _project(faces, S, t * a))) - t * radius

    if excess(upper) >= 0:
        return upper
    return float(scipy.optimize.brentq(excess, 0.0, upper, xtol=1e-15, rtol=1e-14))


def _project(faces: _Faces, S: HostArray, t: float) -> HostArray:
    """Project non-negative values onto ``t`` times the ball."""
    if t == 0:
        return np.zeros_like(S)
    if math.isfinite(faces.top):
        return _clipped(S, t * faces.top, t * faces.total)
    return _project_kyfan(S, t * faces.total, faces.j)


def _clipped(S: HostArray, top: float, total: float) -> HostArray:
    """Return the nearest point with ``0 <= z_i <= top`` and ``sum z <= total``."""

    def at(shift: float) -> HostArray:
        return np.clip(S - shift, 0.0, top)

    if at(0.0).sum() <= total:
        return at(0.0)
    shift = scipy.optimize.brentq(
        lambda x: float(at(x).sum() - total), 0.0, float(S.max()), xtol=1e-16, rtol=1e-15
    )
    return at(float(shift))


def _project_kyfan(S: HostArray, total: float, j: int) -> HostArray:
    """Return the nearest point whose j largest entries sum to at most ``total``.

    By Moreau's decomposition it is S minus its projection onto ``lam`` times the dual ball, with
    the multiplier lam for which the constraint holds with equality.
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


def _linear_program(parts: list[tuple[float, _Faces]], S: HostArray) -> float:
    """Minimize t for ``z_i in t a_i B_i``, ``sum_i z_i = S`` and descending non-negative z_i."""
    r, p = len(S), len(parts)
    columns = 1 + p * r
    rows = []
    for i, (a, part) in enumerate(parts):
        at = 1 + i * r
        order = np.zeros((r - 1, columns))
        order[np.arange(r - 1), at + np.arange(r - 1)] = -1
        order[np.arange(r - 1), at + np.arange(1, r)] = 1
        faces = np.zeros((2, columns))
        if math.isfinite(part.top):
            faces[0, [0, at]] = [-a * part.top, 1.0]
        if math.isfinite(part.total):
            faces[1, 0], faces[1, at : at + part.j] = -a * part.total, 1.0
        rows += [order, faces]
    equal = np.hstack([np.zeros((r, 1)), np.tile(np.eye(r), p)])
    cost = np.zeros(columns)
    cost[0] = 1.0
    limits = np.vstack(rows)
    answer = scipy.optimize.linprog(cost, limits, np.zeros(len(limits)), equal, S, method="highs")
    if answer.status != 0:
        raise RuntimeError(f"the linear program for the gauge was not solved: {answer.message}")
    return float(answer.fun)
