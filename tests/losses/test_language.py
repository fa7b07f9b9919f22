"""Objectives of language against loops in float64, what their theory says of them, and their refusals."""

import math

import pytest
import torch

from course_utils.losses import masked_cross_entropy, skip_gram_negative_sampling


def draw(n=6, k=4, d=5, seed=0, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    v, v_out = scale * torch.randn(2, n, d, generator=rng, dtype=torch.float64)
    return v, v_out, scale * torch.randn(n, k, d, generator=rng, dtype=torch.float64)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def sgns_by_loops(v, v_out, v_noise):
    """Mikolov et al. 2013, equation 4, a pair and a noise word at a time."""
    total = 0.0
    for a, b, noise in zip(v.tolist(), v_out.tolist(), v_noise.tolist(), strict=True):
        total -= log_sigmoid(sum(x * y for x, y in zip(a, b, strict=True)))
        for c in noise:
            total -= log_sigmoid(-sum(x * y for x, y in zip(a, c, strict=True)))
    return total / len(v)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(5))
def test_negative_sampling_is_equation_4(seed, scale):
    parts = draw(n=seed + 1, k=seed % 3 + 1, seed=seed, scale=scale)
    assert skip_gram_negative_sampling(*parts).item() == pytest.approx(sgns_by_loops(*parts), rel=1e-9)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_negative_sampling_of_words_that_say_nothing_costs_log_2_a_question(k):
    v = torch.zeros(3, 4)
    assert skip_gram_negative_sampling(v, v, torch.rand(3, k, 4)).item() == pytest.approx((1 + k) * math.log(2))


def test_negative_sampling_has_its_optimum_at_the_logarithm_of_joint_over_k_times_independent():
    """Levy and Goldberg 2014, equation 7: over x = v·v′ the expected loss is least at PMI − log k."""
    p_joint, p_w, p_c, k = 0.03, 0.1, 0.05, 5
    x = torch.linspace(-5, 5, 20_001, dtype=torch.float64)
    expected = [p_joint * -log_sigmoid(t) + k * p_w * p_c * -log_sigmoid(-t) for t in x.tolist()]
    best = x[torch.tensor(expected).argmin()].item()
    assert best == pytest.approx(math.log(p_joint / (p_w * p_c)) - math.log(k), abs=1e-3)


def test_negative_sampling_does_not_change_under_rotation_of_all_or_order_of_pairs_and_noise():
    v, v_out, v_noise = draw()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))).Q
    expected = skip_gram_negative_sampling(v, v_out, v_noise)
    torch.testing.assert_close(
        skip_gram_negative_sampling(v @ rotation, v_out @ rotation, v_noise @ rotation), expected
    )
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    shuffled = skip_gram_negative_sampling(v[order], v_out[order], v_noise[order].flip(1))
    torch.testing.assert_close(shuffled, expected)


def test_negative_sampling_has_the_gradient_of_its_value():
    parts = [part.requires_grad_() for part in draw(n=3, k=2, d=3)]
    assert torch.autograd.gradcheck(skip_gram_negative_sampling, parts)


def test_negative_sampling_is_finite_with_its_gradient_for_huge_products():
    v, v_out, v_noise = (part.float().requires_grad_() for part in draw(scale=1e4))
    loss = skip_gram_negative_sampling(v, v_out, v_noise)
    loss.backward()
    assert loss.isfinite()
    assert v.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_objectives_of_half_precision_are_computed_in_float32(dtype):
    parts = [part.to(dtype) for part in draw()]
    loss = skip_gram_negative_sampling(*parts)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(sgns_by_loops(*(part.double() for part in parts)), rel=1e-5)
    logits = torch.randn(4, 7).to(dtype)
    assert masked_cross_entropy(logits, torch.arange(4)).dtype == torch.float32


@pytest.mark.parametrize(
    ("shapes", "error", "words"),
    [
        (((2, 3), (2, 4), (2, 5, 3)), ValueError, r"got \(2, 3\), \(2, 4\), \(2, 5, 3\)"),
        (((2, 3), (2, 3), (2, 3)), ValueError, r"\(N, K, D\), got"),
        (((2, 3), (2, 3), (3, 5, 3)), ValueError, r"\(3, 5, 3\)"),
        (((0, 3), (0, 3), (0, 5, 3)), ValueError, "at least 1 pair"),
    ],
)
def test_negative_sampling_says_what_came_and_what_was_wanted(shapes, error, words):
    with pytest.raises(error, match=words):
        skip_gram_negative_sampling(*(torch.zeros(shape) for shape in shapes))


def test_objectives_take_floating_point_numbers_only():
    whole = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"v must be a floating-point tensor, got torch\.int64"):
        skip_gram_negative_sampling(whole, whole, torch.zeros(2, 1, 3))
    with pytest.raises(TypeError, match="logits must be a floating-point tensor"):
        masked_cross_entropy(whole, torch.zeros(2, dtype=torch.int64))


# --- masked cross-entropy


def cross_entropy_by_loops(logits, targets, mask):
    costs = []
    for row, answers, chosen in zip(logits.tolist(), targets.tolist(), mask.tolist(), strict=True):
        for scores, answer, picked in zip(row, answers, chosen, strict=True):
            if picked:
                greatest = max(scores)
                costs.append(greatest + math.log(sum(math.exp(s - greatest) for s in scores)) - scores[answer])
    return sum(costs) / len(costs)


def question(scale=1.0):
    rng = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(3, 5, 7, generator=rng, dtype=torch.float64)
    return logits, torch.randint(7, (3, 5), generator=rng), torch.rand(3, 5, generator=rng) < 0.5


@pytest.mark.parametrize("scale", [0.01, 1.0, 500.0])
def test_masked_cross_entropy_is_the_mean_over_the_chosen_positions(scale):
    logits, targets, mask = question(scale)
    loss = masked_cross_entropy(logits, targets, mask=mask)
    assert loss.item() == pytest.approx(cross_entropy_by_loops(logits, targets, mask), rel=1e-9)
    everywhere = masked_cross_entropy(logits, targets)
    assert everywhere.item() == pytest.approx(cross_entropy_by_loops(logits, targets, torch.ones_like(mask)), rel=1e-9)


def test_masked_cross_entropy_of_a_model_that_knows_nothing_is_log_v():
    loss = masked_cross_entropy(torch.zeros(2, 3, 100), torch.ones(2, 3, dtype=torch.int64))
    assert loss.item() == pytest.approx(math.log(100))


def test_positions_that_are_not_chosen_have_neither_value_nor_gradient():
    logits, targets, mask = question()
    logits.requires_grad_()
    loss = masked_cross_entropy(logits, targets, mask=mask)
    loss.backward()
    assert (logits.grad[~mask] == 0).all()
    assert (logits.grad[mask].abs().sum(1) > 0).all()
    other = torch.where(mask[:, :, None], logits.detach(), 99.0)
    torch.testing.assert_close(masked_cross_entropy(other, targets, mask=mask), loss.detach())


@pytest.mark.parametrize(
    ("targets", "mask", "words"),
    [
        (torch.zeros(3, 4, dtype=torch.int64), None, r"\(\.\.\., V\) and \(\.\.\.\), got \(3, 5, 7\) and \(3, 4\)"),
        (torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, 5, dtype=torch.bool), "at least one True"),
        (torch.zeros(3, 5, dtype=torch.int64), torch.ones(3, 5), "mask must be boolean.*float32"),
        (torch.zeros(3, 5, dtype=torch.int64), torch.ones(3, 1, dtype=torch.bool), r"shaped like targets.*\(3, 1\)"),
    ],
)
def test_masked_cross_entropy_says_what_came_and_what_was_wanted(targets, mask, words):
    with pytest.raises(ValueError, match=words):
        masked_cross_entropy(torch.zeros(3, 5, 7), targets, mask=mask)
