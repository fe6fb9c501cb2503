"""The command ``trsvd table``: methods side by side."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trsvd import table
from trsvd.cli import arguments as _arguments
from trsvd.cli.arguments import STDOUT, FailedError, UsageError, check_directory, write_json
from trsvd.cli.matrix_files import read_matrix
from trsvd.table.display import Display, progress_on_stderr, title_of
from trsvd.table.matrices import SHIPPED, momentum_matrix

_TABLE = """\
Compare methods for the top k singular triplets. Each runs to its first iteration with
err1 < TARGET, where err1 = ||U V^H - U_k V_k^H||_F / sqrt(k) against the exact triplets
(off the clock). The time is the median of fresh runs with exactly the products that this
took. For the cases of the paper (arXiv:2512.09678), its figures are shown as well.
The exit status is 1 if a method does not reach the target.
Without --sizes and --matrix: Gaussian 500 x 500 at k = 5 and 50, and a momentum matrix
from a training run that ships with trsvd.
"""

_TABLE_END = """\
err2 is the relative error of the rank-k matrix U S V^H. Matvecs are products of A or A^H
with one vector, made by the method itself. Newton-Schulz (cubic) computes the polar factor,
k = r = min(m, n). Full decompositions (direct, newton-schulz) of matrices with
min(m, n) > 2000 run only if --methods names them. The counts depend on the gap between s_k
and s_{k+1}, that of power iteration most of all: with the default seed it comes near the
paper's, and TRLan takes what it takes in the median of ten seeds.

examples:
  trsvd table
  trsvd table --sizes 5000 --methods trlan,rsvd
  trsvd table --methods trlan --seed 0 1 2 3 4 5 6 7 8 9
  trsvd table --matrix weights.safetensors:layers.0.weight --k 8 64 --json out.json --plot out.png
"""

_DEFAULT_SEED = 56


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "table",
        help="compare TRLan, RSVD, power iteration and others, each to the same error",
        description=_TABLE,
        epilog=_TABLE_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    what = parser.add_argument_group("what to run on")
    what.add_argument(
        "--sizes",
        type=_arguments.size,
        nargs="+",
        metavar="N",
        help="Gaussian matrices N x N (or MxN, as 800x300)",
    )
    what.add_argument(
        "--matrix",
        nargs="+",
        metavar="FILE",
        help=(
            "matrices from files: .npy, .npz (scipy.sparse), .mtx, .safetensors "
            f"(FILE:TENSOR names one in it); {SHIPPED!r} is the one that ships with trsvd"
        ),
    )
    what.add_argument("--tensor", metavar="NAME", help="tensor to read from .safetensors files")
    what.add_argument(
        "--k",
        type=_arguments.positive,
        nargs="+",
        metavar="K",
        help="numbers of triplets (default: 5, and 50 for Gaussian 500 x 500)",
    )
    what.add_argument(
        "--seed",
        type=_arguments.seed,
        nargs="+",
        default=[_DEFAULT_SEED],
        metavar="SEED",
        help=(
            "draws the Gaussian matrix (trsvd.table.gaussian(m, n, SEED)) and the start "
            "(rng=SEED); several seeds: medians at the end "
            f"(default: {_DEFAULT_SEED})"
        ),
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--methods",
        type=_methods,
        metavar="NAME,...",
        help=f"any of {','.join(table.NAMES)} (default: all)",
    )
    how.add_argument(
        "--target",
        type=_arguments.fraction,
        default=1e-2,
        metavar="TARGET",
        help="err1 to get below (default: %(default)s)",
    )
    how.add_argument(
        "--repeats",
        type=_arguments.positive,
        metavar="N",
        help="fresh runs to time (default: 5; 3 of over 0.5 s, 1 of over 5 s)",
    )
    how.add_argument(
        "--basis-size",
        type=_arguments.positive,
        metavar="P",
        help="vectors in TRLan's basis (default: 2k + 20, and 2k + 60 where min(m, n) > 1000)",
    )
    how.add_argument(
        "--backend",
        choices=("numpy", "torch", "cupy"),
        default="numpy",
        help="array library to run on (default: %(default)s)",
    )
    how.add_argument("--device", help="device of that library, such as cuda (default: its own)")
    out = parser.add_argument_group("files to write")
    out.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="rows and machine as JSON; - means standard output, without the tables",
    )
    out.add_argument(
        "--plot",
        type=Path,
        metavar="OUT.png",
        help="err1 against products and against seconds (needs matplotlib)",
    )


def _methods(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in table.NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'!r} is not known; choose of {','.join(table.NAMES)}"
        )
    return [name for name in table.NAMES if name in names]


# ---- trsvd table ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Source:
    """Source of a case: a size to draw, or a matrix that was read."""

    name: str
    size: tuple[int, int]
    stored: table.Case | None = None

    def case(self, seed: int) -> table.Case:
        if self.stored:
            return self.stored
        try:
            return table.Case(self.name, table.gaussian(*self.size, seed), in_paper=True)
        except (MemoryError, ValueError) as error:
            raise UsageError(f"no Gaussian matrix of shape {self.size}: {error}") from error


def _run(arguments: argparse.Namespace) -> int:
    """``trsvd table``."""
    sources = list(_sources(arguments))
    ranks = {source: _ranks(source, arguments) for source in sources}
    place = table.Place(arguments.backend, arguments.device)
    _check_outputs(arguments, place)
    display = Display(quiet=arguments.json == STDOUT)
    display.note(
        f"Each method stops at its first iteration with err1 < {arguments.target:g}, where err1 = "
        "||U V^H - U_k V_k^H||_F / sqrt(k). The time is the median of fresh runs."
    )
    rows: list[table.Row] = []
    refusals = []
    for seed in arguments.seed:
        for source in sources:
            case = source.case(seed)
            for k in [*ranks[source], None]:
                methods = _methods_for(case, k, arguments, display)
                try:
                    rows += _run_group(case, k, methods, seed, place, arguments, display)
                except table.Undefined as error:
                    refusals.append(f"{case.name}: {error}")
                    display.note(f"{title_of(case, k)}: {', '.join(methods)} left out: {error}")
    if not rows:
        raise UsageError("; ".join(dict.fromkeys(refusals)) or "no method is left to run")
    if len(arguments.seed) > 1:
        display.medians(rows)
    display.conclusion(rows)
    if arguments.json:
        about = table.machine(place.backend, place.device)
        write_json(arguments.json, table.to_json(rows, about))
    if arguments.plot:
        table.plot(rows, arguments.plot)
    return 0 if all(row.reached for row in rows) else 1


def _run_group(
    case: table.Case,
    k: int | None,
    methods: list[str],
    seed: int,
    place: table.Place,
    arguments: argparse.Namespace,
    display: Display,
) -> list[table.Row]:
    """Run methods on one matrix, and show them."""
    if not methods:
        return []
    title = f"{title_of(case, k)}, {case.A.dtype}, seed {seed}"
    with progress_on_stderr(title) as progress:
        try:
            found = table.compare(
                case,
                k,
                methods,
                target=arguments.target,
                seed=seed,
                place=place,
                repeats=arguments.repeats,
                basis_size=arguments.basis_size,
                progress=progress,
            )
            rows = list(found)
        except table.Undefined:
            raise
        except table.Irreproducible as error:
            raise FailedError(str(error)) from error
        except ValueError as error:
            raise UsageError(f"{case.name}: {error}") from error
    display.group(title, rows)
    return rows


def _sources(arguments: argparse.Namespace) -> Iterator[_Source]:
    default = arguments.sizes is None and arguments.matrix is None
    for size in [(500, 500)] if default else arguments.sizes or []:
        yield _Source("gaussian", size)
    for name in [SHIPPED] if default else arguments.matrix or []:
        shipped = name == SHIPPED and not Path(name).exists()
        A = momentum_matrix() if shipped else read_matrix(name, arguments.tensor)
        title = "momentum of a language model" if shipped else Path(name).name
        if title.endswith(".safetensors") and arguments.tensor:
            title = f"{title}:{arguments.tensor}"
        try:
            case = table.Case(title, A)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error
        yield _Source(title, case.size, case)


def _ranks(source: _Source, arguments: argparse.Namespace) -> list[int]:
    """The k to run, all of them possible."""
    rank = min(source.size)
    paper = (5, 50) if source.stored is None and source.size == (500, 500) else (5,)
    ranks = arguments.k or [min(k, rank) for k in paper]
    for k in ranks:
        if k > rank:
            raise UsageError(
                f"--k {k}: {source.name} of shape {source.size} has min(m, n) = {rank} triplets"
            )
        wanted = arguments.methods is None or "trlan" in arguments.methods
        if wanted and arguments.basis_size is not None:
            method = table.method_object("trlan", rank, k, arguments.basis_size)
            try:
                method.basis_for(k, rank)  # type: ignore[attr-defined]
            except ValueError as error:
                raise UsageError(f"--basis-size: {error}") from error
    return list(dict.fromkeys(ranks))


def _methods_for(
    case: table.Case, k: int | None, arguments: argparse.Namespace, display: Display
) -> list[str]:
    """Return the methods to run at this k; k is None for the polar factor."""
    full = {"direct", table.NEWTON_SCHULZ}
    names = [name for name in table.NAMES if (name == table.NEWTON_SCHULZ) == (k is None)]
    if arguments.methods is not None:
        return [name for name in names if name in arguments.methods]
    if case.rank > table.LARGE:
        skipped = [name for name in names if name in full]
        for name in skipped:
            display.note(
                f"{title_of(case, k)}: {name} is left out where min(m, n) > {table.LARGE}; "
                f"--methods {name} runs it"
            )
        names = [name for name in names if name not in full]
    return names


def _check_outputs(arguments: argparse.Namespace, place: table.Place) -> None:
    """Find out what cannot work before anything runs."""
    for path in (arguments.json, arguments.plot):
        if path is not None and path != STDOUT:
            check_directory(path)
    try:
        if arguments.plot:
            table.check_plot(arguments.plot)
        place.put(np.zeros((1, 1)))
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from error
