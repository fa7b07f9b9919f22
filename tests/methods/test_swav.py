"""SwAV against equations 1 to 5 composed by hand; its prototypes, its codes, and what it logs."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from course_utils.methods import SwAV
from course_utils.models import ConvEncoder
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SwAV(ConvEncoder(1, width=4), **{"prototypes": 5, "projection_dim": 8} | options)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def by_hand(method, views, epsilon, iterations, temperature):
    """The loss with matrices K×B and plain exponentials, and the projections."""
    raw = method.encoder(torch.cat(views))
    for part in list(method.head)[:-1]:
        raw = part(raw)
    raw = raw.double()
    z = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-5).sqrt()
    z = z / z.norm(dim=1, keepdim=True)
    c = method.prototypes.weight.double()
    c = c / c.norm(dim=1, keepdim=True)
    codes, predictions = [], []
    for part in z.chunk(2):
        q = ((c @ part.T) / epsilon).exp()  # (K, B)
        for _ in range(iterations):
            q = q / q.sum(1, keepdim=True) / len(q)
            q = q / q.sum(0, keepdim=True) / q.shape[1]
        codes.append(q * q.shape[1])
        predictions.append(((c @ part.T) / temperature).exp())
    p_t, p_s = (p / p.sum(0) for p in predictions)
    q_t, q_s = codes
    return (-(q_s * p_t.log()).sum(0).mean() - (q_t * p_s.log()).sum(0).mean()) / 2


@pytest.mark.parametrize(("epsilon", "iterations", "temperature"), [(0.05, 3, 0.1), (0.5, 1, 1.0)])
def test_the_loss_is_the_papers_step_by_step(epsilon, iterations, temperature):
    method = build(epsilon=epsilon, iterations=iterations, temperature=temperature)
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss(X, seeded())
    rng = seeded()
    expected = by_hand(reference, [augment(X, rng), augment(X, rng)], epsilon, iterations, temperature)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert 1 <= logs["prototypes used"] <= 5


def test_prototypes_keep_one_length_from_the_start_and_after_every_step():
    method = build()
    lengths = method.prototypes.weight.norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand(5))
    directions = F.normalize(3 * method.prototypes.weight.detach() + 1, dim=1)
    with torch.no_grad():
        method.prototypes.weight.mul_(3).add_(1)
    method.after_step(0.5)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), lengths)
    torch.testing.assert_close(F.normalize(method.prototypes.weight, dim=1), directions)


def test_the_length_of_the_prototypes_is_not_seen_by_the_loss():
    method = build()
    loss, _ = method.training_loss(X, seeded())
    with torch.no_grad():
        method.prototypes.weight.mul_(7)
    torch.testing.assert_close(method.training_loss(X, seeded())[0], loss)


def test_gradients_reach_encoder_and_prototypes_through_the_predictions_alone(monkeypatch):
    method = build()
    seen = []
    from course_utils.methods import swav

    original = swav.swapped_prediction
    monkeypatch.setattr(swav, "swapped_prediction", lambda *a, **k: (seen.extend(a), original(*a, **k))[1])
    method.training_loss(X, seeded())[0].backward()
    scores_t, scores_s, q_t, q_s = seen
    assert scores_t.requires_grad
    assert scores_s.requires_grad
    assert not q_t.requires_grad
    assert not q_s.requires_grad
    assert method.prototypes.weight.grad.abs().sum() > 0
    torch.testing.assert_close(q_t.sum(1), torch.ones(6))


def test_the_log_counts_the_prototypes_a_batch_uses():
    method = build(prototypes=64)
    with torch.no_grad():
        method.prototypes.weight.copy_(method.prototypes.weight[:1].expand(64, -1))
    assert method.training_loss(X, seeded())[1]["prototypes used"] == pytest.approx(64, rel=1e-3)
    sharp = build(prototypes=64, temperature=1e-4)
    assert sharp.training_loss(X, seeded())[1]["prototypes used"] <= 6 + 1e-3


def test_prototypes_all_alike_cost_the_log_of_their_number():
    method = build()
    with torch.no_grad():
        method.prototypes.weight.copy_(method.prototypes.weight[:1].expand(5, -1))
    assert method.training_loss(X, seeded())[0].item() == pytest.approx(math.log(5), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"epsilon": -0.1}, "epsilon must be positive, got -0.1"),
        ({"prototypes": 1}, "prototypes must be at least 2, got 1"),
        ({"temperature": math.nan}, "temperature must be positive, got nan"),
    ],
)
def test_bad_options_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)
