"""Cells of the race: matrix, dtype, k and accuracy, and their names."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Measure = Literal["residual", "gap", "err1"]

_DTYPES = {"float32": "f32", "float64": "f64"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One comparison: all competitors compute the same result to the same accuracy.

    Parameters
    ----------
    matrix : str
        A name that `race.matrices.subject` knows.
    dtype : {"float32", "float64"}
        Dtype of the matrix.
    k : int
        Number of triplets.
    target : float
        Accuracy to reach.
    measure : {"residual", "gap", "err1"}, default "residual"
        Quantity that must be at most ``target``: the largest relative residual of the triplets, the
        relative gap of the oracle of the dual Ky Fan k-norm ball, or the paper's relative error of
        the direction.
    warm : bool, default False
        True: the previous matrix is known (gap only).
    batch : int, default 0
        Number of matrices solved in one sample; 0 for a single one.
    backend : {"numpy", "torch"}, default "numpy"
        Array library of the matrix for trsvd.
    memory_bound : bool, default False
        True: an iterative method spends most of its time on reading the matrix.
    """

    matrix: str
    dtype: str
    k: int
    target: float
    measure: Measure = "residual"
    warm: bool = False
    batch: int = 0
    backend: str = "numpy"
    memory_bound: bool = False

    @property
    def name(self) -> str:
        """Name, such as ``f32/gaussian-500x500/k5/1e-04``; patterns are matched with it."""
        parts = [_DTYPES[self.dtype], self.matrix, f"k{self.k}"]
        if self.measure != "residual":
            parts.append(self.measure)
        parts.append(f"{self.target:.0e}")
        if self.warm:
            parts.append("warm")
        if self.batch:
            parts.append(f"batch{self.batch}")
        if self.backend != "numpy":
            parts.append(self.backend)
        return "/".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as a dict for JSON."""
        return dataclasses.asdict(self)


def _residuals(
    matrix: str, ks: Iterable[int], *, bound: bool = False, batch: int = 0
) -> Iterator[Cell]:
    for dtype, targets in (("float32", (1e-2, 1e-4, 3e-6)), ("float64", (1e-2, 1e-4, 1e-10))):
        for k in ks:
            for target in targets:
                yield Cell(
                    matrix=matrix,
                    dtype=dtype,
                    k=k,
                    target=target,
                    memory_bound=bound,
                    batch=batch,
                )


def _gaps(matrix: str, k: int) -> Iterator[Cell]:
    for dtype in _DTYPES:
        for target in (1e-2, 1e-3):
            for warm in (False, True):
                yield Cell(matrix=matrix, dtype=dtype, k=k, target=target, measure="gap", warm=warm)


def all_cells(data: Path | None = None) -> list[Cell]:
    """Return the cells of a full race, small matrices first.

    Parameters
    ----------
    data : Path, optional
        Folder of real matrices; see `data_cells`.

    Returns
    -------
    list of Cell
    """
    cells: list[Cell] = []
    for batch in (0, 100):
        cells += _residuals("gaussian-64x64", (1, 5), batch=batch)
        cells += _residuals("gaussian-256x64", (1, 5), batch=batch)
    # Without a gap, an oracle is exact to rounding.
    small = Cell(matrix="gaussian-64x64", dtype="float32", k=5, target=1e-5, measure="gap")
    cells += [
        small,
        dataclasses.replace(small, backend="torch"),
        dataclasses.replace(small, backend="torch", batch=100),
    ]
    cells += _residuals("gaussian-500x500", (1, 5, 10, 50))
    cells += _residuals("decay-768x3072", (1, 16, 64), bound=True)
    cells += _residuals("gaussian-1024x4096", (1, 16, 64, 256))
    cells += _gaps("noisy-768x3072", 48)
    cells += _gaps("mixed-1024x4096", 64)
    cells += _residuals("terms", (50, 100), bound=True)
    cells += _residuals("tall-200000x256", (20,), bound=True)
    cells += _residuals("sparse-100000x10000", (10, 50), bound=True)
    cells += _residuals("root-4096x4096", (16, 64), bound=True)
    cells += [
        Cell(matrix=f"gaussian-{n}x{n}", dtype="float64", k=k, target=1e-2, measure="err1")
        for n, k in ((500, 5), (500, 50), (5000, 5))
    ]
    if data is not None:
        cells += data_cells(data)
    return cells


def data_cells(folder: Path) -> list[Cell]:
    """Return the cells of real matrices: ``.npy`` (dense), ``.npz`` (`scipy.sparse.save_npz`).

    Parameters
    ----------
    folder : Path
        Folder of the files and of ``spectra.npz``, which contains all singular values of each
        matrix in double precision, by the stem of the file. An array of shape (frames, m, n) is a
        sequence: its last frame is the matrix, and the frame before is for a warm start.

    Returns
    -------
    list of Cell
        Cells in float32, with k = 50 and 100 for sparse matrices, and k = min(m, n) / 16 for dense
        ones.
    """
    # Imported here: `--list` without data needs no arrays.
    from race.matrices import header_of

    if not (folder / "spectra.npz").is_file():
        raise FileNotFoundError(
            "the folder has no spectra.npz; add this file with the singular values of each matrix"
        )

    cells: list[Cell] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".npy", ".npz"} or path.name == "spectra.npz":
            continue
        shape = header_of(path)
        rank = min(shape[-2:])
        ks = [k for k in (50, 100) if 4 * k <= rank] if path.suffix == ".npz" else [rank // 16]
        name = f"data-{path.stem}"
        for k in filter(None, ks):
            for target in (1e-2, 1e-4, 3e-6):
                cells.append(Cell(matrix=name, dtype="float32", k=k, target=target))
        if len(shape) == 3 and rank >= 16:
            for target in (1e-2, 1e-3):
                for warm in (False, True):
                    k = rank // 16
                    cells.append(
                        Cell(
                            matrix=name,
                            dtype="float32",
                            k=k,
                            target=target,
                            measure="gap",
                            warm=warm,
                        )
                    )
    return cells


def quick_cells() -> list[Cell]:
    """Return tiny cells of every kind, for accuracy and not for time.

    Returns
    -------
    list of Cell
    """
    gap = Cell(matrix="noisy-48x96", dtype="float32", k=3, target=1e-2, measure="gap")
    return [
        Cell(matrix="gaussian-60x40", dtype="float32", k=3, target=1e-4),
        Cell(matrix="gaussian-60x40", dtype="float64", k=3, target=1e-10),
        Cell(matrix="decay-48x96", dtype="float32", k=4, target=3e-6, memory_bound=True),
        Cell(matrix="root-64x64", dtype="float64", k=4, target=1e-2),
        Cell(matrix="tall-400x32", dtype="float32", k=3, target=1e-4),
        Cell(matrix="sparse-400x100", dtype="float32", k=4, target=1e-4, memory_bound=True),
        Cell(matrix="gaussian-24x24", dtype="float32", k=2, target=1e-4, batch=3),
        gap,
        dataclasses.replace(gap, warm=True),
        dataclasses.replace(gap, matrix="gaussian-24x24", target=1e-5, batch=3),
        Cell(matrix="gaussian-60x60", dtype="float64", k=3, target=1e-2, measure="err1"),
    ]


def matching(cells: Sequence[Cell], patterns: Sequence[str] | None) -> list[Cell]:
    """Return the cells whose name matches any of the patterns.

    Parameters
    ----------
    cells : sequence of Cell
        To choose from.
    patterns : sequence of str or None
        Patterns with ``*`` and ``?`` for the whole name; without these, a part of the name.

    Returns
    -------
    list of Cell
    """
    if not patterns:
        return list(cells)
    return [cell for cell in cells if any(_matches(cell.name, text) for text in patterns)]


def _matches(name: str, pattern: str) -> bool:
    if set(pattern) & set("*?["):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern in name
