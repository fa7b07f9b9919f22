"""Flows: the log-determinant by autograd, the inverse, and a density that is one."""

import math

import pytest
import torch
from torch.autograd.functional import jacobian

from course_utils.models import AffineCoupling, CouplingFlow, dequantize


def shaken(flow, by=0.3):
    """The flow in float64 with random weights: a new one is the identity."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += by * torch.randn(parameter.shape, generator=rng)
    return flow.double()


@pytest.mark.parametrize("shape", [(2,), (5,), (1, 4, 4), (2, 2, 3)])
def test_the_log_determinant_is_that_of_the_jacobian(shape):
    flow = shaken(CouplingFlow(shape, couplings=5, hidden=8))
    x = torch.randn(3, *shape, dtype=torch.float64)
    _, log_det = flow(x)
    for i in range(3):
        matrix = jacobian(lambda point: flow(point[None])[0][0], x[i]).flatten(1)
        torch.testing.assert_close(log_det[i], torch.linalg.slogdet(matrix).logabsdet)


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_the_inverse_undoes_the_flow_both_ways(shape):
    flow = shaken(CouplingFlow(shape, couplings=6, hidden=8), by=0.2)
    x = torch.randn(10, *shape, dtype=torch.float64)
    torch.testing.assert_close(flow.inverse(flow(x)[0]), x)
    z = torch.randn(10, math.prod(shape), dtype=torch.float64)
    torch.testing.assert_close(flow(flow.inverse(z))[0], z)


def test_the_density_of_two_dimensions_integrates_to_one():
    flow = shaken(CouplingFlow((2,), couplings=4, hidden=8), by=0.2)
    axis = torch.linspace(-14, 14, 561, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mass = flow.log_prob(points).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


def test_a_new_flow_is_the_identity_and_its_density_the_gaussian():
    flow, x = CouplingFlow((3,)), torch.randn(5, 3)
    z, log_det = flow(x)
    torch.testing.assert_close(z, x)
    assert log_det.abs().max() == 0
    gaussian = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(flow.log_prob(x), gaussian)


def test_a_coupling_keeps_what_its_mask_names():
    layer = shaken(AffineCoupling(torch.tensor([True, False, True]), hidden=4))
    x = torch.randn(4, 3, dtype=torch.float64)
    y, _ = layer(x)
    torch.testing.assert_close(y[:, [0, 2]], x[:, [0, 2]])
    assert (y[:, 1] != x[:, 1]).all()


def test_checkerboards_alternate_so_that_every_pixel_moves():
    flow = CouplingFlow((1, 4, 4), couplings=2)
    first, second = (coupling.mask.view(4, 4) for coupling in flow.couplings)
    torch.testing.assert_close(first + second, torch.ones(4, 4))
    assert first[0, 0] != first[0, 1] != first[1, 1] or first[0, 0] == first[1, 1]
    torch.testing.assert_close(first[1:, 1:], first[:-1, :-1])


def test_dequantised_levels_stay_in_their_bins_and_fill_them():
    x = torch.arange(4).repeat_interleave(5000) / 3
    v = dequantize(x, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close((v * 4).floor() / 3, x)
    inside = v * 4 - (v * 4).floor()
    assert inside.mean().item() == pytest.approx(0.5, abs=0.01)
    assert v.max() < 1


def test_wrong_inputs_are_refused_with_what_was_wanted():
    with pytest.raises(ValueError, match=r"takes \(N, 1, 4, 4\), got \(2, 16\)"):
        CouplingFlow((1, 4, 4))(torch.rand(2, 16))
    with pytest.raises(ValueError, match="at least 2 entries"):
        CouplingFlow((1,))
    with pytest.raises(ValueError, match=r"values in \[0, 1\], got 4 levels"):
        dequantize(torch.tensor([1.5]), 4, torch.Generator())
