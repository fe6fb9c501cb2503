"""Matrices with known singular values, errors of a truncated SVD, and assertions.

The tests, benchmarks and examples of trsvd use this module; it is public for tests of other
packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray, _namespace, is_array
from trsvd._solve.result import SVDResult
from trsvd.operators import as_operator

__all__ = [
    "SPECTRA",
    "assert_orthonormal",
    "assert_svd",
    "err1",
    "err2",
    "matrix_with_spectrum",
    "rounding_level",
]


# ---- matrices -----------------------------------------------------------------------------


def _index(n: int) -> HostArray:
    return np.arange(1, n + 1, dtype=np.float64)


def _clusters(n: int) -> HostArray:
    i = np.arange(n)
    return 0.5 ** (i // 5) * (1 - 1e-10 * (i % 5))


SPECTRA: Mapping[str, Callable[[int], HostArray]] = MappingProxyType(
    {
        "1/i": lambda n: 1 / _index(n),
        "i**-0.5": lambda n: _index(n) ** -0.5,
        "geometric": lambda n: 0.9 ** (_index(n) - 1),
        "clusters": _clusters,
        "multiple": lambda n: np.where(_index(n) <= 10, 1.0, 0.5),
        "low rank": lambda n: np.where(_index(n) <= max(1, n // 10), 1 / _index(n), 0.0),
        "graded": lambda n: np.logspace(0, -15, n),
    }
)
"""Named families of spectra: ``SPECTRA[name](n)`` are n descending values, the first is 1.

``"clusters"``: groups of five, 1e-10 apart within a group, a factor 2 between groups.
``"multiple"``: 1 ten times, then 0.5. ``"low rank"``: the last nine tenths are zero.
``"graded"``: 15 decades.
"""


def matrix_with_spectrum(
    m: int,
    n: int,
    s: Any,
    *,
    rng: int | np.random.Generator | None = None,
    dtype: Any = "float64",
    xp: Any = None,
    device: Any = None,
) -> Array:
    """Return a random matrix with prescribed singular values.

    Parameters
    ----------
    m, n : int
        Shape of the matrix.
    s : array_like of shape (r,)
        Singular values, in any order, ``r <= min(m, n)``; the others are zero.
    rng : int or numpy.random.Generator, optional
        Seed or generator of the singular vectors.
    dtype : dtype or str, default "float64"
        Real or complex floating dtype of any library.
    xp : module, optional
        Array namespace of the result, such as ``torch``. The default is NumPy.
    device : object, optional
        Device of the result.

    Returns
    -------
    array of shape (m, n)
        ``U diag(s) V^H`` with U and V uniformly distributed (Haar). Its singular values are ``s``
        up to rounding in ``dtype``: a few ``eps * max(s)``, absolute.

    Raises
    ------
    ValueError
        If ``s`` has more than min(m, n) entries, or negative ones.

    See Also
    --------
    assert_svd, err1, err2

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.testing import matrix_with_spectrum
    >>> A = matrix_with_spectrum(6, 4, [3, 2, 1], rng=0)
    >>> np.linalg.svd(A, compute_uv=False).round(12) + 0.0
    array([3., 2., 1., 0.])
    """
    s = np.asarray(s, dtype=np.float64)
    if s.ndim != 1 or len(s) > min(m, n) or not np.all(s >= 0):
        raise ValueError(
            f"s has shape {s.shape} and smallest entry {s.min(initial=np.inf):g}; give at most "
            f"min(m, n) = {min(m, n)} singular values, none negative"
        )
    home = _namespace("numpy" if xp is None else xp.__name__.removeprefix("array_api_compat."))
    target = Arrays.of_dtype(home, device, dtype)
    rng = np.random.default_rng(rng)
    U = _orthonormal(rng, m, len(s), target.is_complex)
    V = _orthonormal(rng, n, len(s), target.is_complex)
    # Scaled to about 1, so that values near the ends of the range keep their digits.
    size = 2.0 ** np.frexp(s.max(initial=0.0))[1]
    host = (((U * (s / size)) @ V.conj().T) * size).astype(target.host_dtype)
    return target.hand_out(home.asarray(host, device=device))


def _orthonormal(rng: np.random.Generator, rows: int, columns: int, is_complex: bool) -> HostArray:
    """Return uniformly distributed orthonormal columns: QR of a Gaussian, with phases corrected."""
    X = rng.standard_normal((rows, columns))
    if is_complex:
        X = X + 1j * rng.standard_normal((rows, columns))
    Q, R = np.linalg.qr(X)
    diagonal = np.diagonal(R)
    return Q * (diagonal / np.abs(diagonal))  # type: ignore[no-any-return]


# ---- errors -------------------------------------------------------------------------------


def err1(U: Any, Vh: Any, U_true: Any, Vh_true: Any) -> float:
    """Return the relative error of ``U V^H``: ``||U V^H - U_k V_k^H||_F / sqrt(k)``.

    Parameters
    ----------
    U, Vh : array of shape (m, k), (k, n)
        Computed singular vectors.
    U_true, Vh_true : array of shape (m, k), (k, n)
        Exact singular vectors, with any phases; ``U_k V_k^H`` is unique if s_k > s_{k+1}.

    Returns
    -------
    float
        The error, accurate to nine digits or to a few rounding units (absolute), whichever is
        larger. Small errors are computed from QR factors of the vectors, since a difference of
        traces is accurate to ``sqrt(eps)`` only.

    See Also
    --------
    err2, assert_svd

    Notes
    -----
    Computed on the host, in double precision; costs ``8 (m + n) k^2`` operations.

    References
    ----------
    A. Kravatskiy et al., The Ky Fan norms and beyond, arXiv:2512.09678 (there "err1").

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.testing import err1
    >>> I = np.eye(5)
    >>> err1(I[:, :2], I[:2], -I[:, :2], -I[:2])
    0.0
    >>> round(err1(I[:, :2], I[:2], I[:, 1:3], I[1:3]), 3)  # one of the two is wrong
    1.0
    """
    ones = np.ones(U.shape[1])
    found, truth = (_wide(U), ones, _wide(Vh)), (_wide(U_true), ones, _wide(Vh_true))
    return _distance(found, truth) / float(np.sqrt(len(ones)))


def err2(U: Any, S: Any, Vh: Any, U_true: Any, S_true: Any, Vh_true: Any) -> float:
    """Return the relative error of the rank-k matrix: ``||U S V^H - A_k||_F / ||A_k||_F``.

    Parameters
    ----------
    U, S, Vh : array of shape (m, k), (k,), (k, n)
        Computed triplets.
    U_true, S_true, Vh_true : array of shape (m, k), (k,), (k, n)
        Exact triplets, ``A_k = U_true diag(S_true) Vh_true``.

    Returns
    -------
    float
        The error, with the accuracy of `err1`.

    Raises
    ------
    ValueError
        If ``S_true`` is zero.

    See Also
    --------
    err1, assert_svd

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.testing import err2
    >>> I = np.eye(3)
    >>> round(err2(I[:, :1], [1.5], I[:1], I[:, :1], [1.0], I[:1]), 12)
    0.5
    """
    values, exact = _wide(S), _wide(S_true)
    size = np.max(np.abs(exact), initial=0.0)
    if size == 0:
        raise ValueError("S_true is zero, so the relative error is undefined")
    values, exact = values / size, exact / size
    found, truth = (_wide(U), values, _wide(Vh)), (_wide(U_true), exact, _wide(Vh_true))
    return _distance(found, truth) / float(np.linalg.norm(exact))


_Triplets = tuple[HostArray, HostArray, HostArray]


def _distance(one: _Triplets, other: _Triplets) -> float:
    """Return ``||U S V^H - U' S' V'^H||_F``."""
    sizes = _inner(one, one) + _inner(other, other)
    square = sizes - 2 * _inner(one, other)
    if square > 1e-6 * sizes:  # ten digits are left
        return float(square**0.5)
    # Below that, traces cancel: subtract in the small space of the R factors.
    (U, S, Vh), (U2, S2, Vh2) = one, other
    left: Any = np.linalg.qr(np.hstack([U, U2]), mode="r")
    right: Any = np.linalg.qr(np.hstack([Vh.conj().T, Vh2.conj().T]), mode="r")
    k = len(S)
    X = (left[:, :k] * S) @ right[:, :k].conj().T
    Y = (left[:, k:] * S2) @ right[:, k:].conj().T
    return float(np.linalg.norm(X - Y))


def _inner(one: _Triplets, other: _Triplets) -> float:
    """Return ``Re <U S V^H, U' S' V'^H>`` without forming the matrices."""
    (U, S, Vh), (U2, S2, Vh2) = one, other
    left, right = U.conj().T @ U2, Vh @ Vh2.conj().T
    return float(np.sum(np.outer(S, S2) * (left * right.conj()).real))


def _wide(X: Any) -> HostArray:
    """Convert any array to the host in double precision."""
    if not is_array(X):
        X = np.asarray(X)
    arrays = Arrays.of_array(X)
    return arrays.get(arrays.take(X)).astype(arrays.wide_dtype)


# ---- assertions ---------------------------------------------------------------------------


def rounding_level(length: int, eps: float) -> float:
    """Bound the relative rounding error of a sum of ``length`` products.

    Parameters
    ----------
    length : int
        Number of terms.
    eps : float
        Rounding unit of the dtype.

    Returns
    -------
    float
        ``10 sqrt(length) eps``. Independent rounding errors of mean zero stay below it, except with
        probability ``2 exp(-50)`` for each sum.

    See Also
    --------
    assert_orthonormal

    References
    ----------
    N. Higham and T. Mary, A new approach to probabilistic rounding error analysis,
    doi:10.1137/18M1226312.

    Examples
    --------
    >>> from trsvd.testing import rounding_level
    >>> rounding_level(100, 2.0**-52) < 3e-14
    True
    """
    return float(10 * max(length, 1) ** 0.5 * eps)


def assert_orthonormal(Q: Any, *, tol: float | None = None) -> None:
    """Assert that the columns of ``Q`` are orthonormal.

    Parameters
    ----------
    Q : array of shape (m, k)
        Array of any library.
    tol : float, optional
        Largest allowed entry of ``Q^H Q - I``. The default is `rounding_level` of m terms.

    Raises
    ------
    AssertionError
        If the columns are not orthonormal.

    See Also
    --------
    assert_svd

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.testing import assert_orthonormal
    >>> assert_orthonormal(np.eye(4)[:, :2])
    """
    host = _wide(Q)
    tol = rounding_level(len(host), _eps(Q)) if tol is None else tol
    error = np.abs(host.conj().T @ host - np.eye(host.shape[1])).max(initial=0.0)
    _require(error <= tol, f"columns are orthonormal to {error:.2e} only, {tol:.2e} is allowed")


def assert_svd(
    result: SVDResult | tuple[Any, Any, Any],
    A: Any,
    *,
    S_true: Any = None,
    tol: float | None = None,
) -> None:
    """Assert that U, S, Vh are leading singular triplets of ``A``.

    Checks shapes, order and sign of S, orthonormality of U and Vh, residuals (which are computed
    here), and S if the spectrum is known.

    Parameters
    ----------
    result : SVDResult or tuple
        The triplets U, S, Vh.
    A : array, sparse matrix or operator of shape (m, n)
        As for `trsvd.svds`.
    S_true : array_like of shape (at least k,), optional
        Exact singular values, descending.
    tol : float, optional
        Largest relative residual of a triplet. The default is ``eps**0.75`` of the compute dtype of
        A, as in `trsvd.svds`. Rounding errors are allowed in addition.

    Raises
    ------
    AssertionError
        If a check fails, with the value and the allowed value.

    See Also
    --------
    assert_orthonormal, matrix_with_spectrum

    Notes
    -----
    ``k`` triplets with residuals of at most ``r = tol s_1`` are exact for a matrix within
    ``sqrt(2 k) r`` of A. By Weyl's theorem, this bounds the error of each value. The check takes
    2 k products with A.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> from trsvd.testing import SPECTRA, assert_svd, matrix_with_spectrum
    >>> s = SPECTRA["geometric"](30)
    >>> A = matrix_with_spectrum(50, 30, s, rng=0)
    >>> assert_svd(trsvd.svds(A, 4), A, S_true=s)
    """
    U, S, Vh = result
    op = as_operator(A)
    (m, n), arrays = op.shape, op.arrays
    values = _wide(S)
    k = len(values)
    shapes = tuple(tuple(X.shape) for X in (U, S, Vh))
    _require(
        shapes == ((m, k), (k,), (k, n)),
        f"U, S, Vh have shapes {shapes}; A has shape {(m, n)}",
    )
    _require(
        bool(np.all(values >= 0) and np.all(np.diff(values) <= 0)),
        f"S is not descending and nonnegative: {values}",
    )
    eps = max(arrays.eps, _eps(U))
    rounding = rounding_level(max(m, n), eps)
    assert_orthonormal(U, tol=rounding)
    assert_orthonormal(arrays.adjoint(Vh), tol=rounding)
    tol = arrays.eps**0.75 if tol is None else tol
    if k == 0:
        return
    # The values reach over the range of the dtype: everything relative to the largest.
    scale = values[0] or 1.0
    residual = _largest_residual(op, U, values, Vh) / scale
    _require(
        residual <= tol + rounding,
        f"largest residual {residual:.2e} s_1, {tol:.2e} + {rounding:.2e} for rounding is allowed",
    )
    if S_true is not None:
        exact = _wide(S_true)[:k]
        scale = exact[0] or 1.0
        error = np.abs(values / scale - exact / scale).max()
        allowed = (2 * k) ** 0.5 * tol + rounding
        _require(
            error <= allowed,
            f"S is off by {error:.2e} s_1, {allowed:.2e} is allowed",
        )


def _largest_residual(op: Any, U: Any, S: HostArray, Vh: Any) -> float:
    arrays = op.arrays
    U, V = arrays.take(U), arrays.adjoint(arrays.take(Vh))
    left, right = _wide(U), _wide(V)
    forward = _wide(op.matmat(V)) - left * S
    backward = _wide(op.rmatmat(U)) - right * S
    return max(float(np.linalg.norm(R, axis=0).max()) for R in (forward, backward))


def _eps(X: Any) -> float:
    """Return the rounding unit of the dtype of ``X``, half precision included."""
    arrays = Arrays.of_array(X)
    return float(arrays.xp.finfo(X.dtype).eps)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
