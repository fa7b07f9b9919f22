"""MoCo: tell a view's key from a queue of earlier keys, all made by an encoder that changes slowly.

He, Fan, Wu, Xie and Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", 2020, with the MLP
head and the temperature of Chen, Fan, Girshick and He, "Improved Baselines with Momentum Contrastive Learning", 2020
(MoCo v2). Symbols: q query, k₊ its key, kᵢ the queue's keys, K their number, m momentum, τ temperature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.distributed import gather
from course_utils.losses import info_nce
from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.models.momentum import follow, frozen_copy
from course_utils.views import View, augment


class MoCo(Method):
    """Algorithm 1: the loss is equation 1, the key encoder follows by equation 2, and the queue is first in, first out.

    momentum, queue_size: m and K. The papers have 0.999 and 65,536 for hundred thousands of small updates; the
    defaults are for hundreds of large ones, by which old keys age faster. `queue` holds the newest key last. It starts
    with random directions, which are easily told from any key: the loss is low until real keys have taken their places.
    It is filled in `after_step`, with the keys of all processes; a batch need not divide it.

    groups: batch norm sees the batch in so many parts, and the keys' parts are drawn at random. This is the paper's
    shuffled batch norm (§3.3) on one device, as in the authors' demonstration on CIFAR-10: a query and its key would
    otherwise share the statistics of one batch, by which they can be told from the queue. 1 leaves them shared.

    Departures: the loss is taken for both orders of the views, as in that demonstration (symmetric=False is the papers'
    loss, which learns more slowly), and the head has batch norm, at its end without scale and shift, as MoCo v3 has.

    >>> from course_utils.models import ConvEncoder
    >>> method = MoCo(ConvEncoder(1, width=8), queue_size=16)
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> method.queue.shape, loss.ndim
    (torch.Size([16, 128]), 0)
    """

    def __init__(
        self,
        encoder,
        *,
        temperature: float = 0.3,
        momentum: float = 0.95,
        queue_size: int = 1024,
        groups: int = 2,
        symmetric: bool = True,
        projection_dim: int = 128,
        view: View = augment,
    ):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
        for name, value in {"queue_size": queue_size, "groups": groups}.items():
            if not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.encoder = encoder
        layers = MLP(encoder.out_dim, encoder.out_dim, projection_dim, bias=False)
        self.head = nn.Sequential(*layers, nn.BatchNorm1d(projection_dim, affine=False))
        self.target = frozen_copy(self._online())
        self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_dim), dim=1))
        self.fresh: Tensor | None = None  # the keys of the step in progress, not yet in the queue
        self.temperature, self.momentum, self.groups = temperature, momentum, groups
        self.symmetric, self.view = symmetric, view

    def training_loss(self, batch, rng):
        if len(batch) < 2 * self.groups:
            raise ValueError(f"{self.groups} groups need at least {2 * self.groups} images, got {len(batch)}")
        x1, x2 = self.view(batch, rng), self.view(batch, rng)
        pairs = [(x1, x2), (x2, x1)] if self.symmetric else [(x1, x2)]
        loss, fresh = 0, []
        for x_q, x_k in pairs:
            q, k = _in_parts(self._online(), x_q, self.groups), self._keys(x_k, rng)
            loss += info_nce(q, k, self.queue, temperature=self.temperature) / len(pairs)
            fresh.append(gather(k))
        self.fresh = torch.cat(fresh)
        return loss, {}

    @torch.no_grad()
    def _keys(self, x: Tensor, rng: torch.Generator) -> Tensor:
        order = torch.randperm(len(x), generator=rng, device=x.device)
        k = _in_parts(self.target, x[order], self.groups)
        return F.normalize(k.float(), dim=1)[order.argsort()]

    def after_step(self, progress):
        follow(self.target, self._online(), momentum=self.momentum)
        if self.fresh is not None:
            self.queue.copy_(torch.cat([self.queue, self.fresh])[-len(self.queue) :])  # the oldest, in front, leave
            self.fresh = None

    def _online(self) -> nn.Module:
        return nn.Sequential(self.encoder, self.head)


def _in_parts(network: nn.Module, x: Tensor, parts: int) -> Tensor:
    """network(x), with batch statistics of each part of the batch by itself."""
    return torch.cat([network(part) for part in x.tensor_split(parts)])
