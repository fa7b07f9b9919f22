"""Denoising diffusion: learn to see the noise in an example."""

from collections.abc import Callable

from torch import Tensor

from course_utils.losses._checks import check_floating


def noise_prediction(network: Callable, x0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """L_simple of Ho, Jain and Abbeel 2020 (DDPM), equation 14: the mean over elements of the squared error.

        x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) ε,    L = E ‖ε − ε_θ(x_t, t)‖²

    network: ε_θ(x_t, t), shaped like x_t. x0, noise: one shape (N, ...). t: (N,) integers, rows of alpha_bar: (T,),
    decreasing in (0, 1]; row t here is the paper's step t + 1. A network that answers 0 earns 1.

    Raises ValueError for shapes that do not fit, and TypeError for anything but floating-point examples.

    >>> import torch
    >>> x, noise = torch.rand(4, 2), torch.ones(4, 2)
    >>> t, alpha_bar = torch.tensor([0, 1, 1, 0]), torch.tensor([0.9, 0.5])
    >>> noise_prediction(lambda x_t, t: 0 * x_t, x, t, noise, alpha_bar).item()
    1.0
    """
    check_floating(x0=x0, noise=noise, alpha_bar=alpha_bar)
    if x0.shape != noise.shape or t.shape != x0.shape[:1]:
        shapes = f"{tuple(x0.shape)}, {tuple(noise.shape)} and {tuple(t.shape)}"
        raise ValueError(f"x0 and noise must have one shape (N, ...) and t (N,), got {shapes}")
    kept = alpha_bar[t].view(-1, *[1] * (x0.ndim - 1))
    predicted = network(kept.sqrt() * x0 + (1 - kept).sqrt() * noise, t)
    if predicted.shape != noise.shape:
        raise ValueError(f"the network must answer in the shape {tuple(noise.shape)}, got {tuple(predicted.shape)}")
    return (predicted.to(noise.dtype) - noise).square().mean()
