"""The check for missed singular values that leaves nothing open: by the full spectrum."""

from __future__ import annotations

from trsvd._arrays.arrays import Array, HostArray
from trsvd._krylov.stopping import Stop
from trsvd._solve.result import Completeness
from trsvd.methods import Run
from trsvd.operators.counting import Metered

__all__ = ["check_fits", "check_spectrum"]

_LARGEST = 1 << 13


def check_fits(shape: tuple[int, int]) -> None:
    """ValueError if a matrix of this shape is too large for its spectrum to be computed.

    Parameters
    ----------
    shape : tuple of int
        ``(m, n)``.
    """
    if min(shape) > _LARGEST:
        msg = (
            f"verify='exact' computes all singular values, and min(m, n) = {min(shape)} is more "
            f"than {_LARGEST}; verify=True checks with a stated probability"
        )
        raise ValueError(msg)


def check_spectrum(
    op: Metered,
    run: Run,
    triplets: tuple[Array, HostArray, Array],
    stop: Stop,
    unit: float,
) -> tuple[Completeness, Array | None]:
    """Whether a value was missed, and right vectors towards those that were.

    Of ``(I - U U^H) A (I - V V^H)`` all singular values are computed. Together with S they are
    those of A, to the norm of the residual blocks, ``sqrt(||A V - U S||^2 + ||A^H U - V S||^2)``.

    Parameters
    ----------
    op : Metered
        The operator; it is formed, which counts min(m, n) products.
    run : Run
        What computed the triplets.
    triplets : tuple
        U, S (host, as op scales it) and V.
    stop : Stop
        Decides what counts as missed, in units of A.
    unit : float
        What S is to be multiplied by to be in units of A.
    """
    U, S, V = triplets
    if run.exact or len(S) == op.shape[1]:
        return Completeness("exact"), None
    arrays = op.arrays
    rest = op.scaled_dense()
    for _ in range(2 if len(S) else 0):  # what is left may be small beside S
        rest = rest - arrays.product(U, arrays.adjoint_product(U, rest))
        rest = rest - arrays.product(arrays.product(rest, V), arrays.adjoint(V))
    _, values, Vh = arrays.svd(rest)
    largest = max(float(S[0]) if len(S) else 0.0, float(values[0]))
    rounding = max(op.shape) * arrays.eps
    noise = rounding * largest
    missing = [s for s in values if s > noise and stop.missed(S * unit, len(S), (s - noise) * unit)]
    if not missing:
        return Completeness("exact", slack=stop.slack + rounding), None
    return Completeness("unchecked"), arrays.adjoint(Vh[: len(missing), :])
