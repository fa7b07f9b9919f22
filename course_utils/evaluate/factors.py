"""Which factors of the data a representation keeps: one probe a factor."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from course_utils.evaluate.probes import linear_probe, regression_probe


def factor_probes(
    train_features,
    train_factors: Mapping[str, Tensor],
    test_features,
    test_factors: Mapping[str, Tensor],
    *,
    circular: Sequence[str] = ("hue",),
) -> dict[str, float]:
    """How well each factor can be read linearly from features: factor name -> score on test examples, in their order.

    train_features: (N, D), test_features: (M, D), floating point. Factors are those of a `Split`: integers are kinds,
    scored by the accuracy of a ridge classifier; other numbers by the R² of a ridge regression, those in `circular`,
    which wrap round at 1, as the R² of their sine and cosine. Each probe chooses its regulariser by leaving out each
    training row in turn. Chance is the share of the commonest kind, or R² = 0. To leave a factor out, do not pass it.

    Raises ValueError where the two splits have different factors, and whatever the probes raise.

    >>> x = torch.rand(200, 3)
    >>> factors = {"kind": (x[:, 0] > 0.5).long(), "size": 2 * x[:, 1], "hue": x[:, 2]}
    >>> kept = factor_probes(x, factors, x, factors)
    >>> list(kept), kept["kind"] > 0.9, round(kept["size"], 3), kept["hue"] < 0.9
    (['kind', 'size', 'hue'], True, 1.0, True)
    """
    if train_factors.keys() != test_factors.keys():
        both = sorted(train_factors), sorted(test_factors)
        raise ValueError(f"both splits must have the same factors, got {both[0]} and {both[1]}")
    scores = {}
    for name, train in train_factors.items():
        test = test_factors[name]
        if not torch.is_floating_point(train):
            scores[name] = linear_probe(train_features, train, test_features, test, kind="ridge").accuracy
        else:
            if name in circular:
                train, test = _on_the_circle(train), _on_the_circle(test)
            scores[name] = regression_probe(train_features, train, test_features, test).r2
    return scores


def _on_the_circle(turns: Tensor) -> Tensor:
    angle = 2 * math.pi * turns
    return torch.stack([angle.cos(), angle.sin()], 1)
