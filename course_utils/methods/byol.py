"""BYOL: predict how a slowly moving copy of oneself sees the other view. No image is told from another.

Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning", 2020.
Symbols: θ online weights, ξ target weights, y representation, z projection, q predictor, τ the target's decay rate.
"""

import torch
from torch import nn

from course_utils.losses import negative_cosine
from course_utils.methods.base import Method, with_faster
from course_utils.methods.simsiam import spread
from course_utils.models import MLP, follow, frozen_copy, rising
from course_utils.views import View, augment


class BYOL(Method):
    """The loss of §3.1, equation 2, for both orders of the views; the target follows at a decay rate τ that ends at 1.

    momentum: τ at the start, from where it rises as 1 − (1 − τ)(cos(πk/K) + 1)/2 (§3.2). The paper has 0.996 for its
    hundred thousands of updates; the default is for hundreds. 1 never moves the target, 0 makes it the online network.
    predictor: network (N, projection_dim) -> the same, for q; `nn.Identity()` takes it away, and the network collapses.
    faster: how many times the others' learning rate the predictor's is; 1 in the paper's algorithm.

    Projector and predictor have the paper's form (§3.3: one hidden layer with batch norm), at a size that fits a small
    encoder. The optimiser is the caller's; the paper's is LARS. It logs `std`, which is 0 when all projections point
    the same way and about 1 when they spread evenly.

    >>> from course_utils.models import ConvEncoder
    >>> method = BYOL(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> list(logs)
    ['std']
    """

    def __init__(
        self,
        encoder,
        *,
        momentum: float = 0.9,
        hidden_dim: int = 128,
        projection_dim: int = 64,
        predictor: nn.Module | None = None,
        faster: float = 1.0,
        view: View = augment,
    ):
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
        self.encoder = encoder
        self.projector = MLP(encoder.out_dim, hidden_dim, projection_dim)
        self.predictor = MLP(projection_dim, hidden_dim, projection_dim) if predictor is None else predictor
        self.target = frozen_copy(self._online())
        self.momentum, self.faster, self.view = momentum, faster, view

    def parameter_groups(self, lr):
        return with_faster(self, self.predictor, lr=lr, times=self.faster)

    def training_loss(self, batch, rng):
        x1, x2 = self.view(batch, rng), self.view(batch, rng)
        z1, z2 = (self.projector(self.encoder(x)) for x in (x1, x2))
        with torch.no_grad():
            t1, t2 = self.target(x1), self.target(x2)
        both = negative_cosine(self.predictor(z1), t2) + negative_cosine(self.predictor(z2), t1)
        return 4 + 2 * both, {"std": spread(z1)}

    def after_step(self, progress):
        follow(self.target, self._online(), momentum=rising(self.momentum, progress))

    def _online(self) -> nn.Module:
        return nn.Sequential(self.encoder, self.projector)
