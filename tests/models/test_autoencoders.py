"""Autoencoders: the layers that were asked for, the affine map they are without activations, and images of any size."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import nn

from course_utils.models import ConvAutoencoder, ConvDecoder, ConvEncoder, DenseAutoencoder


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def build(kind, *args, **options):
    torch.manual_seed(0)
    return kind(*args, **options)


def linear_sizes(network):
    return [(part.in_features, part.out_features) for part in network if isinstance(part, nn.Linear)]


@pytest.mark.parametrize("sizes", [(784, 128), (784, 128, 64), (9, 7, 5, 3)])
def test_the_decoder_mirrors_the_encoder(sizes):
    model = build(DenseAutoencoder, sizes)
    down = list(pairwise(sizes))
    assert linear_sizes(model.encoder) == down
    assert linear_sizes(model.decoder) == [(after, before) for before, after in reversed(down)]
    assert model.encoder.out_dim == sizes[-1]
    weights = sum(2 * before * after + before + after for before, after in down)
    assert sum(parameter.numel() for parameter in model.parameters()) == weights


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_activations_stand_between_linear_layers_and_neither_on_the_code_nor_on_the_output(activation):
    def kinds(network):
        return [type(part) for part in network]

    lin = nn.Linear
    one, two, three = (DenseAutoencoder((9, 7, 5, 3)[:n], activation=activation) for n in (2, 3, 4))
    assert kinds(one.encoder) == [nn.Flatten, lin]
    assert kinds(one.decoder) == [lin]
    assert kinds(two.encoder) == [nn.Flatten, lin, activation, lin]
    assert kinds(two.decoder) == [lin, activation, lin]
    assert kinds(three.encoder) == [nn.Flatten, lin, activation, lin, activation, lin]
    assert kinds(three.decoder) == [lin, activation, lin, activation, lin]


def test_dense_autoencoder_is_matrix_products_and_rectifiers():
    model = build(DenseAutoencoder, (12, 8, 5)).double()
    x = draw(6, 1, 3, 4)
    (a, _), (b, _), (c, _), (d, _) = layers = [
        (part.weight, part.bias) for part in model.modules() if isinstance(part, nn.Linear)
    ]
    bias = [part[1] for part in layers]
    code = (x.reshape(6, 12) @ a.T + bias[0]).clamp_min(0) @ b.T + bias[1]
    output = (code @ c.T + bias[2]).clamp_min(0) @ d.T + bias[3]
    torch.testing.assert_close(model.encoder(x), code)
    torch.testing.assert_close(model(x), output.reshape(6, 1, 3, 4))
    assert code.min() < 0  # nothing cuts the code off, nor the output
    assert output.min() < 0


@pytest.mark.parametrize("shape", [(5, 12), (5, 1, 3, 4), (5, 3, 2, 2), (1, 12)])
def test_reconstructions_are_shaped_like_what_came(shape):
    model = build(DenseAutoencoder, (12, 4), activation=None).double()
    assert model(draw(*shape)).shape == shape
    assert model.encoder(draw(*shape)).shape == (shape[0], 4)


def test_strides_of_the_images_do_not_matter():
    model = build(DenseAutoencoder, (12, 4)).double()
    x = draw(5, 3, 2, 2)
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), model(x))


@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 3), (6, 5, 4, 2)])
def test_without_activations_the_autoencoder_is_affine_and_of_the_rank_of_its_code(sizes):
    model = build(DenseAutoencoder, sizes, activation=None).double()
    x, y = draw(20, 6), draw(20, 6, seed=1)
    for share in (-3.0, 0.3, 100.0):
        torch.testing.assert_close(model(share * x + (1 - share) * y), share * model(x) + (1 - share) * model(y))
    assert torch.linalg.matrix_rank(model(x) - model(x).mean(0)) == sizes[-1]
    bent = build(DenseAutoencoder, sizes).double()
    if len(sizes) > 2:
        assert not torch.allclose(bent(0.3 * x + 0.7 * y), 0.3 * bent(x) + 0.7 * bent(y), atol=1e-3)


def test_a_linear_autoencoder_learns_the_subspace_of_pca():
    spread = torch.tensor([3.0, 2.0, 0.5, 0.4, 0.3, 0.1], dtype=torch.float64)
    x = draw(150, 6) * spread @ torch.linalg.qr(draw(6, 6, seed=1)).Q + 1
    model = build(DenseAutoencoder, (6, 2), activation=None).double()
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = F.mse_loss(model(x), x)
        value.backward()
        return value

    optimiser.step(loss)
    pca = PCA(2).fit(x)
    expected = torch.from_numpy(pca.inverse_transform(pca.transform(x)))
    torch.testing.assert_close(model(x).detach(), expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("sizes", [(), (784,)])
def test_an_autoencoder_without_a_code_is_refused(sizes):
    with pytest.raises(ValueError, match=r"at least an input and a code size, got \("):
        DenseAutoencoder(sizes)


@pytest.mark.parametrize("shape", [(2, 1, 28, 27), (2, 783), (784,), (2, 3, 28, 28)])
def test_dense_autoencoder_says_what_came_and_what_was_wanted(shape):
    with pytest.raises(ValueError, match=rf"784 values an example.*got \({', '.join(map(str, shape))},?\)"):
        DenseAutoencoder((784, 4))(torch.rand(shape))


# --- convolutional


@pytest.mark.parametrize("size", [1, 5, 27, 28, 30, 32, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_conv_decoder_paints_images_of_the_size_asked_for(size, channels):
    assert build(ConvDecoder, 6, channels=channels, size=size, width=4)(torch.rand(2, 6)).shape == (
        2,
        channels,
        size,
        size,
    )


@pytest.mark.parametrize("size", [8, 11])
def test_conv_decoder_is_a_linear_layer_and_two_doublings_by_repetition(size):
    decoder = build(ConvDecoder, 6, channels=2, size=size, width=4).double().train()
    code = draw(5, 6)
    linear = next(part for part in decoder.modules() if isinstance(part, nn.Linear))
    first, last = (part for part in decoder.modules() if isinstance(part, nn.Conv2d))
    side = -(-size // 4)
    h = (code @ linear.weight.T + linear.bias).reshape(5, 8, side, side).clamp_min(0)
    h = F.conv2d(h.repeat_interleave(2, 2).repeat_interleave(2, 3), first.weight, padding=1)
    h = (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    h = h.clamp_min(0).repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = F.conv2d(h, last.weight, last.bias, padding=1)[:, :, :size, :size]
    torch.testing.assert_close(decoder(code), expected)
    assert expected.min() < 0  # logits or pixels: the output is not cut off


@pytest.mark.parametrize("size", [28, 32, 27])
@pytest.mark.parametrize("channels", [1, 3])
def test_conv_autoencoder_reconstructs_images_in_their_shape_from_the_encoders_features(size, channels):
    encoder = build(ConvEncoder, channels, width=4)
    model = ConvAutoencoder(encoder, size=size).eval()
    x = draw(2, channels, size, size, dtype=torch.float32)
    assert model(x).shape == x.shape
    assert model.encoder is encoder
    torch.testing.assert_close(model(x), model.decoder(encoder(x)))


MODELS = {
    "dense": lambda: build(DenseAutoencoder, (144, 10, 6)),
    "linear": lambda: build(DenseAutoencoder, (144, 6), activation=None),
    "convolutional": lambda: ConvAutoencoder(build(ConvEncoder, 1, width=4), size=12),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_gradients_reach_every_parameter_of_an_autoencoder(make):
    model, x = make().train(), draw(6, 1, 12, 12, dtype=torch.float32)
    F.mse_loss(model(x), x).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_reconstructions_in_eval_do_not_depend_on_the_batch(make):
    model, x = make().double().eval(), draw(6, 1, 12, 12)
    together = model(x)
    assert torch.equal(model(x), together)
    torch.testing.assert_close(torch.cat([model(image[None]) for image in x]), together)


def test_an_activation_of_the_code_ends_the_encoder_and_leaves_the_decoder():
    model = build(DenseAutoencoder, (9, 7, 5), code_activation=nn.Sigmoid)
    z = model.encoder(50 * draw(20, 9, dtype=torch.float32))
    assert 0 <= z.min() < 0.1 < 0.9 < z.max() <= 1
    assert [type(part) for part in model.decoder] == [nn.Linear, nn.ReLU, nn.Linear]
