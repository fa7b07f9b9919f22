"""Exercise 2: right solutions written in other ways pass, every known mistake is called by its own name."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import nn

from course_utils.calling import call
from course_utils.checks import autoencoder as exercise
from course_utils.checks.core import PUBLIC_SEED, Case, diagnose, tasks_of
from course_utils.evaluate import reconstruction_error
from course_utils.models import DenseAutoencoder

TASKS = tasks_of("autoencoder")


def hint_for(name, function, seed=PUBLIC_SEED):
    task = TASKS[name]
    cases = list(task.cases(np.random.default_rng(seed)))
    return diagnose(task, cases, [call(function, case.given, task.how) for case in cases])


def huge(x, sizes, seed):
    """No network at all, and numbers whose squares overflow, so that nothing about them can be computed."""
    rng = torch.Generator().manual_seed(seed)
    code = 1e200 * torch.randn(len(x), sizes[-1], generator=rng, dtype=torch.double)
    return 1e200 * torch.randn(x.shape, generator=rng, dtype=torch.double), code, exercise.build(x, sizes, seed)[2]


# --- right ways


def image_errors_loop(x, rebuilt):
    errors = torch.zeros(len(x))
    for n in range(len(x)):
        for a, b in zip(x[n].flatten().tolist(), rebuilt[n].flatten().tolist(), strict=True):
            errors[n] += (a - b) ** 2 / x[n].numel()
    return errors


def image_errors_einsum(x, rebuilt):
    difference = (x.double() - rebuilt.double()).reshape(len(x), -1)
    return torch.einsum("nd,nd->n", difference, difference) / difference.shape[1]


def explained_variance_loop(x, rebuilt):
    left = total = 0.0
    for column, other in zip(x.T, rebuilt.T, strict=True):
        left += sum((a - b) ** 2 for a, b in zip(column, other, strict=True))
        total += sum((a - sum(column) / len(column)) ** 2 for a in column)
    return 1 - left / total


def explained_variance_ratio(x, rebuilt):
    return (x.var(0, unbiased=False).mean() - (x - rebuilt).pow(2).mean()) / x.var(0, unbiased=False).mean()


def pca_eigh(train, x, width):
    mean = train.mean(0)
    _, axes = torch.linalg.eigh((train - mean).T.double() @ (train - mean).double())
    V = axes[:, -width:].to(x.dtype)  # (D, width)
    return (x - mean) @ V @ V.T + mean


def pca_loop(train, x, width):
    mean = sum(train) / len(train)
    Vh = torch.linalg.svd(train - mean)[2]
    rebuilt = torch.zeros_like(x)
    for n, image in enumerate(x):
        rebuilt[n] = mean
        for v in Vh[:width]:
            rebuilt[n] += ((image - mean) * v).sum() * v
    return rebuilt


def pca_sklearn(train, x, width):
    pca = PCA(width).fit(train.numpy())
    return pca.inverse_transform(pca.transform(x.numpy()))


def encode_decode_linear(x, W1, b1, W2, b2, W3, b3, W4, b4):
    code = F.linear(F.relu(F.linear(x, W1, b1)), W2, b2)
    return F.linear(F.relu(F.linear(code, W3, b3)), W4, b4), code


def encode_decode_einsum(x, *weights):
    def layer(x, W, b):
        return torch.einsum("ni,oi->no", x, W) + b

    code = layer(layer(x, *weights[:2]).clamp(min=0), *weights[2:4])
    return layer(torch.where(layer(code, *weights[4:6]) > 0, layer(code, *weights[4:6]), 0), *weights[6:]), code


def encode_decode_loop(x, *weights):
    def image(v):
        for i, (W, b) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
            v = torch.stack([(row * v).sum() + bias for row, bias in zip(W, b, strict=True)])
            if i == 1:
                codes.append(v)
            elif i != 3:
                v = torch.maximum(v, torch.zeros_like(v))
        return v

    codes = []
    return torch.stack([image(v) for v in x]), torch.stack(codes)


def build_package(x, sizes, seed):
    torch.manual_seed(seed)
    model = DenseAutoencoder(tuple(sizes.tolist()))
    return model(x), model.encoder(x), sum(p.numel() for p in model.parameters())


def build_drawn(x, sizes, seed):
    """Weights from numpy with biases at zero, as many initialisations have them."""
    rng, sizes = np.random.default_rng(seed), sizes.tolist()
    layers = list(pairwise([*sizes, *sizes[-2::-1]]))
    h, count = x, 0
    for i, (before, after) in enumerate(layers, start=1):
        h = h @ torch.from_numpy(rng.normal(0, (2 / before) ** 0.5, (before, after)).astype(np.float32))
        count += before * after + after
        if i == len(layers) // 2:
            code = h
        elif i < len(layers):
            h = h.relu()
    return h, code, count


def corrupt_numpy(x, noise, drop, seed):
    rng = np.random.default_rng(seed)
    noisy = x.numpy() + rng.normal(0, noise, x.shape)
    noisy[rng.random(x.shape) < drop] = 0
    return noisy


def corrupt_loop(x, noise, drop, seed):
    torch.manual_seed(seed)
    images = []
    for image in x:
        keep = torch.bernoulli(torch.full_like(image, 1 - drop)).bool()
        images.append(torch.where(keep, image + torch.normal(0.0, torch.full_like(image, noise)), 0.0))
    return torch.stack(images)


def descend_modules(noisy, clean, W1, b1, W2, b2, lr, steps):
    network = nn.Sequential(nn.Linear(*W1.T.shape), nn.ReLU(), nn.Linear(*W2.T.shape))
    with torch.no_grad():
        for p, given in zip(network.parameters(), (W1, b1, W2, b2), strict=True):
            p.copy_(given)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(network(noisy), clean)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses), *network.parameters()


def descend_backward(noisy, clean, *rest):
    *weights, lr, steps = rest
    losses = torch.zeros(steps)
    for step in range(steps):
        W1, b1, W2, b2 = weights = [w.detach().clone().requires_grad_() for w in weights]
        loss = ((torch.relu(noisy @ W1.T + b1) @ W2.T + b2 - clean) ** 2).sum() / clean.numel()
        loss.backward()
        losses[step] = loss.item()
        weights = [w - lr * w.grad for w in weights]
    return losses, *weights


def train_plain(images, width, steps, seed):
    """Images as they are, Adam as it is."""
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    x = images.reshape(len(images), -1)
    layers = [nn.Linear(a, b) for a, b in ((x.shape[1], 128), (128, width), (width, 100), (100, x.shape[1]))]
    weights = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.Adam(weights, lr=2e-3)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (64,), generator=rng)]
        loss = (exercise.encode_decode(batch, *weights)[0] - batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights


RIGHT = {
    "image_errors": (image_errors_loop, image_errors_einsum, lambda x, r: reconstruction_error(r.float(), x.float())),
    "explained_variance": (
        explained_variance_loop,
        explained_variance_ratio,
        lambda x, r: 1 - torch.linalg.norm(x - r) ** 2 / torch.linalg.norm(x - x.mean(0, keepdim=True)) ** 2,
    ),
    "pca_reconstruct": (pca_eigh, pca_loop, pca_sklearn),
    "encode_decode": (encode_decode_linear, encode_decode_einsum, encode_decode_loop),
    "build": (build_package, build_drawn),
    "corrupt": (corrupt_numpy, corrupt_loop),
    "descend": (descend_modules, descend_backward, lambda *given: exercise._by_hand(*given)),
    "train_autoencoder": (train_plain, lambda *given: [w.double().numpy() for w in exercise.train_autoencoder(*given)]),
}


# --- judges


@pytest.mark.parametrize("name", ["build", "corrupt"])
def test_a_judge_lets_right_results_pass_whatever_the_seed(name):
    for seed in range(100, 150):
        for function in (TASKS[name].solution, *RIGHT[name]):
            assert hint_for(name, function, seed) is None


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("corrupt", lambda x, noise, drop, seed: x, "the part of pixels that are dropped is not drop"),
        ("corrupt", lambda x, noise, drop, seed: x[:1], "must have the shape of the given"),
        (
            "corrupt",
            lambda x, noise, drop, seed: exercise.corrupt(x, noise, drop, seed) + 0.1 * (noise > 0),
            "falls on them",
        ),
        (
            "corrupt",
            lambda x, noise, drop, seed: exercise.corrupt(x, 1.5 * noise, drop, seed),
            "deviation of your noise",
        ),
        ("corrupt", lambda x, noise, drop, seed: exercise.corrupt(x + 0.1 * (noise > 0), noise, drop, seed), "darker"),
        (
            "corrupt",
            lambda x, noise, drop, seed: exercise.corrupt(x, max(noise, 0.01), drop, seed),
            "where noise is zero",
        ),
        ("build", lambda x, sizes, seed: (x, x[:, : sizes[-1]], 7), "count one layer by hand"),
        ("build", lambda x, sizes, seed: (0 * x - 1, *exercise.build(x, sizes, seed)[1:]), "all images get the same"),
        ("build", lambda x, sizes, seed: huge(x, sizes, seed), "levels off for large inputs"),
        ("build", lambda x, sizes, seed: (*exercise.build(x, sizes, seed)[:2], [1]), "parameters must be an array"),
        ("build", lambda x, sizes, seed: (*exercise.build(x, sizes, seed)[1::-1], 3), "rebuilt must have shape"),
        ("train_autoencoder", lambda *given: exercise.train_autoencoder(*given)[:4], "must return 8 things"),
    ],
)
def test_what_else_a_judge_sees(name, wrong, said):
    assert said in hint_for(name, wrong)


@pytest.mark.parametrize("changed", ["W2", "b3", "W4"])
def test_arrays_that_do_not_fit_each_other_are_named(changed):
    def wrong(*given):
        arrays = dict(zip(exercise.NAMES, exercise.train_autoencoder(*given), strict=True))
        return tuple(array[1:] if name == changed else array for name, array in arrays.items())

    said = hint_for("train_autoencoder", wrong)
    assert "must have shape" in said or "code does not have width" in said


# --- quality


@pytest.fixture(scope="module")
def small():
    """Graded cases with fewer images and steps, for what does not depend on how many."""
    case = exercise._graded_train_cases(np.random.default_rng(5))[0]
    return Case(case.given | {"images": case.given["images"][:2000], "steps": 2}, case.hidden)


def weights_of_pca(images, width):
    """PCA as a network of ReLUs: two units, with both signs, carry one number."""
    x = torch.from_numpy(images.reshape(len(images), -1))
    mean = x.mean(0)
    V = torch.linalg.svd(x - mean, full_matrices=False).Vh[:width]  # (width, D)
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    W1, b1, W2, b2 = both @ V, -both @ V @ mean, both.T, torch.zeros(width)
    weights = W1, b1, W2, b2, both, torch.zeros(2 * width), V.T @ both.T, mean
    return {name: w.numpy() for name, w in zip(exercise.NAMES, weights, strict=True)}


def test_pca_itself_is_worth_nothing(small):
    arrays = weights_of_pca(small.given["images"], small.given["width"])
    assert exercise._judge_train(small, arrays) is None
    score = exercise._score_train(small, arrays)
    assert score.part == pytest.approx(0, abs=1e-3)
    assert "1.00 of that of PCA" in score.remark


def test_random_and_constant_networks_are_worth_nothing(small):
    task = TASKS["train_autoencoder"]
    random = call(exercise.train_autoencoder, small.given, task.how).outputs
    mean_image = random | {"W4": 0 * random["W4"], "b4": small.given["images"].mean(0).ravel()}
    assert exercise._score_train(small, random).part == 0
    assert exercise._score_train(small, mean_image).part == 0


def test_hidden_images_are_not_given(small):
    given, hidden = small.given["images"].reshape(2000, -1), small.hidden["images"].reshape(1500, -1)
    assert (torch.cdist(torch.from_numpy(hidden), torch.from_numpy(given)).min(1).values > 0.1).all()


def test_the_seed_of_the_given_images_does_not_lead_to_the_hidden_ones(monkeypatch):
    from course_utils.data import glyphs as module

    asked, draw = [], module.glyphs
    monkeypatch.setattr(module, "glyphs", lambda **how: asked.append(how) or draw(**how))
    (case,) = TASKS["train_autoencoder"].graded_cases(7)
    given, hidden = asked
    assert given["seed"] != hidden["seed"]
    assert max(given["seed"], hidden["seed"]) > 2**24
    assert (given["n_train"], hidden["n_train"]) == (len(case.given["images"]), len(case.hidden["images"]))


@pytest.mark.slow
def test_the_solution_is_worth_its_points_on_a_new_seed():
    task = TASKS["train_autoencoder"]
    cases = task.graded_cases(77)
    score = task.grade(cases, [call(task.solution, case.given, task.how) for case in cases])
    assert score.part >= 0.8
