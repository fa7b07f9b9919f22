"""The checks of exercise 3: right ways pass, each mistake is called by its name, and the laws leave no way round."""

import importlib
import math
import re
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from course_utils.calling import call
from course_utils.checks import k_means as exercise
from course_utils.checks.core import PUBLIC_SEED, diagnose, tasks_of

TASKS = tasks_of("k_means")

# --- three ways to write each


def assign_by_loops(x, centers):
    labels = torch.empty(len(x), dtype=torch.int64)
    for i, point in enumerate(x):
        labels[i] = min(range(len(centers)), key=lambda j: float(((point - centers[j]) ** 2).sum()))
    return labels


def assign_by_expansion(x, centers):
    return (centers.square().sum(1) - 2 * torch.einsum("nd,kd->nk", x, centers)).argmin(dim=1)


def update_by_loops(x, labels, centers):
    new = centers.clone()
    for j in range(len(centers)):
        if (labels == j).any():
            new[j] = x[labels == j].mean(dim=0)
    return new


def update_by_einsum(x, labels, centers):
    member = torch.nn.functional.one_hot(labels, len(centers)).to(x.dtype)
    counts = member.sum(0)
    return torch.where(counts[:, None] > 0, torch.einsum("nk,nd->kd", member, x) / counts[:, None], centers)


def update_by_scatter(x, labels, centers):
    index = labels[:, None].expand_as(x)
    return centers.clone().scatter_reduce_(0, index, x, reduce="mean", include_self=False)


def inertia_by_loops(x, labels, centers):
    return sum(float(((x[i] - centers[labels[i]]) ** 2).sum()) for i in range(len(x)))


def inertia_by_einsum(x, labels, centers):
    difference = x - centers[labels]
    return torch.einsum("nd,nd->", difference, difference)


def start_by_cdist(x, k, seed):
    rng = torch.Generator().manual_seed(seed)
    centers = x[torch.randint(len(x), (1,), generator=rng)]
    while len(centers) < k:
        nearest = torch.cdist(x, centers).min(dim=1).values ** 2
        centers = torch.cat([centers, x[torch.multinomial(nearest, 1, generator=rng)]])
    return centers


def start_by_numpy(x, k, seed):
    points, rng = x.numpy().astype(float), np.random.default_rng(seed)
    rows = [rng.integers(len(points))]
    nearest = np.full(len(points), np.inf)
    for _ in range(k - 1):
        nearest = np.minimum(nearest, np.square(points - points[rows[-1]]).sum(axis=1))
        rows.append(np.searchsorted(np.cumsum(nearest), rng.random() * nearest.sum(), side="right"))
    return x[rows]


def k_means_by_centres(x, k, n_init, seed):
    """Stops when the centres stand still, with numbers drawn on from one restart to the next."""
    best = (None, None, math.inf)
    for run in range(n_init):
        centers = start_by_numpy(x, k, 1_000 * run + seed % 1_000)
        while True:
            labels = assign_by_expansion(x, centers)
            moved = update_by_einsum(x, labels, centers)
            if torch.allclose(moved, centers, rtol=0, atol=1e-6):
                break
            centers = moved
        inertia = inertia_by_einsum(x, labels, centers).item()
        if inertia < best[2]:
            best = (centers, labels, inertia)
    return best


def k_means_of_scikit_learn(x, k, n_init, seed):
    from sklearn.cluster import KMeans

    model = KMeans(k, n_init=n_init, random_state=seed % 1_000, tol=0).fit(x.numpy())
    return torch.from_numpy(model.cluster_centers_), torch.from_numpy(model.labels_).long(), model.inertia_


def silhouette_by_loops(x, labels):
    values = []
    for i in range(len(x)):
        groups = {}
        for j in range(len(x)):
            if i != j:
                groups.setdefault(int(labels[j]), []).append(float((x[i] - x[j]).square().sum().sqrt()))
        own = groups.pop(int(labels[i]), None)
        b = min(sum(group) / len(group) for group in groups.values())
        a = sum(own) / len(own) if own else None
        values.append((b - a) / max(a, b) if own else 0.0)
    return torch.tensor(values)


def silhouette_by_matrices(x, labels):
    member = (labels[:, None] == labels.unique()).to(x.dtype)  # (N, k)
    sums = torch.einsum("nmd,nmd->nm", x[:, None] - x, x[:, None] - x).sqrt() @ member
    counts = member.sum(0)
    own = member.bool()
    alone = counts[own.int().argmax(1)] == 1
    a = (sums * member).sum(1) / (counts[own.int().argmax(1)] - 1).clamp(min=1)
    b = (sums / counts).masked_fill(own, math.inf).min(1).values
    return ((b - a) / torch.maximum(a, b)).masked_fill(alone, 0)


def silhouette_of_scikit_learn(x, labels):
    return torch.from_numpy(silhouette_samples(x.numpy(), labels.numpy()))


def rand_by_pairs(a, b):
    together = [(bool(a[i] == a[j]), bool(b[i] == b[j])) for i, j in combinations(range(len(a)), 2)]
    both = sum(p and q for p, q in together)
    of_a, of_b = (sum(pair[side] for pair in together) for side in (0, 1))
    expected, most = of_a * of_b / len(together), (of_a + of_b) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def rand_by_einsum(a, b):
    rows, columns = ((labels[:, None] == labels.unique()).float() for labels in (a, b))
    table = torch.einsum("nr,nc->rc", rows, columns)
    both, of_a, of_b = (float((t * (t - 1)).sum() / 2) for t in (table, table.sum(1), table.sum(0)))
    expected, most = of_a * of_b / math.comb(len(a), 2), (of_a + of_b) / 2
    return torch.tensor(1.0 if most == expected else (both - expected) / (most - expected))


def rand_of_scikit_learn(a, b):
    return adjusted_rand_score(a.numpy(), b.numpy())


def segment_with_log_odds(customers, k, seed):
    """Logarithms for what is spread over orders of magnitude, log-odds for shares."""
    share = customers.amax(0) < 1
    features = torch.where(share, torch.logit(customers.clamp(max=0.999)), customers.log())
    return k_means_by_centres((features - features.mean(0)) / features.std(0), k, 10, seed)[1]


def segment_with_scikit_learn(customers, k, seed):
    from sklearn.preprocessing import PowerTransformer

    features = PowerTransformer().fit_transform(customers.double().numpy())
    return k_means_of_scikit_learn(torch.from_numpy(features), k, 10, seed)[1]


RIGHT = {
    "assign": (assign_by_loops, lambda x, centers: torch.cdist(x, centers).argmin(1), assign_by_expansion),
    "update": (update_by_loops, update_by_einsum, update_by_scatter),
    "inertia": (
        inertia_by_loops,
        lambda x, labels, centers: ((x - centers.index_select(0, labels)) ** 2).sum(),
        inertia_by_einsum,
    ),
    "k_means_plus_plus": (exercise.PLUS_PLUS.solution, start_by_cdist, start_by_numpy),
    "k_means": (exercise.K_MEANS.solution, k_means_by_centres, k_means_of_scikit_learn),
    "silhouette": (silhouette_by_loops, silhouette_by_matrices, silhouette_of_scikit_learn),
    "adjusted_rand": (rand_by_pairs, rand_by_einsum, rand_of_scikit_learn),
    "segment": (exercise.SEGMENT.solution, segment_with_log_odds, segment_with_scikit_learn),
}


def said(task, function, seed=PUBLIC_SEED):
    cases = list(task.cases(np.random.default_rng(seed)))
    return diagnose(task, cases, [call(function, case.given, task.how) for case in cases])


# --- what every exercise keeps


# --- k-means++: what is drawn is judged by how likely the rule makes it


def test_the_judge_of_starts_asks_for_as_many_centres_as_points_can_be():
    task = TASKS["k_means_plus_plus"]
    short = said(task, lambda x, k, seed: exercise._k_means_plus_plus(x, k, seed)[: k - 1])
    assert short.startswith("centers must have shape")


def test_a_start_without_the_same_point_twice_is_still_told_from_an_even_one():
    def permuted(x, k, seed):
        return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:k]]

    assert said(TASKS["k_means_plus_plus"], permuted).startswith("your centres are drawn evenly")


def test_right_starts_pass_whatever_the_seed():
    task = TASKS["k_means_plus_plus"]
    for seed in range(100, 110):
        assert said(task, start_by_numpy, seed) is None


def test_starts_are_held_against_the_seed_within_one_submission_only():
    task = TASKS["k_means_plus_plus"]
    cases = list(task.cases(np.random.default_rng(PUBLIC_SEED)))

    def first_row(x, k, seed):
        return torch.cat([x[:1], exercise._k_means_plus_plus(x, k, seed)[1:]])

    for function, hint in (
        (start_by_numpy, None),
        (lambda x, k, seed: start_by_numpy(x, k, 3), exercise.ONE_SEED),
        (first_row, exercise.FIRST_FIXED),
        (exercise._k_means_plus_plus, None),
    ):
        assert diagnose(task, cases, [call(function, case.given, task.how) for case in cases]) == hint


# --- k-means: the laws


def test_centres_in_another_order_pass_with_their_labels():
    def turned(x, k, n_init, seed):
        centers, labels, inertia = exercise._k_means(x, k, n_init, seed)
        return centers.flip(0), k - 1 - labels, inertia

    assert said(TASKS["k_means"], turned) is None


def test_starts_drawn_evenly_are_not_good_enough():
    def even(x, k, n_init, seed):
        runs = []
        for run in range(n_init):
            centers = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed + run))[:k]]
            labels, before = assign_by_expansion(x, centers), torch.tensor([])
            while not torch.equal(labels, before):
                centers, before = update_by_einsum(x, labels, centers), labels
                labels = assign_by_expansion(x, centers)
            runs.append((centers, labels, inertia_by_einsum(x, labels, centers)))
        return exercise._best_of(runs)

    assert said(TASKS["k_means"], even) == exercise.POOR


def test_ten_rounds_are_not_until_no_label_changes():
    def ten(x, k, n_init, seed):
        return exercise._best_of(exercise._one_run(x, k, seed + run, most=10) for run in range(n_init))

    assert said(TASKS["k_means"], ten) == exercise.CENTRES_BEHIND


def test_restarts_from_one_seed_are_one_run():
    def same(x, k, n_init, seed):
        return exercise._best_of(exercise._one_run(x, k, seed) for _ in range(n_init))

    assert said(TASKS["k_means"], same) == exercise.POOR


# --- segment: what is paid for


def graded(function, seed):
    task = TASKS["segment"]
    cases = task.graded_cases(seed)
    return task.grade(cases, [call(function, case.given, task.how) for case in cases])


def standardised_only(customers, k, seed):
    return exercise._k_means((customers - customers.mean(0)) / customers.std(0), k, 10, seed)[1]


def by_lot(customers, k, seed):
    return torch.randint(k, (len(customers),), generator=torch.Generator().manual_seed(seed))


def test_no_seed_gives_the_customers_in_their_order(monkeypatch):
    """A submission could try all seeds that torch knows, and find the kinds with the customers."""
    module, drawn = importlib.import_module("course_utils.data.customers"), []
    draw = module.customers
    monkeypatch.setattr(module, "customers", lambda **options: drawn.append(draw(**options)) or drawn[-1])
    for case, splits in zip(TASKS["segment"].graded_cases(3), drawn, strict=True):
        x, in_order = case.given["customers"], splits.train.x.numpy()
        assert (x == in_order).all(1).mean() < 0.02
        where = np.lexsort(x.T), np.lexsort(in_order.T)
        assert np.array_equal(x[where[0]], in_order[where[1]])
        assert np.array_equal(case.hidden["kind"][where[0]], splits.train.y[where[1]])


@pytest.mark.parametrize("way", range(3))
def test_one_scale_earns_the_points_of_segment(way):
    assert graded(RIGHT["segment"][way], seed=77).part >= 0.8


def test_the_better_the_scale_the_more_points():
    raw, scaled = graded(TASKS["segment"].mistakes[0].solution, 77), graded(standardised_only, 77)
    assert raw.part <= 0.1
    assert 0.4 < scaled.part < 0.9
    assert graded(by_lot, 77).part <= 0.1
    assert graded(lambda customers, k, seed: torch.zeros(len(customers), dtype=torch.int64), 77).part == 0


def test_the_remark_gives_no_kind_away():
    assert re.fullmatch(r"adjusted Rand index with the kinds: \d\.\d\d", graded(by_lot, 77).remark.replace("-", ""))
