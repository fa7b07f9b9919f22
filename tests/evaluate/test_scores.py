"""Plain scores against scikit-learn and NumPy, in ties, samples and groups at the edges, and their refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_score, top_k_accuracy_score

from course_utils.evaluate import reconstruction_error, scores, silhouette, top_k_accuracy
from course_utils.losses import reconstruction


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_accuracy_is_scikit_learns_without_ties(k):
    scores = draw(200, 7)
    labels = torch.arange(200) % 7
    expected = top_k_accuracy_score(labels.numpy(), scores.numpy(), k=k, labels=range(7))
    assert top_k_accuracy(scores, labels, k) == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 1000))
def test_top_k_counts_a_class_that_ties_as_above_the_true_one(n, classes, seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 3, (n, classes)).astype(float), rng.integers(0, classes, n)
    for k in range(1, classes + 1):
        hits = [
            sum(s[c] >= s[label] for c in range(classes) if c != label) < k
            for s, label in zip(scores, labels, strict=True)
        ]
        assert top_k_accuracy(scores, labels, k) == pytest.approx(np.mean(hits))


def test_top_k_of_equal_scores_is_0_until_all_classes_count():
    scores, labels = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    assert [top_k_accuracy(scores, labels, k) for k in (1, 2, 3)] == [0, 0, 1]


def test_top_k_grows_to_1_with_k_and_changes_with_no_increasing_function_of_the_scores():
    scores, labels = draw(50, 6), torch.arange(50) % 6
    grown = [top_k_accuracy(scores, labels, k) for k in range(1, 7)]
    assert grown == sorted(grown)
    assert grown[0] < grown[-1] == 1
    assert [top_k_accuracy((3 * scores - 1).exp(), labels, k) for k in range(1, 7)] == grown


# --- reconstruction error


@pytest.mark.parametrize("shape", [(5, 3), (4, 1, 6, 6), (2, 3, 4, 5, 2), (1, 1)])
def test_reconstruction_error_is_numpys_mean_square_of_each_example(shape):
    x_hat, x = draw(*shape), draw(*shape, seed=1)
    expected = [((a - b) ** 2).mean() for a, b in zip(x_hat.numpy(), x.numpy(), strict=True)]
    np.testing.assert_allclose(reconstruction_error(x_hat, x), expected, rtol=1e-12)
    assert reconstruction_error(x, x).tolist() == [0] * shape[0]


def test_its_mean_is_the_loss_that_autoencoders_minimise():
    x_hat, x = draw(6, 1, 4, 4), draw(6, 1, 4, 4, seed=1)
    torch.testing.assert_close(reconstruction_error(x_hat, x).mean(), reconstruction(x_hat, x))


def test_reconstruction_error_holds_no_graph():
    assert not reconstruction_error(draw(2, 3).requires_grad_(), draw(2, 3)).requires_grad


# --- silhouette


def groups(n, seed=0):
    labels = torch.arange(n) % 3 * 5 - 3
    return draw(n, 2, seed=seed) + labels[:, None] / 4, labels


@pytest.mark.parametrize("sample_size", [None, 60, 61, 5000])
def test_silhouette_of_all_examples_is_scikit_learns(sample_size):
    x, labels = groups(60)
    expected = silhouette_score(x.numpy(), labels.numpy())
    assert 0.1 < expected < 0.9
    assert silhouette(x, labels, sample_size=sample_size) == pytest.approx(expected, rel=1e-9)


def test_silhouette_is_the_mean_of_its_definition():
    x, labels = (part.numpy() for part in groups(12))
    values = []
    for i in range(12):
        gap = np.sqrt(((x - x[i]) ** 2).sum(1))
        own = gap[(labels == labels[i]) & (np.arange(12) != i)].mean()
        other = min(gap[labels == g].mean() for g in set(labels) - {labels[i]})
        values.append((other - own) / max(own, other))
    assert silhouette(x, labels) == pytest.approx(np.mean(values), rel=1e-9)


def test_silhouette_of_a_sample_is_that_of_some_rows_decided_by_the_seed():
    x, labels = groups(300)
    full = silhouette(x, labels)
    first, again, other = (silhouette(x, labels, sample_size=100, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert len({full, first, other}) == 3
    assert first == pytest.approx(full, abs=0.1)
    chosen = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:100]
    assert first == pytest.approx(silhouette_score(x[chosen].numpy(), labels[chosen].numpy()), rel=1e-9)


def test_all_examples_count_unless_asked_otherwise(monkeypatch):
    seen = []
    monkeypatch.setattr(scores, "silhouette_score", lambda x, labels: seen.append(x.shape) or 0.0)
    x, labels = groups(5001)
    silhouette(x, labels)
    silhouette(x, labels, sample_size=5000)
    silhouette(x[:5000], labels[:5000], sample_size=5000)
    assert seen == [(5001, 2), (5000, 2), (5000, 2)]


def test_silhouette_does_not_change_under_rotation_shift_scale_or_names():
    x, labels = groups(40)
    rotation = torch.linalg.qr(draw(2, 2, seed=3)).Q
    expected = silhouette(x, labels)
    assert silhouette(5 * x @ rotation + 3, -7 * labels) == pytest.approx(expected, rel=1e-9)


def test_silhouette_is_near_1_for_far_groups_and_negative_for_wrong_ones():
    x = torch.cat([draw(20, 3), draw(20, 3) + 1000])
    right = torch.arange(40) // 20
    wrong = torch.arange(40) % 2
    assert silhouette(x, right) > 0.99
    assert silhouette(x, wrong) < 0


# --- refusals

X, Y = torch.rand(4, 3), torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: top_k_accuracy(X, Y, 0), ValueError, "k must be between 1 and the 3 classes, got 0"),
        (lambda: top_k_accuracy(X, Y, 4), ValueError, "k must be between 1 and the 3 classes, got 4"),
        (lambda: top_k_accuracy(X, Y + 1, 1), ValueError, "columns 0 to 2 of scores, got 1 to 3"),
        (lambda: top_k_accuracy(X, Y - 1, 1), ValueError, "columns 0 to 2 of scores, got -1 to 1"),
        (lambda: top_k_accuracy(X, Y[:3], 1), ValueError, "labels must have one row for each of the 4.*got 3"),
        (lambda: top_k_accuracy(X, Y.float(), 1), TypeError, "labels must be integers, got torch.float32"),
        (lambda: top_k_accuracy(X.long(), Y, 1), TypeError, "scores must be floating point, got torch.int64"),
        (lambda: top_k_accuracy(X * math.nan, Y, 1), ValueError, "scores must be finite, got 12"),
        (lambda: reconstruction_error(X, X[:3]), ValueError, r"\(4, 3\) and \(3, 3\)"),
        (lambda: reconstruction_error(X[:, :1], X), ValueError, r"\(4, 1\) and \(4, 3\)"),
        (lambda: reconstruction_error(X[0], X[0]), ValueError, r"\(N, ...\), got \(3,\) and \(3,\)"),
        (lambda: reconstruction_error(X[:0], X[:0]), ValueError, r"\(0, 3\)"),
        (lambda: reconstruction_error(X, X / 0), ValueError, "x must be finite, got 12"),
        (lambda: reconstruction_error(X / 0, X), ValueError, "x_hat must be finite, got 12"),
        (lambda: reconstruction_error(X, X.byte()), TypeError, "x must be floating point, got torch.uint8"),
        (lambda: silhouette(X, Y * 0), ValueError, "2 to 3 groups of 4 examples, got 1"),
        (lambda: silhouette(X, torch.arange(4)), ValueError, "2 to 3 groups of 4 examples, got 4"),
        (lambda: silhouette(X, Y[:3]), ValueError, "labels must have one row for each of the 4"),
        (lambda: silhouette(X, Y.float()), TypeError, "labels must be integers"),
        (lambda: silhouette(X, torch.arange(4), sample_size=3), ValueError, "2 to 2 groups of 3 examples, got 3"),
        (lambda: silhouette(X, Y, sample_size=2), ValueError, "sample_size must be at least 3, or None.*got 2"),
    ],
)
def test_scores_say_what_came_and_what_was_wanted(call, error, named):
    with pytest.raises(error, match=named):
        call()
