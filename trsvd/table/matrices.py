"""The matrices of the table: exact triplets to judge methods by, and the paper's figures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
import scipy.sparse.linalg

from trsvd._arrays.arrays import Arrays, HostArray
from trsvd._arrays.dtypes import is_sparse
from trsvd.operators import as_operator

SHIPPED = "momentum"
"""What the command line calls the matrix that ships with the package."""

_SHIPPED_FILE = "gpt_momentum_256x256.npy"

LARGE = 2000
"""Above this min(m, n), full decompositions take part only where they are asked for."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures that the paper reports of one method on one matrix."""

    seconds: float
    matvecs: int
    iterations: int
    err1: float
    err2: float | None


def _paper(*figures: Any) -> Figures:
    names = ("seconds", "matvecs", "iterations", "err1", "err2")
    return Figures(**dict(zip(names, figures, strict=True)))


PAPER = {
    (500, 5, "power"): _paper(0.062, 2005, 200, 9.2e-3, 9.1e-3),
    (500, 5, "rsvd"): _paper(0.017, 1170, 38, 9.8e-3, 9.6e-3),
    (500, 5, "trlan"): _paper(0.018, 131, 65, 9.6e-5, 9.4e-5),
    (500, 50, "power"): _paper(0.44, 43750, 437, 9.9e-3, 9.0e-3),
    (500, 50, "rsvd"): _paper(0.61, 6120, 50, 9.9e-3, 9.1e-3),
    (500, 50, "trlan"): _paper(0.16, 462, 231, 3.3e-7, 3.0e-7),
    (5000, 5, "power"): _paper(9.6, 9065, 906, 8.6e-3, 8.6e-3),
    (5000, 5, "rsvd"): _paper(2.1, 5640, 187, 9.7e-3, 9.7e-3),
    (5000, 5, "trlan"): _paper(0.70, 205, 102, 7.7e-3, 7.7e-3),
    (500, 500, "newton-schulz"): _paper(0.041, 27000, 27, 4.8e-3, None),
    (5000, 5000, "newton-schulz"): _paper(26.4, 290000, 29, 6.5e-3, None),
}
"""The paper's figures (arXiv:2512.09678), by size, k and method: Gaussian, square, float64."""


class Undefined(ValueError):
    """The error that rows are compared by does not exist; the message says why."""


def momentum_matrix() -> HostArray:
    """A momentum buffer from a training run: 256 x 256, float32, ships with the package.

    Returns
    -------
    numpy.ndarray of shape (256, 256)
        Momentum of the output projection of an attention layer of a small language model, after
        200 steps.

    Examples
    --------
    >>> from trsvd.table import momentum_matrix
    >>> momentum_matrix().shape
    (256, 256)
    """
    file = resources.files("trsvd") / "data" / _SHIPPED_FILE
    with resources.as_file(file) as path:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


def gaussian(m: int, n: int, seed: int) -> HostArray:
    """Independent standard normal entries, as the table draws them.

    Parameters
    ----------
    m, n : int
        Shape.
    seed : int
        ``numpy.random.default_rng([seed, 1]).standard_normal((m, n))``: another stream than that of
        the start block, which is drawn from ``rng=seed``.

    Returns
    -------
    numpy.ndarray of shape (m, n)
        In float64.
    """
    return np.random.default_rng([seed, 1]).standard_normal((m, n))


@dataclass(frozen=True, eq=False)
class Case:
    """A matrix of the table.

    Parameters
    ----------
    name : str
        What it is called.
    A : numpy.ndarray or scipy sparse matrix or array
        On the host; shape (m, n), real or complex.
    in_paper : bool
        Whether the paper has such a matrix.

    Raises
    ------
    ValueError
        If A is not a matrix, or not finite.
    """

    name: str
    A: Any = field(repr=False)
    in_paper: bool = False

    def __post_init__(self) -> None:
        size = as_operator(self.A).max_abs()
        if size is None or not math.isfinite(size):
            raise ValueError(f"{self.name}: contains NaN or inf; such a matrix has no SVD")

    @property
    def size(self) -> tuple[int, int]:
        """(m, n)."""
        m, n = self.A.shape
        return int(m), int(n)

    @property
    def rank(self) -> int:
        """min(m, n)."""
        return min(self.size)

    def paper(self, k: int, method: str) -> Figures | None:
        """Return the paper's figures of this method at k for such a matrix; None without any."""
        m, n = self.size
        return PAPER.get((m, k, method)) if self.in_paper and m == n else None

    @cached_property
    def rounding(self) -> float:
        """Singular values as near as this, relative to the largest, cannot be told apart."""
        return float(10 * max(self.size) ** 0.5 * as_operator(self.A).arrays.eps)

    def _dense(self) -> HostArray:
        A = self.A.toarray() if is_sparse(self.A) else np.asarray(self.A)
        return A.astype(np.result_type(A.dtype, np.float64), copy=False)

    @cached_property
    def _full(self) -> tuple[HostArray, HostArray, HostArray]:
        U, S, Vh = Arrays.of_array(np.empty(0)).svd(self._dense())
        return U, S, Vh

    def truth(self, k: int) -> tuple[HostArray, HostArray, HostArray]:
        """The exact k leading triplets, in double precision.

        Parameters
        ----------
        k : int
            Number of triplets.

        Returns
        -------
        tuple of numpy.ndarray
            U, S, Vh: of LAPACK's full SVD, or of ARPACK where the matrix is large.

        Raises
        ------
        Undefined
            If ``U_k V_k^H`` is not unique: ``s_k`` is zero, or equals ``s_{k+1}``, to rounding.
        """
        m, n = self.size
        if k + 1 >= self.rank or (self.rank <= LARGE and m * n <= 10**8):
            U, S, Vh = self._full
        else:
            U, S, Vh = self._arpack(k + 1)
        following = float(S[k]) if k < self.rank else 0.0
        level = self.rounding * float(S[0])
        if float(S[k - 1]) <= level:
            found = int(np.sum(level < S))
            raise Undefined(
                f"err1 is undefined at k = {k}: the rank is {found} to rounding "
                f"(s_{k} = {S[k - 1]:.2e}, s_1 = {S[0]:.2e})"
            )
        if float(S[k - 1]) - following <= level:
            raise Undefined(
                f"err1 is undefined at k = {k}: s_{k} = s_{k + 1} = {S[k - 1]:.6g} to rounding, so "
                "that the top k triplets are not unique"
            )
        return U[:, :k], S[:k], Vh[:k]

    def _arpack(self, k: int) -> tuple[HostArray, HostArray, HostArray]:
        A = self.A
        A = A.astype(np.result_type(A.dtype, np.float64))
        size = as_operator(A).max_abs() or 1.0
        start = np.random.default_rng(0).standard_normal(self.rank)
        U, S, Vh = scipy.sparse.linalg.svds(A / size, k=k, tol=0, v0=start)
        order = np.argsort(-S)
        return U[:, order], S[order] * size, Vh[order]

    def polar_factor(self) -> HostArray:
        """The exact ``U V^H`` of the full SVD.

        Raises
        ------
        Undefined
            If the smallest singular value is zero to rounding.
        """
        U, S, Vh = self._full
        if not S[-1] > self.rounding * S[0]:
            found = int(np.sum(self.rounding * S[0] < S))
            raise Undefined(
                f"the rank is {found} of {self.rank} to rounding in {self.A.dtype}, so that the "
                "polar factor is not unique"
            )
        return U @ Vh
