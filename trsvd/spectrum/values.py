"""All singular values of a matrix of weights in little memory, and what they say of its rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.host_blas import values_in_place
from trsvd._arrays.memory import check_room
from trsvd._compiled.threads import one_blas_thread

# Up to so many entries a copy in float64 is cheap.
_SMALL = 1 << 18
# Matrices with shorter sides up to this are left to one thread.
_SHORT = 512
# Entries that are converted to float64 at a time.
_CHUNK = 1 << 18
# Rows of a block of the Gram matrix, and blocks that are multiplied together.
_BAND = 32
_TOGETHER = 4

FREE_MEMORY = "end other programs, or use a machine with more memory"


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Singular values of one matrix, and quantities that follow from them.

    All quantities are NaN, and the ranks None, if the matrix has NaN or infinite entries. They are
    zero for the zero matrix.

    Parameters
    ----------
    name : str
        Name of the matrix in its checkpoint.
    shape : tuple of int
        Shape of the matrix.
    dtype : str
        Data type in which the matrix is stored.
    values : numpy.ndarray of shape (min(m, n),)
        Singular values ``s_1 >= s_2 >= ...`` in float64, read-only. Empty if the matrix has NaN or
        infinite entries.
    spectral_norm : float
        ``s_1``.
    frobenius_norm : float
        ``||A||_F``.
    stable_rank : float
        ``||A||_F^2 / s_1^2``.
    nuclear_rank : float
        ``||A||_*^2 / ||A||_F^2``, as in `trsvd.optim.Diagnostics`.
    effective_rank : float
        Exponential of the entropy of ``s_i / ||A||_*``.
    rank_90, rank_99 : int or None
        Smallest r such that the r largest singular values have 90 % (99 %) of ``||A||_F^2``.

    See Also
    --------
    spectra, spectrum_of

    References
    ----------
    O. Roy and M. Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007.
    D. Davis and D. Drusvyatskiy, When do spectral gradient updates help in deep learning?,
    arXiv:2512.04299, for the nuclear rank.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.spectrum import spectrum_of
    >>> spectrum = spectrum_of(np.diag([3.0, 4.0]))
    >>> spectrum.spectral_norm, spectrum.stable_rank, spectrum.rank_90
    (4.0, 1.5625, 2)
    """

    name: str
    shape: tuple[int, int]
    dtype: str
    values: HostArray
    spectral_norm: float
    frobenius_norm: float
    stable_rank: float
    nuclear_rank: float
    effective_rank: float
    rank_90: int | None
    rank_99: int | None

    @property
    def is_finite(self) -> bool:
        """True if all entries of the matrix are finite."""
        return bool(self.values.size)

    def decay(self, points: int = 64) -> tuple[HostArray, HostArray]:
        """Return some of the singular values, for a plot.

        Parameters
        ----------
        points : int, default 64
            Largest number of values to return. They are dense among the first ones and even
            among the others.

        Returns
        -------
        numbers : numpy.ndarray of int
            Numbers i of the values, ascending; 1 is the largest singular value.
        values : numpy.ndarray of float
            Singular values ``s_i``.
        """
        n = self.values.size
        if n <= points:
            chosen = np.arange(n)
        else:
            half = points // 2
            first, even = np.geomspace(1, n, half), np.linspace(1, n, points - half)
            chosen = np.unique(np.round(np.concatenate([first, even]))).astype(int) - 1
        return chosen + 1, self.values[chosen]


def spectrum_of(A: Any, name: str = "") -> Spectrum:
    """Return the spectrum of one matrix.

    Parameters
    ----------
    A : array_like of shape (m, n)
        Real or complex matrix in host memory.
    name : str, optional
        Name that the result gets.

    Returns
    -------
    Spectrum
        Its singular values are exact to the rounding level of float64, relative to ``s_1``, for
        float64 and complex matrices, and for up to 2^18 entries. For others see Notes.

    Raises
    ------
    ValueError
        If A is not a matrix, or empty.
    TypeError
        If its entries are not numbers.

    See Also
    --------
    spectra, Spectrum

    Notes
    -----
    Larger matrices of float32 or a narrower dtype use the eigenvalues of their smaller Gram matrix
    in float64. The error of ``s_i`` is about ``1e-16 s_1^2 / s_i``. Values below ``1e-7 s_1``, the
    rounding level of float32, are noise. Memory: 4 n^2 bytes and a few dozen vectors for the
    shorter side n; 8 m n bytes in the first case.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.spectrum import spectrum_of
    >>> spectrum = spectrum_of(np.diag([4.0, 2.0, 0.0]))
    >>> spectrum.spectral_norm, spectrum.stable_rank, spectrum.rank_90
    (4.0, 1.25, 2)
    """
    array = np.asarray(A)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"A has shape {array.shape}; pass a matrix of two dimensions, neither of them 0"
        )
    if array.dtype.kind not in "biufc":
        raise TypeError(f"A has dtype {array.dtype}; pass a matrix of numbers")
    return spectrum_of_stored(array, name, str(array.dtype))


def spectrum_of_stored(A: HostArray, name: str, dtype: str) -> Spectrum:
    """Return the spectrum of a matrix as a file stores it; "bfloat16" is given as its bits."""
    shape = (int(A.shape[0]), int(A.shape[1]))
    # Threads of a BLAS gain nothing on short vectors, and lose much while other processes work.
    with one_blas_thread() if min(shape) <= _SHORT else nullcontext():
        S = singular_values(A, is_bfloat16=dtype == "bfloat16")
    if S is None:
        nan = float("nan")
        return Spectrum(
            name, shape, dtype, _frozen(np.empty(0)), nan, nan, nan, nan, nan, None, None
        )
    shares = S / S[0] if S[0] > 0 else S  # their squares stay in range
    squares, total = shares**2, float(shares.sum())
    energy = float(squares.sum())
    return Spectrum(
        name,
        shape,
        dtype,
        _frozen(S),
        spectral_norm=float(S[0]),
        frobenius_norm=float(S[0]) * energy**0.5,
        stable_rank=energy,
        nuclear_rank=total**2 / energy if energy else 0.0,
        effective_rank=_effective_rank(shares / total) if total else 0.0,
        rank_90=_rank(squares, 0.9),
        rank_99=_rank(squares, 0.99),
    )


def _frozen(S: HostArray) -> HostArray:
    S.flags.writeable = False
    return S


def _effective_rank(p: HostArray) -> float:
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def _rank(squares: HostArray, part: float) -> int:
    """Return the number of leading squares that have a part of their sum, but for rounding."""
    sums = np.cumsum(squares)
    if sums[-1] == 0:
        return 0
    return int(np.searchsorted(sums, part * (1 - 1e-14 * len(sums)) * sums[-1])) + 1


# ---- singular values --------------------------------------------------------------------------


def singular_values(A: HostArray, *, is_bfloat16: bool = False) -> HostArray | None:
    """Return all singular values of A, descending; None if an entry is not finite.

    A is read in chunks, and may be mapped from a file.
    """
    if not A.flags.c_contiguous and A.flags.f_contiguous:
        A = A.T
    kind = np.dtype(np.complex128 if A.dtype.kind == "c" else np.float64)
    narrow = is_bfloat16 or (A.dtype.kind == "f" and A.dtype.itemsize <= 4)
    if narrow and A.size > _SMALL:
        return _by_gram_matrix(A.T if A.shape[0] < A.shape[1] else A, is_bfloat16)
    check_room(A.size * kind.itemsize, f"a copy of a matrix of shape {A.shape}", FREE_MEMORY)
    X = np.empty(A.shape, kind)
    first = 0
    for chunk in _chunks(A, is_bfloat16):
        if not np.isfinite(chunk).all():
            return None
        X[first : first + len(chunk)] = chunk
        first += len(chunk)
    return np.asarray(values_in_place(X), dtype=np.float64)


def _chunks(A: HostArray, is_bfloat16: bool) -> Iterator[HostArray]:
    """Some rows at a time, as floating-point numbers."""
    step = max(1, _CHUNK // A.shape[1])
    for first in range(0, A.shape[0], step):
        chunk = A[first : first + step]
        if is_bfloat16:  # the upper half of a float32
            chunk = (chunk.astype(np.uint32) << 16).view(np.float32)
        yield chunk


def _by_gram_matrix(A: HostArray, is_bfloat16: bool) -> HostArray | None:
    """Return the singular values of a matrix with m >= n, by the eigenvalues of A^T A."""
    n = A.shape[1]
    check_room(4 * n * n, f"the Gram matrix of a matrix of shape {A.shape}", FREE_MEMORY)
    G = [np.zeros((min(_BAND, n - i), min(i + _BAND, n))) for i in range(0, n, _BAND)]
    for chunk in _chunks(A, is_bfloat16):
        X = chunk.astype(np.float64)
        if not np.isfinite(X).all():
            return None
        for i in range(0, len(G), _TOGETHER):
            end = G[i : i + _TOGETHER][-1].shape[1]
            products = X[:, i * _BAND : end].T @ X[:, :end]
            for j, rows in enumerate(G[i : i + _TOGETHER]):
                rows += products[j * _BAND : j * _BAND + len(rows), : rows.shape[1]]
    with one_blas_thread():  # all products are small
        band = _reduced_to_band(G)
    squares = scipy.linalg.eigvals_banded(
        band, lower=True, overwrite_a_band=True, check_finite=False
    )
    return np.asarray(np.sqrt(np.maximum(squares[::-1], 0)))


def _reduced_to_band(blocks: list[HostArray]) -> HostArray:
    """Reduce a symmetric matrix to a band matrix with the same eigenvalues.

    Each step makes one block of columns zero below the band: with ``Q = I - V T V^T`` from the QR
    factorization of these columns, the rest S of the matrix becomes
    ``Q^T S Q = S - V W^T - W V^T``, where ``W = S V T - V T^T V^T S V T / 2``.

    Parameters
    ----------
    blocks : list of numpy.ndarray
        Blocks of `_BAND` rows, each up to its diagonal block. The list is emptied: half of a
        matrix is all the memory that is used.

    Returns
    -------
    numpy.ndarray of shape (_BAND + 1, n)
        Row d has the d-th diagonal below the main one, as `scipy.linalg.eigvals_banded` takes it.

    References
    ----------
    C. Bischof, B. Lang and X. Sun, A framework for symmetric band reduction,
    doi:10.1145/365723.365735.
    """
    band = np.zeros((_BAND + 1, blocks[-1].shape[1]))
    begin = 0
    while blocks:
        _keep(band, blocks.pop(0)[:, begin:], begin, 0)
        if not blocks:
            break
        panel = np.concatenate([rows[:, begin : begin + _BAND] for rows in blocks])
        V, T, R = _householder(panel)
        _keep(band, R[: len(blocks[0])], begin, _BAND)
        begin += _BAND
        Y = _symmetric_product([rows[:, begin:] for rows in blocks], V) @ T
        W = Y - 0.5 * V @ (T.T @ (V.T @ Y))
        first = 0
        for rows in blocks:
            part = slice(first, first + len(rows))
            S = rows[:, begin:]
            S -= V[part] @ W[: part.stop].T
            S -= W[part] @ V[: part.stop].T
            first = part.stop
    return band


def _keep(band: HostArray, block: HostArray, begin: int, below: int) -> None:
    """Write a block, ``below`` rows below the diagonal, into the band; its columns from ``begin``.

    A block on the diagonal counts by its lower triangle, one below it by its upper triangle.
    """
    for j in range(block.shape[1]):
        column = block[: j + 1, j] if below else block[j:, j]
        d = below - j if below else 0
        band[d : d + len(column), begin + j] = column


def _householder(panel: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """Return V, T and R: ``I - V T V^T`` is the Q of the QR factorization of a panel."""
    factored, tau = np.linalg.qr(panel, mode="raw")
    factored, k = factored.T, len(tau)
    V = np.tril(factored[:, :k], -1)
    np.fill_diagonal(V, 1)
    products = V.T @ V
    T = np.diag(tau)
    for j in range(1, k):
        T[:j, j] = -tau[j] * (T[:j, :j] @ products[:j, j])
    return V, T, np.triu(factored)[:_BAND]


def _symmetric_product(blocks: list[HostArray], V: HostArray) -> HostArray:
    """Return S V for a symmetric S in blocks of rows, each up to its diagonal block."""
    Y = np.zeros_like(V)
    first = 0
    for rows in blocks:
        part = slice(first, first + len(rows))
        Y[part] += rows @ V[: part.stop]
        Y[:first] += rows[:, :first].T @ V[part]
        first = part.stop
    return Y
