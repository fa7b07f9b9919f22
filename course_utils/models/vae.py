"""Variational autoencoder: a Gaussian posterior, a decoder, a prior (Kingma and Welling 2014)."""

import math

import torch
from torch import Tensor, nn

from course_utils.models.autoencoders import ConvDecoder
from course_utils.models.priors import StandardNormal


class GaussianEncoder(nn.Module):
    """q(z|x) = N(μ(x), σ²(x)) with a diagonal covariance: a `body` to (N, in_dim) and a linear layer to both.

    Called, it gives the mean (N, latent), which is what a probe reads; `distribution` gives both.

    >>> encoder = GaussianEncoder(nn.Flatten(), 784, latent=8)
    >>> mu, log_var = encoder.distribution(torch.rand(2, 1, 28, 28))
    >>> mu.shape, log_var.shape, torch.equal(mu, encoder(torch.rand(2, 1, 28, 28)))
    (torch.Size([2, 8]), torch.Size([2, 8]), False)
    """

    def __init__(self, body: nn.Module, in_dim: int, *, latent: int):
        super().__init__()
        self.body, self.out_dim = body, latent
        self.head = nn.Linear(in_dim, 2 * latent)

    def distribution(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ² of q(z|x), each (N, latent) in full precision."""
        mu, log_var = self.head(self.body(x)).chunk(2, dim=1)
        return (mu, log_var) if mu.dtype == torch.float64 else (mu.float(), log_var.float())

    def forward(self, x: Tensor) -> Tensor:
        return self.distribution(x)[0]


def reparametrise(mu: Tensor, log_var: Tensor, rng: torch.Generator) -> Tensor:
    """z = μ + σ ⊙ ε with ε ~ N(0, I): Kingma and Welling 2014, section 2.4. Gradients reach μ and log σ².

    >>> reparametrise(torch.ones(1, 2), torch.full((1, 2), -torch.inf), torch.Generator())
    tensor([[1., 1.]])
    """
    noise = torch.randn(mu.shape, generator=rng, device=mu.device, dtype=mu.dtype)
    return mu + (0.5 * log_var).exp() * noise


class VAE(nn.Module):
    """p(x, z) = p(z) p(x|z) and its approximate posterior q(z|x): `encoder`, `decoder` and `prior`.

    encoder: a `GaussianEncoder`. decoder: (N, latent) -> (N, ...), the logits of a "bernoulli" likelihood or the means
    of a "gaussian" one. prior: a module of models/priors.py, by default N(0, I). noise: the standard deviation of the
    Gaussian likelihood; None learns one for all elements, started at 1. `VAE.dense` and `VAE.conv` build both networks.

    >>> model = VAE.dense((1, 28, 28), latent=2)
    >>> rng = torch.Generator().manual_seed(0)
    >>> model.reconstruct(torch.rand(3, 1, 28, 28)).shape, model.sample(4, rng).shape
    (torch.Size([3, 1, 28, 28]), torch.Size([4, 1, 28, 28]))
    """

    def __init__(self, encoder, decoder, *, prior=None, likelihood: str = "bernoulli", noise: float | None = None):
        super().__init__()
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood must be 'bernoulli' or 'gaussian', got {likelihood!r}")
        if noise is not None and not 0 < noise < math.inf:
            raise ValueError(f"noise is a standard deviation, positive, or None to learn it; got {noise}")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.prior = StandardNormal(encoder.out_dim) if prior is None else prior
        if likelihood == "gaussian":
            start = torch.tensor(0.0 if noise is None else 2 * math.log(noise))
            self.log_var = nn.Parameter(start, requires_grad=noise is None)

    @classmethod
    def dense(cls, shape: tuple[int, ...], *, latent: int, hidden: int = 256, **options) -> "VAE":
        """One hidden layer of `hidden` ReLUs each way, for inputs (N, *shape)."""
        size = math.prod(shape)
        body = nn.Sequential(nn.Flatten(), nn.Linear(size, hidden), nn.ReLU())
        decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, size), nn.Unflatten(1, tuple(shape))
        )
        return cls(GaussianEncoder(body, hidden, latent=latent), decoder, **options)

    @classmethod
    def conv(cls, shape: tuple[int, int, int], *, latent: int, width: int = 16, **options) -> "VAE":
        """Two strided convolutions down and a `ConvDecoder` up, for square images (C, size, size)."""
        channels, size = shape[0], shape[-1]
        side = math.ceil(size / 4)
        body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        encoder = GaussianEncoder(body, 2 * width * side * side, latent=latent)
        return cls(encoder, ConvDecoder(latent, channels=channels, size=size, width=width), **options)

    def mean(self, z: Tensor) -> Tensor:
        """E[x|z], shaped like x: probabilities of a Bernoulli, means of a Gaussian."""
        out = self.decoder(z)
        return out.sigmoid() if self.likelihood == "bernoulli" else out

    def reconstruct(self, x: Tensor) -> Tensor:
        """E[x|z] at the posterior's mean."""
        return self.mean(self.encoder(x))

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """E[x|z] for n draws z from the prior: the likelihood's own noise, grain in every pixel, is left out."""
        return self.mean(self.prior.sample(n, rng))
