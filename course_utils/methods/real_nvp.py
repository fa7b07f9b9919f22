"""RealNVP: maximum likelihood with a network that can be run backwards (Dinh, Sohl-Dickstein and Bengio 2017)."""

import math

import torch
import torch.nn.functional as F

from course_utils.methods.base import Method
from course_utils.models.flow import dequantize


class RealNVP(Method):
    """Minus the mean log-likelihood an entry, of points by `flow` itself, of grey levels through a logit.

    flow: `models.CouplingFlow`. levels: None for points of any kind; for images in [0, 1] how many grey levels they
    have: they are spread evenly over their bin (`dequantize`) and moved to the line by logit(α + (1 − 2α) x) with
    α = 0.05. (Dinh et al., section 4.1, have (1 − α) x, which leaves the upper end open.) `encode` is the flow's z, of
    images in the middle of their bins.

    >>> from course_utils.models import CouplingFlow
    >>> method = RealNVP(CouplingFlow((1, 4, 4)), levels=16)
    >>> method.sample(3, torch.Generator().manual_seed(0)).shape
    torch.Size([3, 1, 4, 4])
    """

    alpha = 0.05

    def __init__(self, flow, *, levels: int | None = None):
        super().__init__()
        if levels is not None and levels < 2:
            raise ValueError(f"levels must be None or at least 2, got {levels}")
        self.flow, self.levels = flow, levels

    @property
    def encoder(self):
        return self._latent

    def _latent(self, x):
        return self.flow(x if self.levels is None else self._to_line((x * (self.levels - 1) + 0.5) / self.levels)[0])[0]

    @torch.no_grad()
    def encode(self, x, *, batch_size=1024):
        """z (N, D) on the processor."""
        device = next(self.flow.parameters()).device
        return torch.cat([self._latent(part.to(device)).cpu() for part in x.split(batch_size)])

    def _to_line(self, v):
        """logit(α + (1 − 2α) v), and the log of its slope summed over the entries of an example."""
        p = self.alpha + (1 - 2 * self.alpha) * v
        y = p.logit()
        slope = math.log(1 - 2 * self.alpha) + F.softplus(y) + F.softplus(-y)
        return y, slope.flatten(1).sum(1)

    def log_prob(self, x, rng=None):
        """(N,) in nats: of points the log-density, of grey levels a one-sample lower bound of the log-probability."""
        if self.levels is None:
            return self.flow.log_prob(x)
        y, slope = self._to_line(dequantize(x, self.levels, rng))
        return self.flow.log_prob(y) + slope - x[0].numel() * math.log(self.levels)

    @torch.no_grad()
    def bits_per_dimension(self, x, rng):
        """−log₂ P an entry, (N,): what a code made from this model would spend on a grey level (or less)."""
        return -self.log_prob(x, rng) / (x[0].numel() * math.log(2))

    @torch.no_grad()
    def sample(self, n, rng, *, temperature=1.0):
        """n samples on the processor, from z ~ N(0, temperature² I)."""
        device = next(self.flow.parameters()).device
        z = torch.randn(n, math.prod(self.flow.shape), generator=rng, device=rng.device)
        x = self.flow.inverse(temperature * z.to(device)).cpu()
        if self.levels is None:
            return x
        v = ((x.sigmoid() - self.alpha) / (1 - 2 * self.alpha)).clamp(0, 1)
        return (v * self.levels).floor().clamp(max=self.levels - 1) / (self.levels - 1)

    def training_loss(self, batch, rng):
        return -self.log_prob(batch, rng).mean() / batch[0].numel(), {}
