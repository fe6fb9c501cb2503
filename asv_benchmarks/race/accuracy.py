"""Whether an answer of the race is right: measured after the fact, in double precision."""

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
"""Targets are met to two digits."""

_ORTHONORMAL = 0.1
"""How far from orthonormal vectors may be: enough to see one triplet that is counted twice."""


@dataclass(frozen=True, eq=False)
class Task:
    """What everybody computes in a cell.

    Parameters
    ----------
    cell : Cell
        The cell.
    subjects : list of Subject
        One matrix, or a batch.
    exact : tuple of numpy.ndarray or None
        The exact U, S, Vh, where err1 is measured.
    start : object
        Where warm, trsvd's subspace of the matrix before.
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
    """How an answer compares with what was asked for.

    Parameters
    ----------
    error : float
        In the measure of the cell; the worst of a batch.
    reached : bool
        Whether it is at most the target, and the singular values are the top ones.
    note : str
        What is wrong, if anything is.
    """

    error: float
    reached: bool
    note: str = ""


def judge(task: Task, answer: Any) -> Verdict:
    """Compare an answer with the truth.

    Parameters
    ----------
    task : Task
        What was asked.
    answer : tuple
        ``(U, S, Vh)``, S in any order; for a gap ``(D, U, Vh)``, the update and its factors, or
        ``(D, None, None)``. Of any library; for a batch a list of them, or stacked.

    Returns
    -------
    Verdict
        Of the worst matrix.

    Notes
    -----
    ``max_i max(||A v_i - s_i u_i||, ||A^H u_i - s_i v_i||) / s_1`` must be at most the target, and
    no singular value may be off by more than the target allows a residual to be: small residuals
    alone do not say that the triplets are the top ones. An update is scaled into the ball, where
    it is not in it, before its gap is measured.
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
    """A batch that was computed at once, as one answer a matrix."""
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
    # An attained value above the support function can only be rounding.
    error = abs(1 - attained / support)
    return Verdict(error, error <= cell.target * _DIGITS)


def _values_of_factors(D: HostArray, U: Any, Vh: Any) -> HostArray | None:
    """Singular values of the update; None if its factors are not what they claim to be."""
    if U is None or Vh is None:
        G = D @ D.T if D.shape[0] <= D.shape[1] else D.T @ D
        squares = np.linalg.eigvalsh(G)
        # What rounding leaves of zeros would add up, once the root is taken.
        level = len(G) * float(np.finfo(np.float64).eps) * float(squares[-1])
        return np.sqrt(np.where(squares > level, squares, 0.0))
    x = np.random.default_rng(0).standard_normal(D.shape[1])
    image = U @ (Vh @ x)
    # A sign that the factors do not carry is no matter here.
    error = min(np.linalg.norm(D @ x - image), np.linalg.norm(D @ x + image))
    if error > 1e-3 * np.linalg.norm(image):
        return None
    left: Any = np.linalg.qr(U, mode="r")
    right: Any = np.linalg.qr(Vh.T, mode="r")
    return np.linalg.svd(left @ right.T, compute_uv=False)
