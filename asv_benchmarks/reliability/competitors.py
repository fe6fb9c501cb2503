"""Contestants of the hard cases: trsvd's methods and oracles, and the installed peers."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy.sparse.linalg

import trsvd
from peers import solvers
from reliability.cases import Case, Truth
from reliability.judge import (
    Finding,
    Outcome,
    Standard,
    judge_result,
    judge_triplets,
    judge_update,
)
from trsvd._arrays.arrays import Arrays, HostArray, _namespace
from trsvd._arrays.dtypes import is_sparse, split_power
from trsvd.balls import KyFanDualBall, SpectralBall

METHODS: dict[str, Any] = {
    "auto": None,
    "trlan": trsvd.ThickRestartLanczos(),
    "trlan-block": trsvd.ThickRestartLanczos(block_size=3),
    "trlan-one-sided": trsvd.ThickRestartLanczos(reorthogonalize="one-sided"),
    "trlan-two-sided": trsvd.ThickRestartLanczos(reorthogonalize="two-sided"),
    "trlan-gram": trsvd.ThickRestartLanczos(gram=True),
    "rsvd": trsvd.RandomizedSVD(),
    "krylov": trsvd.BlockKrylov(),
    "power": trsvd.PowerIteration(),
    "direct-svd": trsvd.Direct(route="svd"),
    "direct-gram": trsvd.Direct(route="gram"),
}
"""Methods of trsvd and their variants by name; None leaves the choice to trsvd."""

# These methods need thousands of products if the values hardly decay.
CAPS = {"rsvd": 3000, "power": 3000, "krylov": 3000}

Solve = Callable[[Case, Any, Truth, str, int], Finding]


@dataclass(frozen=True, eq=False)
class Contestant:
    """Method, oracle or peer that runs on the hard cases.

    Parameters
    ----------
    name : str
        Name of the contestant.
    kind : {"method", "oracle", "peer"}
        A method or an oracle of trsvd, or a peer.
    solve : callable
        Function ``solve(case, A, truth, dtype, seed)`` that returns the finding.
    takes_sparse, takes_start : bool
        True if it accepts sparse matrices, and cases with a start.
    """

    name: str
    kind: Literal["method", "oracle", "peer"]
    solve: Solve = field(repr=False)
    takes_sparse: bool = True
    takes_start: bool = True

    def answer(self, case: Case, dtype: str, seed: int = 0) -> Finding | None:
        """Return the finding on its result for a case; None if it cannot run the case.

        Parameters
        ----------
        case : Case
            The case.
        dtype : str
            One of the case's dtypes.
        seed : int, default 0
            Seed of its random numbers.
        """
        A, truth = case.of(dtype)
        if case.start is not None and not self.takes_start:
            return None
        if is_sparse(A) and not self.takes_sparse:
            A = A.toarray()
        with warnings.catch_warnings(record=True) as record, np.errstate(all="ignore"):
            warnings.simplefilter("always")
            try:
                finding = self.solve(case, A, truth, dtype, seed)
            except Exception as error:
                # Any exception of a peer reports a failure; trsvd may raise only these two types.
                if self.kind != "peer" and not isinstance(error, (ValueError, RuntimeError)):
                    raise
                line = " ".join(str(error).split())
                return Finding(Outcome.SAYS, f"{type(error).__name__}: {line}"[:200])
        if self.kind != "peer" or finding.outcome is Outcome.RIGHT or not record:
            return finding
        line = " ".join(str(record[0].message).split())
        return Finding(Outcome.SAYS, f"{record[0].category.__name__}: {line}"[:200])


def _identity(A: Any) -> Any:
    return A


# ---- trsvd ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backend:
    """Array library, with the transfer of host arrays to it and back."""

    name: str = "numpy"
    put: Callable[[Any], Any] = _identity
    get: Callable[[Any], HostArray] = np.asarray


def backends() -> dict[str, Backend]:
    """Return NumPy and the installed ones of the other libraries."""
    found = {"numpy": Backend()}
    for name in ("torch", "array_api_strict"):
        if importlib.util.find_spec(name) is None:
            continue
        xp = _namespace(name)

        def put(A: Any, xp: Any = xp) -> Any:
            return xp.asarray(np.array(A.toarray() if is_sparse(A) else A))

        def get(X: Any) -> HostArray:
            return Arrays.of_array(X).get(X)

        found[name] = Backend(name, put, get)
    return found


def _method(name: str, backend: Backend) -> Contestant:
    """Return a method of trsvd on an array library, as a contestant."""

    def solve(case: Case, A: Any, truth: Truth, dtype: str, seed: int) -> Finding:
        start = None if case.start is None else backend.put(case.start.astype(dtype))
        result = trsvd.svds(
            backend.put(A),
            case.k,
            method=METHODS[name],
            start=start,
            rng=seed,
            max_matvecs=CAPS.get(name),
        )
        return judge_result(truth, result, backend.get, case.k, None)

    title = name if backend.name == "numpy" else f"{name} ({backend.name})"
    return Contestant(title, "method", solve)


def _oracle(title: str, spectral: bool = False, **options: Any) -> Contestant:
    """Return an oracle, cold, or warm from the subspace of a nearby matrix."""
    warm = options.pop("warm", False)
    asked = options.get("gap")

    def solve(case: Case, A: Any, truth: Truth, dtype: str, seed: int) -> Finding:
        k = min(A.shape) if spectral else case.k
        ball = SpectralBall() if spectral else KyFanDualBall(k)
        start: Any = None if case.start is None else case.start.astype(dtype)
        if warm:
            start = ball.lmo(_moved(A, truth, seed), rng=seed, **options)
        result = ball.lmo(A, start=start, rng=seed, **options)
        return judge_update(truth, result, result.update, k, asked)

    return Contestant(title, "oracle", solve, takes_sparse=False, takes_start=not spectral)


def _moved(A: HostArray, truth: Truth, seed: int) -> HostArray:
    """Return a matrix near A, with noise of about 1 % of its largest singular value."""
    rng = np.random.default_rng([seed, 2])
    noise = rng.standard_normal(A.shape) / sum(A.shape) ** 0.5
    size = 0.01 * float(truth.s[0])
    low, high = split_power(truth.exponent)
    return np.asarray((truth.B + size * noise) * low * high, dtype=A.dtype)


def own(methods: list[str] | None = None) -> list[Contestant]:
    """Return all methods of trsvd on NumPy, and three of them on the other libraries."""
    names = list(METHODS) if methods is None else methods
    numpy, *others = backends().values()
    found = [_method(name, numpy) for name in names]
    found += [
        _method(name, backend)
        for backend in others
        for name in ("trlan", "krylov", "direct-gram")
        if name in names
    ]
    return found


def oracles() -> list[Contestant]:
    """Return the oracles of the dual Ky Fan k-norm and of the spectral ball."""
    return [
        _oracle("kyfan_dual"),
        _oracle("kyfan_dual, gap", gap=1e-3),
        _oracle("kyfan_dual, gap, certified", gap=1e-3, certify=True),
        _oracle("kyfan_dual, gap, warm", gap=1e-3, warm=True),
        _oracle("spectral", spectral=True),
        _oracle("spectral, gap", spectral=True, gap=1e-3),
    ]


# ---- peers ----------------------------------------------------------------------------------


def _peer(
    name: str,
    module: str,
    solve: Callable[..., Any],
    *,
    tensors: bool = False,
    promised: float = 0.0,
    **traits: bool,
) -> Contestant | None:
    """Return a peer with its defaults; None if it is not installed.

    ``promised`` is its tolerance in units of rounding.
    """
    if importlib.util.find_spec(module) is None:
        return None
    backend = backends()["torch"] if tensors else Backend()

    def run(case: Case, A: Any, truth: Truth, dtype: str, seed: int) -> Finding:
        start = None if case.start is None else case.start.astype(dtype)
        found = solve(backend.put(A), case.k, seed, start)
        U, S, Vh = (backend.get(part) for part in found)
        standard = Standard.half_of_the_digits(dtype, promised)
        return judge_triplets(truth, U, S, Vh, case.k, standard)

    return Contestant(name, "peer", run, **traits)


def _scipy(A: Any, k: int, seed: int, start: Any, *, solver: str) -> Any:
    """Call `scipy.sparse.linalg.svds` with its defaults."""
    options: dict[str, Any] = {}
    if start is not None:
        v = start.sum(axis=1)
        # ARPACK starts on the shorter side, PROPACK on the left side.
        left = solver == "propack" or A.shape[0] < A.shape[1]
        options["v0"] = A @ v if left else v
    return scipy.sparse.linalg.svds(A, k, solver=solver, rng=seed, **options)


def peers() -> list[Contestant]:
    """Return the installed peers, each with its defaults."""
    dense = {"takes_sparse": False, "takes_start": False}
    lowrank = partial(solvers.torch_lowrank, more=0, niter=2)
    found = [
        _peer("scipy arpack", "scipy", partial(_scipy, solver="arpack")),
        _peer("scipy propack", "scipy", partial(_scipy, solver="propack")),
        _peer("scipy lobpcg", "scipy", partial(_scipy, solver="lobpcg"), takes_start=False),
        # Without a limit it does not return in some of the cases.
        _peer("primme", "primme", partial(solvers.primme, maxiter=1000), promised=1e4),
        _peer("sklearn randomized", "sklearn", solvers.sklearn_randomized, takes_start=False),
        _peer("torch.svd_lowrank", "torch", lowrank, tensors=True, **dense),
        _peer("torch.linalg.svd", "torch", solvers.torch_svd, tensors=True, **dense),
        _peer("numpy.linalg.svd", "numpy", solvers.numpy_svd, **dense),
    ]
    return [one for one in found if one is not None]


def contestants() -> list[Contestant]:
    """Return all contestants."""
    return [*own(), *oracles(), *peers()]
