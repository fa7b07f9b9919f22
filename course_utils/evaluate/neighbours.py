"""Weighted k-nearest-neighbour classification: how well classes group in a representation, with nothing to train."""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.evaluate._inputs import as_features, as_labels


def knn_accuracy(
    train_features, train_labels, test_features, test_labels, *, k: int = 20, temperature: float | None = 0.1
) -> float:
    """The part of test examples that the `k` nearest training examples classify correctly: see `knn_scores`.

    train_features: (N, D), test_features: (M, D), floating point. train_labels: (N,), test_labels: (M,), any integers;
    a test label that no training example has counts as wrong. When classes tie, the smallest label is predicted.

    Raises ValueError for shapes that do not fit, values that are not finite, k outside 1 … N or temperature ≤ 0;
    TypeError for features that are not floating point or labels that are not integers.

    >>> features, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([3, 3, 7])
    >>> knn_accuracy(features, labels, torch.tensor([[2.0, 0.5], [0.1, 4.0]]), [3, 7], k=1)
    1.0
    """
    scores = knn_scores(train_features, train_labels, test_features, k=k, temperature=temperature)
    test_labels = as_labels(test_labels, "test_labels", scores)
    classes = torch.as_tensor(train_labels).unique().to(scores.device)
    return (classes[scores.argmax(1)] == test_labels).double().mean().item()


@torch.no_grad()
def knn_scores(train_features, train_labels, test_features, *, k: int = 20, temperature: float | None = 0.1) -> Tensor:
    """Class scores (M, C) of the weighted k-NN classifier of Wu et al. 2018 (Instance Discrimination), section 3.4.

    A training example i among the k with the highest cosine similarity sᵢ votes for its class with weight
    exp(sᵢ / temperature), or 1 where temperature is None. Each row is divided by its sum, so it is a distribution over
    the C classes, whose labels are `train_labels.unique()` in that order.

    Similarities are computed for a block of test rows at a time, on the device of `train_features`, in float64 if the
    features are float64 and in float32 otherwise. Which of several equally similar examples is the k-th neighbour is
    left open, but the same whenever the same call is repeated. A row of zeros is equally similar to all.

    Errors as in `knn_accuracy`.

    >>> features, labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])
    >>> knn_scores(features, labels, torch.tensor([[1.0, 0.2]]), k=3, temperature=None)
    tensor([[0.3333, 0.6667]])
    """
    bank = as_features(train_features, "train_features")
    labels = as_labels(train_labels, "train_labels", bank)
    queries = as_features(test_features, "test_features", like=bank)
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must be between 1 and the {len(bank)} training examples, got {k}")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature must be positive, or None for equal votes, got {temperature}")
    classes, columns = labels.unique(return_inverse=True)
    bank, queries = F.normalize(bank, dim=1).T, F.normalize(queries, dim=1)
    rows = max(1, 2**22 // bank.shape[1])  # 16 MiB of float32 similarities at a time
    scores = bank.new_zeros(len(queries), len(classes))
    for block, part in zip(queries.split(rows), scores.split(rows), strict=True):
        similarity, nearest = _greatest(block @ bank, k)
        # softmax is exp(s / temperature) divided by the row's sum, without overflow; in equal votes it is 1/k
        votes = (similarity / temperature).softmax(1) if temperature else torch.full_like(similarity, 1 / k)
        part.scatter_add_(1, columns[nearest], votes)
    return scores


def _greatest(x: Tensor, k: int, *, size: int = 10) -> tuple[Tensor, Tensor]:
    """`x.topk(k, dim=1)` of a matrix (M, N), in less time where N is large.

    The columns form groups of `size`. The k groups of greatest maximum hold the k greatest elements, so only theirs,
    and the columns left over, are compared in full.

    >>> _greatest(torch.arange(2000.0)[None], 2)[1].tolist()
    [[1999, 1998]]
    """
    groups = x.shape[1] // size
    if groups < 64 * k:  # too few: topk would be slower on them
        return x.topk(k, dim=1)
    full = size * groups  # group j holds columns j, j + groups, j + 2 · groups …
    best = x[:, :full].unflatten(1, (size, groups)).amax(1).topk(k, dim=1).indices
    listed = best[:, None] + torch.arange(0, full, groups, device=x.device)[:, None]  # (M, size, k)
    rest = torch.arange(full, x.shape[1], device=x.device).expand(len(x), -1)
    listed = torch.cat([listed.flatten(1), rest], dim=1)
    values, position = x.gather(1, listed).topk(k, dim=1)
    return values, listed.gather(1, position)
