"""Probes against scikit-learn and explicit refits, what may and may not change them, and what they refuse."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import r2_score, top_k_accuracy_score

from course_utils.evaluate import label_efficiency, linear_probe, probes, regression_probe
from course_utils.evaluate.probes import L2_GRID


def classes_of(n, d, classes, seed=0, gap=1.5):
    """Gaussian classes that overlap, with balanced labels in random order; train, then test, from one distribution."""
    rng = torch.Generator().manual_seed(seed)
    centres = gap * torch.randn(classes, d, generator=rng) / math.sqrt(d) * 2
    parts = []
    for size in (n, 300):
        y = torch.randperm(size, generator=rng) % classes
        parts += [centres[y] + torch.randn(size, d, generator=rng), y]
    return parts


def binary():
    return classes_of(200, 5, 2)


def many_classes():
    return classes_of(600, 12, 20)


def wide():
    return classes_of(60, 150, 3, gap=3)


def twins_and_constants():
    x, y, test_x, test_y = classes_of(200, 5, 4)
    x, test_x = (torch.cat([part, part[:, :3], torch.full((len(part), 2), 0.1)], dim=1) for part in (x, test_x))
    return x, y, test_x, test_y


def badly_scaled():
    x, y, test_x, test_y = classes_of(200, 5, 4)
    units, origin = torch.tensor([1e-6, 1.0, 1e6, 1e3, 1e-3]), torch.tensor([0.0, 1000.0, 0.0, -5e3, 0.1])
    return x * units + origin, y, test_x * units + origin, test_y


def separable():
    return classes_of(100, 5, 3, gap=30)


PROBLEMS = [binary, many_classes, wide, twins_and_constants, badly_scaled, separable]


def standardised(train, test):
    """In float64, with the training mean and deviation; a constant column becomes zero."""
    train, test = np.asarray(train, np.float64), np.asarray(test, np.float64)
    mean, deviation = train.mean(0), train.std(0)
    deviation[deviation < 1e-9 * np.abs(mean)] = np.inf
    return (train - mean) / deviation, (test - mean) / deviation


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_the_logistic_probe_is_scikit_learns_logistic_regression(problem, l2):
    x, y, test_x, test_y = problem()
    n, classes = len(x), len(y.unique())
    z, test_z = standardised(x, test_x)
    peer = LogisticRegression(C=(2 if classes == 2 else 1) / (n * l2), tol=1e-10, max_iter=10_000).fit(z, y)
    result = linear_probe(x, y, test_x, test_y, l2=l2)
    np.testing.assert_allclose(result.scores.softmax(1), peer.predict_proba(test_z), atol=2e-3 if l2 < 1e-3 else 1e-4)
    assert result.accuracy == pytest.approx(peer.score(test_z, test_y), abs=0.005)
    assert (result.l2, result.validation_accuracy) == (l2, None)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_weight_and_bias_give_the_scores_from_the_features_as_they_are(kind):
    rng = torch.Generator().manual_seed(0)
    x = 5 + 3 * torch.randn(60, 4, generator=rng, dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1, 0.0])
    result = linear_probe(x[:40], torch.arange(40) % 3, x[40:], torch.arange(20) % 3, kind=kind)
    torch.testing.assert_close(x[40:] @ result.weight + result.bias, result.scores)


@pytest.mark.parametrize("problem", [binary, many_classes, wide])
def test_the_logistic_probe_has_scikit_learns_coefficients(problem):
    """Read off from the scores of the unit vectors, in standardised features: row i is the coefficients' i-th."""
    x, y, _, _ = problem()
    z, _ = standardised(x, x)
    units = torch.cat([torch.zeros(1, z.shape[1]), torch.eye(z.shape[1])]).double()
    scores = linear_probe(z, y, units, torch.zeros(len(units)).long(), l2=0.05).scores
    coefficients = (scores[1:] - scores[0]).T
    if len(coefficients) == 2:
        peer = LogisticRegression(C=2 / (len(z) * 0.05), tol=1e-10, max_iter=10_000).fit(z, y)
        coefficients, bias = (coefficients[1] - coefficients[0])[None], scores[0, 1:] - scores[0, :1]
    else:
        peer = LogisticRegression(C=1 / (len(z) * 0.05), tol=1e-10, max_iter=10_000).fit(z, y)
        bias = scores[0]
    np.testing.assert_allclose(coefficients, peer.coef_, atol=1e-4)
    np.testing.assert_allclose(bias, peer.intercept_, atol=1e-4)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("l2", [1e-3, 1.0])
def test_the_ridge_probe_is_scikit_learns_ridge_classifier(problem, l2):
    x, y, test_x, test_y = problem()
    z, test_z = standardised(x, test_x)
    peer = RidgeClassifier(alpha=len(x) * l2, solver="svd").fit(z, y)
    result = linear_probe(x, y, test_x, test_y, kind="ridge", l2=l2)
    scores = result.scores if len(result.classes) > 2 else result.scores[:, 1]
    np.testing.assert_allclose(scores, peer.decision_function(test_z), rtol=1e-6, atol=1e-7)
    assert result.predictions.tolist() == peer.predict(test_z).tolist()


# --- choosing the regulariser


def noisy(n=120, d=60, n_validation=100, seed=0):
    """Few labels and many useless features, so that the regulariser matters."""
    rng = torch.Generator().manual_seed(seed)
    parts = []
    for size in (n, n_validation, 200):
        x = torch.randn(size, d, generator=rng)
        parts += [x, (x[:, 0] + x[:, 1] + 1.5 * torch.randn(size, generator=rng) > 0).long()]
    return parts


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_the_regulariser_is_the_best_on_validation_and_of_equals_the_largest(kind):
    x, y, validation_x, validation_y, test_x, test_y = noisy()
    grid = [0.01, 10.0, 0.1, 1.0, 1e-3]
    by_value = {
        value: linear_probe(x, y, validation_x, validation_y, kind=kind, l2=value).accuracy for value in sorted(grid)
    }
    best = max(by_value.values())
    expected = max(value for value, accuracy in by_value.items() if accuracy == best)
    assert len(set(by_value.values())) > 2
    result = linear_probe(x, y, test_x, test_y, kind=kind, l2=grid, validation=(validation_x, validation_y))
    assert (result.l2, result.validation_accuracy) == (expected, pytest.approx(best))
    fixed = linear_probe(x, y, test_x, test_y, kind=kind, l2=expected)
    torch.testing.assert_close(result.scores, fixed.scores, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("kind", "validated"), list(product(["logistic", "ridge"], [True, False])))
def test_of_equally_accurate_regularisers_the_largest_is_taken(kind, validated):
    x, y, _, _ = classes_of(60, 3, 2, gap=100)
    validation = (x, y) if validated else None
    result = linear_probe(x, y, x, y, kind=kind, l2=[0.01, 0.3, 0.1], validation=validation)
    assert (result.l2, result.validation_accuracy) == (0.3, 1)


@pytest.mark.parametrize(("kind", "validated"), list(product(["logistic", "ridge"], [True, False])))
def test_the_test_labels_choose_nothing(kind, validated):
    x, y, validation_x, validation_y, test_x, test_y = noisy()
    validation = (validation_x, validation_y) if validated else None
    first, second = (
        linear_probe(x, y, test_x, labels, kind=kind, validation=validation) for labels in (test_y, 1 - test_y)
    )
    assert torch.equal(first.scores, second.scores)
    assert (first.l2, first.validation_accuracy) == (second.l2, second.validation_accuracy)
    assert first.accuracy == pytest.approx(1 - second.accuracy)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_other_test_rows_and_the_validation_rows_change_no_score(kind):
    x, y, validation_x, validation_y, test_x, test_y = noisy()
    options = {"kind": kind, "l2": 0.1, "validation": (validation_x, validation_y)}
    alone = linear_probe(x, y, test_x[:3], test_y[:3], **options).scores
    among = linear_probe(x, y, torch.cat([test_x[:3], 1e4 * test_x]), torch.cat([test_y[:3], test_y]), **options).scores
    torch.testing.assert_close(among[:3], alone)
    options["validation"] = (50 * validation_x + 7, validation_y)
    torch.testing.assert_close(linear_probe(x, y, test_x[:3], test_y[:3], **options).scores, alone)


def test_ridge_without_validation_chooses_by_refitting_without_each_row():
    x, y, _, _, test_x, test_y = noisy(n=40, d=30)
    z, _ = standardised(x, x)
    by_value = {}
    for value in (1e-3, 0.1, 1.0, 10.0):
        hits = 0
        for i in range(40):
            rest = np.arange(40) != i
            peer = RidgeClassifier(alpha=40 * value, solver="svd").fit(z[rest], y[rest])
            hits += peer.predict(z[[i]])[0] == y[i].item()
        by_value[value] = hits / 40
    best = max(by_value.values())
    result = linear_probe(x, y, test_x, test_y, kind="ridge", l2=list(by_value))
    assert result.validation_accuracy == pytest.approx(best)
    assert result.l2 == max(value for value, accuracy in by_value.items() if accuracy == best)


@pytest.fixture
def searches(monkeypatch):
    """The labels (N,) and row weights (N, folds) of every search for a regulariser."""
    seen = []
    path = probes._logistic_path

    def spy(z, columns, weight, l2):
        seen.append((columns, weight))
        return path(z, columns, weight, l2)

    monkeypatch.setattr(probes, "_logistic_path", spy)
    return seen


@pytest.mark.parametrize(("n", "folds"), [(200, 5), (1000, 1)])
def test_logistic_without_validation_holds_out_stratified_fifths(n, folds, searches):
    """From 1,000 labels on one fifth, below that each in turn."""
    x, y, test_x, test_y = classes_of(n, 4, 4)
    result = linear_probe(x, y, test_x, test_y, l2=[0.01, 1.0])
    ((columns, weight),) = searches
    assert weight.shape[1] == folds
    torch.testing.assert_close(weight.sum(0), torch.ones(folds).double())
    for fold in weight.unbind(1):
        assert columns[fold > 0].bincount().tolist() == [n // 5] * 4
        assert fold[fold > 0].unique().numel() == 1
    if folds == 5:
        assert ((weight == 0).sum(1) == 1).all()
    held_out = result.validation_accuracy * (n if folds == 5 else n // 5)
    assert held_out == pytest.approx(round(held_out))


def test_a_class_with_one_example_is_never_held_out(searches):
    x, y, test_x, test_y = classes_of(41, 4, 2)
    y[7] = 5
    linear_probe(x, y, test_x, test_y)
    ((columns, weight),) = searches
    assert (weight[columns == 2] > 0).all()
    assert ((weight[columns != 2] == 0).sum(1) == 1).all()


def test_cross_validation_is_that_of_five_refits():
    """The features are standardised once, by all rows."""
    x, y, _, _, test_x, test_y = noisy(n=60, d=20)
    fold = probes._folds(y, 0)
    z, _ = standardised(x, x)
    accuracy = {}
    for value in (1e-2, 0.1, 1.0):
        hits = np.zeros(60)
        for f in range(5):
            rest, out = (fold != f).numpy(), (fold == f).numpy()
            peer = LogisticRegression(C=2 / (rest.sum() * value), tol=1e-8, max_iter=10_000).fit(z[rest], y[rest])
            hits[out] = peer.predict(z[out]) == y[out].numpy()
        accuracy[value] = hits.mean()
    best = max(accuracy.values())
    result = linear_probe(x, y, test_x, test_y, l2=list(accuracy))
    assert result.validation_accuracy == pytest.approx(best, abs=1 / 60 + 1e-9)
    assert accuracy[result.l2] >= best - 1 / 60 - 1e-9


def test_the_seed_decides_the_folds_and_nothing_else():
    x, y, _, _, test_x, test_y = noisy()
    first, again = (linear_probe(x, y, test_x, test_y, seed=3) for _ in range(2))
    assert torch.equal(first.scores, again.scores)
    assert (first.l2, first.validation_accuracy) == (again.l2, again.validation_accuracy)
    assert len({linear_probe(x, y, test_x, test_y, seed=seed).validation_accuracy for seed in range(4)}) > 1
    fixed = [linear_probe(x, y, test_x, test_y, seed=seed, l2=0.1).scores for seed in (0, 1)]
    assert torch.equal(*fixed)


def test_the_global_random_state_is_neither_used_nor_moved():
    x, y, _, _, test_x, test_y = noisy()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = linear_probe(x, y, test_x, test_y).scores
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(linear_probe(x, y, test_x, test_y).scores, first)


# --- labels


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_labels_are_names_and_their_values_change_nothing(kind):
    x, y, test_x, test_y = classes_of(100, 4, 3)
    names = torch.tensor([-40, 7, 1000])
    plain, named = (
        linear_probe(x, train, test_x, test, kind=kind) for train, test in [(y, test_y), (names[y], names[test_y])]
    )
    assert named.classes.tolist() == [-40, 7, 1000]
    assert torch.equal(named.scores, plain.scores)
    assert torch.equal(named.predictions, names[plain.predictions])
    assert named.accuracy == plain.accuracy
    assert named.top_k(2) == plain.top_k(2)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_a_label_never_trained_on_is_wrong_and_everything_else_as_before(kind):
    x, y, test_x, test_y = classes_of(100, 4, 3)
    known = linear_probe(x, y, test_x, test_y, kind=kind, l2=0.1)
    strange = test_y.clone()
    strange[::3] = 99
    result = linear_probe(x, y, test_x, strange, kind=kind, l2=0.1)
    assert torch.equal(result.scores, known.scores)
    right = known.predictions == test_y
    right[::3] = False
    assert result.accuracy == pytest.approx(right.double().mean().item())
    assert result.top_k(3) == pytest.approx(2 / 3)
    assert linear_probe(x, y, test_x, strange * 0 + 99, kind=kind, l2=0.1).top_k(1) == 0


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_a_validation_label_never_trained_on_counts_as_wrong(kind):
    x, y, _, _ = classes_of(60, 3, 2, gap=100)
    strange = y.clone()
    strange[:15] = 99
    assert linear_probe(x, y, x, y, kind=kind, validation=(x, strange)).validation_accuracy == 0.75


def test_top_k_of_a_probe_is_scikit_learns():
    x, y, test_x, test_y = many_classes()
    result = linear_probe(x, y, test_x, test_y, l2=0.1)
    for k in (1, 3, 10):
        expected = top_k_accuracy_score(test_y.numpy(), result.scores.numpy(), k=k, labels=range(20))
        assert result.top_k(k) == pytest.approx(expected)
    assert result.top_k(1) == pytest.approx(result.accuracy)
    assert result.top_k(20) == 1
    for k in (0, 21):
        with pytest.raises(ValueError, match=f"k must be between 1 and the 20 classes, got {k}"):
            result.top_k(k)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_one_example_of_every_class_takes_the_middle_regulariser(kind):
    x = torch.eye(4)
    result = linear_probe(x, [3, 1, 4, 9], x, [3, 1, 4, 9], kind=kind)
    assert (result.l2, result.validation_accuracy) == (L2_GRID[len(L2_GRID) // 2], None)
    assert result.accuracy == 1
    chosen = linear_probe(x, [3, 1, 4, 9], x, [3, 1, 4, 9], kind=kind, validation=(x, [3, 1, 4, 9]))
    assert chosen.validation_accuracy == 1


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_a_class_with_one_example_beside_larger_ones_is_learnt(kind):
    x, y, _, _ = classes_of(40, 4, 2, gap=20)
    x, y = torch.cat([x, torch.full((1, 4), 300.0)]), torch.cat([y, torch.tensor([5])])
    result = linear_probe(x, y, x[-1:], [5], kind=kind, l2=0.01)
    assert result.classes.tolist() == [0, 1, 5]
    assert result.accuracy == 1


# --- features


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_units_origin_and_order_of_features_and_rows_change_nothing(kind):
    x, y, test_x, test_y = (part.double() if part.is_floating_point() else part for part in classes_of(100, 4, 3))
    expected = linear_probe(x, y, test_x, test_y, kind=kind, l2=0.01).scores
    units, origin = torch.tensor([1e-4, 1.0, -3.0, 1e5]).double(), torch.tensor([1.0, -2.0, 50.0, 1e5]).double()
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    for moved, labels, moved_test in (
        (x * units + origin, y, test_x * units + origin),
        (x.flip(1), y, test_x.flip(1)),
        (x[order], y[order], test_x),
    ):
        scores = linear_probe(moved, labels, moved_test, test_y, kind=kind, l2=0.01).scores
        torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "ridge"])
def test_features_that_are_all_constant_predict_the_most_frequent_class(kind):
    y = torch.tensor([4] * 3 + [2] * 6 + [7] * 2)
    result = linear_probe(torch.ones(11, 3), y, torch.rand(5, 3), [2] * 5, kind=kind, l2=0.1)
    assert result.predictions.tolist() == [2] * 5
    if kind == "logistic":
        torch.testing.assert_close(result.scores[0].softmax(0), torch.tensor([6, 3, 2]).double() / 11)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_floating_dtype_is_fitted_in_float64(dtype):
    x, y, test_x, test_y = classes_of(100, 4, 3)
    x, test_x = x.to(dtype), test_x.to(dtype)
    result = linear_probe(x, y, test_x, test_y, l2=0.1)
    expected = linear_probe(x.double(), y, test_x.double(), test_y, l2=0.1)
    assert result.scores.dtype == torch.float64
    torch.testing.assert_close(result.scores, expected.scores)


def test_strongly_correlated_wide_features_with_the_default_grid_converge():
    """One direction holds nearly all the variance, which is the hardest for single precision."""
    rng = torch.Generator().manual_seed(0)
    common = 100 * torch.randn(150, 1, generator=rng)
    x = common + torch.randn(150, 400, generator=rng)
    y = (x[:, 0] - common[:, 0] > 0).long() + (common[:, 0] > 50).long()
    result = linear_probe(x, y, x, y)
    assert result.l2 in L2_GRID
    assert result.accuracy > 0.6


def test_neither_gradients_nor_the_inputs_are_touched():
    x, y, test_x, test_y = classes_of(50, 3, 2)
    x.requires_grad_()
    before = x.detach().clone()
    assert not linear_probe(x, y, test_x, test_y).scores.requires_grad
    assert torch.equal(x, before)


# --- regression


def line(n, d=5, targets=None, seed=0):
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(d, targets or 1, generator=rng)
    parts = []
    for size in (n, 80, 60):
        x = torch.randn(size, d, generator=rng) * torch.logspace(-2, 2, d) + 3
        y = x @ (w / torch.logspace(-2, 2, d)[:, None]) + torch.randn(size, targets or 1, generator=rng) + 10
        parts += [x, y if targets else y[:, 0]]
    return parts


@pytest.mark.parametrize("targets", [None, 1, 3])
@pytest.mark.parametrize(("n", "d"), [(50, 5), (20, 60)])
@pytest.mark.parametrize("l2", [1e-3, 1.0])
def test_the_regression_probe_is_scikit_learns_ridge(targets, n, d, l2):
    x, y, _, _, test_x, test_y = line(n, d, targets)
    z, test_z = standardised(x, test_x)
    expected = Ridge(alpha=n * l2, solver="svd").fit(z, y.double()).predict(test_z)
    result = regression_probe(x, y, test_x, test_y, l2=l2)
    assert result.predictions.shape == test_y.shape
    np.testing.assert_allclose(result.predictions, expected.reshape(test_y.shape), rtol=1e-6, atol=1e-6)
    assert result.r2 == pytest.approx(r2_score(test_y, expected), abs=1e-6)
    assert (result.l2, result.validation_r2) == (l2, None)


@pytest.mark.parametrize("targets", [None, 2])
def test_regression_without_validation_chooses_by_refitting_without_each_row(targets):
    x, y, _, _, test_x, test_y = line(25, 20, targets)
    z, _ = standardised(x, x)
    by_value = {}
    for value in (1e-3, 0.1, 1.0, 10.0):
        left_out = []
        for i in range(25):
            rest = np.arange(25) != i
            left_out.append(Ridge(alpha=25 * value, solver="svd").fit(z[rest], y[rest].double()).predict(z[[i]])[0])
        by_value[value] = r2_score(y, np.array(left_out))
    best = max(by_value, key=by_value.get)
    result = regression_probe(x, y, test_x, test_y, l2=list(by_value))
    assert best not in (1e-3, 10.0)
    assert (result.l2, result.validation_r2) == (best, pytest.approx(by_value[best], abs=1e-6))


def test_regression_with_validation_chooses_by_its_r2_and_not_by_tests():
    x, y, validation_x, validation_y, test_x, test_y = line(25, 20)
    by_value = {value: regression_probe(x, y, validation_x, validation_y, l2=value).r2 for value in L2_GRID}
    best = max(by_value, key=by_value.get)
    assert best not in (L2_GRID[0], L2_GRID[-1])
    first, second = (
        regression_probe(x, y, test_x, targets, validation=(validation_x, validation_y))
        for targets in (test_y, -3 * test_y.flip(0))
    )
    assert first.l2 == second.l2 == best
    assert first.validation_r2 == pytest.approx(by_value[best])
    assert torch.equal(first.predictions, second.predictions)


def test_of_equally_good_regularisers_regression_takes_the_larger():
    x = torch.ones(4, 2)
    result = regression_probe(x, [1.0, 2.0, 3.0, 4.0], x, [1.0, 2.0, 3.0, 4.0], l2=[0.1, 5.0, 1.0])
    assert result.l2 == 5
    assert result.predictions.tolist() == [2.5] * 4


@pytest.mark.parametrize(
    "targets", [[1, 2, 4, 1001], torch.tensor([1.0, 2, 4, 1001]).half(), np.array([1.0, 2, 4, 1001])]
)
def test_targets_of_any_dtype_are_read_as_float64(targets):
    x = torch.tensor([[0.0], [1.0], [3.0], [1000.0]])
    result = regression_probe(x, targets, x, targets, l2=1e-9)
    torch.testing.assert_close(result.predictions, torch.tensor([1.0, 2, 4, 1001]).double(), rtol=1e-6, atol=1e-6)
    assert result.r2 == pytest.approx(1)


def test_r2_is_0_for_the_mean_and_negative_for_worse():
    x = torch.ones(4, 1)
    assert regression_probe(x, [0.0, 2, 4, 6], x[:2], [2.0, 4.0], l2=1.0).r2 == pytest.approx(0)
    assert regression_probe(x, [0.0, 2, 4, 6], x[:2], [12.0, 14.0], l2=1.0).r2 == pytest.approx(-100)


# --- label efficiency


def test_label_efficiency_is_one_probe_for_every_budget_and_repeat_in_a_tidy_frame():
    x, y, test_x, test_y = classes_of(100, 4, 3)
    frame = label_efficiency(x, y, test_x, test_y, budgets=[50, 6, 100], repeats=2, l2=0.1)
    assert frame.columns.tolist() == ["labels", "repeat", "accuracy"]
    assert frame[["labels", "repeat"]].values.tolist() == list(map(list, product([50, 6, 100], [0, 1])))
    assert frame.accuracy.between(0, 1).all()
    whole = linear_probe(x, y, test_x, test_y, l2=0.1).accuracy
    assert frame[frame.labels == 100].accuracy.tolist() == pytest.approx([whole] * 2)
    again = label_efficiency(x, y, test_x, test_y, budgets=[50, 6, 100], repeats=2, l2=0.1)
    pd.testing.assert_frame_equal(frame, again)
    alone = label_efficiency(x, y, test_x, test_y, budgets=[6], repeats=2, l2=0.1)
    assert alone.accuracy.tolist() == frame[frame.labels == 6].accuracy.tolist()
    other = label_efficiency(x, y, test_x, test_y, budgets=[6, 10], repeats=4, l2=0.1, seed=1)
    assert (
        other.accuracy.tolist()
        != label_efficiency(x, y, test_x, test_y, budgets=[6, 10], repeats=4, l2=0.1).accuracy.tolist()
    )


@pytest.fixture
def calls(monkeypatch):
    """What `label_efficiency` hands to the probe."""
    seen = []
    probe = linear_probe

    def spy(*data, **options):
        seen.append((*data, options))
        return probe(*data, **options)

    monkeypatch.setattr(probes, "linear_probe", spy)
    return seen


def test_budgets_are_nested_balanced_and_different_in_every_repeat(calls):
    x, y, test_x, test_y = classes_of(60, 2, 3)
    label_efficiency(x, y, test_x, test_y, budgets=[9, 3, 31], repeats=3, l2=0.1)
    subsets = [{tuple(row) for row in call[0].tolist()} for call in calls]
    for repeat in range(3):
        nine, three, most = subsets[repeat], subsets[3 + repeat], subsets[6 + repeat]
        assert three < nine < most
    assert len({frozenset(subset) for subset in subsets[:3]}) == 3
    for subset_x, subset_y, *_ in calls:
        counts = subset_y.bincount(minlength=3)
        assert counts.max() - counts.min() <= 1
        rows = [(x == row).all(1).nonzero().item() for row in subset_x]
        assert torch.equal(subset_y, y[rows])


def test_label_efficiency_hands_its_options_to_the_probe(calls):
    x, y, test_x, test_y = classes_of(30, 2, 3)
    validation = (test_x[:50], test_y[:50])
    label_efficiency(
        x, y, test_x, test_y, budgets=[9], repeats=1, seed=5, validation=validation, kind="ridge", l2=[1.0, 2.0]
    )
    ((_, _, got_x, got_y, options),) = calls
    assert got_x is test_x
    assert got_y is test_y
    assert options == {"validation": validation, "kind": "ridge", "l2": [1.0, 2.0], "seed": 5}


# --- refusals

X, Y, T = torch.rand(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]), torch.rand(6)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "named"),
    [
        ((X, Y * 0 + 4, X, Y), {}, ValueError, "at least 2 classes, got only class 4"),
        ((X[:1], Y[:1], X, Y), {}, ValueError, "at least 2 classes, got only class 0"),
        ((X, Y, X, Y), {"kind": "svm"}, ValueError, "'logistic' or 'ridge', got 'svm'"),
        ((X, Y, X, Y), {"l2": 0}, ValueError, "l2 must be one or several positive finite numbers, got 0"),
        ((X, Y, X, Y), {"l2": [0.1, -1.0]}, ValueError, r"l2.*got \[0.1, -1.0\]"),
        ((X, Y, X, Y), {"l2": []}, ValueError, r"l2.*got \[\]"),
        ((X, Y, X, Y), {"l2": math.nan}, ValueError, "l2.*got nan"),
        ((X, Y, X, Y), {"l2": math.inf}, ValueError, "l2.*got inf"),
        ((X[:0], Y[:0], X, Y), {}, ValueError, r"train_features must have at least 1 rows.*\(0, 3\)"),
        ((X, Y, X[:0], Y[:0]), {}, ValueError, r"test_features must have at least 1 rows.*\(0, 3\)"),
        ((X[:, :0], Y, X[:, :0], Y), {}, ValueError, r"1 column, got shape \(6, 0\)"),
        ((X, Y, X[:, :2], Y), {}, ValueError, "test_features must have 3 columns.*got 2"),
        ((X, Y[:5], X, Y), {}, ValueError, "train_labels must have one row for each of the 6 examples, got 5"),
        ((X, Y, X, Y[:5]), {}, ValueError, "test_labels must have one row for each of the 6 examples, got 5"),
        ((X, F.one_hot(Y), X, Y), {}, ValueError, r"train_labels must have shape \(N,\), got \(6, 3\)"),
        ((X, Y.float(), X, Y), {}, TypeError, "train_labels must be integers, got torch.float32"),
        ((X, Y, X, Y.float()), {}, TypeError, "test_labels must be integers, got torch.float32"),
        ((X.long(), Y, X, Y), {}, TypeError, "train_features must be floating point, got torch.int64"),
        ((X, Y, X.byte(), Y), {}, TypeError, "test_features must be floating point, got torch.uint8"),
        ((X.view(6, 3, 1, 1), Y, X, Y), {}, ValueError, r"train_features.*\(6, 3, 1, 1\); flatten"),
        ((X / 0, Y, X, Y), {}, ValueError, "train_features must be finite, got 18 NaN or infinite of 18"),
        ((X, Y, X.log() * math.nan, Y), {}, ValueError, "test_features must be finite, got 18"),
        ((X, Y, X, Y), {"validation": (X[:, :1], Y)}, ValueError, "validation features must have 3 columns.*got 1"),
        ((X, Y, X, Y), {"validation": (X, Y[:2])}, ValueError, "validation labels must have one row for.*6.*got 2"),
        ((X, Y, X, Y), {"validation": (X / 0, Y)}, ValueError, "validation features must be finite"),
    ],
)
def test_linear_probe_says_what_came_and_what_was_wanted(arguments, options, error, named):
    with pytest.raises(error, match=named):
        linear_probe(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "named"),
    [
        ((X, T, X, T * 0), {}, ValueError, "test_targets are constant: R² is undefined"),
        ((X, T * 0 + 2, X, T), {}, ValueError, "train_targets are constant"),
        ((X, T, X, T), {"validation": (X, T * 0)}, ValueError, "validation targets are constant"),
        ((X, T, X, T[:, None]), {}, ValueError, r"test_targets must have shape.*like train_targets, got \(6, 1\)"),
        ((X, torch.rand(6, 2), X, torch.rand(6, 3)), {}, ValueError, r"test_targets.*\('N', 2\).*got \(6, 3\)"),
        ((X, T, X, T), {"validation": (X, X)}, ValueError, r"validation targets must have shape.*got \(6, 3\)"),
        ((X, T[:4], X, T), {}, ValueError, "train_targets must have one row for each of the 6 examples, got 4"),
        ((X, torch.rand(6, 2, 2), X, T), {}, ValueError, r"train_targets must have shape.*got \(6, 2, 2\)"),
        ((X, T / 0, X, T), {}, ValueError, "train_targets must be finite, got 6 NaN or infinite of 6"),
        ((X, T, X, T), {"l2": -1.0}, ValueError, "l2.*got -1.0"),
        ((X.long(), T, X, T), {}, TypeError, "train_features must be floating point, got torch.int64"),
        ((X, T, X[:0], T[:0]), {}, ValueError, r"test_features must have at least 1 rows"),
    ],
)
def test_regression_probe_says_what_came_and_what_was_wanted(arguments, options, error, named):
    with pytest.raises(error, match=named):
        regression_probe(*arguments, **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budgets": [7]}, "a subset of 7 was asked of 6 examples"),
        ({"budgets": [0]}, "a subset of 0 was asked of 6 examples"),
        ({"budgets": [3], "repeats": 0}, "repeats must be at least 1, got 0"),
        ({"budgets": [1]}, "at least 2 classes"),
        ({"budgets": [3], "kind": "tree"}, "'logistic' or 'ridge', got 'tree'"),
    ],
)
def test_label_efficiency_says_what_came_and_what_was_wanted(options, named):
    with pytest.raises(ValueError, match=named):
        label_efficiency(X, Y, X, Y, **options)
