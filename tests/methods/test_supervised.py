"""Supervised training: cross-entropy and accuracy by hand, and a `predict` that agrees with the network."""

import copy
import math

import pytest
import torch

from course_utils.methods import Supervised
from course_utils.methods import base as methods_base
from course_utils.models import ConvEncoder

X = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 1])


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Supervised(ConvEncoder(1, width=4), n_classes=3, **options)


def seeded():
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("view", [None, lambda x, rng: x * torch.rand(len(x), 1, 1, 1, generator=rng)])
def test_the_loss_is_the_cross_entropy_of_the_labels_on_the_view(view):
    method = build(view=view)
    reference = copy.deepcopy(method)
    loss, logs = method.training_loss((X, Y), seeded())
    x = X if view is None else view(X, seeded())
    logits = reference.head(reference.encoder(x)).detach().double()
    total = sum(math.log(sum(math.exp(v) for v in row)) - row[y].item() for row, y in zip(logits, Y, strict=True))
    assert loss.item() == pytest.approx(total / 7, rel=1e-5)
    right = sum(row.argmax() == y for row, y in zip(logits, Y, strict=True)).item()
    assert logs == {"accuracy": pytest.approx(right / 7)}


def test_predict_is_the_classifier_on_the_features_in_evaluation_mode(monkeypatch):
    monkeypatch.setattr(methods_base, "choose_precision", lambda *_: "32-true")
    method = build(view=lambda x, rng: 1 / 0)  # no view when predicting
    method.encoder(X)  # so that evaluation mode differs from training mode
    logits = method.predict(X)
    assert not logits.requires_grad
    assert method.training
    method.eval()
    torch.testing.assert_close(logits, method.head(method.encoder(X)).detach())
    weight, bias = method.head[-1].weight, method.head[-1].bias
    torch.testing.assert_close(logits, (method.encode(X) @ weight.T + bias).detach())


def test_the_classifier_is_linear():
    method = build()
    assert [type(part) for part in method.head] == [torch.nn.Linear]
    assert method.head[-1].weight.shape == (3, method.encoder.out_dim)


def test_a_classifier_that_says_nothing_costs_the_log_of_the_number_of_classes():
    method = build()
    torch.nn.init.zeros_(method.head[-1].weight)
    torch.nn.init.zeros_(method.head[-1].bias)
    loss, logs = method.training_loss((X, Y), seeded())
    assert loss.item() == pytest.approx(math.log(3), rel=1e-6)
    assert logs["accuracy"] == pytest.approx(2 / 7)


def test_images_without_labels_are_refused():
    with pytest.raises(TypeError, match=r"supervised training needs images and labels: .*fit\(method, \(x, y\), ...\)"):
        build().training_loss(X, seeded())
