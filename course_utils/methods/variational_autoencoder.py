"""Variational autoencoder: maximise a lower bound on log p(x) (Kingma and Welling 2014)."""

from torch import Tensor

from course_utils.losses import (
    bernoulli_log_likelihood,
    categorical_log_likelihood,
    free_bits,
    gaussian_log_likelihood,
    kl_to_standard_normal,
)
from course_utils.methods.base import Method
from course_utils.models import VAE, StandardNormal, TextVAE, reparametrise
from course_utils.text import PAD


def log_likelihood(model: VAE | TextVAE, x: Tensor, z: Tensor) -> Tensor:
    """log p(x|z) of every example, (N,), by the model's own kind of likelihood.

    x: (N, ...) as the model generates it; z: (N, latent). A `TextVAE` is given the first token of each row, and padding
    counts nothing.

    >>> import torch
    >>> log_likelihood(VAE.dense((4,), latent=2), torch.rand(3, 4), torch.zeros(3, 2)).shape
    torch.Size([3])
    """
    if model.likelihood == "categorical":
        return token_log_likelihood(model, x, z)
    out = model.decoder(z)
    if model.likelihood == "bernoulli":
        return bernoulli_log_likelihood(x, out)
    return gaussian_log_likelihood(x, out, model.log_var)


def token_log_likelihood(model: TextVAE, x: Tensor, z: Tensor, *, read: Tensor | None = None) -> Tensor:
    """log p(x|z) = Σ_t log p(x_t | x_1 … x_{t−1}, z) of sentences x (N, T) int64, (N,): each word from those before it.

    read: what the decoder is given in place of x, with the same shape; what it has to say stays x. Padding counts
    nothing. Raises ValueError for sentences without a token to predict.

    >>> import torch
    >>> token_log_likelihood(TextVAE.gru(50, latent=2), torch.tensor([[2, 7, 3, 0]]), torch.zeros(1, 2)).shape
    torch.Size([1])
    """
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(f"sentences must be (N, at least 2), a first token and one to predict, got {tuple(x.shape)}")
    read, said = (x if read is None else read)[:, :-1], x[:, 1:]
    return categorical_log_likelihood(said, model.decoder(z, read), mask=said != PAD)


class VariationalAutoencoder(Method):
    """Minimises −E_q[log p(x|z)] + β KL(q(z|x) ‖ p(z)) in nats an example, with one draw of z by the reparametrisation.

    Kingma and Welling 2014, equation 10: the KL in closed form where the prior is N(0, I), else by the draw,
    log q(z|x) − log p(z), as in Tomczak and Welling 2018. beta: β of Higgins et al. 2017. free_bits: λ nats a unit
    (Kingma et al. 2016), for the prior N(0, I). warmup: the part of training over which the KL's weight rises
    linearly from 0 to β (Bowman et al. 2016 anneal by a sigmoid; Sønderby et al. 2016 linearly). Features are the
    posterior's means.

    >>> import torch
    >>> method = VariationalAutoencoder(VAE.dense((1, 28, 28), latent=8), beta=4)
    >>> loss, logs = method.training_loss(torch.rand(5, 1, 28, 28), torch.Generator())
    >>> loss.shape, sorted(logs), method.encode(torch.rand(5, 1, 28, 28)).shape
    (torch.Size([]), ['kl', 'log_likelihood'], torch.Size([5, 8]))
    """

    def __init__(self, model: VAE | TextVAE, *, beta: float = 1.0, free_bits: float = 0.0, warmup: float = 0.0):
        super().__init__()
        if not beta >= 0 or not free_bits >= 0:
            raise ValueError(f"beta and free_bits must be at least 0, got {beta} and {free_bits}")
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup is a part of training, in [0, 1], got {warmup}")
        if free_bits and not isinstance(model.prior, StandardNormal):
            kind = type(model.prior).__name__
            raise ValueError(f"free_bits counts nats a unit, which needs the prior StandardNormal, got {kind}")
        self.model, self.beta, self.free_bits, self.warmup = model, beta, free_bits, warmup
        self.weight = 0.0 if warmup else beta

    @property
    def encoder(self):
        return self.model.encoder

    def forward(self, x):
        return self.model.reconstruct(x)

    def training_loss(self, batch, rng):
        mu, log_var = self.encoder.distribution(batch)
        z = reparametrise(mu, log_var, rng)
        fit = self.log_likelihood(batch, z, rng).mean()
        if isinstance(self.model.prior, StandardNormal):
            units = kl_to_standard_normal(mu, log_var)  # (N, D)
            kl = units.sum(1).mean()
            price = free_bits(units, self.free_bits)
        else:
            price = kl = (gaussian_log_likelihood(z, mu, log_var) - self.model.prior.log_prob(z)).mean()
        return self.weight * price - fit, {"log_likelihood": fit.item(), "kl": kl.item()}

    def log_likelihood(self, x, z, rng):
        """log p(x|z) of every example as training takes it, (N,); a subclass may make it harder with draws from rng."""
        return log_likelihood(self.model, x, z)

    def after_step(self, progress):
        if self.warmup:
            self.weight = self.beta * min(1.0, progress / self.warmup)

    def get_extra_state(self):
        return {"weight": self.weight}

    def set_extra_state(self, state):
        self.weight = state["weight"]
