"""What one compiled call computes of a small matrix: by Lanczos, or by a factorization.

Measured with one thread for 16 to 1024 rows and columns, float32 and float64, on random numbers,
s_i = 1/i and 1/sqrt(i), gradients, momenta and weights.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from trsvd._arrays.arrays import HostArray, small_on_host
from trsvd._compiled.small import Job, available
from trsvd._plan.certificate import FAILURE_PROBABILITY, LOOSE, steps_for

# Larger matrices are read once for two products by other kernels, or take longer in any case.
_LARGEST = 1 << 21  # bytes of a matrix
# Up to this min(m, n), the Gram matrix with its eigenvectors takes as long as Lanczos, and gives
# the whole spectrum; up to twice as much, it is faster if the spectrum is flat.
_GRAM = 64
# Largest k for Lanczos if the spectrum is flat, as a fraction of min(m, n), square and long.
_FLAT, _FLAT_LONG = 0.14, 0.025
# Lanczos steps at most.
_STEPS_EACH, _STEPS_MORE = 10, 120
_DEFAULT_ETA = 0.1
_ROUNDING = 10


def small_array(A: Any) -> HostArray | None:
    """Return a matrix or batch for the compiled call as an array on the host; None for others."""
    return small_on_host(A, _LARGEST) if available() else None


@lru_cache(1024)
def job_for(
    m: int,
    n: int,
    itemsize: int,
    k: int,
    tol: float,
    *,
    guards: int = 0,
    verify: bool | float = True,
    by_gap: bool = False,
    missed_gap: float = 0.0,
) -> Job | None:
    """Return what one call computes; None if the matrix is left to the general way.

    Parameters
    ----------
    m, n, itemsize : int
        Shape of the matrix, and bytes of a number.
    k : int
        Number of triplets, at most min(m, n).
    tol : float
        Largest relative residual, or with ``by_gap`` the relative gap at which to stop.
    guards : int, default 0
        Number of further triplets to return.
    verify : bool or float, default True
        Check for missed singular values, as for `trsvd.svds`.
    by_gap : bool, default False
        See ``tol``.
    missed_gap : float, default 0
        Relative gap that a missed value may cause.
    """
    rank, long = min(m, n), max(m, n)
    eps = 2.0**-23 if itemsize == 4 else 2.0**-52
    if m * n * itemsize > _LARGEST or not _ROUNDING * eps <= tol < 1:
        return None
    fine = 0 if isinstance(verify, bool) else steps_for(rank, verify, FAILURE_PROBABILITY)
    costly = 4 * k > rank or 2 * fine > rank
    direct = rank <= _GRAM or (costly and rank <= 2 * _GRAM)
    if costly and not direct:
        return None
    flat = _FLAT_LONG if long >= 2 * rank else _FLAT
    loose = verify is True and not by_gap and tol >= LOOSE
    return Job(
        k=k,
        want=min(k + guards, rank),
        most=0 if direct else min(rank, _STEPS_EACH * k + _STEPS_MORE),
        flat_gives_way=k > flat * rank,
        tol=tol,
        by_gap=by_gap,
        check=fine,
        check_most=steps_for(rank, _DEFAULT_ETA, FAILURE_PROBABILITY) if verify else 0,
        check_loose=steps_for(rank, 0.5 * tol, FAILURE_PROBABILITY) if loose else 0,
        missed_gap=missed_gap,
        start_tol=0.0 if fine else FAILURE_PROBABILITY / math.sqrt(rank),
    )


def reason_for(job: Job, m: int, n: int) -> str:
    """Return the reason for a job, a phrase for `select_method`."""
    if job.most == 0:
        return f"min(m, n) = {min(m, n)} is small: one compiled call makes a dense factorization"
    return (
        f"k = {job.k} of a {m} x {n} matrix that stays in cache: Lanczos in one compiled call "
        "costs least"
    )
