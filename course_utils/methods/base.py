"""The interface of every method: how it encodes, what it minimises, and what it does after a step."""

import contextlib

import torch
from torch import Tensor, nn

from course_utils.models.encoders import ConvEncoder
from course_utils.precision import autocast, choose_precision


class Method(nn.Module):
    """An encoder and a way to train it. Subclasses set `encoder` and write `training_loss`; nothing else is needed.

    `network` builds the encoder that the method is written for, and `trains_on` says what its batches are: "images"
    (N, C, H, W), "colour images" (N, 3, H, W), whose luminance the encoder sees, or "clips" (N, T, C, H, W).
    """

    network = ConvEncoder
    trains_on = "images"
    encoder: nn.Module

    def training_loss(self, batch, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The scalar loss of one batch, and what else to log. `rng` lives on the batch's device."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called after every update with the part of training done, in (0, 1]: moving averages, queues, schedules."""

    def parameter_groups(self, lr: float) -> list[dict]:
        """What the optimiser is given: all weights, at the learning rate lr. A method may give a part another one."""
        return [{"params": list(self.parameters()), "lr": lr}]

    @torch.no_grad()
    def encode(self, x: Tensor, *, batch_size: int = 1024) -> Tensor:
        """Features (N, D) float32 on the processor: evaluation mode, no gradients, in batches of bounded memory.

        >>> from course_utils.models import ConvEncoder
        >>> method = Method()
        >>> method.encoder = ConvEncoder(1, width=4)
        >>> method.encode(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 24])
        """
        return encode(self.encoder, x, batch_size=batch_size)


def with_faster(method: Method, part: nn.Module, *, lr: float, times: float) -> list[dict]:
    """Parameter groups in which one part of a method, a predictor say, learns at `times` the rate of all others."""
    if not times > 0:
        raise ValueError(f"a part of the network must learn at a positive multiple of the rate, got {times}")
    own = set(part.parameters())
    others = [parameter for parameter in method.parameters() if parameter not in own]
    groups = [{"params": others, "lr": lr}, {"params": list(own), "lr": times * lr}]
    return [group for group in groups if group["params"]]


@torch.no_grad()
def encode(encoder: nn.Module, x: Tensor, *, batch_size: int = 1024, precision: str | None = None) -> Tensor:
    """`encoder(x)` as `Method.encode` gives it, for an encoder on its own, such as one that was never trained.

    precision: "32-true" or "bf16-mixed"; None chooses as training does.

    >>> encode(nn.Flatten(), torch.rand(3, 1, 2, 2)).shape
    torch.Size([3, 4])
    """
    if len(x) == 0:
        raise ValueError("there is nothing to encode: x has no rows")
    device = next((parameter.device for parameter in encoder.parameters()), x.device)
    with evaluating(encoder), autocast(precision or choose_precision(encoder, device), device):
        return torch.cat([encoder(part.to(device)).float().cpu() for part in x.split(batch_size)])


@contextlib.contextmanager
def evaluating(network: nn.Module):
    """Evaluation mode as long as it lasts; then every part is in its own mode again, whatever happened.

    >>> layer = nn.Dropout()
    >>> with evaluating(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    modes = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
