"""Supervised: the yardstick. The same encoder trained with labels, in the same loop."""

import torch
import torch.nn.functional as F

from course_utils.methods.base import Method
from course_utils.models.heads import MLP
from course_utils.views import View


class Supervised(Method):
    """Cross-entropy of a linear classifier on the encoder; batches are (images, labels int64).

    view: draws a random view of each image, None trains on the images as they are. `predict` returns logits (N, K).

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = Supervised(ConvEncoder(1, width=8), n_classes=3)
    >>> method.predict(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 3])
    """

    def __init__(self, encoder, *, n_classes: int, view: View | None = None):
        super().__init__()
        self.encoder = encoder
        self.head = MLP(encoder.out_dim, n_classes)
        self.view = view

    @torch.no_grad()
    def predict(self, x):
        """Logits (N, n_classes) on the processor, in evaluation mode."""
        weight, bias = (parameter.cpu() for parameter in self.head[-1].parameters())
        return F.linear(self.encode(x), weight, bias)

    def training_loss(self, batch, rng):
        if not isinstance(batch, tuple):
            raise TypeError(
                "supervised training needs images and labels: give fit both, as in fit(method, (x, y), ...)"
            )
        x, y = batch
        logits = self.head(self.encoder(x if self.view is None else self.view(x, rng)))
        return F.cross_entropy(logits, y), {"accuracy": (logits.argmax(1) == y).float().mean().item()}
