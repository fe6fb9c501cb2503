"""Backends, matrices and accuracy checks of the benchmarks."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# Warm-up calls of asv compile.
os.environ.setdefault("TRSVD_COMPILED", "1")


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Backend:
    """Transfer of host arrays to an array library and back, and its synchronization."""

    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    synchronize: Callable[[], Any] = _nothing


def _backends() -> dict[str, Backend]:
    found = {"numpy": Backend(np.asarray, np.asarray)}
    try:
        import torch
    except ImportError:
        pass
    else:
        found["torch"] = Backend(torch.asarray, np.asarray)
        if torch.cuda.is_available():
            found["torch-cuda"] = Backend(
                lambda A: torch.asarray(A, device="cuda"),
                lambda A: np.asarray(A.cpu()),
                torch.cuda.synchronize,
            )
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception:  # absent, or present without a device: neither is an error here
        pass
    else:
        found["cupy"] = Backend(
            cupy.asarray, cupy.asnumpy, lambda: cupy.cuda.get_current_stream().synchronize()
        )
    return found


BACKENDS = _backends()


def decaying(m: int, n: int, rate: float, seed: int = 0) -> np.ndarray:
    """Return a matrix with singular values of about ``rate ** i``."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, n)) * rate ** np.arange(n)


def gaussian(m: int, n: int, seed: int = 0) -> np.ndarray:
    """Return a matrix of independent standard normal entries; its gaps are small."""
    return np.random.default_rng(seed).standard_normal((m, n))


def assert_accurate(S: np.ndarray, exact: np.ndarray, residuals: np.ndarray, tol: float) -> None:
    """Raise unless S and the residuals are as accurate as ``tol`` asks.

    A residual of at most tol per triplet bounds the error of each singular value by
    sqrt(k) tol s_1. The rounding errors of the comparison are added.
    """
    allowed = np.sqrt(len(S)) * tol + 1e2 * np.finfo(S.dtype).eps
    error = np.max(np.abs(S - exact[: len(S)])) / exact[0]
    residual = np.max(residuals)
    if not (residual <= tol and error <= allowed):
        raise AssertionError(
            f"residual {residual:.1e} (tol {tol:.1e}), error of S {error:.1e} ({allowed:.1e})"
        )


def assert_orthonormal(Q: np.ndarray) -> None:
    """Raise unless the columns of Q are orthonormal to rounding."""
    eps = np.finfo(Q.dtype).eps
    error = np.abs(Q.T @ Q - np.eye(Q.shape[1])).max()
    allowed = 10 * len(Q) ** 0.5 * eps
    if not error <= allowed:
        raise AssertionError(f"orthonormal to {error:.1e} only ({allowed:.1e})")


def assert_small_gap(D: np.ndarray, G: np.ndarray, support: float, gap: float) -> float:
    """Return the true gap of an update; raise if it exceeds ``gap``."""
    true = 1 + np.vdot(D, G) / support
    if not abs(true) <= gap:
        raise AssertionError(f"gap {true:.1e} ({gap:.1e})")
    return float(true)
