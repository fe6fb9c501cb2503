"""Result of a truncated SVD, and the information that a callback receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from trsvd._arrays.arrays import Array, HostArray
from trsvd._errors import Status


@dataclass(frozen=True)
class Completeness:
    """Certificate about singular values that a run may have missed.

    Small residuals say that the triplets belong to the matrix, not that they are the top ones: a
    Krylov space from one vector contains one copy of a multiple singular value.

    Attributes
    ----------
    kind : str
        ``"exact"``: the full spectrum was computed, by the method or for the check. ``"norm"``:
        what is left of ``||A||_F`` is less than the last singular value. ``"random start"``: the
        method iterated a random block at least k wide to a tolerance that no overlooked component
        of it would allow. ``"probable"``: a random vector in the complement of the triplets was
        iterated and met nothing larger. ``"unchecked"``: nothing was checked.
    eta : float
        With ``"probable"``: a missed singular value of at least ``(1 + eta) (s_k + slack s_1)``
        would have been found...
    failure_probability : float
        ... but with this probability, over the random vector.
    slack : float
        What a missed singular value may exceed ``s_k`` by, relative to ``s_1``: the tolerance that
        was asked for, where it decides what counts as missed; 0 where nothing is granted. Where
        ``s_k`` is smaller than ``slack s_1`` itself, little is known about it: ask for a smaller
        ``tol``.

    Notes
    -----
    For a result of `svds_above` the threshold takes the place of ``s_k``.
    """

    kind: str
    eta: float = 0.0
    failure_probability: float = 0.0
    slack: float = 0.0

    def __str__(self) -> str:
        limit = f"s_k + {self.slack:.1e} s_1" if self.slack else "s_k"
        if self.kind != "probable":
            known = f": no missed singular value above {limit}" if self.slack else ""
            return self.kind + known
        limit = f"({limit})" if self.slack else limit
        return (
            f"probable: no missed singular value above {1 + self.eta:.3g} {limit} "
            f"(failure probability {self.failure_probability:.1g})"
        )


@dataclass(frozen=True, eq=False)
class Track:
    """Record of the last oracle's subspace, by which a warm step judges the next matrix.

    Attributes
    ----------
    k : int
        The pairs that were asked for; the subspace has a few more.
    left_is_newer : bool
        Whether the last product was one with the matrix, and gave the left vectors.
    gain : float
        What a second product last added to the attained value, relative, or was expected to leave
        behind, whichever is more; inf where unknown.
    age : int
        Steps since then, of one product each.
    values : numpy.ndarray of shape (p,)
        Singular values of the subspace, as far as they are known, over the first of them.
    outside : float
        Root of the energy outside of the subspace, over the first value: as it was when random
        columns were last used, and as it is expected to remain.
    flat : int
        Steps in a row for which a dense factorization had to be made, the spectrum being too flat
        for anything less to tell the gap.
    """

    k: int
    left_is_newer: bool
    gain: float
    age: int
    values: HostArray
    outside: float
    flat: int = 0


@dataclass(frozen=True, eq=False)
class Subspace:
    """Leading singular vectors of one m x n matrix, to start from with the next.

    Attributes
    ----------
    U : array of shape (m, p)
        Left vectors.
    Vh : array of shape (p, n)
        Right vectors, conjugate transposed. An oracle leaves a few more than the k it was asked
        for: they meet what moves into the first k.
    track : Track or None
        Where an oracle left it: what it knew of the matrix, by which a warm step sees whether the
        next one is near enough.
    """

    U: Array
    Vh: Array
    track: Track | None = None

    def __repr__(self) -> str:
        return f"Subspace(U: {tuple(self.U.shape)}, Vh: {tuple(self.Vh.shape)})"


@dataclass(frozen=True, eq=False)
class SVDResult:
    """The k leading singular triplets of an m x n matrix; unpacks as ``U, S, Vh``.

    Of a batch: its dimensions stand before those of the arrays, products, passes and iterations
    are sums, ``converged`` and ``completeness`` are those of its worst matrix, ``status`` is that
    of the first which did not converge, ``method`` the one that made most products, ``state`` None.

    Attributes
    ----------
    U : array of shape (m, k)
        Left singular vectors, orthonormal columns. The entry of largest modulus of each is real
        and positive.
    S : array of shape (k,)
        Singular values, descending, real.
    Vh : array of shape (k, n)
        Right singular vectors, conjugate transposed: orthonormal rows.
    residuals : numpy.ndarray of shape (k,)
        ``max(||A v_i - s_i u_i||, ||A^H u_i - s_i v_i||) / s_1``, in the compute dtype's
        precision. A backward error: each triplet is one of a matrix that is this far from A.
    converged : bool
        Whether every residual is at most ``tol``, and no check found that more was missed.
    status : Status
        Why the run ended; ``status.value`` is the message to read.
    matvecs : int
        Products with A or A^H that the method made, counted in vectors.
    matvecs_verify : int
        Products made to check its answer, counted in vectors.
    passes : int
        Products with a block, whatever its width: how often A was read by the method.
    iterations : int
        Steps of the method.
    method : Method
        The method used, with its options.
    state : object or None
        To go on from with the same matrix: ``svds(A, k, state=result.state, tol=...)``. It holds
        the whole basis: drop the result (or keep only U, S, Vh) to free that memory.
    completeness : Completeness
        What is known about missed singular values.
    """

    U: Array
    S: Array
    Vh: Array
    residuals: HostArray
    converged: bool
    status: Status
    matvecs: int
    matvecs_verify: int
    passes: int
    iterations: int
    method: Any
    state: Any = field(repr=False)
    completeness: Completeness

    def __iter__(self) -> Iterator[Array]:
        return iter((self.U, self.S, self.Vh))

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Array:
        return (self.U, self.S, self.Vh)[index]

    def __repr__(self) -> str:
        return (
            f"SVDResult(U: {tuple(self.U.shape)}, S: {tuple(self.S.shape)}, "
            f"Vh: {tuple(self.Vh.shape)}, {self.status.name}, "
            f"largest residual {self.residuals.max(initial=0.0):.1e}, "
            f"{self.matvecs} + {self.matvecs_verify} matvecs, {self.method})"
        )


@dataclass(frozen=True)
class Info:
    """Information that a callback receives after each step.

    Attributes
    ----------
    iteration : int
        Number of iterations made.
    matvecs : int
        Products with A or A^H made by the method so far, counted in vectors.
    passes : int
        Products with a block so far.

    Notes
    -----
    ``triplets()`` gives the U, S, Vh that the run would return now; ask while the callback runs.
    """

    iteration: int
    matvecs: int
    passes: int
    _triplets: Callable[[], tuple[Array, Array, Array]] = field(repr=False)

    def triplets(self) -> tuple[Array, Array, Array]:
        """The triplets that the run would return now: U, S, Vh. No product, but some work."""
        return self._triplets()


class NotConverged(RuntimeError):  # noqa: N818 - the name says what happened
    """Raised instead of `ConvergenceWarning` with ``on_failure="raise"``.

    Attributes
    ----------
    result : SVDResult
        The best triplets found, each with its residual.
    """

    def __init__(self, message: str, result: SVDResult) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[type[NotConverged], tuple[str, SVDResult]]:
        return NotConverged, (str(self), self.result)
