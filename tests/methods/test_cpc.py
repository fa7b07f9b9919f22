"""CPC: what a context may see, which patch it is to tell from which, and the loss of equation 4 by loops."""

import copy
import math

import pytest
import torch
from torch import nn

from course_utils.methods import CPC
from course_utils.methods.cpc import share_told
from course_utils.models import ConvEncoder

X = torch.rand(3, 1, 14, 14, generator=torch.Generator().manual_seed(1))


def same(x, rng):
    return x


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"patch": 6, "stride": 2, "view": same, "patch_view": same} | options
        return CPC(ConvEncoder(1, width=4), **options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def test_the_grid_holds_overlapping_squares_of_the_image_row_by_row():
    x = torch.rand(2, 3, 15, 11)
    with torch.random.fork_rng():
        method = CPC(ConvEncoder(3, width=4), patch=6, stride=2, steps=(1,))
    patches = method.grid(x)
    assert patches.shape == (2, 5, 3, 3, 6, 6)
    for r in range(5):
        for j in range(3):
            assert torch.equal(patches[:, r, j], x[:, :, 2 * r : 2 * r + 6, 2 * j : 2 * j + 6])


def test_a_context_sees_its_own_row_and_those_above_in_a_cone_and_nothing_below():
    method = build().eval()
    z = torch.randn(1, 5, 7, method.encoder.out_dim, generator=seeded(), requires_grad=True)
    method.context(z)[0, 2, 3].sum().backward()
    seen = z.grad[0].abs().sum(2) > 0
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[:3, 2:5] = True
    assert torch.equal(seen, expected)


def test_no_prediction_sees_the_patch_it_predicts():
    """With steps so long that patches do not overlap, changed lower rows leave all predictions as they were."""
    method = build(steps=(3,)).eval()
    x = X[:, :, :12]  # 4 rows of patches: row 0 predicts row 3, which begins at pixel 6
    changed = x.clone()
    changed[:, :, 6:] = torch.rand(3, 1, 6, 14, generator=seeded())
    (before, target), (after, other) = (method.predictions(part, seeded())[3] for part in (x, changed))
    assert torch.equal(before, after)
    assert (target != other).any(1).all()


def test_prediction_and_target_are_k_rows_apart_in_the_same_column_of_the_same_image():
    method = build(steps=(1, 3)).eval()
    z = method.encoder(method.grid(X).flatten(0, 2)).unflatten(0, (3, 5, 5))
    c = method.context(z)
    for number, k in enumerate((1, 3)):
        predicted, target = method.predictions(X, seeded())[k]
        rows = [(n, r, j) for n in range(3) for r in range(5 - k) for j in range(5)]
        assert predicted.shape == target.shape == (len(rows), 64)
        for row, (n, r, j) in list(enumerate(rows))[::7]:
            torch.testing.assert_close(predicted[row], method.W[number](c[n, r, j]), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(target[row], method.V(z[n, r + k, j]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_the_mean_over_steps_of_equation_4_over_all_pairs(temperature):
    method = build(pairs=1000, temperature=temperature)
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    total = 0.0
    for k, (predicted, target) in reference.predictions(X, seeded()).items():
        q, v = (part.detach().double() for part in (predicted, target))
        told = 0
        for i in range(len(q)):
            scores = [(q[i] @ other / (q[i].norm() * other.norm())).item() / temperature for other in v]
            total += (math.log(sum(map(math.exp, scores))) - scores[i]) / len(q) / 2
            told += scores[i] == max(scores)
        assert logs[f"accuracy_{k}"] == pytest.approx(told / len(q), abs=1e-6)
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_a_draw_of_pairs_is_without_replacement_and_its_size_bounds_the_loss_of_a_network_that_says_nothing():
    method = build(pairs=16)
    with torch.no_grad():
        for part in (*method.W, method.V):
            part.weight.zero_()
    assert method.training_loss(X, seeded())[0].item() == pytest.approx(math.log(16), rel=1e-5)


def test_every_patch_is_changed_on_its_own_and_the_image_once():
    seen = []

    def view(x, rng):
        seen.append(x.shape)
        return x + torch.rand(len(x), 1, 1, 1, generator=rng)

    build(view=view, patch_view=view).training_loss(X, seeded())
    assert seen == [(3, 1, 14, 14), (75, 1, 6, 6)]


def test_the_shortcut_is_there_a_change_of_brightness_by_image_alone_tells_the_images_apart():
    """What patch_view is for: a flat patch says nothing but its brightness, and that is enough to find its image."""

    class Mean(nn.Module):
        in_channels, out_dim = 1, 2

        def forward(self, x):
            angle = x.mean((1, 2, 3)) * 3
            return torch.stack([angle.cos(), angle.sin()], 1)

    flat = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 10, 10).contiguous()
    method = CPC(Mean(), patch=6, stride=2, steps=(1,), projection_dim=2, view=same, patch_view=same)
    z = method.encoder(method.grid(flat).flatten(0, 2)).view(6, 9, 2)
    assert share_told(z[:, 0], z[:, 3]) == 1


def test_encode_is_the_encoder_on_the_whole_image_and_pooled_the_mean_over_its_patches():
    method = build()
    features = method.pooled(X, batch_size=2)
    assert features.shape == method.encode(X).shape
    expected = method.encode(method.grid(X).flatten(0, 2)).view(3, 25, -1).mean(1)
    torch.testing.assert_close(features, expected)
    before = method.encode(X)
    nn.init.zeros_(method.V.weight)
    nn.init.zeros_(method.across.weight)
    assert torch.equal(method.encode(X), before)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"patch": 0}, "patch and stride must be positive.*0, 2"),
        ({"stride": 0}, "6, 0"),
        ({"pairs": 1}, "pairs at least 2.*1"),
        ({"steps": ()}, r"steps must be different whole numbers of rows, at least 1, got \(\)"),
        ({"steps": (0, 1)}, r"\(0, 1\)"),
        ({"steps": (1, 1)}, r"\(1, 1\)"),
        ({"temperature": 0}, "temperature must be positive, got 0"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)


def test_images_that_are_too_small_are_told_how_large_they_must_be():
    with pytest.raises(ValueError, match=r"patches of 6 pixels every 2, 2 rows ahead, need.* 10 pixels, got 9×14"):
        build().training_loss(X[:, :, :9], seeded())
