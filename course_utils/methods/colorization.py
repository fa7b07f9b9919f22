"""Colorization: to guess what colour a thing has from a grey picture, a network must know what the thing is.

Zhang, Isola and Efros, "Colorful Image Colorization", 2016.
"""

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.distributed import gather
from course_utils.losses import colour_bins, colour_cross_entropy, rebalancing_weights, soft_encode
from course_utils.methods.base import Method, encode
from course_utils.models.autoencoders import ConvDecoder
from course_utils.views import chroma, luminance, with_chroma


class Colorization(Method):
    """From the luminance, the distribution over Q bins of chroma at every place: a classification (§2.1, equation 2).

    Labels are soft over the five nearest bins, and rare colours weigh more (equation 4), by how often each occurs in
    the batch. As in the paper the map of colours has a quarter of the image's resolution; of each square that it stands
    for, one pixel is drawn to mark it by.
    Batches are colour images; the encoder sees one channel, and `encode` takes grey images or the luminance of colour
    ones. `paint` colours images with the annealed mean of equation 5.

    Departures: chroma are Cb and Cr, not a and b of CIE Lab (see `losses.colours`), so that a colour image has the
    luminance of its grey twin; frequencies come from the batch and are not smoothed; the map is decoded from the
    encoder's one vector, like the other methods of this course, where the paper's network keeps a map throughout.

    >>> from course_utils.models import ConvEncoder
    >>> method = Colorization(ConvEncoder(1, width=8), size=28)
    >>> method(torch.rand(2, 1, 28, 28)).shape, len(method.bins)
    (torch.Size([2, 71, 7, 7]), 71)
    """

    trains_on = "colour images"

    def __init__(self, encoder, *, size: int = 28, step: float = 0.1, uniform: float = 0.5, decoder=None):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("bins", colour_bins(step))  # (Q, 2)
        self.decoder: nn.Module = decoder or ConvDecoder(
            encoder.out_dim, channels=len(self.bins), size=-(-size // 4), width=16
        )
        self.step, self.uniform = step, uniform

    def forward(self, grey):
        """Logits (N, Q, H/4, W/4) of the bins for images of one channel."""
        return self.decoder(self.encoder(grey))

    def encode(self, x, **options):
        return super().encode(luminance(x), **options)

    def training_loss(self, batch, rng):
        if batch.shape[1] != 3:
            raise ValueError(f"colorization trains on colour images (N, 3, H, W), got {tuple(batch.shape)}")
        logits = self(luminance(batch))
        there = _one_pixel_a_square(chroma(batch), *logits.shape[2:], rng)  # (N, 2, H/4, W/4)
        z = soft_encode(there, self.bins, sigma=self.step / 2)  # (N, Q, H/4, W/4)
        frequency = gather(z.mean((0, 2, 3))[None]).mean(0)
        return colour_cross_entropy(logits, z, weights=rebalancing_weights(frequency, uniform=self.uniform)), {}

    @torch.no_grad()
    def paint(self, x, *, temperature: float = 0.38):
        """Colour images (N, 3, H, W) with the luminance of x, by the annealed mean of the bins (equation 5)."""
        grey = luminance(x)
        mean = torch.einsum("nqhw,qc->nchw", (encode(self, grey) / temperature).softmax(1), self.bins.cpu())
        mean = F.interpolate(mean, size=x.shape[2:], mode="bilinear", align_corners=False)
        return with_chroma(grey.cpu(), mean)


def _one_pixel_a_square(x, rows: int, columns: int, rng):
    """The pixel at a place, drawn for each image, of each of rows × columns squares: (N, C, rows, columns)."""
    n, _, height, width = x.shape
    deep, wide = -(-height // rows), -(-width // columns)
    down, right = torch.rand(2, n, 1, 1, generator=rng, device=x.device)
    row = (torch.arange(rows, device=x.device)[:, None] * deep + (down * deep).long()).clamp_max(height - 1)
    column = (torch.arange(columns, device=x.device) * wide + (right * wide).long()).clamp_max(width - 1)
    images = torch.arange(n, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[images, row, column].permute(0, 3, 1, 2)  # row: (N, rows, 1), column: (N, 1, columns)
