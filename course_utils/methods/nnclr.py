"""NNCLR: the positive of a view is not its own other view, but the most similar of earlier images.

Dwibedi, Aytar, Tompson, Sermanet and Zisserman, "With a Little Help from My Friends: Nearest-Neighbor Contrastive
Learning of Visual Representations", 2021. Symbols: z projection of length 1, p prediction, Q support set,
τ temperature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.distributed import gather
from course_utils.losses import info_nce
from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import View, augment


class NNCLR(Method):
    """Equation 3 with the predictor of §3.2, for both orders of the views:

        L = −log( exp(NN(zᵢ, Q)·pᵢ₊/τ) / Σ_k exp(NN(zᵢ, Q)·p_k₊/τ) ),   NN(z, Q) = argmin_{q in Q} ‖z − q‖₂

    queue_size: length of Q, 98,304 in the paper; temperature: 0.1 in the paper. `queue` holds the newest projection
    last; it starts with random directions, and takes in those of the first views, of all processes, in `after_step`.
    No gradient passes through Q.

    Projector (three layers, batch norm on each) and predictor (one hidden layer) have the paper's form, at a size that
    fits a small encoder. It logs `nearest`, the mean cosine of the projections and their neighbours.

    >>> from course_utils.models import ConvEncoder
    >>> method = NNCLR(ConvEncoder(1, width=8), queue_size=16)
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> method.queue.shape, list(logs)
    (torch.Size([16, 64]), ['nearest'])
    """

    def __init__(
        self,
        encoder,
        *,
        temperature: float = 0.2,
        queue_size: int = 2048,
        hidden_dim: int = 128,
        projection_dim: int = 64,
        view: View = augment,
    ):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if not queue_size >= 1:
            raise ValueError(f"queue_size must be at least 1, got {queue_size}")
        self.encoder = encoder
        layers = MLP(encoder.out_dim, hidden_dim, hidden_dim, projection_dim, bias=False)
        self.projector = nn.Sequential(*layers, nn.BatchNorm1d(projection_dim))
        self.predictor = MLP(projection_dim, hidden_dim, projection_dim)
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_dim), dim=1))
        self.fresh: Tensor | None = None  # the projections of the step in progress, not yet in the queue
        self.temperature, self.view = temperature, view

    def training_loss(self, batch, rng):
        x1, x2 = self.view(batch, rng), self.view(batch, rng)
        z1, z2 = (self.projector(self.encoder(x)) for x in (x1, x2))
        p1, p2 = (gather(self.predictor(z)) for z in (z1, z2))
        z1, z2 = (gather(F.normalize(z.detach().float(), dim=1)) for z in (z1, z2))
        n1, n2 = self.queue[self.nearest(z1)], self.queue[self.nearest(z2)]
        self.fresh = z1
        loss = info_nce(n1, p2, temperature=self.temperature) + info_nce(n2, p1, temperature=self.temperature)
        return loss / 2, {"nearest": (n1 * z1).sum(1).mean().item()}

    def after_step(self, progress):
        if self.fresh is not None:
            self.queue.copy_(torch.cat([self.queue, self.fresh])[-len(self.queue) :])  # the oldest, in front, leave
            self.fresh = None

    def nearest(self, z: Tensor) -> Tensor:
        """The place in the queue of each row's nearest neighbour: (N, D), of length 1 -> (N,) int64."""
        return (z @ self.queue.T).argmax(1)  # of vectors of length 1, the nearest are the most similar
