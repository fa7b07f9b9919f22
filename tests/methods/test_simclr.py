"""SimCLR against algorithm 1 composed by hand from its parts."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.methods import SimCLR
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SimCLR(ConvEncoder(1, width=4), **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0])
def test_the_loss_is_algorithm_1_step_by_step(temperature):
    method = build(temperature=temperature)
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    assert logs == {}
    rng = seeded()
    views = torch.cat([augment(X, rng), augment(X, rng)])
    z = F.normalize(reference.head(reference.encoder(views)), dim=1)
    total = 0
    for i in range(12):
        s = z @ z[i] / temperature
        total += math.log(sum(s[k].exp().item() for k in range(12) if k != i)) - s[(i + 6) % 12].item()
    assert loss.item() == pytest.approx(total / 12, rel=1e-5)


def test_the_views_are_two_independent_draws_of_the_same_images():
    drawn = []

    def view(x, rng):
        drawn.append((x, torch.rand(x.shape, generator=rng)))
        return drawn[-1][1]

    build(view=view).training_loss(X, seeded())
    (x1, first), (x2, second) = drawn
    assert x1 is X
    assert x2 is X
    rng = seeded()
    assert torch.equal(first, torch.rand(X.shape, generator=rng))
    assert torch.equal(second, torch.rand(X.shape, generator=rng))


def test_both_views_share_one_pass_and_so_their_batch_statistics():
    method = build(view=lambda x, rng: x * torch.rand(1, generator=rng))
    sizes = []
    method.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    method.training_loss(X, seeded())
    assert sizes == [12]
    assert method.head[1].num_batches_tracked == 1


def test_the_head_is_the_papers_two_layers_and_encode_leaves_it_out():
    method = build(projection_dim=5)
    assert [type(part) for part in method.head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    width = method.encoder.out_dim
    assert (method.head[0].weight.shape, method.head[-1].weight.shape) == ((width, width), (5, width))
    before = method.encode(X)
    assert before.shape == (6, width)
    with torch.no_grad():
        for parameter in method.head.parameters():
            parameter.zero_()
    assert torch.equal(method.encode(X), before)
    assert method.encode(X).abs().sum() > 0


def test_views_that_agree_on_images_that_differ_cost_less_than_collapse():
    eyes = torch.eye(6).view(6, 1, 6, 1)

    class Flat(nn.Module):
        out_dim = 6

        def forward(self, x):
            return x.flatten(1)

    method = SimCLR(Flat(), temperature=0.5, view=lambda x, rng: x)
    method.head = nn.Identity()
    expected = math.log(1 + 10 * math.exp(-2))
    assert method.training_loss(eyes, seeded())[0].item() == pytest.approx(expected, rel=1e-5)
    collapsed = method.training_loss(torch.ones_like(eyes), seeded())[0]
    assert collapsed.item() == pytest.approx(math.log(11), rel=1e-5)


@pytest.mark.parametrize("temperature", [0, -0.1, math.nan])
def test_a_temperature_that_is_not_positive_is_refused_at_once(temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}"):
        build(temperature=temperature)


def test_one_image_has_no_negatives():
    with pytest.raises(ValueError, match="at least 2 pairs"):
        build().eval().training_loss(X[:1], seeded())
