"""Matrices of the race with exact singular values; expensive ones are stored in a cache."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import re
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from trsvd._arrays.arrays import HostArray
from trsvd._arrays.dtypes import is_sparse
from trsvd._solve.svds import svds
from trsvd.table.matrices import Case
from trsvd.testing import SPECTRA, matrix_with_spectrum

_KEPT = 60
"""Number of singular values that are stored if not all are known."""


class Unavailable(Exception):
    """Matrix that is not available on this machine; the message gives the reason."""


@dataclass(frozen=True)
class Places:
    """Folders of matrices: a cache for computed ones, and real matrices (or None)."""

    cache: Path
    data: Path | None = None


def default_cache() -> Path:
    """Return the user's cache folder."""
    if "XDG_CACHE_HOME" in os.environ:
        home = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    elif "LOCALAPPDATA" in os.environ:
        home = Path(os.environ["LOCALAPPDATA"])
    else:
        home = Path.home() / ".cache"
    return home / "trsvd" / "race"


@dataclass(frozen=True, eq=False)
class Subject:
    """Matrix of the race.

    Parameters
    ----------
    name : str
        Name of the matrix.
    A : numpy.ndarray or scipy.sparse.csr_array
        The matrix of shape (m, n), in the dtype of the cell.
    S : numpy.ndarray
        Its largest singular values, descending, in double precision.
    previous : numpy.ndarray or None
        The previous matrix, for warm starts.
    """

    name: str
    A: Any = field(repr=False)
    S: HostArray = field(repr=False)
    previous: Any = field(default=None, repr=False)

    @cached_property
    def wide(self) -> Any:
        """The matrix in double precision."""
        return self.A.astype(np.float64, copy=False)

    @property
    def sparse(self) -> bool:
        """True if A is a sparse matrix."""
        return is_sparse(self.A)

    @property
    def size(self) -> tuple[int, int]:
        """Shape (m, n)."""
        m, n = self.A.shape
        return int(m), int(n)

    @property
    def rank(self) -> int:
        """Smaller dimension, min(m, n)."""
        return min(self.size)

    @property
    def entries(self) -> int:
        """Number of entries used in a product with A."""
        m, n = self.size
        return int(self.A.nnz) if self.sparse else m * n


def subject(name: str, dtype: str, places: Places) -> Subject:
    """Return a matrix by its name.

    Parameters
    ----------
    name : str
        ``FAMILY-MxN``, ``"terms"``, or ``data-STEM`` for a file of ``places.data``. Families:
        ``gaussian``; ``decay`` and ``root``, with s_i = 1/i and i^-0.5 and random vectors;
        ``tall``, Gaussian with columns of lengths i^-0.5; ``sparse``, one entry in a thousand (one
        in 25 of a small one), normal; ``noisy``, a ``decay`` with a tenth of Gaussian noise on it;
        ``mixed``, as much Gaussian as ``decay``, by the Frobenius norm. ``terms`` are documents and
        terms: the files of Python's standard library and their identifiers, tf-idf, rows of length
        one.
    dtype : str
        Dtype of the matrix.
    places : Places
        Folders of the cache and of real matrices.

    Returns
    -------
    Subject

    Raises
    ------
    Unavailable
        If the matrix is not available.
    """
    family, _, rest = name.partition("-")
    if family == "data":
        A, S, previous = _stored(rest, places)
    elif family == "terms":
        A, S = _cached(places, f"terms-python{platform.python_version()}", _terms)
        previous = None
    else:
        m, n = (int(part) for part in rest.split("x"))
        A, S = _family(family, m, n, places)
        previous = _predecessor(A) if family in {"noisy", "mixed"} else None
    A = A.astype(dtype, copy=False)
    previous = None if previous is None else previous.astype(dtype, copy=False)
    return Subject(name, A, S, previous)


def many_subjects(name: str, dtype: str, count: int) -> list[Subject]:
    """Return a batch of Gaussian matrices of one shape, ``gaussian-MxN``."""
    m, n = (int(part) for part in name.removeprefix("gaussian-").split("x"))
    stack = np.random.default_rng(3).standard_normal((count, m, n)).astype(dtype)
    values = np.linalg.svd(stack.astype(np.float64), compute_uv=False)
    return [Subject(name, A, S) for A, S in zip(stack, values, strict=True)]


def exact_triplets(one: Subject, k: int, places: Places) -> tuple[HostArray, HostArray, HostArray]:
    """Return the exact k leading triplets, in double precision."""

    def compute() -> dict[str, HostArray]:
        U, S, Vh = Case(one.name, one.wide).truth(k)
        return {"U": U, "S": S, "Vh": Vh}

    kept = _kept(places, f"{one.name}-{one.A.dtype}-k{k}", compute)
    return kept["U"], kept["S"], kept["Vh"]


# ---- families -------------------------------------------------------------------------------


def _family(family: str, m: int, n: int, places: Places) -> tuple[Any, HostArray]:
    name, rank = f"{family}-{m}x{n}", min(m, n)
    if family in {"decay", "root"}:
        s = SPECTRA["1/i" if family == "decay" else "i**-0.5"](rank)
        build = _Build(lambda: matrix_with_spectrum(m, n, s, rng=0), lambda A: s)
        return _cached(places, name, build) if m * n > 10**5 else build()
    makers: dict[str, Callable[[], Any]] = {
        "gaussian": lambda: np.random.default_rng(0).standard_normal((m, n)),
        "tall": lambda: np.random.default_rng(0).standard_normal((m, n)) * SPECTRA["i**-0.5"](n),
        "sparse": lambda: _sparse(m, n, 1e-3 if m * n > 10**6 else 0.04),
        "noisy": lambda: _mixture(m, n, 0.1),
        "mixed": lambda: _mixture(m, n, 1.0),
    }
    if family not in makers:
        raise Unavailable(f"{name}: no family of matrices is called {family!r}")
    A = makers[family]()
    kept = _kept(places, f"{name}-values", lambda: {"S": _values(A)})
    return A, kept["S"]


def _sparse(m: int, n: int, density: float) -> Any:
    rng = np.random.default_rng(0)
    places = np.unique(rng.integers(m * n, size=round(density * m * n)))
    values = rng.standard_normal(len(places))
    return scipy.sparse.csr_array((values, np.divmod(places, n)), shape=(m, n))


def _mixture(m: int, n: int, noise: float) -> HostArray:
    """Return a matrix with s_i = 1/i plus Gaussian noise, relative to its Frobenius norm."""
    A = matrix_with_spectrum(m, n, SPECTRA["1/i"](min(m, n)), rng=0)
    N = np.random.default_rng(1).standard_normal((m, n))
    return np.asarray(A + noise * np.linalg.norm(A) / np.linalg.norm(N) * N)


def _predecessor(A: HostArray) -> HostArray:
    """Return ``A - E`` with ``||E||_F = 0.3 ||A||_F``, like the change of momentum in a step."""
    E = np.random.default_rng(2).standard_normal(A.shape)
    return np.asarray(A - 0.3 * np.linalg.norm(A) / np.linalg.norm(E) * E)


_WORD = re.compile(r"[A-Za-z_]{2,}")


def _terms() -> tuple[Any, HostArray]:
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in sorted(folder.rglob("*.py")) if "site-packages" not in path.parts]
    counts = [Counter(_words(path)) for path in paths]
    counts = [count for count in counts if len(count) >= 10]
    spread = Counter(itertools.chain.from_iterable(counts))
    frequent = sorted(term for term, files in spread.items() if files >= 3)
    terms = {term: place for place, term in enumerate(frequent)}
    if len(counts) < 400:
        raise Unavailable(f"terms: {folder} has only {len(counts)} files of source text")
    rows, columns, values = [], [], []
    for row, count in enumerate(counts):
        for term, times in count.items():
            if term in terms:
                rows.append(row)
                columns.append(terms[term])
                values.append((1 + np.log(times)) * np.log(len(counts) / spread[term]))
    A = scipy.sparse.csr_array((values, (rows, columns)), shape=(len(counts), len(terms)))
    lengths = scipy.sparse.linalg.norm(A, axis=1)
    A = scipy.sparse.diags_array(1 / np.maximum(lengths, 1e-300)) @ A
    return A.tocsr(), _values(A)


def _words(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return (word.lower() for word in _WORD.findall(text))


# ---- real matrices --------------------------------------------------------------------------


def header_of(path: Path) -> tuple[int, ...]:
    """Return the shape of an array or sparse matrix in a file, without reading its entries."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return tuple(int(length) for length in file["shape"])
    return tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape)


def _stored(stem: str, places: Places) -> tuple[Any, HostArray, Any]:
    if places.data is None:
        raise Unavailable(f"data-{stem}: needs the folder of real matrices (--data)")
    with np.load(places.data / "spectra.npz", allow_pickle=False) as spectra:
        if stem not in spectra:
            raise Unavailable(f"data-{stem}: {places.data / 'spectra.npz'} has no such spectrum")
        S = np.asarray(spectra[stem], dtype=np.float64)
    path = places.data / f"{stem}.npy"
    if not path.exists():
        return scipy.sparse.csr_array(scipy.sparse.load_npz(path.with_suffix(".npz"))), S, None
    A = np.load(path, allow_pickle=False)
    if A.ndim == 3:
        return np.ascontiguousarray(A[-1]), S, np.ascontiguousarray(A[-2])
    return np.ascontiguousarray(A), S, None


# ---- exact values, and the cache ------------------------------------------------------------


def _values(A: Any) -> HostArray:
    """Return singular values in double precision: all if that is feasible, else the largest."""
    m, n = A.shape
    if not is_sparse(A) and m * n <= 10**7:
        return np.linalg.svd(A, compute_uv=False)
    if min(m, n) <= 4096:
        # The Gram matrix loses eps s_1^2 / s_i, far below the required accuracy of the top values.
        G = A @ A.T if m <= n else A.T @ A
        G = G.toarray() if is_sparse(G) else G
        return np.sqrt(np.maximum(np.linalg.eigvalsh(G)[::-1], 0.0))
    return _agreed_values(A, min(_KEPT, min(m, n) // 4))


def _agreed_values(A: Any, k: int) -> HostArray:
    """Return singular values on which two methods with different starts agree."""
    start = np.random.default_rng(0).standard_normal(min(A.shape))
    theirs = scipy.sparse.linalg.svds(A, k=k, tol=0, v0=start, return_singular_vectors=False)
    theirs = np.sort(theirs)[::-1]
    ours = np.asarray(svds(A, k, method="trlan", tol=1e-12, rng=1).S)
    difference = float(np.max(np.abs(ours - theirs)) / theirs[0])
    if difference > 1e-10:
        raise Unavailable(f"ARPACK and trsvd disagree on the singular values by {difference:.1e}")
    return np.asarray(np.maximum(ours, theirs))


@dataclass(frozen=True)
class _Build:
    matrix: Callable[[], Any]
    values: Callable[[Any], HostArray]

    def __call__(self) -> tuple[Any, HostArray]:
        A = self.matrix()
        return A, self.values(A)


def _cached(
    places: Places, name: str, build: Callable[[], tuple[Any, HostArray]]
) -> tuple[Any, HostArray]:
    """Return a matrix and its singular values, from one file of the cache."""

    def compute() -> dict[str, HostArray]:
        A, S = build()
        if is_sparse(A):
            parts = {"data": A.data, "indices": A.indices, "indptr": A.indptr}
            return {**parts, "shape": np.array(A.shape), "S": S}
        return {"A": A, "S": S}

    kept = _kept(places, name, compute)
    if "A" in kept:
        return kept["A"], kept["S"]
    parts = (kept["data"], kept["indices"], kept["indptr"])
    return scipy.sparse.csr_array(parts, shape=tuple(kept["shape"])), kept["S"]


def _kept(
    places: Places, name: str, compute: Callable[[], dict[str, HostArray]]
) -> dict[str, HostArray]:
    """Return arrays of the cache; missing ones are computed and stored in one atomic write."""
    path = places.cache / f"{name}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    arrays = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    return arrays
