"""The arguments of SciPy's ``svds``, checked as SciPy checks them and put into trsvd's terms."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg

from trsvd._admit import admitted
from trsvd._arrays import Array, is_array
from trsvd._kinds import COMPUTE, describe, dtype_name, is_sparse
from trsvd._operator import MatrixOperator, as_operator
from trsvd.result import Subspace

__all__ = [
    "NORMALIZERS",
    "Asked",
    "as_matrix",
    "as_scipy_operator",
    "check_choice",
    "check_count",
    "check_svds",
    "generator",
]

SOLVERS = ("arpack", "lobpcg", "propack")
NORMALIZERS = ("auto", "QR", "LU", "none")


@dataclass(frozen=True)
class Asked:
    """What a call of ``svds`` asks for.

    Attributes
    ----------
    op : MatrixOperator
        The matrix.
    k : int
        Number of triplets.
    tol : float
        Relative residual.
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
    def in_particular(self) -> bool:
        """Whether something was given that only an iteration can honour."""
        return not (self.start is None and self.basis_size is None and self.rng is None)


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
        msg = f"`tol` must be a non-negative floating point value. It is {tol}."
        raise ValueError(msg)
    which = _one_of("which", str(which).upper(), ("LM", "SM"), "`which` must be in")
    start = None if v0 is None else _start(op, v0, solver)
    if maxiter is not None and (int(maxiter) != maxiter or maxiter <= 0):
        msg = f"`maxiter` must be a positive integer. It is {maxiter!r}."
        raise ValueError(msg)
    name, text = "return_singular_vectors", "`return_singular_vectors` must be in"
    wanted = _one_of(name, return_singular_vectors, (True, False, "u", "vh"), text)
    if options:
        msg = f"options={options!r}: there are no options of a solver here; leave them out"
        raise ValueError(msg)
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
        rng=generator(rng),
    )


def as_scipy_operator(A: Any) -> MatrixOperator:
    """``A`` as an operator, refused with SciPy's types of errors where SciPy refuses it."""
    if isinstance(A, MatrixOperator):
        return A
    A = admitted(A)
    if is_array(A) and A.ndim != 2:
        if A.ndim > 2:
            msg = f"A has shape {tuple(A.shape)}: array must have ndim <= 2"
            raise ValueError(msg)
        A = A[None, :] if A.ndim else A[None, None]
    if not (hasattr(A, "shape") and getattr(A, "dtype", None) is not None):
        # What has matvec and no dtype is asked by SciPy for one; what is no matrix is refused.
        A = scipy.sparse.linalg.aslinearoperator(A)
    name = dtype_name(A.dtype)
    if name == "bool" or (name not in COMPUTE and (is_array(A) or is_sparse(A))):
        msg = f"`A` must be of numeric data type. It is {describe(A)}."
        raise ValueError(msg)
    if math.prod(A.shape) == 0:
        msg = f"`A` must not be empty. It has shape {tuple(A.shape)}."
        raise ValueError(msg)
    return as_operator(A)


def generator(rng: Any) -> np.random.Generator | None:
    """The generator that a seed, a Generator or a legacy RandomState stands for."""
    if rng is None:
        return None
    if isinstance(rng, np.random.RandomState):  # numpy.random.default_rng takes it from 2.2 on
        return np.random.Generator(rng._bit_generator)
    return np.random.default_rng(rng)


def as_matrix(M: Any) -> Any:
    """What `trsvd.svds` takes: lists, data frames and the like as NumPy arrays."""
    M = admitted(M)
    if is_array(M) or is_sparse(M) or hasattr(M, "matmat") or hasattr(M, "matvec"):
        return M
    return np.asarray(M)


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """ValueError unless ``value`` is one of ``allowed``."""
    _one_of(name, value, allowed, f"`{name}` must be in")


def check_count(name: str, value: Any) -> int:
    """A whole number of at least 0."""
    try:
        count = operator.index(value)
    except TypeError:
        msg = f"{name}={value!r} is not a whole number"
        raise TypeError(msg) from None
    if count < 0:
        msg = f"{name}={count}; it must be at least 0"
        raise ValueError(msg)
    return count


def _one_of(name: str, value: Any, allowed: tuple[Any, ...], text: str) -> Any:
    if value not in allowed:
        msg = f"{text} {allowed}; it is {name}={value!r}"
        raise ValueError(msg)
    return value


def _whole(name: str, value: Any, least: int, most: int, rule: str) -> int:
    """A whole number of a range; ValueError with SciPy's sentence otherwise."""
    whole = int(value)
    if whole != value or not least <= whole <= most:
        msg = f"`{name}` must be an integer satisfying {rule}. It is {value!r}."
        raise ValueError(msg)
    return whole


def _residual_for(tol: float, eps: float) -> float:
    """The relative residual that stands for SciPy's ``tol``.

    SciPy hands ``tol**2`` to its eigensolvers, as a bound on ``||A^H A v - s^2 v|| / s^2``, which
    is the residual of the triplet relative to s.
    """
    return float(min(max(tol**2, eps**0.75), eps**0.5))


def _start(op: MatrixOperator, v0: Any, solver: str) -> Subspace | Array:
    """A starting vector of SciPy as trsvd takes it.

    SciPy's belongs to the shorter side, that of PROPACK to the left one.
    """
    v0 = v0 if is_array(v0) else np.atleast_1d(v0)
    if not dtype_name(v0.dtype).startswith(("float", "complex")):
        msg = "`v0` must be of floating or complex floating data type."
        raise ValueError(msg)
    m, n = op.shape
    shape = (m,) if solver == "propack" else (min(m, n),)
    if tuple(v0.shape) != shape:
        msg = f"`v0` must have shape {shape}. It has {tuple(v0.shape)}."
        raise ValueError(msg)
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
