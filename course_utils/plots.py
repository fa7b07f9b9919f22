"""Figures: a style that everyone can read, a few kinds that come up again, and `show`, which carries the alt text."""

import base64
import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

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
    """Set matplotlib's defaults for the course: legible sizes, no frame, colours always paired with markers."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.figsize": (7, 4),
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 11,
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
    """
    if len(alt.strip()) < 20:
        raise ValueError(f"alt must be a sentence that says what the figure shows, got {alt!r}")
    from IPython.display import display

    png = io.BytesIO()
    fig.savefig(png, format="png", metadata={"Software": None})
    plt.close(fig)
    encoded = base64.b64encode(png.getvalue()).decode()
    display({"image/png": encoded, "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)


def image_grid(images, *, titles: Sequence[str] | None = None, rows: Sequence[str] | None = None, columns: int = 8):
    """Images (N, C, H, W) in [0, 1] in rows of `columns`; a title for each image, or a label for each row.

    >>> import torch
    >>> fig = image_grid(torch.rand(4, 1, 8, 8), columns=2, rows=["before", "after"])
    >>> len(fig.axes)
    4
    """
    images = np.asarray(images.detach().float().cpu().clamp(0, 1))
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have shape (N, 1 or 3, H, W), got {images.shape}")
    height = -(-len(images) // columns)
    fig, axes = plt.subplots(height, columns, figsize=(min(columns, 10), height * (1.25 if titles else 1.02)))
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
    """
    fig, ax = plt.subplots(figsize=(8, 4.8))
    ends = []
    for name, frame in frames.items():
        stats = frame.groupby("labels")["accuracy"].agg(["mean", "min", "max"])
        (line,) = ax.plot(stats.index, stats["mean"], markersize=6)
        ax.fill_between(stats.index, stats["min"], stats["max"], color=line.get_color(), alpha=0.15, linewidth=0)
        ends.append([stats["mean"].iloc[-1], name, line.get_color(), stats.index[-1]])
    _label_ends(ax, ends)
    if chance is not None:
        ax.axhline(chance, color="#666666", linestyle=":", marker="")
        ax.text(ax.get_xlim()[0], chance, " chance", va="bottom", color="#666666", fontsize=10)
    ax.set(xscale="log", xlabel="labels used (log scale)", ylabel="test accuracy", title=title)
    ax.set_ylim(0, 1)
    return fig


def _label_ends(ax, ends, gap: float = 0.055) -> None:
    """Write each line's name at its right end, pushed apart so that none covers another."""
    ends = sorted(ends)
    heights = [end[0] for end in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    over = max(0.0, heights[-1] - 0.99) if heights else 0.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], 0.99 - gap * (len(heights) - 1 - i)) if over else heights[i]
    for (_, name, colour, x), height in zip(ends, heights, strict=True):
        ax.annotate(
            name,
            (x, height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


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
        ax.annotate(f"{seen.mean():.2f}", (seen.max(), i), xytext=(6, 0), textcoords="offset points", va="center")
    ax.set(yticks=range(len(values)), yticklabels=list(values), xlabel=xlabel, title=title)
    ax.margins(x=0.12)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    if chance is not None:
        ax.axvline(chance, color="#666666", linestyle=":", marker="")
    return fig


def embedding(points, labels, class_names: Sequence[str], *, title: str):
    """Points (N, 2), each drawn as the name of its class, so that no legend and no colour is needed to read it."""
    points, labels = np.asarray(points), np.asarray(labels)
    fig, ax = plt.subplots(figsize=(7, 5.5))
    palette = list(COLORS.values())
    for c in np.unique(labels):
        for x, y in points[labels == c]:
            ax.text(x, y, class_names[c], color=palette[c % len(palette)], fontsize=10, ha="center", va="center")
    low, high = points.min(0), points.max(0)
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[], title=title)
    ax.margins(0.05)
    return fig


def matrix(values, *, title: str, xlabel: str = "", ylabel: str = "", label: str = ""):
    """A heat map of values (rows, columns) in cividis, which reads the same with every kind of colour vision."""
    fig, ax = plt.subplots(figsize=(5.5, 4.5))
    image = ax.imshow(np.asarray(values), cmap="cividis", aspect="auto")
    ax.grid(False)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    fig.colorbar(image, ax=ax, label=label)
    return fig
