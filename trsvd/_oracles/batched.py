"""Leading pairs of many matrices of one shape, by batched products.

On a device, or if a call costs more than its arithmetic, matrices of one shape are stacked:

- without a start, their Gram matrices and one Rayleigh-Ritz step are computed (or a batched SVD for
  many pairs), with residuals from products;
- with the subspaces of the last step, a warm step is made, and `Watch` judges each matrix.

Matrices that the stack cannot settle (a rank below k, values too small for a Gram matrix, a lost
subspace) are computed alone. The same holds for NumPy arrays, except small ones without a start,
since batched products of NumPy are loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trsvd._arrays.arrays import Array, Arrays, HostArray, is_array
from trsvd._errors import Status
from trsvd._krylov.batched import STACK_UP_TO, Stack, Triplets
from trsvd._oracles.leading_pairs import (
    EXACT_UP_TO,
    LeadingPairs,
    fits_start,
    leading_pairs,
    one_call,
    pairs_of_small,
    rounding_of,
)
from trsvd._oracles.options import Options
from trsvd._oracles.warm_start import GUARDS, Watch, blended, kept_values, looked
from trsvd._solve.result import Subspace, Track
from trsvd._solve.small import Found, small_triplets_of
from trsvd._validate import check_tol


def all_leading_pairs(
    matrices: Sequence[Any], k: int, starts: Sequence[Any], options: Options
) -> list[LeadingPairs]:
    """Compute `leading_pairs` of each matrix; those of one shape together if that is faster.

    Parameters
    ----------
    matrices : sequence of (m, n) arrays, sparse matrices or operators
        Matrices of any shapes.
    k : int
        Number of pairs, at least 1. A matrix of smaller rank has fewer pairs.
    starts : sequence of Subspace or None
        Start of each matrix.
    options : Options
        The other options.
    """
    found = _by_one_call(matrices, k, starts, options)
    groups: dict[Any, list[int]] = {}
    for index, G in enumerate(matrices):
        key = None if index in found else _kind(G, starts[index], k, options)
        if key is not None:
            groups.setdefault(key, []).append(index)
    for members in groups.values():
        if len(members) > 1:
            stack = _Stack([matrices[i] for i in members], min(k, *matrices[members[0]].shape))
            given = [starts[i] for i in members]
            with stack.arrays.as_asked():
                if given[0] is None:
                    settled = stack.exact(options.tol, options.gap)
                else:
                    settled = stack.warm(given, options)
            found |= {members[place]: pairs for place, pairs in settled.items()}
    for index, G in enumerate(matrices):
        if index not in found:
            rank = min(k, *G.shape)
            found[index] = leading_pairs(G, rank, replace(options, start=starts[index]))
    return [found[index] for index in range(len(matrices))]


def _by_one_call(
    matrices: Sequence[Any], k: int, starts: Sequence[Any], options: Options
) -> dict[int, LeadingPairs]:
    """Return the pairs of small matrices on the host, by their index."""
    gap = options.gap
    if not options.for_one_call:
        return {}
    chosen = [
        i for i, (G, start) in enumerate(zip(matrices, starts, strict=True)) if fits_start(start, G)
    ]
    stop, how = one_call(k, gap, options.tol)
    each = small_triplets_of([matrices[index] for index in chosen], k, stop, options.rng, **how)
    found = {
        index: pairs_of_small(one, k, gap)
        for index, one in zip(chosen, each, strict=True)
        if isinstance(one, Found)
    }
    return {i: pairs for i, pairs in found.items() if gap is None or pairs.gap <= gap}


def _kind(G: Any, start: Any, k: int, options: Options) -> Any:
    """Return the properties that stacked matrices share; None if a matrix is not stacked."""
    if not is_array(G) or G.ndim != 2 or 0 in tuple(G.shape) or options.method is not None:
        return None
    arrays = Arrays.of_array(G)
    if min(G.shape) > (EXACT_UP_TO if arrays.on_host else STACK_UP_TO):
        return None
    if arrays.on_host and (start is not None or type(G) is not np.ndarray):
        return None
    track = None
    if start is not None:
        warm = isinstance(start, Subspace) and options.gap is not None
        if not warm or options.certify or start.track is None or start.track.k != k:
            return None
        if (start.U.shape[0], start.Vh.shape[1]) != tuple(G.shape):
            return None
        width = int(start.U.shape[1])
        if width < k + GUARDS or 2 * width > min(G.shape):
            return None
        track = (start.track.left_is_newer, width)
    out = str(arrays.out_dtype)
    return (arrays.xp.__name__, str(arrays.device), arrays.dtype_name, out, tuple(G.shape), track)


class _Stack(Stack):
    """Stack of matrices of one shape, with its leading pairs."""

    def __init__(self, matrices: list[Array], k: int) -> None:
        arrays = Arrays.of_array(matrices[0])
        A = arrays.xp.stack([arrays.take(G) for G in matrices])
        largest = arrays.largest_of_stack(A)
        if not np.isfinite(largest).all():
            bad = int(np.argmin(np.isfinite(largest)))
            raise ValueError(
                f"matrix {bad} of those of shape {tuple(matrices[0].shape)} contains NaN or inf; "
                "find where it comes from before making a step along it"
            )
        super().__init__(arrays, A, largest)
        self.k = k

    # ---- from scratch -----------------------------------------------------------------------

    def exact(self, tol: float | None, gap: float | None) -> dict[int, LeadingPairs]:
        """Return pairs from full spectra, for matrices with at least k resolved values."""
        k, rank, norms = self.k, min(self.shape), self.norms()
        tol = check_tol(tol, self.arrays.eps)
        found: dict[int, LeadingPairs] = {}
        width = min(k + GUARDS, rank)
        for settled in self.leading(k, width, tol, norms, through=False):
            places, S = settled.places, settled.found.S
            tracks = [looked(k, *known) for known in zip(S, norms[places], strict=True)]
            gaps = rounding_of(self.arrays) + settled.lost
            if gap is not None:  # a single computation warns with the reason
                gaps = np.where(gaps <= gap, gaps, np.nan)
            found |= self._handed_out(settled.found, gaps, "exact", tracks, rank, 1, places)
        return found

    # ---- from the last step -----------------------------------------------------------------

    def warm(self, starts: list[Subspace], options: Options) -> dict[int, LeadingPairs]:
        """Make a warm step; return the pairs of matrices whose subspace was not lost."""
        k = self.k
        memories = [start.track for start in starts if start.track is not None]
        norms = self.norms()
        assert options.gap is not None
        watches = [
            Watch(memory, norm, k, options.gap, min(self.shape), self.arrays.eps)
            for memory, norm in zip(memories, norms, strict=True)
        ]
        left = memories[0].left_is_newer
        X = self._blocks(starts, left, np.random.default_rng(options.rng))
        known = np.array([memory.values[0] > 0 for memory in memories])
        A, places = self.A, np.flatnonzero((norms > 0) & known)
        A, X = self.chosen(A, places), self.chosen(X, places)
        settled: dict[int, LeadingPairs] = {}
        products = 0
        while len(places):
            Y, S, X = self.half(self.adjoint(A) if left else A, X)
            left, products = not left, products + 1
            if products == 1:
                U, V = (Y, X) if left else (X, Y)
                kept = self._kept(starts, places, U, S, V)
                for place, row in zip(places, kept, strict=True):
                    watches[place].kept = row
            for place, row in zip(places, S, strict=True):
                watches[place].look(row)
            triplets = Triplets(Y, S, X) if left else Triplets(X, S, Y)
            gaps = [watches[place].gap for place in places]
            tracks = [replace(watches[place].memory, left_is_newer=left) for place in places]
            values = np.array([np.nan if gap is None else gap for gap in gaps])
            width = X.shape[2]
            settled |= self._handed_out(
                triplets, values, "estimate", tracks, products * width, products, places
            )
            going = np.flatnonzero([not watches[place].over for place in places])
            A, X, places = self.chosen(A, going), self.chosen(Y, going), places[going]
        return settled

    def _kept(
        self, starts: list[Subspace], places: HostArray, U: Array, S: HostArray, V: Array
    ) -> HostArray:
        """Return the values of the old pairs; see `kept_values`."""
        arrays = self.arrays
        P = arrays.xp.stack([arrays.take(starts[place].U) for place in places])
        Q = arrays.xp.stack([arrays.take(starts[place].Vh) for place in places])
        inner = arrays.get(self.adjoint(U) @ P), arrays.get(self.adjoint(V) @ self.adjoint(Q))
        return kept_values(inner[0], S, inner[1])

    def _blocks(self, starts: list[Subspace], left: bool, rng: np.random.Generator) -> Array:
        """Return the newer sides, orthonormal, with a random vector added to the last column."""
        arrays, k = self.arrays, self.k
        width = k + GUARDS
        sides = [
            arrays.take(start.U) if left else arrays.adjoint(arrays.take(start.Vh))
            for start in starts
        ]
        X = arrays.xp.stack([side[:, :width] for side in sides])
        length = int(X.shape[1])
        fresh = arrays.gaussian(rng, length, len(starts))
        fresh = (fresh / arrays.column_norms(fresh)).T[:, :, None]
        X = arrays.xp.concat([X[:, :, :-1], blended(X[:, :, -1:], fresh)], axis=2)
        return arrays.xp.linalg.qr(X)[0]

    # ---- results ---------

    def _handed_out(
        self,
        found: Triplets,
        gaps: HostArray,
        kind: str,
        tracks: list[Track],
        matvecs: int,
        passes: int,
        places: HostArray,
    ) -> dict[int, LeadingPairs]:
        """Return the pairs of matrices with a known gap, by their index in the stack."""
        arrays, k = self.arrays, self.k
        rounding, Vh = rounding_of(arrays), self.adjoint(found.V)
        out = {}
        for row, place in enumerate(places):
            S = found.S[row]
            enough = S[k - 1] > max(self.shape) * arrays.eps * S[0]
            if np.isnan(gaps[row]) or not enough:
                continue
            with np.errstate(over="ignore"):
                S = S * self.units[place]
            # Copies, so that keeping one does not keep the whole stack in memory.
            U, W = (arrays.xp.asarray(X[row, :, :], copy=True) for X in (found.U, Vh))
            subspace = Subspace(U, W, tracks[row])
            out[int(place)] = LeadingPairs(
                subspace.U[:, :k],
                S[:k],
                subspace.Vh[:k, :],
                float(S[:k].sum()),
                max(float(gaps[row]), rounding),
                kind,
                matvecs,
                passes,
                Status.CONVERGED,
                arrays,
                subspace,
            )
        return out
