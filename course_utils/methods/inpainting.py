"""Inpainting: hide parts of an image and paint them in from what is left.

Pathak, Krähenbühl, Donahue, Darrell and Efros, "Context Encoders: Feature Learning by Inpainting", 2016.
"""

from torch import nn

from course_utils.losses import reconstruction
from course_utils.methods.base import Method
from course_utils.models.autoencoders import ConvDecoder
from course_utils.views import mask_patches


class Inpainting(Method):
    """The masked L2 loss of equation 1, on squares hidden at random as in the paper's random-block variant (§3.3).

    The encoder sees the image with `ratio` of its `patch`×`patch` squares hidden; the decoder paints the whole image
    from the representation, and only the hidden pixels count. Hidden squares take the value `fill`, by default the
    mean of what is visible: black ones look like nothing in a whole image, and features of whole images are the worse
    for it. The paper's adversarial term, which sharpens the painting, is left out: it was not used for its
    feature-learning results (§5.2).

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = Inpainting(ConvEncoder(1, width=8), size=28)
    >>> loss, _ = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> loss.ndim
    0
    """

    def __init__(
        self,
        encoder,
        *,
        size: int = 28,
        patch: int = 7,
        ratio: float = 0.25,
        fill: float | str = "mean",
        decoder: nn.Module | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder or ConvDecoder(encoder.out_dim, channels=encoder.in_channels, size=size, width=8)
        self.patch, self.ratio, self.fill = patch, ratio, fill

    def forward(self, masked):
        """The painted images (N, C, H, W) for masked ones of the same shape."""
        return self.decoder(self.encoder(masked))

    def training_loss(self, batch, rng):
        masked, mask = mask_patches(batch, rng, patch=self.patch, ratio=self.ratio, fill=self.fill)
        return reconstruction(self(masked), batch, mask=mask), {}
