"""Diffusion: how noise is added (the schedule), and networks that see the noise in an example at a time t."""

import math

import torch
from torch import Tensor, nn


def alpha_bars(steps: int, *, schedule: str = "cosine") -> Tensor:
    """ᾱ (T,), float64: how much of the signal's variance is left after each of T noising steps, decreasing to about 0.

    "linear": β rises evenly from 10⁻⁴ to 0.02 over 1,000 steps (Ho, Jain and Abbeel 2020, section 4), and by 1000/T
    as much a step for another T. "cosine": Nichol and Dhariwal 2021, equation 17, with β at most 0.999.

    Raises ValueError for another name or fewer than 2 steps; linear needs more than 20, or a β would be over 1.

    >>> alpha_bars(1000, schedule="linear")[[0, -1]]
    tensor([9.9990e-01, 4.0358e-05], dtype=torch.float64)
    """
    if steps < 2 or schedule not in ("linear", "cosine") or (schedule == "linear" and steps <= 20):
        raise ValueError(
            f"a schedule is 'cosine' with at least 2 steps or 'linear' with more than 20, got {schedule!r} with {steps}"
        )
    if schedule == "linear":
        beta = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * 1000 / steps
    else:
        time = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        f = ((time + 0.008) / 1.008 * math.pi / 2).cos().square()
        beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return (1 - beta).cumprod(0)


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Sines and cosines (N, dim) of times t (N,) at wavelengths from 2π to 2π · 10⁴ (Vaswani et al. 2017, section 3.5).

    >>> time_embedding(torch.tensor([0, 5]), 4)[0]
    tensor([0., 0., 1., 1.])
    """
    if dim < 4 or dim % 2:
        raise ValueError(f"an embedding of times needs an even width of at least 4, got {dim}")
    rate = torch.exp(-math.log(1e4) * torch.arange(dim // 2, device=t.device) / (dim // 2 - 1))
    angle = t[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class DenseDenoiser(nn.Module):
    """Points (N, D) and times (N,) to what is noise in them, (N, D): three hidden layers that see the time embedded.

    >>> DenseDenoiser(2)(torch.rand(3, 2), torch.tensor([0, 5, 9])).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim: int, *, hidden: int = 128, time_dim: int = 32):
        super().__init__()
        self.time_dim = time_dim
        self.enter, self.time = nn.Linear(dim, hidden), nn.Linear(time_dim, hidden)
        self.net = nn.Sequential(
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, dim),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(self.enter(x) + self.time(time_embedding(t, self.time_dim).to(x)))


class _TimedBlock(nn.Module):
    """Two 3×3 convolutions around a residual, with group norm, SiLU, and the time added to every position."""

    def __init__(self, before: int, after: int, time_dim: int):
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(4, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.time = nn.Linear(time_dim, after)
        self.second = nn.Sequential(nn.GroupNorm(4, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.skip(x) + self.second(self.first(x) + self.time(time)[:, :, None, None])


class TimeUNet(nn.Module):
    """Images (N, channels, H, W) and times (N,) to the noise in them: a U-Net of two sizes (Ronneberger et al. 2015).

    A block at full size, two at half size, and one that sees both; H and W are even, `width` a multiple of 4. Much
    smaller than the network of Ho, Jain and Abbeel 2020, and without attention or dropout.

    >>> TimeUNet(1, width=8)(torch.rand(2, 1, 16, 16), torch.tensor([0, 9])).shape
    torch.Size([2, 1, 16, 16])
    """

    def __init__(self, channels: int = 1, *, width: int = 16, time_dim: int = 32):
        super().__init__()
        self.channels, self.time_dim = channels, time_dim
        self.time = nn.Sequential(nn.Linear(time_dim, 4 * width), nn.SiLU())
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.full = _TimedBlock(width, width, 4 * width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.low = nn.ModuleList(_TimedBlock(2 * width, 2 * width, 4 * width) for _ in range(2))
        self.up = nn.Upsample(scale_factor=2)
        self.both = _TimedBlock(3 * width, width, 4 * width)
        self.leave = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"this network takes images (N, {self.channels}, even, even), got {tuple(x.shape)}")
        time = self.time(time_embedding(t, self.time_dim).to(x))
        fine = self.full(self.enter(x), time)
        coarse = self.down(fine)
        for block in self.low:
            coarse = block(coarse, time)
        return self.leave(self.both(torch.cat([fine, self.up(coarse)], dim=1), time))
