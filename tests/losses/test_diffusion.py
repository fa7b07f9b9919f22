"""The diffusion objective against a loop, the network that is right, and its refusals."""

import pytest
import torch

from course_utils.losses import noise_prediction

ALPHA_BAR = torch.tensor([0.99, 0.6, 0.05], dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(5, 2), (5, 1, 4, 4)])
def test_noise_prediction_is_equation_14_by_a_loop(shape):
    x0, noise, t = draw(*shape), draw(*shape, seed=1), torch.tensor([0, 2, 1, 1, 0])
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def network(x, t):
        return torch.tanh(x) * scale[t].view(-1, *[1] * (x.ndim - 1))

    total, count = 0.0, 0
    for i in range(5):
        kept = ALPHA_BAR[t[i]]
        noisy = kept**0.5 * x0[i] + (1 - kept) ** 0.5 * noise[i]
        error = noise[i] - torch.tanh(noisy) * scale[t[i]]
        total, count = total + (error**2).sum(), count + error.numel()
    torch.testing.assert_close(noise_prediction(network, x0, t, noise, ALPHA_BAR), total / count)


def test_a_network_that_knows_the_example_has_no_loss():
    x0, noise, t = draw(4, 3), draw(4, 3, seed=1), torch.tensor([0, 1, 2, 1])

    def network(x, t):
        kept = ALPHA_BAR[t][:, None]
        return (x - kept.sqrt() * x0) / (1 - kept).sqrt()

    assert noise_prediction(network, x0, t, noise, ALPHA_BAR).item() < 1e-25


def test_the_least_loss_on_gaussian_data_is_what_the_posterior_leaves_open():
    """x₀ ~ N(0, s²): ε given x_t has the mean √(1−ᾱ) x_t / v and the variance ᾱ s² / v, where v = ᾱ s² + 1 − ᾱ."""
    n, s, t = 200_000, 2.0, 1
    x0, noise = s * draw(n, 1), draw(n, 1, seed=1)
    kept = ALPHA_BAR[t]
    v = kept * s**2 + 1 - kept
    least = noise_prediction(lambda x, t: (1 - kept).sqrt() * x / v, x0, torch.full((n,), t), noise, ALPHA_BAR)
    assert least.item() == pytest.approx((kept * s**2 / v).item(), rel=0.02)


def test_shapes_that_do_not_fit_are_refused():
    x, t = torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)
    alpha_bar = torch.tensor([0.5])
    with pytest.raises(ValueError, match=r"one shape \(N, ...\) and t \(N,\)"):
        noise_prediction(lambda x, t: x, x, t, torch.rand(4, 3), alpha_bar)
    with pytest.raises(ValueError, match=r"one shape \(N, ...\) and t \(N,\)"):
        noise_prediction(lambda x, t: x, x, t[:2], x, alpha_bar)
    with pytest.raises(ValueError, match=r"answer in the shape \(4, 2\), got \(4, 1\)"):
        noise_prediction(lambda x, t: x[:, :1], x, t, x, alpha_bar)
    with pytest.raises(TypeError, match="x0 must be a floating-point tensor"):
        noise_prediction(lambda x, t: x, t[:, None], t, x, alpha_bar)
