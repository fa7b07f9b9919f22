"""Contrastive objectives: tell the partner of a view from the views of other examples."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating, check_pairs, check_temperature
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


@full_precision
def info_nce(query: Tensor, key: Tensor, negatives: Tensor | None = None, *, temperature: float) -> Tensor:
    """InfoNCE of van den Oord et al. 2018 (CPC), equation 4, with the cosines of He et al. 2020 (MoCo), equation 1.

    query, key: (N, D) floating point, row i of each from the same example. negatives: (K, D), wrong answers that all
    queries share, such as MoCo's queue; without them, the other N − 1 keys of the batch are a query's negatives, as in
    CPC and NNCLR, and N must be at least 2. All are normalised here. For a query q, its key k₊ and the negatives kᵢ:

        L(q) = −log( exp(q·k₊/τ) / (exp(q·k₊/τ) + Σᵢ exp(q·kᵢ/τ)) )

    Returns the mean over the queries, a scalar; log(K + 1), or log N without negatives, where all candidates are alike.
    Gradients reach every argument: holding the keys still is the caller's, `info_nce(q, k.detach(), queue, ...)`.
    Raises ValueError for shapes that do not fit, no negatives or temperature ≤ 0, and TypeError for anything but
    floating-point tensors.

    >>> q, queue = torch.eye(4)[:1], torch.eye(4)[1:]
    >>> round(info_nce(q, q, queue, temperature=0.5).item(), 4)  # log(1 + 3 exp(-2)): the key agrees, others orthogonal
    0.3408
    """
    check_temperature(temperature)
    if negatives is None:
        check_pairs(query=query, key=key)
        q, k = F.normalize(query, dim=1) / temperature, F.normalize(key, dim=1)
        return F.cross_entropy(q @ k.T, torch.arange(len(q), device=q.device))
    check_pairs(query=query, key=key, at_least=1, why="or there is nothing to tell apart")
    check_floating(negatives=negatives)
    if negatives.ndim != 2 or len(negatives) == 0 or negatives.shape[1] != query.shape[1]:
        raise ValueError(f"negatives must be (at least 1, {query.shape[1]}), got {tuple(negatives.shape)}")
    q, k, others = (F.normalize(part, dim=1) for part in (query, key, negatives))
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ others.T], dim=1) / temperature  # (N, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))
