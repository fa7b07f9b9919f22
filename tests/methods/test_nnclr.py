"""NNCLR against equation 3 composed by hand, and its support set: who is in it, who is found, where gradients go."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.methods import NNCLR
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"projection_dim": 5, "hidden_dim": 8, "queue_size": 20}
        return NNCLR(ConvEncoder(1, width=4), **sizes | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def filled(method):
    """The same method after a step on other images, so that the support set holds projections."""
    method.training_loss(X.flip(3), seeded(2))
    method.after_step(0.1)
    return method


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@torch.no_grad()
def test_the_loss_is_equation_3_for_both_orders_of_the_views(temperature):
    method = filled(build(temperature=temperature))
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    rng = seeded()
    z1, z2 = (reference.projector(reference.encoder(augment(X, rng))) for _ in range(2))
    p1, p2 = reference.predictor(z1), reference.predictor(z2)
    total, cosines = 0.0, []
    for z, p in [(z1, p2), (z2, p1)]:
        p = (p / p.norm(dim=1, keepdim=True)).double()
        for i in range(6):
            unit = z[i] / z[i].norm()
            distance = [(unit - q).norm().item() for q in reference.queue]
            neighbour = reference.queue[distance.index(min(distance))]
            cosines.append((unit @ neighbour).item())
            scores = [(neighbour.double() @ other).item() / temperature for other in p]
            total += math.log(sum(math.exp(score) for score in scores)) - scores[i]
    assert loss.item() == pytest.approx(total / 12, rel=1e-4)
    assert logs == {"nearest": pytest.approx(sum(cosines[:6]) / 6, rel=1e-4)}


def test_the_support_set_takes_in_the_first_views_after_the_step_and_the_oldest_leave():
    method = build()
    reference = copy.deepcopy(method)
    start = method.queue.clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(20))
    method.training_loss(X, seeded())
    assert torch.equal(method.queue, start)
    method.after_step(0.1)
    assert torch.equal(method.queue[:14], start[6:])
    with torch.no_grad():
        z1 = reference.projector(reference.encoder(augment(X, seeded())))
    torch.testing.assert_close(method.queue[14:], F.normalize(z1, dim=1), rtol=1e-4, atol=1e-4)
    settled = method.queue.clone()
    method.after_step(0.2)
    assert torch.equal(method.queue, settled)


@pytest.mark.parametrize("queue_size", [1, 4, 7])
def test_the_batch_need_not_divide_the_support_set_and_may_be_longer_than_it(queue_size):
    method, twin = build(queue_size=queue_size), build()
    for part in (method, twin):
        part.training_loss(X, seeded())
        part.after_step(0.1)
    kept = min(queue_size, 6)
    assert method.queue.shape == (queue_size, 5)
    torch.testing.assert_close(method.queue[-kept:], twin.queue[-kept:])


def test_the_nearest_neighbour_is_the_one_of_least_distance():
    method = build()
    method.queue.copy_(F.normalize(torch.randn(20, 5, generator=seeded()), dim=1))
    z = F.normalize(torch.randn(9, 5, generator=seeded(3)), dim=1)
    assert method.nearest(z).tolist() == torch.cdist(z, method.queue).argmin(1).tolist()
    assert method.nearest(method.queue).tolist() == list(range(20))


def test_no_gradient_passes_through_neighbours_and_all_of_it_through_the_predictions():
    method = filled(build())
    reference = copy.deepcopy(method)
    method.training_loss(X, seeded())[0].backward()
    assert not method.queue.requires_grad
    rng = seeded()
    z1, z2 = (reference.projector(reference.encoder(augment(X, rng))) for _ in range(2))
    p1, p2 = (F.normalize(reference.predictor(z), dim=1) for z in (z1, z2))
    with torch.no_grad():
        n1, n2 = (reference.queue[torch.cdist(F.normalize(z, dim=1), reference.queue).argmin(1)] for z in (z1, z2))
    target = torch.arange(6)
    loss = F.cross_entropy(n1 @ p2.T / method.temperature, target)
    loss = loss / 2 + F.cross_entropy(n2 @ p1.T / method.temperature, target) / 2
    loss.backward()
    for (name, mine), theirs in zip(method.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_where_all_neighbours_are_one_the_loss_is_the_log_of_the_batch_or_more():
    method = build(queue_size=1)
    loss, _ = method.training_loss(X, seeded())
    assert loss.item() >= math.log(6) - 1e-4


def test_projector_and_predictor_have_the_papers_layers():
    method = build()
    projector = [type(layer) for layer in method.projector]
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert projector == [*hidden, *hidden, nn.Linear, nn.BatchNorm1d]
    assert [type(layer) for layer in method.predictor] == [*hidden, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in method.predictor if isinstance(layer, nn.Linear)] == [(8, 5), (5, 8)]


def test_the_state_holds_the_support_set():
    method = filled(build())
    other = build()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.queue, method.queue)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"temperature": math.nan}, "temperature must be positive, got nan"),
        ({"queue_size": 0}, "queue_size must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)
