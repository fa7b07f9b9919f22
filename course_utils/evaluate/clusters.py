"""How good groups are, how many there are, and whether there are any."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
    pairwise_distances_argmin,
)
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import check_random_state

from course_utils.evaluate._inputs import as_features, as_labels
from course_utils.evaluate.scores import silhouette

# --- scores of one grouping


def purity(truth, labels) -> float:
    """The part of examples that carry the commonest true class of their group.

    truth, labels: (N,) integers. It never falls when a group is split, and is 1 when each example is its own group:
    compare it at equal numbers of groups only (Manning, Raghavan and Schütze 2008, section 16.3).

    Raises ValueError for lengths that differ or none; TypeError for labels that are not integers.

    >>> purity([0, 0, 1, 1], [5, 5, 5, 7])
    0.75
    """
    truth, labels = _label_pair(truth, labels)
    return float(contingency_matrix(truth, labels, sparse=True).max(axis=0).sum() / len(labels))


def cluster_scores(x, labels, truth=None, *, sample_size: int | None = None, seed: int = 0) -> dict[str, float]:
    """The usual scores of a grouping by name; those of a comparison with true classes if `truth` is given.

    x: (N, D) floating point. labels, truth: (N,) integers, 2 to N − 1 groups. Without truth: "silhouette",
    "davies_bouldin" (0 is best), "calinski_harabasz" (more is better). With truth also "ari", "nmi" and "purity". All
    but purity are scikit-learn's.

    The silhouette is that of all examples, or of `sample_size` random ones, from `seed`: see `silhouette`.

    Raises ValueError and TypeError as `silhouette` does.

    >>> scores = cluster_scores(np.array([[0.0], [1.0], [10.0], [11.0]]), [0, 0, 1, 1], truth=[3, 3, 3, 4])
    >>> [f"{name} {value:.2f}" for name, value in scores.items()]  # doctest: +NORMALIZE_WHITESPACE
    ['silhouette 0.90', 'davies_bouldin 0.10', 'calinski_harabasz 200.00', 'ari 0.00', 'nmi 0.34', 'purity 0.75']
    """
    features = as_features(x, "x")
    groups = as_labels(labels, "labels", features).cpu().numpy()
    scores = {"silhouette": silhouette(features, labels, sample_size=sample_size, seed=seed)}
    array = features.cpu().numpy()
    scores["davies_bouldin"] = float(davies_bouldin_score(array, groups))
    scores["calinski_harabasz"] = float(calinski_harabasz_score(array, groups))
    if truth is not None:
        truth = as_labels(truth, "truth", features).cpu().numpy()
        scores["ari"] = float(adjusted_rand_score(truth, groups))
        scores["nmi"] = float(normalized_mutual_info_score(truth, groups))
        scores["purity"] = purity(truth, groups)
    return scores


# --- how many: the gap statistic


class Gap(NamedTuple):
    """For each k of `ks`: `gap`, and `error`, the standard error of its simulation; `best`, the k that is chosen."""

    ks: list[int]
    gap: np.ndarray
    error: np.ndarray
    best: int


def gap_statistic(x, ks, *, cluster: Callable, references: int = 10, align: bool = True, seed: int = 0) -> Gap:
    """How much tighter k groups are in the data than in data without groups (Tibshirani, Walther and Hastie 2001).

    Gap(k) = mean of log W_k over reference data − log W_k, with W_k the sum of squared distances to the means of the
    groups, which is their W_k for squared Euclidean distances. Reference data are even over a box: of the features, or,
    with `align`, along the principal components (their choice b). `best` is the smallest k with
    Gap(k) ≥ Gap(k + 1) − s_{k+1}, where s = standard deviation · √(1 + 1/references); the last k if there is none.

    x: (N, D) floating point. ks: consecutive numbers of groups, from 1 to say "no groups". cluster(x, k) -> labels.

    Raises ValueError for shapes, ks outside 1 … N − 1 or with gaps, or fewer than 2 references; TypeError as ever.

    >>> from sklearn.cluster import KMeans
    >>> x = np.random.default_rng(0).normal(size=(60, 2)) + 9 * np.repeat([[0, 0], [1, 1], [0, 1]], 20, axis=0)
    >>> gap_statistic(x, range(1, 6), cluster=lambda x, k: KMeans(k, n_init=5, random_state=0).fit_predict(x)).best
    3
    """
    x = as_features(x, "x", at_least=2).cpu().double().numpy()
    ks = [int(k) for k in ks]
    if not ks or ks != list(range(ks[0], ks[-1] + 1)) or not 1 <= ks[0] <= ks[-1] < len(x):
        raise ValueError(f"ks must be consecutive numbers from 1 to at most {len(x) - 1}, got {ks}")
    if references < 2:
        raise ValueError(f"references must be at least 2, got {references}")
    rng = check_random_state(seed)
    mean = x.mean(axis=0)
    axes = np.linalg.svd(x - mean, full_matrices=False)[2] if align else np.eye(x.shape[1])
    z = (x - mean) @ axes.T  # (N, min(N, D)): what the rows of the reference are drawn around
    low, high = z.min(axis=0), z.max(axis=0)
    random = [rng.uniform(low, high, size=z.shape) @ axes + mean for _ in range(references)]
    ours = np.array([_log_within(x, cluster(x, k)) for k in ks])
    theirs = np.array([[_log_within(r, cluster(r, k)) for k in ks] for r in random])  # (references, K)
    gap = theirs.mean(axis=0) - ours
    error = theirs.std(axis=0) * np.sqrt(1 + 1 / references)
    enough = gap[:-1] >= gap[1:] - error[1:]
    return Gap(ks, gap, error, ks[int(enough.argmax())] if enough.any() else ks[-1])


def _log_within(x: np.ndarray, labels: np.ndarray) -> float:
    """log of the sum of squared distances to the means of the groups; of the least double where that is 0."""
    _, where = np.unique(labels, return_inverse=True)
    groups = np.eye(where.max() + 1)[where]  # (N, k)
    means = groups.T @ x / groups.sum(axis=0)[:, None]
    return float(np.log(max(((x - means[where]) ** 2).sum(), np.finfo(float).tiny)))


# --- are they there: stability


def bootstrap_stability(x, k: int, *, cluster: Callable, repeats: int = 20, seed: int = 0) -> np.ndarray:
    """How alike the groupings learnt from two bootstrap samples are, (repeats,): adjusted Rand indices of all rows.

    Each repeat draws two samples of N rows with replacement, groups each, and gives every row of x the group whose mean
    is nearest, a protocol of von Luxburg (2010). 1: the same groups whatever the sample; 0: no more than chance.
    One group is always the same group, so k must be at least 2.

    x: (N, D) floating point. cluster(x, k) -> labels. Raises ValueError for shapes, k outside 2 … N or repeats < 1.

    >>> from sklearn.cluster import KMeans
    >>> x = np.random.default_rng(0).normal(size=(60, 2)) + 20 * np.repeat([[0, 0], [1, 1]], 30, axis=0)
    >>> bootstrap_stability(x, 2, cluster=lambda x, k: KMeans(k, random_state=0).fit_predict(x), repeats=3).tolist()
    [1.0, 1.0, 1.0]
    """
    x = as_features(x, "x", at_least=2).cpu().double().numpy()
    _check_repeats(k, len(x), repeats)
    rng = check_random_state(seed)

    def grouped():
        drawn = x[rng.randint(len(x), size=len(x))]
        labels = np.asarray(cluster(drawn, k))
        return pairwise_distances_argmin(x, np.array([drawn[labels == j].mean(axis=0) for j in np.unique(labels)]))

    return np.array([adjusted_rand_score(grouped(), grouped()) for _ in range(repeats)])


class Consensus(NamedTuple):
    """`matrix` (N, N): how often two examples share a group. `ambiguous`: the part of pairs that no group decides."""

    matrix: np.ndarray
    ambiguous: float


def consensus(x, k: int, *, cluster: Callable, repeats: int = 50, part: float = 0.8, seed: int = 0) -> Consensus:
    """The consensus matrix of groupings of random parts of the data (Monti, Tamayo, Mesirov and Golub 2003).

    Entry (i, j) is the number of parts in which i and j share a group, over the number that hold both (their equation
    for M); NaN where none does, 1 on the diagonal. Groups that are there give entries of 0 and 1. `ambiguous` is the
    proportion of pairs with an entry strictly between 0.1 and 0.9 (Șenbabaoğlu, Michailidis and Li 2014).

    x: (N, D) floating point; memory grows with N². cluster(x, k) -> labels. part: of the rows, without replacement.

    Raises ValueError for shapes, part outside (0, 1], k outside 2 … the rows of a part, or repeats < 1.

    >>> from sklearn.cluster import KMeans
    >>> x = np.array([[0.0], [1.0], [10.0], [11.0], [12.0]])
    >>> found = consensus(x, 2, cluster=lambda x, k: KMeans(k, random_state=0).fit_predict(x), repeats=30)
    >>> found.matrix[0].tolist(), found.ambiguous
    ([1.0, 1.0, 0.0, 0.0, 0.0], 0.0)
    """
    x = as_features(x, "x", at_least=2).cpu().double().numpy()
    if not 0 < part <= 1:
        raise ValueError(f"part must be between 0 and 1, got {part}")
    size = round(part * len(x))
    _check_repeats(k, size, repeats)
    rng = check_random_state(seed)
    together, drawn = np.zeros((2, len(x), len(x)))
    for _ in range(repeats):
        rows = rng.permutation(len(x))[:size]
        labels = np.asarray(cluster(x[rows], k))
        drawn[np.ix_(rows, rows)] += 1
        together[np.ix_(rows, rows)] += labels[:, None] == labels
    matrix = np.divide(together, drawn, out=np.full_like(drawn, np.nan), where=drawn > 0)
    np.fill_diagonal(matrix, 1)
    pairs = matrix[np.triu_indices(len(x), 1)]
    pairs = pairs[~np.isnan(pairs)]
    return Consensus(matrix, float(((pairs > 0.1) & (pairs < 0.9)).mean()))


def _check_repeats(k: int, n: int, repeats: int) -> None:
    if not 2 <= k <= n:
        raise ValueError(f"k must be between 2 and the {n} examples that are grouped at a time, got {k}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")


def _label_pair(truth, labels) -> tuple[np.ndarray, np.ndarray]:
    pair = {"truth": np.asarray(truth), "labels": np.asarray(labels)}
    for name, value in pair.items():
        if value.dtype.kind not in "iub":
            raise TypeError(f"{name} must be integers, got {value.dtype}")
        if value.ndim != 1 or len(value) == 0:
            raise ValueError(f"{name} must have shape (N,), got {value.shape}")
    if len(pair["truth"]) != len(pair["labels"]):
        raise ValueError(f"truth and labels must be equally long, got {len(pair['truth'])} and {len(pair['labels'])}")
    return pair["truth"], pair["labels"]
