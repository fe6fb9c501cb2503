"""PyTorch optimizers in several processes: DTensors, FSDP2, DDP, and their checkpoints."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("torch.distributed is not built", allow_module_level=True)
if not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
    pytest.skip("fully_shard came with PyTorch 2.6", allow_module_level=True)
dcp = pytest.importorskip("torch.distributed.checkpoint")

from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict  # noqa: E402
from torch_optimizers import CLASSES  # noqa: E402
from torch_ranks import HALF, Model, composite, difference, train, train_on  # noqa: E402

# The steps are the same, but for the order of sums.
CLOSE = 1e-10
# Seconds for all classes of a case, which take a quarter of that; nothing waits for ever.
LIMIT = 400

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


def run(case, folder, world=2, names=tuple(CLASSES)):
    """The results of a case, of each process: by class, a dict or a traceback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(here / "torch_ranks.py"), case]
    logs = [folder / f"{case}-{rank}.log" for rank in range(world)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open("w") as out:
            rest = [str(rank), str(world), port, str(folder), ",".join(names)]
            processes.append(
                subprocess.Popen([*command, *rest], env=env, stdout=out, stderr=subprocess.STDOUT)
            )
    end = time.monotonic() + LIMIT
    try:
        codes = [each.wait(timeout=max(end - time.monotonic(), 0.1)) for each in processes]
    except subprocess.TimeoutExpired:
        codes = ["too long"]
    finally:
        for each in processes:
            each.kill()
            each.wait()
    assert codes == [0] * world, "\n".join(log.read_text()[-2000:] for log in logs)
    return [pickle.loads((folder / f"{case}-{rank}.pickle").read_bytes()) for rank in range(world)]


def wrong(results, expected):
    """The classes for which a process found something else."""
    return {
        name: found
        for each in results
        for name, found in each.items()
        if not (isinstance(found, dict) and expected(found))
    }


# Each test runs all classes: starting the processes takes longer than most of them.


def test_steps_of_dtensors_are_those_of_one_process(tmp_path):
    """Rows, columns and copies, processes with more rows, fewer and none; and a fault in one.

    A number that is not finite in the part of one process is refused by both.
    """
    results = run("placements", tmp_path)
    assert [list(each) for each in results] == [list(CLASSES)] * 2
    assert not wrong(
        results,
        lambda found: (
            found["difference"] <= CLOSE and found["placed alike"] and found["refused"] == 1
        ),
    )


def test_models_of_fully_shard_and_their_checkpoints(tmp_path):
    """Saved by two processes or by one, nested and flat; loaded by two, and by one."""
    expected = {}
    for name in CLASSES:
        model = Model()
        optimizer = composite(name, model)
        train(model, optimizer, HALF)
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optim": state}, checkpoint_id=tmp_path / f"{name}-alone")
        expected[name] = train_on(model, optimizer)
    results = run("fsdp", tmp_path)
    assert [list(each) for each in results] == [list(CLASSES)] * 2
    assert not wrong(
        results,
        lambda found: len(found) == 5 and all(value <= CLOSE for value in found.values()),
    )
    for name in CLASSES:
        model = Model()
        optimizer = composite(name, model)
        weights, state = get_state_dict(model, optimizer)
        dcp.load({"model": weights, "optim": state}, checkpoint_id=tmp_path / f"{name}-nested")
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
        assert difference(train_on(model, optimizer), expected[name]) <= CLOSE, name


def test_replicated_models_and_their_checkpoints(tmp_path):
    results = run("ddp", tmp_path)
    assert [list(each) for each in results] == [list(CLASSES)] * 2
    assert not wrong(
        results,
        lambda found: len(found) == 3 and all(value <= CLOSE for value in found.values()),
    )


def test_strided_shards(tmp_path):
    """fully_shard of what tensor parallelism has divided, over four processes."""
    names = ("Fanion", "Muon-NS", "NorMuon", "Dion", "NSGD")
    results = run("strided", tmp_path, world=4, names=names)
    assert [tuple(each) for each in results] == [names] * 4
    assert not wrong(
        results,
        lambda found: found["difference"] <= CLOSE and "_StridedShard" in found["placements"],
    )
