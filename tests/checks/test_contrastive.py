"""Exercise 1: right solutions of every style pass, and each mistake is called by its own name, whatever the seed."""

import functools
import importlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils import evaluate, losses
from course_utils.calling import call
from course_utils.checks import contrastive
from course_utils.checks.contrastive import BASELINE, GOOD, PROBE, TASKS
from course_utils.checks.core import Case, diagnose

BY_NAME = {task.name: task for task in TASKS}

# --- three ways to write each


def pairs_by_loop(labels, count, seed):
    rng = np.random.default_rng(seed)
    labels = labels.numpy()
    rows = []
    for k in range(count):
        similar = k < count // 2
        i = int(rng.integers(len(labels)))
        fits = [j for j in range(len(labels)) if j != i and (labels[j] == labels[i]) == similar]
        rows.append((i, fits[rng.integers(len(fits))], int(not similar)))
    return tuple(torch.tensor(column) for column in zip(*rows, strict=True))


def pairs_by_lot(labels, count, seed):
    """The greatest of random numbers wins; the kinds are mixed."""
    torch.manual_seed(seed)
    different = torch.arange(count)[torch.randperm(count)] >= count // 2
    first = (torch.rand(count) * len(labels)).long()
    lot = torch.rand(count, len(labels))
    lot[(labels[first, None] != labels) != different[:, None]] = -1
    lot[torch.arange(count), first] = -1
    return first, lot.argmax(1), different.int()


def margin_by_loop(x1, x2, different, margin):
    loss = 0.0
    for a, b, d in zip(x1, x2, different, strict=True):
        distance = (a - b).norm()
        loss = loss + (torch.relu(margin - distance) ** 2 if d else distance**2) / 2
    return loss / len(x1)


def margin_by_einsum(x1, x2, different, margin):
    squared = torch.einsum("nd,nd->n", x1 - x2, x1 - x2)
    distance = (squared + 1e-14).sqrt()
    return torch.where(different == 1, F.relu(margin - distance).square(), squared).mean() / 2


def triplets_by_loop(anchor, positive, negative, margin):
    costs = []
    for rows in zip(anchor, positive, negative, strict=True):
        a, p, n = (row / row.norm() for row in rows)
        costs.append(torch.clamp(((a - p) ** 2).sum() - ((a - n) ** 2).sum() + margin, min=0))
    return sum(costs) / len(costs)


def triplets_by_einsum(anchor, positive, negative, margin):
    """On the sphere ‖a − p‖² = 2 − 2a·p."""
    a, p, n = (z / z.norm(dim=1, keepdim=True) for z in (anchor, positive, negative))
    return F.relu(2 * torch.einsum("td,td->t", a, n - p) + margin).mean()


def mining_by_loop(z, labels, anchor, positive):
    z = z / z.norm(dim=1, keepdim=True)
    chosen = []
    for a, p in zip(anchor.tolist(), positive.tolist(), strict=True):
        to = {i: (z[a] - z[i]).norm().item() for i in range(len(z)) if labels[i] != labels[a]}
        farther = [i for i in to if to[i] > (z[a] - z[p]).norm().item()]
        chosen.append(min(farther, key=to.get) if farther else max(to, key=to.get))
    return torch.tensor(chosen)


def mining_by_cosine(z, labels, anchor, positive):
    cosine = torch.einsum("nd,md->nm", *(F.normalize(z, dim=1),) * 2)[anchor]  # (T, N)
    other = labels[anchor].unsqueeze(1) != labels.unsqueeze(0)
    beyond = other & (cosine < cosine.gather(1, positive[:, None]))
    best = torch.where(beyond, cosine, -2.0).max(1)
    return torch.where(best.values > -2, best.indices, torch.where(other, cosine, 2.0).argmin(1))


def info_nce_by_loop(query, key, temperature):
    loss = 0.0
    for i, q in enumerate(query):
        s = torch.stack([F.cosine_similarity(q, k, dim=0) for k in key]) / temperature
        loss = loss + torch.logsumexp(s, 0) - s[i]
    return loss / len(query)


def info_nce_by_einsum(query, key, temperature):
    unit = [z / z.norm(dim=1, keepdim=True) for z in (query, key)]
    s = torch.einsum("id,jd->ij", *unit) / temperature
    return -s.log_softmax(1).diagonal().mean()


def nt_xent_by_loop(z1, z2, temperature):
    views, n = [*z1, *z2], len(z1)
    loss = 0.0
    for i, v in enumerate(views):
        s = {k: F.cosine_similarity(v, w, dim=0) / temperature for k, w in enumerate(views) if k != i}
        loss = loss + torch.logsumexp(torch.stack(list(s.values())), 0) - s[(i + n) % (2 * n)]
    return loss / (2 * n)


def nt_xent_by_einsum(z1, z2, temperature):
    """Blocks between and within the kinds of views; the greatest entry is taken off by hand before exp."""
    z = torch.stack([z1, z2]) / torch.stack([z1, z2]).norm(dim=2, keepdim=True)  # (2, N, D)
    s = torch.einsum("aid,bjd->aibj", z, z) / temperature
    n = len(z1)
    itself = torch.einsum("ab,ij->aibj", torch.eye(2), torch.eye(n)).bool()
    s = s.masked_fill(itself, -torch.inf).flatten(2)  # (2, N, 2N)
    top = s.amax(2, keepdim=True)
    denominator = (s - top).exp().sum(2).log() + top[:, :, 0]
    positive = (z[0] * z[1]).sum(1) / temperature
    return (denominator - positive).mean()


def health_by_loop(z1, z2, t):
    z1, z2 = ([row / row.norm() for row in z] for z in (z1, z2))
    alignment = sum(((a - b) ** 2).sum() for a, b in zip(z1, z2, strict=True)) / len(z1)
    parts = []
    for z in (z1, z2):
        kernel = [torch.exp(-t * ((a - b) ** 2).sum()) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
        parts.append(torch.log(sum(kernel) / len(kernel)))
    return alignment, (parts[0] + parts[1]) / 2


def health_by_einsum(z1, z2, t):
    z = F.normalize(torch.stack([z1, z2]), dim=2)
    n = len(z1)
    cosine = torch.einsum("aid,ajd->aij", z, z)
    kernel = torch.exp(t * (2 * cosine - 2)) * (1 - torch.eye(n))
    return 2 - 2 * torch.einsum("id,id->", *z) / n, (kernel.sum((1, 2)) / (n * n - n)).log().mean()


def embed_by_fit(train_images, images, steps, seed):
    """With the course's method and loop."""
    from course_utils.methods import SimCLR
    from course_utils.models import ConvEncoder
    from course_utils.train import fit
    from course_utils.views import augment

    torch.manual_seed(seed)
    method = SimCLR(ConvEncoder(train_images.shape[1]), view=functools.partial(augment, size=20))
    fit(method, train_images, steps=steps, batch_size=min(64, len(train_images)), seed=seed, device="cpu")
    return method.encode(images)


def embed_by_triplets(train_images, images, steps, seed):
    """Another loss, another network, no generator of one's own but for the views."""
    from course_utils.views import augment

    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed + 1)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 5, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 5, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(128, 32),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(steps):
        batch = train_images[torch.randperm(len(train_images))[:16]]
        a, p = net(augment(batch, rng)), net(augment(batch, rng))
        loss = contrastive.triplet_loss(a, p, p.roll(1, 0), 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat([net(part) for part in images.split(100)]).detach()


RIGHT = {
    "sample_pairs": [contrastive.sample_pairs, pairs_by_loop, pairs_by_lot],
    "contrastive_margin": [contrastive.contrastive_margin, margin_by_loop, margin_by_einsum],
    "triplet_loss": [contrastive.triplet_loss, triplets_by_loop, triplets_by_einsum],
    "semi_hard_negatives": [contrastive.semi_hard_negatives, mining_by_loop, mining_by_cosine],
    "info_nce": [contrastive.info_nce, info_nce_by_loop, info_nce_by_einsum],
    "nt_xent": [contrastive.nt_xent, nt_xent_by_loop, nt_xent_by_einsum],
    "alignment_uniformity": [contrastive.alignment_uniformity, health_by_loop, health_by_einsum],
    "embed": [contrastive.embed, embed_by_fit, embed_by_triplets],
}


def said(task, function, seed):
    cases = list(task.cases(np.random.default_rng(seed)))
    return diagnose(task, cases, [call(function, case.given, task.how) for case in cases])


# --- the solutions against the package's own


def test_solutions_agree_with_the_package():
    rng = torch.Generator().manual_seed(3)
    z1, z2, z3 = torch.randn(3, 6, 4, generator=rng)
    different = torch.tensor([0, 1, 1, 0, 1, 0])
    same = torch.testing.assert_close
    same(
        contrastive.contrastive_margin(z1, z2, different, 2.0), losses.contrastive_margin(z1, z2, different, margin=2.0)
    )
    same(contrastive.triplet_loss(z1, z2, z3, 0.3), losses.triplet_margin(z1, z2, z3, margin=0.3))
    same(contrastive.info_nce(z1, z2, 0.3), losses.info_nce(z1, z2, temperature=0.3))
    same(contrastive.nt_xent(z1, z2, 0.3), losses.nt_xent(z1, z2, temperature=0.3))
    alignment, uniformity = contrastive.alignment_uniformity(z1, z2, 2.0)
    assert alignment.item() == pytest.approx(evaluate.alignment(z1, z2), rel=1e-5)
    mean = (evaluate.uniformity(z1) + evaluate.uniformity(z2)) / 2
    assert uniformity.item() == pytest.approx(mean, rel=1e-5)


def test_mined_negatives_are_semi_hard_wherever_there_is_one():
    rng = torch.Generator().manual_seed(0)
    z, labels = torch.randn(40, 4, generator=rng), torch.arange(10).repeat(4)
    anchor, positive = ((labels[:, None] == labels) & ~torch.eye(40, dtype=torch.bool)).nonzero().T
    negative = contrastive.semi_hard_negatives(z, labels, anchor, positive)
    z = F.normalize(z, dim=1)
    to_positive, to_negative = ((z[anchor] - z[other]).square().sum(1) for other in (positive, negative))
    assert (labels[negative] != labels[anchor]).all()
    farthest = ((z[anchor][:, None] - z).square().sum(2) - 9 * (labels[anchor][:, None] == labels)).amax(1)
    assert ((to_negative > to_positive) | (to_positive >= farthest - 1e-6)).all()


# --- the law of the pairs


@pytest.mark.parametrize("seed", range(12))
def test_the_law_is_never_held_against_uniform_draws(seed):
    """The bound is one in ten millions a judgement; these would soon show a bound that is wrong."""
    for way in RIGHT["sample_pairs"]:
        assert said(BY_NAME["sample_pairs"], way, 1000 + seed) is None


def test_the_bounds_of_the_law_add_up():
    """There are at most 1,000 of them: two tails of anchors, partners, labels and pairs, for two kinds of pairs."""
    case = next(case for case in contrastive._pair_cases(np.random.default_rng(0)) if case.hidden["role"] == "law")
    n, kinds = len(case.given["labels"]), len(np.unique(case.given["labels"]))
    assert 2 * 2 * (n + n + kinds**2 + n**2) <= 1000
    counts, law = np.array([[70.0, 30.0]]), np.array([[0.5, 0.5]])
    assert not contrastive._unlikely(counts, law)
    assert contrastive._unlikely(10 * counts, law)


# --- the encoder's score


def scored(features, case):
    return contrastive._score_features(case, {"features": np.asarray(features)})


@pytest.fixture(scope="module")
def real():
    (case,) = BY_NAME["embed"].graded_cases(7)
    return case


def test_the_hidden_labels_are_not_among_the_arguments(real):
    assert list(real.given) == ["train_images", "images", "steps", "seed"]
    assert len(real.hidden["labels"]) == len(real.given["images"]) > PROBE


def test_no_seed_gives_the_hidden_images_in_their_order_and_none_gives_both_sets(monkeypatch):
    """A submission could try all seeds that torch knows, and find the labels with the images."""
    module, drawn = importlib.import_module("course_utils.data.glyphs"), {}
    draw = module.glyphs
    monkeypatch.setattr(module, "glyphs", lambda seed, **sizes: drawn.setdefault(seed, draw(seed=seed, **sizes)))
    (case,) = BY_NAME["embed"].graded_cases(3)
    train, hidden = (splits.train for splits in drawn.values())
    assert np.array_equal(train.x, case.given["train_images"])
    images, in_order = (np.asarray(x).reshape(len(hidden), -1) for x in (case.given["images"], hidden.x))
    assert (images == in_order).all(1).mean() < 0.01
    where = np.lexsort(images.T), np.lexsort(in_order.T)
    assert np.array_equal(images[where[0]], in_order[where[1]])
    assert np.array_equal(case.hidden["labels"][where[0]], hidden.y[where[1]])


def test_features_without_training_earn_next_to_nothing(real):
    from course_utils.models import ConvEncoder

    torch.manual_seed(0)
    with torch.no_grad():
        untrained = ConvEncoder(1).eval()(torch.from_numpy(real.given["images"]))
    assert scored(untrained, real).part <= 0.1
    noise = np.random.default_rng(0).normal(size=(len(untrained), 8)).astype(np.float32)
    assert scored(noise, real).part == 0


def test_constant_features_earn_nothing(real):
    task = BY_NAME["embed"]
    outcome = call(lambda train, images, steps, seed: torch.ones(len(images), 8), real.given, task.how)
    assert task.grade([real], [outcome]) == (0.0, contrastive.EMBED["constant"])


def test_labels_as_features_earn_all(real):
    one_hot = np.eye(26, dtype=np.float32)[real.hidden["labels"]]
    score = scored(one_hot, real)
    assert score.part == 1
    assert f"{BASELINE:.2f}" in score.remark
    assert f"{GOOD:.2f}" in score.remark


@pytest.mark.slow
def test_the_solution_earns_its_points(real):
    """On images that the levels were not set with."""
    task = BY_NAME["embed"]
    score = task.grade([real], [call(task.solution, real.given, task.how)])
    assert score.part >= 0.8, score.remark


def test_a_case_does_not_see_another_round():
    """Two students, one after the other, are each compared with themselves."""
    task = BY_NAME["embed"]
    cases = list(task.cases(np.random.default_rng(0)))
    for function in (contrastive.embed, embed_by_triplets):
        assert diagnose(task, cases, [call(function, case.given, task.how) for case in cases]) is None
    assert isinstance(cases[0], Case)
