"""SimCLR: two views of an image should have similar representations, and differ from those of all other images.

Chen, Kornblith, Norouzi and Hinton, "A Simple Framework for Contrastive Learning of Visual Representations", 2020.
Symbols: f encoder, h = f(x̃) representation, g head, z = g(h) projection, τ temperature.
"""

import torch

from course_utils.distributed import gather
from course_utils.losses import nt_xent
from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import View, augment


class SimCLR(Method):
    """Algorithm 1 of the paper. The head g is used in training only; `encode` returns h.

    encoder: (N, C, H, W) -> (N, encoder.out_dim); view: draws one random view of each image of a batch.

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = SimCLR(ConvEncoder(1, width=8))
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> loss.ndim
    0
    """

    def __init__(self, encoder, *, temperature: float = 0.3, projection_dim: int = 128, view: View = augment):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.encoder = encoder
        self.head = MLP(encoder.out_dim, encoder.out_dim, projection_dim)
        self.temperature, self.view = temperature, view

    def training_loss(self, batch, rng):
        x1, x2 = self.view(batch, rng), self.view(batch, rng)
        z1, z2 = self.head(self.encoder(torch.cat([x1, x2]))).chunk(2)
        return nt_xent(gather(z1), gather(z2), temperature=self.temperature), {}
