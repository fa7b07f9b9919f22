"""SwAV: share a batch out over prototypes, and tell from one view to which of them the other was given.

Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", 2020. Symbols: z projection of length 1, c_k prototype of length 1, q code, τ temperature, ε smoothness.
"""

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.distributed import gather
from course_utils.losses import sinkhorn, swapped_prediction
from course_utils.methods.base import Method
from course_utils.models.heads import MLP, cosines
from course_utils.views import View, augment


class SwAV(Method):
    """Equations 1 to 5 with two views of each image; the codes come from Sinkhorn's algorithm on the joined batch.

    Departures, for batches of hundreds and hundreds of updates: projections are centred by a batch norm before they are
    put to length 1, ε is smaller, and the prototypes are not held still at first but put back to length √D after every
    step, and to 1 where they are compared. Multi-crop and the queue of earlier projections are left out. Logs how many
    prototypes the batch uses: the exponential of the entropy of its mean prediction.

    >>> import torch
    >>> from course_utils.models import ConvEncoder
    >>> method = SwAV(ConvEncoder(1, width=8), prototypes=16)
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['prototypes used']
    """

    def __init__(
        self,
        encoder,
        *,
        prototypes: int = 1024,
        temperature: float = 0.1,
        epsilon: float = 0.02,
        iterations: int = 3,
        projection_dim: int = 128,
        view: View = augment,
    ):
        super().__init__()
        for name, value in {"temperature": temperature, "epsilon": epsilon}.items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if prototypes < 2:
            raise ValueError(f"prototypes must be at least 2, got {prototypes}")
        self.encoder = encoder
        self.head = MLP(encoder.out_dim, encoder.out_dim, projection_dim, bias=False)
        self.head.append(nn.BatchNorm1d(projection_dim, affine=False))
        self.prototypes = nn.Linear(projection_dim, prototypes, bias=False)
        self.temperature, self.epsilon, self.iterations, self.view = temperature, epsilon, iterations, view
        self.after_step(0.0)

    def training_loss(self, batch, rng):
        x_t, x_s = self.view(batch, rng), self.view(batch, rng)
        z = self.head(self.encoder(torch.cat([x_t, x_s])))
        scores_t, scores_s = (gather(part) for part in cosines(z, self.prototypes.weight).chunk(2))  # (B, K) each
        q_t, q_s = (sinkhorn(part, epsilon=self.epsilon, iterations=self.iterations) for part in (scores_t, scores_s))
        p = (scores_t.detach() / self.temperature).softmax(1).mean(0)
        loss = swapped_prediction(scores_t, scores_s, q_t, q_s, temperature=self.temperature)
        return loss, {"prototypes used": torch.special.entr(p).sum().exp().item()}

    @torch.no_grad()
    def after_step(self, progress):
        w = self.prototypes.weight
        w.copy_(F.normalize(w, dim=1) * w.shape[1] ** 0.5)  # entries near 1: a step of Adam turns them a little only
