"""Heads: the small networks that sit on an encoder while it is trained and are thrown away afterwards."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.precision import full_precision


class MLP(nn.Sequential):
    """Linear layers of the given sizes with batch norm and ReLU between them: (N, sizes[0]) -> (N, sizes[-1]).

    `MLP(128, 128, 64)` is SimCLR's projection head g(h) = W₂ ReLU(W₁ h) (Chen et al. 2020, §2.1) with batch norm
    after the hidden layer, as in the authors' code; `MLP(128, 10)` is a linear classifier. bias=False takes the bias
    of the last layer away, which is without effect where a mean over the batch is taken off afterwards.

    >>> import torch
    >>> MLP(128, 128, 64)(torch.rand(2, 128)).shape
    torch.Size([2, 64])
    """

    def __init__(self, *sizes: int, bias: bool = True):
        if len(sizes) < 2:
            raise ValueError(f"an MLP needs at least an input and an output size, got {sizes}")
        layers = []
        for before, after in pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(sizes[-2], sizes[-1], bias=bias))


@full_precision
def cosines(z: Tensor, w: Tensor) -> Tensor:
    """The cosine of every row of z (N, D) with every row of w (K, D): (N, K).

    >>> import torch
    >>> cosines(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])).tolist()
    [[1.0, 0.0]]
    """
    return F.normalize(z, dim=1) @ F.normalize(w, dim=1).T


class DINOHead(nn.Module):
    """DINO's projection head (Caron et al. 2021, §3.1 and appendix C): (N, in_dim) -> (N, outputs).

    Linear layers with GELU between them, as many as `layers`, end in a bottleneck of length 1; the last layer, without
    a bias, has rows of length 1 (weight normalisation with its gain held at 1, as in the authors' code). Every output
    is thus a cosine in [−1, 1]. batch_norm: after every hidden layer, as the authors offer it for convolutional
    networks, and, without parameters, in the bottleneck.

    >>> import torch
    >>> DINOHead(48, 256)(torch.rand(2, 48)).shape
    torch.Size([2, 256])
    """

    def __init__(
        self,
        in_dim: int,
        outputs: int,
        *,
        hidden: int = 128,
        bottleneck: int = 64,
        layers: int = 3,
        batch_norm: bool = False,
    ):
        super().__init__()
        parts, sizes = [], [in_dim, *[hidden] * (layers - 1)]
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after, bias=not batch_norm)]
            parts += [nn.BatchNorm1d(after), nn.GELU()] if batch_norm else [nn.GELU()]
        parts += [nn.Linear(sizes[-1], bottleneck, bias=not batch_norm)]
        parts += [nn.BatchNorm1d(bottleneck, affine=False)] if batch_norm else []
        self.mlp = nn.Sequential(*parts)
        self.last = nn.Linear(bottleneck, outputs, bias=False)
        nn.init.normal_(self.last.weight)  # long rows: a step of Adam turns them a little only

    def forward(self, h: Tensor) -> Tensor:
        return cosines(self.mlp(h), self.last.weight)
