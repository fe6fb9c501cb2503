"""Competitors of the race: peers, references, and trsvd without a method and with each."""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from peers.solvers import (
    arpack,
    dion,
    fbpca,
    gram,
    lobpcg,
    newton_schulz,
    numpy_svd,
    primme,
    propack,
    scipy_svd,
    sklearn_randomized,
    torch_lowrank,
    torch_svd,
)
from race.accuracy import Task
from race.cells import Cell
from race.matrices import Subject
from trsvd._arrays.arrays import _namespace
from trsvd._errors import ConvergenceWarning
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


@dataclass(frozen=True)
class Ladder:
    """Option that controls the accuracy: its values from the cheapest on, and the first to try."""

    option: str
    values: tuple[float, ...]
    hint: int


NO_LADDER = Ladder("", (0,), 0)


def _one_variant(cell: Cell, one: Subject) -> list[Options]:
    del cell, one
    return [{}]


def _always(k: int, rank: int) -> bool:
    del k, rank
    return True


def _no_ladder(cell: Cell, one: Subject) -> Ladder:
    del cell, one
    return NO_LADDER


@dataclass(frozen=True)
class Peer:
    """Competitor of trsvd.

    Parameters
    ----------
    name : str
        Name in the table.
    solve : callable
        See `peers.solvers`; with ``forms_update`` it returns ``(D, U, Vh)``.
    module : str
        Module that must be installed.
    role : {"peer", "reference", "own", "trsvd"}
        Role in the race. A reference solves another problem; only its time is shown.
    measures : tuple of str
        Measures of the cells in which it runs.
    library : str
        Array library of its input.
    dense, batched : bool
        True if it needs a dense matrix; True if it accepts a stack of matrices.
    full : bool
        True if it computes all triplets, with at least ``4 m n min(m, n)`` operations.
    forms_update : bool
        True if it computes the update of an oracle itself.
    fits : callable
        Function of k and min(m, n): True if it can compute k triplets of such a matrix.
    variants, ladder : callable
        Functions of the cell and the matrix: settings to try, and the option for the accuracy.
    """

    name: str
    solve: Callable[..., Any]
    module: str = "scipy"
    role: str = "peer"
    measures: tuple[str, ...] = ("residual", "gap", "err1")
    library: str = "numpy"
    dense: bool = False
    batched: bool = False
    full: bool = False
    forms_update: bool = False
    fits: Callable[[int, int], bool] = _always
    variants: Callable[[Cell, Subject], list[Options]] = _one_variant
    ladder: Callable[[Cell, Subject], Ladder] = _no_ladder

    def installed(self) -> bool:
        """True if its package is installed."""
        return importlib.util.find_spec(self.module) is not None

    def suits(self, cell: Cell, one: Subject) -> bool:
        """True if it can run in a cell."""
        if cell.measure not in self.measures or (self.dense and one.sparse):
            return False
        return self.fits(cell.k, one.rank)

    def runner(self, task: Task) -> Callable[[int, Options], Any]:
        """Return ``run(seed, options)`` for the matrices of a task, as arrays of its library."""
        cell, start = task.cell, right_vectors(task)
        matrices = [self._put(subject.A) for subject in task.subjects]
        stack = self._put(np.stack([s.A for s in task.subjects])) if cell.batch else None
        form = cell.measure == "gap" and not self.forms_update

        def single(A: Any, seed: int, options: Options) -> Any:
            answer = self.solve(A, cell.k, seed, start, **options)
            return _with_update(answer) if form else answer

        def run(seed: int, options: Options) -> Any:
            if not cell.batch:
                return single(matrices[0], seed, options)
            if self.batched:
                return single(stack, seed, options)
            return [single(A, seed, options) for A in matrices]

        return run

    def _put(self, A: Any) -> Any:
        if self.library == "numpy":
            return A
        return importlib.import_module(self.library).asarray(A)


def right_vectors(task: Task) -> Any:
    """Return the leading right vectors of the previous matrix, as columns; None in cold cells."""
    return None if task.start is None else np.ascontiguousarray(task.start.Vh.T)


def _with_update(answer: Any) -> Any:
    U, _, Vh = answer
    return -(U @ Vh), U, Vh


# ---- settings -------------------------------------------------------------------------------


_TOLERANCES = tuple(10 ** (-i / 4) for i in range(57))
"""Tolerances from 1 to 1e-14, by a factor of 1.8 for each step."""

_COUNTS = (*range(9), *(round(10 * 1.2**i) for i in range(23)))
"""Numbers of iterations up to 550; steps by 20 % from 10 on."""


def tolerances(share: Callable[[float], float] = float) -> Callable[[Cell, Subject], Ladder]:
    """Return a ladder of tolerances that begins at a function of the target."""

    def ladder(cell: Cell, one: Subject) -> Ladder:
        del one
        # The gap and the paper's error decrease faster than residuals.
        target = cell.target if cell.measure == "residual" else cell.target**0.5
        hint = round(-4 * math.log10(min(1.0, share(target))))
        return Ladder("tol", _TOLERANCES, min(hint, len(_TOLERANCES) - 1))

    return ladder


def counts(option: str, *, least: int = 0, hint: int = 3) -> Callable[[Cell, Subject], Ladder]:
    """Return a ladder of numbers of iterations."""

    def ladder(cell: Cell, one: Subject) -> Ladder:
        del cell, one
        values = tuple(count for count in _COUNTS if count >= least)
        return Ladder(option, values, hint)

    return ladder


def _variants(*options: Options) -> Callable[[Cell, Subject], list[Options]]:
    return lambda cell, one: list(options)


def _gram_variants(cell: Cell, one: Subject) -> list[Options]:
    options: list[Options] = [{}]
    if not one.sparse:
        options += [{"blas": "scipy"}]
    if 8 * cell.k >= one.rank or one.rank <= 100:
        options += [{"driver": "evd"}]
    return options


def _gram_ladder(cell: Cell, one: Subject) -> Ladder:
    del one
    return Ladder("wide", (False, True), 0) if cell.dtype == "float32" else NO_LADDER


def _arpack_variants(cell: Cell, one: Subject) -> list[Options]:
    # The default size max(2 k + 1, 20), a smaller and a larger basis.
    sizes = {min(size, one.rank - 1) for size in (cell.k + 8, 3 * cell.k + 20)}
    return [{}, *({"ncv": size} for size in sorted(sizes))]


def _primme_variants(cell: Cell, one: Subject) -> list[Options]:
    least = {"methodStage1": "PRIMME_DEFAULT_MIN_MATVECS"}
    normal = {"method": "primme_svds_normalequations"}
    sizes = {min(size, one.rank - 1) for size in (cell.k + 8, 4 * cell.k + 20)}
    options: list[Options] = [{}, least, normal]
    options += [{**normal, "ncv": size} for size in sorted(sizes)]
    if cell.k >= 4:
        options.append({"maxBlockSize": 4})
    return options


def _oversampled(cell: Cell, one: Subject) -> list[int]:
    """Return the oversampling sizes: the usual ten, and k."""
    return sorted({min(more, one.rank - cell.k) for more in (10, max(10, cell.k))})


def _sklearn_variants(cell: Cell, one: Subject) -> list[Options]:
    return [
        {"n_oversamples": more, "power_iteration_normalizer": normalizer}
        for normalizer in ("LU", "QR")
        for more in _oversampled(cell, one)
    ]


def _more_variants(cell: Cell, one: Subject) -> list[Options]:
    return [{"more": more} for more in _oversampled(cell, one)]


PEERS: Sequence[Peer] = (
    Peer(
        "gram",
        gram,
        fits=lambda k, rank: rank <= 8192,
        variants=_gram_variants,
        ladder=_gram_ladder,
    ),
    Peer(
        "primme", primme, "primme", variants=_primme_variants, ladder=tolerances(lambda t: 0.7 * t)
    ),
    Peer(
        "propack",
        propack,
        variants=_variants({"transposed": False}, {"transposed": True}),
        ladder=tolerances(math.sqrt),
    ),
    Peer(
        "arpack",
        arpack,
        fits=lambda k, rank: k < rank,
        variants=_arpack_variants,
        ladder=tolerances(math.sqrt),
    ),
    Peer(
        "randomized_svd",
        sklearn_randomized,
        "sklearn",
        variants=_sklearn_variants,
        ladder=counts("n_iter"),
    ),
    Peer(
        "svd_lowrank",
        torch_lowrank,
        "torch",
        library="torch",
        dense=True,
        batched=True,
        variants=_more_variants,
        ladder=counts("niter"),
    ),
    Peer("fbpca", fbpca, "fbpca", variants=_more_variants, ladder=counts("n_iter")),
    Peer(
        "lobpcg",
        lobpcg,
        fits=lambda k, rank: 5 * k < rank,
        ladder=counts("maxiter", least=1, hint=8),
    ),
    Peer(
        "dion",
        dion,
        measures=("gap",),
        dense=True,
        forms_update=True,
        variants=_variants(
            {"rotated": True, "more": 0},
            {"rotated": True, "more": 10},
            {"rotated": False, "more": 0},
        ),
        ladder=counts("steps", least=1, hint=0),
    ),
    Peer(
        "scipy.svd",
        scipy_svd,
        dense=True,
        full=True,
        variants=_variants({}, {"transposed": True}),
    ),
    Peer(
        "numpy.svd",
        numpy_svd,
        dense=True,
        full=True,
        batched=True,
        variants=_variants({}, {"transposed": True}),
    ),
    Peer(
        "torch.svd",
        torch_svd,
        "torch",
        library="torch",
        dense=True,
        full=True,
        batched=True,
        variants=_variants({}, {"transposed": True}),
    ),
)
"""Usually fast peers come first: peers five times slower than the fastest are tuned less."""

REFERENCES: Sequence[Peer] = (
    Peer(
        "newton-schulz",
        newton_schulz,
        role="reference",
        measures=("gap",),
        dense=True,
        forms_update=True,
    ),
    Peer(
        "newton-schulz torch",
        newton_schulz,
        "torch",
        role="reference",
        measures=("gap",),
        library="torch",
        dense=True,
        forms_update=True,
    ),
)
"""Muon's iteration approximates the full polar factor. It is another oracle, for its time only."""


EXACT = 1e-4
"""Smallest gap that is passed to the oracle; below it, the oracle is called without a gap."""


@dataclass(frozen=True)
class Own(Peer):
    """trsvd with a method; None is its own choice. `solve` is not used."""

    method: Method | None = None
    one_at_a_time: bool = False
    verify: bool = True

    def suits(self, cell: Cell, one: Subject) -> bool:
        """True if this variant applies to a cell."""
        if self.one_at_a_time:
            return bool(cell.batch)
        if not self.verify and cell.batch:
            return False
        return super().suits(cell, one)

    def runner(self, task: Task) -> Callable[[int, Options], Any]:
        """Return ``run(seed, options)``; `answer_of` unpacks its result."""
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
    """Result of an oracle, and its update as an array."""

    result: Any
    D: Any


def with_start(cell: Cell, one: Subject) -> Any:
    """Return the subspace of trsvd's oracle for the previous matrix; None in cold cells."""
    if not cell.warm:
        return None
    return KyFanDualBall(cell.k).lmo(one.previous, gap=cell.target, rng=0).subspace


def answer_of(raw: Any) -> Any:
    """Convert the result of a runner to the input of `race.accuracy.judge`."""
    if isinstance(raw, _Update):
        factors = raw.result.factors
        return raw.D, *(factors if factors is not None else (None, None))
    if isinstance(raw, list):
        return [answer_of(entry) for entry in raw]
    return tuple(raw)


def facts_of(raw: Any) -> dict[str, Any]:
    """Return the facts that trsvd reports of a run: method, products, passes."""
    first = raw[0] if isinstance(raw, list) else raw
    result = first.result if isinstance(first, _Update) else first
    names = ("matvecs", "matvecs_verify", "passes", "gap_kind")
    facts = {name: getattr(result, name) for name in names if hasattr(result, name)}
    if hasattr(result, "method"):
        facts["method"] = str(result.method)
    if isinstance(result, SVDResult) and result.S.ndim > 1:  # mean over the matrices
        each = math.prod(result.S.shape[:-1])
        facts |= {name: round(value / each) for name, value in facts.items() if name in names}
    return facts


def _put(A: Any, backend: str) -> Any:
    return A if backend == "numpy" else _namespace(backend).asarray(A)


def _ladder(cell: Cell, one: Subject) -> Ladder:
    """Return no ladder, since trsvd takes the target itself, except for the paper's error."""
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
"""trsvd's own methods, to judge its automatic choice, and a run without the check."""


Options = dict[str, Any]
