"""Heads: the small networks that sit on an encoder while it is trained and are thrown away afterwards."""

from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Linear layers of the given sizes with batch norm and ReLU between them: (N, sizes[0]) -> (N, sizes[-1]).

    `MLP(128, 128, 64)` is SimCLR's projection head g(h) = W₂ ReLU(W₁ h) (Chen et al. 2020, §2.1) with batch norm
    after the hidden layer, as in the authors' code; `MLP(128, 10)` is a linear classifier.

    >>> import torch
    >>> MLP(128, 128, 64)(torch.rand(2, 128)).shape
    torch.Size([2, 64])
    """

    def __init__(self, *sizes: int):
        if len(sizes) < 2:
            raise ValueError(f"an MLP needs at least an input and an output size, got {sizes}")
        layers = []
        for before, after in pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(sizes[-2], sizes[-1]))
