"""The sentence autoencoder's objective in an explicit float64 loop, word dropout, padding, training and its bounds."""

import io
import math

import pytest
import torch

from course_utils.evaluate import active_units, elbo, importance_weighted_likelihood
from course_utils.methods import TextVariationalAutoencoder
from course_utils.methods.text_variational_autoencoder import drop_words
from course_utils.methods.variational_autoencoder import log_likelihood, token_log_likelihood
from course_utils.models import GaussianMixturePrior, TextVAE
from course_utils.text import CLS, PAD, SEP, SPECIAL, UNK
from course_utils.train import fit

V, LATENT = 20, 3
IDS = torch.tensor([[CLS, 7, 8, 9, 10, SEP], [CLS, 11, 7, SEP, PAD, PAD], [CLS, 6, SEP, PAD, PAD, PAD]])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextVariationalAutoencoder(TextVAE.gru(V, latent=LATENT, dim=6, hidden=8), **options)


def spread(method):
    """Posteriors that differ clearly from the prior, so that no term of the loss is near nothing."""
    with torch.no_grad():
        method.encoder.head.weight.mul_(5)
        method.encoder.head.bias.copy_(torch.tensor([0.5, -1.0, 0.0, -1.0, 0.3, 0.0]))
    return method


def by_hand(method, ids, read, seed):
    """(log p(x|z), KL) of each sentence in float64, word by word and unit by unit, with the noise of a seed."""
    noise = torch.randn(len(ids), LATENT, generator=rng(seed), dtype=torch.float64)
    fits, kls = [], []
    for row, seen, eps in zip(ids, read, noise, strict=True):
        length = int((row != PAD).sum())
        mu, log_var = (part[0].detach() for part in method.encoder.distribution(row[None, :length]))
        z = torch.stack([mu[d] + math.exp(log_var[d] / 2) * eps[d] for d in range(LATENT)])
        fit = kl = 0.0
        for t in range(1, length):  # the words before x_t and nothing else are read
            scores = method.model.decoder(z[None], seen[None, :t])[0, -1]
            fit += scores[row[t]].item() - math.log(sum(math.exp(score) for score in scores.tolist()))
        for m, v in zip(mu.tolist(), log_var.tolist(), strict=True):
            kl += (m**2 + math.exp(v) - v - 1) / 2
        fits.append(fit)
        kls.append(kl)
    return sum(fits) / len(ids), sum(kls) / len(ids)


@pytest.mark.parametrize("options", [{}, {"beta": 0.0}, {"beta": 2.5}])
def test_the_loss_is_beta_kl_minus_the_sum_of_log_p_over_words(options):
    method = spread(build(**options)).double()
    fit, kl = by_hand(method, IDS, IDS, seed=3)
    loss, logs = method.training_loss(IDS, rng(3))
    assert kl > 0.5
    assert loss.item() == pytest.approx(options.get("beta", 1.0) * kl - fit, rel=1e-12)
    assert logs == pytest.approx({"log_likelihood": fit, "kl": kl}, rel=1e-12)


def test_with_word_dropout_the_decoder_reads_the_dropped_row_and_says_the_whole_one():
    method = spread(build(word_dropout=0.6)).double()
    follow = rng(3)
    torch.randn(len(IDS), LATENT, generator=follow, dtype=torch.float64)  # the draw of z comes first
    read = drop_words(IDS, follow, rate=0.6)
    assert 0 < (read != IDS).sum() < 7  # of 7 ordinary words
    fit, kl = by_hand(method, IDS, read, seed=3)
    assert method.training_loss(IDS, rng(3))[0].item() == pytest.approx(kl - fit, rel=1e-12)


def test_padding_changes_nothing():
    method = spread(build()).double()
    padded = torch.cat([IDS, torch.full((3, 5), PAD)], 1)
    torch.testing.assert_close(method.training_loss(padded, rng(3))[0], method.training_loss(IDS, rng(3))[0])
    whole = method.training_loss(IDS, rng(3))[0]
    assert abs(method.training_loss(IDS[:, :4], rng(3))[0] - whole) > 0.1  # words cut off do change it


def test_warmup_and_free_bits_are_those_of_the_image_model():
    method = build(beta=2.0, warmup=0.5, free_bits=0.5)
    loss, logs = method.training_loss(IDS, rng(3))
    assert loss.item() == pytest.approx(-logs["log_likelihood"], rel=1e-6)
    method.after_step(0.25)
    loss, logs = method.training_loss(IDS, rng(3))
    assert logs["kl"] < 0.5
    assert loss.item() == pytest.approx(1.0 * LATENT * 0.5 - logs["log_likelihood"], rel=1e-6)


def test_words_are_dropped_at_the_rate_each_on_its_own_and_special_tokens_never():
    ids = torch.randint(0, V, (400, 100), generator=rng())
    before = ids.clone()
    ordinary = ids >= len(SPECIAL)
    for rate in (0.1, 0.4, 0.75):
        dropped = drop_words(ids, rng(1), rate=rate)
        changed = dropped != ids
        assert torch.equal(ids, before)
        assert not changed[~ordinary].any()
        assert (dropped[changed] == UNK).all()
        n = int(ordinary.sum())
        assert abs(int(changed.sum()) - n * rate) < 5 * math.sqrt(n * rate * (1 - rate))
        pairs = ordinary[:, 1:] & ordinary[:, :-1]
        both = (changed[:, 1:] & changed[:, :-1])[pairs].float().mean().item()
        assert both == pytest.approx(rate**2, abs=0.02)
    assert torch.equal(drop_words(ids, rng(), rate=0.0), ids)
    assert (drop_words(ids, rng(), rate=1.0)[ordinary] == UNK).all()
    assert torch.equal(drop_words(ids, rng(2), rate=0.4), drop_words(ids, rng(2), rate=0.4))
    assert not torch.equal(drop_words(ids, rng(2), rate=0.4), drop_words(ids, rng(3), rate=0.4))


def test_with_every_word_dropped_only_places_and_the_code_are_left_and_targets_still_count():
    method = build(word_dropout=1.0)
    other = IDS.clone()
    other[0, 1:5] = torch.tensor([15, 16, 17, 18])
    z = torch.zeros(3, LATENT)
    read = drop_words(IDS, rng(), rate=1.0)
    assert torch.equal(read, drop_words(other, rng(), rate=1.0))
    torch.testing.assert_close(
        method.log_likelihood(IDS, z, rng()), token_log_likelihood(method.model, IDS, z, read=read)
    )
    assert abs(method.log_likelihood(other, z, rng())[0] - method.log_likelihood(IDS, z, rng())[0]) > 1e-3
    torch.testing.assert_close(method.log_likelihood(other, z, rng())[1:], method.log_likelihood(IDS, z, rng())[1:])


def test_evaluation_drops_no_words():
    method = build(word_dropout=0.9)
    torch.testing.assert_close(elbo(method.model, IDS, rng(1)), elbo(build().model, IDS, rng(1)))


def test_a_code_that_is_the_prior_has_a_kl_of_nothing_and_the_bound_is_the_language_models():
    method = build()
    with torch.no_grad():
        method.encoder.head.weight.zero_()
        method.encoder.head.bias.zero_()
        method.model.decoder.start.weight.zero_()
        method.model.decoder.gru.weight_ih_l0[:, -LATENT:] = 0  # a decoder that ignores z
    loss, logs = method.training_loss(IDS, rng(3))
    language_model = log_likelihood(method.model, IDS, torch.zeros(3, LATENT))
    assert logs["kl"] == 0.0
    torch.testing.assert_close(loss, -language_model.mean())
    for bound in (elbo(method.model, IDS, rng(4)), importance_weighted_likelihood(method.model, IDS, 7, rng(5))):
        torch.testing.assert_close(bound.float(), language_model.detach())
    assert active_units(method.model, IDS).tolist() == [False] * LATENT


def test_the_bounds_are_in_order_for_sentences_too():
    method = spread(build()).double()
    ids = IDS.repeat(60, 1)
    bounds = [elbo(method.model, ids, rng(1), samples=50).mean().item()]
    bounds += [importance_weighted_likelihood(method.model, ids, k, rng(k)).mean().item() for k in (5, 50, 500)]
    assert bounds == sorted(bounds)
    assert bounds[-1] > bounds[0] + 0.05


def test_gradients_reach_every_weight_and_no_word_that_was_not_there():
    method = build(word_dropout=0.3)
    method.training_loss(IDS, rng(3))[0].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    read = method.encoder.body.words.weight.grad.abs().sum(1)
    assert read.gt(0).tolist() == [word in IDS[IDS != PAD] for word in range(V)]


def test_training_puts_into_the_code_which_of_the_sentences_it_was():
    """Only the code tells which of four sentences begins; greedy writing gives each back."""
    four = torch.tensor([[CLS, 5, 5, SEP, PAD], [CLS, 9, 8, 7, SEP], [CLS, 12, SEP, PAD, PAD], [CLS, 15, 5, 16, SEP]])
    method = build(word_dropout=0.5, warmup=0.3)
    history = fit(method, four.repeat(32, 1), steps=300, batch_size=32, lr=0.02, weight_decay=0, progress=False)
    assert torch.equal(method(four), four)
    last = history.to_frame().tail(20).mean()
    assert last["log_likelihood"] > -0.75  # without a code no writer is above −log 4 = −1.39
    assert 0.7 < last["kl"] < 2.5
    assert torch.equal(method.encode(four), method.encode(four))
    assert method.encode(four).shape == (4, LATENT)


def test_the_state_fits_a_fresh_method_and_carries_the_weight_of_the_warmup():
    method, fresh, file = build(0, warmup=0.5), build(1, warmup=0.5), io.BytesIO()
    method.after_step(0.25)
    torch.save(method.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert fresh.weight == 0.5
    assert torch.equal(fresh.encode(IDS), method.encode(IDS))
    assert fresh.training_loss(IDS, rng(3))[0] == method.training_loss(IDS, rng(3))[0]


def test_the_loss_follows_from_the_generator_and_leaves_the_global_one_and_the_batch_alone():
    method, before, state = build(word_dropout=0.5), IDS.clone(), torch.get_rng_state()
    loss = method.training_loss(IDS, rng(3))[0]
    assert loss == method.training_loss(IDS, rng(3))[0]
    assert loss != method.training_loss(IDS, rng(4))[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(IDS, before)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: build(word_dropout=1.5), r"word_dropout is a probability, in \[0, 1\], got 1.5"),
        (lambda: build(word_dropout=float("nan")), "got nan"),
        (lambda: build(beta=-1.0), "beta.*-1"),
        (lambda: drop_words(IDS, rng(), rate=-0.1), r"rate is a probability, in \[0, 1\], got -0.1"),
        (lambda: build().training_loss(IDS[:, :1], rng()), r"\(N, at least 2\).*got \(3, 1\)"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_free_bits_with_a_prior_that_has_no_units_is_refused():
    model = TextVAE.gru(V, latent=2, prior=GaussianMixturePrior(2, components=2))
    with pytest.raises(ValueError, match="StandardNormal, got GaussianMixturePrior"):
        TextVariationalAutoencoder(model, free_bits=0.1)
