"""Conversion of user input: frames become arrays, and objects without entries are refused.

Every public function that takes arrays calls `admitted` first. Libraries are recognized by the
names of their classes, so that none is imported here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import scipy.sparse

from trsvd._arrays.arrays import is_transformed
from trsvd._arrays.dtypes import COMPUTE, describe

_DASK = (
    "a dask array cannot be decomposed as it is. Where it fits into memory, pass A.compute(); "
    "otherwise pass an object with A.shape, A.dtype and the products "
    "matmat = lambda X: (A @ X).compute() and rmatmat = lambda X: (A.conj().T @ X).compute()"
)
_TRACED_BY_JAX = (
    "an array that jax.jit, jax.vmap or jax.grad traces has no entries yet. Call trsvd outside of "
    "the transformed function; or within it by jax.pure_callback, with NumPy arrays inside of the "
    "callback: trsvd.svds(numpy.asarray(A), k). There are no gradients"
)
_TRACED_BY_TORCH = (
    "a tensor within torch.func.vmap, grad or jvp has no entries of its own. Call trsvd outside of "
    "the transformed function; svds and the oracles take a batch, of shape (..., m, n), as it is. "
    "There are no gradients"
)


def admitted(A: Any) -> Any:
    """Return ``A`` as a matrix, array or operator; frames are converted.

    Parameters
    ----------
    A : object
        Any input of the user.

    Returns
    -------
    object
        A NumPy array for a frame of pandas or polars and for a `numpy.matrix`; a sparse matrix of
        scipy for a pandas frame with sparse columns; otherwise ``A`` itself.

    Raises
    ------
    TypeError
        If ``A`` is masked, lazy or traced, or a frame with columns that are not numbers.
    ValueError
        If a column of a frame has missing values.
    """
    if type(A) is np.ndarray:
        return A
    if isinstance(A, np.ma.MaskedArray):
        raise TypeError(
            "masked arrays are not computed with; fill the masked entries first, e.g. A.filled(0)"
        )
    if isinstance(A, np.matrix):
        return np.asarray(A)
    cls: Any = type(A)
    kind = _kind(cls)
    if kind == "torch.Tensor" and is_transformed(A):
        raise TypeError(_TRACED_BY_TORCH)
    if kind in _CONVERTED:
        return _CONVERTED[kind](A)
    if kind in _REFUSED:
        raise TypeError(f"{describe(A)}: {_REFUSED[kind]}")
    return A


@cache
def _kind(cls: type) -> str:
    """Return library and name of ``cls``, or of the class it inherits from that is known here."""
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        if library.startswith("dask"):
            return "dask"
        name = f"{library}.{base.__name__}"
        if name == "torch.Tensor" or name in _CONVERTED or name in _REFUSED:
            return name
    return ""


# ---- frames -----------------------------------------------------------------------------------


def _of_pandas(A: Any) -> Any:
    """Convert a pandas frame to an array."""
    plain = [_plain(dtype) for dtype in A.dtypes]
    _check_numbers(zip(A.columns, A.dtypes, plain, strict=True))
    # Missing values of NumPy's own columns are NaN; the check for finite entries finds them.
    others = [(name, x) for name, x in A.items() if not isinstance(x.dtype, np.dtype)]
    _check_complete([name for name, column in others if column.isna().any()])
    if not plain:
        return np.empty(A.shape)
    common = np.result_type(*plain)
    if any(hasattr(dtype, "subtype") for dtype in A.dtypes):
        return _sparse_columns(A, common)
    return A.to_numpy(dtype=common)


def _sparse_columns(A: Any, dtype: Any) -> Any:
    """Convert a pandas frame to a sparse matrix; columns with fill value 0 stay sparse."""
    rows, values = [], []
    for _, column in A.items():
        array = column.array
        if hasattr(array.dtype, "subtype") and array.fill_value == 0:
            rows.append(array.sp_index.to_int_index().indices)
            values.append(array.sp_values)
        else:
            full = column.to_numpy(dtype=dtype)
            rows.append(np.flatnonzero(full))
            values.append(full[rows[-1]])
    ends = np.cumsum([0, *map(len, rows)])
    entries = np.concatenate(values).astype(dtype, copy=False), np.concatenate(rows), ends
    return scipy.sparse.csc_array(entries, shape=A.shape).tocsr()


def _plain(dtype: Any) -> Any:
    """Return the NumPy dtype of a nullable, Arrow or sparse column; None if there is none."""
    if isinstance(dtype, np.dtype):
        return dtype
    if getattr(dtype, "kind", "O") not in "biufc":
        return None
    return np.dtype(getattr(dtype, "subtype", None) or getattr(dtype, "numpy_dtype", None))


def _of_polars(A: Any) -> Any:
    """Convert a polars frame to an array."""
    names = [str(dtype).lower().replace("boolean", "bool") for dtype in A.dtypes]
    plain = [np.dtype(name) if name in COMPUTE else None for name in names]
    _check_numbers(zip(A.columns, A.dtypes, plain, strict=True))
    _check_complete([column.name for column in A if column.null_count()])
    out = np.empty(A.shape, np.result_type(*plain) if plain else float, order="F")
    for place, column in enumerate(A):
        out[:, place] = column.to_numpy()
    return out


def _check_numbers(columns: Any) -> None:
    bad = [
        f"{name!r} ({dtype})"
        for name, dtype, plain in columns
        if plain is None or plain.name not in COMPUTE
    ]
    if bad:
        raise TypeError(
            f"the frame has columns that cannot be computed with: {_listed(bad)}; leave them out, "
            "or convert them to numbers"
        )


def _check_complete(missing: Any) -> None:
    if len(missing):
        raise ValueError(
            f"columns of the frame have missing values: {_listed([repr(name) for name in missing])}"
            "; fill them or leave out the rows that have them"
        )


def _listed(names: list[str]) -> str:
    more = len(names) - 5
    return ", ".join(names[:5]) + (f" and {more} more" if more > 0 else "")


_CONVERTED = {"pandas.DataFrame": _of_pandas, "polars.DataFrame": _of_polars}
_REFUSED = {
    "dask": _DASK,
    "jax.Tracer": _TRACED_BY_JAX,
    "torch.FakeTensor": "a fake tensor has a shape and no entries; pass one that has",
    "polars.LazyFrame": "a lazy frame has no entries yet; pass A.collect()",
}
