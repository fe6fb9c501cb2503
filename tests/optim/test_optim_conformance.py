"""Conformance: torch's own inputs and error inputs for optimizers, and peers that do the same.

`torch.testing._internal.common_optimizers` is in the wheel; the file that drives it (test_optim.py)
is not, so that its checks are driven from here.
"""

from __future__ import annotations

import copy
import inspect
import io
import warnings

import numpy as np
import pytest

import trsvd

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

from torch.testing._internal import common_optimizers as db  # noqa: E402

from trsvd.optim.schedules import Rank  # noqa: E402
from trsvd.optim.torch import SCALE, Dion, Fanion, FFanion, Muon, NorMuon, SFanion  # noqa: E402

DEVICE, DTYPE = "cpu", torch.float32

# What torch calls by another name.
_SCALINGS = {"original": "muon", "match_rms_adamw": "adamw"}


def translated(kwargs):
    """Keywords of torch.optim.Muon and SGD as those of the Fanion families."""
    kwargs = {key: value for key, value in kwargs.items() if not key.startswith("ns_")}
    if "adjust_lr_fn" in kwargs:
        name = kwargs.pop("adjust_lr_fn")
        kwargs["shape_scaling"] = _SCALINGS.get(name, name)
    return kwargs


def made(cls, params, **kwargs):
    kwargs = dict(kwargs)
    if kwargs.pop("dampening", None) is not None:
        kwargs["ema"] = True  # the only dampening that there is
    if cls is not Muon:
        kwargs = {"k": 2, **translated(kwargs)}
    return cls(params, **kwargs)


CLASSES = [Fanion, FFanion, SFanion, Muon]
INPUTS = [
    *db.optim_inputs_func_sgd(DEVICE, DTYPE),
    *db.optim_inputs_func_muon(DEVICE, DTYPE),
]
on_classes = pytest.mark.parametrize("cls", CLASSES)
on_inputs = pytest.mark.parametrize(
    "given", INPUTS, ids=[f"{i}-{each.desc}" for i, each in enumerate(INPUTS)]
)


def test_the_inputs_are_there():
    assert len(INPUTS) >= 14
    assert len(db.optim_error_inputs_func_muon(DEVICE, DTYPE)) >= 8


# ---- torch's error inputs ----------

# Ours takes stacks of matrices; what is not a matrix is refused in tests/optim/test_torch.py.
_ALLOWED = "only support 2D parameters"
# The names that torch's messages have, and ours.
_MESSAGES = {
    "Adjust learning rate function arbitrary is not supported": "shape_scaling='arbitrary'",
}


@on_classes
@pytest.mark.parametrize(
    "inputs", [db.optim_error_inputs_func_sgd, db.optim_error_inputs_func_muon]
)
def test_error_inputs(cls, inputs):
    for case in inputs(DEVICE, DTYPE):
        given, regex = case.optimizer_error_input, case.error_regex
        params = given.params
        if params is None:
            params = [torch.nn.Parameter(torch.randn(3, 4))]
        if given.desc == _ALLOWED:
            made(cls, params, **given.kwargs).step()
            continue
        if cls is not Muon:
            regex = _MESSAGES.get(regex, regex).replace("Muon", cls.__name__)
        if case.error_on is db.OptimizerErrorEnum.CONSTRUCTION_ERROR:
            if issubclass(case.error_type, Warning):
                with pytest.warns(case.error_type, match=regex):
                    made(cls, params, **given.kwargs)
                continue
            with pytest.raises(case.error_type, match=regex):
                made(cls, params, **given.kwargs)
        else:
            optimizer = made(cls, params, **given.kwargs)
            with pytest.raises(case.error_type, match=regex):
                optimizer.step()


# ---- what test_optim.py does with the inputs ----------


def problem(seed=0):
    """The linear problem of torch's test_optim.py, with matrices only."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.Parameter(torch.randn(10, 5, generator=generator))
    bias = torch.nn.Parameter(torch.randn(10, 1, generator=generator))
    data = torch.randn(5, 1, generator=generator)

    def closure(optimizer):
        optimizer.zero_grad()
        loss = (weight.mm(data) + bias).pow(2).sum()
        loss.backward()
        return loss

    return [weight, bias], closure


@on_classes
@on_inputs
def test_goes_in_the_right_direction(cls, given):
    params, closure = problem()
    optimizer = made(cls, params, **given.kwargs)
    first = closure(optimizer).item()
    for _ in range(20):
        closure(optimizer)
        optimizer.step()
    last = closure(optimizer).item()
    up = given.kwargs.get("maximize", False)
    assert (last > first) if up else (last < first)


@on_classes
@on_inputs
def test_with_schedulers(cls, given):
    if given.kwargs.get("maximize"):
        pytest.skip("schedulers of this list go down")
    for constructors in db.OptimizerInfo(cls, optim_inputs_func=None).scheduler_inputs:
        params, closure = problem()
        optimizer = made(cls, params, **{"lr": 1e-2, **copy.deepcopy(given.kwargs)})
        schedulers = [make(optimizer) for make in constructors]
        first = closure(optimizer).item()
        for _ in range(20):
            loss = closure(optimizer).item()
            optimizer.step()
            for scheduler in schedulers:
                by_loss = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                scheduler.step(loss) if by_loss else scheduler.step()
        assert closure(optimizer).item() < first


@on_classes
@on_inputs
def test_state_dict_is_deterministic(cls, given):
    params, closure = problem()
    optimizer = made(cls, params, **given.kwargs)
    for _ in range(3):
        optimizer.step(lambda: closure(optimizer))
    others, other_closure = problem()
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    other = made(cls, others, **given.kwargs)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for _ in range(3):
        optimizer.step(lambda: closure(optimizer))
        other.step(lambda: other_closure(other))
        assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert flat(optimizer.state_dict()) == flat(other.state_dict())


def flat(tree):
    """A state in a form that can be compared."""
    if isinstance(tree, torch.Tensor):
        return ("tensor", str(tree.dtype), tree.tolist())
    if isinstance(tree, dict):
        return {key: flat(value) for key, value in tree.items()}
    return [flat(each) for each in tree] if isinstance(tree, (list, tuple)) else tree


@on_classes
@on_inputs
def test_deepcopy_has_all_public_attributes(cls, given):
    params, closure = problem()
    optimizer = made(cls, params, **given.kwargs)
    optimizer.step(lambda: closure(optimizer))
    twin = copy.deepcopy(optimizer)
    public = [{name for name in vars(each) if name[0] != "_"} for each in (optimizer, twin)]
    assert public[0] == public[1]
    assert twin.state
    repr(twin)


@on_classes
@on_inputs
def test_no_gradient_is_no_step(cls, given):
    params, _ = problem()
    before = [p.detach().clone() for p in params]
    optimizer = made(cls, params, **given.kwargs)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    # A gradient of zeros moves nothing but what decays.
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    decay = optimizer.param_groups[0]["weight_decay"] * float(optimizer.param_groups[0]["lr"])
    for p, q in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), q * (1 - decay))


@on_classes
def test_groups_with_their_own_hyperparameters(cls):
    params, closure = problem()
    groups = [{"params": params[:1], "lr": 1e-2, "weight_decay": 0.1}, {"params": params[1:]}]
    optimizer = made(cls, groups, lr=0.0)
    before = params[1].detach().clone()
    for _ in range(3):
        optimizer.step(lambda: closure(optimizer))
    assert torch.equal(params[1], before)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert optimizer.param_groups[1]["weight_decay"] == optimizer.defaults["weight_decay"]


@on_classes
def test_step_hooks(cls):
    params, closure = problem()
    optimizer, seen = made(cls, params), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.step(lambda: (seen.append("closure"), closure(optimizer))[1])
    assert seen == ["before", "closure", "after"]


@on_classes
def test_state_dict_hooks(cls):
    params, closure = problem()
    optimizer, seen = made(cls, params), []
    optimizer.step(lambda: closure(optimizer))
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("state"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "extra": 1})
    state = optimizer.state_dict()
    assert state["extra"] == 1
    optimizer.register_load_state_dict_pre_hook(lambda _, given: seen.append(given["extra"]))
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    optimizer.load_state_dict(state)
    assert seen == ["state", 1, "loaded"]


@on_classes
def test_an_older_state_gets_the_new_hyperparameters(cls):
    params, closure = problem()
    optimizer = made(cls, params, momentum=0.5)
    optimizer.step(lambda: closure(optimizer))
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["maximize"], group["ema"]
    other = made(cls, params, ema=True)
    other.load_state_dict(state)
    assert other.param_groups[0]["momentum"] == 0.5
    assert other.param_groups[0]["maximize"] is False
    assert other.param_groups[0]["ema"] is True
    other.step(lambda: closure(other))


@on_classes
def test_a_parameter_group_added_later(cls):
    params, closure = problem()
    optimizer = made(cls, params[:1])
    optimizer.step(lambda: closure(optimizer))
    optimizer.add_param_group({"params": params[1:], "lr": 1e-2})
    optimizer.step(lambda: closure(optimizer))
    assert [optimizer.state[p]["step"] for p in params] == [2, 1]


# ---- torch.optim.Muon ----------

TORCH = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim has no Muon")
STEPS = pytest.mark.parametrize("steps", [1, 10])
MUON_SHAPES = [(24, 40), (40, 24), (32, 32), (32, 32), (3, 100)]


def trajectories(makers, steps, rng, dtype=torch.float32, shapes=MUON_SHAPES):
    """Parameters after some steps of each optimizer, from one start with the same gradients."""
    start = [torch.tensor(rng.standard_normal(s)).to(dtype) for s in shapes]
    grads = [[torch.tensor(rng.standard_normal(s)).to(dtype) for s in shapes] for _ in range(steps)]
    ends = []
    for make in makers:
        params = [torch.nn.Parameter(W.clone()) for W in start]
        optimizer = make(params)
        for some in grads:
            for p, G in zip(params, some, strict=True):
                p.grad = G.clone()
            optimizer.step()
        ends.append([p.detach() for p in params])
    return start, grads, ends


def differences(start, first, second):
    """Relative differences of what was moved."""
    return [
        float(torch.linalg.norm(p - q) / torch.linalg.norm(p - W))
        for W, p, q in zip(start, first, second, strict=True)
    ]


@TORCH
@STEPS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.02, "weight_decay": 0.0},
        {"momentum": 0.8, "nesterov": False},
        {"adjust_lr_fn": "original", "ns_steps": 3},
        {"adjust_lr_fn": "match_rms_adamw", "lr": torch.tensor(0.01)},
        {"ns_coefficients": (1.5, -0.5, 0.0), "eps": 1e-3},
    ],
)
def test_the_steps_are_those_of_torch(options, dtype, steps, rng):
    """Bit for bit; a learning rate that is a tensor stays one, and is a rounding off."""
    if dtype is torch.bfloat16 and not options.get("nesterov", True):
        pytest.skip("torch.optim.Muon divides its own buffer, which is the direction, by its norm")
    makers = [lambda p, cls=cls: cls(p, **options) for cls in (torch.optim.Muon, Muon)]
    _, _, ends = trajectories(makers, steps, rng, dtype)
    units = 2 if isinstance(options.get("lr"), torch.Tensor) else 0
    for p, q in zip(*ends, strict=True):
        assert torch.all((p - q).abs() <= units * torch.finfo(dtype).eps * p.abs().max())


@TORCH
def test_the_arguments_are_those_of_torch():
    """Names, order and defaults."""
    theirs = inspect.signature(torch.optim.Muon).parameters
    ours = inspect.signature(Muon).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, each in theirs.items():
        assert ours[name].default == each.default
    rule = inspect.signature(trsvd.optim.muon).parameters
    for name in list(theirs)[1:]:
        assert rule[name].default == theirs[name].default


@TORCH
@pytest.mark.parametrize("ours_first", [True, False])
def test_a_state_of_torch_goes_on_here_and_back(ours_first, rng):
    options = {"lr": 0.02, "momentum": 0.9, "ns_steps": 4, "adjust_lr_fn": "match_rms_adamw"}
    first, second = (Muon, torch.optim.Muon) if ours_first else (torch.optim.Muon, Muon)

    class Switched:
        def __init__(self, params):
            self.params, self.optimizer, self.steps = params, first(params, **options), 0

        def step(self):
            self.optimizer.step()
            self.steps += 1
            if self.steps == 5:
                file = io.BytesIO()
                torch.save(self.optimizer.state_dict(), file)
                file.seek(0)
                self.optimizer = second(self.params)
                self.optimizer.load_state_dict(torch.load(file, weights_only=True))

    makers = [lambda p: torch.optim.Muon(p, **options), Switched]
    start, _, ends = trajectories(makers, 10, rng)
    assert max(differences(start, *ends)) <= 2 * 2**-7


def jordan(start, grads, lr, mu):
    """The algorithm of K. Jordan's page, in single precision, with the exact polar factor aside."""
    ends = []
    for i, W in enumerate(start):
        W, M = W.double(), torch.zeros_like(W).double()
        for some in grads:
            G = some[i].double()
            M = mu * M + (1 - mu) * G
            X = (1 - mu) * G + mu * M
            wide = X.shape[0] <= X.shape[1]
            X = X if wide else X.T
            X = X / (torch.linalg.norm(X) + 1e-7)
            for _ in range(5):
                A = X @ X.T
                X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
            W = W - lr * max(1, W.shape[0] / W.shape[1]) ** 0.5 * (X if wide else X.T)
        ends.append(W)
    return ends


@STEPS
def test_in_single_precision_the_steps_are_those_of_the_published_formula(steps, rng):
    """Rounding grows by 3.4445 a step for the smallest singular values."""
    make = lambda p: Muon(p, lr=0.02, weight_decay=0.0, method=trsvd.NewtonSchulz())  # noqa: E731
    start, grads, (ours,) = trajectories([make], steps, rng)
    theirs = jordan(start, grads, 0.02, 0.95)
    tol = 3.4445**5 * torch.finfo(torch.float32).eps
    assert max(differences(start, ours, theirs)) <= tol


@STEPS
def test_normuon_is_its_published_formula(steps, rng):
    """In float64, where what the authors do in bfloat16 is told apart from other formulas."""
    method = trsvd.NewtonSchulz()
    makers = [lambda p: NorMuon(p, lr=0.02, method=method)]
    start, grads, (ours,) = trajectories(makers, steps, rng, torch.float64)
    theirs = []
    for i, W in enumerate(start):
        M, v = torch.zeros_like(W), torch.zeros(len(W), 1).double()
        for some in grads:
            M = 0.95 * M + 0.05 * some[i]
            (X,) = trsvd.optim.polar_iterates([0.05 * some[i] + 0.95 * M], method)
            size = torch.linalg.norm(X)
            v = 0.95 * v + 0.05 * (X * X).mean(dim=1, keepdim=True)
            X = X / (v.sqrt() + 1e-10)
            X = X * size / (torch.linalg.norm(X) + 1e-10)
            W = W - 0.02 * max(1, W.shape[0] / W.shape[1]) ** 0.5 * X
        theirs.append(W)
    # The last constant is of the size 1e-10 / ||X||, and the norm is at least 1.
    assert max(differences(start, ours, theirs)) <= 1e-10


def test_by_default_normuon_iterates_as_muon_does(rng):
    makers = [NorMuon, lambda p: NorMuon(p, method=trsvd.NewtonSchulz(dtype="bfloat16"))]
    start, _, ends = trajectories(makers, 1, rng)
    # As below for the two orders of operations.
    for W, error in zip(start, differences(start, *ends), strict=True):
        assert error <= 15 * 2**-8 * min(W.shape) ** 0.5


@STEPS
@pytest.mark.parametrize("embedding", [False, True])
def test_scale_is_its_published_formula(embedding, steps, rng):
    """On (out, in) weights over dim 1, on embeddings (vocabulary, d) over dim 0."""
    layout = "in_out" if embedding else "auto"
    makers = [lambda p: SCALE(p, lr=0.1, layout=layout, weight_decay=0.1)]
    start, grads, (ours,) = trajectories(makers, steps, rng, torch.float64)
    theirs, dim = [], 0 if embedding else 1
    for i, W in enumerate(start):
        M = torch.zeros_like(W)
        for some in grads:
            M = 0.9 * M + 0.1 * some[i]
            G = M if i == len(start) - 1 else some[i]
            rms = G.square().mean(dim=dim, keepdim=True).sqrt().clamp_min(1e-8)
            W = (1 - 0.1 * 0.1) * W - 0.1 * G / rms
        theirs.append(W)
    assert max(differences(start, ours, theirs)) <= 1e-13


def test_scale_finds_the_head_by_the_roles_of_the_groups():
    shapes = {"hidden": (4, 6), "head": (9, 4), "embedding": (9, 6)}
    params = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    groups = [{"params": [p], "role": name} for name, p in params.items()]
    optimizer = SCALE(groups)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.0, 0.9, 0.0]
    with pytest.warns(UserWarning, match="no parameter has momentum"):
        optimizer = SCALE(groups[::2])
    assert [group["momentum"] for group in optimizer.param_groups] == [0.0, 0.0]


def test_what_muon_refuses():
    W = torch.nn.Parameter(torch.ones(4, 3))
    for options, message in (
        (
            {"adjust_lr_fn": "original", "shape_scaling": "rms"},
            "adjust_lr_fn='original' and shape_scaling='rms' are both given",
        ),
        ({"adjust_lr_fn": "rms"}, "function rms is not supported"),
        ({"method": "exact", "ns_steps": 4}, "method is 'exact'"),
        ({"method": trsvd.NewtonSchulz(), "eps": 1e-3}, "options of method='newton-schulz'"),
        ({"ns_steps": 100}, "less than 100"),
        ({"ns_steps": 0}, "at least one"),
        ({"ns_coefficients": (1.5, -0.5)}, "exactly 3"),
        ({"eps": 0.0}, "eps"),
    ):
        with pytest.raises(ValueError, match=message):
            Muon([W], **options)
        with pytest.raises(ValueError, match=message):
            trsvd.optim.muon(0.1, **options)


def test_a_huge_direction_does_not_overflow():
    """`torch.optim.Muon` squares it in single precision, and stands still."""
    G = torch.tensor(np.random.default_rng(0).standard_normal((5, 7)), dtype=torch.float32)
    moved = []
    for size in (1.0, 1e30):
        W = torch.nn.Parameter(torch.zeros(5, 7))
        W.grad = G * size
        Muon([W], lr=1.0).step()
        moved.append(W.detach())
    # A rounding to bfloat16 of each entry, which grows by 3.4445 a step at most.
    error = torch.linalg.norm(moved[1] - moved[0]) / torch.linalg.norm(moved[0])
    assert error <= 15 * 2**-8 * 5**0.5


def losses(make, seed):
    """Fifty steps of a small network on made-up data."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(256, 16, generator=generator)
    y = (X @ torch.randn(16, 6, generator=generator)).argmax(dim=1)
    shapes = [(32, 16), (32, 32), (6, 32)]
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator) / shape[1] ** 0.5)
        for shape in shapes
    ]
    optimizer, out = make(params), []
    for _ in range(50):
        H = X
        for W in params[:-1]:
            H = torch.tanh(H @ W.T)
        loss = torch.nn.functional.cross_entropy(H @ params[-1].T, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
    return np.array(out)


@TORCH
def test_fifty_steps_have_the_losses_of_torch():
    """Closer to it than its own losses from other starts are to each other, at each step."""
    options = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    theirs = np.stack([losses(lambda p: torch.optim.Muon(p, **options), s) for s in range(5)])
    ours = np.stack([losses(lambda p: Muon(p, **options), s) for s in range(5)])
    spread = theirs.std(axis=0, ddof=1)
    assert np.all(np.abs(ours - theirs).mean(axis=0) <= spread)
    assert theirs[:, -1].max() < 0.5 * theirs[:, 0].min()


# ---- Dion ----------


@pytest.mark.parametrize("orthonormal", [False, True])
def test_dion_is_its_published_algorithm(orthonormal, rng):
    """Algorithm 1 of arXiv:2504.05295 beside the class; the orthonormal variant as documented."""
    m, n, k, lr, mu = 24, 16, 5, 0.1, 0.9
    W = torch.nn.Parameter(torch.tensor(rng.standard_normal((m, n))))
    optimizer = Dion([W], lr=lr, k=k, momentum=mu, orthonormal=orthonormal)
    X, M, Q = W.detach().numpy().copy(), np.zeros((m, n)), None
    for _ in range(6):
        G = rng.standard_normal((m, n))
        W.grad = torch.tensor(G)
        if Q is None:
            Q = trsvd.optim.dion_normuon.right_factors(W, Rank(k), "auto", 0)[0].numpy()
        optimizer.step()
        B = M + G
        P, _ = np.linalg.qr(B @ Q)
        R = B.T @ P
        M = B - (1 - mu) * P @ R.T
        Q = R / np.linalg.norm(R, axis=0)
        right = Q
        if orthonormal:
            U, _, Vh = np.linalg.svd(R, full_matrices=False)
            right = U @ Vh
        X = X - lr * np.sqrt(m / n) * P @ right.T
        np.testing.assert_allclose(W.detach().numpy(), X, atol=1e-11)
        buffer = optimizer.state[W]["momentum_buffer"].numpy()
        np.testing.assert_allclose(buffer, M, atol=1e-11)


def test_warnings_are_errors_here():
    """The suite turns warnings into errors; a step makes none."""
    params, closure = problem()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = Muon(params, method=trsvd.PolarExpress())
        optimizer.step(lambda: closure(optimizer))


# ---- pytorch-optimizer: its generic checks, and its wrappers around ours ----------
#
# The package's tests are not in its wheel, and name its own classes; what they check of every
# optimizer is driven from here. It is in no extra, since it would fetch PyTorch's default build.


def classification(dtype=torch.float32):
    """Two classes in the plane, and a model whose parameters are all matrices."""
    generator = torch.Generator().manual_seed(0)
    X = torch.cat([torch.randn(50, 2, generator=generator) + c for c in (-2.0, 2.0)])
    y = torch.cat([torch.zeros(50, 1), torch.ones(50, 1)])
    torch.manual_seed(0)
    layers = [torch.nn.Linear(2, 4, bias=False), torch.nn.Linear(4, 1, bias=False)]
    return X.to(dtype), y.to(dtype), torch.nn.Sequential(*layers).to(dtype)


def losses_of(X, y, model, advance, steps=20):
    """Losses while `advance` makes steps; it is given what computes loss and gradients."""

    def closure():
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model(X), y)
        loss.backward()
        return loss

    return [advance(closure).item() for _ in range(steps)]


@on_classes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_falls_by_half(cls, dtype):
    X, y, model = classification(dtype)
    optimizer = made(cls, model.parameters(), lr=0.1)

    def advance(closure):
        optimizer.zero_grad()
        loss = closure()
        optimizer.step()
        return loss

    losses = losses_of(X, y, model, advance)
    assert losses[0] > 1.5 * losses[-1]


@on_classes
@pytest.mark.parametrize("name", ["Lookahead", "SAM", "PCGrad", "OrthoGrad"])
def test_wrappers_of_pytorch_optimizer(cls, name):
    package = pytest.importorskip("pytorch_optimizer")
    X, y, model = classification()
    wrapper = getattr(package, name)
    if name == "SAM":
        # It makes the base optimizer itself, of its own parameter groups.
        def base(params, **options):
            return made(cls, params, **options)

        optimizer = wrapper(model.parameters(), base, lr=0.1)
    else:
        optimizer = wrapper(made(cls, model.parameters(), lr=0.1))

    def advance(closure):
        optimizer.zero_grad()
        if name == "PCGrad":
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(X), y)
            optimizer.pc_backward([loss, 0.01 * sum(p.square().sum() for p in model.parameters())])
            optimizer.step()
            return loss
        loss = closure()
        if name == "SAM":
            optimizer.first_step(zero_grad=True)
            closure()
            optimizer.second_step(zero_grad=True)
        else:
            optimizer.step()
        return loss

    losses = losses_of(X, y, model, advance)
    assert losses[0] > 1.5 * losses[-1]
