"""Networks only: no losses, no training."""

from course_utils.models.autoencoders import ConvAutoencoder, ConvDecoder, DenseAutoencoder
from course_utils.models.diffusion import DenseDenoiser, TimeUNet, alpha_bars, time_embedding
from course_utils.models.encoders import ConvEncoder, ResNet18
from course_utils.models.flow import AffineCoupling, CouplingFlow, dequantize
from course_utils.models.gan import Critic, Generator
from course_utils.models.heads import MLP, DINOHead, cosines
from course_utils.models.momentum import follow, frozen_copy, rising
from course_utils.models.priors import GaussianMixturePrior, StandardNormal, VampPrior
from course_utils.models.text_vae import SentenceReader, SentenceWriter, TextVAE
from course_utils.models.transformer import TokenHead, Transformer, TransformerLayer, WordVectors
from course_utils.models.vae import VAE, GaussianEncoder, reparametrise
from course_utils.models.vit import Block, ViT, patchify, sine_cosine_positions, unpatchify

__all__ = [
    "MLP",
    "VAE",
    "AffineCoupling",
    "Block",
    "ConvAutoencoder",
    "ConvDecoder",
    "ConvEncoder",
    "CouplingFlow",
    "Critic",
    "DINOHead",
    "DenseAutoencoder",
    "DenseDenoiser",
    "GaussianEncoder",
    "GaussianMixturePrior",
    "Generator",
    "ResNet18",
    "SentenceReader",
    "SentenceWriter",
    "StandardNormal",
    "TextVAE",
    "TimeUNet",
    "TokenHead",
    "Transformer",
    "TransformerLayer",
    "VampPrior",
    "ViT",
    "WordVectors",
    "alpha_bars",
    "cosines",
    "dequantize",
    "follow",
    "frozen_copy",
    "patchify",
    "reparametrise",
    "rising",
    "sine_cosine_positions",
    "time_embedding",
    "unpatchify",
]
