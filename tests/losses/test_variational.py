"""The pieces of the evidence lower bound against torch.distributions, at extremes, in half precision."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from course_utils.losses import (
    bernoulli_log_likelihood,
    categorical_log_likelihood,
    free_bits,
    gaussian_log_likelihood,
    kl_to_standard_normal,
)

WORDS = torch.tensor([[0, 1, 2], [3, 4, 0]])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_is_that_of_torch_distributions_unit_by_unit():
    mu, log_var = 3 * draw(6, 4), 3 * draw(6, 4, seed=1)
    expected = kl_divergence(Normal(mu, (0.5 * log_var).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mu, log_var), expected)


def test_kl_is_zero_at_the_prior_only_and_never_negative_close_to_it():
    assert kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)).eq(0).all()
    near = torch.linspace(-1e-3, 1e-3, 101)[:, None]
    kl = kl_to_standard_normal(torch.zeros_like(near), near)
    assert (kl >= 0).all()
    torch.testing.assert_close(kl, near**2 / 4, rtol=1e-3, atol=1e-9)


def test_kl_at_extreme_log_variances_is_finite_with_its_gradient():
    log_var = torch.tensor([[-200.0, -30.0, 30.0, 80.0]], requires_grad=True)
    kl = kl_to_standard_normal(torch.zeros(1, 4), log_var)
    kl.sum().backward()
    assert kl[0, 0].item() == pytest.approx(0.5 * (200 - 1))
    assert kl.isfinite().all()
    assert log_var.grad.isfinite().all()


def test_gaussian_log_likelihood_is_that_of_torch_distributions_for_one_variance_or_many():
    x, mu = draw(5, 2, 3), draw(5, 2, 3, seed=1)
    for log_var in (draw(5, 2, 3, seed=2), draw(2, 3, seed=3), torch.tensor(-1.5, dtype=torch.float64)):
        expected = Normal(mu, (0.5 * log_var).exp()).log_prob(x).sum((1, 2))
        torch.testing.assert_close(gaussian_log_likelihood(x, mu, log_var), expected)


def test_bernoulli_log_likelihood_is_that_of_torch_distributions():
    logits = 4 * draw(5, 2, 3)
    x = (draw(5, 2, 3, seed=1) > 0).double()
    torch.testing.assert_close(bernoulli_log_likelihood(x, logits), Bernoulli(logits=logits).log_prob(x).sum((1, 2)))


def test_a_grey_pixel_counts_as_the_mean_over_black_and_white():
    logits, x = draw(1, 3), torch.full((1, 3), 0.3, dtype=torch.float64)
    white, black = (bernoulli_log_likelihood(torch.full_like(x, value), logits) for value in (1, 0))
    torch.testing.assert_close(bernoulli_log_likelihood(x, logits), 0.3 * white + 0.7 * black)


def test_certain_logits_cost_what_they_should_and_stay_finite():
    value = bernoulli_log_likelihood(torch.tensor([[1.0, 1.0]]), torch.tensor([[1e4, -1e4]]))
    assert value.item() == pytest.approx(-1e4)


def test_categorical_log_likelihood_sums_log_softmax_over_the_places_that_count():
    logits, x = 3 * draw(4, 5, 7), torch.randint(7, (4, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.rand(4, 5, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[3] = False
    for counts in (None, mask):
        value = categorical_log_likelihood(x, logits, mask=counts)
        for i in range(4):
            expected = 0.0
            for t in range(5):
                if counts is None or counts[i, t]:
                    scores = logits[i, t].tolist()
                    expected += scores[x[i, t]] - math.log(sum(math.exp(score) for score in scores))
            assert value[i].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_what_is_masked_out_of_a_sentence_has_no_gradient_and_may_be_anything():
    logits, x = draw(2, 3, 4).requires_grad_(), torch.tensor([[0, 1, 2], [3, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    categorical_log_likelihood(x, logits, mask=mask).sum().backward()
    assert (logits.grad[~mask] == 0).all()
    assert logits.grad[mask].abs().amin() > 0
    infinite = logits.detach().masked_fill(~mask[:, :, None], -math.inf)
    assert categorical_log_likelihood(x, infinite, mask=mask).isfinite().all()


def test_free_bits_charges_at_least_the_minimum_a_unit_and_frees_the_gradient_below():
    kl = torch.tensor([[0.1, 2.0], [0.3, 4.0]], requires_grad=True)
    value = free_bits(kl, 0.5)
    value.backward()
    assert value.item() == pytest.approx(0.5 + 3.0)
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]
    assert free_bits(kl, 0).item() == pytest.approx(kl.sum(1).mean().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    mu, log_var = draw(4, 30).to(dtype), draw(4, 30, seed=1).to(dtype)
    x = torch.rand(4, 30, generator=torch.Generator().manual_seed(2)).to(dtype)
    for function, args in [
        (kl_to_standard_normal, (mu, log_var)),
        (gaussian_log_likelihood, (x, mu, log_var)),
        (bernoulli_log_likelihood, (x, mu)),
    ]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = function(*args)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, function(*(part.double() for part in args)).float(), rtol=1e-5, atol=1e-5)
    words = torch.arange(4)[:, None]
    value = categorical_log_likelihood(words, mu[:, None])
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), categorical_log_likelihood(words, mu[:, None].double()))


@pytest.mark.parametrize("function", [kl_to_standard_normal, lambda m, v: gaussian_log_likelihood(draw(3, 2), m, v)])
def test_gradients_are_those_of_the_value(function):
    mu, log_var = draw(3, 2, seed=1).requires_grad_(), draw(3, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(function, (mu, log_var))


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: kl_to_standard_normal(torch.rand(2, 3), torch.rand(2, 2)), ValueError, r"\(2, 3\) and \(2, 2\)"),
        (lambda: kl_to_standard_normal(torch.ones(2, 3).long(), torch.rand(2, 3)), TypeError, "mu.*int64"),
        (lambda: gaussian_log_likelihood(torch.rand(2, 3), torch.rand(3, 2), torch.rand(1)), ValueError, "x and mu"),
        (lambda: gaussian_log_likelihood(*torch.rand(2, 2, 3), torch.rand(2)), ValueError, r"log_var.*\(2, 3\).*\(2,"),
        (lambda: bernoulli_log_likelihood(torch.rand(2, 3), torch.rand(2, 4)), ValueError, "x and logits"),
        (lambda: bernoulli_log_likelihood(2 + torch.rand(2, 3), torch.rand(2, 3)), ValueError, r"\[0, 1\].*from 2"),
        (lambda: bernoulli_log_likelihood(torch.full((1, 2), math.nan), torch.rand(1, 2)), ValueError, "nan"),
        (lambda: categorical_log_likelihood(WORDS, torch.rand(2, 4, 5)), ValueError, r"\(2, 3\) and \(2, 4, 5\)"),
        (lambda: categorical_log_likelihood(WORDS.int(), torch.rand(2, 3, 5)), ValueError, "got torch.int32"),
        (lambda: categorical_log_likelihood(WORDS, torch.rand(2, 3)), ValueError, r"and \(2, 3\)$"),
        (lambda: categorical_log_likelihood(WORDS, torch.ones(2, 3, 5).long()), TypeError, "logits.*int64"),
        (lambda: categorical_log_likelihood(WORDS, torch.rand(2, 3, 5), mask=WORDS), ValueError, "mask.*int64"),
        (lambda: categorical_log_likelihood(WORDS, torch.rand(2, 3, 5), mask=WORDS[0] > 0), ValueError, r"bool \(3,\)"),
        (lambda: free_bits(torch.rand(3), 0.1), ValueError, r"\(N, D\).*\(3,\)"),
        (lambda: free_bits(torch.rand(3, 2), -0.1), ValueError, "minimum.*-0.1"),
        (lambda: free_bits(torch.rand(3, 2), math.nan), ValueError, "minimum.*nan"),
    ],
)
def test_bad_input_is_named(call, error, named):
    with pytest.raises(error, match=named):
        call()
