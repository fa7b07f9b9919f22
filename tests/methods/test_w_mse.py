"""W-MSE: its slices composed by hand, how it treats small batches, its head, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

from course_utils.losses import whitening_mse
from course_utils.methods import WMSE
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(12, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WMSE(ConvEncoder(1, width=4), **{"projection_dim": 3, "hidden_dim": 16} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("sub_batch", [4, 6, 12, 128])
def test_the_loss_is_the_mean_over_random_partitions_of_the_batch(iterations, sub_batch, normalize):
    method = build(iterations=iterations, sub_batch=sub_batch, normalize=normalize)
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    assert logs == {}
    rng = seeded()
    views = torch.cat([augment(X, rng), augment(X, rng)])
    v1, v2 = reference.head(reference.encoder(views)).chunk(2)
    losses = []
    for _ in range(iterations):
        order = torch.randperm(12, generator=rng)
        size = min(sub_batch, 12)
        parts = [whitening_mse(v1[rows], v2[rows], normalize=normalize, eps=1e-8) for rows in order.split(size)]
        losses.append(torch.stack(parts).mean())
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_the_shrinkage_reaches_the_loss():
    assert build(eps=0.5).training_loss(X, seeded())[0] != build(eps=0.0).training_loss(X, seeded())[0]


def test_the_head_has_one_hidden_layer_and_no_last_bias():
    method = build(projection_dim=5, hidden_dim=7)
    assert [type(part) for part in method.head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d]
    assert (method.head[0].weight.shape, method.head[3].weight.shape) == ((7, 24), (5, 7))
    assert method.head[3].bias is None
    assert not method.head[-1].affine


def test_the_last_batch_norm_changes_nothing_but_what_eps_is_measured_in():
    method = build(eps=0.0)
    bare = copy.deepcopy(method)
    bare.head = bare.head[:-1]
    torch.testing.assert_close(
        method.training_loss(X, seeded())[0], bare.training_loss(X, seeded())[0], rtol=1e-3, atol=1e-4
    )


def test_settings_that_cannot_be_whitened_are_refused_at_once_and_batches_when_they_come():
    with pytest.raises(ValueError, match="sub_batch must be more than the 3 dimensions, got 3"):
        build(sub_batch=3)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        build(iterations=0)
    with pytest.raises(ValueError, match="more than the 3 dimensions and at most the 3 rows, got 3"):
        build().training_loss(X[:3], seeded())
