"""Spectra as JSON, and as one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from trsvd._arrays.files import replaced
from trsvd._version import __version__
from trsvd.spectrum.values import Spectrum

QUANTITIES = (
    "spectral_norm",
    "frobenius_norm",
    "stable_rank",
    "nuclear_rank",
    "effective_rank",
    "rank_90",
    "rank_99",
)


def write_report(
    path: str | os.PathLike[str],
    checkpoints: Mapping[str, Iterable[Spectrum]],
    *,
    overwrite: bool = False,
) -> None:
    """Write spectra to an HTML file that opens without a network.

    Parameters
    ----------
    path : str or path-like
        File to write. It is complete, or it is not there.
    checkpoints : mapping of str to iterable of Spectrum
        Spectra of each checkpoint by its label. Matrices of the same name are compared.
    overwrite : bool, default False
        Replace a file that exists.

    Raises
    ------
    FileExistsError
        If the file exists, without ``overwrite``.
    ValueError
        If a checkpoint has two matrices of the same name.

    See Also
    --------
    spectra
    """
    write_text(path, as_html(as_document(checkpoints)), overwrite=overwrite)


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool) -> None:
    """Write a file in one step; FileExistsError if there is one, without ``overwrite``."""
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{os.fspath(path)} exists; choose another name, or overwrite it")
    with replaced(path) as file:
        file.write(text.encode())


def as_document(
    checkpoints: Mapping[str, Iterable[Spectrum]],
    skipped: Sequence[Mapping[str, int]] = (),
) -> dict[str, Any]:
    """Return spectra as objects that JSON can hold.

    Parameters
    ----------
    checkpoints : mapping of str to iterable of Spectrum
        Spectra of each checkpoint by its label.
    skipped : sequence of mapping, optional
        Number of skipped tensors of each kind, for each checkpoint.

    Returns
    -------
    dict
        Matrices in the order of their first occurrence, each with one result or None for each
        checkpoint. Numbers that are not finite are None.
    """
    results: dict[str, list[dict[str, Any] | None]] = {}
    for place, (label, found) in enumerate(checkpoints.items()):
        for spectrum in found:
            row = results.setdefault(spectrum.name, [None] * len(checkpoints))
            if row[place] is not None:
                raise ValueError(
                    f"{label!r} has two matrices named {spectrum.name!r}; give each its own name"
                )
            row[place] = _result(spectrum)
    return {
        "format": "trsvd.spectrum",
        "version": __version__,
        "checkpoints": [
            {"label": label, "skipped": dict(skipped[place]) if skipped else {}}
            for place, label in enumerate(checkpoints)
        ],
        "matrices": [{"name": name, "results": row} for name, row in results.items()],
    }


def _result(spectrum: Spectrum) -> dict[str, Any]:
    numbers, values = spectrum.decay()
    return {
        "shape": list(spectrum.shape),
        "dtype": spectrum.dtype,
        "finite": spectrum.is_finite,
        **{name: _number(getattr(spectrum, name)) for name in QUANTITIES},
        "decay": [[int(i), float(f"{s:.6g}")] for i, s in zip(numbers, values, strict=True)],
    }


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def as_json(document: Mapping[str, Any]) -> str:
    """Return a document as a JSON file."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def as_html(document: Mapping[str, Any]) -> str:
    """Return the page that shows a document.

    Only the page's own script and style may run: its security policy has their hashes.
    """
    page = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    hashes = {}
    for tag in ("script", "style"):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[tag] = f"{tag}-src 'sha256-{digest}'"
    policy = f"default-src 'none'; {hashes['script']}; {hashes['style']}; base-uri 'none'"
    data = json.dumps(document, allow_nan=False, separators=(",", ":"))
    # No text can end the element: "<" occurs in strings only.
    data = data.replace("<", "\\u003c")
    return page.replace("{{policy}}", policy, 1).replace("{{data}}", data, 1)
