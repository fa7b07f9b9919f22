"""What the objectives ask of their arguments, said in one sentence each."""

from torch import Tensor


def check_pairs(*, at_least: int = 2, why: str = "or there are no negatives", **pair: Tensor) -> None:
    """Two floating-point tensors, given by name, of one shape (N, D) with at least so many rows."""
    check_floating(**pair)
    (first, second), (u, v) = pair.keys(), pair.values()
    if u.ndim != 2 or u.shape != v.shape:
        raise ValueError(f"{first} and {second} must have one shape (N, D), got {tuple(u.shape)} and {tuple(v.shape)}")
    if len(u) < at_least:
        raise ValueError(f"at least {at_least} pairs are needed, {why}; got {len(u)}")


def check_floating(**tensors: Tensor) -> None:
    """Every argument is a tensor of floating-point numbers."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name} must be a floating-point tensor, got {kind}")


def check_temperature(temperature: float, name: str = "temperature") -> None:
    """A temperature is a positive number."""
    if not temperature > 0:
        raise ValueError(f"{name} must be positive, got {temperature}")
