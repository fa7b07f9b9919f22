"""Moving Glyphs: short clips of a letter that wanders, turns and grows. Generated, with every factor of every frame.

After Moving MNIST (Srivastava, Mansimov and Salakhutdinov 2015, §3.2), with the letters, grounds and noise of Glyphs:
a frame on its own is an image of Glyphs, so an encoder trained on clips can be asked about images.
"""

from dataclasses import replace
from numbers import Integral

import torch
from torch import Tensor

from course_utils.data.glyphs import (
    DIFFICULTIES,
    FACES,
    LETTERS,
    Difficulty,
    _check,
    _hue,
    _levels,
    _masters,
    _paint,
    _place,
    _texture,
)
from course_utils.data.types import DataCard, Dataset, Split

CARD = DataCard(
    title="Moving Glyphs: clips of letters in 19 faces that wander, turn and grow",
    kind="generated",
    source="drawn from the DejaVu, STIX and Computer Modern font files that matplotlib ships",
    licence="the clips are free to use; the fonts keep the licences in matplotlib's distribution",
    citation="after Moving MNIST: Srivastava, Mansimov and Salakhutdinov, 2015, arXiv:1502.04681",
    note="factors: letter, face, contrast; of every frame angle (degrees), scale, x and y (pixels), and what each "
    "changes by a frame: spin, growth, vx and vy",
)
MOTIONS = {"angle": "spin", "scale": "growth", "x": "vx", "y": "vy"}


def moving_glyphs(
    *,
    seed: int = 0,
    n_train: int = 5_000,
    n_validation: int = 1_000,
    n_test: int = 1_000,
    frames: int = 6,
    count: int = 1,
    speed: float = 0.2,
    wander: float = 0.2,
    colour: bool = False,
    size: int = 28,
    letters: str = LETTERS,
    difficulty: str = "normal",
) -> Dataset:
    """Generate the set: `x` is (N, frames, C, size, size) float32 in [0, 1], C being 1 or, with `colour`, 3.

    Angle, scale and place each start anywhere in the range they have in Glyphs, move through it, and turn back at its
    ends. Their velocities start anywhere up to `speed`, the part of the range that is crossed in a frame, either way;
    from frame to frame they change at random by `wander` of that, so that wander=0 moves evenly and the future can be
    known. Ground and texture stand still, noise is new in every frame. So every frame is distributed as in Glyphs.

    `y` is the index of the letter. `factors` holds letter, face and contrast (N,), with colour the hue of the ink too,
    and (N, frames): angle, scale, x, y, and spin, growth, vx, vy, by which the next frame differs unless it turns back.
    With count=2 there are two smaller letters with the whole image to move in; `y` is None, and every factor of a
    letter has a second axis of length 2.

    Raises ValueError as `glyphs` does, and for frames < 2, a count that is not 1 or 2, a speed that is not from 0 to 1
    or a negative wander.

    >>> splits = moving_glyphs(n_train=100, n_validation=10, n_test=10, frames=4)
    >>> splits.train.x.shape, splits.train.factors["vx"].shape
    (torch.Size([100, 4, 1, 28, 28]), torch.Size([100, 4]))
    """
    _check(letters, size, difficulty, colour)
    if not isinstance(frames, Integral) or frames < 2:
        raise ValueError(f"a clip needs a whole number of frames, at least 2, got {frames!r}")
    if count not in (1, 2):
        raise ValueError(f"count must be 1 or 2 letters, got {count!r}")
    if not 0 <= speed <= 1 or not wander >= 0:
        raise ValueError(f"speed must lie between 0 and 1 and wander must not be negative, got {speed} and {wander}")
    ranges = DIFFICULTIES[difficulty]
    if count == 2:  # smaller, and free to go where a whole letter still fits
        ranges = replace(ranges, scale=tuple(0.55 * end for end in ranges.scale), shift=0.25)
    splits = []
    for part, n in enumerate((n_train, n_validation, n_test)):
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"every split needs a whole number of clips, at least one, got {n!r}")
        rng = torch.Generator().manual_seed(3 * seed + part)
        splits.append(_draw(n, rng, ranges, letters, size, colour, frames, count, speed, wander))
    return Dataset("moving_glyphs", *splits, class_names=tuple(letters) if count == 1 else (), card=CARD)


def _draw(
    n: int,
    rng: torch.Generator,
    ranges: Difficulty,
    letters: str,
    size: int,
    colour: bool,
    frames: int,
    count: int,
    speed: float,
    wander: float,
) -> Split:
    letter = torch.randint(len(letters), (n, count), generator=rng)
    face = torch.randint(len(FACES), (n, count), generator=rng)
    shift = ranges.shift * size
    ends = {"angle": (-ranges.angle, ranges.angle), "scale": ranges.scale, "x": (-shift, shift), "y": (-shift, shift)}
    factors = {"letter": letter, "face": face}
    for name, (low, high) in ends.items():
        factors[name], factors[MOTIONS[name]] = _wander((n, count, frames), low, high, speed, wander, rng)
    ink, ground, contrast = _levels(n, ranges.contrast, colour, rng)

    masters = _masters(letters, size)
    clips = torch.empty(n, frames, ink.shape[1], size, size)
    for rows in torch.arange(n).split(max(1, 4096 // (frames * count))):  # in parts, so that memory stays bounded
        drawn = masters[letter[rows], face[rows]].repeat_interleave(frames, 1).flatten(0, 1)
        stroke = _place(drawn, *(factors[name][rows].flatten() for name in ends), size)
        stroke = stroke.view(len(rows), count, frames, 1, size, size).amax(1)
        texture = ranges.texture * _texture(len(rows), size, rng)[:, None]
        clips[rows] = _paint(stroke, ink[rows, None], ground[rows, None], texture, ranges.noise, rng)
    if count == 1:
        factors = {name: value.squeeze(1) for name, value in factors.items()}
    factors["contrast"] = contrast
    if colour:
        factors["hue"] = _hue(ink)
    return Split(clips, factors["letter"] if count == 1 else None, factors)


def _wander(
    shape: tuple[int, ...], low: float, high: float, speed: float, wander: float, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Places in [low, high] along the last axis of `shape`, and the velocity at each.

    A path that turns back at two walls is a free path, folded: there and back is once around a circle of twice the
    width. A start anywhere and a motion that knows no direction leave every place as likely as every other, always.
    """
    width = high - low
    velocity = speed * width * (2 * torch.rand(*shape[:-1], 1, generator=rng) - 1)
    velocity = velocity + wander * speed * width * torch.randn(shape, generator=rng).cumsum(-1)
    start = width * torch.rand(*shape[:-1], 1, generator=rng)
    free = torch.cat([start, start + velocity[..., :-1].cumsum(-1)], -1)
    around = free % (2 * width) if width > 0 else free
    return low + width - (around - width).abs(), torch.where(around < width, velocity, -velocity)
