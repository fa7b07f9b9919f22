"""Which numbers to compute in: bf16 where the hardware has it and it helps, float32 everywhere else.

Measured on a core with AVX-512-BF16: in bf16 a step takes half of float32's time with 192 channels, about as long with
48, and twice as long in a ViT of width 48, whose products are too small to make up for the conversions.
"""

import functools
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

WIDE = 128  # channels


def has_native_bf16(device: torch.device | str) -> bool:
    """Whether `device` multiplies bfloat16 in hardware: AVX-512-BF16 on a processor, Ampere or later on CUDA.

    >>> has_native_bf16("cpu") in (True, False)
    True
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and torch.cpu._is_avx512_bf16_supported()


def choose_precision(module: nn.Module, device: torch.device | str) -> str:
    """`"bf16-mixed"` for networks with a convolution to `WIDE` channels or more where bf16 is native, else `"32-true"`.

    A ViT counts by its patch embedding. Narrower networks, as all of the course's own are, gain nothing or lose time,
    and so compute in float32 on every processor. Dense ones lose digits that comparisons with PCA need.

    >>> choose_precision(nn.Linear(2, 2), "cpu")
    '32-true'
    """
    wide = any(isinstance(part, nn.Conv2d) and part.out_channels >= WIDE for part in module.modules())
    return "bf16-mixed" if wide and has_native_bf16(device) else "32-true"


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager:
    """The torch context in which a forward pass runs at `precision` ("32-true" or "bf16-mixed")."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed")


def full_precision(function):
    """Decorator: run `function` outside autocast, with half-precision tensor arguments widened to float32.

    Objectives and geometric transforms lose too many digits in bf16; networks do not.
    """

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        args = [_widen(value) for value in args]
        kwargs = {name: _widen(value) for name, value in kwargs.items()}
        devices = (value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(next(devices, "cpu"), enabled=False):
            return function(*args, **kwargs)

    return wrapper


def _widen(value):
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
