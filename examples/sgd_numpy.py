"""Use the oracle in an existing training loop: momentum SGD in NumPy, twenty lines.

The problem is least squares with a target of low rank. Only the ball of trsvd is used. Each step
starts from the subspace of the last one, and costs two or three block products on average.
"""

import numpy as np

import trsvd


def main() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 60))
    target = rng.standard_normal((60, 8)) @ rng.standard_normal((8, 80)) / 8
    outputs = inputs @ target

    W, M, subspace = np.zeros((60, 80)), np.zeros((60, 80)), None
    ball, lr, mu, products = 0.5 * trsvd.KyFanDualBall(4) + 0.5 * trsvd.FrobeniusBall(), 1.0, 0.9, 0
    for step in range(101):
        residual = inputs @ W - outputs
        M = mu * M + inputs.T @ residual / len(inputs)
        result = ball.lmo(M, gap=1e-2, start=subspace, rng=step)
        W = W + lr * (1 - step / 101) * result.update
        subspace, products = result.subspace, products + result.passes
        if step % 20 == 0:
            loss = 0.5 * np.sum(residual**2) / len(inputs)
            print(f"step {step:3d}: loss {loss:9.5f}, {products:4d} block products so far")
    assert np.linalg.norm(W - target) < 0.05 * np.linalg.norm(target)


if __name__ == "__main__":
    main()
