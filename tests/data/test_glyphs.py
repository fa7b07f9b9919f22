"""Glyphs: what the factors say is what the pixels show, the seed decides everything, and raw pixels are not enough."""

import colorsys
import hashlib
import random
import string

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.linear_model import RidgeClassifier

from course_utils.data.glyphs import DIFFICULTIES, FACES, LETTERS, Difficulty, _masters, _place, _texture, glyphs
from course_utils.views import luminance

STILL = Difficulty(angle=0, scale=(1, 1), shift=0, contrast=(1, 1), texture=0, noise=0)  # white ink on black, as drawn


def draw(n=200, *, n_validation=1, n_test=1, **options):
    return glyphs(n_train=n, n_validation=n_validation, n_test=n_test, **options)


@pytest.fixture
def drawn(monkeypatch):
    """A function: the training part of n images whose factors range as said, everything else held still.

    With one seed every call gives the same letters, faces and places in the other factors' ranges.
    """

    def make(n=200, *, letters=LETTERS, seed=0, size=28, colour=False, **ranges):
        monkeypatch.setitem(DIFFICULTIES, "custom", Difficulty(**{**vars(STILL), **ranges}))
        return draw(n, letters=letters, seed=seed, size=size, colour=colour, difficulty="custom").train

    return make


def digest(split):
    columns = [split.x, split.y, *(split.factors[name] for name in sorted(split.factors))]
    return hashlib.sha256(b"".join(column.numpy().tobytes() for column in columns)).hexdigest()


def centroid(image):
    """Column and row of the ink's centre of mass."""
    row, column = ndimage.center_of_mass(image.double().numpy())
    return column, row


def principal_axis(image):
    """Degrees from the horizontal, counter-clockwise with rows counted upwards, in [0, 180)."""
    ink = image.double().numpy()
    rows, columns = np.indices(ink.shape)
    x, y = columns - np.average(columns, weights=ink), np.average(rows, weights=ink) - rows
    xx, yy, xy = (np.average(product, weights=ink) for product in (x * x, y * y, x * y))
    return np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) % 180


# --- the seed


@pytest.mark.parametrize("options", [{}, {"colour": True, "size": 20, "letters": "abc7", "difficulty": "hard"}])
def test_the_seed_decides_every_image_and_every_factor(options):
    first, again, other = (draw(60, n_validation=30, n_test=30, seed=seed, **options) for seed in (4, 4, 5))
    for part in ("train", "validation", "test"):
        assert digest(getattr(first, part)) == digest(getattr(again, part))
        assert digest(getattr(first, part)) != digest(getattr(other, part))


def test_no_image_is_in_two_splits_or_in_two_seeds():
    parts = [
        part
        for seed in range(-1, 4)
        for splits in [draw(40, n_validation=40, n_test=40, seed=seed)]
        for part in (splits.train, splits.validation, splits.test)
    ]
    for values in (torch.cat([part.x for part in parts]).flatten(1), torch.stack([p.factors["angle"] for p in parts])):
        assert len(values.unique(dim=0)) == len(values)


def test_the_splits_are_draws_from_one_distribution():
    splits = draw(800, n_validation=800, n_test=800)
    for name in ("angle", "scale", "x", "y", "contrast"):
        for part in (splits.validation, splits.test):
            assert stats.ks_2samp(splits.train.factors[name], part.factors[name]).pvalue > 0.001, name


def test_the_size_of_one_split_does_not_change_another():
    small, large = draw(20, n_validation=30, n_test=40), draw(50, n_validation=10, n_test=40)
    assert digest(small.test) == digest(large.test)


def test_beyond_the_4096_images_drawn_at_once_every_image_still_has_its_own_factors(drawn):
    split = drawn(4100, letters="LO", size=16, angle=40, scale=(0.6, 1.1), shift=0.1, contrast=(0.3, 0.9))
    part = split[torch.tensor([0, 1, 4095, 4096, 4099])]
    letter, face, *places = (part.factors[name] for name in ("letter", "face", "angle", "scale", "x", "y"))
    stroke = _place(_masters("LO", 16)[letter, face], *places, 16)
    ground, ink = (value.view(-1, 1, 1, 1) for value in part.x.flatten(1).aminmax(dim=1))
    contrast = part.factors["contrast"].view(-1, 1, 1, 1)
    torch.testing.assert_close((part.x - ground) / contrast, stroke, atol=1e-5, rtol=0)
    assert len(ground.unique()) == len(ink.unique()) == 5


def test_drawing_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = digest(draw(30).train)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    torch.manual_seed(1)
    assert digest(draw(30).train) == first


# --- shapes and ranges


@pytest.mark.parametrize("size", [16, 27, 28, 96])
@pytest.mark.parametrize(("colour", "channels"), [(False, 1), (True, 3), ("angle", 3)])
def test_images_are_float32_from_0_to_1_of_the_size_asked_for(size, colour, channels):
    splits = draw(7, n_validation=5, n_test=3, size=size, colour=colour, difficulty="hard")
    for part, n in ((splits.train, 7), (splits.validation, 5), (splits.test, 3)):
        assert part.x.shape == (n, channels, size, size)
        assert part.x.dtype == torch.float32
        assert part.x.min() >= 0
        assert part.x.max() <= 1
        assert part.y.dtype == part.factors["letter"].dtype == part.factors["face"].dtype == torch.int64
        assert all(value.shape == (n,) for value in part.factors.values())
    assert ("hue" in splits.train.factors) == (channels == 3)


def test_labels_are_places_in_the_letters_asked_for(drawn):
    """Position, not alphabet: the same letter in another place of the string keeps its picture, not its label."""
    splits = draw(50, letters="zA9")
    assert splits.class_names == ("z", "A", "9")
    assert splits.train.y.unique().tolist() == [0, 1, 2]
    assert torch.equal(splits.train.y, splits.train.factors["letter"])
    assert torch.equal(_masters("zA9", 20), _masters("9zA", 20)[[1, 2, 0]])
    ink = drawn(200, letters="Il").x.sum((1, 2, 3)), drawn(200, letters="MW").x.sum((1, 2, 3))
    assert ink[0].mean() < ink[1].mean() / 2


def test_letters_and_faces_are_uniform_and_independent():
    split = draw(4000, size=16).train
    letter, face = split.factors["letter"], split.factors["face"]
    assert stats.chisquare(letter.bincount(minlength=26)).pvalue > 0.001
    assert stats.chisquare(face.bincount(minlength=19)).pvalue > 0.001
    table = (face * 26 + letter).bincount(minlength=26 * 19).view(19, 26)
    assert stats.chi2_contingency(table.numpy()).pvalue > 0.001


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_factors_fill_the_ranges_of_their_difficulty_uniformly(difficulty):
    ranges, size = DIFFICULTIES[difficulty], 20
    factors = draw(1500, difficulty=difficulty, size=size).train.factors
    shift = ranges.shift * size
    expected = {
        "angle": (-ranges.angle, ranges.angle),
        "scale": ranges.scale,
        "x": (-shift, shift),
        "y": (-shift, shift),
        "contrast": ranges.contrast,
    }
    for name, (low, high) in expected.items():
        values = factors[name].double().numpy()
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.001, name
    table = np.corrcoef(np.stack([factors[name].numpy() for name in expected]))
    assert np.abs(table - np.eye(5)).max() < 0.12


def test_harder_means_wider_ranges_less_contrast_and_more_noise():
    easy, normal, hard = (DIFFICULTIES[name] for name in ("easy", "normal", "hard"))
    for less, more in ((easy, normal), (normal, hard)):
        for name in ("angle", "shift", "noise"):
            assert getattr(less, name) < getattr(more, name)
        assert less.contrast[0] > more.contrast[0]
        assert less.scale[0] > more.scale[0]
    assert hard.texture > normal.texture >= easy.texture


# --- what the pixels show


def test_the_angle_turns_the_letter_counter_clockwise(drawn):
    turned = drawn(letters="I", angle=40)
    upright = drawn(letters="I")
    for image, still, angle in zip(turned.x, upright.x, turned.factors["angle"], strict=True):
        difference = (principal_axis(image[0]) - principal_axis(still[0]) - angle.item() + 90) % 180 - 90
        assert abs(difference) < 2.5
    assert turned.factors["angle"].abs().max() > 30


def test_a_quarter_turn_is_numpys():
    masters = _masters("FG", 20).flatten(0, 1)
    n = len(masters)
    for angle, turns in ((90.0, 1), (-90.0, 3), (180.0, 2)):
        zero = torch.zeros(n)
        turned = _place(masters, torch.full((n,), angle), torch.ones(n), zero, zero, 20)
        expected = np.rot90(masters[:, 4:24, 4:24].numpy(), turns, (1, 2))  # the middle 20 of 28 pixels
        np.testing.assert_allclose(turned[:, 0], expected, atol=1e-4)


def test_x_and_y_are_pixels_to_the_right_and_down_whatever_the_turn_and_the_size(drawn):
    options = {"letters": "LTO", "angle": 40, "scale": (0.7, 0.9), "size": 40}
    moved, still = drawn(shift=0.1, **options), drawn(**options)
    assert torch.equal(moved.y, still.y)
    assert torch.equal(moved.factors["angle"], still.factors["angle"])
    shift = [np.subtract(centroid(m), centroid(o)) for m, o in zip(moved.x[:, 0], still.x[:, 0], strict=True)]
    wrong = np.abs(np.stack(shift) - np.stack([moved.factors["x"], moved.factors["y"]], 1))
    assert wrong.max() < 0.6  # a thin stroke may fall between two pixels
    assert wrong.mean() < 0.1
    assert moved.factors["x"].abs().max() > 3.5


def test_the_area_of_the_ink_goes_with_the_square_of_the_scale(drawn):
    scaled, still = drawn(letters="ETX", scale=(0.6, 1.1), size=48), drawn(letters="ETX", size=48)
    ratio = scaled.x.sum((1, 2, 3)) / still.x.sum((1, 2, 3))
    wrong = (ratio / scaled.factors["scale"] ** 2 - 1).abs()
    assert wrong.max() < 0.1
    assert wrong.median() < 0.01


def test_contrast_is_ink_minus_ground(drawn):
    split = drawn(letters="EHM", contrast=(0.2, 0.9), scale=(1.1, 1.1))
    ground, ink = split.x.flatten(1).aminmax(dim=1)
    torch.testing.assert_close(ink - ground, split.factors["contrast"], atol=0.02, rtol=0)
    assert ground.max() > 0.3  # the ground is not black everywhere
    assert (split.x[:, 0, 0, 0] == ground).float().mean() > 0.9  # and the letter is the brighter of the two


def colours(split):
    """Ground and ink of each colour image: the corner, and the pixel farthest from it."""
    pixels = split.x.flatten(2)
    ground = pixels[:, :, 0]
    farthest = (pixels - ground[:, :, None]).abs().sum(1).argmax(1)
    return ground, pixels[torch.arange(len(split)), :, farthest]


LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


def test_in_colour_contrast_is_the_difference_of_luminance(drawn):
    split = drawn(300, letters="HM", size=48, colour=True, contrast=(0.2, 0.9))
    ground, ink = colours(split)
    torch.testing.assert_close((ink - ground) @ LUMINANCE, split.factors["contrast"], atol=0.03, rtol=0)


def test_the_hue_is_that_of_the_ink_and_takes_all_colours(drawn):
    split = drawn(400, letters="HM", size=48, colour=True, contrast=(0.4, 0.6))
    compared = 0
    for rgb, hue in zip(colours(split)[1], split.factors["hue"], strict=True):
        expected, saturation, _ = colorsys.rgb_to_hsv(*rgb.tolist())
        if saturation > 0.15:
            compared += 1
            assert abs((hue.item() - expected + 0.5) % 1 - 0.5) < 0.01  # hexagon or circle: up to 1.2 degrees apart
    assert compared > 300
    assert (split.factors["hue"] * 6).long().bincount(minlength=6).min() > 15
    assert split.factors["hue"].min() >= 0
    assert split.factors["hue"].max() < 1


def test_colour_does_not_tell_the_letter():
    split = draw(3000, colour=True, size=16, letters="AB").train
    assert stats.ks_2samp(split.factors["hue"][split.y == 0], split.factors["hue"][split.y == 1]).pvalue > 0.001


def test_tinted_images_are_the_grey_ones_in_a_hue_that_goes_half_round_with_the_angle():
    grey, tinted = (draw(400, seed=3, colour=colour).train for colour in (False, "angle"))
    torch.testing.assert_close(luminance(tinted.x), grey.x, atol=1e-6, rtol=0)
    assert all(torch.equal(grey.factors[name], tinted.factors[name]) for name in grey.factors)
    hue, angle = tinted.factors["hue"], tinted.factors["angle"]
    torch.testing.assert_close(hue, (angle / DIFFICULTIES["normal"].angle + 1) / 4)
    assert hue.min() < 0.02
    assert hue.max() > 0.48
    middle = tinted.x[:, :, 14, 14]  # a pixel has the hue of its image, and as much of it as its luminance lets it have
    for rgb, expected in zip(middle, hue, strict=True):
        found, saturation, _ = colorsys.rgb_to_hsv(*rgb.tolist())
        if saturation > 0.15:
            assert abs((found - expected.item() + 0.5) % 1 - 0.5) < 0.01
    assert (middle.amax(1) - middle.amin(1)).mean() > 0.2


def test_an_angle_that_never_changes_has_one_tint(drawn):
    assert drawn(5, colour="angle").factors["hue"].tolist() == [0.25] * 5


def test_noise_is_gaussian_of_the_strength_said_and_alike_in_no_two_images_or_channels(drawn):
    split = drawn(60, colour=True, contrast=(0.3, 0.3), noise=0.02)
    still = drawn(60, colour=True, contrast=(0.3, 0.3))
    inside = (still.x > 0.15) & (still.x < 0.85)
    noise = torch.where(inside, split.x - still.x, torch.nan)
    values = noise[inside]
    assert values.std().item() == pytest.approx(0.02, rel=0.02)
    assert values.mean().item() == pytest.approx(0, abs=3e-4)
    assert stats.kurtosis(values) == pytest.approx(0, abs=0.1)
    for a, b in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:])):
        both = ~(a.isnan() | b.isnan())
        assert abs(np.corrcoef(a[both], b[both])[0, 1]) < 0.02


def test_texture_is_smooth_about_one_strong_and_new_in_every_image():
    texture = _texture(500, 28, torch.Generator().manual_seed(0))
    assert texture.shape == (500, 1, 28, 28)
    assert 0.8 < texture.std() < 1.1
    assert abs(texture.mean()) < 0.05
    assert (texture[..., 1:] - texture[..., :-1]).std() < 0.3
    assert (texture[..., 1:, :] - texture[..., :-1, :]).std() < 0.3
    assert abs(np.corrcoef(texture[:-1].flatten(), texture[1:].flatten())[0, 1]) < 0.05


def test_texture_shows_in_the_images_at_its_strength(drawn):
    textured, still = drawn(contrast=(0.2, 0.2), texture=0.02), drawn(contrast=(0.2, 0.2))
    inside = (still.x > 0.2) & (still.x < 0.8)
    assert (textured.x - still.x)[inside].std().item() == pytest.approx(0.02 * 0.88, rel=0.05)


# --- the faces


def test_every_face_draws_every_character_whole_and_in_the_middle():
    masters = _masters(string.ascii_letters + string.digits, 28)
    assert masters.shape == (62, len(FACES), 39, 39)
    assert len(FACES) == len(set(FACES)) == 19
    assert masters.min() >= 0
    assert masters.amax((2, 3)).min() > 0.7
    assert (masters > 0.5).sum((2, 3)).min() > 20
    rim = torch.ones(39, 39, dtype=torch.bool)
    rim[1:-1, 1:-1] = False
    assert masters[..., rim].max() == 0
    for axis, slack in ((2, 2.5), (3, 1.5)):
        inked = (masters > 0.2).any(axis).float()
        middle = (inked.argmax(-1) + 38 - inked.flip(-1).argmax(-1)) / 2
        assert (middle - 19).abs().max() <= slack


@pytest.mark.parametrize("letters", [LETTERS, string.ascii_letters + string.digits])
def test_no_two_letters_of_a_face_and_no_two_faces_of_a_letter_look_the_same(letters):
    drawn = _masters(letters, 28).flatten(2)
    for group in (*drawn, *drawn.transpose(0, 1)):
        distance = torch.cdist(group, group, p=1) + 100 * torch.eye(len(group))
        assert distance.min() > 1


def test_bold_faces_have_more_ink_and_italics_lean_right():
    masters = dict(zip(FACES, _masters("HIN", 28).transpose(0, 1), strict=True))
    for regular, bold in (("DejaVuSans", "DejaVuSans-Bold"), ("STIXGeneral", "STIXGeneralBol")):
        assert (masters[bold].sum((1, 2)) > 1.1 * masters[regular].sum((1, 2))).all()
    for regular, leaning in (("DejaVuSans", "DejaVuSans-Oblique"), ("STIXGeneral", "STIXGeneralItalic")):
        assert principal_axis(masters[leaning][1]) < principal_axis(masters[regular][1]) - 5


# --- what it is for


def pixel_accuracy(difficulty, letters=LETTERS, n=1500):
    splits = draw(n, n_test=400, difficulty=difficulty, letters=letters, size=16)
    model = RidgeClassifier(alpha=10).fit(splits.train.x.flatten(1), splits.train.y)
    return model.score(splits.test.x.flatten(1), splits.test.y)


def test_raw_pixels_fail_where_letters_turn_and_move_but_not_where_they_hardly_do():
    chance = 1 / 26
    assert 1.5 * chance < pixel_accuracy("normal") < 0.35
    assert pixel_accuracy("easy") > 0.6
    assert pixel_accuracy("hard") < pixel_accuracy("normal")


# --- refusals


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"difficulty": "extreme"}, "difficulty.*easy, normal, hard.*'extreme'"),
        ({"letters": ""}, "letters.*''"),
        ({"letters": "ABA"}, "different.*'ABA'"),
        ({"letters": "AÉ"}, "A–Z, a–z and 0–9.*'AÉ'"),
        ({"letters": "A B"}, "'A B'"),
        ({"letters": "A²"}, "'A²'"),
        ({"letters": ["A", "B"]}, r"string.*\['A', 'B'\]"),
        ({"colour": "letter"}, "colour must be False, True or 'angle', got 'letter'"),
        ({"colour": 1}, "colour must be False, True or 'angle', got 1"),
        ({"size": 15}, "size.*16.*15"),
        ({"size": 28.5}, r"size.*whole.*28\.5"),
        ({"n": 0}, "at least one.*0"),
        ({"n_test": -1}, "at least one.*-1"),
        ({"n_validation": 1.5}, r"whole number.*1\.5"),
    ],
)
def test_glyphs_says_what_came_and_what_was_wanted(options, named):
    with pytest.raises(ValueError, match=named):
        draw(**{"n": 4, **options})


def test_a_set_of_one_letter_and_numpys_whole_numbers_are_taken():
    splits = draw(np.int64(3), letters="Q", size=np.int64(16))
    assert splits.train.y.tolist() == [0, 0, 0]
    assert splits.name == "glyphs"
    assert splits.card.kind == "generated"
