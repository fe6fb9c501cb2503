"""When compiled steps are used: what is loaded, what is on the disk, and what a call costs.

Nothing here reads a clock. Each process has a cache of its own where that matters.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

import trsvd
from trsvd import _compiled, cli
from trsvd._compiled import kernels, kernels_for, small
from trsvd._compiled.kind import Kind

warming = importlib.import_module("trsvd._compiled.warmup")
compiled = pytest.mark.skipif(kernels() is None, reason="Numba is not installed")
SPARSE = Kind(sparse=True, entries="float32", vectors="float32")
SHORT, LONG = 4.0, 79.0  # seconds of a call; 80 pay for a compiler


def run(code: str, cache=None, asked: str | None = None) -> list[str]:
    """Words that a fresh interpreter prints, with a folder for its cache."""
    env = {name: value for name, value in os.environ.items() if name != "TRSVD_COMPILED"}
    if cache is not None:
        env["NUMBA_CACHE_DIR"] = str(cache)
    if asked is not None:
        env["TRSVD_COMPILED"] = asked
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    return done.stdout.split()


@pytest.fixture
def undecided(monkeypatch):
    """Nothing is asked for, loaded or on the disk; kinds that are made ready are listed."""
    monkeypatch.delenv("TRSVD_COMPILED", raising=False)
    monkeypatch.setattr(_compiled, "_ready", set())
    monkeypatch.setattr(_compiled, "_may_be_on_disk", lambda kind: False)
    made = []

    def make_ready(kind, *, compiles):
        made.append((kind, compiles))
        return compiles

    monkeypatch.setattr(_compiled, "make_ready", make_ready)
    return made


# The method for a small matrix.
SMALL = "trlan" if small.available() else "direct"

CALLS = """
import sys, numpy as np, scipy.sparse as sp, trsvd
rng = np.random.default_rng(0)
for dtype in ("float32", "float64"):
    A = rng.standard_normal((256, 256)).astype(dtype)
    trsvd.svds(A, 5, tol=1e-3, rng=0)
    trsvd.svds(A, 5, tol=1e-3, rng=0, method=trsvd.ThickRestartLanczos(gram=True))
    trsvd.svds(sp.random(300, 200, 0.05, format="csr", dtype=dtype), 3, rng=0)
    trsvd.kyfan_dual_lmo(A, 5)
print("numba" in sys.modules, trsvd.select_method(A, 5).method.name)
"""


def test_small_calls_neither_compile_nor_import_numba(tmp_path) -> None:
    assert run(CALLS, tmp_path) == ["False", SMALL]
    assert not list(tmp_path.iterdir())


def test_small_calls_do_not_import_what_is_on_the_disk(tmp_path) -> None:
    for module in ("lanczos", "lanczos_threaded"):
        for name in ("gram_lanczos", "sparse_gram_lanczos"):
            path = tmp_path / "_compiled_0" / f"{module}.{name}-1.py311.1.nbi"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    assert run(CALLS, tmp_path) == ["False", SMALL]


@compiled
@pytest.mark.parametrize(("asked", "expected"), [("1", "True True"), ("0", "False False")])
def test_the_environment_decides(asked, expected) -> None:
    code = (
        "import sys, numpy as np, trsvd; A = np.diag(np.arange(800.0))\n"
        "chosen = trsvd.select_method(A, 5).method; trsvd.svds(A, 5)\n"
        "print('numba' in sys.modules, chosen.gram)"
    )
    assert run(code, asked=asked) == expected.split()


@compiled
def test_what_an_earlier_process_compiled_is_loaded(tmp_path) -> None:
    head = f"import sys; from trsvd._compiled import *; kind = {SPARSE!r}\n"
    head = "from trsvd._compiled import Kind, kernels_for, make_ready, _may_be_on_disk\n" + head
    say = "print(kernels_for(kind, {}) is not None, _may_be_on_disk(kind), 'numba' in sys.modules)"
    ask = head + say.format(LONG)
    assert run(ask, tmp_path) == ["False", "False", "False"]
    assert run(head + "print(make_ready(kind, compiles=True))", tmp_path) == ["True"]
    assert run(ask, tmp_path) == ["True", "True", "True"]
    assert run(head + say.format(SHORT), tmp_path) == ["False", "True", "False"]
    # Another dtype is not there, as Numba tells; and no file is added.
    files = sorted(tmp_path.rglob("*"))
    ask = head + "kind = kind._replace(vectors='float64')\n" + say.format(LONG)
    assert run(ask, tmp_path) == ["False", "True", "True"]
    assert sorted(tmp_path.rglob("*")) == files


@compiled
def test_only_long_calls_compile(undecided) -> None:
    assert kernels_for(SPARSE, LONG) is None
    assert undecided == []
    assert kernels_for(SPARSE, LONG + 2) is kernels()
    shared = SPARSE._replace(shared=True)
    assert kernels_for(shared, 2 * LONG) is None
    assert kernels_for(shared, 2 * LONG + 4) is kernels()
    assert undecided == [(SPARSE, True), (shared, True)]


@compiled
def test_what_is_loaded_is_used_for_every_call(undecided) -> None:
    assert kernels_for(SPARSE, 0.0) is None
    _compiled._ready.add(SPARSE._replace(shared=True))
    assert kernels_for(SPARSE, 0.0) is kernels()
    assert kernels_for(SPARSE._replace(entries="float64", vectors="float64"), 0.0) is None


@compiled
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_chosen_method_is_the_one_that_runs(
    undecided, monkeypatch, general_way, dtype, sparse
) -> None:
    A = np.diag(np.arange(1, 301)).astype(dtype)
    A = sp.csr_array(A) if sparse else A
    used = []
    name = "sparse_gram_lanczos" if sparse else "gram_lanczos"
    real = getattr(kernels(), name)
    monkeypatch.setattr(kernels(), name, lambda *rest: used.append(1) or real(*rest))
    for ready in (False, True):
        _compiled._ready.update({Kind(sparse, dtype, dtype)} if ready else ())
        chosen = trsvd.select_method(A, 5).method
        assert getattr(chosen, "gram", False) is ready
        trsvd.svds(A, 5, rng=0)
        assert bool(used) is ready
    assert undecided == []


@compiled
@pytest.mark.parametrize("tol", [1e-3, 1e-6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sparse", [False, True])
def test_calls_find_what_is_compiled_beforehand(sparse, dtype, tol) -> None:
    """No call has arguments of other types than `entry_points`: those would wait for a compiler."""
    from trsvd._compiled.entry_points import entry_points

    kinds = [Kind(sparse, entries, "float64") for entries in {"float64", dtype}]
    kinds.append(Kind(sparse, "float32", "float32"))
    loops = {}
    for kind in kinds:
        assert _compiled.make_ready(kind, compiles=True)
        loops |= {id(loop): loop for loop, _ in entry_points(kind)}
    before = [set(loop.overloads) for loop in loops.values()]
    rng = np.random.default_rng(0)
    A = (rng.standard_normal((400, 260)) / np.arange(1, 261)).astype(dtype)
    A.flags.writeable = False
    A = sp.csr_array(A) if sparse else A
    for X in (A, A.copy(), A.T, A[:200]):
        for method in (None, trsvd.ThickRestartLanczos(gram=True, block_size=3)):
            trsvd.svds(X, 20, tol=tol, method=method, rng=0, on_failure="return")
    assert [set(loop.overloads) for loop in loops.values()] == before


@compiled
def test_warmup_makes_every_kind_ready(monkeypatch, capsys) -> None:
    made = []
    monkeypatch.setenv("TRSVD_COMPILED", "1")
    monkeypatch.setattr(warming, "make_ready", lambda kind, compiles: made.append(kind))
    monkeypatch.setattr(warming, "threads", lambda: 3)
    trsvd.warmup()
    assert capsys.readouterr() == ("", "")
    assert len(set(made)) == len(made) == 6
    assert all(kind.shared for kind in made)
    assert cli.main(["warmup"]) == 0
    assert capsys.readouterr().out == "compiled steps are ready\n"
    assert made[6:] == made[:6]


def test_warmup_says_that_numba_is_not_there(monkeypatch, capsys) -> None:
    monkeypatch.setenv("TRSVD_COMPILED", "1")
    monkeypatch.setitem(sys.modules, "trsvd._compiled.lanczos", None)
    with pytest.raises(ImportError, match="need Numba"):
        trsvd.warmup()
    assert cli.main(["warmup"]) == 1
    assert "pip install numba" in capsys.readouterr().err


def test_warmup_does_nothing_where_compiled_steps_are_off(monkeypatch, capsys) -> None:
    monkeypatch.setenv("TRSVD_COMPILED", "0")
    monkeypatch.setattr(warming, "make_ready", pytest.fail)
    trsvd.warmup()
    assert cli.main(["warmup"]) == 1
    assert "TRSVD_COMPILED=0" in capsys.readouterr().err
