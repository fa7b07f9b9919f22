"""Networks only: no losses, no training."""

from course_utils.models.autoencoders import ConvAutoencoder, ConvDecoder, DenseAutoencoder
from course_utils.models.encoders import ConvEncoder, ResNet18
from course_utils.models.heads import MLP, DINOHead, cosines
from course_utils.models.momentum import follow, frozen_copy, rising
from course_utils.models.transformer import TokenHead, Transformer, TransformerLayer, WordVectors
from course_utils.models.vit import Block, ViT, patchify, sine_cosine_positions, unpatchify

__all__ = [
    "MLP",
    "Block",
    "ConvAutoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "DINOHead",
    "DenseAutoencoder",
    "ResNet18",
    "TokenHead",
    "Transformer",
    "TransformerLayer",
    "ViT",
    "WordVectors",
    "cosines",
    "follow",
    "frozen_copy",
    "patchify",
    "rising",
    "sine_cosine_positions",
    "unpatchify",
]
