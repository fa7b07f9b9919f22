"""Networks only: no losses, no training."""

from course_utils.models.autoencoders import ConvAutoencoder, ConvDecoder, DenseAutoencoder
from course_utils.models.encoders import ConvEncoder, ResNet18
from course_utils.models.heads import MLP
from course_utils.models.momentum import follow, frozen_copy
from course_utils.models.vit import Block, ViT, patchify, sine_cosine_positions, unpatchify

__all__ = [
    "MLP",
    "Block",
    "ConvAutoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "DenseAutoencoder",
    "ResNet18",
    "ViT",
    "follow",
    "frozen_copy",
    "patchify",
    "sine_cosine_positions",
    "unpatchify",
]
