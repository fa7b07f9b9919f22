"""k-means: every point to its nearest centre, every centre to the mean of its points, until nothing moves."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from course_utils.cluster._checks import as_start, check_choice, check_groups, check_not_negative, check_whole

STARTS = ("k-means++", "greedy k-means++", "random")
CELLS = 2**21  # numbers of a block of rows and its distances: fewer spend their time on calls, more leave the cache


# --- the algorithm, on tensors


class Solution(NamedTuple):
    """Where a run of k-means ended: labels (N,), centres (k, D), the sum of squared distances, iterations."""

    labels: Tensor
    centers: Tensor
    inertia: float
    n_iter: int


class Change(NamedTuple):
    """Points that changed their cluster: how many, what the clusters' sums gain (k, D), and their counts (k,)."""

    moved: int
    sums: Tensor
    counts: Tensor


def relative_squares(x: Tensor, centers: Tensor) -> Tensor:
    """‖x − c‖² − ‖x‖² of every centre c and every row x of (N, D), as (k, N).

    ‖x − c‖² = ‖x‖² − 2 x·c + ‖c‖²: nearly all of the work is one matrix product, and ‖x‖² decides nothing. With a row
    for each centre, the least of a column is found several numbers at a time.
    """
    return torch.addmm(centers.square().sum(1)[:, None], centers, x.T, alpha=-2)


def nearest(squares: Tensor) -> Tensor:
    """The row of the least number in each column of (k, N): (N,)."""
    on_cpu = squares.device.type == "cpu"  # there numpy's argmin takes half of the time of torch's
    return torch.from_numpy(squares.numpy().argmin(0)) if on_cpu else squares.argmin(0)


def blocks(x: Tensor, k: int) -> Iterator[slice]:
    """Slices of the rows of x (N, D), in each of which the rows and their distances to k centres are few enough."""
    size = max(256, CELLS // (x.shape[1] + k))
    return (slice(start, start + size) for start in range(0, len(x), size))


def assign(x: Tensor, centers: Tensor, each: Callable = map) -> tuple[Tensor, float]:
    """The nearest centre of every row, and the sum of the squared distances, computed from the differences."""
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)

    def assign_block(rows: slice) -> Tensor:
        labels[rows] = nearest(relative_squares(x[rows], centers))
        return (x[rows] - centers[labels[rows]]).square_().sum(dtype=torch.float64)

    return labels, sum(each(assign_block, blocks(x, len(centers)))).item()


@contextmanager
def threads(x: Tensor, k: int):
    """A `map` over blocks of rows that uses all of torch's threads, each block in one: they never wait for another.

    Within one operation on a block, threads would spend their time waiting for each other. On a GPU, and for x (N, D)
    that is a single block with its distances to k centres, it is plain `map`.
    """
    count = torch.get_num_threads()
    if x.device.type != "cpu" or count == 1 or len(list(blocks(x, k))) == 1:
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(count)


class Lloyd:
    """One run of Lloyd's algorithm, which leaves out distances that cannot change a label (Hamerly 2010).

    A point keeps two bounds: `upper`, at least the distance to its centre, and `lower`, at most that to any other.
    When centres move, `upper` grows by how far its own went and `lower` shrinks by the farthest that another went. As
    long as upper ≤ lower the label stands; only the other points are measured again. The sums of the clusters are
    corrected by the points that changed. The result is Lloyd's. Blocks of points are independent: `each` maps a
    function over them, in threads if it likes.
    """

    def __init__(self, x: Tensor, centers: Tensor, each: Callable = map):
        self.x, self.centers, self.each = x, centers, each
        n, k = len(x), len(centers)
        self.norms = torch.linalg.vector_norm(x, dim=1).square_()
        self.labels = torch.zeros(n, dtype=torch.int64, device=x.device)
        self.upper = torch.full((n,), torch.inf, dtype=x.dtype, device=x.device)
        self.lower = torch.zeros(n, dtype=x.dtype, device=x.device)
        self.shift = torch.zeros(k, dtype=x.dtype, device=x.device)  # how far each centre went last
        self.sums = torch.zeros(k, x.shape[1], dtype=torch.float64, device=x.device)
        self.sums[0] = sum(each(lambda rows: x[rows].sum(0, dtype=torch.float64), blocks(x, k)))  # all are in the first
        self.counts = torch.zeros(k, dtype=torch.int64, device=x.device)
        self.counts[0] = n

    def run(self, max_iter: int, tol: float) -> Solution:
        """Until no label changes, or the squared moves of the centres sum to at most tol, or max_iter iterations."""
        moved = len(self.x)
        for n_iter in range(1, max_iter + 1):
            moved = self.measure(with_bounds=moved < 0.1 * len(self.x)) + self.fill_empty()
            self.move()
            if (moved == 0 and n_iter > 1) or (self.shift.square().sum() <= tol and self.counts.min() > 0):
                break
        labels, inertia = assign(self.x, self.centers, self.each)
        return Solution(labels, self.centers, inertia, n_iter)

    def measure(self, *, with_bounds: bool = True) -> int:
        """Labels of all points whose bounds have crossed; returns how many changed.

        with_bounds: whether to find new bounds too, which cost a little, and are of no use while centres go far.
        """
        between = torch.cdist(self.centers, self.centers).fill_diagonal_(torch.inf)
        half = between.amin(dim=1) / 2  # nearer to its centre than this, a point has no nearer one
        farthest = self.shift.argmax()  # how far any other centre went: for all but one, as far as the farthest
        others = torch.full_like(self.shift, self.shift[farthest])
        others[farthest] = self.shift.index_fill(0, farthest, 0).amax()

        def measure_block(rows: slice) -> Change:
            x, norms, labels, upper, lower = (
                a[rows] for a in (self.x, self.norms, self.labels, self.upper, self.lower)
            )
            upper += self.shift.index_select(0, labels)
            lower -= others.index_select(0, labels)
            some = (upper > torch.maximum(lower, half.index_select(0, labels))).nonzero()[:, 0]
            if len(some) > 0.75 * len(x):  # then leaving the rest out costs more than it saves
                some, part, before = slice(None), x, labels
            else:
                part, before, norms = (a.index_select(0, some) for a in (x, labels, norms))
            squares = relative_squares(part, self.centers)
            held, least = squares.gather(0, before[None])[0], squares.amin(0)
            changed = (least < held).nonzero()[:, 0]
            old, new = before[changed], nearest(squares.index_select(1, changed))
            after = before.index_copy(0, changed, new)
            labels[some] = after
            if with_bounds:
                second = squares.scatter_(0, after[None], torch.inf).amin(0)
                upper[some], lower[some] = ((s + norms).clamp_(min=0).sqrt_() for s in (least, second))
            return self.change(part.index_select(0, changed), old, new)

        changes = self.each(measure_block, blocks(self.x, len(self.centers)))
        return sum(self.correct(change) for change in changes)

    def change(self, part: Tensor, old: Tensor, new: Tensor) -> Change:
        """What the sums and counts of the clusters gain when the rows of `part` go from `old` to `new` labels."""
        gained = torch.zeros(len(self.centers), len(part), dtype=torch.float64, device=part.device)
        gained.scatter_(0, new[None], 1).scatter_(0, old[None], -1)
        return Change(len(part), gained @ part.double(), gained.sum(1).long())

    def correct(self, change: Change) -> int:
        """Bring the sums and counts of the clusters up to date; returns how many points changed."""
        self.sums += change.sums
        self.counts += change.counts
        return change.moved

    def fill_empty(self) -> int:
        """Each cluster without points takes the point that is farthest from its centre; returns how many did."""
        empty = (self.counts == 0).nonzero()[:, 0]
        if len(empty) == 0:
            return 0
        distance = torch.linalg.vector_norm(self.x - self.centers[self.labels], dim=1)
        farthest = distance.topk(len(empty)).indices
        farthest = farthest[distance[farthest] > 0]  # a copy of a centre would only make another cluster empty
        labels = empty[: len(farthest)]
        self.correct(self.change(self.x[farthest], self.labels[farthest], labels))
        self.labels[farthest] = labels
        self.upper[farthest] = torch.inf
        return len(farthest)

    def move(self) -> None:
        """Centres to the means of their points; an empty one stays."""
        means = (self.sums / self.counts.clamp(min=1)[:, None]).to(self.x.dtype)
        means = torch.where(self.counts[:, None] > 0, means, self.centers)
        self.shift = torch.linalg.vector_norm(means - self.centers, dim=1)
        self.centers = means


def choose_start(X: np.ndarray, k: int, start: str, rng: np.random.RandomState) -> np.ndarray:
    """k rows of X to begin with.

    "random": k rows drawn without replacement. "k-means++" (Arthur and Vassilvitskii 2007, section 2.2): the first
    drawn evenly, each further one with probability proportional to its squared distance from the nearest chosen.
    "greedy k-means++" (the same, section 5, and scikit-learn's): every time 2 + ⌊ln k⌋ are drawn, and the one that
    lowers the sum of squared distances most is kept.
    """
    if start == "random":
        return X[rng.permutation(len(X))[:k]]
    draws = 1 if start == "k-means++" else 2 + int(np.log(k))
    x = torch.from_numpy(X)
    norms = x.square().sum(1)

    def squares(rows):  # (draws, N)
        return torch.addmm(norms, x[rows], x.T, alpha=-2).add_(norms[rows][:, None]).clamp_(min=0)

    chosen = [rng.choice(len(X), p=np.full(len(X), 1 / len(X)))]
    closest = squares(chosen)[0]
    for _ in range(k - 1):
        cumulative = closest.double().cumsum(0).numpy()
        drawn = np.searchsorted(cumulative, rng.uniform(size=draws) * cumulative[-1]).clip(max=len(X) - 1)
        candidates = torch.minimum(squares(torch.from_numpy(drawn)), closest)
        best = candidates.sum(1, dtype=torch.float64).argmin()
        chosen.append(drawn[best])
        closest = candidates[best]
    return X[chosen]


# --- the estimators


class _Centers(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """What an estimator with `cluster_centers_` can do once it is fitted."""

    def predict(self, X) -> np.ndarray:
        """The nearest centre of each row, (N,)."""
        return self._assign(self._validated(X))[0]

    def transform(self, X) -> np.ndarray:
        """The distance of each row to each centre, (N, k)."""
        X = self._validated(X)
        x, centers = self._tensors(X, self.cluster_centers_)
        return torch.cdist(x, centers).cpu().numpy()

    def score(self, X, y=None) -> float:
        """Minus the sum of squared distances to the nearest centres: higher is better."""
        return -self._assign(self._validated(X))[1]

    def _assign(self, X):
        labels, inertia = assign(*self._tensors(X, self.cluster_centers_))
        return labels.cpu().numpy().astype(np.int32), inertia

    def _validated(self, X):
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False)

    def _tensors(self, X, centers):
        """Both on the device and shifted to where rounding is smallest."""
        middle = centers.mean(axis=0)
        return [torch.from_numpy((a - middle).astype(X.dtype, copy=False)).to(self.device) for a in (X, centers)]

    def _starts(self, X, n_init: int, rng):
        """(k, D) starting centres, one set for each restart."""
        k, init = self.n_clusters, self.init
        if not isinstance(init, str):
            return [as_start(init, "init", (k, X.shape[1])).astype(X.dtype)]
        return (choose_start(X, k, init, rng) for _ in range(n_init))

    def _check(self, X) -> None:
        check_groups(self.n_clusters, "n_clusters", len(X))
        for name in ("n_init", "max_iter"):
            check_whole(getattr(self, name), name)
        check_not_negative(self.tol, "tol")
        if isinstance(self.init, str) or not np.iterable(self.init):
            check_choice(self.init, "init", STARTS, other=" or an array of centres")
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device must be one that this machine has, got {self.device!r} and there is no GPU")


class KMeans(_Centers):
    """k-means by Lloyd's algorithm: the k centres with the least sum of squared distances that some starts lead to.

    Minimises Σᵢ minⱼ ‖xᵢ − cⱼ‖², the *inertia*, by turns: each point to its nearest centre, each centre to the mean of
    its points (Lloyd 1982). Neither turn can raise the inertia, so it ends, in a minimum that depends on the start.
    Distances that cannot matter are left out, by Hamerly's bounds (2010), which change nothing of the result.

    n_clusters: k. init: "k-means++", "greedy k-means++" (scikit-learn's "k-means++"), "random", or the centres
    themselves, (k, D). n_init: so many starts are tried and the one with the least inertia is kept; one if init is an
    array. It ends when no label changes, when the squared moves of the centres sum to at most `tol` times the mean
    variance of the features, or after `max_iter` iterations. device: where torch computes, "cpu" or "cuda".
    A cluster that loses all its points takes the one that is farthest from its centre.

    After `fit`: `cluster_centers_` (k, D), `labels_` (N,), `inertia_`, `n_iter_`. float32 data is computed in float32.
    Unlike scikit-learn's there are no sample weights.

    Raises ValueError for more clusters than samples, values that are not finite and options out of range; TypeError
    for options of another kind. Warns (ConvergenceWarning) where the data have fewer distinct points than clusters.

    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> model = KMeans(2, random_state=0).fit(X)
    >>> sorted(model.cluster_centers_.ravel().tolist()), model.inertia_
    ([0.5, 10.5], 1.0)
    """

    def __init__(
        self,
        n_clusters=8,
        *,
        init="k-means++",
        n_init=10,
        max_iter=300,
        tol=1e-4,
        random_state=None,
        device="cpu",
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def fit(self, X, y=None):
        """Find the centres; y is ignored."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], order="C")
        self._check(X)
        rng = check_random_state(self.random_state)
        mean = X.mean(axis=0)
        X = X - mean  # squared distances by a product lose digits far from the origin
        x = torch.from_numpy(X).to(self.device)
        tol = self.tol * X.var(axis=0).mean()
        best = None
        for start in self._starts(X, self.n_init, rng):
            start = torch.from_numpy(start if isinstance(self.init, str) else start - mean).to(self.device)
            with threads(x, len(start)) as each:
                found = Lloyd(x, start, each).run(self.max_iter, tol)
            if best is None or found.inertia < best.inertia:
                best = found
        self.labels_ = best.labels.cpu().numpy().astype(np.int32)
        self.cluster_centers_ = best.centers.cpu().numpy() + mean
        self.inertia_, self.n_iter_ = best.inertia, best.n_iter
        self._n_features_out = self.n_clusters
        if (distinct := len(np.unique(self.labels_))) < self.n_clusters:
            warnings.warn(
                f"only {distinct} of {self.n_clusters} clusters have points: X may hold too many copies of one point",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self


class MiniBatchKMeans(_Centers):
    """k-means that sees a few points at a time (Sculley 2010, algorithm 1): for data too large to go through often.

    From each batch of `batch_size` random points, every centre moves towards those nearest to it, each with the rate
    1/v, where v counts the points that the centre has had so far. So a centre is at all times the mean of all that it
    was ever given, including those that it was given when it stood elsewhere: fast, and a little worse than k-means.

    init, device: as for `KMeans`. n_init: so many starts are compared on one batch, and the best is trained. max_iter:
    passes over the data at most. It ends before that when the inertia of a batch, smoothed over about one pass, has
    not improved in `max_no_improvement` batches; tol: an improvement counts from this part of the inertia on. A centre
    that receives no points stays; scikit-learn moves those that have had few. `partial_fit` takes one batch from
    outside; its first one must hold at least k points, from which the centres start.

    After `fit`: `cluster_centers_` (k, D), `counts_` (k,), `labels_` (N,), `inertia_`, `n_iter_` batches.

    Raises as `KMeans` does.

    >>> X = np.repeat([[0.0], [1.0], [10.0], [11.0]], 100, axis=0)
    >>> model = MiniBatchKMeans(2, batch_size=32, random_state=0).fit(X)
    >>> bool(np.abs(np.sort(model.cluster_centers_.ravel()) - [0.5, 10.5]).max() < 0.2)
    True
    """

    def __init__(
        self,
        n_clusters=8,
        *,
        init="k-means++",
        n_init=3,
        batch_size=1024,
        max_iter=100,
        tol=0.0,
        max_no_improvement=10,
        random_state=None,
        device="cpu",
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.random_state = random_state
        self.device = device

    def fit(self, X, y=None):
        """Find the centres from random batches; y is ignored."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], order="C")
        self._check(X)
        rng = check_random_state(self.random_state)
        self._begin(X, rng)
        size = min(self.batch_size, len(X))
        weight = min(1.0, 2 * size / (len(X) + 1))
        smooth, least, waited = None, np.inf, 0
        for _ in range(self.max_iter * -(-len(X) // size)):
            inertia = self._step(X[rng.randint(len(X), size=size)]) / size
            smooth = inertia if smooth is None else (1 - weight) * smooth + weight * inertia
            if smooth < least * (1 - self.tol):
                least, waited = smooth, 0
            else:
                waited += 1
            if waited >= self.max_no_improvement:
                break
        self.labels_, self.inertia_ = self._assign(X)
        return self

    def partial_fit(self, X, y=None):
        """Move the centres by one batch; the first call also chooses them from it."""
        first = not hasattr(self, "cluster_centers_")
        X = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=first)
        if first:
            self._check(X)
            self._begin(X, check_random_state(self.random_state))
        self._step(X)
        self.labels_, self.inertia_ = self._assign(X)
        return self

    def _check(self, X) -> None:
        super()._check(X)
        for name in ("batch_size", "max_no_improvement"):
            check_whole(getattr(self, name), name)

    def _begin(self, X, rng) -> None:
        """Centres from the best of the starts, on at most three batches of points."""
        sample = X[rng.permutation(len(X))[: max(3 * self.batch_size, 3 * self.n_clusters)]]
        middle = sample.mean(axis=0)
        starts = self._starts(sample - middle, self.n_init, rng)
        if isinstance(self.init, str):
            starts = (start + middle for start in starts)
        best = np.inf
        for start in starts:
            inertia = assign(*self._tensors(sample, start))[1]
            if inertia < best:
                best, self.cluster_centers_ = inertia, start
        self.counts_ = np.zeros(self.n_clusters)
        self.n_iter_ = 0
        self._n_features_out = self.n_clusters

    def _step(self, batch) -> float:
        """Sculley's lines 5 to 15: labels first, then every centre moves. Returns the batch's inertia before."""
        labels, inertia = self._assign(batch)
        seen = np.bincount(labels, minlength=self.n_clusters)
        sums = np.zeros(self.cluster_centers_.shape)
        np.add.at(sums, labels, batch)
        before, self.counts_ = self.counts_, self.counts_ + seen
        moved = (before[:, None] * self.cluster_centers_ + sums) / np.maximum(self.counts_, 1)[:, None]
        had = seen > 0
        centers = self.cluster_centers_.copy()
        centers[had] = moved[had]
        self.cluster_centers_ = centers
        self.n_iter_ += 1
        return inertia
