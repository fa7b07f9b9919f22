"""Fine-tuning: train an encoder on with a few labels. The one place here where an encoder learns."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_utils.evaluate.probes import L2_GRID, linear_probe
from course_utils.methods import Supervised, encode
from course_utils.train import fit
from course_utils.views import View

STRATEGIES = ("frozen", "full", "linear-then-full")


def fine_tune(
    encoder: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    strategy: str = "linear-then-full",
    n_classes: int | None = None,
    steps: int = 100,
    batch_size: int = 64,
    lr: float = 1e-3,
    view: View | None = None,
    l2: float | Sequence[float] = L2_GRID,
    seed: int = 0,
    **options,
) -> Supervised:
    """A classifier on a copy of `encoder`, trained on labelled examples: its `predict(x)` returns logits.

    x: (N, ...) examples; y: (N,) int64 labels in 0 … n_classes − 1 (default: the greatest label + 1). strategy:

    - "frozen": the encoder stays as it is, the head is a logistic regression on its features (see `linear_probe`);
    - "full": a new random head, and all weights are trained. On an encoder that was never trained: from scratch;
    - "linear-then-full": the head starts as that logistic regression, then all weights are trained. With a random head
      the first gradients distort good features before the head is of use (Kumar et al. 2022, LP-FT).

    steps, batch_size (at most N are taken), lr, seed and `options` go to `fit`; view: draws a random view of each image
    of a batch. `encoder` itself is left as it was, and the head is drawn from `seed`.

    Raises ValueError for an unknown strategy or labels out of range, and whatever `fit` and `linear_probe` raise.

    >>> from course_utils.models import ConvEncoder
    >>> x, y = torch.rand(20, 1, 28, 28), torch.arange(20) % 2
    >>> fine_tune(ConvEncoder(1), x, y, steps=2, progress=False).predict(x[:3]).shape
    torch.Size([3, 2])
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
    if len(y) != len(x) or len(y) == 0:
        raise ValueError(f"every example needs a label, and there must be one: got {len(x)} examples, {len(y)} labels")
    n_classes = int(y.max()) + 1 if n_classes is None else n_classes
    if y.min() < 0 or y.max() >= n_classes:
        raise ValueError(f"labels must lie in 0 … {n_classes - 1}, got {int(y.min())} … {int(y.max())}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        method = Supervised(copy.deepcopy(encoder), n_classes=n_classes, view=view)
    if strategy != "full":
        _start_from_the_probe(method, x, y, l2, seed)
    if strategy != "frozen":
        fit(method, (x, y), steps=steps, batch_size=min(batch_size, len(x)), lr=lr, seed=seed, **options)
    return method.eval()


@torch.no_grad()
def _start_from_the_probe(method: Supervised, x: Tensor, y: Tensor, l2, seed: int) -> None:
    features = encode(method.encoder, x)
    probe = linear_probe(features, y, features[:1], y[:1], l2=l2, seed=seed)
    head = method.head[-1]
    head.weight.zero_()
    head.bias.fill_(probe.bias.min().item() - 10)  # a class without an example is not predicted
    head.weight[probe.classes] = probe.weight.T.to(head.weight)
    head.bias[probe.classes] = probe.bias.to(head.bias)
