"""Colours as classes against loops over pixels in NumPy, the paper's limits, and refusals."""

import math

import numpy as np
import pytest
import torch

from course_utils.losses import colour_bins, colour_cross_entropy, rebalancing_weights, soft_encode
from course_utils.views import chroma, with_chroma


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


BINS = colour_bins(0.1)
CHROMA = chroma(torch.rand(2, 3, 3, 4, generator=seeded(), dtype=torch.float64))


# --- bins


@pytest.mark.parametrize("step", [0.05, 0.1, 0.25])
def test_bins_are_the_points_of_the_grid_that_some_colour_has(step):
    """Tried out: a chroma exists when some luminance makes RGB that need not be cut off."""
    bins = colour_bins(step)
    reach = round(0.5 / step)
    grid = torch.cartesian_prod(torch.arange(-reach, reach + 1), torch.arange(-reach, reach + 1)).double() * step
    y = torch.linspace(0, 1, 1001, dtype=torch.float64)
    for point in grid:
        seen = with_chroma(y.view(-1, 1, 1, 1), point.view(1, 2, 1, 1).expand(len(y), -1, -1, -1))
        cut = (chroma(seen)[:, :, 0, 0] - point).abs().amax(1).min().item()
        if cut == pytest.approx(0, abs=1e-9) or cut > 5e-3:  # not those on the very border
            found = (bins.double() - point).abs().amax(1).min() < 1e-6
            assert found == (cut < 1e-9), point


def test_every_colour_has_a_bin_near_it():
    pixels = chroma(torch.rand(2000, 3, 1, 1, generator=seeded()))[:, :, 0, 0]
    assert torch.cdist(pixels, BINS).amin(1).max() < 0.15
    assert torch.cdist(pixels, BINS).amin(1).median() < 0.06


# --- soft labels


@pytest.mark.parametrize(("sigma", "neighbours"), [(0.05, 5), (0.2, 3), (0.05, 1), (1e-4, 5)])
def test_soft_labels_are_gaussian_weights_of_the_nearest_bins(sigma, neighbours):
    z = soft_encode(CHROMA, BINS.double(), sigma=sigma, neighbours=neighbours)
    assert z.shape == (2, len(BINS), 3, 4)
    for n, r, c in np.ndindex(2, 3, 4):
        distances = [math.dist(CHROMA[n, :, r, c].tolist(), point) for point in BINS.double().tolist()]
        near = sorted(range(len(BINS)), key=distances.__getitem__)[:neighbours]
        logs = [-(distances[q] ** 2 - distances[near[0]] ** 2) / (2 * sigma**2) for q in near]
        expected = np.zeros(len(BINS))
        expected[near] = np.exp(logs) / np.exp(logs).sum()
        np.testing.assert_allclose(z[n, :, r, c], expected, atol=1e-9)


def test_a_colour_on_a_bin_has_most_of_its_label_there_and_the_mean_label_is_the_colour():
    z = soft_encode(BINS.T.reshape(1, 2, 1, -1), BINS, sigma=0.05)
    assert torch.equal(z[0, :, 0].argmax(0), torch.arange(len(BINS)))
    inner = soft_encode(torch.zeros(1, 2, 1, 1), BINS, sigma=0.05)[0, :, 0, 0] @ BINS
    torch.testing.assert_close(inner, torch.zeros(2), atol=1e-6, rtol=0)


# --- rebalancing


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.5, 1.0])
def test_weights_are_equation_4_and_have_mean_1_under_the_prior(uniform):
    prior = torch.rand(12, generator=seeded(), dtype=torch.float64) + 0.01
    weights = rebalancing_weights(prior, uniform=uniform)
    p = prior.numpy() / prior.numpy().sum()
    expected = 1 / ((1 - uniform) * p + uniform / 12)
    np.testing.assert_allclose(weights, expected / (p * expected).sum())
    assert (p * weights.numpy()).sum() == pytest.approx(1)


def test_rare_colours_weigh_more_up_to_the_uniforms_share_and_uniform_1_weighs_all_alike():
    prior = torch.tensor([0.9, 0.1, 0.0])
    weights = rebalancing_weights(prior)
    assert weights[0] < weights[1] < weights[2]
    assert weights[2] / weights[0] == pytest.approx((0.45 + 1 / 6) / (1 / 6), rel=1e-5)
    torch.testing.assert_close(rebalancing_weights(prior, uniform=1.0), torch.ones(3))


# --- cross-entropy


def test_the_loss_is_equation_2_pixel_by_pixel():
    logits = 3 * torch.randn(2, len(BINS), 3, 4, generator=seeded(1), dtype=torch.float64)
    z = soft_encode(CHROMA, BINS.double(), sigma=0.05)
    weights = torch.rand(len(BINS), generator=seeded(2), dtype=torch.float64)
    total = 0.0
    for n, r, c in np.ndindex(2, 3, 4):
        row, label = logits[n, :, r, c].numpy(), z[n, :, r, c].numpy()
        log_z = row.max() + math.log(np.exp(row - row.max()).sum())
        total += weights[label.argmax()].item() * -(label * (row - log_z)).sum()
    assert colour_cross_entropy(logits, z, weights=weights).item() == pytest.approx(total / 24)


def test_predicting_nothing_costs_log_q_and_predicting_the_labels_costs_their_entropy():
    z = soft_encode(CHROMA, BINS.double(), sigma=0.05)
    even = torch.ones(len(BINS), dtype=torch.float64)
    assert colour_cross_entropy(torch.zeros_like(z), z, weights=even).item() == pytest.approx(math.log(len(BINS)))
    entropy = -torch.special.xlogy(z, z).sum(1).mean()
    best = colour_cross_entropy(z.clamp_min(1e-30).log(), z, weights=even)
    torch.testing.assert_close(best, entropy)
    assert colour_cross_entropy(torch.randn(z.shape, generator=seeded(), dtype=z.dtype), z, weights=even) > best


def test_the_loss_has_the_gradient_of_its_value_and_survives_half_precision_and_extreme_logits():
    z = soft_encode(CHROMA, BINS.double(), sigma=0.05)[:1, :, :1, :2]
    weights = rebalancing_weights(z.mean((0, 2, 3)))
    logits = torch.randn(z.shape, generator=seeded(), dtype=z.dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda part: colour_cross_entropy(part, z, weights=weights), (logits,))
    extreme = (1e4 * logits.detach()).float().requires_grad_()
    loss = colour_cross_entropy(extreme, z.float(), weights=weights.float())
    loss.backward()
    assert loss.isfinite()
    assert extreme.grad.isfinite().all()
    half = logits.detach().bfloat16()
    assert colour_cross_entropy(half, z, weights=weights).dtype == torch.float64
    assert colour_cross_entropy(half, z.bfloat16(), weights=weights.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: colour_bins(0.0), ValueError, r"step.*got 0\.0"),
        (lambda: colour_bins(0.7), ValueError, r"step.*got 0\.7"),
        (lambda: soft_encode(torch.rand(2, 3, 4, 4), BINS, sigma=0.1), ValueError, r"\(N, 2, H, W\).*\(2, 3, 4, 4\)"),
        (lambda: soft_encode(torch.rand(2, 2, 4, 4), BINS, sigma=0.0), ValueError, r"sigma > 0.*got 0\.0"),
        (lambda: soft_encode(torch.rand(2, 2, 4, 4), BINS, sigma=0.1, neighbours=99), ValueError, "1 to 71.*99"),
        (lambda: soft_encode(torch.ones(2, 2, 4, 4).long(), BINS, sigma=0.1), TypeError, "chroma.*int64"),
        (lambda: rebalancing_weights(torch.tensor([0.5, -0.5])), ValueError, "not negative"),
        (lambda: rebalancing_weights(torch.zeros(3)), ValueError, "not all 0"),
        (lambda: rebalancing_weights(torch.ones(3), uniform=1.5), ValueError, r"uniform.*got 1\.5"),
        (lambda: rebalancing_weights(torch.ones(3).long()), TypeError, "prior.*int64"),
        (
            lambda: colour_cross_entropy(torch.rand(1, 3, 2, 2), torch.rand(1, 4, 2, 2), weights=torch.ones(3)),
            ValueError,
            r"\(1, 3, 2, 2\), \(1, 4, 2, 2\), \(3,\)",
        ),
        (
            lambda: colour_cross_entropy(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2), weights=torch.ones(4)),
            ValueError,
            r"weights \(Q,\), got .*\(4,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, error, named):
    with pytest.raises(error, match=named):
        call()
