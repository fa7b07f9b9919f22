"""Redundancy reduction against numpy and loops in float64, what it is worth at collapse, and its refusals."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.losses import barlow_twins, covariance, invariance, variance, vicreg, whiten, whitening_mse


def draw(n, d, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=rng, dtype=dtype) for _ in range(2))


shapes = st.tuples(st.integers(3, 9), st.integers(1, 5), st.integers(0, 2**31))
LOSSES = {
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
    "whitening_mse": functools.partial(whitening_mse, eps=1e-4),
    "whitening_mse_euclidean": functools.partial(whitening_mse, normalize=False, eps=1e-4),
    "invariance": invariance,
    "variance": lambda z1, z2: variance(z1, gamma=3.0) + variance(z2, gamma=3.0),
    "covariance": lambda z1, z2: covariance(z1) + covariance(z2),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
def test_it_has_the_gradient_of_its_value(loss):
    z1, z2 = (part.requires_grad_() for part in draw(8, 3))
    assert torch.autograd.gradcheck(loss, (z1, z2))


@every_loss
def test_half_precision_is_widened_and_gets_its_gradient_back(loss):
    for dtype in (torch.bfloat16, torch.float16):
        z1, z2 = (part.to(dtype).requires_grad_() for part in draw(32, 4))
        value = loss(z1, z2)
        value.backward()
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(loss(z1.detach().double(), z2.detach().double()).item(), rel=1e-4)
        assert z1.grad.dtype == dtype
        assert z1.grad.isfinite().all()
        assert z1.grad.abs().sum() > 0


@every_loss
def test_autocast_is_ignored_and_inputs_are_left_alone(loss):
    z1, z2 = draw(8, 4, dtype=torch.float32)
    before = z1.clone(), z2.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(z1, z2)
    assert torch.equal(inside, loss(z1, z2))
    assert torch.equal(z1, before[0])
    assert torch.equal(z2, before[1])


@every_loss
def test_views_may_change_places_and_images_their_order(loss):
    z1, z2 = draw(9, 4)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss(z2, z1), loss(z1, z2))
    torch.testing.assert_close(loss(z1[order], z2[order]), loss(z1, z2))


@every_loss
def test_a_constant_added_to_both_views_changes_nothing(loss):
    z1, z2 = draw(9, 4)
    torch.testing.assert_close(loss(z1 + 2.5, z2 + 2.5), loss(z1, z2))


@every_loss
def test_collapse_and_dead_projections_have_finite_gradients(loss):
    for value in (0.0, 3.0):
        z1 = torch.full((8, 4), value, requires_grad=True)
        z2 = torch.full((8, 4), value, requires_grad=True)
        loss(z1, z2).backward()
        assert z1.grad.isfinite().all()
        assert z2.grad.isfinite().all()


@pytest.mark.parametrize("loss", [barlow_twins, vicreg])
def test_a_value_that_is_not_finite_shows(loss):
    for bad in (math.nan, math.inf):
        z1, z2 = draw(6, 3)
        z2[1, 2] = bad
        assert not loss(z1, z2).isfinite()


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg", "whitening_mse", "invariance"])
@pytest.mark.parametrize(
    ("z1", "z2", "error", "named"),
    [
        (torch.rand(4, 3), torch.rand(4, 2), ValueError, r"z1 and z2.*\(4, 3\) and \(4, 2\)"),
        (torch.rand(4), torch.rand(4), ValueError, r"\(4,\) and \(4,\)"),
        (torch.rand(0, 3), torch.rand(0, 3), ValueError, "at least .* pairs.*0"),
        (torch.ones(4, 3, dtype=torch.int64), torch.rand(4, 3), TypeError, "z1.*int64"),
        (torch.rand(4, 3), [[1.0]], TypeError, "z2.*list"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(name, z1, z2, error, named):
    with pytest.raises(error, match=named):
        LOSSES[name](z1, z2)


@pytest.mark.parametrize("loss", [variance, covariance, whiten])
@pytest.mark.parametrize(
    ("z", "error", "named"),
    [
        (torch.rand(1, 3), ValueError, r"N at least 2, or nothing varies across the batch; got \(1, 3\)"),
        (torch.rand(4), ValueError, r"\(N, D\).*got \(4,\)"),
        (torch.ones(4, 3, dtype=torch.int64), TypeError, "z.*int64"),
        ([[1.0], [2.0]], TypeError, "z.*list"),
    ],
)
def test_batches_that_do_not_fit_are_refused(loss, z, error, named):
    with pytest.raises(error, match=named):
        loss(z)


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (barlow_twins, {"lambda_": -0.1}),
        (barlow_twins, {"lambda_": math.nan}),
        (vicreg, {"sim_weight": -1.0}),
        (vicreg, {"var_weight": -1.0}),
        (vicreg, {"cov_weight": math.nan}),
    ],
)
def test_negative_weights_are_refused(loss, options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} must not be negative, got {value}"):
        loss(*draw(4, 3), **options)


# --- Barlow Twins


def barlow_twins_by_loops(z1, z2, lambda_):
    """Zbontar et al. 2021, equations 1 and 2, one correlation at a time."""
    a, b = (np.asarray(z, np.float64) - np.asarray(z, np.float64).mean(0) for z in (z1, z2))
    total = 0.0
    for i, j in itertools.product(range(a.shape[1]), repeat=2):
        c = sum(a[:, i] * b[:, j]) / (math.sqrt(sum(a[:, i] ** 2)) * math.sqrt(sum(b[:, j] ** 2)))
        total += (1 - c) ** 2 if i == j else lambda_ * c**2
    return total


@settings(deadline=None, max_examples=40)
@given(shapes, st.sampled_from([0.0, 5e-3, 1.0, 20.0]))
def test_barlow_twins_is_equation_1(shape, lambda_):
    z1, z2 = draw(*shape)
    expected = barlow_twins_by_loops(z1, z2, lambda_)
    assert barlow_twins(z1, z2, lambda_=lambda_).item() == pytest.approx(expected, rel=1e-9)


def test_barlow_twins_has_the_papers_weight_unless_told():
    z1, z2 = draw(6, 4)
    assert torch.equal(barlow_twins(z1, z2), barlow_twins(z1, z2, lambda_=0.005))


def test_barlow_twins_does_not_see_scale_or_shift_of_any_dimension_of_either_view():
    z1, z2 = draw(9, 4)
    scale = torch.tensor([0.01, 1.0, 7.0, 1000.0], dtype=torch.float64)
    torch.testing.assert_close(barlow_twins(z1 * scale + 3, z2 / scale - scale), barlow_twins(z1, z2))


@pytest.mark.parametrize("d", [1, 4, 9])
def test_barlow_twins_of_a_collapsed_representation_is_the_number_of_dimensions(d):
    z = torch.ones(6, d)
    assert barlow_twins(z, z, lambda_=0.3).item() == pytest.approx(d)


def test_barlow_twins_is_zero_for_agreeing_uncorrelated_dimensions_and_counts_copies():
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))  # (8, 3): uncorrelated
    assert barlow_twins(signs, signs).item() == pytest.approx(0, abs=1e-9)
    copies = signs[:, [0, 0, 0]]
    assert barlow_twins(copies, copies, lambda_=0.1).item() == pytest.approx(0.1 * 6)
    assert barlow_twins(signs, -signs).item() == pytest.approx(4 * 3)


# --- VICReg


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_invariance_is_equation_5_over_the_number_of_dimensions(shape):
    z1, z2 = draw(*shape)
    equation_5 = sum(((a - b) ** 2).sum().item() for a, b in zip(z1, z2, strict=True)) / len(z1)
    assert z1.shape[1] * invariance(z1, z2).item() == pytest.approx(equation_5)


@settings(deadline=None, max_examples=40)
@given(shapes, st.sampled_from([(1.0, 1e-4), (0.3, 0.1), (2.0, 0.0)]))
def test_variance_is_equations_1_and_2(shape, options):
    gamma, eps = options
    z, _ = draw(*shape)
    z = z * torch.linspace(0.2, 2, z.shape[1], dtype=z.dtype)
    stds = [math.sqrt(np.var(z[:, j].numpy(), ddof=1) + eps) for j in range(z.shape[1])]
    expected = sum(max(0, gamma - std) for std in stds) / len(stds)
    assert variance(z, gamma=gamma, eps=eps).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_variance_asks_nothing_more_of_dimensions_that_vary_enough():
    z = 5 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    assert variance(z).item() == 0
    assert variance(z, gamma=100.0).item() > 90


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_covariance_is_equations_3_and_4(shape):
    z, _ = draw(*shape)
    x = z.numpy() - z.numpy().mean(0)
    n, d = x.shape
    pairs = [(i, j) for i, j in itertools.product(range(d), repeat=2) if i != j]
    expected = sum((sum(x[:, i] * x[:, j]) / (n - 1)) ** 2 for i, j in pairs) / d
    assert covariance(z).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=25)
@given(shapes, st.tuples(*3 * [st.sampled_from([0.0, 0.5, 25.0])]))
def test_vicreg_is_equation_6(shape, weights):
    z1, z2 = draw(*shape)
    sim, var, cov = weights
    expected = sim * invariance(z1, z2) + var * (variance(z1) + variance(z2)) + cov * (covariance(z1) + covariance(z2))
    torch.testing.assert_close(vicreg(z1, z2, sim_weight=sim, var_weight=var, cov_weight=cov), expected)


def test_vicreg_has_the_papers_weights_and_passes_gamma_and_eps_on():
    z1, z2 = draw(6, 4)
    torch.testing.assert_close(vicreg(z1, z2), vicreg(z1, z2, sim_weight=25.0, var_weight=25.0, cov_weight=1.0))
    only = {"sim_weight": 0.0, "var_weight": 1.0, "cov_weight": 0.0, "gamma": 3.0, "eps": 0.5}
    expected = variance(z1, gamma=3.0, eps=0.5) + variance(z2, gamma=3.0, eps=0.5)
    torch.testing.assert_close(vicreg(z1, z2, **only), expected)


def test_vicreg_at_collapse_is_its_variance_term_alone_and_without_that_term_collapse_is_free():
    z = torch.full((8, 5), 2.0)
    assert vicreg(z, z).item() == pytest.approx(2 * 25 * (1 - 0.01))
    assert vicreg(z, z, var_weight=0.0).item() == 0


def test_the_variance_terms_gradient_grows_as_a_dimension_dies():
    """That is what the root is for (§4.1 of the paper): a hinge on the variance itself would let it die."""
    z, _ = draw(8, 1)
    slopes = []
    for scale in (1.0, 0.1, 0.02):
        x = (scale * 0.5 * z / z.std()).requires_grad_()
        variance(x, eps=1e-8).backward()
        slopes.append(x.grad.norm().item())
    assert slopes[1] == pytest.approx(slopes[0], rel=1e-3)
    assert slopes[2] == pytest.approx(slopes[0], rel=1e-3)


# --- W-MSE


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 2**31))
def test_whitened_batches_have_mean_zero_and_the_identity_as_covariance(d, more, seed):
    z, _ = draw(d + more, d, seed)
    w = whiten(z @ torch.linspace(0.5, 3, d, dtype=z.dtype).diag() + 4).numpy()
    np.testing.assert_allclose(w.mean(0), 0, atol=1e-7)
    np.testing.assert_allclose(np.atleast_2d(np.cov(w.T)), np.eye(d), atol=1e-6)


def test_whitening_is_by_the_inverse_of_the_lower_cholesky_factor():
    z, _ = draw(9, 4)
    factor = np.linalg.cholesky(np.cov(z.numpy().T))
    expected = (z.numpy() - z.numpy().mean(0)) @ np.linalg.inv(factor).T
    np.testing.assert_allclose(whiten(z), expected, rtol=1e-9, atol=1e-12)
    shrunk = np.linalg.cholesky(0.9 * np.cov(z.numpy().T) + 0.1 * np.eye(4))
    expected = (z.numpy() - z.numpy().mean(0)) @ np.linalg.inv(shrunk).T
    np.testing.assert_allclose(whiten(z, eps=0.1), expected, rtol=1e-9, atol=1e-12)


def whitening_mse_by_numpy(z1, z2, rows, eps, normalize):
    """Ermolov et al. 2021, equations 2 to 5, for blocks given by their rows: the squared distance, a dimension's mean
    for vectors as they are, and the sum for unit vectors."""
    distances = []
    for block in rows:
        unit = []
        for z in (z1.numpy()[block], z2.numpy()[block]):
            mu = z.mean(0)
            sigma = sum(np.outer(v - mu, v - mu) for v in z) / (len(z) - 1)
            w = np.linalg.inv(np.linalg.cholesky((1 - eps) * sigma + eps * np.eye(z.shape[1])))
            white = np.array([w @ (v - mu) for v in z])
            scale = np.linalg.norm(white, axis=1, keepdims=True) if normalize else np.sqrt(z.shape[1])
            unit.append(white / scale)
        distances += [((a - b) ** 2).sum() for a, b in zip(*unit, strict=True)]
    return np.mean(distances)


@pytest.mark.parametrize(
    ("sub_batch", "rows"),
    [
        (None, [range(12)]),
        (12, [range(12)]),
        (7, [range(12)]),  # a second block would be too small
        (6, [range(6), range(6, 12)]),
        (4, [range(4), range(4, 8), range(8, 12)]),
        (5, [range(6), range(6, 12)]),
    ],
)
@pytest.mark.parametrize("eps", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("normalize", [True, False])
def test_whitening_mse_is_equation_2_in_blocks(sub_batch, rows, eps, normalize):
    z1, z2 = draw(12, 3)
    expected = whitening_mse_by_numpy(z1, z2, rows, eps, normalize)
    loss = whitening_mse(z1, z2, sub_batch=sub_batch, normalize=normalize, eps=eps)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_outliers_that_carry_the_variance_are_cheap_for_directions_and_dear_for_rows_as_they_are():
    """Most rows share one point, so most directions agree, though the few rows that vary have nothing in common."""
    z1, z2 = draw(200, 3)
    rest = torch.arange(200) >= 10
    z1[rest], z2[rest] = 1e-3 * z1[rest], 1e-3 * z2[rest]
    z1[~rest], z2[~rest] = z1[~rest] + 3, z2[~rest] + 3  # the mean's direction is what the rest is left with
    assert whitening_mse(z1, z2) < 0.2
    assert whitening_mse(z1, z2, normalize=False) > 0.5


def test_whitening_mse_shrinks_nothing_unless_told():
    z1, z2 = draw(12, 3)
    assert torch.equal(whitening_mse(z1, z2), whitening_mse(z1, z2, eps=0.0))


def test_whitening_lets_no_direction_vanish_and_shrinkage_does():
    """Views that agree in one direction and differ in two that hardly vary: ε is what makes these two cheap."""
    z1, z2 = draw(200, 3)
    z2[:, 0] = z1[:, 0]
    tiny = torch.tensor([1.0, 1e-4, 1e-4], dtype=torch.float64)
    assert whitening_mse(z1 * tiny, z2 * tiny) == pytest.approx(whitening_mse(z1, z2).item(), rel=1e-6)
    assert whitening_mse(z1, z2) > 0.9
    assert whitening_mse(z1 * tiny, z2 * tiny, eps=1e-3) < 0.05


def test_whitening_of_float32_survives_a_covariance_that_is_nearly_singular():
    z, _ = draw(50, 3)
    nearly = torch.stack([z[:, 0], z[:, 0] + 3e-5 * z[:, 1], z[:, 2]], 1)
    w = whiten(nearly.float())
    assert w.dtype == torch.float32
    torch.testing.assert_close(w.double().T.cov(), torch.eye(3, dtype=torch.float64), atol=1e-4, rtol=0)


def test_whitening_mse_is_zero_for_agreeing_views_and_about_two_for_unrelated_ones():
    z1, _ = draw(4000, 3)
    z2, _ = draw(4000, 3, seed=1)
    assert whitening_mse(z1, z1).item() == pytest.approx(0, abs=1e-9)
    assert whitening_mse(z1, z2).item() == pytest.approx(2, abs=0.1)
    assert whitening_mse(z1, z1, normalize=False).item() == pytest.approx(0, abs=1e-9)
    assert whitening_mse(z1, z2, normalize=False).item() == pytest.approx(2, abs=0.1)


def test_whitening_mse_does_not_see_scale_shift_or_triangular_mixing():
    """A lower triangular mixing is what Cholesky whitening undoes exactly, whatever the other view went through."""
    z1, z2 = draw(12, 3)
    mix = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.1, 0.0], [-3.0, 0.5, 5.0]], dtype=torch.float64)
    expected = whitening_mse(z1, z2, eps=0.0)
    torch.testing.assert_close(whitening_mse(z1 @ mix.T + 1, 5 * z2, eps=0.0), expected)


def test_whitening_mse_of_a_collapsed_representation_is_two():
    z = torch.ones(8, 3)
    assert whitening_mse(z, z, eps=1e-6).item() == pytest.approx(2)
    with pytest.raises(ValueError, match="no inverse"):
        whitening_mse(z, z)


@pytest.mark.parametrize("sub_batch", [3, 2, 0, 13])
def test_blocks_that_cannot_be_whitened_are_refused(sub_batch):
    with pytest.raises(ValueError, match=rf"more than the 3 dimensions and at most the 12 rows, got {sub_batch}"):
        whitening_mse(*draw(12, 3), sub_batch=sub_batch)


def test_whitening_needs_more_rows_than_dimensions_and_an_inverse():
    z, _ = draw(4, 4)
    with pytest.raises(ValueError, match="whitening 4 dimensions takes more than 4 rows, got 4"):
        whiten(z)
    with pytest.raises(ValueError, match=r"no inverse.*collapsed.*eps=1e-6"):
        whiten(torch.ones(6, 3))
    with pytest.raises(ValueError, match=r"no inverse.*not finite"):
        whiten(torch.full((6, 3), math.nan))
    assert torch.equal(whiten(torch.ones(6, 3), eps=1e-4), torch.zeros(6, 3))
    for eps in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=f"eps must lie between 0 and 1, got {eps}"):
            whiten(draw(6, 3)[0], eps=eps)
