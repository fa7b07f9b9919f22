"""Jigsaw: tiles seen one by one, joined in the order dealt; the order is named."""

import copy
import math

import pytest
import torch

from course_utils.methods import Jigsaw
from course_utils.models import ConvEncoder
from course_utils.views import permutation_set

X = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(channels=1, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ConvEncoder(channels, width=4)
        return Jigsaw(encoder, **{"permutations": 6, "tile": 3, "gap": 1} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_that_of_naming_the_order_of_tiles_shuffled_before_the_encoder_sees_them():
    """The method shuffles features, which is the same, since no tile is seen beside another."""
    method = build()
    reference = copy.deepcopy(method)
    heads = []
    method.head.register_forward_pre_hook(lambda module, inputs: heads.append(inputs[0]))
    rng = seeded()
    loss, logs = method.training_loss(X, rng)
    rng = seeded()
    tiles = reference.tiles(X, rng)  # (5, 9, 1, 3, 3)
    answer = torch.randint(6, (5,), generator=rng)
    orders = permutation_set(6)
    shuffled = torch.stack([tiles[n, tile] for n in range(5) for tile in orders[answer[n]].tolist()])
    joined = reference.encoder(shuffled).view(5, -1)
    torch.testing.assert_close(heads[0], joined)
    logits = reference.head(joined).detach().double()
    losses = [math.log(sum(math.exp(v) for v in row)) - row[a].item() for row, a in zip(logits, answer, strict=True)]
    assert loss.item() == pytest.approx(sum(losses) / 5, rel=1e-4)
    assert logs == {"accuracy": pytest.approx((logits.argmax(1) == answer).double().mean().item())}


def test_all_orders_are_dealt_equally_often():
    method = build()
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.zero_()
    marks = torch.arange(9.0).view(1, 9, 1).repeat(600, 1, method.encoder.out_dim)
    method.encoder.forward = lambda x: marks.flatten(0, 1)
    joined = []
    method.head.register_forward_pre_hook(lambda module, inputs: joined.append(inputs[0]))
    method.training_loss(X[:1].repeat(600, 1, 1, 1), seeded())
    dealt = joined[0].view(600, 9, -1)[:, :, 0].long()
    found, counts = dealt.unique(dim=0, return_counts=True)
    assert found.tolist() == sorted(permutation_set(6).tolist())
    assert counts.min() > 70


def test_a_head_that_says_nothing_costs_the_log_of_the_number_of_orders():
    method = build()
    torch.nn.init.zeros_(method.head[-1].weight)
    torch.nn.init.zeros_(method.head[-1].bias)
    assert method.training_loss(X, seeded())[0].item() == pytest.approx(math.log(6), rel=1e-6)


def test_tiles_of_an_image_have_its_mean_and_deviation():
    x = torch.rand(6, 1, 12, 12, generator=seeded()) * torch.linspace(0.2, 1, 12)
    tiles = build().tiles(x, seeded())
    torch.testing.assert_close(tiles.mean((2, 3, 4)), x.mean((1, 2, 3))[:, None].expand(6, 9))
    deviations = tiles.std((2, 3, 4), correction=0)
    torch.testing.assert_close(deviations, x.std((1, 2, 3), correction=0)[:, None].expand(6, 9))


def test_colours_are_mixed_tile_by_tile_before_the_statistics_are_made_equal():
    colours = torch.rand(4, 3, 12, 12, generator=seeded())
    plain, mixed = (build(channels=3, mixing=mixing).tiles(colours, seeded()) for mixing in (0.0, 0.8))
    assert (plain - mixed).abs().amax((2, 3, 4)).min() > 0.01
    torch.testing.assert_close(mixed.mean((3, 4)), colours.mean((2, 3))[:, None].expand(4, 9, 3))


def test_the_orders_travel_with_the_state():
    method = build()
    state = copy.deepcopy(method.state_dict())
    state["orders"] = state["orders"].flip(0)
    method.load_state_dict(state)
    assert torch.equal(method.orders, permutation_set(6).flip(0))
