"""Autoencoders: an `encoder` to a code and a `decoder` back; `model(x)` reconstructs x."""

import math
from itertools import pairwise

from torch import Tensor, nn

from course_utils.models.encoders import ConvEncoder


class DenseAutoencoder(nn.Module):
    """Linear layers down to a code and back: sizes (784, 128, 64) give 784-128-64-128-784.

    Inputs of any shape with sizes[0] elements an example are flattened, and reconstructions are shaped like them.
    `activation=None` leaves the network linear: trained on squared error it spans the subspace of PCA
    (Baldi and Hornik 1989). There is no activation on the output, and none on the code
    unless `code_activation` names one: a ReLU for codes that may be exactly 0, a sigmoid for codes in (0, 1).

    >>> import torch
    >>> model = DenseAutoencoder((784, 128, 64))
    >>> x = torch.rand(2, 1, 28, 28)
    >>> model(x).shape, model.encoder(x).shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2, 64]))
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        activation: type[nn.Module] | None = nn.ReLU,
        code_activation: type[nn.Module] | None = None,
    ):
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"an autoencoder needs at least an input and a code size, got {sizes}")
        self.encoder = nn.Sequential(nn.Flatten(), *self._layers(sizes, activation))
        if code_activation is not None:
            self.encoder.append(code_activation())
        self.encoder.out_dim = sizes[-1]
        self.decoder = nn.Sequential(*self._layers(sizes[::-1], activation))

    @staticmethod
    def _layers(sizes: tuple[int, ...], activation: type[nn.Module] | None) -> list[nn.Module]:
        layers = []
        for before, after in pairwise(sizes):
            layers.append(nn.Linear(before, after))
            if activation is not None and len(layers) < 2 * (len(sizes) - 2):
                layers.append(activation())
        return layers

    def forward(self, x: Tensor) -> Tensor:
        wanted = self.encoder[1].in_features
        if x.ndim < 2 or math.prod(x.shape[1:]) != wanted:
            raise ValueError(f"this autoencoder takes {wanted} values an example, (N, ...), got {tuple(x.shape)}")
        return self.decoder(self.encoder(x)).view_as(x)


class ConvDecoder(nn.Module):
    """From a code (N, D) to images (N, C, size, size): a linear layer to a quarter-size map, then two upsamplings.

    >>> import torch
    >>> ConvDecoder(128, channels=1, size=28)(torch.rand(2, 128)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(self, in_dim: int, *, channels: int = 1, size: int = 28, width: int = 32):
        super().__init__()
        side = math.ceil(size / 4)
        self.size = size
        self.net = nn.Sequential(
            nn.Linear(in_dim, 2 * width * side * side),
            nn.Unflatten(1, (2 * width, side, side)),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, h: Tensor) -> Tensor:
        return self.net(h)[:, :, : self.size, : self.size]


class ConvAutoencoder(nn.Module):
    """A convolutional encoder and a `ConvDecoder` of some `width`: the code is the encoder's feature vector.

    >>> import torch
    >>> ConvAutoencoder(ConvEncoder(1, width=8), size=28)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(self, encoder: ConvEncoder, *, size: int = 28, width: int = 32):
        super().__init__()
        self.encoder = encoder
        self.decoder = ConvDecoder(encoder.out_dim, channels=encoder.in_channels, size=size, width=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))
