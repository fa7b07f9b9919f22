"""Restoration: what is damaged is rebuilt from the damage alone, and every pixel counts."""

import pytest
import torch
from torch import nn

from course_utils.methods import Denoising, Restoration, SuperResolution
from course_utils.models import ConvEncoder
from course_utils.views import gaussian_noise, low_resolution

X = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))
KINDS = ["noise", "masking", "low_resolution"]


def build(kind=Restoration, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(ConvEncoder(1, width=4), size=12, **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("corruption", KINDS)
def test_the_loss_is_the_squared_error_of_all_pixels_of_what_is_rebuilt_from_the_damaged_image(corruption):
    method = build(corruption=corruption)
    seen, rebuilt = [], []
    method.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    method.decoder.register_forward_hook(lambda module, inputs, output: rebuilt.append(output.detach().clone()))
    loss, logs = method.training_loss(X, seeded())
    assert torch.equal(seen[0], method.corrupt(X, seeded()))
    assert not torch.equal(seen[0], X)
    errors = [(a - b) ** 2 for a, b in zip(rebuilt[0].flatten().tolist(), X.flatten().tolist(), strict=True)]
    assert loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert logs == {}


def test_the_damages_are_the_views_they_are_named_for():
    assert torch.equal(build(strength=0.3).corrupt(X, seeded()), gaussian_noise(X, seeded(), strength=0.3))
    masked = build(corruption="masking", strength=0.25).corrupt(X + 0.1, seeded())
    assert (masked == 0).sum((1, 2, 3)).tolist() == [36] * 5  # a fixed number of pixels an image (§2.3)
    assert torch.equal(masked[masked != 0], (X + 0.1)[masked != 0])
    coarse = build(corruption="low_resolution", strength=2).corrupt(X, seeded())
    assert torch.equal(coarse, low_resolution(X, seeded(), factor=2))


def test_denoising_and_super_resolution_are_restorations_with_their_own_strength():
    assert (build(Denoising, noise=0.2).corruption, build(Denoising, noise=0.2).strength) == ("noise", 0.2)
    assert (build(SuperResolution).corruption, build(SuperResolution).strength) == ("low_resolution", 4)
    own = nn.Identity()
    assert build(Denoising, decoder=own).decoder is build(SuperResolution, decoder=own).decoder is own


def test_a_damage_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="corruption must be one of noise, masking, low_resolution, got 'rain'"):
        build(corruption="rain")
