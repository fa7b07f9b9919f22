"""Colours as classes: chroma in bins, softly encoded, and a cross-entropy in which rare colours count for more.

Zhang, Isola and Efros, "Colorful Image Colorization", 2016, sections 2.1 and 2.2. The paper's chroma are a and b of CIE
Lab; here they are Cb and Cr, which with the luminance Y make up RGB linearly (`views.chroma`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating
from course_utils.precision import full_precision


def colour_bins(step: float = 0.1) -> Tensor:
    """The points (Cb, Cr) of a grid with this step that some colour has, (Q, 2) float32.

    >>> colour_bins(0.1).shape, colour_bins(0.5).tolist()
    (torch.Size([71, 2]), [[0.0, 0.0]])
    """
    if not 0 < step <= 0.5:
        raise ValueError(f"step must be positive and at most 0.5, got {step}")
    reach = int(0.5 / step + 1e-6)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64) * step
    cb, cr = torch.meshgrid(axis, axis, indexing="ij")
    red, blue = 1.402 * cr, 1.772 * cb  # how far red and blue lie from the luminance
    offsets = torch.stack([red, -(0.299 * red + 0.114 * blue) / 0.587, blue])
    exists = offsets.amax(0) - offsets.amin(0) <= 1 + 1e-6  # for some luminance all three lie in [0, 1]
    return torch.stack([cb[exists], cr[exists]], 1).float()


@torch.no_grad()
@full_precision
def soft_encode(chroma: Tensor, bins: Tensor, *, sigma: float, neighbours: int = 5) -> Tensor:
    """The soft labels Z of §2.1: each pixel's chroma spread over its nearest bins by a Gaussian of their distances.

    chroma: (N, 2, H, W), bins: (Q, 2); Z is (N, Q, H, W) and sums to 1 over Q. The paper takes 5 neighbours and a sigma
    of half the bins' step.

    >>> bins = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.4, 0.4]])
    >>> soft_encode(torch.full((1, 2, 1, 1), 0.0), bins, sigma=0.05, neighbours=2).flatten()
    tensor([0.8808, 0.1192, 0.0000])
    """
    check_floating(chroma=chroma, bins=bins)
    if chroma.ndim != 4 or chroma.shape[1] != 2 or bins.ndim != 2 or bins.shape[1] != 2:
        raise ValueError(f"wanted chroma (N, 2, H, W) and bins (Q, 2), got {tuple(chroma.shape)}, {tuple(bins.shape)}")
    if not sigma > 0 or not 1 <= neighbours <= len(bins):
        raise ValueError(f"wanted sigma > 0 and 1 to {len(bins)} neighbours, got {sigma} and {neighbours}")
    n, _, height, width = chroma.shape
    pixels = chroma.permute(0, 2, 3, 1).reshape(-1, 2)
    distance = (pixels[:, None] - bins).square().sum(2)  # (NHW, Q)
    near, which = distance.topk(neighbours, largest=False)
    weight = (-near / (2 * sigma**2)).softmax(1)
    return torch.zeros_like(distance).scatter_(1, which, weight).view(n, height, width, -1).permute(0, 3, 1, 2)


@full_precision
def rebalancing_weights(prior: Tensor, *, uniform: float = 0.5) -> Tensor:
    """Equation 4: w ∝ ((1 − λ) p̃ + λ/Q)⁻¹ with Σ p̃_q w_q = 1, for how often (Q,) each colour occurs; λ is `uniform`.

    >>> rebalancing_weights(torch.tensor([0.75, 0.25]), uniform=0.5)
    tensor([0.8571, 1.4286])
    """
    check_floating(prior=prior)
    if prior.ndim != 1 or not (prior >= 0).all() or not prior.sum() > 0:
        raise ValueError(f"prior must be (Q,), not negative and not all 0, got shape {tuple(prior.shape)}")
    if not 0 <= uniform <= 1:
        raise ValueError(f"uniform must lie between 0 and 1, got {uniform}")
    prior = prior / prior.sum()
    weights = 1 / ((1 - uniform) * prior + uniform / len(prior))
    return weights / (prior * weights).sum()


@full_precision
def colour_cross_entropy(logits: Tensor, z: Tensor, *, weights: Tensor) -> Tensor:
    """Equation 2: −Σ v(Z) Σ_q Z_q log Ẑ_q with Ẑ = softmax(logits) and v(Z) the weight of Z's greatest entry (eq. 3).

    logits, z: (N, Q, H, W); weights: (Q,). The mean over pixels, a scalar, where the paper writes a sum.

    >>> z = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    >>> round(colour_cross_entropy(torch.zeros(1, 2, 1, 1), z, weights=torch.tensor([2.0, 1.0])).item(), 4)  # 2 log 2
    1.3863
    """
    check_floating(logits=logits, z=z, weights=weights)
    if logits.ndim != 4 or logits.shape != z.shape or weights.shape != logits.shape[1:2]:
        shapes = ", ".join(str(tuple(part.shape)) for part in (logits, z, weights))
        raise ValueError(f"wanted logits and z of one shape (N, Q, H, W) and weights (Q,), got {shapes}")
    v = weights[z.argmax(1)]  # (N, H, W)
    return (v * F.cross_entropy(logits, z, reduction="none")).mean()
