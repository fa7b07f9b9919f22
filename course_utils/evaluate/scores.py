"""Plain scores of predictions, reconstructions and groupings."""

import torch
from sklearn import config_context
from sklearn.metrics import silhouette_score
from torch import Tensor

from course_utils.evaluate._inputs import as_features, as_labels, check_finite

WORKING_MEMORY = 64  # MiB of distances at a time


def top_k_accuracy(scores, labels, k: int) -> float:
    """The part of examples whose true class is among the `k` with the highest scores.

    scores: (N, C) floating point, higher is likelier. labels: (N,) integers, the column of the true class. A class that
    scores the same as the true one counts as above it, so that equal scores for all earn nothing: 0 unless k = C.
    (scikit-learn's top_k_accuracy_score puts the higher class first there; without ties the two agree.)

    Raises ValueError for shapes that do not fit, scores that are not finite, labels outside 0 … C − 1, or k outside
    1 … C; TypeError for scores that are not floating point or labels that are not integers.

    >>> scores = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.4, 0.1]])
    >>> top_k_accuracy(scores, [2, 0], k=1), top_k_accuracy(scores, [2, 0], k=2)
    (0.5, 1.0)
    """
    scores = as_features(scores, "scores")
    labels = as_labels(labels, "labels", scores)
    classes = scores.shape[1]
    if not 1 <= k <= classes:
        raise ValueError(f"k must be between 1 and the {classes} classes, got {k}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be columns 0 to {classes - 1} of scores, got {labels.min()} to {labels.max()}")
    true = scores.gather(1, labels[:, None])
    above = (scores >= true).sum(1) - 1  # the true class itself is not above itself
    return (above < k).double().mean().item()


def reconstruction_error(x_hat, x) -> Tensor:
    """Mean squared error of each example, (N,): the mean over everything but the first dimension.

    x_hat, x: one shape (N, ...), floating point. The mean of the result is `losses.reconstruction(x_hat, x)`.
    Raises ValueError for unequal shapes, no examples or values that are not finite; TypeError for integers.

    >>> reconstruction_error(torch.tensor([[1.0, 3.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    tensor([2., 0.])
    """
    x_hat, x = torch.as_tensor(x_hat).detach(), torch.as_tensor(x).detach()
    if x_hat.shape != x.shape or x.ndim < 2 or 0 in x.shape:
        raise ValueError(f"x_hat and x must have one shape (N, ...), got {tuple(x_hat.shape)} and {tuple(x.shape)}")
    for name, value in {"x_hat": x_hat, "x": x}.items():
        if not value.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {value.dtype}")
        check_finite(value, name)
    return (x_hat.to(x.device) - x).square().flatten(1).mean(1)


def silhouette(features, labels, *, sample_size: int | None = None, seed: int = 0) -> float:
    """Mean silhouette coefficient (Rousseeuw 1987) of groups: 1 compact and apart, 0 overlapping, negative misplaced.

    features: (N, D) floating point. labels: (N,) integers, 2 to N − 1 distinct. Euclidean distances, computed by
    scikit-learn in blocks of 64 MiB, so memory grows with N only, but time with N²: 50,000 examples of 32 features took
    14 s on one core. `sample_size` takes so many random examples instead, from `seed`.

    Raises ValueError for shapes that do not fit, values that are not finite, one group or as many groups as
    examples, or sample_size < 3; TypeError for other dtypes.

    >>> silhouette(torch.tensor([[0.0], [1.0], [10.0], [11.0]]), [0, 0, 1, 1])  # doctest: +ELLIPSIS
    0.899...
    """
    features = as_features(features, "features")
    labels = as_labels(labels, "labels", features)
    if sample_size is not None and sample_size < 3:
        raise ValueError(f"sample_size must be at least 3, or None for all examples, got {sample_size}")
    if sample_size is not None and sample_size < len(features):
        rng = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(features), generator=rng)[:sample_size].to(features.device)
        features, labels = features[chosen], labels[chosen]
    groups = len(labels.unique())
    if not 2 <= groups < len(labels):
        raise ValueError(f"a silhouette needs 2 to {len(labels) - 1} groups of {len(labels)} examples, got {groups}")
    with config_context(working_memory=WORKING_MEMORY):
        return float(silhouette_score(features.cpu().numpy(), labels.cpu().numpy()))
