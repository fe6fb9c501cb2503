"""Result of a truncated SVD, and the information for callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from trsvd._arrays import files
from trsvd._arrays.arrays import Array, Arrays, HostArray
from trsvd._arrays.dtypes import dtype_name
from trsvd._errors import Status


@dataclass(frozen=True)
class Completeness:
    """Certificate about singular values that a run may have missed.

    Small residuals show that the triplets belong to the matrix, but not that they are the leading
    ones. For example, a Krylov space from one vector contains one copy of a multiple value.

    Attributes
    ----------
    kind : str
        ``"exact"``: the full spectrum was computed, by the method or by the check.
        ``"norm"``: the Frobenius norm of the remainder is less than the last singular value.
        ``"random start"``: the method iterated a random block of at least k columns, to a tolerance
        that excludes a missed component.
        ``"probable"``: a random vector in the complement of the triplets was iterated, and no
        larger singular value was found.
        ``"unchecked"``: no check was made.
    eta : float
        For ``"probable"``: except with probability `failure_probability`, no missed singular value
        exceeds ``(1 + eta) (s_k + slack s_1)``.
    failure_probability : float
        Probability over the random vector, see `eta`.
    slack : float
        Largest allowed excess of a missed singular value over ``s_k``, relative to ``s_1``. This is
        the tolerance if it decides which values count as missed, and 0 otherwise. If ``s_k`` is
        smaller than ``slack s_1``, the certificate says little about ``s_k``; decrease ``tol``.

    See Also
    --------
    svds, SVDResult

    Notes
    -----
    In results of `svds_above`, ``s_k`` stands for the threshold.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> print(trsvd.svds(A, 2).completeness)
    exact
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
    """Record of an oracle about its subspace, which the next warm step uses.

    Attributes
    ----------
    k : int
        Number of requested pairs; the subspace has a few more.
    left_is_newer : bool
        True if the last product was with the matrix, and gave the left vectors.
    gain : float
        Relative increase of the attained value by the last second product, or the increase that
        was expected to remain, whichever is larger; inf if unknown.
    age : int
        Number of steps since then, with one product each.
    values : numpy.ndarray of shape (p,)
        Estimated singular values of the subspace, divided by the first.
    outside : float
        Frobenius norm outside of the subspace, divided by the first value. It is measured when
        random columns are used, and expected not to change.
    flat : int
        Number of successive steps that needed a dense factorization, because the spectrum was too
        flat to estimate the gap otherwise.
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
    """Leading singular vectors of one m x n matrix, as a start for the next.

    Attributes
    ----------
    U : array of shape (m, p)
        Left vectors.
    Vh : array of shape (p, n)
        Right vectors, conjugate transposed. Oracles keep a few more than k, since the order of the
        singular values may change.
    track : Track or None
        Record of an oracle, by which a warm step detects whether the next matrix is near enough.

    See Also
    --------
    LMOResult, trsvd.balls.Ball

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> G = np.diag([3.0, 2.0, 1.0])
    >>> subspace = trsvd.KyFanDualBall(2).lmo(G).subspace
    >>> subspace.U.shape[0], subspace.Vh.shape[1]
    (3, 3)
    """

    U: Array
    Vh: Array
    track: Track | None = None

    def __repr__(self) -> str:
        return f"Subspace(U: {tuple(self.U.shape)}, Vh: {tuple(self.Vh.shape)})"


@dataclass(frozen=True, eq=False)
class SVDResult:
    """The k leading singular triplets of an m x n matrix; unpacks as ``U, S, Vh``.

    For a batch, the batch dimensions come before those of the arrays. Products, passes and
    iterations are sums. ``converged`` and ``completeness`` belong to the worst matrix, ``status``
    to the first that did not converge, ``method`` to most of the products. ``state`` is None.

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
        precision. This is a backward error: each triplet is exact for a matrix at this relative
        distance from A.
    converged : bool
        True if every residual is at most ``tol``, and no check found a missed singular value.
    status : Status
        Reason for the end of the run; ``status.value`` is a message.
    matvecs : int
        Products with A or A^H that the method made, counted in vectors.
    matvecs_verify : int
        Products made to check its answer, counted in vectors.
    passes : int
        Products with blocks of any width: the number of times the method read A.
    iterations : int
        Steps of the method.
    method : Method
        The method used, with its options.
    state : object or None
        State to resume with the same matrix: ``svds(A, k, state=result.state, tol=...)``. It
        contains the whole basis; to free the memory, keep only U, S and Vh.
    completeness : Completeness
        Certificate about missed singular values.

    See Also
    --------
    svds, load, Status, Completeness

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> result = trsvd.svds(A, 2)
    >>> U, S, Vh = result
    >>> result.status.name, result.completeness.kind
    ('CONVERGED', 'exact')
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
        """Return a phrase with the first singular values, of the first matrix of a batch."""
        S = _on_host(self.S)
        if S.size == 0:
            return "none"
        first = S.reshape(-1, S.shape[-1])[0]
        text = ", ".join(f"{value:.6g}" for value in first[:_SHOWN])
        text += ", ..." if len(first) > _SHOWN else ""
        return f"{text} (first matrix)" if S.ndim > 1 else text

    def reconstruct(self) -> Array:
        """Return ``U @ diag(S) @ Vh``, the best approximation of rank k, as an array.

        Returns
        -------
        array of shape (m, n)
            In the dtype, namespace and device of U. For a batch, the batch dimensions come first.

        Notes
        -----
        Half precision is multiplied in float32. The memory is that of m n numbers.

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
            Path of the file; no suffix is appended. An existing file is replaced when the new one
            is complete.

        Notes
        -----
        The file contains U, S, Vh and residuals as arrays, and the other attributes as a JSON
        string, ``facts``. ``method`` is saved as its repr, and ``state`` is not saved. Nothing is
        pickled. Arrays are copied to the host. bfloat16 is saved as float32, without loss, since
        .npz files have no bfloat16.
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


# Number of singular values in a repr.
_SHOWN = 5
_COUNTS = ("matvecs", "matvecs_verify", "passes", "iterations")


def _on_host(x: Array) -> HostArray:
    """Convert to a NumPy array of the same dtype, or of float32 for bfloat16."""
    arrays = Arrays.of_array(x)
    return arrays.get(arrays.like(x) if dtype_name(x.dtype) == "bfloat16" else x)


def load(path: files.Path) -> SVDResult:
    """Read a result that `SVDResult.save` wrote.

    Parameters
    ----------
    path : str or path-like
        Path of the file.

    Returns
    -------
    SVDResult
        The result with NumPy arrays; bfloat16 is returned as float32. ``method`` is a string, and
        ``state`` is None. The result can be passed as ``start=``.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file was not written by `SVDResult.save`, is damaged, or was written by a newer
        version of trsvd in another layout. Nothing is unpickled.

    See Also
    --------
    SVDResult

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
    """True if the arrays are numeric, with the shapes of one result."""
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
    """Information for a callback, after each step.

    Attributes
    ----------
    iteration : int
        Number of iterations made.
    matvecs : int
        Products with A or A^H made by the method so far, counted in vectors.
    passes : int
        Products with a block so far.

    See Also
    --------
    svds

    Notes
    -----
    ``triplets()`` returns the current U, S and Vh. Call it inside of the callback only.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> def stop(info):
    ...     return info.matvecs >= 6
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     result = trsvd.svds(A, 1, method="power", tol=1e-9, callback=stop, rng=0)
    >>> result.status.name
    'CALLBACK'
    """

    iteration: int
    matvecs: int
    passes: int
    _triplets: Callable[[], tuple[Array, Array, Array]] = field(repr=False)

    def triplets(self) -> tuple[Array, Array, Array]:
        """Return the current U, S and Vh. This takes no product, but computes the vectors."""
        return self._triplets()


class NotConverged(RuntimeError):  # noqa: N818 - the name says what happened
    """Raised instead of `ConvergenceWarning` with ``on_failure="raise"``.

    Attributes
    ----------
    result : SVDResult
        The best triplets found, each with its residual.

    See Also
    --------
    ConvergenceWarning, Status

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> try:
    ...     trsvd.svds(A, 1, method="power", max_matvecs=5, rng=0, on_failure="raise")
    ... except trsvd.NotConverged as error:
    ...     error.result.status.name
    'MAX_MATVECS'
    """

    def __init__(self, message: str, result: SVDResult) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[type[NotConverged], tuple[str, SVDResult]]:
        return NotConverged, (str(self), self.result)
