"""Views against loops over single images, against what the pixels themselves reveal, as pure functions of a seed."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch import nn

from course_utils.views import (
    augment,
    chroma,
    drop_channels,
    equalise_patches,
    gaussian_noise,
    jitter,
    low_resolution,
    luminance,
    mask_patches,
    mix_channels,
    patch_grid,
    permutation_set,
    random_flip,
    random_invert,
    random_resized_crop,
    rotate_four_ways,
    with_chroma,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TURNED = functools.partial(random_resized_crop, rotation=20.0)
EVERYTHING = functools.partial(augment, invert=0.5, flip=0.5)
VIEWS = {
    "crop": random_resized_crop,
    "crop and turn": TURNED,
    "jitter": jitter,
    "mix_channels": mix_channels,
    "invert": random_invert,
    "flip": random_flip,
    "noise": gaussian_noise,
    "drop_channels": drop_channels,
    "low_resolution": low_resolution,
    "augment": augment,
    "augment with everything": EVERYTHING,
    "mask": lambda x, rng: mask_patches(x, rng, patch=4)[0],
}
every_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def images(n=6, channels=3, height=12, width=12, *, seed=0, dtype=torch.float32):
    return torch.rand(n, channels, height, width, generator=generator(seed), dtype=dtype)


# --- what every view keeps


@every_view
@pytest.mark.parametrize("shape", [(6, 3, 12, 12), (1, 1, 8, 20)])
def test_a_view_has_the_shape_of_its_images_stays_in_0_to_1_and_leaves_them_as_they_were(view, shape):
    x = images(*shape)
    before = x.clone()
    seen = view(x, generator())
    assert torch.equal(x, before)
    assert seen.shape == x.shape
    assert seen.min() >= 0
    assert seen.max() <= 1 + 1e-6


@every_view
def test_a_view_changes_the_images(view):
    x = images(30)
    assert ((view(x, generator()) - x).abs().amax((1, 2, 3)) > 0.01).float().mean() > 0.3


@every_view
def test_the_generator_decides_the_view_and_nothing_else_does(view):
    x = images()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = view(x, generator(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(view(x, generator(3)), first)
    assert not torch.equal(view(x, generator(4)), first)


@every_view
def test_a_second_view_from_the_same_generator_is_another_one(view):
    x, rng = images(30), generator()
    assert not torch.equal(view(x, rng), view(x, rng))


@every_view
def test_an_image_is_seen_without_the_others_of_its_batch(view):
    x = images()
    changed = x.clone()
    changed[2:4] = 1 - changed[2:4] ** 2
    others = [0, 1, 4, 5]
    assert torch.equal(view(x, generator())[others], view(changed, generator())[others])


@pytest.mark.parametrize("name", [name for name in VIEWS if name not in ("invert", "flip", "low_resolution", "mask")])
def test_equal_images_of_a_batch_get_different_views(name):
    x = images(1).expand(12, -1, -1, -1)
    seen = VIEWS[name](x, generator()).flatten(1)
    assert len(seen.unique(dim=0)) == 12


@every_view
def test_a_view_follows_strides_of_any_layout(view):
    x = images()
    torch.testing.assert_close(view(x.to(memory_format=torch.channels_last), generator()), view(x, generator()))
    torch.testing.assert_close(view(x.transpose(2, 3).contiguous().transpose(2, 3), generator()), view(x, generator()))


@every_view
@pytest.mark.parametrize("device", DEVICES)
def test_float64_images_stay_float64_on_their_device(view, device):
    seen = view(images(dtype=torch.float64).to(device), generator(device=device))
    assert seen.dtype == torch.float64
    assert seen.device.type == device


HALF = {name: view for name, view in VIEWS.items() if name != "mask"}


@pytest.mark.parametrize("view", HALF.values(), ids=HALF)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_views_of_half_precision_images_are_drawn_in_float32(view, dtype):
    x = images().to(dtype)
    seen = view(x, generator())
    assert seen.dtype == torch.float32
    assert torch.equal(seen, view(x.float(), generator()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_moving_or_hiding_pixels_keeps_the_dtype(dtype):
    x = images().to(dtype)
    assert rotate_four_ways(x)[0].dtype == mask_patches(x, generator(), patch=4)[0].dtype == dtype


@every_view
def test_views_ignore_autocast_and_record_no_gradient(view):
    x = images().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = view(x, generator())
    assert torch.equal(seen, view(x.detach(), generator()))


@pytest.mark.parametrize(
    "view",
    [
        functools.partial(random_resized_crop, scale=(1, 1)),
        functools.partial(jitter, strength=0),
        functools.partial(mix_channels, strength=0),
        functools.partial(random_invert, probability=0),
        functools.partial(random_flip, probability=0),
        functools.partial(gaussian_noise, strength=0),
        functools.partial(low_resolution, factor=1),
        functools.partial(augment, crop=(1, 1), rotation=0, brightness=0, noise=0, mixing=0),
    ],
    ids=lambda view: view.func.__name__,
)
def test_strength_0_leaves_the_images_exactly_as_they_are(view):
    x = images()
    assert torch.equal(view(x, generator()), x)


@pytest.mark.parametrize(
    "weak",
    [
        lambda x, rng: random_resized_crop(x, rng, scale=(1 - 1e-6, 1), rotation=1e-4),
        lambda x, rng: jitter(x, rng, strength=1e-5),
        lambda x, rng: mix_channels(x, rng, strength=1e-5),
        lambda x, rng: gaussian_noise(x, rng, strength=1e-6),
    ],
)
def test_a_weak_view_is_close_to_the_image(weak):
    x = images()
    torch.testing.assert_close(weak(x, generator()), x, atol=3e-5, rtol=0)


# --- crop and turn


def coordinates(n, height, width, extra=None):
    """Images whose first two channels are their own column and row, as a part of 100 pixels; then any others."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ramps = torch.stack([columns, rows]).double()[None].expand(n, -1, -1, -1) / 100
    return ramps if extra is None else torch.cat([ramps, extra], 1)


def affine_maps(seen, height, width):
    """For each view of `coordinates`: the 2×3 matrix from a pixel (column, row, 1), counted from the middle, to where
    it was taken, counted from the middle; fitted where nothing was reflected at a border."""
    rows, columns = np.indices((height, width))
    target = np.stack([columns.ravel() - (width - 1) / 2, rows.ravel() - (height - 1) / 2, np.ones(height * width)], 1)
    near = np.abs(target[:, :2]).max(1) < min(height, width) / 5
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return [
        np.linalg.lstsq(target[near], 100 * image[:2].reshape(2, -1).T.numpy()[near] - middle, rcond=None)[0].T
        for image in seen
    ]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(20, 20), (21, 21), (20, 31), (30, 20)]),
    st.sampled_from([(0.3, 0.5), (0.4, 1.0), (1.0, 1.0)]),
    st.sampled_from([0.0, 25.0]),
)
def test_crop_is_bilinear_sampling_at_a_similarity_of_the_pixel_grid(seed, shape, scale, rotation):
    """Two ramps reveal where every pixel was taken; SciPy samples a third channel there."""
    height, width = shape
    texture = images(3, 1, height, width, seed=seed % 1000, dtype=torch.float64)
    seen = random_resized_crop(coordinates(3, *shape, texture), generator(seed), scale=scale, rotation=rotation)
    rows, columns = np.indices(shape)
    for image, view, matrix in zip(texture[:, 0], seen, affine_maps(seen, *shape), strict=True):
        (a, b, _), (c, d, _) = matrix
        side, turn = math.hypot(a, c), math.degrees(math.atan2(c, a))
        assert np.allclose([a, c], [d, -b], atol=1e-9)  # a turn and one scale
        assert scale[0] - 1e-9 <= side**2 <= scale[1] + 1e-9
        assert abs(turn) <= rotation + 1e-9
        offset = np.array([(width - 1) / 2, (height - 1) / 2])
        x, y = np.einsum("ij,jhw->ihw", matrix, [columns - offset[0], rows - offset[1], np.ones(shape)])
        expected = ndimage.map_coordinates(image.numpy(), [y + offset[1], x + offset[0]], order=1, mode="reflect")
        np.testing.assert_allclose(view[2], expected, atol=1e-9)


def test_a_smaller_crop_shows_the_same_part_of_the_image_with_fewer_pixels():
    x = coordinates(50, 24, 16)
    options = {"scale": (0.3, 0.9), "rotation": 20.0}
    whole, small = (random_resized_crop(x, generator(), size=size, **options) for size in (None, 12))
    assert small.shape == (50, *x.shape[1:2], 12, 8)
    middle = (..., slice(4, 8), slice(3, 5))  # nothing is reflected there
    torch.testing.assert_close(small[middle], nn.functional.avg_pool2d(whole, 2)[middle])


def test_a_crop_without_turn_lies_inside_the_image_and_reaches_its_borders():
    seen = random_resized_crop(coordinates(400, 20, 20), generator(), scale=(0.25, 0.25))
    shifts = np.stack([matrix[:, 2] for matrix in affine_maps(seen, 20, 20)])
    assert np.abs(shifts).max() <= 5 + 1e-9  # half of what is cut off
    for shift in shifts.T:
        assert stats.kstest(shift, stats.uniform(-5, 10).cdf).pvalue > 0.001
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.15


def test_area_and_turn_are_uniform_and_drawn_apart():
    seen = random_resized_crop(coordinates(500, 16, 16), generator(), scale=(0.3, 0.9), rotation=40)
    matrices = np.stack(affine_maps(seen, 16, 16))
    area = np.linalg.det(matrices[:, :, :2])
    turn = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert stats.kstest(area, stats.uniform(0.3, 0.6).cdf).pvalue > 0.001
    assert stats.kstest(turn, stats.uniform(-40, 80).cdf).pvalue > 0.001
    assert abs(np.corrcoef(area, turn)[0, 1]) < 0.15
    assert abs(np.corrcoef(turn[:-1], turn[1:])[0, 1]) < 0.15


def test_an_area_above_1_shows_the_whole_image_with_its_reflection_around_it():
    x = coordinates(4, 16, 16)
    seen = random_resized_crop(x, generator(), scale=(2.25, 2.25))
    for matrix in affine_maps(seen, 16, 16):
        np.testing.assert_allclose(matrix, [[1.5, 0, 0], [0, 1.5, 0]], atol=1e-9)
    torch.testing.assert_close(seen[:, 0], seen[:, 0].flip(2).mul(-1) + 15 / 100)
    assert seen.min() >= 0
    assert seen.max() <= 15 / 100


# --- colours and noise


def test_jitter_stretches_each_image_about_its_own_mean_and_shifts_it():
    x = 0.5 + 0.1 * (images(500, dtype=torch.float64) - 0.5)
    seen = jitter(x, generator(), strength=0.4)
    factors, shifts = [], []
    for image, view in zip(x, seen, strict=True):
        factor, constant = np.polyfit(image.flatten(), view.flatten(), 1)
        np.testing.assert_allclose(view, factor * image + constant, atol=1e-9)
        factors.append(factor)
        shifts.append((view.mean() - image.mean()).item())
    assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 0.001
    assert stats.kstest(shifts, stats.uniform(-0.2, 0.4).cdf).pvalue > 0.001
    assert abs(np.corrcoef(factors, shifts)[0, 1]) < 0.15


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.05, 2))
def test_jitter_cuts_off_at_black_and_white(seed, strength):
    """Twice the same draws: a pale copy of the images shows factor and shift, from which a loop computes the rest."""
    x = images(4, seed=seed % 1000, dtype=torch.float64)
    pale = jitter(0.5 + 1e-9 * (x - 0.5), generator(seed), strength=strength)
    seen = jitter(x, generator(seed), strength=strength)
    for image, faint, view in zip(x, pale, seen, strict=True):
        shift = faint.mean().item() - 0.5
        if not -0.49 < shift < 0.49:
            continue  # the pale copy itself is cut off
        factor = ((faint - faint.mean()) / (1e-9 * (image - image.mean()))).median().item()
        expected = np.clip((factor * (image - image.mean()) + image.mean() + shift).numpy(), 0, 1)
        np.testing.assert_allclose(view, expected, atol=1e-5)


def mixing_matrices(seen, channels):
    """Views of images whose pixel k is pure in channel k: the matrix stands in the pixels."""
    return seen.reshape(len(seen), channels, channels)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_mixing_blends_the_identity_with_weights_that_sum_to_one(channels, strength):
    pure = torch.eye(channels, dtype=torch.float64).view(1, channels, 1, channels).expand(300, -1, -1, -1)
    matrices = mixing_matrices(mix_channels(pure, generator(), strength=strength), channels)
    torch.testing.assert_close(matrices.sum(2), torch.ones(300, channels, dtype=torch.float64))
    random_part = (matrices - (1 - strength) * torch.eye(channels, dtype=torch.float64)) / strength
    assert random_part.min() >= 0
    expected = torch.full((channels, channels), 1 / channels, dtype=torch.float64)
    torch.testing.assert_close(random_part.mean(0), expected, atol=0.05, rtol=0)
    assert random_part.std(0).min() > 0.1


def test_mixing_applies_one_matrix_to_every_pixel_of_an_image():
    x = images(5, dtype=torch.float64)
    pure = torch.eye(3, dtype=torch.float64).view(1, 3, 1, 3).expand(5, -1, -1, -1)
    matrices = mixing_matrices(mix_channels(pure, generator(7), strength=0.6), 3)
    seen = mix_channels(x, generator(7), strength=0.6)
    for image, view, matrix in zip(x, seen, matrices, strict=True):
        for row in range(12):
            for column in range(12):
                np.testing.assert_allclose(view[:, row, column], matrix @ image[:, row, column], atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_mixing_keeps_grey_images_and_images_of_one_channel(seed, strength):
    grey = images(3, 1, dtype=torch.float64, seed=seed % 1000)
    mixed = mix_channels(grey.expand(-1, 3, -1, -1), generator(seed), strength=strength)
    torch.testing.assert_close(mixed, grey.expand(-1, 3, -1, -1))
    assert torch.equal(mix_channels(grey, generator(seed), strength=strength), grey)


def test_inversion_and_flip_take_whole_images_with_their_probability_independently():
    x = images(2000, 1, 3, 4)
    for view, other in ((random_invert, 1 - x), (random_flip, torch.from_numpy(x.numpy()[..., ::-1].copy()))):
        for probability in (0.0, 0.2, 0.5, 1.0):
            seen = view(x, generator(), probability=probability)
            same, changed = ((seen == image).flatten(1).all(1) for image in (x, other))
            assert (same ^ changed).all()
            assert stats.binomtest(changed.sum().item(), 2000, probability).pvalue > 0.001
            if 0 < probability < 1:
                pairs = stats.contingency.crosstab(changed[:-1].numpy(), changed[1:].numpy()).count
                assert stats.chi2_contingency(pairs).pvalue > 0.001


def test_noise_is_gaussian_and_its_strength_is_drawn_uniformly_for_each_image():
    x = torch.full((300, 2, 32, 32), 0.5, dtype=torch.float64)
    noise = (gaussian_noise(x, generator(), strength=0.08) - x).flatten(1).numpy()
    spread = noise.std(1)
    assert stats.kstest(spread, stats.uniform(0, 0.08).cdf).pvalue > 0.001
    normalised = noise / spread[:, None]
    assert stats.kstest(normalised[:20].ravel(), "norm").pvalue > 0.001
    assert abs(stats.kurtosis(normalised.ravel())) < 0.02
    assert abs(np.corrcoef(normalised[0], normalised[1])[0, 1]) < 0.1
    assert abs(np.corrcoef(normalised[:, :1024].ravel(), normalised[:, 1024:].ravel())[0, 1]) < 0.01


def test_noise_is_cut_off_at_black_and_white():
    x = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(-1, -1, 30, 30)
    seen = gaussian_noise(x, generator(), strength=0.5)
    assert seen.min() == 0
    assert seen.max() == 1
    assert (seen[0] == 0).float().mean() == pytest.approx(0.5, abs=0.06)


# --- augment


def test_augment_is_its_parts_in_order():
    x = images()
    seen = augment(
        x, generator(), crop=(0.3, 0.8), rotation=12, brightness=0.3, noise=0.2, mixing=0.7, invert=0.4, flip=0.6
    )
    rng = generator()
    expected = random_resized_crop(x, rng, scale=(0.3, 0.8), rotation=12)
    expected = mix_channels(jitter(expected, rng, strength=0.3), rng, strength=0.7)
    expected = random_flip(random_invert(expected, rng, probability=0.4), rng, probability=0.6)
    assert torch.equal(seen, gaussian_noise(expected, rng, strength=0.2))


@pytest.mark.parametrize(
    ("alone", "part"),
    [
        ({"crop": (0.3, 0.8)}, functools.partial(random_resized_crop, scale=(0.3, 0.8))),
        ({"rotation": 20}, functools.partial(random_resized_crop, scale=(1, 1), rotation=20)),
        ({"brightness": 0.3}, functools.partial(jitter, strength=0.3)),
        ({"mixing": 0.6}, functools.partial(mix_channels, strength=0.6)),
        ({"invert": 0.5}, random_invert),
        ({"flip": 0.5}, random_flip),
        ({"noise": 0.2}, functools.partial(gaussian_noise, strength=0.2)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_part_of_augment_left_alone_gets_the_generator_untouched(alone, part):
    off = {"crop": (1, 1), "rotation": 0, "brightness": 0, "noise": 0, "mixing": 0}
    assert torch.equal(augment(images(), generator(), **{**off, **alone}), part(images(), generator()))


# --- quarter turns


@pytest.mark.parametrize(("n", "channels", "side"), [(1, 1, 2), (3, 2, 5), (4, 3, 8)])
def test_quarter_turns_are_numpys_counter_clockwise(n, channels, side):
    x = images(n, channels, side, side)
    turned, turns = rotate_four_ways(x)
    assert turned.shape == (4 * n, channels, side, side)
    assert turns.dtype == torch.int64
    assert turns.bincount().tolist() == [n] * 4
    for i, (image, k) in enumerate(zip(turned, turns, strict=True)):
        np.testing.assert_array_equal(image, np.rot90(x[i % n].numpy(), k.item(), (1, 2)))


def test_a_mark_at_the_right_goes_up_with_a_quarter_turn():
    x = torch.zeros(1, 1, 3, 3)
    x[0, 0, 1, 2] = 1
    turned, turns = rotate_four_ways(x)
    assert turned[turns == 1][0, 0].nonzero().tolist() == [[0, 1]]


# --- masks


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(1, 4, 4), (2, 8, 4), (7, 28, 28), (4, 28, 12), (3, 3, 6)]),
    st.floats(0.001, 0.999),
)
def test_a_mask_hides_the_same_number_of_whole_patches_and_nothing_else(seed, grid, ratio):
    patch, height, width = grid
    x = images(5, 2, height, width, seed=seed % 1000)
    masked, mask = mask_patches(x, generator(seed), patch=patch, ratio=ratio, fill=-1.0)
    assert mask.shape == (5, 1, height, width)
    assert mask.dtype == torch.bool
    count = (height // patch) * (width // patch)
    wanted = min(max(round(ratio * count), 1), count - 1)
    for image, hidden, seen in zip(x, mask[:, 0], masked, strict=True):
        blocks = [hidden[r : r + patch, c : c + patch] for r in range(0, height, patch) for c in range(0, width, patch)]
        assert all(block.all() or not block.any() for block in blocks)
        assert sum(bool(block.all()) for block in blocks) == wanted
        assert (seen[:, hidden] == -1).all()
        assert torch.equal(seen[:, ~hidden], image[:, ~hidden])


def test_hidden_patches_can_take_the_mean_of_what_each_image_and_channel_shows():
    x = images(3, 2, 8, 8)
    masked, mask = mask_patches(x, generator(), patch=4, ratio=0.25, fill="mean")
    for image, hidden, seen in zip(x, mask[:, 0], masked, strict=True):
        for channel, shown in zip(image, seen, strict=True):
            assert shown[hidden].unique().item() == pytest.approx(channel[~hidden].mean().item(), rel=1e-5)
            assert torch.equal(shown[~hidden], channel[~hidden])


def test_hidden_patches_are_uniform_over_positions_and_pairs():
    _, mask = mask_patches(torch.zeros(3000, 1, 4, 6), generator(), patch=2, ratio=1 / 3)
    patches = mask[:, 0, ::2, ::2].flatten(1)
    assert (patches.sum(1) == 2).all()
    pairs = [tuple(row.nonzero().flatten().tolist()) for row in patches]
    _, counts = np.unique([a * 6 + b for a, b in pairs], return_counts=True)
    assert len(counts) == 15
    assert stats.chisquare(counts).pvalue > 0.001
    assert stats.chisquare(patches.sum(0)).pvalue > 0.001


def test_the_default_mask_is_half_of_a_four_by_four_grid_in_black():
    masked, mask = mask_patches(torch.ones(3, 1, 28, 28), generator())
    assert mask[:, :, ::7, ::7].sum((1, 2, 3)).tolist() == [8, 8, 8]
    assert torch.equal(masked, 1 - mask.float())


# --- patches and tiles


def corners(patches):
    """Where patches of `coordinates` were cut: top and left, (N, T) each; and that they are cut, not resampled."""
    columns, rows = (100 * patches[:, :, channel] for channel in (0, 1))
    top, left = rows[:, :, :1, :1], columns[:, :, :1, :1]
    torch.testing.assert_close(rows, top + torch.arange(patches.shape[3]).view(-1, 1).expand_as(rows))
    torch.testing.assert_close(columns, left + torch.arange(patches.shape[4]).expand_as(columns))
    return top.flatten(1).round().long(), left.flatten(1).round().long()


@pytest.mark.parametrize(
    ("shape", "patch", "gap", "jitter", "grid"),
    [
        ((28, 28), 7, 3, 1, 3),
        ((28, 28), 8, 1, 1, 3),
        ((30, 41), 6, 2, 2, 3),
        ((12, 12), 6, 0, 0, 2),
        ((9, 9), 9, 1, 0, 1),
    ],
)
def test_patches_are_cut_row_by_row_with_gaps_from_a_grid_that_fits(shape, patch, gap, jitter, grid):
    patches = patch_grid(coordinates(400, *shape), generator(), patch=patch, gap=gap, jitter=jitter, grid=grid)
    assert patches.shape == (400, grid**2, 2, patch, patch)
    places = [corner.view(-1, grid, grid) for corner in corners(patches)]
    for axis, corner in enumerate(places):
        assert corner.min() >= 0
        assert corner.max() + patch <= shape[axis]
        apart = corner.diff(dim=1 + axis) - patch
        if grid > 1:
            assert (apart.min(), apart.max()) == (gap - jitter, gap + jitter)  # both ends are met in 400 draws
        own = corner - corner.amin((1, 2), keepdim=True)
        expected = (patch + gap) * torch.arange(grid).view((-1, 1) if axis == 0 else (1, -1))
        assert (own - expected).abs().max() <= jitter


def test_the_grid_and_each_patch_lie_uniformly_and_apart_from_each_other():
    top, left = corners(patch_grid(coordinates(3000, 16, 16), generator(), patch=3, gap=2, jitter=2, grid=2))
    moved = torch.stack([top - torch.tensor([0, 0, 5, 5]), left - torch.tensor([0, 5, 0, 5])])  # (2, 3000, 4)
    origins = 16 - (2 * 3 + 2 + 2) + 1  # 7 places of the grid, 3 of a patch: their sum has 9 values
    expected = np.convolve(np.ones(origins) / origins, np.ones(3) / 3)
    for places in (moved[0, :, 0], moved[1, :, 3]):
        assert stats.chisquare(places.bincount(minlength=9), 3000 * expected).pvalue > 0.001
    relative = (moved - moved[:, :, :1])[:, :, 1:].flatten(0, 1).double()  # each patch beside the first
    assert np.abs(np.corrcoef(moved[0].T)).min() > 0.5  # they share their grid
    assert abs(np.corrcoef(moved[0, :, 0], moved[1, :, 0])[0, 1]) < 0.08
    assert relative.abs().max() == 2


def test_patches_follow_from_the_generator_and_each_image_has_its_own():
    x = coordinates(50, 20, 20)
    first = patch_grid(x, generator(3), patch=4, gap=2, jitter=2)
    assert torch.equal(patch_grid(x, generator(3), patch=4, gap=2, jitter=2), first)
    assert not torch.equal(patch_grid(x, generator(4), patch=4, gap=2, jitter=2), first)
    assert len(first.flatten(1).unique(dim=0)) == 50


def test_patches_of_equal_statistics_show_what_they_showed():
    x = images(4, 2, 20, 20, dtype=torch.float64) ** 2
    patches = patch_grid(x, generator(), patch=5, gap=2, jitter=1)
    before = patches.clone()
    equal, level = equalise_patches(patches, x), equalise_patches(patches, x, deviation=False)
    assert torch.equal(patches, before)
    for n in range(4):
        for t in range(9):
            for c in range(2):
                own, image = patches[n, t, c].numpy(), x[n, c].numpy()
                expected = (own - own.mean()) / own.std() * image.std() + image.mean()
                np.testing.assert_allclose(equal[n, t, c], expected, atol=1e-9)
                np.testing.assert_allclose(level[n, t, c], own - own.mean() + image.mean(), atol=1e-9)


def test_a_patch_without_contrast_stays_flat():
    x = torch.zeros(1, 1, 6, 6)
    x[..., 3:] = 1
    flat = equalise_patches(x[:, None, :, :3, :3], x)
    torch.testing.assert_close(flat, torch.full((1, 1, 1, 3, 3), 0.5))


# --- orders of tiles


def test_the_set_of_orders_is_the_greedy_one_found_by_looking_at_every_candidate():
    """Algorithm 1 of Noroozi and Favaro with the ties as described, over lists, for 4 tiles."""
    every = list(itertools.permutations(range(4)))
    chosen = [every[0]]
    while len(chosen) < 24:
        candidates = [order for order in every if order not in chosen]
        distances = [
            [sum(a != b for a, b in zip(order, other, strict=True)) for other in chosen] for order in candidates
        ]
        chosen.append(candidates[max(range(len(candidates)), key=lambda i: (sum(distances[i]), min(distances[i]), -i))])
    assert permutation_set(24, tiles=4).tolist() == [list(order) for order in chosen]
    assert permutation_set(7, tiles=4).tolist() == [list(order) for order in chosen[:7]]


def test_nine_orders_of_nine_tiles_agree_nowhere_and_sixty_four_hardly_anywhere():
    orders = permutation_set(64)
    assert orders.dtype == torch.int64
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(64, 9))
    distance = (orders[:, None] != orders).sum(2)
    off = ~torch.eye(64, dtype=torch.bool)
    assert (distance[:9, :9][off[:9, :9]] == 9).all()
    rng = np.random.default_rng(0)
    chance = np.stack([rng.permutation(9) for _ in range(64)])
    by_chance = (chance[:, None] != chance).sum(2)
    assert distance[off].double().mean() > by_chance[off.numpy()].mean() + 0.1
    assert distance[off].min() > by_chance[off.numpy()].min()


# --- colours


def test_luminance_and_chroma_are_those_of_every_pixel_and_lose_nothing():
    x = images(dtype=torch.float64)
    y, c = luminance(x), chroma(x)
    for (red, green, blue), grey, (cb, cr) in zip(
        x.permute(0, 2, 3, 1).reshape(-1, 3).tolist(),
        y.flatten().tolist(),
        c.permute(0, 2, 3, 1).reshape(-1, 2).tolist(),
        strict=True,
    ):
        assert grey == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue)
        assert cb == pytest.approx(0.5 * blue - 0.168736 * red - 0.331264 * green, abs=1e-6)  # the standard's matrix
        assert cr == pytest.approx(0.5 * red - 0.418688 * green - 0.081312 * blue, abs=1e-6)
    torch.testing.assert_close(with_chroma(y, c), x)


def test_greys_have_no_chroma_and_are_their_own_luminance():
    grey = images(2, 1)
    torch.testing.assert_close(luminance(grey.expand(-1, 3, -1, -1)), grey)
    torch.testing.assert_close(chroma(grey.expand(-1, 3, -1, -1)), torch.zeros(2, 2, 12, 12), atol=1e-6, rtol=0)
    assert luminance(grey) is grey
    with pytest.raises(ValueError, match=r"1 or 3 channels, got images of shape \(2, 2, 12, 12\)"):
        luminance(images(2, 2))


def test_colours_that_do_not_exist_are_cut_off():
    seen = with_chroma(torch.ones(1, 1, 1, 1), torch.full((1, 2, 1, 1), 0.4))
    assert seen[0, :, 0, 0].tolist() == pytest.approx([1, 1 - (0.114 * 1.772 + 0.299 * 1.402) * 0.4 / 0.587, 1])


def test_one_channel_is_kept_and_the_others_tell_nothing_but_its_mean():
    x = images(900, 3, 16, 16, dtype=torch.float64) * torch.tensor([0.3, 0.6, 1.0]).double().view(3, 1, 1)
    seen = drop_channels(x, generator())
    same = (seen == x).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    assert stats.chisquare(same.sum(0)).pvalue > 0.001
    for image, view, kept in zip(x, seen, same, strict=True):
        channel = image[kept][0]
        noise = (view[~kept] - channel.mean()) / channel.std()
        assert noise.abs().max() < 0.06
        assert 0.007 < noise.std() < 0.013


# --- resolution


@pytest.mark.parametrize(("shape", "factor"), [((12, 12), 4), ((13, 10), 3), ((28, 28), 4), ((8, 8), 8)])
def test_low_resolution_is_the_enlarged_mean_over_squares_at_some_phase(shape, factor):
    x = images(3, 2, *shape, dtype=torch.float64)
    for image, view in zip(x, low_resolution(x, generator(), factor=factor), strict=True):
        found = []
        for top, left in itertools.product(range(factor), repeat=2):  # coarse pixels begin at −top and −left
            rows = [np.clip(np.arange(factor) + factor * i - top, 0, shape[0] - 1) for i in range(-1, 40)]
            columns = [np.clip(np.arange(factor) + factor * i - left, 0, shape[1] - 1) for i in range(-1, 40)]
            deep, wide = (-(-(length + factor - 1) // factor) for length in shape)
            coarse = np.array(
                [[image.numpy()[:, r][:, :, c].mean((1, 2)) for c in columns[1 : wide + 1]] for r in rows[1 : deep + 1]]
            )  # (deep, wide, C)
            fine = nn.functional.interpolate(
                torch.tensor(coarse).permute(2, 0, 1)[None], scale_factor=factor, mode="bicubic", align_corners=False
            )[0]
            expected = fine[:, top : top + shape[0], left : left + shape[1]].clamp(0, 1)
            found.append(torch.allclose(expected, view, atol=1e-9))
        assert sum(found) >= 1


def test_low_resolution_keeps_flat_images_and_forgets_fine_patterns():
    flat = torch.full((2, 1, 12, 12), 0.3)
    torch.testing.assert_close(low_resolution(flat, generator(), factor=4), flat)
    stripes = torch.zeros(20, 1, 16, 16)
    stripes[..., ::2] = 1
    seen = low_resolution(stripes, generator(), factor=4)[..., 4:12]
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5), atol=0.1, rtol=0)


def test_the_coarse_grid_has_every_phase_equally_often():
    x = torch.zeros(1600, 1, 17, 17)
    x[..., 8, 8] = 1  # lights up one coarse pixel, whose place tells the phase
    brightest = low_resolution(x, generator(), factor=4).flatten(1) > 0.055
    centres = torch.stack([torch.stack(torch.where(one.view(17, 17))).float().mean(1) for one in brightest])
    _, counts = np.unique(centres.numpy().round(1), axis=0, return_counts=True)
    assert len(counts) == 16
    assert stats.chisquare(counts).pvalue > 0.001


# --- refusals


ALL = VIEWS | {
    "rotate_four_ways": lambda x, rng: rotate_four_ways(x),
    "patch_grid": patch_grid,
    "equalise_patches": lambda x, rng: equalise_patches(torch.rand(2, 9, 1, 3, 3), x),
    "luminance": lambda x, rng: luminance(x),
    "chroma": lambda x, rng: chroma(x),
}


@pytest.mark.parametrize("view", ALL.values(), ids=ALL)
@pytest.mark.parametrize(
    ("x", "error", "named"),
    [
        (torch.rand(3, 8, 8), ValueError, r"\(N, C, H, W\), got torch.float32 \(3, 8, 8\)"),
        (torch.rand(2, 1, 3, 8, 8), ValueError, r"\(2, 1, 3, 8, 8\)"),
        (torch.ones(2, 1, 8, 8).byte(), ValueError, r"floating point.*uint8 \(2, 1, 8, 8\)"),
        (torch.ones(2, 1, 8, 8, dtype=torch.int64), ValueError, "floating point.*int64"),
        (np.ones((2, 1, 8, 8)), TypeError, "torch tensor.*ndarray"),
        (None, TypeError, "torch tensor.*NoneType"),
    ],
)
def test_every_view_names_the_images_it_cannot_take(view, x, error, named):
    with pytest.raises(error, match=named):
        view(x, generator())


X = torch.rand(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("view", "options", "named"),
    [
        (random_resized_crop, {"size": 0}, "size must be a whole number of pixels, at least 1, got 0"),
        (random_resized_crop, {"size": 9.5}, "got 9.5"),
        (random_resized_crop, {"scale": (0, 1)}, r"0 < least <= greatest.*\(0, 1\)"),
        (random_resized_crop, {"scale": (0.8, 0.4)}, r"least <= greatest.*\(0\.8, 0\.4\)"),
        (random_resized_crop, {"scale": (math.nan, 1)}, "nan"),
        (random_resized_crop, {"rotation": -5}, "rotation must not be negative, got -5"),
        (jitter, {"strength": -0.1}, r"strength must not be negative, got -0\.1"),
        (jitter, {"strength": math.nan}, "strength.*nan"),
        (mix_channels, {"strength": 1.5}, r"strength must lie between 0 and 1, got 1\.5"),
        (mix_channels, {"strength": -0.5}, r"strength.*-0\.5"),
        (random_invert, {"probability": 1.1}, r"probability must lie between 0 and 1, got 1\.1"),
        (random_flip, {"probability": -0.1}, r"probability.*-0\.1"),
        (gaussian_noise, {"strength": -1}, "strength must not be negative, got -1"),
        (augment, {"crop": (2, 1)}, r"scale.*\(2, 1\)"),
        (augment, {"invert": 2}, "probability.*2"),
        (patch_grid, {"patch": 2, "gap": 1, "jitter": 2}, "patches overlap, got jitter 2 and gap 1"),
        (patch_grid, {"patch": 3, "gap": 1, "jitter": 0}, "gap 1 and jitter 0 need 11 pixels, the images have 8×8"),
        (patch_grid, {"patch": 0}, "patch must be a whole number, at least 1, got 0"),
        (patch_grid, {"patch": 2, "gap": -1}, "gap must be a whole number, at least 0, got -1"),
        (patch_grid, {"patch": 2, "jitter": 0.5}, r"jitter must be a whole number, at least 0, got 0\.5"),
        (patch_grid, {"patch": 2, "grid": 0}, "grid must be a whole number, at least 1, got 0"),
        (low_resolution, {"factor": 0}, "factor must be a whole number, at least 1, got 0"),
        (low_resolution, {"factor": 2.5}, r"factor.*got 2\.5"),
        (low_resolution, {"factor": 9}, "factor must not exceed the image's 8×8 pixels, got 9"),
        (mask_patches, {"patch": 3}, "divides the image's 8×8 pixels, got 3"),
        (mask_patches, {"patch": 0}, "patch.*got 0"),
        (mask_patches, {"patch": -4}, "patch.*got -4"),
        (mask_patches, {"patch": 4.0}, r"patch must be a whole number.*got 4\.0"),
        (mask_patches, {"patch": 8}, r"at least 2 patches, got 0\.5 of 1"),
        (mask_patches, {"patch": 4, "fill": "black"}, "fill must be a number or 'mean', got 'black'"),
        (mask_patches, {"patch": 4, "ratio": 0.0}, r"ratio must lie between 0 and 1.*0\.0 of 4"),
        (mask_patches, {"patch": 4, "ratio": 1.0}, r"ratio.*1\.0 of 4"),
        (mask_patches, {"patch": 4, "ratio": math.nan}, "ratio.*nan"),
    ],
)
def test_views_say_which_argument_is_out_of_range(view, options, named):
    with pytest.raises(ValueError, match=named):
        view(X, generator(), **options)


def test_patches_must_divide_both_sides():
    for shape in ((8, 10), (10, 8)):
        with pytest.raises(ValueError, match=f"{shape[0]}×{shape[1]} pixels, got 4"):
            mask_patches(torch.rand(1, 1, *shape), generator(), patch=4)


def test_quarter_turns_need_square_images():
    with pytest.raises(ValueError, match="square images, got 8×6: crop"):
        rotate_four_ways(torch.rand(2, 1, 8, 6))


@pytest.mark.parametrize(
    ("count", "tiles", "named"),
    [
        (1, 9, "count must be a whole number, at least 2, got 1"),
        (7, 3, "got 7 orders of 3 tiles"),
        (5, 10, "up to 9 tiles, got 5 orders of 10 tiles"),
        (2, 1, "tiles must be a whole number, at least 2, got 1"),
    ],
)
def test_orders_that_there_are_not_are_refused(count, tiles, named):
    with pytest.raises(ValueError, match=named):
        permutation_set(count, tiles=tiles)


def test_patches_and_images_must_belong_together():
    for shape in ((3, 9, 3, 4, 4), (2, 9, 1, 4, 4), (2, 3, 4, 4)):
        with pytest.raises(ValueError, match=r"patches must have shape \(2, T, 3, h, w\)"):
            equalise_patches(torch.rand(shape), X)


def test_a_set_of_orders_may_be_changed_by_whoever_asked_for_it():
    permutation_set(3, tiles=3).zero_()
    assert permutation_set(3, tiles=3).tolist() == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
