"""PyTorch optimizers: the same steps as the rules, and what torch expects of an optimizer."""

from __future__ import annotations

import copy
import inspect
import io
import pickle

import numpy as np
import pytest

import trsvd
from trsvd import optim

torch = pytest.importorskip("torch")

from refused_ranks import RANKS_REFUSED  # noqa: E402

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
from trsvd.optim.torch.base import decoded, encoded  # noqa: E402

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
    "Muon": (Muon, {"weight_decay": 0.0}, lambda lr, **o: optim.muon(lr, **o)),
    "Muon-exact": (
        Muon,
        {"method": "exact", "weight_decay": 0.0},
        lambda lr, **o: optim.muon(lr, method="exact", **o),
    ),
    "Muon-NS": (
        Muon,
        {"method": NS, "weight_decay": 0.0},
        lambda lr, **o: optim.muon(lr, method=NS, **o),
    ),
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
    "NorMuon-exact": (
        NorMuon,
        {"method": "exact"},
        lambda lr, **o: optim.normuon(lr, method="exact", **o),
    ),
    "Dion": (Dion, {"k": 3}, lambda lr, **o: optim.dion(lr, 3, **o)),
    "Dion-simple": (
        Dion,
        {"k": 3, "transpose": False},
        lambda lr, **o: optim.dion(lr, 3, transpose=False, **o),
    ),
    "Dion-orthonormal": (
        Dion,
        {"k": 3, "orthonormal": True},
        lambda lr, **o: optim.dion(lr, 3, orthonormal=True, **o),
    ),
    "SCALE": (SCALE, {}, optim.scale),
    "SCALE-l2": (
        SCALE,
        {"normalization": "l2", "layout": "in_out"},
        lambda lr, **o: optim.scale(lr, normalization="l2", layout="in_out", **o),
    ),
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
    optimizer = cls(params, lr=0.1, **{**own, **common})
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
        {"layout": "in_out", "shape_scaling": "rms"},
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
    assert state["ranks"].tolist() == [3, 3, 3]  # a stack of three matrices
    assert state["left_vectors"].shape == (3, 12, 5)
    assert state["right_vectors"].shape == (3, 5, 9)
    star = FStarNeon(params)
    step(star, params, grads)
    G = grads[0].to(torch.bfloat16).double().numpy()
    S = np.linalg.svd(G, compute_uv=False) * 1.95
    tau = star.state[params[0]]["tau"].item()
    # The direction is rounded to bfloat16, and moves singular values by no more than its norm.
    assert np.maximum(S - tau, 0).sum() == pytest.approx(tau, abs=2**-7 * np.linalg.norm(G) * 10)
    assert star.state[params[0]]["ranks"].tolist() == [np.sum(tau < S)]


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
    assert not callable(state["param_groups"][0]["k"])
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


def test_a_tensor_learning_rate_is_not_rounded_to_half_precision(rng):
    """1 - lr wd is near 1, which is where bfloat16 would round it to."""
    ends = []
    for lr in (0.01, torch.tensor(0.01)):
        W = torch.nn.Parameter(torch.full((4, 3), 1.0, dtype=torch.bfloat16))
        W.grad = torch.zeros_like(W)
        NSGD([W], lr=lr, weight_decay=0.5).step()
        ends.append(W.detach())
    assert torch.equal(*ends)
    assert torch.all(ends[0] < 1)


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


# torch 2.13 says on Python 3.13.0 that it is faster on later ones.
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")
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
        lr, method = (0.1, NS) if i < 2 else (0.5, "newton-schulz")
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
    with pytest.raises(ValueError, match=r"\(4,\) is not a matrix.*AdamW"):
        cls([torch.nn.Parameter(torch.ones(4))])
    optimizer = cls([W])
    with pytest.raises(ValueError, match="not a matrix"):
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


@pytest.mark.parametrize(("options", "error", "message"), RANKS_REFUSED)
@pytest.mark.parametrize("cls", [Fanion, FFanion, SFanion, Dion, BallOptimizer])
def test_ranks_that_are_refused(cls, options, error, message):
    own = {"ball": trsvd.KyFanDualBall} if cls is BallOptimizer else {}
    W = torch.nn.Parameter(torch.ones(4, 3))
    with pytest.raises(error, match=message):
        cls([W], **options, **own)
    for known in ({"k": 2}, {"k": np.int32(2)}, {"rank_fraction": 0.5}, {"rank_fraction": 1}):
        cls([W], **known, **own)


@pytest.mark.parametrize("value", ["x", "False", 1, 0.0, None, np.ones(2, bool)], ids=repr)
@on_classes
def test_flags_that_are_no_truth_values_are_refused(name, value):
    cls, own, _ = CLASSES[name]
    signature = inspect.signature(cls).parameters.values()
    flags = [each.name for each in signature if isinstance(each.default, bool)]
    assert {"normalize_weights", "maximize"} <= set(flags)
    W = torch.nn.Parameter(torch.ones(6, 3))
    for flag in flags:
        with pytest.raises(TypeError, match=f"{flag}=.* is not a truth value"):
            cls([W], **{**own, flag: value})
        with pytest.raises(TypeError, match=f"{flag}=.* is not a truth value"):
            cls([{"params": [W], flag: value}], **own)
        cls([W], **{**own, flag: np.True_})


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
    with pytest.raises(ValueError, match="not a module"):
        split_parameters(model, head="output")


@pytest.mark.parametrize(
    ("head", "error", "message"),
    [
        (
            lambda m: Model().head,
            ValueError,
            r"head=Linear\(.*\) is not a module of the model.*'conv'",
        ),
        (lambda m: copy.deepcopy(m.hidden), ValueError, "or of a copy"),
        (lambda m: torch.nn.Linear(8, 11), ValueError, "is not a module of the model"),
        (lambda m: m.norm, ValueError, "no parameter of two dimensions"),
        (lambda m: "norm", ValueError, "head='norm' has no parameter of two dimensions"),
        (lambda m: "output", ValueError, "head='output' is not a module of the model"),
        (lambda m: [m.head], TypeError, "head is a list; pass one module of the model, its name"),
        (lambda m: {m.head}, TypeError, "head is a set"),
        (lambda m: m.head.weight, TypeError, "head is a Parameter"),
        (lambda m: True, TypeError, "head is a bool"),
        (lambda m: torch.nn.Linear, TypeError, "head is a type"),
    ],
)
def test_heads_that_are_refused(head, error, message):
    model = Model()
    with pytest.raises(error, match=message):
        split_parameters(model, head=head(model))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((Model().parameters(),), TypeError), ((Model(),), ValueError)],
)
def test_arguments_of_a_split_that_are_refused(arguments, error):
    with pytest.raises(error, match=r"model is a|qkv=\['one'\]"):
        split_parameters(*arguments, qkv=["one"])


class Block(torch.nn.Module):
    """A block of a transformer, with layer scales and, where there are experts, a router."""

    def __init__(self, d, experts=0, packed=True):
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(d)
        self.attn = torch.nn.MultiheadAttention(d, 2, add_bias_kv=True) if packed else None
        if not packed:
            self.qkv = torch.nn.Linear(d, 3 * d)
            self.proj = torch.nn.Linear(d, d)
        self.ls1 = torch.nn.Parameter(torch.ones(1, d))
        self.norm2 = torch.nn.LayerNorm((d, d))
        if experts:
            self.gate = torch.nn.Linear(d, experts, bias=False)
            self.experts = torch.nn.ModuleList(torch.nn.Linear(d, 2 * d) for _ in range(experts))
            self.stacked_experts = torch.nn.Parameter(torch.ones(experts, d, 2 * d))
            self.experts_bias = torch.nn.Parameter(torch.ones(experts, 2 * d))
        else:
            self.gate_proj = torch.nn.Linear(d, 2 * d)
            self.fc2 = torch.nn.Linear(2 * d, d)


class ViT(torch.nn.Module):
    def __init__(self, d=8):
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, d))
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, 5, d))
        self.mask_tokens = torch.nn.Parameter(torch.zeros(3, d))
        self.patches = torch.nn.Conv2d(3, d, 2)
        self.blocks = torch.nn.ModuleList(Block(d) for _ in range(2))
        self.head = torch.nn.Linear(d, 4)


class GPT(torch.nn.Module):
    def __init__(self, d=8, head="lm_head", experts=0):
        super().__init__()
        self.wte = torch.nn.Embedding(20, d)
        self.wpe = torch.nn.Embedding(6, d)
        self.h = torch.nn.ModuleList(Block(d, experts, packed=False) for _ in range(2))
        if head:
            self.add_module(head, torch.nn.Linear(d, 20, bias=False))


class HeadFirst(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(8, 3)
        self.backbone = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Linear(8, 8))


class Conv(torch.nn.Module):
    def __init__(self):
        super().__init__()
        parametrized = torch.nn.utils.parametrizations.weight_norm
        self.stem = parametrized(torch.nn.Conv2d(3, 8, 3))
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 8, 1)
        )
        self.lin = parametrized(torch.nn.Linear(8, 8))
        self.classifier = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))


def hidden(split):
    return sorted(name for group in names(split.matrices) for name in group)


def test_a_vision_transformer():
    split = split_parameters(ViT())
    expected = ["patches.weight"]
    for i in range(2):
        block = [f"blocks.{i}.attn.{name}" for name in ("in_proj_weight", "out_proj.weight")]
        expected += [*block, *(f"blocks.{i}.{name}.weight" for name in ("gate_proj", "fc2"))]
    assert hidden(split) == sorted(expected)
    assert names(split.head) == [["head.weight"]]
    assert names(split.embeddings) == []
    guessed = {row.name for row in split.guesses}
    assert {"cls_token", "pos_embed", "mask_tokens", "head.weight"} <= guessed
    assert "patches.weight" not in guessed


@pytest.mark.parametrize("qkv", ["one", "three"])
def test_packed_projections(qkv, rng):
    """As three, each part has a polar factor of its own."""
    model = torch.nn.MultiheadAttention(8, 2)
    split = split_parameters(model, head=None, qkv=qkv)
    groups = {group.get("layout", "auto"): names([group])[0] for group in split.matrices}
    if qkv == "one":
        assert groups == {"auto": ["in_proj_weight", "out_proj.weight"]}
    else:
        assert groups == {"auto": ["out_proj.weight"], "thirds": ["in_proj_weight"]}
    W = model.in_proj_weight
    before, W.grad = W.detach().clone(), torch.tensor(rng.standard_normal((24, 8))).float()
    Muon(split.matrices, lr=1.0, method="exact", shape_scaling="none", weight_decay=0).step()
    D = (before - W.detach()).numpy()
    parts = [D] if qkv == "one" else np.split(D, 3)
    for part in parts:
        np.testing.assert_allclose(part.T @ part, np.eye(8), atol=1e-5)
    layouts = {group.get("layout", "auto") for group in split_parameters(GPT(), qkv=qkv).matrices}
    assert layouts == ({"auto"} if qkv == "one" else {"auto", "thirds"})


def test_a_language_model():
    blocks = [
        f"h.{i}.{name}.weight" for i in range(2) for name in ("qkv", "proj", "gate_proj", "fc2")
    ]
    split = split_parameters(GPT())
    assert hidden(split) == sorted(blocks)
    assert names(split.embeddings) == [["wte.weight", "wpe.weight"]]
    assert split.embeddings[0]["layout"] == "in_out"
    assert names(split.head) == [["lm_head.weight"]]
    # Its embedding serves as the head: no hidden layer does.
    split = split_parameters(GPT(head=None))
    assert hidden(split) == sorted(blocks)
    assert split.head == []
    # By tying, whatever it is called.
    model = GPT(head="last")
    model.last.weight = model.wte.weight
    split = split_parameters(model)
    assert names(split.head) == [["wte.weight"]]
    assert not [row for row in split.guesses if row.role == "head"]


def test_a_last_layer_as_wide_as_the_embedding_is_hidden():
    model = torch.nn.Sequential(torch.nn.Embedding(20, 8), torch.nn.Linear(8, 8))
    split = split_parameters(model)
    assert hidden(split) == ["1.weight"]
    assert split.head == []
    assert repr(split).splitlines()[-1].startswith("no head")


def test_a_mixture_of_experts():
    split = split_parameters(GPT(experts=3))
    expected = []
    for i in range(2):
        expected += [f"h.{i}.{name}" for name in ("qkv.weight", "proj.weight", "stacked_experts")]
        expected += [f"h.{i}.experts.{j}.weight" for j in range(3)]
    assert hidden(split) == sorted(expected)
    why = {row.name: row for row in split.assignments}
    assert why["h.0.gate.weight"].why == "gate of experts"
    assert not why["h.0.gate.weight"].guess
    assert why["h.0.experts_bias"].role == "other"


class Bare(torch.nn.Module):
    """A module of a class whose name says nothing."""

    def __init__(self, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, torch.nn.Parameter(torch.ones(shape)))


@pytest.mark.parametrize(
    "path",
    [
        *("norm", "norm1", "ln_f", "ln1", "layernorm", "layer_norm", "input_layernorm", "norm_out"),
        *("final_norm", "rmsnorm", "q_norm", "bn2", "norms.0", "blocks.0.ln_2", "group_norm.3"),
        *("wte", "embed_tokens", "router"),
    ],
)
def test_modules_of_neutral_classes_are_judged_by_their_names(path):
    model = torch.nn.Module()
    *parents, last = path.split(".")
    inside = model
    for part in parents:
        inside.add_module(part, torch.nn.Module())
        inside = inside.get_submodule(part)
    inside.add_module(last, Bare(weight=(4, 8)))
    model.add_module("hidden", Bare(weight=(4, 8)))
    rows = {row.name: row for row in split_parameters(model).assignments}
    assert rows["hidden.weight"].role == "hidden"
    row = rows[f"{path}.weight"]
    assert row.role == "other"
    assert row.guess
    assert "by the name of its module" in row.why


@pytest.mark.parametrize("path", ["fc1", "query", "denormalize", "lnear", "patch_embed_proj", "w1"])
def test_modules_of_neutral_classes_are_matrices_otherwise(path):
    model = torch.nn.Module()
    model.add_module(path, Bare(weight=(4, 8), lora_b=(8, 2), B=(8, 8)))
    assert hidden(split_parameters(model)) == [
        f"{path}.{each}" for each in ("B", "lora_b", "weight")
    ]


@pytest.mark.parametrize("name", ["b1", "b", "b2", "b_in", "b1_up", "shift", "fc1_offset"])
def test_biases_of_experts_are_no_matrices(name):
    experts = Bare(w1=(4, 16, 32), w2=(4, 32, 16), **{name: (4, 32)}, other=(6, 32))
    split = split_parameters(torch.nn.ModuleDict({"mlp": experts}))
    assert hidden(split) == ["mlp.other", "mlp.w1", "mlp.w2"]
    (row,) = (row for row in split.assignments if row.name == f"mlp.{name}")
    assert row.guess
    assert "bias" in row.why


def test_a_convolutional_model():
    split = split_parameters(Conv())
    flat = {group.get("layout", "auto"): names([group])[0] for group in split.matrices}
    assert flat == {
        "auto": ["lin.parametrizations.weight.original1", "classifier.0.weight"],
        "flatten": ["stem.parametrizations.weight.original1", "body.0.weight", "body.2.weight"],
    }
    assert names(split.head) == [["classifier.1.weight"]]


def test_a_head_that_comes_first():
    split = split_parameters(HeadFirst())
    assert hidden(split) == ["backbone.0.weight", "backbone.1.weight"]
    assert names(split.head) == [["head.weight"]]


def test_the_table_of_a_split():
    text = repr(split_parameters(ViT()))
    lines = text.splitlines()
    assert lines[0].split() == ["name", "shape", "goes", "to", "why"]
    assert any("blocks.*.fc2.weight  (2)" in line and "matrices" in line for line in lines)
    assert any(line.startswith("pos_embed") and "(guess)" in line for line in lines)
    assert "guesses from names" in lines[-1]
    assert len(lines) < 30
    with pytest.raises(ValueError, match="qkv='two'"):
        split_parameters(ViT(), qkv="two")


def test_parametrized_layers_have_their_names_in_the_table():
    normed, spectral = (
        torch.nn.utils.parametrizations.weight_norm,
        torch.nn.utils.parametrizations.spectral_norm,
    )
    blocks = torch.nn.ModuleList(torch.nn.Sequential(normed(torch.nn.Linear(8, 8))) for _ in "ab")
    model = torch.nn.Sequential(normed(torch.nn.Linear(5, 8)), spectral(torch.nn.Linear(8, 7)))
    model.add_module("blocks", blocks)
    model.add_module("attn", spectral(torch.nn.MultiheadAttention(8, 2), "in_proj_weight"))
    split = split_parameters(model, head=None)
    table = [line.split("  ")[0] for line in repr(split).splitlines()]
    assert {
        "0.weight (original0)",
        "0.weight (original1)",
        "1.weight",
        "blocks.*.*.weight (original0)",
        "attn.in_proj_weight",
    } <= set(table)
    assert "parametrizations" not in repr(split)
    # Groups and rows have the names of the model.
    known = {name for name, _ in model.named_parameters()}
    assert {row.name for row in split.assignments} == known
    layer = spectral(torch.nn.Linear(5, 8))
    assert repr(split_parameters(layer, head=None)).splitlines()[-2].startswith("weight  ")


def test_numbers_are_left_out_of_the_table_only_where_rows_are_merged():
    inner = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
    split = split_parameters(torch.nn.Sequential(inner), head=None)
    assert [line.split("  ")[0] for line in repr(split).splitlines()[1:4]] == [
        "0.0.weight",
        "*.*.bias",
        "0.2.weight",
    ]


@on_classes
def test_an_empty_part_of_a_split_is_named(name):
    cls, own, _ = CLASSES[name]
    split = split_parameters(torch.nn.LayerNorm(3), head=None)
    assert "no matrices: leave their optimizer out" in repr(split)
    for part in ("matrices", "embeddings", "head"):
        with pytest.raises(
            ValueError, match=f"'{part}' of the split is empty.* {cls.__name__} out"
        ):
            cls(getattr(split, part), **own)
    split = pickle.loads(
        pickle.dumps(split_parameters(torch.nn.Linear(3, 2, bias=False), head=None))
    )
    with pytest.raises(ValueError, match="'others' of the split is empty"):
        cls(split.others, **own)
    assert "no others: leave their optimizer out" in repr(split)


def test_groups_that_are_added_to_those_of_a_split_are_named():
    optimizer = Muon(split_parameters(Model()).matrices)
    W = torch.nn.Parameter(torch.ones(3, 2))
    with pytest.raises(ValueError, match="named|names"):
        optimizer.add_param_group({"params": [W]})
    optimizer.add_param_group({"params": [("W", W)]})
    assert optimizer.param_groups[-1]["param_names"] == ["W"]


def test_groups_of_a_split_can_be_used_twice():
    matrices, others = split_parameters(ViT())
    Fanion(matrices, lr=0.5, k=4, weight_decay=0.3)
    optimizer = Muon(matrices, lr=0.02)
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}
    for lr in (0.1, 0.2):
        adamw = torch.optim.AdamW(others, lr=lr)
        assert adamw.param_groups[0]["lr"] == lr


def test_scale_of_a_whole_model():
    model = GPT()
    split = split_parameters(model)
    optimizer = SCALE([*split.matrices, *split.embeddings, *split.head], lr=0.1)
    with_momentum = [group["role"] for group in optimizer.param_groups if group["momentum"]]
    assert with_momentum == ["head"]
    for param in model.parameters():
        param.grad = torch.randn_like(param)
    before = model.wte.weight.detach().clone()
    optimizer.step()
    moved = (model.wte.weight.detach() - before) / 0.1
    # Each of its columns has a root mean square of 1.
    torch.testing.assert_close(moved.square().mean(dim=0), torch.ones(8), rtol=1e-4, atol=0)


@pytest.mark.parametrize("part", ["matrices", "embeddings"])
def test_scale_without_a_head_says_so(part):
    split = split_parameters(GPT())
    groups = getattr(split, part)
    with pytest.warns(UserWarning, match="no parameter has momentum.*last_layer=") as seen:
        optimizer = SCALE(groups)
    assert [each.filename for each in seen] == [__file__]
    assert not any(group["momentum"] for group in optimizer.param_groups)
    # That is meant; or there is a head.
    SCALE(groups, last_layer=())
    SCALE([*groups, *split.head])
    assert SCALE(groups, last_layer=groups[0]["params"][0][1]).param_groups[-1]["momentum"]


# ---- names of parameters ----------

ALL = {cls: own for cls, own, _ in CLASSES.values()}


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_an_unknown_name_is_an_error_about_the_class(cls):
    W = torch.nn.Parameter(torch.ones(4, 3))
    own = {"k": 2} if "k" in ALL[cls] else {}
    own |= {"ball": trsvd.RowBall()} if cls is BallOptimizer else {}
    name = cls.__name__
    for wrong, message in (
        ("foreach", "leave it out"),
        ("momentun", "did you mean 'momentum'"),
        ("wd", "pass weight_decay="),
        ("zzz", "its parameters are params, lr"),
    ):
        with pytest.raises(TypeError, match=rf"^{name}\(\) has no parameter '{wrong}'.*{message}"):
            cls([W], **own, **{wrong: 1.0})
    # Every parameter is in the signature: there is nothing that takes any name.
    kinds = {each.kind for each in inspect.signature(cls).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert {"lr", "momentum", "weight_decay", "layout"} <= set(inspect.signature(cls).parameters)


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (Dion, "rank", "pass k=, an integer"),
        (FMuon, "ns_steps", "trsvd.NewtonSchulz"),
        (Neon, "adjust_lr_fn", "shape_scaling='muon'"),
        (Neon, "dampening", "ema=True"),
        (Neon, "betas", "pass momentum="),
    ],
)
def test_a_spelling_of_others_says_what_to_pass(cls, wrong, message):
    with pytest.raises(TypeError, match=message):
        cls([torch.nn.Parameter(torch.ones(4, 3))], **{wrong: 1})


@pytest.mark.parametrize("method", ["exact", "gram", "newton-schulz", NS])
@pytest.mark.parametrize("cls", [Muon, FMuon, SMuon, NorMuon])
def test_vectors_that_nothing_reads_are_not_kept(cls, method, rng):
    W = torch.nn.Parameter(torch.ones(12, 8))
    optimizer = cls([W], method=method if cls is not FMuon or method != "gram" else "exact")
    W.grad = torch.tensor(rng.standard_normal((12, 8))).float()
    optimizer.step()
    kept = sum(X.numel() for X in optimizer.state[W].values() if isinstance(X, torch.Tensor))
    assert "subspaces" not in optimizer.state[W]
    assert kept <= 12 * 8 + 12  # the momentum, and NorMuon's rows


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
    with pytest.raises(TypeError, match=r"not a torch.optim"):
        CompositeOptimizer(one, "AdamW")
    both = CompositeOptimizer(one)
    with pytest.raises(ValueError, match="another group already"):
        both.add_param_group({"params": params[1]})
    with pytest.raises(ValueError, match=r"Muon: no option betas"):
        both.add_param_group({"params": parameters(rng), "betas": (0.9, 0.95)})
    with pytest.raises(ValueError, match=r"Muon: a parameter of shape \(3,\) is not a matrix"):
        both.add_param_group({"params": torch.nn.Parameter(torch.ones(3))})
    assert len(both.param_groups) == 1
    with pytest.raises(ValueError, match=r"groups of \[1\] parameters, but this"):
        both.load_state_dict(Muon(params[:1]).state_dict())
    with pytest.raises(ValueError, match="not that of an optimizer"):
        both.load_state_dict({"model": {}})


def composite(rng, lr=0.1):
    """Momentum in the first two parts, betas in the third; with what is left for new groups."""
    params = parameters(rng)
    vectors = [torch.nn.Parameter(torch.ones(n)) for n in (3, 4, 5)]
    both = CompositeOptimizer(
        Muon(params[:2], lr=lr, momentum=0.8),
        torch.optim.SGD(vectors[:1], lr=lr, momentum=0.7),
        torch.optim.AdamW(vectors[1:2], lr=lr, betas=(0.85, 0.99)),
    )
    return both, params, vectors


def backward(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=8),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.2, step_size_up=2),
    ],
    ids=["one cycle", "cyclic"],
)
def test_momentum_of_a_composite_is_cycled_where_there_is_one(make, rng):
    both, *_ = composite(rng)
    alone = Muon(parameters(rng), lr=0.1, momentum=0.8)
    schedulers = [make(both), make(alone)]
    seen = []
    for _ in range(6):
        for optimizer, scheduler in zip((both, alone), schedulers, strict=True):
            backward(optimizer)
            optimizer.step()
            scheduler.step()
        first, second, third = both.param_groups
        assert first["momentum"] == second["momentum"] == alone.param_groups[0]["momentum"]
        assert first["lr"] == second["lr"] == third["lr"] == alone.param_groups[0]["lr"]
        assert third["betas"] == (0.85, 0.99)
        seen.append(first["momentum"])
    assert len(set(seen)) > 2


def test_betas_are_cycled_where_no_part_has_momentum(rng):
    _, _, vectors = composite(rng)
    both = CompositeOptimizer(torch.optim.AdamW(vectors[:1]), torch.optim.Adam(vectors[1:]))
    torch.optim.lr_scheduler.OneCycleLR(both, max_lr=0.2, total_steps=8)
    assert [group["betas"][0] for group in both.param_groups] == [0.95, 0.95]


def test_a_composite_has_the_defaults_of_its_parts(rng):
    both, *_ = composite(rng)
    assert both.defaults["momentum"] == 0.8
    assert both.defaults["amsgrad"] is False
    assert "betas" not in both.defaults
    assert "Muon" not in repr(both)
    assert repr(both).count("Parameter Group") == 3


def test_the_state_of_a_composite_is_that_of_its_parts(rng):
    both, params, vectors = composite(rng)
    assert not both.state
    both.state[params[0]]["mark"] = 1
    assert both.optimizers[0].state[params[0]] == {"mark": 1}
    with pytest.raises(KeyError):
        both.state[params[4]]
    both.state = {vectors[0]: {"mark": 2}}
    assert [dict(each.state) for each in both.optimizers] == [{}, {vectors[0]: {"mark": 2}}, {}]
    both.state[vectors[0]].clear()
    backward(both)
    both.step()
    assert set(both.state) == {*params[:2], *vectors[:2]}
    assert both.state[params[0]] is both.optimizers[0].state[params[0]]


def test_groups_that_are_added_to_a_composite(rng):
    """They come last, for schedulers; each goes to the first part that takes it, and is saved."""
    runs = []
    for resumed in (False, True):
        both, params, vectors = composite(np.random.default_rng(5))
        scheduler = torch.optim.lr_scheduler.StepLR(both, 1, 0.5)
        for added, options in (
            (params[2:3], {"nesterov": False}),
            (vectors[2], {"betas": (0.5, 0.6), "lr": 0.3}),
            ([("four", params[3])], {"layout": "flatten"}),
        ):
            if "layout" in options:
                with pytest.raises(ValueError, match="no optimizer accepts the new group"):
                    both.add_param_group({"params": added, **options})
                added = params[3]
            both.add_param_group({"params": added, **options})
            scheduler.base_lrs.append(both.param_groups[-1]["lr"])
        groups = [[0, 1], [], [], [2], [], [3]]
        places = {id(p): i for i, p in enumerate(params)}
        assert [
            [places[id(p)] for p in group["params"] if id(p) in places]
            for group in both.param_groups
        ] == groups
        assert [len(each.param_groups) for each in both.optimizers] == [3, 1, 2]
        for number in range(4):
            if resumed and number == 2:
                state = copy.deepcopy(both.state_dict())
                ids = [key for group in state["param_groups"] for key in group["params"]]
                assert ids == list(range(7))
                for each in both.optimizers:
                    each.state.clear()
                for group in both.param_groups:
                    group["lr"] = 77.0
                both.load_state_dict(state)
            backward(both)
            both.step()
            scheduler.step()
        runs.append(values([*params, *vectors]))
        assert both.param_groups[4]["lr"] == pytest.approx(0.3 / 16)
    assert all(torch.equal(p, q) for p, q in zip(*runs, strict=True))


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)], ids=["number", "tensor"])
def test_tensor_learning_rates_and_closures_of_a_composite(lr, rng):
    both, params, vectors = composite(rng, lr=lr)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(both, 0.9)
    calls = []

    def closure():
        calls.append(torch.is_grad_enabled())
        both.zero_grad()
        used = [*params[:2], *vectors[:2]]
        loss = sum((p**2).sum() for p in used)
        loss.backward()
        return loss

    losses = []
    for _ in range(5):
        losses.append(both.step(closure).item())
        scheduler.step()
    assert calls == [True] * 5
    assert losses[-1] < losses[0]
    assert [float(g["lr"]) for g in both.param_groups] == pytest.approx([0.1 * 0.9**5] * 3)


class Counting(torch.optim.SGD):
    """An optimizer with more in its state_dict."""

    count = 0

    def state_dict(self):
        return {**super().state_dict(), "count": self.count}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})


def test_what_a_part_has_besides_its_state_is_saved(rng):
    params = parameters(rng)
    both = CompositeOptimizer(Muon(params[:2]), Counting(params[2:]))
    both.optimizers[1].count = 5
    state = both.state_dict()
    both.optimizers[1].count = 0
    both.load_state_dict(state)
    assert both.optimizers[1].count == 5


@on_classes
def test_groups_of_a_model_can_be_used_twice(name):
    """An optimizer writes its defaults into its groups; PyTorch's own into the dicts given."""
    cls, own, _ = CLASSES[name]
    own = {**own, "last_layer": ()} if cls is SCALE else own
    split = split_parameters(Model())
    for groups in split:
        kept = [dict(group) for group in groups]
        if groups is split.matrices:
            cls(groups, **{**own, "lr": 0.5, "weight_decay": 0.3})
        torch.optim.SGD(groups, lr=0.7, momentum=0.2, weight_decay=0.1)
        assert [dict(group) for group in groups] == kept
    optimizer = cls(split.matrices, **{**own, "lr": 0.02})
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}
    decay = optimizer.defaults["weight_decay"]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {decay}
    optimizer = torch.optim.AdamW(split.others, lr=0.04)
    assert optimizer.param_groups[0]["lr"] == 0.04
    # Options that are set stay.
    split.matrices[0]["lr"] = 0.9
    optimizer = cls(split.matrices, lr=0.02, **own)
    assert optimizer.param_groups[0]["lr"] == 0.9


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

    monkeypatch.setattr("trsvd.optim.torch.base.measured", fail)
    params = parameters(rng)
    optimizer = FFanion(params, k=2)
    for some in gradients(rng, 2):
        step(optimizer, params, some)


def test_options_that_an_optimizer_refuses():
    param = torch.nn.Parameter(torch.ones(4, 3))
    with pytest.raises(ValueError, match="lam=0.0; the weight of the regularization must be"):
        NuclearNeon([param], lam=0)
    with pytest.raises(TypeError, match="k is a schedule"):
        Dion([param], k=optim.Cosine(6.0, 2.0, 4))


def test_a_state_of_a_later_version_is_refused():
    value = {"k": encoded({"k": optim.Cosine(6.0, 2.0, 4)})["k"]}
    assert decoded(value, {}) == {"k": optim.Cosine(6.0, 2.0, 4)}
    (key,) = (key for key, name in value["k"].items() if name == "Cosine")
    value["k"][key] = "Spiral"
    with pytest.raises(ValueError, match="'Spiral', which this version does not know"):
        decoded(value, {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_of_denormal_numbers_stay_finite(dtype):
    """A norm that nothing can be divided by counts as zero: the weights stay as they are."""
    W = torch.zeros(400, 3, dtype=dtype)
    W[1, 2] = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    p = torch.nn.Parameter(W.clone())
    optimizer = NSGD([p], lr=0.1, normalize_weights=True, momentum=0.0)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert torch.equal(p, W) or float(p.detach().double().norm()) == pytest.approx(20, rel=1e-2)
