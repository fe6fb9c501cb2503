"""Estimators for scikit-learn: `PCA` and `TruncatedSVD`. They need scikit-learn."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import sklearn.decomposition
import sklearn.utils
import sklearn.utils.extmath
import sklearn.utils.sparsefuncs
from sklearn.utils._param_validation import HasMethods, Interval, RealNotInt, StrOptions

from trsvd._arrays.arrays import HostArray
from trsvd._errors import Status, warn_caller
from trsvd._solve.result import Completeness, NotConverged, SVDResult
from trsvd._solve.select import named_method, select_method
from trsvd._solve.svds import svds, svds_to_tolerance
from trsvd.compat.arguments import explain, generator
from trsvd.compat.estimators import THROUGH, TruncatedSVD, keep_facts, validated
from trsvd.methods import ALIASES, METHODS, Direct
from trsvd.operators import CenteredOperator
from trsvd.operators.centred import CenteredArray

__all__ = ["PCA", "TruncatedSVD"]


class PCA(sklearn.decomposition.PCA):  # type: ignore[misc]
    """Principal component analysis, as ``sklearn.decomposition.PCA``, fitted by trsvd.

    Sparse data are centred implicitly and never converted to a dense array, for every method but
    ``"direct"``. Methods and attributes of scikit-learn's class are inherited. There is no
    ``partial_fit``; use ``sklearn.decomposition.IncrementalPCA`` for data in parts.

    Parameters
    ----------
    n_components : int or float, optional
        Number of components, ``1 <= n_components <= min(X.shape)``. A float between 0 and 1 is a
        fraction of the variance: the smallest number of components that explain at least this
        fraction. None: ``min(X.shape)`` components.
    whiten : bool, default False
        True: scale the transformed data to unit variance.
    method : str or Method, optional
        As for `trsvd.svds`. None: chosen by `trsvd.select_method`.
    tol : float, optional
        Largest relative residual, as for `trsvd.svds`. The default is ``eps**0.75``. With ``1e-4``
        the singular values are usually accurate to 1e-8, and the fit takes less time.
    random_state : int, numpy.random.RandomState, optional
        Source of random numbers.

    Attributes
    ----------
    components_ : numpy.ndarray of shape (k, n_features)
        Principal axes, in order of decreasing variance.
    explained_variance_ : numpy.ndarray of shape (k,)
        Variance of each component, ``singular_values_**2 / (n_samples - 1)``.
    explained_variance_ratio_ : numpy.ndarray of shape (k,)
        Fraction of the total variance.
    singular_values_ : numpy.ndarray of shape (k,)
        Singular values of the centred data.
    mean_ : numpy.ndarray of shape (n_features,)
        Mean of each feature.
    noise_variance_ : float
        Mean of the variances that are not explained.
    n_components_, n_samples_, n_features_in_ : int
        Number k of components, and numbers of samples and features.
    feature_names_in_ : numpy.ndarray of str
        Names of the features, if X has names.
    residuals_ : numpy.ndarray of shape (k,)
        Residual of each triplet of the centred data, relative to the largest singular value.
    converged_ : bool
        True if every residual is at most ``tol``, and no check found a missed component.
    status_ : trsvd.Status
        Reason for the end of the computation.
    completeness_ : trsvd.Completeness
        Certificate about components that may have been missed.
    n_matvecs_ : int
        Products with the data or their adjoint, including checks.

    Warns
    -----
    ConvergenceWarning
        If a residual exceeds the tolerance.

    See Also
    --------
    TruncatedSVD : The same without centring.
    trsvd.operators.CenteredOperator : The operator for sparse data.

    Examples
    --------
    >>> import numpy as np, scipy.sparse
    >>> from trsvd.sklearn import PCA
    >>> X = scipy.sparse.random_array((300, 40), density=0.1, rng=np.random.default_rng(0))
    >>> pca = PCA(n_components=3, random_state=0).fit(X)
    >>> pca.transform(X).shape
    (300, 3)
    >>> pca.status_.name
    'CONVERGED'
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            None,
        ],
        "whiten": ["boolean"],
        "method": [StrOptions({*METHODS, *ALIASES}), HasMethods(["init"]), None],
        "tol": [Interval(RealNotInt, 0, 1, closed="neither"), None],
        "random_state": ["random_state"],
    }

    components_: HostArray
    explained_variance_: HostArray
    explained_variance_ratio_: HostArray
    singular_values_: HostArray
    mean_: HostArray
    noise_variance_: float
    n_components_: int
    n_samples_: int
    residuals_: HostArray
    converged_: bool
    status_: Status
    completeness_: Completeness
    n_matvecs_: int

    def __init__(
        self,
        n_components: Any = None,
        *,
        whiten: bool = False,
        method: Any = None,
        tol: float | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.method = method
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> PCA:
        """Fit to X.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The data.
        y : None
            Not used.

        Returns
        -------
        PCA
            The estimator.
        """
        del y
        self._fitted(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> HostArray:
        """Fit to X, and return the transformed X.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The data.
        y : None
            Not used.

        Returns
        -------
        numpy.ndarray of shape (n_samples, k)
            The transformed data.
        """
        del y
        U = self._fitted(X)
        return U * (math.sqrt(self.n_samples_ - 1) if self.whiten else self.singular_values_)

    def __sklearn_tags__(self) -> Any:
        tags = sklearn.base.BaseEstimator.__sklearn_tags__(self)
        tags.transformer_tags = sklearn.utils.TransformerTags(
            preserves_dtype=["float64", "float32"]
        )
        tags.input_tags.sparse = True
        return tags

    def _fitted(self, X: Any) -> HostArray:
        """Set the attributes, and return the left singular vectors."""
        self._validate_params()
        X = validated(
            self,
            X,
            accept_sparse=["csr", "csc"],
            dtype=[np.float64, np.float32],
            ensure_min_samples=2,
        )
        m, n = X.shape
        if isinstance(self.n_components, Integral) and self.n_components > min(m, n):
            raise ValueError(
                f"n_components={self.n_components} must be between 1 and "
                f"min(n_samples, n_features) = {min(m, n)}"
            )
        if scipy.sparse.issparse(X):
            mean, variances = sklearn.utils.sparsefuncs.mean_variance_axis(X, axis=0)
            total = float(variances.sum(dtype=np.float64)) * m / (m - 1)
            centred: Any = CenteredOperator(X, mean.astype(X.dtype))
        else:
            centred, mean, total = self._centred(X)
        result = self._triplets(centred, total, m)
        U, S, Vh = result
        _, self.components_ = sklearn.utils.extmath.svd_flip(U, Vh, u_based_decision=False)
        U, _ = sklearn.utils.extmath.svd_flip(U, Vh, u_based_decision=False)
        k = len(S)
        self.mean_ = np.asarray(mean, dtype=X.dtype)
        self.singular_values_ = S
        self.explained_variance_ = S**2 / (m - 1)
        ratio = self.explained_variance_ / total if total > 0 else np.zeros_like(S)
        self.explained_variance_ratio_ = np.asarray(ratio, dtype=X.dtype)
        left = total - float(self.explained_variance_.sum(dtype=np.float64))
        self.noise_variance_ = max(left, 0.0) / (min(m, n) - k) if k < min(m, n) else 0.0
        self.n_components_, self.n_samples_ = k, m
        keep_facts(self, result)
        return np.asarray(U)

    def _centred(self, X: HostArray) -> tuple[Any, HostArray, float]:
        """Return centred dense data, their mean, and their total variance.

        They are a copy, unless a Gram matrix is formed from X.
        """
        rows = CenteredOperator(X).formed(gram=True) if self._takes_gram(X) else None
        if isinstance(rows, CenteredArray):
            return rows, rows.mean, rows.frobenius_norm() ** 2 / (len(X) - 1)
        mean = X.mean(axis=0, dtype=np.float64)
        centred = X - mean.astype(X.dtype)
        # The mean was rounded: subtract the mean of the rest, too.
        rest = centred.mean(axis=0, dtype=np.float64)
        centred -= rest.astype(X.dtype)
        total = float(np.square(centred, dtype=np.float64).sum()) / (len(X) - 1)
        return centred, mean + rest, total

    def _takes_gram(self, X: HostArray) -> bool:
        """True if the method, given or chosen, forms a Gram matrix of dense data."""
        k, method = self.n_components, self.method
        if not isinstance(k, Integral) or 4 * k > min(X.shape):
            return False
        if method is None:
            method = select_method(X, int(k), self.tol).method
        return named_method(method) in (Direct(), Direct(route="gram"))

    def _triplets(self, centred: Any, total: float, m: int) -> SVDResult:
        method = self.method
        if method is None and isinstance(centred, CenteredArray):
            method = Direct()
        options = {
            "method": method,
            "tol": self.tol,
            "rng": generator("random_state", sklearn.utils.check_random_state(self.random_state)),
            "on_failure": "raise",
        }
        k = self.n_components
        try:
            if k is None or isinstance(k, Integral):
                return svds(centred, min(centred.shape) if k is None else int(k), **options)
            if total == 0:  # every number of components explains a constant
                return svds(centred, 1, **options)
            return svds_to_tolerance(centred, math.sqrt(1 - float(k)), **options)
        except NotConverged as error:
            worst = error.result.residuals.max(initial=0.0)
            advice = f"raise tol above {worst:.2e}, or pass method='direct'"
            wanted = "the default tol" if self.tol is None else f"tol={self.tol:g}"
            limit = "the limit of products"
            message = explain(error, wanted, limit=limit, more=advice, otherwise=advice)
            warn_caller(message, through=THROUGH)
            return error.result
