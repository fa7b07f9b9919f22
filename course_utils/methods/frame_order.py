"""Frame order: is the middle one of three frames really from the time between the other two?

Misra, Zitnick and Hebert, "Shuffle and Learn: Unsupervised Learning using Temporal Order Verification", 2016, §3.
"""

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.methods.base import Method
from course_utils.methods.next_frame import check_clips
from course_utils.models.heads import MLP


class FrameOrder(Method):
    """Of five frames a < b < c < d < e of a clip, (b, c, d) is in order, and (b, a, d) and (b, e, d) are not.

    Only the middle frame differs, so no frame on its own gives the answer away, and every triple is turned round half
    the time: (d, c, b) counts as ordered too (§3.1). Where nothing moves there is nothing to tell: as many windows as
    there are clips are drawn from all windows of the batch with probability in proportion to how much moves in them.

    Unlike the paper, motion is the mean absolute difference of successive frames, not optical flow; two of three
    triples are out of order, not three of four; and a hidden layer stands between the three features, side by side, and
    the answer, since features so small are not linear in "between". It logs the accuracy: two thirds is chance.

    >>> from course_utils.models import ConvEncoder
    >>> method = FrameOrder(ConvEncoder(1, width=8))
    >>> loss, logs = method.training_loss(torch.rand(4, 6, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['accuracy']
    """

    trains_on = "clips"

    def __init__(self, encoder, *, hidden: int = 128):
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        self.encoder = encoder
        self.head = MLP(3 * encoder.out_dim, hidden, 2)

    def training_loss(self, batch, rng):
        frames = informative_frames(batch, rng)  # (N, 5, C, H, W)
        a, b, c, d, e = self.encoder(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).unbind(1)  # (N, D) each
        triples = torch.stack([b, c, d, b, a, d, b, e, d]).unflatten(0, (3, 3))  # (3 kinds, 3 frames, N, D)
        triples = triples.transpose(1, 2).flatten(0, 1)  # (3N, 3, D): all in order, then the two kinds that are not
        turned = torch.rand(len(triples), 1, 1, generator=rng, device=triples.device) < 0.5
        triples = torch.where(turned, triples.flip(1), triples)
        ordered = (torch.arange(len(triples), device=triples.device) < len(b)).long()
        logits = self.head(triples.flatten(1))
        return F.cross_entropy(logits, ordered), {"accuracy": (logits.argmax(1) == ordered).float().mean().item()}


def informative_frames(clips: Tensor, rng: torch.Generator) -> Tensor:
    """Five frames in order from clips (N, T, C, H, W), where much moves: (N, 5, C, H, W)."""
    check_clips(clips, 5)
    n, length = clips.shape[:2]
    windows = torch.tensor(list(combinations(range(length), 5)), device=clips.device)  # (windows, 5)
    change = (clips[:, 1:] - clips[:, :-1]).abs().flatten(2).mean(2)  # (N, T − 1)
    passed = F.pad(change.cumsum(1), (1, 0))  # (N, T): how much moved before each frame
    motion = passed[:, windows[:, 4]] - passed[:, windows[:, 0]]  # (N, windows)
    drawn = torch.multinomial(motion.flatten() + 1e-9, n, replacement=True, generator=rng)
    return clips[(drawn // len(windows))[:, None], windows[drawn % len(windows)]]
