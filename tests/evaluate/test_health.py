"""Label-free health against closed forms and double loops in float64, its invariances, and its refusals."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import hyp0f1

from course_utils.evaluate import alignment, cka, collapse, rankme, uniformity


def draw(n, d, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng, dtype=dtype)


def turned(d, seed=0):
    return torch.linalg.qr(draw(d, d, seed=seed + 1)).Q


shapes = st.tuples(st.integers(2, 9), st.integers(1, 6), st.integers(0, 1000))


# --- RankMe


def with_singular_values(values, n, d, seed=0):
    k = len(values)
    left, right = turned(n, seed)[:, :k], turned(d, seed + 5)[:, :k]
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


@pytest.mark.parametrize("r", [1, 2, 5, 8])
def test_rankme_of_r_equal_singular_values_is_r(r):
    """Up to ε: p is 1/r + ε for r of the values, and ε for the other 8 − r."""
    features = with_singular_values([3.0] * r, 20, 8)
    eps = 1e-7
    p = np.array([1 / r + eps] * r + [eps] * (8 - r))
    assert rankme(features) == pytest.approx(r, rel=2e-5)
    assert rankme(features) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)


@pytest.mark.parametrize("values", [[5.0, 1.0], [8.0, 4.0, 2.0, 1.0], [1.0, 1.0, 1e-3]])
def test_rankme_is_the_exponential_of_the_entropy_of_the_singular_values(values):
    p = np.array(values) / sum(values)
    expected = math.exp(-(p * np.log(p)).sum())
    assert rankme(with_singular_values(values, 9, 6), eps=1e-15) == pytest.approx(expected, rel=1e-9)
    assert 1 < expected < len(values)


def test_rankme_adds_epsilon_to_every_singular_value():
    p = np.array([0.5, 0.5, 0, 0]) + 0.25
    expected = math.exp(-(p * np.log(p)).sum())
    assert rankme(with_singular_values([2.0, 2.0], 7, 4), eps=0.25) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(shapes, st.sampled_from([1e-20, 1e-3, 7.0, 1e20]))
def test_rankme_does_not_change_under_rotation_scale_order_or_transposition(shape, scale):
    n, d, seed = shape
    z = draw(n, d, seed)
    expected = rankme(z)
    for other in (z @ turned(d), turned(n) @ z, scale * z, z.flip(0), z.T):
        assert rankme(other) == pytest.approx(expected, rel=1e-6)
    assert expected <= min(n, d) + 1e-4


def test_rankme_does_not_centre_and_counts_the_mean_as_a_direction():
    z = draw(200, 6)
    assert rankme(z + 100) < 1.5 < 5.5 < rankme(z)


def test_rankme_of_bfloat16_is_that_of_the_same_values():
    z = draw(50, 6).bfloat16()
    assert rankme(z) == pytest.approx(rankme(z.double()), rel=1e-9)


# --- alignment


@settings(deadline=None, max_examples=30)
@given(shapes, st.sampled_from([0.5, 1, 2, 3]))
def test_alignment_is_the_mean_power_of_the_distance_on_the_sphere(shape, alpha):
    n, d, seed = shape
    z1, z2 = draw(n, d, seed).numpy(), draw(n, d, seed + 1).numpy()
    total = 0.0
    for a, b in zip(z1, z2, strict=True):
        gap = a / math.sqrt(a @ a) - b / math.sqrt(b @ b)
        total += math.sqrt(gap @ gap) ** alpha
    assert alignment(z1, z2, alpha=alpha) == pytest.approx(total / n, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("alpha", [1, 2, 4])
def test_alignment_of_equal_orthogonal_and_opposite_views_has_its_closed_form(alpha):
    z = torch.eye(5)
    assert alignment(z, 3 * z, alpha=alpha) == 0
    assert alignment(z, z.roll(1, 0), alpha=alpha) == pytest.approx(2 ** (alpha / 2), rel=1e-6)
    assert alignment(z, -2 * z, alpha=alpha) == pytest.approx(2**alpha, rel=1e-6)


def test_alignment_of_random_directions_is_2():
    assert alignment(draw(20_000, 16), draw(20_000, 16, seed=1)) == pytest.approx(2, abs=0.02)


@settings(deadline=None, max_examples=20)
@given(shapes)
def test_alignment_is_symmetric_and_ignores_rotation_length_and_order(shape):
    n, d, seed = shape
    z1, z2 = draw(n, d, seed), draw(n, d, seed + 1)
    expected = alignment(z1, z2)
    lengths = 0.1 + draw(n, 1, seed).abs()
    for other in ((z2, z1), (z1 @ turned(d), z2 @ turned(d)), (z1 * lengths, z2 / lengths), (z1.flip(0), z2.flip(0))):
        assert alignment(*other) == pytest.approx(expected, rel=1e-9, abs=1e-12)


# --- uniformity


def uniformity_by_loops(z, t):
    z = np.asarray(z, np.float64)
    z = [row / math.sqrt(row @ row) for row in z]
    pairs = [(z[i] - z[j]) @ (z[i] - z[j]) for i in range(len(z)) for j in range(i)]
    return math.log(sum(math.exp(-t * gap) for gap in pairs) / len(pairs))


@settings(deadline=None, max_examples=40)
@given(shapes, st.sampled_from([0.1, 2, 10]), st.integers(1, 10))
def test_uniformity_is_the_log_mean_over_all_pairs_whatever_the_chunk(shape, t, chunk_size):
    z = draw(*shape)
    expected = uniformity_by_loops(z, t)
    assert uniformity(z, t=t, chunk_size=chunk_size) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2049])
def test_uniformity_is_exact_around_the_default_chunk(n):
    z = F.normalize(draw(n, 8), dim=1)
    gaps = torch.pdist(z).square()
    assert uniformity(z) == pytest.approx((-2 * gaps).exp().mean().log().item(), rel=1e-10)


@pytest.mark.parametrize("t", [0.5, 2])
def test_uniformity_of_orthogonal_antipodal_and_collapsed_rows_has_its_closed_form(t):
    assert uniformity(torch.eye(6), t=t) == pytest.approx(-2 * t, rel=1e-6)
    assert uniformity(torch.tensor([[1.0, 2.0], [-2.0, -4.0]]), t=t) == pytest.approx(-4 * t, rel=1e-6)
    cross = torch.cat([torch.eye(3), -torch.eye(3)])  # of 15 pairs, 3 are antipodal and 12 orthogonal
    expected = math.log((3 * math.exp(-4 * t) + 12 * math.exp(-2 * t)) / 15)
    assert uniformity(cross, t=t) == pytest.approx(expected, rel=1e-6)
    assert uniformity(torch.ones(5, 3), t=t) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("d", [2, 3, 16])
@pytest.mark.parametrize("t", [1, 2])
def test_uniformity_of_the_uniform_distribution_is_wang_and_isolas(d, t):
    """Their proposition 2: the limit is log(e^(−2t) · ₀F₁(; d/2; t²)), the least that any distribution reaches."""
    least = -2 * t + math.log(hyp0f1(d / 2, t**2))
    assert uniformity(draw(4000, d), t=t) == pytest.approx(least, abs=0.02)
    assert uniformity(draw(4000, d) + 1, t=t) > least + 0.05


@settings(deadline=None, max_examples=20)
@given(shapes)
def test_uniformity_ignores_rotation_length_and_order(shape):
    n, d, seed = shape
    z = draw(n, d, seed)
    expected = uniformity(z)
    for other in (z @ turned(d), z * (0.1 + draw(n, 1, seed).abs()), z.flip(0), -z):
        assert uniformity(other) == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_uniformity_of_very_distant_pairs_does_not_underflow():
    assert uniformity(torch.eye(4), t=1e4) == pytest.approx(-2e4)


# --- collapse


def test_collapse_is_the_deviation_of_the_normalised_rows_times_the_root_of_their_dimension():
    z = draw(30, 5).numpy() + 0.5
    unit = z / np.sqrt((z * z).sum(1, keepdims=True))
    assert collapse(z) == pytest.approx(np.std(unit, axis=0).mean() * math.sqrt(5), rel=1e-12)


@pytest.mark.parametrize("d", [2, 8, 64])
def test_collapse_is_0_at_a_point_and_1_on_the_whole_sphere(d):
    assert collapse(torch.rand(1, d).expand(9, d) * torch.arange(1.0, 10)[:, None]) == pytest.approx(0, abs=1e-7)
    assert collapse(torch.cat([torch.eye(d), -torch.eye(d)])) == pytest.approx(1)
    assert collapse(draw(20_000, d)) == pytest.approx(1, abs=0.01)


def test_collapse_onto_a_line_in_d_dimensions_is_1_over_the_root_of_d():
    line = torch.zeros(10, 16)
    line[:5, 3], line[5:, 3] = 1, -1
    assert collapse(line) == pytest.approx(1 / 4)


def test_collapse_grows_with_the_spread_around_a_common_direction():
    values = [collapse(torch.ones(8) + s * draw(500, 8)) for s in (0, 0.1, 0.5, 1, 10)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values[-1] > 0.95


# --- refusals


X = torch.rand(4, 3)
BAD = X.clone()
BAD[1, 2] = math.nan


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: rankme(torch.zeros(4, 3)), ValueError, "all zero"),
        (lambda: rankme(BAD), ValueError, "features must be finite, got 1 NaN or infinite of 12"),
        (lambda: rankme(X.long()), TypeError, "features must be floating point, got torch.int64"),
        (lambda: rankme(X[0]), ValueError, r"features must have shape \(N, D\), got \(3,\)"),
        (lambda: rankme(torch.rand(2, 1, 8, 8)), ValueError, r"got \(2, 1, 8, 8\); flatten"),
        (lambda: rankme(torch.rand(4, 0)), ValueError, r"1 column, got shape \(4, 0\)"),
        (lambda: alignment(X, X[:3]), ValueError, "4 and 3 rows"),
        (lambda: alignment(X, X[:, :2]), ValueError, "z2 must have 3 columns.*got 2"),
        (lambda: alignment(X, BAD), ValueError, "z2 must be finite"),
        (lambda: alignment(X, X, alpha=0), ValueError, "alpha must be positive, got 0"),
        (lambda: alignment(X, X, alpha=math.nan), ValueError, "alpha must be positive, got nan"),
        (lambda: alignment(X.long(), X), TypeError, "z1.*int64"),
        (lambda: uniformity(X[:1]), ValueError, r"z must have at least 2 rows.*\(1, 3\)"),
        (lambda: uniformity(X, t=-1), ValueError, "t must be positive, got -1"),
        (lambda: uniformity(X, chunk_size=0), ValueError, "chunk_size must be at least 1, got 0"),
        (lambda: uniformity(-X.log() / 0), ValueError, "z must be finite, got 12"),
        (lambda: collapse(BAD), ValueError, "features must be finite"),
        (lambda: collapse(X[:0]), ValueError, r"at least 1 rows.*\(0, 3\)"),
    ],
)
def test_health_says_what_came_and_what_was_wanted(call, error, named):
    with pytest.raises(error, match=named):
        call()


# --- cka


def test_cka_is_the_ratio_of_the_hsic_of_the_two_gram_matrices():
    """Kornblith et al. 2019, equations 1 and 2 with linear kernels: by N×N Gram matrices, which the code avoids."""
    x, y = draw(40, 5, seed=0), draw(40, 3, seed=1)
    y = y + x[:, :3]
    centre = np.eye(40) - 1 / 40
    k, m = (centre @ (v @ v.T).double().numpy() @ centre for v in (x, y))
    hsic = [np.trace(a @ b) for a, b in ((k, m), (k, k), (m, m))]
    assert cka(x, y) == pytest.approx(hsic[0] / np.sqrt(hsic[1] * hsic[2]), rel=1e-9)


def test_cka_does_not_see_rotation_scale_or_shift_and_falls_with_what_is_not_shared():
    x = draw(500, 6)
    assert cka(x, 7 * x @ turned(6) + 3) == pytest.approx(1)
    assert cka(x, draw(500, 6, seed=2)) < 0.05
    half = torch.cat([x[:, :3], draw(500, 3, seed=3)], 1)
    assert cka(x, half) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("other", "named"),
    [(torch.rand(3, 2), "got 4 and 3 rows"), (torch.ones(4, 2), "all features are constant"), (torch.rand(4), "other")],
)
def test_cka_says_what_came_and_what_was_wanted(other, named):
    with pytest.raises(ValueError, match=named):
        cka(torch.rand(4, 2), other)
