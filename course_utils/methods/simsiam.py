"""SimSiam: predict one view from the other, and let the gradient through one side only.

Chen and He, "Exploring Simple Siamese Representation Learning", 2021.
Symbols: f encoder with its projector, z = f(x), h predictor, p = h(z), D negative cosine.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.losses import negative_cosine
from course_utils.methods.base import Method, with_faster
from course_utils.models import MLP
from course_utils.views import View, augment


class SimSiam(Method):
    """Algorithm 1: ½ D(p1, stopgrad(z2)) + ½ D(p2, stopgrad(z1)) (equation 4), between −1 and 1.

    predictor: network (N, projection_dim) -> the same, for h; without it a bottleneck as in §3, `nn.Identity()` takes
    it away. stop_gradient=False lets the gradient into both sides. Either of the two makes the network collapse (§4).

    The projector is the paper's three layers with batch norm on each, the last without scale and shift as in the
    authors' code, and the predictor has a hidden layer a quarter as wide; sizes fit a small encoder. So that the
    predictor is always near its optimum, the paper keeps its learning rate constant while the others fall; here it
    follows `fit`'s schedule at `faster` times the others' rate, without which hundreds of updates teach nothing.
    It logs `std` (§4.1), which is 0 when all projections z point the same way and about 1 when they spread evenly.

    >>> from course_utils.models import ConvEncoder
    >>> method = SimSiam(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> list(logs)
    ['std']
    """

    def __init__(
        self,
        encoder,
        *,
        projection_dim: int = 128,
        predictor: nn.Module | None = None,
        stop_gradient: bool = True,
        faster: float = 10.0,
        view: View = augment,
    ):
        super().__init__()
        d = projection_dim
        self.encoder = encoder
        layers = MLP(encoder.out_dim, d, d, d, bias=False)
        self.projector = nn.Sequential(*layers, nn.BatchNorm1d(d, affine=False))
        self.predictor = MLP(d, d // 4, d) if predictor is None else predictor
        self.stop_gradient, self.faster, self.view = stop_gradient, faster, view

    def parameter_groups(self, lr):
        return with_faster(self, self.predictor, lr=lr, times=self.faster)

    def training_loss(self, batch, rng):
        z1, z2 = (self.projector(self.encoder(self.view(batch, rng))) for _ in range(2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        t1, t2 = (z1.detach(), z2.detach()) if self.stop_gradient else (z1, z2)
        return (negative_cosine(p1, t2) + negative_cosine(p2, t1)) / 2, {"std": spread(z1)}


@torch.no_grad()
def spread(z: Tensor) -> float:
    """The standard deviation of the l2-normalised rows of z (N, D), averaged over dimensions, times √D (§4.1).

    >>> spread(torch.ones(4, 3)), round(spread(torch.cat([torch.eye(3), -torch.eye(3)])), 4)
    (0.0, 1.0)
    """
    return F.normalize(z.float(), dim=1).std(0, correction=0).mean().item() * math.sqrt(z.shape[1])
