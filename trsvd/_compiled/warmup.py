"""Compile everything before the first call."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module

from trsvd._compiled import make_ready
from trsvd._compiled.kind import Kind
from trsvd._compiled.threads import threads


def warmup(progress: bool = False) -> None:
    """Compile the Lanczos steps for real matrices now, or load them if they are compiled already.

    Without it, `svds` compiles only for calls that take several times as long as the compiler, and
    loads compiled steps only for calls of some seconds. After it, every call in this process uses
    them. Call it once at the start of a program that makes many calls.

    Parameters
    ----------
    progress : bool, default False
        Show a progress bar on standard error.

    Returns
    -------
    None

    Raises
    ------
    ImportError
        Numba is not installed, or cannot be imported.

    See Also
    --------
    select_method : The method for a matrix, which depends on the compiled steps at hand.

    Notes
    -----
    The steps are compiled for dense and sparse matrices in single and double precision; with
    several threads, also for products that are shared by them. That takes half a minute to two
    minutes, once: Numba keeps the result in the folder of the package or in the user's cache
    directory, and later processes load it in about a second. Sparse matrices with 64-bit indices
    are not included. With ``TRSVD_COMPILED=0`` in the environment nothing is done.

    Examples
    --------
    >>> import trsvd
    >>> trsvd.warmup()  # doctest: +SKIP
    """
    if os.environ.get("TRSVD_COMPILED") == "0":
        return
    try:
        import_module("trsvd._compiled.lanczos")
    except Exception as error:
        raise ImportError(
            f"compiled steps need Numba, which cannot be imported: {error}; install it by "
            "`python -m pip install numba threadpoolctl`, or leave out trsvd.warmup: trsvd works "
            "without it"
        ) from error
    for kind in _shown(_kinds()) if progress else _kinds():
        make_ready(kind, compiles=True)


def _shown(kinds: list[Kind]) -> Iterable[Kind]:
    """Show a progress bar while kinds are compiled."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(kinds, "trsvd: compiling", console=console, transient=True)


def _kinds() -> list[Kind]:
    single, double = "float32", "float64"
    pairs = ((single, single), (double, double), (single, double))
    shared = threads() > 1
    return [Kind(sparse, *pair, shared) for sparse in (False, True) for pair in pairs]
