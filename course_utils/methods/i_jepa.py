"""I-JEPA: predict what a network makes of hidden blocks of an image, and not their pixels.

Assran et al., "Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture", 2023.
Symbols: s_y representations of the image's patches by the target encoder, ŝ_y their prediction from the context.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.losses import reconstruction
from course_utils.methods.base import Method
from course_utils.models.momentum import follow, frozen_copy
from course_utils.models.vit import Block, ViT, sine_cosine_positions
from course_utils.views import View


class IJEPA(Method):
    """Section 3 of the paper: from one context, the representations of several target blocks, each predicted alone.

    The target encoder, a moving average of the encoder, sees the whole image and is the only one that does. The encoder
    sees the patches that no target block covers. A narrow predictor gets them and, for each target block, a mask token
    with a position for every patch of it. The loss is the squared distance of ŝ_y and s_y, here its mean over
    elements where the paper sums within a block.

    normalise: how s_y is scaled. "layer" normalises every patch over its features, as the authors' code does;
    "instance" every feature over the patches of its image, as data2vec does for speech, whose neighbouring pieces are
    alike (Baevski et al. 2022, §3.3): it takes away what all patches share, such as the light, which any patch tells of
    any other. blocks, scale, aspect: how many target blocks, the range of their area as a part of the grid, and of
    height to width; the paper's scale, (0.15, 0.2), is for 14×14 patches and more. See `draw_blocks` for the context.
    momentum: where the moving average's starts; it rises to 1 along a line (the paper's 0.996 is for some hundred
    thousand updates). `encode` uses the encoder, not the target encoder as in the paper: at the end of training the two
    are nearly the same.

    Raises ValueError for a momentum outside [0, 1] or an unknown normalise.

    >>> method = IJEPA(ViT(1, dim=16, depth=1, heads=2))
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> loss.ndim
    0
    """

    network = ViT

    def __init__(
        self,
        encoder: ViT,
        *,
        blocks: int = 4,
        scale: tuple[float, float] = (0.04, 0.09),
        aspect: tuple[float, float] = (0.75, 1.5),
        normalise: str = "instance",
        momentum: float = 0.95,
        width: int = 24,
        depth: int = 1,
        heads: int = 2,
        view: View | None = None,
    ):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
        if normalise not in ("instance", "layer"):
            raise ValueError(f"normalise must be 'instance' or 'layer', got {normalise!r}")
        self.encoder, self.target = encoder, frozen_copy(encoder)
        self.narrow = nn.Linear(encoder.out_dim, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.predictor = nn.Sequential(
            *(Block(width, heads=heads) for _ in range(depth)), nn.LayerNorm(width, eps=1e-6)
        )
        self.widen = nn.Linear(width, encoder.out_dim)
        self.shapes = {"blocks": blocks, "scale": scale, "aspect": aspect}
        self.normalise, self.momentum, self.view = normalise, momentum, view

    def training_loss(self, batch, rng):
        x = batch if self.view is None else self.view(batch, rng)
        grid = tuple(length // self.encoder.patch for length in x.shape[2:])
        context, targets = draw_blocks(len(x), grid, rng, **self.shapes)
        predicted = self(x, context, targets)
        s = self.representations(x)[torch.arange(len(x), device=x.device)[:, None, None], targets]  # (N, M, B, dim)
        return reconstruction(predicted, s), {}

    @torch.no_grad()
    def representations(self, x: Tensor) -> Tensor:
        """s_y of every patch, (N, T, dim), by the target encoder."""
        tokens = self.target.tokens(x)[:, 1:]
        if self.normalise == "layer":
            return F.layer_norm(tokens, tokens.shape[2:])
        return F.instance_norm(tokens.transpose(1, 2)).transpose(1, 2)

    def forward(self, x: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """ŝ_y (N, M, B, dim) of the M blocks of B patches in `targets` (N, M, B), from the patches in `context`."""
        n, m, size = targets.shape
        seen = self.narrow(self.encoder.tokens(x, context)[:, 1:])  # (N, K, width)
        rows, columns = (length // self.encoder.patch for length in x.shape[2:])
        places = sine_cosine_positions(seen.shape[2], rows, columns, side=self.encoder.side).to(seen)  # (T, width)
        seen = (seen + places[context]).repeat_interleave(m, 0)  # (N · M, K, width): every block on its own
        asked = (self.mask_token + places[targets]).flatten(0, 1)  # (N · M, B, width)
        answers = self.predictor(torch.cat([seen, asked], 1))[:, -size:]
        return self.widen(answers).unflatten(0, (n, m))

    def after_step(self, progress):
        follow(self.target, self.encoder, momentum=self.momentum + (1 - self.momentum) * progress)


def draw_blocks(
    n: int,
    grid: tuple[int, int],
    rng: torch.Generator,
    *,
    blocks: int = 4,
    scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
) -> tuple[Tensor, Tensor]:
    """Which patches of a grid (rows, columns) are context (n, K) and which are targets (n, blocks, B), both int64.

    As in the authors' code one height and width is drawn for all blocks of a batch, and their places for each block of
    each image. The paper's context is a block of 0.85 to 1 of the image less the targets; on 7×7 patches that
    rounds to the whole image. As many context patches are kept in every image as the poorest of the batch has, drawn
    at random (the authors' code keeps the first ones).

    >>> context, targets = draw_blocks(2, (7, 7), torch.Generator().manual_seed(0))
    >>> targets.shape[:2], set(context[0].tolist()) & set(targets[0].flatten().tolist())
    (torch.Size([2, 4]), set())
    """
    rows, columns = grid
    for name, (low, high) in {"scale": scale, "aspect": aspect}.items():
        if not 0 < low <= high:
            raise ValueError(f"{name} must be two numbers with 0 < least <= greatest, got {(low, high)}")
    device = rng.device
    draws = torch.rand(2, generator=rng, device=device).tolist()
    area, ratio = (low + (high - low) * u for (low, high), u in zip((scale, aspect), draws, strict=True))
    area *= rows * columns
    height = min(max(round((area * ratio) ** 0.5), 1), rows)
    width = min(max(round((area / ratio) ** 0.5), 1), columns)
    if blocks < 1 or blocks * height * width >= rows * columns:
        raise ValueError(f"{blocks} blocks of {height}×{width} patches leave no context in {rows}×{columns} patches")
    tops = torch.randint(rows - height + 1, (n, blocks, 1, 1), generator=rng, device=device)
    lefts = torch.randint(columns - width + 1, (n, blocks, 1, 1), generator=rng, device=device)
    down, across = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    targets = ((tops + down) * columns + lefts + across).flatten(2)  # (n, blocks, B)
    covered = torch.zeros(n, rows * columns, dtype=torch.bool, device=device).scatter(1, targets.flatten(1), True)
    order = torch.rand(n, rows * columns, generator=rng, device=device).masked_fill(covered, 2).argsort(1)
    return order[:, : int((~covered).sum(1).min())], targets
