"""Objectives of language: tell a word's neighbours from noise, and say which token was there."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating
from course_utils.precision import full_precision


@full_precision
def skip_gram_negative_sampling(v: Tensor, v_out: Tensor, v_noise: Tensor) -> Tensor:
    """Negative sampling of Mikolov et al. 2013 (Distributed Representations of Words and Phrases), equation 4.

    v: (N, D), vectors of the words w_I; v_out: (N, D), output vectors v′ of words near them, w_O; v_noise: (N, K, D),
    output vectors of K words drawn from the noise distribution for each. To be minimised is

        −log σ(v′_{w_O} · v_{w_I}) − Σ_{i=1..K} log σ(−v′_{w_i} · v_{w_I})

    Returns its mean over the N pairs, a scalar. Raises ValueError for shapes that do not agree and TypeError for
    anything but floating-point tensors.

    >>> v = torch.zeros(2, 3)
    >>> round(skip_gram_negative_sampling(v, v, torch.zeros(2, 5, 3)).item(), 4)  # blind: (1 + K) log 2
    4.1589
    """
    check_floating(v=v, v_out=v_out, v_noise=v_noise)
    if v.ndim != 2 or v_out.shape != v.shape or v_noise.ndim != 3 or (v_noise.shape[0], v_noise.shape[2]) != v.shape:
        shapes = ", ".join(str(tuple(part.shape)) for part in (v, v_out, v_noise))
        raise ValueError(f"v, v_out and v_noise must be (N, D), (N, D) and (N, K, D), got {shapes}")
    if len(v) == 0:
        raise ValueError("at least 1 pair is needed, got 0")
    near = F.logsigmoid((v * v_out).sum(1))  # (N,)
    noise = F.logsigmoid(-torch.bmm(v_noise, v[:, :, None])[:, :, 0]).sum(1)  # (N,)
    return -(near + noise).mean()


@full_precision
def masked_cross_entropy(logits: Tensor, targets: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean over the chosen positions of −log p(target), the objective of BERT's masked language model (§3.1).

    logits: (..., V); targets: (...) int64; mask: (...) bool, True where the target is to be predicted; None for
    everywhere, the objective of a causal language model. Raises ValueError for shapes that do not agree and for a mask
    that is nowhere True, and TypeError for logits that are not floating-point numbers.

    >>> logits = torch.tensor([[[9.0, 0.0], [0.0, 0.0]]])
    >>> round(masked_cross_entropy(logits, torch.tensor([[1, 1]]), mask=torch.tensor([[False, True]])).item(), 4)
    0.6931
    """
    check_floating(logits=logits)
    if logits.ndim < 2 or targets.shape != logits.shape[:-1]:
        shapes = f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"logits and targets must be (..., V) and (...), got {shapes}")
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != targets.shape or not mask.any():
            came = f"{mask.dtype} {tuple(mask.shape)} with {int(mask.sum())}"
            raise ValueError(f"mask must be boolean, shaped like targets, with at least one True, got {came}")
        logits, targets = logits[mask], targets[mask]
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())
