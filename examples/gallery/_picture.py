"""Shared by the scripts of the gallery: how a picture is written."""

import io
import sys
from pathlib import Path

from PIL import Image  # comes with matplotlib


def save(figure, script: str) -> None:
    """Write a figure as SCRIPT.png, in 128 colours, into the folder that the command line names."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    path = folder / f"{Path(script).stem}.png"
    Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"picture: {path}")
