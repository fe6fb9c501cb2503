"""Leading triplets of small matrices in host memory, in one compiled call (small.c).

The extension is optional: without it, or with ``TRSVD_COMPILED=0``, everything is computed in the
general way. It handles contiguous arrays of float32 and float64, and reports what it cannot settle.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

HostArray = np.ndarray[Any, np.dtype[Any]]

_leading: Any = None
if os.environ.get("TRSVD_COMPILED") != "0":
    with suppress(ImportError):  # not built, or the integers of SciPy have 64 bits
        from trsvd._compiled import _small  # type: ignore[attr-defined]

        _leading = _small.leading

# The numbers of small.c about a matrix, in the order of its enums.
STATUS, STEPS, ESTIMATE, CHECK_STEPS, CERTIFICATE, ENERGY, STARTED, _COUNT = range(8)
ACCEPTED, REFUSED = 1, 2
CERTIFICATES = ("unchecked", "probable", "random start", "norm", "exact")
RANDOM_START, EXACT = 2, 4


class Ended(IntEnum):
    """How the call ended for a matrix; all but CONVERGED are left to the general way."""

    CONVERGED = 0
    FLAT = 1
    NOT_CONVERGED = 2
    MISSED = 3
    DEFICIENT = 4
    OUT_OF_RANGE = 5
    FAILED = 6
    NO_MEMORY = 7


@dataclass(frozen=True)
class Job:
    """What a call computes.

    Attributes
    ----------
    k, want : int
        Number of triplets that must be accurate, and of those to return.
    most : int
        Largest number of Lanczos steps; 0 for a full SVD.
    flat_gives_way : bool
        True if a factorization is faster for a flat spectrum.
    tol : float
        Largest relative residual; or with ``by_gap`` the relative gap of the sum of k values.
    by_gap : bool
        See ``tol``.
    check : int
        Number of steps of the check for missed values; 0 for a twentieth of the products.
    check_most : int
        Largest number of these steps; 0 for no check.
    check_loose : int
        With a loose tolerance, largest number of steps until the largest remaining value is known
        to it; 0 otherwise.
    missed_gap : float
        Relative gap that a missed value may cause.
    start_tol : float
        Tolerance at which a random start cannot hide a component, for k = 1.
    """

    k: int
    want: int
    most: int
    flat_gives_way: bool
    tol: float
    by_gap: bool
    check: int
    check_most: int
    check_loose: int
    missed_gap: float
    start_tol: float


def available() -> bool:
    """True if the extension was built and is wanted."""
    return _leading is not None


def leading(
    A: HostArray, job: Job, seed: int, start: HostArray | None = None
) -> tuple[HostArray, HostArray, HostArray, HostArray, HostArray]:
    """Return U, S, Vh, residuals and numbers of each matrix of a batch.

    Parameters
    ----------
    A : array of shape (count, m, n)
        Matrices in C order; or one matrix, of shape (1, m, n), in Fortran order.
    job : Job
        What is computed.
    seed : int
        Seed of the random vectors, ``0 <= seed < 2**64``.
    start : array of shape (want, n), optional
        Rows near the right singular vectors, in C order and the dtype of A. They are the answer if
        they meet the tolerance, and are not used otherwise.

    Returns
    -------
    U, S, Vh : arrays of shape (count, m, want), (count, want), (count, want, n)
        S is in float64. Undefined for a matrix whose status is not CONVERGED.
    residuals : array of shape (count, k)
        Relative residuals; zeros with ``by_gap``.
    numbers : array of shape (count, 7)
        See the names above.
    """
    count, m, n = A.shape
    by_rows = A.flags.c_contiguous
    p, q = (n, m) if by_rows else (m, n)
    left_is_long = m > n if by_rows else m >= n
    want = job.want
    S = np.empty((count, want))
    U, Vh = np.empty((count, want, m), A.dtype), np.empty((count, want, n), A.dtype)
    residuals, numbers = np.zeros((count, job.k)), np.empty((count, _COUNT))
    longer, shorter = (U, Vh) if left_is_long else (Vh, U)
    _leading(
        "s" if A.dtype.itemsize == 4 else "d",
        count,
        p,
        q,
        job.k,
        want,
        job.most,
        job.flat_gives_way,
        job.by_gap,
        left_is_long,
        job.check,
        job.check_most,
        job.check_loose,
        job.tol,
        job.missed_gap,
        job.start_tol,
        seed,
        A if by_rows else A.T,
        b"" if start is None else start,
        longer,
        S,
        shorter,
        residuals,
        numbers,
    )
    return U.swapaxes(1, 2), S, Vh, residuals, numbers
