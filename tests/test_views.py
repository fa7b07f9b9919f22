"""Views against loops over single images, against what the pixels themselves reveal, as pure functions of a seed."""

import functools
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
    gaussian_noise,
    jitter,
    mask_patches,
    mix_channels,
    random_flip,
    random_invert,
    random_resized_crop,
    rotate_four_ways,
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


@pytest.mark.parametrize("name", [name for name in VIEWS if name not in ("invert", "flip", "mask")])
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


# --- refusals


ALL = {**VIEWS, "rotate_four_ways": lambda x, rng: rotate_four_ways(x)}


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
        (mask_patches, {"patch": 3}, "divides the image's 8×8 pixels, got 3"),
        (mask_patches, {"patch": 0}, "patch.*got 0"),
        (mask_patches, {"patch": -4}, "patch.*got -4"),
        (mask_patches, {"patch": 4.0}, r"patch must be a whole number.*got 4\.0"),
        (mask_patches, {"patch": 8}, r"at least 2 patches, got 0\.5 of 1"),
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
