"""k nearest neighbours against an explicit loop and scikit-learn, at the edges of k, temperature and block size."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from course_utils.evaluate import knn_accuracy, knn_scores


def draw(n, m, d=5, classes=4, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    bank, queries = (torch.randn(rows, d, generator=rng, dtype=dtype) for rows in (n, m))
    return bank, torch.randint(classes, (n,), generator=rng) * 3 - 2, queries


def scores_by_loops(bank, labels, queries, k, temperature):
    bank, labels, queries = (np.asarray(part) for part in (bank, labels, queries))
    classes = np.unique(labels)
    scores = np.zeros((len(queries), len(classes)))
    for i, q in enumerate(queries):
        similarity = [x @ q / math.sqrt((x @ x) * (q @ q)) for x in bank]
        nearest = sorted(range(len(bank)), key=lambda j: -similarity[j])[:k]
        for j in nearest:
            relative = similarity[j] - similarity[nearest[0]]
            vote = 1.0 if temperature is None else math.exp(relative / temperature)
            scores[i, np.searchsorted(classes, labels[j])] += vote
    return scores / scores.sum(1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.data(), st.sampled_from([None, 0.01, 0.1, 1.0, 50.0]), st.integers(0, 1000))
def test_scores_are_the_votes_of_the_k_most_similar(n, data, temperature, seed):
    k = data.draw(st.integers(1, n))
    bank, labels, queries = draw(n, 4, seed=seed)
    expected = scores_by_loops(bank, labels, queries, k, temperature)
    np.testing.assert_allclose(
        knn_scores(bank, labels, queries, k=k, temperature=temperature), expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("k", [1, 5, 200])
@pytest.mark.parametrize("temperature", [None, 0.07])
def test_probabilities_are_scikit_learns_with_the_cosine_metric(k, temperature):
    bank, labels, queries = draw(200, 60)

    def weights(distance):
        return np.exp((distance.min(1, keepdims=True) - distance) / temperature)

    peer = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights="uniform" if temperature is None else weights
    ).fit(bank.numpy(), labels.numpy())
    scores = knn_scores(bank, labels, queries, k=k, temperature=temperature)
    np.testing.assert_allclose(scores, peer.predict_proba(queries.numpy()), atol=1e-9)
    test_labels = draw(60, 1, seed=1)[1]
    expected = (peer.predict(queries.numpy()) == test_labels.numpy()).mean()
    assert knn_accuracy(bank, labels, queries, test_labels, k=k, temperature=temperature) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.01, 1e-4, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cold_vote_is_that_of_the_nearest_alone_and_does_not_overflow(temperature, dtype):
    angles = torch.tensor([0.1, 1.5, 3.0], dtype=dtype)
    bank = torch.stack([angles.cos(), angles.sin()], dim=1)
    scores = knn_scores(
        bank, [0, 1, 2], torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=dtype), k=3, temperature=temperature
    )
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]], dtype=dtype))


def test_a_hot_vote_is_equal_votes():
    bank, labels, queries = draw(30, 10)
    hot, equal = (knn_scores(bank, labels, queries, k=7, temperature=t) for t in (1e9, None))
    torch.testing.assert_close(hot, equal)


def test_rows_are_the_same_in_whatever_block_they_fall():
    """2²² similarities a block: 3,000 examples in the bank make blocks of 1,398 rows."""
    bank, labels, queries = draw(3000, 2 * 1398 + 5, d=3)
    together = knn_scores(bank, labels, queries, k=5)
    edges = [0, 1397, 1398, 2795, 2796, 2800]
    alone = torch.cat([knn_scores(bank, labels, queries[[i]], k=5) for i in edges])
    torch.testing.assert_close(together[edges], alone)
    torch.testing.assert_close(together.sum(1), torch.ones(len(queries)).double())


def test_a_bank_larger_than_a_block_is_searched_a_row_at_a_time():
    bank = torch.zeros(2**22 + 1, 1)
    bank[-1] = -1
    labels = torch.zeros(len(bank), dtype=torch.int64)
    labels[-1] = 1
    assert knn_scores(bank, labels, torch.tensor([[-2.0], [-3.0]]), k=1).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("left_over", [0, 1, 9])
@pytest.mark.parametrize("order", ["random", "rising", "falling", "one group"])
def test_neighbours_in_a_long_bank_are_those_of_a_full_sort(k, left_over, order):
    n = 640 * k + left_over
    angle = torch.linspace(0.1, 1.5, n, dtype=torch.float64)  # all similarities differ
    if order == "random":
        angle = angle[torch.randperm(n, generator=torch.Generator().manual_seed(k))]
    elif order == "falling":
        angle = angle.flip(0)
    elif order == "one group":  # the nearest stand 64·k columns apart
        angle = angle.view(-1, 1).roll(k).flatten()
        angle[:: 64 * k] = torch.linspace(0.01, 0.09, len(angle[:: 64 * k]), dtype=torch.float64)
    bank, labels = torch.stack([angle.cos(), angle.sin()], 1), torch.arange(n)
    scores = knn_scores(bank, labels, torch.tensor([[1.0, 0.0]], dtype=torch.float64), k=k, temperature=None)
    assert scores[0].nonzero().flatten().tolist() == sorted(angle.argsort()[:k].tolist())


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_of_classes_that_tie_the_smallest_label_is_predicted(temperature):
    bank = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    for labels in ([9, 9, 4, 4], [4, 4, 9, 9]):
        assert knn_accuracy(bank, labels, torch.tensor([[0.0, 5.0]]), [4], k=4, temperature=temperature) == 1


def test_every_example_is_its_own_nearest_neighbour():
    bank, labels, _ = draw(50, 1)
    assert knn_accuracy(bank, labels, bank, labels, k=1) == 1
    assert knn_accuracy(bank, labels, -bank, labels, k=1) < 0.9


def test_with_all_as_neighbours_and_equal_votes_scores_are_the_shares_of_the_classes():
    bank, labels, queries = draw(40, 6)
    shares = labels.unique(return_counts=True)[1] / 40
    scores = knn_scores(bank, labels, queries, k=40, temperature=None)
    torch.testing.assert_close(scores, shares.double().expand(6, -1))


def test_a_row_of_zeros_is_equally_similar_to_all():
    bank, labels, _ = draw(40, 1)
    shares = labels.unique(return_counts=True)[1] / 40
    torch.testing.assert_close(knn_scores(bank, labels, torch.zeros(1, 5), k=40), shares.double()[None])


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([None, 0.1]))
def test_scores_do_not_change_under_rotation_length_or_order(seed, temperature):
    bank, labels, queries = draw(30, 8, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=rng, dtype=torch.float64)).Q
    order = torch.randperm(30, generator=rng)
    lengths = 0.01 + 100 * torch.rand(30, 1, generator=rng, dtype=torch.float64)
    expected = knn_scores(bank, labels, queries, k=6, temperature=temperature)
    for other in (
        knn_scores(bank @ rotation, labels, queries @ rotation, k=6, temperature=temperature),
        knn_scores(bank * lengths, labels, 7 * queries, k=6, temperature=temperature),
        knn_scores(bank[order], labels[order], queries, k=6, temperature=temperature),
    ):
        torch.testing.assert_close(other, expected)


def test_a_label_that_no_training_example_has_is_wrong():
    bank, labels, _ = draw(20, 1)
    test_labels = labels.clone()
    test_labels[:5] = 77
    assert knn_accuracy(bank, labels, bank, test_labels, k=1) == 0.75


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    bank, labels, queries = draw(40, 10)
    bank, queries = bank.to(dtype), queries.to(dtype)
    scores = knn_scores(bank, labels, queries, k=5)
    assert scores.dtype == torch.float32
    expected = scores_by_loops(bank.double(), labels, queries.double(), 5, 0.1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_features_that_are_being_trained_are_read_without_gradients():
    bank, labels, queries = draw(10, 3)
    scores = knn_scores(bank.requires_grad_(), labels, queries.requires_grad_(), k=3)
    assert not scores.requires_grad


X, Y = torch.rand(4, 3), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "options", "error", "named"),
    [
        ((X, Y, X, Y), {"k": 0}, ValueError, "k must be between 1 and the 4 training examples, got 0"),
        ((X, Y, X, Y), {"k": 5}, ValueError, "k must be between 1 and the 4 training examples, got 5"),
        ((X, Y, X, Y), {}, ValueError, "got 20"),
        ((X, Y, X, Y), {"k": 1, "temperature": 0}, ValueError, "temperature.*None for equal votes, got 0"),
        ((X, Y, X, Y), {"k": 1, "temperature": -0.1}, ValueError, "temperature.*-0.1"),
        ((X, Y, X, Y), {"k": 1, "temperature": math.nan}, ValueError, "temperature.*nan"),
        ((X, Y, X[:, :2], Y), {"k": 1}, ValueError, "test_features must have 3 columns.*got 2"),
        ((X, Y[:3], X, Y), {"k": 1}, ValueError, "train_labels must have one row for each of the 4 examples, got 3"),
        ((X, Y, X, Y[:3]), {"k": 1}, ValueError, "test_labels must have one row for each of the 4 examples, got 3"),
        ((X, Y.float(), X, Y), {"k": 1}, TypeError, "train_labels must be integers, got torch.float32"),
        ((X, Y, X, Y.double()), {"k": 1}, TypeError, "test_labels must be integers, got torch.float64"),
        ((X, Y[:, None], X, Y), {"k": 1}, ValueError, r"train_labels must have shape \(N,\), got \(4, 1\)"),
        ((X.long(), Y, X, Y), {"k": 1}, TypeError, "train_features must be floating point, got torch.int64"),
        ((X[:0], Y[:0], X, Y), {"k": 1}, ValueError, r"train_features must have at least 1 rows.*\(0, 3\)"),
        ((X, Y, X[:, :, None], Y), {"k": 1}, ValueError, r"test_features.*\(4, 3, 1\); flatten"),
        ((X, Y, X / 0, Y), {"k": 1}, ValueError, "test_features must be finite, got 12 NaN or infinite of 12"),
    ],
)
def test_knn_says_what_came_and_what_was_wanted(arguments, options, error, named):
    with pytest.raises(error, match=named):
        knn_accuracy(*arguments, **options)
