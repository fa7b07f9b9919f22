"""MAE: hide most patches of an image, encode the few that are left, and paint the hidden ones.

He, Chen, Xie, Li, Dollár and Girshick, "Masked Autoencoders Are Scalable Vision Learners", 2022.
"""

import torch
from torch import Tensor, nn

from course_utils.losses import reconstruction
from course_utils.methods.base import Method
from course_utils.models.vit import Block, ViT, patchify, sine_cosine_positions
from course_utils.views import View


class MAE(Method):
    """Section 3 of the paper, as in its code (random masking, asymmetric encoder and decoder, loss on hidden patches).

    Of the T patches the encoder sees a random part 1 − `ratio`, and no mask tokens: that is what makes it cheap. The
    decoder, lighter than the encoder and thrown away afterwards, gets the encoded patches and a learned mask token in
    the place of every hidden one, with positions, and predicts all pixels. The loss is the squared error on hidden
    patches only, against pixels that are normalised within each patch (`normalise`, §3, "Reconstruction target").

    view: draws one random view of each image, None takes the images as they are. Departures: the sizes, made for 7×7
    patches and two cores (the paper's decoder has 8 blocks of width 512).

    >>> method = MAE(ViT(1, dim=16, depth=1, heads=2))
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> loss.ndim
    0
    """

    network = ViT

    def __init__(
        self,
        encoder: ViT,
        *,
        ratio: float = 0.75,
        normalise: bool = True,
        width: int = 32,
        depth: int = 1,
        heads: int = 2,
        view: View | None = None,
    ):
        super().__init__()
        if not 0 < ratio < 1:
            raise ValueError(f"ratio must lie between 0 and 1, both excluded, got {ratio}")
        self.encoder = encoder
        self.widen = nn.Linear(encoder.out_dim, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.Sequential(*(Block(width, heads=heads) for _ in range(depth)), nn.LayerNorm(width, eps=1e-6))
        self.pixels = nn.Linear(width, encoder.patch**2 * encoder.in_channels)
        self.ratio, self.normalise, self.view = ratio, normalise, view

    def training_loss(self, batch, rng):
        x = batch if self.view is None else self.view(batch, rng)
        keep, mask = self.split(x, rng)
        target = self.target(x)
        return reconstruction(self(x, keep), target, mask=mask[:, :, None]), {}

    def split(self, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The patches seen (N, K) int64, and where patches are hidden (N, T) bool: T · (1 − ratio) seen, at least 1."""
        count = (x.shape[2] // self.encoder.patch) * (x.shape[3] // self.encoder.patch)
        keep = torch.rand(len(x), count, generator=rng, device=x.device).argsort(1)
        keep = keep[:, : max(int(count * (1 - self.ratio)), 1)]
        return keep, torch.ones(len(x), count, dtype=torch.bool, device=x.device).scatter(1, keep, False)

    def target(self, x: Tensor) -> Tensor:
        """What is to be predicted of every patch: its pixels (N, T, patch² · C), normalised if the option says so."""
        patches = patchify(x, self.encoder.patch)
        return normalise_patches(patches) if self.normalise else patches

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """All patches (N, T, patch² · C) as predicted from those in `keep` (N, K)."""
        seen = self.widen(self.encoder.tokens(x, keep))  # (N, 1 + K, width)
        rows, columns = (length // self.encoder.patch for length in x.shape[2:])
        width = seen.shape[2]
        places = sine_cosine_positions(width, rows, columns, side=self.encoder.side).to(seen)  # (T, width)
        patches = self.mask_token.to(seen).expand(len(x), len(places), width)
        patches = patches.scatter(1, keep[:, :, None].expand(-1, -1, width), seen[:, 1:]) + places
        return self.pixels(self.blocks(torch.cat([seen[:, :1], patches], 1))[:, 1:])


def normalise_patches(patches: Tensor) -> Tensor:
    """Every patch (last axis) minus its mean, divided by its standard deviation √(variance + 10⁻⁶), as in MAE's code.

    >>> normalise_patches(torch.tensor([[[0.0, 0.0, 2.0, 2.0]]])).std(correction=1).round(decimals=3).item()
    1.0
    """
    variance, mean = torch.var_mean(patches, 2, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
