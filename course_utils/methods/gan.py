"""GAN: a generator learns to make what a critic takes for real (Goodfellow et al. 2014), and what keeps it steady."""

import torch

from course_utils.losses import (
    critic_cross_entropy,
    critic_wasserstein,
    generator_cross_entropy,
    generator_wasserstein,
    gradient_penalty,
)
from course_utils.methods.base import Method, evaluating

OBJECTIVES = ("non-saturating", "saturating", "wasserstein")


class GAN(Method):
    """`generator` (N, latent_dim) → examples against `critic`: examples → (N,) scores, both updated at once by `fit`.

    objective: "non-saturating" or "saturating" (Goodfellow et al. 2014) or "wasserstein" (Arjovsky et al. 2017).
    penalty: the factor λ of `gradient_penalty`; Gulrajani et al. 2017 (WGAN-GP) take 10. critic_steps: the generator
    moves at every so many updates, the critic at each.

    The loss is one sum. The critic's part sees generated examples that are detached; the generator's part goes through
    a critic whose weights are detached. Each is thus given the gradient of its own objective and of nothing else. Where
    the papers alternate, both here move from the same point: simultaneous gradient descent. Adam with β₁ of 0.5 or
    less is usual: `fit(..., optimizer=partial(torch.optim.AdamW, betas=(0.5, 0.9)))`. `encode` is what the critic's
    `features` see. With critic_steps over 1 some weights have no gradient at some updates, which training in several
    processes does not allow.

    >>> from course_utils.models import Critic, Generator
    >>> method = GAN(Generator(8, size=16), Critic(size=16), latent_dim=8)
    >>> method.sample(3, torch.Generator().manual_seed(0)).shape
    torch.Size([3, 1, 16, 16])
    """

    def __init__(
        self,
        generator,
        critic,
        *,
        latent_dim: int,
        objective: str = "non-saturating",
        penalty: float = 0.0,
        critic_steps: int = 1,
    ):
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
        if not penalty >= 0 or critic_steps < 1:
            raise ValueError(
                f"penalty must be at least 0 and critic_steps at least 1, got {penalty} and {critic_steps}"
            )
        self.generator, self.critic, self.latent_dim = generator, critic, latent_dim
        self.objective, self.penalty, self.critic_steps = objective, penalty, critic_steps
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @property
    def encoder(self):
        return self.critic.features

    def generate(self, n, rng):
        """n examples from noise of `rng`, with gradients to the generator."""
        device = next(self.generator.parameters()).device
        return self.generator(torch.randn(n, self.latent_dim, generator=rng, device=rng.device).to(device))

    @torch.no_grad()
    def sample(self, n, rng):
        """n generated examples on the processor, in evaluation mode."""
        with evaluating(self.generator):
            return self.generate(n, rng).float().cpu()

    def training_loss(self, batch, rng):
        fake = self.generate(len(batch), rng).to(batch.dtype)
        wasserstein = self.objective == "wasserstein"
        scores = self.critic(torch.cat([batch, fake.detach()])).chunk(2)
        loss = critic_wasserstein(*scores) if wasserstein else critic_cross_entropy(*scores)
        logs = {"critic": loss.item()}
        if self.penalty:
            loss = loss + self.penalty * gradient_penalty(self.critic, batch, fake, rng)
        if int(self.updates) % self.critic_steps == 0:
            still = {name: weight.detach() for name, weight in self.critic.named_parameters()}
            score = torch.func.functional_call(self.critic, still, fake)
            saturating = self.objective == "saturating"
            theirs = (
                generator_wasserstein(score) if wasserstein else generator_cross_entropy(score, saturating=saturating)
            )
            loss, logs["generator"] = loss + theirs, theirs.item()
        return loss, logs

    def after_step(self, progress):
        self.updates += 1
