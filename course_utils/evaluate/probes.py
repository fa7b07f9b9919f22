"""Linear probes: what a linear model can read from frozen features, with a regulariser chosen on validation data."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from course_utils.data.types import balanced_subset
from course_utils.evaluate._inputs import as_features, as_labels, as_targets
from course_utils.evaluate._solvers import Axes, logistic, principal_axes, ridge
from course_utils.evaluate.scores import top_k_accuracy

L2_GRID = tuple(10.0**exponent for exponent in range(-5, 2))
FOLDS = 5
CROSS_VALIDATE_BELOW = 1000  # labels; from here on one fold of 20 % is held out


@dataclass(frozen=True)
class ProbeResult:
    """What a linear probe found on the test examples. All tensors are on the processor.

    `scores` (N, C) float64, logits for the logistic probe; `classes` (C,) the label of each column; `labels` (N,) the
    test labels; `weight` (D, C) and `bias` (C,) such that scores = features @ weight + bias; `l2` the regulariser used;
    `validation_accuracy` its accuracy on the validation data or the held-out training rows, None where there were none.
    """

    scores: Tensor
    classes: Tensor
    labels: Tensor
    weight: Tensor
    bias: Tensor
    l2: float
    validation_accuracy: float | None

    @property
    def predictions(self) -> Tensor:
        """The label (N,) with the highest score."""
        return self.classes[self.scores.argmax(1)]

    @property
    def accuracy(self) -> float:
        """The part of test examples predicted correctly."""
        return _accuracy(self.predictions, self.labels)

    def top_k(self, k: int) -> float:
        """The part of test examples whose label is among the `k` best scores; a label never trained on is wrong."""
        if not 1 <= k <= len(self.classes):
            raise ValueError(f"k must be between 1 and the {len(self.classes)} classes, got {k}")
        known = torch.isin(self.labels, self.classes)
        if not known.any():
            return 0.0
        columns = torch.searchsorted(self.classes, self.labels[known])
        return top_k_accuracy(self.scores[known], columns, k) * known.double().mean().item()


@dataclass(frozen=True)
class RegressionResult:
    """What a ridge regression found on the test examples. All tensors are on the processor.

    `predictions` (N,) or (N, T) float64, `r2` the coefficient of determination (mean over the T targets), `l2` the
    regulariser used, `validation_r2` its R² on the validation data or the left-out training rows, None if not chosen.
    """

    predictions: Tensor
    r2: float
    l2: float
    validation_r2: float | None


@torch.no_grad()
def linear_probe(
    train_features,
    train_labels,
    test_features,
    test_labels,
    *,
    validation: tuple | None = None,
    kind: str = "logistic",
    l2: float | Sequence[float] = L2_GRID,
    seed: int = 0,
) -> ProbeResult:
    """Train a linear classifier on frozen features and report on test examples.

    train_features: (N, D), test_features: (M, D), floating point; every feature is standardised with its training mean
    and deviation. train_labels: (N,), test_labels: (M,), any integers. With x the standardised features, the minimised
    objective is, for kind="logistic" (multinomial logistic regression),

        1/N Σᵢ −log softmax(W xᵢ + b)[yᵢ] + l2/2 ‖W‖²

    which is scikit-learn's `LogisticRegression(C=1 / (N * l2))` (for two classes `C=2 / (N * l2)`, because there it
    has one weight vector and not two), and for kind="ridge" (least squares on targets tᵢ of +1 for the class, else −1)

        1/N Σᵢ ‖W xᵢ + b − tᵢ‖² + l2 ‖W‖²

    which is `RidgeClassifier(alpha=N * l2)`. The bias is free. Both are solved to convergence, not for
    some epochs: ridge in closed form, logistic until no entry of the gradient exceeds 10⁻⁶ or a tenth of l2.

    l2: one value, or several to choose from by accuracy: on validation=(features, labels) if given. Otherwise on
    training rows: ridge on each row left out in turn; logistic by 5-fold cross-validation, or from 1,000 labels on by
    holding out one fifth, stratified and shuffled by `seed`, a class with one example never held out. The final model
    is fitted to all training rows. The larger of equally accurate values is taken, and where every class has a single
    example, nothing can be held out and the middle value is.

    Raises ValueError for shapes that do not fit, no examples, values that are not finite, one class only, l2 ≤ 0 or an
    unknown kind; TypeError for features that are not floating point or labels that are not integers.

    >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
    >>> result = linear_probe(x, [0, 0, 1, 1], torch.tensor([[-3.0], [3.0], [0.5]]), [0, 1, 0])
    >>> result.predictions.tolist(), round(result.accuracy, 3), result.top_k(2)
    ([0, 1, 1], 0.667, 1.0)
    """
    if kind not in ("logistic", "ridge"):
        raise ValueError(f"kind must be 'logistic' or 'ridge', got {kind!r}")
    x = as_features(train_features, "train_features")
    y = as_labels(train_labels, "train_labels", x)
    test_x = as_features(test_features, "test_features", like=x)
    test_y = as_labels(test_labels, "test_labels", test_x)
    classes, columns = y.unique(return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"a probe needs training examples of at least 2 classes, got only class {classes.item()}")
    grid = _as_grid(l2)
    if validation is None and columns.bincount().max() == 1:  # nothing can be held out
        grid = [grid[len(grid) // 2]]
    axes = principal_axes(x)
    held_out = None
    if validation is not None:
        validation_x = as_features(validation[0], "validation features", like=x)
        validation_y = as_labels(validation[1], "validation labels", validation_x)
        held_out = axes.project(validation_x), validation_y
    fit = _fit_logistic if kind == "logistic" else _fit_ridge
    weights, chosen, accuracy = fit(axes, columns, classes, grid, held_out, seed)
    scores = axes.project(test_x) @ weights[:-1] + weights[-1]
    weight = axes.rotation @ weights[:-1] / axes.scale[:, None]
    bias = weights[-1] - axes.mean @ weight
    return ProbeResult(scores.cpu(), classes.cpu(), test_y.cpu(), weight.cpu(), bias.cpu(), chosen, accuracy)


@torch.no_grad()
def regression_probe(
    train_features,
    train_targets,
    test_features,
    test_targets,
    *,
    validation: tuple | None = None,
    l2: float | Sequence[float] = L2_GRID,
) -> RegressionResult:
    """Ridge regression from frozen features to continuous targets, and its R² on test examples.

    train_features: (N, D), test_features: (M, D), floating point, standardised with the training mean and deviation.
    train_targets: (N,) or (N, T), test_targets alike. With x the standardised features it minimises

        1/N Σᵢ ‖W xᵢ + b − yᵢ‖² + l2 ‖W‖²

    exactly, which is scikit-learn's `Ridge(alpha=N * l2)`. l2: one value, or several to choose from by R² on
    validation=(features, targets) if given, else on each training row left out in turn. R² is 1 − (squared error) /
    (squared deviation from the test mean), averaged over the T targets; it is negative for worse than the mean.

    Raises ValueError for shapes that do not fit, no examples, values that are not finite, l2 ≤ 0 or a target that is
    constant where R² is taken; TypeError for features that are not floating point.

    >>> x = torch.arange(6.0)[:, None]
    >>> result = regression_probe(x, 2 * x[:, 0] + 1, torch.tensor([[10.0], [20.0]]), [21.0, 41.0], l2=1e-9)
    >>> round(result.r2, 6), result.predictions.round().tolist()
    (1.0, [21.0, 41.0])
    """
    x = as_features(train_features, "train_features")
    y = as_targets(train_targets, "train_targets", x).double()
    test_x = as_features(test_features, "test_features", like=x)
    test_y = as_targets(test_targets, "test_targets", test_x).double()
    _check_same_targets(test_y, "test_targets", y)
    grid = _as_grid(l2)
    axes = principal_axes(x)
    targets = y.view(len(y), -1)
    if validation is not None:
        validation_x = as_features(validation[0], "validation features", like=x)
        validation_y = as_targets(validation[1], "validation targets", validation_x).double()
        _check_same_targets(validation_y, "validation targets", y)
        validation_y, validation_z = validation_y.view(len(validation_y), -1), axes.project(validation_x)
    best = None
    for value in grid:
        w, b, left_out = ridge(axes.z, axes.energy, targets, value)
        if validation is not None:
            score = _r2(validation_z @ w + b, validation_y, "validation targets")
        else:
            score = _r2(left_out, targets, "train_targets") if len(grid) > 1 else None
        if best is None or score >= best[0]:
            best = score, value, w, b
    score, value, w, b = best
    predictions = axes.project(test_x) @ w + b
    r2 = _r2(predictions, test_y.view(len(test_y), -1), "test_targets")
    return RegressionResult(predictions.view(test_y.shape).cpu(), r2, value, score)


def label_efficiency(
    train_features,
    train_labels,
    test_features,
    test_labels,
    *,
    budgets: Sequence[int],
    repeats: int = 3,
    seed: int = 0,
    validation: tuple | None = None,
    kind: str = "logistic",
    l2: float | Sequence[float] = L2_GRID,
) -> pd.DataFrame:
    """Probe accuracy with few labels: one `linear_probe` for every budget and repeat, as a tidy table.

    budgets: numbers of training labels. Each repeat draws its own class-balanced random subsets, from `seed`; within a
    repeat a larger budget contains the smaller ones. The other arguments are `linear_probe`'s; validation labels, where
    given, are not counted in the budget.

    Returns a frame with the columns labels, repeat and accuracy, sorted by the order of `budgets`, then repeat.
    Raises ValueError for a budget outside 1 … N or repeats < 1, and whatever `linear_probe` raises.

    >>> x = torch.cat([torch.randn(50, 2) - 4, torch.randn(50, 2) + 4])
    >>> y = torch.arange(2).repeat_interleave(50)
    >>> label_efficiency(x, y, x, y, budgets=[2, 20], repeats=2)[["labels", "repeat"]].values.tolist()
    [[2, 0], [2, 1], [20, 0], [20, 1]]
    """
    x = as_features(train_features, "train_features")
    y = as_labels(train_labels, "train_labels", x)
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    seeds = torch.randint(2**31, (repeats,), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = []
    for budget in budgets:
        for repeat, subset_seed in enumerate(seeds):
            subset = balanced_subset(y, budget, seed=subset_seed).to(x.device)
            result = linear_probe(
                x[subset], y[subset], test_features, test_labels, validation=validation, kind=kind, l2=l2, seed=seed
            )
            rows.append((budget, repeat, result.accuracy))
    return pd.DataFrame(rows, columns=["labels", "repeat", "accuracy"])


def _as_grid(l2: float | Sequence[float]) -> list[float]:
    """The regularisers in ascending order."""
    grid = sorted(float(value) for value in ([l2] if isinstance(l2, int | float) else l2))
    if not grid or not all(0 < value < float("inf") for value in grid):
        raise ValueError(f"l2 must be one or several positive finite numbers, got {l2}")
    return grid


def _fit_logistic(axes: Axes, columns, classes, grid, held_out, seed):
    """Coefficients (r + 1, C) with the bias last, the chosen regulariser and its validation accuracy."""
    n = len(columns)
    l2 = torch.tensor(grid, dtype=torch.float64, device=columns.device)
    everything = torch.full((n, 1), 1 / n, dtype=torch.float64, device=columns.device)
    best, accuracy, start = 0, None, None
    if held_out is not None:
        z, labels = held_out
        weights = _logistic_path(axes.z, columns, everything, l2)
        hits = classes[_predict(z, weights[:, 0])] == labels[:, None]
        best, accuracy = _best(hits.double().mean(0))
        start = weights[:, :, best]
    elif len(grid) > 1:
        fold = _folds(columns, seed)
        used = range(FOLDS) if n < CROSS_VALIDATE_BELOW else range(1)
        used = [f for f in used if (fold == f).any()]
        trained_on = torch.stack([fold != f for f in used], dim=1).double()
        rows = trained_on.any(1)
        weights = _logistic_path(axes.z[rows], columns[rows], (trained_on / trained_on.sum(0))[rows], l2)
        hits = [_predict(axes.z[fold == f], weights[:, i]) == columns[fold == f, None] for i, f in enumerate(used)]
        best, accuracy = _best(torch.cat(hits).double().mean(0))
        start = weights[:, :, best].mean(1, keepdim=True)
    tolerance = min(1e-6, grid[best] / 10)
    weights = logistic(axes.z, columns, everything, l2[[best]], start=start, tolerance=tolerance)
    return weights[:, 0], grid[best], accuracy


def _fit_ridge(axes: Axes, columns, classes, grid, held_out, seed):
    """As `_fit_logistic`. Nothing is drawn at random, so `seed` is not used."""
    targets = 2.0 * torch.nn.functional.one_hot(columns, len(classes)).double() - 1
    fits, hits = [], []
    for value in grid:
        w, b, left_out = ridge(axes.z, axes.energy, targets, value)
        fits.append(torch.cat([w, b[None]]))
        if held_out is not None:
            hits.append(classes[_predict(held_out[0], fits[-1][:, None])[:, 0]] == held_out[1])
        elif len(grid) > 1:
            hits.append(left_out.argmax(1) == columns)
    best, accuracy = _best(torch.stack(hits, dim=1).double().mean(0)) if hits else (0, None)
    return fits[best], grid[best], accuracy


def _logistic_path(z: Tensor, columns: Tensor, weight: Tensor, l2: Tensor) -> Tensor:
    """Logistic regressions (r + 1, F, R, C) for every column of `weight` (N, F) and every `l2` (R,), good to choose by.

    In float32 and to a gradient of 10⁻⁴, the largest regulariser first; each solution is the start for the next.
    """
    z, weight = z.float(), weight.float()
    solutions = []
    for value in l2.float().flip(0):
        start = solutions[-1] if solutions else None
        solutions.append(logistic(z, columns, weight, value.expand(weight.shape[1]), start=start, tolerance=1e-4))
    return torch.stack(solutions[::-1], dim=2).double()


def _predict(z: Tensor, weights: Tensor) -> Tensor:
    """Columns (N, P) with the highest score under P models (r + 1, P, C), one model at a time."""
    return torch.stack([(z @ w[:-1] + w[-1]).argmax(1) for w in weights.unbind(1)], dim=1)


def _folds(columns: Tensor, seed: int) -> Tensor:
    """A fold (N,) of 0 … FOLDS − 1 for each row, every class spread evenly over them; −1 for a class's only example."""
    rng = torch.Generator().manual_seed(seed)
    labels = columns.cpu()
    counts = labels.bincount()
    order = torch.randperm(len(labels), generator=rng)
    by_class = order[labels[order].argsort(stable=True)]  # shuffled, then grouped by class: deal them out in turn
    fold = torch.empty_like(labels)
    fold[by_class] = torch.arange(len(labels)) % FOLDS
    fold[counts[labels] == 1] = -1
    return fold.to(columns.device)


def _best(scores: Tensor) -> tuple[int, float]:
    """Index and value of the highest score; of equal scores the last, which has the largest regulariser."""
    index = len(scores) - 1 - int(scores.flip(0).argmax())
    return index, scores[index].item()


def _accuracy(predictions: Tensor, labels: Tensor) -> float:
    return (predictions == labels).double().mean().item()


def _check_same_targets(y: Tensor, name: str, like: Tensor) -> None:
    if y.shape[1:] != like.shape[1:]:
        raise ValueError(f"{name} must have shape {('N', *like.shape[1:])} like train_targets, got {tuple(y.shape)}")


def _r2(predictions: Tensor, targets: Tensor, name: str) -> float:
    deviation = (targets - targets.mean(0)).square().sum(0)
    if (deviation == 0).any():
        raise ValueError(f"{name} are constant: R² is undefined")
    return (1 - (predictions - targets).square().sum(0) / deviation).mean().item()
