"""ViT: an image as a sentence of patches, read by a transformer.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", 2021.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.models.encoders import _check_images


def patchify(x: Tensor, patch: int) -> Tensor:
    """Cut images (N, C, H, W) into squares, row by row: (N, H/patch · W/patch, patch² · C), as MAE's code orders them.

    >>> patchify(torch.arange(16.0).view(1, 1, 4, 4), patch=2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
    """
    _check_grid(*x.shape[2:], patch)
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int, *, size: tuple[int, int]) -> Tensor:
    """Put the squares of `patchify` back together: (N, T, patch² · C) to images (N, C, H, W) of size (H, W).

    >>> x = torch.rand(2, 3, 8, 12)
    >>> torch.equal(unpatchify(patchify(x, 4), 4, size=(8, 12)), x)
    True
    """
    _check_grid(*size, patch)
    n, count, values = patches.shape
    rows, columns = size[0] // patch, size[1] // patch
    if count != rows * columns or values % patch**2:
        wanted = f"(N, {rows * columns}, {patch**2} · channels)"
        raise ValueError(f"patches of {size[0]}×{size[1]} images are {wanted}, got {tuple(patches.shape)}")
    x = patches.reshape(n, rows, columns, patch, patch, -1)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, *size)


def _check_grid(height: int, width: int, patch: int) -> None:
    if height % patch or width % patch:
        raise ValueError(
            f"{patch}×{patch} patches need images whose sides are multiples of {patch}, got {height}×{width}: "
            "resize or crop them first, or choose another patch"
        )


def sine_cosine_positions(dim: int, rows: int, columns: int, *, side: int | None = None) -> Tensor:
    """Where the patches of a grid lie, row by row: (rows · columns, dim) float64; `dim` is a multiple of 4.

    As in MAE's code: the first half of the numbers tells the column p, the second half the row, each by sin(p ω) and
    cos(p ω) at dim/4 frequencies ω = 10000^(−k / (dim/4)), k = 0, 1, … (Vaswani et al. 2017, §3.5).

    side: length of the grid that the network was built for, if it is another one. The given grid is then stretched
    over it, centre on centre, so that the same place of an image has nearly the same numbers at every resolution.

    >>> sine_cosine_positions(4, 1, 2).round(decimals=2).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.84, 0.54, 0.0, 1.0]]
    """
    frequencies = 10_000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def waves(count: int) -> Tensor:
        places = (torch.arange(count, dtype=torch.float64) + 0.5) * (side or count) / count - 0.5
        angles = places[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)  # (count, dim / 2)

    across, down = waves(columns), waves(rows)
    return torch.cat([across.repeat(rows, 1), down.repeat_interleave(columns, 0)], 1)


class Block(nn.Module):
    """A pre-norm transformer block: x ← x + Attention(norm(x)), then x ← x + MLP(norm(x)) (equations 2 and 3).

    >>> Block(16, heads=2)(torch.rand(3, 5, 16)).shape
    torch.Size([3, 5, 16])
    """

    def __init__(self, dim: int, *, heads: int, expansion: int = 4):
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must divide by the number of heads, got {dim} and {heads}")
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(F.scaled_dot_product_attention(*self._heads(x)).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))

    def attention(self, x: Tensor) -> Tensor:
        """The weights softmax(q kᵀ / √d) of every head: (N, T, dim) -> (N, heads, T, T); the last axis sums to 1."""
        q, k, _ = self._heads(x)
        return (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, (N, heads, T, dim / heads) each."""
        return self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class ViT(nn.Module):
    """Patches of `patch`×`patch` pixels and a class token, through `depth` pre-norm blocks of width `dim`.

    The vision transformer of the paper (§3.1) on a small scale, with the fixed sine-cosine positions and the
    initialisation of MAE's code. Images need not have the `size` it was built for, as long as the patch divides their
    sides: the positions are stretched over the image. Pixels in [0, 1] become (x − 0.5) / 0.25, as the usual constants
    do it with photographs. `out_dim` is `dim`; T is the number of patches of an image. The default is for two
    processor cores, and has as many features as `ConvEncoder`.

    pool: what `forward` gives of the tokens after the last norm. "mean" averages the patches', the usual choice to
    probe networks that no loss on the class token has trained (MAE, I-JEPA); "class" takes the class token (DINO).

    >>> encoder = ViT(in_channels=1)
    >>> x = torch.rand(2, 1, 28, 28)
    >>> encoder(x).shape, encoder.tokens(x).shape, encoder.attention(x).shape
    (torch.Size([2, 48]), torch.Size([2, 50, 48]), torch.Size([2, 3, 50, 50]))
    """

    def __init__(
        self,
        in_channels: int = 1,
        *,
        size: int = 28,
        patch: int = 4,
        dim: int = 48,
        depth: int = 3,
        heads: int = 3,
        pool: str = "mean",
    ):
        super().__init__()
        _check_grid(size, size, patch)
        if dim % 4:
            raise ValueError(f"dim must be a multiple of 4, for sine and cosine of row and column, got {dim}")
        if pool not in ("mean", "class"):
            raise ValueError(f"pool must be 'mean' or 'class', got {pool!r}")
        self.in_channels, self.out_dim = in_channels, dim
        self.patch, self.side, self.heads, self.pool = patch, size // patch, heads, pool
        self.embed = nn.Conv2d(in_channels, dim, patch, stride=patch)  # a linear layer on every patch
        nn.init.xavier_uniform_(self.embed.weight.view(dim, -1))
        nn.init.zeros_(self.embed.bias)
        self.class_token = nn.Parameter(0.02 * torch.randn(dim))
        self.blocks = nn.ModuleList(Block(dim, heads=heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        return tokens[:, 0] if self.pool == "class" else tokens[:, 1:].mean(1)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """What becomes of the class token and of every patch: (N, 1 + T, dim), normalised.

        keep: (N, K) int64, numbers of the patches of each image that are seen, counted row by row; the others are
        left out before the first block, as in MAE, and the result is (N, 1 + K, dim) in the order of `keep`.
        """
        tokens = self._embedded(x, keep)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def attention(self, x: Tensor) -> Tensor:
        """Who looks at whom in the last block: (N, heads, 1 + T, 1 + T); row 0 is what the class token looks at."""
        tokens = self._embedded(x)
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.blocks[-1].attention(tokens)

    def positions(self, x: Tensor) -> Tensor:
        """The positions of the patches of images like x, (T, dim) on x's device."""
        rows, columns = (length // self.patch for length in x.shape[2:])
        return sine_cosine_positions(self.out_dim, rows, columns, side=self.side).to(x)

    def _embedded(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        _check_images(x, self.in_channels)
        _check_grid(*x.shape[2:], self.patch)
        patches = self.embed((x - 0.5) / 0.25).flatten(2).transpose(1, 2) + self.positions(x)  # (N, T, dim)
        if keep is not None:
            _check_keep(keep, *patches.shape[:2])
            patches = patches.gather(1, keep[:, :, None].expand(-1, -1, self.out_dim))
        return torch.cat([self.class_token.to(patches).expand(len(x), 1, -1), patches], 1)


def _check_keep(keep: Tensor, n: int, count: int) -> None:
    if keep.ndim != 2 or len(keep) != n or keep.shape[1] == 0 or keep.dtype != torch.int64:
        raise ValueError(f"keep must be int64 of shape ({n}, at least 1), got {keep.dtype} {tuple(keep.shape)}")
    if keep.min() < 0 or keep.max() >= count:
        raise ValueError(f"keep must number patches from 0 to {count - 1}, got {keep.min()} to {keep.max()}")
