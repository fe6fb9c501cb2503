"""Diagnostics of steps: the quality of each direction, and its spectrum.

A hook is a callable that takes a `Diagnostics`, such as `CSVWriter` or `JSONLinesWriter`. Each
call computes all singular values of the matrix, which is often more expensive than the oracle. Use
``every`` to call the hook less often. Without a hook nothing is computed.
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
            f"every={every!r}; pass the number of steps between two calls, a positive integer"
        )
    return int(every)


@dataclass(frozen=True)
class Diagnostics:
    """Measurements of one matrix at one step.

    Attributes
    ----------
    parameter : str
        Name or number of the parameter.
    matrix : int
        Index of the matrix in a stack.
    step : int
        Step index, from 0.
    support : float or None
        Support function of the ball at the input of the oracle. For Fanion-k this is the Ky Fan
        k-norm. None if there is no ball.
    gap : float or None
        Relative gap of the update, computed with the exact support function. An update outside
        the ball is first divided by its largest singular value.
    gap_kind : str
        ``"exact"`` if there is a ball, else the kind that the oracle reports (``"estimate"``, ...).
    stable_rank : float
        ``||E||_F^2 / s_1^2``.
    nuclear_rank : float
        ``||E||_*^2 / ||E||_F^2``.
    angle : float or None
        Largest principal angle between the subspaces of this step and of the previous one, in
        radians. The larger of the angles of the left and the right vectors.
    matvecs, passes : int or None
        Products made by the oracle, counted in vectors and in blocks. None for polar iterations.

    See Also
    --------
    JSONLinesWriter, CSVWriter

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd import optim
    >>> found = []
    >>> rule = optim.fanion(0.1, k=1, diagnostics=found.append)
    >>> W = np.diag([3.0, 2.0])
    >>> updates, state = rule.update(W, rule.init(W), W)
    >>> round(found[0].stable_rank, 4), round(found[0].support, 4)
    (1.4444, 5.85)
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
    """Compute the diagnostics of one matrix.

    Parameters
    ----------
    E : array of shape (m, n)
        Input of the oracle.
    direction : Direction
        Output of the oracle.
    before : Subspace or None
        Subspace of the previous step.
    oracle : Oracle
        The oracle.
    parameter, matrix, step
        As in `Diagnostics`.

    Returns
    -------
    Diagnostics
    """
    S = singular_values(E)
    shares = S / S[0] if S[0] > 0 else S  # their squares stay in range
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
    """Return the largest principal angle, left or right, between two subspaces, in radians.

    Parameters
    ----------
    first, second : Subspace
        Subspaces of matrices of one shape. If one has fewer vectors, only the leading vectors of
        the other are used.

    Returns
    -------
    float
        Angle between 0 and pi / 2.
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
        # The sine, from the part outside the projection, is accurate for small angles too.
        rest = arrays.get(B - A @ arrays.adjoint_product(A, B))
        sines.append(float(np.linalg.norm(rest.astype(arrays.wide_dtype), 2)))
    return math.asin(min(1.0, max(sines)))


def _leading(subspace: Subspace) -> int:
    """Return the number of requested pairs, without the guard vectors."""
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
    """Hook that appends lines to a file."""

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)
        self._file: IO[str] | None = self.path.open("a", encoding="utf-8", newline="")

    @property
    def file(self) -> IO[str]:
        """The open file; ValueError after `close`."""
        if self._file is None:
            raise ValueError(f"{self.path} is closed; create a new writer")
        return self._file

    def close(self) -> None:
        """Flush and close the file."""
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
    """Hook that writes comma-separated values, one line for each matrix and step.

    Parameters
    ----------
    path : str or path
        Path of the file. Lines are appended to an existing file.

    Raises
    ------
    OSError
        If the file cannot be written.

    See Also
    --------
    JSONLinesWriter, Diagnostics

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from trsvd import optim
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log")
    ...     log = optim.CSVWriter(path)
    ...     rule = optim.fanion(0.1, k=1, diagnostics=log)
    ...     W = np.diag([3.0, 2.0])
    ...     updates, state = rule.update(W, rule.init(W), W)
    ...     log.close()
    ...     print(len(path.read_text().splitlines()), "lines")
    2 lines
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._writer = csv.DictWriter(self.file, [field.name for field in fields(Diagnostics)])
        if self.file.tell() == 0:
            self._writer.writeheader()

    def __call__(self, record: Diagnostics) -> None:
        """Write one line; None becomes an empty field."""
        _ = self.file  # ValueError if closed
        self._writer.writerow(asdict(record))


class JSONLinesWriter(_Writer):
    """Hook that writes a JSON object, on one line, for each matrix and step.

    Parameters
    ----------
    path : str or path
        Path of the file. Lines are appended to an existing file.

    Raises
    ------
    OSError
        If the file cannot be written.

    See Also
    --------
    CSVWriter, Diagnostics

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from trsvd import optim
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "log")
    ...     log = optim.JSONLinesWriter(path)
    ...     rule = optim.fanion(0.1, k=1, diagnostics=log)
    ...     W = np.diag([3.0, 2.0])
    ...     updates, state = rule.update(W, rule.init(W), W)
    ...     log.close()
    ...     print(len(path.read_text().splitlines()), "lines")
    1 lines
    """

    def __call__(self, record: Diagnostics) -> None:
        """Write one line."""
        self.file.write(json.dumps(asdict(record)) + "\n")
