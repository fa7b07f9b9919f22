"""BYOL against its equations composed by hand, and its target: how it starts, moves and is left alone by gradients."""

import copy
import math

import pytest
import torch
from torch import nn

from course_utils.methods import BYOL
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BYOL(ConvEncoder(1, width=4), **{"projection_dim": 8, "hidden_dim": 16} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def online(method):
    return [*method.encoder.parameters(), *method.projector.parameters()]


def shaken(method):
    """The same method with other online weights, so that online and target differ."""
    rng = seeded(1)
    with torch.no_grad():
        for parameter in online(method):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return method


def test_the_loss_is_equation_2_for_both_orders_of_the_views():
    method = shaken(build())
    reference = copy.deepcopy(method)
    loss, _ = method.training_loss(X, seeded())
    rng = seeded()
    x1, x2 = augment(X, rng), augment(X, rng)
    total = 0
    for x, other in [(x1, x2), (x2, x1)]:
        q = reference.predictor(reference.projector(reference.encoder(x)))
        t = reference.target(other)
        q, t = (part / part.norm(dim=1, keepdim=True) for part in (q, t))
        total = total + ((q - t) ** 2).sum(1).mean()
    torch.testing.assert_close(loss, total)
    assert 0 < loss.item() < 8


def test_the_target_starts_as_the_online_network_and_gets_no_gradient():
    method = build()
    for target, parameter in zip(method.target.parameters(), online(method), strict=True):
        assert torch.equal(target, parameter)
        assert target is not parameter
    method.training_loss(X, seeded())[0].backward()
    assert all(not target.requires_grad and target.grad is None for target in method.target.parameters())


@pytest.mark.parametrize("progress", [1e-9, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_the_target_follows_at_a_rate_that_rises_to_one_on_a_cosine(progress, momentum):
    method = shaken(build(momentum=momentum))
    before = [target.clone() for target in method.target.parameters()]
    method.after_step(progress)
    tau = 1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2
    for old, new, parameter in zip(before, method.target.parameters(), online(method), strict=True):
        torch.testing.assert_close(new, tau * old + (1 - tau) * parameter)


def test_projector_and_predictor_have_one_hidden_layer_and_an_identity_takes_the_predictor_away():
    method = build()
    layers = [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    for part, sizes in [(method.projector, [(16, 24), (8, 16)]), (method.predictor, [(16, 8), (8, 16)])]:
        assert [type(layer) for layer in part] == layers
        assert [tuple(layer.weight.shape) for layer in part if isinstance(layer, nn.Linear)] == sizes
    bare = build(predictor=nn.Identity())
    assert not list(bare.predictor.parameters())
    assert bare.training_loss(X, seeded())[0].isfinite()


def test_a_target_that_follows_at_once_and_no_predictor_leave_nothing_to_learn_from_agreeing_views():
    method = build(predictor=nn.Identity(), view=lambda x, rng: x)
    loss, _ = method.training_loss(X, seeded())
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_the_target_sees_batches_in_training_mode_as_in_the_paper():
    method = build().train()
    assert all(part.training for part in method.target.modules())


@pytest.mark.parametrize("momentum", [-0.1, 1.1, math.nan])
def test_a_momentum_out_of_range_is_refused_at_once(momentum):
    with pytest.raises(ValueError, match=f"momentum must lie between 0 and 1, got {momentum}"):
        build(momentum=momentum)
