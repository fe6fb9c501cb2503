"""Accuracy of the results in the race, computed afterwards in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from race.cells import Cell
from race.matrices import Subject
from trsvd._arrays.arrays import Arrays, HostArray, is_array
from trsvd.testing import err1, rounding_level

_DIGITS = 1.01
"""Factor on targets, which are compared to two digits."""

_ORTHONORMAL = 0.1
"""Largest accepted loss of orthonormality; it detects a triplet that is counted twice."""


@dataclass(frozen=True, eq=False)
class Task:
    """Task of all competitors in a cell.

    Parameters
    ----------
    cell : Cell
        The cell.
    subjects : list of Subject
        One matrix, or a batch.
    exact : tuple of numpy.ndarray or None
        The exact U, S, Vh, if err1 is measured.
    start : object
        trsvd's subspace of the previous matrix, for warm cells.
    """

    cell: Cell
    subjects: list[Subject]
    exact: tuple[HostArray, HostArray, HostArray] | None = None
    start: Any = None

    @property
    def one(self) -> Subject:
        """The matrix, or the first of the batch."""
        return self.subjects[0]


@dataclass(frozen=True)
class Verdict:
    """Comparison of a result with the target of the cell.

    Parameters
    ----------
    error : float
        Error in the measure of the cell; the largest one of a batch.
    reached : bool
        True if the error is at most the target and the singular values are the largest ones.
    note : str
        Description of the fault, if there is one.
    """

    error: float
    reached: bool
    note: str = ""


def judge(task: Task, answer: Any) -> Verdict:
    """Compare a result with the exact one.

    Parameters
    ----------
    task : Task
        The task.
    answer : tuple
        ``(U, S, Vh)``, with S in any order. For a gap it is ``(D, U, Vh)``, the update and its
        factors, or ``(D, None, None)``. Arrays can be of any library. For a batch, a list of such
        tuples, or one tuple of stacks.

    Returns
    -------
    Verdict
        Verdict on the worst matrix.

    Notes
    -----
    ``max_i max(||A v_i - s_i u_i||, ||A^H u_i - s_i v_i||) / s_1`` must be at most the target, and
    the error of each singular value must be within the target too. Small residuals alone do not
    show that the triplets are the leading ones. An update outside the ball is scaled into it before
    its gap is computed.
    """
    answers = list(_split(answer, len(task.subjects))) if task.cell.batch else [answer]
    if len(answers) != len(task.subjects):
        return Verdict(np.inf, False, f"{len(answers)} answers to {len(task.subjects)} matrices")
    verdicts = [
        _judge_one(task, subject, tuple(None if part is None else _host(part) for part in parts))
        for subject, parts in zip(task.subjects, answers, strict=True)
    ]
    return max(verdicts, key=lambda verdict: (not verdict.reached, verdict.error))


def _split(answer: Any, count: int) -> Sequence[Any]:
    """Split a batch that was computed at once into one result for each matrix."""
    if isinstance(answer, list):
        return answer
    parts = [[None] * count if part is None else part for part in answer]
    return list(zip(*parts, strict=True))


def _host(X: Any) -> HostArray:
    if not is_array(X):
        X = np.asarray(X)
    arrays = Arrays.of_array(X)
    return arrays.get(arrays.take(X)).astype(np.float64)


def _judge_one(task: Task, one: Subject, parts: tuple[Any, ...]) -> Verdict:
    cell = task.cell
    if cell.measure == "gap":
        return _judge_gap(cell, one, *parts)
    U, S, Vh = parts
    m, n = one.size
    shapes = (U.shape, S.shape, Vh.shape)
    if shapes != ((m, cell.k), (cell.k,), (cell.k, n)):
        return Verdict(np.inf, False, f"shapes {shapes}")
    if not all(np.isfinite(part).all() for part in parts):
        return Verdict(np.inf, False, "not finite")
    order = np.argsort(-S, kind="stable")
    U, S, Vh = U[:, order], S[order], Vh[order]
    if cell.measure == "err1":
        assert task.exact is not None
        error = err1(U, Vh, task.exact[0], task.exact[2])
        return Verdict(error, error <= cell.target * _DIGITS)
    return _judge_residual(cell, one, U, S, Vh)


def _judge_residual(cell: Cell, one: Subject, U: HostArray, S: HostArray, Vh: HostArray) -> Verdict:
    scale = float(one.S[0]) or 1.0
    forward = np.linalg.norm(one.wide @ Vh.T - U * S, axis=0)
    backward = np.linalg.norm(one.wide.T @ U - Vh.T * S, axis=0)
    error = float(max(forward.max(), backward.max())) / scale
    if error > cell.target * _DIGITS:
        return Verdict(error, False)
    rounding = rounding_level(max(one.size), float(np.finfo(cell.dtype).eps))
    off = float(np.abs(S - one.S[: cell.k]).max()) / scale
    if off > cell.target + rounding:
        return Verdict(error, False, f"singular values are off by {off:.1e} s_1")
    skew = max(_skew(U), _skew(Vh.T))
    if skew > _ORTHONORMAL:
        return Verdict(error, False, f"vectors are orthonormal to {skew:.1e} only")
    return Verdict(error, True)


def _skew(Q: HostArray) -> float:
    return float(np.abs(Q.T @ Q - np.eye(Q.shape[1])).max())


def _judge_gap(cell: Cell, one: Subject, D: HostArray, U: Any, Vh: Any) -> Verdict:
    if D.shape != one.size or not np.isfinite(D).all():
        return Verdict(np.inf, False, f"shape {D.shape}, or not finite")
    k = min(cell.k, one.rank)
    support = float(one.S[:k].sum())
    values = _values_of_factors(D, U, Vh)
    if values is None:
        return Verdict(np.inf, False, "the factors are not those of the update")
    gauge = max(float(values.max()), float(values.sum()) / k)
    attained = -float(np.vdot(one.wide, D)) / max(1.0, gauge)
    # An attained value above the support function is a rounding error.
    error = abs(1 - attained / support)
    return Verdict(error, error <= cell.target * _DIGITS)


def _values_of_factors(D: HostArray, U: Any, Vh: Any) -> HostArray | None:
    """Return the singular values of the update; None if its factors do not multiply to it."""
    if U is None or Vh is None:
        G = D @ D.T if D.shape[0] <= D.shape[1] else D.T @ D
        squares = np.linalg.eigvalsh(G)
        # The roots of rounding errors in zero eigenvalues would add up.
        level = len(G) * float(np.finfo(np.float64).eps) * float(squares[-1])
        return np.sqrt(np.where(squares > level, squares, 0.0))
    x = np.random.default_rng(0).standard_normal(D.shape[1])
    image = U @ (Vh @ x)
    # The sign of the factors does not matter.
    error = min(np.linalg.norm(D @ x - image), np.linalg.norm(D @ x + image))
    if error > 1e-3 * np.linalg.norm(image):
        return None
    left: Any = np.linalg.qr(U, mode="r")
    right: Any = np.linalg.qr(Vh.T, mode="r")
    return np.linalg.svd(left @ right.T, compute_uv=False)
