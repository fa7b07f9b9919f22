"""Exercise 1, contrastive learning: pairs, margins, triplets, losses that choose among candidates, and an encoder."""

import numpy as np
import torch
import torch.nn.functional as F

from course_utils.checks.core import Case, Mistake, Score, Task, first_of

SURE = 1e-7  # how often, at most, a judge may call a right random result wrong


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Rows that point anywhere and have lengths from about a half to about two."""
    x = rng.normal(size=shape)
    lengths = np.exp(rng.uniform(-0.7, 0.7, size=(*shape[:-1], 1)))
    return (lengths * x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 2**31 - 1))


# --- 1. pairs

DRAWS = 4001  # pairs of the case whose law is judged


def sample_pairs(labels, count, seed):
    rng = torch.Generator().manual_seed(seed)
    different = torch.arange(count) >= count // 2  # (count,)
    first = torch.randint(len(labels), (count,), generator=rng)
    allowed = (labels[first][:, None] != labels) == different[:, None]  # (count, N)
    allowed[torch.arange(count), first] = False
    second = torch.multinomial(allowed.float(), 1, generator=rng)[:, 0]
    return first, second, different.long()


def _pair_cases(rng):
    """Twice one call; the same with another seed; many draws, from labels of unlike frequency; and a single pair."""
    few, many, four = (
        rng.permutation(np.repeat(rng.choice(50, len(sizes), replace=False), sizes))
        for sizes in ([2, 3, 2, 2, 3, 2, 2], [2, 3, 7], [2, 2])
    )
    seed, seen = _seed(rng), {}
    return [
        Case({"labels": few, "count": 64, "seed": seed}, {"role": "first", "seen": seen}),
        Case({"labels": few, "count": 64, "seed": seed}, {"role": "again", "seen": seen}),
        Case({"labels": few, "count": 64, "seed": _seed(rng)}, {"role": "seed", "seen": seen}),
        Case({"labels": many, "count": DRAWS, "seed": _seed(rng)}, {"role": "law"}),
        Case({"labels": four, "count": 1, "seed": seed}, {"role": "single"}),
    ]


PAIRS = {
    "turned": "`different` is turned round: as in the paper, one stands for a pair of two labels and zero for a pair "
    "of one label",
    "labels": "`different` must be what the labels of the two pictures say: compare them, or keep the order of your "
    "pairs and of `different` the same",
    "self": "some pictures are paired with themselves: such a pair teaches nothing, so take the anchor itself out "
    "before you choose its partner",
    "truths": "`different` must hold whole numbers, one and zero, for the losses reckon with it: turn the truth "
    "values of your comparison into them by .long()",
    "halves": "pairs drawn without a look at the labels are mostly dissimilar: draw the two kinds apart, half "
    "of `count`, rounded down, of them similar",
    "coin": "nearly half of your pairs are similar, and exactly half of `count` is wanted, rounded down: do not toss a "
    "coin for each pair, and mind an odd number",
    "last": "the last picture is never drawn: see where the range of your random numbers ends, for the upper end is "
    "not included",
    "balance": "the anchors do not come from all pictures alike: draw the anchor first, from all rows, and then its "
    "partner. A label drawn first favours the pictures of rare labels, and pairs drawn until they fit those of "
    "frequent ones",
    "order": "the first picture of a pair always stands before the second in the data: each picture must be able to "
    "be the anchor",
    "mate": "the partner in a similar pair must be any other picture of the label, each as likely: yours favours some, "
    "as the first or the next that fits would",
    "stranger": "the partner in a dissimilar pair must be any picture of any other label, each as likely: yours "
    "favours some, as a label drawn first or the next picture would",
    "unseeded": "the same seed gives other pairs the second time: make a generator from the seed and hand it to each "
    "function that draws",
    "one_seed": "two seeds give the very same pairs: the generator must be made from the argument `seed`",
}


def _judge_pairs(case, outputs):
    labels, count = case.given["labels"], case.given["count"]
    for name, values in outputs.items():
        if values.shape != (count,):
            return f"{name} must have shape ({count},), got {values.shape}"
        if values.dtype.kind == "b":
            return PAIRS["truths"]
        if values.dtype.kind not in "iu":
            return f"{name} must hold whole numbers of type int64, got {values.dtype}"
    first, second = outputs["first"].astype(int), outputs["second"].astype(int)
    if min(first.min(), second.min()) < 0 or max(first.max(), second.max()) >= len(labels):
        return "first and second must be rows of `labels`: some lie outside"
    truth = labels[first] != labels[second]
    if (first == second).any():
        return PAIRS["self"]
    if not np.array_equal(outputs["different"], truth):
        return PAIRS["turned" if np.array_equal(outputs["different"], ~truth) else "labels"]
    similar = (~truth).sum()
    if similar != count // 2:
        return PAIRS["coin" if abs(similar - count / 2) < count / 5 else "halves"]
    role = case.hidden["role"]
    if role in ("first", "again", "seed"):
        pairs = np.stack([first, second])
        alike = np.array_equal(pairs, first_of(case, pairs))
        if role == "again" and not alike:
            return PAIRS["unseeded"]
        if role == "seed" and alike:  # by chance: never, with 64 pairs
            return PAIRS["one_seed"]
    return _judge_law(labels, first, second, truth) if role == "law" else None


def _judge_law(labels, first, second, different):
    """Whether counts are those of uniform draws: each is binomial, its tail exact, and all bounds add up to SURE.

    From the coarse to the fine, so that the first that fails names the mistake: anchors, partners, single pairs.
    """
    if (first < second).all():
        return PAIRS["order"]
    n = len(labels)
    if not (first == n - 1).any() or np.array_equal(np.unique(second), np.arange(n - 1)):
        return PAIRS["last"]
    same = labels[:, None] == labels
    for kind, allowed in ((False, same & ~np.eye(n, dtype=bool)), (True, ~same)):
        rows = different == kind
        table = np.zeros((n, n))
        np.add.at(table, (first[rows], second[rows]), 1)
        law = allowed / allowed.sum(1, keepdims=True) / n  # of a pair (anchor, partner)
        if _unlikely(table.sum(1), law.sum(1)):
            return PAIRS["balance"]
        groups = (labels[:, None] == np.unique(labels)).astype(float)  # (N, number of labels)
        coarse = _unlikely(groups.T @ table @ groups, groups.T @ law @ groups)
        if coarse or _unlikely(table.sum(0), law.sum(0)) or _unlikely(table, law):
            return PAIRS["stranger" if kind else "mate"]
    return None


def _unlikely(counts, law) -> bool:
    """Whether one of the counts lies where its binomial distribution has less than SURE, shared by 1,000 bounds."""
    from scipy.special import bdtr, bdtrc

    total = int(counts.sum())
    law = law.clip(0, 1)  # sums of parts may exceed one by a rounding
    tails = np.minimum(bdtr(counts, total, law), bdtrc(counts - 1, total, law))  # at most counts, at least counts
    return bool((tails < SURE / 1000).any())


def _pairs_with(anchors=None, allow=None, turned=False, pick=None, generator=None):
    """`sample_pairs` with a part exchanged: how anchors, candidates or partners come."""

    def solution(labels, count, seed):
        rng = (generator or (lambda seed: torch.Generator().manual_seed(seed)))(seed)
        different = torch.arange(count) >= count // 2
        first = (anchors or (lambda labels, count, rng: torch.randint(len(labels), (count,), generator=rng)))(
            labels, count, rng
        )
        allowed = (labels[first][:, None] != labels) == different[:, None]
        allowed[torch.arange(count), first] = False
        if allow is not None:
            allowed = allow(allowed, first, different)
        second = (pick or (lambda p, rng, *_: torch.multinomial(p.float(), 1, generator=rng)[:, 0]))(
            allowed, rng, labels, different
        )
        return first, second, (~different if turned else different).long()

    return solution


def _paired_with_itself(allowed, first, different):
    allowed = allowed.clone()
    similar = (~different).nonzero()[:, 0]
    allowed[similar, first[similar]] = True
    return allowed


def _without_halves(labels, count, seed):
    rng = torch.Generator().manual_seed(seed)
    first = torch.randint(len(labels), (count,), generator=rng)
    second = (first + torch.randint(1, len(labels), (count,), generator=rng)) % len(labels)
    return first, second, (labels[first] != labels[second]).long()


def _by_coin(labels, count, seed):
    rng = torch.Generator().manual_seed(seed)
    pairs = sample_pairs(labels, 4 * count, seed)
    kept = (torch.rand(count, generator=rng) < 0.5) * 2 * count + torch.arange(count)
    return tuple(column[kept] for column in pairs)


def _other_order(labels, count, seed):
    first, second, different = sample_pairs(labels, count, seed)
    return first, second, different.roll(1) if count > 1 else different


def _truth_values(labels, count, seed):
    first, second, different = sample_pairs(labels, count, seed)
    return first, second, different == 1


def _sorted_pairs(labels, count, seed):
    first, second, different = sample_pairs(labels, count, seed)
    return torch.minimum(first, second), torch.maximum(first, second), different


def _label_first(labels, count, rng):
    kinds = labels.unique()
    label = kinds[torch.randint(len(kinds), (count,), generator=rng)]
    return torch.multinomial((label[:, None] == labels).float(), 1, generator=rng)[:, 0]


def _first_mate(allowed, rng, labels, different):
    drawn = torch.multinomial(allowed.float(), 1, generator=rng)[:, 0]
    return torch.where(different, drawn, allowed.float().argmax(1))


def _stranger_by_label(allowed, rng, labels, different):
    size = (labels[:, None] == labels).sum(1)
    weights = torch.where(different[:, None], allowed / size, allowed.float())  # every label alike
    return torch.multinomial(weights, 1, generator=rng)[:, 0]


SAMPLE_PAIRS = Task(
    name="sample_pairs",
    title="draw similar and dissimilar pairs",
    points=3,
    cases=_pair_cases,
    returns=("first", "second", "different"),
    solution=sample_pairs,
    judge=_judge_pairs,
    mistakes=(
        Mistake(PAIRS["turned"], _pairs_with(turned=True)),
        Mistake(PAIRS["labels"], _other_order),
        Mistake(PAIRS["truths"], _truth_values),
        Mistake(PAIRS["self"], _pairs_with(allow=_paired_with_itself)),
        Mistake(PAIRS["halves"], _without_halves),
        Mistake(PAIRS["coin"], _by_coin),
        Mistake(
            PAIRS["last"],
            _pairs_with(anchors=lambda labels, count, rng: torch.randint(len(labels) - 1, (count,), generator=rng)),
        ),
        Mistake(PAIRS["balance"], _pairs_with(anchors=_label_first)),
        Mistake(PAIRS["order"], _sorted_pairs),
        Mistake(PAIRS["mate"], _pairs_with(pick=_first_mate)),
        Mistake(PAIRS["stranger"], _pairs_with(pick=_stranger_by_label)),
        Mistake(PAIRS["unseeded"], _pairs_with(generator=lambda seed: None)),
        Mistake(PAIRS["one_seed"], _pairs_with(generator=lambda seed: torch.Generator().manual_seed(0))),
    ),
)


# --- 2. the margin loss of pairs


def contrastive_margin(x1, x2, different, margin):
    distance = torch.linalg.vector_norm(x1 - x2, dim=1)  # (N,)
    pull = (1 - different) * distance**2 / 2
    push = different * (margin - distance).clamp(min=0) ** 2 / 2
    return (pull + push).mean()


def _margin_cases(rng):
    """Pairs inside and outside of the margin; one that coincides; a batch of one kind only; and a single pair."""
    x1, x2 = _normal(rng, 7, 3), _normal(rng, 7, 3)
    different = np.array([0, 1, 1, 0, 1, 1, 0])
    x2[[1, 4]] = x1[[1, 4]] + 0.2 * x2[[1, 4]]  # well inside
    x2[5] = x1[5] + 5 * _normal(rng, 3)  # outside
    equal = _normal(rng, 3, 5)
    other = equal + 0.4 * _normal(rng, 3, 5)
    other[0] = equal[0]
    return [
        Case({"x1": x1, "x2": x2, "different": different, "margin": float(rng.uniform(1.2, 1.8))}),
        Case({"x1": equal, "x2": other, "different": np.array([0, 1, 1]), "margin": 2.5}),
        Case({"x1": _normal(rng, 4, 2), "x2": _normal(rng, 4, 2), "different": np.zeros(4, int), "margin": 0.7}),
        Case({"x1": _normal(rng, 1, 6), "x2": _normal(rng, 1, 6), "different": np.array([1]), "margin": 9.0}),
    ]


def _margin_with(distance=None, pull=None, push=None, end=torch.mean):
    """`contrastive_margin` with a part exchanged."""

    def solution(x1, x2, different, margin):
        d = (distance or (lambda x: torch.linalg.vector_norm(x, dim=1)))(x1 - x2)
        near = (pull or (lambda d: d**2 / 2))(d)
        far = (push or (lambda d, margin: (margin - d).clamp(min=0) ** 2 / 2))(d, margin)
        return end((1 - different) * near + different * far)

    return solution


def _margin_apart(x1, x2, different, margin):
    distance = torch.linalg.vector_norm(x1 - x2, dim=1)
    pull, push = (distance**2 / 2)[different == 0], ((margin - distance).clamp(min=0) ** 2 / 2)[different == 1]
    return sum(part.mean() for part in (pull, push) if len(part))


def _margin_by_counts(x1, x2, different, margin):
    distance = torch.linalg.vector_norm(x1 - x2, dim=1)
    pull, push = (1 - different) * distance**2 / 2, different * (margin - distance).clamp(min=0) ** 2 / 2
    return pull.sum() / (1 - different).sum() + push.sum() / different.sum()


CONTRASTIVE_MARGIN = Task(
    name="contrastive_margin",
    title="the contrastive loss of pairs, with a margin",
    points=2,
    cases=_margin_cases,
    gradients=("x1", "x2"),
    solution=contrastive_margin,
    mistakes=(
        Mistake(
            "similar and dissimilar have changed places: where `different` is one the pair must be pushed, where it is "
            "zero pulled",
            lambda x1, x2, different, margin: contrastive_margin(x1, x2, 1 - different, margin),
        ),
        Mistake(
            "dissimilar pairs beyond the margin still cost something: the paper takes the greater of zero and what is "
            "left of the margin",
            _margin_with(push=lambda d, margin: (margin - d) ** 2 / 2),
        ),
        Mistake(
            "the margin is compared with the squared distance: the push takes the distance itself, with its root, and "
            "squares what is left",
            _margin_with(push=lambda d, margin: (margin - d**2).clamp(min=0) / 2),
        ),
        Mistake(
            "the margin less the squared distance is squared: the push wants the distance itself there, with its root",
            _margin_with(push=lambda d, margin: (margin - d**2).clamp(min=0) ** 2 / 2),
        ),
        Mistake(
            "the push takes the difference of two squares: it is the difference of margin and distance that is squared",
            _margin_with(push=lambda d, margin: (margin**2 - d**2).clamp(min=0) / 2),
        ),
        Mistake(
            "the distance is squared before the equation squares it again: it is the root of the sum of squares",
            _margin_with(distance=lambda x: x.square().sum(1)),
        ),
        Mistake(
            "the distance adds up absolute differences: a Euclidean one squares them, adds them up, and takes the root",
            _margin_with(distance=lambda x: x.abs().sum(1)),
        ),
        Mistake(
            "the push is not squared: what is left of the margin stands under a square in the equation",
            _margin_with(push=lambda d, margin: (margin - d).clamp(min=0) / 2),
        ),
        Mistake(
            "the pull is not squared: a similar pair costs half of its squared distance",
            _margin_with(pull=lambda d: d / 2),
        ),
        Mistake("the factor of a half before both squares is missing", _margin_with(end=lambda loss: 2 * loss.mean())),
        Mistake("the loss is the mean over the pairs, and yours is their sum", _margin_with(end=torch.sum)),
        Mistake(
            "a Euclidean distance sums over the features, and yours takes their mean: it shrinks with the width of the "
            "embedding",
            _margin_with(distance=lambda x: (x**2).mean(1).sqrt()),
        ),
        Mistake(
            "the distance is taken along the wrong axis: each row is one embedding, so sum over its features",
            lambda x1, x2, different, margin: (
                (1 - different)[:, None] * (d := torch.linalg.vector_norm(x1 - x2, dim=0)) ** 2 / 2
                + different[:, None] * (margin - d).clamp(min=0) ** 2 / 2
            ).mean(),
        ),
        Mistake(
            "the push has its sign turned: what counts is how much is left of the margin, the margin less the distance",
            _margin_with(push=lambda d, margin: (d - margin).clamp(min=0) ** 2 / 2),
        ),
        Mistake(
            "the embeddings are brought to length one: here they are compared as they come, and the margin sets their "
            "scale",
            lambda x1, x2, different, margin: contrastive_margin(
                F.normalize(x1, dim=1), F.normalize(x2, dim=1), different, margin
            ),
        ),
        Mistake(
            "every embedding is compared with every other: a pair is a row of the one and the same row of the other",
            lambda x1, x2, different, margin: (
                (1 - different) * (d := torch.cdist(x1, x2)) ** 2 / 2 + different * (margin - d).clamp(min=0) ** 2 / 2
            ).mean(),
        ),
        Mistake(
            "each kind of pair is averaged by itself: the equation has one mean over all pairs, whatever their kind",
            _margin_apart,
        ),
        Mistake(
            "each kind of pair is averaged by itself, which is zero by zero where a kind is missing: the equation has "
            "one mean over all pairs",
            _margin_by_counts,
        ),
        Mistake(
            "where two embeddings coincide your gradient is not a number: the slope of a square root at zero is "
            "infinite. torch's own norm of a vector has a gradient of zero there",
            _margin_with(distance=lambda x: (x**2).sum(1).sqrt()),
        ),
    ),
)


# --- 3. the loss of triplets


def triplet_loss(anchor, positive, negative, margin):
    a, p, n = (F.normalize(z, dim=1) for z in (anchor, positive, negative))
    to_positive, to_negative = (a - p).square().sum(1), (a - n).square().sum(1)  # (T,)
    return (to_positive - to_negative + margin).clamp(min=0).mean()


def _triplet_cases(rng):
    """Violated, semi-hard and satisfied triplets; a batch without an active one; and a single triplet."""
    a, p, n = _normal(rng, 6, 4), _normal(rng, 6, 4), _normal(rng, 6, 4)
    n[0] = a[0] + 0.1 * n[0]  # violated
    p[1], n[1] = 0.5 * a[1] + 0.1 * _normal(rng, 4), -a[1]  # satisfied
    n[2] = p[2] * 1.5 + 0.05 * _normal(rng, 4)  # within the margin
    b = _normal(rng, 3, 5)
    return [
        Case({"anchor": a, "positive": p, "negative": n, "margin": 0.3}),
        Case({"anchor": _normal(rng, 9, 2), "positive": _normal(rng, 9, 2), "negative": _normal(rng, 9, 2),
              "margin": float(rng.uniform(0.5, 1.0))}),
        Case({"anchor": b, "positive": 2 * b + 0.01 * _normal(rng, 3, 5), "negative": -b + 0.1 * _normal(rng, 3, 5),
              "margin": 0.2}),
        Case({"anchor": _normal(rng, 1, 3), "positive": _normal(rng, 1, 3), "negative": _normal(rng, 1, 3),
              "margin": 4.5}),
    ]  # fmt: skip


def _triplet_with(onto=lambda z: F.normalize(z, dim=1), far=lambda x: x.square().sum(1), cost=None, end=torch.mean):
    """`triplet_loss` with a part exchanged."""

    def solution(anchor, positive, negative, margin):
        a, p, n = onto(anchor), onto(positive), onto(negative)
        return end((cost or (lambda d_p, d_n, m: (d_p - d_n + m).clamp(min=0)))(far(a - p), far(a - n), margin))

    return solution


def _triplets_by_cosine(anchor, positive, negative, margin):
    to_positive, to_negative = (F.cosine_similarity(anchor, other, dim=1) for other in (positive, negative))
    return (to_negative - to_positive + margin).clamp(min=0).mean()


def _cut_by_feature(anchor, positive, negative, margin):
    a, p, n = (F.normalize(z, dim=1) for z in (anchor, positive, negative))
    return ((a - p) ** 2 - (a - n) ** 2 + margin).clamp(min=0).mean()


def _from_the_positive(anchor, positive, negative, margin):
    return triplet_loss(positive, anchor, negative, margin)


TRIPLET_LOSS = Task(
    name="triplet_loss",
    title="the triplet loss on the unit sphere",
    points=2,
    cases=_triplet_cases,
    gradients=("anchor", "positive", "negative"),
    solution=triplet_loss,
    mistakes=(
        Mistake(
            "positive and negative have changed places: a triplet costs most where the positive is far and the "
            "negative near",
            _triplet_with(cost=lambda d_p, d_n, m: (d_n - d_p + m).clamp(min=0)),
        ),
        Mistake(
            "the embeddings are compared as they come: bring each to length one first, or a network that makes its "
            "vectors longer beats any margin",
            _triplet_with(onto=lambda z: z),
        ),
        Mistake(
            "the columns are normalised, not the rows: each embedding must have length one by itself",
            _triplet_with(onto=lambda z: F.normalize(z, dim=0)),
        ),
        Mistake(
            "the distances have roots: FaceNet's loss compares squared distances",
            _triplet_with(far=lambda x: torch.linalg.vector_norm(x, dim=1)),
        ),
        Mistake(
            "the squared distance sums over the features, and yours takes their mean",
            _triplet_with(far=lambda x: x.square().mean(1)),
        ),
        Mistake(
            "the margin has the wrong sign: a triplet in the right order by less than the margin must still cost "
            "something",
            _triplet_with(cost=lambda d_p, d_n, m: (d_p - d_n - m).clamp(min=0)),
        ),
        Mistake(
            "triplets that are satisfied lower your loss: cut each triplet off at zero",
            _triplet_with(cost=lambda d_p, d_n, m: d_p - d_n + m),
        ),
        Mistake(
            "the cut at zero comes after the mean: satisfied triplets then pay for violated ones, so cut off each "
            "triplet before you average",
            _triplet_with(cost=lambda d_p, d_n, m: d_p - d_n + m, end=lambda loss: loss.mean().clamp(min=0)),
        ),
        Mistake(
            "only triplets that cost something are averaged: here the mean is over all of them, and a batch without an "
            "active one costs nothing",
            _triplet_with(end=lambda loss: loss.sum() / (loss > 0).sum().clamp(min=1)),
        ),
        Mistake("the loss is the mean over the triplets, and yours is their sum", _triplet_with(end=torch.sum)),
        Mistake(
            "the negative's distance is measured from the positive: both distances start at the anchor",
            _from_the_positive,
        ),
        Mistake(
            "cosines are compared: on the sphere a squared distance changes twice as much as the cosine, so the margin "
            "means something else",
            _triplets_by_cosine,
        ),
        Mistake(
            "no gradient reaches the negatives: they are pushed away as the anchor is, so do not detach them",
            lambda anchor, positive, negative, margin: triplet_loss(anchor, positive, negative.detach(), margin),
        ),
        Mistake(
            "a soft corner stands in place of the cut at zero: here a satisfied triplet costs nothing at all",
            _triplet_with(cost=lambda d_p, d_n, m: F.softplus(d_p - d_n + m)),
        ),
        Mistake(
            "each feature is cut off at zero by itself: sum the squares over the features first, then add the margin "
            "and cut",
            _cut_by_feature,
        ),
    ),
)


# --- 4. which negative


def semi_hard_negatives(z, labels, anchor, positive):
    z = F.normalize(z, dim=1)
    distance = (z[anchor][:, None] - z).square().sum(2)  # (T, N)
    to_positive = (z[anchor] - z[positive]).square().sum(1, keepdim=True)  # (T, 1)
    allowed = labels[anchor][:, None] != labels
    farther = allowed & (distance > to_positive)
    nearest = distance.masked_fill(~farther, torch.inf).argmin(1)
    farthest = distance.masked_fill(~allowed, -torch.inf).argmax(1)
    return torch.where(farther.any(1), nearest, farthest)


def _mining_cases(rng):
    cases = []
    for sizes, width in (([2, 3, 4, 2], 3), ([3, 2, 2, 3, 2], 2), ([2, 1, 1], 5)):
        labels = rng.permutation(np.repeat(rng.choice(90, len(sizes), replace=False), sizes))
        same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
        pairs = rng.permutation(np.argwhere(same))
        z = _apart(rng, labels, pairs[0], width)
        cases.append(Case({"z": z, "labels": labels, "anchor": pairs[:, 0], "positive": pairs[:, 1]}))
    return cases


def _apart(rng, labels, pair, width):
    """Embeddings with no two distances alike, and a pair at opposite ends: no negative is farther than its positive."""
    while True:
        z = _normal(rng, len(labels), width)
        z[pair[1]] = -1.3 * z[pair[0]] + 0.01 * _normal(rng, width)
        one = z.astype(float) / np.linalg.norm(z, axis=1, keepdims=True)
        ranks = np.sort(((one[:, None] - one) ** 2).sum(2), axis=1)
        if np.diff(ranks[:, 1:], axis=1).min() > 1e-4 and ranks[:, 1].min() > 1e-3:
            return z


def _mined_with(onto=lambda z: F.normalize(z, dim=1), allow=None, farther=None, choose="nearest", fallback="farthest"):
    """`semi_hard_negatives` with a part exchanged."""

    def solution(z, labels, anchor, positive):
        z = onto(z)
        distance = (z[anchor][:, None] - z).square().sum(2)
        to_positive = (z[anchor] - z[positive]).square().sum(1, keepdim=True)
        allowed = (allow or (lambda labels, a, p: labels[a][:, None] != labels))(labels, anchor, positive)
        good = allowed & (farther or torch.gt)(distance, to_positive)

        def nearest(among):
            return distance.masked_fill(~among, torch.inf).argmin(1)

        def farthest(among):
            return distance.masked_fill(~among, -torch.inf).argmax(1)

        chosen = (nearest if choose == "nearest" else farthest)(good)
        if fallback == "none":
            return chosen
        if fallback == "any":
            return torch.where(good.any(1), chosen, distance.argmax(1))
        return torch.where(good.any(1), chosen, (farthest if fallback == "farthest" else nearest)(allowed))

    return solution


def _mined_from_the_positive(z, labels, anchor, positive):
    return semi_hard_negatives(z, labels, positive, anchor)


def _mined_numbers_among_negatives(z, labels, anchor, positive):
    rows = semi_hard_negatives(z, labels, anchor, positive)
    return torch.stack([(labels[:row] != labels[a]).sum() for a, row in zip(anchor, rows, strict=True)])


def _masked_by_zero(z, labels, anchor, positive):
    z = F.normalize(z, dim=1)
    distance = (z[anchor][:, None] - z).square().sum(2)
    farther = (labels[anchor][:, None] != labels) & (distance > distance.gather(1, positive[:, None]))
    return (distance * farther).argmin(1)


def _mined_by_similarity(z, labels, anchor, positive):
    z = F.normalize(z, dim=1)
    similar = z[anchor] @ z.T
    allowed = labels[anchor][:, None] != labels
    good = allowed & (similar > similar.gather(1, positive[:, None]))
    nearest = similar.masked_fill(~good, torch.inf).argmin(1)
    return torch.where(good.any(1), nearest, similar.masked_fill(~allowed, -torch.inf).argmax(1))


SEMI_HARD_NEGATIVES = Task(
    name="semi_hard_negatives",
    title="a negative for every triplet, farther than the positive",
    points=3,
    cases=_mining_cases,
    solution=semi_hard_negatives,
    mistakes=(
        Mistake(
            "you take the hardest negatives, those nearest to the anchor: a semi-hard one lies farther away than the "
            "positive",
            _mined_with(farther=lambda d, p: torch.ones_like(d, dtype=torch.bool)),
        ),
        Mistake(
            "rows of the anchor's own label are among your negatives: leave out all pictures of that label",
            _mined_with(allow=lambda labels, a, p: torch.ones(len(a), len(labels), dtype=torch.bool)),
        ),
        Mistake(
            "only the anchor and its positive are left out, and other pictures of their label still pass for "
            "negatives: compare the labels, not the rows",
            _mined_with(
                allow=lambda labels, a, p: (
                    (torch.arange(len(labels)) != a[:, None]) & (torch.arange(len(labels)) != p[:, None])
                )
            ),
        ),
        Mistake(
            "you take the farthest of those beyond the positive, the easiest: the nearest of them is wanted",
            _mined_with(choose="farthest"),
        ),
        Mistake(
            "where no negative is farther than the positive, something arbitrary comes out: the farthest negative is "
            "wanted there",
            _mined_with(fallback="none"),
        ),
        Mistake(
            "where no negative is farther than the positive, you fall back on the nearest negative: take the farthest, "
            "which violates the order least",
            _mined_with(fallback="nearest"),
        ),
        Mistake(
            "the distances are those of embeddings as they come: the loss compares them on the unit sphere, so mine "
            "there",
            _mined_with(onto=lambda z: z),
        ),
        Mistake(
            "you look for negatives that are nearer than the positive: those are the hard ones, so turn the comparison",
            _mined_with(farther=torch.lt),
        ),
        Mistake(
            "similarities are treated as distances: a row is farther where its cosine is lower, so turn the "
            "comparison, and take the highest for the nearest",
            _mined_by_similarity,
        ),
        Mistake(
            "where no negative is farther than the positive, you take the farthest of all rows: only rows of another "
            "label are negatives",
            _mined_with(fallback="any"),
        ),
        Mistake(
            "the distances are measured from the positive: all of them start at the anchor",
            _mined_from_the_positive,
        ),
        Mistake(
            "you return places in the list of the negatives: rows of the whole batch are wanted, so mask what is not "
            "allowed instead of taking it out",
            _mined_numbers_among_negatives,
        ),
        Mistake(
            "what is not allowed gets a distance of zero, which makes it the nearest of all: give it an infinite one",
            _masked_by_zero,
        ),
    ),
)


# --- 5. InfoNCE


def info_nce(query, key, temperature):
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1)
    logits = q @ k.T / temperature  # (N, N)
    return F.cross_entropy(logits, torch.arange(len(q)))


def _nce_cases(rng):
    """The last one is cold: a wrong key lies close to its query, so that exp(1 / temperature) overflows float32."""
    query, key = _normal(rng, 4, 5), _normal(rng, 4, 5)
    key[1] = 2 * query[0] + 0.05 * _normal(rng, 5)
    return [
        Case({"query": _normal(rng, 6, 3), "key": _normal(rng, 6, 3), "temperature": 0.5}),
        Case({"query": _normal(rng, 3, 7), "key": _normal(rng, 3, 7), "temperature": float(rng.uniform(0.2, 0.3))}),
        Case({"query": query, "key": key, "temperature": 0.01}),
    ]


def _nce_with(onto=lambda z: F.normalize(z, dim=1), key=lambda k: k, scale=torch.div, loss=None):
    """`info_nce` with a part exchanged."""

    def solution(query, key_, temperature):
        logits = scale(onto(query) @ onto(key(key_)).T, temperature)
        return (loss or (lambda s: F.cross_entropy(s, torch.arange(len(s)))))(logits)

    return solution


def _without_positive(logits):
    eye = torch.eye(len(logits), dtype=torch.bool)
    return (logits.masked_fill(eye, -torch.inf).logsumexp(1) - logits.diagonal()).mean()


OVERFLOW = (
    "the exponential of a similarity over a low temperature is too large for a float: let torch take the logarithm of "
    "the softmax in one step"
)

INFO_NCE = Task(
    name="info_nce",
    title="InfoNCE: find your key among all keys",
    points=2,
    cases=_nce_cases,
    gradients=("query", "key"),
    rtol=1e-3,
    atol=1e-3,
    solution=info_nce,
    mistakes=(
        Mistake(
            "queries and keys are compared as they come: bring each to length one, so that a product is a cosine",
            _nce_with(onto=lambda z: z),
        ),
        Mistake(
            "the columns are normalised, not the rows: each query and each key must have length one by itself",
            _nce_with(onto=lambda z: F.normalize(z, dim=0)),
        ),
        Mistake(
            "the temperature multiplies: similarities are divided by it, so that a low one sharpens the choice",
            _nce_with(scale=torch.mul),
        ),
        Mistake(
            "the temperature does nothing: divide the similarities by it. A division of the rows before they are "
            "brought to length one is undone there",
            _nce_with(scale=lambda s, t: s),
        ),
        Mistake(
            "the softmax runs over the queries: each query chooses among the keys, so it runs along a row of query by "
            "key",
            _nce_with(loss=lambda s: F.cross_entropy(s.T, torch.arange(len(s)))),
        ),
        Mistake(
            "both directions are averaged: here only queries choose among keys, and not the other way round",
            _nce_with(
                loss=lambda s: (F.cross_entropy(s, t := torch.arange(len(s))) + F.cross_entropy(s.T, t)) / 2,
            ),
        ),
        Mistake(
            "your denominator lacks the positive: in InfoNCE the right key is one of the candidates",
            _nce_with(loss=_without_positive),
        ),
        Mistake(
            "a softmax of a softmax is taken: cross_entropy wants the logits and does the softmax itself",
            _nce_with(loss=lambda s: F.cross_entropy(s.softmax(1), torch.arange(len(s)))),
        ),
        Mistake(
            "the logarithm is missing: the loss is that of the probability of the right key, not the probability",
            _nce_with(loss=lambda s: -s.softmax(1).diagonal().mean()),
        ),
        Mistake(
            "the sign is turned: the better the right key is found, the lower the loss must be",
            _nce_with(loss=lambda s: -F.cross_entropy(s, torch.arange(len(s)))),
        ),
        Mistake(
            "the loss is the mean over the queries, and yours is their sum",
            _nce_with(loss=lambda s: F.cross_entropy(s, torch.arange(len(s)), reduction="sum")),
        ),
        Mistake(
            "the right key is taken to be the first for every query: that of query number i is key number i",
            _nce_with(loss=lambda s: F.cross_entropy(s, torch.zeros(len(s), dtype=torch.int64))),
        ),
        Mistake(
            "each pair is judged by itself, as in a sigmoid: here the keys compete, in one softmax a query",
            _nce_with(loss=lambda s: F.binary_cross_entropy_with_logits(s, torch.eye(len(s)))),
        ),
        Mistake(
            "only the queries have length one: bring the keys there, too, or a long key wins by its length",
            lambda query, key, temperature: F.cross_entropy(
                F.normalize(query, dim=1) @ key.T / temperature, torch.arange(len(query))
            ),
        ),
        Mistake(
            "squared distances stand in place of the cosines: on the sphere they change twice as much, as if the "
            "temperature were half",
            _nce_with(scale=lambda s, t: (2 * s - 2) / t),
        ),
        Mistake(
            "the probabilities are averaged before the logarithm: take the logarithm of each, and then the mean",
            _nce_with(loss=lambda s: -s.softmax(1).diagonal().mean().log()),
        ),
        Mistake(
            "no gradient reaches the keys: here both sides learn, so do not detach them",
            _nce_with(key=lambda k: k.detach()),
        ),
        Mistake(
            OVERFLOW,
            _nce_with(loss=lambda s: -(s.exp().diagonal() / s.exp().sum(1)).log().mean()),
        ),
    ),
)


# --- 6. NT-Xent


def nt_xent(z1, z2, temperature):
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)  # (2N, D)
    logits = z @ z.T / temperature  # (2N, 2N)
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(2 * n).roll(n))


def _nt_xent_cases(rng):
    """The last one is cold: a view of another picture lies close to z1[0], so that exp(1 / temperature) overflows."""
    z1, z2 = _normal(rng, 4, 6), _normal(rng, 4, 6)
    z1[1] = 1.5 * z1[0] + 0.05 * _normal(rng, 6)
    return [
        Case({"z1": _normal(rng, 5, 3), "z2": _normal(rng, 5, 3), "temperature": 0.5}),
        Case({"z1": _normal(rng, 3, 8), "z2": _normal(rng, 3, 8), "temperature": float(rng.uniform(0.2, 0.3))}),
        Case({"z1": z1, "z2": z2, "temperature": 0.01}),
    ]


def _nt_xent_with(
    onto=lambda z: F.normalize(z, dim=1), scale=torch.div, mask=None, loss=F.cross_entropy, partner=None, join=torch.cat
):
    """`nt_xent` with a part exchanged."""

    def solution(z1, z2, temperature):
        n = len(z1)
        z = onto(join([z1, z2]))
        eye = torch.eye(2 * n, dtype=torch.bool)
        logits = scale(z @ z.T, temperature)
        logits = (mask or (lambda s, eye, n: s.masked_fill(eye, -torch.inf)))(logits, eye, n)
        return loss(logits, torch.arange(2 * n).roll(n) if partner is None else partner(n))

    return solution


def _halves(n):
    return torch.arange(2 * n) < n


def _between_views(logits, eye, n):
    return logits.masked_fill(_halves(n)[:, None] == _halves(n), -torch.inf)


def _no_partner_below(logits, target):
    wrong = logits.scatter(1, target[:, None], -torch.inf)
    return (wrong.logsumexp(1) - logits.gather(1, target[:, None])[:, 0]).mean()


def _naive(logits, target):
    e = logits.exp()
    return -(e.gather(1, target[:, None])[:, 0] / e.sum(1)).log().mean()


NT_XENT = Task(
    name="nt_xent",
    title="NT-Xent: find the other view among all views",
    points=3,
    cases=_nt_xent_cases,
    gradients=("z1", "z2"),
    rtol=1e-3,
    atol=1e-3,
    solution=nt_xent,
    mistakes=(
        Mistake(
            "your denominator contains the pair of a view with itself: mask the diagonal",
            _nt_xent_with(mask=lambda s, eye, n: s),
        ),
        Mistake(
            "a masked similarity of zero still counts, for its exponential is one: mask with minus infinity, or leave "
            "the term out of the sum",
            _nt_xent_with(mask=lambda s, eye, n: s.masked_fill(eye, 0)),
        ),
        Mistake(
            "only the first views choose: every view, of either kind, looks for its partner, and the mean is over all "
            "of them",
            _nt_xent_with(loss=lambda s, t: F.cross_entropy(s[: len(s) // 2], t[: len(s) // 2])),
        ),
        Mistake(
            "views of the same kind are missing from your candidates: the negatives of a first view are among the "
            "first as well as among the second",
            _nt_xent_with(mask=_between_views),
        ),
        Mistake(
            "first views choose among second ones alone, as in InfoNCE: here every view chooses, and among all others",
            info_nce,
        ),
        Mistake(
            "your denominator lacks the partner: only the view itself is left out of the candidates",
            _nt_xent_with(loss=_no_partner_below),
        ),
        Mistake(
            "the partner is looked for in the next row: after the join it stands a whole batch further on",
            _nt_xent_with(partner=lambda n: torch.arange(2 * n) ^ 1),
        ),
        Mistake(
            "the partner is counted from the other end of the batch: row number i of the first views has row number i "
            "of the second",
            _nt_xent_with(partner=lambda n: torch.arange(2 * n).flip(0)),
        ),
        Mistake(
            "each view is told to find itself: the right answer of a row is its partner, and the view itself is left "
            "out",
            _nt_xent_with(partner=lambda n: torch.arange(2 * n), mask=lambda s, eye, n: s),
        ),
        Mistake(
            "a masked similarity still counts a little if it is the least cosine there is: mask with minus infinity",
            _nt_xent_with(mask=lambda s, eye, n: s.masked_fill(eye, -1)),
        ),
        Mistake(
            "each second view is sent to itself: its partner stands among the first views",
            _nt_xent_with(partner=lambda n: torch.arange(n, 2 * n).repeat(2), mask=lambda s, eye, n: s),
        ),
        Mistake(
            "the embeddings are compared as they come: bring each to length one, so that a product is a cosine",
            _nt_xent_with(onto=lambda z: z),
        ),
        Mistake(
            "the columns are normalised, not the rows: each embedding must have length one by itself",
            _nt_xent_with(onto=lambda z: F.normalize(z, dim=0)),
        ),
        Mistake(
            "the temperature multiplies: similarities are divided by it, so that a low one sharpens the choice",
            _nt_xent_with(scale=torch.mul),
        ),
        Mistake(
            "the loss is the mean over all views, and yours is their sum",
            _nt_xent_with(loss=lambda s, t: F.cross_entropy(s, t, reduction="sum")),
        ),
        Mistake(
            "the sum over all views is divided by the number of pictures: there are two views of each",
            _nt_xent_with(loss=lambda s, t: 2 * F.cross_entropy(s, t)),
        ),
        Mistake(
            "no gradient reaches the second views: both views learn alike, so do not detach one of them",
            lambda z1, z2, temperature: nt_xent(z1, z2.detach(), temperature),
        ),
        Mistake(OVERFLOW, _nt_xent_with(loss=_naive)),
    ),
)


# --- 7. alignment and uniformity


def alignment_uniformity(z1, z2, t):
    z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    alignment = (z1 - z2).square().sum(1).mean()
    uniformity = [(-t * torch.pdist(z).square()).exp().mean().log() for z in (z1, z2)]
    return alignment, sum(uniformity) / 2


def _health_cases(rng):
    z1 = _normal(rng, 2, 4)
    return [
        Case({"z1": _normal(rng, 7, 3), "z2": _normal(rng, 7, 3), "t": 2.0}),
        Case({"z1": _normal(rng, 4, 6), "z2": _normal(rng, 4, 6), "t": float(rng.uniform(0.5, 1.0))}),
        Case({"z1": z1, "z2": z1 + 0.1 * _normal(rng, 2, 4), "t": 3.0}),
    ]


def _health_with(
    onto=lambda z: F.normalize(z, dim=1), aligned=lambda x: x.square().sum(1).mean(), kernel=None, views=2
):
    """`alignment_uniformity` with a part exchanged."""

    def solution(z1, z2, t):
        z1, z2 = onto(z1), onto(z2)
        spread = kernel or (lambda d, t: (-t * d).exp().mean().log())
        parts = [spread(_pairwise(z), t) for z in (z1, z2)[:views]]
        return aligned(z1 - z2), sum(parts) / len(parts)

    return solution


def _pairwise(z):
    i, j = torch.triu_indices(len(z), len(z), offset=1)
    return (z[i] - z[j]).square().sum(1)


def _with_diagonal(d, t):
    n = round((1 + (1 + 8 * len(d)) ** 0.5) / 2)
    return ((n + 2 * (-t * d).exp().sum()) / n**2).log()


def _with_zeros(d, t):
    n = round((1 + (1 + 8 * len(d)) ** 0.5) / 2)
    return (2 * (-t * d).exp().sum() / n**2).log()


ALIGNMENT_UNIFORMITY = Task(
    name="alignment_uniformity",
    title="are views together, and all embeddings spread out?",
    points=2,
    cases=_health_cases,
    returns=("alignment", "uniformity"),
    solution=alignment_uniformity,
    mistakes=(
        Mistake(
            "the pairs of an embedding with itself are in your mean: their distance is always zero and says nothing, "
            "so leave them out",
            _health_with(kernel=_with_diagonal),
        ),
        Mistake(
            "the pairs of an embedding with itself are left out of the sum and still counted in the mean: divide by "
            "the number of pairs of two",
            _health_with(kernel=_with_zeros),
        ),
        Mistake(
            "the logarithm of each term is averaged, which undoes the exponential: average first, and take the "
            "logarithm of the mean",
            _health_with(kernel=lambda d, t: (-t * d).exp().log().mean()),
        ),
        Mistake(
            "the distances between embeddings have roots: the kernel takes squared distances",
            _health_with(kernel=lambda d, t: (-t * d.sqrt()).exp().mean().log()),
        ),
        Mistake("the logarithm of the mean is missing", _health_with(kernel=lambda d, t: (-t * d).exp().mean())),
        Mistake(
            "the exponent has the wrong sign: pairs that are far apart must count for little",
            _health_with(kernel=lambda d, t: (t * d).exp().mean().log()),
        ),
        Mistake(
            "the kernel is summed over the pairs: take its mean, or the value grows with the batch",
            _health_with(kernel=lambda d, t: (-t * d).exp().sum().log()),
        ),
        Mistake(
            "the kernel is summed over the pairs in both orders: take its mean, or the value grows with the batch",
            _health_with(kernel=lambda d, t: (2 * (-t * d).exp().sum()).log()),
        ),
        Mistake(
            "the uniformities of the two views are added up: take their mean",
            lambda z1, z2, t: (
                alignment_uniformity(z1, z2, t)[0],
                2 * alignment_uniformity(z1, z2, t)[1],
            ),
        ),
        Mistake(
            "the kernels of both views are averaged before the logarithm: uniformity is a logarithm for each view, and "
            "the mean is over the two",
            lambda z1, z2, t: (
                alignment_uniformity(z1, z2, t)[0],
                sum(alignment_uniformity(z, z, t)[1].exp() / 2 for z in (z1, z2)).log(),
            ),
        ),
        Mistake(
            "alignment is summed over the pairs: take the mean, or it grows with the batch",
            _health_with(aligned=lambda x: x.square().sum()),
        ),
        Mistake(
            "the sign of uniformity is turned: as in the paper, lower is more uniform",
            _health_with(kernel=lambda d, t: -(-t * d).exp().mean().log()),
        ),
        Mistake(
            "the embeddings are taken as they come: both measures live on the unit sphere",
            _health_with(onto=lambda z: z),
        ),
        Mistake("uniformity is that of the first views only: take the mean of both values", _health_with(views=1)),
        Mistake(
            "alignment has a root: take the mean of squared distances",
            _health_with(aligned=lambda x: torch.linalg.vector_norm(x, dim=1).mean()),
        ),
        Mistake(
            "alignment averages over the features as well: a squared distance sums over them",
            _health_with(aligned=lambda x: x.square().mean()),
        ),
        Mistake(
            "the two results have changed places: alignment comes first",
            lambda z1, z2, t: alignment_uniformity(z1, z2, t)[::-1],
        ),
        Mistake(
            "uniformity compares first views with second ones: it is over pairs of two embeddings of one kind",
            lambda z1, z2, t: (
                alignment_uniformity(z1, z2, t)[0],
                (-t * torch.cdist(F.normalize(z1, dim=1), F.normalize(z2, dim=1)) ** 2).exp().mean().log(),
            ),
        ),
        Mistake(
            "uniformity is measured over both kinds of views thrown together, partners included: measure each kind by "
            "itself and take the mean",
            lambda z1, z2, t: (
                alignment_uniformity(z1, z2, t)[0],
                alignment_uniformity(torch.cat([z1, z2]), torch.cat([z1, z2]), t)[1],
            ),
        ),
    ),
)


# --- 8. an encoder


def embed(train_images, images, steps, seed):
    from course_utils.models import MLP, ConvEncoder
    from course_utils.views import augment

    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    encoder = ConvEncoder(train_images.shape[1])
    head = MLP(encoder.out_dim, encoder.out_dim, 64)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(steps):
        x = train_images[torch.randint(len(train_images), (64,), generator=rng)]
        views = torch.cat([augment(x, rng, size=20), augment(x, rng, size=20)])  # (128, 1, 20, 20)
        z1, z2 = head(encoder(views)).chunk(2)
        loss = nt_xent(z1, z2, 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval()
    with torch.no_grad():
        return torch.cat([encoder(part) for part in images.split(500)])


# What a linear probe reads, accuracy of 26 letters: mean of two draws (seeds 101 and 102), with 4,000 images to train
# on, 1,500 labels for the probe and 1,000 hidden ones to score it. An untrained encoder comes to 0.13 (0.11, 0.15) and
# PCA with as many dimensions to 0.25 (0.22, 0.27): nothing is earned up to there. The solution above comes to 0.82
# (0.84, 0.81) after 500 updates, and to 0.77 on a third draw: whoever does as well has all points.
STEPS = 500
BASELINE, GOOD = 0.25, 0.75
TRAIN, PROBE, TEST = 4000, 1500, 1000
WIDEST = 256  # features of an image


def _tiny_cases(rng):
    """Calls that differ in one thing from the first, so that it can be seen what the features depend on."""
    train, images = rng.random((24, 1, 28, 28), np.float32), rng.random((9, 1, 28, 28), np.float32)
    seed = _seed(rng)
    first = {"train_images": train, "images": images, "steps": 2, "seed": seed}
    order = np.roll(np.arange(len(images)), 4)
    changes = {
        "first": {},
        "again": {},
        "seed": {"seed": _seed(rng)},
        "steps": {"steps": 1},
        "order": {"images": images[order]},
        "fewer": {"images": images[:4]},
    }
    seen = {}
    return [Case(first | change, {"role": role, "seen": seen, "order": order}) for role, change in changes.items()]


def _real_cases(rng):
    """Images to learn from and images to give features of, each from a seed of its own.

    torch knows 2³² seeds, and a submission could try them: the second come in an order that none of them gives.
    """
    from course_utils.data.glyphs import glyphs

    train, hidden = (
        glyphs(seed=int(rng.integers(2**31)), n_train=n, n_validation=1, n_test=1).train for n in (TRAIN, PROBE + TEST)
    )
    order = rng.permutation(PROBE + TEST)
    given = {"train_images": train.x.numpy(), "images": hidden.x.numpy()[order], "steps": STEPS, "seed": _seed(rng)}
    return [Case(given, {"labels": hidden.y.numpy()[order]})]


EMBED = {
    "maps": "the features keep the shape of maps or images: one row of numbers an image is wanted, (N, D)",
    "constant": "all images get the same features: something upstream of them does not depend on the image, or the "
    "embedding has collapsed",
    "unseeded": "the same seed gives other features the second time: seed torch before the networks are made, and hand "
    "a seeded generator to each function that draws",
    "one_seed": "two seeds give the same features: use the argument `seed`",
    "untrained": "more updates change nothing: the argument `steps` is not used, the loop never runs (there may be "
    "fewer images than a batch has rows), the weights never reach the optimiser, or another encoder makes the features",
    "leak": "the features change with the order of `images`: were these trained on? They are the hidden ones, and only "
    "`train_images` may be learnt from",
    "mode": "the features of an image depend on the images beside it: put the encoder into evaluation mode, and take "
    "no statistics from `images`",
}


def _judge_features(case, outputs):
    """Equal means within a hundredth of the largest feature, which rounding to bfloat16 stays under."""
    features = outputs["features"]
    n = len(case.given["images"])
    if features.ndim > 2 and len(features) == n:
        return EMBED["maps"]
    if features.ndim != 2 or len(features) != n or not 1 <= features.shape[1] <= WIDEST:
        return f"features must have shape ({n}, D) with D from 1 to {WIDEST}, got {features.shape}"
    if features.dtype.kind != "f":
        return f"features must be floating point, got {features.dtype}"
    if np.ptp(features, axis=0).max() <= 1e-6 * np.abs(features).max():
        return EMBED["constant"]
    if "role" not in case.hidden:
        return None
    role, before = case.hidden["role"], first_of(case, features)
    if role == "first" or before is None:
        return None
    wanted = {"order": before[case.hidden["order"]], "fewer": before[: len(features)]}.get(role, before)
    equal = wanted.shape == features.shape and np.abs(features - wanted).max() <= 1e-2 * np.abs(wanted).max()
    if role in ("seed", "steps"):
        exactly = wanted.shape == features.shape and np.allclose(features, wanted, rtol=1e-5, atol=1e-7)
        return EMBED["one_seed" if role == "seed" else "untrained"] if exactly else None
    return None if equal else EMBED[{"again": "unseeded", "order": "leak", "fewer": "mode"}[role]]


def _score_features(case, outputs):
    from course_utils.evaluate import linear_probe

    x = torch.from_numpy(outputs["features"].astype(np.float32))
    y = torch.from_numpy(case.hidden["labels"])
    accuracy = linear_probe(x[:PROBE], y[:PROBE], x[PROBE:], y[PROBE:]).accuracy
    part = float(np.clip((accuracy - BASELINE) / (GOOD - BASELINE), 0, 1))
    said = f"from your features a linear probe reads the hidden letter with accuracy {accuracy:.2f}"
    return Score(
        part, f"{said}; points are earned from {BASELINE:.2f}, where PCA stands, and all of them at {GOOD:.2f}"
    )


def _embed_with(
    source=lambda train, images: train, seeded=torch.manual_seed, seed_of=lambda seed: seed, finish=None, mode="eval"
):
    """`embed`, in few lines, with a part exchanged."""

    def solution(train_images, images, steps, seed):
        from course_utils.models import ConvEncoder
        from course_utils.views import augment

        seeded(seed_of(seed))
        rng = torch.Generator().manual_seed(seed_of(seed))
        encoder = ConvEncoder(train_images.shape[1])
        optimizer = torch.optim.Adam(encoder.parameters(), lr=2e-3)
        x = source(train_images, images)
        for _ in range(steps):
            batch = x[torch.randint(len(x), (8,), generator=rng)]
            views = (augment(batch, rng, size=14) for _ in range(2))
            loss = nt_xent(*map(encoder, views), 0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        encoder.train(mode == "train")
        with torch.no_grad():
            return (finish or (lambda encoder, images: encoder(images)))(encoder, images)

    return solution


def _fresh(encoder, images):
    from course_utils.models import ConvEncoder

    torch.manual_seed(len(images))
    return ConvEncoder(images.shape[1]).eval()(images)


def _never_trained(train_images, images, steps, seed):
    return _embed_with()(train_images, images, 0, seed)


EMBED_TASK = Task(
    name="embed",
    title="train an encoder without labels, and give its features",
    points=3,
    cases=_tiny_cases,
    graded=_real_cases,
    returns=("features",),
    solution=embed,
    judge=_judge_features,
    score=_score_features,
    seconds=120.0,
    mistakes=(
        Mistake(EMBED["maps"], _embed_with(finish=lambda encoder, images: encoder.feature_map(images))),
        Mistake(
            EMBED["constant"],
            _embed_with(finish=lambda encoder, images: encoder(images).mean(0).expand(len(images), -1)),
        ),
        Mistake(EMBED["unseeded"], _embed_with(seeded=lambda seed: torch.seed())),
        Mistake(EMBED["one_seed"], _embed_with(seed_of=lambda seed: 0)),
        Mistake(EMBED["untrained"], _never_trained),
        Mistake(EMBED["leak"], _embed_with(source=lambda train, images: torch.cat([train, images]))),
        Mistake(EMBED["mode"], _embed_with(mode="train")),
    ),
)


TASKS = [
    SAMPLE_PAIRS,
    CONTRASTIVE_MARGIN,
    TRIPLET_LOSS,
    SEMI_HARD_NEGATIVES,
    INFO_NCE,
    NT_XENT,
    ALIGNMENT_UNIFORMITY,
    EMBED_TASK,
]
