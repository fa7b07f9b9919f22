"""The sentence autoencoder's networks: padding, the future unseen, the code's two ways in, greedy and drawn writing."""

import io
import math

import pytest
import torch

from course_utils.models import SentenceReader, SentenceWriter, TextVAE, reparametrise
from course_utils.text import CLS, PAD, SEP

V, LATENT = 20, 3
IDS = torch.tensor([[CLS, 7, 8, 9, 10, SEP], [CLS, 11, 7, SEP, PAD, PAD], [CLS, 6, SEP, PAD, PAD, PAD]])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def build(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextVAE.gru(V, latent=LATENT, **{"dim": 6, "hidden": 8, **options})


def gru_by_hand(gru, inputs, h):
    """The equations of Cho et al. 2014 in torch's form, one word at a time: the state after each of (T, D) inputs."""
    states = []
    for x in inputs:
        gates = gru.weight_ih_l0 @ x + gru.bias_ih_l0, gru.weight_hh_l0 @ h + gru.bias_hh_l0
        (r_x, z_x, n_x), (r_h, z_h, n_h) = (part.chunk(3) for part in gates)
        r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
        h = (1 - z) * (n_x + r * n_h).tanh() + z * h
        states.append(h)
    return torch.stack(states)


# --- reading


def test_the_reader_gives_the_state_after_the_last_word_row_by_row():
    reader = build().encoder.body.double()
    states = reader(IDS)
    for row, state in zip(IDS, states, strict=True):
        words = reader.words.weight[row[row != PAD]]
        expected = gru_by_hand(reader.gru, words, torch.zeros(8, dtype=torch.float64))[-1]
        torch.testing.assert_close(state, expected)


def test_more_padding_changes_no_code_and_a_word_more_does():
    model = build()
    padded = torch.cat([IDS, torch.full((3, 4), PAD)], 1)
    for with_padding, without in zip(model.encoder.distribution(padded), model.encoder.distribution(IDS), strict=True):
        torch.testing.assert_close(with_padding, without)
    longer = padded.clone()
    longer[:, 6] = torch.tensor([9, PAD, PAD])
    changed = (model.encoder(longer) - model.encoder(IDS)).abs().amax(1)
    assert changed[0] > 1e-3
    assert changed[1:].max() < 1e-6


# --- writing


def test_scores_are_those_of_a_gru_that_starts_from_the_code_and_is_given_it_beside_each_word():
    writer = build().decoder.double()
    z = torch.randn(3, LATENT, generator=rng(), dtype=torch.float64)
    scores = writer(z, IDS)
    assert scores.shape == (3, 6, V)
    for code, row, found in zip(z, IDS, scores, strict=True):
        start = (writer.start.weight @ code + writer.start.bias).tanh()
        inputs = torch.stack([torch.cat([writer.words.weight[word], code]) for word in row])
        states = gru_by_hand(writer.gru, inputs, start)
        expected = (states @ writer.out.weight.T + writer.out.bias) @ writer.words.weight.T + writer.bias
        torch.testing.assert_close(found, expected)


def test_scores_before_a_word_do_not_depend_on_it_or_on_what_follows():
    writer, z = build().decoder, torch.randn(3, LATENT, generator=rng())
    changed = IDS.clone()
    changed[:, 3:] = 15
    torch.testing.assert_close(writer(z, changed)[:, :3], writer(z, IDS)[:, :3])
    assert (writer(z, changed)[:, 3:] - writer(z, IDS)[:, 3:]).abs().amin(0).max() > 1e-3


def test_a_writer_cut_off_from_the_code_says_the_same_for_every_code_and_one_that_is_not_does_not():
    writer = build().decoder
    codes = torch.randn(2, LATENT, generator=rng())
    row = IDS[:1].expand(2, -1)
    assert (writer(codes, row)[0] - writer(codes, row)[1]).abs().max() > 1e-2
    with torch.no_grad():
        writer.start.weight.zero_()
        writer.gru.weight_ih_l0[:, -LATENT:] = 0
    assert torch.equal(*writer(codes, row))


def test_greedy_writing_takes_the_likeliest_word_given_all_before_it():
    model = build()
    z = torch.randn(5, LATENT, generator=rng()) * 3
    written = model.decode(z, length=9)
    assert torch.equal(written, model.decode(z, length=9))
    assert written.shape == (5, 9)
    assert (written[:, 0] == CLS).all()
    for code, row in zip(z, written, strict=True):
        for t in range(1, 9):
            scores = model.decoder(code[None], row[None, :t])[0, -1].detach().clone()
            scores[[PAD, CLS]] = -torch.inf
            assert row[t] == (PAD if SEP in row[:t] else scores.argmax())


def test_a_sentence_ends_with_its_first_end_and_padding_follows():
    model = build()
    with torch.no_grad():
        model.decoder.bias[SEP] = 1.5  # so that sentences end now and then
    written = model.sample(200, rng(), length=12)
    ended = written.eq(SEP).any(1)
    assert 20 < ended.sum() < 200
    assert written.eq(SEP).sum(1).max() == 1
    after = written.eq(SEP).cumsum(1).bool() & written.ne(SEP)
    assert written[after].eq(PAD).all()
    assert written[~after].ne(PAD).all()
    assert written[:, 1:].ne(CLS).all()
    assert model.encoder(written).isfinite().all()  # what was written can be read


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_drawn_words_have_the_softmax_of_scores_over_temperature(temperature):
    model = build()
    with torch.no_grad():
        model.decoder.bias.copy_(2 * torch.randn(V, generator=rng(5)))
    z = torch.randn(1, LATENT, generator=rng()).expand(20_000, -1)
    drawn = model.decode(z, length=2, rng=rng(1), temperature=temperature)[:, 1]
    scores = model.decoder(z[:1], torch.tensor([[CLS]]))[0, 0].detach() / temperature
    scores[[PAD, CLS]] = -torch.inf
    p = scores.softmax(0)
    for word, count in enumerate(drawn.bincount(minlength=V).tolist()):
        assert abs(count - 20_000 * p[word]) <= 5 * math.sqrt(20_000 * p[word] * (1 - p[word])) + 1e-6, word


def test_draws_follow_from_the_generator_and_leave_the_global_one_alone():
    model, state = build(), torch.get_rng_state()
    one = model.sample(6, rng(1), length=8)
    assert torch.equal(one, model.sample(6, rng(1), length=8))
    assert not torch.equal(one, model.sample(6, rng(2), length=8))
    assert torch.equal(torch.get_rng_state(), state)


def test_greedy_samples_are_decoded_from_draws_of_the_prior_and_reconstructions_from_means():
    model = build()
    z = model.prior.sample(6, rng(1))
    assert torch.equal(model.sample(6, rng(1), length=8, greedy=True), model.decode(z, length=8))
    assert torch.equal(model.reconstruct(IDS), model.decode(model.encoder(IDS), length=6))


# --- both


def test_gradients_of_a_score_reach_every_weight_of_both_networks_through_the_draw():
    model = build()
    z = reparametrise(*model.encoder.distribution(IDS), rng())
    model.decoder(z, IDS).log_softmax(2)[:, :, 7].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_the_state_carries_all_that_was_learnt():
    model, other, file = build(0), build(1), io.BytesIO()
    z = torch.randn(3, LATENT, generator=rng())
    assert not torch.allclose(model.decoder(z, IDS), other.decoder(z, IDS))
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(model.decoder(z, IDS), other.decoder(z, IDS))
    assert torch.equal(model.encoder(IDS), other.encoder(IDS))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda model: model.encoder(IDS[0]), r"int64 of shape \(N, at least 1\), got torch.int64 \(6,\)"),
        (lambda model: model.encoder(IDS.float()), r"got torch.float32 \(3, 6\)"),
        (lambda model: model.encoder(IDS[:, :0]), r"got torch.int64 \(3, 0\)"),
        (lambda model: model.encoder(IDS.flip(1)), "padding must follow the last token"),
        (lambda model: model.encoder(torch.full((1, 3), PAD)), "no row may be all padding"),
        (lambda model: model.decoder(torch.zeros(3, 2), IDS), r"codes must be \(N, 3\), got \(3, 2\)"),
        (lambda model: model.decoder(torch.zeros(2, LATENT), IDS), "got 2 codes and 3 rows"),
        (lambda model: model.decode(torch.zeros(2, LATENT), length=1), "length must be at least 2, .*got 1"),
        (lambda model: model.decode(torch.zeros(2, LATENT), length=5, temperature=0.0), "positive, got 0.0"),
        (lambda model: model.decode(torch.zeros(2, 5), length=5), r"codes must be \(N, 3\), got \(2, 5\)"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call(build())


def test_both_networks_stand_alone():
    reader, writer = SentenceReader(V, dim=4, hidden=5), SentenceWriter(V, latent=2, dim=4, hidden=5)
    assert writer(reader(IDS)[:, :2], IDS).shape == (3, 6, V)
