"""Penalties on codes: the sparsity divergence by loops, the Jacobian by autograd against its closed form."""

import math

import pytest
import torch
from torch import nn

from course_utils.losses import jacobian_norm, kl_to_target


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_kl_to_target_is_the_divergence_of_bernoullis_summed_over_units():
    z = torch.rand(20, 5, generator=rng(), dtype=torch.float64)
    expected = 0.0
    for mean in z.mean(0).tolist():
        expected += 0.1 * math.log(0.1 / mean) + 0.9 * math.log(0.9 / (1 - mean))
    assert kl_to_target(z, 0.1).item() == pytest.approx(expected)
    assert kl_to_target(torch.full((3, 2), 0.5), 0.5).item() == 0
    assert kl_to_target(torch.zeros(3, 2), 0.5).item() == math.inf


def test_jacobian_norm_of_a_sigmoid_layer_has_its_closed_form():
    """Rifai et al. 2011: Σ_j (h_j (1 − h_j))² Σ_i W_ji²."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    x = torch.randn(5, 6, generator=rng(), dtype=torch.float64)
    h = layer(x).sigmoid()
    closed = ((h * (1 - h)).square() * layer.weight.square().sum(1)).sum(1).mean()
    by_autograd = jacobian_norm(nn.Sequential(layer, nn.Sigmoid()), x)
    torch.testing.assert_close(by_autograd, closed)
    gradients = [torch.autograd.grad(value, layer.weight)[0] for value in (by_autograd, closed)]
    torch.testing.assert_close(*gradients)


def test_jacobian_norm_of_a_deep_encoder_of_images_is_that_of_torch_func():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x = torch.randn(4, 2, 2, 2, generator=rng(), dtype=torch.float64)
    jacobians = [torch.autograd.functional.jacobian(encoder, row[None]) for row in x]
    expected = torch.stack([jacobian.square().sum() for jacobian in jacobians]).mean()
    torch.testing.assert_close(jacobian_norm(encoder, x), expected)


def test_the_random_projection_has_the_exact_norm_as_its_mean():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(6, 4), nn.Tanh())
    x = torch.randn(5, 6, generator=rng())
    draws = rng(1)
    estimates = torch.stack([jacobian_norm(encoder, x, draws).detach() for _ in range(1000)])
    error = 4 * estimates.std() / math.sqrt(1000)
    assert (estimates.mean() - jacobian_norm(encoder, x)).abs() < error


def test_a_constant_encoder_would_have_no_norm_and_x_keeps_no_gradient():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    x = torch.rand(4, 3)
    with torch.no_grad():
        assert jacobian_norm(layer, x).item() == 0
    assert not x.requires_grad


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: kl_to_target(torch.full((2, 2), 1.5), 0.1), ValueError, r"\[0, 1\].*sigmoid"),
        (lambda: kl_to_target(torch.rand(4), 0.1), ValueError, r"\(N, D\).*\(4,\)"),
        (lambda: kl_to_target(torch.rand(4, 2), 1.0), ValueError, "target.*1.0"),
        (lambda: kl_to_target(torch.ones(4, 2).long(), 0.1), TypeError, "z.*int64"),
        (lambda: jacobian_norm(nn.Flatten(0), torch.rand(2, 3)), ValueError, r"codes \(N, D\).*\(6,\)"),
        (lambda: jacobian_norm(nn.Flatten(), torch.ones(2, 3).long()), TypeError, "x.*int64"),
    ],
)
def test_bad_input_is_named(call, error, named):
    with pytest.raises(error, match=named):
        call()
