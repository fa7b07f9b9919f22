"""Next frame: to say what comes next, a network must know what is there and where it is going.

Srivastava, Mansimov and Salakhutdinov, "Unsupervised Learning of Video Representations using LSTMs", 2015, the future
predictor of §2; its squared error is the ℓ₂ of Mathieu, Couprie and LeCun, "Deep multi-scale video prediction beyond
mean square error", 2016, equation 1, which blurs where several futures are possible.
"""

import torch
from torch import Tensor, nn

from course_utils.losses import reconstruction
from course_utils.methods.base import Method
from course_utils.models.encoders import _check_images


class NextFrame(Method):
    """The encoder sees every frame alone; the next is painted from the feature maps of the last `history` frames.

    From every clip a window of history + 1 frames is drawn, and turned round half the time where `both_ways` is set:
    leave that out where time has a direction. The loss is the squared error of the last frame, predicted from the
    others; further frames are predicted from predictions, in `rollout`. It logs the error of copying the last frame
    seen. That is the number to beat.

    Unlike the paper, whose LSTM reads one vector a frame, the maps (N, D, H/4, W/4) of a convolutional encoder are read
    side by side by convolutions, as Mathieu et al. read frames: means over positions no longer say where things are.

    >>> from course_utils.models import ConvEncoder
    >>> method = NextFrame(ConvEncoder(1, width=8))
    >>> clips = torch.rand(4, 6, 1, 28, 28)
    >>> loss, logs = method.training_loss(clips, torch.Generator().manual_seed(0))
    >>> method.rollout(clips, steps=3).shape, sorted(logs)
    (torch.Size([4, 3, 1, 28, 28]), ['copy'])
    """

    trains_on = "clips"

    def __init__(self, encoder, *, history: int = 3, both_ways: bool = True):
        super().__init__()
        if history < 1:
            raise ValueError(f"history must be at least 1 frame, got {history}")
        dim, pixels = encoder.out_dim, 16 * encoder.in_channels  # a place of the map paints 4×4 pixels
        self.encoder = encoder
        self.dynamics = nn.Sequential(
            nn.Conv2d(history * dim, dim, 1, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, pixels, 3, padding=1), nn.PixelShuffle(4)
        )
        self.history, self.both_ways = history, both_ways

    def state(self, clips: Tensor) -> Tensor:
        """What is known after the last of the clips' frames, of which `history` are read: (N, D, H/4, W/4)."""
        frames = check_clips(clips, self.history)[:, -self.history :]
        _check_images(frames.flatten(0, 1), self.encoder.in_channels)
        maps = self.encoder.feature_map(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.dynamics(maps.flatten(1, 2))

    def forward(self, clips: Tensor) -> Tensor:
        """The frame (N, C, H, W) that comes after clips (N, T, C, H, W)."""
        return self.decoder(self.state(clips))[..., : clips.shape[3], : clips.shape[4]]

    @torch.no_grad()
    def rollout(self, clips: Tensor, *, steps: int) -> Tensor:
        """The next `steps` frames (N, steps, C, H, W): each is predicted from the clips and the predictions so far."""
        for _ in range(steps):
            clips = torch.cat([clips, self(clips)[:, None].float()], 1)
        return clips[:, -steps:]

    def training_loss(self, batch, rng):
        check_clips(batch, self.history + 1)
        n, device = len(batch), batch.device
        first = torch.randint(batch.shape[1] - self.history, (n, 1), generator=rng, device=device)
        times = first + torch.arange(self.history + 1, device=device)  # (N, history + 1)
        if self.both_ways:
            turned = torch.rand(n, 1, generator=rng, device=device) < 0.5
            times = torch.where(turned, times.flip(1), times)
        window = batch[torch.arange(n, device=device)[:, None], times]
        seen, target = window[:, :-1], window[:, -1]
        return reconstruction(self(seen), target), {"copy": reconstruction(seen[:, -1], target).item()}


def check_clips(clips: Tensor, at_least: int) -> Tensor:
    """The clips, if they are floating point (N, T, C, H, W) with at least so many frames."""
    if clips.ndim != 5 or not clips.is_floating_point() or clips.shape[1] < at_least:
        raise ValueError(
            f"clips must be floating point of shape (N, at least {at_least} frames, C, H, W), "
            f"got {clips.dtype} {tuple(clips.shape)}"
        )
    return clips
