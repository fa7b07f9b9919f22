"""Priors p(z) of latent-variable models: small modules with `log_prob(z)` and `sample(n, rng)`."""

import math

import torch
from torch import Tensor, nn


class StandardNormal(nn.Module):
    """N(0, I) in `dim` dimensions: Kingma and Welling 2014. Nothing is learned.

    >>> round(StandardNormal(2).log_prob(torch.zeros(1, 2)).item(), 4)  # −log 2π
    -1.8379
    """

    def __init__(self, dim: int):
        super().__init__()
        if dim < 1:
            raise ValueError(f"a prior needs at least one dimension, got {dim}")
        self.dim = dim
        self.register_buffer("origin", torch.zeros(dim), persistent=False)  # knows device and dtype

    def log_prob(self, z: Tensor) -> Tensor:
        """(N, dim) -> (N,), in nats."""
        _check(z, self.dim)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, dim) draws."""
        return _noise(n, self.origin, rng)


class _Mixture(nn.Module):
    """A mixture of diagonal Gaussians whose `components()` are log-weights (K,), means and log-variances (K, dim)."""

    dim: int

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """(N, dim) -> (N,), in nats: log Σ_k exp(log π_k + log N(z; μ_k, σ_k²))."""
        _check(z, self.dim)
        log_weight, mu, log_var = self.components()
        away = (z[:, None] - mu).square() * (-log_var).exp()  # (N, K, dim)
        each = -0.5 * (math.log(2 * math.pi) + log_var + away).sum(2)  # (N, K)
        return (log_weight + each).logsumexp(1)

    @torch.no_grad()
    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, dim) draws: a component each, then a Gaussian draw from it."""
        log_weight, mu, log_var = self.components()
        chosen = torch.multinomial(log_weight.exp(), n, replacement=True, generator=rng)
        return mu[chosen] + (0.5 * log_var[chosen]).exp() * _noise(n, mu[0], rng)


class GaussianMixturePrior(_Mixture):
    """A learned mixture of `components` diagonal Gaussians, started at means drawn from N(0, I).

    >>> prior = GaussianMixturePrior(2, components=5)
    >>> prior.log_prob(torch.zeros(3, 2)).shape, prior.sample(4, torch.Generator().manual_seed(0)).shape
    (torch.Size([3]), torch.Size([4, 2]))
    """

    def __init__(self, dim: int, *, components: int):
        super().__init__()
        if dim < 1 or components < 1:
            raise ValueError(f"a mixture needs at least 1 dimension and 1 component, got {dim} and {components}")
        self.dim = dim
        self.logits = nn.Parameter(torch.zeros(components))
        self.mu = nn.Parameter(torch.randn(components, dim))
        self.log_var = nn.Parameter(torch.zeros(components, dim))

    def components(self):
        return self.logits.log_softmax(0), self.mu, self.log_var


class VampPrior(_Mixture):
    """p(z) = 1/K Σ_k q(z|u_k), the mean posterior of K learned pseudo-inputs: Tomczak and Welling 2018.

    encoder: the model's own, with `distribution(x)` -> means and log-variances; it is shared, not owned, so its weights
    stand only once among the model's. pseudo_inputs: (K, ...), where the u_k start, images in [0, 1] say; they are kept
    in [0, 1] by clamping, as the authors' code does by a hard tanh.

    >>> from course_utils.models.vae import GaussianEncoder
    >>> encoder = GaussianEncoder(nn.Flatten(), 4, latent=2)
    >>> prior = VampPrior(encoder, torch.rand(3, 1, 2, 2))
    >>> prior.log_prob(torch.zeros(5, 2)).shape, len(list(prior.parameters()))
    (torch.Size([5]), 1)
    """

    def __init__(self, encoder: nn.Module, pseudo_inputs: Tensor):
        super().__init__()
        if pseudo_inputs.ndim < 2 or len(pseudo_inputs) == 0:
            raise ValueError(f"pseudo_inputs must be (K, ...) with K at least 1, got {tuple(pseudo_inputs.shape)}")
        self.dim = encoder.out_dim
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.detach().clone())
        self._shared = (encoder,)  # in a tuple: not a submodule

    def components(self):
        mu, log_var = self._shared[0].distribution(self.pseudo_inputs.clamp(0, 1))
        k = len(mu)
        return mu.new_full((k,), -math.log(k), dtype=torch.float32), mu.float(), log_var.float()


def _noise(n: int, like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(n, len(like), generator=rng, device=like.device, dtype=like.dtype)


def _check(z: Tensor, dim: int) -> None:
    if z.ndim != 2 or z.shape[1] != dim:
        raise ValueError(f"this prior takes (N, {dim}) latents, got {tuple(z.shape)}")
