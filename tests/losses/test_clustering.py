"""Sinkhorn's codes, swapped prediction and DINO's loss against loops in float64, their limits and refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.losses import dino, sinkhorn, swapped_prediction


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def codes_of(b, k, seed=0):
    return draw(b, k, seed=seed).softmax(1)


def sinkhorn_by_loops(scores, epsilon, iterations):
    """Caron et al. 2020, appendix A.1, with Q the K×B matrix of the paper and plain exponentials."""
    b, k = len(scores), len(scores[0])
    q = [[math.exp(scores[i][j] / epsilon) for i in range(b)] for j in range(k)]
    for _ in range(iterations):
        for j in range(k):
            total = sum(q[j])
            q[j] = [value / total / k for value in q[j]]
        for i in range(b):
            total = sum(q[j][i] for j in range(k))
            for j in range(k):
                q[j][i] /= total * b
    return [[q[j][i] / sum(q[m][i] for m in range(k)) for j in range(k)] for i in range(b)]


shapes = st.tuples(st.integers(1, 7), st.integers(1, 6), st.integers(0, 2**31))


# --- sinkhorn


@settings(deadline=None, max_examples=30)
@given(shapes, st.sampled_from([0.05, 0.5, 5.0]), st.integers(0, 5))
def test_sinkhorn_is_the_papers_algorithm(shape, epsilon, iterations):
    b, k, seed = shape
    scores = draw(b, k, seed=seed)
    expected = torch.tensor(sinkhorn_by_loops(scores.tolist(), epsilon, iterations), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(scores, epsilon=epsilon, iterations=iterations), expected)


@settings(deadline=None, max_examples=20)
@given(shapes)
def test_sinkhorn_gives_every_image_one_code_and_every_prototype_its_share(shape):
    b, k, seed = shape
    q = sinkhorn(draw(b, k, seed=seed), epsilon=1.0, iterations=200)
    assert (q >= 0).all()
    torch.testing.assert_close(q.sum(1), torch.ones(b, dtype=torch.float64))
    torch.testing.assert_close(q.sum(0), torch.full((k,), b / k, dtype=torch.float64))


def test_sinkhorn_approaches_even_shares_with_every_iteration():
    scores = draw(12, 4)
    uneven = [(sinkhorn(scores, epsilon=0.5, iterations=i).sum(0) - 3).abs().max().item() for i in (0, 1, 3, 10, 100)]
    assert uneven == sorted(uneven, reverse=True)
    assert uneven[-1] < 1e-6 < 1 < uneven[0]


def test_sinkhorn_has_the_form_of_equation_5():
    """log q − scores / ε is a number for the image plus a number for the prototype: its double differences vanish."""
    scores = draw(6, 4)
    remainder = sinkhorn(scores, epsilon=0.7, iterations=9).log() - scores / 0.7
    centred = remainder - remainder.mean(0) - remainder.mean(1, keepdim=True) + remainder.mean()
    torch.testing.assert_close(centred, torch.zeros_like(centred))


def test_sinkhorn_maximises_equation_3_among_all_even_shares():
    scores, epsilon = draw(4, 4), 0.3
    q = sinkhorn(scores, epsilon=epsilon, iterations=500)

    def objective(q):
        return (q * scores).sum() + epsilon * torch.special.entr(q).sum()

    for seed in range(50):
        step = draw(4, 4, seed=seed + 1)
        step = step - step.mean(0) - step.mean(1, keepdim=True) + step.mean()  # keeps all sums
        moved = q + 0.5 * (q / step.abs()).min() * step
        assert objective(moved) < objective(q)


def test_sinkhorn_with_little_smoothing_solves_the_assignment_problem():
    from scipy.optimize import linear_sum_assignment

    for seed in range(5):
        scores = draw(6, 6, seed=seed)
        _, columns = linear_sum_assignment(scores.numpy(), maximize=True)
        q = sinkhorn(scores, epsilon=0.005, iterations=5000)
        assert q.argmax(1).tolist() == columns.tolist()


def test_sinkhorn_shares_out_images_that_are_all_alike():
    scores = draw(1, 5).repeat(10, 1)
    q = sinkhorn(scores, epsilon=0.05, iterations=1)
    torch.testing.assert_close(q, torch.full_like(q, 1 / 5))
    assert sinkhorn(scores, epsilon=0.05, iterations=0).max() > 0.9


def test_sinkhorn_without_iterations_is_a_softmax():
    scores = draw(5, 3)
    torch.testing.assert_close(sinkhorn(scores, epsilon=0.2, iterations=0), (scores / 0.2).softmax(1))


@settings(deadline=None, max_examples=15)
@given(shapes)
def test_sinkhorn_ignores_what_is_added_for_an_image_or_a_prototype_and_follows_their_order(shape):
    b, k, seed = shape
    scores = draw(b, k, seed=seed)
    q = sinkhorn(scores, epsilon=0.5, iterations=300)
    torch.testing.assert_close(
        sinkhorn(scores + draw(1, k) + draw(b, 1), epsilon=0.5, iterations=300), q, atol=1e-5, rtol=0
    )
    rows, columns = torch.randperm(b), torch.randperm(k)
    torch.testing.assert_close(sinkhorn(scores[rows][:, columns], epsilon=0.5, iterations=300), q[rows][:, columns])


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 0.05, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sinkhorn_is_finite_at_every_epsilon(epsilon, dtype):
    scores = draw(64, 32).tanh().to(dtype)
    q = sinkhorn(scores, epsilon=epsilon, iterations=3)
    assert q.dtype == torch.float32
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    if epsilon == 1e6:
        torch.testing.assert_close(q, torch.full_like(q, 1 / 32), rtol=1e-4, atol=0)


def test_sinkhorn_lets_no_gradient_through_and_leaves_the_scores_alone():
    scores = draw(4, 3).requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn(scores, epsilon=0.1, iterations=3).requires_grad
    assert torch.equal(scores.detach(), before)


@pytest.mark.parametrize(
    ("scores", "options", "error", "named"),
    [
        (draw(4), {}, ValueError, r"scores must have shape \(B, K\).*\(4,\)"),
        (draw(0, 3), {}, ValueError, r"\(0, 3\)"),
        (torch.ones(2, 2, dtype=torch.int64), {}, TypeError, "scores.*int64"),
        (draw(4, 3), {"epsilon": 0}, ValueError, "epsilon must be positive, got 0"),
        (draw(4, 3), {"iterations": -1}, ValueError, "iterations must be a whole number, at least 0, got -1"),
        (draw(4, 3), {"iterations": 1.5}, ValueError, "iterations.*1.5"),
    ],
)
def test_sinkhorn_says_what_came_and_what_was_wanted(scores, options, error, named):
    with pytest.raises(error, match=named):
        sinkhorn(scores, **{"epsilon": 0.05, "iterations": 3} | options)


# --- swapped prediction


def cross_entropy_by_loops(q, scores, temperature):
    """−Σ q log softmax(scores / τ), the mean over rows, in float64."""
    q, scores = np.asarray(q, np.float64), np.asarray(scores, np.float64) / temperature
    total = 0.0
    for target, row in zip(q, scores, strict=True):
        log_sum = row.max() + math.log(sum(math.exp(value - row.max()) for value in row))
        total -= sum(target[k] * (row[k] - log_sum) for k in range(len(row)))
    return total / len(q)


@settings(deadline=None, max_examples=30)
@given(shapes, st.sampled_from([0.01, 0.1, 1.0, 20.0]))
def test_swapped_prediction_is_half_the_sum_of_equation_1(shape, temperature):
    b, k, seed = shape
    t, s, q_t, q_s = draw(b, k, seed=seed), draw(b, k, seed=seed + 1), codes_of(b, k, seed), codes_of(b, k, seed + 2)
    expected = cross_entropy_by_loops(q_s, t, temperature) + cross_entropy_by_loops(q_t, s, temperature)
    loss = swapped_prediction(t, s, q_t, q_s, temperature=temperature)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-9, abs=1e-12)


def test_swapped_prediction_does_swap():
    t, s = 5 * torch.eye(3).double(), 5 * torch.eye(3).roll(1, 0).double()
    q_t, q_s = t / 5, s / 5
    assert swapped_prediction(s, t, q_t, q_s, temperature=0.1) < 1e-6
    assert swapped_prediction(t, s, q_t, q_s, temperature=0.1) > 10


def test_swapped_prediction_of_collapsed_scores_is_the_log_of_the_number_of_prototypes():
    same = torch.ones(6, 5, dtype=torch.float64)
    q = sinkhorn(same, epsilon=0.05, iterations=3)
    assert swapped_prediction(same, same, q, q, temperature=0.1).item() == pytest.approx(math.log(5))


def test_swapped_prediction_sends_gradients_to_the_scores_and_none_to_the_codes():
    t, s = draw(4, 3).requires_grad_(), draw(4, 3, seed=1).requires_grad_()
    q_t, q_s = codes_of(4, 3).requires_grad_(), codes_of(4, 3, seed=1).requires_grad_()
    swapped_prediction(t, s, q_t, q_s, temperature=0.1).backward()
    expected = ((t / 0.1).softmax(1) - q_s).detach() / 0.1 / 8
    torch.testing.assert_close(t.grad, expected)
    assert s.grad.abs().sum() > 0
    assert q_t.grad is None
    assert q_s.grad is None


# --- dino


def options(k, student=0.1, teacher=0.04):
    return {
        "center": draw(k, seed=9),
        "student_temperature": student,
        "teacher_temperature": teacher,
    }


@settings(deadline=None, max_examples=30)
@given(shapes, st.sampled_from([0.01, 0.1, 1.0]), st.sampled_from([0.01, 0.04, 1.0]))
def test_dino_is_the_cross_entropy_of_equation_2(shape, student_temperature, teacher_temperature):
    n, k, seed = shape
    s, t, center = draw(n, k, seed=seed), draw(n, k, seed=seed + 1), draw(k, seed=seed + 2)
    centred = (t - center).numpy() / teacher_temperature
    p_t = np.exp(centred - centred.max(1, keepdims=True))
    p_t = p_t / p_t.sum(1, keepdims=True)
    temperatures = {"student_temperature": student_temperature, "teacher_temperature": teacher_temperature}
    expected = cross_entropy_by_loops(p_t, s, student_temperature)
    assert dino(s, t, center=center, **temperatures).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_dino_is_least_where_the_student_answers_as_the_teacher_and_is_then_its_entropy():
    t, center = draw(6, 5), draw(5, seed=1)
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.04}
    perfect = (t - center) / 0.04 * 0.1
    p = ((t - center) / 0.04).softmax(1)
    least = dino(perfect, t, center=center, **temperatures)
    assert least.item() == pytest.approx(torch.special.entr(p).sum(1).mean().item())
    for seed in range(30):
        assert dino(perfect + 0.1 * draw(6, 5, seed=seed), t, center=center, **temperatures) > least


def test_centring_takes_away_what_the_teacher_says_of_every_image():
    """A teacher that says the same of all images says nothing once it is centred: its target is uniform."""
    t = draw(1, 8).repeat(5, 1)
    s = draw(5, 8, seed=1).requires_grad_()
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.04}
    dino(s, t, center=t.mean(0), **temperatures).backward()
    torch.testing.assert_close(s.grad, ((s / 0.1).softmax(1) - 1 / 8).detach() / 0.1 / 5)
    uncentred = dino(s, t, center=torch.zeros(8).double(), **temperatures)
    assert uncentred.item() == pytest.approx(cross_entropy_by_loops((t / 0.04).softmax(1), s.detach(), 0.1))


def test_a_shift_of_teacher_and_centre_together_changes_nothing():
    s, t = draw(4, 6), draw(4, 6, seed=1)
    given_ = options(6)
    moved = given_ | {"center": given_["center"] + 3}
    torch.testing.assert_close(dino(s, t + 3, **moved), dino(s, t, **given_))
    torch.testing.assert_close(dino(s + 7, t, **given_), dino(s, t, **given_))


def test_a_low_teacher_temperature_sharpens_the_target():
    t = draw(4, 6)
    losses = [
        dino(t, t, **options(6, student=1.0, teacher=tau) | {"center": torch.zeros(6).double()}) for tau in (0.01, 1.0)
    ]
    assert losses[0] < losses[1]


def test_dino_sends_gradients_to_the_student_alone():
    s, t, center = (part.requires_grad_() for part in (draw(4, 6), draw(4, 6, seed=1), draw(6)))
    dino(s, t, center=center, student_temperature=0.1, teacher_temperature=0.04).backward()
    assert s.grad.abs().sum() > 0
    assert t.grad is None
    assert center.grad is None


# --- both


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_and_autocast_is_ignored(dtype):
    s, t = draw(8, 16).to(dtype), draw(8, 16, seed=1).to(dtype)
    center, q = draw(16).to(dtype), codes_of(8, 16).to(dtype)
    temperatures = {"student_temperature": 0.1, "teacher_temperature": 0.04}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = dino(s, t, center=center, **temperatures), swapped_prediction(s, t, q, q, temperature=0.1)
    exact = (
        dino(s.double(), t.double(), center=center.double(), **temperatures),
        swapped_prediction(s.double(), t.double(), q.double(), q.double(), temperature=0.1),
    )
    for loss, expected in zip(losses, exact, strict=True):
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_extreme_temperatures_stay_finite_with_their_gradients():
    s, t = draw(8, 16).float().requires_grad_(), draw(8, 16, seed=1).float().requires_grad_()
    q = codes_of(8, 16).float()
    center = torch.zeros(16)
    loss = dino(s, t, center=center, student_temperature=1e-4, teacher_temperature=1e-6)
    (loss + swapped_prediction(s, t, q, q, temperature=1e-4)).backward()
    assert loss.isfinite()
    assert s.grad.isfinite().all()
    assert t.grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(bad):
    s, t = draw(4, 3), draw(4, 3, seed=1)
    s[1, 2] = bad
    q = codes_of(4, 3)
    assert sinkhorn(s, epsilon=0.1, iterations=3).isnan().any()
    assert swapped_prediction(s, t, q, q, temperature=0.1).isnan()
    assert dino(s, t, **options(3)).isnan()
    assert dino(t, s, **options(3)).isnan()


X = draw(4, 3)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: swapped_prediction(X, X[:2], X, X, temperature=0.1), ValueError, r"one shape.*\(4, 3\), \(2, 3\)"),
        (lambda: swapped_prediction(X, X, X, X[0], temperature=0.1), ValueError, r"q_s.*\(3,\)"),
        (lambda: swapped_prediction(X, X, X, X, temperature=0), ValueError, "temperature must be positive, got 0"),
        (lambda: swapped_prediction(X, X.long(), X, X, temperature=0.1), TypeError, "scores_s.*int64"),
        (lambda: dino(X, X[:, :2], **options(3)), ValueError, r"student, teacher.*\(4, 3\), \(4, 2\)"),
        (lambda: dino(X, X, **options(4)), ValueError, r"center must have shape \(3,\), got \(4,\)"),
        (lambda: dino(X, X, **options(3, student=-1)), ValueError, "student_temperature must be positive, got -1"),
        (lambda: dino(X, X, **options(3, teacher=math.nan)), ValueError, "teacher_temperature.*nan"),
        (lambda: dino(X, [X], **options(3)), TypeError, "teacher.*list"),
    ],
)
def test_the_losses_say_what_came_and_what_was_wanted(call, error, named):
    with pytest.raises(error, match=named):
        call()
