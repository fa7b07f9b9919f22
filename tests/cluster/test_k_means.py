"""k-means: scikit-learn's result from the same start, its laws, and what happens to clusters that lose their points."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference
from sklearn.cluster import kmeans_plusplus
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from course_utils.cluster import KMeans, MiniBatchKMeans
from course_utils.cluster.k_means import choose_start


def blobs(n=600, d=5, k=6, std=2.5, seed=0, dtype=np.float64):
    return make_blobs(n, d, centers=k, cluster_std=std, random_state=seed)[0].astype(dtype)


def naive(X, centers, iterations):
    """Lloyd's algorithm as it is written in a book, in loops."""
    centers = centers.copy()
    for _ in range(iterations):
        labels = np.array([min(range(len(centers)), key=lambda j: ((x - centers[j]) ** 2).sum()) for x in X])
        centers = np.array([X[labels == j].mean(axis=0) for j in range(len(centers))])
    return centers


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_it_takes_the_steps_of_lloyds_algorithm(iterations):
    X = blobs(120, 3, 4)
    found = KMeans(4, init=X[:4], max_iter=iterations, tol=0).fit(X)
    np.testing.assert_allclose(found.cluster_centers_, naive(X, X[:4], iterations), rtol=1e-10)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("kind", ["blobs", "noise"])
def test_from_the_same_start_it_ends_where_scikit_learn_ends(seed, offset, kind):
    rng = np.random.default_rng(seed)
    X = (blobs(800, seed=seed) if kind == "blobs" else rng.normal(size=(2000, 8))) + offset
    start = X[rng.choice(len(X), 7, replace=False)]
    for tol in (0, 1e-4):
        ours, theirs = (kind(7, init=start, n_init=1, tol=tol).fit(X) for kind in (KMeans, Reference))
        assert ours.n_iter_ == theirs.n_iter_
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-9, atol=1e-9)
        assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_in_single_precision_the_inertia_is_within_a_thousandth_of_scikit_learns(seed):
    X = blobs(3000, 16, 10, std=6, seed=seed, dtype=np.float32)
    ours, theirs = (kind(10, init=X[:10], n_init=1).fit(X) for kind in (KMeans, Reference))
    assert ours.cluster_centers_.dtype == np.float32
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-3)


@pytest.mark.parametrize(("start", "trials"), [("k-means++", 1), ("greedy k-means++", None)])
@pytest.mark.parametrize("seed", range(3))
def test_a_start_is_the_one_that_scikit_learn_draws_from_the_same_state(start, trials, seed):
    X = blobs(300)
    expected, _ = kmeans_plusplus(X, 9, random_state=seed, n_local_trials=trials)
    np.testing.assert_array_equal(choose_start(X, 9, start, np.random.RandomState(seed)), expected)


def test_random_starts_are_distinct_points():
    X = np.arange(20.0)[:, None]
    drawn = choose_start(X, 20, "random", np.random.RandomState(0))
    np.testing.assert_array_equal(np.sort(drawn, axis=0), X)


def test_more_iterations_never_raise_the_inertia():
    X = np.random.default_rng(0).normal(size=(1000, 4))
    inertia = [KMeans(12, init=X[:12], max_iter=t, tol=0).fit(X).inertia_ for t in range(1, 25)]
    assert (np.diff(inertia) <= 1e-9).all()


def test_labels_are_the_nearest_centres_and_the_inertia_is_what_it_says():
    X = blobs(500)
    model = KMeans(5, random_state=0).fit(X)
    squares = ((X[:, None] - model.cluster_centers_) ** 2).sum(-1)
    np.testing.assert_array_equal(model.labels_, squares.argmin(1))
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    np.testing.assert_allclose(model.transform(X) ** 2, squares, rtol=1e-8)
    assert model.inertia_ == pytest.approx(squares.min(1).sum())
    assert model.score(X) == pytest.approx(-model.inertia_)


def test_restarts_keep_the_best_of_what_single_starts_find():
    X = blobs(400, 2, 8, std=0.5)
    rng = np.random.RandomState(3)
    single = [KMeans(8, init="random", n_init=1, random_state=rng).fit(X).inertia_ for _ in range(10)]
    best = KMeans(8, init="random", n_init=10, random_state=np.random.RandomState(3)).fit(X).inertia_
    assert best == pytest.approx(min(single)) != pytest.approx(max(single))


def test_a_cluster_without_points_takes_the_farthest_one():
    X = np.array([[0.0], [1.0], [2.0], [50.0]])
    model = KMeans(2, init=np.array([[1.0], [-1000.0]])).fit(X)
    assert sorted(model.cluster_centers_.ravel()) == [1.0, 50.0]


@pytest.mark.parametrize("seed", range(10))
def test_centres_that_start_far_away_all_end_with_points(seed):
    X = blobs(200, 2, 4, seed=seed)
    start = np.vstack([X[:3], np.full((3, 2), 1e3) + np.arange(3)[:, None]])
    model = KMeans(6, init=start, tol=0).fit(X)
    assert len(np.unique(model.labels_)) == 6
    for j, center in enumerate(model.cluster_centers_):
        np.testing.assert_allclose(center, X[model.labels_ == j].mean(axis=0))


@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
def test_one_cluster_is_the_mean_and_as_many_as_points_are_the_points(kind):
    X = blobs(30, 3)
    one = KMeans(1).fit(X)
    np.testing.assert_allclose(one.cluster_centers_[0], X.mean(axis=0), atol=1e-12)
    assert one.inertia_ == pytest.approx(X.var(axis=0).sum() * len(X))
    assert kind(30, random_state=0).fit(X).inertia_ == pytest.approx(0, abs=1e-20)


def test_copies_of_too_few_points_are_warned_of_and_grouped():
    X = np.repeat([[0.0, 1.0], [5.0, 5.0]], 10, axis=0)
    with pytest.warns(ConvergenceWarning, match="only 2 of 4 clusters have points"):
        model = KMeans(4, random_state=0).fit(X)
    assert adjusted_rand_score(model.labels_, np.repeat([0, 1], 10)) == 1
    assert np.isfinite(model.cluster_centers_).all()


def test_constant_and_huge_features_do_no_harm():
    X = np.column_stack([np.full(90, 7.0), blobs(90, 1, 3) * 1e150])
    assert np.isfinite(KMeans(3, random_state=0).fit(X / 1e100).inertia_)
    one = KMeans(1).fit(np.full((5, 2), 3.0))
    assert (one.inertia_, one.cluster_centers_.tolist()) == (0, [[3, 3]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_clusters": 5}, ValueError, "at most the number of samples, got n_clusters=5 and n_samples=4"),
        ({"n_clusters": 0}, ValueError, "n_clusters must be at least 1, got 0"),
        ({"n_clusters": 2.0}, TypeError, "n_clusters must be a whole number, got 2.0"),
        ({"init": "pca"}, ValueError, "init must be one of 'k-means.+ or an array of centres, got 'pca'"),
        ({"init": 3}, ValueError, "init must be one of"),
        ({"init": [[0.0, 1.0]]}, ValueError, r"init must have shape \(2, 1\), got \(1, 2\)"),
        ({"init": [[0.0], [np.nan]]}, ValueError, "init must be finite"),
        ({"n_init": 0}, ValueError, "n_init must be at least 1"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"tol": -1}, ValueError, "tol must be finite and not negative, got -1"),
        ({"tol": "small"}, TypeError, "tol must be a number"),
    ],
)
@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
def test_bad_options_are_named(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**{"n_clusters": 2} | options).fit(np.arange(4.0)[:, None])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="got 'cuda' and there is no GPU"):
        KMeans(2, device="cuda").fit(np.arange(4.0)[:, None])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_processor_gives():
    X = blobs(2000, 8, 6)
    on_cpu, on_gpu = (KMeans(6, random_state=0, device=device).fit(X) for device in ("cpu", "cuda"))
    np.testing.assert_array_equal(on_cpu.labels_, on_gpu.labels_)
    np.testing.assert_allclose(on_cpu.cluster_centers_, on_gpu.cluster_centers_, rtol=1e-8)


# --- from small batches


def sculley(batches, centers):
    """Algorithm 1 of the paper, point by point."""
    centers, v = centers.copy(), np.zeros(len(centers))
    for batch in batches:
        nearest = [((x - centers) ** 2).sum(1).argmin() for x in batch]
        for x, j in zip(batch, nearest, strict=True):
            v[j] += 1
            centers[j] = (1 - 1 / v[j]) * centers[j] + x / v[j]
    return centers


def test_partial_fits_take_the_steps_of_sculleys_algorithm():
    X = blobs(160, 3, 4)
    model = MiniBatchKMeans(4, init=X[:4])
    for batch in np.split(X, 8):
        model.partial_fit(batch)
    np.testing.assert_allclose(model.cluster_centers_, sculley(np.split(X, 8), X[:4]), rtol=1e-10)
    assert model.counts_.sum() == 160


@pytest.mark.parametrize("seed", range(3))
def test_batches_end_near_what_k_means_finds(seed):
    X = blobs(5000, 8, 6, std=1.5, seed=seed)
    whole = KMeans(6, random_state=seed).fit(X)
    batches = MiniBatchKMeans(6, batch_size=256, random_state=seed).fit(X)
    assert whole.inertia_ * (1 - 1e-9) <= batches.inertia_ <= 1.05 * whole.inertia_


def test_a_first_batch_must_hold_the_centres():
    with pytest.raises(ValueError, match="got n_clusters=8 and n_samples=3"):
        MiniBatchKMeans(8).partial_fit(np.zeros((3, 2)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_result_does_not_depend_on_the_number_of_threads_which_stays_as_it_was(threads, monkeypatch):
    monkeypatch.setattr("course_utils.cluster.k_means.CELLS", 2**12)  # many blocks
    x = np.random.default_rng(0).normal(size=(5_000, 3))
    start = x[:7]
    before = torch.get_num_threads()
    expected = Reference(7, init=start, n_init=1, tol=0).fit(x)
    try:
        torch.set_num_threads(threads)
        found = KMeans(7, init=start, n_init=1, tol=0).fit(x)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found.labels_.tolist() == expected.labels_.tolist()
    assert found.n_iter_ == expected.n_iter_
    np.testing.assert_allclose(found.cluster_centers_, expected.cluster_centers_, rtol=1e-9, atol=1e-12)
