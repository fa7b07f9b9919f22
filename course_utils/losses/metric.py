"""Metric learning: distances that say what belongs together, learnt from pairs and from triplets of examples."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.losses._checks import check_floating, check_pairs
from course_utils.precision import full_precision


@full_precision
def contrastive_margin(x1: Tensor, x2: Tensor, y: Tensor, *, margin: float = 1.0) -> Tensor:
    """The contrastive loss of Hadsell, Chopra and LeCun 2006, equation 4, averaged over pairs.

    x1, x2: (N, D) embeddings, not normalised here: the margin sets their scale. y: (N,) bool, or numbers from 0 to 1;
    as in the paper 0 is a similar pair and 1 a dissimilar one. With the Euclidean distance D of a pair and margin m,

        (1 − y) ½ D² + y ½ max(0, m − D)²

    Dissimilar pairs further apart than the margin count for nothing. Where a dissimilar pair coincides the distance
    has no direction, and its gradient is 0. Returns a scalar. Raises ValueError for shapes that do not fit, y outside
    of 0 to 1 or margin ≤ 0, and TypeError for embeddings that are not floating point.

    >>> x = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    >>> round(contrastive_margin(x, x + torch.tensor([0.3, 0.4]), torch.tensor([0, 1]), margin=1.0).item(), 4)
    0.125
    """
    check_pairs(x1=x1, x2=x2, at_least=1, why="or there is nothing to average")
    _check_margin(margin)
    if not isinstance(y, Tensor) or y.shape != x1.shape[:1]:
        raise ValueError(f"y must be a tensor with a number for each of the {len(x1)} pairs, got {_kind(y)}")
    y = y.to(x1.dtype)
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError("y must lie between 0, a similar pair, and 1, a dissimilar one")
    distance = torch.linalg.vector_norm(x1 - x2, dim=1)
    return ((1 - y) * distance**2 + y * F.relu(margin - distance) ** 2).mean() / 2


@full_precision
def triplet_margin(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, margin: float = 0.2, reduction: str = "mean"
) -> Tensor:
    """The triplet loss of Schroff, Kalenichenko and Philbin 2015 (FaceNet), §3.1.

    anchor, positive, negative: (N, D), normalised here: FaceNet's embeddings live on the unit sphere. With margin α,

        max(0, ‖a − p‖² − ‖a − n‖² + α)

    on squared distances, which lie between 0 and 4; α where all embeddings are one. The paper takes α = 0.2 and sums
    over the triplets. reduction: "mean" over them, a scalar, or "none", the loss of each (N,). Raises ValueError for
    unequal shapes, no triplet, margin ≤ 0 or another reduction, and TypeError for anything but floating-point tensors.

    >>> a, n = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> triplet_margin(a, a, n).item(), round(triplet_margin(a, n, a).item(), 4)
    (0.0, 2.2)
    """
    check_pairs(anchor=anchor, positive=positive, at_least=1, why="or there is no triplet")
    check_pairs(anchor=anchor, negative=negative, at_least=1)
    _check_margin(margin)
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    a, p, n = (F.normalize(part, dim=1) for part in (anchor, positive, negative))
    loss = F.relu((a - p).square().sum(1) - (a - n).square().sum(1) + margin)
    return loss.mean() if reduction == "mean" else loss


@torch.no_grad()
@full_precision
def mine_triplets(
    z: Tensor, labels: Tensor, *, rng: torch.Generator, kind: str = "semi-hard", margin: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    """A negative for every ordered anchor-positive pair of a batch, as in FaceNet (Schroff et al. 2015), §3.2.

    z: (N, D), compared on the unit sphere; labels: (N,): rows of one label are each other's positives, all others
    are negatives. Returns the rows of anchors, positives and negatives, each (T,) int64. With squared distances d,

        "random"     any negative, drawn by rng
        "semi-hard"  d(a, p) < d(a, n) < d(a, p) + margin: farther than the positive, but within the margin; one drawn
                     by rng, as the paper does not say which. Where there is none, the farthest negative: the triplet is
                     then satisfied, or, with all negatives nearer than the positive, violated as little as it can be.
        "hard"       the negative nearest to the anchor

    Raises ValueError for shapes that do not fit, an unknown kind, margin ≤ 0, or labels without a pair or a negative.

    >>> z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    >>> [part.tolist() for part in mine_triplets(z, torch.tensor([0, 0, 1, 2]), kind="hard", rng=torch.Generator())]
    [[0, 1], [1, 0], [2, 2]]
    """
    check_floating(z=z)
    _check_margin(margin)
    if z.ndim != 2 or not isinstance(labels, Tensor) or labels.shape != z.shape[:1]:
        raise ValueError(f"z must be (N, D) and labels (N,), got {tuple(z.shape)} and {_kind(labels)}")
    same = labels[:, None] == labels
    anchor, positive = same.clone().fill_diagonal_(False).nonzero().T  # (T,), (T,)
    allowed = ~same[anchor]  # (T, N)
    if not len(anchor) or not allowed.any(1).all():
        raise ValueError("labels must have two rows of one label for a positive, and two labels for a negative")
    z = F.normalize(z, dim=1)
    distance = (2 - 2 * z @ z.T)[anchor]  # (T, N), squared, on the unit sphere
    if kind == "hard":
        return anchor, positive, distance.masked_fill(~allowed, torch.inf).argmin(1)
    lot = torch.rand(distance.shape, generator=rng, device=z.device)  # the greatest wins: a uniform draw
    if kind == "random":
        return anchor, positive, lot.masked_fill(~allowed, -1).argmax(1)
    if kind != "semi-hard":
        raise ValueError(f"kind must be 'random', 'semi-hard' or 'hard', got {kind!r}")
    to_positive = distance.gather(1, positive[:, None])
    semi_hard = allowed & (distance > to_positive) & (distance < to_positive + margin)
    fallback = distance.masked_fill(~allowed, -torch.inf).argmax(1)
    drawn = lot.masked_fill(~semi_hard, -1).argmax(1)
    return anchor, positive, torch.where(semi_hard.any(1), drawn, fallback)


def _check_margin(margin: float) -> None:
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin}")


def _kind(value) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
