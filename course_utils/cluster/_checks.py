"""What the estimators ask of their options, said in one sentence each. Data is checked by scikit-learn."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np


def check_whole(value, name: str, *, at_least: int = 1) -> None:
    """A whole number, not below `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {value}")


def check_not_negative(value, name: str) -> None:
    """A finite number, 0 or more."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < np.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value}")


def check_choice(value, name: str, choices: Sequence[str], *, other: str = "") -> None:
    """One of some names; `other` says what else would do."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}{other}, got {value!r}")


def check_groups(groups, name: str, n_samples: int) -> None:
    """A number of groups that so many samples can be put into."""
    check_whole(groups, name)
    if groups > n_samples:
        raise ValueError(f"{name} must be at most the number of samples, got {name}={groups} and n_samples={n_samples}")


def as_start(value, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A finite array of floating point of one shape, where a fit is to begin."""
    value = np.asarray(value, dtype=float)
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite, it holds NaN or infinite values")
    return value
