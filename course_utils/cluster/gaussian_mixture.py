"""Mixtures of Gaussians by expectation and maximisation: clusters with a shape, a size and a doubt."""

import warnings

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from course_utils.cluster._checks import as_start, check_choice, check_groups, check_not_negative, check_whole
from course_utils.cluster.k_means import KMeans

SHAPES = ("full", "diag", "spherical")
STARTS = ("kmeans", "random_from_data")


class GaussianMixture(DensityMixin, BaseEstimator):
    """The density Σⱼ πⱼ N(x; μⱼ, Σⱼ), fitted by EM (Dempster, Laird and Rubin 1977; Bishop 2006, section 9.2).

    By turns: the E-step gives each point its responsibilities rᵢⱼ = πⱼ N(xᵢ; μⱼ, Σⱼ) / Σₖ πₖ N(xᵢ; μₖ, Σₖ), computed
    from logarithms, so that far points do not vanish; the M-step sets πⱼ, μⱼ and Σⱼ to the weights, means and
    covariances under them. The likelihood never falls, but for what `reg_covar`, added to every variance, takes.

    covariance_type: "full", "diag" (axes of the features) or "spherical" (one variance). It ends when the mean
    log-likelihood of a point changes by less than `tol`, or after `max_iter` iterations, with a ConvergenceWarning.
    n_init: the best of so many starts. init_params: responsibilities from "kmeans", or "random_from_data" points as the
    only ones their component has. weights_init (k,), means_init (k, D) and precisions_init (inverse covariances,
    shaped like `covariances_`) replace what that gives.

    After `fit`: `weights_` (k,), `means_` (k, D), `covariances_` (k, D, D), (k, D) or (k,), `converged_`, `n_iter_`,
    `lower_bound_`, the mean log-likelihood of a point, and `lower_bounds_`, that at every iteration. All in float64.

    Raises ValueError for fewer samples than components, values that are not finite, options out of range and a
    covariance that collapsed; TypeError for options of another kind.

    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> model = GaussianMixture(2, random_state=0).fit(X)
    >>> sorted(model.means_.ravel().round(3).tolist()), model.predict_proba([[0.5]]).max().round(3).item()
    ([0.5, 10.5], 1.0)
    """

    def __init__(
        self,
        n_components=1,
        *,
        covariance_type="full",
        tol=1e-3,
        reg_covar=1e-6,
        max_iter=100,
        n_init=1,
        init_params="kmeans",
        weights_init=None,
        means_init=None,
        precisions_init=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state

    def fit(self, X, y=None):
        """Find weights, means and covariances; y is ignored."""
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._check(X)
        rng = check_random_state(self.random_state)
        best = None
        for _ in range(self.n_init):
            self._start(X, rng)
            bounds, converged = self._climb(X)
            if best is None or bounds[-1] > best["lower_bound_"]:
                best = {"weights_": self.weights_, "means_": self.means_, "covariances_": self.covariances_}
                best |= {"lower_bounds_": bounds, "lower_bound_": bounds[-1], "n_iter_": len(bounds)}
                best |= {"converged_": converged}
        vars(self).update(best)
        if not self.converged_:
            warnings.warn(
                f"EM had not converged after {self.max_iter} iterations: raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def fit_predict(self, X, y=None) -> np.ndarray:
        """Fit, then the likeliest component of each row, (N,)."""
        return self.fit(X).predict(X)

    def predict(self, X) -> np.ndarray:
        """The component with the greatest responsibility for each row, (N,)."""
        return self._log_joint(self._validated(X)).argmax(axis=1)

    def predict_proba(self, X) -> np.ndarray:
        """The responsibilities, (N, k); each row sums to 1."""
        return np.exp(self._e_step(self._validated(X))[1])

    def score_samples(self, X) -> np.ndarray:
        """The log-density at each row, (N,)."""
        return self._e_step(self._validated(X))[0]

    def score(self, X, y=None) -> float:
        """The mean log-density of the rows."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples=1) -> tuple[np.ndarray, np.ndarray]:
        """Draws (n_samples, D) from the mixture, and the component (n_samples,) that each came from."""
        check_is_fitted(self)
        check_whole(n_samples, "n_samples")
        rng = check_random_state(self.random_state)
        y = rng.choice(self.n_components, size=n_samples, p=self.weights_)
        noise = rng.normal(size=(n_samples, self.means_.shape[1]))
        return self.means_[y] + np.einsum("nij,nj->ni", self._factors()[y], noise), y

    def bic(self, X) -> float:
        """Schwarz's criterion (1978): −2 log-likelihood + parameters · ln N. Lower is better."""
        return -2 * self.score(X) * len(X) + self._n_parameters() * np.log(len(X))

    def aic(self, X) -> float:
        """Akaike's criterion (1974): −2 log-likelihood + 2 · parameters. Lower is better."""
        return -2 * self.score(X) * len(X) + 2 * self._n_parameters()

    # --- the algorithm

    def _climb(self, X) -> tuple[list[float], bool]:
        """E and M by turns; the mean log-likelihood before every M-step, and whether it stood still at the end."""
        bounds = []
        for _ in range(self.max_iter):
            log_density, log_responsibility = self._e_step(X)
            self._m_step(X, np.exp(log_responsibility))
            bounds.append(float(log_density.mean()))
            if len(bounds) > 1 and abs(bounds[-1] - bounds[-2]) < self.tol:
                return bounds, True
        return bounds, False

    def _e_step(self, X) -> tuple[np.ndarray, np.ndarray]:
        """Log-density (N,) and log-responsibilities (N, k)."""
        joint = self._log_joint(X)
        log_density = logsumexp(joint, axis=1)
        return log_density, joint - log_density[:, None]

    def _log_joint(self, X) -> np.ndarray:
        """ln πⱼ + ln N(xᵢ; μⱼ, Σⱼ), (N, k), with Σ = L Lᵀ: ‖L⁻¹(x − μ)‖² and Σ ln Lᵢᵢ."""
        joint = np.empty((len(X), self.n_components))
        for j, factor in enumerate(self._factors()):
            z = solve_triangular(factor, (X - self.means_[j]).T, lower=True)  # (D, N)
            joint[:, j] = -0.5 * (z**2).sum(axis=0) - np.log(np.diag(factor)).sum()
        with np.errstate(divide="ignore"):  # a component without weight has log-weight −∞
            return joint - 0.5 * X.shape[1] * np.log(2 * np.pi) + np.log(self.weights_)

    def _m_step(self, X, responsibility) -> None:
        """Weights, means and covariances under the responsibilities (N, k)."""
        total = responsibility.sum(axis=0) + 10 * np.finfo(float).eps  # (k,), never 0
        self.weights_ = total / total.sum()
        self.means_ = responsibility.T @ X / total[:, None]
        if self.covariance_type == "full":
            differences = (X - mean for mean in self.means_)
            scatters = [(r[:, None] * d).T @ d for r, d in zip(responsibility.T, differences, strict=True)]
            self.covariances_ = np.stack(scatters) / total[:, None, None] + self.reg_covar * np.eye(X.shape[1])
            return
        variances = [r @ (X - mean) ** 2 for r, mean in zip(responsibility.T, self.means_, strict=True)]
        variances = np.stack(variances) / total[:, None] + self.reg_covar  # (k, D)
        self.covariances_ = variances if self.covariance_type == "diag" else variances.mean(axis=1)

    def _factors(self) -> np.ndarray:
        """The lower triangles L (k, D, D) with Σⱼ = L Lᵀ."""
        covariances, d = self.covariances_, self.means_.shape[1]
        if self.covariance_type == "spherical":
            covariances = covariances[:, None, None] * np.eye(d)
        elif self.covariance_type == "diag":
            covariances = covariances[:, :, None] * np.eye(d)
        try:
            return np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError:
            raise ValueError(
                f"the covariance of a component is not positive definite: it has collapsed onto too few points; "
                f"raise reg_covar (now {self.reg_covar}) or lower n_components (now {self.n_components})"
            ) from None

    def _start(self, X, rng) -> None:
        """Parameters from the first responsibilities, or as given."""
        k, d = self.n_components, X.shape[1]
        if any(given is None for given in (self.weights_init, self.means_init, self.precisions_init)):
            responsibility = np.zeros((len(X), k))
            if self.init_params == "kmeans":
                labels = KMeans(k, n_init=1, random_state=rng).fit_predict(X)
                responsibility[np.arange(len(X)), labels] = 1
            else:
                responsibility[rng.permutation(len(X))[:k], np.arange(k)] = 1
            self._m_step(X, responsibility)
        if self.weights_init is not None:
            self.weights_ = as_start(self.weights_init, "weights_init", (k,))
            if (self.weights_ < 0).any() or not np.isclose(self.weights_.sum(), 1):
                raise ValueError(f"weights_init must be 0 or more and sum to 1, got {self.weights_init}")
        if self.means_init is not None:
            self.means_ = as_start(self.means_init, "means_init", (k, d))
        if self.precisions_init is not None:
            shape = {"full": (k, d, d), "diag": (k, d), "spherical": (k,)}[self.covariance_type]
            precisions = as_start(self.precisions_init, "precisions_init", shape)
            self.covariances_ = np.linalg.inv(precisions) if self.covariance_type == "full" else 1 / precisions

    def _n_parameters(self) -> int:
        k, d = self.means_.shape
        of_covariance = {"full": d * (d + 1) // 2, "diag": d, "spherical": 1}[self.covariance_type]
        return k - 1 + k * d + k * of_covariance

    def _validated(self, X):
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False)

    def _check(self, X) -> None:
        check_groups(self.n_components, "n_components", len(X))
        check_choice(self.covariance_type, "covariance_type", SHAPES)
        check_choice(self.init_params, "init_params", STARTS)
        check_not_negative(self.tol, "tol")
        check_not_negative(self.reg_covar, "reg_covar")
        for name in ("max_iter", "n_init"):
            check_whole(getattr(self, name), name)
