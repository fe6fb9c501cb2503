"""What becomes of rows: JSON, a picture, and the machine that they were measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import trsvd

if TYPE_CHECKING:
    from trsvd.table import Row

__all__ = ["check_plot", "figure_class", "machine", "plot", "to_json"]


def machine(backend: str = "numpy", device: str | None = None) -> dict[str, Any]:
    """Versions, BLAS, threads and processor: what times depend on.

    Parameters
    ----------
    backend, device : str, optional
        Library and device that it ran on.

    Returns
    -------
    dict
        For JSON.
    """
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    versions = {name: _version(name) for name in ("numpy", "scipy", backend)}
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "python": platform.python_version(),
        "versions": {"trsvd": trsvd.__version__, **versions},
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "cpu": _processor(),
        "cpus": os.cpu_count(),
        "threads": _threads(),
        "thread_variables": {name: os.environ[name] for name in variables if name in os.environ},
        "platform": platform.platform(),
        "backend": backend,
        "device": device or "default",
    }


def _threads() -> int:
    """Threads that BLAS is told to use, or the processors that this process may use."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        told = os.environ.get(name, "")
        if told.isdigit() and int(told) > 0:
            return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in {"model name", "hardware", "cpu model"}:
            return value.strip()
    return platform.processor() or platform.machine()


def to_json(rows: Iterable[Row], about: dict[str, Any]) -> str:
    """``{"rows": [...], "machine": {...}}``.

    Parameters
    ----------
    rows : iterable of Row
        What was measured.
    about : dict
        On what; see `machine`.

    Returns
    -------
    str
        JSON, indented.
    """
    record = {"rows": [row.as_dict() for row in rows], "machine": about}
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def plot(rows: Sequence[Row], path: str | Path) -> None:
    """Draw err1 against products and against seconds, one curve a method.

    Parameters
    ----------
    rows : sequence of Row
        One pair of panels for each matrix, k and seed.
    path : str or Path
        File to write; its ending says the format.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    Figure = figure_class()
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.matrix, row.size, row.k, row.seed), []).append(row)
    figure = Figure(figsize=(10, 3.4 * max(1, len(groups))), layout="constrained")
    panels = figure.subplots(max(1, len(groups)), 2, squeeze=False)
    names = list(dict.fromkeys(row.method for row in rows))
    colors = {name: f"C{i % 10}" for i, name in enumerate(names)}
    for (left, right), ((matrix, size, k, _), members) in zip(panels, groups.items(), strict=False):
        for row in members:
            # What jumps far below the target lies on the lower edge: the way there is to be seen.
            errors = [max(point.err1, row.target / 100) for point in row.curve]
            marker = "." if len(errors) > 1 else "v"
            style = {"label": row.method, "color": colors[row.method], "marker": marker}
            left.plot([point.matvecs for point in row.curve], errors, **style)
            right.plot([point.seconds for point in row.curve], errors, **style)
        for panel, label in ((left, "products with A or its adjoint"), (right, "seconds")):
            panel.set(xscale="log", yscale="log", xlabel=label, ylabel="err1")
            panel.set_title(f"{matrix}, {size[0]} x {size[1]}, k = {k}", fontsize="medium")
            panel.axhline(members[0].target, color="0.6", lw=0.8, ls="--")
            panel.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def check_plot(path: str | Path) -> None:
    """Whether `plot` can write such a file: better known before the runs than after.

    Parameters
    ----------
    path : str or Path
        As for `plot`.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If it does not know the format.
    """
    known = sorted(figure_class()().canvas.get_supported_filetypes())
    ending = Path(path).suffix.lower().lstrip(".")
    if ending not in known:
        raise ValueError(f"{path}: pictures can be {', '.join(known)}")


def figure_class() -> Any:
    """`matplotlib.figure.Figure`, without the global state of pyplot.

    Returns
    -------
    type

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'trsvd[plot]'") from error
    return Figure
