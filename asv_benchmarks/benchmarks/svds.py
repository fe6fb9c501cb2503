"""Truncated SVD: time, products with A, and residual, by backend and by method."""

import numpy as np
import scipy.sparse

import trsvd

from .common import BACKENDS, assert_accurate, decaying, gaussian


class _Svds:
    """One matrix, one k and one tolerance; each benchmark checks the accuracy."""

    param_names = ["backend", "method"]
    params = [list(BACKENDS), ["trlan", "rsvd", "krylov", "power", "direct"]]
    timeout = 120
    k = 8
    tol = 1e-6

    def matrix(self) -> np.ndarray:
        raise NotImplementedError

    def setup(self, backend, method):
        host = self.matrix()
        self.backend = BACKENDS[backend]
        self.A = self.backend.put(host)
        self.exact = np.linalg.svd(host, compute_uv=False)
        self.backend.synchronize()

    def run(self, method):
        result = trsvd.svds(self.A, self.k, method=method, tol=self.tol, rng=0)
        self.backend.synchronize()
        S = self.backend.get(result.S)
        assert_accurate(S, self.exact, result.residuals, self.tol)
        return result

    def time_svds(self, backend, method):
        self.run(method)

    def peakmem_svds(self, backend, method):
        self.run(method)

    def track_matvecs(self, backend, method):
        return self.run(method).matvecs

    def track_residual(self, backend, method):
        return float(np.max(self.run(method).residuals))

    track_matvecs.unit = "products"
    track_residual.unit = "relative to s_1"


class Decaying(_Svds):
    """Singular values with ratio 0.9, suitable for all methods."""

    def matrix(self):
        return decaying(400, 300, 0.9)


class Wide(_Svds):
    """More columns than rows, in float32, with a tolerance that float32 allows."""

    tol = 1e-5

    def matrix(self):
        return decaying(2000, 100, 0.9).T.astype(np.float32).copy()


class Gaussian(_Svds):
    """Gaussian matrix with small gaps, only for direct and Krylov methods."""

    params = [list(BACKENDS), ["trlan", "krylov", "direct"]]
    k = 5

    def matrix(self):
        return gaussian(300, 300)


class WarmStart:
    """A matrix near a decomposed one: products with a warm and a cold start."""

    param_names = ["backend", "start"]
    params = [list(BACKENDS), ["cold", "warm"]]
    k = 8
    tol = 1e-3

    def setup(self, backend, start):
        old = decaying(400, 300, 0.9)
        host = old + 1e-3 * gaussian(400, 300, seed=1)
        self.backend = BACKENDS[backend]
        self.A = self.backend.put(host)
        self.exact = np.linalg.svd(host, compute_uv=False)
        self.start = self.run(self.backend.put(old), None) if start == "warm" else None

    def run(self, A, start):
        return trsvd.svds(A, self.k, method="trlan", tol=self.tol, start=start, rng=0)

    def track_matvecs(self, backend, start):
        result = self.run(self.A, self.start)
        assert_accurate(self.backend.get(result.S), self.exact, result.residuals, self.tol)
        return result.matvecs

    track_matvecs.unit = "products"


class Batch:
    """A hundred small matrices at once, and one after another."""

    param_names = ["backend", "how"]
    params = [list(BACKENDS), ["at once", "one by one"]]
    k = 5
    tol = 1e-5

    def setup(self, backend, how):
        self.host = gaussian(6400, 64).reshape(100, 64, 64)
        self.backend = BACKENDS[backend]
        self.stack = self.backend.put(self.host.astype(np.float32))
        self.track_residual(backend, how)

    def run(self, how):
        at_once = how == "at once"
        matrices = [self.stack] if at_once else self.stack
        results = [trsvd.svds(A, self.k, tol=self.tol, rng=0) for A in matrices]
        self.backend.synchronize()
        return results

    def time_svds(self, backend, how):
        self.run(how)

    def track_residual(self, backend, how):
        results = self.run(how)
        S = np.concatenate([self.backend.get(r.S).reshape(-1, self.k) for r in results])
        residuals = np.concatenate([r.residuals.reshape(-1, self.k) for r in results])
        exact = np.linalg.svd(self.host, compute_uv=False)
        for values, true, errors in zip(S, exact, residuals, strict=True):
            assert_accurate(values, true, errors, self.tol)
        return float(residuals.max())

    track_residual.unit = "relative to s_1"


class Centred:
    """Principal components of sparse data, and of a tall array, which are not copied."""

    param_names = ["data", "dtype"]
    params = [["sparse", "sparse, wide", "tall"], ["float32", "float64"]]
    timeout = 120

    def setup(self, data, dtype):
        rng = np.random.default_rng(0)
        if data == "tall":
            A = rng.standard_normal((50000, 128)) * np.arange(1, 129) ** -0.7
            self.A = (A @ np.linalg.qr(rng.standard_normal((128, 128)))[0] + 1).astype(dtype)
        else:
            left = scipy.sparse.random(6000, 100, 0.02, format="csr", random_state=1)
            right = scipy.sparse.random(100, 1500, 0.02, format="csr", random_state=2)
            A = left @ scipy.sparse.diags(np.arange(1, 101) ** -0.7) @ right
            A = A + 0.1 * scipy.sparse.random(6000, 1500, 0.003, format="csr", random_state=3)
            self.A = (A.T if "wide" in data else A).tocsr().astype(dtype)
        dense = self.A.toarray() if scipy.sparse.issparse(self.A) else self.A
        dense = dense.astype(float)
        self.exact = np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)
        self.run(data, dtype)

    def run(self, data, dtype):
        tol = float(np.finfo(dtype).eps) ** 0.75
        result = trsvd.svds(trsvd.operators.CenteredOperator(self.A), 20, tol=tol, rng=0)
        assert_accurate(result.S, self.exact, result.residuals, tol)
        return result

    def time_svds(self, data, dtype):
        self.run(data, dtype)

    def peakmem_svds(self, data, dtype):
        self.run(data, dtype)
