"""The game: each player gets the gradient of its own objective, and no other."""

from functools import partial

import pytest
import torch
from torch import nn

from course_utils.losses import critic_cross_entropy, generator_cross_entropy
from course_utils.methods import GAN
from course_utils.models import Critic, Generator
from course_utils.train import fit


def dense(objective="non-saturating", **options):
    generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1), nn.Flatten(0))
    return GAN(generator, critic, latent_dim=2, objective=objective, **options)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_each_player_has_the_gradient_of_its_own_objective_alone():
    method, batch = dense(), torch.randn(8, 2, generator=rng())
    loss, _ = method.training_loss(batch, rng(1))
    loss.backward()
    fake = method.generator(torch.randn(8, 2, generator=rng(1)))
    theirs = generator_cross_entropy(method.critic(fake))
    wanted = torch.autograd.grad(theirs, list(method.generator.parameters()))
    for parameter, gradient in zip(method.generator.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    own = critic_cross_entropy(method.critic(batch), method.critic(fake.detach()))
    wanted = torch.autograd.grad(own, list(method.critic.parameters()))
    for parameter, gradient in zip(method.critic.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_generators_loss_leaves_no_gradient_on_the_critic(spectral_norm):
    method = GAN(Generator(4, width=4), Critic(width=4, spectral_norm=spectral_norm), latent_dim=4)
    batch = torch.rand(4, 1, 16, 16)
    state = {name: value.clone() for name, value in method.state_dict().items()}
    method.critic_steps = 2
    seen = []
    for updates in (0, 1):  # with the generator's loss and without it
        method.load_state_dict(state)
        method.updates.fill_(updates)
        method.zero_grad()
        method.training_loss(batch, rng())[0].backward()
        seen.append([parameter.grad.clone() for parameter in method.critic.parameters()])
        assert all((parameter.grad is None) == bool(updates) for parameter in method.generator.parameters())
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other)


def test_the_generator_moves_at_every_so_many_updates():
    method = dense("wasserstein", penalty=10.0, critic_steps=3)
    moved, last = [], [p.detach().clone() for p in method.generator.parameters()]

    def watch(step, method):
        nonlocal last
        now = [p.detach().clone() for p in method.generator.parameters()]
        moved.append(any((a != b).any().item() for a, b in zip(last, now, strict=True)))
        last = now

    fit(method, torch.randn(64, 2), steps=7, batch_size=16, lr=1e-2, progress=False, on_step=watch)
    assert moved == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("options", [{}, {"objective": "wasserstein", "penalty": 1.0}])
def test_the_generator_finds_a_shifted_gaussian(options):
    data = torch.randn(2000, 2, generator=rng()) * 0.5 + torch.tensor([2.0, -1.0])
    method = dense(**options)
    optimizer = partial(torch.optim.AdamW, betas=(0.5, 0.9))
    before = (method.sample(1000, rng()).mean(0) - data.mean(0)).norm()
    fit(method, data, steps=250, batch_size=64, lr=5e-3, optimizer=optimizer, progress=False)
    after = (method.sample(1000, rng()).mean(0) - data.mean(0)).norm()
    assert after < 0.4 * before


def test_samples_come_from_the_generator_of_random_numbers_alone_and_leave_the_mode():
    method = GAN(Generator(4, width=4), Critic(width=4), latent_dim=4)
    torch.testing.assert_close(method.sample(3, rng(5)), method.sample(3, rng(5)))
    assert method.generator.training
    assert method.encode(torch.rand(2, 1, 16, 16)).shape == (2, 8 * 16)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="objective must be one of non-saturating, saturating, wasserstein, got 'ls'"):
        dense("ls")
    with pytest.raises(ValueError, match="got -1 and 1"):
        dense(penalty=-1)
