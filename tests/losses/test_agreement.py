"""Agreement of predictions and targets against loops in float64, its invariances, and its refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.losses import negative_cosine


def draw(n, d, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=rng, dtype=dtype) for _ in range(2))


def by_loops(p, z):
    """Chen & He 2021, equation 1, row by row, and the mean over the batch."""
    total = 0.0
    for u, v in zip(np.asarray(p, np.float64), np.asarray(z, np.float64), strict=True):
        dot = sum(a * b for a, b in zip(u, v, strict=True))
        total -= dot / (math.sqrt(sum(a * a for a in u)) * math.sqrt(sum(b * b for b in v)))
    return total / len(p)


shapes = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(0, 2**31))


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_negative_cosine_is_the_mean_of_equation_1(shape):
    p, z = draw(*shape)
    assert negative_cosine(p, z).item() == pytest.approx(by_loops(p, z), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_byols_squared_distance_is_two_plus_twice_the_negative_cosine(shape):
    """Grill et al. 2020, equation 2: ‖p̄ − z̄‖² of the normalised rows."""
    p, z = draw(*shape)
    unit_p, unit_z = (part.numpy() / np.linalg.norm(part.numpy(), axis=1, keepdims=True) for part in (p, z))
    byol = np.mean(np.sum((unit_p - unit_z) ** 2, axis=1))
    assert 2 + 2 * negative_cosine(p, z).item() == pytest.approx(byol, abs=1e-12)


def test_negative_cosine_is_least_for_equal_directions_greatest_for_opposite_ones_and_zero_between():
    p, _ = draw(5, 4)
    assert negative_cosine(p, 3 * p).item() == pytest.approx(-1)
    assert negative_cosine(p, -p).item() == pytest.approx(1)
    assert negative_cosine(torch.eye(4), torch.eye(4).roll(1, 0)).item() == 0


def test_negative_cosine_is_minimal_at_collapse():
    """Nothing in the objective itself forbids the constant answer."""
    p, z = draw(6, 4)
    constant = torch.ones(6, 4, dtype=torch.float64)
    assert negative_cosine(constant, constant).item() == pytest.approx(-1)
    assert negative_cosine(p, z) > -1


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_negative_cosine_does_not_change_under_rotation_scale_order_or_exchange(shape):
    p, z = draw(*shape)
    n, d, seed = shape
    rng = torch.Generator().manual_seed(seed % 1000)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64)).Q
    scale = 0.1 + 10 * torch.rand(n, 1, generator=rng, dtype=torch.float64)
    order = torch.randperm(n, generator=rng)
    expected = negative_cosine(p, z)
    for other in [(p @ rotation, z @ rotation), (p * scale, z / scale), (p[order], z[order]), (z, p)]:
        torch.testing.assert_close(negative_cosine(*other), expected)


def test_gradients_reach_both_arguments_and_stopping_them_is_the_callers():
    p, z = (part.requires_grad_() for part in draw(4, 3))
    assert torch.autograd.gradcheck(negative_cosine, (p, z))
    negative_cosine(p, z.detach()).backward()
    assert p.grad.abs().sum() > 0
    assert z.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_and_gets_its_gradient_back(dtype):
    p, z = (part.to(dtype).requires_grad_() for part in draw(8, 16))
    loss = negative_cosine(p, z)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(by_loops(p.detach().double(), z.detach().double()), rel=1e-5)
    assert p.grad.dtype == dtype
    assert p.grad.abs().sum() > 0


def test_autocast_is_ignored():
    p, z = draw(8, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = negative_cosine(p, z)
    assert torch.equal(inside, negative_cosine(p, z))


def test_a_dead_projection_agrees_with_nothing_and_has_a_finite_gradient():
    z = torch.zeros(3, 4, requires_grad=True)
    loss = negative_cosine(z, z)
    loss.backward()
    assert loss.item() == 0
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_shows(bad):
    p, z = draw(4, 3)
    z[1, 2] = bad
    assert negative_cosine(p, z).isnan()


@pytest.mark.parametrize(
    ("p", "z", "error", "named"),
    [
        (torch.rand(0, 4), torch.rand(0, 4), ValueError, "at least 1 pairs.*nothing to compare.*0"),
        (torch.rand(4, 3), torch.rand(4, 2), ValueError, r"p and z.*\(4, 3\) and \(4, 2\)"),
        (torch.rand(4), torch.rand(4), ValueError, r"\(4,\) and \(4,\)"),
        (torch.ones(4, 3, dtype=torch.int64), torch.rand(4, 3), TypeError, "p.*int64"),
        (torch.rand(4, 3), [[1.0]], TypeError, "z.*list"),
    ],
)
def test_negative_cosine_says_what_came_and_what_was_wanted(p, z, error, named):
    with pytest.raises(error, match=named):
        negative_cosine(p, z)
