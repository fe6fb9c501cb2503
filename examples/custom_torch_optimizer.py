"""Use the oracle in your own PyTorch optimizer, and compare with the optimizer of trsvd."""

import torch

import trsvd
from trsvd.optim.torch import CompositeOptimizer, Fanion, split_parameters


class MyFanion(torch.optim.Optimizer):
    """Minimal Fanion-k with classical momentum."""

    def __init__(self, params, lr=0.02, k=4, mu=0.95):
        super().__init__(params, {"lr": lr, "k": k, "mu": mu})

    @torch.no_grad()
    def step(self):
        """Call the oracle for all matrices of a group at once, each with its last subspace."""
        for group in self.param_groups:
            states = [self.state[p] for p in group["params"]]
            for p, state in zip(group["params"], states, strict=True):
                state["M"] = group["mu"] * state.get("M", 0) + p.grad
            results = trsvd.KyFanDualBall(group["k"]).lmo_many(
                [state["M"] for state in states],
                start=[state.get("subspace") for state in states],
                gap=1e-2,
                rng=0,
            )
            for p, state, result in zip(group["params"], states, results, strict=True):
                p.add_(result.update, alpha=group["lr"])
                state["subspace"] = result.subspace


def train(make) -> list[float]:
    torch.manual_seed(0)
    inputs = torch.randn(512, 32)
    labels = (inputs @ torch.randn(32, 8)).argmax(dim=1)
    model = torch.nn.Sequential(
        torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 64), torch.nn.GELU(),
        torch.nn.Linear(64, 8),
    )  # fmt: skip
    matrices, others = split_parameters(model)
    optimizers = CompositeOptimizer(make(matrices), torch.optim.AdamW(others, lr=3e-3))
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        optimizers.zero_grad()
        loss.backward()
        optimizers.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    for name, make in (
        ("your own", lambda p: MyFanion(p, lr=0.02)),
        ("Fanion of trsvd.optim.torch", lambda p: Fanion(p, lr=0.02, k=4, nesterov=False)),
    ):
        losses = train(make)
        print(
            f"{name:28s} loss " + " -> ".join(f"{loss:.3f}" for loss in losses[::20] + losses[-1:])
        )
        assert losses[-1] < 0.5 * losses[0]


if __name__ == "__main__":
    main()
