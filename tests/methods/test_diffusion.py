"""Diffusion: its posterior by Bayes' rule, DDPM inside DDIM, and the network that is exact on Gaussian data."""

import pytest
import torch
from torch import nn

from course_utils.methods import Diffusion
from course_utils.models import DenseDenoiser
from course_utils.train import fit


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Exact(nn.Module):
    """E[ε | x_t] for x₀ ~ N(mean, std² I): √(1 − ᾱ)(x_t − √ᾱ mean) / (ᾱ std² + 1 − ᾱ)."""

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x, t):
        kept = self.alpha_bar[t][:, None].to(x)
        return (1 - kept).sqrt() * (x - kept.sqrt() * self.mean) / (kept * self.std**2 + 1 - kept)


def exact(mean=1.0, std=0.5, **options):
    method = Diffusion(Exact(mean, std), shape=(2,), **options)
    method.denoiser.alpha_bar = method.alpha_bar
    return method


def test_x0_is_tweedies_posterior_mean_on_gaussian_data():
    """E[x₀ | x_t] by conditioning the joint Gaussian of x₀ and x_t."""
    method, x = exact(mean=1.0, std=0.5), torch.randn(6, 2, generator=rng())
    for t in (0, 40, 120):
        kept = method.alpha_bar[t]
        covariance, variance = kept.sqrt() * 0.25, kept * 0.25 + 1 - kept
        wanted = 1.0 + covariance / variance * (x - kept.sqrt() * 1.0)
        torch.testing.assert_close(method.predict(x, t)[0], wanted, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_eta_one_and_all_steps_is_ddpm(schedule):
    """Mean and variance of q(x_{t−1} | x_t, x₀), Ho et al. 2020, equations 6 and 7, written out with β and α."""
    method = exact(steps=80, schedule=schedule)
    x = torch.randn(50_000, 2, generator=rng())
    kept = method.alpha_bar.double()
    for t in (5, 40, 70):
        alpha = kept[t] / kept[t - 1]
        beta = 1 - alpha
        x0 = method.predict(x, t)[0].double()
        mean = kept[t - 1].sqrt() * beta / (1 - kept[t]) * x0
        mean = mean + alpha.sqrt() * (1 - kept[t - 1]) / (1 - kept[t]) * x.double()
        variance = (1 - kept[t - 1]) / (1 - kept[t]) * beta
        rest = method.step(x, t, t - 1, rng(1), eta=1.0).double() - mean
        assert rest.var().item() == pytest.approx(variance.item(), rel=0.02)
        assert abs(rest.mean().item()) < 0.01 * max(variance.sqrt().item(), 0.1)
        noise = torch.randn(x.shape, generator=rng(1)).double()
        torch.testing.assert_close(rest, variance.sqrt() * noise, atol=2e-4, rtol=1e-2)


def spread_by_recursion(method, std, steps, eta):
    """The standard deviation that the exact network's samples end with: every step is linear in x with added noise.

    The guess x̂₀ moves by slope = √ᾱ std² / (ᾱ std² + 1 − ᾱ) with x. A guess is less spread than what it guesses, so
    that long steps end with too little.
    """
    times, kept, variance = method.times(steps), method.alpha_bar.double(), 1.0
    for t, before in zip(times, [*times[1:], None], strict=True):
        slope = kept[t].sqrt() * std**2 / (kept[t] * std**2 + 1 - kept[t])
        goal = kept[before] if before is not None else torch.tensor(1.0).double()
        sigma2 = eta**2 * (1 - goal) / (1 - kept[t]) * (1 - kept[t] / goal)
        noise = (1 - kept[t].sqrt() * slope) / (1 - kept[t]).sqrt()
        variance = (goal.sqrt() * slope + (1 - goal - sigma2).clamp(min=0).sqrt() * noise) ** 2 * variance + sigma2
    return variance.sqrt().item()


@pytest.mark.parametrize(("steps", "eta"), [(200, 1.0), (200, 0.0), (50, 1.0), (25, 0.0), (1, 0.0)])
def test_the_exact_network_samples_the_gaussian_as_far_as_the_steps_allow(steps, eta):
    method = exact(mean=1.0, std=0.5)
    samples = method.sample(20_000, rng(), steps=steps, eta=eta)
    assert samples.mean().item() == pytest.approx(1.0, abs=0.03)
    assert samples.std().item() == pytest.approx(spread_by_recursion(method, 0.5, steps, eta), rel=0.02, abs=2e-3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_more_steps_come_closer_to_the_gaussian(eta):
    method = exact(std=0.5, steps=1000)
    spreads = [spread_by_recursion(method, 0.5, steps, eta) for steps in (1, 10, 100, 1000)]
    assert spreads == sorted(spreads)
    assert spreads[-1] == pytest.approx(0.5, rel=0.02)


def test_ddim_draws_nothing_after_the_start():
    method = exact()
    x = torch.randn(4, 2, generator=rng())
    torch.testing.assert_close(method.step(x, 50, 40, rng(1), eta=0.0), method.step(x, 50, 40, rng(2), eta=0.0))
    assert (method.step(x, 50, 40, rng(1), eta=0.5) != method.step(x, 50, 40, rng(2), eta=0.5)).all()


def test_paths_begin_in_noise_and_times_end_at_zero():
    method = exact(steps=25)
    stages = method.path(3, rng(), steps=5)
    assert len(stages) == 6
    torch.testing.assert_close(stages[0], torch.randn(3, 2, generator=rng()))
    torch.testing.assert_close(stages[-1], method.sample(3, rng(), steps=5))
    assert method.times(25) == list(range(24, -1, -1))
    assert method.times(5)[0] == 24
    assert method.times(5)[-1] == 0
    assert method.times(1) == [24]


def test_a_bound_holds_and_keeps_noise_and_example_consistent():
    method = exact(mean=3.0, bound=1.0)
    x = torch.randn(5, 2, generator=rng())
    x0, noise = method.predict(x, 30)
    assert x0.abs().max() <= 1
    kept = method.alpha_bar[30]
    torch.testing.assert_close(kept.sqrt() * x0 + (1 - kept).sqrt() * noise, x)
    assert method.sample(5, rng(), steps=10).abs().max() <= 1


def test_training_finds_two_clusters():
    data = torch.cat([torch.randn(1000, 2, generator=rng()) * 0.3 + side for side in (-1.0, 1.0)])
    method = Diffusion(DenseDenoiser(2, hidden=64), shape=(2,), steps=50)
    fit(method, data, steps=400, batch_size=256, lr=5e-3, progress=False)
    samples = method.sample(1000, rng(1))
    near = torch.stack([(samples - side).norm(dim=1) < 1.0 for side in (-1.0, 1.0)])
    assert near.any(0).double().mean() > 0.8
    assert near.double().mean(1).min() > 0.3


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="bound must be None or positive, got 0"):
        exact(bound=0)
    with pytest.raises(ValueError, match="sampling takes 1 to 200 steps, got 201"):
        exact().sample(2, rng(), steps=201)
    with pytest.raises(ValueError, match="eta must be between 0"):
        exact().sample(2, rng(), eta=2.0)
