"""The networks of a GAN: their shapes, and the slope that spectral norm leaves."""

import pytest
import torch

from course_utils.models import Critic, Generator


@pytest.mark.parametrize("size", [14, 16, 20, 28])
@pytest.mark.parametrize("channels", [1, 3])
def test_generators_and_critics_fit_together(size, channels):
    images = Generator(8, channels=channels, size=size, width=4)(torch.randn(3, 8))
    assert images.shape == (3, channels, size, size)
    assert images.abs().max() <= 1
    assert Critic(channels, size=size, width=4)(images).shape == (3,)


def test_the_score_of_an_image_is_its_own():
    critic, x = Critic(1, size=16, width=4), torch.rand(5, 1, 16, 16)
    torch.testing.assert_close(critic(x)[:2], critic(x[:2]))


def test_spectral_norm_divides_each_weight_by_its_largest_singular_value():
    critic = Critic(1, size=16, width=4, spectral_norm=True)
    for _ in range(200):  # power iteration goes on at every forward pass in training mode
        critic(torch.rand(1, 1, 16, 16))
    critic.eval()
    layers = [critic.features[0], critic.features[2], critic.last]
    for layer in layers:
        matrix = layer.weight.flatten(1)
        assert torch.linalg.svdvals(matrix)[0].item() == pytest.approx(1, abs=1e-3)
        original = layer.parametrizations.weight.original.flatten(1)
        torch.testing.assert_close(matrix, original / torch.linalg.svdvals(original)[0], atol=1e-3, rtol=1e-2)


def test_wrong_inputs_are_refused_with_what_was_wanted():
    with pytest.raises(ValueError, match=r"takes noise \(N, 8\), got \(2, 9\)"):
        Generator(8)(torch.randn(2, 9))
    with pytest.raises(ValueError, match=r"takes images \(N, 1, 16, 16\), got \(2, 1, 15, 16\)"):
        Critic(1)(torch.rand(2, 1, 15, 16))
