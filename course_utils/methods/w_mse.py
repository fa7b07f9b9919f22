"""W-MSE: whiten the batch, then views need only agree. Whitened features cannot collapse.

Ermolov, Siarohin, Sangineto and Sebe, "Whitening for Self-Supervised Representation Learning", 2021.
Symbols: v the head's output, z = W (v − μ) whitened, d its dimensions.
"""

import torch
from torch import nn

from course_utils.distributed import gather
from course_utils.losses import whitening_mse
from course_utils.methods.base import Method
from course_utils.models import MLP
from course_utils.views import View, augment


class WMSE(Method):
    """Equation 2 with two views an image, whitened by Cholesky in random sub-batches (the paper's batch slicing).

    sub_batch: rows that are whitened together, about twice `projection_dim` or more; the whole batch where that is
    smaller. iterations: how many random partitions into sub-batches the loss is averaged over. Batches of all processes
    are joined first. normalize: compare the directions of the whitened rows, the paper's first choice, or the rows as
    they are, its Euclidean variant. That is the default here: comparing directions leaves a way out, in which a few
    outliers of the batch carry all the variance while the rest share one direction, to which large steps seem to lead.

    The head has the paper's one hidden layer with batch norm, at a size that fits a small encoder. A last batch norm
    without scale and shift is added: whitening undoes it, but eps, the shrinkage that keeps a nearly singular
    covariance invertible, is then measured in variances. The authors' code has eps = 0.

    >>> from course_utils.models import ConvEncoder
    >>> method = WMSE(ConvEncoder(1, width=8), projection_dim=2)
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> loss.ndim
    0
    """

    def __init__(
        self,
        encoder,
        *,
        projection_dim: int = 32,
        hidden_dim: int = 128,
        sub_batch: int = 128,
        iterations: int = 1,
        normalize: bool = False,
        eps: float = 1e-8,
        view: View = augment,
    ):
        super().__init__()
        if not sub_batch > projection_dim:
            raise ValueError(f"sub_batch must be more than the {projection_dim} dimensions, got {sub_batch}")
        if not iterations >= 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self.encoder = encoder
        layers = MLP(encoder.out_dim, hidden_dim, projection_dim, bias=False)
        self.head = nn.Sequential(*layers, nn.BatchNorm1d(projection_dim, affine=False))
        self.sub_batch, self.iterations, self.view = sub_batch, iterations, view
        self.options = {"normalize": normalize, "eps": eps}

    def training_loss(self, batch, rng):
        x1, x2 = self.view(batch, rng), self.view(batch, rng)
        v1, v2 = (gather(v) for v in self.head(self.encoder(torch.cat([x1, x2]))).chunk(2))
        loss = 0
        for _ in range(self.iterations):
            order = torch.randperm(len(v1), generator=rng, device=v1.device)
            order = gather(order)[: len(v1)]  # the first process's, in all
            size = min(self.sub_batch, len(v1))
            loss += whitening_mse(v1[order], v2[order], sub_batch=size, **self.options)
        return loss / self.iterations, {}
