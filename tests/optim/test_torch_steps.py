"""Steps of PyTorch optimizers that are refused, or have no learning rate: nothing has changed."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch_optimizers import (  # noqa: E402
    CLASSES,
    assert_same,
    everything,
    give,
    gradients,
    parameters,
)

from trsvd.optim import torch as T  # noqa: E402

on_classes = pytest.mark.parametrize("name", CLASSES)


@on_classes
@pytest.mark.parametrize("bad", [0, 1, 3, 4, 5], ids="at{}".format)
@pytest.mark.parametrize("before", [0, 2], ids="after{}".format)
def test_a_refused_step_changes_nothing(name, bad, before, rng):
    """And the clean step that follows is the one that it would have been."""
    cls, own = CLASSES[name]
    params = parameters(rng)
    optimizer = cls(params, lr=0.1, weight_decay=0.1, **own)
    for _ in range(before):
        give(params, gradients(rng))
        optimizer.step()
    kept = everything(optimizer, params)
    twin_params, twin = copy.deepcopy([params, optimizer])
    grads = gradients(rng)
    give(params, grads)
    params[bad].grad.view(-1)[3] = torch.nan
    with pytest.raises(ValueError, match="NaN or inf"):
        optimizer.step()
    assert_same(everything(optimizer, params), kept)
    for each, some in ((optimizer, params), (twin, twin_params)):
        give(some, grads)
        each.step()
    assert_same(everything(optimizer, params), everything(twin, twin_params))


@on_classes
def test_a_step_with_groups_is_refused_as_a_whole(name, rng):
    """The fault is in the last of three groups, which differ in their options."""
    cls, own = CLASSES[name]
    params = parameters(rng)
    groups = [
        {"params": params[:2]},
        {"params": params[2:4], "weight_decay": 0.3},
        {"params": params[4:], "normalize_weights": True},
    ]
    optimizer = cls(groups, lr=0.1, **own)
    give(params, gradients(rng))
    optimizer.step()
    kept = everything(optimizer, params)
    give(params, gradients(rng))
    params[-1].grad[0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or inf"):
        optimizer.step()
    assert_same(everything(optimizer, params), kept)


def faults(kind, params, optimizer, monkeypatch):
    """Other faults than a gradient: a function for each that makes one."""

    def sparse():
        params[-1].grad = torch.ones(14, 10, dtype=torch.float64).to_sparse()

    def memory():
        def fail(*_):
            raise MemoryError

        monkeypatch.setattr("trsvd.optim.torch.base.shape_scale", fail)

    def rate():
        optimizer.param_groups[-1]["lr"] = torch.nan

    def hook():
        def fail(record):
            if record.parameter in ("0.5", "1.0"):  # SCALE makes two groups
                raise OSError("disk full")

        optimizer.register_diagnostics_hook(fail)

    def write(place=0 if kind == "write 0" else 5):
        # A parameter that has no memory of its own for each number cannot be written.
        params[place].data = torch.ones(1, 1, dtype=torch.float64).expand(14, 10)

    return {
        "sparse": sparse,
        "memory": memory,
        "hook": hook,
        "rate": rate,
        "write 0": write,
        "write 5": write,
    }


@pytest.mark.parametrize("kind", ["sparse", "memory", "hook", "rate", "write 0", "write 5"])
@pytest.mark.parametrize("name", ["Fanion", "Muon-NS", "Dion", "NorMuon", "SCALE"])
def test_other_faults_change_nothing(name, kind, rng, monkeypatch):
    cls, own = CLASSES[name]
    params = parameters(rng)
    optimizer = cls(params, lr=0.1, **own)
    give(params, gradients(rng))
    optimizer.step()
    give(params, gradients(rng))
    faults(kind, params, optimizer, monkeypatch)[kind]()
    kept = everything(optimizer, params)
    with pytest.raises((RuntimeError, MemoryError, OSError, ValueError)):
        optimizer.step()
    assert_same(everything(optimizer, params), kept)


# ---- composites ----------


class Raising(torch.optim.SGD):
    """Moves its first parameters, and raises."""

    def step(self, closure=None):
        super().step(closure)
        raise RuntimeError("a fault of its own")


def parts(rng, *more):
    params = parameters(rng)
    vectors = [torch.nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(3)]
    optimizers = [
        torch.optim.AdamW(vectors[:1], lr=0.1),
        T.Muon(params[:2], lr=0.1, method="exact"),
        torch.optim.SGD(vectors[1:2], lr=0.1, momentum=0.9),
        T.Dion(params[2:4], lr=0.1, k=2),
        T.Fanion(params[4:], lr=0.1, k=2),
    ]
    return [*params, *vectors], T.CompositeOptimizer(*optimizers, *more), vectors[2:]


@pytest.mark.parametrize("bad", range(8), ids="at{}".format)
def test_a_refused_step_of_a_composite_changes_nothing(bad, rng):
    params, optimizer, _ = parts(rng)
    shapes = [p.shape for p in params]
    for _ in range(2):
        give(params, gradients(rng, shapes))
        optimizer.step()
    kept = everything(optimizer, params)
    twin_params, twin = copy.deepcopy([params, optimizer])
    grads = gradients(rng, shapes)
    give(params, grads)
    params[bad].grad.view(-1)[3] = torch.nan
    with pytest.raises(ValueError, match="NaN or inf"):
        optimizer.step()
    assert_same(everything(optimizer, params), kept)
    for each, some in ((optimizer, params), (twin, twin_params)):
        give(some, grads)
        each.step()
    assert_same(everything(optimizer, params), everything(twin, twin_params))


@pytest.mark.parametrize("before", [0, 1])
def test_a_fault_of_one_optimizer_leaves_the_others(before, rng):
    """Also those that are not ours, which step one after the other."""
    params, optimizer, rest = parts(rng)
    shapes = [p.shape for p in params]
    for _ in range(before):
        give(params, gradients(rng, shapes))
        optimizer.step()
    both = T.CompositeOptimizer(*optimizer.optimizers, Raising(rest, lr=0.1))
    kept = everything(optimizer, params[:-1])
    give(params, gradients(rng, shapes))
    with pytest.raises(RuntimeError, match="of its own"):
        both.step()
    assert_same(everything(optimizer, params[:-1]), kept)
    # The next step of each by itself keeps nothing to undo.
    assert all(
        each._journal is None for each in both.optimizers if isinstance(each, T.MatrixOptimizer)
    )


def test_sparse_gradients_of_a_composite(rng):
    embedding = torch.nn.Embedding(5, 3, sparse=True, dtype=torch.float64)
    params = parameters(rng)
    both = T.CompositeOptimizer(
        T.Muon(params, lr=0.1), torch.optim.SparseAdam(embedding.parameters())
    )
    for fault in (False, True):
        give(params, gradients(rng))
        both.optimizers[1].zero_grad()
        embedding(torch.tensor([1, 1, 3])).sum().backward()
        before = everything(both, [*params, embedding.weight])
        if not fault:
            both.step()
            continue
        embedding.weight.grad = embedding.weight.grad * torch.inf
        with pytest.raises(ValueError, match="NaN or inf"):
            both.step()
        assert_same(everything(both, [*params, embedding.weight]), before)


# ---- no learning rate ----------

OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.5},
    "normalized": {"normalize_weights": True, "weight_decay": 0.1},
    "scaled": {"shape_scaling": "muon", "maximize": True},
}


@on_classes
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("lr", [0.0, torch.tensor(0.0)], ids=["number", "tensor"])
def test_a_step_without_learning_rate_moves_nothing(name, options, lr, rng):
    cls, own = CLASSES[name]
    params = parameters(rng)
    optimizer = cls(params, lr=lr, **own, **OPTIONS[options])
    before = [p.detach().clone() for p in params]
    for _ in range(2):
        give(params, gradients(rng))
        optimizer.step()
    assert_same([p.detach().clone() for p in params], before)
    assert {optimizer.state[p]["step"] for p in params} == {0}


@on_classes
def test_initializing_the_state_changes_no_trajectory(name, rng):
    """What torch.distributed.checkpoint does: gradients of zero, without a learning rate."""
    cls, own = CLASSES[name]
    params = parameters(rng)
    optimizer = cls(params, lr=0.1, **own)
    twin_params, twin = copy.deepcopy([params, optimizer])
    give(params, [torch.zeros_like(p) for p in params])
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    assert optimizer.state.keys() == set(params)
    shapes = {
        p: {key: value.shape for key, value in state.items() if key != "step"}
        for p, state in optimizer.state.items()
    }
    for _ in range(3):
        grads = gradients(rng)
        for each, some in ((optimizer, params), (twin, twin_params)):
            give(some, grads)
            each.step()
        assert_same(everything(optimizer, params), everything(twin, twin_params))
        # What is saved later has the form that it had at first.
        for p, state in optimizer.state.items():
            assert {k: v.shape for k, v in state.items() if k != "step"} == shapes[p]


BAD_NUMBERS = [
    ("lr", -1.0),
    ("lr", float("nan")),
    ("lr", float("inf")),
    ("lr", torch.tensor(-0.1)),
    ("lr", torch.ones(2)),
    ("lr", "0.1"),
    ("momentum", 2.0),
    ("momentum", -0.1),
    ("momentum", float("nan")),
    ("weight_decay", float("inf")),
    ("weight_decay", -1.0),
    ("weight_decay", None),
    ("nesterov", "x"),
    ("maximize", 1),
    ("normalize_weights", None),
    ("k", 1.5),
    ("k", 0),
    ("alpha", 1.5),
    ("lam", float("inf")),
    ("beta2", 1.0),
    ("eps", -1.0),
]


@on_classes
def test_options_that_are_set_later_are_checked(name, rng):
    """By hand or by a state; in a group by itself, and in a part of a composite."""
    cls, own = CLASSES[name]
    params = parameters(rng)
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    part = cls(groups, lr=0.1, **own)
    give(params, gradients(rng))
    part.step()
    known, calls = part.param_groups[1], []
    for option, value in BAD_NUMBERS:
        if known.get(option) is None:
            continue
        before = part.state_dict()
        state = copy.deepcopy(before)
        state["param_groups"][1][option] = value
        part.load_state_dict(state)
        kept = everything(part, params)
        for optimizer in (part, T.CompositeOptimizer(part)):
            with pytest.raises((TypeError, ValueError), match=f"group 1: .*{option}"):
                optimizer.step(lambda: calls.append(1))
            assert_same(everything(part, params), kept)
        part.load_state_dict(before)
    assert not calls
    part.step()


@pytest.mark.parametrize(("option", "value"), [("lr", float("nan")), ("weight_decay", 1e400)])
def test_rates_of_the_other_parts_of_a_composite_are_checked(option, value, rng):
    params = parameters(rng)
    adamw = torch.optim.AdamW(params[2:])
    optimizer = T.CompositeOptimizer(T.Muon(params[:2]), adamw)
    give(params, gradients(rng))
    adamw.param_groups[0][option] = value
    kept = everything(optimizer, params)
    with pytest.raises(ValueError, match=f"AdamW: {option} is .*; it must be finite"):
        optimizer.step()
    assert_same(everything(optimizer, params), kept)


@pytest.mark.parametrize("as_tensor", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize(
    ("options", "dtype", "message"),
    [
        ({"lr": 1e38, "weight_decay": 1e5}, torch.float32, "lr . weight_decay is 1e.43"),
        ({"lr": 1e3, "weight_decay": 1e3}, torch.float16, "lr . weight_decay is 1e.06"),
        ({"lr": 1e5}, torch.float16, "lr . shape_scaling is 1e.05, which overflows"),
        ({"lr": 1e30, "shape_scaling": lambda m, n: 1e30}, torch.float32, "shape_scaling is 1e.60"),
        ({"shape_scaling": lambda m, n: float("nan")}, torch.float32, "shape_scaling is nan"),
    ],
)
@pytest.mark.parametrize("name", ["Fanion", "Muon-exact", "NorMuon", "Dion", "SCALE"])
def test_steps_whose_factors_overflow_are_refused(name, options, dtype, message, as_tensor, rng):
    cls, own = CLASSES[name]
    p = torch.nn.Parameter(torch.tensor(rng.standard_normal((8, 8)), dtype=dtype))
    options = {"lr": 0.1, "weight_decay": 0.0, "shape_scaling": "none", **options}
    if as_tensor:
        options["lr"] = torch.tensor(options["lr"], dtype=torch.float64)
    optimizer = cls([p], **own, **options)
    p.grad = torch.ones_like(p)
    kept = everything(optimizer, [p])
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    assert_same(everything(optimizer, [p]), kept)
