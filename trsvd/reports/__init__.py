"""Pictures, and the machine that times were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

import trsvd

__all__ = ["check_plot", "figure_class", "machine"]


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


def check_plot(path: str | Path) -> None:
    """Check before a run that a picture of this format can be written after it.

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
        raise ImportError("a plot needs matplotlib: python -m pip install matplotlib") from error
    return Figure
