"""The VAE's objective on a small case by hand, its options, and the state that a checkpoint needs."""

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from course_utils.methods import VariationalAutoencoder
from course_utils.models import VAE, GaussianMixturePrior, StandardNormal, VampPrior
from course_utils.train import fit

X = torch.stack([torch.eye(4), 1 - torch.eye(4)]).repeat(16, 1, 1)[:, None]  # two kinds of images


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(likelihood="bernoulli", **options):
    torch.manual_seed(0)
    return VariationalAutoencoder(VAE.dense((1, 4, 4), latent=3, hidden=16, likelihood=likelihood), **options)


def by_hand(method, x, seed):
    q = Normal((d := method.encoder.distribution(x))[0], (0.5 * d[1]).exp())
    z = q.mean + q.stddev * torch.randn(q.mean.shape, generator=rng(seed))
    out = method.model.decoder(z)
    p = (
        Bernoulli(logits=out)
        if method.model.likelihood == "bernoulli"
        else Normal(out, (0.5 * method.model.log_var).exp())
    )
    return p.log_prob(x).sum((1, 2, 3)), q, z


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_the_loss_is_beta_kl_minus_log_likelihood(likelihood, beta):
    method = build(likelihood, beta=beta)
    fit, q, _ = by_hand(method, X, 3)
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    loss, logs = method.training_loss(X, rng(3))
    torch.testing.assert_close(loss, (beta * kl - fit).mean())
    assert logs == pytest.approx({"log_likelihood": fit.mean().item(), "kl": kl.mean().item()}, rel=1e-5)


def test_other_priors_pay_log_q_minus_log_p_of_the_draw():
    method = build()
    method.model.prior = GaussianMixturePrior(3, components=4)
    fit, q, z = by_hand(method, X, 3)
    expected = (q.log_prob(z).sum(1) - method.model.prior.log_prob(z) - fit).mean()
    torch.testing.assert_close(method.training_loss(X, rng(3))[0], expected)


def test_the_drawn_kl_has_the_closed_form_as_its_mean():
    class Drawn(torch.nn.Module):  # N(0, I) without being recognised as it
        log_prob = StandardNormal(3).log_prob

    method = build()
    exact = method.training_loss(X, rng())[1]["kl"]
    method.model.prior = Drawn()
    draws = torch.tensor([method.training_loss(X, rng(seed))[1]["kl"] for seed in range(200)])
    assert draws.mean().item() == pytest.approx(exact, abs=4 * draws.std().item() / 200**0.5)


def test_free_bits_leave_a_collapsed_code_unpunished():
    method = build(free_bits=0.5)
    loss, logs = method.training_loss(X, rng(3))
    assert logs["kl"] < 0.5  # an untrained posterior is close to the prior
    assert loss.item() == pytest.approx(3 * 0.5 - logs["log_likelihood"], rel=1e-5)


def test_warmup_raises_the_weight_linearly_to_beta_and_travels_with_the_state():
    method = build(beta=2.0, warmup=0.5)
    assert method.weight == 0
    seen = []
    for step in range(4):
        method.after_step((step + 1) / 4)
        seen.append(method.weight)
    assert seen == [1.0, 2.0, 2.0, 2.0]
    method.after_step(0.25)
    other = build(beta=2.0, warmup=0.5)
    other.load_state_dict(method.state_dict())
    assert other.weight == 1.0
    assert build(beta=3.0).weight == 3.0


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp"])
def test_training_raises_the_bound_and_teaches_the_prior(prior):
    method = build()
    if prior == "mixture":
        method.model.prior = GaussianMixturePrior(3, components=4)
    if prior == "vamp":
        method.model.prior = VampPrior(method.encoder, X[:4])
    before = [parameter.clone() for parameter in method.model.prior.parameters()]
    history = fit(method, X, steps=120, batch_size=32, lr=0.01, progress=False)
    assert sum(history.losses[-10:]) / 10 < history.losses[0] - 3
    assert all(not torch.equal(*pair) for pair in zip(before, method.model.prior.parameters(), strict=True))
    assert torch.equal(method.encode(X), method.encode(X))  # means, not draws
    assert method(X).shape == X.shape


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"beta": -1}, "beta.*-1"),
        ({"free_bits": float("nan")}, "free_bits.*nan"),
        ({"warmup": 2}, "warmup.*2"),
    ],
)
def test_bad_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)


def test_free_bits_with_a_prior_that_has_no_units_is_refused():
    model = VAE.dense((4,), latent=2, prior=GaussianMixturePrior(2, components=2))
    with pytest.raises(ValueError, match="StandardNormal, got GaussianMixturePrior"):
        VariationalAutoencoder(model, free_bits=0.1)
