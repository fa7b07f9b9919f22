"""Encoders against a loop of plain functions over their own weights, at every image size, and their refusals."""

import copy
import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.models import ConvEncoder, ResNet18


def images(*shape, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def build(kind, *args, **options):
    torch.manual_seed(0)
    return kind(*args, **options)


def unsettle(encoder):
    """Running statistics and gains as after some training, so that no batch norm is the identity."""
    rng = torch.Generator().manual_seed(1)
    for norm in encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight.data, norm.running_var):
                values.copy_(0.5 + torch.rand(len(values), generator=rng))
            for values in (norm.bias.data, norm.running_mean):
                values.copy_(torch.randn(len(values), generator=rng))
    return encoder


large = functools.cache(lambda: build(ResNet18, 1))  # made once, copied for each test
ENCODERS = {"conv": lambda: build(ConvEncoder, width=4), "resnet18": lambda: copy.deepcopy(large())}
every_encoder = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 32), (27, 27), (96, 96), (1, 1), (20, 33)])
def test_conv_encoder_takes_images_of_any_size(height, width):
    encoder = build(ConvEncoder, 3, width=5)
    x = images(2, 3, height, width)
    assert encoder(x).shape == (2, encoder.out_dim)
    expected = [height, width]
    for part in encoder.feature_map:
        if isinstance(part, nn.Conv2d):
            expected = [math.ceil(side / stride) for side, stride in zip(expected, part.stride, strict=True)]
    assert encoder.feature_map(x).shape == (2, encoder.out_dim, *expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [28, 13])
def test_conv_encoder_is_convolutions_batch_norms_rectifiers_and_a_mean(training, size):
    encoder = unsettle(build(ConvEncoder, 2, width=4)).double().train(training)
    x = images(5, 2, size, size, dtype=torch.float64)
    convolutions = [part for part in encoder.modules() if isinstance(part, nn.Conv2d)]
    norms = [part for part in encoder.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [part.kernel_size for part in convolutions] == [(3, 3)] * 6
    assert not any(isinstance(part, nn.Linear) for part in encoder.modules())
    h = x
    for conv, norm in zip(convolutions, norms, strict=True):
        h = F.conv2d(h, conv.weight, stride=conv.stride, padding=1)
        mean, var = norm.running_mean, norm.running_var
        if training:
            mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
        h = (h - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        h = (h * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp_min(0)
    torch.testing.assert_close(encoder.feature_map(x), h)
    torch.testing.assert_close(encoder(x), h.sum((2, 3)) / h[0, 0].numel())


def test_resnet18_is_torchvisions_with_a_small_stem_and_no_classifier():
    encoder = unsettle(build(ResNet18)).eval()
    x = images(2, 3, 12, 12)
    net = encoder.net
    assert net.conv1.weight.shape == (64, 3, 3, 3)
    h = F.conv2d(x, net.conv1.weight, padding=1)
    h = F.batch_norm(h, net.bn1.running_mean, net.bn1.running_var, net.bn1.weight, net.bn1.bias).relu()
    assert h.shape == (2, 64, 12, 12)  # nothing is halved before the first block
    h = net.layer4(net.layer3(net.layer2(net.layer1(h))))
    torch.testing.assert_close(encoder(x), h.mean((2, 3)))
    assert encoder(x).shape == (2, encoder.out_dim) == (2, 512)
    assert sum(isinstance(part, nn.Conv2d) for part in encoder.modules()) == 20
    assert not any(isinstance(part, nn.Linear) for part in encoder.modules())


def test_resnet18_takes_odd_sizes():
    assert large()(images(1, 1, 13, 9)).shape == (1, 512)


def test_width_scales_every_layer_of_conv_encoder_and_channels_never_shrink():
    def channels(width):
        return [part.out_channels for part in build(ConvEncoder, width=width).modules() if isinstance(part, nn.Conv2d)]

    assert channels(3) == [3 * c for c in channels(1)]
    assert channels(1) == sorted(channels(1))
    assert channels(4)[0] == 4
    assert channels(4)[-1] == build(ConvEncoder, width=4).out_dim


@every_encoder
def test_gradients_reach_every_parameter_of_an_encoder(make):
    encoder = make().train()
    features = encoder(images(4, 1, 12, 12))
    (features * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@every_encoder
def test_features_in_eval_do_not_depend_on_the_batch_and_leave_the_statistics_alone(make):
    encoder = unsettle(make()).eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    x = images(4, 1, 12, 12)
    together = encoder(x)
    assert torch.equal(encoder(x), together)
    torch.testing.assert_close(torch.cat([encoder(image[None]) for image in x]), together, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


@every_encoder
def test_features_in_training_do_depend_on_the_batch_and_move_the_statistics(make):
    encoder = make().train()
    x = images(4, 1, 12, 12)
    assert not torch.allclose(encoder(x)[:2], encoder(x[:2]), atol=1e-3)
    norm = next(part for part in encoder.modules() if isinstance(part, nn.BatchNorm2d))
    assert norm.running_mean.abs().max() > 0


@every_encoder
def test_an_encoder_leaves_its_images_as_they_were_in_any_layout(make):
    encoder = make().eval()
    x = images(3, 1, 12, 12)
    before = x.clone()
    features = encoder(x)
    assert torch.equal(x, before)
    channels_last = encoder.to(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last(x.to(memory_format=torch.channels_last)), features)


def test_a_shifted_pattern_on_empty_ground_has_the_same_features():
    """By as much as the strides multiply to: convolution commutes with it, and the mean forgets the place."""
    encoder = unsettle(build(ConvEncoder, width=4)).double().eval()
    stride = math.prod(part.stride[0] for part in encoder.modules() if isinstance(part, nn.Conv2d))
    x = torch.zeros(2, 1, 160, 160, dtype=torch.float64)
    patch = images(9, 9, dtype=torch.float64)
    x[0, 0, 72:81, 72:81] = patch
    x[1, 0, 72 + stride : 81 + stride, 72 - stride : 81 - stride] = patch
    first, second = encoder(x)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "named"),
    [
        ((2, 3, 20, 20), r"takes \(N, 1, H, W\) images, got \(2, 3, 20, 20\): build it with in_channels=3"),
        ((20, 20), r"got \(20, 20\).*in_channels=… or reshape"),
        ((1, 20, 20), r"got \(1, 20, 20\)"),
        ((2, 400), r"got \(2, 400\)"),
        ((2, 1, 5, 20, 20), r"got \(2, 1, 5, 20, 20\)"),
    ],
)
@every_encoder
def test_an_encoder_says_what_came_and_what_was_wanted(make, shape, named):
    with pytest.raises(ValueError, match=named):
        make()(torch.rand(shape))
