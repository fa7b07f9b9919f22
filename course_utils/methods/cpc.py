"""CPC: read an image patch by patch from the top, and tell which patches come further down from those of other images.

van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive Coding", 2018, §3.3.
Symbols: g_enc encoder, z = g_enc(patch), g_ar autoregressive network, c context, k how many rows ahead, W_k its map.
"""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.distributed import gather, world_size
from course_utils.losses import info_nce
from course_utils.methods.base import Method
from course_utils.models.encoders import _check_images
from course_utils.views import View, augment

# every patch on its own: otherwise brightness tells the images of a batch apart, and shared pixels tell the neighbours
change_patches: View = functools.partial(augment, crop=(0.6, 1.0), rotation=20.0, brightness=0.8)


class CPC(Method):
    """Patches on an overlapping grid (N, rows, columns); c of a patch sees the rows above it, and W_k c predicts below.

    g_ar is the paper's row-GRU: a convolution along each row, then a GRU down the columns. For every k in `steps` the
    patch k rows below is to be told from the other patches of the batch, of its own image and of others (equation 4).
    A step costs `pairs` × `pairs` comparisons: so many of the pairs are drawn, and each is the others' negatives.

    From the second version (Hénaff et al. 2020): patches are changed one by one by `patch_view` (§3), and the bilinear
    form zᵀ W_k c is factored, (V z)ᵀ W_k c, with V z of size `projection_dim` (appendix A). Unlike in either, the two
    are compared by their cosine over `temperature`, the encoder has batch norm, and `encode` runs it on the whole
    image. Both papers average over patches, as `pooled` does, which on Glyphs tells letters better.

    >>> from course_utils.models import ConvEncoder
    >>> method = CPC(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> method.grid(torch.rand(4, 1, 28, 28)).shape, sorted(logs)
    (torch.Size([4, 5, 5, 1, 12, 12]), ['accuracy_1', 'accuracy_2'])
    """

    def __init__(
        self,
        encoder,
        *,
        patch: int = 12,
        stride: int = 4,
        steps: Sequence[int] = (1, 2),
        pairs: int = 512,
        temperature: float = 0.2,
        projection_dim: int = 64,
        view: View = augment,
        patch_view: View = change_patches,
    ):
        super().__init__()
        if patch < 1 or stride < 1 or pairs < 2:
            raise ValueError(f"patch and stride must be positive and pairs at least 2, got {patch}, {stride}, {pairs}")
        if not steps or min(steps) < 1 or len(set(steps)) < len(steps):
            raise ValueError(f"steps must be different whole numbers of rows, at least 1, got {steps!r}")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        dim = encoder.out_dim
        self.encoder = encoder
        self.across, self.down = nn.Conv1d(dim, dim, 3, padding=1), nn.GRU(dim, dim, batch_first=True)
        self.W = nn.ModuleList(nn.Linear(dim, projection_dim, bias=False) for _ in steps)
        self.V = nn.Linear(dim, projection_dim, bias=False)
        self.patch, self.stride, self.steps, self.pairs = patch, stride, tuple(steps), pairs
        self.temperature, self.view, self.patch_view = temperature, view, patch_view

    def grid(self, x: Tensor) -> Tensor:
        """The patches (N, rows, columns, C, patch, patch) of images (N, C, H, W)."""
        _check_images(x, self.encoder.in_channels)
        if min(x.shape[2:]) < self.patch + max(self.steps) * self.stride:
            raise ValueError(
                f"patches of {self.patch} pixels every {self.stride}, {max(self.steps)} rows ahead, need images of at "
                f"least {self.patch + max(self.steps) * self.stride} pixels, got {x.shape[2]}×{x.shape[3]}"
            )
        return x.unfold(2, self.patch, self.stride).unfold(3, self.patch, self.stride).permute(0, 2, 3, 1, 4, 5)

    @torch.no_grad()
    def pooled(self, x: Tensor, *, batch_size: int = 256) -> Tensor:
        """Features (N, D) of images, the mean over their patches, as `encode` gives those of whole images."""
        parts = (self.grid(part) for part in x.split(batch_size))
        return torch.cat([self.encode(part.flatten(0, 2)).unflatten(0, part.shape[:3]).mean((1, 2)) for part in parts])

    def context(self, z: Tensor) -> Tensor:
        """c = g_ar(z), both (N, rows, columns, D): it sees its own row and those above, in a cone."""
        n, rows, columns, _ = z.shape
        beside = F.relu(self.across(z.flatten(0, 1).transpose(1, 2)))  # (N · rows, D, columns)
        beside = beside.unflatten(0, (n, rows)).permute(0, 3, 1, 2).flatten(0, 1)  # (N · columns, rows, D)
        return self.down(beside)[0].unflatten(0, (n, columns)).transpose(1, 2)

    def predictions(self, x: Tensor, rng: torch.Generator) -> dict[int, tuple[Tensor, Tensor]]:
        """For every k, W_k c and the V z it should resemble, a row each for every patch that has one k rows below."""
        patches = self.grid(x)
        z = self.encoder(self.patch_view(patches.flatten(0, 2), rng)).unflatten(0, patches.shape[:3])
        c, v = self.context(z), self.V(z)
        return {
            k: (W(c[:, :-k]).flatten(0, 2), v[:, k:].flatten(0, 2)) for k, W in zip(self.steps, self.W, strict=True)
        }

    def training_loss(self, batch, rng):
        loss, logs = 0, {}
        for k, (predicted, target) in self.predictions(self.view(batch, rng), rng).items():
            drawn = torch.randperm(len(target), generator=rng, device=target.device)[: self.pairs // world_size()]
            q, v = gather(predicted[drawn]), gather(target[drawn])
            loss = loss + info_nce(q, v, temperature=self.temperature) / len(self.steps)
            logs[f"accuracy_{k}"] = share_told(q, v)
        return loss, logs


@torch.no_grad()
def share_told(predicted: Tensor, target: Tensor) -> float:
    """How often a prediction (N, D) is most like its own target among all N: 1/N is chance.

    >>> share_told(torch.eye(3), torch.eye(3)[[0, 2, 1]])
    0.3333333432674408
    """
    most_like = (predicted.float() @ F.normalize(target.float(), dim=1).T).argmax(1)
    return (most_like == torch.arange(len(target), device=target.device)).float().mean().item()
