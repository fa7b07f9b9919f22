"""DINO against algorithm 1 composed by hand: who sees which views, and how the teacher and the centre move."""

import copy

import pytest
import torch
from torch import nn

from course_utils.losses import dino, sinkhorn
from course_utils.methods import DINO
from course_utils.methods.dino import balancing_center
from course_utils.models import ConvEncoder, ViT
from course_utils.train import fit
from course_utils.views import augment

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def build(encoder=None, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = DINO(encoder or ConvEncoder(1, width=4), **{"outputs": 10, "centring": "mean"} | options)
        with torch.no_grad():  # a teacher of its own, as after some training
            for parameter in method.teacher.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
            method.center.normal_(std=0.1)
    return method


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def local(x, rng):
    return augment(x, rng, size=8, crop=(0.2, 0.5))


@pytest.mark.parametrize("local_views", [0, 1, 3])
def test_the_loss_is_algorithm_1_over_all_pairs_of_different_views(local_views):
    method = build(local_views=local_views, local_view=local, student_temperature=0.2, teacher_temperature=0.05)
    reference = copy.deepcopy(method)
    loss, _ = method.training_loss(X, seeded())
    rng = seeded()
    views = torch.cat([augment(X, rng), augment(X, rng)])
    teacher = reference.teacher(views).chunk(2)
    student = [*reference.head(reference.encoder(views)).chunk(2)]
    if local_views:
        small = torch.cat([local(X, rng) for _ in range(local_views)])
        student += reference.head(reference.encoder(small)).chunk(local_views)
    total, pairs = 0.0, 0
    for g in range(2):
        for v in range(2 + local_views):
            if v != g:
                target = ((teacher[g] - reference.center).double() / 0.05).exp()
                target = target / target.sum(1, keepdim=True)
                answer = (student[v].double() / 0.2).exp()
                total -= (target * (answer / answer.sum(1, keepdim=True)).log()).sum(1).mean().item()
                pairs += 1
    assert pairs == 2 * (1 + local_views)
    assert loss.item() == pytest.approx(total / pairs, rel=1e-4)


def test_the_teacher_sees_global_views_only_and_the_student_all():
    method, seen = build(local_views=2, local_view=local), {"student": [], "teacher": []}
    method.encoder.register_forward_hook(lambda m, inputs, out: seen["student"].append(tuple(inputs[0].shape)))
    method.teacher[0].register_forward_hook(lambda m, inputs, out: seen["teacher"].append(tuple(inputs[0].shape)))
    method.training_loss(X, seeded())
    assert seen == {"student": [(12, 1, 12, 12), (12, 1, 8, 8)], "teacher": [(12, 1, 12, 12)]}


def test_no_gradient_reaches_teacher_or_centre_and_all_of_the_student_has_one():
    method = build()
    method.training_loss(X, seeded())[0].backward()
    assert all(not p.requires_grad and p.grad is None for p in method.teacher.parameters())
    assert all(p.grad.abs().sum() > 0 for part in (method.encoder, method.head) for p in part.parameters())


def test_the_teacher_starts_as_the_student():
    method = DINO(ConvEncoder(1, width=4), outputs=10)
    student = nn.Sequential(method.encoder, method.head)
    for ours, theirs in zip(student.parameters(), method.teacher.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("progress", "momentum"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_teachers_momentum_rises_to_1_along_a_half_cosine(progress, momentum):
    method = build(momentum=0.9)
    method.training_loss(X, seeded())
    before = [p.clone() for p in method.teacher.parameters()]
    method.after_step(progress)
    student = nn.Sequential(method.encoder, method.head).parameters()
    for old, now, new in zip(before, method.teacher.parameters(), student, strict=True):
        torch.testing.assert_close(now, momentum * old + (1 - momentum) * new.detach())


def test_the_centre_moves_towards_the_mean_of_what_the_teacher_says_of_both_global_views():
    method = build(center_momentum=0.7)
    reference = copy.deepcopy(method)
    method.training_loss(X, seeded())
    assert torch.equal(method.center, reference.center)  # equation 4 comes after the step
    method.after_step(0.5)
    rng = seeded()
    said = reference.teacher(torch.cat([augment(X, rng), augment(X, rng)]))
    torch.testing.assert_close(method.center, 0.7 * reference.center + 0.3 * said.mean(0))


def test_the_centre_settles_on_the_mean_and_the_centred_answers_have_none():
    method = build(momentum=1.0, center_momentum=0.5)
    for _ in range(40):
        method.training_loss(X, seeded())
        method.after_step(0.5)
    torch.testing.assert_close((method._said - method.center).mean(0), torch.zeros(10), atol=1e-6, rtol=0)


@pytest.mark.parametrize("centring", ["mean", "sinkhorn"])
def test_the_logs_are_the_entropy_of_the_teachers_answers_and_their_divergence_from_the_students(centring):
    method = build(centring=centring, teacher_temperature=0.05)
    reference = copy.deepcopy(method)
    _, logs = method.training_loss(X, seeded())
    rng = seeded()
    views = torch.cat([augment(X, rng), augment(X, rng)])
    t = reference.teacher(views).double()
    center = reference.center if centring == "mean" else balancing_center(t, temperature=0.05)
    p_t = ((t - center) / 0.05).softmax(1)
    p_s = (reference.head(reference.encoder(views)).double() / 0.1).softmax(1).roll(6, 0)  # of the other view
    assert logs["teacher entropy"] == pytest.approx(-(p_t * p_t.log()).sum(1).mean().item(), rel=1e-4)
    assert logs["KL"] == pytest.approx((p_t * (p_t / p_s).log()).sum(1).mean().item(), rel=1e-3)
    assert logs["KL"] >= 0


def test_the_balancing_center_gives_sinkhorns_codes():
    t = torch.randn(9, 4, generator=seeded(), dtype=torch.float64)
    center = balancing_center(t, temperature=0.5, iterations=300)
    codes = ((t - center) / 0.5).softmax(1)
    torch.testing.assert_close(codes, sinkhorn(t, epsilon=0.5, iterations=300))
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 9 / 4, dtype=torch.float64))


def test_sinkhorns_centring_balances_both_global_views_together():
    method = build(centring="sinkhorn", local_views=0, student_temperature=0.2, teacher_temperature=0.05)
    reference = copy.deepcopy(method)
    loss, _ = method.training_loss(X, seeded())
    rng = seeded()
    views = torch.cat([augment(X, rng), augment(X, rng)])
    t, s = reference.teacher(views), reference.head(reference.encoder(views))
    center = balancing_center(t, temperature=0.05)
    target = ((t - center) / 0.05).softmax(1)
    expected = -(target * (s / 0.2).log_softmax(1).roll(6, 0)).sum(1).mean()
    torch.testing.assert_close(loss, expected)


def test_student_answering_as_a_sharp_teacher_costs_the_teachers_entropy_at_most():
    said = torch.eye(6, 10)
    loss = dino(said, said, center=torch.zeros(10), student_temperature=0.1, teacher_temperature=0.04)
    assert loss < 0.01


def test_a_vit_trains_and_encodes():
    encoder = ViT(1, size=12, dim=16, depth=2, heads=2, pool="class")
    method = build(encoder, local_view=local)
    history = fit(method, X.repeat(8, 1, 1, 1), steps=2, batch_size=16, progress=False)
    assert len(history) == 2
    assert method.encode(X).shape == (6, 16)
    assert method.encoder.attention(X).shape == (6, 2, 10, 10)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"teacher_temperature": 0}, "teacher_temperature must be positive, got 0"),
        ({"student_temperature": -1.0}, "student_temperature must be positive, got -1.0"),
        ({"momentum": 1.1}, "momentum must lie between 0 and 1, got 1.1"),
        ({"center_momentum": -0.1}, "center_momentum must lie between 0 and 1, got -0.1"),
        ({"local_views": -1}, "local_views must be a whole number, at least 0, got -1"),
        ({"centring": "none"}, "centring must be 'mean' or 'sinkhorn', got 'none'"),
        ({"outputs": 1}, "outputs must be at least 2, got 1"),
    ],
)
def test_bad_options_are_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)
