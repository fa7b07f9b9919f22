"""Triplets against FaceNet's loss (Schroff et al. 2015, §3) over anchors, positives and negatives found by loops."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.methods import Triplet
from course_utils.models import ConvEncoder
from course_utils.views import augment

N = 6
X = torch.rand(N, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Triplet(ConvEncoder(1, width=4), **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def losses_with_hard_negatives(method, images, labels, margin):
    rng = seeded()
    views = torch.cat([augment(images, rng), augment(images, rng)])
    z = F.normalize(method.head(method.encoder(views)), dim=1).tolist()
    labels, losses = [*labels, *labels], []
    for a in range(len(z)):
        to = [math.dist(z[a], other) ** 2 for other in z]
        hardest = min(to[n] for n in range(len(z)) if labels[n] != labels[a])
        positives = [p for p in range(len(z)) if labels[p] == labels[a] and p != a]
        losses += [max(0, to[p] - hardest + margin) for p in positives]
    return losses


@pytest.mark.parametrize("margin", [0.1, 1.0])
def test_every_view_is_an_anchor_once_with_the_other_view_and_the_hardest_view_of_another_image(margin):
    method = build(mining="hard", margin=margin)
    expected = losses_with_hard_negatives(copy.deepcopy(method), X, range(N), margin)
    assert len(expected) == 2 * N
    loss, logs = method.training_loss(X, seeded())
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert logs == {"active": pytest.approx(sum(value > 0 for value in expected) / len(expected))}


def test_of_labelled_images_all_pairs_of_a_label_are_anchor_and_positive():
    labels = torch.tensor([0, 0, 1, 0, 1, 1])
    method = build(mining="hard")
    expected = losses_with_hard_negatives(copy.deepcopy(method), X, labels.tolist(), 0.2)
    assert len(expected) == 2 * 6 * 5
    loss, logs = method.training_loss((X, labels), seeded())
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert logs == {"active": pytest.approx(sum(value > 0 for value in expected) / len(expected))}


def at(*degrees):
    """Images of two pixels: directions in the plane."""
    turns = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([turns.cos(), turns.sin()], 1).view(-1, 1, 1, 2)


class Flat(nn.Module):
    out_dim = 2

    def forward(self, x):
        return x.flatten(1)


def planar(second, **options):
    """A method whose embedding is the image itself, and whose second view turns nothing but shows `second`."""
    drawn = iter([None, second])
    method = Triplet(Flat(), view=lambda x, rng: x if next(drawn) is None else second, **options)
    method.head = nn.Identity()
    return method


def test_semi_hard_mining_takes_the_negative_within_the_margin_and_hard_the_nearest():
    first, second = at(0, 50), at(30, 80)  # view 1 and view 2 of two images; 20° lie between the images
    to = {degrees: 2 - 2 * math.cos(math.radians(degrees)) for degrees in (20, 30, 50, 80)}
    semi_hard, _ = planar(second, mining="semi-hard", margin=0.6).training_loss(first, seeded())
    # anchors at 0° and 80°: the negatives at 50° are within the margin; at 30° and 50°: only 50° away is farther
    assert semi_hard.item() == pytest.approx(to[30] - to[50] + 0.6, rel=1e-5)
    hard, logs = planar(second, mining="hard", margin=0.6).training_loss(first, seeded())
    assert hard.item() == pytest.approx(to[30] + 0.6 - (to[50] + to[20]) / 2, rel=1e-5)
    assert logs == {"active": 1.0}


def test_triplets_that_keep_the_margin_are_not_active():
    loss, logs = planar(at(1, 181), mining="hard").training_loss(at(0, 180), seeded())
    assert (loss.item(), logs) == (0, {"active": 0.0})


def test_random_mining_draws_from_the_generator():
    method = build(mining="random", margin=1.0, view=lambda x, rng: x)
    losses = [method.training_loss(X, seeded(seed))[0].item() for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_encode_leaves_the_head_out():
    method = build(dim=3)
    assert method.head[-1].weight.shape == (3, method.encoder.out_dim)
    before = method.encode(X)
    with torch.no_grad():
        for parameter in method.head.parameters():
            parameter.zero_()
    assert torch.equal(method.encode(X), before)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"margin": 0}, "margin must be positive, got 0"),
        ({"margin": math.nan}, "margin must be positive, got nan"),
        ({"mining": "soft"}, "mining must be 'random', 'semi-hard' or 'hard', got 'soft'"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)


def test_one_image_has_no_negative():
    with pytest.raises(ValueError, match="two labels for a negative"):
        build().eval().training_loss(X[:1], seeded())
