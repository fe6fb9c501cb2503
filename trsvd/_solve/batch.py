"""Truncated SVDs of a batch of matrices, with one result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray, is_array
from trsvd._errors import Status, warn_caller
from trsvd._krylov.batched import HOST_STACK_UP_TO, STACK_UP_TO, Settled, Stack
from trsvd._plan.precision import are_moderate
from trsvd._solve.driver import Request
from trsvd._solve.problem import check_start, size_of_start
from trsvd._solve.result import Completeness, NotConverged, Subspace, SVDResult
from trsvd._solve.select import general_method, named_method
from trsvd._solve.small import small_batch
from trsvd._validate import check_cap, check_k, check_rng, check_tol
from trsvd.methods import Direct, Method
from trsvd.operators import as_operator

Single = Callable[[Array, Any, np.random.Generator], SVDResult]
"""Function of a matrix, its start and a generator; may raise `NotConverged`."""

# Size of the parts of a host batch, so that a part stays in cache.
_CHUNK_BYTES = 1 << 21
# Kinds of certificates, from the weakest to the strongest.
_KINDS = ("unchecked", "probable", "random start", "norm", "exact")


def is_batch(A: Any) -> bool:
    """True if ``A`` is an array of more than two dimensions."""
    return is_array(A) and A.ndim > 2


@dataclass(frozen=True)
class _Part:
    """Triplets of a part of the batch, in the user's dtype."""

    places: HostArray
    U: Array
    S: Array
    Vh: Array
    residuals: HostArray


def svds_of_batch(
    A: Array,
    k: int,
    *,
    method: str | Method | None,
    tol: float | None,
    state: Any,
    rng: Any,
    request: Request,
    single: Single,
) -> SVDResult:
    """Compute `svds` of each matrix of a batch; small matrices together, in batched products.

    Parameters
    ----------
    A : array of shape (..., m, n)
        The batch.
    k, method, tol, state, rng
        As for `svds`.
    request : Request
        The other arguments of `svds`.
    single : callable
        Function for the matrices that are not computed together.
    """
    arrays = Arrays.of_array(A)
    ahead, shape = tuple(A.shape[:-2]), (int(A.shape[-2]), int(A.shape[-1]))
    if 0 in shape:
        raise ValueError(
            f"A has shape {tuple(A.shape)}; matrices without rows or columns have no triplets"
        )
    if state is not None:
        raise ValueError(
            "state= belongs to one matrix; resume the states of single calls, one by one"
        )
    k, tol, generator = check_k(k, min(shape)), check_tol(tol, arrays.eps), check_rng(rng)
    flat = arrays.xp.reshape(A, (math.prod(ahead), *shape))
    starts = _starts(request.start, arrays, ahead, shape)
    method = None if method is None else named_method(method)
    if request.max_matvecs is not None:
        check_cap(request.max_matvecs)
    parts: list[_Part] = []
    known = Completeness("exact" if request.verify else "unchecked")
    work = _Work(method or Direct(), known)
    plain = method is None and request.is_plain
    found = small_batch(flat, k, tol, generator, request.verify) if plain else None
    rest: HostArray = np.arange(flat.shape[0])
    if found is not None:
        places, triplets, residuals, each = found
        parts.append(_Part(places, *triplets, residuals))
        for one in each:
            counts = (one.matvecs, one.matvecs_verify, one.passes, one.iterations)
            work.add(one.method, one.completeness, counts)
        rest = np.delete(rest, places)
    if len(rest) and _together(flat, k, tol, method, request):
        left = flat if found is None else arrays.xp.take(flat, arrays.indices(rest), axis=0)
        with arrays.as_asked():
            for first, stack, norms in _stacks(arrays, left):
                for settled in stack.leading(k, k, tol, norms, through=True):
                    parts.append(_handed_out(stack, settled, rest[first:]))
                    count = len(parts[-1].places)
                    counts = (count * min(shape), 2 * count * k, count, count)
                    work.add(Direct(), known, counts)
    done = set(np.concatenate([part.places for part in parts]).tolist()) if parts else set()
    failures: dict[int, SVDResult] = {}
    for place in range(flat.shape[0]):
        if place in done:
            continue
        try:
            result = single(flat[place, :, :], starts(place), generator)
        except NotConverged as failure:
            result = failures[place] = failure.result
        except ValueError as error:
            raise ValueError(f"matrix {_named(place, ahead)} of the batch: {error}") from error
        counts = (result.matvecs, result.matvecs_verify, result.passes, result.iterations)
        work.add(result.method, result.completeness, counts)
        U, S, Vh = (arrays.xp.expand_dims(x, axis=0) for x in result)
        parts.append(_Part(np.array([place]), U, S, Vh, result.residuals[None, :]))
    answer = _joined(arrays, parts, work, failures, ahead, (*shape, k))
    if failures:
        _report(answer, failures, ahead, tol, request)
    return answer


class _Work:
    """Sums of the products, and the weakest certificate, of all parts."""

    def __init__(self, method: Method, completeness: Completeness) -> None:
        self.counts, self.most = [0, 0, 0, 0], -1
        self.method, self.completeness = method, completeness

    def add(self, method: Method, completeness: Completeness, counts: Sequence[int]) -> None:
        """Add a part with its numbers of products, products of checks, passes and iterations."""
        self.counts = [old + new for old, new in zip(self.counts, counts, strict=True)]
        if counts[0] > self.most:
            self.method, self.most = method, counts[0]
        self._weaken(completeness)

    def _weaken(self, other: Completeness) -> None:
        def rank(known: Completeness) -> tuple[int, float]:
            return _KINDS.index(known.kind), -known.eta

        slack = max(self.completeness.slack, other.slack)
        self.completeness = replace(min(self.completeness, other, key=rank), slack=slack)


def _together(flat: Array, k: int, tol: float, method: Method | None, request: Request) -> bool:
    """True if the batch is factorized together, as each matrix alone would be factorized.

    With a limit of products or a callback, each matrix is computed alone.
    """
    if request.max_matvecs is not None or request.callback is not None:
        return False
    on_host = Arrays.of_array(flat).on_host
    if min(flat.shape[1:]) > (HOST_STACK_UP_TO if on_host else STACK_UP_TO):
        return False
    if method is None:
        method = general_method(as_operator(flat[0, :, :]), k, tol).method
    return method == Direct()


def _stacks(arrays: Arrays, flat: Array) -> Iterator[tuple[int, Stack, HostArray]]:
    """Yield parts of the batch: the index of the first matrix, the part, and rough norms."""
    count, m, n = flat.shape
    step = count
    if arrays.reads_are_cheap:
        step = max(1, _CHUNK_BYTES // (m * n * arrays.host_dtype.itemsize))
    for first in range(0, count, step):
        A = arrays.take(flat[first : first + step, :, :])
        with np.errstate(over="ignore", invalid="ignore"):
            norms = arrays.norms_of_stack(A)
        if are_moderate(norms, m * n).all():
            yield first, Stack(arrays, A, norms / math.sqrt(m * n)), norms
            continue
        largest = arrays.largest_of_stack(A)
        if np.isfinite(largest).all():
            stack = Stack(arrays, A, largest)
            yield first, stack, stack.norms()
        # (Otherwise the matrix is computed alone, and named in the error.)


def _handed_out(stack: Stack, settled: Settled, places: HostArray) -> _Part:
    arrays, found = stack.arrays, settled.found
    U, V = arrays.fix_phases(found.U, found.V)
    with np.errstate(over="ignore"):  # computed alone, and named in the error
        S = found.S * stack.units[settled.places][:, None]
    fits = np.flatnonzero(S[:, 0] <= arrays.largest_value)
    return _Part(
        places[settled.places[fits]],
        arrays.hand_out(stack.chosen(U, fits)),
        arrays.hand_out_values(S[fits]),
        arrays.hand_out(stack.adjoint(stack.chosen(V, fits))),
        settled.residuals[fits],
    )


def _joined(
    arrays: Arrays,
    parts: list[_Part],
    work: _Work,
    failures: dict[int, SVDResult],
    ahead: tuple[int, ...],
    sizes: tuple[int, int, int],
) -> SVDResult:
    """Return one result of all parts, in the order of the batch."""
    xp, (m, n, k) = arrays.xp, sizes
    status = next(iter(failures.values())).status if failures else Status.CONVERGED
    places = np.concatenate([part.places for part in parts]) if parts else np.zeros(0, int)
    order = np.argsort(places)

    def joined(name: str, *shape: int) -> Array:
        blocks = [getattr(part, name) for part in parts]
        if not blocks:
            values = name == "S"
            dtype = arrays.hand_out_values(np.zeros(0)).dtype if values else arrays.out_dtype
            return xp.zeros((*ahead, *shape), dtype=dtype, device=arrays.device)
        whole = blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=0)
        if (order[1:] < order[:-1]).any():
            whole = xp.take(whole, arrays.indices(order), axis=0)
        return xp.reshape(whole, (*ahead, *shape))

    residuals = [part.residuals for part in parts] or [np.zeros((0, k))]
    matvecs, matvecs_verify, passes, iterations = work.counts
    return SVDResult(
        U=joined("U", m, k),
        S=joined("S", k),
        Vh=joined("Vh", k, n),
        residuals=np.concatenate(residuals)[order].reshape(*ahead, k),
        converged=not failures,
        status=status,
        matvecs=matvecs,
        matvecs_verify=matvecs_verify,
        passes=passes,
        iterations=iterations,
        method=work.method,
        state=None,
        completeness=work.completeness,
    )


def _report(
    answer: SVDResult,
    failures: dict[int, SVDResult],
    ahead: tuple[int, ...],
    tol: float,
    request: Request,
) -> None:
    place, first = next(iter(failures.items()))
    msg = (
        f"{len(failures)} of {math.prod(ahead)} matrices of the batch missed the tolerance; the "
        f"first is {_named(place, ahead)}: {first.status.value} (largest residual "
        f"{first.residuals.max(initial=0.0):.2e}, tol {tol:.2e})"
    )
    if "state=" in msg:
        msg += "; a batch has no state: compute that one by itself to continue with it"
    if request.on_failure == "raise":
        raise NotConverged(msg, answer)
    warn_caller(msg)


def _named(place: int, ahead: tuple[int, ...]) -> str:
    index = tuple(int(i) for i in np.unravel_index(place, ahead))
    return str(index[0] if len(index) == 1 else index)


def _starts(
    start: Any, arrays: Arrays, ahead: tuple[int, ...], shape: tuple[int, int]
) -> Callable[[int], Any]:
    """Return the start of each matrix, as a function of its index."""
    if start is None:
        return lambda place: None
    check_start(start, arrays)
    m, n = shape
    if isinstance(start, (SVDResult, Subspace)):
        vectors, Vh = start.Vh, tuple(start.Vh.shape)
        fits = tuple(start.U.shape[:-1]) == (*ahead, m) and (*Vh[:-2], Vh[-1]) == (*ahead, n)
    else:
        vectors = start
        fits = tuple(start.shape[:-1]) == (*ahead, n) and start.shape[-1] > 0
    if not fits:
        given = "a result" if vectors is not start else "an array"
        wanted = ", ".join(map(str, (*ahead, n, "p")))
        raise ValueError(
            f"start is {given} with vectors of shape {tuple(vectors.shape)}; for a batch of shape "
            f"{(*ahead, *shape)} pass the result of such a batch, or right vectors of shape "
            f"({wanted})"
        )
    if 0 not in tuple(vectors.shape):
        size_of_start(arrays, arrays.take(vectors))

    def of_one(place: int) -> Any:
        index = np.unravel_index(place, ahead)
        whole = (*(int(i) for i in index), slice(None), slice(None))
        if isinstance(start, (SVDResult, Subspace)):
            return Subspace(start.U[whole], start.Vh[whole])
        return start[whole]

    return of_one
