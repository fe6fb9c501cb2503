"""Truncated SVD methods side by side, each to the same error: the table of the Ky Fan paper.

A method runs to its first iteration with ``err1 < target``; the time is that of fresh runs with
exactly the products that this took. The exact triplets are computed beforehand, off the clock.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, _namespace
from trsvd._arrays.dtypes import is_sparse
from trsvd._errors import ConvergenceWarning
from trsvd._solve.result import Info
from trsvd._solve.svds import svds
from trsvd.methods import METHODS, Direct, Method, RandomizedSVD, ThickRestartLanczos
from trsvd.polar import newton_schulz, newton_schulz_iterates, newton_schulz_matvecs
from trsvd.reports import check_plot, figure_class, machine
from trsvd.table.matrices import (
    LARGE,
    PAPER,
    Case,
    Figures,
    Undefined,
    gaussian,
    momentum_matrix,
)
from trsvd.testing import err1, err2

__all__ = [
    "LARGE",
    "NAMES",
    "NEWTON_SCHULZ",
    "PAPER",
    "Case",
    "Figures",
    "Irreproducible",
    "Place",
    "Point",
    "Row",
    "Undefined",
    "check_plot",
    "compare",
    "gaussian",
    "machine",
    "method_object",
    "momentum_matrix",
    "plot",
    "to_json",
]

NEWTON_SCHULZ = "newton-schulz"
NAMES = ("trlan", "rsvd", "power", "krylov", "direct", NEWTON_SCHULZ)
"""The methods of a table, in its order."""


@dataclass(frozen=True)
class Point:
    """State of a run after an iteration; ``seconds`` are those of the method alone."""

    matvecs: int
    seconds: float
    err1: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one matrix.

    Attributes
    ----------
    matrix, size, dtype, k, method, options, backend, seed : str, tuple, ...
        What ran on what. Newton-Schulz has ``k = min(m, n)``: its error is that of the polar
        factor.
    target : float
        What err1 was to get below.
    reached : bool
        Whether it did.
    seconds : float
        Median time of the fresh runs.
    times : tuple of float
        All of them.
    matvecs, iterations : int
        What the method made, in each of them.
    err1, err2 : float
        Errors of the triplets that it returned; err2 is None where there are no singular values.
    paper : Figures or None
        What the paper has here.
    curve : tuple of Point
        The way there, one point an iteration.
    """

    matrix: str
    size: tuple[int, int]
    dtype: str
    k: int
    method: str
    options: str
    backend: str
    seed: int
    target: float
    reached: bool
    seconds: float
    times: tuple[float, ...]
    matvecs: int
    iterations: int
    err1: float
    err2: float | None
    paper: Figures | None
    curve: tuple[Point, ...] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all but the curve."""
        paper = self.paper and dataclasses.asdict(self.paper)
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)[:-1]},
            "size": list(self.size),
            "times": list(self.times),
            "paper": paper,
        }


class Irreproducible(RuntimeError):
    """A fresh run with the same budget did not repeat the run that found the budget."""


# ---- running --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Array library and device that methods run on.

    Parameters
    ----------
    backend : {"numpy", "torch", "cupy"}
        Name of the library.
    device : str, optional
        As the library spells it, such as ``"cuda"``.
    """

    backend: str = "numpy"
    device: str | None = None

    def put(self, A: Any) -> Any:
        """A host matrix there; ValueError if there is no such place."""
        if self.backend == "numpy":
            return A
        if is_sparse(A):
            raise ValueError("sparse matrices run with --backend numpy only")
        try:
            return _namespace(self.backend).asarray(np.array(A), device=self.device)
        except ImportError as error:
            raise ValueError(f"--backend {self.backend}: it is not installed ({error})") from error
        except Exception as error:  # what a library without its device raises is its own
            line = " ".join(str(error).split())
            raise ValueError(
                f"--backend {self.backend}: cannot hold the matrix ({line})"
            ) from error


Tick = Callable[[int, float], None]


def _ignore(matvecs: int, error: float) -> None:
    """No progress wanted."""


def method_object(name: str, rank: int, k: int, basis_size: int | None = None) -> Method:
    """The method behind a name, with the options that the table gives it.

    Parameters
    ----------
    name : str
        One of ``METHODS``.
    rank : int
        min(m, n).
    k : int
        Number of triplets.
    basis_size : int, optional
        For TRLan: ``2 k + 20`` where min(m, n) is at most 1000, else ``2 k + 60``, by default.

    Returns
    -------
    Method
        TRLan with single vectors, RSVD with 10 vectors more than k, the full SVD.
    """
    if name == "trlan":
        size = basis_size if basis_size is not None else 2 * k + (20 if rank <= 1000 else 60)
        return ThickRestartLanczos(block_size=1, basis_size=size)
    if name == "rsvd":
        return RandomizedSVD(oversampling=10)
    if name == "direct":
        return Direct(route="svd")  # one step: there is no budget to find
    return METHODS[name]()


def compare(
    case: Case,
    k: int | None,
    methods: Iterable[str] = NAMES,
    *,
    target: float = 1e-2,
    seed: int = 0,
    place: Place | None = None,
    repeats: int | None = None,
    basis_size: int | None = None,
    progress: Callable[[str], Tick] | None = None,
) -> Iterator[Row]:
    """Run methods on one matrix, each to ``err1 < target``.

    Parameters
    ----------
    case : Case
        The matrix.
    k : int or None
        Number of triplets; None for Newton-Schulz, which has no k.
    methods : iterable of str
        Of `NAMES`. Newton-Schulz runs where k is None, the others where it is not.
    target : float, default 1e-2
        What err1 must get below.
    seed : int, default 0
        Seed of the start block.
    place : Place, optional
        Where to run; NumPy by default.
    repeats : int, optional
        Number of fresh runs to time; by default 5, 3 where one takes more than 0.5 s, and 1
        where it takes more than 5 s.
    basis_size : int, optional
        Of TRLan; see `method_object`.
    progress : callable, optional
        Called with a method's name as it starts; what it returns is called with ``(matvecs, err1)``
        after each iteration.

    Yields
    ------
    Row
        As each method finishes.

    Raises
    ------
    Undefined
        If err1 does not exist for this matrix and k.
    ValueError
        If an argument does not fit the matrix.

    Examples
    --------
    >>> from trsvd.table import Case, compare, gaussian
    >>> [row] = compare(Case("gaussian", gaussian(60, 40, 0)), 3, ["power"], repeats=1)
    >>> row.matvecs == 3 * (2 * row.iterations + 1), row.err1 < 1e-2
    (True, True)
    """
    place = place or Place()
    A = place.put(case.A)
    for name in methods:
        if (name == NEWTON_SCHULZ) != (k is None):
            continue
        tick = progress(name) if progress else _ignore
        if k is None:
            trial: _Trial = _PolarTrial(case, A)
        else:
            method = method_object(name, case.rank, k, basis_size)
            trial = _TripletTrial(case, A, k, method, seed)
        yield _row(trial, case, name, target, seed, place, repeats, tick)


def _row(
    trial: _Trial,
    case: Case,
    name: str,
    target: float,
    seed: int,
    place: Place,
    repeats: int | None,
    tick: Tick,
) -> Row:
    curve = trial.search(target, tick)
    found = curve[-1]
    times: list[float] = []
    while len(times) < (repeats or _enough(times)):
        started = time.perf_counter()
        outcome = trial.repeat()
        times.append(time.perf_counter() - started)
    matvecs, iterations, first, second = trial.judge(outcome)
    same = abs(first - found.err1) <= 0.01 * found.err1 + case.rounding
    if matvecs != found.matvecs or not same:
        raise Irreproducible(
            f"{name} on {case.name}: the run with a callback came to err1 = {found.err1:.3e} with "
            f"{found.matvecs} products, a fresh run to {first:.3e} with {matvecs}"
        )
    return Row(
        matrix=case.name,
        size=case.size,
        dtype=str(case.A.dtype),
        k=trial.k,
        method=name,
        options=trial.options,
        backend=place.backend,
        seed=seed,
        target=target,
        reached=first < target,
        seconds=statistics.median(times),
        times=tuple(times),
        matvecs=matvecs,
        iterations=iterations,
        err1=first,
        err2=second,
        paper=case.paper(trial.k, name),
        curve=tuple(curve),
    )


def _enough(times: list[float]) -> int:
    """Return the number of runs for a median: long runs vary less."""
    longest = max(times, default=0.0)
    return 1 if longest > 5 else 3 if longest > 0.5 else 5


class _Trial:
    """One method on one matrix: find the budget, repeat with it, judge what comes out."""

    k: int
    options: str

    def search(self, target: float, tick: Tick) -> list[Point]:
        """The curve down to the first iteration with err1 < target."""
        raise NotImplementedError

    def repeat(self) -> Any:
        """A fresh run with the budget found."""
        raise NotImplementedError

    def judge(self, outcome: Any) -> tuple[int, int, float, float | None]:
        """Matvecs, iterations, err1 and err2 of such a run."""
        raise NotImplementedError


class _TripletTrial(_Trial):
    def __init__(self, case: Case, A: Any, k: int, method: Method, seed: int) -> None:
        self.A, self.k, self.method, self.seed = A, k, method, seed
        self.U, self.S, self.Vh = case.truth(k)
        self.options = repr(method)
        self.budget = 0

    def search(self, target: float, tick: Tick) -> list[Point]:
        curve: list[Point] = []
        spent, resumed = 0.0, time.perf_counter()

        def look(info: Info) -> bool:
            nonlocal spent, resumed
            _wait_for(self.A)
            spent += time.perf_counter() - resumed
            U, _, Vh = info.triplets()
            error = err1(U, Vh, self.U, self.Vh)
            curve.append(Point(info.matvecs, spent, error))
            tick(info.matvecs, error)
            resumed = time.perf_counter()
            return error < target

        # Where the gap is small, power iteration takes thousands of steps: the cap of svds is less.
        self._svds(callback=look, max_matvecs=max(40_000 * self.k, 40 * min(self.A.shape)))
        self.budget = curve[-1].matvecs
        return curve

    def repeat(self) -> Any:
        result = self._svds(max_matvecs=self.budget)
        _wait_for(result.Vh)
        return result

    def _svds(self, **options: Any) -> Any:
        with warnings.catch_warnings():
            # A budget ends before tol = 0 does: that is what is wanted here.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return svds(
                self.A, self.k, method=self.method, tol=0, verify=False, rng=self.seed, **options
            )

    def judge(self, outcome: Any) -> tuple[int, int, float, float | None]:
        U, S, Vh = outcome
        truth = (self.U, self.S, self.Vh)
        first = err1(U, Vh, self.U, self.Vh)
        return outcome.matvecs, outcome.iterations, first, err2(U, S, Vh, *truth)


class _PolarTrial(_Trial):
    options = "coefficients=(1.5, -0.5)"

    def __init__(self, case: Case, A: Any) -> None:
        if is_sparse(A):
            raise Undefined(f"{NEWTON_SCHULZ} needs a dense matrix")
        self.A, self.k, self.size = A, case.rank, case.size
        self.arrays = Arrays.of_array(A)
        self.truth = case.polar_factor()
        self.steps = 0
        # Values grow by 1.5 a step: from the smallest that counts, and a few steps to settle.
        self.limit = 20 + math.ceil(math.log(case.rank**0.5 / case.rounding) / math.log(1.5))

    def _error(self, X: Array) -> float:
        host = self.arrays.get(self.arrays.take(X))
        return float(np.linalg.norm(host - self.truth) / self.k**0.5)

    def search(self, target: float, tick: Tick) -> list[Point]:
        curve: list[Point] = []
        iterates = newton_schulz_iterates(self.A)
        spent, resumed = 0.0, time.perf_counter()
        for steps, X in enumerate(itertools.islice(iterates, self.limit + 1)):
            _wait_for(X)
            spent += time.perf_counter() - resumed
            error = self._error(X)
            matvecs = newton_schulz_matvecs(self.size, steps)
            curve.append(Point(matvecs, spent, error))
            tick(matvecs, error)
            if error < target:
                break
            resumed = time.perf_counter()
        self.steps = len(curve) - 1
        return curve

    def repeat(self) -> Any:
        X = newton_schulz(self.A, steps=self.steps)
        _wait_for(X)
        return X

    def judge(self, outcome: Any) -> tuple[int, int, float, float | None]:
        matvecs = newton_schulz_matvecs(self.size, self.steps)
        return matvecs, self.steps, self._error(outcome), None


def _wait_for(X: Any) -> None:
    """Wait for what a device still computes: nothing reads a value before it is there."""
    if not is_sparse(X):
        Arrays.of_array(X).get(X[:1, :1] + 0)


def to_json(rows: Iterable[Row], about: dict[str, Any]) -> str:
    """``{"rows": [...], "machine": {...}}``.

    Parameters
    ----------
    rows : iterable of Row
        What was measured.
    about : dict
        On what; see `machine`.

    Returns
    -------
    str
        JSON, indented.
    """
    record = {"rows": [row.as_dict() for row in rows], "machine": about}
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def plot(rows: Sequence[Row], path: str | Path) -> None:
    """Draw err1 against products and against seconds, one curve a method.

    Parameters
    ----------
    rows : sequence of Row
        One pair of panels for each matrix, k and seed.
    path : str or Path
        File to write; its ending says the format.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    Figure = figure_class()
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.matrix, row.size, row.k, row.seed), []).append(row)
    figure = Figure(figsize=(10, 3.4 * max(1, len(groups))), layout="constrained")
    panels = figure.subplots(max(1, len(groups)), 2, squeeze=False)
    names = list(dict.fromkeys(row.method for row in rows))
    colors = {name: f"C{i % 10}" for i, name in enumerate(names)}
    for (left, right), ((matrix, size, k, _), members) in zip(panels, groups.items(), strict=False):
        for row in members:
            # What jumps far below the target lies on the lower edge: the way there is to be seen.
            errors = [max(point.err1, row.target / 100) for point in row.curve]
            marker = "." if len(errors) > 1 else "v"
            style = {"label": row.method, "color": colors[row.method], "marker": marker}
            left.plot([point.matvecs for point in row.curve], errors, **style)
            right.plot([point.seconds for point in row.curve], errors, **style)
        for panel, label in ((left, "products with A or its adjoint"), (right, "seconds")):
            panel.set(xscale="log", yscale="log", xlabel=label, ylabel="err1")
            panel.set_title(f"{matrix}, {size[0]} x {size[1]}, k = {k}", fontsize="medium")
            panel.axhline(members[0].target, color="0.6", lw=0.8, ls="--")
            panel.legend(fontsize="small")
    figure.savefig(path, dpi=150)
