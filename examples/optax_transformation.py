"""Use the oracle as an optax GradientTransformation, inside `jax.jit`.

A host callback calls the oracle. The state of optax contains the right vectors of the last step.
Outside `jax.jit` the rules of `trsvd.optim` accept JAX arrays directly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import trsvd


def scale_by_fanion(k: int, gap: float = 1e-2) -> optax.GradientTransformation:
    """Map matrices to ``U_k V_k^T``; chain it with momentum and a negative learning rate."""
    ball = trsvd.KyFanDualBall(k)

    def ask(G, V):
        start = V if V.any() else None
        result = ball.lmo(np.asarray(G), gap=gap, start=start, rng=0)
        Vh = np.asarray(result.subspace.Vh)[:k]
        return -result.update, np.pad(Vh.T, ((0, 0), (0, k - len(Vh)))).astype(G.dtype)

    def init(params):
        return jax.tree.map(lambda W: jnp.zeros((W.shape[1], k), W.dtype), params)

    def update(updates, state, params=None):
        del params
        grads, tree = jax.tree.flatten(updates)
        made = [
            jax.pure_callback(
                lambda G, V: ask(np.asarray(G), np.asarray(V)),
                (jax.ShapeDtypeStruct(G.shape, G.dtype), jax.ShapeDtypeStruct(V.shape, V.dtype)),
                G,
                V,
            )
            for G, V in zip(grads, jax.tree.leaves(state), strict=True)
        ]
        return tree.unflatten([D for D, _ in made]), tree.unflatten([V for _, V in made])

    return optax.GradientTransformation(init, update)


def main() -> None:
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((256, 24)), jnp.float32)
    outputs = jnp.tanh(inputs @ jnp.asarray(rng.standard_normal((24, 6)), jnp.float32))
    params = {
        name: jnp.asarray(rng.standard_normal(shape) / shape[0] ** 0.5, jnp.float32)
        for name, shape in (("first", (24, 32)), ("second", (32, 6)))
    }
    schedule = optax.cosine_decay_schedule(0.05, 120)
    optimizer = optax.chain(
        optax.trace(decay=0.9), scale_by_fanion(4), optax.scale_by_learning_rate(schedule)
    )

    def loss_of(params):
        hidden = jnp.tanh(inputs @ params["first"])
        return jnp.mean((hidden @ params["second"] - outputs) ** 2)

    @jax.jit
    def step(params, state):
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimizer.init(params), []
    for _ in range(120):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    print("loss " + " -> ".join(f"{loss:.4f}" for loss in losses[::30] + losses[-1:]))
    assert losses[-1] < 0.1 * losses[0]


if __name__ == "__main__":
    main()
