"""Three autoencoders whose code may be wide: what keeps them from copying is noise, sparsity or a flat encoder."""

from collections.abc import Callable

import torch

from course_utils.losses import jacobian_norm, kl_to_target, reconstruction
from course_utils.methods.autoencoder import Autoencoder


class DenoisingAutoencoder(Autoencoder):
    """Rebuild x from a corrupted x̃: Vincent et al. 2008, with the squared error.

    corrupt: (x, rng) -> x̃ of the same shape; by default Gaussian noise of standard deviation `noise`. (The paper sets
    pixels to 0; it names other corruptions as possible.) Features are those of the clean x. `Denoising`
    does the same with a convolutional encoder and a range of noise.

    >>> from course_utils.models import DenseAutoencoder
    >>> method = DenoisingAutoencoder(DenseAutoencoder((784, 128)), noise=0.5)
    >>> method.training_loss(torch.rand(3, 1, 28, 28), torch.Generator())[0].shape
    torch.Size([])
    """

    def __init__(self, model, *, noise: float = 0.3, corrupt: Callable | None = None):
        super().__init__(model)
        if not noise >= 0:
            raise ValueError(f"noise is a standard deviation, at least 0, got {noise}")
        self.noise, self.corrupt = noise, corrupt

    def training_loss(self, batch, rng):
        if self.corrupt is not None:
            given = self.corrupt(batch, rng)
        else:
            noise = torch.randn(batch.shape, generator=rng, device=batch.device, dtype=batch.dtype)
            given = batch + self.noise * noise
        return reconstruction(self(given), batch), {}


class SparseAutoencoder(Autoencoder):
    """Squared error plus `weight` times a penalty on the code: its mean absolute value (L1), or, with a `target`, the
    divergence of every unit's mean activation from it (`losses.kl_to_target`; the code must then end in a sigmoid).

    >>> from torch import nn
    >>> from course_utils.models import DenseAutoencoder
    >>> method = SparseAutoencoder(DenseAutoencoder((784, 256), code_activation=nn.ReLU), weight=0.1)
    >>> loss, logs = method.training_loss(torch.rand(3, 1, 28, 28), torch.Generator())
    >>> sorted(logs)
    ['error', 'penalty']
    """

    def __init__(self, model, *, weight: float, target: float | None = None):
        super().__init__(model)
        _check_weight(weight)
        self.weight, self.target = weight, target

    def training_loss(self, batch, rng):
        z = self.encoder(batch)
        error = reconstruction(self.model.decoder(z).view_as(batch), batch)
        penalty = z.abs().mean() if self.target is None else kl_to_target(z, self.target)
        return error + self.weight * penalty, {"error": error.item(), "penalty": penalty.item()}


class ContractiveAutoencoder(Autoencoder):
    """Squared error plus `weight` times the squared Frobenius norm of the encoder's Jacobian: Rifai et al. 2011.

    The norm is estimated by one random projection a step, without bias (`losses.jacobian_norm`); the paper computes it
    in closed form for one sigmoid layer. The paper ties the decoder's weights to the encoder's, without which an
    encoder can shrink its code for nothing and the decoder grow it back; here weight decay limits that. The encoder
    must treat every example alone: no batch normalisation.

    >>> from torch import nn
    >>> from course_utils.models import DenseAutoencoder
    >>> method = ContractiveAutoencoder(DenseAutoencoder((784, 64), code_activation=nn.Sigmoid), weight=0.01)
    >>> loss, logs = method.training_loss(torch.rand(3, 1, 28, 28), torch.Generator())
    >>> sorted(logs)
    ['error', 'penalty']
    """

    def __init__(self, model, *, weight: float):
        super().__init__(model)
        _check_weight(weight)
        self.weight = weight

    def training_loss(self, batch, rng):
        error = reconstruction(self(batch), batch)
        penalty = jacobian_norm(self.encoder, batch, rng)
        return error + self.weight * penalty, {"error": error.item(), "penalty": penalty.item()}


def _check_weight(weight: float) -> None:
    if not weight >= 0:
        raise ValueError(f"weight must be at least 0, got {weight}")
