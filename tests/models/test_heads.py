"""Heads: linear layers with batch norm and a rectifier between them, none after the last."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.models import MLP, DINOHead


def build(*sizes):
    torch.manual_seed(0)
    return MLP(*sizes)


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (5, 7, 6, 3)])
def test_batch_norm_and_rectifier_follow_every_hidden_layer_and_nothing_follows_the_last(sizes):
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (len(sizes) - 2)
    head = build(*sizes)
    assert [type(part) for part in head] == [*hidden, nn.Linear]
    linear = [part for part in head if isinstance(part, nn.Linear)]
    assert [part.weight.shape[::-1] for part in linear] == list(pairwise(sizes))
    assert [part.bias is None for part in linear] == [True] * (len(sizes) - 2) + [False]  # batch norm has its own


@pytest.mark.parametrize("training", [False, True])
def test_a_head_is_what_numpy_computes(training):
    head = build(5, 7, 6, 3).double().train(training)
    for norm in (head[1], head[4]):
        norm.weight.data, norm.bias.data = 1 + draw(len(norm.weight)).abs(), draw(len(norm.weight))
        norm.running_mean, norm.running_var = draw(len(norm.weight)), 1 + draw(len(norm.weight)).abs()
    x = draw(10, 5)
    h = x.numpy()
    for linear, norm in ((head[0], head[1]), (head[3], head[4])):
        h = h @ linear.weight.detach().numpy().T
        mean, var = (h.mean(0), h.var(0)) if training else (norm.running_mean.numpy(), norm.running_var.numpy())
        h = (h - mean) / np.sqrt(var + 1e-5) * norm.weight.detach().numpy() + norm.bias.detach().numpy()
        h = np.maximum(h, 0)
    expected = h @ head[6].weight.detach().numpy().T + head[6].bias.detach().numpy()
    np.testing.assert_allclose(head(x).detach(), expected, rtol=1e-9, atol=1e-12)
    assert expected.min() < 0


def test_two_sizes_are_a_linear_classifier():
    head = build(5, 3).double()
    x, y = draw(8, 5), draw(8, 5).flip(0)
    torch.testing.assert_close(head(3 * x - 2 * y), 3 * head(x) - 2 * head(y))


def test_the_last_bias_can_be_left_out_and_nothing_else_changes():
    torch.manual_seed(0)
    head = MLP(5, 7, 3, bias=False)
    assert head[-1].bias is None
    assert [type(part) for part in head] == [type(part) for part in build(5, 7, 3)]
    with_bias = MLP(5, 7, 3)
    with_bias.load_state_dict(head.state_dict() | {"3.bias": torch.zeros(3)})
    x = draw(10, 5).float()
    torch.testing.assert_close(head(x), with_bias(x))


def test_gradients_reach_every_parameter_of_a_head():
    head = build(5, 7, 6, 3).double()
    (head(draw(10, 5)) * draw(10, 3)).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_head_in_eval_does_not_depend_on_the_batch_and_in_training_it_does():
    head, x = build(5, 7, 3).double(), draw(10, 5)
    assert not torch.allclose(head(x)[:4], head(x[:4]), atol=1e-3)
    head.eval()
    assert torch.equal(head(x), head(x))
    torch.testing.assert_close(torch.cat([head(row[None]) for row in x]), head(x))


@pytest.mark.parametrize("sizes", [(), (128,)])
def test_a_head_without_an_output_is_refused(sizes):
    with pytest.raises(ValueError, match=r"at least an input and an output size, got \("):
        MLP(*sizes)


def dino_head(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DINOHead(5, 9, **{"hidden": 7, "bottleneck": 4} | options).double()


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_dinos_head_gives_cosines_of_its_bottleneck_with_the_rows_of_its_last_layer(batch_norm, layers):
    head, x = dino_head(batch_norm=batch_norm, layers=layers), draw(10, 5)
    hidden = [nn.Linear, nn.BatchNorm1d, nn.GELU] if batch_norm else [nn.Linear, nn.GELU]
    end = [nn.Linear, nn.BatchNorm1d] if batch_norm else [nn.Linear]
    assert [type(part) for part in head.mlp] == [*hidden * (layers - 1), *end]
    z = head.mlp(x).detach().numpy()
    w = head.last.weight.detach().numpy()
    cosines = z @ w.T / np.linalg.norm(z, axis=1)[:, None] / np.linalg.norm(w, axis=1)
    np.testing.assert_allclose(head(x).detach(), cosines, rtol=1e-9)
    assert head.last.bias is None


def test_dinos_head_does_not_see_the_length_of_its_bottleneck_or_of_its_last_layer():
    head, x = dino_head(), draw(10, 5)
    before = head(x)
    with torch.no_grad():
        head.last.weight.mul_(torch.linspace(0.1, 9, 9)[:, None])
        head.mlp[-1].weight.mul_(3)
        head.mlp[-1].bias.mul_(3)
    torch.testing.assert_close(head(x), before)


def test_gradients_reach_every_parameter_of_dinos_head():
    head = dino_head(batch_norm=True)
    (head(draw(10, 5)) * draw(10, 9)).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
