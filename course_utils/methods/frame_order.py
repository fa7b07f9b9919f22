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
    the time: (d, c, b) counts as ordered too (§3.1). Where nothing moves there is nothing to tell: windows of five
    frames are drawn from all of the batch with probability in proportion to how much moves in them. A frame is encoded
    once and takes part in many: `windows` times as many are drawn as there are clips. With one a clip, training may
    stay for ever where it begins, at always answering "not in order".

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

    def __init__(self, encoder, *, hidden: int = 128, windows: int = 6):
        super().__init__()
        for name, value in {"hidden": hidden, "windows": windows}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.encoder, self.windows = encoder, windows
        self.head = MLP(3 * encoder.out_dim, hidden, 2)

    def training_loss(self, batch, rng):
        clip, frames = informative_windows(batch, rng, each=self.windows)  # (M, 1), (M, 5)
        h = self.encoder(batch.flatten(0, 1)).unflatten(0, batch.shape[:2])  # (N, T, D)
        a, b, c, d, e = h[clip, frames].unbind(1)  # (M, D) each
        triples = torch.stack([b, c, d, b, a, d, b, e, d]).unflatten(0, (3, 3))  # (3 kinds, 3 frames, M, D)
        triples = triples.transpose(1, 2).flatten(0, 1)  # (3M, 3, D): all in order, then the two kinds that are not
        turned = torch.rand(len(triples), 1, 1, generator=rng, device=triples.device) < 0.5
        triples = torch.where(turned, triples.flip(1), triples)
        ordered = (torch.arange(len(triples), device=triples.device) < len(b)).long()
        logits = self.head(triples.flatten(1))
        return F.cross_entropy(logits, ordered), {"accuracy": (logits.argmax(1) == ordered).float().mean().item()}


def informative_windows(clips: Tensor, rng: torch.Generator, *, each: int = 1) -> tuple[Tensor, Tensor]:
    """Five frames in order, where much moves in clips (N, T, C, H, W): of which clip (M, 1), and which (M, 5), int64.

    M is N times `each`, and `clips[clip, frames]` are the frames, (M, 5, C, H, W).
    """
    check_clips(clips, 5)
    n, length = clips.shape[:2]
    windows = torch.tensor(list(combinations(range(length), 5)), device=clips.device)  # (windows, 5)
    change = (clips[:, 1:] - clips[:, :-1]).abs().flatten(2).mean(2)  # (N, T − 1)
    passed = F.pad(change.cumsum(1), (1, 0))  # (N, T): how much moved before each frame
    motion = passed[:, windows[:, 4]] - passed[:, windows[:, 0]]  # (N, windows)
    drawn = torch.multinomial(motion.flatten() + 1e-9, each * n, replacement=True, generator=rng)
    return (drawn // len(windows))[:, None], windows[drawn % len(windows)]
