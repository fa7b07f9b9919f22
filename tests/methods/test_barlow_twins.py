"""Barlow Twins: its algorithm composed by hand, its projector, and what it refuses."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.methods import BarlowTwins
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BarlowTwins(ConvEncoder(1, width=4), **{"projection_dim": 8} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("lambda_", [0.0, 0.02, 1.0])
def test_the_loss_is_algorithm_1_step_by_step(lambda_):
    method = build(lambda_=lambda_)
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    assert logs == {}
    rng = seeded()
    z1, z2 = (reference.projector(reference.encoder(augment(X, rng))).detach().double().numpy() for _ in range(2))
    c = np.corrcoef(z1.T, z2.T)[:8, 8:]  # numpy's own correlations of all dimensions of both
    expected = ((1 - np.diag(c)) ** 2).sum() + lambda_ * ((c - np.diag(np.diag(c))) ** 2).sum()
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_projector_has_three_layers_of_one_width_and_no_last_bias():
    method = build(projection_dim=5)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(part) for part in method.projector] == [*hidden, *hidden, nn.Linear]
    linear = [part for part in method.projector if isinstance(part, nn.Linear)]
    assert [tuple(part.weight.shape) for part in linear] == [(5, 24), (5, 5), (5, 5)]
    assert all(part.bias is None for part in linear)


@pytest.mark.parametrize("lambda_", [-0.1, math.nan])
def test_a_negative_weight_is_refused_at_once(lambda_):
    with pytest.raises(ValueError, match=f"lambda_ must not be negative, got {lambda_}"):
        build(lambda_=lambda_)
