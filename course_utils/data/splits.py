"""How a set becomes train, validation and test: stratified by class, from a seed, and smaller when asked."""

from dataclasses import replace
from numbers import Integral

import torch
from torch import Tensor

from course_utils.data.types import Dataset, Split


def stratified_order(labels: Tensor, *, seed: int) -> Tensor:
    """A random order (N,) of the examples in which every prefix has each class in its share, to within one or two.

    >>> labels = torch.tensor([0] * 90 + [1] * 10)
    >>> labels[stratified_order(labels, seed=0)[:20]].bincount().tolist()
    [18, 2]
    """
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=rng)
    by_class = order[labels[order].argsort(stable=True)]
    counts = labels.unique(return_counts=True)[1]
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    jitter = torch.rand(len(labels), generator=rng, dtype=torch.float64)
    return by_class[torch.argsort((place + jitter) / counts.repeat_interleave(counts))]


def cut(whole: Split, sizes: list[int], *, seed: int) -> list[Split]:
    """Disjoint random parts of these sizes, and last the rest; each holds the classes in their shares.

    >>> whole = Split(torch.arange(10.0)[:, None], torch.tensor([0, 1] * 5))
    >>> [len(part) for part in cut(whole, [2, 2], seed=0)]
    [2, 2, 6]
    """
    order = stratified_order(torch.zeros(len(whole)) if whole.y is None else whole.y, seed=seed)
    return [whole[rows] for rows in order.split([*sizes, len(whole) - sum(sizes)])]


def finish(
    stored: Dataset,
    *,
    seed: int,
    n_train: int | None = None,
    n_validation: int | None = None,
    n_test: int | None = None,
) -> Dataset:
    """What a loader read, ready for use: class-balanced subsets where sizes are given, pixels as float32 in [0, 1].

    Loaders hand over images as they are stored, uint8 (N, C, H, W); what is float32 already is kept as it is.

    Raises ValueError when a size is not a whole number from 1 to what the split has.
    """
    parts = {}
    for part, n in {"train": n_train, "validation": n_validation, "test": n_test}.items():
        split = getattr(stored, part)
        if n is not None:
            if not isinstance(n, Integral) or not 1 <= n <= len(split):
                raise ValueError(
                    f"n_{part} must be a whole number from 1 to {len(split)} for {stored.name!r}, got {n!r}"
                )
            split = split.take(n, seed=seed)
        if split.x.dtype == torch.uint8:
            split = replace(split, x=split.x.float().div_(255))
        parts[part] = split
    return replace(stored, **parts)
