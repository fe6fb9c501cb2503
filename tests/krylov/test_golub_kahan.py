"""The invariant of `trsvd._krylov.golub_kahan`, after every operation, on every library.

Tolerances: the products, the projections and the small factorizations are backward stable, so
that each line of the invariant holds to (m + n) eps ||A||; `FACTOR` covers their number, and that a
restart rotates what is there (an error is carried on, not amplified). A remainder below
4 eps ||A|| counts as zero, which is less. What the caller allows to be dropped comes on top.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from trsvd._arrays.arrays import Arrays
from trsvd._errors import AdjointError
from trsvd._krylov.golub_kahan import GolubKahan
from trsvd.operators import as_operator
from trsvd.operators.counting import Metered

FACTOR = 10


class Problem:
    """A host matrix, the same on a backend, and a basis over it."""

    def __init__(self, backend: Any, A: np.ndarray, op: Any = None) -> None:
        self.backend, self.A = backend, A
        self.exact = A.astype(np.result_type(A.dtype, np.float64))
        self.norm = float(np.linalg.norm(self.exact, 2))
        operator = as_operator(backend.asarray(A) if op is None else op)
        self.op = Metered(operator, None)
        self.eps = float(np.finfo(A.dtype).eps)
        self.tol = FACTOR * sum(A.shape) * self.eps

    def start(self, rng: np.random.Generator, w: int) -> Any:
        return self.op.arrays.gaussian(rng, self.A.shape[1], w)

    def basis(self, rng: np.random.Generator, w: int, **options: Any) -> GolubKahan:
        options.setdefault("capacity", self.A.shape[1])
        return GolubKahan(self.op, self.start(rng, w), rng=rng, **options)

    def host(self, basis: GolubKahan) -> tuple[np.ndarray, ...]:
        """V, W and U on the host."""
        j = basis.size
        parts = basis.V.view(0, j), basis.V.view(j), basis.U.view()
        for part in parts:
            assert self.backend.owns(part)
        get = self.backend.to_numpy
        return tuple(get(part).astype(self.exact.dtype) for part in parts)

    def check(self, basis: GolubKahan, *, dropped: float = 0.0, orthogonal: bool = True) -> None:
        """Assert the invariant.

        ``dropped`` is what the caller allowed to be left out, absolute. With ``orthogonal=False``
        it is the weaker form of one-sided orthogonalization.
        """
        basis.sync()
        V, W, U = self.host(basis)
        B, C = basis.B, basis.C
        (m, n), j, w = self.A.shape, basis.size, basis.width
        assert V.shape == (n, j)
        assert W.shape == (n, w)
        assert U.shape == (m, j)
        assert B.shape == (j, j)
        assert C.shape == (w, j)
        every = np.hstack([V, W])
        assert np.abs(every.conj().T @ every - np.eye(j + w)).max() <= self.tol
        gram = U.conj().T @ U
        if orthogonal:
            assert np.abs(gram - np.eye(j)).max(initial=0) <= self.tol
            gram = np.eye(j)
        if j == 0:
            return
        level = self.tol * self.norm + dropped
        assert np.linalg.norm(self.exact @ V - U @ B, 2) <= level
        rest = self.exact.conj().T @ U - V @ (B.conj().T @ gram) - W @ C
        assert np.linalg.norm(rest, 2) <= level
        # The definition of C, which the second line implies.
        assert np.abs(C.conj().T - U.conj().T @ self.exact @ W).max(initial=0) <= level


def decaying(count: int) -> np.ndarray:
    return 0.9 ** np.arange(count)


every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])


@pytest.fixture(params=["float64", "complex64"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


# ---- the invariant ----------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("w", [1, 2, 5])
def test_two_sided(backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any) -> None:
    problem = Problem(backend, spectrum_matrix(45, 40, decaying(40), dtype, rng))
    basis = problem.basis(rng, w, capacity=20)
    problem.check(basis)
    dropped = 0.0
    for restart in range(5):
        while not basis.full:
            basis.expand(problem.op)
            problem.check(basis, dropped=dropped)
        basis.compress(9)
        assert basis.size == 9
        problem.check(basis, dropped=dropped)
        if restart == 2:
            # Its couplings, at most `level` each and of 9 columns, are set to zero.
            level = 1.01 * float(np.linalg.norm(basis.C[:, :2], axis=0).max())
            dropped = 3 * level
            basis.lock(level)
            assert basis.locked >= 1
        else:
            basis.lock(problem.eps)
        problem.check(basis, dropped=dropped)
        if restart == 1:
            basis = basis.copy()
            problem.check(basis)
        if restart == 3:
            basis.grow(25)
            assert basis.capacity == 25
            problem.check(basis, dropped=dropped)


@pytest.mark.parametrize("w", [1, 3])
def test_graded_spectrum(backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any) -> None:
    # Remainders far below the norm of A, and above rounding, are directions like any other.
    s = np.logspace(0, -12, 20)
    problem = Problem(backend, spectrum_matrix(30, 20, s, dtype, rng))
    basis = problem.basis(rng, w)
    while not basis.exhausted:
        basis.expand(problem.op)
        problem.check(basis)


@every_dtype
@pytest.mark.parametrize("w", [1, 2, 5])
def test_one_sided(backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any) -> None:
    problem = Problem(backend, spectrum_matrix(90, 40, decaying(40), dtype, rng))
    basis = problem.basis(rng, w, capacity=20, two_sided=False)
    for _ in range(4):
        while not basis.full:
            basis.expand(problem.op)
            problem.check(basis, orthogonal=False)
        basis.compress(9)
        problem.check(basis)  # U is repaired
        twin = basis.copy()
        problem.check(twin)
        basis.lock(problem.eps)
        problem.check(basis)


def test_a_restart_repairs_a_left_basis_that_lost_orthogonality(
    backend: Any, dtype: str, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(90, 40, decaying(40), dtype, rng))
    basis = problem.basis(rng, 2, capacity=20, two_sided=False)
    while not basis.full:
        basis.expand(problem.op)
    basis.sync()
    # In practice the loss is in directions of small singular values, where it hardly shows. Here
    # it is planted everywhere, in the way that keeps the weaker form of the invariant.
    mix = np.eye(basis.size) + np.triu(1e-2 * rng.standard_normal((basis.size, basis.size)), 1)
    put = problem.op.arrays.put
    basis.U.overwrite(basis.U.view() @ put(np.linalg.inv(mix)), 0)
    basis.B, basis.C = mix @ basis.B, basis.C @ np.linalg.inv(mix)
    problem.check(basis, orthogonal=False)
    basis.two_sided = False  # which the constructor does not allow where reads cost a wait
    _, _, U = problem.host(basis)
    loss = np.abs(U.conj().T @ U - np.eye(basis.size)).max()
    assert loss > 5e-3
    left, S, right = _extracted(problem, basis, 4)
    assert np.abs(left.conj().T @ left - np.eye(4)).max() <= problem.tol
    assert np.linalg.norm(problem.exact.conj().T @ left - right * S) <= problem.tol * problem.norm
    basis.compress(12)
    assert basis.loss == pytest.approx(loss, rel=1e-3)
    problem.check(basis)
    basis.two_sided = True
    while not basis.full:
        basis.expand(problem.op)
        problem.check(basis)


@pytest.mark.parametrize("w", [1, 3])
def test_what_was_known_earlier_stands_in_corners(
    backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any
) -> None:
    """From the second expansion on, after a restart too: before that there is no trend in B."""
    problem = Problem(backend, spectrum_matrix(45, 40, decaying(40), dtype, rng))
    basis = problem.basis(rng, w, capacity=20)
    level = problem.tol * problem.norm
    for _ in range(3):
        basis.expand(problem.op)
        first = basis.ritz()
        assert first.history is None
        basis.expand(problem.op)
        history = basis.ritz().history
        assert history is not None
        B, C, width = history
        assert (width, C.shape) == (w, (w, basis.size))
        j = basis.size - w
        for corner, values in ((B[:j, :j], first.S), (B[:j, :], first.latest)):
            S = np.linalg.svd(corner, compute_uv=False)
            assert pytest.approx(values, rel=0, abs=level) == S
        basis.compress(w + 2)


def _extracted(problem: Problem, basis: GolubKahan, k: int) -> tuple[np.ndarray, ...]:
    left, S, right = basis.extract(k)
    get = problem.backend.to_numpy
    return get(left).astype(problem.exact.dtype), S, get(right).astype(problem.exact.dtype)


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("w", [1, 3])
def test_in_the_complement_of_given_triplets(
    backend: Any, dtype: str, w: int, two_sided: bool, rng: Any, spectrum_matrix: Any
) -> None:
    s = decaying(20)
    A, U, Vh = spectrum_matrix(45, 20, s, dtype, rng, factors=True)
    problem = Problem(backend, A)
    put = problem.op.arrays.put
    chosen = [0, 1, 4]  # not the leading ones
    locked = put(U[:, chosen]), s[chosen], put(Vh[chosen].conj().T)
    basis = problem.basis(rng, w, capacity=14, two_sided=two_sided, locked=locked)
    assert basis.locked == 3
    problem.check(basis)
    for _ in range(3):
        while not basis.full:
            basis.expand(problem.op)
            problem.check(basis, orthogonal=two_sided)
        ritz = basis.ritz()
        assert np.all(np.diff(ritz.S) <= 0)
        values, vectors = basis.ritz_complement(2)
        # The largest of the others. They are Ritz values: from below, up to rounding.
        assert np.all(values <= s[[2, 3]] + problem.tol)
        overlap = Vh[chosen] @ backend.to_numpy(vectors)
        assert np.abs(overlap).max() <= problem.tol
        basis.compress(8)
        problem.check(basis)
    assert values[0] == pytest.approx(s[2], rel=1e-3)
    U_all, S_all, _ = basis.extract(5)
    assert S_all[:3] == pytest.approx(s[:3], abs=1e-3)
    assert backend.owns(U_all)


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("w", [1, 3])
def test_an_operator_that_has_nothing_but_the_protocol(
    backend: Any, w: int, two_sided: bool, rng: Any
) -> None:
    class Minimal:
        __slots__ = ("_A", "device", "dtype", "shape", "xp")

        def __init__(self, A: Any) -> None:
            self._A = A
            self.shape, self.dtype, self.device, self.xp = (
                A.shape,
                A.dtype,
                backend.device,
                backend.xp,
            )

        def matmat(self, X: Any) -> Any:
            assert backend.owns(X)
            assert X.ndim == 2
            return self._A @ X

        def rmatmat(self, X: Any) -> Any:
            assert backend.owns(X)
            assert X.ndim == 2
            return self._A.T @ X

    A = rng.standard_normal((50, 20))
    problem = Problem(backend, A, Minimal(backend.asarray(A)))
    basis = problem.basis(rng, w, capacity=12, two_sided=two_sided)
    for _ in range(2):
        while not basis.full:
            basis.expand(problem.op)
            problem.check(basis, orthogonal=two_sided)
        basis.compress(6)
        problem.check(basis)


# ---- breakdown and exhaustion -----------------------------------------------------------


def breakdown_matrices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    low = rng.standard_normal((24, 3)) @ rng.standard_normal((3, 15))
    repeated = np.zeros((24, 15))
    repeated[:15, :15] = np.diag([1.0] * 5 + [0.5] * 5 + [0.0] * 5)
    shift = np.zeros((24, 15))
    shift[1:16, :15] = np.eye(15)
    single = np.zeros((24, 15))
    single[3, 4] = 2.0
    columns = rng.standard_normal((24, 15))
    columns[:, 5:] = columns[:, :1]
    return {
        "zero": np.zeros((24, 15)),
        "identity": np.eye(15),
        "rank 3": low,
        "repeated values": repeated,
        "orthogonal": np.linalg.qr(rng.standard_normal((15, 15)))[0],
        "shift": shift,
        "one entry": single,
        "equal columns": columns,
        "rank 14": rng.standard_normal((24, 14)) @ rng.standard_normal((14, 15)),
        "1 x 1": np.array([[3.0]]),
        "2 x 1": np.array([[3.0], [4.0]]),
        "3 x 2": np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]),
    }


@pytest.mark.parametrize("kind", list(breakdown_matrices()))
@pytest.mark.parametrize(("w", "dtype"), [(1, "float64"), (2, "complex64"), (5, "float64")])
@pytest.mark.parametrize("two_sided", [True, False])
def test_breakdown_goes_on_until_exhaustion(
    backend: Any, dtype: str, kind: str, w: int, two_sided: bool, rng: Any
) -> None:
    A = breakdown_matrices()[kind].astype(dtype)
    problem = Problem(backend, A)
    m, n = A.shape
    basis = problem.basis(rng, w, two_sided=two_sided)
    steps = 0
    while not basis.exhausted:
        basis.expand(problem.op)
        problem.check(basis, orthogonal=two_sided)
        steps += 1
        assert steps <= n
    assert basis.size == n
    assert basis.width == 0
    assert basis.full is (n > basis.capacity)
    ritz = basis.ritz()
    s = np.linalg.svd(problem.exact, compute_uv=False)
    if two_sided:
        assert pytest.approx(s, rel=0, abs=problem.tol * problem.norm) == ritz.S
    assert not ritz.residuals.any()
    _, S, _ = basis.extract(n)
    assert pytest.approx(s, rel=0, abs=problem.tol * problem.norm) == S


@pytest.mark.parametrize("w", [1, 2, 5])
def test_a_zero_matrix_for_many_steps(backend: Any, w: int) -> None:
    # Every column is a spare one: none of them may repeat an earlier one.
    problem = Problem(backend, np.zeros((63, 60)))
    basis = problem.basis(np.random.default_rng(0), w)
    while not basis.exhausted:
        basis.expand(problem.op)
    problem.check(basis)


@pytest.mark.parametrize("w", [1, 2, 5])
def test_start_in_the_null_space(backend: Any, dtype: str, w: int, rng: Any) -> None:
    A = rng.standard_normal((30, 20))
    A[:, :6] = 0
    problem = Problem(backend, A.astype(dtype))
    start = np.eye(20, w)
    basis = GolubKahan(problem.op, problem.op.arrays.put(start), capacity=20, rng=rng)
    while not basis.exhausted:
        basis.expand(problem.op)
        problem.check(basis)
    s = np.linalg.svd(problem.exact, compute_uv=False)
    assert pytest.approx(s, rel=0, abs=problem.tol * problem.norm) == basis.ritz().S


@pytest.mark.parametrize("start", ["zero", "dependent", "wide"])
def test_any_start_block(backend: Any, dtype: str, start: str, rng: Any) -> None:
    A = rng.standard_normal((12, 8)).astype(dtype)
    problem = Problem(backend, A)
    block = {
        "zero": np.zeros((8, 3)),
        "dependent": np.outer(np.arange(8.0), [1.0, 2.0, 0.0]),
        "wide": rng.standard_normal((8, 11)),
    }[start]
    basis = GolubKahan(problem.op, problem.op.arrays.put(block), capacity=8, rng=rng)
    assert basis.width == min(block.shape[1], 8)
    problem.check(basis)
    while not basis.exhausted:
        basis.expand(problem.op)
        problem.check(basis)


def test_the_last_block_is_narrower(backend: Any, dtype: str, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((30, 13)).astype(dtype))
    basis = problem.basis(rng, 5)
    widths = []
    while not basis.exhausted:
        widths.append(basis.width)
        basis.expand(problem.op)
    assert widths == [5, 5, 3]
    problem.check(basis)


def test_compress_after_exhaustion_is_exact(backend: Any, dtype: str, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((20, 10)).astype(dtype))
    basis = problem.basis(rng, 3)
    while not basis.exhausted:
        basis.expand(problem.op)
    s = np.linalg.svd(problem.exact, compute_uv=False)
    basis.compress(4)
    assert basis.exhausted or basis.size == 4
    V, _, U = problem.host(basis)
    level = problem.tol * problem.norm
    assert np.linalg.norm(problem.exact @ V - U @ basis.B, 2) <= level
    assert np.linalg.norm(problem.exact.conj().T @ U - V @ basis.B.conj().T, 2) <= level
    assert np.diagonal(basis.B).real == pytest.approx(s[:4], rel=0, abs=level)


# ---- restart ------------------------------------------------------------------------------


@pytest.mark.parametrize("two_sided", [True, False])
def test_compress_keeps_the_leading_ritz_triplets(
    backend: Any, dtype: str, two_sided: bool, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(60, 25, decaying(25), dtype, rng))
    basis = problem.basis(rng, 2, capacity=16, two_sided=two_sided)
    while not basis.full:
        basis.expand(problem.op)
    V, _, _ = problem.host(basis)
    before = np.linalg.svd(problem.exact @ V, compute_uv=False)
    width = basis.width
    basis.compress(7)
    assert basis.size == 7
    assert basis.width == width
    assert pytest.approx(np.diag(before[:7]), rel=0, abs=problem.tol) == basis.B
    assert pytest.approx(before[:7], rel=0, abs=problem.tol) == basis.ritz().S


def test_restart_without_loss_is_lanczos_without_restart(
    backend: Any, rng: Any, spectrum_matrix: Any
) -> None:
    """A thick restart that keeps everything goes on as if nothing had been."""
    A = spectrum_matrix(40, 30, decaying(30), "float64", rng)
    problem = Problem(backend, A)
    straight = problem.basis(np.random.default_rng(1), 1)
    restarted = problem.basis(np.random.default_rng(1), 1)
    for step in range(12):
        straight.expand(problem.op)
        restarted.expand(problem.op)
        if step == 5:
            restarted.compress(6)
    # The spaces are the same in exact arithmetic. Rounding in them grows with the small
    # remainders; six digits of twelve values in one space leave room for it.
    assert pytest.approx(straight.ritz().S, rel=1e-6) == restarted.ritz().S


def test_narrow_drops_at_most_what_it_may(
    backend: Any, dtype: str, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(60, 40, decaying(40), dtype, rng))
    basis = problem.basis(rng, 5, capacity=20)
    while not basis.full:
        basis.expand(problem.op)
    couplings = np.linalg.svd(_compressed_couplings(basis, 8), compute_uv=False)
    # Between the third and the fourth coupling: three are to be left although two are asked for.
    drop = float(np.sqrt(couplings[2] * couplings[3]))
    basis.compress(8, drop=drop, block_size=2)
    assert basis.width == 3
    problem.check(basis, dropped=drop)
    # Exactly what was dropped is missing: the largest one left out.
    V, W, U = problem.host(basis)
    rest = problem.exact.conj().T @ U - V @ basis.B.conj().T - W @ basis.C
    assert np.linalg.norm(rest, 2) == pytest.approx(couplings[3], rel=0.01, abs=problem.tol)
    while not basis.full:
        basis.expand(problem.op)
        problem.check(basis, dropped=drop)


def _compressed_couplings(basis: GolubKahan, keep: int) -> np.ndarray:
    basis.sync()
    P = np.linalg.svd(basis.B)[0][:, :keep]
    return basis.C @ P


@pytest.mark.parametrize(("drop", "block_size"), [(0.0, 2), (1e9, 7), (0.0, None)])
def test_nothing_is_narrowed_without_leave(
    backend: Any, drop: float, block_size: int | None, rng: Any
) -> None:
    problem = Problem(backend, rng.standard_normal((40, 30)))
    basis = problem.basis(rng, 5, capacity=20)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(8, drop=drop, block_size=block_size)
    assert basis.width == 5
    problem.check(basis)


def test_narrow_to_block_size_where_couplings_allow(
    backend: Any, dtype: str, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(40, 30, decaying(30), dtype, rng))
    basis = problem.basis(rng, 5, capacity=20)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(8, drop=10.0, block_size=2)
    assert basis.width == 2


def test_lock_takes_a_leading_run_only(
    backend: Any, dtype: str, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(60, 40, 0.6 ** np.arange(40), dtype, rng))
    basis = problem.basis(rng, 1, capacity=16)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(10)
    couplings = np.linalg.norm(basis.C, axis=0)
    level = float(couplings[:4].max()) * 1.01
    expected = int(np.argmax(couplings > level))
    assert 0 < expected < 10
    basis.lock(level)
    assert basis.locked == expected
    assert not basis.C[:, :expected].any()
    assert basis.C[:, expected:].any()
    dropped = level * expected**0.5
    problem.check(basis, dropped=dropped)
    basis.lock(0.0)  # nothing more
    assert basis.locked == expected
    frozen = [
        problem.backend.to_numpy(side.view(0, expected)).copy() for side in (basis.U, basis.V)
    ]
    for _ in range(2):
        while not basis.full:
            basis.expand(problem.op)
            problem.check(basis, dropped=dropped)
        basis.compress(10)
        problem.check(basis, dropped=dropped)
    for before, side in zip(frozen, (basis.U, basis.V), strict=True):
        assert np.array_equal(before, problem.backend.to_numpy(side.view(0, expected)))
    assert not basis.ritz().residuals[:expected].any()


def test_nothing_to_lock(backend: Any, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((40, 30)))
    basis = problem.basis(rng, 1, capacity=20)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(5)
    basis.lock(0.0)
    assert basis.locked == 0
    problem.check(basis)


def test_everything_locked(backend: Any, dtype: str, rng: Any) -> None:
    """A low-rank matrix: every coupling is zero, the whole basis is locked, and goes on."""
    A = rng.standard_normal((30, 3)) @ rng.standard_normal((3, 20))
    problem = Problem(backend, A.astype(dtype))
    basis = problem.basis(rng, 1, capacity=10)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(3)
    # All of it: a coupling that is zero, or the rounding of one.
    basis.lock(problem.tol * problem.norm)
    assert basis.locked == 3
    while not basis.full:
        basis.expand(problem.op)
        problem.check(basis, dropped=problem.tol * problem.norm)
    basis.compress(5)
    problem.check(basis, dropped=problem.tol * problem.norm)
    s = np.linalg.svd(problem.exact, compute_uv=False)[:5]
    assert pytest.approx(s, rel=0, abs=problem.tol * problem.norm) == basis.ritz().S


# ---- Rayleigh-Ritz ------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("w", [1, 2, 5])
def test_ritz_residuals_are_the_true_ones(
    backend: Any, dtype: str, w: int, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(50, 40, decaying(40), dtype, rng))
    basis = problem.basis(rng, w, capacity=20)
    for _ in range(3):
        while not basis.full:
            basis.expand(problem.op)
        ritz = basis.ritz()
        V, _, U = problem.host(basis)
        P, S, Qh = np.linalg.svd(basis.B)
        left, right = U @ P, V @ Qh.conj().T
        true = np.linalg.norm(problem.exact.conj().T @ left - right * S, axis=0)
        level = problem.tol * problem.norm
        assert np.linalg.norm(problem.exact @ right - left * S, 2) <= level
        assert pytest.approx(S, rel=0, abs=level) == ritz.S
        assert ritz.residuals == pytest.approx(true, rel=0, abs=level)
        assert ritz.scale == ritz.S[0]
        # Ritz values are lower bounds, index by index.
        s = np.linalg.svd(problem.exact, compute_uv=False)
        assert np.all(s[: len(ritz.S)] + level >= ritz.S)
        basis.compress(9)


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.parametrize("steps", [2, 5])
def test_extract_is_the_svd_of_the_projected_matrix(
    backend: Any, dtype: str, w: int, two_sided: bool, steps: int, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(60, 30, decaying(30), dtype, rng))
    basis = problem.basis(rng, w, capacity=9, two_sided=two_sided)
    for _ in range(steps):
        if basis.full:
            basis.compress(5)
        basis.expand(problem.op)
    _, _, U = problem.host(basis)
    Q = np.linalg.qr(U)[0]
    projected = Q @ (Q.conj().T @ problem.exact)
    s = np.linalg.svd(projected, compute_uv=False)
    k = min(4, basis.size)
    left, S, right = basis.extract(k)
    assert backend.owns(left)
    assert backend.owns(right)
    assert left.dtype == right.dtype == backend.dtype(dtype)
    left, right = (backend.to_numpy(X).astype(problem.exact.dtype) for X in (left, right))
    level = problem.tol * problem.norm
    assert S.dtype == np.float64
    assert pytest.approx(s[:k], rel=0, abs=level) == S
    for X in (left, right):
        assert np.abs(X.conj().T @ X - np.eye(k)).max() <= problem.tol
    # Triplets of the projected matrix, and with them of A from the right.
    assert np.linalg.norm(projected.conj().T @ left - right * S, 2) <= level
    assert np.linalg.norm(projected @ right - left * S, 2) <= level
    assert np.linalg.norm(problem.exact.conj().T @ left - right * S, 2) <= level


def test_extract_is_better_than_the_ritz_values(backend: Any, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((60, 30)))
    basis = problem.basis(rng, 1)
    for _ in range(6):
        basis.expand(problem.op)
    _, S, _ = basis.extract(6)
    assert np.all(basis.ritz().S <= S)
    assert basis.ritz().S[0] < S[0]


# ---- wrong operators ------------------------------------------------------------------------


class Pair:
    """Two products that need not belong together."""

    def __init__(self, backend: Any, A: np.ndarray, wrong: np.ndarray, after: int = 0) -> None:
        self.shape, self.xp, self.device = A.shape, backend.xp, backend.device
        self._A, self._right = backend.asarray(A), backend.asarray(A.conj().T)
        self._wrong, self._after = backend.asarray(wrong), after
        self.dtype = self._A.dtype
        self._calls = 0

    def matmat(self, X: Any) -> Any:
        return self._A @ X

    def rmatmat(self, X: Any) -> Any:
        self._calls += 1
        return (self._right if self._calls <= self._after else self._wrong) @ X


@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.parametrize("wrong", ["scaled", "sign", "transpose", "permuted", "noise", "zero"])
def test_a_wrong_adjoint_is_found(backend: Any, wrong: str, w: int, rng: Any) -> None:
    A = rng.standard_normal((20, 12)) + 1j * rng.standard_normal((20, 12))
    AH = A.conj().T
    other = {
        "scaled": 1.01 * AH,
        "sign": -AH,
        "transpose": A.T,
        "permuted": AH[::-1],
        "noise": AH + 1e-2 * rng.standard_normal(AH.shape),
        "zero": 0 * AH,
    }[wrong]
    problem = Problem(backend, A, Pair(backend, A, np.ascontiguousarray(other)))
    basis = problem.basis(rng, w)
    basis.expand(problem.op)
    with pytest.raises(AdjointError, match=r"adjoint disagree.*rmatmat must compute"):
        basis.sync()


def test_a_right_adjoint_passes(backend: Any, dtype: str, rng: Any, spectrum_matrix: Any) -> None:
    A = spectrum_matrix(20, 12, decaying(12), dtype, rng)
    problem = Problem(backend, A, Pair(backend, A, np.ascontiguousarray(A.conj().T)))
    basis = problem.basis(rng, 1)
    while not basis.exhausted:
        basis.expand(problem.op)
        basis.sync()


def test_an_adjoint_that_goes_wrong_later_is_found(backend: Any, rng: Any) -> None:
    A = rng.standard_normal((20, 12))
    problem = Problem(backend, A, Pair(backend, A, 1.1 * np.ascontiguousarray(A.T), after=3))
    basis = problem.basis(rng, 1)
    for _ in range(3):
        basis.expand(problem.op)
        basis.sync()
    basis.expand(problem.op)
    with pytest.raises(AdjointError):
        basis.sync()


@pytest.mark.parametrize("side", ["matmat", "rmatmat"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_nan_in_a_product_raises(backend: Any, side: str, bad: float, w: int, rng: Any) -> None:
    A = rng.standard_normal((20, 12))
    pair = Pair(backend, A, np.ascontiguousarray(A.T))
    product = getattr(pair, side)
    calls = 0

    def spoiled(X: Any) -> Any:
        nonlocal calls
        calls += 1
        return product(X) * (bad if calls == 3 else 1.0)

    setattr(pair, side, spoiled)
    problem = Problem(backend, A, pair)
    basis = problem.basis(rng, w)

    def run() -> None:
        for _ in range(4):
            basis.expand(problem.op)
        basis.ritz()

    with pytest.raises(ValueError, match="NaN or inf"):
        run()


# ---- copy -----------------------------------------------------------------------------------


def _snapshot(problem: Problem, basis: GolubKahan) -> dict[str, Any]:
    basis.sync()
    V, W, U = problem.host(basis)
    parts = {"V": V, "W": W, "U": U, "B": basis.B, "C": basis.C, "S_locked": basis.S_locked}
    numbers = {
        name: getattr(basis, name) for name in ("locked", "capacity", "size", "width", "loss")
    }
    return copy.deepcopy({**parts, **numbers})


def _same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one)


def _go_on(problem: Problem, basis: GolubKahan, *, lock: float = 1e-6) -> None:
    for _ in range(2):
        while not basis.full:
            basis.expand(problem.op)
        basis.compress(basis.capacity // 2, drop=1e-8, block_size=1)
        basis.lock(lock)
    basis.grow(basis.capacity + 4)
    basis.expand(problem.op)
    basis.sync()


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.parametrize("when", ["start", "middle", "full", "compressed"])
def test_a_twin_leaves_the_original_and_goes_the_same_way(
    backend: Any, when: str, w: int, two_sided: bool, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(60, 40, decaying(40), "float64", rng))
    basis = problem.basis(rng, w, capacity=18, two_sided=two_sided)
    if when == "middle":
        basis.expand(problem.op)
        basis.expand(problem.op)
    if when in {"full", "compressed"}:
        while not basis.full:
            basis.expand(problem.op)
    if when == "compressed":
        basis.compress(8)
    twin = basis.copy()
    before = _snapshot(problem, basis)
    assert _same(before, _snapshot(problem, twin))
    _go_on(problem, twin)
    after = _snapshot(problem, twin)
    assert not np.array_equal(before["B"], after["B"])
    assert _same(before, _snapshot(problem, basis))
    _go_on(problem, basis)
    assert _same(after, _snapshot(problem, basis))


def test_locking_a_twin_leaves_the_original(backend: Any, rng: Any, spectrum_matrix: Any) -> None:
    problem = Problem(backend, spectrum_matrix(60, 40, decaying(40), "float64", rng))
    basis = problem.basis(rng, 1, capacity=18)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(8)
    twin = basis.copy()
    before = _snapshot(problem, basis)
    twin.lock(1.0)
    assert twin.locked > 0
    assert _same(before, _snapshot(problem, basis))


def test_breaking_down_in_a_twin_goes_the_same_way(backend: Any, rng: Any) -> None:
    """The spare vectors are copied too, with their place."""
    problem = Problem(backend, np.diag([1.0, 0, 0, 0, 0, 0]))
    basis = problem.basis(rng, 2)
    basis.expand(problem.op)
    twin = basis.copy()
    for each in (twin, basis):
        while not each.exhausted:
            each.expand(problem.op)
    assert _same(_snapshot(problem, twin), _snapshot(problem, basis))


# ---- what it costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("w", [1, 3])
def test_two_products_a_step_and_none_elsewhere(backend: Any, w: int, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((30, 20)))
    basis = problem.basis(rng, w, capacity=12)
    assert problem.op.matvecs == 0
    for _ in range(3):
        basis.expand(problem.op)
    assert (problem.op.matvecs, problem.op.passes) == (6 * w, 6)
    basis.ritz()
    basis.extract(2)
    basis.compress(3)
    basis.lock(0.5)
    basis.copy()
    assert (problem.op.matvecs, problem.op.passes) == (6 * w, 6)


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("w", [1, 3])
def test_a_device_is_not_waited_for_between_restarts(
    w: int, two_sided: bool, rng: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """array_api_strict stands for a device: no value of it is looked at while expanding."""
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    op = Metered(as_operator(strict.asarray(rng.standard_normal((60, 40)), device=device)), None)
    basis = GolubKahan(
        op, op.arrays.gaussian(rng, 40, w), capacity=20, rng=rng, two_sided=two_sided
    )
    looks = []
    array = type(op.arrays.zeros(1, 1))
    for name in ("__bool__", "__float__", "__int__", "__index__", "__complex__", "__array__"):
        monkeypatch.setattr(array, name, lambda *_, name=name, **__: looks.append(name) or 0)
    get = Arrays.get
    transfers = []
    monkeypatch.setattr(Arrays, "get", lambda self, x: transfers.append(x.shape) or get(self, x))
    while not basis.full:
        basis.expand(op)
    assert not looks
    assert not transfers
    monkeypatch.undo()
    monkeypatch.setattr(Arrays, "get", lambda self, x: transfers.append(x.shape) or get(self, x))
    basis.sync()
    assert len(transfers) == 1
    basis.sync()
    assert len(transfers) == 1


def test_tall_arrays_meet_no_factorization(rng: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = pytest.importorskip("array_api_strict")
    op = Metered(as_operator(strict.asarray(rng.standard_normal((60, 40)))), None)
    sizes = []

    def watched(function: Any) -> Any:
        def call(X: Any, *args: Any, **options: Any) -> Any:
            sizes.append(max(X.shape))
            return function(X, *args, **options)

        return call

    for name in ("qr", "svd", "eigh", "cholesky", "inv", "solve", "svdvals", "pinv"):
        monkeypatch.setattr(strict.linalg, name, watched(getattr(strict.linalg, name)))
    basis = GolubKahan(op, op.arrays.gaussian(rng, 40, 3), capacity=20, rng=rng)
    while not basis.full:
        basis.expand(op)
    basis.compress(6)
    basis.extract(3)
    assert sizes
    assert max(sizes) <= 3


def test_no_ritz_values_halfway_through_an_expansion(backend: Any, rng: Any) -> None:
    problem = Problem(backend, rng.standard_normal((9, 7)))
    basis = problem.basis(rng, 2)
    basis.forward(problem.op)
    with pytest.raises(RuntimeError, match="halfway"):
        basis.ritz()
    basis.backward(problem.op)
    assert len(basis.ritz().S) == 2


def _mixed(problem: Problem, basis: GolubKahan, mix: np.ndarray) -> None:
    """Plant a loss of orthogonality in U that keeps the weaker form of the invariant."""
    basis.sync()
    put = problem.op.arrays.put
    back = np.linalg.inv(mix)
    basis.U.overwrite(basis.U.view() @ put(back), 0)
    basis.B, basis.C = mix @ basis.B, basis.C @ back


def test_a_restart_repairs_what_was_lost_towards_locked_columns(
    backend: Any, rng: Any, spectrum_matrix: Any
) -> None:
    A, _, Vh = spectrum_matrix(60, 25, decaying(25), "float64", rng, factors=True)
    problem = Problem(backend, A)
    start = np.hstack([Vh[:2].T, rng.standard_normal((25, 1))])
    basis = GolubKahan(problem.op, backend.asarray(start), rng=rng, capacity=16, two_sided=False)
    while not basis.full:
        basis.expand(problem.op)
    basis.compress(7)
    basis.lock(problem.tol * problem.norm)
    assert basis.locked >= 2
    while not basis.full:
        basis.expand(problem.op)
    mix = np.eye(basis.size)
    a = basis.locked
    mix[:a, a:] = 1e-2 * rng.standard_normal((a, basis.size - a))
    _mixed(problem, basis, mix)
    problem.check(basis, orthogonal=False)
    basis.two_sided = False  # which the constructor does not allow where reads cost a wait
    basis.compress(8)
    problem.check(basis)


def test_what_drifts_in_many_restarts_is_orthonormal_when_it_is_handed_out(
    backend: Any, rng: Any, spectrum_matrix: Any
) -> None:
    problem = Problem(backend, spectrum_matrix(60, 25, decaying(25), "float64", rng))
    basis = problem.basis(rng, 1, capacity=9)
    for _ in range(25):
        while not basis.full:
            basis.expand(problem.op)
        basis.compress(4)
    while not basis.full:
        basis.expand(problem.op)
    drift = np.eye(basis.size) + 1e-9 * rng.standard_normal((basis.size, basis.size))
    for columns in (basis.U, basis.V):
        part = columns.view(0, basis.size) @ problem.op.arrays.put(drift)
        rest = columns.view(basis.size) + 0
        columns.overwrite(part, 0)
        if rest.shape[1]:
            columns.append(rest)
    left, _, right = _extracted(problem, basis, 3)
    for Q in (left, right):
        assert np.abs(Q.conj().T @ Q - np.eye(3)).max() <= problem.tol
