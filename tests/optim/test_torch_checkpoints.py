"""Checkpoints of PyTorch optimizers by torch.distributed.checkpoint, in one process."""

from __future__ import annotations

import copy
import numbers

import pytest

torch = pytest.importorskip("torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")

from torch.distributed.checkpoint.state_dict import (  # noqa: E402
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch_optimizers import CLASSES, assert_same, everything, of_matrices  # noqa: E402

from trsvd.optim import torch as T  # noqa: E402

on_classes = pytest.mark.parametrize("name", CLASSES)
# PyTorch's own: it asks for a process group that is not there, and reads storages in an old way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = torch.nn.Linear(6, 9)
        self.experts = torch.nn.Parameter(torch.randn(2, 9, 8))
        self.head = torch.nn.Linear(8, 5)
        self.double()

    def forward(self, X):
        return self.head(torch.tanh(self.hidden(X)) @ self.experts.sum(dim=0))


def made(name, composite, lr=0.05):
    cls, own = CLASSES[name]
    model = Model()
    if not composite:
        for param in (model.hidden.bias, *model.head.parameters()):
            param.requires_grad_(False)
        return model, cls([model.hidden.weight, model.experts], lr=lr, **own)
    matrices, others = T.split_parameters(model, head="head")
    first = torch.optim.SGD([others[0]["params"].pop()], lr=lr, momentum=0.9)
    return model, T.CompositeOptimizer(
        first, cls(matrices, lr=lr, **of_matrices(name)), torch.optim.AdamW(others, lr=lr)
    )


def train(model, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        X = torch.randn(16, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X), torch.arange(16) % 5).backward()
        optimizer.step()
    return everything(optimizer, list(model.parameters()))


def options(flat):
    return StateDictOptions(flatten_optimizer_state_dict=flat)


@on_classes
def test_state_is_tensors_and_numbers(name):
    model, optimizer = made(name, composite=False)
    train(model, optimizer, 2)
    for saved in (optimizer.state, optimizer.state_dict()["state"]):
        assert len(saved) == 2
        for state in saved.values():
            for value in state.values():
                assert isinstance(value, (torch.Tensor, numbers.Real))


@on_classes
@pytest.mark.parametrize("composite", [False, True], ids=["alone", "composite"])
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
@pytest.mark.parametrize("before", [0, 3], ids="after{}".format)
def test_a_checkpoint_on_disk_goes_on_bit_for_bit(name, composite, flat, before, tmp_path):
    model, optimizer = made(name, composite)
    train(model, optimizer, before)
    weights, state = get_state_dict(model, optimizer, options=options(flat))
    dcp.save({"model": weights, "optim": state}, checkpoint_id=tmp_path)
    optimizer.zero_grad()
    other, resumed = made(name, composite, lr=0.05)
    weights, state = get_state_dict(other, resumed, options=options(flat))
    dcp.load({"model": weights, "optim": state}, checkpoint_id=tmp_path)
    set_state_dict(
        other,
        resumed,
        model_state_dict=weights,
        optim_state_dict=state,
        options=options(flat),
    )
    assert_same(train(other, resumed, 3, seed=1), train(model, optimizer, 3, seed=1))


@on_classes
@pytest.mark.parametrize("composite", [False, True], ids=["alone", "composite"])
@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_a_checkpoint_in_memory_goes_on_bit_for_bit(name, composite, flat):
    """Into an optimizer that has made steps of its own, with other options."""
    model, optimizer = made(name, composite)
    train(model, optimizer, 3)
    # PyTorch's own optimizers take the tensors of a state as they are.
    weights, state = copy.deepcopy(get_state_dict(model, optimizer, options=options(flat)))
    other, resumed = made(name, composite, lr=1.0)
    train(other, resumed, 2, seed=7)
    set_state_dict(
        other,
        resumed,
        model_state_dict=weights,
        optim_state_dict=state,
        options=options(flat),
    )
    assert {group["lr"] for group in resumed.param_groups} == {0.05}
    assert_same(train(other, resumed, 3, seed=1), train(model, optimizer, 3, seed=1))


@on_classes
def test_asking_for_the_state_changes_no_trajectory(name):
    """Before the first step the state is made; alone, as AdamW counts that step."""
    model, optimizer = made(name, composite=False)
    get_state_dict(model, optimizer)
    other, twin = made(name, composite=False)
    assert_same(train(model, optimizer, 3), train(other, twin, 3))


def test_functions_among_the_options_stay_with_the_optimizer():
    def scaling(m, n):
        return m / n

    runs = []
    for flat in (False, True):
        model = Model()
        optimizer = T.Fanion(
            [model.hidden.weight, model.experts], k=lambda step: 2, shape_scaling=scaling
        )
        for param in (model.hidden.bias, *model.head.parameters()):
            param.requires_grad_(False)
        weights, state = get_state_dict(model, optimizer, options=options(flat))
        set_state_dict(
            model,
            optimizer,
            model_state_dict=weights,
            optim_state_dict=state,
            options=options(flat),
        )
        assert optimizer.param_groups[0]["shape_scaling"] is scaling
        assert optimizer.param_groups[0]["k"](0) == 2
        runs.append(train(model, optimizer, 2))
    assert_same(*runs)
