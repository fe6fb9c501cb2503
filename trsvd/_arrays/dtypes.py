"""Tests and names of matrix types and dtypes, without computing with the entries."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

# Rounding unit of float32.
SINGLE = float(np.finfo(np.float32).eps)
# Compute dtype of each input dtype.
COMPUTE = {
    "bool": "float64",
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
    "complex64": "complex64",
    "complex128": "complex128",
    **{f"{sign}int{bits}": "float64" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

# The dtype of the same kind in single precision.
SINGLE_OF = {"float64": "float32", "complex128": "complex64"}


def is_sparse(A: object) -> bool:
    """True for a sparse matrix or array of scipy or cupyx, and for a sparse tensor of torch."""
    if type(A).__module__.startswith(("scipy.sparse", "cupyx.scipy.sparse")):
        return hasattr(A, "tocsr")
    return str(getattr(A, "layout", "")).startswith("torch.sparse")


def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype of any library: ``"float32"``, ``"bfloat16"``, ..."""
    return _numpy_name(dtype) if type(dtype).__module__ == "numpy.dtypes" else _name(dtype)


@cache
def _numpy_name(dtype: np.dtype[Any]) -> str:  # cached, since NumPy builds the name in each call
    return _name(dtype)


def _name(dtype: Any) -> str:
    if isinstance(dtype, (type, str)):
        return str(np.dtype(dtype).name)
    return (
        str(getattr(dtype, "name", dtype)).removeprefix("torch.").removeprefix("array_api_strict.")
    )


def type_name(A: object) -> str:
    """Return the name of a type for messages: ``"scipy.csr_array"``, ``"numpy.ndarray"``, ..."""
    return f"{type(A).__module__.split('.')[0]}.{type(A).__qualname__}"


def describe(A: object) -> str:
    """Return a phrase for error messages: the type, with shape and dtype if there are any."""
    parts = [type_name(A)]
    parts += [f"{name} {getattr(A, name)}" for name in ("shape", "dtype") if hasattr(A, name)]
    return ", ".join(parts)


def converted(xp: Any, x: Any, dtype: Any) -> Any:
    """Convert ``x`` to a dtype of its namespace; NumPy's own method is the fastest for NumPy."""
    return x.astype(dtype, copy=False) if type(x) is np.ndarray else xp.astype(x, dtype, copy=False)


def split_power(exponent: int) -> tuple[float, float]:
    """Return two powers of two with product ``2**exponent``, which itself may be out of range."""
    return math.ldexp(1.0, exponent // 2), math.ldexp(1.0, exponent - exponent // 2)


def is_numeric(dtype: Any) -> bool:
    """True if trsvd computes with arrays of this dtype."""
    return dtype_name(dtype) in COMPUTE
