"""Contrastive objectives: tell the partner of a view from the views of other examples."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_pairs, check_temperature
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
    check_pairs(z1=z1, z2=z2)
    check_temperature(temperature)
    n = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = (z / temperature @ z.T).fill_diagonal_(-torch.inf)  # scaled before: N·D divisions, not N²
    positive = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(similarity, positive)
