"""Networks only: no losses, no training."""

from course_utils.models.autoencoders import ConvAutoencoder, ConvDecoder, DenseAutoencoder
from course_utils.models.encoders import ConvEncoder, ResNet18
from course_utils.models.heads import MLP

__all__ = ["MLP", "ConvAutoencoder", "ConvDecoder", "ConvEncoder", "DenseAutoencoder", "ResNet18"]
