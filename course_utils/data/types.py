"""What `load` returns: three splits, the names of the classes and a card that says what the data is."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class DataCard:
    """What a data set is and where it comes from, in the words a reader needs.

    `kind` is "generated" or "real"; a generated set is always called so.
    """

    title: str
    kind: str
    source: str
    licence: str
    citation: str = ""
    note: str = ""

    def __str__(self) -> str:
        rows = {
            "kind": self.kind,
            "source": self.source,
            "licence": self.licence,
            "cite": self.citation,
            "note": self.note,
        }
        return "\n".join([self.title, *(f"  {key:8s}{value}" for key, value in rows.items() if value)])


@dataclass(frozen=True)
class Split:
    """One part of a data set: `x` (N, ...) float32, `y` (N,) int64 or None, `factors` name -> (N,) tensor.

    Factors of clips (N, T, C, H, W) that change from frame to frame are (N, T).

    >>> part = Split(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]))
    >>> len(part), len(part[:2]), part.take(2, seed=0).y.tolist()
    (4, 2, [0, 1])
    """

    x: Tensor
    y: Tensor | None = None
    factors: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        for name, value in {"y": self.y, **self.factors}.items():
            if value is not None and len(value) != len(self.x):
                raise ValueError(f"a split of {len(self.x)} examples got {len(value)} values of {name!r}")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index) -> "Split":
        """The rows that a slice, an index tensor or a boolean mask names, as a new Split."""
        y = None if self.y is None else self.y[index]
        return Split(self.x[index], y, {name: value[index] for name, value in self.factors.items()})

    def take(self, n: int, *, seed: int) -> "Split":
        """`n` random examples, the same number of every class where there are labels (to within one)."""
        return self[balanced_subset(self.y if self.y is not None else torch.zeros(len(self)), n, seed=seed)]


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test splits: choose on validation, report once on test."""

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    card: DataCard

    def __str__(self) -> str:
        shape = "×".join(str(size) for size in self.train.x.shape[1:])
        sizes = " / ".join(f"{len(part):,}" for part in (self.train, self.validation, self.test))
        classes = f"{len(self.class_names)} classes" if self.class_names else "no labels"
        return f"{self.name} ({self.card.kind}): {sizes} train / validation / test of {shape}, {classes}"

    __repr__ = __str__


def balanced_subset(labels: Tensor, n: int, *, seed: int) -> Tensor:
    """Indices (n,) of a random subset with as equal a number of every class as the data allows.

    Classes are filled round by round: every class gives its first random example before any gives its second, so
    counts differ by at most one unless a class runs out.

    Raises ValueError when `n` is not between 1 and the number of labels.

    >>> labels = torch.tensor([0] * 90 + [1] * 10)
    >>> labels[balanced_subset(labels, 10, seed=0)].bincount().tolist()
    [5, 5]
    """
    if not 1 <= n <= len(labels):
        raise ValueError(f"a subset of {n} was asked of {len(labels)} examples: ask for 1 to {len(labels)}")
    rng = torch.Generator().manual_seed(seed)
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=rng)
    by_class = order[labels[order].argsort(stable=True)]  # shuffled, then grouped by class
    counts = labels.unique(return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    round_of = torch.arange(len(labels)) - starts.repeat_interleave(counts)  # 0 for each class's first, 1 ...
    tie_break = torch.rand(len(labels), generator=rng)
    chosen = torch.argsort(round_of + tie_break)[:n]  # which classes get the last, partial round is random
    return by_class[chosen]
