"""Agglomerative clustering: every point its own cluster, then merge the closest two until one is left."""

import numpy as np
from scipy.spatial.distance import pdist, squareform
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data

from course_utils.cluster._checks import check_choice, check_groups

LINKAGES = ("single", "complete", "average", "ward")


def lance_williams(linkage: str, d_a, d_b, d_ab, n_a, n_b, n):
    """How far the union of a and b is from other clusters, from how far a and b are (Lance and Williams 1967).

    d_a, d_b: distances of the others to a and to b, n their sizes; d_ab: that of a and b, n_a and n_b their sizes.
    Ward's formula holds for squares (Ward 1963; Murtagh and Legendre 2014), so its roots are taken.

    >>> lance_williams("single", np.array([3.0]), np.array([5.0]), 1.0, 1, 1, np.array([1]))
    array([3.])
    """
    if linkage == "single":
        return np.minimum(d_a, d_b)
    if linkage == "complete":
        return np.maximum(d_a, d_b)
    if linkage == "average":
        return (n_a * d_a + n_b * d_b) / (n_a + n_b)
    squares = ((n_a + n) * d_a**2 + (n_b + n) * d_b**2 - n * d_ab**2) / (n_a + n_b + n)
    return np.sqrt(np.maximum(squares, 0))


def merge_tree(X: np.ndarray, linkage: str) -> np.ndarray:
    """The N − 1 merges of the rows of X (N, D) as (N − 1, 4) in SciPy's format: two clusters, distance, size.

    Cluster i < N is row i, cluster N + t is made by merge t; merges are sorted by distance. By the nearest-neighbour
    chain (Murtagh 1983): go from a cluster to its nearest, and on, until two are each other's nearest; merge them, and
    go on from the chain's end. For these four linkages no merge brings clusters nearer to a third than both were, so
    the tree is that of always merging the closest two. O(N²) time, and memory for all pairs of distances.

    >>> merge_tree(np.array([[0.0], [1.0], [5.0]]), "single").tolist()
    [[0.0, 1.0, 1.0, 2.0], [2.0, 3.0, 4.0, 3.0]]
    """
    n = len(X)
    distance = squareform(pdist(X))
    np.fill_diagonal(distance, np.inf)
    sizes = np.ones(n)
    merges, chain = [], []
    for _ in range(n - 1):
        if not chain:
            chain.append(int(np.flatnonzero(sizes)[0]))
        while True:
            a = chain[-1]
            b = int(distance[a].argmin())
            if len(chain) > 1 and distance[a, chain[-2]] <= distance[a, b]:
                b = chain[-2]  # each other's nearest; on a tie the one we came from, or the chain could go round
                break
            chain.append(b)
        del chain[-2:]
        a, b = min(a, b), max(a, b)
        merges.append((a, b, distance[a, b]))
        joined = lance_williams(linkage, distance[a], distance[b], distance[a, b], sizes[a], sizes[b], sizes)
        joined[[a, b]] = np.inf
        joined[sizes == 0] = np.inf
        distance[b], distance[:, b] = joined, joined  # the union lives in b's place
        distance[a], distance[:, a] = np.inf, np.inf
        sizes[b], sizes[a] = sizes[a] + sizes[b], 0
    return _in_order(merges, n)


def _in_order(merges: list[tuple], n: int) -> np.ndarray:
    """Merges sorted by distance, with clusters named as SciPy does and counted."""
    tree = np.zeros((n - 1, 4))
    root, sizes = list(range(2 * n - 1)), np.ones(2 * n - 1)

    def find(i):
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for t, (a, b, height) in enumerate(sorted(merges, key=lambda merge: merge[2])):
        a, b = sorted((find(a), find(b)))
        sizes[n + t] = sizes[a] + sizes[b]
        tree[t] = a, b, height, sizes[n + t]
        root[a] = root[b] = n + t
    return tree


def cut(tree: np.ndarray, n_clusters: int) -> np.ndarray:
    """Labels (N,) of the clusters that are left before the last n_clusters − 1 merges, numbered as they first appear.

    >>> cut(merge_tree(np.array([[0.0], [5.0], [1.0]]), "single"), 2).tolist()
    [0, 1, 0]
    """
    n = len(tree) + 1
    owner = np.arange(2 * n - 1)
    for t in range(n - n_clusters - 1, -1, -1):  # from the top down, so that every cluster's owner is known
        owner[tree[t, :2].astype(int)] = owner[n + t]
    _, first, labels = np.unique(owner[:n], return_index=True, return_inverse=True)
    return first.argsort().argsort()[labels]


class AgglomerativeClustering(ClusterMixin, BaseEstimator):
    """Hierarchical clustering from the bottom up: a tree of all merges, cut where `n_clusters` are left.

    linkage says how far two clusters are apart: "single", the closest pair of their points; "complete", the farthest
    pair; "average", the mean over all pairs; "ward", √(2 n_a n_b / (n_a + n_b)) times the distance of their means, so
    that the merge which raises the sum of squares least comes first. Distances are Euclidean. Memory: N² numbers.

    After `fit`: `labels_` (N,), and `tree_` (N − 1, 4), the merges in SciPy's format: `scipy.cluster.hierarchy` can
    draw, cut and compare it.

    Raises ValueError for more clusters than samples, values that are not finite and an unknown linkage; TypeError for a
    number of clusters that is not whole.

    >>> model = AgglomerativeClustering(2, linkage="single").fit([[0.0], [1.0], [5.0], [6.5]])
    >>> model.labels_.tolist(), model.tree_[:, 2].tolist()
    ([0, 0, 1, 1], [1.0, 1.5, 4.0])
    """

    def __init__(self, n_clusters=2, *, linkage="ward"):
        self.n_clusters = n_clusters
        self.linkage = linkage

    def fit(self, X, y=None):
        """Build the tree and cut it; y is ignored."""
        X = validate_data(self, X, dtype=np.float64)
        check_groups(self.n_clusters, "n_clusters", len(X))
        check_choice(self.linkage, "linkage", LINKAGES)
        self.tree_ = merge_tree(X, self.linkage)
        self.labels_ = cut(self.tree_, self.n_clusters)
        return self
