"""Pieces of the evidence lower bound (ELBO): the divergence to the prior, the likelihoods, and free bits."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating
from course_utils.precision import full_precision


@full_precision
def kl_to_standard_normal(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL divergence of N(μ, σ²) to N(0, 1), element by element: Kingma and Welling 2014, appendix B.

    mu, log_var: one shape (N, ...), floating point; log_var is log σ². Latent variables are independent, so that the
    divergence of an example is the sum over its own:

        KL = ½ (μ² + σ² − log σ² − 1) ≥ 0, and 0 only for μ = 0, σ = 1

    Returns the same shape. Raises ValueError for unequal shapes and TypeError for anything but floating point.

    >>> kl_to_standard_normal(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
    tensor([[0.0000, 0.5000]])
    """
    _check_same(mu=mu, log_var=log_var)
    return 0.5 * (mu.square() + torch.expm1(log_var) - log_var)


@full_precision
def gaussian_log_likelihood(x: Tensor, mu: Tensor, log_var: Tensor) -> Tensor:
    """log N(x; μ, σ²) of every example: Kingma and Welling 2014, appendix C.2.

    x, mu: one shape (N, ...), floating point; log_var: log σ², of a shape that broadcasts to it. The sum over the
    elements j of an example:

        log p(x) = −½ Σⱼ (log 2π + log σⱼ² + ((xⱼ − μⱼ)/σⱼ)²)

    Returns (N,), in nats. Raises ValueError for shapes that do not fit and TypeError for anything but floating point.

    >>> zero = torch.zeros(1, 2)
    >>> gaussian_log_likelihood(zero, zero, zero)  # −log 2π
    tensor([-1.8379])
    """
    _check_same(x=x, mu=mu)
    check_floating(log_var=log_var)
    try:
        log_var = log_var.expand_as(x)
    except RuntimeError:
        raise ValueError(f"log_var must broadcast to x {tuple(x.shape)}, got {tuple(log_var.shape)}") from None
    deviation = (x - mu) * torch.exp(-0.5 * log_var)  # before squaring: half the exponent, no 0·∞
    return -0.5 * (math.log(2 * math.pi) + log_var + deviation.square()).flatten(1).sum(1)


@full_precision
def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """Σⱼ xⱼ log pⱼ + (1 − xⱼ) log(1 − pⱼ), p = sigmoid(logits), of every example: Kingma and Welling 2014, app. C.1.

    x, logits: one shape (N, ...), floating point, x in [0, 1]. For x between 0 and 1 this is a common score and no
    density over x: its exponential does not integrate to 1, so such numbers compare with no other likelihood.

    Returns (N,), in nats. Raises ValueError for unequal shapes or x outside [0, 1], TypeError unless floating point.

    >>> bernoulli_log_likelihood(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))  # −2 log 2
    tensor([-1.3863])
    """
    _check_same(x=x, logits=logits)
    if x.numel() and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"x must lie in [0, 1], got values from {x.min().item():.4g} to {x.max().item():.4g}")
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


@full_precision
def categorical_log_likelihood(x: Tensor, logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Σ_t log p_t(x_t), p_t = softmax(logits_t), of every example: a sentence's log-likelihood, word by word.

    x: (N, T) int64, in [0, V); logits: (N, T, V), floating point; mask: (N, T) bool, True where x_t counts, as padding
    does not; None for everywhere. The reconstruction term of Bowman et al. 2016 (Generating Sentences from a Continuous
    Space), where logits_t come from a code and the words before x_t.

    Returns (N,), in nats. Raises ValueError for shapes that do not agree and TypeError for logits that are not
    floating-point numbers.

    >>> categorical_log_likelihood(torch.tensor([[1, 0]]), torch.zeros(1, 2, 2))  # −2 log 2
    tensor([-1.3863])
    """
    check_floating(logits=logits)
    if x.ndim != 2 or x.dtype != torch.int64 or logits.ndim != 3 or logits.shape[:2] != x.shape:
        shapes = f"{x.dtype} {tuple(x.shape)} and {tuple(logits.shape)}"
        raise ValueError(f"x and logits must be int64 (N, T) and (N, T, V), got {shapes}")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape):
        raise ValueError(f"mask must be boolean, shaped like x {tuple(x.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    log_p = -F.cross_entropy(logits.transpose(1, 2), x, reduction="none")  # (N, T)
    return (log_p if mask is None else log_p.where(mask, 0)).sum(1)


@full_precision
def free_bits(kl: Tensor, minimum: float) -> Tensor:
    """The divergence of which every latent variable has `minimum` nats free: Kingma et al. 2016 (IAF), "free bits".

    kl: (N, D) floating point, of N examples and D variables (or groups of them). The mean over the batch comes first:

        Σⱼ max(λ, meanᵢ KLᵢⱼ)

    A variable below λ costs the same whatever it does, so nothing pushes it to say nothing. With λ = 0 it is the mean
    divergence of an example. Returns a scalar. Raises ValueError for a negative λ or another shape.

    >>> free_bits(torch.tensor([[0.0, 3.0], [0.2, 5.0]]), 0.5).item()
    4.5
    """
    check_floating(kl=kl)
    if kl.ndim != 2 or len(kl) == 0:
        raise ValueError(f"kl must be (N, D) with at least one row, got {tuple(kl.shape)}")
    if not minimum >= 0:
        raise ValueError(f"minimum must be at least 0 nats, got {minimum}")
    return kl.mean(0).clamp_min(minimum).sum()


def _check_same(**pair: Tensor) -> None:
    check_floating(**pair)
    (first, second), (u, v) = pair.keys(), pair.values()
    if u.shape != v.shape or u.ndim < 2:
        shapes = f"{tuple(u.shape)} and {tuple(v.shape)}"
        raise ValueError(f"{first} and {second} must have one shape (N, ...), got {shapes}")
