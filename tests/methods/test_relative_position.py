"""Relative position: pairs of centre and neighbour from one encoder, eight places, and no cheap clue."""

import copy
import math

import pytest
import torch

from course_utils.methods import RelativePosition
from course_utils.models import ConvEncoder

X = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))
PLACES = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]  # (down, right) of the centre


def build(channels=1, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return RelativePosition(ConvEncoder(channels, width=4), **{"patch": 3, "gap": 1, "jitter": 1} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_the_cross_entropy_of_the_eight_places_over_all_pairs():
    method = build()
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    patches = reference.patches(X, seeded())  # (5, 9, 1, 3, 3)
    h = reference.encoder(patches.flatten(0, 1)).view(5, 3, 3, -1)
    pairs = torch.stack(
        [torch.cat([h[n, 1, 1], h[n, 1 + down, 1 + right]]) for n in range(5) for down, right in PLACES]
    )
    logits = reference.head(pairs).detach().double()
    right, total = 0, 0.0
    for row, place in zip(logits, list(range(8)) * 5, strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[place].item()
        right += row.argmax().item() == place
    assert loss.item() == pytest.approx(total / 40, rel=1e-5)
    assert logs == {"accuracy": pytest.approx(right / 40)}


def test_the_encoder_sees_each_patch_by_itself_at_the_patchs_size():
    method = build(patch=3, gap=1)
    seen = []
    method.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    method.training_loss(X, seeded())
    assert seen == [(45, 1, 3, 3)]


def test_a_head_that_says_nothing_costs_log_8():
    method = build()
    torch.nn.init.zeros_(method.head[-1].weight)
    torch.nn.init.zeros_(method.head[-1].bias)
    loss, logs = method.training_loss(X, seeded())
    assert loss.item() == pytest.approx(math.log(8), rel=1e-6)
    assert logs["accuracy"] == pytest.approx(1 / 8)


def test_no_patch_can_be_placed_by_its_brightness():
    ramp = torch.linspace(0, 1, 12).view(1, 1, 12, 1).expand(4, 1, 12, 12)
    means = build().patches(ramp, seeded()).mean((2, 3, 4))
    torch.testing.assert_close(means, torch.full((4, 9), 0.5))


def test_of_colours_one_channel_is_left():
    method = build(channels=3, patch=3)
    patches = method.patches(torch.rand(40, 3, 12, 12, generator=seeded()), seeded())
    deviations = patches.std((3, 4)).sort(2).values  # (40, 9, 3)
    assert deviations[:, :, :2].max() < 0.02
    assert deviations[:, :, 2].min() > 0.03
    assert method.training_loss(torch.rand(4, 3, 12, 12), seeded())[0].isfinite()


def test_patches_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"3×3 patches of 7 pixels with gap 3 and jitter 1 need 28 pixels.*12×12"):
        build(patch=7, gap=3).training_loss(X, seeded())
