"""What two processes do in the tests of distributed optimizers; started by `run`."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import traceback
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch_optimizers import CLASSES

from trsvd.optim import torch as T

__all__ = ["HALF", "STEPS", "Model", "composite", "difference", "train", "train_on"]

# Parameters: those of one process are 4 and 3 rows, 1 and 0; 3 and 2 columns; or all.
PLACED = {
    "uneven rows": ((7, 5), "rows"),
    "even rows": ((6, 8), "rows"),
    "again": ((6, 8), "rows"),
    "one row": ((1, 6), "rows"),
    "columns": ((6, 5), "columns"),
    "replicated": ((5, 4), "everywhere"),
    "stack": ((3, 6, 4), "rows"),
    "rows of a stack": ((3, 5, 4), "columns"),
    "convolution": ((5, 2, 3, 2), "rows"),
}
STEPS, HALF = 10, 7


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(11, 6)
        self.hidden = torch.nn.Linear(6, 9)
        self.experts = torch.nn.Parameter(torch.randn(3, 9, 8))
        self.head = torch.nn.Linear(8, 5)
        self.double()

    def forward(self, tokens):
        return self.head(torch.tanh(self.hidden(self.embedding(tokens))) @ self.experts.sum(dim=0))


def composite(name, model, lr=0.05):
    """The optimizer of a name for two matrices of the model, and AdamW for the rest."""
    cls, own = CLASSES[name]
    matrices = [model.hidden.weight, model.experts]
    others = [p for p in model.parameters() if not any(p is each for each in matrices)]
    return T.CompositeOptimizer(
        cls(matrices, lr=lr, **own), torch.optim.AdamW(others, lr=lr, foreach=False)
    )


def train(model, optimizer, steps, seed=0):
    """Steps with the same batches in every process; the parameters, whole."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        tokens = torch.randint(0, 11, (20,), generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens), tokens % 5).backward()
        optimizer.step()
    return [whole(p) for p in model.parameters()]


def whole(X):
    X = X.detach()
    return X.full_tensor() if hasattr(X, "full_tensor") else X.clone()


def difference(first, second):
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


# ---- cases: functions of the name of a class, that return numbers ----------------------------


def placements(name, mesh, folder):
    """Parameters and gradients as DTensors: the difference to one process, after ten steps."""
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    del folder
    kinds = {"rows": Shard(0), "columns": Shard(1), "everywhere": Replicate()}
    cls, own = CLASSES[name]
    generator = torch.Generator().manual_seed(0)

    def random(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    start = [random(shape) for shape, _ in PLACED.values()]
    placed = [[kinds[kind]] for _, kind in PLACED.values()]
    alone = [torch.nn.Parameter(W.clone()) for W in start]
    params = [
        torch.nn.Parameter(distribute_tensor(W, mesh, p))
        for W, p in zip(start, placed, strict=True)
    ]
    options = {"lr": 0.1, "weight_decay": 0.1, "normalize_weights": True, "shape_scaling": "muon"}
    one, many = cls(alone, **own, **options), cls(params, **own, **options)
    still, refused = [random(W.shape) for W in start], 0
    for number in range(STEPS):
        grads = [G + 0.3 * random(G.shape) for G in still]
        for p, q, G, place in zip(alone, params, grads, placed, strict=True):
            p.grad, q.grad = G, distribute_tensor(G, mesh, place)
            if place == [Replicate()]:  # a sum over processes that is not made yet
                q.grad = DTensor.from_local(G / 2, mesh, [Partial()])
        if number == 2:
            # A number that one process has, and all must refuse.
            bad = grads[0].clone()
            bad[0, 0] = torch.nan
            before = [whole(p) for p in params]
            params[0].grad = distribute_tensor(bad, mesh, placed[0])
            try:
                many.step()
            except ValueError:
                refused += difference([whole(p) for p in params], before) == 0
            params[0].grad = distribute_tensor(grads[0], mesh, placed[0])
        one.step()
        many.step()
    buffers = [s["momentum_buffer"] for s in many.state.values() if "momentum_buffer" in s]
    same = all(
        tuple(many.state[p]["momentum_buffer"].placements) == tuple(p.placements)
        for p in params
        if "momentum_buffer" in many.state[p]
    )
    return {
        "difference": difference([whole(p) for p in params], [p.detach() for p in alone]),
        "refused": refused,
        "placed alike": same and len(buffers) > 0,
    }


def sharded(model, mesh):
    from torch.distributed.fsdp import fully_shard

    fully_shard(model.hidden, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def fsdp(name, mesh, folder):
    """A model of fully_shard, and its checkpoints on disk."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_state_dict,
        set_model_state_dict,
        set_optimizer_state_dict,
        set_state_dict,
    )

    plain = Model()
    expected = train(plain, composite(name, plain), STEPS)
    model = sharded(Model(), mesh)
    optimizer = composite(name, model)
    train(model, optimizer, HALF)
    out = {}
    # The first half, saved by one process.
    other = sharded(Model(), mesh)
    resumed = composite(name, other)
    weights, state = get_state_dict(other, resumed)
    dcp.load({"model": weights, "optim": state}, checkpoint_id=folder / f"{name}-alone")
    set_state_dict(other, resumed, model_state_dict=weights, optim_state_dict=state)
    out["from one process"] = difference(train_on(other, resumed), expected)
    for flat in (False, True):
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        # Before its first step the optimizer gives the form of a state, to be loaded into.
        other = sharded(Model(), mesh)
        resumed = composite(name, other)
        kind = "flat" if flat else "nested"
        place = folder / f"{name}-{kind}"
        saved = get_state_dict(model, optimizer, options=options)
        dcp.save(dict(zip(("model", "optim"), saved, strict=True)), checkpoint_id=place)
        weights, state = get_state_dict(other, resumed, options=options)
        dcp.load({"model": weights, "optim": state}, checkpoint_id=place)
        set_state_dict(
            other, resumed, model_state_dict=weights, optim_state_dict=state, options=options
        )
        found = train_on(other, resumed)
        out[f"{kind} again"] = difference(found, expected)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    full = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, state = copy.deepcopy(get_state_dict(model, optimizer, options=full))
    other = sharded(Model(), mesh)
    resumed = composite(name, other)
    # The other processes have nothing to give.
    given = (weights, state) if dist.get_rank() == 0 else ({}, {})
    set_model_state_dict(other, given[0], options=options)
    set_optimizer_state_dict(other, resumed, given[1], options=options)
    out["from rank 0"] = difference(train_on(other, resumed), expected)
    out["difference"] = difference(train_on(model, optimizer), expected)
    return out


def train_on(model, optimizer):
    """The last steps, after the first half."""
    generator = torch.Generator().manual_seed(0)
    for number in range(STEPS):
        tokens = torch.randint(0, 11, (20,), generator=generator)
        if number >= HALF:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(tokens), tokens % 5).backward()
            optimizer.step()
    return [whole(p) for p in model.parameters()]


def ddp(name, mesh, folder):
    """A model of DistributedDataParallel, and its checkpoints on disk."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_state_dict,
        set_state_dict,
    )
    from torch.nn.parallel import DistributedDataParallel

    del mesh
    plain = Model()
    expected = train(plain, composite(name, plain), STEPS)
    model = DistributedDataParallel(Model())
    optimizer = composite(name, model.module)
    train(model, optimizer, HALF)
    out = {}
    for flat in (False, True):
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        other = DistributedDataParallel(Model())
        resumed = composite(name, other.module)
        place = folder / f"ddp-{name}-{flat}"
        saved = get_state_dict(model, optimizer, options=options)
        dcp.save(dict(zip(("model", "optim"), saved, strict=True)), checkpoint_id=place)
        weights, state = get_state_dict(other, resumed, options=options)
        dcp.load({"model": weights, "optim": state}, checkpoint_id=place)
        set_state_dict(
            other, resumed, model_state_dict=weights, optim_state_dict=state, options=options
        )
        out["flat again" if flat else "nested again"] = difference(
            train_on(other, resumed), expected
        )
    out["difference"] = difference(train_on(model, optimizer), expected)
    return out


def strided(name, mesh, folder):
    """Rows over four processes by fully_shard and tensor parallelism: a strided shard."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    del mesh, folder
    plain = Model()
    expected = train(plain, composite(name, plain), STEPS)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    model = Model()
    plan = {"hidden": ColwiseParallel(output_layouts=Replicate())}
    parallelize_module(model, mesh["tensor"], plan)
    fully_shard(model, mesh=mesh["data"])
    optimizer = composite(name, model)
    return {
        "placements": str(model.hidden.weight.placements),
        "difference": difference(train(model, optimizer, STEPS), expected),
    }


CASES = {"placements": placements, "fsdp": fsdp, "ddp": ddp, "strided": strided}


def main(case, rank, world, port, folder, names):
    """Run a case for some classes; results, or tracebacks, go to a file."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=int(rank), world_size=int(world))
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (int(world),))
    results = {}
    for name in names.split(","):
        try:
            results[name] = CASES[case](name, mesh, Path(folder))
        except Exception:  # noqa: BLE001 - the test shows it
            results[name] = traceback.format_exc()
        with Path(folder, f"{case}-{rank}.pickle").open("wb") as file:
            pickle.dump(results, file)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
