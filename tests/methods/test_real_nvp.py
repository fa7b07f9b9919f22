"""RealNVP: probabilities that sum to one, likelihoods that are bounds, and the way back."""

import math

import pytest
import torch

from course_utils.methods import RealNVP
from course_utils.models import CouplingFlow
from course_utils.train import fit


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(method, by=0.2):
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += by * torch.randn(parameter.shape, generator=rng())
    return method


def test_the_probabilities_of_all_grey_images_sum_to_one():
    """Two pixels of three levels: P(x) is the mean of the dequantised bound's exponential, over all nine images."""
    method = shaken(RealNVP(CouplingFlow((1, 1, 2), couplings=3, hidden=8), levels=3))
    images = torch.cartesian_prod(*[torch.arange(3) / 2] * 2).view(9, 1, 1, 2)
    many = images.repeat_interleave(4000, 0)
    with torch.no_grad():
        probability = method.log_prob(many, rng()).exp().view(9, 4000).mean(1)
    assert probability.sum().item() == pytest.approx(1, abs=0.02)


def test_uniform_grey_levels_cost_their_logarithm():
    method = RealNVP(CouplingFlow((1, 4, 4), couplings=2, hidden=16), levels=4)
    x = torch.randint(4, (4000, 1, 4, 4), generator=rng()) / 3
    before = method.bits_per_dimension(x[:500], rng()).mean()
    fit(method, x, steps=150, batch_size=64, lr=1e-2, progress=False)
    after = method.bits_per_dimension(x[:500], rng()).mean()
    assert 2 - 0.01 < after < 2.1
    assert after < before


def test_the_training_loss_is_minus_the_mean_log_likelihood_an_entry():
    method, x = shaken(RealNVP(CouplingFlow((3,), hidden=8))), torch.randn(5, 3)
    torch.testing.assert_close(method.training_loss(x, rng())[0], -method.flow.log_prob(x).mean() / 3)


def test_maximum_likelihood_reaches_the_entropy_of_a_correlated_gaussian():
    cov = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(2), cov)
    torch.manual_seed(0)
    data = gaussian.sample((4000,))
    method = RealNVP(CouplingFlow((2,), couplings=4, hidden=32))
    fit(method, data, steps=200, batch_size=128, lr=1e-2, progress=False)
    with torch.no_grad():
        gap = gaussian.log_prob(data).mean() - method.log_prob(data).mean()
    assert abs(gap.item()) < 0.08
    assert torch.linalg.matrix_norm(method.sample(4000, rng()).T.cov() - cov) < 0.2


def test_codes_go_back_to_the_images_they_came_from():
    method = shaken(RealNVP(CouplingFlow((1, 4, 4), hidden=8), levels=16), by=0.05)
    x = torch.randint(16, (6, 1, 4, 4), generator=rng()) / 15
    z = method.encode(x)
    v = (method.flow.inverse(z).sigmoid() - 0.05) / 0.9
    torch.testing.assert_close((v * 16).floor() / 15, x)


def test_samples_are_grey_levels():
    x = RealNVP(CouplingFlow((1, 4, 4), hidden=8), levels=16).sample(50, rng())
    torch.testing.assert_close((x * 15).round() / 15, x)
    assert x.min() >= 0
    assert x.max() <= 1


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="levels must be None or at least 2, got 1"):
        RealNVP(CouplingFlow((2,)), levels=1)


def test_bits_are_the_logarithm_to_base_two():
    method, x = RealNVP(CouplingFlow((2,))), torch.zeros(1, 2)
    assert method.bits_per_dimension(x, rng()).item() == pytest.approx(math.log2(2 * math.pi) / 2)
