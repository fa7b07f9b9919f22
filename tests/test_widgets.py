"""Controls: each value is drawn once, the picture follows the slider, and words stand in where widgets cannot."""

import base64
import io
import re
from unittest.mock import MagicMock

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_utils import widgets

TEXT = "A bar as high as the slider says, between two others."


def bars(drawn):
    def draw(height, side="left"):
        drawn.append((height, side))
        fig, ax = plt.subplots(figsize=(2, 1))
        ax.bar([0, 1], [height, 1])
        return fig

    return draw


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show: (mime bundle, sliders, picture)."""
    seen, boxes = [], []

    def box(children):
        boxes.append(ipywidgets.Box(children))
        return boxes[-1]

    def display(bundle, raw):
        (shown_box,) = boxes
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == shown_box.model_id
        *sliders, picture = shown_box.children
        seen.append((bundle, sliders, picture))

    monkeypatch.setattr("IPython.get_ipython", MagicMock())
    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(widgets.ipywidgets, "VBox", box)
    return seen


def test_the_picture_follows_the_sliders_and_each_value_is_drawn_once(shown):
    drawn, open_before = [], plt.get_fignums()
    widgets.explore(bars(drawn), text=TEXT, height=[1, 5, 9], side=["left", "right"])
    ((_, (height, side), picture),) = shown
    assert (height.value, side.value, height.options) == (1, "left", (1, 5, 9))
    first = picture.value
    height.value = 9
    assert picture.value != first
    side.value = "right"
    side.value = "left"
    height.value = 1
    assert picture.value == first
    assert drawn == [(1, "left"), (9, "left"), (9, "right")]
    assert plt.get_fignums() == open_before


def test_the_picture_is_a_png_with_its_alternative_text_and_words_stand_in_for_the_widget(shown):
    widgets.explore(bars([]), text='Bars, "high" & low, beside each other.', height=[1])
    ((bundle, _, picture),) = shown
    assert bundle["text/plain"] == 'Bars, "high" & low, beside each other.'
    alt, data = re.fullmatch(r'<img alt="(.*)" src="data:image/png;base64,(.*)">', picture.value).groups()
    assert alt == "Bars, &quot;high&quot; &amp; low, beside each other."
    assert plt.imread(io.BytesIO(base64.b64decode(data))).shape[2] == 4


@pytest.mark.parametrize(
    ("controls", "text", "named"),
    [
        ({}, TEXT, "every control needs values"),
        ({"height": []}, TEXT, "every control needs values.*height"),
        ({"height": [1]}, " short ", "text must be a sentence.*short"),
    ],
)
def test_a_figure_without_control_or_words_is_refused(controls, text, named):
    with pytest.raises(ValueError, match=named):
        widgets.explore(bars([]), text=text, **controls)


def test_a_trajectory_has_a_picture_a_moment_with_every_label_and_image(shown):
    images = np.linspace(0, 1, 3 * 16).reshape(3, 1, 4, 4)
    places = {"start": np.array([[0, 0], [1, 1], [2, 0]]), "end": np.array([[5, 5], [5, 5], [5, 6]])}
    widgets.trajectory(places, images, ["A", "<", "A"], text=TEXT)
    ((_, (moment,), picture),) = shown
    assert moment.options == ("start", "end")
    first = picture.value
    letters = re.findall(r'<text x="(\d+)" y="(\d+)" fill="(#\w+)">(.*?)</text>', first)
    assert [letter for *_, letter in letters] == ["A", "&lt;", "A"]
    assert letters[0][2] == letters[2][2] != letters[1][2]
    assert letters[0][:2] == ("20", "400")  # the lowest left: 20 pixels from either border
    uris = re.findall(r'href="data:image/png;base64,(.*?)"', first)
    pixels = [plt.imread(io.BytesIO(base64.b64decode(uri)))[..., 0] for uri in uris]
    np.testing.assert_allclose(pixels, images[:, 0], atol=1 / 255)
    moment.value = "end"
    assert picture.value != first


def test_examples_without_a_place_are_counted():
    with pytest.raises(ValueError, match=r"'end' has places \(2, 2\), there are 3 images and 3 labels"):
        widgets.trajectory({"end": np.zeros((2, 2))}, np.zeros((3, 1, 4, 4)), "ABC", text=TEXT)
