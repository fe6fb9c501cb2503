"""Norm balls, with support function, gauge and linear minimization oracle.

A ball B has three functions::

    support(G) = max { <G, X> : X in B }          the dual norm of G
    gauge(X)   = min { t >= 0 : X in t B }        the norm of X
    lmo(G)     = argmin { <G, X> : X in B }       the update, so that <G, lmo(G)> = -support(G)

with ``<A, B> = Re tr(A^H B)``. Balls can be multiplied by numbers and added
(Minkowski sum). Support functions and minimizers are then added as well:
``lmo(a B1 + b B2) = a lmo_1 + b lmo_2``. F-Fanion-k, for example, is
``0.5 * KyFanDualBall(k) + 0.5 * FrobeniusBall()``. Formulas: A. Kravatskiy et al., The Ky Fan Norms
and Beyond, arXiv:2512.09678.
"""

from __future__ import annotations

from trsvd.balls.base import Ball, SumBall
from trsvd.balls.entrywise import ColumnBall, FrobeniusBall, MaxBall, RowBall
from trsvd.balls.spectral import (
    KyFanBall,
    KyFanDualBall,
    NuclearBall,
    RMSBall,
    SchattenBall,
    SpectralBall,
)

__all__ = [
    "Ball",
    "ColumnBall",
    "FrobeniusBall",
    "KyFanBall",
    "KyFanDualBall",
    "MaxBall",
    "NuclearBall",
    "RMSBall",
    "RowBall",
    "SchattenBall",
    "SpectralBall",
    "SumBall",
]
