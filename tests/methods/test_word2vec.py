"""Word2vec: its noise has the paper's distribution, its loss is equation 4, and words of one company come together."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_utils.losses import skip_gram_negative_sampling
from course_utils.methods import Word2Vec
from course_utils.models import WordVectors
from course_utils.text import skip_grams
from course_utils.train import fit

COUNTS = torch.tensor([0.0, 100.0, 50.0, 10.0, 0.0, 1.0])


def build(counts=COUNTS, dim=8, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Word2Vec(WordVectors(len(counts), dim=dim), counts=counts, **options)


@pytest.mark.parametrize("power", [0.75, 1.0, 0.0])
def test_noise_words_are_drawn_with_the_power_of_their_share(power):
    n = 40_000
    drawn = build(power=power, k=3).noise(n, torch.Generator().manual_seed(0))
    assert drawn.shape == (n, 3)
    share = torch.where(COUNTS > 0, COUNTS**power, 0.0)
    share = share / share.sum()
    counted = drawn.flatten().bincount(minlength=6)
    for word, p in enumerate(share.tolist()):
        assert abs(counted[word] - 3 * n * p) <= 5 * math.sqrt(3 * n * p * (1 - p))


def test_the_loss_is_equation_4_with_noise_from_the_generator():
    method = build()
    torch.nn.init.normal_(method.out.weight, generator=torch.Generator().manual_seed(1))
    words, near = torch.tensor([1, 2, 3]), torch.tensor([2, 1, 5])
    loss, logs = method.training_loss((words, near), torch.Generator().manual_seed(4))
    noise = method.noise(3, torch.Generator().manual_seed(4))
    v, out = method.encoder.words.weight, method.out.weight
    assert logs == {}
    torch.testing.assert_close(loss, skip_gram_negative_sampling(v[words], out[near], out[noise]))
    loss.backward()
    assert v.grad[4].abs().sum() == 0
    assert v.grad[[1, 2, 3]].abs().sum() > 0
    assert out.grad[5].abs().sum() > 0


def test_words_that_keep_the_same_company_get_the_same_direction():
    rng = torch.Generator().manual_seed(0)
    sentences = []
    for _ in range(600):  # words 5 and 6 stand beside 1 or 2, words 7 and 8 beside 3 or 4
        side = int(torch.randint(2, (), generator=rng))
        word, near = (int(torch.randint(2, (), generator=rng)) for _ in range(2))
        sentences.append([5 + 2 * side + word, 1 + 2 * side + near])
    pairs = skip_grams(sentences, rng, window=1)
    method = build(torch.cat(pairs).bincount(minlength=9).float())
    history = fit(method, pairs, steps=150, batch_size=256, lr=0.05, progress=False)
    v = F.normalize(method.encode(torch.arange(9)), dim=1)
    similarity = v @ v.T
    assert min(similarity[5, 6], similarity[7, 8]) > 0.9
    assert similarity[5:7, 7:9].max() < 0.6
    assert history.losses[-1] < history.losses[0] == pytest.approx(6 * math.log(2), rel=1e-4)


def test_the_state_holds_both_tables_and_the_noise():
    assert set(build().state_dict()) == {"encoder.words.weight", "out.weight", "up_to"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"counts": torch.ones(5)}, r"counts must be \(6,\).*got \(5,\)"),
        ({"counts": -torch.ones(6)}, "none negative and not all zero"),
        ({"counts": torch.zeros(6)}, "not all zero"),
        ({"counts": COUNTS, "k": 0}, "k must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Word2Vec(WordVectors(6), **options)
