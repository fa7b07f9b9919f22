"""What every method keeps: it learns, all of it; it encodes without side effects; it can be saved, copied and moved."""

import copy
import functools
import io
import math
import pickle

import pytest
import torch
from torch import nn

from course_utils.methods import REGISTRY, Autoencoder, Inpainting, Method, Supervised, encode
from course_utils.methods import base as methods_base
from course_utils.methods import build as build_method
from course_utils.models import ConvAutoencoder, ConvEncoder
from course_utils.train import fit
from course_utils.views import augment

SIZE = 12


def images(n=96):
    """A bright bar somewhere in the lower half of a ground of some grey; the label says whether the ground is light."""
    rng = torch.Generator().manual_seed(0)
    ground = 0.8 * torch.rand(n, 1, 1, 1, generator=rng)
    x = ground.repeat(1, 1, SIZE, SIZE) + 0.02 * torch.rand(n, 1, SIZE, SIZE, generator=rng)
    for image, column in zip(x, torch.randint(0, SIZE - 3, (n,), generator=rng), strict=True):
        image[:, SIZE // 2 :, column : column + 3] = 1
    return x, (ground.flatten() > 0.4).long()


X, Y = images()
VARIANCE = X.var(0).mean().item()  # the squared error of painting the mean image
CLIPS = torch.stack([X.roll(shift, 3) for shift in range(6)], 1)  # (N, T, C, H, W): the bar wanders
COLOUR = X * torch.rand(len(X), 3, 1, 1, generator=torch.Generator().manual_seed(1))
BATCHES = {"images": X, "colour images": COLOUR, "clips": CLIPS}
SMALL = {"ConvEncoder": {"width": 4}, "ViT": {"size": SIZE, "dim": 16, "depth": 2, "heads": 2}}
REACH = {  # a loss that is reached in 35 updates, and clearly better than chance: all answers alike, the mean painted
    "autoencoder": 0.75 * VARIANCE,
    "barlow_twins": 0.8 * 256,
    "byol": 0.5 * 4,
    "colorization": 0.75 * math.log(71),
    "cpc": 0.9 * math.log(64),
    "deep_cluster": 0.75 * math.log(8),
    "denoising": 0.75 * VARIANCE,
    "dino": 0.9 * math.log(16),
    "frame_order": 0.9 * (math.log(3) - 2 / 3 * math.log(2)),
    "i_jepa": 0.85,  # chance is 1, the variance of the targets
    "inpainting": 0.75 * VARIANCE,
    "jigsaw": 0.9 * math.log(3),
    "mae": 0.75 * VARIANCE,
    "moco": 0.9 * math.log(1 + 32),
    "next_frame": 0.75 * VARIANCE,
    "nnclr": 0.9 * math.log(32),
    "relative_position": 0.93 * math.log(8),
    "rotation": 0.75 * math.log(4),
    "siamese": 0.25 * 4 / 5 * 4**2 / 2,
    "simclr": 0.9 * math.log(2 * 32 - 1),
    "simsiam": -0.5,
    "super_resolution": 0.75 * VARIANCE,
    "supervised": 0.75 * math.log(2),
    "swav": 0.9 * math.log(16),
    "triplet": 0.65 * 0.2,
    "vicreg": 0.75 * 49.5,
    "w_mse": 0.75 * 2,
}
WEAK = functools.partial(augment, crop=(0.9, 1.0), rotation=0, brightness=0.1)  # clusters of so few images are coarse
OPTIONS = {
    "colorization": {"size": SIZE},
    "cpc": {"patch": 4, "stride": 2, "pairs": 64, "view": WEAK, "patch_view": WEAK},
    "deep_cluster": {"size": SIZE, "clusters": 8, "components": 4, "every": 25, "view": WEAK},
    "denoising": {"size": SIZE},
    "dino": {"outputs": 16, "view": WEAK},
    "inpainting": {"size": SIZE, "patch": 3},
    "jigsaw": {"permutations": 3, "tile": 3},
    "mae": {"normalise": False},
    "moco": {"queue_size": 32, "view": WEAK},
    "nnclr": {"queue_size": 64, "view": WEAK},
    "relative_position": {"patch": 3, "gap": 1},
    "super_resolution": {"size": SIZE},
    "supervised": {"n_classes": 2},
    "swav": {"prototypes": 16},
    "triplet": {"mining": "random"},
    "w_mse": {"projection_dim": 4},
}
METHODS = REGISTRY | {
    "autoencoder": lambda encoder: Autoencoder(ConvAutoencoder(encoder, size=SIZE)),
    "supervised": Supervised,
}
every_method = pytest.mark.parametrize("name", METHODS)


def build(name, in_channels=1):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = getattr(METHODS[name], "network", ConvEncoder)
        return METHODS[name](network(in_channels, **SMALL[network.__name__]), **OPTIONS.get(name, {}))


def batch_of(name, n=8):
    if name == "supervised":
        return X[:n], Y[:n]
    return BATCHES[getattr(METHODS[name], "trains_on", "images")][:n]


def loss_of(method, name, seed=0, n=8):
    return method.training_loss(batch_of(name, n), torch.Generator().manual_seed(seed))


def trained(name, steps):
    method = build(name)
    data = batch_of(name, len(X))
    return method, fit(method, data, steps=steps, batch_size=32, lr=0.005, precision="32-true", progress=False)


def test_the_registry_is_sorted_and_holds_methods_that_are_built_from_an_encoder_alone():
    assert list(REGISTRY) == sorted(REGISTRY)
    for constructor in REGISTRY.values():
        encoder = constructor.network(1, **SMALL[constructor.network.__name__])
        method = constructor(encoder)
        assert isinstance(method, Method)
        assert method.encoder is encoder


@every_method
def test_a_few_steps_beat_chance_clearly(name):
    _, history = trained(name, 35)
    end = sum(history.losses[-5:]) / 5
    assert end < REACH[name]
    easy = name in ("moco", "nnclr")  # at first: their queues start with random keys
    start = max(history.losses[:10]) if easy else history.losses[0]
    assert end < start - 0.05 * abs(start)


@every_method
def test_every_parameter_has_a_gradient(name):
    method = build(name)
    loss, logs = loss_of(method, name)
    assert loss.ndim == 0
    assert all(isinstance(value, float) for value in logs.values())
    loss.backward()
    for parameter_name, parameter in method.named_parameters():
        if not parameter.requires_grad:  # a teacher's
            assert parameter.grad is None, parameter_name
            continue
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@every_method
def test_the_optimiser_is_given_every_parameter_once(name):
    method = build(name)
    groups = method.parameter_groups(0.1)
    given = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(given) == sorted(id(parameter) for parameter in method.parameters())
    assert all(group["lr"] > 0 for group in groups)


@every_method
def test_the_loss_follows_from_the_generator_and_leaves_the_global_one_and_the_batch_alone(name):
    method = build(name)
    before, state = X.clone(), torch.get_rng_state()
    loss, logs = loss_of(method, name)
    assert (loss.item(), logs) == (loss_of(method, name)[0].item(), loss_of(method, name)[1])
    if name in REGISTRY:
        assert loss_of(method, name, seed=1)[0] != loss
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(X, before)


@every_method
def test_the_state_fits_a_fresh_method_and_carries_all_that_was_learned(name):
    method, _ = trained(name, 2)
    fresh = build(name)
    assert not torch.allclose(fresh.encode(X[:8]), method.encode(X[:8]), atol=1e-3)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh.encode(X[:8]), method.encode(X[:8]))
    torch.testing.assert_close(loss_of(fresh.train(), name)[0], loss_of(method.train(), name)[0])


@every_method
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda method: pickle.loads(pickle.dumps(method))])
def test_a_copy_is_equal_and_independent(name, copied):
    method, _ = trained(name, 1)
    other = copied(method)
    assert torch.equal(other.encode(X[:8]), method.encode(X[:8]))
    before = method.encode(X[:8])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert torch.equal(method.encode(X[:8]), before)


@every_method
def test_images_with_the_wrong_channels_are_refused_with_both_numbers(name):
    method = build(name, in_channels=3)
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\) images, got \(\d+, 1, \d+, \d+\): .*in_channels=1"):
        loss_of(method, name)
    with pytest.raises(ValueError, match=r"takes \(N, 3, H, W\) images, got \(8, 1, 12, 12\)"):
        method.encode(X[:8])


# --- encode


@every_method
def test_encode_gives_the_encoders_features_in_evaluation_mode_and_not_the_heads(name, monkeypatch):
    monkeypatch.setattr(methods_base, "choose_precision", lambda *_: "32-true")
    method, _ = trained(name, 2)
    method.train()
    reference = copy.deepcopy(method.encoder).eval()
    with torch.no_grad():
        expected = reference(X)
    features = method.encode(X)
    assert features.shape == (len(X), method.encoder.out_dim)
    assert (features.dtype, features.device.type, features.requires_grad) == (torch.float32, "cpu", False)
    torch.testing.assert_close(features, expected)
    if any(isinstance(part, nn.BatchNorm2d) for part in method.encoder.modules()):  # a ViT has one mode
        assert not torch.allclose(features, copy.deepcopy(method.encoder).train()(X), atol=1e-3)


class Watched(nn.Module):
    """An encoder with a frozen part, which writes down how it was called."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.net[1].eval()
        self.calls = []

    def forward(self, x):
        self.calls.append((len(x), any(part.training for part in self.modules()), torch.is_grad_enabled()))
        return self.net(x)


ROWS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


def test_encode_works_in_parts_without_gradients_and_restores_the_mode_of_every_part():
    encoder = Watched()
    modes = [part.training for part in encoder.modules()]
    state = copy.deepcopy(encoder.state_dict())
    encode(encoder, ROWS, batch_size=4)
    assert encoder.calls == [(4, False, False), (4, False, False), (2, False, False)]
    assert [part.training for part in encoder.modules()] == modes == [True, True, True, False, True]
    assert all(torch.equal(state[key], value) for key, value in encoder.state_dict().items())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("batch_size", [1, 3, 9, 10, 1000])
def test_features_do_not_depend_on_the_batch_size(batch_size):
    encoder = Watched()
    torch.testing.assert_close(encode(encoder, ROWS, batch_size=batch_size), encode(encoder, ROWS, batch_size=10))


def test_the_batch_size_reaches_encode_through_the_method():
    method = Method()
    method.encoder = Watched()
    method.encode(ROWS, batch_size=6)
    assert [call[0] for call in method.encoder.calls] == [6, 4]


def test_modes_are_restored_after_an_error():
    encoder = Watched()
    with pytest.raises(RuntimeError):
        encode(encoder, torch.rand(2, 5))
    assert encoder.training
    assert encoder.net[2].training


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_encode_computes_in_the_precision_chosen_and_gives_float32(precision, monkeypatch):
    monkeypatch.setattr(methods_base, "choose_precision", lambda *_: precision)
    exact = Watched().eval()
    features = encode(exact, ROWS)
    assert features.dtype == torch.float32
    rounded = torch.equal(features, features.bfloat16().float())
    assert rounded == (precision == "bf16-mixed")
    torch.testing.assert_close(features, exact(ROWS).detach(), atol=0.05, rtol=0.05)


def test_nothing_to_encode_is_an_error():
    with pytest.raises(ValueError, match="there is nothing to encode: x has no rows"):
        encode(Watched(), ROWS[:0])


def test_a_method_without_an_objective_says_so():
    with pytest.raises(NotImplementedError):
        Method().training_loss(ROWS, torch.Generator())
    assert Method().after_step(0.5) is None


def test_inpainting_of_another_size_names_both_shapes():
    method = Inpainting(ConvEncoder(1, width=4), size=28)
    with pytest.raises(ValueError, match=r"one shape, got \(8, 1, 28, 28\) and \(8, 1, 14, 14\)"):
        method.training_loss(torch.rand(8, 1, 14, 14), torch.Generator().manual_seed(0))


def test_build_makes_the_encoder_that_fits_the_images_and_passes_the_options_on():
    method = build_method("simclr", torch.rand(2, 3, 20, 20), temperature=0.7)
    assert isinstance(method, REGISTRY["simclr"])
    assert (method.encoder.in_channels, method.temperature) == (3, 0.7)
    inpainting = build_method("inpainting", torch.rand(2, 1, 21, 21))
    assert inpainting(torch.rand(2, 1, 21, 21)).shape == (2, 1, 21, 21)
    with pytest.raises(ValueError, match=r"there is no method 'simcrl': the registry has .*simclr"):
        build_method("simcrl", X)
