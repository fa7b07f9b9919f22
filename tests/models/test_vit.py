"""ViT against torch's own transformer and attention by hand; patches in order; positions by loops, at every size."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.models import Block, ViT, patchify, sine_cosine_positions, unpatchify


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(kind=ViT, *args, **options):
    torch.manual_seed(0)
    network = kind(*args, **options).double()
    for parameter in network.parameters():  # as after some training: no bias 0, no gain 1
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn(parameter.shape, dtype=torch.float64)
    return network


def small(**options):
    return build(ViT, 2, **{"size": 12, "dim": 8, "depth": 2, "heads": 2} | options)


X = images(3, 2, 12, 12)


# --- patches


@pytest.mark.parametrize(("height", "width", "patch"), [(12, 12, 4), (8, 12, 2), (4, 4, 4), (3, 6, 1)])
def test_patches_are_the_squares_of_the_grid_row_by_row_with_channels_last(height, width, patch):
    x = images(2, 3, height, width)
    patches = patchify(x, patch)
    assert patches.shape == (2, height * width // patch**2, 3 * patch**2)
    columns = width // patch
    for number in range(patches.shape[1]):
        top, left = number // columns * patch, number % columns * patch
        square = x[:, :, top : top + patch, left : left + patch]
        assert torch.equal(patches[:, number], square.permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(unpatchify(patches, patch, size=(height, width)), x)


def test_patches_do_not_depend_on_the_strides_and_carry_gradients():
    x = images(2, 3, 8, 8)
    assert torch.equal(patchify(x.contiguous(memory_format=torch.channels_last), 4), patchify(x, 4))
    assert torch.autograd.gradcheck(lambda x: patchify(x, 4), x.requires_grad_())


@pytest.mark.parametrize("size", [(18, 18), (22, 22), (12, 10), (10, 12)])
def test_sizes_that_the_patch_does_not_divide_are_refused_with_both_numbers(size):
    named = rf"4×4 patches need images whose sides are multiples of 4, got {size[0]}×{size[1]}: resize or crop"
    for call in (small(), small().attention, lambda x: patchify(x, 4)):
        with pytest.raises(ValueError, match=named):
            call(images(2, 2, *size))
    with pytest.raises(ValueError, match=named):
        unpatchify(images(2, 9, 32), 4, size=size)
    with pytest.raises(ValueError, match=r"multiples of 4, got 18×18"):
        ViT(size=18)


@pytest.mark.parametrize("shape", [(2, 8, 32), (2, 9, 33)])
def test_patches_that_make_no_image_are_refused(shape):
    with pytest.raises(ValueError, match=rf"12×12 images are \(N, 9, 16 · channels\), got \({shape[0]}, {shape[1]}"):
        unpatchify(images(*shape), 4, size=(12, 12))


# --- positions


def positions_by_loops(dim, rows, columns):
    """MAE's code, number by number: first the column's sines, its cosines, then the row's."""
    quarter = dim // 4
    table = torch.zeros(rows * columns, dim, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            for k in range(quarter):
                omega = 1 / 10_000 ** (k / quarter)
                numbers = [f(place * omega) for place in (column, row) for f in (math.sin, math.cos)]
                table[row * columns + column, k::quarter] = torch.tensor(numbers, dtype=torch.float64)
    return table


@pytest.mark.parametrize(("dim", "rows", "columns"), [(4, 3, 3), (8, 2, 5), (64, 7, 7)])
def test_positions_are_sines_and_cosines_of_column_and_row(dim, rows, columns):
    expected = positions_by_loops(dim, rows, columns)
    torch.testing.assert_close(sine_cosine_positions(dim, rows, columns), expected)


def test_a_grid_of_another_size_is_stretched_over_the_one_the_network_was_built_for():
    own = sine_cosine_positions(16, 6, 6)
    assert torch.equal(sine_cosine_positions(16, 6, 6, side=6), own)
    coarse = sine_cosine_positions(4, 2, 2, side=6)  # centres of 3×3 patches: places 1 and 4
    expected = [[math.sin(c), math.cos(c), math.sin(r), math.cos(r)] for r in (1, 4) for c in (1, 4)]
    torch.testing.assert_close(coarse, torch.tensor(expected, dtype=torch.float64))
    centre = sine_cosine_positions(16, 1, 1, side=7)
    torch.testing.assert_close(centre[0], sine_cosine_positions(16, 7, 7)[24])


@pytest.mark.parametrize(("height", "width"), [(12, 12), (20, 20), (28, 28), (4, 4), (8, 20)])
def test_images_of_any_multiple_of_the_patch_are_taken(height, width):
    encoder = small()
    x = images(2, 2, height, width)
    count = height * width // 16
    assert encoder(x).shape == (2, encoder.out_dim) == (2, 8)
    assert encoder.tokens(x).shape == (2, 1 + count, 8)
    assert encoder.attention(x).shape == (2, 2, 1 + count, 1 + count)
    expected = sine_cosine_positions(8, height // 4, width // 4, side=3)
    torch.testing.assert_close(encoder.positions(x), expected)


# --- blocks and attention


def as_torch(block):
    """torch's own pre-norm layer with the same weights."""
    dim = block.out.in_features
    layer = nn.TransformerEncoderLayer(
        dim,
        block.heads,
        4 * dim,
        dropout=0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    ).double()
    layer.self_attn.in_proj_weight.data, layer.self_attn.in_proj_bias.data = block.qkv.weight, block.qkv.bias
    layer.self_attn.out_proj.load_state_dict(block.out.state_dict())
    layer.linear1.load_state_dict(block.mlp[0].state_dict())
    layer.linear2.load_state_dict(block.mlp[2].state_dict())
    layer.norm1.load_state_dict(block.norm1.state_dict())
    layer.norm2.load_state_dict(block.norm2.state_dict())
    return layer


@pytest.mark.parametrize(("dim", "heads"), [(8, 1), (8, 2), (12, 3)])
def test_a_block_is_torchs_pre_norm_transformer_layer(dim, heads):
    block = build(Block, dim, heads=heads)
    x = images(3, 5, dim)
    torch.testing.assert_close(block(x), as_torch(block)(x))


def test_attention_is_the_softmax_of_scaled_products_head_by_head_and_torchs_weights():
    block = build(Block, 8, heads=2)
    x = images(2, 5, 8)
    weights = block.attention(x)
    h = F.layer_norm(x, (8,), block.norm1.weight, block.norm1.bias, 1e-6)
    q, k, _ = (h @ block.qkv.weight.T + block.qkv.bias).split(8, 2)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        for n in range(2):
            for i in range(5):
                scores = torch.stack([q[n, i, part] @ k[n, j, part] / 2 for j in range(5)])
                torch.testing.assert_close(weights[n, head, i], scores.exp() / scores.exp().sum())
    expected = as_torch(block).self_attn(h, h, h, average_attn_weights=False)[1]
    torch.testing.assert_close(weights, expected)


def test_attention_of_the_network_is_that_of_its_last_block():
    encoder = small(depth=3)
    tokens = encoder._embedded(X)
    for block in encoder.blocks[:2]:
        tokens = block(tokens)
    torch.testing.assert_close(encoder.attention(X), encoder.blocks[2].attention(tokens))
    torch.testing.assert_close(encoder.attention(X).sum(3), torch.ones(3, 2, 10, dtype=torch.float64))


def test_the_network_is_a_linear_map_of_patches_plus_positions_torchs_layers_and_a_norm():
    encoder = small()
    weight = encoder.embed.weight.permute(0, 2, 3, 1).flatten(1)  # (dim, patch · patch · C), as patchify orders them
    patches = patchify((X - 0.5) / 0.25, 4) @ weight.T + encoder.embed.bias + positions_by_loops(8, 3, 3)
    h = torch.cat([encoder.class_token.expand(3, 1, 8), patches], 1)
    for block in encoder.blocks:
        h = as_torch(block)(h)
    expected = F.layer_norm(h, (8,), encoder.norm.weight, encoder.norm.bias, 1e-6)
    torch.testing.assert_close(encoder.tokens(X), expected)
    torch.testing.assert_close(encoder(X), expected[:, 1:].sum(1) / 9)
    torch.testing.assert_close(small(pool="class")(X), expected[:, 0])


# --- patches left out


def test_patches_that_are_left_out_have_no_influence_and_the_others_keep_their_places():
    encoder = small()
    keep = torch.tensor([[0, 4], [8, 3], [5, 6]])
    seen = encoder.tokens(X, keep)
    assert seen.shape == (3, 3, 8)
    patches = patchify(X, 4)
    hidden = torch.ones(3, 9, dtype=torch.bool).scatter(1, keep, False)
    patches[hidden] = images(int(hidden.sum()), 32, seed=1)
    other = unpatchify(patches, 4, size=(12, 12))
    torch.testing.assert_close(encoder.tokens(other, keep), seen)
    assert not torch.allclose(encoder.tokens(other)[:, 0], encoder.tokens(X)[:, 0], atol=1e-3)


def test_keeping_every_patch_is_keeping_none_out_and_order_only_orders():
    encoder = small()
    order = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(n)) for n in range(3)])
    everything = encoder.tokens(X)
    torch.testing.assert_close(encoder.tokens(X, torch.arange(9).expand(3, 9)), everything)
    shuffled = encoder.tokens(X, order)
    torch.testing.assert_close(shuffled[:, 0], everything[:, 0])
    torch.testing.assert_close(shuffled[:, 1:], everything[:, 1:].gather(1, order[:, :, None].expand(-1, -1, 8)))


@pytest.mark.parametrize(
    ("keep", "named"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), r"int64 of shape \(3, at least 1\), got torch.int64 \(2, 3\)"),
        (torch.zeros(3, 0, dtype=torch.int64), r"got torch.int64 \(3, 0\)"),
        (torch.zeros(3, dtype=torch.int64), r"got torch.int64 \(3,\)"),
        (torch.zeros(3, 2, dtype=torch.bool), r"got torch.bool \(3, 2\)"),
        (torch.tensor([[0, 9]] * 3), "from 0 to 8, got 0 to 9"),
        (torch.tensor([[-1, 2]] * 3), "from 0 to 8, got -1 to 2"),
    ],
)
def test_a_choice_of_patches_that_is_none_is_refused(keep, named):
    with pytest.raises(ValueError, match=named):
        small().tokens(X, keep)


# --- what every encoder keeps


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_gradients_reach_every_parameter(pool):
    encoder = small(pool=pool)
    (encoder(X) * images(3, 8, seed=1)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_features_do_not_depend_on_the_batch_the_mode_or_the_layout():
    encoder = small()
    features = encoder(X)
    torch.testing.assert_close(torch.cat([encoder(image[None]) for image in X]), features)
    torch.testing.assert_close(copy.deepcopy(encoder).eval()(X), features)
    last = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(X.to(memory_format=torch.channels_last)), features)


def test_half_precision_gives_nearly_the_same_features_and_gradients():
    torch.manual_seed(0)
    encoder = ViT(2, size=12, dim=8, depth=2, heads=2)
    expected = encoder(X.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(X.float())
    torch.testing.assert_close(features.float(), expected, atol=0.05, rtol=0.05)
    features.float().square().mean().backward()
    assert encoder.class_token.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"dim": 30, "heads": 3}, "dim must be a multiple of 4.*30"),
        ({"dim": 64, "heads": 3}, "dim must divide by the number of heads, got 64 and 3"),
        ({"pool": "max"}, "pool must be 'mean' or 'class', got 'max'"),
    ],
)
def test_options_that_make_no_network_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        ViT(**options)


@pytest.mark.parametrize("shape", [(2, 3, 12, 12), (12, 12), (2, 144)])
def test_images_that_do_not_fit_are_refused_with_both_shapes(shape):
    with pytest.raises(ValueError, match=r"takes \(N, 1, H, W\) images, got \(" + ", ".join(map(str, shape))):
        ViT()(torch.rand(shape))
