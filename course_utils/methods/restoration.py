"""Restoration: damage an image in a known way and rebuild it. Denoising and super-resolution are two damages.

Vincent, Larochelle, Bengio and Manzagol, "Extracting and Composing Robust Features with Denoising Autoencoders", 2008,
and their "Stacked Denoising Autoencoders", 2010, with Lajoie. Super-resolution: Dong, Loy, He and Tang, "Image
Super-Resolution Using Deep Convolutional Networks", 2014.
"""

from torch import nn

from course_utils.losses import reconstruction
from course_utils.methods.base import Method
from course_utils.models.autoencoders import ConvDecoder
from course_utils.views import gaussian_noise, low_resolution, mask_patches

STRENGTHS = {"noise": 0.5, "masking": 0.5, "low_resolution": 4}


class Restoration(Method):
    """Squared error between an image and what is rebuilt from its damaged version x̃ ~ q(x̃ | x), over all pixels.

    corruption, and what `strength` means for it:
    "noise": additive Gaussian noise (2010, §3.3), deviation from 0 to `strength`, cut off at black and white;
    "masking": a part `strength` of the pixels, chosen at random, is set to 0 (2008, §2.3);
    "low_resolution": means over squares of `strength` pixels, enlarged bicubically again (2014, §3.1).

    Departures: the encoder is a deep convolutional one trained at once, not layer by layer, and its code is pooled to
    one vector; the noise's deviation is drawn for each image; super-resolution goes through that vector as well, where
    the paper's network keeps the image's size throughout.

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = Restoration(ConvEncoder(1, width=8), corruption="masking")
    >>> method.corrupt(torch.ones(1, 1, 28, 28), torch.Generator().manual_seed(0)).mean().item()
    0.5
    """

    def __init__(
        self,
        encoder,
        *,
        corruption: str = "noise",
        strength: float | None = None,
        size: int = 28,
        decoder: nn.Module | None = None,
    ):
        super().__init__()
        if corruption not in STRENGTHS:
            raise ValueError(f"corruption must be one of {', '.join(STRENGTHS)}, got {corruption!r}")
        self.encoder = encoder
        self.decoder = decoder or ConvDecoder(encoder.out_dim, channels=encoder.in_channels, size=size, width=8)
        self.corruption, self.strength = corruption, STRENGTHS[corruption] if strength is None else strength

    def corrupt(self, x, rng):
        """The damaged images, shaped like x."""
        if self.corruption == "noise":
            return gaussian_noise(x, rng, strength=self.strength)
        if self.corruption == "masking":
            return mask_patches(x, rng, patch=1, ratio=self.strength)[0]
        return low_resolution(x, rng, factor=self.strength)

    def forward(self, damaged):
        """The rebuilt images (N, C, H, W) for damaged ones of the same shape."""
        return self.decoder(self.encoder(damaged))

    def training_loss(self, batch, rng):
        return reconstruction(self(self.corrupt(batch, rng)), batch), {}


class Denoising(Restoration):
    """Restoration of images with Gaussian noise of a deviation up to `noise`.

    >>> from course_utils.models import ConvEncoder
    >>> Denoising(ConvEncoder(1, width=4), noise=0.2).strength
    0.2
    """

    def __init__(self, encoder, *, noise: float = STRENGTHS["noise"], size: int = 28, decoder=None):
        super().__init__(encoder, corruption="noise", strength=noise, size=size, decoder=decoder)


class SuperResolution(Restoration):
    """Restoration of images whose pixels were `factor` times as large.

    >>> from course_utils.models import ConvEncoder
    >>> SuperResolution(ConvEncoder(1, width=4), factor=2).corruption
    'low_resolution'
    """

    def __init__(self, encoder, *, factor: int = STRENGTHS["low_resolution"], size: int = 28, decoder=None):
        super().__init__(encoder, corruption="low_resolution", strength=factor, size=size, decoder=decoder)
