"""MoCo against algorithm 1 composed by hand, its queue and its key encoder: who moves when, and how."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.methods import MoCo
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MoCo(ConvEncoder(1, width=4), **{"projection_dim": 6, "queue_size": 20} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def online(method):
    return [*method.encoder.parameters(), *method.head.parameters()]


def shaken(method):
    """The same method with other online weights, so that the two encoders differ."""
    rng = seeded(1)
    with torch.no_grad():
        for parameter in online(method):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    return method


def unit(z):
    return (z / z.norm(dim=1, keepdim=True)).double()


def by_hand(q, k, queue, temperature):
    total = 0.0
    for query, key in zip(unit(q), unit(k), strict=True):
        scores = [(query @ other).item() / temperature for other in [key, *unit(queue)]]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[0]
    return total / len(q)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@torch.no_grad()
def test_the_loss_is_equation_1_with_keys_of_the_key_encoder_for_both_orders_of_the_views(temperature):
    method = shaken(build(temperature=temperature, groups=1))
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    rng = seeded()
    x1, x2 = augment(X, rng), augment(X, rng)
    expected = 0
    for x_q, x_k in [(x1, x2), (x2, x1)]:
        q, k = reference.head(reference.encoder(x_q)), reference.target(x_k)
        expected += by_hand(q, k, reference.queue, temperature) / 2
    assert logs == {}
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
def test_the_papers_asymmetric_loss_has_one_query_and_one_key_an_image():
    method = shaken(build(groups=1, symmetric=False))
    reference = copy.deepcopy(method)
    loss, _ = method.training_loss(X, seeded())
    rng = seeded()
    q = reference.head(reference.encoder(augment(X, rng)))
    k = reference.target(augment(X, rng))
    assert loss.item() == pytest.approx(by_hand(q, k, reference.queue, reference.temperature), rel=1e-4)
    method.after_step(0.5)
    torch.testing.assert_close(method.queue, torch.cat([reference.queue[8:], F.normalize(k, dim=1)]))


def test_the_queue_is_first_in_first_out_and_a_step_does_not_see_its_own_keys():
    method = build()
    start = method.queue.clone()
    torch.testing.assert_close(start.norm(dim=1), torch.ones(20))
    method.training_loss(X, seeded())
    assert torch.equal(method.queue, start)
    method.after_step(0.1)
    assert torch.equal(method.queue[:4], start[16:])
    first = method.queue[4:].clone()
    torch.testing.assert_close(first.norm(dim=1), torch.ones(16))
    assert len(first.unique(dim=0)) == 16
    method.training_loss(X, seeded(8))
    method.after_step(0.2)
    assert torch.equal(method.queue[:4], first[12:])
    assert not torch.equal(method.queue[4:], first)
    settled = method.queue.clone()
    method.after_step(0.3)  # without a new batch nothing enters
    assert torch.equal(method.queue, settled)


@pytest.mark.parametrize("queue_size", [1, 5, 16, 17])
def test_the_batch_need_not_divide_the_queue_and_may_be_longer_than_it(queue_size):
    method = build(queue_size=queue_size)
    twin = build(queue_size=100)
    for part in (method, twin):
        part.training_loss(X, seeded())
        part.after_step(0.1)
    kept = min(queue_size, 16)
    assert method.queue.shape == (queue_size, 6)
    torch.testing.assert_close(method.queue[-kept:], twin.queue[-kept:])


def test_the_key_encoder_starts_as_a_copy_gets_no_gradient_and_follows_by_equation_2():
    method = build(momentum=0.75)
    for key, query in zip(method.target.parameters(), online(method), strict=True):
        assert torch.equal(key, query)
        assert key is not query
    method.training_loss(X, seeded())[0].backward()
    assert all(not key.requires_grad and key.grad is None for key in method.target.parameters())
    shaken(method)
    before = [key.clone() for key in method.target.parameters()]
    method.after_step(0.5)
    for old, new, query in zip(before, method.target.parameters(), online(method), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * query)


def test_the_gradient_is_that_of_the_queries_alone():
    method = shaken(build(groups=1, symmetric=False))
    reference = copy.deepcopy(method)
    method.training_loss(X, seeded())[0].backward()
    rng = seeded()
    x_q, x_k = augment(X, rng), augment(X, rng)
    q = F.normalize(reference.head(reference.encoder(x_q)), dim=1)
    k = F.normalize(reference.target(x_k), dim=1).detach()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ reference.queue.T], 1) / reference.temperature
    F.cross_entropy(logits, torch.zeros(8, dtype=torch.int64)).backward()
    for mine, theirs in zip(online(method), online(reference), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_batch_norm_sees_the_batch_in_parts_and_the_keys_in_another_order():
    method = build(groups=4, symmetric=False, view=lambda x, rng: x)
    seen = {"query": [], "key": []}
    method.encoder.register_forward_hook(lambda module, inputs, output: seen["query"].append(inputs[0]))
    method.target[0].register_forward_hook(lambda module, inputs, output: seen["key"].append(inputs[0]))
    method.training_loss(X, seeded())
    assert [len(part) for part in seen["query"]] == [len(part) for part in seen["key"]] == [2, 2, 2, 2]
    assert torch.equal(torch.cat(seen["query"]), X)
    keys = torch.cat(seen["key"])
    assert not torch.equal(keys, X)
    assert sorted(keys.sum((1, 2, 3)).tolist()) == sorted(X.sum((1, 2, 3)).tolist())


def test_keys_come_back_in_the_order_of_their_queries():
    class Flat(nn.Module):
        out_dim = 8

        def forward(self, x):
            return x.flatten(1)

    method = MoCo(Flat(), projection_dim=8, queue_size=3, groups=4, view=lambda x, rng: x)
    method.head, method.target = nn.Identity(), nn.Flatten()
    eyes = torch.eye(8).view(8, 1, 8, 1)
    method.training_loss(eyes, seeded())
    assert torch.equal(method.fresh, torch.eye(8).repeat(2, 1))


def test_with_groups_a_key_knows_of_its_own_part_of_the_batch_alone():
    """The leak of §3.3: with one group, what one image looks like shows in the keys of all the others."""
    other = torch.cat([X[:7], 1 - X[7:]])
    told = {}
    for groups in (1, 4):
        method = build(groups=groups, view=lambda x, rng: x).double()
        before, after = (method._keys(x.double(), seeded()) for x in (X, other))
        told[groups] = ((before - after)[:7].abs().amax(1) > 1e-4).sum().item()
    assert told == {1: 7, 4: 1}


@pytest.mark.parametrize(("n", "groups"), [(3, 2), (7, 4), (1, 1)])
def test_a_batch_too_small_for_its_groups_is_refused(n, groups):
    with pytest.raises(ValueError, match=f"{groups} groups need at least {2 * groups} images, got {n}"):
        build(groups=groups).training_loss(X[:n], seeded())


def test_groups_need_not_divide_the_batch():
    seen = []
    method = build(groups=3, symmetric=False)
    method.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    method.training_loss(X[:7], seeded())
    assert seen == [3, 2, 2]


def test_the_target_sees_batches_in_training_mode_and_the_state_holds_queue_and_target():
    method = build().train()
    assert all(part.training for part in method.target.modules())
    names = set(method.state_dict())
    assert "queue" in names
    assert any(name.startswith("target.") for name in names)
    other = build()
    method.training_loss(X, seeded())
    method.after_step(0.1)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.queue, method.queue)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"temperature": math.nan}, "temperature must be positive, got nan"),
        ({"momentum": -0.1}, "momentum must lie between 0 and 1, got -0.1"),
        ({"momentum": math.nan}, "momentum must lie between 0 and 1, got nan"),
        ({"queue_size": 0}, "queue_size must be at least 1, got 0"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)
