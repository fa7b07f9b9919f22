"""Jigsaw: to put shuffled tiles back in order, a network must know which parts things have and how they lie.

Noroozi and Favaro, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", 2016.
"""

import torch
import torch.nn.functional as F

from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import equalise_patches, mix_channels, patch_grid, permutation_set


class Jigsaw(Method):
    """Nine tiles in one of `permutations` known orders: which one? Cross-entropy over the orders (§3.1).

    The context-free network: one encoder sees each tile by itself, the nine features are joined in the order in which
    the tiles were dealt, and an MLP names the order. The set of orders has the greatest Hamming distances (algorithm
    1), so that no two are nearly alike. It logs the accuracy.

    Against shortcuts (§3.3) tiles are cut with random gaps, given equal means and deviations, and their colours are
    mixed tile by tile with strength `mixing` (the paper shifts the channels and takes some images grey). The equal
    mean and deviation are the image's own, where the paper's are 0 and 1, so that the encoder also knows the scale of
    whole images. The sizes are for images of 28 pixels, and 64 orders, not 1,000, for short training.

    >>> from course_utils.models import ConvEncoder
    >>> method = Jigsaw(ConvEncoder(1, width=8), permutations=10)
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['accuracy']
    """

    def __init__(self, encoder, *, permutations: int = 64, tile: int = 8, gap: int = 1, mixing: float = 0.5):
        super().__init__()
        self.encoder = encoder
        self.head = MLP(9 * encoder.out_dim, 4 * encoder.out_dim, permutations)
        self.register_buffer("orders", permutation_set(permutations))  # (permutations, 9)
        self.tile, self.gap, self.mixing = tile, gap, mixing

    def tiles(self, batch, rng):
        """What the encoder sees of each image, not yet shuffled: (N, 9, C, tile, tile)."""
        grid = patch_grid(batch, rng, patch=self.tile, gap=self.gap, jitter=self.gap)
        grid = mix_channels(grid.flatten(0, 1), rng, strength=self.mixing).view_as(grid)
        return equalise_patches(grid, batch)

    def training_loss(self, batch, rng):
        h = self.encoder(self.tiles(batch, rng).flatten(0, 1)).unflatten(0, (-1, 9))  # (N, 9, D): no tile sees another
        answer = torch.randint(len(self.orders), (len(batch),), generator=rng, device=batch.device)
        dealt = h.gather(1, self.orders[answer][:, :, None].expand_as(h))  # (N, 9, D): place p has tile order[p]
        logits = self.head(dealt.flatten(1))
        return F.cross_entropy(logits, answer), {"accuracy": (logits.argmax(1) == answer).float().mean().item()}
