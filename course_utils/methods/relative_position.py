"""Relative position: to say where one patch lies from another, a network must know what they are parts of.

Doersch, Gupta and Efros, "Unsupervised Visual Representation Learning by Context Prediction", 2015.
"""

import torch
import torch.nn.functional as F

from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import drop_channels, equalise_patches, patch_grid

NEIGHBOURS = (0, 1, 2, 3, 5, 6, 7, 8)  # of a 3×3 grid, row by row; the centre is 4


class RelativePosition(Method):
    """Where does this patch lie from that one: above left, above, …, below right? Eight answers, cross-entropy (§3).

    From each image comes a 3×3 grid of patches; the centre is paired with each of its eight neighbours. One encoder
    sees all the patches, each by itself, and an MLP with batch norm tells the place from a pair's two features (the
    late fusion of the paper's figure 3). It logs the accuracy; blind guessing has 1/8.

    What would give the place away without any idea of the image is made useless as in the paper's §3.1: a `gap`
    between patches and `jitter`, so that lines and textures cannot be continued across the border; the patches' means
    are made equal; of several colour channels one is kept. Departures: the paper pairs all neighbours of a larger grid,
    here the centre alone is a partner; it also reduces some patches to 100 pixels, for pixelation does not occur here.

    The sizes are for images of 28 pixels: gaps of nearly half a patch, as there. Larger images want larger patches.

    >>> from course_utils.models import ConvEncoder
    >>> method = RelativePosition(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['accuracy']
    """

    def __init__(self, encoder, *, patch: int = 7, gap: int = 3, jitter: int = 1):
        super().__init__()
        self.encoder = encoder
        self.head = MLP(2 * encoder.out_dim, 2 * encoder.out_dim, 8)
        self.patch, self.gap, self.jitter = patch, gap, jitter

    def patches(self, batch, rng):
        """What the encoder sees of each image, row by row: (N, 9, C, patch, patch)."""
        grid = patch_grid(batch, rng, patch=self.patch, gap=self.gap, jitter=self.jitter)
        grid = drop_channels(grid.flatten(0, 1), rng).view_as(grid)
        return equalise_patches(grid, batch, deviation=False)

    def training_loss(self, batch, rng):
        h = self.encoder(self.patches(batch, rng).flatten(0, 1)).unflatten(0, (-1, 9))  # (N, 9, D)
        neighbours = h[:, NEIGHBOURS, :]
        pairs = torch.cat([h[:, 4:5].expand_as(neighbours), neighbours], 2)  # (N, 8, 2D)
        logits = self.head(pairs.flatten(0, 1))
        places = torch.arange(8, device=batch.device).repeat(len(batch))
        return F.cross_entropy(logits, places), {"accuracy": (logits.argmax(1) == places).float().mean().item()}
