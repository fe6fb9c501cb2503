"""Diagnostics of steps: the quality of each direction, and its spectrum.

A hook is any callable that takes a `Diagnostics`; `CSVWriter` and `JSONLinesWriter` are two. The
singular values of each matrix are computed for it, which costs more than many an oracle: ask for it
every so many steps. Without a hook nothing is computed.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass, fields
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays
from trsvd._solve.result import Subspace
from trsvd._solve.svds import singular_values
from trsvd.optim.oracles import Direction, Oracle


def check_every(every: Any) -> int:
    """Return the steps between calls of a hook; ValueError unless it is a positive integer."""
    if isinstance(every, bool) or not isinstance(every, Integral) or every < 1:
        raise ValueError(
            f"every={every!r}; the steps from one call to the next are a positive integer"
        )
    return int(every)


@dataclass(frozen=True)
class Diagnostics:
    """One matrix at one step.

    Attributes
    ----------
    parameter : str
        Name or number of the parameter.
    matrix : int
        Which matrix of a stack.
    step : int
        From 0.
    support : float or None
        The support function of the ball at the direction given to the oracle: the Ky Fan k-norm,
        for Fanion-k. None where there is no ball.
    gap : float or None
        Relative gap of the update, measured with the exact support function. Where an iteration
        left the ball, that of the update divided by its largest singular value.
    gap_kind : str
        ``"exact"``; or what the oracle reports (``"estimate"``, ...) where there is no ball.
    stable_rank : float
        ``||E||_F^2 / s_1^2``.
    nuclear_rank : float
        ``||E||_*^2 / ||E||_F^2``.
    angle : float or None
        Largest angle between the subspace of this step and that of the last one, in radians; of
        left or right vectors, whichever is larger.
    matvecs, passes : int or None
        Products that the oracle made, in vectors and in blocks; None for iterations as they come.
    """

    parameter: str
    matrix: int
    step: int
    support: float | None
    gap: float | None
    gap_kind: str
    stable_rank: float
    nuclear_rank: float
    angle: float | None
    matvecs: int | None
    passes: int | None


def measured(
    E: Array,
    direction: Direction,
    before: Subspace | None,
    oracle: Oracle,
    parameter: str,
    matrix: int,
    *,
    step: int,
) -> Diagnostics:
    """Diagnostics of one matrix.

    Parameters
    ----------
    E : array of shape (m, n)
        What the oracle was given.
    direction : Direction
        Its answer.
    before : Subspace or None
        That of the last step.
    oracle : Oracle
        What answered.
    parameter, matrix, step
        As in `Diagnostics`.

    Returns
    -------
    Diagnostics
    """
    S = singular_values(E)
    shares = S / S[0] if S[0] > 0 else S  # squares of these stay in range
    energy = float(np.sum(shares**2))
    result, after = direction.result, direction.subspace
    support = oracle.support(E, step)
    gap = None if result is None else result.gap
    kind = "exact" if result is None else result.gap_kind
    if support is not None:
        kind, gap = "exact", 0.0
        if support > 0:
            longest = 1.0 if result is not None else max(1.0, _norm(direction.update))
            gap = 1 + _inner(E, direction.update) / longest / support
    return Diagnostics(
        parameter=parameter,
        matrix=matrix,
        step=step,
        support=support,
        gap=gap,
        gap_kind=kind,
        stable_rank=energy,
        nuclear_rank=float(shares.sum()) ** 2 / energy if energy else 0.0,
        angle=subspace_angle(before, after) if before and after else None,
        matvecs=None if result is None else result.matvecs,
        passes=None if result is None else result.passes,
    )


def subspace_angle(first: Subspace, second: Subspace) -> float:
    """The largest principal angle between two subspaces, left or right, in radians.

    Parameters
    ----------
    first, second : Subspace
        Of matrices of one shape; where the numbers of vectors differ, the leading ones count.

    Returns
    -------
    float
        Between 0 and pi / 2.
    """
    arrays = Arrays.of_array(first.U)
    k = min(_leading(first), _leading(second))
    if k == 0:
        return 0.0
    sines = []
    for A, B in (
        (first.U, second.U),
        (arrays.adjoint(first.Vh), arrays.adjoint(second.Vh)),
    ):
        A, B = arrays.take(A)[:, :k], arrays.take(B)[:, :k]
        # The sine, from what the projection leaves, is right for small angles too.
        rest = arrays.get(B - A @ arrays.adjoint_product(A, B))
        sines.append(float(np.linalg.norm(rest.astype(arrays.wide_dtype), 2)))
    return math.asin(min(1.0, max(sines)))


def _leading(subspace: Subspace) -> int:
    """The pairs that were asked for, without those to spare."""
    width = int(subspace.U.shape[1])
    return width if subspace.track is None else min(width, subspace.track.k)


def _norm(X: Array) -> float:
    return float(singular_values(X)[0])


def _inner(X: Array, Y: Array) -> float:
    arrays = Arrays.of_array(X)
    A, B = arrays.get(arrays.take(X)), arrays.get(arrays.take(Y))
    return float(np.real(np.vdot(A.astype(arrays.wide_dtype), B.astype(arrays.wide_dtype))))


# ---- writers --------------------------------------------------------------------------------


class _Writer:
    """A hook that writes lines to a file, appended to what is there."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = self.path.open("a", encoding="utf-8", newline="")

    @property
    def file(self) -> IO[str]:
        """The open file; ValueError after `close`."""
        if self._file is None:
            raise ValueError(f"{self.path} is closed; make another writer")
        return self._file

    def close(self) -> None:
        """Write out what is left, and close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class CSVWriter(_Writer):
    """A hook that writes a table of comma-separated values, a line for each matrix and step.

    Parameters
    ----------
    path : str or path
        Where; appended to if it exists.

    Raises
    ------
    OSError
        If the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._writer = csv.DictWriter(self.file, [field.name for field in fields(Diagnostics)])
        if self.file.tell() == 0:
            self._writer.writeheader()

    def __call__(self, record: Diagnostics) -> None:
        """Write a line; what is None is left empty."""
        _ = self.file  # open still?
        self._writer.writerow(asdict(record))


class JSONLinesWriter(_Writer):
    """A hook that writes a JSON object on a line for each matrix and step.

    Parameters
    ----------
    path : str or path
        Where; appended to if it exists.

    Raises
    ------
    OSError
        If the file cannot be written.
    """

    def __call__(self, record: Diagnostics) -> None:
        """Write a line."""
        self.file.write(json.dumps(asdict(record)) + "\n")
