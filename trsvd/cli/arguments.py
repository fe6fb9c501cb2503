"""Arguments of the commands: their types, output files, and errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from trsvd._arrays.files import replaced

STDOUT = Path("-")


class UsageError(Exception):
    """Raised for a request that cannot be carried out; the message is one line."""


class FailedError(Exception):
    """Raised for a run that failed; the message is one line."""


def exit_code(name: str, run: Callable[[], int]) -> int:
    """Run a command and return its exit status; print errors in one line.

    Parameters
    ----------
    name : str
        Name of the command, for the error message.
    run : callable
        The command. `UsageError` ends it with status 2, `FailedError` with 1.
    """
    try:
        return run()
    except UsageError as error:
        message, code = str(error), 2
    except FailedError as error:
        message, code = str(error), 1
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except BrokenPipeError:
        # The reader of the output is gone: keep the interpreter from writing the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    print(f"{name}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def seed(text: str) -> int:
    """A whole number of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """``N`` or ``MxN``."""
    parts = [positive(part) for part in text.lower().split("x")]
    if len(parts) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give N, or MxN")
    return parts[0], parts[-1]


def fraction(text: str) -> float:
    """A number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def dots(text: str) -> int:
    """Pixels per inch: fewer leave no room for the text, more no memory for the picture."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 50 <= value <= 1200:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 50 to 1200")
    return value


def check_directory(path: Path) -> None:
    """Raise `UsageError` before a run if a file could not be written after it."""
    try:
        is_directory, has_parent = path.is_dir(), path.absolute().parent.is_dir()
    except OSError as error:  # a name that is too long, for one
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    if is_directory or not has_parent:
        raise UsageError(
            f"{path}: cannot be written: {'a' if is_directory else 'no such'} directory"
        )


def check_new(path: Path | None, *, force: bool) -> None:
    """Raise `UsageError` if a file exists and ``force`` is False, or could not be written.

    None and ``-`` (standard output) need no check.
    """
    if path is None or path == STDOUT:
        return
    check_directory(path)
    if path.exists() and not force:
        raise UsageError(f"{path} exists already; pass --force to replace it, or another name")


def write_json(path: Path, text: str) -> None:
    """Write text to a file, or to standard output for ``-``."""
    if path == STDOUT:
        print(text)
        return
    try:
        with replaced(path) as file:
            file.write(text.encode() + b"\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
