"""NorMuon: rows of a polar factor over a running root mean square, at the norm it had."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trsvd._arrays.arrays import Array, Arrays
from trsvd._validate import check_number
from trsvd.optim.layout import from_stack, stack_shape, to_stack

__all__ = ["RowNormalization", "check_beta2", "check_eps", "row_normalized"]


def check_beta2(beta2: float) -> float:
    """The decay of a second moment; ValueError if it is not at least 0 and below 1."""
    if not 0 <= check_number("beta2", beta2) < 1:
        msg = f"Invalid beta2 value: {beta2}; it must be at least 0 and below 1"
        raise ValueError(msg)
    return float(beta2)


def check_eps(eps: float) -> float:
    """What is added to the roots; ValueError if it is negative or not finite."""
    if not 0 <= check_number("eps", eps) < math.inf:
        msg = f"Invalid eps value: {eps}; it must be finite and at least 0"
        raise ValueError(msg)
    return float(eps)


def row_normalized(O: Array, v: Array, beta2: float, eps: float) -> tuple[Array, Array]:  # noqa: E741
    """Rows over the root of their running mean square, rescaled to the Frobenius norm before.

    Parameters
    ----------
    O : array of shape (b, m, n)
        A stack of updates.
    v : array of shape (b, m)
        Running mean squares of the rows.
    beta2 : float
        By how much v decays.
    eps : float
        Added to the roots.

    Returns
    -------
    tuple of arrays
        The updates, and v after this step.
    """
    arrays = Arrays.of_array(O)
    xp = arrays.xp
    squares = xp.abs(O) ** 2
    v = beta2 * v + (1 - beta2) * xp.mean(squares, axis=2)
    X = arrays.over(O, (xp.sqrt(v) + eps)[:, :, None])
    return arrays.units(X, axis=(1, 2)) * arrays.like(arrays.norms(O, axis=(1, 2))), v


@dataclass(frozen=True, kw_only=True)
class RowNormalization:
    """The link that makes NorMuon of Muon.

    Parameters
    ----------
    beta2 : float, default 0.95
        By how much the mean squares of rows decay.
    eps : float, default 1e-10
        Added to their roots.
    layout : str, default "auto"
        How parameters with more than two dimensions are read.

    References
    ----------
    Z. Li et al., NorMuon: Making Muon more efficient and scalable, arXiv:2510.05491.
    """

    beta2: float = 0.95
    eps: float = 1e-10
    layout: str = "auto"

    def __post_init__(self) -> None:
        check_beta2(self.beta2)
        check_eps(self.eps)

    def init(self, params: list[Array]) -> list[Array]:
        """Mean squares of zero."""
        state = []
        for W in params:
            arrays = Arrays.of_array(W)
            b, m, _ = stack_shape(tuple(W.shape), self.layout)
            state.append(arrays.xp.zeros((b, m), dtype=arrays.real_dtype, device=arrays.device))
        return state

    def update(
        self, updates: list[Array], state: list[Array], params: list[Array]
    ) -> tuple[list[Array], list[Array]]:
        """Normalized updates, and the mean squares after this step."""
        del params
        out, after = [], []
        for U, v in zip(updates, state, strict=True):
            arrays = Arrays.of_array(U)
            stack = to_stack(arrays.take(U), self.layout)
            X, v = row_normalized(stack, v, self.beta2, self.eps)
            out.append(arrays.hand_out(from_stack(X, tuple(U.shape), self.layout)))
            after.append(v)
        return out, after
