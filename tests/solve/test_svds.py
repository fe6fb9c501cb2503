from __future__ import annotations

import contextlib
import itertools
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from checks import (
    ITERATIVE,
    METHODS,
    CountingOperator,
    assert_right,
    default_tol,
    eps_of,
    exact_values,
    host,
    orthonormality,
    orthonormality_bound,
    residuals,
    value_bound,
)

import trsvd
from trsvd import ConvergenceWarning, NotConverged, Status, svds


def matrix(m, n, dtype="float64", seed=0, decay=0.8):
    """A random matrix whose values fall by a fifth each: every method converges on it."""
    rng = np.random.default_rng(seed)
    s = decay ** np.arange(min(m, n))
    X, Y = rng.standard_normal((m, len(s))), rng.standard_normal((n, len(s)))
    if np.dtype(dtype).kind == "c":
        X, Y = X + 1j * rng.standard_normal(X.shape), Y + 1j * rng.standard_normal(Y.shape)
    return ((np.linalg.qr(X)[0] * s) @ np.linalg.qr(Y)[0].conj().T).astype(dtype)


def unconverged(*args, **kwargs):
    """`svds` where it must warn and return."""
    with pytest.warns(ConvergenceWarning) as record:
        result = svds(*args, **kwargs)
    assert len(record) == 1
    assert record[0].filename == __file__, "the warning points at the caller"
    assert not result.converged
    assert result.status.value in str(record[0].message)
    return result


@contextlib.contextmanager
def may_warn():
    """Where it depends on the method whether it converges; the test looks at the status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


# ---- every kind of input --------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_arrays_come_back_in_their_namespace_dtype_and_device(backend, dtype, shape):
    A = matrix(*shape, dtype)
    result = svds(backend.asarray(A), 4, method="trlan", rng=0)
    U, S, Vh = result
    assert all(backend.owns(part) for part in result)
    assert U.dtype == Vh.dtype == backend.dtype(dtype)
    assert S.dtype == backend.dtype(
        dtype.replace("complex64", "float32").replace("complex128", "float64")
    )
    assert_right(A, result, 4, to_numpy=backend.to_numpy)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_lapack_on_every_backend(backend, method):
    s = 0.8 ** np.arange(30)
    for dtype, shape in [("float64", (40, 30)), ("complex64", (30, 40))]:
        A = matrix(*shape, dtype)
        k, tol = 5, default_tol(dtype)
        result = svds(backend.asarray(A), k, method=METHODS[method], rng=0)
        assert_right(A, result, k, to_numpy=backend.to_numpy)
        # Wedin: the angle of a vector is at most its residual (sqrt(2) for both sides, and what
        # rounding adds) over the gap to the rest of the spectrum.
        U, _, Vh = host(result, backend.to_numpy)
        P, _, Qh = np.linalg.svd(A.astype(np.promote_types(A.dtype, np.float64)))
        gap = s[k - 1] - s[k]
        angle = (2**0.5 * tol + max(shape) * eps_of(dtype)) / gap
        for X, Y in [(U, P), (Vh.conj().T, Qh.conj().T)]:
            cosines = np.abs(np.einsum("ij,ij->j", X.conj(), Y[:, :k]))
            assert np.all(1 - cosines <= angle**2 + 10 * max(shape) * eps_of(dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_computes_in_float32_and_comes_back_as_half(dtype):
    torch = pytest.importorskip("torch")
    A = torch.asarray(matrix(40, 30)).to(getattr(torch, dtype))
    exact = A.to(torch.float64).numpy()
    U, S, Vh = result = svds(A, 4, rng=0)
    assert U.dtype == S.dtype == Vh.dtype == A.dtype
    assert result.converged
    assert result.residuals.max() <= default_tol("float32")
    # Rounded once on the way out: by half a unit in the last place.
    unit = float(torch.finfo(A.dtype).eps)
    s = exact_values(exact)[:4]
    bound = value_bound(4, default_tol("float32"), A.shape, np.float32) * s[0]
    assert np.all(np.abs(S.to(torch.float64).numpy() - s) <= unit * s + bound)
    back = (U.to(torch.float64) * S.to(torch.float64)) @ Vh.to(torch.float64)
    full = np.linalg.svd(exact)
    best = (full[0][:, :4] * full[1][:4]) @ full[2][:4]
    assert np.linalg.norm(back.numpy() - best) <= 4 * 3 * unit * s[0]


def test_numpy_float16():
    A = matrix(40, 30).astype(np.float16)
    U, S, Vh = svds(A, 3)
    assert U.dtype == S.dtype == Vh.dtype == np.float16
    s = exact_values(A)[:3]
    assert np.all(np.abs(S - s) <= 2e-3 * s[0])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool"])
def test_integers_and_bool_compute_in_float64(backend, dtype):
    rng = np.random.default_rng(0)
    A = rng.integers(0, 2 if dtype == "bool" else 9, (30, 20)).astype(dtype)
    result = svds(backend.asarray(A), 3, method="trlan", rng=0)
    assert result.U.dtype == result.S.dtype == backend.dtype("float64")
    assert_right(A.astype(np.float64), result, 3, to_numpy=backend.to_numpy)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_sparse(form, kind):
    rng = np.random.default_rng(0)
    D = matrix(40, 30) * (rng.random((40, 30)) < 0.3)
    A = getattr(scipy.sparse, f"{form}_{kind}")(D)
    result = svds(A, 4, rng=0)
    assert type(result.U) is type(result.S) is type(result.Vh) is np.ndarray
    assert_right(D, result, 4)
    assert_right(D.T, svds(A.T, 4, method="trlan", rng=0), 4)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128", "int32", "bool"])
@pytest.mark.parametrize("method", ["trlan", "rsvd", "direct"])
def test_sparse_dtypes(dtype, method):
    rng = np.random.default_rng(0)
    D = (10 * matrix(40, 30, "complex128" if dtype.startswith("c") else "float64")).astype(dtype)
    D = D * (rng.random((40, 30)) < 0.4)
    result = svds(scipy.sparse.coo_array(D), 3, method=method, rng=0)
    computed = np.dtype("float64") if np.dtype(dtype).kind in "ib" else np.dtype(dtype)
    assert result.U.dtype == computed
    assert_right(D.astype(computed), result, 3)


def test_sparse_with_duplicates_and_stored_zeros():
    data, i, j = [1.0, 2.0, 0.0, 4.0, -1.0], [0, 0, 1, 2, 2], [0, 0, 1, 2, 2]
    A = scipy.sparse.coo_array((data, (i, j)), shape=(4, 5))
    before = A.copy()
    U, S, Vh = svds(A, 3)
    assert np.allclose(S, [3, 3, 0], rtol=0, atol=1e-14)
    assert np.array_equal(A.data, before.data), "duplicates are summed in a copy"


def test_sparse_without_entries():
    U, S, Vh = svds(scipy.sparse.csr_array((70, 80)), 2, method="trlan")
    assert np.array_equal(S, [0, 0])
    assert orthonormality(U) <= orthonormality_bound((70, 80), np.float64)


def test_scipy_linear_operator():
    A = matrix(40, 30, "complex128")
    operator = scipy.sparse.linalg.aslinearoperator(A)
    for method in ("trlan", "krylov", "direct"):
        assert_right(A, svds(operator, 4, method=method, rng=0), 4)


def test_linear_operator_without_adjoint():
    A = matrix(40, 30)
    operator = scipy.sparse.linalg.LinearOperator(A.shape, matvec=lambda x: A @ x, dtype=A.dtype)
    with pytest.raises(TypeError, match="rmatmat"):
        svds(operator, 4)


class MatvecOnly:
    """The least that a matrix may be."""

    def __init__(self, A, flat=True):
        self.A, self.shape, self.dtype, self.flat = A, A.shape, A.dtype, flat

    def matvec(self, x):
        y = self.A @ x.reshape(-1)
        return y if self.flat else y[:, None]

    def rmatvec(self, x):
        y = self.A.conj().T @ x.reshape(-1)
        return y if self.flat else y[:, None]


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_matvec_and_rmatvec_are_enough(method, flat):
    A = matrix(40, 30, "complex128")
    assert_right(A, svds(MatvecOnly(A, flat), 4, method=METHODS[method], rng=0), 4)


def test_operator_on_torch_tensors():
    torch = pytest.importorskip("torch")
    A = matrix(40, 30, "float32")

    class Operator:
        shape, dtype = A.shape, torch.float32
        T = torch.asarray(A)

        def matmat(self, X):
            return self.T @ X

        def rmatmat(self, X):
            return self.T.mT @ X

    result = svds(Operator(), 4, rng=0)
    assert isinstance(result.U, torch.Tensor)
    assert_right(A, result, 4, to_numpy=lambda x: x.numpy())


@pytest.mark.parametrize("shape", [(30, 20), (3, 30, 20)], ids=["matrix", "batch"])
def test_tensors_without_entries_are_refused(shape):
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="'meta' have a shape and no entries"):
        svds(torch.empty(shape, device="meta"), 2)


def test_tensors_that_require_grad_are_detached():
    torch = pytest.importorskip("torch")
    A = torch.asarray(matrix(40, 30)).requires_grad_()
    assert not any(part.requires_grad for part in svds(A, 2, method="trlan"))
    assert not any(part.requires_grad for part in svds(A, 2, method="direct"))
    # A conjugated view is lazy in torch.
    C = torch.asarray(matrix(40, 30, "complex128"))
    assert_right(C.conj().resolve_conj().numpy(), svds(C.conj(), 3), 3)


SHAPES = [(1, 1), (1, 7), (7, 1), (2, 50), (50, 2), (9, 12), (12, 9), (10, 10)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_k_from_one_to_all(shape, method):
    A = matrix(*shape)
    for k in range(1, min(shape) + 1):
        assert_right(A, svds(A, k, method=METHODS[method], rng=0), k)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (12, 9), (9, 12)], ids=str)
def test_every_k_on_every_backend(backend, shape):
    A = matrix(*shape, "complex128")
    for k, method in itertools.product(range(1, min(shape) + 1), ("trlan", "rsvd", "direct")):
        result = svds(backend.asarray(A), k, method=method, rng=0)
        assert_right(A, result, k, to_numpy=backend.to_numpy)


def layouts(A):
    big = np.zeros((2 * A.shape[0], 3 * A.shape[1]), A.dtype)
    big[::2, ::3] = A
    yield "F", np.asfortranarray(A)
    yield "strided", big[::2, ::3]
    yield "reversed", np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1]
    yield "unaligned", np.frombuffer(b"x" + A.tobytes(), A.dtype, offset=1).reshape(A.shape)
    yield "big-endian", A.astype(A.dtype.newbyteorder(">"))
    yield "read-only", A


@pytest.mark.parametrize("method", ["trlan", "rsvd", "krylov", "power", "direct"])
def test_memory_layout_does_not_matter_and_nothing_is_written(method):
    A = matrix(40, 30)
    A.flags.writeable = False
    for name, B in layouts(A):
        B = B.view()
        B.flags.writeable = False
        start = np.random.default_rng(0).standard_normal((30, 4))
        start.flags.writeable = False
        before = B.tobytes(), start.tobytes()
        result = svds(B, 4, method=method, rng=0, start=start)
        assert (B.tobytes(), start.tobytes()) == before, name
        assert_right(A, result, 4)


def test_input_is_not_written_to_on_any_backend(backend):
    A, X = matrix(40, 30), np.random.default_rng(0).standard_normal((30, 4))
    for method in ("trlan", "rsvd", "krylov", "power", "direct"):
        B, start = backend.asarray(A), backend.asarray(X)
        first = svds(B, 4, method=method, rng=0, start=start)
        kept = host(first, backend.to_numpy)
        kept = [part.copy() for part in kept]
        svds(B, 6, rng=0, state=first.state)
        svds(B, 4, rng=0, method=method, start=first)
        assert np.array_equal(backend.to_numpy(B), A)
        assert np.array_equal(backend.to_numpy(start), X)
        for part, copy in zip(host(first, backend.to_numpy), kept, strict=True):
            assert np.array_equal(part, copy), "a result does not change afterwards"


def test_results_do_not_alias_the_input():
    A = np.eye(6)
    U, S, Vh = svds(A, 6)
    before = U.copy()
    A *= 2
    assert np.array_equal(U, before)


# ---- the result --------------------


def test_unpacking_and_fields():
    A = matrix(40, 30)
    result = svds(A, 3, method="trlan", rng=0)
    U, S, Vh = result
    assert U is result.U is result[0]
    assert S is result.S is result[1]
    assert Vh is result.Vh is result[2]
    assert len(result) == 3
    assert type(result.converged) is bool
    assert isinstance(result.status, Status)
    assert result.method == trsvd.ThickRestartLanczos()
    assert all(
        type(n) is int
        for n in (result.matvecs, result.matvecs_verify, result.passes, result.iterations)
    )
    assert "CONVERGED" in repr(result)
    assert result.completeness.kind in {"exact", "norm", "random start", "probable"}
    with pytest.raises(AttributeError):
        result.S = None


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("shape", [(40, 30), (30, 40)])
def test_phases_follow_the_convention(backend, dtype, shape):
    A = matrix(*shape, dtype)
    for method in ("trlan", "rsvd", "direct"):
        U = backend.to_numpy(svds(backend.asarray(A), 5, method=method, rng=0).U)
        lead = U[np.abs(U).argmax(axis=0), np.arange(5)]
        assert np.all(lead.real > 0)
        assert np.abs(lead.imag).max() <= eps_of(dtype)


@pytest.mark.parametrize("method", METHODS)
def test_residuals_are_those_of_the_triplets_also_when_not_converged(method):
    """`assert_right` compares them for converged runs."""
    A = matrix(60, 50, decay=0.97)
    if method.startswith("direct"):
        result = unconverged(A, 5, method=METHODS[method], tol=0)
    else:
        result = unconverged(A, 5, method=METHODS[method], rng=0, max_matvecs=36)
        assert result.residuals.max() > 1e-6
    measured = residuals(A, *result)
    assert np.abs(measured - result.residuals).max() <= 2 * sum(A.shape) * eps_of(A.dtype)
    for Q in (result.U, result.Vh.conj().T):
        assert orthonormality(Q) <= orthonormality_bound(A.shape, A.dtype)


# ---- products, counted --------------------


@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
@pytest.mark.parametrize(
    ("method", "count"),  # for k = 4
    [
        (trsvd.RandomizedSVD(oversampling=0, power_iterations=0), 4 * 2),
        (trsvd.RandomizedSVD(power_iterations=0), 14 * 2),
        (trsvd.RandomizedSVD(oversampling=5, power_iterations=1), 9 * 2 * 2),
        (trsvd.RandomizedSVD(oversampling=10, power_iterations=3), 14 * 2 * 4),
        (trsvd.PowerIteration(iterations=0), 4),
        (trsvd.PowerIteration(iterations=1), 4 * 3),
        (trsvd.PowerIteration(iterations=7), 4 * 15),
        (trsvd.BlockKrylov(oversampling=0, iterations=0), 2 * 4),
        (trsvd.BlockKrylov(iterations=0), 2 * 14),
        (trsvd.BlockKrylov(oversampling=5, iterations=1), 2 * 9 * 2),
        (trsvd.BlockKrylov(oversampling=3, iterations=4), 2 * 7 * 5),
    ],
    ids=str,
)
def test_counts_follow_the_papers_rule(method, count, shape):
    operator = CountingOperator(matrix(*shape, decay=0.97))
    result = unconverged(operator, 4, method=method, rng=0)
    assert result.matvecs == count
    assert result.status is Status.MAX_ITERATIONS
    assert result.matvecs + result.matvecs_verify == operator.seen


@pytest.mark.parametrize("block_size", [1, 2, 5])
@pytest.mark.parametrize("shape", [(80, 70), (70, 80)])
def test_lanczos_makes_two_blocks_of_products_an_iteration(block_size, shape):
    operator = CountingOperator(matrix(*shape, decay=0.95))
    result = svds(operator, 4, method=trsvd.ThickRestartLanczos(block_size=block_size), rng=0)
    assert result.matvecs == 2 * block_size * result.iterations
    assert result.passes == 2 * result.iterations
    assert result.matvecs + result.matvecs_verify == operator.seen


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
@pytest.mark.parametrize("verify", [True, False])
def test_no_product_is_hidden(method, shape, verify):
    operator = CountingOperator(matrix(*shape))
    result = svds(operator, 3, method=METHODS[method], rng=0, verify=verify)
    assert result.matvecs + result.matvecs_verify == operator.seen
    assert result.passes <= operator.calls
    # The adjoint check (2) and the residuals (2 k) are always made; where the triplets end with a
    # product (Lanczos on the Gram operator), one side of the residuals is known.
    assert result.matvecs_verify >= 2 + (3 if method == "trlan-gram" else 2 * 3)


@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
@pytest.mark.parametrize("route", ["svd", "gram", "auto"])
def test_direct_counts_min_m_n(shape, route):
    operator = CountingOperator(matrix(*shape))
    result = svds(operator, 3, method=trsvd.Direct(route=route))
    assert result.matvecs == 50
    assert result.matvecs + result.matvecs_verify == operator.seen
    assert svds(matrix(*shape), 3, method=trsvd.Direct(route=route)).matvecs == 50


def tenfold():
    """What the check for missed values has to repair: s = 1 tenfold, then 0.5."""
    rng = np.random.default_rng(0)
    s = np.r_[np.ones(10), np.full(30, 0.5)]
    U, V = (np.linalg.qr(rng.standard_normal((40, 40)))[0] for _ in range(2))
    return (U * s) @ V.T


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "A",
    [matrix(36, 30, decay=0.7), matrix(30, 36, decay=0.7), tenfold()],
    ids=["tall", "wide", "tenfold"],
)
def test_max_matvecs_is_a_hard_cap_at_every_value(method, A):
    k = 3
    operator = CountingOperator(A)
    full = svds(operator, k, method=METHODS[method], rng=0)
    possible = False
    # Every value up to three steps of the widest, then some, and all of the last.
    caps = [
        *range(1, 80),
        *range(80, full.matvecs - 9, 61),
        *range(full.matvecs - 9, full.matvecs + 1),
    ]
    for cap in sorted({cap for cap in caps if 1 <= cap <= full.matvecs}):
        operator = CountingOperator(A)
        try:
            with may_warn():
                result = svds(operator, k, method=METHODS[method], rng=0, max_matvecs=cap)
        except ValueError as error:
            assert "max_matvecs" in str(error)  # noqa: PT017
            assert not possible, "a larger cap cannot be too small where a smaller one was not"
            assert operator.seen <= cap + 8  # those that check the operator
            continue
        possible = True
        assert result.matvecs <= cap
        assert operator.seen == result.matvecs + result.matvecs_verify
        if not result.converged:
            assert result.status in {Status.MAX_MATVECS, Status.INCOMPLETE}
        else:
            s = exact_values(A)[:k]
            assert np.abs(result.S - s).max() <= value_bound(
                k, default_tol("float64"), A.shape, A.dtype
            )
    assert possible
    assert result.converged, "the count of the converged run suffices"
    assert np.array_equal(result.S, full.S)


def test_start_of_a_wide_matrix_counts_towards_the_cap():
    A = CountingOperator(matrix(30, 40))
    start = np.random.default_rng(0).standard_normal((40, 12))
    for cap in (8, 13, 20, 30):
        try:
            with may_warn():
                result = svds(A, 2, method="trlan", start=start, max_matvecs=cap, rng=0)
        except ValueError as error:
            assert "max_matvecs" in str(error)  # noqa: PT017
            continue
        assert result.matvecs <= cap


def test_the_cap_counts_this_call_only():
    A = matrix(60, 50, decay=0.97)
    first = unconverged(A, 3, method="trlan", rng=0, max_matvecs=20)
    second = unconverged(A, 3, state=first.state, max_matvecs=10)
    assert second.matvecs <= 10
    assert second.residuals.max() < first.residuals.max()


@pytest.mark.parametrize("method", ["trlan", "rsvd", "krylov", "power", "direct"])
def test_too_small_a_cap_says_how_much_is_needed(method):
    with pytest.raises(ValueError, match=r"max_matvecs=1 is too small.*\d+ products"):
        svds(matrix(40, 30), 4, method=method, max_matvecs=1)


# ---- callback, failure, tolerance --------------------


@pytest.mark.parametrize("method", METHODS)
def test_callback_sees_every_iteration(method):
    A = matrix(40, 30)
    seen = []

    def callback(info):
        U, S, Vh = info.triplets()
        assert (U.shape, S.shape, Vh.shape) == ((40, 3), (3,), (3, 30))
        seen.append((info.iteration, info.matvecs, info.passes, S))

    result = svds(A, 3, method=METHODS[method], rng=0, callback=callback)
    assert_right(A, result, 3)
    iterations = [entry[0] for entry in seen]
    # From the first iteration that has k triplets to the last, without a gap.
    # (Golub-Kahan Lanczos calls after each of the two products of an iteration.)
    assert sorted(set(iterations)) == list(range(iterations[0], result.iterations + 1))
    assert iterations == sorted(iterations)
    assert iterations[0] <= 3
    # What stores no left basis makes one more product for the left vectors.
    last = 3 if method == "trlan-gram" else 0
    assert seen[-1][1] == result.matvecs - last
    assert seen[-1][2] == result.passes - bool(last)
    assert np.all(np.diff([entry[1] for entry in seen]) > 0)
    # What the callback saw last is what came back; Ritz values from one side differ to second
    # order in the residual.
    assert np.abs(seen[-1][3] - result.S).max() <= default_tol("float64")
    # A callback that looks changes nothing.
    assert np.array_equal(svds(A, 3, method=METHODS[method], rng=0).S, result.S)


@pytest.mark.parametrize("method", ITERATIVE)
def test_callback_stops_with_true(method):
    A = matrix(60, 50, decay=0.97)
    calls = []

    def callback(info):
        calls.append(info.iteration)
        return len(calls) == 2

    result = unconverged(A, 3, method=METHODS[method], rng=0, callback=callback)
    assert result.status is Status.CALLBACK
    assert len(calls) == 2
    assert result.iterations == calls[-1]


def test_callback_stop_raises_if_asked():
    with pytest.raises(NotConverged) as error:
        svds(matrix(60, 50), 3, method="trlan", callback=lambda _: True, on_failure="raise")
    assert error.value.result.status is Status.CALLBACK


class Boom(Exception):
    pass


def test_what_a_callback_raises_comes_through():
    def callback(info):
        raise Boom

    with pytest.raises(Boom):
        svds(matrix(60, 50), 3, method="trlan", callback=callback)


@pytest.mark.parametrize("true", [True, np.True_, np.array(True)])
def test_a_callback_stops_with_any_truth_value(true):
    """A comparison of arrays is one of NumPy's, not Python's own."""
    result = unconverged(matrix(40, 30), 3, method="trlan", callback=lambda info: true)
    assert result.status is Status.CALLBACK


def test_a_callback_that_returns_something_else_does_not_stop():
    A = matrix(40, 30)
    assert_right(A, svds(A, 3, method="trlan", callback=lambda info: "go on"), 3)


def test_on_failure():
    A = matrix(60, 50, decay=0.97)
    with pytest.raises(NotConverged) as error:
        svds(A, 3, method="trlan", max_matvecs=20, on_failure="raise", rng=0)
    result = error.value.result
    returned = unconverged(A, 3, method="trlan", max_matvecs=20, rng=0)
    assert np.array_equal(result.S, returned.S)
    assert result.status is Status.MAX_MATVECS
    assert Status.MAX_MATVECS.value in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))
    assert str(again) == str(error.value)
    assert np.array_equal(again.result.S, result.S)
    # Nothing is raised, and no warning made, where it converges.
    assert svds(matrix(40, 30), 3, on_failure="raise").converged


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_default_tolerance_is_reached(method, dtype, decay):
    A = matrix(50, 40, dtype, decay=decay)
    assert_right(A, svds(A, 4, method=METHODS[method], rng=0), 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [0.0, 1e-3])
def test_below_the_rounding_floor_ends_with_a_status(method, dtype, share):
    A = matrix(50, 40, dtype)
    eps = eps_of(dtype)
    result = unconverged(A, 4, method=METHODS[method], tol=share * eps, rng=0)
    assert result.status in {Status.ROUNDING_FLOOR, Status.STAGNATED}
    # At the floor: products with A round at max(m, n) eps.
    assert result.residuals.max() <= 10 * 50 * eps
    s = exact_values(A)[:4]
    assert np.abs(result.S - s).max() <= value_bound(4, 10 * 50 * eps, A.shape, dtype)


def test_a_zero_matrix_meets_tolerance_zero():
    assert svds(np.zeros((50, 40)), 3, method="trlan", tol=0).converged


@pytest.mark.parametrize("method", ITERATIVE)
def test_loose_tolerance_costs_less_and_is_kept(method):
    A = matrix(60, 50, decay=0.9)
    counts = []
    for tol in (1e-1, 1e-4, 1e-10):
        result = svds(A, 4, method=METHODS[method], tol=tol, rng=0)
        assert residuals(A, *result).max() <= tol * (1 + 1e-6)
        counts.append(result.matvecs)
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


# ---- going on with the same matrix --------------------


@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
def test_resuming_gives_what_one_run_gives(method, shape):
    A = matrix(*shape, decay=0.9)
    one = svds(A, 4, method=METHODS[method], rng=0)
    first = unconverged(A, 4, method=METHODS[method], rng=0, max_matvecs=one.matvecs // 2)
    second = svds(A, 4, state=first.state)
    assert_right(A, second, 4)
    assert second.iterations >= first.iterations
    # A Lanczos run looks at its residuals when they may have arrived, as far as it can tell from
    # those it saw, and one that is cut short looks once more; the others look after every step.
    # (Where steps are compiled and cheaper than a look, up to eight are made between two.)
    spent = first.matvecs + second.matvecs
    assert spent <= one.matvecs + (4 + 2 * 8 if method == "trlan-gram" else 0)
    assert spent == one.matvecs or method.startswith("trlan")
    assert np.abs(second.S - one.S).max() <= value_bound(4, default_tol("float64"), shape, A.dtype)


@pytest.mark.parametrize("method", METHODS)
def test_resuming_does_not_change_the_state(method):
    A = matrix(60, 50, decay=0.9)
    first = svds(A, 3, method=METHODS[method], rng=0, tol=1e-4)
    runs = [svds(A, 3, state=first.state, tol=1e-9, rng=1) for _ in range(2)]
    runs.append(svds(A, 3, state=first, tol=1e-9, rng=1))
    for run in runs[1:]:
        for part, other in zip(run, runs[0], strict=True):
            assert np.array_equal(part, other)
    assert np.array_equal(svds(A, 3, state=first.state, tol=1e-4).S, first.S)


@pytest.mark.parametrize("method", METHODS)
def test_more_triplets_and_a_tighter_tolerance(method):
    A = matrix(60, 50, decay=0.9)
    first = svds(A, 3, method=METHODS[method], rng=0, tol=1e-6)
    assert_right(A, svds(A, 9, state=first.state), 9)
    assert_right(A, svds(A, 50, state=first.state), 50)
    tight = svds(A, 3, state=first.state, tol=1e-12)
    assert_right(A, tight, 3, tol=1e-12)
    cold = svds(A, 3, method=METHODS[method], rng=0, tol=1e-12)
    assert tight.matvecs < cold.matvecs or method.startswith("direct")


@pytest.mark.parametrize("method", METHODS)
def test_what_is_there_already_costs_nothing(method):
    A = matrix(60, 50)
    first = svds(A, 6, method=METHODS[method], rng=0)
    again = svds(A, 6, state=first.state)
    fewer = svds(A, 2, state=first.state)
    if method == "trlan-gram":  # its left vectors are k products with A
        assert (again.matvecs, fewer.matvecs) == (6, 2)
    else:
        assert again.matvecs == fewer.matvecs == 0
    assert np.allclose(again.S, first.S, rtol=1e-14)
    assert_right(A, fewer, 2)


def test_a_chain_of_resumes_on_every_backend(backend):
    A = matrix(60, 50, "complex128", decay=0.9)
    B = backend.asarray(A)
    result = svds(B, 1, method="trlan", rng=0)
    for k in (2, 5, 11):
        result = svds(B, k, state=result.state)
        assert_right(A, result, k, to_numpy=backend.to_numpy)


def test_a_pickled_state_goes_on():
    A = matrix(60, 50, decay=0.97)
    first = unconverged(A, 3, method="trlan", rng=0, max_matvecs=20)
    state = pickle.loads(pickle.dumps(first.state))
    assert np.array_equal(svds(A, 3, state=state, rng=1).S, svds(A, 3, state=first.state, rng=1).S)


def test_states_that_do_not_fit():
    A = matrix(40, 30)
    state = svds(A, 3, method="trlan").state
    with pytest.raises(ValueError, match=r"shape \(40, 30\)"):
        svds(A[:, :20], 3, state=state)
    with pytest.raises(ValueError, match="float32"):
        svds(A.astype(np.float32), 3, state=state)
    with pytest.raises(ValueError, match="cannot continue"):
        svds(A, 3, state=state, method="rsvd")
    with pytest.raises(ValueError, match="cannot continue"):
        svds(A, 3, state=state, method=trsvd.ThickRestartLanczos(block_size=2))
    assert svds(A, 3, state=state, method="trlan").converged
    with pytest.raises(TypeError, match="result.state"):
        svds(A, 3, state="state")
    with pytest.raises(ValueError, match="start and state"):
        svds(A, 3, state=state, start=np.ones((30, 1)))


def test_a_state_of_another_library_is_refused():
    torch = pytest.importorskip("torch")
    A = matrix(40, 30)
    state = svds(A, 3, method="trlan", rng=0).state
    with pytest.raises((ValueError, TypeError), match="state"):
        svds(torch.asarray(A), 5, state=state)


def test_a_state_survives_a_missed_value():
    """The tenfold matrix restarts within the call; its state must hold what was returned."""
    A = tenfold()
    first = svds(A, 5, method="trlan", rng=0)
    more = svds(A, 12, state=first.state)
    assert np.allclose(first.S, 1, atol=1e-10)
    assert np.allclose(more.S, np.r_[np.ones(10), 0.5, 0.5], atol=1e-10)


# ---- warm starts --------------------


@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["block", "vector", "wide block", "result", "repeated"])
def test_starts_of_every_kind(shape, method, kind):
    A = matrix(*shape)
    rng = np.random.default_rng(1)
    start = {
        "block": rng.standard_normal((shape[1], 4)),
        "vector": rng.standard_normal(shape[1]),
        "wide block": rng.standard_normal((shape[1], shape[1] + 20)),
        "repeated": np.ones((shape[1], 3)),
        "result": svds(A + 1e-3, 4),
    }[kind]
    assert_right(A, svds(A, 4, method=METHODS[method], rng=0, start=start), 4)


def test_starts_on_every_backend(backend):
    A = matrix(60, 50, "complex128")
    B = backend.asarray(A)
    first = svds(B, 4, rng=0)
    X = backend.asarray(np.random.default_rng(0).standard_normal((50, 4)))
    for start, method in itertools.product((first, X, X[:, 0]), ("trlan", "rsvd", "krylov")):
        result = svds(B, 4, method=method, start=start, rng=0)
        assert_right(A, result, 4, to_numpy=backend.to_numpy)


@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
@pytest.mark.parametrize("method", ["trlan-block", "rsvd", "power"])
def test_a_near_start_saves_products(shape, method):
    rng = np.random.default_rng(0)
    A = matrix(*shape, decay=0.9)
    near = A + 1e-6 * rng.standard_normal(shape)
    cold = svds(near, 4, method=METHODS[method], tol=1e-5, rng=0)
    old = svds(A, 4, tol=1e-10)
    for start in (old, old.Vh.T):
        warm = svds(near, 4, method=METHODS[method], tol=1e-5, rng=0, start=start)
        assert warm.converged
        assert warm.matvecs < cold.matvecs


@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_start_orthogonal_to_the_answer(shape, method, dtype):
    """Not only nearly: coordinates, so that no rounding leads to the dominant space."""
    s = 0.8 ** np.arange(50)
    A = np.zeros(shape, dtype)
    A[np.arange(50), np.arange(50)] = s
    start = np.zeros((shape[1], 6), dtype)
    start[10:16] = np.eye(6)
    with may_warn():
        result = svds(A, 4, method=METHODS[method], rng=0, start=start)
    if result.converged:
        assert_right(A, result, 4)


@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize("shape", [(60, 50), (50, 60)])
def test_a_start_of_zeros(method, shape):
    A = matrix(*shape)
    for start in (np.zeros((shape[1], 3)), np.eye(shape[1], 4) * [1.0, 0, 0, 1e-300]):
        with may_warn():
            result = svds(A, 4, method=METHODS[method], rng=0, start=start)
        if result.converged:
            assert_right(A, result, 4)


def test_a_start_in_the_null_space():
    A = np.zeros((60, 50))
    A[:5, :5] = np.diag([5.0, 4, 3, 2, 1])
    for method in ITERATIVE:
        with may_warn():
            result = svds(A, 3, method=METHODS[method], rng=0, start=np.eye(50)[:, 20:26])
        if result.converged:
            assert_right(A, result, 3)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_the_length_of_a_start_does_not_matter(scale):
    A = matrix(60, 50)
    start = scale * np.random.default_rng(0).standard_normal((50, 3))
    assert_right(A, svds(A, 4, method="trlan", start=start, rng=0), 4)


@pytest.mark.parametrize(
    ("start", "error", "match"),
    [
        (np.ones((40, 2)), ValueError, r"\(30, p\)"),
        (np.ones(40), ValueError, r"\(30, p\)"),
        (np.ones((30, 0)), ValueError, r"\(30, p\)"),
        (np.ones((30, 2, 2)), ValueError, r"\(30, p\)"),
        (np.full((30, 2), np.nan), ValueError, "NaN"),
        (np.full((30, 2), np.inf), ValueError, "NaN or inf"),
        ([[1.0]] * 30, TypeError, "start"),
        ("warm", TypeError, "start"),
        (np.full((30, 2), "a"), TypeError, "start"),
    ],
)
def test_starts_that_do_not_fit(start, error, match):
    with pytest.raises(error, match=match):
        svds(matrix(40, 30), 3, method="trlan", start=start)
    with pytest.raises(error, match=match):
        svds(matrix(40, 30), 3, method="direct", start=start)


def test_a_start_from_a_result_of_another_shape():
    with pytest.raises(ValueError, match="same shape"):
        svds(matrix(40, 30), 3, start=svds(matrix(30, 30), 3))


def test_a_complex_start_for_a_real_matrix_is_refused():
    """Taking its real part in silence would be wrong."""
    with pytest.raises((TypeError, ValueError), match="complex"):
        svds(matrix(40, 30), 3, method="trlan", start=np.ones((30, 2)) * 1j)


# ---- randomness --------------------


@pytest.mark.parametrize("method", METHODS)
def test_one_seed_one_result(method):
    A = matrix(60, 50, decay=0.95)
    runs = [
        svds(A, 4, method=METHODS[method], rng=seed) for seed in (7, 7, np.random.default_rng(7))
    ]
    for run in runs[1:]:
        for part, other in zip(run, runs[0], strict=True):
            assert part.tobytes() == other.tobytes()
        assert run.matvecs == runs[0].matvecs


def test_a_generator_moves_on():
    A = matrix(60, 50, decay=0.97)
    rng = np.random.default_rng(0)
    first = unconverged(A, 3, method="trlan", max_matvecs=12, rng=rng)
    second = unconverged(A, 3, method="trlan", max_matvecs=12, rng=rng)
    assert not np.array_equal(first.S, second.S)


def test_the_global_random_state_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    svds(matrix(60, 50), 3, method="trlan")
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_every_backend_starts_alike(backend, dtype):
    """Far from convergence the start shows in every digit."""
    A = matrix(60, 50, dtype, decay=0.97)
    for method in (trsvd.RandomizedSVD(power_iterations=0), trsvd.BlockKrylov(iterations=0)):
        here = unconverged(backend.asarray(A), 3, method=method, rng=5)
        there = unconverged(A, 3, method=method, rng=5)
        assert np.allclose(backend.to_numpy(here.S), there.S, rtol=1e-12)
        other = unconverged(A, 3, method=method, rng=6)
        assert not np.allclose(other.S, there.S, rtol=1e-6)


# ---- refusals --------------------

A = matrix(40, 30)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (dict(k=0), ValueError, "k=0"),
        (dict(k=-1), ValueError, "k=-1"),
        (dict(k=31), ValueError, "k=31.*30"),
        (dict(k=2.0), TypeError, "integer"),
        (dict(k="2"), TypeError, "integer"),
        (dict(k=None), TypeError, "integer"),
        (dict(k=True), TypeError, "truth value"),
        (dict(k=np.array([2])), TypeError, "k"),
        (dict(tol=-1e-3), ValueError, "tol"),
        (dict(tol=np.nan), ValueError, "tol"),
        (dict(tol=np.inf), ValueError, "tol"),
        (dict(tol="tight"), (TypeError, ValueError), "tol"),
        (dict(method="arpack"), ValueError, "trlan"),
        (dict(method=trsvd.Direct), TypeError, "object"),
        (dict(method=5), TypeError, "method"),
        (dict(tol=2.0), ValueError, "at least 0 and below 1"),
        (dict(max_matvecs=0), ValueError, "max_matvecs"),
        (dict(max_matvecs=-5), ValueError, "max_matvecs"),
        (dict(max_matvecs=10.5), TypeError, "max_matvecs"),
        (dict(max_matvecs="10"), TypeError, "max_matvecs"),
        (dict(callback=3), TypeError, "callback"),
        (dict(on_failure="ignore"), ValueError, "on_failure"),
        (dict(on_failure=None), ValueError, "on_failure"),
        (dict(rng="seed"), (TypeError, ValueError), None),
        (dict(rng=-1), ValueError, None),
        (dict(method=trsvd.ThickRestartLanczos(basis_size=4)), ValueError, "basis_size=4"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be(arguments, error, match):
    with pytest.raises(error, match=match):
        svds(A, **{"k": 3, **arguments})


def test_arguments_are_keywords():
    with pytest.raises(TypeError):
        svds(A, 3, "trlan")
    with pytest.raises(TypeError, match="oversampling"):
        svds(A, 3, oversampling=5)
    with pytest.raises(TypeError):
        trsvd.ThickRestartLanczos(oversampling=5)


def test_numpy_integers_are_integers():
    result = svds(A, np.int64(3), method="trlan", max_matvecs=np.int32(500), rng=np.int64(3))
    assert_right(A, result, 3)


@pytest.mark.parametrize(
    ("matrix_like", "error", "match"),
    [
        (np.zeros(5), ValueError, "1 dimension"),
        (np.zeros(()), ValueError, "0 dimensions"),
        (np.zeros((0, 5)), ValueError, "without rows"),
        (np.zeros((5, 0)), ValueError, "without rows or columns"),
        (scipy.sparse.csr_array((0, 5)), ValueError, "without rows"),
        ([[1.0, 2.0]], TypeError, "not a matrix"),
        (None, TypeError, "not a matrix"),
        ("A", TypeError, "not a matrix"),
        (np.array([["a", "b"]]), TypeError, "dtype"),
        (np.array([[1, None]], dtype=object), TypeError, "dtype"),
        (np.zeros((3, 3), np.longdouble), TypeError, "dtype"),
        (np.zeros((3, 3), "datetime64[s]"), TypeError, "dtype"),
        (np.ma.masked_array(np.eye(3)), TypeError, "masked"),
        (np.array([[np.nan, 1.0]]), ValueError, "NaN"),
        (np.array([[np.inf, 1.0]]), ValueError, "inf"),
        (np.array([[1.0, -np.inf]]), ValueError, "inf"),
        (np.array([[1.0, complex(0, np.nan)]]), ValueError, "NaN"),
        (scipy.sparse.csr_array(np.array([[np.nan, 1.0]])), ValueError, "NaN"),
    ],
    ids=lambda x: repr(x)[:30],
)
def test_matrices_that_are_none(matrix_like, error, match):
    for method in (None, "trlan", "direct"):
        with pytest.raises(error, match=match):
            svds(matrix_like, 1, method=method)
    with pytest.raises(error, match=match):
        trsvd.svds_above(matrix_like, 0.1)
    with pytest.raises(error, match=match):
        trsvd.svds_to_tolerance(matrix_like, 0.1)


def test_a_number_of_triplets_that_has_to_be_found_is_that_of_one_matrix():
    batch = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="3 dimensions"):
        trsvd.svds_above(batch, 0.1)
    with pytest.raises(ValueError, match="3 dimensions"):
        trsvd.svds_to_tolerance(batch, 0.1)
    with pytest.raises(ValueError, match="3 dimensions"):
        trsvd.select_method(batch, 1)


def test_not_finite_on_every_backend(backend):
    for bad in (np.nan, np.inf, -np.inf):
        A = matrix(20, 10)
        A[3, 4] = bad
        with pytest.raises(ValueError, match="NaN or inf"):
            svds(backend.asarray(A), 2)


def test_objects_that_lack_something():
    class NoProducts:
        shape, dtype = (5, 4), np.dtype(float)

    class NoDtype:
        shape = (5, 4)

        def matmat(self, X):
            return X

        rmatmat = matmat

    with pytest.raises(TypeError, match="matmat nor matvec"):
        svds(NoProducts(), 1)
    with pytest.raises(TypeError, match="dtype"):
        svds(NoDtype(), 1)


# ---- the choice of a method --------------------


@pytest.mark.parametrize(
    ("operand", "k"),
    [
        (np.zeros((50, 40)), 3),
        (np.eye(500, 450), 3),
        (np.zeros((500, 450)), 300),
        (np.zeros((4000, 450)), 3),
        (np.zeros((450, 4000), np.float32), 3),
        (scipy.sparse.csr_array((500, 450)), 3),
        (scipy.sparse.csr_array((500, 450)), 300),
        (scipy.sparse.linalg.aslinearoperator(np.zeros((500, 450))), 3),
    ],
    ids=lambda x: f"{type(x).__name__}{getattr(x, 'shape', x)}",
)
@pytest.mark.parametrize("max_matvecs", [None, 30])
def test_svds_uses_what_select_method_says(operand, k, max_matvecs):
    selection = trsvd.select_method(operand, k, max_matvecs=max_matvecs)
    assert selection.reason
    assert selection.reason in str(selection)
    if max_matvecs is not None:
        assert not isinstance(selection.method, trsvd.Direct)
    with may_warn():
        try:
            result = svds(operand, k, max_matvecs=max_matvecs)
        except ValueError as error:
            assert "max_matvecs" in str(error)  # noqa: PT017
            assert repr(selection.method) in str(error)  # noqa: PT017
        else:
            assert result.method == selection.method
            assert max_matvecs is None or result.matvecs <= max_matvecs


def test_the_choice_follows_the_matrix():
    direct, lanczos = trsvd.Direct, trsvd.ThickRestartLanczos
    assert isinstance(trsvd.select_method(np.zeros((60, 50)), 3).method, direct)
    assert isinstance(trsvd.select_method(np.zeros((800, 700)), 3).method, lanczos)
    assert isinstance(trsvd.select_method(np.zeros((800, 700)), 600).method, direct)
    assert isinstance(trsvd.select_method(scipy.sparse.csr_array((800, 700)), 3).method, lanczos)
    huge = scipy.sparse.csr_array((10**6, 10**6))
    assert isinstance(trsvd.select_method(huge, 900_000).method, lanczos)


def test_select_method_refuses_what_svds_refuses():
    with pytest.raises(ValueError, match="k=41"):
        trsvd.select_method(np.zeros((50, 40)), 41)
    with pytest.raises(ValueError, match="tol"):
        trsvd.select_method(np.zeros((50, 40)), 4, -1.0)
    with pytest.raises(TypeError, match="not a matrix"):
        trsvd.select_method([[1.0]], 1)


def test_strings_are_short_for_default_objects():
    names = {
        "trlan": trsvd.ThickRestartLanczos(),
        "rsvd": trsvd.RandomizedSVD(),
        "krylov": trsvd.BlockKrylov(),
        "power": trsvd.PowerIteration(),
        "direct": trsvd.Direct(),
    }
    for name, method in names.items():
        assert svds(A, 3, method=name, rng=0).method == method


# ---- what is known about missed values --------------------


def test_completeness_kinds():
    assert svds(A, 3, method="direct").completeness.kind == "exact"
    assert svds(A, 3, method="rsvd", rng=0).completeness.kind in {"norm", "random start"}
    assert svds(A, 3, method="trlan", verify=False, rng=0).completeness.kind == "unchecked"
    low = matrix(60, 50, decay=0.1)
    assert svds(low, 3, method="trlan", rng=0).completeness.kind == "norm"
    slow = CountingOperator(matrix(60, 50, decay=0.95))
    known = svds(slow, 3, method="trlan", rng=0).completeness
    assert known.kind == "probable"
    assert 0 < known.eta < 1
    assert 0 < known.failure_probability <= 1e-2
    assert f"{known.failure_probability:.1g}" in str(known)
    assert unconverged(slow, 3, method="trlan", max_matvecs=10).completeness.kind == "unchecked"


def test_the_check_finds_missed_copies():
    """Without it five of the ten ones are not found; with it they are."""
    A = tenfold()
    blind = svds(A, 5, method="trlan", rng=0, verify=False)
    assert blind.S[-1] < 0.6
    result = svds(A, 5, method="trlan", rng=0)
    assert np.allclose(result.S, 1, atol=value_bound(5, default_tol("float64"), A.shape, A.dtype))
    assert result.matvecs_verify > blind.matvecs_verify


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (trsvd.Direct, {"route": "fast"}, "route='fast'; it is one of"),
        (trsvd.PowerIteration, {"iterations": -1}, "iterations=-1; it must be at least 0"),
        (trsvd.RandomizedSVD, {"oversampling": -1}, "oversampling=-1; it must be at least 0"),
        (trsvd.ThickRestartLanczos, {"block_size": 0}, "block_size=0; it must be at least 1"),
        (trsvd.ThickRestartLanczos, {"reorthogonalize": "no"}, "reorthogonalize='no'; it is one"),
    ],
)
def test_options_that_cannot_be(method, options, message):
    with pytest.raises(ValueError, match=message):
        method(**options)


def test_a_single_value_is_certified_by_the_run_itself():
    """The theorem is on the run from a random vector: two products for the residuals, no more."""
    A = np.random.default_rng(0).standard_normal((200, 150))
    result = svds(A, 1, method="trlan", tol=9e-4, rng=0)
    assert result.completeness.kind == "probable"
    assert 0 < result.completeness.eta < 1
    assert result.matvecs_verify == 2
    assert result.S[0] >= np.linalg.norm(A, 2) / (1 + result.completeness.eta)
    # From vectors that are given it says nothing.
    given = svds(A, 1, method="trlan", tol=1e-2, rng=0, start=np.ones((150, 1)))
    assert given.matvecs_verify > 2


def test_a_left_basis_that_is_no_longer_orthogonal_is_made_so(rng, spectrum_matrix):
    s = np.logspace(0, -14, 60)
    A = spectrum_matrix(200, 60, s, "float64", rng)
    method = trsvd.ThickRestartLanczos(block_size=3, basis_size=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it may end at the rounding floor
        result = svds(A, 20, method=method, tol=1e-15, rng=0)
    eps = float(np.finfo(float).eps)
    assert np.abs(result.U.T @ result.U - np.eye(20)).max() <= 260 * eps
    assert np.abs(result.S - s[:20]).max() <= 260 * eps


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("lanczos", "trlan"),
        ("randomized", "rsvd"),
        ("subspace", "power"),
        ("exact", "direct"),
        ("svd", trsvd.Direct(route="svd")),
        ("gram", trsvd.Direct(route="gram")),
    ],
)
def test_an_alias_is_the_method_that_it_stands_for(alias, name, rng):
    A = rng.standard_normal((40, 30))
    for one, other in zip(
        trsvd.svds(A, 3, method=alias, rng=0), trsvd.svds(A, 3, method=name, rng=0), strict=True
    ):
        assert np.array_equal(one, other)
    ball = trsvd.KyFanDualBall(3)
    one, other = (ball.lmo(A, method=each, rng=0).update for each in (alias, name))
    assert np.array_equal(one, other)


def test_a_name_that_is_not_known_brings_the_canonical_ones(rng):
    A = rng.standard_normal((40, 30))
    names = "'direct', 'krylov', 'power', 'rsvd', 'trlan'"
    with pytest.raises(ValueError, match=names):
        trsvd.svds(A, 3, method="arpack")
    with pytest.raises(ValueError, match="'newton-schulz', 'polar-express'"):
        trsvd.SpectralBall().lmo(A, method="arpack")


def test_iterations_by_their_names(rng):
    A = rng.standard_normal((40, 30))
    for name, method in (
        ("newton-schulz", trsvd.NewtonSchulz()),
        ("polar-express", trsvd.PolarExpress()),
    ):
        one, other = (trsvd.spectral_lmo(A, method=each) for each in (name, method))
        assert np.array_equal(one, other)
