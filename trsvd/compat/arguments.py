"""Arguments of SciPy and scikit-learn: checks, translation to trsvd, and messages."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg

from trsvd._arrays.admit import admitted
from trsvd._arrays.arrays import Array, is_array
from trsvd._arrays.dtypes import COMPUTE, describe, dtype_name, is_sparse
from trsvd._errors import Status
from trsvd._solve.result import NotConverged, Subspace, SVDResult
from trsvd._solve.svds import svds
from trsvd._solve.verify import FINE_ETA
from trsvd.methods import Method
from trsvd.operators.base import MatrixOperator
from trsvd.operators.products import as_operator

SOLVERS = ("arpack", "lobpcg", "propack")
NORMALIZERS = ("auto", "QR", "LU", "none")
# SciPy accepts a tol of 1 and more, which any vectors satisfy.
_LOOSEST = 0.5


@dataclass(frozen=True)
class Asked:
    """Checked arguments of a call of ``svds``.

    Attributes
    ----------
    op : MatrixOperator
        The matrix.
    k : int
        Number of triplets.
    tol : float
        Largest accepted relative residual.
    largest : bool
        True for the largest singular values, False for the smallest.
    basis_size : int or None
        Number of Lanczos vectors to keep.
    start : Subspace, array or None
        Starting vectors.
    max_matvecs : int or None
        Limit of the number of products.
    left, right : bool
        True if the left or right singular vectors are requested.
    solver : str
        SciPy's name of the solver.
    rng : numpy.random.Generator or None
        Source of random numbers.
    """

    op: MatrixOperator
    k: int
    tol: float
    largest: bool
    basis_size: int | None
    start: Subspace | Array | None
    max_matvecs: int | None
    left: bool
    right: bool
    solver: str
    rng: np.random.Generator | None

    @property
    def rank(self) -> int:
        """Smaller dimension, min(m, n)."""
        return min(self.op.shape)

    @property
    def aim(self) -> float:
        """Relative residual to iterate to; singular values are accurate to rounding there.

        ARPACK checks residuals only after about twenty steps, and often returns better triplets
        than ``tol`` requires. Existing code may rely on this accuracy.
        """
        return min(self.tol, float(self.op.arrays.eps**0.5))

    def triplets(
        self,
        op: MatrixOperator,
        *,
        method: Method | None = None,
        start: Subspace | Array | None = None,
        max_matvecs: int | None = None,
        verify: bool | float | None = None,
    ) -> SVDResult:
        """Compute the k leading triplets of an operator to `aim`, or at least to `tol`.

        Parameters
        ----------
        op : MatrixOperator
            The matrix, or another operator with the requested triplets.
        method, start, max_matvecs
            As for `trsvd.svds`.
        verify : bool or float, optional
            As for `trsvd.svds`. The default is a fine check, ``verify=1e-3``, since SciPy's result
            cannot contain a certificate.

        Raises
        ------
        NotConverged
            If a residual exceeds `tol`, or a missed singular value cannot be computed.
        """
        k, rng = self.k, self.rng
        if verify is None:
            verify = FINE_ETA if k > 1 else True
        try:
            return svds(
                op,
                k,
                method=method,
                tol=self.aim,
                start=start,
                rng=rng,
                max_matvecs=max_matvecs,
                on_failure="raise",
                verify=verify,
            )
        except NotConverged as error:
            result = error.result
            if not result.residuals.max() <= self.tol:
                raise
        return svds(
            op,
            k,
            tol=self.tol,
            state=result.state,
            rng=rng,
            max_matvecs=max_matvecs,
            on_failure="raise",
            verify=verify,
        )


def check_svds(
    A: Any,
    k: Any,
    ncv: Any,
    tol: Any,
    which: Any,
    v0: Any,
    maxiter: Any,
    return_singular_vectors: Any,
    solver: Any,
    rng: Any,
    options: Any,
) -> Asked:
    """Convert the arguments of ``svds``; raise SciPy's errors, in SciPy's order."""
    solver = _one_of("solver", str(solver).lower(), SOLVERS, "solver must be one of")
    op = as_scipy_operator(A)
    rank = min(op.shape)
    most = rank if solver == "propack" else rank - 1
    k = _whole("k", k, 1, most, "`0 < k < min(A.shape)` (`0 < k <= min(A.shape)` for propack)")
    if ncv is not None and solver == "arpack":
        ncv = _whole("ncv", ncv, k + 1, rank - 1, "`k < ncv < min(A.shape)`")
    if tol < 0 or not math.isfinite(tol):
        raise ValueError(f"`tol` must be a non-negative floating point value. It is {tol}.")
    which = _one_of("which", str(which).upper(), ("LM", "SM"), "`which` must be in")
    start = None if v0 is None else _start(op, v0, solver)
    if maxiter is not None and (int(maxiter) != maxiter or maxiter <= 0):
        raise ValueError(f"`maxiter` must be a positive integer. It is {maxiter!r}.")
    name, text = "return_singular_vectors", "`return_singular_vectors` must be in"
    wanted = _one_of(name, return_singular_vectors, (True, False, "u", "vh"), text)
    if options:
        raise ValueError(f"options={options!r}: no solver has options here; leave them out")
    basis_size = None if ncv is None or solver != "arpack" else max(ncv, min(k + 2, rank))
    return Asked(
        op=op,
        k=k,
        tol=_residual_for(float(tol), op.arrays.eps),
        largest=which == "LM",
        basis_size=basis_size,
        start=start,
        max_matvecs=None if maxiter is None else _cap(int(maxiter), solver, k, basis_size, rank),
        left=wanted in (True, "u"),
        right=wanted in (True, "vh"),
        solver=solver,
        rng=generator("rng", rng),
    )


def as_scipy_operator(A: Any) -> MatrixOperator:
    """Convert ``A`` to an operator; raise SciPy's errors for input that SciPy rejects."""
    if isinstance(A, MatrixOperator):
        return A
    A = admitted(A)
    if is_array(A) and A.ndim < 2:
        A = A[None, :] if A.ndim else A[None, None]
    if not (hasattr(A, "shape") and getattr(A, "dtype", None) is not None):
        # SciPy finds the dtype of an object with a matvec, and rejects what is not a matrix.
        A = scipy.sparse.linalg.aslinearoperator(A)
    name = dtype_name(A.dtype)
    if name == "bool" or (name not in COMPUTE and (is_array(A) or is_sparse(A))):
        raise ValueError(f"`A` must be of numeric data type. It is {describe(A)}.")
    if math.prod(A.shape) == 0:
        raise ValueError(f"`A` must not be empty. It has shape {tuple(A.shape)}.")
    if len(A.shape) > 2:
        # SciPy's messages, of version 1.18 and of earlier ones.
        raise ValueError(
            f"Only 2-D input is supported for `A`: array must have ndim <= 2. `A` has shape "
            f"{tuple(A.shape)}; call svds for each matrix, or trsvd.svds for an array of them."
        )
    return as_operator(A)


def generator(name: str, rng: Any) -> np.random.Generator | None:
    """Return the generator for a seed, a Generator or a legacy RandomState."""
    if rng is None:
        return None
    if isinstance(rng, np.random.RandomState):  # numpy.random.default_rng accepts it since 2.2
        return np.random.Generator(rng._bit_generator)
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{name}={rng!r} is not a seed ({error}); pass a non-negative integer, or a Generator"
        ) from None


def explain(error: NotConverged, wanted: str, *, limit: str, more: str, otherwise: str) -> str:
    """Return the message of a failed run, in the terms of the called function.

    Parameters
    ----------
    error : NotConverged
        The failure.
    wanted : str
        The tolerance.
    limit : str
        Name of the argument that limits the number of products.
    more : str
        Advice if more products or iterations help.
    otherwise : str
        Advice if they do not help.
    """
    result = error.result
    cause = result.status.value.partition("; ")[0].replace("max_matvecs", limit)
    few = (Status.MAX_MATVECS, Status.MAX_ITERATIONS, Status.INCOMPLETE)
    advice = more if result.status in few else otherwise
    return (
        f"{cause} (largest relative residual {result.residuals.max(initial=0.0):.2e}, {wanted}, "
        f"{result.matvecs} products); {advice}"
    )


def as_matrix(M: Any) -> Any:
    """Convert lists, data frames and the like to arrays that `trsvd.svds` takes."""
    M = admitted(M)
    if is_array(M) or is_sparse(M) or hasattr(M, "matmat") or hasattr(M, "matvec"):
        return M
    return np.asarray(M)


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``allowed``."""
    _one_of(name, value, allowed, f"`{name}` must be in")


def check_count(name: str, value: Any) -> int:
    """Check a count and return it as an int; it must be an integer of at least 0."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={value!r} is not an integer; pass an integer of at least 0")
    count = operator.index(value)
    if count < 0:
        raise ValueError(f"{name}={count}; it must be at least 0")
    return count


def raise_tol(error: NotConverged) -> str:
    """Return advice on SciPy's ``tol``; the residuals must be at most its square."""
    # The factor covers the rounding to two digits.
    enough = 1.1 * float(error.result.residuals.max()) ** 0.5
    return f"raise tol to {enough:.2g} or more"


def _one_of(name: str, value: Any, allowed: tuple[Any, ...], text: str) -> Any:
    if value not in allowed:
        raise ValueError(f"{text} {allowed}; it is {name}={value!r}")
    return value


def _whole(name: str, value: Any, least: int, most: int, rule: str) -> int:
    """Check an integer in a range; ValueError with SciPy's message otherwise."""
    whole = int(value)
    if whole != value or not least <= whole <= most:
        raise ValueError(f"`{name}` must be an integer satisfying {rule}. It is {value!r}.")
    return whole


def _residual_for(tol: float, eps: float) -> float:
    """Return the relative residual that corresponds to SciPy's ``tol``.

    SciPy passes ``tol**2`` to its eigensolvers, as a bound on ``||A^H A v - s^2 v|| / s^2``. This
    is the residual of the triplet relative to s.
    """
    return float(min(max(tol**2, eps**0.75), _LOOSEST))


def _start(op: MatrixOperator, v0: Any, solver: str) -> Subspace | Array:
    """Convert a starting vector of SciPy to a start of trsvd.

    SciPy's starting vector belongs to the shorter side; PROPACK's belongs to the left side.
    """
    v0 = v0 if is_array(v0) else np.atleast_1d(v0)
    if not dtype_name(v0.dtype).startswith(("float", "complex")):
        raise ValueError("`v0` must be of floating or complex floating data type.")
    m, n = op.shape
    shape = (m,) if solver == "propack" else (min(m, n),)
    if tuple(v0.shape) != shape:
        raise ValueError(f"`v0` must have shape {shape}. It has {tuple(v0.shape)}.")
    if op.arrays.would_lose_imaginary(v0):
        raise TypeError(
            "`v0` is complex and `A` is real, with real singular vectors; pass `v0.real`"
        )
    if not math.isfinite(op.arrays.max_abs(op.arrays.take(v0[:, None]))):
        raise ValueError("`v0` contains NaN or inf; pass finite numbers, or leave it out")
    column = v0[:, None]
    if m < n:
        return Subspace(column, op.arrays.zeros(1, n))
    return op.rmatmat(op.arrays.take(column)) if solver == "propack" else column


def _cap(maxiter: int, solver: str, k: int, basis_size: int | None, rank: int) -> int:
    """Return the number of products in ``maxiter`` iterations of SciPy's solver.

    An iteration is a restart for ARPACK, a step with k vectors for LOBPCG, and a step with one
    vector for PROPACK.
    """
    size = basis_size or min(rank, max(2 * k + 1, 20))
    products = 2 * maxiter * {"arpack": size, "lobpcg": k, "propack": 1}[solver]
    return max(products, 3 * k + 10)  # k triplets need at least this many
