"""What a latent-variable model says of data: its bounds on log p(x), and how many of its units carry anything."""

import math

import torch
from torch import Tensor

from course_utils.losses import gaussian_log_likelihood
from course_utils.methods.base import evaluating
from course_utils.methods.variational_autoencoder import log_likelihood
from course_utils.models import VAE, TextVAE, reparametrise


def elbo(model: VAE | TextVAE, x: Tensor, rng: torch.Generator, *, samples: int = 1) -> Tensor:
    """The evidence lower bound of every example, (N,), in nats: the mean of log p(x, z) − log q(z|x) over draws of z.

    Kingma and Welling 2014, equation 2, estimated by `samples` draws an example. It is the bound itself (β = 1, no free
    bits), whatever the model was trained with, and no more than log p(x) in expectation.

    >>> elbo(VAE.dense((4,), latent=2), torch.rand(3, 4), torch.Generator().manual_seed(0)).shape
    torch.Size([3])
    """
    return _log_weights(model, x, samples, rng).mean(0)


def importance_weighted_likelihood(model: VAE | TextVAE, x: Tensor, samples: int, rng: torch.Generator) -> Tensor:
    """A tighter lower bound on log p(x), (N,), in nats: Burda et al. 2016, section 3.

        log 1/K Σ_k p(x, z_k)/q(z_k|x),  z_k ~ q(z|x)

    It rises with the number K of samples in expectation, from the evidence lower bound (K = 1) to log p(x).

    >>> importance_weighted_likelihood(VAE.dense((4,), latent=2), torch.rand(3, 4), 5, torch.Generator()).shape
    torch.Size([3])
    """
    return _log_weights(model, x, samples, rng).logsumexp(0) - math.log(samples)


@torch.no_grad()
def active_units(model: VAE | TextVAE, x: Tensor, *, threshold: float = 0.01) -> Tensor:
    """Which latent units carry anything, (D,) bool: Var_x E_q[z_d] > threshold (Burda et al. 2016, section 5).

    A unit whose mean hardly moves from one example to the next has collapsed onto the prior.

    >>> active_units(VAE.dense((4,), latent=2), torch.zeros(3, 4))
    tensor([False, False])
    """
    if len(x) < 2:
        raise ValueError(f"a variance over examples needs at least 2 of them, got {len(x)}")
    with evaluating(model):
        return model.encoder(x).var(0) > threshold


@torch.no_grad()
def _log_weights(model: VAE | TextVAE, x: Tensor, samples: int, rng: torch.Generator) -> Tensor:
    """log p(x, z) − log q(z|x) for each draw, (samples, N) float64."""
    if samples < 1:
        raise ValueError(f"at least one sample of z is needed, got {samples}")
    if len(x) == 0:
        raise ValueError("there is nothing to score: x has no rows")

    with evaluating(model):
        mu, log_var = model.encoder.distribution(x)
        weights = []
        for _ in range(samples):
            z = reparametrise(mu, log_var, rng)
            joint = log_likelihood(model, x, z) + model.prior.log_prob(z)
            weights.append((joint - gaussian_log_likelihood(z, mu, log_var)).double())
        return torch.stack(weights)
