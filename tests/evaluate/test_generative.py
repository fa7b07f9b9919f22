"""Fréchet distance against scipy and closed forms, precision and recall against loops, and their refusals."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from course_utils.evaluate import frechet_distance, precision_recall


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("n", "m", "d"), [(50, 70, 1), (50, 70, 4), (300, 200, 20), (2, 2, 3)])
def test_the_frechet_distance_is_equation_6_with_scipys_root(n, m, d):
    mix = draw(d, d, seed=3)
    real, fake = draw(n, d) @ mix, 2 * draw(m, d, seed=1) + 1
    c, w = (np.atleast_2d(np.cov(x.numpy().T)) for x in (real, fake))
    root = sqrtm(c @ w + (1e-9 * np.eye(d) if n <= d else 0))
    shift = ((real.mean(0) - fake.mean(0)) ** 2).sum().item()
    wanted = shift + np.trace(c + w - 2 * np.real(root))
    assert frechet_distance(real, fake) == pytest.approx(wanted, rel=1e-4 if n <= d else 1e-8)


def test_the_frechet_distance_of_scaled_features_has_its_closed_form():
    """Covariances C and s² C commute: d² = (s − 1)² tr C + the shift's square."""
    x = draw(100, 5)
    x = x - x.mean(0)
    assert frechet_distance(x, 3 * x + 2) == pytest.approx(4 * x.T.cov().trace().item() + 5 * 4)


def test_the_frechet_distance_is_symmetric_zero_on_itself_and_blind_to_rotation():
    x, y = draw(60, 4), 2 * draw(80, 4, seed=1)
    turn = torch.linalg.qr(draw(4, 4, seed=2)).Q
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x @ turn, y @ turn) == pytest.approx(frechet_distance(x, y))


def test_the_frechet_distance_takes_constant_features_and_more_columns_than_rows():
    assert frechet_distance(torch.ones(5, 3), torch.zeros(4, 3)) == pytest.approx(3)
    assert frechet_distance(draw(5, 50), draw(5, 50, seed=1)) > 0


def by_loops(points, manifold, k):
    inside = 0
    for p in points:
        for i, m in enumerate(manifold):
            others = sorted(np.linalg.norm(m - q) for j, q in enumerate(manifold) if j != i)
            if np.linalg.norm(p - m) <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_precision_and_recall_are_algorithm_1_by_loops(k):
    real, fake = draw(40, 3), 0.7 * draw(30, 3, seed=1) + 0.8
    wanted = by_loops(fake.numpy(), real.numpy(), k), by_loops(real.numpy(), fake.numpy(), k)
    assert precision_recall(real, fake, k=k) == pytest.approx(wanted)


def test_precision_and_recall_swap_when_the_sets_do_and_are_one_on_itself():
    real, fake = draw(40, 3), draw(30, 3, seed=1) + 1
    assert precision_recall(real, fake) == precision_recall(fake, real)[::-1]
    assert precision_recall(real, real.clone()) == (1.0, 1.0)
    assert precision_recall(real, fake + 100) == (0.0, 0.0)


def test_a_collapsed_generator_has_precision_and_no_recall():
    real = draw(200, 2)
    assert precision_recall(real, real[:1].repeat(50, 1)) == (1.0, 1 / 200)


@pytest.mark.parametrize("measure", [frechet_distance, precision_recall])
def test_bad_features_are_refused_by_name(measure):
    x = torch.rand(9, 2)
    with pytest.raises(ValueError, match="fake must have 2 columns"):
        measure(x, torch.rand(9, 3))
    with pytest.raises(ValueError, match="real must be finite, got 1 NaN"):
        measure(torch.cat([x, torch.tensor([[0.0, torch.nan]])]), x)
    with pytest.raises(TypeError, match="fake must be floating point"):
        measure(x, torch.ones(9, 2, dtype=torch.int64))


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="real must have at least 2 rows"):
        frechet_distance(torch.rand(1, 2), torch.rand(3, 2))
    with pytest.raises(ValueError, match="k must be between 1 and 2, one less than the rows, got 3"):
        precision_recall(torch.rand(3, 2), torch.rand(9, 2))
