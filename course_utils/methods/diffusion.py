"""Diffusion: learn to see noise at every strength, then take it away step by step (Ho, Jain and Abbeel 2020)."""

import torch

from course_utils.losses import noise_prediction
from course_utils.methods.base import Method, evaluating
from course_utils.models.diffusion import alpha_bars


class Diffusion(Method):
    """DDPM's training (equation 14, algorithm 1), and DDIM's sampling (Song, Meng and Ermon 2021, equation 12).

    denoiser: (x_t, t) → the noise ε in x_t, such as `models.TimeUNet`. shape: of one example. steps: T; schedule: see
    `models.alpha_bars`. bound: what |x₀| cannot exceed; images in [−1, 1] want 1, as in Ho et al.'s code, and None is
    for points of any kind. Give "cosine" a bound: its last ᾱ is so small that x̂₀ = (x − √(1 − ᾱ) ε̂) / √ᾱ multiplies
    every error of ε̂ by a thousand. Times count from 0: t here is the papers' t + 1. There is no average of weights,
    which the paper's models sample from: the rate of `fit` falls to 0 instead. There is no encoder.

    >>> from course_utils.models import DenseDenoiser
    >>> method = Diffusion(DenseDenoiser(2), shape=(2,), steps=50)
    >>> method.sample(3, torch.Generator().manual_seed(0), steps=10).shape
    torch.Size([3, 2])
    """

    def __init__(self, denoiser, *, shape, steps: int = 200, schedule: str = "linear", bound: float | None = None):
        super().__init__()
        if bound is not None and not bound > 0:
            raise ValueError(f"bound must be None or positive, got {bound}")
        self.denoiser, self.shape, self.bound = denoiser, tuple(shape), bound
        self.register_buffer("alpha_bar", alpha_bars(steps, schedule=schedule).float())

    def training_loss(self, batch, rng):
        t = torch.randint(len(self.alpha_bar), (len(batch),), generator=rng, device=rng.device).to(batch.device)
        noise = torch.randn(batch.shape, generator=rng, device=rng.device).to(batch)
        return noise_prediction(self.denoiser, batch, t, noise, self.alpha_bar), {}

    def predict(self, x, t: int):
        """(x̂₀, ε̂) of x at time t: what the noise-free example is taken to be, and the noise that goes with it."""
        kept = self.alpha_bar[t]
        noise = self.denoiser(x, torch.full((len(x),), t, device=x.device)).to(x.dtype)
        x0 = (x - (1 - kept).sqrt() * noise) / kept.sqrt()  # DDIM, equation 9
        if self.bound is None:
            return x0, noise
        x0 = x0.clamp(-self.bound, self.bound)
        return x0, (x - kept.sqrt() * x0) / (1 - kept).sqrt()

    def times(self, steps: int) -> list[int]:
        """So many of the T times, evenly spaced, from the noisiest to 0."""
        last = len(self.alpha_bar) - 1
        if not 1 <= steps <= last + 1:
            raise ValueError(f"sampling takes 1 to {last + 1} steps, got {steps}")
        return [last] if steps == 1 else torch.linspace(last, 0, steps).round().int().tolist()

    def step(self, x, t: int, before: int | None, rng, *, eta: float):
        """From time t to the time `before` (None: to the end): DDIM, equation 12, with σ of equation 16."""
        x0, noise = self.predict(x, t)
        if before is None:
            return x0
        kept, goal = self.alpha_bar[t], self.alpha_bar[before]
        sigma = eta * ((1 - goal) / (1 - kept) * (1 - kept / goal)).sqrt()
        fresh = torch.randn(x.shape, generator=rng, device=rng.device).to(x)
        return goal.sqrt() * x0 + (1 - goal - sigma**2).clamp(min=0).sqrt() * noise + sigma * fresh

    @torch.no_grad()
    def path(self, n, rng, *, steps: int | None = None, eta: float = 1.0) -> list[torch.Tensor]:
        """The n samples at every stage, from pure noise to the end: steps + 1 tensors on the processor."""
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be between 0 (nothing random after the start) and 1 (DDPM), got {eta}")
        times = self.times(steps or len(self.alpha_bar))
        x = torch.randn(n, *self.shape, generator=rng, device=rng.device).to(self.alpha_bar.device)
        stages = [x]
        with evaluating(self.denoiser):
            for t, before in zip(times, [*times[1:], None], strict=True):
                stages.append(self.step(stages[-1], t, before, rng, eta=eta))
        return [x.cpu() for x in stages]

    def sample(self, n, rng, *, steps: int | None = None, eta: float = 1.0):
        """n samples on the processor, in `steps` of the T steps; eta 1 and all steps is DDPM's algorithm 2, 0 is DDIM.

        With eta 1 the noise has the variance β̃_t, the second of the two choices in Ho et al.'s section 3.2.
        """
        return self.path(n, rng, steps=steps, eta=eta)[-1]
