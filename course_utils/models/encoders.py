"""Encoders: images (N, C, H, W) in, one feature vector (N, out_dim) an image out."""

import torchvision
from torch import Tensor, nn


class ConvEncoder(nn.Module):
    """Six 3×3 convolutions with batch norm and ReLU, in three stages of width, 2·width and 4·width channels.

    A 2×2 max pooling follows the first two stages; the mean over positions ends it. `out_dim` is 4·width. It takes
    images of any size from 4×4 pixels and trains in seconds on two processor cores.

    >>> import torch
    >>> encoder = ConvEncoder(in_channels=1, width=32)
    >>> encoder(torch.rand(2, 1, 28, 28)).shape, encoder.feature_map(torch.rand(2, 1, 28, 28)).shape
    (torch.Size([2, 128]), torch.Size([2, 128, 7, 7]))
    """

    def __init__(self, in_channels: int = 1, width: int = 32):
        super().__init__()
        self.in_channels, self.out_dim = in_channels, 4 * width
        stages = [
            self._stage(in_channels, width),
            nn.MaxPool2d(2),
            self._stage(width, 2 * width),
            nn.MaxPool2d(2),
            self._stage(2 * width, 4 * width),
        ]
        self.feature_map = nn.Sequential(*stages)

    @staticmethod
    def _stage(before: int, after: int) -> nn.Sequential:
        layers = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"this encoder takes (N, {self.in_channels}, H, W) images, got {tuple(x.shape)}: "
                f"build it with in_channels={x.shape[1] if x.ndim == 4 else '…'} or reshape the images"
            )
        return self.feature_map(x).mean((2, 3))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 without its classifier, with the small-image stem of SimCLR's appendix B.9.

    The 7×7 stride-2 convolution and the pooling give way to one 3×3 convolution. `out_dim` is 512. A GPU model: on two
    cores a step takes seconds.

    >>> ResNet18(in_channels=3).out_dim
    512
    """

    def __init__(self, in_channels: int = 3):
        super().__init__()
        self.in_channels, self.out_dim = in_channels, 512
        net = torchvision.models.resnet18(weights=None)
        net.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        net.maxpool, net.fc = nn.Identity(), nn.Identity()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
