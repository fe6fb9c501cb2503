"""trsvd in the race: as it is called without a method, and with each of its own methods."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trsvd._arrays.arrays import _namespace
from trsvd._errors import ConvergenceWarning
from trsvd._race.accuracy import Task
from trsvd._race.cells import Cell
from trsvd._race.matrices import Subject
from trsvd._race.peers import Ladder, Options, Peer, tolerances
from trsvd._solve.result import SVDResult
from trsvd._solve.svds import svds
from trsvd.balls import KyFanDualBall
from trsvd.lmo import kyfan_dual_lmo
from trsvd.methods import (
    BlockKrylov,
    Direct,
    Method,
    PowerIteration,
    RandomizedSVD,
    ThickRestartLanczos,
)

__all__ = ["DEFAULT", "OWN", "Own", "answer_of", "facts_of", "with_start"]

EXACT = 1e-4
"""A gap below this is not asked for: the oracle is called without one."""


@dataclass(frozen=True)
class Own(Peer):
    """trsvd with a method, or None for its own choice; `solve` is not used."""

    method: Method | None = None
    one_at_a_time: bool = False
    verify: bool = True

    def suits(self, cell: Cell, one: Subject) -> bool:
        """Whether such a run makes sense."""
        if self.one_at_a_time:
            return bool(cell.batch)
        if not self.verify and cell.batch:
            return False
        return super().suits(cell, one)

    def runner(self, task: Task) -> Callable[[int, Options], Any]:
        """``run(seed, options)``, which leaves unpacking to `answer_of`."""
        cell = task.cell
        matrices = [_put(subject.A, cell.backend) for subject in task.subjects]
        stack = _put(np.stack([s.A for s in task.subjects]), cell.backend) if cell.batch else None
        if cell.measure == "gap":
            return self._oracle(task, matrices, stack)

        def single(A: Any, seed: int, tol: float) -> Any:
            return svds(A, cell.k, method=self.method, tol=tol, rng=seed, verify=self.verify)

        def run(seed: int, options: Options) -> Any:
            tol = options.get("tol", cell.target)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                if self.one_at_a_time:
                    return [single(A, seed, tol) for A in matrices]
                return single(matrices[0] if stack is None else stack, seed, tol)

        return run

    def _oracle(self, task: Task, matrices: list[Any], stack: Any) -> Callable[[int, Options], Any]:
        cell = task.cell
        gap = cell.target if cell.target >= EXACT else None
        ball = KyFanDualBall(cell.k)

        def exact(G: Any, seed: int) -> Any:
            return kyfan_dual_lmo(G, cell.k, method=self.method, gap=gap, rng=seed), None, None

        def run(seed: int, options: Options) -> Any:
            del options
            if cell.batch and not self.one_at_a_time:
                return exact(stack, seed)
            if cell.batch:
                return [exact(G, seed) for G in matrices]
            if gap is None:
                return exact(matrices[0], seed)
            result = ball.lmo(matrices[0], gap=gap, start=task.start, method=self.method, rng=seed)
            return _Update(result, result.update)

        return run


@dataclass(frozen=True)
class _Update:
    """What an oracle returned, and the array that it was made into."""

    result: Any
    D: Any


def with_start(cell: Cell, one: Subject) -> Any:
    """The subspace that trsvd's oracle leaves of the matrix before; None where there is none."""
    if not cell.warm:
        return None
    return KyFanDualBall(cell.k).lmo(one.previous, gap=cell.target, rng=0).subspace


def answer_of(raw: Any) -> Any:
    """What `trsvd._race.accuracy.judge` reads, from what a runner returned."""
    if isinstance(raw, _Update):
        factors = raw.result.factors
        return raw.D, *(factors if factors is not None else (None, None))
    if isinstance(raw, list):
        return [answer_of(entry) for entry in raw]
    return tuple(raw)


def facts_of(raw: Any) -> dict[str, Any]:
    """What trsvd says of a run: method, products, passes."""
    first = raw[0] if isinstance(raw, list) else raw
    result = first.result if isinstance(first, _Update) else first
    names = ("matvecs", "matvecs_verify", "passes", "gap_kind")
    facts = {name: getattr(result, name) for name in names if hasattr(result, name)}
    if hasattr(result, "method"):
        facts["method"] = str(result.method)
    if isinstance(result, SVDResult) and result.S.ndim > 1:  # of each matrix, in the mean
        each = math.prod(result.S.shape[:-1])
        facts |= {name: round(value / each) for name, value in facts.items() if name in names}
    return facts


def _put(A: Any, backend: str) -> Any:
    return A if backend == "numpy" else _namespace(backend).asarray(A)


def _ladder(cell: Cell, one: Subject) -> Ladder:
    """Trsvd is asked for the accuracy itself; the paper's error alone it knows no rule for."""
    from_target = tolerances()
    return from_target(cell, one) if cell.measure == "err1" else Ladder("", (0,), 0)


def _own(name: str, method: Method | None, *, role: str = "own", **options: Any) -> Own:
    return Own(name, svds, "trsvd", role=role, method=method, ladder=_ladder, **options)


DEFAULT = _own("trsvd", None, role="trsvd")

OWN: Sequence[Own] = (
    _own("trlan", ThickRestartLanczos()),
    _own("trlan gram", ThickRestartLanczos(gram=True)),
    _own("trlan block 4", ThickRestartLanczos(block_size=4), measures=("residual",)),
    _own("trlan block 8", ThickRestartLanczos(block_size=8), measures=("residual",)),
    _own("krylov", BlockKrylov()),
    _own("rsvd", RandomizedSVD()),
    _own("direct gram", Direct(route="gram")),
    _own("direct svd", Direct(route="svd"), dense=True, full=True),
    _own("power", PowerIteration(), measures=("err1",)),
    _own("one at a time", None, measures=("gap", "residual"), one_at_a_time=True),
    _own("unverified", None, role="unverified", measures=("residual", "err1"), verify=False),
)
"""trsvd's own methods, by which the choice among them is judged; and what its check costs."""
