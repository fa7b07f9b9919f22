"""Objectives of clusters and self-distillation: predict which cluster, or which answer of a teacher, an image has."""

from numbers import Integral

import torch
from torch import Tensor

from course_utils.losses._checks import check_floating, check_temperature
from course_utils.precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Codes that share a batch out evenly over the prototypes: Caron et al. 2020 (SwAV), equation 3 and appendix A.

    scores: (B, K) floating point, zᵢᵀc_k for image i and prototype k. Of all ways to share B images out so that every
    prototype gets as many, the codes maximise Tr(Qᵀ CᵀZ) + ε H(Q). The solution has the form (equation 5)

        Q = Diag(u) exp(CᵀZ / ε) Diag(v)

    and is approached by turns: scale every prototype's total to B/K, then every image's to 1 (Cuturi 2013). It is done
    with logarithms, where no ε > 0 overflows. Returns the codes q (B, K): rows sum to 1 exactly, columns to B/K as far
    as `iterations` have brought them; with none of them this is the softmax of scores / ε. No gradient flows.

    >>> sinkhorn(torch.tensor([[3.0, 2.0], [3.0, 0.0]]), epsilon=0.1, iterations=200).round(decimals=2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    check_floating(scores=scores)
    check_temperature(epsilon, "epsilon")
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must have shape (B, K) with images and prototypes, got {tuple(scores.shape)}")
    if not isinstance(iterations, Integral) or iterations < 0:
        raise ValueError(f"iterations must be a whole number, at least 0, got {iterations!r}")
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q.log_softmax(0)  # every prototype's total alike
        log_q = log_q.log_softmax(1)  # every image's total alike
    return log_q.softmax(1)


@full_precision
def swapped_prediction(scores_t: Tensor, scores_s: Tensor, q_t: Tensor, q_s: Tensor, *, temperature: float) -> Tensor:
    """Predict the code of one view from the other: Caron et al. 2020 (SwAV), equations 1 and 2.

    scores_t, scores_s: (B, K), zᵀc_k for the two views of each image; q_t, q_s: (B, K), their codes, through which no
    gradient flows. With p = softmax(zᵀC / τ):

        L(z_t, z_s) = ℓ(z_t, q_s) + ℓ(z_s, q_t),    ℓ(z_t, q_s) = −Σ_k q_s⁽ᵏ⁾ log p_t⁽ᵏ⁾

    Returns the mean over images and over the two terms, a scalar: log K where the scores tell nothing.

    >>> scores, codes = torch.zeros(2, 4), torch.eye(2, 4)
    >>> round(swapped_prediction(scores, scores, codes, codes, temperature=0.1).item(), 4)  # log 4
    1.3863
    """
    named = {"scores_t": scores_t, "scores_s": scores_s, "q_t": q_t, "q_s": q_s}
    check_floating(**named)
    check_temperature(temperature)
    _check_one_shape(**named)
    from_t = -(q_s.detach() * (scores_t / temperature).log_softmax(1)).sum(1)
    from_s = -(q_t.detach() * (scores_s / temperature).log_softmax(1)).sum(1)
    return (from_t + from_s).mean() / 2


@full_precision
def dino(
    student: Tensor, teacher: Tensor, *, center: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Answer as the teacher does: Caron et al. 2021 (DINO), equations 1 and 2, and H of algorithm 1.

    student, teacher: (N, K), what the networks make of different views of the same images; center: (K,), subtracted
    from what the teacher says. P_s = softmax(student / τ_s), P_t = softmax((teacher − c) / τ_t), and the loss is

        H(P_t, P_s) = −Σ_k P_t⁽ᵏ⁾ log P_s⁽ᵏ⁾

    averaged over the images, a scalar. No gradient flows through the teacher or the centre.

    >>> student, teacher = torch.zeros(2, 4), torch.eye(2, 4)
    >>> loss = dino(student, teacher, center=torch.zeros(4), student_temperature=0.1, teacher_temperature=0.04)
    >>> round(loss.item(), 4)  # log 4
    1.3863
    """
    check_floating(student=student, teacher=teacher, center=center)
    check_temperature(student_temperature, "student_temperature")
    check_temperature(teacher_temperature, "teacher_temperature")
    _check_one_shape(student=student, teacher=teacher)
    if center.shape != student.shape[1:]:
        raise ValueError(f"center must have shape {tuple(student.shape[1:])}, got {tuple(center.shape)}")
    p_t = ((teacher - center) / teacher_temperature).softmax(1).detach()
    return -(p_t * (student / student_temperature).log_softmax(1)).sum(1).mean()


def _check_one_shape(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 or 0 in shape for shape in shapes.values()):
        raise ValueError(f"{', '.join(shapes)} must have one shape (N, K), got {', '.join(map(str, shapes.values()))}")
