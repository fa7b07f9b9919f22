"""Figures: a style that everyone can read, a few kinds that come up again, and `show`, which carries the alt text."""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.colors import to_rgb
from scipy.optimize import isotonic_regression

# Okabe and Ito 2008, "Color universal design": told apart with every common kind of colour vision
COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def use_style() -> None:
    """Set matplotlib's defaults for the course: legible sizes, no frame, colours always paired with markers.

    A line of many points reads better without: `ax.plot(x, y, marker="")`.

    >>> use_style()
    >>> plt.rcParams["axes.prop_cycle"].by_key()["color"][:2]
    ['#0072B2', '#E69F00']
    """
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.figsize": (7, 4),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "lines.markersize": 5,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "legend.frameon": False,
            "axes.prop_cycle": cycler(color=list(COLORS.values())) + cycler(marker=list(MARKERS)),
        }
    )


def show(fig, *, alt: str) -> None:
    """Display a figure with its alternative text, close it, and return nothing.

    alt: one sentence that says what the figure shows, the same on every machine. Raises ValueError when it is missing.

    >>> fig, ax = plt.subplots()
    >>> show(fig, alt="Two empty axes at a right angle.")
    Two empty axes at a right angle.
    """
    if len(alt.strip()) < 20:
        raise ValueError(f"alt must be a sentence that says what the figure shows, got {alt!r}")
    from IPython import get_ipython
    from IPython.display import display

    png = io.BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None})
    plt.close(fig)
    if get_ipython() is None:  # no notebook to show it in
        print(alt)
        return
    encoded = base64.b64encode(png.getvalue()).decode()
    display({"image/png": encoded, "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)


def image_grid(images, *, titles: Sequence[str] | None = None, rows: Sequence[str] | None = None, columns: int = 8):
    """Images (N, C, H, W) in [0, 1] in rows of `columns`; a title for each image, or a label for each row.

    >>> import torch
    >>> fig = image_grid(torch.rand(4, 1, 8, 8), columns=2, rows=["before", "after"])
    >>> len(fig.axes)
    4
    """
    if hasattr(images, "detach"):
        images = images.detach().cpu()
        images = images.float() if images.is_floating_point() else images  # numpy knows no bfloat16
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must have shape (N, 1 or 3, H, W) with N at least 1, got {images.shape}")
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"images must be floating-point numbers in [0, 1], got {images.dtype}: divide bytes by 255")
    columns = min(columns, len(images))
    height = -(-len(images) // columns)
    for name, given, wanted in [("titles", titles, len(images)), ("rows", rows, height)]:
        if given and len(given) != wanted:
            raise ValueError(f"{name} must name each of {wanted}, got {len(given)}")
    images = images.clip(0, 1)
    width = min(columns, 10)
    cell = width / columns * images.shape[2] / images.shape[3]
    fig, axes = plt.subplots(height, columns, figsize=(width, height * (cell + (0.25 if titles else 0.02))))
    for i, ax in enumerate(np.atleast_1d(axes).flat):
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        if i >= len(images):
            ax.set_visible(False)
            continue
        image = images[i].transpose(1, 2, 0)
        ax.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
        if titles:
            ax.set_title(titles[i], fontsize=10, loc="center")
        if rows and i % columns == 0:
            ax.set_ylabel(rows[i // columns], rotation=0, ha="right", va="center", fontsize=10)
    return fig


def label_efficiency(frames: Mapping[str, "object"], *, title: str = "How far does a label go?", chance=None):
    """Accuracy against the number of labels, a line a method, with the range over repeats shaded.

    frames: name -> DataFrame with the columns labels, repeat, accuracy, as `evaluate.label_efficiency` returns it.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"labels": [10, 100], "repeat": [0, 0], "accuracy": [0.4, 0.9]})
    >>> fig = label_efficiency({"SimCLR": frame}, chance=0.1)
    """
    fig, ax = plt.subplots(figsize=(8, 4.8))
    ends = []
    for name, frame in frames.items():
        stats = frame.groupby("labels")["accuracy"].agg(["mean", "min", "max"])
        (line,) = ax.plot(stats.index, stats["mean"])
        ax.fill_between(stats.index, stats["min"], stats["max"], color=line.get_color(), alpha=0.15, linewidth=0)
        ends.append([stats["mean"].iloc[-1], name, line.get_color(), stats.index[-1]])
    _label_ends(ax, ends)
    if chance is not None:
        ax.axhline(chance, color="#555555", linestyle=":", marker="")
        place = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        ax.text(0.99, chance, "chance", color="#555555", fontsize=10, **place)
    counts = sorted({n for frame in frames.values() for n in frame["labels"]})
    ax.set(xscale="log", xlabel="labels used (log scale)", ylabel="test accuracy", title=title, ylim=(0, 1))
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.set_xticks([], minor=True)
    return fig


def _label_ends(ax, ends, gap: float = 0.05) -> None:
    """Write each line's name at its right end, moved as little as keeps a gap between any two."""
    if not ends:
        return
    ends = sorted(ends)
    steps = min(gap, 0.97 / max(len(ends) - 1, 1)) * np.arange(len(ends))
    heights = isotonic_regression([end[0] for end in ends] - steps).x.clip(0.015, 0.985 - steps[-1]) + steps
    for (_, name, colour, x), height in zip(ends, heights, strict=True):
        ax.annotate(
            name,
            (x, height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=_ink(colour),
            annotation_clip=False,
        )


def _ink(colour: str):
    """The colour, darkened until text in it has a contrast of 4.5 to white (WCAG 2.2, criterion 1.4.3)."""
    rgb = np.array(to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = 0.97 * rgb
    return tuple(rgb)


def _luminance(rgb) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def bars(values: Mapping[str, float | Sequence[float]], *, xlabel: str, title: str, chance: float | None = None):
    """Horizontal bars with their values; several values under a name show as their mean and the range over them.

    >>> fig = bars({"raw pixels": 0.2, "SimCLR": [0.8, 0.9]}, xlabel="accuracy", title="Which is better?")
    """
    fig, ax = plt.subplots(figsize=(7, 0.9 + 0.42 * len(values)))
    for i, value in enumerate(values.values()):
        seen = np.atleast_1d(np.asarray(value, dtype=float))
        ax.barh(i, seen.mean(), color=COLORS["blue"], alpha=0.85, height=0.7)
        if len(seen) > 1:
            ax.plot([seen.min(), seen.max()], [i, i], color="black", marker="|", linewidth=1.5)
        ax.annotate(
            f"{seen.mean():.2f}", (max(seen.max(), 0), i), xytext=(6, 0), textcoords="offset points", va="center"
        )
    if chance is not None:
        ax.axvline(chance, color="black", linestyle=":", marker="")
        xlabel += " (dotted: chance)"
    ax.set(yticks=range(len(values)), yticklabels=list(values), xlabel=xlabel, title=title)
    ax.margins(x=0.12)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return fig


def embedding(points, labels, class_names: Sequence[str], *, title: str):
    """Points (N, 2), each drawn as the name of its class, so that no legend and no colour is needed to read it.

    >>> fig = embedding([[0, 0], [1, 2], [2, 1]], [0, 1, 1], ["a", "b"], title="Which lie together?")
    """
    points, labels = np.asarray(points), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
        raise ValueError(f"points (N, 2) and labels (N,) must agree, got {points.shape} and {labels.shape}")
    fig, ax = plt.subplots(figsize=(7, 5.5))
    inks = [_ink(colour) for colour in COLORS.values()]
    for (x, y), c in zip(points, labels, strict=True):
        ax.text(x, y, class_names[c], color=inks[c % len(inks)], fontsize=10, ha="center", va="center")
    ax.update_datalim(points)
    ax.margins(0.04)
    ax.autoscale_view()
    ax.set(xticks=[], yticks=[], title=title)
    return fig


def matrix(values, *, title: str, xlabel: str = "", ylabel: str = "", label: str = ""):
    """A heat map of values (rows, columns) in cividis, which reads the same with every kind of colour vision.

    >>> fig = matrix([[5, 1], [0, 6]], title="What is taken for what?", xlabel="predicted", ylabel="true")
    """
    fig, ax = plt.subplots(figsize=(5.5, 4.5))
    image = ax.imshow(np.asarray(values), cmap="cividis", aspect="auto")
    ax.grid(False)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    fig.colorbar(image, ax=ax, label=label)
    return fig
