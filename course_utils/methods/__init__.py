"""Methods: networks, views and an objective behind one small interface, one file each.

`REGISTRY` is the table of the self-supervised image methods: name -> constructor, each called with an encoder.
"""

import inspect

from torch import Tensor

from course_utils.methods.autoencoder import Autoencoder
from course_utils.methods.barlow_twins import BarlowTwins
from course_utils.methods.base import Method, encode
from course_utils.methods.byol import BYOL
from course_utils.methods.causal_language_model import CausalLanguageModel
from course_utils.methods.colorization import Colorization
from course_utils.methods.cpc import CPC
from course_utils.methods.deep_cluster import DeepCluster
from course_utils.methods.diffusion import Diffusion
from course_utils.methods.dino import DINO
from course_utils.methods.frame_order import FrameOrder
from course_utils.methods.gan import GAN
from course_utils.methods.i_jepa import IJEPA
from course_utils.methods.inpainting import Inpainting
from course_utils.methods.jigsaw import Jigsaw
from course_utils.methods.mae import MAE
from course_utils.methods.masked_language_model import BERT, MaskedLanguageModel
from course_utils.methods.moco import MoCo
from course_utils.methods.next_frame import NextFrame
from course_utils.methods.nnclr import NNCLR
from course_utils.methods.real_nvp import RealNVP
from course_utils.methods.regularised_autoencoders import (
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    SparseAutoencoder,
)
from course_utils.methods.relative_position import RelativePosition
from course_utils.methods.restoration import Denoising, Restoration, SuperResolution
from course_utils.methods.rotation import Rotation
from course_utils.methods.siamese import Siamese
from course_utils.methods.simclr import SimCLR
from course_utils.methods.simsiam import SimSiam
from course_utils.methods.supervised import Supervised
from course_utils.methods.swav import SwAV
from course_utils.methods.text_variational_autoencoder import TextVariationalAutoencoder
from course_utils.methods.triplet import Triplet
from course_utils.methods.variational_autoencoder import VariationalAutoencoder
from course_utils.methods.vicreg import VICReg
from course_utils.methods.w_mse import WMSE
from course_utils.methods.word2vec import Word2Vec

REGISTRY = {
    "barlow_twins": BarlowTwins,
    "byol": BYOL,
    "colorization": Colorization,
    "cpc": CPC,
    "deep_cluster": DeepCluster,
    "denoising": Denoising,
    "dino": DINO,
    "frame_order": FrameOrder,
    "i_jepa": IJEPA,
    "inpainting": Inpainting,
    "jigsaw": Jigsaw,
    "mae": MAE,
    "moco": MoCo,
    "next_frame": NextFrame,
    "nnclr": NNCLR,
    "relative_position": RelativePosition,
    "rotation": Rotation,
    "siamese": Siamese,
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "super_resolution": SuperResolution,
    "swav": SwAV,
    "triplet": Triplet,
    "vicreg": VICReg,
    "w_mse": WMSE,
}


def build(name: str, images: Tensor, **options) -> Method:
    """The registered method `name` with a new encoder for batches like `images`; `options` go to the method.

    images: what the method is to be trained on, (N, C, H, W), or (N, T, C, H, W) for a method of clips; only the shape
    is read. Raises ValueError for an unknown name.

    >>> import torch
    >>> build("simclr", torch.rand(2, 3, 32, 32), temperature=0.2).encode(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 48])
    """
    if name not in REGISTRY:
        raise ValueError(f"there is no method {name!r}: the registry has {', '.join(REGISTRY)}")
    constructor = REGISTRY[name]
    *_, channels, _, size = images.shape
    channels = 1 if constructor.trains_on == "colour images" else channels
    network = constructor.network(channels, **_where_taken(constructor.network, size=size))
    return constructor(network, **_where_taken(constructor, size=size), **options)


def _where_taken(constructor, **arguments) -> dict:
    taken = inspect.signature(constructor).parameters
    return {name: value for name, value in arguments.items() if name in taken}


__all__ = [
    "BERT",
    "BYOL",
    "CPC",
    "DINO",
    "GAN",
    "IJEPA",
    "MAE",
    "NNCLR",
    "REGISTRY",
    "WMSE",
    "Autoencoder",
    "BarlowTwins",
    "CausalLanguageModel",
    "Colorization",
    "ContractiveAutoencoder",
    "DeepCluster",
    "Denoising",
    "DenoisingAutoencoder",
    "Diffusion",
    "FrameOrder",
    "Inpainting",
    "Jigsaw",
    "MaskedLanguageModel",
    "Method",
    "MoCo",
    "NextFrame",
    "RealNVP",
    "RelativePosition",
    "Restoration",
    "Rotation",
    "Siamese",
    "SimCLR",
    "SimSiam",
    "SparseAutoencoder",
    "SuperResolution",
    "Supervised",
    "SwAV",
    "TextVariationalAutoencoder",
    "Triplet",
    "VICReg",
    "VariationalAutoencoder",
    "Word2Vec",
    "build",
    "encode",
]
