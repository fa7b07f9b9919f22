"""Adversarial objectives against loops and closed forms in float64, what theory says of them, and their refusals."""

import math

import pytest
import torch

from course_utils.losses import (
    critic_cross_entropy,
    critic_wasserstein,
    generator_cross_entropy,
    generator_wasserstein,
    gradient_penalty,
)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_the_cross_entropies_are_equation_1_by_loops():
    real, fake = 3 * draw(7), 3 * draw(5, seed=1)
    value = sum(math.log(sigmoid(x)) for x in real.tolist()) / 7
    value += sum(math.log(1 - sigmoid(x)) for x in fake.tolist()) / 5
    assert critic_cross_entropy(real, fake).item() == pytest.approx(-value)
    non_saturating = -sum(math.log(sigmoid(x)) for x in fake.tolist()) / 5
    assert generator_cross_entropy(fake).item() == pytest.approx(non_saturating)
    saturating = sum(math.log(1 - sigmoid(x)) for x in fake.tolist()) / 5
    assert generator_cross_entropy(fake, saturating=True).item() == pytest.approx(saturating)


def test_the_best_discriminator_earns_the_jensen_shannon_divergence():
    """Goodfellow et al. 2014, theorem 1: at D = p/(p + q) the value is 2 JS(p, q) − log 4."""
    p, q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    counts = (torch.tensor([7, 2, 1]), torch.tensor([1, 3, 6]))
    best = (p / (p + q)).logit()
    loss = critic_cross_entropy(*(best.repeat_interleave(count) for count in counts))
    m = (p + q) / 2
    jensen_shannon = ((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2
    torch.testing.assert_close(loss, math.log(4) - 2 * jensen_shannon)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_certain_discriminators_give_finite_losses_in_every_precision(dtype):
    real, fake = torch.full((4,), 2000.0, dtype=dtype), torch.full((4,), -2000.0, dtype=dtype)
    assert critic_cross_entropy(real, fake).item() == 0
    assert critic_cross_entropy(fake, real).item() == pytest.approx(4000, rel=0.01)
    assert generator_cross_entropy(fake).item() == pytest.approx(2000, rel=0.01)


def test_the_saturating_gradient_vanishes_where_the_discriminator_is_sure_and_the_other_does_not():
    """By hand: d/da of log(1 − σ(a)) is −σ(a), of −log σ(a) it is σ(a) − 1."""
    a = torch.tensor([-9.0, 0.0, 9.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(generator_cross_entropy(a, saturating=True) * 3, a)
    torch.testing.assert_close(slope, -a.detach().sigmoid())
    (slope,) = torch.autograd.grad(generator_cross_entropy(a) * 3, a)
    torch.testing.assert_close(slope, a.detach().sigmoid() - 1)


def test_the_wasserstein_objectives_are_differences_of_means_and_of_no_level():
    real, fake = draw(6), draw(6, seed=1)
    torch.testing.assert_close(critic_wasserstein(real, fake), fake.mean() - real.mean())
    torch.testing.assert_close(critic_wasserstein(real + 5, fake + 5), critic_wasserstein(real, fake))
    torch.testing.assert_close(generator_wasserstein(fake), -fake.mean())


def test_the_gradient_penalty_is_a_loop_over_examples():
    torch.manual_seed(0)
    critic = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    real, fake = draw(6, 3), draw(6, 3, seed=1)
    penalty = gradient_penalty(critic, real, fake, torch.Generator().manual_seed(4))
    epsilon = torch.rand(6, 1, generator=torch.Generator().manual_seed(4)).double()
    total = 0.0
    for i in range(6):
        point = epsilon[i] * real[i] + (1 - epsilon[i]) * fake[i]
        hidden = torch.tanh(critic[0](point))
        slope = critic[2].weight[0] * (1 - hidden**2) @ critic[0].weight  # the chain rule by hand
        total = total + (slope.norm() - 1) ** 2 / 6
    torch.testing.assert_close(penalty, total)
    by_hand = torch.autograd.grad(total, list(critic.parameters()), allow_unused=True)
    ours = torch.autograd.grad(penalty, list(critic.parameters()), allow_unused=True)
    for a, b in zip(ours, by_hand, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b)


def test_the_gradient_penalty_of_images_takes_one_slope_an_image_and_works_where_gradients_are_off():
    images = torch.rand(4, 1, 3, 3)
    with torch.no_grad():
        value = gradient_penalty(lambda x: x.flatten(1).sum(1), images, images, torch.Generator())
    assert value.item() == pytest.approx((3 - 1) ** 2)  # a slope of 1 in each of 9 pixels has norm 3


def test_the_gradient_penalty_reaches_neither_real_nor_fake():
    real, fake = (draw(4, 2, seed=s).requires_grad_() for s in (0, 1))
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    gradient_penalty(lambda x: (x**2) @ weight, real, fake, torch.Generator()).backward()
    assert real.grad is None
    assert fake.grad is None
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", [critic_cross_entropy, critic_wasserstein])
def test_bad_scores_are_refused_by_name(loss):
    with pytest.raises(ValueError, match="fake must not be empty"):
        loss(torch.ones(3), torch.ones(0))
    with pytest.raises(TypeError, match="real must be a floating-point tensor"):
        loss(torch.ones(3, dtype=torch.int64), torch.ones(3))


def test_the_gradient_penalty_refuses_unequal_shapes():
    with pytest.raises(ValueError, match=r"one shape \(N, ...\), got \(3, 2\) and \(4, 2\)"):
        gradient_penalty(lambda x: x.sum(1), torch.ones(3, 2), torch.ones(4, 2), torch.Generator())
