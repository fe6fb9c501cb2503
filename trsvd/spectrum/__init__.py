"""Spectra of the matrices in checkpoint files: norms, ranks, decay, and a report in HTML."""

from __future__ import annotations

import os
from collections.abc import Iterator

from trsvd.spectrum.checkpoints import CheckpointError, open_checkpoint
from trsvd.spectrum.report import write_report
from trsvd.spectrum.values import Spectrum, spectrum_of

__all__ = ["CheckpointError", "Spectrum", "spectra", "spectrum_of", "write_report"]


def spectra(*paths: str | os.PathLike[str]) -> Iterator[Spectrum]:
    """Yield the spectrum of each matrix in a checkpoint.

    The matrices are read one by one. Weights of convolutions are matrices (out, rest): tensors of
    four or more dimensions, and of three if the last one is below 16 or the name has "conv".
    Other tensors of three dimensions are stacks of matrices with names such as ``experts[0]``.
    Vectors, integers, and matrices of one row or column are skipped.

    Parameters
    ----------
    *paths : str or path-like
        One checkpoint: a ``.safetensors``, ``.pt``, ``.pth``, ``.bin``, ``.npz`` or ``.npy`` file,
        a folder that has one checkpoint, an index of shards, or all shards.

    Yields
    ------
    Spectrum

    Raises
    ------
    CheckpointError
        If a file cannot be read, or has no matrix. Nothing is unpickled from ``.pt`` files but
        tensors in plain containers.

    See Also
    --------
    Spectrum, spectrum_of, write_report

    Notes
    -----
    Memory, beside the mapped file: about 4 n^2 bytes for the longest short side n of a matrix of
    float32 or a narrower dtype; a copy for other dtypes. Members of compressed ``.npz`` files are
    decompressed as a whole.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from trsvd.spectrum import spectra
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/weights.npz"
    ...     np.savez(path, a=np.diag([3.0, 4.0]), b=np.ones((3, 2)))
    ...     for spectrum in spectra(path):
    ...         print(spectrum.name, spectrum.values.round(6), round(spectrum.stable_rank, 6))
    a [4. 3.] 1.5625
    b [2.44949 0.     ] 1.0
    """
    for matrix in open_checkpoint(paths).matrices:
        yield matrix.spectrum()
