"""Timing of single calls in the race, and measured ceilings of the machine."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from race.matrices import Subject

_SHORT = 0.02
"""Seconds; shorter calls are timed several at a time, together about this long."""

_MOST = 500


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of one call, and its result."""
    gc.disable()
    try:
        started = time.perf_counter()
        value = call()
        return time.perf_counter() - started, value
    finally:
        gc.enable()


def sample(call: Callable[[], Any], expected: float) -> tuple[float, Any]:
    """Return the seconds of a call with a known approximate duration.

    Parameters
    ----------
    call : callable
        Function without arguments.
    expected : float
        Approximate duration in seconds.

    Returns
    -------
    float
        Seconds of the call. For short calls, the mean of several in a row, after one call that
        fills the caches.
    object
        Result of the last call.
    """
    if expected >= _SHORT:
        return timed(call)
    count = max(1, min(_MOST, int(_SHORT / max(expected, 1e-9))))
    call()

    def repeated() -> Any:
        for _ in range(count - 1):
            call()
        return call()

    seconds, value = timed(repeated)
    return seconds / count, value


class Ceilings:
    """Measured upper limits of the speed of products on this machine, kept for one matrix.

    Notes
    -----
    A run makes ``passes`` products with blocks, ``products`` products in vectors. It cannot be
    faster than the larger of two times. The first is that of reading A once for every two passes,
    since ``A^H (A X)`` is possible in one reading. The second is that of its operations, at the
    rate of a large matrix product (dense) or of a product with 64 columns (sparse).
    """

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}
        self._of_matrix: tuple[Subject, float, float] | None = None

    def gemm(self, dtype: str) -> float:
        """Return the operations per second of a product of square matrices."""
        if dtype not in self._rates:
            self._rates[dtype] = _rate_of_products(dtype)
        return self._rates[dtype]

    def reading(self, one: Subject) -> tuple[float, float]:
        """Return the seconds of a product with a vector, and per column of a product with many."""
        if self._of_matrix is None or self._of_matrix[0] is not one:
            self._of_matrix = (one, *self._measured(one))
        return self._of_matrix[1:]

    def _measured(self, one: Subject) -> tuple[float, float]:
        m, n = one.size
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal(n), rng.standard_normal(m)
        x, y = x.astype(one.A.dtype), y.astype(one.A.dtype)
        single = min(_best(lambda: one.A @ x, 5), _best(lambda: one.A.T @ y, 5))
        column = 2 * one.entries / self.gemm(str(one.A.dtype))
        if one.sparse:
            X = rng.standard_normal((n, 64)).astype(one.A.dtype)
            column = min(single, _best(lambda: one.A @ X, 3) / 64)
        return single, column

    def share(self, one: Subject, products: int, passes: int, seconds: float) -> float:
        """Return the fraction of the ceiling that a run reached.

        If it is clearly above 1, another program ran while the rates were measured. They are then
        measured again, and the better ones are kept.
        """
        if self.least(one, products, passes) > 1.05 * seconds:
            dtype, before = str(one.A.dtype), self.reading(one)
            self._rates[dtype] = max(self.gemm(dtype), _rate_of_products(dtype))
            single, column = self._measured(one)
            self._of_matrix = (one, min(single, before[0]), min(column, before[1]))
        return self.least(one, products, passes) / seconds

    def least(self, one: Subject, products: int, passes: int) -> float:
        """Return a lower bound of the seconds of a run."""
        single, column = self.reading(one)
        return max(passes / 2 * single, products * column)

    def of_full_svd(self, one: Subject) -> float:
        """Return the seconds of ``4 m n min(m, n)`` operations."""
        m, n = one.size
        return 4 * m * n * one.rank / self.gemm(str(one.A.dtype))


def _rate_of_products(dtype: str) -> float:
    n = 1536
    X = np.random.default_rng(0).standard_normal((n, n)).astype(dtype)
    return 2 * n**3 / _best(lambda: X @ X, 5)


def _best(call: Callable[[], Any], repeats: int) -> float:
    call()
    return min(timed(call)[0] for _ in range(repeats))
