"""Contrastive objectives against double loops and closed forms in float64, their invariances, and their refusals."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.losses import info_nce, nt_xent


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


# --- InfoNCE


def info_nce_by_loops(query, key, negatives, temperature):
    """He et al. 2020, equation 1, query by query; without negatives the other keys of the batch (CPC, equation 4)."""
    query, key = np.asarray(query, np.float64), np.asarray(key, np.float64)

    def sim(u, v):
        return u @ v / (math.sqrt(u @ u) * math.sqrt(v @ v))

    total = 0.0
    for i, q in enumerate(query):
        others = [key[j] for j in range(len(key)) if j != i] if negatives is None else np.asarray(negatives, np.float64)
        scores = [sim(q, key[i]) / temperature, *(sim(q, k) / temperature for k in others)]
        greatest = max(scores)
        total += greatest + math.log(sum(math.exp(s - greatest) for s in scores)) - scores[0]
    return total / len(query)


def draw_queue(k, d, seed=5, dtype=torch.float64):
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(deadline=None, max_examples=40)
@given(shapes, st.integers(0, 9), st.sampled_from([0.01, 0.07, 0.5, 20.0]))
def test_info_nce_is_the_mean_of_equation_1_over_the_queries(shape, k, temperature):
    query, key = draw(*shape)
    negatives = draw_queue(k, shape[1]) if k else None
    expected = info_nce_by_loops(query, key, negatives, temperature)
    assert info_nce(query, key, negatives, temperature=temperature).item() == pytest.approx(
        expected, rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_info_nce_of_a_collapsed_representation_is_the_log_of_the_number_of_candidates(n, temperature):
    z = torch.ones(n, 4, dtype=torch.float64)
    queue = torch.ones(7, 4, dtype=torch.float64)
    assert info_nce(z, z, queue, temperature=temperature).item() == pytest.approx(math.log(8))
    if n > 1:
        assert info_nce(z, z, temperature=temperature).item() == pytest.approx(math.log(n))


def test_info_nce_of_keys_that_agree_and_negatives_at_right_angles_has_its_closed_form():
    for n, k, temperature in [(1, 3, 0.5), (4, 1, 0.07), (3, 5, 1.0)]:
        z = torch.eye(n + k, dtype=torch.float64)
        expected = math.log(1 + k * math.exp(-1 / temperature))
        assert info_nce(z[:n], z[:n], z[n:], temperature=temperature).item() == pytest.approx(expected)
    z = torch.eye(6, dtype=torch.float64)
    assert info_nce(z, z, temperature=0.3).item() == pytest.approx(math.log(1 + 5 * math.exp(-1 / 0.3)))


def test_info_nce_without_negatives_is_that_with_the_other_keys_as_each_querys_own_negatives():
    query, key = draw(5, 4)
    one_by_one = [
        info_nce(query[i : i + 1], key[i : i + 1], key[torch.arange(5) != i], temperature=0.2) for i in range(5)
    ]
    torch.testing.assert_close(info_nce(query, key, temperature=0.2), torch.stack(one_by_one).mean())


def test_info_nce_falls_when_the_key_approaches_and_when_the_negatives_part():
    query, noise = draw(5, 8)
    queue = draw_queue(20, 8)
    by_noise = [info_nce(query, query + s * noise, queue, temperature=0.5).item() for s in (0.0, 0.3, 1.0)]
    assert by_noise == sorted(by_noise)
    towards = query.mean(0)
    by_closeness = [info_nce(query, query, queue + s * towards, temperature=0.5).item() for s in (0.0, 2.0, 8.0)]
    assert by_closeness == sorted(by_closeness)


def test_info_nce_bounds_information_from_below_and_can_show_no_more_than_log_k_plus_1():
    """van den Oord et al. 2018, equation 5: log(K + 1) − L ≤ I, here the log 4 of a code of 4 values."""
    codes = torch.eye(4, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    shown = []
    for k in (1, 15, 255):
        losses = []
        for row in torch.randint(4, (400,), generator=rng).tolist():
            others = codes[torch.randint(4, (k,), generator=rng)]
            losses.append(info_nce(codes[row : row + 1], codes[row : row + 1], others, temperature=0.01))
        shown.append(math.log(k + 1) - torch.stack(losses).mean().item())
    assert shown == sorted(shown)
    assert shown[0] < math.log(2)
    assert math.log(4) - 0.05 < shown[-1] < math.log(4) + 0.01


@settings(deadline=None, max_examples=25)
@given(shapes, st.booleans())
def test_info_nce_does_not_change_under_rotation_scale_or_order(shape, with_queue):
    query, key = draw(*shape)
    n, d, seed = shape
    negatives = draw_queue(6, d) if with_queue else None
    rng = torch.Generator().manual_seed(seed % 1000)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=rng, dtype=torch.float64)).Q
    order = torch.randperm(n, generator=rng)
    scale = 0.1 + 10 * torch.rand(n, 1, generator=rng, dtype=torch.float64)
    expected = info_nce(query, key, negatives, temperature=0.3)

    def check(query, key, negatives):
        torch.testing.assert_close(info_nce(query, key, negatives, temperature=0.3), expected)

    check(query @ rotation, key @ rotation, negatives @ rotation if with_queue else None)
    check(query * scale, key / scale, 3 * negatives if with_queue else None)
    check(query[order], key[order], negatives.flip(0) if with_queue else None)


def test_info_nce_depends_on_which_rows_belong_together_and_a_negative_that_is_the_key_costs_log_2():
    query, _ = draw(5, 8)
    queue = draw_queue(6, 8)
    agree = info_nce(query, query, queue, temperature=0.1)
    assert info_nce(query, query.roll(1, 0), queue, temperature=0.1) > agree + 1
    own = torch.eye(5, dtype=torch.float64)
    assert info_nce(own, own, own, temperature=0.02).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("temperature", [0.01, 0.3])
def test_info_nce_has_the_gradient_of_its_value(temperature):
    query, key = (part.requires_grad_() for part in draw(4, 3))
    queue = draw_queue(3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k, n: info_nce(q, k, n, temperature=temperature), (query, key, queue))
    assert torch.autograd.gradcheck(lambda q, k: info_nce(q, k, temperature=temperature), (query, key))


def test_info_nce_is_finite_with_its_gradient_at_temperature_one_hundredth_in_float32():
    query, key = (part.float().requires_grad_() for part in draw(64, 16))
    queue = draw_queue(200, 16, dtype=torch.float32)
    loss = info_nce(query, key, queue, temperature=0.01)
    loss.backward()
    assert loss.item() == pytest.approx(info_nce_by_loops(query.detach(), key.detach(), queue, 0.01), rel=1e-4)
    assert query.grad.isfinite().all()
    assert key.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_info_nce_of_half_precision_is_computed_in_float32_also_beside_a_float32_queue(dtype):
    query, key = (part.to(dtype) for part in draw(8, 16))
    queue = draw_queue(30, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(query, key, queue, temperature=0.05)
    assert loss.dtype == torch.float32
    expected = info_nce_by_loops(query.double(), key.double(), queue.double(), 0.05)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(info_nce(query, key, temperature=0.05), info_nce(query.float(), key.float(), temperature=0.05))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_info_nce_does_not_hide_what_is_not_finite(bad):
    for spoilt in range(3):
        parts = [*draw(4, 3), draw_queue(2, 3)]
        parts[spoilt][1, 2] = bad
        assert info_nce(*parts, temperature=0.2).isnan()


def test_info_nce_of_a_dead_projection_is_finite_and_its_inputs_stay_as_they_were():
    z, queue = torch.zeros(3, 4, requires_grad=True), draw_queue(6, 4, dtype=torch.float32)
    before = queue.clone()
    loss = info_nce(z, z, queue, temperature=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7))
    assert z.grad.isfinite().all()
    assert torch.equal(queue, before)


@pytest.mark.parametrize(
    ("query", "key", "negatives", "temperature", "error", "named"),
    [
        (torch.rand(1, 4), torch.rand(1, 4), None, 0.2, ValueError, "at least 2 pairs.*negatives.*1"),
        (torch.rand(0, 4), torch.rand(0, 4), torch.rand(3, 4), 0.2, ValueError, "at least 1 pairs.*0"),
        (torch.rand(4, 3), torch.rand(5, 3), None, 0.2, ValueError, r"query and key.*\(4, 3\) and \(5, 3\)"),
        (torch.rand(4, 3), torch.rand(4, 2), torch.rand(3, 3), 0.2, ValueError, r"\(4, 3\) and \(4, 2\)"),
        (torch.rand(4, 3), torch.rand(4, 3), torch.rand(6, 2), 0.2, ValueError, r"negatives.*\(6, 2\)"),
        (torch.rand(4, 3), torch.rand(4, 3), torch.rand(0, 3), 0.2, ValueError, r"negatives.*\(0, 3\)"),
        (torch.rand(4, 3), torch.rand(4, 3), torch.rand(3), 0.2, ValueError, r"negatives.*\(3,\)"),
        (torch.rand(4, 3), torch.ones(4, 3, dtype=torch.int64), None, 0.2, TypeError, "key.*int64"),
        (torch.rand(4, 3), torch.rand(4, 3), torch.ones(2, 3, dtype=torch.uint8), 0.2, TypeError, "negatives.*uint8"),
        (torch.rand(4, 3), torch.rand(4, 3), None, 0.0, ValueError, "temperature.*0.0"),
        (torch.rand(4, 3), torch.rand(4, 3), torch.rand(2, 3), math.nan, ValueError, "temperature.*nan"),
    ],
)
def test_info_nce_says_what_came_and_what_was_wanted(query, key, negatives, temperature, error, named):
    with pytest.raises(error, match=named):
        info_nce(query, key, negatives, temperature=temperature)
