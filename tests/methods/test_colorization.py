"""Colorization: grey in, a distribution over colours out; grey images and colour ones are encoded alike."""

import copy
import math

import pytest
import torch
from torch import nn

from course_utils.methods import Colorization
from course_utils.models import ConvEncoder
from course_utils.views import chroma, luminance

X = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Colorization(ConvEncoder(1, width=4), size=12, **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_the_rebalanced_cross_entropy_of_the_colours_at_a_pixel_of_every_square():
    """Equations 2 and 4 over loops, by the frequencies of the batch; squares have 4×4 pixels, the place is drawn."""
    method = build()
    reference = copy.deepcopy(method)
    loss, _ = method.training_loss(X, seeded())
    logits = reference(luminance(X)).detach().double()
    bins, q = method.bins.double(), len(method.bins)
    down, right = (4 * torch.rand(2, 5, generator=seeded())).long()
    there = torch.stack([chroma(X)[n, :, down[n] :: 4, right[n] :: 4] for n in range(5)]).double()
    z = torch.zeros(5, q, 3, 3, dtype=torch.float64)
    for n in range(5):
        for r in range(3):
            for c in range(3):
                squares = (there[n, :, r, c] - bins).square().sum(1)
                near = squares.argsort()[:5]
                weight = torch.exp(-squares[near] / (2 * 0.05**2))
                z[n, near, r, c] = weight / weight.sum()
    p = z.mean((0, 2, 3))
    w = 1 / (0.5 * p + 0.5 / q)
    w = w / (p * w).sum()
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    expected = -(w[z.argmax(1)] * (z * log_p).sum(1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_encoder_sees_the_luminance_alone():
    method = build()
    seen = []
    method.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    method.training_loss(X, seeded())
    assert torch.equal(seen[0], luminance(X))


def test_colour_images_are_encoded_as_their_grey_twins():
    method = build()
    assert torch.equal(method.encode(X), method.encode(luminance(X)))
    assert method.encode(X, batch_size=2).shape == (5, method.encoder.out_dim)


def test_a_decoder_that_says_nothing_costs_about_log_q():
    class Silent(nn.Module):
        def forward(self, h):
            return h.new_zeros(len(h), len(method.bins), 3, 3)

    method = build(uniform=1.0)  # all colours weigh alike
    method.decoder = Silent()
    assert method.training_loss(X, seeded())[0].item() == pytest.approx(math.log(len(method.bins)), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 0.38, 1.0])
def test_paint_keeps_the_luminance_and_takes_the_annealed_mean_of_the_bins(temperature):
    logits = torch.randn(2, 71, generator=seeded())

    class Says(nn.Module):
        def forward(self, h):
            return logits[:, :, None, None].expand(-1, -1, 3, 3)

    method = build()
    method.decoder = Says()
    grey = torch.full((2, 1, 12, 12), 0.5)
    painted = method.paint(grey, temperature=temperature)
    assert painted.shape == (2, 3, 12, 12)
    for n in range(2):
        p = logits[n].double().exp() ** (1 / temperature)  # equation 5
        mean = (p / p.sum()) @ method.bins.double()
        if temperature > 0.1:  # nothing of such a mean is cut off
            torch.testing.assert_close(luminance(painted)[n], grey[n])
            found = chroma(painted)[n].double()
            torch.testing.assert_close(found, mean.view(2, 1, 1).expand_as(found), atol=1e-4, rtol=0)


def test_grey_images_have_no_colours_to_learn_from():
    with pytest.raises(ValueError, match=r"colour images \(N, 3, H, W\), got \(5, 1, 12, 12\)"):
        build().training_loss(luminance(X), seeded())
