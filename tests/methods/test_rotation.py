"""Rotation: the labels are the turns, the loss is the cross-entropy over all four turns of every image."""

import copy
import math

import pytest
import torch

from course_utils.methods import Rotation
from course_utils.methods.rotation import upright_view
from course_utils.models import ConvEncoder

X = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Rotation(ConvEncoder(1, width=4), **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def turned_by_index(image, turns):
    """Counter-clockwise by copying pixels: what was in row r, column c of an S×S image goes to row S−1−c, column r."""
    for _ in range(turns):
        side, out = len(image), torch.empty_like(image)
        for r in range(side):
            for c in range(side):
                out[side - 1 - c, r] = image[r, c]
        image = out
    return image


def test_the_loss_and_the_accuracy_are_means_over_all_four_turns_of_every_image():
    method = build(view=lambda x, rng: x)
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    views = torch.stack([turned_by_index(image, turns)[None] for turns in range(4) for image in X[:, 0]])
    logits = reference.head(reference.encoder(views)).detach().double()
    right, total = 0, 0.0
    for row, turns in zip(logits, [turns for turns in range(4) for _ in X], strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[turns].item()
        right += row.argmax().item() == turns
    assert loss.item() == pytest.approx(total / 20, rel=1e-5)
    assert logs == {"accuracy": pytest.approx(right / 20)}


def test_the_encoder_sees_the_view_once_in_each_of_four_turns():
    method = build(view=lambda x, rng: 0.5 * x + torch.rand(1, generator=rng))
    seen = []
    method.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    method.training_loss(X, seeded())
    view = 0.5 * X + torch.rand(1, generator=seeded())
    (turned,) = seen
    for number, part in enumerate(turned.chunk(4)):
        assert torch.equal(part, torch.stack([turned_by_index(image, number)[None] for image in view[:, 0]]))


def test_the_head_tells_four_turns_and_encode_leaves_it_out():
    method = build()
    assert method.head[-1].out_features == 4
    before = method.encode(X)
    torch.nn.init.zeros_(method.head[-1].weight)
    assert torch.equal(method.encode(X), before)
    assert before.shape == (5, method.encoder.out_dim)


def test_a_head_that_says_nothing_costs_log_4():
    method = build()
    torch.nn.init.zeros_(method.head[-1].weight)
    torch.nn.init.zeros_(method.head[-1].bias)
    loss, logs = method.training_loss(X, seeded())
    assert loss.item() == pytest.approx(math.log(4), rel=1e-6)
    assert logs["accuracy"] == 0.25


def test_the_standard_view_does_not_turn_images():
    """A turn moves the dividing line of a half-dark image; without one its columns stay constant."""
    half = torch.zeros(64, 1, 12, 12)
    half[..., 6:] = 1
    view = upright_view(half, seeded(), noise=0.0)
    torch.testing.assert_close(view, view[:, :, :1].expand_as(view), atol=1e-5, rtol=0)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square images, got 8×6"):
        build().training_loss(X[..., :6], seeded())
