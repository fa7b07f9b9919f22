"""A network that follows another: its weights are the exponential moving average of the other's."""

import copy
import math

import torch
from torch import nn


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy of `network` that no gradient reaches: what `follow` moves.

    >>> next(frozen_copy(nn.Linear(2, 2)).parameters()).requires_grad
    False
    """
    return copy.deepcopy(network).requires_grad_(False)


def rising(momentum: float, progress: float) -> float:
    """`momentum` at the start of training, 1 at its end, along a half cosine (Grill et al. 2020, BYOL, §3.2).

    With `progress` the part of training done: 1 − (1 − m)(cos(π · progress) + 1) / 2.

    >>> rising(0.5, 0.0), rising(0.5, 0.5), rising(0.5, 1.0)
    (0.5, 0.75, 1.0)
    """
    return 1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def follow(target: nn.Module, online: nn.Module, *, momentum: float) -> None:
    """Move `target` towards `online` in place: θ' ← m θ' + (1 − m) θ (He et al. 2020, MoCo, equation 2).

    Parameters are averaged; buffers, such as the statistics of batch norm, are copied. Raises ValueError for a
    momentum outside [0, 1].

    >>> online, target = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    >>> _ = online.weight.data.fill_(1.0), target.weight.data.fill_(0.0)
    >>> follow(target, online, momentum=0.75)
    >>> target.weight.item()
    0.25
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie between 0 and 1, got {momentum}")
    torch._foreach_lerp_([*target.parameters()], [*online.parameters()], 1 - momentum)
    for buffer, source in zip(target.buffers(), online.buffers(), strict=True):
        buffer.copy_(source)
