"""Which numbers to compute in: bf16 where the hardware has it and it helps, float32 everywhere else."""

import functools
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn


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
    """`"bf16-mixed"` for networks with convolutions or attention where bf16 is native, else `"32-true"`.

    Small dense networks gain nothing from bf16 and lose digits that comparisons with PCA need.

    >>> choose_precision(nn.Linear(2, 2), "cpu")
    '32-true'
    """
    heavy = any(isinstance(part, nn.Conv2d | nn.MultiheadAttention) for part in module.modules())
    return "bf16-mixed" if heavy and has_native_bf16(device) else "32-true"


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
