"""Autoencoder: squeeze an example through a narrow code and rebuild it (Rumelhart, Hinton and Williams 1986)."""

from course_utils.losses import reconstruction
from course_utils.methods.base import Method


class Autoencoder(Method):
    """Squared error between an example and its reconstruction by `model`, which has an `encoder` and a `decoder`.

    >>> import torch
    >>> from course_utils.models import DenseAutoencoder
    >>> method = Autoencoder(DenseAutoencoder((784, 128)))
    >>> method.encode(torch.rand(3, 1, 28, 28)).shape
    torch.Size([3, 128])
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    @property
    def encoder(self):
        return self.model.encoder

    def forward(self, x):
        """The reconstruction of x, shaped like x."""
        return self.model(x)

    def training_loss(self, batch, rng):
        return reconstruction(self(batch), batch), {}
