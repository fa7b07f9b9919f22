"""Siamese networks against equation 4 of Hadsell et al. 2006 over pairs written out one by one."""

import copy
import math

import pytest
import torch
from torch import nn

from course_utils.methods import Siamese
from course_utils.models import ConvEncoder
from course_utils.views import augment

N = 6
X = torch.rand(N, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Siamese(ConvEncoder(1, width=4), **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def by_pairs(method, images, labels, negatives, margin):
    """The mean of equation 4 over (first view of image i, second view of image i − k), k from 0 to `negatives`."""
    rng = seeded()
    views = torch.cat([augment(images, rng), augment(images, rng)])
    z = method.head(method.encoder(views)).tolist()
    n, terms = len(images), []
    for k in range(negatives + 1):
        for i in range(n):
            distance = math.dist(z[i], z[n + (i - k) % n])
            similar = labels[i] == labels[(i - k) % n]
            terms.append(distance**2 / 2 if similar else max(0, margin - distance) ** 2 / 2)
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("negatives", "margin"), [(1, 1.0), (2, 4.0), (5, 2.0)])
def test_the_loss_is_equation_4_on_the_views_of_an_image_and_those_of_the_next_images(negatives, margin):
    method = build(negatives=negatives, margin=margin)
    expected = by_pairs(copy.deepcopy(method), X, range(N), negatives, margin)
    loss, logs = method.training_loss(X, seeded())
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logs == {}


def test_of_labelled_images_those_of_one_label_are_similar():
    labels = torch.tensor([0, 0, 1, 0, 1, 1])
    method = build(negatives=3)
    expected = by_pairs(copy.deepcopy(method), X, labels.tolist(), 3, 4.0)
    assert method.training_loss((X, labels), seeded())[0].item() == pytest.approx(expected, rel=1e-5)
    assert method.training_loss(X, seeded())[0].item() != pytest.approx(expected, rel=1e-2)


def test_a_batch_with_fewer_others_than_negatives_pairs_every_two_images():
    method = build(negatives=50)
    expected = by_pairs(copy.deepcopy(method), X[:3], range(3), 2, 4.0)
    assert method.training_loss(X[:3], seeded())[0].item() == pytest.approx(expected, rel=1e-5)


class Flat(nn.Module):
    out_dim = 144

    def forward(self, x):
        return x.flatten(1)


def test_views_that_agree_on_images_further_apart_than_the_margin_cost_nothing_and_collapse_does():
    method = Siamese(Flat(), margin=1.0, negatives=2, view=lambda x, rng: x)
    method.head = nn.Identity()
    far = torch.eye(144)[:4].view(4, 1, 12, 12)
    assert method.training_loss(far, seeded())[0] == 0
    assert method.training_loss(torch.ones(4, 1, 12, 12), seeded())[0].item() == pytest.approx(2 / 3 * 1 / 2)


def test_encode_leaves_the_head_out():
    method = build(dim=3)
    assert method.head[-1].weight.shape == (3, method.encoder.out_dim)
    before = method.encode(X)
    assert before.shape == (N, method.encoder.out_dim)
    with torch.no_grad():
        for parameter in method.head.parameters():
            parameter.zero_()
    assert torch.equal(method.encode(X), before)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"margin": 0}, "margin must be positive, got 0"),
        ({"margin": math.nan}, "margin must be positive, got nan"),
        ({"negatives": 0}, "negatives must be a whole number of pairs, at least 1, got 0"),
        ({"negatives": 1.5}, "negatives must be a whole number of pairs, at least 1, got 1.5"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)


def test_one_image_has_no_dissimilar_pair():
    with pytest.raises(ValueError, match=r"at least 2 images are needed, .*got 1"):
        build().eval().training_loss(X[:1], seeded())
