"""The variational autoencoder's networks: shapes, draws, gradients through the draw."""

import pytest
import torch

from course_utils.models import VAE, GaussianEncoder, GaussianMixturePrior, reparametrise

X = torch.rand(5, 1, 20, 20, generator=torch.Generator().manual_seed(0))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("build", [VAE.dense, VAE.conv])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_shapes_ranges_and_the_encoder_as_mean(build, likelihood):
    model = build((1, 20, 20), latent=3, likelihood=likelihood)
    mu, log_var = model.encoder.distribution(X)
    assert mu.shape == log_var.shape == (5, 3)
    torch.testing.assert_close(model.encoder(X), mu)
    assert model.reconstruct(X).shape == X.shape
    samples = model.eval().sample(4, rng())
    assert samples.shape == (4, 1, 20, 20)
    assert torch.equal(samples, model.sample(4, rng()))
    if likelihood == "bernoulli":
        assert 0 <= samples.min() <= samples.max() <= 1


def test_the_draw_has_mean_mu_variance_sigma_squared_and_passes_gradients():
    mu = torch.tensor([[1.0, -2.0]]).expand(50_000, 2).clone().requires_grad_()
    log_var = torch.tensor([[0.0, -3.0]]).expand(50_000, 2).clone().requires_grad_()
    z = reparametrise(mu, log_var, rng())
    torch.testing.assert_close(z.mean(0), mu[0], rtol=0, atol=0.03)
    torch.testing.assert_close(z.var(0), log_var[0].exp(), rtol=0.05, atol=0)
    z.sum().backward()
    assert mu.grad.eq(1).all()
    torch.testing.assert_close(log_var.grad, 0.5 * (z - mu).detach(), rtol=1e-4, atol=1e-6)


def test_fixed_noise_is_not_learned_and_learned_noise_is():
    fixed = VAE.dense((4,), latent=2, likelihood="gaussian", noise=0.1)
    assert fixed.log_var.exp().item() == pytest.approx(0.01)
    assert not fixed.log_var.requires_grad
    assert VAE.dense((4,), latent=2, likelihood="gaussian").log_var.requires_grad


def test_half_precision_inside_gives_full_precision_distributions():
    model = VAE.conv((1, 20, 20), latent=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert {part.dtype for part in model.encoder.distribution(X)} == {torch.float32}
    double = GaussianEncoder(torch.nn.Flatten(), 400, latent=2).double()
    assert double(X.double()).dtype == torch.float64


def test_samples_come_from_the_prior_that_was_given():
    torch.manual_seed(0)
    prior = GaussianMixturePrior(2, components=1)
    with torch.no_grad():
        prior.mu.fill_(9.0)
        prior.log_var.fill_(-20.0)
    model = VAE.dense((4,), latent=2, prior=prior)
    torch.testing.assert_close(model.sample(3, rng()), model.mean(torch.full((3, 2), 9.0)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"likelihood": "poisson"}, "'poisson'"), ({"noise": 0.0}, "got 0.0"), ({"noise": float("nan")}, "nan")],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        VAE.dense((4,), latent=2, **options)
