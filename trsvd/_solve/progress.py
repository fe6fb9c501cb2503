"""Display of the progress of a run, by rich on standard error."""

from __future__ import annotations

from types import TracebackType

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from trsvd._arrays.arrays import HostArray


class Display:
    """Line on a terminal or in a notebook that shows the state of a run; removed at the end.

    Parameters
    ----------
    console : rich.console.Console, optional
        The default is standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("trsvd: first products", total=None)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def show(self, matvecs: int, k: int, residuals: HostArray, tol: float) -> None:
        """Show the number of converged triplets, the largest residual and the products.

        Parameters
        ----------
        matvecs : int
            Number of products so far.
        k : int
            Number of triplets.
        residuals : array of shape (j,)
            Estimated residuals of the leading triplets, relative to s_1.
        tol : float
            Largest requested residual.
        """
        good = int(np.cumprod(residuals[:k] <= tol).sum())
        worst = float(residuals[:k].max(initial=0.0))
        self.progress.update(
            self.task,
            description=(
                f"trsvd: {good} of {k} triplets converged, largest residual {worst:.1e} "
                f"(tol {tol:.1e}), {matvecs} products"
            ),
        )
