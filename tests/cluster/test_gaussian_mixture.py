"""Mixtures: scikit-learn's from the same start, a likelihood that never falls, and points far from everything."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from course_utils.cluster import GaussianMixture

SHAPES = ("full", "diag", "spherical")
EVERY = pytest.mark.parametrize("shape", SHAPES)


def stretched(n=400, k=3, seed=0):
    X, _ = make_blobs(n, 2, centers=k, cluster_std=1.5, random_state=seed)
    return X @ np.array([[0.6, -0.6], [-0.4, 0.8]])


def start(X, shape, k=3):
    identity = {"full": np.tile(np.eye(2), (k, 1, 1)), "diag": np.ones((k, 2)), "spherical": np.ones(k)}[shape]
    return {"weights_init": np.full(k, 1 / k), "means_init": X[:k], "precisions_init": identity}


@EVERY
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reg_covar", [0, 1e-6, 0.1])
def test_from_the_same_start_it_is_scikit_learns(shape, seed, reg_covar):
    X = stretched(seed=seed)
    options = {"covariance_type": shape, "reg_covar": reg_covar, "max_iter": 500, **start(X, shape)}
    ours, theirs = (kind(3, **options).fit(X) for kind in (GaussianMixture, Reference))
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    for name in ("weights_", "means_", "covariances_", "lower_bound_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-7)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-6)
    np.testing.assert_allclose([ours.bic(X), ours.aic(X)], [theirs.bic(X), theirs.aic(X)], rtol=1e-8)


@EVERY
@pytest.mark.parametrize("seed", range(5))
def test_the_likelihood_never_falls(shape, seed):
    X = np.random.default_rng(seed).uniform(size=(300, 2))
    model = GaussianMixture(4, covariance_type=shape, reg_covar=0, tol=1e-6, max_iter=500, random_state=seed).fit(X)
    assert model.converged_
    assert (np.diff(model.lower_bounds_) >= -1e-10).all()
    assert model.score(X) >= model.lower_bound_ - 1e-10


@EVERY
def test_the_density_is_the_sum_of_its_components(shape):
    X = stretched()
    model = GaussianMixture(3, covariance_type=shape, random_state=0).fit(X)
    full = {"full": lambda c: c, "diag": np.diag, "spherical": lambda c: c * np.eye(2)}[shape]
    density = sum(
        weight * multivariate_normal(mean, full(covariance)).pdf(X)
        for weight, mean, covariance in zip(model.weights_, model.means_, model.covariances_, strict=True)
    )
    np.testing.assert_allclose(np.exp(model.score_samples(X)), density)


@EVERY
def test_one_component_is_the_mean_and_the_covariance_of_the_data(shape):
    X = stretched()
    model = GaussianMixture(1, covariance_type=shape, reg_covar=0).fit(X)
    covariance = np.cov(X.T, bias=True)
    expected = {"full": covariance, "diag": np.diag(covariance), "spherical": np.trace(covariance) / 2}[shape]
    np.testing.assert_allclose(model.means_[0], X.mean(axis=0))
    np.testing.assert_allclose(model.covariances_[0], expected)


def test_points_far_from_every_component_have_finite_logs_and_responsibilities_that_sum_to_one():
    model = GaussianMixture(3, random_state=0).fit(stretched())
    far = np.array([[1e6, -1e6], [-1e8, 3.0]])
    assert np.isfinite(model.score_samples(far)).all()
    np.testing.assert_allclose(model.predict_proba(far).sum(axis=1), 1)


def test_draws_have_the_moments_of_the_mixture():
    model = GaussianMixture(2, random_state=0).fit(stretched(k=2))
    X, y = model.sample(40_000)
    for j in range(2):
        np.testing.assert_allclose(X[y == j].mean(axis=0), model.means_[j], atol=0.05)
        np.testing.assert_allclose(np.cov(X[y == j].T), model.covariances_[j], atol=0.1)
        assert (y == j).mean() == pytest.approx(model.weights_[j], abs=0.02)


def test_the_best_of_several_starts_is_kept():
    X = stretched(k=5)
    options = {"init_params": "random_from_data", "max_iter": 300}
    rng = np.random.RandomState(0)
    single = [GaussianMixture(5, random_state=rng, **options).fit(X).lower_bound_ for _ in range(5)]
    best = GaussianMixture(5, n_init=5, random_state=np.random.RandomState(0), **options).fit(X)
    assert best.lower_bound_ == pytest.approx(max(single))


def test_duplicates_and_constant_features_are_carried_by_the_regularisation():
    X = np.column_stack([np.repeat([0.0, 5.0], 20), np.ones(40)])
    model = GaussianMixture(2, random_state=0).fit(X)
    np.testing.assert_allclose(model.covariances_, 1e-6 * np.tile(np.eye(2), (2, 1, 1)), atol=1e-12)
    with pytest.raises(ValueError, match=r"collapsed onto too few points; raise reg_covar \(now 0\)"):
        GaussianMixture(2, reg_covar=0, random_state=0).fit(X)


def test_a_stop_before_the_end_is_said():
    with pytest.warns(ConvergenceWarning, match="not converged after 2 iterations"):
        GaussianMixture(3, max_iter=2, tol=0, random_state=0).fit(stretched())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_components": 9}, ValueError, "got n_components=9 and n_samples=6"),
        ({"n_components": 1.5}, TypeError, "n_components must be a whole number, got 1.5"),
        ({"covariance_type": "tied"}, ValueError, "covariance_type must be one of 'full', .*, got 'tied'"),
        ({"init_params": "best"}, ValueError, "init_params must be one of"),
        ({"reg_covar": -1}, ValueError, "reg_covar must be finite and not negative"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"means_init": [[0.0]]}, ValueError, r"means_init must have shape \(2, 2\), got \(1, 1\)"),
        ({"weights_init": [0.5, 0.6]}, ValueError, "weights_init must be 0 or more and sum to 1"),
    ],
)
def test_bad_options_are_named(options, error, message):
    X = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(error, match=message):
        GaussianMixture(**{"n_components": 2} | options).fit(X)
