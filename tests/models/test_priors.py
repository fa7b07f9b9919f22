"""Priors: densities against torch.distributions and explicit loops, samples with the density's moments."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from course_utils.models import GaussianEncoder, GaussianMixturePrior, StandardNormal, VampPrior


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


Z = 2 * torch.randn(7, 3, generator=rng(5))


def mixture():
    torch.manual_seed(0)
    prior = GaussianMixturePrior(3, components=4)
    with torch.no_grad():
        prior.logits.copy_(torch.randn(4, generator=rng(1)))
        prior.log_var.copy_(torch.randn(4, 3, generator=rng(2)))
    return prior


def vamp():
    torch.manual_seed(0)
    encoder = GaussianEncoder(nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh()), 5, latent=3)
    return VampPrior(encoder, torch.rand(6, 1, 2, 2, generator=rng(3))), encoder


def test_the_standard_normal_is_torchs():
    torch.testing.assert_close(StandardNormal(3).log_prob(Z), Normal(0.0, 1.0).log_prob(Z).sum(1))


def test_the_mixture_is_torchs():
    prior = mixture()
    parts = Independent(Normal(prior.mu, (0.5 * prior.log_var).exp()), 1)
    torch.testing.assert_close(
        prior.log_prob(Z), MixtureSameFamily(Categorical(logits=prior.logits), parts).log_prob(Z)
    )


def test_the_vamp_prior_is_the_mean_posterior_of_its_pseudo_inputs_by_explicit_loop():
    prior, encoder = vamp()
    for z, value in zip(Z.double(), prior.log_prob(Z).tolist(), strict=True):
        density = 0.0
        for u in prior.pseudo_inputs:
            mu, log_var = (part[0].detach().double() for part in encoder.distribution(u[None]))
            one = 1.0
            for d in range(3):
                s2 = math.exp(log_var[d])
                one *= math.exp(-((z[d] - mu[d]) ** 2) / (2 * s2)) / math.sqrt(2 * math.pi * s2)
            density += one / 6
        assert value == pytest.approx(math.log(density), rel=1e-5)


def test_the_vamp_prior_shares_the_encoder_teaches_it_and_copies_with_it():
    prior, encoder = vamp()
    assert [name for name, _ in prior.named_parameters()] == ["pseudo_inputs"]
    prior.log_prob(Z).sum().backward()
    assert encoder.head.weight.grad.abs().sum() > 0
    assert prior.pseudo_inputs.grad.abs().sum() > 0
    both = copy.deepcopy(nn.ModuleList([encoder, prior]))
    assert both[1]._shared[0] is both[0]


@pytest.mark.parametrize("build", [lambda: StandardNormal(3), mixture, lambda: vamp()[0]])
def test_samples_have_the_densitys_mean_and_come_from_the_generator(build):
    prior = build()
    z = prior.sample(20_000, rng(1))
    assert torch.equal(z, prior.sample(20_000, rng(1)))
    if isinstance(prior, StandardNormal):
        mean = torch.zeros(3)
    else:
        log_weight, mu, _ = prior.components()
        mean = log_weight.exp() @ mu
    assert (z.mean(0) - mean).abs().max() < 5 * z.std(0).max() / math.sqrt(20_000)
    torch.testing.assert_close(z.var(0), prior.sample(20_000, rng(2)).var(0), rtol=0.1, atol=0)


def test_densities_integrate_to_one():
    torch.manual_seed(0)
    grid = torch.linspace(-12, 12, 4001)[:, None]
    for prior in (StandardNormal(1), GaussianMixturePrior(1, components=3)):
        assert torch.trapezoid(prior.log_prob(grid).exp(), grid[:, 0]).item() == pytest.approx(1, abs=1e-4)


def test_far_latents_have_a_finite_density():
    assert mixture().log_prob(torch.full((1, 3), 1e4)).isfinite().all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: StandardNormal(0), "at least one dimension, got 0"),
        (lambda: GaussianMixturePrior(2, components=0), "2 and 0"),
        (lambda: StandardNormal(3).log_prob(torch.rand(2, 4)), r"\(N, 3\).*\(2, 4\)"),
        (lambda: mixture().log_prob(torch.rand(3)), r"\(N, 3\).*\(3,\)"),
        (lambda: VampPrior(vamp()[1], torch.rand(0, 1, 2, 2)), r"K at least 1.*\(0, 1, 2, 2\)"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
