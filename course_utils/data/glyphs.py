"""Glyphs: letters in many faces, turned, scaled, moved, on textured ground. Generated, with every factor known.

The letters are drawn once a face from the font files that matplotlib ships; everything after that is batched tensor
code. Raw pixels do badly on it and a good representation does well, which is what makes it worth learning from.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.data.types import DataCard, Dataset, Split

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmss10", "cmtt10"),
)

CARD = DataCard(
    title="Glyphs: letters in 19 faces with known factors",
    kind="generated",
    source="drawn from the DejaVu, STIX and Computer Modern font files that matplotlib ships",
    licence="the images are free to use; the fonts keep the licences in matplotlib's distribution",
    note="factors: letter, face, angle (degrees), scale, x and y (pixels), contrast; with colour also hue",
)


@dataclass(frozen=True)
class Difficulty:
    """How far each factor ranges. Angles in degrees, shifts as a part of the image's side, levels in [0, 1]."""

    angle: float
    scale: tuple[float, float]
    shift: float
    contrast: tuple[float, float]
    texture: float
    noise: float


DIFFICULTIES = {
    "easy": Difficulty(10, (0.9, 1.1), 0.04, (0.7, 1.0), 0.05, 0.02),
    "normal": Difficulty(35, (0.65, 1.1), 0.10, (0.4, 0.9), 0.05, 0.06),
    "hard": Difficulty(45, (0.6, 1.1), 0.14, (0.3, 0.8), 0.25, 0.10),
}


def glyphs(
    *,
    seed: int = 0,
    n_train: int = 20_000,
    n_validation: int = 5_000,
    n_test: int = 5_000,
    colour: bool | str = False,
    size: int = 28,
    letters: str = LETTERS,
    difficulty: str = "normal",
) -> Dataset:
    """Generate the set: `x` is (N, 1, size, size) or, with `colour`, (N, 3, size, size), float32 in [0, 1].

    The three splits are independent draws from the same distribution. `y` is the index of the letter in `letters`;
    `factors` holds letter and face (int64) and angle, scale, x, y, contrast and, with colour, the hue of the ink.

    colour: False is grey. True draws the colours of ink and ground, so that they mean nothing. "angle" gives the grey
    images of the same seed in colours that mean something, as a low sun turns all things red: each is tinted in one
    hue, which goes half round the colour wheel as the letter's angle goes through its range, and keeps its luminance.

    Raises ValueError for letters outside A–Z a–z 0–9, an unknown difficulty or colour, or a size under 16.

    >>> splits = glyphs(n_train=100, n_validation=10, n_test=10)
    >>> splits.train.x.shape, sorted(splits.train.factors)
    (torch.Size([100, 1, 28, 28]), ['angle', 'contrast', 'face', 'letter', 'scale', 'x', 'y'])
    """
    _check(letters, size, difficulty, colour, tints=("angle",))
    splits = [
        _draw(n, torch.Generator().manual_seed(3 * seed + part), DIFFICULTIES[difficulty], letters, size, colour)
        for part, n in enumerate((n_train, n_validation, n_test))
    ]
    return Dataset("glyphs", *splits, class_names=tuple(letters), card=CARD)


def _check(letters: str, size: int, difficulty: str, colour: bool | str, *, tints: tuple[str, ...] = ()) -> None:
    if not isinstance(colour, bool) and colour not in tints:
        *others, last = ["False", "True", *map(repr, tints)]
        raise ValueError(f"colour must be {', '.join(others)} or {last}, got {colour!r}")
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty must be one of {', '.join(DIFFICULTIES)}, got {difficulty!r}")
    text = isinstance(letters, str) and letters.isascii() and letters.isalnum()
    if not text or len(set(letters)) != len(letters):
        raise ValueError(f"letters must be a string of different characters out of A–Z, a–z and 0–9, got {letters!r}")
    if not isinstance(size, Integral) or size < 16:
        raise ValueError(f"size must be at least 16 whole pixels for a letter to be readable, got {size!r}")


def _draw(n: int, rng: torch.Generator, ranges: Difficulty, letters: str, size: int, colour: bool | str) -> Split:
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"every split needs a whole number of images, at least one, got {n!r}")

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=rng)

    letter = torch.randint(len(letters), (n,), generator=rng)
    face = torch.randint(len(FACES), (n,), generator=rng)
    angle, scale = uniform(-ranges.angle, ranges.angle), uniform(*ranges.scale)
    x, y = (uniform(-ranges.shift, ranges.shift) * size for _ in range(2))
    ink, ground, contrast = _levels(n, ranges.contrast, colour is True, rng)
    factors = {"letter": letter, "face": face, "angle": angle, "scale": scale, "x": x, "y": y}
    factors["contrast"] = contrast
    if colour is True:
        factors["hue"] = _hue(ink)

    masters = _masters(letters, size)
    images = torch.empty(n, ink.shape[1], size, size)
    for rows in torch.arange(n).split(4096):  # in parts, so that memory stays bounded
        stroke = _place(masters[letter[rows], face[rows]], angle[rows], scale[rows], x[rows], y[rows], size)
        texture = ranges.texture * _texture(len(rows), size, rng)
        images[rows] = _paint(stroke, ink[rows], ground[rows], texture, ranges.noise, rng)
    if colour == "angle":
        factors["hue"] = (angle / ranges.angle + 1) / 4 if ranges.angle else torch.full((n,), 0.25)
        images = _tint(images, factors["hue"])
    return Split(images, letter, factors)


@lru_cache(maxsize=8)
def _masters(letters: str, size: int) -> Tensor:
    """Every letter in every face, upright and centred: (letters, faces, side, side), ink 1 on ground 0."""
    import matplotlib
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    side = round(size * 1.4)
    drawn = torch.zeros(len(letters), len(FACES), side, side)
    for j, face in enumerate(FACES):
        path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
        font = ImageFont.truetype(str(path), round(size * 0.9))
        for i, letter in enumerate(letters):
            canvas = Image.new("L", (side, side))
            left, top, right, bottom = font.getbbox(letter)
            corner = ((side - left - right) / 2, (side - top - bottom) / 2)
            ImageDraw.Draw(canvas).text(corner, letter, fill=255, font=font)
            drawn[i, j] = torch.from_numpy(np.asarray(canvas, dtype=np.float32)) / 255
    return drawn


def _place(masters: Tensor, angle: Tensor, scale: Tensor, x: Tensor, y: Tensor, size: int) -> Tensor:
    """Turn (counter-clockwise), scale and move each master (N, side, side) onto an image (N, 1, size, size)."""
    radians = torch.deg2rad(angle)
    cos, sin = torch.cos(radians) / scale, torch.sin(radians) / scale
    zoom = size / masters.shape[-1]
    dx, dy = -2 * x / size, -2 * y / size
    rows = [torch.stack([cos, -sin, cos * dx - sin * dy], 1), torch.stack([sin, cos, sin * dx + cos * dy], 1)]
    grid = F.affine_grid(zoom * torch.stack(rows, 1), (len(masters), 1, size, size), align_corners=False)
    return F.grid_sample(masters[:, None], grid, align_corners=False)


def _paint(stroke: Tensor, ink: Tensor, ground: Tensor, texture: Tensor, noise: float, rng: torch.Generator) -> Tensor:
    """Strokes, 1 for ink and 0 for ground, as images in [0, 1]: coloured, textured, and with noise of that strength."""
    image = ground + (ink - ground) * stroke + texture
    return (image + noise * torch.randn(image.shape, generator=rng)).clamp_(0, 1)


def _levels(n: int, contrast: tuple[float, float], colour: bool, rng: torch.Generator):
    """Ink and ground, each (N, C, 1, 1), and by how much they differ: grey level, or luminance for colours."""
    low, high = contrast
    difference = low + (high - low) * torch.rand(n, generator=rng)
    dark = torch.rand(n, generator=rng) * (1 - difference)
    if not colour:
        return (dark + difference).view(n, 1, 1, 1), dark.view(n, 1, 1, 1), difference
    ink, ground = (torch.rand(n, 3, generator=rng) for _ in range(2))
    levels = (dark + difference)[:, None], dark[:, None]
    ink, ground = (_with_luminance(rgb, level) for rgb, level in zip((ink, ground), levels, strict=True))
    return ink.view(n, 3, 1, 1), ground.view(n, 3, 1, 1), difference


def _with_luminance(rgb: Tensor, level: Tensor) -> Tensor:
    """Colours (N, 3, …) moved to the grey `level` (N, 1, …), as saturated as the unit cube allows there."""
    chroma = rgb - torch.einsum("nc...,c->n...", rgb, torch.tensor([0.299, 0.587, 0.114])).unsqueeze(1)
    room = torch.where(chroma > 0, 1 - level, level) / chroma.abs().clamp_min(1e-6)
    return level + chroma * room.amin(1, keepdim=True).clamp_max(1.5)


def _tint(x: Tensor, hue: Tensor) -> Tensor:
    """Grey images (N, 1, H, W), each in its one hue (N,) in [0, 1): (N, 3, H, W) of the same luminance."""
    turns = hue[:, None] - torch.tensor([0, 1 / 3, 2 / 3])  # from red, from green and from blue
    return _with_luminance(torch.cos(2 * math.pi * turns).view(len(x), 3, 1, 1), x).clamp_(0, 1)


def _hue(rgb: Tensor) -> Tensor:
    """Hue of (N, 3, 1, 1) colours as an angle on the colour wheel, in [0, 1)."""
    red, green, blue = rgb.flatten(1).unbind(1)
    return torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * math.pi) % 1


def _texture(n: int, size: int, rng: torch.Generator) -> Tensor:
    """Smooth random ground (N, 1, size, size), about one unit strong."""
    coarse = torch.randn(n, 1, 6, 6, generator=rng)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
