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
pytest.importorskip("torch.distributed.fsdp", reason="no fully_shard").fully_shard
dcp = pytest.importorskip("torch.distributed.checkpoint")

from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict  # noqa: E402
from torch_optimizers import CLASSES  # noqa: E402
from torch_ranks import STEPS, Model, composite, difference, train, train_on  # noqa: E402

# The steps are the same, but for the order of sums.
CLOSE = 1e-10
# A few seconds each, and some to start; nothing waits for ever.
LIMIT = 240

on_classes = pytest.mark.parametrize("name", CLASSES)
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
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
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


def of(results, name):
    """What each process found for a class."""
    for each in results:
        assert isinstance(each[name], dict), each[name]
    return [each[name] for each in results]


@pytest.fixture(scope="module")
def placed(tmp_path_factory):
    return run("placements", tmp_path_factory.mktemp("placements"))


@on_classes
def test_steps_of_dtensors_are_those_of_one_process(name, placed):
    """Rows, columns and copies; processes with more rows, fewer, and none."""
    for found in of(placed, name):
        assert found["difference"] <= CLOSE
        assert found["placed alike"]


@on_classes
def test_a_fault_in_one_process_is_refused_by_all(name, placed):
    assert [found["refused"] for found in of(placed, name)] == [1, 1]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    for name in CLASSES:
        model = Model()
        optimizer = composite(name, model)
        train(model, optimizer, STEPS // 2)
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optim": state}, checkpoint_id=folder / f"{name}-alone")
    return folder, run("fsdp", folder)


@on_classes
def test_a_model_of_fully_shard(name, sharded):
    for found in of(sharded[1], name):
        assert found["difference"] <= CLOSE


@on_classes
@pytest.mark.parametrize("kind", ["nested again", "flat again", "from rank 0", "from one process"])
def test_checkpoints_of_a_model_of_fully_shard(name, kind, sharded):
    for found in of(sharded[1], name):
        assert found[kind] <= CLOSE


@on_classes
def test_a_checkpoint_of_two_processes_in_one(name, sharded):
    plain = Model()
    expected = train(plain, composite(name, plain), STEPS)
    model = Model()
    optimizer = composite(name, model)
    weights, state = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optim": state}, checkpoint_id=sharded[0] / f"{name}-nested")
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    assert difference(train_on(model, optimizer), expected) <= CLOSE


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    return run("ddp", tmp_path_factory.mktemp("ddp"))


@on_classes
@pytest.mark.parametrize("kind", ["difference", "nested again", "flat again"])
def test_a_replicated_model_and_its_checkpoints(name, kind, replicated):
    for found in of(replicated, name):
        assert found[kind] <= CLOSE


def test_strided_shards(tmp_path):
    """fully_shard of what tensor parallelism has divided, over four processes."""
    names = ("Fanion", "Muon-NS", "NorMuon", "Dion", "NSGD")
    results = run("strided", tmp_path, world=4, names=names)
    for name in names:
        for found in of(results, name):
            assert "_StridedShard" in found["placements"]
            assert found["difference"] <= CLOSE
