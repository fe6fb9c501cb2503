"""Iterations for the polar factor, as methods of an oracle."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trsvd._arrays.dtypes import dtype_name
from trsvd._validate import check_number
from trsvd.polar import QUINTIC, newton_schulz_matvecs
from trsvd.polar.bounds import image
from trsvd.polar.polynomials import Polynomial, checked_coefficients, express_polynomials

UNITS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
"""Precisions of products, each with its rounding unit."""

HALF = ("bfloat16", "float16")
"""Precisions in which rounding errors need countermeasures."""

FAR = 10.0
"""Largest image of a singular value that an iteration may have."""

# Negative images up to this size are rounding errors at a double zero of the polynomial.
_NEGATIVE = -1e-12


def rounding_unit(precision: str, shape: tuple[int, int]) -> float:
    """Return the relative change of singular values by the rounding of a product.

    Parameters
    ----------
    precision : str
        One of `UNITS`.
    shape : tuple of int
        ``(m, n)``.

    Returns
    -------
    float

    Notes
    -----
    ``2 sqrt(max(m, n))`` rounding units, with the size rounded up to a power of two. The error of a
    sum of n products is at most n unit roundoffs (``2^-24`` in single precision), and about
    ``sqrt(n)`` if rounding errors are independent (N. Higham, T. Mary, doi:10.1137/18M1226312).
    They are not if all terms are equal, as in a matrix of ones: libraries sum blocks of some
    hundred terms, and in a block all rounding errors can have the same sign. A factor of 4 allows
    for that.
    """
    return UNITS[precision] * 2 * math.sqrt(2.0 ** math.ceil(math.log2(max(shape))))


@dataclass(frozen=True, kw_only=True)
class PolarIteration(ABC):
    """Base class of `NewtonSchulz` and `PolarExpress`.

    Parameters
    ----------
    steps : int
        Number of iterations, at least 1.
    dtype : str or dtype, optional
        Precision of the products: ``"bfloat16"``, ``"float16"``, ``"float32"``, ``"float64"``, or
        a dtype of the array library. The default is the compute dtype of G, which is float32 for
        half precision.
    """

    steps: int
    dtype: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _checked_steps(self.steps))
        object.__setattr__(self, "dtype", _precision(self.dtype))

    @abstractmethod
    def polynomials(
        self, precision: str | None = None, shape: tuple[int, int] | None = None
    ) -> tuple[Polynomial, ...]:
        """Return the polynomial of each step.

        Parameters
        ----------
        precision : str, optional
            Precision of the products. The default is ``dtype``, or float64.
        shape : tuple of int, optional
            ``(m, n)`` of the matrix; rounding errors grow with its size.

        Returns
        -------
        tuple of tuple of float
            ``(a, b, c, ...)`` of ``a x + b x^3 + c x^5 + ...``, for each step.
        """

    def error(self, lower: float = 1e-3) -> float:
        """Return the largest error of a singular value, in exact arithmetic.

        Parameters
        ----------
        lower : float, default 1e-3
            Singular values of G of at least ``lower * ||G||_F`` are considered.

        Returns
        -------
        float
            ``max abs(1 - f(x))`` for x between ``lower`` and 1, where f is the map of all steps on
            singular values of ``G / ||G||_F``. The oracle divides the result by the largest f(x).

        Examples
        --------
        >>> import trsvd
        >>> round(trsvd.NewtonSchulz(steps=6).error(), 2)
        0.32
        >>> round(trsvd.PolarExpress(steps=6).error(), 4)
        0.0009
        """
        lower = check_number("lower", lower)
        if not 0 <= lower <= 1:
            raise ValueError(f"lower={lower}; singular values of G / ||G||_F are between 0 and 1")
        low, high = image(self.polynomials(), lower, 1.0)
        return max(1 - low, high - 1)

    def matvecs(self, shape: tuple[int, int]) -> int:
        """Return the number of products, counted in vectors; see `newton_schulz_matvecs`.

        Parameters
        ----------
        shape : tuple of int
            ``(m, n)``.

        Returns
        -------
        int
        """
        return sum(newton_schulz_matvecs(shape, 1, each) for each in self.polynomials())


@dataclass(frozen=True, kw_only=True)
class NewtonSchulz(PolarIteration):
    """Newton-Schulz iteration for the polar factor, with the same polynomial in each step.

    For ``method=`` of `SpectralBall`, `RMSBall` and their functions. The default is Muon's
    quintic, which is fast and never exact.

    Parameters
    ----------
    steps : int, default 5
        Number of iterations, at least 1.
    dtype : str or dtype, optional
        Precision of the products: ``"bfloat16"``, ``"float16"``, ``"float32"``, ``"float64"``, or
        a dtype of the array library. The default is the compute dtype of G, which is float32 for
        half precision.
    coefficients : sequence of float, default `trsvd.polar.QUINTIC`
        ``(a, b, c, ...)`` of the odd polynomial ``a x + b x^3 + c x^5 + ...``.

    Raises
    ------
    TypeError, ValueError
        If an option is invalid, or the polynomials map singular values far above 1 or below 0.

    See Also
    --------
    PolarExpress, SpectralBall, trsvd.polar.newton_schulz

    Notes
    -----
    The error is the error of the polynomial at the singular values of ``G / ||G||_F``, see `error`
    and `newton_schulz`. The oracle divides the result by a bound of its largest singular value,
    1.2024 for the quintic, so that it lies in the ball; about a quarter of ``||G||_*`` is lost.

    Cost: ``len(coefficients) * min(m, n)`` products in each step, counted in vectors. Memory:
    three matrices of the size of G.

    References
    ----------
    K. Jordan et al., Muon: an optimizer for hidden layers in neural networks,
    https://kellerjordan.github.io/posts/muon/. A. Bjorck and C. Bowie, An iterative algorithm for
    computing the best estimate of an orthogonal matrix, doi:10.1137/0708036.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> G = np.diag([2.0, -1.0])
    >>> result = trsvd.SpectralBall().lmo(G, method=trsvd.NewtonSchulz(steps=5))
    >>> result.update.round(2) + 0.0
    array([[-0.57,  0.  ],
           [ 0.  ,  0.93]])
    >>> round(result.gap, 2), result.gap_kind
    (0.34, 'bound')
    """

    steps: int = 5
    coefficients: Sequence[float] = QUINTIC

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "coefficients", checked_coefficients(self.coefficients))
        low, high = image(self.polynomials(), 0.0, 1.0)
        if not (low >= -FAR and high <= FAR):
            raise ValueError(
                f"coefficients={self.coefficients} take singular values of 0 to 1 beyond {FAR} in "
                f"{self.steps} steps; a polynomial for a polar factor keeps them near 1, as "
                "trsvd.polar.QUINTIC does"
            )
        if not (low >= _NEGATIVE and high > 0):
            raise ValueError(
                f"coefficients={self.coefficients} take singular values of 0 to 1 to values from "
                f"{low:.3g} to {high:.3g} in {self.steps} steps; a polynomial for a polar factor "
                "keeps them positive, as trsvd.polar.QUINTIC does"
            )

    def polynomials(
        self, precision: str | None = None, shape: tuple[int, int] | None = None
    ) -> tuple[Polynomial, ...]:
        """Return the polynomial of each step, the same for all; see `PolarIteration`."""
        del precision, shape
        return (tuple(self.coefficients),) * self.steps


@dataclass(frozen=True, kw_only=True)
class PolarExpress(PolarIteration):
    """Polar Express iteration for the polar factor, with the optimal quintic for each step.

    For ``method=`` of `SpectralBall`, `RMSBall` and their functions.

    Parameters
    ----------
    steps : int, default 6
        Number of iterations, at least 1.
    dtype : str or dtype, optional
        Precision of the products: ``"bfloat16"``, ``"float16"``, ``"float32"``, ``"float64"``, or
        a dtype of the array library. The default is the compute dtype of G, which is float32 for
        half precision.
    lower : float, default 1e-3
        Singular values of at least ``lower * ||G||_F`` are mapped near 1; between 0 and 1.
    safety : float, optional
        Factor of at least 1. All polynomials but the last are made for values ``safety`` times as
        large as expected, since rounding errors enlarge some of them. The default in half precision
        is 1.01, as of the authors. Otherwise it is 1 plus a hundred rounding errors of a product
        (``2 sqrt(max(m, n))`` rounding units); smaller values are raised to that.
    cushion : float, optional
        Smallest ratio of the left to the right end of an interval, between 0 and 1. It prevents
        values from becoming so small that rounding errors dominate. The default is 0.02 in half
        precision, as of the authors, and 0 otherwise.

    Raises
    ------
    TypeError, ValueError
        If an option is invalid.

    See Also
    --------
    NewtonSchulz, SpectralBall

    Notes
    -----
    The odd quintic nearest to 1 on [l, u] maps it onto [1 - e, 1 + e], with the least e. The next
    step uses the optimal quintic for that interval. No other composition of the same number of odd
    quintics has a smaller error. With ``lower = 1e-3`` the error e is 0.11 after 5 steps, 9e-4
    after 6, and 5e-10 after 7. Singular values below ``lower * ||G||_F`` become too small, but keep
    their sign.

    Without ``safety`` and ``cushion`` the iteration diverges in half precision.

    Cost: ``3 min(m, n)`` products a step (in vectors). Memory: three matrices of the size of
    G.

    References
    ----------
    N. Amsel, D. Persson, C. Musco, R. Gower, The Polar Express: optimal matrix sign methods and
    their application to the Muon algorithm, arXiv:2505.16932.

    Examples
    --------
    >>> import numpy as np, trsvd
    >>> result = trsvd.SpectralBall().lmo(np.diag([2.0, -1.0]), method=trsvd.PolarExpress())
    >>> result.update.round(2) + 0.0
    array([[-1.,  0.],
           [ 0.,  1.]])
    >>> result.gap < 4e-3, result.gap_kind
    (True, 'bound')
    """

    steps: int = 6
    lower: float = 1e-3
    safety: float | None = None
    cushion: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "lower", check_number("lower", self.lower))
        if not 0 < self.lower < 1:
            raise ValueError(
                f"lower={self.lower}; it is a share of ||G||_F between 0 and 1, as 1e-3"
            )
        if self.safety is not None:
            object.__setattr__(self, "safety", check_number("safety", self.safety))
            if not 1 <= self.safety < 2:
                raise ValueError(
                    f"safety={self.safety}; it is a factor of at least 1 and below 2, as 1.01"
                )
        if self.cushion is not None:
            object.__setattr__(self, "cushion", check_number("cushion", self.cushion))
            if not 0 <= self.cushion < 1:
                raise ValueError(
                    f"cushion={self.cushion}; it is a share of at least 0 and below 1, as 0.02"
                )

    def polynomials(
        self, precision: str | None = None, shape: tuple[int, int] | None = None
    ) -> tuple[Polynomial, ...]:
        """Return the polynomial of each step; see `PolarIteration`."""
        precision = precision or self.dtype or "float64"
        half = precision in HALF
        safety, cushion = self.safety, self.cushion
        if half:
            safety = safety or 1.01
        else:
            # The coefficients of a step sum to at most 60, each times a rounding error.
            least = 1 + 100 * (rounding_unit(precision, shape) if shape else UNITS[precision])
            if safety is None or (shape and safety < least):
                safety = least
        if cushion is None:
            cushion = 0.02 if half else 0.0
        return express_polynomials(self.steps, self.lower, safety, cushion)


def _checked_steps(steps: Any) -> int:
    try:
        value = operator.index(steps)
    except TypeError:
        raise TypeError(
            f"steps={steps!r} is not an integer; pass the number of iterations"
        ) from None
    if isinstance(steps, bool) or value < 1:
        raise ValueError(f"steps={steps}; at least one iteration is needed")
    return value


def _precision(dtype: Any) -> str | None:
    """Return the name of a dtype, or of its real part if it is complex."""
    if dtype is None:
        return None
    name = dtype if isinstance(dtype, str) else dtype_name(dtype)
    name = {"complex64": "float32", "complex128": "float64"}.get(name, name)
    if name not in UNITS:
        raise ValueError(f"dtype={dtype!r}; products are computed in one of {', '.join(UNITS)}")
    return name
