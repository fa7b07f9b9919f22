"""The autoencoder: its loss is the squared error, its code is the encoder's, and its linear case ends at PCA's."""

import copy

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from course_utils.methods import Autoencoder
from course_utils.models import ConvAutoencoder, ConvEncoder, DenseAutoencoder
from course_utils.train import fit

DRAW = torch.Generator().manual_seed(1)
X = torch.rand(6, 1, 8, 8, generator=DRAW)


def build(sizes=(64, 10, 4), **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Autoencoder(DenseAutoencoder(sizes, **options))


def test_the_loss_is_the_mean_squared_error_of_the_reconstruction():
    method = build()
    loss, logs = method.training_loss(X, torch.Generator())
    painted = method.model.decoder(method.model.encoder(X)).detach().numpy().reshape(X.shape)
    assert loss.item() == pytest.approx(((painted - X.numpy()) ** 2).mean(), rel=1e-5)
    assert logs == {}
    assert method(X).shape == X.shape


def test_the_code_is_the_encoders_and_the_encoder_is_the_models():
    method = build()
    assert method.encoder is method.model.encoder
    torch.testing.assert_close(method.encode(X), method.model.encoder(X).detach())
    assert method.encode(X).shape == (6, 4)
    names = [name for name, _ in method.named_parameters()]
    assert len(names) == len(set(names)) == 8
    assert all(name.startswith("model.") for name in names)


def test_a_convolutional_model_works_alike():
    method = Autoencoder(ConvAutoencoder(ConvEncoder(1, width=4), size=8))
    reference = copy.deepcopy(method.model)
    loss, _ = method.training_loss(X, torch.Generator())
    assert loss.item() == pytest.approx(((reference(X) - X) ** 2).mean().item(), rel=1e-5)
    assert method.encode(X).shape == (6, method.encoder.out_dim)


def test_a_linear_autoencoder_reaches_the_error_of_pca_and_cannot_pass_it():
    scales = torch.tensor([3.0, 2.0, 1.0, 0.3, 0.2, 0.1])
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=DRAW)).Q
    x = torch.randn(200, 6, generator=DRAW) * scales @ rotation
    x = x - x.mean(0)
    pca = PCA(2).fit(x.numpy())
    least = np.square(pca.inverse_transform(pca.transform(x.numpy())) - x.numpy()).mean()
    method = build((6, 2), activation=None)
    fit(method, x, steps=250, batch_size=200, lr=0.05, weight_decay=0, progress=False)
    error = method.training_loss(x, torch.Generator())[0].item()
    assert least * (1 - 1e-5) < error < 1.01 * least
