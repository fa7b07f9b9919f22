"""Networks only: no losses, no training."""

from course_utils.models.autoencoders import ConvAutoencoder, ConvDecoder, DenseAutoencoder
from course_utils.models.encoders import ConvEncoder, ResNet18
from course_utils.models.heads import MLP
from course_utils.models.momentum import follow, frozen_copy

__all__ = [
    "MLP",
    "ConvAutoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "DenseAutoencoder",
    "ResNet18",
    "follow",
    "frozen_copy",
]
