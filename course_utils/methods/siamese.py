"""Siamese networks: one encoder sees both images of a pair, and learns how far apart they should lie.

Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", 2006.
Symbols: G encoder and head, D Euclidean distance of two outputs, m margin, Y = 1 for a dissimilar pair.
"""

from numbers import Integral

import torch

from course_utils.distributed import gather
from course_utils.losses import contrastive_margin
from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import View, augment


class Siamese(Method):
    """The contrastive loss of equation 4 on pairs of views.

    Two views of an image are a similar pair. Each first view makes `negatives` dissimilar pairs, with the second views
    of the next images of the batch, which is in random order. Every pair counts alike, as in the paper's sum, so
    `negatives` is the balance of the two kinds.

    Departures: the paper knows its similar pairs beforehand, as neighbours or from labels, and here views make them;
    the encoder keeps its own output, and an MLP head makes the `dim` outputs that are compared, as in SimCLR.
    A batch of (images, labels) takes any two views with one label for similar, as in the supervised setting.

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = Siamese(ConvEncoder(1, width=8))
    >>> loss, _ = method.training_loss(torch.rand(8, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> loss.ndim
    0
    """

    def __init__(self, encoder, *, margin: float = 4.0, negatives: int = 4, dim: int = 32, view: View = augment):
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin must be positive, got {margin}")
        if not isinstance(negatives, Integral) or negatives < 1:
            raise ValueError(f"negatives must be a whole number of pairs, at least 1, got {negatives!r}")
        self.encoder = encoder
        self.head = MLP(encoder.out_dim, encoder.out_dim, dim)
        self.margin, self.negatives, self.view = margin, negatives, view

    def training_loss(self, batch, rng):
        x, labels = batch if isinstance(batch, tuple) else (batch, None)
        x1, x2 = self.view(x, rng), self.view(x, rng)
        z1, z2 = map(gather, self.head(self.encoder(torch.cat([x1, x2]))).chunk(2))
        labels = torch.arange(len(z1), device=z1.device) if labels is None else gather(labels)
        if len(z1) < 2:
            raise ValueError(f"at least 2 images are needed, or there are no dissimilar pairs; got {len(z1)}")
        shifts = range(min(self.negatives, len(z1) - 1) + 1)  # shift 0 pairs the two views of an image
        z1, z2 = z1.repeat(len(shifts), 1), torch.cat([z2.roll(shift, 0) for shift in shifts])
        different = torch.cat([labels != labels.roll(shift) for shift in shifts])
        return contrastive_margin(z1, z2, different, margin=self.margin), {}
