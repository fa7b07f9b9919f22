"""SimSiam against its algorithm 1 composed by hand, its two safeguards, and what goes without them."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.evaluate import collapse
from course_utils.methods import SimSiam
from course_utils.methods.simsiam import spread
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SimSiam(ConvEncoder(1, width=4), **{"projection_dim": 8} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def by_hand(method, *, stop):
    """½ D(p1, z2) + ½ D(p2, z1) with the norms written out."""
    rng = seeded()
    z1, z2 = (method.projector(method.encoder(augment(X, rng))) for _ in range(2))
    total = 0
    for p, z in [(method.predictor(z1), z2), (method.predictor(z2), z1)]:
        z = z.detach() if stop else z
        cosine = (p * z).sum(1) / ((p**2).sum(1) * (z**2).sum(1)).sqrt()
        total = total - cosine.mean() / 2
    return total


@pytest.mark.parametrize("stop", [True, False])
def test_the_loss_and_its_gradient_are_algorithm_1_with_and_without_stop_gradient(stop):
    method = build(stop_gradient=stop)
    reference = copy.deepcopy(method)
    loss, _ = method.training_loss(X, seeded())
    loss.backward()
    expected = by_hand(reference, stop=stop)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for (name, parameter), other in zip(method.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)


def test_the_gradient_really_stops_at_the_targets():
    """With a predictor that blocks its input's gradient, nothing reaches the encoder but through the targets."""

    class Deaf(nn.Module):
        def forward(self, z):
            return z.detach().roll(1, 0)

    heard = []
    for stop in (True, False):
        method = build(predictor=Deaf(), stop_gradient=stop)
        loss, _ = method.training_loss(X, seeded())
        heard.append(loss.requires_grad)
    assert heard == [False, True]


def test_the_projector_has_three_layers_normalised_to_the_last_and_the_predictor_a_bottleneck():
    method = build(projection_dim=16)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(part) for part in method.projector] == [*hidden, *hidden, nn.Linear, nn.BatchNorm1d]
    assert not method.projector[-1].affine
    assert method.projector[-2].bias is None
    assert [type(part) for part in method.predictor] == [*hidden, nn.Linear]
    assert [tuple(part.weight.shape) for part in method.predictor if isinstance(part, nn.Linear)] == [(4, 16), (16, 4)]


def test_an_identity_takes_the_predictor_away():
    method = build(predictor=nn.Identity())
    assert not list(method.predictor.parameters())
    loss, _ = method.training_loss(X, seeded())
    rng = seeded()
    z1, z2 = (method.projector(method.encoder(augment(X, rng))) for _ in range(2))
    torch.testing.assert_close(loss, -F.cosine_similarity(z1, z2).mean())


def test_without_predictor_the_stop_gradient_only_halves_the_gradient():
    """Chen & He 2021, §4.2: the direction is then that of the loss without it, which has the constant solution."""
    gradients = []
    for stop in (True, False):
        method = build(predictor=nn.Identity(), stop_gradient=stop)
        method.training_loss(X, seeded())[0].backward()
        gradients.append([parameter.grad for parameter in method.parameters()])
    for stopped, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(2 * stopped, whole, rtol=1e-3, atol=1e-6)


def test_each_view_is_normalised_by_its_own_batch():
    method = build()
    sizes = []
    method.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    method.training_loss(X, seeded())
    assert sizes == [6, 6]


def test_spread_is_the_evaluations_measure_of_collapse():
    z = torch.randn(50, 7, generator=seeded())
    assert spread(z) == pytest.approx(collapse(z), rel=1e-5)
    assert spread(torch.ones(5, 3)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.randn(5000, 64, generator=seeded())) == pytest.approx(1, abs=0.01)
    assert math.isfinite(spread(torch.zeros(5, 3)))


def test_the_spread_of_the_projections_is_logged():
    method = build()
    reference = copy.deepcopy(method)
    _, logs = method.training_loss(X, seeded())
    z1 = reference.projector(reference.encoder(augment(X, seeded())))
    assert logs == {"std": pytest.approx(spread(z1))}


def test_the_predictor_is_trained_faster():
    """One step of plain gradient descent moves the predictor by `faster` times the rate, and the rest by the rate."""
    method = build(faster=10)
    before = copy.deepcopy(dict(method.named_parameters()))
    optimizer = torch.optim.SGD(method.parameter_groups(0.1), lr=0.1)
    method.training_loss(X, seeded())[0].backward()
    optimizer.step()
    for name, parameter in method.named_parameters():
        rate = 1.0 if name.startswith("predictor") else 0.1
        torch.testing.assert_close(parameter, before[name] - rate * parameter.grad, msg=name)
    assert len(build(predictor=nn.Identity()).parameter_groups(0.1)) == 1
    with pytest.raises(ValueError, match="positive multiple of the rate, got 0"):
        build(faster=0).parameter_groups(0.1)
