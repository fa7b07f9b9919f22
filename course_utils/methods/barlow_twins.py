"""Barlow Twins: every dimension agrees with itself across views, and with no other.

Zbontar, Jing, Misra, LeCun and Deny, "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", 2021.
Symbols: z1, z2 projections of the two views, C their cross-correlation matrix, λ the weight of its off-diagonal.
"""

from course_utils.distributed import gather
from course_utils.losses import barlow_twins
from course_utils.methods.base import Method
from course_utils.models import MLP
from course_utils.views import View, augment


class BarlowTwins(Method):
    """Algorithm 1, on the joined batch of all processes; `encode` returns the representation before the projector.

    The projector has the paper's three layers, the last without bias (§2.2), with `projection_dim` units each where
    the paper has 8,192. There are that many times more correlations off the diagonal than on it, and so the default
    `lambda_` is larger than the paper's 0.005.

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = BarlowTwins(ConvEncoder(1, width=8))
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> loss.ndim
    0
    """

    def __init__(self, encoder, *, lambda_: float = 2e-2, projection_dim: int = 256, view: View = augment):
        super().__init__()
        if not lambda_ >= 0:
            raise ValueError(f"lambda_ must not be negative, got {lambda_}")
        self.encoder = encoder
        self.projector = MLP(encoder.out_dim, *3 * [projection_dim], bias=False)
        self.lambda_, self.view = lambda_, view

    def training_loss(self, batch, rng):
        z1, z2 = (self.projector(self.encoder(self.view(batch, rng))) for _ in range(2))
        return barlow_twins(gather(z1), gather(z2), lambda_=self.lambda_), {}
