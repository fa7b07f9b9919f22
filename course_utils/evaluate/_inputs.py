"""Checks shared by every measure, so that bad input is named the same way everywhere."""

import torch
from torch import Tensor


def as_features(value, name: str, *, at_least: int = 1, like: Tensor | None = None) -> Tensor:
    """`value` as a detached (N, D) tensor of float32 or float64, finite, with N ≥ `at_least` and D ≥ 1.

    like: features that `value` is compared with: it must have as many columns, and moves to the same device and dtype.
    """
    x = torch.as_tensor(value).detach()
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}")
    if x.ndim != 2:
        hint = "; flatten them first with .flatten(1)" if x.ndim > 2 else ""
        raise ValueError(f"{name} must have shape (N, D), got {tuple(x.shape)}{hint}")
    if len(x) < at_least or x.shape[1] == 0:
        raise ValueError(f"{name} must have at least {at_least} rows and 1 column, got shape {tuple(x.shape)}")
    if like is not None and x.shape[1] != like.shape[1]:
        raise ValueError(f"{name} must have {like.shape[1]} columns like the features before, got {x.shape[1]}")
    check_finite(x, name)
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    return x if like is None else x.to(like)


def as_targets(value, name: str, features: Tensor) -> Tensor:
    """`value` as finite floating point targets, (N,) or (N, T), one row for every row of `features`."""
    y = torch.as_tensor(value).detach()
    if not y.is_floating_point():
        y = y.to(torch.float64)
    if y.ndim not in (1, 2) or 0 in y.shape:
        raise ValueError(f"{name} must have shape (N,) or (N, T), got {tuple(y.shape)}")
    check_length(y, name, features)
    check_finite(y, name)
    return y.to(features.device)


def as_labels(value, name: str, features: Tensor) -> Tensor:
    """`value` as int64 class labels (N,), one for every row of `features`; any integers, contiguous or not."""
    y = torch.as_tensor(value).detach()
    if y.is_floating_point() or y.is_complex():
        raise TypeError(f"{name} must be integers, got {y.dtype}")
    if y.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), got {tuple(y.shape)}")
    check_length(y, name, features)
    return y.to(features.device, torch.int64)


def check_length(value: Tensor, name: str, features: Tensor) -> None:
    if len(value) != len(features):
        raise ValueError(f"{name} must have one row for each of the {len(features)} examples, got {len(value)}")


def check_finite(value: Tensor, name: str) -> None:
    if not value.sum().isfinite():  # one pass; the exact count is for the message only
        bad = int((~value.isfinite()).sum())
        if bad:
            raise ValueError(f"{name} must be finite, got {bad} NaN or infinite of {value.numel()} values")
