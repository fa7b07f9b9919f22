"""Views: random transforms of a whole batch at once, each a pure function of the images and a generator.

Every function takes images `x` (N, C, H, W) float in [0, 1] and an explicit `torch.Generator` on the same device, and
draws its parameters afresh for each image. None changes its input. Strength 0 leaves the images as they are.
"""

import math
from collections.abc import Callable
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.precision import full_precision

View = Callable[[Tensor, torch.Generator], Tensor]


def _uniform(n: int, low: float, high: float, x: Tensor, rng: torch.Generator) -> Tensor:
    """(N,) numbers, shaped to multiply a batch of images."""
    return low + (high - low) * torch.rand(n, 1, 1, 1, generator=rng, device=x.device, dtype=x.dtype)


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"images must be a torch tensor of shape (N, C, H, W), got {type(x).__name__}")
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images must be floating point of shape (N, C, H, W), got {x.dtype} {tuple(x.shape)}")


def _check_range(name: str, value: float, greatest: float = math.inf) -> None:
    if not 0 <= value <= greatest:
        wanted = "must not be negative" if greatest == math.inf else f"must lie between 0 and {greatest}"
        raise ValueError(f"{name} {wanted}, got {value}")


@torch.no_grad()
@full_precision
def random_resized_crop(
    x: Tensor,
    rng: torch.Generator,
    *,
    scale: tuple[float, float] = (0.4, 1.0),
    rotation: float = 0.0,
    size: int | None = None,
) -> Tensor:
    """Cut a random square out of each image and resize it to the image's size, in one bilinear resampling.

    scale: least and greatest part of the image's area that is kept; rotation: greatest turn in degrees either way.
    size: height of the results, if not the image's own. Somewhat smaller ones train faster, and to no worse an end:
    they undo that things look larger in crops than in the whole images that are encoded later (Touvron et al. 2019).

    >>> rng = torch.Generator().manual_seed(0)
    >>> random_resized_crop(torch.rand(2, 1, 28, 28), rng, scale=(0.5, 1.0)).shape
    torch.Size([2, 1, 28, 28])
    """
    _check_images(x)
    low, high = scale
    if not 0 < low <= high:
        raise ValueError(f"scale must be two areas with 0 < least <= greatest, got {scale}")
    _check_range("rotation", rotation)
    n, channels, height, width = x.shape
    if size is not None and not (isinstance(size, Integral) and size >= 1):
        raise ValueError(f"size must be a whole number of pixels, at least 1, got {size!r}")
    shape = x.shape if size is None else (n, channels, size, round(size * width / height))
    if low == high == 1 and rotation == 0 and shape == x.shape:
        return x
    side = _uniform(n, low, high, x, rng).flatten().sqrt()
    room = (1 - side).clamp_min(0)
    dx, dy = (room * _uniform(n, -1, 1, x, rng).flatten() for _ in range(2))
    turn = torch.deg2rad(_uniform(n, -rotation, rotation, x, rng).flatten())
    cos, sin = side * torch.cos(turn), side * torch.sin(turn)
    aspect = height / width  # the grid's coordinates run from -1 to 1 along either side
    theta = torch.stack([torch.stack([cos, -sin * aspect, dx], 1), torch.stack([sin / aspect, cos, dy], 1)], 1)
    grid = F.affine_grid(theta, list(shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


@torch.no_grad()
@full_precision
def jitter(x: Tensor, rng: torch.Generator, *, strength: float = 0.4) -> Tensor:
    """Change each image's contrast by a factor in 1 ± strength and its brightness by a shift of up to ± strength / 2.

    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> torch.equal(jitter(x, torch.Generator(), strength=0.0), x)
    True
    """
    _check_images(x)
    _check_range("strength", strength)
    if strength == 0:
        return x
    factor = _uniform(len(x), 1 - strength, 1 + strength, x, rng)
    shift = _uniform(len(x), -strength / 2, strength / 2, x, rng)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * factor + mean + shift).clamp(0, 1)


@torch.no_grad()
@full_precision
def mix_channels(x: Tensor, rng: torch.Generator, *, strength: float = 0.5) -> Tensor:
    """Blend each image's channels by a random matrix: (1 − strength) · identity + strength · random rows of sum 1.

    It changes hue and saturation and keeps shapes; on images of one channel it does nothing.

    >>> x = torch.rand(2, 1, 4, 4)
    >>> torch.equal(mix_channels(x, torch.Generator()), x)
    True
    """
    _check_images(x)
    _check_range("strength", strength, 1)
    n, channels = x.shape[:2]
    if strength == 0 or channels == 1:
        return x
    mix = torch.rand(n, channels, channels, generator=rng, device=x.device, dtype=x.dtype)
    mix = mix / mix.sum(2, keepdim=True)
    mix = (1 - strength) * torch.eye(channels, device=x.device, dtype=x.dtype) + strength * mix
    return torch.einsum("ndc,nchw->ndhw", mix, x)


@torch.no_grad()
@full_precision
def random_invert(x: Tensor, rng: torch.Generator, *, probability: float = 0.5) -> Tensor:
    """Turn each image into its negative, 1 − x, with the given probability.

    >>> random_invert(torch.zeros(1, 1, 1, 2), torch.Generator(), probability=1.0).flatten().tolist()
    [1.0, 1.0]
    """
    _check_images(x)
    _check_range("probability", probability, 1)
    flip = _uniform(len(x), 0, 1, x, rng) < probability
    return torch.where(flip, 1 - x, x)


@torch.no_grad()
@full_precision
def random_flip(x: Tensor, rng: torch.Generator, *, probability: float = 0.5) -> Tensor:
    """Mirror each image left to right with the given probability. Not for letters or digits.

    >>> random_flip(torch.tensor([[[[0.0, 1.0]]]]), torch.Generator(), probability=1.0).flatten().tolist()
    [1.0, 0.0]
    """
    _check_images(x)
    _check_range("probability", probability, 1)
    flip = _uniform(len(x), 0, 1, x, rng) < probability
    return torch.where(flip, x.flip(3), x)


@torch.no_grad()
@full_precision
def gaussian_noise(x: Tensor, rng: torch.Generator, *, strength: float = 0.1) -> Tensor:
    """Add independent Gaussian noise whose standard deviation is drawn from 0 to `strength` for each image.

    >>> gaussian_noise(torch.zeros(2, 1, 4, 4), torch.Generator(), strength=0.1).shape
    torch.Size([2, 1, 4, 4])
    """
    _check_images(x)
    _check_range("strength", strength)
    if strength == 0:
        return x
    noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
    return (x + _uniform(len(x), 0, strength, x, rng) * noise).clamp(0, 1)


def augment(
    x: Tensor,
    rng: torch.Generator,
    *,
    size: int | None = None,
    crop: tuple[float, float] = (0.4, 1.0),
    rotation: float = 30.0,
    brightness: float = 0.4,
    noise: float = 0.1,
    mixing: float = 0.5,
    invert: float = 0.0,
    flip: float = 0.0,
) -> Tensor:
    """The course's standard view: crop and turn, jitter, channel mixing, inversion, noise, each with its own strength.

    It plays the part of SimCLR's augmentation (Chen et al. 2020, §3 and appendix A) for small images. Switch a part
    off with strength 0 or, for the crop, `crop=(1, 1)`; that is how an ablation is written. `size` is the height of the
    views, if not the images' own.

    >>> augment(torch.rand(2, 1, 28, 28), torch.Generator().manual_seed(0), crop=(1, 1)).shape
    torch.Size([2, 1, 28, 28])
    """
    x = random_resized_crop(x, rng, scale=crop, rotation=rotation, size=size)
    x = jitter(x, rng, strength=brightness)
    x = mix_channels(x, rng, strength=mixing)
    if invert:
        x = random_invert(x, rng, probability=invert)
    if flip:
        x = random_flip(x, rng, probability=flip)
    return gaussian_noise(x, rng, strength=noise)


@torch.no_grad()
def rotate_four_ways(x: Tensor) -> tuple[Tensor, Tensor]:
    """All four quarter turns of every image: (4N, C, H, W), and how many turns each had: (4N,) int64 in 0–3.

    Counter-clockwise, as in Gidaris et al. 2018, §3.1. Images must be square.

    >>> turned, turns = rotate_four_ways(torch.rand(2, 1, 8, 8))
    >>> turned.shape, turns.tolist()
    (torch.Size([8, 1, 8, 8]), [0, 0, 1, 1, 2, 2, 3, 3])
    """
    _check_images(x)
    if x.shape[2] != x.shape[3]:
        raise ValueError(f"quarter turns need square images, got {x.shape[2]}×{x.shape[3]}: crop them first")
    turned = torch.cat([torch.rot90(x, turns, (2, 3)) for turns in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))


@torch.no_grad()
def mask_patches(
    x: Tensor, rng: torch.Generator, *, patch: int = 7, ratio: float = 0.5, fill: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Hide the same number of random square patches in every image: masked images, and the mask (N, 1, H, W) bool.

    The mask is True where the image is hidden. Of the grid of H/patch × W/patch patches, round(ratio · count) are
    hidden, at least one and never all. Raises ValueError when `patch` does not divide H and W.

    >>> rng = torch.Generator().manual_seed(0)
    >>> masked, mask = mask_patches(torch.rand(2, 1, 28, 28), rng, patch=7, ratio=0.25)
    >>> mask.float().mean((1, 2, 3)).tolist()
    [0.25, 0.25]
    """
    _check_images(x)
    n, _, height, width = x.shape
    if not isinstance(patch, Integral) or patch < 1 or height % patch or width % patch:
        raise ValueError(f"patch must be a whole number that divides the image's {height}×{width} pixels, got {patch}")
    rows, columns = height // patch, width // patch
    count = rows * columns
    if not 0 < ratio < 1 or count < 2:
        raise ValueError(f"ratio must lie between 0 and 1 on a grid of at least 2 patches, got {ratio} of {count}")
    hidden = min(max(round(ratio * count), 1), count - 1)
    order = torch.rand(n, count, generator=rng, device=x.device).argsort(1)
    mask = (order < hidden).view(n, 1, rows, columns)
    mask = mask.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return x.masked_fill(mask, fill), mask
