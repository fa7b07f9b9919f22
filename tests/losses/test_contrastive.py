"""Contrastive objectives against double loops and closed forms in float64, their invariances, and their refusals."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.losses import nt_xent


def draw(n, d, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=rng, dtype=dtype) for _ in range(2))


def nt_xent_by_loops(z1, z2, temperature):
    """Chen et al. 2020, equation 1, for every ordered pair of views (i, j) of one image, with mathematical log-exp."""
    views = np.concatenate([np.asarray(z1, np.float64), np.asarray(z2, np.float64)])
    n = len(z1)

    def sim(u, v):
        return u @ v / (math.sqrt(u @ u) * math.sqrt(v @ v))

    total = 0.0
    for i in range(2 * n):
        j = i + n if i < n else i - n
        others = [sim(views[i], views[k]) / temperature for k in range(2 * n) if k != i]
        greatest = max(others)
        log_denominator = greatest + math.log(sum(math.exp(s - greatest) for s in others))
        total += log_denominator - sim(views[i], views[j]) / temperature
    return total / (2 * n)


shapes = st.tuples(st.integers(2, 7), st.integers(1, 6), st.integers(0, 2**31))


@settings(deadline=None, max_examples=40)
@given(shapes, st.sampled_from([0.01, 0.1, 0.5, 1.0, 20.0]))
def test_nt_xent_is_the_mean_of_equation_1_over_all_ordered_pairs(shape, temperature):
    z1, z2 = draw(*shape)
    expected = nt_xent_by_loops(z1, z2, temperature)
    assert nt_xent(z1, z2, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_nt_xent_is_the_cross_entropy_of_telling_the_partner_among_all_other_views():
    z1, z2 = draw(6, 5)
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    losses = []
    for i in range(12):
        others = [k for k in range(12) if k != i]
        logits = z[others] @ z[i] / 0.2
        losses.append(F.cross_entropy(logits[None], torch.tensor([others.index((i + 6) % 12)])))
    torch.testing.assert_close(nt_xent(z1, z2, temperature=0.2), torch.stack(losses).mean())


@pytest.mark.parametrize("n", [2, 3, 50])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_nt_xent_of_a_collapsed_representation_is_the_log_of_the_number_of_candidates(n, temperature):
    z = torch.ones(n, 4, dtype=torch.float64)
    assert nt_xent(z, z, temperature=temperature).item() == pytest.approx(math.log(2 * n - 1))


def test_nt_xent_of_agreeing_views_orthogonal_to_the_others_has_its_closed_form():
    for n, temperature in [(2, 0.5), (5, 0.1), (8, 1.0)]:
        z = torch.eye(n, dtype=torch.float64)
        expected = math.log(1 + (2 * n - 2) * math.exp(-1 / temperature))
        assert nt_xent(z, z, temperature=temperature).item() == pytest.approx(expected)


def test_nt_xent_is_minimal_when_views_agree_and_others_are_orthogonal():
    """Of representations without negative similarities: in dimension N no arrangement of N images does better."""
    z = torch.eye(4, dtype=torch.float64)
    least = nt_xent(z, z, temperature=0.3)
    for seed in range(200):
        z1, z2 = (part.abs() for part in draw(4, 4, seed=seed))
        assert nt_xent(z1, z2, temperature=0.3) > least
        assert nt_xent(z1, z1, temperature=0.3) > least


def test_nt_xent_falls_when_views_approach_and_when_images_part():
    z1, _ = draw(5, 8)
    noise, _ = draw(5, 8, seed=1)
    by_noise = [nt_xent(z1, z1 + s * noise, temperature=0.5).item() for s in (0.0, 0.3, 1.0)]
    assert by_noise == sorted(by_noise)
    together = z1.mean(0) * 5
    by_closeness = [nt_xent(z1 + s * together, z1 + s * together, temperature=0.5).item() for s in (0.0, 0.5, 2.0)]
    assert by_closeness == sorted(by_closeness)


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_nt_xent_is_symmetric_in_its_views(shape):
    z1, z2 = draw(*shape)
    torch.testing.assert_close(nt_xent(z1, z2, temperature=0.2), nt_xent(z2, z1, temperature=0.2))


@settings(deadline=None, max_examples=25)
@given(shapes)
def test_nt_xent_does_not_change_under_rotation_scale_or_order_of_the_images(shape):
    z1, z2 = draw(*shape)
    n, d, seed = shape
    rng = torch.Generator().manual_seed(seed % 1000)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64)).Q
    order = torch.randperm(n, generator=rng)
    scale = 0.1 + 10 * torch.rand(n, 1, generator=rng, dtype=torch.float64)
    expected = nt_xent(z1, z2, temperature=0.3)
    torch.testing.assert_close(nt_xent(z1 @ rotation, z2 @ rotation, temperature=0.3), expected)
    torch.testing.assert_close(nt_xent(z1 * scale, z2 / scale, temperature=0.3), expected)
    torch.testing.assert_close(nt_xent(z1[order], z2[order], temperature=0.3), expected)


def test_nt_xent_does_depend_on_which_views_belong_together():
    z1, _ = draw(5, 8)
    assert nt_xent(z1, z1.roll(1, 0), temperature=0.3) > nt_xent(z1, z1, temperature=0.3) + 1


@pytest.mark.parametrize("temperature", [0.01, 0.3])
def test_nt_xent_has_the_gradient_of_its_value(temperature):
    z1, z2 = (part.requires_grad_() for part in draw(4, 3))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature=temperature), (z1, z2))


def test_nt_xent_is_finite_with_its_gradient_at_temperature_one_hundredth_in_float32():
    z1, z2 = (part.float().requires_grad_() for part in draw(64, 16))
    loss = nt_xent(z1, z2, temperature=0.01)
    loss.backward()
    assert loss.item() == pytest.approx(nt_xent_by_loops(z1.detach(), z2.detach(), 0.01), rel=1e-4)
    assert z1.grad.isfinite().all()
    assert z2.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nt_xent_of_half_precision_views_is_computed_in_float32(dtype):
    z1, z2 = (part.to(dtype) for part in draw(8, 16))
    loss = nt_xent(z1, z2, temperature=0.05)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(nt_xent_by_loops(z1.double(), z2.double(), 0.05), rel=1e-5)


def test_nt_xent_ignores_autocast():
    z1, z2 = draw(8, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent(z1, z2, temperature=0.05)
    assert torch.equal(inside, nt_xent(z1, z2, temperature=0.05))


def test_nt_xent_gradients_reach_half_precision_views():
    z1, z2 = (part.bfloat16().requires_grad_() for part in draw(4, 8))
    nt_xent(z1, z2, temperature=0.2).backward()
    assert z1.grad.dtype == z2.grad.dtype == torch.bfloat16
    assert z1.grad.abs().sum() > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nt_xent_does_not_hide_a_view_that_is_not_finite(bad):
    z1, z2 = draw(4, 3)
    z1[1, 2] = bad
    assert nt_xent(z1, z2, temperature=0.2).isnan()


def test_nt_xent_of_a_dead_projection_is_finite():
    """All zeros, as after a ReLU that died: no direction at all, so every candidate is as good as the partner."""
    z = torch.zeros(3, 4, requires_grad=True)
    loss = nt_xent(z, z, temperature=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5))
    assert z.grad.isfinite().all()


def test_nt_xent_leaves_its_inputs_as_they_were():
    z1, z2 = draw(4, 3)
    before = z1.clone(), z2.clone()
    nt_xent(z1, z2, temperature=0.2)
    assert torch.equal(z1, before[0])
    assert torch.equal(z2, before[1])


@pytest.mark.parametrize(
    ("z1", "z2", "temperature", "error", "named"),
    [
        (torch.rand(1, 4), torch.rand(1, 4), 0.2, ValueError, "at least 2 pairs.*1"),
        (torch.rand(0, 4), torch.rand(0, 4), 0.2, ValueError, "at least 2 pairs.*0"),
        (torch.rand(4, 3), torch.rand(4, 2), 0.2, ValueError, r"\(4, 3\) and \(4, 2\)"),
        (torch.rand(4, 3), torch.rand(5, 3), 0.2, ValueError, r"\(4, 3\) and \(5, 3\)"),
        (torch.rand(4), torch.rand(4), 0.2, ValueError, r"\(4,\) and \(4,\)"),
        (torch.rand(4, 3, 2), torch.rand(4, 3, 2), 0.2, ValueError, r"\(4, 3, 2\)"),
        (torch.ones(4, 3, dtype=torch.int64), torch.rand(4, 3), 0.2, TypeError, "z1.*int64"),
        (torch.rand(4, 3), torch.ones(4, 3, dtype=torch.uint8), 0.2, TypeError, "z2.*uint8"),
        (torch.rand(4, 3), torch.rand(4, 3), 0.0, ValueError, "temperature.*0.0"),
        (torch.rand(4, 3), torch.rand(4, 3), -0.1, ValueError, "temperature.*-0.1"),
        (torch.rand(4, 3), torch.rand(4, 3), math.nan, ValueError, "temperature.*nan"),
        ([[1.0, 2.0]] * 2, torch.rand(2, 2), 0.2, TypeError, "z1.*list"),
    ],
)
def test_nt_xent_says_what_came_and_what_was_wanted(z1, z2, temperature, error, named):
    with pytest.raises(error, match=named):
        nt_xent(z1, z2, temperature=temperature)
