"""Moving Glyphs: every frame is an image of Glyphs, the factors say what moves, and motion turns back at its walls."""

import hashlib
import random

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from course_utils.data import load
from course_utils.data.glyphs import DIFFICULTIES, Difficulty, glyphs
from course_utils.data.moving_glyphs import MOTIONS, _wander, moving_glyphs

STILL = Difficulty(angle=0, scale=(1, 1), shift=0, contrast=(1, 1), texture=0, noise=0)  # white ink on black, as drawn


def draw(n=60, *, n_validation=1, n_test=1, **options):
    return moving_glyphs(n_train=n, n_validation=n_validation, n_test=n_test, **options)


@pytest.fixture
def drawn(monkeypatch):
    """A function: the training part of n clips whose factors range as said, everything else held still."""

    def make(n=60, *, ranges=None, **options):
        monkeypatch.setitem(DIFFICULTIES, "custom", Difficulty(**{**vars(STILL), **(ranges or {})}))
        return draw(n, difficulty="custom", **options).train

    return make


def digest(split):
    columns = [split.x, *(split.factors[name] for name in sorted(split.factors))]
    return hashlib.sha256(b"".join(column.numpy().tobytes() for column in columns)).hexdigest()


# --- the seed


@pytest.mark.parametrize("options", [{}, {"colour": True, "count": 2, "frames": 3, "size": 20, "difficulty": "hard"}])
def test_the_seed_decides_every_frame_and_every_factor(options):
    first, again, other = (draw(20, n_validation=10, n_test=10, seed=seed, **options) for seed in (4, 4, 5))
    for part in ("train", "validation", "test"):
        assert digest(getattr(first, part)) == digest(getattr(again, part))
        assert digest(getattr(first, part)) != digest(getattr(other, part))
    assert digest(first.train[:10]) != digest(first.test)


def test_drawing_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = digest(draw(10).train)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    torch.manual_seed(1)
    assert digest(draw(10).train) == first


# --- shapes, and what the catalogue does with clips


@pytest.mark.parametrize(("colour", "channels"), [(False, 1), (True, 3)])
def test_clips_are_float32_from_0_to_1_with_factors_for_every_frame(colour, channels):
    splits = draw(7, n_validation=5, n_test=3, frames=4, size=20, colour=colour)
    for part, n in ((splits.train, 7), (splits.validation, 5), (splits.test, 3)):
        assert part.x.shape == (n, 4, channels, 20, 20)
        assert part.x.dtype == torch.float32
        assert 0 <= part.x.min() < part.x.max() <= 1
        assert part.y.dtype == torch.int64
        assert torch.equal(part.y, part.factors["letter"])
        once = {"letter", "face", "contrast"} | ({"hue"} if colour else set())
        assert set(part.factors) == once | set(MOTIONS) | set(MOTIONS.values())
        assert all(value.shape == ((n,) if name in once else (n, 4)) for name, value in part.factors.items())
    assert len(splits.class_names) == 26


def test_two_letters_have_two_of_every_factor_and_no_label():
    splits = draw(9, count=2, frames=3)
    assert splits.train.x.shape == (9, 3, 1, 28, 28)
    assert splits.train.y is None
    assert splits.class_names == ()
    assert splits.train.factors["letter"].shape == (9, 2)
    assert splits.train.factors["vx"].shape == (9, 2, 3)
    assert splits.train.factors["contrast"].shape == (9,)


def test_clips_are_split_taken_indexed_and_printed_like_images():
    splits = load("moving_glyphs", seed=1, n_train=60, n_validation=9, n_test=5, frames=3)
    assert str(splits) == "moving_glyphs (generated): 60 / 9 / 5 train / validation / test of 3×1×28×28, 26 classes"
    part = splits.train.take(26, seed=0)
    assert part.x.shape == (26, 3, 1, 28, 28)
    assert part.factors["x"].shape == (26, 3)
    assert torch.equal(splits.train[5:7].factors["spin"], splits.train.factors["spin"][5:7])
    assert splits.card.kind == "generated"


# --- a frame on its own


def test_every_frame_has_the_factors_of_glyphs():
    clips, images = draw(1500, size=16, speed=0.4).train, glyphs(seed=9, n_train=1500, size=16).train
    for name in MOTIONS:
        for frame in (0, 3, 5):
            assert stats.ks_2samp(clips.factors[name][:, frame], images.factors[name]).pvalue > 0.001, (name, frame)
    values = [clips.factors["contrast"], *(clips.factors[name][:, 4] for name in MOTIONS)]
    assert np.abs(np.corrcoef(torch.stack(values)) - np.eye(5)).max() < 0.12


def test_every_frame_has_the_brightness_the_contrast_and_the_noise_of_glyphs():
    clips, images = draw(600, seed=3).train.x[:, 4], glyphs(seed=9, n_train=600).train.x
    for measure in (lambda x: x.mean((1, 2, 3)), lambda x: x.std((1, 2, 3)), lambda x: x.diff(dim=3).std((1, 2, 3))):
        assert stats.ks_2samp(measure(clips), measure(images)).pvalue > 0.001


def test_a_clip_that_stands_still_shows_one_image_under_new_noise(drawn):
    split = drawn(20, speed=0, ranges={"angle": 30, "shift": 0.1, "contrast": (0.4, 0.6), "texture": 0.05})
    assert torch.equal(split.x, split.x[:, :1].expand_as(split.x))
    assert split.x[0, 0].unique().numel() > 100  # the texture
    noise = drawn(20, speed=0, ranges={"contrast": (0.3, 0.3), "noise": 0.02}).x
    change = (noise[:, 1:] - noise[:, :-1])[(noise[:, 1:] > 0.1) & (noise[:, 1:] < 0.9)]
    assert change.std().item() == pytest.approx(0.02 * 2**0.5, rel=0.05)


# --- motion


@pytest.mark.parametrize("wander", [0.0, 0.5])
def test_places_stay_in_their_range_are_uniform_at_all_times_and_differ_by_the_velocity(wander):
    rng = torch.Generator().manual_seed(0)
    place, velocity = _wander((4000, 30), -2.0, 6.0, 0.3, wander, rng)
    assert place.shape == velocity.shape == (4000, 30)
    assert place.min() >= -2
    assert place.max() <= 6
    for frame in (0, 1, 7, 29):
        assert stats.kstest(place[:, frame].numpy(), stats.uniform(-2, 8).cdf).pvalue > 0.001
    after = place[:, :-1] + velocity[:, :-1]
    straight = (after >= -2) & (after <= 6)
    torch.testing.assert_close(place[:, 1:][straight], after[straight], atol=1e-4, rtol=0)
    low = after < -2  # turned back at the lower wall: as far above it as it would have been below
    turned = low & (after > -10)
    torch.testing.assert_close(place[:, 1:][turned], -4 - after[turned], atol=1e-4, rtol=0)
    assert 0.02 < low.float().mean() < 0.5


def test_velocities_start_anywhere_up_to_the_speed_and_wander_from_there():
    rng = torch.Generator().manual_seed(0)
    even = _wander((3000, 5), 0.0, 10.0, 0.2, 0.0, rng)[1].abs()
    assert stats.kstest(even[:, 0].numpy(), stats.uniform(0, 2).cdf).pvalue > 0.001
    torch.testing.assert_close(even, even[:, :1].expand_as(even))
    free = _wander((3000, 5), 0.0, 1000.0, 0.002, 0.5, rng)[1]  # walls so far off that hardly any is met
    assert free.diff(dim=1).std().item() == pytest.approx(1.0, rel=0.05)


def centroids(x):
    """Column and row of the ink's centre of mass, (N, T) each."""
    places = np.array([[ndimage.center_of_mass(frame[0].double().numpy()) for frame in clip] for clip in x])
    return places[..., 1], places[..., 0]


def test_the_letter_is_where_the_factors_say_in_every_frame(drawn):
    moved = drawn(30, letters="LTO", size=40, speed=0.3, ranges={"shift": 0.15})
    for seen, name in zip(centroids(moved.x), "xy", strict=True):
        change, said = (value - value[:, :1] for value in (seen, moved.factors[name].numpy()))
        assert np.abs(change - said).max() < 0.6
        assert np.abs(said).max() > 3


def test_the_letter_grows_as_the_factors_say(drawn):
    split = drawn(30, letters="ETX", size=48, ranges={"scale": (0.6, 1.1)})
    area = split.x.sum((2, 3, 4))
    scale = split.factors["scale"]
    torch.testing.assert_close(area / area[:, :1], (scale / scale[:, :1]) ** 2, rtol=0.12, atol=0)
    assert (scale[:, 1:] - scale[:, :-1]).abs().max() > 0.05


def test_a_frame_is_the_glyph_of_its_factors(drawn):
    """Drawn again by Glyphs' own code, one frame at a time."""
    from course_utils.data.glyphs import _masters, _place

    split = drawn(5, size=24, ranges={"angle": 40, "scale": (0.6, 1.1), "shift": 0.1})
    factors = split.factors
    for i in range(5):
        for t in range(6):
            master = _masters("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 24)[factors["letter"][i], factors["face"][i]]
            place = (factors[name][i, t].view(1) for name in ("angle", "scale", "x", "y"))
            torch.testing.assert_close(split.x[i, t], _place(master[None], *place, 24)[0], atol=1e-5, rtol=0)


def test_two_letters_lie_over_each_other_and_stay_in_the_image(drawn):
    split = drawn(80, count=2, size=40, letters="OX", speed=0.5)
    rim = torch.ones(40, 40, dtype=torch.bool)
    rim[1:-1, 1:-1] = False
    assert split.x[..., rim].max() < 0.5
    assert split.x.max() <= 1
    apart = (split.factors["x"][:, 0] - split.factors["x"][:, 1]).abs() > 15
    columns = split.x.amax((2, 3)) > 0.5  # (N, T, W)
    gaps = (columns.int().diff(dim=2) == 1).sum(2) + columns[:, :, 0].int()
    assert (gaps[apart] >= 2).all()
    assert apart.any()


# --- refusals


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"frames": 1}, "frames, at least 2, got 1"),
        ({"frames": 2.5}, r"frames, at least 2, got 2\.5"),
        ({"count": 3}, "count must be 1 or 2 letters, got 3"),
        ({"speed": -0.1}, r"speed must lie between 0 and 1.*-0\.1"),
        ({"speed": 1.5}, r"1\.5"),
        ({"colour": "angle"}, "colour must be False or True, got 'angle'"),
        ({"wander": -1}, "wander must not be negative, got 0.2 and -1"),
        ({"wander": float("nan")}, "nan"),
        ({"n": 0}, "whole number of clips, at least one, got 0"),
        ({"n_test": 1.5}, r"whole number of clips.*1\.5"),
        ({"difficulty": "extreme"}, "difficulty.*easy, normal, hard.*'extreme'"),
        ({"letters": "ABA"}, "different.*'ABA'"),
        ({"size": 15}, "size.*16.*15"),
    ],
)
def test_moving_glyphs_says_what_came_and_what_was_wanted(options, named):
    with pytest.raises(ValueError, match=named):
        draw(**{"n": 4, **options})
