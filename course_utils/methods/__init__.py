"""Methods: networks, views and an objective behind one small interface, one file each.

`REGISTRY` is the table of the self-supervised image methods: name -> constructor, each called with an encoder.
"""

from course_utils.methods.autoencoder import Autoencoder
from course_utils.methods.base import Method, encode
from course_utils.methods.inpainting import Inpainting
from course_utils.methods.rotation import Rotation
from course_utils.methods.simclr import SimCLR
from course_utils.methods.supervised import Supervised

REGISTRY = {
    "inpainting": Inpainting,
    "rotation": Rotation,
    "simclr": SimCLR,
}

__all__ = ["REGISTRY", "Autoencoder", "Inpainting", "Method", "Rotation", "SimCLR", "Supervised", "encode"]
