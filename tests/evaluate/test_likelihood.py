"""Bounds on log p(x) where it is known: a linear-Gaussian model (probabilistic PCA, Tipping and Bishop 1999)."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from course_utils.evaluate import active_units, elbo, importance_weighted_likelihood
from course_utils.models import VAE, GaussianEncoder

D, K, NOISE = 5, 2, 0.7


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_gaussian(*, spoil=0.0):
    """x = W z + b + noise with orthogonal columns, so that the true posterior is diagonal; spoil moves q off it."""
    w = torch.linalg.qr(torch.randn(D, K, generator=rng(1), dtype=torch.float64)).Q * torch.tensor([2.0, 1.0])
    b = torch.randn(D, generator=rng(2), dtype=torch.float64)
    precision = (w.T @ w).diagonal() / NOISE**2 + 1
    encoder = GaussianEncoder(nn.Flatten(), D, latent=K)
    decoder = nn.Linear(K, D)
    model = VAE(encoder, decoder, likelihood="gaussian", noise=NOISE).double()
    gain = w.T / NOISE**2 / precision[:, None]
    with torch.no_grad():
        decoder.weight.copy_(w)
        decoder.bias.copy_(b)
        encoder.head.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        encoder.head.bias.copy_(torch.cat([spoil - gain @ b, spoil - precision.log()]))
    marginal = MultivariateNormal(b, w @ w.T + model.log_var.exp() * torch.eye(D, dtype=torch.float64))
    return model, marginal


def data(marginal, n=200):
    noise = torch.randn(n, D, generator=rng(3), dtype=torch.float64)
    return marginal.mean + noise @ marginal.scale_tril.T


def test_with_the_true_posterior_every_draw_gives_log_p_exactly():
    model, marginal = linear_gaussian()
    x = data(marginal)
    torch.testing.assert_close(elbo(model, x, rng()), marginal.log_prob(x))
    torch.testing.assert_close(importance_weighted_likelihood(model, x, 3, rng()), marginal.log_prob(x))


def test_with_another_posterior_the_bounds_are_in_order_and_tighten():
    model, marginal = linear_gaussian(spoil=0.5)
    x = data(marginal)
    exact = marginal.log_prob(x).mean()
    bounds = [elbo(model, x, rng(1), samples=50).mean()]
    bounds += [importance_weighted_likelihood(model, x, k, rng(k)).mean() for k in (5, 50, 1000)]
    assert bounds == sorted(bounds)
    assert bounds[0] < exact - 0.1
    assert bounds[-1].item() == pytest.approx(exact.item(), abs=0.01)


def test_the_gap_of_the_elbo_is_the_divergence_of_the_posteriors():
    spoil = 0.5
    model, marginal = linear_gaussian(spoil=spoil)
    log_var = model.encoder.distribution(x := data(marginal))[1]
    true_var = (log_var[0] - spoil).exp()
    gap = 0.5 * (math.exp(spoil) + spoil**2 / true_var - 1 - spoil).sum()
    measured = (marginal.log_prob(x) - elbo(model, x, rng(), samples=500)).mean()
    assert measured.item() == pytest.approx(gap.item(), rel=0.03)


def test_one_importance_sample_is_one_draw_of_the_elbo_and_the_generator_decides():
    model, marginal = linear_gaussian(spoil=0.3)
    x = data(marginal, 10)
    once = elbo(model, x, rng(4))
    torch.testing.assert_close(importance_weighted_likelihood(model, x, 1, rng(4)), once)
    assert not torch.equal(elbo(model, x, rng(5)), once)


def test_likelihoods_far_below_the_smallest_float_stay_finite():
    model, marginal = linear_gaussian()
    x = data(marginal, 5) + 1e4
    assert importance_weighted_likelihood(model, x, 10, rng()).isfinite().all()


def test_active_units_are_those_whose_mean_moves():
    model, marginal = linear_gaussian()
    with torch.no_grad():
        model.encoder.head.weight[1] = 0
    assert active_units(model, data(marginal)).tolist() == [True, False]
    assert active_units(model, data(marginal), threshold=1e9).tolist() == [False, False]


def test_the_model_is_scored_in_evaluation_mode_and_left_as_it_was():
    model = VAE.conv((1, 8, 8), latent=2, width=2)
    model.encoder.eval()
    x = torch.rand(4, 1, 8, 8, generator=rng())
    torch.testing.assert_close(elbo(model, x, rng(1))[:2], elbo(model, x, rng(1))[:2])
    assert model.decoder.training
    assert not model.encoder.training


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda model, x: elbo(model, x, rng(), samples=0), "at least one sample"),
        (lambda model, x: importance_weighted_likelihood(model, x[:0], 2, rng()), "no rows"),
        (lambda model, x: active_units(model, x[:1]), "at least 2.*got 1"),
    ],
)
def test_bad_input_is_named(call, named):
    model, marginal = linear_gaussian()
    with pytest.raises(ValueError, match=named):
        call(model, data(marginal, 4))
