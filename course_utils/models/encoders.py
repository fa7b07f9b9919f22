"""Encoders: images (N, C, H, W) in, one feature vector (N, out_dim) an image out."""

import torchvision
from torch import Tensor, nn


def _check_images(x: Tensor, in_channels: int) -> None:
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise ValueError(
            f"this encoder takes (N, {in_channels}, H, W) images, got {tuple(x.shape)}: "
            f"build it with in_channels={x.shape[1] if x.ndim == 4 else '…'} or reshape the images"
        )


class ConvEncoder(nn.Module):
    """Six 3×3 convolutions with batch norm and ReLU, with 1, 1, 2, 2, 4 and 6 times `width` channels.

    The first and the fourth convolution halve the image, and the mean over positions ends it: halving by strides, and
    at once, makes a step about twice as fast on a processor as pooling later. `out_dim` is 6·width. The default is for
    two processor cores: 300 updates of SimCLR with 512 views each take about half a minute in float32.

    >>> import torch
    >>> encoder = ConvEncoder(in_channels=1)
    >>> encoder(torch.rand(2, 1, 28, 28)).shape, encoder.feature_map(torch.rand(2, 1, 28, 28)).shape
    (torch.Size([2, 48]), torch.Size([2, 48, 7, 7]))
    """

    def __init__(self, in_channels: int = 1, width: int = 8):
        super().__init__()
        self.in_channels, self.out_dim = in_channels, 6 * width
        channels = (in_channels, *(width * factor for factor in (1, 1, 2, 2, 4, 6)))
        strides = (2, 1, 1, 2, 1, 1)
        layers = []
        for before, after, stride in zip(channels[:-1], channels[1:], strides, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.feature_map = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        _check_images(x, self.in_channels)
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
        _check_images(x, self.in_channels)
        return self.net(x)
