"""I-JEPA against its equation block by block: what is context, what is target, what moves and what does not."""

import copy
import math

import pytest
import torch

from course_utils.methods import IJEPA
from course_utils.methods.i_jepa import draw_blocks
from course_utils.models import ViT, patchify, sine_cosine_positions, unpatchify

X = torch.rand(6, 2, 28, 28, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = IJEPA(ViT(2, dim=8, depth=2, heads=2), **{"width": 8} | options).double()
        for part in (method.encoder, method.target, method.predictor):  # as during training, when the two differ
            for parameter in part.parameters():
                parameter.data += 0.3 * torch.randn(parameter.shape, dtype=torch.float64)
        return method


# --- the blocks


@pytest.mark.parametrize("seed", range(8))
def test_targets_are_blocks_of_one_shape_and_the_context_is_none_of_them(seed):
    context, targets = draw_blocks(50, (7, 7), seeded(seed))
    size = targets.shape[2]
    shapes = set()
    for image in range(50):
        seen = context[image].tolist()
        assert len(set(seen)) == len(seen)
        for block in targets[image].tolist():
            rows, columns = zip(*(divmod(number, 7) for number in block), strict=True)
            height, width = max(rows) - min(rows) + 1, max(columns) - min(columns) + 1
            assert len(set(block)) == size == height * width
            shapes.add((height, width))
            assert not set(block) & set(seen)
    assert len(shapes) == 1
    assert 6 <= size <= 12  # 0.15 to 0.2 of 49, rounded to whole patches either way


def test_shapes_change_from_batch_to_batch_and_places_from_image_to_image():
    drawn = [draw_blocks(4, (7, 7), seeded(seed))[1] for seed in range(30)]
    assert len({targets.shape[2] for targets in drawn}) > 1
    assert len({tuple(block) for block in drawn[0].flatten(0, 1).tolist()}) > 4


def test_blocks_reach_every_patch_of_the_grid_and_so_does_the_context():
    context, targets = draw_blocks(500, (7, 7), seeded())
    assert set(targets.flatten().tolist()) == set(context.flatten().tolist()) == set(range(49))


def test_the_context_is_as_large_as_the_image_with_the_least_left():
    context, targets = draw_blocks(40, (7, 7), seeded())
    left = [49 - len(set(image.flatten().tolist())) for image in targets]
    assert context.shape == (40, min(left))
    assert min(left) >= 49 - 4 * targets.shape[2]


@pytest.mark.parametrize("grid", [(3, 3), (5, 5), (5, 8), (14, 14)])
def test_grids_of_other_sizes_have_blocks_too(grid):
    for seed in range(20):
        context, targets = draw_blocks(8, grid, seeded(seed), blocks=3)
        assert context.shape[1] >= 1
        assert targets.min() >= 0
        assert targets.max() < grid[0] * grid[1]


@pytest.mark.parametrize(
    ("grid", "options", "named"),
    [
        ((2, 2), {}, "4 blocks of 1×1 patches leave no context in 2×2 patches"),
        ((7, 7), {"blocks": 0}, "0 blocks"),
        ((7, 7), {"scale": (0.9, 1.0)}, "leave no context in 7×7"),
        ((7, 7), {"scale": (0.2, 0.1)}, r"scale must be two numbers.*\(0.2, 0.1\)"),
        ((7, 7), {"aspect": (0.0, 1.0)}, r"aspect must be two numbers.*\(0.0, 1.0\)"),
    ],
)
def test_blocks_that_leave_nothing_to_look_at_are_refused(grid, options, named):
    with pytest.raises(ValueError, match=named):
        draw_blocks(4, grid, seeded(), **options)


# --- the objective


def by_features(s):
    """Every row of (T, dim) with mean 0 and variance 1, as the authors' code has the targets."""
    return (s - s.mean(1, keepdim=True)) / (s.var(1, keepdim=True, correction=0) + 1e-5).sqrt()


def by_patches(s):
    """Every column of (T, dim) with mean 0 and variance 1."""
    return by_features(s.T).T


@pytest.mark.parametrize(("normalise", "reference"), [("layer", by_features), ("instance", by_patches)])
def test_the_loss_is_the_squared_distance_of_prediction_and_normalised_target_patch_by_patch(normalise, reference):
    method = build(normalise=normalise, scale=(0.15, 0.2))
    loss, _ = method.training_loss(X, seeded())
    context, targets = draw_blocks(6, (7, 7), seeded())
    places = sine_cosine_positions(8, 7, 7)
    total, count = 0.0, 0
    for n in range(6):
        s = reference(method.target.tokens(X[n : n + 1])[0, 1:])
        seen = method.narrow(method.encoder.tokens(X[n : n + 1], context[n : n + 1])[0, 1:]) + places[context[n]]
        for block in targets[n]:
            asked = method.mask_token + places[block]
            answers = method.widen(method.predictor(torch.cat([seen, asked])[None])[0, len(seen) :])
            for answer, number in zip(answers, block, strict=True):
                total += ((answer - s[number]) ** 2).sum().item()
                count += 8
    assert loss.item() == pytest.approx(total / count, rel=1e-9)


def test_what_all_patches_of_an_image_share_is_in_no_target():
    tokens = torch.randn(6, 50, 8, generator=seeded(), dtype=torch.float64)
    offset, scale = torch.rand(2, 6, 1, 8, generator=seeded(1), dtype=torch.float64) + 0.5
    method = build()
    method.target.tokens = lambda x: x
    torch.testing.assert_close(
        method.representations(offset + scale * tokens), method.representations(tokens), atol=1e-4, rtol=0
    )


def test_the_encoder_sees_the_context_only_and_the_target_encoder_all():
    method = build()
    context, targets = draw_blocks(6, (7, 7), seeded())
    hidden = torch.ones(6, 49, dtype=torch.bool).scatter(1, context, False)
    patches = patchify(X, 4)
    patches[hidden] = 1 - patches[hidden]
    other = unpatchify(patches, 4, size=(28, 28))
    torch.testing.assert_close(method(other, context, targets), method(X, context, targets))
    changed = (method.representations(other) - method.representations(X)).abs().amax(2)
    assert (changed > 1e-6).all()  # attention carries the hidden patches everywhere


def test_every_block_is_predicted_on_its_own():
    method = build()
    context, targets = draw_blocks(6, (7, 7), seeded())
    together = method(X, context, targets)
    for m in range(4):
        torch.testing.assert_close(method(X, context, targets[:, m : m + 1])[:, 0], together[:, m])


def test_no_gradient_reaches_the_targets_and_only_the_moving_average_moves_them():
    method = build()
    method.training_loss(X, seeded())[0].backward()
    assert all(parameter.grad is None for parameter in method.target.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.encoder.parameters())
    before = copy.deepcopy(method.target.state_dict())
    method.momentum = 0.9
    method.after_step(0.5)
    for name, value in method.target.state_dict().items():
        torch.testing.assert_close(value, 0.95 * before[name] + 0.05 * method.encoder.state_dict()[name])


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.95), (0.5, 0.975), (1.0, 1.0)])
def test_the_momentum_rises_to_1_along_a_line(progress, momentum):
    method = build()
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.fill_(1.0)
        for parameter in method.encoder.parameters():
            parameter.fill_(0.0)
    method.after_step(progress)
    for parameter in method.target.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, momentum))


def test_the_target_encoder_begins_as_the_encoder():
    encoder = ViT(2, dim=8, depth=1, heads=2)
    method = IJEPA(encoder, width=8)
    assert method.encoder is encoder
    for mine, theirs in zip(method.target.parameters(), encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs


def test_one_representation_for_everything_has_no_loss():
    """The collapse that only the stopped gradient and the moving average stand against."""
    method = build(normalise="layer")
    answer = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    with torch.no_grad():
        method.target.norm.weight.zero_()
        method.target.norm.bias.copy_(answer)
        method.widen.weight.zero_()
        method.widen.bias.copy_(answer)
    assert method.training_loss(X, seeded())[0].item() == pytest.approx(0, abs=1e-8)


def test_targets_that_are_the_same_everywhere_become_nothing_and_not_infinite():
    method = build(normalise="instance")
    with torch.no_grad():
        method.target.norm.weight.zero_()
    torch.testing.assert_close(method.representations(X), torch.zeros(6, 49, 8, dtype=torch.float64))


def test_the_view_is_drawn_once_for_context_and_targets():
    drawn = []

    def view(x, rng):
        drawn.append(x + torch.rand(x.shape, generator=rng, dtype=x.dtype))
        return drawn[-1]

    loss = build(view=view).training_loss(X, seeded())[0]
    assert len(drawn) == 1
    rng = seeded()
    torch.rand(X.shape, generator=rng, dtype=X.dtype)
    torch.testing.assert_close(build().training_loss(drawn[0], rng)[0], loss)


def test_an_unknown_normalisation_is_named_with_the_two_that_there_are():
    with pytest.raises(ValueError, match="normalise must be 'instance' or 'layer', got 'batch'"):
        build(normalise="batch")


@pytest.mark.parametrize("momentum", [-0.1, 1.1, math.nan])
def test_a_momentum_that_is_none_is_refused_at_once(momentum):
    with pytest.raises(ValueError, match=f"momentum must lie between 0 and 1, got {momentum}"):
        build(momentum=momentum)
