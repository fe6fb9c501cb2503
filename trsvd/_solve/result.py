"""Result of a truncated SVD, and the information that a callback receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import dtype_name
from trsvd._errors import Status
from trsvd._solve import files


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
        State to resume with the same matrix: ``svds(A, k, state=result.state, tol=...)``. It holds
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
        *ahead, m, k = self.U.shape
        batch = f"batch of {' x '.join(map(str, ahead))} matrices, " if ahead else ""
        largest = self.residuals.max(initial=0.0)
        return (
            f"SVDResult({batch}{m} x {self.Vh.shape[-1]}, k = {k}, {dtype_name(self.U.dtype)}): "
            f"{self.status.name}, largest residual {largest:.1e}\n"
            f"  S: {self._leading_values()}\n"
            f"  completeness: {self.completeness}\n"
            f"  {self.matvecs} + {self.matvecs_verify} matvecs by {self.method}"
        )

    def _leading_values(self) -> str:
        """The first singular values, of the first matrix of a batch, in words."""
        S = _on_host(self.S)
        if S.size == 0:
            return "none"
        first = S.reshape(-1, S.shape[-1])[0]
        text = ", ".join(f"{value:.6g}" for value in first[:_SHOWN])
        text += ", ..." if len(first) > _SHOWN else ""
        return f"{text} (first matrix)" if S.ndim > 1 else text

    def reconstruct(self) -> Array:
        """``U @ diag(S) @ Vh``: the best approximation of rank k to the matrix, as an array.

        Returns
        -------
        array of shape (m, n)
            In the dtype, namespace and device of U; for a batch with its dimensions before these.

        Notes
        -----
        Half precision is multiplied in float32. Memory: m n numbers.

        Examples
        --------
        >>> import numpy as np, trsvd
        >>> trsvd.svds(np.diag([3.0, 2.0, 1.0]), 2).reconstruct().round(12) + 0.0
        array([[3., 0., 0.],
               [0., 2., 0.],
               [0., 0., 0.]])
        """
        arrays = Arrays.of_array(self.U)
        with arrays.as_asked():
            left, right = (
                arrays.like(self.U) * arrays.like(self.S)[..., None, :],
                arrays.like(self.Vh),
            )
            whole = arrays.wide_product(left, right) if left.ndim == 2 else left @ right
            return arrays.hand_out(whole)

    def save(self, path: files.Path) -> None:
        """Write the result to an .npz file, which `trsvd.load` and `numpy.load` read.

        Parameters
        ----------
        path : str or path-like
            Where to write; used as it is, no suffix is appended. A file that exists is replaced
            when the new one is complete.

        Notes
        -----
        The file holds U, S, Vh and residuals as arrays, and the other attributes as a string of
        JSON, ``facts``. ``method`` is saved as its repr, ``state`` is not saved. Nothing is
        pickled. Arrays are copied to the host; bfloat16 is saved as float32, which holds the same
        numbers, as .npz files have no bfloat16.
        """
        arrays = {name: _on_host(getattr(self, name)) for name in ("U", "S", "Vh")}
        facts = {
            "dtype": dtype_name(self.U.dtype),
            "shape": [*map(int, self.U.shape[:-1]), int(self.Vh.shape[-1])],
            "status": self.status.name,
            "converged": bool(self.converged),
            "completeness": asdict(self.completeness),
            "method": str(self.method),
            **{name: int(getattr(self, name)) for name in _COUNTS},
        }
        files.write(path, {**arrays, "residuals": self.residuals}, facts)


# Singular values that a repr shows.
_SHOWN = 5
_COUNTS = ("matvecs", "matvecs_verify", "passes", "iterations")


def _on_host(x: Array) -> HostArray:
    """A NumPy array of the same numbers: in the same dtype, or float32 for bfloat16."""
    arrays = Arrays.of_array(x)
    return arrays.get(arrays.like(x) if dtype_name(x.dtype) == "bfloat16" else x)


def load(path: files.Path) -> SVDResult:
    """Read a result that `SVDResult.save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    SVDResult
        With NumPy arrays, whatever library made them; bfloat16 comes back as float32. ``method``
        is a string, ``state`` is None. The result can be passed as ``start=``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file was not written by `SVDResult.save`, is damaged, or was written by a newer
        version of trsvd in another layout. Nothing is unpickled.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, trsvd
    >>> result = trsvd.svds(np.diag([3.0, 2.0, 1.0]), 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "result.npz")
    ...     result.save(path)
    ...     trsvd.load(path).S
    array([3., 2.])
    """
    arrays, facts = files.read(path, ("U", "S", "Vh", "residuals"))
    try:
        result = SVDResult(
            U=arrays["U"],
            S=arrays["S"],
            Vh=arrays["Vh"],
            residuals=arrays["residuals"],
            converged=bool(facts["converged"]),
            status=Status[facts["status"]],
            method=str(facts["method"]),
            state=None,
            completeness=Completeness(**facts["completeness"]),
            **{name: int(facts[name]) for name in _COUNTS},
        )
        fits = _fit(result)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(files.refused(path, f"{type(error).__name__}: {error}")) from error
    if not fits:
        shapes = ", ".join(f"{name} {x.shape} of {x.dtype}" for name, x in arrays.items())
        raise ValueError(files.refused(path, f"its arrays do not fit: {shapes}"))
    return result


def _fit(result: SVDResult) -> bool:
    """True if the arrays are numbers, with shapes that belong to one result."""
    U, S, Vh = result
    *ahead, _, k = U.shape
    return (
        Vh.shape[:-1] == (*ahead, k)
        and S.shape == result.residuals.shape == (*ahead, k)
        and U.dtype == Vh.dtype
        and U.dtype.kind in "fc"
        and S.dtype.kind == result.residuals.dtype.kind == "f"
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
