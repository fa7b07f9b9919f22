"""Controls for figures: what a notebook shows as a picture, the reader may turn. Each has its static twin beside it."""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np

from course_utils.plots import COLORS


def explore(draw: Callable, *, text: str, **controls: Sequence) -> None:
    """Show the figure that `draw` returns, with a slider for each of its arguments.

    draw(**values) -> matplotlib figure, called with one value of every control; it is closed after it was shown, and
    shown values are drawn once and kept. controls: name -> the values to choose from, the first of them shown first.
    text: the figure's alternative text, which holds whatever is chosen.

    Raises ValueError where there is no control, a control without values, or no text.

    >>> def draw(width):
    ...     fig, ax = plt.subplots()
    ...     _ = ax.plot([0, 1], [0, 1], linewidth=width)
    ...     return fig
    >>> explore(draw, text="A line from corner to corner, as wide as the slider says.", width=[1, 2, 4])
    A line from corner to corner, as wide as the slider says.
    """
    _check(text, controls)
    sliders = {
        name: ipywidgets.SelectionSlider(
            options=list(values), description=name.replace("_", " "), continuous_update=False, readout=True
        )
        for name, values in controls.items()
    }
    shown: dict[tuple, str] = {}

    def picture(**values) -> str:
        key = tuple(values.values())
        if key not in shown:
            shown[key] = _png(draw(**values), text)
        return shown[key]

    _display(sliders, picture, text)


def trajectory(points: Mapping[str, np.ndarray], images, labels: Sequence[str], *, text: str, size: int = 420) -> None:
    """Show examples as letters in the plane, one picture a moment of training; an example's image appears on hover.

    points: what the moment is called -> (N, 2) places; images: (N, 1 or 3, H, W) in [0, 1]; labels: (N,) one short
    string an example. The same label has the same colour. text: the alternative text. Nothing is computed here:
    what puts features into the plane, such as t-SNE, is the caller's.

    Raises ValueError where the numbers of points, images and labels differ.

    >>> places = {"start": np.random.rand(3, 2), "end": np.random.rand(3, 2)}
    >>> trajectory(places, np.zeros((3, 1, 4, 4)), ["A", "B", "A"], text="Three letters move across the plane.")
    Three letters move across the plane.
    """
    _check(text, points)
    images = np.asarray(images)
    for moment, xy in points.items():
        if np.shape(xy) != (len(images), 2) or len(labels) != len(images):
            raise ValueError(
                f"every example needs a place, an image and a label: {moment!r} has places {np.shape(xy)}, "
                f"there are {len(images)} images and {len(labels)} labels"
            )
    pictures = [_image_uri(image) for image in images]
    slider = ipywidgets.SelectionSlider(options=list(points), description="moment", continuous_update=True)
    drawn = {moment: _scatter(np.asarray(xy), pictures, labels, text, size) for moment, xy in points.items()}
    _display({"moment": slider}, lambda moment: drawn[moment], text)


def _check(text: str, controls: Mapping) -> None:
    if len(text.strip()) < 20:
        raise ValueError(f"text must be a sentence that says what the figure shows, got {text!r}")
    if not controls or not all(len(values) for values in controls.values()):
        raise ValueError(f"every control needs values to choose from, got {dict(controls)}")


def _display(sliders: Mapping[str, ipywidgets.Widget], picture: Callable[..., str], text: str) -> None:
    """A box of the sliders above the picture of their values, with `text` where widgets cannot be shown."""
    from IPython import get_ipython
    from IPython.display import display

    area = ipywidgets.HTML()

    def refresh(_=None) -> None:
        area.value = picture(**{name: slider.value for name, slider in sliders.items()})

    for slider in sliders.values():
        slider.observe(refresh, names="value")
    refresh()
    if get_ipython() is None:  # no notebook to show it in
        print(text)
        return
    box = ipywidgets.VBox([*sliders.values(), area])
    view = {"model_id": box.model_id, "version_major": 2, "version_minor": 0}
    display({"application/vnd.jupyter.widget-view+json": view, "text/plain": text}, raw=True)


def _png(fig, text: str) -> str:
    png = io.BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None})
    plt.close(fig)
    encoded = base64.b64encode(png.getvalue()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{encoded}">'


def _image_uri(image: np.ndarray) -> str:
    pixels = image.transpose(1, 2, 0) if len(image) == 3 else image[0]
    png = io.BytesIO()
    plt.imsave(png, pixels, format="png", **({} if len(image) == 3 else {"cmap": "gray", "vmin": 0, "vmax": 1}))
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def _scatter(xy: np.ndarray, pictures: Sequence[str], labels: Sequence[str], text: str, size: int) -> str:
    """An SVG of the labels at their places, each with its image beside it while the pointer rests on it."""
    low, high = xy.min(0), xy.max(0)
    place = 20 + (xy - low) / np.maximum(high - low, 1e-9) * (size - 40)
    names = sorted(set(labels))
    palette = list(COLORS.values())
    marks = []
    for (x, y), picture, label in zip(place, pictures, labels, strict=True):
        colour = palette[names.index(label) % len(palette)]
        marks.append(
            f'<g class="example"><text x="{x:.0f}" y="{size - y:.0f}" fill="{colour}">{html.escape(str(label))}</text>'
            f'<image href="{picture}" x="{min(x + 8, size - 60):.0f}" y="{max(size - y - 60, 0):.0f}" width="56"/></g>'
        )
    style = (
        ".example text {font: bold 13px sans-serif; cursor: default}"
        " .example image {display: none; pointer-events: none} .example:hover image {display: inline}"
    )
    opening = f'<svg role="img" aria-label="{html.escape(text)}" width="{size}" height="{size}">'
    return f"{opening}<style>{style}</style>{''.join(marks)}</svg>"
