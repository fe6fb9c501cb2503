"""Oracles: time, memory, products with G and true gap, cold, warm, and in batches."""

import numpy as np

import trsvd
from trsvd.polar import QUINTIC, newton_schulz

from .common import BACKENDS, assert_small_gap, decaying, gaussian


class _Oracle:
    """Oracle of one matrix, after the previous one; each benchmark checks the gap."""

    param_names = ["backend", "start"]
    params = [list(BACKENDS), ["cold", "warm"]]
    timeout = 120
    k = 12
    gap = 1e-2

    def matrix(self) -> np.ndarray:
        raise NotImplementedError

    def setup(self, backend, start):
        host = self.matrix().astype(np.float32)
        change = gaussian(*host.shape, seed=1)
        # Consecutive momentum buffers differ by about three tenths.
        previous = host - 0.3 * np.linalg.norm(host) / np.linalg.norm(change) * change
        self.backend = BACKENDS[backend]
        self.host = host.astype(np.float64)
        self.support = np.linalg.svd(self.host, compute_uv=False)[: self.k].sum()
        self.G = self.backend.put(host)
        self.ball = trsvd.KyFanDualBall(self.k)
        self.start = None
        if start == "warm":
            before = self.backend.put(previous.astype(np.float32))
            self.start = self.ball.lmo(before, gap=self.gap, rng=0).subspace
        self.backend.synchronize()

    def run(self):
        result = self.ball.lmo(self.G, gap=self.gap, start=self.start, rng=0)
        update = result.update
        self.backend.synchronize()
        return result, update

    def check(self):
        result, update = self.run()
        D = self.backend.get(update).astype(np.float64)
        return result, assert_small_gap(D, self.host, self.support, self.gap)

    def time_lmo(self, backend, start):
        self.run()

    def peakmem_lmo(self, backend, start):
        self.check()

    def track_matvecs(self, backend, start):
        return self.check()[0].matvecs

    def track_gap(self, backend, start):
        return self.check()[1]

    track_matvecs.unit = "products"
    track_gap.unit = "relative to the support function"


class Decaying(_Oracle):
    """Singular values with ratio 0.9."""

    def matrix(self):
        return decaying(192, 384, 0.9)


class Noisy(_Oracle):
    """A decaying part plus noise of the same norm; gaps in the noise are small."""

    def matrix(self):
        low, noise = decaying(192, 384, 0.9), gaussian(192, 384, seed=2)
        return low / np.linalg.norm(low) + noise / np.linalg.norm(noise)


class NewtonSchulz:
    """Muon's five steps on the same matrix; another oracle, for comparison of times."""

    param_names = ["backend"]
    params = [list(BACKENDS)]

    def setup(self, backend):
        self.backend = BACKENDS[backend]
        self.G = self.backend.put(decaying(192, 384, 0.9).astype(np.float32))
        self.backend.synchronize()

    def time_five_steps(self, backend):
        newton_schulz(self.G, steps=5, coefficients=QUINTIC)
        self.backend.synchronize()


class Batch:
    """A hundred small matrices at once, and one after another."""

    param_names = ["backend", "how"]
    params = [list(BACKENDS), ["at once", "one by one"]]
    k = 5

    def setup(self, backend, how):
        self.backend = BACKENDS[backend]
        self.host = np.random.default_rng(0).standard_normal((100, 64, 64))
        self.stack = self.backend.put(self.host.astype(np.float32))
        self.check(self.run(how))

    def run(self, how):
        if how == "at once":
            updates = trsvd.kyfan_dual_lmo(self.stack, self.k, rng=0)
        else:
            updates = [trsvd.kyfan_dual_lmo(G, self.k, rng=0) for G in self.stack]
        self.backend.synchronize()
        return updates

    def check(self, updates):
        supports = np.linalg.svd(self.host, compute_uv=False)[:, : self.k].sum(axis=1)
        for D, G, support in zip(updates, self.host, supports, strict=True):
            # Without a gap the oracle is exact to rounding in float32.
            assert_small_gap(self.backend.get(D).astype(np.float64), G, support, 1e-5)

    def time_lmo(self, backend, how):
        self.run(how)
