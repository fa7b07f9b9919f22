"""Fine-tuning: what stays, what moves, where the head starts, and that pre-training pays."""

import copy

import pytest
import torch

from course_utils.evaluate import fine_tune, linear_probe
from course_utils.methods import encode
from course_utils.models import ConvEncoder


def bars(n, seed):
    """Images with a bright bar, upright (1) or lying (0), somewhere in noise."""
    rng = torch.Generator().manual_seed(seed)
    x, y = 0.3 * torch.rand(n, 1, 12, 12, generator=rng), torch.arange(n) % 2
    for image, label, place in zip(x, y, torch.randint(1, 10, (n,), generator=rng), strict=True):
        (image[:, :, place] if label else image[:, place]).fill_(1)
    return x, y


X, Y = bars(80, 0)
TEST, TEST_Y = bars(100, 1)


def encoder(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvEncoder(1, width=4)


def tuned(**options):
    return fine_tune(encoder(), X, Y, **{"steps": 3, "progress": False, "precision": "32-true"} | options)


def test_frozen_is_the_linear_probe():
    before = encoder()
    method = tuned(strategy="frozen")
    for mine, theirs in zip(method.encoder.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    probe = linear_probe(encode(before, X), Y, encode(before, TEST), TEST_Y)
    torch.testing.assert_close(method.predict(TEST).double(), probe.scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("strategy", ["full", "linear-then-full"])
def test_every_weight_moves_and_the_given_encoder_does_not(strategy):
    given = encoder()
    before = copy.deepcopy(given.state_dict())
    method = fine_tune(given, X, Y, strategy=strategy, steps=3, progress=False)
    assert all(torch.equal(given.state_dict()[key], value) for key, value in before.items())
    for name, parameter in method.encoder.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_linear_then_full_starts_from_the_probe_and_full_from_a_random_head():
    still = {"lr": 1e-12, "weight_decay": 0.0, "steps": 1}
    frozen = tuned(strategy="frozen")
    torch.testing.assert_close(tuned(strategy="linear-then-full", **still).head[-1].weight, frozen.head[-1].weight)
    assert not torch.allclose(tuned(strategy="full", **still).head[-1].weight, frozen.head[-1].weight, atol=0.1)


def test_a_class_without_an_example_is_known_and_not_predicted():
    few = Y == 0
    method = fine_tune(
        encoder(), torch.cat([X[few], X[~few]]), torch.cat([Y[few], Y[~few] + 1]), strategy="frozen", n_classes=4
    )
    logits = method.predict(TEST)
    assert logits.shape == (100, 4)
    assert set(logits.argmax(1).tolist()) == {0, 2}


def test_the_result_follows_from_the_seed_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, second, other = (tuned(strategy="full", seed=seed).predict(TEST) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_tuning_all_weights_fits_what_a_head_on_frozen_features_cannot():
    y = torch.randint(
        0, 2, (len(X),), generator=torch.Generator().manual_seed(3)
    )  # no sense to be found: learnt by heart
    options = {"steps": 150, "batch_size": 40, "lr": 1e-2, "progress": False}
    fitted = {
        strategy: (fine_tune(encoder(), X, y, strategy=strategy, **options).predict(X).argmax(1) == y).float().mean()
        for strategy in ("frozen", "full", "linear-then-full")
    }
    assert fitted["frozen"] < 0.85
    assert fitted["full"] > 0.9
    assert fitted["linear-then-full"] > 0.9


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"strategy": "half"}, "strategy must be one of frozen, full, linear-then-full, got 'half'"),
        ({"n_classes": 1}, r"labels must lie in 0 … 0, got 0 … 1"),
    ],
)
def test_what_cannot_be_done_is_named(options, named):
    with pytest.raises(ValueError, match=named):
        tuned(**options)


def test_examples_without_labels_are_counted():
    with pytest.raises(ValueError, match="got 80 examples, 79 labels"):
        fine_tune(encoder(), X, Y[1:])
