"""Metric learning against loops in float64: losses of pairs and of triplets, the mining of negatives, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.losses import contrastive_margin, mine_triplets, triplet_margin


def draw(n, d, parts=2, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=rng, dtype=dtype) for _ in range(parts))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


shapes = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(0, 2**31))
margins = st.sampled_from([0.01, 0.2, 1.0, 4.0, 1e3])


# --- pairs: Hadsell et al. 2006


def contrastive_by_loops(x1, x2, y, margin):
    total = 0.0
    for u, v, different in zip(x1.tolist(), x2.tolist(), y.tolist(), strict=True):
        distance = math.dist(u, v)
        if different:
            total += 0.5 * max(0.0, margin - distance) ** 2
        else:
            total += 0.5 * distance**2
    return total / len(x1)


@settings(deadline=None, max_examples=40)
@given(shapes, margins)
def test_contrastive_margin_is_the_mean_of_equation_4(shape, margin):
    n, d, seed = shape
    x1, x2 = draw(n, d, seed=seed)
    y = torch.rand(n, generator=seeded(seed)) < 0.5
    expected = pytest.approx(contrastive_by_loops(x1, x2, y, margin), rel=1e-10)
    assert contrastive_margin(x1, x2, y, margin=margin).item() == expected
    assert contrastive_margin(x1, x2, y.long(), margin=margin).item() == expected
    assert contrastive_margin(x1, x2, y.double(), margin=margin).item() == expected


def test_contrastive_margin_of_a_collapsed_representation_is_half_the_squared_margin_a_dissimilar_pair():
    x = torch.ones(8, 3, dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    assert contrastive_margin(x, x, y, margin=3.0).item() == pytest.approx(6 / 8 * 9 / 2)


def test_contrastive_margin_is_nought_when_similar_pairs_coincide_and_dissimilar_ones_keep_the_margin():
    x1 = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    x2 = torch.tensor([[1.0, 2.0], [0.0, 2.0], [9.0, 9.0]])
    assert contrastive_margin(x1, x2, torch.tensor([0, 1, 1]), margin=2.0) == 0


def test_contrastive_margin_pulls_similar_pairs_together_and_pushes_dissimilar_ones_apart_up_to_the_margin():
    x1 = torch.zeros(3, 2)
    x2 = torch.tensor([[0.6, 0.8], [0.3, 0.4], [3.0, 4.0]], requires_grad=True)
    contrastive_margin(x1, x2, torch.tensor([0, 1, 1]), margin=1.0).backward()
    force = -3 * x2.grad  # of each pair, in the direction of descent
    torch.testing.assert_close(force, torch.tensor([[-0.6, -0.8], [0.3, 0.4], [0.0, 0.0]]))


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_contrastive_margin_knows_only_distances(shape):
    n, d, seed = shape
    x1, x2 = draw(n, d, seed=seed)
    y = torch.rand(n, generator=seeded(seed)) < 0.5
    rotation = torch.linalg.qr(torch.randn(d, d, generator=seeded(seed), dtype=torch.float64)).Q
    expected = contrastive_margin(x1, x2, y, margin=2.0)
    torch.testing.assert_close(contrastive_margin(x1 @ rotation + 5, x2 @ rotation + 5, y, margin=2.0), expected)
    torch.testing.assert_close(contrastive_margin(x2, x1, y, margin=2.0), expected)
    torch.testing.assert_close(contrastive_margin(7 * x1, 7 * x2, y, margin=14.0), 49 * expected)


def test_contrastive_margin_does_change_with_the_scale_of_the_embeddings():
    x1, x2 = draw(6, 4)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    assert contrastive_margin(2 * x1, 2 * x2, y, margin=1.0) > 2 * contrastive_margin(x1, x2, y, margin=1.0)


def test_contrastive_margin_has_the_gradient_of_its_value():
    x1, x2 = (part.requires_grad_() for part in draw(6, 3))
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda a, b: contrastive_margin(a, b, y, margin=3.0), (x1, x2))


@pytest.mark.parametrize("y", [0, 1])
def test_contrastive_margin_of_pairs_that_coincide_has_a_finite_gradient(y):
    x = torch.ones(2, 3, requires_grad=True)
    contrastive_margin(x, x.detach().clone(), torch.tensor([y, y])).backward()
    assert torch.equal(x.grad, torch.zeros(2, 3))


# --- triplets: Schroff et al. 2015


def unit(row):
    row = np.asarray(row, np.float64)
    return row / math.sqrt(row @ row)


def triplets_by_loops(anchor, positive, negative, margin):
    losses = []
    for a, p, n in zip(anchor, positive, negative, strict=True):
        a, p, n = unit(a), unit(p), unit(n)
        losses.append(max(0.0, math.dist(a, p) ** 2 - math.dist(a, n) ** 2 + margin))
    return losses


@settings(deadline=None, max_examples=40)
@given(shapes, st.sampled_from([0.01, 0.2, 1.0, 10.0]))
def test_triplet_margin_is_the_hinge_on_squared_distances_of_unit_vectors(shape, margin):
    n, d, seed = shape
    parts = draw(n, d, parts=3, seed=seed)
    expected = triplets_by_loops(*(part.numpy() for part in parts), margin)
    assert triplet_margin(*parts, margin=margin).item() == pytest.approx(sum(expected) / n, rel=1e-9, abs=1e-12)
    each = triplet_margin(*parts, margin=margin, reduction="none")
    assert each.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplet_margin_of_a_collapsed_representation_is_the_margin(margin):
    z = torch.ones(5, 4, dtype=torch.float64)
    assert triplet_margin(z, z, z, margin=margin).item() == pytest.approx(margin)


def test_triplet_margin_lies_between_nought_and_four_and_the_margin():
    e = torch.eye(2)[:1]
    assert triplet_margin(e, e, -e, margin=4.0) == 0
    assert triplet_margin(e, -e, e, margin=0.5).item() == pytest.approx(4.5)


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_triplet_margin_does_not_change_under_scale_and_rotation(shape):
    n, d, seed = shape
    parts = draw(n, d, parts=3, seed=seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=seeded(seed), dtype=torch.float64)).Q
    expected = triplet_margin(*parts)
    torch.testing.assert_close(triplet_margin(*(part @ rotation for part in parts)), expected)
    torch.testing.assert_close(
        triplet_margin(*(scale * z for scale, z in zip((0.1, 3, 50), parts, strict=True))), expected
    )


def test_triplet_margin_has_the_gradient_of_its_value():
    parts = tuple(part.requires_grad_() for part in draw(6, 3, parts=3))
    assert torch.autograd.gradcheck(lambda a, p, n: triplet_margin(a, p, n, margin=0.7), parts)


def test_triplets_that_keep_the_margin_have_no_gradient():
    a, n = torch.tensor([[1.0, 0.1]], requires_grad=True), torch.tensor([[-1.0, 0.0]], requires_grad=True)
    loss = triplet_margin(a, torch.tensor([[1.0, 0.0]]), n)
    loss.backward()
    assert loss == 0
    assert not a.grad.any()
    assert not n.grad.any()


# --- both


def both(x1, x2):
    y = torch.arange(len(x1)) % 2
    return contrastive_margin(x1, x2, y, margin=3.0) + triplet_margin(x1, x2, x2.roll(1, 0), margin=1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_its_gradient_comes_back(dtype):
    x1, x2 = (part.to(dtype).requires_grad_() for part in draw(8, 16))
    loss = both(x1, x2)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(both(x1.double(), x2.double()).item(), rel=1e-5)
    assert x1.grad.dtype == dtype
    assert x1.grad.abs().sum() > 0


def test_autocast_is_ignored():
    x1, x2 = draw(8, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = both(x1, x2)
        mined = mine_triplets(x1, torch.arange(4).repeat(2), kind="hard", rng=seeded())
    assert torch.equal(inside, both(x1, x2))
    outside = mine_triplets(x1, torch.arange(4).repeat(2), kind="hard", rng=seeded())
    assert all(torch.equal(i, o) for i, o in zip(mined, outside, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(bad):
    x1, x2 = draw(4, 3)
    x1[0, 2] = bad
    assert not contrastive_margin(x1, x2, torch.zeros(4)).isfinite()
    assert triplet_margin(x1, x2, x2.roll(1, 0)).isnan()


def test_a_dead_projection_costs_the_margin():
    z = torch.zeros(3, 4, requires_grad=True)
    loss = triplet_margin(z, z, z)
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    assert z.grad.isfinite().all()


# --- mining: Schroff et al. 2015, §3.2


def candidates_by_loops(z, labels, kind, margin):
    """(anchor, positive) -> the rows that may be its negative."""
    z = [unit(row) for row in z.numpy()]
    found = {}
    for a in range(len(z)):
        others = [n for n in range(len(z)) if labels[n] != labels[a]]
        to = {k: math.dist(z[a], z[k]) ** 2 for k in range(len(z))}
        for p in range(len(z)):
            if p == a or labels[p] != labels[a]:
                continue
            if kind == "random":
                allowed = others
            elif kind == "hard":
                allowed = [min(others, key=to.get)]
            else:
                allowed = [n for n in others if to[p] < to[n] < to[p] + margin]
                allowed = allowed or [max(others, key=to.get)]
            found[a, p] = set(allowed)
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(4, 9), st.integers(2, 4), st.integers(0, 2**31), st.sampled_from([0.01, 0.2, 1.0, 4.0]))
@pytest.mark.parametrize("kind", ["random", "semi-hard", "hard"])
def test_every_anchor_and_positive_get_a_negative_as_loops_allow(kind, n, d, seed, margin):
    (z,) = draw(n, d, parts=1, seed=seed)
    labels = torch.tensor([0, 0, 1, *torch.randint(0, 3, (n - 3,), generator=seeded(seed)).tolist()])
    expected = candidates_by_loops(z, labels.tolist(), kind, margin)
    anchor, positive, negative = mine_triplets(z, labels, kind=kind, margin=margin, rng=seeded(seed))
    pairs = list(zip(anchor.tolist(), positive.tolist(), strict=True))
    assert sorted(pairs) == sorted(expected)
    assert all(n in expected[pair] for pair, n in zip(pairs, negative.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["random", "semi-hard"])
def test_negatives_are_drawn_evenly_from_those_allowed_by_the_generator(kind):
    (z,) = draw(12, 3, parts=1, seed=3)
    labels = torch.arange(6).repeat(2)
    expected = candidates_by_loops(z, labels.tolist(), kind, 1.0)
    rng, counts = seeded(), torch.zeros(12, 12)
    for _ in range(3000):
        anchor, positive, negative = mine_triplets(z, labels, kind=kind, margin=1.0, rng=rng)
        counts[torch.arange(12), negative] += 1
    for row, pair in enumerate(zip(anchor.tolist(), positive.tolist(), strict=True)):
        allowed = sorted(expected[pair])
        share = counts[row, allowed] / 3000 * len(allowed)
        assert counts[row].sum() == counts[row, allowed].sum()
        assert share.sub(1).abs().max() < 6 * math.sqrt(len(allowed) / 3000)


def test_mining_follows_from_its_generator():
    (z,) = draw(16, 3, parts=1)
    labels = torch.arange(8).repeat(2)
    mined = [mine_triplets(z, labels, kind="random", rng=seeded(seed))[2] for seed in (0, 0, 1)]
    assert torch.equal(mined[0], mined[1])
    assert not torch.equal(mined[0], mined[2])


def angles(*degrees):
    turns = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([turns.cos(), turns.sin()], 1)


def test_without_a_semi_hard_negative_the_farthest_is_taken_which_satisfies_or_violates_least():
    labels = torch.tensor([0, 0, 1, 2])
    far = angles(0, 10, 100, 150)  # both beyond the margin: nothing left to learn from them
    anchor, positive, negative = mine_triplets(far, labels, kind="semi-hard", margin=0.2, rng=seeded())
    assert (anchor.tolist(), negative.tolist()) == ([0, 1], [3, 3])
    assert triplet_margin(far[anchor], far[positive], far[negative]) == 0
    near = angles(0, 90, 20, 40)  # both nearer to the anchor at 0° than its positive at 90°
    assert mine_triplets(near, labels, kind="semi-hard", margin=0.2, rng=seeded())[2].tolist() == [3, 2]


def test_semi_hard_triplets_cost_something_and_less_than_collapse():
    (z,) = draw(64, 8, parts=1)
    anchor, positive, negative = mine_triplets(
        z, torch.arange(32).repeat(2), kind="semi-hard", margin=1.0, rng=seeded()
    )
    losses = triplet_margin(z[anchor], z[positive], z[negative], margin=1.0, reduction="none")
    assert ((losses > 0) & (losses < 1)).float().mean() > 0.9


def test_hard_negatives_cost_at_least_as_much_as_any():
    (z,) = draw(20, 4, parts=1)
    labels = torch.arange(10).repeat(2)
    cost = {}
    for kind in ("hard", "semi-hard", "random"):
        a, p, n = mine_triplets(z, labels, kind=kind, rng=seeded())
        cost[kind] = triplet_margin(z[a], z[p], z[n], reduction="none")
    assert (cost["hard"] >= cost["semi-hard"]).all()
    assert (cost["hard"] >= cost["random"]).all()


def test_mining_carries_no_gradient_and_takes_half_precision():
    (z,) = draw(8, 4, parts=1)
    found = mine_triplets(z.bfloat16().requires_grad_(), torch.arange(4).repeat(2), rng=seeded())
    assert [part.dtype for part in found] == [torch.int64] * 3


# --- refusals

ROWS = torch.rand(4, 3)
PAIRS = torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: contrastive_margin(ROWS, ROWS[:3], PAIRS), ValueError, r"x1 and x2.*\(4, 3\) and \(3, 3\)"),
        (lambda: contrastive_margin(ROWS[:0], ROWS[:0], PAIRS[:0]), ValueError, "at least 1 pairs.*got 0"),
        (lambda: contrastive_margin(ROWS.long(), ROWS, PAIRS), TypeError, "x1.*int64"),
        (lambda: contrastive_margin(ROWS, ROWS, PAIRS[:3]), ValueError, r"y must.*each of the 4 pairs.*\(3,\)"),
        (lambda: contrastive_margin(ROWS, ROWS, [0, 0, 1, 1]), ValueError, "y must be a tensor.*list"),
        (lambda: contrastive_margin(ROWS, ROWS, 2 * PAIRS), ValueError, "y must lie between 0, a similar pair, and 1"),
        (lambda: contrastive_margin(ROWS, ROWS, PAIRS, margin=0.0), ValueError, "margin must be positive, got 0.0"),
        (lambda: triplet_margin(ROWS, ROWS[:3], ROWS), ValueError, r"anchor and positive.*\(3, 3\)"),
        (lambda: triplet_margin(ROWS, ROWS, ROWS[:, :2]), ValueError, r"anchor and negative.*\(4, 2\)"),
        (lambda: triplet_margin(ROWS[:0], ROWS[:0], ROWS[:0]), ValueError, "there is no triplet"),
        (lambda: triplet_margin(ROWS, ROWS, ROWS.long()), TypeError, "negative.*int64"),
        (lambda: triplet_margin(ROWS, ROWS, ROWS, margin=-0.1), ValueError, "margin must be positive, got -0.1"),
        (lambda: triplet_margin(ROWS, ROWS, ROWS, reduction="sum"), ValueError, "'mean' or 'none', got 'sum'"),
        (lambda: mine_triplets(ROWS, PAIRS[:3], rng=seeded()), ValueError, r"labels \(N,\), got \(4, 3\).*\(3,\)"),
        (lambda: mine_triplets(ROWS, PAIRS, kind="easy", rng=seeded()), ValueError, "'hard', got 'easy'"),
        (lambda: mine_triplets(ROWS, PAIRS, margin=math.nan, rng=seeded()), ValueError, "margin.*nan"),
        (lambda: mine_triplets(ROWS, torch.arange(4), rng=seeded()), ValueError, "two rows of one label"),
        (lambda: mine_triplets(ROWS, torch.zeros(4), rng=seeded()), ValueError, "two labels for a negative"),
        (lambda: mine_triplets(ROWS.long(), PAIRS, rng=seeded()), TypeError, "z.*int64"),
    ],
)
def test_what_came_and_what_was_wanted_is_said(call, error, named):
    with pytest.raises(error, match=named):
        call()
