"""PCA against its definition and scikit-learn, the trained reducer, and scores of neighbours against loops."""

import numpy as np
import pytest
import torch
from sklearn import decomposition, manifold
from sklearn.utils.estimator_checks import parametrize_with_checks

from course_utils.reduce import (
    PCA,
    AutoencoderReducer,
    continuity,
    neighbourhood_preservation,
    randomized_svd,
    trustworthiness,
)

QUICK = AutoencoderReducer(1, hidden=(4,), steps=5, batch_size=8)


@parametrize_with_checks([PCA(), PCA(1, whiten=True), PCA(1, svd_solver="randomized"), PCA(0.9), QUICK])
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


def data(n=80, d=7, seed=0, rank=None):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * np.linspace(5, 0.1, d) @ rng.normal(size=(d, d)) + 10
    return X if rank is None else rng.normal(size=(n, rank)) * np.linspace(5, 0.1, rank) @ rng.normal(size=(rank, d))


# --- PCA


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("shape", [(80, 7), (7, 80), (30, 30)])
@pytest.mark.parametrize("k", [1, 3, 0.8])
def test_pca_is_scikit_learns_up_to_sign(shape, k, whiten):
    X, new = data(*shape), data(*shape, seed=1)
    ours, theirs = PCA(k, whiten=whiten).fit(X), decomposition.PCA(k, whiten=whiten, svd_solver="full").fit(X)
    assert ours.n_components_ == theirs.n_components_
    for name in ("mean_", "singular_values_", "explained_variance_", "explained_variance_ratio_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-9)
    sign = np.sign((ours.components_ * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(ours.components_, sign[:, None] * theirs.components_, atol=1e-9)
    np.testing.assert_allclose(ours.transform(new), sign * theirs.transform(new), atol=1e-7)
    back = ours.inverse_transform(ours.transform(new))
    np.testing.assert_allclose(back, theirs.inverse_transform(theirs.transform(new)), atol=1e-7)


def test_components_are_eigenvectors_of_the_covariance_matrix():
    X = data()
    pca, covariance = PCA(4).fit(X), np.cov(data().T)
    np.testing.assert_allclose(pca.components_ @ covariance, pca.explained_variance_[:, None] * pca.components_)
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(4), atol=1e-12)


def test_what_is_lost_is_the_variance_left_out():
    X = data()
    for k in range(1, 8):
        pca = PCA(k).fit(X)
        lost = ((X - pca.inverse_transform(pca.transform(X))) ** 2).sum() / (len(X) - 1)
        left_out = np.linalg.eigvalsh(np.cov(X.T))[: 7 - k].sum()
        assert lost == pytest.approx(left_out, abs=1e-9)


def test_all_components_lose_nothing_and_keep_every_distance():
    X = data()
    Z = PCA().fit_transform(X)
    np.testing.assert_allclose(PCA().fit(X).inverse_transform(Z), X)
    np.testing.assert_allclose(np.linalg.norm(Z[3] - Z[5]), np.linalg.norm(X[3] - X[5]))


def test_whitened_coordinates_have_unit_covariance_and_those_without_variance_are_zero():
    np.testing.assert_allclose(np.cov(PCA(whiten=True).fit_transform(data()).T), np.eye(7), atol=1e-9)
    flat = PCA(whiten=True).fit_transform(data(rank=3))
    np.testing.assert_allclose(np.cov(flat.T), np.diag([1, 1, 1, 0, 0, 0, 0]), atol=1e-9)


def test_a_part_of_the_variance_takes_the_fewest_components_that_explain_it():
    ratio = PCA().fit(data()).explained_variance_ratio_
    for k in range(1, 7):
        assert PCA(ratio[:k].sum() - 1e-9).fit(data()).n_components_ == k


@pytest.mark.parametrize("shape", [(2000, 60), (60, 2000)])
def test_the_randomized_solver_finds_the_leading_components(shape):
    X = data(*shape, rank=12) + 1e-2 * np.random.default_rng(1).normal(size=shape)
    few, full = (PCA(5, svd_solver=solver, random_state=0).fit(X) for solver in ("randomized", "full"))
    np.testing.assert_allclose(few.explained_variance_ratio_, full.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(few.components_, full.components_, atol=1e-3)


def test_the_randomized_decomposition_is_exact_at_full_size_and_keeps_its_seed():
    X = data()
    U, s, Vt = randomized_svd(X, 7, np.random.RandomState(0))
    np.testing.assert_allclose(U * s @ Vt, X)
    U, s, Vt = randomized_svd(data(200, 100), 3, np.random.RandomState(0))
    np.testing.assert_array_equal(s, randomized_svd(data(200, 100), 3, np.random.RandomState(0))[1])
    np.testing.assert_allclose(U.T @ U, np.eye(3), atol=1e-12)


def test_constant_data_and_copies_of_one_point_have_no_variance_and_no_nan():
    pca = PCA(2, whiten=True).fit(np.full((5, 3), 1e3))
    assert (pca.explained_variance_ratio_ == 0).all()
    assert (pca.transform(np.full((2, 3), 1e3)) == 0).all()
    assert PCA(0.9).fit(np.ones((5, 3))).n_components_ >= 1


def test_single_precision_stays_and_a_far_origin_does_not_matter():
    X = data().astype(np.float32)
    assert PCA(2).fit_transform(X).dtype == np.float32
    np.testing.assert_allclose(PCA(2).fit_transform(data() + 1e6), PCA(2).fit_transform(data()), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"n_components": 0}, ValueError, "n_components must be at least 1, got 0"),
        ({"n_components": 8}, ValueError, r"at most min\(n_samples, n_features\) = 7, got 8"),
        ({"n_components": 1.5}, ValueError, "between 0 and 1, got 1.5"),
        ({"n_components": "two"}, TypeError, "n_components must be a whole number, got 'two'"),
        ({"svd_solver": "fast"}, ValueError, "svd_solver must be one of .* got 'fast'"),
        ({"n_components": 0.5, "svd_solver": "randomized"}, ValueError, "whole number for the randomized"),
    ],
)
def test_bad_options_are_named(options, error, sentence):
    with pytest.raises(error, match=sentence):
        PCA(**options).fit(data())


def test_one_sample_nan_and_coordinates_of_another_size_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples, got n_samples=1"):
        PCA().fit(np.ones((1, 3)))
    with pytest.raises(ValueError, match="NaN"):
        PCA().fit(np.array([[1.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="2 columns, one for each component, got 3"):
        PCA(2).fit(data()).inverse_transform(np.ones((4, 3)))


# --- the autoencoder


def curve(n=300):
    t = np.random.default_rng(0).uniform(-1, 1, n)
    return np.stack([t, 2 * t**2, np.sin(3 * t)], axis=1)


def error(reducer, X):
    return ((reducer.inverse_transform(reducer.transform(X)) - X) ** 2).mean()


def test_without_hidden_layers_it_comes_to_the_error_of_pca():
    X = data(200, 4)
    reducer = AutoencoderReducer(2, hidden=(), steps=600, lr=1e-2, random_state=0).fit(X)
    assert error(reducer, X) == pytest.approx(error(PCA(2).fit(X), X), rel=0.05)


def test_on_a_curve_it_beats_pca():
    reducer = AutoencoderReducer(1, hidden=(32,), steps=600, lr=1e-2, random_state=0).fit(curve())
    assert error(reducer, curve()) < 0.3 * error(PCA(1).fit(curve()), curve())
    assert len(reducer.loss_curve_) == 600


def test_the_same_seed_gives_the_same_codes_and_torchs_global_generator_stays():
    state = torch.get_rng_state()
    first, again, other = (
        AutoencoderReducer(1, hidden=(4,), steps=5, random_state=seed).fit_transform(curve(40)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_constant_data_and_fewer_examples_than_a_batch_do():
    X = np.ones((3, 2))
    np.testing.assert_allclose(QUICK.fit(X).inverse_transform(QUICK.transform(X)), X, atol=1)


@pytest.mark.parametrize("option", [{"n_components": 0}, {"steps": 0}, {"hidden": (0,)}, {"batch_size": 0}])
def test_bad_sizes_are_named(option):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        AutoencoderReducer(**option).fit(curve(20))


# --- neighbours


def ranks(X):
    """ranks[i, j]: the place of j among the others by their distance from i, 1 the nearest."""
    table = np.zeros((len(X), len(X)), int)
    for i, x in enumerate(X):
        others = sorted((j for j in range(len(X)) if j != i), key=lambda j: np.linalg.norm(X[j] - x))
        table[i, others] = np.arange(1, len(X))
    return table


def by_loops(X, Z, k):
    """Trustworthiness, continuity and kept neighbours, by their definitions."""
    n, r, r_hat = len(X), ranks(X), ranks(Z)
    false = torn = kept = 0
    for i in range(n):
        for j in set(range(n)) - {i}:
            near, near_hat = r[i, j] <= k, r_hat[i, j] <= k
            false += (r[i, j] - k) * (near_hat and not near)
            torn += (r_hat[i, j] - k) * (near and not near_hat)
            kept += near and near_hat
    scale = 2 / (n * k * (2 * n - 3 * k - 1))
    return 1 - scale * false, 1 - scale * torn, kept / (n * k)


@pytest.mark.parametrize("k", [1, 5, 12])
def test_scores_of_neighbours_are_what_loops_count(k):
    rng = np.random.default_rng(k)
    X = rng.normal(size=(40, 5))
    Z = X[:, :2] + 0.3 * rng.normal(size=(40, 2))
    scores = [score(X, Z, n_neighbors=k) for score in (trustworthiness, continuity, neighbourhood_preservation)]
    np.testing.assert_allclose(scores, by_loops(X, Z, k))
    assert scores[0] == pytest.approx(manifold.trustworthiness(X, Z, n_neighbors=k))


def test_a_similar_picture_keeps_all_and_one_at_random_keeps_k_of_the_others():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    for score in (trustworthiness, continuity, neighbourhood_preservation):
        assert score(X, 5 * X[:, ::-1] - 1, n_neighbors=10) == pytest.approx(1)
    assert neighbourhood_preservation(X, rng.normal(size=(400, 2)), n_neighbors=40) == pytest.approx(40 / 399, abs=0.02)


def test_a_fold_is_not_trustworthy_and_a_tear_is_not_continuous():
    line = np.linspace(-1, 1, 101)[:, None]
    fold, tear = np.abs(line + 0.003), np.where(line < 0, line - 5, line)
    ring = np.hstack([np.cos(np.pi * line[:-1]), np.sin(np.pi * line[:-1])])
    assert trustworthiness(line, fold) < 0.9 < continuity(line, fold)
    assert continuity(ring, line[:-1]) < trustworthiness(ring, line[:-1])
    assert continuity(line, tear) > 0.99  # a gap between ends that were neighbours costs only those


@pytest.mark.parametrize("score", [trustworthiness, continuity, neighbourhood_preservation])
def test_bad_pairs_are_refused(score):
    X = np.random.default_rng(0).normal(size=(10, 2))
    for k in (0, 10, 11):
        with pytest.raises(ValueError, match="n_neighbors must be"):
            score(X, X, n_neighbors=k)
    with pytest.raises(TypeError, match="n_neighbors must be a whole number"):
        score(X, X, n_neighbors=2.0)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        score(X, X[:5], n_neighbors=1)
    with pytest.raises(ValueError, match="NaN"):
        score(X, np.where(X > 0, np.nan, X))
    assert 0 <= score(np.ones((10, 2)), X, n_neighbors=2) <= 1  # copies of one point
