"""A normalising flow: an invertible network whose log-determinant is a sum (Dinh, Sohl-Dickstein and Bengio 2017)."""

import math

import torch
from torch import Tensor, nn


class AffineCoupling(nn.Module):
    """Dinh et al. 2017 (RealNVP), equation 9: entries with mask b = 1 stay, and scale and shift the others.

        y = b ⊙ x + (1 − b) ⊙ (x ⊙ exp(s(b ⊙ x)) + t(b ⊙ x)),    log|det ∂y/∂x| = Σ (1 − b) ⊙ s(b ⊙ x)

    mask: (D,) of booleans. s and t come from one network with two hidden layers; s is tanh times a learnt factor, as
    in the paper's section 4.1. The last layer starts at 0, so that a new layer is the identity.

    >>> layer = AffineCoupling(torch.tensor([True, False]), hidden=8)
    >>> y, log_det = layer(torch.rand(3, 2))
    >>> y.shape, log_det.shape
    (torch.Size([3, 2]), torch.Size([3]))
    """

    def __init__(self, mask: Tensor, *, hidden: int):
        super().__init__()
        d = len(mask)
        self.register_buffer("mask", mask.float())
        self.net = nn.Sequential(
            nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * d)
        )
        self.log_scale = nn.Parameter(torch.ones(d))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """s and t (N, D) of b ⊙ x, 0 where b is 1."""
        s, t = self.net(kept).chunk(2, dim=1)
        return (1 - self.mask) * self.log_scale * s.tanh(), (1 - self.mask) * t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.scale_and_shift(self.mask * x)
        return x * s.exp() + t, s.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        s, t = self.scale_and_shift(self.mask * y)
        return (y - t) * (-s).exp()


class CouplingFlow(nn.Module):
    """Affine couplings whose masks alternate, between x (N, ...) of some `shape` and z (N, D), a standard Gaussian.

    shape: of one example: (D,) alternates even and odd entries, (C, H, W) the squares of a checkerboard, the paper's
    first kind of mask. `flow(x)` is (z, log|det ∂z/∂x|), `inverse(z)` is x, and

        log p(x) = log N(z; 0, I) + log|det ∂z/∂x|.

    Departures: s and t are dense networks, there is no squeezing into several scales and no batch norm.

    >>> flow = CouplingFlow((2,), couplings=4, hidden=16)
    >>> x = torch.zeros(1, 2)
    >>> round(flow.log_prob(x).item(), 4)  # a new flow is the identity: the Gaussian's −log 2π at 0
    -1.8379
    """

    def __init__(self, shape: tuple[int, ...], *, couplings: int = 6, hidden: int = 128):
        super().__init__()
        if math.prod(shape) < 2 or couplings < 2:
            raise ValueError(
                f"a flow needs at least 2 entries an example and 2 couplings, got shape {tuple(shape)} and {couplings}"
            )
        self.shape = tuple(shape)
        parity = torch.arange(math.prod(shape)) % 2
        if len(shape) == 3:
            _, rows, columns = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
            parity = ((rows + columns) % 2).flatten()
        self.couplings = nn.ModuleList(AffineCoupling(parity == i % 2, hidden=hidden) for i in range(couplings))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1:] != self.shape:
            raise ValueError(f"this flow takes (N, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        z, log_det = x.flatten(1), 0
        for coupling in self.couplings:
            z, more = coupling(z)
            log_det = log_det + more
        return z, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """The x (N, *shape) that the flow takes to z (N, D)."""
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        return z.view(len(z), *self.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density (N,) of x, in nats."""
        z, log_det = self(x)
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det


def dequantize(x: Tensor, levels: int, rng: torch.Generator) -> Tensor:
    """Grey levels in [0, 1] as numbers spread evenly over their bin: (k + u) / levels with k = round((levels − 1) x).

    A density that is trained on levels themselves can grow without bound at them; on (k + u) / levels its mean log is
    a lower bound of the log-probability of the level (Theis, van den Oord and Bethge 2016, section 3.1). u ~ U[0, 1)
    comes from `rng`. Raises ValueError for fewer than 2 levels or values outside [0, 1].

    >>> dequantize(torch.tensor([0.0, 1.0]), 4, torch.Generator()).mul(4).floor()
    tensor([0., 3.])
    """
    if levels < 2 or x.min() < 0 or x.max() > 1:
        found = f"{levels} levels of values from {x.min():.3g} to {x.max():.3g}"
        raise ValueError(f"dequantising needs at least 2 levels of values in [0, 1], got {found}")
    u = torch.rand(x.shape, generator=rng, device=rng.device).to(x)
    return ((x * (levels - 1)).round() + u).div(levels).clamp(max=1 - torch.finfo(x.dtype).eps)
