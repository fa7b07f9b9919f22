"""A network that follows another, against the recursion written out."""

import pytest
import torch
from torch import nn

from course_utils.models import follow, frozen_copy


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_a_frozen_copy_is_equal_apart_and_out_of_the_gradients_reach():
    online = network(0)
    target = frozen_copy(online)
    for mine, theirs in zip(target.parameters(), online.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs
        assert theirs.requires_grad
        assert not mine.requires_grad


def test_following_is_the_exponential_moving_average_of_the_parameters():
    target, online = frozen_copy(network(0)), network(1)
    expected = [parameter.double().clone() for parameter in target.parameters()]
    for _ in range(5):
        expected = [
            0.9 * old + 0.1 * new.detach().double() for old, new in zip(expected, online.parameters(), strict=True)
        ]
        follow(target, online, momentum=0.9)
    for parameter, value in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.double(), value, rtol=1e-6, atol=1e-7)


def test_statistics_are_copied_and_the_followed_network_stays_as_it_was():
    target, online = frozen_copy(network(0)), network(1)
    online(torch.randn(20, 3))
    before = [value.clone() for value in online.state_dict().values()]
    follow(target, online, momentum=0.5)
    assert torch.equal(target[1].running_mean, online[1].running_mean)
    assert target[1].num_batches_tracked == 1
    assert all(torch.equal(a, b) for a, b in zip(before, online.state_dict().values(), strict=True))


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_a_momentum_that_is_none_is_refused(momentum):
    with pytest.raises(ValueError, match=f"momentum must lie between 0 and 1, got {momentum}"):
        follow(network(0), network(1), momentum=momentum)
