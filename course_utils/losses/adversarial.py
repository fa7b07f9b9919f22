"""Adversarial objectives: a critic learns to tell generated examples from real ones, a generator to fool it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating
from course_utils.precision import full_precision


@full_precision
def critic_cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator of Goodfellow et al. 2014 minimises: minus the value function of their equation 1.

    real, fake: logits of D for real and for generated examples, any shape, not empty:

        L_D = −E[log D(x)] − E[log(1 − D(G(z)))],   D = sigmoid(logit)

    It is 2 log 2 where D says one half to everything. Raises ValueError for no logits, and TypeError for anything but
    floating-point tensors.

    >>> round(critic_cross_entropy(torch.zeros(3), torch.zeros(5)).item(), 4)
    1.3863
    """
    _check(real=real, fake=fake)
    return F.softplus(-real).mean() + F.softplus(fake).mean()


@full_precision
def generator_cross_entropy(fake: Tensor, *, saturating: bool = False) -> Tensor:
    """What the generator of Goodfellow et al. 2014 minimises: −E[log D(G(z))], their non-saturating choice (section 3).

    fake: the logits of D for generated examples. saturating=True is the game of their equation 1, E[log(1 − D(G(z)))],
    whose gradient vanishes where D is sure that they are generated. Errors as in `critic_cross_entropy`.

    >>> sure = torch.full((4,), -10.0, requires_grad=True)
    >>> losses = generator_cross_entropy(sure), generator_cross_entropy(sure, saturating=True)
    >>> [round(torch.autograd.grad(loss, sure)[0].sum().item(), 3) for loss in losses]
    [-1.0, -0.0]
    """
    _check(fake=fake)
    return -F.softplus(fake).mean() if saturating else F.softplus(-fake).mean()


@full_precision
def critic_wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """What the critic of Arjovsky et al. 2017 minimises: E[f(G(z))] − E[f(x)], minus their equation 2's difference.

    real, fake: the critic's scores, any shape, not empty. Over all critics of slope at most 1 the least value is minus
    the Wasserstein-1 distance; nothing here bounds the slope: see `gradient_penalty`. Errors as in
    `critic_cross_entropy`.

    >>> critic_wasserstein(torch.tensor([2.0, 4.0]), torch.tensor([1.0])).item()
    -2.0
    """
    _check(real=real, fake=fake)
    return fake.mean() - real.mean()


@full_precision
def generator_wasserstein(fake: Tensor) -> Tensor:
    """What the generator of Arjovsky et al. 2017 minimises: −E[f(G(z))]. Errors as in `critic_cross_entropy`.

    >>> generator_wasserstein(torch.tensor([1.0, 3.0])).item()
    -2.0
    """
    _check(fake=fake)
    return -fake.mean()


@full_precision
def gradient_penalty(critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
    """E[(‖∇f(x̂)‖₂ − 1)²] of Gulrajani et al. 2017 (WGAN-GP), equation 3, without its factor λ.

    critic: maps (N, ...) to one score an example, each from its own example alone: no batch norm (their section 4).
    real, fake: one shape (N, ...). x̂ = ε x + (1 − ε) G(z) with one ε ~ U[0, 1] an example, from `rng`. The gradient
    reaches the critic's weights and neither real nor fake. Raises ValueError for unequal shapes and TypeError for
    anything but floating-point tensors.

    >>> rng = torch.Generator().manual_seed(0)
    >>> gradient_penalty(lambda x: 3 * x[:, 0], torch.rand(5, 2), torch.rand(5, 2), rng).item()  # (3 − 1)²
    4.0
    """
    _check(real=real, fake=fake)
    if real.shape != fake.shape or real.ndim < 2:
        raise ValueError(f"real and fake must have one shape (N, ...), got {tuple(real.shape)} and {tuple(fake.shape)}")
    ones = [1] * (real.ndim - 1)
    epsilon = torch.rand(len(real), *ones, generator=rng, device=rng.device).to(real)
    between = torch.lerp(fake.detach(), real.detach(), epsilon).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def _check(**scores: Tensor) -> None:
    check_floating(**scores)
    for name, score in scores.items():
        if score.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {tuple(score.shape)}")
