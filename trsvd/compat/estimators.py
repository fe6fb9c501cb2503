"""scikit-learn's ``TruncatedSVD``, computed by trsvd."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import sklearn.decomposition
import sklearn.utils
import sklearn.utils.extmath
import sklearn.utils.sparsefuncs
import sklearn.utils.validation
from sklearn.utils._param_validation import StrOptions

from trsvd._arrays.arrays import HostArray
from trsvd._errors import warn_caller
from trsvd._solve.result import NotConverged, SVDResult
from trsvd.compat.arguments import check_svds, explain, generator, raise_tol
from trsvd.compat.scipy import NoConvergence
from trsvd.compat.sklearn import leading

# Packages that may call `fit_transform` for the user.
THROUGH = ("sklearn", "joblib")


class TruncatedSVD(sklearn.decomposition.TruncatedSVD):  # type: ignore[misc]
    """``sklearn.decomposition.TruncatedSVD``, fitted by trsvd.

    Attributes and the other methods are inherited. In addition there are ``residuals_``,
    ``converged_``, ``status_``, ``completeness_`` and ``n_matvecs_``, see `trsvd.sklearn.PCA`.

    Parameters
    ----------
    n_components : int, default 2
        Number k of components, ``1 <= k <= min(X.shape)``; ``k < min(X.shape)`` with ``"arpack"``.
    algorithm : {"randomized", "arpack"}
        ``"randomized"`` computes the same as `randomized_svd`, ``"arpack"`` the same as `svds`.
    n_iter : int or "auto", default "auto"
        Number of power iterations. ``"auto"`` leaves the method to `trsvd.svds`, which iterates
        until every residual is at most ``tol``. Not used by ``"arpack"``. (The default of
        scikit-learn is 5 iterations.)
    n_oversamples : int, default 10
        Columns of the sketch beyond k, for power iterations.
    power_iteration_normalizer : {"auto", "QR", "LU", "none"}
        No effect: the sketch is always orthonormalized.
    random_state : int, numpy.random.RandomState, optional
        Source of random numbers.
    tol : float, default 0.0
        With ``"randomized"``: largest accepted residual relative to ``s_1``; 0 means 1e-3. With
        ``"arpack"``: the ``tol`` of SciPy's ``svds``. Residuals must then be at most ``tol**2``; 0
        means ``eps**0.75``.

    Warns
    -----
    ConvergenceWarning
        If a residual exceeds the tolerance with ``"randomized"``.

    Raises
    ------
    NoConvergence
        If a residual exceeds the tolerance with ``"arpack"``.

    See Also
    --------
    PCA, trsvd.compat.randomized_svd

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.compat import TruncatedSVD
    >>> TruncatedSVD(n_components=2, random_state=0).fit(np.diag([3.0, 1.0, 2.0])).singular_values_
    array([3., 2.])
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **sklearn.decomposition.TruncatedSVD._parameter_constraints,
        "n_iter": [
            *sklearn.decomposition.TruncatedSVD._parameter_constraints["n_iter"],
            StrOptions({"auto"}),
        ],
    }

    components_: HostArray
    singular_values_: HostArray
    explained_variance_: HostArray
    explained_variance_ratio_: HostArray

    def __init__(
        self,
        n_components: int = 2,
        *,
        algorithm: str = "randomized",
        n_iter: int | str = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        tol: float = 0.0,
    ) -> None:
        super().__init__(
            n_components,
            algorithm=algorithm,
            n_iter=n_iter,
            n_oversamples=n_oversamples,
            power_iteration_normalizer=power_iteration_normalizer,
            random_state=random_state,
            tol=tol,
        )

    def fit_transform(self, X: Any, y: Any = None) -> HostArray:
        """Fit to X, and return ``X V``.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The data.
        y : None
            Not used.

        Returns
        -------
        numpy.ndarray of shape (n_samples, n_components)
            Reduced data.
        """
        del y
        self._validate_params()
        X = validated(self, X, accept_sparse=["csr", "csc"], ensure_min_features=2)
        rng = generator("random_state", sklearn.utils.check_random_state(self.random_state))
        if self.algorithm == "arpack":
            result = _to_scipys_tol(X, self.n_components, self.tol, rng)
        else:
            tol = self.tol or 1e-3
            try:
                result = leading(X, self.n_components, self.n_oversamples, self.n_iter, tol, rng)
            except NotConverged as error:
                warn_caller(str(error), through=THROUGH)
                result = error.result
        U, S, Vh = result
        keep_facts(self, result)
        # Signs follow the components, as in the original.
        _, self.components_ = sklearn.utils.extmath.svd_flip(U, Vh, u_based_decision=False)
        self.singular_values_ = S
        reduced = sklearn.utils.extmath.safe_sparse_dot(X, self.components_.T)
        self.explained_variance_ = np.var(reduced, axis=0)
        self.explained_variance_ratio_ = self.explained_variance_ / _total_variance(X)
        return np.asarray(reduced)


def _to_scipys_tol(X: Any, k: int, tol: float, rng: np.random.Generator | None) -> SVDResult:
    """Compute leading triplets to the tolerance of SciPy's ``svds``; trsvd chooses the method."""
    m, n = X.shape
    if k >= min(m, n):
        raise ValueError(
            f"n_components={k} must be less than n_samples={m} and n_features={n} with "
            "algorithm='arpack'; algorithm='randomized' computes up to the smaller of them"
        )
    asked = check_svds(X, k, None, tol, "LM", None, None, True, "arpack", rng, None)
    try:
        return asked.triplets(asked.op, verify=True)
    except NotConverged as error:
        wanted = f"tol={tol:g} asks for {asked.tol:.2e}"
        advice = raise_tol(error)
        raise NoConvergence(
            explain(error, wanted, limit="the limit of products", more=advice, otherwise=advice),
            error.result,
        ) from None


def validated(estimator: Any, X: Any, **options: Any) -> Any:
    """Validate X by scikit-learn; the name of this function changed in version 1.6."""
    if hasattr(sklearn.utils.validation, "validate_data"):
        return sklearn.utils.validation.validate_data(estimator, X, **options)
    return estimator._validate_data(X, **options)


def keep_facts(estimator: Any, result: SVDResult) -> None:
    """Set the attributes of an estimator about residuals, status, certificate and products."""
    estimator.residuals_ = result.residuals
    estimator.converged_ = bool(result.converged)
    estimator.status_ = result.status
    estimator.completeness_ = result.completeness
    estimator.n_matvecs_ = result.matvecs + result.matvecs_verify


def _total_variance(X: Any) -> float:
    if scipy.sparse.issparse(X):
        return float(sklearn.utils.sparsefuncs.mean_variance_axis(X, axis=0)[1].sum())
    mean, square = X.mean(axis=0), float(np.vdot(X, X).real)
    centre = len(X) * float(np.vdot(mean, mean).real)
    if centre > 0.5 * square:  # the difference would lose digits
        return float(np.var(X, axis=0).sum())
    return (square - centre) / len(X)
