"""Kernels of the methods: orthonormalization of blocks, Krylov bases, Gram matrices."""

import numpy as np

from trsvd._arrays.arrays import Arrays
from trsvd._krylov.basis import RandomVectors, orthonormalize
from trsvd._krylov.golub_kahan import GolubKahan
from trsvd.operators import as_operator
from trsvd.operators.counting import Metered

from .common import BACKENDS, assert_orthonormal, gaussian

DTYPES = ["float32", "float64"]


class Orthonormalize:
    """Orthonormalization of a tall block, alone and against a basis."""

    param_names = ["backend", "dtype", "width"]
    params = [list(BACKENDS), DTYPES, [1, 8, 64]]
    length = 4096

    def setup(self, backend, dtype, width):
        self.backend = BACKENDS[backend]
        self.X = self.backend.put(gaussian(self.length, width).astype(dtype))
        Q = np.linalg.qr(gaussian(self.length, 64, seed=1))[0]
        self.basis = self.backend.put(np.asfortranarray(Q.astype(dtype)))
        self.arrays = Arrays.of_array(self.X)
        self.spare = RandomVectors(self.arrays, np.random.default_rng(0), self.length, width)
        self.backend.synchronize()
        for basis in (None, self.basis):
            assert_orthonormal(self.backend.get(self.run(basis)))

    def run(self, basis):
        Q, _, _ = orthonormalize(self.arrays, self.X, basis, floor=0.0, replacements=self.spare)
        self.backend.synchronize()
        return Q

    def time_alone(self, backend, dtype, width):
        self.run(None)

    def time_against_a_basis(self, backend, dtype, width):
        self.run(self.basis)


class Expand:
    """Twenty steps of the Golub-Kahan recurrence, in vectors or in blocks."""

    param_names = ["backend", "dtype", "block_size"]
    params = [list(BACKENDS), DTYPES, [1, 4]]
    steps = 20

    def setup(self, backend, dtype, block_size):
        self.backend = BACKENDS[backend]
        self.A = self.backend.put(gaussian(768, 512).astype(dtype))
        self.backend.synchronize()
        basis = self.run(block_size)
        assert_orthonormal(self.backend.get(basis.V.view()))

    def run(self, block_size):
        op = Metered(as_operator(self.A), None)
        rng = np.random.default_rng(0)
        start = op.arrays.gaussian(rng, 512, block_size)
        basis = GolubKahan(op, start, rng=rng, capacity=block_size * self.steps)
        while not basis.full:
            basis.expand(op)
        basis.sync()
        self.backend.synchronize()
        return basis

    def time_expand(self, backend, dtype, block_size):
        self.run(block_size)

    def peakmem_expand(self, backend, dtype, block_size):
        self.run(block_size)


class Gram:
    """Leading eigenvectors of the Gram matrix, as in the direct method."""

    param_names = ["backend", "dtype"]
    params = [list(BACKENDS), DTYPES]

    def setup(self, backend, dtype):
        self.backend = BACKENDS[backend]
        self.A = self.backend.put(gaussian(1000, 250).astype(dtype))
        self.arrays = Arrays.of_array(self.A)
        self.backend.synchronize()
        assert_orthonormal(self.backend.get(self.run()))

    def run(self):
        V = self.arrays.gram_eigh(self.arrays.gram(self.A), 10)
        self.backend.synchronize()
        return V

    def time_gram(self, backend, dtype):
        self.run()
