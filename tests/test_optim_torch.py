"""PyTorch optimizers: the same steps as the rules, and what torch expects of an optimizer."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest

import trsvd
from trsvd import optim

torch = pytest.importorskip("torch")

from trsvd.optim._torch_state import decoded, encoded, packed  # noqa: E402
from trsvd.optim.torch import (  # noqa: E402
    NSGD,
    SCALE,
    BallOptimizer,
    CompositeOptimizer,
    Dion,
    Fanion,
    FFanion,
    FMuon,
    FNeon,
    FStarNeon,
    Muon,
    Neon,
    NorMuon,
    NuclearNeon,
    SFanion,
    SignSGD,
    SMuon,
    SNeon,
    split_parameters,
)

SHAPES = [(14, 10), (10, 14), (14, 10), (6, 2, 3, 2), (3, 12, 9)]
NS = trsvd.NewtonSchulz(steps=5)

# Each class with its options, and the rule that it is.
CLASSES = {
    "Fanion": (Fanion, {"k": 3}, lambda lr, **o: optim.fanion(lr, 3, **o)),
    "NuMuon": (
        Fanion,
        {"k": optim.Cosine(6.0, 2.0, 4)},
        lambda lr, **o: optim.fanion(lr, optim.Cosine(6.0, 2.0, 4), **o),
    ),
    "FFanion": (
        FFanion,
        {"k": 3, "alpha": 0.3},
        lambda lr, **o: optim.f_fanion(lr, 3, alpha=0.3, **o),
    ),
    "SFanion": (
        SFanion,
        {"k": 3, "alpha": 0.3, "eta": 0.02},
        lambda lr, **o: optim.s_fanion(lr, 3, alpha=0.3, eta=0.02, **o),
    ),
    "Neon": (Neon, {}, optim.neon),
    "FNeon": (FNeon, {}, optim.f_neon),
    "SNeon": (SNeon, {}, optim.s_neon),
    "Muon": (Muon, {}, optim.muon),
    "Muon-NS": (Muon, {"method": NS}, lambda lr, **o: optim.muon(lr, method=NS, **o)),
    "FMuon": (FMuon, {"alpha": 0.3}, lambda lr, **o: optim.f_muon(lr, alpha=0.3, **o)),
    "SMuon-NS": (SMuon, {"method": NS}, lambda lr, **o: optim.s_muon(lr, method=NS, **o)),
    "NSGD": (NSGD, {}, optim.nsgd),
    "SignSGD": (SignSGD, {}, optim.sign_sgd),
    "NuclearNeon": (
        NuclearNeon,
        {"lam": 3.0},
        lambda lr, **o: optim.nuclear_neon(lr, lam=3.0, **o),
    ),
    "FStarNeon": (FStarNeon, {"lam": 3.0}, lambda lr, **o: optim.f_star_neon(lr, lam=3.0, **o)),
    "NorMuon": (NorMuon, {"beta2": 0.9}, lambda lr, **o: optim.normuon(lr, beta2=0.9, **o)),
    "Dion": (Dion, {"k": 3}, lambda lr, **o: optim.dion(lr, 3, **o)),
    "Dion-orthonormal": (
        Dion,
        {"k": 3, "orthonormal": True},
        lambda lr, **o: optim.dion(lr, 3, orthonormal=True, **o),
    ),
    "SCALE": (SCALE, {}, optim.scale),
    "RowBall": (
        BallOptimizer,
        {"ball": trsvd.RowBall()},
        lambda lr, **o: optim.from_ball(trsvd.RowBall(), lr, **o),
    ),
}
on_classes = pytest.mark.parametrize("name", CLASSES)


def parameters(rng, dtype=torch.float64, shapes=SHAPES):
    return [torch.nn.Parameter(torch.tensor(rng.standard_normal(s)).to(dtype)) for s in shapes]


def gradients(rng, steps, shapes=SHAPES):
    """Gradients with a part that stays."""
    still = [rng.standard_normal(s) for s in shapes]
    for _ in range(steps):
        yield [torch.tensor(G + 0.3 * rng.standard_normal(G.shape)) for G in still]


def step(optimizer, params, grads):
    for p, G in zip(params, grads, strict=True):
        p.grad = G.to(p.dtype)
    optimizer.step()


def values(params):
    return [p.detach().clone() for p in params]


@on_classes
def test_a_class_is_its_rule(name, rng):
    cls, own, make = CLASSES[name]
    common = {"momentum": 0.8, "weight_decay": 0.1}
    params = parameters(rng)
    optimizer = cls(params, lr=0.1, **own, **common)
    rule = make(0.1, **common)
    there = values(params)
    state = rule.init(there)
    for grads in gradients(rng, 5):
        step(optimizer, params, grads)
        updates, state = rule.update(grads, state, there)
        there = optim.apply_updates(there, updates)
        for p, W in zip(params, there, strict=True):
            torch.testing.assert_close(p.detach(), W, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "options",
    [
        {"ema": True},
        {"nesterov": False},
        {"ema": True, "nesterov": False, "momentum": 0.5},
        {"momentum": 0.0},
        {"shape_scaling": "adamw"},
        {"shape_scaling": "muon", "layout": "flatten"},
        {"normalize_weights": True, "weight_decay": 0.2},
        {"layout": "stack"},
        {"seed": 5},
    ],
)
def test_options_are_those_of_the_rules(options, rng):
    params = parameters(rng)
    # Its length tells conventions of momentum apart.
    optimizer = NuclearNeon(params, lr=0.1, **options)
    rule = optim.nuclear_neon(0.1, **options)
    there = values(params)
    state = rule.init(there)
    for grads in gradients(rng, 3):
        step(optimizer, params, grads)
        updates, state = rule.update(grads, state, there)
        there = optim.apply_updates(there, updates)
    for p, W in zip(params, there, strict=True):
        torch.testing.assert_close(p.detach(), W, rtol=1e-11, atol=1e-11)


# ---- the state ----------


@on_classes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resuming_goes_on_bit_for_bit(name, dtype, rng):
    cls, own, _ = CLASSES[name]
    options = {**own, "momentum_dtype": torch.float32, "shape_scaling": "rms"}
    params = parameters(rng, dtype)
    optimizer = cls(params, lr=0.05, **options)
    grads = list(gradients(rng, 6))
    for some in grads[:3]:
        step(optimizer, params, some)
    file = io.BytesIO()
    torch.save([values(params), optimizer.state_dict()], file)
    file.seek(0)
    saved, state = torch.load(file, weights_only=True)  # tensors and plain data only
    others = [torch.nn.Parameter(W) for W in saved]
    resumed = cls(others, lr=1.0, **own)
    resumed.load_state_dict(state)
    for some in grads[3:]:
        step(optimizer, params, some)
        step(resumed, others, some)
        for p, q in zip(params, others, strict=True):
            assert torch.equal(p, q)
    assert len(optimizer.state) == len(params)


@pytest.mark.parametrize("cls", [Fanion, FFanion, Dion])
def test_resuming_larger_matrices(cls, rng):
    """Those that Krylov spaces are for: one by itself, and two in a batch."""
    shapes = [(200, 150), (90, 120), (90, 120)]
    params = parameters(rng, torch.float32, shapes)
    optimizer = cls(params, lr=0.05, k=3)
    grads = list(gradients(rng, 6, shapes))
    for some in grads[:3]:
        step(optimizer, params, some)
    file = io.BytesIO()
    torch.save([values(params), optimizer.state_dict()], file)
    file.seek(0)
    saved, state = torch.load(file, weights_only=True)
    others = [torch.nn.Parameter(W) for W in saved]
    resumed = cls(others, k=3)
    resumed.load_state_dict(state)
    for some in grads[3:]:
        step(optimizer, params, some)
        step(resumed, others, some)
        assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


@on_classes
def test_gradients_of_zero_move_nothing(name, rng):
    cls, own, _ = CLASSES[name]
    params = parameters(rng)
    before = values(params)
    optimizer = cls(params, lr=0.1, **own)
    for _ in range(2):
        step(optimizer, params, [torch.zeros_like(p) for p in params])
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    # And they are no obstacle to what follows.
    step(optimizer, params, next(gradients(rng, 1)))
    assert not any(torch.equal(p, q) for p, q in zip(params, before, strict=True))


def test_what_the_state_has(rng):
    params = parameters(rng, torch.bfloat16)
    grads = next(gradients(rng, 1))
    fanion = Fanion(params, k=3, momentum_dtype=torch.float32)
    step(fanion, params, grads)
    state = fanion.state[params[-1]]
    assert state["momentum_buffer"].dtype == torch.float32
    assert state["ranks"] == [3, 3, 3]  # a stack of three matrices
    assert state["subspaces"][0]["U"].shape[0] == 12
    star = FStarNeon(params)
    step(star, params, grads)
    G = grads[0].to(torch.bfloat16).double().numpy()
    S = np.linalg.svd(G, compute_uv=False) * 1.95
    tau = star.state[params[0]]["tau"][0]
    # The direction is rounded to bfloat16, and moves singular values by no more than its norm.
    assert np.maximum(S - tau, 0).sum() == pytest.approx(tau, abs=2**-7 * np.linalg.norm(G) * 10)
    assert star.state[params[0]]["ranks"] == [np.sum(tau < S)]


def test_the_state_that_is_loaded_is_a_copy(rng):
    params = parameters(rng)
    first, second = Fanion(params, k=2), Fanion(params, k=2)
    step(first, params, next(gradients(rng, 1)))
    saved = first.state_dict()
    second.load_state_dict(saved)
    before = saved["state"][0]["momentum_buffer"].clone()
    step(second, params, next(gradients(rng, 1)))
    assert torch.equal(saved["state"][0]["momentum_buffer"], before)


def test_hooks_of_others_see_the_state_as_it_is(rng):
    params = parameters(rng, torch.bfloat16)
    optimizer = NSGD(params, momentum_dtype=torch.float32)
    step(optimizer, params, next(gradients(rng, 1)))
    state, seen = optimizer.state_dict(), []

    def double(_, given):
        given = copy.deepcopy(given)
        given["state"][0]["momentum_buffer"] *= 2
        return given

    def look(loaded):
        seen.append(loaded.state[params[0]]["momentum_buffer"])

    expected = 2 * state["state"][0]["momentum_buffer"]
    optimizer.register_load_state_dict_pre_hook(double)
    optimizer.register_load_state_dict_post_hook(look)
    optimizer.load_state_dict(state)
    assert seen[0].dtype == torch.float32
    assert torch.equal(seen[0], expected)


def test_functions_are_not_saved_and_kept(rng):
    params = parameters(rng)

    def scaling(m, n):
        return m / n

    optimizer = Fanion(params, k=lambda step: 2, shape_scaling=scaling)
    state = optimizer.state_dict()
    assert "k" not in state["param_groups"][0]
    other = Fanion(params, k=lambda step: 3, shape_scaling=scaling, lr=5.0)
    other.load_state_dict(state)
    assert other.param_groups[0]["k"](0) == 3
    assert other.param_groups[0]["shape_scaling"] is scaling
    assert other.param_groups[0]["lr"] == 1e-3


@on_classes
def test_copies_and_pickles(name, rng):
    cls, own, _ = CLASSES[name]
    params = parameters(rng)
    optimizer = cls(params, lr=0.1, **own)
    grads = list(gradients(rng, 3))
    step(optimizer, params, grads[0])
    twins = [copy.deepcopy([params, optimizer]), pickle.loads(pickle.dumps([params, optimizer]))]
    for some in grads[1:]:
        step(optimizer, params, some)
    for others, twin in twins:
        for some in grads[1:]:
            step(twin, others, some)
        for p, q in zip(params, others, strict=True):
            assert torch.equal(p, q)


# ---- what torch has around an optimizer ----------


@on_classes
def test_tensor_learning_rate_and_schedulers(name, rng):
    cls, own, _ = CLASSES[name]
    start, paths = parameters(rng), []
    grads = list(gradients(rng, 4))
    for lr in (
        0.1,
        torch.tensor(0.1, dtype=torch.float64),
        torch.tensor([0.1], dtype=torch.float64),
    ):
        params = [torch.nn.Parameter(p.detach().clone()) for p in start]
        optimizer = cls(params, lr=lr, **own)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        for some in grads:
            step(optimizer, params, some)
            scheduler.step()
        assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.1 / 16)
        paths.append(values(params))
    for path in paths[1:]:
        for p, q in zip(path, paths[0], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-13)


def test_a_scheduler_that_cycles_momentum(rng):
    params = parameters(rng)
    optimizer = Muon(params, lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=4)
    seen = []
    for some in gradients(rng, 3):
        step(optimizer, params, some)
        scheduler.step()
        seen.append(optimizer.param_groups[0]["momentum"])
    assert len(set(seen)) > 1


def test_grad_scaler_skips_steps_that_overflow(rng):
    params = parameters(rng, torch.float32)
    optimizer = CompositeOptimizer(Muon(params[:3]), Fanion(params[3:], k=2))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for bad in (False, True):
        before = values(params)
        optimizer.zero_grad()
        scaler.scale(sum(p.sum() for p in params)).backward()
        if bad:
            params[0].grad[0, 0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        same = [torch.equal(p, q) for p, q in zip(params, before, strict=True)]
        assert same == [bad] * len(params)
        assert bad or torch.equal(params[0].grad, torch.ones_like(params[0]))


def test_closure_and_maximize(rng):
    target = torch.tensor(rng.standard_normal((6, 5)))
    ends = []
    for maximize in (False, True):
        W = torch.nn.Parameter(torch.zeros(6, 5, dtype=torch.float64))
        optimizer = FMuon([W], lr=0.05, maximize=maximize, momentum=0.5)

        def closure(W=W, optimizer=optimizer, maximize=maximize):
            optimizer.zero_grad()
            loss = ((W - target) ** 2).sum() * (-1 if maximize else 1)
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(150)]
        assert abs(losses[-1]) < 0.1 * abs(losses[0])
        ends.append(W.detach().clone())
    assert torch.equal(*ends)


def test_parameters_without_gradients_are_left_alone(rng):
    params = parameters(rng)
    optimizer = Fanion(params, k=2)
    first = values(params)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, first, strict=True))
    assert not optimizer.state
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    # From here on the first is a step ahead of the others.
    step(optimizer, params, next(gradients(rng, 1)))
    assert [optimizer.state[p]["step"] for p in params] == [2, 1, 1, 1, 1]
    assert torch.equal(*[optimizer.state[p]["step"] * torch.ones(1) for p in params[1:3]])


def test_gradients_are_not_written_to(rng):
    for cls, own, _ in CLASSES.values():
        params = parameters(rng)
        optimizer = cls(params, maximize=True, **own)
        grads = next(gradients(rng, 1))
        for p, G in zip(params, grads, strict=True):
            p.grad = G.clone()
        optimizer.step()
        assert all(torch.equal(p.grad, G) for p, G in zip(params, grads, strict=True))


def test_empty_parameters_are_left_alone():
    W = torch.nn.Parameter(torch.zeros(0, 5))
    W.grad = torch.zeros(0, 5)
    Muon([W]).step()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_trains(backend, rng):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    matrices, others = split_parameters(model)
    optimizer = CompositeOptimizer(
        FFanion(matrices, lr=0.05, k=4), torch.optim.AdamW(others, lr=0.01)
    )
    compiled = torch.compile(model, backend=backend)
    X = torch.tensor(rng.standard_normal((64, 8)), dtype=torch.float32)
    y = X[:, :3].argmax(dim=1)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(compiled(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_inside_autocast_products_keep_their_precision(rng):
    params = parameters(rng, torch.float32)
    start, ends = values(params), []
    grads = next(gradients(rng, 1))
    for on in (False, True):
        for p, W in zip(params, start, strict=True):
            p.data.copy_(W)
        optimizer = Muon(params, lr=1.0, method=NS)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            step(optimizer, params, grads)
        ends.append(values(params))
    assert all(torch.equal(p, q) for p, q in zip(*ends, strict=True))


# ---- dtypes ----------


@on_classes
def test_bfloat16_parameters(name, rng):
    """A step of bfloat16 parameters is the one of float32, rounded."""
    cls, own, _ = CLASSES[name]
    low = parameters(rng, torch.bfloat16)
    high = [torch.nn.Parameter(p.detach().float()) for p in low]
    grads = [G.to(torch.bfloat16) for G in next(gradients(rng, 1))]
    for params, options in ((low, {"momentum_dtype": torch.float32}), (high, {})):
        step(cls(params, lr=0.25, **own, **options), params, grads)
    for p, q in zip(low, high, strict=True):
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, q.detach().to(torch.bfloat16))


def test_momentum_is_in_the_dtype_of_the_parameter_unless_asked(rng):
    for dtype, option, expected in (
        (torch.bfloat16, None, torch.bfloat16),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float32, None, torch.float32),
        (torch.float32, torch.bfloat16, torch.bfloat16),
    ):
        params = parameters(rng, dtype)
        optimizer = FMuon(params, momentum_dtype=option)
        step(optimizer, params, next(gradients(rng, 1)))
        assert {state["momentum_buffer"].dtype for state in optimizer.state.values()} == {expected}


def test_method_objects_as_in_a_group(rng):
    """Each group has its own way; what is batched comes out as it does alone."""
    params = parameters(rng)
    there = values(params)
    grads = next(gradients(rng, 1))
    optimizer = Muon(
        [{"params": params[:2], "method": NS}, {"params": params[2:], "lr": 0.5}], lr=0.1
    )
    step(optimizer, params, grads)
    for i, p in enumerate(params):
        W = torch.nn.Parameter(there[i])
        lr, method = (0.1, NS) if i < 2 else (0.5, "exact")
        alone = Muon([W], lr=lr, method=method)
        step(alone, [W], grads[i : i + 1])
        torch.testing.assert_close(p, W, rtol=1e-12, atol=1e-12)


# ---- what is refused ----------


@pytest.mark.parametrize("cls", [Muon, lambda p, **o: Fanion(p, k=2, **o), NSGD])
def test_errors(cls, rng):
    W = torch.nn.Parameter(torch.ones(4, 3))
    for options, error, message in (
        ({"lr": -1.0}, ValueError, "lr"),
        ({"lr": torch.ones(2)}, ValueError, "1-element"),
        ({"momentum": 1.0}, ValueError, "momentum"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
        ({"shape_scaling": "square"}, ValueError, "shape_scaling"),
        ({"layout": "rows"}, ValueError, "layout"),
        ({"momentun": 0.9}, TypeError, "momentun"),
        ({"momentum_dtype": "float32"}, TypeError, "momentum_dtype"),
        ({"momentum_dtype": torch.int32}, TypeError, "momentum_dtype"),
    ):
        with pytest.raises(error, match=message):
            cls([W], **options)
    with pytest.raises(ValueError, match=r"\(4,\) is no matrix.*AdamW"):
        cls([torch.nn.Parameter(torch.ones(4))])
    optimizer = cls([W])
    with pytest.raises(ValueError, match="no matrix"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(4))]})
    assert len(optimizer.param_groups) == 1
    W.grad = torch.ones(4, 3)
    W.grad[1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or inf"):
        optimizer.step()
    embedding = torch.nn.Embedding(4, 3, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        cls(embedding.parameters()).step()
    Z = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.complex64))
    Z.grad = torch.ones_like(Z)
    with pytest.raises(RuntimeError, match="complex"):
        cls([Z]).step()


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Fanion, {"k": 0}, "k=0"),
        (FFanion, {"k": 2, "alpha": 1.5}, "alpha"),
        (SFanion, {"k": 2, "eta": -1.0}, "scaled by"),
        (NuclearNeon, {"lam": 0.0}, "lam"),
        (FStarNeon, {"lam": -1.0}, "lam"),
        (NorMuon, {"beta2": 1.0}, "beta2"),
        (Dion, {"k": -1}, "k=-1"),
        (NorMuon, {"eps": -1.0}, "eps"),
        (Muon, {"method": "newton"}, "method='newton' is not known"),
        (Fanion, {"k": 2, "method": "exactly"}, "method='exactly' is not known"),
        (Fanion, {"k": 2, "gap": -1.0}, "gap=-1"),
        (Muon, {"seed": -1}, "seed"),
    ],
)
def test_errors_of_their_own(cls, options, message):
    with pytest.raises(ValueError, match=message):
        cls([torch.nn.Parameter(torch.ones(4, 3))], **options)


# ---- whole models ----------


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 8)
        self.conv = torch.nn.Conv1d(8, 6, 3)
        self.norm = torch.nn.LayerNorm(6)
        self.hidden = torch.nn.Linear(6, 8)
        self.experts = torch.nn.Parameter(torch.ones(2, 8, 8))
        self.frozen = torch.nn.Linear(8, 8).requires_grad_(False)
        self.head = torch.nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight  # tied

    def forward(self, tokens):
        X = self.conv(self.embedding(tokens).mT).mT
        X = self.hidden(self.norm(X)) @ self.experts.sum(dim=0)
        return self.head(self.frozen(X))


def names(groups):
    return [[name for name, _ in group["params"]] for group in groups]


def test_the_parameters_of_a_model():
    model = Model()
    matrices, others = split_parameters(model)
    assert names(matrices) == [["experts", "hidden.weight"], ["conv.weight"]]
    assert matrices[1]["layout"] == "flatten"
    assert names(others) == [
        ["embedding.weight", "conv.bias", "norm.weight", "norm.bias", "hidden.bias"]
    ]
    for head in (model.hidden, "hidden"):
        matrices, others = split_parameters(model, head=head)
        assert names(matrices) == [["experts"], ["conv.weight"]]
    plain = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False))
    assert names(split_parameters(plain).others) == [["0.weight"]]
    assert names(split_parameters(plain, head=None).matrices) == [["0.weight"]]
    with pytest.raises(ValueError, match="no module"):
        split_parameters(model, head="output")


def test_a_composite_optimizer_has_one_state(rng):
    torch.manual_seed(0)
    tokens = torch.tensor(rng.integers(0, 11, (4, 9)))
    runs = []

    def made(model):
        matrices, others = split_parameters(model)
        both = CompositeOptimizer(
            FFanion(matrices, lr=0.02, k=2), torch.optim.AdamW(others, lr=1e-2)
        )
        return both, torch.optim.lr_scheduler.ExponentialLR(both, 0.9)

    def train(model, optimizer, scheduler):
        def closure():
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(
                model(tokens).flatten(0, 1), tokens[:, 2:].flatten()
            )
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        scheduler.step()
        return loss.item()

    model = Model()
    optimizer, scheduler = made(model)
    first = [train(model, optimizer, scheduler) for _ in range(4)]
    assert first[-1] < first[0]
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = Model()
    other.frozen.load_state_dict(model.frozen.state_dict())
    twin, schedule = made(other)
    for each, state in zip((other, twin, schedule), saved, strict=True):
        each.load_state_dict(state)
    assert [group["lr"] for group in twin.param_groups] == [
        group["lr"] for group in optimizer.param_groups
    ]
    assert len(twin.state) == len(optimizer.state) == 8
    for each, makers in ((model, (optimizer, scheduler)), (other, (twin, schedule))):
        runs.append([train(each, *makers) for _ in range(4)])
    assert runs[0] == runs[1]
    copied_model, copied = copy.deepcopy([model, optimizer])
    assert copied.param_groups[0]["params"][0] is copied_model.experts


def test_what_a_composite_refuses(rng):
    params = parameters(rng)
    one = Muon(params)
    with pytest.raises(ValueError, match="share"):
        CompositeOptimizer(one, NSGD(params[:1]))
    with pytest.raises(TypeError, match=r"no torch.optim"):
        CompositeOptimizer(one, "AdamW")
    both = CompositeOptimizer(one)
    with pytest.raises(TypeError, match="optimizers"):
        both.add_param_group({"params": parameters(rng)})
    with pytest.raises(ValueError, match="state of 0"):
        both.load_state_dict({"optimizers": []})
    with pytest.raises(ValueError, match="not that of a Composite"):
        both.load_state_dict(one.state_dict())


def test_hooks_of_a_composite_see_its_state(rng):
    optimizer = CompositeOptimizer(Muon(parameters(rng)))
    seen = []
    optimizer.register_state_dict_pre_hook(lambda each: seen.append(("save", each is optimizer)))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "epoch": 3})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(state["epoch"]))
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == [("save", True), 3, "loaded"]


def test_scale_divides_the_group_of_the_last_layer(rng):
    params = parameters(rng)
    optimizer = SCALE(zip("abcde", params, strict=True), momentum=0.5)
    assert [group["param_names"] for group in optimizer.param_groups] == [list("abcd"), ["e"]]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.0, 0.5]
    step(optimizer, params, next(gradients(rng, 1)))
    assert ["momentum_buffer" in optimizer.state[p] for p in params] == [False] * 4 + [True]
    optimizer = SCALE(params, last_layer=params[1])
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, 1]
    with pytest.raises(ValueError, match="last_layer"):
        SCALE(params, last_layer=parameters(rng))
    optimizer.add_param_group({"params": parameters(rng)})
    assert [group["momentum"] for group in optimizer.param_groups] == [0.0, 0.9, 0.0]


# ---- diagnostics ----------


def test_diagnostics_of_named_parameters(tmp_path, rng):
    params = parameters(rng)
    names_ = ["a", "b", "c", "conv", "experts"]
    optimizer = Fanion(zip(names_, params, strict=True), k=2, momentum=0)
    records = []
    handle = optimizer.register_diagnostics_hook(records.append, every=2)
    grads = list(gradients(rng, 4))
    for some in grads[:3]:
        step(optimizer, params, some)
    handle.remove()
    step(optimizer, params, grads[3])
    labels = [(r.parameter, r.matrix) for r in records]
    once = [*((name, 0) for name in names_), ("experts", 1), ("experts", 2)]
    assert labels == once * 2
    assert [r.step for r in records] == [0] * 7 + [2] * 7
    S = np.linalg.svd(grads[2][4][1].numpy(), compute_uv=False)
    assert records[-2].support == pytest.approx(S[:2].sum())
    assert records[-2].stable_rank == pytest.approx(np.sum(S**2) / S[0] ** 2)
    assert all(r.gap <= 1e-2 for r in records)


def test_diagnostics_of_dion(rng):
    """Beside the oracle of the dual Ky Fan ball: B for a first step is the gradient."""
    params = parameters(rng)
    records = []
    optimizer = Dion(params, k=2, orthonormal=True)
    optimizer.register_diagnostics_hook(records.append)
    some = next(gradients(rng, 1))
    step(optimizer, params, some)
    assert [r.matrix for r in records] == [0] * 5 + [1, 2]
    S = np.linalg.svd(some[0].numpy(), compute_uv=False)
    assert records[0].support == pytest.approx(S[:2].sum())
    assert all(0 <= r.gap < 1 for r in records)
    with pytest.raises(ValueError, match="every=0"):
        optimizer.register_diagnostics_hook(records.append, every=0)


def test_without_a_hook_nothing_is_measured(rng, monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr("trsvd.optim._torch_base.measured", fail)
    params = parameters(rng)
    optimizer = FFanion(params, k=2)
    for some in gradients(rng, 2):
        step(optimizer, params, some)


def test_options_that_an_optimizer_refuses():
    param = torch.nn.Parameter(torch.ones(4, 3))
    with pytest.raises(ValueError, match="lam=0.0; the weight of the regularization must be"):
        NuclearNeon([param], lam=0)
    with pytest.raises(TypeError, match="pass a fixed rank"):
        Dion([param], k=optim.Cosine(6.0, 2.0, 4))


def test_a_state_of_a_later_version_is_refused():
    value = {"k": encoded({"k": optim.Cosine(6.0, 2.0, 4)})["k"]}
    assert decoded(value) == {"k": optim.Cosine(6.0, 2.0, 4)}
    (key,) = (key for key, name in value["k"].items() if name == "Cosine")
    value["k"][key] = "Spiral"
    with pytest.raises(ValueError, match="'Spiral', which this version does not know"):
        decoded(value)


def test_no_subspace_is_packed_as_nothing():
    assert packed(None) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_of_denormal_numbers_are_normalized(dtype):
    W = torch.zeros(4, 3, dtype=dtype)
    W[1, 2] = 5 * torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    p = torch.nn.Parameter(W)
    optimizer = NSGD([p], lr=0.1, normalize_weights=True, weight_decay=0.1, momentum=0.0)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert float(p.detach().double().norm()) == pytest.approx(2, rel=torch.finfo(dtype).eps)
