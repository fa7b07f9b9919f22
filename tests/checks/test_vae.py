"""Exercise 5: right ways of every kind pass, every known mistake is called by its name, and levels are as measured."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from course_utils.calling import call
from course_utils.checks import vae
from course_utils.checks.core import PUBLIC_SEED, Case, Score, diagnose, tasks_of
from course_utils.methods import VariationalAutoencoder
from course_utils.models import VAE
from course_utils.train import fit

TASKS = tasks_of("vae")


def said(task, function, seed=PUBLIC_SEED):
    cases = list(task.cases(np.random.default_rng(seed)))
    return diagnose(task, cases, [call(function, case.given, task.how) for case in cases])


# --- right ways


def draw_one_by_one(mean, log_var, epsilon):
    mean, log_var = mean.expand_as(epsilon), log_var.expand_as(epsilon)
    return torch.stack([m + v.exp().sqrt() * e for m, v, e in zip(mean, log_var, epsilon, strict=True)])


def kl_one_by_one(mean, log_var, prior_mean, prior_log_var):
    rows = []
    for m, v in zip(mean, log_var, strict=True):
        total = torch.zeros(())
        for d in range(len(m)):
            ratio = (v[d] - prior_log_var[d]).exp()
            total = total + (ratio - ratio.log() - 1 + (m[d] - prior_mean[d]) ** 2 * (-prior_log_var[d]).exp()) / 2
        rows.append(total)
    return torch.stack(rows)


def kl_by_products(mean, log_var, prior_mean, prior_log_var):
    precision = (-prior_log_var).exp()
    away = torch.einsum("nd,nd,d->n", mean - prior_mean, mean - prior_mean, precision)
    return 0.5 * (away + log_var.exp() @ precision - log_var.sum(1) + prior_log_var.sum() - mean.shape[1])


def kl_of_distributions(mean, log_var, prior_mean, prior_log_var):
    q, p = Normal(mean, (0.5 * log_var).exp()), Normal(prior_mean, (0.5 * prior_log_var).exp())
    return kl_divergence(q, p).sum(1)


def likelihood_one_by_one(x, logits):
    return torch.stack(
        [(i * F.logsigmoid(v) + (1 - i) * F.logsigmoid(-v)).sum() for i, v in zip(x, logits, strict=True)]
    )


def likelihood_by_products(x, logits):
    return torch.einsum("nchw,nchw->n", x, logits) - torch.logaddexp(logits, logits * 0).sum((1, 2, 3))


def elbo_one_by_one(log_likelihoods, kl, beta):
    bounds, losses = [], []
    for i in range(len(kl)):
        expected = sum(row[i] for row in log_likelihoods) / len(log_likelihoods)
        bounds.append(expected - kl[i])
        losses.append(beta * kl[i] - expected)
    return sum(losses) / len(losses), torch.stack(bounds)


def elbo_by_products(log_likelihoods, kl, beta):
    k, n = log_likelihoods.shape
    expected = torch.einsum("kn->n", log_likelihoods) / k
    return (beta * kl.sum() - expected.sum()) / n, expected - kl


def weights_one_by_one(log_likelihoods, z, mean, log_var):
    bounds = []
    for i in range(len(mean)):
        weights = []
        for k in range(len(z)):
            log_p = Normal(0.0, 1.0).log_prob(z[k, i]).sum()
            log_q = Normal(mean[i], (0.5 * log_var[i]).exp()).log_prob(z[k, i]).sum()
            weights.append(log_likelihoods[k, i] + log_p - log_q)
        top = max(weights)
        bounds.append(top + sum((w - top).exp() for w in weights).log() - math.log(len(z)))
    return torch.stack(bounds)


def weights_without_constants(log_likelihoods, z, mean, log_var):
    whitened = (z - mean) * (-0.5 * log_var).exp()
    squares = torch.einsum("knd,knd->kn", whitened, whitened) - torch.einsum("knd,knd->kn", z, z)
    return torch.logsumexp(log_likelihoods + 0.5 * (squares + log_var.sum(1)) - math.log(len(z)), 0)


def grid_by_mask(z, values):
    own = torch.eye(len(z), dtype=torch.bool)[:, None]  # (D, 1, D)
    return torch.where(own, values[None, :, None], z)


def grid_one_by_one(z, values):
    rows = []
    for i in range(len(z)):
        row = []
        for value in values:
            code = z.clone()
            code[i] = value
            row.append(code)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def grid_by_products(z, values):
    own = torch.eye(len(z))
    return torch.einsum("ij,v->ivj", own, values) + ((1 - own) * z)[:, None]


def mixture_one_by_one(z, logits, means, log_vars):
    rows = []
    for k in range(len(logits)):
        normal = Normal(means[k], (0.5 * log_vars[k]).exp())
        rows.append(normal.log_prob(z).sum(1) + logits[k] - logits.logsumexp(0))
    return torch.logsumexp(torch.stack(rows), 0)


def mixture_by_products(z, logits, means, log_vars):
    precision = (-log_vars).exp()
    squares = z.square() @ precision.T - 2 * z @ (precision * means).T + (precision * means.square()).sum(1)
    heights = logits - 0.5 * (log_vars.sum(1) + z.shape[1] * math.log(2 * math.pi))
    return (heights - 0.5 * squares).logsumexp(1) - logits.logsumexp(0)


def mixture_of_distributions(z, logits, means, log_vars):
    parts = Independent(Normal(means, (0.5 * log_vars).exp()), 1)
    return MixtureSameFamily(Categorical(logits=logits), parts).log_prob(z)


def train_by_the_package(images, latent, steps, seed):
    torch.manual_seed(seed)
    model = VAE.dense(tuple(images.shape[1:]), latent=latent)
    batch_size = min(128, len(images))
    options = {"batch_size": batch_size, "lr": 3e-3, "weight_decay": 0, "seed": seed, "progress": False}
    fit(VariationalAutoencoder(model), images, steps=steps, device="cpu", **options)
    return tuple(model.parameters())


def train_plainly(images, latent, steps, seed):
    torch.manual_seed(seed)
    model = VAE.dense(tuple(images.shape[1:]), latent=latent, hidden=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        x = images[torch.randint(len(images), (32,))]
        mean, log_var = model.encoder.distribution(x)
        q = Normal(mean, (0.5 * log_var).exp())
        log_p = -F.binary_cross_entropy_with_logits(model.decoder(q.rsample()), x, reduction="sum")
        loss = (kl_divergence(q, Normal(0.0, 1.0)).sum() - log_p) / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return tuple(model.parameters())


RIGHT = {
    "reparametrise": (
        lambda mean, log_var, epsilon: mean + (log_var / 2).exp() * epsilon,
        draw_one_by_one,
        lambda mean, log_var, epsilon: torch.addcmul(mean.expand_as(epsilon), log_var.exp().sqrt(), epsilon),
    ),
    "gaussian_kl": (kl_one_by_one, kl_by_products, kl_of_distributions),
    "bernoulli_log_likelihood": (
        likelihood_one_by_one,
        likelihood_by_products,
        lambda x, logits: -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2, 3)),
        lambda x, logits: Bernoulli(logits=logits, validate_args=False).log_prob(x).sum(dim=(1, 2, 3)),
    ),
    "elbo": (
        elbo_one_by_one,
        elbo_by_products,
        lambda lls, kl, beta: ((beta * kl - lls).mean(), (lls - kl).mean(0)),
    ),
    "importance_weighted_bound": (
        weights_one_by_one,
        weights_without_constants,
        lambda lls, z, mean, log_var: (
            torch.logsumexp(
                lls + Normal(0.0, 1.0).log_prob(z).sum(2) - Normal(mean, (0.5 * log_var).exp()).log_prob(z).sum(2), 0
            )
            - np.log(len(lls))
        ),
    ),
    "traverse": (grid_one_by_one, grid_by_mask, grid_by_products),
    "log_mixture": (mixture_one_by_one, mixture_by_products, mixture_of_distributions),
    "train_vae": (train_by_the_package, train_plainly),
}


def test_noise_drawn_anew_is_not_the_noise_that_was_given():
    fresh = said(TASKS["reparametrise"], lambda mean, log_var, epsilon: mean + torch.randn(epsilon.shape))
    assert fresh is not None


# --- the model that is graded


def arrays(model):
    return dict(zip(vae.NAMES, (part.detach().numpy() for part in model), strict=True))


def small_case(**changes):
    case = next(iter(TASKS["train_vae"].cases(np.random.default_rng(3))))
    return Case(case.given | changes, {"images": case.given["images"], "seed": 1})


def test_a_model_of_another_form_is_told_which_array_is_wrong():
    case = small_case()
    good = arrays(vae.train_vae(torch.from_numpy(case.given["images"]), 3, 2, 0))
    for name, wrong, hint in (
        ("W1", good["W1"][0], "the weights W must have two dimensions"),
        ("b2", good["b2"][:3], "b2 must have shape (6,) beside the other arrays, got (3,)"),
        ("W4", good["W4"][:-1], "W4 must have shape (56, 64) beside the other arrays, got (55, 64)"),
    ):
        assert hint in TASKS["train_vae"].judge(case, good | {name: wrong})


def test_the_judges_bound_is_the_packages():
    from course_utils.evaluate import elbo

    images = torch.from_numpy(small_case().given["images"])
    torch.manual_seed(0)
    model = VAE.dense(tuple(images.shape[1:]), latent=3).double()
    likelihood, _, kl = vae._bound(images.double().flatten(1), arrays(model.parameters()), 0, draws=400)
    package = elbo(model, images.double(), torch.Generator().manual_seed(1), samples=400).mean().item()
    assert likelihood - kl == pytest.approx(package, abs=0.02)


def test_a_bound_that_is_not_finite_earns_nothing():
    case = small_case()
    model = arrays(vae.train_vae(torch.from_numpy(case.given["images"]), 3, 2, 0))
    score = TASKS["train_vae"].score(case, model | {"W2": np.full_like(model["W2"], 1e30)})
    assert score.part == 0
    assert "not a finite number" in score.remark


def test_hidden_images_are_new_ones_and_never_given():
    one, other = (TASKS["train_vae"].graded_cases(seed)[0] for seed in (1, 2))
    assert one.given.keys() == {"images", "latent", "steps", "seed"}
    assert one.given["images"].shape == (vae.GIVEN_IMAGES, 1, 28, 28)
    assert one.hidden["images"].shape == (vae.HIDDEN_IMAGES, 1, 28, 28)
    assert set(np.unique(one.given["images"])) == {0.0, 1.0}
    assert not np.array_equal(one.hidden["images"], other.hidden["images"])


def test_the_seed_of_the_given_images_does_not_lead_to_the_hidden_ones(monkeypatch):
    from course_utils.data import glyphs as module

    asked, draw = [], module.glyphs
    monkeypatch.setattr(module, "glyphs", lambda **how: asked.append(how) or draw(**how))
    (case,) = TASKS["train_vae"].graded_cases(7)
    given, hidden = asked
    assert given["seed"] != hidden["seed"]
    assert max(given["seed"], hidden["seed"]) > 2**24
    assert (given["n_train"], hidden["n_train"]) == (len(case.given["images"]), len(case.hidden["images"]))


@pytest.mark.slow
def test_the_solution_earns_nearly_all_and_an_untrained_or_constant_model_nothing():
    task = TASKS["train_vae"]
    case = task.graded_cases(77)[0]  # the levels were set on others

    def grade(function):
        return task.grade([case], [call(function, case.given, task.how)])

    def random(images, latent, steps, seed):
        encoder, decoder = vae.make_vae(784, latent)
        return (*encoder.parameters(), *decoder.parameters())

    def mean_image(images, latent, steps, seed):
        encoder, decoder = vae.make_vae(784, latent)
        model = [torch.zeros_like(w) for w in (*encoder.parameters(), *decoder.parameters())]
        return (*model[:-1], torch.logit(images[:2000].flatten(1).mean(0).clamp(1e-3, 1 - 1e-3)))

    assert grade(task.solution).part >= 0.9
    assert grade(random) == Score(0.0, vae.TRAIN_HINTS["untrained"])
    assert grade(mean_image) == Score(0.0, vae.TRAIN_HINTS["collapsed"])


def test_a_model_trained_on_its_mean_codes_is_told_that_draws_count():
    def autoencoder(images, latent, steps, seed):
        torch.manual_seed(seed)
        model = VAE.dense(tuple(images.shape[1:]), latent=latent)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(steps):
            mean, log_var = model.encoder.distribution(images)
            kl = vae.gaussian_kl(mean, log_var, torch.zeros(latent), torch.zeros(latent))
            loss = (kl - vae.bernoulli_log_likelihood(images, model.decoder(mean))).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return tuple(model.parameters())

    assert said(TASKS["train_vae"], autoencoder) == vae.TRAIN_HINTS["no noise"]


def test_a_weak_model_is_named_by_the_check_and_keeps_its_points_in_the_grade():
    case = small_case()
    train = vae._train_changed(hidden=64, beta=4.0)
    given = torch.from_numpy(case.given["images"])
    model = train(given, *(case.given[name] for name in ("latent", "steps", "seed")))
    outputs = arrays(model)
    assert TASKS["train_vae"].judge(Case(case.given), outputs) == vae.TRAIN_HINTS["dear"]
    assert TASKS["train_vae"].judge(case, outputs) is None
    assert TASKS["train_vae"].score(case, outputs).remark.endswith(f". Y{vae.TRAIN_HINTS['dear'][1:]}")


def trained_otherwise(
    lr=3e-3, batch=96, hidden=64, warm=0.0, width=0.5, price=1.0, clears=True, optimizer=torch.optim.Adam
):
    def train(images, latent, steps, seed):
        torch.manual_seed(seed)
        model = VAE.dense(tuple(images.shape[1:]), latent=latent, hidden=hidden)
        optimiser = optimizer(model.parameters(), lr=lr)
        for step in range(steps):
            x = images[torch.randint(len(images), (batch,))]
            mean, log_var = model.encoder.distribution(x)
            logits = model.decoder(mean + (width * log_var).exp() * torch.randn(mean.shape))
            weight = price * min(1.0, step / (warm * steps)) if warm else price
            kl = vae.gaussian_kl(mean, log_var, torch.zeros(latent), torch.zeros(latent))
            loss = (weight * kl - vae.bernoulli_log_likelihood(x, logits)).mean()
            if clears:
                optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return tuple(model.parameters())

    return train


@pytest.mark.parametrize(
    "choice",
    [
        {"lr": 1e-2},
        {"lr": 1e-3, "hidden": 256, "batch": 16},
        {"lr": 3e-4, "hidden": 256},
        {"warm": 0.5},
        {"warm": 1.0, "lr": 5e-3},
        {"lr": 1e-3, "optimizer": torch.optim.RMSprop},
    ],
    ids=str,
)
def test_other_learning_rates_batches_and_schedules_pass(choice):
    assert said(TASKS["train_vae"], trained_otherwise(**choice)) is None


@pytest.mark.parametrize(
    ("choice", "hint"),
    [
        ({"width": 1.0}, "dear"),
        ({"price": 2.0}, "dear"),
        ({"price": 1 / 3}, "cheap"),
        ({"lr": 1e-4, "hidden": 256}, "slow"),
        ({"clears": False, "lr": 3e-3}, "slow"),
    ],
    ids=str,
)
def test_a_weak_way_to_train_is_named(choice, hint):
    assert said(TASKS["train_vae"], trained_otherwise(**choice)) == vae.TRAIN_HINTS[hint]
