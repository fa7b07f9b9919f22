"""DeepCluster: labels stay until the next clustering, no cluster stays empty, and the classifier begins afresh."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils.methods import DeepCluster
from course_utils.methods.base import encode
from course_utils.methods.deep_cluster import k_means
from course_utils.models import ConvEncoder
from course_utils.train import fit
from course_utils.views import augment

X = torch.rand(64, 1, 12, 12, generator=torch.Generator().manual_seed(1))
SMALL = {"clusters": 4, "bank": 32, "components": 3, "projection_dim": 8, "size": 12, "every": 5}


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DeepCluster(ConvEncoder(1, width=4), **SMALL | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def step(method, batch=X):
    loss = method.training_loss(batch, seeded())
    method.after_step(0.5)
    return loss


def trained(steps=6, **options):
    method = build(**options)
    fit(method, X, steps=steps, batch_size=32, lr=0.01, precision="32-true", progress=False)
    return method


def test_the_loss_is_the_cross_entropy_of_both_views_with_the_cluster_of_the_image():
    method = trained().train()
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    y = reference.assign(X).tolist()
    rng = seeded()
    total = right = 0
    f = reference.head(reference.encoder(torch.cat([augment(X, rng), augment(X, rng)]))).double()
    f = (f - reference.mean) @ reference.whitening.double()
    for i, row in enumerate(f):
        cosines = F.cosine_similarity(row[None], reference.classifier.weight.double())
        total -= (cosines / reference.temperature).log_softmax(0)[y[i % 64]].item()
        right += cosines.argmax().item() == y[i % 64]
    assert loss.item() == pytest.approx(total / 128, rel=1e-4)
    assert logs == {"accuracy": pytest.approx(right / 128)}


def test_images_keep_their_clusters_until_the_next_clustering_whatever_the_network_learns():
    method = trained(every=100)
    before = method.assign(X)
    assert len(before.unique()) > 1
    with torch.no_grad():
        for part in (method.encoder, method.head):
            for parameter in part.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=seeded()))
    assert torch.equal(method.assign(X), before)
    method.cluster()
    assert not torch.equal(method.assign(X), before)


def test_clusters_are_those_of_k_means_on_whitened_features_of_the_images_as_they_are():
    method = build(bank=64)
    step(method)
    f = encode(torch.nn.Sequential(method.encoder, method.head), X, precision="32-true").double().numpy()
    centred = f - f.mean(0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)
    whitened = centred @ directions[:3].T / scales[:3] * np.sqrt(63)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(3), atol=1e-6)
    whitened = whitened / np.linalg.norm(whitened, axis=1, keepdims=True)
    ours = method.centroids[method.assign(X)]
    for k in range(4):
        members = (method.assign(X) == k).numpy()
        similarity = np.abs(whitened[members] @ whitened[members].T)
        assert members.any()
        assert similarity.mean() > np.abs(whitened @ whitened.T).mean()
    assert ours.shape == (64, 3)


def test_clustering_comes_after_1_2_and_4_updates_and_then_after_every_so_many(monkeypatch):
    method, at = build(), []
    monkeypatch.setattr(method, "cluster", lambda: at.append(method.updates.item()))
    for _ in range(16):
        step(method, X[:4])
    assert at == [1, 2, 4, 5, 10, 15]


def test_the_bank_holds_the_latest_images_and_the_oldest_leave_first():
    method = build()
    for first in (0, 20, 40):
        method._batch = X[first : first + 20]
        method.after_step(0.5)
    kept = {tuple(image.flatten().tolist()) for image in method.bank}
    assert kept == {tuple(image.flatten().tolist()) for image in X[28:60]}
    method._batch = X
    method.after_step(0.5)
    assert {image.sum().item() for image in method.bank} == {image.sum().item() for image in X[32:]}


def test_a_bank_that_is_not_full_clusters_only_what_is_there():
    method = build(bank=1000)
    step(method, X[:32])
    full = build(bank=32)
    step(full, X[:32])
    assert torch.equal(method.centroids, full.centroids)


def test_the_classifier_begins_at_the_centroids_after_every_clustering():
    method = build()
    start = method.classifier.weight.clone()
    step(method)
    assert not torch.equal(method.classifier.weight, start)
    assert torch.equal(method.classifier.weight, method.centroids)
    assert method.classifier.weight.requires_grad


def test_no_gradient_reaches_the_labeller():
    method = build()
    method.training_loss(X, seeded())[0].backward()
    assert all(parameter.grad is None for parameter in method.labeller.parameters())
    assert not any(parameter.requires_grad for parameter in method.labeller.parameters())


# --- k-means


def blobs(sizes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    centres = 100 * torch.eye(len(sizes))
    points = [centre + torch.randn(n, len(sizes), generator=rng) for centre, n in zip(centres, sizes, strict=True)]
    return torch.cat(points), centres


def test_k_means_finds_blobs_far_apart():
    points, centres = blobs([40, 40, 40])
    found = k_means(points, points[[0, 50, 100]], iterations=50)
    distance = torch.cdist(centres, found)
    assert distance.min(1).values.max() < 1


def test_k_means_ends_where_scikit_learn_has_nothing_to_improve():
    from sklearn.cluster import KMeans

    points = torch.randn(200, 3, generator=seeded())
    found = k_means(points, points[:5], iterations=200)
    again = KMeans(5, init=found.numpy(), n_init=1, max_iter=300, tol=0).fit(points.numpy())
    np.testing.assert_allclose(found, again.cluster_centers_, atol=1e-5)


def test_empty_clusters_take_half_of_the_largest():
    """All centroids begin at one place: every cluster but one is empty at first, and none in the end."""
    points, _ = blobs([60, 60])
    found = k_means(points, points[:1].repeat(6, 1), iterations=30)
    counts = torch.cdist(points, found).argmin(1).bincount(minlength=6)
    assert (counts > 0).all()
    assert len(found.unique(dim=0)) == 6


def test_k_means_leaves_its_start_alone():
    points, start = torch.randn(9, 2, generator=seeded()), torch.zeros(3, 2)
    k_means(points, start)
    assert torch.equal(start, torch.zeros(3, 2))


@pytest.mark.parametrize("n", [1, 3])
def test_k_means_of_fewer_points_than_clusters_is_finite(n):
    assert k_means(torch.randn(n, 2, generator=seeded()), torch.randn(8, 2)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"clusters": 1}, "at least 2 clusters.*got 1"),
        ({"every": 0}, "1 update a clustering.*0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"components": 9}, "components must lie between 1 and projection_dim 8, got 9"),
    ],
)
def test_bad_options_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)


def test_images_of_another_size_than_the_bank_holds_are_refused():
    with pytest.raises(ValueError, match=r"size=12.*\(4, 1, 14, 14\)"):
        build().training_loss(torch.rand(4, 1, 14, 14), seeded())
