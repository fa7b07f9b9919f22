"""The convex solvers: stationary by autograd in float64, equal to explicit linear algebra, and honest about failure."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from course_utils.evaluate._solvers import logistic, principal_axes, ridge


def draw(n, d, classes=3, seed=0, dtype=torch.float64):
    """Overlapping classes: every label occurs, and none is a function of the features."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=rng)
    labels[:classes] = torch.arange(classes)
    x = torch.randn(n, d, generator=rng, dtype=dtype) + F.one_hot(labels, max(classes, d))[:, :d]
    return x, labels


def even(n, problems=1):
    return torch.full((n, problems), 1 / n, dtype=torch.float64)


def objective(parameters, z, labels, weight, l2):
    """Of one problem (r + 1, C), with the cross-entropy spelled out row by row."""
    logits = z @ parameters[:-1] + parameters[-1]
    losses = logits.exp().sum(1).log() - logits[torch.arange(len(z)), labels]
    return (weight * losses).sum() + l2 / 2 * parameters[:-1].square().sum()


def gradient_at(solution, z, labels, weight, l2):
    parameters = solution.clone().requires_grad_()
    objective(parameters, z, labels, weight, l2).backward()
    return parameters.grad


@pytest.mark.parametrize(("n", "d", "classes"), [(40, 3, 2), (60, 5, 4), (12, 30, 3), (200, 8, 20)])
@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
def test_the_gradient_of_the_objective_is_zero_at_the_solution(n, d, classes, l2):
    x, labels = draw(n, d, classes)
    z = principal_axes(x).z
    solution = logistic(z, labels, even(n), torch.tensor([l2], dtype=torch.float64), tolerance=1e-10)
    assert gradient_at(solution[:, 0], z, labels, even(n)[:, 0], l2).abs().max() < 2e-10


def test_no_neighbour_of_the_solution_has_a_smaller_objective():
    z, labels = draw(30, 4)
    solution = logistic(z, labels, even(30), torch.tensor([0.01], dtype=torch.float64), tolerance=1e-10)[:, 0]
    least = objective(solution, z, labels, even(30)[:, 0], 0.01)
    rng = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-1, 1):
        step = size * torch.randn(*solution.shape, generator=rng, dtype=torch.float64)
        assert objective(solution + step, z, labels, even(30)[:, 0], 0.01) > least


def test_features_need_not_be_in_principal_axes_nor_centred():
    x, labels = draw(50, 6)
    z = x @ torch.diag(torch.logspace(-1, 1, 6, dtype=torch.float64)) + 3
    solution = logistic(z, labels, even(50), torch.tensor([0.01], dtype=torch.float64), tolerance=1e-9)
    assert gradient_at(solution[:, 0], z, labels, even(50)[:, 0], 0.01).abs().max() < 2e-9


def test_many_problems_at_once_are_each_as_if_alone():
    z, labels = draw(60, 5, classes=4)
    weight = torch.rand(60, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight[:20, 1] = 0  # rows that a problem does not see
    weight /= weight.sum(0)
    l2 = torch.tensor([1e-4, 0.3, 1e-2, 30.0], dtype=torch.float64)
    together = logistic(z, labels, weight, l2, tolerance=1e-9)
    for i in range(4):
        alone = logistic(z, labels, weight[:, [i]], l2[[i]], tolerance=1e-9)
        torch.testing.assert_close(together[:, [i]], alone, rtol=1e-5, atol=1e-6)
        assert gradient_at(together[:, i], z, labels, weight[:, i], l2[i]).abs().max() < 2e-9


def test_rows_without_weight_change_nothing():
    z, labels = draw(40, 4)
    weight = torch.cat([even(30), torch.zeros(10, 1, dtype=torch.float64)])
    l2 = torch.tensor([0.01], dtype=torch.float64)
    without = logistic(z[:30], labels[:30], even(30), l2, tolerance=1e-10)
    torch.testing.assert_close(logistic(z, labels, weight, l2, tolerance=1e-10), without, rtol=1e-6, atol=1e-7)


def test_the_start_changes_the_way_and_not_the_end():
    z, labels = draw(50, 4)
    l2 = torch.tensor([0.01], dtype=torch.float64)
    cold = logistic(z, labels, even(50), l2, tolerance=1e-10)
    start = 3 * torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before = start.clone()
    torch.testing.assert_close(logistic(z, labels, even(50), l2, start=start, tolerance=1e-10), cold, rtol=0, atol=1e-7)
    assert torch.equal(start, before)


def test_the_free_bias_has_mean_zero_over_classes():
    z, labels = draw(50, 4)
    start = torch.full((5, 1, 3), 7.0, dtype=torch.float64)
    solution = logistic(z, labels, even(50), torch.tensor([0.01], dtype=torch.float64), start=start, tolerance=1e-10)
    assert solution[-1].mean().abs() < 1e-12
    assert solution[-1].abs().max() > 1e-3


def test_without_features_the_bias_is_the_logarithm_of_the_shares():
    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    solution = logistic(torch.zeros(10, 0).double(), labels, even(10), torch.ones(1).double(), tolerance=1e-12)
    torch.testing.assert_close(solution[0, 0].softmax(0), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))


@pytest.mark.parametrize("l2", [1e-6, 1e-9])
def test_separable_data_with_little_regularisation_converges_in_float64(l2):
    x, labels = draw(60, 3)
    z = principal_axes(x + 20 * F.one_hot(labels, 3)).z
    solution = logistic(z, labels, even(60), torch.tensor([l2], dtype=torch.float64), tolerance=1e-10)
    assert gradient_at(solution[:, 0], z, labels, even(60)[:, 0], l2).abs().max() < 2e-10
    assert torch.equal((z @ solution[:-1, 0] + solution[-1, 0]).argmax(1), labels)


def test_float32_stops_where_rounding_does():
    """A tolerance that single precision cannot reach ends at the solution, not at an error."""
    x, labels = draw(200, 6, dtype=torch.float32)
    l2 = torch.tensor([0.01])
    solution = logistic(x, labels, even(200).float(), l2, tolerance=0.0)
    exact = logistic(x.double(), labels, even(200), l2.double(), tolerance=1e-9)
    torch.testing.assert_close(solution.double(), exact, rtol=0, atol=2e-4)


def test_the_gradient_falls_on_where_the_objective_can_no_longer_tell():
    z, labels = draw(200, 8, classes=20)
    l2 = torch.tensor([0.01], dtype=torch.float64)
    solution = logistic(z, labels, even(200), l2, tolerance=1e-12)
    noise = torch.randn(*solution.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    again = logistic(z, labels, even(200), l2, start=solution + 1e-8 * noise, tolerance=1e-14)
    assert gradient_at(again[:, 0], z, labels, even(200)[:, 0], 0.01).abs().max() < 5e-14


def test_too_few_steps_raise_and_name_the_regularisers_that_did_not_converge():
    z, labels = draw(60, 4)
    with pytest.raises(RuntimeError, match=r"l2 = \[0\.25, 0\.125\] did not converge in 2 Newton steps.*larger l2"):
        logistic(z, labels, even(60, 2), torch.tensor([0.25, 0.125], dtype=torch.float64), tolerance=1e-12, max_steps=2)


def test_only_the_problems_that_did_not_converge_are_named():
    z, labels = draw(60, 4)
    l2 = torch.tensor([0.125, 1024.0], dtype=torch.float64)
    start = logistic(z, labels, even(60, 2), l2, tolerance=1e-12)
    start[:, 0] = 0
    with pytest.raises(RuntimeError, match=r"l2 = \[0\.125\] did"):
        logistic(z, labels, even(60, 2), l2, start=start, tolerance=1e-9, max_steps=1)


# --- ridge


def ridge_by_normal_equations(z, targets, penalty):
    """Coefficients and intercept of Σ ‖zᵢ W + b − tᵢ‖² + penalty ‖W‖², as one linear system."""
    a = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    shrink = penalty * np.eye(a.shape[1])
    shrink[-1, -1] = 0
    solution = np.linalg.solve(a.T @ a + shrink, a.T @ targets)
    return solution[:-1], solution[-1]


@pytest.mark.parametrize(("n", "d"), [(30, 4), (8, 20)])
@pytest.mark.parametrize("l2", [1e-4, 0.1, 10.0])
def test_ridge_solves_its_normal_equations_and_leaves_each_row_out(n, d, l2):
    x, _ = draw(n, d)
    axes = principal_axes(x)
    targets = torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 5
    coefficients, intercept, left_out = ridge(axes.z, axes.energy, targets, l2)
    z, t = axes.z.numpy(), targets.numpy()
    w, b = ridge_by_normal_equations(z, t, n * l2)
    np.testing.assert_allclose(coefficients, w, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(intercept, b, rtol=1e-10)
    for i in range(n):
        rest = np.arange(n) != i
        w, b = ridge_by_normal_equations(z[rest], t[rest], n * l2)
        np.testing.assert_allclose(left_out[i], z[i] @ w + b, rtol=1e-7, atol=1e-9)


# --- principal axes


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 1000))
def test_axes_are_a_rotation_of_the_standardised_features(n, d, seed):
    x, _ = draw(n, d, classes=1, seed=seed)
    x = 3 + 5 * x
    axes = principal_axes(x)
    standard = (x - x.mean(0)) / x.std(0, correction=0)
    torch.testing.assert_close(axes.z, axes.project(x))
    torch.testing.assert_close(axes.z @ axes.rotation.T, standard)
    torch.testing.assert_close(axes.z.T @ axes.z, torch.diag(axes.energy), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(axes.rotation.T @ axes.rotation, torch.eye(axes.z.shape[1]).double())
    assert axes.z.shape[1] <= min(n - 1, d)


def test_directions_without_variance_are_left_out():
    x, _ = draw(20, 3)
    twins = torch.cat([x, x[:, :2], torch.full((20, 2), 0.1)], dim=1)
    assert principal_axes(twins).z.shape == (20, 3)
    assert principal_axes(torch.full((5, 3), 0.1)).z.shape == (5, 0)
    assert principal_axes(torch.ones(1, 4)).z.shape == (1, 0)


@pytest.mark.parametrize("d", [3, 30])
def test_a_feature_that_is_constant_in_training_is_ignored_whatever_it_is_later(d):
    x, _ = draw(20, d)
    x[:, 1] = 0.1
    later, _ = draw(5, d, seed=1)
    changed = later.clone()
    changed[:, 1] = 1e30
    axes = principal_axes(x)
    assert torch.equal(axes.project(later), axes.project(changed))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_units_do_not_matter(scale):
    x, _ = draw(20, 3)
    later, _ = draw(5, 3, seed=1)
    units = torch.tensor([1.0, scale, 1.0], dtype=torch.float64)
    expected = principal_axes(x).project(later)
    got = principal_axes(x * units).project(later * units)
    torch.testing.assert_close(got @ got.T, expected @ expected.T)
