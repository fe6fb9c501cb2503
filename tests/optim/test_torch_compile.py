"""torch.compile of training steps with PyTorch optimizers, and of their steps."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch")

from torch_optimizers import CLASSES, assert_same, of_matrices  # noqa: E402

from trsvd.optim import torch as T  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # on 3.13.0
on_classes = pytest.mark.parametrize("name", CLASSES)
# The optimizers run the same code; the gradients of a compiled model are rounded in another way,
# by some units of the last place in each of six steps.
CLOSE = 1e-10
STEPS = 6


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def trained(name, wrap_train=lambda f: f, wrap_step=lambda f: f, alone=False):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 9, bias=False),
        torch.nn.Tanh(),
        torch.nn.Linear(9, 6, bias=False),
        torch.nn.Linear(6, 5),
    ).double()
    cls, own = CLASSES[name][0], of_matrices(name)
    matrices, others = T.split_parameters(model)
    optimizer = cls(matrices, lr=0.05, **own)
    if not alone:
        optimizer = T.CompositeOptimizer(optimizer, torch.optim.AdamW(others, lr=0.05))
    X = torch.randn(16, 6, dtype=torch.float64)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    step = wrap_step(optimizer.step)

    def train():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X), torch.arange(16) % 5).backward()
        step()

    run = wrap_train(train)
    for _ in range(STEPS):
        run()
        scheduler.step()
    return [p.detach().clone() for p in model.parameters()]


@on_classes
def test_a_compiled_training_step(name):
    found = trained(name, wrap_train=lambda f: torch.compile(f, backend="eager"))
    torch.testing.assert_close(found, trained(name), rtol=0, atol=CLOSE)


@on_classes
def test_a_compiled_step(name):
    found = trained(name, wrap_step=lambda f: torch.compile(f, backend="eager"), alone=True)
    assert_same(found, trained(name, alone=True))


@pytest.mark.parametrize("name", ["Fanion", "Muon-NS", "NorMuon", "Dion"])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "composite"])
@pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")
# PyTorch's own, of its compiler.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_inductor(name, alone):
    found = trained(name, wrap_step=torch.compile, alone=alone)
    torch.testing.assert_close(found, trained(name, alone=alone), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "composite"])
@pytest.mark.parametrize("name", ["Muon-NS", "SMuon-NS"])
def test_the_products_of_newton_schulz_are_one_graph(name, alone):
    """Compiled once: fifteen products for the two matrices, of two shapes that are one."""
    graphs = []

    def counting(graph, inputs):
        del inputs
        named = [str(node.target) for node in graph.graph.nodes]
        graphs.append(sum("matmul" in name or "addmm" in name or "bmm" in name for name in named))
        return graph.forward

    found = trained(name, wrap_step=lambda f: torch.compile(f, backend=counting), alone=alone)
    # Five polynomials of three products each, of a (9, 6) and a (6, 9) matrix.
    assert [count for count in graphs if count] == [30]
    assert_same(found, trained(name, alone=alone))
