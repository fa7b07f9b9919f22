"""Objectives: one pure function each, named and typed as in its paper. Gradients flow; nothing is kept."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.precision import full_precision


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, *, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross-entropy of Chen et al. 2020 (SimCLR), equation 1 and algorithm 1.

    z1, z2: (N, D) floating point, N ≥ 2; row i of each comes from the same image. They are normalised here. For each of
    the 2N views the other view of its image is the positive and the remaining 2N − 2 are the negatives:

        ℓ(i, j) = −log( exp(sim(zᵢ, zⱼ)/τ) / Σ_{k≠i} exp(sim(zᵢ, z_k)/τ) )

    Returns the mean over all 2N views, a scalar. Raises ValueError for unequal shapes, N < 2 or temperature ≤ 0, and
    TypeError for anything but floating-point tensors.

    >>> z = torch.eye(4)
    >>> round(nt_xent(z, z, temperature=0.5).item(), 4)  # log(1 + 6 exp(-2)): positives agree, others orthogonal
    0.5944
    """
    _check_pairs(z1, z2)
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = (z / temperature @ z.T).fill_diagonal_(-torch.inf)  # scaled before: N·D divisions, not N²
    positive = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, positive)


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
    _check_floating(x_hat=x_hat, x=x)
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


def _check_pairs(z1: Tensor, z2: Tensor) -> None:
    _check_floating(z1=z1, z2=z2)
    if z1.ndim != 2 or z1.shape != z2.shape:
        raise ValueError(f"z1 and z2 must have one shape (N, D), got {tuple(z1.shape)} and {tuple(z2.shape)}")
    if len(z1) < 2:
        raise ValueError(f"at least 2 pairs are needed, or there are no negatives; got {len(z1)}")


def _check_floating(**tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}")
