"""Denoising, sparse and contractive autoencoders: each loss by hand, and what the penalty does to a code."""

import pytest
import torch
from torch import nn

from course_utils.methods import Autoencoder, ContractiveAutoencoder, DenoisingAutoencoder, SparseAutoencoder
from course_utils.models import DenseAutoencoder
from course_utils.train import fit

X = torch.rand(64, 6, generator=torch.Generator().manual_seed(0))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(kind, *, code_activation=None, **options):
    torch.manual_seed(0)
    return kind(DenseAutoencoder((6, 5), code_activation=code_activation), **options)


def test_denoising_rebuilds_the_clean_example_from_the_corrupted_one():
    method = build(DenoisingAutoencoder, noise=0.5)
    given = X + 0.5 * torch.randn(X.shape, generator=rng(3))
    expected = (method(given) - X).square().mean()
    torch.testing.assert_close(method.training_loss(X, rng(3))[0], expected)
    blank = build(DenoisingAutoencoder, corrupt=lambda x, rng: torch.zeros_like(x))
    torch.testing.assert_close(blank.training_loss(X, rng())[0], (blank(torch.zeros_like(X)) - X).square().mean())
    torch.testing.assert_close(method.encode(X), method.encoder(X).detach())


@pytest.mark.parametrize(
    ("kind", "options"),
    [(DenoisingAutoencoder, {"noise": 0}), (SparseAutoencoder, {"weight": 0}), (ContractiveAutoencoder, {"weight": 0})],
)
def test_without_noise_or_weight_each_is_the_plain_autoencoder(kind, options):
    plain, method = build(Autoencoder), build(kind, **options)
    torch.testing.assert_close(method.training_loss(X, rng())[0], plain.training_loss(X, rng())[0])


def test_the_sparse_loss_is_error_plus_weighted_penalty():
    method = build(SparseAutoencoder, weight=0.5)
    loss, logs = method.training_loss(X, rng())
    expected = (method(X) - X).square().mean() + 0.5 * method.encoder(X).abs().mean()
    torch.testing.assert_close(loss, expected)
    assert loss.item() == pytest.approx(logs["error"] + 0.5 * logs["penalty"], rel=1e-5)


def test_sparsity_empties_codes_and_a_target_sets_their_mean():
    plain = build(SparseAutoencoder, code_activation=nn.ReLU, weight=0)
    sparse = build(SparseAutoencoder, code_activation=nn.ReLU, weight=0.3)
    aimed = build(SparseAutoencoder, code_activation=nn.Sigmoid, weight=1.0, target=0.2)
    for method in (plain, sparse, aimed):
        fit(method, X, steps=200, batch_size=64, lr=0.02, progress=False)
    assert (sparse.encode(X) == 0).float().mean() > (plain.encode(X) == 0).float().mean() + 0.2
    torch.testing.assert_close(aimed.encode(X).mean(0), torch.full((5,), 0.2), atol=0.02, rtol=0)


def test_contraction_flattens_the_encoder():
    norms = []
    for weight in (0.0, 0.1):
        method = build(ContractiveAutoencoder, code_activation=nn.Sigmoid, weight=weight)
        fit(method, X, steps=150, batch_size=64, lr=0.01, progress=False)
        norms.append(torch.func.vmap(torch.func.jacrev(lambda x, f=method.encoder: f(x[None])[0]))(X).square().sum())
    assert norms[1] < norms[0] / 4


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: build(DenoisingAutoencoder, noise=-1), "noise.*-1"),
        (lambda: build(SparseAutoencoder, weight=-1), "weight.*-1"),
        (lambda: build(ContractiveAutoencoder, weight=float("nan")), "weight.*nan"),
        (lambda: build(SparseAutoencoder, weight=1, target=0.1).training_loss(X - 9, rng()), "sigmoid"),
    ],
)
def test_bad_options_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
