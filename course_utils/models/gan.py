"""The two networks of a small DCGAN (Radford, Metz and Chintala 2016): noise to images, and images to one score."""

import math

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as spectrally_normalised


class Generator(nn.Module):
    """Noise (N, latent_dim) to images (N, channels, size, size) in [−1, 1].

    A linear layer to a map of a quarter of the size, two upsamplings, each followed by a 3×3 convolution, with batch
    norm and ReLU between and tanh at the end. DCGAN's transposed convolutions give way to upsampling, which leaves no
    checkerboard (Odena, Dumoulin and Olah 2016).

    >>> import torch
    >>> Generator(16, channels=1, size=16)(torch.randn(2, 16)).shape
    torch.Size([2, 1, 16, 16])
    """

    def __init__(self, latent_dim: int, *, channels: int = 1, size: int = 16, width: int = 16):
        super().__init__()
        side = math.ceil(size / 4)
        self.latent_dim, self.size = latent_dim, size
        self.net = nn.Sequential(
            nn.Linear(latent_dim, 2 * width * side * side, bias=False),
            nn.Unflatten(1, (2 * width, side, side)),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise ValueError(f"this generator takes noise (N, {self.latent_dim}), got {tuple(z.shape)}")
        return self.net(z)[:, :, : self.size, : self.size]


class Critic(nn.Module):
    """Images (N, channels, size, size) to scores (N,): the discriminator of a GAN, the critic of a Wasserstein GAN.

    Two 4×4 convolutions of stride 2 with leaky ReLU, and a linear layer. Unlike DCGAN's it has no batch norm, so that
    the score of an image is its own: the gradient penalty asks for that. spectral_norm=True divides every weight by
    its largest singular value (Miyato et al. 2018), by torch's own parametrisation, so that no layer is steeper than 1
    as a matrix. `features` (N, D) is what the last layer reads.

    >>> import torch
    >>> Critic(1, size=16, spectral_norm=True)(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2])
    """

    def __init__(self, channels: int = 1, *, size: int = 16, width: int = 16, spectral_norm: bool = False):
        super().__init__()
        self.channels, self.size = channels, size
        side = size // 4
        normal = spectrally_normalised if spectral_norm else nn.Identity()
        self.features = nn.Sequential(
            normal(nn.Conv2d(channels, width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            normal(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.last = normal(nn.Linear(2 * width * side * side, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (self.channels, self.size, self.size):
            wanted = f"(N, {self.channels}, {self.size}, {self.size})"
            raise ValueError(f"this critic takes images {wanted}, got {tuple(x.shape)}")
        return self.last(self.features(x)).squeeze(1)
