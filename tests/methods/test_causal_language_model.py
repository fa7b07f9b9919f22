"""Causal language models: the chain rule, no look ahead, and sampling by temperature and top-k."""

import math

import pytest
import torch

from course_utils.methods import CausalLanguageModel
from course_utils.models import Transformer
from course_utils.text import PAD
from course_utils.train import fit

IDS = torch.randint(5, 30, (8, 10), generator=torch.Generator().manual_seed(1))


def build(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Transformer(30, **{"dim": 16, "depth": 2, "heads": 2, "length": 10, "causal": True, **options})
        return CausalLanguageModel(encoder)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def test_the_loss_is_the_mean_surprise_at_each_next_token_read_one_by_one():
    method = build().eval()
    loss, logs = method.training_loss(IDS, seeded())
    nats, right = [], []
    with torch.no_grad():
        for row in IDS:
            for t in range(1, 10):
                h = method.encoder.tokens(row[None, :t])[0, -1]  # nothing later is even there
                scores = method.encoder.words.weight @ h
                nats.append(-scores.log_softmax(0)[row[t]].item())
                right.append(float(scores.argmax() == row[t]))
    assert loss.item() == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert logs["accuracy"] == pytest.approx(sum(right) / len(right))
    torch.testing.assert_close(method.surprise(IDS).flatten(), torch.tensor(nats))


def test_a_later_token_changes_no_earlier_score():
    method = build().eval()
    changed = IDS.clone()
    changed[:, 6:] = 5 + (changed[:, 6:] - 5 + 7) % 25
    before, after = method(IDS), method(changed)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_padding_costs_nothing():
    method = build().eval()
    padded = IDS.clone()
    padded[0, 4:] = PAD
    loss, _ = method.training_loss(padded, seeded())
    surprise = method.surprise(padded)
    assert (surprise[0, 3:] == 0).all()
    assert loss.item() == pytest.approx(surprise.sum().item() / (8 * 9 - 6), rel=1e-5)


def test_it_learns_to_count_and_goes_on_counting():
    start = torch.randint(0, 20, (256, 1), generator=seeded())
    ids = 5 + (start + torch.arange(10)) % 20
    method = build()
    history = fit(method, ids, steps=150, batch_size=64, lr=1e-2, progress=False)
    assert history.losses[0] == pytest.approx(math.log(30), abs=0.2)
    written = method.generate(torch.tensor([[7, 8, 9]]), 15, rng=seeded(), top_k=1)
    assert written.tolist() == [[5 + (2 + i) % 20 for i in range(18)]]  # past its own length of 10


def test_samples_have_the_softmax_of_scores_over_temperature_among_the_top_k():
    method = build()
    prompt = IDS[:1].expand(20_000, -1)[:, :4]
    scores = method.eval()(prompt[:1])[0, -1].detach()
    for temperature, top_k in [(1 / 2, None), (1.0, 5), (1.0, 1)]:
        drawn = method.generate(prompt, 1, rng=seeded(), temperature=temperature, top_k=top_k)[:, -1]
        logits = scores / temperature
        logits[PAD] = -math.inf
        if top_k:
            logits[logits < logits.topk(top_k).values[-1]] = -math.inf
        p = logits.softmax(0)
        counted = drawn.bincount(minlength=30)
        for word in range(30):
            spread = 5 * math.sqrt(20_000 * p[word] * (1 - p[word])) + 1e-6
            assert abs(counted[word] - 20_000 * p[word]) <= spread, (temperature, word)


def test_writing_follows_from_the_generator_keeps_the_prompt_and_the_mode():
    method = build()
    one = method.generate(IDS[:2, :3], 6, rng=seeded(1))
    assert torch.equal(one, method.generate(IDS[:2, :3], 6, rng=seeded(1)))
    assert not torch.equal(one, method.generate(IDS[:2, :3], 6, rng=seeded(2)))
    assert torch.equal(one[:, :3], IDS[:2, :3])
    assert one.shape == (2, 9)
    assert method.training


def test_every_parameter_learns():
    method = build()
    method.training_loss(IDS, seeded())[0].backward()
    for name, parameter in method.named_parameters():
        if not name.endswith("qkv.bias"):
            assert parameter.grad.abs().sum() > 0, name


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="its encoder needs causal=True"):
        build(causal=False)
    method = build()
    for options, words in [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            method.generate(IDS, 1, rng=seeded(), **options)
    with pytest.raises(ValueError, match=r"prompt must be \(N, at least 1\), got \(2, 0\)"):
        method.generate(IDS[:2, :0], 1, rng=seeded())
