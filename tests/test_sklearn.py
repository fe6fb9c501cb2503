"""Estimators for scikit-learn, against its own and against dense answers."""

from __future__ import annotations

import pickle
import re
import warnings

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("sklearn")

import sklearn.base  # noqa: E402
import sklearn.decomposition  # noqa: E402
import sklearn.linear_model  # noqa: E402
import sklearn.model_selection  # noqa: E402
import sklearn.pipeline  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

import trsvd  # noqa: E402
from trsvd.operators import centred as _centred  # noqa: E402
from trsvd.sklearn import PCA, TruncatedSVD  # noqa: E402
from trsvd.testing import SPECTRA, matrix_with_spectrum  # noqa: E402

M, N, K = 120, 40, 5
FORMATS = {
    "array": np.asarray,
    "Fortran": np.asfortranarray,
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_matrix,
}


@pytest.fixture
def X(rng):
    """Data with zeros, a decaying spectrum and means that differ from zero."""
    X = matrix_with_spectrum(M, N, SPECTRA["geometric"](N), rng=rng) + 0.1 * np.arange(N)
    X[np.abs(X) < 0.05] = 0
    return X


def truth(X, k):
    """Singular values and right vectors of the centred data, in float64."""
    _, S, Vh = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    return S[:k], Vh[:k]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_answer_is_that_of_scikit_learn(format_, X):
    full = sklearn.decomposition.PCA(K, svd_solver="full").fit(X)
    pca = PCA(K, random_state=0).fit(FORMATS[format_](X))
    for name in (
        "components_",
        "explained_variance_",
        "explained_variance_ratio_",
        "singular_values_",
        "mean_",
        "noise_variance_",
    ):
        # Residuals of 1.8e-12 over gaps of about 0.1 s_1.
        np.testing.assert_allclose(getattr(pca, name), getattr(full, name), rtol=1e-9, atol=1e-9)
    for name in ("n_components_", "n_samples_", "n_features_in_"):
        assert getattr(pca, name) == getattr(full, name)
    np.testing.assert_allclose(pca.transform(X), full.transform(X), atol=1e-8)
    np.testing.assert_allclose(
        pca.inverse_transform(pca.transform(X)),
        full.inverse_transform(full.transform(X)),
        atol=1e-8,
    )
    np.testing.assert_allclose(pca.get_covariance(), full.get_covariance(), atol=1e-9)
    np.testing.assert_allclose(pca.score(X), full.score(X), rtol=1e-6)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("format_", FORMATS)
def test_fit_transform_is_fit_and_transform(format_, whiten, X):
    A = FORMATS[format_](X)
    pca = PCA(K, whiten=whiten, random_state=0)
    at_once = pca.fit_transform(A)
    np.testing.assert_allclose(at_once, pca.transform(A), atol=1e-8)
    if whiten:
        np.testing.assert_allclose(at_once.var(axis=0, ddof=1), 1, rtol=1e-9)


@pytest.mark.parametrize("method", [None, "trlan", "krylov", "direct", trsvd.RandomizedSVD()])
def test_methods(method, X):
    pca = PCA(K, method=method, random_state=0).fit(X)
    np.testing.assert_allclose(pca.singular_values_, truth(X, K)[0], rtol=1e-10)


@pytest.mark.parametrize("format_", ["array", "csr"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_fraction_of_the_variance(share, format_, X):
    full = sklearn.decomposition.PCA(share, svd_solver="full").fit(X)
    pca = PCA(share, random_state=0).fit(FORMATS[format_](X))
    assert pca.n_components_ == full.n_components_
    assert pca.explained_variance_ratio_.sum() >= share
    np.testing.assert_allclose(pca.singular_values_, full.singular_values_, rtol=1e-9)


def test_all_components(X):
    pca = PCA(random_state=0).fit(X)
    assert pca.n_components_ == N
    assert pca.noise_variance_ == 0
    np.testing.assert_allclose(pca.explained_variance_ratio_.sum(), 1, rtol=1e-12)


@pytest.mark.parametrize("format_", ["array", "csr"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_single_precision_stays(dtype, format_, X):
    A = FORMATS[format_](X.astype(dtype))
    pca = PCA(K, random_state=0)
    assert pca.fit_transform(A).dtype == dtype
    for name in ("components_", "mean_", "explained_variance_", "explained_variance_ratio_"):
        assert getattr(pca, name).dtype == dtype, name
    # Values of float32 data are known to its rounding unit times s_1 of the data with their mean.
    eps = 100 * np.finfo(dtype).eps * np.linalg.norm(X, 2)
    np.testing.assert_allclose(pca.singular_values_, truth(X, K)[0], atol=eps)


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e9])
def test_large_offsets_of_dense_data(offset, X):
    """The mean is subtracted from the entries: their rounding, eps offset, is all that is lost."""
    A = X + offset
    pca = PCA(K, random_state=0).fit(A)
    error = 10 * np.finfo(float).eps * offset * np.sqrt(M * N)
    np.testing.assert_allclose(pca.singular_values_, truth(A, K)[0], atol=error)


def test_large_values_of_integers(rng):
    A = rng.integers(0, 100, size=(60, 8))
    np.testing.assert_allclose(
        PCA(3, random_state=0).fit(A).singular_values_, truth(A.astype(float), 3)[0], rtol=1e-10
    )


@pytest.mark.parametrize("format_", ["array", "csr"])
@pytest.mark.parametrize("k", [1, 2, 0.9])
def test_constant_data(k, format_):
    pca = PCA(k, random_state=0).fit(FORMATS[format_](np.full((9, 4), 2.5)))
    assert np.all(pca.singular_values_ <= 1e-14)
    assert np.all(np.isfinite(pca.components_))
    np.testing.assert_array_equal(pca.explained_variance_ratio_, 0)


def test_facts(X):
    for estimator in (PCA(K, method="trlan", random_state=0), TruncatedSVD(K, random_state=0)):
        estimator.fit(scipy.sparse.csr_array(X))
        assert estimator.residuals_.shape == (K,)
        assert estimator.status_ is trsvd.Status.CONVERGED
        assert estimator.converged_ is True
        assert isinstance(estimator.completeness_, trsvd.Completeness)
        assert estimator.n_matvecs_ >= 2 * K


def test_a_missed_tolerance_warns_at_the_line_of_the_user(X):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pca = PCA(K, tol=1e-17, method="trlan", random_state=0).fit(X)
    assert [w.category for w in caught] == [trsvd.ConvergenceWarning]
    assert caught[0].filename == __file__
    assert pca.status_ is not trsvd.Status.CONVERGED
    assert not pca.converged_
    assert re.search(r"tol=1e-17.*; raise tol above .*method='direct'", str(caught[0].message))
    np.testing.assert_allclose(pca.singular_values_, truth(X, K)[0], rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_components": N + 1}, ValueError, r"between 1 and min\(n_samples, n_features\) = 40"),
        ({"n_components": 0}, ValueError, "n_components"),
        ({"n_components": 1.0}, ValueError, "n_components"),
        ({"method": "arpack"}, ValueError, "method"),
        ({"tol": -1.0}, ValueError, "tol"),
    ],
)
def test_refusals(options, error, message, X):
    with pytest.raises(error, match=message):
        PCA(**options).fit(X)


def test_nan_is_refused(X):
    X[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        PCA(2).fit(X)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library, X):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({f"x{i}": X[:, i] for i in range(N)})
    pca = PCA(2, random_state=0).set_output(transform=library)
    out = pca.fit_transform(frame)
    assert list(out.columns) == ["pca0", "pca1"]
    assert list(pca.get_feature_names_out()) == ["pca0", "pca1"]
    assert list(pca.feature_names_in_) == list(frame.columns)


def test_in_pipelines_searches_clones_and_pickles(X, rng):
    y = X[:, 0] + 0.1 * rng.standard_normal(M)
    pipe = sklearn.pipeline.make_pipeline(PCA(random_state=0), sklearn.linear_model.Ridge())
    search = sklearn.model_selection.GridSearchCV(pipe, {"pca__n_components": [1, 5, 0.99]}, cv=3)
    search.fit(X, y)
    assert search.best_params_["pca__n_components"] in (1, 5, 0.99)
    pca = PCA(3, whiten=True, method="trlan", tol=1e-8, random_state=0)
    assert sklearn.base.clone(pca).get_params() == pca.get_params()
    pca.fit(X)
    again = pickle.loads(pickle.dumps(pca))
    np.testing.assert_array_equal(again.transform(X), pca.transform(X))


def test_the_same_seed_gives_the_same_answer(X):
    A = scipy.sparse.csr_array(X)
    one, two = (PCA(3, method="trlan", random_state=7).fit(A) for _ in range(2))
    np.testing.assert_array_equal(one.components_, two.components_)


def test_sparse_data_stay_sparse(rng, monkeypatch):
    A = scipy.sparse.random_array((400, 300), density=0.02, rng=rng, format="csr")
    for kind in (scipy.sparse.csr_array, scipy.sparse.csr_matrix):
        monkeypatch.setattr(kind, "toarray", lambda *_: pytest.fail("converted to dense"))
        monkeypatch.setattr(kind, "todense", lambda *_: pytest.fail("converted to dense"))
    pca = PCA(4, random_state=0).fit(A)
    monkeypatch.undo()
    np.testing.assert_allclose(pca.singular_values_, truth(A.toarray(), 4)[0], rtol=1e-10)


def test_one_class_for_both_modules():
    assert trsvd.compat.TruncatedSVD is TruncatedSVD is trsvd.sklearn.TruncatedSVD


@pytest.mark.parametrize(
    "estimator",
    [PCA(random_state=0), PCA(0.9), PCA(2, whiten=True, method="trlan"), TruncatedSVD()],
    ids=repr,
)
def test_scikit_learns_own_checks(estimator):
    if not hasattr(sklearn.utils, "get_tags"):
        pytest.skip("scikit-learn before 1.6 has other tags")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(estimator, expected_failed_checks={})


@pytest.mark.parametrize("numba", [True, False])
@pytest.mark.parametrize(
    ("dtype", "offset"), [("float32", 1e3), ("float64", 1e6), ("float64", 0.0)]
)
@pytest.mark.parametrize("shape", [(2000, 70), (70, 2000), (300, 120)])
def test_dense_data_with_an_offset(
    shape: tuple[int, int], dtype: str, offset: float, numba: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a Gram matrix or a centred copy: rounding errors are those of the centred data."""
    monkeypatch.setenv("TRSVD_COMPILED", str(int(numba)))
    monkeypatch.setattr(_centred, "_PANEL", 1 << 14)
    rng, k = np.random.default_rng(0), 4
    side = min(shape)
    X = rng.standard_normal((shape[0], side)) * 0.7 ** np.arange(side)
    X = (X @ rng.standard_normal((side, shape[1])) + offset).astype(dtype)
    pca = PCA(k, random_state=0)
    scores = pca.fit_transform(X)
    assert pca.converged_
    B = X.astype(float) - X.astype(float).mean(axis=0)
    B -= B.mean(axis=0)
    S = np.linalg.svd(B, compute_uv=False)
    eps = float(np.finfo(dtype).eps)
    assert np.abs(pca.singular_values_ - S[:k]).max() <= 20 * eps * S[0]
    mean = X.astype(np.longdouble).mean(axis=0)
    assert np.abs(pca.mean_ - mean).max() <= 9 * eps * max(offset, 10)  # sqrt(70), a sum of 70
    ratio = S[:k] ** 2 / np.sum(S**2)
    assert np.abs(pca.explained_variance_ratio_ - ratio).max() <= 40 * eps
    bound = (eps**0.75 + 20 * eps) * np.linalg.norm(B)  # tol, and rounding errors
    assert np.linalg.norm(B @ pca.components_.T.astype(float) - scores, axis=0).max() <= bound
