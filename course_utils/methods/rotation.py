"""Rotation: to say how far an image was turned, a network must know what is in it.

Gidaris, Singh and Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", 2018.
"""

import functools

import torch.nn.functional as F

from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import View, augment, rotate_four_ways

upright_view: View = functools.partial(augment, rotation=0.0)  # turns would blur what is to be told apart


class Rotation(Method):
    """All four quarter turns of every image, classified (§3.1, equations 2 and 3).

    The loss is the paper's: mean cross-entropy over the 4N turned images. It logs the accuracy of telling the turns.

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = Rotation(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['accuracy']
    """

    def __init__(self, encoder, *, view: View = upright_view):
        super().__init__()
        self.encoder = encoder
        self.head = MLP(encoder.out_dim, encoder.out_dim, 4)
        self.view = view

    def training_loss(self, batch, rng):
        turned, turns = rotate_four_ways(self.view(batch, rng))
        logits = self.head(self.encoder(turned))
        return F.cross_entropy(logits, turns), {"accuracy": (logits.argmax(1) == turns).float().mean().item()}
