"""The terms of SciPy and scikit-learn: arguments checked and translated, and messages."""

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
# SciPy takes a tol of 1 and more, which any vectors meet.
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
        Relative residual that is good enough.
    largest : bool
        Whether the largest ones are wanted.
    basis_size : int or None
        Lanczos vectors to keep.
    start : Subspace, array or None
        Where to start from.
    max_matvecs : int or None
        Cap on the products.
    left, right : bool
        Which singular vectors are wanted.
    solver : str
        SciPy's name of the solver.
    rng : numpy.random.Generator or None
        Where random numbers come from.
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
        """min(m, n)."""
        return min(self.op.shape)

    @property
    def aim(self) -> float:
        """Relative residual to iterate to: singular values are at the rounding level there.

        ARPACK looks at residuals after some twenty steps only, and returns better triplets than
        those that ``tol`` asks for. Code that calls it has got used to them.
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
        """The k leading triplets of an operator, to `aim`, or to `tol` where it ends before.

        Parameters
        ----------
        op : MatrixOperator
            The matrix, or another one that has its triplets.
        method, start, max_matvecs
            As for `trsvd.svds`.
        verify : bool or float, optional
            As for `trsvd.svds`. By default a fine check, ``verify=1e-3``: SciPy's form of the
            answer has no place for a certificate.

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
    """The arguments of ``svds`` in trsvd's terms; raises what SciPy raises, in its order."""
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
        raise ValueError(
            f"options={options!r}: there are no options of a solver here; leave them out"
        )
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
    """``A`` as an operator, refused with SciPy's types of errors where SciPy refuses it."""
    if isinstance(A, MatrixOperator):
        return A
    A = admitted(A)
    if is_array(A) and A.ndim < 2:
        A = A[None, :] if A.ndim else A[None, None]
    if not (hasattr(A, "shape") and getattr(A, "dtype", None) is not None):
        # What has matvec and no dtype is asked by SciPy for one; what is not a matrix is refused.
        A = scipy.sparse.linalg.aslinearoperator(A)
    name = dtype_name(A.dtype)
    if name == "bool" or (name not in COMPUTE and (is_array(A) or is_sparse(A))):
        raise ValueError(f"`A` must be of numeric data type. It is {describe(A)}.")
    if math.prod(A.shape) == 0:
        raise ValueError(f"`A` must not be empty. It has shape {tuple(A.shape)}.")
    if len(A.shape) > 2:
        # SciPy's sentences, of 1.18 and before.
        raise ValueError(
            f"Only 2-D input is supported for `A`: array must have ndim <= 2. `A` has shape "
            f"{tuple(A.shape)}; call svds for each matrix, or trsvd.svds for an array of them."
        )
    return as_operator(A)


def generator(name: str, rng: Any) -> np.random.Generator | None:
    """The generator that a seed, a Generator or a legacy RandomState stands for."""
    if rng is None:
        return None
    if isinstance(rng, np.random.RandomState):  # numpy.random.default_rng takes it from 2.2 on
        return np.random.Generator(rng._bit_generator)
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{name}={rng!r} is not a seed ({error}); pass a non-negative integer, or a Generator"
        ) from None


def explain(error: NotConverged, wanted: str, *, limit: str, more: str, otherwise: str) -> str:
    """The message of a run that failed, in the terms of the function that was called.

    Parameters
    ----------
    error : NotConverged
        The failure.
    wanted : str
        The tolerance.
    limit : str
        Name of what limits the number of products.
    more : str
        Advice where more products or iterations help.
    otherwise : str
        Advice where they do not.
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
    """ValueError unless ``value`` is one of ``allowed``."""
    _one_of(name, value, allowed, f"`{name}` must be in")


def check_count(name: str, value: Any) -> int:
    """A whole number of at least 0."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={value!r} is not a whole number")
    count = operator.index(value)
    if count < 0:
        raise ValueError(f"{name}={count}; it must be at least 0")
    return count


def raise_tol(error: NotConverged) -> str:
    """Advice about SciPy's ``tol``, whose square was missed."""
    # More than rounding to two digits takes away.
    enough = 1.1 * float(error.result.residuals.max()) ** 0.5
    return f"raise tol to {enough:.2g} or more"


def _one_of(name: str, value: Any, allowed: tuple[Any, ...], text: str) -> Any:
    if value not in allowed:
        raise ValueError(f"{text} {allowed}; it is {name}={value!r}")
    return value


def _whole(name: str, value: Any, least: int, most: int, rule: str) -> int:
    """A whole number of a range; ValueError with SciPy's sentence otherwise."""
    whole = int(value)
    if whole != value or not least <= whole <= most:
        raise ValueError(f"`{name}` must be an integer satisfying {rule}. It is {value!r}.")
    return whole


def _residual_for(tol: float, eps: float) -> float:
    """The relative residual that stands for SciPy's ``tol``.

    SciPy hands ``tol**2`` to its eigensolvers, as a bound on ``||A^H A v - s^2 v|| / s^2``, which
    is the residual of the triplet relative to s.
    """
    return float(min(max(tol**2, eps**0.75), _LOOSEST))


def _start(op: MatrixOperator, v0: Any, solver: str) -> Subspace | Array:
    """A starting vector of SciPy as trsvd takes it.

    SciPy's belongs to the shorter side, that of PROPACK to the left one.
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
    """The products that ``maxiter`` iterations of SciPy's solver make.

    An iteration is a restart for ARPACK, a step with k vectors for LOBPCG, and for PROPACK a step
    with one.
    """
    size = basis_size or min(rank, max(2 * k + 1, 20))
    products = 2 * maxiter * {"arpack": size, "lobpcg": k, "propack": 1}[solver]
    return max(products, 3 * k + 10)  # fewer do not give k triplets
