"""Statuses of a run, warnings and exceptions."""

from __future__ import annotations

import enum
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


class Status(enum.Enum):
    """Why a computation ended; the value is the message that a user reads.

    See Also
    --------
    SVDResult, LMOResult

    Examples
    --------
    >>> from trsvd import Status
    >>> Status.CONVERGED.converged, Status.MAX_MATVECS.converged
    (True, False)
    """

    CONVERGED = "converged: every residual is at most tol, or the gap at most the requested one"
    MAX_MATVECS = (
        "stopped at max_matvecs before every residual reached tol; "
        "continue with state=result.state, or raise max_matvecs"
    )
    TIME_LIMIT = (
        "stopped at time_limit before every residual reached tol; "
        "continue with state=result.state, or raise time_limit"
    )
    MAX_ITERATIONS = (
        "the method made its fixed number of iterations before every residual reached tol; "
        "raise that number, or leave it at None"
    )
    ROUNDING_FLOOR = (
        "the residuals are at the rounding level of the data, above tol; "
        "more iterations cannot help: raise tol, or compute in a wider dtype"
    )
    STAGNATED = (
        "the residuals no longer decrease and are above tol; "
        "give the method a larger basis or block, raise tol, or use method='direct'"
    )
    CANCELLATION = (
        "the residuals are above tol and as large as the rounding errors of products with A: parts "
        "of A cancel (a mean is subtracted, or opposite terms are added), or the products have a "
        "lower precision than the dtype; raise tol, or compute the products more accurately: use a "
        "wider dtype, or subtract the parts first (as method='direct' of a CenteredOperator does)"
    )
    MAX_K = "stopped at max_k: more than max_k triplets satisfy the criterion; raise max_k"
    CALLBACK = "stopped by the callback before every residual reached tol"
    INCOMPLETE = (
        "every residual is at most tol, but the check for missed singular values found larger "
        "ones, and max_matvecs was reached before they were computed; continue with start=result"
    )

    @property
    def converged(self) -> bool:
        """True if the computation reached what was asked for."""
        return self is Status.CONVERGED


class ConvergenceWarning(UserWarning):
    """The triplets returned do not meet the tolerance; ``result.status`` says why.

    See Also
    --------
    NotConverged, Status

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> A = np.diag([4.0, 3.0, 2.0, 1.0])
    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     result = trsvd.svds(A, 1, method="power", max_matvecs=5, rng=0)
    >>> caught[0].category.__name__, result.converged
    ('ConvergenceWarning', False)
    """


class AdjointError(ValueError):
    """``rmatmat`` of an operator is not the adjoint of its ``matmat``.

    See Also
    --------
    trsvd.operators.check_adjoint

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> class Wrong:
    ...     shape, dtype = (3, 3), np.dtype(float)
    ...
    ...     def matmat(self, X):
    ...         return np.cumsum(X, axis=0)
    ...
    ...     rmatmat = matmat
    >>> try:
    ...     trsvd.svds(Wrong(), 1)
    ... except trsvd.AdjointError as error:
    ...     print(str(error).split(":")[0])
    rmatmat is not the adjoint of matmat
    """


# Packages that call back into trsvd, as torch does between a train step and the optimizer's own: a
# warning points beyond them.
passed_through = {"trsvd"}


def warn_caller(
    message: str,
    category: type[Warning] = ConvergenceWarning,
    *,
    through: tuple[str, ...] = (),
) -> None:
    """Warn at the line outside of trsvd that called into it.

    Parameters
    ----------
    message : str
        Text of the warning.
    category : type, optional
        Class of the warning.
    through : tuple of str, optional
        Packages that calls may come through.
    """
    packages = passed_through | set(through)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame.f_globals) in packages:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _package(names: dict[str, Any]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
