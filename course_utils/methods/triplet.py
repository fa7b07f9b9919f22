"""Triplets: an image should be nearer to another view of itself than to any other image, by a margin.

Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering", 2015.
Symbols: a anchor, p positive, n negative, α margin; all embeddings lie on the unit sphere.
"""

import torch

from course_utils.distributed import gather
from course_utils.losses import mine_triplets, triplet_margin
from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import View, augment


class Triplet(Method):
    """The triplet loss of §3.1 with negatives mined from the batch as in §3.2, by default semi-hard ones.

    Each view of an image is an anchor once; the other view is its positive, and `mining` chooses its negative among
    the views of all other images. It logs the active part of the triplets, those that the margin is not yet kept in.

    Departures: FaceNet is supervised, a positive being another picture of the same person. A batch of (images, labels)
    is trained like that, with every pair of views of one label an anchor and its positive; without labels an image is
    its own class. The loss is on the `dim` outputs of an MLP head, and the encoder keeps its own output, as in SimCLR.

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = Triplet(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(8, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['active']
    """

    def __init__(
        self, encoder, *, margin: float = 0.2, mining: str = "semi-hard", dim: int = 128, view: View = augment
    ):
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin must be positive, got {margin}")
        if mining not in ("random", "semi-hard", "hard"):
            raise ValueError(f"mining must be 'random', 'semi-hard' or 'hard', got {mining!r}")
        self.encoder = encoder
        self.head = MLP(encoder.out_dim, encoder.out_dim, dim)
        self.margin, self.mining, self.view = margin, mining, view

    def training_loss(self, batch, rng):
        x, labels = batch if isinstance(batch, tuple) else (batch, None)
        x1, x2 = self.view(x, rng), self.view(x, rng)
        z1, z2 = map(gather, self.head(self.encoder(torch.cat([x1, x2]))).chunk(2))
        labels = torch.arange(len(z1), device=z1.device) if labels is None else gather(labels)
        z = torch.cat([z1, z2])
        a, p, n = mine_triplets(z, labels.repeat(2), kind=self.mining, margin=self.margin, rng=rng)
        losses = triplet_margin(z[a], z[p], z[n], margin=self.margin, reduction="none")
        return losses.mean(), {"active": (losses > 0).float().mean().item()}
