"""MAE against its equation patch by patch: what is seen, what is predicted, and where the loss looks."""

import copy
import math

import pytest
import torch

from course_utils.methods import MAE
from course_utils.methods.mae import normalise_patches
from course_utils.models import ViT, patchify, unpatchify

X = torch.rand(6, 2, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = MAE(ViT(2, size=12, dim=8, depth=2, heads=2), **{"width": 8} | options).double()
        for parameter in method.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.3 * torch.randn(parameter.shape, dtype=torch.float64)
        return method


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_the_mean_squared_error_of_every_pixel_of_every_hidden_patch_and_of_no_other(normalise):
    method = build(normalise=normalise)
    loss, logs = method.training_loss(X, seeded())
    keep, mask = method.split(X, seeded())
    predicted = method(X, keep)
    total, count = 0.0, 0
    for n in range(6):
        for number in range(9):
            if not mask[n, number]:
                continue
            row, column = divmod(number, 3)
            pixels = X[n, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].permute(1, 2, 0).flatten()
            if normalise:
                variance = sum((p - pixels.mean()) ** 2 for p in pixels) / (len(pixels) - 1)
                pixels = (pixels - pixels.mean()) / math.sqrt(variance + 1e-6)
            total += ((predicted[n, number] - pixels) ** 2).sum().item()
            count += len(pixels)
    assert loss.item() == pytest.approx(total / count, rel=1e-9)
    assert logs == {}


@pytest.mark.parametrize(("ratio", "seen"), [(0.75, 2), (0.5, 4), (0.1, 8), (0.99, 1)])
def test_the_part_seen_is_as_in_the_papers_code_and_drawn_afresh_for_every_image(ratio, seen):
    keep, mask = build(ratio=ratio).split(X, seeded())
    assert keep.shape == (6, seen)
    assert mask.shape == (6, 9)
    for n in range(6):
        assert sorted([*keep[n].tolist(), *mask[n].nonzero().flatten().tolist()]) == list(range(9))
    assert len({tuple(sorted(row.tolist())) for row in keep}) > 1


def test_every_patch_is_hidden_equally_often():
    method = build()
    _, mask = method.split(X[:1].expand(6000, -1, -1, -1), seeded())
    torch.testing.assert_close(mask.double().mean(0), torch.full((9,), 7 / 9, dtype=torch.float64), atol=0.03, rtol=0)


def test_hidden_pixels_reach_neither_encoder_nor_decoder_and_seen_ones_reach_every_prediction():
    method = build()
    keep, mask = method.split(X, seeded())
    patches = patchify(X, 4)
    patches[mask] = patches[mask].flip(0) + 1
    other = unpatchify(patches, 4, size=(12, 12))
    torch.testing.assert_close(method(other, keep), method(X, keep))
    patches = patchify(X, 4)
    patches[~mask] += torch.linspace(0, 1, 32, dtype=torch.float64)
    other = unpatchify(patches, 4, size=(12, 12))
    assert ((method(other, keep) - method(X, keep)).abs().amax(2) > 1e-6).all()


def test_the_encoder_computes_the_seen_patches_only_and_the_decoder_is_no_part_of_encode():
    method = build()
    lengths = []
    method.encoder.blocks[0].register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[1]))
    method.training_loss(X, seeded())
    assert lengths == [1 + 2]
    before = method.encode(X)
    assert before.shape == (6, 8)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.startswith("encoder"):
                parameter.zero_()
    assert torch.equal(method.encode(X), before)


def test_patches_in_another_order_are_predicted_alike():
    """`keep` is a set: where a patch stands is told by its position alone."""
    method = build()
    keep, _ = method.split(X, seeded())
    torch.testing.assert_close(method(X, keep.flip(1)), method(X, keep))


def test_predicting_the_mean_of_normalised_patches_costs_one_less_a_part_of_the_pixels():
    method = build()
    with torch.no_grad():
        method.pixels.weight.zero_()
        method.pixels.bias.zero_()
    assert method.training_loss(X, seeded())[0].item() == pytest.approx(31 / 32, rel=1e-4)


def test_normalised_patches_do_not_know_brightness_and_contrast():
    patches = patchify(X, 4)
    normal = normalise_patches(patches)
    torch.testing.assert_close(normal.mean(2), torch.zeros(6, 9, dtype=torch.float64))
    torch.testing.assert_close(normal.var(2), torch.ones(6, 9, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalise_patches(5 * patches + 3), normal, atol=1e-3, rtol=0)
    assert torch.equal(normalise_patches(torch.ones(1, 1, 4)), torch.zeros(1, 1, 4))


def test_the_view_is_what_is_hidden_and_what_is_painted():
    drawn = []

    def view(x, rng):
        drawn.append(x + torch.rand(x.shape, generator=rng, dtype=x.dtype))
        return drawn[-1]

    loss = build(view=view).training_loss(X, seeded())[0]
    rng = seeded()
    torch.rand(X.shape, generator=rng, dtype=X.dtype)
    plain = build()
    torch.testing.assert_close(plain.training_loss(drawn[0], rng)[0], loss)


@pytest.mark.parametrize("size", [8, 20, 28])
def test_images_of_any_multiple_of_the_patch_are_taken(size):
    method = build()
    x = torch.rand(2, 2, size, size, generator=seeded(), dtype=torch.float64)
    assert method.training_loss(x, seeded())[0].isfinite()
    assert method(x, torch.tensor([[0], [1]])).shape == (2, size * size // 16, 32)


def test_several_channels_are_painted_where_they_are():
    """A decoder that answers with the truth has no loss."""
    method = build(normalise=False)
    method.forward = lambda x, keep: patchify(x, 4)
    assert method.training_loss(X, seeded())[0] == 0


@pytest.mark.parametrize("ratio", [0, 1, -0.1, math.nan])
def test_a_ratio_that_hides_nothing_or_everything_is_refused_at_once(ratio):
    with pytest.raises(ValueError, match=f"ratio must lie between 0 and 1, both excluded, got {ratio}"):
        build(ratio=ratio)


def test_training_leaves_the_encoder_and_images_it_was_given_in_place():
    encoder = ViT(2, size=12, dim=8, depth=1, heads=2)
    method = MAE(encoder, width=8)
    before = copy.deepcopy(X.float())
    x = X.float()
    method.training_loss(x, seeded())[0].backward()
    assert method.encoder is encoder
    assert torch.equal(x, before)
