"""Figures: alternative text and closing, a palette for every kind of colour vision, and what each kind draws."""

import base64
import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from course_utils import plots

ALT = "A line that rises from nought to one."


@pytest.fixture(autouse=True)
def styled():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def rendered(fig):
    fig.canvas.draw()
    return fig.canvas.get_renderer()


def boxes(fig, texts):
    renderer = rendered(fig)
    return [text.get_window_extent(renderer) for text in texts]


# --- show


@pytest.fixture
def displayed(monkeypatch):
    """What `show` hands to a notebook."""
    calls = []
    plt.switch_backend("Agg")  # which asks for the shell that the next line makes up
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def test_a_figure_is_shown_with_its_alternative_text_in_the_metadata_and_as_plain_text(displayed):
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    assert plots.show(fig, alt=ALT) is None
    (((bundle,), options),) = displayed
    assert options == {"metadata": {"image/png": {"alt": ALT}}, "raw": True}
    assert bundle.keys() == {"image/png", "text/plain"}
    assert bundle["text/plain"] == ALT


def test_the_picture_is_a_png_of_the_figure_at_its_size_that_names_no_software(displayed):
    fig, _ = plt.subplots(figsize=(3, 2), facecolor="#0072B2")
    plots.show(fig, alt=ALT)
    picture = Image.open(io.BytesIO(base64.b64decode(displayed[0][0][0]["image/png"])))
    assert (picture.format, picture.size) == ("PNG", (300, 200))
    assert picture.convert("RGB").getpixel((1, 1)) == (0, 0x72, 0xB2)
    assert "Software" not in picture.info


def test_a_figure_is_closed_once_shown_and_others_stay_open(displayed):
    fig, other = plt.figure(), plt.figure()
    plots.show(fig, alt=ALT)
    assert plt.get_fignums() == [other.number]


def test_without_a_notebook_the_alternative_text_is_printed_and_nothing_else(capsys):
    plots.show(plt.figure(), alt=ALT)
    assert capsys.readouterr().out == f"{ALT}\n"
    assert plt.get_fignums() == []


@pytest.mark.parametrize("alt", ["", "A plot.", " " * 40])
def test_a_figure_without_a_sentence_of_alternative_text_is_refused_and_stays_open(alt, displayed):
    fig = plt.figure()
    with pytest.raises(ValueError, match=f"alt must be a sentence that says what the figure shows, got '{alt}'"):
        plots.show(fig, alt=alt)
    assert not displayed
    assert plt.get_fignums() == [fig.number]


# --- colours

# Machado, Oliveira and Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency":
# complete deficiency, applied to linear RGB
VISION = {
    "common": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def linear(colour):
    return np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)])


def lab(rgb):
    """CIE L*a*b* of linear RGB, with white at D65."""
    f = [t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in XYZ @ rgb / XYZ.sum(1)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colours, vision):
    seen = [lab((np.array(VISION[vision]) @ linear(colour)).clip(0, 1)) for colour in colours]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
def test_every_two_colours_differ_clearly_with_every_kind_of_colour_vision(vision):
    assert nearest(plots.COLORS.values(), vision) > 15


@pytest.mark.parametrize("vision", ["protanopia", "deuteranopia"])
def test_the_check_of_colours_finds_matplotlibs_own_palette_wanting(vision):
    names = ["blue", "orange", "green", "red", "purple", "brown", "pink"]
    assert nearest([f"tab:{name}" for name in names], vision) < 10


def test_every_line_of_a_cycle_has_its_own_colour_and_its_own_marker():
    _, ax = plt.subplots()
    lines = [ax.plot([0, 1])[0] for _ in plots.COLORS]
    assert [line.get_color() for line in lines] == list(plots.COLORS.values())
    assert len({line.get_marker() for line in lines} - {"", "None"}) == len(lines)


@pytest.mark.parametrize("colour", plots.COLORS.values())
def test_coloured_text_has_a_contrast_of_four_and_a_half_to_white_and_keeps_its_hue(colour):
    fig = plots.embedding(np.eye(2), [0, list(plots.COLORS.values()).index(colour)], ["x"] * 7, title="x")
    ink = fig.axes[0].texts[1].get_color()
    assert 1.05 / (linear(ink) @ XYZ[1] + 0.05) >= 4.5
    given = np.array(to_rgb(colour))
    np.testing.assert_allclose(np.array(ink) * given.max(), given * max(ink), atol=1e-6)
    if 1.05 / (linear(colour) @ XYZ[1] + 0.05) >= 4.5:
        assert to_rgb(ink) == to_rgb(colour)


# --- image_grid


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_grid_shows_every_image_in_order_black_at_nought_and_white_at_one(channels, dtype):
    images = torch.rand(5, channels, 4, 6, generator=torch.Generator().manual_seed(0)).mul(3).sub(1).to(dtype)
    fig = plots.image_grid(images.requires_grad_(), columns=3)
    shown = [ax.images[0] for ax in fig.axes if ax.get_visible()]
    assert len(shown) == 5
    for picture, image in zip(shown, images.detach().float().numpy(), strict=True):
        expected = image.clip(0, 1).transpose(1, 2, 0)
        np.testing.assert_array_equal(np.atleast_3d(picture.get_array()), expected)
        assert picture.get_clim() == (0, 1)
    assert channels == 3 or shown[0].get_cmap().name == "gray"
    assert not any(ax.get_xticks().size or ax.get_yticks().size for ax in fig.axes)


def test_a_grey_picture_stays_grey():
    fig = plots.image_grid(torch.tensor([0.4, 0.5]).view(1, 1, 1, 2))
    (picture,) = fig.axes[0].images
    np.testing.assert_allclose(picture.cmap(picture.norm(picture.get_array()))[0, :, 0], [0.4, 0.5], atol=0.005)


def test_a_grid_takes_arrays_and_leaves_what_it_was_given():
    images = np.full((2, 1, 3, 3), 2.0)
    plots.image_grid(images)
    assert (images == 2).all()


def test_titles_stand_over_images_and_labels_before_rows():
    fig = plots.image_grid(torch.rand(4, 1, 8, 8), columns=2, titles=list("abcd"), rows=["first", "second"])
    assert [ax.get_title() for ax in fig.axes] == list("abcd")
    assert [ax.get_ylabel() for ax in fig.axes] == ["first", "", "second", ""]
    a, _, c, _ = fig.axes
    rendered(fig)
    assert a.get_position().y0 > c.get_position().y1


@pytest.mark.parametrize(("n", "size", "columns"), [(3, (8, 8), 8), (24, (8, 8), 12), (4, (8, 24), 2), (2, (24, 8), 2)])
def test_a_grid_has_no_empty_columns_and_no_wide_gaps_between_rows(n, size, columns):
    fig = plots.image_grid(torch.rand(n, 1, *size), columns=columns)
    rendered(fig)
    ink = sum(np.prod(ax.get_position().size) for ax in fig.axes if ax.get_visible())
    assert ink > 0.55
    assert fig.get_figwidth() <= 10


@pytest.mark.parametrize(
    ("images", "options", "named"),
    [
        (torch.rand(4, 8, 8), {}, r"\(N, 1 or 3, H, W\).*\(4, 8, 8\)"),
        (torch.rand(4, 2, 8, 8), {}, r"\(4, 2, 8, 8\)"),
        (torch.rand(4, 8, 8, 3), {}, r"\(4, 8, 8, 3\)"),
        (torch.rand(0, 1, 8, 8), {}, r"N at least 1, got \(0, 1, 8, 8\)"),
        (torch.ones(2, 1, 8, 8).byte(), {}, r"in \[0, 1\], got uint8: divide bytes by 255"),
        (torch.rand(4, 1, 8, 8), {"titles": ["a"]}, "titles must name each of 4, got 1"),
        (torch.rand(4, 1, 8, 8), {"rows": ["a"], "columns": 2}, "rows must name each of 2, got 1"),
    ],
)
def test_a_grid_says_what_came_and_what_was_wanted(images, options, named):
    with pytest.raises(ValueError, match=named):
        plots.image_grid(images, **options)
    assert plt.get_fignums() == []


# --- label_efficiency


def frame(*ends, counts=(50, 500, 5000), spread=0.05):
    rows = [
        {"labels": n, "repeat": repeat, "accuracy": end * (i + 1) / len(counts) + offset}
        for end in ends
        for i, n in enumerate(counts)
        for repeat, offset in enumerate((-spread, 0.0, spread))
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def test_a_curve_is_the_mean_over_repeats_and_its_band_their_range():
    fig = plots.label_efficiency({"SimCLR": frame(0.9)})
    (ax,) = fig.axes
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[50, 0.3], [500, 0.6], [5000, 0.9]])
    (band,) = ax.collections
    corners = {(x, round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(n, round(y + d, 6)) for n, y in [(50, 0.3), (500, 0.6), (5000, 0.9)] for d in (-0.05, 0.05)}
    assert (ax.get_xscale(), ax.get_ylim()) == ("log", (0, 1))
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50", "500", "5,000"]


@pytest.mark.parametrize(
    "ends",
    [
        [0.3, 0.301, 0.302, 0.303, 0.95, 0.94, 0.5],
        [0.99, 0.99, 0.99, 0.98],
        [0.0, 0.0, 0.01],
        np.linspace(0, 1, 12),
        [0.5] * 19,
    ],
)
def test_names_stand_at_the_ends_of_their_lines_in_their_order_and_never_on_each_other(ends):
    frames = {f"method {i}, {end:.3f}": frame(end) for i, end in enumerate(ends)}
    fig = plots.label_efficiency(frames, chance=0.04)
    names = [text for text in fig.axes[0].texts if text.get_text() in frames]
    placed = boxes(fig, names)
    by_height = sorted(zip(placed, names, strict=True), key=lambda pair: pair[0].y0)
    for (below, _), (above, _) in itertools.pairwise(by_height):
        assert below.y1 <= above.y0 + 4  # the boxes of a font have some air
    heights = [float(name.get_text().split(", ")[1]) for _, name in by_height]
    assert heights == sorted(heights)
    frame_of = fig.axes[0].bbox
    assert all(box.x1 <= fig.bbox.x1 and box.y0 >= frame_of.y0 - 6 and box.y1 <= frame_of.y1 + 6 for box in placed)
    assert {name.xy[0] for name in names} == {5000}


def test_a_name_is_moved_only_where_it_would_touch_another_and_a_group_stays_around_its_lines():
    ends = {"a": 0.2, "b": 0.5, "c": 0.51, "d": 0.52, "e": 0.8}
    fig = plots.label_efficiency({name: frame(end) for name, end in ends.items()})
    placed = {text.get_text(): text.xy[1] for text in fig.axes[0].texts}
    assert placed["a"] == pytest.approx(0.2)
    assert placed["e"] == pytest.approx(0.8)
    assert np.mean([placed[name] for name in "bcd"]) == pytest.approx(0.51)


def test_chance_is_drawn_at_its_height_and_named():
    fig = plots.label_efficiency({"SimCLR": frame(0.9)}, chance=0.1)
    (ax,) = fig.axes
    (level,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert list(level.get_ydata()) == [0.1, 0.1]
    (name,) = [text for text in ax.texts if text.get_text() == "chance"]
    (box,) = boxes(fig, [name])
    assert ax.bbox.x0 <= box.x0 <= box.x1 <= ax.bbox.x1
    assert 0 <= box.y0 - ax.transData.transform((50, 0.1))[1] < 5


# --- bars, embedding, matrix


def test_a_bar_is_as_long_as_its_mean_in_the_order_given_with_the_range_drawn_over_it():
    fig = plots.bars(
        {"raw": 0.25, "SimCLR": [0.8, 0.9, 0.85], "worse": -0.5}, xlabel="accuracy", title="Which?", chance=0.1
    )
    (ax,) = fig.axes
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.25, 0.85, -0.5])
    positions = [box.y0 for box in boxes(fig, ax.get_yticklabels())]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["raw", "SimCLR", "worse"]
    assert positions == sorted(positions, reverse=True)
    (span,) = [line for line in ax.lines if line.get_marker() == "|"]
    np.testing.assert_allclose(span.get_xydata(), [[0.8, 1], [0.9, 1]])
    (level,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert list(level.get_xdata()) == [0.1, 0.1]
    assert ax.get_xlabel() == "accuracy (dotted: chance)"
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.85", "-0.50"]


def test_a_bars_number_stands_beside_it_and_inside_the_figure():
    fig = plots.bars({"a": 0.25, "b": [0.8, 0.95], "c": -0.5}, xlabel="x", title="Which?")
    (ax,) = fig.axes
    placed = boxes(fig, ax.texts)
    for box, bar, most in zip(placed, ax.patches, [0.25, 0.95, 0], strict=True):
        assert box.x0 > ax.transData.transform((most, 0))[0]
        assert box.x1 < fig.bbox.x1
        middle = bar.get_window_extent().y0 + bar.get_window_extent().height / 2
        assert box.y0 < middle < box.y1


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_every_point_is_the_name_of_its_class_at_its_place_and_inside_the_axes(kind):
    points, labels = np.random.default_rng(0).normal(size=(40, 2)) * [1, 1000], np.arange(40) % 9
    names = [f"c{i}" for i in range(9)]
    fig = plots.embedding(kind(points), kind(labels), names, title="Where?")
    (ax,) = fig.axes
    assert [text.get_text() for text in ax.texts] == [names[label] for label in labels]
    np.testing.assert_allclose([text.get_position() for text in ax.texts], points)
    assert len({text.get_color() for text in ax.texts if text.get_text() == "c3"}) == 1
    outside = [box for box in boxes(fig, ax.texts) if not ax.bbox.x0 < box.x0 < box.x1 < ax.bbox.x1]
    outside += [box for box in boxes(fig, ax.texts) if not ax.bbox.y0 < box.y0 < box.y1 < ax.bbox.y1]
    assert not outside


@pytest.mark.parametrize(("points", "labels"), [((4, 3), 4), ((4,), 4), ((4, 2), 3)])
def test_points_and_labels_that_do_not_fit_are_named(points, labels):
    shapes = rf"points \(N, 2\) and labels \(N,\) must agree, got \({points[0]},.*\) and \({labels},\)"
    with pytest.raises(ValueError, match=shapes):
        plots.embedding(np.zeros(points), np.zeros(labels, dtype=int), ["a"], title="Where?")


def test_a_matrix_is_drawn_row_by_row_in_a_map_whose_lightness_rises_throughout():
    values = np.arange(6.0).reshape(2, 3)
    fig = plots.matrix(values, title="What?", xlabel="predicted", ylabel="true", label="share")
    ax, bar = fig.axes
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), values)
    assert image.origin == "upper"
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("predicted", "true", "share")
    for matrix in VISION.values():
        lightness = [lab((matrix @ linear(image.cmap(x)[:3])).clip(0, 1))[0] for x in np.linspace(0, 1, 20)]
        assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.label_efficiency({"a": frame(0.9)}),
        lambda: plots.bars({"a": 0.5}, xlabel="x", title="Which of them is the better?"),
        lambda: plots.embedding(np.eye(2), [0, 1], "ab", title="Where do they lie?"),
        lambda: plots.matrix(np.eye(3), title="What is taken for what?"),
    ],
)
def test_the_question_of_a_figure_is_its_title_in_full_view(draw):
    fig = draw()
    title = fig.axes[0].get_title(loc="left")
    assert title.endswith("?")
    (box,) = boxes(fig, [fig.axes[0]._left_title])
    assert fig.bbox.x0 <= box.x0 <= box.x1 <= fig.bbox.x1
    assert box.y1 <= fig.bbox.y1
