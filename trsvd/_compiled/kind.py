"""Kinds of compiled loops."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """Compiled loops for one type of matrix, which are compiled and loaded together.

    Attributes
    ----------
    sparse : bool
        True for matrices in compressed rows.
    entries, vectors : {"float32", "float64"}
        Dtypes of the matrix and of the vectors.
    shared : bool
        True: with those for several threads.
    indices : {"uint32", "uint64"}
        Dtype of the indices of a sparse matrix.
    """

    sparse: bool
    entries: str
    vectors: str
    shared: bool = False
    indices: str = "uint32"
