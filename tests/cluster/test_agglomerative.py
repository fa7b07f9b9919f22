"""Trees: SciPy's, merge for merge, and where there are ties at least the same heights."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import cophenet, is_valid_linkage, linkage
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering as Reference
from sklearn.metrics import adjusted_rand_score

from course_utils.cluster import AgglomerativeClustering
from course_utils.cluster.agglomerative import LINKAGES, cut, lance_williams, merge_tree

EVERY = pytest.mark.parametrize("kind", LINKAGES)


@EVERY
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [2, 3, 10, 150])
def test_the_tree_is_scipys(kind, seed, n):
    X = np.random.default_rng(seed).normal(size=(n, 3))
    np.testing.assert_allclose(merge_tree(X, kind), linkage(X, kind), rtol=1e-9)


def closest_first(X, kind):
    """Heights of always merging the closest two, from the definition of how far two clusters are apart."""

    def apart(a, b):
        between = np.linalg.norm(X[a][:, None] - X[b], axis=-1)
        means = np.linalg.norm(X[a].mean(0) - X[b].mean(0))
        ward = np.sqrt(2 * len(a) * len(b) / (len(a) + len(b))) * means
        return {"single": between.min(), "complete": between.max(), "average": between.mean(), "ward": ward}[kind]

    clusters, heights = [[i] for i in range(len(X))], []
    while len(clusters) > 1:
        pairs = [(apart(a, b), i, j) for j, b in enumerate(clusters) for i, a in enumerate(clusters[:j])]
        height, i, j = min(pairs)
        heights.append(height)
        clusters[i] += clusters.pop(j)
    return heights


@EVERY
def test_heights_are_those_of_merging_the_closest_two_by_definition(kind):
    X = np.random.default_rng(1).normal(size=(25, 2))
    np.testing.assert_allclose(merge_tree(X, kind)[:, 2], closest_first(X, kind), rtol=1e-9)


@EVERY
def test_copies_and_ties_give_a_valid_tree(kind):
    X = np.repeat(np.arange(4.0), 5)[:, None]
    tree = merge_tree(X, kind)
    assert is_valid_linkage(tree)
    assert (tree[:16, 2] == 0).all()
    assert (np.diff(tree[:, 2]) >= 0).all()
    assert adjusted_rand_score(cut(tree, 4), X.ravel().astype(int)) == 1
    if kind == "single":  # the one linkage whose heights do not depend on how ties are broken
        np.testing.assert_allclose(cophenet(tree), cophenet(linkage(X, "single")))


@EVERY
@pytest.mark.parametrize("n_clusters", [1, 2, 5, 60])
def test_the_cut_is_scikit_learns(kind, n_clusters):
    X = np.random.default_rng(2).normal(size=(60, 4))
    ours = AgglomerativeClustering(n_clusters, linkage=kind).fit(X)
    theirs = Reference(n_clusters, linkage=kind).fit(X)
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1
    assert len(np.unique(ours.labels_)) == n_clusters
    assert ours.labels_[0] == 0


@EVERY
def test_the_update_is_the_distance_to_the_union(kind):
    """Lance and Williams' formula against the definition, for clusters of unequal sizes."""
    rng = np.random.default_rng(3)
    a, b, c = (rng.normal(size=(size, 3)) for size in (2, 5, 3))

    def apart(p, q):
        between = np.linalg.norm(p[:, None] - q, axis=-1)
        ward = np.sqrt(2 * len(p) * len(q) / (len(p) + len(q))) * np.linalg.norm(p.mean(0) - q.mean(0))
        return {"single": between.min(), "complete": between.max(), "average": between.mean(), "ward": ward}[kind]

    updated = lance_williams(kind, np.array([apart(a, c)]), np.array([apart(b, c)]), apart(a, b), 2, 5, np.array([3]))
    np.testing.assert_allclose(updated, apart(np.vstack([a, b]), c))


def test_one_point_is_one_cluster_and_one_constant_feature_no_obstacle():
    single = AgglomerativeClustering(1).fit([[3.0]])
    assert (single.labels_.tolist(), single.tree_.shape) == ([0], (0, 4))
    X = np.column_stack([np.random.default_rng(0).normal(size=20), np.ones(20)])
    np.testing.assert_allclose(merge_tree(X, "average")[-1, 2] > 0, True)
    assert pdist(X).min() > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_clusters": 4}, ValueError, "got n_clusters=4 and n_samples=3"),
        ({"n_clusters": 0}, ValueError, "n_clusters must be at least 1, got 0"),
        ({"n_clusters": "two"}, TypeError, "n_clusters must be a whole number, got 'two'"),
        ({"linkage": "centroid"}, ValueError, "linkage must be one of 'single', .*, got 'centroid'"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        AgglomerativeClustering(**options).fit([[0.0], [1.0], [2.0]])
