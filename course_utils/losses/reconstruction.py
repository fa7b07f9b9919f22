"""Reconstruction: how far what a network rebuilt, painted or predicted is from what was there."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating
from course_utils.precision import full_precision


@full_precision
def reconstruction(x_hat: Tensor, x: Tensor, *, kind: str = "mse", mask: Tensor | None = None) -> Tensor:
    """How far a reconstruction is from its target: the mean over elements, a scalar.

    x_hat, x: the same shape (N, ...). kind: "mse", squared error (the Gaussian log-likelihood up to constants), or
    "bce", cross-entropy of logits `x_hat` with targets `x` in [0, 1] (the Bernoulli's). mask: bool, broadcastable to
    x; the mean is then over the True elements only, as in Pathak et al. 2016 (Context Encoders), equation 1.

    Raises ValueError for unequal shapes, an unknown kind, or a mask that does not fit or is nowhere True, and
    TypeError for anything but floating-point tensors.

    >>> reconstruction(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 1.0]])).item()
    2.0
    """
    check_floating(x_hat=x_hat, x=x)
    if x_hat.shape != x.shape:
        raise ValueError(f"x_hat and x must have one shape, got {tuple(x_hat.shape)} and {tuple(x.shape)}")
    if kind == "mse":
        error = (x_hat - x) ** 2
    elif kind == "bce":
        error = F.binary_cross_entropy_with_logits(x_hat, x, reduction="none")
    else:
        raise ValueError(f"kind must be 'mse' or 'bce', got {kind!r}")
    if mask is None:
        return error.mean()
    if mask.dtype != torch.bool or not mask.any():
        raise ValueError(f"mask must be boolean with at least one True, got {mask.dtype} with {int(mask.sum())}")
    try:
        mask = mask.expand_as(error)
    except RuntimeError:
        raise ValueError(f"mask must broadcast to x {tuple(x.shape)}, got {tuple(mask.shape)}") from None
    return error[mask].mean()
