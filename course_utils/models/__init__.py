"""Networks only: no losses, no training."""

from course_utils.models.autoencoders import ConvAutoencoder, ConvDecoder, DenseAutoencoder
from course_utils.models.encoders import ConvEncoder, ResNet18
from course_utils.models.heads import MLP, DINOHead, cosines
from course_utils.models.momentum import follow, frozen_copy, rising
from course_utils.models.priors import GaussianMixturePrior, StandardNormal, VampPrior
from course_utils.models.transformer import TokenHead, Transformer, TransformerLayer, WordVectors
from course_utils.models.vae import VAE, GaussianEncoder, reparametrise
from course_utils.models.vit import Block, ViT, patchify, sine_cosine_positions, unpatchify

__all__ = [
    "MLP",
    "VAE",
    "Block",
    "ConvAutoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "DINOHead",
    "DenseAutoencoder",
    "GaussianEncoder",
    "GaussianMixturePrior",
    "ResNet18",
    "StandardNormal",
    "TokenHead",
    "Transformer",
    "TransformerLayer",
    "VampPrior",
    "ViT",
    "WordVectors",
    "cosines",
    "follow",
    "frozen_copy",
    "patchify",
    "reparametrise",
    "rising",
    "sine_cosine_positions",
    "unpatchify",
]
