"""VICReg: its three terms composed by hand, switched off one by one, its expander, and what it refuses."""

import copy
import math

import pytest
import torch
from torch import nn

from course_utils.losses import covariance, invariance, variance
from course_utils.methods import VICReg
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))
WEIGHTS = {"sim_weight": 25.0, "var_weight": 25.0, "cov_weight": 1.0}


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VICReg(ConvEncoder(1, width=4), **{"projection_dim": 8} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("off", [None, *WEIGHTS])
def test_the_loss_is_the_weighted_sum_of_its_terms_and_each_can_be_switched_off(off):
    method = build(**{off: 0.0} if off else {})
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    rng = seeded()
    z1, z2 = (reference.expander(reference.encoder(augment(X, rng))) for _ in range(2))
    weights = WEIGHTS | ({off: 0.0} if off else {})
    expected = weights["sim_weight"] * invariance(z1, z2)
    expected = expected + weights["var_weight"] * (variance(z1) + variance(z2))
    expected = expected + weights["cov_weight"] * (covariance(z1) + covariance(z2))
    torch.testing.assert_close(loss, expected)
    terms = {"invariance": invariance(z1, z2), "variance": variance(z1), "covariance": covariance(z1)}
    assert logs == {name: pytest.approx(term.item(), rel=1e-5) for name, term in terms.items()}


def test_the_expander_has_three_layers_of_one_width_and_no_last_bias():
    method = build(projection_dim=5)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(part) for part in method.expander] == [*hidden, *hidden, nn.Linear]
    linear = [part for part in method.expander if isinstance(part, nn.Linear)]
    assert [tuple(part.weight.shape) for part in linear] == [(5, 24), (5, 5), (5, 5)]
    assert all(part.bias is None for part in linear)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_a_negative_weight_is_refused_at_once(name, value):
    with pytest.raises(ValueError, match=f"{name} must not be negative, got {value}"):
        build(**{name: value})
