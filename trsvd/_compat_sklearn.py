"""scikit-learn's ``TruncatedSVD`` with trsvd inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import sklearn.decomposition
import sklearn.utils
import sklearn.utils.extmath
import sklearn.utils.sparsefuncs
import sklearn.utils.validation

from trsvd._arrays import HostArray
from trsvd._compat_randomized import randomized_svd
from trsvd._compat_svds import svds

__all__ = ["TruncatedSVD"]


class TruncatedSVD(sklearn.decomposition.TruncatedSVD):  # type: ignore[misc]
    """``sklearn.decomposition.TruncatedSVD``, fitted by trsvd.

    Parameters, attributes and the other methods are inherited. ``algorithm="randomized"`` calls
    `randomized_svd`, ``"arpack"`` calls `svds`: components that miss the tolerance come with a
    `ConvergenceWarning`, or are refused with `NoConvergence`.

    Examples
    --------
    >>> import numpy as np
    >>> from trsvd.compat import TruncatedSVD
    >>> TruncatedSVD(n_components=2, random_state=0).fit(np.diag([3.0, 1.0, 2.0])).singular_values_
    array([3., 2.])
    """

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
            The data, reduced.
        """
        del y
        self._validate_params()
        X = _checked(self, X)
        random_state = sklearn.utils.check_random_state(self.random_state)
        if self.algorithm == "arpack":
            U, S, Vh = svds(X, self.n_components, tol=self.tol, rng=random_state)
            U, S, Vh = U[:, ::-1], S[::-1], Vh[::-1]
        else:
            U, S, Vh = randomized_svd(
                X,
                self.n_components,
                n_iter=self.n_iter,
                n_oversamples=self.n_oversamples,
                random_state=random_state,
            )
        # Signs by the components, as the original has them.
        _, self.components_ = sklearn.utils.extmath.svd_flip(U, Vh, u_based_decision=False)
        self.singular_values_ = S
        reduced = sklearn.utils.extmath.safe_sparse_dot(X, self.components_.T)
        self.explained_variance_ = np.var(reduced, axis=0)
        self.explained_variance_ratio_ = self.explained_variance_ / _total_variance(X)
        return np.asarray(reduced)


def _checked(estimator: TruncatedSVD, X: Any) -> Any:
    """X as scikit-learn wants data to be; its name for that has changed in 1.6."""
    options = {"accept_sparse": ["csr", "csc"], "ensure_min_features": 2}
    if hasattr(sklearn.utils.validation, "validate_data"):
        return sklearn.utils.validation.validate_data(estimator, X, **options)
    return estimator._validate_data(X, **options)


def _total_variance(X: Any) -> float:
    if scipy.sparse.issparse(X):
        return float(sklearn.utils.sparsefuncs.mean_variance_axis(X, axis=0)[1].sum())
    return float(np.var(X, axis=0).sum())
