"""DINO: a student answers as its teacher does, which is its own average over time, and sees other views of the image.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski and Joulin, "Emerging Properties in Self-Supervised Vision
Transformers", 2021. Symbols: g_s student, g_t teacher, c centre, τ_s and τ_t temperatures, λ momentum of the teacher.
"""

import functools
from numbers import Integral

import torch
from torch import Tensor, nn

from course_utils.distributed import gather
from course_utils.losses import dino
from course_utils.methods.base import Method
from course_utils.models.heads import DINOHead
from course_utils.models.momentum import follow, frozen_copy, rising
from course_utils.precision import full_precision
from course_utils.views import View, augment

local_view: View = functools.partial(augment, size=12, crop=(0.2, 0.5))


class DINO(Method):
    """Algorithm 1 with multi-crop (equation 3): the teacher sees two global views, the student those and local ones.

    The teacher follows the student, its momentum rising from `momentum` to 1 along a half cosine. Its answers are kept
    sharp by τ_t < τ_s, and apart by a centre that is taken off them. centring="mean": the paper's, a moving mean of
    the teacher's outputs (equation 4). centring="sinkhorn": the centre with which the outputs share the batch evenly,
    found by Sinkhorn's algorithm (the paper's table 7, SK; DINOv2): a moving mean needs a teacher that hardly moves,
    and so far more updates than hundreds. `encode` gives what the student's encoder sees. As in the paper's figure 7,
    the entropy of the teacher's answers and their divergence KL(P_t, P_s) are logged.

    Departures, for training a thousand times shorter: the default centring; λ and τ_t begin lower; τ_t is not warmed
    up, and the last layer is not held still at first. The head has two layers and batch norm unless another one is
    given. There are no `local_views` unless asked for: a small part of a letter is no letter.

    view, local_view: draw one global or local view of each image. head: (N, encoder.out_dim) -> (N, outputs).

    >>> from course_utils.models import ConvEncoder
    >>> method = DINO(ConvEncoder(1, width=8), outputs=32, local_views=2)
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['KL', 'teacher entropy']
    """

    def __init__(
        self,
        encoder,
        *,
        outputs: int = 512,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.02,
        momentum: float = 0.9,
        centring: str = "sinkhorn",
        center_momentum: float = 0.9,
        local_views: int = 0,
        head: nn.Module | None = None,
        view: View = augment,
        local_view: View = local_view,
    ):
        super().__init__()
        temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
        for name, value in temperatures.items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        for name, value in {"momentum": momentum, "center_momentum": center_momentum}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}")
        if centring not in ("mean", "sinkhorn"):
            raise ValueError(f"centring must be 'mean' or 'sinkhorn', got {centring!r}")
        if not isinstance(local_views, Integral) or local_views < 0:
            raise ValueError(f"local_views must be a whole number, at least 0, got {local_views!r}")
        if outputs < 2:
            raise ValueError(f"outputs must be at least 2, got {outputs}")
        self.encoder = encoder
        width = encoder.out_dim
        self.head = head or DINOHead(width, outputs, hidden=width, bottleneck=128, layers=2, batch_norm=True)
        self.teacher = frozen_copy(nn.Sequential(self.encoder, self.head))
        self.register_buffer("center", torch.zeros(outputs))
        self.temperatures, self.momentum = temperatures, momentum
        self.centring, self.center_momentum = centring, center_momentum
        self.view, self.local_view, self.local_views = view, local_view, local_views

    def training_loss(self, batch, rng):
        views = torch.cat([self.view(batch, rng), self.view(batch, rng)])
        tau = self.temperatures["teacher_temperature"]
        with torch.no_grad():
            t = self.teacher(views)  # (2N, K)
            self._said = gather(t)
            center = self.center if self.centring == "mean" else balancing_center(self._said, temperature=tau)
        students = [*self.head(self.encoder(views)).chunk(2)]
        if self.local_views:
            small = torch.cat([self.local_view(batch, rng) for _ in range(self.local_views)])
            students += self.head(self.encoder(small)).chunk(self.local_views)
        losses = [
            dino(s, part, center=center, **self.temperatures)
            for i, part in enumerate(t.chunk(2))
            for j, s in enumerate(students)
            if i != j
        ]
        loss = torch.stack(losses).mean()
        entropy = torch.special.entr(((t - center) / tau).softmax(1)).sum(1).mean()
        return loss, {"teacher entropy": entropy.item(), "KL": (loss - entropy).item()}

    @torch.no_grad()
    def after_step(self, progress):
        follow(self.teacher, nn.Sequential(self.encoder, self.head), momentum=rising(self.momentum, progress))
        self.center.lerp_(self._said.mean(0), 1 - self.center_momentum)


@full_precision
def balancing_center(t: Tensor, *, temperature: float, iterations: int = 3) -> Tensor:
    """The centre (K,) with which softmax((t − c) / τ) of outputs t (B, K) uses every output as much, nearly.

    Sinkhorn's algorithm, seen as a centre: each iteration raises c where an output is used more than others, by τ
    times the logarithm of its use. It converges to the codes of `losses.sinkhorn`, and c is known up to a constant.

    >>> t = torch.tensor([[1.0, 0.0], [1.0, 0.5], [1.0, 0.6]])
    >>> ((t - balancing_center(t, temperature=0.5, iterations=50)) / 0.5).softmax(1).sum(0).round(decimals=3).tolist()
    [1.5, 1.5]
    """
    center = torch.zeros_like(t[0])
    for _ in range(iterations):
        center = center + temperature * ((t - center) / temperature).log_softmax(1).logsumexp(0)
    return center
