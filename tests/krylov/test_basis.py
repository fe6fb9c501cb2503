"""The invariant ``X = basis H + Q R``, ``Q^H Q = I``, ``basis^H Q = 0``, for any X.

Tolerances: an inner product of unit vectors of length n is off by at most n eps, so that entries
of Q^H Q are good to a small multiple of it. The columns of X are split one by one (all scalings
act on columns), so that the reconstruction is good to n eps relative to each column, not to the
largest. `FACTOR` covers the up to three sweeps, each with a projection and a factorization.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trsvd._arrays.arrays import Arrays
from trsvd._krylov.basis import RandomVectors, orthonormalize

FACTOR = 8
N = 60


@pytest.fixture(autouse=True, params=["LAPACK", "products"])
def small_blocks(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By LAPACK where it may, and as blocks of any size are split."""
    if request.param == "products":
        monkeypatch.setattr("trsvd._krylov.basis._SMALL_BLOCK", 0)


class Case:
    """Host blocks brought to a backend, split there, and brought back."""

    def __init__(self, backend: Any, dtype: str, rng: np.random.Generator) -> None:
        self.backend, self.name, self.rng = backend, dtype, rng
        self.arrays = Arrays.of_dtype(backend.xp, backend.device, backend.dtype(dtype))
        self.eps = float(np.finfo(dtype).eps)

    def random(self, n: int, w: int) -> np.ndarray:
        X = self.rng.standard_normal((n, w))
        return X + 1j * self.rng.standard_normal((n, w)) if self.name[0] == "c" else X

    def basis(self, n: int, j: int) -> np.ndarray:
        """Orthonormal to the rounding of the dtype."""
        return np.linalg.qr(self.random(n, j))[0].astype(self.name)

    def split(
        self, X: np.ndarray, basis: np.ndarray | None = None, floor: float = 0.0, **options: Any
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        arrays, put = self.arrays, self.backend.asarray
        X = X.astype(self.name)
        spare = RandomVectors(arrays, np.random.default_rng(1), *X.shape)
        there = put(X)
        Q, H, R = orthonormalize(
            arrays,
            there,
            None if basis is None else put(basis),
            floor=floor,
            replacements=spare,
            **options,
        )
        for part in (Q, R) if H is None else (Q, H, R):
            assert self.backend.owns(part)
            assert part.dtype == self.backend.dtype(self.name)
        assert np.array_equal(self.backend.to_numpy(there), X, equal_nan=True)  # not written to
        get = self.backend.to_numpy
        return get(Q), None if H is None else get(H), get(R)

    def check(
        self, X: np.ndarray, basis: np.ndarray | None = None, floor: float = 0.0, **options: Any
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Split X and assert the invariant, of the columns that the dtype holds."""
        X = X.astype(self.name)
        Q, H, R = self.split(X, basis, floor, **options)
        n, w = X.shape
        width = options.get("width", w)
        assert Q.shape == (n, width)
        assert R.shape == (width, w)
        tol = FACTOR * n * self.eps
        gram = Q.conj().T @ Q
        assert np.abs(gram - np.eye(width)).max(initial=0) <= tol
        again = Q @ R
        if basis is None:
            assert H is None
        else:
            assert H is not None
            assert H.shape == (basis.shape[1], w)
            assert np.abs(basis.conj().T @ Q).max(initial=0) <= tol
            again = again + basis @ H
        sizes = np.linalg.norm(X, axis=0)
        if width < w:
            sizes[:] = sizes.max()  # narrowing mixes the columns
        error = np.linalg.norm(X - again, axis=0)
        assert np.all(error <= tol * sizes + floor), error
        return Q, H, R


@pytest.fixture(params=["float32", "float64", "complex64", "complex128"])
def case(backend: Any, request: pytest.FixtureRequest, rng: np.random.Generator) -> Case:
    return Case(backend, request.param, rng)


@pytest.mark.parametrize("w", [1, 2, 5, 20])
@pytest.mark.parametrize("j", [None, 1, 7, 40])
def test_random(case: Case, w: int, j: int | None) -> None:
    basis = None if j is None else case.basis(N, j)
    case.check(case.random(N, w), basis)


@pytest.mark.parametrize("distance", [10.0**-e for e in range(4, 19, 2)])
@pytest.mark.parametrize("j", [None, 7])
def test_nearly_dependent_columns(case: Case, distance: float, j: int | None) -> None:
    X = case.random(N, 4)
    X[:, 2] = X[:, 0] + distance * X[:, 2]
    X[:, 3] = X[:, 0] - 2 * X[:, 1] + distance * X[:, 3]
    case.check(X, None if j is None else case.basis(N, j))


@pytest.mark.parametrize("j", [None, 7])
def test_every_distance_at_once(case: Case, j: int | None) -> None:
    X = case.random(N, 16)
    X[:, 1:] = X[:, :1] + X[:, 1:] * 10.0 ** -np.arange(1, 16)
    case.check(X, None if j is None else case.basis(N, j))


@pytest.mark.parametrize("j", [None, 7])
def test_dependent_and_zero_columns_get_zero_coefficients(case: Case, j: int | None) -> None:
    X = case.random(N, 6)
    X[:, 1] = 0
    X[:, 4] = X[:, 0]
    X[:, 5] = -2 * X[:, 3]
    _, _, R = case.check(X, None if j is None else case.basis(N, j))
    assert np.all(R[:, 1] == 0)
    # Rank 3. Each of the three others is zero up to what rounding the sweeps leave.
    s = np.linalg.svd(R, compute_uv=False)
    assert s[2] > 0.1
    assert np.all(s[3:] <= FACTOR * N * case.eps * s[0])


@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.parametrize("j", [None, 7])
def test_a_block_of_zeros(case: Case, w: int, j: int | None) -> None:
    _, H, R = case.check(np.zeros((N, w)), None if j is None else case.basis(N, j))
    assert not R.any()
    assert H is None or not H.any()


def test_columns_inside_of_the_basis(case: Case) -> None:
    basis = case.basis(N, 10)
    X = basis @ case.random(10, 3)
    X = np.hstack([X, case.random(N, 1)])
    # What remains of the first three is rounding: n eps of their length.
    floor = FACTOR * N * case.eps * float(np.linalg.norm(X, axis=0).max())
    _, _, R = case.check(X, basis, floor)
    assert not R[:, :3].any()
    assert np.linalg.norm(R[:, 3]) > 1


def test_columns_inside_of_the_basis_without_a_floor(case: Case) -> None:
    # Rounding noise is then taken for a direction, which is harmless: the invariant holds.
    basis = case.basis(N, 10)
    case.check(basis @ case.random(10, 4), basis)


@pytest.mark.parametrize("j", [None, 9])
@pytest.mark.parametrize("ascending", [False, True])
def test_graded_columns(case: Case, j: int | None, ascending: bool) -> None:
    scales = 10.0 ** -np.arange(0, 13, 2)
    X = case.random(N, len(scales)) * (scales[::-1] if ascending else scales)
    case.check(X, None if j is None else case.basis(N, j))  # relative to each column


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_basis_nearly_full(case: Case, missing: int) -> None:
    basis = case.basis(N, N - missing)
    case.check(case.random(N, missing), basis)
    case.check(np.zeros((N, missing)), basis)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_whole_of_a_small_space(case: Case, n: int) -> None:
    case.check(case.random(n, n))
    case.check(np.zeros((n, n)))
    case.check(np.ones((n, n)))
    if n > 1:
        case.check(np.ones((n, 1)), case.basis(n, n - 1))


def test_a_wide_block(case: Case) -> None:
    X = case.random(200, 150)
    X[:, 100:] = X[:, :50]
    case.check(X, case.basis(200, 50))


@pytest.mark.parametrize("j", [None, 10])
def test_width_keeps_the_dominant_directions(case: Case, j: int | None) -> None:
    # Unit columns near a space of dimension 3: what is left out is of the size of the distance.
    basis = None if j is None else case.basis(N, j)
    space = case.random(N, 3)
    if basis is not None:
        space = space - basis @ (basis.conj().T @ space)
    distance = 1e-2
    X = np.linalg.qr(space)[0] @ case.random(3, 8)
    X = X / np.linalg.norm(X, axis=0)
    noise = case.random(N, 8)
    X = (X + distance * noise / np.linalg.norm(noise, axis=0)).astype(case.name)
    Q, H, R = case.split(X, basis, width=3)
    assert Q.shape == (N, 3)
    assert R.shape == (3, 8)
    tol = FACTOR * N * case.eps
    assert np.abs(Q.conj().T @ Q - np.eye(3)).max() <= tol
    rest = X if basis is None else X - basis @ (basis.conj().T @ X)
    if basis is not None:
        assert np.abs(basis.conj().T @ Q).max() <= tol
        assert np.abs(H - basis.conj().T @ X).max() <= tol
    # The columns have one length (to the distance), so that nothing is better than an SVD.
    best = float(np.sqrt(np.sum(np.linalg.svd(rest, compute_uv=False)[3:] ** 2)))
    assert np.linalg.norm(rest - Q @ R) <= (1 + distance) * best + tol


@pytest.mark.parametrize("w", [2, 4, 6])
def test_width_of_the_room_that_is_left(case: Case, w: int) -> None:
    room = max(1, w // 2)
    basis = case.basis(N, N - room)
    case.check(case.random(N, w), basis, width=room)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_width_prefers_directions_of_x_to_spare_ones(case: Case, order: list[int]) -> None:
    # Two columns inside of the basis, two that span what it leaves: nothing has to be dropped.
    basis = case.basis(N, N - 2)
    X = np.hstack([basis @ case.random(N - 2, 2), case.random(N, 2)])[:, order]
    floor = FACTOR * N * case.eps * float(np.linalg.norm(X, axis=0).max())
    case.check(X, basis, floor, width=2)


def test_width_with_zero_columns(case: Case) -> None:
    X = case.random(N, 4)
    X[:, [0, 2]] = 0
    case.check(X, width=2)


def test_floor_is_absolute_and_takes_an_array(case: Case) -> None:
    X = case.random(N, 3)
    X = X / np.linalg.norm(X, axis=0) * np.array([1.0, 1e-3, 1e-2])
    floor = case.arrays.column_norms(case.arrays.put(np.array([[5e-3]])))[0]
    Q, _, R = case.split(X, floor=floor)
    assert not R[:, 1].any()
    assert np.abs(Q.conj().T @ Q - np.eye(3)).max() <= FACTOR * N * case.eps
    assert np.linalg.norm(R[:, 2]) == pytest.approx(1e-2, rel=N * case.eps)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("w", [1, 3])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_not_finite_input_ends_and_shows(case: Case, bad: float, w: int) -> None:
    X = case.random(N, w)
    X[3, 0] = bad
    for basis in (None, case.basis(N, 4)):
        _, H, R = case.split(X, basis)
        assert not np.isfinite(R).all() or not np.isfinite(H).all()


def test_spare_vectors_are_unit_and_new_each_time(case: Case) -> None:
    arrays = case.arrays
    spare = RandomVectors(arrays, np.random.default_rng(3), N, 3)
    blocks = [case.backend.to_numpy(spare(width)) for width in (1, 3, 2, 3, 3)]
    together = np.hstack(blocks)
    assert np.allclose(np.linalg.norm(together, axis=0), 1, rtol=0, atol=N * case.eps)
    assert np.linalg.matrix_rank(together, tol=1e-2) == together.shape[1]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_spare_vectors_do_not_repeat_themselves_in_a_long_run(
    numpy_backend: Any, width: int
) -> None:
    arrays = Arrays.of_dtype(numpy_backend.xp, numpy_backend.device, "float64")
    n = 500
    spare = RandomVectors(arrays, np.random.default_rng(3), n, width)
    together = np.hstack([spare(width) for _ in range(100 // width)])
    gram = np.abs(together.T @ together - np.eye(together.shape[1]))
    # Random unit vectors of length n: inner products of 6 standard deviations 1 / sqrt(n) have a
    # probability of 1e-5 in all, and a repetition has 1.
    assert gram.max() < 6 / n**0.5
