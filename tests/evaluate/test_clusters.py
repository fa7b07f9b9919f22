"""Scores of groupings, how many groups there are, and how stable: definitions in loops, known answers, noise."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from sklearn import get_config, metrics
from sklearn.cluster import KMeans
from sklearn.metrics.cluster import _unsupervised

from course_utils.evaluate import bootstrap_stability, cluster_scores, consensus, gap_statistic, purity, silhouette


def k_means(x, k):
    return KMeans(k, n_init=3, random_state=0).fit_predict(x)


def groups(n=25, apart=12, d=2, seed=0):
    """Three round groups at the corners of a triangle."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(3 * n, d)) + apart * np.repeat(np.eye(3)[:, :d], n, axis=0), np.repeat([0, 1, 2], n)


# --- purity and the table of scores


@pytest.mark.parametrize("seed", range(5))
def test_purity_counts_the_commonest_class_of_each_group(seed):
    truth, labels = np.random.default_rng(seed).integers(-3, 4, size=(2, 50))
    commonest = sum(Counter(truth[labels == j]).most_common(1)[0][1] for j in set(labels))
    assert purity(truth, labels) == pytest.approx(commonest / 50)


def test_purity_is_one_for_single_points_and_the_commonest_class_for_one_group():
    assert purity([0, 0, 1], [7, 8, 9]) == 1
    assert purity([0, 0, 1], [4, 4, 4]) == pytest.approx(2 / 3)


def test_scores_are_those_of_scikit_learn_and_our_silhouette():
    x, truth = groups(apart=3)
    labels = k_means(x, 4)
    assert cluster_scores(x, labels, truth) == pytest.approx(
        {
            "silhouette": silhouette(x, labels),
            "davies_bouldin": metrics.davies_bouldin_score(x, labels),
            "calinski_harabasz": metrics.calinski_harabasz_score(x, labels),
            "ari": metrics.adjusted_rand_score(truth, labels),
            "nmi": metrics.normalized_mutual_info_score(truth, labels),
            "purity": purity(truth, labels),
        }
    )
    assert set(cluster_scores(x, labels)) == {"silhouette", "davies_bouldin", "calinski_harabasz"}


def test_names_of_groups_do_not_matter():
    x, truth = groups(apart=4)
    assert cluster_scores(x, truth, truth) == pytest.approx(cluster_scores(x, 7 - 3 * truth, truth))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_silhouette_is_scikit_learns_over_all_points_however_many_blocks_it_takes(dtype, monkeypatch):
    x, labels = groups(n=2000, apart=2)  # 6000 points: 288 MB of distances in float64
    x = x.astype(dtype)
    expected = metrics.silhouette_score(x, labels)
    blocks = []
    chunked = _unsupervised.pairwise_distances_chunked

    def counted(*args, **options):
        for part in chunked(*args, **options):
            blocks.append(part)
            yield part

    monkeypatch.setattr(_unsupervised, "pairwise_distances_chunked", counted)
    assert cluster_scores(x, labels)["silhouette"] == pytest.approx(expected, rel=1e-6)
    assert len(blocks) >= 2
    assert cluster_scores(x, labels, sample_size=900, seed=3)["silhouette"] == pytest.approx(
        silhouette(x, labels, sample_size=900, seed=3)
    )
    assert cluster_scores(x, labels, sample_size=900)["silhouette"] != pytest.approx(expected, rel=1e-6)


def test_memory_is_bounded_though_all_pairs_are_compared():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(16_000, 4)), rng.integers(0, 10, 16_000)
    tracemalloc.start()
    try:
        cluster_scores(x, labels, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 32 * 2**20 < peak < 256 * 2**20  # all pairs at once would need 2 GB


def test_the_setting_of_scikit_learn_is_left_as_it_was():
    before = get_config()
    cluster_scores(*groups())
    assert get_config() == before


@pytest.mark.parametrize(
    ("truth", "labels", "error", "sentence"),
    [
        ([0.0, 1.0], [0, 1], TypeError, "truth must be integers, got float64"),
        ([0, 1], ["a", "b"], TypeError, "labels must be integers"),
        ([0, 1, 2], [0, 1], ValueError, "equally long, got 3 and 2"),
        (np.zeros(0, int), np.zeros(0, int), ValueError, r"shape \(N,\), got \(0,\)"),
    ],
)
def test_bad_labels_are_refused(truth, labels, error, sentence):
    with pytest.raises(error, match=sentence):
        purity(truth, labels)


# --- the gap statistic


def test_the_gap_is_what_its_equation_says():
    x, _ = groups(n=8, apart=3)
    found = gap_statistic(x, [1, 2, 3], cluster=k_means, references=4, align=False, seed=3)
    rng = np.random.RandomState(3)
    mean = x.mean(0)
    references = [rng.uniform((x - mean).min(0), (x - mean).max(0), size=x.shape) + mean for _ in range(4)]

    def log_w(x, k):
        """By pairs, as the paper has it: the sum over groups of all squared distances, over twice the size."""
        labels, total = k_means(x, k), 0
        for j in set(labels):
            part = x[labels == j]
            total += sum(((a - b) ** 2).sum() for a in part for b in part) / (2 * len(part))
        return np.log(total)

    for k, gap, error in zip(found.ks, found.gap, found.error, strict=True):
        theirs = [log_w(r, k) for r in references]
        assert gap == pytest.approx(np.mean(theirs) - log_w(x, k))
        assert error == pytest.approx(np.std(theirs) * np.sqrt(1 + 1 / 4), abs=1e-12)


@pytest.mark.parametrize("align", [True, False])
def test_the_gap_finds_three_groups_and_none_in_noise(align):
    options = {"cluster": k_means, "align": align, "references": 8}
    assert gap_statistic(groups()[0], range(1, 6), **options).best == 3
    assert gap_statistic(np.random.default_rng(1).uniform(size=(80, 2)), range(1, 6), **options).best == 1


def test_aligned_references_lie_in_the_box_along_the_principal_components():
    line = np.linspace(-1, 1, 50)[:, None] * [1.0, 1.0]
    seen = []
    gap_statistic(line, [1], cluster=lambda x, k: seen.append(x) or np.zeros(len(x), int), references=2)
    for reference in seen[1:]:
        np.testing.assert_allclose(reference[:, 0], reference[:, 1], atol=1e-12)


def test_turning_the_data_does_not_change_an_aligned_gap():
    x, _ = groups(apart=3)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    one, other = (gap_statistic(a, [1, 2, 3], cluster=k_means, references=20) for a in (x, x @ turn))
    np.testing.assert_allclose(one.gap, other.gap, atol=0.15)


def test_copies_of_one_point_give_no_nan():
    found = gap_statistic(np.ones((6, 2)), [1, 2], cluster=lambda x, k: np.arange(6) % k, references=2)
    assert np.isfinite(found.gap).all()
    assert found.best == 1


@pytest.mark.parametrize(
    ("ks", "references", "sentence"),
    [
        ([1, 3], 5, r"consecutive numbers .* got \[1, 3\]"),
        ([0, 1], 5, "consecutive numbers from 1"),
        ([], 5, "consecutive"),
        ([9, 10], 5, "at most 9"),
        ([1, 2], 1, "references must be at least 2, got 1"),
    ],
)
def test_bad_numbers_of_groups_are_named(ks, references, sentence):
    with pytest.raises(ValueError, match=sentence):
        gap_statistic(np.random.default_rng(0).normal(size=(10, 2)), ks, cluster=k_means, references=references)


# --- stability


def test_the_right_number_is_stable_and_another_is_not():
    x, _ = groups()
    stable, unstable = (bootstrap_stability(x, k, cluster=k_means, repeats=6) for k in (3, 5))
    assert stable.min() > 0.95
    assert unstable.mean() < 0.9
    assert stable.shape == (6,)


def test_groups_at_random_agree_no_more_than_chance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 20))
    agreement = bootstrap_stability(x, 3, cluster=lambda x, k: rng.integers(0, k, len(x)), repeats=20)
    assert abs(agreement.mean()) < 0.1


def test_the_consensus_matrix_is_what_loops_count():
    x, _ = groups(n=5, apart=2)
    drawn = []

    def remember(part, k):
        labels = k_means(part, k)
        drawn.append({tuple(row): label for row, label in zip(part, labels, strict=True)})
        return labels

    found = consensus(x, 3, cluster=remember, repeats=12, part=0.6)
    for i in range(15):
        for j in range(15):
            both = [g for g in drawn if tuple(x[i]) in g and tuple(x[j]) in g]
            together = sum(g[tuple(x[i])] == g[tuple(x[j])] for g in both)
            expected = 1 if i == j else together / len(both) if both else np.nan
            np.testing.assert_allclose(found.matrix[i, j], expected)
    pairs = [found.matrix[i, j] for i in range(15) for j in range(i) if not np.isnan(found.matrix[i, j])]
    assert found.ambiguous == pytest.approx(np.mean([0.1 < p < 0.9 for p in pairs]))


def test_clear_groups_leave_no_pair_in_doubt_and_too_many_do():
    x, truth = groups()
    clear, doubtful = (consensus(x, k, cluster=k_means, repeats=20) for k in (3, 4))
    np.testing.assert_allclose(clear.matrix, truth[:, None] == truth)
    assert clear.ambiguous == 0
    assert doubtful.ambiguous > 0.03


@pytest.mark.parametrize("measure", [bootstrap_stability, consensus])
def test_bad_stability_is_refused(measure):
    x = np.random.default_rng(0).normal(size=(10, 2))
    for k in (1, 11):
        with pytest.raises(ValueError, match=f"k must be between 2 and the .* got {k}"):
            measure(x, k, cluster=k_means)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        measure(x, 2, cluster=k_means, repeats=0)
    with pytest.raises(ValueError, match="finite"):
        measure(np.full((10, 2), np.nan), 2, cluster=k_means)
    with pytest.raises(ValueError, match="part must be between 0 and 1, got 2"):
        consensus(x, 2, cluster=k_means, part=2)
