"""Schedules by composing their steps, embeddings of times, and networks that are told the time."""

import math

import pytest
import torch

from course_utils.models import DenseDenoiser, TimeUNet, alpha_bars, time_embedding


@pytest.mark.parametrize(("schedule", "steps"), [("linear", 1000), ("linear", 100), ("cosine", 1000), ("cosine", 50)])
def test_schedules_go_from_almost_all_signal_to_almost_none(schedule, steps):
    kept = alpha_bars(steps, schedule=schedule)
    assert kept.shape == (steps,)
    assert (kept.diff() < 0).all()
    assert kept[0] > 0.98 if steps > 50 else kept[0] > 0.95
    assert 0 < kept[-1] < 1e-3


def test_the_linear_schedule_is_the_product_of_ho_et_als_steps():
    product, by_hand = 1.0, []
    for i in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        by_hand.append(product)
    torch.testing.assert_close(alpha_bars(1000, schedule="linear"), torch.tensor(by_hand, dtype=torch.float64))


def test_the_cosine_schedule_is_equation_17_until_a_step_is_capped():
    def f(t):
        return math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2

    kept = alpha_bars(100)
    for t in (1, 40, 99):
        assert kept[t - 1].item() == pytest.approx(f(t) / f(0), rel=1e-9)
    assert kept[99].item() == pytest.approx(kept[98].item() * 0.001)


def test_adding_noise_step_by_step_has_the_marginal_of_equation_4():
    """Mean and variance of x_t given x₀ after composing x_t = √(1 − β) x + √β ε, exactly."""
    kept = alpha_bars(60)
    beta = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    mean, variance = 1.0, 0.0
    for t in range(60):
        mean = mean * (1 - beta[t]) ** 0.5
        variance = variance * (1 - beta[t]) + beta[t]
        assert mean.item() == pytest.approx(kept[t].item() ** 0.5)
        assert variance.item() == pytest.approx(1 - kept[t].item())


def test_times_are_embedded_apart():
    embedded = time_embedding(torch.arange(1000), 32)
    assert embedded.shape == (1000, 32)
    assert torch.pdist(embedded).min() > 0.1


def test_networks_keep_the_shape_and_see_the_time():
    early, late = torch.zeros(2, dtype=torch.int64), torch.full((2,), 90)
    for network, x in [(TimeUNet(3, width=8), torch.rand(2, 3, 14, 14)), (DenseDenoiser(2), torch.rand(2, 2))]:
        assert network(x, early).shape == x.shape
        assert (network(x, early) - network(x, late)).abs().max() > 1e-4


def test_wrong_inputs_are_refused_with_what_was_wanted():
    with pytest.raises(ValueError, match=r"'linear' with more than 20, got 'linear' with 10"):
        alpha_bars(10, schedule="linear")
    with pytest.raises(ValueError, match=r"got 'sine' with 10"):
        alpha_bars(10, schedule="sine")
    with pytest.raises(ValueError, match="even width of at least 4, got 5"):
        time_embedding(torch.arange(3), 5)
    with pytest.raises(ValueError, match=r"\(N, 1, even, even\), got \(2, 1, 15, 16\)"):
        TimeUNet(1)(torch.rand(2, 1, 15, 16), torch.zeros(2))
