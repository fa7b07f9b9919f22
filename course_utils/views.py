"""Views: random transforms of a whole batch at once, each a pure function of the images and a generator.

Every function takes images `x` (N, C, H, W) float in [0, 1] and an explicit `torch.Generator` on the same device, and
draws its parameters afresh for each image. None changes its input. Strength 0 leaves the images as they are.
"""

import math
from collections.abc import Callable
from functools import lru_cache
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


def _check_whole(**given: tuple[int, int]) -> None:
    for name, (value, least) in given.items():
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")


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
    x: Tensor, rng: torch.Generator, *, patch: int = 7, ratio: float = 0.5, fill: float | str = 0.0
) -> tuple[Tensor, Tensor]:
    """Hide the same number of random square patches in every image: masked images, and the mask (N, 1, H, W) bool.

    The mask is True where the image is hidden. Of the grid of H/patch × W/patch patches, round(ratio · count) are
    hidden, at least one and never all, and take the value `fill`, or with "mean" that of what is visible in each image
    and channel. Raises ValueError when `patch` does not divide H and W.

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
    if fill == "mean":
        visible = x.masked_fill(mask, 0).sum((2, 3), keepdim=True) / (~mask).sum((2, 3), keepdim=True)
        return torch.where(mask, visible.to(x.dtype), x), mask
    if isinstance(fill, str):
        raise ValueError(f"fill must be a number or 'mean', got {fill!r}")
    return x.masked_fill(mask, fill), mask


@torch.no_grad()
def patch_grid(
    x: Tensor, rng: torch.Generator, *, patch: int = 8, gap: int = 1, jitter: int = 1, grid: int = 3
) -> Tensor:
    """Cut grid × grid square patches out of each image, row by row: (N, grid², C, patch, patch).

    Neighbours lie `gap` pixels apart, and then each patch moves by 0 to `jitter` pixels right and down, drawn apart, so
    that the gaps vary and strokes cannot be continued exactly. Where the image is larger than the grid, the grid lies
    anywhere in it. `jitter` is at most `gap`: patches never overlap. Doersch et al. 2015 (§3) leave gaps of half a
    patch; Noroozi and Favaro 2016 (§3) cut tiles of 64 pixels out of cells of 75, which is `gap = jitter = 11`.

    >>> patch_grid(torch.rand(2, 1, 28, 28), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 9, 1, 8, 8])
    """
    _check_images(x)
    _check_whole(patch=(patch, 1), gap=(gap, 0), jitter=(jitter, 0), grid=(grid, 1))
    if jitter > gap:
        raise ValueError(f"jitter must not exceed the gap, or patches overlap, got jitter {jitter} and gap {gap}")
    n, _, height, width = x.shape
    extent = grid * patch + (grid - 1) * gap + jitter
    if extent > min(height, width):
        wanted = f"{grid}×{grid} patches of {patch} pixels with gap {gap} and jitter {jitter} need {extent} pixels"
        raise ValueError(f"{wanted}, the images have {height}×{width}: choose smaller ones")

    def draw(count: int, length: int) -> Tensor:
        return (torch.rand(n, count, generator=rng, device=x.device) * (length + 1)).long().clamp_max(length)

    cell = torch.arange(grid, device=x.device) * (patch + gap)
    top = draw(1, height - extent) + cell.repeat_interleave(grid) + draw(grid**2, jitter)  # (N, grid²)
    left = draw(1, width - extent) + cell.repeat(grid) + draw(grid**2, jitter)
    return _cut(x, top, left, patch, patch)


def _cut(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """The windows of images (N, C, H, W) whose corners are at top and left (N, T): (N, T, C, height, width)."""
    rows = top[:, :, None, None] + torch.arange(height, device=x.device)[:, None]  # (N, T, height, 1)
    columns = left[:, :, None, None] + torch.arange(width, device=x.device)  # (N, T, 1, width)
    images = torch.arange(len(x), device=x.device)[:, None, None, None]
    return x.permute(0, 2, 3, 1)[images, rows, columns].permute(0, 1, 4, 2, 3)


@torch.no_grad()
@full_precision
def equalise_patches(patches: Tensor, x: Tensor, *, deviation: bool = True) -> Tensor:
    """Shift and stretch each patch (N, T, C, h, w), channel by channel, to the mean and deviation of its image x.

    So no patch can be placed by its brightness or contrast, which is why Noroozi and Favaro 2016 (§3.3) normalise every
    tile by itself, and an encoder trained on patches meets whole images on the scale that it knows. With
    `deviation=False` only the means are made equal.

    >>> x = torch.rand(2, 1, 28, 28)
    >>> patches = equalise_patches(patch_grid(x, torch.Generator().manual_seed(0)), x)
    >>> torch.allclose(patches.mean((3, 4)), x.mean((2, 3))[:, None].expand(2, 9, 1), atol=1e-5)
    True
    """
    _check_images(x)
    if patches.ndim != 5 or patches.shape[0] != len(x) or patches.shape[2] != x.shape[1]:
        wanted = f"({len(x)}, T, {x.shape[1]}, h, w)"
        raise ValueError(f"patches must have shape {wanted}, as those of the images, got {tuple(patches.shape)}")
    centred = patches - patches.mean((3, 4), keepdim=True)
    if deviation:
        own = patches.std((3, 4), keepdim=True, correction=0)
        wanted = x.std((2, 3), keepdim=True, correction=0)[:, None]
        centred = centred * (wanted / own.clamp_min(1e-3))
    return centred + x.mean((2, 3), keepdim=True)[:, None]


def permutation_set(count: int, *, tiles: int = 9) -> Tensor:
    """`count` orders of so many tiles, each as different from the others as can be: (count, tiles) int64.

    Greedy, as algorithm 1 of Noroozi and Favaro 2016: to those chosen comes the order whose Hamming distances to them
    have the greatest sum; among equals, which the paper leaves open, the one whose least distance is the greatest, then
    the first. It starts from the identity instead of a random order: renaming the tiles changes no distance.

    >>> permutation_set(3, tiles=3).tolist()
    [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    """
    _check_whole(tiles=(tiles, 2), count=(count, 2))
    if tiles > 9 or count > math.factorial(tiles):
        raise ValueError(f"orders are chosen among those of up to 9 tiles, got {count} orders of {tiles} tiles")
    return _greedy_orders(count, tiles).clone()


@lru_cache  # the search takes a good part of a second
def _greedy_orders(count: int, tiles: int) -> Tensor:
    every = torch.zeros(1, 1, dtype=torch.int8)
    for length in range(2, tiles + 1):  # in lexicographic order: each first tile, before the orders of the others
        first = torch.arange(length, dtype=torch.int8).repeat_interleave(len(every))[:, None]
        others = every.repeat(length, 1)
        every = torch.cat([first, others + (others >= first)], 1)
    columns = every.T.contiguous()  # (tiles, tiles!)
    chosen, total = [0], torch.zeros(len(every), dtype=torch.int32)
    nearest = torch.full((len(every),), tiles, dtype=torch.uint8)
    while len(chosen) < count:
        distance = (columns != every[chosen[-1]][:, None]).sum(0, dtype=torch.uint8)
        total, nearest = total + distance, torch.minimum(nearest, distance)
        score = (total * (tiles + 1) + nearest).masked_fill(nearest == 0, -1)  # the sum first; none is chosen twice
        chosen.append(score.argmax().item())
    return every[chosen].long()


@torch.no_grad()
def luminance(x: Tensor) -> Tensor:
    """Y = 0.299 R + 0.587 G + 0.114 B, the brightness of colour images (ITU-R BT.601): (N, 3, H, W) to (N, 1, H, W).

    Images of one channel are brightness already and come back as they are.

    >>> luminance(torch.ones(1, 3, 2, 2)).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    _check_images(x)
    if x.shape[1] == 1:
        return x
    if x.shape[1] != 3:
        raise ValueError(f"brightness is that of 1 or 3 channels, got images of shape {tuple(x.shape)}")
    return (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


@torch.no_grad()
def chroma(x: Tensor) -> Tensor:
    """What the luminance Y leaves out of colour images: Cb = (B − Y) / 1.772 and Cr = (R − Y) / 1.402, (N, 2, H, W).

    Both lie between −0.5 and 0.5 and are 0 for greys (ITU-R BT.601).

    >>> chroma(torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1))[0, 0].item()
    0.5
    """
    y = luminance(x)
    return torch.cat([(x[:, 2:] - y) / 1.772, (x[:, :1] - y) / 1.402], 1)


@torch.no_grad()
def with_chroma(y: Tensor, chroma: Tensor) -> Tensor:
    """The colour images of a luminance (N, 1, H, W) and a chroma (N, 2, H, W), cut off at 0 and 1: (N, 3, H, W).

    >>> x = torch.rand(2, 3, 4, 4)
    >>> torch.allclose(with_chroma(luminance(x), chroma(x)), x, atol=1e-6)
    True
    """
    cb, cr = chroma.split(1, 1)
    red, blue = y + 1.402 * cr, y + 1.772 * cb
    return torch.cat([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], 1).clamp(0, 1)


@torch.no_grad()
@full_precision
def drop_channels(x: Tensor, rng: torch.Generator) -> Tensor:
    """Keep one random channel of each image; the others become its mean with noise of 1/100 of its deviation.

    The colour dropping of Doersch et al. 2015 (§3.1), where colour gives away the place of a patch: lenses bend red
    and blue light differently. On images of one channel it does nothing.

    >>> x = torch.rand(2, 1, 4, 4)
    >>> torch.equal(drop_channels(x, torch.Generator()), x)
    True
    """
    _check_images(x)
    n, channels = x.shape[:2]
    if channels == 1:
        return x
    kept = (torch.rand(n, generator=rng, device=x.device) * channels).long().clamp_max(channels - 1)
    keep = torch.arange(channels, device=x.device) == kept[:, None]  # (N, C)
    channel = x[keep][:, None]  # (N, 1, H, W)
    noise = torch.randn(x.shape, generator=rng, device=x.device, dtype=x.dtype)
    noise = 0.01 * channel.std((2, 3), keepdim=True, correction=0) * noise
    return torch.where(keep[:, :, None, None], x, (channel.mean((2, 3), keepdim=True) + noise).clamp(0, 1))


@torch.no_grad()
@full_precision
def low_resolution(x: Tensor, rng: torch.Generator, *, factor: int = 4) -> Tensor:
    """What is left of each image on a grid `factor` times coarser, enlarged bicubically to its size again.

    Coarse pixels are means over factor × factor squares, and the coarse grid lies anywhere: its phase is drawn for each
    image. A factor of 1 leaves the images as they are.

    >>> low_resolution(torch.rand(2, 1, 28, 28), torch.Generator().manual_seed(0), factor=4).shape
    torch.Size([2, 1, 28, 28])
    """
    _check_images(x)
    _check_whole(factor=(factor, 1))
    n, _, height, width = x.shape
    if factor > min(height, width):
        raise ValueError(f"factor must not exceed the image's {height}×{width} pixels, got {factor}")
    if factor == 1:
        return x
    rows, columns = (factor * -(-(length + factor - 1) // factor) for length in (height, width))
    around = (factor - 1, columns - width, factor - 1, rows - height)  # coarse pixels may reach beyond the edge
    top, left = (torch.rand(2, n, 1, generator=rng, device=x.device) * factor).long().clamp_max(factor - 1)
    shifted = _cut(F.pad(x, around, mode="replicate"), top, left, rows, columns)[:, 0]
    coarse = F.avg_pool2d(shifted, factor)
    fine = F.interpolate(coarse, size=(rows, columns), mode="bicubic", align_corners=False)
    return _cut(fine, factor - 1 - top, factor - 1 - left, height, width)[:, 0].clamp(0, 1)
