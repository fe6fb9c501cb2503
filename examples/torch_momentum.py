"""Compute leading singular triplets of a PyTorch momentum buffer while a model trains.

The tensors stay on their device (the GPU if there is one). The SVD of each step starts from that of
the previous step. The output shows the share of the momentum in a few directions.
"""

import torch

import trsvd


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs = torch.randn(512, 64, generator=generator).to(device)
    teacher = torch.randn(64, 10, generator=generator).to(device)
    labels = (inputs @ teacher).argmax(dim=1)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 10)
        ).to(device)
    weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.95)

    k, last = 5, None
    print(f"momentum of a {tuple(weight.shape)} weight, k = {k}")
    print("step   loss   energy in the top k   products warm   cold")
    for step in range(61):
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        momentum = optimizer.state[weight]["momentum_buffer"]
        last = trsvd.svds(momentum, k, method="trlan", tol=5e-2, start=last, rng=0)
        assert last.U.device == momentum.device
        if step % 15 == 0:
            cold = trsvd.svds(momentum, k, method="trlan", tol=5e-2, rng=0)
            energy = float(torch.sum(last.S**2) / torch.sum(momentum**2))
            print(
                f"{step:4d}  {loss.item():5.3f}  {energy:19.1%}  "
                f"{last.matvecs:14d}  {cold.matvecs:5d}"
            )


if __name__ == "__main__":
    main()
