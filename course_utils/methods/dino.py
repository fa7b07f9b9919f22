"""DINO: a student answers as its teacher does, which is its own average over time, and sees more of the image.

Caron, Touvron, Misra, Jégou, Mairal, Bojanowski and Joulin, "Emerging Properties in Self-Supervised Vision
Transformers", 2021. Symbols: g_s student, g_t teacher, c centre, τ_s and τ_t temperatures, λ momentum of the teacher.
"""

import functools
import math
from numbers import Integral

import torch
from torch import nn

from course_utils.distributed import gather
from course_utils.losses import dino
from course_utils.methods.base import Method
from course_utils.models.heads import DINOHead
from course_utils.models.momentum import follow, frozen_copy
from course_utils.views import View, augment

local_view: View = functools.partial(augment, size=12, crop=(0.2, 0.5))


class DINO(Method):
    """Algorithm 1 with multi-crop (equation 3): the teacher sees two global views, the student those and local ones.

    The teacher follows the student, its momentum rising from `momentum` to 1 along a half cosine; the centre follows
    what the teacher says (equation 4). `encode` gives what the student's encoder sees. Logs the entropy of the
    teacher's mean answer, which falls to 0 where one output takes all, and the mean entropy of its answers, which
    rises to log K where they say nothing.

    Departures, for training a thousand times shorter: the momentum begins lower, τ_t is not warmed up and the last
    layer is not held still at first. Views differ by the course's augmentation. Set `center_momentum` to 1, or
    `teacher_temperature` to `student_temperature`, to see what centring and sharpening are for.

    view, local_view: draw one global or local view of each image.

    >>> from course_utils.models import ConvEncoder
    >>> method = DINO(ConvEncoder(1, width=8), outputs=32)
    >>> loss, logs = method.training_loss(torch.rand(4, 1, 28, 28), torch.Generator().manual_seed(0))
    >>> sorted(logs)
    ['entropy of the mean', 'mean entropy']
    """

    def __init__(
        self,
        encoder,
        *,
        outputs: int = 256,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        momentum: float = 0.98,
        center_momentum: float = 0.9,
        local_views: int = 2,
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
        if not isinstance(local_views, Integral) or local_views < 0:
            raise ValueError(f"local_views must be a whole number, at least 0, got {local_views!r}")
        if outputs < 2:
            raise ValueError(f"outputs must be at least 2, got {outputs}")
        self.encoder = encoder
        self.head = DINOHead(encoder.out_dim, outputs, batch_norm=True)
        self.teacher = frozen_copy(nn.Sequential(self.encoder, self.head))
        self.register_buffer("center", torch.zeros(outputs))
        self.temperatures, self.momentum, self.center_momentum = temperatures, momentum, center_momentum
        self.view, self.local_view, self.local_views = view, local_view, local_views

    def training_loss(self, batch, rng):
        views = torch.cat([self.view(batch, rng), self.view(batch, rng)])
        with torch.no_grad():
            t = self.teacher(views)  # (2N, K)
        students = [*self.head(self.encoder(views)).chunk(2)]
        if self.local_views:
            small = torch.cat([self.local_view(batch, rng) for _ in range(self.local_views)])
            students += self.head(self.encoder(small)).chunk(self.local_views)
        losses = [
            dino(s, part, center=self.center, **self.temperatures)
            for i, part in enumerate(t.chunk(2))
            for j, s in enumerate(students)
            if i != j
        ]
        self._said = gather(t.float())
        p = ((self._said - self.center) / self.temperatures["teacher_temperature"]).softmax(1)
        logs = {"entropy of the mean": p.mean(0), "mean entropy": p}
        return torch.stack(losses).mean(), {
            name: torch.special.entr(value).sum(-1).mean().item() for name, value in logs.items()
        }

    @torch.no_grad()
    def after_step(self, progress):
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        follow(self.teacher, nn.Sequential(self.encoder, self.head), momentum=momentum)
        self.center.lerp_(self._said.mean(0), 1 - self.center_momentum)
