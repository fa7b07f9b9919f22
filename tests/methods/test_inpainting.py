"""Inpainting: what is hidden is not seen, and only what is hidden counts."""

import copy

import pytest
import torch
from torch import nn

from course_utils.methods import Inpainting
from course_utils.models import ConvEncoder
from course_utils.views import mask_patches

X = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Inpainting(ConvEncoder(1, width=4), **{"size": 12, "patch": 3, "ratio": 0.25} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def spied(method, batch):
    """What the encoder saw and what was painted in one call of the loss."""
    seen, painted = [], []
    hooks = [
        method.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone())),
        method.decoder.register_forward_hook(lambda module, inputs, output: painted.append(output.detach().clone())),
    ]
    loss, logs = method.training_loss(batch, seeded())
    for hook in hooks:
        hook.remove()
    assert logs == {}
    return seen[0], painted[0], loss


@pytest.mark.parametrize(("patch", "ratio"), [(3, 0.25), (6, 0.5), (2, 0.7)])
def test_the_loss_is_the_squared_error_of_the_hidden_pixels_alone(patch, ratio):
    method = build(patch=patch, ratio=ratio)
    seen, painted, loss = spied(method, X)
    hidden = seen != X
    errors = [
        (painted[i, 0, r, c] - X[i, 0, r, c]).item() ** 2
        for i in range(5)
        for r in range(12)
        for c in range(12)
        if hidden[i, 0, r, c]
    ]
    cells = (12 // patch) ** 2
    assert len(errors) == 5 * round(ratio * cells) * patch**2
    assert loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_hidden_pixels_do_not_reach_the_encoder_and_do_reach_the_loss():
    method = build()
    _, mask = mask_patches(X, seeded(), patch=3, ratio=0.25)
    other = torch.where(mask, torch.rand(X.shape, generator=seeded(2)), X)
    assert not torch.equal(other, X)
    seen, painted, loss = spied(copy.deepcopy(method), X)
    seen_other, painted_other, loss_other = spied(copy.deepcopy(method), other)
    assert torch.equal(seen, seen_other)
    assert torch.equal(painted, painted_other)
    assert loss != loss_other
    for image, hidden, shown in zip(X, mask, seen, strict=True):
        torch.testing.assert_close(shown[hidden], image[~hidden].mean().expand(int(hidden.sum())))


def test_visible_pixels_change_the_painting_and_no_image_tells_of_another_in_evaluation_mode():
    method = build().eval()
    masked, mask = mask_patches(X, seeded(), patch=3, ratio=0.25)
    lighter = masked.clone()
    lighter[0] = torch.where(mask[0], masked[0], masked[0] / 2)
    changed = (method(lighter) - method(masked)).abs().amax((1, 2, 3))
    assert changed[0] > 1e-6
    assert (changed[1:] < 0.01 * changed[0]).all()


def test_the_painting_has_gradients_where_the_image_was_hidden_and_nowhere_else():
    class Canvas(nn.Module):
        def __init__(self):
            super().__init__()
            self.canvas = nn.Parameter(torch.rand(X.shape, generator=seeded(3)))

        def forward(self, h):
            return self.canvas

    method = build(decoder=Canvas())
    seen, painted, loss = spied(method, X)
    loss.backward()
    hidden = seen != X
    expected = torch.where(hidden, 2 * (painted - X) / hidden.sum(), 0)
    torch.testing.assert_close(method.decoder.canvas.grad, expected)


def test_a_decoder_of_ones_own_is_used_and_the_standard_one_fits_the_encoder():
    own = nn.Identity()
    assert build(decoder=own).decoder is own
    method = Inpainting(ConvEncoder(3, width=4), size=20, patch=5)
    assert method(torch.rand(2, 3, 20, 20)).shape == (2, 3, 20, 20)
    assert method.encode(torch.rand(2, 3, 20, 20)).shape == (2, method.encoder.out_dim)


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match=r"patch must .*divide.* the image's 12×12 pixels, got 5"):
        build(patch=5).training_loss(X, seeded())
